"""Measure the viewer: how long a slider's move takes, in the server and to the last pixel, and how long stores take to open.

Surfaces are drawn by software, as on a machine without a graphics card. The numbers in the stores are made up.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from unittest.mock import patch

import numpy as np
from report import Row, options, report

from sweeps import engine

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from scripts.bench_store import made_up, make_spec
from tests.browser import Viewer, browser, served

MOVES = 40
LAST_ANSWER = "() => performance.getEntriesByType('resource').filter(({ name }) => name.includes('/game?')).at(-1).duration"


def make(folder: Path, axis: int, surfaces: bool) -> Path:
    """A store of axis³ games that are done, 200 times and 21 inventories each."""
    path = folder / f"{axis}.zarr"
    with patch.object(engine, "solve", made_up):
        engine.run(make_spec(axis, surfaces), path)
    return path


def moves(folder: Path, axis: int, count: int) -> Iterator[Row]:
    """Of the slider of the first dim, back and forth."""
    path = make(folder, axis, surfaces=True)
    with served(path) as address, browser() as launched:
        viewer = Viewer(launched, address)
        of_server, drawn = [], []
        for i in range(count):
            key = "ArrowRight" if i % (2 * axis - 2) < axis - 1 else "ArrowLeft"
            before, began = viewer.moves, time.perf_counter()
            viewer.page.press("#slider-A", key)
            viewer.settle(before)
            viewer.page.evaluate("() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
            drawn.append(time.perf_counter() - began)
            of_server.append(viewer.page.evaluate(LAST_ANSWER) / 1000)
    for what, seconds in (("request to answer", of_server), ("slider to redraw", drawn)):
        median, most = np.median(seconds), np.quantile(seconds, 0.9)
        yield {"move": what, "games": axis**3, "median ms": 1e3 * float(median), "90 % ms": 1e3 * float(most)}


def opening(folder: Path, axis: int) -> Iterator[Row]:
    """From the command to its address, and to the first figures; the processor's time of what it reads."""
    path = make(folder, axis, surfaces=False)
    began = time.perf_counter()
    with served(path) as address:
        listening = time.perf_counter() - began
        with browser() as launched:
            began = time.perf_counter()
            Viewer(launched, address).page.close()
            shown = time.perf_counter() - began
    yield {"games": axis**3, "command to address s": listening, "address to figures s": shown}


def main() -> None:
    chosen = options(__doc__, short="few games, few moves")
    with TemporaryDirectory() as folder:
        few, many, count = (3, 4, 4) if chosen.short else (10, 100, MOVES)
        tables = {"A move of a slider": moves(Path(folder), few, count), "Opening a store": opening(Path(folder), many)}
        report("bench_viewer", tables, chosen.output, packages=("plotly", "xarray", "zarr"))


if __name__ == "__main__":
    main()

"""Measure the viewer: how long a slider's move takes, in the server and to the last pixel, and how long stores take to open.

Surfaces are drawn by software, as on a machine without a graphics card. The numbers in the stores are made up.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from report import Row, options, report

from sweeps import store as stores
from sweeps.dataset import STATUS, variables
from sweeps.sampling import design
from sweeps.schema import Spec
from sweeps.sweep import Sweep

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from tests.browser import Viewer, browser, served

MOVES = 40
LAST_ANSWER = "() => performance.getEntriesByType('resource').filter(({ name }) => name.includes('/game?')).at(-1).duration"


def make(folder: Path, axis: int, surfaces: bool) -> Path:
    """A store of axis³ games that are done, 200 times and 21 inventories each."""
    spec = Spec.model_validate(
        {
            "model": {"coupling": "relative"},
            "parameters": {"eta": 0.01},
            "sweep": {name: np.linspace(0.5, 2.0, axis).tolist() for name in ("A", "k", "gamma")},
            "outputs": {"surfaces": surfaces, "paths": surfaces},
        }
    )
    sweep, path = Sweep(spec), folder / f"{axis}.zarr"
    about = {"spec_hash": spec.hash(), "batch": 1, "started": "now", "device": "none", "versions": {}, "git_revision": "none"}
    target = stores.create(path, spec, design(spec), sweep.labels(), sweep.block_shape(), about)
    rng, labels = np.random.default_rng(0), sweep.labels()
    for block in target.blocks():
        shapes = {v.name: (len(block), *(labels.size(dim) for dim in v.dims)) for v in variables(spec)}
        target.write(block, {name: rng.uniform(size=shape) for name, shape in shapes.items()} | {STATUS.name: np.ones(len(block))})
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

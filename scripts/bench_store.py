"""What the engine itself costs: a sweep of a million games whose numbers are made up instead of solved for.

    python scripts/bench_store.py [--short] [--output FOLDER]

The first table gives games per second, microseconds a game and memory, tenth by tenth of the run; the second what is there then:
files, bytes, and the time that xarray takes to open the store and to read one variable of all games.
"""

from __future__ import annotations

import sys
import tempfile
import threading
import time
from collections.abc import Generator, Iterable, Iterator
from pathlib import Path
from unittest.mock import patch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
import xarray as xr

from scripts import report
from scripts.bench_scaling import tenths
from scripts.report import Row
from sweeps import engine
from sweeps.dataset import CONVERGED, STATUS, variables
from sweeps.solver import Solved, Solver
from sweeps.spec import Spec
from sweeps.sweep import Games

AXIS, SHORT_AXIS = 100, 10
"""Values of each of three parameters."""


def make_spec(axis: int, surfaces: bool = False) -> Spec:
    return Spec.model_validate(
        {
            "model": {"coupling": "relative"},
            "parameters": {"eta": 0.01},
            "sweep": {name: np.linspace(0.5, 2.0, axis).tolist() for name in ("A", "k", "gamma")},
            "outputs": {"surfaces": surfaces, "paths": surfaces},
        }
    )


def made_up(solver: Solver, games: Iterable[Games], stop: threading.Event) -> Generator[Solved]:
    """A number between 0 and 1 for everything that is asked of a game; nobody stops it."""
    del stop
    numbers = np.random.default_rng(0)
    shapes = {v.name: [solver.sweep.labels().size(dim) for dim in v.dims] for v in variables(solver.spec)}
    for several in games:
        results = {name: numbers.random((several.points.size, *shape)) for name, shape in shapes.items()}
        yield several, results | {STATUS.name: np.full(several.points.size, CONVERGED)}


def filling(axis: int, path: Path) -> Iterator[Row]:
    with patch.object(engine, "solve", made_up):
        for row in tenths(make_spec(axis), path):
            speed = row["games/s"]
            assert isinstance(speed, float)
            yield row | {"µs a game": 1e6 / speed}


def reading(path: Path) -> Iterator[Row]:
    files = [file for file in path.rglob("*") if file.is_file()]
    begun = time.perf_counter()
    with xr.open_zarr(path) as dataset:
        opened = time.perf_counter()
        dataset["mean_spread"].load()
        read = time.perf_counter()
    yield {
        "files": len(files),
        "MB": sum(file.stat().st_size for file in files) / 1e6,
        "open s": opened - begun,
        "read one variable s": read - opened,
    }


def main() -> None:
    chosen = report.options(__doc__, "a few games")
    axis = SHORT_AXIS if chosen.short else AXIS
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "s.zarr"
        tables = {f"Filling a store with {axis**3} games": filling(axis, path), "The store": reading(path)}
        report.report("bench_store", tables, chosen.output, packages=("xarray", "zarr"))


if __name__ == "__main__":
    main()

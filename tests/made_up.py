"""Games that are made up instead of solved, for tests of what surrounds the solver.

A game's numbers hang on its parameters alone. It converges where its `A` is at most the solver's `max_iterations`.
"""

import shutil
import threading
import zlib
from collections.abc import Generator, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
import xarray as xr

import mfg_jax as mfg
from sweeps import engine, retrying, store
from sweeps.dataset import open_store, variables
from sweeps.engine import Progress
from sweeps.place import Place
from sweeps.schema import Spec
from sweeps.solver import Results, Solved, Solver
from sweeps.sweep import Games

CONTENT: dict[str, Any] = {
    "model": {"coupling": "relative", "x_max": 3, "n_steps": 4},
    "parameters": {"k": 1.5, "eta": 0.01},
    "sweep": {"A": [1.0, 3.0, 300.0], "gamma": [0.02, 0.05], "crowd_mean": [0.0, 1.0]},
    "outputs": {"paths": False, "gradients": ["mean_spread"]},
    "solver": {"max_iterations": 100},
}
POINTS, BLOCK = 12, 4


def make(**changes: Any) -> Spec:
    return Spec.model_validate(CONTENT | changes)


PATIENT = make(solver={"max_iterations": 400, "tolerance": 1e-8})
HARD = 4
"""Games that converge with PATIENT's settings of the solver only: those with the largest A, which make the last of three blocks."""


@contextmanager
def games_made_up() -> Iterator[list[dict[str, float]]]:
    """The games that are asked for meanwhile, by their parameters."""
    asked_for: list[dict[str, float]] = []

    def solve(solver: Solver, games: Iterable[Games], stop: threading.Event | None = None) -> Generator[Solved]:
        for several in games:
            if stop and stop.is_set():
                return
            columns = {name: values.tolist() for name, values in several.columns.items()}
            each = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
            asked_for.extend(each)
            yield several, results_of(solver, each)

    with patch.object(engine, "solve", solve), patch.object(store, "games_per_block", lambda points, largest: BLOCK):
        yield asked_for


def results_of(solver: Solver, games: list[dict[str, float]]) -> Results:
    labels = solver.sweep.labels()
    results = {}
    for variable in variables(solver.spec):
        shape = [labels.size(dim) for dim in variable.dims]
        results[variable.name] = np.stack([made_up_numbers(variable.name, game, shape) for game in games])
    results["mass_error"] *= 1e-14
    converged = np.array([game["A"] <= solver.spec.solver.max_iterations for game in games])
    return results | {"status": np.where(converged, mfg.Status.CONVERGED, mfg.Status.ITERATION_LIMIT)}


def made_up_numbers(name: str, game: dict[str, float], shape: list[int]) -> np.ndarray:
    return np.random.default_rng(zlib.crc32(repr((name, sorted(game.items()))).encode())).uniform(size=shape)


def run(spec: Spec, path: Place, **options: Any) -> tuple[Progress, list[dict[str, float]]]:
    """How it went, and which games were asked for."""
    with games_made_up() as asked_for:
        return engine.run(spec, path, **options), asked_for


def retry(
    spec: Spec, path: Place, statuses: tuple[str, ...] = retrying.FAILED, **options: Any
) -> tuple[Progress, list[dict[str, float]]]:
    """How the games that were tried again ended, and which they were."""
    with games_made_up() as asked_for:
        return retrying.retry(spec, path, statuses, **options), asked_for


def fixtures_of(spec: Spec) -> tuple[Any, Any]:
    """Of a module: a finished store that nobody changes, and a copy of it for each test."""

    @pytest.fixture(scope="module")
    def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
        path = tmp_path_factory.mktemp("finished") / "s.zarr"
        run(spec, path)
        return path

    @pytest.fixture
    def path(finished: Path, tmp_path: Path) -> Path:
        return shutil.copytree(finished, tmp_path / "s.zarr")

    return finished, path


def contents(folder: Path) -> dict[str, bytes]:
    """All files below a folder."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def loaded(path: Place) -> xr.Dataset:
    with open_store(path) as dataset:
        return dataset.load()


def assert_same_bits(found: xr.Dataset, expected: xr.Dataset) -> None:
    assert set(found.data_vars) == set(expected.data_vars)
    for name, values in expected.variables.items():
        np.testing.assert_array_equal(found[name].values, values.values, strict=True, err_msg=str(name))

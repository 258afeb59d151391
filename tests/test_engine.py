"""The engine against the library, game by game; and runs that are stopped, resumed, disturbed or refused."""

import errno
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import version
from itertools import pairwise
from pathlib import Path
from typing import Any
from unittest.mock import patch

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import xarray as xr
import zarr
from jax.experimental.compilation_cache import compilation_cache

import mfg_jax as mfg
from mfg_jax import krylov
from mfg_jax.equilibrium import solve_along_path
from mfg_jax.parameters import as_scalars
from sweeps import engine, information, lock, one_by_one, runtime, store
from sweeps.dataset import SCALARS, STATUSES, open_store
from sweeps.engine import Interrupted, Progress
from sweeps.programs import Way
from sweeps.schema import Spec
from sweeps.share import Share
from sweeps.solver import Solver
from sweeps.store import StoreError
from sweeps.sweep import FEWEST_LANES, GAMES_PER_CALL, LARGEST_CPU_BATCH, Sweep

CALM: dict[str, Any] = {
    "model": {"coupling": "relative", "x_max": 3, "n_steps": 20},
    "parameters": {"k": 1.5, "eta": 0.01},
    "sweep": {"A": [1.0, 3.0], "gamma": [0.02, 0.05], "quote_min": [0.0], "crowd_mean": [0.0, 1.0]},
    "outputs": {"paths": True, "surfaces": True},
    "solver": {"tolerance": 1e-12, "select": "cold"},
}
# One axis of calm games, and on each of three axes one value with which games explode or are none: 10/k is below a quote_min of 8.
WILD: dict[str, Any] = CALM | {
    "sweep": {"A": [1.0, 3.0, 1e6], "gamma": [0.05, 1e300], "quote_min": [0.0, -np.inf, 8.0], "crowd_mean": [1.0, 0.0]},
}
POINTS, BLOCK, BATCH = 36, 12, 7
# Plain steps compile in a third of the time.
PLAIN: dict[str, Any] = {
    "model": {"x_max": 3, "n_steps": 20, "scheme": "euler", "grading": 0.5},
    "parameters": {"A": 2.0, "k": 1.5, "eta": 0.01, "k0": 0.4},
    "outputs": {"paths": True, "surfaces": True},
    "solver": {"method": "picard", "tolerance": 1e-12, "max_iterations": 50, "select": "cold"},
    "metrics": {"derisk_band": 2},
}


def of_model(content: Mapping[str, Any]) -> dict[str, Any]:
    """The part of the solver's section that the library's model takes."""
    return {key: value for key, value in content["solver"].items() if key != "select"}


def make(content: Mapping[str, Any], **changes: Any) -> Spec:
    return Spec.model_validate({**content, **changes})


def run(spec: Spec, path: Path, batch: int | None = BATCH, block: int = BLOCK, **options: Any) -> Progress:
    """A run whose blocks have `block` games."""
    with patch.object(store, "games_per_block", lambda points, largest: block):
        return engine.run(spec, path, batch, **options)


def loaded(path: Path) -> xr.Dataset:
    with open_store(path) as dataset:
        return dataset.load()


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def assert_same_bits(found: xr.Dataset, expected: xr.Dataset) -> None:
    assert set(found.data_vars) == set(expected.data_vars)
    for name, values in expected.variables.items():
        np.testing.assert_array_equal(found[name].values, values.values, strict=True, err_msg=str(name))


def assert_nearly_the_same(found: xr.Dataset, expected: xr.Dataset) -> None:
    """But for rounding, and for games that did not converge."""
    np.testing.assert_array_equal(found["status"], expected["status"])
    good = expected["status"] == mfg.Status.CONVERGED
    assert good.sum() > 3
    for name, values in expected.data_vars.items():
        np.testing.assert_allclose(found[name].where(good), values.where(good), rtol=1e-9, atol=1e-9, err_msg=str(name))


@contextmanager
def compilations() -> Iterator[list[Any]]:
    """The programs that are compiled meanwhile, with none kept from before."""
    compiled = []
    compile_program = jax.stages.Lowered.compile

    def spy(lowered: jax.stages.Lowered, *args: Any) -> jax.stages.Compiled:
        compiled.append(lowered)
        return compile_program(lowered, *args)

    with (
        tempfile.TemporaryDirectory() as caches,
        patch.dict(os.environ, XDG_CACHE_HOME=caches),
        patch.object(jax.stages.Lowered, "compile", spy),
    ):
        yield compiled


@contextmanager
def optimised() -> Iterator[None]:
    """Compiles programs as for use."""
    jax.config.update("jax_disable_most_optimizations", False)
    yield
    jax.config.update("jax_disable_most_optimizations", True)


@pytest.fixture(scope="module", autouse=True)
def compile_once(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Programs that are alike."""
    jax.config.update("jax_compilation_cache_dir", str(tmp_path_factory.getbasetemp() / "programs"))
    compilation_cache.reset_cache()
    yield
    jax.config.update("jax_compilation_cache_dir", None)
    compilation_cache.reset_cache()


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> xr.Dataset:
    """WILD, solved without interruption."""
    path = tmp_path_factory.mktemp("whole") / "s.zarr"
    run(make(WILD), path)
    return loaded(path)


# against the library


def solved_directly(model: mfg.Model, parameters: mfg.Parameters, derisk_band: int = 1) -> dict[str, np.ndarray]:
    equilibrium = mfg.solve(model, parameters, select="cold")
    metrics = mfg.metrics(model, parameters, equilibrium, derisk_band)
    return {name: np.asarray(value) for name, value in {**vars(equilibrium), **vars(metrics)}.items()}


def points(dataset: xr.Dataset) -> Iterator[xr.Dataset]:
    dims = dataset["status"].dims
    for place in np.ndindex(dataset["status"].shape):
        yield dataset.isel(dict(zip(dims, place, strict=True)))


def parameters_of(point: xr.Dataset, fixed: Mapping[str, float]) -> mfg.Parameters:
    swept = {name: float(point[name]) for name in vars(mfg.Parameters(A=1.0, k=1.0, eta=1.0, gamma=1.0)) if name in point.coords}
    return mfg.Parameters(**{"A": None, "k": None, **fixed, **swept})


def model_of(point: xr.Dataset, choices: Mapping[str, Any]) -> mfg.Model:
    swept = {name: str(point[name].values) for name in ("coupling", "boundary") if name in point.coords}
    return mfg.Model(**{**choices, **swept})


def assert_as_solved_directly(point: xr.Dataset, expected: Mapping[str, np.ndarray], rtol: float = 1e-13) -> None:
    """A game that ran out of iterations is compared by its status: its last iterate hangs on every rounding."""
    assert int(point["status"]) == expected["status"]
    if int(point["status"]) == mfg.Status.ITERATION_LIMIT:
        return
    for name in map(str, point.data_vars):
        value = np.where(np.isposinf(expected[name]), np.nan, expected[name]) if name in ("ask", "bid") else expected[name]
        if name == "monotone" and np.isnan(expected["min_density"]):
            value = np.nan
        np.testing.assert_allclose(point[name], value, rtol=rtol, atol=1e-14, err_msg=name)


def compare_with_library(content: Mapping[str, Any], path: Path, initial: Any, rtol: float = 1e-13) -> xr.Dataset:
    """Runs the sweep, with one program for each kind of game, and compares every game."""
    with compilations() as compiled:
        run(make(content), path, batch=3, block=5)
    dataset = loaded(path)
    choices = {**content["model"], "initial": initial, "solver": of_model(content)}
    models = [model_of(point, choices) for point in points(dataset)]
    assert len(compiled) == len(set(models))
    for model, point in zip(models, points(dataset), strict=True):
        expected = solved_directly(model, parameters_of(point, content["parameters"]), **content["metrics"])
        assert_as_solved_directly(point, expected, rtol)
    return dataset


class TestAgainstTheLibrary:
    def test_a_grid_with_exploding_and_invalid_games(self, whole: xr.Dataset):
        model = mfg.Model(**CALM["model"], solver=of_model(CALM))
        for point in points(whole):
            assert_as_solved_directly(point, solved_directly(model, parameters_of(point, CALM["parameters"])))
        invalid, converged = mfg.Status.INVALID_PARAMETERS, mfg.Status.CONVERGED
        assert (whole["status"].sel(quote_min=8.0) == invalid).all()
        assert (whole["status"].sel(quote_min=[0.0, -np.inf]) != invalid).all()
        assert (whole["status"].sel(A=[1.0, 3.0], quote_min=[0.0, -np.inf], gamma=0.05) == converged).all()
        assert (whole["status"].sel(A=1e6) != converged).all()
        assert (whole["status"].sel(gamma=1e300) != converged).all()
        meaningless = whole["status"].isin([mfg.Status.UNSTABLE_STEP, mfg.Status.INVALID_PARAMETERS])
        assert meaningless.any() and whole["monotone"].where(meaningless).isnull().all()
        assert (whole["monotone"].where(whole["status"] == converged, 1.0) == 1.0).all()

    def test_a_grid_of_couplings_and_boundaries(self, tmp_path: Path):
        content = PLAIN | {
            "sweep": {"gamma": [0.05, 0.1], "coupling": ["none", "elastic"], "horizon": [0.5, 1.0]}
            | {"boundary": ["reflecting", "absorbing"]},
            "initial": {"kind": "uniform"},
        }
        dataset = compare_with_library(content, tmp_path / "s.zarr", "uniform")
        # who does not quote has no offset, and only he
        unquoted = {"ask": {"reflecting": [-3], "absorbing": [-3, 3]}, "bid": {"reflecting": [3], "absorbing": [-3, 3]}}
        for side, by_boundary in unquoted.items():
            for boundary, inventory in by_boundary.items():
                missing = dataset[side].sel(boundary=boundary).isnull()
                assert missing.sel(inventory=inventory).all()
                assert not missing.drop_sel(inventory=inventory).any()

    def test_a_table_with_one_sided_flow_and_quote_bounds(self, tmp_path: Path):
        content = PLAIN | {
            "parameters": PLAIN["parameters"] | {"k_bid": 1.2},
            "sampling": "zip",
            "sweep": {
                "coupling": ["market_share", "relative", "market_share", "relative"],
                "A_ask": [1.0, 2.5, 1.5, 1.0],
                "gamma": [0.05, 0.02, 0.1, 0.05],
                "quote_max": [np.inf, 4.0, 2.0, np.inf],
                "crowd_mean": [1.0, 0.0, -3.0, 2.0],
            },
            "initial": {"kind": "point"},
        }
        dataset = compare_with_library(content, tmp_path / "s.zarr", "point")
        assert (dataset["status"] == mfg.Status.CONVERGED).all()
        assert dataset["coupling"].values.tolist() == content["sweep"]["coupling"]

    def test_single_precision_outputs_of_games_solved_in_double(self, tmp_path: Path):
        weights = [1.0, 0.0, 2.0, 3.0, 2.0, 1.0, 0.0]
        content = PLAIN | {
            "model": {**PLAIN["model"], "coupling": "none"},
            "initial": {"kind": "weights", "weights": weights},
            "sweep": {"gamma": [0.02, 0.05], "eta": [0.01, 0.03]},
            "parameters": {"A": 2.0, "k": 1.5},
            "outputs": {"paths": True, "dtype": "float32"},
        }
        dataset = compare_with_library(content, tmp_path / "s.zarr", mfg.Weights(tuple(weights)), rtol=1e-7)
        assert {str(v.dtype) for v in dataset.data_vars.values()} == {"float32", "int8"}
        assert (dataset["residual"] < 1e-12).all()

    def test_gradients(self, tmp_path: Path):
        """Those of a game that did not converge mean nothing."""
        names = ["mean_spread", "expected_value"]
        content = PLAIN | {
            "model": {**PLAIN["model"], "coupling": "relative"},
            "parameters": {"k": 1.5, "eta": 0.01, "A_bid": 1.5},
            "sweep": {"A": [1.0, 2.0, 1e6], "gamma": [0.05], "crowd_mean": [1.0]},
            "outputs": {"paths": False, "gradients": names},
        }
        run(make(content), tmp_path / "s.zarr", batch=2)
        dataset = loaded(tmp_path / "s.zarr")
        model = mfg.Model(**content["model"], solver=of_model(content))

        def differentiated(parameters: mfg.Parameters) -> jax.Array:
            metrics = mfg.metrics(model, parameters, mfg.solve(model, parameters, select="cold"))
            return jnp.stack([getattr(metrics, name) for name in names])

        jacobian = jax.jit(jax.jacrev(differentiated))
        given = ["A", "k", "eta", "gamma", "k0", "n_makers", "crowd_mean", "crowd_std", "horizon", "quote_min", "A_bid"]
        assert dataset["parameter"].values.tolist() == given
        for point in points(dataset.isel(A=[0, 1])):
            expected = jacobian(parameters_of(point, content["parameters"]))
            for row, name in enumerate(names):
                found = point[f"d_{name}"]
                for parameter in given:
                    exact = getattr(expected, parameter)[row]
                    np.testing.assert_allclose(found.sel(parameter=parameter), exact, rtol=1e-9, atol=1e-12)
        assert dataset["status"].sel(A=1e6) != mfg.Status.CONVERGED
        assert dataset["d_mean_spread"].sel(A=1e6).isnull().all() and dataset["differentiated"].sel(A=1e6).isnull().all()
        assert (dataset["differentiated"].isel(A=[0, 1]) == 1).all()

    def test_names_alone_are_swept(self, tmp_path: Path):
        content = PLAIN | {"parameters": PLAIN["parameters"] | {"gamma": 0.05}}
        run(make(content, sweep={"coupling": ["elastic", "none"], "boundary": ["reflecting", "absorbing"]}), tmp_path / "s.zarr")
        found = loaded(tmp_path / "s.zarr")
        assert (found["status"] == mfg.Status.CONVERGED).all()
        assert np.unique(found["mean_spread"]).size == 4

    def test_derivatives_that_cannot_be_had(self, tmp_path: Path):
        """The games are solved all the same, and keep their numbers."""
        content = PLAIN | {"model": {**PLAIN["model"], "coupling": "relative"}}
        spec = make(content, sweep={"gamma": [0.05, 0.4]}, outputs={"paths": False, "gradients": ["mean_spread"]})
        with patch.object(krylov, "MOST_ROUNDS", 0):  # no trip towards the solution of the linear equations
            run(spec, tmp_path / "s.zarr")
        found = loaded(tmp_path / "s.zarr")
        assert (found["status"] == mfg.Status.CONVERGED).all() and (found["differentiated"] == 0).all()
        assert found["d_mean_spread"].sel(parameter=["k", "gamma"]).isnull().all() and found["mean_spread"].notnull().all()
        assert (found["residual"] < 1e-11).all()


# batches


class TestBaseline:
    def test_what_competition_does(self, tmp_path: Path):
        sweep = {"coupling": ["elastic", "none"], "boundary": ["reflecting", "absorbing"], "gamma": [0.05, 0.4]}
        spec = make(PLAIN, sweep=sweep, outputs={"paths": False, "baseline": True})
        run(spec, tmp_path / "s.zarr")
        found = loaded(tmp_path / "s.zarr")
        for scalar in (variable.name for variable in SCALARS):
            effect = found[f"competition_{scalar}"]
            np.testing.assert_array_equal(effect, found[scalar] - found[scalar].sel(coupling="none"))
            assert effect.attrs["units"] == found[scalar].attrs["units"]
        assert (np.abs(found.competition_mean_spread.sel(coupling="elastic")) > 0.01).all()

    def test_games_that_fail_have_none(self, tmp_path: Path):
        spec = make(
            PLAIN,
            model={**PLAIN["model"], "coupling": "elastic"},
            sweep={"gamma": [0.05, 0.4]},
            outputs={"baseline": True},
            solver={**PLAIN["solver"], "max_iterations": 3},
        )
        run(spec, tmp_path / "s.zarr")
        found = loaded(tmp_path / "s.zarr")
        assert (found.status == mfg.Status.ITERATION_LIMIT).all()
        assert np.isnan(found.competition_mean_spread).all()


def test_rates_of_each_side_and_none_of_both(tmp_path: Path):
    """As `mfgsweep calibrate` gives them, in a batch of several games."""
    same = {"model": {**PLAIN["model"], "coupling": "relative"}, "sweep": {"gamma": [0.02, 0.05]}}
    for name, rates in (("sides", {"A_ask": 2.0, "A_bid": 2.5}), ("override", {"A": 2.0, "A_bid": 2.5})):
        others = {key: value for key, value in PLAIN["parameters"].items() if key != "A"}
        run(make(PLAIN, **same, parameters=others | rates), tmp_path / name)
    xr.testing.assert_allclose(*(loaded(tmp_path / name) for name in ("sides", "override")), rtol=1e-12)


class TestBatches:
    def test_no_point_is_missing_and_none_is_added(self, tmp_path: Path):
        assert POINTS % BATCH and BLOCK % BATCH
        seen: list[tuple[int, int]] = []
        progress = run(make(WILD), tmp_path / "s.zarr", report=lambda p: seen.append((p.done, p.statuses.total())))
        assert seen[0] == (0, 0) and seen[-1] == (POINTS, POINTS)
        assert all(0 < after - before <= BATCH for (before, _), (after, _) in pairwise(seen))
        assert all(done == counted for done, counted in seen)
        status = loaded(tmp_path / "s.zarr")["status"]
        assert (progress.points, progress.done, progress.done_before) == (POINTS, POINTS, 0)
        assert progress.statuses == {STATUSES[code]: int((status == code).sum()) for code in set(status.values.ravel().tolist())}
        assert progress.points_per_second == pytest.approx(POINTS / progress.seconds)

    def test_all_batches_share_one_program_and_so_do_later_runs(self, tmp_path: Path):
        with compilations() as compiled:
            for name in ("first.zarr", "second.zarr"):
                run(make(WILD), tmp_path / name)
        assert len(compiled) == 1
        xr.testing.assert_equal(loaded(tmp_path / "first.zarr"), loaded(tmp_path / "second.zarr"))

    def test_batches_fit_into_the_memory(self, monkeypatch: pytest.MonkeyPatch):
        sweep = Sweep(make(CALM, sweep={"A": np.linspace(1, 2, 1_000).tolist(), "gamma": [0.0]}))
        assert sweep.batch_size() == LARGEST_CPU_BATCH
        monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
        assert sweep.batch_size() == FEWEST_LANES
        results = (GAMES_PER_CALL + 1) * sum(sweep.bytes_per_game().values())
        monkeypatch.setattr(runtime, "free_memory", lambda: 10 * 4 * (sweep.working_bytes_per_game() + results))
        assert (sweep.batch_size(), sweep.worker_count()) == (10, 1)
        monkeypatch.setattr(jax, "device_count", lambda: 3)
        assert sweep.batch_size() == 30
        monkeypatch.setattr(runtime, "free_memory", lambda: 0)
        assert sweep.batch_size() == 3

    def test_workers_fit_into_the_memory(self, monkeypatch: pytest.MonkeyPatch):
        sweep = Sweep(make(CALM))
        monkeypatch.setattr(runtime, "core_count", lambda: 64)
        assert sweep.worker_count() == 64
        monkeypatch.setattr(runtime, "free_memory", lambda: 5 * 2 * sweep.working_bytes_per_game())
        assert sweep.worker_count() == 5
        assert sweep.working_bytes(batch=7) == 5 * sweep.working_bytes_per_game()
        monkeypatch.setattr(runtime, "free_memory", lambda: 0)
        assert sweep.worker_count() == 1

    def test_games_that_fill_up_a_batch_are_not_solved(self):
        sweep = Sweep(make(CALM))
        (games,) = sweep.games(0, 5)
        results = Solver(sweep, 5).program(Way.COLD, sweep.model(*games.kind))(games.columns, 3)
        assert (np.asarray(results["iterations"]) > 0).tolist() == [True] * 3 + [False] * 2

    def test_batches_are_no_larger_than_the_sweep(self):
        assert Sweep(make(CALM)).batch_size() == 8


class TestLanes:
    """As on a device that wants many games side by side."""

    @pytest.fixture(autouse=True)
    def in_lanes(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(runtime, "side_by_side", lambda: True)

    def test_the_same_as_one_by_one(self, whole: xr.Dataset, tmp_path: Path):
        progress = run(make(WILD), tmp_path / "s.zarr")
        assert progress.idle_lanes is not None
        assert_nearly_the_same(loaded(tmp_path / "s.zarr"), whole)

    def test_a_games_bits_do_not_depend_on_the_others(self, tmp_path: Path):
        """In other batches, and so in other lanes, and with some games done before."""
        for name, block in (("twelve", 12), ("nine", 9)):
            run(make(WILD), tmp_path / name, block=block)
        assert_same_bits(*(loaded(tmp_path / name) for name in ("twelve", "nine")))

    def test_on_several_devices(self, whole: xr.Dataset, tmp_path: Path):
        """Each has its share of the lanes, and goes on without waiting for the other."""
        program = (
            "import sys, jax; from pathlib import Path; from sweeps import runtime; runtime.configure()\n"
            "from tests.test_engine import WILD, make, run\n"
            "assert jax.device_count() == 2; runtime.side_by_side = lambda: True\n"
            "print(run(make(WILD), Path(sys.argv[1]), batch=5).idle_lanes)\n"
        )
        settings = os.environ | {"XLA_FLAGS": "--xla_force_host_platform_device_count=2", "XDG_CACHE_HOME": str(tmp_path)}
        command = [sys.executable, "-c", program, str(tmp_path / "s.zarr")]
        printed = subprocess.run(command, env=settings, check=True, capture_output=True, text=True).stdout
        assert 0.0 < float(printed) < 0.9
        assert_nearly_the_same(loaded(tmp_path / "s.zarr"), whole)

    def test_several_kinds_of_games(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
        sweep = {"coupling": ["elastic", "none"], "gamma": np.linspace(0.02, 0.08, 20).tolist()}
        spec = make(PLAIN, sweep=sweep, outputs={"paths": False, "baseline": True})
        run(spec, tmp_path / "in lanes", batch=3)
        monkeypatch.setattr(runtime, "side_by_side", lambda: False)
        run(spec, tmp_path / "one by one")
        assert_nearly_the_same(*(loaded(tmp_path / name) for name in ("in lanes", "one by one")))

    def test_few_lanes_are_idle(self, tmp_path: Path):
        """What games there are last to the end, so that only the slowest of the last ones keep a lane alone."""
        content = PLAIN | {"model": {**PLAIN["model"], "coupling": "elastic"}, "outputs": {"paths": False}}
        sweep = {"gamma": np.linspace(0.02, 0.08, 200).tolist()}
        progress = run(make(content, sweep=sweep), tmp_path / "s.zarr", batch=8)
        assert progress.idle_lanes is not None
        assert 0.0 < progress.idle_lanes < 0.1

    def test_a_stopped_run_keeps_what_it_solved_and_goes_on_to_the_same_bits(self, tmp_path: Path):
        content = PLAIN | {"model": {**PLAIN["model"], "coupling": "elastic"}, "outputs": {"paths": False}}
        spec, stop = make(content, sweep={"gamma": np.linspace(0.02, 0.08, 100).tolist()}), threading.Event()
        reported: list[Progress] = []

        def report(progress: Progress) -> None:
            reported.append(progress)
            if progress.done:
                stop.set()

        with pytest.raises(Interrupted):
            run(spec, tmp_path / "stopped", batch=2, report=report, stop=stop)
        assert 8 <= (loaded(tmp_path / "stopped")["status"] != 0).sum() == reported[-1].done < 100
        for name in ("stopped", "whole"):
            run(spec, tmp_path / name, batch=2)
        assert_same_bits(*(loaded(tmp_path / name) for name in ("stopped", "whole")))

    def test_derivatives(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
        content = CALM | {"outputs": {"paths": False, "gradients": ["mean_spread"]}}
        run(make(content), tmp_path / "in lanes")
        monkeypatch.setattr(runtime, "side_by_side", lambda: False)
        run(make(content), tmp_path / "one by one")
        found, expected = (loaded(tmp_path / name)["d_mean_spread"] for name in ("in lanes", "one by one"))
        np.testing.assert_allclose(found, expected, rtol=1e-7, atol=1e-10)
        assert (expected.sel(parameter="gamma") != 0).all()


class TestPaths:
    """Games that a cold start leaves open are gone on with by themselves."""

    def test_the_same_as_one_by_one(self, tmp_path: Path):
        content: dict[str, Any] = {
            "model": {"coupling": "relative", "x_max": 5, "n_steps": 24},
            "parameters": {"A": 10.0, "k": 1.5, "eta": 0.1, "quote_max": 5.0},
            "sweep": {"gamma": [0.01, 0.5, 2.0], "crowd_mean": [0.0, 2.0]},
            "outputs": {"paths": True, "certify": "full"},
        }
        paths = [tmp_path / name for name in ("in one.zarr", "in three.zarr")]
        for path, batch in zip(paths, (6, 2), strict=True):
            run(make(content), path, batch=batch)
        together, apart = map(loaded, paths)
        assert_same_bits(together, apart)
        assert (together["status"] == mfg.Status.CONVERGED).all() and (together["branch"] == mfg.Branch.PRINCIPAL).all()
        assert (together["iterations"].values.ravel() > 60).sum() >= 2  # these took their path
        assert np.abs(together["exploitability"]).max() < 1e-9
        assert together["time_error"].min() > 0 and np.isfinite(together["time_error"]).all()
        assert together["contraction"].min() > 0.1 and np.isfinite(together["contraction"]).all()
        model = mfg.Model(**content["model"])
        for point in points(together):
            one = solve_along_path(model, as_scalars(parameters_of(point, content["parameters"]))).equilibrium
            np.testing.assert_allclose(point["crowd_bid"], one.crowd_bid, atol=1e-7)
            assert int(point["folds"]) == one.folds

    def test_in_lanes(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
        """One game that overflows, one in doubt, and easy ones."""
        content: dict[str, Any] = {
            "model": {"coupling": "relative", "x_max": 4, "n_steps": 16},
            "parameters": {"A": 10.0, "k": 1.5, "eta": 0.1, "quote_max": 5.0},
            "sweep": {"gamma": [0.01, 0.5, 2.0], "crowd_mean": [0.0, 2.0]},
            "outputs": {"paths": True},
        }
        run(make(content), tmp_path / "one by one", batch=6)
        monkeypatch.setattr(runtime, "side_by_side", lambda: True)
        run(make(content), tmp_path / "in lanes", batch=2)
        found, expected = (loaded(tmp_path / name) for name in ("in lanes", "one by one"))
        assert (expected["branch"] == mfg.Branch.PRINCIPAL).all() and (expected["iterations"] > 60).any()
        np.testing.assert_array_equal(found["branch"], expected["branch"])
        np.testing.assert_allclose(found["crowd_bid"], expected["crowd_bid"], atol=1e-7)


class TestResolution:
    """With a time_tolerance each game takes as many steps as it needs, on the time axis that was declared."""

    def test_as_few_steps_as_are_enough(self, tmp_path: Path):
        tolerance = 5e-5
        content: dict[str, Any] = {
            "model": {"coupling": "relative", "x_max": 5, "n_steps": 12, "scheme": "rk4", "time_tolerance": tolerance},
            "parameters": {"A": 4.0, "k": 1.5, "eta": 0.01, "quote_max": 5.0},
            "sweep": {"gamma": [0.01, 0.1, 0.3], "crowd_mean": [0.0, 1.0]},
            "outputs": {"surfaces": True},
            "solver": {"select": "cold"},
        }
        path = tmp_path / "sweep.zarr"
        run(make(content), path)
        found = loaded(path)
        assert (found["status"] == mfg.Status.CONVERGED).all() and (found["time_error"] <= tolerance).all()
        assert np.unique(found["steps"]).size >= 2 and found.sizes["time"] == 13
        model = mfg.Model(**content["model"])
        for point in points(found):
            steps = int(point["steps"])
            one = solved_directly(model.refined(steps // 12), parameters_of(point, content["parameters"]))
            np.testing.assert_allclose(point["crowd_bid"], one["crowd_bid"][:: steps // 12], atol=1e-12)
            np.testing.assert_allclose(point["value"], one["value"][:: steps // 12], atol=1e-12)
            assert float(point["mean_spread"]) == pytest.approx(float(one["mean_spread"]), rel=1e-12)

    def test_automatic_steps(self):
        sweep = Sweep(make(WILD, model=WILD["model"] | {"n_steps": "auto"}))
        model = sweep.model("none", "reflecting")
        assert (model.n_steps, model.time_tolerance) == (50, 1e-4)
        assert sweep.labels().time.size == 51


CROWDS = np.linspace(-1.0, 1.0, 30).tolist()
BATCHES = (1, 7, 512)


@pytest.fixture(scope="module")
def by_batch(tmp_path_factory: pytest.TempPathFactory) -> dict[int, xr.Dataset]:
    """The same 540 games in one block, most of them exploding or invalid, in batches of each size."""
    folder = tmp_path_factory.mktemp("neighbours")
    spec = make(WILD, sweep=WILD["sweep"] | {"crowd_mean": CROWDS})
    with optimised():
        for batch in BATCHES:
            run(spec, folder / f"{batch}.zarr", batch, block=1_000)
    return {batch: loaded(folder / f"{batch}.zarr") for batch in BATCHES}


class TestNeighbours:
    """The bits of a game do not depend on what is solved beside it: with the program as it is optimised for use."""

    @pytest.mark.parametrize("batch", BATCHES[1:])
    def test_in_a_batch_as_alone(self, by_batch: Mapping[int, xr.Dataset], batch: int):
        good = by_batch[1]["status"] == mfg.Status.CONVERGED
        assert good.sum() > 100
        assert (~good).sum() > 300
        assert_same_bits(by_batch[batch], by_batch[1])

    @pytest.mark.parametrize("batch", BATCHES)
    def test_in_a_sweep_of_one_game(self, by_batch: Mapping[int, xr.Dataset], tmp_path: Path, batch: int):
        game = {"A": [3.0], "gamma": [0.05], "quote_min": [0.0], "crowd_mean": [CROWDS[10]]}
        with optimised():
            run(make(WILD, sweep=game), tmp_path / "s.zarr", batch)
        alone = loaded(tmp_path / "s.zarr")
        assert alone["status"].item() == mfg.Status.CONVERGED
        assert_same_bits(alone, by_batch[512].sel(game))


# runs that stop and go on


def stopped(path: Path, after: int) -> int:
    """WILD, stopped once `after` games are solved; how many are by then, with those that were in flight."""
    stop = threading.Event()
    reported: list[Progress] = []

    def report(progress: Progress) -> None:
        reported.append(progress)
        if progress.done_before + progress.done >= after:
            stop.set()

    with (
        patch.object(one_by_one, "SECONDS_A_BATCH", 0.0),  # so that batches are of one game each
        patch.object(one_by_one, "RESULTS_AHEAD", 1),
        patch.object(runtime, "core_count", lambda: 2),
        pytest.raises(Interrupted),
    ):
        run(make(WILD), path, report=report, stop=stop)
    return reported[-1].done_before + reported[-1].done


class TestResuming:
    @pytest.mark.parametrize("after", [1, BLOCK, BLOCK + 1, 2 * BLOCK + 1])
    def test_a_stopped_run_keeps_what_it_solved_and_goes_on_to_the_same_bits(self, whole: xr.Dataset, tmp_path: Path, after: int):
        path = tmp_path / "s.zarr"
        stored = stopped(path, after)
        half = loaded(path)
        assert after <= (half["status"] != 0).sum() == half["iterations"].notnull().sum() == stored < after + BATCH
        assert "finished" not in half.attrs
        (path / "value" / "0.12ab.partial").write_text("half a fi")
        progress = run(make(WILD), path, batch=None)
        assert (progress.points, progress.done_before, progress.done) == (POINTS, stored, POINTS - stored)
        assert list(tmp_path.iterdir()) == [path] and not list(path.rglob("*.partial"))
        assert progress.statuses.total() == POINTS
        assert_same_bits(loaded(path), whole)

    def test_stopped_again_and_again(self, whole: xr.Dataset, tmp_path: Path):
        for after in (BLOCK + 1, 2 * BLOCK, 2 * BLOCK + 1):
            stopped(tmp_path / "s.zarr", after)
        run(make(WILD), tmp_path / "s.zarr")
        assert_same_bits(loaded(tmp_path / "s.zarr"), whole)

    def test_games_that_are_done_are_not_solved_again(self, whole: xr.Dataset, tmp_path: Path):
        """Whichever they are: here some of each block, which keep bits that no solver would give them."""
        path, numbers = tmp_path / "s.zarr", np.random.default_rng(3)
        stopped(path, 1)
        target = store.open_existing(path)
        done = target.parts((numbers.random(target.statuses().shape) < 0.4) | (target.statuses() != 0))
        for part in done:
            marked = {str(name): np.full((len(part), *v.shape[4:]), 7.5) for name, v in whole.data_vars.items()}
            target.write_part(part, marked | {"status": np.ones(len(part))})
        count = sum(map(len, done))
        assert 5 < count < 25 and len(done) == 3
        progress = run(make(WILD), path, batch=None)
        assert (progress.done_before, progress.done) == (count, POINTS - count)
        there = np.isin(np.arange(POINTS), np.concatenate([part.points for part in done])).reshape(target.statuses().shape)
        for name, variable in loaded(path).data_vars.items():
            marked = np.full_like(variable.values[there], 1 if name == "status" else 7.5)
            np.testing.assert_array_equal(variable.values[there], marked)
            np.testing.assert_array_equal(variable.values[~there], whole[name].values[~there])

    @pytest.mark.parametrize(
        ("error", "said"),
        [
            (OSError(errno.ENOSPC, "No space left on device"), "the disk is full, or a limit is reached"),
            (OSError(errno.EIO, "Input/output error"), "the disk refuses it: Input/output error"),
        ],
    )
    def test_a_failed_write_is_made_good(
        self, whole: xr.Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: OSError, said: str
    ):
        """The disk is full before the status of the second block is written."""
        write, written = zarr.Array.__setitem__, []

        def fail(array: zarr.Array, region: Any, values: Any) -> None:
            written.append(array.basename)
            if written.count("status") == 2:
                raise error
            write(array, region, values)

        path = tmp_path / "s.zarr"
        events: list[str] = []
        with monkeypatch.context() as disturbed, pytest.raises(StoreError) as refusal:
            disturbed.setattr(zarr.Array, "__setitem__", fail)
            run(make(WILD), path, log=lambda event, **fields: events.append(event))
        assert str(refusal.value) == f"{path}: {said}; what was done is kept, and the same command goes on with it"
        assert events == ["started", "block"]
        assert list(tmp_path.iterdir()) == [path]
        assert (loaded(path)["status"] != 0).sum() == BLOCK
        assert run(make(WILD), path).done == POINTS - BLOCK
        assert_same_bits(loaded(path), whole)

    @pytest.mark.parametrize(("owner", "name"), [(store.Store, "update_attributes"), (store, "_consolidate")])
    def test_an_interruption_at_the_very_end_is_made_good(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, owner: Any, name: str
    ):
        """All games are stored; not yet written is that they are, or the consolidated copy of the metadata."""
        path = tmp_path / "s.zarr"

        def interrupt(*_: Any) -> None:
            raise KeyboardInterrupt

        with monkeypatch.context() as disturbed, pytest.raises(KeyboardInterrupt):
            run(make(WILD), path, report=lambda p: disturbed.setattr(owner, name, interrupt) if p.done == POINTS else None)
        assert run(make(WILD), path).done == 0
        json.loads((path / "zarr.json").read_text(), parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert "finished" in xr.open_zarr(path, chunks=None).attrs

    def test_a_finished_store_is_left_alone(self, tmp_path: Path):
        path = tmp_path / "s.zarr"
        run(make(WILD), path)
        before = contents(path)
        with compilations() as compiled:
            for batch, resume in ((None, False), (BATCH, False), (None, True)):
                progress = run(make(WILD), path, batch, resume=resume)
                assert (progress.done_before, progress.done) == (POINTS, 0)
        assert not compiled
        assert contents(path) == before

    def test_a_store_that_vanishes_is_not_made_anew(self, tmp_path: Path):
        path, elsewhere = tmp_path / "s.zarr", tmp_path / "elsewhere.zarr"

        def move(progress: Progress) -> None:
            if progress.done > BLOCK and path.exists() and (store.Store(path).statuses() != 0).any():
                path.rename(elsewhere)

        with pytest.raises(StoreError, match="was removed, moved or replaced during the run"):
            run(make(WILD), path, report=move)
        assert list(tmp_path.iterdir()) == [elsewhere]
        elsewhere.rename(path)
        stored = int((store.Store(path).statuses() != 0).sum())
        assert stored % BLOCK == 0 < stored
        assert run(make(WILD), path).done == POINTS - stored

    def test_what_happens_is_told(self, tmp_path: Path, whole: xr.Dataset):
        events: list[dict[str, Any]] = []
        run(make(WILD), tmp_path / "s.zarr", log=lambda event, **fields: events.append({"event": event, **fields}))
        first, *written, last = events
        assert (first["event"], first["points"], first["done"], first["store"]) == ("started", POINTS, 0, str(tmp_path / "s.zarr"))
        assert sorted(block["points"] for block in written) == [[0, 12], [12, 24], [24, 36]]
        status = whole["status"].values.ravel()
        for block in written:
            codes = status[slice(*block["points"])].tolist()
            assert block["statuses"] == {STATUSES[code]: codes.count(code) for code in set(codes)}
            assert block["seconds"] > 0
        assert (last["event"], last["points"]) == ("finished", POINTS)
        assert last["statuses"] == {STATUSES[code]: status.tolist().count(code) for code in set(status.tolist())}

    def test_the_store_can_be_read_meanwhile(self, whole: xr.Dataset, tmp_path: Path):
        """Whatever is done is complete, whatever is not is missing."""
        seen: list[tuple[Progress, xr.Dataset]] = []
        path = tmp_path / "s.zarr"
        run(make(WILD), path, report=lambda progress: seen.append((Progress(**vars(progress)), loaded(path))))
        counts = [int((dataset["status"] != 0).sum()) for _, dataset in seen]
        assert counts == sorted(counts)
        assert {0, BLOCK, 2 * BLOCK} <= set(counts)
        for progress, dataset in seen:
            done = dataset["status"] != 0
            assert done.sum() <= progress.done
            for name, variable in dataset.data_vars.items():
                nothing = 0 if name == "status" else np.nan
                np.testing.assert_array_equal(variable, whole[name].where(done, nothing))


@pytest.fixture(scope="module")
def begun(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of WILD of which one block is done."""
    path = tmp_path_factory.mktemp("begun") / "s.zarr"
    run(make(WILD), path, share=Share(1, 3))
    return path


@pytest.fixture
def path(begun: Path, tmp_path: Path) -> Path:
    """Such a store of one's own."""
    return shutil.copytree(begun, tmp_path / "s.zarr")


class TestRefusals:
    def refuse(self, path: Path, spec: Spec, **options: Any) -> str:
        """The message, after a check that the store is untouched."""
        before = contents(path)
        with pytest.raises(StoreError) as refusal:
            run(spec, path, **options)
        assert contents(path) == before
        return str(refusal.value)

    def test_another_spec(self, path: Path):
        changed = make(
            WILD,
            parameters={"k": 1.25, "eta": 0.01, "horizon": 2.0},
            sweep=WILD["sweep"] | {"A": [1.0, 2.0]},
            solver={"tolerance": 1e-10, "select": "cold"},
        )
        first, *lines, advice = self.refuse(path, changed).splitlines()
        assert first == f"{path}: was made by another spec:"
        keys = [line.split(":")[0].strip() for line in lines]
        assert sorted(keys) == ["parameters.horizon", "parameters.k", "solver.tolerance", "sweep.A"]
        assert "  parameters.k: 1.5 in the store, 1.25 in the grid file" in lines
        assert "  parameters.horizon: absent in the store, 2.0 in the grid file" in lines
        assert advice == "Choose another --out, or --fresh to delete the store and start again."

    def test_another_order_of_the_axes(self, path: Path):
        changed = make(WILD, sweep=dict(reversed(WILD["sweep"].items())))
        assert "sweep_order" in self.refuse(path, changed)

    def test_a_finished_store_of_another_spec(self, path: Path):
        run(make(WILD), path)
        assert "was made by another spec" in self.refuse(path, make(WILD, solver={}))

    @pytest.mark.parametrize("batch", [1, 8])
    def test_another_batch(self, path: Path, batch: int):
        message = self.refuse(path, make(WILD), batch=batch)
        assert message == f"{path}: was begun with --batch 7; leave out --batch to go on, or --fresh to start again"

    @pytest.mark.parametrize(
        ("change", "line"),
        [
            ({"versions": runtime.versions() | {"jax": "0.1"}}, f"version of jax: {version('jax')} in the store, 0.1 here"),
            ({"source_digest": "abc"}, f"digest of the source: {runtime.source_digest()} in the store, abc here"),
            ({"device_kind": "H200"}, "kind of device: cpu in the store, H200 here"),
            ({"x64": False}, "float64: True in the store, False here"),
        ],
    )
    def test_where_numbers_may_differ(self, path: Path, monkeypatch: pytest.MonkeyPatch, change: dict[str, Any], line: str):
        here = runtime.provenance()
        monkeypatch.setattr(runtime, "provenance", lambda: here | change)
        assert self.refuse(path, make(WILD)).splitlines() == [
            f"{path}: was begun where numbers may come out differently:",
            f"  {line}",
            "Go on with the installation that began it, or make another store.",
        ]

    def test_a_store_of_an_older_format_is_read_and_not_gone_on_with(self, path: Path):
        whole = json.loads((path / "zarr.json").read_text())
        for key in ("source_digest", "device_kind", "x64", store.DIGEST):
            del whole["attributes"][key]
        whole["attributes"]["mfgsweep_format"] = 1
        for name in ("blocks", "blocks/seconds"):
            del whole["consolidated_metadata"]["metadata"][name]
        (path / "zarr.json").write_text(json.dumps(whole))
        shutil.rmtree(path / "blocks")
        message = self.refuse(path, make(WILD))
        assert f"digest of the source: absent in the store, {runtime.source_digest()} here" in message
        assert f"progress    {BLOCK} of {POINTS} games (33.3 %)" in information.lines(path)
        assert (loaded(path)["status"] != 0).sum() == BLOCK

    def test_what_changes_no_number_may_differ(self, path: Path, monkeypatch: pytest.MonkeyPatch):
        elsewhere = {"versions": runtime.versions() | {"python": "3", "xarray": "1", "zarr": "4"}, "device": "cpu: another"}
        here = runtime.provenance()
        monkeypatch.setattr(runtime, "provenance", lambda: here | elsewhere | {"git_revision": "none", "git_dirty": True})
        assert run(make(WILD), path).done == POINTS - BLOCK

    def test_left_out_the_batch_is_that_of_the_store(self, path: Path):
        seen: list[int] = []
        with patch.object(one_by_one, "SECONDS_A_BATCH", 1e9):  # so that batches are as large as may be
            run(make(WILD), path, batch=None, report=lambda progress: seen.append(progress.done))
        assert np.diff(seen).max() == BATCH

    def test_what_decides_no_result_may_change(self, path: Path):
        assert run(make(WILD, store="elsewhere.zarr"), path).done == POINTS - BLOCK

    @pytest.mark.parametrize("fresh", [False, True])
    def test_a_store_that_another_run_fills(self, path: Path, fresh: bool):
        with lock.hold(path, "1/4"):
            message = self.refuse(path, make(WILD), fresh=fresh)
        assert f"another run fills it (share 1/4): process {os.getpid()} on " in message

    def test_a_lock_that_is_lost_stops_the_run(self, path: Path):
        def lose(progress: Progress) -> None:
            for file in path.parent.glob(".s.zarr.lock-*"):
                file.unlink()

        assert "this run's lock is gone" in self.refuse(path, make(WILD), report=lose)

    def test_resuming_what_is_not_there(self, tmp_path: Path):
        with pytest.raises(StoreError, match="no such store"):
            run(make(WILD), tmp_path / "s.zarr", resume=True)
        assert not list(tmp_path.iterdir())


class TestStartingAfresh:
    def test_replaces_a_store(self, path: Path):
        progress = run(make(CALM), path, fresh=True)
        assert (progress.done_before, progress.done) == (0, 8)
        assert loaded(path).attrs["spec"] == make(CALM).canonical()

    def test_needs_no_store(self, tmp_path: Path):
        assert run(make(CALM), tmp_path / "s.zarr", fresh=True).done == 8

    @pytest.mark.parametrize("left", [b"", b"{", b"[" * 100_000, b"\x00" * 100, b"\xff\xfe", None])
    def test_of_a_store_that_no_longer_says_what_it_is(self, path: Path, left: bytes | None):
        """It is told how, and left alone: it might be something else. Without `fresh` alike."""
        description = path / "zarr.json"
        description.write_bytes(description.read_bytes()[:-1] if left is None else left)
        before = contents(path)
        for fresh in (True, False):
            with pytest.raises(StoreError, match=r"s\.zarr/zarr\.json: is damaged: .*; restore it from a copy, or delete"):
                run(make(CALM), path, fresh=fresh)
        assert contents(path) == before

    @pytest.mark.parametrize("kind", ["folder", "group"])
    def test_deletes_nothing_else(self, tmp_path: Path, kind: str):
        path = tmp_path / "precious"
        if kind == "folder":
            path.mkdir()
            (path / "thesis.tex").write_text("years of work\n")
        else:
            zarr.create_group(path, attributes={"experiment": 1})
        before = contents(path)
        for fresh in (True, False):
            with pytest.raises(StoreError, match="precious: exists and is no store of mfgsweep; name another path"):
                run(make(CALM), path, fresh=fresh)
        assert contents(path) == before


class TestProvenance:
    def test_how_and_when_the_store_was_made(self, whole: xr.Dataset):
        attributes = whole.attrs
        assert attributes["spec"] == make(WILD).canonical()
        assert attributes["spec_hash"] == make(WILD).hash()
        assert attributes["batch"] == BATCH
        assert attributes["started"] <= attributes["finished"]
        assert attributes["points_per_second"] > 0
        assert attributes["versions"].keys() >= {"python", "mfg-jax", "jax", "jaxlib", "numpy", "xarray", "zarr"}
        assert attributes["device"].startswith(jax.default_backend())
        assert attributes["device_kind"] == jax.devices()[0].device_kind
        assert attributes["x64"] is True
        assert attributes["git_revision"] and isinstance(attributes["git_dirty"], bool)
        assert re.fullmatch("[0-9a-f]{64}", attributes["source_digest"])

    def test_what_each_block_took(self, path: Path):
        before = store.open_existing(path).seconds()
        assert before.shape == (1,)
        progress = run(make(WILD), path)
        seconds = store.open_existing(path).seconds()
        assert seconds[0] == before[0]
        assert (seconds > 0).all() and seconds.shape == (3,)
        assert seconds[1:].sum() < progress.seconds

    def test_what_a_block_took_that_was_broken_off_counts(self, tmp_path: Path):
        stopped(tmp_path / "s.zarr", 1)
        before = store.open_existing(tmp_path / "s.zarr").seconds()
        progress = run(make(WILD), tmp_path / "s.zarr")
        after = store.open_existing(tmp_path / "s.zarr").seconds()
        assert before[0] < after[0] <= before[0] + progress.seconds

    def test_the_digest_is_that_of_the_code(self, monkeypatch: pytest.MonkeyPatch):
        read, changed = Path.read_bytes, Path(str(mfg.__file__)).with_name("hjb.py")
        as_it_is = runtime.source_digest.__wrapped__()
        monkeypatch.setattr(Path, "read_bytes", lambda path: read(path) + b"\n" * (path == changed))
        assert as_it_is == runtime.source_digest() != runtime.source_digest.__wrapped__()

    def test_coordinates(self, whole: xr.Dataset):
        for name, values in WILD["sweep"].items():
            assert whole[name].values.tolist() == values
        assert (whole["time"].values[0], whole["time"].values[-1], whole.sizes["time"]) == (0.0, 1.0, 21)
        assert whole["inventory"].values.tolist() == [-3, -2, -1, 0, 1, 2, 3]

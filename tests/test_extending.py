"""Stores that become larger: what they hold stays to the bit, and only what is new is solved."""

import itertools
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

import mfg_jax as mfg
from sweeps import agreement, cli, engine, extending, runtime, store
from sweeps.dataset import CRASHED, PATHS, variables
from sweeps.extending import Extension
from sweeps.kinds import Column
from sweeps.recorded import spec_of
from sweeps.spec import Spec
from sweeps.store import StoreError
from sweeps.sweep import Sweep
from tests import made_up
from tests.made_up import (
    CONTENT,
    HARD,
    PATIENT,
    POINTS,
    assert_same_bits,
    contents,
    fixtures_of,
    games_made_up,
    loaded,
    make,
    retry,
    run,
)

SPEC = make()
LARGER = make(sweep={"A": [0.5, 1.0, 300.0, 2.0, 3.0], "gamma": [0.02, 0.03, 0.05], "crowd_mean": [0.0, 1.0, -1.0]})
OUTPUTS = {"paths": False, "gradients": ["peak_variance", "mean_spread"], "surfaces": True}
MORE = make(outputs=OUTPUTS)
ADDED = ("value", "ask", "bid", "density", "d_peak_variance")
finished, path = fixtures_of(SPEC)


def extend(spec: Spec, path: Path) -> Extension | None:
    with games_made_up() as asked_for:
        extension = extending.extend(spec, path)
    assert asked_for == []
    return extension


def marked(path: Path) -> xr.Dataset:
    """The store, in all of whose games a number is made one that no solver would give."""
    array = zarr.open_group(path, mode="r+", use_consolidated=False)["half_life"]
    assert isinstance(array, zarr.Array)
    array[...] = np.arange(POINTS).reshape(array.shape) + 0.5
    return loaded(path)


class TestMoreGames:
    def test_only_new_games_are_solved_and_old_ones_keep_their_bits(self, path: Path):
        before = marked(path)
        assert extend(LARGER, path) == Extension(POINTS, ())
        assert [entry.name for entry in path.parent.iterdir()] == ["s.zarr"]
        progress, asked_for = run(LARGER, path)
        new = len(asked_for)
        assert (progress.points, progress.done_before, progress.done, new) == (45, POINTS, 33, 33)
        old = {tuple(map(float, game)) for game in itertools.product(*CONTENT["sweep"].values())}
        assert not old & {(game["A"], game["gamma"], game["crowd_mean"]) for game in asked_for}
        after = loaded(path)
        assert_same_bits(after.sel({str(dim): before[dim] for dim in before["status"].dims}), before)
        run(LARGER, path.with_name("anew.zarr"))
        assert_same_bits(after.drop_vars("half_life"), loaded(path.with_name("anew.zarr")).drop_vars("half_life"))
        for dim in LARGER.sweep:
            assert after[dim].values.tolist() == list(LARGER.sweep[dim])  # pyright: ignore[reportArgumentType]

    def test_what_blocks_took_is_kept_as_a_sum(self, path: Path):
        """The blocks of the larger store hold other games, so each has what its own games took."""
        first = store.open_existing(path).seconds()
        larger = [make(sweep=CONTENT["sweep"] | {"A": [1.0, 3.0, 300.0, *more]}) for more in ([2.0], [2.0, 4.0])]
        extend(larger[0], path)
        run(larger[0], path)
        second = store.open_existing(path).seconds()
        extend(larger[1], path)
        assert (first.size, second.size) == (3, 1)
        assert [entry["seconds"] for entry in loaded(path).attrs["extended"]] == [first.sum(), second.sum()]

    @settings(max_examples=4)
    @given(st.tuples(*(st.permutations([*values, 7.0, 8.0]) for values in CONTENT["sweep"].values())), st.integers(0, 99))
    def test_wherever_values_are_inserted(
        self, tmp_path_factory: pytest.TempPathFactory, orders: tuple[list[float], ...], seed: int
    ):
        """And whichever games were done."""
        path, numbers = tmp_path_factory.mktemp("inserted") / "s.zarr", np.random.default_rng(seed)
        sweep = Sweep(SPEC)
        target = store.create(path, sweep.spec, sweep.design, sweep.labels(), (1, 2, 2), engine.attributes_of(sweep, 5))
        done = numbers.random(target.statuses().shape) < 0.6
        for part in target.parts(done):
            made = {
                name: numbers.normal(size=target.read(name, part).shape) for name in (variable.name for variable in variables(SPEC))
            }
            target.write_part(part, made | {"status": numbers.integers(1, 7, len(part))})
        before = loaded(path)
        larger = make(sweep=dict(zip(CONTENT["sweep"], orders, strict=True)))
        assert extend(larger, path) == Extension(int(done.sum()), ())
        after = loaded(path)
        assert_same_bits(after.sel({str(dim): before[dim] for dim in before["status"].dims}), before)
        assert (after["status"] != 0).sum() == done.sum()

    def test_an_unfinished_store(self, path: Path):
        target = store.open_existing(path)
        wanted = np.arange(POINTS).reshape(target.statuses().shape) % 3 == 0
        for part in target.parts(wanted):
            target.write_part(part, {"status": np.zeros(len(part))})
        extend(LARGER, path)
        assert (loaded(path)["status"] != 0).sum() == 8
        assert len(run(LARGER, path)[1]) == 45 - 8

    def test_rows_of_a_table(self, tmp_path: Path):
        """One of them twice, in another order, with names."""
        rows = {"A": [1.0, 2.0, 1.0], "gamma": [0.02, 0.03, 0.02], "coupling": ["none", "relative", "none"]}
        more = {"A": [2.0, 5.0, 1.0, 1.0, 1.0], "gamma": [0.03, 0.1, 0.02, 0.02, 0.02], "coupling": ["relative", *["none"] * 4]}
        model = {"x_max": 3, "n_steps": 4}
        before, after = (make(model=model, sampling="zip", sweep=sweep) for sweep in (rows, more))
        run(before, tmp_path / "s.zarr")
        held = loaded(tmp_path / "s.zarr")
        extend(after, tmp_path / "s.zarr")
        assert loaded(tmp_path / "s.zarr")["status"].values.tolist() == [1, 0, 1, 1, 0]
        assert len(run(after, tmp_path / "s.zarr")[1]) == 2
        assert_same_bits(loaded(tmp_path / "s.zarr").isel(point=[2, 0, 3]), held)
        with pytest.raises(
            StoreError, match=r"lacks the games \(A, gamma, coupling\) 5.0 0.1 none, 1.0 0.02 none, which the store"
        ):
            extend(before, tmp_path / "s.zarr")

    @pytest.mark.parametrize("sampling", ["random", "sobol"])
    def test_points_drawn_in_the_same_order(self, tmp_path: Path, sampling: str):
        sweep = {"A": {"uniform": [1.0, 3.0]}, "gamma": {"log_uniform": [0.01, 1.0]}, "crowd_mean": [0.0, 1.0]}
        before, after = (make(sampling=sampling, points=points, seed=3, sweep=sweep) for points in (8, 32))
        run(before, tmp_path / "s.zarr")
        held = loaded(tmp_path / "s.zarr")
        extend(after, tmp_path / "s.zarr")
        assert len(run(after, tmp_path / "s.zarr")[1]) == 24
        assert_same_bits(loaded(tmp_path / "s.zarr").isel(point=slice(8)), held)
        for change in ({"seed": 4}, {"sweep": sweep | {"A": {"uniform": [1.0, 3.5]}}}):
            other = make(**{"sampling": sampling, "points": 64, "seed": 3, "sweep": sweep, **change})
            with pytest.raises(StoreError, match=r"seed: 3 in the store, 4|32 of the 32 that the store holds are not among them"):
                extend(other, tmp_path / "s.zarr")

    def test_points_drawn_anew(self, tmp_path: Path):
        sweep = {"A": {"uniform": [1.0, 3.0]}, "gamma": {"log_uniform": [0.01, 1.0]}}
        before, after = (make(sampling="latin_hypercube", points=points, sweep=sweep) for points in (8, 16))
        run(before, tmp_path / "s.zarr")
        held = contents(tmp_path)
        with pytest.raises(StoreError, match="sampling latin_hypercube draws other points now: 8 of the 8 that the store holds"):
            extend(after, tmp_path / "s.zarr")
        assert contents(tmp_path) == held

    def test_retried_games_keep_their_attempt(self, path: Path):
        retry(PATIENT, path)
        before = loaded(path)
        extend(LARGER, path)
        after = loaded(path)
        at = {str(dim): before[dim] for dim in before["status"].dims}
        assert_same_bits(after.sel(at), before)
        assert after.attrs["retries"] == before.attrs["retries"]
        run(LARGER, path)
        assert loaded(path)["attempt"].sum() == before["attempt"].sum() == HARD

    def test_what_was_there_is_recorded(self, path: Path):
        before = loaded(path).attrs
        extend(LARGER, path)
        about = loaded(path).attrs
        (entry,) = about["extended"]
        assert (entry["games"], entry["kept"]) == (POINTS, [])
        made = {"mfgsweep_format", "spec_hash", "started", "finished", "points_per_second", *runtime.provenance()}
        assert entry["before"] == {name: before[name] for name in made}
        assert about["spec"] == LARGER.canonical() and about["spec_hash"] == LARGER.hash()
        assert about["batch"] == before["batch"] and "finished" not in about
        run(LARGER, path)
        assert loaded(path).attrs["finished"] >= about["started"] >= entry["before"]["finished"]

    def test_a_store_that_is_one_already(self, path: Path):
        before = contents(path.parent)
        assert extend(SPEC, path) is None
        assert contents(path.parent) == before


class TestMoreOutputs:
    def test_what_was_there_stays_and_the_rest_is_solved(self, path: Path):
        before = marked(path)
        converged = before["status"] == mfg.Status.CONVERGED
        assert extend(MORE, path) == Extension(8, ADDED)
        progress, asked_for = run(MORE, path)
        assert (progress.done, len(asked_for)) == (POINTS, POINTS)
        after = loaded(path)
        np.testing.assert_array_equal(after["kept"], converged)
        for name, variable in before.data_vars.items():
            np.testing.assert_array_equal(after[name].where(converged), variable.where(converged))
        run(MORE, path.with_name("anew.zarr"))
        anew = loaded(path.with_name("anew.zarr"))
        assert_same_bits(after.drop_vars(["kept", "half_life"]), anew.drop_vars("half_life"))
        (entry,) = after.attrs["extended"]
        assert (entry["games"], set(entry["kept"]) | {"status"}) == (8, set(before.data_vars))

    def test_with_more_games_too(self, path: Path):
        before = marked(path)
        both = LARGER.model_copy(update={"outputs": MORE.outputs})
        extend(both, path)
        run(both, path)
        after, easy = loaded(path), {"A": [1.0, 3.0], "gamma": [0.02, 0.05], "crowd_mean": [0.0, 1.0]}
        for name, variable in before.data_vars.items():
            np.testing.assert_array_equal(after[name].sel(easy), variable.sel(easy))
        assert (after["status"] != 0).all() and after["value"].notnull().all()

    def test_games_that_do_not_agree_stop_the_run(self, path: Path, monkeypatch: pytest.MonkeyPatch):
        extend(MORE, path)
        numbers = made_up.made_up_numbers

        def otherwise(name: str, game: dict[str, float], shape: list[int]) -> np.ndarray:
            other = name == "closing_spread" and (game["A"], game["gamma"], game["crowd_mean"]) == (3.0, 0.05, 0.0)
            return numbers(name, game, shape) + (1e-4 if other else 1e-8)

        with monkeypatch.context() as patch:
            patch.setattr(made_up, "made_up_numbers", otherwise)
            with pytest.raises(StoreError, match=r"closing_spread of the game A 3.0, gamma 0.05, crowd_mean 0.0 was solved again"):
                run(MORE, path)
        assert (loaded(path)["status"] != 0).sum() == 4
        run(MORE, path)
        assert (loaded(path)["status"] != 0).all()

    def test_games_that_converge_no_more_stop_the_run(self, path: Path, monkeypatch: pytest.MonkeyPatch):
        extend(MORE, path)
        results = made_up.results_of
        monkeypatch.setattr(made_up, "results_of", lambda *some: results(*some) | {"status": np.full(len(some[1]), 3)})
        with pytest.raises(StoreError, match=r"status of the game A 1.0, gamma 0.02, crowd_mean 0.0 was solved again"):
            run(MORE, path)

    @pytest.mark.parametrize("lost", ["mean_spread", "kept"])
    @pytest.mark.parametrize("before_they_are_solved", [True, False])
    def test_what_is_lost_is_solved_anew(self, path: Path, lost: str, before_they_are_solved: bool):
        """Where a file is damaged, and that of status of its block deleted, numbers of before do not stay."""
        marked(path)
        extend(MORE, path)
        if not before_they_are_solved:
            run(MORE, path)
            (path / "status" / "c" / "1" / "0" / "0").unlink()
        damaged = path / lost / "c" / "1" / "0" / "0"
        damaged.write_bytes(damaged.read_bytes()[:-1] + b"?")
        run(MORE, path)
        run(MORE, path.with_name("anew.zarr"))
        found, anew = loaded(path), loaded(path.with_name("anew.zarr"))
        assert_same_bits(found.drop_vars("kept").isel(A=1), anew.isel(A=1))
        assert (found["kept"].isel(A=1) == 0).all() and (found["kept"].isel(A=0) == 1).all()

    def test_a_game_that_crashes_keeps_what_it_had(self, path: Path):
        marked(path)
        extend(MORE, path)
        target = store.open_existing(path)
        before = loaded(path)
        game = target.parts(np.ones(target.shape, bool))[0].some(np.array([2]))
        target.write_part(game, agreement.of_crashed(target, Sweep(MORE), game))
        after = loaded(path)
        assert after["status"].values.ravel()[2] == CRASHED
        assert_same_bits(after.drop_vars("status"), before.drop_vars("status"))

    def test_not_twice_before_they_are_solved(self, path: Path):
        extend(MORE, path)
        again = make(outputs=OUTPUTS | {"certify": "full"})
        with pytest.raises(StoreError, match="outputs were added to it that are not solved yet; first go on with the grid file"):
            extend(again, path)
        run(MORE, path)
        assert extend(again, path) == Extension(8, ("exploitability", "contraction", "time_error"))

    def test_not_where_games_were_retried(self, path: Path):
        retry(PATIENT, path)
        with pytest.raises(StoreError, match="4 of its games are of a --retry, with other settings of the solver"):
            extend(MORE, path)


class TestCrashes:
    """Killed at any moment, one of the two stores is there, whole, and the same command goes on."""

    @pytest.mark.parametrize(
        ("owner", "name", "step", "stands"),
        [
            (zarr.Group, "create_array", 9, "old"),
            (zarr, "consolidate_metadata", 1, "old"),
            (store.Store, "write_part", 1, "old"),
            (store.Store, "write_part", 3, "old"),
            (store.Store, "update_attributes", 1, "old"),
            (zarr, "consolidate_metadata", 2, "old"),
            (Path, "rename", 2, "old"),
            (Path, "rename", 3, None),
            (shutil, "rmtree", 2, "new"),
        ],
    )
    def test_are_made_good(self, path: Path, monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, step: int, stands: str | None):
        before = loaded(path)
        undisturbed, calls = getattr(owner, name), itertools.count(1)

        def interrupt(*args: Any, **options: Any) -> Any:
            if (name != "rmtree" or args[0].exists()) and next(calls) == step - (name == "rmtree"):
                raise KeyboardInterrupt
            return undisturbed(*args, **options)

        with monkeypatch.context() as disturbed, pytest.raises(KeyboardInterrupt):
            disturbed.setattr(owner, name, interrupt)
            extend(LARGER, path)
        assert path.exists() == (stands is not None)
        if stands:
            assert loaded(path).attrs["spec"] == (SPEC if stands == "old" else LARGER).canonical()
            assert (loaded(path)["status"] != 0).sum() == POINTS
        extend(LARGER, path)
        assert [entry.name for entry in path.parent.iterdir()] == ["s.zarr"]
        assert len(run(LARGER, path)[1]) == 33
        after = loaded(path)
        assert_same_bits(after.sel({str(dim): before[dim] for dim in before["status"].dims}), before)

    def test_a_run_brings_back_a_store_that_was_being_replaced(self, path: Path, monkeypatch: pytest.MonkeyPatch):
        before = loaded(path)
        path.rename(path.with_name(".s.zarr.replaced"))
        assert run(SPEC, path)[1] == []
        assert_same_bits(loaded(path), before)

    def test_no_room(self, path: Path, monkeypatch: pytest.MonkeyPatch):
        before = contents(path.parent)
        monkeypatch.setattr(runtime, "free_disk", lambda path: 1_000)
        with pytest.raises(StoreError, match=r"needs up to .* and 1 kB are free"):
            extend(LARGER, path)
        assert contents(path.parent) == before


class TestRefusals:
    @pytest.mark.parametrize(
        ("changes", "told"),
        [
            ({"model": CONTENT["model"] | {"x_max": 4}}, "model.x_max: 3 in the store, 4 in the grid file"),
            ({"parameters": {"k": 1.5, "eta": 0.02}}, "parameters.eta: 0.01 in the store, 0.02 in the grid file"),
            ({"solver": {"max_iterations": 99}}, "solver.max_iterations: 100 in the store, 99 in the grid file"),
            ({"initial": {"kind": "uniform"}}, "initial.kind: normal in the store, uniform in the grid file"),
            ({"units": {"price": "tick"}}, "units.price: price in the store, tick in the grid file"),
            (
                {"outputs": CONTENT["outputs"] | {"dtype": "float32"}},
                "outputs.dtype: float64 in the store, float32 in the grid file",
            ),
            (
                {"sampling": "zip", "sweep": {"A": [1.0], "gamma": [0.02], "crowd_mean": [0.0]}},
                "sampling: grid in the store, zip in",
            ),
            ({"sweep": CONTENT["sweep"] | {"horizon": [1.0, 2.0]}}, "sweep_order: ['A', 'gamma', 'crowd_mean'] in the store, ['A'"),
            (
                {"sweep": dict(reversed(CONTENT["sweep"].items()))},
                "sweep_order: ['A', 'gamma', 'crowd_mean'] in the store, ['crowd",
            ),
            ({"sweep": CONTENT["sweep"] | {"A": [1.0, 4.0, 5.0]}}, "sweep.A lacks the values 3.0, 300.0, which the store holds"),
            (
                {"outputs": {"paths": True}},
                "holds differentiated, d_mean_spread, which the outputs of this grid file lack; leave them in",
            ),
        ],
    )
    def test_what_may_not_differ(self, path: Path, changes: dict[str, Any], told: str):
        before = contents(path.parent)
        with pytest.raises(StoreError) as refusal:
            extend(make(**changes), path)
        assert told in str(refusal.value) and str(refusal.value).startswith(f"{path}: ")
        assert contents(path.parent) == before

    def test_no_store(self, tmp_path: Path):
        with pytest.raises(StoreError, match="no such store"):
            extend(LARGER, tmp_path / "s.zarr")


class TestRecordedSpecs:
    @pytest.mark.parametrize(
        "changes",
        [
            {},
            {"parameters": {"k": 1.5, "eta": 0.01, "quote_max": np.inf}},
            {"sweep": {"coupling": ["none", "relative"], "quote_min": [-np.inf, 0.0]}, "model": {"x_max": 3}},
            {"sampling": "sobol", "points": 8, "sweep": {"gamma": {"log_uniform": [0.1, 1.0]}, "A": {"uniform": [1.0, 2.0]}}},
            {"initial": {"kind": "weights", "weights": [1.0] * 7}, "outputs": {"gradients": ["mean_spread"]}},
        ],
    )
    def test_are_read_back(self, tmp_path: Path, changes: dict[str, Any]):
        spec = make(**changes)
        assert spec_of(created(spec, tmp_path)).canonical() == spec.canonical()

    def test_of_a_table_what_its_constraints_left(self, tmp_path: Path):
        columns = {"A": Column(np.array([1.0, 2.0, 3.0]), "t.csv"), "gamma": Column(np.array([0.1, 0.2, 0.3]), "t.csv")}
        whole = make(sampling="table", sweep={}, table=columns)
        assert spec_of(created(whole, tmp_path / "whole")).canonical() == whole.canonical()
        some = make(sampling="table", sweep={}, table=columns, where=["A < 3"])
        found = spec_of(created(some, tmp_path / "some"))
        assert {name: axis.values.tolist() for name, axis in found.table.items()} == {"A": [1.0, 2.0], "gamma": [0.1, 0.2]}
        assert not found.where


def created(spec: Spec, folder: Path) -> store.Store:
    """An empty store."""
    sweep = Sweep(spec)
    return store.create(folder / "s.zarr", spec, sweep.design, sweep.labels(), sweep.block_shape(), {})


class TestAgreement:
    def test_is_relative_to_the_largest_number_of_a_game(self):
        (path,) = (variable for variable in PATHS if variable.name == "value_flat")
        held = np.array([[1e3, 1.0], [1.0, 0.0], [np.nan, 1.0], [np.nan, 1.0]])
        new = held + np.array([[0.0, 9e-4], [1.1e-6, 0.0], [0.0, 0.0], [0.0, 0.0]])
        new[3, 0] = 0.0
        assert agreement.agreeing(path, held, new, np.full(4, 1e-3), 1e-6).tolist() == [True, False, True, False]
        small = np.full((1, 2), 1e-9)
        assert agreement.agreeing(path, small, 2 * small, np.array([1.0]), 1e-6).all()
        assert not agreement.agreeing(path, small, 2 * small, np.array([1e-9]), 1e-6).any()

    def test_infinite_numbers_are_no_scale(self):
        """They agree with themselves alone, and leave their neighbours to be compared."""
        (path,) = (variable for variable in PATHS if variable.name == "value_flat")
        inf, nan = np.inf, np.nan
        held = np.array([[inf, 1.0], [inf, 1.0], [inf, 1.0], [inf, 1.0], [inf, 1.0], [1.0, 1.0], [-inf, 0.0]])
        new = np.array([[inf, 1.0], [inf, 1.1], [1.0, 1.0], [-inf, 1.0], [nan, 1.0], [inf, 1.0], [-inf, 1e-9]])
        agrees = [True, False, False, False, False, False, True]
        assert agreement.agreeing(path, held, new, np.full(7, 1.0), 1e-6).tolist() == agrees
        ones, apart = np.ones((3, 1)), np.array([[1.0], [1.0 + 1e-7], [1.1]])
        for spread in (inf, nan):
            assert agreement.agreeing(path, ones, apart, np.full(3, spread), 1e-6).tolist() == [True, True, False]


GRID = """\
model: {coupling: relative, x_max: 3, n_steps: 16, scheme: rk4}
parameters: {A: 3.0, k: 1.5, eta: 0.01}
sweep: {gamma: [0.02, 0.05], crowd_mean: [0.0, 1.0]}
outputs: {paths: true}
solver: {select: cold}
store: s.zarr
"""


def test_from_end_to_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "grid.yaml").write_text(GRID)
    (tmp_path / "larger.yaml").write_text(GRID.replace("[0.02, 0.05]", "[0.1, 0.05, 0.02]"))
    (tmp_path / "more.yaml").write_text(GRID.replace("[0.02, 0.05]", "[0.1, 0.05, 0.02]").replace("true", "true, surfaces: true"))

    def mfgsweep(*arguments: str) -> list[str]:
        result = CliRunner().invoke(cli.app, arguments, catch_exceptions=False)
        assert (result.exit_code, result.stderr) == (0, "")
        return result.stdout.splitlines()

    mfgsweep("run", "grid.yaml")
    first = loaded(tmp_path / "s.zarr")
    lines = mfgsweep("extend", "s.zarr", "larger.yaml")
    assert lines[0] == "extended    4 games are taken over" and any(line.startswith("solved      2 games in ") for line in lines)
    larger = loaded(tmp_path / "s.zarr")
    assert_same_bits(larger.sel(gamma=[0.02, 0.05]), first)
    lines = mfgsweep("extend", "s.zarr", "more.yaml")
    assert lines[:2] == [
        "extended    6 games are taken over",
        "            and solved again for 4 more variables; their other numbers stay",
    ]
    found = loaded(tmp_path / "s.zarr")
    assert_same_bits(found[list(larger.data_vars)], larger)
    np.testing.assert_allclose(found["value"].sel(inventory=0), found["value_flat"], rtol=1e-9)
    assert mfgsweep("extend", "s.zarr", "more.yaml")[1].startswith("s.zarr: was complete already; nothing to do.")
    told = [line for line in mfgsweep("info", "s.zarr") if line.startswith("extended")]
    took = "games taken over, whose blocks took [0-9a-z ]+"
    assert re.search(f": 4 {took}$", told[0]) and re.search(f": 6 {took}, and solved again for more outputs$", told[1])


class TestWhatIsRefused:
    def test_a_missing_file(self, path: Path):
        (path / "d_mean_spread" / "c" / "0" / "0" / "0" / "0").unlink()
        with pytest.raises(StoreError, match="d_mean_spread/c/0/0/0/0: is missing"):
            extend(LARGER, path)

    def test_other_versions(self, path: Path, monkeypatch: pytest.MonkeyPatch):
        before = contents(path.parent)
        monkeypatch.setattr(runtime, "source_digest", lambda: "another")
        with pytest.raises(StoreError, match="digest of the source"):
            extend(LARGER, path)
        assert contents(path.parent) == before

    def test_nothing_is_left_of_what_was_broken_off(self, path: Path, monkeypatch: pytest.MonkeyPatch):
        before = contents(path.parent)
        monkeypatch.setattr(store.Store, "write_part", lambda *arguments: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            extend(LARGER, path)
        assert contents(path.parent) == before

    def test_a_link_to_a_store(self, path: Path, tmp_path: Path):
        """As to a scratch disk: the store behind it is extended, and it stays a link."""
        (tmp_path / "disk").mkdir()
        shutil.move(path, tmp_path / "disk" / "s.zarr")
        path.symlink_to(tmp_path / "disk" / "s.zarr")
        extend(LARGER, path)
        assert path.is_symlink() and [entry.name for entry in (tmp_path / "disk").iterdir()] == ["s.zarr"]

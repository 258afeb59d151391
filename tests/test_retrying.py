"""Games that failed, once more: what is replaced, what is recorded, and what a crash in between leaves."""

import errno
import shutil
import threading
import warnings
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
import xarray as xr
import zarr
from typer.testing import CliRunner

import mfg_jax as mfg
from sweeps import cli, engine, information, store
from sweeps.engine import Interrupted
from sweeps.retrying import FAILED, RetryError, statuses_named
from sweeps.spec import load_spec
from sweeps.store import Store, StoreError, open_existing
from tests.made_up import HARD, PATIENT, POINTS, assert_same_bits, loaded, make, retry, run

SPEC = make()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    run(SPEC, tmp_path / "s.zarr")
    return tmp_path / "s.zarr"


def test_games_that_converge_now_are_replaced_and_no_others(path: Path):
    before = loaded(path)
    progress, asked_for = retry(PATIENT, path)
    assert [game["A"] for game in asked_for] == [300.0] * HARD
    assert (progress.points, progress.done, dict(progress.statuses)) == (HARD, HARD, {"converged": HARD})
    after = loaded(path)
    hard = after["A"] == 300.0
    assert (before["status"].where(hard, 2) == mfg.Status.ITERATION_LIMIT).all()
    assert (after["status"] == mfg.Status.CONVERGED).all()
    assert_same_bits(after.drop_vars("attempt").sel(A=[1.0, 3.0]), before.sel(A=[1.0, 3.0]))
    run(PATIENT, path.with_name("patient.zarr"))
    assert_same_bits(after.drop_vars("attempt"), loaded(path.with_name("patient.zarr")))
    np.testing.assert_array_equal(after["attempt"], hard.broadcast_like(after["status"]))


def test_games_that_fail_again_stay_as_they_are(path: Path):
    """Also beside one of the same block that is mended."""
    target = open_existing(path)
    (part,) = target.parts(np.arange(POINTS).reshape(target.statuses().shape) == 5)
    target.write_part(part, {"status": np.array([mfg.Status.NON_FINITE]), "residual": np.array([np.nan])})
    before = loaded(path)
    progress, asked_for = retry(SPEC, path)
    assert (len(asked_for), progress.statuses) == (HARD + 1, {"converged": 1, "iteration_limit": HARD})
    after = loaded(path)
    assert after["attempt"].sum() == 1 and after["status"].values.ravel()[5] == mfg.Status.CONVERGED
    untouched = np.arange(POINTS) != 5
    for name, variable in before.data_vars.items():
        found, expected = (values.values.reshape(POINTS, -1)[untouched] for values in (after[name], variable))
        np.testing.assert_array_equal(found, expected, strict=True)


def test_only_games_of_the_statuses_that_are_named(path: Path):
    before = loaded(path)
    progress, asked_for = retry(PATIENT, path, ("non_finite", "unstable_step"))
    assert (progress.points, asked_for) == (0, [])
    assert_same_bits(loaded(path), before)
    assert loaded(path).attrs == before.attrs


def test_what_was_tried_is_recorded(path: Path):
    retry(SPEC, path, ("iteration_limit",))
    retry(PATIENT, path)
    first, second = loaded(path).attrs["retries"]
    assert (first["statuses"], first["games"], first["mended"]) == (["iteration_limit"], HARD, 0)
    assert (second["statuses"], second["games"], second["mended"]) == (list(FAILED), HARD, HARD)
    for entry, spec in ((first, SPEC), (second, PATIENT)):
        assert entry["solver"] == spec.canonical()["solver"]
        assert entry["started"] <= entry["finished"]
        assert entry["versions"]["jax"] == jax.__version__ and entry["device"]
    assert loaded(path)["attempt"].max() == 2
    assert loaded(path).attrs["spec"] == SPEC.canonical()


def test_a_run_with_the_old_file_goes_on_afterwards(path: Path):
    retry(PATIENT, path)
    progress, asked_for = run(SPEC, path)
    assert (progress.done, asked_for, dict(progress.statuses)) == (0, [], {"converged": POINTS})


@pytest.mark.parametrize("failing", ["status", "mean_spread", "residual", "attempt", "second status"])
def test_a_crash_leaves_games_to_be_solved(path: Path, monkeypatch: pytest.MonkeyPatch, failing: str):
    """Never a done game of which some numbers are of another solution; a run or a retry makes it good."""
    before, write, seen = loaded(path), zarr.Array.__setitem__, []

    def fail(array: zarr.Array, region: Any, values: Any) -> None:
        seen.append(array.basename)
        if array.basename == failing or (failing == "second status" and seen.count("status") == 2):
            raise KeyboardInterrupt
        write(array, region, values)

    with monkeypatch.context() as disturbed, pytest.raises(KeyboardInterrupt):
        disturbed.setattr(zarr.Array, "__setitem__", fail)
        retry(PATIENT, path)
    left = loaded(path)
    pending = left["status"] == 0
    assert pending.sum() == (0 if failing == "status" else HARD)
    for name, variable in before.data_vars.items():
        np.testing.assert_array_equal(left[name].where(~pending), variable.where(~pending))
    (entry,) = left.attrs["retries"]
    assert (entry["games"], entry["mended"]) == (HARD, 0) and "finished" not in entry
    run(SPEC, path)
    again = loaded(path)
    assert_same_bits(again.drop_vars("attempt"), before)
    assert not again["attempt"].any()
    assert retry(PATIENT, path)[0].statuses == {"converged": HARD}


@pytest.mark.parametrize("failing", ["attempt", "mean_spread", "residual"])
def test_what_a_crash_left_to_be_solved_the_next_retry_solves(path: Path, monkeypatch: pytest.MonkeyPatch, failing: str):
    write = zarr.Array.__setitem__

    def fail(array: zarr.Array, region: Any, values: Any) -> None:
        if array.basename == failing:
            raise KeyboardInterrupt
        write(array, region, values)

    with monkeypatch.context() as disturbed, pytest.raises(KeyboardInterrupt):
        disturbed.setattr(zarr.Array, "__setitem__", fail)
        retry(PATIENT, path)
    assert (loaded(path)["status"] == 0).sum() == HARD
    assert retry(PATIENT, path)[0].statuses == {"converged": HARD}
    assert (loaded(path)["attempt"] == 2).sum() == HARD


def test_a_retry_that_is_stopped_keeps_what_it_mended(tmp_path: Path):
    path, stop = tmp_path / "s.zarr", threading.Event()
    spec = make(sweep={"A": [300.0, 301.0, 302.0], "gamma": [0.02, 0.05], "crowd_mean": [0.0, 1.0]})
    run(spec, path)
    patient = spec.model_copy(update={"solver": PATIENT.solver})
    with pytest.raises(Interrupted):
        retry(patient, path, report=lambda progress: stop.set() if progress.done else None, stop=stop)
    left = loaded(path)
    (entry,) = left.attrs["retries"]
    assert entry["mended"] == (left["status"] == mfg.Status.CONVERGED).sum() == left["attempt"].sum() == 4
    assert "finished" not in entry
    assert retry(patient, path)[0].points == 8
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert xr.open_zarr(path, chunks=None)["attempt"].values.max() == 2


class TestRefusals:
    def test_another_spec_but_for_the_solver(self, path: Path):
        changed = make(parameters={"k": 1.5, "eta": 0.02}, solver={"max_iterations": 400})
        before = loaded(path)
        with pytest.raises(StoreError, match=r"eta: 0.01 in the store, 0.02 in the grid file") as refusal:
            retry(changed, path)
        assert "solver" not in str(refusal.value)
        assert_same_bits(loaded(path), before)

    def test_a_run_with_another_solver(self, path: Path):
        with pytest.raises(StoreError, match=r"solver.max_iterations: 100 in the store, 400 in the grid file"):
            run(PATIENT, path)

    def test_no_store(self, tmp_path: Path):
        with pytest.raises(StoreError, match="no such store"):
            retry(PATIENT, tmp_path / "s.zarr")

    def test_another_batch(self, path: Path):
        with pytest.raises(StoreError, match="was begun with --batch"):
            retry(PATIENT, path, batch=99)


class TestNames:
    def test_of_statuses(self):
        assert statuses_named("iteration_limit,non_finite") == ("iteration_limit", "non_finite")
        assert statuses_named("failed") == FAILED and "converged" not in FAILED and "pending" not in FAILED

    @pytest.mark.parametrize(
        ("text", "found"),
        [("converged", "converged"), ("pending", "pending"), ("non_finite,", ""), ("iteration_limt", "iteration_limt")],
    )
    def test_of_no_status_that_can_be_retried(self, text: str, found: str):
        with pytest.raises(RetryError) as refusal:
            statuses_named(text)
        assert str(refusal.value).startswith(f"--retry: found {found!r}; allowed: failed, or of iteration_limit, non_finite, ")
        assert ("did you mean `iteration_limit`?" in str(refusal.value)) == (text == "iteration_limt")


GRID = """\
model: {coupling: relative, x_max: 3, n_steps: 16, scheme: rk4}
parameters: {A: 3.0, k: 1.5, eta: 0.01}
sweep: {gamma: [0.02, 0.05, 0.1], crowd_mean: [0.0, 1.0]}
outputs: {paths: true}
solver: {select: cold, max_iterations: 9}
store: s.zarr
"""


def test_from_end_to_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    patient = GRID.replace(", max_iterations: 9", "")
    (tmp_path / "grid.yaml").write_text(GRID)
    (tmp_path / "patient.yaml").write_text(patient)

    def mfgsweep(*arguments: str) -> tuple[int, list[str]]:
        result = CliRunner().invoke(cli.app, arguments, catch_exceptions=False)
        return result.exit_code, (result.stdout + result.stderr).splitlines()

    assert mfgsweep("run", "grid.yaml", "--strict")[0] == 3
    failed = int((loaded(tmp_path / "s.zarr")["status"] == mfg.Status.ITERATION_LIMIT).sum())
    assert 0 < failed < 6
    code, lines = mfgsweep("run", "patient.yaml", "--retry", "iteration_limit", "--strict")
    assert code == 0 and f"mended      {failed}" in lines
    assert any(line.startswith(f"tried       {failed} games again in ") for line in lines)
    engine.run(load_spec("patient.yaml"), tmp_path / "patient.zarr")
    found, expected = loaded(tmp_path / "s.zarr"), loaded(tmp_path / "patient.zarr")
    assert_same_bits(found.where(found["attempt"] == 1).drop_vars(["attempt"]), expected.where(found["attempt"] == 1))
    assert found["attempt"].sum() == failed and (found["status"] == mfg.Status.CONVERGED).all()
    told = f": {failed} games with method anderson, tolerance 1e-09, max_iterations 200, select cold; {failed} mended"
    assert any(line.startswith("retried     ") and line.endswith(told) for line in mfgsweep("info", "s.zarr")[1])
    assert mfgsweep("run", "patient.yaml", "--retry", "failed")[1][0] == "no game ended so; nothing to do"
    assert mfgsweep("run", "grid.yaml", "--retry", "lost") == (
        2,
        [f"mfgsweep: --retry: found 'lost'; allowed: failed, or of {', '.join(FAILED)}"],
    )
    assert mfgsweep("run", "grid.yaml", "--retry", "failed", "--fresh")[0] == 2


def test_what_a_broken_retry_withdrew_the_next_one_solves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """As on a full disk between the two: `finished` does not hide it, and a run makes it good as well."""
    path = tmp_path / "s.zarr"
    run(make(), path)

    def full(*arguments: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as broken, pytest.raises(StoreError, match="the disk is full"):
        broken.setattr(Store, "write_part", full)
        retry(PATIENT, path)
    assert (loaded(path)["status"] == 0).sum() == HARD
    assert any(line.startswith("finished    not yet") for line in information.lines(path))
    shutil.copytree(path, tmp_path / "copy.zarr")
    progress, _ = retry(PATIENT, path)
    assert (progress.points, progress.statuses["converged"]) == (HARD, HARD)
    assert (loaded(path)["attempt"] > 0).sum() == HARD
    before = loaded(tmp_path / "copy.zarr").attrs["finished"]
    run(make(), tmp_path / "copy.zarr")
    assert (loaded(tmp_path / "copy.zarr")["attempt"] == 0).all()
    assert loaded(tmp_path / "copy.zarr").attrs["finished"] >= before


def test_a_store_that_vanishes_is_not_begun_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / "s.zarr"
    run(make(), path)
    monkeypatch.setattr(Store, "withdraw", lambda *arguments: shutil.rmtree(path))
    with pytest.raises(StoreError, match="was removed, moved or replaced"):
        retry(PATIENT, path)
    assert not path.exists()


def test_other_points_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / "s.zarr"
    run(make(), path)
    monkeypatch.setattr(store, "same_values", lambda held, expected: False)
    with pytest.raises(StoreError, match="its points have other values of A"):
        retry(PATIENT, path)


def test_a_missing_file_is_not_read_as_nan(tmp_path: Path):
    path = tmp_path / "s.zarr"
    run(make(sweep={"A": [300.0, 1.0], "gamma": [0.02, 0.05]}), path)
    (path / "d_mean_spread" / "c" / "0" / "0" / "0").unlink()
    with pytest.raises(StoreError, match="d_mean_spread/c/0/0/0: is missing"):
        retry(make(sweep={"A": [300.0, 1.0], "gamma": [0.02, 0.05]}, solver=dict(PATIENT.solver)), path)


def test_what_was_mended_before_a_kill_is_counted(path: Path):
    """Its record is completed at the end, which a killed run never comes to."""
    retry(PATIENT, path)
    target = open_existing(path)
    (entry,) = target.attributes["retries"]
    target.update_attributes({"retries": [entry | {"mended": 0}]})
    assert any(line.startswith("retried") and line.endswith(f"{HARD} mended") for line in information.lines(path))

"""The installed `mfgsweep` as its users meet it: a process that runs, is killed, is interrupted, and goes on."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import xarray as xr

MFGSWEEP = Path(sys.executable).with_name("mfgsweep")

# 1,500 games in six blocks of 250; the surfaces are large enough for blocks as small as they get.
GRID = """\
model: {coupling: relative, x_max: 5, n_steps: 48}
parameters: {A: 2.0, k: 1.5}
sweep:
  gamma: {logspace: [0.01, 1.0, 6]}
  crowd_mean: {linspace: [0.0, 3.0, 25]}
  eta: {linspace: [0.0, 0.1, 10]}
solver: {max_iterations: 60, select: cold}
outputs: {paths: true, surfaces: true}
store: results/sweep.zarr
"""
POINTS, BLOCK = 1500, 250
KILLS = (0, 1, 600)
"""Games done when a process is killed: while it compiles, within the first block, and later."""
STOP_AT_ONCE, INTERRUPT = 0, 1100
"""The same for a process that is interrupted: twice before its first batch can be done, and once."""

RUN = [MFGSWEEP, "run", "grid.yaml", "--device", "cpu", "--json"]


class Ended(NamedTuple):
    """A process that ended, and what the store it left says is done."""

    code: int
    events: list[dict[str, Any]]
    complaint: str
    done: int


def environment(**changes: str) -> dict[str, str]:
    """That of a user, who has none of the tests' settings."""
    return {name: value for name, value in os.environ.items() if not name.startswith(("JAX_", "XLA_"))} | changes


def done(folder: Path) -> int:
    with xr.open_zarr(folder / "results" / "sweep.zarr", chunks=None) as dataset:
        return int((dataset["status"] != 0).sum())


def run_until(folder: Path, reached: int, number: signal.Signals, times: int = 1) -> Ended:
    """A run that gets a signal, `times` over, as soon as it reports that at least `reached` games are done."""
    process = subprocess.Popen(RUN, cwd=folder, env=environment(), text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout and process.stderr
    events, complaint = [], ""
    for line in process.stdout:
        events.append(json.loads(line))
        if events[-1].get("done", 0) >= reached:
            process.send_signal(number)
            for _ in range(1, times):
                complaint += process.stderr.readline()  # two signals at once would be one
                process.send_signal(number)
            break
    rest, rest_of_complaint = process.communicate(timeout=120)
    if number != signal.SIGKILL:
        events += map(json.loads, rest.splitlines())
    return Ended(process.returncode, events, complaint + rest_of_complaint, done(folder))


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, subprocess.CompletedProcess[str]]:
    folder = tmp_path_factory.mktemp("uninterrupted")
    (folder / "grid.yaml").write_text(GRID)
    command = [MFGSWEEP, "run", "grid.yaml", "--device", "cpu"]
    return folder, subprocess.run(command, cwd=folder, env=environment(), capture_output=True, text=True, timeout=300)


@pytest.fixture(scope="module")
def history(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Mapping[str, Ended]]:
    """One sweep that is killed four times, then stopped at once, then interrupted, then left to finish."""
    folder = tmp_path_factory.mktemp("killed")
    (folder / "grid.yaml").write_text(GRID)
    ended = {f"killed at {reached}": run_until(folder, reached, signal.SIGKILL) for reached in KILLS}
    ended["stopped at once"] = run_until(folder, STOP_AT_ONCE, signal.SIGINT, times=2)
    ended["interrupted"] = run_until(folder, INTERRUPT, signal.SIGINT)
    ended["finished"] = run_until(folder, POINTS + 1, signal.SIGKILL)
    return folder, ended


def test_a_run_says_how_it_went(uninterrupted: tuple[Path, subprocess.CompletedProcess[str]]):
    folder, process = uninterrupted
    assert (process.returncode, process.stderr) == (0, "")
    lines = process.stdout.splitlines()
    with xr.open_zarr(folder / "results" / "sweep.zarr", chunks=None) as dataset:
        good = dataset["status"] == 1
        residual = float(dataset["residual"].where(good).max())
        assert f"converged   {int(good.sum())}, largest residual {residual:.1e}" in lines
        assert f"iteration limit: {int((dataset['status'] == 2).sum())}. The residual was" in process.stdout
    assert any(line.startswith(f"solved      {POINTS} games in ") and line.endswith(" games/s") for line in lines)
    assert f"games       {POINTS}" in lines
    assert "store       results/sweep.zarr" in lines
    assert lines[-1] == 'open it     import xarray as xr; ds = xr.open_zarr("results/sweep.zarr")'


def test_a_killed_run_leaves_whole_blocks(history: tuple[Path, Mapping[str, Ended]]):
    _, ended = history
    killed = [ended[f"killed at {reached}"] for reached in KILLS]
    assert {process.code for process in killed} == {-signal.SIGKILL}
    stored = [process.done for process in killed]
    assert stored == sorted(stored)
    assert all(count % BLOCK == 0 for count in stored)
    assert stored[0] == 0
    assert 0 < stored[-1] < POINTS


def test_each_run_goes_on_where_the_last_stopped(history: tuple[Path, Mapping[str, Ended]]):
    processes = list(history[1].values())
    for before, after in pairwise(processes):
        assert after.events[0]["done"] == before.done


def test_an_interrupted_run_says_how_to_go_on(history: tuple[Path, Mapping[str, Ended]]):
    interrupted = history[1]["interrupted"]
    assert interrupted.code == 130
    assert interrupted.complaint.splitlines() == [
        "mfgsweep: stopping when the games in flight are done and written; press Ctrl-C again to stop at once",
        "mfgsweep: interrupted; run the same command again to go on with results/sweep.zarr",
    ]
    assert INTERRUPT <= interrupted.done < POINTS
    assert (interrupted.events[-1]["event"], interrupted.events[-1]["done"]) == ("progress", interrupted.done)


def test_a_second_interrupt_stops_at_once(history: tuple[Path, Mapping[str, Ended]]):
    stopped = history[1]["stopped at once"]
    assert stopped.code == 130
    assert stopped.complaint.splitlines()[-1] == "mfgsweep: stopped; run the same command again to go on"
    assert stopped.done < POINTS


def test_what_is_left_completes(history: tuple[Path, Mapping[str, Ended]]):
    finished = history[1]["finished"]
    assert (finished.code, finished.complaint, finished.done) == (0, "", POINTS)
    summary = finished.events[-1]
    assert (summary["event"], summary["games"], sum(summary["statuses"].values())) == ("summary", POINTS, POINTS)


def test_in_the_end_nothing_tells_it_from_an_uninterrupted_run(
    uninterrupted: tuple[Path, subprocess.CompletedProcess[str]], history: tuple[Path, Mapping[str, Ended]]
):
    expected, found = (xr.open_zarr(folder / "results" / "sweep.zarr", chunks=None) for folder, _ in (uninterrupted, history))
    assert set(found.variables) == set(expected.variables)
    for name, variable in expected.variables.items():
        numbers = variable.dtype.kind == "f"
        assert np.array_equal(found[name].values, variable.values, equal_nan=numbers), name
    same = ("spec", "spec_hash", "batch", "versions", "device")
    assert {key: found.attrs[key] for key in same} == {key: expected.attrs[key] for key in same}
    assert found.attrs["finished"] >= found.attrs["started"]


def test_nothing_else_is_left_behind(history: tuple[Path, Mapping[str, Ended]]):
    folder, _ = history
    assert [path.name for path in (folder / "results").iterdir()] == ["sweep.zarr"]

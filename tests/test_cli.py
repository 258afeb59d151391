"""The commands of `mfgsweep`: what they print, how they exit, what they leave behind."""

import errno
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from datetime import datetime
from importlib.metadata import version
from itertools import pairwise
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pandas as pd
import pytest
import xarray as xr
from jax.errors import JaxRuntimeError
from typer.testing import CliRunner, Result

from sweeps import cli, diagnosis, engine, lock, one_by_one, reporting, runtime, store
from sweeps.dataset import open_store
from sweeps.engine import Progress
from sweeps.export import WRITERS
from sweeps.spec import load_spec
from sweeps.sweep import Sweep

# Of 36 games 12 converge; 12 have a quote_min above quote_max, which is 10/k; the others explode.
GRID = """\
model: {coupling: relative, x_max: 3, n_steps: 20}
parameters: {k: 1.5, eta: 0.01}
sweep:
  A: [1.0, 3.0, 1.0e+6]
  gamma: [0.05, 1.0e+300]
  quote_min: [0.0, -.inf, 8.0]
  crowd_mean: [1.0, 0.0]
outputs: {paths: true, surfaces: true}
store: results/sweep.zarr
solver: {select: cold}
"""
POINTS, BLOCK, BATCH = 36, 12, 7
EASY = GRID.replace(", 1.0e+6", "").replace(", 1.0e+300", "").replace(", 8.0", "")

CONFIGS = sorted(Path(__file__).parents[1].joinpath("configs").glob("*.yaml"))


def mfgsweep(*arguments: object) -> Result:
    return CliRunner().invoke(cli.app, list(map(str, arguments)), catch_exceptions=False)


def refusal(*arguments: object) -> str:
    """The one line that a command prints when it refuses."""
    result = mfgsweep(*arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.count("\n") == 1
    return result.stderr.strip()


def events(result: Result) -> list[dict[str, Any]]:
    return [json.loads(line) for line in result.stdout.splitlines()]


def below(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def run_until(monkeypatch: pytest.MonkeyPatch, done: int, *options: object) -> Result:
    """`run`, with Ctrl-C pressed once `done` games are solved."""

    class Impatient(reporting.Plain):
        pressed = False

        def progress(self, state: Progress) -> None:
            super().progress(state)
            if state.done >= done and not self.pressed:
                self.pressed = True
                signal.raise_signal(signal.SIGINT)

    with monkeypatch.context() as patch:
        patch.setattr(reporting, "reporter", lambda quiet, as_json: Impatient())
        patch.setattr(one_by_one, "SECONDS_A_BATCH", 0.0)  # so that batches are of one game each
        patch.setattr(one_by_one, "RESULTS_AHEAD", 1)
        patch.setattr(runtime, "core_count", lambda: 2)
        return mfgsweep("run", "grid.yaml", "--batch", BATCH, *options)


def games_done() -> int:
    """As the store says."""
    return int((xr.open_zarr("results/sweep.zarr", chunks=None)["status"] != 0).sum())


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where commands run: a folder with a grid file, on a machine without a GPU; stores have several blocks."""
    (tmp_path / "grid.yaml").write_text(GRID)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(runtime, "nvidia_driver", lambda: None)
    monkeypatch.setattr(jax, "default_backend", lambda: "cpu")
    monkeypatch.setattr(store, "games_per_block", lambda points, largest: BLOCK)
    return tmp_path


@pytest.fixture(scope="module")
def first_run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Result]:
    """A finished store, and what was printed meanwhile."""
    folder = tmp_path_factory.mktemp("first")
    (folder / "grid.yaml").write_text(GRID)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(store, "games_per_block", lambda points, largest: BLOCK)
        result = mfgsweep("run", folder / "grid.yaml", "--out", folder / "s.zarr", "--batch", BATCH)
    return folder / "s.zarr", result


@pytest.fixture
def finished(first_run: tuple[Path, Result]) -> Path:
    return first_run[0]


class TestRun:
    def test_summary(self, first_run: tuple[Path, Result]):
        path, result = first_run
        assert (result.exit_code, result.stderr) == (0, "")
        with open_store(path) as dataset:
            converged = dataset["status"] == 1
            residual = float(dataset["residual"].where(converged).max())
        lines = result.stdout.splitlines()
        assert converged.sum() >= 8
        assert f"games       {POINTS}" in lines
        assert f"converged   {int(converged.sum())}, largest residual {residual:.1e}" in lines
        assert f"store       {path}" in lines
        assert any(line.startswith(f"solved      {POINTS} games in ") and line.endswith(" games/s") for line in lines)
        assert any(re.fullmatch(r"time        compile \d+%, compute \d+%, .*; the limit was to \w+", line) for line in lines)
        assert any(line.startswith("invalid parameters: 12. No game has these numbers: ") for line in lines)
        assert any(line.startswith("0/36 games, compiling, none done") for line in lines)

    def test_the_line_that_opens_the_store(self, first_run: tuple[Path, Result]):
        last = first_run[1].stdout.splitlines()[-1]
        names: dict[str, Any] = {}
        exec(last.removeprefix("open it     "), names)
        assert names["ds"].sizes["A"] == 3

    def test_the_store_of_the_grid_file(self, folder: Path):
        assert mfgsweep("run", "grid.yaml", "--batch", BATCH).exit_code == 0
        assert open_store(folder / "results" / "sweep.zarr")["status"].shape == (3, 2, 3, 2)

    def test_an_empty_place_is_refused(self, folder: Path):
        """As of a variable of the shell that is not set."""
        result = mfgsweep("run", "grid.yaml", "--out", "")
        assert result.exit_code == 2 and "--out: found nothing; allowed: a path" in result.stderr

    def test_a_share_without_a_block_says_so(self, finished: Path):
        result = mfgsweep("run", "grid.yaml", "--out", finished, "--shard", "900/1000")
        assert (result.exit_code, result.stderr) == (0, "")
        assert "this share holds none of its blocks, as there are more shares than blocks" in result.stdout

    def test_a_finished_store_says_so(self, finished: Path):
        result = mfgsweep("run", "grid.yaml", "--out", finished)
        assert (result.exit_code, result.stderr) == (0, "")
        assert f"{finished}: was complete already; nothing to do." in result.stdout.splitlines()
        assert "games/s" not in result.stdout.splitlines()[1]

    def test_quiet_prints_nothing(self):
        for _ in ("at first", "and when all is done"):
            result = mfgsweep("run", "grid.yaml", "--batch", BATCH, "--quiet")
            assert (result.exit_code, result.output) == (0, "")

    def test_json(self, folder: Path):
        *before, last = events(mfgsweep("run", "grid.yaml", "--batch", BATCH, "--json"))
        assert {event["event"] for event in before} == {"progress"}
        done = [event["done"] for event in before]
        assert (done[0], done[-1]) == (0, POINTS)
        assert all(0 < later - earlier <= BATCH for earlier, later in pairwise(done))
        assert all(event["points"] == POINTS and sum(event["statuses"].values()) == event["done"] for event in before)
        assert last["event"] == "summary"
        assert (last["games"], last["store"]) == (POINTS, "results/sweep.zarr")
        assert last["statuses"] == before[-1]["statuses"]
        assert last["converged"] == last["statuses"]["converged"]
        assert last["points_per_second"] > 0
        assert list(last["shares"]) == ["compile", "compute", "copy", "write"]
        assert all(0 < share <= 1 for share in last["shares"].values())
        assert 0 < last["largest_residual"] < 1e-9

    def test_json_of_a_finished_store(self, finished: Path):
        *_, last = events(mfgsweep("run", "grid.yaml", "--out", finished, "--json"))
        assert (last["event"], last["games"], last["points_per_second"]) == ("summary", POINTS, None)

    def test_strict(self, finished: Path):
        assert mfgsweep("run", "grid.yaml", "--out", finished, "--strict").exit_code == 3

    def test_strict_without_a_failure(self, folder: Path):
        (folder / "easy.yaml").write_text(EASY)
        result = mfgsweep("run", "easy.yaml", "--batch", BATCH, "--strict")
        assert result.exit_code == 0
        assert "converged   8, " in result.stdout

    def test_bar(self, finished: Path, monkeypatch: pytest.MonkeyPatch):
        monkeypatch.setattr(reporting, "reporter", lambda quiet, as_json: reporting.Bar())
        monkeypatch.setenv("COLUMNS", "200")
        result = mfgsweep("run", "grid.yaml", "--out", finished)
        assert result.exit_code == 0
        assert all(part in result.stdout for part in ("36/36", "12 invalid parameters", f"games       {POINTS}"))

    def test_way_of_telling(self, monkeypatch: pytest.MonkeyPatch):
        assert isinstance(reporting.reporter(quiet=False, as_json=False), reporting.Plain)
        assert isinstance(reporting.reporter(quiet=True, as_json=False), reporting.Quiet)
        assert isinstance(reporting.reporter(quiet=True, as_json=True), reporting.Json)
        monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
        assert isinstance(reporting.reporter(quiet=False, as_json=False), reporting.Bar)

    def test_resume_and_fresh(self, monkeypatch: pytest.MonkeyPatch):
        run_until(monkeypatch, BLOCK + 1)
        assert f"{POINTS - games_done()} games in" in mfgsweep("run", "grid.yaml", "--resume").stdout
        assert "36 games in" in mfgsweep("run", "grid.yaml", "--fresh", "--batch", BATCH).stdout


def test_a_line_of_progress_tells_how_long_it_still_takes(capsys: pytest.CaptureFixture[str]):
    """At the pace since the first batch, before which programs were compiled."""
    progress = Progress(points=100, done_before=10, statuses=Counter(converged=10))
    progress.count(np.ones(10, int), 1000.0)
    reporting.Plain().progress(progress)
    progress.count(np.ones(20, int), 1200.0)
    reporting.Plain().progress(progress)
    first, second = capsys.readouterr().out.splitlines()
    assert first == "20/100 games, 0.0 games/s, 20 converged"
    assert second == "40/100 games, 0.0 games/s, 40 converged, 10 minutes left"


def test_version():
    assert mfgsweep("--version").stdout == f"mfgsweep {version('mfg-jax')}\n"


def test_a_full_device_is_told_with_what_to_do(folder: Path, monkeypatch: pytest.MonkeyPatch):
    def run_out(*_: object, **__: object) -> None:
        raise JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory while trying to allocate 99 bytes.")

    monkeypatch.setattr(engine, "run", run_out)
    assert refusal("run", "grid.yaml").startswith("mfgsweep: the device's memory is full; give a smaller --batch (and --fresh).")


def test_a_store_that_does_not_fit_is_not_begun(folder: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(runtime, "free_disk", lambda path: 1_000)
    message = refusal("run", "grid.yaml")
    assert "results/sweep.zarr: needs up to" in message and "1 kB are free; sweep less, store less" in message
    assert below(folder) == ["grid.yaml"]


def test_a_store_that_another_run_fills(folder: Path):
    with lock.hold(folder / "results" / "sweep.zarr"):
        message = refusal("run", "grid.yaml")
    assert f"results/sweep.zarr: another run fills it: process {os.getpid()} on " in message
    assert below(folder) == ["grid.yaml", "results"]


REFUSALS = (errno.EACCES, errno.EPERM, errno.EROFS)


class TestDisk:
    def test_a_folder_that_cannot_be_written(self, folder: Path, monkeypatch: pytest.MonkeyPatch):
        """Not even by the superuser."""
        monkeypatch.setattr(runtime, "free_disk", lambda path: 1_000_000_000)
        message = refusal("run", "grid.yaml", "--out", "/sys/s.zarr")
        assert message in {f"mfgsweep: /sys/s.zarr: cannot be made: the disk refuses it: {os.strerror(n)}" for n in REFUSALS}

    def test_files_of_limited_size(self, folder: Path):
        """The tables and most variables fit, surfaces do not."""
        limit = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (12_000, 12_000))\n"
        ended = run_made_up(limit)
        assert (ended.returncode, ended.stdout) == (2, "")
        assert ended.stderr.count("\n") == 1
        assert "results/sweep.zarr: cannot be made: the disk is full, or a limit is reached\n" in ended.stderr
        assert below(folder / "results") == []
        assert run_made_up("").returncode == 0

    @pytest.mark.parametrize("command", [["info"], ["export", "-o", "s.csv"], ["run", "grid.yaml", "--out"]])
    @pytest.mark.parametrize("variable", ["status", "residual"])
    def test_damage_is_told(self, folder: Path, finished: Path, command: list[str], variable: str):
        path = shutil.copytree(finished, folder / "s.zarr")
        for file in (path / variable / "c").rglob("*"):
            if file.is_file():
                file.write_bytes(file.read_bytes()[:-1] + b"\x00")
        if command == ["info"] and variable == "residual":
            assert mfgsweep(*command, path).exit_code == 0  # it does not look there
            return
        result = mfgsweep(*command, path)
        assert result.exit_code == 2
        said = f"mfgsweep: {path}: is damaged: (status: )?Stored and computed checksum do not match"
        assert re.match(said, result.stderr)
        assert result.stderr.count("\n") == 1


class TestLog:
    def test_a_run_that_is_interrupted_and_gone_on_with(self, folder: Path, monkeypatch: pytest.MonkeyPatch):
        run_until(monkeypatch, BLOCK + 1, "--log", "run.log")
        assert mfgsweep("run", "grid.yaml", "--log", "run.log").exit_code == 0
        logged = [json.loads(line) for line in Path("run.log").read_text().splitlines()]
        assert [event["event"] for event in logged] == [
            *("started", "block", "block", "interrupted"),  # of the second block, what was done of it
            *("started", "block", "block", "finished"),
        ]
        times = [datetime.fromisoformat(event["time"]) for event in logged]
        assert times == sorted(times)

    def test_a_run_that_fails(self, folder: Path):
        (folder / "results").mkdir()
        (folder / "results" / "sweep.zarr").touch()
        message = refusal("run", "grid.yaml", "--log", "run.log")
        (event,) = (json.loads(line) for line in Path("run.log").read_text().splitlines())
        assert event["event"] == "failed"
        assert message == f"mfgsweep: {event['error']}"

    def test_a_log_that_cannot_be_written(self, folder: Path):
        assert refusal("run", "grid.yaml", "--log", "no/run.log") == "mfgsweep: no/run.log: No such file or directory"
        assert refusal("run", "grid.yaml", "--log", "/dev/full").startswith("mfgsweep: /dev/full: the disk is full")


MADE_UP = """
import sys, time
from sweeps import cli, engine, runtime, store
from scripts import torture_store
runtime.nvidia_driver = lambda: None
store.games_per_block = lambda points, largest: 12
engine.solve = torture_store.made_up
torture_store.SECONDS_A_BATCH = float(sys.argv.pop(1))
sys.argv[1:] = ["run", "grid.yaml", "--quiet", "--device", "cpu", "--log", "run.log"]
cli.main()
"""


def begin_made_up(before: str, seconds_a_batch: float) -> subprocess.Popen[str]:
    """`mfgsweep run`, whose games are not solved but made up, as another process."""
    settings = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])}
    command = [sys.executable, "-c", before + MADE_UP, str(seconds_a_batch)]
    return subprocess.Popen(command, env=settings, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def run_made_up(before: str) -> subprocess.CompletedProcess[str]:
    with begin_made_up(before, 0.0) as process:
        out, err = process.communicate()
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


class TestSignals:
    """Sent to processes, one that takes its time between games and one that takes forever."""

    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
    def test_asked_once_it_ends_in_order(self, folder: Path, number: signal.Signals):
        with begin_made_up("", 0.1) as process:
            wait_for(folder / "run.log", "block")
            process.send_signal(number)
            _, err = process.communicate()
        assert process.returncode == 130
        assert err.splitlines() == [
            "mfgsweep: stopping when the games in flight are done and written; press Ctrl-C again to stop at once",
            "mfgsweep: interrupted; run the same command again to go on with results/sweep.zarr",
        ]
        assert json.loads((folder / "run.log").read_text().splitlines()[-1])["event"] == "interrupted"
        assert below(folder / "results")[0] == "sweep.zarr"
        assert run_made_up("").returncode == 0

    def test_asked_twice_it_ends_at_once(self, folder: Path):
        with begin_made_up("", 600.0) as process:
            wait_for(folder / "run.log", "started")
            time.sleep(0.2)
            assert process.stderr
            for said in ("stopping when", "stopped; run the same command again"):
                process.send_signal(signal.SIGTERM)
                assert said in process.stderr.readline()
            assert process.wait() == 130
        assert run_made_up("").returncode == 0
        assert below(folder / "results")[0] == "sweep.zarr"


def wait_for(log: Path, event: str) -> None:
    """Until a log tells of an event."""
    deadline = time.monotonic() + 60
    while not (log.exists() and f'"{event}"' in log.read_text()):
        assert time.monotonic() < deadline
        time.sleep(0.01)


class TestInterrupt:
    def test_exits_130_and_the_same_command_goes_on(
        self, folder: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
    ):
        handler = signal.getsignal(signal.SIGINT)
        result = run_until(monkeypatch, BLOCK + 1)
        assert result.exit_code == 130
        assert (
            "stopping when the games in flight are done and written; press Ctrl-C again to stop at once" in capfd.readouterr().err
        )
        assert result.stderr == "mfgsweep: interrupted; run the same command again to go on with results/sweep.zarr\n"
        assert signal.getsignal(signal.SIGINT) is handler
        left = POINTS - games_done()
        assert POINTS - BLOCK - BATCH < left < POINTS - BLOCK
        result = mfgsweep("run", "grid.yaml")
        assert result.exit_code == 0
        assert f"solved      {left} games" in result.stdout
        assert f"games       {POINTS}" in result.stdout


# Each: what a line of GRID becomes, and the line, the key and a telling part of the message.
BAD: dict[str, tuple[str, str, int, str, str]] = {
    "typo of a section": ("parameters:", "paramters:", 2, "paramters", "did you mean `parameters`?"),
    "typo in the model": ("n_steps", "nsteps", 1, "model.nsteps", "did you mean `n_steps`?"),
    "typo of a parameter": ("eta:", "etaa:", 2, "parameters.etaa", "did you mean `eta`?"),
    "typo of a swept name": ("gamma:", "gama:", 5, "sweep.gama", "did you mean `gamma`?"),
    "typo of an output": ("paths:", "path:", 8, "outputs.path", "did you mean `paths`?"),
    "typo of a range": ("[1.0, 0.0]", "{linspce: [0, 1, 2]}", 7, "sweep.crowd_mean", "did you mean `linspace`?"),
    "unknown coupling": ("relative", "relativ", 1, "model.coupling", "did you mean `relative`?"),
    "unknown boundary": ("x_max: 3", "boundary: reflect", 1, "model.boundary", "did you mean `reflecting`?"),
    "unknown gradient": ("surfaces: true", "gradients: [spread]", 8, "outputs.gradients[0]", "allowed: mean_spread"),
    "NaN": ("1.5", ".nan", 2, "parameters.k", "found nan; allowed: a finite number > 0"),
    "negative": ("0.01", "-0.01", 2, "parameters.eta", "found -0.01; allowed: a finite number >= 0"),
    "negative on an axis": ("3.0", "-3.0", 4, "sweep.A[1]", "found -3.0; allowed: a finite number > 0"),
    "infinite": ("1.5", ".inf", 2, "parameters.k", "found inf"),
    "text for a number": ("1.5", "fast", 2, "parameters.k", "found 'fast', a text"),
    "fraction for a count": ("x_max: 3", "x_max: 3.5", 1, "model.x_max", "found 3.5; allowed: a whole number"),
    "number for a truth": ("paths: true", "paths: 1", 8, "outputs.paths", "found 1; allowed: true or false"),
    "logspace of 0": ("[1.0, 0.0]", "{logspace: [0, 1, 3]}", 7, "sweep.crowd_mean.logspace[0]", "found 0; allowed: a finite"),
    "swept and fixed": ("eta:", "A: 2.0, eta:", 4, "sweep.A", "swept here and fixed under parameters"),
    "empty axis": ("[1.0, 0.0]", "[]", 7, "sweep.crowd_mean", "found a list of 0"),
    "value twice": ("[1.0, 0.0]", "[1.0, 1]", 7, "sweep.crowd_mean[1]", "found 1.0 again"),
    "key twice": ("eta:", "k: 2.0, eta:", 2, "parameters.k", "found twice; allowed: once"),
    "missing parameter": ("k: 1.5, ", "", 2, "parameters.k", "missing; allowed: a number"),
    "absurd lattice": ("x_max: 3", "x_max: 100000", 1, "model.x_max", "allowed: a whole number from 1 to 10000"),
    "absurd axis": ("[1.0, 0.0]", "{linspace: [0, 1, 9000000]}", 7, "sweep.crowd_mean.linspace[2]", "found 9000000"),
    "absurd sweep": (
        "  A:",
        "  horizon: {linspace: [1, 2, 1000000]}\n  crowd_std: [1, 2, 3]\n  A:",
        3,
        "sweep",
        "= 108000000 points; allowed: at most 100000000",
    ),
    "bounds crossed": ("eta:", "quote_max: 1.0, eta:", 2, "parameters.quote_max", "found 1.0, below a quote_min of 8.0"),
    "broken YAML": ("[1.0, 0.0]", "[1.0, 0.0", 8, "", "broken YAML"),
    "tab": ("  A:", "\tA:", 4, "", "allowed: spaces, not tabs"),
    "uneven table": ("store:", "sampling: zip\nstore:", 3, "sweep", "allowed with sampling zip: equal lengths"),
    "weights of a normal crowd": ("store:", "initial: {weights: [1]}\nstore:", 9, "initial.weights", "only with kind weights"),
}


class TestBadInput:
    @pytest.mark.parametrize(("old", "new", "line", "key", "message"), BAD.values(), ids=BAD)
    @pytest.mark.parametrize("command", ["run", "plan"])
    def test_grid(self, folder: Path, command: str, old: str, new: str, line: int, key: str, message: str):
        assert old in GRID
        (folder / "grid.yaml").write_text(GRID.replace(old, new))
        found = refusal(command, "grid.yaml")
        place = f"grid.yaml:{line}: {key}: " if key else f"grid.yaml:{line}: "
        assert found.startswith(place)
        assert message in found
        assert below(folder) == ["grid.yaml"]

    def test_all_mistakes_at_once(self, folder: Path):
        (folder / "grid.yaml").write_text(GRID.replace("1.5", "-1.5").replace("gamma", "gama"))
        result = mfgsweep("run", "grid.yaml")
        assert result.exit_code == 2
        assert [line.split(": ")[:2] for line in result.stderr.splitlines()] == [
            ["grid.yaml:2", "parameters.k"],
            ["grid.yaml:5", "sweep.gama"],
        ]

    def test_no_grid(self, folder: Path):
        assert refusal("run", "no.yaml") == "no.yaml: no such file; allowed: a grid file in YAML"

    def test_no_store_named(self, folder: Path):
        (folder / "grid.yaml").write_text(GRID.replace("store: results/sweep.zarr", ""))
        assert refusal("run", "grid.yaml") == "mfgsweep: grid.yaml: store: missing; allowed: a path here, or --out STORE"

    @pytest.mark.parametrize("batch", ["0", "-1", "1.5", "many", "1000001", ""])
    @pytest.mark.parametrize("command", ["run", "plan"])
    def test_batch(self, folder: Path, command: str, batch: str):
        message = refusal(command, "grid.yaml", "--batch", batch)
        assert message == f"mfgsweep: --batch: found {batch!r}; allowed: auto, or a whole number from 1 to 1000000"
        assert below(folder) == ["grid.yaml"]

    def test_resume_and_fresh_at_once(self):
        assert "contradict each other" in refusal("run", "grid.yaml", "--resume", "--fresh")

    @pytest.mark.parametrize("options", [("--fresh",), ("--retry", "failed")])
    def test_a_share_of_what_takes_the_whole(self, options: tuple[str, ...]):
        message = refusal("run", "grid.yaml", "--shard", "1/2", *options)
        assert message == "mfgsweep: --shard goes with neither --fresh nor --retry, which take the whole store"

    def test_what_is_no_share(self, folder: Path):
        message = refusal("run", "grid.yaml", "--shard", "3/2")
        assert message == "mfgsweep: --shard: found '3/2'; allowed: N/M, such as 3/16, with N from 1 to M"
        assert below(folder) == ["grid.yaml"]

    def test_resume_without_a_store(self, folder: Path):
        assert "results/sweep.zarr: no such store" in refusal("run", "grid.yaml", "--resume")
        assert below(folder) == ["grid.yaml"]

    def test_another_spec(self, folder: Path, finished: Path):
        (folder / "grid.yaml").write_text(GRID.replace("eta: 0.01", "eta: 0.02"))
        result = mfgsweep("run", "grid.yaml", "--out", finished)
        assert (result.exit_code, result.stdout) == (2, "")
        assert result.stderr.splitlines() == [
            f"mfgsweep: {finished}: was made by another spec:",
            "  parameters.eta: 0.01 in the store, 0.02 in the grid file",
            "Choose another --out, or --fresh to delete the store and start again.",
        ]

    def test_another_batch(self, finished: Path):
        assert "was begun with --batch 7" in refusal("run", "grid.yaml", "--out", finished, "--batch", 8)

    @pytest.mark.parametrize("option", [[], ["--fresh"]])
    def test_something_else_where_the_store_goes(self, folder: Path, option: list[str]):
        (folder / "taken").mkdir()
        (folder / "taken" / "thesis.tex").touch()
        message = refusal("run", "grid.yaml", "--out", "taken", *option)
        assert message == "mfgsweep: taken: exists and is no store of mfgsweep; name another path"
        assert below(folder) == ["grid.yaml", "taken", "taken/thesis.tex"]

    def test_a_gpu_that_is_not_there(self, folder: Path):
        message = refusal("run", "grid.yaml", "--device", "gpu")
        assert message == "mfgsweep: --device gpu: JAX finds no GPU here; leave out --device, or use --device cpu"
        assert below(folder) == ["grid.yaml"]


class TestIdleGpu:
    @pytest.mark.parametrize(
        ("driver", "mending"),
        [
            (470, "The driver is too old for JAX: update it to 525 or newer"),
            (535, f"Mend it with: {sys.executable} -m pip install 'jax[cuda12]'"),
            (580, f"Mend it with: {sys.executable} -m pip install 'jax[cuda13]'"),
        ],
    )
    def test_is_said_loudly(self, finished: Path, monkeypatch: pytest.MonkeyPatch, driver: int, mending: str):
        monkeypatch.setattr(runtime, "nvidia_driver", lambda: driver)
        monkeypatch.setattr(diagnosis, "self_check", lambda: 0.0)
        result = mfgsweep("run", "grid.yaml", "--out", finished)
        assert result.exit_code == 0
        for message in (result.stderr, refusal("run", "grid.yaml", "--device", "gpu"), mfgsweep("doctor").stdout):
            assert "THE GPU OF THIS MACHINE IS IDLE" in message
            assert mending in message

    def test_is_not_said_to_who_wants_the_cpu(self, finished: Path, monkeypatch: pytest.MonkeyPatch):
        monkeypatch.setattr(runtime, "nvidia_driver", lambda: 580)
        assert mfgsweep("run", "grid.yaml", "--out", finished, "--device", "cpu").stderr == ""


class TestPlan:
    @pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config.stem)
    def test_every_config(self, folder: Path, config: Path):
        result = mfgsweep("plan", config)
        assert (result.exit_code, result.stderr) == (0, "")
        assert result.stdout.startswith(f"points      {len(Sweep(load_spec(config)).design)} (")
        assert below(folder) == ["grid.yaml"]

    def test_there_are_configs(self):
        assert {config.stem for config in CONFIGS} >= {"quickstart", "competition", "couplings", "large"}

    def test_what_would_run(self):
        lines = mfgsweep("plan", "grid.yaml", "--batch", BATCH).stdout.splitlines()
        assert lines[0] == "points      36 (A 3 x gamma 2 x quote_min 3 x crowd_mean 2)"
        said = {line[:12].strip(): line[12:] for line in lines}
        assert said.keys() >= {"points", "batches", "blocks", "memory", "on disk", "time"}
        assert said["batches"].endswith("7 games")
        assert said["blocks"].startswith("3 of up to 12 games")
        assert said["time"].startswith("at least ")

    def test_looking_for_all_equilibria_takes_a_second_a_game(self):
        (time,) = (line for line in mfgsweep("plan", CONFIGS[0].with_stem("phase")).stdout.splitlines() if line.startswith("time"))
        assert " minutes on " in time


class TestTablesAndConstraints:
    """The games of the grid as rows of a table; a constraint leaves out those that explode by A."""

    CONSTRAINT = "A < 1.0e+6"

    @pytest.fixture
    def games(self, folder: Path) -> pd.DataFrame:
        axes = {name: values for name, (_, values) in Sweep(load_spec("grid.yaml")).design.coords.items()}
        games = pd.MultiIndex.from_product(list(axes.values()), names=list(axes)).to_frame(index=False)
        games.to_csv(folder / "games.csv", index=False)
        head, _, tail = re.split(r"(sweep:\n(?:  .*\n)+)", GRID)
        (folder / "grid.yaml").write_text(f"{head}sampling: table\ntable: games.csv\nwhere: {self.CONSTRAINT}\n{tail}")
        return games

    def test_plan(self, games: pd.DataFrame):
        lines = mfgsweep("plan", "grid.yaml").stdout.splitlines()
        assert lines[:2] == ["points      24 (point 24)", f"where       {self.CONSTRAINT}: leaves 24 of {len(games)} points"]

    def test_an_interrupted_run_is_gone_on_with(
        self, folder: Path, games: pd.DataFrame, finished: Path, monkeypatch: pytest.MonkeyPatch
    ):
        assert run_until(monkeypatch, BLOCK + 1).exit_code == cli.INTERRUPTED
        lines = mfgsweep("info", "results/sweep.zarr").stdout.splitlines()
        assert "sweep       A (36 rows), gamma (36 rows), quote_min (36 rows), crowd_mean (36 rows); sampling table" in lines
        assert f"where       {self.CONSTRAINT}: left 24 of 36 points" in lines
        done = games_done()
        assert f"progress    {done} of 24 games ({100 * done / 24:.1f} %)" in lines

        games.to_parquet(folder / "same.parquet", index=False)
        text = (folder / "grid.yaml").read_text()
        (folder / "grid.yaml").write_text(text.replace("games.csv", "same.parquet"))
        result = mfgsweep("run", "grid.yaml", "--resume")
        assert (result.exit_code, result.stderr) == (0, "")
        assert any(line.startswith(f"solved      {24 - done} games in ") for line in result.stdout.splitlines())
        with open_store("results/sweep.zarr") as dataset, open_store(finished) as whole:
            left = whole.isel(A=slice(2)).stack(point=list(games)).transpose("point", ...)
            for name in games:
                assert dataset[name].values.tolist() == left[name].values.tolist()
            for name in ("status", "mean_spread", "value"):
                np.testing.assert_array_equal(dataset[name], left[name])

    def test_another_table_is_refused(self, folder: Path, games: pd.DataFrame):
        sweep = Sweep(load_spec("grid.yaml"))
        store.create(Path("results/sweep.zarr"), sweep.spec, sweep.design, sweep.labels(), sweep.block_shape(), {"batch": BATCH})
        games.assign(gamma=games.gamma + 1e-9).to_csv(folder / "games.csv", index=False)
        result = mfgsweep("run", "grid.yaml")
        assert (result.exit_code, result.stdout) == (2, "")
        _, difference, advice = result.stderr.splitlines()
        assert re.fullmatch(r"  sweep.gamma.sha256: \w{64} in the store, \w{64} in the grid file", difference)
        assert advice == "Choose another --out, or --fresh to delete the store and start again."

    def test_constrained_grids_are_lists(self, folder: Path):
        (folder / "grid.yaml").write_text(GRID + "where: [quote_min < 8, A*gamma < 1]\n")
        lines = mfgsweep("plan", "grid.yaml").stdout.splitlines()
        assert lines[:2] == ["points      8 (point 8)", "where       quote_min < 8; A*gamma < 1: leaves 8 of 36 points"]


class TestInfo:
    @pytest.mark.parametrize("after", [0, BLOCK + 1])
    def test_unfinished(self, monkeypatch: pytest.MonkeyPatch, after: int):
        run_until(monkeypatch, after)
        done = games_done()
        assert after <= done < after + BATCH
        result = mfgsweep("info", "results/sweep.zarr")
        assert (result.exit_code, result.stderr) == (0, "")
        lines = result.stdout.splitlines()
        assert f"progress    {done} of 36 games ({100 * done / 36:.1f} %)" in lines
        assert f"status      {36 - done} pending" in lines
        assert "finished    not yet: run the same command again to go on" in lines

    def test_finished(self, finished: Path):
        lines = mfgsweep("info", finished).stdout.splitlines()
        attributes = xr.open_zarr(finished, chunks=None).attrs
        assert {
            "sweep       A (3), gamma (2), quote_min (3), crowd_mean (2); sampling grid",
            "progress    36 of 36 games (100.0 %)",
            "status      12 invalid parameters",
            "batch       7 games",
            f"spec hash   {attributes['spec_hash']}",
            f"started     {attributes['started']}",
            f"finished    {attributes['finished']}",
            f"device      {attributes['device']}",
            "solved in   float64",
            f"source      {attributes['source_digest']}",
        } <= set(lines)
        assert any(re.fullmatch(r"time        .* for 3 blocks, .* on average, .* at most", line) for line in lines)
        assert any(re.fullmatch(r"revision    \w+(, with changes)?", line) for line in lines)
        assert any("parameters  eta 0.01, k 1.5" in line for line in lines)
        assert not any("pending" in line for line in lines)

    def test_no_store(self):
        assert refusal("info", "no.zarr") == "mfgsweep: no.zarr: no such store; `mfgsweep run GRID.yaml` makes one"

    @pytest.mark.parametrize("command", [["info"], ["export", "-o", "s.csv"]])
    def test_something_else(self, folder: Path, command: list[str]):
        (folder / "other").mkdir()
        message = refusal(*command, "other")
        assert message == "mfgsweep: other: exists and is no store of mfgsweep; name another path"

    @pytest.mark.parametrize("command", [["info"], ["export", "-o", "s.csv"], ["run", "grid.yaml", "--out"]])
    def test_a_file(self, command: list[str]):
        message = refusal(*command, "grid.yaml")
        assert message.startswith("mfgsweep: grid.yaml: exists and is no store of mfgsweep")


@pytest.mark.parametrize(
    "command",
    [
        ("export", "s.zarr", "-o", "s.csv"),
        ("plot", "s.zarr", "mean_spread", "-o", "s.png"),
        ("sensitivity", "s.zarr"),
        ("report", "s.zarr", "-o", "s.html"),
        ("view", "s.zarr"),
        ("extend", "s.zarr", "grid.yaml"),
        ("run", "grid.yaml", "--out", "s.zarr"),
        ("run", "grid.yaml", "--out", "s.zarr", "--retry", "failed"),
    ],
)
def test_no_command_takes_a_store_that_lacks_a_file_for_whole(folder: Path, finished: Path, command: tuple[str, ...]):
    """Numbers that are lost would be read as NaN."""
    shutil.copytree(finished, "s.zarr")
    lost = next(file for file in Path("s.zarr", "mean_spread").rglob("*") if file.is_file() and file.name != "zarr.json")
    lost.unlink()
    of_status = str(lost).replace("mean_spread", "status")
    message = refusal(*command)
    assert message.startswith(f"mfgsweep: {lost}: is missing; restore it from a copy, or delete {of_status}, and the command that")
    assert sorted(entry.name for entry in folder.iterdir()) == ["grid.yaml", "s.zarr"]


@pytest.mark.parametrize("name", ["gamma", "time"])
def test_nor_one_that_lacks_labels(finished: Path, name: str):
    shutil.copytree(finished, "s.zarr")
    (lost,) = (file for file in Path("s.zarr", name).rglob("*") if file.is_file() and file.name != "zarr.json")
    lost.unlink()
    assert refusal("export", "s.zarr", "-o", "s.csv").startswith(f"mfgsweep: {lost}: is damaged: it is missing; restore it")


def test_an_axis_of_zeros(folder: Path):
    """Whose file zarr would leave out."""
    (folder / "grid.yaml").write_text(GRID.replace("crowd_mean: [1.0, 0.0]", "crowd_mean: [0.0]"))
    assert mfgsweep("run", "grid.yaml").exit_code == 0
    assert "was complete already" in mfgsweep("run", "grid.yaml").stdout
    assert mfgsweep("export", "results/sweep.zarr", "-o", "s.csv").exit_code == 0


class TestExport:
    @pytest.mark.parametrize(("ending", "read"), [("csv", pd.read_csv), ("parquet", pd.read_parquet)])
    def test_tables(self, folder: Path, finished: Path, ending: str, read: Any):
        result = mfgsweep("export", finished, "-o", f"s.{ending}")
        assert (result.exit_code, result.stdout, result.stderr) == (0, f"wrote s.{ending}\n", "")
        assert below(folder) == ["grid.yaml", f"s.{ending}"]
        table = read(f"s.{ending}")
        dataset = xr.open_zarr(finished, chunks=None)
        scalars = [name for name, variable in dataset.data_vars.items() if variable.dims == dataset["status"].dims]
        assert set(table) == {*dataset["status"].dims, *scalars, "clipped_mass_ask", "clipped_mass_bid"}
        assert len(table) == POINTS
        by_game = table.set_index(list(dataset["status"].dims)).to_xarray().reindex_like(dataset["status"])
        for name in scalars:
            np.testing.assert_array_equal(by_game[name], dataset[name])
        for side in ("ask", "bid"):
            np.testing.assert_array_equal(by_game[f"clipped_mass_{side}"], dataset["clipped_mass"].sel(side=side))

    def test_a_table_of_gradients_and_names_that_is_not_begun(self, folder: Path):
        text = GRID.replace("surfaces: true", "gradients: [mean_spread]").replace("coupling: relative, ", "")
        text = text.replace("  A: [1.0, 3.0, 1.0e+6]", "  A: [1.0, 3.0]\n  coupling: [none, relative]")
        spec = text.replace("[0.05, 1.0e+300]", "[0.05, 0.1]").replace("[0.0, -.inf, 8.0]", "[0.0, 0.1]")
        (folder / "grid.yaml").write_text(spec + "sampling: zip\n")
        sweep = Sweep(load_spec("grid.yaml"))
        store.create(Path("s.zarr"), sweep.spec, sweep.design, sweep.labels(), sweep.block_shape(), {})
        assert mfgsweep("export", "s.zarr", "-o", "s.csv").exit_code == 0
        table = pd.read_csv("s.csv")
        assert table["coupling"].tolist() == ["none", "relative"]
        assert table["crowd_mean"].tolist() == [1.0, 0.0]
        assert table["status"].tolist() == [0, 0]
        assert table["d_mean_spread_gamma"].isna().tolist() == [True, True]

    def test_netcdf(self, folder: Path, finished: Path):
        result = mfgsweep("export", finished, "-o", "s.nc")
        assert (result.exit_code, result.stdout, result.stderr) == (0, "wrote s.nc\n", "")
        assert below(folder) == ["grid.yaml", "s.nc"]
        with xr.open_dataset("s.nc", engine="h5netcdf") as copy, open_store(finished) as dataset:
            assert set(copy.variables) == set(dataset.variables)
            for name, variable in dataset.variables.items():
                assert copy[name].dims == variable.dims
                assert copy[name].attrs["long_name"] == variable.attrs["long_name"]
                assert copy[name].attrs.get("units") == variable.attrs.get("units")
                np.testing.assert_array_equal(copy[name].values, variable.values)
            assert copy.attrs["spec_hash"] == dataset.attrs["spec_hash"]

    @pytest.mark.parametrize(("file", "found"), [("s.xlsx", ".xlsx"), ("s", "")])
    def test_unknown_ending(self, folder: Path, finished: Path, file: str, found: str):
        message = refusal("export", finished, "-o", file)
        assert message == f"mfgsweep: {file}: found the ending {found!r}; allowed: .csv, .parquet, .nc"
        assert below(folder) == ["grid.yaml"]

    def test_missing_folder(self, folder: Path, finished: Path):
        message = refusal("export", finished, "-o", "no/s.csv")
        assert message == "mfgsweep: no/s.csv: the folder no does not exist; make it first"
        assert below(folder) == ["grid.yaml"]

    def test_missing_package(self, folder: Path, finished: Path, monkeypatch: pytest.MonkeyPatch):
        def missing(*_: Any) -> None:
            raise ImportError("No module named 'pyarrow'")

        monkeypatch.setitem(WRITERS, ".parquet", missing)
        message = refusal("export", finished, "-o", "s.parquet")
        assert message == f"mfgsweep: s.parquet: needs pyarrow; install it with: {sys.executable} -m pip install 'mfg-jax[export]'"

    def test_all_or_nothing(self, folder: Path, finished: Path, monkeypatch: pytest.MonkeyPatch):
        def fail(dataset: xr.Dataset, path: Path) -> None:
            path.write_text("half a tab")
            raise OSError("No space left on device")

        (folder / "s.csv").write_text("of last week")
        monkeypatch.setitem(WRITERS, ".csv", fail)
        assert refusal("export", finished, "-o", "s.csv") == "mfgsweep: No space left on device"
        assert (folder / "s.csv").read_text() == "of last week"
        assert below(folder) == ["grid.yaml", "s.csv"]

    def test_no_store(self):
        assert "no.zarr: no such store" in refusal("export", "no.zarr", "-o", "s.csv")


class TestDoctor:
    def test_passes(self):
        result = mfgsweep("doctor")
        assert (result.exit_code, result.stderr) == (0, "")
        assert "precision   float64" in result.stdout
        assert "self-check  passed" in result.stdout
        assert f"jax         {jax.__version__}" in result.stdout

    def test_fails(self, monkeypatch: pytest.MonkeyPatch):
        monkeypatch.setattr(diagnosis, "self_check", lambda: 1e-3)
        result = mfgsweep("doctor")
        assert result.exit_code == 1
        assert "self-check  FAILED: largest error of a value function 1.0e-03 (allowed 1e-06)" in result.stdout


class TestHelp:
    def test_names_every_command(self):
        result = mfgsweep("--help")
        assert result.exit_code == 0
        solve, look = ("run", "extend", "plan", "info", "verify"), ("export", "quotes", "plot", "sensitivity")
        for command in (*solve, *look, "calibrate", "reach", "doctor"):
            assert command in result.stdout
            assert "Usage:" in mfgsweep(command, "--help").stdout

    @pytest.mark.parametrize("arguments", [["--help"], ["run", "--help"], ["run", "no.yaml"]])
    def test_needs_no_jax(self, arguments: list[str]):
        program = f"""
import sys
from sweeps.cli import app
try:
    app({arguments!r})
except SystemExit:
    print("jax" in sys.modules)
"""
        printed = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
        assert printed.splitlines()[-1] == "False"

"""Runs on clusters: the numbers of a run by itself, whoever dies; and workers, schedulers and addresses that are refused."""

import json
import os
import pickle
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from dask import config
from distributed import LocalCluster
from distributed.scheduler import KilledWorker

from sweeps import cluster, engine, lock, runtime, store, worker
from sweeps.cluster import Cluster, ClusterError, environment
from sweeps.dataset import CRASHED
from sweeps.engine import Interrupted, Progress
from sweeps.notes import Link
from sweeps.store import Block, StoreError, open_existing
from tests import doomed
from tests.made_up import BLOCK, POINTS, assert_same_bits, games_made_up, loaded, make, run

SPEC = make()
MFGSWEEP = Path(sys.executable).with_name("mfgsweep")


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The store of a run by itself."""
    path = tmp_path_factory.mktemp("alone") / "s.zarr"
    run(SPEC, path)
    return path


@pytest.fixture(scope="module")
def scheduler() -> Iterator[str]:
    """The address of a scheduler with two workers, which are threads of this process."""
    with threads_as_workers(2, 1) as address:
        yield address


@contextmanager
def threads_as_workers(workers: int, threads_each: int) -> Iterator[str]:
    reached_at: Any = {"host": "127.0.0.1", "protocol": "tcp://", "dashboard_address": "127.0.0.1:0", "silence_logs": 50}
    with LocalCluster(n_workers=workers, threads_per_worker=threads_each, processes=False, **reached_at) as started:
        found: Any = started
        yield found.scheduler_address


def on_cluster(address: str, path: Path, device: str | None = "cpu", **options: Any) -> Progress:
    with games_made_up(), Cluster(address, SPEC, device) as crew:
        return engine.run(SPEC, path, crew=crew, **options)


def files(path: Path) -> dict[str, bytes]:
    """All that is in a store but when it was made."""
    found = {str(file.relative_to(path)): file for file in path.rglob("*") if file.is_file()}
    timeless = {name: file for name, file in found.items() if name != "zarr.json" and not name.startswith("blocks/seconds/c/")}
    return {name: file.read_bytes() for name, file in timeless.items()}


# Whole runs.


def test_workers_make_the_store_that_one_process_makes(scheduler: str, alone: Path, tmp_path: Path):
    told: list[int] = []
    events: list[str] = []
    path = tmp_path / "s.zarr"
    options = {"report": lambda state: told.append(state.done), "log": lambda event, **fields: events.append(event)}
    progress = on_cluster(scheduler, path, **options)
    assert (progress.points, progress.done) == (POINTS, POINTS)
    assert told == [0, BLOCK, 2 * BLOCK, POINTS]
    assert events == ["started", "block", "block", "block", "finished"]
    assert files(path) == files(alone)
    assert loaded(path).attrs["finished"]
    assert [entry.name for entry in tmp_path.iterdir()] == ["s.zarr"]


def test_only_what_is_not_done_becomes_a_task(scheduler: str, alone: Path, tmp_path: Path):
    path = tmp_path / "s.zarr"
    stop = threading.Event()
    with pytest.raises(Interrupted):
        run(SPEC, path, stop=stop, report=lambda state: stop.set() if state.done else None)
    progress = on_cluster(scheduler, path)
    assert (progress.done_before, progress.done) == (BLOCK, POINTS - BLOCK)
    assert files(path) == files(alone)


def test_a_complete_store_needs_no_worker(alone: Path):
    assert on_cluster("tcp://127.0.0.1:1", alone).done_before == POINTS


def test_a_run_that_is_stopped_is_gone_on_with(scheduler: str, alone: Path, tmp_path: Path):
    path = tmp_path / "s.zarr"
    stop = threading.Event()
    with pytest.raises(Interrupted):
        on_cluster(scheduler, path, stop=stop, report=lambda state: stop.set() if state.done else None)
    assert 1 <= len(open_existing(path).pending_blocks()) < POINTS // BLOCK
    on_cluster(scheduler, path)
    assert files(path) == files(alone)


def test_two_runs_on_one_store(scheduler: str, tmp_path: Path):
    path = tmp_path / "s.zarr"
    with lock.hold(path), pytest.raises(StoreError, match="another run fills it"):
        on_cluster(scheduler, path)


def test_what_a_worker_finds_wrong_ends_the_run(scheduler: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Where a full disk stops one writer, no other goes on once the run has ended."""
    path = tmp_path / "s.zarr"

    def full(*args: Any) -> None:
        raise OSError(28, "No space left on device", "status/c/0")

    with monkeypatch.context() as patched, pytest.raises(StoreError, match="status/c/0: the disk is full"):
        patched.setattr(store.Store, "write_part", full)
        on_cluster(scheduler, path)
    assert len(open_existing(path).pending_blocks()) == POINTS // BLOCK
    on_cluster(scheduler, path)
    assert not open_existing(path).pending_blocks()


def test_what_tasks_have_in_common_is_known_again_when_it_arrives(tmp_path: Path):
    """A worker opens the store, and loads its programs, once a run."""
    work = worker.Work("a run", tmp_path / "s.zarr", Link(tmp_path / "lock"), "cpu", 1)
    arrived = pickle.loads(pickle.dumps(work))
    assert arrived == work and hash(arrived) == hash(work)


def test_a_task_of_a_run_that_lost_its_store_writes_nothing(alone: Path, tmp_path: Path):
    path = tmp_path / "s.zarr"
    with games_made_up():
        stop = threading.Event()
        stop.set()
        with pytest.raises(Interrupted):
            engine.run(SPEC, path, stop=stop)
        before = files(path)
        work = worker.Work("a run", path, Link(tmp_path / "no lock"), "cpu", 1)
        with pytest.raises(lock.Locked, match="this run's lock is gone"):
            worker.solve_games(work, next(open_existing(path).blocks()), 0, BLOCK - 1)
    assert files(path) == before


GRID = """\
model: {coupling: relative, x_max: 3, n_steps: 12, scheme: euler}
parameters: {A: 2.0, k: 1.5}
sweep:
  gamma: {logspace: [0.01, 1.0, 6]}
  crowd_mean: {linspace: [0.0, 3.0, 16]}
  eta: {linspace: [0.0, 0.1, 16]}
solver: {max_iterations: 60, select: cold}
outputs: {paths: false}
"""


def test_a_run_that_is_interrupted_with_all_its_workers(tmp_path: Path):
    """Real games, and the program as its users meet it: Ctrl-C reaches the workers too, which leave it to the run."""
    (tmp_path / "grid.yaml").write_text(GRID)
    quickly = {**os.environ, "JAX_DISABLE_MOST_OPTIMIZATIONS": "true"}
    command = [MFGSWEEP, "run", "grid.yaml", "--json", "--device", "cpu"]
    subprocess.run([*command, "--out", "alone.zarr"], cwd=tmp_path, env=quickly, check=True, capture_output=True)
    command += ["--out", "s.zarr", "--cluster", "local:2"]
    process = subprocess.Popen(
        command, cwd=tmp_path, env=quickly, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True
    )
    assert process.stdout
    for line in process.stdout:
        if json.loads(line).get("done"):
            os.killpg(process.pid, signal.SIGINT)
            break
    _, complaint = process.communicate(timeout=120)
    assert process.returncode == 130
    assert [line.partition(";")[0] for line in complaint.splitlines()] == [
        "mfgsweep: stopping when the games in flight are done and written",
        "mfgsweep: interrupted",
    ]
    assert open_existing(tmp_path / "s.zarr").pending_blocks()
    ended = subprocess.run(command, cwd=tmp_path, env=quickly, text=True, capture_output=True)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert files(tmp_path / "s.zarr") == files(tmp_path / "alone.zarr")
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["alone.zarr", "grid.yaml", "s.zarr"]


# Workers that die.

EARLY = """
import json, os, sys
from pathlib import Path
found = {"gpu": os.environ["CUDA_VISIBLE_DEVICES"], "fraction": os.environ["XLA_CLIENT_MEM_FRACTION"],
         "jax": "jax" in sys.modules, "spawned": "--multiprocessing-fork" in sys.orig_argv}
Path(json.loads(os.environ["MFGSWEEP_TEST_DOOM"])["folder"], f"{os.getpid()}.begun").write_text(json.dumps(found))
"""
"""What workers find when they begin."""


def test_workers_on_this_machine_that_die_at_any_moment(alone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """One has solved nothing of its block when it dies; one has written all but its status; one all, and does not come to say so.
    One game of the first block kills every worker: it is marked, and all other numbers are those of a single process. Some workers
    are not restarted in time, and replaced."""
    path, poison, early = tmp_path / "store" / "s.zarr", 2, tmp_path / "early.py"
    early.write_text(EARLY)
    doom = {"folder": str(tmp_path), "poison": [poison], "once": {"solving": 6, "writing": 6, "reporting": 9}}
    monkeypatch.setenv(doomed.VARIABLE, json.dumps(doom))
    monkeypatch.setattr(cluster, "DEATHS_ALLOWED", 0)
    monkeypatch.setattr(cluster, "SECONDS_TO_RESTART", 1.0)
    monkeypatch.setattr(runtime, "gpus", lambda: ["7"])
    with config.set({"distributed.worker.preload": [str(early), "tests.doomed"]}):
        progress = on_cluster("local:2", path, device=None)
    assert all((tmp_path / moment).exists() for moment in doom["once"])
    assert progress.done == POINTS and progress.statuses["crashed"] == 1
    assert_poisoned(path, alone, [poison])
    assert loaded(path).attrs["finished"]
    assert [entry.name for entry in path.parent.rglob("*") if entry.suffix == ".partial" or entry.name.startswith(".")] == []
    begun = [json.loads(file.read_text()) for file in tmp_path.glob("*.begun")]
    assert len(begun) >= 2 + len(doom["once"])
    assert [of for of in begun if of != {"gpu": "7", "fraction": "0.375", "jax": False, "spawned": True}] == []


def assert_poisoned(path: Path, alone: Path, poison: Sequence[int]) -> None:
    """These games have crashed and have no numbers; all others are as one process solves them."""
    found, expected = loaded(path), loaded(alone)
    of_poison = np.isin(np.arange(POINTS), poison).reshape(expected["status"].shape)
    expected["status"].values[of_poison] = CRASHED
    for variable in expected.data_vars.values():
        if variable.name != "status":
            variable.values[of_poison] = np.nan
    assert_same_bits(found, expected)


class Pretended:
    """A client whose workers solve at once, in this process, and die of some games; it is lost with some block."""

    def __init__(self, poison: Sequence[int] = (), harmless_after: int = 10**6, last_block: int | None = None) -> None:
        self.status, self.cluster = "running", None
        self.tasks: list[list[int]] = []
        self._poison = poison
        self._deaths_left = harmless_after
        self._last_block = last_block

    def nthreads(self) -> dict[str, int]:
        return {"one": 1, "other": 1}

    def run(self, function: Callable[..., Any], *args: Any, on_error: str) -> None:
        function(*args)

    def submit(self, solve: Any, work: worker.Work, block: Block, first: int, last: int, pure: bool) -> Any:
        points = [*range(block.start + first, block.start + last + 1)]
        self.tasks.append(points)
        if self._deaths_left and np.isin(points, self._poison).any():
            self._deaths_left -= 1
            last_worker: Any = SimpleNamespace(address="tcp://worker")
            return Ended(error=KilledWorker("task", last_worker, 0))
        if block.number == self._last_block:
            self.status = "closed"
            return Ended(never=True)
        return Ended(seconds=solve(work, block, first, last))


class Ended:
    """A future of which all is known; or one of which nothing more will ever be."""

    def __init__(self, seconds: float | None = None, error: Exception | None = None, never: bool = False) -> None:
        self.status = "error" if error else "finished"
        self.result, self.exception = lambda: seconds, lambda: error
        self._never = never

    def add_done_callback(self, call: Callable[[Any], None]) -> None:
        if not self._never:
            call(self)


@contextmanager
def pretended(client: Pretended) -> Iterator[Cluster]:
    with games_made_up():
        crew = Cluster("local:2", SPEC, "cpu")
        crew.__dict__ |= {"_client": client, "_description": worker.describe(SPEC, "cpu")}
        yield crew


@pytest.mark.parametrize("poison", [(2,), (0, 3), (4, 5, 6, 7), (1, 6, 11), tuple(range(1, POINTS))])
def test_games_that_kill_are_found_and_marked(poison: tuple[int, ...], alone: Path, tmp_path: Path):
    client = Pretended(poison)
    with pretended(client) as crew:
        progress = engine.run(SPEC, tmp_path / "s.zarr", crew=crew)
    assert progress.statuses["crashed"] == len(poison) and progress.done == POINTS
    assert_poisoned(tmp_path / "s.zarr", alone, poison)
    assert all(client.tasks.count([game]) == cluster.FAILURES_ALONE for game in poison)


def test_a_game_is_not_marked_for_what_happens_by_chance(alone: Path, tmp_path: Path):
    """As where workers are killed that solve what has nothing to do with it."""
    client = Pretended((2,), harmless_after=cluster.FAILURES_ALONE + 1)
    with pretended(client) as crew:
        engine.run(SPEC, tmp_path / "s.zarr", crew=crew)
    assert client.tasks.count([2]) > 1
    assert files(tmp_path / "s.zarr") == files(alone)


def test_the_games_left_may_be_those_that_kill(alone: Path, tmp_path: Path):
    """As where a run that had solved all others was interrupted."""
    path = tmp_path / "s.zarr"
    run(SPEC, path)
    target = open_existing(path)
    (part,) = target.parts(np.isin(np.arange(POINTS), [1, 2]).reshape(target.shape))
    target.write_part(part, {"status": np.zeros(2)})
    with pretended(Pretended((1, 2))) as crew:
        engine.run(SPEC, path, crew=crew)
    assert_poisoned(path, alone, (1, 2))


def test_where_all_games_kill_it_is_not_the_games(tmp_path: Path):
    with (
        pretended(Pretended(range(POINTS))) as crew,
        pytest.raises(ClusterError, match="workers die whatever game they are given"),
    ):
        engine.run(SPEC, tmp_path / "s.zarr", crew=crew)
    assert (loaded(tmp_path / "s.zarr")["status"] == 0).all()


def test_a_scheduler_that_goes(tmp_path: Path):
    with pretended(Pretended(last_block=1)) as crew, pytest.raises(ClusterError, match="the scheduler is gone"):
        engine.run(SPEC, tmp_path / "s.zarr", crew=crew)
    assert [block.number for block in open_existing(tmp_path / "s.zarr").pending_blocks()] == [1]


# What is refused.


@pytest.mark.parametrize(
    "address", ["", "local", "local:0", "local:-1", "local:1.5", "tcp://", "tcp://host", "host:8786", "http://a:1"]
)
def test_what_is_no_address(address: str):
    with pytest.raises(ClusterError, match="allowed: tcp://host:port, or local:N"):
        Cluster(address, SPEC)


@pytest.mark.parametrize("address", ["local:1", "local:64", "tcp://head:8786", "tcp://10.0.0.1:8786", "tcp://[::1]:8786"])
def test_what_is_an_address(address: str):
    Cluster(address, SPEC)


def test_no_scheduler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(cluster, "SECONDS_TO_CONNECT", 0.5)
    with pytest.raises(ClusterError, match="no scheduler answers there"):
        on_cluster("tcp://127.0.0.1:1", tmp_path / "s.zarr")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("workers", "threads", "message"), [(0, 1, "has no workers; start some with: dask worker tcp"), (1, 2, "has 2 threads")]
)
def test_a_scheduler_without_the_right_workers(
    workers: int, threads: int, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(cluster, "SECONDS_TO_START", 0.5)
    with threads_as_workers(workers, threads) as address, pytest.raises(ClusterError, match=message):
        on_cluster(address, tmp_path / "s.zarr")
    assert list(tmp_path.iterdir()) == []


def described(**changes: Any) -> dict[str, Any]:
    provenance = runtime.provenance()
    versions = {**provenance["versions"], **changes.pop("versions", {})}
    return {"provenance": {**provenance, "versions": versions, **changes}, "batch": 4}


@pytest.mark.parametrize(
    ("first", "description", "message"),
    [
        (described(), described(versions={"jax": "0.1"}), "  version of jax: 0.1 there, "),
        (described(), described(source_digest="another"), "  digest of the source: another there, "),
        (described(), described(device_kind="GPU"), "  kind of device: GPU there, cpu expected"),
        (described(device_kind="GPU"), described(), "  kind of device: cpu there, GPU expected"),
        (
            described(),
            ModuleNotFoundError("No module named 'sweeps'"),
            "cannot be used .No module named 'sweeps'.; its installation",
        ),
        (described(), runtime.DeviceError("--device gpu: JAX finds no GPU here"), "--device gpu: JAX finds no GPU here"),
    ],
)
def test_workers_that_are_not_alike(first: Any, description: Any, message: str):
    with pytest.raises(ClusterError, match=f"^worker tcp://w: (.*\n)?{message}"):
        cluster._check_worker("tcp://w", description, first)
    cluster._check_worker("tcp://w", first, first)


def test_a_worker_that_comes_later_and_is_another(alone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    run(SPEC, tmp_path / "s.zarr", share=engine.Share(1, 3))
    provenance = runtime.provenance()
    monkeypatch.setattr(runtime, "provenance", lambda: {**provenance, "versions": {**provenance["versions"], "jax": "0.1"}})
    work = worker.Work("another run", tmp_path / "s.zarr", Link(tmp_path / "lock"), "cpu", 1)
    target = open_existing(tmp_path / "s.zarr")
    with pytest.raises(StoreError, match=r"version of jax: .* in the store, 0\.1 here"):
        worker.solve_games(work, target.pending_blocks()[0], 0, BLOCK - 1)


def test_a_worker_that_does_not_see_the_store(tmp_path: Path):
    work = worker.Work("a third run", tmp_path / "s.zarr", Link(tmp_path / "lock"), "cpu", 1)
    with pytest.raises(StoreError, match="does not see it; all must see the same folder"):
        worker.solve_games(work, Block(0, 0, 4, ()), 0, 3)


def test_nothing_is_deleted_before_there_are_workers(alone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(cluster, "SECONDS_TO_CONNECT", 0.5)
    path = tmp_path / "s.zarr"
    run(SPEC, path)
    with pytest.raises(ClusterError, match="no scheduler answers there"):
        on_cluster("tcp://127.0.0.1:1", path, fresh=True)
    assert files(path) == files(alone)


# Workers on this machine.


def test_each_worker_has_one_gpu_and_its_share_of_the_memory():
    assert environment(0, 2, []) == {}
    assert [environment(n, 2, ["a", "b"]) for n in range(2)] == [{"CUDA_VISIBLE_DEVICES": gpu} for gpu in "ab"]
    shared = [environment(n, 3, ["a", "b"]) for n in range(3)]
    assert [of["CUDA_VISIBLE_DEVICES"] for of in shared] == ["a", "b", "a"]
    assert [of.get("XLA_CLIENT_MEM_FRACTION") for of in shared] == ["0.375", None, "0.375"]


def test_gpus_are_those_that_this_process_may_use(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    smi = tmp_path / "nvidia-smi"
    smi.write_text("#!/bin/sh\nprintf 'GPU-1\\nGPU-2\\n'\n")
    smi.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert runtime.gpus() == ["GPU-1", "GPU-2"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,5")
    assert runtime.gpus() == ["3", "5"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert runtime.gpus() == []

"""A run on the workers of a cluster, by dask.distributed: on this machine, or wherever there is a scheduler.

A task owns all that is not done of a block, and writes it itself. What is done the store says, and not the scheduler: a task whose
worker died is run again, and does what is left. One whose workers die again is cut in halves, until the game that kills them is
alone; when it has done so again and again it is marked `crashed`, and the others of its block are solved.
"""

from __future__ import annotations

import logging
import re
import time
import uuid
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from queue import Empty, SimpleQueue
from types import TracebackType
from typing import Any, Self

import numpy as np
from dask import config
from distributed import Client, Nanny, Scheduler, SpecCluster
from distributed.scheduler import KilledWorker

from sweeps import engine, runtime, worker
from sweeps.agreement import of_crashed
from sweeps.engine import Interrupted, Orders
from sweeps.problems import brief
from sweeps.spec import Spec, differing_keys
from sweeps.store import Part, Store
from sweeps.sweep import Sweep
from sweeps.worker import Done, Work

DEATHS_ALLOWED = 1
"""Of workers on this machine, for a task; with one more it fails. Other schedulers have a setting of their own for it."""
FAILURES_ALONE = 3
"""Of the task of a game alone, after which the game is held to be the reason, and no longer chance."""
HOPELESS = 4
"""Games that kill their workers, each alone, before any other is solved: then it is not the games."""
SECONDS_TO_CONNECT, SECONDS_TO_START = 10.0, 60.0
SECONDS_TO_RESTART = 120.0
"""For a worker on this machine that died; after that, another takes its place."""
SECONDS_BETWEEN_LOOKS = 0.2
MEMORY_OF_A_GPU = 0.75
"""The share that JAX takes by default: workers that have a GPU in common divide it."""
LOOPBACK = "127.0.0.1"


class ClusterError(runtime.DeviceError):
    """Workers that are not there, or cannot be used; the message says what to do."""


class Cluster:
    """The crew of a run (`engine.Crew`); a context manager around it. Workers are started, or asked, when they are first needed.

    Args:
        address: tcp://host:port of a scheduler, or local:N for N workers on this machine.
        device: where they compute; None for the best they have.

    Raises:
        ClusterError: the address is none.
    """

    def __init__(self, address: str, spec: Spec, device: str | None = None) -> None:
        local = re.fullmatch(r"local:([1-9]\d{0,2})", address)
        if not local and not re.fullmatch(r"tcp://[^/:]+:\d+|tcp://\[[0-9a-fA-F:]+\]:\d+", address):
            raise ClusterError(f"--cluster: found {address!r}; allowed: tcp://host:port, or local:N with N from 1 to 999")
        self._address = address
        self._workers_here = int(local[1]) if local else None
        self._spec = spec
        self._device = device
        self._open = ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._open.close()

    def provenance(self) -> dict[str, Any]:
        return self._description["provenance"]

    def batch_size(self, sweep: Sweep) -> int:
        del sweep
        return self._description["batch"]

    def fill(self, sweep: Sweep, target: Store, parts: Sequence[Part], orders: Orders) -> None:
        """See `engine.Crew`.

        Raises:
            Interrupted: it was stopped. StoreError, OSError: of a worker that could not write. ClusterError: the scheduler is gone,
                or no game can be solved.
        """
        if not parts:
            orders.report(orders.progress)
            return
        cores = max(1, runtime.core_count() // min(self._workers_here, len(parts))) if self._workers_here else None
        assert isinstance(target.path, Path)  # buckets are refused before
        work = Work(uuid.uuid4().hex, target.path.absolute(), orders.held.note, self._device, cores)
        _Tasks(self._client, work, sweep, target, parts, orders).complete()

    @cached_property
    def _client(self) -> Any:  # distributed declares of its methods what they return when awaited, too
        here = self._open.enter_context(_local(self._workers_here, self._device)) if self._workers_here else None
        try:
            connected = Client(here or self._address, timeout=SECONDS_TO_CONNECT, set_as_default=False)
        except OSError:
            raise ClusterError(f"--cluster {self._address}: no scheduler answers there; start one with: dask scheduler") from None
        client: Any = self._open.enter_context(connected)
        try:
            client.wait_for_workers(self._workers_here or 1, timeout=SECONDS_TO_START)
        except TimeoutError:
            how = "" if here else f"; start some with: dask worker {self._address} --nthreads 1 --memory-limit 0"
            raise ClusterError(f"--cluster {self._address}: has no workers{how}") from None
        return client

    @cached_property
    def _description(self) -> dict[str, Any]:
        """Of all workers, which must be alike.

        Raises:
            ClusterError: some are not, or are not like this installation.
        """
        threads = self._client.nthreads()
        if several := [address for address, count in threads.items() if count != 1]:
            raise ClusterError(f"worker {several[0]}: has {threads[several[0]]} threads; start it with --nthreads 1")
        found = self._client.run(worker.describe, self._spec, self._device, on_error="return")
        found = {address: of for address, of in found.items() if not isinstance(of, OSError)}  # the others have died meanwhile
        if not found:
            raise ClusterError(f"--cluster {self._address}: its workers are gone")
        for address, description in found.items():
            _check_worker(address, description, next(iter(found.values())))
        return next(iter(found.values())) | {"batch": min(description["batch"] for description in found.values())}


def _check_worker(address: str, description: Any, first: Any) -> None:
    """Refuses a worker whose numbers may be others than those of the first, or of this installation."""
    if isinstance(description, runtime.DeviceError):
        raise ClusterError(f"worker {address}: {description}")
    if isinstance(description, Exception):
        here = ", ".join(f"{name} {version(name)}" for name in ("mfg-jax", "jax", "jaxlib"))
        raise ClusterError(f"worker {address}: cannot be used ({description}); its installation must be as here: {here}")
    here = runtime.what_decides_numbers(runtime.provenance() | {"device_kind": first["provenance"]["device_kind"]})
    there = runtime.what_decides_numbers(description["provenance"])
    if differences := differing_keys(here, there):
        lines = [f"  {key}: {theirs} there, {ours} expected" for key, ours, theirs in differences]
        advice = "All workers must have the installation of this one, and the same kind of device."
        raise ClusterError("\n".join([f"worker {address}: numbers may come out differently there:", *lines, advice]))


@contextmanager
def _local(workers: int, device: str | None) -> Iterator[SpecCluster]:
    """A scheduler and workers on this machine, which others do not reach.

    Raises:
        ClusterError: one of them dies before it has started.
    """
    gpus = [] if device == "cpu" else runtime.gpus()
    silent: Any = logging.CRITICAL
    reached_at = {"host": LOOPBACK, "dashboard": False, "dashboard_address": f"{LOOPBACK}:0"}
    of_worker = {
        **reached_at,
        "nthreads": 1,
        "memory_limit": None,  # a run by itself has none either
        "preload": [*config.get("distributed.worker.preload"), "sweeps.worker"],
        "silence_logs": silent,
    }
    specs = {n: {"cls": Nanny, "options": {**of_worker, "env": environment(n, workers, gpus)}} for n in range(workers)}
    scheduler = {"cls": Scheduler, "options": {**reached_at, "port": 0, "allowed_failures": DEATHS_ALLOWED}}
    settings = {
        "distributed.worker.multiprocessing-method": "spawn",  # JAX has threads, which a fork would lose
        "distributed.deploy.lost-worker-timeout": SECONDS_TO_RESTART,
    }
    with config.set(settings):
        try:
            cluster = SpecCluster(specs, scheduler, silence_logs=silent)
        except RuntimeError as error:
            raise ClusterError(f"--cluster local:{workers}: its workers do not start: {brief(str(error))}") from None
        try:
            yield cluster
        finally:
            with suppress(Exception):  # a worker that takes too long to end ends with this process
                cluster.close()


def environment(number: int, workers: int, gpus: Sequence[str]) -> dict[str, str]:
    """What a worker on this machine must have before it imports JAX: one GPU, and a part of its memory where others share it."""
    if not gpus:
        return {}
    own = number % len(gpus)
    sharing = len(range(own, workers, len(gpus)))
    fraction = {"XLA_CLIENT_MEM_FRACTION": f"{MEMORY_OF_A_GPU / sharing:.3f}", "XLA_PYTHON_CLIENT_MEM_FRACTION": ""}  # its old name
    return {"CUDA_VISIBLE_DEVICES": gpus[own]} | (fraction if sharing > 1 else {})


class _Tasks:
    """All that is to be done in a run: as many tasks at a time as there are workers, so that none dies with another's worker."""

    def __init__(self, client: Any, work: Work, sweep: Sweep, target: Store, parts: Sequence[Part], orders: Orders) -> None:
        self._client = client
        self._work = work
        self._sweep = sweep
        self._target = target
        self._orders = orders
        self._waiting = deque([part] for part in parts)
        """Parts of one block each, one after the other: a block has one writer at a time."""
        self._running: dict[Any, list[Part]] = {}
        self._ended: SimpleQueue[Any] = SimpleQueue()
        self._begun = time.perf_counter()
        self._failures: Counter[int] = Counter()
        """Of games that were alone, by their points."""
        self._crashed: list[Part] = []
        """Games that killed their workers before any other was solved."""

    def complete(self) -> None:
        stop = self._orders.stop
        self._orders.report(self._orders.progress)
        try:
            while (self._waiting or self._running) and not stop.is_set():
                self._submit()
                self._look()
        finally:
            self._halt()
        if self._waiting or self._running:
            raise Interrupted
        for game in self._crashed:
            self._mark(game)

    def _submit(self) -> None:
        while self._waiting and len(self._running) < max(1, self._workers()):
            parts = self._waiting.popleft()
            block, places = parts[0].block, parts[0].places
            future = self._client.submit(worker.solve_games, self._work, block, int(places[0]), int(places[-1]), pure=False)
            self._running[future] = parts
            future.add_done_callback(self._ended.put)

    def _workers(self) -> int:
        try:
            return len(self._client.nthreads())
        except OSError:
            raise _lost() from None

    def _look(self) -> None:
        """Waits a moment for a task to end, and deals with it."""
        try:
            future = self._ended.get(timeout=SECONDS_BETWEEN_LOOKS)
        except Empty:
            self._check_cluster()
            return
        first, *rest = self._running.pop(future)
        left = [*self._outcome(future, first), *rest]
        if left:
            self._waiting.appendleft(left)

    def _check_cluster(self) -> None:
        if self._client.status != "running":
            raise _lost()
        if self._client.cluster:  # of this machine
            self._client.cluster.scale(len(self._client.cluster.worker_spec))  # as many as there were

    def _outcome(self, future: Any, part: Part) -> Sequence[Part]:
        """What of a part is left to do."""
        if future.status == "finished":
            return self._done(part, future.result())
        error = future.exception() if future.status == "error" else _lost()
        if not isinstance(error, KilledWorker):
            raise error
        self._orders.log("workers died", points=_extent(part), games=len(part), worker=error.last_worker.address)
        if len(part) > 1:
            half = np.arange(len(part)) < len(part) // 2
            return part.some(half), part.some(~half)
        point = int(part.points[0])
        self._failures[point] += 1
        if self._failures[point] < FAILURES_ALONE:
            return (part,)
        self._given_up(part)
        return ()

    def _done(self, part: Part, done: Done | None) -> Sequence[Part]:
        if done is None:
            return (part,)
        engine.log_part(self._orders.log, part, done.statuses, done.seconds)
        self._count(done.statuses)
        return ()

    def _given_up(self, game: Part) -> None:
        if self._orders.progress.done:
            self._mark(game)
            return
        self._crashed.append(game)
        if len(self._crashed) == HOPELESS:
            raise ClusterError(
                "workers die whatever game they are given, and none has been solved; see what they say on their machines, and "
                "whether they have the memory: a smaller --batch (and --fresh) takes less"
            )

    def _mark(self, game: Part) -> None:
        """Writes that a game has crashed."""
        self._orders.held.check()
        results = of_crashed(self._target, self._sweep, game)
        self._target.write_part(game, results)
        engine.log_part(self._orders.log, game, results["status"], seconds=0.0)
        self._count(results["status"])

    def _count(self, statuses: np.ndarray) -> None:
        self._orders.progress.count(statuses, time.perf_counter() - self._begun)
        self._orders.report(self._orders.progress)

    def _halt(self) -> None:
        """Ends the tasks that still run, and waits for them: nobody writes when this returns, unless the scheduler is gone."""
        while self._running and self._client.status == "running":
            with suppress(Exception):  # the first error is the one to tell
                if not self._workers():
                    return
                self._client.run(worker.stop, self._work.run, on_error="ignore")  # also those that were started meanwhile
                self._look()


def _lost() -> ClusterError:
    return ClusterError("the scheduler is gone; what was done is kept, and the same command goes on with it")


def _extent(part: Part) -> list[int]:
    return [int(part.points[0]), int(part.points[-1]) + 1]

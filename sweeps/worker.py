"""What a worker of a cluster does: it solves games of a block and writes them, as a run by itself would.

It is told where the store is, and reads the rest from there: the spec, the batch, and what is done already.
"""

from __future__ import annotations

import logging
import platform
import signal
import threading
import time
from collections import Counter, defaultdict
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from sweeps import engine, lock, runtime
from sweeps.engine import Interrupted, Progress
from sweeps.notes import Note
from sweeps.recorded import spec_of
from sweeps.solver import Results, Solver
from sweeps.spec import Spec
from sweeps.store import Block, Part, Store, StoreError, open_existing
from sweeps.sweep import Sweep

_STOPS: dict[str, threading.Event] = defaultdict(threading.Event)
"""Of each run, by its name."""


@dataclass(frozen=True)
class Work:
    """What all tasks of a run have in common."""

    run: str
    """A name that no other run has."""
    store: Path
    lock: Note
    """By which the run holds the store."""
    device: str | None
    cores: int | None
    """That a task may use; None for all of its process."""


def describe(spec: Spec, device: str | None) -> dict[str, Any]:
    """With what this process solves games, and how many of this spec at once.

    Raises:
        DeviceError: there is no such device here.
    """
    runtime.configure(device)
    return {"provenance": runtime.provenance(), "batch": Sweep(spec).batch_size()}


class Done(NamedTuple):
    """What a task did."""

    seconds: float
    statuses: np.ndarray
    """Of its games, as the store has them now; another machine may see them later."""


def solve_games(work: Work, block: Block, first: int, last: int) -> Done | None:
    """Solves those games of a block, from the `first` of its places to the `last`, that are not done yet, and writes them.

    Returns:
        None where the run was stopped before the last game; what was done is written.

    Raises:
        StoreError: the store is not there, or not this run's any longer, or other numbers than here are in it.
        OSError: the disk is full, or fails.
    """
    target, solver = _prepared(work)
    begun = time.perf_counter()
    part = Part(block, np.arange(first, last + 1))
    pending = part.some(target.read("status", part) == 0)  # a worker may have died when all was written, and nothing said
    progress = Progress(points=len(pending), done_before=0, statuses=Counter())

    def write(part: Part, results: Results, seconds: float) -> None:
        lock.check(work.lock)
        engine.write_part(target, solver.sweep, part, results, seconds)

    def report(progress: Progress) -> None:
        del progress
        lock.check(work.lock)  # a run that was killed does not stop its tasks, and the next one may have begun

    try:
        engine.fill(solver, [pending] if len(pending) else [], write, progress, report, _STOPS[work.run])
    except Interrupted:
        return None
    return Done(time.perf_counter() - begun, target.read("status", part))


@lru_cache(maxsize=1)
def _prepared(work: Work) -> tuple[Store, Solver]:
    runtime.configure(work.device)
    if not work.store.exists():
        raise StoreError(f"{work.store}: the worker on {platform.node()} does not see it; all must see the same folder")
    target = open_existing(work.store)
    engine.check_circumstances(target)
    return target, Solver(Sweep(spec_of(target), work.cores), int(target.attributes["batch"]))


def stop(run: str) -> None:
    """Tasks of this run end when the games in flight are done and written."""
    _STOPS[run].set()


def dask_setup(worker: object) -> None:
    """Called by a worker that a run started on its own machine, before anything else: that run alone ends it, and speaks for it."""
    del worker
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    logging.getLogger("distributed").setLevel(logging.CRITICAL)

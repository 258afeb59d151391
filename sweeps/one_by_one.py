"""Games on the cores of a CPU: each core solves one at a time, and stops when it is done."""

from __future__ import annotations

import threading
import time
from collections.abc import Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from queue import SimpleQueue

from sweeps.solver import Solved, Solver
from sweeps.sweep import Games

RESULTS_AHEAD = 8
"""Batches of each worker that wait to be written while it goes on."""
SECONDS_A_BATCH = 1.0
"""About, and at most: a batch cannot be broken off, and a run that is asked to stop waits for it."""


def solve_one_by_one(solver: Solver, games: Iterable[Games], stop: threading.Event) -> Generator[Solved]:
    """The games with their results, as batches are done, until `stop` is set and those in flight are done."""
    batches, workers = _Batches(games, solver.batch), solver.sweep.worker_count()

    def solve_next() -> Solved | None:
        batch = None if stop.is_set() else batches.take()
        if batch is None:
            return None
        begun = time.perf_counter()
        results = solver.solve(batch)
        batches.took(batch, time.perf_counter() - begun)
        return batch, results

    with ThreadPoolExecutor(workers) as pool:
        ended: SimpleQueue[Future[Solved | None]] = SimpleQueue()

        def begin() -> None:
            pool.submit(solve_next).add_done_callback(ended.put)

        under_way = RESULTS_AHEAD * workers
        try:
            for _ in range(under_way):
                begin()
            while under_way:
                if solved := ended.get().result():
                    begin()
                    yield solved
                else:
                    under_way -= 1
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


class _Batches:
    """Games, handed out to threads so many at a time as can be solved in `SECONDS_A_BATCH` where they are like the last ones, and
    twice as many as those at most: hard games are often among easy ones."""

    def __init__(self, games: Iterable[Games], most: int) -> None:
        self._games = iter(games)
        self._most = most
        self._rest: Games | None = None
        self._lock = threading.Lock()
        self._size = 1

    def take(self) -> Games | None:
        """The next batch, of one kind; None when there is none."""
        with self._lock:
            if self._rest is None or not self._rest.points.size:
                self._rest = next(self._games, None)
            if self._rest is None:
                return None
            batch, self._rest = self._rest.some(slice(self._size)), self._rest.some(slice(self._size, None))
            return batch

    def took(self, batch: Games, seconds: float) -> None:
        with self._lock:
            games = batch.points.size
            self._size = int(min(max(1.0, SECONDS_A_BATCH * games / seconds), 2 * games, self._most))

"""Games on the cores of a CPU: each core solves one at a time, and stops when it is done."""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

from sweeps.solver import Results, Solved, Solver
from sweeps.sweep import Games

BATCHES_AHEAD = 8
"""For each worker: what there is to do while results are written."""


def solve_one_by_one(solver: Solver, games: Iterable[Games]) -> Generator[Solved]:
    """The games, batch by batch in their order, with their results."""
    workers = solver.sweep.worker_count()
    begun: deque[tuple[Games, Future[Results]]] = deque()
    with ThreadPoolExecutor(workers) as pool:
        try:
            for batch in _batches(games, solver.batch):
                begun.append((batch, pool.submit(solver.solve, batch)))
                if len(begun) > BATCHES_AHEAD * workers:
                    yield _ended(begun)
            while begun:
                yield _ended(begun)
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _batches(games: Iterable[Games], size: int) -> Iterator[Games]:
    for several in games:
        for start in range(0, several.points.size, size):
            yield several.some(slice(start, start + size))


def _ended(begun: deque[tuple[Games, Future[Results]]]) -> Solved:
    batch, future = begun.popleft()
    return batch, future.result()

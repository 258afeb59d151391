"""Games in lanes on a GPU, or on several: a lane whose game is done takes the next one, so that the slowest game holds nobody.

Games that the cold iteration leaves open are collected and gone on with by themselves, so that they do not hold the others either.
What a game's results are does not depend on its neighbours, nor on when it arrived: programs have one size throughout a run.
"""

from __future__ import annotations

import itertools
import threading
from collections import deque
from collections.abc import Generator, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor

import jax
import numpy as np

from mfg_jax.lanes import NOBODY
from sweeps import runtime
from sweeps.programs import Handed, new_lanes
from sweeps.solver import LanesProgram, Results, Solved, Solver
from sweeps.stopwatch import Activity
from sweeps.sweep import GAMES_PER_CALL, Games, Kind, joined, some

CALLS_TO_WAIT = 16
"""After so many calls, games that the cold iteration left open are gone on with though they are few: their blocks wait for them."""
RESULTS_AHEAD = 4
"""Sets of results that wait to be written while the device goes on."""


def solve_side_by_side(solver: Solver, games: Iterable[Games], stop: threading.Event) -> Generator[Solved]:
    """The games in the order in which they are done, with their results, until `stop` is set: then those that the device was handed
    and has done."""
    return _ahead(_solved(solver, games, stop))


def _ahead(items: Iterator[Solved]) -> Generator[Solved]:
    """The same items, made by another thread before they are asked for."""
    ended = ()
    with ThreadPoolExecutor(1) as thread:
        try:
            upcoming = deque(thread.submit(next, items, ended) for _ in range(RESULTS_AHEAD))
            while item := upcoming.popleft().result():
                upcoming.append(thread.submit(next, items, ended))
                yield item
        finally:
            thread.shutdown(wait=True, cancel_futures=True)


def _solved(solver: Solver, games: Iterable[Games], stop: threading.Event) -> Iterator[Solved]:
    streams: dict[Kind, _Stream] = {}
    for several in itertools.takewhile(lambda _: not stop.is_set(), games):
        if several.kind not in streams:
            streams[several.kind] = _Stream(solver, several.kind)
        yield from streams[several.kind].take(several)
    for stream in streams.values():
        yield from stream.break_off() if stop.is_set() else stream.drain()


class _Stream:
    """All games of one kind: those that wait for a lane, those in lanes, and those that the cold iteration left open."""

    def __init__(self, solver: Solver, kind: Kind) -> None:
        self._solver = solver
        self._kind = kind
        self._waiting: list[Games] = []
        self._program: LanesProgram | None = None
        self._lanes: list[jax.Array] = []
        self._handed: Handed | None = None  # of the last call: the device may still be computing it
        self._left_open: list[tuple[Games, Results]] = []
        self._calls_since = 0  # those before it are done

    def take(self, games: Games) -> Iterator[Solved]:
        self._waiting.append(games)
        size = GAMES_PER_CALL * self._solver.lanes
        while sum(some.points.size for some in self._waiting) >= size:
            together = joined(self._waiting)
            self._waiting = [together.some(slice(size, None))]
            yield from self._call(together.some(slice(size)), drain=False)

    def drain(self) -> Iterator[Solved]:
        yield from self._call(joined(self._waiting), drain=True)
        yield from self._came_back(self._handed)
        yield from self._go_on()

    def break_off(self) -> Iterator[Solved]:
        """What the last call has done; games in lanes, and those that the cold iteration left open, are let go."""
        if self._handed is not None:
            yield from self._complete_ones(*self._copied(self._handed))

    def _call(self, games: Games, drain: bool) -> Iterator[Solved]:
        """Hands the games over; while the device is at them, deals with those of the call before."""
        size = GAMES_PER_CALL * self._solver.lanes
        points = np.concatenate([games.points, np.full(size - games.points.size, NOBODY)])
        columns = {name: np.concatenate([v, np.ones(size - v.size)]) for name, v in games.columns.items()}
        arguments = (points, columns, np.array(drain))
        if self._program is None:
            idle = new_lanes(self._solver.model(self._kind), columns, self._solver.lanes)
            self._program, self._lanes = self._solver.lanes_program(self._kind, idle, arguments), jax.tree.leaves(idle)
        before = self._handed
        self._lanes, self._handed = self._program(self._lanes, *arguments)
        yield from self._came_back(before)

    def _came_back(self, handed: Handed | None) -> Iterator[Solved]:
        if handed is None:
            return
        yield from self._complete_ones(*self._copied(handed))
        self._calls_since += 1
        if self._calls_since == CALLS_TO_WAIT or sum(games.points.size for games, _ in self._left_open) >= self._solver.batch:
            yield from self._go_on()

    def _complete_ones(self, games: Games, results: Results) -> Iterator[Solved]:
        complete = self._solver.is_complete(games, results)
        if complete.any():
            yield games.some(complete), some(results, complete)
        if not complete.all():
            self._left_open.append((games.some(~complete), some(results, ~complete)))

    def _copied(self, handed: Handed) -> Solved:
        stopwatch = self._solver.stopwatch
        with stopwatch.on(Activity.COMPUTE):
            jax.block_until_ready(handed)
        with stopwatch.on(Activity.COPY):
            points = np.asarray(handed.point)
            done = points != NOBODY
            columns, results = (some(jax.device_get(values), done) for values in (handed.columns, handed.results))
        trips, idle = (int(count.sum()) for count in handed.work)
        stopwatch.count_lanes(trips * self._solver.lanes // runtime.device_count(), idle)
        return Games(points[done], self._kind, columns), results

    def _go_on(self) -> Iterator[Solved]:
        """With the games left open."""
        left, self._left_open, self._calls_since = self._left_open, [], 0
        if left:
            games = joined([games for games, _ in left])
            cold = {name: np.concatenate([results[name] for _, results in left]) for name in left[0][1]}
            yield games, self._solver.complete(games, cold)

"""A run: what is not done yet of a sweep is solved, and written block by block into the store."""

from __future__ import annotations

import math
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from sweeps import lock, runtime, store
from sweeps.agreement import keep
from sweeps.dataset import STATUSES
from sweeps.one_by_one import solve_one_by_one
from sweeps.place import Place, told
from sweeps.share import ALL, Share
from sweeps.side_by_side import solve_side_by_side
from sweeps.solver import Results, Solved, Solver
from sweeps.spec import Spec
from sweeps.stopwatch import Activity
from sweeps.store import Part
from sweeps.sweep import Games, Sweep, some

SHORTEST_WAIT, LONGEST_WAIT = 0.5, 30.0
"""In seconds, for another run that makes the store."""


@dataclass
class Progress:
    """How far a run is. `done_before` counts the points that the store already held."""

    points: int
    done_before: int
    statuses: Counter[str]
    done: int = 0
    seconds: float = 0.0
    """Spent so far, compilation included."""
    first: tuple[int, float] = (0, 0.0)
    """What was done, after so many seconds, when the first batch was: most of that may have been compilation."""
    shares: dict[str, float] = field(default_factory=dict)
    """Of these seconds, that each activity took (`Stopwatch.shares`); once the run has ended."""
    idle_lanes: float | None = None
    """Share of the lanes that no game used, where games were side by side; once the run has ended."""

    def count(self, statuses: np.ndarray, seconds: float) -> None:
        """Games that are done after so many seconds."""
        self.statuses.update(_counts(statuses))
        is_first = not self.done
        self.done += statuses.size
        self.seconds = seconds
        if is_first:
            self.first = self.done, seconds

    @property
    def points_per_second(self) -> float:
        return self.done / self.seconds if self.seconds else math.nan

    @property
    def seconds_left(self) -> float:
        """At the pace since the first batch; infinite before the second."""
        left = self.points - self.done_before - self.done
        done, seconds = self.first
        return left * (self.seconds - seconds) / (self.done - done) if self.done > done else math.inf


class Crew(Protocol):
    """Who solves the games of a run, and writes them."""

    def provenance(self) -> dict[str, Any]:
        """With what (`runtime.provenance`)."""
        ...

    def batch_size(self, sweep: Sweep) -> int:
        """Games in a batch, where nobody says how many."""
        ...

    def fill(self, sweep: Sweep, target: store.Store, parts: Sequence[Part], orders: Orders) -> None:
        """Has these games solved, and the results of each block's written when the last of them is done (see `fill`)."""
        ...


@dataclass(frozen=True)
class Orders:
    """What a crew is to heed and to tell: `held` is checked before each write; `report` is called when games are done."""

    held: lock.Lock
    progress: Progress
    report: Callable[[Progress], None]
    stop: threading.Event
    log: Callable[..., None]


class ThisProcess:
    """The crew of a run that has no other."""

    def provenance(self) -> dict[str, Any]:
        return runtime.provenance()

    def batch_size(self, sweep: Sweep) -> int:
        return sweep.batch_size()

    def fill(self, sweep: Sweep, target: store.Store, parts: Sequence[Part], orders: Orders) -> None:
        def write(part: Part, results: Results, seconds: float) -> None:
            orders.held.check()
            write_part(target, sweep, part, results, seconds)
            log_part(orders.log, part, results["status"], seconds)

        solver = Solver(sweep, int(target.attributes["batch"]))
        fill(solver, parts, write, orders.progress, orders.report, orders.stop)


THIS_PROCESS = ThisProcess()


class Interrupted(Exception):
    """The run was asked to stop and did so between two writes; the same command goes on from there."""


def run(
    spec: Spec,
    path: Place,
    batch: int | None = None,
    fresh: bool = False,
    resume: bool = False,
    report: Callable[[Progress], None] = lambda progress: None,
    stop: threading.Event | None = None,
    log: Callable[..., None] = lambda event, **fields: None,
    share: Share = ALL,
    crew: Crew = THIS_PROCESS,
) -> Progress:
    """Solves what is not done yet of a sweep, or of a share of its blocks, into the store at `path`.

    Args:
        batch: games solved at once; None for what memory allows, or what the store was begun with.
        fresh: delete a store that is there. resume: insist that there is one.
        report: called after every batch. stop: set it to stop when the games in flight are done and written.
        log: called with an event, and what there is to say of it, when the run starts, for every block, and at the end.
        share: runs of other shares may fill the store at the same time; the one that begins it, the others wait for.
        crew: who solves the games; this process holds the store meanwhile.

    Returns:
        How far the share is.

    Raises:
        StoreError: the store cannot be used as asked, or another run fills it. Interrupted: `stop` was set before the end.
    """
    runtime.configure()
    path = store.itself(path)
    sweep = Sweep(spec)
    if resume and not store.exists(path):
        raise store.missing(path)
    if isinstance(path, Path) and (fresh or not store.exists(path)):
        check_disk(sweep, path, freed=store.bytes_at(path))
    stop = stop or threading.Event()
    with holding(path, share) as held:
        if not share.is_whole:
            _begin(sweep, path, batch, stop, crew)
        if fresh and path.exists():
            crew.provenance()  # that there is one, before anything is deleted
            store.delete(path)
        target = _open(sweep, path, batch, resume or not share.is_whole, crew)
        orders = Orders(held, _progress_of(target, share), report, stop, log)
        return _complete(sweep, target, share, crew, orders)


@contextmanager
def holding(path: Place, share: Share = ALL) -> Generator[lock.Lock]:
    """Nobody else writes the store meanwhile, or this share of it; and what was left by who was killed is made good.

    Raises:
        StoreError: somebody else does, or the disk or the object store fails meanwhile.
    """
    try:
        with told(path), lock.hold(path, share.name) as held:
            if share.is_whole:
                store.settle(path)
            yield held
    except OSError as error:
        raise store.explained(error, path) from error


def _begin(sweep: Sweep, path: Place, batch: int | None, stop: threading.Event, crew: Crew) -> None:
    """Makes the store where there is none, for all shares: one run does, and the others wait. Each holds its share already."""
    longest = SHORTEST_WAIT
    while not path.exists():
        try:
            with lock.hold(path, lock.MAKING):
                if not path.exists():
                    store.settle(path)
                    _open(sweep, path, batch, resume=False, crew=crew)
        except lock.Locked:
            if stop.wait(random.uniform(0.0, longest)):
                raise Interrupted from None
            longest = min(2 * longest, LONGEST_WAIT)  # hundreds that start at once would keep each other from it


def _complete(sweep: Sweep, target: store.Store, share: Share, crew: Crew, orders: Orders) -> Progress:
    """Has what is not done of a share solved and written, and says in the store that it is finished once nothing is left of any."""
    progress, log = orders.progress, orders.log
    about = {"store": str(target.path), "share": share.name, "points": progress.points, "done": progress.done_before}
    pending = [part for part in target.parts(target.statuses() == 0) if share.owns(part.block)]
    log("started", **about, **(crew if pending else THIS_PROCESS).provenance())
    crew.fill(sweep, target, pending, orders)
    if not target.pending_blocks():
        # of shares that end together, one does it
        with suppress(lock.Locked), nullcontext() if share.is_whole else lock.hold(target.path, lock.MAKING):
            _finish(target, progress, share)
    log("finished", points=progress.points, statuses=dict(progress.statuses), seconds=progress.seconds)
    return progress


def _finish(target: store.Store, progress: Progress, share: Share) -> None:
    """Says in a store that nothing is pending. Nobody else may be writing it."""
    if isinstance(target.path, Path):
        store.remove_leftovers(target.path)
    if progress.done or "finished" not in target.attributes:
        speed = progress.points_per_second if progress.done and share.is_whole else None
        target.update_attributes({"finished": runtime.now(), "points_per_second": speed})
    target.consolidate()


def write_part(target: store.Store, sweep: Sweep, part: Part, results: Results, seconds: float) -> None:
    """Writes games of a block, and how long they took. Who holds the store has been checked."""
    target.write_part(part, keep(target, sweep, part, results), seconds)


def log_part(log: Callable[..., None], part: Part, statuses: np.ndarray, seconds: float, **more: Any) -> None:
    log("block", points=[part.block.start, part.block.stop], statuses=_counts(statuses), seconds=seconds, **more)


def _open(sweep: Sweep, path: Place, batch: int | None, resume: bool, crew: Crew) -> store.Store:
    if resume or path.exists():
        target = reopen(sweep, path, batch)
        if target.pending_blocks():
            check_circumstances(target, crew.provenance())
        return target
    attributes = attributes_of(sweep, batch or crew.batch_size(sweep)) | crew.provenance()
    return store.create(path, sweep.spec, sweep.design, sweep.labels(), sweep.block_shape(), attributes)


def attributes_of(sweep: Sweep, batch: int) -> dict[str, Any]:
    """What a store that is begun now says of how it is made."""
    return {
        "title": "Equilibria of competing market makers",
        "spec_hash": sweep.spec.hash(),
        "batch": batch,
        "started": runtime.now(),
        **({"candidates": sweep.design.candidates} if sweep.spec.where else {}),
        **runtime.provenance(),
    }


def check_circumstances(target: store.Store, provenance: Mapping[str, Any] | None = None) -> None:
    """Raises StoreError where games solved so, or else here and now, may have other numbers than those in the store."""
    store.check_same_circumstances(
        target, *(runtime.what_decides_numbers(about) for about in (target.attributes, provenance or runtime.provenance()))
    )


def reopen(sweep: Sweep, path: Place, batch: int | None, but: str = "") -> store.Store:
    """The store at `path`, to go on with.

    Args:
        but: a section in which the spec may differ from the store's.

    Raises:
        StoreError: there is none, or it was begun with another spec or batch, or the spec means other points here.
    """
    target = store.open_whole(path)
    store.check_same_spec(target, sweep.spec, but)
    store.check_same_points(target, sweep.design)
    begun_with = int(target.attributes["batch"])
    if batch not in (None, begun_with):
        raise store.StoreError(
            f"{path}: was begun with --batch {begun_with}; leave out --batch to go on, or --fresh to start again"
        )
    return target


def check_disk(sweep: Sweep, path: Path, freed: int = 0) -> None:
    """Numbers hardly compress, so what does not fit now will not fit then.

    Args:
        freed: bytes that will be free before.

    Raises:
        StoreError: the results would not fit.
    """
    needed, free = sweep.bytes_on_disk(), runtime.free_disk(path) + freed
    if needed > free:
        advice = "sweep less, store less (outputs: surfaces, paths, dtype float32), or choose another disk"
        raise store.StoreError(f"{path}: needs up to {runtime.readable(needed)} and {runtime.readable(free)} are free; {advice}")


def _progress_of(target: store.Store, share: Share) -> Progress:
    all_statuses = target.statuses()
    statuses = Counter[str]()
    for block in filter(share.owns, target.blocks()):
        statuses += _counts(all_statuses[block.region])
    points = statuses.total()
    del statuses["pending"]
    return Progress(points=points, done_before=statuses.total(), statuses=statuses)


def _counts(statuses: np.ndarray) -> Counter[str]:
    """How many there are of each, by name."""
    codes, counts = np.unique(statuses, return_counts=True)
    return Counter({STATUSES[code]: count for code, count in zip(codes.tolist(), counts.tolist(), strict=True)})


def fill(
    solver: Solver,
    parts: Sequence[Part],
    write: Callable[[Part, Results, float], None],
    progress: Progress,
    report: Callable[[Progress], None],
    stop: threading.Event,
) -> None:
    """Solves these games, and has the results of each block's written when the last of them is done.

    Raises:
        Interrupted: `stop` was set before the end; what was done by then is written.
    """
    if parts and stop.is_set():
        raise Interrupted
    report(progress)
    if not parts:
        return
    begun = block_before = time.perf_counter()
    under_way = _PartsUnderWay(parts)

    def write_all(done: Iterable[tuple[Part, Results]]) -> None:
        nonlocal block_before
        for part, results in done:
            with solver.stopwatch.on(Activity.WRITE):
                write(part, results, time.perf_counter() - block_before)
            block_before = time.perf_counter()

    with closing(solve(solver, games_of(solver.sweep, parts), stop)) as solved:
        for some_games, results in solved:
            complete = under_way.add(some_games.points, results)
            progress.count(results["status"], time.perf_counter() - begun)
            report(progress)
            write_all(complete)
    if under_way:
        write_all(under_way.broken_off())
        raise Interrupted
    progress.seconds = time.perf_counter() - begun
    progress.shares = solver.stopwatch.shares(progress.seconds, solver.sweep.worker_count())
    progress.idle_lanes = solver.stopwatch.idle_lanes


def games_of(sweep: Sweep, parts: Iterable[Part]) -> Iterator[Games]:
    """The games of some parts of a store, kind by kind."""
    for part in parts:
        for games in sweep.games(part.block.start, part.block.stop):
            wanted = np.isin(games.points, part.points)
            if wanted.any():
                yield games.some(wanted)


def solve(solver: Solver, games: Iterable[Games], stop: threading.Event | None = None) -> Generator[Solved]:
    """The games with their results, as they are done, in the way that suits the device; fewer where `stop` is set meanwhile."""
    solve_all = solve_side_by_side if runtime.side_by_side() else solve_one_by_one
    return solve_all(solver, games, stop or threading.Event())


class _PartsUnderWay:
    """Puts results together, whatever the order in which they come, to those of whole parts."""

    def __init__(self, parts: Sequence[Part]) -> None:
        self._parts = parts
        self._starts = np.array([part.block.start for part in parts])
        self._begun: dict[int, tuple[Results, np.ndarray]] = {}
        """By the part's number: its results, and which of its games have theirs."""
        self._left = len(parts)

    def __bool__(self) -> bool:
        """Whether some part is not whole yet."""
        return bool(self._left)

    def add(self, points: np.ndarray, results: Results) -> list[tuple[Part, Results]]:
        """The parts that are whole now, with all their results, which are let go."""
        of_part = np.searchsorted(self._starts, points, side="right") - 1
        complete = []
        for number in np.unique(of_part):
            here = of_part == number
            part = self._parts[number]
            whole, there = self._begun.setdefault(number, ({}, np.zeros(len(part), bool)))
            places = np.searchsorted(part.points, points[here])
            for name, values in results.items():
                if name not in whole:
                    whole[name] = np.empty((len(part), *values.shape[1:]), values.dtype)
                whole[name][places] = values[here]
            there[places] = True
            if there.all():
                complete.append((part, self._begun.pop(number)[0]))
                self._left -= 1
        return complete

    def broken_off(self) -> list[tuple[Part, Results]]:
        """The games that are done of parts that are not whole."""
        return [(self._parts[number].some(there), some(whole, there)) for number, (whole, there) in self._begun.items()]

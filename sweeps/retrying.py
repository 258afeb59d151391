"""Games that did not converge, solved again with other settings of the solver."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from sweeps import engine, lock, runtime, store
from sweeps.dataset import ATTEMPT, CONVERGED, STATUSES
from sweeps.engine import Progress
from sweeps.place import Place
from sweeps.problems import did_you_mean, nearest
from sweeps.solver import Results, Solver
from sweeps.spec import Spec
from sweeps.store import Part, Store
from sweeps.sweep import Sweep

FAILED = STATUSES[CONVERGED + 1 :]


class RetryError(ValueError):
    """Statuses that cannot be retried; the message says which can."""


def statuses_named(text: str) -> tuple[str, ...]:
    """From NAME,NAME,…, where `failed` stands for all that did not converge.

    Raises:
        RetryError: another name, or none.
    """
    names = text.split(",")
    if unknown := [name for name in names if name not in (*FAILED, "failed")]:
        hint = did_you_mean(nearest(unknown[0], FAILED))
        raise RetryError(f"--retry: found {unknown[0]!r}; allowed: failed, or of {', '.join(FAILED)}{hint}")
    return FAILED if "failed" in names else tuple(names)


def retry(
    spec: Spec,
    path: Place,
    statuses: Sequence[str],
    batch: int | None = None,
    report: Callable[[Progress], None] = lambda progress: None,
    stop: threading.Event | None = None,
    log: Callable[..., None] = lambda event, **fields: None,
) -> Progress:
    """Solves the games of these statuses again, with the solver's settings of this spec, and replaces those that converge now.

    What was tried is recorded in the attribute `retries`, and in the variable `attempt` which games are of which attempt.

    Args:
        spec: that of the store but for its section `solver`. batch: None for that of the store.
        report: called after every batch. stop: set it to stop when the games in flight are done and written.
        log: called with what was tried, at the end.

    Returns:
        How the games that were tried ended.

    Raises:
        StoreError: there is no store of this spec at `path`, or another run fills it. Interrupted: `stop` was set before the end.
    """
    runtime.configure()
    path, sweep = store.itself(path), Sweep(spec)
    if not store.exists(path):
        raise store.missing(path)
    with engine.holding(path) as held:
        target = engine.reopen(sweep, path, batch, but="solver")
        return _retry(target, held, sweep, statuses, report, stop or threading.Event(), log)


def _retry(
    target: Store,
    held: lock.Lock,
    sweep: Sweep,
    statuses: Sequence[str],
    report: Callable[[Progress], None],
    stop: threading.Event,
    log: Callable[..., None],
) -> Progress:
    tried = np.isin(target.statuses(), [STATUSES.index(name) for name in statuses]) | target.withdrawn()
    progress = Progress(points=int(tried.sum()), done_before=0, statuses=Counter())
    if not progress.points:
        return progress
    target.add(ATTEMPT, "int16", sweep.design, sweep.labels())
    attempt = _Attempt(target, held, sweep.spec, statuses, progress.points)
    solver = Solver(sweep, int(target.attributes["batch"]))
    try:
        engine.fill(solver, target.parts(tried), attempt.mend, progress, report, stop)
    except engine.Interrupted:
        log("retried", **attempt.record())
        raise
    attempt.about["finished"] = runtime.now()
    log("retried", **attempt.record())
    return progress


class _Attempt:
    """The next entry of the attribute `retries`: there from the start, so that no game is replaced without a record."""

    def __init__(self, target: Store, held: lock.Lock, spec: Spec, statuses: Sequence[str], games: int) -> None:
        self._target = target
        self._held = held
        self._before: list[dict[str, object]] = target.attributes.get("retries", [])
        self._mended = 0
        settings = {"statuses": list(statuses), "solver": spec.canonical()["solver"]}
        self.about = {"started": runtime.now(), **settings, "games": games, **runtime.provenance()}
        self.record()

    def mend(self, part: Part, results: Results, seconds: float) -> None:
        """Replaces those of the games that converged."""
        del seconds
        self._held.check()
        better = results["status"] == CONVERGED
        if better.any():
            mended = part.some(better)
            number = len(self._before) + 1
            self._target.withdraw(mended, number)
            replaced = {name: values[better] for name, values in results.items()}
            self._target.write_part(mended, replaced | {ATTEMPT.name: np.full(len(mended), number)})
            self._mended += len(mended)

    def record(self) -> dict[str, Any]:
        """The entry as it is now, in the store too."""
        self._held.check()
        entry = self.about | {"mended": self._mended}
        self._target.update_attributes({"retries": [*self._before, entry]})
        self._target.consolidate()
        return entry

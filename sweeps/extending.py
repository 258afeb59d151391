"""A store that becomes one of more games or of more outputs: what it holds is taken over, and never solved again without need."""

from __future__ import annotations

import threading
from collections import defaultdict, deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sweeps import engine, runtime, store
from sweeps.dataset import ATTEMPT, CONVERGED, KEPT, STATUS, variables
from sweeps.place import Place
from sweeps.recorded import spec_of
from sweeps.schema import DRAWN
from sweeps.spec import Spec, differing_keys
from sweeps.store import Part, Store, StoreError
from sweeps.sweep import Sweep

OUTPUTS_TO_ADD = ("paths", "surfaces", "gradients", "certify", "equilibria", "baseline")
OF_A_RUN = ("mfgsweep_format", "spec_hash", "candidates", "started", "finished", "points_per_second")
"""Attributes that say how what was there was made, beside those of its provenance."""


@dataclass(frozen=True)
class Extension:
    """What was done: games taken over, and, where outputs were added, which must still be solved for these."""

    games: int
    outputs: tuple[str, ...]


def extend(spec: Spec, path: Place, stop: threading.Event | None = None) -> Extension | None:
    """Makes the store at `path` one of `spec`, with all that it holds, for `engine.run` to complete.

    The new store is made beside the old one, and takes its place when it holds all of that. Where outputs are added, every game
    must be solved again; the numbers of those that converged stay, and must agree with the new ones (`agreement.keep`).

    Args:
        spec: that of the store with more values on its axes, more rows or points, or more outputs.
        stop: set it to stop while the store is still the old one.

    Returns:
        None where the store is already one of this spec.

    Raises:
        StoreError: there is no store, or it is in a bucket, or another run fills it, or the spec does not extend its own, or there
            is no room.
        engine.Interrupted: `stop` was set.
    """
    runtime.configure()
    path = store.itself(path)
    if not isinstance(path, Path):
        raise StoreError(f"{path}: stores in buckets cannot be extended, as nothing is renamed there; extend a copy on a disk")
    if not store.exists(path):
        raise store.missing(path)
    with engine.holding(path):
        return _extend(spec, path, stop or threading.Event())


def _extend(spec: Spec, path: Path, stop: threading.Event) -> Extension | None:
    old = store.open_whole(path)
    if not differing_keys(old.attributes["spec"], spec.canonical()):
        return None
    sweep = Sweep(spec)
    _check_keys(old, spec)
    before, now = ([variable.name for variable in variables(of)] for of in (spec_of(old), spec))
    added = tuple(name for name in now if name not in before)
    _check_outputs(old, [name for name in before if name not in now], added)
    if not added:  # where there are, the numbers of all games are compared
        engine.check_circumstances(old)
    places = [_places(old, sweep, dim) for dim in sweep.design.dims]
    engine.check_disk(sweep, path)
    taken_over = old.statuses() == CONVERGED if added else old.statuses() != 0
    new = _create_beside(old, path, sweep, added)
    try:
        _copy(old, new, places, taken_over, before, bool(added), stop)
    except BaseException:
        store.settle(path)  # half an extension is as large as a store
        raise
    _record(old, new, int(taken_over.sum()), before if added else [])
    store.replace(path, store.extended(path))
    return Extension(int(taken_over.sum()), added)


def _check_keys(old: Store, spec: Spec) -> None:
    """Raises: StoreError, with the keys that differ and may not."""
    differences = differing_keys(old.attributes["spec"], spec.canonical())
    may_grow = ("points", *(f"outputs.{name}" for name in OUTPUTS_TO_ADD))
    refused = [found for found in differences if not (found[0].startswith("sweep.") or found[0] in may_grow)]
    if refused:
        advice = "An extension adds values to the axes that there are, or outputs; all else stays as it is."
        raise StoreError("\n".join([f"{old.path}: cannot be extended by this grid file:", *store.told(refused), advice]))


def _check_outputs(old: Store, lost: Sequence[str], added: Sequence[str]) -> None:
    """Raises: StoreError, where outputs would be lost, or could not be added to all games."""
    if lost:
        raise StoreError(f"{old.path}: holds {', '.join(lost)}, which the outputs of this grid file lack; leave them in")
    if KEPT.name in old.names and ((old.whole(KEPT.name) == 1) & (old.statuses() == 0)).any():
        raise StoreError(
            f"{old.path}: outputs were added to it that are not solved yet; first go on with the grid file of that time"
        )
    if added and ATTEMPT.name in old.names and (mended := int((old.whole(ATTEMPT.name) > 0).sum())):
        raise StoreError(
            f"{old.path}: {mended} of its games are of a --retry, with other settings of the solver, so that outputs cannot be "
            "added; make another store with --out"
        )


def _places(old: Store, sweep: Sweep, dim: str) -> np.ndarray:
    """Where what lies along a dim of the extended sweep is in the old one, -1 where it is not, [length of the dim].

    Values, or rows of a table that may hold one several times, are found by their numbers, however they were drawn.

    Raises:
        StoreError: the old sweep has some that the extended one lacks.
    """
    coords = {name: values for name, (dims, values) in sweep.design.coords.items() if dims == (dim,)}
    before = _rows(old.whole(name) for name in coords)
    waiting: dict[tuple[Any, ...], deque[int]] = defaultdict(deque)
    for place, row in enumerate(before):
        waiting[row].append(place)
    places = [waiting[row].popleft() if waiting.get(row) else -1 for row in _rows(coords.values())]
    if lost := [before[place] for left in waiting.values() for place in left]:
        raise StoreError(f"{old.path}: cannot be extended by this grid file: {_loss(sweep.spec, list(coords), lost, len(before))}")
    return np.array(places)


def _rows(columns: Iterable[np.ndarray]) -> list[tuple[Any, ...]]:
    return list(zip(*(column.tolist() for column in columns), strict=True))


def _loss(spec: Spec, names: list[str], lost: list[tuple[Any, ...]], points: int) -> str:
    if spec.sampling in DRAWN:
        return (
            f"sampling {spec.sampling} draws other points now: {len(lost)} of the {points} that the store holds are not among "
            "them; random and sobol draw the same first points whatever their number, from the same axes and seed"
        )
    shown = ", ".join(" ".join(map(str, row)) for row in lost[:6]) + (", …" if len(lost) > 6 else "")
    what = (
        f"sweep.{names[0]} lacks the values"
        if spec.sampling == "grid" and not spec.where
        else f"it lacks the games ({', '.join(names)})"
    )
    return f"{what} {shown}, which the store holds; leave them in"


def _create_beside(old: Store, path: Path, sweep: Sweep, added: Sequence[str]) -> Store:
    attributes = engine.attributes_of(sweep, int(old.attributes["batch"]))
    labels = sweep.labels()
    new = store.create(store.extended(path), sweep.spec, sweep.design, labels, sweep.block_shape(), attributes)
    if added:
        new.add(KEPT, "int8", sweep.design, labels)
    for variable, dtype in ((ATTEMPT, "int16"), (KEPT, "int8")):
        if variable.name in old.names:
            new.add(variable, dtype, sweep.design, labels)
    return new


def _copy(
    old: Store,
    new: Store,
    places: Sequence[np.ndarray],
    taken_over: np.ndarray,
    names: Sequence[str],
    to_be_solved_again: bool,
    stop: threading.Event,
) -> None:
    """Copies games block by block; those to be solved again stay pending, and are marked.

    What blocks took is not copied, as other games are in the blocks of the new store: the record holds the sum (`_record`).
    """
    there = np.ix_(*(along >= 0 for along in places))
    wanted = np.zeros(new.statuses().shape, bool)
    wanted[there] = taken_over[np.ix_(*(along[along >= 0] for along in places))]
    also = [] if to_be_solved_again else [STATUS.name, *({ATTEMPT.name, KEPT.name} & old.names)]
    for part in new.parts(wanted):
        if stop.is_set():
            raise engine.Interrupted
        results = _taken_over(old, part, places, [*names, *also])
        new.write_part(part, results | {KEPT.name: np.ones(len(part))} if to_be_solved_again else results)


def _taken_over(old: Store, part: Part, places: Sequence[np.ndarray], names: Sequence[str]) -> dict[str, np.ndarray]:
    """What the old store holds of some games of the new one, [game, …]."""
    along = [of_dim[cut] for of_dim, cut in zip(places, part.block.region, strict=True)]
    here = [np.flatnonzero(of_dim >= 0) for of_dim in along]
    box = np.arange(len(part.block)).reshape([len(of_dim) for of_dim in along])
    wanted = np.isin(box[np.ix_(*here)].ravel(), part.places)
    old_places = [of_dim[chosen] for of_dim, chosen in zip(along, here, strict=True)]
    return {name: old.read_box(name, old_places)[wanted] for name in names}


def _record(old: Store, new: Store, games: int, kept: Sequence[str]) -> None:
    about = old.attributes
    before = {name: value for name, value in about.items() if name in (*OF_A_RUN, *runtime.provenance())}
    seconds = float(old.seconds().sum())
    entry = {"extended": runtime.now(), "games": games, "kept": list(kept), "seconds": seconds, "before": before}
    retries = {"retries": about["retries"]} if "retries" in about else {}
    new.update_attributes({**retries, "extended": [*about.get("extended", []), entry]})
    new.consolidate()

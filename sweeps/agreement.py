"""Whether a game that was solved again is the same game: bit for bit, or as nearly as two ways to one equilibrium come."""

from __future__ import annotations

import numpy as np

from sweeps.dataset import CONVERGED, CRASHED, KEPT, STATUS, Variable, variables
from sweeps.solver import Results
from sweeps.spec import Spec
from sweeps.store import Part, Store, StoreError
from sweeps.sweep import Sweep

TOLERANCES_APART = 1_000
"""How far two approximations of one equilibrium lie apart at most, in tolerances of their residuals."""
FINEST = 1e-6
"""What is compared at least so coarsely: single precision, and the rounding of derivatives."""

UNSTEADY = {"iterations", "folds", "clipped_mass", "contraction", "peak_time", "half_life"}
"""Counts, and what rounding alone can move by more: a quote on its bound, the time of a flat maximum."""


def precision(spec: Spec) -> float:
    """How nearly the numbers of a converged game are found again, as a share of the largest of each variable."""
    return max(FINEST, TOLERANCES_APART * spec.solver.tolerance, 2.0 * (spec.outputs.precision or 0.0))


def same_bits(expected: np.ndarray, found: np.ndarray) -> np.ndarray:
    """Of which games [game] the numbers [game, …] are the same; NaN is the same as NaN."""
    games = len(expected)
    same = (expected == found) | (np.isnan(expected) & np.isnan(found))
    return same.reshape(games, -1).all(axis=1)


def agreeing(variable: Variable, expected: np.ndarray, found: np.ndarray, spread: np.ndarray, precision: float) -> np.ndarray:
    """Of which games [game] the numbers [game, …] agree within the precision, infinite ones only where they are the same.

    Args:
        spread: the mean spread of each game [game], to which small prices are compared; small pure numbers and lots are to 1.
    """
    games = len(expected)
    expected, found = (np.asarray(numbers, float).reshape(games, -1) for numbers in (expected, found))
    floor = (
        np.abs(spread) if "{price}" in variable.units else np.full(games, 1.0 if variable.units in ("1", "lot", "lot^2") else 0.0)
    )
    sizes = np.abs(np.column_stack([expected, floor]))
    allowed = precision * sizes.max(axis=1, initial=0.0, where=np.isfinite(sizes))
    with np.errstate(invalid="ignore"):  # the difference of equal infinities
        near = np.abs(expected - found) <= allowed[:, None]
    return np.all(near | (expected == found) | (np.isnan(expected) & np.isnan(found)), axis=1)


def keep(target: Store, sweep: Sweep, part: Part, results: Results) -> Results:
    """What is to be written of games solved again because outputs were added to the store: the numbers that it held stay, save
    those of a block of which a file was lost.

    Raises:
        StoreError: the new numbers do not agree with them.
    """
    if KEPT.name not in target.names:
        return results
    names = _names_kept(target)
    flags = target.read_pending([KEPT.name], part)
    if flags and not flags[KEPT.name].any():
        return results
    held = target.read_pending(names, part) if flags and names else None
    if flags is None or held is None:
        pending = target.pending_of(part.block)
        target.write_part(pending, {KEPT.name: np.zeros(len(pending))})
        return results
    kept = flags[KEPT.name] == 1
    _check_agreement(target, sweep, part.some(kept), *({n: v[kept] for n, v in some.items()} for some in (held, results)))
    return results | {name: _where(kept, held[name], results[name]) for name in names}


def of_crashed(target: Store, sweep: Sweep, game: Part) -> Results:
    """What is to be written of a game that kills who solves it: nothing is known of it but what the store held when outputs were
    added, and that stays."""
    sizes = {v.name: [sweep.labels().size(dim) for dim in v.dims] for v in variables(sweep.spec)}
    flags = target.read_pending([KEPT.name], game) if KEPT.name in target.names else None
    held = _names_kept(target) if flags and flags[KEPT.name].any() else []
    results = {name: np.full((1, *size), np.nan) for name, size in sizes.items() if name not in held}
    return results | {STATUS.name: np.array([CRASHED])}


def _names_kept(target: Store) -> list[str]:
    """The variables that the store held when it was last extended by others; none where it was by games."""
    return target.attributes["extended"][-1]["kept"]


def _where(kept: np.ndarray, held: np.ndarray, new: np.ndarray) -> np.ndarray:
    return np.where(kept.reshape(-1, *(1,) * (new.ndim - 1)), held, new)


def _check_agreement(target: Store, sweep: Sweep, part: Part, held: Results, new: Results) -> None:
    known = {variable.name: variable for variable in variables(sweep.spec)}
    agrees = {"status": new["status"] == CONVERGED}
    for name in held.keys() - UNSTEADY:
        agrees[name] = agreeing(known[name], held[name], new[name], held["mean_spread"], precision(sweep.spec))
    for name, of_games in agrees.items():
        if not of_games.all():
            point = int(part.points[np.flatnonzero(~of_games)[0]])
            raise StoreError(
                f"{target.path}: {name} of the game {described(sweep, point)} was solved again for the outputs that were added, "
                "and does not agree with what the store holds; go on with the versions and the device in its attribute `extended`, "
                "or make another store with --out"
            )


def described(sweep: Sweep, point: int) -> str:
    """A game by its swept values."""
    values = sweep.design.columns(point, point + 1)
    return ", ".join(f"{name} {value[0]}" for name, value in values.items())

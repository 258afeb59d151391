"""The least of a parameter that brings a metric of the equilibrium to a target."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import get_type_hints

import numpy as np
from scipy import optimize

from mfg_jax.equilibrium import solve
from mfg_jax.measures import Metrics, metrics
from mfg_jax.model import Model
from mfg_jax.parameters import Parameters
from mfg_jax.solution import Branch, Equilibrium, Status
from mfg_jax.span import Span

SCALARS = tuple(name for name, hint in get_type_hints(Metrics).items() if hint.dim_str == "")
SCANNED = 33
PRECISION = 1e-9
"""Of the value found, as a share of the way between the bounds."""


@dataclasses.dataclass(frozen=True)
class Reach:
    """How near to its target a metric was brought, and by which value of the parameter."""

    reached: bool
    value: float
    """The least at which the target is reached; where it never is, that which comes nearest to it."""
    metric: float
    """There; NaN where no value between the bounds has a principal equilibrium."""
    parameters: Parameters
    equilibrium: Equilibrium
    unsolved: int
    """Of the `SCANNED` games between the bounds, those without a principal equilibrium: the target may be reached there too."""


def reach(
    model: Model,
    parameters: Parameters,
    vary: str,
    bounds: tuple[float, float],
    metric: str,
    at_least: float | None = None,
    at_most: float | None = None,
    derisk_band: int = 1,
) -> Reach:
    """The least value of a parameter at which a metric of the principal equilibrium is at least, or at most, so much.

    The metric need not be monotone: games between the bounds are looked through first, so a target that is reached only between
    two neighbours of these is missed.

    Args:
        model: the static choices.
        parameters: of the game; that to `vary` may have any value.
        vary: name of a parameter.
        bounds: between which it is sought; where low > 0 evenly in logarithms.
        metric: a scalar field of `Metrics`, as `final_derisk_probability`.
        at_least, at_most: the target; one of the two.
        derisk_band: as in `metrics`.

    Raises:
        ValueError: names or bounds that cannot be, or both targets or none.
    """
    span = Span.of(parameters, vary, *bounds)
    if metric not in SCALARS:
        raise ValueError(f"{metric!r} is no scalar metric; allowed: {', '.join(SCALARS)}")
    targets = [(sign, target) for sign, target in ((1.0, at_least), (-1.0, at_most)) if target is not None]
    if len(targets) != 1:
        raise ValueError("give a target, and one only: at_least or at_most")
    ((sign, target),) = targets
    if not np.isfinite(target):
        raise ValueError(f"the target is {target}; allowed: a finite number")

    def game(coordinate: float) -> tuple[Parameters, Equilibrium, float]:
        chosen = dataclasses.replace(parameters, **{vary: span.value(coordinate)})
        equilibrium = solve(model, chosen)
        found = getattr(metrics(model, chosen, equilibrium, derisk_band), metric)
        principal = equilibrium.status == Status.CONVERGED and equilibrium.branch == Branch.PRINCIPAL
        return chosen, equilibrium, float(found) if principal else np.nan

    def excess(coordinate: float) -> float:
        """Over the target, positive where it is reached; NaN where there is no equilibrium."""
        return sign * (game(coordinate)[2] - target)

    scanned = np.linspace(0.0, 1.0, SCANNED)
    excesses = np.array([excess(coordinate) for coordinate in scanned])
    unsolved = int(np.isnan(excesses).sum())
    if not (excesses >= 0).any():
        nearest = _nearest(excess, scanned, excesses)
        place = int(np.searchsorted(scanned, nearest))  # a peak between two of those scanned may be high enough
        scanned, excesses = np.insert(scanned, place, nearest), np.insert(excesses, place, excess(nearest))
    coordinate = _least(excess, scanned, excesses) if (excesses >= 0).any() else float(scanned[_highest(excesses)])
    chosen, equilibrium, found = game(coordinate)
    reached = bool(sign * (found - target) >= 0)
    return Reach(reached, float(span.value(coordinate)), found, chosen, equilibrium, unsolved)


def _highest(excesses: np.ndarray) -> int:
    return 0 if np.isnan(excesses).all() else int(np.nanargmax(excesses))


def _least(excess: Callable[[float], float], scanned: np.ndarray, excesses: np.ndarray) -> float:
    """The first coordinate from which on the target is reached, from above. By bisection, as the metric may jump at a fold."""
    first = int(np.argmax(excesses >= 0))
    if first == 0:
        return float(scanned[0])
    short, enough = float(scanned[first - 1]), float(scanned[first])
    while enough - short > PRECISION:
        middle = 0.5 * (short + enough)
        short, enough = (short, middle) if excess(middle) >= 0 else (middle, enough)
    return enough


def _nearest(excess: Callable[[float], float], scanned: np.ndarray, excesses: np.ndarray) -> float:
    """The coordinate at which the metric comes nearest to its target."""
    best = _highest(excesses)
    if np.isnan(excesses[best]):
        return float(scanned[best])
    ends = scanned[max(best - 1, 0)], scanned[min(best + 1, SCANNED - 1)]
    worst = -float(np.nanmin(excesses))  # finite, as the search computes with it

    def shortfall(coordinate: float) -> float:
        short = -excess(coordinate)
        return worst if np.isnan(short) else short

    refined = optimize.minimize_scalar(shortfall, bounds=ends, method="bounded", options={"xatol": 1e-7})
    return float(refined.x) if refined.fun < -excesses[best] else float(scanned[best])

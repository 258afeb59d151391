"""The static choices of a game: everything that shapes the computation and is not a number of the game."""

from __future__ import annotations

import dataclasses
import difflib
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import equinox as eqx
import numpy as np
from jaxtyping import Bool, Float

from mfg_jax.coupling import COUPLINGS, Coupling
from mfg_jax.crowd import INITIAL_CROWDS, InitialCrowd, Weights
from mfg_jax.exponential import Exponential
from mfg_jax.fixed_point import SOLVERS, FixedPointSolver
from mfg_jax.grid import graded_fractions
from mfg_jax.lattice import quoting_edges
from mfg_jax.scheme import EULER, RK4, Scheme
from mfg_jax.whole import is_whole

BOUNDARIES = ("reflecting", "absorbing")


@dataclass(frozen=True)
class Automatic:
    """`explicit` where its steps are stable and the cheap iteration is enough, `stiff` for all other games."""

    explicit: Scheme
    stiff: Scheme


EXPONENTIAL = Exponential()
AUTOMATIC = Automatic(RK4, EXPONENTIAL)
SCHEMES: dict[str, Scheme | Automatic] = {"automatic": AUTOMATIC, "rk4": RK4, "euler": EULER, "exponential": EXPONENTIAL}

DEFAULT_GRADING = 2.4375114537440243
"""Measured: finer at the close than this, and the steps at the open, then longer, limit the games an explicit scheme can solve;
coarser, and clipped games lose a digit. At this value (4 ln z with z³ = z² + z + 1) half the horizon is a stored time whenever
n_steps is a multiple of 4."""

AUTOMATIC_STEPS, AUTOMATIC_TIME_TOLERANCE = 50, 1e-4
"""What n_steps = "auto" stands for."""

T = TypeVar("T")


def _unknown(field: str, found: object, known: Iterable[str]) -> ValueError:
    names = list(known)
    near = difflib.get_close_matches(str(found), names, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    return ValueError(f"Model.{field} must be one of {', '.join(map(repr, names))}; found {found!r}{hint}")


def _chosen(field: str, choice: object, kind: type[T], named: Mapping[str, T]) -> T:
    if isinstance(choice, kind):
        return choice
    if isinstance(choice, str) and choice in named:
        return named[choice]
    raise _unknown(field, choice, named)


def _as_whole(choice: Any) -> Any:
    """NumPy's whole numbers as Python's; anything else is left to the check."""
    return int(choice) if is_whole(choice, 1) else choice


def _as_steps(choice: int | str) -> Any:
    return AUTOMATIC_STEPS if choice == "auto" else _as_whole(choice)


def _as_coupling(choice: Coupling | str) -> Coupling:
    return _chosen("coupling", choice, Coupling, COUPLINGS)


def _as_scheme(choice: Scheme | Automatic | str) -> Scheme | Automatic:
    return choice if isinstance(choice, Automatic) else _chosen("scheme", choice, Scheme, SCHEMES)


def _as_initial(choice: InitialCrowd | str) -> InitialCrowd:
    return _chosen("initial", choice, InitialCrowd, INITIAL_CROWDS)


def _as_solver(choice: FixedPointSolver | str | Mapping[str, Any]) -> FixedPointSolver:
    if isinstance(choice, FixedPointSolver):
        return choice
    options: dict[str, Any] = dict(choice) if isinstance(choice, Mapping) else {"method": choice}
    method = options.pop("method", "anderson")
    if method not in SOLVERS:
        raise _unknown("solver", method, SOLVERS)
    try:
        return SOLVERS[method](**options)
    except TypeError as error:
        raise ValueError(f"Model.solver takes method, tolerance and max_iterations; found {choice!r}") from error


class Model(eqx.Module):
    """What kind of game, on which lattice and time grid, solved how. Hashable; a pytree without leaves.

    A name stands for one of the library's own classes; an instance of one's own class does as well.

    Args:
        coupling: "relative", "elastic", "market_share", "none" or a `Coupling` (MODEL.md, section 2).
        x_max: largest inventory M, lots; the lattice is −M … M.
        n_steps: stored time intervals, which the scheme takes as its steps; "auto" for 50 with a `time_tolerance`.
        boundary: "reflecting" or "absorbing": what happens at ±M (MODEL.md, section 1).
        scheme: "automatic" (rk4 for mild games, exponential for stiff ones), "rk4", "exponential", "euler" or a `Scheme`.
        grading: how far the time steps cluster towards the close: the last is about e^grading times shorter than the first.
        initial: "normal", "point", "uniform" or an `InitialCrowd` such as `Weights` (MODEL.md, section 4).
        solver: "anderson", "picard", a `FixedPointSolver`, or a mapping such as {"method": "picard", "tolerance": 1e-8}.
        time_tolerance: each game is solved with 1, 2, 4, 8, 16 or 32 steps for a stored interval: as few as bring its time_error
            to this, price units; with 32 if none do. The default is no such choice; with "auto", 1e-4.

    Raises:
        ValueError: a choice that is none of these, with the nearest known name.
    """

    coupling: Coupling = eqx.field(default="relative", converter=_as_coupling, static=True)
    x_max: int = eqx.field(default=10, converter=_as_whole, static=True)
    n_steps: int = eqx.field(default=200, converter=_as_steps, static=True)
    boundary: str = eqx.field(default="reflecting", static=True)
    scheme: Scheme | Automatic = eqx.field(default="automatic", converter=_as_scheme, static=True)
    grading: float = eqx.field(default=DEFAULT_GRADING, static=True)
    initial: InitialCrowd = eqx.field(default="normal", converter=_as_initial, static=True)
    solver: FixedPointSolver = eqx.field(default="anderson", converter=_as_solver, static=True)
    time_tolerance: float | None = eqx.field(default=None, static=True)

    def __post_init__(self) -> None:  # runs before the fields are converted
        if self.n_steps == "auto" and self.time_tolerance is None:
            self.time_tolerance = AUTOMATIC_TIME_TOLERANCE

    def __check_init__(self) -> None:
        for field in ("x_max", "n_steps"):
            value = getattr(self, field)
            if not is_whole(value, 1):
                or_auto = ", or 'auto'" if field == "n_steps" else ""
                raise ValueError(f"Model.{field} must be a whole number >= 1{or_auto}; found {value!r}")
        tolerance = self.time_tolerance
        if tolerance is not None and not (isinstance(tolerance, int | float) and 0 < tolerance < math.inf):
            raise ValueError(f"Model.time_tolerance must be a finite number > 0, or None; found {tolerance!r}")
        if self.boundary not in BOUNDARIES:
            raise _unknown("boundary", self.boundary, BOUNDARIES)
        if isinstance(self.grading, bool) or not isinstance(self.grading, int | float) or not 0 <= self.grading <= 20:
            raise ValueError(f"Model.grading must be a number from 0 (uniform) to 20; found {self.grading!r}")
        if isinstance(self.initial, Weights) and len(self.initial.weights) != 2 * self.x_max + 1:
            found = len(self.initial.weights)
            raise ValueError(f"Model.initial needs {2 * self.x_max + 1} weights, one per inventory; found {found}")

    @property
    def time_fractions(self) -> Float[np.ndarray, " time"]:
        """Stored times, at which the scheme's steps end, as fractions of the horizon."""
        return graded_fractions(self.n_steps, self.grading)

    @property
    def settled_scheme(self) -> Scheme:
        """The scheme that takes the steps."""
        if isinstance(self.scheme, Automatic):
            raise TypeError("an automatic scheme takes no steps: use explicit_model or stiff_model")
        return self.scheme

    @property
    def explicit_model(self) -> Model:
        """The same model with the scheme that mild games are tried with."""
        return dataclasses.replace(self, scheme=self.scheme.explicit) if isinstance(self.scheme, Automatic) else self

    @property
    def stiff_model(self) -> Model:
        """The same model with the scheme that all other games are solved with."""
        return dataclasses.replace(self, scheme=self.scheme.stiff) if isinstance(self.scheme, Automatic) else self

    def refined(self, factor: int) -> Model:
        """The same model with so many steps for every one of its own, and no choice among them left."""
        return dataclasses.replace(self, n_steps=factor * self.n_steps, time_tolerance=None)

    @property
    def quoting(self) -> Bool[np.ndarray, "side edge"]:
        """Which side is quoted across which edge of the lattice."""
        return quoting_edges(self.x_max, self.boundary)

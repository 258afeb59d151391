"""A solved game: its arrays, its certificates, and how it ended."""

from __future__ import annotations

import dataclasses
import enum
from typing import NamedTuple

import equinox as eqx
from jaxtyping import Array, Bool, Float, Int


class Status(enum.IntEnum):
    """How a game ended. Only `CONVERGED` is an equilibrium; the others carry the best iterate and its residual."""

    PENDING = 0
    CONVERGED = 1
    ITERATION_LIMIT = 2
    NON_FINITE = 3
    UNSTABLE_STEP = 4
    CONTINUATION_STOPPED = 5
    INVALID_PARAMETERS = 6
    CRASHED = 7

    @property
    def explanation(self) -> str:
        """What happened, and what to try."""
        return _EXPLANATIONS[self]


_EXPLANATIONS = {
    Status.PENDING: "Not solved yet: run the sweep again to go on where it stopped.",
    Status.CONVERGED: "Converged: no maker gains by leaving the crowd's path, to the tolerance.",
    Status.ITERATION_LIMIT: (
        "The residual was still above the tolerance after max_iterations: raise max_iterations, or leave select at principal, "
        "which follows a path to this game from milder ones."
    ),
    Status.NON_FINITE: "The numbers overflowed: check the units of A, k and the penalties, or bound the quotes.",
    Status.UNSTABLE_STEP: (
        "A time step is, or may be, too long for the fill rates met: leave scheme at automatic and select at principal, which bear "
        "any rates; or raise n_steps or quote_min."
    ),
    Status.CONTINUATION_STOPPED: (
        "The path from the uncoupled game could not be followed to this one: raise n_steps, or grading where quotes change "
        "fast before the close, or set select to any and take an equilibrium that may be another."
    ),
    Status.INVALID_PARAMETERS: (
        "No game has these numbers: A, k, horizon and crowd_std must be positive, eta, gamma and k0 not negative, n_makers "
        "above 1, quote_min at most quote_max, a point crowd on the lattice, and all finite save the quote bounds."
    ),
    Status.CRASHED: (
        "Each process that was given this game alone has died of it, and left no numbers: look for its last words on its machine "
        "(no memory left?), and solve the game by itself, with --retry crashed."
    ),
}


class Branch(enum.IntEnum):
    """Which of the equilibria that a game may have was found (MODEL.md, section 5)."""

    UNVERIFIED = 0
    """One of them."""
    PRINCIPAL = 1
    """The first that the path from the uncoupled game meets."""
    OTHER = 2
    """One that the path from the uncoupled game does not meet first."""


class Equilibrium(eqx.Module):
    """One solved game (MODEL.md, sections 3, 4 and 6). Offsets and values in price units, densities as fractions of makers.

    An offset that is not quoted is +inf (MODEL.md, section 1). Where `status` is not `Status.CONVERGED` the arrays are those of
    the best iterate; with `Status.INVALID_PARAMETERS` or `Status.UNSTABLE_STEP` they are NaN.
    """

    time: Float[Array, " time"]
    """0 … horizon."""
    inventory: Float[Array, " x"]
    """−x_max … x_max, lots."""
    value: Float[Array, "time x"]
    ask: Float[Array, "time x"]
    bid: Float[Array, "time x"]
    density: Float[Array, "time x"]
    crowd_ask: Float[Array, " time"]
    crowd_bid: Float[Array, " time"]
    mean_crowd: Float[Array, " side"]
    """Time averages of crowd_ask and crowd_bid."""
    residual: Float[Array, ""]
    """max |Φ(D) − D|, price units; inf where no finite iterate was seen."""
    iterations: Int[Array, ""]
    """Evaluations of Φ."""
    status: Int[Array, ""]
    mass_error: Float[Array, ""]
    min_density: Float[Array, ""]
    edge_mass: Float[Array, ""]
    clipped_mass: Float[Array, " side"]
    """Ask, bid: the largest mass over time whose quote sits at a bound."""
    spread_identity: Float[Array, ""]
    monotone: Bool[Array, ""]
    branch: Int[Array, ""]
    """A `Branch`."""
    steps: Int[Array, ""]
    """Time intervals it was solved with: those of `time`, or a multiple of them where the model has a time_tolerance."""
    folds: Int[Array, ""]
    """Folds passed on the path from the uncoupled game."""
    exploitability: Float[Array, ""] | None = None
    """With `certify="full"`, as the next two: what one maker gains by leaving the stored policy, price units."""
    contraction: Float[Array, ""] | None = None
    """Spectral radius of Φ′ here: below 1, a crowd that naively best-replies finds this equilibrium from near by."""
    time_error: Float[Array, ""] | None = None
    """Largest error of the crowd path at the stored times that the length of the steps causes, price units: estimated from steps of
    half the length. Infinite where those lead elsewhere."""

    def thinned(self, factor: int) -> Equilibrium:
        """The same at every `factor`-th time only."""
        along_time = ("time", "value", "ask", "bid", "density", "crowd_ask", "crowd_bid")
        return dataclasses.replace(self, **{name: getattr(self, name)[::factor] for name in along_time})


class Solved(NamedTuple):
    """An equilibrium with what its certificates need to know of how it was found."""

    equilibrium: Equilibrium
    replied_to: Float[Array, "time side"]
    """The crowd path D = Φ(D) to which the stored policy is the best reply. It is not just crowd_ask and crowd_bid where these
    have kinks between stored times (`kinks.py`)."""
    stiff: Bool[Array, ""]
    """Whether by the scheme for stiff games."""

"""Where a quote meets its bound in the middle of a step.

The quote has a kink there, ±change·(s − θ)₊ over the step s = 0 … 1, and so has its fill rate. The stages of a step do not see it:
the mean of their rates is off by what the method's quadrature misses of (s − θ)₊, and the density by the square of the step. (The
value is smoother: it is off by the cube.) The crowd's average, known at the ends of steps only, is seen in between as if there were
no kink: off by the square of the step too, and its derivatives, as θ moves with the parameters, by the step itself. Once the values
at the ends of all steps are known, so is θ to leading order: the forward step takes rates without that error, and the crowd's path
is moved by what makes its integral right.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from mfg_jax.game import Game
from mfg_jax.lattice import Edges, along_edges
from mfg_jax.model import Model


class Missed(NamedTuple):
    """What one step does not see of its kinks."""

    rates: Edges
    """To be added to the fill rates of every stage, so that their mean is right."""
    quotes: Edges
    """To be added to the quotes at both ends, so that what is interpolated between them has the true integral."""


class Kinks(NamedTuple):
    """In one step of each quote, counted backward from the step's end as the stages are."""

    meets: Bool[Array, "side edge *batch"]
    """Whether the quote meets a bound. One that meets both within a step is left as the stages see it."""
    bound: Edges
    theta: Edges
    """Where in the step, from 0 to 1."""
    change: Edges
    """Of the offset wanted, bounds apart, over the step."""
    outward: Edges
    """The direction out of the bounds: −1 at the lower one, 1 at the upper one."""


def quotes_meet_bounds(game: Game, first: Float[Array, "*step side edge *batch"], last: Array) -> Bool[Array, ""]:
    """Whether any does, between the offsets wanted where steps begin and where they end."""
    return jnp.any(_crosses(game.flow.quote_min, first, last) | _crosses(game.flow.quote_max, first, last))


def missed_at_kinks(
    model: Model,
    game: Game,
    first: Edges,
    last: Edges,
    crowd_first: Float[Array, "side *batch"],
    crowd_last: Float[Array, "side *batch"],
) -> Missed:
    """From the offsets wanted, bounds apart, and the crowd's, where the backward step begins and where it ends."""
    kinks = _find_kinks(model, game, first, last)
    return Missed(_missed_rates(model, game, kinks, crowd_first, crowd_last), _missed_quotes(kinks))


def _crosses(bound: Array, first: Array, last: Array) -> Bool[Array, "*step side edge *batch"]:
    return (first < bound) != (last < bound)


def _find_kinks(model: Model, game: Game, first: Edges, last: Edges) -> Kinks:
    """Where no bound is met, numbers whose derivatives are finite."""
    at_least, at_most = (_crosses(bound, first, last) for bound in (game.flow.quote_min, game.flow.quote_max))
    # a step that overflowed is told as unstable
    meets = (at_least ^ at_most) & along_edges(model.quoting, first) & jnp.isfinite(last)
    bound = jnp.where(meets, jnp.where(at_least, game.flow.quote_min, game.flow.quote_max), 0.0)
    change = jnp.where(meets, last - first, 1.0)
    theta = jnp.where(meets, (bound - first) / change, 0.0)
    return Kinks(meets, bound, theta, change, jnp.where(at_least, -1.0, 1.0))


def _missed_rates(
    model: Model, game: Game, kinks: Kinks, crowd_first: Float[Array, "side *batch"], crowd_last: Float[Array, "side *batch"]
) -> Edges:
    crowd_there = crowd_first[:, None] + kinks.theta * (crowd_last - crowd_first)[:, None]
    rate = lambda quote: model.coupling.rate(quote, crowd_there, game.flow)  # noqa: E731
    steepness = jax.jvp(rate, (kinks.bound,), (kinks.outward,))[1]
    missed = jnp.abs(kinks.change) * steepness * model.settled_scheme.missed_at_kink(kinks.theta)
    return jnp.where(kinks.meets, missed, 0.0)


def _missed_quotes(kinks: Kinks) -> Edges:
    """Interpolants of high order on even steps add −B₂(θ)/2 to the integral of (s − θ)₊ (a Bernoulli polynomial: Euler and
    Maclaurin's formula), which is taken away half from either end.
    """
    added = 0.5 * (kinks.theta * (1.0 - kinks.theta) - 1.0 / 6.0)
    return jnp.where(kinks.meets, kinks.outward * jnp.abs(kinks.change) * added, 0.0)


def with_missed_quotes(
    game: Game, averages: Float[Array, "time side *batch"], missed: Float[Array, "step side *batch"]
) -> Float[Array, "time side *batch"]:
    """The crowd's averages, moved by those of the missed quotes over the crowd of each step."""
    dt = game.dt[:, None]
    nothing = jnp.zeros_like(averages[:1])
    moved = jnp.concatenate([dt * missed, nothing]) + jnp.concatenate([nothing, dt * missed])
    weight = jnp.concatenate([dt, nothing[:, :1]]) + jnp.concatenate([nothing[:, :1], dt])
    return averages + moved / weight

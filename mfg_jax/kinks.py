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
from mfg_jax.scheme import StageRates


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


def find_kinks(model: Model, game: Game, first: Edges, last: Edges) -> Kinks:
    """From the offsets wanted, bounds apart, where the backward step begins and where it ends.

    Where no bound is met, numbers whose derivatives are finite.
    """

    def crosses(bound: Float[Array, "side #edge *#batch"]) -> Bool[Array, "side edge *batch"]:
        return (first < bound) != (last < bound)

    at_least, at_most = crosses(game.flow.quote_min), crosses(game.flow.quote_max)
    # where a step overflowed, its rates stay: they tell that it was unstable
    meets = (at_least ^ at_most) & along_edges(model.quoting, first) & jnp.isfinite(last)
    bound = jnp.where(meets, jnp.where(at_least, game.flow.quote_min, game.flow.quote_max), 0.0)
    change = jnp.where(meets, last - first, 1.0)
    theta = jnp.where(meets, (bound - first) / change, 0.0)
    return Kinks(meets, bound, theta, change, jnp.where(at_least, -1.0, 1.0))


def mean_rates(
    model: Model,
    game: Game,
    kinks: Kinks,
    rates: StageRates,
    crowd_first: Float[Array, "side *batch"],
    crowd_last: Float[Array, "side *batch"],
) -> StageRates:
    """The stages' fill rates, moved alike so that their mean is right where a quote meets a bound."""
    crowd_there = crowd_first[:, None] + kinks.theta * (crowd_last - crowd_first)[:, None]
    rate = lambda quote: model.coupling.rate(quote, crowd_there, game.flow)  # noqa: E731
    steepness = jax.jvp(rate, (kinks.bound,), (kinks.outward,))[1]
    missed = jnp.abs(kinks.change) * steepness * model.settled_scheme.missed_at_kink(kinks.theta)
    return rates + jnp.where(kinks.meets, missed, 0.0)


def missed_quotes(kinks: Kinks) -> Edges:
    """What to add to the quotes at both ends of the step, so that what is interpolated between them has the true integral.

    Interpolants of high order on even steps add −B₂(θ)/2 to the integral of (s − θ)₊ (a Bernoulli polynomial: Euler and Maclaurin's
    formula), which is taken away half from either end.
    """
    added = 0.5 * (kinks.theta * (1.0 - kinks.theta) - 1.0 / 6.0)
    return jnp.where(kinks.meets, kinks.outward * jnp.abs(kinks.change) * added, 0.0)


def with_missed_quotes(
    game: Game,
    averages: Float[Array, "time side *batch"],
    missed_at_start: Float[Array, "step side *batch"],
    missed_at_end: Float[Array, "step side *batch"],
) -> Float[Array, "time side *batch"]:
    """The crowd's averages, moved by those of the missed quotes over the crowd at the start and at the end of each step."""
    dt = game.dt[:, None]
    nothing = jnp.zeros_like(averages[:1])
    moved = jnp.concatenate([dt * missed_at_start, nothing]) + jnp.concatenate([nothing, dt * missed_at_end])
    weight = jnp.concatenate([dt, nothing[:, :1]]) + jnp.concatenate([nothing[:, :1], dt])
    return averages + moved / weight

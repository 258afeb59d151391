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
from mfg_jax.lattice import jumps
from mfg_jax.model import Model

ByStep = Float[Array, "step side edge"]


class Kinks(NamedTuple):
    """In each step of each quote, counted backward from the step's end as the stages are."""

    meets: Bool[Array, "step side edge"]
    """Whether the quote meets a bound. One that meets both within a step is left as the stages see it."""
    bound: ByStep
    theta: ByStep
    """Where in the step, from 0 to 1."""
    change: ByStep
    """Of the offset wanted, bounds apart, over the step."""
    outward: ByStep
    """The direction out of the bounds: −1 at the lower one, 1 at the upper one."""


def find_kinks(model: Model, game: Game, crowd: Float[Array, "time side"], values: Float[Array, "time x"]) -> Kinks:
    """From the values of best-replying to a crowd path. Where no bound is met, numbers whose derivatives are finite."""
    wanted = jax.vmap(lambda v, c: model.coupling.unbounded_quote(jumps(v), c, game.flow))(values, crowd[:, :, None])
    first, last = wanted[1:], wanted[:-1]  # of the backward step

    def crosses(bound: Float[Array, "side #edge"]) -> Bool[Array, "step side edge"]:
        return (first < bound) != (last < bound)

    at_least, at_most = crosses(game.flow.quote_min), crosses(game.flow.quote_max)
    meets = (at_least ^ at_most) & model.quoting
    bound = jnp.where(meets, jnp.where(at_least, game.flow.quote_min, game.flow.quote_max), 0.0)
    change = jnp.where(meets, last - first, 1.0)
    theta = jnp.where(meets, (bound - first) / change, 0.0)
    return Kinks(meets, bound, theta, change, jnp.where(at_least, -1.0, 1.0))


def with_mean_rates(
    model: Model,
    game: Game,
    crowd: Float[Array, "time side"],
    kinks: Kinks,
    rates: Float[Array, "step stage side edge"],
) -> Float[Array, "step stage side edge"]:
    """The stages' fill rates, moved alike so that their mean is right in the steps in which a quote meets a bound."""
    seen = crowd[:, :, None]
    crowd_there = seen[1:] + kinks.theta * (seen[:-1] - seen[1:])
    rate = lambda quote: model.coupling.rate(quote, crowd_there, game.flow)  # noqa: E731
    steepness = jax.jvp(rate, (kinks.bound,), (kinks.outward,))[1]
    missed = jnp.abs(kinks.change) * steepness * model.settled_scheme.missed_at_kink(kinks.theta)
    return rates + jnp.where(kinks.meets, missed, 0.0)[:, None]


def with_mean_quotes(game: Game, kinks: Kinks, quotes: Float[Array, "time side edge"]) -> Float[Array, "time side edge"]:
    """The quotes at the stored times, moved so that what is interpolated between them has the integral of the true ones.

    Interpolants of high order on even steps add −B₂(θ)/2 to the integral of (s − θ)₊ (a Bernoulli polynomial: Euler and Maclaurin's
    formula), which is taken away half from either end of the step.
    """
    added = 0.5 * (kinks.theta * (1.0 - kinks.theta) - 1.0 / 6.0)
    by_step = jnp.where(kinks.meets, -kinks.outward * jnp.abs(kinks.change) * added, 0.0)
    dt = game.dt[:, None, None]

    def at_both_ends(by_step: Float[Array, "step #side #edge"]) -> Float[Array, "time #side #edge"]:
        nothing = jnp.zeros_like(by_step[:1])
        return jnp.concatenate([by_step, nothing]) + jnp.concatenate([nothing, by_step])

    return quotes - at_both_ends(dt * by_step) / at_both_ends(dt)

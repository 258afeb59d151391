"""Where a quote meets its bound in the middle of a step.

Its fill rate has a kink there, λ = smooth + c·(s − θ)₊, that the stages of a step do not see: the mean of their rates is off by c
times what the method's quadrature misses of (s − θ)₊, and the density by the square of the step. (The value is smoother: it is off
by the cube.) Once the values at the ends of all steps are known, so are θ and c to leading order, and the forward step takes rates
without that error.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from mfg_jax.game import Game
from mfg_jax.lattice import jumps
from mfg_jax.model import Model


def with_mean_rates(
    model: Model,
    game: Game,
    crowd: Float[Array, "time side"],
    values: Float[Array, "time x"],
    rates: Float[Array, "step stage side edge"],
) -> Float[Array, "step stage side edge"]:
    """The stages' fill rates, moved alike so that their mean is right in the steps in which a quote meets a bound."""
    seen = crowd[:, :, None]
    wanted = jax.vmap(lambda value, crowd: model.coupling.unbounded_quote(jumps(value), crowd, game.flow))(values, seen)
    first, last = wanted[1:], wanted[:-1]  # of the backward step

    def crosses(bound: Float[Array, "side #edge"]) -> Bool[Array, "step side edge"]:
        return (first < bound) != (last < bound)

    at_least, at_most = crosses(game.flow.quote_min), crosses(game.flow.quote_max)
    meets = (at_least ^ at_most) & model.quoting  # a quote that crosses both is left as the stages see it
    # where no bound is met, numbers whose derivatives are finite
    held = jnp.where(meets, jnp.where(at_least, game.flow.quote_min, game.flow.quote_max), 0.0)
    change = jnp.where(meets, last - first, 1.0)
    theta = jnp.where(meets, (held - first) / change, 0.0)
    crowd_there = seen[1:] + theta * (seen[:-1] - seen[1:])
    rate = lambda quote: model.coupling.rate(quote, crowd_there, game.flow)  # noqa: E731
    steepness = jax.jvp(rate, (held,), (jnp.where(at_least, -1.0, 1.0),))[1]
    missed = jnp.abs(change) * steepness * model.settled_scheme.missed_at_kink(theta)
    return rates + jnp.where(meets, missed, 0.0)[:, None]

"""Where a quote meets its bound in the middle of a step.

Its fill rate has a kink there, λ = smooth + c·(s − θ)₊, that the stages of a step do not see: the mean of their rates is off by c
times what the method's quadrature misses of (s − θ)₊, and the density by the square of the step. (The value is smoother: it is off
by the cube.) Once the values at the ends of all steps are known, so are θ and c to leading order, and the forward step takes rates
without that error.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from mfg_jax.game import Game
from mfg_jax.lattice import jumps
from mfg_jax.model import Model

PerStep = Float[Array, "step side edge"]


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

    def error(bound: Float[Array, "side #edge"]) -> PerStep:
        """Of the mean rate, where a quote is held at the bound for a part of the step only."""
        crosses = (first < bound) != (last < bound)
        change = jnp.where(crosses, last - first, 1.0)
        held = jnp.where(crosses, bound, 0.0)  # an infinite bound is never met, but its derivatives would be NaN
        theta = jnp.where(crosses, (held - first) / change, 0.0)
        crowd_there = seen[1:] + theta * (seen[:-1] - seen[1:])
        rate = lambda quote: model.coupling.rate(quote, crowd_there, game.flow)  # noqa: E731
        steepness = jax.jvp(rate, (held,), (jnp.ones_like(held),))[1]
        return jnp.where(crosses, jnp.abs(change) * steepness * model.settled_scheme.missed_at_kink(theta), 0.0)

    moved = error(game.flow.quote_max) - error(game.flow.quote_min)
    return rates + jnp.where(model.quoting, moved, 0.0)[:, None]

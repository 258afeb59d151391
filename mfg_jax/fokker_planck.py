"""The Fokker–Planck equation of the crowd, forward in time (MODEL.md, section 4)."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from mfg_jax.game import Game
from mfg_jax.lattice import States
from mfg_jax.model import Model


def solve_forward(model: Model, game: Game, rates: Float[Array, "step stage side edge"]) -> Float[Array, "time x"]:
    """The density, at the stored times, of a crowd that trades at these rates.

    Its sum is kept by construction: nothing is renormalised.
    """

    def step(density: States, interval: tuple[Array, Array]) -> tuple[States, States]:
        stage_rates, dt = interval
        later = model.settled_scheme.forward_step(stage_rates, density, dt)
        return later, later

    _, densities = jax.lax.scan(step, game.initial_density, (rates, game.dt))
    return jnp.concatenate([game.initial_density[None], densities])

"""Φ: the crowd that best-replies to a crowd path (MODEL.md, section 4). Its fixed points are the equilibria."""

from __future__ import annotations

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from mfg_jax.crowd import crowd_average
from mfg_jax.fokker_planck import solve_forward
from mfg_jax.game import Game
from mfg_jax.hjb import best_quotes, solve_backward
from mfg_jax.model import Model


class BestReply(NamedTuple):
    """What makers do against a given crowd path, and the crowd path that comes of it."""

    value: Float[Array, "time x"]
    quotes: Float[Array, "time side edge"]
    density: Float[Array, "time x"]
    crowd: Float[Array, "time side"]
    unstable: Bool[Array, ""]


# traced and differentiated once for all its uses in a program, which halves the time to compile one
@eqx.filter_jit
def best_reply(model: Model, game: Game, crowd: Float[Array, "time side"]) -> BestReply:
    """Solves the HJB against the crowd path, moves the crowd with the rates found, and averages its quotes."""
    value, rates = solve_backward(model, game, crowd)
    density = solve_forward(model, game, rates)
    quotes = jax.vmap(lambda v, c: best_quotes(model, game, v, c))(value, crowd)
    average = jax.vmap(lambda q, d: crowd_average(q, d, model.quoting))(quotes, density)
    unstable = jnp.any(jax.vmap(model.scheme.unstable)(rates, jnp.diff(game.time)))
    return BestReply(value, quotes, density, average, unstable)

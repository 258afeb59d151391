"""Φ: the crowd that best-replies to a crowd path (MODEL.md, section 4). Its fixed points are the equilibria."""

from __future__ import annotations

from typing import NamedTuple

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from mfg_jax.fokker_planck import solve_forward
from mfg_jax.game import Game
from mfg_jax.grid import quadrature_weights
from mfg_jax.hjb import solve_backward
from mfg_jax.model import Model


class BestReply(NamedTuple):
    """What makers do against a given crowd path, and the crowd path that comes of it."""

    value: Float[Array, "time x *batch"]
    quotes: Float[Array, "time side edge *batch"]
    density: Float[Array, "time x *batch"]
    averages: Float[Array, "time side *batch"]
    """The crowd's average offsets at the stored times."""
    crowd: Float[Array, "time side *batch"]
    """Φ: the same as a path for makers to reply to, which differs where an average has a kink between stored times (`kinks.py`)."""
    mean_crowd: Float[Array, "side *batch"]
    """Time average of the crowd path."""
    unstable: Bool[Array, "*batch"]


# traced and differentiated once for all its uses in a program, which halves the time to compile one
@eqx.filter_jit
def best_reply(model: Model, game: Game, crowd: Float[Array, "time side *batch"]) -> BestReply:
    """Solves the HJB against the crowd path, moves the crowd with the rates found, and averages its quotes."""
    policy = solve_backward(model, game, crowd)
    reply = solve_forward(model, game, policy)
    mean = jnp.tensordot(jnp.asarray(quadrature_weights(model.time_fractions), crowd.dtype), reply.path, 1)
    return BestReply(policy.value, policy.quotes, reply.density, reply.averages, reply.path, mean, policy.unstable)

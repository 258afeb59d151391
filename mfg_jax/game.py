"""One game laid out on its grids: everything the steps need, computed once."""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from mfg_jax.lattice import inventories
from mfg_jax.model import Model
from mfg_jax.parameters import Flow, Parameters, order_flow


class Game(NamedTuple):
    """The arrays of one game."""

    flow: Flow
    dt: Float[Array, " step"]
    """Lengths of the scheme's steps."""
    inventory: Float[Array, " x"]
    running_cost: Float[Array, " x"]
    terminal_value: Float[Array, " x"]
    initial_density: Float[Array, " x"]


def lay_out(model: Model, parameters: Parameters) -> Game:
    """The game of these parameters on the model's lattice and time grid."""
    dtype = jnp.asarray(parameters.horizon).dtype
    inventory = jnp.asarray(inventories(model.x_max), dtype)
    return Game(
        flow=order_flow(parameters),
        # from exact fractions: differences of rounded times would lose digits in single precision
        dt=parameters.horizon * jnp.asarray(np.diff(model.time_fractions), dtype),
        inventory=inventory,
        running_cost=parameters.eta * inventory**2,
        terminal_value=-parameters.gamma * inventory**2,
        initial_density=model.initial.density(inventory, parameters),
    )


def residual_tolerance(model: Model, game: Game) -> Float[Array, ""]:
    """The residual at which a crowd path counts as an equilibrium, price units."""
    return model.solver.tolerance / jnp.max(game.flow.k)


def in_the_box(game: Game, crowd: Float[Array, "time side"]) -> Float[Array, "time side"]:
    """The crowd path within the quote bounds: no crowd averages an offset that no maker may quote."""
    return game.flow.bounded(crowd[:, :, None])[:, :, 0]


def valid(model: Model, parameters: Parameters) -> Bool[Array, ""]:
    """Whether these are numbers that a game can have (MODEL.md, sections 1, 2, 4)."""
    flow = order_flow(parameters)
    inventory = jnp.asarray(inventories(model.x_max), flow.A.dtype)
    positive = jnp.stack([*flow.A.ravel(), *flow.k.ravel(), jnp.asarray(parameters.horizon)])
    not_negative = jnp.stack([jnp.asarray(parameters.eta), jnp.asarray(parameters.gamma), flow.k0])
    makers = (flow.n_makers > 1.0) & jnp.isfinite(flow.n_makers)
    return (
        jnp.all((positive > 0) & jnp.isfinite(positive))
        & jnp.all((not_negative >= 0) & jnp.isfinite(not_negative))
        & jnp.all((flow.quote_min <= flow.quote_max) & (flow.quote_min < jnp.inf) & (flow.quote_max > -jnp.inf))
        & (makers if model.coupling.uses_n_makers else True)
        & model.initial.valid(inventory, parameters)
    )

"""The Hamilton–Jacobi–Bellman equation, backward in time (MODEL.md, section 3)."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from mfg_jax.game import Game
from mfg_jax.lattice import Edges, States, jumps
from mfg_jax.model import Model
from mfg_jax.scheme import StageRates


def best_quotes(model: Model, game: Game, value: States, crowd: Float[Array, "side *batch"]) -> Edges:
    """The best offsets of both sides against the crowd's, price units."""
    return model.coupling.best_quote(jumps(value), crowd[:, None], game.flow)


def fill_rates(model: Model, game: Game, quotes: Edges, crowd: Float[Array, "side *batch"]) -> Edges:
    """Fill rates of those offsets, per unit of time; 0 where the side is not quoted."""
    quoting = model.quoting.reshape(model.quoting.shape + (1,) * (quotes.ndim - 2))
    return jnp.where(quoting, model.coupling.rate(quotes, crowd[:, None], game.flow), 0.0)


def crowd_at(
    model: Model, crowd: Float[Array, "time side"], fractions: Float[np.ndarray, " target"]
) -> Float[Array, "target side"]:
    """The crowd's offsets at these fractions of the horizon, interpolated between the stored times."""
    return model.settled_scheme.interpolate(model.time_fractions, crowd, fractions)


def crowd_at_stages(model: Model, crowd: Float[Array, "time side"]) -> Float[Array, "step stage side"]:
    """The crowd's offsets where the stages of every step look at them."""
    ends = model.time_fractions
    nodes = model.settled_scheme.nodes
    distinct = {node: crowd_at(model, crowd, node * ends[:-1] + (1.0 - node) * ends[1:]) for node in nodes}
    return jnp.stack([distinct[node] for node in nodes], axis=1)


def solve_backward(
    model: Model, game: Game, crowd: Float[Array, "time side"]
) -> tuple[Float[Array, "time x"], Float[Array, "step stage side edge"]]:
    """The value of best-replying to a crowd path, at the stored times, and the fill rates at their stages."""

    def controls(value: States, crowd: Float[Array, "side *batch"]) -> tuple[Edges, Edges]:
        quotes = best_quotes(model, game, value, crowd)
        return quotes, fill_rates(model, game, quotes, crowd)

    def step(value: States, interval: tuple[Array, Array]) -> tuple[States, tuple[States, StageRates]]:
        earlier, rates = model.settled_scheme.backward_step(controls, game.running_cost, value, *interval)
        return earlier, (earlier, rates)

    intervals = (crowd_at_stages(model, crowd), game.dt)
    _, (values, rates) = jax.lax.scan(step, game.terminal_value, intervals, reverse=True)
    return jnp.concatenate([values, game.terminal_value[None]]), rates

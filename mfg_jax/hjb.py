"""The Hamilton–Jacobi–Bellman equation, backward in time (MODEL.md, section 3)."""

from __future__ import annotations

from functools import reduce
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from mfg_jax.game import Game
from mfg_jax.grid import joined
from mfg_jax.lattice import Edges, States, along_edges, jumps
from mfg_jax.model import Model


class Policy(NamedTuple):
    """What makers do against a crowd path, and what it is worth to them."""

    crowd: Float[Array, "time side *batch"]
    """The path they reply to."""
    value: Float[Array, "time x *batch"]
    wanted: Float[Array, "time side edge *batch"]
    """The best offsets, bounds apart."""
    quotes: Float[Array, "time side edge *batch"]
    rates: Float[Array, "step stage side edge *batch"]
    """Fill rates at the stages of every step, for the forward step over the same interval."""
    unstable: Bool[Array, "*batch"]
    """Whether a step was too long for the rates."""


def best_quotes(model: Model, game: Game, value: States, crowd: Float[Array, "side *batch"]) -> Edges:
    """The best offsets of both sides against the crowd's, price units."""
    return model.coupling.best_quote(jumps(value), crowd[:, None], game.flow)


def fill_rates(model: Model, game: Game, quotes: Edges, crowd: Float[Array, "side *batch"]) -> Edges:
    """Fill rates of those offsets, per unit of time; 0 where the side is not quoted."""
    return jnp.where(along_edges(model.quoting, quotes), model.coupling.rate(quotes, crowd[:, None], game.flow), 0.0)


def crowd_at(
    model: Model, crowd: Float[Array, "time side *batch"], fractions: Float[np.ndarray, " target"]
) -> Float[Array, "target side *batch"]:
    """The crowd's offsets at these fractions of the horizon, interpolated between the stored times."""
    return model.settled_scheme.interpolate(model.time_fractions, crowd, fractions)


def crowd_at_stages(model: Model, crowd: Float[Array, "time side *batch"]) -> Float[Array, "step stage side *batch"]:
    """The crowd's offsets where the stages of every step look at them."""
    ends, nodes = model.time_fractions, model.settled_scheme.nodes
    seen = {0.0: crowd[1:], 1.0: crowd[:-1]}
    for node in nodes:
        if node not in seen:
            seen[node] = crowd_at(model, crowd, node * ends[:-1] + (1.0 - node) * ends[1:])
    return jnp.stack([seen[node] for node in nodes], axis=1)


def solve_backward(model: Model, game: Game, crowd: Float[Array, "time side *batch"]) -> Policy:
    """The best reply to a crowd path."""
    scheme = model.settled_scheme

    def controls(value: States, crowd: Float[Array, "side *batch"]) -> tuple[Edges, Edges]:
        quotes = best_quotes(model, game, value, crowd)
        return quotes, fill_rates(model, game, quotes, crowd)

    def wanted(value: States, crowd: Float[Array, "side *batch"]) -> Edges:
        return model.coupling.unbounded_quote(jumps(value), crowd[:, None], game.flow)

    def step(later: tuple[States, Edges], interval: Any) -> tuple[tuple[States, Edges], Any]:
        value, most = later
        at_stages, crowd_earlier, dt = interval
        earlier, rates = scheme.backward_step(controls, game.running_cost, value, at_stages, dt)
        most = reduce(jnp.fmax, jax.lax.stop_gradient(dt * rates), most)  # a stage that is NaN hides none before it
        return (earlier, most), (earlier, wanted(earlier, crowd_earlier), rates)

    wanted_at_end = wanted(game.terminal_value, crowd[-1])
    end = (game.terminal_value, jnp.zeros_like(wanted_at_end))
    intervals = (crowd_at_stages(model, crowd), crowd[:-1], game.dt)
    (_, most), (values, wanted_before, rates) = jax.lax.scan(step, end, intervals, reverse=True)
    return Policy(
        crowd=crowd,
        value=joined(values, game.terminal_value),
        wanted=joined(wanted_before, wanted_at_end),
        # joined last, so that what needs the steps' starts alone costs no copy
        quotes=joined(game.flow.bounded(wanted_before), game.flow.bounded(wanted_at_end)),
        rates=rates,
        unstable=scheme.unstable(most),
    )

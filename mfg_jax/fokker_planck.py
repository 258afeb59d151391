"""The Fokker–Planck equation of the crowd, forward in time (MODEL.md, section 4)."""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from mfg_jax.crowd import crowd_average
from mfg_jax.game import Game, in_the_box
from mfg_jax.hjb import Policy
from mfg_jax.kinks import missed_at_kinks, quotes_meet_bounds, with_missed_quotes
from mfg_jax.lattice import Edges, States, transport
from mfg_jax.model import Model


class Crowd(NamedTuple):
    """Where a crowd is, and what it quotes on average."""

    density: Float[Array, "time x *batch"]
    averages: Float[Array, "time side *batch"]
    """The crowd's average offsets at the stored times."""
    path: Float[Array, "time side *batch"]
    """The same as a path for makers to reply to, which differs where an average has a kink between stored times (`kinks.py`)."""


def solve_forward(model: Model, game: Game, policy: Policy) -> Crowd:
    """The crowd that plays this policy.

    The sum of its density is kept by construction: nothing is renormalised.
    """
    corrects_kinks, in_a_batch = model.settled_scheme.corrects_kinks, policy.value.ndim > 2
    # games of a batch share one program, so that the bits of one do not depend on the others
    if in_a_batch or not corrects_kinks:
        return _move(model, game, policy, corrects_kinks)
    return jax.lax.cond(
        quotes_meet_bounds(game, policy.wanted[1:], policy.wanted[:-1]),
        lambda: _move(model, game, policy, correct_kinks=True),
        lambda: _move(model, game, policy, correct_kinks=False),
    )


def _move(model: Model, game: Game, policy: Policy, correct_kinks: bool) -> Crowd:
    def average(quotes: Edges, density: States) -> Float[Array, "side *batch"]:
        return crowd_average(quotes, density, model.quoting)

    @partial(jax.checkpoint, prevent_cse=False)
    def with_kinks(density: States, later: States, dt: Float[Array, "*batch"], *ends: Any) -> tuple[States, Any]:
        missed = missed_at_kinks(model, game, *ends)
        later = later + dt * transport(missed.rates, 0.5 * (density + later))
        return later, (average(missed.quotes, density), average(missed.quotes, later))

    def step(density: States, interval: Any) -> tuple[States, Any]:
        rates, somewhere, ends, dt = interval
        later, missed_averages = model.settled_scheme.forward_step(rates, density, dt), None
        if correct_kinks:
            nothing = jnp.zeros_like(density[:2])
            later, missed_averages = jax.lax.cond(
                somewhere, with_kinks, lambda density, later, *_: (later, (nothing, nothing)), density, later, dt, *ends
            )
        return later, (later, missed_averages)

    ends = (policy.wanted[1:], policy.wanted[:-1], policy.crowd[1:], policy.crowd[:-1])
    somewhere = jax.vmap(partial(quotes_meet_bounds, game))(*ends[:2])
    start, intervals = game.initial_density, (policy.rates, somewhere, ends, game.dt)
    _, (densities, missed_averages) = jax.lax.scan(step, start, intervals)
    densities = jnp.concatenate([start[None], densities])
    averages = jax.vmap(average)(policy.quotes, densities)
    path = averages if missed_averages is None else with_missed_quotes(game, averages, *missed_averages)
    return Crowd(densities, averages, in_the_box(game, path))

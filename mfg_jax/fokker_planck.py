"""The Fokker–Planck equation of the crowd, forward in time (MODEL.md, section 4)."""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from mfg_jax.crowd import crowd_average
from mfg_jax.game import Game, in_the_box
from mfg_jax.grid import joined
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
    correct_kinks = model.settled_scheme.corrects_kinks

    def average(quotes: Edges, density: States) -> Float[Array, "side *batch"]:
        return crowd_average(quotes, density, model.quoting)

    @partial(jax.checkpoint, prevent_cse=False)
    def with_kinks(density: States, later: States, dt: Float[Array, "*batch"], *ends: Any) -> tuple[States, Any]:
        missed = missed_at_kinks(model, game, *ends)
        halfway = 0.5 * (density + later)
        return later + dt * transport(missed.rates, halfway), average(missed.quotes, halfway)

    def without_kinks(density: States, later: States, *_: Any) -> tuple[States, Any]:
        return later, jnp.zeros_like(density[:2])

    def step(density: States, interval: Any) -> tuple[States, Any]:
        rates, somewhere, ends, dt = interval
        later, missed = model.settled_scheme.forward_step(rates, density, dt), None
        if correct_kinks:
            later, missed = jax.lax.cond(somewhere, with_kinks, without_kinks, density, later, dt, *ends)
        return later, (density, missed)

    ends = (policy.wanted[1:], policy.wanted[:-1], policy.crowd[1:], policy.crowd[:-1])
    somewhere = jax.vmap(partial(quotes_meet_bounds, game))(*ends[:2])
    end, (before, missed) = jax.lax.scan(step, game.initial_density, (policy.rates, somewhere, ends, game.dt))
    averages = joined(jax.vmap(average)(policy.quotes[:-1], before), average(policy.quotes[-1], end))
    path = with_missed_quotes(game, averages, missed) if correct_kinks else averages
    return Crowd(joined(before, end), averages, in_the_box(game, path))

"""The Fokker–Planck equation of the crowd, forward in time (MODEL.md, section 4)."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from mfg_jax.crowd import Offers, crowd_average, offers
from mfg_jax.game import Game, in_the_box
from mfg_jax.hjb import Policy
from mfg_jax.kinks import with_missed_quotes
from mfg_jax.lattice import Edges, States
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

    def of_crowd(quotes: Edges, density: States) -> Offers:
        return offers(quotes, density, model.quoting)

    def step(density: States, interval: Any) -> tuple[States, Any]:
        rates, quotes_later, missed, dt = interval
        later = model.settled_scheme.forward_step(rates, density, dt)
        at_ends = None if missed is None else (of_crowd(missed, density), of_crowd(missed, later))
        return later, (later, of_crowd(quotes_later, later), at_ends)

    start, missed = game.initial_density, policy.missed_quotes
    intervals = (policy.rates, policy.quotes[1:], missed, game.dt)
    _, (densities, offers_later, missed_at_ends) = jax.lax.scan(step, start, intervals)
    densities = jnp.concatenate([start[None], densities])
    all_offers = jax.tree.map(lambda a, b: jnp.concatenate([a[None], b]), of_crowd(policy.quotes[0], start), offers_later)
    average = jax.vmap(crowd_average)
    averages = average(all_offers, policy.quotes, densities)
    if missed is None:
        return Crowd(densities, averages, averages)
    before, after = (average(of, missed, there) for of, there in zip(missed_at_ends, (densities[:-1], densities[1:]), strict=True))
    return Crowd(densities, averages, in_the_box(game, with_missed_quotes(game, averages, before, after)))

"""What can be checked of a solution (MODEL.md, section 6). Those here cost no further solve."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from mfg_jax.best_reply import BestReply
from mfg_jax.game import Game
from mfg_jax.lattice import per_inventory
from mfg_jax.model import Model


class Certificates(NamedTuple):
    """Each is 0, or as MODEL.md section 6 says, for a solution without fault."""

    mass_error: Float[Array, ""]
    min_density: Float[Array, ""]
    edge_mass: Float[Array, ""]
    clipped_mass: Float[Array, " side"]
    spread_identity: Float[Array, ""]
    monotone: Bool[Array, ""]


def certify_basics(model: Model, game: Game, crowd: Float[Array, "time side"], reply: BestReply) -> Certificates:
    """The certificates of a best reply to a crowd path."""
    density = reply.density
    return Certificates(
        mass_error=jnp.max(jnp.abs(density.sum(axis=1) - 1.0)),
        min_density=jnp.min(density),
        edge_mass=jnp.max(density[:, 0] + density[:, -1]),
        clipped_mass=_clipped_mass(model, game, reply),
        spread_identity=_spread_identity(model, reply),
        monotone=_monotone(model, game, crowd, reply),
    )


def _clipped_mass(model: Model, game: Game, reply: BestReply) -> Float[Array, " side"]:
    at_bound = model.quoting & ((reply.quotes == game.flow.quote_min) | (reply.quotes == game.flow.quote_max))
    makers = jnp.stack([reply.density[:, 1:], reply.density[:, :-1]], axis=1)
    return jnp.max(jnp.where(at_bound, makers, 0.0).sum(axis=2), axis=0)


def _spread_identity(model: Model, reply: BestReply) -> Float[Array, ""]:
    """Over makers who quote both sides: the mean of (ask − bid) against the sum of the mean offsets, with the mid at 0."""
    both = per_inventory(jnp.asarray(model.quoting), False).all(axis=0)
    ask, bid = jax.vmap(lambda q: per_inventory(q, 0.0), out_axes=1)(reply.quotes)
    makers = jnp.where(both, reply.density, 0.0)
    mass = makers.sum(axis=1)
    gap = (makers * (ask - -bid)).sum(axis=1) - (makers * ask).sum(axis=1) - (makers * bid).sum(axis=1)
    return jnp.max(jnp.abs(jnp.where(mass == 0, 0.0, gap / jnp.where(mass == 0, 1.0, mass))))


def _monotone(model: Model, game: Game, crowd: Float[Array, "time side"], reply: BestReply) -> Bool[Array, ""]:
    """Whether every rate falls in the own offset at the stored quotes (at least does not rise, where it underflows)."""

    def sensitivity(quotes: Float[Array, "side edge"], crowd: Float[Array, " side"]) -> Float[Array, "side edge"]:
        rate = lambda q: model.coupling.rate(q, crowd[:, None], game.flow)  # noqa: E731
        return jax.jvp(rate, (quotes,), (jnp.ones_like(quotes),))[1]

    return jnp.all(jax.vmap(sensitivity)(reply.quotes, crowd) <= 0)

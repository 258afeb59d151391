"""What can be checked of a solution (MODEL.md, section 6)."""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from mfg_jax.best_reply import BestReply, best_reply
from mfg_jax.continuation import Walker
from mfg_jax.game import Game, lay_out
from mfg_jax.hjb import best_quotes, crowd_at, crowd_at_stages, fill_rates
from mfg_jax.lattice import Edges, States, per_inventory
from mfg_jax.model import Model
from mfg_jax.parameters import Parameters
from mfg_jax.solution import Solved, Status
from mfg_jax.spectrum import spectral_radius

Path = Float[Array, "time side"]


class BasicCertificates(NamedTuple):
    """They cost no further solve. Each is 0, or as MODEL.md section 6 says, for a solution without fault."""

    mass_error: Float[Array, ""]
    min_density: Float[Array, ""]
    edge_mass: Float[Array, ""]
    clipped_mass: Float[Array, " side"]
    spread_identity: Float[Array, ""]
    monotone: Bool[Array, ""]


def certify_basics(model: Model, game: Game, crowd: Float[Array, "time side"], reply: BestReply) -> BasicCertificates:
    """The certificates of a best reply to a crowd path."""
    density = reply.density
    return BasicCertificates(
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


class FullCertificates(NamedTuple):
    """Those that cost further solves; NaN where the game has not converged."""

    exploitability: Float[Array, ""]
    contraction: Float[Array, ""]
    time_error: Float[Array, ""]


@eqx.filter_jit
def certify_fully(model: Model, parameters: Parameters, solved: Solved, skip: Bool[Array, ""] | bool = False) -> FullCertificates:
    """The further certificates of what was solved on this model. They are not differentiated."""
    parameters, crowd = jax.lax.stop_gradient((parameters, solved.replied_to))
    game = lay_out(model, parameters)
    converged = solved.equilibrium.status == Status.CONVERGED
    skip = skip | ~converged
    certificates = FullCertificates(
        exploitability(model, game, crowd),
        contraction(model, game, crowd, skip),
        time_error(model, parameters, crowd, skip),
    )
    return jax.tree.map(lambda number: jnp.where(converged, number, jnp.nan), certificates)


def exploitability(model: Model, game: Game, crowd: Path) -> Float[Array, ""]:
    """One backward pass with three values side by side: against the crowd replied to; of the policy found there, against the
    crowd that plays it; and the best against that one. The second takes its quotes from the first at every stage of the scheme."""
    replied_to, deviating, best = 0, 1, 2
    against = crowd_at_stages(model, crowd), crowd_at_stages(model, best_reply(model, game, crowd).crowd)
    quotes_of = jax.vmap(lambda v, c: best_quotes(model, game, v, c), -1, -1)
    rates_of = jax.vmap(lambda q, c: fill_rates(model, game, q, c), -1, -1)

    def controls(value: States, crowd: Float[Array, "side three"]) -> tuple[Edges, Edges]:
        quotes = quotes_of(value, crowd)
        quotes = quotes.at[..., deviating].set(quotes[..., replied_to])
        return quotes, rates_of(quotes, crowd)

    def step(value: States, interval: tuple[Array, Array]) -> tuple[States, None]:
        return model.settled_scheme.backward_step(controls, game.running_cost[:, None], value, *interval)[0], None

    end = jnp.repeat(game.terminal_value[:, None], 3, axis=1)
    value, _ = jax.lax.scan(step, end, (jnp.stack([against[0], against[1], against[1]], axis=-1), game.dt), reverse=True)
    return game.initial_density @ (value[:, best] - value[:, deviating])


def contraction(model: Model, game: Game, crowd: Path, skip: Bool[Array, ""]) -> Float[Array, ""]:
    def derivative(direction: Float[Array, " unknown"]) -> Float[Array, " unknown"]:
        phi = lambda crowd: best_reply(model, game, crowd).crowd  # noqa: E731
        return jax.jvp(phi, (crowd,), (direction.reshape(crowd.shape),))[1].ravel()

    return spectral_radius(derivative, crowd.size, crowd.dtype, skip)


def time_error(model: Model, parameters: Parameters, crowd: Path, skip: Bool[Array, ""]) -> Float[Array, ""]:
    """Against the equilibrium that Newton's method finds from this one with steps of half the length.

    That one is solved just so far that its own residual does not matter.
    """
    fine = dataclasses.replace(model, n_steps=2 * model.n_steps)
    game = lay_out(fine, parameters)
    found = best_reply(model, lay_out(model, parameters), crowd).averages

    def distance(finer: Path) -> Float[Array, ""]:
        """At the times of both grids."""
        return jnp.max(jnp.abs(best_reply(fine, game, finer).averages[::2] - found))

    guess = crowd_at(model, crowd, fine.time_fractions)
    rounding = 100 * jnp.finfo(crowd.dtype).eps * jnp.max(jnp.abs(crowd))
    there = Walker.of(fine, game, jnp.maximum(1e-2 * distance(guess), rounding)).polish(guess, skip)
    return jnp.where(there.arrived, distance(there.crowd), jnp.inf)

"""The stationary game of makers who trade for ever, solved by itself (MODEL.md, section 8, identity 4).

A maker maximises its profit per unit of time g: with v the value of each inventory relative to flat,
g = H(v(x−1) − v(x), δ̄ᵃ) + H(v(x+1) − v(x), δ̄ᵇ) − ηx² for every x. The crowd sits where those quotes lead in the long run, and an
equilibrium is two numbers (δ̄ᵃ, δ̄ᵇ) that are the average of the best replies to themselves.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from mfg_jax.continuation import Found, Walker
from mfg_jax.crowd import Uniform, crowd_average
from mfg_jax.equilibrium import first_that_applies, warn_if_out_of_reach, withhold
from mfg_jax.game import Game, in_the_box, lay_out, residual_tolerance, valid
from mfg_jax.hjb import best_quotes, fill_rates
from mfg_jax.lattice import Edges, States, jumps, leaving, per_inventory
from mfg_jax.model import Model
from mfg_jax.parameters import Parameters, as_scalars
from mfg_jax.solution import Branch, Status

Crowd = Float[Array, " side"]
Prospect = tuple[States, Float[Array, ""]]
"""The value relative to flat, and the profit per unit of time."""

MOST_IMPROVEMENTS = 100


class LongRun(eqx.Module):
    """The stationary equilibrium of one game. Offsets and values in price units, densities as fractions of makers.

    An offset that is not quoted is +inf (MODEL.md, section 1). Where `status` is not `Status.CONVERGED` the arrays are those of
    the last iterate; with `Status.INVALID_PARAMETERS` they are NaN.
    """

    inventory: Float[Array, " x"]
    """−x_max … x_max, lots."""
    value: Float[Array, " x"]
    """Relative to flat."""
    ask: Float[Array, " x"]
    bid: Float[Array, " x"]
    density: Float[Array, " x"]
    crowd_ask: Float[Array, ""]
    crowd_bid: Float[Array, ""]
    full_spread: Float[Array, ""]
    """crowd_ask + crowd_bid."""
    inventory_variance: Float[Array, ""]
    """Lots²."""
    fill_rate_ask: Float[Array, ""]
    """Mean over all makers, per unit of time; in the long run as many lots are bought as sold."""
    fill_rate_bid: Float[Array, ""]
    profit_rate: Float[Array, ""]
    """Of one maker: edge earned less running penalty, price units per unit of time."""
    residual: Float[Array, ""]
    """max |Φ(D) − D|, price units; inf where no finite iterate was seen."""
    iterations: Int[Array, ""]
    """Evaluations of Φ."""
    status: Int[Array, ""]
    branch: Int[Array, ""]
    """A `Branch`."""
    folds: Int[Array, ""]
    """Folds passed on the path from the uncoupled game."""


class Reply(NamedTuple):
    """What makers do for ever against a given crowd, and the crowd that comes of it."""

    value: States
    profit_rate: Float[Array, ""]
    quotes: Edges
    rates: Edges
    density: States
    crowd: Crowd


def solve_long_run(model: Model, parameters: Parameters) -> LongRun:
    """The principal stationary equilibrium: the limit of the game far from both ends of a long horizon.

    gamma, horizon and the initial crowd do not matter, whatever they are; nor do the time grid, the scheme and the method of
    the model. Works under `jax.jit`, `jax.vmap`, `jax.grad` and `jax.jvp`, and never raises for the numbers of a game: see
    `status`. Derivatives are by the implicit function theorem, and mean nothing where `status` is not converged.

    Where only relative offsets count (`relative`; `market_share` with k0 = 0) and no bound binds, asks that widen while bids
    narrow as much change nothing. Then lopsided flow drives the crowd without end, and has no equilibrium; the equilibria of
    flow that is alike on both sides form a family, of which this is the symmetric one. Its derivatives keep to that symmetry.
    Without bounds there may be none under `market_share` either: makers who widen as the flow dries up dry it up further.

    Args:
        model: the static choices, of which the coupling, x_max and the solver's tolerance count.
        parameters: the numbers, scalars all; float64 where JAX has it enabled.

    Raises:
        ValueError: fields that are no scalars, or an absorbing boundary.
    """
    if model.boundary != "reflecting":
        raise ValueError(
            f"solve_long_run needs the boundary 'reflecting'; found {model.boundary!r}, where all makers stick at ±x_max in the end"
        )
    scalars = as_scalars(parameters)
    warn_if_out_of_reach(model, scalars)
    return _solve(model, scalars)


@eqx.filter_jit
def _solve(model: Model, parameters: Parameters) -> LongRun:
    # what does not matter in the long run cannot be wrong either
    one = jnp.ones_like(parameters.horizon)
    parameters = dataclasses.replace(parameters, gamma=one, horizon=one)
    model = dataclasses.replace(model.stiff_model, initial=Uniform())
    game = lay_out(model, parameters)
    is_valid = valid(model, parameters)

    crowd, found = _fixed_point(model, game, ~is_valid)
    reply = best_reply_for_ever(model, game, crowd)
    finite = jnp.all(jnp.isfinite(reply.value)) & jnp.all(jnp.isfinite(reply.crowd))
    status = first_that_applies(
        (~is_valid, Status.INVALID_PARAMETERS),
        (~finite, Status.NON_FINITE),
        (found.arrived, Status.CONVERGED),
        (~found.arrived, Status.CONTINUATION_STOPPED),
    )
    reply = withhold(reply, ~is_valid)
    x, density = game.inventory, reply.density
    ask, bid = per_inventory(reply.quotes, jnp.inf)
    fill_rate_ask, fill_rate_bid = (per_inventory(reply.rates, 0.0) * density).sum(axis=1)
    return LongRun(
        inventory=x,
        value=reply.value,
        ask=ask,
        bid=bid,
        density=density,
        crowd_ask=reply.crowd[0],
        crowd_bid=reply.crowd[1],
        full_spread=reply.crowd.sum(),
        inventory_variance=density @ (x - density @ x) ** 2,
        fill_rate_ask=fill_rate_ask,
        fill_rate_bid=fill_rate_bid,
        profit_rate=reply.profit_rate,
        residual=found.residual,
        iterations=found.trips,
        status=status,
        branch=jnp.where(status == Status.CONVERGED, Branch.PRINCIPAL.value, Branch.UNVERIFIED.value),
        folds=found.folds,
    )


def _fixed_point(model: Model, game: Game, skip: Bool[Array, ""]) -> tuple[Crowd, Found]:
    """The crowd D with Φ(D) = D, differentiable in the game's numbers by the implicit function theorem; how it was found."""

    def phi(crowd: Crowd) -> Crowd:
        return best_reply_for_ever(model, game, crowd).crowd

    def follow(_: Callable[[Crowd], Crowd], start: Crowd) -> tuple[Crowd, Found]:
        found = Walker(
            phi=lambda path: phi(path[0])[None],
            project=lambda path: in_the_box(game, path),
            size=2.0 / jnp.max(game.flow.k),
            tolerance=residual_tolerance(model, game),
            shape=(1, 2),
        ).follow(skip)
        # custom_root wants auxiliary outputs that have tangents, so all travel as floats
        return found.crowd[0], jax.tree.map(lambda leaf: leaf.astype(start.dtype), found)

    def solve_linearised(linear: Callable[[Crowd], Crowd], target: Crowd) -> Crowd:
        # the shortest solution: where equilibria form a family, the derivative across it
        matrix = jax.jacobian(linear)(jnp.zeros_like(target))
        return jnp.linalg.pinv(matrix, rtol=float(jnp.finfo(target.dtype).eps) ** 0.5) @ target

    start = jnp.zeros((2,), game.inventory.dtype)
    crowd, found = jax.lax.custom_root(lambda crowd: phi(crowd) - crowd, start, follow, solve_linearised, has_aux=True)
    return crowd, found._replace(
        arrived=found.arrived > 0, folds=found.folds.astype(jnp.int32), trips=found.trips.astype(jnp.int32)
    )


# traced and differentiated once for all its uses in a program
@eqx.filter_jit
def best_reply_for_ever(model: Model, game: Game, crowd: Crowd) -> Reply:
    """Φ of the stationary game, with all that leads to it."""
    value, profit_rate = most_profitable(model, game, crowd)
    quotes = best_quotes(model, game, value, crowd)
    rates = fill_rates(model, game, quotes, crowd)
    density = stationary_density(rates)
    return Reply(value, profit_rate, quotes, rates, density, crowd_average(quotes, density, model.quoting))


def stationary_density(rates: Edges) -> States:
    """Where makers are in the long run: as many cross each edge upwards as downwards."""
    # an edge that nobody crosses one way leaves nobody beyond it: to rounding, what the smallest number says, whose log is finite;
    # one that nobody crosses either way leaves open who is where
    smallest = jnp.finfo(rates.dtype).tiny
    upwards = jnp.diff(jnp.log(jnp.maximum(rates, smallest)), axis=0)[0]
    upwards = jnp.where(jnp.all(rates < smallest, axis=0), jnp.nan, upwards)
    return jax.nn.softmax(jnp.concatenate([jnp.zeros_like(upwards[:1]), jnp.cumsum(upwards)]))


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def most_profitable(model: Model, game: Game, crowd: Crowd) -> Prospect:
    """What best-replying to a crowd for ever is worth; NaN where it is not found.

    By Howard's policy iteration, which is Newton's method here: what quotes are worth, then the best quotes against that value,
    and so on. The profit rate rises with each improvement.
    """
    dtype = game.inventory.dtype
    # the method is quadratic: after a change this small, what is left is rounding
    small = jnp.finfo(dtype).eps ** 0.5

    def unsettled(state: tuple[Prospect, Array, Array]) -> Array:
        _, last_change, improvements = state
        return (last_change > small) & (improvements < MOST_IMPROVEMENTS)

    def improve(state: tuple[Prospect, Array, Array]) -> tuple[Prospect, Array, Array]:
        (value, _), _, improvements = state
        quotes = best_quotes(model, game, value, crowd)
        rates = fill_rates(model, game, quotes, crowd)
        better = prospect(rates, leaving(rates * quotes) - game.running_cost)
        return better, _change(game, value, better[0]), improvements + 1

    nothing = jnp.zeros((), dtype)
    begin = ((_first_guess(model, game, crowd), nothing), nothing + jnp.inf, jnp.zeros((), jnp.int32))
    found, last_change, _ = jax.lax.while_loop(unsettled, improve, begin)
    return jax.tree.map(lambda leaf: jnp.where(last_change <= small, leaf, jnp.nan), found)


@most_profitable.defjvp
def _most_profitable_jvp(model: Model, primals: tuple[Game, Crowd], tangents: tuple[Game, Crowd]) -> tuple[Prospect, Prospect]:
    """What is gained at the value as it stands is, for ever, worth as much as if it were earned (envelope theorem)."""
    value, profit_rate = most_profitable(model, *primals)

    def earned(game: Game, crowd: Crowd) -> States:
        return leaving(model.coupling.hamiltonian(jumps(value), crowd[:, None], game.flow)) - game.running_cost

    _, gained = jax.jvp(earned, primals, tangents)
    game, crowd = primals
    rates = fill_rates(model, game, best_quotes(model, game, value, crowd), crowd)
    return (value, profit_rate), prospect(rates, gained)


def prospect(rates: Edges, earned: States) -> Prospect:
    """What it is worth to earn this much per unit of time at each inventory and to move at these rates, for ever.

    Solves Qv + earned = g, v = 0 at flat.
    """
    density = stationary_density(rates)
    profit_rate = density @ earned
    # values are found relative to the likeliest inventory: digits are lost where makers hardly ever come
    elsewhere = jnp.arange(density.size) != jnp.argmax(density)
    nothing = jnp.zeros_like(earned[:1])
    down, up = jnp.concatenate([nothing, rates[0]]), jnp.concatenate([rates[1], nothing])
    value = jax.lax.linalg.tridiagonal_solve(
        jnp.where(elsewhere, down, 0.0),
        jnp.where(elsewhere, -down - up, 1.0),
        jnp.where(elsewhere, up, 0.0),
        jnp.where(elsewhere, profit_rate - earned, 0.0)[:, None],
    )[:, 0]
    return value - value[value.size // 2], profit_rate


def _change(game: Game, old: States, new: States) -> Float[Array, ""]:
    """Largest change of a jump, beside 1/k or the jump itself; NaN where a value is not finite."""
    before, after = jumps(old), jumps(new)
    largest = jnp.max(jnp.abs(after - before) / (1.0 / game.flow.k + jnp.abs(after)))
    # said here, because XLA's maximum may pass over a NaN on a CPU
    return jnp.where(jnp.all(jnp.isfinite(new)), largest, jnp.nan)


def _first_guess(model: Model, game: Game, crowd: Crowd) -> States:
    """The value of inventories so costly that, at exponential rates, fills towards flat come as fast as is worth their price.

    Quotes that are best where inventory costs nothing wait too long: after one improvement from there the rates can overflow.
    """
    indifferent = jnp.zeros_like(game.inventory)
    rates = fill_rates(model, game, best_quotes(model, game, indifferent, crowd), crowd)
    cost = jnp.stack([game.running_cost[1:], game.running_cost[:-1]])
    homewards = jnp.log1p(game.flow.k * cost / rates) / game.flow.k
    upwards = jnp.where(jnp.arange(2 * model.x_max) < model.x_max, homewards[1], -homewards[0])
    value = jnp.concatenate([indifferent[:1], jnp.cumsum(upwards)])
    return value - value[model.x_max]

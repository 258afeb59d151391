"""The cold iteration for many games on a device that wants wide arrays.

So many games are iterated side by side, one in each lane, and a lane whose game is done takes the next one that waits: the slowest
game holds nobody. All that is done along inventories and times has the lanes on its last axis, so that neighbouring lanes are
neighbours in memory; what a lane does is the same whoever is in the others.
"""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from mfg_jax.best_reply import best_reply
from mfg_jax.equilibrium import cold_start
from mfg_jax.fixed_point import Iterate, Iteration
from mfg_jax.game import in_the_box, lay_out, residual_tolerance
from mfg_jax.model import Model
from mfg_jax.parameters import Parameters

NOBODY = -1
"""The ticket of an idle lane."""


class Lanes(NamedTuple):
    """Games under way, one in each lane."""

    ticket: Int[Array, " lane"]
    """Which game it is, by a number that the caller gave it."""
    parameters: Parameters
    """Of one game in each lane: [lane]."""
    iteration: Iteration
    """[lane, …]."""


class Finished(NamedTuple):
    """Games that are done, in the order in which they were; behind them room for more, whose tickets are `NOBODY`."""

    ticket: Int[Array, " place"]
    parameters: Parameters
    found: Iterate
    """[place, …]."""


class _State(NamedTuple):
    lanes: Lanes
    finished: Finished
    finished_so_far: Int[Array, ""]
    taken: Int[Array, ""]
    """How many of those who wait have a lane."""
    idle: Int[Array, ""]
    trips: Int[Array, ""]


class Work(NamedTuple):
    """What a call did, in evaluations of Φ by one lane."""

    trips: Int[Array, ""]
    idle: Int[Array, ""]
    """Of trips times lanes, those that no game used."""


def idle_lanes(model: Model, like: Parameters, lanes: int) -> Lanes:
    """Lanes without games. `like`: parameters of any one game."""
    parameters = jax.tree.map(lambda leaf: jnp.full((lanes,), leaf), like)
    iteration = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), jax.eval_shape(partial(_begin, model), parameters))
    return Lanes(jnp.full((lanes,), NOBODY), parameters, iteration)


def advance_lanes(
    model: Model, lanes: Lanes, ticket: Int[Array, " game"], waiting: Parameters, drain: Bool[Array, ""]
) -> tuple[Lanes, Finished, Work]:
    """Goes on until every game that waits has a lane; to `drain`, until every game is done.

    Args:
        ticket, waiting: the games that wait, [game]; those with the ticket `NOBODY` are passed over.
    """
    width, games = lanes.ticket.size, ticket.size
    model = model.explicit_model

    def more(state: _State) -> Bool[Array, ""]:
        return (state.taken < games) | (drain & jnp.any(state.lanes.ticket != NOBODY))

    def trip(state: _State) -> _State:
        lanes = state.lanes
        busy = (lanes.ticket != NOBODY) & _unfinished(model, lanes)
        state = _hand_over(state, (lanes.ticket != NOBODY) & ~busy)
        lanes, taken = _take(model, state.lanes, state.taken, ticket, waiting)
        advanced = _advance(model, lanes)
        working = (lanes.ticket != NOBODY) & _unfinished(model, lanes)
        iteration = jax.tree.map(lambda new, old: jnp.where(_like(working, new), new, old), advanced, lanes.iteration)
        idle = state.idle + (~working).sum()
        return state._replace(lanes=lanes._replace(iteration=iteration), taken=taken, idle=idle, trips=state.trips + 1)

    places = games + width
    found = jax.tree.map(lambda leaf: jnp.zeros((places, *leaf.shape[1:]), leaf.dtype), lanes.iteration.best)
    parameters = jax.tree.map(lambda leaf: jnp.zeros((places,), leaf.dtype), lanes.parameters)
    nothing = jnp.zeros((), lanes.ticket.dtype)
    begin = _State(lanes, Finished(jnp.full((places,), NOBODY), parameters, found), *[nothing] * 4)
    end = jax.lax.while_loop(more, trip, begin)
    return end.lanes, end.finished, Work(end.trips, end.idle)


def _begin(model: Model, parameters: Parameters) -> Iteration:
    model = model.explicit_model
    return jax.vmap(lambda game: model.solver.begin(cold_start(model, game)))(parameters)


def _unfinished(model: Model, lanes: Lanes) -> Bool[Array, " lane"]:
    def one(parameters: Parameters, iteration: Iteration) -> Bool[Array, ""]:
        return model.solver.unfinished(iteration, residual_tolerance(model, lay_out(model, parameters)))

    return jax.vmap(one)(lanes.parameters, lanes.iteration)


def _advance(model: Model, lanes: Lanes) -> Iteration:
    """One evaluation of Φ in every lane, and what follows of it."""
    game = jax.vmap(partial(lay_out, model), out_axes=-1)(lanes.parameters)
    reply = best_reply(model, game, jnp.moveaxis(lanes.iteration.trial, 0, -1))

    def one(iteration: Iteration, reply: Float[Array, "time side"], unstable: Bool[Array, ""], parameters: Parameters) -> Iteration:
        project = partial(in_the_box, lay_out(model, parameters))
        return model.solver.advance(iteration, reply, unstable, project)

    return jax.vmap(one)(lanes.iteration, jnp.moveaxis(reply.crowd, -1, 0), reply.unstable, lanes.parameters)


def _hand_over(state: _State, done: Bool[Array, " lane"]) -> _State:
    """Puts the games that are done with those done before, and leaves their lanes idle."""
    lanes, finished = state.lanes, state.finished
    place = jnp.where(done, state.finished_so_far + jnp.cumsum(done) - 1, finished.ticket.size)  # beyond the end: dropped
    of_lanes = Finished(lanes.ticket, lanes.parameters, lanes.iteration.best)
    finished = jax.tree.map(lambda all_done, lane: all_done.at[place].set(lane, mode="drop"), finished, of_lanes)
    ticket = jnp.where(done, NOBODY, lanes.ticket)
    return state._replace(
        lanes=lanes._replace(ticket=ticket), finished=finished, finished_so_far=state.finished_so_far + done.sum()
    )


def _take(
    model: Model, lanes: Lanes, taken: Int[Array, ""], ticket: Int[Array, " game"], waiting: Parameters
) -> tuple[Lanes, Int[Array, ""]]:
    """The next games that wait begin in the idle lanes."""
    idle = lanes.ticket == NOBODY
    queued = taken + jnp.cumsum(idle) - 1
    takes = idle & (queued < ticket.size)
    place = jnp.where(takes, queued, 0)
    parameters = jax.tree.map(lambda old, new: jnp.where(takes, new[place], old), lanes.parameters, waiting)
    begun = _begin(model, parameters)
    iteration = jax.tree.map(lambda old, new: jnp.where(_like(takes, new), new, old), lanes.iteration, begun)
    return Lanes(jnp.where(takes, ticket[place], lanes.ticket), parameters, iteration), taken + takes.sum()


def _like(lanes: Bool[Array, " lane"], leaf: Array) -> Bool[Array, "lane *ones"]:
    return lanes.reshape(lanes.shape + (1,) * (leaf.ndim - 1))

"""What is compiled: programs that solve many games of one kind, one after the other or side by side."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import Enum
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jax.stages import Wrapped
from jaxtyping import Array, Bool, Int

import mfg_jax as mfg
from mfg_jax.certificate import FullCertificates
from mfg_jax.equilibrium import certified, settled, solve_along_path, solve_cold, verify
from mfg_jax.fixed_point import Iterate
from mfg_jax.lanes import NOBODY, Lanes, Work, advance_lanes, idle_lanes
from sweeps.dataset import DIFFERENTIATED, variables_of_one_equilibrium
from sweeps.spec import Spec

Columns = Mapping[str, Any]
"""Parameters of games, by name, [game]."""
Results = dict[str, jax.Array]
"""Stored variables, by name, [game, …]."""
SolveOne = Callable[[mfg.Parameters], Results]
Finish = Callable[[mfg.Parameters, Iterate | None], Results]
"""Takes the cold iteration too, where it is done already."""


class Way(Enum):
    """What a program does with a game (`mfg_jax.solve` does all of it, as needed)."""

    COLD = "iterate from a cold start"
    VERIFY = "check that the cold start's equilibrium is the principal one"
    PATH = "follow the path from the uncoupled game"


class Handed(NamedTuple):
    """What lanes hand back: games that are done, and behind them places whose point is `NOBODY`, [place, …]."""

    point: Int[Array, " place"]
    columns: dict[str, jax.Array]
    results: Results
    work: Work
    """Of each device."""


def in_turn(way: Way, model: mfg.Model, spec: Spec, thinning: int) -> Wrapped:
    """A program that solves the first so many games, one after the other, and spends no time on those that fill up the batch."""
    solve_one = jax.jit(_solve_one(way, model, spec, thinning))  # traced once for its shapes and its use

    def solve_many(columns: Columns, count: jax.Array) -> Results:
        def game(i: jax.Array | int) -> mfg.Parameters:
            return parameters_of({name: column[i] for name, column in columns.items()})

        def solve(i: jax.Array, results: Results) -> Results:
            return jax.tree.map(lambda all_games, one: all_games.at[i].set(one), results, solve_one(game(i)))

        batch = len(next(iter(columns.values())))
        shapes = jax.eval_shape(solve_one, game(0))
        empty = jax.tree.map(lambda one: jnp.zeros((batch, *one.shape), one.dtype), shapes)
        return jax.lax.fori_loop(0, count, solve, empty)

    return jax.jit(solve_many)


def at_once(way: Way, model: mfg.Model, spec: Spec, thinning: int) -> Wrapped:
    """A program that solves all games side by side, also those that fill up the batch."""
    solve_one = _solve_one(way, model, spec, thinning)
    return _over_devices(lambda columns, count: jax.vmap(solve_one)(parameters_of(columns)), split=(True, False))


def in_lanes(model: mfg.Model, spec: Spec, structure: Any) -> Wrapped:
    """A program that iterates games in lanes, from a cold start, and finishes those that are done.

    It takes the leaves of the lanes, of this structure, and takes them over, so that those that it was called with are no more; the
    points of the games that wait; their columns; and whether to go on until all games are done.
    """
    finish = _finish_cold(model, spec, thinning=1)

    def advance(
        leaves: list[jax.Array], points: Int[Array, " game"], columns: Columns, drain: Bool[Array, ""]
    ) -> tuple[list[jax.Array], Handed]:
        waiting = jax.tree.map(jnp.asarray, parameters_of(columns))
        lanes, finished, work = advance_lanes(model, jax.tree.unflatten(structure, leaves), points, waiting, drain)
        count = (finished.ticket != NOBODY).sum()
        results = _group_by_group(finish, finished.parameters, finished.found, count, group=lanes.ticket.size)
        handed = {name: getattr(finished.parameters, name) for name in columns}
        return jax.tree.leaves(lanes), Handed(finished.ticket, handed, results, jax.tree.map(jnp.atleast_1d, work))

    return _over_devices(advance, split=(True, True, True, False), donate_argnums=0)


def new_lanes(model: mfg.Model, columns: Columns, lanes: int) -> Lanes:
    """So many idle lanes; `columns`: of any one game, or more."""
    return idle_lanes(model, jax.tree.map(lambda leaf: leaf[0], parameters_of(columns)), lanes)


def parameters_of(columns: Columns) -> mfg.Parameters:
    return mfg.Parameters(**{"A": None, "k": None, **columns})


def _over_devices(program: Callable[..., Any], split: tuple[bool, ...], **options: Any) -> Wrapped:
    """The program, compiled with these options and run on every device with its share of those arguments that are `split`, along
    their first axis. The shares have nothing to do with each other, so no device waits for another."""
    if jax.device_count() == 1:
        return jax.jit(program, **options)
    mesh = Mesh(np.array(jax.devices()), ("device",))
    arguments = tuple(PartitionSpec("device") if along else PartitionSpec() for along in split)
    spread = jax.shard_map(program, mesh=mesh, in_specs=arguments, out_specs=PartitionSpec("device"), check_vma=False)
    return jax.jit(spread, in_shardings=tuple(NamedSharding(mesh, of_argument) for of_argument in arguments), **options)


def _group_by_group(finish: Finish, parameters: mfg.Parameters, found: Iterate, count: Int[Array, ""], group: int) -> Results:
    """The first `count` games, so many at a time, which bounds the memory."""
    games = (parameters, found)
    places = jax.tree.leaves(found)[0].shape[0]
    shapes = jax.eval_shape(jax.vmap(finish), *games)
    empty = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)

    def one_group(i: jax.Array, results: Results) -> Results:
        start = jnp.minimum(i * group, places - group)
        some = jax.tree.map(lambda leaf: jax.lax.dynamic_slice_in_dim(leaf, start, group), games)
        finished = jax.vmap(finish)(*some)
        return jax.tree.map(lambda whole, part: jax.lax.dynamic_update_slice_in_dim(whole, part, start, 0), results, finished)

    return jax.lax.fori_loop(0, -(-count // group), one_group, empty)


def _solve_one(way: Way, model: mfg.Model, spec: Spec, thinning: int) -> SolveOne:
    """All stored variables of a game; where only its branch is in doubt, what depends on the answer."""
    match way:
        case Way.COLD:
            return lambda parameters: _finish_cold(model, spec, thinning)(parameters, None)
        case Way.VERIFY:
            return _verifier(model, spec)
        case Way.PATH:
            return lambda parameters: _path_follower(model, spec, thinning)(parameters, None)


def _verifier(model: mfg.Model, spec: Spec) -> SolveOne:
    certify = spec.certify_fully
    decided = ["branch", "folds", *(FullCertificates._fields if certify else ())]

    def solve_verified(parameters: mfg.Parameters) -> Results:
        found = verify(model, parameters, solve_cold(model, parameters))
        equilibrium = certified(model.explicit_model, parameters, found) if certify else found.equilibrium
        return {name: getattr(equilibrium, name) for name in decided}

    return solve_verified


def _finish_cold(model: mfg.Model, spec: Spec, thinning: int) -> Finish:
    def solve_from_cold(parameters: mfg.Parameters, done: Iterate | None) -> mfg.Equilibrium:
        cold = solve_cold(model, parameters, done)
        status, branch = cold.equilibrium.status, cold.equilibrium.branch
        left_open = ~settled(model, status, branch, spec.solver.select)
        return certified(model.explicit_model, parameters, cold, left_open) if spec.certify_fully else cold.equilibrium

    return _stored_variables(solve_from_cold, model, spec, thinning)


def _path_follower(model: mfg.Model, spec: Spec, thinning: int) -> Finish:
    def solve_path(parameters: mfg.Parameters, done: Iterate | None) -> mfg.Equilibrium:
        del done
        found = solve_along_path(model, parameters)
        return certified(model.stiff_model, parameters, found) if spec.certify_fully else found.equilibrium

    return _stored_variables(solve_path, model, spec, thinning)


def _stored_variables(
    solve_game: Callable[[mfg.Parameters, Iterate | None], mfg.Equilibrium], model: mfg.Model, spec: Spec, thinning: int
) -> Finish:
    gradients = spec.outputs.gradients

    def solve(parameters: mfg.Parameters, done: Iterate | None) -> tuple[jax.Array, Results]:
        equilibrium = solve_game(parameters, done)
        metrics = mfg.metrics(model, parameters, equilibrium, derisk_band=spec.metrics.derisk_band)
        stored = _stored(spec, equilibrium, metrics, thinning)
        differentiated = jnp.stack([getattr(metrics, name) for name in gradients]) if gradients else jnp.zeros(0)
        return differentiated, stored

    def solve_with_derivatives(parameters: mfg.Parameters, done: Iterate | None) -> Results:
        differentiated, pull_back, stored = jax.vjp(lambda parameters: solve(parameters, done), parameters, has_aux=True)
        # one metric after the other: a batch of them would have to be compiled as one
        rows = jax.lax.map(lambda cotangent: jnp.stack(jax.tree.leaves(pull_back(cotangent))), jnp.eye(differentiated.size))
        # off an equilibrium the implicit function theorem says nothing
        converged = stored["status"] == mfg.Status.CONVERGED
        rows = jnp.where(converged, rows, jnp.nan)
        known = ~jnp.isnan(rows).any(axis=1) | jnp.isnan(differentiated)  # what is not there has no derivative either
        stored[DIFFERENTIATED.name] = jnp.where(converged, known.all().astype(float), jnp.nan)
        return stored | {f"d_{name}": row for name, row in zip(gradients, rows, strict=True)}

    return solve_with_derivatives if gradients else lambda parameters, done: solve(parameters, done)[1]


def _stored(spec: Spec, equilibrium: mfg.Equilibrium, metrics: mfg.Metrics, thinning: int) -> Results:
    def of_game(name: str) -> jax.Array:
        return getattr(equilibrium, name) if hasattr(equilibrium, name) else getattr(metrics, name)

    stored = {"status": of_game("status")}
    for variable in variables_of_one_equilibrium(spec):
        numbers = of_game(variable.name)
        stored[variable.name] = numbers[::thinning] if "time" in variable.dims else numbers
    # every certificate of numbers that mean nothing is missing, this truth value too
    stored["monotone"] = jnp.where(jnp.isnan(stored["min_density"]), jnp.nan, stored["monotone"].astype(float))
    if spec.outputs.surfaces:
        for side in ("ask", "bid"):  # an offset that is not quoted is infinite in the library, missing in a store
            stored[side] = jnp.where(jnp.isposinf(stored[side]), jnp.nan, stored[side])
    return stored

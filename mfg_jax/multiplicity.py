"""Looking for all equilibria of one game (MODEL.md, section 5)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from mfg_jax.best_reply import best_reply
from mfg_jax.continuation import Found, Walk, Walker
from mfg_jax.equilibrium import (
    SAME_EQUILIBRIUM,
    Search,
    assemble,
    certified,
    check_certify,
    coarsened,
    solve_along_path,
)
from mfg_jax.game import in_the_box, lay_out, residual_tolerance
from mfg_jax.hjb import crowd_at
from mfg_jax.model import Model
from mfg_jax.parameters import Parameters, as_scalars, order_flow
from mfg_jax.solution import Branch, Equilibrium, Solved, Status

Path = Float[Array, "time side"]

MOST_ALONG_A_PATH = 20

SAME_ON_THE_COARSE_GRID = 1e-4
"""Largest difference of coarse crowd paths, times k, that are taken for one equilibrium."""


def find_equilibria(model: Model, parameters: Parameters, certify: str = "basic") -> list[Equilibrium]:
    """The equilibria of one game that can be found without a hint: the principal one first, then others.

    The path from the uncoupled game is followed on past the principal equilibrium, as folds lead it back to further ones; the
    iteration starts from the corners of the quote box; and from what it finds there paths are followed both ways. All that on a
    coarse grid; Newton's method then solves each equilibrium on the model's own. There is no proof that none is missing, but
    generically their number is odd.

    For one game at a time, outside `jax.jit`, `jax.vmap` and `jax.grad`: how many there are depends on the numbers.

    Args:
        model, parameters: as for `solve`; all are solved by the scheme for stiff games.
        certify: "basic" or "full", as for `solve`.

    Returns:
        Converged equilibria only; `branch` says which is the principal one. None where no game has these numbers.

    Raises:
        ValueError: fields that are no scalars, or another `certify`.
    """
    check_certify(certify)
    model, scalars = model.stiff_model, as_scalars(parameters)
    principal = solve_along_path(model, scalars)
    if principal.equilibrium.status == Status.INVALID_PARAMETERS:
        return []
    guesses = _coarse_equilibria(coarsened(model), scalars)
    known = principal.equilibrium.status == Status.CONVERGED
    branch = Branch.OTHER if known else Branch.UNVERIFIED  # without the principal one, any of them may be that
    candidates = [principal, *(_polished(model, scalars, guess, jnp.asarray(branch.value)) for guess in guesses)]
    found: list[Solved] = []
    for solved in candidates:
        converged = solved.equilibrium.status == Status.CONVERGED
        if converged and not _is_among(solved.replied_to, (other.replied_to for other in found), scalars, SAME_EQUILIBRIUM):
            found.append(solved)
    return [certified(model, scalars, solved) if certify == "full" else solved.equilibrium for solved in found]


def _coarse_equilibria(coarse: Model, parameters: Parameters) -> list[Path]:
    known: list[Path] = []

    def learn(crowds: Iterable[Path]) -> bool:
        """Takes in what a path leads to, until it comes to what is known. Whether there was anything new."""
        before = len(known)
        for crowd in crowds:
            if _is_among(crowd, known, parameters, SAME_ON_THE_COARSE_GRID):
                break
            known.append(crowd)
        return len(known) > before

    learn(_along_the_path(coarse, parameters, *_first_equilibrium(coarse, parameters)))
    for corner in _corners(parameters):
        start = _iterated(coarse, parameters, jnp.broadcast_to(corner, (coarse.n_steps + 1, 2)))
        if start.arrived and learn([start.crowd]):
            for direction in (1.0, -1.0):
                departing = _departing(coarse, parameters, start.crowd, jnp.asarray(direction, start.crowd.dtype))
                learn(_along_the_path(coarse, parameters, *_next_equilibrium(coarse, parameters, departing)))
    return known


def _along_the_path(coarse: Model, parameters: Parameters, found: Found, end: Walk) -> Iterator[Path]:
    for _ in range(MOST_ALONG_A_PATH):
        if not found.arrived:
            return
        yield found.crowd
        found, end = _next_equilibrium(coarse, parameters, end)


def _corners(parameters: Parameters) -> Iterator[Array]:
    """Of the quote box: crowds at the least offset that earns anything, and at the largest, on each side."""
    flow = order_flow(parameters)
    near = jnp.maximum(flow.quote_min, 0.0)
    far = jnp.maximum(near, jnp.minimum(flow.quote_max, 10.0 / flow.k).ravel())
    for ask_is_far in (False, True):
        for bid_is_far in (False, True):
            yield jnp.where(np.array([ask_is_far, bid_is_far]), far, near)


def _is_among(crowd: Path, known: Iterable[Path], parameters: Parameters, tolerance: float) -> bool:
    k = float(jnp.max(order_flow(parameters).k))
    return any(float(jnp.max(jnp.abs(crowd - other))) * k <= tolerance for other in known)


@eqx.filter_jit
def _first_equilibrium(coarse: Model, parameters: Parameters) -> tuple[Found, Walk]:
    return _walker(coarse, parameters).first_equilibrium()


@eqx.filter_jit
def _next_equilibrium(coarse: Model, parameters: Parameters, end: Walk) -> tuple[Found, Walk]:
    return _walker(coarse, parameters).next_equilibrium(end)


@eqx.filter_jit
def _departing(coarse: Model, parameters: Parameters, crowd: Path, direction: Float[Array, ""]) -> Walk:
    return _walker(coarse, parameters).departing(crowd, direction)


@eqx.filter_jit
def _iterated(coarse: Model, parameters: Parameters, start: Path) -> Found:
    """The equilibrium that the model's iteration, then Newton's method, come to from a start."""
    game = lay_out(coarse, parameters)

    def phi(crowd: Path) -> tuple[Path, Bool[Array, ""]]:
        reply = best_reply(coarse, game, crowd)
        return reply.crowd, reply.unstable

    near = coarse.solver.solve(phi, start, lambda crowd: in_the_box(game, crowd), residual_tolerance(coarse, game))
    return _walker(coarse, parameters).polish(near.point)


@eqx.filter_jit
def _polished(model: Model, parameters: Parameters, guess: Path, branch: Int[Array, ""]) -> Solved:
    """The equilibrium on the model's grid near a coarse one."""
    game = lay_out(model, parameters)
    there = _walker(model, parameters).polish(crowd_at(coarsened(model), guess, model.time_fractions))
    reply = best_reply(model, game, there.crowd)
    status = jnp.where(there.arrived, Status.CONVERGED.value, Status.CONTINUATION_STOPPED.value)
    found = Search(there.residual, there.trips, jnp.asarray(False), branch, there.folds)
    return Solved(assemble(model, parameters, game, there.crowd, reply, found, status), there.crowd, jnp.asarray(True))


def _walker(model: Model, parameters: Parameters) -> Walker:
    game = lay_out(model, parameters)
    return Walker.of(model, game, residual_tolerance(model, game))

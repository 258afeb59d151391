"""Where the path from the uncoupled game turns (MODEL.md, section 5): the edges of the regions with several equilibria."""

from __future__ import annotations

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from mfg_jax.continuation import ARRIVED, MOST_TRIPS, WALKING, Walk, Walker
from mfg_jax.game import lay_out, residual_tolerance, valid
from mfg_jax.model import Model
from mfg_jax.parameters import Parameters, as_scalars
from mfg_jax.solution import Status

NEAR = 0.02
"""Distance of two points of the path, one on either side of a fold, between which a cubic locates it."""


def find_turning_points(model: Model, parameters: Parameters) -> Float[np.ndarray, " fold"]:
    """The dials at which the path from the uncoupled game (dial 0) to this one (dial 1) turns, in the order they are passed.

    At dial s makers see s times the crowd's offsets. Where fills fall exponentially, that is the game with k − s·(k − k0) in place
    of k0; so with k0 = 0 the path turns where k0/k is 1 − s.

    For one game at a time, outside `jax.jit`: how many there are depends on the numbers.

    Args:
        model, parameters: as for `solve`. The path is followed on the model's own grid, by its scheme for stiff games.

    Raises:
        ValueError: fields that are no scalars, or numbers that no game has.
        RuntimeError: the path could not be followed to its end.
    """
    model, scalars = model.stiff_model, as_scalars(parameters)
    if not valid(model, scalars):
        raise ValueError(Status.INVALID_PARAMETERS.explanation)
    folds = []
    there = _start(model, scalars)
    while there.outcome == WALKING and there.trips < MOST_TRIPS:
        here, there = there, _next_point(model, scalars, there)
        if _turned(here, there):
            before, after = _narrowed(model, scalars, here, there)
            if _turned(before, after):
                folds.append(_located(before, after))
            else:
                there = after
    if there.outcome != ARRIVED:
        raise RuntimeError(Status.CONTINUATION_STOPPED.explanation)
    return np.array(folds)


def _turned(here: Walk, there: Walk) -> bool:
    return bool(here.tangent[-1] * there.tangent[-1] < 0)


def _narrowed(model: Model, parameters: Parameters, here: Walk, there: Walk) -> tuple[Walk, Walk]:
    """Two points with the turn between them, so near each other that it can be told where.

    If shorter steps show that the path ends before it turns, the last two.
    """
    while _turned(here, there) and (distance := _distance(here, there)) > NEAR:
        there = _next_point(model, parameters, _with_step(model, parameters, here, jnp.asarray(distance / 4, there.step.dtype)))
        while there.outcome == WALKING and not _turned(here, there):
            here, there = there, _next_point(model, parameters, there)
    return here, there


def _distance(here: Walk, there: Walk) -> float:
    return float(jnp.linalg.norm(there.here - here.here))


def _located(here: Walk, there: Walk) -> float:
    """The turn between two points of the path, by the cubic that has the path's slopes at both."""
    distance = _distance(here, there)
    dials = [float(walk.here[-1]) for walk in (here, there)]
    slopes = [distance * float(walk.tangent[-1]) for walk in (here, there)]
    cubic = np.polynomial.Polynomial(
        [dials[0], slopes[0], 3 * (dials[1] - dials[0]) - 2 * slopes[0] - slopes[1], 2 * (dials[0] - dials[1]) + sum(slopes)]
    )
    (turn,) = (root.real for root in cubic.deriv().roots() if abs(root.imag) < 1e-9 and 0 <= root.real <= 1)
    return float(cubic(turn))


@eqx.filter_jit
def _start(model: Model, parameters: Parameters) -> Walk:
    return _walker(model, parameters).start


@eqx.filter_jit
def _next_point(model: Model, parameters: Parameters, walk: Walk) -> Walk:
    return _walker(model, parameters).next_point(walk)


@eqx.filter_jit
def _with_step(model: Model, parameters: Parameters, walk: Walk, step: Float[Array, ""]) -> Walk:
    return _walker(model, parameters).with_step(walk, step)


def _walker(model: Model, parameters: Parameters) -> Walker:
    game = lay_out(model, parameters)
    return Walker.of(model, game, residual_tolerance(model, game))

"""Linear equations by products with the matrix alone, one product a trip, so that a loop can do other things in between.

Simpler GMRES that chooses its directions (Jiránek and Rozložník, SIAM J. Sci. Comput. 32, 2010): after each product the residual is
the smallest that the directions so far allow. The next direction is the residual while it falls, which keeps the basis well
conditioned, and the last image where it stalls, which keeps it from breaking down.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

STALLED = 0.9
MOST_TRIPS, MOST_ROUNDS = 40, 10
ENOUGH, A_ROUND = 0.7, 0.75
"""Shares of the digits: when an equation counts as solved, and how far a round goes, a little further so that one is enough."""

Vector = Float[Array, " unknown"]


class Krylov(NamedTuple):
    """An equation matrix·solution = right side on its way to be solved."""

    solution: Vector
    residual: Vector
    """Of the right side; its length never grows."""
    direction: Vector
    """What the matrix is to be applied to next, of length 1."""
    directions: Float[Array, "trip unknown"]
    images: Float[Array, "trip unknown"]
    """The matrix times each of `directions`: orthonormal, zero where not yet used."""
    trips: Int[Array, ""]
    size: Float[Array, ""]
    """Length of the right side."""

    def solved(self, tolerance: float) -> Bool[Array, ""]:
        """Whether the residual is small beside the right side, or there is no room for another trip."""
        return (jnp.linalg.norm(self.residual) <= tolerance * self.size) | (self.trips >= len(self.images))


def begin(right_side: Vector, most_trips: int) -> Krylov:
    """No product taken yet."""
    nothing = jnp.zeros_like(right_side)
    empty = jnp.zeros((most_trips, right_side.size), right_side.dtype)
    return Krylov(nothing, right_side, _unit(right_side), empty, empty, jnp.zeros((), jnp.int32), jnp.linalg.norm(right_side))


def advance(state: Krylov, image: Vector) -> Krylov:
    """Takes in the product of the matrix with `state.direction`."""
    direction = state.direction
    for _ in range(2):  # once is not orthogonal enough where images are nearly dependent
        overlap = state.images @ image
        image, direction = image - overlap @ state.images, direction - overlap @ state.directions
    length = jnp.linalg.norm(image)
    scale = jnp.where(length > 0, 1.0 / jnp.where(length > 0, length, 1.0), 0.0)
    image, direction = scale * image, scale * direction
    step = image @ state.residual
    residual = state.residual - step * image
    stalled = jnp.linalg.norm(residual) > STALLED * jnp.linalg.norm(state.residual)
    return Krylov(
        state.solution + step * direction,
        residual,
        jnp.where(stalled, image, _unit(residual)),
        state.directions.at[state.trips].set(direction),
        state.images.at[state.trips].set(image),
        state.trips + 1,
        state.size,
    )


class _Rounds(NamedTuple):
    """An equation solved again and again for what is left of it."""

    solution: Vector
    left: Krylov
    """The equation for the residual."""
    checking: Bool[Array, ""]
    """Whether the next product is that with the solution, to know its residual; or one more for what is left."""
    error: Float[Array, ""]
    """Length of the residual beside those of the right side and the solution."""
    rounds: Int[Array, ""]


def solve(matvec: Callable[[Vector], Vector], right_side: Vector) -> Vector:
    """Solves matvec(x) = right_side to 1e-11 in double precision; NaN where not even half the digits can be had, as at a fold."""
    eps = float(jnp.finfo(right_side.dtype).eps)
    most_trips = min(MOST_TRIPS, right_side.size)

    def unfinished(state: _Rounds) -> Bool[Array, ""]:
        return (state.error > eps**ENOUGH) & (state.rounds < MOST_ROUNDS)

    def trip(state: _Rounds) -> _Rounds:
        product = matvec(jnp.where(state.checking, state.solution, state.left.direction))
        residual = right_side - product
        size = jnp.linalg.norm(right_side) + jnp.linalg.norm(state.solution)
        error = jnp.linalg.norm(residual) / jnp.where(size > 0, size, 1.0)
        checked = state._replace(
            left=begin(residual, most_trips), checking=jnp.asarray(False), error=error, rounds=state.rounds + 1
        )
        left = advance(state.left, product)
        done = left.solved(eps**A_ROUND)
        solution = state.solution + jnp.where(done, left.solution, 0.0)
        return jax.tree.map(
            lambda a, b: jnp.where(state.checking, a, b), checked, state._replace(solution=solution, left=left, checking=done)
        )

    nothing, unknown = jnp.zeros_like(right_side), jnp.full((), jnp.inf, right_side.dtype)
    start = _Rounds(nothing, begin(right_side, most_trips), jnp.asarray(False), unknown, jnp.zeros((), jnp.int32))
    found = jax.lax.while_loop(unfinished, trip, start)
    return jnp.where(found.error <= eps**0.5, found.solution, jnp.nan)


def _unit(vector: Vector) -> Vector:
    length = jnp.linalg.norm(vector)
    return vector / jnp.where(length > 0, length, 1.0)

"""Linear equations by products with the matrix alone, one product a trip, so that a loop can do other things in between.

Simpler GMRES that chooses its directions (Jiránek and Rozložník, SIAM J. Sci. Comput. 32, 2010): after each product the residual is
the smallest that the directions so far allow. The next direction is the residual while it falls, which keeps the basis well
conditioned, and the last image where it stalls, which keeps it from breaking down.
"""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

STALLED = 0.9

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


def _unit(vector: Vector) -> Vector:
    length = jnp.linalg.norm(vector)
    return vector / jnp.where(length > 0, length, 1.0)

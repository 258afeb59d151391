"""The largest eigenvalue, in modulus, of a linear map of which only products are known."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

MOST_PRODUCTS = 60
SQUARINGS = 12
SETTLED = 1e-3
"""Relative change of the estimate, twice in a row, at which it is taken to be known."""


class _Arnoldi(NamedTuple):
    basis: Float[Array, "product unknown"]
    """Orthonormal, zero where not yet used."""
    hessenberg: Float[Array, "product product"]
    products: Int[Array, ""]
    estimate: Float[Array, ""]
    change: Float[Array, ""]
    """Of the estimate, relative: the larger of the last two."""
    last_change: Float[Array, ""]


def spectral_radius(
    linear: Callable[[Float[Array, " unknown"]], Float[Array, " unknown"]],
    size: int,
    dtype: jnp.dtype,
    skip: Bool[Array, ""] | bool = False,
) -> Float[Array, ""]:
    """max |eigenvalue| of `linear`, to about a per cent, by Arnoldi's method; 0 if to `skip`.

    The start is random, the same in every call: one with a symmetry would never see the modes that break it.
    """
    room = min(MOST_PRODUCTS, size)
    start = jax.random.normal(jax.random.key(0), (size,), dtype)
    nothing = jnp.zeros((), dtype)
    begin = _Arnoldi(
        basis=jnp.zeros((room + 1, size), dtype).at[0].set(start / jnp.linalg.norm(start)),
        hessenberg=jnp.zeros((room, room), dtype),
        products=jnp.where(skip, room, 0),
        estimate=nothing,
        change=jnp.full_like(nothing, jnp.inf),
        last_change=jnp.full_like(nothing, jnp.inf),
    )

    def unfinished(state: _Arnoldi) -> Bool[Array, ""]:
        return (state.products < room) & (jnp.maximum(state.change, state.last_change) > SETTLED)

    def advance(state: _Arnoldi) -> _Arnoldi:
        at = state.products
        image = linear(state.basis[at])
        overlap = jnp.zeros(room + 1, dtype)
        for _ in range(2):  # once is not orthogonal enough
            part = state.basis @ image
            image, overlap = image - part @ state.basis, overlap + part
        length = jnp.linalg.norm(image)
        # the image lies in the span of the basis, to rounding: there is nothing more to find
        complete = length <= 100 * jnp.finfo(dtype).eps * jnp.linalg.norm(overlap)
        hessenberg = state.hessenberg.at[:, at].set(overlap[:-1])
        hessenberg = hessenberg.at[at + 1, at].set(jnp.where(complete, 0.0, length), mode="drop")
        estimate = _spectral_radius_of_matrix(hessenberg)
        change = jnp.abs(estimate - state.estimate) / jnp.maximum(estimate, jnp.finfo(dtype).tiny)
        return _Arnoldi(
            basis=state.basis.at[at + 1].set(image / jnp.where(complete, 1.0, length)),
            hessenberg=hessenberg,
            products=jnp.where(complete, room, at + 1),
            estimate=estimate,
            change=change,
            last_change=state.change,
        )

    return jax.lax.while_loop(unfinished, advance, begin).estimate


def _spectral_radius_of_matrix(matrix: Float[Array, "n n"]) -> Float[Array, ""]:
    """By Gelfand's formula, |Aᵐ|^(1/m) with m a high power of two, which holds for complex eigenvalues as well."""

    def square(_: int, state: tuple[Array, Array]) -> tuple[Array, Array]:
        power, log_size = state
        power = power @ power
        size = jnp.linalg.norm(power)
        positive = size > 0
        return power / jnp.where(positive, size, 1.0), 2.0 * log_size + jnp.where(positive, jnp.log(size), -jnp.inf)

    size = jnp.linalg.norm(matrix)
    unit = matrix / jnp.where(size > 0, size, 1.0)
    _, log_size = jax.lax.fori_loop(0, SQUARINGS, square, (unit, jnp.where(size > 0, jnp.log(size), -jnp.inf)))
    return jnp.exp(log_size / 2.0**SQUARINGS)

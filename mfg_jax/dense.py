"""Dense linear algebra of small matrices, without LAPACK.

LAPACK's batched kernels in jaxlib 0.10 hand parts of a batch to the threads they run on and wait for them: where as many kernels
run at once as there are threads, none of them ever ends. A program of several solvers under `jax.vmap` is one.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int


class _Elimination(NamedTuple):
    rows: Float[Array, "row column"]
    """Of the matrix, with any right sides in further columns; the identity as far as eliminated."""
    sign: Float[Array, ""]


def solve(matrix: Float[Array, "n n"], right_side: Float[Array, " n"]) -> Float[Array, " n"]:
    """Solves matrix @ x = right_side; not finite where the matrix is singular."""
    return _eliminate(jnp.concatenate([matrix, right_side[:, None]], axis=1)).rows[:, -1]


def sign_of_determinant(matrix: Float[Array, "n n"]) -> Float[Array, ""]:
    """1, −1, or 0 where the matrix is singular; NaN where it is not finite."""
    return _eliminate(matrix).sign


def _eliminate(rows: Float[Array, "row column"]) -> _Elimination:
    """By Gauss and Jordan, each pivot the largest of its column."""
    index = jnp.arange(len(rows))

    def step(column: Int[Array, ""], state: _Elimination) -> _Elimination:
        size = jnp.where(index >= column, jnp.abs(state.rows[:, column]), -1.0)
        largest = jnp.argmax(size)
        row, displaced = state.rows[largest], state.rows[column]
        pivot = row[column]
        scaled = row / pivot
        rows = state.rows.at[largest].set(displaced)
        rows = (rows - rows[:, column, None] * scaled).at[column].set(scaled)
        swap = jnp.where(largest == column, 1.0, -1.0)
        # a singular matrix leaves rows of NaN behind, of which nothing more is to be learnt
        sign = jnp.where(state.sign == 0, 0.0, state.sign * swap * jnp.sign(pivot))
        return _Elimination(rows, sign.astype(rows.dtype))

    return jax.lax.fori_loop(0, len(rows), step, _Elimination(rows, jnp.ones((), rows.dtype)))

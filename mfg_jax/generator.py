"""Time averages under a controlled generator Q, at a cost that does not depend on how high the fill rates are.

With Q constant over a time h, φ(hQ)v = (1/h) ∫ exp(sQ)v ds over 0 … h carries a value backward, and φ(hQᵀ)ρ a density forward. The
eigenvalues of a birth-death generator are real and not positive, and on that half-axis exp is a sum of a few simple fractions,
α/(z − θ), to rounding: the Chebyshev rational approximation of order 16 (Pusa, Nucl. Sci. Eng. 169, 2011, and 182, 2016). Each
fraction is one tridiagonal solve, and all are done side by side.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Complex, Float

from mfg_jax.lattice import Edges, States, leaving

# Of each conjugate pair the pole above the real axis.
POLES = np.array(
    [
        -10.843917078696988026 + 19.277446167181652284j,
        -5.2649713434426468895 + 16.220221473167927305j,
        5.9481522689511774808 + 3.5874573620183222829j,
        3.5091036084149180974 + 8.4361989858843750826j,
        6.4161776990994341923 + 1.1941223933701386874j,
        1.4193758971856659786 + 10.925363484496722585j,
        4.9931747377179963991 + 5.9968817136039422260j,
        -1.4139284624888862114 + 13.497725698892745389j,
    ]
)
RESIDUES = np.array(
    [
        -0.0000005090152186522491565 - 0.00002422001765285228797j,
        0.00021151742182466030907 + 0.0043892969647380673918j,
        113.39775178483930527 + 101.9472170421585645j,
        15.059585270023467528 - 5.7514052776421819979j,
        -64.500878025539646595 - 224.59440762652096056j,
        -1.4793007113557999718 + 1.7686588323782937906j,
        -62.518392463207918892 - 11.19039109428322848j,
        0.041023136835410021273 - 0.15743466173455468191j,
    ]
)


Poles = Complex[Array, "x pole *batch"]


def average_value(rates: Edges, duration: Float[Array, ""], value: States) -> States:
    """The average of exp(sQ)·value over 0 ≤ s ≤ duration: what makers who start at each inventory and trade at these rates
    expect on average of a payoff `value` at the inventory they are at."""
    ask, bid = duration * rates
    nothing = jnp.zeros_like(ask[:1])
    return _phi(jnp.concatenate([nothing, ask]), -duration * leaving(rates), jnp.concatenate([bid, nothing]), value)


def average_density(rates: Edges, duration: Float[Array, ""], density: States) -> States:
    """The average of exp(sQᵀ)·density over 0 ≤ s ≤ duration: where makers who trade at these rates spend their time."""
    ask, bid = duration * rates
    nothing = jnp.zeros_like(ask[:1])
    return _phi(jnp.concatenate([nothing, bid]), -duration * leaving(rates), jnp.concatenate([ask, nothing]), density)


def _phi(lower: States, diagonal: States, upper: States, vector: States) -> States:
    """φ(T)·vector, φ(z) = (eᶻ − 1)/z, of the tridiagonal T whose row x is lower[x], diagonal[x], upper[x].

    From eᶻ = c + 2 Re Σ α/(z − θ) follows φ(z) = 2 Re Σ (α/θ)/(z − θ).
    """
    dtype = np.result_type(vector.dtype, np.complex64)
    poles, weights = jnp.asarray(POLES, dtype), jnp.asarray(2.0 * RESIDUES / POLES, dtype)
    lower, diagonal, upper, vector = (band.astype(dtype) for band in (lower, diagonal, upper, vector))
    shifted = diagonal[:, None] - poles.reshape((-1,) + (1,) * (vector.ndim - 1))
    every_pole = jnp.broadcast_to(vector[:, None], shifted.shape)

    def matvec(y: Poles) -> Poles:
        below, above = jnp.zeros_like(y[:1]), jnp.zeros_like(y[:1])
        from_lower = lower[:, None] * jnp.concatenate([below, y[:-1]])
        from_upper = upper[:, None] * jnp.concatenate([y[1:], above])
        return from_lower + shifted * y + from_upper

    def solve(_: object, b: Poles) -> Poles:
        return _eliminate(lower, shifted, upper, b)

    def solve_transposed(_: object, b: Poles) -> Poles:
        nothing = jnp.zeros_like(lower[:1])
        shifted_up, shifted_down = jnp.concatenate([nothing, upper[:-1]]), jnp.concatenate([lower[1:], nothing])
        return _eliminate(shifted_up, shifted, shifted_down, b)

    return jnp.tensordot(weights, jax.lax.custom_linear_solve(matvec, every_pole, solve, solve_transposed), (0, 1)).real


def _eliminate(lower: Complex[Array, "x *batch"], diagonal: Poles, upper: Complex[Array, "x *batch"], b: Poles) -> Poles:
    """Gaussian elimination of tridiagonal systems, one for each pole. No pivot vanishes: poles are not real, eigenvalues are."""

    def down(above: tuple[Array, Array], row: tuple[Array, Array, Array, Array]) -> tuple[tuple[Array, Array], tuple[Array, Array]]:
        factor, solution = above
        low, middle, up, right = row
        pivot = middle - low * factor
        size = pivot.real**2 + pivot.imag**2
        inverse = jnp.conj(pivot) / size.astype(pivot.dtype)  # the general division guards against overflow, slowly
        row_solved = (up * inverse, (right - low * solution) * inverse)
        return row_solved, row_solved

    def back(below: Array, row: tuple[Array, Array]) -> tuple[Array, Array]:
        factor, solution = row
        found = solution - factor * below
        return found, found

    start = jnp.zeros_like(b[0])
    _, rows = jax.lax.scan(down, (start, start), (lower, diagonal, upper, b))
    return jax.lax.scan(back, start, rows, reverse=True)[1]

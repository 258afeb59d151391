"""exp of exponents that are known to be moderate, in a third of the time that XLA takes on a CPU.

XLA's own divides polynomials, and does so for each exponent. This one is the usual reduction to |r| ≤ log(2)/2, a Taylor polynomial
and a power of two put together from its bits: products and sums only. It comes in a branch of its own because JAX 0.10 would
otherwise compute it once for each of its uses, as it computes what looks cheap.
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

MODERATE = 500.0
"""Far below what makes a double overflow, 709, as the trials of an iteration may stray from the quote bounds; the few that stray so
far are seen as at `_LARGEST`, hopeless all the same."""
_LARGEST = 708.0

_LOG_2, _REST_OF_LOG_2 = 0.693147180369123816490, 1.90821492927058770002e-10
"""Their sum is log 2 to twice the digits of one; the first has bits to spare for a product with a whole number."""
_TAYLOR = tuple(1.0 / math.factorial(n) for n in range(14))
_WHOLE_NUMBERS_IN_LOW_BITS = 1.5 * 2.0**52
_BIAS, _FRACTION_BITS = 1023, 52


@jax.custom_jvp
def exp(exponent: Float[Array, "side edge *batch"], at_most: Float[Array, ""]) -> Float[Array, "side edge *batch"]:
    """exp(exponent), to two units in the last place. `at_most`: how large the exponents are that matter, in size.

    A batch takes XLA's, as a branch for all of its games would have the bits of one depend on the others.
    """
    if exponent.ndim > 2 or exponent.dtype != jnp.float64:
        return jnp.exp(exponent)
    return jax.lax.cond(at_most <= MODERATE, _exp_by_parts, jnp.exp, exponent)


@exp.defjvp
def _derivative(primals: tuple[Array, Array], tangents: tuple[Array, Array]) -> tuple[Array, Array]:
    found = exp(*primals)
    return found, found * tangents[0]


def _exp_by_parts(exponent: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """2ⁿ·exp(r) with a whole n and |r| ≤ log(2)/2."""
    exponent = jnp.clip(exponent, -_LARGEST, _LARGEST)
    n = jnp.round(exponent * (1.0 / math.log(2.0)))
    r = (exponent - n * _LOG_2) - n * _REST_OF_LOG_2
    exp_r = jnp.full_like(r, _TAYLOR[-1])
    for coefficient in reversed(_TAYLOR[:-1]):
        exp_r = exp_r * r + coefficient
    bits = jax.lax.bitcast_convert_type(n + (_WHOLE_NUMBERS_IN_LOW_BITS + _BIAS), jnp.int64)
    return exp_r * jax.lax.bitcast_convert_type(bits << _FRACTION_BITS, jnp.float64)

"""The Wright omega function of a real argument: the u > 0 with u + ln u = c."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


@jax.custom_jvp
def wright_omega(c: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """Solves u + ln u = c to rounding for every finite c; du/dc = u/(1 + u).

    A starting guess with the right asymptotics, then two steps of the fourth-order iteration of Fritsch, Shafer and Crowley
    (Commun. ACM 16, 1973, algorithm 443). Below c = −40, exp(c) is exact to rounding.
    """
    exponential = jnp.exp(jnp.minimum(c, 1.0))
    large = jnp.maximum(c, 1.0)
    tiny = c < -40.0
    u = jnp.where(c > 1.0, large - jnp.log(large), jnp.where(tiny, 1.0, exponential) / (1.0 + exponential))
    for _ in range(2):
        r = c - u - jnp.log(u)
        q = 2.0 * (1.0 + u) * (1.0 + u + 2.0 / 3.0 * r)
        u = u * (1.0 + r / (1.0 + u) * (q - r) / (q - 2.0 * r))
    return jnp.where(tiny, exponential, u)


@wright_omega.defjvp
def _wright_omega_jvp(primals, tangents):
    (c,), (c_dot,) = primals, tangents
    u = wright_omega(c)
    return u, u / (1.0 + u) * c_dot

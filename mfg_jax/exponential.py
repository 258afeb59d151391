"""A scheme for stiff games: products of exponentials of generators, fourth order where the solution is smooth.

Over a short time makers play policies whose generators are positive combinations of generators met within it. So the value of
every step is that of a policy they could have played, and the density moves by a matrix of probabilities: both steps are stable
however high the fill rates are, mass is conserved and no density falls below 0, to rounding.

With two generators a product of two exponentials, the commutator-free Magnus method, is of order four (Blanes and Moan, Appl.
Numer. Math. 56, 2006). Its combinations have one negative coefficient, which matters where a rate changes more than thirteenfold
within a step; there the combination is drawn towards the mean just so far that no rate is negative, and the order falls to two.
"""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jax.tree_util import register_static
from jaxtyping import Array, Bool, Float

from mfg_jax.generator import average_density, average_value
from mfg_jax.grid import linear_interpolation, monotone_interpolation
from mfg_jax.lattice import Edges, States, leaving, transport
from mfg_jax.scheme import Controls, Interpolate, Scheme, StageRates, gains

GAUSS = (0.5 - 3**0.5 / 6, 0.5 + 3**0.5 / 6)
"""Where a half step looks, backwards from its end: the policies at these two moments determine its value to order four."""


class _Stable(Scheme):
    """Steps of exponentials, which no fill rate makes unstable."""

    def unstable(self, most: Edges) -> Bool[Array, "*batch"]:
        return jnp.zeros(most.shape[2:], bool)


@register_static
@dataclass(frozen=True)
class Exponential(_Stable):
    """Two half steps backward, each with policies at its end and at two inner moments; one step forward with the policies at
    its ends and its middle."""

    nodes: tuple[float, ...] = (0.0, 0.5 * GAUSS[0], 0.5 * GAUSS[1], 0.5, 0.5 + 0.5 * GAUSS[0], 0.5 + 0.5 * GAUSS[1], 1.0)
    interpolate: Interpolate = monotone_interpolation

    def backward_step(
        self,
        controls: Controls,
        running_cost: States,
        value: States,
        crowd: Float[Array, "stage side *batch"],
        dt: Float[Array, "*batch"],
    ) -> tuple[States, StageRates]:
        def half_step(value: States, crowd: Float[Array, "moment side *batch"]) -> tuple[States, Edges]:
            return _half_step(controls, running_cost, value, crowd, 0.5 * dt)

        earlier, rates = jax.lax.scan(half_step, value, jnp.stack([crowd[:3], crowd[3:6]]))
        return earlier, jnp.concatenate([rates, controls(earlier, crowd[6])[1][None]])

    def forward_step(self, rates: StageRates, density: States, dt: Float[Array, "*batch"]) -> States:
        later, middle, earlier = rates
        mean = (earlier + 4.0 * middle + later) / 12.0
        tilt = jnp.clip((later - earlier) / 6.0, -mean, mean)

        def exponential(density: States, rates: Edges) -> tuple[States, None]:
            return density + dt * transport(rates, average_density(rates, dt, density)), None

        return jax.lax.scan(exponential, density, jnp.stack([mean - tilt, mean + tilt]))[0]


@register_static
@dataclass(frozen=True)
class ExponentialRosenbrock(_Stable):
    """One exponential a step in either direction, of order two: the cheapest scheme for stiff games.

    Backward by the policy that is best for the value at the step's end and the crowd at its middle; as its generator is the exact
    Jacobian, that is the exponential Rosenbrock–Euler method (Hochbruck and Ostermann, Acta Numer. 19, 2010). Forward by the mean
    of the rates at both ends.
    """

    nodes: tuple[float, ...] = (0.5,)
    interpolate: Interpolate = linear_interpolation

    def backward_step(
        self,
        controls: Controls,
        running_cost: States,
        value: States,
        crowd: Float[Array, "stage side *batch"],
        dt: Float[Array, "*batch"],
    ) -> tuple[States, StageRates]:
        quotes, rates = controls(value, crowd[0])
        slope = leaving(gains(quotes, rates, value)) - running_cost
        earlier = value + dt * average_value(rates, dt, slope)
        return earlier, 0.5 * (rates + controls(earlier, crowd[0])[1])[None]

    def forward_step(self, rates: StageRates, density: States, dt: Float[Array, "*batch"]) -> States:
        return density + dt * transport(rates[0], average_density(rates[0], dt, density))


def _half_step(
    controls: Controls,
    running_cost: States,
    value: States,
    crowd: Float[Array, "moment side *batch"],
    duration: Float[Array, "*batch"],
) -> tuple[States, Edges]:
    """The value `duration` earlier, and the rates now."""
    quotes, rates = controls(value, crowd[0])
    slope = leaving(gains(quotes, rates, value)) - running_cost

    def at(moment: Array, crowd: Float[Array, "side *batch"]) -> tuple[Edges, Edges]:
        """Best replies to the value of playing on as now: they err by h², which costs the value h⁴ only, as they are the best."""
        elapsed = moment * duration
        return controls(value + elapsed * average_value(rates, elapsed, slope), crowd)

    inner_quotes, inner_rates = jax.vmap(at)(jnp.asarray(GAUSS, value.dtype), crowd[1:])
    weight = _tilt(inner_rates)

    def exponential(value: States, sign: Array) -> tuple[States, None]:
        weights = 0.25 + jnp.stack([-sign * weight, sign * weight])
        mixed = (weights * inner_rates).sum(axis=0)
        gain = (weights * jax.vmap(gains, (0, 0, None))(inner_quotes, inner_rates, value)).sum(axis=0)
        slope = leaving(gain) - 0.5 * running_cost
        return value + duration * average_value(mixed, duration, slope), None

    return jax.lax.scan(exponential, value, jnp.asarray([-1.0, 1.0], value.dtype))[0], rates


def _tilt(rates: Float[Array, "moment side edge *batch"]) -> Edges:
    """How far the two exponentials lean towards one of two generators: √3/6, or less where a rate would be negative."""
    change, total = jnp.abs(rates[1] - rates[0]), rates[0] + rates[1]
    limited = 2.0 * 3**0.5 * change > 3.0 * total
    return jnp.where(limited, 0.25 * total / jnp.where(limited, change, 1.0), 3**0.5 / 6.0)

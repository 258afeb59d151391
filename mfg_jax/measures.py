"""What is read off a solved game (MODEL.md, section 7)."""

from __future__ import annotations

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from mfg_jax.game import Game, lay_out
from mfg_jax.grid import quadrature_weights
from mfg_jax.hjb import fill_rates
from mfg_jax.lattice import per_inventory
from mfg_jax.model import Model
from mfg_jax.parameters import Parameters, as_scalars
from mfg_jax.solution import Equilibrium
from mfg_jax.whole import is_whole


class Metrics(eqx.Module):
    """Paths over time, and scalars. Offsets and values in price units, inventories in lots, rates per unit of time."""

    full_spread: Float[Array, " time"]
    inventory_mean: Float[Array, " time"]
    inventory_variance: Float[Array, " time"]
    derisk_probability: Float[Array, " time"]
    """P(|X| ≤ derisk_band)."""
    marginal_value: Float[Array, " time"]
    """(V(t, 1) − V(t, −1))/2."""
    flat_to_long_cost: Float[Array, " time"]
    """V(t, 0) − V(t, 1)."""
    flat_to_short_cost: Float[Array, " time"]
    """V(t, 0) − V(t, −1)."""
    fill_rate_ask: Float[Array, " time"]
    """Mean over all makers."""
    fill_rate_bid: Float[Array, " time"]
    value_flat: Float[Array, " time"]
    """V(t, 0)."""
    mean_spread: Float[Array, ""]
    """Time average of full_spread."""
    closing_spread: Float[Array, ""]
    peak_variance: Float[Array, ""]
    """Largest inventory_variance, and its time, between the stored times too."""
    peak_time: Float[Array, ""]
    final_derisk_probability: Float[Array, ""]
    expected_fills: Float[Array, ""]
    """Of one maker over the horizon, both sides."""
    half_life: Float[Array, ""]
    """First time at which |inventory_mean| is half its start; NaN when it starts at 0 or never is."""
    expected_value: Float[Array, ""]
    """Σ ρ0·V(0, ·) = expected_edge − expected_running_cost − expected_terminal_cost."""
    expected_edge: Float[Array, ""]
    expected_running_cost: Float[Array, ""]
    expected_terminal_cost: Float[Array, ""]


def metrics(model: Model, parameters: Parameters, equilibrium: Equilibrium, derisk_band: int = 1) -> Metrics:
    """The metrics of a solved game, differentiable through the equilibrium.

    The edge, the running and the terminal cost come from the density and the quotes alone, the expected value from the value
    function alone; that they agree is a check of the whole solution.

    Args:
        model, parameters: as given to `solve`.
        equilibrium: what `solve` returned.
        derisk_band: largest |inventory| that counts as flat, lots; |x| < ε is derisk_band = ⌈ε⌉ − 1.

    Raises:
        ValueError: a derisk_band that is negative or no whole number.
    """
    if not is_whole(derisk_band, 0):
        raise ValueError(f"derisk_band must be a whole number of lots >= 0; found {derisk_band!r}")
    return _metrics(model, as_scalars(parameters), equilibrium, derisk_band)


@eqx.filter_jit
def _metrics(model: Model, parameters: Parameters, equilibrium: Equilibrium, derisk_band: int) -> Metrics:
    game = lay_out(model.stiff_model, parameters)  # of which no steps are taken here
    x, time, density, value = equilibrium.inventory, equilibrium.time, equilibrium.density, equilibrium.value
    flat = model.x_max
    weights = jnp.asarray(quadrature_weights(model.time_fractions), time.dtype)

    def integral(path: Float[Array, " time"]) -> Float[Array, ""]:
        return parameters.horizon * (weights * path).sum()

    mean = density @ x
    variance = ((x - mean[:, None]) ** 2 * density).sum(axis=1)
    derisked = jnp.where(jnp.abs(x) <= derisk_band, density, 0.0).sum(axis=1)
    rates = _fill_rates(model, game, equilibrium)
    fills = (rates * density[:, None]).sum(axis=2)
    quotes = jnp.stack([equilibrium.ask, equilibrium.bid], axis=1)
    edge = jnp.where(jnp.isinf(quotes), 0.0, rates * jnp.where(jnp.isinf(quotes), 0.0, quotes))
    full_spread = equilibrium.crowd_ask + equilibrium.crowd_bid
    peak_time, peak_variance = _peak(time, variance)
    return Metrics(
        full_spread=full_spread,
        inventory_mean=mean,
        inventory_variance=variance,
        derisk_probability=derisked,
        marginal_value=0.5 * (value[:, flat + 1] - value[:, flat - 1]),
        flat_to_long_cost=value[:, flat] - value[:, flat + 1],
        flat_to_short_cost=value[:, flat] - value[:, flat - 1],
        fill_rate_ask=fills[:, 0],
        fill_rate_bid=fills[:, 1],
        value_flat=value[:, flat],
        mean_spread=equilibrium.mean_crowd.sum(),
        closing_spread=full_spread[-1],
        peak_variance=peak_variance,
        peak_time=peak_time,
        final_derisk_probability=derisked[-1],
        expected_fills=integral(fills.sum(axis=1)),
        half_life=_half_life(time, mean),
        expected_value=density[0] @ value[0],
        expected_edge=integral((edge.sum(axis=1) * density).sum(axis=1)),
        expected_running_cost=integral(density @ game.running_cost),
        expected_terminal_cost=-density[-1] @ game.terminal_value,
    )


def _fill_rates(model: Model, game: Game, equilibrium: Equilibrium) -> Float[Array, "time side x"]:
    """The rates of the stored quotes; 0 where a side is not quoted."""
    quotes = jnp.stack([equilibrium.ask[:, 1:], equilibrium.bid[:, :-1]], axis=1)
    crowd = jnp.stack([equilibrium.crowd_ask, equilibrium.crowd_bid], axis=1)
    quoted = jnp.where(model.quoting, quotes, 0.0)
    rates = jax.vmap(lambda q, c: fill_rates(model, game, q, c))(quoted, crowd)
    return jax.vmap(lambda r: per_inventory(r, 0.0))(rates)


def _peak(time: Float[Array, " time"], path: Float[Array, " time"]) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """Time and height of the maximum: of the parabola through the largest stored value and its two neighbours, or at an end."""
    if time.size < 3:
        largest = jnp.argmax(path)
        return time[largest], path[largest]
    largest = jnp.argmax(path)
    middle = jnp.clip(largest, 1, time.size - 2)
    left, right = time[middle] - time[middle - 1], time[middle + 1] - time[middle]
    slope_left = (path[middle] - path[middle - 1]) / left
    slope_right = (path[middle + 1] - path[middle]) / right
    bend = (slope_right - slope_left) / (left + right)
    slope = (slope_left * right + slope_right * left) / (left + right)
    inside = (largest == middle) & (bend < 0)
    shift = jnp.where(inside, -slope / (2.0 * jnp.where(inside, bend, -1.0)), time[largest] - time[middle])
    height = jnp.where(inside, path[middle] + 0.5 * slope * shift, path[largest])
    return time[middle] + shift, height


def _half_life(time: Float[Array, " time"], mean: Float[Array, " time"]) -> Float[Array, ""]:
    """When |mean| first falls to half its start, linear between times. A start within rounding of 0 counts as 0."""
    excess = jnp.abs(mean) - 0.5 * jnp.abs(mean[0])
    reached: Bool[Array, " time"] = excess <= 0
    after = jnp.argmax(reached)
    before = jnp.maximum(after - 1, 0)
    drop = jnp.where(after > 0, excess[before] - excess[after], 1.0)
    crossing = time[before] + (time[after] - time[before]) * excess[before] / drop
    starts_skewed = jnp.abs(mean[0]) > 1e3 * jnp.finfo(mean.dtype).eps
    return jnp.where(starts_skewed & jnp.any(reached), crossing, jnp.nan)

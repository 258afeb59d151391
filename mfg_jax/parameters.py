"""The numbers of one game."""

from __future__ import annotations

import dataclasses
import numbers
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

Scalar = float | Float[Array, ""]


def _as_float(value: Any) -> Any:
    """Whole numbers become floats, so that every field can be differentiated; anything else is left to the check."""
    return float(value) if isinstance(value, numbers.Integral) and not isinstance(value, bool) else value


class Parameters(eqx.Module):
    """The numbers of one game: a pytree of scalars that `jax.vmap` and `jax.grad` go through (MODEL.md, sections 1, 2, 4).

    Values that no game can have (a negative A, say) are not refused here: they end as `Status.INVALID_PARAMETERS`, because
    one bad game must not cost its neighbours in a batch their results.

    Raises:
        ValueError: a field that is no number, or A (or k) given neither for both sides together nor for each of them.
    """

    A: Scalar | None = eqx.field(converter=_as_float)
    """Fill rate of a quote at the mid price (at the crowd's quote, where competition is relative), per unit of time."""
    k: Scalar | None = eqx.field(converter=_as_float)
    """Decay of the fill rate with the offset, per unit of price."""
    eta: Scalar = eqx.field(converter=_as_float)
    """Running inventory penalty, price per lot² and unit of time: ½·(risk aversion)·σ²."""
    gamma: Scalar = eqx.field(converter=_as_float)
    """Terminal inventory penalty, price per lot²."""
    k0: Scalar = eqx.field(default=0.0, converter=_as_float)
    """Decay of the total flow with the crowd's offset, per unit of price; used by `elastic` and `market_share`."""
    n_makers: Scalar = eqx.field(default=5.0, converter=_as_float)
    """Makers who share the flow, more than 1; used by `market_share`."""
    crowd_mean: Scalar = eqx.field(default=0.0, converter=_as_float)
    """Mean inventory of the initial crowd before truncation to the lattice, lots."""
    crowd_std: Scalar = eqx.field(default=2.0, converter=_as_float)
    """Its standard deviation, lots."""
    horizon: Scalar = eqx.field(default=1.0, converter=_as_float)
    """Length of the trading day, in units of time."""
    quote_min: Scalar = eqx.field(default=0.0, converter=_as_float)
    """Smallest offset a maker may quote, price units; -inf for none."""
    quote_max: Scalar | None = eqx.field(default=None, converter=_as_float)
    """Largest offset, price units; inf for none; None is 10/k of the side."""
    A_ask: Scalar | None = eqx.field(default=None, converter=_as_float)
    A_bid: Scalar | None = eqx.field(default=None, converter=_as_float)
    k_ask: Scalar | None = eqx.field(default=None, converter=_as_float)
    k_bid: Scalar | None = eqx.field(default=None, converter=_as_float)

    def __check_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            optional = field.name in {"A", "k", "quote_max", "A_ask", "A_bid", "k_ask", "k_bid"}
            number = isinstance(value, float | jax.Array | np.ndarray | np.generic) and not isinstance(value, np.bool_)
            if not number and not (optional and value is None):
                raise ValueError(f"Parameters.{field.name} must be a number; found {value!r}")
        for name in ("A", "k"):
            sides = (getattr(self, f"{name}_ask"), getattr(self, f"{name}_bid"))
            if getattr(self, name) is None and any(side is None for side in sides):
                raise ValueError(f"give Parameters.{name}, or both {name}_ask and {name}_bid")


class Flow(NamedTuple):
    """The order flow and the quotes allowed, per side: what a coupling needs. Side 0 is the ask, side 1 the bid.

    Fields broadcast against arrays of shape [side, edge, ...].
    """

    A: Float[Array, "side 1"]
    k: Float[Array, "side 1"]
    quote_max: Float[Array, "side 1"]
    quote_min: Float[Array, ""]
    k0: Float[Array, ""]
    n_makers: Float[Array, ""]

    def bounded(self, quote: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        """The allowed offset next to this one. Exactly on a bound, derivatives are those from within."""
        return jnp.where(quote < self.quote_min, self.quote_min, jnp.where(quote > self.quote_max, self.quote_max, quote))


def common_dtype(parameters: Parameters) -> Any:
    """The floating type the game is solved in: the widest among the given arrays; plain Python floats follow JAX's default."""
    with jax.numpy_dtype_promotion("standard"):
        dtype = jnp.result_type(*jax.tree.leaves(parameters))
    return dtype if jnp.issubdtype(dtype, jnp.floating) else jnp.result_type(float)


def as_scalars(parameters: Parameters) -> Parameters:
    """Every field as a scalar array of one floating type.

    Raises:
        ValueError: a field is an array of games; the message says to use `jax.vmap`.
    """
    for field in dataclasses.fields(parameters):
        shape = np.shape(getattr(parameters, field.name)) if getattr(parameters, field.name) is not None else ()
        if shape != ():
            raise ValueError(
                f"Parameters.{field.name} has shape {shape}, but solve takes one game: "
                "use jax.vmap(lambda p: mfg_jax.solve(model, p))(parameters) with every field given per game"
            )
    dtype = common_dtype(parameters)
    return jax.tree.map(lambda leaf: jnp.asarray(leaf, dtype), parameters)


def order_flow(parameters: Parameters) -> Flow:
    """The flow of both sides, with the one-sided overrides and the default cap 10/k in place."""

    def sides(name: str) -> Float[Array, "side 1"]:
        common = getattr(parameters, name)
        overrides = (getattr(parameters, f"{name}_ask"), getattr(parameters, f"{name}_bid"))
        return jnp.stack([common if own is None else own for own in overrides])[:, None]

    k = sides("k")
    quote_max = 10.0 / k if parameters.quote_max is None else jnp.broadcast_to(parameters.quote_max, k.shape)
    return Flow(sides("A"), k, quote_max, *map(jnp.asarray, (parameters.quote_min, parameters.k0, parameters.n_makers)))

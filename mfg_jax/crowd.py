"""The crowd: how it starts, and its average quote (MODEL.md, section 4)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import register_static
from jaxtyping import Array, Bool, Float

from mfg_jax.lattice import Edges, States
from mfg_jax.parameters import Parameters


class InitialCrowd(ABC):
    """The distribution of inventories at time 0."""

    @abstractmethod
    def density(self, inventory: Float[Array, " x"], parameters: Parameters) -> Float[Array, " x"]:
        """The fraction of makers at each inventory; it sums to 1."""

    def valid(self, inventory: Float[Array, " x"], parameters: Parameters) -> Bool[Array, ""]:
        """Whether the parameters that this distribution uses are ones it can have."""
        del inventory, parameters
        return jnp.asarray(True)


@register_static
@dataclass(frozen=True)
class Normal(InitialCrowd):
    """∝ exp(−(x − crowd_mean)²/(2 crowd_std²)) on the lattice points, normalised there."""

    def density(self, inventory: Float[Array, " x"], parameters: Parameters) -> Float[Array, " x"]:
        # softmax shifts by the largest exponent: a narrow crowd between or beyond the lattice points does not underflow to 0/0
        return jax.nn.softmax(-0.5 * ((inventory - parameters.crowd_mean) / parameters.crowd_std) ** 2)

    def valid(self, inventory: Float[Array, " x"], parameters: Parameters) -> Bool[Array, ""]:
        del inventory
        mean, std = jnp.asarray(parameters.crowd_mean), jnp.asarray(parameters.crowd_std)
        return jnp.isfinite(mean) & jnp.isfinite(std) & (std > 0)


@register_static
@dataclass(frozen=True)
class Point(InitialCrowd):
    """Every maker holds crowd_mean lots, a lattice point."""

    def density(self, inventory: Float[Array, " x"], parameters: Parameters) -> Float[Array, " x"]:
        return (inventory == parameters.crowd_mean).astype(inventory.dtype)

    def valid(self, inventory: Float[Array, " x"], parameters: Parameters) -> Bool[Array, ""]:
        return jnp.any(inventory == parameters.crowd_mean)


@register_static
@dataclass(frozen=True)
class Uniform(InitialCrowd):
    """The same fraction of makers at every inventory."""

    def density(self, inventory: Float[Array, " x"], parameters: Parameters) -> Float[Array, " x"]:
        del parameters
        return jnp.full_like(inventory, 1.0 / inventory.size)


@register_static
@dataclass(frozen=True)
class Weights(InitialCrowd):
    """In proportion to given weights, one for each inventory from −x_max to x_max.

    Raises:
        ValueError: a weight that is negative or not finite, or weights that sum to 0.
    """

    weights: tuple[float, ...]

    def __post_init__(self) -> None:
        given = np.asarray(self.weights, dtype=float)
        if given.ndim != 1 or not np.isfinite(given).all() or (given < 0).any() or not given.sum() > 0:
            raise ValueError(f"crowd weights must be finite, not negative, and sum to more than 0; found {self.weights!r}")
        object.__setattr__(self, "weights", tuple(given.tolist()))

    def density(self, inventory: Float[Array, " x"], parameters: Parameters) -> Float[Array, " x"]:
        del parameters
        return jnp.asarray(np.asarray(self.weights) / np.sum(self.weights), inventory.dtype)


INITIAL_CROWDS: dict[str, InitialCrowd] = {"normal": Normal(), "point": Point(), "uniform": Uniform()}


def crowd_average(quotes: Edges, density: States, quoting: Bool[np.ndarray, "side edge"]) -> Float[Array, "side *batch"]:
    """The average offset over the makers who quote each side, price units (MODEL.md, section 4).

    Where nobody quotes a side, the limit as makers start to: the quote at the quoting inventory next to the crowd.
    """
    # products with vectors of 0 and 1: XLA is slow to sum; slices rather than lists of places, whose derivatives are slow
    ask_counts, bid_counts = quoting.astype(density.dtype)
    ask, bid = density[1:], density[:-1]
    makers = jnp.stack([ask_counts @ ask, bid_counts @ bid])
    offsets = jnp.stack([ask_counts @ (ask * quotes[0]), bid_counts @ (bid * quotes[1])])
    nobody = makers == 0
    low, high = density[0], density[-1]
    next_to_low, next_to_high = jnp.stack([quotes[0, 0], quotes[1, 1]]), jnp.stack([quotes[0, -2], quotes[1, -1]])
    limit = (low * next_to_low + high * next_to_high) / jnp.where(nobody, low + high, 1.0)
    return jnp.where(nobody, limit, offsets / jnp.where(nobody, 1.0, makers))

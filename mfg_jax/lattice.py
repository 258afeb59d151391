"""The inventory lattice. An edge joins two neighbouring inventories: a bid fill crosses it upwards, an ask fill downwards.

Edge e joins x = e − x_max and x + 1. Quantities of a quote live on edges as [side, edge, ...] (side 0 the ask, quoted at the
upper end; side 1 the bid, quoted at the lower), so that every fill has its edge and no inventory carries a quote it lacks.
"""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

Edges = Float[Array, "side edge *batch"]
States = Float[Array, "x *batch"]


def inventories(x_max: int) -> Float[np.ndarray, " x"]:
    """−x_max … x_max, lots."""
    return np.arange(-x_max, x_max + 1, dtype=float)


def quoting_edges(x_max: int, boundary: str) -> Bool[np.ndarray, "side edge"]:
    """Which side is quoted across which edge (MODEL.md, section 1): all of them, save those out of an absorbing ±x_max."""
    quoting = np.ones((2, 2 * x_max), dtype=bool)
    if boundary == "absorbing":
        quoting[0, -1] = quoting[1, 0] = False
    return quoting


def along_edges(quoting: Bool[np.ndarray, "side edge"], like: Edges) -> Bool[np.ndarray, "side edge *#batch"]:
    """Shaped to go with arrays that may have batch axes behind the edges."""
    return quoting.reshape(quoting.shape + (1,) * (like.ndim - 2))


def jumps(value: States) -> Edges:
    """What a fill adds to the value, at the inventory it leaves: V(x−1) − V(x) for the ask, V(x+1) − V(x) for the bid."""
    upwards = value[1:] - value[:-1]
    return jnp.stack([-upwards, upwards])


def leaving(per_edge: Edges) -> States:
    """Sums what happens on edges over the inventory that the fill leaves."""
    ask, bid = per_edge[0], per_edge[1]
    nothing = jnp.zeros_like(ask[:1])
    return jnp.concatenate([nothing, ask]) + jnp.concatenate([bid, nothing])


def transport(rates: Edges, density: States) -> States:
    """Qᵀρ: the net flow of makers into each inventory. What leaves one end of an edge enters the other, so mass is conserved."""
    upwards = rates[1] * density[:-1] - rates[0] * density[1:]
    nothing = jnp.zeros_like(upwards[:1])
    return jnp.concatenate([nothing, upwards]) - jnp.concatenate([upwards, nothing])


def per_inventory(per_edge: Edges, unquoted: float) -> Float[Array, "side x *batch"]:
    """Values on edges placed at the inventory that quotes them; `unquoted` where there is no edge on that side."""
    gap = jnp.full_like(per_edge[0, :1], unquoted)
    return jnp.stack([jnp.concatenate([gap, per_edge[0]]), jnp.concatenate([per_edge[1], gap])])

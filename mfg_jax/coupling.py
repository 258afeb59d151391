"""How a fill rate depends on the own offset and on the crowd's (MODEL.md, sections 2 and 3).

A coupling is one class with two methods: `rate`, and `unbounded_quote`, which maximises rate·(quote + jump) without bounds.
Bounds and the Hamiltonian follow from those two. All arrays broadcast: [side, edge, ...] against `Flow`'s [side, 1].
"""

from __future__ import annotations

import itertools
from abc import ABC, abstractmethod
from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jax.tree_util import register_static
from jaxtyping import Array, Float

from mfg_jax.fast_exp import exp
from mfg_jax.parameters import Flow
from mfg_jax.wright_omega import wright_omega

Sided = Float[Array, "side #edge *batch"]


class Coupling(ABC):
    """The interaction between one maker and the crowd. Subclasses are frozen dataclasses registered as static pytrees."""

    uses_n_makers = False

    @abstractmethod
    def rate(self, quote: Sided, crowd: Sided, flow: Flow) -> Sided:
        """Fill rate λ(δ; δ̄) per unit of time; it must fall strictly in `quote`."""

    @abstractmethod
    def unbounded_quote(self, jump: Sided, crowd: Sided, flow: Flow) -> Sided:
        """The offset that maximises λ(δ; δ̄)(δ + jump) over all real δ."""

    def best_quote(self, jump: Sided, crowd: Sided, flow: Flow) -> Sided:
        """The best offset within the bounds: λ(δ)(δ + jump) has one maximum, so clipping the maximiser is exact."""
        return flow.bounded(self.unbounded_quote(jump, crowd, flow))

    def hamiltonian(self, jump: Sided, crowd: Sided, flow: Flow) -> Sided:
        """max over δ of λ(δ; δ̄)(δ + jump), price units per unit of time; ∂H/∂jump is the rate at the best quote."""
        quote = self.best_quote(jump, crowd, flow)
        return self.rate(quote, crowd, flow) * (quote + jump)


class _Exponential(Coupling):
    """Rates A·exp(exponent) that fall as exp(−kδ) whatever the crowd does share the classical best quote 1/k − jump."""

    @abstractmethod
    def exponent(self, quote: Sided, crowd: Sided, flow: Flow) -> Sided:
        """Linear in both offsets."""

    def rate(self, quote: Sided, crowd: Sided, flow: Flow) -> Sided:
        return flow.A * exp(self.exponent(quote, crowd, flow), self._largest_exponent(flow))

    def unbounded_quote(self, jump: Sided, crowd: Sided, flow: Flow) -> Sided:
        del crowd
        return 1.0 / flow.k - jump

    def _largest_exponent(self, flow: Flow) -> Array:
        """Of offsets within the bounds, in size."""
        corners = itertools.product((flow.quote_min, flow.quote_max), repeat=2)
        return jnp.max(jnp.stack([jnp.abs(self.exponent(quote, crowd, flow)) for quote, crowd in corners]))


@register_static
@dataclass(frozen=True)
class Relative(_Exponential):
    """A·exp(−k(δ − δ̄)): only the offset relative to the crowd counts."""

    def exponent(self, quote: Sided, crowd: Sided, flow: Flow) -> Sided:
        return -flow.k * (quote - crowd)


@register_static
@dataclass(frozen=True)
class Elastic(_Exponential):
    """A·exp(−k0·δ̄)·exp(−k(δ − δ̄)): relative competition for a flow that falls as the crowd widens."""

    def exponent(self, quote: Sided, crowd: Sided, flow: Flow) -> Sided:
        return -flow.k * (quote - crowd) - flow.k0 * crowd


@register_static
@dataclass(frozen=True)
class MarketShare(Coupling):
    """A·exp(−k0·δ̄)·e^(−kδ)/(e^(−kδ) + (N−1)e^(−kδ̄)): N makers share a flow."""

    uses_n_makers = True

    def rate(self, quote: Sided, crowd: Sided, flow: Flow) -> Sided:
        rivals = jnp.log(flow.n_makers - 1.0)
        return flow.A * jnp.exp(-flow.k0 * crowd) * jax.nn.sigmoid(-flow.k * (quote - crowd) - rivals)

    def unbounded_quote(self, jump: Sided, crowd: Sided, flow: Flow) -> Sided:
        rivals = jnp.log(flow.n_makers - 1.0)
        return (1.0 + wright_omega(flow.k * (jump + crowd) - 1.0 - rivals)) / flow.k - jump


@register_static
@dataclass(frozen=True)
class Uncoupled(_Exponential):
    """A·exp(−kδ): one maker alone."""

    def exponent(self, quote: Sided, crowd: Sided, flow: Flow) -> Sided:
        del crowd
        return -flow.k * quote


COUPLINGS: dict[str, Coupling] = {
    "relative": Relative(),
    "elastic": Elastic(),
    "market_share": MarketShare(),
    "none": Uncoupled(),
}

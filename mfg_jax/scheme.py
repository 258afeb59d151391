"""How one time step is taken: explicit Runge–Kutta pairs of a backward step and its transpose.

By the envelope theorem ∂H/∂p is the fill rate at the best quote (MODEL.md, section 3), so the Jacobian of the HJB's right side
is the controlled generator Q, and the linearised backward step is a polynomial in the Qs of its stages. The forward step applies
the transpose of exactly that polynomial. Hence mass is conserved to rounding whatever the step, the forward step costs no
exponential, and ⟨ρ, V⟩ balances between two times without discretisation error. Explicit fourth-order methods of four stages with
positive weights keep their order in the transpose (Hager, Numer. Math. 87, 2000). Where quotes meet their bounds the classical
method gives up the exact transpose for rates that are right on average (`kinks.py`).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import jax.numpy as jnp
import numpy as np
from jax.tree_util import register_static
from jaxtyping import Array, Bool, Float

from mfg_jax.grid import smooth_interpolation
from mfg_jax.lattice import Edges, States, jumps, leaving, transport

StageRates = Float[Array, "stage side edge *batch"]
Interpolate = Callable[
    [Float[np.ndarray, " time"], Float[Array, "time side *batch"], Float[np.ndarray, " target"]], Float[Array, "target side *batch"]
]
"""(nodes, path at the nodes, targets) → path at the targets."""

Controls = Callable[[States, Float[Array, "side *batch"]], tuple[Edges, Edges]]
"""(value, crowd's offsets) → the best quotes and their fill rates."""


class Scheme(ABC):
    """A backward step and the forward step that belongs to it. Subclasses are frozen dataclasses registered as static pytrees."""

    nodes: tuple[float, ...]
    """Where the stages see the crowd: fractions of the step, backwards from its end."""
    interpolate: Interpolate
    """How the crowd's path is seen between the stored times."""
    corrects_kinks: bool = False
    """Whether the forward step takes rates that are corrected where a quote meets its bound (`kinks.py`)."""

    @abstractmethod
    def backward_step(
        self,
        controls: Controls,
        running_cost: States,
        value: States,
        crowd: Float[Array, "stage side *batch"],
        dt: Float[Array, "*batch"],
    ) -> tuple[States, StageRates]:
        """The value one step earlier, and the fill rates that the forward step needs."""

    @abstractmethod
    def forward_step(self, rates: StageRates, density: States, dt: Float[Array, "*batch"]) -> States:
        """The density one step later, moved by the rates that the backward step over the same interval found."""

    def missed_at_kink(self, theta: Edges) -> Edges:
        """What the stages make of the mean of (s − θ)₊ over a step s = 0 … 1, less what it is. Only if it corrects kinks."""
        raise NotImplementedError

    @abstractmethod
    def unstable(self, most: Edges) -> Bool[Array, "*batch"]:
        """Whether a step in which every fill is as likely as it ever is, dt·rate = `most`, is unstable."""


@register_static
@dataclass(frozen=True)
class RungeKutta(Scheme):
    """An explicit Runge–Kutta method by its Butcher tableau.

    Steps are called unstable when speed(dt·rates) exceeds `speed_limit` with the largest dt·rate that each fill has in any of them:
    a speed never falls when rates grow, so no unstable step is missed.
    """

    matrix: tuple[tuple[float, ...], ...]
    weights: tuple[float, ...]
    nodes: tuple[float, ...]
    speed: Callable[[Edges], Float[Array, "*batch"]]
    speed_limit: float
    interpolate: Interpolate = smooth_interpolation
    corrects_kinks: bool = False

    def backward_step(
        self,
        controls: Controls,
        running_cost: States,
        value: States,
        crowd: Float[Array, "stage side *batch"],
        dt: Float[Array, "*batch"],
    ) -> tuple[States, StageRates]:
        slopes: list[States] = []
        rates: list[Edges] = []
        for row, crowd_now in zip(self.matrix, crowd, strict=True):
            stage_value = value + dt * _combination(row, slopes)
            stage_quotes, stage_rates = controls(stage_value, crowd_now)
            slopes.append(leaving(gains(stage_quotes, stage_rates, stage_value)) - running_cost)
            rates.append(stage_rates)
        return value + dt * _combination(self.weights, slopes), jnp.stack(rates)

    def forward_step(self, rates: StageRates, density: States, dt: Float[Array, "*batch"]) -> States:
        flows: list[States] = []  # of the stages behind, in order: the transpose visits the stages from the last to the first
        for stage in reversed(range(len(self.weights))):
            column = [row[stage] for row in self.matrix[stage + 1 :]]  # how the later stages use this one
            flows.insert(0, transport(rates[stage], self.weights[stage] * density + dt * _combination(column, flows)))
        return density + dt * _combination([1.0] * len(flows), flows)

    def missed_at_kink(self, theta: Edges) -> Edges:
        seen = sum(weight * jnp.maximum(node - theta, 0.0) for weight, node in zip(self.weights, self.nodes, strict=True))
        return seen - 0.5 * (1.0 - theta) ** 2

    def unstable(self, most: Edges) -> Bool[Array, "*batch"]:
        return ~(self.speed(most) <= self.speed_limit)  # a speed that overflowed is none to be trusted


def gains(quotes: Edges, rates: Edges, value: States) -> Edges:
    """λ(δ)(δ + jump): what each quote earns per unit of time, the change of the value included."""
    return rates * (quotes + jumps(value))


def _combination(coefficients: Sequence[float], terms: Sequence[States]) -> States | float:
    """Σ coefficient·term over the coefficients that are not 0."""
    return sum((c * term for c, term in zip(coefficients, terms, strict=True) if c != 0.0), start=0.0)


def largest_exit_rate(rates: Edges) -> Float[Array, "*batch"]:
    """max over inventories of λᵃ + λᵇ."""
    return jnp.max(leaving(rates), axis=0)


def spectral_bound(rates: Edges) -> Float[Array, "*batch"]:
    """A bound from above on the largest |eigenvalue| of the generator with these rates.

    Changing the sign of every other inventory turns −Q into a matrix B without negative entries, and max (By)/y bounds the spectral
    radius of such a matrix for any y > 0 (Collatz and Wielandt), the better the nearer y is to its Perron vector. For one-sided
    flow it stays near 2 max(λᵃ + λᵇ), above the eigenvalue: such generators are far from normal, and powers of a step that their
    eigenvalues allow can still grow.
    """
    exit_rates = leaving(rates)

    def times_b(y: States) -> States:
        return exit_rates * y + leaving(rates * jnp.stack([y[:-1], y[1:]]))

    y = jnp.ones_like(exit_rates)
    for _ in range(8):
        y = times_b(y) + 1e-3 * jnp.max(exit_rates, axis=0) * y  # the shift keeps y > 0 where rates vanish
        y = y / jnp.max(y, axis=0)
    return jnp.max(times_b(y) / y, axis=0)


EULER = RungeKutta(matrix=((),), weights=(1.0,), nodes=(0.0,), speed=largest_exit_rate, speed_limit=1.0)
"""The plain explicit scheme of the literature, of first order. Within its limit every step is a matrix of probabilities."""

RK4 = RungeKutta(
    matrix=((), (0.5,), (0.0, 0.5), (0.0, 0.0, 1.0)),
    weights=(1 / 6, 1 / 3, 1 / 3, 1 / 6),
    nodes=(0.0, 0.5, 0.5, 1.0),
    speed=spectral_bound,
    speed_limit=2.785,
    corrects_kinks=True,
)
"""The classical fourth-order method, stable for eigenvalues down to −2.785/dt; those of a generator are real."""

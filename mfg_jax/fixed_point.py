"""Iterations towards a fixed point of Φ, judged on the undamped residual |Φ(D) − D|, never on the length of a step."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.tree_util import register_static
from jaxtyping import Array, Bool, Float, Int

from mfg_jax import dense
from mfg_jax.whole import is_whole

Path = Float[Array, "time side"]


class Iterate(NamedTuple):
    """The best point seen, and how it was found."""

    point: Path
    residual: Float[Array, ""]
    """max |Φ(point) − point|; inf while no finite one was seen."""
    iterations: Int[Array, ""]
    """Evaluations of Φ spent."""
    unstable: Bool[Array, ""]
    """Whether some evaluation of Φ was unstable."""
    expansion: Float[Array, ""]
    """The largest |ΔΦ|/|ΔD| between a trial and the next."""


class Iteration(NamedTuple):
    """An iteration between two evaluations of Φ."""

    trial: Path
    """Where to evaluate Φ next."""
    memory: Any
    best: Iterate
    last_trial: Path
    last_reply: Path


@dataclass(frozen=True)
class FixedPointSolver(ABC):
    """Repeats trial → Φ(trial) → next trial. Subclasses say how the next trial is chosen and what they remember for it.

    Args:
        tolerance: converged when residual·k is at most this; without unit.
        max_iterations: evaluations of Φ before giving up.

    Raises:
        ValueError: a tolerance that is not positive, or fewer than one iteration.
    """

    tolerance: float = 1e-9
    max_iterations: int = 200

    def __post_init__(self) -> None:
        if not 0.0 < self.tolerance < 1.0:
            raise ValueError(f"solver tolerance must be between 0 and 1; found {self.tolerance!r}")
        if not is_whole(self.max_iterations, 1):
            raise ValueError(f"solver max_iterations must be a whole number >= 1; found {self.max_iterations!r}")

    @abstractmethod
    def start_memory(self, start: Path) -> Any:
        """What is remembered before the first evaluation."""

    @abstractmethod
    def next_trial(self, trial: Path, excess: Path, memory: Any) -> tuple[Path, Any]:
        """The next trial, given excess = Φ(trial) − trial. A trial that is not finite ends the iteration."""

    def begin(self, start: Path) -> Iteration:
        """Before the first evaluation."""
        zero = jnp.zeros((), start.dtype)
        nothing_seen = Iterate(start, jnp.full_like(zero, jnp.inf), jnp.zeros((), jnp.int32), jnp.zeros((), bool), zero)
        return Iteration(start, self.start_memory(start), nothing_seen, start, jnp.full_like(start, jnp.nan))

    def unfinished(self, iteration: Iteration, tolerance: Float[Array, ""]) -> Bool[Array, ""]:
        """Whether it goes on: until the residual is at most `tolerance` (price units), or there is no hope."""
        best = iteration.best
        return ~(best.residual <= tolerance) & (best.iterations < self.max_iterations) & jnp.all(jnp.isfinite(iteration.trial))

    def advance(self, iteration: Iteration, reply: Path, unstable: Bool[Array, ""], project: Callable[[Path], Path]) -> Iteration:
        """After one more evaluation: `reply` is Φ of the trial; `project` keeps trials in the quote box."""
        trial, best = iteration.trial, iteration.best
        excess = reply - trial
        size = _size(excess)
        better = size < best.residual  # False for NaN
        best = Iterate(
            jnp.where(better, trial, best.point),
            jnp.where(better, size, best.residual),
            best.iterations + 1,
            best.unstable | unstable,
            jnp.maximum(best.expansion, _expansion(iteration, reply)),
        )
        following, memory = self.next_trial(trial, excess, iteration.memory)
        return Iteration(project(following), memory, best, trial, reply)

    def solve(
        self,
        phi: Callable[[Path], tuple[Path, Bool[Array, ""]]],
        start: Path,
        project: Callable[[Path], Path],
        tolerance: Float[Array, ""],
    ) -> Iterate:
        """Iterates to the end. `phi` gives Φ and whether evaluating it was unstable."""

        def advance(iteration: Iteration) -> Iteration:
            return self.advance(iteration, *phi(iteration.trial), project)

        return jax.lax.while_loop(lambda iteration: self.unfinished(iteration, tolerance), advance, self.begin(start)).best


@register_static
@dataclass(frozen=True)
class Picard(FixedPointSolver):
    """The naive crowd: everyone best-replies to the last crowd path."""

    def start_memory(self, start: Path) -> None:
        del start

    def next_trial(self, trial: Path, excess: Path, memory: None) -> tuple[Path, None]:
        return trial + excess, memory


class _AndersonMemory(NamedTuple):
    base: Path
    base_excess: Path
    base_size: Float[Array, ""]
    point_changes: Float[Array, "window time side"]
    excess_changes: Float[Array, "window time side"]
    damping: Float[Array, ""]


@register_static
@dataclass(frozen=True)
class Anderson(FixedPointSolver):
    """Anderson acceleration over a small window (Walker and Ni, SIAM J. Numer. Anal. 49, 2011), safeguarded.

    A trial whose residual exceeds `growth` times that of the point it came from is refused: the window is forgotten and a
    shorter and shorter plain step is taken from that point until one is accepted.

    Raises:
        ValueError: a window of less than 1.
    """

    window: int = 6
    growth: float = 2.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not is_whole(self.window, 1):
            raise ValueError(f"Anderson window must be a whole number >= 1; found {self.window!r}")

    def start_memory(self, start: Path) -> _AndersonMemory:
        no_changes = jnp.zeros((self.window, *start.shape), start.dtype)
        size, damping = jnp.full((), jnp.inf, start.dtype), jnp.ones((), start.dtype)
        return _AndersonMemory(start, jnp.full_like(start, jnp.nan), size, no_changes, no_changes, damping)

    def next_trial(self, trial: Path, excess: Path, memory: _AndersonMemory) -> tuple[Path, _AndersonMemory]:
        size = _size(excess)
        first = jnp.isinf(memory.base_size)
        accepted = size <= jnp.where(first, jnp.finfo(size.dtype).max, self.growth * memory.base_size)

        def remember(changes: Array, change: Path) -> Array:
            return jnp.concatenate([changes[1:], jnp.where(first, 0.0, change)[None]])

        moved = _AndersonMemory(
            trial,
            excess,
            size,
            remember(memory.point_changes, trial - memory.base),
            remember(memory.excess_changes, excess - memory.base_excess),
            jnp.ones_like(memory.damping),
        )
        restarted = memory._replace(
            point_changes=jnp.zeros_like(memory.point_changes),
            excess_changes=jnp.zeros_like(memory.excess_changes),
            damping=0.5 * memory.damping,
        )
        memory = jax.tree.map(lambda new, old: jnp.where(accepted, new, old), moved, restarted)
        return memory.base + memory.damping * memory.base_excess - _correction(memory), memory


def _expansion(iteration: Iteration, reply: Path) -> Float[Array, ""]:
    """|ΔΦ|/|ΔD|, root mean squares; 0 where nothing can be said: at the start, and between trials too near each other."""
    moved = jnp.linalg.norm(iteration.trial - iteration.last_trial)
    answered = jnp.linalg.norm(reply - iteration.last_reply)
    known = (moved > 1e-6 * jnp.linalg.norm(iteration.trial)) & jnp.isfinite(answered)
    return jnp.where(known, answered / jnp.where(known, moved, 1.0), 0.0)


def _size(excess: Path) -> Float[Array, ""]:
    """max |excess|, inf where any is not finite: XLA's maximum may pass over a NaN on a CPU."""
    return jnp.where(jnp.all(jnp.isfinite(excess)), jnp.max(jnp.abs(excess)), jnp.inf)


def _correction(memory: _AndersonMemory) -> Path:
    """What the window says of the plain step: the combination of its changes that best explains the excess.

    Least squares by normal equations with columns scaled to length 1; a nearly dependent column costs speed, never correctness.
    """
    size = memory.base_excess.size
    changes = memory.excess_changes.reshape(-1, size)
    length = jnp.sqrt((changes**2).sum(axis=1))
    scale = jnp.where(length > 0, 1.0 / jnp.where(length > 0, length, 1.0), 0.0)
    columns = changes * scale[:, None]
    ridge = 1e-12 + jnp.where(length > 0, 0.0, 1.0)
    gram = columns @ columns.T + jnp.diag(ridge.astype(columns.dtype))
    weights = dense.solve(gram, columns @ memory.base_excess.ravel()) * scale
    return (weights @ (changes + memory.point_changes.reshape(-1, size))).reshape(memory.base_excess.shape)


SOLVERS: dict[str, type[FixedPointSolver]] = {"anderson": Anderson, "picard": Picard}

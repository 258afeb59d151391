"""Parameters that make an equilibrium look like what was observed.

Least squares through the implicit derivatives of the equilibrium: a batch of starts goes downhill together (optax), the best of
them is finished by a trust-region method within the bounds (SciPy); its Jacobian also tells how well the data know each parameter.
"""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Mapping
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.typing import ArrayLike
from jaxtyping import Array, Float
from scipy import optimize, stats

from mfg_jax.equilibrium import SAME_EQUILIBRIUM, solve
from mfg_jax.flow import CONFIDENCE, Interval
from mfg_jax.measures import Metrics, metrics
from mfg_jax.model import Model
from mfg_jax.parameters import Parameters, as_scalars, order_flow
from mfg_jax.solution import Branch, Equilibrium, Status
from mfg_jax.span import Span

DESCENT, LEARNING_RATE = 60, 0.05
"""Steps that all starts take together, in coordinates that run from 0 to 1 between the bounds."""
INDISTINCT = 0.99
"""Correlation of two estimates from which on the data are said not to tell them apart."""
FINISHED = 1e-12
"""Relative change of the parameters, or of the sum of squares, at which the last start is done."""

OBSERVABLE = [field.name for field in dataclasses.fields(Metrics)] + ["value", "ask", "bid", "density", "crowd_ask", "crowd_bid"]

Coordinates = Float[Array, " parameter"]
Observed = Float[np.ndarray, "*shape"]
"""NaN where nothing was observed."""


class FitWarning(UserWarning):
    """What a fit cannot tell, though it found a best one."""


@dataclasses.dataclass(frozen=True)
class Fit:
    """The parameters that were found."""

    parameters: Parameters
    equilibrium: Equilibrium
    """The principal equilibrium there, with its certificates."""
    intervals: dict[str, Interval]
    """Of each fitted parameter, 95 %, by the curvature at the best fit; NaN where the data do not determine it."""
    correlations: Float[np.ndarray, "parameter parameter"]
    """Of the estimates, in the order of `intervals`."""
    misfit: dict[str, float]
    """Root mean square of what was observed less what was fitted, of each target, in its unit."""
    warnings: tuple[str, ...]
    """What the fit cannot tell; each was also given as a `FitWarning`."""


class _Problem(eqx.Module):
    model: Model = eqx.field(static=True)
    init: Parameters
    spans: tuple[tuple[str, Span], ...] = eqx.field(static=True)
    observed: dict[str, Observed]
    noise: dict[str, Float[np.ndarray, ""]]
    """Standard deviation of one observation of each target; its typical size where unknown."""

    def parameters(self, coordinates: Any) -> Parameters:
        values = {name: span.value(coordinates[i]) for i, (name, span) in enumerate(self.spans)}
        return dataclasses.replace(self.init, **values)

    def residuals(self, coordinates: Coordinates) -> Float[Array, " observation"]:
        """Predicted less observed, in units of the noise, 0 where nothing was; NaN where there is no equilibrium."""
        parameters = self.parameters(coordinates)
        equilibrium = solve(self.model, parameters, select="cold")
        found = {**vars(equilibrium), **vars(metrics(self.model, parameters, equilibrium))}
        parts = [_missed(name, found[name], values) / self.noise[name] for name, values in self.observed.items()]
        solved = equilibrium.status == Status.CONVERGED
        return jnp.where(solved, jnp.concatenate(parts), jnp.nan)

    def loss(self, coordinates: Coordinates) -> Float[Array, ""]:
        return 0.5 * jnp.mean(self.residuals(coordinates) ** 2)

    @property
    def counts(self) -> dict[str, int]:
        """Of observations."""
        return {name: int((~np.isnan(values)).sum()) for name, values in self.observed.items()}


# Compiled once for all data of the same shapes.
_residuals = eqx.filter_jit(_Problem.residuals)
_jacobian = eqx.filter_jit(jax.jacfwd(_Problem.residuals, argnums=1))
_losses_and_slopes = eqx.filter_jit(jax.vmap(jax.value_and_grad(_Problem.loss, argnums=1), in_axes=(None, 0)))


def fit(
    model: Model,
    targets: Mapping[str, ArrayLike],
    init: Parameters,
    bounds: Mapping[str, tuple[float, float]],
    noise: Mapping[str, float] | None = None,
    starts: int = 8,
    seed: int = 0,
) -> Fit:
    """Fits parameters so that an equilibrium's paths or scalars match observed ones, by least squares.

    Args:
        model: the static choices.
        targets: observed values by name: fields of `Metrics` (`full_spread`, `inventory_variance`, `mean_spread`, …) or of
            `Equilibrium` (`crowd_ask`, …), of their shapes: a path has n_steps + 1 times. NaN is what was not observed.
        init: the first start, and the numbers that are not fitted.
        bounds: of each parameter to be fitted, (low, high); where low > 0 it is searched in logarithms.
        noise: standard deviation of one observation of each target, in its unit. Where it is left out, targets weigh alike,
            each in units of its typical size, and the noise is estimated from what the fit leaves.
        starts: of which all but the first are drawn at random between the bounds.
        seed: of these draws.

    Returns:
        The best fit with its uncertainty. What it cannot tell is in `warnings`, and is given as a `FitWarning`: parameters that
        the data do not tell apart, or do not determine; estimates on a bound.

    Raises:
        ValueError: no start; targets, bounds or noise of unknown names or with impossible values; or no start has an equilibrium.
    """
    if starts < 1:
        raise ValueError(f"starts is {starts}; allowed: a whole number >= 1")
    problem = _posed(model, targets, as_scalars(init), bounds, noise or {})
    found = optimize.least_squares(
        lambda u: np.asarray(_residuals(problem, u)),
        _downhill(problem, _drawn(problem, starts, seed)),
        jac=lambda u: np.asarray(_jacobian(problem, u)),  # pyright: ignore[reportArgumentType]
        bounds=(0.0, 1.0),
        xtol=FINISHED,
        ftol=FINISHED,
        gtol=FINISHED,
    )
    return _judged(problem, found, known_noise=bool(noise))


def _posed(
    model: Model,
    targets: Mapping[str, ArrayLike],
    init: Parameters,
    bounds: Mapping[str, tuple[float, float]],
    noise: Mapping[str, float],
) -> _Problem:
    """The problem, its input checked."""
    if not targets or not bounds:
        raise ValueError("fit needs at least one target and the bounds of at least one parameter")
    observed = {name: _observed(name, values) for name, values in targets.items()}
    spans = {name: _span(init, name, *ends) for name, ends in bounds.items()}
    for name, size in noise.items():
        if name not in observed or not 0 < size < np.inf:
            raise ValueError(f"noise of {name!r} is {size!r}; allowed: a number > 0 for one of {', '.join(observed)}")
    if noise and noise.keys() != observed.keys():
        raise ValueError(f"noise must be given for all targets or none; missing: {', '.join(observed.keys() - noise.keys())}")
    count = sum(int((~np.isnan(values)).sum()) for values in observed.values())
    if count < len(spans):
        raise ValueError(f"{count} observations cannot determine {len(spans)} parameters: {', '.join(spans)}")
    sizes = {name: float(np.sqrt(np.nanmean(values**2))) or 1.0 for name, values in observed.items()}
    return _Problem(
        model, init, tuple(spans.items()), observed, {name: np.asarray(size) for name, size in {**sizes, **noise}.items()}
    )


def _observed(name: str, values: ArrayLike) -> Observed:
    if name not in OBSERVABLE:
        raise ValueError(f"there is no target {name!r}; allowed: {', '.join(OBSERVABLE)}")
    numbers = np.asarray(values, float)
    if np.isinf(numbers).any() or np.isnan(numbers).all():
        raise ValueError(f"target {name!r} must have at least one number and none that is infinite")
    return numbers


def _missed(name: str, predicted: Array, observed: Observed) -> Float[Array, " observation"]:
    if predicted.shape != observed.shape:
        raise ValueError(f"target {name!r} has shape {observed.shape}; this model's is {predicted.shape}")
    return jnp.where(jnp.isnan(observed), 0.0, predicted - observed).ravel()


def _span(init: Parameters, name: str, low: float, high: float) -> Span:
    span = Span.of(init, name, low, high)
    start = float(getattr(init, name))
    if not low <= start <= high:
        raise ValueError(f"init.{name} is {start:g}, outside of its bounds ({low:g}, {high:g})")
    return span


def _drawn(problem: _Problem, starts: int, seed: int) -> Float[np.ndarray, "start parameter"]:
    """The first at init, the others spread evenly."""
    first = [[span.coordinate(float(getattr(problem.init, name))) for name, span in problem.spans]]
    others = stats.qmc.LatinHypercube(len(problem.spans), rng=seed).random(starts - 1)
    return np.concatenate([first, others])


def _downhill(problem: _Problem, starts: Float[np.ndarray, "start parameter"]) -> Float[np.ndarray, " parameter"]:
    """The best point that any of the starts came to. A start without an equilibrium stays where it is."""
    optimiser = optax.adam(optax.cosine_decay_schedule(LEARNING_RATE, DESCENT))
    points = jnp.asarray(starts)
    state = optimiser.init(points)
    best, best_loss = starts[0], np.inf
    for _ in range(DESCENT):
        losses, slopes = _losses_and_slopes(problem, points)
        known = jnp.all(jnp.isfinite(slopes), axis=1)  # without a slope there is no way on
        ranked = np.where(np.isfinite(losses) & np.asarray(known), losses, np.inf)
        if ranked.min() < best_loss:
            best, best_loss = np.asarray(points[ranked.argmin()]), ranked.min()
        with jax.numpy_dtype_promotion("standard"):
            changes, state = optimiser.update(jnp.where(known[:, None], slopes, 0.0), state)
        points = jnp.clip(optax.apply_updates(points, changes), 0.0, 1.0)  # pyright: ignore[reportArgumentType]
    if not np.isfinite(best_loss):
        raise ValueError("none of the starts has an equilibrium that the cold iteration finds: choose other bounds or another init")
    return best


def _judged(problem: _Problem, found: Any, known_noise: bool) -> Fit:
    """How well the data know what was found."""
    names = [name for name, _ in problem.spans]
    spare = sum(problem.counts.values()) - len(names)
    variance = 1.0 if known_noise else (2.0 * found.cost / spare if spare else np.nan)
    _, singular, directions = np.linalg.svd(found.jac, full_matrices=False)
    determined = singular > singular[0] * 1e-7
    unseen = np.abs(directions[~determined]).max(axis=0, initial=0.0) > 1e-3
    inverse = directions[determined].T / singular[determined]
    covariance = variance * inverse @ inverse.T
    deviation = np.where(unseen, np.nan, np.sqrt(np.diag(covariance)))
    with np.errstate(invalid="ignore", divide="ignore"):
        correlations = covariance / np.outer(deviation, deviation)
    reach = float(stats.norm.ppf(0.5 + CONFIDENCE / 2) if known_noise else stats.t.ppf(0.5 + CONFIDENCE / 2, max(spare, 1)))
    intervals = {
        name: Interval(*(float(span.value(end)) for end in (u, u - reach * d, u + reach * d)))
        for (name, span), u, d in zip(problem.spans, found.x, deviation, strict=True)
    }
    said = [f"the data do not determine {name}" for name, hidden in zip(names, unseen, strict=True) if hidden]
    said += [
        f"the data hardly tell {names[i]} and {names[j]} apart: their estimates correlate by {correlations[i, j]:.4f}"
        for i in range(len(names))
        for j in range(i)
        if abs(correlations[i, j]) > INDISTINCT
    ]
    said += [f"{name} is on its bound" for name, active in zip(names, found.active_mask, strict=True) if active]
    if not found.success:
        said.append(f"the fit was not finished: {found.message}")
    parameters = problem.parameters(found.x)
    equilibrium = solve(problem.model, parameters, select="cold")
    if not _is_principal(problem.model, parameters, equilibrium):
        said.append("the equilibrium that was fitted is not the principal one of its parameters")
    for sentence in said:
        warnings.warn(sentence, FitWarning, stacklevel=3)
    return Fit(parameters, equilibrium, intervals, correlations, _misfit(problem, found.fun), tuple(said))


def _is_principal(model: Model, parameters: Parameters, fitted: Equilibrium) -> bool:
    principal = solve(model, parameters)
    apart = max(float(jnp.max(jnp.abs(getattr(principal, side) - getattr(fitted, side)))) for side in ("crowd_ask", "crowd_bid"))
    return bool(principal.branch == Branch.PRINCIPAL) and apart * float(jnp.max(order_flow(parameters).k)) <= SAME_EQUILIBRIUM


def _misfit(problem: _Problem, residuals: Float[np.ndarray, " observation"]) -> dict[str, float]:
    parts = np.split(residuals, np.cumsum([values.size for values in problem.observed.values()])[:-1])
    return {
        name: float(np.sqrt((part**2).sum() / problem.counts[name]) * problem.noise[name])
        for name, part in zip(problem.observed, parts, strict=True)
    }

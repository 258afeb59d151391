"""Solving a game: the fixed point, its implicit derivative, its status and its certificates."""

from __future__ import annotations

import enum
import warnings
from collections.abc import Callable
from typing import NamedTuple, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from mfg_jax.best_reply import BestReply, best_reply
from mfg_jax.certificate import certify_basics
from mfg_jax.game import Game, lay_out, valid
from mfg_jax.hjb import best_quotes
from mfg_jax.lattice import per_inventory
from mfg_jax.model import Model
from mfg_jax.parameters import Parameters, as_scalars

Path = Float[Array, "time side"]
T = TypeVar("T")


class Search(NamedTuple):
    """How the fixed point was found."""

    residual: Float[Array, ""]
    iterations: Int[Array, ""]
    unstable: Bool[Array, ""]
    """Whether a step was too long for the rates of some trial."""


class Status(enum.IntEnum):
    """How a game ended. Only `CONVERGED` is an equilibrium; the others carry the best iterate and its residual."""

    PENDING = 0
    CONVERGED = 1
    ITERATION_LIMIT = 2
    NON_FINITE = 3
    UNSTABLE_STEP = 4
    CONTINUATION_STOPPED = 5
    INVALID_PARAMETERS = 6

    @property
    def explanation(self) -> str:
        """What happened, and what to try."""
        return _EXPLANATIONS[self]


_EXPLANATIONS = {
    Status.PENDING: "Not solved yet: run the sweep again to go on where it stopped.",
    Status.CONVERGED: "Converged: no maker gains by leaving the crowd's path, to the tolerance.",
    Status.ITERATION_LIMIT: (
        "The residual was still above the tolerance after max_iterations: raise max_iterations, or move towards this game "
        "from a milder one (k0 nearer to k, a less skewed crowd)."
    ),
    Status.NON_FINITE: "The numbers overflowed: check the units of A, k and the penalties, or bound the quotes.",
    Status.UNSTABLE_STEP: "A time step is, or may be, too long for the fill rates met: raise n_steps, or raise quote_min.",
    Status.CONTINUATION_STOPPED: "The path from the uncoupled game could not be followed to this one.",
    Status.INVALID_PARAMETERS: (
        "No game has these numbers: A, k, horizon and crowd_std must be positive, eta, gamma and k0 not negative, n_makers "
        "above 1, quote_min at most quote_max, a point crowd on the lattice, and all finite save the quote bounds."
    ),
}


class Equilibrium(eqx.Module):
    """One solved game (MODEL.md, sections 3, 4 and 6). Offsets and values in price units, densities as fractions of makers.

    An offset that is not quoted is +inf (MODEL.md, section 1). Where `status` is not `Status.CONVERGED` the arrays are those of
    the best iterate; with `Status.INVALID_PARAMETERS` or `Status.UNSTABLE_STEP` they are NaN.
    """

    time: Float[Array, " time"]
    """0 … horizon."""
    inventory: Float[Array, " x"]
    """−x_max … x_max, lots."""
    value: Float[Array, "time x"]
    ask: Float[Array, "time x"]
    bid: Float[Array, "time x"]
    density: Float[Array, "time x"]
    crowd_ask: Float[Array, " time"]
    crowd_bid: Float[Array, " time"]
    mean_crowd: Float[Array, " side"]
    """Time averages of crowd_ask and crowd_bid, taken at the scheme's own steps, which may be finer than `time`."""
    residual: Float[Array, ""]
    """max |Φ(D) − D|, price units; inf where no finite iterate was seen."""
    iterations: Int[Array, ""]
    """Evaluations of Φ."""
    status: Int[Array, ""]
    mass_error: Float[Array, ""]
    min_density: Float[Array, ""]
    edge_mass: Float[Array, ""]
    clipped_mass: Float[Array, " side"]
    """Ask, bid: the largest mass over time whose quote sits at a bound."""
    spread_identity: Float[Array, ""]
    monotone: Bool[Array, ""]


def solve(model: Model, parameters: Parameters, certify: str = "basic") -> Equilibrium:
    """The equilibrium of one game. Works under `jax.jit`, `jax.vmap` and `jax.grad`, and any mixture of them.

    Never raises for the numbers of a game: see `status` (`mfg_jax.Status(int(eq.status)).explanation` says what to try).
    Derivatives are those of the equilibrium of the discrete game, by the implicit function theorem; where a quote sits exactly on
    a bound they are the mean of both sides. They mean nothing where `status` is not converged.

    Args:
        model: the static choices.
        parameters: the numbers, scalars all; float64 where JAX has it enabled (`jax.config.update("jax_enable_x64", True)`).
        certify: which certificates to compute: "basic", those that cost no further solve (MODEL.md, section 6).

    Raises:
        ValueError: fields that are no scalars, or another `certify`.
    """
    if certify != "basic":
        raise ValueError(f"certify must be 'basic'; found {certify!r}")
    scalars = as_scalars(parameters)
    _warn_if_out_of_reach(model, scalars)
    return _solve(model, scalars)


def _warn_if_out_of_reach(model: Model, parameters: Parameters) -> None:
    dtype = jnp.asarray(parameters.horizon).dtype
    reach = 40 * float(jnp.finfo(dtype).eps)
    if model.solver.tolerance < reach:
        more_digits = 'call jax.config.update("jax_enable_x64", True) before anything else, or ' if dtype == jnp.float32 else ""
        warnings.warn(
            f"solving in {dtype.name}, which cannot reach a tolerance of {model.solver.tolerance:g}: {more_digits}"
            f'set solver={{"tolerance": {reach:.0e}}} or more',
            stacklevel=3,
        )


@eqx.filter_jit
def _solve(model: Model, parameters: Parameters) -> Equilibrium:
    game = lay_out(model, parameters)
    is_valid = valid(model, parameters)
    tolerance = model.solver.tolerance / jnp.max(game.flow.k)
    crowd, found = _fixed_point(model, game, jnp.where(is_valid, _first_guess(model, game), jnp.nan), tolerance)
    reply = best_reply(model, game, crowd)
    status = _status(is_valid, reply, found, tolerance, model.solver.max_iterations)
    meaningless = (status == Status.INVALID_PARAMETERS) | (status == Status.UNSTABLE_STEP)
    # said here, because XLA's minimum and maximum may pass over a NaN on a CPU
    unknown = meaningless | ~jnp.all(jnp.isfinite(reply.density))
    certificates = _withhold(certify_basics(model, game, crowd, reply), unknown)
    reply = _withhold(reply, meaningless)
    quotes = jax.vmap(lambda q: per_inventory(jnp.where(model.quoting, q, jnp.inf), jnp.inf))(reply.quotes)
    return Equilibrium(
        time=parameters.horizon * jnp.asarray(model.time_fractions, game.dt.dtype),
        inventory=game.inventory,
        value=reply.value,
        ask=quotes[:, 0],
        bid=quotes[:, 1],
        density=reply.density,
        crowd_ask=reply.crowd[:, 0],
        crowd_bid=reply.crowd[:, 1],
        mean_crowd=reply.mean_crowd,
        residual=found.residual,
        iterations=found.iterations,
        status=status,
        **certificates._asdict(),
    )


def _withhold(numbers: T, meaningless: Bool[Array, ""]) -> T:
    """NaN in place of numbers that are garbage. A factor rather than a choice, so that their derivatives are NaN too."""
    factor = jnp.where(meaningless, jnp.nan, 1.0)
    return jax.tree.map(
        lambda leaf: leaf * factor.astype(leaf.dtype) if jnp.issubdtype(leaf.dtype, jnp.floating) else leaf, numbers
    )


def _first_guess(model: Model, game: Game) -> Path:
    """The best reply of a maker without inventory risk, who values nothing but the next fill, to a crowd at offset 0."""
    flat = jnp.zeros_like(game.terminal_value)
    quotes = best_quotes(model, game, flat, jnp.zeros((2,), flat.dtype))
    return jnp.broadcast_to(quotes[:, 0], (model.n_steps + 1, 2))


def _fixed_point(model: Model, game: Game, start: Path, tolerance: Float[Array, ""]) -> tuple[Path, Search]:
    """The crowd path D with Φ(D) = D, differentiable in the game's numbers by the implicit function theorem; how it was found."""

    def phi(crowd: Path) -> Path:
        return best_reply(model, game, crowd).crowd

    def project(crowd: Path) -> Path:
        return jnp.clip(crowd, game.flow.quote_min, game.flow.quote_max.ravel())

    def search(_: Callable[[Path], Path], start: Path) -> tuple[Path, Search]:
        def trial(crowd: Path) -> tuple[Path, Bool[Array, ""]]:
            reply = best_reply(model, game, crowd)
            return reply.crowd, reply.unstable

        found = model.solver.solve(trial, start, project, tolerance)
        # custom_root wants auxiliary outputs that have tangents, so all travel as floats
        how = Search(found.residual, found.iterations, found.unstable)
        return found.point, jax.tree.map(lambda leaf: leaf.astype(start.dtype), how)

    crowd, found = jax.lax.custom_root(lambda crowd: phi(crowd) - crowd, start, search, _solve_linearised, has_aux=True)
    return crowd, Search(found.residual, found.iterations.astype(jnp.int32), found.unstable > 0)


def _solve_linearised(linear: Callable[[Path], Path], target: Path) -> Path:
    """Solves linear(x) = target; `custom_linear_solve` makes it differentiable in both modes, any number of times."""

    def krylov(matvec: Callable[[Path], Path], b: Path) -> Path:
        tolerance = 100 * float(jnp.finfo(b.dtype).eps)
        return jax.scipy.sparse.linalg.gmres(matvec, b, tol=tolerance, restart=40, maxiter=10, solve_method="incremental")[0]

    return jax.lax.custom_linear_solve(linear, target, krylov, krylov)


def _status(
    is_valid: Bool[Array, ""], reply: BestReply, found: Search, tolerance: Float[Array, ""], max_iterations: int
) -> Int[Array, ""]:
    """The first of these that applies. An iteration that stopped early without converging met numbers that are not finite."""
    finite = jnp.all(jnp.isfinite(reply.value)) & jnp.all(jnp.isfinite(reply.crowd))
    converged = found.residual <= tolerance
    gave_up = found.iterations >= max_iterations
    overflowed_by_instability = found.unstable & ~converged & ~gave_up
    return jnp.select(
        [~is_valid, reply.unstable | overflowed_by_instability, ~finite, converged, gave_up],
        [
            jnp.asarray(status.value, jnp.int32)
            for status in (
                Status.INVALID_PARAMETERS,
                Status.UNSTABLE_STEP,
                Status.NON_FINITE,
                Status.CONVERGED,
                Status.ITERATION_LIMIT,
            )
        ],
        jnp.asarray(Status.NON_FINITE.value, jnp.int32),
    )

"""Solving a game: the fixed point, its implicit derivative, its status and its certificates."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple, TypeVar, cast

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.custom_derivatives import zero_from_primal
from jaxtyping import Array, Bool, Float, Int

from mfg_jax import krylov
from mfg_jax.best_reply import BestReply, best_reply
from mfg_jax.certificate import certify_basics, certify_fully
from mfg_jax.continuation import CAREFUL_STEP, LONGEST_STEP, Found, Walker
from mfg_jax.exponential import ExponentialRosenbrock
from mfg_jax.fixed_point import Iterate
from mfg_jax.game import Game, in_the_box, lay_out, residual_tolerance, valid
from mfg_jax.hjb import best_quotes, crowd_at
from mfg_jax.lattice import per_inventory
from mfg_jax.model import Model
from mfg_jax.parameters import Parameters, as_scalars
from mfg_jax.solution import Branch, Equilibrium, Solved, Status

Path = Float[Array, "time side"]
FloatArray = Float[Array, "*batch"] | Float[np.ndarray, "*batch"]
IntArray = Int[Array, "*batch"] | Int[np.ndarray, "*batch"]
T = TypeVar("T")


class Search(NamedTuple):
    """How a fixed point was found."""

    residual: Float[Array, ""]
    iterations: Int[Array, ""]
    unstable: Bool[Array, ""]
    """Whether a step was too long for the rates of some trial."""
    branch: Int[Array, ""]
    folds: Int[Array, ""]


REFINEMENTS = (1, 2, 4, 8, 16, 32)
"""Steps for a stored interval that are tried where the model has a time_tolerance."""

CERTIFY = ("basic", "full")


class Tries(NamedTuple):
    """To find a game's principal equilibrium."""

    number: Int[Array, ""]
    astray: Bool[Array, ""]
    """Whether one of them was led to another path."""
    found: Found


SELECTIONS = ("principal", "any", "cold")

SAME_EQUILIBRIUM = 1e-6
"""Largest difference of crowd paths, times k, of two solutions of the same equilibrium to the tolerance."""

COARSE_STEPS, COARSE_SCHEME = (64, 192), ExponentialRosenbrock()
"""How a path is followed. Where crowds move fast, smoother interpolants oscillate, and the path with them."""
LONGEST_STEPS = (LONGEST_STEP, CAREFUL_STEP)
"""Along the path, on each of these grids."""

CERTAIN_EXPANSION = 0.95
"""Where |ΔΦ| stayed below this share of |ΔD| all the way from a cold start, what was found is taken to be the
principal equilibrium.

A contraction has one fixed point; but this looks only along the way. Measured on random hard games (MODEL.md, section 5;
scripts/results/check_branch.md): of 4,404 equilibria found so none was another, of 664 found with 1 to 1.1 a quarter was.
"""


def solve(model: Model, parameters: Parameters, certify: str = "basic", select: str = "principal") -> Equilibrium:
    """The equilibrium of one game. Works under `jax.jit`, `jax.vmap` and `jax.grad`, and any mixture of them.

    Never raises for the numbers of a game: see `status` (`mfg_jax.Status(int(eq.status)).explanation` says what to try).
    Derivatives are those of the equilibrium of the discrete game, by the implicit function theorem; where a quote sits exactly on
    a bound they are one-sided, those of a quote just within it. They mean nothing where `status` is not converged, and are NaN
    where the linear equations for them could not be solved, as at a fold.

    Args:
        model: the static choices.
        parameters: the numbers, scalars all; float64 where JAX has it enabled (`jax.config.update("jax_enable_x64", True)`).
        certify: which certificates to compute: "basic", those that cost no further solve (MODEL.md, section 6), or "full";
            always "full" where the model has a time_tolerance.
        select: which equilibrium, where there may be several. "principal": the first on the path from the uncoupled game, which
            is followed unless the cold iteration contracted all the way (`CERTAIN_EXPANSION`).
            "any": what the cold iteration finds; the path only where it finds none.
            "cold": what the cold iteration finds, and nothing else.

    Raises:
        ValueError: fields that are no scalars, or another `certify` or `select`.
    """
    check_certify(certify)
    if select not in SELECTIONS:
        raise ValueError(f"select must be one of {', '.join(map(repr, SELECTIONS))}; found {select!r}")
    scalars = as_scalars(parameters)
    warn_if_out_of_reach(model, scalars)
    if model.time_tolerance is not None:
        return _solve_to_tolerance(model, scalars, select, model.time_tolerance)
    solved = _solve(model, scalars, select)
    return certified(model, scalars, solved) if certify == "full" else solved.equilibrium


def _solve_to_tolerance(model: Model, parameters: Parameters, select: str, tolerance: float, level: int = 0) -> Equilibrium:
    """With as few steps as are enough."""
    refined = model.refined(REFINEMENTS[level])
    found = certified(refined, parameters, _solve(refined, parameters, select))
    stored = found.thinned(REFINEMENTS[level])
    if level + 1 == len(REFINEMENTS):
        return stored
    enough = ~worth_refining(found.status, cast("Array", found.time_error), tolerance)

    def with_more_steps() -> Equilibrium:
        finer = _solve_to_tolerance(model, parameters, select, tolerance, level + 1)
        worse = (found.status == Status.CONVERGED) & (finer.status != Status.CONVERGED)
        return jax.tree.map(lambda a, b: jnp.where(worse, a, b), stored, finer)

    return _when(enough, lambda: stored, with_more_steps)


def worth_refining(status: IntArray, time_error: FloatArray, tolerance: float) -> Any:
    """Whether shorter steps may mend what is wrong with a game."""
    # ~(… <= …): a time error that is NaN is not small
    failed = (status == Status.UNSTABLE_STEP) | (status == Status.CONTINUATION_STOPPED)
    return failed | ((status == Status.CONVERGED) & ~(time_error <= tolerance))


def check_certify(certify: str) -> None:
    """Raises ValueError for what is no choice of certificates."""
    if certify not in CERTIFY:
        raise ValueError(f"certify must be one of {', '.join(map(repr, CERTIFY))}; found {certify!r}")


def _solve(model: Model, parameters: Parameters, select: str) -> Solved:
    cold = solve_cold(model, parameters)
    if select == "cold":
        return cold
    done = _settled(model, cold, select)
    return _when(done, lambda: cold, lambda: _solve_further(model, parameters, cold, select))


def _solve_further(model: Model, parameters: Parameters, cold: Solved, select: str) -> Solved:
    """Where the cold iteration left open which equilibrium it found, or found none."""
    checked = verify(model, parameters, cold, _settled(model, cold, select))
    done = _settled(model, checked, select)
    return _when(done, lambda: checked, lambda: _either(done, checked, solve_along_path(model, parameters, done)))


def certified(model: Model, parameters: Parameters, solved: Solved, skip: Bool[Array, ""] | bool = False) -> Equilibrium:
    """The equilibrium with the certificates that cost further solves. A game to `skip` takes no trip of an iteration."""

    def certify(model: Model) -> dict[str, Array]:
        return certify_fully(model, parameters, solved, skip)._asdict()

    if model.stiff_model == model.explicit_model:
        further = certify(model)
    else:
        further = _when(solved.stiff, lambda: certify(model.stiff_model), lambda: certify(model.explicit_model))
    return dataclasses.replace(solved.equilibrium, **further)


def _settled(model: Model, solved: Solved, select: str) -> Any:
    return settled(model, solved.equilibrium.status, solved.equilibrium.branch, select)


def settled(model: Model, status: IntArray, branch: IntArray, select: str) -> Any:
    """Whether the cold iteration, which ended so, answered already what was asked for, or nothing can."""
    answered = (status == Status.CONVERGED) & ((branch == Branch.PRINCIPAL) | (select != "principal"))
    # who chose a scheme is told that its steps are too long; the automatic one has another
    too_long = (status == Status.UNSTABLE_STEP) & (model.explicit_model == model)
    return answered | too_long | (status == Status.INVALID_PARAMETERS) | (select == "cold")


def cold_is_better(cold_status: IntArray, path_status: IntArray) -> Any:
    """Whether the cold iteration converged and the path did not lead to an equilibrium."""
    return (cold_status == Status.CONVERGED) & (path_status != Status.CONVERGED)


def _either(done: Bool[Array, ""], cold: Solved, along_path: Solved) -> Solved:
    choose_cold = done | cold_is_better(cold.equilibrium.status, along_path.equilibrium.status)
    return jax.tree.map(lambda a, b: jnp.where(choose_cold, a, b), cold, along_path)


def _when(condition: Bool[Array, ""], yes: Callable[[], T], no: Callable[[], T]) -> T:
    """`lax.cond`; but what is known not to be needed is not even compiled."""
    if isinstance(condition, Tracer):
        return jax.lax.cond(condition, yes, no)
    return yes() if condition else no()


def warn_if_out_of_reach(model: Model, parameters: Parameters) -> None:
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
def solve_cold(model: Model, parameters: Parameters, done: Iterate | None = None) -> Solved:
    """What the model's iteration finds from a start that knows nothing of the game. `done`: the iteration, where it is done."""
    model = model.explicit_model
    game = lay_out(model, parameters)
    is_valid = valid(model, parameters)
    crowd, reply, found = settle(_find_cold, model, parameters, done)
    finite = _finite(reply)
    converged = found.residual <= residual_tolerance(model, game)
    gave_up = found.iterations >= model.solver.max_iterations
    overflowed_by_instability = found.unstable & ~converged & ~gave_up
    status = first_that_applies(
        (~is_valid, Status.INVALID_PARAMETERS),
        (reply.unstable | overflowed_by_instability, Status.UNSTABLE_STEP),
        (~finite, Status.NON_FINITE),
        (converged, Status.CONVERGED),
        (gave_up, Status.ITERATION_LIMIT),
        # an iteration that stopped early without converging met numbers that are not finite
        (~converged, Status.NON_FINITE),
    )
    return Solved(assemble(model, parameters, game, crowd, reply, found, status), crowd, jnp.asarray(False))


def _find_cold(model: Model, parameters: Parameters, done: Iterate | None) -> tuple[Path, Search]:
    game = lay_out(model, parameters)

    def phi(crowd: Path) -> tuple[Path, Bool[Array, ""]]:
        reply = best_reply(model, game, crowd)
        return reply.crowd, reply.unstable

    def iterate() -> Iterate:
        start, tolerance = cold_start(model, parameters), residual_tolerance(model, game)
        return model.solver.solve(phi, start, lambda crowd: in_the_box(game, crowd), tolerance)

    found = iterate() if done is None else done
    certain = found.expansion < CERTAIN_EXPANSION
    branch = jnp.where(certain, Branch.PRINCIPAL.value, Branch.UNVERIFIED.value)
    return found.point, Search(found.residual, found.iterations, found.unstable, branch, folds=jnp.zeros((), jnp.int32))


@eqx.filter_jit
def verify(model: Model, parameters: Parameters, cold: Solved, skip: Bool[Array, ""] | bool = False) -> Solved:
    """What the cold iteration found, with its branch: principal, if a path on a coarse grid leads to the same equilibrium."""
    model = model.explicit_model
    parameters, crowd = jax.lax.stop_gradient((parameters, cold.replied_to))
    game = lay_out(model, parameters)
    tolerance = residual_tolerance(model, game)
    skip = skip | (cold.equilibrium.status != Status.CONVERGED)
    found = _follow_coarsely(model, parameters, 0, skip).found
    there = Walker.of(model, game, tolerance).polish(found.crowd, skip | ~found.arrived)
    same = jnp.max(jnp.abs(there.crowd - crowd)) * jnp.max(game.flow.k) <= SAME_EQUILIBRIUM
    principal = ~skip & found.arrived & there.arrived & same
    equilibrium = dataclasses.replace(
        cold.equilibrium,
        branch=jnp.where(principal, Branch.PRINCIPAL.value, cold.equilibrium.branch),
        folds=jnp.where(principal, found.folds, cold.equilibrium.folds),
    )
    return cold._replace(equilibrium=equilibrium)


@eqx.filter_jit
def solve_along_path(model: Model, parameters: Parameters, skip: Bool[Array, ""] | bool = False) -> Solved:
    """The principal equilibrium: found on a coarse grid by continuation from the uncoupled game, then by Newton on the model's.

    A game to `skip` takes no trip, and what comes of it means nothing: in a batch, others may need theirs.
    """
    model = model.stiff_model
    crowd, reply, found = settle(_find_along_path, model, parameters, jnp.asarray(skip))
    status = first_that_applies(
        (~valid(model, parameters), Status.INVALID_PARAMETERS),
        (reply.unstable, Status.UNSTABLE_STEP),
        (~_finite(reply), Status.NON_FINITE),
        (found.branch == Branch.PRINCIPAL, Status.CONVERGED),
        (found.branch != Branch.PRINCIPAL, Status.CONTINUATION_STOPPED),
    )
    game = lay_out(model, parameters)
    return Solved(assemble(model, parameters, game, crowd, reply, found, status), crowd, jnp.asarray(True))


def _find_along_path(model: Model, parameters: Parameters, skip: Bool[Array, ""]) -> tuple[Path, Search]:
    game = lay_out(model, parameters)
    walker = Walker.of(model, game, residual_tolerance(model, game))

    def attempt(tries: Tries) -> Tries:
        """On a coarse grid first, then on a finer one by shorter steps, then on the model's own, which is slow and may be ragged.

        There nothing tells whether a step led astray, so it is not tried where one did before.
        """
        leads = [_follow_coarsely(model, parameters, i, skip | (tries.number != i)) for i in range(len(COARSE_STEPS))]
        lead, astray = jax.tree.map(lambda coarse, finer: jnp.where(tries.number == 0, coarse, finer), *leads)
        on_own_grid = (tries.number == len(COARSE_STEPS)) & ~tries.astray
        there = walker.arrive(lead.crowd, on_own_grid, skip | ~(lead.arrived | on_own_grid))
        arrived = there.arrived & (lead.arrived | on_own_grid)
        folds = jnp.where(on_own_grid, there.folds, lead.folds)
        trips = tries.found.trips + lead.trips + there.trips
        found = there._replace(arrived=arrived, folds=folds, trips=trips)
        return Tries(tries.number + 1, tries.astray | astray, found)

    def unfinished(tries: Tries) -> Bool[Array, ""]:
        return ~tries.found.arrived & (tries.number <= len(COARSE_STEPS)) & ~skip

    start, none = first_guess(model, game), jnp.zeros((), jnp.int32)
    found = Found(start, jnp.full((), jnp.inf, start.dtype), jnp.asarray(False), none, none)
    there = jax.lax.while_loop(unfinished, attempt, Tries(none, jnp.asarray(False), found)).found
    branch = jnp.where(there.arrived, Branch.PRINCIPAL.value, Branch.UNVERIFIED.value)
    return there.crowd, Search(there.residual, there.trips, jnp.zeros((), bool), branch, there.folds)


def coarsened(model: Model, n_steps: int = COARSE_STEPS[0]) -> Model:
    """The model on a grid on which paths are followed."""
    return dataclasses.replace(model, n_steps=n_steps, scheme=COARSE_SCHEME)


class Lead(NamedTuple):
    """The end of a path on a coarse grid."""

    found: Found
    """With what it says of the crowd at the model's times."""
    astray: Bool[Array, ""]
    """Whether it arrived, but on another path than it set out on."""


def _follow_coarsely(model: Model, parameters: Parameters, attempt: int, skip: Bool[Array, ""] | bool) -> Lead:
    coarse = coarsened(model, COARSE_STEPS[attempt])
    game = lay_out(coarse, parameters)
    walker = Walker.of(coarse, game, residual_tolerance(coarse, game), LONGEST_STEPS[attempt])
    found = walker.follow(skip)
    arrived = found.arrived & ~jnp.asarray(skip)
    astray = _when(arrived, lambda: ~walker.on_one_path(found), lambda: jnp.asarray(False))
    crowd = in_the_box(game, crowd_at(coarse, found.crowd, model.time_fractions))
    return Lead(found._replace(crowd=crowd, arrived=arrived & ~astray), astray)


def _finite(reply: BestReply) -> Bool[Array, ""]:
    return jnp.all(jnp.isfinite(reply.value)) & jnp.all(jnp.isfinite(reply.crowd))


def first_that_applies(*cases: tuple[Bool[Array, ""], Status]) -> Int[Array, ""]:
    return jnp.select([case for case, _ in cases], [jnp.asarray(status.value, jnp.int32) for _, status in cases])


def assemble(
    model: Model, parameters: Parameters, game: Game, crowd: Path, reply: BestReply, found: Search, status: Int[Array, ""]
) -> Equilibrium:
    """What is known of a game once a crowd path was found, and the best reply to it."""
    meaningless = (status == Status.INVALID_PARAMETERS) | (status == Status.UNSTABLE_STEP)
    # said here, because XLA's minimum and maximum may pass over a NaN on a CPU
    unknown = meaningless | ~jnp.all(jnp.isfinite(reply.density))
    certificates = withhold(certify_basics(model, game, crowd, reply), unknown)
    reply = withhold(reply, meaningless)
    quotes = jax.vmap(lambda q: per_inventory(jnp.where(model.quoting, q, jnp.inf), jnp.inf))(reply.quotes)
    return Equilibrium(
        time=parameters.horizon * jnp.asarray(model.time_fractions, game.dt.dtype),
        inventory=game.inventory,
        value=reply.value,
        ask=quotes[:, 0],
        bid=quotes[:, 1],
        density=reply.density,
        crowd_ask=reply.averages[:, 0],
        crowd_bid=reply.averages[:, 1],
        mean_crowd=reply.mean_crowd,
        residual=found.residual,
        iterations=found.iterations,
        status=status,
        steps=jnp.asarray(model.n_steps, jnp.int32),
        branch=jnp.where(status == Status.CONVERGED, found.branch, Branch.UNVERIFIED.value),
        folds=found.folds,
        **certificates._asdict(),
    )


def withhold(numbers: T, meaningless: Bool[Array, ""]) -> T:
    """NaN in place of numbers that are garbage. A factor rather than a choice, so that their derivatives are NaN too."""
    factor = jnp.where(meaningless, jnp.nan, 1.0)
    return jax.tree.map(
        lambda leaf: leaf * factor.astype(leaf.dtype) if jnp.issubdtype(leaf.dtype, jnp.floating) else leaf, numbers
    )


def cold_start(model: Model, parameters: Parameters) -> Path:
    """Where the iteration begins: NaN, so that it ends there, where the parameters are not valid."""
    return jnp.where(valid(model, parameters), first_guess(model, lay_out(model, parameters)), jnp.nan)


def first_guess(model: Model, game: Game) -> Path:
    """The best reply of a maker without inventory risk, who values nothing but the next fill, to a crowd at offset 0."""
    flat = jnp.zeros_like(game.terminal_value)
    quotes = best_quotes(model, game, flat, jnp.zeros((2,), flat.dtype))
    return jnp.broadcast_to(quotes[:, 0], (model.n_steps + 1, 2))


Find = Callable[[Model, Parameters, Any], tuple[Path, Search]]
"""(model, parameters, what else the search needs) → a crowd path D with Φ(D) = D."""


@partial(jax.custom_jvp, nondiff_argnums=(0, 1))
def settle(find: Find, model: Model, parameters: Parameters, hint: Any) -> tuple[Path, BestReply, Search]:
    """The crowd path D with Φ(D) = D, the best reply to it, and how it was found.

    Differentiable in the parameters by the implicit function theorem: one linearisation of the best reply does for all.
    """
    crowd, found = find(model, parameters, hint)
    return crowd, best_reply(model, lay_out(model, parameters), crowd), found


@settle.defjvp
def _tangents_of_settle(find: Find, model: Model, primals: Any, tangents: Any) -> tuple[Any, Any]:
    parameters, hint = primals
    crowd, _, found = settle(find, model, parameters, hint)
    reply, linear = jax.linearize(lambda p, crowd: best_reply(model, lay_out(model, p), crowd), parameters, crowd)
    still = jax.tree.map(jnp.zeros_like, parameters)
    direct = linear(tangents[0], jnp.zeros_like(crowd))
    crowd_tangent = _solve_linearised(lambda x: x - linear(still, x).crowd, direct.crowd)
    through_crowd = linear(still, crowd_tangent)
    reply_tangent = jax.tree.map(lambda a, b: a if a.dtype == jax.dtypes.float0 else a + b, direct, through_crowd)
    return (crowd, reply, found), (crowd_tangent, reply_tangent, jax.tree.map(zero_from_primal, found))


def _solve_linearised(linear: Callable[[Path], Path], target: Path) -> Path:
    """Solves linear(x) = target; `custom_linear_solve` makes it differentiable in both modes, any number of times."""

    def solve(matvec: Callable[[Path], Path], b: Path) -> Path:
        return krylov.solve(lambda x: matvec(x.reshape(b.shape)).ravel(), b.ravel()).reshape(b.shape)

    return jax.lax.custom_linear_solve(linear, target, solve, solve)

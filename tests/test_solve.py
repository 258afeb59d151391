"""How `solve` behaves: transformations, statuses, messages, edge cases, and choices of one's own."""

import dataclasses
import functools
import itertools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import register_static

import mfg_jax as mfg
from mfg_jax.parameters import as_scalars, order_flow
from mfg_jax.scheme import spectral_bound
from tests.conftest import (
    BASE_GAME,
    LANES,
    default_model,
    differentiate_games,
    parameters_of,
    solve_games,
)

MILD = {"A": 1.0, "k0": 0.4, "n_makers": 3.0, "crowd_mean": 1.0, "crowd_std": 1.5, "eta": 0.05, "gamma": 0.1}
STIFF = {"crowd_mean": 2.0, "gamma": 0.5, "eta": 0.1}
"""The skewed crowd under strong relative competition of MODEL.md, section 5."""


solve = functools.partial(mfg.solve, select="cold")
"""What is tested here does not depend on the path that `tests/test_continuation.py` follows, which takes long to compile."""


def small(coupling: mfg.Coupling | str = "elastic", **choices: Any) -> mfg.Model:
    """A model that is quickly compiled and solved, fine enough for MILD games."""
    return mfg.Model(coupling, **{"x_max": 3, "n_steps": 12, "scheme": "euler", "solver": {"tolerance": 1e-12}, **choices})


def stack(*games: dict[str, float]) -> mfg.Parameters:
    return jax.tree.map(lambda *leaves: np.array(leaves), *map(parameters_of, games))


def lane(batch: mfg.Equilibrium, i: int) -> mfg.Equilibrium:
    return jax.tree.map(lambda leaf: leaf[i], batch)


def assert_close(one: mfg.Equilibrium, other: mfg.Equilibrium, tolerance: float = 1e-12) -> None:
    """Every field is the same; the residual, which is rounding, to its size."""
    for field in dataclasses.fields(one):
        found, expected = getattr(one, field.name), getattr(other, field.name)
        if found is None or expected is None:  # a certificate that was not asked for
            assert found is expected, field.name
            continue
        np.testing.assert_allclose(found, expected, rtol=tolerance, atol=tolerance, err_msg=field.name)


# Transformations. Most of these programs are compiled as users compile them, with all optimisations.


def test_jit_and_vmap_change_nothing() -> None:
    games = [MILD, MILD | {"k0": 0.0, "crowd_mean": -2.0}]
    together = jax.vmap(lambda p: solve(small(), p))(stack(*games))
    compiled = jax.jit(lambda p: solve(small(), p))
    for i, game in enumerate(games):
        alone = solve(small(), parameters_of(game))
        assert alone.status == mfg.Status.CONVERGED
        assert_close(compiled(parameters_of(game)), alone)
        assert_close(lane(together, i), alone)


SWEPT = ("A", "k", "eta", "gamma")


def test_gradients_under_vmap_and_hessian() -> None:
    """Second derivatives against central differences of gradients, all of which are one batch."""
    center = BASE_GAME | MILD
    steps = {name: 1e-4 * center[name] for name in SWEPT}

    def mean_spread(parameters: mfg.Parameters) -> jax.Array:
        return mfg.metrics(small(), parameters, solve(small(), parameters)).mean_spread

    def of_swept(swept: dict[str, float]) -> jax.Array:
        return mean_spread(mfg.Parameters(**(center | swept)))

    moved = (center | {name: center[name] + sign * steps[name]} for name in SWEPT for sign in (1, -1))
    gradients = [solved.gradient for solved in differentiate_games(small(), *moved)]
    hessian = jax.jit(jax.hessian(of_swept))({name: center[name] for name in SWEPT})
    for (i, name), other in itertools.product(enumerate(SWEPT), SWEPT):
        up, down = (float(getattr(gradient, other)) for gradient in gradients[2 * i : 2 * i + 2])
        difference = (up - down) / (2.0 * steps[name])
        assert float(hessian[name][other]) == pytest.approx(difference, rel=1e-5, abs=1e-7), (name, other)


def test_a_game_does_not_depend_on_its_neighbours() -> None:
    """The documented model. Its games explode, cannot be, do not converge or do, and each says the same alone."""
    model = mfg.Model(coupling="relative", x_max=10, n_steps=200)
    games = {
        "default": ({}, mfg.Status.CONVERGED),
        "explodes": ({"A": 1e6}, mfg.Status.UNSTABLE_STEP),
        "cannot be": ({"gamma": -1.0}, mfg.Status.INVALID_PARAMETERS),
        "does not converge": (STIFF, mfg.Status.ITERATION_LIMIT),
        "overflows": ({"eta": 1e308}, mfg.Status.NON_FINITE),
        "skewed": ({"crowd_mean": 1.0}, mfg.Status.CONVERGED),
    }
    filled = itertools.islice(itertools.cycle(game for game, _ in games.values()), 16)
    together = jax.vmap(lambda p: solve(model, p))(stack(*filled))
    for i, (name, (game, status)) in enumerate(games.items()):
        alone = solve(model, parameters_of(game))
        assert alone.status == lane(together, i).status == status, name
        if status == mfg.Status.CONVERGED:
            assert alone.residual * BASE_GAME["k"] <= model.solver.tolerance
            assert_close(lane(together, i), alone)
            (to_rounding,) = solve_games(default_model("relative"), game)
            np.testing.assert_allclose(alone.crowd_ask, to_rounding.crowd_ask, atol=1e-8)
        elif status != mfg.Status.ITERATION_LIMIT:
            for found in (alone, lane(together, i)):
                assert found.residual == np.inf, name
                for figure in ("mass_error", "min_density", "edge_mass"):
                    assert np.isnan(getattr(found, figure)), (name, figure)


# Solvers.


def test_picard_and_anderson_agree_and_anderson_needs_fewer_evaluations() -> None:
    games = [MILD | {"k0": 0.0, "crowd_mean": mean} for mean in (0.5, 1.0, -2.0)]
    anderson = solve_games(small(solver={"method": "anderson", "tolerance": 1e-12}), *games)
    picard = solve_games(small(solver={"method": "picard", "tolerance": 1e-12}), *games)
    for one, other in zip(anderson, picard, strict=True):
        assert one.status == other.status == mfg.Status.CONVERGED
        np.testing.assert_allclose(one.crowd_ask, other.crowd_ask, atol=1e-11)
        np.testing.assert_allclose(one.crowd_bid, other.crowd_bid, atol=1e-11)
        assert one.iterations < 0.5 * other.iterations


def iterate(solver: mfg.FixedPointSolver, phi: Callable[[jax.Array], jax.Array], starts: list[float]) -> Any:
    """Towards fixed points in the box [0, 4], from constant paths, all in one batch of the size of a real one."""
    paths = np.array(starts)[:, None, None] * np.ones((201, 2))

    def search(start: jax.Array) -> Any:
        stable = lambda path: (phi(path), jnp.asarray(False))  # noqa: E731
        return solver.solve(stable, start, lambda path: jnp.clip(path, 0.0, 4.0), jnp.asarray(1e-9))

    return jax.jit(jax.vmap(search))(paths)


def test_anderson_refuses_trials_that_make_things_worse() -> None:
    """Φ(D) = 4 − 3D drives Picard apart. Where it is no number the plain step is shortened, and two points tell its slope."""
    starts = [0.5] * 16
    found = iterate(mfg.Anderson(), lambda path: jnp.where(path > 2.0, jnp.nan, 4.0 - 3.0 * path), starts)
    np.testing.assert_allclose(found.point, 1.0, atol=1e-9)
    np.testing.assert_array_equal(found.iterations, 4)  # at 0.5, refused at 2.5, at 1.5 halfway, and at the fixed point


def test_the_best_point_seen_is_kept() -> None:
    """Even where the iteration leaves it, or meets numbers that are none."""
    starts = [1.25] * 16
    picard = mfg.Picard(max_iterations=20)
    for phi in (lambda path: 4.0 - 3.0 * path, lambda path: jnp.where(path < 1.0, jnp.nan, 4.0 - 3.0 * path)):
        found = iterate(picard, phi, starts)
        np.testing.assert_array_equal(found.point, 1.25)
        np.testing.assert_array_equal(found.residual, 1.0)


def test_converged_is_judged_on_the_undamped_residual_in_units_of_k() -> None:
    """The residual is that of the point returned: Picard's next residuals are the changes it makes."""
    loose, tight = small(solver=mfg.Picard(tolerance=1e-3)), small(solver=mfg.Picard(tolerance=1e-12))
    (rough,), (exact,) = solve_games(loose, MILD), solve_games(tight, MILD)
    assert 1e-6 < rough.residual * BASE_GAME["k"] <= 1e-3
    assert 0.0 < np.abs(rough.crowd_ask - exact.crowd_ask).max() < rough.residual
    assert rough.iterations < exact.iterations


# Statuses.


def test_iteration_limit() -> None:
    (equilibrium,) = solve_games(small(solver={"tolerance": 1e-12, "max_iterations": 2}), MILD)
    assert equilibrium.status == mfg.Status.ITERATION_LIMIT
    assert equilibrium.iterations == 2
    assert 1e-12 < equilibrium.residual < 1.0
    assert np.isfinite(equilibrium.crowd_ask).all()


def test_a_stiff_game_is_not_called_converged() -> None:
    """Nor a game that these steps cannot follow at all."""
    stiff, unstable = solve_games(default_model("relative"), STIFF, STIFF | {"A": 100.0})
    assert stiff.status in (mfg.Status.ITERATION_LIMIT, mfg.Status.UNSTABLE_STEP)
    assert unstable.status == mfg.Status.UNSTABLE_STEP
    assert np.isnan(unstable.value).all() and np.isnan(unstable.crowd_ask).all()


def test_steps_of_a_chosen_scheme_that_are_too_long_are_said_at_once() -> None:
    """Also where a path could be followed: it is the scheme that was asked for that cannot take these steps."""
    equilibrium = mfg.solve(small(), parameters_of(MILD | {"A": 100.0}))
    assert equilibrium.status == mfg.Status.UNSTABLE_STEP
    assert np.isnan(equilibrium.crowd_ask).all()


def test_an_iteration_that_instability_made_overflow_says_so() -> None:
    """Here steps are too long for some trials on the way, but not for the best."""
    game = {"A": 5.0, "eta": 0.1, "gamma": 2.0, "crowd_mean": 1.0}
    (equilibrium,) = solve_games(mfg.Model("relative", n_steps=50, solver="picard"), game)
    assert equilibrium.status == mfg.Status.UNSTABLE_STEP
    assert np.isfinite(equilibrium.residual) and equilibrium.iterations < 200


INVALID = [
    *({name: value} for name in ("A", "k", "horizon", "crowd_std") for value in (0.0, -1.0, np.nan, np.inf)),
    *({name: value} for name in ("eta", "gamma", "k0") for value in (-1e-9, np.nan, np.inf)),
    *({"n_makers": value} for value in (1.0, 0.5, np.nan, np.inf)),
    *({"crowd_mean": value} for value in (np.nan, np.inf)),
    {"quote_min": 1.0, "quote_max": 0.9},
    {"quote_min": np.nan},
    {"quote_max": np.nan},
    {"quote_min": np.inf, "quote_max": np.inf},
    {"quote_min": -np.inf, "quote_max": -np.inf},
]


def test_invalid_parameters() -> None:
    """Each kind on its own, all beside a valid game."""
    model = small("market_share")
    for start in range(0, len(INVALID), LANES - 1):
        invalid = INVALID[start : start + LANES - 1]
        *found, valid = solve_games(model, *(MILD | game for game in invalid), MILD)
        assert valid.status == mfg.Status.CONVERGED
        for game, equilibrium in zip(invalid, found, strict=True):
            assert equilibrium.status == mfg.Status.INVALID_PARAMETERS, game
            for name in ("value", "density", "crowd_ask", "crowd_bid", "mass_error"):
                assert np.isnan(getattr(equilibrium, name)).all(), (game, name)


def test_parameters_that_a_coupling_does_not_use_are_not_judged() -> None:
    (equilibrium,) = solve_games(small("elastic"), MILD | {"n_makers": 0.0})
    assert equilibrium.status == mfg.Status.CONVERGED


def test_every_status_explains_itself() -> None:
    assert [status.value for status in mfg.Status] == [0, 1, 2, 3, 4, 5, 6, 7]
    assert all(len(status.explanation) > 20 for status in mfg.Status)


# Single precision.


def test_single_precision_warns_that_the_tolerance_is_out_of_reach() -> None:
    parameters = jax.tree.map(lambda number: jnp.asarray(number, jnp.float32), parameters_of(MILD))
    with pytest.warns(UserWarning, match=r"solving in float32, which cannot reach a tolerance of 1e-12: .*jax_enable_x64"):
        jax.eval_shape(lambda p: solve(small(), p), parameters)


def test_single_precision_reaches_a_looser_tolerance() -> None:
    parameters = jax.tree.map(lambda number: jnp.asarray(number, jnp.float32), parameters_of(MILD))
    model = small(solver={"tolerance": 1e-5})
    single = jax.jit(lambda p: solve(model, p))(parameters)
    (double,) = solve_games(small(), MILD)
    assert single.status == mfg.Status.CONVERGED
    floats = [leaf.dtype for leaf in jax.tree.leaves(single) if jnp.issubdtype(leaf.dtype, jnp.floating)]
    assert set(floats) == {jnp.dtype(jnp.float32)}
    np.testing.assert_allclose(single.crowd_ask, double.crowd_ask, atol=1e-4)
    np.testing.assert_allclose(single.value, double.value, atol=1e-4)


# Messages.


@pytest.mark.parametrize(
    ("choices", "message"),
    [
        ({"coupling": "relativ"}, "coupling must be one of 'relative', .*; found 'relativ'; did you mean 'relative'"),
        ({"coupling": 3}, "Model.coupling must be one of"),
        ({"boundary": "reflect"}, "boundary must be one of 'reflecting', 'absorbing'; .*did you mean 'reflecting'"),
        ({"scheme": "rk5"}, "scheme must be one of 'automatic', 'rk4', 'euler', 'exponential'; found 'rk5'; did you mean 'rk4'"),
        ({"initial": "gaussian"}, "initial must be one of 'normal', 'point', 'uniform'; found 'gaussian'"),
        ({"initial": mfg.Weights((1.0, 2.0, 1.0))}, "initial needs 21 weights, one per inventory; found 3"),
        ({"solver": "newton"}, "solver must be one of 'anderson', 'picard'; found 'newton'"),
        ({"solver": {"tolerance": 0.0}}, "tolerance must be between 0 and 1; found 0.0"),
        ({"solver": {"tolerance": math.nan}}, "tolerance must be between 0 and 1; found nan"),
        ({"solver": {"max_iterations": 0}}, "max_iterations must be a whole number >= 1; found 0"),
        ({"solver": {"max_iterations": 10.5}}, "max_iterations must be a whole number >= 1; found 10.5"),
        ({"solver": {"window": 0}}, "window must be a whole number >= 1; found 0"),
        ({"solver": {"precision": 1e-3}}, "solver takes method, tolerance and max_iterations; found .*precision"),
        ({"x_max": 0}, "x_max must be a whole number >= 1; found 0"),
        ({"x_max": 2.5}, "x_max must be a whole number >= 1; found 2.5"),
        ({"n_steps": True}, "n_steps must be a whole number >= 1, or 'auto'; found True"),
        ({"n_steps": "aut"}, "n_steps must be a whole number >= 1, or 'auto'; found 'aut'"),
        ({"time_tolerance": 0.0}, "time_tolerance must be a finite number > 0, or None; found 0.0"),
        ({"grading": -1.0}, "grading must be a number from 0 .* to 20; found -1.0"),
        ({"grading": "fine"}, "grading must be a number from 0 .* to 20; found 'fine'"),
    ],
)
def test_model_refuses(choices: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        mfg.Model(**choices)


def test_sides_of_many_games_without_a_common_value() -> None:
    games = mfg.Parameters(A=None, A_ask=np.ones(3), A_bid=np.full(3, 2.0), k=np.ones(3), eta=np.zeros(3), gamma=np.zeros(3))
    assert games.A is None and isinstance(games.A_bid, np.ndarray)


def test_whole_numbers_of_numpy_are_whole_numbers() -> None:
    choices: dict[str, Any] = {"x_max": np.int64(4), "n_steps": np.int32(12), "solver": {"max_iterations": np.int64(50)}}
    model = mfg.Model("relative", **choices)
    assert model == mfg.Model("relative", x_max=4, n_steps=12, solver={"max_iterations": 50})


@pytest.mark.parametrize("weights", [(1.0, -1.0, 1.0), (0.0, 0.0), (1.0, math.nan), ((1.0,), (2.0,)), (math.inf, 1.0)])
def test_weights_refuse(weights: Any) -> None:
    with pytest.raises(ValueError, match="crowd weights must be finite, not negative, and sum to more than 0"):
        mfg.Weights(weights)


@pytest.mark.parametrize(
    ("numbers", "message"),
    [
        ({"eta": "0.1"}, "Parameters.eta must be a number; found '0.1'"),
        ({"eta": None}, "Parameters.eta must be a number; found None"),
        ({"gamma": True}, "Parameters.gamma must be a number; found True"),
        ({"A": None}, "give Parameters.A, or both A_ask and A_bid"),
        ({"k": None, "k_ask": 1.0}, "give Parameters.k, or both k_ask and k_bid"),
    ],
)
def test_parameters_refuse(numbers: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        mfg.Parameters(**({"A": 1.0, "k": 1.0, "eta": 0.1, "gamma": 0.1} | numbers))


def test_solve_takes_one_game() -> None:
    with pytest.raises(ValueError, match=r"Parameters.eta has shape \(3,\), but solve takes one game: use jax.vmap"):
        solve(small(), parameters_of(MILD | {"eta": np.ones(3)}))


def test_solve_refuses_unknown_certificates() -> None:
    with pytest.raises(ValueError, match=r"certify must be one of 'basic', 'full'; found 'everything'"):
        solve(small(), parameters_of(MILD), certify="everything")


def test_equal_choices_are_one_model() -> None:
    """So that a program compiled for one serves the other."""
    one, other = small(solver="anderson"), small(solver=mfg.Anderson())
    assert one == other and hash(one) == hash(other)
    assert one != small(solver="picard") and jax.tree.leaves(one) == []


# The flow of each side.

PENALTIES = {"eta": 0.1, "gamma": 0.1}


def test_one_side_overrides_both() -> None:
    """And what is given for each side need not be given for both."""
    expected = [[1.2], [0.9]], [[1.5], [1.8]]
    for numbers in (
        {"A": 1.2, "A_bid": 0.9, "k": 1.8, "k_ask": 1.5},
        {"A": None, "A_ask": 1.2, "A_bid": 0.9, "k": None, "k_ask": 1.5, "k_bid": 1.8},
        {"A": 7.0, "A_ask": 1.2, "A_bid": 0.9, "k": 7.0, "k_ask": 1.5, "k_bid": 1.8},
    ):
        flow = order_flow(as_scalars(mfg.Parameters(**numbers, **PENALTIES)))
        np.testing.assert_array_equal(flow.A, expected[0])
        np.testing.assert_array_equal(flow.k, expected[1])


def test_highest_quote_is_ten_over_k_of_the_side_unless_given() -> None:
    default = order_flow(as_scalars(mfg.Parameters(A=1.0, k=2.0, k_bid=1.0, **PENALTIES)))
    np.testing.assert_array_equal(default.quote_max, [[5.0], [10.0]])
    given = order_flow(as_scalars(mfg.Parameters(A=1.0, k=2.0, k_bid=1.0, quote_max=3.0, **PENALTIES)))
    np.testing.assert_array_equal(given.quote_max, [[3.0], [3.0]])
    assert default.quote_min == 0.0


# Boundaries and initial crowds.


def test_reflecting_makers_quote_one_side_at_the_limits() -> None:
    (equilibrium,) = solve_games(small(), MILD)
    ask, bid = np.isinf(equilibrium.ask), np.isinf(equilibrium.bid)
    assert ask[:, 0].all() and not ask[:, 1:].any()
    assert bid[:, -1].all() and not bid[:, :-1].any()


def test_absorbed_makers_stop_quoting_until_the_close() -> None:
    """They only pay: V(t, ±M) = −ηM²(T − t) − γM²; nobody leaves ±M, and some arrive."""
    (equilibrium,) = solve_games(small(boundary="absorbing"), MILD)
    for quotes in (equilibrium.ask, equilibrium.bid):
        unquoted = np.isinf(quotes)
        assert unquoted[:, [0, -1]].all() and not unquoted[:, 1:-1].any()
    waiting = MILD["eta"] * (equilibrium.time[-1] - equilibrium.time) + MILD["gamma"]
    np.testing.assert_allclose(equilibrium.value[:, [0, -1]], -9.0 * waiting[:, None] * np.ones(2), rtol=1e-12)
    assert np.all(np.diff(equilibrium.density[:, [0, -1]], axis=0) > 0.0)


def test_a_crowd_starts_as_given() -> None:
    weights = (1.0, 0.0, 3.0, 2.0, 0.0, 1.0, 1.0)
    (equilibrium,) = solve_games(small(initial=mfg.Weights(weights)), MILD)
    assert equilibrium.status == mfg.Status.CONVERGED
    np.testing.assert_allclose(equilibrium.density[0], np.array(weights) / 8.0, rtol=1e-14)
    assert np.abs(equilibrium.density[-1] - equilibrium.density[0]).max() > 0.01
    assert small(initial="uniform").initial == mfg.Uniform()


@pytest.mark.parametrize("boundary", ["reflecting", "absorbing"])
def test_a_crowd_entirely_at_one_limit(boundary: str) -> None:
    """Nobody bids at +M: the average bid starts as the bid at M − 1. Where +M absorbs, nobody ever trades."""
    between, at_limit, at_other = solve_games(
        small(initial="point", boundary=boundary), *(MILD | {"crowd_mean": mean} for mean in (0.5, 3.0, -3.0))
    )
    assert between.status == mfg.Status.INVALID_PARAMETERS
    assert at_limit.status == at_other.status == mfg.Status.CONVERGED
    np.testing.assert_array_equal(at_limit.density[0], [0, 0, 0, 0, 0, 0, 1])
    assert np.isfinite(at_limit.crowd_ask).all() and np.isfinite(at_limit.crowd_bid).all()
    assert at_limit.crowd_bid[0] == pytest.approx(at_limit.bid[0, -2], abs=1e-11)
    assert at_limit.crowd_ask[0] == pytest.approx(at_limit.ask[0, -1 if boundary == "reflecting" else -2], abs=1e-11)
    assert at_other.crowd_ask[0] == pytest.approx(at_other.ask[0, 1], abs=1e-11)
    assert (at_limit.edge_mass == 1.0) and (at_limit.density[-1, -1] == 1.0) == (boundary == "absorbing")


# Edge cases of the numbers.


def test_the_smallest_lattice() -> None:
    (equilibrium,) = solve_games(small(x_max=1), MILD)
    assert equilibrium.status == mfg.Status.CONVERGED
    np.testing.assert_array_equal(equilibrium.inventory, [-1.0, 0.0, 1.0])
    assert equilibrium.ask[-1, 1] + equilibrium.bid[-1, 1] == pytest.approx(2.0 / BASE_GAME["k"] + 2.0 * MILD["gamma"])


def test_games_at_the_limits_of_what_is_allowed() -> None:
    """No penalties, one quote allowed, hardly a rival."""
    free, fixed, monopoly = solve_games(
        small("market_share"),
        MILD | {"eta": 0.0, "gamma": 0.0},
        MILD | {"quote_min": 0.7, "quote_max": 0.7},
        MILD | {"n_makers": 1.0 + 1e-6, "k0": 0.0},
    )
    assert free.status == fixed.status == monopoly.status == mfg.Status.CONVERGED
    np.testing.assert_array_equal(free.value[-1], 0.0)
    assert np.all(free.value[0] > 0.0)
    assert {*np.unique(fixed.ask), *np.unique(fixed.bid)} == {0.7, np.inf}
    np.testing.assert_allclose(fixed.clipped_mass, 1.0, atol=0.2)
    np.testing.assert_allclose(monopoly.crowd_ask, BASE_GAME["quote_max"], atol=1e-3)


# Couplings and schemes of one's own.


@register_static
@dataclasses.dataclass(frozen=True)
class Blend(mfg.Coupling):
    """Relative competition for a part of the flow's response: λ = A·exp(−kδ + weight·k·δ̄), elastic with k0 = (1 − weight)·k."""

    weight: float

    def rate(self, quote: jax.Array, crowd: jax.Array, flow: mfg.Flow) -> jax.Array:
        return flow.A * jnp.exp(flow.k * (self.weight * crowd - quote))

    def unbounded_quote(self, jump: jax.Array, crowd: jax.Array, flow: mfg.Flow) -> jax.Array:
        del crowd
        return 1.0 / flow.k - jump


def test_a_coupling_of_ones_own() -> None:
    (own,) = solve_games(small(coupling=Blend(0.75)), MILD)
    (elastic,) = solve_games(small(), MILD | {"k0": 0.25 * BASE_GAME["k"]})
    np.testing.assert_allclose(own.crowd_ask, elastic.crowd_ask, atol=1e-11)
    np.testing.assert_allclose(own.value, elastic.value, atol=1e-11)


def test_a_scheme_of_ones_own_has_its_order() -> None:
    """Heun's method is of second order, backward and in the transpose; it is compared with the default's 200 steps."""
    heun = mfg.RungeKutta(((), (1.0,)), (0.5, 0.5), (0.0, 1.0), speed=spectral_bound, speed_limit=2.0)
    (fine,) = solve_games(default_model("elastic"), MILD)
    coarse = [solve_games(default_model("elastic", scheme=heun, n_steps=n), MILD)[0] for n in (25, 50)]
    errors = [np.abs(solved.crowd_bid - fine.crowd_bid[:: 200 // n]).max() for solved, n in zip(coarse, (25, 50), strict=True)]
    assert min(errors) > 1e-9
    assert 1.8 < np.log2(errors[0] / errors[1]) < 2.3

"""What is known of the model without solving it: limits, symmetries, published figures (MODEL.md, section 8, in its order)."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.typing import ArrayLike, NDArray
from scipy.linalg import expm

import mfg_jax as mfg
from mfg_jax.best_reply import best_reply
from mfg_jax.game import lay_out
from mfg_jax.parameters import as_scalars
from tests.conftest import (
    BASE_GAME,
    UNCLIPPED,
    default_model,
    differentiate_games,
    measure,
    solve_games,
)

COUPLINGS = ["relative", "elastic", "market_share", "none"]


def assert_same(one: mfg.Equilibrium, other: mfg.Equilibrium, tolerance: float, clock: float = 1.0, price: float = 1.0) -> None:
    """Two games have the same solution, where the second counts time and prices in other units."""
    scales = {"time": clock, **dict.fromkeys(["value", "ask", "bid", "crowd_ask", "crowd_bid"], price), "density": 1.0}
    for name, scale in scales.items():
        expected = scale * getattr(one, name)
        np.testing.assert_allclose(getattr(other, name), expected, atol=tolerance, rtol=tolerance, err_msg=name)


# 1. Alone and unclipped, the HJB is linear in w = exp(kV), and the density is w times a solution of the adjoint equation.


@pytest.mark.parametrize(
    "game", [{}, {"crowd_mean": 2.0, "eta": 0.1, "gamma": 0.1}, {"A": 20.0, "k": 0.8, "gamma": 0.0, "crowd_mean": -3.0}]
)
def test_alone_and_unclipped_the_solution_is_a_matrix_exponential(game: dict[str, float]) -> None:
    (equilibrium,) = solve_games(default_model("none"), game | UNCLIPPED)
    numbers = BASE_GAME | game
    k, x, horizon = numbers["k"], equilibrium.inventory, numbers["horizon"]
    matrix = numbers["A"] / np.e * (np.eye(x.size, k=1) + np.eye(x.size, k=-1)) - np.diag(k * numbers["eta"] * x**2)
    w_end = np.exp(-k * numbers["gamma"] * x**2)
    v_start = equilibrium.density[0] / (expm(horizon * matrix) @ w_end)
    for step in range(0, equilibrium.time.size, 40):
        time = equilibrium.time[step]
        w, v = expm((horizon - time) * matrix) @ w_end, expm(time * matrix.T) @ v_start
        np.testing.assert_allclose(equilibrium.value[step], np.log(w) / k, atol=1e-7)
        np.testing.assert_allclose(equilibrium.ask[step, 1:], (1.0 + np.log(w[1:] / w[:-1])) / k, atol=1e-7)
        np.testing.assert_allclose(equilibrium.bid[step, :-1], (1.0 + np.log(w[:-1] / w[1:])) / k, atol=1e-7)
        np.testing.assert_allclose(equilibrium.density[step], w * v, atol=1e-7)


# 2, 3. Published figures.


def test_published_values_at_zero_inventory() -> None:
    """Cartea, Jaimungal and Penalva, Algorithmic and High-Frequency Trading, equation 10.11."""
    published = {
        (140.0, 1.5, 1.0): 68.25583476,
        (100.0, 1.0, 1.0): 73.22586344,
        (50.0, 2.0, 1.0): 18.21929052,
        (50.0, 2.0, 2.0): 36.32607427,
    }
    games = [{"A": A, "k": k, "horizon": T, "gamma": 0.001, **UNCLIPPED} for A, k, T in published]
    solved = solve_games(default_model("none", x_max=100, n_steps=1000), *games)
    assert [equilibrium.status for equilibrium in solved] == [mfg.Status.CONVERGED] * len(games)
    np.testing.assert_allclose([equilibrium.value[0, 100] for equilibrium in solved], list(published.values()), rtol=1e-6)


def test_published_asks() -> None:
    """Cartea, Donnelly and Jaimungal, figure 1."""
    game = {"A": 2.0, "k": 15.0, "eta": 0.0, "gamma": 0.01, "horizon": 10.0}
    (equilibrium,) = solve_games(default_model("none", x_max=3), game | UNCLIPPED)
    assert equilibrium.status == mfg.Status.CONVERGED
    np.testing.assert_allclose(equilibrium.ask[0, 1:], [0.1076, 0.0845, 0.0719, 0.0614, 0.0488, 0.0257], atol=0.51e-4)


# 4. The stationary coupled game.


def test_far_from_the_close_spread_and_variance_depend_on_one_number() -> None:
    """k·spread and variance for ηk/A = 0.01, 0.1, 1. The crowd starts near where it will settle."""
    games = [
        {"eta": 0.01, "horizon": 60.0, "crowd_std": 2.25},
        {"eta": 0.1, "horizon": 30.0, "crowd_std": 1.28},
        {"eta": 1.0, "horizon": 8.0, "crowd_std": 0.74},
    ]
    long_run = [(2.09881087, 5.05867536), (2.30404906, 1.64165289), (2.88762034, 0.55296142)]
    model = mfg.Model("relative", n_steps=400, grading=0.0)
    solved = solve_games(model, *({"A": 1.0, "k": 1.0, **game, **UNCLIPPED} for game in games))
    for equilibrium, (spread, variance) in zip(solved, long_run, strict=True):
        middle = model.n_steps // 2
        assert equilibrium.status == mfg.Status.CONVERGED
        assert equilibrium.crowd_ask[middle] + equilibrium.crowd_bid[middle] == pytest.approx(spread, rel=1e-7)
        assert equilibrium.density[middle] @ equilibrium.inventory**2 == pytest.approx(variance, rel=1e-6)


# 5, 6. The close, and symmetry.


@pytest.mark.parametrize("coupling", ["relative", "elastic", "none"])
def test_closing_quotes_are_known(coupling: str) -> None:
    (equilibrium,) = solve_games(default_model(coupling), {"k0": 0.3, "crowd_mean": 1.0} | UNCLIPPED)
    spread = equilibrium.ask[-1, 1:-1] + equilibrium.bid[-1, 1:-1]
    np.testing.assert_allclose(spread, 2.0 / BASE_GAME["k"] + 2.0 * BASE_GAME["gamma"], rtol=1e-13)


@pytest.mark.parametrize("coupling", COUPLINGS)
def test_mirrored_crowds_quote_mirrored(coupling: str) -> None:
    """Ask and bid swap with the sign of inventory; so a symmetric crowd quotes both sides alike."""
    symmetric, long, short = solve_games(
        default_model(coupling),
        {"k0": 0.3},
        *({"k0": 0.3, "eta": 0.1, "gamma": 0.2, "crowd_mean": mean} for mean in (1.5, -1.5)),
    )
    for one, other in ((symmetric, symmetric), (long, short)):
        np.testing.assert_allclose(other.bid, one.ask[:, ::-1], atol=1e-11)
        np.testing.assert_allclose(other.value, one.value[:, ::-1], atol=1e-11)
        np.testing.assert_allclose(other.density, one.density[:, ::-1], atol=1e-11)
        np.testing.assert_allclose(other.crowd_bid, one.crowd_ask, atol=1e-11)
    assert np.abs(long.crowd_bid - long.crowd_ask).max() > 0.1


# 7. Units.


@pytest.mark.parametrize("coupling", ["elastic", "market_share"])
def test_units_do_not_matter(coupling: str) -> None:
    game = {"k0": 0.3, "eta": 0.1, "gamma": 0.2, "crowd_mean": 1.0, "quote_min": 0.2, "quote_max": 1.2}
    numbers, hours, cents = BASE_GAME | game, 6.5, 100.0
    other_clock = {"A": numbers["A"] / hours, "eta": numbers["eta"] / hours, "horizon": numbers["horizon"] * hours}
    other_price = {name: numbers[name] * cents for name in ("eta", "gamma", "quote_min", "quote_max")} | {
        name: numbers[name] / cents for name in ("k", "k0")
    }
    one, in_hours, in_cents = solve_games(default_model(coupling), game, game | other_clock, game | other_price)
    assert one.clipped_mass.min() > 0.0
    assert_same(one, in_hours, 1e-10, clock=hours)
    assert_same(one, in_cents, 1e-10, price=cents)


# 8, 9. Couplings that meet.


def test_market_share_among_many_makers_is_elastic() -> None:
    """With A(N−1) in place of A the difference falls as 1/N."""
    game = {"k0": 0.3, "crowd_mean": 1.0}
    (elastic,) = solve_games(default_model("elastic"), game)
    crowds = [1e2, 1e4, 1e6]
    shares = solve_games(default_model("market_share"), *(game | {"A": BASE_GAME["A"] * (N - 1.0), "n_makers": N} for N in crowds))
    differences = [np.abs(share.crowd_ask - elastic.crowd_ask).max() for share in shares]
    np.testing.assert_allclose(differences, [7e-3, 7e-5, 7e-7], rtol=0.2)


def test_makers_without_inventory_risk_who_share_a_flow_quote_n_over_n_minus_1() -> None:
    makers = [1.2, 2.0, 5.0, 100.0]
    games = [{"n_makers": N, "gamma": 0.0, **UNCLIPPED} for N in makers]
    for N, equilibrium in zip(makers, solve_games(default_model("market_share"), *games), strict=True):
        assert BASE_GAME["k"] * equilibrium.crowd_ask[-1] == pytest.approx(N / (N - 1.0), rel=1e-10)


def test_elastic_runs_from_relative_to_none() -> None:
    game = {"crowd_mean": 1.0, "eta": 0.1, "gamma": 0.2}
    (relative,) = solve_games(default_model("relative"), game | {"k0": 0.7})
    (alone,) = solve_games(default_model("none"), game | {"k0": 0.7})
    full, no_competition = solve_games(default_model("elastic"), game | {"k0": 0.0}, game | {"k0": BASE_GAME["k"]})
    assert_same(relative, full, 1e-11)
    assert_same(alone, no_competition, 1e-11)
    assert np.abs(relative.value - alone.value).max() > 1.0


# 10. The long-horizon limit.


def test_far_from_the_close_a_maker_alone_quotes_as_in_glft() -> None:
    """δ = 1/k + ((1 ± 2x)/2)·√(ηe/(kA)), + for the bid, for small ηk/A: at x = 0 the error is linear in it."""
    etas = [0.01, 0.005]
    games = [{"A": 1.0, "k": 1.0, "eta": eta, "gamma": 0.01, "horizon": 80.0, **UNCLIPPED} for eta in etas]
    errors = []
    for eta, equilibrium in zip(etas, solve_games(default_model("none"), *games), strict=True):
        assert equilibrium.status == mfg.Status.CONVERGED
        errors.append(equilibrium.bid[0, 10] - (1.0 + 0.5 * np.sqrt(eta * np.e)))
        assert equilibrium.ask[0, 10] == pytest.approx(equilibrium.bid[0, 10], rel=1e-10)
        for x in (-1, 1):
            assert equilibrium.bid[0, 10 + x] == pytest.approx(1.0 + (0.5 + x) * np.sqrt(eta * np.e), abs=eta)
    assert max(map(abs, errors)) < 3e-3
    assert errors[0] / errors[1] == pytest.approx(2.0, rel=0.05)


# 11. Gradients.

SMOOTH = {"k0": 0.4, "n_makers": 3.0, "crowd_mean": 1.0, "eta": 0.05, "gamma": 0.15} | UNCLIPPED
CLIPPED = {"k0": 0.4, "n_makers": 3.0, "crowd_mean": 1.0, "eta": 0.1, "gamma": 0.5, "quote_min": 0.2, "quote_max": 1.25}


DIFFERENCES = {2: -1 / 12, 1: 8 / 12, -1: -8 / 12, -2: 1 / 12}
"""Of fourth order: weights of the function so many steps away, over the step."""


@pytest.mark.parametrize("coupling", ["elastic", "market_share"])
@pytest.mark.parametrize(
    ("game", "relative_step", "tolerance"), [(SMOOTH, 2e-3, 1e-7), (CLIPPED, 2e-6, 1e-6)], ids=["smooth", "clipped"]
)
def test_gradients_are_those_of_the_discrete_equilibrium(
    coupling: str, game: dict[str, float], relative_step: float, tolerance: float
) -> None:
    """Against differences: short ones near bounds, where the discrete solution has a jump of 1e-10 whenever a quote meets its bound
    at a stored time."""
    numbers = BASE_GAME | game
    steps = {name: relative_step * max(value, 0.1) for name, value in numbers.items() if np.isfinite(value)}
    moved = [game | {name: numbers[name] + by * step} for name, step in steps.items() for by in DIFFERENCES]
    model = default_model(coupling, solver={"tolerance": 1e-13})
    (solved,) = differentiate_games(model, game)
    spreads = [
        float(measure(model, other, equilibrium).mean_spread)
        for other, equilibrium in zip(moved, solve_games(model, *moved), strict=True)
    ]
    for (name, step), along in zip(steps.items(), np.reshape(spreads, (-1, len(DIFFERENCES))), strict=True):
        gradient = getattr(solved.gradient, name)
        assert gradient == pytest.approx(along @ list(DIFFERENCES.values()) / step, rel=tolerance, abs=1e-9), name
        assert gradient != 0.0 or (coupling, name) == ("elastic", "n_makers")


@pytest.mark.parametrize(("gamma", "contraction"), [(0.5, 0.9787), (0.52, 0.9865)])
def test_gradients_near_a_fold_where_naive_replies_hardly_contract(gamma: float, contraction: float) -> None:
    """Beyond a gamma of about 0.53 this equilibrium is gone. Steps so small that no quote meets a bound meanwhile.

    What little residual an iteration leaves varies with the parameters, and differences magnify it.
    """
    model = mfg.Model("relative", x_max=4, n_steps=24, solver={"tolerance": 2e-14})
    center = {"A": 5.0, "k": 1.5, "eta": 0.05, "gamma": gamma, "crowd_mean": 0.1}

    def opening_ask(moved: dict[str, float]) -> tuple[jax.Array, mfg.Equilibrium]:
        equilibrium = mfg.solve(model, mfg.Parameters(**moved, quote_max=5.0), select="cold", certify="full")
        return equilibrium.crowd_ask[0], equilibrium

    differentiated = jax.jit(jax.value_and_grad(opening_ask, has_aux=True))
    (_, equilibrium), gradient = differentiated(center)
    assert equilibrium.status == mfg.Status.CONVERGED
    assert equilibrium.contraction == pytest.approx(contraction, abs=5e-4)
    for name, value in center.items():
        step = 1e-5 * value
        along = sum(weight * differentiated(center | {name: value + by * step})[0][0] for by, weight in DIFFERENCES.items())
        assert gradient[name] == pytest.approx(float(along) / step, rel=1e-7, abs=1e-7), name


def test_implicit_derivatives_are_those_of_unrolled_iteration() -> None:
    """Forward mode, on a tiny lopsided game."""
    model = mfg.Model("elastic", x_max=2, n_steps=6, scheme="euler", solver={"tolerance": 1e-14})
    parameters = mfg.Parameters(
        A=1.0, A_ask=1.3, k=1.5, k_bid=1.2, k0=0.5, eta=0.1, gamma=0.2, crowd_mean=0.5, crowd_std=1.0, quote_max=2.0
    )

    def implicit(parameters: mfg.Parameters) -> jax.Array:
        equilibrium = mfg.solve(model, parameters, select="cold")
        return jnp.stack([equilibrium.crowd_ask, equilibrium.crowd_bid], axis=1)

    def unrolled(parameters: mfg.Parameters) -> jax.Array:
        game = lay_out(model, as_scalars(parameters))
        start = jnp.ones((model.n_steps + 1, 2))
        return jax.lax.scan(lambda crowd, _: (best_reply(model, game, crowd).crowd, None), start, length=60)[0]

    found, expected = (jax.jit(jax.jacfwd(path))(parameters) for path in (implicit, unrolled))
    for name in ("A", "A_ask", "k", "k_bid", "k0", "eta", "gamma", "crowd_mean", "crowd_std", "horizon"):
        assert np.abs(getattr(expected, name)).max() > 1e-3, name
        np.testing.assert_allclose(getattr(found, name), getattr(expected, name), rtol=1e-9, atol=1e-10, err_msg=name)


# 12. A crowd of finitely many makers.


def simulate(
    rates: NDArray[np.float64], grid: ArrayLike, times: ArrayLike, inventory: NDArray[np.int_], seed: int
) -> list[NDArray[np.int_]]:
    """The positions on the lattice of independent makers at the given times, exactly (thinning), from those at time 0.

    `rates` [time, side, x] are the fill rates at the times of `grid`, linear in between.
    """
    random = np.random.default_rng(seed)
    grid = np.asarray(grid)
    bound = rates.sum(axis=1).max()
    snapshots, inventory, clock = [], inventory.copy(), np.zeros(inventory.size)
    for end in np.asarray(times):
        clock += random.exponential(1.0 / bound, inventory.size)
        while (moving := np.flatnonzero(clock < end)).size:
            after = np.clip(np.searchsorted(grid, clock[moving]), 1, grid.size - 1)
            part = (clock[moving] - grid[after - 1]) / (grid[after] - grid[after - 1])
            here = inventory[moving]
            ask, bid = ((1.0 - part) * rates[after - 1, side, here] + part * rates[after, side, here] for side in (0, 1))
            chance = bound * random.random(moving.size)
            inventory[moving] += np.where(chance < ask, -1, np.where(chance < ask + bid, 1, 0))
            clock[moving] += random.exponential(1.0 / bound, moving.size)
        snapshots.append(inventory.copy())
        clock[:] = end  # exponential waits have no memory
    return snapshots


@pytest.mark.parametrize("boundary", ["reflecting", "absorbing"])
def test_simulated_makers_spread_out_as_the_density_says(boundary: str) -> None:
    game = {"k0": 0.3, "crowd_mean": 2.0, "crowd_std": 3.0}
    numbers, makers, steps = BASE_GAME | game, 100_000, [50, 120, 200]
    (equilibrium,) = solve_games(default_model("elastic", boundary=boundary), game)
    quotes = np.stack([equilibrium.ask, equilibrium.bid], axis=1)
    crowd = np.stack([equilibrium.crowd_ask, equilibrium.crowd_bid], axis=1)[:, :, None]
    rates = numbers["A"] * np.exp(-numbers["k0"] * crowd - numbers["k"] * (quotes - crowd))
    start = np.random.default_rng(0).choice(equilibrium.inventory.size, makers, p=equilibrium.density[0])
    for step, places in zip(steps, simulate(rates, equilibrium.time, equilibrium.time[steps], start, seed=1), strict=True):
        density = equilibrium.density[step]
        found = np.bincount(places, minlength=density.size) / makers
        populated = makers * density > 25.0
        assert populated.sum() >= 15
        assert np.all(np.abs(found - density)[populated] < 5.0 * np.sqrt(density * (1.0 - density) / makers)[populated])

"""The stationary game: what is known of it exactly, its definition checked by hand, and the long horizon whose limit it is."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.typing import NDArray

import mfg_jax as mfg
from mfg_jax.long_run import prospect, stationary_density
from tests.conftest import UNCLIPPED, default_model, parameters_of

Game = dict[str, float]

UNIT = {"A": 1.0, "k": 1.0, "k0": 0.3, "n_makers": 4.0, "eta": 0.05}
LOPSIDED = {"A_ask": 1.2, "A_bid": 0.9, "k_ask": 1.1, "k_bid": 0.95}
ALIKE = {"A_ask": 1.0, "A_bid": 1.0, "k_ask": 1.0, "k_bid": 1.0}
GAMES = {"smooth": LOPSIDED | UNCLIPPED, "clipped": LOPSIDED | {"quote_min": 0.5, "quote_max": 1.9}}
ONE_OF_A_FAMILY = ALIKE | UNCLIPPED | {"k0": 0.0}
"""Of a market shared: only relative offsets count."""
FIGURES = ("crowd_ask", "crowd_bid", "full_spread", "inventory_variance", "fill_rate_ask", "profit_rate")


def game_of(game: Game) -> mfg.Parameters:
    """Every one with the same fields, so that all go through one program."""
    return parameters_of(UNIT | ALIKE | game)


@functools.cache
def program(coupling: str, x_max: int) -> Callable[[mfg.Parameters], mfg.LongRun]:
    model = default_model(coupling, x_max=x_max)
    return jax.jit(lambda parameters: mfg.solve_long_run(model, parameters))


def attempt(coupling: str, game: Game, x_max: int = 10) -> mfg.LongRun:
    return jax.tree.map(np.asarray, program(coupling, x_max)(game_of(game)))


def long_run(coupling: str, game: Game, x_max: int = 10) -> mfg.LongRun:
    found = attempt(coupling, game, x_max)
    assert found.status == mfg.Status.CONVERGED and found.branch == mfg.Branch.PRINCIPAL
    return found


# What is known.


@pytest.mark.parametrize(
    ("ratio", "spread", "variance"), [(0.01, 2.09881087, 5.05867536), (0.1, 2.30404906, 1.64165289), (1.0, 2.88762034, 0.55296142)]
)
def test_spread_and_variance_depend_on_one_number(ratio: float, spread: float, variance: float) -> None:
    """MODEL.md, section 8, identity 4; profit has the units of A/k."""
    units = [(1.0, 1.0), (140.0, 1.0), (1.0, 0.2), (3e7, 5e4)]
    both_sides = [{"A_ask": A, "A_bid": A, "k": k, "k_ask": k, "k_bid": k, "eta": ratio * A / k} for A, k in units]
    solved = [long_run("relative", game | UNCLIPPED) for game in both_sides]
    for (A, k), found in zip(units, solved, strict=True):
        assert k * found.full_spread == pytest.approx(spread, rel=1e-8)
        assert found.inventory_variance == pytest.approx(variance, rel=1e-8)
        assert found.profit_rate * k / A == pytest.approx(solved[0].profit_rate, rel=1e-9)
        assert found.crowd_ask == pytest.approx(found.crowd_bid, rel=1e-9)
        assert found.residual * k <= 1e-12 and found.folds == 0


@pytest.mark.parametrize("eta", [0.0, 1e-8, 0.05, 3.0, 100.0])
@pytest.mark.parametrize("sides", [(1.0, 1.0), (1.4, 0.8)])
def test_alone_and_unclipped_the_value_is_a_perron_vector(eta: float, sides: tuple[float, float]) -> None:
    """Far from the close, of MODEL.md, section 8, identity 1: w = exp(kV) and the adjoint v tend to its first eigenvectors."""
    k, x, (A_ask, A_bid) = 1.5, np.arange(-10.0, 11.0), sides
    found = long_run("none", {"A_ask": A_ask, "A_bid": A_bid, "k_ask": k, "k_bid": k, "eta": eta} | UNCLIPPED)
    matrix = (A_bid * np.eye(x.size, k=1) + A_ask * np.eye(x.size, k=-1)) / np.e - np.diag(k * eta * x**2)
    balance = (A_ask / A_bid) ** (0.5 * x)  # makes it symmetric
    growth, vectors = np.linalg.eigh(matrix / balance[:, None] * balance)
    w, adjoint = balance * np.abs(vectors[:, -1]), np.abs(vectors[:, -1]) / balance
    assert found.profit_rate == pytest.approx(growth[-1] / k, rel=1e-9)
    density = w * adjoint / (w @ adjoint)
    np.testing.assert_allclose(found.density, density, atol=1e-11)
    likely = slice(*np.flatnonzero(density > 1e-9)[[0, -1]] + [0, 1])  # elsewhere the eigenvectors are rounding
    np.testing.assert_allclose(found.value[likely], (np.log(w / w[10]) / k)[likely], rtol=1e-9, atol=1e-9)
    asks, bids = (1.0 + np.log(w[1:] / w[:-1])) / k, (1.0 + np.log(w[:-1] / w[1:])) / k
    likely = density[1:] * density[:-1] > 1e-18
    np.testing.assert_allclose(found.ask[1:][likely], asks[likely], rtol=1e-9)
    np.testing.assert_allclose(found.bid[:-1][likely], bids[likely], rtol=1e-9)
    assert found.crowd_ask == pytest.approx(density[1:][likely] @ asks[likely] / density[1:].sum(), rel=1e-7)
    assert found.crowd_bid == pytest.approx(density[:-1][likely] @ bids[likely] / density[:-1].sum(), rel=1e-7)


def test_alone_without_inventory_risk() -> None:
    """η = 0: a particle in a box."""
    found = long_run("none", {"eta": 0.0} | UNCLIPPED)
    angle = np.pi / 22.0
    assert found.profit_rate == pytest.approx(2.0 / np.e * np.cos(angle), rel=1e-12)
    np.testing.assert_allclose(found.value, np.log(np.cos(angle * found.inventory)), atol=1e-11)
    np.testing.assert_allclose(found.density, np.cos(angle * found.inventory) ** 2 / 11.0, atol=1e-12)


def profit_with_one_lot_at_most(eta: float) -> float:
    """A maker alone, A = k = 1, M = 1: with w(±1)/w(0) = g·e/2, a quadratic equation for g."""
    return 4.0 / np.e**2 / (eta + np.sqrt(eta**2 + 8.0 / np.e**2))


@pytest.mark.parametrize("eta", [0.0, 0.3, 1e4])
def test_alone_with_one_lot_at_most(eta: float) -> None:
    found = long_run("none", {"eta": eta} | UNCLIPPED, x_max=1)
    profit = profit_with_one_lot_at_most(eta)
    assert found.profit_rate == pytest.approx(profit, rel=1e-12)
    np.testing.assert_allclose(found.value, np.log([profit * np.e / 2.0, 1.0, profit * np.e / 2.0]), rtol=1e-11, atol=1e-15)
    np.testing.assert_allclose(found.ask[1:], [1.0 - found.value[0], 1.0 + found.value[0]], rtol=1e-12)
    assert np.isinf(found.ask[0]) and np.isinf(found.bid[-1])


@pytest.mark.parametrize("eta", [1e8, 1e30])
def test_inventory_so_costly_that_one_lot_is_all_anyone_holds(eta: float) -> None:
    found = long_run("none", {"eta": eta} | UNCLIPPED)
    assert found.profit_rate == pytest.approx(profit_with_one_lot_at_most(eta), rel=1e-12)


def test_one_quote_allowed() -> None:
    """quote_min = quote_max: makers walk at random, and the density is geometric."""
    quote, A_ask, A_bid, k, eta = 0.7, 1.2, 0.9, 1.1, 0.05
    sides = {"A_ask": A_ask, "A_bid": A_bid, "k_ask": k, "k_bid": k}
    found = long_run("relative", sides | {"eta": eta, "quote_min": quote, "quote_max": quote})
    density = (A_bid / A_ask) ** found.inventory
    density /= density.sum()
    assert found.crowd_ask == pytest.approx(quote, rel=1e-14) and found.crowd_bid == pytest.approx(quote, rel=1e-14)
    np.testing.assert_allclose(found.density, density, rtol=1e-12)
    assert found.fill_rate_ask == pytest.approx(A_ask * density[1:].sum(), rel=1e-12)
    assert found.fill_rate_bid == pytest.approx(found.fill_rate_ask, rel=1e-12)
    profit = quote * 2.0 * A_ask * density[1:].sum() - eta * density @ found.inventory**2
    assert found.profit_rate == pytest.approx(profit, rel=1e-12)


# What it is by definition, without the library's lattice, couplings or averages.


def rates_by_hand(coupling: str, game: Game, side: str, quote: Any, crowd: Any) -> NDArray[Any]:
    A, k, k0, N = game[f"A_{side}"], game[f"k_{side}"], game["k0"], game["n_makers"]
    return {
        "relative": lambda: A * np.exp(-k * (quote - crowd)),
        "elastic": lambda: A * np.exp(-k0 * crowd - k * (quote - crowd)),
        "market_share": lambda: A * np.exp(-k0 * crowd) / (1.0 + (N - 1.0) * np.exp(k * (quote - crowd))),
        "none": lambda: A * np.exp(-k * quote),
    }[coupling]()


HAND_CHECKED = [
    ("relative", ALIKE | {"quote_min": 0.5, "quote_max": 1.9}),
    ("relative", LOPSIDED | {"quote_min": -1.0, "quote_max": 6.0}),
    ("elastic", GAMES["smooth"]),
    ("elastic", GAMES["clipped"]),
    ("market_share", GAMES["smooth"]),
    ("market_share", GAMES["clipped"]),
    ("none", GAMES["clipped"]),
]


@pytest.mark.parametrize(("coupling", "changes"), HAND_CHECKED)
def test_nobody_gains_by_other_quotes_and_the_crowd_is_their_average(coupling: str, changes: Game) -> None:
    game = UNIT | ALIKE | changes
    found = long_run(coupling, changes)
    ask, bid, value, density = found.ask[1:], found.bid[:-1], found.value, found.density
    assert np.isinf(found.ask[0]) and np.isinf(found.bid[-1]) and value[10] == 0.0
    sold = rates_by_hand(coupling, game, "ask", ask, found.crowd_ask)
    bought = rates_by_hand(coupling, game, "bid", bid, found.crowd_bid)

    gains = [sold * (ask + value[:-1] - value[1:]), bought * (bid + value[1:] - value[:-1])]
    profit = np.append(0.0, gains[0]) + np.append(gains[1], 0.0) - game["eta"] * found.inventory**2
    np.testing.assert_allclose(profit, found.profit_rate, atol=1e-10)

    others = np.linspace(max(game["quote_min"], -10.0), min(game["quote_max"], 15.0), 2001)[:, None]
    for side, jump, gain in (("ask", value[:-1] - value[1:], gains[0]), ("bid", value[1:] - value[:-1], gains[1])):
        best = (rates_by_hand(coupling, game, side, others, getattr(found, f"crowd_{side}")) * (others + jump)).max(axis=0)
        assert np.all(best <= gain + 1e-11) and np.all(best >= gain - 1e-3 * np.abs(gain))

    np.testing.assert_allclose(density[:-1] * bought, density[1:] * sold, rtol=1e-10)
    assert density.sum() == pytest.approx(1.0, abs=1e-14)
    assert density[1:] @ ask / density[1:].sum() == pytest.approx(found.crowd_ask, rel=1e-11)
    assert density[:-1] @ bid / density[:-1].sum() == pytest.approx(found.crowd_bid, rel=1e-11)

    mean = density @ found.inventory
    assert found.full_spread == found.crowd_ask + found.crowd_bid
    assert found.inventory_variance == pytest.approx(density @ found.inventory**2 - mean**2, rel=1e-11)
    assert found.fill_rate_ask == pytest.approx(density[1:] @ sold, rel=1e-11)
    assert found.fill_rate_bid == pytest.approx(density[:-1] @ bought, rel=1e-11)
    edge = density[1:] @ (sold * ask) + density[:-1] @ (bought * bid)
    assert found.profit_rate == pytest.approx(edge - game["eta"] * density @ found.inventory**2, rel=1e-10)


@pytest.mark.parametrize("drift", [30.0, 1.0 / 30.0])
def test_what_is_worth_what_where_flat_is_hardly_ever_visited(drift: float) -> None:
    """At odds of 30 to 1 per lot, a maker comes from one end to flat once in 30²⁰ fills."""
    rates = jnp.stack([jnp.ones(40), jnp.full(40, drift)])
    earned = jnp.sin(jnp.arange(41.0))
    value, profit_rate = jax.jit(prospect)(rates, earned)
    up, down = np.append(drift, np.full(39, drift)), np.ones(40)
    jump = np.diff(value)
    gained = np.append(up * jump, 0.0) - np.append(0.0, down * jump) + earned
    np.testing.assert_allclose(gained, profit_rate, atol=1e-12)
    odds = drift ** np.arange(41.0)
    np.testing.assert_allclose(stationary_density(rates), odds / odds.sum(), rtol=1e-11)


# The limit of a long horizon.


@pytest.mark.parametrize(
    ("coupling", "changes", "horizon"),
    [
        ("elastic", GAMES["clipped"] | {"k0": 0.8, "eta": 0.3}, 160.0),
        ("market_share", GAMES["smooth"] | {"k0": 0.5, "eta": 0.02, "n_makers": 3.0}, 320.0),
    ],
)
def test_far_from_both_ends_of_a_long_horizon(coupling: str, changes: Game, horizon: float) -> None:
    """Another method altogether. How much a lopsided crowd leans settles slowly."""
    model = default_model(coupling, n_steps=200, grading=0.0)
    day = jax.jit(lambda parameters: mfg.solve(model, parameters, select="cold"))(game_of({"horizon": horizon} | changes))
    assert day.status == mfg.Status.CONVERGED
    found, noon = long_run(coupling, changes), 100
    assert day.crowd_ask[noon] + day.crowd_bid[noon] == pytest.approx(found.full_spread, rel=1e-5)
    for name in ("ask", "bid", "density"):
        np.testing.assert_allclose(getattr(day, name)[noon], getattr(found, name), rtol=1e-5, atol=1e-5, err_msg=name)
    np.testing.assert_allclose(day.value[noon] - day.value[noon, 10], found.value, rtol=1e-4, atol=1e-4)
    slope = (day.value[noon - 2, 10] - day.value[noon + 2, 10]) / (day.time[noon + 2] - day.time[noon - 2])
    assert slope == pytest.approx(found.profit_rate, rel=2e-5)


# Derivatives.


def test_derivatives_in_both_modes() -> None:
    """In a batch with a bad game, against central differences."""
    model = default_model("market_share")

    def figures(parameters: mfg.Parameters) -> jax.Array:
        found = mfg.solve_long_run(model, parameters)
        return jnp.stack([getattr(found, name) for name in FIGURES])

    direction = jax.tree.map(lambda leaf: 0.1 * (1.0 + leaf), game_of(ALIKE))

    def both_modes(parameters: mfg.Parameters) -> tuple[jax.Array, jax.Array, mfg.Parameters]:
        found, change = jax.jvp(figures, (parameters,), (direction,))
        return found, change, jax.jacrev(figures)(parameters)

    games = [GAMES["smooth"], GAMES["clipped"], ONE_OF_A_FAMILY, {"A_ask": -1.0}]
    batch = jax.tree.map(lambda *leaves: np.array(leaves), *map(game_of, games))
    solved = jax.tree.map(np.asarray, jax.jit(jax.vmap(both_modes))(batch))
    smooth, clipped, one_of_a_family, bad = (jax.tree.map(lambda leaf, lane=lane: leaf[lane], solved) for lane in range(4))

    def difference(game: Game, **steps: float) -> NDArray[Any]:
        """Per unit of the first step."""
        step = next(iter(steps.values()))
        up, down = (
            long_run("market_share", game | {name: getattr(game_of(game), name) + sign * by for name, by in steps.items()})
            for sign in (1, -1)
        )
        return np.array([(getattr(up, name) - getattr(down, name)) / (2.0 * step) for name in FIGURES])

    counting = ["A_ask", "A_bid", "k_ask", "k_bid", "k0", "eta", "n_makers"]
    for kind, (found, change, gradient) in {"smooth": smooth, "clipped": clipped}.items():
        alone = long_run("market_share", GAMES[kind])
        np.testing.assert_allclose(found, [getattr(alone, name) for name in FIGURES], rtol=1e-12)
        named = [*counting, "quote_min", "quote_max"] if kind == "clipped" else counting
        for name in named:
            expected = difference(GAMES[kind], **{name: 1e-5})
            np.testing.assert_allclose(getattr(gradient, name), expected, rtol=2e-6, atol=1e-7, err_msg=f"{kind} {name}")
            assert np.abs(expected).max() > 1e-3, name
        along = sum(getattr(gradient, name) * getattr(direction, name) for name in named)
        if kind == "clipped":
            np.testing.assert_allclose(change, along, rtol=1e-10)
        for name in ("gamma", "horizon", "crowd_mean", "crowd_std"):
            np.testing.assert_array_equal(getattr(gradient, name), 0.0)

    assert np.isnan(bad[0]).all()

    # the symmetric equilibrium stays so where both sides change alike
    _, _, gradient = one_of_a_family
    for expected, found in (
        (difference(ONE_OF_A_FAMILY, eta=1e-5), gradient.eta),
        (difference(ONE_OF_A_FAMILY, A_ask=1e-5, A_bid=1e-5), gradient.A_ask + gradient.A_bid),
        (difference(ONE_OF_A_FAMILY, k_ask=1e-5, k_bid=1e-5), gradient.k_ask + gradient.k_bid),
    ):
        np.testing.assert_allclose(found, expected, rtol=2e-6, atol=1e-7)
        assert found[0] == pytest.approx(found[1], rel=1e-8)


# What it does with anything else.


def test_what_does_not_matter_is_not_even_looked_at() -> None:
    found = long_run("elastic", GAMES["smooth"])
    clockless = {"gamma": np.nan, "horizon": -1.0, "crowd_mean": np.inf, "crowd_std": 0.0}
    other = long_run("elastic", GAMES["smooth"] | clockless)
    for one, another in zip(jax.tree.leaves(found), jax.tree.leaves(other), strict=True):
        np.testing.assert_array_equal(one, another)


@pytest.mark.parametrize(
    ("changes", "status"),
    [
        ({"A_ask": -1.0}, mfg.Status.INVALID_PARAMETERS),
        ({"k_bid": np.nan}, mfg.Status.INVALID_PARAMETERS),
        ({"eta": -0.1}, mfg.Status.INVALID_PARAMETERS),
        ({"k0": np.inf}, mfg.Status.INVALID_PARAMETERS),
        ({"n_makers": 1.0}, mfg.Status.INVALID_PARAMETERS),
        ({"quote_min": 2.0, "quote_max": 1.0}, mfg.Status.INVALID_PARAMETERS),
        ({"eta": 1e307}, mfg.Status.NON_FINITE),
        ({"quote_min": 3e3, "quote_max": 3e3}, mfg.Status.NON_FINITE),  # all rates underflow: nobody moves
    ],
)
def test_bad_games_are_told(changes: Game, status: mfg.Status) -> None:
    found = attempt("market_share", GAMES["clipped"] | changes)
    assert found.status == status and found.branch == mfg.Branch.UNVERIFIED
    for name in ("value", "density", "crowd_ask", "full_spread", "inventory_variance", "fill_rate_bid", "profit_rate"):
        assert np.isnan(getattr(found, name)).all(), name


def test_lopsided_flow_drives_a_relative_crowd_without_end() -> None:
    """Unless bounds stop it."""
    assert attempt("relative", LOPSIDED | UNCLIPPED).status != mfg.Status.CONVERGED
    stopped = long_run("relative", LOPSIDED | {"quote_min": -1.0, "quote_max": 6.0})
    assert stopped.crowd_ask > 5.9 and stopped.crowd_bid < -0.9


def test_makers_who_stick_have_no_long_run() -> None:
    with pytest.raises(ValueError, match="needs the boundary 'reflecting'; found 'absorbing', where all makers stick"):
        mfg.solve_long_run(mfg.Model("none", boundary="absorbing"), parameters_of({}))

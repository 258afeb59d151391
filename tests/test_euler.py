"""The `euler` scheme against an independent program, and the status of steps that are too long for it."""

import numpy as np
import pytest
from numpy.typing import ArrayLike

import mfg_jax as mfg
from tests import oracle
from tests.conftest import solve_games

X_MAX, N_STEPS = 3, 24

GAMES = [
    {},
    {"crowd_mean": 1.0, "eta": 0.2, "gamma": 0.3},
    {"crowd_mean": -1.0, "crowd_std": 0.8, "A_ask": 1.5, "k_ask": 1.2, "k_bid": 1.8},
    {"crowd_mean": 2.0, "eta": 0.5, "gamma": 1.0, "quote_min": 0.1, "quote_max": 1.0},
    {"A_bid": 0.5, "k0": 0.0, "n_makers": 1.5, "quote_min": -np.inf, "quote_max": np.inf, "horizon": 0.3},
]
"""Symmetric, skewed, lopsided, clipped on both sides, unclipped. Steps of about 1/24 are stable with rates like these."""

DEFAULTS = {
    "A": 1.0,
    "k": 1.5,
    "k0": 0.5,
    "n_makers": 3.0,
    "eta": 0.01,
    "gamma": 0.05,
    "crowd_mean": 0.0,
    "crowd_std": 2.0,
    "horizon": 1.0,
    "quote_min": 0.0,
    "quote_max": 5.0,
}


def numbers(game: dict[str, float]) -> dict[str, float]:
    """All numbers of the game, those of the flow for each side."""
    full = DEFAULTS | game
    return full | {f"{name}_{side}": full.get(f"{name}_{side}", full[name]) for name in "Ak" for side in ("ask", "bid")}


def euler(coupling: str, boundary: str) -> mfg.Model:
    return mfg.Model(coupling, X_MAX, N_STEPS, boundary, scheme="euler", solver={"tolerance": 1e-13})


def slow_solution(coupling: str, boundary: str, *games: dict[str, float], fractions: ArrayLike) -> oracle.Solution:
    """The oracle's equilibria of these games, which are on the last axis; of a single game, without that axis."""
    own = {name: np.squeeze([numbers(game)[name] for game in games]) for name in numbers({})}
    density = oracle.normal_crowd(X_MAX, own.pop("crowd_mean"), own.pop("crowd_std"))
    time = np.multiply.outer(fractions, own.pop("horizon"))
    del own["A"], own["k"]
    return oracle.solve(oracle.Game(coupling, boundary, time, density, **own), tolerance=1e-14)


@pytest.mark.parametrize("boundary", ["reflecting", "absorbing"])
@pytest.mark.parametrize("coupling", ["relative", "elastic", "market_share", "none"])
def test_agrees_with_the_oracle(coupling: str, boundary: str) -> None:
    equilibria = solve_games(euler(coupling, boundary), *map(numbers, GAMES))
    slow = slow_solution(coupling, boundary, *GAMES, fractions=equilibria[0].time)
    for name in oracle.Solution._fields:
        fast = np.stack([getattr(equilibrium, name) for equilibrium in equilibria], axis=-1)
        np.testing.assert_allclose(fast, getattr(slow, name), rtol=1e-12, atol=1e-12, err_msg=name)
    assert all(equilibrium.status == mfg.Status.CONVERGED for equilibrium in equilibria)


@pytest.mark.parametrize("boundary", ["reflecting", "absorbing"])
def test_oracle_solves_many_games_as_it_solves_one(boundary: str) -> None:
    fractions = np.linspace(0.0, 1.0, N_STEPS + 1)
    together = slow_solution("elastic", boundary, *GAMES, fractions=fractions)
    alone = slow_solution("elastic", boundary, GAMES[2], fractions=fractions)
    for one, many in zip(alone, together, strict=True):
        np.testing.assert_allclose(many[..., 2], one, rtol=1e-12, atol=1e-12)


def test_a_step_is_unstable_when_more_makers_would_leave_than_there_are() -> None:
    """Exactly where dt·(λᵃ + λᵇ) > 1. Bounds that leave one quote make the rates known: A·exp(−k·quote) on either side."""
    model = euler("none", "reflecting")
    (unit,) = solve_games(model, numbers({}))
    longest_step = np.diff(unit.time).max()
    game = {"quote_min": 0.7, "quote_max": 0.7}
    limit = 1.0 / (2.0 * DEFAULTS["A"] * np.exp(-DEFAULTS["k"] * 0.7)) / longest_step
    below, above = solve_games(model, *(numbers(game | {"horizon": limit * factor}) for factor in (1 - 1e-9, 1 + 1e-9)))
    assert below.status == mfg.Status.CONVERGED
    assert below.min_density >= 0.0
    assert above.status == mfg.Status.UNSTABLE_STEP

"""The order of the schemes, measured on smooth skewed games."""

import numpy as np
import pytest

import mfg_jax as mfg
from mfg_jax.grid import smooth_interpolation
from tests.conftest import UNCLIPPED, default_model, solve_games

GAMES = {
    "relative": {"crowd_mean": 1.0} | UNCLIPPED,
    "market_share": {"crowd_mean": -2.0, "crowd_std": 1.5, "k0": 0.4, "n_makers": 3.0, "eta": 0.5, "gamma": 0.5} | UNCLIPPED,
    "stiff": {"crowd_mean": 1.0, "eta": 0.3, "gamma": 0.3} | UNCLIPPED,
}
ROUNDING = 1e-11
SMOOTH_EXPONENTIAL = mfg.Exponential(interpolate=smooth_interpolation)


def crowd_paths(coupling: str, n_steps: int, scheme: mfg.Scheme | str = "rk4", game: str = "") -> np.ndarray:
    """The crowd's offsets at 26 times that all these grids share, [side, time]."""
    (equilibrium,) = solve_games(default_model(coupling, n_steps=n_steps, scheme=scheme), GAMES[game or coupling])
    assert equilibrium.status == mfg.Status.CONVERGED
    shared = slice(None, None, n_steps // 25)
    return np.stack([equilibrium.crowd_ask[shared], equilibrium.crowd_bid[shared]])


@pytest.mark.parametrize(
    ("coupling", "scheme", "resolutions", "lowest", "highest"),
    [
        ("relative", "euler", (100, 200), 0.9, 1.15),
        ("relative", "rk4", (50, 100), 3.8, 5.0),
        ("market_share", "rk4", (50, 100), 3.8, 5.0),
    ],
)
def test_order(coupling: str, scheme: str, resolutions: tuple[int, ...], lowest: float, highest: float) -> None:
    """The slope of log error against log n_steps; at 400 steps the fourth-order error is 4⁴ times below that at 100."""
    fine = crowd_paths(coupling, 400)
    errors = [np.abs(crowd_paths(coupling, n_steps, scheme) - fine).max() for n_steps in resolutions]
    assert min(errors) > 10.0 * ROUNDING
    slope, _ = np.polyfit(np.log(resolutions), np.log(errors), 1)
    assert lowest < -slope < highest, errors


@pytest.mark.parametrize(
    ("scheme", "lowest", "highest"), [(SMOOTH_EXPONENTIAL, 3.7, 4.4), (mfg.Exponential(), 3.2, 4.2)], ids=["smooth", "monotone"]
)
def test_order_of_exponentials(scheme: mfg.Exponential, lowest: float, highest: float) -> None:
    """In a game where explicit steps of these lengths are unstable. A crowd seen by monotone cubics costs half an order."""
    fine = crowd_paths("relative", 200, SMOOTH_EXPONENTIAL, "stiff")
    errors = [np.abs(crowd_paths("relative", n_steps, scheme, "stiff") - fine).max() for n_steps in (50, 100)]
    assert lowest < np.log2(errors[0] / errors[1]) < highest, errors
    (explicit,) = solve_games(default_model("relative", n_steps=100), GAMES["stiff"])
    assert explicit.status == mfg.Status.UNSTABLE_STEP

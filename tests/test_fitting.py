"""`mfg.fit`: parameters from equilibria that they made."""

import dataclasses
from typing import Any

import numpy as np
import pytest

import mfg_jax as mfg

MODEL = mfg.Model("elastic", x_max=4, n_steps=24, solver={"tolerance": 1e-12})
TRUE = mfg.Parameters(A=3.0, k=1.5, eta=0.05, gamma=0.2, k0=0.5, crowd_mean=0.5, crowd_std=1.5)
BOUNDS = {"k": (0.7, 3.0), "eta": (0.0, 0.3), "gamma": (0.02, 1.0)}
ELSEWHERE = mfg.Parameters(A=3.0, k=1.0, eta=0.2, gamma=0.05, k0=0.5, crowd_mean=0.5, crowd_std=1.5)


@pytest.fixture(scope="module")
def observed() -> dict[str, np.ndarray]:
    equilibrium = mfg.solve(MODEL, TRUE, select="cold")
    metrics = mfg.metrics(MODEL, TRUE, equilibrium)
    return {"full_spread": np.asarray(metrics.full_spread), "inventory_variance": np.asarray(metrics.inventory_variance)}


def test_its_own_noiseless_output(observed: dict[str, np.ndarray]) -> None:
    gaps = {name: path.copy() for name, path in observed.items()}
    gaps["full_spread"][5:12] = np.nan
    found = mfg.fit(MODEL, gaps, ELSEWHERE, BOUNDS)
    for name in BOUNDS:
        assert getattr(found.parameters, name) == pytest.approx(getattr(TRUE, name), rel=1e-5), name
        assert found.intervals[name].value == pytest.approx(getattr(TRUE, name), rel=1e-5)
    assert max(found.misfit.values()) < 1e-7
    assert found.equilibrium.branch == mfg.Branch.PRINCIPAL
    assert found.warnings == ()


def test_under_noise_the_truth_lies_within_the_intervals(observed: dict[str, np.ndarray]) -> None:
    """In about 95 of 100 draws; in all three of these, for two of three parameters or more."""
    noise = {"full_spread": 0.02, "inventory_variance": 0.05}
    for seed in range(3):
        rng = np.random.default_rng(seed)
        noisy = {name: path + noise[name] * rng.normal(size=path.shape) for name, path in observed.items()}
        found = mfg.fit(MODEL, noisy, TRUE, BOUNDS, noise=noise, starts=2)
        inside = [low <= getattr(TRUE, name) <= high for name, (_, low, high) in found.intervals.items()]
        assert sum(inside) >= 2
        assert found.misfit == pytest.approx(noise, rel=0.5)


def test_no_noise_named_is_noise_unknown(observed: dict[str, np.ndarray]) -> None:
    """Its size is then that of the misfit: next to nothing here."""
    found = mfg.fit(MODEL, observed, TRUE, BOUNDS, noise={}, starts=1)
    assert all(high - low < 1e-4 for _, low, high in found.intervals.values())


def test_what_the_data_cannot_tell() -> None:
    """Without a running penalty only the flow of a whole day counts, A·horizon; a parameter of another coupling moves nothing."""
    still = dataclasses.replace(TRUE, eta=0.0)
    spread = mfg.metrics(MODEL, still, mfg.solve(MODEL, still, select="cold")).full_spread
    bounds = {"A": (1.0, 9.0), "horizon": (0.5, 2.0), "k": (1.0, 2.0), "n_makers": (2.0, 9.0)}
    with pytest.warns(mfg.FitWarning) as told:
        found = mfg.fit(MODEL, {"full_spread": spread}, still, bounds, noise={"full_spread": 0.01}, starts=1)
    assert found.warnings == tuple(f"the data do not determine {name}" for name in ("A", "horizon", "n_makers"))
    assert [str(warning.message) for warning in told] == list(found.warnings)
    assert np.isnan(found.intervals["n_makers"].low) and found.intervals["n_makers"].value == pytest.approx(5.0)
    assert found.intervals["k"].low < 1.5 < found.intervals["k"].high


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"targets": {}}, "at least one target"),
        ({"starts": 0}, "starts is 0; allowed: a whole number >= 1"),
        ({"targets": {"spread": 1.0}}, "there is no target 'spread'; allowed: full_spread, "),
        ({"targets": {"full_spread": np.ones(3)}}, r"target 'full_spread' has shape \(3,\); this model's is \(25,\)"),
        ({"targets": {"mean_spread": np.inf}}, "none that is infinite"),
        ({"bounds": {"A_ask": (1.0, 2.0)}}, "bounds of 'A_ask', which is no parameter that was given; allowed: A, k, eta"),
        ({"bounds": {"k": (2.0, 1.0)}}, r"bounds of 'k' are \(2.0, 1.0\); allowed: two finite numbers"),
        ({"bounds": {"k": (2.0, 3.0)}}, r"init.k is 1.5, outside of its bounds \(2, 3\)"),
        ({"noise": {"mean_spread": 0.0}}, "noise of 'mean_spread' is 0.0; allowed: a number > 0"),
        ({"bounds": {"k": (1.0, 3.0), "eta": (0.0, 1.0)}}, "1 observations cannot determine 2 parameters: k, eta"),
        ({"init": mfg.Parameters(A=3.0, k=1.5, eta=-0.1, gamma=0.2)}, "none of the starts has an equilibrium"),
    ],
)
def test_bad_input(changes: dict[str, Any], message: str) -> None:
    choices: dict[str, Any] = {"targets": {"mean_spread": 1.8}, "init": TRUE, "bounds": {"k": (1.0, 3.0)}} | changes
    with pytest.raises(ValueError, match=message):
        mfg.fit(MODEL, **choices)

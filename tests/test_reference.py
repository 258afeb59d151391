"""Equilibria and gradients known to many digits, from a program that shares no code with the library (`reference/public.json`)."""

import json
from pathlib import Path
from typing import Any

import pytest
from jax.typing import ArrayLike

import mfg_jax as mfg
from tests.conftest import Differentiated, default_model, differentiate_games

CASES: dict[str, dict[str, Any]] = json.loads(Path(__file__).with_name("reference").joinpath("public.json").read_text())
N_STEPS = 400
MOMENTS = {"start": 0, "mid": N_STEPS // 4, "end": N_STEPS}


@pytest.fixture(scope="module")
def solved() -> dict[str, Differentiated]:
    """All cases, those of one model in one batch."""
    found = {}
    for choices in {tuple(case["model"].items()) for case in CASES.values()}:
        cases = {name: case["parameters"] for name, case in CASES.items() if tuple(case["model"].items()) == choices}
        model = default_model(**dict(choices), n_steps=N_STEPS)
        found |= zip(cases, differentiate_games(model, *cases.values()), strict=True)
    return found


def figures(solved: Differentiated, step: int) -> dict[str, ArrayLike]:
    """What the reference tells of one moment."""
    equilibrium, metrics = solved.equilibrium, solved.metrics
    flat = len(equilibrium.inventory) // 2
    return {
        "crowd_ask": equilibrium.crowd_ask[step],
        "crowd_bid": equilibrium.crowd_bid[step],
        "value_flat": metrics.value_flat[step],
        "value_long3": equilibrium.value[step, flat + 3],
        "inventory_mean": metrics.inventory_mean[step],
        "inventory_variance": metrics.inventory_variance[step],
        "density_flat": equilibrium.density[step, flat],
        "marginal_value": metrics.marginal_value[step],
    }


@pytest.mark.parametrize("name", CASES)
def test_figures(solved: dict[str, Differentiated], name: str) -> None:
    expected = CASES[name]["expected"]
    found = {"mean_spread": solved[name].metrics.mean_spread}
    known = {"mean_spread": expected["mean_spread"]}
    for moment, step in MOMENTS.items():
        found |= {f"{moment} {figure}": value for figure, value in figures(solved[name], step).items()}
        known |= {f"{moment} {figure}": value for figure, value in expected[moment].items()}
    assert found.keys() == known.keys()
    errors = {figure: abs(found[figure] - value) / max(1.0, abs(value)) for figure, value in known.items()}
    assert max(errors.values()) < (1e-9 if CASES[name]["smooth"] else 5e-8), errors
    assert solved[name].equilibrium.status == mfg.Status.CONVERGED


@pytest.mark.parametrize("name", CASES)
def test_gradients(solved: dict[str, Differentiated], name: str) -> None:
    tolerance = 1e-6 if CASES[name]["smooth"] else 5e-5
    for parameter, expected in CASES[name]["expected"]["d_mean_spread"].items():
        assert getattr(solved[name].gradient, parameter) == pytest.approx(expected, rel=tolerance), parameter


def test_half_the_horizon_is_a_stored_time(solved: dict[str, Differentiated]) -> None:
    """With the default grading, whenever n_steps is a multiple of 4."""
    for name, case in CASES.items():
        half = solved[name].equilibrium.time[MOMENTS["mid"]]
        assert half == pytest.approx(0.5 * case["parameters"]["horizon"], rel=1e-14)

"""Random games with ugly corners: whatever the numbers, an equilibrium that is one, or a status that says why not."""

import dataclasses
import functools
import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import mfg_jax as mfg
from mfg_jax.continuation import Found, Walker
from mfg_jax.equilibrium import certified, solve_along_path, solve_cold
from mfg_jax.game import lay_out
from mfg_jax.hjb import crowd_at
from tests.conftest import parameters_of

MODELS = {
    "elastic": mfg.Model("elastic", x_max=6, n_steps=16),
    "market share, three inventories": mfg.Model("market_share", x_max=1, n_steps=16),
}

CORNERS: dict[str, dict[str, float]] = {
    "nothing": {},
    "no penalty at the close": {"gamma": 0.0},
    "no penalty": {"eta": 0.0, "gamma": 0.0},
    "one quote allowed": {"quote_min": 0.7, "quote_max": 0.7},
    "bounds apart": {"quote_min": -2.0, "quote_max": 40.0},
    "the crowd at the end of the lattice": {"crowd_mean": 6.0, "crowd_std": 1e-3},
    "the crowd beyond the lattice": {"crowd_mean": -50.0, "crowd_std": 1.0},
    "hardly a competitor": {"n_makers": 1.0 + 1e-9},
    "a million competitors": {"n_makers": 1e6},
    "a flow that falls faster than fills": {"k0": 4.0},
    "an instant": {"horizon": 1e-6},
    "a hundred days": {"horizon": 100.0},
    "unequal sides": {"A_ask": 0.01, "A_bid": 80.0, "k_ask": 3.0, "k_bid": 0.5},
    "stiff": {"A": 150.0, "eta": 0.5, "gamma": 2.0, "crowd_mean": 3.0},
}


@functools.cache
def program(name: str, along_path: bool) -> Any:
    solve = solve_along_path if along_path else solve_cold
    compiled = jax.jit(lambda p: solve(MODELS[name], p).equilibrium)
    plain = parameters_of({"A_ask": 1.0, "A_bid": 1.0, "k_ask": 1.0, "k_bid": 1.0})

    def run(game: dict[str, float]) -> mfg.Equilibrium:
        sides = {f"{name}_{side}": game.get(name, getattr(plain, name)) for name in ("A", "k") for side in ("ask", "bid")}
        return jax.tree.map(np.asarray, compiled(parameters_of(sides | game)))

    return run


@given(
    corners=st.lists(st.sampled_from(sorted(CORNERS)), min_size=1, max_size=3),
    A=st.floats(0.5, 60.0),
    k=st.floats(0.5, 3.0),
    eta=st.floats(0.0, 0.5),
    gamma=st.floats(0.0, 2.0),
    mean=st.floats(-3.0, 3.0),
    model=st.sampled_from(sorted(MODELS)),
)
@settings(max_examples=30)
def test_every_game_ends_with_the_truth(
    corners: list[str], A: float, k: float, eta: float, gamma: float, mean: float, model: str
) -> None:
    game = {"A": A, "k": k, "k0": 0.1 * k, "eta": eta, "gamma": gamma, "crowd_mean": mean}
    for corner in corners:
        game |= CORNERS[corner]
    cold = program(model, False)(game)
    for equilibrium in (cold, program(model, True)(game)):
        if equilibrium.status == mfg.Status.CONVERGED:
            assert_equilibrium(MODELS[model], game, equilibrium)
    if cold.status != mfg.Status.CONVERGED:
        # the quote box is bounded, so there is an equilibrium, and a path to it, which on 16 steps may be too ragged to follow
        assert equilibrium.status in (mfg.Status.CONVERGED, mfg.Status.CONTINUATION_STOPPED), game


@pytest.mark.parametrize(("corner", "model"), list(zip(CORNERS, itertools.cycle(MODELS))))
def test_every_corner_by_itself_is_solved(corner: str, model: str) -> None:
    equilibrium = program(model, True)(CORNERS[corner])
    assert equilibrium.status == mfg.Status.CONVERGED and equilibrium.branch == mfg.Branch.PRINCIPAL
    assert_equilibrium(MODELS[model], CORNERS[corner], equilibrium)


def assert_equilibrium(model: mfg.Model, game: dict[str, float], equilibrium: mfg.Equilibrium) -> None:
    parameters = parameters_of(game)
    assert equilibrium.residual * max(game.get("k", 1.5), game.get("k_ask", 0.0)) <= 1e-9 * (1 + 1e-12)
    assert equilibrium.mass_error < 1e-12 and equilibrium.min_density > -1e-12
    assert equilibrium.spread_identity < 1e-12 * max(1.0, float(parameters.quote_max or 0.0))
    assert equilibrium.monotone
    quotes = np.stack([equilibrium.ask[:, 1:], equilibrium.bid[:, :-1]], axis=1)[:, model.quoting]
    assert (quotes >= parameters.quote_min).all() and (quotes <= parameters.quote_max).all()
    for crowd in (equilibrium.crowd_ask, equilibrium.crowd_bid):
        assert np.isfinite(crowd).all()
        assert crowd.min() >= float(parameters.quote_min) - 1e-12 and crowd.max() <= float(parameters.quote_max or np.inf) + 1e-12
    assert np.isfinite(equilibrium.value).all()
    at_the_close = -float(parameters.gamma) * np.arange(-model.x_max, model.x_max + 1.0) ** 2
    np.testing.assert_allclose(equilibrium.value[-1], at_the_close, atol=1e-300)


def test_rates_of_a_hundred_thousand_with_fifty_steps() -> None:
    """MODEL.md, section 5: A 140 with the crowd at 5 lots. Finite, conservative, not negative, and honest about its time steps."""
    model = mfg.Model("relative", x_max=12, n_steps=50)
    game = parameters_of({"A": 140.0, "gamma": 1.0, "eta": 2.0, "crowd_mean": 5.0})

    def certify(p: mfg.Parameters) -> mfg.Equilibrium:
        return certified(model.stiff_model, p, solve_along_path(model, p))

    def solve_finely(p: mfg.Parameters, crowd: jax.Array) -> Found:
        coarse, fine = model.stiff_model, dataclasses.replace(model.stiff_model, n_steps=400)
        return Walker.of(fine, lay_out(fine, p), jnp.asarray(1e-9)).polish(crowd_at(coarse, crowd, fine.time_fractions))

    found = jax.jit(certify)(game)
    near = jnp.stack([found.crowd_ask, found.crowd_bid], axis=1)
    fine = jax.jit(solve_finely)(game, near)
    assert found.status == mfg.Status.CONVERGED and fine.arrived
    assert found.exploitability is not None and found.time_error is not None
    rates = 140.0 * np.exp(-1.5 * (np.asarray(found.bid)[:, :-1] - np.asarray(found.crowd_bid)[:, None]))
    assert rates.max() > 1e5
    assert found.mass_error < 1e-12 and found.min_density > -1e-12
    assert abs(float(found.exploitability)) <= 1e-6 * abs(float(found.value[0, 12])) + float(found.time_error)
    true = float(np.abs(near - fine.crowd[::8]).max())
    assert true <= 3 * float(found.time_error) and float(found.time_error) <= 100 * true

"""Fill rates of steps in which a quote meets its bound, against steps sixteen times as short."""

import dataclasses
from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.integrate import quad

import mfg_jax as mfg
from mfg_jax.best_reply import best_reply
from mfg_jax.game import lay_out
from mfg_jax.grid import quadrature_weights
from mfg_jax.hjb import solve_backward
from mfg_jax.kinks import missed_at_kinks
from mfg_jax.parameters import as_scalars
from tests.conftest import UNCLIPPED, parameters_of

CLIPPED = {"quote_min": 0.45, "quote_max": 0.9, "eta": 0.3, "gamma": 0.01, "A": 5.0, "k0": 0.5}
WEIGHTS = np.array(mfg.RK4.weights)
STEPS, PARTS = 40, 16


@pytest.mark.parametrize("theta", [0.0, 0.1, 0.5, 0.77, 1.0])
def test_what_the_classical_method_misses_of_a_kink(theta: float) -> None:
    truth, _ = quad(lambda s: max(s - theta, 0.0), 0.0, 1.0, points=[theta])
    simpson = (max(-theta, 0.0) + 4 * max(0.5 - theta, 0.0) + (1.0 - theta)) / 6
    assert mfg.RK4.missed_at_kink(jnp.asarray(theta)) == pytest.approx(simpson - truth, abs=1e-15)


def leaning(model: mfg.Model) -> jax.Array:
    return jnp.stack([0.5 + 0.3 * model.time_fractions, 0.7 - 0.2 * model.time_fractions**2], axis=1)


@eqx.filter_jit
def backward(model: mfg.Model, parameters: mfg.Parameters) -> tuple[jax.Array, jax.Array]:
    """Mean rates of every step against a crowd that leans more and more, as the stages see them and corrected."""
    game = lay_out(model, parameters)
    policy = solve_backward(model, game, leaning(model))
    seen = jnp.tensordot(WEIGHTS, policy.rates, (0, 1))
    ends = (policy.wanted[1:], policy.wanted[:-1], policy.crowd[1:], policy.crowd[:-1])
    return seen, seen + jax.vmap(partial(missed_at_kinks, model, game))(*ends).rates


@pytest.mark.parametrize("coupling", ["relative", "market_share"])
def test_mean_rates_are_right_where_quotes_meet_their_bounds(coupling: str) -> None:
    model = mfg.Model(coupling, x_max=6, n_steps=STEPS, scheme="rk4", grading=0.0)
    parameters = as_scalars(parameters_of(CLIPPED))
    seen, corrected = backward(model, parameters)
    _, fine = backward(dataclasses.replace(model, n_steps=PARTS * STEPS), parameters)
    truth = fine.reshape(STEPS, PARTS, *fine.shape[1:]).mean(axis=1)
    touched = np.asarray(seen != corrected)
    assert 10 <= touched.sum() < 0.2 * touched.size
    errors_seen, errors_corrected = (np.abs(np.asarray(rates - truth))[touched] for rates in (seen, corrected))
    assert errors_corrected.sum() < 0.15 * errors_seen.sum()


@pytest.mark.parametrize("grading", [0.0, 4.0])
def test_the_path_that_makers_see_has_the_right_integrals(grading: float) -> None:
    """Over time, and over time weighted with itself; and so have its derivatives."""

    def integrals(n_steps: int) -> list[np.ndarray]:
        model = mfg.Model("elastic", x_max=6, n_steps=n_steps, scheme="rk4", grading=grading)
        time = model.time_fractions
        weights = jnp.asarray(quadrature_weights(time) * np.stack([np.ones_like(time), time]))

        def of_averages_and_path(k: jax.Array) -> jax.Array:
            parameters = as_scalars(parameters_of(CLIPPED | {"k": k, "crowd_mean": 2.0}))
            reply = best_reply(model, lay_out(model, parameters), leaning(model))
            return jnp.stack([weights @ reply.averages, weights @ reply.crowd])

        return [np.asarray(jax.jit(program)(1.5)) for program in (of_averages_and_path, jax.jacfwd(of_averages_and_path))]

    for ours, truth, share in zip(integrals(160), integrals(1600), (0.25, 0.05), strict=True):
        without, corrected = np.abs(ours - truth[1])
        assert corrected.max() < share * without.max()


def test_equal_bounds_leave_the_rates_as_they_are() -> None:
    model = mfg.Model("relative", x_max=6, n_steps=STEPS, scheme="rk4")
    seen, corrected = backward(model, as_scalars(parameters_of(CLIPPED | {"quote_min": 0.7, "quote_max": 0.7})))
    np.testing.assert_array_equal(seen, corrected)


def test_without_bounds_nothing_changes_and_derivatives_are_finite() -> None:
    model = mfg.Model("relative", x_max=6, n_steps=STEPS, scheme="rk4")
    parameters = as_scalars(parameters_of(CLIPPED | UNCLIPPED))
    seen, corrected = backward(model, parameters)
    np.testing.assert_array_equal(seen, corrected)
    gradient = jax.grad(lambda k: backward(model, dataclasses.replace(parameters, k=k))[1].sum())(parameters.k)
    assert jnp.isfinite(gradient)

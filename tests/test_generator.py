"""Averages under a generator, against dense matrix exponentials."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.linalg import expm

from mfg_jax.generator import average_density, average_value
from mfg_jax.lattice import transport
from mfg_jax.scheme import largest_exit_rate, spectral_bound

STATES = 9
DURATION = jnp.asarray(0.02)

value_average: Any = jax.jit(average_value)
density_average: Any = jax.jit(average_density)
speed_bound: Any = jax.jit(spectral_bound)
exit_speed: Any = jax.jit(largest_exit_rate)


def random_rates(seed: int, scale: float) -> np.ndarray:
    """[side, edge], over five orders of magnitude."""
    return scale * 10.0 ** np.random.default_rng(seed).uniform(-5.0, 0.0, (2, STATES - 1))


def random_vector(seed: int) -> np.ndarray:
    weights = np.random.default_rng(seed).uniform(size=STATES)
    return weights / weights.sum()


def generator(rates: np.ndarray) -> np.ndarray:
    Q = np.diag(rates[1], 1) + np.diag(rates[0], -1)
    return Q - np.diag(Q.sum(axis=1))


def phi(matrix: np.ndarray, vector: np.ndarray) -> np.ndarray:
    """The average of exp(s·matrix)·vector over 0 ≤ s ≤ 1, by one exponential of a larger matrix."""
    larger = np.zeros((STATES + 1, STATES + 1))
    larger[:STATES, :STATES], larger[:STATES, STATES] = matrix, vector
    return expm(larger)[:STATES, STATES]


@given(seed=st.integers(0, 1000), magnitude=st.floats(-6.0, 6.0))
def test_averages(seed: int, magnitude: float) -> None:
    """At all rates from 1e-6 to 1e6."""
    rates, vector = random_rates(seed, 10.0**magnitude), random_vector(seed)
    step = float(DURATION) * generator(rates)
    np.testing.assert_allclose(value_average(rates, DURATION, vector), phi(step, vector), atol=1e-12)
    np.testing.assert_allclose(density_average(rates, DURATION, vector), phi(step.T, vector), atol=1e-12)


@given(seed=st.integers(0, 1000), magnitude=st.floats(-6.0, 8.0))
def test_the_spectral_bound_is_one_and_never_more_than_twice_the_largest_exit_rate(seed: int, magnitude: float) -> None:
    rates = random_rates(seed, 10.0**magnitude)
    bound, exit_rate = float(speed_bound(rates)), float(exit_speed(rates))
    largest = np.abs(np.linalg.eigvals(generator(rates))).max()
    assert largest * (1.0 - 1e-9) <= bound <= 2.0 * exit_rate * (1.0 + 1e-12)


@given(seed=st.integers(0, 1000), magnitude=st.floats(-6.0, 8.0))
def test_a_bound_for_the_largest_rates_bounds_all_that_are_less(seed: int, magnitude: float) -> None:
    rates = random_rates(seed, 10.0**magnitude)
    less = rates * np.random.default_rng(seed).random(rates.shape)
    assert np.abs(np.linalg.eigvals(generator(less))).max() <= float(speed_bound(rates)) * (1.0 + 1e-9)
    assert float(exit_speed(less)) <= float(exit_speed(rates))


@given(seed=st.integers(0, 1000), magnitude=st.floats(-6.0, 8.0), start=st.integers(0, STATES - 1))
def test_a_density_moves_by_a_matrix_of_probabilities(seed: int, magnitude: float, start: int) -> None:
    rates, density = random_rates(seed, 10.0**magnitude), np.eye(STATES)[start]
    moved = density + DURATION * transport(jnp.asarray(rates), density_average(rates, DURATION, density))
    assert float(moved.sum()) == pytest.approx(1.0, abs=1e-14)
    assert float(moved.min()) > -1e-12


def test_derivatives() -> None:
    """In rates, duration and vector, forward and backward, against central differences."""
    rates, vector = random_rates(1, 100.0), random_vector(2)
    direction = random_rates(3, 10.0)

    def figure(size: jax.Array, duration: jax.Array) -> jax.Array:
        moved = density_average(rates + size * direction, duration, vector * (1.0 + size))
        return (moved**2).sum() + (value_average(rates + size * direction, duration, vector) ** 2).sum()

    at = (jnp.asarray(0.0), DURATION)
    for argument, h in ((0, 1e-4), (1, 1e-6)):
        ahead, behind = (tuple(x + sign * h * (i == argument) for i, x in enumerate(at)) for sign in (1, -1))
        difference = (figure(*ahead) - figure(*behind)) / (2.0 * h)
        forward, backward = (derive(figure, argument)(*at) for derive in (jax.jacfwd, jax.grad))
        assert float(forward) == pytest.approx(float(difference), rel=1e-6)
        assert float(backward) == pytest.approx(float(forward), rel=1e-12)
    assert np.isfinite(jax.hessian(figure)(*at))


def test_single_precision_stays_single() -> None:
    rates, vector = random_rates(1, 100.0).astype(np.float32), random_vector(2).astype(np.float32)
    found = average_density(jnp.asarray(rates), jnp.asarray(DURATION, np.float32), jnp.asarray(vector))
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, density_average(rates.astype(float), DURATION, vector.astype(float)), atol=1e-4)

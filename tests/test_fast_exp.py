"""exp against NumPy's."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mfg_jax.fast_exp import MODERATE, exp

fast_exp: Any = jax.jit(exp)
ULP = np.finfo(float).eps


def of_sides(exponents: np.ndarray) -> np.ndarray:
    return exponents.reshape(2, -1)


def test_two_units_in_the_last_place() -> None:
    exponents = of_sides(np.concatenate([np.linspace(-700.0, 700.0, 200_000), np.log(2.0) * np.arange(-1000.0, 1000.0) / 2.0]))
    found = fast_exp(exponents, MODERATE)
    assert np.abs(found / np.exp(exponents) - 1.0).max() <= 2.0 * ULP
    assert (np.asarray(found) != np.exp(exponents)).any()  # it is not XLA's own


@given(st.floats(-700.0, 700.0))
def test_values_and_derivatives(exponent: float) -> None:
    at = of_sides(np.full(2, exponent))
    value, slope = jax.jvp(lambda x: exp(x, jnp.asarray(MODERATE)), (jnp.asarray(at),), (jnp.full_like(at, 3.0),))
    assert np.asarray(value) == pytest.approx(np.exp(at), rel=2.0 * ULP)
    np.testing.assert_array_equal(slope, 3.0 * value)


def test_what_is_no_number_stays_none() -> None:
    assert np.isnan(fast_exp(of_sides(np.array([np.nan, np.nan])), MODERATE)).all()


def test_exponents_that_may_overflow_are_left_to_xla() -> None:
    exponents = of_sides(np.array([-np.inf, -745.0, 710.0, np.inf]))
    for at_most in (2.0 * MODERATE, np.inf, np.nan):
        np.testing.assert_array_equal(fast_exp(exponents, at_most), jnp.exp(exponents))


def test_far_out_it_stays_positive_and_large() -> None:
    low, high = np.asarray(fast_exp(of_sides(np.array([-1e6, 1e6])), MODERATE)).ravel()
    assert 0.0 < low < 1e-300
    assert 1e300 < high < np.inf


def test_a_batch_and_single_precision_are_left_to_xla() -> None:
    batch = np.random.default_rng(0).normal(size=(2, 5, 3))
    np.testing.assert_array_equal(fast_exp(batch, MODERATE), jnp.exp(batch))
    single = batch[..., 0].astype(np.float32)
    np.testing.assert_array_equal(fast_exp(single, np.float32(MODERATE)), jnp.exp(single))

"""The Wright omega function and its derivatives against SciPy's."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
from hypothesis import given
from hypothesis import strategies as st

from mfg_jax.wright_omega import wright_omega

ARGUMENTS = np.concatenate(
    [np.linspace(-700.0, -30.0, 301), np.linspace(-45.0, 50.0, 2001), np.geomspace(1e-300, 1e12, 301), [-40.0, 0.0, 1.0]]
)


def test_values() -> None:
    np.testing.assert_allclose(wright_omega(jnp.asarray(ARGUMENTS)), scipy.special.wrightomega(ARGUMENTS), rtol=2e-14)


def test_derivatives() -> None:
    """u/(1 + u) and u/(1 + u)³; where u is large the second is a small difference of numbers of size 1/u."""
    u = scipy.special.wrightomega(ARGUMENTS)
    slope = jax.grad(wright_omega)
    np.testing.assert_allclose(jax.vmap(slope)(jnp.asarray(ARGUMENTS)), u / (1.0 + u), rtol=2e-14)
    curvature = jax.vmap(jax.grad(slope))(jnp.asarray(ARGUMENTS))
    assert np.all(np.abs(curvature - u / (1.0 + u) ** 3) <= 4e-14 * u / (1.0 + u) ** 2)


@given(st.floats(-30.0, 1e12))
def test_solves_its_equation(c: float) -> None:
    u = float(wright_omega(jnp.asarray(c)))
    assert u > 0.0
    assert u + np.log(u) == pytest.approx(c, rel=1e-14, abs=1e-13)


def test_single_precision() -> None:
    found = wright_omega(jnp.asarray(ARGUMENTS[ARGUMENTS > -80.0], jnp.float32))
    assert found.dtype == jnp.float32
    np.testing.assert_allclose(found, scipy.special.wrightomega(ARGUMENTS[ARGUMENTS > -80.0]), rtol=1e-4)

"""Dense linear algebra against LAPACK, by NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import mfg_jax as mfg
from mfg_jax import dense
from tests.conftest import parameters_of

MATRICES = np.random.default_rng(1).normal(size=(50, 7, 7))


def test_solve() -> None:
    sides = MATRICES[:, 0] - 2.0
    found = jax.vmap(dense.solve)(jnp.asarray(MATRICES), jnp.asarray(sides))
    np.testing.assert_allclose(found, np.linalg.solve(MATRICES, sides[:, :, None])[:, :, 0], rtol=1e-9)


def test_sign_of_determinant() -> None:
    signs = jax.vmap(dense.sign_of_determinant)(jnp.asarray(MATRICES))
    np.testing.assert_array_equal(signs, np.linalg.slogdet(MATRICES)[0])
    assert set(np.asarray(signs)) == {-1.0, 1.0}


@pytest.mark.parametrize(("matrix", "sign"), [([[0.0, 1.0], [1.0, 0.0]], -1.0), ([[1.0, 2.0], [2.0, 4.0]], 0.0), ([[0.0]], 0.0)])
def test_pivots_that_vanish(matrix: list[list[float]], sign: float) -> None:
    assert dense.sign_of_determinant(jnp.array(matrix)) == sign
    assert bool(jnp.all(jnp.isfinite(dense.solve(jnp.array(matrix), jnp.ones(len(matrix)))))) == (sign != 0.0)


def test_what_is_not_finite_has_no_sign() -> None:
    assert np.isnan(dense.sign_of_determinant(jnp.array([[1.0, jnp.nan], [0.0, 1.0]])))


def test_no_program_for_many_games_waits_for_lapack() -> None:
    """Two such kernels at once, on two threads, never end (see `mfg_jax.dense`)."""
    model = mfg.Model("relative", x_max=3, n_steps=12)
    games = jax.tree.map(lambda leaf: np.full(2, leaf), parameters_of({}))
    program = jax.jit(jax.vmap(lambda p: mfg.solve(model, p, certify="full")))
    assert "lapack" not in program.lower(games).as_text()

"""Linear equations by products alone, against direct solution."""

import itertools

import jax
import numpy as np
import pytest

from mfg_jax import krylov

SIZE = 12
advance = jax.jit(krylov.advance)


def solve(matrix: np.ndarray, right_side: np.ndarray, trips: int) -> list[krylov.Krylov]:
    """Every state on the way."""
    states = [krylov.begin(jax.numpy.asarray(right_side), trips)]
    for _ in range(trips):
        states.append(advance(states[-1], matrix @ states[-1].direction))
    return states


def cyclic_shift() -> np.ndarray:
    """A residual that does not fall until the last trip: e₁ is sought by products that only pass it on."""
    return np.roll(np.eye(SIZE), 1, axis=0)


MATRICES = {
    "near one": np.eye(SIZE) + 0.1 * np.random.default_rng(0).normal(size=(SIZE, SIZE)),
    "indefinite": np.diag(np.r_[-2.0, -1e-2, np.linspace(0.5, 3.0, SIZE - 2)]) + np.triu(np.ones((SIZE, SIZE)), 1),
    "cyclic shift": cyclic_shift(),
}


@pytest.mark.parametrize("matrix", MATRICES.values(), ids=MATRICES.keys())
def test_solution(matrix: np.ndarray) -> None:
    """After as many trips as there are unknowns; the residual never grows, and is what the solution leaves."""
    right_side = np.eye(SIZE)[0]
    states = solve(matrix, right_side, SIZE)
    np.testing.assert_allclose(states[-1].solution, np.linalg.solve(matrix, right_side), atol=1e-9)
    lengths = [float(np.linalg.norm(state.residual)) for state in states]
    assert all(later <= earlier * (1.0 + 1e-12) for earlier, later in itertools.pairwise(lengths))
    for state in states:
        np.testing.assert_allclose(right_side - matrix @ state.solution, state.residual, atol=1e-10)
    assert not states[0].solved(1e-6) and states[-1].solved(1e-6)


def test_the_residual_is_the_smallest_that_the_directions_allow() -> None:
    matrix, right_side = MATRICES["near one"], np.arange(1.0, SIZE + 1.0)
    for trips, state in enumerate(solve(matrix, right_side, 6)):
        images = matrix @ np.asarray(state.directions[:trips]).T
        best = right_side - images @ np.linalg.lstsq(images, right_side, rcond=None)[0] if trips else right_side
        np.testing.assert_allclose(state.residual, best, atol=1e-10)


def test_nothing_to_solve() -> None:
    state = advance(krylov.begin(jax.numpy.zeros(SIZE), 3), np.zeros(SIZE))
    assert state.solved(1e-6) and not state.solution.any()


def solved(matrix: np.ndarray, right_side: np.ndarray) -> np.ndarray:
    return np.asarray(jax.jit(lambda b: krylov.solve(lambda x: jax.numpy.asarray(matrix) @ x, b))(right_side))


@pytest.mark.parametrize("matrix", MATRICES.values(), ids=MATRICES.keys())
def test_solved_to_rounding(matrix: np.ndarray) -> None:
    right_side = np.arange(1.0, SIZE + 1.0)
    np.testing.assert_allclose(solved(matrix, right_side), np.linalg.solve(matrix, right_side), rtol=1e-11)


def test_solved_in_several_rounds() -> None:
    """More unknowns than directions are kept, and eigenvalues from one end to the other."""
    matrix = np.diag(np.linspace(0.02, 2.0, 150)) + np.triu(0.01 * np.random.default_rng(2).normal(size=(150, 150)), 1)
    right_side = np.ones(150)
    np.testing.assert_allclose(solved(matrix, right_side), np.linalg.solve(matrix, right_side), rtol=1e-9)


def test_what_cannot_be_solved_is_not_a_number() -> None:
    assert np.isnan(solved(np.diag(np.r_[0.0, np.ones(SIZE - 1)]), np.ones(SIZE))).all()
    assert np.isnan(solved(np.full((SIZE, SIZE), np.nan), np.ones(SIZE))).all()
    assert not solved(np.eye(SIZE), np.zeros(SIZE)).any()

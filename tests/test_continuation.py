"""The path from the uncoupled game, on toys whose equilibria are known and on the named cases of MODEL.md, section 5."""

import functools
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import brentq

import mfg_jax as mfg
from mfg_jax.continuation import CAREFUL_STEP, LONGEST_STEP, Found, Walker
from mfg_jax.equilibrium import _follow_coarsely, solve_along_path, solve_cold
from mfg_jax.parameters import as_scalars
from tests.conftest import parameters_of

BOX = (0.0, 5.0)
SKEWED = {"eta": 0.1, "crowd_mean": 2.0, "gamma": 0.5}
"""The game S."""


def sigmoid(height: float, steepness: float, middle: float, floor: float) -> Any:
    return lambda crowd: floor + height / (1.0 + np.e ** (-steepness * (crowd - middle)))


def walker(phi: Any, longest_step: float = LONGEST_STEP) -> Walker:
    project = lambda crowd: jnp.clip(crowd, *BOX)  # noqa: E731
    return Walker(phi, project, jnp.asarray(1.0), jnp.asarray(1e-10), (1, 2), longest_step)


def follow(phi: Any) -> Found:
    return jax.jit(lambda: walker(phi).follow())()


def equilibria(phi: Any) -> list[float]:
    """All of them at dial 1, by brute force."""
    grid = np.linspace(*BOX, 4001)
    gap = phi(grid) - grid
    crossings = np.flatnonzero(gap[1:] * gap[:-1] < 0)
    return [cast(float, brentq(lambda d: phi(d) - d, grid[i], grid[i + 1], xtol=1e-13)) for i in crossings]


def nearly_symmetric(lean: float) -> Any:
    """The sides differ by d = 2·tanh(0.8·d) + lean: three equilibria, of which the path leads to that on the side of the lean."""

    def phi(crowd: jax.Array) -> jax.Array:
        difference = 2.0 * jnp.tanh(0.8 * (crowd[:, :1] - crowd[:, 1:])) + lean
        return 2.0 + 0.5 * jnp.concatenate([difference, -difference], axis=1)

    return phi


@pytest.mark.parametrize("lean", [0.01, 0.1, -0.01])
def test_a_step_that_leads_astray_is_noticed_and_shorter_ones_do_not(lean: float) -> None:
    """The path bends away from the line of equal sides, on which the middle equilibrium lies, close by."""
    roots = [brentq(lambda d: 2 * np.tanh(0.8 * d) + lean - d, *span) for span in ((-5, -0.9), (-0.9, 0.9), (0.9, 5))]
    middle, own = cast(float, roots[1]), cast(float, roots[2 if lean > 0 else 0])
    careful = walker(nearly_symmetric(lean), CAREFUL_STEP)
    found = jax.jit(careful.follow)()
    assert found.arrived and found.folds == 0
    np.testing.assert_allclose(found.crowd[0, 0] - found.crowd[0, 1], own, atol=1e-8)
    assert careful.on_one_path(found)
    astray = found._replace(crowd=jnp.array([[2.0 + 0.5 * middle, 2.0 - 0.5 * middle]]))
    assert not careful.on_one_path(astray)
    assert careful.on_one_path(astray._replace(folds=jnp.asarray(1)))


def test_the_path_of_a_symmetric_game_is_not_doubted() -> None:
    symmetric = walker(nearly_symmetric(0.0))
    found = jax.jit(symmetric.follow)()
    assert found.arrived and found.folds == 0
    np.testing.assert_allclose(found.crowd, 2.0, atol=1e-8)
    assert symmetric.on_one_path(found)


def test_a_nearly_symmetric_game() -> None:
    """Steps on the first coarse grid lead to equal sides that a naive crowd leaves; the path leads to one leaning side."""
    model = mfg.Model("elastic", n_steps=64, grading=6.0)
    game = {"eta": 0.1, "gamma": 2.0, "k0": 0.06, "crowd_mean": 0.25}
    solve = jax.jit(lambda p: solve_along_path(model, p).equilibrium)
    equilibrium = solve(parameters_of(game))
    assert equilibrium.status == mfg.Status.CONVERGED
    assert equilibrium.branch == mfg.Branch.PRINCIPAL
    assert equilibrium.folds == 2
    assert equilibrium.crowd_bid[0] - equilibrium.crowd_ask[0] == pytest.approx(4.113, abs=0.01)


def test_of_several_equilibria_the_one_without_a_fold_before_it() -> None:
    phi = sigmoid(4.0, 6.0, 2.0, 0.5)
    low, _, _ = equilibria(phi)
    found = follow(phi)
    assert found.arrived and found.folds == 0
    np.testing.assert_allclose(found.crowd, low, atol=1e-9)


def test_round_two_folds() -> None:
    """The low equilibria end before dial 1; the path turns, comes back, and goes on along the high ones."""
    phi = sigmoid(4.0, 4.0, 1.6, 0.8)
    (high,) = equilibria(phi)
    folded = [len(equilibria(lambda d, dial=dial: phi(dial * d))) for dial in (0.2, 0.85, 1.0)]
    assert folded == [1, 3, 1]
    found = follow(phi)
    assert found.arrived and found.folds == 2
    np.testing.assert_allclose(found.crowd, high, atol=1e-9)


def test_a_game_to_skip_takes_no_trip() -> None:
    phi = sigmoid(4.0, 6.0, 2.0, 0.5)
    found = jax.jit(jax.vmap(lambda skip: walker(phi).follow(skip)))(np.array([True, False]))
    assert found.trips[0] == 0 and found.trips[1] > 0


def test_numbers_that_overflow_end_the_walk() -> None:
    found = follow(lambda crowd: crowd + jnp.nan)
    assert not found.arrived and found.trips < 100


def test_from_a_guess() -> None:
    """Newton's method from near by; the whole path from afar."""
    phi = sigmoid(4.0, 6.0, 2.0, 0.5)
    low, _, high = equilibria(phi)
    arrive = jax.jit(lambda guess, whole: walker(phi).arrive(jnp.full((1, 2), guess), whole))
    for guess, expected in ((low + 0.05, low), (high - 0.05, high)):
        found = arrive(guess, False)
        assert found.arrived and found.trips < 20
        np.testing.assert_allclose(found.crowd, expected, atol=1e-9)
    assert not arrive(np.nan, False).arrived
    along_the_path = arrive(high, True)
    assert along_the_path.arrived
    np.testing.assert_allclose(along_the_path.crowd, low, atol=1e-9)


def test_on_past_an_equilibrium() -> None:
    """Beyond dial 1 the path turns and comes back through the other two."""
    phi = sigmoid(4.0, 6.0, 2.0, 0.5)

    @jax.jit
    def first_three() -> list[Found]:
        of_path = walker(phi)
        first, end = of_path.first_equilibrium()
        second, end = of_path.next_equilibrium(end)
        third, end = of_path.next_equilibrium(end)
        return [first, second, third, of_path.next_equilibrium(end)[0]]

    *found, beyond = first_three()
    np.testing.assert_allclose([equilibrium.crowd[0, 0] for equilibrium in found], equilibria(phi), atol=1e-9)
    assert all(equilibrium.arrived for equilibrium in found) and not beyond.arrived
    assert [int(equilibrium.folds) for equilibrium in found] == [0, 1, 2]


def test_from_an_equilibrium_both_ways() -> None:
    phi = sigmoid(4.0, 6.0, 2.0, 0.5)
    low, middle, high = equilibria(phi)
    depart = jax.jit(
        lambda crowd, direction: walker(phi).next_equilibrium(walker(phi).departing(jnp.full((1, 2), crowd), direction))[0],
    )
    np.testing.assert_allclose(depart(middle, 1.0).crowd, low, atol=1e-9)
    np.testing.assert_allclose(depart(middle, -1.0).crowd, high, atol=1e-9)


@functools.cache
def along_path(n_steps: int) -> Any:
    model = mfg.Model("elastic", n_steps=n_steps)
    return jax.jit(lambda p: solve_along_path(model, p).equilibrium)


@pytest.mark.parametrize(("share", "bid"), [(1.0, 1.0570), (0.2, 1.2391), (0.1, 2.2306), (0.0, 4.7817)])
def test_the_skewed_game_along_the_dial_of_competition(share: float, bid: float) -> None:
    """MODEL.md, section 5: the bid offset at the open."""
    equilibrium = along_path(50)(parameters_of(SKEWED | {"k0": share * 1.5}))
    assert equilibrium.status == mfg.Status.CONVERGED and equilibrium.branch == mfg.Branch.PRINCIPAL
    assert equilibrium.crowd_bid[0] == pytest.approx(bid, abs=2e-4)
    assert equilibrium.folds == 0
    assert equilibrium.residual * 1.5 <= 1e-9
    assert equilibrium.mass_error < 1e-13 and equilibrium.min_density > -1e-13


def test_which_of_two_equilibria() -> None:
    """MODEL.md, section 5: with γ 2 a cold start finds another one than the path."""
    game = parameters_of(SKEWED | {"gamma": 2.0, "k0": 0.0})
    principal = along_path(50)(game)
    assert principal.status == mfg.Status.CONVERGED and principal.folds == 0
    np.testing.assert_allclose([principal.crowd_ask[0], principal.crowd_bid[0]], [0.0, 4.99986], atol=2e-5)
    model = mfg.Model("elastic", n_steps=50, scheme="exponential")
    cold = mfg.solve(model, game, select="cold")
    assert cold.status == mfg.Status.CONVERGED and cold.branch == mfg.Branch.UNVERIFIED
    np.testing.assert_allclose([cold.crowd_ask[0], cold.crowd_bid[0]], [1.27868, 0.17551], atol=0.05)


def test_solve_goes_only_as_far_as_each_game_needs() -> None:
    """In one batch: a mild game, one whose cold equilibrium a path confirms, and one for which the path finds another."""
    games = {
        "mild": {"A": 5.0},
        "confirmed": {"A": 20.0, "k": 2.0, "eta": 0.03, "gamma": 0.1, "crowd_mean": 1.0},
        "another": SKEWED | {"gamma": 2.0},
    }
    model = mfg.Model("relative", n_steps=100)
    batch = jax.tree.map(lambda *leaves: np.array(leaves), *(parameters_of(game) for game in games.values()))
    found = jax.jit(jax.vmap(lambda p: mfg.solve(model, p)))(batch)
    cold = jax.jit(jax.vmap(lambda p: solve_cold(model, p).equilibrium))(batch)
    assert (np.asarray(found.status) == mfg.Status.CONVERGED).all() and (np.asarray(found.branch) == mfg.Branch.PRINCIPAL).all()
    assert np.asarray(cold.branch).tolist() == [mfg.Branch.PRINCIPAL, mfg.Branch.UNVERIFIED, mfg.Branch.UNVERIFIED]
    for game in (0, 1):
        np.testing.assert_array_equal(found.crowd_ask[game], cold.crowd_ask[game])
        assert found.iterations[game] == cold.iterations[game]
    np.testing.assert_allclose([found.crowd_ask[2, 0], found.crowd_bid[2, 0]], [0.0, 4.99986], atol=2e-5)


def test_select_is_one_of_three() -> None:
    with pytest.raises(ValueError, match="select must be one of 'principal', 'any', 'cold'; found 'best'"):
        mfg.solve(mfg.Model("none"), parameters_of({}), select="best")


def test_a_path_that_is_skipped_leads_nowhere() -> None:
    """What a finer path or another method is tried for must not count as found where that was left out."""
    lead = jax.jit(lambda p: _follow_coarsely(mfg.Model("elastic", x_max=2, n_steps=4), p, 1, jnp.asarray(True)))
    assert not lead(as_scalars(parameters_of({}))).found.arrived

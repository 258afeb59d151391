"""The certificates that cost further solves, each against a slower way to the same number."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import mfg_jax as mfg
from mfg_jax.best_reply import best_reply
from mfg_jax.certificate import certify_fully, exploitability, time_error
from mfg_jax.equilibrium import solve_cold
from mfg_jax.game import lay_out
from mfg_jax.hjb import best_quotes, crowd_at_stages, fill_rates
from mfg_jax.lattice import leaving
from mfg_jax.parameters import as_scalars
from mfg_jax.scheme import gains
from mfg_jax.solution import Solved
from mfg_jax.spectrum import spectral_radius
from tests.conftest import UNCLIPPED, parameters_of

SKEWED = {"crowd_mean": 1.0, "eta": 0.03, "gamma": 0.1, "A": 5.0, "k": 1.2, "A_ask": 4.0}

GAMES = {
    "skewed": ("elastic", "rk4", SKEWED | {"k0": 0.3}),
    "market share": ("market_share", "rk4", SKEWED | UNCLIPPED),
    "stiff": ("relative", "exponential", {"A": 15.0, "crowd_mean": 2.0}),
}


@functools.cache
def certify(coupling: str, scheme: str, n_steps: int) -> Any:
    """Parameters → the solved game and its certificates."""
    model = mfg.Model(coupling, x_max=5, n_steps=n_steps, scheme=scheme, solver={"tolerance": 1e-12})

    def run(parameters: mfg.Parameters) -> tuple[Solved, Any]:
        solved = solve_cold(model, parameters)
        return solved, certify_fully(model, parameters, solved)

    return model, jax.jit(run)


@pytest.mark.parametrize("name", GAMES)
def test_contraction_against_dense_eigenvalues(name: str) -> None:
    coupling, scheme, game = GAMES[name]
    model, run = certify(coupling, scheme, 24)
    solved, certificates = run(parameters_of(game))
    assert solved.equilibrium.status == mfg.Status.CONVERGED
    layout = lay_out(model, parameters_of(game))
    phi = lambda flat: best_reply(model, layout, flat.reshape(-1, 2)).crowd.ravel()  # noqa: E731
    derivative = jax.jit(jax.jacfwd(phi))(solved.replied_to.ravel())
    largest = np.abs(np.linalg.eigvals(np.asarray(derivative))).max()
    assert largest > 0.1
    assert certificates.contraction == pytest.approx(largest, rel=5e-3)


def error_against(factor: int, coupling: str, scheme: str, game: dict[str, float], solved: Solved) -> float:
    """The largest difference of the crowd's averages to those of steps shorter by a factor."""
    model = mfg.Model(coupling, x_max=5, n_steps=24 * factor, scheme=scheme, solver={"tolerance": 1e-12})
    fine = jax.jit(lambda p: solve_cold(model, p).equilibrium)(parameters_of(game))
    found = solved.equilibrium
    return max(np.abs(found.crowd_ask - fine.crowd_ask[::factor]).max(), np.abs(found.crowd_bid - fine.crowd_bid[::factor]).max())


@pytest.mark.parametrize("name", GAMES)
def test_time_error_against_steps_an_eighth_as_long(name: str) -> None:
    coupling, scheme, game = GAMES[name]
    solved, certificates = certify(coupling, scheme, 24)[1](parameters_of(game))
    halved, true = (error_against(factor, coupling, scheme, game, solved) for factor in (2, 8))
    assert certificates.time_error == pytest.approx(halved, rel=0.05)
    assert true > 1e-9
    assert true / 3 <= certificates.time_error <= 3 * true


def test_time_error_where_finer_steps_lead_elsewhere() -> None:
    """The crowd path is off an equilibrium by so much that Newton's method goes astray or nowhere near."""
    model, run = certify("elastic", "rk4", 24)
    solved, _ = run(parameters_of(SKEWED))
    astray = jnp.full_like(solved.replied_to, jnp.nan)
    error = jax.jit(lambda: time_error(model, as_scalars(parameters_of(SKEWED)), astray, jnp.asarray(False)))
    assert np.isposinf(error())


def test_a_game_that_has_not_converged_has_none() -> None:
    solved, certificates = certify("elastic", "rk4", 24)[1](parameters_of({"eta": -1.0}))
    assert solved.equilibrium.status == mfg.Status.INVALID_PARAMETERS
    assert all(np.isnan(number) for number in certificates)


# Exploitability.


@pytest.mark.parametrize("name", GAMES)
def test_exploitability_is_of_second_order_in_the_residual(name: str) -> None:
    """0 at an equilibrium; off it by ε, positive and in proportion to ε², but for as much as the policy of a step is not the best
    one of the discrete game, which is of the order of the time error."""
    coupling, scheme, game = GAMES[name]
    model, run = certify(coupling, scheme, 24)
    parameters = parameters_of(game)
    solved, certificates = run(parameters)
    assert abs(certificates.exploitability) < 1e-12
    bump = 0.1 + 0.1 * np.stack([np.sin(3 * np.asarray(model.time_fractions)), np.cos(np.asarray(model.time_fractions))], axis=1)
    layout = lay_out(model, as_scalars(parameters))
    exploit = jax.jit(lambda d: exploitability(model, layout, solved.replied_to + d * bump))
    left, small, right = exploit(-0.01), exploit(0.01) + exploit(-0.01), exploit(0.01)
    assert small > 1e-8
    assert (exploit(0.02) + exploit(-0.02)) / small == pytest.approx(4.0, rel=0.1)
    assert abs(right - left) <= 0.02 * certificates.time_error + 0.01 * small


def test_exploitability_by_solving_for_each_value_on_its_own() -> None:
    """The euler scheme written out: the policy against the first crowd, its value and the best one against the second."""
    model = mfg.Model("relative", x_max=3, n_steps=400, scheme="euler", grading=0.0)
    parameters = parameters_of({"A": 3.0, "crowd_mean": 1.0})
    game = lay_out(model, parameters)
    crowd = jnp.stack([jnp.full(401, 0.9), jnp.linspace(0.4, 0.6, 401)], axis=1)
    replied = crowd_at_stages(model, crowd)[:, 0]
    met = crowd_at_stages(model, best_reply(model, game, crowd).crowd)[:, 0]

    @jax.jit
    def earlier(value: jax.Array, quotes: jax.Array, against: jax.Array) -> jax.Array:
        return value + game.dt[0] * (leaving(gains(quotes, fill_rates(model, game, quotes, against), value)) - game.running_cost)

    quotes_of = jax.jit(lambda value, against: best_quotes(model, game, value, against))
    stored = played = best = game.terminal_value
    for first, second in zip(np.asarray(replied)[::-1], np.asarray(met)[::-1], strict=True):
        quotes = quotes_of(stored, first)
        stored = earlier(stored, quotes, first)
        played = earlier(played, quotes, second)
        best = earlier(best, quotes_of(best, second), second)
    expected = float(game.initial_density @ (best - played))
    assert expected > 1e-4
    found = jax.jit(lambda: exploitability(model, game, crowd))()
    assert float(found) == pytest.approx(expected, rel=1e-9)


def test_full_certificates_through_solve() -> None:
    """Only where asked for, of each game of a batch."""
    model, run = certify("elastic", "rk4", 24)
    assert jax.eval_shape(lambda p: mfg.solve(model, p), parameters_of({})).exploitability is None
    games = [parameters_of(SKEWED | change) for change in ({}, {"k0": 0.3}, {"eta": -1.0})]
    batch = jax.tree.map(lambda *leaves: np.array(leaves), *games)
    solve_all = jax.vmap(lambda p: mfg.solve(model, p, certify="full", select="cold"))
    found = jax.jit(solve_all)(batch)
    for lane, game in enumerate(games):
        _, alone = run(game)
        for name, number in alone._asdict().items():
            np.testing.assert_allclose(getattr(found, name)[lane], number, rtol=1e-6, atol=1e-12)


# Eigenvalues.

MATRICES = {
    "real": np.diag([0.9, -0.95, 0.3, 0.1]),
    "a pair": np.array([[0.0, -0.8, 0.3], [0.8, 0.0, 0.1], [0.0, 0.0, 0.5]]),
    "nilpotent": np.diag(np.ones(4), 1),
    "zero": np.zeros((3, 3)),
    "far from normal": np.array([[0.5, 1e3], [0.0, -0.4]]),
    "large": 1e8 * np.random.default_rng(1).normal(size=(30, 30)),
    "expanding": np.random.default_rng(2).normal(size=(80, 80)) * 0.5 ** np.arange(80),
}


@pytest.mark.parametrize("name", MATRICES)
def test_spectral_radius(name: str) -> None:
    matrix = MATRICES[name]
    found = jax.jit(lambda: spectral_radius(lambda v: matrix @ v, len(matrix), jnp.dtype(float)))()
    expected = np.abs(np.linalg.eigvals(matrix)).max()
    assert float(found) == pytest.approx(expected, rel=0.02, abs=2e-2 if name == "nilpotent" else 1e-12)


def test_a_spectrum_to_skip_takes_no_product() -> None:
    radius = jax.jit(jax.vmap(lambda skip: spectral_radius(lambda v: 0.5 * v, 3, jnp.dtype(float), skip)))
    np.testing.assert_allclose(radius(np.array([True, False])), [0.0, 0.5], rtol=1e-3)

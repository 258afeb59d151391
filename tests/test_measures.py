"""Metrics and certificates against their definitions, evaluated slowly in NumPy; the grid's quadrature and interpolation."""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from scipy.interpolate import CubicSpline

import mfg_jax as mfg
from mfg_jax.best_reply import best_reply
from mfg_jax.certificate import BasicCertificates, certify_basics
from mfg_jax.game import lay_out
from mfg_jax.grid import graded_fractions, interpolation_stencil, quadrature_weights
from mfg_jax.parameters import as_scalars
from tests import oracle
from tests.conftest import BASE_GAME, UNCLIPPED, default_model, measure, parameters_of, solve_games

COUPLINGS = ["relative", "elastic", "market_share", "none"]
BOUNDARIES = ["reflecting", "absorbing"]

SMOOTH = {"k0": 0.4, "n_makers": 3.0, "crowd_mean": 1.0, "gamma": 0.1, **UNCLIPPED}
CLIPPED = {"k0": 0.4, "n_makers": 3.0, "crowd_mean": 1.0, "gamma": 0.2, "quote_min": 0.4, "quote_max": 0.9}


class Case(NamedTuple):
    """A solved game with its metrics and its fill rates, [time, side, x], evaluated by the oracle."""

    equilibrium: mfg.Equilibrium
    metrics: mfg.Metrics
    rates: np.ndarray


def solved(coupling: str, boundary: str, game: dict[str, float]) -> Case:
    model = default_model(coupling, boundary=boundary)
    (equilibrium,) = solve_games(model, game)
    assert equilibrium.status == mfg.Status.CONVERGED
    numbers = BASE_GAME | game
    A, k = numbers["A"], numbers["k"]
    own = {name: numbers[name] for name in ("k0", "n_makers", "eta", "gamma", "quote_min", "quote_max")}
    slow = oracle.Game(coupling, boundary, np.zeros(1), np.asarray(equilibrium.density[0]), A, A, k, k, **own)
    paths = [(equilibrium.ask, equilibrium.crowd_ask), (equilibrium.bid, equilibrium.crowd_bid)]
    sides = [tuple(map(np.asarray, pair)) for pair in paths]
    rates = np.stack([oracle.fill_rate(slow, A, k, quotes, crowd[:, None]) for quotes, crowd in sides], axis=1)
    return Case(equilibrium, measure(model, game, equilibrium), rates)


def integral(time: np.ndarray, path: np.ndarray) -> float:
    return float(CubicSpline(time, path).integrate(time[0], time[-1]))


# Metrics of solved games.


@pytest.mark.parametrize("boundary", BOUNDARIES)
@pytest.mark.parametrize("coupling", COUPLINGS)
def test_expected_value_is_edge_less_costs(coupling: str, boundary: str) -> None:
    """What makers expect at the open, from the HJB, against what the crowd goes on to earn and pay."""
    metrics = solved(coupling, boundary, SMOOTH).metrics
    earned = metrics.expected_edge - metrics.expected_running_cost - metrics.expected_terminal_cost
    assert metrics.expected_value == pytest.approx(earned, abs=1e-7)


@pytest.mark.parametrize("boundary", BOUNDARIES)
def test_paths(boundary: str) -> None:
    """Maker by maker."""
    equilibrium, metrics, rates = solved("elastic", boundary, SMOOTH)
    for j in range(0, equilibrium.time.size, 25):
        makers = dict(zip(range(-10, 11), equilibrium.density[j], strict=True))
        value = dict(zip(range(-10, 11), equilibrium.value[j], strict=True))
        mean = sum(x * mass for x, mass in makers.items())
        expected = {
            "full_spread": equilibrium.crowd_ask[j] + equilibrium.crowd_bid[j],
            "inventory_mean": mean,
            "inventory_variance": sum((x - mean) ** 2 * mass for x, mass in makers.items()),
            "derisk_probability": makers[-1] + makers[0] + makers[1],
            "marginal_value": (value[1] - value[-1]) / 2.0,
            "flat_to_long_cost": value[0] - value[1],
            "flat_to_short_cost": value[0] - value[-1],
            "fill_rate_ask": sum(mass * rate for mass, rate in zip(makers.values(), rates[j, 0], strict=True)),
            "fill_rate_bid": sum(mass * rate for mass, rate in zip(makers.values(), rates[j, 1], strict=True)),
            "value_flat": value[0],
        }
        for name, figure in expected.items():
            assert getattr(metrics, name)[j] == pytest.approx(figure, rel=1e-12, abs=1e-13), name


@pytest.mark.parametrize("boundary", BOUNDARIES)
def test_scalars(boundary: str) -> None:
    equilibrium, metrics, rates = solved("elastic", boundary, SMOOTH)
    time, density, x = map(np.asarray, (equilibrium.time, equilibrium.density, equilibrium.inventory))
    quotes = np.stack([equilibrium.ask, equilibrium.bid], axis=1)
    earnings = rates * np.where(np.isinf(quotes), 0.0, quotes)
    expected = {
        "mean_spread": integral(time, np.asarray(equilibrium.crowd_ask + equilibrium.crowd_bid)) / BASE_GAME["horizon"],
        "closing_spread": equilibrium.crowd_ask[-1] + equilibrium.crowd_bid[-1],
        "final_derisk_probability": density[-1, 9:12].sum(),
        "expected_fills": integral(time, (rates * density[:, None]).sum(axis=(1, 2))),
        "expected_value": (density[0] * equilibrium.value[0]).sum(),
        "expected_edge": integral(time, (earnings * density[:, None]).sum(axis=(1, 2))),
        "expected_running_cost": BASE_GAME["eta"] * integral(time, (density * x**2).sum(axis=1)),
        "expected_terminal_cost": SMOOTH["gamma"] * (density[-1] * x**2).sum(),
    }
    for name, figure in expected.items():
        assert getattr(metrics, name) == pytest.approx(figure, rel=1e-7), name


def test_time_averages_are_per_horizon_and_sums_are_not() -> None:
    """Twice the horizon at half the rates: the same spreads and fills."""
    game = SMOOTH | {"horizon": 2.0, "A": BASE_GAME["A"] / 2.0, "eta": BASE_GAME["eta"] / 2.0}
    one, slower = solved("elastic", "reflecting", SMOOTH).metrics, solved("elastic", "reflecting", game).metrics
    for name in ("mean_spread", "expected_fills", "expected_edge", "expected_running_cost"):
        assert getattr(slower, name) == pytest.approx(getattr(one, name), rel=1e-9), name
    assert slower.peak_time == pytest.approx(2.0 * one.peak_time, rel=1e-6)


# Metrics of made-up densities, of which everything is known.

TINY = mfg.Model("none", x_max=2, n_steps=20, grading=0.0)
TIME = np.linspace(0.0, 2.0, TINY.n_steps + 1)


@jax.jit
def metrics_of_densities(densities: jax.Array) -> mfg.Metrics:
    """Of a batch of densities [batch, time, x] over a horizon of 2; whatever does not depend on the density is 0."""
    game = parameters_of({"horizon": 2.0})
    shape = jax.eval_shape(lambda: mfg.solve(TINY, game))
    nothing = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shape)
    nothing = dataclasses.replace(nothing, time=jnp.asarray(TIME), inventory=jnp.arange(-2.0, 3.0))
    return jax.vmap(lambda density: mfg.metrics(TINY, game, dataclasses.replace(nothing, density=density)))(densities)


def density_of(mass: dict[int, np.ndarray | float]) -> np.ndarray:
    """The given mass at some inventories over time; the rest of the makers at 0."""
    density = np.zeros((TIME.size, 5))
    for x, path in mass.items():
        density[:, x + 2] = path
    density[:, 2] += 1.0 - density.sum(axis=1)
    return density


def test_half_life() -> None:
    """Linear between times; from either side; NaN for a crowd that starts flat or never gets there."""
    cases = {
        "falls linearly": (density_of({1: 0.8 * (1.0 - 0.49 * TIME)}), 0.5 / 0.49),
        "rises linearly": (density_of({-2: 0.4 * (1.0 - 0.49 * TIME)}), 0.5 / 0.49),
        "first of three times": (density_of({1: 0.5 + 0.5 * np.cos(2.0 * np.pi * TIME)}), 0.25),
        "crosses zero": (density_of({1: np.where(TIME < 1.01, 0.6, 0.0), -1: np.where(TIME < 1.01, 0.0, 0.3)}), 1.1),
        "at the very end": (density_of({2: 0.5 - 0.125 * TIME}), 2.0),
        "not quite": (density_of({2: 0.5 - 0.1249 * TIME}), np.nan),
        "starts flat": (density_of({2: 0.1 * TIME}), np.nan),
        "starts symmetric": (density_of({1: 0.3, -1: 0.3}), np.nan),
    }
    found = metrics_of_densities(np.stack([density for density, _ in cases.values()])).half_life
    np.testing.assert_allclose(found, [half_life for _, half_life in cases.values()], rtol=1e-12)


def test_peak_of_the_variance() -> None:
    """Between stored times by a parabola, or at an end."""
    variances = [0.5 - 0.2 * (TIME - 0.73) ** 2, 0.1 + 0.1 * TIME, 0.5 - 0.2 * TIME]
    found = metrics_of_densities(np.stack([density_of({1: path / 2.0, -1: path / 2.0}) for path in variances]))
    np.testing.assert_allclose(found.inventory_variance, variances, rtol=1e-12)
    np.testing.assert_allclose(found.peak_time, [0.73, 2.0, 0.0], atol=1e-9)
    np.testing.assert_allclose(found.peak_variance, [0.5, 0.3, 0.5], rtol=1e-12)


def test_derisk_band() -> None:
    """|x| ≤ band, in lots."""
    model, game = default_model("elastic"), SMOOTH
    equilibrium = solved("elastic", "reflecting", game).equilibrium
    for band, expected in {0: equilibrium.density[:, 10], 3: equilibrium.density[:, 7:14].sum(axis=1), 10: 1.0}.items():
        metrics = mfg.metrics(model, parameters_of(game), equilibrium, derisk_band=band)
        np.testing.assert_allclose(metrics.derisk_probability, expected * np.ones(201), rtol=1e-13)
        assert metrics.final_derisk_probability == metrics.derisk_probability[-1]


@pytest.mark.parametrize("band", [-1, 1.0, True])
def test_derisk_band_is_a_whole_number_of_lots(band: int) -> None:
    equilibrium = solved("elastic", "reflecting", SMOOTH).equilibrium
    with pytest.raises(ValueError, match="derisk_band must be a whole number of lots >= 0"):
        mfg.metrics(default_model("elastic"), parameters_of(SMOOTH), equilibrium, derisk_band=band)


# Certificates.


@pytest.mark.parametrize("boundary", BOUNDARIES)
@pytest.mark.parametrize("game", [SMOOTH, CLIPPED], ids=["smooth", "clipped"])
@pytest.mark.parametrize("coupling", ["elastic", "market_share"])
def test_certificates(coupling: str, game: dict[str, float], boundary: str) -> None:
    equilibrium = solved(coupling, boundary, game).equilibrium
    density = np.asarray(equilibrium.density)
    assert equilibrium.residual * BASE_GAME["k"] <= 1e-12
    assert equilibrium.mass_error == pytest.approx(np.abs(density.sum(axis=1) - 1.0).max(), abs=1e-15)
    assert equilibrium.mass_error < 1e-13
    assert equilibrium.spread_identity < 1e-13
    assert equilibrium.monotone
    assert equilibrium.min_density == density.min()
    assert equilibrium.edge_mass == pytest.approx((density[:, 0] + density[:, -1]).max(), rel=1e-14)
    for side, quotes in enumerate([equilibrium.ask, equilibrium.bid]):
        at_bound = np.isfinite(quotes) & ((quotes == game["quote_min"]) | (quotes == game["quote_max"]))
        assert equilibrium.clipped_mass[side] == pytest.approx((density * at_bound).sum(axis=1).max(), rel=1e-13)
        assert (equilibrium.clipped_mass[side] > 0.1) == (game is CLIPPED)


def test_certificates_see_faults() -> None:
    """Mass out of nowhere, and a rate that rises in the own offset."""

    class Rising(mfg.Relative):
        def rate(self, quote, crowd, flow):
            return flow.A * jnp.exp(flow.k * (quote - crowd))

    def certificates(model: mfg.Model, made: float) -> BasicCertificates:
        game = lay_out(model, as_scalars(parameters_of({"A": 1.0})))
        crowd = jnp.full((model.n_steps + 1, 2), 0.5)
        reply = best_reply(sound, game, crowd)
        return certify_basics(model, game, crowd, reply._replace(density=(1.0 + made) * reply.density))

    sound = mfg.Model("relative", x_max=2, n_steps=4, scheme="euler")
    rising = dataclasses.replace(sound, coupling=jax.tree_util.register_static(Rising)())
    check = jax.jit(lambda made: [certificates(model, made) for model in (sound, rising)])
    good, bad = check(0.25)
    assert good.monotone and not bad.monotone
    assert good.mass_error == pytest.approx(0.25)


# The grid.


@given(n_steps=st.integers(1, 60), grading=st.floats(0.0, 6.0), coefficients=st.lists(st.floats(-1.0, 1.0), min_size=6, max_size=6))
def test_quadrature_and_interpolation_are_exact_for_polynomials(n_steps: int, grading: float, coefficients: list[float]) -> None:
    """Of degree below 6, or as many as there are nodes."""
    nodes = graded_fractions(n_steps, grading)
    polynomial = np.polynomial.Polynomial(coefficients[: n_steps + 1])
    targets = np.linspace(0.0, 1.0, 23)
    indices, weights = interpolation_stencil(nodes, targets)
    np.testing.assert_allclose((weights * polynomial(nodes)[indices]).sum(axis=1), polynomial(targets), atol=1e-10)
    np.testing.assert_allclose(weights.sum(axis=1), 1.0, rtol=1e-10)
    area = quadrature_weights(nodes)
    rounding = 2e-15 * np.abs(area).sum()  # few steps of very different lengths have large weights of both signs
    assert area @ polynomial(nodes) == pytest.approx(polynomial.integ()(1.0) - polynomial.integ()(0.0), abs=rounding)
    assert area.sum() == pytest.approx(1.0, abs=rounding)


@given(n_steps=st.integers(1, 300), grading=st.floats(0.0, 10.0))
@example(n_steps=3, grading=5e-324)
def test_time_grid(n_steps: int, grading: float) -> None:
    """From 0 to 1, in n_steps that shrink by e^grading from first to last, each by the same factor."""
    fractions = graded_fractions(n_steps, grading)
    steps = np.diff(fractions)
    assert fractions[0] == 0.0 and fractions[-1] == 1.0 and fractions.size == n_steps + 1
    np.testing.assert_allclose(steps[1:] / steps[:-1], np.exp(-grading / n_steps), rtol=1e-6)


def test_grading_is_chosen_in_the_model() -> None:
    """0 is uniform."""
    (uniform,) = solve_games(mfg.Model("none", x_max=2, n_steps=8, grading=0.0, scheme="euler"), {"horizon": 0.1})
    np.testing.assert_allclose(uniform.time, np.linspace(0.0, 0.1, 9), rtol=1e-14)

"""How the crowd starts, its average quote, and what holds of every best reply to any crowd path."""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

import mfg_jax as mfg
from mfg_jax.best_reply import BestReply, best_reply
from mfg_jax.crowd import crowd_average
from mfg_jax.game import lay_out
from mfg_jax.lattice import quoting_edges
from mfg_jax.parameters import as_scalars
from tests.conftest import parameters_of

X_MAX = 4
INVENTORY = np.arange(-X_MAX, X_MAX + 1.0)


def start(initial: mfg.InitialCrowd, **game: float) -> np.ndarray:
    return np.asarray(initial.density(jnp.asarray(INVENTORY), parameters_of(game)))


def test_normal_crowd() -> None:
    expected = np.exp(-((INVENTORY - 1.5) ** 2) / (2.0 * 0.8**2))
    np.testing.assert_allclose(start(mfg.Normal(), crowd_mean=1.5, crowd_std=0.8), expected / expected.sum(), rtol=1e-14)


def test_narrow_normal_crowd_sits_on_the_nearest_inventories() -> None:
    """Also where every weight of the formula is too small for a number, between lattice points or beyond them."""
    np.testing.assert_allclose(start(mfg.Normal(), crowd_mean=1.5, crowd_std=1e-3), [0, 0, 0, 0, 0, 0.5, 0.5, 0, 0])
    np.testing.assert_allclose(start(mfg.Normal(), crowd_mean=100.0, crowd_std=0.1), [0, 0, 0, 0, 0, 0, 0, 0, 1])


def test_point_uniform_and_weighted_crowds() -> None:
    np.testing.assert_array_equal(start(mfg.Point(), crowd_mean=-3.0), [0, 1, 0, 0, 0, 0, 0, 0, 0])
    np.testing.assert_allclose(start(mfg.Uniform()), np.full(9, 1.0 / 9.0))
    np.testing.assert_allclose(start(mfg.Weights((0, 1, 2, 0, 0, 0, 0, 0, 1))), [0, 0.25, 0.5, 0, 0, 0, 0, 0, 0.25])


def average(quotes: np.ndarray, density: np.ndarray, boundary: str) -> np.ndarray:
    return np.asarray(crowd_average(jnp.asarray(quotes), jnp.asarray(density), quoting_edges(X_MAX, boundary)))


@given(
    quotes=arrays(float, (2, 2 * X_MAX), elements=st.floats(-5.0, 5.0)),
    weights=arrays(float, 2 * X_MAX + 1, elements=st.floats(0.01, 1.0)),
)
def test_average_is_over_the_makers_who_quote(quotes: np.ndarray, weights: np.ndarray) -> None:
    """Maker by maker: the ask of the maker at x crosses the edge below x, the bid the edge above."""
    density = weights / weights.sum()
    for boundary, makers in {"reflecting": range(-X_MAX, X_MAX + 1), "absorbing": range(1 - X_MAX, X_MAX)}.items():
        asks = [(density[x + X_MAX], quotes[0, x + X_MAX - 1]) for x in makers if x > -X_MAX]
        bids = [(density[x + X_MAX], quotes[1, x + X_MAX]) for x in makers if x < X_MAX]
        expected = [np.average([q for _, q in side], weights=[w for w, _ in side]) for side in (asks, bids)]
        np.testing.assert_allclose(average(quotes, density, boundary), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("boundary", ["reflecting", "absorbing"])
def test_where_nobody_quotes_the_average_is_that_of_the_next_inventory(boundary: str) -> None:
    """A crowd entirely at +x_max has no bidder, and where x_max absorbs nobody who asks; its limit moves one lot in."""
    quotes = np.arange(16.0).reshape(2, 8)
    asks, bids = quotes
    for density, ask, bid in (
        (INVENTORY == X_MAX, asks[-1] if boundary == "reflecting" else asks[-2], bids[-1]),
        (INVENTORY == -X_MAX, asks[0], bids[0] if boundary == "reflecting" else bids[1]),
    ):
        np.testing.assert_array_equal(average(quotes, density.astype(float), boundary), [ask, bid])


# Properties of Φ, for random games and random crowd paths.

N_STEPS = 12


@functools.cache
def reply_program(boundary: str, scheme: str = "euler") -> Callable[[mfg.Parameters, np.ndarray], BestReply]:
    """Best replies, by default for the scheme whose steps, within its limit, are matrices of probabilities."""
    model = mfg.Model("elastic", X_MAX, N_STEPS, boundary, scheme=scheme)
    reply = lambda parameters, crowd: best_reply(model, lay_out(model, as_scalars(parameters)), crowd)  # noqa: E731
    return jax.jit(reply)


@st.composite
def games(draw: st.DrawFn) -> dict[str, float]:
    quote_min = draw(st.floats(-0.5, 0.5))
    return {
        "A": draw(st.floats(0.1, 2.0)),
        "k": draw(st.floats(0.3, 2.0)),
        "k0": draw(st.floats(0.0, 2.0)),
        "eta": draw(st.floats(0.0, 1.0)),
        "gamma": draw(st.floats(0.0, 1.0)),
        "crowd_mean": draw(st.floats(-5.0, 5.0)),
        "crowd_std": draw(st.floats(0.3, 4.0)),
        "quote_min": quote_min,
        "quote_max": quote_min + draw(st.floats(0.0, 2.0)),
    }


paths = arrays(float, (N_STEPS + 1, 2), elements=st.floats(0.0, 1.0))


@pytest.mark.parametrize("boundary", ["reflecting", "absorbing"])
@given(game=games(), path=paths)
def test_best_replies(boundary: str, game: dict[str, float], path: np.ndarray) -> None:
    """Mass is conserved, densities are not negative, quotes and their averages stay within the bounds."""
    lowest, highest = game["quote_min"], game["quote_max"]
    reply = reply_program(boundary)(parameters_of(game), lowest + (highest - lowest) * path)
    np.testing.assert_allclose(np.sum(reply.density, axis=1), 1.0, atol=1e-14 * N_STEPS)
    assert np.all((reply.quotes >= lowest) & (reply.quotes <= highest))
    assume(not reply.unstable)
    assert np.all(reply.density >= 0.0)
    assert np.all((reply.averages >= lowest - 1e-14) & (reply.averages <= highest + 1e-14))


@given(game=games(), path=paths)
def test_makers_see_a_crowd_within_the_bounds(game: dict[str, float], path: np.ndarray) -> None:
    """Also where its path is moved for the kinks of quotes that meet them."""
    lowest, highest = game["quote_min"], game["quote_max"]
    reply = reply_program("reflecting", "rk4")(parameters_of(game), lowest + (highest - lowest) * path)
    assume(not reply.unstable)
    assert np.all((reply.crowd >= lowest) & (reply.crowd <= highest))


@given(game=games(), path=arrays(float, N_STEPS + 1, elements=st.floats(0.0, 1.0)))
def test_a_symmetric_crowd_meets_symmetric_replies(game: dict[str, float], path: np.ndarray) -> None:
    lowest, highest = game["quote_min"], game["quote_max"]
    crowd = np.repeat(lowest + (highest - lowest) * path[:, None], 2, axis=1)
    reply = reply_program("reflecting")(parameters_of(game | {"crowd_mean": 0.0}), crowd)
    assume(not reply.unstable)
    np.testing.assert_allclose(reply.value, reply.value[:, ::-1], atol=1e-12)
    np.testing.assert_allclose(reply.density, reply.density[:, ::-1], atol=1e-13)
    np.testing.assert_allclose(reply.quotes[:, 0], reply.quotes[:, 1, ::-1], atol=1e-12)
    np.testing.assert_allclose(reply.crowd[:, 0], reply.crowd[:, 1], atol=1e-12)

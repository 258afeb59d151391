"""Games side by side, lanes taken over as they fall free, against games solved one by one."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import mfg_jax as mfg
from mfg_jax.best_reply import best_reply
from mfg_jax.equilibrium import solve_cold
from mfg_jax.fixed_point import Iterate
from mfg_jax.game import lay_out
from mfg_jax.lanes import NOBODY, advance_lanes, idle_lanes
from tests.conftest import parameters_of

GAMES, WIDTH = 23, 4
MODEL = mfg.Model("elastic", x_max=4, n_steps=30, solver={"max_iterations": 40})


def games() -> mfg.Parameters:
    """Some take few sweeps and some many; one overflows, one is not valid."""
    numbers = np.random.default_rng(3)
    columns = {"crowd_mean": numbers.uniform(-1.0, 2.0, GAMES), "gamma": numbers.uniform(0.01, 0.4, GAMES)}
    columns["A"] = np.where(np.arange(GAMES) == 5, 1e4, numbers.uniform(1.0, 8.0, GAMES))
    columns["horizon"] = np.where(np.arange(GAMES) == 11, -1.0, 1.0)
    columns["k0"] = numbers.uniform(0.05, 1.4, GAMES)
    columns["eta"] = numbers.uniform(0.01, 0.4, GAMES)
    one = parameters_of({name: float(column[0]) for name, column in columns.items()} | {"quote_max": 1.4})
    full = jax.tree.map(lambda leaf: np.full(GAMES, leaf), one)
    return full.__class__(**{**{f: getattr(full, f) for f in full.__dataclass_fields__}, **columns})


@pytest.fixture(scope="module")
def program() -> Any:
    return jax.jit(partial(advance_lanes, MODEL))


def in_lanes(program: Any, order: np.ndarray, sizes: tuple[int, ...]) -> tuple[dict[int, Iterate], int, int]:
    """All games, which arrive in this order and in parts of these sizes; trips of the lanes, and how many were idle."""
    all_games = games()
    lanes = idle_lanes(MODEL, jax.tree.map(lambda leaf: leaf[0], all_games), WIDTH)
    found: dict[int, Iterate] = {}
    trips = idle = 0
    arrived = np.split(order, np.cumsum(sizes)[:-1])
    for members in arrived:
        waiting = jax.tree.map(lambda leaf, members=members: leaf[members], all_games)
        lanes, finished, work = program(lanes, members, waiting, members is arrived[-1])
        trips, idle = trips + int(work.trips), idle + int(work.idle)
        for place in np.flatnonzero(np.asarray(finished.ticket) != NOBODY):
            ticket = int(finished.ticket[place])
            assert ticket not in found
            assert np.asarray(finished.parameters.gamma)[place] == np.asarray(all_games.gamma)[ticket]
            found[ticket] = jax.tree.map(lambda leaf, place=place: np.asarray(leaf[place]), finished.found)
    assert (np.asarray(lanes.ticket) == NOBODY).all()
    return found, trips, idle


@pytest.fixture(scope="module")
def whole(program: Any) -> tuple[dict[int, Iterate], int, int]:
    return in_lanes(program, np.arange(GAMES), (GAMES,))


def test_every_game_ends_as_it_does_alone(whole: tuple[dict[int, Iterate], int, int]) -> None:
    found, _, _ = whole
    assert sorted(found) == list(range(GAMES))
    stacked = jax.tree.map(lambda *leaves: np.stack(leaves), *[found[i] for i in range(GAMES)])
    finish = jax.jit(jax.vmap(lambda p, done: solve_cold(MODEL, p, done).equilibrium))
    alone = jax.jit(jax.vmap(lambda p: solve_cold(MODEL, p).equilibrium))(games())
    finished = finish(games(), stacked)
    np.testing.assert_array_equal(finished.status, alone.status)
    assert len(set(np.asarray(alone.status).tolist())) >= 3
    good = np.asarray(alone.status) == mfg.Status.CONVERGED
    np.testing.assert_array_equal(np.asarray(finished.iterations)[good], np.asarray(alone.iterations)[good])
    assert np.ptp(np.asarray(alone.iterations)[good]) >= 4
    for name in ("crowd_ask", "value", "density"):
        close, expected = (np.asarray(getattr(solved, name))[good] for solved in (finished, alone))
        np.testing.assert_allclose(close, expected, atol=1e-11)


@pytest.mark.parametrize("seed", [1, 2])
def test_its_bits_do_not_depend_on_the_others(program: Any, whole: tuple[dict[int, Iterate], int, int], seed: int) -> None:
    """In another order, and so in other lanes beside other games."""
    expected, _, _ = whole
    shuffled = np.random.default_rng(seed).permutation(GAMES)
    found, _, _ = in_lanes(program, shuffled, (GAMES,))
    for ticket, iterate in expected.items():
        for ours, theirs in zip(found[ticket], iterate, strict=True):
            np.testing.assert_array_equal(ours, theirs, strict=True)


def test_games_under_way_stay_there_until_the_last_part(program: Any, whole: tuple[dict[int, Iterate], int, int]) -> None:
    expected, _, _ = whole
    found, _, _ = in_lanes(program, np.arange(GAMES), (9, GAMES - 9))
    for ticket, iterate in expected.items():
        np.testing.assert_allclose(found[ticket].point, iterate.point, atol=1e-12)


def test_no_lane_is_idle_while_games_wait(whole: tuple[dict[int, Iterate], int, int]) -> None:
    found, trips, idle = whole
    used = sum(int(iterate.iterations) for iterate in found.values())
    assert used == trips * WIDTH - idle
    most = max(int(iterate.iterations) for iterate in found.values())
    assert idle <= WIDTH * (most + 3)


@pytest.mark.parametrize("boundary", ["reflecting", "absorbing"])
@pytest.mark.parametrize("scheme", ["euler", "rk4", "exponential"])
def test_a_best_reply_with_games_on_the_last_axis(scheme: str, boundary: str) -> None:
    model = mfg.Model("market_share", x_max=4, n_steps=12, scheme=scheme, boundary=boundary)
    members = jax.tree.map(lambda leaf: leaf[:4], games())
    crowd = jnp.asarray(np.random.default_rng(0).uniform(0.4, 0.8, (13, 2, 4)))
    one_by_one = jax.vmap(lambda p, c: best_reply(model, lay_out(model, p), c), (0, -1), -1)
    expected = jax.jit(one_by_one)(members, crowd)
    layout = jax.vmap(partial(lay_out, model), out_axes=-1)(members)
    found = jax.jit(partial(best_reply, model))(layout, crowd)
    for ours, theirs in zip(found, expected, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-12, atol=1e-13)

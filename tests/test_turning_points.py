"""Where the path of equilibria turns (MODEL.md, section 5)."""

import numpy as np
import pytest

import mfg_jax as mfg
from mfg_jax import turning_points
from tests.conftest import parameters_of

FOLDED = {"A": 140.0, "gamma": 1.0, "eta": 2.0, "crowd_mean": 5.0}


def test_the_path_turns_twice_and_goes_on() -> None:
    """At k0/k 0.0326 and 0.0431 with 256 steps; MODEL.md has about 0.033 and 0.043 by a scheme of first order."""
    turns = mfg.find_turning_points(mfg.Model("elastic", x_max=20, n_steps=64), parameters_of(FOLDED))
    np.testing.assert_allclose(1.0 - turns, [0.0326, 0.0431], atol=3e-4)


def test_short_of_the_first_turn_there_is_none() -> None:
    model = mfg.Model("elastic", x_max=20, n_steps=64)
    assert mfg.find_turning_points(model, parameters_of(FOLDED | {"k0": 0.05 * 1.5})).shape == (0,)


def test_a_turn_that_shorter_steps_do_not_find_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """As where a long step jumped over the end of the path to a turn behind it."""
    model = mfg.Model("elastic", x_max=3, n_steps=8)
    answers = iter([True])
    monkeypatch.setattr(turning_points, "_turned", lambda here, there: next(answers, False))
    assert mfg.find_turning_points(model, parameters_of({})).shape == (0,)


def test_a_path_without_an_end_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turning_points, "MOST_TRIPS", 1)
    with pytest.raises(RuntimeError, match="could not be followed"):
        mfg.find_turning_points(mfg.Model("elastic", x_max=3, n_steps=8), parameters_of({}))


@pytest.mark.parametrize("numbers", [{"A": np.nan}, {"gamma": -1.0}])
def test_numbers_that_no_game_has(numbers: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="No game has these numbers"):
        mfg.find_turning_points(mfg.Model("elastic", x_max=3, n_steps=8), parameters_of(numbers))

"""`mfg.reach`: the least of a parameter that brings a metric to a target."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner, Result

import mfg_jax as mfg
from sweeps.cli import app

MODEL = mfg.Model("elastic", x_max=4, n_steps=24)
GAME = mfg.Parameters(A=3.0, k=1.5, eta=0.05, gamma=0.05, k0=0.5, crowd_mean=0.5, crowd_std=1.5)


def final_derisk_probability(eta: float) -> float:
    game = mfg.Parameters(A=3.0, k=1.5, eta=eta, gamma=0.05, k0=0.5, crowd_mean=0.5, crowd_std=1.5)
    return float(mfg.metrics(MODEL, game, mfg.solve(MODEL, game)).final_derisk_probability)


def test_the_least_that_is_enough() -> None:
    target = final_derisk_probability(0.12)
    found = mfg.reach(MODEL, GAME, "eta", (0.0, 1.0), "final_derisk_probability", at_least=target)
    assert found.reached and found.unsolved == 0
    assert found.value == pytest.approx(0.12, abs=2e-8)
    assert found.metric >= target and found.metric == pytest.approx(target, abs=1e-8)
    assert final_derisk_probability(found.value - 1e-6) < target
    assert found.parameters.eta == found.value and found.equilibrium.status == mfg.Status.CONVERGED


def test_a_metric_that_must_fall() -> None:
    """Found on the first side where it is low enough; bounds that are positive are searched in logarithms."""
    found = mfg.reach(MODEL, GAME, "gamma", (1e-2, 0.5), "peak_variance", at_most=2.4)
    alike = mfg.reach(MODEL, GAME, "gamma", (2e-2, 0.3), "peak_variance", at_most=2.4)
    assert found.reached and alike.reached
    assert found.value == pytest.approx(alike.value, rel=1e-6)


def test_what_the_first_bound_does_already() -> None:
    found = mfg.reach(MODEL, GAME, "eta", (0.0, 1.0), "final_derisk_probability", at_least=0.1)
    assert found.reached and found.value == 0.0


def test_a_peak_between_two_of_the_games_looked_through() -> None:
    """The least value is on its near side, not at its top."""
    top = mfg.reach(MODEL, GAME, "crowd_mean", (-1.013, 1.0), "final_derisk_probability", at_least=0.9999)
    target = top.metric - 1e-5
    found = mfg.reach(MODEL, GAME, "crowd_mean", (-1.013, 1.0), "final_derisk_probability", at_least=target)
    assert not top.reached and found.reached and found.value < top.value - 1e-3
    assert found.metric == pytest.approx(target, abs=1e-8)


def test_what_no_value_reaches() -> None:
    """The best attainable is said: here at an end."""
    found = mfg.reach(MODEL, GAME, "eta", (0.0, 0.2), "final_derisk_probability", at_least=0.999)
    assert not found.reached
    assert found.value == pytest.approx(0.2, abs=1e-6)
    assert found.metric == pytest.approx(final_derisk_probability(0.2), abs=1e-6)


def test_games_without_an_equilibrium_are_counted() -> None:
    found = mfg.reach(MODEL, GAME, "eta", (-0.5, 0.5), "final_derisk_probability", at_least=final_derisk_probability(0.12))
    assert found.reached and found.value == pytest.approx(0.12, abs=2e-8)
    assert found.unsolved == 16
    nowhere = mfg.reach(MODEL, GAME, "eta", (-2.0, -1.0), "final_derisk_probability", at_least=0.5)
    assert not nowhere.reached and np.isnan(nowhere.metric) and nowhere.unsolved == 33


def test_the_best_may_lie_beside_values_without_an_equilibrium() -> None:
    found = mfg.reach(MODEL, GAME, "eta", (-1.0, 1.0), "mean_spread", at_most=1.0)
    assert not found.reached and found.unsolved == 16
    assert 0.0 <= found.value < 1 / 16


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"vary": "sigma"}, "bounds of 'sigma', which is no parameter that was given; allowed: A, k, eta"),
        ({"bounds": (1.0, 0.0)}, "allowed: two finite numbers, the lower first"),
        ({"metric": "spread"}, "'spread' is no scalar metric; allowed: mean_spread, "),
        ({"metric": "full_spread"}, "'full_spread' is no scalar metric; allowed: mean_spread, "),
        ({"at_most": 0.5}, "give a target, and one only: at_least or at_most"),
        ({"at_least": np.nan}, "the target is nan; allowed: a finite number"),
        ({"at_least": None}, "give a target, and one only: at_least or at_most"),
    ],
)
def test_bad_input(changes: dict[str, Any], message: str) -> None:
    choices: dict[str, Any] = {"vary": "eta", "bounds": (0.0, 1.0), "metric": "mean_spread", "at_least": 1.0} | changes
    with pytest.raises(ValueError, match=message):
        mfg.reach(MODEL, GAME, **choices)


GRID = """\
model: {coupling: elastic, x_max: 4, n_steps: 24}
parameters: {A: 3.0, k: 1.5, eta: 0.05, k0: 0.5, crowd_mean: 0.5, crowd_std: 1.5}
sweep: {gamma: [0.05, 0.1, 0.2]}
"""


def run(folder: Path, *options: object, grid: str = GRID) -> Result:
    (folder / "grid.yaml").write_text(grid)
    defaults = ["--vary", "eta", "--between", 0, 1, "--metric", "final_derisk_probability"]
    return CliRunner().invoke(app, ["reach", str(folder / "grid.yaml"), *map(str, [*defaults, *options])])


def test_a_trade_off_curve(tmp_path: Path) -> None:
    """The dearer the close, the less running penalty is needed."""
    result = run(tmp_path, "--at-least", 0.8, "-o", tmp_path / "curve.csv")
    assert result.exit_code == 0, result.output
    rows = [[cell.strip() for cell in line.strip("| ").split("|")] for line in result.stdout.splitlines()[2:5]]
    assert [row[0] for row in rows] == ["0.05", "0.1", "0.2"]
    assert {row[3] for row in rows} == {"yes"}
    curve = pd.read_csv(tmp_path / "curve.csv")
    assert curve.eta.is_monotonic_decreasing and (curve.final_derisk_probability >= 0.8).all()
    direct = mfg.reach(MODEL, GAME, "eta", (0.0, 1.0), "final_derisk_probability", at_least=0.8)
    assert curve.eta[0] == direct.value


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--vary", "gamma", "--at-least", 0.8), "gamma is swept; to vary it, take it out of `sweep`"),
        (("--vary", "A_ask", "--at-least", 0.8), "bounds of 'A_ask', which is no parameter that was given; allowed: A, k, eta"),
        ((), "give a target, and one only: at_least or at_most"),
        (("--metric", "spread", "--at-most", 0.8), "'spread' is no scalar metric; allowed: "),
    ],
)
def test_commands_that_cannot_be(tmp_path: Path, options: tuple[object, ...], message: str) -> None:
    result = run(tmp_path, *options)
    assert result.exit_code == 2
    assert message in result.stderr


def test_a_constraint_on_what_is_varied(tmp_path: Path) -> None:
    result = run(tmp_path, "--at-least", 0.8, grid=GRID + "where: gamma < 10*eta\n")
    assert result.exit_code == 2
    assert "eta is varied, so `gamma < 10*eta` cannot choose points by it; take it out of `where`" in result.stderr


def test_rows_are_written_as_they_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An interrupt leaves those found before it."""
    reach_one, calls = mfg.reach, []

    def reach_two(*arguments: Any, **options: Any) -> mfg.Reach:
        calls.append(arguments)
        if len(calls) > 2:
            raise KeyboardInterrupt
        return reach_one(*arguments, **options)

    monkeypatch.setattr(mfg, "reach", reach_two)
    result = run(tmp_path, "--at-least", 0.8, "-o", tmp_path / "curve.csv")
    assert result.exit_code == 130
    assert result.stderr.splitlines()[:2] == ["games done: 1", "games done: 2"]
    assert pd.read_csv(tmp_path / "curve.csv").gamma.tolist() == [0.05, 0.1]


def test_a_file_that_cannot_be_written(tmp_path: Path) -> None:
    result = run(tmp_path, "--at-least", 0.8, "-o", tmp_path / "no" / "curve.csv")
    assert result.exit_code == 2
    assert "No such file or directory" in result.stderr

"""`mfgsweep calibrate`: from a file to a report and a block that a grid file takes."""

import math
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from mfg_jax.flow import FlowError
from sweeps import calibration, plots, trades
from sweeps.cli import app
from sweeps.spec import load_spec

A, K, TICK = 3.0, 120.0, 0.01


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "trades.csv"
    trades.draw(A, K, duration=600.0, tick=TICK, burst=3.0, seed=2).to_csv(path, index=False)
    return path


def calibrate(*arguments: object) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, ["calibrate", *map(str, arguments)])
    return result.exit_code, result.stdout, result.stderr


def cells(report: str, side: str) -> list[list[str]]:
    rows = [[cell.strip() for cell in line.strip("| ").split("|")] for line in report.splitlines() if line.startswith("|")]
    return [row for row in rows if row[0] == side]


def test_the_report_tells_what_was_drawn_and_the_block_is_taken_by_a_grid_file(file: Path, tmp_path: Path):
    code, report, _ = calibrate(file, "-o", tmp_path / "out")
    assert code == 0
    for side in ("ask", "bid"):
        chosen, *windows = cells(report, side)
        low, high = (float(end.strip("()")) for end in chosen[2].split(" ", 1)[1].split(" to "))
        assert low < K * TICK < high
        assert [row[1:3] for row in windows[:3]] == [["0.5", "10.5"], ["0.5", "3.5"], ["0.5", "5.5"]]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["flow.png", "grid.yaml", "report.md"]
    saved = (tmp_path / "out" / "report.md").read_text()
    assert report.split("wrote")[0].strip() in saved
    grid = tmp_path / "grid.yaml"
    block = (tmp_path / "out" / "grid.yaml").read_text()
    assert block in saved
    grid.write_text("model: {coupling: relative}\nsweep: {eta: [0.01], gamma: [0.1]}\n" + block)
    spec = load_spec(grid)
    assert (spec.units.price, spec.units.time) == ("tick", "second")
    assert abs(spec.parameters["A_ask"] - A) < 0.6
    assert abs(spec.parameters["k_bid"] - K * TICK) < 0.2


def test_a_window_of_ones_own(file: Path):
    code, report, _ = calibrate(file, "--window", 1.5, 3.5)
    assert code == 0
    assert "orders that reach 1.5 to 3.5 ticks" in report
    assert cells(report, "ask")[1][1:3] == ["1.5", "3.5"]


def test_fills_by_offset(tmp_path: Path):
    path = tmp_path / "fills.csv"
    offsets = np.array([0.5, 1.0, 2.0])
    rows = "".join(f"{x},10000,{round(10000 * 2 * math.exp(-1.5 * x))}\n" for x in offsets)
    path.write_text(f"offset,exposure,fills\n{rows}")
    code, report, _ = calibrate(path, "-o", tmp_path / "out")
    assert code == 0
    assert "units: {price: price, time: time}\n" in report
    assert all(cells(report, side)[0][1].startswith("2 (") for side in ("ask", "bid"))
    assert "window" not in report
    for option in (("--tick", "0.5"), ("--window", "0", "2")):
        code, _, error = calibrate(path, *option)
        assert (code, error) == (2, f"mfgsweep: {path}: is a table of fills, which --tick and --window do not go with\n")
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["grid.yaml", "report.md"]


def test_without_matplotlib_all_but_the_plot_is_written(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(plots, "can_be_drawn", lambda: False)
    code, _, error = calibrate(file, "-o", str(tmp_path / "out"))
    assert code == 0
    assert "no plots are drawn, for want of matplotlib; install it with: " in error
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["grid.yaml", "report.md"]
    assert ".png" not in (tmp_path / "out" / "report.md").read_text()


def test_old_quotes_are_told():
    orders = trades.Orders(np.arange(40.0), np.tile([-0.5, 0.5, 1.5, 0.5], 10), 40.0, 1.0)
    market = trades.Market({"ask": orders, "bid": orders}, 80, 0.01, 40.0, 1.0, crossed=3)
    facts = calibration.calibrate_market(market, None).facts
    old = "25% were not beyond the mid, as quotes beside them were old, and A leaves them out"
    assert f"ask side: 40 market orders took quotes there; {old}" in facts
    assert "3 trades have a best_bid above their best_ask" in facts


@pytest.mark.parametrize("holds", [True, False])
def test_a_law_that_does_not_hold_is_told_with_the_numbers(holds: bool):
    """Half of the orders stop at once, and half go far, as no exponential has it."""
    numbers = np.random.default_rng(0)
    depths = 0.5 + (numbers.geometric(0.5, 2000) - 1.0 if holds else np.where(np.arange(2000) % 2, 0.0, 8.0))
    orders = trades.Orders(np.arange(2000.0), depths, 2000.0, 1.0)
    market = trades.Market({"ask": orders, "bid": orders}, 4000, 0.01, 2000.0, 1.0, crossed=0)
    found = calibration.calibrate_market(market, (0.5, 10.5))
    said = "ask side: THE LAW DOES NOT FIT: its misfit is 0."
    assert any(fact.startswith(said) for fact in found.facts) is not holds
    assert calibration.block(found).startswith(f"# {said}") is not holds


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--tick", "0"], "--tick: found 0; allowed: a finite number > 0"),
        (["--window", "3", "3"], "--window: found 3 to 3; allowed: a first offset below the second"),
        (["--window", "-1", "3"], "--window: found -1 to 3; allowed: a first offset >= 0, which is the mid"),
        (["--tick", "0.7"], "--tick: found 0.7; allowed: one of which prices are multiples apart, unlike "),
        (["--columns", "price"], "--columns: found 'price'; allowed: NAME=THEIRS,NAME=THEIRS"),
        (["--columns", "price=px"], "no column px"),
        (["--window", "400", "500"], "ask side: no orders end between 400 and 500 from the mid"),
    ],
)
def test_bad_options(file: Path, options: list[str], message: str):
    code, report, error = calibrate(file, *options)
    assert (code, report) == (2, "")
    assert error.startswith("mfgsweep: ")
    assert message in error


def test_a_file_that_is_not_there(tmp_path: Path):
    code, _, error = calibrate(tmp_path / "none.csv")
    assert code == 2
    assert error == f"mfgsweep: {tmp_path}/none.csv: no such file; allowed: a table of trades or of fills\n"


def test_a_side_without_fills():
    some = trades.Fills(np.array([0.5, 1.0]), np.ones(2), np.array([20, 9]))
    none = trades.Fills(np.array([0.5, 1.0]), np.ones(2), np.zeros(2, int))
    with pytest.raises(FlowError, match="bid side: found fewer than two offsets"):
        calibration.calibrate_fills({"ask": some, "bid": none})

"""`mfgsweep quotes`: offsets in ticks, times to fill, and which game they are of."""

import io
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner, Result

import mfg_jax as mfg
from sweeps import engine, quoting, retrying, store
from sweeps.choosing import ChoiceError, the_only
from sweeps.cli import app
from sweeps.quoting import QuotesError, Solution
from sweeps.schema import OutputsSection
from sweeps.spec import Spec, load_spec
from sweeps.sweep import Sweep

GRID = """\
model: {coupling: relative, x_max: 3, n_steps: 40}
parameters: {A_ask: 2.0, k: 1.5, k_bid: 1.2, eta: 0.01, crowd_mean: 1.0, horizon: 2.0}
sweep: {A: [1.0, 3.0], gamma: [0.05, 1.0e+300]}
outputs: {surfaces: true}
units: {price: USD, time: hour}
solver: {select: cold}
"""
GAME = {"A": 3.0, "A_ask": 2.0, "k": 1.5, "k_bid": 1.2, "eta": 0.01, "gamma": 0.05, "crowd_mean": 1.0, "horizon": 2.0}
AT = ("--at", "A=3,gamma=0.05")
TICK = 0.05


def mfgsweep(*arguments: object) -> Result:
    return CliRunner().invoke(app, list(map(str, arguments)), catch_exceptions=False)


def quotes(source: Path, *options: object) -> Any:
    result = mfgsweep("quotes", source, "--tick", TICK, "--csv", "-", *options)
    assert result.exit_code == 0, result.output
    return pd.read_csv(io.StringIO(result.stdout))


def refusal(source: Path, *options: object) -> str:
    """The one line that the command prints when it refuses."""
    result = mfgsweep("quotes", source, "--tick", TICK, *options)
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.count("\n") == 1 and result.stderr.startswith(f"mfgsweep: {source}: ")
    return result.stderr.removeprefix(f"mfgsweep: {source}: ").strip()


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


@pytest.fixture(scope="module")
def grid(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("grid") / "grid.yaml", GRID)


@pytest.fixture(scope="module")
def stored(grid: Path) -> Path:
    path = grid.with_name("s.zarr")
    engine.run(load_spec(grid), path)
    return path


class TestOneGame:
    def test_against_the_library(self, stored: Path):
        """The optimum is that of `mfg.solve`, no quote is tighter or a tick wider, and times are those of the law by hand."""
        found = quotes(stored, *AT)
        game = mfg.solve(mfg.Model("relative", x_max=3, n_steps=40), mfg.Parameters(**GAME))
        assert found["time"].nunique() == 11
        places = np.searchsorted(np.asarray(game.time), found["time"] - 1e-9), found["inventory"] + 3
        np.testing.assert_allclose(found["time"], np.asarray(game.time)[places[0]], rtol=1e-12)
        np.testing.assert_allclose(found["time"], np.repeat(np.linspace(0.0, 2.0, 11), 7), atol=0.1)
        for side, k, A, crowd in (("ask", 1.5, 2.0, game.crowd_ask), ("bid", 1.2, 3.0, game.crowd_bid)):
            optimal = np.asarray(getattr(game, side))[places]
            quoted = np.isfinite(optimal)
            assert (~quoted).sum() == 11 and found[side].isna().tolist() == (~quoted).tolist()
            np.testing.assert_allclose(found[f"{side}_optimal"][quoted], optimal[quoted], atol=1e-8)
            rounded = found[side][quoted]
            np.testing.assert_allclose(rounded / TICK, np.round(rounded / TICK), atol=1e-9)
            assert (rounded - optimal[quoted]).between(-1e-6 * TICK, TICK).all()
            by_hand = np.exp(k * (rounded - np.asarray(crowd)[places[0]][quoted])) / A
            np.testing.assert_allclose(found[f"{side}_fill_time"][quoted], by_hand, rtol=1e-7)

    def test_a_grid_file_and_a_store_say_the_same(self, grid: Path, stored: Path, tmp_path: Path):
        """Also a store without surfaces; each says where its numbers are from."""
        without = tmp_path / "without.zarr"
        engine.run(load_spec(write(tmp_path / "grid.yaml", GRID.replace("surfaces: true", "paths: false"))), without)
        said = {path: mfgsweep("quotes", path, "--tick", TICK, *AT, "--csv", "-").stderr for path in (grid, stored, without)}
        assert "A 3.0, gamma 0.05; solved for this table" in said[grid]
        assert "A 3.0, gamma 0.05; as stored" in said[stored]
        assert "A 3.0, gamma 0.05; solved again, as the store holds no ask, bid, crowd_ask, crowd_bid" in said[without]
        for path in (grid, without):
            pd.testing.assert_frame_equal(quotes(path, *AT), quotes(stored, *AT), rtol=1e-6)

    def test_the_report(self, stored: Path):
        """Four tables of inventories and times, with the digits of the tick, and nothing where nobody quotes."""
        result = mfgsweep("quotes", stored, "--tick", TICK, *AT, "--times", 3)
        assert result.exit_code == 0, result.output
        assert "hour from the open" in result.stdout and "USD from the mid, rounded away from it" in result.stdout
        parts = result.stdout.split("## ")[1:]
        assert [part.splitlines()[0] for part in parts] == [
            "ask: offset",
            "bid: offset",
            "ask: expected time to fill",
            "bid: expected time to fill",
        ]
        table = quotes(stored, *AT, "--times", 3)
        for part, (column, form) in zip(
            parts, [("ask", ".2f"), ("bid", ".2f"), ("ask_fill_time", ".3g"), ("bid_fill_time", ".3g")], strict=True
        ):
            header, _, *rows = ([cell.strip() for cell in line[1:-2].split("|")] for line in part.splitlines()[2:] if line)
            assert header == ["lots", "0", *header[2:3], "2"] and len(rows) == 7
            for cells in rows:
                expected = table[table["inventory"] == int(cells[0])][column]
                assert cells[1:] == ["" if np.isnan(number) else format(number, form) for number in expected]

    def test_more_times_than_are_stored(self, stored: Path):
        assert quotes(stored, *AT, "--times", 1000)["time"].nunique() == 41

    def test_into_a_file(self, stored: Path, tmp_path: Path):
        result = mfgsweep("quotes", stored, "--tick", TICK, *AT, "--csv", tmp_path / "q.csv")
        assert (result.exit_code, result.stdout) == (0, f"wrote {tmp_path / 'q.csv'}\n")
        pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "q.csv"), quotes(stored, *AT))
        result = mfgsweep("quotes", stored, "--tick", TICK, *AT, "--csv", tmp_path / "no" / "q.csv")
        assert result.exit_code == 2 and "does not exist; make it first" in result.stderr

    def test_of_a_retry(self, tmp_path: Path):
        """Solved with the settings that it was mended with."""
        text = GRID.replace("surfaces: true", "paths: false")
        impatient = load_spec(write(tmp_path / "a.yaml", text.replace("{select: cold}", "{select: cold, max_iterations: 1}")))
        engine.run(impatient, tmp_path / "s.zarr")
        assert "has no equilibrium to quote from: iteration limit. " in refusal(tmp_path / "s.zarr", *AT)
        retrying.retry(load_spec(write(tmp_path / "b.yaml", text)), tmp_path / "s.zarr", ("iteration_limit",))
        assert quotes(tmp_path / "s.zarr", *AT)["ask"].notna().any()


class TestTheGame:
    @pytest.mark.parametrize(
        ("at", "message"),
        [
            ("A=3", "--at: several games are meant; choose one of gamma: 0.05, 1e+300"),
            ("", "--at: several games are meant; choose one of A: 1, 3; gamma: 0.05, 1e+300"),
            ("A=2.9,gamma=0.05", "--at: there is no A=2.9; there are 1, 3"),
            ("A=3,gamma=x", "--at: there is no gamma=x; there are 0.05, 1e+300"),
            ("A=3,gama=0.05", "--at: found 'gama', a text; allowed: A, gamma; did you mean `gamma`?"),
            ("A=3,eta=0.01", "--at: found 'eta', a text; allowed: A, gamma"),
            ("A=3,A=3", "--at: A is given twice"),
            ("A", "--at: found 'A', a text; allowed: NAME=VALUE,NAME=VALUE,…"),
            ("A=3=3", "--at: found 'A=3=3', a text; allowed: NAME=VALUE,NAME=VALUE,…"),
        ],
    )
    def test_that_is_not_there(self, grid: Path, stored: Path, at: str, message: str):
        for source in (grid, stored):
            assert refusal(source, "--at", at) == message

    def test_without_an_equilibrium(self, grid: Path, stored: Path):
        for source in (grid, stored):
            message = refusal(source, "--at", "A=1,gamma=1e300")
            assert message.startswith("the game A 1.0, gamma 1e+300 has no equilibrium to quote from: unstable step. ")

    def test_that_is_not_solved_yet(self, grid: Path, tmp_path: Path):
        sweep = Sweep(load_spec(grid))
        store.create(
            tmp_path / "s.zarr", sweep.spec, sweep.design, sweep.labels(), sweep.block_shape(), engine.attributes_of(sweep, 4)
        )
        assert "has no equilibrium to quote from: pending. Not solved yet: " in refusal(tmp_path / "s.zarr", *AT)

    def test_along_points(self, tmp_path: Path):
        """By their values, or their numbers."""
        text = GRID.replace("{A: [1.0, 3.0], gamma: [0.05, 1.0e+300]}", "{A: [1.0, 3.0, 3.0], gamma: [0.05, 0.05, 0.1]}")
        points = write(tmp_path / "points.yaml", text + "sampling: zip\n")
        expected = quotes(points, *AT)
        pd.testing.assert_frame_equal(quotes(points, "--at", "point=1"), expected)
        assert refusal(points, "--at", "A=1,gamma=0.1") == "--at: there is no gamma=0.1 with A=1; there are 0.05"
        assert refusal(points, "--at", "A=3") == "--at: several games are meant; choose one of gamma: 0.05, 0.1; point: 1, 2"

    def test_values_as_messages_show_them(self):
        """Six digits do, but they are not enough for a neighbour."""
        spec = Spec.model_validate({"model": {"coupling": "none"}, "sweep": {"gamma": np.geomspace(0.01, 1.0, 101).tolist()}})
        design = Sweep(spec).design
        for place, value in enumerate(design.coords["gamma"][1].tolist()):
            assert the_only(f"gamma={value:.6g}", design.coords) == {"gamma": place}
            assert the_only(f"gamma={value!r}", design.coords) == {"gamma": place}
        with pytest.raises(ChoiceError, match=r"no gamma=0.0105; there are 101, the nearest 0.01, 0.0104713, 0.0109648, 0.0114815"):
            the_only("gamma=0.0105", design.coords)

    def test_a_store_that_is_none(self, tmp_path: Path):
        assert refusal(tmp_path) == "exists and is no store of mfgsweep; name another path"
        result = mfgsweep("quotes", tmp_path / "no.yaml", "--tick", TICK)
        assert result.exit_code == 2 and "no such file" in result.stderr

    def test_damage_is_told(self, stored: Path, tmp_path: Path):
        copy = shutil.copytree(stored, tmp_path / "s.zarr")
        file = Path(str(next(store.open_existing(copy).files("ask"))[0]))
        file.write_bytes(file.read_bytes()[:-1] + b"x")
        assert "is damaged" in mfgsweep("quotes", copy, "--tick", TICK, *AT).stderr
        file.unlink()
        assert ": is missing; restore it" in mfgsweep("quotes", copy, "--tick", TICK, *AT).stderr

    @pytest.mark.parametrize("options", [("--tick", 0), ("--tick", "nan"), ("--tick", "inf"), ("--times", 0)])
    def test_numbers_that_cannot_be(self, stored: Path, options: tuple[object, ...]):
        result = mfgsweep("quotes", stored, "--tick", TICK, *AT, *options)
        assert result.exit_code == 2 and f"mfgsweep: {options[0]}: found {options[1]}; allowed: " in result.stderr


def made_up(ask: float, crowd: float = 0.5, **changes: Any) -> Solution:
    """A game of one lot, in which every ask and bid is the same."""
    content = {
        "model": {"coupling": changes.pop("coupling", "relative"), "x_max": 1, "n_steps": 2},
        "parameters": {"k": 1.5, "eta": 0.01, "gamma": 0.05, "k0": 0.3, "n_makers": 3.0, **changes},
        "sweep": {"A": [7.0]},
    }
    results = {side: np.full((3, 3), ask) for side in ("ask", "bid")}
    results["ask"][:, 0] = results["bid"][:, -1] = np.nan
    crowds = {f"crowd_{side}": np.full(3, crowd) for side in ("ask", "bid")}
    return Solution(Sweep(Spec.model_validate(content)), 0, results | crowds, "made up")


def rounded(tick: float, ask: float, **changes: Any) -> float:
    """The offset that an ask and a bid alike are rounded to."""
    found = quoting.quotes(made_up(ask, **changes), tick, 3).rounded
    quoted = found[np.isfinite(found)]
    assert quoted.size == 12 and np.unique(quoted).size == 1
    return float(quoted[0])


class TestRounding:
    @pytest.mark.parametrize("outputs", [{"dtype": "float32"}, {"precision": 1e-4}])
    def test_of_numbers_that_were_rounded_when_they_were_stored(self, outputs: dict[str, Any]):
        """A bound that is a tick is quoted, not the next tick."""
        for ticks in range(1, 100):
            offset = ticks / 100
            stored = float(np.float32(offset)) if "dtype" in outputs else offset * (1 + 0.9e-4)
            solution = made_up(stored, quote_min=offset, quote_max=1.0)
            as_stored = Sweep(solution.sweep.spec.model_copy(update={"outputs": OutputsSection(**outputs)}))
            found = quoting.quotes(solution._replace(sweep=as_stored), 0.01, 3).rounded
            np.testing.assert_array_equal(found[np.isfinite(found)], offset)

    @given(st.floats(-3.0, 3.0), st.sampled_from([0.001, 0.01, 0.05, 0.1, 0.25, 1.0, 1 / 3]))
    def test_away_from_the_mid(self, ask: float, tick: float):
        found = rounded(tick, ask, quote_min=-4.0, quote_max=5.0)
        assert -1e-6 * tick <= found - ask < tick
        assert abs(found / tick - round(found / tick)) < 1e-9

    @given(st.integers(-300, 300), st.sampled_from(["0.001", "0.01", "0.05", "0.1", "0.25", "1.0", "1e-05"]))
    def test_what_is_on_a_tick_stays_there(self, ticks: int, tick: str):
        """Also where it is on it to rounding, and without negative zeros and 0.30000000000000004."""
        found = rounded(float(tick), ticks * float(tick) * (1 + 1e-12), quote_min=-np.inf, quote_max=np.inf)
        assert len(repr(found)) <= 8 and found == pytest.approx(ticks * float(tick), rel=1e-15)
        assert np.signbit(found) == (ticks < 0)

    def test_within_the_bounds(self):
        """A quote at its largest is not rounded beyond it."""
        assert rounded(0.1, 0.33, quote_max=0.33) == 0.3
        assert rounded(0.1, 0.3, quote_max=0.3) == 0.3
        assert rounded(0.1, 0.12, quote_min=0.12) == 0.2

    def test_ticks_that_are_too_coarse_or_too_fine(self):
        with pytest.raises(QuotesError, match="found 1; allowed: one of which a multiple lies between quote_min and quote_max"):
            rounded(1.0, 0.2, quote_min=0.1, quote_max=0.9)
        with pytest.raises(QuotesError, match=r"found 2; allowed: at most quote_max, 0\.9"):
            rounded(2.0, 0.2, quote_max=0.9)
        for tick in (1e-300, 1e-310):
            with pytest.raises(QuotesError, match=f"found {tick:g}; allowed: one of which offsets of 0.2 are a countable multiple"):
                rounded(tick, 0.2)


@pytest.mark.parametrize(
    ("coupling", "rate"),
    [
        ("relative", lambda d, c: 7 * np.exp(-1.5 * (d - c))),
        ("elastic", lambda d, c: 7 * np.exp(-0.3 * c) * np.exp(-1.5 * (d - c))),
        ("market_share", lambda d, c: 7 * np.exp(-0.3 * c) * np.exp(-1.5 * d) / (np.exp(-1.5 * d) + 2 * np.exp(-1.5 * c))),
        ("none", lambda d, c: 7 * np.exp(-1.5 * d)),
    ],
)
def test_the_rate_of_every_coupling(coupling: str, rate: Any):
    found = quoting.quotes(made_up(0.61, coupling=coupling), 0.1, 3)
    quoted = np.isfinite(found.rounded)
    np.testing.assert_allclose(found.fill_time[quoted], 1 / rate(0.7, 0.5), rtol=1e-12)
    assert (~quoted).sum() == 6 and np.isnan(found.fill_time[~quoted]).all()

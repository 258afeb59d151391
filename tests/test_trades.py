"""Files of trades and fills, read as order flow."""

import gzip
import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from sweeps import trades
from sweeps.trades import Fills, Market, TradesError, read

HEADER = "time,price,taker_side,best_bid,best_ask\n"
TRADES = HEADER + (
    "10.0,100.02,buy,100.00,100.01\n"
    "10.0,100.01,buy,100.00,100.02\n"  # the same order: its furthest price and its first quotes count
    "10.0,99.99,sell,100.00,100.01\n"
    "12.5,100.00,sell,100.00,100.03\n"
    "14.0,100.01,buy,100.01,100.02\n"
)


def market(path: Path, **options: float | None) -> Market:
    found = read(path, {}, options.get("tick"))
    assert isinstance(found, Market)
    return found


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "trades.csv"
    path.write_text(TRADES)
    return path


def test_rows_of_one_time_and_side_are_one_order(file: Path):
    found = market(file)
    assert (found.rows, found.tick, found.duration, found.spread) == (5, 0.01, 4.0, 1.0)
    ask, bid = found.orders["ask"], found.orders["bid"]
    assert ask.times.tolist() == [0.0, 4.0]
    assert ask.depths.tolist() == [1.5, -0.5]
    assert bid.times.tolist() == [0.0, 2.5]
    assert bid.depths.tolist() == [1.5, 1.5]
    assert (ask.duration, ask.tick) == (4.0, 1.0)


def test_a_tick_that_is_given(file: Path):
    assert market(file, tick=0.005).orders["ask"].depths.tolist() == [3.0, -1.0]


@pytest.mark.parametrize("clock", ["time", "time_ms", "time_us", "time_ns", "text"])
def test_times_in_any_unit(file: Path, clock: str):
    table = pd.read_csv(file)
    if clock == "text":
        table["time"] = [f"2026-01-31T09:00:{second:04.1f}+00:00" for second in table.time]
    else:
        start = 0.0 if clock == "time" else 1_700_000_000 / trades.SECONDS[clock]
        table[clock] = (start + table.pop("time") / trades.SECONDS[clock]).astype("float64" if clock == "time" else "int64")
    table.to_csv(file, index=False)
    assert market(file).orders["bid"].times.tolist() == pytest.approx([0.0, 2.5], abs=1e-9)


def test_crossed_quotes_are_counted(file: Path):
    table = pd.read_csv(file)
    assert market(file).crossed == 0
    table.loc[:1, "best_bid"] = table.best_ask + 1
    table.to_csv(file, index=False)
    assert market(file).crossed == 2


def test_mids_instead_of_quotes(file: Path):
    table = pd.read_csv(file)
    table["mid"] = 0.5 * (table.pop("best_bid") + table.pop("best_ask"))
    table.to_csv(file, index=False)
    found = market(file, tick=0.01)
    assert math.isnan(found.spread)
    assert found.orders["ask"].depths.tolist() == [1.5, -0.5]


def test_other_names_endings_and_words(file: Path, tmp_path: Path):
    table = pd.read_csv(file).rename(columns={"time": "ts", "taker_side": "aggressor"})
    table["aggressor"] = table.aggressor.map({"buy": "B", "sell": "S"})
    packed, columns = tmp_path / "t.csv.gz", tmp_path / "t.parquet"
    packed.write_bytes(gzip.compress(table.to_csv(index=False).encode()))
    table.to_parquet(columns)
    for path in (packed, columns):
        found = read(path, {"time": "ts", "taker_side": "aggressor"}, None)
        assert isinstance(found, Market)
        assert found.orders["bid"].depths.tolist() == market(file).orders["bid"].depths.tolist()


def test_names_that_the_file_uses_for_something_else(file: Path):
    """Two columns that changed their names, and one under two names."""
    table = pd.read_csv(file).rename(columns={"best_bid": "best_ask", "best_ask": "best_bid"})
    table.to_csv(file, index=False)
    swapped = read(file, {"best_bid": "best_ask", "best_ask": "best_bid"}, None)
    assert isinstance(swapped, Market) and swapped.orders["ask"].depths.tolist() == [1.5, -0.5]
    one_price = read(file, {"best_bid": "best_ask", "best_ask": "best_ask"}, None)
    assert isinstance(one_price, Market) and one_price.spread == 0.0


def test_what_is_drawn_is_read_back_as_orders_of_that_rate(tmp_path: Path):
    path = tmp_path / "drawn.csv"
    trades.draw(A=2.0, k=100.0, duration=2000.0, tick=0.01, burst=3.0, seed=1).to_csv(path, index=False)
    found = market(path)
    assert (found.tick, found.spread) == (0.01, 1.0)
    for orders in found.orders.values():
        reached = [(orders.depths >= offset).sum() / found.duration for offset in (0.5, 1.5, 2.5)]
        np.testing.assert_allclose(reached, 2.0 * np.exp(-np.array([0.5, 1.5, 2.5])), rtol=0.15)


def test_fills_by_offset_for_both_sides_and_for_each(tmp_path: Path):
    path = tmp_path / "fills.csv"
    path.write_text("offset,exposure,fills\n0.5,10,20\n1.5,10,7\n")
    both = read(path, {}, None)
    assert isinstance(both, dict)
    assert both["ask"] is both["bid"]
    assert isinstance(both["ask"], Fills)
    assert both["ask"].fills.tolist() == [20, 7]
    path.write_text("offset,exposure,fills,side\n0.5,10,20,ask\n1.5,10,7,ask\n")
    one = read(path, {}, None)
    assert isinstance(one, dict)
    assert list(one) == ["ask"]


def with_cell(old: str, new: str) -> str:
    assert old in TRADES
    return TRADES.replace(old, new, 1)


BAD = {
    "no price": (TRADES.replace("price", "px"), "no column price; found time, px, taker_side"),
    "no time": (TRADES.replace("time", "when"), "no column time (or time_ms, time_us, time_ns); found when"),
    "no quotes": (TRADES.replace("best_ask", "offer"), "no column best_bid and best_ask (or mid); found"),
    "a price that is none": (with_cell("100.02", "ten"), "price: found ten in row 1; allowed: a finite number"),
    "a price that is missing": (with_cell("99.99", ""), "price: found nan in row 3"),
    "a side that is none": (with_cell("14.0,100.01,buy", "14.0,100.01,long"), "taker_side: found long in row 5; allowed: buy, b,"),
    "a time that is none": (with_cell("12.5", "noon"), "time: found noon in row 4; allowed: a number, or a time such as"),
    "one time": (HEADER + "1,100.01,buy,100.0,100.01\n" * 2, "found trades at one time only"),
    "one price": (HEADER + "1,100,buy,100,100\n2,100,buy,100,100\n", "found one price only; allowed: --tick"),
    "nothing at all": ("", "cannot be read: No columns to parse"),
    "headers only": (HEADER, "found no rows"),
    "part of a fill": ("offset,exposure,fills\n0.5,10,20.5\n", "fills: found 20.5 in row 1; allowed: a whole number >= 0"),
    "no exposure": ("offset,exposure,fills\n0.5,0,20\n", "exposure: found 0 in row 1; allowed: a finite number > 0"),
    "a third side": ("offset,exposure,fills,side\n0.5,1,20,mid\n", "side: found mid; allowed: ask, bid"),
}


@pytest.mark.parametrize(("text", "message"), BAD.values(), ids=BAD.keys())
def test_bad_files(file: Path, text: str, message: str):
    file.write_text(text)
    with pytest.raises(TradesError) as caught:
        read(file, {}, None)
    assert str(caught.value).startswith(f"{file}: {message}")


def test_bad_names_and_places(file: Path, tmp_path: Path):
    for path, renamed, message in (
        (tmp_path / "none.csv", {}, f"{tmp_path}/none.csv: no such file"),
        (tmp_path, {}, f"{tmp_path}: found the ending ''; allowed: .csv, .csv.gz, .parquet"),
        (file, {"prise": "px"}, "--columns: found prise=px; allowed names: time, time_ms, time_us, time_ns, price"),
        (file, {"price": "px"}, f"{file}: no column px; found time, price"),
    ):
        with pytest.raises(TradesError) as caught:
            read(path, renamed, None)
        assert str(caught.value).startswith(message)

"""Trades and fills from files, as the order flow that `mfg_jax.flow` fits."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from mfg_jax.flow import Orders
from sweeps.problems import brief, did_you_mean, nearest

SECONDS = {"time": 1.0, "time_ms": 1e-3, "time_us": 1e-6, "time_ns": 1e-9}
"""Names of the column of times, and what one of its numbers is in seconds."""
TAKERS = {"buy": "ask", "b": "ask", "1": "ask", "sell": "bid", "s": "bid", "-1": "bid"}
"""How a taker's side may be written, and the side of the makers' quotes that it takes."""
NAMES = (*SECONDS, "price", "taker_side", "best_bid", "best_ask", "mid", "offset", "exposure", "fills", "side")
SIDES = ("ask", "bid")


class TradesError(ValueError):
    """A file of trades or fills that cannot be used; the message says where and why."""


@dataclass(frozen=True)
class Market:
    """Market orders by the makers' side they took; prices in ticks, times in seconds from the first trade on."""

    orders: Mapping[str, Orders]
    rows: int
    tick: float
    """In the file's units of price."""
    duration: float
    spread: float
    """The most frequent one when orders came, ticks; NaN where the file has mids only."""
    crossed: int
    """Trades whose best_bid is above their best_ask."""


@dataclass(frozen=True)
class Fills:
    """Quotes of one side: offset from the mid, for how long each was shown, how often it was filled. The file's own units."""

    offsets: np.ndarray
    exposures: np.ndarray
    fills: np.ndarray


def read(path: Path, renamed: Mapping[str, str], tick: float | None) -> Market | dict[str, Fills]:
    """The trades, or the table of fills, in a CSV or Parquet file.

    Trades: one of time, time_ms, time_us, time_ns (numbers, or time as text such as 2026-01-31T09:00:00.5); price; taker_side (buy
    or sell); best_bid and best_ask, or mid, as they were before the trade. Fills: offset, exposure, fills, and side (ask or bid)
    unless they hold for both.

    Args:
        path: ends in .csv, .csv.gz or .parquet.
        renamed: the file's names of these columns, where they differ.
        tick: distance of neighbouring prices; the smallest one met, unless given.

    Raises:
        TradesError: another ending, a column that is missing, a value that none of its column can be.
    """
    table = _table(path)
    for here, there in renamed.items():
        if here not in NAMES:
            hint = did_you_mean(nearest(here, NAMES))
            raise TradesError(f"--columns: found {here}={there}; allowed names: {', '.join(NAMES)}{hint}")
        if there not in table:
            raise TradesError(f"{path}: no column {there}; found {', '.join(map(str, table))}")
    if table.empty:
        raise TradesError(f"{path}: found no rows; allowed: a table of trades or of fills")
    table = table.drop(columns=list(renamed.values())).assign(**{here: table[there] for here, there in renamed.items()})
    if {"offset", "exposure", "fills"} <= set(table):
        return _fills(path, table)
    return _market(path, table, tick)


def _table(path: Path) -> pd.DataFrame:
    try:
        if path.name.endswith((".csv", ".csv.gz")):
            return pd.read_csv(path)
        if path.suffix == ".parquet":
            return pd.read_parquet(path)
    except FileNotFoundError:
        raise TradesError(f"{path}: no such file; allowed: a table of trades or of fills") from None
    except ImportError:
        install = f"{sys.executable} -m pip install 'mfg-jax[export]'"
        raise TradesError(f"{path}: needs pyarrow; install it with: {install}") from None
    except (ValueError, OSError) as error:
        raise TradesError(f"{path}: cannot be read: {brief(str(error))}") from None
    raise TradesError(f"{path}: found the ending {path.suffix!r}; allowed: .csv, .csv.gz, .parquet")


def _numbers(path: Path, table: pd.DataFrame, name: str, positive: bool = False) -> np.ndarray:
    """A column, every value of which must be a number."""
    values = np.asarray(pd.to_numeric(table[name], errors="coerce"), dtype=float)
    bad = ~np.isfinite(values) | (positive & (values <= 0))
    if bad.any():
        row = int(np.argmax(bad))
        allowed = "a finite number > 0" if positive else "a finite number"
        raise TradesError(f"{path}: {name}: found {brief(str(table[name].iloc[row]))} in row {row + 1}; allowed: {allowed}")
    return values


def _market(path: Path, table: pd.DataFrame, tick: float | None) -> Market:
    clocks = [name for name in SECONDS if name in table]
    missing = [name for name in ("price", "taker_side") if name not in table]
    missing += [] if clocks else ["time (or time_ms, time_us, time_ns)"]
    missing += [] if "mid" in table or {"best_bid", "best_ask"} <= set(table) else ["best_bid and best_ask (or mid)"]
    if missing:
        names = ", ".join(map(str, table))
        raise TradesError(f"{path}: no column {'; '.join(missing)}; found {names}; --columns NAME=THEIRS,… says what is what")
    time = _seconds(path, table, clocks[0])
    price = _numbers(path, table, "price")
    quoted = {"best_bid", "best_ask"} <= set(table)
    bid, ask = (_numbers(path, table, name) for name in (("best_bid", "best_ask") if quoted else ("mid", "mid")))
    if tick:
        _check_tick(path, price, tick)
    tick = tick or _smallest_gap(path, price, *((bid, ask) if quoted else ()))
    side = _sides(path, table)
    sign = np.where(side == "ask", 1.0, -1.0)
    rows = pd.DataFrame({"time": time, "side": side, "price": sign * price, "mid": sign * 0.5 * (bid + ask), "spread": ask - bid})
    # rows of one time and side are one market order that took several quotes, seen by the quotes before the first of them
    orders = rows.groupby(["time", "side"], sort=True).agg({"price": "max", "mid": "first", "spread": "first"}).reset_index()
    depth = _on_half_ticks((orders.price - orders.mid).to_numpy() / tick)
    start, duration = float(time.min()), float(np.ptp(time))
    if not duration > 0:
        raise TradesError(f"{path}: found trades at one time only; allowed: trades over some time")
    mine = {name: (orders.side == name).to_numpy() for name in SIDES}
    return Market(
        orders={name: Orders(orders.time.to_numpy()[m] - start, depth[m], duration, 1.0) for name, m in mine.items()},
        rows=len(table),
        tick=tick,
        duration=duration,
        crossed=int((bid > ask).sum()),
        spread=float((orders.spread / tick).round(3).mode().iloc[0]) if quoted else np.nan,
    )


def _seconds(path: Path, table: pd.DataFrame, clock: str) -> np.ndarray:
    """From the first row on: nanoseconds since 1970 do not fit a float."""
    numbers = pd.Series(pd.to_numeric(table[clock], errors="coerce"))
    as_text = bool(numbers.isna().all())
    stamps = pd.Series(pd.to_datetime(table[clock], errors="coerce", utc=True, format="ISO8601")) if as_text else numbers
    unknown = np.asarray(stamps.isna() | np.isin(numbers, (-np.inf, np.inf)))
    if unknown.any():
        row = int(np.argmax(unknown))
        allowed = "a number, or a time such as 2026-01-31T09:00:00.5"
        raise TradesError(f"{path}: {clock}: found {brief(str(table[clock].iloc[row]))} in row {row + 1}; allowed: {allowed}")
    elapsed = stamps - stamps.iloc[0]
    return np.asarray(elapsed.dt.total_seconds()) if as_text else SECONDS[clock] * np.asarray(elapsed, dtype=float)


def _sides(path: Path, table: pd.DataFrame) -> np.ndarray:
    """The makers' side that each trade took."""
    sides = table.taker_side.astype(str).str.lower().map(TAKERS)
    if sides.isna().any():
        row = int(np.argmax(sides.isna()))
        found = brief(str(table.taker_side.iloc[row]))
        raise TradesError(f"{path}: taker_side: found {found} in row {row + 1}; allowed: {', '.join(TAKERS)}")
    return sides.to_numpy(str)


def _smallest_gap(path: Path, *prices: np.ndarray) -> float:
    gaps = np.diff(np.unique(np.concatenate(prices)))
    gaps = gaps[gaps > 1e-9 * max(np.abs(column).max() for column in prices)]
    if not gaps.size:
        raise TradesError(f"{path}: found one price only; allowed: --tick, or trades at several prices")
    return float(f"{gaps.min():.9g}")


def _check_tick(path: Path, price: np.ndarray, tick: float) -> None:
    """Raises TradesError where prices lie between multiples of the tick."""
    between = np.abs((price - price[0]) / tick)
    apart = np.abs(between - np.round(between))
    if (apart > 1e-3 + 1e-9 * between).any():
        found = brief(f"{price[int(np.argmax(apart))]:.9g}")
        raise TradesError(f"{path}: --tick: found {tick:g}; allowed: one of which prices are multiples apart, unlike {found} here")


def _on_half_ticks(depth: np.ndarray) -> np.ndarray:
    """Mids of prices on the lattice lie on halves of it: what the file's prices are rounded by is taken out. Others stay."""
    halves = 0.5 * np.round(2 * depth)
    return np.where(np.abs(halves - depth) < 1e-3, halves, depth)


def _fills(path: Path, table: pd.DataFrame) -> dict[str, Fills]:
    offsets = _numbers(path, table, "offset")
    exposures = _numbers(path, table, "exposure", positive=True)
    fills = _numbers(path, table, "fills")
    if (fills < 0).any() or (fills != np.round(fills)).any():
        row = int(np.argmax((fills < 0) | (fills != np.round(fills))))
        raise TradesError(f"{path}: fills: found {fills[row]:g} in row {row + 1}; allowed: a whole number >= 0")
    if "side" not in table:
        return dict.fromkeys(SIDES, Fills(offsets, exposures, fills.astype(int)))
    found = set(table.side.astype(str)) - set(SIDES)
    if found:
        raise TradesError(f"{path}: side: found {', '.join(sorted(found))}; allowed: ask, bid")
    mine = {name: (table.side == name).to_numpy() for name in SIDES}
    return {name: Fills(offsets[m], exposures[m], fills[m].astype(int)) for name, m in mine.items() if m.any()}


def draw(A: float, k: float, duration: float, tick: float, burst: float, seed: int) -> pd.DataFrame:
    """Synthetic trades around a still mid, one tick wide: orders of either side at rate A·exp(−k·offset), in bursts of `burst` on
    average that take about a second. Orders that take several prices have a row for each. `read` reads it back.

    Args:
        A, k: per second and per unit of price.
        duration: seconds.
        tick: units of price.
    """
    rng = np.random.default_rng(seed)
    bid, ask = 100.0, 100.0 + tick
    sides = []
    for taker, touch, sign in (("buy", ask, 1), ("sell", bid, -1)):
        starts = rng.uniform(0, duration, rng.poisson(A * duration / burst))
        sizes = rng.geometric(1 / burst, starts.size)
        times = (np.repeat(starts, sizes) + rng.exponential(1.0, sizes.sum())) % duration
        levels = np.floor(rng.exponential(1 / k, times.size) / tick + 0.5).astype(int)  # 0: ended within the spread
        row = np.repeat(np.arange(times.size), levels)
        level = np.arange(row.size) - np.repeat(np.cumsum(levels) - levels, levels)
        sides.append(pd.DataFrame({"time": times[row], "price": touch + sign * tick * level, "size": 1.0, "taker_side": taker}))
    trades = pd.concat(sides).assign(best_bid=bid, best_ask=ask)
    return trades.sort_values("time", kind="stable").reset_index(drop=True)

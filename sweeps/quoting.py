"""The quotes of an equilibrium as a desk uses them: in ticks, by time and inventory, and how long each takes to fill."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
import pandas as pd

import mfg_jax as mfg
from mfg_jax.parameters import order_flow
from sweeps import engine, markdown, store
from sweeps.agreement import described
from sweeps.choosing import numbered, spread_out, the_only
from sweeps.dataset import ATTEMPT, STATUS
from sweeps.files import written_whole
from sweeps.place import Place
from sweeps.programs import parameters_of
from sweeps.recorded import spec_of, spec_of_attempt
from sweeps.schema import OutputsSection
from sweeps.solver import Results, Solver
from sweeps.spec import Spec
from sweeps.sweep import Sweep

NEEDED = ("ask", "bid", "crowd_ask", "crowd_bid")
ON_TICK = 1e-6
"""An offset so near to a tick, in ticks, is on it: quotes are known no better."""
MOST_TICKS = 2**53
SIDES = ("ask", "bid")


class QuotesError(ValueError):
    """Quotes that cannot be given; the message says why."""


class Solution(NamedTuple):
    """One game of a sweep with its equilibrium."""

    sweep: Sweep
    point: int
    results: Results
    """What it holds of `NEEDED`."""
    source: str
    """Where they come from."""


@dataclass(frozen=True)
class Quotes:
    """Offsets are [side, time, inventory] from the mid price, NaN where a side is not quoted; side 0 is the ask."""

    facts: list[str]
    units: tuple[str, str]
    """Of price and time."""
    tick: float
    time: np.ndarray
    """From the open, units of time."""
    inventory: np.ndarray
    optimal: np.ndarray
    rounded: np.ndarray
    fill_time: np.ndarray
    """Expected, units of time: 1/rate at the rounded offset and the crowd's average at that time."""


def of_grid(spec: Spec, at: str) -> Solution:
    """The one game of a grid that has the values `at`, solved.

    Raises:
        ChoiceError: there is none, or several. QuotesError: it has no equilibrium.
    """
    sweep = Sweep(spec)
    point = _point(sweep, at)
    return _solved(sweep, point, "solved for this table")


def of_store(path: Place, at: str) -> Solution:
    """The one game of a store that has the values `at`: as it is stored, or solved again where surfaces or paths are not.

    Raises:
        StoreError: there is no store at `path`, or it is damaged. ChoiceError, QuotesError: as `of_grid`.
    """
    target = store.open_existing(path)
    sweep = Sweep(spec_of(target))
    store.check_same_points(target, sweep.design)
    point = _point(sweep, at)
    chosen = np.arange(len(sweep.design)).reshape(sweep.design.shape) == point
    (part,) = target.parts(chosen)
    _check_status(sweep, point, int(target.statuses()[chosen][0]))
    if missing := [name for name in NEEDED if name not in target.names]:
        attempt = int(target.whole(ATTEMPT.name)[chosen][0]) if ATTEMPT.name in target.names else 0
        as_stored = Sweep(spec_of_attempt(sweep.spec, attempt, target.attributes))
        return _solved(as_stored, point, f"solved again, as the store holds no {', '.join(missing)}")
    return Solution(sweep, point, {name: target.read(name, part)[0] for name in NEEDED}, "as stored")


def quotes(solution: Solution, tick: float, times: int) -> Quotes:
    """Rounded to multiples of `tick`, price units, at about `times` times evenly spread over the day.

    Offsets are rounded away from the mid, so that none is tighter than the optimum: to the next tick that is at least as wide, or
    the widest that quote_max allows.

    Raises:
        QuotesError: there is no multiple of the tick within the quote bounds, or they cannot be counted.
    """
    sweep, point, results, source = solution
    (game,) = sweep.games(point, point + 1)
    parameters = parameters_of({name: jnp.asarray(values[0]) for name, values in game.columns.items()})
    flow, labels = order_flow(parameters), sweep.labels()
    at_times = spread_out(labels.time, times)
    optimal = np.stack([results[side] for side in SIDES]).astype(float)[:, at_times]
    crowd = np.stack([results[f"crowd_{side}"] for side in SIDES]).astype(float)[:, at_times, None]
    bounds = float(flow.quote_min), np.asarray(flow.quote_max)[..., None]
    rounded = _rounded(optimal - _doubt(sweep.spec) * np.abs(optimal), tick, *bounds)
    of_side = flow._replace(**{name: getattr(flow, name)[..., None] for name in ("A", "k", "quote_max")})
    rate = sweep.model(*game.kind).coupling.rate(jnp.asarray(rounded), jnp.asarray(crowd), of_side)
    units = sweep.spec.units
    return Quotes(
        facts=[
            f"game: {described(sweep, point)}; {source}",
            f"time: {units.time} from the open; inventory: lots; offsets: {units.price} from the mid, rounded away from it to "
            f"multiples of {tick:g}; expected time to fill: {units.time}, while the crowd quotes its average of that time",
        ],
        units=(units.price, units.time),
        tick=tick,
        time=labels.time[at_times] * float(parameters.horizon),
        inventory=labels.inventory,
        optimal=optimal,
        rounded=rounded,
        fill_time=np.asarray(1.0 / rate),
    )


def report(found: Quotes) -> str:
    """In Markdown: for each side offsets, and times to fill, by inventory (rows) and time (columns)."""
    digits = _decimals(found.tick)
    header = ["lots", *(f"{time:.3g}" for time in found.time)]
    parts = [f"- {fact}" for fact in found.facts]
    for what, numbers, form in (("offset", found.rounded, f".{digits}f"), ("expected time to fill", found.fill_time, ".3g")):
        for side, of_side in zip(SIDES, numbers, strict=True):
            rows = (
                [f"{lots:g}", *("" if np.isnan(number) else format(number, form) for number in row)]
                for lots, row in zip(found.inventory, of_side.T, strict=True)
            )
            parts += [f"## {side}: {what}", markdown.table(header, rows)]
    return "\n\n".join(parts) + "\n"


def table(found: Quotes) -> pd.DataFrame:
    """A row for each time and inventory; NaN where a side is not quoted."""
    time, inventory = (axis.ravel() for axis in np.meshgrid(found.time, found.inventory, indexing="ij"))
    columns = {"time": time, "inventory": inventory.astype(int)}
    for what, numbers in (("", found.rounded), ("_optimal", found.optimal), ("_fill_time", found.fill_time)):
        for side, of_side in zip(SIDES, numbers, strict=True):
            columns[f"{side}{what}"] = of_side.ravel()
    return pd.DataFrame(columns)


def as_csv(found: Quotes) -> str:
    return table(found).to_csv(index=False, lineterminator="\n")


def write(found: Quotes, path: Path) -> None:
    """The table as CSV.

    Raises:
        OSError: the folder is not there, or the file cannot be written.
    """
    with written_whole(path) as unfinished:
        unfinished.write_text(as_csv(found), encoding="utf-8")


def _point(sweep: Sweep, at: str) -> int:
    chosen = the_only(at, numbered(sweep.design.coords))
    return int(np.ravel_multi_index([chosen[dim] for dim in sweep.design.dims], sweep.design.shape))


def _solved(sweep: Sweep, point: int, source: str) -> Solution:
    with_quotes = Sweep(sweep.spec.model_copy(update={"outputs": OutputsSection(surfaces=True)}))
    solved = engine.solve(Solver(with_quotes, 1), with_quotes.games(point, point + 1))
    ((_, results),) = list(solved)
    _check_status(sweep, point, int(results[STATUS.name][0]))
    return Solution(with_quotes, point, {name: results[name][0] for name in NEEDED}, source)


def _check_status(sweep: Sweep, point: int, status: int) -> None:
    if status != mfg.Status.CONVERGED:
        found = mfg.Status(status)
        raise QuotesError(
            f"the game {described(sweep, point)} has no equilibrium to quote from: {found.name.lower().replace('_', ' ')}. "
            f"{found.explanation}"
        )


def _doubt(spec: Spec) -> float:
    """By how much stored numbers may be off, relative, as they were rounded."""
    return max(float(np.finfo(spec.outputs.dtype).eps), spec.outputs.precision or 0.0)


def _rounded(offset: np.ndarray, tick: float, smallest: float, largest: np.ndarray) -> np.ndarray:
    """Away from the mid to multiples of the tick, within the bounds."""
    with np.errstate(over="ignore"):  # told of below
        outer, most = np.ceil(offset / tick - ON_TICK), np.floor(largest / tick + ON_TICK)
        ticks = np.minimum(outer, most)
    if (np.abs(ticks) >= MOST_TICKS).any():
        widest = np.nanmax(np.abs(offset))
        raise QuotesError(f"--tick: found {tick:g}; allowed: one of which offsets of {widest:g} are a countable multiple")
    if (ticks < smallest / tick - ON_TICK).any():
        raise QuotesError(f"--tick: found {tick:g}; allowed: one of which a multiple lies between quote_min and quote_max")
    if ((outer > 0) & (most == 0)).any():  # at the mid nobody wants to quote who would quote beside it
        raise QuotesError(f"--tick: found {tick:g}; allowed: at most quote_max, {largest.min():g}")
    return np.round(ticks * tick, _decimals(tick)) + 0.0  # no negative zeros


def _decimals(tick: float) -> int:
    """Behind the point, that its multiples need."""
    exponent = Decimal(repr(tick)).normalize().as_tuple().exponent
    return max(0, -exponent) if isinstance(exponent, int) else 0

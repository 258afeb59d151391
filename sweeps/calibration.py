"""From a file of trades or fills to A and k: a report that says how far they can be trusted, and a block for a grid file."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from mfg_jax.flow import FlowError, FlowEstimate, Interval, OrderFit, Orders, fit_fills, fit_orders, least_squares
from sweeps import markdown, plots
from sweeps.trades import Fills, Market

FIRST_OFFSETS = (0, 1)
"""Ticks past the touch at which windows begin, and how many ticks they are wide."""
WIDTHS = (3, 5, 10, 20, 50, math.inf)
USUAL_WIDTH = 10
LARGE_MISFIT = 0.05
"""Share of the orders: of many, less tells little although no sample of the law has it."""

EXPLANATION = """\
Maximum likelihood, and beside it a line through the logarithms of the rates (least squares), on which rare deep orders weigh as
much as all others. Dispersion: variance over mean of the orders in a fiftieth of the time; 1 without bursts. Misfit: the largest
difference between observed and fitted shares of orders, and what samples of the fitted law rarely exceed. Where the misfit is
large, k is a summary of the window and no law: quote where it was fitted. Orders are known to reach their furthest price and not
to reach the next one; offsets count from the mid, so half a tick is the touch of a spread of one tick."""

COLOURS = {"ask": "#0072B2", "bid": "#D55E00"}


@dataclass(frozen=True)
class Row:
    """The fits of one side over one window."""

    side: str
    fit: OrderFit
    line: tuple[float, float] | None
    """A and k by least squares; None where too few offsets are reached."""


@dataclass(frozen=True)
class Calibration:
    """What a file says of the order flow."""

    facts: list[str]
    flows: Mapping[str, FlowEstimate]
    rows: list[Row]
    """The chosen window and others, of each side; of a table of fills none."""
    units: tuple[str, str]
    """Names of the units of price and time."""
    orders: Mapping[str, Orders] = field(default_factory=dict)
    """Of each side; of a table of fills none."""


def calibrate_market(market: Market, window: tuple[float, float] | None) -> Calibration:
    """By maximum likelihood over a window (ticks from the mid; the usual one: the ten from half the most frequent spread on).

    Raises:
        FlowError: a side of which no flow can be told within the window.
    """
    touch = 0.5 * (1.0 if math.isnan(market.spread) else market.spread)
    chosen = window or (touch, touch + USUAL_WIDTH)
    fits: dict[str, OrderFit] = {}
    rows: list[Row] = []
    for side, orders in market.orders.items():
        fits[side] = _fit(side, orders, chosen)
        others = [(touch + first, touch + first + width) for first in FIRST_OFFSETS for width in WIDTHS]
        rows += [row for row in (_row(side, orders, other) for other in dict.fromkeys([chosen, *others])) if row]
    facts = [
        f"{market.rows} trades in {market.duration:.6g} seconds; one tick is {market.tick:g}",
        f"chosen window: orders that reach {chosen[0]:g} to {chosen[1]:g} ticks from the mid",
        *(_fact(side, orders) for side, orders in market.orders.items()),
        *([f"{market.crossed} trades have a best_bid above their best_ask"] if market.crossed else []),
        *(f"{side} side: {said}" for side, fit in fits.items() if (said := _misfit(fit))),
    ]
    return Calibration(facts, fits, rows, ("tick", "second"), market.orders)


def _fit(side: str, orders: Orders, window: tuple[float, float]) -> OrderFit:
    try:
        return fit_orders(orders, window)
    except FlowError as error:
        raise FlowError(f"{side} side: {error}") from None


def _misfit(fit: FlowEstimate) -> str | None:
    """What is to be said where the law does not hold."""
    if not isinstance(fit, OrderFit) or fit.distance <= max(fit.usual_distance, LARGE_MISFIT):
        return None
    usual = f"samples of it rarely exceed {fit.usual_distance:.3f}"
    return f"THE LAW DOES NOT FIT: its misfit is {fit.distance:.3f}, and {usual}; see what other windows say"


def _row(side: str, orders: Orders, window: tuple[float, float]) -> Row | None:
    """None where the window holds too little."""
    try:
        fit = fit_orders(orders, window)
    except FlowError:
        return None
    try:
        return Row(side, fit, least_squares(orders, window))
    except FlowError:
        return Row(side, fit, None)


def _fact(side: str, orders: Orders) -> str:
    within = float(np.mean(orders.depths <= 0)) if orders.depths.size else 0.0
    old = f"; {within:.0%} were not beyond the mid, as quotes beside them were old, and A leaves them out" if within > 0.05 else ""
    return f"{side} side: {orders.depths.size} market orders took quotes there{old}"


def calibrate_fills(fills: Mapping[str, Fills]) -> Calibration:
    """By Poisson regression on offsets and exposures.

    Raises:
        FlowError: a side of which no flow can be told.
    """
    flows: dict[str, FlowEstimate] = {}
    for side, table in fills.items():
        try:
            flows[side] = fit_fills(table.offsets, table.exposures, table.fills)
        except FlowError as error:
            raise FlowError(f"{side} side: {error}") from None
    facts = [f"{side} side: {flow.fills} fills at {fills[side].offsets.size} offsets" for side, flow in flows.items()]
    return Calibration(facts, flows, [], ("price", "time"))


def report(calibration: Calibration) -> str:
    """In Markdown."""
    price, time = calibration.units
    parts = [
        "# Order flow",
        "\n".join(f"- {fact}" for fact in calibration.facts),
        f"Rate of fills at an offset: A·exp(−k·offset), A per {time}, k per {price}, with 95 % intervals.",
        markdown.table(("side", "A", "k", "fills"), _chosen(calibration)),
    ]
    if calibration.rows:
        parts += [
            "## What the window does to it",
            EXPLANATION,
            markdown.table(
                ("side", "from", "to", "A", "k", "A least squares", "k least squares", "orders", "dispersion", "misfit", "usual"),
                _windows(calibration),
            ),
        ]
    parts += ["## For a grid file", f"```yaml\n{block(calibration)}```"]
    return "\n\n".join(parts) + "\n"


def block(calibration: Calibration) -> str:
    """Of the chosen window, as keys of a grid file; eta and gamma are yours to say."""
    price, time = calibration.units
    numbers = [f"{name}_{side}: {getattr(flow, name).value:.6g}" for name in "Ak" for side, flow in calibration.flows.items()]
    doubts = [f"# {side} side: {said}\n" for side, flow in calibration.flows.items() if (said := _misfit(flow))]
    return "".join([*doubts, f"units: {{price: {price}, time: {time}}}\nparameters: {{{', '.join(numbers)}}}\n"])


def _chosen(calibration: Calibration) -> Iterator[tuple[str, ...]]:
    for side, flow in calibration.flows.items():
        yield side, _with_interval(flow.A), _with_interval(flow.k), str(flow.fills)


def _windows(calibration: Calibration) -> Iterator[tuple[str, ...]]:
    for row in calibration.rows:
        fit = row.fit
        line = ("", "") if row.line is None else tuple(f"{number:.4g}" for number in row.line)
        ends = (f"{end:g}" for end in fit.window)
        numbers = (str(fit.fills), f"{fit.dispersion:.3g}", f"{fit.distance:.3f}", f"{fit.usual_distance:.3f}")
        yield row.side, *ends, _with_interval(fit.A), _with_interval(fit.k), *line, *numbers


def _with_interval(number: Interval) -> str:
    return f"{number.value:.4g} ({number.low:.4g} to {number.high:.4g})"


def write(calibration: Calibration, folder: Path) -> list[Path]:
    """report.md, grid.yaml (the block) and, for trades and with the extra `viz`, flow.png into a folder, made if need be.

    Raises:
        OSError: the folder cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    written = [folder / "report.md", folder / "grid.yaml"]
    text = report(calibration)
    if calibration.rows and plots.can_be_drawn():
        written.append(folder / "flow.png")
        _draw(calibration, written[-1])
        text += f"\n![Rates by offset, and k by window]({written[-1].name})\n"
    written[0].write_text(text, encoding="utf-8")
    written[1].write_text(block(calibration), encoding="utf-8")
    return written


def _draw(calibration: Calibration, path: Path) -> None:
    from matplotlib.figure import Figure

    price, time = calibration.units
    figure = Figure(figsize=(10, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    for side, flow in calibration.flows.items():
        rows = [row for row in calibration.rows if row.side == side]
        low, high = rows[0].fit.window
        offsets = np.linspace(low, high if math.isfinite(high) else low + 5 / flow.k.value)
        orders = calibration.orders[side]
        prices = np.unique(orders.depths[(orders.depths >= low) & (orders.depths <= offsets[-1])])
        reached = np.array([(orders.depths >= price).sum() for price in prices])
        left.semilogy(prices, reached / orders.duration, "o", color=COLOURS[side], markersize=3, label=f"{side}: seen")
        left.semilogy(offsets, flow.A.value * np.exp(-flow.k.value * offsets), color=COLOURS[side], label=f"{side}: fitted")
        if rows[0].line:
            A, k = rows[0].line
            left.semilogy(offsets, A * np.exp(-k * offsets), ":", color=COLOURS[side], label=f"{side}: least squares")
        fits = [row.fit for row in rows if row.fit.window[0] == low and math.isfinite(row.fit.window[1])]
        other = sorted(fits, key=lambda fit: fit.window[1])
        widths = [fit.window[1] - fit.window[0] for fit in other]
        spans = np.array([[fit.k.value - fit.k.low, fit.k.high - fit.k.value] for fit in other]).T
        right.errorbar(widths, [fit.k.value for fit in other], spans, fmt="o-", color=COLOURS[side], label=side, capsize=3)
    left.set(xlabel=f"offset ({price})", ylabel=f"orders that reach it (1/{time})")
    right.set(xlabel=f"width of the window ({price})", ylabel=f"k (1/{price})", xscale="log", yscale="log")
    right.set_xticks(WIDTHS[:-1], [f"{width:g}" for width in WIDTHS[:-1]])
    right.set_xticks([], minor=True)
    left.legend()
    right.legend()
    figure.savefig(path, dpi=120)

"""A and k of the order flow that a market shows: how often market orders reach beyond an offset, A·exp(−k·offset).

An order that executes at a depth d from the mid (its furthest price) would have filled quotes up to d, and perhaps a little beyond:
prices are `tick` apart, so all that is known is that it would not have paid d + tick. Its true reach lies in [d, d + tick), and is
exponential with rate k beyond any offset. Orders arrive in bursts, so intervals resample blocks of time rather than orders (block
bootstrap: Künsch, Ann. Stat. 17, 1989).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int
from scipy import optimize, stats

CONFIDENCE = 0.95
RESAMPLES = 2000
FEWEST_ORDERS = 20
SAMPLES = 100
"""From the fitted law, to tell what distance is usual."""


class Interval(NamedTuple):
    """An estimate, and the ends of its 95 % interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Orders:
    """Market orders of one side that arrived from time 0 to `duration`, in order.

    `depths`: distance of the furthest price paid from the mid before the order, positive away from the mid; price units, on
    prices that are `tick` apart (0 for prices without a lattice).
    """

    times: Float[np.ndarray, " order"]
    depths: Float[np.ndarray, " order"]
    duration: float
    tick: float


@dataclass(frozen=True)
class FlowEstimate:
    """The rate A·exp(−k·offset) that was fitted; A per unit of time, k per unit of price."""

    A: Interval
    k: Interval
    fills: int
    """Orders, or fills, that it rests on."""


@dataclass(frozen=True)
class OrderFit(FlowEstimate):
    """A flow fitted to orders that reach at least `window[0]`; those that reach beyond `window[1]` count as just that."""

    window: tuple[float, float]
    dispersion: float
    """Variance over mean of the number of orders in a block of time: 1 for independent orders, more where they come in bursts."""
    distance: float
    """Largest difference between the shares of orders observed and fitted to reach an offset (Kolmogorov)."""
    usual_distance: float
    """What 95 % of samples of this size from the fitted law stay below."""


class FlowError(ValueError):
    """Data from which no flow can be told; the message says why."""


def fit_orders(orders: Orders, window: tuple[float, float], blocks: int = 50, seed: int = 0) -> OrderFit:
    """Poisson maximum likelihood of the rate at which orders reach beyond an offset within the window.

    Args:
        orders: of one side.
        window: from and to which offset the law is fitted, price units; the second may be infinite.
        blocks: into how many the time is cut for the intervals; each should be longer than a burst.
        seed: of the resampling.

    Raises:
        FlowError: too few orders reach the window, none ends in it, or all end at its start.
    """
    low, high = window
    reached = orders.depths >= low
    depths = orders.depths[reached]
    gap = _to_the_first_price(depths - low, orders.tick)
    excess = depths - low - gap
    ended, reach = _within(excess, orders.tick, np.maximum(high - low - gap, 0.0))
    block = np.minimum((orders.times[reached] / orders.duration * blocks).astype(int), blocks - 1)
    gaps, kind = np.unique(gap, return_inverse=True)
    counts = [np.bincount(block, kind == i, blocks) for i in range(gaps.size)]
    sums = np.stack([*counts, *(np.bincount(block, weights, blocks) for weights in (ended, reach))], axis=1)
    if not ended.any() or not reach.any():
        where = f"between {low:g} and {high:g} from the mid"
        raise FlowError(f"no orders end {where}, or all at its start; allowed: a window in which they end at several prices")
    if excess.size < FEWEST_ORDERS:
        raise FlowError(f"{excess.size} orders reach {low:g} from the mid; allowed: at least {FEWEST_ORDERS}, to resample them")
    rng = np.random.default_rng(seed)
    draws = rng.multinomial(blocks, np.full(blocks, 1 / blocks), size=RESAMPLES)
    *arrived, endings, reaches = np.concatenate([sums.sum(axis=0)[None], draws @ sums]).T
    k = _maximum_likelihood(endings, reaches, orders.tick)
    A = (np.exp(np.multiply.outer(low + gaps, k)) * arrived).sum(axis=0) / orders.duration
    orders_in_block = np.sum(counts, axis=0)
    dispersion = float(orders_in_block.var(ddof=1) / orders_in_block.mean())
    distance = _distance(excess, float(k[0]), orders.tick, high - low)
    usual = _usual_distance(excess.size, float(k[0]), orders.tick, high - low, rng)
    return OrderFit(_interval(A, blocks), _interval(k, blocks), excess.size, window, dispersion, distance, usual)


def _to_the_first_price(beyond: np.ndarray, tick: float) -> np.ndarray:
    """From the window's start to the first price at which each order could have ended: all that is known of how far it went from
    there to that price is that it did."""
    if not tick:
        return np.zeros_like(beyond)
    gap = np.mod(beyond, tick)
    return np.where(np.isclose(gap, tick), 0.0, gap.round(9))


def _within(excess: np.ndarray, tick: float, width: float | np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Which orders are known to end within the window, and how far into it each is known to reach."""
    ended = excess + tick <= width
    return ended, np.where(ended, excess, width)


def _maximum_likelihood(endings: np.ndarray, reaches: np.ndarray, tick: float) -> np.ndarray:
    """k, from how many orders end within the window and how far into it all orders reach together."""
    with np.errstate(divide="ignore"):  # where a resample has no reach, k is infinite
        return np.log1p(tick * endings / reaches) / tick if tick else endings / reaches


def _interval(estimates: np.ndarray, blocks: int) -> Interval:
    """The first of the estimates, and what the others, from resampled blocks, say of how far off it may be.

    Quantiles a little further out than the nominal ones, as resamples of few blocks vary too little (the expanded percentile
    interval of Hesterberg, Am. Stat. 69, 2015).
    """
    deviations = np.sqrt(blocks / (blocks - 1)) * stats.t.ppf(0.5 * (1 - CONFIDENCE), blocks - 1)
    tail = float(stats.norm.cdf(deviations))
    low, high = np.quantile(estimates[1:], [tail, 1 - tail])
    return Interval(float(estimates[0]), float(low), float(high))


def _distance(excess: np.ndarray, k: float, tick: float, width: float) -> float:
    """Between the shares of orders, and of the law, that end by each price of the window."""
    ended, _ = _within(excess, tick, width)
    prices = np.sort(excess[ended])
    observed = np.searchsorted(prices, prices, side="right") / excess.size
    return float(np.max(np.abs(observed + np.expm1(-k * (prices + tick))), initial=0.0))


def _usual_distance(size: int, k: float, tick: float, width: float, rng: np.random.Generator) -> float:
    """What 95 % of samples from the law stay below when the law is fitted to them in turn."""

    def drawn() -> float:
        excess = rng.exponential(1 / k, size)
        excess = np.floor(excess / tick) * tick if tick else excess
        ended, reach = _within(excess, tick, width)
        return _distance(excess, float(_maximum_likelihood(ended.sum(), reach.sum(), tick)), tick, width)

    return float(np.quantile([drawn() for _ in range(SAMPLES)], CONFIDENCE))


def least_squares(orders: Orders, window: tuple[float, float]) -> tuple[float, float]:
    """A and k by the straight line through the logarithms of the rates observed at the offsets of the window, a tick apart.

    What is often done; offsets that few orders reach weigh as much as those that many do.

    Raises:
        FlowError: fewer than two offsets in the window that orders reach.
    """
    low, high = window
    step = orders.tick or (np.quantile(orders.depths, 0.99) - low) / 20
    offsets = np.arange(low, min(high, orders.depths.max()) + 0.5 * step, step)
    reached = np.array([(orders.depths >= offset).sum() for offset in offsets])
    offsets, reached = offsets[reached > 0], reached[reached > 0]
    if offsets.size < 2:
        raise FlowError(f"orders reach fewer than two offsets between {low:g} and {high:g}; allowed: a wider window")
    slope, intercept = np.polyfit(offsets, np.log(reached / orders.duration), 1)
    return float(np.exp(intercept)), float(-slope)


def fit_fills(
    offsets: Float[np.ndarray, " quote"], exposures: Float[np.ndarray, " quote"], fills: Int[np.ndarray, " quote"]
) -> FlowEstimate:
    """Poisson regression of fills on the offsets of the quotes and how long each was shown.

    The intervals are widened where fills scatter more than Poisson numbers do (quasi-likelihood by Pearson's dispersion).

    Args:
        offsets: of quotes from the mid, price units.
        exposures: for how long each was quoted, units of time.
        fills: how often each was filled.

    Raises:
        FlowError: fewer than two offsets, no fills, or fills that do not fall with the offset.
    """
    if np.unique(offsets).size < 2 or not fills.any():
        raise FlowError("found fewer than two offsets, or no fills at all; allowed: fills at two offsets or more")
    mean = float(fills @ offsets / fills.sum())

    def surplus(k: float) -> float:
        """How much further from the mid fills are than k would have it; it rises with k."""
        weights = exposures * np.exp(-k * (offsets - offsets.min()))
        return mean - float(weights @ offsets / weights.sum())

    scale = float(np.ptp(offsets))
    if surplus(0.0) >= 0 or mean <= offsets.min():
        raise FlowError("fills do not fall with the offset as A·exp(−k·offset) does; allowed: data in which they do")
    most = 1.0 / scale
    while surplus(most) < 0:
        most *= 2
    k = float(optimize.root_scalar(surplus, bracket=(0.0, most), rtol=1e-14).root)
    A = float(fills.sum() / (exposures @ np.exp(-k * offsets)))
    expected = A * exposures * np.exp(-k * offsets)
    information = np.array([[expected.sum(), -expected @ offsets], [-expected @ offsets, expected @ offsets**2]])
    freedom = offsets.size - 2
    pearson = float(((fills - expected) ** 2 / expected).sum() / freedom) if freedom else 1.0
    errors = np.sqrt(np.diag(np.linalg.inv(information)) * max(1.0, pearson))
    width = float(stats.norm.ppf(0.5 * (1 + CONFIDENCE))) * errors
    return FlowEstimate(
        Interval(A, A * float(np.exp(-width[0])), A * float(np.exp(width[0]))),
        Interval(k, k - float(width[1]), k + float(width[1])),
        int(fills.sum()),
    )

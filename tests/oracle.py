"""The `euler` scheme in plain NumPy, written to be read: an oracle for the library, with which it shares no code.

Everything works for one game and for many at once: then any number of a game may be an array with one entry per game, and all
other arrays carry the games on their last axis. Offsets live between neighbouring inventories: entry e of an ask belongs to the
maker at x = e + 1 − x_max, who sells down to x − 1; entry e of a bid to the maker at x = e − x_max, who buys up to x + 1.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import wrightomega

Array = NDArray[np.float64]
Number = float | Array


@dataclass(frozen=True)
class Game:
    """The numbers of one game, or of many."""

    coupling: str
    boundary: str
    time: Array
    """Shape [time] or [time, games]."""
    initial_density: Array
    """Shape [x] or [x, games]."""
    A_ask: Number
    A_bid: Number
    k_ask: Number
    k_bid: Number
    k0: Number
    n_makers: Number
    eta: Number
    gamma: Number
    quote_min: Number
    quote_max: Number

    @property
    def x_max(self) -> int:
        return len(self.initial_density) // 2

    @cached_property
    def x(self) -> Array:
        """The inventories."""
        return self._along_x(np.arange(-self.x_max, self.x_max + 1.0))

    @cached_property
    def quotes_ask(self) -> Array:
        """1 where an ask is quoted, 0 where it is not: at an absorbing x_max."""
        quotes = np.ones(2 * self.x_max)
        quotes[-1] = 0.0 if self.boundary == "absorbing" else 1.0
        return self._along_x(quotes)

    @cached_property
    def quotes_bid(self) -> Array:
        """1 where a bid is quoted, 0 where it is not: at an absorbing −x_max."""
        return self.quotes_ask[::-1]

    def _along_x(self, values: Array) -> Array:
        """Shaped to go with arrays [x] or [x, games]."""
        return values.reshape(-1, *[1] * (self.initial_density.ndim - 1))


class Solution(NamedTuple):
    """The best reply to a crowd path. Shapes [time, x] or [time, x, games]; those of a crowd path [time] or [time, games]."""

    value: Array
    ask: Array
    """inf where none is quoted."""
    bid: Array
    density: Array
    crowd_ask: Array
    """The average offset of this density."""
    crowd_bid: Array


def normal_crowd(x_max: int, mean: Number, std: Number) -> Array:
    """The initial density ∝ exp(−(x − mean)²/(2 std²))."""
    x = np.arange(-x_max, x_max + 1.0).reshape(-1, *[1] * np.ndim(mean))
    density = np.exp(-0.5 * ((x - mean) / std) ** 2)
    return density / density.sum(axis=0)


def fill_rate(game: Game, A: Number, k: Number, quote: Array, crowd: Array) -> Array:
    """Fills per unit of time at this offset, where the crowd's average offset is `crowd`."""
    if game.coupling == "none":
        return A * np.exp(-k * quote)
    if game.coupling == "relative":
        return A * np.exp(-k * (quote - crowd))
    if game.coupling == "elastic":
        return A * np.exp(-game.k0 * crowd) * np.exp(-k * (quote - crowd))
    if game.coupling == "market_share":
        return A * np.exp(-game.k0 * crowd) / (1.0 + (game.n_makers - 1.0) * np.exp(k * (quote - crowd)))
    raise ValueError(game.coupling)


def best_quote(game: Game, k: Number, gain: Array, crowd: Array) -> Array:
    """The offset that maximises fill rate × (offset + gain); `gain` is what the fill adds to the value of the inventory."""
    if game.coupling == "market_share":
        u = wrightomega(k * (gain + crowd) - 1.0 - np.log(game.n_makers - 1.0))
        quote = (1.0 + u) / k - gain
    else:
        quote = 1.0 / k - gain
    return np.clip(quote, game.quote_min, game.quote_max)


def average(quote: Array, makers: Array, makers_moved_in: Array) -> Array:
    """The average offset at every time; where no maker quotes, the limit as those at ±x_max start to move in."""
    nobody = makers.sum(axis=1, keepdims=True) == 0
    if nobody.any():
        makers = np.where(nobody, makers_moved_in, makers)
    return (makers * quote).sum(axis=1) / makers.sum(axis=1)


def best_reply(game: Game, crowd_ask: Array, crowd_bid: Array) -> Solution:
    """What makers do against a crowd path, where that moves the crowd, and what the crowd then quotes on average."""
    steps = len(game.time) - 1
    dt = np.diff(game.time, axis=0)

    # Backward: the value, and the fills that the best quotes lead to in each interval. They are set at its end.
    value = np.empty((steps + 1, *game.initial_density.shape))
    ask_fills = np.empty((steps, *game.initial_density[1:].shape))
    bid_fills = np.empty_like(ask_fills)
    value[steps] = -game.gamma * game.x**2
    running_cost = game.eta * game.x**2
    for j in reversed(range(steps)):
        rise = np.diff(value[j + 1], axis=0)  # V(x + 1) − V(x): what a fill of the bid adds, and of the ask takes away
        ask = best_quote(game, game.k_ask, -rise, crowd_ask[j + 1])
        bid = best_quote(game, game.k_bid, rise, crowd_bid[j + 1])
        ask_fills[j] = dt[j] * fill_rate(game, game.A_ask, game.k_ask, ask, crowd_ask[j + 1]) * game.quotes_ask
        bid_fills[j] = dt[j] * fill_rate(game, game.A_bid, game.k_bid, bid, crowd_bid[j + 1]) * game.quotes_bid
        value[j] = value[j + 1] - dt[j] * running_cost
        value[j, 1:] += ask_fills[j] * (ask - rise)
        value[j, :-1] += bid_fills[j] * (bid + rise)

    # Forward: the crowd moves by the same fills. Who leaves one inventory enters the next.
    density = np.empty_like(value)
    density[0] = game.initial_density
    for j in range(steps):
        upwards = bid_fills[j] * density[j, :-1] - ask_fills[j] * density[j, 1:]
        density[j + 1] = density[j]
        density[j + 1, 1:] += upwards
        density[j + 1, :-1] -= upwards

    # The quotes at every time, and their averages over the makers who quote that side.
    rise = np.diff(value, axis=1)
    ask = best_quote(game, game.k_ask, -rise, crowd_ask[:, None])
    bid = best_quote(game, game.k_bid, rise, crowd_bid[:, None])
    moved_in = np.zeros_like(density)
    moved_in[:, 1] += density[:, 0]
    moved_in[:, -2] += density[:, -1]
    none = np.full_like(value[:, :1], np.inf)
    return Solution(
        value=value,
        ask=np.concatenate([none, np.where(game.quotes_ask == 1.0, ask, np.inf)], axis=1),
        bid=np.concatenate([np.where(game.quotes_bid == 1.0, bid, np.inf), none], axis=1),
        density=density,
        crowd_ask=average(ask, density[:, 1:] * game.quotes_ask, moved_in[:, 1:] * game.quotes_ask),
        crowd_bid=average(bid, density[:, :-1] * game.quotes_bid, moved_in[:, :-1] * game.quotes_bid),
    )


def solve(game: Game, tolerance: float = 1e-9, max_sweeps: int = 1000) -> Solution:
    """The equilibrium: everyone best-replies to the last crowd path until no average moves by more than `tolerance`.

    Raises:
        RuntimeError: not all games got there in `max_sweeps`.
    """
    start = np.zeros((len(game.time), *game.initial_density.shape[1:]))
    crowd_ask = np.clip(start + 1.0 / game.k_ask, game.quote_min, game.quote_max)
    crowd_bid = np.clip(start + 1.0 / game.k_bid, game.quote_min, game.quote_max)
    for _ in range(max_sweeps):
        reply = best_reply(game, crowd_ask, crowd_bid)
        change = max(np.abs(reply.crowd_ask - crowd_ask).max(), np.abs(reply.crowd_bid - crowd_bid).max())
        if change <= tolerance:
            return reply
        crowd_ask, crowd_bid = reply.crowd_ask, reply.crowd_bid
    raise RuntimeError(f"no equilibrium in {max_sweeps} sweeps")

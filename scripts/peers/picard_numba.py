"""A peer for benchmarks: the `euler` scheme and Picard's iteration in numba, a game at a time on each core.

The same recurrences as picard.c and as tests/oracle.py.
"""

from __future__ import annotations

import math

import numba
import numpy as np

RELATIVE, ELASTIC, MARKET_SHARE = 0, 1, 2

compiled = numba.njit(fastmath=True, error_model="numpy")


@compiled
def wright_omega(c):
    """The u > 0 with u + ln u = c, by two steps of Fritsch, Shafer and Crowley."""
    exponential, large = math.exp(min(c, 1.0)), max(c, 1.0)
    u = large - math.log(large) if c > 1.0 else exponential / (1.0 + exponential)
    for _ in range(2):
        r = c - u - math.log(u)
        q = 2.0 * (1.0 + u) * (1.0 + u + 2.0 / 3.0 * r)
        u *= 1.0 + r / (1.0 + u) * (q - r) / (q - 2.0 * r)
    return u


@compiled
def reply_at(coupling, game, sign, rise, crowd, quote, rate):
    """Best quotes and fill rates of one side. `sign` times the rise of the value across an edge is what a fill adds."""
    A, k, k0, n_makers, _, _, quote_min, quote_max = game
    rivals, base = math.log(n_makers - 1.0), A * math.exp(-k0 * crowd)
    if coupling == MARKET_SHARE:
        for e in range(rise.size):
            gain = sign * rise[e]
            quote[e] = min(max((1.0 + wright_omega(k * (gain + crowd) - 1.0 - rivals)) / k - gain, quote_min), quote_max)
            rate[e] = base / (1.0 + math.exp(k * (quote[e] - crowd) + rivals))
        return
    scale = A if coupling == RELATIVE else base
    for e in range(rise.size):
        quote[e] = min(max(1.0 / k - sign * rise[e], quote_min), quote_max)
        rate[e] = scale * math.exp(-k * (quote[e] - crowd))


@compiled
def backward(coupling, game, dt, crowd, quotes, fills, value, rise):
    _, _, _, _, eta, gamma, _, _ = game
    x_max = value.size // 2
    for x in range(value.size):
        value[x] = -gamma * (x - x_max) ** 2
    for j in range(len(quotes) - 1, -1, -1):
        for e in range(rise.size):
            rise[e] = value[e + 1] - value[e]
        ask, bid, ask_fills, bid_fills = quotes[j, 0], quotes[j, 1], fills[j, 0], fills[j, 1]
        reply_at(coupling, game, -1.0, rise, crowd[j, 0], ask, ask_fills)
        reply_at(coupling, game, 1.0, rise, crowd[j, 1], bid, bid_fills)
        if j == 0:
            return
        for x in range(value.size):
            value[x] -= dt * eta * (x - x_max) ** 2
        for e in range(rise.size):
            value[e + 1] += dt * ask_fills[e] * (ask[e] - rise[e])
        for e in range(rise.size):
            value[e] += dt * bid_fills[e] * (bid[e] + rise[e])


@compiled
def forward(dt, initial, quotes, fills, density, upwards, reply):
    density[:] = initial
    last = len(quotes) - 1
    for j in range(last + 1):
        ask, bid = quotes[j, 0], quotes[j, 1]
        asks = bids = askers = bidders = 0.0
        for e in range(upwards.size):
            asks += density[e + 1] * ask[e]
            bids += density[e] * bid[e]
            askers += density[e + 1]
            bidders += density[e]
        reply[j, 0], reply[j, 1] = asks / askers, bids / bidders
        if j == last:
            return
        # the fills of an interval are those at its end
        ask_fills, bid_fills = fills[j + 1, 0], fills[j + 1, 1]
        for e in range(upwards.size):
            upwards[e] = dt * (bid_fills[e] * density[e] - ask_fills[e] * density[e + 1])
        for e in range(upwards.size):
            density[e + 1] += upwards[e]
        for e in range(upwards.size):
            density[e] -= upwards[e]


@numba.njit(fastmath=True, error_model="numpy", parallel=True)
def solve(coupling, games, initial, horizon, tolerance, max_sweeps, crowds):
    """Fills crowds [game, time, side]; returns the sweeps of all games together."""
    times, n_x = crowds.shape[1], initial.shape[1]
    sweeps = np.zeros(len(games), np.int64)
    for i in numba.prange(len(games)):
        quotes, fills = np.empty((times, 2, n_x - 1)), np.empty((times, 2, n_x - 1))
        value, density, rise, reply = np.empty(n_x), np.empty(n_x), np.empty(n_x - 1), np.empty((times, 2))
        A, k, k0, n_makers, eta, gamma, quote_min, quote_max = games[i]
        game = (A, k, k0, n_makers, eta, gamma, quote_min, quote_max)
        dt = horizon / (times - 1)
        crowd = crowds[i]
        crowd[:] = min(max(1.0 / k, quote_min), quote_max)
        for _ in range(max_sweeps):
            backward(coupling, game, dt, crowd, quotes, fills, value, rise)
            forward(dt, initial[i], quotes, fills, density, rise, reply)
            sweeps[i] += 1
            change = 0.0
            for j in range(times):
                for side in range(2):
                    change = max(change, abs(reply[j, side] - crowd[j, side]))
                    crowd[j, side] = reply[j, side]
            if change <= tolerance:
                break
    return sweeps.sum()

"""What the library's speed is measured against: the same `euler` scheme and Picard's iteration in C, in numba and in NumPy.

All of them stop a game at the same residual and use every core.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np

from scripts.peers import picard_numba
from tests import oracle

COUPLINGS = ("relative", "elastic", "market_share")
FIELDS = ("A", "k", "k0", "n_makers", "eta", "gamma", "quote_min", "quote_max")
HORIZON = 1.0

T = TypeVar("T")


@dataclass(frozen=True)
class Games:
    """Games of one kind, all of horizon 1 with a normal crowd. `columns`: parameter → one number for each game."""

    coupling: str
    x_max: int
    n_steps: int
    columns: dict[str, np.ndarray]

    def __len__(self) -> int:
        return len(self.columns["A"])

    @property
    def state_steps(self) -> int:
        """Inventories times time steps, of one sweep of one game."""
        return (2 * self.x_max + 1) * self.n_steps

    @property
    def initial_density(self) -> np.ndarray:
        """[x, game]."""
        return oracle.normal_crowd(self.x_max, self.columns["crowd_mean"], self.columns["crowd_std"])

    def part(self, members: slice) -> Games:
        return Games(self.coupling, self.x_max, self.n_steps, {name: column[members] for name, column in self.columns.items()})


@dataclass(frozen=True)
class Solved:
    crowds: np.ndarray
    """[game, time, side]."""
    sweeps: int
    """Of all games together."""


Peer = Callable[[Games, float, int], Solved]
"""(games, residual at which to stop, most sweeps) → solution."""


def available(cores: int) -> dict[str, Peer]:
    """The peers that this machine can run."""
    peers: dict[str, Peer] = {"numba": _numba(cores), "NumPy, batched": _numpy(cores)}
    return ({"C": _c(cores)} if shutil.which("cc") else {}) | peers


def _c(cores: int) -> Peer:
    folder = tempfile.mkdtemp()
    binary = Path(folder) / "picard.so"
    source = Path(__file__).with_name("picard.c")
    command = ["cc", "-O3", "-march=native", "-ffast-math", "-shared", "-fPIC", "-o", binary, source, "-lm"]
    subprocess.run(command, check=True)
    library = ctypes.CDLL(str(binary))
    shutil.rmtree(folder)
    library.solve.restype = ctypes.c_long

    def solve(games: Games, residual: float, most_sweeps: int) -> Solved:
        numbers, initial, crowds = _arrays(games)
        pointers = [array.ctypes.data_as(ctypes.c_void_p) for array in (numbers, initial, crowds)]

        def part(first: int, last: int) -> int:
            return library.solve(
                COUPLINGS.index(games.coupling),
                games.x_max,
                games.n_steps,
                ctypes.c_double(HORIZON),
                ctypes.c_double(residual),
                most_sweeps,
                ctypes.c_long(first),
                ctypes.c_long(last),
                *pointers,
            )

        return Solved(crowds, sum(_in_parts(part, len(games), cores)))

    return solve


def _numba(cores: int) -> Peer:
    os.environ.setdefault("NUMBA_NUM_THREADS", str(cores))

    def solve(games: Games, residual: float, most_sweeps: int) -> Solved:
        numbers, initial, crowds = _arrays(games)
        coupling = COUPLINGS.index(games.coupling)
        sweeps = picard_numba.solve(coupling, numbers, initial, HORIZON, residual, most_sweeps, crowds)
        return Solved(crowds, int(sweeps))

    return solve


def _numpy(cores: int) -> Peer:
    def solve(games: Games, residual: float, most_sweeps: int) -> Solved:
        def part(first: int, last: int) -> Solved:
            return _solve_together(games.part(slice(first, last)), residual, most_sweeps)

        parts = _in_parts(part, len(games), cores)
        return Solved(np.concatenate([part.crowds for part in parts]), sum(part.sweeps for part in parts))

    return solve


def _solve_together(games: Games, residual: float, most_sweeps: int) -> Solved:
    own = {name: games.columns[name] for name in ("k0", "n_makers", "eta", "gamma", "quote_min", "quote_max")}
    A, k = games.columns["A"], games.columns["k"]
    time = np.repeat(np.linspace(0.0, HORIZON, games.n_steps + 1)[:, None], len(games), axis=1)
    sides = {"A_ask": A, "A_bid": A, "k_ask": k, "k_bid": k}
    game = oracle.Game(games.coupling, "reflecting", time, games.initial_density, **sides, **own)
    asks = bids = np.clip(np.zeros_like(time) + 1.0 / k, own["quote_min"], own["quote_max"])
    sweeps = 0
    change = np.inf
    while change > residual and sweeps < most_sweeps:
        reply = oracle.best_reply(game, asks, bids)
        change = max(np.abs(reply.crowd_ask - asks).max(), np.abs(reply.crowd_bid - bids).max())
        asks, bids = reply.crowd_ask, reply.crowd_bid
        sweeps += 1
    return Solved(np.stack([asks, bids], axis=-1).swapaxes(0, 1), sweeps * len(games))


def _arrays(games: Games) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The numbers [game, field], the initial densities [game, x], and room for the crowds."""
    numbers = np.stack([games.columns[name] for name in FIELDS], axis=1)
    return numbers, np.ascontiguousarray(games.initial_density.T), np.empty((len(games), games.n_steps + 1, 2))


def _in_parts(solve: Callable[[int, int], T], games: int, cores: int) -> list[T]:
    """The results of first … last − 1 for as many parts as there are cores, side by side."""
    bounds = np.linspace(0, games, min(cores, games) + 1).astype(int).tolist()
    with ThreadPoolExecutor(cores) as pool:
        return list(pool.map(solve, bounds[:-1], bounds[1:]))

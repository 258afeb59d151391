"""Speed: the engine and its peers on the same games, and where the time of a whole sweep goes.

    python scripts/bench.py [--short] [--output FOLDER]

Three tables, printed, and written as bench.md and bench.json:

1. The `euler` scheme and Picard's iteration to the same residual, on 1,000 mild skewed games: the engine, and the same algorithm in
   C, numba and NumPy (scripts/peers). Every side uses all cores. Their mean spreads are compared.
2. The same for games of other kinds, lattices and numbers of games, in nanoseconds per state-step: one inventory at one time in one
   sweep, backward and forward. Beside it, games per second with the default scheme.
3. A sweep of 10,000 games with paths: its time, less what it takes to load the compiled programs, over that of solving alone by
   programs that are loaded; and the shares of solving, copying and writing.

Medians of five; runs that take long are timed once. On a shared machine only the ratios within a row mean something.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from sweeps import runtime

runtime.configure()

import numpy as np  # noqa: E402

import mfg_jax as mfg  # noqa: E402
from mfg_jax.grid import quadrature_weights  # noqa: E402
from scripts import peers, report  # noqa: E402
from scripts.peers import Games, Peer  # noqa: E402
from scripts.report import Row  # noqa: E402
from sweeps import engine  # noqa: E402
from sweeps.kinds import Column  # noqa: E402
from sweeps.solver import Solver  # noqa: E402
from sweeps.spec import Spec  # noqa: E402
from sweeps.sweep import Sweep  # noqa: E402

RESIDUAL, MOST_SWEEPS = 1e-9, 200
REPETITIONS, LONG, TOO_LONG = 5, 10.0, 20.0
MOST_GAMES_OF_PEERS = 1_024
"""More cost the same each, and NumPy minutes."""
PEERS = ("C", "numba", "NumPy, batched")

MILD = {"A": 10.0, "k": 1.5, "k0": 0.5, "n_makers": 5.0, "eta": 0.01, "gamma": 0.04, "crowd_mean": 1.0, "crowd_std": 2.0}
BOUNDS = {"quote_min": 0.0, "quote_max": 5.0}
KINDS: dict[str, tuple[str, dict[str, float]]] = {
    "mild": ("relative", MILD | BOUNDS),
    "clipped": ("elastic", MILD | {"gamma": 0.3, "quote_min": 0.4, "quote_max": 0.9}),
    "market share": ("market_share", MILD | BOUNDS),
    "stiff": ("relative", MILD | BOUNDS | {"eta": 0.1, "gamma": 0.5, "crowd_mean": 2.0}),
}
"""Coupling and parameters, about which the games of a kind lie."""


def make_games(kind: str, games: int, x_max: int, n_steps: int) -> Games:
    """Of crowds more and more skewed, and makers more and more averse to a position at the close."""
    coupling, numbers = KINDS[kind]
    lean = np.linspace(0.5, 1.5, games)
    skewed = {name: numbers[name] * lean for name in ("gamma", "crowd_mean")}
    return Games(coupling, x_max, n_steps, {name: np.full(games, value) for name, value in numbers.items()} | skewed)


class Engine:
    """The engine's own way of solving, without a store."""

    def __init__(self, games: Games, scheme: str, outputs: dict[str, Any] | None = None) -> None:
        explicit = {"method": "picard", "max_iterations": MOST_SWEEPS, "select": "any"} if scheme == "euler" else {}
        fixed = {"x_max": games.x_max, "n_steps": games.n_steps, "scheme": scheme}
        self.games = games
        self.spec = Spec.model_validate(
            {
                "model": {"coupling": games.coupling, **fixed, **({"grading": 0.0} if scheme == "euler" else {})},
                "solver": {"tolerance": RESIDUAL, **explicit},
                "sampling": "table",
                "table": {name: Column(column, "games made here") for name, column in games.columns.items()},
                "outputs": outputs or {"paths": False},
            }
        )
        sweep = Sweep(self.spec)
        self._solver = Solver(sweep, min(sweep.batch_size(), len(games)))

    def solve(self) -> dict[str, np.ndarray]:
        """A few results of all games; the others are let go."""
        kept = {name: np.empty(len(self.games)) for name in ("status", "iterations", "mean_spread")}
        for games, results in engine.solve(self._solver, self._solver.sweep.games(0, len(self.games))):
            for name, values in kept.items():
                values[games.points] = results[name]
        return kept


def timed(run: Callable[[], Any]) -> tuple[float, Any]:
    """Median seconds after a first run, and what it returned."""
    begun = time.perf_counter()
    found = run()
    first = time.perf_counter() - begun
    times = []
    for _ in range(1 if first > LONG else REPETITIONS):
        begun = time.perf_counter()
        found = run()
        times.append(time.perf_counter() - begun)
    return statistics.median(times), found


def spreads(games: Games, crowds: np.ndarray) -> np.ndarray:
    return crowds.sum(axis=2) @ quadrature_weights(np.linspace(0.0, 1.0, games.n_steps + 1))


def explicit(games: Games, sides: dict[str, Peer]) -> tuple[dict[str, float], dict[str, float], float]:
    """Seconds, nanoseconds per state-step and core-independent sweep, and the largest difference of a mean spread from ours."""
    program = Engine(games, "euler")
    ours = program.solve  # compiles
    seconds, found = timed(ours)
    if (found["status"] != mfg.Status.CONVERGED).any():
        raise RuntimeError(f"not every game converged: {np.unique(found['status'])}")
    sweeps = {"mfg-jax": float(found["iterations"].sum())}
    times, difference = {"mfg-jax": seconds}, 0.0
    residual = RESIDUAL / float(games.columns["k"][0])
    for name, peer in sides.items():
        times[name], solved = timed(lambda peer=peer: peer(games, residual, MOST_SWEEPS))
        sweeps[name] = solved.sweeps
        difference = max(difference, float(np.abs(spreads(games, solved.crowds) - found["mean_spread"]).max()))
    per_state_step = {name: 1e9 * times[name] / (games.state_steps * sweeps[name]) for name in times}
    return times, per_state_step, difference


def headline(sides: dict[str, Peer], games: int, n_steps: int) -> Iterator[Row]:
    played = make_games("mild", games, 20, n_steps)
    times, nanoseconds, difference = explicit(played, sides)
    for name, seconds in times.items():
        yield {
            "program": name,
            "games": games,
            "n_x": 41,
            "n_t": n_steps,
            "seconds": seconds,
            "ns per state-step": nanoseconds[name],
            "time over ours": seconds / times["mfg-jax"],
            "largest difference of a mean spread": difference if name != "mfg-jax" else None,
        }


def by_kind(sides: dict[str, Peer], kinds: tuple[str, ...], sizes: tuple[int, ...], numbers: tuple[int, ...]) -> Iterator[Row]:
    for kind in kinds:
        for x_max in sizes:
            expected = 0.0
            for number in numbers:
                if expected * number > TOO_LONG:
                    continue
                games = make_games(kind, number, x_max, 100)
                default = Engine(games, "automatic")
                seconds, found = timed(default.solve)
                expected = seconds / number
                row: Row = {"kind": kind, "n_x": 2 * x_max + 1, "games": number, "default games/s": number / seconds}
                row["converged"] = int((found["status"] == mfg.Status.CONVERGED).sum())
                compared = kind != "stiff" and number <= MOST_GAMES_OF_PEERS  # explicit steps are too long for stiff games
                nanoseconds = explicit(games, sides)[1] if compared else {}
                yield row | {f"{name} ns": nanoseconds.get(name) for name in ("mfg-jax", *PEERS)}


def whole_sweep(games: int, n_steps: int) -> Iterator[Row]:
    played = make_games("mild", games, 10, n_steps)
    alone = Engine(played, "automatic", {"paths": True})
    solving, _ = timed(alone.solve)

    def write() -> engine.Progress:
        with tempfile.TemporaryDirectory() as folder:
            return engine.run(alone.spec, Path(folder) / "s.zarr")

    seconds, progress = timed(write)
    compiling = progress.shares["compile"] * progress.seconds
    yield {
        "games": games,
        "n_x": 21,
        "n_t": n_steps,
        "solving alone, s": solving,
        "sweep, s": seconds,
        "loading programs, s": compiling,
        "ratio without": (seconds - compiling) / solving,
        **progress.shares,
    }


def main() -> None:
    chosen = report.options(__doc__, "a few small games")
    sides = peers.available(runtime.core_count())
    short = chosen.short
    kinds = ("mild",) if short else tuple(KINDS)
    tables = {
        "The same algorithm": headline(sides, *((8, 200) if short else (1_000, 500))),
        "Kinds of games, 100 time steps": by_kind(
            sides, kinds, (3,) if short else (10, 20, 50), (4,) if short else (1, 64, 1_024, 16_384)
        ),
        "A whole sweep": whole_sweep(*((8, 16) if short else (10_000, 200))),
    }
    report.report("bench", tables, chosen.output, packages=("numba",))


if __name__ == "__main__":
    main()

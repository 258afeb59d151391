"""What a sweep costs as it grows, with the lattice, the time steps, the games and the cores; whether a long one stays as it began.

    python scripts/bench_scaling.py [--short] [--output FOLDER]

The first table gives seconds of solving games with the default scheme, medians of three, and the exponent p of
seconds ∝ sizeᵖ, fitted over the larger half of the sizes. The second is of one run into a store: games per second and memory,
tenth by tenth. Games are `elastic`, skewed and mild.
"""

from __future__ import annotations

import dataclasses
import itertools
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np

from scripts import report
from scripts.bench import Engine, make_games
from scripts.report import Row
from sweeps import engine
from sweeps.spec import Spec

REPETITIONS, LONG = 3, 20.0
N_X, N_T, GAMES = 21, 100, 1_000
SIZES = {"n_x": (11, 21, 41, 81, 161), "n_t": (50, 100, 200, 400, 800), "games": (100, 1_000, 10_000, 100_000)}
SHORT_SIZES = {"n_x": (7,), "n_t": (50,), "games": (4, 8)}
MANY, FEW = 1_000_000, 1_000
COARSE = 50
"""Time steps of the games of the long run."""


def seconds(n_x: int, n_t: int, games: int) -> float:
    """Median of solving, the programs compiled before."""
    played = dataclasses.replace(make_games("mild", games, n_x // 2, n_t), coupling="elastic")
    program = Engine(played, "automatic")
    times = [_timed(program.solve)]
    times = [_timed(program.solve) for _ in range(1 if times[0] > LONG else REPETITIONS)]
    return statistics.median(times)


def _timed(run: Callable[[], object]) -> float:
    begun = time.perf_counter()
    run()
    return time.perf_counter() - begun


def against_sizes(sizes: dict[str, tuple[int, ...]], usual: dict[str, int]) -> Iterator[Row]:
    for name, values in sizes.items():
        times = [seconds(**(usual | {name: value})) for value in values]
        yield from _fitted(name, values, times)


def against_cores(usual: dict[str, int]) -> Iterator[Row]:
    cores = sorted(os.sched_getaffinity(0))
    numbers = tuple(range(1, len(cores) + 1))
    times = []
    for number in numbers:
        os.sched_setaffinity(0, cores[:number])
        times.append(seconds(**usual))
    os.sched_setaffinity(0, cores)
    yield from _fitted("cores", numbers, times)


def _fitted(name: str, values: Sequence[int], times: list[float]) -> list[Row]:
    larger = slice(-max(2, (len(values) + 1) // 2), None)
    exponent = float(np.polyfit(np.log(values[larger]), np.log(times[larger]), 1)[0]) if len(values) > 1 else None
    return [
        {"against": name, "size": value, "seconds": elapsed, "exponent": exponent if value == values[-1] else None}
        for value, elapsed in zip(values, times, strict=True)
    ]


def long_run(games: int) -> Iterator[Row]:
    """A tenth a row: it is solved when the run has reported so many games."""
    spec = Spec.model_validate(
        {
            "model": {"coupling": "elastic", "x_max": 10, "n_steps": COARSE},
            "parameters": {"A": 10.0, "k": 1.5, "k0": 0.5, "eta": 0.01},
            "sampling": "random",
            "points": games,
            "sweep": {"gamma": {"uniform": [0.02, 0.06]}, "crowd_mean": {"uniform": [0.0, 1.0]}},
            "outputs": {"paths": False},
        }
    )
    with tempfile.TemporaryDirectory() as folder:
        yield from tenths(spec, Path(folder) / "s.zarr")


def tenths(spec: Spec, path: Path) -> Iterator[Row]:
    """Of the games of a run into a new store: how fast they came, and what memory was held then."""
    seen = []

    def note(progress: engine.Progress) -> None:
        if progress.done >= len(seen) * progress.points // 10:
            seen.append((progress.done, time.perf_counter(), _resident_bytes()))

    engine.run(spec, path, report=note)
    for (before, since, _), (done, then, memory) in itertools.pairwise(seen):
        yield {"games": done, "games/s": (done - before) / (then - since), "resident MB": memory / 1e6}


def _resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def main() -> None:
    chosen = report.options(__doc__, "a few small games")
    usual = {"n_x": 7, "n_t": COARSE, "games": 8} if chosen.short else {"n_x": N_X, "n_t": N_T, "games": GAMES}
    sizes = SHORT_SIZES if chosen.short else SIZES
    tables = {
        f"Growth, from {usual}": itertools.chain(against_sizes(sizes, usual), against_cores(usual)),
        f"A long run, n_x {N_X}, {COARSE} time steps": long_run(FEW if chosen.short else MANY),
    }
    report.report("bench_scaling", tables, chosen.output)


if __name__ == "__main__":
    main()

"""Kills workers of a cluster every few seconds, and compares the store that they fill with that of a single process.

    python scripts/torture_cluster.py [--blocks N] [--seconds N] [--workers N] [--seed N]

Games are not solved but made up, at the pace of real ones; one of them kills every process that solves it. Prints how many workers
died, and how many games were lost, have other numbers, or were marked though they are harmless: all of these must be 0.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Generator, Iterable
from contextlib import suppress
from pathlib import Path
from unittest.mock import patch

import numpy as np
import torture_store
import xarray as xr
from dask import config

from sweeps import engine, store
from sweeps.cluster import Cluster, ClusterError
from sweeps.dataset import CRASHED, open_store
from sweeps.schema import Spec
from sweeps.solver import Solved, Solver
from sweeps.sweep import Games

GAMES_PER_BLOCK = 16
SECONDS_A_BATCH = 0.1
MOST_ATTEMPTS = 20
POISON = 21
"""A game in the middle of the second block."""


def spec(blocks: int) -> Spec:
    return Spec.model_validate(
        {
            "model": {"coupling": "relative", "x_max": 2, "n_steps": 8},
            "parameters": {"k": 1.5, "eta": 0.01, "gamma": 0.02},
            "sweep": {"A": np.linspace(1.0, 5.0, blocks * GAMES_PER_BLOCK).tolist()},
        }
    )


def deadly(solver: Solver, games: Iterable[Games], stop: threading.Event) -> Generator[Solved]:
    for some, results in torture_store.made_up(solver, games, stop):
        if POISON in some.points:
            os.kill(os.getpid(), signal.SIGKILL)
        yield some, results


def dask_setup(worker: object) -> None:
    """Called by every worker when it starts."""
    del worker
    engine.solve = deadly
    torture_store.SECONDS_A_BATCH = SECONDS_A_BATCH


class Killer(threading.Thread):
    """Kills one of the workers every few seconds, whatever it does, once they have come so far as to begin the store."""

    def __init__(self, path: Path, seconds: float, chance: random.Random) -> None:
        super().__init__(daemon=True)
        self.kills = 0
        self._path = path
        self._seconds = seconds
        self._chance = chance
        self._over = threading.Event()

    def run(self) -> None:
        while not self._over.wait(self._chance.uniform(0.5, 1.5) * self._seconds):
            if self._path.exists() and (workers := children()):
                with suppress(ProcessLookupError):
                    os.kill(self._chance.choice(workers), signal.SIGKILL)
                    self.kills += 1

    def stop(self) -> None:
        self._over.set()
        self.join()


def children() -> list[int]:
    """The workers: processes that this one has spawned."""
    found = []
    for task in Path("/proc/self/task").iterdir():
        with suppress(OSError):
            for child in (task / "children").read_text().split():
                if b"spawn_main" in Path(f"/proc/{child}/cmdline").read_bytes():
                    found.append(int(child))
    return found


def loaded(path: Path) -> xr.Dataset:
    with open_store(path) as dataset:
        return dataset.load()


def finished(grid: Spec, path: Path, workers: int) -> bool:
    """Goes on with the run; whether it came to its end. It does not where a worker dies before it has started."""
    try:
        with Cluster(f"local:{workers}", grid, "cpu") as crew:
            engine.run(grid, path, crew=crew)
    except ClusterError as error:
        print(error, file=sys.stderr)
        return False
    return True


def compared(found: xr.Dataset, expected: xr.Dataset) -> tuple[int, int, int]:
    """Games that are pending; that have other numbers, or end otherwise; and that are marked without reason, or not marked."""
    status = found["status"].values
    same = np.ones(status.size, bool)
    for name, values in expected.data_vars.items():
        a, b = (numbers.values.reshape(status.size, -1) for numbers in (found[name], values))
        same &= ((a == b) | (np.isnan(a) & np.isnan(b))).all(axis=1)
    harmless = np.arange(status.size) != POISON
    other = ~same & harmless & (status != 0) & (status != CRASHED)
    return int((status == 0).sum()), int(other.sum()), int(((status == CRASHED) == harmless).sum())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--blocks", type=int, default=120)
    parser.add_argument("--seconds", type=float, default=4.0, help="between kills, on average")
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--seed", type=int, default=0)
    chosen = parser.parse_args()
    grid = spec(chosen.blocks)
    with tempfile.TemporaryDirectory() as folder, patch.object(store, "games_per_block", lambda points, largest: GAMES_PER_BLOCK):
        alone, path = Path(folder, "alone.zarr"), Path(folder, "cluster.zarr")
        with patch.object(engine, "solve", torture_store.made_up), patch.object(torture_store, "SECONDS_A_BATCH", 0.0):
            engine.run(grid, alone)
        preload = {"distributed.worker.preload": [str(Path(__file__).absolute())]}
        killer = Killer(path, chosen.seconds, random.Random(chosen.seed))
        begun = time.monotonic()
        killer.start()
        with config.set(preload):
            ended = any(finished(grid, path, chosen.workers) for _ in range(MOST_ATTEMPTS))
        killer.stop()
        seconds = time.monotonic() - begun
        if not ended:
            sys.exit(f"not ended after {MOST_ATTEMPTS} attempts")
        lost, other, marked = compared(loaded(path), loaded(alone))
        strays = sum(1 for entry in Path(folder).rglob("*") if entry.suffix == ".partial" or entry.name.startswith("."))
    print(f"`scripts/torture_cluster.py`: {chosen.workers} workers, one killed every {chosen.seconds:g} s on average, and one game")
    print(f"that kills whoever solves it; {seconds:.0f} s.\n")
    print("| games | kills | lost | other numbers | marked wrongly | stray files |\n|---|---|---|---|---|---|")
    print(f"| {chosen.blocks * GAMES_PER_BLOCK} | {killer.kills} | {lost} | {other} | {marked} | {strays} |")
    sys.exit(any((lost, other, marked, strays)))


if __name__ == "__main__":
    main()

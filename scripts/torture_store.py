"""Kills runs at random moments, goes on with them until they are done, and compares their stores with that of an undisturbed run.

    python scripts/torture_store.py [--runs N] [--seed N]

Games are not solved but made up, so that nearly all of the time goes to what is tortured: the store. Prints how often what was done
was lost, came out wrong, or could not be gone on with: all of them must be 0.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Generator, Iterable
from pathlib import Path
from unittest.mock import patch

import jax
import numpy as np

from sweeps import engine, store
from sweeps.dataset import variables
from sweeps.schema import Spec
from sweeps.solver import Solved, Solver
from sweeps.sweep import Games

SPEC = Spec.model_validate(
    {
        "model": {"coupling": "relative", "x_max": 2, "n_steps": 8},
        "parameters": {"k": 1.5, "eta": 0.01},
        "sweep": {"A": [1.0, 2.0, 3.0, 4.0, 5.0, 6.0], "gamma": [0.01, 0.02, 0.03, 0.04]},
    }
)
GAMES_PER_BLOCK, GAMES_AT_ONCE = 4, 2
SECONDS_A_BATCH = 0.005
BLOCKS = 6
MOST_KILLS = 4
SECONDS_UNTIL_STUCK = 60.0
MUST_BE_NONE = ("lost", "wrong", "stuck")
COUNTED = ("kills", "before the store was there", "while blocks were written", "later", *MUST_BE_NONE)


def made_up(solver: Solver, games: Iterable[Games]) -> Generator[Solved]:
    """Results of games, from their numbers alone, as fast as they can be written."""
    sizes = {v.name: [solver.sweep.labels().size(dim) for dim in v.dims] for v in variables(solver.spec)}
    for several in games:
        for first in range(0, several.points.size, GAMES_AT_ONCE):
            some = several.some(slice(first, first + GAMES_AT_ONCE))
            time.sleep(SECONDS_A_BATCH)
            numbers = {name: np.sin(some.points + 1.0) * len(name) for name in sizes}
            results = {name: np.multiply.outer(numbers[name], np.arange(1.0, np.prod(size) + 1)) for name, size in sizes.items()}
            results = {name: values.reshape(-1, *sizes[name]) for name, values in results.items()}
            yield some, results | {"status": np.ones(some.points.size, np.int8)}


def begin(path: Path) -> int:
    """Another process, that runs the sweep into a store; its number."""
    child = os.fork()
    if child:
        return child
    try:
        with (
            patch.object(store, "games_per_block", lambda points, largest: GAMES_PER_BLOCK),
            patch.object(engine, "solve", made_up),
        ):
            engine.run(SPEC, path)
        os._exit(0)
    except BaseException as error:
        print(f"{path}: {error}", file=sys.stderr, flush=True)
        os._exit(1)


def ended_well(child: int) -> bool:
    """Waits for a process; one that takes forever is stopped."""
    deadline = time.monotonic() + SECONDS_UNTIL_STUCK
    while time.monotonic() < deadline:
        number, status = os.waitpid(child, os.WNOHANG)
        if number:
            return os.waitstatus_to_exitcode(status) == 0
        time.sleep(0.01)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return False


def contents(path: Path) -> dict[str, bytes]:
    """All files of a store but those with times in them."""
    files = {str(file.relative_to(path)): file for file in path.rglob("*") if file.is_file()}
    return {
        name: file.read_bytes() for name, file in files.items() if name != "zarr.json" and not name.startswith("blocks/seconds/c/")
    }


def done(path: Path) -> dict[Path, int]:
    """The files by which blocks count as done, each with what tells it from one that was written later."""
    return {file: file.stat().st_mtime_ns for file in (path / "status" / "c").rglob("*") if file.is_file() and not file.suffix}


def torture(path: Path, expected: dict[str, bytes], seconds: float, chance: random.Random, counts: Counter[str]) -> None:
    """One store, killed again and again, and gone on with to the end."""
    before: dict[Path, int] = {}
    for _ in range(chance.randint(1, MOST_KILLS)):
        child = begin(path)
        time.sleep(chance.uniform(0.0, seconds))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        counts["kills"] += 1
        after = done(path)
        counts[
            "before the store was there" if not path.exists() else "while blocks were written" if len(after) < BLOCKS else "later"
        ] += 1
        counts["lost"] += len(before.items() - after.items())
        before = after
    if not ended_well(begin(path)):
        counts["stuck"] += 1
        return
    counts["lost"] += len(before.items() - done(path).items())
    found = contents(path)
    wrong = [name for name in {*found, *expected} if found.get(name) != expected.get(name)]
    wrong += [entry.name for entry in path.parent.iterdir() if entry != path]
    wrong += [] if '"finished"' in (path / "zarr.json").read_text() else ["finished"]
    counts["wrong"] += bool(wrong)
    if wrong:
        print(f"{path}: wrong: {', '.join(wrong)}", file=sys.stderr)


def undisturbed(path: Path) -> tuple[float, dict[str, bytes]]:
    """How long a run takes that nobody kills, and what its store holds."""
    begun = time.monotonic()
    if not ended_well(begin(path)):
        sys.exit("a run that nobody killed has failed")
    return time.monotonic() - begun, contents(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    chosen = parser.parse_args()
    warnings.filterwarnings("ignore", message=".*fork.*")  # JAX has not started any thread here
    jax.config.update("jax_platforms", "cpu")
    counts: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as folder:
        undisturbed(Path(folder) / "first" / "s.zarr")  # which reads much from the disk
        seconds, expected = undisturbed(Path(folder) / "second" / "s.zarr")
        for run in range(chosen.runs):
            torture(Path(folder) / str(run) / "s.zarr", expected, seconds, random.Random(f"{chosen.seed} {run}"), counts)
    print(f"`scripts/torture_store.py`: runs of {seconds:.1f} s, each killed 1 to {MOST_KILLS} times.\n")
    print(f"| runs | {' | '.join(COUNTED)} |\n" + "|---" * (1 + len(COUNTED)) + "|")
    print(f"| {chosen.runs} | {' | '.join(str(counts[name]) for name in COUNTED)} |")
    sys.exit(any(counts[name] for name in MUST_BE_NONE))


if __name__ == "__main__":
    main()

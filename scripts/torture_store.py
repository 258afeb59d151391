"""Kills runs at random moments, goes on with them until they are done, and compares their stores with those of undisturbed runs.

Every other time they are asked to stop first, and killed while they do.

    python scripts/torture_store.py [--runs N] [--seed N]

So many of each kind: runs that fill a store, shares that fill one together, extensions by games and by outputs, and retries. Games
are not solved but made up, so that nearly all of the time goes to what is tortured: the store. Prints how often what was done was
lost, came out wrong, or could not be gone on with: all of them must be 0.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import sys
import tempfile
import threading
import time
import warnings
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple
from unittest.mock import patch

import jax
import numpy as np

import mfg_jax as mfg
from sweeps import engine, extending, retrying, store
from sweeps.dataset import ATTEMPT, CONVERGED, STATUS, variables
from sweeps.place import identity
from sweeps.schema import Spec
from sweeps.share import ALL, share_named
from sweeps.solver import Solved, Solver
from sweeps.store import Store
from sweeps.sweep import Games

CONTENT: dict[str, Any] = {
    "model": {"coupling": "relative", "x_max": 2, "n_steps": 8},
    "parameters": {"k": 1.5, "eta": 0.01},
    "sweep": {"A": [1.0, 2.0, 3.0, 4.0, 5.0, 6.0], "gamma": [0.01, 0.02, 0.03, 0.04]},
    "outputs": {"paths": False},
}
GAMES_PER_BLOCK, GAMES_AT_ONCE = 4, 2
SECONDS_A_BATCH = 0.005
SECONDS_TO_STOP = 0.05
"""At most: then it is killed."""
MOST_KILLS = 4
SECONDS_UNTIL_STUCK = 300.0
ASKED = "asked to stop"
MUST_BE_NONE = ("lost", "wrong", "stuck")
COUNTED = ("kills", "before the store was there", "while it was filled", "later", *MUST_BE_NONE)


def make(**changes: Any) -> Spec:
    return Spec.model_validate(CONTENT | changes)


SPEC, IMPATIENT = make(), make(solver={"max_iterations": 6})
MORE_GAMES = make(sweep=CONTENT["sweep"] | {"gamma": [0.01, 0.015, 0.02, 0.03, 0.04]})
MORE_OUTPUTS = make(outputs={"paths": False, "gradients": ["mean_spread"]})


Command = Callable[[Path, threading.Event], object]
"""What a process does to a store, until it is asked to stop."""


def fill(spec: Spec, share: str | None = None) -> Command:
    """What `mfgsweep run` does."""
    return lambda path, stop: engine.run(spec, path, stop=stop, share=share_named(share) if share else ALL)


def extend(spec: Spec) -> Command:
    """What `mfgsweep extend` does."""

    def extend_and_fill(path: Path, stop: threading.Event) -> None:
        extending.extend(spec, path, stop)
        engine.run(spec, path, resume=True, stop=stop)

    return extend_and_fill


def retry(path: Path, stop: threading.Event) -> None:
    """What `mfgsweep run --retry failed` does."""
    retrying.retry(SPEC, path, retrying.FAILED, stop=stop)


class Kind(NamedTuple):
    """What is killed and gone on with."""

    commands: Sequence[Command]
    """Each of a process, side by side."""
    begun_with: Spec | None = None
    """Of the store that is there before, whole."""
    keeps_files: bool = False
    """Whether a block that is done is not written again."""
    keeps_games: bool = True
    """Whether a game that converged is never pending again."""


KINDS = {
    "run": Kind([fill(SPEC)], keeps_files=True),
    "shares": Kind([fill(SPEC, "1/2"), fill(SPEC, "2/2")], keeps_files=True),
    "more games": Kind([extend(MORE_GAMES)], SPEC),
    "more outputs": Kind([extend(MORE_OUTPUTS)], SPEC, keeps_games=False),
    "retry": Kind([retry], IMPATIENT),
}


def made_up(solver: Solver, games: Iterable[Games], stop: threading.Event) -> Generator[Solved]:
    """Results of games, from their parameters alone, as fast as they can be written. Hard games take a patient solver."""
    sizes = {v.name: [solver.sweep.labels().size(dim) for dim in v.dims] for v in variables(solver.spec)}
    for several in games:
        for first in range(0, several.points.size, GAMES_AT_ONCE):
            if stop.is_set():
                return
            some = several.some(slice(first, first + GAMES_AT_ONCE))
            time.sleep(SECONDS_A_BATCH)
            A, gamma = some.columns["A"], some.columns["gamma"]
            numbers = {name: np.sin(A + 100.0 * gamma) * len(name) for name in sizes}
            results = {name: np.multiply.outer(numbers[name], np.arange(1.0, np.prod(size) + 1)) for name, size in sizes.items()}
            results = {name: values.reshape(-1, *sizes[name]) for name, values in results.items()}
            easy = 100.0 * A * gamma < solver.spec.solver.max_iterations
            yield some, results | {STATUS.name: np.where(easy, mfg.Status.CONVERGED, mfg.Status.ITERATION_LIMIT)}


def begin(command: Command, path: Path) -> int:
    """Another process, which SIGTERM asks to stop; its number."""
    child = os.fork()
    if child:
        return child
    try:
        stop = threading.Event()
        signal.signal(signal.SIGTERM, lambda number, frame: stop.set())
        with (
            patch.object(store, "games_per_block", lambda points, largest: GAMES_PER_BLOCK),
            patch.object(engine, "solve", made_up),
        ):
            command(path, stop)
        os._exit(0)
    except engine.Interrupted:
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


def end_well(kind: Kind, path: Path) -> bool:
    """Runs its commands to their end."""
    return all([ended_well(child) for child in [begin(command, path) for command in kind.commands]])


def contents(path: Path) -> dict[str, bytes]:
    """All files of a store but those with times in them, or with numbers of attempts; in place of these, which games have one."""
    files = {str(file.relative_to(path)): file.read_bytes() for file in path.rglob("*") if file.is_file()}
    passing = ("blocks/seconds/c/", f"{ATTEMPT.name}/c/")
    found = {name: content for name, content in files.items() if name != "zarr.json" and not name.startswith(passing)}
    if (path / ATTEMPT.name).exists():
        found[ATTEMPT.name] = (Store(path).whole(ATTEMPT.name) > 0).tobytes()
    return found


def done(kind: Kind, path: Path) -> set[tuple[Any, ...]]:
    """What must not be lost: the games that converged, and the files by which blocks count as done, each with what tells it from
    one that was written later."""
    path = next((place for place in (path, path.with_name(f".{path.name}.replaced")) if place.exists()), path)
    if not path.exists():
        return set()
    target = Store(path)
    A, gamma = np.meshgrid(*(target.whole(name) for name in ("A", "gamma")), indexing="ij")
    converged = target.statuses() == CONVERGED
    games = set(zip(A[converged].tolist(), gamma[converged].tolist(), strict=True))
    files = (file for file, region in target.files(STATUS.name) if (target.statuses()[region] != 0).all())
    return {*games, *((file, identity(file)) for file in files if kind.keeps_files)}


def torture(
    kind: Kind, path: Path, before: Path | None, expected: Path, seconds: float, chance: random.Random, counts: Counter[str]
) -> None:
    """One store, killed again and again, and gone on with to the end."""
    if before is not None:
        shutil.copytree(before, path)
    at_end = len(done(kind, expected))
    kept = done(kind, path)
    for _ in range(chance.randint(1, MOST_KILLS)):
        children = [begin(command, path) for command in kind.commands]
        time.sleep(chance.uniform(0.0, seconds))
        if chance.random() < 0.5:
            for child in children:
                os.kill(child, signal.SIGTERM)
            time.sleep(chance.uniform(0.0, SECONDS_TO_STOP))
            counts[ASKED] += 1
        for child in children:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
        counts["kills"] += 1
        after = done(kind, path)
        counts[
            "before the store was there" if not path.exists() else "while it was filled" if len(after) < at_end else "later"
        ] += 1
        counts["lost"] += len(kept - after) if kind.keeps_games else 0
        kept = after
    if not end_well(kind, path):
        counts["stuck"] += 1
        return
    counts["lost"] += len(kept - done(kind, path))
    found, undisturbed = contents(path), contents(expected)
    wrong = [name for name in {*found, *undisturbed} if found.get(name) != undisturbed.get(name)]
    wrong += [entry.name for entry in path.parent.iterdir() if entry != path]
    wrong += [] if '"finished"' in (path / "zarr.json").read_text() else ["finished"]
    counts["wrong"] += bool(wrong)
    if wrong:
        print(f"{path}: wrong: {', '.join(wrong)}", file=sys.stderr)


def undisturbed(kind: Kind, path: Path, before: Path | None) -> float:
    """How long commands take that nobody kills."""
    if before is not None:
        shutil.copytree(before, path)
    begun = time.monotonic()
    if not end_well(kind, path):
        sys.exit(f"{path}: a run that nobody killed has failed")
    return time.monotonic() - begun


def torture_all(name: str, folder: Path, runs: int, seed: int) -> tuple[float, Counter[str]]:
    """So many stores of one kind; how long one takes undisturbed, and what happened."""
    kind, counts = KINDS[name], Counter[str]()
    before = None
    if (spec := kind.begun_with) is not None:
        before = folder / "before" / "s.zarr"
        undisturbed(Kind([fill(spec)]), before, None)
    expected = folder / "undisturbed" / "s.zarr"
    seconds = undisturbed(kind, expected, before)
    for run in range(runs):
        torture(kind, folder / str(run) / "s.zarr", before, expected, seconds, random.Random(f"{seed} {name} {run}"), counts)
    return seconds, counts


def print_counts(runs: int, columns: Sequence[str], counts: Counter[str]) -> None:
    print(f"| runs | {' | '.join(columns)} |\n" + "|---" * (1 + len(columns)) + "|")
    print(f"| {runs} | {' | '.join(str(counts[of]) for of in columns)} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    chosen = parser.parse_args()
    warnings.filterwarnings("ignore", message=".*fork.*")  # JAX has not started any thread here
    jax.config.update("jax_platforms", "cpu")
    print(f"`scripts/torture_store.py`: each killed 1 to {MOST_KILLS} times.\n")
    columns = (ASKED, *COUNTED)
    print(f"| what | runs | seconds | {' | '.join(columns)} |\n" + "|---" * (3 + len(columns)) + "|")
    failed = False
    with tempfile.TemporaryDirectory() as folder:
        undisturbed(KINDS["run"], Path(folder) / "first" / "s.zarr", None)  # which reads much from the disk
        for name in KINDS:
            seconds, counts = torture_all(name, Path(folder) / name, chosen.runs, chosen.seed)
            print(f"| {name} | {chosen.runs} | {seconds:.1f} | {' | '.join(str(counts[of]) for of in columns)} |", flush=True)
            failed |= any(counts[of] for of in MUST_BE_NONE)
    sys.exit(failed)


if __name__ == "__main__":
    main()

"""Runs whose disk is full at random moments, gone on with when there is room again, and compared with an undisturbed one.

    mount -t tmpfs -o size=3m tmpfs FOLDER; python scripts/torture_disk.py FOLDER [--runs N] [--seed N]

The folder must be empty and on a small file system of its own: all but a little of it is filled up meanwhile. Games are not solved
but made up, as in torture_store.py. Prints how often what was done was lost, came out wrong, or could not be gone on with.
"""

from __future__ import annotations

import argparse
import random
import shutil
import sys
from collections import Counter
from pathlib import Path
from unittest.mock import patch

import jax
import torture_store
from torture_store import KINDS, MUST_BE_NONE, SPEC, contents, done, print_counts

from sweeps import engine, runtime, store

LARGEST = 10_000_000
"""Bytes of a file system that is filled up: not those of others' work."""
PAGE = 4096
"""Bytes that a file takes at least."""
COUNTED = ("full", "of these while it was filled", *MUST_BE_NONE)


def torture(folder: Path, expected: Path, chance: random.Random, counts: Counter[str]) -> None:
    """One store, whose disk is full twice."""
    path, ballast, kept = folder / "s.zarr", folder / "ballast", set()
    most = PAGE * sum(file.is_file() for file in expected.rglob("*"))
    for room in sorted(chance.randrange(PAGE, most) for _ in range(2)):
        free = shutil.disk_usage(folder).free
        ballast.write_bytes(bytes(max(0, free - room)))
        try:
            engine.run(SPEC, path)
        except store.StoreError as error:
            counts["full"] += "the disk is full" in str(error)
            counts["of these while it was filled"] += path.exists()
        ballast.unlink()
        counts["lost"] += len(kept - done(KINDS["run"], path))
        kept = done(KINDS["run"], path)
    try:
        engine.run(SPEC, path)
    except store.StoreError as error:
        print(error, file=sys.stderr)
        counts["stuck"] += 1
    counts["lost"] += len(kept - done(KINDS["run"], path))
    counts["wrong"] += contents(path) != contents(expected)
    shutil.rmtree(path)
    counts["wrong"] += any(folder.iterdir())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--runs", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    chosen = parser.parse_args()
    folder: Path = chosen.folder
    if any(folder.iterdir()) or shutil.disk_usage(folder).total > LARGEST:
        sys.exit(f"{folder}: must be empty, and on a file system of at most {runtime.readable(LARGEST)}")
    jax.config.update("jax_platforms", "cpu")
    counts = Counter[str]()
    with (
        patch.object(store, "games_per_block", lambda points, largest: torture_store.GAMES_PER_BLOCK),
        patch.object(engine, "solve", torture_store.made_up),
        patch.object(engine, "check_disk", lambda *arguments, **options: None),  # which would not let it come to that
    ):
        expected = folder.with_name(f"{folder.name}-undisturbed") / "s.zarr"
        shutil.rmtree(expected.parent, ignore_errors=True)
        engine.run(SPEC, expected)
        for run in range(chosen.runs):
            torture(folder, expected, random.Random(f"{chosen.seed} {run}"), counts)
        shutil.rmtree(expected.parent)
    print(f"`scripts/torture_disk.py`: {runtime.readable(shutil.disk_usage(folder).total)}, full up to twice in each run.\n")
    print_counts(chosen.runs, COUNTED, counts)
    sys.exit(any(counts[of] for of in MUST_BE_NONE))


if __name__ == "__main__":
    main()

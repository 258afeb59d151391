"""Kills runs at random moments that fill stores in a bucket, goes on with them, and compares these with one on a disk.

    python scripts/torture_s3.py [--runs N] [--seed N]

The bucket is on a server on loopback, of whose answers 5 % are errors or closed connections. Otherwise as `torture_store.py`.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import boto3
import jax

from scripts import s3_server
from scripts.torture_store import (
    COUNTED,
    KINDS,
    MOST_KILLS,
    MUST_BE_NONE,
    SPEC,
    begin,
    contents,
    ended_well,
    print_counts,
    undisturbed,
)
from sweeps import engine
from sweeps.place import place

FAILURES = 0.05
BUCKET = "torture"
WITH_TIMES = ("zarr.json", "blocks/seconds/c/")


class Bucket:
    """What is in the server's bucket, looked at by another client than that of what is tortured."""

    def __init__(self, address: str) -> None:
        self._client: Any = boto3.client("s3", endpoint_url=address)

    def names(self, beginning: str) -> dict[str, object]:
        """Of all objects, each with what tells it from one that was put later."""
        pages = self._client.get_paginator("list_objects_v2").paginate(Bucket=BUCKET, Prefix=beginning)
        return {about["Key"].removeprefix(beginning): about["LastModified"] for page in pages for about in page.get("Contents", [])}

    def read(self, name: str) -> bytes:
        return self._client.get_object(Bucket=BUCKET, Key=name)["Body"].read()


@contextmanager
def failing_server() -> Generator[str]:
    """The address of one that has a bucket; to be talked to from the environment of this process."""
    command = [sys.executable, s3_server.__file__, "--failures", str(FAILURES)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout
        address = server.stdout.readline().strip()
        os.environ.update(s3_server.SETTINGS | {"AWS_ENDPOINT_URL": address})
        try:
            s3_server.make_bucket(address, BUCKET)
            yield address
        finally:
            server.kill()


def begin_in_bucket(name: str) -> int:
    """Another process; its number. Nothing here may use obstore before, whose threads it would lack."""
    address = f"s3://{BUCKET}/{name}/s.zarr"
    return begin(lambda _, stop: engine.run(SPEC, place(address), stop=stop), Path(name))


def torture(
    bucket: Bucket, name: str, expected: dict[str, bytes], seconds: float, chance: random.Random, counts: Counter[str]
) -> None:
    """One store, killed again and again, and gone on with to the end."""
    blocks = sum(of.startswith("status/c/") for of in expected)
    kept: dict[str, object] = {}
    for _ in range(chance.randint(1, MOST_KILLS)):
        child = begin_in_bucket(name)
        time.sleep(chance.uniform(0.0, seconds))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        counts["kills"] += 1
        done = bucket.names(f"{name}/s.zarr/status/c/")
        there = "zarr.json" in bucket.names(f"{name}/s.zarr/")
        counts["before the store was there" if not there else "while it was filled" if len(done) < blocks else "later"] += 1
        counts["lost"] += len(kept.items() - done.items())
        kept = done
    if not ended_well(begin_in_bucket(name)):
        counts["stuck"] += 1
        return
    counts["lost"] += len(kept.items() - bucket.names(f"{name}/s.zarr/status/c/").items())
    names = [of for of in bucket.names(f"{name}/s.zarr/") if not of.startswith(WITH_TIMES)]
    found = {of: bucket.read(f"{name}/s.zarr/{of}") for of in names}
    wrong = [of for of in {*found, *expected} if found.get(of) != expected.get(of)]
    wrong += [of for of in bucket.names(f"{name}/") if not of.startswith("s.zarr/")]
    wrong += [] if b'"finished"' in bucket.read(f"{name}/s.zarr/zarr.json") else ["finished"]
    counts["wrong"] += bool(wrong)
    if wrong:
        print(f"{name}: wrong: {', '.join(wrong)}", file=sys.stderr)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    chosen = parser.parse_args()
    warnings.filterwarnings("ignore", message=".*fork.*")  # neither JAX nor obstore has started any thread here
    jax.config.update("jax_platforms", "cpu")
    counts = Counter[str]()
    with tempfile.TemporaryDirectory() as folder, failing_server() as address:
        on_disk = Path(folder) / "s.zarr"
        undisturbed(KINDS["run"], on_disk, None)
        expected, bucket = contents(on_disk), Bucket(address)
        begun = time.monotonic()
        if not ended_well(begin_in_bucket("undisturbed")):
            sys.exit("a run that nobody killed has failed")
        seconds = time.monotonic() - begun
        for run in range(chosen.runs):
            torture(bucket, str(run), expected, seconds, random.Random(f"{chosen.seed} {run}"), counts)
    print(f"`scripts/torture_s3.py`: runs of {seconds:.1f} s, each killed 1 to {MOST_KILLS} times.\n")
    print_counts(chosen.runs, COUNTED, counts)
    sys.exit(any(counts[of] for of in MUST_BE_NONE))


if __name__ == "__main__":
    main()

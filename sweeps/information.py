"""What is in a store, in words."""

from __future__ import annotations

from typing import Any

import numpy as np

from sweeps.dataset import ATTEMPT, STATUSES
from sweeps.place import Place
from sweeps.runtime import duration
from sweeps.store import Store, open_existing


def lines(path: Place) -> list[str]:
    """Dims, progress, statuses and provenance, a line an item.

    Raises:
        StoreError: there is no store of mfgsweep at `path`.
    """
    store = open_existing(path)
    about = store.attributes
    counts = np.bincount(store.statuses().ravel(), minlength=len(STATUSES))
    done = int(counts[1:].sum())
    total = int(counts.sum())
    spec = about["spec"]
    sweep = ", ".join(f"{name} ({_extent(axis)})" for name, axis in spec["sweep"].items())
    versions = ", ".join(f"{name} {number}" for name, number in about["versions"].items())
    return [
        f"store       {path}",
        f"sweep       {sweep}; sampling {spec['sampling']}",
        *([f"where       {'; '.join(spec['where'])}: left {total} of {about['candidates']} points"] if "where" in spec else []),
        f"model       {', '.join(f'{key} {value}' for key, value in spec['model'].items())}",
        f"parameters  {', '.join(f'{key} {value}' for key, value in spec['parameters'].items())}",
        f"progress    {done} of {total} games ({100 * done / total:.1f} %)",
        *(f"status      {n} {name.replace('_', ' ')}" for name, n in zip(STATUSES, counts, strict=True) if n),
        f"spec hash   {about['spec_hash']}",
        f"batch       {about['batch']} games",
        f"started     {about['started']}",
        f"finished    {(done == total and about.get('finished')) or 'not yet: run the same command again to go on'}",
        *_time_of_blocks(store),
        *map(_extended, about.get("extended", [])),
        *(_retried(entry, _mended(store, number)) for number, entry in enumerate(about.get("retries", []), 1)),
        f"device      {about['device']}",
        f"solved in   {'float64' if about.get('x64', True) else 'float32'}",
        f"versions    {versions}",
        f"revision    {about['git_revision']}{', with changes' if about.get('git_dirty') else ''}",
        f"source      {about.get('source_digest', 'of unknown digest')}",
    ]


def _time_of_blocks(store: Store) -> list[str]:
    seconds = store.seconds()
    if not seconds.size:
        return []
    mean, longest = duration(seconds.mean()), duration(seconds.max())
    return [f"time        {duration(seconds.sum())} for {seconds.size} blocks, {mean} on average, {longest} at most"]


def _extended(entry: dict[str, Any]) -> str:
    took = f", whose blocks took {duration(entry['seconds'])}" if "seconds" in entry else ""
    again = ", and solved again for more outputs" if entry["kept"] else ""
    return f"extended    {entry['extended']}: {entry['games']} games taken over{took}{again}"


def _mended(store: Store, number: int) -> int:
    """Games whose results are of that attempt; what its entry says may be from before it was killed."""
    return int(((store.whole(ATTEMPT.name) == number) & (store.statuses() != 0)).sum()) if ATTEMPT.name in store.names else 0


def _retried(entry: dict[str, Any], mended: int) -> str:
    solver = ", ".join(f"{key} {value}" for key, value in entry["solver"].items())
    return f"retried     {entry['started']}: {entry['games']} games with {solver}; {mended} mended"


def _extent(axis: list[Any] | dict[str, Any]) -> str:
    """Of an axis in a stored spec: how many values, or rows of a table, or the span they are drawn from."""
    if isinstance(axis, list):
        return str(len(axis))
    return f"{axis['rows']} rows" if "rows" in axis else f"{axis['first']} to {axis['last']}"

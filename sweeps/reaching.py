"""For every game of a grid, the least of one parameter that brings a metric to a target: a trade-off curve over what is swept."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import mfg_jax as mfg
from sweeps import markdown
from sweeps.constraints import Constraint
from sweeps.schema import NUMBERS
from sweeps.spec import Spec
from sweeps.sweep import Sweep


class Target(NamedTuple):
    """What is to be reached, and by which parameter: arguments of `mfg_jax.reach`."""

    vary: str
    bounds: tuple[float, float]
    metric: str
    at_least: float | None
    at_most: float | None


class Row(NamedTuple):
    """One game of the grid."""

    point: dict[str, Any]
    """Its swept values."""
    found: mfg.Reach


def reach_all(spec: Spec, target: Target) -> Iterator[Row]:
    """One game after the other.

    Raises:
        ValueError: a target that cannot be, or a parameter to vary that is swept.
    """
    sweep = Sweep(spec)
    if target.vary in sweep.design.coords:
        raise ValueError(f"{target.vary} is swept; to vary it, take it out of `sweep` and give it any value under `parameters`")
    if constrained := [text for text in spec.where if target.vary in Constraint(text, NUMBERS).names]:
        raise ValueError(f"{target.vary} is varied, so `{constrained[0]}` cannot choose points by it; take it out of `where`")
    for i in range(len(sweep.design)):
        point = {name: values[0].item() for name, values in sweep.design.columns(i, i + 1).items()}
        kind = [str(point.get(name, getattr(spec.model, name))) for name in ("coupling", "boundary")]
        numbers = {name: value for name, value in point.items() if name not in ("coupling", "boundary")}
        parameters = mfg.Parameters(**{"A": None, "k": None, **spec.parameters, **numbers})
        found = mfg.reach(sweep.model(*kind), parameters, *target, derisk_band=spec.metrics.derisk_band)
        yield Row(point, found)


def header(spec: Spec, target: Target) -> list[str]:
    return [*spec.axes, target.vary, target.metric, "reached"]


def cells(row: Row) -> list[str]:
    swept = [f"{value:.6g}" if isinstance(value, float) else str(value) for value in row.point.values()]
    missing = f", {row.found.unsolved} games between the bounds without an equilibrium" if row.found.unsolved else ""
    said = ("yes" if row.found.reached else "no, this is the best") + missing
    return [*swept, f"{row.found.value:.6g}", f"{row.found.metric:.6g}", said]


def table(spec: Spec, target: Target, rows: Sequence[Row]) -> str:
    """In Markdown."""
    return markdown.table(header(spec, target), map(cells, rows))


def written(path: Path, spec: Spec, target: Target, rows: Iterable[Row]) -> Iterator[Row]:
    """The rows, each in the CSV file with all digits before the next is sought.

    Raises:
        OSError: the file cannot be written.
    """
    first = next(iterator := iter(rows))  # what cannot be reached for leaves no file
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow([*header(spec, target), "unsolved"])
        for row in chain([first], iterator):
            point, found = row
            writer.writerow([*point.values(), repr(found.value), repr(found.metric), found.reached, found.unsolved])
            file.flush()
            yield row

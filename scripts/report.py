"""What a benchmark prints and keeps: its tables, with the day, the machine and the versions that they were measured with."""

from __future__ import annotations

import argparse
import json
import platform
from collections.abc import Iterable, Mapping
from datetime import date
from importlib.metadata import version
from pathlib import Path

from sweeps import runtime
from sweeps.markdown import table as markdown

Row = dict[str, str | int | float | None]


def options(description: str | None, short: str) -> argparse.Namespace:
    """What every benchmark is asked: `short`, what it does to see that it runs, and `output`."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--short", action="store_true", help=f"{short}, to see that it runs")
    parser.add_argument("--output", type=Path, help="folder for the tables, in Markdown and JSON")
    return parser.parse_args()


def report(name: str, tables: Mapping[str, Iterable[Row]], output: Path | None, packages: tuple[str, ...] = ()) -> None:
    """Prints each table of scripts/`name`.py as soon as it is measured; then writes them all as `name`.md and `name`.json.

    `packages`: those measured besides JAX and NumPy, whose versions matter.
    """
    machine = _machine(packages)
    text = f"`scripts/{name}.py`: " + ", ".join(f"{what} {which}" for what, which in machine.items()) + "."
    print(text, flush=True)
    measured = {}
    for title, rows in tables.items():
        measured[title] = list(rows)
        section = f"\n## {title}\n\n{table(measured[title])}"
        print(section, flush=True)
        text += "\n" + section
    if output:
        (output / f"{name}.md").write_text(text + "\n")
        (output / f"{name}.json").write_text(json.dumps({"machine": machine, "tables": measured}, indent=1) + "\n")


def table(rows: list[Row]) -> str:
    """In Markdown, numbers to three digits."""
    names = list(rows[0])
    return markdown(names, [[_cell(row[name]) for name in names] for row in rows])


def _cell(value: str | int | float | None) -> str:
    return "–" if value is None else f"{value:.3g}" if isinstance(value, float) else str(value)


def _machine(packages: tuple[str, ...]) -> dict[str, str]:
    import jax

    return {
        "date": str(date.today()),
        "device": f"{jax.default_backend()} {runtime.device_name()}",
        "cores": str(runtime.core_count()),
        "Python": platform.python_version(),
        **{package: version(package) for package in ("jax", "numpy", *packages)},
    }

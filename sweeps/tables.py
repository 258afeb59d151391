"""A file that lists the games of a sweep, a row each, as columns."""

from __future__ import annotations

import csv
import sys
from pathlib import Path
from typing import Any

import numpy as np

from sweeps.kinds import Column
from sweeps.problems import brief, did_you_mean, nearest
from sweeps.schema import KEYS

Cells = list[list[Any]]
"""Of each column its cells: a float where one is written, else the text; None where there is nothing."""
NAMED_AT_MOST = 5


class TableError(ValueError):
    """A table that cannot be used; the message says where and why."""


def read(path: Path) -> dict[str, Column]:
    """The columns of the table at `path`, which ends in .csv or .parquet. What their cells are is not yet checked.

    Raises:
        TableError: no such file, or no table; a column twice, or of no parameter; rows of another length; no rows.
    """
    try:
        match path.suffix:
            case ".csv":
                names, cells = _csv(path)
            case ".parquet":
                names, cells = _parquet(path)
            case ending:
                raise TableError(f"{path}: found the ending {ending!r}; allowed: .csv, .parquet")
    except TableError:
        raise
    except FileNotFoundError:
        raise TableError(f"{path}: no such file; allowed: a CSV or Parquet file beside the grid file, a row a game") from None
    except ImportError:
        install = f"{sys.executable} -m pip install 'mfg-jax[export]'"
        raise TableError(f"{path}: needs pyarrow; install it with: {install}") from None
    except UnicodeDecodeError as error:
        raise TableError(f"{path}: found the byte {error.object[error.start]:#04x}, not UTF-8; allowed: text in UTF-8") from None
    except (OSError, ValueError, NotImplementedError, csv.Error) as error:
        raise TableError(f"{path}: cannot be read: {brief(str(error))}") from None
    if not cells[0]:
        raise TableError(f"{path}: found no rows; allowed: a row a game")
    return {name: _column(column, path.name) for name, column in zip(names, cells, strict=True)}


def _csv(path: Path) -> tuple[list[str], Cells]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        rows = csv.reader(file, strict=True, skipinitialspace=True)
        names = next(rows, [])
        _check_names(path, names)
        cells: Cells = [[] for _ in names]
        uneven: list[tuple[int, int]] = []
        for number, row in enumerate(filter(None, rows), 1):
            if len(row) != len(names):
                uneven.append((number, len(row)))
                continue
            for column, text in zip(cells, row, strict=True):
                column.append(_cell(text))
    if uneven:
        number, length = uneven[0]
        more = f" (and {len(uneven) - 1} more)" if len(uneven) > 1 else ""
        raise TableError(f"{path}: row {number}{more}: found {length} cells; allowed: {len(names)}, one for each column")
    return names, cells


def _cell(text: str) -> float | str | None:
    try:
        return float(text.replace(".inf", "inf"))  # as in YAML
    except ValueError:
        return text or None


def _parquet(path: Path) -> tuple[list[str], Cells]:
    from pyarrow import parquet

    names = parquet.read_schema(path).names
    _check_names(path, names)
    return names, [column.to_pylist() for column in parquet.read_table(path).columns]


def _check_names(path: Path, names: list[str]) -> None:
    known = KEYS["table"]
    if not names:
        raise TableError(f"{path}: found nothing; allowed: a first row of names among {', '.join(known)}")
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise TableError(f"{path}: found the column {brief(twice)} twice; allowed: once")
    if unknown := [name for name in names if name not in known]:
        listed = ", ".join(brief(repr(name)) for name in unknown[:NAMED_AT_MOST])
        more = f" and {len(unknown) - NAMED_AT_MOST} more" if len(unknown) > NAMED_AT_MOST else ""
        near = did_you_mean(nearest(unknown[0], known))
        raise TableError(f"{path}: found the columns {listed}{more}; allowed: {', '.join(known)}{near}")


def _column(cells: list[Any], file: str) -> Column:
    numbers = all(type(cell) in (int, float) for cell in cells)
    return Column(np.fromiter(cells, float if numbers else object, len(cells)), file)

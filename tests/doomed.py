"""Loaded by the workers of tests: games are made up, some kill whoever solves them, and some deaths come once.

MFGSWEEP_TEST_DOOM holds as JSON `folder`, where deaths that have come are noted; `poison`, the points of games that always kill;
and `once`, for each moment at which a worker dies once, the point of a game that it has then.
"""

import itertools
import json
import os
import signal
import threading
from collections.abc import Generator, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from sweeps import engine, worker
from sweeps.solver import Solved, Solver
from sweeps.store import Block, Store
from sweeps.sweep import Games
from tests.made_up import results_of

VARIABLE = "MFGSWEEP_TEST_DOOM"


def dask_setup(of: object) -> None:
    del of
    engine.solve = solve
    Store.write = write
    worker.solve_games = solve_games


def solve(solver: Solver, games: Iterable[Games], stop: threading.Event) -> Generator[Solved]:
    for several in itertools.takewhile(lambda _: not stop.is_set(), games):
        if np.isin(several.points, _doom()["poison"]).any():
            os.kill(os.getpid(), signal.SIGKILL)
        _perhaps_die("solving", several.points)
        columns = {name: values.tolist() for name, values in several.columns.items()}
        each = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
        yield several, results_of(solver, each)


_write, _solve_games = Store.write, worker.solve_games


def write(self: Store, block: Block, results: Mapping[str, np.ndarray], seconds: float | None = None) -> None:
    points = np.arange(block.start, block.stop)
    if _is_due("writing", points):
        _write(self, block, {name: values for name, values in results.items() if name != "status"})
        _perhaps_die("writing", points)
    _write(self, block, results, seconds)


def solve_games(work: worker.Work, block: Block, first: int, last: int) -> worker.Done | None:
    done = _solve_games(work, block, first, last)
    _perhaps_die("reporting", block.start + np.arange(first, last + 1))
    return done


def _doom() -> dict[str, Any]:
    return json.loads(os.environ[VARIABLE])


def _is_due(moment: str, points: np.ndarray) -> bool:
    doom = _doom()
    return doom["once"].get(moment) in points.tolist() and not Path(doom["folder"], moment).exists()


def _perhaps_die(moment: str, points: np.ndarray) -> None:
    if _is_due(moment, points):
        Path(_doom()["folder"], moment).touch()
        os.kill(os.getpid(), signal.SIGKILL)

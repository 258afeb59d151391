"""How games are handed out to the cores of a CPU. Nothing is solved here: games take the time that their `A` says."""

import threading
import time
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from sweeps import one_by_one
from sweeps.solver import Results
from sweeps.sweep import Games

BATCH = 8


@pytest.fixture
def handed_out(monkeypatch: pytest.MonkeyPatch) -> list[list[int]]:
    """The batches that were solved, as the points of their games."""
    monkeypatch.setattr(one_by_one, "SECONDS_A_BATCH", 0.1)
    return []


def solver(handed_out: list[list[int]], workers: int = 1) -> Any:
    def solve(games: Games) -> Results:
        handed_out.append(games.points.tolist())
        time.sleep(games.columns["A"].sum())
        return {"status": np.ones(games.points.size)}

    return SimpleNamespace(batch=BATCH, solve=solve, sweep=SimpleNamespace(worker_count=lambda: workers))


def games(seconds: list[float]) -> Games:
    return Games(np.arange(len(seconds)), ("none", "reflecting"), {"A": np.array(seconds)})


def several(count: int) -> Iterator[Games]:
    for _ in range(count):
        yield games([0.001] * 5)


def test_easy_games_come_in_full_batches_and_hard_ones_in_small_ones(handed_out: list[list[int]]):
    some = games([1e-5] * 40 + [0.04] * 20)
    solved = list(one_by_one.solve_one_by_one(solver(handed_out), [some], threading.Event()))
    assert [point for batch in handed_out for point in batch] == list(range(60))
    assert [batch.points.tolist() for batch, _ in solved] == handed_out  # of one core
    sizes = [len(batch) for batch in handed_out]
    assert max(sizes) == BATCH
    assert all(size <= 3 for size in sizes[-4:])


def test_all_games_of_many_kinds_on_many_cores(handed_out: list[list[int]]):
    solved = list(one_by_one.solve_one_by_one(solver(handed_out, workers=4), several(50), threading.Event()))
    assert sorted(point for batch, _ in solved for point in batch.points) == sorted([*range(5)] * 50)
    assert list(one_by_one.solve_one_by_one(solver(handed_out), [], threading.Event())) == []


def test_a_hard_game_holds_nobody(handed_out: list[list[int]], monkeypatch: pytest.MonkeyPatch):
    """All others are done while one core is at it."""
    monkeypatch.setattr(one_by_one, "RESULTS_AHEAD", 2)
    some = games([0.5] + [0.01] * 30)
    solved = [batch.points.tolist() for batch, _ in one_by_one.solve_one_by_one(solver(handed_out, 2), [some], threading.Event())]
    assert sorted(point for batch in solved for point in batch) == list(range(31))
    assert solved[-1][0] == 0


def test_what_was_begun_when_it_is_stopped_is_handed_over(handed_out: list[list[int]]):
    stop = threading.Event()
    solved = 0
    for batch, _ in one_by_one.solve_one_by_one(solver(handed_out, workers=2), several(1000), stop):
        solved += batch.points.size
        stop.set()
    assert 0 < solved == sum(map(len, handed_out)) < 5000


def test_a_solver_that_fails(handed_out: list[list[int]]):
    failing = solver(handed_out)
    failing.solve = lambda games: games.columns["no such column"]
    with pytest.raises(KeyError, match="no such column"):
        list(one_by_one.solve_one_by_one(failing, several(3), threading.Event()))

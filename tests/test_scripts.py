"""The scripts that measure and draw run, in their short forms."""

import itertools
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.browser import CHROMIUM

SCRIPTS = Path(__file__).parent.parent / "scripts"


def rows(script: str, *options: str) -> list[list[str]]:
    """The cells of the rows of the tables that a script prints, headers left out."""
    command = [sys.executable, str(SCRIPTS / script), *options]
    quickly = {**os.environ, "JAX_DISABLE_MOST_OPTIMIZATIONS": "true"}  # compiling takes most of the time of a short form
    printed = subprocess.run(command, check=True, capture_output=True, text=True, env=quickly).stdout.splitlines()
    table = [line for line in printed if line.startswith("|")]
    rules = [i for i, line in enumerate(table) if not line.strip("|- ")]
    headers = {i - 1 for i in rules} | set(rules)
    return [[cell.strip() for cell in line.strip("|").split("|")] for i, line in enumerate(table) if i not in headers]


def test_the_benchmark_of_speed_measures_the_engine_and_its_peers(tmp_path: Path) -> None:
    *programs, by_kind, sweep = rows("bench.py", "--short", "--output", str(tmp_path))
    assert programs[0][0] == "mfg-jax"
    assert {row[0] for row in programs} >= {"mfg-jax", "numba", "NumPy, batched"}
    for *_, difference in programs[1:]:
        assert float(difference) < 1e-9
    assert by_kind[0] == "mild"
    assert by_kind[2] == by_kind[4] == "4"
    assert all(float(cell) > 0 for cell in [*programs[0][1:-1], *by_kind[1:5], *sweep])
    tables = json.loads((tmp_path / "bench.json").read_text())["tables"]
    assert [len(table) for table in tables.values()] == [len(programs), 1, 1]


def test_the_benchmark_of_lanes_measures_every_scheme_and_precision() -> None:
    agreement, *lanes = rows("bench_gpu.py", "--short")
    assert float(agreement[0]) <= float(agreement[1])
    expected = itertools.product(("euler", "rk4"), ("float64", "float32"))
    assert [tuple(row[:2]) for row in lanes] == list(expected)
    for _, precision, _, *speeds, idle, difference in lanes:
        assert all(float(cell) > 0 for cell in speeds)
        assert 0 <= float(idle) < 0.2
        assert (float(difference) == 0) == (precision == "float64")
        assert float(difference) < 1e-3


def test_the_benchmark_of_scaling_measures_every_size_and_every_tenth() -> None:
    measured = rows("bench_scaling.py", "--short")
    growth, tenths = ([row for row in measured if row[0].isdigit() == of_run] for of_run in (False, True))
    assert [row[0] for row in growth] == ["n_x", "n_t", "games", "games", *["cores"] * (len(growth) - 4)]
    assert all(float(row[2]) > 0 for row in growth)
    assert tenths
    assert tenths[-1][0] == "1000"
    assert all(float(cell) > 0 for row in tenths for cell in row)


def test_the_work_precision_benchmark_measures_every_candidate() -> None:
    *measured, against_euler = rows("bench_work_precision.py", "--short")
    assert len(measured) == 6
    assert against_euler[0] == "mild"
    assert float(against_euler[-1]) > 100
    for _, _, n_steps, milliseconds, error in measured:
        assert n_steps == "48"
        assert float(milliseconds) > 0
        assert 0 < float(error) < 0.1


def test_the_benchmark_of_gradients_measures_every_column() -> None:
    by_game, in_a_batch = rows("bench_gradients.py", "--short")
    assert by_game[0] == in_a_batch[0] == "2"
    assert all(float(cell) > 0 for cell in [*by_game, *in_a_batch[2:]])


def test_the_check_of_coverage_judges_every_interval() -> None:
    checked = rows("check_coverage.py", "--samples", "2")
    assert len(checked) == 11
    assert all(0 <= float(row[-1].rstrip("%")) <= 100 for row in checked)


def test_the_benchmark_of_hard_games_tells_of_every_method() -> None:
    methods = {row[0]: row[1] for row in rows("bench_hard.py", "--every", "5000")}
    assert list(methods) == ["default", "Anderson, cold", "Picard, damped by half", "Picard"]
    assert methods["default"] == "100.0%"


def test_the_check_of_branches_counts_every_game() -> None:
    counts = rows("check_branch.py", "--games", "4")
    assert sum(int(row[1]) for row in counts) == 4
    assert all(int(row[3]) == 0 for row in counts[:3])


@pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium here: apt-get install chromium")
def test_the_benchmark_of_the_viewer_measures_moves_and_opening() -> None:
    answers, redraws, opening = rows("bench_viewer.py", "--short")
    assert [answers[0], redraws[0]] == ["request to answer", "slider to redraw"]
    assert 0 < float(answers[2]) < float(redraws[2])
    assert opening[0] == "64"
    assert all(float(cell) > 0 for cell in opening[1:])


def test_runs_that_are_killed_lose_nothing() -> None:
    found = rows("torture_store.py", "--runs", "1")
    assert [kind for kind, *_ in found] == ["run", "shares", "more games", "more outputs", "retry"]
    for _, runs, _, _, kills, *moments, lost, wrong, stuck in found:
        assert (runs, lost, wrong, stuck) == ("1", "0", "0", "0")
        assert int(kills) == sum(map(int, moments)) >= 1


def test_runs_into_a_bucket_that_are_killed_lose_nothing() -> None:
    ((runs, kills, *moments, lost, wrong, stuck),) = rows("torture_s3.py", "--runs", "1")
    assert (runs, lost, wrong, stuck) == ("1", "0", "0", "0")
    assert int(kills) == sum(map(int, moments)) >= 1


def test_the_benchmark_of_the_store_fills_and_reads_one() -> None:
    *filled, (files, *read) = rows("bench_store.py", "--short")
    assert filled[-1][0] == "1000"
    assert all(float(cell) > 0 for row in filled for cell in row)
    assert 10 < int(files) < 2_000
    assert all(float(cell) > 0 for cell in read)

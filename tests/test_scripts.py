"""The scripts that measure and draw run, in their short forms."""

import subprocess
import sys
from pathlib import Path

SCRIPTS = Path(__file__).parent.parent / "scripts"


def run(*command: str | Path) -> str:
    return subprocess.run([sys.executable, *map(str, command)], check=True, capture_output=True, text=True).stdout


def test_the_solver_benchmark_prints_a_table_of_numbers() -> None:
    rows = [line for line in run(SCRIPTS / "bench_solver.py", "--short").splitlines() if line.startswith("| relative")]
    assert len(rows) == 1
    assert all(float(cell) > 0 for cell in rows[0].strip("| ").split("|")[1:])

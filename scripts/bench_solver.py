"""Speed of one core: the library against plain NumPy on the same `euler` scheme, and the default scheme, as a table.

    python scripts/bench_solver.py [--short] [--output FILE.md]

Each row solves `batch` mild games with skewed crowds. Left, a fixed number of Picard sweeps of the `euler` scheme, by the library
and by the NumPy program that the tests use as its oracle (one game at a time, and batched): nanoseconds per state-step, that is per
inventory, time step and sweep, backward and forward together. Right, the library's default (`rk4`, Anderson) to its tolerance.
Medians of three, or one run where it takes seconds; on a shared machine only the ratios within one run mean something.
"""

from __future__ import annotations

import argparse
import itertools
import platform
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from datetime import date
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

from sweeps import runtime

runtime.configure()

import jax  # noqa: E402
import numpy as np  # noqa: E402
import oracle  # noqa: E402  # pyright: ignore[reportMissingImports]

import mfg_jax as mfg  # noqa: E402

SWEEPS = 10
LONG = 3.0
N_STEPS = 100
COUPLINGS = ("relative", "elastic", "market_share", "none")
HEADER = (
    "| coupling | n_x | batch | euler ns | NumPy batched ns | NumPy per game ns | ratio to batched | ratio to per game "
    "| rk4 games/s | rk4 ns | sweeps |\n|---|---|---|---|---|---|---|---|---|---|---|"
)


def games(batch: int) -> dict[str, np.ndarray]:
    """Mild games with skewed crowds."""
    spread = np.linspace(0.0, 1.0, batch)
    constants = {"A": 10.0, "k": 1.5, "k0": 0.5, "n_makers": 5.0, "eta": 0.01, "crowd_std": 2.0, "horizon": 1.0}
    bounds = {"quote_min": 0.0, "quote_max": 5.0}
    fixed = {name: np.full(batch, value) for name, value in {**constants, **bounds}.items()}
    return {**fixed, "gamma": 0.02 + 0.04 * spread, "crowd_mean": 0.5 + spread}


def seconds(run: Callable[[], Any]) -> float:
    begun = time.perf_counter()
    run()
    return time.perf_counter() - begun


def median_seconds(run: Callable[[], Any]) -> float:
    """The median of three runs after a first one; a run of seconds is timed once."""
    first = seconds(run)
    return first if first > LONG else statistics.median(seconds(run) for _ in range(3))


def library_seconds(model: mfg.Model, batch: int) -> tuple[float, float]:
    """Seconds for the batch, and sweeps per game. Game after game on a CPU, as the engine does; all at once on a GPU."""

    def solve(parameters: mfg.Parameters) -> tuple[jax.Array, jax.Array]:
        equilibrium = mfg.solve(model, parameters, select="cold")
        return equilibrium.iterations, mfg.metrics(model, parameters, equilibrium).mean_spread

    one_core = jax.default_backend() == "cpu"
    parameters = mfg.Parameters(**games(batch))
    program = jax.jit((lambda p: jax.lax.map(solve, p)) if one_core else jax.vmap(solve)).lower(parameters).compile()
    elapsed = median_seconds(lambda: jax.block_until_ready(program(parameters)))
    return elapsed, float(np.mean(program(parameters)[0])) + 1.0  # the last one takes the solution's own quotes and density


def numpy_game(coupling: str, x_max: int, numbers: dict[str, Any]) -> oracle.Game:
    A, k = numbers["A"], numbers["k"]
    own = {name: numbers[name] for name in ("k0", "n_makers", "eta", "gamma", "quote_min", "quote_max")}
    time_grid = mfg.Model(n_steps=N_STEPS, scheme="euler").time_fractions
    shaped = time_grid if np.ndim(A) == 0 else np.repeat(time_grid[:, None], np.size(A), axis=1)
    return oracle.Game(
        coupling=coupling,
        boundary="reflecting",
        time=shaped,
        initial_density=oracle.normal_crowd(x_max, numbers["crowd_mean"], numbers["crowd_std"]),
        A_ask=A,
        A_bid=A,
        k_ask=k,
        k_bid=k,
        **own,
    )


def numpy_seconds(game: oracle.Game) -> float:
    """Seconds for one sweep."""
    crowd = np.zeros(game.time.shape) + 1.0 / game.k_ask
    return median_seconds(lambda: oracle.best_reply(game, crowd, crowd))


def rows(short: bool) -> Iterator[str]:
    couplings, sizes, batches = (("relative",), (3,), (4,)) if short else (COUPLINGS, (10, 20, 50), (1, 64, 1024))
    for coupling, x_max in itertools.product(couplings, sizes):
        one = {name: float(values[0]) for name, values in games(1).items()}
        one_by_one = numpy_seconds(numpy_game(coupling, x_max, one))
        for batch in batches:
            yield row(coupling, x_max, batch, one_by_one)


def row(coupling: str, x_max: int, batch: int, numpy_one: float) -> str:
    n_x = 2 * x_max + 1
    picard = mfg.Picard(tolerance=1e-14, max_iterations=SWEEPS)
    euler = mfg.Model(coupling=coupling, x_max=x_max, n_steps=N_STEPS, scheme="euler", solver=picard)
    default = mfg.Model(coupling=coupling, x_max=x_max, n_steps=N_STEPS)
    euler_seconds, euler_sweeps = library_seconds(euler, batch)
    default_seconds, default_sweeps = library_seconds(default, batch)
    state_steps = n_x * N_STEPS
    ours = 1e9 * euler_seconds / (batch * state_steps * euler_sweeps)
    batched = 1e9 * numpy_seconds(numpy_game(coupling, x_max, games(batch))) / (batch * state_steps)
    alone = 1e9 * numpy_one / state_steps
    rk4 = 1e9 * default_seconds / (batch * state_steps * default_sweeps)
    return (
        f"| {coupling} | {n_x} | {batch} | {ours:.1f} | {batched:.1f} | {alone:.1f} | {batched / ours:.1f} | {alone / ours:.1f} "
        f"| {batch / default_seconds:.0f} | {rk4:.1f} | {default_sweeps:.1f} |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description="Speed of one core: the library against plain NumPy, as a table.")
    parser.add_argument("--short", action="store_true", help="one small row, to see that it runs")
    parser.add_argument("--output", type=Path, help="also write the table to this file")
    arguments = parser.parse_args()
    device = f"{jax.default_backend()} {runtime.device_name()}"
    versions = f"Python {platform.python_version()}, JAX {jax.__version__}, NumPy {np.__version__}"
    lines = [f"{date.today()}, {device}, {versions}; {N_STEPS} steps, float64, one core on a CPU", "", HEADER]
    print("\n".join(lines), flush=True)
    for line in rows(arguments.short):
        lines.append(line)
        print(line, flush=True)
    if arguments.output:
        arguments.output.write_text("# Speed of the solver (`scripts/bench_solver.py`)\n\n" + "\n".join(lines) + "\n")


if __name__ == "__main__":
    main()

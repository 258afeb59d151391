"""Games in lanes on a GPU: the speed beside that of its memory, idle lanes, single precision, and agreement with the CPU.

    python scripts/bench_gpu.py [--short] [--output FOLDER]

A row is one scheme, precision and number of lanes, each with sixteen mild skewed games, iterated to the same residual (in single
precision 1e-5). `floor`: the least time of a state-step (one inventory at one time in one sweep), in which the fill rates of both
sides and all stages are written and read once, at the bandwidth of a copy measured beside it. `difference`: of a crowd's path from
the same game's in double precision. First of all, games in lanes must agree with the same games one by one on the CPU, to 1e-12 of
their offsets; the script ends with an error where they do not. It runs on a CPU too, for what that is worth.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from sweeps import runtime

runtime.configure()

import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402
import numpy as np  # noqa: E402

import mfg_jax as mfg  # noqa: E402
from mfg_jax.equilibrium import solve_cold  # noqa: E402
from mfg_jax.lanes import NOBODY, advance_lanes, idle_lanes  # noqa: E402
from scripts import report  # noqa: E402
from scripts.bench import make_games  # noqa: E402
from scripts.report import Row  # noqa: E402

GAMES_PER_LANE = 16
LANES, SHORT_LANES = (1_024, 16_384, 65_536), (4,)
X_MAX, STEPS = 20, 100
RESIDUALS = {"float64": 1e-9, "float32": 1e-5}
AGREEMENT, GAMES_COMPARED, LANES_COMPARED = 1e-12, 64, 16
BYTES_COPIED, SHORT_BYTES_COPIED = 4_000_000_000, 40_000_000


class Size(NamedTuple):
    """Of the games, and of what is done with them."""

    x_max: int
    n_steps: int
    lanes: tuple[int, ...]
    copied: int


def model_of(scheme: str, size: Size, residual: float) -> mfg.Model:
    return mfg.Model("relative", x_max=size.x_max, n_steps=size.n_steps, scheme=scheme, solver={"tolerance": residual})


def parameters_of(games: int, size: Size, dtype: str) -> mfg.Parameters:
    columns = make_games("mild", games, size.x_max, size.n_steps).columns
    some = mfg.Parameters(**{name: column.astype(dtype) for name, column in columns.items()})
    return jax.tree.map(lambda leaf: jnp.broadcast_to(jnp.asarray(leaf, dtype), (games,)), some)


def in_lanes(model: mfg.Model, parameters: mfg.Parameters, lanes: int) -> tuple[np.ndarray, float, float, float]:
    """The crowds' paths, [game, time, side]; seconds, compilation left out; trips; the share of idle lanes."""
    games = len(jax.tree.leaves(parameters)[0])
    arguments = (idle_lanes(model, jax.tree.map(lambda leaf: leaf[0], parameters), lanes), jnp.arange(games), parameters, True)
    program = jax.jit(partial(advance_lanes, model)).lower(*arguments).compile()
    jax.block_until_ready(program(*arguments))
    begun = time.perf_counter()
    _, finished, work = jax.block_until_ready(program(*arguments))
    seconds = time.perf_counter() - begun
    done = np.flatnonzero(np.asarray(finished.ticket) != NOBODY)
    paths = np.asarray(finished.found.point)[done][np.argsort(np.asarray(finished.ticket)[done])]
    trips = float(work.trips)
    return paths, seconds, trips, float(work.idle) / (trips * lanes)


def disagreement(size: Size) -> float:
    """Largest difference of an offset from that of the same game, one by one on the CPU, over the offset."""
    model = model_of("rk4", size, residual=1e-13)
    parameters = parameters_of(GAMES_COMPARED, size, "float64")
    paths = in_lanes(model, parameters, LANES_COMPARED)[0]
    with jax.default_device(jax.devices("cpu")[0]):
        here = jax.device_put(parameters, jax.devices("cpu")[0])
        alone = jax.jit(lambda games: jax.lax.map(lambda game: solve_cold(model, game).replied_to, games))(here)
    return float(np.max(np.abs(paths - alone) / np.abs(alone)))


def bytes_per_second(copied: int) -> float:
    """Read and written, by a copy: the best of five."""
    source = jnp.ones(copied // 8)
    copy = jax.jit(lambda x: x + 1.0)
    jax.block_until_ready(copy(source))
    times = []
    for _ in range(5):
        begun = time.perf_counter()
        jax.block_until_ready(copy(source))
        times.append(time.perf_counter() - begun)
    return 2 * source.nbytes / min(times)


def speeds(size: Size) -> Iterator[Row]:
    bandwidth = bytes_per_second(size.copied)
    for scheme, stages in (("euler", 1), ("rk4", 4)):
        for lanes in size.lanes:
            exact: np.ndarray | None = None
            for dtype, residual in RESIDUALS.items():
                with jax.enable_x64(False) if dtype == "float32" else nullcontext():
                    parameters = parameters_of(GAMES_PER_LANE * lanes, size, dtype)
                    paths, seconds, trips, idle = in_lanes(model_of(scheme, size, residual), parameters, lanes)
                exact = paths if exact is None else exact
                state_steps = trips * lanes * (2 * size.x_max + 1) * size.n_steps
                floor = 2 * 2 * stages * np.dtype(dtype).itemsize / bandwidth
                yield {
                    "scheme": scheme,
                    "precision": dtype,
                    "lanes": lanes,
                    "games/s": len(paths) / seconds,
                    "ps per state-step": 1e12 * seconds / state_steps,
                    "floor": 1e12 * floor,
                    "idle lanes": idle,
                    "difference": float(np.max(np.abs(paths - exact))),
                }


def main() -> None:
    chosen = report.options(__doc__, "a few small games")
    size = Size(4, 48, SHORT_LANES, SHORT_BYTES_COPIED) if chosen.short else Size(X_MAX, STEPS, LANES, BYTES_COPIED)
    different = disagreement(size)
    shape = f"{2 * size.x_max + 1} inventories, {size.n_steps} time steps, {GAMES_PER_LANE} games a lane"
    tables = {
        "Agreement with the CPU": [{"largest difference over the offset": different, "allowed": AGREEMENT}],
        f"In lanes, {shape}": speeds(size),
    }
    report.report("bench_gpu", tables, chosen.output)
    if not different <= AGREEMENT:
        sys.exit("the device does not agree with the CPU")


if __name__ == "__main__":
    main()

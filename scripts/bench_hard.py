"""How often, how well and how fast hard games are solved: simple iterations against the default, as a table.

    python scripts/bench_hard.py [--every N] [--output FILE.md]

Every N-th game of configs/hard.yaml, one at a time, on its grid and by its scheme for stiff games: how many converge, to the
principal equilibrium or another; evaluations of the best reply Φ, of which the simple iterations get at most 500; seconds a game.
Wall times of one process; on a shared machine only the ratios within one run mean something.
"""

from __future__ import annotations

import argparse
import dataclasses
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import NamedTuple

from sweeps import runtime

runtime.configure()

import jax  # noqa: E402
import numpy as np  # noqa: E402
from jax.tree_util import register_static  # noqa: E402

import mfg_jax as mfg  # noqa: E402
from mfg_jax.equilibrium import solve_cold  # noqa: E402
from mfg_jax.parameters import as_scalars, order_flow  # noqa: E402
from sweeps.spec import load_spec  # noqa: E402
from sweeps.sweep import Sweep  # noqa: E402

GRID = Path(__file__).resolve().parent.parent / "configs" / "hard.yaml"
MOST_EVALUATIONS = 500
WARM_UP = 20  # games, hard and mild, until all that is needed is compiled
ANOTHER = 1e-3  # difference of crowd paths, times k
HEADER = (
    "| method | converged | of these on another branch | evaluations: median | 90 % | most | s a game: median | mean |\n"
    + "|---" * 8
    + "|"
)


@register_static
@dataclasses.dataclass(frozen=True)
class DampedPicard(mfg.Picard):
    """Halfway to the best reply."""

    def next_trial(self, trial: jax.Array, excess: jax.Array, memory: None) -> tuple[jax.Array, None]:
        return trial + 0.5 * excess, memory


class Ending(NamedTuple):
    """How one method ended with one game."""

    converged: bool
    crowd: np.ndarray
    evaluations: int
    seconds: float


Solve = Callable[[mfg.Parameters], mfg.Equilibrium]


def methods() -> dict[str, Solve]:
    model = dataclasses.replace(Sweep(load_spec(GRID)).model("elastic", "reflecting"), scheme="exponential")

    def cold(solver: mfg.FixedPointSolver) -> Solve:
        from_cold = dataclasses.replace(model, solver=solver)
        return lambda parameters: solve_cold(from_cold, parameters).equilibrium

    return {
        "default": lambda parameters: mfg.solve(model, parameters),
        "Anderson, cold": cold(mfg.Anderson(max_iterations=MOST_EVALUATIONS)),
        "Picard, damped by half": cold(DampedPicard(max_iterations=MOST_EVALUATIONS)),
        "Picard": cold(mfg.Picard(max_iterations=MOST_EVALUATIONS)),
    }


def games(every: int) -> list[mfg.Parameters]:
    sweep = Sweep(load_spec(GRID))
    columns = sweep.design.columns(0, len(sweep.design))
    chosen = range(0, len(sweep.design), every)
    return [as_scalars(mfg.Parameters(**sweep.spec.parameters, **{name: v[i] for name, v in columns.items()})) for i in chosen]


def ending(solve: Solve, parameters: mfg.Parameters) -> Ending:
    begun = time.perf_counter()
    equilibrium = jax.block_until_ready(solve(parameters))
    seconds = time.perf_counter() - begun
    crowd = np.stack([equilibrium.crowd_ask, equilibrium.crowd_bid]) * float(np.max(order_flow(parameters).k))
    return Ending(equilibrium.status == mfg.Status.CONVERGED, crowd, int(equilibrium.iterations), seconds)


def row(name: str, endings: list[Ending], principal: list[Ending]) -> str:
    converged = [(end, lead) for end, lead in zip(endings, principal, strict=True) if end.converged]
    elsewhere = sum(lead.converged and bool(np.abs(end.crowd - lead.crowd).max() > ANOTHER) for end, lead in converged)
    share, other = len(converged) / len(endings), elsewhere / max(1, len(converged))
    evaluations = np.array([end.evaluations for end in endings])
    seconds = np.array([end.seconds for end in endings])
    return (
        f"| {name} | {share:.1%} | {other:.1%} | {np.median(evaluations):.0f} | {np.quantile(evaluations, 0.9):.0f} "
        f"| {evaluations.max()} | {np.median(seconds):.2f} | {seconds.mean():.2f} |"
    )


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument(
        "--every", type=int, default=17, help="with no factor of 2, 3 or 5, all axes of the grid are covered alike"
    )
    options.add_argument("--output", type=Path, help="write the table here as well")
    chosen = options.parse_args()
    played = games(chosen.every)
    endings: dict[str, list[Ending]] = {}
    for name, solve in methods().items():
        for game in played[:WARM_UP]:
            ending(solve, game)
        endings[name] = [ending(solve, game) for game in played]
    title = f"`scripts/bench_hard.py`: {len(played)} games of configs/hard.yaml, JAX {jax.__version__}, {date.today()}."
    lines = [title, "", HEADER, *(row(name, ended, endings["default"]) for name, ended in endings.items())]
    print("\n".join(lines))
    if chosen.output:
        chosen.output.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()

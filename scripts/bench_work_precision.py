"""Which scheme, and how many steps: error against measured time for every candidate, as a table and a figure.

    python scripts/bench_work_precision.py [--short] [--output FOLDER]

Work is the time of one best reply Φ within a compiled loop of many, the median over loops that take turns with those of all other
candidates; precision is the largest error, relative to max(1, |figure|), of
the figures that MODEL.md section 9 judges by (values, offsets, moments of the crowd at the open, half time and the close, and the
mean spread), against the reference equilibria of the tests or, for the stiff game, the exponential scheme with 1,600 steps. Needs
the extra `viz`.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import statistics
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any, NamedTuple

from sweeps import runtime

runtime.configure()

import jax  # noqa: E402
import matplotlib.pyplot as plt  # noqa: E402
import numpy as np  # noqa: E402

import mfg_jax as mfg  # noqa: E402
from mfg_jax.best_reply import best_reply  # noqa: E402
from mfg_jax.equilibrium import solve_along_path, solve_cold  # noqa: E402
from mfg_jax.exponential import ExponentialRosenbrock  # noqa: E402
from mfg_jax.game import lay_out  # noqa: E402
from mfg_jax.grid import monotone_interpolation, smooth_interpolation  # noqa: E402
from mfg_jax.parameters import as_scalars  # noqa: E402
from mfg_jax.solution import Solved  # noqa: E402

REFERENCE = json.loads((Path(__file__).parent.parent / "tests" / "reference" / "public.json").read_text())

PLAIN, DEFAULT, EULER = "rk4, uniform", "rk4 (default for mild games)", "euler"
CANDIDATES: dict[str, dict[str, Any]] = {
    PLAIN: {"scheme": dataclasses.replace(mfg.RK4, corrects_kinks=False), "grading": 0.0},
    DEFAULT: {"scheme": "rk4"},
    "exponential (default for stiff games)": {"scheme": "exponential"},
    "exponential, smooth interpolation": {"scheme": mfg.Exponential(interpolate=smooth_interpolation)},
    "exponential Rosenbrock": {"scheme": ExponentialRosenbrock(interpolate=monotone_interpolation)},
    EULER: {"scheme": "euler", "grading": 0.0},
}
REFERENCE_CASES = {"mild": "relative_base", "clipped": "relative_clipped", "skewed": "elastic_skewed", "market share": "share_5"}
STIFF_GAME = {"A": 10.0, "k": 1.5, "eta": 0.1, "gamma": 0.5, "crowd_mean": 2.0, "quote_max": 5.0}
MOMENTS = ("start", "mid", "end")
STEPS, SHORT_STEPS = (24, 48, 100, 200, 400), (48,)
STEPS_OF = {PLAIN: (24, 36, 48, 72, 100, 144, 200, 280, 400), DEFAULT: (48, 72, 100, 144, 200, 280, 400), EULER: (400, 3_200)}
"""Of some candidates other ones: where kinks fall in a step moves an error by factors, so many numbers of steps are compared."""
TARGETS = {"mild": 1e-6, "clipped": 1e-4}
"""Errors at which the default is compared with `euler`."""
STIFF_REFERENCE_STEPS = 1600
REPETITIONS, REPLIES = 9, 40


class Case(NamedTuple):
    """A game, and its figures."""

    name: str
    coupling: str
    parameters: mfg.Parameters
    expected: dict[str, float]


class Point(NamedTuple):
    """One candidate with so many steps on one case."""

    case: str
    candidate: str
    n_steps: int
    milliseconds: float
    error: float


def cases(stiff: bool) -> list[Case]:
    found = []
    for name, key in REFERENCE_CASES.items():
        known = REFERENCE[key]["expected"]
        expected = {f"{moment} {figure}": value for moment in MOMENTS for figure, value in known[moment].items()}
        parameters = as_scalars(mfg.Parameters(**REFERENCE[key]["parameters"]))
        coupling = REFERENCE[key]["model"]["coupling"]
        found.append(Case(name, coupling, parameters, {"mean_spread": known["mean_spread"], **expected}))
    if stiff:
        parameters = as_scalars(mfg.Parameters(**STIFF_GAME))
        model = mfg.Model("relative", n_steps=STIFF_REFERENCE_STEPS)
        found.append(Case("stiff", "relative", parameters, _figures(model, parameters, solve_along_path(model, parameters))))
    return found


class Trial(NamedTuple):
    """A candidate that solved a case with so many steps, and how to run many of its best replies."""

    candidate: str
    n_steps: int
    error: float
    run: Callable[[], object]


def measure(case: Case, steps: tuple[int, ...]) -> list[Point]:
    """Of the candidates and steps that solve the case."""
    chosen = dict.fromkeys(CANDIDATES, steps) | (STEPS_OF if steps == STEPS else {})
    tried = [_try(case, candidate, n_steps) for candidate in CANDIDATES for n_steps in chosen[candidate]]
    trials = [trial for trial in tried if trial is not None]
    rounds = [[_milliseconds(trial.run) for trial in trials] for _ in range(REPETITIONS)]
    medians = (statistics.median(times) / REPLIES for times in zip(*rounds, strict=True))
    return [Point(case.name, t.candidate, t.n_steps, ms, t.error) for t, ms in zip(trials, medians, strict=True)]


def _try(case: Case, candidate: str, n_steps: int) -> Trial | None:
    model = mfg.Model(case.coupling, n_steps=n_steps, solver={"tolerance": 1e-11}, **CANDIDATES[candidate])
    solved = (solve_along_path if case.name == "stiff" else solve_cold)(model, case.parameters)
    if solved.equilibrium.status != mfg.Status.CONVERGED:
        return None
    figures = _figures(model, case.parameters, solved)
    compiled = _best_replies.lower(model, case.parameters, solved.replied_to).compile()
    run = lambda: jax.block_until_ready(compiled(model, case.parameters, solved.replied_to))  # noqa: E731
    run()
    jax.clear_caches()  # no other program is used again, and all of them together are more than a process can map
    error = max(abs(figures[name] - value) / max(1.0, abs(value)) for name, value in case.expected.items())
    return Trial(candidate, n_steps, error, run)


def _figures(model: mfg.Model, parameters: mfg.Parameters, solved: Solved) -> dict[str, float]:
    equilibrium = solved.equilibrium
    metrics = mfg.metrics(model, parameters, equilibrium)
    fractions = np.asarray(equilibrium.time) / float(equilibrium.time[-1])
    middle = int(np.argmin(np.abs(fractions - 0.5)))
    if abs(fractions[middle] - 0.5) > 1e-12:
        raise ValueError("half time is no stored time of this grid: choose a number of steps that is a multiple of 4")
    flat = model.x_max
    paths = {
        "crowd_ask": equilibrium.crowd_ask,
        "crowd_bid": equilibrium.crowd_bid,
        "value_flat": metrics.value_flat,
        "value_long3": equilibrium.value[:, flat + 3],
        "inventory_mean": metrics.inventory_mean,
        "inventory_variance": metrics.inventory_variance,
        "density_flat": equilibrium.density[:, flat],
        "marginal_value": metrics.marginal_value,
    }
    steps = dict(zip(MOMENTS, (0, middle, -1), strict=True))
    figures = {f"{moment} {name}": float(path[step]) for moment, step in steps.items() for name, path in paths.items()}
    return {"mean_spread": float(metrics.mean_spread), **figures}


@jax.jit
def _best_replies(model: mfg.Model, parameters: mfg.Parameters, crowd: jax.Array) -> jax.Array:
    """Many, each to the one before: a single one would be lost in what a call costs."""
    game = lay_out(model, parameters)
    return jax.lax.fori_loop(0, REPLIES, lambda _, crowd: best_reply(model, game, crowd).crowd, crowd)


def _milliseconds(run: Callable[[], object]) -> float:
    begun = time.perf_counter()
    run()
    return 1e3 * (time.perf_counter() - begun)


def table(points: list[Point]) -> str:
    rows = (f"| {p.case} | {p.candidate} | {p.n_steps} | {p.milliseconds:.3f} | {p.error:.1e} |" for p in points)
    return "\n".join(["| case | candidate | n_steps | ms a best reply | error |", "|---|---|---|---|---|", *rows])


def at_equal_time(points: list[Point]) -> str:
    """How many times smaller the default's error is than that of the plain method, where their times overlap."""
    rows = []
    for case in REFERENCE_CASES:
        plain, default = (
            sorted((p.milliseconds, p.error) for p in points if (p.case, p.candidate) == (case, candidate))
            for candidate in (PLAIN, DEFAULT)
        )
        if not (plain and default):
            continue
        times, errors = np.log(np.array(default)).T
        ratios = [
            error / np.exp(np.interp(np.log(ms), times, errors)) for ms, error in plain if default[0][0] <= ms <= default[-1][0]
        ]
        if ratios:
            rows.append(f"| {case} | {min(ratios):.2g} | {statistics.median(ratios):.2g} | {max(ratios):.2g} |")
    header = f"Error of `{PLAIN}` over that of `{DEFAULT}` at equal time:\n\n| case | least | median | most |\n|---|---|---|---|"
    return "\n".join([header, *rows])


def at_equal_error(points: list[Point]) -> str:
    """How many times longer `euler` takes to the same error, by the first order of its error where it was not tried so far."""
    rows = []
    for case, target in TARGETS.items():
        euler, default = (
            sorted((p.error, p.milliseconds) for p in points if (p.case, p.candidate) == (case, candidate))
            for candidate in (EULER, DEFAULT)
        )
        good_enough = [ms for error, ms in default if error <= target]
        if not (euler and good_enough):
            continue
        error, milliseconds = euler[0]
        tried = [ms for error, ms in euler if error <= target]
        needed = min(tried) if tried else milliseconds * error / target
        how = "measured" if tried else f"from {milliseconds:.3g} ms at {error:.1e}"
        rows.append(f"| {case} | {target:.0e} | {min(good_enough):.3f} | {needed:.3g} ({how}) | {needed / min(good_enough):.3g} |")
    header = f"| case | error | ms a best reply, `{DEFAULT}` | `{EULER}` | ratio |\n|---|---|---|---|---|"
    return "\n".join([f"Time to an error, against `{EULER}`:\n", header, *rows])


def draw(points: list[Point], path: Path) -> None:
    names = list(dict.fromkeys(point.case for point in points))
    figure, axes = plt.subplots(1, len(names), figsize=(3.4 * len(names), 3.6), sharey=True, squeeze=False, layout="constrained")
    for ax, name in zip(axes[0], names, strict=True):
        for candidate, marker in zip(CANDIDATES, "so^vDx", strict=True):
            line = [point for point in points if (point.case, point.candidate) == (name, candidate)]
            ax.loglog([p.milliseconds for p in line], [p.error for p in line], f"{marker}-", label=candidate, markersize=4)
        ax.set(title=name, xlabel="ms a best reply")
    axes[0, 0].set_ylabel("largest error of a figure")
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=3, frameon=False)
    figure.savefig(path, dpi=120)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--short", action="store_true", help="one game, one number of steps")
    options.add_argument("--output", type=Path, help="folder for work_precision.md and .png")
    chosen = options.parse_args()
    steps = SHORT_STEPS if chosen.short else STEPS
    played = cases(stiff=False)[:1] if chosen.short else cases(stiff=True)
    points = [point for case in played for point in measure(case, steps)]
    text = (
        f"`scripts/bench_work_precision.py`, JAX {jax.__version__}, {date.today()}.\n\n"
        f"{table(points)}\n\n{at_equal_time(points)}\n\n{at_equal_error(points)}\n"
    )
    print(text)
    if chosen.output:
        (chosen.output / "work_precision.md").write_text(text)
        draw(points, chosen.output / "work_precision.png")


if __name__ == "__main__":
    main()

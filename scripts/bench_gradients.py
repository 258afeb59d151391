"""What the derivatives of an equilibrium cost beside the equilibrium itself, as two tables.

    python scripts/bench_gradients.py [--short] [--output FILE.md]

The games of configs/quickstart.yaml, every tenth: the mean spread, and the mean spread with its derivative in every parameter.
First game by game, the median of several runs of each; then in batches, one game after the other in one compiled program, as the
engine does on a CPU, or side by side under `vmap`. Memory is what the compiled program asks for beside its input and output. On a
shared machine only the ratios within one run mean something.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any, NamedTuple

from sweeps import runtime

runtime.configure()

import jax  # noqa: E402
import numpy as np  # noqa: E402

import mfg_jax as mfg  # noqa: E402
from sweeps.spec import load_spec  # noqa: E402
from sweeps.sweep import Sweep  # noqa: E402

QUICKSTART = Path(__file__).parent.parent / "configs" / "quickstart.yaml"
EVERY, SHORT_EVERY = 10, 500
REPETITIONS = 5
MODEL = mfg.Model("relative", n_steps=200)
ONE_AFTER_THE_OTHER, SIDE_BY_SIDE = "one after the other", "side by side"
BATCHES = ((ONE_AFTER_THE_OTHER, 1), (ONE_AFTER_THE_OTHER, 256), (ONE_AFTER_THE_OTHER, 4096), (SIDE_BY_SIDE, 256))
SHORT_BATCHES = ((ONE_AFTER_THE_OTHER, 2),)

Program = Callable[[mfg.Parameters], Any]


class Pair(NamedTuple):
    """The same games solved without and with derivatives."""

    solve: jax.stages.Compiled
    differentiate: jax.stages.Compiled


def mean_spread(parameters: mfg.Parameters) -> jax.Array:
    return mfg.metrics(MODEL, parameters, mfg.solve(MODEL, parameters, select="cold")).mean_spread


def quickstart(every: int) -> mfg.Parameters:
    """Its games, side by side."""
    spec = load_spec(QUICKSTART)
    design = Sweep(spec).design
    columns = {name: values[::every] for name, values in design.columns(0, len(design)).items()}
    return resized(mfg.Parameters(**{**spec.parameters, **columns}), len(columns["A"]))


def resized(games: mfg.Parameters, size: int) -> mfg.Parameters:
    """So many of them, again from the first where there are too few."""
    return jax.tree.map(lambda leaf: np.resize(leaf, size), games)


def compiled(transform: Callable[[Program], Program], example: mfg.Parameters) -> Pair:
    solve, differentiate = (jax.jit(transform(f)).lower(example).compile() for f in (mean_spread, jax.value_and_grad(mean_spread)))
    return Pair(solve, differentiate)


def seconds(program: jax.stages.Compiled, parameters: mfg.Parameters) -> float:
    begun = time.perf_counter()
    jax.block_until_ready(program(parameters))
    return time.perf_counter() - begun


def in_turns(pair: Pair, parameters: mfg.Parameters, repetitions: int) -> tuple[float, float]:
    """Median seconds of either program, after a first run of each."""
    rounds = [[seconds(program, parameters) for program in pair] for _ in range(repetitions + 1)][1:]
    solving, differentiating = (statistics.median(times) for times in zip(*rounds, strict=True))
    return solving, differentiating


def megabytes(program: jax.stages.Compiled) -> float:
    """Of its temporary memory."""
    found: Any = program.memory_analysis()
    return found.temp_size_in_bytes / 1e6


def game_by_game(games: mfg.Parameters) -> str:
    count = jax.tree.leaves(games)[0].size
    each = [jax.tree.map(lambda leaf, i=i: leaf[i], games) for i in range(count)]
    pair = compiled(lambda program: program, each[0])
    timed = np.array([in_turns(pair, game, REPETITIONS) for game in each])
    ratios = timed[:, 1] / timed[:, 0]
    low, middle, high = np.quantile(ratios, [0.1, 0.5, 0.9])
    solving, differentiating = 1e3 * np.median(timed, axis=0)
    return (
        "| games | ms to solve | ms with derivatives | ratio: median | 10 % | 90 % |\n|---|---|---|---|---|---|\n"
        f"| {count} | {solving:.2f} | {differentiating:.2f} | {middle:.2f} | {low:.2f} | {high:.2f} |"
    )


def in_batches(games: mfg.Parameters, batches: tuple[tuple[str, int], ...]) -> str:
    rows = ["| batch | how | ms a game to solve | with derivatives | ratio | MB to solve | with derivatives |", "|---" * 7 + "|"]
    for how, size in batches:
        batch = resized(games, size)
        transform = _mapped if how == ONE_AFTER_THE_OTHER else jax.vmap
        pair = compiled(transform, batch)
        solving, differentiating = (1e3 * s / size for s in in_turns(pair, batch, REPETITIONS if size <= 256 else 1))
        plain, whole = map(megabytes, pair)
        ratio = differentiating / solving
        rows.append(f"| {size} | {how} | {solving:.2f} | {differentiating:.2f} | {ratio:.2f} | {plain:.1f} | {whole:.1f} |")
    return "\n".join(rows)


def _mapped(program: Program) -> Program:
    return lambda parameters: jax.lax.map(program, parameters)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--short", action="store_true", help="two games")
    options.add_argument("--output", type=Path, help="Markdown file")
    chosen = options.parse_args()
    games = quickstart(SHORT_EVERY if chosen.short else EVERY)
    tables = game_by_game(games), in_batches(games, SHORT_BATCHES if chosen.short else BATCHES)
    device = jax.devices()[0].device_kind
    text = "\n\n".join((f"`scripts/bench_gradients.py`, JAX {jax.__version__}, {device}, {date.today()}.", *tables)) + "\n"
    print(text)
    if chosen.output:
        chosen.output.write_text(text)


if __name__ == "__main__":
    main()

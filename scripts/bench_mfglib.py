"""Time to an equilibrium: MFGLib (PyPI: mfglib), a library for mean-field games of any kind, on a market maker's game, and ours.

    pip install mfglib && python scripts/bench_mfglib.py [--short] [--output FOLDER]

MFGLib's games have finitely many actions and steps: the makers choose from a lattice of pairs of offsets, and step as explicit
Euler does. Its algorithms run until what one maker gains by deviating is below 1e-3, or for a minute, with step sizes in
decades (without MFOMO, which came to gains of 0.1 in a quarter of an hour). Ours solves the same game with offsets of any size, by
the default scheme. Both on one core, in seconds of that core, compilation left out. `error`: how far quotes are off, the mean over
the crowd and the day, over the mean offset; ours against its own solution with eight times the steps.

MFGLib needs PyTorch, a package too large for the development environment, so this script's tests run without it.
"""

from __future__ import annotations

import itertools
import os
import statistics
import sys
import time
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from sweeps import runtime

runtime.configure("cpu")

import jax  # noqa: E402
import numpy as np  # noqa: E402
import torch  # noqa: E402  # pyright: ignore[reportMissingImports]
from mfglib.alg import FictitiousPlay, OnlineMirrorDescent, PriorDescent  # noqa: E402  # pyright: ignore
from mfglib.alg.abc import Algorithm  # noqa: E402  # pyright: ignore[reportMissingImports]
from mfglib.env import Environment  # noqa: E402  # pyright: ignore[reportMissingImports]

import mfg_jax as mfg  # noqa: E402
from scripts import report  # noqa: E402
from scripts.report import Row  # noqa: E402

ENOUGH, MINUTE = 1e-3, 60.0
STEPS, OFFSETS, WIDEST = 100, 8, 2.0
NUMBERS = {"A": 10.0, "k": 1.5, "eta": 0.01, "gamma": 0.05, "crowd_mean": 1.0, "crowd_std": 2.0, "quote_max": WIDEST}
GAME = mfg.Parameters(**NUMBERS)
MODEL = mfg.Model(coupling="relative", x_max=10, n_steps=STEPS)


def algorithms() -> Iterator[Algorithm]:
    sizes = [1.0, 10.0, 100.0, 1000.0]
    yield FictitiousPlay()
    yield from (OnlineMirrorDescent(alpha=size) for size in sizes)
    yield from (PriorDescent(eta=size) for size in sizes)


class Makers:
    """Rewards and transitions of one step, which MFGLib asks for at every time, given how many are where and quote what."""

    def __init__(self, steps: int) -> None:
        self.dt = 1.0 / steps
        self.steps = steps
        self.inventory = torch.arange(-MODEL.x_max, MODEL.x_max + 1)
        pairs = itertools.product(torch.linspace(0.0, WIDEST, OFFSETS).tolist(), repeat=2)
        self.offsets = torch.tensor(list(pairs))
        """[action, side]."""
        may_sell, may_buy = self.inventory > -MODEL.x_max, self.inventory < MODEL.x_max
        self.quoting = torch.stack([may_sell, may_buy], dim=-1).to(self.offsets.dtype)
        """[state, side]."""

    def rates(self, mass: torch.Tensor) -> torch.Tensor:
        """[state, action, side]; `mass`: [state, action]."""
        quoted = torch.einsum("xa,xs,as->s", mass, self.quoting, self.offsets)
        crowd = quoted / torch.einsum("xa,xs->s", mass, self.quoting)
        rates = NUMBERS["A"] * torch.exp(-NUMBERS["k"] * (self.offsets - crowd))
        return self.quoting[:, None] * rates

    def reward(self, environment: Environment, t: int, mass: torch.Tensor) -> torch.Tensor:
        del environment
        squares = self.inventory[:, None] ** 2
        if t == self.steps:
            return -NUMBERS["gamma"] * squares.expand_as(mass).to(mass.dtype)
        edge = (self.rates(mass) * self.offsets).sum(dim=-1)
        return self.dt * (edge - NUMBERS["eta"] * squares)

    def transition(self, environment: Environment, t: int, mass: torch.Tensor) -> torch.Tensor:
        """[next state, state, action]."""
        del environment, t
        sold, bought = (self.dt * self.rates(mass)).unbind(dim=-1)
        state = torch.arange(len(self.inventory))
        probability = torch.zeros(len(state), *mass.shape)
        probability[state[:-1], state[1:]] = sold[1:]
        probability[state[1:], state[:-1]] = bought[:-1]
        probability[state, state] = 1.0 - sold - bought
        return probability


def environment(makers: Makers) -> Environment:
    weights = torch.exp(-0.5 * ((makers.inventory - NUMBERS["crowd_mean"]) / NUMBERS["crowd_std"]) ** 2)
    return Environment(
        T=makers.steps,
        S=(len(makers.inventory),),
        A=(len(makers.offsets),),
        mu0=weights / weights.sum(),
        r_max=NUMBERS["gamma"] * MODEL.x_max**2,
        reward_fn=makers.reward,
        transition_fn=makers.transition,
    )


def iterate(algorithm: Algorithm, game: Environment, most_seconds: float) -> tuple[torch.Tensor, float, float]:
    """The best policy, what one maker gains by leaving it, and the seconds spent. There is no way to stop by the clock, so it is
    begun anew with twice the iterations; the last run counts."""
    begun, iterations = time.process_time(), 1
    while True:
        start = time.process_time()
        policies, gains, _ = algorithm.solve(game, max_iter=iterations, atol=ENOUGH, rtol=None)
        spent = time.process_time() - start
        best = int(np.argmin(gains))
        if gains[best] <= ENOUGH or not np.isfinite(gains).all() or time.process_time() - begun > most_seconds:
            return policies[best], gains[best], spent
        iterations *= 2


def quotes(steps: int) -> tuple[np.ndarray, np.ndarray]:
    """Ours, [time, inventory, side], and who is where, [time, inventory], at the times of STEPS steps."""
    model = mfg.Model(coupling="relative", x_max=10, n_steps=steps, grading=0.0)
    equilibrium = mfg.solve(model, GAME)
    thinned = slice(None, None, steps // STEPS)
    offsets = np.stack([np.asarray(equilibrium.ask), np.asarray(equilibrium.bid)], axis=-1)
    return offsets[thinned], np.asarray(equilibrium.density)[thinned]


def mean_offsets(makers: Makers, policy: torch.Tensor) -> np.ndarray:
    """[time, inventory, side]."""
    return torch.einsum("txa,as->txs", policy, makers.offsets).numpy()


def error(offsets: np.ndarray, true: np.ndarray, density: np.ndarray) -> float:
    quoted = np.isfinite(true)  # the ends of the lattice quote one side
    weights = np.broadcast_to(density[..., None], true.shape)[quoted]
    return float(np.sum(weights * np.abs(offsets[quoted] - true[quoted])) / np.sum(weights * true[quoted]))


def seconds_of_ours() -> float:
    """Median of five, compiled before."""
    program = jax.jit(lambda parameters: mfg.solve(MODEL, parameters))
    times = []
    for _ in range(6):
        begun = time.process_time()
        jax.block_until_ready(program(GAME))
        times.append(time.process_time() - begun)
    return statistics.median(times[1:])


def measured(short: bool) -> Iterator[Row]:
    true, density = quotes(8 * STEPS)
    ours = seconds_of_ours()
    found = mfg.solve(MODEL, GAME, certify="full")
    yield _row("mfg-jax", ours, ours, float(np.asarray(found.exploitability)), error(quotes(STEPS)[0], true, density))
    makers = Makers(STEPS)
    game = environment(makers)
    for algorithm in itertools.islice(algorithms(), 1 if short else None):
        policy, gain, spent = iterate(algorithm, game, 1.0 if short else MINUTE)
        yield _row(f"MFGLib, {algorithm}", spent, ours, gain, error(mean_offsets(makers, policy), true, density))


def _row(program: str, seconds: float, ours: float, gain: float, offset_error: float) -> Row:
    return {
        "program": program,
        "core-seconds": seconds,
        "over ours": seconds / ours,
        "gain by deviating": gain,
        "arrived": "yes" if gain <= ENOUGH else "no",
        "error": offset_error,
    }


def main() -> None:
    chosen = report.options(__doc__, "one algorithm for a second")
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:1])
    torch.set_num_threads(1)
    torch.set_default_dtype(torch.float64)
    size = f"{2 * MODEL.x_max + 1} inventories, {STEPS} time steps, {OFFSETS**2} actions"
    report.report("bench_mfglib", {size: measured(chosen.short)}, chosen.output, packages=("mfglib", "torch"))


if __name__ == "__main__":
    main()

"""How often do the 95 % intervals of a calibration, and of a fit, hold the truth? Synthetic data of known laws, as a table.

    python scripts/check_coverage.py [--samples N] [--output FILE.md]

Trades are drawn, written to a file and calibrated as `mfgsweep calibrate` does, both sides of each file; fills are drawn as
Poisson numbers; observed paths are those of an equilibrium with normal noise (one sample for eight of the others).
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator
from datetime import date
from pathlib import Path

from sweeps import runtime

runtime.configure()

import jax  # noqa: E402
import numpy as np  # noqa: E402

import mfg_jax as mfg  # noqa: E402
from mfg_jax.flow import FlowEstimate, Interval, fit_fills  # noqa: E402
from sweeps import trades  # noqa: E402
from sweeps.calibration import calibrate_market  # noqa: E402

A, K, TICK, DURATION = 4.0, 0.7, 1.0, 900.0
BURSTS = (1.0, 5.0, 20.0)
OFFSETS, EXPOSURES = np.array([0.5, 1.0, 2.0, 3.0]), np.array([60.0, 300.0, 300.0, 900.0])

MODEL = mfg.Model("elastic", x_max=4, n_steps=24)
TRUE = mfg.Parameters(A=3.0, k=1.5, eta=0.05, gamma=0.2, k0=0.5, crowd_mean=0.5, crowd_std=1.5)
BOUNDS = {"k": (0.7, 3.0), "eta": (0.0, 0.3), "gamma": (0.02, 1.0)}
NOISE = {"full_spread": 0.02, "inventory_variance": 0.05}

Row = tuple[str, str, int, int]
"""Of what, which number, samples, and in how many the interval held the truth."""


def of_trades(samples: int) -> Iterator[Row]:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "trades.csv"
        for burst in BURSTS:
            flows: list[FlowEstimate] = []
            for seed in range(samples):
                trades.draw(A, K, DURATION, TICK, burst, seed).to_csv(file, index=False)
                market = trades.read(file, {}, TICK)
                assert isinstance(market, trades.Market)
                flows += calibrate_market(market, None).flows.values()
            what = f"trades, {burst:g} orders a burst" if burst > 1 else "trades, independent orders"
            yield what, "A", len(flows), sum(holds(flow.A, A) for flow in flows)
            yield what, "k", len(flows), sum(holds(flow.k, K) for flow in flows)


def of_fills(samples: int) -> Iterator[Row]:
    expected = A * EXPOSURES * np.exp(-K * OFFSETS)
    flows = [fit_fills(OFFSETS, EXPOSURES, np.random.default_rng(seed).poisson(expected)) for seed in range(samples)]
    yield "fills", "A", samples, sum(holds(flow.A, A) for flow in flows)
    yield "fills", "k", samples, sum(holds(flow.k, K) for flow in flows)


def of_paths(samples: int) -> Iterator[Row]:
    metrics = mfg.metrics(MODEL, TRUE, mfg.solve(MODEL, TRUE))
    held = dict.fromkeys(BOUNDS, 0)
    for seed in range(samples):
        rng = np.random.default_rng(seed)
        exact = {name: np.asarray(getattr(metrics, name)) for name in NOISE}
        observed = {name: path + NOISE[name] * rng.normal(size=path.shape) for name, path in exact.items()}
        found = mfg.fit(MODEL, observed, TRUE, BOUNDS, noise=NOISE, starts=1)
        for name in BOUNDS:
            held[name] += holds(found.intervals[name], getattr(TRUE, name))
    for name, count in held.items():
        yield "paths of an equilibrium", name, samples, count


def holds(interval: Interval, truth: float) -> bool:
    return interval.low <= truth <= interval.high


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--samples", type=int, default=400, help="files of trades, tables of fills")
    options.add_argument("--output", type=Path, help="Markdown file")
    chosen = options.parse_args()
    rows = [*of_trades(chosen.samples), *of_fills(chosen.samples), *of_paths(max(chosen.samples // 8, 1))]
    lines = [f"| {what} | {number} | {samples} | {held / samples:.1%} |" for what, number, samples, held in rows]
    table = "\n".join(["| data | number | samples | intervals that hold the truth |", "|---|---|---|---|", *lines])
    text = f"`scripts/check_coverage.py`, JAX {jax.__version__}, {date.today()}.\n\n{table}\n"
    print(text)
    if chosen.output:
        chosen.output.write_text(text)


if __name__ == "__main__":
    main()

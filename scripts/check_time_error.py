"""Is `time_error` honest? Random games of four kinds, each against its own solution with steps an eighth as long, as a table.

    python scripts/check_time_error.py [--games N] [--output FILE.md]

For each kind, of N games: how many converged, in how many the true error exceeds three times the estimate, in how many the estimate
exceeds 100 times the true error (and 1e-10), and the median of estimate / true error.
"""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Callable
from datetime import date
from pathlib import Path

from sweeps import runtime

runtime.configure()

import equinox as eqx  # noqa: E402
import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402
import numpy as np  # noqa: E402

import mfg_jax as mfg  # noqa: E402
from mfg_jax.best_reply import best_reply  # noqa: E402
from mfg_jax.certificate import time_error  # noqa: E402
from mfg_jax.continuation import Walker  # noqa: E402
from mfg_jax.equilibrium import solve_along_path, solve_cold  # noqa: E402
from mfg_jax.game import lay_out  # noqa: E402
from mfg_jax.hjb import crowd_at  # noqa: E402
from mfg_jax.parameters import as_scalars  # noqa: E402

N_STEPS, FINER = 50, 8
HEADER = (
    "| kind | games | converged | finer steps lead elsewhere | too small | too large | median of estimate / true |\n"
    + "|---" * 7
    + "|"
)

Draw = Callable[[np.random.Generator], dict[str, float]]


def mild(rng: np.random.Generator) -> dict[str, float]:
    """No quote reaches a bound."""
    return _common(rng, 10.0) | {"A": rng.uniform(2, 6), "eta": rng.uniform(0.001, 0.02), "gamma": rng.uniform(0.01, 0.1)}


def clipped(rng: np.random.Generator) -> dict[str, float]:
    return _common(rng, 2.0) | {"A": rng.uniform(2, 8), "eta": rng.uniform(0.01, 0.1), "gamma": rng.uniform(0.1, 1.0)}


def stiff(rng: np.random.Generator) -> dict[str, float]:
    """The hard games of MODEL.md, section 5."""
    return _common(rng, 5.0) | {
        "A": rng.uniform(5, 150),
        "k0": 0.3 * rng.uniform() ** 2,
        "eta": rng.uniform(0.01, 0.5),
        "gamma": rng.uniform(0.05, 2.0),
        "crowd_mean": rng.uniform(0, 4),
    }


KINDS: dict[str, tuple[str, str, Draw]] = {
    "mild": ("relative", "rk4", mild),
    "clipped": ("elastic", "rk4", clipped),
    "stiff": ("elastic", "exponential", stiff),
    "market share": ("market_share", "rk4", mild),
}


def _common(rng: np.random.Generator, cap: float) -> dict[str, float]:
    k = rng.uniform(0.6, 3.0)
    common = {"k": k, "k0": 0.2 * k * rng.uniform(), "crowd_mean": rng.uniform(-2, 2), "crowd_std": rng.uniform(1, 3)}
    return common | {"quote_min": 0.0, "quote_max": cap, "n_makers": rng.uniform(2, 20)}


@eqx.filter_jit
def errors(model: mfg.Model, parameters: mfg.Parameters) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Whether the game converged, the estimate of its error, and the error; infinite where finer steps lead elsewhere."""
    stiff = model.scheme == mfg.Model(scheme="exponential").scheme
    solved = (solve_along_path if stiff else solve_cold)(model, parameters)
    failed = solved.equilibrium.status != mfg.Status.CONVERGED
    fine = dataclasses.replace(model, n_steps=FINER * model.n_steps)
    guess = crowd_at(model, solved.replied_to, fine.time_fractions)
    there = Walker.of(fine, lay_out(fine, parameters), jnp.asarray(1e-12)).polish(guess, failed)
    averages = best_reply(fine, lay_out(fine, parameters), there.crowd).averages[::FINER]
    found = jnp.stack([solved.equilibrium.crowd_ask, solved.equilibrium.crowd_bid], axis=1)
    true = jnp.max(jnp.abs(averages - found))
    estimate = time_error(model, parameters, solved.replied_to, failed)
    return ~failed, estimate, jnp.where(there.residual < 1e-10, true, jnp.inf)


def row(kind: str, games: int) -> str:
    coupling, scheme, draw = KINDS[kind]
    rng = np.random.default_rng(2024)
    model = mfg.Model(coupling, n_steps=N_STEPS, scheme=scheme, solver={"tolerance": 1e-11})
    drawn = [errors(model, as_scalars(mfg.Parameters(**draw(rng)))) for _ in range(games)]
    converged, estimate, true = (np.array(column) for column in zip(*drawn, strict=True))
    comparable = converged & np.isfinite(true) & np.isfinite(estimate)
    estimate, true = estimate[comparable], true[comparable]
    too_small, too_large = (true > 3 * estimate).sum(), (estimate > 100 * true + 1e-10).sum()
    elsewhere = converged.sum() - comparable.sum()
    return f"| {kind} | {games} | {converged.sum()} | {elsewhere} | {too_small} | {too_large} | {np.median(estimate / true):.2f} |"


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--games", type=int, default=125, help="of each kind")
    options.add_argument("--output", type=Path, help="write the table here as well")
    chosen = options.parse_args()
    lines = [f"`scripts/check_time_error.py`, n_steps {N_STEPS}, JAX {jax.__version__}, {date.today()}.", "", HEADER]
    lines += [row(kind, chosen.games) for kind in KINDS]
    print("\n".join(lines))
    if chosen.output:
        chosen.output.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()

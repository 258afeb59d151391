"""When is the equilibrium that a cold iteration finds the principal one? Random hard games, each against its full path, as a table.

    python scripts/check_branch.py [--games N] [--output FILE.md]

Games as in MODEL.md, section 5, one in four with market share, sorted by the largest |ΔΦ|/|ΔD| that the iteration met on its
way: `solve` takes what it found for the principal equilibrium, and follows no path, where that stayed below CERTAIN_EXPANSION. Both
the iteration and the path play on 64 steps, by the scheme that paths are followed with.
"""

from __future__ import annotations

import argparse
from datetime import date
from itertools import pairwise
from pathlib import Path

from sweeps import runtime

runtime.configure()

import equinox as eqx  # noqa: E402
import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402
import numpy as np  # noqa: E402

import mfg_jax as mfg  # noqa: E402
from mfg_jax.best_reply import best_reply  # noqa: E402
from mfg_jax.continuation import Walker  # noqa: E402
from mfg_jax.equilibrium import CERTAIN_EXPANSION, COARSE_SCHEME, COARSE_STEPS, SAME_EQUILIBRIUM, first_guess  # noqa: E402
from mfg_jax.game import in_the_box, lay_out, residual_tolerance  # noqa: E402
from mfg_jax.parameters import as_scalars, order_flow  # noqa: E402

EDGES = (0.0, 0.5, 0.8, CERTAIN_EXPANSION, 1.0, 1.1, 1.5, 2.5, np.inf)
HEADER = (
    "| largest ratio met on the way | converged from a cold start | path arrived | at another equilibrium |\n" + "|---" * 4 + "|"
)


def draw(rng: np.random.Generator) -> mfg.Parameters:
    k = rng.uniform(0.6, 3.0)
    drawn = mfg.Parameters(
        A=rng.uniform(5, 150),
        k=k,
        k0=k * rng.uniform() ** 2 / 2,
        eta=rng.uniform(0.01, 0.5),
        gamma=rng.uniform(0.05, 2.0),
        crowd_mean=rng.uniform(0, 4),
        crowd_std=rng.uniform(1, 3),
        n_makers=rng.uniform(2, 20),
        quote_max=5.0,
    )
    return as_scalars(drawn)


@eqx.filter_jit
def compare(model: mfg.Model, parameters: mfg.Parameters) -> tuple[jax.Array, jax.Array, jax.Array]:
    """The expansion met by a cold iteration, infinite where it did not converge; whether the path arrived, and at the same."""
    game = lay_out(model, parameters)
    tolerance = residual_tolerance(model, game)

    def phi(crowd: jax.Array) -> tuple[jax.Array, jax.Array]:
        reply = best_reply(model, game, crowd)
        return reply.crowd, reply.unstable

    cold = model.solver.solve(phi, first_guess(model, game), lambda crowd: in_the_box(game, crowd), tolerance)
    converged = cold.residual <= tolerance
    path = Walker.of(model, game, tolerance).follow(skip=~converged)
    apart = jnp.max(jnp.abs(path.crowd - cold.point)) * jnp.max(order_flow(parameters).k)
    return jnp.where(converged, cold.expansion, jnp.nan), path.arrived, apart <= SAME_EQUILIBRIUM


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--games", type=int, default=8000)
    options.add_argument("--output", type=Path, help="write the table here as well")
    chosen = options.parse_args()
    rng = np.random.default_rng(7)
    couplings = ("elastic", "elastic", "elastic", "market_share")
    models = [mfg.Model(coupling, x_max=12, n_steps=COARSE_STEPS[0], scheme=COARSE_SCHEME) for coupling in couplings]
    compared = [compare(models[i % len(models)], draw(rng)) for i in range(chosen.games)]
    expansion, arrived, same = (np.array(column) for column in zip(*compared, strict=True))
    title = f"`scripts/check_branch.py`: {chosen.games} games, JAX {jax.__version__}, {date.today()}."
    lines = [f"{title} {np.isnan(expansion).sum()} did not converge from a cold start.", "", HEADER]
    for low, high in pairwise(EDGES):
        here = (expansion >= low) & (expansion < high)
        lines.append(f"| {low:g} to {high:g} | {here.sum()} | {(here & arrived).sum()} | {(here & arrived & ~same).sum()} |")
    print("\n".join(lines))
    if chosen.output:
        chosen.output.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()

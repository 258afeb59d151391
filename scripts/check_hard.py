"""What became of configs/hard.yaml, as a table: how many games are certified, on which branch, and why the others are not.

    mfgsweep run configs/hard.yaml
    python scripts/check_hard.py [STORE] [--output FILE.md]

Certified: converged, the residual times k at most the tolerance, and no maker gains more by leaving than a millionth of
max(1, |V|), V the crowd's mean value at the open, plus what the length of the time steps may explain, where that is known.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import xarray as xr

import mfg_jax as mfg
from sweeps.dataset import open_store


def certified(store: xr.Dataset) -> xr.DataArray:
    tolerance = store.attrs["spec"]["solver"]["tolerance"]
    gain = 1e-6 * np.maximum(1.0, abs(store.expected_value)) + store.time_error.where(np.isfinite(store.time_error), 0.0)
    within = (store.residual * store.k <= tolerance * (1 + 1e-9)) & (abs(store.exploitability) <= gain)
    return (store.status == mfg.Status.CONVERGED) & within


def rows(store: xr.Dataset) -> dict[str, xr.DataArray]:
    """What is true of a game, in words, and of which."""
    converged = store.status == mfg.Status.CONVERGED
    endings = {
        f"ended otherwise: {s.name.lower().replace('_', ' ')}": store.status == s for s in mfg.Status if s != mfg.Status.CONVERGED
    }
    return {
        "certified": certified(store),
        "certified, on the principal branch": certified(store) & (store.branch == mfg.Branch.PRINCIPAL),
        **{words: games for words, games in endings.items() if games.any()},
        "found past folds of the path": converged & (store.folds > 0),
        "not found by naive best replies (contraction above 1)": converged & (store.contraction > 1),
        "time_error at most 1e-3": converged & (store.time_error <= 1e-3),
        "time_error not known, as finer steps lead elsewhere": converged & np.isinf(store.time_error),
    }


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("store", nargs="?", default="results/hard.zarr", help="of configs/hard.yaml")
    options.add_argument("--output", type=Path, help="write the table here as well")
    chosen = options.parse_args()
    store = open_store(chosen.store).load()
    versions = store.attrs["versions"]
    made = f"JAX {versions['jax']}, revision {store.attrs['git_revision'][:7]}, {store.attrs['started'][:10]}"
    lines = [f"`scripts/check_hard.py`: {store.status.size} games, {made}.", ""]
    lines += ["| | games | share |", "|---|---|---|"]
    lines += [f"| {words} | {int(games.sum())} | {float(games.mean()):.2%} |" for words, games in rows(store).items()]
    print("\n".join(lines))
    if chosen.output:
        chosen.output.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()

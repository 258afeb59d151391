"""Draw notebooks/pictures/phases.png: where the games of configs/phase.yaml have one equilibrium, and where several.

mfgsweep run configs/phase.yaml
python scripts/draw_phases.py [STORE]
"""

import argparse
from pathlib import Path

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.colors import BoundaryNorm, ListedColormap
from matplotlib.patches import Patch

from sweeps.dataset import open_store

PICTURE = Path(__file__).resolve().parent.parent / "notebooks" / "pictures" / "phases.png"
WIDTH, HEIGHT, DPI = 1600, 640, 150  # pixels, and pixels per inch


def draw_phases(axes: Axes, store: xr.Dataset) -> None:
    """How many equilibria were found, where the path to the principal one folds, and where naive best replies lead away from it."""
    counts = np.unique(store.equilibria)
    colours = mpl.colormaps["Blues"](np.linspace(0.05, 0.6, counts.size))
    edges = np.append(counts - 0.5, counts[-1] + 0.5)
    norm = BoundaryNorm(edges, counts.size)
    axes.pcolormesh(store.dial, store.crowd_mean, store.equilibria.T, cmap=ListedColormap(colours), norm=norm)
    dial, mean = (axis.values for axis in xr.broadcast(store.dial, store.crowd_mean))
    folded, unstable = (store.folds > 0).values, (store.contraction > 1).values
    marks = axes.plot(dial[folded], mean[folded], "k+", markersize=5, label="path folds")
    marks += axes.plot(dial[unstable], mean[unstable], "ro", markersize=9, fillstyle="none", label="naive crowds leave it")
    patches = [Patch(color=colour, label=f"{count:.0f} found") for count, colour in zip(counts, colours, strict=True)]
    axes.legend(handles=patches + marks, loc="upper right")
    axes.set(
        title="How many equilibria", xlabel="k0/k: competition, from full to little", ylabel="mean inventory at the open (lots)"
    )


def draw_principal(axes: Axes, store: xr.Dataset) -> None:
    """What the crowd agrees on at the open, in the principal equilibrium."""
    lean = (store.crowd_bid - store.crowd_ask).isel(time=0)
    mesh = axes.pcolormesh(store.dial, store.crowd_mean, lean.T, cmap="RdBu_r", vmin=-5.0, vmax=5.0)
    axes.figure.colorbar(mesh, ax=axes, label="bid offset less ask offset at the open", pad=0.02, aspect=30)
    axes.set(title="The principal one: how far the crowd leans", xlabel="k0/k", ylabel="mean inventory at the open (lots)")


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("store", nargs="?", default="results/phase.zarr", help="of configs/phase.yaml")
    store = open_store(options.parse_args().store).load()
    store["dial"] = store.k0 / store.attrs["spec"]["parameters"]["k"]
    figure, (left, right) = plt.subplots(1, 2, figsize=(WIDTH / DPI, HEIGHT / DPI), layout="constrained")
    draw_phases(left, store)
    draw_principal(right, store)
    figure.savefig(PICTURE, dpi=DPI)
    print(PICTURE)


if __name__ == "__main__":
    main()

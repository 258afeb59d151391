"""Draw notebooks/pictures/crowd.png, the picture at the top of the README: one crowd of market makers over one trading day."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import jax
import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.layout_engine import ConstrainedLayoutEngine

import mfg_jax as mfg

jax.config.update("jax_enable_x64", True)  # the tolerance of the fixed point is out of float32's reach

PICTURE = Path(__file__).resolve().parent.parent / "notebooks" / "pictures" / "crowd.png"
WIDTH, HEIGHT, DPI = 1600, 580, 150  # pixels, and pixels per inch

MODEL = mfg.Model(coupling="elastic")
K = 1.5
LONG_CROWD = mfg.Parameters(A=20.0, k=K, k0=0.5 * K, eta=0.1, gamma=0.3, crowd_mean=5.0, crowd_std=1.0)
FLAT_CROWD = replace(LONG_CROWD, crowd_mean=0.0)
DIAL = {0.0: "  full competition", 0.1: "", 0.25: "", 0.5: "", 1.0: "  no interaction"}  # k0/k
QUOTE_TIMES = {"at the open": 0.0, "at 0.8 day": 0.8, "at the close": 1.0}
COLOURS = mpl.colormaps["viridis"]


def solve(parameters: mfg.Parameters) -> mfg.Equilibrium:
    """The equilibrium of one game; nothing else may be drawn."""
    equilibrium = mfg.solve(MODEL, parameters)
    status = mfg.Status(int(equilibrium.status))
    assert status is mfg.Status.CONVERGED, status.explanation
    return equilibrium


def draw_density(axes: Axes, game: mfg.Equilibrium) -> None:
    """Where the makers are: the density over time, with the mean inventory."""
    mesh = axes.pcolormesh(game.time, game.inventory, game.density.T, cmap="viridis", vmin=0.0, rasterized=True)
    axes.figure.colorbar(mesh, ax=axes, label="fraction of makers", pad=0.02, aspect=30)
    axes.plot(game.time, game.density @ game.inventory, color="white", linewidth=2, label="mean")
    axes.legend(loc="upper right", labelcolor="white", frameon=False)
    axes.set(title="A crowd that starts long goes home flat", xlabel="time (day)", ylabel="inventory (lots)", ylim=(-5.5, 8.5))


def draw_quotes(axes: Axes, game: mfg.Equilibrium) -> None:
    """What a maker quotes at each inventory, relative to the mid price, at a few times."""
    for (label, time), colour in zip(QUOTE_TIMES.items(), _shades(len(QUOTE_TIMES)), strict=True):
        row = int(np.argmin(np.abs(game.time - time)))
        ask, bid = game.ask[row], -game.bid[row]
        axes.plot(game.inventory, ask, "^-", color=colour, markersize=4, label=label)
        axes.plot(game.inventory, bid, "v-", color=colour, markersize=4)
    axes.axhline(0.0, color="0.4", linewidth=0.8, zorder=0)
    axes.text(-5.3, 2.4, "asks")
    axes.text(5.3, -2.4, "bids", ha="right", va="top")
    axes.legend(loc="upper right", frameon=False)
    axes.set(title="Inventory moves a maker's quotes", xlabel="inventory (lots)", xlim=(-5.5, 5.5), ylim=(-3.2, 3.2))
    axes.set_ylabel("price quoted, from the mid (ticks)")


def draw_spreads(axes: Axes, games: Sequence[mfg.Equilibrium]) -> None:
    """The crowd's full spread over the day, as competition is turned off."""
    for dial, game, colour in zip(DIAL, games, _shades(len(DIAL)), strict=True):
        axes.plot(game.time, game.crowd_ask + game.crowd_bid, color=colour, label=f"{dial:g}{DIAL[dial]}")
    axes.legend(title="k0/k", alignment="left", frameon=False)
    axes.set(title="Rivals delay the closing squeeze", xlabel="time (day)", ylabel="full spread of the crowd (ticks)")


def _shades(count: int) -> list[tuple[float, ...]]:
    """Colours from dark to light that all stand out on white."""
    return [COLOURS(shade) for shade in np.linspace(0.0, 0.82, count)]


def main() -> None:
    long_crowd = solve(LONG_CROWD)
    flat_crowds = [solve(replace(FLAT_CROWD, k0=dial * K)) for dial in DIAL]
    plt.rc("font", size=9)
    plt.rc("axes", titlesize=10, titlelocation="left")
    plt.rc("axes.spines", top=False, right=False)
    layout = ConstrainedLayoutEngine(wspace=0.06)
    figure, axes = plt.subplots(1, 3, figsize=(WIDTH / DPI, HEIGHT / DPI), layout=layout, width_ratios=(1.15, 1, 1))
    draw_density(axes[0], long_crowd)
    draw_quotes(axes[1], long_crowd)
    draw_spreads(axes[2], flat_crowds)
    PICTURE.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(PICTURE, dpi=DPI)
    print(f"wrote {PICTURE} ({PICTURE.stat().st_size // 1000} kB)")


if __name__ == "__main__":
    main()

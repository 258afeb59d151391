"""What a store says of sensitivities, as a report with tables and plots."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import xarray as xr

from sweeps import markdown, plots
from sweeps.dataset import SCALARS
from sweeps.problems import did_you_mean, nearest
from sweeps.sensitivity import (
    CONVERGED,
    Indices,
    SensitivityError,
    differentiated,
    elasticities,
    sobol_indices,
    spread_over_games,
)

DEFAULT_METRICS = ("mean_spread", "closing_spread", "peak_variance", "final_derisk_probability", "expected_value")

ABOUT_ELASTICITIES = "By how many per cent a metric moves when a parameter moves by one, over the games of the store."
ABOUT_INDICES = """\
Shares of a metric's variance over the spans of the sweep: first, what an axis explains by itself; total, with all that it does
together with others; interaction, the difference. With 95 % intervals; small negative shares are noise."""
WIDE_FROM = 0.2
WIDE = "Some intervals reach {:.2f} to either side: these shares say little. Four times as many `points` halve them."


@dataclass(frozen=True)
class Study:
    """Tables by metric: elasticities where the store holds derivatives, indices where its design is a Saltelli one."""

    facts: list[str]
    elasticities: dict[str, pd.DataFrame]
    indices: dict[str, Indices]


def study(dataset: xr.Dataset, metrics: list[str]) -> Study:
    """Of the metrics named, or, without any, of those whose derivatives are stored and the usual ones.

    Raises:
        SensitivityError: there are no such metrics; the store holds neither derivatives nor a Saltelli design, or not of these.
    """
    known = [scalar.name for scalar in SCALARS]
    if unknown := [name for name in metrics if name not in known]:
        hint = did_you_mean(nearest(unknown[0], known))
        raise SensitivityError(f"{unknown[0]!r} is no scalar metric; allowed: {', '.join(known)}{hint}")
    design, held = dataset.attrs["spec"]["sampling"] == "saltelli", differentiated(dataset)
    if not design and not held:
        raise SensitivityError(
            "the store holds no derivatives and no Saltelli design; solve it with outputs: {gradients: [mean_spread, …]} for "
            "elasticities, or with sampling: saltelli for Sobol indices"
        )
    # of a Saltelli design indices can be told of every metric, so derivatives of some of them are a bonus
    locally = [name for name in metrics or held if name in held or not design]
    globally = (metrics or list(dict.fromkeys([*held, *DEFAULT_METRICS]))) if design else []
    converged = int((dataset["status"] == CONVERGED).sum())
    facts = [f"{dataset['status'].size} games, of which {converged} converged; the others are left out"]
    return Study(
        facts,
        {name: spread_over_games(elasticities(dataset, name)) for name in locally},
        {name: sobol_indices(dataset, name) for name in globally},
    )


def report(found: Study) -> str:
    """In Markdown."""
    parts = ["# Sensitivities", *(f"- {fact}" for fact in found.facts)]
    if found.elasticities:
        parts += ["## Elasticities", ABOUT_ELASTICITIES]
        for metric, table in found.elasticities.items():
            parts += [f"### {metric}", markdown.table(("parameter", "median", "5 %", "95 %"), _spreads(table))]
    if found.indices:
        parts += ["## Sobol indices", ABOUT_INDICES]
        for metric, indices in found.indices.items():
            left_out = f" ({indices.left_out} of {indices.blocks} blocks of the design left out)" if indices.left_out else ""
            parts += [f"### {metric}{left_out}", markdown.table(("axis", "first", "total", "interaction"), _shares(indices.table))]
        widest = max(float(one.table[["first_half_width", "total_half_width"]].to_numpy().max()) for one in found.indices.values())
        parts += [WIDE.format(widest)] if widest > WIDE_FROM else []
    return "\n\n".join(parts) + "\n"


def _spreads(table: pd.DataFrame) -> Iterator[tuple[str, ...]]:
    for row in table.to_dict("records"):
        yield str(row["parameter"]), *(f"{row[name]:.3g}" for name in ("median", "low", "high"))


def _shares(table: pd.DataFrame) -> Iterator[tuple[str, ...]]:
    for row in table.to_dict("records"):
        first, total = (f"{row[name]:.3f} ± {row[f'{name}_half_width']:.3f}" for name in ("first", "total"))
        yield str(row["axis"]), first, total, f"{row['interaction']:.3f}"


def write(found: Study, folder: Path, tables: str) -> list[Path]:
    """report.md, the tables as .csv or .parquet, and plots (which need the extra `viz`), into a folder that is made if need be.

    Raises:
        ImportError: without pyarrow for .parquet.
        OSError: the folder cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    text = folder / "report.md"
    text.write_text(report(found), encoding="utf-8")
    written = [text]
    indices = {metric: one.table for metric, one in found.indices.items()}
    for name, by_metric, draw in (
        ("elasticities", found.elasticities, _draw_tornados),
        ("indices", indices, _draw_indices),
    ):
        if by_metric:
            written.append(_write_table(by_metric, folder / f"{name}.{tables}"))
        if by_metric and plots.can_be_drawn():
            written.append(_save(draw, by_metric, folder / f"{name}.png"))
    if len(found.elasticities) > 1 and plots.can_be_drawn():
        written.append(_save(_draw_heat_map, found.elasticities, folder / "heat_map.png"))
    return written


def _write_table(by_metric: dict[str, pd.DataFrame], path: Path) -> Path:
    table = pd.concat([one.assign(metric=metric) for metric, one in by_metric.items()], ignore_index=True)
    table.insert(0, "metric", table.pop("metric"))
    table.to_parquet(path, index=False) if path.suffix == ".parquet" else table.to_csv(path, index=False)
    return path


def _save(draw: Callable, content: dict[str, pd.DataFrame], path: Path) -> Path:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(1.5 + 3.5 * len(content), 4.0), layout="constrained")
    draw(figure, content)
    figure.savefig(path, dpi=120)
    return path


def _draw_tornados(figure, by_metric: dict[str, pd.DataFrame]) -> None:
    """Bars from the 5 % to the 95 % quantile, the longest on top, with the median."""
    for ax, (metric, table) in zip(np.atleast_1d(figure.subplots(1, len(by_metric))), by_metric.items(), strict=True):
        rows = table.iloc[::-1]
        ax.barh(rows.parameter, rows.high - rows.low, left=rows.low, color="#56B4E9")
        ax.plot(rows["median"], rows.parameter, "k|", markersize=12)
        ax.axvline(0.0, color="0.5", linewidth=0.8)
        ax.set(title=metric, xlabel="elasticity")


def _draw_indices(figure, by_metric: dict[str, pd.DataFrame]) -> None:
    """What each axis explains by itself, and below it with all that it does together with others: the gap is the interaction."""
    for ax, (metric, table) in zip(np.atleast_1d(figure.subplots(1, len(by_metric))), by_metric.items(), strict=True):
        rows = table.iloc[::-1]
        places = np.arange(len(rows))
        for name, label, above, colour in (("first", "by itself", 0.2, "#0072B2"), ("total", "with others", -0.2, "#E69F00")):
            ax.barh(places + above, rows[name], height=0.4, color=colour, label=label)
            ax.errorbar(rows[name], places + above, xerr=rows[f"{name}_half_width"], fmt="none", ecolor="k", capsize=3)
        ax.axvline(0.0, color="0.5", linewidth=0.8)
        ax.set_yticks(places, rows.axis)
        ax.set(title=metric, xlabel="share of the variance")
        ax.legend()


def _draw_heat_map(figure, by_metric: dict[str, pd.DataFrame]) -> None:
    """Median elasticities, metrics against parameters."""
    table = pd.concat({metric: one.set_index("parameter")["median"] for metric, one in by_metric.items()}, axis=1)
    most = float(table.abs().to_numpy().max())
    ax = figure.subplots()
    mesh = ax.imshow(table, cmap="RdBu_r", vmin=-most, vmax=most, aspect="auto")
    ax.set_xticks(range(table.shape[1]), table.columns)
    ax.set_yticks(range(table.shape[0]), table.index)
    figure.colorbar(mesh, ax=ax, label="median elasticity")

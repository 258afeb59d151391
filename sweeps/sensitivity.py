"""Which parameter moves what: local elasticities from stored derivatives, and Sobol indices of a Saltelli design."""

from __future__ import annotations

from dataclasses import fields
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import xarray as xr

from sweeps.dataset import STATUSES
from sweeps.schema import SCALAR_METRICS

CONVERGED = STATUSES.index("converged")
QUANTILES = (0.05, 0.5, 0.95)
BOOTSTRAP_SEED = 1  # SALib takes 0 for none


class SensitivityError(ValueError):
    """A store of which the question cannot be answered; the message says what would help."""


class Indices(NamedTuple):
    """Sobol indices of one metric."""

    table: pd.DataFrame
    """A row an axis: `first` and `total` with the half widths of their 95 % intervals, and `interaction`, total less first."""
    blocks: int
    """Of the design, and how many were left out because a game of theirs did not converge or has no such number."""
    left_out: int


def differentiated(dataset: xr.Dataset) -> list[str]:
    """The metrics whose derivatives the store holds."""
    return [name for name in SCALAR_METRICS if f"d_{name}" in dataset]


def elasticities(dataset: xr.Dataset, metric: str) -> xr.DataArray:
    """By how many per cent a metric moves when a parameter moves by one: derivative · parameter / metric.

    Args:
        dataset: an open store.
        metric: one whose derivatives it holds.

    Returns:
        Along the sweep's dims and `parameter`; NaN where a game did not converge. Parameters that are 0 or infinite everywhere have
        no per cent and are left out.

    Raises:
        SensitivityError: the store does not hold the derivatives.
    """
    if f"d_{metric}" not in dataset:
        held = ", ".join(differentiated(dataset)) or "none"
        raise SensitivityError(
            f"the store holds no derivatives of {metric} (of {held}); solve it with outputs: {{gradients: [{metric}]}}"
        )
    derivatives = dataset[f"d_{metric}"].where(dataset["status"] == CONVERGED)
    names = [name for name in map(str, derivatives["parameter"].values) if _moves(_parameter(dataset, name))]
    values = xr.concat([_parameter(dataset, name) for name in names], dim=pd.Index(names, name="parameter"), coords="minimal")
    found = derivatives.sel(parameter=names) * values / dataset[metric]
    return (
        found.transpose(*dataset["status"].dims, "parameter")
        .rename(f"e_{metric}")
        .assign_attrs(units="1", long_name=f"elasticity of {metric}")
    )


def _parameter(dataset: xr.Dataset, name: str) -> xr.DataArray:
    """Swept, fixed, or the library's default."""
    if name in dataset.coords:
        return dataset[name].reset_coords(drop=True)
    fixed = dataset.attrs["spec"]["parameters"]
    return xr.DataArray(float(fixed[name]) if name in fixed else _defaults()[name])


def _defaults() -> dict[str, Any]:
    from mfg_jax.parameters import Parameters

    return {field.name: field.default for field in fields(Parameters)}


def _moves(values: xr.DataArray) -> bool:
    return bool((np.isfinite(values) & (values != 0)).any())


def spread_over_games(elasticity: xr.DataArray) -> pd.DataFrame:
    """Median and 5 % and 95 % quantiles over the games that converged: a row a parameter, largest median first."""
    along = elasticity.stack(game=[dim for dim in elasticity.dims if dim != "parameter"]).transpose("game", "parameter")
    numbers = along.values[np.isfinite(along.values).any(axis=1)]
    if not numbers.size:
        raise SensitivityError("no game of the store converged")
    table = pd.DataFrame(np.nanquantile(numbers, QUANTILES, axis=0).T, columns=["low", "median", "high"])
    table.insert(0, "parameter", list(map(str, along["parameter"].values)))
    return table.sort_values("median", key=abs, ascending=False, ignore_index=True)


def sobol_indices(dataset: xr.Dataset, metric: str) -> Indices:
    """First-order and total indices of one metric over the axes of a Saltelli design, by SALib.

    A block of the design in which a game did not converge, or has no such number, is left out whole.

    Args:
        dataset: an open store whose sampling was saltelli.
        metric: a stored scalar.

    Raises:
        SensitivityError: another sampling, a metric that is not there or does not vary, or fewer than two whole blocks.
    """
    spec = dataset.attrs["spec"]
    if spec["sampling"] != "saltelli":
        raise SensitivityError(f"Sobol indices need a sweep with sampling: saltelli; this one has {spec['sampling']}")
    if metric not in dataset or dataset[metric].dims != ("point",):
        raise SensitivityError(f"no scalar {metric}; allowed: {', '.join(name for name in SCALAR_METRICS if name in dataset)}")
    from SALib.analyze import sobol

    axes = spec["sweep_order"]
    values = dataset[metric].where(dataset["status"] == CONVERGED).values.reshape(-1, len(axes) + 2)
    whole = values[np.isfinite(values).all(axis=1)]
    if len(whole) < 2:
        raise SensitivityError(f"{metric}: {len(whole)} of {len(values)} blocks of the design are whole; at least 2 are needed")
    if np.ptp(whole) == 0:
        raise SensitivityError(f"{metric}: is {whole[0, 0]:g} in every game, so nothing moves it")
    problem = {"num_vars": len(axes), "names": axes, "bounds": [[0.0, 1.0]] * len(axes)}
    found = sobol.analyze(problem, whole.ravel(), calc_second_order=False, seed=BOOTSTRAP_SEED)
    table = pd.DataFrame(
        {
            "axis": axes,
            "first": found["S1"],
            "first_half_width": found["S1_conf"],
            "total": found["ST"],
            "total_half_width": found["ST_conf"],
            "interaction": found["ST"] - found["S1"],
        }
    ).sort_values("total", ascending=False, ignore_index=True)
    return Indices(table, len(values), len(values) - len(whole))

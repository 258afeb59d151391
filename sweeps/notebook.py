"""A sweep, or some of it, in a notebook."""

from __future__ import annotations

import html
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import xarray as xr

MOST_BYTES = 4_000_000
"""Of the games in one output, beside plotly.js, which takes 5 MB: all of it is kept in the notebook's file."""


@dataclass(frozen=True)
class Shown:
    """What a notebook shows: the page of `mfgsweep report`, in a frame of its own that reaches no network."""

    page: str

    def _repr_html_(self) -> str:
        style = "width: 100%; height: 800px; border: 0"
        return f'<iframe sandbox="allow-scripts" style="{style}" srcdoc="{html.escape(self.page)}"></iframe>'


def show(dataset: xr.Dataset, **point: float | str) -> Shown:
    """The figures of a sweep, with sliders for what `point` leaves open; of one game where it leaves nothing.

    Args:
        dataset: as `xr.open_zarr` opens a store.
        point: values of swept parameters, or the number of a game as `point`, by name: `show(dataset, A=10, gamma=0.05)`.

    Raises:
        ValueError: a name that is not swept, or a value that the sweep does not have.
    """
    import numpy as np

    from sweeps.problems import brief, not_among
    from sweeps.viewer.report import document

    if "status" not in dataset:
        raise ValueError("found a dataset without status; allowed: one as xr.open_zarr opens a store, or games of it")
    sweep = dataset["status"].dims
    coordinates = {str(name): values for name, values in dataset.coords.items() if values.dims and set(values.dims) <= set(sweep)}
    coordinates |= {str(dim): dataset[dim] for dim in sweep if dim not in coordinates}
    for name, value in point.items():
        if name not in coordinates:
            raise ValueError(f"{name}: {not_among(name, coordinates)}")
        if np.ndim(value):
            raise ValueError(f"{name}: found {value}; allowed: one value; take several with dataset.sel before")
        values = dataset[name].values
        numbers = values.dtype.kind in "iuf" and not isinstance(value, str)
        same = np.isclose(values, value, rtol=1e-9, atol=0.0) if numbers else values == value
        if not same.any():
            raise ValueError(f"{name}: found {value}; allowed: {brief(', '.join(map(str, np.unique(coordinates[name]).tolist())))}")
        dataset = dataset.isel({coordinates[name].dims[0]: np.flatnonzero(same)})
    return Shown(document(dataset, ", ".join(f"{name} = {value}" for name, value in point.items()), [], MOST_BYTES).html)

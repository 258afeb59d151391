"""A store as a file of another kind."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import xarray as xr

from sweeps.dataset import loaded
from sweeps.files import written_whole


class ExportError(ValueError):
    """A file that cannot be written; the message says what to do."""


def table(dataset: xr.Dataset) -> pd.DataFrame:
    """One row a game: swept values, status, and every scalar; what has a side or a parameter becomes a column for each."""
    sweep = dataset["status"].dims
    scalars = dataset[[name for name, variable in dataset.data_vars.items() if variable.dims == sweep]]
    for name, variable in dataset.data_vars.items():
        if variable.dims[:-1] == sweep and variable.dims[-1] in ("side", "parameter"):
            dim = variable.dims[-1]
            for label in variable[dim].values:
                scalars[f"{name}_{label}"] = variable.sel({dim: label}, drop=True)
    return loaded(scalars).to_dataframe(dim_order=list(map(str, sweep))).reset_index()


def _to_netcdf(dataset: xr.Dataset, path: Path) -> None:
    plain = loaded(dataset).drop_attrs(deep=False)
    for name in plain.variables:  # netCDF has no variable-length text of NumPy's kind, no truth values, and no nested attributes
        if plain[name].dtype.kind in "UT":
            plain[name] = plain[name].astype(object)
    plain.attrs = {key: value if type(value) in (int, float, str) else str(value) for key, value in dataset.attrs.items()}
    plain.to_netcdf(path, engine="h5netcdf")


WRITERS: dict[str, Callable[[xr.Dataset, Path], None]] = {
    ".csv": lambda dataset, path: table(dataset).to_csv(path, index=False),
    ".parquet": lambda dataset, path: table(dataset).to_parquet(path, index=False),
    ".nc": _to_netcdf,
}


def export(dataset: xr.Dataset, path: Path) -> None:
    """Writes .csv or .parquet (one row a game, scalars only) or .nc (everything), whole or not at all.

    Raises:
        ExportError: another ending, or a package that is missing.
        OSError: the folder is not there, or the file cannot be written.
    """
    if path.suffix not in WRITERS:
        raise ExportError(f"{path}: found the ending {path.suffix!r}; allowed: {', '.join(WRITERS)}")
    try:
        with written_whole(path) as unfinished:
            WRITERS[path.suffix](dataset, unfinished)
    except ImportError:
        package = {".parquet": "pyarrow", ".nc": "h5netcdf and h5py"}[path.suffix]
        raise ExportError(f"{path}: needs {package}; install it with: {sys.executable} -m pip install 'mfg-jax[export]'") from None

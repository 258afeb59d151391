"""A labelled game, or a slice of a sweep → plain plotly dicts: what every interactive picture is made of.

Plain dicts with base64 arrays take a tenth of the time of `go.Figure` objects. Colours are those of Viridis, Cividis and Okabe and
Ito, which people with colour-blindness can tell apart; what is light and what is dark is left to the page.
"""

from __future__ import annotations

import base64
import textwrap
from collections.abc import Hashable, Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
import xarray as xr

from sweeps.dataset import CERTIFICATES, CONVERGED, FULL_CERTIFICATES, PATHS, SCALARS, STATUSES, SURFACES, Variable

Figure = dict[str, Any]
"""`data` and `layout`, as plotly.js takes them."""

BLUE, ORANGE = "#0072B2", "#E69F00"
SCALES = {"value": "Viridis", "ask": "Cividis", "bid": "Cividis", "density": "Viridis"}
TITLES = {
    "value": "value function",
    "ask": "ask offset",
    "bid": "bid offset",
    "density": "crowd",
    "full_spread": "full spread",
    "inventory_variance": "inventory variance",
    "derisk_probability": "de-risk probability",
    "marginal_value": "marginal value",
}
"""Of the figures of a game, by the variable that each shows."""
MOST_TIMES = 51
"""Of a surface: enough for the eye, as stored times are closer together where much happens."""
MOST_CELLS = 100
"""Of a slice along each of its axes."""
MOST_POINTS = 4_000
"""Of a cloud of games."""


class Slice(NamedTuple):
    """A figure of many games, and where they are: the places along each of its axes, for those who click on it."""

    figure: Figure
    places: dict[str, list[int]]


def game_figures(game: xr.Dataset) -> dict[str, Figure]:
    """All figures of one game, by variable; where a variable is not stored, one that says how to get it.

    Args:
        game: one game of a store (`dataset.sel(A=10, …)`): variables over `time` and `inventory`, with their units as attributes.
    """
    surfaces = {v.name: _surface(game[v.name]) if v.name in game else _lacking(v, "surfaces") for v in SURFACES}
    paths = {v.name: _path(game[v.name]) if v.name in game else _lacking(v, "paths") for v in PATHS if v.name in TITLES}
    return surfaces | paths


def pending_figures() -> dict[str, Figure]:
    """Those of a game that is not solved yet."""
    return {name: note("This game is not solved yet.") for name in TITLES}


def metrics(game: xr.Dataset) -> list[dict[str, Any]]:
    """The scalars and certificates of one game: `name`, `label`, `units`, and `value`, None where there is no number."""
    known = [variable.name for variable in (*SCALARS, *CERTIFICATES, *FULL_CERTIFICATES)]
    scalars = [str(name) for name, values in game.data_vars.items() if values.ndim == 0 and name != "status"]
    scalars.sort(key=lambda name: known.index(name) if name in known else len(known))
    about = {name: {"label": game[name].attrs.get("long_name", name), "units": units(game[name])} for name in scalars}
    return [{"name": name, **about[name], "value": number(game[name].item())} for name in scalars]


def heat_map(scalar: xr.DataArray, status: xr.DataArray) -> Slice:
    """A scalar over two dims [y, x] of a sweep; crosses mark games that did not converge. Long dims are thinned."""
    scalar, status, places = _thinned(scalar, status, MOST_CELLS)
    y, x = (str(dim) for dim in scalar.dims)
    across, up = _names(scalar[x]), _names(scalar[y])
    failed = _failed(status)
    rows, columns = np.nonzero(failed)
    cells = {
        "type": "heatmap",
        "x": across,
        "y": up,
        "z": encoded(scalar.values),
        "colorscale": "Viridis",
        "colorbar": {"title": {"text": symbol(scalar), "side": "right"}, "thickness": 12},
        "hovertemplate": f"{x} %{{x}}<br>{y} %{{y}}<br>%{{z:.5g}}<extra></extra>",
    }
    crosses = _crosses([across[i] for i in columns], [up[i] for i in rows], [STATUSES[i] for i in status.values[failed]])
    axes = {"xaxis": {"title": symbol(scalar[x]), "type": "category"}, "yaxis": {"title": symbol(scalar[y]), "type": "category"}}
    return Slice(_flat([cells, crosses], axes), places)


def lines(scalar: xr.DataArray, status: xr.DataArray) -> Slice:
    """A scalar over one dim of a sweep; crosses mark games that did not converge."""
    scalar, status, places = _thinned(scalar, status, MOST_POINTS)
    (x,) = (str(dim) for dim in scalar.dims)
    numeric = _finite(scalar[x])
    across = scalar[x].values.tolist() if numeric else _names(scalar[x])
    failed = _failed(status)
    line = {
        "type": "scatter",
        "mode": "lines+markers",
        "x": across,
        "y": encoded(scalar.values),
        "line": {"color": BLUE},
        "hovertemplate": f"{x} %{{x}}<br>%{{y:.5g}}<extra></extra>",
    }
    at = np.flatnonzero(failed)
    crosses = _crosses([across[i] for i in at], scalar.values[at].tolist(), [STATUSES[i] for i in status.values[at]])
    kind = "category" if not numeric else "log" if _spans_decades(scalar[x].values) else "linear"
    axes = {"xaxis": {"title": symbol(scalar[x]), "type": kind}, "yaxis": {"title": symbol(scalar)}}
    return Slice(_flat([line, crosses], axes), places)


def cloud(scalar: xr.DataArray, status: xr.DataArray, x: str, y: str) -> Slice:
    """A scalar along `point`, as colours in the plane of two swept parameters; crosses mark games that did not converge."""
    scalar, status, places = _thinned(scalar, status, MOST_POINTS)
    failed = _failed(status)
    across, up = (plain(scalar[name].values) for name in (x, y))
    games = {
        "type": "scatter",
        "mode": "markers",
        "x": across,
        "y": up,
        "marker": {
            "color": encoded(scalar.values),
            "colorscale": "Viridis",
            "showscale": True,
            "colorbar": {"title": {"text": symbol(scalar), "side": "right"}, "thickness": 12},
        },
        "hovertemplate": f"{x} %{{x:.5g}}<br>{y} %{{y:.5g}}<br>%{{marker.color:.5g}}<extra></extra>",
    }
    at = np.flatnonzero(failed)
    crosses = _crosses([across[i] for i in at], [up[i] for i in at], [STATUSES[i] for i in status.values[at]])
    axes = {"xaxis": {"title": symbol(scalar[x])}, "yaxis": {"title": symbol(scalar[y])}}
    return Slice(_flat([games, crosses], axes), places)


def label(variable: xr.DataArray) -> str:
    """What it is, with its units."""
    return f"{variable.attrs.get('long_name', variable.name)}{_in_parentheses(units(variable))}"


def symbol(variable: xr.DataArray) -> str:
    """Its name with its units, for an axis."""
    return f"{variable.name}{_in_parentheses(units(variable))}"


def _in_parentheses(text: str) -> str:
    return f" ({text})" if text else ""


def units(variable: xr.DataArray) -> str:
    """Empty for plain numbers."""
    found = variable.attrs.get("units", "1")
    return "" if found == "1" else str(found)


def note(text: str) -> Figure:
    """A figure that says something instead of showing it."""
    written = {
        "text": "<br>".join(textwrap.wrap(text, 38)),
        "showarrow": False,
        "xref": "paper",
        "yref": "paper",
        "x": 0.5,
        "y": 0.5,
    }
    return _flat([], {"xaxis": {"visible": False}, "yaxis": {"visible": False}, "annotations": [written]})


def encoded(values: np.ndarray, dtype: str = "f4") -> dict[str, str]:
    """An array [n] or [rows, columns] as plotly.js decodes it."""
    array = np.ascontiguousarray(values, f"<{dtype}")
    shape = {"shape": ", ".join(map(str, array.shape))} if array.ndim > 1 else {}
    return {"dtype": dtype, "bdata": base64.b64encode(array.tobytes()).decode(), **shape}


def number(value: float) -> float | None:
    """As JSON has it: neither NaN nor infinity."""
    return float(value) if np.isfinite(value) else None


def plain(values: np.ndarray) -> list[float | str]:
    """A coordinate as JSON has it: infinities, as quote bounds may have, as text."""
    return [value if not isinstance(value, float) or np.isfinite(value) else str(value) for value in values.tolist()]


def spread_evenly(length: int, most: int) -> np.ndarray:
    """At most so many of the places 0 … length − 1, the first and the last among them."""
    return np.unique(np.linspace(0, length - 1, min(length, most)).round().astype(int))


def _surface(surface: xr.DataArray) -> Figure:
    """Over time and inventory, as a mesh: what plotly.js calls a surface it first makes twenty times as fine, and slow."""
    surface = surface.transpose("time", "inventory")
    surface = surface.isel(time=spread_evenly(surface.sizes["time"], MOST_TIMES))
    inventory, time = np.meshgrid(surface["inventory"].values, surface["time"].values)
    heights = surface.values.ravel()
    corners = _triangles(*surface.shape)
    corners = corners[:, np.isfinite(heights)[corners].all(axis=0)]
    whole = "u2" if heights.size <= 65_536 else "u4"
    mesh = {
        "type": "mesh3d",
        **{axis: encoded(values.ravel()) for axis, values in (("x", inventory), ("y", time), ("z", heights))},
        **{corner: encoded(places, whole) for corner, places in zip("ijk", corners, strict=True)},
        "intensity": encoded(heights),
        "colorscale": SCALES.get(str(surface.name), "Viridis"),
        "showscale": False,
        "lighting": {"ambient": 0.75, "diffuse": 0.5, "specular": 0.05},
        "hovertemplate": "inventory %{x:.0f}<br>time %{y:.3f}<br>%{z:.5g}<extra></extra>",
    }
    scene = {
        "xaxis": {"title": {"text": f"inventory ({units(surface['inventory'])})"}, "nticks": 5},
        "yaxis": {"title": {"text": "share of the day"}, "nticks": 4},
        "zaxis": {"title": {"text": units(surface) or "fraction"}, "nticks": 5},
        "aspectmode": "manual",
        "aspectratio": {"x": 0.78, "y": 0.78, "z": 0.55},
        "uirevision": "camera",
    }
    return {"data": [mesh], "layout": {"scene": scene, "margin": {"l": 0, "r": 0, "t": 0, "b": 0}, "uirevision": "page"}}


def _triangles(rows: int, columns: int) -> np.ndarray:
    """The corners [3, triangle] of two triangles for each cell between the points of a grid, counted row by row."""
    at = np.arange(rows * columns).reshape(rows, columns)
    here, right, below, across = (part.ravel() for part in (at[:-1, :-1], at[:-1, 1:], at[1:, :-1], at[1:, 1:]))
    return np.concatenate([[here, right, below], [right, across, below]], axis=1)


def _path(path: xr.DataArray) -> Figure:
    line = {
        "type": "scatter",
        "mode": "lines",
        "x": encoded(path["time"].values),
        "y": encoded(path.values),
        "line": {"color": BLUE, "width": 2},
        "hovertemplate": "time %{x:.3f}<br>%{y:.5g}<extra></extra>",
    }
    return _flat([line], {"xaxis": {"title": "share of the day"}, "yaxis": {"title": units(path)}})


def _lacking(variable: Variable, output: str) -> Figure:
    return note(
        f"{variable.name} is not stored. Write {output}: true below outputs in the grid file, then: mfgsweep extend STORE GRID.yaml"
    )


def _flat(data: list[dict[str, Any]], axes: dict[str, Any]) -> Figure:
    for axis in ("xaxis", "yaxis"):
        if isinstance(title := axes[axis].get("title"), str):
            axes[axis] |= {"title": {"text": title, "standoff": 6}}
    layout = {"margin": {"l": 62, "r": 12, "t": 10, "b": 38}, "showlegend": False, "uirevision": "page", "hovermode": "closest"}
    return {"data": data, "layout": layout | axes}


def _crosses(x: Sequence[Any], y: Sequence[Any], statuses: Iterable[str]) -> dict[str, Any]:
    """Marks of games that did not converge."""
    return {
        "type": "scatter",
        "mode": "markers",
        "x": list(x),
        "y": [number(value) if isinstance(value, float) else value for value in y],
        "text": [status.replace("_", " ") for status in statuses],
        "hovertemplate": "%{x}, %{y}<br>no equilibrium: %{text}<extra></extra>",
        "marker": {"symbol": "x", "size": 9, "color": "#D55E00", "line": {"color": "white", "width": 1}},
    }


def _failed(status: xr.DataArray) -> np.ndarray:
    return (status.values != CONVERGED) & (status.values != 0)


def _thinned(scalar: xr.DataArray, status: xr.DataArray, most: int) -> tuple[xr.DataArray, xr.DataArray, dict[str, list[int]]]:
    """Numbers that are there, and the places that they were at along each dim. Numbers of pending games mean nothing."""
    places: dict[Hashable, np.ndarray] = {dim: spread_evenly(length, most) for dim, length in scalar.sizes.items()}
    status = status.isel(places).load()  # first: what is done then has its number
    scalar = scalar.isel(places).load()
    return scalar.where(status != 0), status, {str(dim): found.tolist() for dim, found in places.items()}


def _names(coordinate: xr.DataArray) -> list[str]:
    """Its values as texts, all different."""
    values = coordinate.values
    if values.dtype.kind != "f":
        return [str(value) for value in values]
    short = [f"{value:.4g}" for value in values]
    return short if len(set(short)) == len(short) else [repr(float(value)) for value in values]


def _finite(coordinate: xr.DataArray) -> bool:
    return coordinate.dtype.kind in "iuf" and bool(np.isfinite(coordinate.values).all())


def _spans_decades(values: np.ndarray) -> bool:
    return bool((values > 0).all() and values.max() >= 10 * values.min())

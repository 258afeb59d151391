"""A stored variable as a figure for a paper: a column wide, with units, in colours that everybody tells apart."""

from __future__ import annotations

import difflib
import itertools
import textwrap
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import xarray as xr

from sweeps.choosing import Coordinates, numbered, places, shown, spread_out, varying
from sweeps.dataset import ATTEMPT, CONVERGED, KEPT, STATUS, STATUSES
from sweeps.files import written_whole

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize
    from matplotlib.figure import Figure

ENDINGS = (".png", ".svg", ".pdf")
SIZE = (3.4, 2.6)
"""Inches: one column of a paper."""
DPI = 300
STYLE: Any = {
    "font.size": 8,
    "axes.labelsize": 8,
    "legend.fontsize": 7,
    "legend.title_fontsize": 7,
    "lines.linewidth": 1.2,
    "lines.markersize": 3,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "pdf.fonttype": 42,  # letters stay letters: journals refuse others
}
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#000000")
"""Okabe and Ito's, for names."""
SHADES, SIGNED_SHADES = "viridis", "PuOr"
"""For numbers, and for numbers of both signs."""
DASHES = ("-", "--", ":", "-.")
"""For names too: what is printed without colours, or lies on another line, is told apart."""
LIGHTEST_LINE = 0.85
"""Of the shades; what is lighter does not stand out on white."""
MOST_IN_A_LEGEND = 7
MOST_MARKED = 40
LEVELS = 12
LETTERS_A_LINE = 36


class DrawingError(ValueError):
    """A figure that cannot be drawn; the message says what to do."""


class Picture(NamedTuple):
    """What is to be drawn."""

    values: xr.DataArray
    """Over one dim or two, or along `point` with two coordinates; NaN where nothing is drawn."""
    facts: list[str]
    """What a caption must say."""
    lines: bool
    """Of a surface, over inventory, instead of contours."""


def picture(dataset: xr.Dataset, what: str, at: str, times: int | None = None) -> Picture:
    """A variable of the games that have the values `at` (also of its other dims) and converged.

    Args:
        times: of a surface, lines at so many times instead of contours.

    Raises:
        DrawingError: there is no such variable, or nothing or too much to be drawn. ChoiceError: there are no such games.
    """
    names = sorted(map(str, dataset.data_vars.keys() - {STATUS.name, ATTEMPT.name, KEPT.name}))
    if what not in names:
        near = sorted(names, key=lambda name: -difflib.SequenceMatcher(None, what.lower(), name.lower()).ratio())
        raise DrawingError(f"found {what!r}, which is no variable to be drawn; allowed, the nearest first: {', '.join(near)}")
    every = dataset[what]
    coordinates = _coordinates(every)
    chosen = places(at, coordinates)
    free = varying(coordinates, chosen)
    if sum(along.size > 1 for along in chosen.values()) > 2:
        raise DrawingError(_too_much(free))
    status = dataset[STATUS.name]
    status = status.isel({dim: chosen[str(dim)] for dim in status.dims}).load()
    values = every.isel(chosen).load()
    values = values.where((status == CONVERGED) & np.isfinite(values))
    facts = [f"{what}: {every.attrs.get('long_name', what)}", *([f"at {at}"] if at else []), *_left_out(values, status)]
    if not values.notnull().any():
        raise DrawingError(f"nothing to draw: {'; '.join(facts)}")
    values = _over_free_dims(values, free)
    if times is not None:
        if set(values.dims) != {"time", "inventory"}:
            raise DrawingError("--times: goes with a surface of one game, such as ask; leave it out")
        values = values.isel(time=spread_out(values["time"].values, times))
    return Picture(values, facts, lines=times is not None)


def _left_out(values: xr.DataArray, status: xr.DataArray) -> list[str]:
    """Of which games nothing is drawn."""
    said = []
    converged = status == CONVERGED
    if not converged.all():
        failed = Counter(STATUSES[code].replace("_", " ") for code in status.values[~converged.values].tolist())
        counts = ", ".join(f"{count} {name}" for name, count in failed.most_common())
        said.append(f"left out: {failed.total()} of {status.size} games, which did not converge ({counts})")
    if missing := int((converged & values.isnull().all(set(values.dims) - set(status.dims))).sum()):
        said.append(f"left out: {missing} converged games, which have no {values.name}")
    return said


def _coordinates(values: xr.DataArray) -> Coordinates:
    """In the order of the dims."""
    along = {str(name): ((str(of.dims[0]),), of.values) for name, of in values.coords.items()}
    return numbered(dict(sorted(along.items(), key=lambda item: values.dims.index(item[1][0][0]))))


def _over_free_dims(values: xr.DataArray, free: Sequence[str]) -> xr.DataArray:
    """Over the dims of several places alone, in rising order, `point` replaced by what varies along it."""
    values = values.squeeze()
    if "point" in values.dims:
        swept = [name for name in free if name in values.coords and values[name].dims == ("point",)]
        if len(swept) == 1:
            values = values.swap_dims(point=swept[0])
        elif len(swept) != 2 or values.ndim > 1:
            raise DrawingError(_too_much(free))
    if not values.ndim:
        raise DrawingError(f"nothing to draw: one number, {shown(values.item())}")
    if "parameter" in values.dims:
        raise DrawingError("derivatives in several parameters have several units; choose one, as --at parameter=gamma")
    return values.sortby([dim for dim in values.dims if dim != "point" and not _is_named(values[dim])])


def _too_much(free: Sequence[str]) -> str:
    return f"a figure shows two dims at most; give --at a value of some of {', '.join(free)}, as --at {free[0]}=…"


def write(found: Picture, path: Path) -> None:
    """Draws it as .png, .svg or .pdf.

    Raises:
        DrawingError: another ending. OSError: the folder is not there, or the file cannot be written.
    """
    if path.suffix not in ENDINGS:
        raise DrawingError(f"--output: found the ending {path.suffix!r}; allowed: {', '.join(ENDINGS)}")
    import matplotlib as mpl
    from matplotlib.figure import Figure

    with mpl.rc_context(STYLE), written_whole(path) as unfinished:
        figure = Figure(figsize=SIZE, layout="constrained")
        draw(figure, found)
        figure.savefig(unfinished, dpi=DPI)


def draw(figure: Figure, found: Picture) -> None:
    """Draws values over one dim as a line; over two as lines, where one is time, inventory or of names, and else as a map."""
    ax, values = figure.subplots(), found.values
    if values.dims == ("point",):
        _draw_points(ax, values)
    elif values.ndim == 1:
        _draw_lines(ax, values, str(values.dims[0]), None)
    elif set(values.dims) == {"time", "inventory"}:
        _draw_lines(ax, values, "inventory", "time") if found.lines else _draw_contours(ax, values)
    elif (x := next((dim for dim in ("time", "inventory") if dim in values.dims), None)) or any(map(_is_named, _axes(values))):
        x = x or str(min(_axes(values), key=_is_named).name)
        _draw_lines(ax, values, x, next(str(dim) for dim in values.dims if dim != x))
    else:
        _draw_map(ax, values)


def _draw_lines(ax: Axes, values: xr.DataArray, x: str, other: str | None) -> None:
    """One over `x` for each value of another dim."""
    across = values[x]
    marker = "o" if across.size <= MOST_MARKED and x not in ("time", "inventory") else None
    lines = values.transpose(other, x).values if other else [values.values]
    styles: list[Any] = _styles(values[other]) if other else [{"color": COLOURS[0]}]
    for line, style in zip(lines, styles, strict=True):
        ax.plot(_positions(across), line, marker=marker, **style)
    if other and (values[other].size <= MOST_IN_A_LEGEND or _is_named(values[other])):
        ax.legend(title=_label(values[other]), frameon=False)
    elif other:
        ax.figure.colorbar(_line_shades(values[other]), ax=ax, label=_label(values[other]))
    ax.set(xlabel=_label(across), ylabel=_label(values), xscale="log" if _is_logarithmic(across) else "linear")


def _draw_contours(ax: Axes, values: xr.DataArray) -> None:
    """Filled, time from left to right, inventory upwards."""
    over = values.transpose("inventory", "time")
    shades, scale = _shades(values)
    shapes = ax.contourf(over["time"], over["inventory"], np.ma.masked_invalid(over.values), LEVELS, cmap=shades, norm=scale)
    ax.figure.colorbar(shapes, ax=ax, label=_label(values))
    ax.set(xlabel=_label(values["time"]), ylabel=_label(values["inventory"]))


def _draw_map(ax: Axes, values: xr.DataArray) -> None:
    """A cell for each game, the first dim from left to right; cells of games that are left out are grey."""
    x, y = _axes(values)
    shades, scale = _shades(values)
    cells = ax.pcolormesh(_edges(x), _edges(y), np.ma.masked_invalid(values.values.T), cmap=shades, norm=scale, rasterized=True)
    ax.set_facecolor("0.8")
    ax.figure.colorbar(cells, ax=ax, label=_label(values))
    _name_axes(ax, x, y)


def _draw_points(ax: Axes, values: xr.DataArray) -> None:
    """A dot for each game, where its two values are."""
    x, y = (of for of in values.coords.values() if of.dims == ("point",) and np.unique(of.values).size > 1)
    there = values.notnull().values
    shades, scale = _shades(values)
    dots = ax.scatter(_positions(x[there]), _positions(y[there]), c=values.values[there], s=8, cmap=shades, norm=scale)
    ax.figure.colorbar(dots, ax=ax, label=_label(values))
    _name_axes(ax, x, y)


def _name_axes(ax: Axes, x: xr.DataArray, y: xr.DataArray) -> None:
    xscale, yscale = ("log" if _is_logarithmic(of) else "linear" for of in (x, y))
    ax.set(xlabel=_label(x), ylabel=_label(y), xscale=xscale, yscale=yscale)


def _axes(values: xr.DataArray) -> list[xr.DataArray]:
    return [values[dim] for dim in values.dims]


def _label(of: xr.DataArray) -> str:
    """Its long name, with units where it has some."""
    name, units = str(of.attrs.get("long_name", of.name)), of.attrs.get("units", "1")
    if name != of.name and len(str(of.name)) <= 2:
        name = f"{name} {of.name}"
    return textwrap.fill(name if units == "1" else f"{name} ({units})", LETTERS_A_LINE)


def _is_named(of: xr.DataArray) -> bool:
    """Whether it is one of names, or of numbers that no axis can show."""
    return of.dtype.kind not in "if" or not np.isfinite(of.values).all()


def _positions(of: xr.DataArray) -> Any:
    """Where its values are on an axis."""
    return [shown(value) for value in of.values] if _is_named(of) else of.values


def _is_logarithmic(of: xr.DataArray) -> bool:
    """Whether its values are more even in their logarithms."""
    values = np.unique(of.values)
    if _is_named(of) or values.size < 3 or values[0] <= 0:
        return False
    linear, logarithmic = np.diff(values), np.diff(np.log(values))
    return bool(logarithmic.std() / logarithmic.mean() < linear.std() / linear.mean())


def _edges(of: xr.DataArray) -> np.ndarray:
    """Of the cells around its values, halfway between neighbours."""
    values = np.log(of.values) if _is_logarithmic(of) else of.values
    halfway = (values[1:] + values[:-1]) / 2
    edges = np.concatenate([[2 * values[0] - halfway[0]], halfway, [2 * values[-1] - halfway[-1]]])
    return np.exp(edges) if _is_logarithmic(of) else edges


def _styles(of: xr.DataArray) -> list[Any]:
    """Of a line for each value: names in colours apart, numbers from dark to light."""
    if _is_named(of):
        looks = zip(of.values, itertools.cycle(COLOURS), itertools.cycle(DASHES), strict=False)
        return [{"label": shown(name), "color": colour, "linestyle": dashes} for name, colour, dashes in looks]
    shades = _line_shades(of)
    return [{"color": shades.to_rgba(number), "label": f"{number:.4g}"} for number in of.values.tolist()]


def _line_shades(of: xr.DataArray) -> ScalarMappable:
    """Colours for numbers, that all stand out on white."""
    import matplotlib as mpl
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import ListedColormap

    return ScalarMappable(_scale(of), ListedColormap(mpl.colormaps[SHADES](np.linspace(0.0, LIGHTEST_LINE, 256))))


def _shades(of: xr.DataArray) -> tuple[str, Normalize]:
    """Colours for numbers: those of both signs around zero."""
    from matplotlib.colors import CenteredNorm

    if of.min() < 0 < of.max():
        return SIGNED_SHADES, CenteredNorm(halfrange=float(np.abs(of).max()))
    return SHADES, _scale(of)


def _scale(of: xr.DataArray) -> Normalize:
    from matplotlib.colors import LogNorm, Normalize

    return (LogNorm if of.name in of.dims and _is_logarithmic(of) else Normalize)(float(of.min()), float(of.max()))

"""What the page asks for: what there is in a sweep, a game, a slice of it, and the ranges of its axes. All of it fits JSON."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import xarray as xr

from sweeps import figures
from sweeps.dataset import CONVERGED, PARAMETERS, STATUSES
from sweeps.problems import found, not_among

MOST_LISTED = 2_000
"""Values of a dim that the page is told; of a longer one it learns that of each game it shows."""
GAMES_LOOKED_AT = 64
"""For the ranges of figures: to read all games of a large sweep would take minutes. The page widens them where it must."""

Place = Mapping[str, int]
"""Of a game: its index along each dim."""


class Refused(ValueError):
    """Something was asked for that a sweep does not have; the message says what is allowed."""


class Gallery:
    """A sweep, piece by piece as it is looked at: nothing is read before it is asked for.

    Args:
        dataset: of any store of mfgsweep, or some of its games, with their `status`. One that is being written must have been
            opened so that it does not remember.
    """

    def __init__(self, dataset: xr.Dataset) -> None:
        sweep = dataset["status"].dims
        self.dims = {str(dim): dataset.sizes[dim] for dim in sweep}
        self.coordinates = {name: dataset[name].load() for name in _swept(dataset)}
        self.scalars = [str(n) for n, v in dataset.data_vars.items() if v.dims == sweep and n != "status"]
        self._games = dataset[["status", *self.scalars, *(name for name in figures.TITLES if name in dataset)]]

    def about(self) -> dict[str, Any]:
        """Its dims, swept parameters, scalars and figures."""
        return {
            "dims": [self._dim(name) for name in self.dims],
            "parameters": [
                {
                    "name": name,
                    "label": figures.label(values),
                    "units": figures.units(values),
                    "dim": values.dims[0],
                    "names": _names_among(values),
                }
                for name, values in self.coordinates.items()
            ],
            "scalars": [
                {"name": name, "label": figures.label(self._games[name]), "symbol": figures.symbol(self._games[name])}
                for name in self.scalars
            ],
            "figures": figures_of_a_game(),
        }

    def progress(self) -> dict[str, int]:
        """How many games ended how, those only that there are."""
        counts = np.bincount(self.statuses.ravel(), minlength=len(STATUSES))
        return {name: int(count) for name, count in zip(STATUSES, counts, strict=True) if count}

    def game(self, place: Place) -> dict[str, Any]:
        """One game, with its figures.

        Raises:
            Refused: there is no such game.
        """
        game = self._games.isel(self._checked(place))
        return self._shown(_there(game, game["status"].load()).load(), place)

    async def game_soon(self, place: Place) -> dict[str, Any]:
        """The same, its variables read side by side, which takes half the time."""
        game = self._games.isel(self._checked(place))
        return self._shown(await _there(game, await game["status"].load_async()).load_async(), place)

    def _shown(self, game: xr.Dataset, place: Place) -> dict[str, Any]:
        return shown(game, {name: values[place[str(values.dims[0])]].item() for name, values in self.coordinates.items()})

    def slice(self, of: str, x: str, y: str | None, place: Place) -> dict[str, Any]:
        """A scalar over the dims x and y, or over x alone, through a game; along `point`, in the plane of two parameters.

        Raises:
            Refused: no such scalar, dim or game.
        """
        place = self._checked(place)
        _check_name("of", of, self.scalars)
        if "point" in self.dims:
            _check_name("x", x, self.coordinates)
            _check_name("y", y or "", self.coordinates)
            found = figures.cloud(self._games[of], self._games["status"], x, y or "")
        else:
            along = [x] if y is None else [y, x]
            for key, name in zip("xy", (x, y), strict=True):
                if name is not None:
                    _check_name(key, name, self.dims)
            if x == y:
                raise Refused(f"x and y: found {x} twice; allowed: two dims")
            rest = {dim: i for dim, i in place.items() if dim not in along}
            scalar, status = (self._games[name].isel(rest).transpose(*along) for name in (of, "status"))
            found = figures.lines(scalar, status) if y is None else figures.heat_map(scalar, status)
        return {"figure": found.figure, "places": found.places}

    def ranges(self, of: str) -> dict[str, Any]:
        """The least and the largest number of each figure, over a sample of the games where there are many, and of a scalar."""
        _check_name("of", of, self.scalars)
        return {"figures": self._ranges_of_figures(), "scalar": self.range_of_scalar(of)}

    def range_of_scalar(self, of: str) -> list[float] | None:
        """Over all games that are done; None where there is no number."""
        return _range([np.where(self.statuses != 0, self.scalar(of).values, np.nan)])

    @property
    def statuses(self) -> np.ndarray:
        """Of all games, in the sweep's shape."""
        return self._games["status"].values

    def scalar(self, name: str) -> xr.DataArray:
        """Of all games; those of pending ones mean nothing."""
        return self._games[name]

    def _ranges_of_figures(self) -> dict[str, Any]:
        """From some of the games that converged."""
        games = np.flatnonzero(self.statuses == CONVERGED)
        chosen = games[figures.spread_evenly(games.size, GAMES_LOOKED_AT)] if games.size else games
        names = [name for name in figures.TITLES if name in self._games]
        drawn = self._games[[*names, "status"]]  # which has the dims, where the store has nothing to draw
        shape = tuple(self.dims.values())
        looked_at = [drawn.isel(dict(zip(self.dims, np.unravel_index(i, shape), strict=True))).load() for i in chosen]
        return {name: _range(game[name].values for game in looked_at) for name in names}

    def _dim(self, name: str) -> dict[str, Any]:
        values = (
            figures.plain(self.coordinates[name].values) if name in self.coordinates and self.dims[name] <= MOST_LISTED else None
        )
        return {"name": name, "size": self.dims[name], "values": values}

    def _checked(self, place: Place) -> dict[str, int]:
        for dim, size in self.dims.items():
            if dim not in place:
                raise Refused(f"{dim}: missing; allowed: a whole number from 0 to {size - 1}")
            if not 0 <= place[dim] < size:
                raise Refused(f"{dim}: {found(place[dim])}; allowed: a whole number from 0 to {size - 1}")
        return {dim: place[dim] for dim in self.dims}


def _there(game: xr.Dataset, status: xr.DataArray) -> xr.Dataset:
    """What there is of a game whose status has been read, first: what is done then has all its numbers."""
    return (game if int(status) else game[["status"]]).assign(status=status)


def figures_of_a_game() -> list[dict[str, str]]:
    return [{"name": name, "title": title} for name, title in figures.TITLES.items()]


def shown(game: xr.Dataset, parameters: Mapping[str, Any]) -> dict[str, Any]:
    """A game, with its parameters by name, as the page shows it."""
    status = int(game["status"])
    return {
        "status": STATUSES[status],
        "explanation": "" if status == CONVERGED else _explanation(status),
        "parameters": {name: figures.plain(np.asarray([value]))[0] for name, value in parameters.items()},
        "metrics": figures.metrics(game) if status else [],
        "figures": figures.game_figures(game) if status else figures.pending_figures(),
    }


def _explanation(status: int) -> str:
    import mfg_jax as mfg  # and with it JAX, which takes a second: only for games that did not converge

    return mfg.Status(status).explanation


def _swept(dataset: xr.Dataset) -> list[str]:
    """The coordinates of games: what was swept, in the order of the dims."""
    known = {*(parameter.name for parameter in PARAMETERS), "coupling", "boundary"}
    sweep = dataset["status"].dims
    swept = [str(name) for name, values in dataset.coords.items() if name in known and values.dims]
    return sorted(swept, key=lambda name: sweep.index(dataset[name].dims[0]))


def _names_among(values: xr.DataArray) -> list[str] | None:
    """The different names of an axis of names; None for one of numbers."""
    return None if values.dtype.kind in "iuf" else sorted(set(map(str, values.values.tolist())))


def _range(parts: Iterable[np.ndarray]) -> list[float] | None:
    finite = [part[np.isfinite(part)] for part in parts]
    there = [part for part in finite if part.size]
    return [float(min(part.min() for part in there)), float(max(part.max() for part in there))] if there else None


def _check_name(key: str, name: str, allowed: Iterable[str]) -> None:
    if name not in (names := list(allowed)):
        raise Refused(f"{key}: {not_among(name, names)}")

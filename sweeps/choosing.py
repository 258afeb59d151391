"""`--at A=10,k=1.5`: which games of a sweep are meant, by the values that they have."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from sweeps.problems import found, not_among

Coordinates = Mapping[str, tuple[tuple[str, ...], np.ndarray]]
"""By name, the one dim that each lies along, and its values, as in `Design.coords`."""
SHOWN = 12


class ChoiceError(ValueError):
    """Values that no game has, or too few of them; the message says which there are."""


def numbered(coordinates: Coordinates) -> Coordinates:
    """With the numbers of the points, where these have no other name."""
    points = {dim: np.arange(values.size) for (dim,), values in coordinates.values() if dim not in coordinates}
    return {**coordinates, **{dim: ((dim,), numbers) for dim, numbers in points.items()}}


def places(at: str, coordinates: Coordinates) -> dict[str, np.ndarray]:
    """Of each dim, the places that have all the values in `at`; of a dim of which nothing is said, all.

    A number means the value that reads the same in six digits, as messages show them, never the nearest.

    Raises:
        ChoiceError: a name that is not swept, or a value that is not there.
    """
    left = {dim: np.ones(values.size, bool) for (dim,), values in coordinates.values()}
    said: dict[str, list[str]] = {dim: [] for dim in left}
    for name, written in _pairs(at):
        if name not in coordinates:
            raise ChoiceError(f"--at: {not_among(name, coordinates)}")
        (dim,), values = coordinates[name]
        meant = left[dim] & _meant(values, written)
        if not meant.any():
            beside = f" with {', '.join(said[dim])}" if said[dim] else ""
            raise ChoiceError(f"--at: there is no {name}={written}{beside}; there are {_listed(values[left[dim]], written)}")
        left[dim] = meant
        said[dim].append(f"{name}={written}")
    return {dim: np.flatnonzero(along) for dim, along in left.items()}


def the_only(at: str, coordinates: Coordinates) -> dict[str, int]:
    """The place along each dim of the one game that has all the values in `at`.

    Raises:
        ChoiceError: as `places`, or there are several such games.
    """
    chosen = places(at, coordinates)
    if names := varying(coordinates, chosen):
        choices = "; ".join(f"{name}: {_listed(_values(coordinates, name, chosen))}" for name in names)
        raise ChoiceError(f"--at: several games are meant; choose one of {choices}")
    return {dim: int(along[0]) for dim, along in chosen.items()}


def varying(coordinates: Coordinates, chosen: Mapping[str, np.ndarray]) -> list[str]:
    """The names that have several values at these places."""
    return [name for name in coordinates if np.unique(_values(coordinates, name, chosen)).size > 1]


def spread_out(times: np.ndarray, count: int) -> np.ndarray:
    """The places of those times that are nearest to evenly spaced ones, from the first to the last: `count` of them, or all."""
    wanted = np.linspace(times[0], times[-1], count)
    return np.unique(np.abs(times[:, None] - wanted).argmin(axis=0))


def shown(value: object) -> str:
    """A value as messages show it, and as `--at` takes it."""
    return f"{value:.6g}" if isinstance(value, int | float | np.number) else str(value)


def _pairs(at: str) -> list[tuple[str, str]]:
    pairs = [pair.split("=") for pair in at.split(",") if pair]
    if any(len(pair) != 2 or not all(pair) for pair in pairs):
        raise ChoiceError(f"--at: {found(at)}; allowed: NAME=VALUE,NAME=VALUE,…")
    names = [name for name, _ in pairs]
    if twice := [name for name in names if names.count(name) > 1]:
        raise ChoiceError(f"--at: {twice[0]} is given twice")
    return [(name, written) for name, written in pairs]


def _meant(values: np.ndarray, written: str) -> np.ndarray:
    """Which of the values are the one that is written; of several that read the same, those that equal it."""
    try:
        number = float(written)
    except ValueError:
        return values == written
    if values.dtype.kind not in "if":
        return np.zeros(values.size, bool)
    alike = np.array([shown(value) == shown(number) for value in values.tolist()])
    return equal if (equal := values == number).any() else alike


def _values(coordinates: Coordinates, name: str, chosen: Mapping[str, np.ndarray]) -> np.ndarray:
    (dim,), values = coordinates[name]
    return values[chosen[dim]]


def _listed(values: np.ndarray, written: str = "") -> str:
    """All of a few values; of many, those around the one that was written, or the first and the last."""
    values = np.unique(values)
    if values.size <= SHOWN:
        return ", ".join(map(shown, values.tolist()))
    try:
        near = np.sort(np.argsort(np.abs(values - float(written)), stable=True)[:4])
        return f"{values.size}, the nearest {', '.join(map(shown, values[near].tolist()))}"
    except (TypeError, ValueError):
        return f"{values.size}, from {shown(values[0])} to {shown(values[-1])}"

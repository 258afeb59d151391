"""From the axes of a sweep, and its constraints, to its points."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import reduce

import numpy as np

from sweeps.constraints import Constraint
from sweeps.kinds import Column, Span
from sweeps.schema import DEFAULTS, DRAWN, NUMBERS, Axis, Spec

POINTS_AT_ONCE = 1_000_000
"""That constraints are computed for, so that memory is needed for few more than those that are left."""


@dataclass(frozen=True, eq=False)
class Design:
    """The points of a sweep, in C order (the last dim runs fastest), without a list of them all.

    `dims` and `shape` are those of the results: one dim for each swept name, or "point" alone. `coords` gives each
    swept name the dim that it lies along and its values [length of the dim]: float64, or fixed-width text for names.
    `candidates` is how many points there were before constraints.
    """

    dims: tuple[str, ...]
    shape: tuple[int, ...]
    coords: dict[str, tuple[tuple[str, ...], np.ndarray]]
    candidates: int

    def __len__(self) -> int:
        return math.prod(self.shape)

    def columns(self, start: int, stop: int) -> dict[str, np.ndarray]:
        """The swept values of the points start … stop − 1, each [stop − start].

        Raises:
            ValueError: a point that the design does not have.
        """
        along = dict(zip(self.dims, np.unravel_index(np.arange(start, stop), self.shape), strict=True))
        return {name: values[along[dim]] for name, ((dim,), values) in self.coords.items()}


def design(spec: Spec) -> Design:
    """The points that `spec` asks for: with sampling grid every combination, with zip and table one for each row of values, and
    with the others as many as they draw (saltelli: by SALib, of the extra `sensitivity`). Constraints leave a list of them.

    Raises:
        ConstraintError: a constraint that has no value at a point.
    """
    points = _unconstrained(spec)
    return _satisfying(points, spec) if spec.where else points


def _unconstrained(spec: Spec) -> Design:
    if spec.sampling in DRAWN:
        shares = _shares(spec).T
        columns = {name: _drawn(axis, along) for (name, axis), along in zip(spec.axes.items(), shares, strict=True)}
    else:
        columns = {name: _listed(axis) for name, axis in spec.axes.items()}
    coords = {name: ((name if spec.sampling == "grid" else "point",), values) for name, values in columns.items()}
    lengths = {dim: values.size for (dim,), values in coords.values()}
    return Design(tuple(lengths), tuple(lengths.values()), coords, math.prod(lengths.values()))


def _satisfying(points: Design, spec: Spec) -> Design:
    """Those of the points that satisfy all constraints, along `point`."""
    constraints = [Constraint(text, NUMBERS) for text in spec.where]
    constants = DEFAULTS | spec.parameters
    left: list[dict[str, np.ndarray]] = []
    for start in range(0, len(points), POINTS_AT_ONCE):
        columns = points.columns(start, min(start + POINTS_AT_ONCE, len(points)))
        satisfied = reduce(np.logical_and, [constraint.satisfied(constants | columns) for constraint in constraints])
        left.append({name: values[np.broadcast_to(satisfied, values.shape)] for name, values in columns.items()})
    coords = {name: (("point",), np.concatenate([some[name] for some in left])) for name in points.coords}
    return Design(("point",), next(iter(coords.values()))[1].shape, coords, len(points))


def _listed(axis: Axis) -> np.ndarray:
    return axis.values if isinstance(axis, Column) else np.asarray(axis)


def _drawn(axis: Axis, shares: np.ndarray) -> np.ndarray:
    """What lies at `shares` (0 to 1) of the way along an axis; each of listed values has an equal part of it."""
    if isinstance(axis, Span):
        return axis.at(shares)
    listed = _listed(axis)
    return listed[np.minimum((shares * listed.size).astype(int), listed.size - 1)]


def _shares(spec: Spec) -> np.ndarray:
    """Points of the unit cube [point, axis]."""
    from scipy.stats import qmc  # half a second, for those who draw only

    axes, points = len(spec.axes), spec.points or 0
    rng = np.random.default_rng(spec.seed)
    match spec.sampling:
        case "latin_hypercube":
            return qmc.LatinHypercube(axes, rng=rng).random(points)
        case "sobol":
            return qmc.Sobol(axes, rng=rng).random(points)
        case "saltelli":
            from SALib.sample import sobol

            return sobol.sample(unit_cube(spec), points, calc_second_order=False, seed=spec.seed)
        case _:
            return rng.random((points, axes))


def unit_cube(spec: Spec) -> dict[str, object]:
    """What SALib calls the problem: the names of the axes, and how far along them points may lie."""
    return {"num_vars": len(spec.axes), "names": list(spec.axes), "bounds": [[0.0, 1.0]] * len(spec.axes)}

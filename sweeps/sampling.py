"""From the axes of a sweep to its points."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from sweeps.spec import Spec


@dataclass(frozen=True, eq=False)
class Design:
    """The points of a sweep, in C order (the last dim runs fastest), without a list of them all.

    `dims` and `shape` are those of the results: one dim for each swept name, or "point" alone. `coords` gives each
    swept name the dim that it lies along and its values [length of the dim]: float64, or fixed-width text for names.
    """

    dims: tuple[str, ...]
    shape: tuple[int, ...]
    coords: dict[str, tuple[tuple[str, ...], np.ndarray]]

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
    """The points that `spec` asks for: with sampling grid every combination, with zip one for each row of values."""
    zipped = spec.sampling == "zip"
    coords = {name: (("point" if zipped else name,), np.asarray(values)) for name, values in spec.sweep.items()}
    lengths = {dim: values.size for (dim,), values in coords.values()}
    return Design(tuple(lengths), tuple(lengths.values()), coords)

"""The values of one parameter between two bounds, by coordinates from 0 to 1."""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import numpy as np

from mfg_jax.parameters import Parameters


class Span(NamedTuple):
    """Even in the values themselves or, where all are positive, in their logarithms."""

    low: float
    high: float

    @classmethod
    def of(cls, parameters: Parameters, name: str, low: float, high: float) -> Span:
        """Of a parameter that is given.

        Raises:
            ValueError: a name that is none, or bounds that are not finite and in order.
        """
        given = [field.name for field in dataclasses.fields(parameters) if getattr(parameters, field.name) is not None]
        if name not in given:
            raise ValueError(f"bounds of {name!r}, which is no parameter that was given; allowed: {', '.join(given)}")
        if not (np.isfinite(low) and np.isfinite(high) and low < high):
            raise ValueError(f"bounds of {name!r} are ({low}, {high}); allowed: two finite numbers, the lower first")
        return cls(float(low), float(high))

    def value(self, coordinate: Any) -> Any:
        if self.low > 0:
            return self.low * (self.high / self.low) ** coordinate
        return self.low + (self.high - self.low) * coordinate

    def coordinate(self, value: float) -> float:
        if self.low > 0:
            return float(np.log(value / self.low) / np.log(self.high / self.low))
        return (value - self.low) / (self.high - self.low)

"""Numbers rounded to a relative precision: the bits that are then zero cost next to nothing on disk."""

from __future__ import annotations

import math

import numpy as np

_BITS = 52
"""Of the fraction of a float64."""


def rounded(values: np.ndarray, precision: float) -> np.ndarray:
    """Float64 numbers with as few bits as keep each within `precision` times itself, halves to even.

    NaN, infinities, zeros and subnormals stay as they are, and so does what would round to infinity.

    Args:
        precision: from 2^-52 to below 1.
    """
    dropped = np.uint64(_BITS - _fraction_bits(precision))
    one = np.uint64(1)
    bits = values.view(np.uint64)
    half_to_even = (one << dropped >> one) - one + (bits >> dropped & one)
    shorter = ((bits + half_to_even) >> dropped << dropped).view(np.float64)
    normal = np.abs(values) >= np.finfo(np.float64).smallest_normal
    return np.where(normal & np.isfinite(shorter), shorter, values)


def finest(dtype: str) -> float:
    """The precision that numbers of this type have without rounding."""
    return float(np.finfo(dtype).epsneg)


def _fraction_bits(precision: float) -> int:
    """Rounding to so many bits behind the first moves a number by at most half of the last one."""
    return math.ceil(-math.log2(precision)) - 1

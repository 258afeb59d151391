"""Whole numbers among the choices of a model."""

from __future__ import annotations

import numbers


def is_whole(value: object, least: int) -> bool:
    """Whether this is a whole number, NumPy's included, of at least so much. True and False are none."""
    return isinstance(value, numbers.Integral) and not isinstance(value, bool) and int(value) >= least

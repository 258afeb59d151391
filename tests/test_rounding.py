"""Rounding to a relative precision, against exact fractions."""

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sweeps.rounding import finest, rounded

PRECISIONS = st.floats(1e-15, 1e-2)
TINY, LARGEST = float(np.finfo(np.float64).smallest_normal), float(np.finfo(np.float64).max)
UGLY = st.sampled_from(
    [
        math.nan,
        math.inf,
        -math.inf,
        0.0,
        -0.0,
        5e-324,
        -5e-324,
        TINY,
        -TINY,
        math.nextafter(TINY, 0),
        LARGEST,
        -LARGEST,
        1.0,
        1 - 2**-53,
    ]
)
NUMBERS = st.lists(st.floats() | UGLY, min_size=1, max_size=20).map(np.array)


def exactly_rounded(value: float, precision: float) -> float:
    """The nearest number with just enough bits, halves to even; a number that has none such stays."""
    if not math.isfinite(value) or abs(value) < TINY:
        return value
    fraction, exponent = math.frexp(value)
    bits = next(bits for bits in range(53) if Fraction(1, 2 ** (bits + 1)) <= Fraction(precision))
    scaled = round(Fraction(fraction) * 2 ** (bits + 1))  # Python rounds halves of fractions to even
    try:
        return math.ldexp(scaled, exponent - bits - 1)
    except OverflowError:
        return value


@given(NUMBERS, PRECISIONS)
def test_to_the_nearest_with_enough_bits(values: np.ndarray, precision: float) -> None:
    expected = np.array([exactly_rounded(value, precision) for value in values.tolist()])
    found = rounded(values, precision)
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(np.signbit(found), np.signbit(expected))


@given(NUMBERS, PRECISIONS)
def test_no_number_moves_further_than_the_precision(values: np.ndarray, precision: float) -> None:
    for before, after in zip(values.tolist(), rounded(values, precision).tolist(), strict=True):
        if math.isfinite(before):
            assert abs(Fraction(after) - Fraction(before)) <= Fraction(precision) * abs(Fraction(before))


@given(NUMBERS, PRECISIONS)
def test_again_changes_nothing(values: np.ndarray, precision: float) -> None:
    once = rounded(values, precision)
    np.testing.assert_array_equal(rounded(once, precision), once)


@pytest.mark.parametrize(("precision", "bits"), [(1e-8, 26), (2.0**-24, 23), (1e-2, 6), (1e-15, 49)])
def test_the_bits_that_are_left(precision: float, bits: int) -> None:
    values = np.random.default_rng(0).normal(size=1_000)
    left = rounded(values, precision).view(np.uint64)
    assert not (left & np.uint64(2 ** (52 - bits) - 1)).any()
    assert (left >> np.uint64(52 - bits) & np.uint64(1)).any()


def test_what_types_of_numbers_are_good_for() -> None:
    assert (finest("float64"), finest("float32")) == (2.0**-53, 2.0**-24)

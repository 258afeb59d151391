"""What one value of a grid file may be: a number of some range, a text, the values of an axis."""

from __future__ import annotations

import hashlib
import math
import sys
from collections.abc import Callable, Collection
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any, get_args

import numpy as np
from pydantic import AfterValidator, BeforeValidator, PlainValidator, TypeAdapter, ValidationError, WrapValidator
from pydantic_core import PydanticCustomError

from sweeps.constraints import Constraint, ConstraintError
from sweeps.problems import did_you_mean, found, nearest, not_among

MAX_AXIS = 1_000_000


@dataclass(frozen=True)
class Span:
    """An axis to draw numbers from, alike between its ends or, with `log`, alike in their logarithms."""

    first: float
    last: float
    log: bool

    def at(self, shares: np.ndarray) -> np.ndarray:
        """The numbers that lie at `shares` (0 to 1) of the way from the first to the last."""
        if self.log:
            return np.exp(np.log(self.first) + shares * (np.log(self.last) - np.log(self.first)))
        return self.first + shares * (self.last - self.first)


@dataclass(frozen=True, eq=False)
class Column:
    """An axis that a table lists, a value for each row: float64, or text for names."""

    values: np.ndarray
    file: str

    def summary(self) -> dict[str, int | str]:
        """What stands for the values where there may be too many of them; equal for equal values."""
        text = self.values.dtype.kind == "U"
        content = "\n".join(self.values.tolist()).encode() if text else self.values.astype("<f8").tobytes()
        return {"rows": self.values.size, "sha256": hashlib.sha256(content).hexdigest()}


def _refusal(message: str) -> PydanticCustomError:
    return PydanticCustomError("refused", "{message}", {"message": message})


def _allowed(text: str, ok: Callable[[Any], bool]) -> BeforeValidator:
    """Refuses a value for which `ok` is false, with what was found and that `text` is allowed."""

    def check(value: Any) -> Any:
        if not ok(value):
            raise _refusal(f"{found(value)}; allowed: {text}")
        return value

    return BeforeValidator(check)


def number(text: str, ok: Callable[[float], bool]) -> BeforeValidator:
    """Allows what is written as a number, fits a float and is `ok`: no truth value, no text."""

    def is_number(value: Any) -> bool:
        if isinstance(value, bool) or not isinstance(value, int | float):
            return False
        return (isinstance(value, float) or abs(value) <= sys.float_info.max) and ok(value)

    return _allowed(text, is_number)


def whole(low: int, high: int) -> BeforeValidator:
    """Allows what is written as a whole number: 10.0 is none."""
    return _allowed(f"a whole number from {low} to {high}", lambda value: type(value) is int and low <= value <= high)


def whole_or_auto(low: int, high: int) -> BeforeValidator:
    """Allows what `whole` does, and the word auto."""
    allowed = f"a whole number from {low} to {high}, or auto"
    return _allowed(allowed, lambda value: value == "auto" or (type(value) is int and low <= value <= high))


def list_of(text: str) -> BeforeValidator:
    """Allows any list; `text` says of what."""
    return _allowed(f"a list of {text}", lambda value: isinstance(value, list | tuple))


def one_or_list_of(text: str) -> BeforeValidator:
    """Allows any list, and a text for a list of one; `text` says of what."""

    def listed(value: Any) -> Any:
        if not isinstance(value, str | list | tuple):
            raise _refusal(f"{found(value)}; allowed: a list of {text}, or one of them")
        return [value] if isinstance(value, str) else value

    return BeforeValidator(listed)


def constraint_on(names: Collection[str]) -> BeforeValidator:
    """Allows a text that is a constraint on these parameters."""

    def check(value: Any) -> str:
        if not isinstance(value, str):
            raise _refusal(f"{found(value)}; allowed: a text such as k0 <= k")
        try:
            return Constraint(value, names).text
        except ConstraintError as error:
            raise _refusal(str(error)) from None

    return BeforeValidator(check)


_FINITE = number("a finite number", math.isfinite)
_POSITIVE = number("a finite number > 0", lambda value: 0 < value < math.inf)

Finite = Annotated[float, _FINITE]
Positive = Annotated[float, _POSITIVE]
NonNegative = Annotated[float, number("a finite number >= 0", lambda value: 0 <= value < math.inf)]
AboveOne = Annotated[float, number("a finite number > 1", lambda value: 1 < value < math.inf)]
LowerBound = Annotated[float, number("a number, or -.inf for no bound", lambda value: value < math.inf)]
UpperBound = Annotated[float, number("a number, or .inf for no bound", lambda value: value > -math.inf)]
Truth = Annotated[bool, _allowed("true or false", lambda value: isinstance(value, bool))]
Text = Annotated[str, _allowed("a text", lambda value: isinstance(value, str) and value != "")]


def axis_of_names(kind: Any) -> Any:
    """The kind of an axis whose values are of the Literal `kind`."""
    named = _allowed("names in a list", lambda value: isinstance(value, list | tuple) and len(value) > 0)
    return Annotated[tuple[kind, ...], named]


def axis_of_numbers(kind: Any) -> Any:
    """The kind of an axis whose values are of the number `kind`: a list of them, a range, which is written out, or a span."""
    ranges = {
        "linspace": _range(np.linspace, Annotated[kind, _FINITE]),
        "logspace": _range(np.geomspace, Annotated[kind, _POSITIVE]),
        "uniform": _span(False, Annotated[kind, _FINITE]),
        "log_uniform": _span(True, Annotated[kind, _POSITIVE]),
    }

    def check(value: Any, handler: Callable[[Any], Any]) -> tuple[float, ...] | Span:
        if isinstance(value, list | tuple) and value:
            return handler(value)
        keys = list(value) if isinstance(value, dict) else []
        if len(keys) == 1 and keys[0] in ranges:
            return ranges[keys[0]].validate_python(value)[keys[0]]
        what = f"found a mapping of {', '.join(keys)}" if isinstance(value, dict) else found(value)
        near = next(filter(None, (nearest(key, ranges) for key in keys)), None)
        allowed = (
            "numbers in a list, {linspace: [first, last, count]} or {logspace: [first, last, count]}, "
            "or to draw from {uniform: [first, last]} or {log_uniform: [first, last]}"
        )
        raise _refusal(f"{what}; allowed: {allowed}{did_you_mean(near)}")

    return Annotated[tuple[kind, ...], WrapValidator(check)]


def column_of_numbers(kind: Any) -> Any:
    """The kind of a table's column whose cells are of the number `kind`."""
    cell = TypeAdapter(kind)

    def wrong(value: Any) -> str:
        try:
            cell.validate_python(value)
        except ValidationError as error:
            return error.errors(include_url=False)[0]["msg"]
        return ""

    def check(column: Column) -> Column:
        values = column.values
        # every kind of number is an interval, so where the ends are of it all are; NaN is both ends
        if values.dtype != object and not any(map(wrong, (values.min(), values.max()))):
            return column
        return _column(column, wrong, float)

    return Annotated[Column, PlainValidator(check)]


def column_of_names(kind: Any) -> Any:
    """The kind of a table's column whose cells are of the Literal `kind`."""
    names = get_args(kind)

    def check(column: Column) -> Column:
        return _column(column, lambda value: "" if value in names else not_among(value, names), str)

    return Annotated[Column, PlainValidator(check)]


def _column(column: Column, wrong: Callable[[Any], str], dtype: type) -> Column:
    """The column as `dtype`; the first cell that is wrong speaks for all."""
    cells = column.values.tolist()
    if rows := [row for row, cell in enumerate(cells) if wrong(cell)]:
        more = f" (and {len(rows) - 1} more)" if len(rows) > 1 else ""
        raise _refusal(f"row {rows[0] + 1} of {column.file}{more}: {wrong(cells[rows[0]])}")
    return Column(np.array(cells, dtype), column.file)


def _span(log: bool, end: Any) -> TypeAdapter[dict[str, Span]]:
    """{form: [first, last]}, which becomes {form: Span}."""
    two = _allowed("[first, last]", lambda value: isinstance(value, list | tuple) and len(value) == 2)

    def between(ends: tuple[float, float]) -> Span:
        if not ends[0] < ends[1]:
            raise _refusal(f"found {ends[0]} and {ends[1]}; allowed: a first number below the last")
        return Span(*ends, log)

    kind: Any = dict[str, Annotated[tuple[end, end], two, AfterValidator(between)]]
    return TypeAdapter(kind)


def _range(spacing: Callable[..., np.ndarray], end: Any) -> TypeAdapter[dict[str, tuple[float, ...]]]:
    """{form: [first, last, count]}, which becomes {form: the numbers}."""
    three = _allowed("[first, last, count]", lambda value: isinstance(value, list | tuple) and len(value) == 3)
    count = Annotated[int, whole(2, MAX_AXIS)]
    kind: Any = dict[str, Annotated[tuple[end, end, count], three, AfterValidator(partial(_written_out, spacing))]]
    return TypeAdapter(kind)


def _written_out(spacing: Callable[..., np.ndarray], given: tuple[float, float, int]) -> tuple[float, ...]:
    first, last, count = given
    with np.errstate(all="ignore"):
        inner = spacing(first, last, count)[1:-1]
    if not np.isfinite(inner).all():
        raise _refusal(f"found {first} and {last}, too far apart to space; allowed: closer end points")
    # 15 digits: a value is found again as the 0.1 one would write, and does not hang on a machine's last bit
    return (first, *(float(f"{number:.15g}") for number in inner), last)

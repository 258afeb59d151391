"""Constraints on the points of a sweep: written in a small part of Python's grammar, and computed by NumPy alone."""

from __future__ import annotations

import ast
import warnings
from collections.abc import Callable, Collection, Mapping
from functools import reduce
from typing import Any, NamedTuple

import numpy as np

from sweeps.problems import brief, did_you_mean, nearest

MAX_CHARACTERS = 500
"""So that nothing is nested more deeply than it can be walked."""

OPERATORS = {ast.Add: np.add, ast.Sub: np.subtract, ast.Mult: np.multiply, ast.Div: np.divide, ast.Pow: np.power}
SIGNS = {ast.UAdd: np.positive, ast.USub: np.negative}
ONE_OPERAND = {"abs": np.absolute, "exp": np.exp, "log": np.log, "sqrt": np.sqrt}
TWO_OR_MORE = {"max": np.maximum, "min": np.minimum}
COMPARISONS = {
    ast.Lt: np.less,
    ast.LtE: np.less_equal,
    ast.Gt: np.greater,
    ast.GtE: np.greater_equal,
    ast.Eq: np.equal,
    ast.NotEq: np.not_equal,
}
TRUTHS = "comparisons such as k0 <= k or 0.1 < k0/k < 1 (< <= > >= == !=), and with `and`, `or`, `not`"
NUMBERS = "numbers, parameters, + - * / **, parentheses, abs(…), exp(…), log(…), sqrt(…), max(…, …), min(…, …)"


class ConstraintError(ValueError):
    """A constraint that cannot be used; the message says where in it and why."""


class Truth(NamedTuple):
    """Of each point whether a condition holds, and whether it fails: neither where it has no value."""

    holds: np.ndarray
    fails: np.ndarray


class Constraint:
    """A condition on parameters.

    Args:
        text: comparisons of arithmetic, joined by and, or, not.
        known: the parameters that there are.

    Raises:
        ConstraintError: anything else; with its place.
    """

    def __init__(self, text: str, known: Collection[str]) -> None:
        self.text = " ".join(text.split())
        self._condition = self._parsed()
        self.names = self._names(known)
        self._truth(self._condition, dict.fromkeys(self.names, np.float64(1.0)))  # meets every part once, so all are allowed

    def satisfied(self, values: Mapping[str, Any]) -> np.ndarray:
        """Of each point whether it is satisfied.

        Args:
            values: of all its names, as numbers or as arrays of one for each point.

        Raises:
            ConstraintError: it has no value at some point, as 1/0 and log(-1) have none, and all hangs on that.
        """
        holds, fails = self._truth(self._condition, values)
        if not (known := holds | fails).all():
            first = int(np.argmin(known))
            place = ", ".join(f"{name} {np.broadcast_to(values[name], known.shape).flat[first]}" for name in self.names)
            guard = "a finite result at every point, or a condition beside it that decides there, as in k == 0 or k0/k < 1"
            raise ConstraintError(f"`{self.text}` has no value at {place}; allowed: {guard}")
        return holds

    def _parsed(self) -> ast.expr:
        if len(self.text) > MAX_CHARACTERS:
            many = f"found {len(self.text)} characters; allowed: {MAX_CHARACTERS} in a constraint, and any number of constraints"
            raise ConstraintError(many)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error")  # Python warns of what it guesses at, such as 1or
                return ast.parse(self.text, mode="eval").body
        except SyntaxError as error:
            place = f"at character {error.offset}" if error.offset else "at the end"
            raise ConstraintError(f"broken {place} of `{brief(self.text)}`: {error.msg}; allowed: {TRUTHS}") from None
        except (ValueError, MemoryError, RecursionError):
            raise ConstraintError(f"`{brief(self.text)}` cannot be read; allowed: {TRUTHS}") from None

    def _names(self, known: Collection[str]) -> tuple[str, ...]:
        """Its parameters, each once, in the order of the text."""
        functions = {node.func for node in ast.walk(self._condition) if isinstance(node, ast.Call)}
        names = [node for node in ast.walk(self._condition) if isinstance(node, ast.Name) and node not in functions]
        names.sort(key=lambda node: node.col_offset)
        for node in names:
            if node.id not in known:
                raise self._refusal(node, ", ".join(known) + did_you_mean(nearest(node.id, known)))
        return tuple(dict.fromkeys(node.id for node in names))

    def _refusal(self, node: ast.expr, allowed: str) -> ConstraintError:
        character = len(self.text.encode()[: node.col_offset].decode()) + 1
        found = brief(ast.get_source_segment(self.text, node) or "nothing")
        return ConstraintError(f"found `{found}` at character {character} of `{brief(self.text)}`; allowed: {allowed}")

    def _truth(self, node: ast.expr, values: Mapping[str, Any]) -> Truth:
        match node:
            case ast.BoolOp():
                join = _both if isinstance(node.op, ast.And) else _either
                return reduce(join, [self._truth(part, values) for part in node.values])
            case ast.UnaryOp(op=ast.Not()):
                holds, fails = self._truth(node.operand, values)
                return Truth(fails, holds)
            case ast.Compare() if all(type(operator) in COMPARISONS for operator in node.ops):
                numbers = [self._number(part, values) for part in (node.left, *node.comparators)]
                links = zip(node.ops, numbers, numbers[1:], strict=False)
                return reduce(_both, [_compared(COMPARISONS[type(operator)], *pair) for operator, *pair in links])
        raise self._refusal(node, TRUTHS)

    def _number(self, node: ast.expr, values: Mapping[str, Any]) -> Any:
        match node:
            case ast.Name(id=name) if name in values:
                return values[name]
            case ast.Constant(value=int() | float() as number) if not isinstance(number, bool) and _fits(number):
                return np.float64(number)
            case ast.UnaryOp(op=op) if type(op) in SIGNS:
                return _applied(SIGNS[type(op)], self._number(node.operand, values))
            case ast.BinOp(op=op) if type(op) in OPERATORS:
                return _applied(OPERATORS[type(op)], self._number(node.left, values), self._number(node.right, values))
            case ast.Call(func=ast.Name(id=name), args=[operand], keywords=[]) if name in ONE_OPERAND:
                return _applied(ONE_OPERAND[name], self._number(operand, values))
            case ast.Call(func=ast.Name(id=name), args=[_, _, *_], keywords=[]) if name in TWO_OR_MORE:
                operands = [self._number(operand, values) for operand in node.args]
                return reduce(lambda one, other: _applied(TWO_OR_MORE[name], one, other), operands)
        raise self._refusal(node, NUMBERS)


def _fits(number: float) -> bool:
    """Whether a number, perhaps a whole one of hundreds of digits, is finite as a float."""
    try:
        return float(number) < np.inf
    except OverflowError:
        return False


def _applied(function: Callable[..., Any], *operands: Any) -> Any:
    """NaN where there is no value: of NaN, and of finite operands that have no finite result."""
    with np.errstate(all="ignore"):
        result = function(*operands)
    unknown = reduce(np.logical_or, map(np.isnan, operands))
    lost = np.isinf(result) & reduce(np.logical_and, map(np.isfinite, operands))
    return np.where(unknown | lost, np.nan, result)


def _compared(comparison: Callable[..., Any], left: Any, right: Any) -> Truth:
    known = ~(np.isnan(left) | np.isnan(right))
    holds = comparison(left, right)
    return Truth(known & holds, known & ~holds)


def _both(one: Truth, other: Truth) -> Truth:
    return Truth(one.holds & other.holds, one.fails | other.fails)


def _either(one: Truth, other: Truth) -> Truth:
    return Truth(one.holds | other.holds, one.fails & other.fails)

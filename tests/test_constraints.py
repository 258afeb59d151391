"""Constraints: against Python's own arithmetic, and what is refused."""

import time
from collections.abc import Mapping

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from sweeps.constraints import MAX_CHARACTERS, Constraint, ConstraintError

NAMES = ("A", "k", "eta", "gamma", "k0")
PYTHON = {"__builtins__": {}, "abs": abs, "max": max, "min": min}
QUARTERS = st.integers(-12, 12).map(lambda n: n / 4)
"""Often equal, so that < and <= differ; their sums and products are exact."""


def numbers(depth: int) -> st.SearchStrategy[str]:
    leaves = st.sampled_from(NAMES) | st.sampled_from(["0", "1", "2.5", "1e-1", "3"])
    if depth == 0:
        return leaves
    inner = numbers(depth - 1)
    return st.one_of(
        leaves,
        st.tuples(inner, st.sampled_from(["+", "-", "*", "/", " - ", " / "]), inner).map("".join),
        inner.map("({})".format),
        inner.map("-{}".format),
        inner.map("+{}".format),
        st.tuples(inner, st.sampled_from("0123")).map(lambda pair: f"({pair[0]})**{pair[1]}"),
        inner.map("abs({})".format),
        st.tuples(st.sampled_from(["min", "max"]), st.lists(inner, min_size=2, max_size=3)).map(
            lambda c: f"{c[0]}({', '.join(c[1])})"
        ),
    )


def conditions(depth: int) -> st.SearchStrategy[str]:
    operators = st.lists(st.sampled_from(["<", "<=", ">", ">=", "==", "!=", " < "]), min_size=1, max_size=3)
    comparison = operators.flatmap(
        lambda chain: st.lists(numbers(2), min_size=len(chain) + 1, max_size=len(chain) + 1).map(
            lambda parts: parts[0] + "".join(f"{operator}{part}" for operator, part in zip(chain, parts[1:], strict=True))
        )
    )
    if depth == 0:
        return comparison
    inner = conditions(depth - 1)
    return st.one_of(
        comparison,
        st.tuples(inner, st.sampled_from([" and ", " or "]), inner).map("".join),
        inner.map("not {}".format),
        inner.map("not ({})".format),
        inner.map("({})".format),
    )


POINTS = st.lists(st.fixed_dictionaries(dict.fromkeys(NAMES, QUARTERS)), min_size=1, max_size=6)


@settings(max_examples=300)
@given(conditions(2), POINTS)
def test_all_points_at_once_are_what_python_says_of_each(text: str, points: list[dict[str, float]]):
    assume(len(text) <= MAX_CHARACTERS)
    try:
        # written with floats only: Python's whole numbers have no bounds
        expected = [eval(text, PYTHON, point) for point in points]
    except ZeroDivisionError:
        assume(False)
        return
    found = Constraint(text, NAMES).satisfied({name: np.array([point[name] for point in points]) for name in NAMES})
    assert np.broadcast_to(found, len(points)).tolist() == expected
    alone = [Constraint(text, NAMES).satisfied(point) for point in points]
    assert [bool(one) for one in alone] == expected


def holds(text: str, **values: float) -> bool:
    return bool(Constraint(text, values).satisfied(values))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("log(exp(k)) - k < 1e-12", True),
        ("sqrt(k)**2 <= k + 1e-12", True),
        ("k**0.5 > 1.4", True),
        ("-k**2 == -4", True),
        ("2**-1 == 0.5", True),
        ("k**k**k == 16", True),
        ("1 < k < 2", False),
        ("1 < k <= 2 != 3", True),
        ("not k < 1 and k < 3 or k == 9", True),
        ("not (k < 1 or k < 3)", False),
        ("not (k < 1 and k < 3)", True),
        ("1_000 > k", True),
        ("(k\n  <\n  3)", True),
    ],
)
def test_grammar(text: str, expected: bool):
    assert holds(text, k=2.0) is expected


def test_infinite_bounds_are_numbers():
    assert holds("quote_max > 5 and 2*quote_max > quote_min", quote_max=np.inf, quote_min=-np.inf)


class TestNoValue:
    @pytest.mark.parametrize(
        "text",
        [
            *("1/k < 3", "k/k < 3", "log(k) < 1", "log(k - 1) < 1", "sqrt(k - 1) < 1", "(k - 1)**0.5 < 1", "k**-1 > 1"),
            *("exp(k + 1000) > 1", "10**400 > k", "9**9**9**9 > k", "(1/k)**0 == 1", "min(1/k, 1) == 1", "not 1/k < 3"),
        ],
    )
    def test_is_an_error_that_names_the_first_point(self, text: str):
        values = {"k": np.array([0.0, 0.0])}
        with pytest.raises(ConstraintError) as caught:
            Constraint(text, values).satisfied(values)
        assert f"`{text}` has no value at k 0.0; allowed: a finite result" in str(caught.value)

    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            ("k == 0 or 1/k < 3", [True, True]),
            ("1/k < 3 or k == 0", [True, True]),
            ("k > 0 and 1/k < 3", [False, True]),
            ("not (k == 0 or 1/k > 3)", [False, True]),
            ("0 < k < 1/k", [False, True]),
        ],
    )
    def test_does_not_matter_where_another_condition_decides(self, text: str, expected: list[bool]):
        values = {"k": np.array([0.0, 0.5])}
        assert Constraint(text, values).satisfied(values).tolist() == expected


HOSTILE = {
    "nothing": "",
    "spaces": "  ",
    "attribute": "k.real < 1",
    "method": "k.__class__.__bases__ < 1",
    "call": "__import__('os').system('true') == 0",
    "call of a known function's name with keywords": "abs(k, x=1) < 1",
    "call of another known function's name with keywords": "max(k, 1, x=1) < 1",
    "call of unpacked arguments": "max(*[k, k0]) < 1",
    "one operand too many": "log(k, 2) < 1",
    "one operand too few": "max(k) < 1",
    "a function that is none": "sin(k) < 1",
    "a function without its call": "abs < 1",
    "a parameter called": "k(1) < 1",
    "subscript": "k[0] < 1",
    "lambda": "(lambda: 1)() < 1",
    "lambda as a condition": "lambda: k < 1",
    "comprehension": "[k for k in k] < 1",
    "generator": "max(k for _ in k) < 1",
    "conditional": "(1 if k < 1 else 2) < 1",
    "walrus": "(k := 1) < 1",
    "assignment": "k = 1",
    "statement": "import os",
    "several": "k < 1; k0 < 1",
    "f-string": "f'{k}' < 1",
    "text": "k == 'one'",
    "bytes": "k == b'1'",
    "truth value": "True",
    "truth value as a number": "k < True",
    "none": "k == None",
    "imaginary number": "k < 1j",
    "ellipsis": "k < ...",
    "beyond floats": "k < 1e999",
    "beyond floats, whole": "k < 1" + "0" * 400,
    "list": "k in [1, 2]",
    "identity": "k is k0",
    "tuple": "(k, 1) < (2, 3)",
    "await": "await k < 1",
    "bits": "k & 1 < 2",
    "modulo": "k % 2 == 0",
    "floor": "k // 2 == 0",
    "matrices": "k @ k < 1",
    "inverse": "~k < 1",
    "shift": "1 << 100000 > k",
    "a number for a condition": "k + 1",
    "a parameter for a condition": "not k",
    "a condition for a number": "(k < 1) + 1 < 2",
    "unknown name": "k < kk",
    "coupling": "coupling == 1",
    "dunder": "__builtins__ < 1",
    "unclosed": "(k < 1",
    "guessed at": "1or k < 1",
    "null byte": "k <\0 1",
    "comment": "# k < 1",
    "deep parentheses": "(" * 240 + "k" + ")" * 240 + " < 1",
    "deep signs": "-" * 100_000 + "k < 1",
    "deep nots": "not " * 100_000 + "k < 1",
    "deep calls": "abs(" * 100_000,
    "long": "k < 1 and " * 100_000 + "k < 1",
}


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_everything_else_is_refused_quickly_and_in_one_line(text: str):
    begun = time.perf_counter()
    with pytest.raises(ConstraintError) as caught:
        Constraint(text, NAMES)
    assert time.perf_counter() - begun < 1
    message = str(caught.value)
    assert "; allowed: " in message
    assert message.isprintable()
    assert len(message) < 450


def test_what_is_short_enough_is_not_too_deep():
    assert holds("-" * 490 + "k < 1", k=0.5)
    chain = "+".join(["k"] * 247)
    assert len(chain) < MAX_CHARACTERS - 5
    assert not holds(chain + " < 1", k=0.5)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("k0 <= kk", "found `kk` at character 7 of `k0 <= kk`; allowed: A, k, eta, gamma, k0; did you mean `k`?"),
        ("0 < k.real", "found `k.real` at character 5 of `0 < k.real`; allowed: numbers, parameters, + - * / **"),
        ("k + 1", "found `k + 1` at character 1 of `k + 1`; allowed: comparisons such as k0 <= k"),
        ("(k <= 1", "broken at character 1 of `(k <= 1`: '(' was never closed; allowed: comparisons"),
        ("k <\n  größe", "found `größe` at character 5 of `k < größe`; allowed: A, k, eta"),
        ("(größe, 1) < sin", "found `größe` at character 2 of"),
        ("größe < sin(kö)", "found `größe` at character 1 of"),
        ("abs(k) < abs(größe) < abs(kö, 1)", "found `größe` at character 14 of"),
    ],
)
def test_place(text: str, message: str):
    with pytest.raises(ConstraintError) as caught:
        Constraint(text, NAMES)
    assert str(caught.value).startswith(message)


def test_characters_are_counted_as_they_are_seen():
    with pytest.raises(ConstraintError, match=r"found `sin\(k\)` at character 9 of"):
        Constraint("λ < 1 < sin(k)", ["λ", "k"])


def test_names_in_their_order():
    values: Mapping[str, float] = dict.fromkeys(NAMES, 1.0)
    assert Constraint("gamma < abs(k0)*k and k0 < gamma", values).names == ("gamma", "k0", "k")

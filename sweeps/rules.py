"""The rules of a grid file that tie several keys together."""

from __future__ import annotations

import itertools
import math
import sys
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from typing import Any, get_args

from sweeps.constraints import Constraint, ConstraintError
from sweeps.kinds import Column, Span
from sweeps.problems import Finding, KeyPath
from sweeps.rounding import finest
from sweeps.sampling import design
from sweeps.schema import DEFAULTS, DRAWN, NUMBERS, Coupling, Spec

MAX_POINTS = 100_000_000
BOUNDS = ("quote_min", "quote_max")


def broken_rules(spec: Spec) -> Iterator[Finding]:
    """The mistakes of a spec whose keys are all right by themselves."""
    for rule in (
        _what_is_missing,
        _what_is_given_twice,
        _what_has_no_effect,
        _what_is_listed,
        _what_is_drawn,
        _what_is_constrained,
        _what_is_too_large_or_uneven,
        _what_is_repeated,
        _which_bounds_cross,
        _which_crowd_is_off_the_lattice,
        _which_weights_do_not_fit,
        _which_precision_is_not_stored,
    ):
        yield from rule(spec)


def unfit_points(spec: Spec) -> Iterator[Finding]:
    """What is wrong with the points that the constraints of a spec without other mistakes leave."""
    if not spec.where:
        return
    try:
        points = design(spec)
    except ConstraintError as error:
        yield Finding(("where",), str(error))
        return
    if not len(points):
        yield Finding(("where",), f"none of {points.candidates} points is left; allowed: constraints that some point satisfies")
    swept = [name for name in BOUNDS if name in spec.axes]
    lows, highs = (points.coords[name][1].tolist() if name in swept else _values(spec, name) for name in BOUNDS)
    yield from _crossing(spec, lows, highs, len(swept) == 2)


def _values(spec: Spec, name: str) -> Sequence[Any]:
    """The values that `name` takes: swept (of a span its ends), or the fixed one, or () where the library's default holds."""
    fixed = spec.parameters.get(name) if name in NUMBERS else getattr(spec.model, name)
    match axis := spec.axes.get(name, () if fixed is None else (fixed,)):
        case Span():
            return (axis.first, axis.last)
        case Column():
            return axis.values.tolist()
        case _:
            return axis


def _place(spec: Spec, name: str) -> KeyPath:
    return ("table" if name in spec.table else "sweep" if name in spec.sweep else "parameters", name)


def _what_is_missing(spec: Spec) -> Iterator[Finding]:
    if spec.sampling == "table" and not spec.table:
        return  # it may hold anything
    if not spec.axes:
        yield Finding(("sweep",), "missing or empty; allowed: at least one name with its values", {"sweep"})
    if not _values(spec, "coupling"):
        names = ", ".join(get_args(Coupling))
        yield Finding(("model", "coupling"), f"missing; allowed: one of {names}, or a sweep of it", {"coupling"})
    for name in ("eta", "gamma"):
        if not _values(spec, name):
            yield Finding(("parameters", name), "missing; allowed: a number, or a sweep of it", {name})
    for name in ("A", "k"):
        sides = (f"{name}_ask", f"{name}_bid")
        if not _values(spec, name) and not all(_values(spec, side) for side in sides):
            message = f"missing; allowed: a number, or a sweep of it, or both {' and '.join(sides)}"
            yield Finding(("parameters", name), message, {name, *sides})


def _what_is_given_twice(spec: Spec) -> Iterator[Finding]:
    for name in spec.axes:
        section = "parameters" if name in NUMBERS else "model"
        if name in spec.parameters or name in spec.model.model_fields_set:
            yield Finding(_place(spec, name), f"swept here and fixed under {section}; allowed: one of the two", {name})


def _what_has_no_effect(spec: Spec) -> Iterator[Finding]:
    couplings, kinds = _values(spec, "coupling"), (spec.initial.kind,)
    for name, choice, chosen, users in (
        ("k0", "coupling", couplings, ("elastic", "market_share")),
        ("n_makers", "coupling", couplings, ("market_share",)),
        ("crowd_mean", "kind", kinds, ("normal", "point")),
        ("crowd_std", "kind", kinds, ("normal",)),
    ):
        if name in spec.axes and chosen and not set(chosen) & set(users):
            subject = "coupling" if choice == "coupling" else "initial kind"
            allowed = f"with {subject} {' or '.join(users)}"
            message = f"swept, but {subject} {' and '.join(chosen)} ignores it; allowed: {allowed}"
            yield Finding(_place(spec, name), message, {choice})
    for name in ("A", "k"):
        sides = (f"{name}_ask", f"{name}_bid")
        if _values(spec, name) and all(_values(spec, side) for side in sides):
            message = f"{' and '.join(sides)} override it on both sides; allowed: without one of the three"
            yield Finding(_place(spec, name), message, {*sides})


def _what_is_listed(spec: Spec) -> Iterator[Finding]:
    if spec.sampling != "table":
        if spec.table:
            yield Finding(("table",), f"found with sampling {spec.sampling}; allowed with sampling table", {"sampling"})
        return
    if not spec.table:
        message = "missing; allowed with sampling table: the path of a CSV or Parquet file, a row a game"
        yield Finding(("table",), message, {"table", "sampling"})
    if spec.sweep:
        message = "found with sampling table, in which what is swept are the table's columns; allowed: one of the two"
        yield Finding(("sweep",), message, {"table", "sampling"})


def _what_is_constrained(spec: Spec) -> Iterator[Finding]:
    if spec.where and spec.sampling == "saltelli":
        message = "found with sampling saltelli, whose blocks of games must be whole; allowed with any other sampling"
        yield Finding(("where",), message, {"sampling"})
    for index, text in enumerate(spec.where):
        for name in Constraint(text, NUMBERS).names:
            if not _values(spec, name) and name not in DEFAULTS:
                message = f"`{text}` needs {name}, which has no value here; allowed: what is swept, fixed or {', '.join(DEFAULTS)}"
                yield Finding(("where", index), message, {name})


def _what_is_drawn(spec: Spec) -> Iterator[Finding]:
    if spec.sampling not in DRAWN:
        drawing = f"allowed with sampling {', '.join(DRAWN[:-1])} or {DRAWN[-1]}"
        for name in ("points", "seed"):
            if name in spec.model_fields_set:
                yield Finding((name,), f"found with sampling {spec.sampling}; {drawing}", {"sampling"})
        for name, axis in spec.sweep.items():
            if isinstance(axis, Span):
                message = f"found a span to draw from; {drawing}, with {spec.sampling} a list, linspace or logspace"
                yield Finding(("sweep", name), message, {"sampling"})
    elif spec.sampling == "saltelli" and find_spec("SALib") is None:
        install = f"{sys.executable} -m pip install 'mfg-jax[sensitivity]'"
        yield Finding(("sampling",), f"found saltelli, which needs the package SALib; install it with: {install}", {"sampling"})
    elif spec.points is None:
        yield Finding(("points",), f"missing; allowed with sampling {spec.sampling}: how many to draw", {"points", "sampling"})
    elif spec.sampling in ("sobol", "saltelli") and spec.points.bit_count() != 1:
        near = 2 ** (spec.points.bit_length() - 1)
        message = f"found {spec.points}; allowed with sampling {spec.sampling}: a power of 2, such as {near} or {2 * near}"
        yield Finding(("points",), message, {"sampling"})


def _what_is_too_large_or_uneven(spec: Spec) -> Iterator[Finding]:
    if spec.sampling in DRAWN:
        points = (spec.points or 0) * spec.games_a_point
        if points > MAX_POINTS:
            yield Finding(("points",), f"they make {points} games; allowed: at most {MAX_POINTS}", {"sampling"})
        return
    lengths = [len(_values(spec, name)) for name in spec.sweep]
    points = math.prod(lengths)
    if spec.sampling == "grid" and points > MAX_POINTS:
        message = f"found {' x '.join(map(str, lengths))} = {points} points; allowed: at most {MAX_POINTS}"
        yield Finding(("sweep",), message, {"sampling"})
    if spec.sampling == "zip" and len(set(lengths)) > 1:
        found = ", ".join(f"{name} {length}" for name, length in zip(spec.sweep, lengths, strict=True))
        message = f"found axes of lengths {found}; allowed with sampling zip: equal lengths"
        yield Finding(("sweep",), message, {"sampling"})


def _what_is_repeated(spec: Spec) -> Iterator[Finding]:
    if (index := _first_repeat(spec.outputs.gradients)) is not None:
        message = f"found {spec.outputs.gradients[index]} again; allowed: each name once"
        yield Finding(("outputs", "gradients", index), message)
    if spec.sampling == "zip":
        return  # its axes are columns of a table: only a whole row makes a point
    for name, values in spec.sweep.items():
        if not isinstance(values, Span) and (index := _first_repeat(values)) is not None:
            message = f"found {values[index]} again; allowed: each value once on an axis"
            yield Finding(("sweep", name, index), message, {"sampling"})


def _first_repeat(values: Sequence[Any]) -> int | None:
    first: dict[Any, int] = {}
    return next((index for index, value in enumerate(values) if first.setdefault(value, index) != index), None)


def _which_bounds_cross(spec: Spec) -> Iterator[Finding]:
    if not spec.where:  # which may leave out those that do: unfit_points
        lows, highs = (_values(spec, name) for name in BOUNDS)
        yield from _crossing(spec, lows, highs, spec.sampling in ("zip", "table") and spec.axes.keys() >= set(BOUNDS))


def _crossing(spec: Spec, lows: Sequence[float], highs: Sequence[float], row_by_row: bool) -> Iterator[Finding]:
    lows = lows or (DEFAULTS["quote_min"],)  # that of quote_max depends on k
    pairs = zip(lows, highs, strict=False) if row_by_row else itertools.product([max(lows)], highs)
    for low, high in pairs:
        if low > high:
            message = f"found {high}, below a quote_min of {low}; allowed: quote_min <= quote_max"
            yield Finding(_place(spec, "quote_max"), message, {"quote_min", "quote_max", "sampling"})
            return


def _which_crowd_is_off_the_lattice(spec: Spec) -> Iterator[Finding]:
    x_max = spec.model.x_max
    if spec.initial.kind != "point":
        return
    drawn = isinstance(spec.sweep.get("crowd_mean"), Span)
    for mean in _values(spec, "crowd_mean"):
        if drawn or not mean.is_integer() or abs(mean) > x_max:
            what = "a span to draw from" if drawn else mean
            message = f"found {what}; allowed with initial kind point: whole numbers from {-x_max} to {x_max}"
            yield Finding(_place(spec, "crowd_mean"), message, {"kind", "x_max"})
            return


def _which_weights_do_not_fit(spec: Spec) -> Iterator[Finding]:
    kind, weights, x_max = spec.initial.kind, spec.initial.weights, spec.model.x_max
    if weights is None:
        message = "missing; allowed with kind weights: a list of numbers" if kind == "weights" else ""
    elif kind != "weights":
        message = f"found with kind {kind}; allowed: only with kind weights"
    elif len(weights) != 2 * x_max + 1:
        message = f"found {len(weights)} numbers; allowed: 2*x_max + 1 = {2 * x_max + 1}, one for each inventory"
    else:
        message = "" if 0 < sum(weights) < math.inf else f"found a sum of {sum(weights)}; allowed: a finite sum > 0"
    if message:
        yield Finding(("initial", "weights"), message, {"kind", "weights", "x_max"})


def _which_precision_is_not_stored(spec: Spec) -> Iterator[Finding]:
    precision, dtype = spec.outputs.precision, spec.outputs.dtype
    if precision is not None and precision < finest(dtype):
        message = f"found {precision}, finer than {dtype}; allowed with it: at least {finest(dtype):.1g}, or dtype float64"
        yield Finding(("outputs", "precision"), message, {"dtype"})

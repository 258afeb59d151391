"""The grid file: its keys, its rules, and one clear line for every mistake in it."""

from __future__ import annotations

import difflib
import hashlib
import itertools
import json
import math
import re
import sys
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, NoReturn, get_args

import numpy as np
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    TypeAdapter,
    ValidationError,
    WrapValidator,
)
from pydantic_core import PydanticCustomError
from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode
from ruamel.yaml.reader import ReaderError

Coupling = Literal["relative", "elastic", "market_share", "none"]
Boundary = Literal["reflecting", "absorbing"]
Sampling = Literal["grid", "zip"]
InitialKind = Literal["normal", "point", "uniform", "weights"]
ScalarMetric = Literal[
    "mean_spread",
    "closing_spread",
    "peak_variance",
    "peak_time",
    "final_derisk_probability",
    "expected_fills",
    "half_life",
    "expected_value",
    "expected_edge",
    "expected_running_cost",
    "expected_terminal_cost",
]
# A test holds these to the scalar fields of the library's metrics: to import them from there would import jax.
SCALAR_METRICS: tuple[ScalarMetric, ...] = get_args(ScalarMetric)

MAX_BYTES = 10_000_000
MAX_AXIS = 1_000_000
MAX_POINTS = 100_000_000

KeyPath = tuple[str | int, ...]


# --- what is reported ---


@dataclass(frozen=True)
class Problem:
    """One mistake: its file, its line (None where there is none), its dotted key ("" for the whole file), its text."""

    file: str
    line: int | None
    key: str
    message: str

    def __str__(self) -> str:
        place = self.file if self.line is None else f"{self.file}:{self.line}"
        return ": ".join(part for part in (place, self.key, self.message) if part)


class SpecError(ValueError):
    """A grid file that cannot be used. `problems` holds every mistake, in line order; str() is one line for each."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        super().__init__(tuple(problems))

    @property
    def problems(self) -> tuple[Problem, ...]:
        return self.args[0]

    def __str__(self) -> str:
        return "\n".join(map(str, self.problems))


class Finding(NamedTuple):
    """A mistake before it has a line. `about` names the keys it rests on: if one of those is wrong, this is noise."""

    path: KeyPath
    message: str
    about: AbstractSet[str] = frozenset()


def _refusal(*findings: Finding) -> PydanticCustomError:
    text = "; ".join(finding.message for finding in findings)
    return PydanticCustomError("refused", "{text}", {"text": text, "findings": findings})


def _brief(text: str) -> str:
    text = text if text.isprintable() else repr(text)
    return text if len(text) <= 60 else text[:57] + "..."


def _found(value: object) -> str:
    match value:
        case None:
            return "found nothing"
        case bool():
            return f"found {str(value).lower()}, a truth value"
        case int() if value.bit_length() > 64:
            return f"found a whole number of {value.bit_length()} bits"
        case int() | float():
            return f"found {value}"
        case str():
            return f"found {_brief(repr(value))}, a text"
        case list() | tuple():
            return f"found a list of {len(value)}"
        case dict():
            return "found a mapping"
        case _:
            return f"found {_brief(str(value))}, a {type(value).__name__}"


def _nearest(name: str, names: Collection[str]) -> str | None:
    by_lower_case = {known.lower(): known for known in names}
    near = difflib.get_close_matches(name.lower(), by_lower_case, n=1)
    return by_lower_case[near[0]] if near else None


def _did_you_mean(name: str | None) -> str:
    return f"; did you mean `{name}`?" if name else ""


# --- what a value may be ---


def _allowed(text: str, ok: Callable[[Any], bool]) -> BeforeValidator:
    """Refuses a value for which `ok` is false, with what was found and that `text` is allowed."""

    def check(value: Any) -> Any:
        if not ok(value):
            raise _refusal(Finding((), f"{_found(value)}; allowed: {text}"))
        return value

    return BeforeValidator(check)


def _number(text: str, ok: Callable[[float], bool]) -> BeforeValidator:
    def is_number(value: Any) -> bool:
        if isinstance(value, bool) or not isinstance(value, int | float):
            return False
        return (isinstance(value, float) or abs(value) <= sys.float_info.max) and ok(value)

    return _allowed(text, is_number)


def _whole(low: int, high: int) -> BeforeValidator:
    return _allowed(f"a whole number from {low} to {high}", lambda value: type(value) is int and low <= value <= high)


def _list_of(text: str) -> BeforeValidator:
    return _allowed(f"a list of {text}", lambda value: isinstance(value, list | tuple))


def _first_repeat(values: Sequence[Any]) -> int | None:
    first: dict[Any, int] = {}
    return next((index for index, value in enumerate(values) if first.setdefault(value, index) != index), None)


def _once_each(names: tuple[str, ...]) -> tuple[str, ...]:
    if (index := _first_repeat(names)) is not None:
        raise _refusal(Finding((index,), f"found {names[index]} again; allowed: each name once"))
    return names


Finite = Annotated[float, _number("a finite number", math.isfinite)]
Positive = Annotated[float, _number("a finite number > 0", lambda value: 0 < value < math.inf)]
NonNegative = Annotated[float, _number("a finite number >= 0", lambda value: 0 <= value < math.inf)]
AboveOne = Annotated[float, _number("a finite number > 1", lambda value: 1 < value < math.inf)]
LowerBound = Annotated[float, _number("a number, or -.inf for no bound", lambda value: value < math.inf)]
UpperBound = Annotated[float, _number("a number, or .inf for no bound", lambda value: value > -math.inf)]
Truth = Annotated[bool, _allowed("true or false", lambda value: isinstance(value, bool))]
Text = Annotated[str, _allowed("a text", lambda value: isinstance(value, str) and value != "")]

NUMBERS: dict[str, Any] = {
    "A": Positive,
    "k": Positive,
    "eta": NonNegative,
    "gamma": NonNegative,
    "k0": NonNegative,
    "n_makers": AboveOne,
    "crowd_mean": Finite,
    "crowd_std": Positive,
    "horizon": Positive,
    "quote_min": LowerBound,
    "quote_max": UpperBound,
    "A_ask": Positive,
    "A_bid": Positive,
    "k_ask": Positive,
    "k_bid": Positive,
}
NULLABLE = {"quote_max", "A_ask", "A_bid", "k_ask", "k_bid"}

Count = Annotated[int, _whole(2, MAX_AXIS)]
RANGES: dict[str, tuple[Callable[..., np.ndarray], Any]] = {
    "linspace": (np.linspace, TypeAdapter(tuple[Finite, Finite, Count])),
    "logspace": (np.geomspace, TypeAdapter(tuple[Positive, Positive, Count])),
}


def _number_axis(value: Any, handler: Callable[[Any], Any]) -> tuple[float, ...]:
    """A list of numbers, or a range written out; `handler` says which numbers the parameter may have."""
    if isinstance(value, list | tuple) and value:
        return handler(value)
    if not isinstance(value, dict) or len(value) != 1 or (form := next(iter(value))) not in RANGES:
        found = f"found a mapping of {', '.join(map(str, value))}" if isinstance(value, dict) else _found(value)
        near = next(filter(None, (_nearest(key, RANGES) for key in value)), None) if isinstance(value, dict) else None
        allowed = "numbers in a list, {linspace: [first, last, count]} or {logspace: [first, last, count]}"
        raise _refusal(Finding((), f"{found}; allowed: {allowed}{_did_you_mean(near)}"))
    return _spaced(form, value[form], handler)


def _spaced(form: str, given: Any, handler: Callable[[Any], Any]) -> tuple[float, ...]:
    if not isinstance(given, list | tuple) or len(given) != 3:
        raise _refusal(Finding((form,), f"{_found(given)}; allowed: [first, last, count]"))
    spacing, kind = RANGES[form]
    wrong: dict[KeyPath, str] = {}
    for check, part in ((handler, given[:2]), (kind.validate_python, given)):
        try:
            check(part)
        except ValidationError as error:
            wrong |= {path: message for path, message, _ in _findings(error)}
    if wrong:
        raise _refusal(*(Finding((form, *path), message) for path, message in wrong.items()))
    first, last, count = kind.validate_python(given)
    with np.errstate(all="ignore"):
        inner = spacing(first, last, count)[1:-1]
    if not np.isfinite(inner).all():
        message = f"found {first} and {last}, too far apart to space; allowed: closer end points"
        raise _refusal(Finding((form,), message))
    # 15 digits: a value is found again as the 0.1 one would write, and does not hang on a machine's last bit
    return (first, *(float(f"{number:.15g}") for number in inner), last)


def _names(kind: Any) -> Any:
    named = _allowed("names in a list", lambda value: isinstance(value, list | tuple) and len(value) > 0)
    return Annotated[tuple[kind, ...], named]


AXES: dict[str, Any] = {
    **{name: Annotated[tuple[kind, ...], WrapValidator(_number_axis)] for name, kind in NUMBERS.items()},
    "coupling": _names(Coupling),
    "boundary": _names(Boundary),
}


def _by_name(section: str, kinds: Mapping[str, Any]) -> BeforeValidator:
    """A mapping in which each name has its own kind of value; the order of the names is kept, a null is left out."""
    adapters = {name: TypeAdapter(kind) for name, kind in kinds.items()}

    def check(given: Any) -> dict[str, Any]:
        if not isinstance(given, dict):
            raise _refusal(Finding((), _no_mapping(given, section)))
        checked, findings = {}, []
        for name, value in given.items():
            if name not in adapters:
                findings.append(Finding((name,), _unknown(name, section)))
                continue
            try:
                checked[name] = adapters[name].validate_python(value)
            except ValidationError as error:
                findings += [Finding((name, *path), message) for path, message, _ in _findings(error)]
        if findings:
            raise _refusal(*findings)
        return {name: value for name, value in checked.items() if value is not None}

    return BeforeValidator(check)


# --- the keys ---


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Model(_Section):
    """The static choices. `coupling` is None when it is swept; a grading of None is the library's default."""

    coupling: Coupling | None = None
    boundary: Boundary = "reflecting"
    x_max: Annotated[int, _whole(1, 10_000)] = 10
    n_steps: Annotated[int, _whole(1, 1_000_000)] = 200
    scheme: Literal["rk4", "euler"] = "rk4"
    grading: Annotated[float, _number("a number from 0 to 20, or null", lambda value: 0 <= value <= 20)] | None = None


class Initial(_Section):
    """How the crowd starts. `weights`: one for each inventory from -x_max to x_max, only with kind weights."""

    kind: InitialKind = "normal"
    weights: Annotated[tuple[NonNegative, ...], _list_of("finite numbers >= 0")] | None = None


class Outputs(_Section):
    """What is stored beside the scalar metrics, and how precisely."""

    paths: Truth = True
    surfaces: Truth = False
    gradients: Annotated[tuple[ScalarMetric, ...], _list_of("scalar metrics"), AfterValidator(_once_each)] = ()
    certify: Literal["basic"] = "basic"
    dtype: Literal["float64", "float32"] = "float64"


class Solver(_Section):
    """How the equilibrium is found; `tolerance` is on residual·k."""

    method: Literal["anderson", "picard"] = "anderson"
    tolerance: Annotated[float, _number("a number from 1e-14 to 1e-2", lambda value: 1e-14 <= value <= 1e-2)] = 1e-9
    max_iterations: Annotated[int, _whole(1, 100_000)] = 200


class Metrics(_Section):
    """`derisk_band`, lots: derisk_probability is P(|X| <= derisk_band). No lattice reaches beyond its limit."""

    derisk_band: Annotated[int, _whole(0, 10_000)] = 1


class Units(_Section):
    """The names of the units of price and time, for labels."""

    price: Text = "price"
    time: Text = "time"


class Spec(_Section):
    """A whole grid file. `load_spec` makes one; a Spec made directly skips the rules that tie several keys together.

    `parameters` holds only what the file fixes: defaults belong to the library. `sweep` holds each axis written out, in
    the order of the file; where it names `coupling` or `boundary`, that overrides `model`.
    """

    model: Model = Model()
    parameters: Annotated[
        dict[str, float],
        _by_name("parameters", {name: kind | None if name in NULLABLE else kind for name, kind in NUMBERS.items()}),
    ] = {}
    sweep: Annotated[dict[str, tuple[float, ...] | tuple[str, ...]], _by_name("sweep", AXES)] = {}
    sampling: Sampling = "grid"
    initial: Initial = Initial()
    outputs: Outputs = Outputs()
    solver: Solver = Solver()
    metrics: Metrics = Metrics()
    units: Units = Units()
    store: Text | None = None

    def canonical(self) -> dict[str, Any]:
        """Everything that decides the results, defaults included, `store` not: equal for two files that mean the same.

        JSON-able; infinities are "inf" and "-inf". `sweep_order` stands on its own because JSON objects have no order.
        """
        fields = self.model_dump(exclude={"store"})
        fields["model"] = {key: value for key, value in fields["model"].items() if key not in self.sweep}
        fields["parameters"] = dict(sorted(self.parameters.items()))
        fields["sweep_order"] = tuple(self.sweep)
        return _jsonable(fields)

    def hash(self) -> str:
        """The sha256 of the canonical JSON, in hexadecimal."""
        text = json.dumps(self.canonical(), sort_keys=True, separators=(",", ":"), allow_nan=False)
        return hashlib.sha256(text.encode()).hexdigest()


def _jsonable(value: Any) -> Any:
    match value:
        case dict():
            return {key: _jsonable(item) for key, item in value.items()}
        case tuple():
            return [_jsonable(item) for item in value]
        case float() if math.isinf(value):
            return str(value)
        case _:
            return value


def differing_keys(a: dict[str, Any], b: dict[str, Any]) -> list[tuple[str, Any, Any]]:
    """Where two canonical dicts differ: (dotted key, value in a, value in b), None for a key that is absent."""
    differing: list[tuple[str, Any, Any]] = []
    for key in [*a, *(key for key in b if key not in a)]:
        left, right = a.get(key), b.get(key)
        if isinstance(left, dict) and isinstance(right, dict):
            differing += [(f"{key}.{inner}", *values) for inner, *values in differing_keys(left, right)]
        elif left != right:
            differing.append((key, left, right))
    return differing


KEYS: dict[str, tuple[str, ...]] = {
    "": tuple(Spec.model_fields),
    **{kind.__name__.lower(): tuple(kind.model_fields) for kind in (Model, Initial, Outputs, Solver, Metrics, Units)},
    "parameters": tuple(NUMBERS),
    "sweep": tuple(AXES),
}


# --- rules within one key ---


def _no_mapping(value: object, section: str) -> str:
    return f"{_found(value)}; allowed: a mapping with keys among {', '.join(KEYS[section])}"


def _unknown(name: str, section: str) -> str:
    if section == "sweep" and name in Model.model_fields:
        return f"a static choice of the model cannot be swept; allowed: {', '.join(AXES)}"
    elsewhere = (f"{home}.{name}".lstrip(".") for home, names in KEYS.items() if name in names)
    hint = next(elsewhere, None) or _nearest(name, KEYS[section])
    return f"unknown key; allowed: {', '.join(KEYS[section])}{_did_you_mean(hint)}"


def _findings(error: ValidationError) -> Iterator[Finding]:
    """What pydantic collected, in our words: it meets only the kinds of mistake named here."""
    for detail in error.errors(include_url=False):
        path, found, context = detail["loc"], detail["input"], detail.get("ctx", {})
        section = str(path[0]) if path else ""
        match detail["type"]:
            case "refused":
                yield from (Finding((*path, *inner.path), inner.message) for inner in context["findings"])
            case "extra_forbidden":
                yield Finding(path, _unknown(str(path[-1]), section if len(path) > 1 else ""))
            case "literal_error":
                names = re.findall(r"'(\w+)'", context["expected"])
                near = _nearest(found, names) if isinstance(found, str) else None
                yield Finding(path, f"{_found(found)}; allowed: {', '.join(names)}{_did_you_mean(near)}")
            case _:
                yield Finding(path, _no_mapping(found, section))


# --- rules between keys ---


def _values(spec: Spec, name: str) -> tuple[Any, ...]:
    """The values that `name` takes: swept, or the fixed one, or () where the library's default holds."""
    fixed = spec.parameters.get(name) if name in NUMBERS else getattr(spec.model, name)
    return spec.sweep.get(name, () if fixed is None else (fixed,))


def _place(spec: Spec, name: str) -> KeyPath:
    return ("sweep" if name in spec.sweep else "parameters", name)


def _what_is_missing(spec: Spec) -> Iterator[Finding]:
    if not spec.sweep:
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
    for name in spec.sweep:
        section = "parameters" if name in NUMBERS else "model"
        if name in spec.parameters or name in spec.model.model_fields_set:
            yield Finding(("sweep", name), f"swept here and fixed under {section}; allowed: one of the two", {name})


def _what_has_no_effect(spec: Spec) -> Iterator[Finding]:
    couplings, kinds = _values(spec, "coupling"), (spec.initial.kind,)
    for name, choice, chosen, users in (
        ("k0", "coupling", couplings, ("elastic", "market_share")),
        ("n_makers", "coupling", couplings, ("market_share",)),
        ("crowd_mean", "kind", kinds, ("normal", "point")),
        ("crowd_std", "kind", kinds, ("normal",)),
    ):
        if name in spec.sweep and chosen and not set(chosen) & set(users):
            subject = "coupling" if choice == "coupling" else "initial kind"
            allowed = f"with {subject} {' or '.join(users)}"
            message = f"swept, but {subject} {' and '.join(chosen)} ignores it; allowed: {allowed}"
            yield Finding(("sweep", name), message, {choice})


def _what_is_too_large_or_uneven(spec: Spec) -> Iterator[Finding]:
    lengths = [len(values) for values in spec.sweep.values()]
    points = math.prod(lengths)
    if spec.sampling == "grid" and points > MAX_POINTS:
        message = f"found {' x '.join(map(str, lengths))} = {points} points; allowed: at most {MAX_POINTS}"
        yield Finding(("sweep",), message, {"sampling"})
    if spec.sampling == "zip" and len(set(lengths)) > 1:
        found = ", ".join(f"{name} {length}" for name, length in zip(spec.sweep, lengths, strict=True))
        message = f"found axes of lengths {found}; allowed with sampling zip: equal lengths"
        yield Finding(("sweep",), message, {"sampling"})


def _what_is_repeated(spec: Spec) -> Iterator[Finding]:
    if spec.sampling == "zip":
        return  # its axes are columns of a table: only a whole row makes a point
    for name, values in spec.sweep.items():
        if (index := _first_repeat(values)) is not None:
            message = f"found {values[index]} again; allowed: each value once on an axis"
            yield Finding(("sweep", name, index), message, {"sampling"})


def _which_bounds_cross(spec: Spec) -> Iterator[Finding]:
    lows = _values(spec, "quote_min") or (0.0,)  # the library's default; that of quote_max depends on k
    highs = _values(spec, "quote_max")
    row_by_row = spec.sampling == "zip" and {"quote_min", "quote_max"} <= spec.sweep.keys()
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
    for mean in _values(spec, "crowd_mean"):
        if not mean.is_integer() or abs(mean) > x_max:
            message = f"found {mean}; allowed with initial kind point: whole numbers from {-x_max} to {x_max}"
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


RULES: tuple[Callable[[Spec], Iterator[Finding]], ...] = (
    _what_is_missing,
    _what_is_given_twice,
    _what_has_no_effect,
    _what_is_too_large_or_uneven,
    _what_is_repeated,
    _which_bounds_cross,
    _which_crowd_is_off_the_lattice,
    _which_weights_do_not_fit,
)


# --- the file ---


class _Document:
    """A YAML text as plain Python data, the line of every key and list item, and the keys written twice.

    It is built from the node graph rather than loaded, because only there is every line known and no repeated key lost.
    Every key is the text that was written: this schema has no others.

    Raises:
        SpecError: the text is no YAML.
    """

    def __init__(self, file: str, text: str) -> None:
        self.file = file
        self.lines: dict[KeyPath, int] = {}
        self.twice: list[Finding] = []
        # An alias is the node of its anchor: each node is built once, so aliases of aliases cannot multiply.
        self._built: dict[int, Any] = {}
        self._yaml = YAML(typ="safe", pure=True)
        try:
            root = self._yaml.compose(text)
            self.data = None if root is None else self._build(root, ())
        except ReaderError as error:
            self._stop(text.count("\n", 0, error.position) + 1, "found a character that YAML does not allow")
        except MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            tab = "; allowed: spaces, not tabs" if "'\\t'" in str(error.problem) else ""
            self._stop(mark and mark.line + 1, f"broken YAML: {error.problem}{tab}")
        except RecursionError:
            self._stop(None, "broken YAML: nested too deeply")

    def problems(self, findings: Sequence[Finding]) -> list[Problem]:
        """The findings with their lines, in line order."""
        found = [Problem(self.file, self._line(path), _dotted(path), message) for path, message, _ in findings]
        return sorted(found, key=lambda problem: problem.line or 0)

    def _line(self, path: KeyPath) -> int:
        """The line of `path`, or of what it would stand in."""
        while path and path not in self.lines:
            path = path[:-1]
        return self.lines.get(path, 1)

    def _stop(self, line: int | None, message: str) -> NoReturn:
        raise SpecError([Problem(self.file, line, "", message)]) from None

    def _build(self, node: Node, path: KeyPath) -> Any:
        self.lines.setdefault(path, node.start_mark.line + 1)
        if id(node) in self._built:
            return self._built[id(node)]
        match node:
            case MappingNode():
                built = self._built[id(node)] = {}
                self._fill(built, node, path)
            case SequenceNode():
                built = self._built[id(node)] = []
                built += [self._build(item, (*path, index)) for index, item in enumerate(node.value)]
            case _:
                built = self._scalar(node)
        return built

    def _fill(self, built: dict[str, Any], node: MappingNode, path: KeyPath) -> None:
        for key_node, value_node in node.value:
            key = str(key_node.value) if isinstance(key_node, ScalarNode) else "?"
            self.lines[*path, key] = key_node.start_mark.line + 1
            if key in built:
                self.twice.append(Finding((*path, key), "found twice; allowed: once"))
            else:
                built[key] = self._build(value_node, (*path, key))

    def _scalar(self, node: Node) -> Any:
        try:
            return self._yaml.constructor.construct_document(node)
        except ValueError:  # a date such as 2024-99-99, a number of too many digits
            self._stop(node.start_mark.line + 1, f"broken YAML: {_brief(str(node.value))} cannot be read")


def _dotted(path: KeyPath) -> str:
    keys = (f"[{part}]" if isinstance(part, int) else f".{_brief(part)}" for part in path)
    return "".join(keys).lstrip(".")


def _read(path: Path) -> str:
    def stop(message: str, line: int | None = None) -> SpecError:
        return SpecError([Problem(str(path), line, "", message)])

    try:
        with path.open("rb") as file:
            raw = file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        raise stop("no such file; allowed: a grid file in YAML") from None
    except IsADirectoryError:
        raise stop("found a folder; allowed: a grid file in YAML") from None
    except OSError as error:
        raise stop(f"cannot be read: {error.strerror}") from None
    if len(raw) > MAX_BYTES:
        raise stop(f"found more than {MAX_BYTES} bytes; allowed: a smaller file")
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise stop(f"found the byte {raw[error.start]:#04x}, not UTF-8; allowed: a text file in UTF-8", line) from None


def _blamed(path: KeyPath) -> set[str]:
    """The keys that a mistake at `path` may explain: itself, what it may have been meant for, and the keys within."""
    head, *rest = map(str, path)
    if rest:
        return {head, rest[0], _nearest(rest[0], KEYS[head]) or head}
    section = head if head in KEYS else _nearest(head, KEYS[""]) or head
    return {head, section, *KEYS.get(section, ())}


def _without(data: dict[str, Any], findings: Sequence[Finding]) -> dict[str, Any]:
    """The top level and the sections without the keys that the findings are about."""
    kept = {key: dict(value) if isinstance(value, dict) else value for key, value in data.items()}
    for head, *rest in (map(str, finding.path) for finding in findings):
        if rest and head in kept:
            kept[head].pop(rest[0], None)
        else:
            kept.pop(head, None)
    return kept


def _wrong_in_themselves(data: Any) -> list[Finding]:
    try:
        Spec.model_validate(data)
    except ValidationError as error:
        return list(_findings(error))
    return []


def _wrong_together(spec: Spec, already: Sequence[Finding]) -> list[Finding]:
    blamed = {key for finding in already for key in _blamed(finding.path)}
    return [finding for rule in RULES for finding in rule(spec) if not finding.about & blamed]


def load_spec(path: str | Path) -> Spec:
    """The grid file at `path`, checked as a whole.

    Raises:
        SpecError: with all mistakes of the file at once, each with its line, what was found and what is allowed.
    """
    document = _Document(str(path), _read(Path(path)))
    findings = [*document.twice, *_wrong_in_themselves(document.data)]
    if isinstance(document.data, dict):
        spec = Spec.model_validate(_without(document.data, findings))
        findings += _wrong_together(spec, findings)
        if not findings:
            return spec
    raise SpecError(document.problems(findings))

"""The keys of a grid file."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, PlainValidator, create_model

from sweeps.kinds import (
    AboveOne,
    Column,
    Finite,
    LowerBound,
    NonNegative,
    Positive,
    Span,
    Text,
    Truth,
    UpperBound,
    axis_of_names,
    axis_of_numbers,
    column_of_names,
    column_of_numbers,
    constraint_on,
    list_of,
    number,
    one_or_list_of,
    whole,
    whole_or_auto,
)

Coupling = Literal["relative", "elastic", "market_share", "none"]
Boundary = Literal["reflecting", "absorbing"]
Sampling = Literal["grid", "zip", "table", "random", "latin_hypercube", "sobol", "saltelli"]
DRAWN = ("random", "latin_hypercube", "sobol", "saltelli")
"""Samplings that draw `points` from the axes: all but those that take the values as they are written."""
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
DEFAULTS = {"k0": 0.0, "n_makers": 5.0, "crowd_mean": 0.0, "crowd_std": 2.0, "horizon": 1.0, "quote_min": 0.0}
"""Of the library's parameters those that are numbers; a test holds them to it, as above."""


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ModelSection(_Section):
    """The static choices. `coupling` is None when it is swept."""

    coupling: Coupling | None = None
    boundary: Boundary = "reflecting"
    x_max: Annotated[int, whole(1, 10_000)] = 10
    n_steps: Annotated[int | Literal["auto"], whole_or_auto(1, 1_000_000)] = 200
    time_tolerance: Positive | None = None
    scheme: Literal["automatic", "rk4", "exponential", "euler"] = "automatic"
    grading: Annotated[float, number("a number from 0 to 20", lambda value: 0 <= value <= 20)] = 2.4375114537440243


class InitialSection(_Section):
    """How the crowd starts. `weights`: one for each inventory from -x_max to x_max, only with kind weights."""

    kind: InitialKind = "normal"
    weights: Annotated[tuple[NonNegative, ...], list_of("finite numbers >= 0")] | None = None


class OutputsSection(_Section):
    """What is stored beside the scalar metrics, and how precisely: `precision` is relative, None for all digits."""

    paths: Truth = True
    surfaces: Truth = False
    gradients: Annotated[tuple[ScalarMetric, ...], list_of("scalar metrics")] = ()
    certify: Literal["basic", "full"] = "basic"
    equilibria: Truth = False
    baseline: Truth = False
    dtype: Literal["float64", "float32"] = "float64"
    precision: Annotated[float, number("a number from 1e-15 to 1e-2", lambda value: 1e-15 <= value <= 1e-2)] | None = None


class SolverSection(_Section):
    """How the equilibrium is found, and which where there are several; `tolerance` is on residual·k."""

    method: Literal["anderson", "picard"] = "anderson"
    tolerance: Annotated[float, number("a number from 1e-14 to 1e-2", lambda value: 1e-14 <= value <= 1e-2)] = 1e-9
    max_iterations: Annotated[int, whole(1, 100_000)] = 200
    select: Literal["principal", "any", "cold"] = "principal"


class MetricsSection(_Section):
    """`derisk_band`, lots: derisk_probability is P(|X| <= derisk_band). No lattice reaches beyond its limit."""

    derisk_band: Annotated[int, whole(0, 10_000)] = 1


class UnitsSection(_Section):
    """The names of the units of price and time, for labels."""

    price: Text = "price"
    time: Text = "time"


def _section(name: str, kinds: dict[str, Any]) -> type[_Section]:
    fields: Any = {key: (kind, None) for key, kind in kinds.items()}
    return create_model(name, __base__=_Section, **fields)


def _as_written(section: type[_Section]) -> PlainValidator:
    """What `section` allows, as a dict of the names that were given, in their order; a null is a name not given."""

    def check(given: Any) -> dict[str, Any]:
        checked = section.model_validate(given)
        return {name: value for name in given if (value := getattr(checked, name)) is not None}

    return PlainValidator(check)


ParametersSection = _section(
    "ParametersSection", {name: kind | None if name in NULLABLE else kind for name, kind in NUMBERS.items()}
)
SweepSection = _section(
    "SweepSection",
    {
        **{name: axis_of_numbers(kind) for name, kind in NUMBERS.items()},
        "coupling": axis_of_names(Coupling),
        "boundary": axis_of_names(Boundary),
    },
)
TableSection = _section(
    "TableSection",
    {
        **{name: column_of_numbers(kind) for name, kind in NUMBERS.items()},
        "coupling": column_of_names(Coupling),
        "boundary": column_of_names(Boundary),
    },
)

Axis = tuple[float, ...] | tuple[str, ...] | Span | Column


class Spec(_Section):
    """A whole grid file. `load_spec` makes one; a Spec made directly skips the rules that tie several keys together.

    `parameters` holds only what the file fixes: defaults belong to the library. `sweep` holds each axis written out, or the
    span that numbers are drawn from, in the order of the file; where it names `coupling` or `boundary`, that overrides `model`.
    `table` holds the columns of the file that the grid file names there.
    """

    model: ModelSection = ModelSection()
    parameters: Annotated[dict[str, float], _as_written(ParametersSection)] = {}
    sweep: Annotated[dict[str, tuple[float, ...] | tuple[str, ...] | Span], _as_written(SweepSection)] = {}
    sampling: Sampling = "grid"
    table: Annotated[dict[str, Column], _as_written(TableSection)] = {}
    where: Annotated[tuple[Annotated[str, constraint_on(NUMBERS)], ...], one_or_list_of("constraints such as k0 <= k")] = ()
    points: Annotated[int, whole(1, 100_000_000)] | None = None
    seed: Annotated[int, whole(0, 2**32 - 1)] = 0
    initial: InitialSection = InitialSection()
    outputs: OutputsSection = OutputsSection()
    solver: SolverSection = SolverSection()
    metrics: MetricsSection = MetricsSection()
    units: UnitsSection = UnitsSection()
    store: Text | None = None

    @property
    def certify_fully(self) -> bool:
        """Whether the certificates that cost further solves are computed: a time_tolerance needs one of them."""
        return self.outputs.certify == "full" or self.model.n_steps == "auto" or self.model.time_tolerance is not None

    @property
    def axes(self) -> dict[str, Axis]:
        """What is swept, wherever it is written."""
        return {**self.sweep, **self.table}

    @property
    def games_a_point(self) -> int:
        """Of a Saltelli design each point is a block of games: two, and for each axis the first with the second's value on it."""
        return len(self.axes) + 2 if self.sampling == "saltelli" else 1

    def canonical(self) -> dict[str, Any]:
        """Everything that decides the results, defaults included, `store` not: equal for two files that mean the same.

        JSON-able; infinities are "inf" and "-inf". `sweep_order` stands on its own because JSON objects have no order. Of a
        table's columns there are digests. Constraints are as they are written, and their key is absent where there are none, as is
        that of the precision.
        """
        without_effect = set() if self.sampling in DRAWN else {"points", "seed"}
        without_effect |= set() if self.where else {"where"}
        fields = self.model_dump(exclude={"store", "sweep", "table"} | without_effect)
        fields["sweep"] = {name: _summary(axis) for name, axis in self.axes.items()}
        fields["model"] = {key: value for key, value in fields["model"].items() if key not in self.axes}
        fields["outputs"] = {key: value for key, value in fields["outputs"].items() if value is not None}
        fields["parameters"] = dict(sorted(self.parameters.items()))
        fields["sweep_order"] = tuple(self.axes)
        return json.loads(json.dumps(fields), parse_constant=lambda infinity: str(float(infinity)))

    def hash(self) -> str:
        """The sha256 of the canonical JSON, in hexadecimal."""
        return hash_of(self.canonical())


def hash_of(canonical: dict[str, Any]) -> str:
    """The hash of the spec that has this canonical form."""
    text = json.dumps(canonical, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def _summary(axis: Axis) -> Any:
    match axis:
        case Span():
            return asdict(axis)
        case Column():
            return axis.summary()
        case _:
            return axis


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


# The keys of each section, and under "" those of the top level.
KEYS: dict[str, tuple[str, ...]] = {
    name: tuple(section.model_fields)
    for name, section in {
        "": Spec,
        "model": ModelSection,
        "initial": InitialSection,
        "outputs": OutputsSection,
        "solver": SolverSection,
        "metrics": MetricsSection,
        "units": UnitsSection,
        "parameters": ParametersSection,
        "sweep": SweepSection,
        "table": TableSection,
    }.items()
}

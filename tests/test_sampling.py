"""The points of a sweep, against the slow obvious way: the whole product, written out, and one point after the other."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sweeps import sampling as module
from sweeps.kinds import Column
from sweeps.sampling import Design, design
from sweeps.schema import DRAWN, Sampling, Spec

NAMES = ("A", "k", "gamma", "horizon")
AXES = st.dictionaries(
    st.sampled_from(NAMES),
    st.lists(st.floats(0.1, 10), min_size=1, max_size=5, unique=True),
    min_size=1,
)
Sweep = Mapping[str, Sequence[Any]]
COUPLINGS = ("relative", "elastic", "market_share", "none")


def make(sweep: Sweep, sampling: Sampling = "grid", **drawn: int) -> Design:
    return design(Spec.model_validate({"sweep": sweep, "sampling": sampling, **drawn}))


@st.composite
def grids(draw: st.DrawFn) -> tuple[Sweep, int, int]:
    """Axes, among them perhaps one of names, and a range of their points."""
    sweep: dict[str, list[Any]] = {**draw(AXES)}
    if draw(st.booleans()):
        sweep["coupling"] = draw(st.lists(st.sampled_from(COUPLINGS), min_size=1, unique=True))
    sweep = {name: sweep[name] for name in draw(st.permutations(sorted(sweep)))}
    start, stop = sorted(draw(st.tuples(*[st.integers(0, math.prod(map(len, sweep.values())))] * 2)))
    return sweep, start, stop


@given(grids())
def test_columns_are_slices_of_the_whole_product(case: tuple[Sweep, int, int]):
    sweep, start, stop = case
    points = make(sweep)
    product = np.meshgrid(*sweep.values(), indexing="ij")
    columns = points.columns(start, stop)
    assert list(columns) == list(sweep)
    for column, whole in zip(columns.values(), product, strict=True):
        np.testing.assert_array_equal(column, whole.ravel()[start:stop], strict=True)


@given(grids())
def test_grid_has_a_dim_for_each_axis(case: tuple[Sweep, int, int]):
    sweep, _, _ = case
    points = make(sweep)
    assert points.dims == tuple(sweep)
    assert points.shape == tuple(map(len, sweep.values()))
    assert len(points) == np.prod(points.shape)
    for name, (dims, values) in points.coords.items():
        assert dims == (name,)
        assert values.tolist() == list(sweep[name])


@given(st.lists(st.tuples(st.floats(0.1, 10), st.sampled_from(COUPLINGS)), min_size=1), st.data())
def test_zip_has_one_dim_and_keeps_the_rows(rows: list[tuple[float, str]], data: st.DataObject):
    start, stop = sorted(data.draw(st.tuples(*[st.integers(0, len(rows))] * 2)))
    numbers, names = zip(*rows, strict=True)
    points = make({"k": numbers, "coupling": names}, "zip")
    assert (points.dims, points.shape, len(points)) == (("point",), (len(rows),), len(rows))
    assert {dims for dims, _ in points.coords.values()} == {("point",)}
    columns = points.columns(start, stop)
    assert list(zip(columns["k"].tolist(), columns["coupling"].tolist(), strict=True)) == rows[start:stop]


def test_numbers_are_float64_and_names_fixed_width_text():
    points = make({"k": (1.0,), "coupling": ("relative", "none")})
    assert points.coords["k"][1].dtype == np.float64
    assert points.coords["coupling"][1].dtype == np.dtype("<U8")
    assert points.columns(0, 2)["coupling"].tolist() == ["relative", "none"]


def test_a_hundred_million_points_are_not_written_out():
    points = make({name: np.linspace(1, 2, 100).tolist() for name in NAMES})
    assert len(points) == 100_000_000
    columns = points.columns(len(points) - 3, len(points))
    assert columns["horizon"].tolist() == np.linspace(1, 2, 100)[-3:].tolist()
    assert columns["A"].tolist() == [2.0, 2.0, 2.0]


@pytest.mark.parametrize(("start", "stop"), [(-1, 1), (1, 3)])
@pytest.mark.parametrize("sampling", ["grid", "zip"])
def test_points_that_are_not_there(start: int, stop: int, sampling: Sampling):
    with pytest.raises(ValueError, match="out of bounds"):
        make({"k": (1.0, 2.0)}, sampling).columns(start, stop)


SPANS = {"A": {"uniform": [5, 50]}, "gamma": {"log_uniform": [0.01, 1]}, "k": [1.0, 2.0], "coupling": ["relative", "none"]}


@pytest.mark.parametrize("sampling", DRAWN)
def test_drawn_points_lie_in_their_spans_and_hang_on_the_seed(sampling: Sampling):
    points, again, others = (make(SPANS, sampling, points=64, seed=seed) for seed in (1, 1, 2))
    assert points.dims == ("point",)
    assert points.shape == (64 * (6 if sampling == "saltelli" else 1),)
    for name, (dims, values) in points.coords.items():
        assert dims == ("point",)
        np.testing.assert_array_equal(values, again.coords[name][1])
    assert not np.array_equal(points.coords["A"][1], others.coords["A"][1])
    columns = points.columns(0, len(points))
    assert columns["A"].min() >= 5
    assert columns["A"].max() <= 50
    assert columns["gamma"].min() >= 0.01
    assert columns["gamma"].max() <= 1
    assert set(columns["k"]) == {1.0, 2.0}
    assert set(columns["coupling"]) == {"relative", "none"}


@pytest.mark.parametrize("sampling", ["latin_hypercube", "sobol"])
def test_one_point_lies_in_each_part_of_an_axis(sampling: Sampling):
    columns = make(SPANS, sampling, points=32).columns(0, 32)
    along = (columns["A"] - 5) / 45, np.log(columns["gamma"] / 0.01) / np.log(100)
    for shares in along:
        np.testing.assert_array_equal(np.sort(np.floor(32 * shares)), np.arange(32))
    assert sorted(columns["k"]) == [1.0] * 16 + [2.0] * 16
    assert sorted(columns["coupling"]) == ["none"] * 16 + ["relative"] * 16


def test_a_saltelli_block_is_two_points_and_the_first_with_each_value_of_the_second():
    columns = make(SPANS, "saltelli", points=8).columns(0, 48)
    for block in range(8):
        rows = [tuple(column[6 * block + i] for column in columns.values()) for i in range(6)]
        first, *mixed, second = rows
        for axis, row in enumerate(mixed):
            assert row == (*first[:axis], second[axis], *first[axis + 1 :])


def rows(points: Design) -> list[tuple[Any, ...]]:
    return list(zip(*(column.tolist() for column in points.columns(0, len(points)).values()), strict=True))


CONSTRAINED = {"k": [1.0, 1.5, 2.0], "coupling": ["relative", "none", "elastic"], "A": [5.0, 10.0, 50.0]}
CONSTRAINTS = ("k*crowd_std < A/2 or A == 5", "eta < k <= 1.5", "n_makers == 5")


def satisfies(k: float, coupling: str, A: float) -> bool:
    """All constraints, with eta fixed at 1 and the defaults of the library."""
    return (k * 2.0 < A / 2 or A == 5) and 1.0 < k <= 1.5


@pytest.mark.parametrize("sampling", ["grid", "zip", "table", "random", "latin_hypercube", "sobol"])
@pytest.mark.parametrize("at_once", [1, 2, 10, 1_000_000])
def test_constraints_leave_a_list_of_points(monkeypatch: pytest.MonkeyPatch, sampling: str, at_once: int):
    monkeypatch.setattr(module, "POINTS_AT_ONCE", at_once)
    content: dict[str, Any] = {"sampling": sampling, "parameters": {"eta": 1.0}}
    if sampling == "table":
        content["table"] = {name: Column(np.array(values), "games.csv") for name, values in CONSTRAINED.items()}
    else:
        content["sweep"] = CONSTRAINED
    if sampling in DRAWN:
        content["points"] = 16
    everything = design(Spec.model_validate(content))
    points = design(Spec.model_validate(content | {"where": CONSTRAINTS}))
    left = [row for row in rows(everything) if satisfies(*row)]
    assert 0 < len(left) < len(everything)
    assert rows(points) == left
    assert (points.dims, points.shape, points.candidates) == (("point",), (len(left),), len(everything))
    assert everything.candidates == len(everything)
    for name, (dims, values) in points.coords.items():
        assert dims == ("point",)
        assert values.dtype == everything.coords[name][1].dtype


@pytest.mark.parametrize(("where", "left"), [("eta < 2", 27), ("eta > 2", 0)])
def test_constraints_on_what_is_fixed_leave_all_or_none(where: str, left: int):
    points = design(Spec.model_validate({"parameters": {"eta": 1.0}, "sweep": CONSTRAINED, "where": where}))
    assert (len(points), points.candidates) == (left, 27)

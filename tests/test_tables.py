"""Tables of games: what is read from a file, and what is said of one that cannot be used."""

import datetime
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pyarrow import parquet

from sweeps.sampling import design
from sweeps.spec import Spec, SpecError, differing_keys, load_spec
from sweeps.tables import read

GRID = """\
model: {}
parameters: {eta: 0.01, gamma: 0.05}
sampling: table
table: games.csv
"""
GAMES = "A,coupling,k,quote_max\n10,relative,1.5,inf\n0.1,none,2,.inf\n1e1,relative,1.5,3\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "grid.yaml").write_text(GRID)
    return tmp_path


def load(folder: Path, games: str = GAMES) -> Spec:
    (folder / "games.csv").write_text(games, encoding="utf-8")
    return load_spec(folder / "grid.yaml")


def refusals(folder: Path) -> list[tuple[int | None, str, str]]:
    with pytest.raises(SpecError) as caught:
        load_spec(folder / "grid.yaml")
    assert len(str(caught.value).splitlines()) == len(caught.value.problems)
    return [(problem.line, problem.key, problem.message) for problem in caught.value.problems]


def refusal(folder: Path, games: str | bytes) -> tuple[str, str]:
    """Key and message of the one that there is; it has the line of the table."""
    (folder / "games.csv").write_bytes(games if isinstance(games, bytes) else games.encode())
    ((line, key, message),) = refusals(folder)
    assert line == 4
    return key, message


def write_parquet(path: Path, **columns: Sequence[Any]) -> None:
    parquet.write_table(pyarrow.table(columns), path)


def test_a_row_is_a_game(folder: Path):
    points = design(load(folder))
    assert (points.dims, points.shape) == (("point",), (3,))
    assert list(points.coords) == ["A", "coupling", "k", "quote_max"]
    columns = points.columns(0, 3)
    assert columns["A"].tolist() == [10.0, 0.1, 10.0]
    assert columns["coupling"].tolist() == ["relative", "none", "relative"]
    assert columns["quote_max"].tolist() == [np.inf, np.inf, 3.0]
    assert (columns["A"].dtype, columns["coupling"].dtype) == (np.float64, np.dtype("<U8"))


NUMBERS = st.floats(1e-300, 1e300)
COUPLINGS = st.sampled_from(["relative", "elastic", "market_share", "none"])


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(NUMBERS, COUPLINGS), min_size=1, max_size=20))
def test_every_digit_is_read_and_both_kinds_of_file_mean_the_same(folder: Path, rows: list[tuple[float, str]]):
    spec = load(folder, "A,coupling,k\n" + "".join(f"{A!r},{coupling},1.5\n" for A, coupling in rows))
    columns = design(spec).columns(0, len(rows))
    assert list(zip(columns["A"].tolist(), columns["coupling"].tolist(), strict=True)) == rows
    numbers, names = zip(*rows, strict=True)
    write_parquet(folder / "games.parquet", A=numbers, coupling=names, k=[1.5] * len(rows))
    other = folder / "other.yaml"
    other.write_text(GRID.replace("games.csv", "games.parquet"))
    assert load_spec(other).canonical() == spec.canonical()


def test_a_table_of_another_folder_with_spaces_quotes_and_a_byte_order_mark(folder: Path):
    (folder / "tables").mkdir()
    (folder / "tables" / "mine.csv").write_bytes(b'\xef\xbb\xbfA, coupling, "k"\r\n 10, none, "1.5"\r\n')
    (folder / "grid.yaml").write_text(GRID.replace("games.csv", "tables/mine.csv"))
    columns = design(load_spec(folder / "grid.yaml")).columns(0, 1)
    assert {name: values.tolist() for name, values in columns.items()} == {"A": [10.0], "coupling": ["none"], "k": [1.5]}


def test_blank_lines_are_no_rows(tmp_path: Path):
    (tmp_path / "t.csv").write_text("A,k\n1,2\n\n3,4\n\n")
    columns = read(tmp_path / "t.csv")
    assert {name: column.values.tolist() for name, column in columns.items()} == {"A": [1.0, 3.0], "k": [2.0, 4.0]}


class TestCanonical:
    def test_numbers_are_told_by_their_digest(self, folder: Path):
        canonical = load(folder).canonical()
        assert canonical["sweep_order"] == ["A", "coupling", "k", "quote_max"]
        assert canonical["sweep"].keys() == set(canonical["sweep_order"])
        assert canonical["sweep"]["A"]["rows"] == 3
        assert "table" not in canonical
        assert "coupling" not in canonical["model"]

    def test_what_was_changed_has_its_name(self, folder: Path):
        one = load(folder).canonical()
        assert differing_keys(one, load(folder, GAMES.replace("0.1", "0.10")).canonical()) == []
        for old, new, key in (("0.1", "0.1000000000000001", "A"), ("none", "elastic", "coupling"), (",3", ",3.5", "quote_max")):
            differing = differing_keys(one, load(folder, GAMES.replace(old, new)).canonical())
            assert [name for name, _, _ in differing] == [f"sweep.{key}.sha256"]

    def test_a_row_more_and_the_order_of_rows_and_columns(self, folder: Path):
        one = load(folder)
        header, *rows = GAMES.splitlines()
        others = ["\n".join([header, *rows, rows[0]]), "\n".join([header, *rows[::-1]])]
        others.append("\n".join(",".join(line.split(",")[::-1]) for line in (header, *rows)))
        assert one.hash() not in {load(folder, text + "\n").hash() for text in others}


# Each: the table, the key of the one problem and its message, from its start.
GOOD_ROW = "10,none,1.5\n"
CELLS = {
    "missing": ("A,coupling,k\n,none,1.5\n", "table.A", "row 1 of games.csv: found nothing; allowed: a finite number > 0"),
    "text": (f"A,coupling,k\n{GOOD_ROW}fast,none,1.5\n", "table.A", "row 2 of games.csv: found 'fast', a text; allowed: a finite"),
    "NA": ("A,coupling,k\nNA,none,1.5\n", "table.A", "row 1 of games.csv: found 'NA', a text"),
    "not a number": ("A,coupling,k\nnan,none,1.5\n", "table.A", "row 1 of games.csv: found nan; allowed: a finite number > 0"),
    "negative": (f"A,coupling,k\n{GOOD_ROW}-1,none,1.5\n", "table.A", "row 2 of games.csv: found -1.0; allowed: a finite"),
    "zero": ("A,coupling,k\n0,none,1.5\n", "table.A", "row 1 of games.csv: found 0.0; allowed"),
    "infinite": ("A,coupling,k\ninf,none,1.5\n", "table.A", "row 1 of games.csv: found inf; allowed"),
    "infinite among others": (f"A,coupling,k\n{GOOD_ROW}inf,none,1.5\n", "table.A", "row 2 of games.csv: found inf; allowed"),
    "decimal comma": ('A,coupling,k\n"1,5",none,1.5\n', "table.A", "row 1 of games.csv: found '1,5', a text"),
    "unknown coupling": (
        f"A,coupling,k\n{GOOD_ROW}1,relativ,1.5\n",
        "table.coupling",
        "row 2 of games.csv: found 'relativ', a text; allowed: relative, elastic, market_share, none; did you mean `relative`?",
    ),
    "no coupling": (f"A,coupling,k\n{GOOD_ROW}1,,1.5\n", "table.coupling", "row 2 of games.csv: found nothing; allowed: relative"),
    "number for a coupling": (f"A,coupling,k\n1,3,1.5\n{GOOD_ROW}", "table.coupling", "row 1 of games.csv: found 3.0; allowed"),
    "numbers for a coupling": ("A,coupling,k\n1,3,1.5\n", "table.coupling", "row 1 of games.csv: found 3.0; allowed: relative"),
    "one maker": (
        f"A,coupling,k,n_makers\n{GOOD_ROW.strip()},1\n",
        "table.n_makers",
        "row 1 of games.csv: found 1.0; allowed: a finite number > 1",
    ),
}


class TestBadCells:
    @pytest.mark.parametrize(("games", "key", "message"), CELLS.values(), ids=CELLS)
    def test_one(self, folder: Path, games: str, key: str, message: str):
        found = refusal(folder, games)
        assert found[0] == key
        assert found[1].startswith(message)
        assert "more" not in found[1]

    @pytest.mark.parametrize("bad", ["-1,non,1.5\n", ",,\n", "x,y,z\n", "nan,nan,nan\n"])
    def test_many_make_a_line_for_each_column(self, folder: Path, bad: str):
        (folder / "games.csv").write_text("A,coupling,k\n" + (GOOD_ROW + bad) * 1000)
        found = refusals(folder)
        assert len(found) == 2 + ("1.5" not in bad)
        assert all(message.startswith("row 2 of games.csv (and 999 more): found ") for _, _, message in found)

    def test_columns_and_other_mistakes_are_told_together(self, folder: Path):
        (folder / "grid.yaml").write_text(GRID + "samplng: zip\n")
        (folder / "games.csv").write_text("A,coupling,k\n-1,none,0\n")
        assert [(line, key) for line, key, _ in refusals(folder)] == [(4, "table.A"), (4, "table.k"), (5, "samplng")]

    @pytest.mark.parametrize(
        ("cells", "message"),
        [
            ([1.0, None], "row 2 of games.parquet: found nothing; allowed: a finite number > 0"),
            ([1.0, float("nan")], "row 2 of games.parquet: found nan; allowed: a finite number > 0"),
            ([1, -2], "row 2 of games.parquet: found -2.0; allowed: a finite number > 0"),
            ([True, False], "row 1 of games.parquet (and 1 more): found true, a truth value; allowed: a finite number > 0"),
            (["1.5", "2"], "row 1 of games.parquet (and 1 more): found '1.5', a text"),
            ([[1.0, 2.0], [3.0, 4.0]], "row 1 of games.parquet (and 1 more): found a list of 2"),
            ([datetime.date(2026, 1, 31), None], "row 1 of games.parquet (and 1 more): found 2026-01-31, a date"),
        ],
    )
    def test_parquet(self, folder: Path, cells: list[Any], message: str):
        write_parquet(folder / "games.parquet", A=cells, coupling=["none", "none"], k=[1.0, 2.0])
        (folder / "grid.yaml").write_text(GRID.replace("games.csv", "games.parquet"))
        ((line, key, found),) = refusals(folder)
        assert (line, key) == (4, "table.A")
        assert found.startswith(message)

    def test_whole_numbers_of_parquet(self, folder: Path):
        write_parquet(folder / "games.parquet", A=pyarrow.array([1, 2], pyarrow.int8()), coupling=["none", "none"], k=[1.0, 2.0])
        (folder / "grid.yaml").write_text(GRID.replace("games.csv", "games.parquet"))
        assert design(load_spec(folder / "grid.yaml")).columns(0, 2)["A"].tolist() == [1.0, 2.0]


FILES = {
    "empty": ("", "found nothing; allowed: a first row of names among A, k, eta"),
    "a header alone": ("A,coupling,k\n", "found no rows; allowed: a row a game"),
    "unknown column": ("A,coupling,kk\n1,none,1\n", "found the columns 'kk'; allowed: A, k, eta, gamma"),
    "typo": (
        "A,coupling,gama\n1,none,1\n",
        "quote_min, quote_max, A_ask, A_bid, k_ask, k_bid, coupling, boundary; did you mean `gamma`?",
    ),
    "a column without a name": ("A,coupling,k,\n1,none,1,\n", "found the columns ''; allowed"),
    "no header": ("1,none,2\n", "found the columns '1', 'none', '2'; allowed"),
    "unknown columns": (",".join(map("m{}".format, range(1000))) + "\n", "'m0', 'm1', 'm2', 'm3', 'm4' and 995 more; allowed"),
    "column twice": ("A,coupling,A\n1,none,1\n", "found the column A twice; allowed: once"),
    "semicolons": ("A;k\n1;2\n", "found the columns 'A;k'; allowed"),
    "short row": ("A,coupling,k\n1,none,1\n1,none\n", "row 2: found 2 cells; allowed: 3, one for each column"),
    "long rows": ("A,coupling,k\n" + "1,none,1,1\n" * 1000, "row 1 (and 999 more): found 4 cells; allowed: 3, one for each column"),
    "unclosed quote": ('A,coupling,k\n1,none,"1\n', "cannot be read: unexpected end of data"),
    "not UTF-8": ("A,größe\n1,2\n".encode("latin-1"), "found the byte 0xf6, not UTF-8; allowed: text in UTF-8"),
}


class TestFilesThatCannotBeUsed:
    @pytest.mark.parametrize(("games", "message"), FILES.values(), ids=FILES)
    def test_content(self, folder: Path, games: str | bytes, message: str):
        key, found = refusal(folder, games)
        assert key == "table"
        assert found.startswith(f"{folder / 'games.csv'}: ")
        assert message in found
        assert len(found) < 600
        assert found.isprintable()

    def test_missing(self, folder: Path):
        ((line, key, message),) = refusals(folder)
        assert (line, key) == (4, "table")
        assert message == f"{folder}/games.csv: no such file; allowed: a CSV or Parquet file beside the grid file, a row a game"

    def test_folder(self, folder: Path):
        (folder / "games.csv").mkdir()
        assert "cannot be read" in refusals(folder)[0][2]

    @pytest.mark.parametrize("name", ["games.xlsx", "games", "games.csv.gz"])
    def test_another_ending(self, folder: Path, name: str):
        (folder / "grid.yaml").write_text(GRID.replace("games.csv", name))
        ((_, _, message),) = refusals(folder)
        assert message.endswith("; allowed: .csv, .parquet")

    def test_no_parquet(self, folder: Path):
        (folder / "grid.yaml").write_text(GRID.replace("games.csv", "games.parquet"))
        (folder / "games.parquet").write_text(GAMES)
        ((_, key, message),) = refusals(folder)
        assert key == "table"
        assert message.startswith(f"{folder}/games.parquet: cannot be read: ")

    def test_parquet_columns(self, folder: Path):
        (folder / "grid.yaml").write_text(GRID.replace("games.csv", "games.parquet"))
        write_parquet(folder / "games.parquet", A=[1.0], coupling=["none"], gama=[1.0])
        assert "found the columns 'gama'; allowed" in refusals(folder)[0][2]
        parquet.write_table(pyarrow.table([[1.0], [2.0]], names=["A", "A"]), folder / "games.parquet")
        assert "found the column A twice" in refusals(folder)[0][2]

    def test_without_pyarrow(self, folder: Path, monkeypatch: pytest.MonkeyPatch):
        (folder / "grid.yaml").write_text(GRID.replace("games.csv", "games.parquet"))
        monkeypatch.setitem(sys.modules, "pyarrow", None)
        ((_, _, message),) = refusals(folder)
        install = f"{sys.executable} -m pip install 'mfg-jax[export]'"
        assert message == f"{folder}/games.parquet: needs pyarrow; install it with: {install}"


# Each: the grid file, and (line, key, a telling part of the message) of every problem.
KEYS = {
    "no table": (GRID.replace("table: games.csv\n", ""), [(1, "table", "missing; allowed with sampling table: the path")]),
    "no path": (GRID.replace("games.csv", "[1]"), [(4, "table", "found a list of 1; allowed: the path of a CSV or Parquet file")]),
    "a table on a grid": (
        GRID.replace("sampling: table\n", ""),
        [(3, "table", "found with sampling grid; allowed with sampling table")],
    ),
    "typo of the sampling": (GRID.replace("sampling: table", "sampling: tabel"), [(3, "sampling", "did you mean `table`?")]),
    "a sweep beside it": (GRID + "sweep: {horizon: [1, 2]}\n", [(5, "sweep", "found with sampling table")]),
    "points": (GRID + "points: 3\n", [(5, "points", "found with sampling table; allowed with sampling random")]),
    "swept and fixed": (GRID.replace("eta:", "A: 1, eta:"), [(4, "table.A", "swept here and fixed under parameters")]),
    "coupling swept and fixed": (GRID.replace("{}", "{coupling: none}"), [(4, "table.coupling", "fixed under model")]),
    "a parameter in neither": (GRID.replace("gamma: 0.05", "k0: 1"), [(2, "parameters.gamma", "missing")]),
    "without effect": (
        GRID + "initial: {kind: uniform}\n",
        [(4, "table.crowd_mean", "initial kind uniform ignores it")],
    ),
    "off the lattice": (GRID + "initial: {kind: point}\n", [(4, "table.crowd_mean", "found 0.5; allowed with initial kind point")]),
}


@pytest.mark.parametrize(("text", "expected"), KEYS.values(), ids=KEYS)
def test_keys_of_the_grid_file(folder: Path, text: str, expected: list[tuple[int, str, str]]):
    (folder / "grid.yaml").write_text(text)
    mean = "initial" in text
    (folder / "games.csv").write_text("A,coupling,k,crowd_mean\n10,none,1.5,0.5\n" if mean else GAMES)
    found = refusals(folder)
    assert [problem[:2] for problem in found] == [problem[:2] for problem in expected], found
    for (_, _, message), (_, _, part) in zip(found, expected, strict=True):
        assert part in message


def test_bounds_cross_row_by_row(folder: Path):
    load(folder, "A,coupling,k,quote_min,quote_max\n1,none,1,0,2\n1,none,1,3,4\n")
    assert refusal(folder, "A,coupling,k,quote_min,quote_max\n1,none,1,0,2\n1,none,1,3,2.5\n") == (
        "table.quote_max",
        "found 2.5, below a quote_min of 3.0; allowed: quote_min <= quote_max",
    )


def test_a_large_table(folder: Path):
    rows = 50_000
    k = np.linspace(1, 2, rows)
    (folder / "games.csv").write_text("A,coupling,k\n" + "".join(f"10,none,{number!r}\n" for number in k.tolist()))
    begun = time.perf_counter()
    spec = load_spec(folder / "grid.yaml")
    np.testing.assert_array_equal(design(spec).coords["k"][1], k)
    assert time.perf_counter() - begun < 5
    assert len(str(spec.canonical())) < 2000

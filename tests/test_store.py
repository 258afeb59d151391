"""The store: how it is cut into blocks, what it says of itself, and in which order it is written."""

import errno
import itertools
import json
import math
import shutil
import typing
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
import zarr
from hypothesis import given
from hypothesis import strategies as st
from zarr.storage import LocalStore

import mfg_jax as mfg
from sweeps import dataset, durable, store
from sweeps.durable import DurableStore
from sweeps.rounding import rounded
from sweeps.sampling import design
from sweeps.schema import Spec
from sweeps.store import Block, Labels, Store, block_shape, blocks, chunk_shape, games_per_block

MEGABYTE = 1_000_000
SHAPES = st.lists(st.integers(1, 40), min_size=1, max_size=4).map(tuple)
GAMES = st.integers(1, 5_000)

LABELS = Labels(time=np.array([0.0, 0.4, 0.8, 1.0]), inventory=np.arange(-2.0, 3.0), parameter=("A", "k", "eta"))
LENGTHS = {"time": 4, "inventory": 5, "side": 2, "parameter": 3}
GRID: dict[str, Any] = {
    "parameters": {"eta": 0.01, "gamma": 0.05},
    "sweep": {"A": [1.0, 2.0, 3.0], "coupling": ["relative", "none"], "k": [1.0, 1.5], "boundary": ["reflecting", "absorbing"]},
    "outputs": {"paths": True, "surfaces": True, "gradients": ["mean_spread", "peak_variance"]},
    "units": {"price": "tick", "time": "day"},
}
ZIP: dict[str, Any] = GRID | {
    "sampling": "zip",
    "sweep": {"A": [1.0, 2.0, 2.0], "coupling": ["none", "relative", "none"], "horizon": [1.0, 2.0, 3.0]},
}
SWEPT = ("A", "coupling", "k", "boundary")
CHUNK = (1, 1, 2, 2)

SCALARS = {
    *("residual", "iterations", "mass_error", "min_density", "edge_mass", "spread_identity", "monotone"),
    *("branch", "folds", "steps"),
    *("mean_spread", "closing_spread", "peak_variance", "peak_time", "final_derisk_probability", "expected_fills", "half_life"),
    *("expected_value", "expected_edge", "expected_running_cost", "expected_terminal_cost"),
}
PATHS = {
    *("crowd_ask", "crowd_bid", "full_spread", "inventory_mean", "inventory_variance", "derisk_probability", "value_flat"),
    *("marginal_value", "flat_to_long_cost", "flat_to_short_cost", "fill_rate_ask", "fill_rate_bid"),
}
SURFACES = {"value", "ask", "bid", "density"}


def create(path: Path, content: Mapping[str, Any], chunk: tuple[int, ...] = CHUNK) -> Store:
    spec = Spec.model_validate(content)
    return store.create(path, spec, design(spec), LABELS, chunk, {"batch": 7, "title": "a test"})


def opened(path: Path) -> xr.Dataset:
    """All of the dataset; any warning on the way is an error."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return xr.open_zarr(path, chunks=None).load()


def made_up(target: xr.Dataset, block: Block) -> dict[str, np.ndarray]:
    """Different numbers for all games of a block, statuses among them; `status` comes first, as the engine has it."""
    numbers = np.random.default_rng(block.start)
    inner = {str(name): variable.shape[len(block.region) :] for name, variable in target.data_vars.items()}
    results = {name: numbers.normal(size=(len(block), *shape)) for name, shape in inner.items()}
    return {"status": numbers.integers(1, 7, len(block)), **{name: v for name, v in results.items() if name != "status"}}


@pytest.fixture
def grid(tmp_path: Path) -> Store:
    return create(tmp_path / "grid.zarr", GRID)


@pytest.fixture
def cut(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files of surfaces count as large: they have 640 bytes."""
    monkeypatch.setattr(store, "LARGEST_CHUNK_BYTES", 600)
    monkeypatch.setattr(store, "GOOD_CHUNK_BYTES", 320)


@pytest.fixture(scope="module")
def grid_dataset(tmp_path_factory: pytest.TempPathFactory) -> xr.Dataset:
    return opened(create(tmp_path_factory.mktemp("store") / "grid.zarr", GRID).path)


@pytest.fixture(scope="module")
def zip_dataset(tmp_path_factory: pytest.TempPathFactory) -> xr.Dataset:
    return opened(create(tmp_path_factory.mktemp("store") / "zip.zarr", ZIP, chunk=(2,)).path)


class TestBlocks:
    @given(SHAPES, GAMES)
    def test_they_tile_the_points_in_their_order(self, shape: tuple[int, ...], games: int):
        points = np.arange(math.prod(shape)).reshape(shape)
        reached = 0
        for block in blocks(shape, block_shape(shape, games)):
            assert block.start == reached
            assert len(block) == block.stop - block.start > 0
            assert points[block.region].ravel().tolist() == list(range(block.start, block.stop))
            reached = block.stop
        assert reached == points.size

    @given(SHAPES, GAMES)
    def test_each_is_one_file(self, shape: tuple[int, ...], games: int):
        chunk = block_shape(shape, games)
        corners = set()
        for block in blocks(shape, chunk):
            for part, step, length in zip(block.region, chunk, shape, strict=True):
                assert part.start % step == 0
                assert part.stop == min(part.start + step, length)
            corners.add(tuple(part.start for part in block.region))
        assert len(corners) == math.prod(math.ceil(length / step) for length, step in zip(shape, chunk, strict=True))

    @given(SHAPES, GAMES)
    def test_they_have_about_as_many_games_as_asked_for(self, shape: tuple[int, ...], games: int):
        held = math.prod(block_shape(shape, games))
        assert held <= games
        assert 4 * held >= min(games, math.prod(shape))

    @given(st.integers(1, 100_000_000), st.integers(1, 1_000_000_000))
    def test_files_are_neither_tiny_nor_giant(self, points: int, largest: int):
        games = games_per_block(points, largest)
        full = (games + 1) * largest > 64 * MEGABYTE
        assert games * largest <= 64 * MEGABYTE or games == 1
        assert games >= 256 or full
        assert math.ceil(points / games) <= 50 or full

    @pytest.mark.parametrize(
        ("shape", "games", "expected"),
        [
            ((6, 250), 256, (1, 250)),
            ((2, 300), 256, (1, 160)),
            ((20_000,), 1_895, (1_792,)),
            ((5, 4, 5), 20, (1, 4, 5)),
            ((5, 4, 5), 11, (1, 2, 5)),
            ((7,), 100, (7,)),
            ((3, 1, 2), 1, (1, 1, 1)),
        ],
    )
    def test_examples(self, shape: tuple[int, ...], games: int, expected: tuple[int, ...]):
        assert block_shape(shape, games) == expected

    @given(SHAPES, GAMES, st.integers(1, 100_000))
    def test_large_files_are_cut_into_equal_chunks_of_points_in_a_row(self, shape: tuple[int, ...], games: int, size: int):
        block = block_shape(shape, games)
        chunk = chunk_shape(block, size)
        assert all(length % part == 0 for length, part in zip(block, chunk, strict=True))
        assert [len(one) for one in blocks(block, chunk)] == [math.prod(chunk)] * (math.prod(block) // math.prod(chunk))
        if math.prod(block) * size <= 4 * MEGABYTE:
            assert chunk == block

    @given(st.integers(1, 1_000_000), st.integers(1, 1 * MEGABYTE))
    def test_chunks_of_a_long_table_have_about_a_megabyte(self, points: int, size: int):
        block = block_shape((points,), games_per_block(points, size))
        if math.prod(block) * size > 4 * MEGABYTE and block != (points,):
            assert 0.5 < math.prod(chunk_shape(block, size)) * size / MEGABYTE < 2

    @pytest.mark.parametrize(
        ("block", "size", "expected"),
        [
            ((1_792,), 33_768, (28,)),
            ((1, 40, 9, 5), 33_768, (1, 1, 9, 5)),
            ((1, 101), 33_768, (1, 101)),  # 1 x 1 is too many, of 34 kB each
            ((1, 1), 10_000_000, (1, 1)),
            ((400,), 8 * 201, (400,)),
        ],
    )
    def test_examples_of_chunks(self, block: tuple[int, ...], size: int, expected: tuple[int, ...]):
        assert chunk_shape(block, size) == expected


class TestTables:
    def test_statuses_are_those_of_the_library(self):
        assert tuple(status.name.lower() for status in sorted(mfg.Status)) == dataset.STATUSES

    def test_every_field_of_a_solved_game_is_stored(self):
        tables = (dataset.CERTIFICATES, dataset.FULL_CERTIFICATES, dataset.SCALARS, dataset.PATHS, dataset.SURFACES)
        stored = [variable.name for table in tables for variable in table]
        solved = [field.name for kind in (mfg.Equilibrium, mfg.Metrics) for field in fields(kind)]
        elsewhere = ["time", "inventory", "status", "mean_crowd"]  # coordinates, the status, and what mean_spread is the sum of
        assert sorted([*stored, *elsewhere]) == sorted(solved)

    def test_dims_are_those_of_the_library(self):
        hints = {**typing.get_type_hints(mfg.Equilibrium), **typing.get_type_hints(mfg.Metrics)}
        for variable in (*dataset.CERTIFICATES, *dataset.SCALARS, *dataset.PATHS, *dataset.SURFACES):
            dims = hints[variable.name].dim_str.split()
            assert variable.dims == tuple("inventory" if dim == "x" else dim for dim in dims), variable.name

    def test_every_parameter_has_units(self):
        assert [variable.name for variable in dataset.PARAMETERS] == [field.name for field in fields(mfg.Parameters)]


class TestWhatAStoreSays:
    def test_names_and_dims(self, grid_dataset: xr.Dataset):
        gradients = {"d_mean_spread", "d_peak_variance"}
        assert set(grid_dataset.data_vars) == SCALARS | PATHS | SURFACES | gradients | {"clipped_mass", "differentiated", "status"}
        behind: dict[str, tuple[str, ...]] = {
            **dict.fromkeys([*SCALARS, "status"], ()),
            **dict.fromkeys(PATHS, ("time",)),
            **dict.fromkeys(SURFACES, ("time", "inventory")),
            **dict.fromkeys(gradients, ("parameter",)),
            "clipped_mass": ("side",),
            "differentiated": (),
        }
        for name, variable in grid_dataset.data_vars.items():
            assert variable.dims == (*SWEPT, *behind[str(name)])
        assert dict(grid_dataset.sizes) == {"A": 3, "coupling": 2, "k": 2, "boundary": 2, **LENGTHS}

    @pytest.mark.parametrize(
        ("outputs", "expected"),
        [
            ({"paths": False}, SCALARS | {"clipped_mass"}),
            ({"paths": True}, SCALARS | {"clipped_mass"} | PATHS),
            ({"paths": False, "surfaces": True}, SCALARS | {"clipped_mass"} | SURFACES),
        ],
    )
    def test_only_what_was_asked_for(self, tmp_path: Path, outputs: dict[str, Any], expected: set[str]):
        found = opened(create(tmp_path / "s.zarr", GRID | {"outputs": outputs}).path)
        assert set(found.data_vars) == expected | {"status"}
        assert set(found.sizes) == {*SWEPT, *(dim for name in expected for dim in found[name].dims)}

    def test_units_and_long_names(self, grid_dataset: xr.Dataset):
        for name, variable in grid_dataset.variables.items():
            assert variable.attrs["long_name"], name
            if variable.dtype.kind == "f":
                assert variable.attrs["units"], name
                assert not set("{}") & set(variable.attrs["units"]), name
        named = {"A": "1/day", "k": "1/tick", "time": "1", "inventory": "lot", "value": "tick", "density": "1"}
        named |= {"mean_spread": "tick", "peak_variance": "lot^2", "peak_time": "day", "fill_rate_ask": "1/day"}
        named |= {"d_mean_spread": "tick per unit of parameter"}
        assert {name: grid_dataset[name].attrs["units"] for name in named} == named

    @pytest.mark.parametrize(
        ("units", "expected"),
        [({"price": "US dollar", "time": "s"}, ("1/s", "1/(US dollar)")), ({}, ("1/time", "1/price"))],
    )
    def test_units_of_ones_own(self, tmp_path: Path, units: dict[str, str], expected: tuple[str, str]):
        found = opened(create(tmp_path / "s.zarr", GRID | {"units": units}).path)
        assert tuple(found[name].attrs["units"] for name in ("A", "k")) == expected

    def test_statuses_are_named(self, grid_dataset: xr.Dataset):
        status = grid_dataset["status"]
        assert status.dtype == np.int8
        meanings = dict(zip(status.attrs["flag_values"], status.attrs["flag_meanings"].split(), strict=True))
        assert meanings == {status.value: status.name.lower() for status in mfg.Status}

    def test_nothing_is_done(self, grid_dataset: xr.Dataset):
        for name, variable in grid_dataset.data_vars.items():
            assert (variable == 0).all() if name == "status" else variable.isnull().all()

    def test_coordinates(self, grid_dataset: xr.Dataset):
        for name, values in GRID["sweep"].items():
            assert grid_dataset[name].values.tolist() == values
        assert grid_dataset["time"].values.tolist() == LABELS.time.tolist()
        assert grid_dataset["inventory"].values.tolist() == [-2, -1, 0, 1, 2]
        assert grid_dataset["side"].values.tolist() == ["ask", "bid"]
        assert grid_dataset["parameter"].values.tolist() == ["A", "k", "eta"]

    def test_names_select_by_name(self, grid: Store, grid_dataset: xr.Dataset):
        for block in grid.pending_blocks():
            grid.write(block, made_up(grid_dataset, block))
        filled = opened(grid.path)
        chosen = filled.sel(coupling="none", boundary="absorbing", A=2.0)
        assert chosen["density"].dims == ("k", "time", "inventory")
        np.testing.assert_array_equal(chosen["density"], filled["density"].values[1, 1, :, 1])
        np.testing.assert_array_equal(filled["clipped_mass"].sel(side="bid"), filled["clipped_mass"].values[..., 1])

    def test_zip_has_its_coordinates_along_point(self, zip_dataset: xr.Dataset):
        assert zip_dataset["status"].dims == ("point",)
        assert zip_dataset["value"].dims == ("point", "time", "inventory")
        for name, values in ZIP["sweep"].items():
            assert name in zip_dataset.coords
            assert zip_dataset[name].dims == ("point",)
            assert zip_dataset[name].values.tolist() == values
        alone = zip_dataset["status"].where(zip_dataset["coupling"] == "none", drop=True)
        assert alone["horizon"].values.tolist() == [1.0, 3.0]
        assert zip_dataset["horizon"].attrs["units"] == "day"

    def test_constrained_points_lie_along_point(self, tmp_path: Path):
        found = opened(create(tmp_path / "s.zarr", GRID | {"where": ["A*k < 3", "A > 1"]}, chunk=(2,)).path)
        assert found["status"].dims == ("point",)
        assert set(zip(found["A"].values.tolist(), found["k"].values.tolist(), strict=True)) == {(2.0, 1.0)}
        assert sorted(found["boundary"].values.tolist()) == ["absorbing", "absorbing", "reflecting", "reflecting"]
        assert found["mean_spread"].encoding["coordinates"].split() == list(SWEPT)

    def test_dtype(self, tmp_path: Path, grid_dataset: xr.Dataset):
        single = opened(create(tmp_path / "single.zarr", GRID | {"outputs": {"dtype": "float32"}}).path)
        for name in SCALARS | PATHS:
            assert (grid_dataset[name].dtype, single[name].dtype) == (np.float64, np.float32)
        assert single["A"].dtype == single["time"].dtype == np.float64

    def test_chunks_are_the_blocks(self, grid: Store):
        for name, array in zarr.open_group(grid.path, mode="r").arrays():
            if name in SCALARS | PATHS | SURFACES:
                assert array.chunks == (*CHUNK, *array.shape[len(CHUNK) :])

    def test_large_blocks_are_files_cut_into_chunks(self, tmp_path: Path, cut: None):
        grid = create(tmp_path / "s.zarr", GRID)
        arrays = dict(zarr.open_group(grid.path, mode="r").arrays())
        assert {name for name, array in arrays.items() if array.shards} == SURFACES
        assert arrays["ask"].shards == (*CHUNK, 4, 5)
        assert arrays["ask"].chunks == (1, 1, 1, 2, 4, 5)
        assert len(grid.pending_blocks()) == 6

    def test_the_whole_spec(self, grid: Store):
        attributes = opened(grid.path).attrs
        assert attributes["spec"] == Spec.model_validate(GRID).canonical()
        assert (attributes["title"], attributes["batch"]) == ("a test", 7)


class TestWriting:
    def test_a_block_is_filled_and_no_other(self, grid: Store, grid_dataset: xr.Dataset):
        first, second, *others = blocks((3, 2, 2, 2), CHUNK)
        results = made_up(grid_dataset, second)
        grid.write(second, results)
        filled = opened(grid.path)
        for name, variable in filled.data_vars.items():
            box = variable.values[second.region]
            np.testing.assert_array_equal(box, results[str(name)].reshape(box.shape))
            for other in (first, *others):
                untouched = variable.values[other.region]
                assert not untouched.any() if name == "status" else np.isnan(untouched).all()
        assert grid.pending_blocks() == [first, *others]

    def test_status_is_written_last(self, grid: Store, grid_dataset: xr.Dataset, monkeypatch: pytest.MonkeyPatch):
        written: list[str] = []
        write = zarr.Array.__setitem__

        def spy(array: zarr.Array, region: Any, values: Any) -> None:
            written.append(array.basename)
            write(array, region, values)

        monkeypatch.setattr(zarr.Array, "__setitem__", spy)
        block = grid.pending_blocks()[0]
        grid.write(block, made_up(grid_dataset, block))
        assert sorted(written) == sorted(map(str, grid_dataset.data_vars))
        assert written[-1] == "status"

    def test_status_is_written_when_all_else_is_on_the_disk(
        self, grid: Store, grid_dataset: xr.Dataset, monkeypatch: pytest.MonkeyPatch
    ):
        """As if the power could be cut at any moment: what is not synchronised would be lost."""
        safe: set[Path] = set()
        write, synchronise_one = zarr.Array.__setitem__, durable.synchronise_one
        block = grid.pending_blocks()[2]
        before = {path for path in grid.path.rglob("*")}

        def unsafe() -> set[Path]:
            new = set(grid.path.rglob("*")) - before
            return (new | {path.parent for path in new}) - safe

        def watched(array: zarr.Array, region: Any, values: Any) -> None:
            if array.basename == "status":
                assert len({path for path in safe if path.is_file()}) == len(grid_dataset.data_vars) - 1
                assert not unsafe()
            write(array, region, values)
            folders = {folder for folder in (grid.path / array.basename).rglob("*") if folder.is_dir()}
            safe.difference_update(folders)

        def synchronised(path: Path) -> None:
            synchronise_one(path)
            safe.add(path)

        monkeypatch.setattr(zarr.Array, "__setitem__", watched)
        monkeypatch.setattr(durable, "synchronise_one", synchronised)
        grid.write(block, made_up(grid_dataset, block))
        files = {path for path in safe if path.is_file()}
        assert len(files) == len(grid_dataset.data_vars)
        assert not unsafe()

    def test_what_is_nan_throughout_is_written_too(self, grid: Store, grid_dataset: xr.Dataset):
        block = grid.pending_blocks()[0]
        missing = {name: np.full_like(v, np.nan) if v.dtype.kind == "f" else v for name, v in made_up(grid_dataset, block).items()}
        grid.write(block, missing)
        assert all((grid.path / name / "c").is_dir() for name in missing)

    @pytest.mark.parametrize("failing", ["mean_spread", "value", "d_mean_spread", "status"])
    def test_a_block_whose_write_fails_stays_pending(
        self, grid: Store, grid_dataset: xr.Dataset, monkeypatch: pytest.MonkeyPatch, failing: str
    ):
        write = zarr.Array.__setitem__

        def fail(array: zarr.Array, region: Any, values: Any) -> None:
            if array.basename == failing:
                raise OSError("No space left on device")
            write(array, region, values)

        pending = grid.pending_blocks()
        results = made_up(grid_dataset, pending[0])
        with monkeypatch.context() as patch, pytest.raises(OSError, match="No space left"):
            patch.setattr(zarr.Array, "__setitem__", fail)
            grid.write(pending[0], results)
        assert Store(grid.path).pending_blocks() == pending
        grid.write(pending[0], results)
        assert Store(grid.path).pending_blocks() == pending[1:]

    def test_a_block_is_pending_until_all_its_points_are_done(self, grid: Store, grid_dataset: xr.Dataset):
        block = grid.pending_blocks()[0]
        results = made_up(grid_dataset, block)
        results["status"][-1] = 0
        grid.write(block, results)
        assert grid.pending_blocks()[0] == block

    @pytest.mark.parametrize("dtype", ["float64", "float32"])
    def test_results_are_rounded_to_the_precision_asked_for(self, tmp_path: Path, dtype: str):
        precision = 1e-4
        coarse = create(tmp_path / "coarse.zarr", GRID | {"outputs": {"precision": precision, "dtype": dtype}})
        block = coarse.pending_blocks()[0]
        results = made_up(opened(coarse.path), block)
        coarse.write(block, results)
        found = opened(coarse.path)
        for name, variable in found.data_vars.items():
            values = variable.values[block.region].reshape(results[str(name)].shape)
            if name in dataset.EXACT:
                assert "precision" not in variable.attrs
                np.testing.assert_array_equal(values, results[str(name)].astype(values.dtype))
            else:
                assert variable.attrs["precision"] == precision
                assert (values != results[str(name)].astype(values.dtype)).mean() > 0.9
                np.testing.assert_array_equal(values, rounded(results[str(name)], precision), strict=dtype == "float64")
        assert not any("precision" in found[name].attrs for name in found.coords)

    def test_games_of_a_block_are_filled_and_no_other(self, grid: Store, grid_dataset: xr.Dataset):
        """Whatever is there of the others, done or not, keeps its bits."""
        block = grid.pending_blocks()[1]
        before = made_up(grid_dataset, block) | {"status": np.array([1, 0, 0, 2])}
        grid.write(block, before)
        (part,) = grid.parts((np.arange(24).reshape(3, 2, 2, 2) // 4 == 1) & (grid.statuses() == 0))
        assert (part.block, part.points.tolist()) == (block, [5, 6])
        results = {name: values[:2] for name, values in made_up(grid_dataset, grid.pending_blocks()[2]).items()}
        grid.write_part(part, results)
        filled = opened(grid.path)
        for name, variable in filled.data_vars.items():
            found = variable.values[block.region].reshape(4, *variable.shape[4:])
            np.testing.assert_array_equal(found[1:3], results[str(name)])
            np.testing.assert_array_equal(found[[0, 3]], before[str(name)][[0, 3]])
            np.testing.assert_array_equal(grid.read(str(name), part), results[str(name)])
        assert block not in grid.pending_blocks()

    def test_results_become_single_precision_where_asked(self, tmp_path: Path):
        single = create(tmp_path / "single.zarr", GRID | {"outputs": {"dtype": "float32", "paths": False}})
        block = single.pending_blocks()[0]
        results = made_up(opened(single.path), block)
        single.write(block, results)
        found = opened(single.path)["mean_spread"].values[block.region].ravel()
        np.testing.assert_array_equal(found, results["mean_spread"].astype(np.float32), strict=True)


def test_a_file_is_replaced_when_what_it_holds_is_on_the_disk(
    grid: Store, grid_dataset: xr.Dataset, monkeypatch: pytest.MonkeyPatch
):
    """Otherwise a power cut could leave neither what it held nor what it was to hold."""
    block = grid.pending_blocks()[0]
    grid.write(block, made_up(grid_dataset, block))
    on_disk, replaced = set[str](), []
    synchronise, put = durable.synchronise_one, Path.replace

    def synchronised(path: Path) -> None:
        synchronise(path)
        on_disk.add(str(path))

    def watched(path: Path, target: Path) -> Path:
        assert str(path) in on_disk
        replaced.append(target)
        return put(path, target)

    monkeypatch.setattr(durable, "synchronise_one", synchronised)
    monkeypatch.setattr(Path, "replace", watched)
    grid.write(block, made_up(grid_dataset, block))
    assert len(replaced) == len(made_up(grid_dataset, block))


class TestDamage:
    def test_a_flipped_bit_is_noticed_in_every_file_of_numbers(self, tmp_path: Path, cut: None, grid_dataset: xr.Dataset):
        grid = create(tmp_path / "s.zarr", GRID)
        for block in grid.pending_blocks():
            grid.write(block, made_up(grid_dataset, block))
        numbers = np.random.default_rng(0)
        arrays = dict(zarr.open_group(grid.path, mode="r").arrays())
        files = sorted(path for path in grid.path.rglob("*") if path.is_file() and path.name != "zarr.json")
        assert len(files) > 60
        for path in files:
            content = path.read_bytes()
            flipped = bytearray(content)
            flipped[numbers.integers(len(content))] ^= 1 << numbers.integers(8)
            path.write_bytes(flipped)
            with pytest.raises(ValueError, match="checksum"):
                arrays[path.relative_to(grid.path).parts[0]][...]
            path.write_bytes(content)
        found = opened(grid.path)
        for block in blocks((3, 2, 2, 2), CHUNK):
            for name, values in made_up(grid_dataset, block).items():
                np.testing.assert_array_equal(found[name].values[block.region].ravel(), values.ravel())

    def test_what_a_store_says_of_itself_is_written_in_one_go(self, grid: Store, monkeypatch: pytest.MonkeyPatch):
        """A crash between two writes would leave a digest of other attributes."""
        put, written = DurableStore.set, []

        async def watched(local: DurableStore, key: str, value: Any) -> None:
            await put(local, key, value)
            written.append(key)

        monkeypatch.setattr(DurableStore, "set", watched)
        grid.update_attributes({"finished": "today", "points_per_second": 7.0})
        assert written == ["zarr.json"]
        assert store.open_existing(grid.path).attributes["points_per_second"] == 7.0

    @pytest.mark.parametrize("name", [".", "mean_spread", "blocks/seconds", "A"])
    def test_a_flipped_bit_is_noticed_in_what_a_store_says_of_itself(self, grid: Store, name: str):
        path = grid.path / name / "zarr.json"
        content = path.read_bytes()
        numbers = np.random.default_rng(1)
        for _ in range(20):
            flipped = bytearray(content)
            flipped[numbers.integers(len(content))] ^= 1 << numbers.integers(8)
            path.write_bytes(flipped)
            with pytest.raises(store.StoreError, match=r"is damaged|is no store of mfgsweep|newer"):
                store.open_existing(grid.path)
        path.write_bytes(content)
        store.open_existing(grid.path)

    @pytest.mark.parametrize("value", [None, 1, "x", [], {}])
    def test_a_description_with_another_value_anywhere(self, grid: Store, value: Any):
        """It is told, or the store is as before."""
        path = grid.path / "zarr.json"
        content = path.read_text()
        told = 0
        for keys in _keys(json.loads(content), depth=3):
            changed = inner = json.loads(content)
            for key in keys[:-1]:
                inner = inner[key]
            inner[keys[-1]] = value
            path.write_text(json.dumps(changed))
            try:
                assert store.open_existing(grid.path).attributes == grid.attributes
            except store.StoreError as error:
                assert "is damaged" in str(error) or "is no store of mfgsweep" in str(error)
                told += 1
        assert told > 30

    def test_a_description_that_is_missing(self, grid: Store):
        (grid.path / "value" / "zarr.json").unlink()
        with pytest.raises(
            store.StoreError, match=r"value/zarr\.json: is damaged: it is missing; restore it from a copy, or delete"
        ):
            store.open_existing(grid.path)

    @pytest.mark.parametrize("length", [0, 3, 20])
    def test_a_file_that_was_cut_short(self, grid: Store, grid_dataset: xr.Dataset, length: int):
        block = grid.pending_blocks()[0]
        grid.write(block, made_up(grid_dataset, block))
        (path,) = (path for path in (grid.path / "status" / "c").rglob("*") if path.is_file())
        path.write_bytes(path.read_bytes()[:length])
        with pytest.raises(ValueError, match="checksum"):
            grid.statuses()


def _keys(description: dict[str, Any], depth: int) -> Iterator[tuple[str, ...]]:
    """The ways to all values of nested mappings."""
    for key, value in description.items():
        yield (key,)
        if isinstance(value, dict) and depth > 1:
            yield from ((key, *inner) for inner in _keys(value, depth - 1))


class TestCreation:
    @pytest.mark.parametrize(
        ("owner", "name", "step"),
        [
            (zarr.Group, "create_array", 1),
            (zarr.Group, "create_array", 20),
            (zarr.Group, "create_array", 40),
            (zarr, "consolidate_metadata", 1),
            (Path, "rename", 1),
        ],
    )
    def test_interrupted_it_leaves_nothing_at_its_path(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, step: int
    ):
        path = tmp_path / "s.zarr"
        undisturbed, calls = getattr(owner, name), itertools.count(1)

        def interrupt(*args: Any, **options: Any) -> Any:
            if next(calls) == step:
                raise KeyboardInterrupt
            return undisturbed(*args, **options)

        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(owner, name, interrupt)
            create(path, GRID)
        assert not path.exists()
        create(path, GRID)
        assert list(tmp_path.iterdir()) == [path]

    def test_what_was_killed_leaves_nothing(self, grid: Store):
        left = [grid.path / "value" / "0.12ab.partial", grid.path / "zarr.34cd.partial"]
        for folder in (".grid.zarr.new", ".grid.zarr.old"):
            create(grid.path.with_name(folder), GRID)
        for path in left:
            path.write_text("half a fi")
        before = set(grid.path.rglob("*")) - set(left)
        store.remove_leftovers(grid.path)
        assert set(grid.path.rglob("*")) == before
        assert list(grid.path.parent.iterdir()) == [grid.path]

    def test_a_new_store_is_on_the_disk_before_it_has_its_name(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
        safe: set[Path] = set()
        rename, synchronise_one = Path.rename, durable.synchronise_one

        def watched(path: Path, target: Path) -> Path:
            assert {path, *path.rglob("*")} <= safe
            return rename(path, target)

        def synchronised(path: Path) -> None:
            synchronise_one(path)
            safe.add(path)

        monkeypatch.setattr(Path, "rename", watched)
        for module in (durable, store):
            monkeypatch.setattr(module, "synchronise_one", synchronised)
        create(tmp_path / "a" / "b" / "s.zarr", GRID)
        assert {tmp_path, tmp_path / "a", tmp_path / "a" / "b"} <= safe

    @pytest.mark.parametrize("files", [1, 20, 60])
    def test_on_a_full_disk_it_leaves_nothing(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, files: int):
        put, written = LocalStore.set, []

        async def fail(local: LocalStore, key: str, value: Any) -> None:
            written.append(key)
            if len(written) >= files:
                raise OSError(errno.ENOSPC, "No space left on device")
            await put(local, key, value)

        monkeypatch.setattr(LocalStore, "set", fail)
        with pytest.raises(OSError, match="No space left"):
            create(tmp_path / "s.zarr", GRID)
        assert not list(tmp_path.iterdir())

    def test_folders_above_are_made(self, tmp_path: Path):
        assert create(tmp_path / "a" / "b" / "s.zarr", GRID).path.is_dir()

    def test_metadata_is_consolidated_before_and_after_an_update(self, grid: Store):
        for expected in (None, "today"):
            assert "consolidated_metadata" in json.loads((grid.path / "zarr.json").read_text())
            found = xr.open_zarr(grid.path, consolidated=True, chunks=None)
            assert found.attrs.get("finished") == expected
            assert found.attrs["title"] == "a test"
            grid.update_attributes({"finished": "today"})
            grid.consolidate()
        assert grid.attributes["finished"] == "today"


class TestOpening:
    def test_missing(self, tmp_path: Path):
        with pytest.raises(store.StoreError, match=r"no\.zarr: no such store"):
            store.open_existing(tmp_path / "no.zarr")
        with pytest.raises(FileNotFoundError, match="no such store"):
            dataset.open_store(tmp_path / "no.zarr")

    def test_made_by_a_newer_version(self, tmp_path: Path):
        zarr.create_group(tmp_path / "s.zarr", attributes={"mfgsweep_format": store.FORMAT + 1})
        with pytest.raises(store.StoreError, match=r"newer mfg-jax .*; update mfg-jax"):
            store.open_existing(tmp_path / "s.zarr")

    @pytest.mark.parametrize("kind", ["file", "empty folder", "folder", "group", "array", "old zarr"])
    def test_something_else(self, tmp_path: Path, kind: str):
        path = tmp_path / "other"
        make_something_else(path, kind)
        for refusing in (store.open_existing, store.delete):
            with pytest.raises(store.StoreError, match="other: exists and is no store of mfgsweep; name another path"):
                refusing(path)
        assert path.exists()

    def test_what_was_removed_or_replaced_is_not_written(self, grid: Store, grid_dataset: xr.Dataset):
        block = grid.pending_blocks()[0]
        results = made_up(grid_dataset, block)
        for put_there in (lambda: None, lambda: create(grid.path, GRID)):
            shutil.rmtree(grid.path, ignore_errors=True)
            put_there()
            before = set(grid.path.rglob("*"))
            with pytest.raises(store.StoreError, match="was removed, moved or replaced during the run"):
                grid.write(block, results)
            assert set(grid.path.rglob("*")) == before

    @pytest.mark.parametrize(("content", "chunk"), [(GRID, (*CHUNK, 3)), (ZIP, (2,))])
    def test_the_same_points(self, tmp_path: Path, content: dict[str, Any], chunk: tuple[int, ...]):
        """Which names and infinities are among."""
        content = content | {"sweep": content["sweep"] | {"quote_max": [1.0, 2.0, np.inf]}}
        made, same = create(tmp_path / "s.zarr", content, chunk), design(Spec.model_validate(content))
        store.check_same_points(made, same)
        last_bit = {name: (dim, np.nextafter(v, np.inf) if v.dtype.kind == "f" else v) for name, (dim, v) in same.coords.items()}
        store.check_same_points(made, replace(same, coords=last_bit))
        for name, (dim, values) in same.coords.items():
            moved = np.roll(values, 1) if values.dtype.kind == "U" else values * (1 + 1e-9)
            with pytest.raises(store.StoreError, match=f"its points have other values of {name} than the same grid file has here"):
                store.check_same_points(made, replace(same, coords=same.coords | {name: (dim, moved)}))

    def test_a_store_is_deleted(self, grid: Store):
        store.delete(grid.path)
        assert not grid.path.exists()


def make_something_else(path: Path, kind: str) -> None:
    """What may stand where a store is looked for."""
    match kind:
        case "file":
            path.write_text("numbers\n")
        case "empty folder":
            path.mkdir()
        case "folder":
            path.mkdir()
            (path / "thesis.tex").write_text("years of work\n")
        case "group":
            zarr.create_group(path)
        case "array":
            zarr.create_array(path, shape=(3,), dtype="float64")
        case _:
            zarr.create_group(path, zarr_format=2)

"""The zarr store of a sweep. The only module that writes one.

A store is created whole and labelled under another name, then moved into place. It is filled block by block; a block is one file
of every variable, written by one writer. `status` comes last, when everything else is on the disk. So whatever happens, a power cut
included, `status` says what is done. Where some games of a block are done already, its files are read, and written again with the
others in place: a file is replaced in one rename, when what it holds is on the disk.

In a bucket (`place.py`) files are objects, which are there for good when they are put. Nothing can be renamed there, so a store is
one as soon as it has its own zarr.json, which is put last and deleted first; a mark beside it says meanwhile that all of it may go.
"""

from __future__ import annotations

import errno
import hashlib
import itertools
import json
import math
import shutil
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np
import zarr
from zarr.codecs import BloscCodec, Crc32cCodec
from zarr.core.buffer import Buffer
from zarr.core.metadata import ArrayV3Metadata
from zarr.storage import MemoryStore, StoreLike

from sweeps.dataset import ATTEMPT, EXACT, KEPT, PARAMETERS, STATUS, STATUSES, Variable, variables
from sweeps.durable import DurableStore, make_folder, synchronise, synchronise_one, together
from sweeps.place import AT_ONCE, ObjectPath, Place, Refused, files_below, identity, opened
from sweeps.rounding import rounded
from sweeps.sampling import Design
from sweeps.spec import Spec, differing_keys

FORMAT = 3
DIGEST = "attributes_digest"
SECONDS = "blocks/seconds"
"""What each block took: in a group of its own, as it is about the run and not about games, so that xarray does not show it."""
CODECS = (BloscCodec(cname="lz4", shuffle="shuffle"), Crc32cCodec())
"""Of every array. Without a checksum, a bit that flips on the disk is read as another number, and nobody notices."""
LARGEST_FILE_BYTES = 64_000_000
MOST_BLOCKS = 50
SMALLEST_BLOCK_GAMES = 256
LARGEST_CHUNK_BYTES, GOOD_CHUNK_BYTES = 4_000_000, 1_000_000
"""A file of more is cut into chunks of about so much, for those who read single games: 1.5 ms instead of 65 in a file of 60 MB.
Writing costs a third more, and twice as much with chunks of a quarter of that."""


SAME_VALUE = 1e-12
"""Two processors may differ in the last bit of an exponential."""
GO_ON_ELSEWHERE = "Go on with the installation that began it, or make another store."
MADE_UP_LATER = (ATTEMPT.name, KEPT.name)
"""Variables that are not there from the start, and have files only where something was written."""


class StoreError(ValueError):
    """A store that cannot be used as asked; the message says what to do."""


@dataclass(frozen=True)
class Block:
    """The points start … stop − 1 of the design, which are the box `region` of the results: one file of each variable."""

    number: int
    start: int
    stop: int
    region: tuple[slice, ...]

    def __len__(self) -> int:
        return self.stop - self.start


@dataclass(frozen=True, eq=False)
class Part:
    """Some games of a block: those at `places`, which count from its start, in rising order."""

    block: Block
    places: np.ndarray

    def __len__(self) -> int:
        return self.places.size

    @property
    def points(self) -> np.ndarray:
        return self.block.start + self.places

    def some(self, chosen: np.ndarray) -> Part:
        return Part(self.block, self.places[chosen])


@dataclass(frozen=True)
class Labels:
    """The coordinates behind the sweep's dims."""

    time: np.ndarray
    inventory: np.ndarray
    parameter: tuple[str, ...]

    def values(self) -> dict[str, tuple[np.ndarray, dict[str, str]]]:
        return {
            "time": (self.time, {"units": "1", "long_name": "fraction of the trading day"}),
            "inventory": (self.inventory, {"units": "lot", "long_name": "inventory"}),
            "side": (np.array(["ask", "bid"]), {"long_name": "side of the market"}),
            "parameter": (np.array(self.parameter), {"long_name": "parameter of the derivative"}),
        }

    def size(self, dim: str) -> int:
        return len(self.values()[dim][0])


def games_per_block(points: int, largest: int) -> int:
    """Games in a block, where the largest variable takes `largest` bytes a game.

    A block is what a crash can lose, minutes of work where games are hard, and makes a file for each variable, which costs as much
    as many easy games. So blocks grow with the sweep, and their number too, up to 50, with files of at most 64 MB: 256 games of a
    thousand, 800 of ten thousand, 20,000 of a million.
    """
    most = max(1, LARGEST_FILE_BYTES // largest)
    number = min(MOST_BLOCKS, math.sqrt(points) / 8)
    return min(max(math.ceil(points / number), SMALLEST_BLOCK_GAMES), most)


def block_shape(shape: tuple[int, ...], games: int) -> tuple[int, ...]:
    """Of a block along the sweep's dims: about `games` points in a row, so the last dims whole and one dim split about evenly."""
    block: list[int] = []
    for length in reversed(shape):
        room = max(1, games // math.prod(block))
        block.append(length if length <= room else _about_evenly(length, room))
        if block[-1] < length:
            break
    return (1,) * (len(shape) - len(block)) + tuple(reversed(block))


def _about_evenly(length: int, room: int) -> int:
    """The size of parts of at most `room`: not quite even, so that they can in turn be cut into equal chunks of many sizes."""
    even = math.ceil(length / math.ceil(length / room))
    unit = 1 << max(0, even.bit_length() - 4)
    return min(math.ceil(even / unit), room // unit) * unit


def chunk_shape(block: tuple[int, ...], bytes_per_game: int) -> tuple[int, ...]:
    """Of the chunks that a block's file is cut into, along the sweep's dims: the block itself where that is small.

    Chunks are points in a row, as blocks are, and must be equal.
    """
    games = math.prod(block)
    if games * bytes_per_game <= LARGEST_CHUNK_BYTES:
        return block
    shapes = [
        (1,) * dim + (length // parts,) + block[dim + 1 :]
        for dim, length in enumerate(block)
        for parts in range(1, min(length, 2 * LARGEST_FILE_BYTES // GOOD_CHUNK_BYTES) + 1)
        if length % parts == 0
    ]
    return min(shapes, key=lambda shape: abs(math.log(math.prod(shape) * bytes_per_game / GOOD_CHUNK_BYTES)))


def blocks(shape: tuple[int, ...], block: tuple[int, ...]) -> Iterator[Block]:
    """The blocks of shape `block`, in the order of their points."""
    corners = (range(0, length, step) for length, step in zip(shape, block, strict=True))
    start = 0
    for number, corner in enumerate(itertools.product(*corners)):
        region = tuple(slice(low, min(low + step, n)) for low, step, n in zip(corner, block, shape, strict=True))
        stop = start + math.prod(part.stop - part.start for part in region)
        yield Block(number, start, stop, region)
        start = stop


def _with_every_file() -> AbstractContextManager[object]:
    """What is written meanwhile becomes a file also where it is all NaN or zero, so that a file that is missing is known to be."""
    return zarr.config.set({"array.write_empty_chunks": True})


P = TypeVar("P", bound=Place)


class Store(Generic[P]):
    """An open store, for filling, in a folder or a bucket."""

    def __init__(self, path: P) -> None:
        self.path = path
        self._opened = DurableStore(path) if isinstance(path, Path) else opened(path)
        self._threads = ThreadPoolExecutor(AT_ONCE)
        self._folders: set[Path] = set()
        self._identity = self._identify()
        self._group = zarr.open_group(self._opened, mode="r+", use_consolidated=False)
        self._arrays = self._open_arrays()

    def _open_arrays(self) -> dict[str, zarr.Array]:
        with _with_every_file(), warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=r"Object at \S+\.partial ")  # left by who was killed, and removed at the end
            return dict(self._group.arrays())

    @property
    def attributes(self) -> dict[str, Any]:
        return dict(self._group.attrs)

    @property
    def writes_every_file(self) -> bool:
        """Whether a block that is done has a file of each variable; before format 2 none where all is NaN."""
        return self.attributes["mfgsweep_format"] >= 2

    @property
    def writes_every_label(self) -> bool:
        """Whether every coordinate has its file; before format 3 none where all is zero."""
        return self.attributes["mfgsweep_format"] >= 3

    @property
    def names(self) -> set[str]:
        """Of all variables and coordinates."""
        return set(self._arrays)

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the sweep."""
        return self._arrays["status"].shape

    def files(self, name: str) -> Iterator[tuple[Place, tuple[slice, ...]]]:
        """The files of a variable or coordinate, and the region that each holds; a file of pending games alone may be missing."""
        array = self._arrays[name]
        steps = array.shards or array.chunks
        for place in np.ndindex(*(math.ceil(length / step) for length, step in zip(array.shape, steps, strict=True))):
            region = tuple(slice(i * step, (i + 1) * step) for i, step in zip(place, steps, strict=True))
            yield self.path / name / array.metadata.encode_chunk_key(place), region

    def mended_by(self, region: tuple[slice, ...]) -> Place:
        """What to delete to have the games of a block pending again, whatever became of its other files: its file of `status`."""
        here = [along.start for along in region[: len(self.shape)]]
        return next(file for file, of in self.files(STATUS.name) if [along.start for along in of] == here)

    def holds_results(self, name: str) -> bool:
        """Whether this is a variable of games, one file a block, and not a coordinate."""
        dims = self._dims(STATUS.name)
        coordinates = {*dims, *str(self._arrays[STATUS.name].attrs.get("coordinates", "")).split()}
        return name not in coordinates and self._dims(name)[: len(dims)] == dims

    def _dims(self, name: str) -> tuple[str | None, ...]:
        metadata = self._arrays[name].metadata
        return metadata.dimension_names or () if isinstance(metadata, ArrayV3Metadata) else ()

    def read_region(self, name: str, region: tuple[slice, ...]) -> np.ndarray:
        return np.asarray(self._arrays[name][region])

    def whole(self, name: str) -> np.ndarray:
        """A coordinate, or a variable of one number a game, in the sweep's shape.

        Raises:
            StoreError: the numbers are not as they were written.
        """
        try:
            return np.asarray(self._arrays[name][...])
        except ValueError as error:
            raise StoreError(f"{self.path}: is damaged: {name}: {error}") from None

    def statuses(self) -> np.ndarray:
        """Of all points, in the sweep's shape."""
        return self.whole("status")

    def blocks(self) -> Iterator[Block]:
        status = self._arrays["status"]
        return blocks(status.shape, status.chunks)

    def parts(self, wanted: np.ndarray) -> list[Part]:
        """The games of which `wanted`, in the sweep's shape, is true: those of each block that has any."""
        parts = (Part(block, np.flatnonzero(wanted[block.region])) for block in self.blocks())
        return [part for part in parts if len(part)]

    def seconds(self) -> np.ndarray:
        """That blocks took, those that runs of this store have written; none of a store of format 1."""
        if not (self.path / SECONDS).exists():
            return np.empty(0)
        seconds = np.asarray(zarr.open_array(self._opened, path=SECONDS, mode="r")[...])
        return seconds[np.isfinite(seconds)]

    def pending_blocks(self) -> list[Block]:
        """The blocks of which some point is not done."""
        return [part.block for part in self.parts(self.statuses() == 0)]

    def pending_of(self, block: Block) -> Part:
        """The games of a block that are not done."""
        return Part(block, np.flatnonzero(self.statuses()[block.region] == 0))

    def read(self, name: str, part: Part) -> np.ndarray:
        """What a variable holds of some games, [game, …]."""
        return self._read_block(name, part.block)[part.places]

    def read_box(self, name: str, along: Sequence[np.ndarray]) -> np.ndarray:
        """What a variable holds of the games at all combinations of these places along the sweep's dims, [game, …] in C order."""
        array = self._arrays[name]
        return np.asarray(array.oindex[tuple(along)]).reshape(-1, *array.shape[len(along) :])

    def write_part(self, part: Part, results: Mapping[str, np.ndarray], seconds: float | None = None) -> None:
        """Writes the results [game, …] of some games of a block, `status` last; its other games keep their bits. `seconds`: of all.

        Where games were retried, these are the run's, if nothing else is said.

        Raises:
            StoreError: the store is no longer there, or is damaged. OSError: the disk is full, or fails.
        """
        if ATTEMPT.name in self._arrays:
            results = {ATTEMPT.name: np.zeros(len(part)), **results}
        self._write_some(part, results, seconds)

    def withdraw(self, part: Part, attempt: int) -> None:
        """Makes games that are done pending again, for an attempt to replace. Done before their numbers are replaced, so that a
        crash leaves games to be solved, and none whose numbers are of two solutions."""
        self._write_some(part, {STATUS.name: np.zeros(len(part))})
        self._write_some(part, {ATTEMPT.name: np.full(len(part), attempt)})

    def withdrawn(self) -> np.ndarray:
        """Which games an attempt withdrew and did not replace, in the sweep's shape: marked as its own, or not yet where the last
        one was killed."""
        if ATTEMPT.name not in self._arrays:
            return np.zeros(self.shape, bool)
        about = self.attributes
        killed = "finished" in about and "retries" in about and "finished" not in about["retries"][-1]
        return (self.statuses() == 0) & ((self.whole(ATTEMPT.name) > 0) | killed)

    def _write_some(self, part: Part, results: Mapping[str, np.ndarray], seconds: float | None = None) -> None:
        if len(part) < len(part.block):
            seconds = seconds and seconds + self._seconds_so_far(part.block)
            results = {name: self._merged(name, part, values) for name, values in results.items()}
        self.write(part.block, results, seconds)

    def _merged(self, name: str, part: Part, values: np.ndarray) -> np.ndarray:
        try:
            whole = self._read_block(name, part.block)
        except ValueError:  # its checksum is wrong
            if self._some_are_done(part.block):
                raise
            whole = np.full((len(part.block), *values.shape[1:]), self._arrays[name].fill_value, self._arrays[name].dtype)
        whole[part.places] = self.as_stored(name, values)
        return whole

    def _read_block(self, name: str, block: Block) -> np.ndarray:
        self._check_file(name, block)
        array = self._arrays[name]
        return np.array(array[block.region]).reshape(len(block), *array.shape[len(block.region) :])

    def write(self, block: Block, results: Mapping[str, np.ndarray], seconds: float | None = None) -> None:
        """Fills one block with results [games, …]: `status` when all others, and the seconds that it took, are on the disk.

        Raises:
            StoreError: the store is no longer there. OSError: the disk is full, or fails.
        """
        self._check_it_is_there()
        files = together(self._threads, lambda name: self._write(block, name, results[name]), results.keys() - {STATUS.name})
        self._synchronise(files + ([] if seconds is None else [self._write_seconds(block, seconds)]))
        if STATUS.name in results:
            self._synchronise([self._write(block, STATUS.name, results[STATUS.name])])

    def _synchronise(self, files: Iterable[Place]) -> None:
        synchronise(files, self.path, self._threads, self._folders)

    def check_files(self) -> None:
        """Raises StoreError where a file of labels, or of games that are done, is missing: zarr would read zeros or NaN."""
        for file, mended_by in self.missing_files(self.statuses()):
            raise _missing_file(file, mended_by)

    def missing_files(self, statuses: np.ndarray) -> Iterator[tuple[Place, Place | None]]:
        """Files of labels, and of games that are done by these statuses, each with the one to delete to mend it (`mended_by`)."""
        there = files_below(self.path)
        for name in sorted(self.names - {STATUS.name, *MADE_UP_LATER}):
            of_games = self.holds_results(name)
            if not (self.writes_every_file if of_games else self.writes_every_label):
                continue
            for file, region in self.files(name):
                if file in there or (of_games and not (statuses[region[: statuses.ndim]] != 0).any()):
                    continue
                if not file.exists():  # it may have been written since
                    yield file, self.mended_by(region) if of_games else None

    def _check_file(self, name: str, block: Block) -> None:
        """Raises StoreError where a file is missing that was written."""
        if not self.writes_every_file or name in MADE_UP_LATER or (file := self._file(name, block)).exists():
            return
        if name != STATUS.name and self._some_are_done(block):
            raise _missing_file(file, self.mended_by(block.region))

    def _some_are_done(self, block: Block) -> bool:
        return bool((np.asarray(self._arrays[STATUS.name][block.region]) != 0).any())

    def read_pending(self, names: Iterable[str], part: Part) -> dict[str, np.ndarray] | None:
        """What variables hold of games of which none counts as done; None where some of it is lost."""
        if not all(name in MADE_UP_LATER or self._file(name, part.block).exists() for name in names):
            return None
        try:
            return {name: self.read(name, part) for name in names}
        except ValueError:  # by its checksum
            return None

    def _file(self, name: str, block: Block) -> Place:
        """In which a block of a variable is."""
        array = self._arrays[name]
        place = [part.start // length for part, length in zip(block.region, array.shards or array.chunks, strict=False)]
        inner = array.ndim - len(place)
        return self.path / array.path / array.metadata.encode_chunk_key((*place, *[0] * inner))

    def _identify(self) -> tuple[object, ...] | None:
        """What tells this store from another at its path, by a file that never changes; None where there is none."""
        return identity(self.path / STATUS.name / "zarr.json")

    def _check_it_is_there(self) -> None:
        """Otherwise zarr would make the folders anew, without what was in them."""
        if self._identify() != self._identity:
            raise StoreError(
                f"{self.path}: was removed, moved or replaced during the run; the same command begins anew where nothing is"
            )

    @cached_property
    def _seconds(self) -> zarr.Array:
        return zarr.open_array(self._opened, path=SECONDS, mode="r+")

    def _seconds_so_far(self, block: Block) -> float:
        before = float(np.asarray(self._seconds[block.number]))
        return before if math.isfinite(before) and self._some_are_done(block) else 0.0

    def _write_seconds(self, block: Block, seconds: float) -> Place:
        self._seconds[block.number] = seconds
        return self.path / SECONDS / self._seconds.metadata.encode_chunk_key((block.number,))

    def as_stored(self, name: str, values: np.ndarray) -> np.ndarray:
        """A variable's numbers as the store holds them: rounded to its precision, where it has one, and of its type."""
        array = self._arrays[name]
        if isinstance(precision := array.attrs.get("precision"), float):
            values = rounded(values.astype(np.float64), precision)
        return values.astype(array.dtype)

    def _write(self, block: Block, name: str, values: np.ndarray) -> Place:
        """Fills one block of one variable; the file that it is in."""
        array = self._arrays[name]
        box = tuple(part.stop - part.start for part in block.region)
        inner = array.shape[len(box) :]
        array[block.region] = self.as_stored(name, values).reshape(*box, *inner)
        return self._file(name, block)

    def add(self, variable: Variable, dtype: str, design: Design, labels: Labels) -> None:
        """Makes a variable [game] of zeros, where there is none of its name; `consolidate` makes it known."""
        self._check_it_is_there()
        if variable.name not in self._arrays:
            block = self._arrays["status"].chunks
            _create_result(self._group, variable, dtype, 0, {"units": variable.units}, design, labels, block)
            self._synchronise([self.path / variable.name / "zarr.json"])
            self._arrays = self._open_arrays()

    def update_attributes(self, attributes: Mapping[str, Any]) -> None:
        """Adds attributes of the whole; this drops the consolidated metadata."""
        self._check_it_is_there()
        self._group = zarr.open_group(self._opened, mode="r+", use_consolidated=False)  # others may have added some
        # in one write: `attrs.update` makes one for each key, and a crash in between would leave another digest than theirs
        self._group = self._group.update_attributes(_with_digest({**self.attributes, **attributes}))
        self._synchronise([self.path / "zarr.json"])

    def consolidate(self) -> None:
        """Makes the consolidated metadata where there is none."""
        if zarr.open_group(self._opened, mode="r").metadata.consolidated_metadata is None:
            _consolidate(self._opened)
            self._synchronise([self.path / "zarr.json"])


def create(path: Place, spec: Spec, design: Design, labels: Labels, block: tuple[int, ...], attributes: Mapping[str, Any]) -> Store:
    """A whole, labelled, empty store at `path`. Until it is complete it has another name or none, so no half of one is found."""
    about = _with_digest({"mfgsweep_format": FORMAT, **attributes, "spec": spec.canonical()})

    def write(into: Path | MemoryStore) -> None:
        _write_template(zarr.create_group(into, attributes=about), spec, design, labels, block)
        _consolidate(into)

    if isinstance(path, ObjectPath):
        _create_objects(path, write)
    else:
        _create_folder(path, write)
    return Store(path)


def _create_folder(path: Path, write: Callable[[Path], None]) -> None:
    make_folder(path.parent)
    remove_leftovers(path)
    unfinished = _unfinished(path)
    try:
        write(unfinished)
        with ThreadPoolExecutor(AT_ONCE) as threads:
            synchronise((file for file in unfinished.rglob("*") if file.is_file()), unfinished, threads, set())
    except OSError:  # on a full disk it would be in the way
        _remove_while_written(unfinished)
        raise
    unfinished.rename(path)
    synchronise_one(path.parent)


def _create_objects(path: ObjectPath, write: Callable[[MemoryStore], None]) -> None:
    if path.has_any_below():
        raise _something_else(path)
    template: dict[str, Buffer] = {}
    write(MemoryStore(template))
    contents = {name: buffer.to_bytes() for name, buffer in template.items()}
    own = contents.pop("zarr.json")
    _mark(path).put(b"")
    path.put_below(contents)
    (path / "zarr.json").put(own)
    _mark(path).remove()


def _remove_while_written(folder: Path) -> None:
    """Zarr writes several files at a time: when one fails, others may still come."""
    for _ in range(100):
        shutil.rmtree(folder, ignore_errors=True)
        time.sleep(0.01)
        if not folder.exists():
            return


def _write_template(group: zarr.Group, spec: Spec, design: Design, labels: Labels, block: tuple[int, ...]) -> None:
    """Everything but results."""
    with _with_every_file():
        _write_coordinates(group, spec, design, labels)
    for variable in variables(spec):
        about: dict[str, Any] = {"units": variable.units_in(spec.units.price, spec.units.time)}
        if spec.outputs.precision is not None and variable.name not in EXACT:
            about["precision"] = spec.outputs.precision
        _create_result(group, variable, spec.outputs.dtype, float("nan"), about, design, labels, block)
    flags = {"flag_values": list(range(len(STATUSES))), "flag_meanings": " ".join(STATUSES)}
    _create_result(group, STATUS, "int8", 0, flags, design, labels, block)
    group.create_array(
        SECONDS,
        shape=(sum(1 for _ in blocks(design.shape, block)),),
        chunks=(1,),
        dtype="float64",
        compressors=CODECS,
        fill_value=float("nan"),
        attributes={"units": "s", "long_name": "wall time from the block before, or the start of a run"},
    )


def _write_coordinates(group: zarr.Group, spec: Spec, design: Design, labels: Labels) -> None:
    swept = {variable.name: variable for variable in PARAMETERS}
    for name, (dims, values) in design.coords.items():
        about = swept.get(name)
        units = {"units": about.units_in(spec.units.price, spec.units.time)} if about else {}
        _write_coordinate(group, name, dims, values, {**units, "long_name": about.long_name if about else name})
    used = {dim for variable in variables(spec) for dim in variable.dims}
    for name, (values, attributes) in labels.values().items():
        if name in used:
            _write_coordinate(group, name, (name,), values, attributes)


def _write_coordinate(
    group: zarr.Group, name: str, dims: tuple[str, ...], values: np.ndarray, attributes: Mapping[str, str]
) -> None:
    text = values.dtype.kind == "U"
    array = group.create_array(
        name,
        shape=values.shape,
        chunks=values.shape,
        dtype=str if text else values.dtype,
        compressors=CODECS,
        dimension_names=dims,
        attributes=dict(attributes),
    )
    array[...] = values


def _create_result(
    group: zarr.Group,
    variable: Variable,
    dtype: str,
    pending: float,
    attributes: Mapping[str, Any],
    design: Design,
    labels: Labels,
    block: tuple[int, ...],
) -> None:
    inner = tuple(labels.size(dim) for dim in variable.dims)
    chunk = chunk_shape(block, np.dtype(dtype).itemsize * math.prod(inner))
    # along `point` the swept values are coordinates that no dim names, so each variable does
    coordinates = {"coordinates": " ".join(design.coords)} if design.dims == ("point",) else {}
    group.create_array(
        variable.name,
        shape=design.shape + inner,
        chunks=chunk + inner,
        shards=None if chunk == block else block + inner,
        dtype=dtype,
        compressors=CODECS,
        fill_value=pending,
        dimension_names=design.dims + variable.dims,
        attributes={"long_name": variable.long_name, **attributes, **coordinates},
    )


def _consolidate(path: StoreLike) -> None:
    with warnings.catch_warnings():
        # Consolidated metadata is not yet in the zarr v3 specification, but without it every xr.open_zarr warns.
        warnings.filterwarnings("ignore", message=".*[Cc]onsolidated metadata.*")
        zarr.consolidate_metadata(path)


def itself(path: Place) -> Place:
    """The path of the store, where this is a link to it or has no name (as `.`): what is beside it must be beside the store."""
    if isinstance(path, ObjectPath):
        return path
    return path.resolve() if path.is_symlink() or not path.name else path


def exists(path: Place) -> bool:
    """Whether there is something at `path`, or was before `replace` was broken off."""
    return path.exists() or (isinstance(path, Path) and _replaced(path).exists())


def missing(path: Place) -> StoreError:
    return StoreError(f"{path}: no such store; `mfgsweep run GRID.yaml` makes one")


def bytes_at(path: Path) -> int:
    """That all files of a store take, 0 where there is none."""
    return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())


def open_existing(path: Place) -> Store:
    """The store at `path`.

    Raises:
        StoreError: there is none, it is something else, it was made by a newer version, or what it says of itself is damaged.
    """
    if not path.exists():
        raise missing(path)
    try:
        whole = json.loads((path / "zarr.json").read_bytes())
        attributes = whole["attributes"]
        version = attributes["mfgsweep_format"]
        is_newer = version > FORMAT
    except (FileNotFoundError, NotADirectoryError, KeyError, TypeError):
        raise _something_else(path) from None
    except (ValueError, RecursionError) as error:
        raise _damaged(path / "zarr.json", str(error)) from None
    if is_newer:
        raise StoreError(f"{path}: was made by a newer mfg-jax (format {version}, this one knows {FORMAT}); update mfg-jax")
    if (version > 1 or DIGEST in attributes) and attributes != _with_digest(attributes):
        raise _damaged(path / "zarr.json", f"its attributes do not match their {DIGEST}")
    try:
        _check_description(path, whole)
        store = Store(path)
    except StoreError:
        raise
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise _damaged(path / "zarr.json", str(error)) from None
    if STATUS.name not in store.names:
        raise _damaged(path / STATUS.name / "zarr.json", "it is missing")
    return store


def open_whole(path: Place) -> Store:
    """The store at `path`, of which nothing that is done is missing.

    Raises:
        StoreError: as `open_existing`; or a file is missing.
    """
    store = open_existing(path)
    try:
        store.check_files()
    except OSError as error:
        raise StoreError(f"{error.filename or path}: cannot be read: {error.strerror or error}") from None
    return store


def _something_else(path: Place) -> StoreError:
    return StoreError(f"{path}: exists and is no store of mfgsweep; name another path")


def _with_digest(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """Attributes with a digest of all others among them."""
    others = {key: value for key, value in attributes.items() if key != DIGEST}
    return others | {DIGEST: hashlib.sha256(json.dumps(others, sort_keys=True).encode()).hexdigest()}


def _check_description(path: Place, whole: Mapping[str, Any]) -> None:
    """Holds what the store's parts say of themselves against its consolidated copy: zarr keeps no checksum of either."""
    copies = whole.get("consolidated_metadata", {"metadata": {}})["metadata"]
    for name, copy in copies.items():
        file = path / name / "zarr.json"
        try:
            own = json.loads(file.read_bytes())
        except FileNotFoundError:
            raise _damaged(file, "it is missing") from None
        except ValueError as error:
            raise _damaged(file, str(error)) from None
        if own != {key: value for key, value in copy.items() if key != "consolidated_metadata"}:
            raise _damaged(file, "it differs from its copy in the store's own zarr.json")


def _missing_file(file: Place, of_status: Place | None) -> StoreError:
    if of_status is None:
        return _damaged(file, "it is missing")
    mend = f"or delete {of_status}, and the command that made the store solves these games again"
    return StoreError(f"{file}: is missing; restore it from a copy, {mend}")


def _damaged(file: Place, how: str) -> StoreError:
    return StoreError(f"{file}: is damaged: {how}; restore it from a copy, or delete the store and begin again")


def check_same_spec(store: Store, spec: Spec, but: str = "") -> None:
    """Refuses to go on with a store that another spec made.

    Args:
        but: a section that may differ.

    Raises:
        StoreError: with the keys that differ.
    """
    differences = differing_keys(store.attributes["spec"], spec.canonical())
    differences = [difference for difference in differences if difference[0].split(".")[0] != but]
    if differences:
        lines = told(differences)
        advice = "Choose another --out, or --fresh to delete the store and start again."
        raise StoreError("\n".join([f"{store.path}: was made by another spec:", *lines, advice]))


def check_same_points(store: Store, design: Design) -> None:
    """Refuses to go on where the same spec means other points, as where another version of NumPy or SciPy draws them.

    Raises:
        StoreError: with the first name whose values differ.
    """
    for name, (_, values) in design.coords.items():
        if not same_values(store.whole(name), values):
            raise StoreError(
                f"{store.path}: its points have other values of {name} than the same grid file has here. {GO_ON_ELSEWHERE}"
            )


def same_values(held: np.ndarray, expected: np.ndarray) -> bool:
    """Whether a store's coordinate is this one."""
    if expected.dtype.kind != "f":
        return held.tolist() == expected.tolist()
    return held.shape == expected.shape and np.allclose(held, expected, rtol=SAME_VALUE, atol=0.0)


def check_same_circumstances(store: Store, found: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Refuses to go on with a store that was begun where the same spec may have other numbers.

    Args:
        found, now: what decides numbers, in the store and here, by names for people.

    Raises:
        StoreError: with all that differs.
    """
    if differences := differing_keys(dict(found), dict(now)):
        lines = [f"  {key}: {_brief(old)} in the store, {_brief(new)} here" for key, old, new in differences]
        raise StoreError("\n".join([f"{store.path}: was begun where numbers may come out differently:", *lines, GO_ON_ELSEWHERE]))


def explained(error: OSError, path: Place) -> StoreError:
    """What the disk refused, and that nothing that was done is lost."""
    kept = "what was done is kept, and the same command goes on with it"
    if isinstance(error, Refused):
        return StoreError(f"{error}; {kept}")
    full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
    what = "the disk is full, or a limit is reached" if full else f"the disk refuses it: {error.strerror or error}"
    if isinstance(path, Path) and not exists(path):
        return StoreError(f"{path}: cannot be made: {what}")
    return StoreError(f"{error.filename2 or error.filename or path}: {what}; {kept}")


def told(differences: Iterable[tuple[str, Any, Any]]) -> list[str]:
    """Where a store's spec and a grid file differ, a line each."""
    return [f"  {key}: {_brief(old)} in the store, {_brief(new)} in the grid file" for key, old, new in differences]


def _brief(value: object) -> str:
    """A value of a spec in a few words."""
    if value is None:
        return "absent"
    if isinstance(value, list) and len(value) > 6:
        return f"{len(value)} values from {value[0]} to {value[-1]}"
    return str(value)


def delete(path: Place) -> None:
    """Removes a store of mfgsweep, and nothing else.

    Raises:
        StoreError: what is there is no such store.
    """
    open_existing(path)
    if isinstance(path, ObjectPath):
        _mark(path).put(b"")
        (path / "zarr.json").remove()
        _settle_objects(path)
        return
    remove_leftovers(path)
    path.rename(_deleted(path))  # a deletion that is interrupted must not leave half a store at its path
    remove_leftovers(path)


def _unfinished(path: Path) -> Path:
    """Where a store is until it is complete."""
    return path.with_name(f".{path.name}.new")


def _deleted(path: Path) -> Path:
    """Where a store is while it is being deleted."""
    return path.with_name(f".{path.name}.old")


def extended(path: Path) -> Path:
    """Where the extension of a store is until it is complete."""
    return path.with_name(f".{path.name}.extended")


def remove_leftovers(path: Path) -> None:
    """What creations, deletions and writes that were killed have left of the store at `path`. Nobody else may be writing it."""
    for folder in (_unfinished(path), _deleted(path), extended(path), _unfinished(extended(path))):
        if folder.exists():
            shutil.rmtree(folder)
    for file in path.rglob("*.partial"):
        file.unlink()


def replace(path: Path, new: Path) -> None:
    """Puts the store `new`, in the same folder, into the place of that at `path`, which is removed. Each is whole at any time; what
    is broken off between the two renames, `settle` takes back."""
    replaced = _replaced(path)
    path.rename(replaced)
    new.rename(path)
    synchronise_one(path.parent)
    shutil.rmtree(replaced)


def settle(path: Place) -> None:
    """Takes back, or ends, what `replace` did not end, and removes what else was left. Nobody else may be writing the store.

    What is at `path` may be something else: then nothing is touched.
    """
    if isinstance(path, ObjectPath):
        _settle_objects(path)
        return
    replaced = _replaced(path)
    if replaced.exists() and not path.exists():
        replaced.rename(path)
    if path.exists() and not _claims_to_be_a_store(path):
        return
    shutil.rmtree(replaced, ignore_errors=True)
    remove_leftovers(path)


def _claims_to_be_a_store(path: Path) -> bool:
    """Also where it is damaged."""
    try:
        return b"mfgsweep_format" in (path / "zarr.json").read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return False


def _replaced(path: Path) -> Path:
    return path.with_name(f".{path.name}.replaced")


def _settle_objects(path: ObjectPath) -> None:
    """Removes what a creation or a deletion that was broken off has left."""
    if _mark(path).exists():
        if not path.exists():
            path.remove_below()
        _mark(path).remove()


def _mark(path: ObjectPath) -> ObjectPath:
    """Is there while a store is made or deleted; without a zarr.json of its own, all of that is leftovers."""
    return path.with_name(f".{path.name}") / "unfinished"

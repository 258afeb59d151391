"""Notes beside a store: short texts that are made in one step, and of which it is known when they were last touched."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator
from pathlib import Path

from sweeps.durable import make_folder
from sweeps.place import ObjectPath, Place


class Link:
    """In a folder: a symbolic link to nowhere.

    Raises:
        FileNotFoundError: what is asked about it, where it is gone.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def __str__(self) -> str:
        return str(self._path)

    def make(self, text: str) -> None:
        make_folder(self._path.parent)
        self._path.symlink_to(text)

    def read(self) -> str:
        return os.readlink(self._path)

    def touched(self) -> float:
        """When, by the clock of whoever keeps it, in seconds."""
        return self._path.lstat().st_mtime

    def touch(self) -> None:
        os.utime(self._path, follow_symlinks=False)

    def is_there(self) -> bool:
        return self._path.is_symlink()

    def remove(self) -> None:
        """Also where it is not there."""
        self._path.unlink(missing_ok=True)


class Object:
    """In a bucket; the same, for the same errors."""

    def __init__(self, path: ObjectPath) -> None:
        self._path = path

    def __str__(self) -> str:
        return str(self._path)

    def make(self, text: str) -> None:
        self._path.put(text.encode())

    def read(self) -> str:
        return self._path.read_bytes().decode()

    def touched(self) -> float:
        if about := self._path.about():
            return about["last_modified"].timestamp()
        raise FileNotFoundError(str(self))

    def touch(self) -> None:
        self._path.touch()

    def is_there(self) -> bool:
        return self._path.exists()

    def remove(self) -> None:
        self._path.remove()


Note = Link | Object


def note(store: Place, name: str) -> Note:
    """Not made yet."""
    if isinstance(store, Path):
        return Link(store.with_name(f".{store.name}.{name}"))
    return Object(store.with_name(f".{store.name}") / name)


def notes(store: Place, beginning: str) -> Iterator[Note]:
    """Those whose names begin so."""
    if isinstance(store, Path):
        yield from map(Link, store.parent.glob(f".{glob.escape(store.name)}.{beginning}*"))
    else:
        beside = store.with_name(f".{store.name}")
        yield from (Object(path) for path in beside.below() if path.name.startswith(beginning))

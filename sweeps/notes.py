"""Notes beside a store: short texts that are made in one step, and of which it is known when they were last touched."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from sweeps.durable import make_folder
from sweeps.place import ObjectPath, Place


@dataclass(frozen=True)
class Link:
    """In a folder: a symbolic link to nowhere.

    Raises:
        FileNotFoundError: what is asked about it, where it is gone.
    """

    path: Path

    def __str__(self) -> str:
        return str(self.path)

    def make(self, text: str) -> None:
        make_folder(self.path.parent)
        self.path.symlink_to(text)

    def read(self) -> str:
        return os.readlink(self.path)

    def touched(self) -> float:
        """When, by the clock of whoever keeps it, in seconds."""
        return self.path.lstat().st_mtime

    def touch(self) -> None:
        os.utime(self.path, follow_symlinks=False)

    def is_there(self) -> bool:
        return self.path.is_symlink()

    def remove(self) -> None:
        """Also where it is not there."""
        self.path.unlink(missing_ok=True)


@dataclass(frozen=True)
class Object:
    """In a bucket; the same, for the same errors."""

    path: ObjectPath

    def __str__(self) -> str:
        return str(self.path)

    def make(self, text: str) -> None:
        self.path.put(text.encode())

    def read(self) -> str:
        return self.path.read_bytes().decode()

    def touched(self) -> float:
        if about := self.path.about():
            return about["last_modified"].timestamp()
        raise FileNotFoundError(str(self))

    def touch(self) -> None:
        self.path.touch()

    def is_there(self) -> bool:
        return self.path.exists()

    def remove(self) -> None:
        self.path.remove()


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

"""What was written stays written, also when the machine loses its power the next moment."""

from __future__ import annotations

import asyncio
import os
import uuid
from collections.abc import Callable, Iterable
from concurrent.futures import Executor, wait
from pathlib import Path
from typing import TypeVar

from zarr.core.buffer import Buffer
from zarr.storage import LocalStore

from sweeps.place import ObjectPath, Place

T = TypeVar("T")
R = TypeVar("R")


def together(threads: Executor, do: Callable[[T], R], many: Iterable[T]) -> list[R]:
    """Does it with each of many, side by side, as a disk or a server serves several that wait in little more time than one.

    A failure is raised when nothing is being done any more.
    """
    begun = [threads.submit(do, one) for one in many]
    wait(begun)
    return [future.result() for future in begun]


class DurableStore(LocalStore):
    """A folder in which no power cut leaves a file with neither what it held nor what was to take its place."""

    async def set(self, key: str, value: Buffer) -> None:
        self._check_writable()
        await asyncio.to_thread(_replace, self.root / key, value.to_bytes())


def _replace(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(f".{uuid.uuid4().hex}.partial")
    try:
        unfinished.write_bytes(content)
        if path.exists():  # otherwise there is nothing to lose yet, and many files are synchronised faster together
            synchronise_one(unfinished)
        unfinished.replace(path)
    except BaseException:
        unfinished.unlink(missing_ok=True)
        raise


def synchronise(files: Iterable[Place], root: Place, threads: Executor, known: set[Path]) -> None:
    """Waits until files, and the folders from theirs up to `root` that lead to them, are on the disk. Those of a bucket are.

    `known`: folders that are there for good, to which these are added.
    """
    if isinstance(root, ObjectPath):
        return
    files = [file for file in files if isinstance(file, Path)]
    folders = {file.parent for file in files}
    above = {folder for new in folders - known for folder in new.parents if folder.is_relative_to(root)}
    together(threads, synchronise_one, [*files, *folders | above])
    known |= folders


def synchronise_one(path: Path) -> None:
    """Waits until a file's content, or a folder's names, are on the disk."""
    opened = os.open(path, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)


def make_folder(path: Path) -> None:
    """A folder and those above it, where they are not there, on the disk."""
    missing = [folder for folder in (path, *path.parents) if not folder.exists()]
    path.mkdir(parents=True, exist_ok=True)
    for folder in missing:
        synchronise_one(folder.parent)

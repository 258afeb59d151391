"""What was written stays written, also when the machine loses its power the next moment."""

from __future__ import annotations

import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from sweeps.place import ObjectPath, Place

AT_ONCE = 16
"""A disk serves many that wait together in little more time than one."""


def synchronise(files: Iterable[Place], root: Place) -> None:
    """Waits until files, and the folders from theirs up to `root` that lead to them, are on the disk. Those of a bucket are."""
    if isinstance(root, ObjectPath):
        return
    files = [file for file in files if isinstance(file, Path)]
    folders = {folder for file in files for folder in file.parents if folder.is_relative_to(root)}
    with ThreadPoolExecutor(AT_ONCE) as threads:
        list(threads.map(synchronise_one, [*files, *folders]))


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

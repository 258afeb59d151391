"""Where a store is: a folder, or a part of a bucket of S3 or of what speaks its language.

A bucket has neither folders nor renames, but each of its objects is put whole or not at all, there for good once that is answered,
and seen by all at once. It is talked to by obstore, which takes address and credentials from the usual environment variables
(AWS_ENDPOINT_URL, AWS_REGION, AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_ALLOW_HTTP=true, …), and repeats what fails: what the
server says is its own fault, connections that break, and what takes too long.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from obstore import ObjectMeta
    from obstore.store import RetryConfig, S3Store
    from zarr.storage import ObjectStore

RETRIES: RetryConfig = {"max_retries": 10, "retry_timeout": timedelta(minutes=2)}
"""Of each request, ever longer apart, up to 15 s; and for how long in all. Then the run ends, and can be gone on with."""
NO_BUCKET = "NoSuchBucket"
"""An error by this name tells of more than an object that is not there."""
AT_ONCE = 16
"""A server answers many that ask together in little more time than one."""


class PlaceError(ValueError):
    """What is no place of a store; the message says what is."""


class Refused(OSError):
    """What an object store did not do, and why."""


@dataclass(frozen=True)
class ObjectPath:
    """An object of a bucket, or all those whose names begin with this one and a slash; has what is used here of pathlib's paths.

    Raises:
        FileNotFoundError: what is read is not there. Refused: the server does not do what it is asked for.
    """

    client: S3Store = field(repr=False, compare=False)
    bucket: str
    key: str

    def __str__(self) -> str:
        return f"s3://{self.bucket}/{self.key}"

    def __truediv__(self, name: str) -> ObjectPath:
        return ObjectPath(self.client, self.bucket, f"{self.key}/{name}")

    @property
    def name(self) -> str:
        return self.key.rpartition("/")[2]

    def with_name(self, name: str) -> ObjectPath:
        return ObjectPath(self.client, self.bucket, "".join(self.key.rpartition("/")[:2]) + name)

    def exists(self) -> bool:
        """Whether there is an object of this name, or a group of zarr, which its description makes one."""
        if self.about() or (self / "zarr.json").about():
            return True
        self.has_any_below()  # a bucket that is gone is told here, and looks as if empty to those who ask for an object
        return False

    def about(self) -> ObjectMeta | None:
        import obstore

        try:
            with told(self):
                return obstore.head(self.client, self.key)
        except FileNotFoundError:
            return None

    def read_bytes(self) -> bytes:
        import obstore

        with told(self):
            return bytes(obstore.get(self.client, self.key).bytes())

    def put(self, content: bytes) -> None:
        import obstore

        with told(self):
            obstore.put(self.client, self.key, content)

    def touch(self) -> None:
        """Puts the object again, as it is, where it is still there."""
        import obstore

        if about := self.about():
            content = self.read_bytes()
            with told(self):
                obstore.put(self.client, self.key, content, mode={"e_tag": str(about["e_tag"])})

    def remove(self) -> None:
        """Also where it is not there."""
        import obstore

        with told(self):
            obstore.delete(self.client, self.key)

    def has_any_below(self) -> bool:
        import obstore

        with told(self):
            return any(obstore.list(self.client, self.key))

    def below(self) -> list[ObjectPath]:
        import obstore

        with told(self):
            return [ObjectPath(self.client, self.bucket, about["path"]) for about in obstore.list(self.client, self.key).collect()]

    def put_below(self, contents: Mapping[str, bytes]) -> None:
        with ThreadPoolExecutor(AT_ONCE) as threads:
            list(threads.map(lambda name: (self / name).put(contents[name]), contents))

    def remove_below(self) -> None:
        import obstore

        with told(self):
            obstore.delete(self.client, [found.key for found in self.below()])


Place = Path | ObjectPath


def files_below(where: Place) -> set[Place]:
    """All files of a folder, or all objects of its name in a bucket.

    Raises:
        OSError: some folder cannot be read.
    """

    def fail(error: OSError) -> None:
        raise error

    if isinstance(where, ObjectPath):
        return set(where.below())
    return {Path(folder, name) for folder, _, names in os.walk(where, onerror=fail) for name in names}


def place(text: str) -> Place:
    """A store's place: s3://BUCKET/NAME, or else a path.

    Raises:
        PlaceError: it is of another kind, or obstore is missing.
    """
    scheme, separator, rest = text.partition("://")
    if not separator:
        return Path(text)
    bucket, *names = rest.rstrip("/").split("/")
    if scheme != "s3" or not bucket or not names or {"", ".", ".."} & set(names):
        raise PlaceError(f"found {text!r}; allowed: a path, or s3://BUCKET/NAME")
    return ObjectPath(_client(bucket, ""), bucket, "/".join(names))


def opened(where: Place) -> Path | ObjectStore:
    """A store as zarr and xarray take it."""
    if isinstance(where, Path):
        return where
    from zarr.storage import ObjectStore

    return ObjectStore(_client(where.bucket, where.key))


def _client(bucket: str, prefix: str) -> S3Store:
    try:
        from obstore.exceptions import BaseError
        from obstore.store import S3Store
    except ImportError:
        raise PlaceError(f"obstore is missing; install it with: {sys.executable} -m pip install 'mfg-jax[s3]'") from None
    try:
        return S3Store(bucket, prefix=prefix or None, retry_config=RETRIES)
    except BaseError as error:
        raise PlaceError(f"s3://{bucket}: {_reason(error)}") from None


def identity(file: Place) -> tuple[object, ...] | None:
    """What tells a file from another of its name; None where there is none."""
    if isinstance(file, ObjectPath):
        about = file.about()
        return (about["e_tag"], about["last_modified"]) if about else None
    try:
        found = file.stat()
    except FileNotFoundError:
        return None
    return found.st_ino, found.st_mtime_ns


@contextmanager
def told(where: Place) -> Iterator[None]:
    """What a server does not do meanwhile is told as of that place.

    Raises:
        Refused: in a few words, as obstore says much.
    """
    if isinstance(where, Path):
        yield
        return
    from obstore.exceptions import BaseError

    try:
        yield
    except (BaseError, FileNotFoundError) as error:
        if isinstance(error, FileNotFoundError) and NO_BUCKET not in str(error):
            raise
        raise Refused(f"{where}: {_reason(error)}") from error


def _reason(error: Exception) -> str:
    said = str(error).partition("\n\nDebug source")[0]
    if NO_BUCKET in said:
        return "there is no such bucket"
    if type(error).__name__ in ("PermissionDeniedError", "UnauthenticatedError"):
        return "the object store refuses these credentials (AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY), or what they ask for"
    if "http://169.254." in said:
        return "there are no credentials; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
    if "builder error" in said:
        return "the address AWS_ENDPOINT_URL cannot be used; one that begins with http:// needs AWS_ALLOW_HTTP=true"
    return f"the object store does not answer as it should: {' '.join(said.partition('<?xml')[0].split())}"

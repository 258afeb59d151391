"""What happened in a run, when, in a file that outlives it: one JSON object a line."""

from __future__ import annotations

import json
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from sweeps.engine import Interrupted


class Journal:
    """Adds to a file, line by line; a context manager around the run, of whose end it tells when that comes too early."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = path.open("ab", buffering=0)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        with self._file:
            if kind is Interrupted:
                self.write("interrupted")
            elif error is not None:
                with suppress(OSError):  # the first error is the one to tell, and this may be it again
                    self.write("failed", error=str(error) or repr(error))

    def write(self, event: str, **fields: Any) -> None:
        """One event, which is in the file when this returns.

        Raises:
            OSError: the file cannot be written.
        """
        now = datetime.now(UTC).isoformat(timespec="milliseconds")
        try:
            self._file.write(json.dumps({"time": now, "event": event, **fields}).encode() + b"\n")
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(self._path)) from None

"""What a run tells while it runs: a progress bar on a terminal, plain lines elsewhere, JSON lines for machines."""

from __future__ import annotations

import json
import math
import sys
import time
from abc import ABC, abstractmethod
from types import TracebackType
from typing import Any, Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from sweeps.engine import Progress as State
from sweeps.runtime import duration

SECONDS_BETWEEN_LINES = 5.0


class Reporter(ABC):
    """A way of telling; a context manager around the run."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        return None

    @abstractmethod
    def progress(self, state: State) -> None:
        """Called after every batch."""

    def say(self, line: str) -> None:
        """A line for people."""
        print(line, flush=True)

    def summary(self, fields: dict[str, Any], lines: list[str]) -> None:
        """The end: for machines, and for people."""
        del fields
        for line in lines:
            self.say(line)


class Quiet(Reporter):
    """Nothing but errors, which are raised."""

    def progress(self, state: State) -> None:
        del state

    def say(self, line: str) -> None:
        del line


class Plain(Reporter):
    """A line every few seconds."""

    def __init__(self) -> None:
        self._next_line = 0.0

    def progress(self, state: State) -> None:
        complete = state.done_before + state.done == state.points
        if time.monotonic() >= self._next_line or complete:
            self._next_line = time.monotonic() + SECONDS_BETWEEN_LINES
            left = "" if complete or math.isinf(state.seconds_left) else f", {duration(state.seconds_left)} left"
            self.say(f"{state.done_before + state.done}/{state.points} games, {_rate(state)}, {_statuses(state)}{left}")


class Json(Reporter):
    """One JSON object a line."""

    def progress(self, state: State) -> None:
        done = state.done_before + state.done
        self._write({"event": "progress", "done": done, "points": state.points, "statuses": dict(state.statuses)})

    def say(self, line: str) -> None:
        self._write({"event": "message", "text": line})

    def summary(self, fields: dict[str, Any], lines: list[str]) -> None:
        del lines
        self._write({"event": "summary", **fields})

    def _write(self, event: dict[str, Any]) -> None:
        print(json.dumps(event), flush=True)


class Bar(Reporter):
    """A progress bar, with points per second, time left and the count of each status."""

    def __init__(self) -> None:
        columns = (
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]}"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[statuses]}"),
        )
        self._bar = Progress(*columns, console=Console())
        self._task = self._bar.add_task("games", rate="compiling", statuses="", total=None)

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._bar.stop()

    def progress(self, state: State) -> None:
        self._bar.update(
            self._task,
            total=state.points,
            completed=state.done_before + state.done,
            rate=_rate(state),
            statuses=_statuses(state),
        )


def reporter(quiet: bool, as_json: bool) -> Reporter:
    """The way of telling that the flags and the terminal ask for."""
    if as_json:
        return Json()
    if quiet:
        return Quiet()
    return Bar() if sys.stdout.isatty() else Plain()


def _rate(state: State) -> str:
    if state.done:
        return f"{state.points_per_second:.1f} games/s"
    return "compiling" if state.done_before < state.points else "nothing to solve"


def _statuses(state: State) -> str:
    return ", ".join(f"{count} {name.replace('_', ' ')}" for name, count in state.statuses.most_common()) or "none done"

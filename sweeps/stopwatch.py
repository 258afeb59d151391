"""Where the time of a run goes."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from enum import Enum


class Activity(Enum):
    """What the threads of a run do."""

    COMPILE = "compile"
    COMPUTE = "compute"
    COPY = "copy"
    WRITE = "write"


class Stopwatch:
    """Adds up what each activity takes, in all threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._seconds = dict.fromkeys(Activity, 0.0)
        self._lane_sweeps = self._idle_lane_sweeps = 0

    @contextmanager
    def on(self, activity: Activity) -> Iterator[None]:
        """Times what is done within."""
        begun = time.perf_counter()
        try:
            yield
        finally:
            with self._lock:
                self._seconds[activity] += time.perf_counter() - begun

    def count_lanes(self, sweeps: int, idle: int) -> None:
        """Evaluations of Φ that lanes made, and how many of them no game used."""
        with self._lock:
            self._lane_sweeps += sweeps
            self._idle_lane_sweeps += idle

    @property
    def idle_lanes(self) -> float | None:
        """Share of what the lanes did; None where there were none."""
        return self._idle_lane_sweeps / self._lane_sweeps if self._lane_sweeps else None

    def shares(self, seconds: float, workers: int) -> dict[str, float]:
        """Of the time that `workers` had in so many seconds; of the one thread's who writes, and of the one's who compiles."""
        threads = {Activity.COMPUTE: workers, Activity.COPY: workers}
        return {activity.value: self._seconds[activity] / (seconds * threads.get(activity, 1)) for activity in Activity}

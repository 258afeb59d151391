"""Where the time of a run goes."""

from itertools import count

import pytest

from sweeps import stopwatch
from sweeps.stopwatch import Activity, Stopwatch


def test_shares_are_of_the_threads_that_could_do_it(monkeypatch: pytest.MonkeyPatch) -> None:
    ticks = count()
    monkeypatch.setattr(stopwatch.time, "perf_counter", lambda: float(next(ticks)))
    watch = Stopwatch()
    for activity in (Activity.COMPUTE, Activity.COMPUTE, Activity.COMPUTE, Activity.WRITE):
        with watch.on(activity):
            pass
    assert watch.shares(seconds=4.0, workers=2) == {"compile": 0.0, "compute": 3 / 8, "copy": 0.0, "write": 1 / 4}


def test_what_fails_took_its_time_too() -> None:
    watch = Stopwatch()
    with pytest.raises(KeyError), watch.on(Activity.COPY):
        raise KeyError
    assert watch.shares(1.0, 1)["copy"] > 0.0

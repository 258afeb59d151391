"""Who fills a store, or a share of it: one run at a time, on whatever machine.

A lock is a file beside the store, because it must be there before the store is created and after it is deleted: a symbolic link to
nowhere, which is made in one step with what is in it. It names its owner, and when it was last touched is the owner's last sign of
life. Each run makes a file of its own first and looks for others then: of two that start at once, at least one sees the other, and
steps back. As no two files have the same name, whoever finds that of a dead owner may remove it, and never removes another's.
"""

from __future__ import annotations

import glob
import json
import math
import os
import platform
import random
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from sweeps.durable import make_folder
from sweeps.runtime import duration
from sweeps.store import StoreError

WHOLE = "whole"
SECONDS_BETWEEN_SIGNS, SECONDS_TO_DEATH = 30.0, 300.0
"""Between an owner's signs of life; and without one until an owner on another machine counts as dead."""
ATTEMPTS, LONGEST_PAUSE = 4, 0.2


class Locked(StoreError):
    """Somebody else fills the store, or may do so; the message says who, and what to do."""


@dataclass(frozen=True)
class Owner:
    """A process, told from later ones of the same number by when it was started."""

    share: str
    host: str
    machine: str
    """Its boot and its space of process numbers; empty where these cannot be told."""
    pid: int
    started: str | None
    """By the machine's own clock."""
    since: str

    def conflicts_with(self, share: str) -> bool:
        """Whether some block is in both shares: every so many-th block belongs to one."""
        (number, of), (other_number, other_of) = map(_numbers, (self.share, share))
        return (number - other_number) % math.gcd(of, other_of) == 0

    def is_dead(self, seconds_silent: float) -> bool:
        """Processes of this machine can be looked up; those of others are known by their signs of life alone."""
        if self.machine and self.machine == _machine():
            started = _started(self.pid)
            return started != self.started and not (started is None and _is_hidden(self.pid))
        return seconds_silent > SECONDS_TO_DEATH


class Lock:
    """The file by which this process holds a store; it is touched now and then until it is released."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._released = threading.Event()
        self._signs = threading.Thread(target=self._give_signs, daemon=True)
        self._signs.start()

    def check(self) -> None:
        """Makes sure that the store is still this run's (`check`)."""
        check(self.path)

    def release(self) -> None:
        self._released.set()
        self._signs.join()
        self.path.unlink(missing_ok=True)

    def _give_signs(self) -> None:
        while not self._released.wait(SECONDS_BETWEEN_SIGNS):
            with suppress(OSError):  # a file that is gone is noticed before the next write, and a disk may come back
                os.utime(self.path, follow_symlinks=False)


def check(lock: Path) -> None:
    """Makes sure that a store is still held by the run whose lock this is, of this process or another.

    Raises:
        Locked: the file is gone. Another run may have taken this one for dead, as when its machine slept.
    """
    if not lock.is_symlink():
        raise Locked(f"{lock}: this run's lock is gone, so that another run may have begun; run the same command again to go on")


@contextmanager
def hold(store: Path, share: str = WHOLE) -> Iterator[Lock]:
    """Holds a store against all others, or one share of it against those who want the same share or the whole.

    Raises:
        Locked: another run holds it.
    """
    lock = Lock(_acquire(store.resolve(), share))
    try:
        yield lock
    finally:
        lock.release()


def _acquire(store: Path, share: str) -> Path:
    make_folder(store.parent)
    for _ in range(ATTEMPTS - 1):
        with suppress(Locked):
            return _attempt(store, share)
        time.sleep(random.uniform(0.0, LONGEST_PAUSE))  # the other may have stepped back as well
    return _attempt(store, share)


def _attempt(store: Path, share: str) -> Path:
    path = _make_file(store, share)
    try:
        _look_for_others(store, share, path)
    except BaseException:
        path.unlink()
        raise
    return path


def _make_file(store: Path, share: str) -> Path:
    """A lock of this process."""
    since = datetime.now(UTC).isoformat(timespec="seconds")
    owner = Owner(share, platform.node(), _machine(), os.getpid(), _started(os.getpid()), since)
    path = store.with_name(f".{store.name}.lock-{uuid.uuid4().hex}")
    path.symlink_to(json.dumps(asdict(owner)))
    return path


def _look_for_others(store: Path, share: str, own: Path) -> None:
    """Refuses to hold the store beside those who hold it; removes the files of the dead."""
    now = own.lstat().st_mtime  # by the clock of whoever keeps the files, as are all signs of life
    for path in store.parent.glob(f".{glob.escape(store.name)}.lock-*"):
        if path != own:
            with suppress(FileNotFoundError):  # released just now
                owner, silent = _read(path), now - path.lstat().st_mtime
                if owner.is_dead(silent):
                    path.unlink()
                elif owner.conflicts_with(share):
                    raise Locked(f"{store}: {_described(owner, silent)}")


def _read(path: Path) -> Owner:
    try:
        return Owner(**json.loads(os.readlink(path)))
    except FileNotFoundError:
        raise
    except (ValueError, TypeError, OSError):
        raise Locked(f"{path}: is no lock that can be read; where no run fills the store, delete it") from None


def _described(owner: Owner, seconds_silent: float) -> str:
    share = "" if owner.share == WHOLE else f" (share {owner.share})"
    elsewhere = (
        "" if owner.machine == _machine() else f", and counts as dead {duration(SECONDS_TO_DEATH)} after its last sign of life"
    )
    return (
        f"another run fills it{share}: process {owner.pid} on {owner.host}, since {owner.since}, "
        f"alive {duration(max(0.0, seconds_silent))} ago{elsewhere}; wait for it, or stop it"
    )


def _machine() -> str:
    """This boot of this machine, and the space in which its processes are numbered."""
    boot, space = Path("/proc/sys/kernel/random/boot_id"), Path("/proc/self/ns/pid")
    return f"{boot.read_text().strip()} {space.readlink()}" if boot.exists() and space.is_symlink() else ""


def _numbers(share: str) -> tuple[int, int]:
    number, _, of = share.partition("/")
    return (1, 1) if share == WHOLE else (int(number), int(of))


def _is_hidden(pid: int) -> bool:
    """Whether there is a process of another user that this one may not look at."""
    try:
        os.kill(pid, 0)
    except PermissionError:
        return True
    except ProcessLookupError:
        return False
    return False


def _started(pid: int) -> str | None:
    """When a process of this machine was started; None where there is none, or it has ended and is not yet buried."""
    try:
        after_name = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if after_name[0] in "ZX" else after_name[19]

"""Who fills a store, or a share of it: one run at a time, on whatever machine.

A lock is a note beside the store, because it must be there before the store is created and after it is deleted. It names its
owner, and when it was last touched is the owner's last sign of life. Each run makes a note of its own first and looks for others
then: of two that start at once, at least one sees the other, and steps back. As no two notes have the same name, whoever finds that
of a dead owner may remove it, and never removes another's. Dead is an owner on this machine of whom there is no process, and one on
another that gives no sign of life for five minutes.

Of a bucket this needs, as of a folder, that what was put is seen by all who look later, as in S3 since 2020 and what resembles it.
A sign of life puts the note again on the condition that it is there (If-Match), so that one that was removed does not come back.
"""

from __future__ import annotations

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

from sweeps.notes import Note, note, notes
from sweeps.place import Place, Refused
from sweeps.runtime import duration
from sweeps.store import StoreError

WHOLE, MAKING = "whole", "making"
"""Instead of a share's name: all of the store; and what runs of shares, each of which holds its own, do by turns: making it,
and saying that it is finished."""
LOCK = "lock-"
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
        """Whether some block is in both shares: every so many-th block belongs to one. Of runs that make the store there is one."""
        if MAKING in (self.share, share):
            return self.share == share
        (number, of), (other_number, other_of) = map(_numbers, (self.share, share))
        return (number - other_number) % math.gcd(of, other_of) == 0

    def is_dead(self, seconds_silent: float) -> bool:
        """Processes of this machine can be looked up; those of others are known by their signs of life alone."""
        if self.machine and self.machine == _machine():
            started = _started(self.pid)
            return started != self.started and not (started is None and _is_hidden(self.pid))
        return seconds_silent > SECONDS_TO_DEATH


class Lock:
    """The note by which this process holds a store; it is touched now and then until it is released."""

    def __init__(self, own: Note) -> None:
        self.note = own
        self._released = threading.Event()
        self._signs = threading.Thread(target=self._give_signs, daemon=True)
        self._signs.start()

    def check(self) -> None:
        """Makes sure that the store is still this run's (`check`)."""
        check(self.note)

    def release(self) -> None:
        self._released.set()
        self._signs.join()
        self.note.remove()

    def _give_signs(self) -> None:
        while not self._released.wait(SECONDS_BETWEEN_SIGNS):
            with suppress(OSError):  # a note that is gone is noticed before the next write, and a disk may come back
                self.note.touch()


def check(lock: Note) -> None:
    """Makes sure that a store is still held by the run whose lock this is, of this process or another.

    Raises:
        Locked: the note is gone. Another run may have taken this one for dead, as when its machine slept.
    """
    if not lock.is_there():
        raise Locked(f"{lock}: this run's lock is gone, so that another run may have begun; run the same command again to go on")


@contextmanager
def hold(store: Place, share: str = WHOLE) -> Iterator[Lock]:
    """Holds a store against all others, or one share of it against those who want the same share or the whole.

    Raises:
        Locked: another run holds it.
    """
    lock = Lock(_acquire(store.resolve() if isinstance(store, Path) else store, share))
    try:
        yield lock
    finally:
        lock.release()


def _acquire(store: Place, share: str) -> Note:
    for _ in range(ATTEMPTS - 1):
        with suppress(Locked):
            return _attempt(store, share)
        time.sleep(random.uniform(0.0, LONGEST_PAUSE))  # the other may have stepped back as well
    return _attempt(store, share)


def _attempt(store: Place, share: str) -> Note:
    own = _make_note(store, share)
    try:
        _look_for_others(store, share, own)
    except BaseException:
        own.remove()
        raise
    return own


def _make_note(store: Place, share: str) -> Note:
    """A lock of this process."""
    since = datetime.now(UTC).isoformat(timespec="seconds")
    owner = Owner(share, platform.node(), _machine(), os.getpid(), _started(os.getpid()), since)
    own = note(store, f"{LOCK}{uuid.uuid4().hex}")
    own.make(json.dumps(asdict(owner)))
    return own


def _look_for_others(store: Place, share: str, own: Note) -> None:
    """Refuses to hold the store beside those who hold it; removes the notes of the dead."""
    now = own.touched()  # by the clock of whoever keeps the notes, as are all signs of life
    for other in notes(store, LOCK):
        if str(other) != str(own):
            with suppress(FileNotFoundError):  # released just now
                owner, silent = _read(other), now - other.touched()
                if owner.is_dead(silent):
                    other.remove()
                elif owner.conflicts_with(share):
                    raise Locked(f"{store}: {_described(owner, silent)}")


def _read(lock: Note) -> Owner:
    try:
        return Owner(**json.loads(lock.read()))
    except (FileNotFoundError, Refused):
        raise
    except (ValueError, TypeError, OSError):
        raise Locked(f"{lock}: is no lock that can be read; where no run fills the store, delete it") from None


def _described(owner: Owner, seconds_silent: float) -> str:
    share = "" if owner.share in (WHOLE, MAKING) else f" (share {owner.share})"
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

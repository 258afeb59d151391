"""Locks of stores: who holds what against whom, and until when."""

import itertools
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from sweeps import lock
from sweeps.lock import MAKING, SECONDS_TO_DEATH, WHOLE, Locked, Owner, hold

HOLDER = """
import sys
from pathlib import Path
from sweeps.lock import hold
with hold(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""
RACER = """
import sys, time
from pathlib import Path
from sweeps.lock import Locked, hold
path = Path(sys.argv[1])
print("ready", flush=True)
sys.stdin.readline()
for _ in range(int(sys.argv[2])):
    try:
        with hold(path):
            inside = path.with_name("inside")
            inside.touch(exist_ok=False)
            time.sleep(0.001)
            inside.unlink()
            print("held", flush=True)
    except Locked:
        print("refused", flush=True)
"""


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return tmp_path / "s [1].zarr"


@contextmanager
def process(program: str, *arguments: object) -> Iterator[subprocess.Popen[str]]:
    """Another process, from its first line on; it ends with the block."""
    command = [sys.executable, "-c", program, *map(str, arguments)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as started:
        assert started.stdout and started.stdout.readline()
        yield started
        started.kill()


def files(store: Path) -> list[Path]:
    return list(store.parent.iterdir())


def leave(store: Path, owner: Owner, seconds_ago: float) -> Path:
    """The lock of such an owner, last touched so long ago."""
    path = store.with_name(f".{store.name}.lock-{seconds_ago}")
    path.symlink_to(json.dumps(vars(owner)))
    touch(path, time.time() - seconds_ago)
    return path


def touch(path: Path, then: float) -> None:
    os.utime(path, (then, then), follow_symlinks=False)


@pytest.fixture
def me(store: Path) -> Owner:
    """As this process describes itself."""
    with hold(store):
        (path,) = files(store)
        return Owner(**json.loads(os.readlink(path)))


class TestWho:
    @pytest.mark.parametrize(("first", "second"), list(itertools.product([WHOLE, "1/2", "2/2"], repeat=2)))
    def test_shares_stand_beside_each_other_and_nothing_else_does(self, store: Path, first: str, second: str):
        with hold(store, first), ExitStack() as both:
            if WHOLE in (first, second) or first == second:
                with pytest.raises(Locked, match="another run fills it"):
                    both.enter_context(hold(store, second))
            else:
                both.enter_context(hold(store, second))
        assert not files(store)

    def test_one_makes_the_store_whatever_share_it_fills(self, store: Path):
        with ExitStack() as held:
            for share in ("1/2", MAKING, "2/2"):
                held.enter_context(hold(store, share))
            with pytest.raises(Locked, match="another run fills it: process"):
                held.enter_context(hold(store, MAKING))

    def test_other_stores_are_free(self, tmp_path: Path):
        with hold(tmp_path / "a.zarr"), hold(tmp_path / "b.zarr"), hold(tmp_path / "a.zarr.lock-b"):
            assert len(files(tmp_path / "a.zarr")) == 3

    def test_another_way_to_the_same_store(self, store: Path):
        (store.parent / "link").symlink_to(store.parent)
        with hold(store), pytest.raises(Locked), hold(store.parent / "link" / store.name):
            pass

    def test_the_message_names_the_holder(self, store: Path):
        with process(HOLDER, store) as holder, pytest.raises(Locked) as refusal, hold(store):
            pass
        message = str(refusal.value)
        assert message.startswith(f"{store}: another run fills it: process {holder.pid} on {os.uname().nodename}, since 20")
        assert message.endswith("alive less than a second ago; wait for it, or stop it")

    def test_of_many_at_once_one_is_inside(self, store: Path):
        """None is ever beside another, and somebody always gets in."""
        rounds, racers = 20, 4
        with ExitStack() as all_of_them:
            started = [all_of_them.enter_context(process(RACER, store, rounds)) for _ in range(racers)]
            for racer in started:
                assert racer.stdin
                racer.stdin.write("go\n")
                racer.stdin.flush()
            said = [line for racer in started for line in itertools.islice(racer.stdout or (), rounds)]
            assert [racer.wait() for racer in started] == [0] * racers
        assert len(said) == rounds * racers
        assert said.count("held\n") >= racers
        assert not files(store)


class TestTheDead:
    def test_killed_it_holds_nothing(self, store: Path):
        with process(HOLDER, store) as holder:
            os.kill(holder.pid, signal.SIGKILL)
            while not Path(f"/proc/{holder.pid}/stat").read_text().rpartition(")")[2].startswith(" Z"):
                time.sleep(0.01)
            with hold(store):  # though nobody has asked yet how it ended
                assert len(files(store)) == 1
        assert not files(store)

    def test_a_later_process_of_the_same_number_is_another(self, store: Path, me: Owner):
        leave(store, replace(me, started="1"), 0)
        with hold(store):
            assert len(files(store)) == 1

    def test_on_this_machine_silence_is_no_sign_of_death(self, store: Path, me: Owner):
        leave(store, me, 10 * SECONDS_TO_DEATH)
        with pytest.raises(Locked, match="alive 50 minutes ago; wait"), hold(store):
            pass

    @pytest.mark.parametrize("machine", ["another boot", ""])
    def test_on_another_machine_it_is(self, store: Path, me: Owner, machine: str):
        elsewhere = replace(me, machine=machine, host="elsewhere")
        path = leave(store, elsewhere, SECONDS_TO_DEATH - 20)
        with pytest.raises(Locked, match=r"on elsewhere, .* counts as dead 5 minutes after its last sign of life"), hold(store):
            pass
        assert path.is_symlink()
        touch(path, time.time() - SECONDS_TO_DEATH - 20)
        with hold(store):
            assert len(files(store)) == 1

    @pytest.mark.parametrize("content", ["file", "{}", "elsewhere"])
    def test_what_cannot_be_read_is_told(self, store: Path, content: str):
        path = store.with_name(f".{store.name}.lock-1")
        path.touch() if content == "file" else path.symlink_to(content)
        with pytest.raises(Locked, match="is no lock that can be read; where no run fills the store, delete it"), hold(store):
            pass
        assert len(files(store)) == 1


class TestLife:
    def test_signs_of_life(self, store: Path, monkeypatch: pytest.MonkeyPatch):
        monkeypatch.setattr(lock, "SECONDS_BETWEEN_SIGNS", 0.01)
        with hold(store):
            (path,) = files(store)
            touch(path, 0)
            begun = time.monotonic()
            while path.lstat().st_mtime == 0:
                assert time.monotonic() < begun + 10
            assert time.time() - path.lstat().st_mtime < 5

    def test_a_lock_that_is_gone_is_noticed(self, store: Path):
        with hold(store) as held:
            held.check()
            files(store)[0].unlink()
            with pytest.raises(Locked, match="this run's lock is gone, so that another run may have begun"):
                held.check()

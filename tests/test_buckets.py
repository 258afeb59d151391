"""Stores in buckets, against an S3 server on loopback that fails when it is told to: they end as the same runs do on a disk."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
import urllib.request
import uuid
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from scripts.s3_server import SETTINGS, Server, make_bucket
from sweeps import cli, engine, extending, lock, place, runtime, store
from sweeps.dataset import open_store, variables
from sweeps.lock import WHOLE, Locked, Owner, hold
from sweeps.place import ObjectPath, PlaceError, Refused
from sweeps.share import Share
from sweeps.store import StoreError
from sweeps.viewer import server as server_of_pages
from tests.made_up import BLOCK, HARD, PATIENT, POINTS, assert_same_bits, games_made_up, loaded, make, retry, run

ROOT = Path(__file__).parent.parent
SPEC = make()
WITH_TIMES = ("zarr.json", "blocks/seconds/c/")
GRID = """\
model: {coupling: relative, x_max: 3, n_steps: 4}
parameters: {k: 1.5, eta: 0.01}
sweep: {A: [1.0, 3.0, 300.0], gamma: [0.02, 0.05], crowd_mean: [0.0, 1.0]}
outputs: {paths: false, gradients: [mean_spread]}
solver: {max_iterations: 100}
"""
WRITER = """
import sys
from sweeps.place import place
from tests.made_up import make, run
run(make(), place(sys.argv[1]), report=lambda progress: print(progress.done, flush=True))
"""
HOLDER = """
import sys
from sweeps.lock import hold
from sweeps.place import place
with hold(place(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture(scope="module")
def running() -> Iterator[Server]:
    with Server().running() as server, pytest.MonkeyPatch.context() as patch:
        for name, value in {**SETTINGS, "AWS_ENDPOINT_URL": server.address}.items():
            patch.setenv(name, value)
        yield server


@pytest.fixture
def server(running: Server) -> Iterator[Server]:
    """That serves all requests, until it is told not to."""
    running.done.clear()
    running.failed = 0
    yield running
    running.failures = 0.0
    running.forbids = lambda method, path: False


@pytest.fixture
def path(server: Server) -> ObjectPath:
    """Where nothing is, in a bucket of one's own."""
    bucket = f"bucket-{uuid.uuid4().hex}"
    make_bucket(server.address, bucket)
    return at(f"s3://{bucket}/some where/s.zarr")


def at(text: str) -> ObjectPath:
    found = place.place(text)
    assert isinstance(found, ObjectPath)
    return found


@pytest.fixture(scope="module")
def on_disk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same sweep in a folder."""
    folder = tmp_path_factory.mktemp("disk") / "s.zarr"
    run(SPEC, folder)
    return folder


@pytest.fixture(scope="module")
def recorded(running: Server) -> tuple[dict[str, bytes], list[str]]:
    """The same sweep in a bucket: its objects, and which were put, in order."""
    make_bucket(running.address, "first")
    path = at("s3://first/s.zarr")
    running.done.clear()
    run(SPEC, path)
    return contents(path), [name.removeprefix("/first/s.zarr/") for method, name in running.done if method == "PUT"]


@pytest.fixture
def finished(path: ObjectPath, recorded: tuple[dict[str, bytes], list[str]]) -> ObjectPath:
    """Such a store of one's own."""
    path.put_below(recorded[0])
    return path


def names(path: ObjectPath) -> list[str]:
    """Of all objects that begin with the name of a store, or are beside it."""
    return sorted(found.key for folder in (path, path.with_name(f".{path.name}")) for found in folder.below())


def contents(path: ObjectPath) -> dict[str, bytes]:
    return {found.key.removeprefix(f"{path.key}/"): found.read_bytes() for found in path.below()}


def assert_as_on_disk(path: ObjectPath, folder: Path) -> None:
    """The same files, those that hold no times with the same bytes, and nothing beside them."""
    expected = {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}
    found = contents(path)
    assert found.keys() == expected.keys()
    assert [name for name in expected if found[name] != expected[name] and not name.startswith(WITH_TIMES)] == []
    assert names(path) == sorted(f"{path.key}/{name}" for name in expected)
    assert "finished" in json.loads(found["zarr.json"])["attributes"]


class TestPlaces:
    def test_of_objects(self, path: ObjectPath):
        assert place.place("some/s.zarr") == Path("some/s.zarr")
        assert at(f"s3://{path.bucket}/a/b.zarr/") == at(f"s3://{path.bucket}/a") / "b.zarr"
        assert str(path / "c/0") == f"s3://{path.bucket}/some where/s.zarr/c/0"
        assert (path.name, path.with_name("t").key) == ("s.zarr", "some where/t")
        assert at("s3://bucket/s.zarr").with_name("t").key == "t"

    @pytest.mark.parametrize(
        "text", ["s3://", "s3://bucket", "s3://bucket/", "s3:///a", "s3://b/a//b", "s3://b/../a", "gs://b/a", "://a"]
    )
    def test_what_is_none(self, text: str):
        with pytest.raises(PlaceError, match=re.escape(f"found {text!r}; allowed: a path, or s3://BUCKET/NAME")):
            place.place(text)

    def test_without_obstore(self, monkeypatch: pytest.MonkeyPatch):
        monkeypatch.setitem(sys.modules, "obstore.store", None)
        with pytest.raises(PlaceError, match=r"obstore is missing; install it with: .* -m pip install 'mfg-jax\[s3\]'"):
            place.place("s3://bucket/a")


class TestRuns:
    def test_among_failures_it_comes_to_the_same_bits(self, path: ObjectPath, server: Server, on_disk: Path):
        server.failures = 0.05
        progress, asked_for = run(SPEC, path)
        assert progress.done == len(asked_for) == POINTS
        assert server.failed > 5
        server.failures = 0.0
        assert_as_on_disk(path, on_disk)
        assert_same_bits(loaded(path), loaded(on_disk))

    def test_a_finished_store_is_left_alone(self, finished: ObjectPath):
        before = contents(finished)
        assert run(SPEC, finished)[1] == []
        assert contents(finished) == before

    def test_of_a_killed_writer_nothing_is_lost(self, path: ObjectPath, server: Server, on_disk: Path):
        """Killed among failures while it writes its second block; what is done is not solved again."""
        server.failures = 0.05
        command = [sys.executable, "-c", WRITER, str(path)]
        with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as writer:
            assert writer.stdout
            while writer.stdout.readline().strip() != str(2 * BLOCK):
                assert writer.poll() is None
            writer.kill()
        assert writer.returncode == -signal.SIGKILL
        done = loaded(path)["status"].values.ravel() != 0
        assert BLOCK <= done.sum() < POINTS
        _, asked_for = run(SPEC, path)
        assert len(asked_for) == POINTS - done.sum()
        server.failures = 0.0
        assert_as_on_disk(path, on_disk)

    def test_status_comes_after_all_else(self, recorded: tuple[dict[str, bytes], list[str]]):
        for number in range(1, POINTS // BLOCK):
            written = [name for name in recorded[1] if re.search(f"/c/{number}(/0)*$", name)]
            assert [name.startswith("status/") for name in written] == [False] * (len(written) - 1) + [True]
            assert len(written) == len(set(written)) == len(list(variables(SPEC))) + len(["status", "blocks/seconds"])

    def test_a_block_whose_write_fails_stays_pending(self, path: ObjectPath, server: Server, on_disk: Path):
        server.forbids = lambda method, name: method == "PUT" and "/mean_spread/c/1" in name
        with pytest.raises(StoreError, match=r"refuses these credentials .+; what was done is kept, and the same command"):
            run(SPEC, path)
        assert ((loaded(path)["status"] != 0).values.ravel() == [True] * BLOCK + [False] * (POINTS - BLOCK)).all()
        server.forbids = lambda method, name: False
        assert len(run(SPEC, path)[1]) == POINTS - BLOCK
        assert_as_on_disk(path, on_disk)

    def test_only_so_often_it_tries(self, path: ObjectPath, server: Server, monkeypatch: pytest.MonkeyPatch):
        monkeypatch.setattr(place, "RETRIES", {"max_retries": 2, "retry_timeout": timedelta(minutes=2)})
        server.failures = 1.0
        with pytest.raises(Refused, match=f"^{path}: the object store does not answer as it should: .* after 2 retries"):
            at(str(path)).put(b"1")
        assert server.failed == 3

    def test_shares(self, path: ObjectPath, on_disk: Path):
        """As if who made the store had been killed when it was whole, and its mark still there."""
        run(SPEC, path, share=Share(2, 3))
        (path.with_name(".s.zarr") / "unfinished").put(b"")
        with hold(path, Share(3, 3).name):
            run(SPEC, path, share=Share(1, 3))
            with pytest.raises(Locked, match=r"another run fills it \(share 3/3\)"):
                run(SPEC, path)
        assert len(run(SPEC, path)[1]) == BLOCK
        assert_as_on_disk(path, on_disk)

    def test_games_that_are_retried(self, finished: ObjectPath, on_disk: Path, tmp_path: Path):
        folder = shutil.copytree(on_disk, tmp_path / "s.zarr")
        for where in (finished, folder):
            assert retry(PATIENT, where)[0].statuses == {"converged": HARD}
        assert_same_bits(loaded(finished), loaded(folder))
        assert (loaded(finished)["attempt"] == 1).sum() == HARD

    def test_no_extension(self, finished: ObjectPath):
        larger = make(sweep={"A": [1.0, 3.0, 300.0, 4.0], "gamma": [0.02, 0.05], "crowd_mean": [0.0, 1.0]})
        before = contents(finished)
        with pytest.raises(StoreError, match="stores in buckets cannot be extended, as nothing is renamed there"):
            extending.extend(larger, finished)
        assert contents(finished) == before

    def test_a_store_is_replaced_on_demand_only(self, finished: ObjectPath):
        other, before = make(outputs={"paths": False}), contents(finished)
        with pytest.raises(StoreError, match="was made by another spec"):
            run(other, finished)
        assert contents(finished) == before
        assert run(other, finished, fresh=True)[0].done == POINTS
        was, now = ({name.split("/")[0] for name in of} for of in (before, contents(finished)))
        assert was - now == {"d_mean_spread", "differentiated", "parameter"}

    @pytest.mark.parametrize("left", ["thesis.tex", "zarr.json"])
    def test_what_is_no_store_is_left_alone(self, path: ObjectPath, left: str):
        (path / left).put(b'{"zarr_format": 3, "node_type": "group", "attributes": {}}')
        for fresh in (False, True):
            with pytest.raises(StoreError, match=r"s\.zarr: exists and is no store of mfgsweep; name another path"):
                run(SPEC, path, fresh=fresh)
        assert names(path) == [f"{path.key}/{left}"]


class TestWhatIsBrokenOff:
    """A store is there from when it is whole, and until its deletion begins; what else is left goes with the next run."""

    @pytest.mark.parametrize("puts", [2, 30])
    def test_its_making(self, path: ObjectPath, server: Server, on_disk: Path, puts: int):
        """After so many puts, of which the first are of the lock and the mark; the next run is of another sweep."""
        left = [puts]

        def forbids(method: str, name: str) -> bool:
            left[0] -= method == "PUT"
            return method == "PUT" and left[0] < 0

        server.forbids = forbids
        with pytest.raises(StoreError, match="refuses these credentials"):
            run(make(outputs={"paths": True}), path)
        server.forbids = lambda method, name: False
        assert len(path.below()) == puts - 2
        with pytest.raises(FileNotFoundError, match="no such store"):
            open_store(path)
        with pytest.raises(StoreError, match="no such store"):
            store.open_existing(path)
        run(SPEC, path)
        assert_as_on_disk(path, on_disk)

    @pytest.mark.parametrize(("deletions", "there"), [(0, True), (1, False)])
    def test_its_deletion(self, finished: ObjectPath, server: Server, deletions: int, there: bool):
        """Before and after that of its own zarr.json."""
        path, before, left = finished, contents(finished), [deletions]

        def forbids(method: str, name: str) -> bool:
            left[0] -= method == "POST"
            return method == "POST" and left[0] == -1

        server.forbids = forbids
        with pytest.raises(Refused, match="refuses these credentials"):
            store.delete(path)
        assert path.exists() == there
        assert contents(path) == {name: content for name, content in before.items() if there or name != "zarr.json"}
        with hold(path):
            store.settle(path)
        assert contents(path) == (before if there else {})
        assert names(path) == [found.key for found in path.below()]


class TestLocks:
    @pytest.fixture
    def me(self, path: ObjectPath) -> Owner:
        """As this process describes itself."""
        with hold(path):
            (found,) = path.with_name(".s.zarr").below()
            return Owner(**json.loads(found.read_bytes()))

    def leave(self, path: ObjectPath, owner: Owner) -> ObjectPath:
        left = path.with_name(".s.zarr") / "lock-1"
        left.put(json.dumps(vars(owner)).encode())
        return left

    @pytest.mark.parametrize(("first", "second"), [(WHOLE, WHOLE), (WHOLE, "1/2"), ("1/2", "1/2"), ("1/2", "2/2")])
    def test_one_at_a_time(self, path: ObjectPath, first: str, second: str):
        with hold(path, first):
            if (first, second) == ("1/2", "2/2"):
                with hold(path, second):
                    assert len(names(path)) == 2
            else:
                with pytest.raises(Locked, match=f"^{path}: another run fills it"), hold(path, second):
                    pass
        assert names(path) == []

    def test_of_many_at_once_one_is_inside(self, path: ObjectPath, server: Server):
        server.failures = 0.02
        inside, most, entered = 0, 0, 0
        counting = threading.Lock()

        def race() -> None:
            nonlocal inside, most, entered
            for _ in range(4):
                try:
                    with hold(path):
                        with counting:
                            inside, entered = inside + 1, entered + 1
                            most = max(most, inside)
                        time.sleep(0.005)
                        with counting:
                            inside -= 1
                except Locked:
                    pass

        racers = [threading.Thread(target=race) for _ in range(4)]
        for racer in racers:
            racer.start()
        for racer in racers:
            racer.join()
        assert most == 1 and entered >= 4
        assert names(path) == []

    def test_killed_it_holds_nothing(self, path: ObjectPath):
        command = [sys.executable, "-c", HOLDER, str(path)]
        with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
            assert holder.stdout and holder.stdout.readline() == "held\n"
            with pytest.raises(Locked, match=f"process {holder.pid} on {os.uname().nodename}, since 20"), hold(path):
                pass
            holder.kill()
        with hold(path):
            assert len(names(path)) == 1
        assert names(path) == []

    def test_on_another_machine_silence_is_death(self, path: ObjectPath, me: Owner, monkeypatch: pytest.MonkeyPatch):
        left = self.leave(path, replace(me, machine="another boot", host="elsewhere"))
        with pytest.raises(Locked, match=r"on elsewhere, .* counts as dead 5 minutes after its last sign of life"), hold(path):
            pass
        assert left.exists()
        monkeypatch.setattr(lock, "SECONDS_TO_DEATH", -1.0)
        with hold(path):
            assert not left.exists()

    def test_on_this_machine_it_is_not(self, path: ObjectPath, me: Owner, monkeypatch: pytest.MonkeyPatch):
        self.leave(path, me)
        monkeypatch.setattr(lock, "SECONDS_TO_DEATH", -1.0)
        with pytest.raises(Locked, match="another run fills it"), hold(path):
            pass

    def test_signs_of_life(self, path: ObjectPath, monkeypatch: pytest.MonkeyPatch, server: Server):
        """Which do not bring back what was removed."""
        monkeypatch.setattr(lock, "SECONDS_BETWEEN_SIGNS", 0.01)
        with hold(path) as held:
            (own,) = path.with_name(".s.zarr").below()
            first = own.about()
            begun = time.monotonic()
            while own.about() == first:  # by the second
                assert time.monotonic() < begun + 10
            held.check()
            own.remove()
            server.done.clear()
            while len([method for method, name in server.done if method == "HEAD"]) < 4:
                assert time.monotonic() < begun + 20
            with pytest.raises(Locked, match="this run's lock is gone, so that another run may have begun"):
                held.check()
        assert not own.exists()

    def test_what_is_touched_when_it_has_just_been_removed_stays_away(self, path: ObjectPath, monkeypatch: pytest.MonkeyPatch):
        path.put(b"1")
        read = ObjectPath.read_bytes

        def remove_then(of: ObjectPath) -> bytes:
            content = read(of)
            of.remove()
            return content

        monkeypatch.setattr(ObjectPath, "read_bytes", remove_then)
        with pytest.raises(Refused):
            path.touch()
        assert not path.exists()
        path.touch()

    def test_a_lock_that_is_lost_stops_the_run(self, path: ObjectPath):
        def lose(progress: engine.Progress) -> None:
            for found in path.with_name(".s.zarr").below():
                found.remove()

        with pytest.raises(Locked, match="this run's lock is gone"):
            run(SPEC, path, report=lose)
        assert (loaded(path)["status"] == 0).all()

    def test_what_cannot_be_read_is_told(self, path: ObjectPath):
        (path.with_name(".s.zarr") / "lock-1").put(b"{}")
        with (
            pytest.raises(Locked, match="lock-1: is no lock that can be read; where no run fills"),
            hold(path),
        ):
            pass


def mfgsweep(*arguments: object) -> Result:
    with games_made_up():
        return CliRunner().invoke(cli.app, list(map(str, arguments)), catch_exceptions=False)


def refusal(*arguments: object) -> str:
    """The one line that a command prints when it refuses."""
    result = mfgsweep(*arguments)
    assert (result.exit_code, result.stdout, result.stderr.count("\n")) == (2, "", 1)
    return result.stderr.strip()


@pytest.fixture
def grid(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(runtime, "nvidia_driver", lambda: None)
    (tmp_path / "grid.yaml").write_text(GRID)
    return tmp_path / "grid.yaml"


class TestCommands:
    def test_on_a_store_in_a_bucket(self, path: ObjectPath, grid: Path, server: Server):
        grid.write_text(f"{GRID}store: {path}\n")
        said = mfgsweep("run", grid)
        assert said.exit_code == 0
        assert f'open it     from sweeps.dataset import open_store; ds = open_store("{path}")' in said.stdout
        with open_store(str(path)) as dataset:
            assert (dataset["status"] != 0).all()
        assert "progress    12 of 12 games (100.0 %)" in mfgsweep("info", path).stdout
        said = mfgsweep("verify", path, "--sample", 3)
        assert said.exit_code == 0 and "solved again, bit for bit" in said.stdout
        assert mfgsweep("export", path, "-o", grid.with_name("s.csv")).exit_code == 0
        assert len(grid.with_name("s.csv").read_text().splitlines()) == 1 + POINTS
        assert "mean_spread" in mfgsweep("sensitivity", path).stdout
        for command in (("report", path), ("plot", path, "mean_spread", "--at", "crowd_mean=0")):
            output = grid.with_name(f"{command[0]}.{'html' if command[0] == 'report' else 'png'}")
            assert mfgsweep(*command, "-o", output).exit_code == 0
            assert output.stat().st_size
        watched = server_of_pages.Watched(path)
        before = watched.version, watched.gallery
        watched.current()
        assert (watched.version, watched.gallery) == before
        assert "cannot be extended" in refusal("extend", path, grid)

    def test_damage_is_told(self, finished: ObjectPath, grid: Path):
        path = finished
        (damaged,) = [found for found in path.below() if "/mean_spread/c/1" in found.key]
        content = bytearray(damaged.read_bytes())
        content[len(content) // 2] ^= 1
        damaged.put(bytes(content))
        said = mfgsweep("verify", path, "--sample", 0)
        assert said.exit_code == 2 and f"{damaged}: cannot be read" in said.stderr
        assert "is damaged" in refusal("export", path, "-o", grid.with_name("s.csv"))
        damaged.remove()
        assert f"{damaged}: missing" in mfgsweep("verify", path, "--sample", 0).stderr

    COMMANDS = (("run", "GRID", "--out"), ("info",), ("verify",), ("export", "-o", "s.csv"), ("sensitivity",))

    def refusals(self, grid: Path, where: object) -> set[str]:
        """Of all commands."""
        return {refusal(*(grid if word == "GRID" else word for word in command), where) for command in self.COMMANDS}

    def test_no_bucket(self, path: ObjectPath, grid: Path):
        where = f"s3://{path.bucket}-not/s.zarr"
        messages = self.refusals(grid, where)
        assert {message.split("; ")[0].split(": ")[-1] for message in messages} == {"there is no such bucket"}

    def test_no_store(self, path: ObjectPath, grid: Path):
        for command in self.COMMANDS[1:]:
            assert refusal(*command, path) == f"mfgsweep: {path}: no such store; `mfgsweep run GRID.yaml` makes one"
        assert "no such store" in refusal("run", grid, "--resume", "--out", path)

    def test_credentials_that_are_refused(self, finished: ObjectPath, grid: Path, server: Server):
        server.forbids = lambda method, name: True
        for message in self.refusals(grid, finished):
            assert "the object store refuses these credentials (AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY)" in message

    def test_nobody_answers(self, path: ObjectPath, grid: Path, monkeypatch: pytest.MonkeyPatch):
        monkeypatch.setattr(place, "RETRIES", {"max_retries": 1})
        monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
        for message in self.refusals(grid, path):
            assert path.bucket in message and "the object store does not answer as it should" in message

    def test_http_that_is_not_allowed(self, path: ObjectPath, grid: Path, monkeypatch: pytest.MonkeyPatch):
        monkeypatch.setenv("AWS_ALLOW_HTTP", "false")
        assert refusal("info", path).endswith("one that begins with http:// needs AWS_ALLOW_HTTP=true")

    @pytest.mark.parametrize("command", [("run", "GRID", "--out"), ("info",), ("verify",)])
    def test_another_kind_of_place(self, grid: Path, command: tuple[str, ...]):
        message = refusal(*(grid if word == "GRID" else word for word in command), "gs://bucket/s.zarr")
        assert message == "mfgsweep: the store: found 'gs://bucket/s.zarr'; allowed: a path, or s3://BUCKET/NAME"

    def test_a_bucket_that_vanishes(self, path: ObjectPath, server: Server):
        def vanish(progress: engine.Progress) -> None:
            if progress.done > BLOCK:
                urllib.request.urlopen(urllib.request.Request(f"{server.address}/moto-api/reset", method="POST")).close()

        with pytest.raises(StoreError, match="there is no such bucket; what was done is kept"):
            run(SPEC, path, report=vanish)

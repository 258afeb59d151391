"""Runs that fill one store side by side, each a share of its blocks."""

import subprocess
import sys
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from sweeps import engine, lock
from sweeps.engine import Interrupted
from sweeps.share import ALL, Share, share_named
from sweeps.store import Block, StoreError, open_existing
from tests.made_up import BLOCK, POINTS, assert_same_bits, games_made_up, loaded, make, run

SPEC = make()

SIDE_BY_SIDE = """
import sys
from pathlib import Path
from sweeps.share import share_named
from tests.made_up import make, run
print("ready", flush=True)
sys.stdin.readline()
run(make(), Path(sys.argv[1]), share=share_named(sys.argv[2]))
"""


def test_every_block_belongs_to_one_share():
    blocks = [Block(number, 0, 1, ()) for number in range(20)]
    for of in range(1, 24):
        owners = Counter(block.number for n in range(1, of + 1) for block in filter(Share(n, of).owns, blocks))
        assert owners == Counter(range(20))
    assert ALL.is_whole and all(map(ALL.owns, blocks))


@pytest.mark.parametrize("text", ["", "3", "0/4", "5/4", "-1/4", "1/0", "1/2/3", "a/b", "1.0/2"])
def test_what_is_no_share(text: str):
    with pytest.raises(ValueError, match="allowed: N/M, such as 3/16, with N from 1 to M"):
        share_named(text)


def test_one_after_the_other(tmp_path: Path):
    """As bits they make the store that one run makes, and only the last calls it finished."""
    run(SPEC, tmp_path / "whole.zarr")
    path = tmp_path / "s.zarr"
    for number, games in ((2, BLOCK), (1, BLOCK), (3, BLOCK)):
        assert "finished" not in (loaded(path).attrs if path.exists() else {})
        progress, asked_for = run(SPEC, path, share=Share(number, 3))
        assert len(asked_for) == progress.points == progress.done == games
    assert loaded(path).attrs["finished"]
    assert_same_bits(loaded(path), loaded(tmp_path / "whole.zarr"))


def test_what_a_share_left_a_whole_run_completes(tmp_path: Path):
    path = tmp_path / "s.zarr"
    run(SPEC, path, share=Share(1, 2))
    assert len(open_existing(path).pending_blocks()) == 1
    progress, asked_for = run(SPEC, path)
    assert (progress.done_before, len(asked_for)) == (POINTS - BLOCK, BLOCK)


def test_more_shares_than_blocks(tmp_path: Path):
    progress, asked_for = run(SPEC, tmp_path / "s.zarr", share=Share(7, 9))
    assert (progress.points, asked_for) == (0, [])


def test_all_at_once(tmp_path: Path):
    """Processes that find no store when they start: one makes it, and all fill it."""
    run(SPEC, tmp_path / "whole.zarr")
    path, root = tmp_path / "s.zarr", Path(__file__).parent.parent
    command = [sys.executable, "-c", SIDE_BY_SIDE, str(path)]
    started = [
        subprocess.Popen([*command, f"{n}/3"], cwd=root, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for n in (1, 2, 3)
    ]
    for process in started:
        assert process.stdout and process.stdout.readline() == "ready\n"
    for process in started:
        assert process.stdin
        process.stdin.write("go\n")
        process.stdin.flush()
    for process in started:
        process.communicate()
        assert process.returncode == 0
    assert_same_bits(loaded(path), loaded(tmp_path / "whole.zarr"))
    assert loaded(path).attrs["finished"]
    assert [entry.name for entry in tmp_path.iterdir() if entry.name.startswith(".")] == []


def test_the_same_share_twice_or_the_whole_beside_a_share(tmp_path: Path):
    path = tmp_path / "s.zarr"
    run(SPEC, path, share=Share(1, 3))
    with lock.hold(path, Share(2, 3).name):
        for share in (Share(2, 3), ALL):
            with pytest.raises(StoreError, match=r"another run fills it \(share 2/3\)"):
                run(SPEC, path, share=share)
        run(SPEC, path, share=Share(3, 3))


def test_who_waits_for_a_store_to_be_made_can_be_stopped(tmp_path: Path):
    stop = threading.Event()
    stop.set()
    with lock.hold(tmp_path / "s.zarr", lock.MAKING), games_made_up(), pytest.raises(Interrupted):
        engine.run(SPEC, tmp_path / "s.zarr", stop=stop, share=Share(1, 2))


def test_who_finds_the_store_just_made_does_not_mind_its_maker(tmp_path: Path):
    """Who makes it holds on to that for a moment longer; the others go on at once."""
    path = tmp_path / "s.zarr"
    run(SPEC, tmp_path / "made.zarr", share=Share(1, 2))
    with lock.hold(path, "1/2"), lock.hold(path, lock.MAKING), ThreadPoolExecutor() as pool:
        other = pool.submit(run, SPEC, path, share=Share(2, 2))
        with pytest.raises(TimeoutError):
            other.result(timeout=1.0)
        (tmp_path / "made.zarr").rename(path)
        progress, _ = other.result(timeout=60.0)
    assert progress.done == progress.points
    assert "finished" not in loaded(path).attrs  # which its maker is about to say
    run(SPEC, path, share=Share(1, 2))
    assert loaded(path).attrs["finished"]


def test_a_share_does_not_begin_anew_where_an_extension_was_broken_off(tmp_path: Path):
    """Between its two renames there is nothing at the path, and all of the store beside it."""
    path = tmp_path / "s.zarr"
    run(SPEC, path)
    path.rename(path.with_name(".s.zarr.replaced"))
    progress, asked_for = run(SPEC, path, share=Share(1, 3))
    assert (progress.done_before, asked_for) == (BLOCK, [])
    assert [entry.name for entry in tmp_path.iterdir()] == ["s.zarr"]


@pytest.mark.parametrize("count", [(1, 2, 3, 4, 6, 8)])
def test_shares_conflict_where_they_have_a_block_in_common(count: tuple[int, ...]):
    shares = [Share(number, of) for of in count for number in range(1, of + 1)]
    blocks = [Block(number, 0, 1, ()) for number in range(24)]
    for one in shares:
        owner = lock.Owner(one.name, "host", "", 1, None, "now")
        for other in shares:
            common = any(one.owns(block) and other.owns(block) for block in blocks)
            assert owner.conflicts_with(other.name) == common


def test_the_last_share_removes_what_killed_ones_left(tmp_path: Path):
    path = tmp_path / "s.zarr"
    run(SPEC, path, share=Share(1, 2))
    strays = [path / "mean_spread" / "c" / "0.0123456789abcdef.partial", path / "zarr.0123456789abcdef.partial"]
    for stray in strays:
        stray.write_text("half")
    run(SPEC, path, share=Share(1, 2))
    assert all(stray.exists() for stray in strays)  # the other share may be writing them
    run(SPEC, path, share=Share(2, 2))
    assert not any(stray.exists() for stray in strays)


def test_what_is_no_store_is_left_as_it_is(tmp_path: Path):
    """Whatever its files are called, and those beside it."""
    folder, beside = tmp_path / "downloads", tmp_path / ".downloads.old"
    for place in (folder / "sub", beside):
        place.mkdir(parents=True)
        (place / "thesis.partial").write_text("years of work")
    for share in (ALL, Share(1, 2)):
        with pytest.raises(StoreError, match="exists and is no store of mfgsweep"):
            run(SPEC, folder, share=share)
    assert (folder / "sub" / "thesis.partial").exists() and (beside / "thesis.partial").exists()

"""What `mfgsweep verify` finds: nothing in a whole store, and each thing that is done to one."""

import errno
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from typer.testing import CliRunner

from sweeps import cli, extending, runtime, verification
from sweeps.kinds import Column
from sweeps.store import Store, StoreError, open_existing, open_whole
from sweeps.verification import Verification
from tests.made_up import (
    BLOCK,
    HARD,
    PATIENT,
    POINTS,
    assert_same_bits,
    contents,
    fixtures_of,
    games_made_up,
    loaded,
    make,
    retry,
    run,
)

SPEC = make(outputs={"paths": True})
finished, path = fixtures_of(SPEC)


def verify(path: Path, sample: int = POINTS) -> Verification:
    """A check that also sees that nothing is written."""
    before = contents(path)
    with games_made_up() as asked_for:
        found = verification.verify(path, sample)
    assert contents(path) == before
    assert len(asked_for) == sum(int(check.looked_at.split()[0]) for check in found.checks if "again" in check.what)
    return found


def array_of(path: Path, name: str) -> Any:
    return zarr.open_group(path, mode="r+", use_consolidated=False)[name]


def change(path: Path, name: str, point: int, value: float) -> None:
    array = array_of(path, name)
    array[(*np.unravel_index(point, array.shape[:3]), ...)] = value


def change_attributes(path: Path, **changes: Any) -> None:
    Store(path).update_attributes(changes)
    Store(path).consolidate()


def wrong(path: Path, sample: int = POINTS) -> list[str]:
    found = verify(path, sample)
    assert sum(check.wrong for check in found.checks) >= bool(found.wrong)
    return found.wrong


class TestWholeStores:
    def test_finished(self, finished: Path):
        found = verify(finished, sample=5)
        assert found.wrong == [] and not any(check.wrong for check in found.checks)
        assert [(check.what, check.looked_at) for check in found.checks][2:] == [
            ("statuses are known", "12 games, of which 0 pending"),
            ("equilibria are complete", "8 converged games"),
            ("mass_error is at most 1e-09", "8 converged games"),
            ("solved again, bit for bit", "5 of 12 games"),
        ]
        files = sum(1 for name in contents(finished) if "/c/" in name and not name.startswith("blocks/"))
        assert found.checks[1][:2] == ("files can be read", f"{files} of {len(open_existing(finished).names)} variables")

    def test_without_a_sample(self, finished: Path):
        found = verify(finished, sample=0)
        assert found.wrong == [] and "again" not in found.table()

    def test_unfinished(self, path: Path):
        target = open_existing(path)
        for part in target.parts(np.arange(POINTS).reshape(target.shape) < 6):
            target.write_part(part, {"status": np.zeros(len(part))})
        found = verify(path)
        assert found.wrong == []
        assert ("statuses are known", "12 games, of which 6 pending", 0) in found.checks
        assert ("solved again, bit for bit", "6 of 12 games", 0) in found.checks

    def test_not_begun(self, path: Path):
        target = open_existing(path)
        for part in target.parts(np.ones(target.shape, bool)):
            target.write_part(part, {"status": np.zeros(len(part))})
        assert wrong(path) == []

    def test_retried(self, path: Path):
        """Each game with the settings of its attempt."""
        retry(PATIENT.model_copy(update={"outputs": SPEC.outputs}), path)
        found = verify(path)
        assert found.wrong == []
        assert found.checks[-2:] == [
            ("solved again, bit for bit", f"{POINTS - HARD} of {POINTS - HARD} games", 0),
            ("solved again, bit for bit", f"{HARD} of {HARD} games by attempt 1", 0),
        ]

    @pytest.mark.parametrize(("changes", "how"), [({"sweep": SPEC.sweep | {"A": [300.0, 2.0, 1.0, 3.0]}}, "bit"), ({}, "to 1e-06")])
    def test_extended(self, path: Path, changes: dict[str, Any], how: str):
        larger = make(**changes, outputs={"paths": True, "surfaces": not changes})
        with games_made_up():
            extending.extend(larger, path)
        run(larger, path)
        found = verify(path, sample=100)
        assert found.wrong == [] and found.checks[-1].what.startswith(f"solved again, {how}")

    @pytest.mark.parametrize("outputs", [{"dtype": "float32"}, {"precision": 1e-3}])
    def test_with_fewer_digits(self, tmp_path: Path, outputs: dict[str, Any]):
        run(make(outputs={"paths": False, **outputs}), tmp_path / "s.zarr")
        found = verify(tmp_path / "s.zarr")
        assert found.wrong == [] and found.checks[-1] == ("solved again, bit for bit", "12 of 12 games", 0)


class TestWhatIsFound:
    def test_a_file_that_cannot_be_read(self, path: Path):
        """All the others are, and all other variables are compared."""
        file = path / "mean_spread" / "c" / "1" / "0" / "0"
        file.write_bytes(file.read_bytes()[:-5])
        change(path, "closing_spread", 7, 0.25)
        first, second = wrong(path)
        assert first.startswith(f"{file}: cannot be read: ")
        assert second == "closing_spread of the game A 3.0, gamma 0.05, crowd_mean 1.0: solved again, it is another"

    @pytest.mark.parametrize("name", ["status", "gamma"])
    def test_a_file_that_everything_hangs_on(self, path: Path, name: str):
        file = next(file for file in sorted((path / name / "c").rglob("*")) if file.is_file())
        file.write_bytes(b"")
        assert any(line.startswith(f"{file}: cannot be read: ") for line in wrong(path))

    def test_a_bit_that_flips(self, path: Path):
        file = path / "mean_spread" / "c" / "1" / "0" / "0"
        content = bytearray(file.read_bytes())
        content[len(content) // 2] ^= 1
        file.write_bytes(content)
        (line,) = wrong(path)
        assert line.startswith(f"{file}: cannot be read: ")

    def test_a_hundred_bits_that_flip(self, path: Path):
        """Wherever in the files of numbers; and nobody reads any of them as other numbers."""
        numbers = np.random.default_rng(0)
        files = [file for file in sorted(path.rglob("*")) if file.is_file() and file.name != "zarr.json"]
        for _ in range(100):
            file = files[numbers.integers(len(files))]
            content = bytearray(as_it_was := file.read_bytes())
            content[numbers.integers(len(content))] ^= 1 << numbers.integers(8)
            file.write_bytes(content)
            assert any("cannot be read" in line for line in wrong(path, 0))
            name = str(file.relative_to(path)).partition("/c/")[0]
            with pytest.raises(ValueError, match="checksum"):
                zarr.open_array(path, path=name, mode="r")[...]
            file.write_bytes(as_it_was)
        assert wrong(path, 0) == []

    @pytest.mark.parametrize("damage", [Path.unlink, lambda file: file.write_bytes(file.read_bytes()[:-1] + b"?")])
    def test_what_cannot_be_read_is_mended_by_deleting_what_it_says(self, path: Path, damage: Callable[[Path], object]):
        before = loaded(path)
        damage(path / "mean_spread" / "c" / "1" / "0" / "0")
        (of_status,) = verify(path, 0).mended_by
        assert isinstance(of_status, Path)
        of_status.unlink()
        progress, asked_for = run(SPEC, path)
        assert progress.done == len(asked_for) == BLOCK
        assert wrong(path) == []
        assert_same_bits(loaded(path), before)

    def test_what_is_lost_of_a_retry_is_solved_as_the_run_does(self, path: Path):
        """Deleted with its status, the block is one of the run again, whose hard games do not converge."""
        before = loaded(path)
        retry(PATIENT.model_copy(update={"outputs": SPEC.outputs}), path)
        of_attempt = path / "attempt" / "c" / "2" / "0" / "0"
        of_attempt.write_bytes(of_attempt.read_bytes()[:-1] + b"?")
        (of_status,) = verify(path, 0).mended_by
        assert isinstance(of_status, Path)
        of_status.unlink()
        assert run(SPEC, path)[0].done == BLOCK
        found = loaded(path)
        assert (found["attempt"] == 0).all()
        assert_same_bits(found.drop_vars("attempt"), before)
        assert wrong(path) == []

    def test_what_is_broken_off_while_it_is_mended_is_kept(self, path: Path):
        """One after the other, whatever the damaged file holds."""
        before = loaded(path)
        damaged = path / "mean_spread" / "c" / "1" / "0" / "0"
        damaged.write_bytes(b"?" * 40)
        (path / "status" / "c" / "1" / "0" / "0").unlink()
        target = open_existing(path)
        (part,) = target.parts(target.statuses() == 0)
        for place in range(BLOCK):
            game = part.some(np.arange(BLOCK) == place)
            at = np.unravel_index(game.points[0], target.shape)
            target.write_part(game, {str(name): values.values[at][None] for name, values in before.data_vars.items()})
        assert_same_bits(loaded(path), before)

    def test_several_things_at_once(self, path: Path):
        (path / "mean_spread" / "c" / "1" / "0" / "0").unlink()
        (path / "gamma" / "c" / "0").unlink()
        of_status = path / "status" / "c" / "0" / "0" / "0"
        of_status.write_bytes(b"")
        found = wrong(path, 0)
        assert f"{path}/mean_spread/c/1/0/0: missing" in found and f"{path}/gamma/c/0: missing" in found
        assert any(line.startswith(f"{of_status}: cannot be read: ") for line in found)

    def test_a_folder_that_cannot_be_read(self, path: Path, monkeypatch: pytest.MonkeyPatch):
        """It is not held to be empty."""
        scan = os.scandir

        def fail(folder: Any) -> Any:
            if str(folder).endswith("mean_spread"):
                raise OSError(errno.EIO, os.strerror(errno.EIO), str(folder))
            return scan(folder)

        monkeypatch.setattr(os, "scandir", fail)
        with pytest.raises(StoreError, match=f"mean_spread: cannot be read: {os.strerror(errno.EIO)}"):
            open_whole(path)

    def test_a_file_that_is_lost(self, path: Path):
        (path / "full_spread" / "c" / "0" / "0" / "0" / "0").unlink()
        (path / "half_life" / "c" / "1" / "0" / "0").unlink()
        assert wrong(path, 0) == [f"{path}/full_spread/c/0/0/0/0: missing", f"{path}/half_life/c/1/0/0: missing"]

    def test_a_variable_that_is_lost(self, path: Path):
        shutil.rmtree(path / "peak_time")
        with pytest.raises(StoreError, match=r"peak_time/zarr.json: is damaged: it is missing"):
            verify(path)

    def test_numbers_that_are_missing(self, path: Path):
        change(path, "mean_spread", 6, np.nan)
        change(path, "mean_spread", 11, np.nan)  # it did not converge, so its numbers may be missing
        assert wrong(path, 0) == [f"{path}/mean_spread/c/1/0/0: 1 converged games have no mean_spread"]

    def test_mass_that_is_lost(self, path: Path):
        change(path, "mass_error", 1, 1e-6)
        assert wrong(path, 0) == [f"{path}/mass_error/c/0/0/0: 1 converged games"]

    def test_a_status_that_is_none(self, path: Path):
        change(path, "status", 0, 9)
        assert wrong(path, 0) == ["status: 1 games have one that is none"]

    def test_the_last_bit_of_a_number(self, path: Path):
        held = float(array_of(path, "expected_fills")[0, 0, 1])
        change(path, "expected_fills", 1, np.nextafter(held, 2.0))
        assert wrong(path) == ["expected_fills of the game A 1.0, gamma 0.02, crowd_mean 1.0: solved again, it is another"]

    @pytest.mark.parametrize("changes", [{"versions": runtime.versions() | {"jax": "0.1"}}, {"device_kind": "abacus"}])
    def test_a_number_made_elsewhere(self, path: Path, changes: dict[str, Any]):
        """By other versions or on another device rounding differs, and how often Φ is evaluated."""
        change_attributes(path, **changes)
        held = float(array_of(path, "expected_fills")[0, 0, 1])
        change(path, "expected_fills", 1, held * (1 + 1e-8))
        change(path, "iterations", 0, 99.0)
        change(path, "status", 11, 4)
        found = verify(path)
        assert found.wrong == []
        assert found.checks[-1][:2] == ("solved again, to 1e-06: not made by these versions on this device", "8 of 12 games")
        change(path, "expected_fills", 1, held + 1e-4)
        assert wrong(path) == ["expected_fills of the game A 1.0, gamma 0.02, crowd_mean 1.0: solved again, it is another"]

    def test_a_coordinate_of_a_table(self, tmp_path: Path):
        path = tmp_path / "t.zarr"
        columns = {"A": Column(np.array([1.0, 2.0]), "t.csv"), "gamma": Column(np.array([0.1, 0.2]), "t.csv")}
        run(make(sampling="table", sweep={}, table=columns), path)
        assert wrong(path) == []
        array_of(path, "A")[...] = [1.0, 2.5]
        assert wrong(path, 0) == ["A: the coordinate is not that of the spec"]

    def test_another_spec_or_coordinate(self, path: Path):
        array_of(path, "gamma")[...] = [0.02, 0.06]
        change_attributes(path, spec_hash="0")
        assert wrong(path, 0) == [
            "the attribute spec_hash is not that of the attribute spec",
            "gamma: the coordinate is not that of the spec",
        ]

    def test_very_much(self, path: Path):
        array_of(path, "mean_spread")[...] = 0.5
        lines = wrong(path)
        assert len(lines) == 11 and lines[-1] == "and 2 more: solved again, bit for bit"

    def test_no_store(self, path: Path):
        with pytest.raises(StoreError, match="no such store"):
            verification.verify(path / "no", 0)
        change_attributes(path, spec={"sweep_order": ["A"], "sweep": {"A": [-1.0]}})
        with pytest.raises(StoreError, match="the spec in its attributes cannot be read"):
            verification.verify(path, 0)


GRID = """\
model: {coupling: relative, x_max: 3, n_steps: 16, scheme: rk4}
parameters: {A: 3.0, k: 1.5, eta: 0.01}
sweep: {gamma: [0.02, 0.05, 1.0e+300], crowd_mean: [0.0, 1.0]}
outputs: {paths: true, surfaces: true}
solver: {select: cold}
store: s.zarr
"""


def test_from_end_to_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "grid.yaml").write_text(GRID)

    def mfgsweep(*arguments: str) -> tuple[int, str, str]:
        result = CliRunner().invoke(cli.app, arguments, catch_exceptions=False)
        return result.exit_code, result.stdout, result.stderr

    assert mfgsweep("run", "grid.yaml", "--batch", "4")[0] == 0
    code, table, complaint = mfgsweep("verify", "s.zarr", "--sample", "5")
    assert (code, complaint) == (0, "")
    assert "| solved again, bit for bit   | 5 of 6 games " in table
    change(tmp_path / "s.zarr", "half_life", 1, 0.0)
    code, table, complaint = mfgsweep("verify", "s.zarr", "--sample", "6")
    assert code == 2 and table.splitlines()[-1].endswith("| 1     |")
    assert complaint.splitlines() == [
        "mfgsweep: s.zarr: 1 things are wrong:",
        "  half_life of the game gamma 0.02, crowd_mean 1.0: solved again, it is another",
    ]
    assert mfgsweep("verify", "s.zarr", "--sample", "-1")[2] == "mfgsweep: --sample: found -1; allowed: a whole number >= 0\n"

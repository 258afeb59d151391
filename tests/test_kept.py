"""Compiled programs that outlive their process."""

import subprocess
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.stages import Compiled

from sweeps import kept as cache
from sweeps import runtime
from sweeps.kept import kept

X = np.linspace(0.0, 1.0, 5)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where they are kept: nowhere yet."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "caches"))
    return runtime.cache_folder()


def compiled() -> Compiled:
    return jax.jit(lambda x: {"twice": jnp.cumsum(jnp.sin(x))}).lower(X).compile()


def not_again() -> Compiled:
    raise AssertionError("compiled again")


def test_a_program_is_compiled_once(folder: Path) -> None:
    first, second = kept("sine", compiled), kept("sine", not_again)
    np.testing.assert_array_equal(first(X)["twice"], second(X)["twice"])
    assert len(list(folder.glob("*"))) == 1


def test_another_key_is_another_program() -> None:
    kept("sine", compiled)
    with pytest.raises(AssertionError, match="compiled again"):
        kept("cosine", not_again)


def test_another_setting_of_jax_is_another_program() -> None:
    kept("sine", compiled)
    with jax.debug_nans(True), pytest.raises(AssertionError, match="compiled again"):
        kept("sine", not_again)


@pytest.mark.parametrize("place", [10, 100, -1])
def test_a_broken_file_is_not_run(folder: Path, place: int) -> None:
    kept("sine", compiled)
    (path,) = folder.glob("*")
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)
    assert kept("sine", compiled)(X)["twice"].shape == X.shape
    kept("sine", not_again)


@pytest.mark.parametrize("content", [b"", b"no line break"])
def test_a_file_of_something_else_is_not_run(folder: Path, content: bytes) -> None:
    kept("sine", compiled)
    (path,) = folder.glob("*")
    path.write_bytes(content)
    assert kept("sine", compiled)(X)["twice"].shape == X.shape


def test_a_folder_that_cannot_be_written_costs_nothing_else(folder: Path) -> None:
    folder.parent.parent.mkdir(parents=True)
    folder.parent.write_text("a file where the folder would be")
    assert kept("sine", compiled)(X)["twice"].shape == X.shape


def test_those_not_used_for_longest_go_first(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for key in ("one", "two"):
        kept(key, compiled)
        time.sleep(0.05)  # clocks of files may tick every few milliseconds
    kept("one", not_again)
    size = max(path.stat().st_size for path in folder.glob("*"))
    monkeypatch.setattr(cache, "MOST_BYTES", int(2.5 * size))
    kept("three", compiled)
    for key in ("one", "three"):
        kept(key, not_again)
    with pytest.raises(AssertionError, match="compiled again"):
        kept("two", not_again)


def test_what_comes_from_another_cache_of_jax_is_not_kept_broken(tmp_path: Path) -> None:
    """Two processes with a cache of JAX's: its program for the second would lack parts if it were written again."""
    script = (
        "import sys, jax, numpy as np; from tests.test_kept import X, compiled, kept\n"
        "key = sys.argv[1]; print(kept(key, compiled)(X)['twice'].tolist())"
    )
    settings = {"JAX_COMPILATION_CACHE_DIR": str(tmp_path / "jax"), "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}
    root = Path(__file__).resolve().parents[1]

    def run(key: str) -> str:
        command = ["env", *(f"{name}={value}" for name, value in settings.items()), sys.executable, "-c", script, key]
        return subprocess.run(command, cwd=root, capture_output=True, text=True, check=True).stdout

    assert run("one") == run("two") == run("two")

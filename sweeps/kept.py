"""Compiled programs, kept for later processes: tracing and compiling take longer than solving a thousand games."""

from __future__ import annotations

import hashlib
import os
import pickle
import platform
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path

import jax
from jax.experimental import serialize_executable
from jax.experimental.compilation_cache import compilation_cache
from jax.stages import Compiled

from sweeps import runtime

MOST_BYTES = 2_000_000_000
"""Of all programs kept; beyond, those that were not used for longest are deleted."""


def kept(key: str, compile_program: Callable[[], Compiled]) -> Compiled:
    """The program of this name, from the disk or compiled now and put there.

    Args:
        key: all that the program depends on, save the code, the versions and the machine, which are added here.
        compile_program: makes it where it is not there, or cannot be read.
    """
    circumstances = repr((_code_and_machine(), os.environ.get("XLA_FLAGS"), jax.config.values, key))
    path = runtime.cache_folder() / f"{hashlib.sha256(circumstances.encode()).hexdigest()}.program"
    program = _read(path)
    if program is None:
        with _afresh():
            program = compile_program()
        with suppress(OSError):  # a program that cannot be kept is as good
            _write(path, program)
    return program


@contextmanager
def _afresh() -> Iterator[None]:
    """Without JAX's own cache: what comes from there to a CPU cannot be written again in full."""
    before = jax.config.values["jax_compilation_cache_dir"]
    _keep_jaxs_programs_in(None)
    try:
        yield
    finally:
        _keep_jaxs_programs_in(before)


def _keep_jaxs_programs_in(folder: str | None) -> None:
    jax.config.update("jax_compilation_cache_dir", folder)
    compilation_cache.reset_cache()  # it looks at its settings only once


def _read(path: Path) -> Compiled | None:
    """None where there is no such file, or not as it was written: a broken program must not run."""
    try:
        digest, stored = path.read_bytes().split(b"\n", 1)
        path.touch()  # the last use
    except (OSError, ValueError):
        return None
    if digest.decode(errors="replace") != hashlib.sha256(stored).hexdigest():
        return None
    return serialize_executable.deserialize_and_load(*pickle.loads(stored))


def _write(path: Path, program: Compiled) -> None:
    stored = pickle.dumps(serialize_executable.serialize(program))
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    unfinished = path.with_suffix(f".{os.getpid()}")
    unfinished.write_bytes(hashlib.sha256(stored).hexdigest().encode() + b"\n" + stored)
    unfinished.replace(path)
    _forget_the_oldest(path.parent)


def _forget_the_oldest(folder: Path) -> None:
    oldest_last = sorted(folder.glob("*.program"), key=lambda path: path.stat().st_mtime, reverse=True)
    total = 0
    for path in oldest_last:
        total += path.stat().st_size
        if total > MOST_BYTES:
            path.unlink(missing_ok=True)


@cache
def _code_and_machine() -> str:
    """What is compiled, and for what: all that stays the same in a process."""
    device = jax.devices()[0]
    machine = (device.client.platform_version, device.device_kind, jax.device_count(), _instructions())
    return repr((runtime.source_digest(), runtime.versions(), machine))


def _instructions() -> str:
    """The instructions that this processor knows: a home folder may be shared by machines that differ."""
    cpuinfo = Path("/proc/cpuinfo")
    flags = re.search(r"^(flags|Features)\s*:\s*(.+)$", cpuinfo.read_text(), re.MULTILINE) if cpuinfo.exists() else None
    return flags[2] if flags else platform.processor()

"""The process around JAX: its switches, its devices, its memory."""

from __future__ import annotations

import hashlib
import math
import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

_XLA_FLAGS = {
    # JAX before 0.12 runs the small loops of a single game through a dispatcher; this keeps them compiled, four times faster
    "xla_backend_extra_options": "xla_cpu_small_while_loop_byte_threshold=1000000000",
    # where there are such vectors (AVX-512), a fifth faster
    "xla_cpu_prefer_vector_width": "512",
}

CUDA_DRIVERS = {"cuda13": 580, "cuda12": 525}
"""The oldest driver that runs each CUDA version, newest first."""

UNKNOWN_MEMORY = 2_000_000_000

_PACKAGES = ("mfg-jax", "jax", "jaxlib", "equinox", "numpy", "xarray", "zarr")


class DeviceError(ValueError):
    """The device asked for is not there; the message says what to do."""


def configure(device: str | None = None) -> None:
    """Switches for this process: float64, compiled loops, wide vectors, and the device.

    Call it before anything else touches JAX: what JAX has already started keeps its settings, float64 excepted.

    Args:
        device: "cpu", "gpu", or None for the best there is.

    Raises:
        DeviceError: there is no such device.
    """
    given = os.environ.get("XLA_FLAGS", "")
    ours = [f"--{name}={value}" for name, value in _XLA_FLAGS.items() if name not in given]
    os.environ["XLA_FLAGS"] = " ".join([*given.split(), *ours])
    import jax

    if device == "cpu":
        jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_enable_x64", True)
    if jax.config.values["jax_compilation_cache_dir"] is None:
        jax.config.update("jax_compilation_cache_dir", str(cache_folder() / "jax"))
    if device == "gpu" and jax.default_backend() == "cpu":
        raise DeviceError(idle_gpu() or "--device gpu: JAX finds no GPU here; leave out --device, or use --device cpu")


def nvidia_driver() -> int | None:
    """Major version of the NVIDIA driver; None where there is none."""
    kernel_module = Path("/proc/driver/nvidia/version")
    if kernel_module.exists():
        report = kernel_module.read_text()
    elif shutil.which("nvidia-smi"):
        query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
        report = subprocess.run(query, capture_output=True, text=True).stdout
    else:
        return None
    found = re.search(r"\b(\d{3,})\.\d+", report)
    return int(found[1]) if found else None


def gpus() -> list[str]:
    """That processes of this machine may use, as CUDA_VISIBLE_DEVICES names them; without JAX, which would take their memory."""
    if (chosen := os.environ.get("CUDA_VISIBLE_DEVICES")) is not None:
        return [name for name in chosen.split(",") if name]
    if not shutil.which("nvidia-smi"):
        return []
    query = ["nvidia-smi", "--query-gpu=uuid", "--format=csv,noheader"]
    asked = subprocess.run(query, capture_output=True, text=True)
    return asked.stdout.split() if asked.returncode == 0 else []


def idle_gpu() -> str | None:
    """What to do about a GPU that JAX does not use; None where there is no such GPU."""
    import jax

    driver = nvidia_driver()
    if driver is None or jax.default_backend() != "cpu":
        return None
    idle = f"THE GPU OF THIS MACHINE IS IDLE: an NVIDIA driver ({driver}) is here, but JAX finds only the CPU. "
    cuda = next((name for name, oldest in CUDA_DRIVERS.items() if driver >= oldest), None)
    if cuda is None:
        return idle + f"The driver is too old for JAX: update it to {min(CUDA_DRIVERS.values())} or newer"
    return idle + f"Mend it with: {sys.executable} -m pip install 'jax[{cuda}]'"


def device_name() -> str:
    """The device that computes, as its maker calls it."""
    import jax

    device = jax.devices()[0]
    if device.platform != "cpu":
        return device.device_kind
    cpuinfo = Path("/proc/cpuinfo")
    named = re.search(r"model name\s*:\s*(.+)", cpuinfo.read_text()) if cpuinfo.exists() else None
    return named[1] if named else platform.machine()


def side_by_side() -> bool:
    """Whether the device wants many games side by side. A CPU is at its best with one on each core, which stops when it is done."""
    import jax

    return jax.default_backend() != "cpu"


def device_count() -> int:
    """GPUs, or the one CPU."""
    import jax

    return jax.device_count()


def free_memory() -> int:
    """Bytes free for results and work: of the GPU, or of this machine."""
    import jax

    statistics = jax.devices()[0].memory_stats()
    if statistics and "bytes_limit" in statistics:
        return statistics["bytes_limit"] - statistics["bytes_in_use"]
    meminfo = Path("/proc/meminfo")
    available = re.search(r"MemAvailable:\s*(\d+) kB", meminfo.read_text()) if meminfo.exists() else None
    of_machine = 1024 * int(available[1]) if available else UNKNOWN_MEMORY
    return int(min(of_machine, _free_memory_of_container()))


def _free_memory_of_container() -> float:
    """What a control group (version 2) leaves to this process; infinite where none limits it."""
    limit, used = (Path("/sys/fs/cgroup", name) for name in ("memory.max", "memory.current"))
    if not limit.exists() or (bytes_allowed := limit.read_text().strip()) == "max":
        return math.inf
    return int(bytes_allowed) - int(used.read_text())


def free_disk(path: Path) -> int:
    """Bytes free where `path` is or will be."""
    there = next(folder for folder in path.absolute().parents if folder.exists())
    return shutil.disk_usage(there).free


def core_count() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def git_revision() -> str | None:
    """The revision of the source that runs; None where it is no checkout."""
    return _git("rev-parse", "HEAD")


def differs_from_revision() -> bool:
    """Whether the source that runs has changes that its revision does not have."""
    return bool(_git("status", "--porcelain", "--untracked-files=no"))


def _git(*arguments: str) -> str | None:
    command = ["git", "-C", str(Path(__file__).parent), *arguments]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None


@cache
def source_digest() -> str:
    """Of the code that runs, whatever its version says."""
    import mfg_jax

    code = hashlib.sha256()
    for package in (Path(mfg_jax.__file__).parent, Path(__file__).parent):
        for path in sorted(package.glob("*.py")):
            code.update(path.read_bytes())
    return code.hexdigest()


def versions() -> dict[str, str]:
    """Of Python and of all packages that results depend on."""
    return {"python": platform.python_version(), **{name: version(name) for name in _PACKAGES}}


def cache_folder() -> Path:
    """Where compiled programs are kept for later processes; one for each version."""
    caches = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return caches / "mfgsweep" / f"{version('mfg-jax')}-jax-{version('jax')}"


def provenance() -> dict[str, Any]:
    """Versions, device and revision, for a store and for `mfgsweep doctor`."""
    import jax

    return {
        "versions": versions(),
        "source_digest": source_digest(),
        "git_revision": git_revision() or "none",
        "git_dirty": differs_from_revision(),
        "device": f"{jax.default_backend()}: {device_name()}",
        "device_kind": jax.devices()[0].device_kind,
        "x64": jax.config.values["jax_enable_x64"],
    }


def what_decides_numbers(provenance: Mapping[str, Any]) -> dict[str, Any]:
    """The part of a provenance without which the same spec may have other numbers, each part by a name for people."""
    versions = {f"version of {name}": provenance["versions"][name] for name in ("mfg-jax", "jax", "jaxlib")}
    parts = {"digest of the source": "source_digest", "kind of device": "device_kind", "float64": "x64"}
    return versions | {name: provenance.get(key) for name, key in parts.items()}


def now() -> str:
    """The time, as stores record it."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def readable(size: float) -> str:
    """Bytes in the unit that suits."""
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"


def duration(seconds: float) -> str:
    """A time to wait, for people."""
    for size, unit in ((86_400, "days"), (3_600, "hours"), (60, "minutes")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} seconds" if seconds >= 1 else "less than a second"

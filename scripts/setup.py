"""Create .venv in the repository root and install the locked dependencies and the project into it.

Needs nothing but a supported Python, which becomes the Python of .venv. Where an NVIDIA driver is found, JAX is
installed with the CUDA version that the driver supports. A second call finds nothing to do and returns at once.
"""

import argparse
import hashlib
import re
import shutil
import subprocess
import sys
from pathlib import Path

# Older Pythons get this message rather than a traceback, so all of this file keeps to syntax they can parse.
if not (3, 11) <= sys.version_info[:2] <= (3, 13):
    sys.exit(
        "setup: Python 3.11, 3.12 or 3.13 is needed and this is {}.{}; "
        "name one that you have, as in: PYTHON=python3.12 scripts/quickstart".format(*sys.version_info)
    )

ROOT = Path(__file__).resolve().parent.parent
LOCKS = ROOT / "scripts" / "locks"
VENV = ROOT / ".venv"
PYTHON = VENV / "bin" / "python"
STAMP = VENV / "setup-stamp"

# The oldest driver that runs each CUDA version, newest first.
CUDA_DRIVERS = {"cuda13": 580, "cuda12": 525}


def say(line: str) -> None:
    print(f"setup: {line}", flush=True)


def run(command: list[str], remedy: str) -> None:
    """Run quietly; on failure show what the command printed and stop with `remedy`."""
    result = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if result.returncode != 0:
        sys.stderr.write(result.stdout)
        sys.exit(f"setup: failed: {remedy}")


def pip(*arguments: str, remedy: str) -> None:
    run([str(PYTHON), "-m", "pip", "--disable-pip-version-check", *arguments], remedy)


def driver_version() -> int | None:
    """The major version of the NVIDIA driver, or None where there is none."""
    kernel_module = Path("/proc/driver/nvidia/version")  # tells at once, where nvidia-smi may take seconds
    if kernel_module.exists():
        report = kernel_module.read_text()
    elif shutil.which("nvidia-smi"):
        query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
        report = subprocess.run(query, capture_output=True, text=True).stdout
    else:
        return None
    version = re.search(r"\b(\d{3,})\.\d+", report)
    return int(version[1]) if version else None


def cuda_lock(driver: int | None) -> str | None:
    """The lock with the newest CUDA that `driver` runs."""
    return next((cuda for cuda, oldest in CUDA_DRIVERS.items() if driver is not None and driver >= oldest), None)


def stamp(locks: list[str]) -> str:
    """A digest of everything that decides what an installation of `locks` contains."""
    digest = hashlib.sha256(sys.version.encode())
    for path in (ROOT / "pyproject.toml", *(LOCKS / f"{lock}.txt" for lock in locks)):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def venv_is_usable() -> bool:
    """Whether .venv starts, has pip and is of the Python that runs this script."""
    try:
        probe = [str(PYTHON), "-c", "import sys, pip; print(sys.version)"]
        return subprocess.run(probe, capture_output=True, text=True).stdout.strip() == sys.version
    except OSError:
        return False


def main() -> None:
    parser = argparse.ArgumentParser(description="Create .venv and install the locked dependencies and the project.")
    parser.add_argument("--dev", action="store_true", help="also install what the tests and checks need")
    dev: bool = parser.parse_args().dev

    driver = driver_version()
    cuda = cuda_lock(driver)
    dev_locks = ["dev", cuda] if cuda else ["dev"]
    locks = dev_locks if dev else [cuda or "base"]

    usable = venv_is_usable()
    # A development environment holds everything that an ordinary one does.
    if usable and STAMP.exists() and STAMP.read_text() in (stamp(locks), stamp(dev_locks)):
        return

    if not usable:
        say(f"creating .venv with Python {sys.version.split()[0]}")
        run(
            [sys.executable, "-m", "venv", "--clear", str(VENV)],
            "this Python could not make a virtual environment; on Debian and Ubuntu install python3-venv",
        )
    STAMP.unlink(missing_ok=True)  # an interrupted installation must not look complete

    if cuda:
        say(f"NVIDIA driver {driver} found: installing JAX for CUDA {cuda.removeprefix('cuda')}")
    elif driver is not None:
        say(f"NVIDIA driver {driver} is too old for JAX ({CUDA_DRIVERS['cuda12']} is needed): installing for the CPU")
    say(f"installing {' and '.join(f'scripts/locks/{lock}.txt' for lock in locks)}; the first time takes minutes")
    requirements = [argument for lock in locks for argument in ("-r", str(LOCKS / f"{lock}.txt"))]
    # Wheels only: building a source distribution would fetch build tools that no lock pins.
    pip(
        *("install", "--quiet", "--require-hashes", "--no-deps", "--only-binary=:all:", *requirements),
        remedy="the locked packages could not be installed; see pip's output above, then run this again",
    )
    pip(
        *("install", "--quiet", "--no-deps", "--no-build-isolation", "--editable", "."),
        remedy="the project could not be installed; see pip's output above",
    )
    pip("check", remedy="the locks do not fit pyproject.toml; run scripts/lock.py, then this again")

    STAMP.write_text(stamp(locks))
    say("done")


if __name__ == "__main__":
    main()

"""Regenerate scripts/locks/: what scripts/setup.py installs, pinned and hashed for every supported Python.

uv resolves for all Pythons and platforms at once. It comes from PyPI into a temporary environment, so nothing
needs to be installed beforehand. Pins already in the locks stay unless --upgrade is given.
"""

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LOCKS = ROOT / "scripts" / "locks"
OLDEST_PYTHON = "3.11"


def compile_lock(uv: Path, name: str, *options: str) -> None:
    """Write the lock `name`; `options` select its extras and constraints."""
    command = [
        *(str(uv), "--quiet", "--no-config", "pip", "compile", "pyproject.toml", "--group", "build"),
        # A package whose newest release dropped an old Python is pinned once per range of Pythons.
        *("--universal", "--python-version", OLDEST_PYTHON, "--fork-strategy", "requires-python"),
        # The header would repeat this command line; the annotations would only add noise to diffs.
        *("--generate-hashes", "--no-header", "--no-annotate"),
        *("--output-file", str(LOCKS / f"{name}.txt"), *options),
    ]
    subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)


def main() -> None:
    parser = argparse.ArgumentParser(description="Regenerate the lock files in scripts/locks.")
    parser.add_argument("--upgrade", action="store_true", help="take the newest versions instead of keeping pins")
    upgrade = ["--upgrade"] if parser.parse_args().upgrade else []

    LOCKS.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as directory:
        subprocess.run([sys.executable, "-m", "venv", directory], check=True)
        binaries = Path(directory, "bin")
        subprocess.run([binaries / "pip", "install", "--quiet", "uv"], check=True)

        compile_lock(binaries / "uv", "dev", "--extra", "dev", *upgrade)
        # The other locks share dev's pins, so that what is tested is what is installed.
        shared = ["--constraints", str(LOCKS / "dev.txt"), *upgrade]
        compile_lock(binaries / "uv", "base", *shared)
        for cuda in ("cuda12", "cuda13"):
            compile_lock(binaries / "uv", cuda, "--extra", cuda, *shared)


if __name__ == "__main__":
    main()

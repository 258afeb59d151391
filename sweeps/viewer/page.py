"""The files of the page, and the policy that keeps a browser from loading anything else."""

from __future__ import annotations

from importlib.resources import files as resources
from pathlib import Path

FOLDER = Path(__file__).parent


def files() -> dict[str, Path]:
    """By the names that the page loads them under; "" is the page itself."""
    own = {name: FOLDER / name for name in ("page.js", "page.css")}
    return {"": FOLDER / "page.html", **own, "plotly.min.js": Path(str(resources("plotly") / "package_data" / "plotly.min.js"))}


def policy(script: str, connect: str = "'none'") -> str:
    """Scripts of these sources alone. plotly.js sets styles and draws pictures by itself, which no network brings."""
    return (
        f"default-src 'none'; script-src {script}; style-src 'self' 'unsafe-inline'; img-src data: blob:; "
        f"connect-src {connect}; base-uri 'none'; form-action 'none'"
    )

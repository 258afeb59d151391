"""A real browser without a window, and the viewer in it, watched: for tests, measurements and pictures."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, Page, sync_playwright

MFGSWEEP = Path(sys.executable).with_name("mfgsweep")
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
OPTIONS = (
    "--headless",
    "--no-sandbox",
    "--use-angle=swiftshader",  # WebGL, which draws the surfaces, without a graphics card
    "--enable-unsafe-swiftshader",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
SIZE = {"width": 1280, "height": 800}
PATIENCE = 120_000
"""Milliseconds: machines of tests are small, and first solves compile."""


@contextmanager
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=CHROMIUM, args=list(OPTIONS))
        yield launched
        launched.close()


@contextmanager
def served(*store: Path, **environment: str) -> Iterator[str]:
    """The address of `mfgsweep view` of a store, or of a live game."""
    command = [MFGSWEEP, "view", *store]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={**os.environ, **environment}) as process:
        assert process.stdout
        found = re.search(r"http://\S+", process.stdout.readline())
        assert found
        try:
            yield found[0]
        finally:
            process.kill()


class Viewer:
    """A page that shows the viewer. `complaints`: errors of its console; `requests`: what it asked a network, or a disk, for."""

    def __init__(self, browser: Browser, address: str, colours: Any = "light", offline: bool = False) -> None:
        self.page: Page = browser.new_page(viewport=SIZE, color_scheme=colours, offline=offline)  # pyright: ignore[reportArgumentType]
        self.page.set_default_timeout(PATIENCE)
        self.complaints: list[str] = []
        self.requests: list[str] = []
        self.page.on("console", lambda message: self.complaints.append(message.text) if message.type == "error" else None)
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.goto(address)
        self.page.wait_for_selector("body[data-moves]")

    @property
    def moves(self) -> int:
        """How often the page has drawn what was asked for."""
        return int(self.page.get_attribute("body", "data-moves") or 0)

    def settle(self, moves: int) -> None:
        """Waits until it has drawn once more than `moves`, and all that was asked for."""
        self.page.wait_for_function("before => Number(document.body.dataset.moves) > before", arg=moves)
        self.page.wait_for_selector("body:not(.busy)")

    def press(self, selector: str, key: str) -> None:
        before = self.moves
        self.page.press(selector, key)
        self.settle(before)

    def click(self, selector: str) -> None:
        before = self.moves
        self.page.click(selector)
        self.settle(before)

    def choose(self, selector: str, value: str) -> None:
        before = self.moves
        self.page.select_option(selector, value)
        self.settle(before)

    def type(self, name: str, value: str) -> None:
        before = self.moves
        self.page.fill(f"#box-{name}", value)
        self.page.press(f"#box-{name}", "Enter")
        self.settle(before)

    def of_figure(self, name: str, what: str) -> Any:
        """Something of a drawn figure, in JavaScript: `plot` is what plotly.js knows of it."""
        return self.page.evaluate(f"() => {{ const plot = document.querySelector('[data-figure={name}] .plot'); return {what}; }}")

    def heights(self, name: str, trace: int = 0) -> list[float]:
        return self.of_figure(name, f"Array.from(decoded(plot.data[{trace}].{'z' if 'scene' in self.kinds(name) else 'y'}))")

    def kinds(self, name: str) -> str:
        return self.of_figure(name, "Object.keys(plot.layout).join(' ')")

    def text(self, selector: str) -> str:
        return self.page.inner_text(selector)

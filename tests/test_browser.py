"""The viewer and the report in a real browser: drawn, moved, clicked, typed into."""

import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from playwright.sync_api import Browser

import mfg_jax as mfg
import sweeps
from sweeps.dataset import open_store
from sweeps.viewer import report
from tests import made_up
from tests.browser import CHROMIUM, MFGSWEEP, Viewer, browser, served

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium here: apt-get install chromium")

QUICKLY = {"JAX_DISABLE_MOST_OPTIMIZATIONS": "true"}
SPEC = made_up.make(
    model={"coupling": "relative", "x_max": 3, "n_steps": 20},
    outputs={"surfaces": True},
    solver={"max_iterations": 100, "select": "cold"},
)
SURFACES = ("value", "ask", "bid", "density")
PATHS = ("full_spread", "inventory_variance", "derisk_probability", "marginal_value")

GROWING = """\
model: {coupling: relative, x_max: 3, n_steps: 20}
parameters: {k: 1.5, eta: 0.01}
sweep:
  A: {linspace: [1, 5, 10]}
  gamma: {linspace: [0.01, 0.1, 100]}
outputs: {surfaces: true}
solver: {select: cold}
store: store.zarr
"""


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    with browser() as launched:
        yield launched


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of 12 games, of which those with the largest A did not converge."""
    path = tmp_path_factory.mktemp("browser") / "store.zarr"
    made_up.run(SPEC, path)
    return path


@pytest.fixture(scope="module")
def address(path: Path) -> Iterator[str]:
    with served(path, **QUICKLY) as address:
        yield address


@pytest.fixture
def viewer(chromium: Browser, address: str) -> Iterator[Viewer]:
    viewer = Viewer(chromium, address)
    yield viewer
    assert viewer.complaints == []
    assert all(url.startswith((address, "blob:", "data:")) for url in viewer.requests)
    viewer.page.close()


def stored(path: Path, name: str, **place: int) -> np.ndarray:
    with open_store(path) as dataset:
        return dataset[name].isel(place).values


def test_all_figures_are_drawn(viewer: Viewer, path: Path) -> None:
    for name in SURFACES:
        drawn = viewer.heights(name)
        np.testing.assert_array_equal(drawn, stored(path, name, A=0, gamma=0, crowd_mean=0).ravel().astype("f4"))
        pixels = viewer.of_figure(name, "plot._fullLayout.scene._scene.glplot.gl.drawingBufferWidth")
        assert pixels > 100
    for name in PATHS:
        np.testing.assert_array_equal(viewer.heights(name), stored(path, name, A=0, gamma=0, crowd_mean=0).astype("f4"))
        assert viewer.of_figure(name, "plot.querySelectorAll('.scatterlayer path.js-line').length") == 1
    assert viewer.of_figure("slice", "plot.querySelectorAll('.heatmaplayer image').length") == 1
    spread = stored(path, "mean_spread", A=0, gamma=0, crowd_mean=0)
    assert float(viewer.text('[data-metric="mean_spread"] td')) == pytest.approx(float(spread), rel=1e-4)


def eye_at_rest(viewer: Viewer) -> Any:
    """From where the value is seen, once ten drawn frames see it from the same place: it glides on after the mouse is let go."""
    return viewer.of_figure(
        "value",
        "new Promise(resolve => { let last, still = 0; const look = () => {"
        " const eye = plot._fullLayout.scene._scene.getCamera().eye, now = JSON.stringify(eye);"
        " still = now === last ? still + 1 : 0; last = now;"
        " if (still === 10) resolve(eye); else requestAnimationFrame(look); }; look(); })",
    )


def test_a_slider_moves_the_data_and_not_the_camera(viewer: Viewer, path: Path) -> None:
    box = viewer.page.locator('[data-figure="value"] .plot').bounding_box()
    assert box
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    untouched = eye_at_rest(viewer)
    viewer.page.mouse.move(x, y)
    viewer.page.mouse.down()
    viewer.page.mouse.move(x + 60, y + 20, steps=5)
    viewer.page.mouse.up()
    turned = eye_at_rest(viewer)
    assert turned != untouched
    viewer.press("#slider-gamma", "ArrowRight")
    np.testing.assert_array_equal(viewer.heights("value"), stored(path, "value", A=0, gamma=1, crowd_mean=0).ravel().astype("f4"))
    assert eye_at_rest(viewer) == pytest.approx(turned)
    assert viewer.page.input_value("#box-gamma") == "0.05"


def test_a_click_on_the_heat_map_selects_the_game(viewer: Viewer, path: Path) -> None:
    assert viewer.page.input_value("#slice-x") == "A"
    at = viewer.of_figure(
        "slice",
        "(() => { const box = plot.querySelector('.nsewdrag').getBoundingClientRect();"
        " const { xaxis, yaxis } = plot._fullLayout; return [box.x + xaxis.l2p(1), box.y + yaxis.l2p(1)]; })()",
    )
    before = viewer.moves
    viewer.page.mouse.move(*at)
    viewer.page.mouse.click(*at)
    viewer.settle(before)
    assert viewer.page.input_value("#slider-A") == "1"
    assert viewer.page.input_value("#slider-gamma") == "1"
    np.testing.assert_array_equal(viewer.heights("value"), stored(path, "value", A=1, gamma=1, crowd_mean=0).ravel().astype("f4"))


def test_a_game_that_did_not_converge_is_marked(viewer: Viewer) -> None:
    assert viewer.of_figure("slice", "plot.data[1].x.join()") == "300,300"
    viewer.press("#slider-A", "End")
    assert viewer.text("#status") == "iteration limit"
    assert mfg.Status.ITERATION_LIMIT.explanation in viewer.text("#message")
    assert viewer.page.locator(".failed section.of-game").count() == 8
    viewer.press("#slider-A", "Home")
    assert viewer.page.locator(".failed").count() == 0


def test_two_games_side_by_side_have_the_same_axes(viewer: Viewer, path: Path) -> None:
    viewer.click("#pin")
    viewer.press("#slider-crowd_mean", "ArrowRight")
    for trace, crowd_mean in ((0, 1), (1, 0)):
        for name in ("value", "full_spread"):
            expected = stored(path, name, A=0, gamma=0, crowd_mean=crowd_mean).ravel().astype("f4")
            np.testing.assert_array_equal(viewer.heights(name, trace), expected)
    ranges = viewer.of_figure("value", "[plot._fullLayout.scene, plot._fullLayout.scene2].map((scene) => scene.zaxis.range.join())")
    assert len(set(ranges)) == 1
    assert viewer.page.locator('[data-metric="mean_spread"] td').count() == 2


def test_locked_axes_hold_the_whole_sweep(viewer: Viewer, path: Path) -> None:
    viewer.click("#lock")
    low, high = viewer.of_figure("inventory_variance", "plot._fullLayout.yaxis.range")
    viewer.press("#slider-A", "ArrowRight")
    assert viewer.of_figure("inventory_variance", "plot._fullLayout.yaxis.range") == [low, high]
    all_games = stored(path, "inventory_variance", A=slice(2))  # pyright: ignore[reportArgumentType]
    assert low < all_games.min()
    assert all_games.max() < high


def test_keys_alone_are_enough(viewer: Viewer) -> None:
    viewer.press("body", "l")
    assert viewer.page.is_checked("#lock")
    viewer.press("body", "p")
    assert viewer.page.input_value("#beside") == "pinned"
    reached = set()
    viewer.page.focus("#box-A")
    for _ in range(20):
        reached.add(viewer.page.evaluate("document.activeElement.id"))
        viewer.page.keyboard.press("Tab")
    assert reached >= {"slider-A", "box-A", "slider-gamma", "box-gamma", "solve", "pin", "lock", "beside"}


def test_solve_here_is_the_library_s_equilibrium(viewer: Viewer) -> None:
    viewer.type("A", "2.25")
    assert viewer.text("#status") == "solved here, converged"
    parameters = mfg.Parameters(A=2.25, k=1.5, eta=0.01, gamma=0.02)
    expected = mfg.solve(mfg.Model("relative", x_max=3, n_steps=20), parameters, select="cold")
    np.testing.assert_allclose(viewer.heights("value"), np.asarray(expected.value).ravel(), rtol=1e-6, atol=1e-6)
    assert 0 <= float(viewer.text('[data-metric="residual"] td')) < 1e-9
    assert float(viewer.text('[data-metric="mass_error"] td')) < 1e-12
    viewer.choose("#beside", "alone")
    assert viewer.text("#status") == "solved here, converged, beside: converged"
    alone = mfg.solve(mfg.Model("none", x_max=3, n_steps=20), parameters, select="cold")
    np.testing.assert_allclose(viewer.heights("value", 1), np.asarray(alone.value).ravel(), rtol=1e-6, atol=1e-6)


def test_what_cannot_be_solved_is_said(viewer: Viewer) -> None:
    viewer.type("A", "-3")
    assert viewer.text("#message") == "A: found -3.0; allowed: a finite number > 0"
    viewer.complaints.clear()  # the browser reports every refusal


def test_moves_that_come_faster_than_answers_end_at_the_latest(viewer: Viewer, path: Path) -> None:
    for key in ("ArrowRight", "ArrowRight", "ArrowLeft", "ArrowLeft", "ArrowRight") * 4:
        viewer.page.press("#slider-A", key)
    asked = [url for url in viewer.requests if "/game?" in url]
    viewer.page.wait_for_selector("body:not(.busy)")
    np.testing.assert_array_equal(viewer.heights("value"), stored(path, "value", A=1, gamma=0, crowd_mean=0).ravel().astype("f4"))
    assert len(asked) < 20


@pytest.mark.parametrize("colours", ["light", "dark"])
def test_themes_follow_the_system(chromium: Browser, address: str, colours: str) -> None:
    viewer = Viewer(chromium, address, colours)
    brightness = viewer.page.evaluate("getComputedStyle(document.body).backgroundColor.match(/\\d+/g).map(Number)[0]")
    assert (brightness > 200) == (colours == "light")
    overflow = viewer.page.evaluate("document.documentElement.scrollWidth > innerWidth")
    assert not overflow
    viewer.page.close()


def test_the_report_shows_the_same_without_a_network(chromium: Browser, path: Path, tmp_path: Path) -> None:
    report.write(path, tmp_path / "report.html")
    viewer = Viewer(chromium, (tmp_path / "report.html").as_uri(), offline=True)
    viewer.press("#slider-gamma", "ArrowRight")
    for name in ("value", "full_spread"):
        np.testing.assert_array_equal(viewer.heights(name), stored(path, name, A=0, gamma=1, crowd_mean=0).ravel().astype("f4"))
    cells = np.array(viewer.of_figure("slice", "plot.data[0].z"))
    expected = stored(path, "mean_spread", crowd_mean=0).T
    np.testing.assert_array_equal(cells, expected.astype("f4"))
    assert viewer.of_figure("slice", "plot.data[1].x.join()") == "300,300"
    viewer.choose("#slice-y", "")
    line = viewer.of_figure("slice", "Array.from(plot.data[0].y)")
    np.testing.assert_array_equal(line, stored(path, "mean_spread", gamma=1, crowd_mean=0).astype("f4"))
    viewer.press("#slider-A", "End")
    assert viewer.text("#status") == "iteration limit"
    assert not viewer.page.is_visible("#solve")
    viewer.page.click("#about summary")
    assert "spec hash" in viewer.text("#about")
    assert viewer.complaints == []
    assert [url for url in viewer.requests if not url.startswith(("data:", "blob:"))] == [(tmp_path / "report.html").as_uri()]
    viewer.page.close()


def test_a_notebooks_frame_draws(chromium: Browser, path: Path, tmp_path: Path) -> None:
    with open_store(path) as dataset:
        shown = sweeps.show(dataset, A=3.0)
    (tmp_path / "notebook.html").write_text(f"<!doctype html><meta charset=utf-8>{shown._repr_html_()}")
    page = chromium.new_page(offline=True)
    complaints: list[str] = []
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.goto((tmp_path / "notebook.html").as_uri())
    page.frame_locator("iframe").locator("body[data-moves]").wait_for(timeout=60_000)
    assert page.frame_locator("iframe").locator(".js-line").count() >= 4
    assert complaints == []
    page.close()


def test_the_live_game_moves_with_its_parameters(chromium: Browser) -> None:
    with served(**QUICKLY) as address:
        viewer = Viewer(chromium, address)
        assert viewer.text("#status") == "solved here, converged"
        before = viewer.heights("value")
        viewer.type("gamma", "0.3")
        assert viewer.text("#status") == "solved here, converged"
        assert viewer.heights("value") != before
        viewer.type("gamma", "")
        assert viewer.text("#message") == "gamma: missing; allowed: a number"
        viewer.page.close()


def test_a_store_is_shown_while_a_run_fills_it(chromium: Browser, tmp_path: Path) -> None:
    (tmp_path / "grid.yaml").write_text(GROWING)
    command = [MFGSWEEP, "run", "grid.yaml", "--device", "cpu", "--quiet"]
    with subprocess.Popen(command, cwd=tmp_path, env={**os.environ, **QUICKLY}) as running:
        store = tmp_path / "store.zarr"
        while not store.exists():
            assert running.poll() is None
            time.sleep(0.05)
        with served(store) as address:
            viewer = Viewer(chromium, address)
            first = viewer.text("#status")
            while running.poll() is None:
                for key in ("ArrowRight", "ArrowLeft"):
                    viewer.press("#slider-A", key)
            viewer.page.wait_for_selector("text=1,000 of 1,000 games done")
            viewer.page.wait_for_selector("body:not(.busy)")
            viewer.press("#slider-gamma", "End")
            assert viewer.text("#status") == "converged"
            assert first in ("pending", "converged")
            assert viewer.complaints == []
            viewer.page.close()
    assert running.returncode == 0

"""`mfgsweep plot`: what is drawn is what is stored, with its units."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.collections import PathCollection, QuadMesh
from matplotlib.colors import LogNorm, to_hex
from matplotlib.contour import QuadContourSet
from matplotlib.figure import Figure
from matplotlib.image import imread
from typer.testing import CliRunner, Result

from sweeps import drawing, plots
from sweeps.cli import app
from sweeps.dataset import open_store
from tests.made_up import loaded, make, run

SPEC = make(
    outputs={"paths": True, "surfaces": True, "gradients": ["mean_spread"]},
    sweep={"A": [3.0, 1.0, 300.0], "gamma": [0.01, 0.1, 1.0], "coupling": ["relative", "none"]},
    model={"x_max": 3, "n_steps": 4},
    units={"price": "USD", "time": "day"},
)
DRAWN = make(sampling="random", points=9, sweep={"A": {"uniform": [1.0, 150.0]}, "gamma": {"uniform": [0.01, 0.1]}})


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """18 games, of which the six with the largest A did not converge."""
    path = tmp_path_factory.mktemp("store") / "s.zarr"
    run(SPEC, path)
    return path


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("drawn") / "s.zarr"
    run(DRAWN, path)
    return path


def mfgsweep(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["plot", *map(str, arguments)], catch_exceptions=False)


def refusal(*arguments: object) -> str:
    """The one line that the command prints when it refuses."""
    result = mfgsweep(*arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.count("\n") == 1
    return result.stderr.strip()


def picture(path: Path, what: str, at: str, times: int | None = None) -> tuple[list[Any], list[str]]:
    """The axes, that of the colours behind, and what is said."""
    figure = Figure(figsize=drawing.SIZE, layout="constrained")
    with open_store(path) as dataset:
        found = drawing.picture(dataset, what, at, times)
    drawing.draw(figure, found)
    figure.draw_without_rendering()
    return figure.axes, found.facts


def curves(ax: Any) -> list[tuple[list[Any], list[float]]]:
    return [(list(line.get_xdata()), list(line.get_ydata())) for line in ax.lines]


def legend(ax: Any) -> tuple[str, list[str]]:
    found = ax.get_legend()
    assert found is not None
    return found.get_title().get_text().replace("\n", " "), [text.get_text() for text in found.get_texts()]


def labels(ax: Any) -> tuple[str, str]:
    return ax.get_xlabel().replace("\n", " "), ax.get_ylabel().replace("\n", " ")


class TestScalars:
    def test_over_one_dim(self, path: Path):
        (ax,), facts = picture(path, "mean_spread", "A=1,coupling=none")
        stored = loaded(path)["mean_spread"].sel(A=1.0, coupling="none")
        assert curves(ax) == [(stored["gamma"].values.tolist(), stored.values.tolist())]
        assert labels(ax) == ("terminal inventory penalty (USD/lot^2)", "time average of the crowd's full spread (USD)")
        assert ax.get_xscale() == "log"
        assert facts == ["mean_spread: time average of the crowd's full spread", "at A=1,coupling=none"]

    def test_values_in_rising_order_and_games_that_did_not_converge(self, path: Path):
        """They are gaps, which is said."""
        (ax,), facts = picture(path, "mean_spread", "gamma=0.1,coupling=none")
        stored = loaded(path)["mean_spread"].sel(gamma=0.1, coupling="none")
        ((x, y),) = curves(ax)
        assert (x, y[:2]) == ([1.0, 3.0, 300.0], stored.sel(A=[1.0, 3.0]).values.tolist()) and np.isnan(y[2])
        assert facts[-1] == "left out: 1 of 3 games, which did not converge (1 iteration limit)"

    def test_converged_games_that_lack_a_number(self, path: Path):
        dataset = loaded(path)
        dataset["half_life"][1, 1, 1] = np.nan
        found = drawing.picture(dataset, "half_life", "coupling=none")
        assert found.facts[-1] == "left out: 1 converged games, which have no half_life"
        assert np.isnan(found.values.sel(A=1.0, gamma=0.1)) and found.values.notnull().sum() == 5

    def test_over_two_dims(self, path: Path):
        """A map, with a cell around each game, also where an axis is logarithmic."""
        (ax, bar), facts = picture(path, "mean_spread", "coupling=none")
        (cells,) = ax.collections
        assert isinstance(cells, QuadMesh)
        stored = loaded(path)["mean_spread"].sel(coupling="none").sortby("A").where(loaded(path)["A"] < 100)
        shown = np.ma.filled(np.ma.asarray(cells.get_array()), np.nan)
        np.testing.assert_array_equal(shown, stored.transpose("gamma", "A").values)
        assert np.isnan(shown).sum() == 3
        corners = np.asarray(cells.get_coordinates())
        for number, values in enumerate(([1.0, 3.0, 300.0], [0.01, 0.1, 1.0])):
            edges = np.unique(corners[..., number])
            assert ((edges[:-1] < values) & (values < edges[1:])).all()
        assert (ax.get_xscale(), ax.get_yscale()) == ("log", "log")
        assert labels(ax) == ("base fill rate A (1/day)", "terminal inventory penalty (USD/lot^2)")
        assert bar.get_ylabel().replace("\n", " ") == "time average of the crowd's full spread (USD)"
        assert facts[-1] == "left out: 3 of 9 games, which did not converge (3 iteration limit)"

    def test_over_names(self, path: Path):
        """A line for each, which also dashes tell apart."""
        (ax,), _ = picture(path, "mean_spread", "A=3")
        stored = loaded(path)["mean_spread"].sel(A=3.0)
        names = ["relative", "none"]
        assert curves(ax) == [([0.01, 0.1, 1.0], stored.sel(coupling=name).values.tolist()) for name in names]
        assert legend(ax) == ("coupling", names)
        assert len({to_hex(line.get_color()) for line in ax.lines}) == len({line.get_linestyle() for line in ax.lines}) == 2
        (ax,), _ = picture(path, "clipped_mass", "A=3,gamma=1")
        stored = loaded(path)["clipped_mass"].sel(A=3.0, gamma=1.0)
        assert curves(ax) == [(names, stored.sel(side=side).values.tolist()) for side in ("ask", "bid")]

    def test_a_derivative(self, path: Path):
        (ax,), _ = picture(path, "d_mean_spread", "A=3,coupling=none,parameter=gamma")
        stored = loaded(path)["d_mean_spread"].sel(A=3.0, coupling="none", parameter="gamma")
        assert curves(ax)[0][1] == stored.values.tolist()
        assert "choose one, as --at parameter=gamma" in refusal(path, "d_mean_spread", "-o", "p.png", "--at", "A=3,coupling=none")

    def test_colours_of_both_signs_are_around_zero(self, path: Path):
        dataset = loaded(path)
        dataset["mean_spread"] = (dataset["mean_spread"] - 0.5).assign_attrs(dataset["mean_spread"].attrs)
        figure = Figure()
        drawing.draw(figure, drawing.picture(dataset, "mean_spread", "coupling=none"))
        least, most = figure.axes[0].collections[0].get_clim()
        assert -0.5 <= least == -most < 0


class TestPaths:
    def test_of_one_game(self, path: Path):
        (ax,), _ = picture(path, "full_spread", "A=3,gamma=1,coupling=none")
        stored = loaded(path)["full_spread"].sel(A=3.0, gamma=1.0, coupling="none")
        assert curves(ax) == [(stored["time"].values.tolist(), stored.values.tolist())]
        assert labels(ax) == ("fraction of the trading day", "the crowd's full spread (USD)")

    def test_of_several(self, path: Path):
        (ax,), _ = picture(path, "full_spread", "A=3,coupling=none")
        stored = loaded(path)["full_spread"].sel(A=3.0, coupling="none")
        assert [y for _, y in curves(ax)] == stored.values.tolist()
        assert legend(ax) == ("terminal inventory penalty (USD/lot^2)", ["0.01", "0.1", "1"])
        lightness = [float(np.dot([0.299, 0.587, 0.114], line.get_color()[:3])) for line in ax.lines]
        assert lightness == sorted(lightness) and lightness[-1] < 0.8

    def test_of_many(self, tmp_path: Path):
        """Colours instead of a legend."""
        gammas = np.geomspace(0.01, 1.0, 9).tolist()
        run(make(outputs={"paths": True}, sweep={"A": [1.0], "gamma": gammas}), tmp_path / "s.zarr")
        (ax, bar), _ = picture(tmp_path / "s.zarr", "full_spread", "")
        assert len(ax.lines) == 9 and ax.get_legend() is None
        assert bar.get_ylabel().replace("\n", " ") == "terminal inventory penalty (price/lot^2)"
        assert isinstance(bar._colorbar.mappable.norm, LogNorm)


class TestSurfaces:
    GAME = "A=3,gamma=1,coupling=none"

    def test_contours(self, path: Path):
        (ax, bar), _ = picture(path, "ask", self.GAME)
        (shapes,) = ax.collections
        assert isinstance(shapes, QuadContourSet) and shapes.filled
        stored = loaded(path)["ask"].sel(A=3.0, gamma=1.0, coupling="none")
        levels = np.asarray(shapes.levels)
        assert levels[0] <= stored.min() and stored.max() <= levels[-1]
        assert labels(ax) == ("fraction of the trading day", "inventory (lot)")
        assert bar.get_ylabel() == "best ask offset (USD)"

    def test_where_nobody_quotes_nothing_is_drawn(self, path: Path):
        dataset = loaded(path)
        dataset["ask"][..., 0] = np.nan
        figure = Figure()
        drawing.draw(figure, drawing.picture(dataset, "ask", self.GAME))
        (shapes,) = figure.axes[0].collections
        heights = np.concatenate([np.asarray(outline.vertices)[:, 1] for outline in shapes.get_paths()])
        assert (heights.min(), heights.max()) == (-2.0, 3.0)

    def test_lines(self, path: Path):
        (ax,), _ = picture(path, "ask", self.GAME, times=3)
        stored = loaded(path)["ask"].sel(A=3.0, gamma=1.0, coupling="none")
        assert len(ax.lines) == 3
        for place, (x, y) in zip((0, -1), (curves(ax)[0], curves(ax)[-1]), strict=True):
            assert (x, y) == (stored["inventory"].values.tolist(), stored[place].values.tolist())
        assert legend(ax)[0] == "fraction of the trading day" and labels(ax)[0] == "inventory (lot)"

    def test_cut_at_a_value(self, path: Path):
        """At one inventory it is a path, at one time a line over inventories for each game."""
        (ax,), _ = picture(path, "ask", self.GAME + ",inventory=-1")
        stored = loaded(path)["ask"]
        assert curves(ax)[0][1] == stored.sel(A=3.0, gamma=1.0, coupling="none", inventory=-1).values.tolist()
        (ax,), _ = picture(path, "ask", "A=3,coupling=none,time=1")
        assert [y for _, y in curves(ax)] == stored.sel(A=3.0, coupling="none", time=1.0).values.tolist()


class TestPoints:
    def test_a_dot_for_each_game(self, drawn: Path):
        (ax, bar), facts = picture(drawn, "mean_spread", "")
        (dots,) = ax.collections
        assert isinstance(dots, PathCollection)
        stored = loaded(drawn)
        stored = stored.sel(point=stored["status"] == 1)
        assert 0 < stored.sizes["point"] < 9
        np.testing.assert_array_equal(dots.get_offsets(), np.transpose([stored["A"].values, stored["gamma"].values]))
        np.testing.assert_array_equal(dots.get_array(), stored["mean_spread"].values)  # pyright: ignore[reportArgumentType]
        assert labels(ax)[0] == "base fill rate A (1/time)" and "time average" in bar.get_ylabel()
        assert facts[-1].startswith(f"left out: {9 - stored.sizes['point']} of 9 games")

    def test_over_what_alone_varies(self, tmp_path: Path):
        run(make(sampling="zip", sweep={"A": [2.0, 1.0, 3.0], "gamma": [0.1, 0.1, 0.1]}), tmp_path / "s.zarr")
        (ax,), _ = picture(tmp_path / "s.zarr", "mean_spread", "")
        stored = loaded(tmp_path / "s.zarr").sortby("A")
        assert curves(ax) == [([1.0, 2.0, 3.0], stored["mean_spread"].values.tolist())]


class TestFiles:
    @pytest.mark.parametrize(("ending", "begins"), [("png", b"\x89PNG"), ("svg", b"<?xml"), ("pdf", b"%PDF")])
    @pytest.mark.parametrize(("what", "at"), [("mean_spread", "coupling=none"), ("full_spread", "A=3,coupling=none")])
    def test_are_whole_and_alone(self, path: Path, tmp_path: Path, ending: str, begins: bytes, what: str, at: str):
        file = tmp_path / f"p.{ending}"
        result = mfgsweep(path, what, "-o", file, "--at", at)
        assert (result.exit_code, result.stderr) == (0, "")
        assert result.stdout.splitlines()[1:2] == [f"at {at}"] and result.stdout.endswith(f"wrote {file}\n")
        assert list(tmp_path.iterdir()) == [file] and file.read_bytes().startswith(begins)
        if ending == "png":
            assert imread(file).shape[:2] == tuple(round(drawing.DPI * inches) for inches in reversed(drawing.SIZE))
        if ending == "pdf":
            assert b"/Type3" not in file.read_bytes()

    def test_all_that_is_stored_can_be_drawn(self, path: Path):
        """Of each kind the variable of the longest name."""
        kinds = {
            variable.dims: str(name) for name, variable in sorted(loaded(path).items(), key=lambda item: len(item[1].long_name))
        }
        assert len(kinds) == 5
        for dims, name in kinds.items():
            at = "A=3,coupling=none" + (",gamma=1" if "inventory" in dims else "") + (",parameter=A" if "parameter" in dims else "")
            axes, _ = picture(path, name, at)
            assert axes[0].get_ylabel() and axes[0].get_xlabel()


class TestRefusals:
    def test_a_name_that_is_not_stored(self, path: Path):
        message = refusal(path, "mean_spred", "-o", "p.png")
        start = f"mfgsweep: {path}: found 'mean_spred', which is no variable to be drawn; allowed, the nearest first: "
        assert message.startswith(start)
        names = message.removeprefix(start).split(", ")
        assert names[0] == "mean_spread" and set(names) == set(loaded(path).data_vars) - {"status"}

    @pytest.mark.parametrize(
        ("what", "at", "message"),
        [
            ("mean_spread", "", "a figure shows two dims at most; give --at a value of some of A, gamma, coupling, as --at A=…"),
            ("full_spread", "A=3", "give --at a value of some of gamma, coupling, time, as --at gamma=…"),
            ("ask", "A=3,gamma=1", "give --at a value of some of coupling, time, inventory, as --at coupling=…"),
            ("mean_spread", "A=3,gamma=1,coupling=none", "nothing to draw: one number, "),
            ("mean_spread", "A=300", "nothing to draw: mean_spread: "),
            ("mean_spread", "A=2", "--at: there is no A=2; there are 1, 3, 300"),
            ("mean_spread", "time=0", "--at: found 'time', a text; allowed: A, gamma, coupling"),
            ("full_spread", "time=0.01", "--at: there is no time=0.01; there are 0, "),
        ],
    )
    def test_what_cannot_be_drawn(self, path: Path, tmp_path: Path, what: str, at: str, message: str):
        assert message in refusal(path, what, "-o", tmp_path / "p.png", "--at", at)
        assert not list(tmp_path.iterdir())

    def test_files_that_cannot_be(self, path: Path, tmp_path: Path):
        choice = (path, "mean_spread", "--at", "coupling=none", "-o")
        assert refusal(*choice, "p.jpg").endswith("--output: found the ending '.jpg'; allowed: .png, .svg, .pdf")
        assert refusal(*choice, tmp_path / "no" / "p.png").endswith(f"the folder {tmp_path / 'no'} does not exist; make it first")

    def test_times(self, path: Path):
        message = refusal(path, "mean_spread", "-o", "p.png", "--times", 3, "--at", "A=3")
        assert message.endswith("--times: goes with a surface of one game, such as ask; leave it out")
        assert "--times: found 0; allowed: " in refusal(path, "ask", "-o", "p.png", "--times", 0)

    def test_points_of_many_names(self, tmp_path: Path):
        sweep = {"A": [1.0, 2.0], "gamma": [0.1, 0.2], "k": [1.0, 2.0]}
        run(make(sampling="zip", parameters={"eta": 0.01}, sweep=sweep), tmp_path / "s.zarr")
        assert "give --at a value of some of A, gamma, k" in refusal(tmp_path / "s.zarr", "mean_spread", "-o", "p.png")

    def test_no_store(self, tmp_path: Path):
        assert "no such store" in refusal(tmp_path / "no.zarr", "mean_spread", "-o", "p.png")

    def test_without_matplotlib(self, path: Path, monkeypatch: pytest.MonkeyPatch):
        monkeypatch.setattr(plots, "can_be_drawn", lambda: False)
        assert re.search(r"for want of matplotlib; install it with: .* 'mfg-jax\[viz\]'", refusal(path, "ask", "-o", "p.png"))

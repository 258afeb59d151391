"""The figures of games and slices: what they hold is what the store holds, told apart from what it does not."""

import base64
import json
from typing import Any

import numpy as np
import pytest
import xarray as xr

import sweeps
from sweeps import figures
from sweeps.dataset import STATUSES, open_store
from sweeps.notebook import Shown
from tests import made_up

SPEC = made_up.make(outputs={"surfaces": True}, units={"price": "tick", "time": "day"})


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> xr.Dataset:
    """12 games, of which those with the largest A did not converge."""
    path = tmp_path_factory.mktemp("figures") / "store.zarr"
    made_up.run(SPEC, path)
    return open_store(path).load()


def decoded(array: dict[str, str]) -> np.ndarray:
    flat = np.frombuffer(base64.b64decode(array["bdata"]), f"<{array['dtype']}")
    return flat.reshape([int(n) for n in array["shape"].split(",")]) if "shape" in array else flat


def titles(figure: figures.Figure) -> list[str]:
    axes = figure["layout"].get("scene", figure["layout"])
    return [axes[axis]["title"]["text"] for axis in ("xaxis", "yaxis", "zaxis") if axis in axes]


def test_a_surface_is_a_mesh_through_the_stored_numbers(store: xr.Dataset) -> None:
    game = store.isel(A=0, gamma=1, crowd_mean=1)
    (mesh,) = figures.game_figures(game)["value"]["data"]
    corners = zip(decoded(mesh["y"]), decoded(mesh["x"]), decoded(mesh["z"]), strict=True)
    times, inventories = game["time"].values.astype("f4"), game["inventory"].values.astype("f4")
    found = np.full(game["value"].shape, np.nan)
    for time, inventory, height in corners:
        found[np.flatnonzero(times == time), np.flatnonzero(inventories == inventory)] = height
    np.testing.assert_array_equal(found, game["value"].transpose("time", "inventory").astype("f4"))


def test_a_mesh_covers_its_surface_once_and_no_gap(store: xr.Dataset) -> None:
    game = store.isel(A=0, gamma=0, crowd_mean=0).copy(deep=True)
    game["ask"].loc[{"inventory": -3.0}] = np.nan  # a side that is not quoted there
    (mesh,) = figures.game_figures(game)["ask"]["data"]
    x, y = decoded(mesh["x"]).astype(float), decoded(mesh["y"]).astype(float)
    a, b, c = (decoded(mesh[corner]) for corner in "ijk")
    areas = np.abs((x[b] - x[a]) * (y[c] - y[a]) - (x[c] - x[a]) * (y[b] - y[a])) / 2
    assert areas.sum() == pytest.approx(5.0)  # inventories -2 … 3, over one day
    assert np.isfinite(decoded(mesh["z"])[np.stack([a, b, c])]).all()


def test_long_days_are_thinned_with_both_ends(store: xr.Dataset) -> None:
    game = store.isel(A=0, gamma=0, crowd_mean=0)
    fine = game.interp(time=np.linspace(0.0, 1.0, 1_001))
    (mesh,) = figures.game_figures(fine)["density"]["data"]
    times = np.unique(decoded(mesh["y"]))
    assert (times.size, times[0], times[-1]) == (figures.MOST_TIMES, 0.0, 1.0)


def test_a_path_is_a_line_through_the_stored_numbers(store: xr.Dataset) -> None:
    game = store.isel(A=1, gamma=0, crowd_mean=0)
    for name in ("full_spread", "inventory_variance", "derisk_probability", "marginal_value"):
        (line,) = figures.game_figures(game)[name]["data"]
        np.testing.assert_array_equal(decoded(line["x"]), game["time"].astype("f4"))
        np.testing.assert_array_equal(decoded(line["y"]), game[name].astype("f4"))


def test_axes_say_their_units(store: xr.Dataset) -> None:
    drawn = figures.game_figures(store.isel(A=0, gamma=0, crowd_mean=0))
    assert titles(drawn["value"]) == ["inventory (lot)", "share of the day", "tick"]
    assert titles(drawn["inventory_variance"]) == ["share of the day", "lot^2"]
    sliced = figures.heat_map(store["mean_spread"].isel(crowd_mean=0), store["status"].isel(crowd_mean=0))
    assert titles(sliced.figure) == ["gamma (tick/lot^2)", "A (1/day)"]
    assert sliced.figure["data"][0]["colorbar"]["title"]["text"] == "mean_spread (tick)"


def test_what_is_not_stored_is_said_with_the_way_to_get_it(store: xr.Dataset) -> None:
    lean = store.drop_vars(["value", "full_spread"]).isel(A=0, gamma=0, crowd_mean=0)
    drawn = figures.game_figures(lean)
    assert set(drawn) == set(figures.TITLES)
    for name, output in (("value", "surfaces: true"), ("full_spread", "paths: true")):
        assert not drawn[name]["data"]
        text = drawn[name]["layout"]["annotations"][0]["text"].replace("<br>", " ")
        assert f"{name} is not stored" in text
        assert output in text
        assert "mfgsweep extend" in text
    assert drawn["ask"]["data"]


def test_metrics_keep_all_digits_and_say_what_is_missing(store: xr.Dataset) -> None:
    game = store.isel(A=0, gamma=0, crowd_mean=0).copy(deep=True)
    game["half_life"] = np.nan
    rows = {row["name"]: row for row in figures.metrics(game)}
    assert rows["mean_spread"]["value"] == game["mean_spread"].item()
    assert rows["mean_spread"]["units"] == "tick"
    assert rows["half_life"]["value"] is None
    assert "status" not in rows


def test_a_heat_map_is_the_slice_with_its_failures_marked(store: xr.Dataset) -> None:
    scalar, status = (store[name].isel(gamma=1).transpose("crowd_mean", "A") for name in ("mean_spread", "status"))
    found = figures.heat_map(scalar, status)
    cells, crosses = found.figure["data"]
    np.testing.assert_array_equal(decoded(cells["z"]), scalar.astype("f4"))
    assert (cells["x"], cells["y"]) == (["1", "3", "300"], ["0", "1"])
    assert list(zip(crosses["x"], crosses["y"], strict=True)) == [("300", "0"), ("300", "1")]
    assert crosses["text"] == ["iteration limit"] * 2
    assert found.places == {"crowd_mean": [0, 1], "A": [0, 1, 2]}


def test_pending_games_are_left_blank(store: xr.Dataset) -> None:
    pending = store.copy(deep=True)
    pending["status"][0, 0, 0] = STATUSES.index("pending")
    cells, crosses = figures.heat_map(pending["mean_spread"].isel(crowd_mean=0), pending["status"].isel(crowd_mean=0)).figure[
        "data"
    ]
    assert np.isnan(decoded(cells["z"])).tolist() == [[True, False], [False, False], [False, False]]
    assert len(crosses["x"]) == 2
    assert all(not figure["data"] for figure in figures.pending_figures().values())


def test_lines_run_through_the_sweep(store: xr.Dataset) -> None:
    at = {"gamma": 0, "crowd_mean": 1}
    found = figures.lines(store["peak_variance"].isel(at), store["status"].isel(at))
    line, crosses = found.figure["data"]
    assert line["x"] == [1.0, 3.0, 300.0]
    np.testing.assert_array_equal(decoded(line["y"]), store["peak_variance"].isel(at).astype("f4"))
    assert crosses["x"] == [300.0]
    assert found.figure["layout"]["xaxis"]["type"] == "log"


def test_infinite_bounds_and_names_are_categories(store: xr.Dataset) -> None:
    bounds = store.isel(gamma=0, crowd_mean=0).rename(A="quote_min").assign_coords(quote_min=[-np.inf, 0.0, 1.0])
    line = figures.lines(bounds["mean_spread"], bounds["status"]).figure
    assert line["data"][0]["x"] == ["-inf", "0", "1"]
    assert line["layout"]["xaxis"]["type"] == "category"
    json.dumps(line, allow_nan=False)


def test_values_that_differ_late_keep_their_cells(store: xr.Dataset) -> None:
    close = store.assign_coords(gamma=[0.1, 0.1 + 1e-9]).isel(crowd_mean=0)
    cells = figures.heat_map(close["mean_spread"], close["status"]).figure["data"][0]
    assert len(set(cells["x"])) == 2


def test_a_cloud_shows_games_where_their_parameters_are(store: xr.Dataset) -> None:
    games = store.stack(point=["A", "gamma", "crowd_mean"]).reset_index("point")
    found = figures.cloud(games["mean_spread"], games["status"], "gamma", "A")
    dots, crosses = found.figure["data"]
    assert (dots["x"], dots["y"]) == (games["gamma"].values.tolist(), games["A"].values.tolist())
    np.testing.assert_array_equal(decoded(dots["marker"]["color"]), games["mean_spread"].astype("f4"))
    assert set(crosses["y"]) == {300.0}
    assert found.places == {"point": list(range(12))}


def test_large_slices_are_thinned_and_know_their_places() -> None:
    long = xr.DataArray(np.arange(1_000_000.0).reshape(1_000, 1_000), dims=("A", "k"), name="mean_spread")
    long = long.assign_coords(A=np.arange(1_000.0), k=np.arange(1_000.0))
    found = figures.heat_map(long, xr.ones_like(long, dtype=np.int8))
    z = decoded(found.figure["data"][0]["z"])
    assert z.shape == (figures.MOST_CELLS, figures.MOST_CELLS)
    assert z[-1, -1] == 999_999
    assert z[3, 5] == np.float32(1_000 * found.places["A"][3] + found.places["k"][5])


def embedded(shown: Shown) -> dict[str, Any]:
    text = shown.page.split('<script type="application/json" id="sweep">')[1].split("</script>")[0]
    return json.loads(text)


def test_a_notebook_shows_the_same_figures(store: xr.Dataset) -> None:
    shown = sweeps.show(store, A=3, gamma=0.05, crowd_mean=1.0)
    content = embedded(shown)
    (game,) = content["games"]
    arrays = [content["arrays"][i] for i in game["arrays"]]
    expected = figures.game_figures(store.sel(A=3, gamma=0.05, crowd_mean=1.0))
    bits = [
        value
        for figure in expected.values()
        for trace in figure["data"]
        for value in trace.values()
        if isinstance(value, dict) and "bdata" in value
    ]
    assert arrays == bits
    assert "srcdoc" in shown._repr_html_()
    assert "http" not in shown._repr_html_().split("srcdoc")[0]


def test_a_notebook_shows_what_is_left_open(store: xr.Dataset) -> None:
    content = embedded(sweeps.show(store, A=1.0))
    assert {dim["name"]: dim["size"] for dim in content["about"]["games"]["dims"]} == {"A": 1, "gamma": 2, "crowd_mean": 2}
    assert len(content["games"]) == 4


def test_a_notebook_is_told_what_there_is(store: xr.Dataset) -> None:
    with pytest.raises(ValueError, match=r"^A: found 2; allowed: 1\.0, 3\.0, 300\.0$"):
        sweeps.show(store, A=2)
    with pytest.raises(ValueError, match=r"^gama: .*did you mean `gamma`"):
        sweeps.show(store, gama=0.02)


def test_a_value_of_another_kind_is_refused(store: xr.Dataset) -> None:
    with pytest.raises(ValueError, match="A: found elastic; allowed:"):
        sweeps.show(store, A="elastic")
    named = store.assign_coords(A=[f"name {i}" for i in range(store.sizes["A"])])
    with pytest.raises(ValueError, match="A: found 1; allowed: name 0"):
        sweeps.show(named, A=1)


def test_what_a_notebook_cannot_show_is_refused(store: xr.Dataset) -> None:
    with pytest.raises(ValueError, match=r"A: found \[1, 3\]; allowed: one value"):
        sweeps.show(store, A=[1, 3])  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="found a dataset without status"):
        sweeps.show(store[["mean_spread"]])

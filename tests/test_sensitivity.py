"""Elasticities and Sobol indices: against functions whose indices are known, and for the model against quadrature."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from typer.testing import CliRunner, Result

from sweeps import engine
from sweeps.cli import app
from sweeps.dataset import open_store
from sweeps.sampling import design
from sweeps.sensitivity import SensitivityError, elasticities, sobol_indices, spread_over_games
from sweeps.spec import Spec, load_spec
from sweeps.study import WIDE_FROM, study

SPANS = {"A": {"uniform": [-math.pi, math.pi]}, "k": {"uniform": [-math.pi, math.pi]}, "eta": {"uniform": [-math.pi, math.pi]}}


def sampled(sweep: dict[str, Any], **options: Any) -> xr.Dataset:
    """The points of a design, every game converged."""
    for name in sweep:
        sweep = {**sweep, name: {key: [ends[0] + 10, ends[1] + 10] for key, ends in sweep[name].items()}}  # parameters are positive
    spec = Spec.model_validate({"sweep": sweep, **options})
    points = design(spec)
    coords = {name: (dims, values - 10) for name, (dims, values) in points.coords.items()}
    return xr.Dataset({"status": ("point", np.ones(len(points), np.int8))}, coords, {"spec": spec.canonical()})


@pytest.fixture(scope="module")
def ishigami() -> xr.Dataset:
    """sin(a) + 7·sin²(b) + 0.1·c⁴·sin(a), whose indices are known (Ishigami and Homma, 1990)."""
    dataset = sampled(SPANS, sampling="saltelli", points=4096)
    a, b, c = dataset.A, dataset.k, dataset.eta
    dataset["mean_spread"] = np.sin(a) + 7 * np.sin(b) ** 2 + 0.1 * c**4 * np.sin(a)
    return dataset


def test_indices_of_a_function_whose_indices_are_known(ishigami: xr.Dataset):
    found = sobol_indices(ishigami, "mean_spread")
    table = found.table.set_index("axis").astype(float).to_dict("index")
    variance = 49 / 8 + 0.1 * math.pi**4 / 5 + 0.01 * math.pi**8 / 18 + 0.5
    alone = {"A": 0.5 * (1 + 0.1 * math.pi**4 / 5) ** 2, "k": 49 / 8, "eta": 0.0}
    together = 0.01 * math.pi**8 * (1 / 18 - 1 / 50)
    totals = {"A": alone["A"] + together, "k": alone["k"], "eta": together}
    for axis in alone:
        first, total = table[axis]["first"], table[axis]["total"]
        assert abs(first - alone[axis] / variance) < min(0.02, table[axis]["first_half_width"])
        assert abs(total - totals[axis] / variance) < min(0.02, table[axis]["total_half_width"])
    np.testing.assert_allclose(found.table.interaction, found.table.total - found.table["first"])
    assert (found.blocks, found.left_out) == (4096, 0)
    assert found.table.total.is_monotonic_decreasing


@pytest.mark.parametrize("how", ["status", "number"])
def test_blocks_with_a_game_that_failed_are_left_out_whole(ishigami: xr.Dataset, how: str):
    broken = ishigami.copy(deep=True)
    for game in (7, 8, 5 * 1000 + 4):  # two in block 1, one in block 1000
        if how == "status":
            broken["status"][game] = 2
            broken["mean_spread"][game] = 1e9  # whatever it ended with
        else:
            broken["mean_spread"][game] = np.nan
    found = sobol_indices(broken, "mean_spread")
    keep = np.ones(4096, bool)
    keep[[1, 1000]] = False
    kept = ishigami.isel(point=np.repeat(keep, 5))
    pd.testing.assert_frame_equal(found.table, sobol_indices(kept, "mean_spread").table)
    assert (found.blocks, found.left_out) == (4096, 2)


def test_what_cannot_be_told(ishigami: xr.Dataset):
    constant = ishigami.assign(mean_spread=0 * ishigami.mean_spread + 3)
    failed = ishigami.assign(status=ishigami.status * 2)
    drawn = sampled(SPANS, sampling="random", points=8)
    for dataset, metric, message in (
        (constant, "mean_spread", "mean_spread: is 3 in every game, so nothing moves it"),
        (failed, "mean_spread", "mean_spread: 0 of 4096 blocks of the design are whole; at least 2 are needed"),
        (ishigami, "spread", "no scalar spread; allowed: mean_spread"),
        (drawn, "mean_spread", "Sobol indices need a sweep with sampling: saltelli; this one has random"),
    ):
        with pytest.raises(SensitivityError) as caught:
            sobol_indices(dataset, metric)
        assert str(caught.value) == message
    with pytest.raises(SensitivityError, match="no derivatives of mean_spread"):
        elasticities(ishigami, "mean_spread")
    with pytest.raises(SensitivityError, match="no derivatives and no Saltelli design"):
        study(drawn, [])


class TestElasticities:
    @pytest.fixture
    def powers(self) -> xr.Dataset:
        """A²·crowd_std³/k, where crowd_std has its default, k is fixed, and one game failed."""
        A = xr.DataArray([1.0, 2.0, 4.0, 8.0], dims="A", coords={"A": [1.0, 2.0, 4.0, 8.0]})
        metric = A**2 * 2.0**3 / 5.0
        by_parameter = [2 * metric / A, -metric / 5.0, 3 * metric / 2.0, 0 * metric]
        derivatives = xr.concat(by_parameter, dim=pd.Index(["A", "k", "crowd_std", "k0"], name="parameter"))
        spec = Spec.model_validate({"parameters": {"k": 5.0}, "sweep": {"A": A.values.tolist()}})
        variables = {"mean_spread": metric, "d_mean_spread": derivatives.transpose("A", "parameter")}
        return xr.Dataset({**variables, "status": ("A", [1, 1, 2, 1])}, attrs={"spec": spec.canonical()})

    def test_are_the_powers_of_a_product(self, powers: xr.Dataset):
        found = elasticities(powers, "mean_spread")
        assert found.dims == ("A", "parameter")
        assert found.parameter.values.tolist() == ["A", "k", "crowd_std"]  # k0 is 0, and has no per cent
        np.testing.assert_allclose(found.isel(A=[0, 1, 3]), np.broadcast_to([2.0, -1.0, 3.0], (3, 3)), rtol=1e-14)
        assert np.isnan(found.isel(A=2)).all()

    def test_over_games(self, powers: xr.Dataset):
        powers["mean_spread"][3] *= 2  # halves its elasticities
        table = spread_over_games(elasticities(powers, "mean_spread")).set_index("parameter")
        assert table.index.tolist() == ["crowd_std", "A", "k"]
        np.testing.assert_allclose(table.loc["A"], [1.1, 2.0, 2.0], rtol=1e-12)

    def test_no_game_converged(self, powers: xr.Dataset):
        with pytest.raises(SensitivityError, match="no game of the store converged"):
            spread_over_games(elasticities(powers.assign(status=0 * powers.status), "mean_spread"))


GAME = """\
model: {coupling: elastic, x_max: 3, n_steps: 16}
parameters: {k: 1.5, k0: 0.75, eta: 0.05, crowd_std: 0.5}
solver: {select: cold}
"""
LOW, HIGH, GAMMA_LOW, GAMMA_HIGH = 0.5, 5.0, 0.05, 1.0


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Saltelli design, and the grid of a quadrature."""
    folder = tmp_path_factory.mktemp("sensitivity")
    spans = f"  A: {{uniform: [{LOW}, {HIGH}]}}\n  gamma: {{log_uniform: [{GAMMA_LOW}, {GAMMA_HIGH}]}}\n"
    outputs = "outputs: {paths: false, gradients: [mean_spread, final_derisk_probability]}\n"
    drawn = f"{GAME}sampling: saltelli\npoints: 256\nsweep:\n{spans}{outputs}"
    nodes = np.polynomial.legendre.leggauss(12)[0]
    A = LOW + (HIGH - LOW) * (nodes + 1) / 2
    gamma = np.exp(np.log(GAMMA_LOW) + np.log(GAMMA_HIGH / GAMMA_LOW) * (nodes + 1) / 2)
    for name, text in {
        "drawn": drawn,
        "grid": f"{GAME}sweep:\n  A: {A.tolist()}\n  gamma: {gamma.tolist()}\noutputs: {{paths: false}}\n",
    }.items():
        (folder / f"{name}.yaml").write_text(text)
        engine.run(load_spec(folder / f"{name}.yaml"), folder / f"{name}.zarr")
    return folder


class TestTheModel:
    """The variance of the final derisk probability, over A alike in [0.5, 5] and gamma alike in its logarithm."""

    def sensitivity(self, *arguments: object) -> Result:
        return CliRunner().invoke(app, ["sensitivity", *map(str, arguments)])

    def test_indices_against_quadrature(self, folder: Path):
        weights = np.polynomial.legendre.leggauss(12)[1] / 2
        values = open_store(folder / "grid.zarr").final_derisk_probability.values
        mean = weights @ values @ weights
        variance = weights @ (values - mean) ** 2 @ weights
        alone = weights @ (values @ weights - mean) ** 2 / variance, weights @ (weights @ values - mean) ** 2 / variance
        table = sobol_indices(open_store(folder / "drawn.zarr"), "final_derisk_probability").table.set_index("axis")
        assert min(alone) > 0.1  # both matter
        for axis, (first, other) in {"A": alone, "gamma": alone[::-1]}.items():
            assert abs(table["first"][axis] - first) < 0.05
            assert abs(table["total"][axis] - (1 - other)) < 0.05

    def test_the_command_writes_what_it_tells(self, folder: Path, tmp_path: Path):
        told = self.sensitivity(folder / "drawn.zarr", "--metrics", "final_derisk_probability,mean_spread", "-o", tmp_path / "out")
        assert told.exit_code == 0
        names = ["elasticities.csv", "elasticities.png", "heat_map.png", "indices.csv", "indices.png", "report.md"]
        assert sorted(path.name for path in (tmp_path / "out").iterdir()) == names
        indices = pd.read_csv(tmp_path / "out" / "indices.csv")
        assert indices.metric.unique().tolist() == ["final_derisk_probability", "mean_spread"]
        for row in indices.to_dict("records"):
            assert f"{row['total']:.3f} ± {row['total_half_width']:.3f}" in told.stdout
        widest = indices[["first_half_width", "total_half_width"]].to_numpy().max()
        assert ("Some intervals reach" in told.stdout) == (widest > WIDE_FROM)
        self.sensitivity(folder / "drawn.zarr", "-o", tmp_path / "parquet", "--tables", "parquet")
        assert "median" in pd.read_parquet(tmp_path / "parquet" / "elasticities.parquet")

    def test_messages(self, folder: Path, tmp_path: Path):
        for arguments, message in (
            ([folder / "grid.zarr"], f"{folder}/grid.zarr: the store holds no derivatives and no Saltelli design"),
            ([folder / "none.zarr"], f"{folder}/none.zarr: no such store"),
            (
                [folder / "drawn.zarr", "--metrics", "spread"],
                f"{folder}/drawn.zarr: 'spread' is no scalar metric; allowed: mean_spread",
            ),
        ):
            told = self.sensitivity(*arguments)
            assert told.exit_code == 2
            assert told.stderr.startswith(f"mfgsweep: {message}")

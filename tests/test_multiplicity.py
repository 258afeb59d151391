"""Games with several equilibria (MODEL.md, section 5)."""

from pathlib import Path

import numpy as np
import pytest

import mfg_jax as mfg
from sweeps import engine
from sweeps.dataset import open_store
from sweeps.spec import Spec
from tests.conftest import BASE_GAME, parameters_of

S = {"eta": 0.1, "crowd_mean": 2.0}


def test_three_equilibria_of_the_skewed_game() -> None:
    """The path leads to one, the corners of the quote box to two more. Each stands on its own feet."""
    model = mfg.Model("relative", n_steps=50)
    found = mfg.find_equilibria(model, parameters_of(S | {"gamma": 2.0}))
    openings = np.array([[equilibrium.crowd_ask[0], equilibrium.crowd_bid[0]] for equilibrium in found])
    np.testing.assert_allclose(openings[0], [0.0, 4.99986], atol=2e-5)
    np.testing.assert_allclose(sorted(openings[1:].tolist()), [[1.27868, 0.17551], [3.64, 0.0]], atol=0.06)
    assert [int(equilibrium.branch) for equilibrium in found] == [mfg.Branch.PRINCIPAL, mfg.Branch.OTHER, mfg.Branch.OTHER]
    for equilibrium in found:
        assert equilibrium.status == mfg.Status.CONVERGED and equilibrium.residual * 1.5 <= 1e-9
        assert equilibrium.mass_error < 1e-13 and equilibrium.min_density > -1e-13
    only = mfg.find_equilibria(model, parameters_of({"A": 5.0}))
    assert len(only) == 1 and only[0].branch == mfg.Branch.PRINCIPAL


def test_a_sweep_counts_them(tmp_path: Path) -> None:
    spec = Spec.model_validate(
        {
            "model": {"coupling": "relative", "n_steps": 50},
            "parameters": {name: value for name, value in (BASE_GAME | S).items() if name not in ("gamma", "eta")},
            "sweep": {"gamma": [2.0, 0.05], "eta": [0.1, 0.01]},
            "sampling": "zip",
            "outputs": {"equilibria": True, "paths": False},
            "solver": {"select": "cold"},
        }
    )
    engine.run(spec, tmp_path / "s.zarr")
    counted = open_store(tmp_path / "s.zarr").equilibria
    assert counted.values.tolist() == [3.0, 1.0]
    assert counted.attrs == {"units": "1", "long_name": "equilibria found by looking for all of them"}


def test_no_game_no_equilibrium() -> None:
    assert mfg.find_equilibria(mfg.Model("relative", n_steps=50), parameters_of({"eta": -1.0})) == []


def test_a_choice_of_certificates_is_checked_first() -> None:
    with pytest.raises(ValueError, match="certify must be one of 'basic', 'full'; found 'all'"):
        mfg.find_equilibria(mfg.Model("relative"), parameters_of({}), certify="all")

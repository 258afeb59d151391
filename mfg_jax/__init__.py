"""Equilibria of competing market makers: a mean-field game on an inventory lattice, in JAX.

import mfg_jax as mfg
model, parameters = mfg.Model(coupling="relative"), mfg.Parameters(A=10.0, k=1.5, eta=0.01, gamma=0.05)
equilibrium = mfg.solve(model, parameters)
metrics = mfg.metrics(model, parameters, equilibrium)
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from mfg_jax.coupling import Coupling, Elastic, MarketShare, Relative, Uncoupled
from mfg_jax.crowd import InitialCrowd, Normal, Point, Uniform, Weights
from mfg_jax.equilibrium import solve
from mfg_jax.exponential import Exponential
from mfg_jax.fixed_point import Anderson, FixedPointSolver, Picard
from mfg_jax.long_run import LongRun, solve_long_run
from mfg_jax.measures import Metrics, metrics
from mfg_jax.model import Model
from mfg_jax.multiplicity import find_equilibria
from mfg_jax.parameters import Flow, Parameters
from mfg_jax.scheme import EULER, RK4, RungeKutta, Scheme
from mfg_jax.solution import Branch, Equilibrium, Status
from mfg_jax.turning_points import find_turning_points

if TYPE_CHECKING:
    from mfg_jax.fitting import Fit, FitWarning, fit
    from mfg_jax.reaching import Reach, reach

__all__ = [
    "EULER",
    "RK4",
    "Anderson",
    "Branch",
    "Coupling",
    "Elastic",
    "Equilibrium",
    "Exponential",
    "Fit",
    "FitWarning",
    "FixedPointSolver",
    "Flow",
    "InitialCrowd",
    "LongRun",
    "MarketShare",
    "Metrics",
    "Model",
    "Normal",
    "Parameters",
    "Picard",
    "Point",
    "Reach",
    "Relative",
    "RungeKutta",
    "Scheme",
    "Status",
    "Uncoupled",
    "Uniform",
    "Weights",
    "find_equilibria",
    "find_turning_points",
    "fit",
    "metrics",
    "reach",
    "solve",
    "solve_long_run",
]

_WHEN_ASKED_FOR = {"Fit": "fitting", "FitWarning": "fitting", "fit": "fitting", "Reach": "reaching", "reach": "reaching"}
"""Modules that import SciPy's statistics or optax, which takes as long as all others together."""


def __getattr__(name: str) -> Any:
    if name not in _WHEN_ASKED_FOR:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_WHEN_ASKED_FOR[name]}"), name)

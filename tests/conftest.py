"""What every test needs: double precision, quiet hypothesis, and games solved in batches by programs compiled once."""

import functools
import os
import tempfile
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeVar

# JAX 0.10 runs the small loops of this library operation by operation unless told to compile them whole, which is four times
# faster. Later versions do so by themselves and accept the option. It must be set before JAX starts.
os.environ["XLA_FLAGS"] = (
    os.environ.get("XLA_FLAGS", "") + " --xla_backend_extra_options=xla_cpu_small_while_loop_byte_threshold=1000000000"
)

# Programs are kept for the processes of these tests alone, which run side by side and start others.
if "PYTEST_XDIST_WORKER" not in os.environ:
    _CACHES = tempfile.TemporaryDirectory(prefix="mfg-jax-tests-")
    os.environ["XDG_CACHE_HOME"] = _CACHES.name

import jax
import numpy as np
from hypothesis import settings

import mfg_jax as mfg

jax.config.update("jax_enable_x64", True)
jax.config.update("jax_numpy_dtype_promotion", "strict")
# Compiling dominates the time of the tests, and without optimisation takes half. Programs that tests start do optimise.
jax.config.update("jax_disable_most_optimizations", True)

settings.register_profile("tests", deadline=None, derandomize=True, max_examples=40)
settings.load_profile("tests")

T = TypeVar("T")

LANES = 8
"""Games in one call of a compiled program; fewer are filled up with copies, so that nothing is compiled for another number."""

BASE_GAME = {
    "A": 10.0,
    "k": 1.5,
    "k0": 0.0,
    "n_makers": 5.0,
    "eta": 0.01,
    "gamma": 0.05,
    "crowd_mean": 0.0,
    "crowd_std": 2.0,
    "horizon": 1.0,
    "quote_min": 0.0,
    "quote_max": 5.0,
}

UNCLIPPED = {"quote_min": -np.inf, "quote_max": np.inf}


class Differentiated(NamedTuple):
    """One solved game with the gradient of `metrics.mean_spread`, as NumPy arrays."""

    equilibrium: mfg.Equilibrium
    metrics: mfg.Metrics
    gradient: mfg.Parameters


def default_model(coupling: str, **choices: object) -> mfg.Model:
    """The default model, solved to rounding."""
    return mfg.Model(coupling, **{"solver": {"tolerance": 1e-12}, **choices})


def parameters_of(game: dict[str, Any]) -> mfg.Parameters:
    """`BASE_GAME` with these numbers in place."""
    return mfg.Parameters(**(BASE_GAME | game))


def solve_games(model: mfg.Model, *games: dict[str, float]) -> list[mfg.Equilibrium]:
    """Solves games in batches by the cold iteration, by a program compiled once per model."""
    return _in_batches(_solve(model), games)


def differentiate_games(model: mfg.Model, *games: dict[str, float]) -> list[Differentiated]:
    """Solves games by the cold iteration, with their metrics and gradients, by a program compiled once per model."""
    return _in_batches(_differentiate(model), games)


def measure(model: mfg.Model, game: dict[str, float], equilibrium: mfg.Equilibrium) -> mfg.Metrics:
    """The metrics of a solved game."""
    return jax.tree.map(np.asarray, _measure(model)(parameters_of(game), equilibrium))


def _in_batches(program: Callable[[mfg.Parameters], T], games: Sequence[dict[str, float]]) -> list[T]:
    found = []
    for first in range(0, len(games), LANES):
        lanes = games[first : first + LANES]
        filled = [*lanes, *[lanes[0]] * (LANES - len(lanes))]
        batch = program(jax.tree.map(lambda *leaves: np.array(leaves), *map(parameters_of, filled)))
        batch = jax.tree.map(np.asarray, batch)
        found += [jax.tree.map(lambda leaf, lane=lane: leaf[lane], batch) for lane in range(len(lanes))]
    return found


@functools.cache
def _solve(model: mfg.Model) -> Callable[[mfg.Parameters], mfg.Equilibrium]:
    return jax.jit(jax.vmap(lambda parameters: mfg.solve(model, parameters, select="cold")))


@functools.cache
def _measure(model: mfg.Model) -> Callable[[mfg.Parameters, mfg.Equilibrium], mfg.Metrics]:
    return jax.jit(functools.partial(mfg.metrics, model))


@functools.cache
def _differentiate(model: mfg.Model) -> Callable[[mfg.Parameters], Differentiated]:
    def mean_spread(parameters: mfg.Parameters) -> tuple[jax.Array, tuple[mfg.Equilibrium, mfg.Metrics]]:
        equilibrium = mfg.solve(model, parameters, select="cold")
        metrics = mfg.metrics(model, parameters, equilibrium)
        return metrics.mean_spread, (equilibrium, metrics)

    def differentiate(parameters: mfg.Parameters) -> Differentiated:
        (_, found), gradient = jax.value_and_grad(mean_spread, has_aux=True)(parameters)
        equilibrium, metrics = found
        return Differentiated(equilibrium, metrics, gradient)

    return jax.jit(jax.vmap(differentiate))

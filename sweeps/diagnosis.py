"""Whether this installation works, and how well."""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.linalg import expm

import mfg_jax as mfg
from sweeps import runtime

TOLERATED_ERROR = 1e-6


@dataclass(frozen=True)
class Diagnosis:
    """What was found, a line an item, and whether all is well."""

    lines: list[str]
    healthy: bool


def diagnose() -> Diagnosis:
    """Versions, devices, precision, memory, and a game solved against its exact solution."""
    about = runtime.provenance()
    error = self_check()
    healthy = error <= TOLERATED_ERROR
    idle = runtime.idle_gpu()
    lines = [
        *(f"{name:<12}{number}" for name, number in about["versions"].items()),
        f"device      {about['device']}; all: {', '.join(str(device) for device in jax.devices())}",
        f"precision   {'float64' if jax.config.jax_enable_x64 else 'float32'}",  # pyright: ignore[reportAttributeAccessIssue]
        f"memory      {runtime.readable(runtime.free_memory())} free",
        f"self-check  {'passed' if healthy else 'FAILED'}: largest error of a value function {error:.1e} "
        f"(allowed {TOLERATED_ERROR:.0e})",
        *([idle] if idle else []),
    ]
    return Diagnosis(lines, healthy)


def self_check() -> float:
    """Largest error of V in an uncoupled, unclipped game, whose exp(kV) solves a linear equation (MODEL.md, section 8, 1)."""
    A, k, eta, gamma, x_max = 10.0, 1.5, 0.01, 0.05, 5
    unclipped = {"quote_min": -np.inf, "quote_max": np.inf}
    model = mfg.Model(coupling="none", x_max=x_max)
    value = mfg.solve(model, mfg.Parameters(A=A, k=k, eta=eta, gamma=gamma, **unclipped), select="cold").value[0]
    x = jnp.arange(-x_max, x_max + 1.0)
    neighbours = jnp.eye(x.size, k=1) + jnp.eye(x.size, k=-1)
    exact = jnp.log(expm(A / jnp.e * neighbours - jnp.diag(k * eta * x**2)) @ jnp.exp(-k * gamma * x**2)) / k
    return float(jnp.max(jnp.abs(value - exact)))

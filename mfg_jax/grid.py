"""The time grid, and what is computed on it once, before any game: interpolation stencils and quadrature weights."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int

STENCIL = 6  # nodes of a local interpolant: its error, of order 6, stays below that of a fourth-order scheme


def graded_fractions(n_steps: int, grading: float) -> Float[np.ndarray, " time"]:
    """Fractions 0 … 1 of the horizon, clustered towards the close (MODEL.md, section 9): 1 − (e^(a·u) − 1)/(e^a − 1), u = 1 … 0.

    A grading of 0, or too small to tell from 0, is uniform.
    """
    u = np.linspace(1.0, 0.0, n_steps + 1)
    return 1.0 - (np.expm1(grading * u) / np.expm1(grading) if grading > np.finfo(float).eps else u)


def interpolation_stencil(
    nodes: Float[np.ndarray, " time"], targets: Float[np.ndarray, " target"]
) -> tuple[Int[np.ndarray, "target stencil"], Float[np.ndarray, "target stencil"]]:
    """Indices and weights such that Σ weights·f[indices] interpolates f, known at the nodes, at each target."""
    width = min(STENCIL, len(nodes))
    first = np.clip(np.searchsorted(nodes, targets) - width // 2, 0, len(nodes) - width)
    indices = first[:, None] + np.arange(width)
    local = nodes[indices]
    weights = np.ones_like(local)
    for i in range(width):
        for j in range(width):
            if i != j:
                weights[:, i] *= (targets - local[:, j]) / (local[:, i] - local[:, j])
    return indices, weights


def quadrature_weights(nodes: Float[np.ndarray, " time"]) -> Float[np.ndarray, " time"]:
    """Weights such that Σ weights·f approximates ∫f over the nodes' range: the local interpolants, integrated exactly."""
    gauss_nodes, gauss_weights = np.polynomial.legendre.leggauss(STENCIL // 2)
    weights = np.zeros_like(nodes)
    width = np.diff(nodes)
    for node, weight in zip(gauss_nodes, gauss_weights, strict=True):
        indices, stencil = interpolation_stencil(nodes, nodes[:-1] + 0.5 * (1.0 + node) * width)
        np.add.at(weights, indices, stencil * (0.5 * weight * width)[:, None])
    return weights

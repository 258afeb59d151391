"""The time grid, and what is computed on it once, before any game: interpolation stencils and quadrature weights."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

STENCIL = 6  # nodes of a local interpolant: its error, of order 6, stays below that of a fourth-order scheme


def joined(before: Float[Array, "step ..."], end: Float[Array, "..."]) -> Float[Array, "time ..."]:
    """A path from what it is where each step starts, and at the end."""
    return jnp.concatenate([before, end[None]])


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


def smooth_interpolation(
    nodes: Float[np.ndarray, " time"], path: Float[Array, "time side *batch"], targets: Float[np.ndarray, " target"]
) -> Float[Array, "target side *batch"]:
    """A path between its nodes, by polynomials: of order six where it is smooth."""
    indices, weights = interpolation_stencil(nodes, targets)
    return (_along_time(weights, path) * path[indices]).sum(axis=1)


def linear_interpolation(
    nodes: Float[np.ndarray, " time"], path: Float[Array, "time side *batch"], targets: Float[np.ndarray, " target"]
) -> Float[Array, "target side *batch"]:
    """A path between its nodes, by straight lines."""
    before, _, fraction = _places(nodes, targets)
    weight = _along_time(fraction, path)
    return (1.0 - weight) * path[before] + weight * path[before + 1]


def monotone_interpolation(
    nodes: Float[np.ndarray, " time"], path: Float[Array, "time side *batch"], targets: Float[np.ndarray, " target"]
) -> Float[Array, "target side *batch"]:
    """A path between its nodes, by cubics that never leave the range of the two nearest.

    Of order three or more where the path is smooth, of order two at its extremes; it cannot oscillate (Fritsch and Butland, SIAM J.
    Sci. Stat. Comput. 5, 1984).
    """
    before, width, fraction = _places(nodes, targets)
    tangents = _monotone_tangents(nodes, path)
    h, u = _along_time(width, path), _along_time(fraction, path)
    straight = (1.0 + 2.0 * u) * (1.0 - u) ** 2 * path[before] + u**2 * (3.0 - 2.0 * u) * path[before + 1]
    return straight + h * u * (1.0 - u) * ((1.0 - u) * tangents[before] - u * tangents[before + 1])


def _along_time(values: Float[np.ndarray, "*shape"], path: Float[Array, "time side *batch"]) -> Float[Array, "*shape 1 *#batch"]:
    """Shaped to go with the path."""
    return jnp.asarray(values.reshape(values.shape + (1,) * (path.ndim - 1)), path.dtype)


def _monotone_tangents(
    nodes: Float[np.ndarray, " time"], path: Float[Array, "time side *batch"]
) -> Float[Array, "time side *batch"]:
    """At an inner node a harmonic mean of the slopes to its left and right, 0 where they differ in sign."""
    width = _along_time(np.diff(nodes), path)
    slope = jnp.diff(path, axis=0) / width
    left, right, before, after = slope[:-1], slope[1:], width[:-1], width[1:]
    same = left * right > 0
    share_left, share_right = (
        (2.0 * after + before) / jnp.where(same, left, 1.0),
        (after + 2.0 * before) / jnp.where(same, right, 1.0),
    )
    mean = 3.0 * (before + after) / jnp.where(same, share_left + share_right, 1.0)
    first = _end_tangent(width[:2], slope[:2])
    last = _end_tangent(width[-2:][::-1], slope[-2:][::-1])
    return jnp.concatenate([first, jnp.where(same, mean, 0.0), last])


def _end_tangent(width: Float[Array, "two 1 *#batch"], slope: Float[Array, "two side *batch"]) -> Float[Array, "1 side *batch"]:
    """That of the parabola through the three nodes at an end, kept between 0 and three times the outer slope."""
    if len(slope) < 2:
        return slope[:1]
    outer = slope[:1]
    tangent = ((2.0 * width[0] + width[1]) * outer - width[0] * slope[1:]) / (width[0] + width[1])
    return jnp.clip(tangent, jnp.minimum(0.0, 3.0 * outer), jnp.maximum(0.0, 3.0 * outer))


def _places(
    nodes: Float[np.ndarray, " time"], targets: Float[np.ndarray, " target"]
) -> tuple[Int[np.ndarray, " target"], Float[np.ndarray, " target"], Float[np.ndarray, " target"]]:
    """The node before each target, the width of its interval, and where in that it lies, from 0 to 1."""
    before = np.clip(np.searchsorted(nodes, targets, side="right") - 1, 0, len(nodes) - 2)
    width = np.diff(nodes)[before]
    return before, width, (targets - nodes[before]) / width

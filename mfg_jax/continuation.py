"""The path of equilibria from the uncoupled game to the target (MODEL.md, section 5).

Makers who see the crowd's offsets through a dial, dial·D instead of D, play the uncoupled game at dial 0, which has one
equilibrium, and the target at dial 1; for exponential rates that is the same as moving k0 from k to its own value. For every
dial the best reply maps the quote box into itself, so the connected set of equilibria that contains the uncoupled one reaches
dial 1. The path is followed in (crowd path, dial) by pseudo-arclength, which goes round folds; the first equilibrium it meets at
dial 1 is the principal one.

It is one state machine: a trip is one evaluation of Φ and of a derivative of Φ in one direction, whatever a game is about to do
with it, so games in a batch never wait for each other within a step.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from mfg_jax import krylov
from mfg_jax.best_reply import best_reply
from mfg_jax.dense import sign_of_determinant
from mfg_jax.game import Game, in_the_box
from mfg_jax.krylov import Krylov
from mfg_jax.model import Model

Path = Float[Array, "time side"]
Point = Float[Array, " unknown"]
"""The crowd's offsets, in units of their typical size along the path, and the dial: lengths along the path are Euclidean."""

EVALUATING, CORRECTING, TURNING = range(3)
WALKING, ARRIVED, STUCK = range(3)

FARTHEST_DIAL = 2.5
"""Past dial 1 makers see more of the crowd's offsets than there is; a path may come back from there."""

FIRST_STEP, LONGEST_STEP, SHORTEST_STEP = 0.1, 0.5, 1e-6
CAREFUL_STEP = 0.03
"""The longest step where longer ones led astray: paths of nearly symmetric games pass close by each other."""
PATH_TOLERANCE = 1e-6
"""Residual·k at which a point counts as one of the path."""
MOST_CORRECTIONS, MOST_CORRECTIONS_OF_A_GUESS = 8, 25
MOST_TRIPS_A_SOLVE = 40
MOST_TRIPS, MOST_TRIPS_ONWARD = 6000, 2000
LINEAR_TOLERANCE = 1e-2
"""Of Newton's corrections, each of which mends what the one before left."""
TANGENT_TOLERANCE = 1e-4
"""Nothing mends a wrong tangent: near folds a coarser one led to points far from where it pointed, and to ever shorter steps."""


class Walk(NamedTuple):
    """How far a game is along its path, and what it is about to do."""

    here: Point
    """The last point accepted."""
    tangent: Point
    step: Float[Array, ""]
    side: Float[Array, ""]
    """From where the target is looked for: 1 from lower dials, −1 from higher ones."""
    anchor: Point
    """The point predicted, one step along the tangent."""
    normal: Point
    """Corrections stay in the plane through the anchor that is normal to this: the tangent, or the dial's axis on arrival."""
    arriving: Bool[Array, ""]
    trial: Point
    doing: Int[Array, ""]
    """EVALUATING Φ at the trial; CORRECTING it by Newton; TURNING, that is finding the tangent there."""
    linear: Krylov
    corrections: Int[Array, ""]
    residual: Float[Array, ""]
    """max |Φ(D) − D| at the trial before this one; at the end, at the point found. Price units."""
    folds: Int[Array, ""]
    trips: Int[Array, ""]
    outcome: Int[Array, ""]


class Found(NamedTuple):
    """Where a walk ended."""

    crowd: Path
    residual: Float[Array, ""]
    arrived: Bool[Array, ""]
    folds: Int[Array, ""]
    trips: Int[Array, ""]


class Walker:
    """Follows equilibria of one game.

    Args:
        phi: the best reply's crowd to a crowd path.
        project: clips a crowd path to the quote box.
        size: typical size of an offset, price units (2/k); `residual·k` is judged in units of it.
        tolerance: price units, of the point found at dial 1.
        shape: of a crowd path.
        longest_step: along the path, in its units.
    """

    def __init__(
        self,
        phi: Callable[[Path], Path],
        project: Callable[[Path], Path],
        size: Float[Array, ""],
        tolerance: Float[Array, ""],
        shape: tuple[int, int],
        longest_step: float = LONGEST_STEP,
    ) -> None:
        self.phi, self.project, self.size, self.tolerance, self.shape = phi, project, size, tolerance, shape
        self.longest_step = longest_step
        self.scale = size * (shape[0] * shape[1]) ** 0.5
        self.start = self._start()

    @classmethod
    def of(cls, model: Model, game: Game, tolerance: Float[Array, ""], longest_step: float = LONGEST_STEP) -> Walker:
        """For a game on the model's grid."""
        return cls(
            phi=lambda crowd: best_reply(model, game, crowd).crowd,
            project=lambda crowd: in_the_box(game, crowd),
            size=2.0 / jnp.max(game.flow.k),
            tolerance=tolerance,
            shape=(model.n_steps + 1, 2),
            longest_step=longest_step,
        )

    def follow(self, skip: Bool[Array, ""] | bool = False) -> Found:
        """The principal equilibrium: along the path from dial 0 to dial 1. A game to `skip` takes no trip."""
        return self.first_equilibrium(skip)[0]

    def first_equilibrium(self, skip: Bool[Array, ""] | bool = False) -> tuple[Found, Walk]:
        """The same, with the walk's end for `next_equilibrium`."""
        end = self._walk(self.start, skip)
        return self._found(end), end

    def on_one_path(self, found: Found) -> Bool[Array, ""]:
        """Whether what `follow` found can lie on the path from the uncoupled game, or a step led to another one on the way.

        The sign of det(I − Φ′) is 1 at dial 0 and changes at every fold and nowhere else, save where paths cross: only in symmetric
        games, whose symmetric path steps never leave. Takes as many derivatives of Φ as there are unknowns: for coarse grids.
        """
        unknowns = found.crowd.size
        unit = jnp.eye(unknowns, dtype=found.crowd.dtype)

        def slope(direction: Float[Array, " unknown"]) -> Float[Array, " unknown"]:
            return jax.jvp(self.phi, (found.crowd,), (direction.reshape(self.shape),))[1].ravel()

        # one direction after the other, which compiles in half the time of all at once
        sign = sign_of_determinant(unit - jax.lax.map(slope, unit))
        symmetric = jnp.max(jnp.abs(found.crowd[:, 0] - found.crowd[:, 1])) <= PATH_TOLERANCE * self.size
        return symmetric | (sign == jnp.where(found.folds % 2 == 0, 1.0, -1.0))

    def arrive(self, guess: Path, from_the_start: Bool[Array, ""], skip: Bool[Array, ""] | bool = False) -> Found:
        """By Newton's method at dial 1 from a guess, as `polish`; or along the whole path, as `follow`."""
        return self._found(self._walk(_choose(from_the_start, self.start, self._at_target(guess)), skip))

    def polish(self, guess: Path, skip: Bool[Array, ""] | bool = False) -> Found:
        """The equilibrium that Newton's method at dial 1 reaches from a guess, if it reaches one."""
        return self._found(self._walk(self._at_target(guess), skip))

    def next_equilibrium(self, arrived: Walk) -> tuple[Found, Walk]:
        """From a point at dial 1 on along the path, past it, to where the path next meets dial 1: round a fold, if it does."""
        onward = arrived._replace(
            normal=arrived.tangent,
            arriving=jnp.asarray(False),
            doing=jnp.asarray(TURNING),
            linear=self._begin(self._axis()),
            trips=jnp.zeros_like(arrived.trips),
            outcome=jnp.asarray(WALKING),
        )
        end = self._walk(onward, most_trips=MOST_TRIPS_ONWARD)
        return self._found(end), end

    def next_point(self, walk: Walk) -> Walk:
        """On to the next point of the path, or to the walk's end."""

        def under_way(now: Walk) -> Bool[Array, ""]:
            moved = jnp.any(now.here != walk.here) & (now.trips > walk.trips)  # a NaN differs from itself
            return (now.outcome == WALKING) & (now.trips < MOST_TRIPS) & ~moved

        return jax.lax.while_loop(under_way, self._trip, walk)

    def with_step(self, walk: Walk, step: Float[Array, ""]) -> Walk:
        """About to take another step from the same point."""
        return self._launch(walk._replace(step=step))

    def departing(self, crowd: Path, direction: Float[Array, ""]) -> Walk:
        """At an equilibrium at dial 1, about to leave it along its path towards higher (1) or lower (−1) dials."""
        return self._standing(self._point(crowd, jnp.ones_like(self.scale)), direction * self._axis())

    # Points.

    def _point(self, crowd: Path, dial: Float[Array, ""]) -> Point:
        return jnp.append(crowd.ravel() / self.scale, dial)

    def _crowd(self, point: Point) -> Path:
        return self.scale * point[:-1].reshape(self.shape)

    def _axis(self) -> Point:
        """The direction of the dial."""
        return jnp.zeros(self.shape[0] * self.shape[1] + 1, self.scale.dtype).at[-1].set(1.0)

    def _in_the_box(self, point: Point) -> Point:
        return self._point(self.project(self._crowd(point)), point[-1])

    def _excess(self, point: Point) -> Point:
        """Φ(dial·D) − D, in units of `scale`."""
        crowd = self._crowd(point)
        return (self.phi(point[-1] * crowd) - crowd).ravel() / self.scale

    # The walk.

    def _start(self) -> Walk:
        """At the uncoupled equilibrium, about to find the tangent of the path."""
        here = self._point(self.phi(jnp.zeros(self.shape, self.scale.dtype)), jnp.zeros_like(self.scale))
        axis = self._axis()
        return self._standing(here, axis)._replace(doing=jnp.asarray(TURNING), linear=self._begin(axis))

    def _at_target(self, guess: Path) -> Walk:
        """About to correct a guess at dial 1. A step of 0 tells that there is no path behind it."""
        standing = self._standing(self._point(guess, jnp.ones_like(self.scale)), self._axis())
        return standing._replace(step=jnp.zeros_like(self.scale), arriving=jnp.asarray(True))

    def _standing(self, here: Point, normal: Point) -> Walk:
        zero = jnp.zeros((), jnp.int32)
        return Walk(
            here=here,
            tangent=normal,
            step=jnp.full_like(self.scale, FIRST_STEP),
            side=jnp.ones_like(self.scale),
            anchor=here,
            normal=normal,
            arriving=jnp.asarray(False),
            trial=here,
            doing=jnp.asarray(EVALUATING),
            linear=self._begin(jnp.zeros_like(here)),
            corrections=zero,
            residual=jnp.full_like(self.scale, jnp.inf),
            folds=zero,
            trips=zero,
            outcome=jnp.asarray(WALKING),
        )

    def _begin(self, right_side: Point) -> Krylov:
        return krylov.begin(right_side, MOST_TRIPS_A_SOLVE)

    def _walk(self, start: Walk, skip: Bool[Array, ""] | bool = False, most_trips: int = MOST_TRIPS) -> Walk:
        def unfinished(walk: Walk) -> Bool[Array, ""]:
            return (walk.outcome == WALKING) & (walk.trips < most_trips)

        start = start._replace(outcome=jnp.where(skip, ARRIVED, start.outcome))
        return jax.lax.while_loop(unfinished, self._trip, start)

    def _found(self, end: Walk) -> Found:
        return Found(self._crowd(end.trial), end.residual, end.outcome == ARRIVED, end.folds, end.trips)

    def _trip(self, walk: Walk) -> Walk:
        excess, change = jax.jvp(self._excess, (walk.trial,), (walk.linear.direction,))
        walk = walk._replace(trips=walk.trips + 1)
        image = jnp.append(change, walk.normal @ walk.linear.direction)
        advanced = walk._replace(linear=krylov.advance(walk.linear, image))
        residual = self.scale * jnp.max(jnp.abs(excess))
        residual = jnp.where(jnp.all(jnp.isfinite(excess)), residual, jnp.inf)
        branches = (
            lambda: self._evaluated(walk, excess, residual),
            lambda: self._corrected(advanced),
            lambda: self._turned(advanced),
        )
        return jax.lax.switch(walk.doing, branches)

    def _evaluated(self, walk: Walk, excess: Point, residual: Float[Array, ""]) -> Walk:
        """Φ at the trial is known: it is on the path, or lost, or to be corrected."""
        tolerance = jnp.where(walk.arriving, self.tolerance, PATH_TOLERANCE * 0.5 * self.size)
        off_plane = walk.normal @ (walk.trial - walk.anchor)
        distance = jnp.linalg.norm(walk.trial - walk.anchor)
        on_path = (residual <= tolerance) & (jnp.abs(off_plane) <= 1e-6)
        near = distance <= jnp.where(walk.arriving, jnp.maximum(self._reach(walk), 0.05), 0.5 * walk.step)
        polishing = walk.step == 0
        # on the path a shorter step is better than patience; from a guess there is nothing else
        slow = (walk.corrections >= 2) & (residual > jnp.where(polishing, 1.0, 0.7) * walk.residual)
        too_many = walk.corrections >= jnp.where(polishing, MOST_CORRECTIONS_OF_A_GUESS, MOST_CORRECTIONS)
        lost = ~jnp.isfinite(residual) | too_many | slow | (distance > 1.0) & ~polishing
        walk = walk._replace(residual=residual)

        correct = walk._replace(doing=jnp.asarray(CORRECTING), linear=self._begin(-jnp.append(excess, off_plane)))
        turn = walk._replace(doing=jnp.asarray(TURNING), linear=self._begin(self._axis()))
        arrive = walk._replace(outcome=jnp.asarray(ARRIVED))
        accepted = _choose(walk.arriving, arrive, turn)
        return _choose(
            on_path,
            _choose(near | polishing, accepted, self._retreat(walk)),
            _choose(lost, self._retreat(walk), correct),
        )

    def _corrected(self, walk: Walk) -> Walk:
        """One more product towards a Newton correction."""
        moved = walk._replace(
            trial=self._in_the_box(walk.trial + walk.linear.solution),
            corrections=walk.corrections + 1,
            doing=jnp.asarray(EVALUATING),
            linear=self._begin(jnp.zeros_like(walk.trial)),
        )
        return _choose(walk.linear.solved(LINEAR_TOLERANCE), moved, walk)

    def _turned(self, walk: Walk) -> Walk:
        """One more product towards the tangent at the trial."""
        tangent = walk.linear.solution / jnp.linalg.norm(walk.linear.solution)
        under_way = jnp.any(walk.trial != walk.here)
        sharp = (tangent @ walk.tangent < 0.5) & (walk.step > 1e-4) & under_way
        outside = (walk.trial[-1] < 0) | (walk.trial[-1] > FARTHEST_DIAL)
        longer = jnp.where(walk.corrections <= 2, 2.0, jnp.where(walk.corrections <= 3, 1.3, 0.8))
        arrived_there = walk._replace(
            here=walk.trial,
            tangent=tangent,
            step=jnp.minimum(walk.step * longer, self.longest_step),
            side=jnp.where(walk.trial[-1] == 1.0, -jnp.sign(tangent[-1]), walk.side),
            outcome=jnp.where(outside, STUCK, walk.outcome),
            folds=walk.folds + (tangent[-1] * walk.tangent[-1] < 0).astype(jnp.int32),
        )
        return _choose(
            walk.linear.solved(TANGENT_TOLERANCE), _choose(sharp, self._retreat(walk), self._launch(arrived_there)), walk
        )

    def _reach(self, walk: Walk) -> Float[Array, ""]:
        """How far along the tangent the anchor lies."""
        return jnp.linalg.norm(walk.anchor - walk.here)

    def _launch(self, walk: Walk) -> Walk:
        """Predicts the next point: a step along the tangent, or the point where it meets dial 1."""
        gap, slope = 1.0 - walk.here[-1], walk.tangent[-1]
        to_target = gap / jnp.where(slope == 0, 1.0, slope)
        passed = walk.side * gap < 0  # a correction took it past the target
        arriving = (slope != 0) & (passed | (gap * slope > 0) & (to_target <= walk.step))
        anchor = walk.here + jnp.where(arriving, to_target, walk.step) * walk.tangent
        anchor = anchor.at[-1].set(jnp.where(arriving, 1.0, anchor[-1]))
        return walk._replace(
            anchor=anchor,
            normal=jnp.where(arriving, self._axis(), walk.tangent),
            arriving=arriving,
            trial=self._in_the_box(anchor),
            doing=jnp.asarray(EVALUATING),
            linear=self._begin(jnp.zeros_like(anchor)),
            corrections=jnp.zeros_like(walk.corrections),
            residual=jnp.full_like(walk.residual, jnp.inf),
        )

    def _retreat(self, walk: Walk) -> Walk:
        """A shorter step from the last point accepted; the end, where the step is too short or began from a guess."""
        step = jnp.minimum(walk.step, self._reach(walk)) / 3.0
        shorter = self._launch(walk._replace(step=step))
        stuck = walk._replace(outcome=jnp.asarray(STUCK))
        return _choose((walk.step == 0) | ~(step >= SHORTEST_STEP), stuck, shorter)


def _choose(condition: Bool[Array, ""], yes: Walk, no: Walk) -> Walk:
    return jax.tree.map(lambda a, b: jnp.where(condition, a, b), yes, no)

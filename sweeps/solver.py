"""Solves batches of games: by the cold iteration, and those that it leaves open in ways that cost more."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

import mfg_jax as mfg
from mfg_jax.equilibrium import REFINEMENTS, cold_is_better, settled, worth_refining
from mfg_jax.lanes import Lanes
from sweeps import runtime
from sweeps.dataset import COMPETITION, EQUILIBRIA, SCALARS
from sweeps.kept import kept
from sweeps.programs import Handed, Way, at_once, in_lanes, in_turn, parameters_of
from sweeps.schema import OutputsSection
from sweeps.stopwatch import Activity, Stopwatch
from sweeps.sweep import Games, Kind, Sweep, some

Columns = Mapping[str, np.ndarray]
Results = dict[str, np.ndarray]
"""Stored variables, by name, [game, …]."""
Solved = tuple[Games, Results]
LanesProgram = Callable[..., tuple[list[jax.Array], Handed]]


LANES_TO_A_HARD_GAME = 16
"""Games that the cold iteration leaves open are few: they are solved in batches so much narrower."""


class Solver:
    """The programs for a sweep's games, compiled when they are needed, each for batches of one size.

    Args:
        at_once: games solved together: in one batch or, side by side, in so many lanes.
    """

    def __init__(self, sweep: Sweep, at_once: int, stopwatch: Stopwatch | None = None) -> None:
        self.sweep = sweep
        self.spec = sweep.spec
        self.lanes = _on_devices(at_once)
        self.batch = _on_devices(-(-at_once // LANES_TO_A_HARD_GAME)) if runtime.side_by_side() else at_once
        self.stopwatch = stopwatch or Stopwatch()
        self._programs: dict[tuple[Any, ...], Any] = {}
        self._compiling = threading.Lock()
        scalars_only = self.spec.model_copy(update={"outputs": OutputsSection(paths=False)})
        self._without_competition = Solver(Sweep(scalars_only), at_once, self.stopwatch) if self.spec.outputs.baseline else None

    def model(self, kind: Kind, refinement: int = 1) -> mfg.Model:
        return self.sweep.model(*kind).refined(refinement)

    def solve(self, games: Games) -> Results:
        """Everything that the store wants to know of a batch of games."""
        return self.complete(games, self._solve_some(Way.COLD, self.model(games.kind), games.columns))

    def complete(self, games: Games, cold: Results) -> Results:
        """The same, from what the cold iteration found."""
        results = self._settle(self.model(games.kind), games.columns, cold)
        results = self._refine(games, results)
        if self.spec.outputs.equilibria:
            results[EQUILIBRIA.name] = self._count_equilibria(games)
        if self._without_competition is not None:
            without = self._without_competition.solve(games._replace(kind=("none", games.kind[1])))
            results |= _effect_of_competition(results, without)
        return results

    def is_complete(self, games: Games, cold: Results) -> np.ndarray:
        """Of which games the cold iteration found everything."""
        if self.spec.outputs.equilibria or self._without_competition is not None:
            return np.zeros(games.points.size, bool)
        complete = self._settled(self.model(games.kind), cold)
        if self.sweep.time_tolerance is not None:
            complete &= ~worth_refining(cold["status"], cold["time_error"], self.sweep.time_tolerance)
        return complete

    def lanes_program(self, kind: Kind, lanes: Lanes, arguments: tuple[Any, ...]) -> LanesProgram:
        """`in_lanes` for games of one kind, and for lanes and arguments such as these."""
        model = self.model(kind)
        leaves, structure = jax.tree.flatten(lanes)
        program = in_lanes(model, self.spec, structure)
        sizes = lanes.ticket.size, arguments[0].size
        return self._compiled(("lanes", *sizes), model, lambda: program.lower(leaves, *arguments))

    def _settled(self, model: mfg.Model, results: Results) -> np.ndarray:
        return np.asarray(settled(model, results["status"], results["branch"], self.spec.solver.select))

    def _settle(self, model: mfg.Model, columns: Columns, cold: Results) -> Results:
        """Those games that the cold iteration leaves open once more, by themselves: is it the principal equilibrium that was found?
        Those that it is not, or that found none, along their paths."""
        results = cold
        doubtful = np.flatnonzero(~self._settled(model, results) & (results["status"] == mfg.Status.CONVERGED))
        if doubtful.size:
            for name, values in self._solve_some(Way.VERIFY, model, some(columns, doubtful)).items():
                results[name][doubtful] = values
        unsolved = np.flatnonzero(~self._settled(model, results))
        if unsolved.size:
            along_path = self._solve_some(Way.PATH, model, some(columns, unsolved))
            better = ~cold_is_better(results["status"][unsolved], along_path["status"])
            for name, values in along_path.items():
                results[name][unsolved[better]] = values[better]
        return results

    def _refine(self, games: Games, results: Results) -> Results:
        """Where the model has a time_tolerance, the games that do not meet it with the stored time intervals as steps, with shorter
        ones."""
        tolerance = self.sweep.time_tolerance
        if tolerance is None:
            return results
        for refinement in REFINEMENTS[1:]:
            left = np.flatnonzero(worth_refining(results["status"], results["time_error"], tolerance))
            if not left.size:
                break
            model, columns = self.model(games.kind, refinement), some(games.columns, left)
            finer = self._settle(model, columns, self._solve_some(Way.COLD, model, columns))
            no_worse = (finer["status"] == mfg.Status.CONVERGED) | (results["status"][left] != mfg.Status.CONVERGED)
            for name, values in finer.items():
                results[name][left[no_worse]] = values[no_worse]
        return results

    def _count_equilibria(self, games: Games) -> np.ndarray:
        """One game after the other: what there is to do for each depends on what was found."""
        model, parameters = self.model(games.kind), parameters_of(games.columns)

        def game(i: int) -> mfg.Parameters:
            return jax.tree.map(lambda leaf: leaf[i], parameters)

        with self.stopwatch.on(Activity.COMPUTE):
            return np.array([len(mfg.find_equilibria(model, game(i))) for i in range(games.points.size)], dtype=float)

    def _solve_some(self, way: Way, model: mfg.Model, columns: Columns) -> Results:
        """In batches. A short one is filled up with repetitions of its first game, whose results are dropped again here."""
        games = len(next(iter(columns.values())))
        parts = [self._solve_batch(way, model, some(columns, slice(i, i + self.batch))) for i in range(0, games, self.batch)]
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    def _solve_batch(self, way: Way, model: mfg.Model, columns: Columns) -> Results:
        games = len(next(iter(columns.values())))
        filled = {name: np.concatenate([v, np.repeat(v[:1], self.batch - games)]) for name, v in columns.items()}
        program = self.program(way, model)
        with self.stopwatch.on(Activity.COMPUTE):
            results = jax.block_until_ready(program(filled, games))
        with self.stopwatch.on(Activity.COPY):
            return {name: np.array(np.asarray(value)[:games]) for name, value in results.items()}

    def program(self, way: Way, model: mfg.Model) -> Callable[[Columns, int], dict[str, jax.Array]]:
        """The program that solves a batch of games on a model in one way."""
        build = at_once if runtime.side_by_side() else in_turn
        many = build(way, model, self.spec, model.n_steps // self.sweep.stored_steps)
        example = {name: np.ones(self.batch) for name in self.sweep.parameter_names}
        return self._compiled((way,), model, lambda: many.lower(example, 1))

    def _compiled(self, what: tuple[Any, ...], model: mfg.Model, lower: Callable[[], jax.stages.Lowered]) -> Any:
        """Compiled once for all batches."""
        with self._compiling:
            if (model, *what) not in self._programs:
                with self.stopwatch.on(Activity.COMPILE):
                    program = kept(self._described(model, what), lambda: lower().compile())
                self._programs[(model, *what)] = program
            return self._programs[(model, *what)]

    def _described(self, model: mfg.Model, what: tuple[Any, ...]) -> str:
        """All of the spec that a program depends on: not the values of the parameters, only which there are."""
        choices = self.spec.model_dump(mode="json", include={"model", "initial", "outputs", "metrics", "solver"})
        kind = type(model.coupling).__name__, model.boundary, model.n_steps
        names = self.sweep.parameter_names
        return repr((choices, kind, names, self.batch, what, runtime.side_by_side(), runtime.device_count()))


def _on_devices(games: int) -> int:
    """At least so many games, as many on each device."""
    return runtime.device_count() * -(-games // runtime.device_count())


def _effect_of_competition(results: Results, without: Results) -> Results:
    """Every scalar less that of the same makers without competition; NaN where either game did not converge."""
    converged = (results["status"] == mfg.Status.CONVERGED) & (without["status"] == mfg.Status.CONVERGED)
    return {
        effect.name: np.where(converged, results[scalar.name] - without[scalar.name], np.nan)
        for effect, scalar in zip(COMPETITION, SCALARS, strict=True)
    }

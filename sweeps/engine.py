"""From points to results: batches of games through one compiled program, block by block into the store."""

from __future__ import annotations

import math
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime
from enum import Enum
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import mfg_jax as mfg
from mfg_jax.certificate import FullCertificates
from mfg_jax.equilibrium import (
    REFINEMENTS,
    certified,
    cold_is_better,
    settled,
    solve_along_path,
    solve_cold,
    verify,
    worth_refining,
)
from mfg_jax.fixed_point import Iterate
from mfg_jax.lanes import NOBODY, advance_lanes, idle_lanes
from mfg_jax.lattice import inventories
from sweeps import runtime, store
from sweeps.dataset import COMPETITION, DIFFERENTIATED, EQUILIBRIA, SCALARS, STATUSES, variables, variables_of_one_equilibrium
from sweeps.programs import kept
from sweeps.sampling import Design, design
from sweeps.schema import OutputsSection
from sweeps.spec import Spec
from sweeps.stopwatch import Activity, Stopwatch

SolveOne = Callable[[mfg.Parameters], dict[str, jax.Array]]
Finish = Callable[[mfg.Parameters, Iterate | None], dict[str, jax.Array]]
"""Takes the cold iteration too, where it is done already."""
Program = Callable[[Mapping[str, Any], Any], dict[str, jax.Array]]
"""Takes the parameters of a batch of games, by name, and how many of the games, from the first on, are wanted."""

LARGEST_CPU_BATCH = 64
LARGEST_GPU_BATCH = 16_384
GAMES_PER_LANE = 8
"""Of a batch on a device that wants wide arrays: when no more games wait, lanes fall idle until the slowest game is done."""


@dataclass
class Progress:
    """How far a run is. `done_before` counts the points that the store already held."""

    points: int
    done_before: int
    statuses: Counter[str]
    done: int = 0
    seconds: float = 0.0
    """Spent so far, compilation included."""
    shares: dict[str, float] = field(default_factory=dict)
    """Of these seconds, that each activity took (`Stopwatch.shares`); once the run has ended."""

    def count(self, statuses: np.ndarray) -> None:
        self.statuses.update(STATUSES[code] for code in statuses.tolist())
        self.done += statuses.size

    @property
    def points_per_second(self) -> float:
        return self.done / self.seconds if self.seconds else math.nan

    @property
    def seconds_left(self) -> float:
        """At the pace so far; infinite before the first point is done."""
        left = self.points - self.done_before - self.done
        return left * self.seconds / self.done if self.done else math.inf


class Interrupted(Exception):
    """The run was asked to stop and did so between two writes; the same command goes on from there."""


def in_lanes() -> bool:
    """Whether the device wants many games side by side. A CPU is at its best with one on each core, which stops when it is done."""
    return jax.default_backend() != "cpu"


class Way(Enum):
    """What a program does with a game (`mfg_jax.solve` does all of it, as needed)."""

    COLD = "iterate from a cold start"
    VERIFY = "check that the cold start's equilibrium is the principal one"
    PATH = "follow the path from the uncoupled game"


class SolvedBatch(NamedTuple):
    """Results of some games of a block, [game, …]; `games` are their places in it."""

    games: np.ndarray
    results: dict[str, np.ndarray]


class Sweep:
    """The games of a spec: which parameters each has, on which model it is played, and the compiled programs."""

    def __init__(self, spec: Spec, stopwatch: Stopwatch | None = None) -> None:
        self.spec = spec
        self.design: Design = design(spec)
        self._programs: dict[tuple[mfg.Model, Way], Program] = {}
        self._compiling = threading.Lock()
        self.stopwatch = stopwatch or Stopwatch()
        scalars_only = spec.model_copy(update={"outputs": OutputsSection(paths=False)})
        self._without_competition = Sweep(scalars_only, self.stopwatch) if spec.outputs.baseline else None

    @cached_property
    def parameter_names(self) -> tuple[str, ...]:
        """The parameters that derivatives are taken in: all but those left to their default of None."""
        given = {*self.fixed, *self.design.coords}
        return tuple(f.name for f in fields(mfg.Parameters) if f.name in given)

    @cached_property
    def fixed(self) -> dict[str, float]:
        """The parameters that are the same in all games."""
        defaults = {f.name: f.default for f in fields(mfg.Parameters) if isinstance(f.default, float)}
        return {**defaults, **self.spec.parameters}

    def model(self, coupling: str, boundary: str) -> mfg.Model:
        chosen = self.spec.model
        initial = self.spec.initial
        return mfg.Model(
            coupling=coupling,
            boundary=boundary,
            x_max=chosen.x_max,
            n_steps=chosen.n_steps,
            time_tolerance=chosen.time_tolerance,
            scheme=chosen.scheme,
            grading=chosen.grading,
            initial=mfg.Weights(initial.weights) if initial.weights is not None else initial.kind,
            solver=self.spec.solver.model_dump(exclude={"select"}),
        )

    @property
    def stored_steps(self) -> int:
        """Time intervals of the store's axis, in which games may be solved with several steps each."""
        return self.model("none", "reflecting").n_steps

    def labels(self) -> store.Labels:
        model = self.model("none", "reflecting")
        return store.Labels(
            time=model.time_fractions,
            inventory=inventories(model.x_max),
            parameter=self.parameter_names,
        )

    def bytes_per_game(self) -> dict[str, int]:
        """Size of each variable, for one game."""
        size = np.dtype(self.spec.outputs.dtype).itemsize
        labels = self.labels()
        return {v.name: size * math.prod(labels.size(dim) for dim in v.dims) for v in variables(self.spec)} | {"status": 1}

    def bytes_on_disk(self) -> int:
        """Of the whole store, before compression."""
        return len(self.design) * sum(self.bytes_per_game().values())

    def block_shape(self) -> tuple[int, ...]:
        games = store.games_per_block(len(self.design), max(self.bytes_per_game().values()))
        return store.block_shape(self.design.shape, games)

    def batch_size(self) -> int:
        """Games in a batch: as many as it pays to solve together and, on a GPU, fit into a quarter of its free memory."""
        if not in_lanes():
            most = LARGEST_CPU_BATCH
        else:
            most = min(LARGEST_GPU_BATCH, runtime.free_memory() // (4 * self.working_bytes_per_game()))
        return max(1, min(most, math.prod(self.block_shape())))

    def worker_count(self) -> int:
        """Batches in flight: on a CPU one on each core, each one game at a time, as memory allows; a GPU is kept busy by one."""
        if in_lanes():
            return 1
        return max(1, min(runtime.core_count(), runtime.free_memory() // (2 * self.working_bytes_per_game())))

    def working_bytes(self, batch: int) -> int:
        """What solving takes: on a CPU one game on each core at a time, on a GPU a whole batch."""
        at_once = self.worker_count() if not in_lanes() else batch
        return at_once * self.working_bytes_per_game()

    def working_bytes_per_game(self) -> int:
        """What solving one game holds at a time: the rates of all stages, several times over where derivatives are taken."""
        model = self.model("none", "reflecting")
        scheme = model.explicit_model.settled_scheme
        most_steps = model.n_steps * (REFINEMENTS[-1] if model.time_tolerance is not None else 1)
        rates = 8 * most_steps * len(scheme.nodes) * 2 * 2 * model.x_max
        return rates * (45 if self.spec.outputs.gradients else 6) + sum(self.bytes_per_game().values())

    def submit_block(self, block: store.Block, batch: int, pool: ThreadPoolExecutor) -> list[Future[SolvedBatch]]:
        """Hands the games of a block to the workers, in batches of one kind of game each."""
        fixed = {name: np.full(len(block), value) for name, value in self.fixed.items()}
        columns = fixed | self.design.columns(block.start, block.stop)
        couplings = columns.pop("coupling", np.full(len(block), self.spec.model.coupling))
        boundaries = columns.pop("boundary", np.full(len(block), self.spec.model.boundary))
        tasks = []
        for coupling, boundary in sorted(set(zip(couplings.tolist(), boundaries.tolist(), strict=True))):
            members = np.flatnonzero((couplings == coupling) & (boundaries == boundary))
            for games in np.array_split(members, range(batch, members.size, batch)):
                tasks.append(pool.submit(self._solve_batch, (coupling, boundary), games, _chosen(columns, games), batch))
        return tasks

    def _solve_batch(self, kind: tuple[str, str], games: np.ndarray, columns: Mapping[str, np.ndarray], batch: int) -> SolvedBatch:
        results = self._solve_to_tolerance(kind, columns, batch)
        if self.spec.outputs.equilibria:
            results[EQUILIBRIA.name] = self._count_equilibria(kind, columns)
        if self._without_competition is not None:
            without = self._without_competition._solve_to_tolerance(("none", kind[1]), columns, batch)
            results |= _effect_of_competition(results, without)
        return SolvedBatch(games, results)

    def _solve_to_tolerance(self, kind: tuple[str, str], columns: Mapping[str, np.ndarray], batch: int) -> dict[str, np.ndarray]:
        """All games with the stored time intervals as steps; where the model has a time_tolerance, those that do not meet it with
        shorter ones."""
        results = self._solve_with_steps(1, kind, columns, batch)
        tolerance = self.model(*kind).time_tolerance
        if tolerance is None:
            return results
        for refinement in REFINEMENTS[1:]:
            left = np.flatnonzero(worth_refining(results["status"], results["time_error"], tolerance))
            if not left.size:
                break
            finer = self._solve_with_steps(refinement, kind, _chosen(columns, left), batch)
            no_worse = (finer["status"] == mfg.Status.CONVERGED) | (results["status"][left] != mfg.Status.CONVERGED)
            for name, values in finer.items():
                results[name][left[no_worse]] = values[no_worse]
        return results

    def _count_equilibria(self, kind: tuple[str, str], columns: Mapping[str, np.ndarray]) -> np.ndarray:
        """One game after the other: what there is to do for each depends on what was found."""
        games = len(next(iter(columns.values())))
        model, parameters = self.model(*kind), _parameters(columns)

        def game(i: int) -> mfg.Parameters:
            return jax.tree.map(lambda leaf: leaf[i], parameters)

        with self.stopwatch.on(Activity.COMPUTE):
            return np.array([len(mfg.find_equilibria(model, game(i))) for i in range(games)], dtype=float)

    def _solve_with_steps(
        self, refinement: int, kind: tuple[str, str], columns: Mapping[str, np.ndarray], batch: int
    ) -> dict[str, np.ndarray]:
        """All games by the cold iteration; those that it leaves open once more, by themselves: is it the principal equilibrium
        that was found? Those that it is not, or that found none, along their paths."""
        model = self.model(*kind).refined(refinement)
        results = self._solve_games(Way.COLD, model, columns, batch)

        def open_games() -> np.ndarray:
            return np.flatnonzero(~settled(model, results["status"], results["branch"], self.spec.solver.select))

        doubtful = np.intersect1d(open_games(), np.flatnonzero(results["status"] == mfg.Status.CONVERGED))
        if doubtful.size:
            for name, values in self._solve_games(Way.VERIFY, model, _chosen(columns, doubtful), batch).items():
                results[name][doubtful] = values
        if (unsolved := open_games()).size:
            along_path = self._solve_games(Way.PATH, model, _chosen(columns, unsolved), batch)
            better = ~cold_is_better(results["status"][unsolved], along_path["status"])
            for name, values in along_path.items():
                results[name][unsolved[better]] = values[better]
        return results

    def _solve_games(self, way: Way, model: mfg.Model, columns: Mapping[str, np.ndarray], batch: int) -> dict[str, np.ndarray]:
        """A short batch is filled up with repetitions of its first game, whose results are dropped again here."""
        games = len(next(iter(columns.values())))
        filled = {name: np.concatenate([v, np.repeat(v[:1], batch - games)]) for name, v in columns.items()}
        program = self.program(model, batch, way)
        with self.stopwatch.on(Activity.COMPUTE):
            results = jax.block_until_ready(program(filled, games))
        with self.stopwatch.on(Activity.COPY):
            return {name: np.array(value[:games]) for name, value in results.items()}

    def program(self, model: mfg.Model, batch: int, way: Way) -> Program:
        """The compiled program that solves `batch` games on a model in one way. Compiled once for all batches, when needed."""
        key = (model, way)
        with self._compiling:
            if key not in self._programs:
                many = _many(way, model, self.spec, thinning=model.n_steps // self.stored_steps)
                example = {name: np.ones(batch) for name in self.parameter_names}
                with self.stopwatch.on(Activity.COMPILE):
                    self._programs[key] = kept(
                        self._described(model, batch, way), lambda: jax.jit(many).lower(example, 1).compile()
                    )
            return self._programs[key]

    def _described(self, model: mfg.Model, batch: int, way: Way) -> str:
        """All of the spec that a program depends on: not the values of the parameters, only which there are."""
        choices = self.spec.model_dump(mode="json", include={"model", "initial", "outputs", "metrics", "solver"})
        kind = type(model.coupling).__name__, model.boundary, model.n_steps
        return repr((choices, kind, self.parameter_names, batch, way, in_lanes()))


def _parameters(columns: Mapping[str, Any]) -> mfg.Parameters:
    return mfg.Parameters(**{"A": None, "k": None, **columns})


def _chosen(columns: Mapping[str, np.ndarray], games: np.ndarray) -> dict[str, np.ndarray]:
    return {name: values[games] for name, values in columns.items()}


def _effect_of_competition(results: Mapping[str, np.ndarray], without: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Every scalar less that of the same makers without competition; NaN where either game did not converge."""
    converged = (results["status"] == mfg.Status.CONVERGED) & (without["status"] == mfg.Status.CONVERGED)
    return {
        effect.name: np.where(converged, results[scalar.name] - without[scalar.name], np.nan)
        for effect, scalar in zip(COMPETITION, SCALARS, strict=True)
    }


def _one_by_one(solve_one: SolveOne) -> Program:
    """Solves the first `count` games, one after the other, and spends no time on those that fill up the batch."""
    solve_one = jax.jit(solve_one)  # traced once for its shapes and its use

    def solve_many(columns: Mapping[str, jax.Array], count: jax.Array) -> dict[str, jax.Array]:
        def game(i: jax.Array | int) -> mfg.Parameters:
            return _parameters({name: column[i] for name, column in columns.items()})

        def solve(i: jax.Array, results: dict[str, jax.Array]) -> dict[str, jax.Array]:
            return jax.tree.map(lambda all_games, one: all_games.at[i].set(one), results, solve_one(game(i)))

        batch = len(next(iter(columns.values())))
        shapes = jax.eval_shape(solve_one, game(0))
        empty = jax.tree.map(lambda one: jnp.zeros((batch, *one.shape), one.dtype), shapes)
        return jax.lax.fori_loop(0, count, solve, empty)

    return solve_many


def _all_at_once(solve_one: SolveOne) -> Program:
    return lambda columns, count: jax.vmap(solve_one)(_parameters(columns))


def _iterated_in_lanes(model: mfg.Model, finish: Finish) -> Program:
    """The cold iteration in lanes, then all that follows of it for all games at once."""

    def solve_many(columns: Mapping[str, jax.Array], count: jax.Array) -> dict[str, jax.Array]:
        parameters = jax.tree.map(jnp.asarray, _parameters(columns))
        places = jnp.arange(len(next(iter(columns.values()))))
        lanes = idle_lanes(model, jax.tree.map(lambda leaf: leaf[0], parameters), -(-places.size // GAMES_PER_LANE))
        tickets = jnp.where(places < count, places, NOBODY)
        _, finished, _ = advance_lanes(model, lanes, tickets, parameters, jnp.asarray(True))
        place = jnp.where(finished.ticket == NOBODY, places.size, finished.ticket)
        found = jax.tree.map(
            lambda leaf: jnp.zeros((places.size, *leaf.shape[1:]), leaf.dtype).at[place].set(leaf, mode="drop"), finished.found
        )
        return jax.vmap(finish)(parameters, found)

    return solve_many


def _many(way: Way, model: mfg.Model, spec: Spec, thinning: int) -> Program:
    """All stored variables of many games; where only its branch is in doubt, what depends on the answer."""
    if way is Way.VERIFY:
        solve_one = _verifier(model, spec)
    else:
        finish = _solver(way, model, spec, thinning)
        if way is Way.COLD and in_lanes():
            return _iterated_in_lanes(model, finish)
        solve_one = lambda parameters: finish(parameters, None)  # noqa: E731
    return _all_at_once(solve_one) if in_lanes() else _one_by_one(solve_one)


def _verifier(model: mfg.Model, spec: Spec) -> SolveOne:
    certify = spec.certify_fully
    decided = ["branch", "folds", *(FullCertificates._fields if certify else ())]

    def solve_verified(parameters: mfg.Parameters) -> dict[str, jax.Array]:
        found = verify(model, parameters, solve_cold(model, parameters))
        equilibrium = certified(model.explicit_model, parameters, found) if certify else found.equilibrium
        return {name: getattr(equilibrium, name) for name in decided}

    return solve_verified


def _solver(way: Way, model: mfg.Model, spec: Spec, thinning: int) -> Finish:
    certify = spec.certify_fully

    def solve_from_cold(parameters: mfg.Parameters, done: Iterate | None) -> mfg.Equilibrium:
        cold = solve_cold(model, parameters, done)
        status, branch = cold.equilibrium.status, cold.equilibrium.branch
        left_open = ~settled(model, status, branch, spec.solver.select)
        return certified(model.explicit_model, parameters, cold, left_open) if certify else cold.equilibrium

    def solve_path(parameters: mfg.Parameters, done: Iterate | None) -> mfg.Equilibrium:
        del done
        found = solve_along_path(model, parameters)
        return certified(model.stiff_model, parameters, found) if certify else found.equilibrium

    return _stored_variables(solve_from_cold if way is Way.COLD else solve_path, model, spec, thinning)


def _stored_variables(
    solve_game: Callable[[mfg.Parameters, Iterate | None], mfg.Equilibrium], model: mfg.Model, spec: Spec, thinning: int
) -> Finish:
    gradients = spec.outputs.gradients

    def solve(parameters: mfg.Parameters, done: Iterate | None) -> tuple[jax.Array, dict[str, jax.Array]]:
        equilibrium = solve_game(parameters, done)
        metrics = mfg.metrics(model, parameters, equilibrium, derisk_band=spec.metrics.derisk_band)
        stored = _stored(spec, equilibrium, metrics, thinning)
        differentiated = jnp.stack([getattr(metrics, name) for name in gradients]) if gradients else jnp.zeros(0)
        return differentiated, stored

    def solve_with_derivatives(parameters: mfg.Parameters, done: Iterate | None) -> dict[str, jax.Array]:
        differentiated, pull_back, stored = jax.vjp(lambda parameters: solve(parameters, done), parameters, has_aux=True)
        # one metric after the other: a batch of them would have to be compiled as one
        rows = jax.lax.map(lambda cotangent: jnp.stack(jax.tree.leaves(pull_back(cotangent))), jnp.eye(differentiated.size))
        # off an equilibrium the implicit function theorem says nothing
        converged = stored["status"] == mfg.Status.CONVERGED
        rows = jnp.where(converged, rows, jnp.nan)
        known = ~jnp.isnan(rows).any(axis=1) | jnp.isnan(differentiated)  # what is not there has no derivative either
        stored[DIFFERENTIATED.name] = jnp.where(converged, known.all().astype(float), jnp.nan)
        return stored | {f"d_{name}": row for name, row in zip(gradients, rows, strict=True)}

    return solve_with_derivatives if gradients else lambda parameters, done: solve(parameters, done)[1]


def _stored(spec: Spec, equilibrium: mfg.Equilibrium, metrics: mfg.Metrics, thinning: int) -> dict[str, jax.Array]:
    def of_game(name: str) -> jax.Array:
        return getattr(equilibrium, name) if hasattr(equilibrium, name) else getattr(metrics, name)

    stored = {"status": of_game("status")}
    for variable in variables_of_one_equilibrium(spec):
        numbers = of_game(variable.name)
        stored[variable.name] = numbers[::thinning] if "time" in variable.dims else numbers
    # every certificate of numbers that mean nothing is missing, this truth value too
    stored["monotone"] = jnp.where(jnp.isnan(stored["min_density"]), jnp.nan, stored["monotone"].astype(float))
    if spec.outputs.surfaces:
        for side in ("ask", "bid"):  # an offset that is not quoted is infinite in the library, missing in a store
            stored[side] = jnp.where(jnp.isposinf(stored[side]), jnp.nan, stored[side])
    return stored


def run(
    spec: Spec,
    path: Path,
    batch: int | None = None,
    fresh: bool = False,
    resume: bool = False,
    report: Callable[[Progress], None] = lambda progress: None,
    stop: threading.Event | None = None,
) -> Progress:
    """Solves what is not done yet of a sweep, into the store at `path`.

    Args:
        batch: games solved at once; None for what memory allows, or what the store was begun with.
        fresh: delete a store that is there. resume: insist that there is one.
        report: called after every batch. stop: set it to stop after the batches and the write in flight.

    Raises:
        StoreError: the store cannot be used as asked. Interrupted: `stop` was set before the end.
    """
    runtime.configure()
    sweep = Sweep(spec)
    target = _open(sweep, path, batch, fresh, resume)
    batch = int(target.attributes["batch"])
    progress = _progress_of(target)
    with ThreadPoolExecutor(max_workers=sweep.worker_count()) as pool:
        try:
            _fill(sweep, target, batch, pool, progress, report, stop or threading.Event())
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
    if "finished" not in target.attributes:
        speed = progress.points_per_second if progress.done else None
        target.update_attributes({"finished": datetime.now(UTC).isoformat(timespec="seconds"), "points_per_second": speed})
    target.consolidate()
    return progress


def _open(sweep: Sweep, path: Path, batch: int | None, fresh: bool, resume: bool) -> store.Store:
    if fresh and path.exists():
        store.delete(path)
    if resume or path.exists():
        target = store.open_existing(path)
        store.check_same_spec(target, sweep.spec)
        begun_with = int(target.attributes["batch"])
        if batch not in (None, begun_with):
            raise store.StoreError(
                f"{path}: was begun with --batch {begun_with}; leave out --batch to go on, or --fresh to start again"
            )
        return target
    _check_disk(sweep, path)
    attributes = {
        "title": "Equilibria of competing market makers",
        "spec_hash": sweep.spec.hash(),
        "batch": batch or sweep.batch_size(),
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        **runtime.provenance(),
    }
    return store.create(path, sweep.spec, sweep.design, sweep.labels(), sweep.block_shape(), attributes)


def _check_disk(sweep: Sweep, path: Path) -> None:
    """Numbers hardly compress, so what does not fit now will not fit then.

    Raises:
        StoreError: the results would not fit.
    """
    needed, free = sweep.bytes_on_disk(), runtime.free_disk(path)
    if needed > free:
        advice = "sweep less, store less (outputs: surfaces, paths, dtype float32), or choose another disk"
        raise store.StoreError(f"{path}: needs up to {runtime.readable(needed)} and {runtime.readable(free)} are free; {advice}")


def _progress_of(target: store.Store) -> Progress:
    counts = np.bincount(target.statuses().ravel(), minlength=len(STATUSES))
    statuses = Counter({name: int(n) for name, n in zip(STATUSES, counts, strict=True) if n and name != "pending"})
    return Progress(points=int(counts.sum()), done_before=statuses.total(), statuses=statuses)


def _fill(
    sweep: Sweep,
    target: store.Store,
    batch: int,
    pool: ThreadPoolExecutor,
    progress: Progress,
    report: Callable[[Progress], None],
    stop: threading.Event,
) -> None:
    """Solves and writes the pending blocks in order."""
    report(progress)
    begun = time.perf_counter()
    for block, tasks in _submitted(sweep, target.pending_blocks(), batch, pool):
        results: dict[str, np.ndarray] = {}
        for task in tasks:
            if stop.is_set():
                raise Interrupted
            games, solved = task.result()
            for name, values in solved.items():
                whole = results.setdefault(name, np.empty((len(block), *values.shape[1:]), values.dtype))
                whole[games] = values
            progress.count(solved["status"])
            progress.seconds = time.perf_counter() - begun
            report(progress)
        with sweep.stopwatch.on(Activity.WRITE):
            target.write(block, results)
    if progress.done:
        progress.seconds = time.perf_counter() - begun
        progress.shares = sweep.stopwatch.shares(progress.seconds, sweep.worker_count())


def _submitted(
    sweep: Sweep, blocks: Iterable[store.Block], batch: int, pool: ThreadPoolExecutor
) -> Iterator[tuple[store.Block, list[Future[SolvedBatch]]]]:
    """Blocks with their batches handed to the workers, who always have a batch each of a later block to go on with."""
    ahead: deque[tuple[store.Block, list[Future[SolvedBatch]]]] = deque()
    waiting = 0  # batches behind the first block in the queue
    for block in blocks:
        tasks = sweep.submit_block(block, batch, pool)
        waiting += len(tasks) if ahead else 0
        ahead.append((block, tasks))
        while waiting >= sweep.worker_count() and len(ahead) > 1:
            yield ahead.popleft()
            waiting -= len(ahead[0][1])
    yield from ahead

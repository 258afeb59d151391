"""A sweep before it is run: which games it has, on which model each is played, and how large everything is."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import fields
from functools import cached_property
from typing import NamedTuple

import numpy as np

import mfg_jax as mfg
from mfg_jax.equilibrium import REFINEMENTS
from mfg_jax.lattice import inventories
from sweeps import runtime, store
from sweeps.dataset import variables
from sweeps.sampling import Design, design
from sweeps.spec import Spec

LARGEST_CPU_BATCH = 64
MOST_LANES, FEWEST_LANES = 65_536, 1_024
GAMES_PER_LANE = 16
"""At least, of a sweep in more than the fewest lanes: when no more games wait, lanes fall idle until the slowest game is done."""
GAMES_PER_CALL = 4
"""That a lane is handed at once, on average."""

Kind = tuple[str, str]
"""Coupling and boundary: what a program is compiled for."""


class Games(NamedTuple):
    """Some games of one kind."""

    points: np.ndarray
    """Where they are in the design, [game]."""
    kind: Kind
    columns: dict[str, np.ndarray]
    """Their parameters, by name, [game]."""

    def some(self, chosen: np.ndarray | slice) -> Games:
        return Games(self.points[chosen], self.kind, some(self.columns, chosen))


def some(columns: Mapping[str, np.ndarray], chosen: np.ndarray | slice) -> dict[str, np.ndarray]:
    """The same columns of some games only."""
    return {name: values[chosen] for name, values in columns.items()}


def joined(several: Sequence[Games]) -> Games:
    """One after the other; of one kind, and at least one."""
    columns = {name: np.concatenate([games.columns[name] for games in several]) for name in several[0].columns}
    return Games(np.concatenate([games.points for games in several]), several[0].kind, columns)


class Sweep:
    """The games of a spec.

    Args:
        cores: that solving may use; None for all that this process may use.
    """

    def __init__(self, spec: Spec, cores: int | None = None) -> None:
        self.spec = spec
        self._cores = cores
        self.design: Design = design(spec)

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

    def games(self, start: int, stop: int) -> list[Games]:
        """Those of the points start … stop − 1, kind by kind."""
        fixed = {name: np.full(stop - start, value) for name, value in self.fixed.items()}
        columns = fixed | self.design.columns(start, stop)
        couplings = columns.pop("coupling", np.full(stop - start, self.spec.model.coupling))
        boundaries = columns.pop("boundary", np.full(stop - start, self.spec.model.boundary))
        found = []
        for coupling, boundary in sorted(set(zip(couplings.tolist(), boundaries.tolist(), strict=True))):
            members = np.flatnonzero((couplings == coupling) & (boundaries == boundary))
            found.append(Games(start + members, (coupling, boundary), some(columns, members)))
        return found

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

    @property
    def time_tolerance(self) -> float | None:
        """Where games are solved with as few steps as are enough: the time_error that is."""
        return self.model("none", "reflecting").time_tolerance

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
        """Games in a batch, or in lanes side by side, on all devices: as many as it pays to solve together and, on a GPU, fit into
        a quarter of its free memory."""
        if not runtime.side_by_side():
            return min(LARGEST_CPU_BATCH, math.prod(self.block_shape()))
        devices = runtime.device_count()
        results = (GAMES_PER_CALL + 1) * sum(self.bytes_per_game().values())
        fit = runtime.free_memory() // (4 * (self.working_bytes_per_game() + results))
        enough = max(FEWEST_LANES, len(self.design) // GAMES_PER_LANE) // devices
        return devices * max(1, min(MOST_LANES, fit, enough))

    def worker_count(self) -> int:
        """Batches in flight: on a CPU one on each core, each one game at a time, as memory allows; a GPU is kept busy by one."""
        if runtime.side_by_side():
            return 1
        return max(1, min(self._cores or runtime.core_count(), runtime.free_memory() // (2 * self.working_bytes_per_game())))

    def working_bytes(self, batch: int) -> int:
        """What solving takes: on a CPU one game on each core at a time, on a GPU a whole batch."""
        at_once = batch if runtime.side_by_side() else self.worker_count()
        return at_once * self.working_bytes_per_game()

    def working_bytes_per_game(self) -> int:
        """What solving one game holds at a time: the rates of all stages, several times over where derivatives are taken."""
        model = self.model("none", "reflecting")
        scheme = model.explicit_model.settled_scheme
        most_steps = model.n_steps * (REFINEMENTS[-1] if model.time_tolerance is not None else 1)
        rates = 8 * most_steps * len(scheme.nodes) * 2 * 2 * model.x_max
        return rates * (45 if self.spec.outputs.gradients else 6) + sum(self.bytes_per_game().values())

"""Games that are solved while somebody looks: one at a time, in a thread of their own, of those that wait the latest."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any, get_args

import numpy as np
import xarray as xr
from pydantic import ValidationError

from sweeps.dataset import PARAMETERS, STATUS, Variable, variables
from sweeps.schema import DEFAULTS, NUMBERS, Boundary, Coupling, OutputsSection, Spec
from sweeps.viewer.gallery import Refused, shown

if TYPE_CHECKING:
    from sweeps.solver import Solver

EXAMPLE = Spec.model_validate(
    {
        "model": {"coupling": "relative"},
        "parameters": {"A": 10.0, "k": 1.5, "eta": 0.01, "gamma": 0.05, "crowd_mean": 1.0},
    }
)
"""The game that is shown where there is no store."""

SPANS: dict[str, tuple[float, float, bool]] = {
    "A": (1.0, 100.0, True),
    "k": (0.1, 10.0, True),
    "eta": (0.0, 0.2, False),
    "gamma": (0.0, 1.0, False),
    "k0": (0.0, 2.0, False),
    "n_makers": (1.5, 20.0, False),
    "crowd_mean": (-5.0, 5.0, False),
    "crowd_std": (0.2, 5.0, True),
    "horizon": (0.1, 5.0, True),
    "quote_min": (-2.0, 2.0, False),
    "quote_max": (0.5, 20.0, True),
    "A_ask": (1.0, 100.0, True),
    "A_bid": (1.0, 100.0, True),
    "k_ask": (0.1, 10.0, True),
    "k_bid": (0.1, 10.0, True),
}
"""What a slider reaches, and whether alike in the logarithm; any other number can be typed."""

CHOICES = {"coupling": get_args(Coupling), "boundary": get_args(Boundary)}


class Superseded(Exception):
    """A later game was asked for before this one's turn came."""


class LatestFirst:
    """A thread that does one thing after the other; of those that wait, only the latest is ever done."""

    def __init__(self) -> None:
        self._waiting: tuple[Callable[[], Any], Future[Any]] | None = None
        self._changed = threading.Condition()
        threading.Thread(target=self._work, daemon=True).start()

    def submit(self, task: Callable[[], Any]) -> Future[Any]:
        """What it returns or raises will be in the future: Superseded where a later task came before its turn."""
        future: Future[Any] = Future()
        with self._changed:
            if self._waiting and self._waiting[1].set_running_or_notify_cancel():
                self._waiting[1].set_exception(Superseded())
            self._waiting = task, future
            self._changed.notify()
        return future

    def _work(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting)
                assert self._waiting
                (task, future), self._waiting = self._waiting, None
            if not future.set_running_or_notify_cancel():  # nobody waits for it any more
                continue
            try:
                future.set_result(task())
            except Exception as error:
                future.set_exception(error)


class Live:
    """Solves games like those of a sweep, with whatever parameters.

    Args:
        spec: the sweep, or a spec that sweeps nothing.
    """

    def __init__(self, spec: Spec) -> None:
        self._spec = spec
        self._solvers: dict[tuple[str, ...], Solver] = {}

    def about(self) -> list[dict[str, Any]]:
        """What can be chosen, for a page without a sweep: parameters with their spans, and names. None stands for not given."""
        known = {v.name: {"label": v.long_name, "units": self._units(v)} for v in PARAMETERS}
        given = DEFAULTS | self._spec.parameters
        numbers = [{"name": name, **known[name], "span": span, "value": given.get(name)} for name, span in SPANS.items()]
        chosen = {name: getattr(self._spec.model, name) for name in CHOICES}
        names = [{"name": name, "label": name, "units": "", "names": CHOICES[name], "value": chosen[name]} for name in CHOICES]
        return names + numbers

    def game(self, given: Mapping[str, str]) -> dict[str, Any]:
        """A game as the page shows it. What is not given is as the sweep has it fixed.

        Args:
            given: parameters, `coupling` and `boundary`, by name, as texts; an empty text for a parameter not given.

        Raises:
            Refused: no such parameter, or no such value.
        """
        spec = self.spec_with(given)
        game = self.solve(spec)
        numbers = dict.fromkeys(NUMBERS) | DEFAULTS | spec.parameters
        return shown(game, {"coupling": spec.model.coupling, "boundary": spec.model.boundary, **numbers})

    def solve(self, spec: Spec) -> xr.Dataset:
        """The game of a spec that sweeps nothing, labelled as a store has it."""
        from sweeps.sweep import Games

        kind = str(spec.model.coupling), spec.model.boundary
        parameters = DEFAULTS | spec.parameters
        solver = self._solver(spec, (*kind, *sorted(parameters)))
        columns = {name: np.array([parameters[name]]) for name in solver.sweep.parameter_names}
        return _labelled(solver, solver.solve(Games(np.array([0]), kind, columns)))

    def _solver(self, spec: Spec, kind: tuple[str, ...]) -> Solver:
        """That of games of one kind, with the same parameters given: all use the same programs."""
        from sweeps import runtime

        runtime.configure("cpu")  # where one game is solved fastest
        from sweeps.solver import Solver
        from sweeps.sweep import Sweep

        if kind not in self._solvers:
            self._solvers[kind] = Solver(Sweep(spec), at_once=1)
        return self._solvers[kind]

    def spec_with(self, given: Mapping[str, str]) -> Spec:
        """The spec of such a game. Raises: as `game`."""
        unknown = given.keys() - NUMBERS.keys() - CHOICES.keys()
        if unknown:
            raise Refused(f"{min(unknown)}: unknown; allowed: {', '.join([*NUMBERS, *CHOICES])}")
        model = self._spec.model.model_dump() | {name: given[name] for name in CHOICES if name in given}
        numbers = self._spec.parameters | {name: _number(name, text) for name, text in given.items() if name in NUMBERS}
        parameters = {name: value for name, value in numbers.items() if value is not None}
        try:
            spec = Spec.model_validate({"model": model, "parameters": parameters})
        except ValidationError as error:
            first = error.errors()[0]
            raise Refused(f"{first['loc'][-1]}: {first['msg']}") from None
        _check_it_is_whole(spec)
        outputs = OutputsSection(paths=True, surfaces=True, certify=self._spec.outputs.certify)
        kept = {name: getattr(self._spec, name) for name in ("initial", "solver", "metrics", "units")}
        return spec.model_copy(update={"outputs": outputs, **kept})

    def _units(self, variable: Variable) -> str:
        return variable.units_in(self._spec.units.price, self._spec.units.time)


def _number(name: str, text: str) -> float | None:
    if not text:
        return None
    try:
        return float(text)
    except ValueError:
        raise Refused(f"{name}: found {text[:60]!r}; allowed: a number, or nothing where it has a default") from None


def _check_it_is_whole(spec: Spec) -> None:
    """Refuses a game that lacks something without a default."""
    parameters = spec.parameters
    if spec.model.coupling is None:
        raise Refused(f"coupling: missing; allowed: {', '.join(CHOICES['coupling'])}")
    for name in ("eta", "gamma"):
        if name not in parameters:
            raise Refused(f"{name}: missing; allowed: a number")
    for name in ("A", "k"):
        if name not in parameters and not {f"{name}_ask", f"{name}_bid"} <= parameters.keys():
            raise Refused(f"{name}: missing; allowed: a number, or both {name}_ask and {name}_bid")


def _labelled(solver: Solver, results: Mapping[str, np.ndarray]) -> xr.Dataset:
    """The results of one game, with names, dims and units."""
    labels = {name: (name, *about) for name, about in solver.sweep.labels().values().items()}
    units = solver.spec.units
    stored = [STATUS, *variables(solver.spec)]

    def attributes(variable: Variable) -> dict[str, str]:
        return {"long_name": variable.long_name, "units": variable.units_in(units.price, units.time)}

    values = {variable.name: (variable.dims, results[variable.name][0], attributes(variable)) for variable in stored}
    used = {dim for variable in stored for dim in variable.dims}
    return xr.Dataset(values, {name: label for name, label in labels.items() if name in used})

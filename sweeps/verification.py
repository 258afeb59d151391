"""Whether a store holds what it says: all of it is read, what must hold is checked, and some games are solved again."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from sweeps import engine, markdown, runtime
from sweeps.agreement import UNSTEADY, agreeing, described, precision, same_bits
from sweeps.dataset import ATTEMPT, CERTIFICATES, CONVERGED, CRASHED, EQUILIBRIA, PATHS, SCALARS, STATUS, STATUSES, variables
from sweeps.place import Place
from sweeps.recorded import spec_of, spec_of_attempt
from sweeps.schema import hash_of
from sweeps.solver import Results, Solved, Solver
from sweeps.store import SECONDS, Store, open_existing, same_values
from sweeps.sweep import Sweep

NEVER_MISSING = {variable.name for variable in (*CERTIFICATES, *SCALARS, *PATHS, EQUILIBRIA)} | {"value", "density"}
NEVER_MISSING -= {"half_life", "spread_identity"}  # a crowd may start flat, and no maker quote both sides
"""Numbers that every equilibrium has."""
LARGEST_MASS_ERROR = 1e-9
"""Mass is conserved by construction: what is lost is rounding."""
SEED = 0
NAMED_AT_MOST = 10


class Check(NamedTuple):
    """One line of the table."""

    what: str
    looked_at: str
    wrong: int


@dataclass
class Verification:
    """What was looked at, and what is wrong, a line each."""

    checks: list[Check] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    mended_by: set[Place] = field(default_factory=set)
    """Files to delete to have the games of those that cannot be read solved again (`Store.mended_by`)."""

    def add(self, what: str, looked_at: str, wrong: list[str]) -> None:
        self.checks.append(Check(what, looked_at, len(wrong)))
        self.wrong += wrong[:NAMED_AT_MOST]
        if len(wrong) > NAMED_AT_MOST:
            self.wrong.append(f"and {len(wrong) - NAMED_AT_MOST} more: {what}")

    def table(self) -> str:
        rows = ((check.what, check.looked_at, str(check.wrong)) for check in self.checks)
        return markdown.table(("check", "looked at", "wrong"), rows)


def verify(path: Place, sample: int) -> Verification:
    """Reads everything, file by file, and solves a sample of the games that are done again. Writes nothing.

    Numbers of pending games are not looked into: a write that was interrupted may have left some.

    Raises:
        StoreError: there is no store at `path`, or it does not say what it is of.
    """
    runtime.configure()
    target = open_existing(path)
    sweep, found = Sweep(spec_of(target)), Verification()
    _check_labels(target, sweep, found)
    if "status" in target.names:
        readable = target.names - _check_files(target, found)
        if "status" in readable and sweep.design.shape == target.shape:
            _check_sample(target, sweep, readable, sample, found)
    return found


def _check_labels(target: Store, sweep: Sweep, found: Verification) -> None:
    """What the store says of itself: its spec by its hash, its variables, its coordinates."""
    wrong = []
    if hash_of(target.attributes["spec"]) != target.attributes.get("spec_hash"):
        wrong.append("the attribute spec_hash is not that of the attribute spec")
    expected = {"status", *(variable.name for variable in variables(sweep.spec)), *sweep.design.coords}
    wrong += [f"{name}: missing" for name in sorted(expected - target.names)]
    coordinates = {name: values for name, (_, values) in sweep.design.coords.items()}
    coordinates |= {name: values for name, (values, _) in sweep.labels().values().items()}
    for name in sorted(coordinates.keys() & target.names):
        if not _same_coordinate(target, name, coordinates[name]):
            wrong.append(f"{name}: the coordinate is not that of the spec")
    if target.attributes["spec"]["sampling"] == "table" and "where" not in target.attributes["spec"]:
        recorded = target.attributes["spec"]["sweep"]
        digests = sweep.spec.canonical()["sweep"]
        wrong += [f"{name}: the coordinate is not that of the spec" for name in recorded if digests[name] != recorded[name]]
    found.add("labels", f"the spec, {len(coordinates.keys() & target.names)} coordinates", wrong)


def _same_coordinate(target: Store, name: str, expected: np.ndarray) -> bool:
    try:
        return same_values(target.whole(name), expected)
    except Exception:  # codecs raise what they like
        return False


def _check_files(target: Store, found: Verification) -> set[str]:
    """Reads all files, and looks at what must hold on the way; the variables of which some file cannot be read."""
    status = _statuses(target)
    converged = status == CONVERGED
    files, unreadable, lacking, unbalanced = 0, {}, [], []
    absent = dict(target.missing_files(status))
    for name in sorted(target.names):
        for file, region in target.files(name):
            files += file.exists()
            if file in absent:
                unreadable.setdefault(name, []).append(f"{file}: missing")
                if mended_by := absent[file]:
                    found.mended_by.add(mended_by)
                continue
            try:
                numbers = target.read_region(name, region)
            except Exception as error:  # codecs raise what they like
                unreadable.setdefault(name, []).append(f"{file}: cannot be read: {error}")
                if target.holds_results(name):
                    found.mended_by.add(target.mended_by(region))
                continue
            if name in NEVER_MISSING:
                of_equilibria = numbers[converged[region[: status.ndim]]]
                if missing := _games(np.isnan(of_equilibria)):
                    lacking.append(f"{file}: {missing} converged games have no {name}")
                if name == "mass_error" and (lost := _games(of_equilibria > LARGEST_MASS_ERROR)):
                    unbalanced.append(f"{file}: {lost} converged games")
    try:
        target.seconds()
    except Exception as error:  # codecs raise what they like
        unreadable[SECONDS] = [f"{target.path / SECONDS}: cannot be read: {error}"]
    found.add("files can be read", f"{files} of {len(target.names)} variables", [line for of in unreadable.values() for line in of])
    known = np.isin(status, np.arange(len(STATUSES)))
    strange = [] if known.all() else [f"status: {(~known).sum()} games have one that is none"]
    found.add("statuses are known", f"{status.size} games, of which {(status == 0).sum()} pending", strange)
    equilibria = f"{converged.sum()} converged games"
    found.add("equilibria are complete", equilibria, lacking)
    found.add(f"mass_error is at most {LARGEST_MASS_ERROR:g}", equilibria, unbalanced)
    return set(unreadable)


def _statuses(target: Store) -> np.ndarray:
    """Of all games; as if they were not done where they cannot be read, which is told of the file."""
    statuses = np.zeros(target.shape, np.int8)
    for _, region in target.files(STATUS.name):
        with suppress(Exception):  # codecs raise what they like
            statuses[region] = target.read_region(STATUS.name, region)
    return statuses


def _games(wrong: np.ndarray) -> int:
    """Of how many games [game, …] something is true."""
    return int(wrong.any(axis=tuple(range(1, wrong.ndim))).sum())


def _check_sample(target: Store, sweep: Sweep, readable: set[str], sample: int, found: Verification) -> None:
    """Solves some games again, those of each attempt with its settings of the solver."""
    status = target.statuses()
    attempts = target.whole(ATTEMPT.name) if ATTEMPT.name in readable else np.zeros_like(status)
    records = [target.attributes, *target.attributes.get("retries", [])]
    exact = np.array([_made_as_here(target.attributes, record) for record in records])
    # how a game ends that does not converge hangs on every rounding, and one that crashed may take this process with it
    wanted = np.where(exact[attempts], (status != 0) & (status != CRASHED), status == CONVERGED)
    chosen = _chosen(wanted, sample)
    for attempt in np.unique(attempts[chosen]).tolist():
        spec = spec_of_attempt(sweep.spec, attempt, target.attributes)
        of_attempt = chosen & (attempts == attempt)
        wrong = _differences(target, Sweep(spec), readable, of_attempt, bool(exact[attempt]))
        how = "bit for bit" if exact[attempt] else f"to {precision(spec):g}: not made by these versions on this device"
        settings = f" by attempt {attempt}" if attempt else ""
        found.add(f"solved again, {how}", f"{of_attempt.sum()} of {(attempts == attempt).sum()} games{settings}", wrong)


def _made_as_here(attributes: Mapping[str, Any], record: Mapping[str, Any]) -> bool:
    """Whether games were solved by the same programs as they are here and now."""
    extensions = attributes.get("extended", [])
    here = runtime.what_decides_numbers(runtime.provenance())
    records = [record, *(entry["before"] for entry in extensions)]
    same = all(runtime.what_decides_numbers(of) == here for of in records)
    return same and not any(entry["kept"] for entry in extensions)


def _chosen(wanted: np.ndarray, count: int) -> np.ndarray:
    """So many of the wanted games, or all, in the sweep's shape."""
    places = np.flatnonzero(wanted)
    chosen = np.zeros(wanted.size, bool)
    chosen[np.random.default_rng(SEED).permutation(places)[:count]] = True
    return chosen.reshape(wanted.shape)


def _differences(target: Store, sweep: Sweep, readable: set[str], chosen: np.ndarray, exact: bool) -> list[str]:
    """Where games that are solved again are not as they are held, a line for each game and variable."""
    parts = target.parts(chosen)
    points = np.concatenate([part.points for part in parts])
    solver = Solver(sweep, int(target.attributes["batch"]))
    new = _in_order(list(engine.solve(solver, engine.games_of(sweep, parts))))
    held = {name: np.concatenate([target.read(name, part) for part in parts]) for name in new if name in readable}
    same = {"status": held["status"] == new["status"]}
    for variable in variables(sweep.spec):
        name = variable.name
        if name in held and exact:
            same[name] = same_bits(held[name], target.as_stored(name, new[name]))
        elif name in held and name not in UNSTEADY:
            same[name] = agreeing(variable, held[name], new[name], new["mean_spread"], precision(sweep.spec))
    return [
        f"{name} of the game {described(sweep, int(point))}: solved again, it is another"
        for name, of_games in same.items()
        for point in points[~of_games]
    ]


def _in_order(solved: list[Solved]) -> Results:
    """The results of all games in the order of their points."""
    order = np.argsort(np.concatenate([games.points for games, _ in solved]))
    return {name: np.concatenate([results[name] for _, results in solved])[order] for name in solved[0][1]}

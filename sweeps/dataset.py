"""The stored variables: names, dims, units and long names, declared once; and opening a store."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import xarray as xr

from sweeps.place import Place, opened, place, told
from sweeps.spec import Spec

STATUSES = (
    "pending",
    "converged",
    "iteration_limit",
    "non_finite",
    "unstable_step",
    "continuation_stopped",
    "invalid_parameters",
    "crashed",
)
"""Names of the library's statuses, by number; a test holds them to `mfg_jax.Status`."""
CONVERGED, CRASHED = STATUSES.index("converged"), STATUSES.index("crashed")


@dataclass(frozen=True)
class Variable:
    """A stored variable: `dims` are those behind the sweep's. `units` names price and time where they enter."""

    name: str
    dims: tuple[str, ...]
    units: str
    long_name: str

    def units_in(self, price: str, time: str) -> str:
        """The units, with the names of price and time in place; in parentheses where a name is more than one word."""
        names = {"price": price, "time": time}
        return self.units.format(**{kind: name if name.isalnum() else f"({name})" for kind, name in names.items()})


def _table(dims: tuple[str, ...], text: str) -> tuple[Variable, ...]:
    rows = (map(str.strip, line.split("|")) for line in text.strip().splitlines())
    return tuple(Variable(name, dims, units, long_name) for name, units, long_name in rows)


PARAMETERS = _table(
    (),
    """
    A          | 1/{time}                | base fill rate
    k          | 1/{price}               | decay of the fill rate with the offset
    eta        | {price}/(lot^2*{time})  | running inventory penalty
    gamma      | {price}/lot^2             | terminal inventory penalty
    k0         | 1/{price}               | decay of the total flow with the crowd's offset
    n_makers   | 1                         | makers who share the flow
    crowd_mean | lot                       | mean inventory of the initial crowd
    crowd_std  | lot                       | standard deviation of the initial crowd's inventory
    horizon    | {time}                    | length of the trading day
    quote_min  | {price}                   | smallest offset allowed
    quote_max  | {price}                   | largest offset allowed
    A_ask      | 1/{time}                | A of the ask side
    A_bid      | 1/{time}                | A of the bid side
    k_ask      | 1/{price}               | k of the ask side
    k_bid      | 1/{price}               | k of the bid side
    """,
)

CERTIFICATES = _table(
    (),
    """
    residual        | {price} | largest distance of the crowd path from the average best reply to it
    iterations      | 1       | evaluations of the best reply
    mass_error      | 1       | largest distance of the density's sum from 1
    min_density     | 1       | smallest density
    edge_mass       | 1       | largest fraction of makers at the ends of the lattice
    spread_identity | {price} | largest gap between mean spread and sum of mean offsets, makers quoting both sides
    monotone        | 1       | whether every fill rate falls in the own offset (1) or not (0)
    branch          | 1       | the principal equilibrium (1), another (2), or one of which it is not known (0)
    steps           | 1       | time intervals it was solved with
    folds           | 1       | folds passed on the path from the uncoupled game
    """,
) + _table(("side",), "clipped_mass | 1 | largest fraction of makers whose quote sits at a bound")

FULL_CERTIFICATES = _table(
    (),
    """
    exploitability | {price} | what one maker gains by leaving the crowd's policy
    contraction    | 1       | spectral radius of the crowd's best reply at the equilibrium
    time_error     | {price} | estimate of the crowd path's error for the length of the time steps
    """,
)

DIFFERENTIATED = Variable("differentiated", (), "1", "whether the equations for the derivatives were solved (1) or not (0)")

EQUILIBRIA = Variable("equilibria", (), "1", "equilibria found by looking for all of them")

SCALARS = _table(
    (),
    """
    mean_spread              | {price} | time average of the crowd's full spread
    closing_spread           | {price} | the crowd's full spread at the close
    peak_variance            | lot^2   | largest inventory variance
    peak_time                | {time}  | time of the largest inventory variance
    final_derisk_probability | 1       | fraction of makers within the de-risk band at the close
    expected_fills           | lot     | expected fills of one maker, both sides
    half_life                | {time}  | time at which the mean inventory is half its start
    expected_value           | {price} | mean value at the open
    expected_edge            | {price} | expected edge earned from the spread
    expected_running_cost    | {price} | expected running inventory cost
    expected_terminal_cost   | {price} | expected terminal inventory cost
    """,
)

PATHS = _table(
    ("time",),
    """
    crowd_ask          | {price}    | the crowd's average ask offset
    crowd_bid          | {price}    | the crowd's average bid offset
    full_spread        | {price}    | the crowd's full spread
    inventory_mean     | lot        | mean inventory of the crowd
    inventory_variance | lot^2      | variance of the crowd's inventory
    derisk_probability | 1          | fraction of makers within the de-risk band
    marginal_value     | {price}    | half the value of one lot long over one lot short
    flat_to_long_cost  | {price}    | value lost by going from flat to one lot long
    flat_to_short_cost | {price}    | value lost by going from flat to one lot short
    fill_rate_ask      | 1/{time} | ask fills per maker and time
    fill_rate_bid      | 1/{time} | bid fills per maker and time
    value_flat         | {price}    | value of a flat inventory
    """,
)

SURFACES = _table(
    ("time", "inventory"),
    """
    value   | {price} | value function
    ask     | {price} | best ask offset
    bid     | {price} | best bid offset
    density | 1       | fraction of makers
    """,
)

COMPETITION = tuple(
    Variable(f"competition_{of.name}", (), of.units, f"what competition does: {of.name} less that of the same makers without it")
    for of in SCALARS
)

EXACT = {"status", "iterations", "monotone", "branch", "steps", "folds", "differentiated", "equilibria"}
"""Variables that count or answer: no precision rounds them."""

STATUS = Variable("status", (), "1", "how the game ended")

ATTEMPT = Variable("attempt", (), "1", "whose the numbers are: the run's (0), or the n-th of the attribute `retries`")
"""Only in stores of which games were retried."""

KEPT = Variable("kept", (), "1", "whether the numbers from before outputs were added to the store stay (1) or not (0)")
"""Only in such stores."""


def variables(spec: Spec) -> Iterator[Variable]:
    """What a sweep stores, `status` excepted."""
    yield from variables_of_one_equilibrium(spec)
    if spec.outputs.equilibria:
        yield EQUILIBRIA
    if spec.outputs.baseline:
        yield from COMPETITION
    if spec.outputs.gradients:
        yield DIFFERENTIATED
    scalars = {variable.name: variable for variable in SCALARS}
    for name in spec.outputs.gradients:
        of = scalars[name]
        yield Variable(f"d_{name}", ("parameter",), f"{of.units} per unit of parameter", f"derivative of {name}")


def variables_of_one_equilibrium(spec: Spec) -> Iterator[Variable]:
    """Those that need no derivative and no other game."""
    yield from CERTIFICATES
    if spec.certify_fully:
        yield from FULL_CERTIFICATES
    yield from SCALARS
    if spec.outputs.paths:
        yield from PATHS
    if spec.outputs.surfaces:
        yield from SURFACES


def open_store(path: str | Place, remember: bool = True) -> xr.Dataset:
    """The sweep at `path` (or s3://BUCKET/NAME), lazily. Also while it is being written: what is not done has status 0, and NaN or
    numbers that mean nothing.

    Args:
        remember: keep in memory what was read; otherwise it is read each time, and found as it is by then.

    Raises:
        FileNotFoundError: there is no store at `path`. place.Refused: the object store does not answer.
    """
    where = place(path) if isinstance(path, str) else path
    if not (where.is_dir() if isinstance(where, Path) else where.exists()):
        raise FileNotFoundError(f"{path}: no such store; `mfgsweep run GRID.yaml` makes one")
    with told(where):
        found: Any = opened(where)  # xarray's annotations do not know that it takes what zarr takes
        return xr.open_dataset(found, engine="zarr", chunks=None, cache=remember)


def loaded(dataset: xr.Dataset) -> xr.Dataset:
    """All of it in memory, `status` first: whatever a run writes meanwhile, games that are done then have all their numbers."""
    return dataset.assign(status=dataset["status"].load()).load()

"""The spec of a store, from what it recorded."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sweeps.kinds import Column
from sweeps.schema import SolverSection, Spec
from sweeps.store import Store, StoreError


def spec_of(store: Store) -> Spec:
    """The spec whose canonical form the attribute `spec` is.

    Of a table only digests are recorded there: its columns are the store's coordinates, which its constraints have left.

    Raises:
        StoreError: there is none, or the coordinates are damaged.
    """
    try:
        return _spec_of(store)
    except StoreError:
        raise
    except (KeyError, TypeError, ValueError):
        raise StoreError(f"{store.path}: the spec in its attributes cannot be read") from None


def spec_of_attempt(spec: Spec, attempt: int, attributes: Mapping[str, Any]) -> Spec:
    """The spec that games of this `attempt` were solved with."""
    if not attempt:
        return spec
    return spec.model_copy(update={"solver": SolverSection(**attributes["retries"][attempt - 1]["solver"])})


def _spec_of(store: Store) -> Spec:
    recorded = dict(store.attributes["spec"])
    axes, order = recorded.pop("sweep"), recorded.pop("sweep_order")
    if recorded["sampling"] == "table":
        recorded["table"] = {name: Column(store.whole(name), store.path.name) for name in order}
        recorded.pop("where", None)
    else:
        recorded["sweep"] = {name: _axis(axes[name]) for name in order}
    recorded["parameters"] = {name: _number(value) for name, value in recorded["parameters"].items()}
    return Spec.model_validate(recorded)


def _axis(recorded: list[Any] | dict[str, Any]) -> Any:
    """As a grid file has it: values, or a span to draw from."""
    if isinstance(recorded, dict):
        return {"log_uniform" if recorded["log"] else "uniform": [recorded["first"], recorded["last"]]}
    return [_number(value) for value in recorded]


def _number(recorded: Any) -> Any:
    """JSON has no infinities, so they are recorded as text."""
    return float(recorded) if recorded in ("inf", "-inf") else recorded

"""From a grid file to its Spec, or to one clear line for every mistake in it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from sweeps.document import Document
from sweeps.problems import Finding, KeyPath, SpecError, did_you_mean, found, nearest, not_among
from sweeps.rules import broken_rules, unfit_points
from sweeps.schema import KEYS, SCALAR_METRICS, ModelSection, Spec, differing_keys
from sweeps.tables import TableError, read

__all__ = ["SCALAR_METRICS", "Spec", "SpecError", "differing_keys", "load_spec"]


def load_spec(path: str | Path) -> Spec:
    """The grid file at `path`, checked as a whole.

    Raises:
        SpecError: with all mistakes of the file at once, each with its line, what was found and what is allowed.
    """
    document = Document(path)
    data, findings = _with_table(document.data, Path(path).parent)
    findings += [*document.twice, *_wrong_in_themselves(data)]
    if isinstance(data, dict):
        spec = Spec.model_validate(_without(data, findings))
        blamed = {key for finding in findings for key in _blamed(finding.path)}
        findings += [finding for finding in broken_rules(spec) if not finding.about & blamed]
        findings = findings or list(unfit_points(spec))
        if not findings:
            return spec
    raise document.error(findings)


def _with_table(data: Any, folder: Path) -> tuple[Any, list[Finding]]:
    """The data with the columns of the table, which lies beside the grid file, in place of its path."""
    if not isinstance(data, dict) or "table" not in data:
        return data, []
    try:
        if not isinstance(data["table"], str):
            raise TableError(f"{found(data['table'])}; allowed: the path of a CSV or Parquet file, from the grid file's folder")
        return data | {"table": read(folder / data["table"])}, []
    except TableError as error:
        return {key: value for key, value in data.items() if key != "table"}, [Finding(("table",), str(error))]


def _wrong_in_themselves(data: Any) -> list[Finding]:
    try:
        Spec.model_validate(data)
    except ValidationError as error:
        return list(_in_our_words(error))
    return []


def _in_our_words(error: ValidationError) -> Iterator[Finding]:
    """What pydantic collected: it meets only the kinds of mistake named here."""
    for detail in error.errors(include_url=False):
        path, value = detail["loc"], detail["input"]
        section = str(path[0]) if path else ""
        match detail["type"]:
            case "refused":
                message = detail["msg"]
            case "extra_forbidden":
                message = _unknown(str(path[-1]), section if len(path) > 1 else "")
            case "literal_error":
                names = re.findall(r"'(\w+)'", detail.get("ctx", {})["expected"])
                message = not_among(value, names)
            case _:
                message = f"{found(value)}; allowed: a mapping with keys among {', '.join(KEYS[section])}"
        yield Finding(path, message)


def _unknown(name: str, section: str) -> str:
    if section == "sweep" and name in ModelSection.model_fields:
        return f"a static choice of the model cannot be swept; allowed: {', '.join(KEYS['sweep'])}"
    elsewhere = (f"{home}.{name}".lstrip(".") for home, names in KEYS.items() if name in names)
    hint = next(elsewhere, None) or nearest(name, KEYS[section])
    return f"unknown key; allowed: {', '.join(KEYS[section])}{did_you_mean(hint)}"


def _without(data: dict[str, Any], findings: Sequence[Finding]) -> dict[str, Any]:
    """The top level and the sections without the keys that the findings are about."""
    kept = {key: dict(value) if isinstance(value, dict) else value for key, value in data.items()}
    for head, *rest in (map(str, finding.path) for finding in findings):
        if rest and isinstance(kept.get(head), dict):
            kept[head].pop(rest[0], None)
        else:
            kept.pop(head, None)
    return kept


def _blamed(path: KeyPath) -> set[str]:
    """The keys that a mistake at `path` may explain: itself, what it may have been meant for, and the keys within."""
    head, *rest = map(str, path)
    if rest and head in KEYS:
        return {head, rest[0], nearest(rest[0], KEYS[head]) or head}
    section = head if head in KEYS else nearest(head, KEYS[""]) or head
    return {head, section, *KEYS.get(section, ())}

"""What is wrong with a grid file, and the words to say it in."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import NamedTuple

KeyPath = tuple[str | int, ...]


@dataclass(frozen=True)
class Problem:
    """One mistake: its file, its line (None where there is none), its dotted key ("" for the whole file), its text."""

    file: str
    line: int | None
    key: str
    message: str

    def __str__(self) -> str:
        place = self.file if self.line is None else f"{self.file}:{self.line}"
        return ": ".join(part for part in (place, self.key, self.message) if part)


class SpecError(ValueError):
    """A grid file that cannot be used. `problems` holds every mistake, in line order; str() is one line for each."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        super().__init__(tuple(problems))

    @property
    def problems(self) -> tuple[Problem, ...]:
        return self.args[0]

    def __str__(self) -> str:
        return "\n".join(map(str, self.problems))


class Finding(NamedTuple):
    """A mistake before it has a line. `about` names the keys it rests on: if one of those is wrong, this is noise."""

    path: KeyPath
    message: str
    about: AbstractSet[str] = frozenset()


def brief(text: str) -> str:
    """`text` on one line of at most 60 characters."""
    text = text if text.isprintable() else repr(text)
    return text if len(text) <= 60 else text[:57] + "..."


def found(value: object) -> str:
    """What was found, in the file's terms and not in Python's."""
    match value:
        case None:
            return "found nothing"
        case bool():
            return f"found {str(value).lower()}, a truth value"
        case int() if value.bit_length() > 64:
            return f"found a whole number of {value.bit_length()} bits"
        case int() | float():
            return f"found {value}"
        case str():
            return f"found {brief(repr(value))}, a text"
        case list() | tuple():
            return f"found a list of {len(value)}"
        case dict():
            return "found a mapping"
        case _:
            return f"found {brief(str(value))}, a {type(value).__name__}"


def nearest(name: str, names: Collection[str]) -> str | None:
    """The one of `names` that `name` may have been meant for."""
    by_lower_case = {known.lower(): known for known in names}
    near = difflib.get_close_matches(name.lower(), by_lower_case, n=1)
    return by_lower_case[near[0]] if near else None


def not_among(value: object, names: Collection[str]) -> str:
    """What is said of a value that is none of `names`."""
    near = nearest(value, names) if isinstance(value, str) else None
    return f"{found(value)}; allowed: {', '.join(names)}{did_you_mean(near)}"


def did_you_mean(name: str | None) -> str:
    """The end of a message that hints at `name`, empty where there is none."""
    return f"; did you mean `{name}`?" if name else ""

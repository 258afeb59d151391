"""A share of a store's blocks, for runs that fill one store side by side, on whatever machines."""

from __future__ import annotations

import re
from dataclasses import dataclass

from sweeps.lock import WHOLE
from sweeps.store import Block


@dataclass(frozen=True)
class Share:
    """The `number`th of `of` shares, counted from 1; 1 of 1 is the whole."""

    number: int = 1
    of: int = 1

    def owns(self, block: Block) -> bool:
        """Every block belongs to one share. They take turns, as blocks that are neighbours are often as hard as each other."""
        return block.number % self.of == self.number - 1

    @property
    def is_whole(self) -> bool:
        return self.of == 1

    @property
    def name(self) -> str:
        """By which its lock is told from others (`lock.hold`)."""
        return WHOLE if self.is_whole else f"{self.number}/{self.of}"


ALL = Share()


def share_named(text: str) -> Share:
    """From N/M.

    Raises:
        ValueError: it is none.
    """
    found = re.fullmatch(r"(\d{1,6})/(\d{1,6})", text)
    if not found or not 1 <= int(found[1]) <= int(found[2]):
        raise ValueError(f"--shard: found {text!r}; allowed: N/M, such as 3/16, with N from 1 to M")
    return Share(int(found[1]), int(found[2]))

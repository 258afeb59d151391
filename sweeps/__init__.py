"""The engine: from a grid file to a labelled store."""

from sweeps.notebook import show
from sweeps.runtime import configure

__all__ = ["configure", "show"]

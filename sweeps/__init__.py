"""The engine: from a grid file to a labelled store."""

from sweeps.runtime import configure

__all__ = ["configure"]

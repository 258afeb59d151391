"""The engine: from a grid file to a labelled store."""

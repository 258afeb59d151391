"""The page with its games in itself: one file, which opens without a server and asks no network for anything."""

from __future__ import annotations

import base64
import hashlib
import itertools
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from sweeps import figures, information
from sweeps.dataset import CONVERGED, STATUSES, loaded, open_store
from sweeps.files import written_whole
from sweeps.place import Place
from sweeps.store import open_whole
from sweeps.viewer import page
from sweeps.viewer.gallery import Gallery

MOST_BYTES = 20_000_000
"""Of the games in a report, about."""


@dataclass(frozen=True)
class Document:
    """A page, and which of the games it holds, in words."""

    html: str
    what_is_here: str


def write(store: Place, output: Path) -> Document:
    """Writes the report of a store, whole or not at all.

    Raises:
        StoreError: there is no store at that path, or files of it are missing. OSError: the file cannot be written.
    """
    with written_whole(output) as unfinished:
        open_whole(store)
        summary = information.lines(store)
        with open_store(store) as dataset:
            made = document(dataset, store.name, summary, MOST_BYTES)
        unfinished.write_text(made.html, encoding="utf-8")
    return made


def document(dataset: xr.Dataset, title: str, summary: Sequence[str], most_bytes: int) -> Document:
    """A page that holds the games of a dataset, or as many, evenly spread along its dims, as fit into so many bytes.

    Args:
        dataset: as for `Gallery`. summary: what is said about it, line by line.
    """
    sizes = {str(dim): dataset.sizes[dim] for dim in dataset["status"].dims}
    places = _thinned(sizes, max(1, most_bytes // _bytes_per_game(dataset)))
    gallery = Gallery(loaded(dataset.isel(places)))
    here = _what_is_here(gallery.dims, sizes)
    about = {"title": title, "summary": [here, *summary], "games": gallery.about(), "live": []}
    return Document(_page({"about": about, **_content(gallery)}), here)


def _content(gallery: Gallery) -> dict[str, Any]:
    """All that the page can ask a transport for."""
    shape = tuple(gallery.dims.values())
    places = [dict(zip(gallery.dims, place, strict=True)) for place in np.ndindex(*shape)]
    packed = _Packed()
    games = [packed.game(gallery.game(place)) for place in places]
    return {
        "progress": gallery.progress(),
        "status_names": STATUSES,
        "statuses": figures.encoded(gallery.statuses.ravel(), "i1"),
        "scalars": {name: _scalar(gallery, name) for name in gallery.scalars},
        "ranges": gallery.ranges(gallery.scalars[0])["figures"],
        "slices": _slices(gallery, places[0]),
        "skeletons": [json.loads(skeleton) for skeleton in packed.skeletons],
        "arrays": [json.loads(array) for array in packed.arrays],
        "games": games,
    }


class _Packed:
    """What many games share is there once: all of a figure but its numbers, and numbers that are the same."""

    def __init__(self) -> None:
        self.skeletons: dict[str, int] = {}
        self.arrays: dict[str, int] = {}

    def game(self, shown: dict[str, Any]) -> dict[str, Any]:
        own = {name: shown[name] for name in ("status", "explanation", "parameters")}
        values = [metric.pop("value") for metric in shown["metrics"]]
        arrays: list[int] = []
        skeleton = {"figures": self._without_numbers(shown["figures"], arrays), "metrics": shown["metrics"]}
        return {"skeleton": _number_of(json.dumps(skeleton), self.skeletons), "arrays": arrays, "values": values, "own": own}

    def _without_numbers(self, part: Any, arrays: list[int]) -> Any:
        if isinstance(part, list):
            return [self._without_numbers(item, arrays) for item in part]
        if not isinstance(part, dict):
            return part
        if "bdata" in part:
            arrays.append(_number_of(json.dumps(part), self.arrays))
            return {"slot": len(arrays) - 1}
        return {key: self._without_numbers(item, arrays) for key, item in part.items()}


def _number_of(text: str, known: dict[str, int]) -> int:
    return known.setdefault(text, len(known))


def _scalar(gallery: Gallery, name: str) -> dict[str, Any]:
    values = gallery.scalar(name)
    return {
        "values": figures.encoded(values.values.ravel()),
        "symbol": figures.symbol(values),
        "range": gallery.range_of_scalar(name),
    }


def _slices(gallery: Gallery, place: dict[str, int]) -> dict[str, Any]:
    """For each choice of axes the slice of any scalar through any game: the page puts in the numbers."""
    axes = list(gallery.coordinates if "point" in gallery.dims else gallery.dims)
    pairs: list[tuple[str, str | None]] = list(itertools.permutations(axes, 2))
    alone: list[tuple[str, str | None]] = [] if "point" in gallery.dims else [(x, None) for x in axes]
    return {f"{x}|{y or ''}": gallery.slice(gallery.scalars[0], x, y, place) for x, y in pairs + alone}


def _bytes_per_game(dataset: xr.Dataset) -> int:
    """What a game takes in the page: what the last that converged, or else is done, adds to the first."""
    status = dataset["status"].values
    done = next((games for games in (np.argwhere(status == CONVERGED), np.argwhere(status != 0)) if len(games) > 1), None)
    if done is None:
        return 1
    gallery, packed = Gallery(dataset), _Packed()
    first, last = (dict(zip(gallery.dims, map(int, place), strict=True)) for place in (done[0], done[-1]))
    packed.game(gallery.game(first))
    before = sum(map(len, packed.arrays))
    added = packed.game(gallery.game(last))
    return len(json.dumps(added)) + sum(map(len, packed.arrays)) - before


def _thinned(sizes: dict[str, int], most: int) -> dict[str, np.ndarray]:
    """At most so many games: the longest dims are thinned, the first and the last of each stay."""
    left = dict(sizes)
    while math.prod(left.values()) > most:
        longest = max(left, key=lambda dim: left[dim])
        if left[longest] == 1:
            break
        left[longest] -= max(1, left[longest] // 20)
    return {dim: figures.spread_evenly(size, left[dim]) for dim, size in sizes.items()}


def _what_is_here(here: dict[str, int], sizes: dict[str, int]) -> str:
    thinned = ", ".join(f"{here[dim]} of {size} along {dim}" for dim, size in sizes.items() if here[dim] < size)
    games, all_games = math.prod(here.values()), math.prod(sizes.values())
    return f"this file   {games} of {all_games} games: {thinned}" if thinned else f"this file   all {all_games} games"


def _page(content: dict[str, Any]) -> str:
    """The page with everything that it loads written into it, and a policy that it loads nothing else."""
    files = {name: path.read_text(encoding="utf-8") for name, path in page.files().items()}
    scripts = [files["plotly.min.js"], files["page.js"]]
    data = json.dumps(content, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")
    policy = page.policy(" ".join(map(_source, scripts)))
    head = f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n<style>\n{files["page.css"]}</style>'
    body = f'<script type="application/json" id="sweep">{data}</script>\n' + "\n".join(f"<script>{s}</script>" for s in scripts)
    text = files[""].replace('<link rel="stylesheet" href="page.css">', head)
    return text.replace('<script src="plotly.min.js"></script>\n<script src="page.js"></script>', body)


def _source(script: str) -> str:
    """What the policy calls a script by."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'"

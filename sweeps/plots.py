"""Whether plots can be drawn: matplotlib is an extra, and reports are whole without them."""

from __future__ import annotations

import sys
from importlib.util import find_spec

WITHOUT = f"no plots are drawn, for want of matplotlib; install it with: {sys.executable} -m pip install 'mfg-jax[viz]'"


def can_be_drawn() -> bool:
    return find_spec("matplotlib") is not None

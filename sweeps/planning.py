"""What a run would do, without running it."""

from __future__ import annotations

import math

import jax

from sweeps.runtime import duration, readable
from sweeps.spec import Spec
from sweeps.sweep import Sweep

# On one core of a 2020s server, of mild games, by scripts/bench.py and scripts/bench_gradients.py. Costs in solutions.
NANOSECONDS_PER_STATE_STAGE = 13
SWEEPS_PER_GAME = 12
COST_OF_A_GRADIENT, COST_OF_CERTIFICATES = 2.1, 1.0
SECONDS_TO_FIND_EQUILIBRIA = 1.0
SECONDS_TO_COMPILE = 10


def lines(spec: Spec, batch: int | None) -> list[str]:
    """The plan, a line an item."""
    sweep = Sweep(spec)
    points = len(sweep.design)
    size = batch or sweep.batch_size()
    dims = " x ".join(f"{dim} {length}" for dim, length in zip(sweep.design.dims, sweep.design.shape, strict=True))
    block = math.prod(sweep.block_shape())
    blocks = math.ceil(points / block)
    static = [values for name, (_, values) in sweep.design.coords.items() if name in ("coupling", "boundary")]
    kinds = math.prod(len(set(names.tolist())) for names in static)
    batches = blocks * kinds * math.ceil(block / (kinds * size))
    return [
        f"points      {points} ({dims})",
        *([f"where       {'; '.join(spec.where)}: leaves {points} of {sweep.design.candidates} points"] if spec.where else []),
        f"programs    {kinds} to compile",
        f"batches     about {batches} of up to {size} games",
        f"blocks      {blocks} of up to {block} games: what one write stores",
        f"memory      about {readable(sweep.working_bytes(size) + block * sum(sweep.bytes_per_game().values()))}",
        f"on disk     up to {readable(sweep.bytes_on_disk())}, before compression",
        f"time        {_time(spec, sweep, kinds)}",
    ]


def _time(spec: Spec, sweep: Sweep, kinds: int) -> str:
    if jax.default_backend() != "cpu":
        return "no estimate: not yet measured on a GPU"
    model = sweep.model("none", "reflecting")
    scheme = model.explicit_model.settled_scheme
    states = model.n_steps * len(scheme.nodes) * (2 * model.x_max + 1)
    one_game = 1e-9 * NANOSECONDS_PER_STATE_STAGE * states * SWEEPS_PER_GAME
    one_game *= 1.0 + COST_OF_A_GRADIENT * len(spec.outputs.gradients) + (COST_OF_CERTIFICATES if spec.certify_fully else 0.0)
    one_game += SECONDS_TO_FIND_EQUILIBRIA if spec.outputs.equilibria else 0.0
    workers = sweep.worker_count()
    seconds = len(sweep.design) * one_game / workers
    compiling = kinds * SECONDS_TO_COMPILE * (2 if spec.outputs.gradients else 1)
    return (
        f"at least {duration(seconds)} on {workers} cores, and {duration(compiling)} to compile; "
        "a game that is not mild takes seconds, and the program for such games minutes to compile"
    )

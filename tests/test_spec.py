"""What a grid file may say, and what is said about one that does not."""

import dataclasses
import json
import os
import pickle
import re
import subprocess
import sys
import typing
from pathlib import Path

import numpy as np
import pytest

import mfg_jax as mfg
from sweeps import schema
from sweeps.schema import ModelSection, OutputsSection, SolverSection
from sweeps.spec import SCALAR_METRICS, Spec, SpecError, differing_keys, load_spec

GOOD = """\
model: {coupling: elastic}
parameters: {A: 10, k: 1.5, eta: 0.01}
sweep:
  gamma: [0.05, 0.1]
"""


@pytest.fixture
def load(tmp_path: Path):
    def load_text(text: str) -> Spec:
        path = tmp_path / "grid.yaml"
        path.write_text(text, encoding="utf-8")
        return load_spec(path)

    return load_text


def problems(load, text: str) -> list[tuple[int | None, str, str]]:
    with pytest.raises(SpecError) as caught:
        load(text)
    return [(problem.line, problem.key, problem.message) for problem in caught.value.problems]


def with_line(line: str, replaced: str = "") -> str:
    """GOOD with `line` at its end, or in place of the line that starts with `replaced`; lines stay countable."""
    if not replaced:
        return GOOD + line + "\n"
    return "\n".join(line if old.startswith(replaced) else old for old in GOOD.splitlines()) + "\n"


# Each: the file, then (line, key, a telling part of the message) of every problem that it has, and no others.
BAD: dict[str, tuple[str, list[tuple[int, str, str]]]] = {
    # names
    "typo at the top level": (with_line("samplng: zip"), [(5, "samplng", "did you mean `sampling`?")]),
    "typo of a section": (
        with_line("paramters: {A: 10, k: 1, eta: 0}", "parameters"),
        [(2, "paramters", "did you mean `parameters`?")],
    ),
    "typo of the sweep": (GOOD.replace("sweep:", "swep:"), [(3, "swep", "did you mean `sweep`?")]),
    "typo in the model": (
        with_line("model: {coupling: elastic, nsteps: 9}", "model"),
        [(1, "model.nsteps", "did you mean `n_steps`?")],
    ),
    "typo of a required parameter": (
        GOOD.replace("eta:", "etaa:"),
        [(2, "parameters.etaa", "did you mean `eta`?")],
    ),
    "name near none of the required ones": (
        GOOD.replace("eta:", "volatility:"),
        [(2, "parameters.volatility", "unknown key; allowed: A, k, eta"), (2, "parameters.eta", "missing")],
    ),
    "typo in case": (
        with_line("parameters: {a: 10, K: 1.5, eta: 0.01}", "parameters"),
        [(2, "parameters.a", "did you mean `A`?"), (2, "parameters.K", "did you mean `k`?")],
    ),
    "typo of a swept name": (GOOD.replace("gamma:", "gama:"), [(4, "sweep.gama", "did you mean `gamma`?")]),
    "precision finer than a float32": (
        with_line("outputs: {dtype: float32, precision: 1e-8}"),
        [(5, "outputs.precision", "found 1e-08, finer than float32; allowed with it: at least 6e-08, or dtype float64")],
    ),
    "precision of 0": (
        with_line("outputs: {precision: 0}"),
        [(5, "outputs.precision", "found 0; allowed: a number from 1e-15 to 1e-2")],
    ),
    "typo in the outputs": (with_line("outputs: {path: true}"), [(5, "outputs.path", "did you mean `paths`?")]),
    "typo in the solver": (
        with_line("solver: {tolerence: 1e-8}"),
        [(5, "solver.tolerence", "did you mean `tolerance`?")],
    ),
    "typo in the units": (with_line("units: {prices: ticks}"), [(5, "units.prices", "did you mean `price`?")]),
    "typo in the metrics": (
        with_line("metrics: {band: 1}"),
        [(5, "metrics.band", "unknown key; allowed: derisk_band")],
    ),
    "a name unlike any": (with_line("zzz: 1"), [(5, "zzz", "unknown key; allowed: model, parameters, sweep")]),
    "a key in the wrong section": (
        with_line("solver: {x_max: 5}"),
        [(5, "solver.x_max", "did you mean `model.x_max`?")],
    ),
    "a parameter at the top level": (with_line("horizon: 2"), [(5, "horizon", "did you mean `parameters.horizon`?")]),
    "a key that is a number": (with_line("3: 2"), [(5, "3", "unknown key")]),
    "a key that is a list": (with_line("? [1, 2]\n: 3"), [(5, "?", "unknown key")]),
    "unknown coupling": (
        with_line("model: {coupling: relativ}", "model"),
        [
            (
                1,
                "model.coupling",
                "found 'relativ', a text; allowed: relative, elastic, market_share, none; did you mean",
            )
        ],
    ),
    "unknown boundary": (
        with_line("model: {coupling: none, boundary: reflect}", "model"),
        [(1, "model.boundary", "did you mean `reflecting`?")],
    ),
    "unknown swept coupling": (
        "parameters: {A: 1, k: 1, eta: 0, gamma: 0}\nsweep:\n  coupling: [none,\n    market-share]\n",
        [(4, "sweep.coupling[1]", "did you mean `market_share`?")],
    ),
    "unknown sampling": (with_line("sampling: zipped"), [(5, "sampling", "saltelli; did you mean `zip`?")]),
    "unknown gradient": (
        with_line("outputs:\n  gradients:\n  - mean_spread\n  - mean_sprd"),
        [(8, "outputs.gradients[1]", "did you mean `mean_spread`?")],
    ),
    "certify unknown": (
        with_line("outputs: {certify: ful}"),
        [(5, "outputs.certify", "found 'ful', a text; allowed: basic, full; did you mean `full`?")],
    ),
    # numbers
    "NaN": (GOOD.replace("10,", ".nan,"), [(2, "parameters.A", "found nan; allowed: a finite number > 0")]),
    "negative": (GOOD.replace("10,", "-10,"), [(2, "parameters.A", "found -10; allowed: a finite number > 0")]),
    "zero": (GOOD.replace("1.5", "0"), [(2, "parameters.k", "found 0; allowed: a finite number > 0")]),
    "infinite": (GOOD.replace("0.01", ".inf"), [(2, "parameters.eta", "found inf; allowed: a finite number >= 0")]),
    "beyond floats": (
        GOOD.replace("0.01", "1" + "0" * 400),
        [(2, "parameters.eta", "found a whole number of 1329 bits")],
    ),
    "quoted number": (GOOD.replace("1.5", "'1e-8'"), [(2, "parameters.k", "found '1e-8', a text; allowed: a finite")]),
    "truth value for a number": (
        GOOD.replace("1.5", "true"),
        [(2, "parameters.k", "found true, a truth value; allowed")],
    ),
    "nothing for a number": (
        GOOD.replace("1.5", ""),
        [(2, "parameters.k", "found nothing; allowed: a finite number > 0")],
    ),
    "list for a number": (GOOD.replace("1.5", "[1, 2]"), [(2, "parameters.k", "found a list of 2; allowed")]),
    "mapping for a number": (GOOD.replace("1.5", "{b: 1}"), [(2, "parameters.k", "found a mapping; allowed")]),
    "date for a number": (
        GOOD.replace("1.5", "2024-01-31"),
        [(2, "parameters.k", "found 2024-01-31, a date; allowed")],
    ),
    "one maker": (GOOD.replace("eta:", "n_makers: 1, eta:"), [(2, "parameters.n_makers", "a finite number > 1")]),
    "lower bound at infinity": (
        GOOD.replace("eta:", "quote_min: .inf, eta:"),
        [(2, "parameters.quote_min", "found inf")],
    ),
    "upper bound at minus infinity": (
        GOOD.replace("eta:", "quote_max: -.inf, eta:"),
        [(2, "parameters.quote_max", "found -inf; allowed: a number, or .inf")],
    ),
    "fraction for a count": (
        with_line("model: {coupling: none, x_max: 10.0}", "model"),
        [(1, "model.x_max", "found 10.0; allowed: a whole number from 1 to 10000")],
    ),
    "truth value for a count": (
        with_line("model: {coupling: none, x_max: true}", "model"),
        [(1, "model.x_max", "found true, a truth value")],
    ),
    "absurd lattice and steps": (
        "model:\n  coupling: none\n  x_max: 10001\n  n_steps: 1000001\n  grading: 21\n" + GOOD.split("\n", 1)[1],
        [
            (3, "model.x_max", "from 1 to 10000"),
            (4, "model.n_steps", "from 1 to 1000000"),
            (5, "model.grading", "a number from 0 to 20"),
        ],
    ),
    "tolerance of zero": (with_line("solver: {tolerance: 0}"), [(5, "solver.tolerance", "from 1e-14 to 1e-2")]),
    "no iterations": (with_line("solver: {max_iterations: 0}"), [(5, "solver.max_iterations", "from 1 to 100000")]),
    "negative band": (with_line("metrics: {derisk_band: -1}"), [(5, "metrics.derisk_band", "found -1")]),
    # other types
    "yes for true": (
        with_line("outputs: {paths: yes}"),
        [(5, "outputs.paths", "found 'yes', a text; allowed: true or false")],
    ),
    "number for true": (
        with_line("outputs: {surfaces: 1}"),
        [(5, "outputs.surfaces", "found 1; allowed: true or false")],
    ),
    "text for a list": (
        with_line("outputs: {gradients: mean_spread}"),
        [(5, "outputs.gradients", "allowed: a list of scalar metrics")],
    ),
    "gradient given twice": (
        with_line("outputs: {gradients: [mean_spread, half_life, mean_spread]}"),
        [(5, "outputs.gradients[2]", "found mean_spread again")],
    ),
    "number for a name": (with_line("units: {price: 3}"), [(5, "units.price", "found 3; allowed: a text")]),
    "empty store": (with_line("store: ''"), [(5, "store", "allowed: a text")]),
    "list for a section": (
        with_line("solver: [picard]"),
        [(5, "solver", "found a list of 1; allowed: a mapping with keys")],
    ),
    "text for the parameters": (
        with_line("parameters: all", "parameters"),
        [(2, "parameters", "found 'all', a text; allowed: a mapping with keys among A, k")],
    ),
    "nothing for the sweep": (
        "model: {coupling: none}\nparameters: {A: 1, k: 1, eta: 0}\nsweep:\n",
        [(3, "sweep", "found nothing; allowed: a mapping")],
    ),
    # what is required
    "no coupling": (
        with_line("model: {x_max: 3}", "model"),
        [(1, "model.coupling", "missing; allowed: one of relative")],
    ),
    "no model": (with_line("", "model"), [(2, "model.coupling", "missing")]),
    "no parameters": (
        with_line("", "parameters"),
        [(1, "parameters.eta", "missing"), (1, "parameters.A", "missing"), (1, "parameters.k", "k_ask and k_bid")],
    ),
    "A on one side only": (
        with_line("parameters: {A_ask: 10, k: 1.5, eta: 0.01}", "parameters"),
        [(2, "parameters.A", "missing; allowed: a number, or a sweep of it, or both A_ask and A_bid")],
    ),
    "no sweep": (
        "# a comment\nmodel: {coupling: none}\nparameters: {A: 1, k: 1, eta: 0, gamma: 0}\n",
        [(2, "sweep", "missing or empty; allowed: at least one name")],
    ),
    "empty sweep": (
        "model: {coupling: none}\nparameters: {A: 1, k: 1, eta: 0, gamma: 0}\nsweep: {}\n",
        [(3, "sweep", "missing or empty")],
    ),
    # axes
    "empty axis": (with_line("  horizon: []"), [(5, "sweep.horizon", "found a list of 0; allowed: numbers in a list")]),
    "number for an axis": (
        with_line("  horizon: 3"),
        [(5, "sweep.horizon", "found 3; allowed: numbers in a list, {linspace")],
    ),
    "empty axis of names": (
        with_line("  boundary: []"),
        [(5, "sweep.boundary", "found a list of 0; allowed: names in a list")],
    ),
    "bad number on an axis": (
        with_line("  horizon:\n  - 1\n  - 0\n  - x"),
        [(7, "sweep.horizon[1]", "found 0"), (8, "sweep.horizon[2]", "found 'x', a text")],
    ),
    "value twice": (with_line("  horizon: [1, 2, 1.0]"), [(5, "sweep.horizon[2]", "found 1.0 again")]),
    "name twice": (
        with_line("  boundary: [reflecting, reflecting]"),
        [(5, "sweep.boundary[1]", "found reflecting again")],
    ),
    "range without extent": (
        with_line("  horizon: {linspace: [1, 1, 2]}"),
        [(5, "sweep.horizon[1]", "found 1.0 again")],
    ),
    "typo of linspace": (
        with_line("  horizon: {linspce: [1, 2, 3]}"),
        [(5, "sweep.horizon", "did you mean `linspace`?")],
    ),
    "two forms at once": (
        with_line("  horizon: {linspace: [1, 2, 3], logspace: [1, 2, 3]}"),
        [(5, "sweep.horizon", "found a mapping of linspace, logspace")],
    ),
    "range of two": (
        with_line("  horizon:\n    linspace: [1, 2]"),
        [(6, "sweep.horizon.linspace", "found a list of 2; allowed: [first, last, count]")],
    ),
    "logspace from 0": (
        with_line("  k0:\n    logspace: [0, 1, 3]"),
        [(6, "sweep.k0.logspace[0]", "found 0; allowed: a finite number > 0")],
    ),
    "every number of a range wrong": (
        with_line("  horizon: {linspace: [-1, .inf, 1]}"),
        [
            (5, "sweep.horizon.linspace[0]", "found -1"),
            (5, "sweep.horizon.linspace[1]", "found inf"),
            (5, "sweep.horizon.linspace[2]", "found 1; allowed: a whole number from 2 to 1000000"),
        ],
    ),
    "fraction for the count": (
        with_line("  horizon: {linspace: [1, 2, 2.5]}"),
        [(5, "sweep.horizon.linspace[2]", "2.5")],
    ),
    "absurd count": (
        with_line("  horizon: {linspace: [1, 2, 1000000000000]}"),
        [(5, "sweep.horizon.linspace[2]", "found 1000000000000; allowed: a whole number from 2 to 1000000")],
    ),
    "range beyond floats": (
        with_line("  crowd_mean: {linspace: [-1.7e308, 1.7e308, 3]}"),
        [(5, "sweep.crowd_mean.linspace", "too far apart")],
    ),
    "too many points": (
        with_line("  horizon: {linspace: [1, 2, 10000]}\n  k0: {linspace: [1, 2, 10000]}"),
        [(3, "sweep", "found 2 x 10000 x 10000 = 200000000 points; allowed: at most 100000000")],
    ),
    "a span on a grid": (
        with_line("  horizon: {uniform: [1, 2]}"),
        [(5, "sweep.horizon", "found a span to draw from; allowed with sampling random, latin_hypercube, sobol or saltelli")],
    ),
    "a span from high to low": (
        with_line("  horizon: {log_uniform: [2, 1]}\nsampling: random\npoints: 3"),
        [(5, "sweep.horizon.log_uniform", "found 2.0 and 1.0; allowed: a first number below the last")],
    ),
    "a span of three": (
        with_line("  horizon: {uniform: [1, 2, 3]}\nsampling: random\npoints: 3"),
        [(5, "sweep.horizon.uniform", "found a list of 3; allowed: [first, last]")],
    ),
    "a span of what cannot be": (
        with_line("  horizon: {uniform: [0, 1]}\nsampling: random\npoints: 3"),
        [(5, "sweep.horizon.uniform[0]", "found 0")],
    ),
    "points on a grid": (with_line("points: 3"), [(5, "points", "found with sampling grid; allowed with sampling random")]),
    "a seed with zip": (with_line("seed: 3\nsampling: zip"), [(5, "seed", "found with sampling zip")]),
    "how many to draw": (with_line("sampling: random"), [(1, "points", "missing; allowed with sampling random: how many to draw")]),
    "no power of two": (
        with_line("sampling: sobol\npoints: 1000"),
        [(6, "points", "found 1000; allowed with sampling sobol: a power of 2, such as 512 or 1024")],
    ),
    "too many drawn": (
        with_line("sampling: saltelli\npoints: 67108864"),
        [(6, "points", "they make 201326592 games; allowed: at most 100000000")],
    ),
    "a drawn crowd off the lattice": (
        with_line("  crowd_mean: {uniform: [1, 2]}\ninitial: {kind: point}\nsampling: random\npoints: 3"),
        [(5, "sweep.crowd_mean", "found a span to draw from; allowed with initial kind point: whole numbers")],
    ),
    "zip of unequal lengths": (
        with_line("  horizon: [1, 2, 3]\nsampling: zip"),
        [(3, "sweep", "found axes of lengths gamma 2, horizon 3; allowed with sampling zip: equal lengths")],
    ),
    "n_steps swept": (
        with_line("  n_steps: [100, 200]"),
        [(5, "sweep.n_steps", "a static choice of the model cannot be swept; allowed: A, k, eta, gamma")],
    ),
    "swept and fixed": (
        with_line("  eta: [0, 1]"),
        [(5, "sweep.eta", "fixed under parameters; allowed: one of the two")],
    ),
    "coupling swept and fixed": (with_line("  coupling: [none]"), [(5, "sweep.coupling", "fixed under model")]),
    "n_makers without market share": (
        with_line("  n_makers: [2, 3]"),
        [(5, "sweep.n_makers", "coupling elastic ignores it; allowed: with coupling market_share")],
    ),
    "k0 without a coupling that uses it": (
        "parameters: {A: 1, k: 1, eta: 0, gamma: 0}\nsweep:\n  k0: [0, 1]\n  coupling: [none, relative]\n",
        [(3, "sweep.k0", "coupling none and relative ignores it; allowed: with coupling elastic or market_share")],
    ),
    "crowd_std of a point": (
        with_line("  crowd_std: [1, 2]\ninitial: {kind: point}"),
        [(5, "sweep.crowd_std", "initial kind point ignores it; allowed: with initial kind normal")],
    ),
    "crowd_mean of a uniform crowd": (
        with_line("  crowd_mean: [1, 2]\ninitial: {kind: uniform}"),
        [(5, "sweep.crowd_mean", "initial kind uniform ignores it; allowed: with initial kind normal or point")],
    ),
    "A overridden on both sides": (
        with_line("  A: [1, 2]").replace("{A: 10,", "{A_ask: 1, A_bid: 2,"),
        [(5, "sweep.A", "A_ask and A_bid override it on both sides; allowed: without one of the three")],
    ),
    "null on an axis": (
        with_line("  quote_max: [5, null]"),
        [(5, "sweep.quote_max[1]", "found nothing; allowed: a number, or .inf for no bound")],
    ),
    # bounds and crowds
    "bounds crossed": (
        GOOD.replace("eta:", "quote_min: 2, quote_max: 1, eta:"),
        [(2, "parameters.quote_max", "found 1.0, below a quote_min of 2.0; allowed: quote_min <= quote_max")],
    ),
    "cap below the default floor": (
        GOOD.replace("eta:", "quote_max: -1, eta:"),
        [(2, "parameters.quote_max", "below a quote_min of 0.0")],
    ),
    "bounds crossed somewhere in a grid": (
        with_line("  quote_min: [0, 3]\n  quote_max: [4, 2]"),
        [(6, "sweep.quote_max", "found 2.0, below a quote_min of 3.0")],
    ),
    "bounds crossed in a row": (
        with_line("  quote_min: [0, 3]\n  quote_max: [4, 2]\nsampling: zip"),
        [(6, "sweep.quote_max", "found 2.0, below a quote_min of 3.0")],
    ),
    "weights of the wrong length": (
        with_line("initial:\n  kind: weights\n  weights: [1, 2]"),
        [(7, "initial.weights", "found 2 numbers; allowed: 2*x_max + 1 = 21")],
    ),
    "negative weight": (
        with_line("initial: {kind: weights, weights: [1, -2]}"),
        [(5, "initial.weights[1]", "found -2; allowed: a finite number >= 0")],
    ),
    "number for weights": (
        with_line("initial: {kind: weights, weights: 1}"),
        [(5, "initial.weights", "found 1; allowed: a list")],
    ),
    "weights of nothing": (
        with_line(f"initial: {{kind: weights, weights: {[0] * 21}}}"),
        [(5, "initial.weights", "found a sum of 0.0; allowed: a finite sum > 0")],
    ),
    "weights without their kind": (
        with_line("initial: {weights: [1]}"),
        [(5, "initial.weights", "found with kind normal; allowed: only with kind weights")],
    ),
    "kind weights without weights": (with_line("initial: {kind: weights}"), [(5, "initial.weights", "missing")]),
    "point between lattice points": (
        GOOD.replace("eta:", "crowd_mean: 0.5, eta:") + "initial: {kind: point}\n",
        [(2, "parameters.crowd_mean", "found 0.5; allowed with initial kind point: whole numbers from -10 to 10")],
    ),
    "swept point off the lattice": (
        with_line("  crowd_mean: {linspace: [9, 11, 3]}\ninitial: {kind: point}"),
        [(5, "sweep.crowd_mean", "found 11.0; allowed")],
    ),
    # constraints
    "unknown name in a constraint": (
        with_line("where: k0 <= kk"),
        [(5, "where[0]", "found `kk` at character 7 of `k0 <= kk`; allowed: A, k, eta, gamma, k0, n_makers")],
    ),
    "the constraint in a list": (
        with_line("where:\n- gamma < 1\n- gamma.real < 1\n- gamma +\n- 3"),
        [
            (7, "where[1]", "found `gamma.real` at character 1 of `gamma.real < 1`; allowed: numbers, parameters"),
            (8, "where[2]", "broken at the end of `gamma +`"),
            (9, "where[3]", "found 3; allowed: a text such as k0 <= k"),
        ],
    ),
    "number for the constraints": (
        with_line("where: 3"),
        [(5, "where", "found 3; allowed: a list of constraints such as k0 <= k, or one of them")],
    ),
    "nothing for the constraints": (with_line("where:"), [(5, "where", "found nothing; allowed: a list of constraints")]),
    "a constraint on what has no value": (
        with_line("where: quote_max < 5 and A_ask > 0"),
        [
            (5, "where[0]", "`quote_max < 5 and A_ask > 0` needs quote_max, which has no value here; allowed: what is swept"),
            (5, "where[0]", "needs A_ask"),
        ],
    ),
    "a constraint on a typo": (
        with_line("where: gamma < eta").replace("eta: 0.01", "etaa: 0.01"),
        [(2, "parameters.etaa", "did you mean")],
    ),
    "constraints on blocks": (
        "model: {coupling: none}\nparameters: {A: 1, k: 1, eta: 0}\nsweep:\n  gamma: {uniform: [0, 1]}\nwhere: gamma < 1\n"
        "sampling: saltelli\npoints: 8\n",
        [(5, "where", "found with sampling saltelli, whose blocks of games must be whole; allowed with any other sampling")],
    ),
    "no point left": (
        with_line("where: [gamma < k, gamma > 2*k0 + 1]"),
        [(5, "where", "none of 2 points is left; allowed: constraints that some point satisfies")],
    ),
    "a constraint without a value": (
        with_line("where: 1/(gamma - 0.05) < eta"),
        [(5, "where", "`1/(gamma - 0.05) < eta` has no value at gamma 0.05, eta 0.01; allowed: a finite result at every point")],
    ),
    "bounds crossed in a point that is left": (
        with_line("  quote_min: [0, 3]\n  quote_max: [4, 2]\nwhere: quote_min < 2*quote_max"),
        [(6, "sweep.quote_max", "found 2.0, below a quote_min of 3.0")],
    ),
    "drawn bounds that may cross": (
        with_line("  quote_max: {uniform: [1, 3]}\nsampling: random\npoints: 64\nwhere: quote_max > 1.5").replace(
            "eta:", "quote_min: 2, eta:"
        ),
        [(5, "sweep.quote_max", "below a quote_min of 2.0")],
    ),
    # several at once, and no noise
    "two at once": (
        "model: {coupling: elastic}\nparameters:\n  A: -1\n  k: 1.5\n  eta: 0.01\nsweep:\n  gama: [0.05, 0.1]\n",
        [(3, "parameters.A", "found -1"), (7, "sweep.gama", "did you mean `gamma`?")],
    ),
    "within a key and between keys": (
        with_line("  horizon: [1, 1]\n  eta: [1, 2]\n  k0: {linspace: [0, 1, 1]}\nsolver: {method: newton}"),
        [
            (5, "sweep.horizon[1]", "found 1.0 again"),
            (6, "sweep.eta", "fixed under parameters"),
            (7, "sweep.k0.linspace[2]", "found 1"),
            (8, "solver.method", "found 'newton', a text; allowed: anderson, picard"),
        ],
    ),
    "a wrong kind hides what rests on it": (
        with_line("  crowd_std: [1, 2]\ninitial: {kind: pont, weights: [1]}"),
        [(6, "initial.kind", "did you mean `point`?")],
    ),
    "a wrong coupling hides what rests on it": (
        with_line("  k0: [1, 2]").replace("elastic", "elastc"),
        [(1, "model.coupling", "did you mean `elastic`?")],
    ),
    "key twice": (
        "model: {coupling: elastic}\nparameters:\n  A: 10\n  k: 1\n  eta: 0\n  A: -3\nsweep:\n  gamma: [-1]\n",
        [(6, "parameters.A", "found twice; allowed: once"), (8, "sweep.gamma[0]", "found -1")],
    ),
    "section twice": (
        "sweep: {A: [1, 2], gama: [1]}\nmodel: {coupling: none}\nsweep: {gamma: [1]}\nparameters: {k: 1, eta: 0}\n",
        [(1, "sweep.gama", "did you mean"), (3, "sweep", "found twice; allowed: once")],
    ),
    "key twice where there are no keys": (
        "model: [{a: 1, a: 2}]\nparameters: {A: 1, k: 1, eta: 0}\nsweep: {gamma: [1]}\nstore: {a: 1, a: 2}\n",
        [
            (1, "model[0].a", "found twice"),
            (1, "model", "found a list of 1; allowed: a mapping"),
            (4, "store.a", "found twice"),
            (4, "store", "found a mapping; allowed: a text"),
        ],
    ),
    # no mapping
    "a list": ("- 1\n- 2\n", [(1, "", "found a list of 2; allowed: a mapping with keys among model, parameters")]),
    "a text": ("\n\nhello\n", [(3, "", "found 'hello', a text; allowed: a mapping")]),
    "empty": ("", [(1, "", "found nothing; allowed: a mapping")]),
    "only a comment": ("# later\n", [(1, "", "found nothing; allowed: a mapping")]),
    # no YAML
    "unclosed bracket": ("model: {coupling: none}\nsweep: [1,\n", [(3, "", "broken YAML")]),
    "two colons": ("model: {}\nsweep: a: b\n", [(2, "", "broken YAML: mapping values are not allowed here")]),
    "tab": ("model:\n\tcoupling: none\n", [(2, "", "allowed: spaces, not tabs")]),
    "two documents": ("model: {}\n---\nsweep: {}\n", [(2, "", "broken YAML")]),
    "undefined alias": ("model: {}\nsweep: *axes\n", [(2, "", "undefined alias")]),
    "unknown tag": ("model: {}\nsweep: !axes 3\n", [(2, "", "could not determine a constructor for the tag")]),
    "no such date": ("model: {}\nsweep: 2024-99-99\n", [(2, "", "broken YAML: 2024-99-99 cannot be read")]),
    "too many digits": ("model: {}\nsweep: " + "9" * 5000, [(2, "", "999... cannot be read")]),
    "forbidden character": ("model: {}\nsweep: \0\n", [(2, "", "found a character that YAML does not allow")]),
}


@pytest.mark.parametrize(("text", "expected"), BAD.values(), ids=BAD.keys())
def test_bad_file(load, text: str, expected: list[tuple[int, str, str]]):
    found = problems(load, text)
    assert [(line, key) for line, key, _ in found] == [(line, key) for line, key, _ in expected], found
    for (_, _, message), (_, _, part) in zip(found, expected, strict=True):
        assert part in message


@pytest.mark.parametrize("text", [text for text, _ in BAD.values()], ids=BAD.keys())
def test_messages_are_one_line_each_and_in_our_words(load, tmp_path: Path, text: str):
    with pytest.raises(SpecError) as caught:
        load(text)
    lines = str(caught.value).split("\n")
    assert len(lines) == len(caught.value.problems)
    for line in lines:
        assert line.startswith(f"{tmp_path / 'grid.yaml'}:")
        assert line.isprintable()
        assert len(line) < 600
        assert not any(jargon in line.lower() for jargon in ("type=", "http", "pydantic", "input should", "_type", "none,)"))


def test_whole_line(load, tmp_path: Path):
    with pytest.raises(SpecError) as caught:
        load(GOOD.replace("10,", "abc,"))
    file = tmp_path / "grid.yaml"
    assert str(caught.value) == f"{file}:2: parameters.A: found 'abc', a text; allowed: a finite number > 0"


def test_long_and_odd_texts_stay_short(load):
    (long,) = problems(load, with_line(f"sampling: {'x' * 1000}"))
    assert len(long[2]) < 150
    (odd,) = problems(load, with_line('"odd\\nkey": 1'))
    assert odd[1] == r"'odd\nkey'"


def test_error_survives_a_process_boundary(load):
    with pytest.raises(SpecError) as caught:
        load("- 1\n")
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)


class TestFilesThatCannotBeRead:
    def message(self, path: Path) -> str:
        with pytest.raises(SpecError) as caught:
            load_spec(path)
        assert len(caught.value.problems) == 1
        return str(caught.value)

    def test_missing(self, tmp_path: Path):
        assert self.message(tmp_path / "no.yaml") == f"{tmp_path}/no.yaml: no such file; allowed: a grid file in YAML"

    def test_folder(self, tmp_path: Path):
        assert self.message(tmp_path) == f"{tmp_path}: found a folder; allowed: a grid file in YAML"

    def test_below_a_file(self, tmp_path: Path):
        (tmp_path / "file").touch()
        assert "cannot be read: Not a directory" in self.message(tmp_path / "file" / "grid.yaml")

    def test_not_utf_8(self, tmp_path: Path):
        (tmp_path / "latin.yaml").write_bytes("model: {}\n# größe\n".encode("latin-1"))
        assert f"{tmp_path}/latin.yaml:2: found the byte 0xf6, not UTF-8" in self.message(tmp_path / "latin.yaml")

    def test_too_large(self, tmp_path: Path):
        (tmp_path / "large.yaml").write_bytes(b"#" * 10_000_001)
        assert "found more than 10000000 bytes" in self.message(tmp_path / "large.yaml")

    def test_nested_too_deeply(self, tmp_path: Path):
        (tmp_path / "deep.yaml").write_text("model: " + "[\n" * 1_000)
        assert "broken YAML: nested too deeply" in self.message(tmp_path / "deep.yaml")


class TestAliases:
    def test_an_alias_is_what_it_stands_for(self, load):
        spec = load(GOOD.replace("A: 10,", "A: &ten 10,") + "  horizon: &h [1, 2]\n  crowd_std: *h\n  k0: [*ten]\n")
        assert spec.sweep["crowd_std"] == spec.sweep["horizon"] == (1.0, 2.0)
        assert spec.sweep["k0"] == (10.0,)

    def test_a_mistake_in_an_alias_has_a_line(self, load):
        assert problems(load, with_line("  horizon: [1]\n  crowd_std: &s [0]\n  crowd_mean: [1]\n  A_ask: *s"))[1:] == [
            (8, "sweep.A_ask[0]", "found 0; allowed: a finite number > 0")
        ]

    def test_aliases_of_aliases_cost_nothing(self, load):
        bomb = "b0: &b0 [1, 1]\n" + "".join(f"b{n}: &b{n} [{', '.join([f'*b{n - 1}'] * 9)}]\n" for n in range(1, 40))
        assert len(problems(load, GOOD + bomb + "store: *b39\n")) == 41

    def test_an_alias_within_itself(self, load):
        assert problems(load, with_line("store: &s [*s]")) == [(5, "store", "found a list of 1; allowed: a text")]


class TestGoodFiles:
    def test_defaults(self, load):
        spec = load(GOOD)
        assert spec.model == ModelSection(coupling="elastic", boundary="reflecting", x_max=10, n_steps=200, scheme="automatic")
        assert spec.model.grading == ModelSection().grading
        assert spec.parameters == {"A": 10.0, "k": 1.5, "eta": 0.01}
        assert spec.sweep == {"gamma": (0.05, 0.1)}
        assert spec.sampling == "grid"
        assert spec.outputs == OutputsSection(
            paths=True, surfaces=False, gradients=(), certify="basic", equilibria=False, dtype="float64", precision=None
        )
        assert spec.solver == SolverSection(method="anderson", tolerance=1e-9, max_iterations=200, select="principal")
        assert (spec.metrics.derisk_band, spec.units.price, spec.units.time, spec.store) == (1, "price", "time", None)

    def test_everything_at_once(self, load):
        spec = load(f"""\
%YAML 1.2
---
model: {{x_max: 2, n_steps: 1_000, scheme: euler, grading: 0}}
parameters: {{A_ask: 5, A_bid: 6, k: 1, eta: 0, gamma: 1e-8, quote_min: -.inf, quote_max: .inf, k_ask: null}}
sweep:
  coupling: [relative, market_share]
  n_makers: {{logspace: [2, 200, 3]}}
  boundary: [absorbing, reflecting]
  k0: {{linspace: [0, 0.3, 4]}}
initial: {{kind: weights, weights: {[1, 0, 0.5, 0, 1]}}}
outputs: {{paths: false, surfaces: true, gradients: {list(SCALAR_METRICS)}, certify: basic, equilibria: true, dtype: float32}}
solver: {{method: picard, tolerance: 1e-14, max_iterations: 100_000}}
metrics: {{derisk_band: 0}}
units: {{price: ticks, time: day}}
store: results/all.zarr
""")
        assert spec.parameters["gamma"] == 1e-8
        assert spec.parameters["quote_max"] == -spec.parameters["quote_min"] == np.inf
        assert "k_ask" not in spec.parameters
        assert list(spec.sweep) == ["coupling", "n_makers", "boundary", "k0"]
        assert spec.sweep["n_makers"] == (2.0, 20.0, 200.0)
        assert spec.sweep["k0"] == (0.0, 0.1, 0.2, 0.3)  # and not 0.30000000000000004
        assert spec.initial.weights == (1.0, 0.0, 0.5, 0.0, 1.0)
        assert spec.outputs.gradients == SCALAR_METRICS
        assert spec.store == "results/all.zarr"

    def test_numbers_are_floats(self, load):
        spec = load(GOOD + "  horizon: [1, 2]\n")
        assert {type(value) for value in (*spec.parameters.values(), *spec.sweep["horizon"])} == {float}

    def test_ranges_keep_their_end_points(self, load):
        spec = load(GOOD + "  horizon: {logspace: [0.1234567890123456, 9.876543210987654, 5]}\n")
        horizon = np.array(spec.sweep["horizon"])
        assert (horizon[0], horizon[-1]) == (0.1234567890123456, 9.876543210987654)
        np.testing.assert_allclose(np.diff(np.log(horizon)), np.log(horizon[-1] / horizon[0]) / 4, rtol=1e-13)

    def test_zip_is_a_table_whose_columns_may_repeat(self, load):
        assert load(GOOD + "  k0: [1, 1]\nsampling: zip\n").sweep == {"gamma": (0.05, 0.1), "k0": (1.0, 1.0)}

    def test_crossed_bounds_may_lie_in_different_rows(self, load):
        load(GOOD + "  quote_min: [0, 3]\n  quote_max: [2, 4]\nsampling: zip\n")

    def test_k0_swept_where_one_coupling_uses_it(self, load):
        load(GOOD.replace("{coupling: elastic}", "{}") + "  k0: [0, 1]\n  coupling: [none, elastic]\n")

    def test_null_does_not_fix_what_is_swept(self, load):
        spec = load(GOOD.replace("eta:", "quote_max: null, eta:") + "  quote_max: [5, .inf]\n")
        assert spec.sweep["quote_max"] == (5.0, np.inf)
        assert "quote_max" not in spec.parameters

    def test_constraints(self, load):
        assert load(GOOD + "where: 'k0<=k  and\n  1 < A'\n").where == ("k0<=k and 1 < A",)
        assert load(GOOD + "where: [k0 <= k, gamma < 10*eta]\n").where == ("k0 <= k", "gamma < 10*eta")
        assert load(GOOD + "where: []\n").where == ()

    def test_constraints_may_keep_bounds_from_crossing(self, load):
        load(GOOD + "  quote_min: [0, 3]\n  quote_max: [4, 2]\nwhere: quote_min <= quote_max\n")
        load(GOOD.replace("eta:", "quote_min: 2, eta:") + "  quote_max: [1, 2]\nwhere: quote_max >= quote_min\n")

    def test_point_on_the_lattice(self, load):
        load(GOOD + "  crowd_mean: {linspace: [-10, 10, 5]}\ninitial: {kind: point}\n")

    def test_byte_order_mark_and_windows_lines(self, tmp_path: Path):
        (tmp_path / "grid.yaml").write_bytes(b"\xef\xbb\xbf" + GOOD.replace("\n", "\r\n").encode())
        assert load_spec(str(tmp_path / "grid.yaml")).sweep == {"gamma": (0.05, 0.1)}

    def test_frozen(self, load):
        with pytest.raises(ValueError, match="frozen"):
            load(GOOD).store = "elsewhere"


class TestCanonical:
    def test_does_not_depend_on_how_it_was_written(self, load):
        rewritten = "sweep: {gamma: {linspace: [5e-2, 1e-1, 2]}}\nparameters: {eta: 1e-2, k: 1.50, A: 10.0}\nstore: a.zarr\n"
        one, other = load(GOOD), load(rewritten + "model: {x_max: 10, coupling: elastic}\n")
        assert one.canonical() == other.canonical()
        assert json.dumps(one.canonical()) == json.dumps(other.canonical())
        assert one.hash() == other.hash()

    @pytest.mark.parametrize(
        "change",
        [("10", "11"), ("elastic", "relative"), ("0.05, 0.1", "0.1, 0.05"), ("sweep", "sampling: zip\nsweep")],
    )
    def test_hash_changes_with_any_choice(self, load, change: tuple[str, str]):
        assert load(GOOD).hash() != load(GOOD.replace(*change)).hash()

    def test_constraints_are_part_of_it_where_there_are_any(self, load):
        assert load(GOOD + "where: []\n").canonical() == load(GOOD).canonical()
        assert "where" not in load(GOOD).canonical()
        assert load(GOOD + "where: k > gamma\n").canonical() == load(GOOD + "where: [k > gamma]\n").canonical()
        assert differing_keys(load(GOOD).canonical(), load(GOOD + "where: k > gamma\n").canonical()) == [
            ("where", None, ["k > gamma"])
        ]

    def test_stores_of_earlier_versions_can_be_gone_on_with(self, load):
        drawn = "  k0: {log_uniform: [0.1, 1]}\nsampling: random\npoints: 4\nseed: 3\n"
        assert load(GOOD).hash() == "1059eec9dd989cfb94e30764be46d6406e45266b21fb9d859a51af492bcc2c94"
        assert load(GOOD + drawn).hash() == "e592db741260593d4b344eb619eed08e15168b8ff13933dad10e8ef53fc9e387"

    def test_order_of_the_axes_matters(self, load):
        one, other = load(GOOD + "  k0: [0, 1]\n"), load(GOOD.replace("  gamma", "  k0: [0, 1]\n  gamma"))
        assert one.hash() != other.hash()
        assert differing_keys(one.canonical(), other.canonical()) == [
            ("sweep_order", ["gamma", "k0"], ["k0", "gamma"]),
        ]

    def test_is_json(self, load):
        canonical = load(GOOD.replace("eta:", "quote_min: -.inf, eta:") + "  quote_max: [5, .inf]\n").canonical()
        assert json.loads(json.dumps(canonical, allow_nan=False)) == canonical
        assert canonical["parameters"]["quote_min"] == "-inf"
        assert canonical["sweep"]["quote_max"] == [5.0, "inf"]
        assert canonical["solver"] == {
            "method": "anderson",
            "tolerance": 1e-9,
            "max_iterations": 200,
            "select": "principal",
        }
        assert "store" not in canonical

    def test_a_swept_choice_is_not_also_a_fixed_one(self, load):
        text = GOOD.replace("coupling: elastic", "x_max: 3") + "  coupling: [none]\n  boundary: [absorbing]\n"
        assert load(text).canonical()["model"].keys() == {"x_max", "n_steps", "scheme", "grading", "time_tolerance"}

    def test_differing_keys(self, load):
        one = load(GOOD).canonical()
        other = load(GOOD.replace("10,", "11,").replace("k:", "crowd_std: 3, k:")).canonical()
        assert differing_keys(one, one) == []
        assert differing_keys(one, other) == [("parameters.A", 10.0, 11.0), ("parameters.crowd_std", None, 3.0)]


class TestTiesToTheLibrary:
    def test_scalar_metrics(self):
        hints = typing.get_type_hints(mfg.Metrics)
        assert tuple(name for name, hint in hints.items() if hint.dim_str == "") == SCALAR_METRICS

    def test_parameters(self):
        assert set(schema.NUMBERS) == {field.name for field in dataclasses.fields(mfg.Parameters)}

    def test_choices(self):
        for coupling in typing.get_args(schema.Coupling):
            mfg.Model(coupling=coupling)
        for boundary in typing.get_args(schema.Boundary):
            mfg.Model(boundary=boundary)
        for scheme in typing.get_args(ModelSection.model_fields["scheme"].annotation):
            mfg.Model(scheme=scheme)
        for kind in set(typing.get_args(schema.InitialKind)) - {"weights"}:
            mfg.Model(initial=kind)
        for method in typing.get_args(SolverSection.model_fields["method"].annotation):
            mfg.Model(solver={"method": method, "tolerance": 1e-9, "max_iterations": 200})

    def test_defaults(self):
        ours, theirs = ModelSection(), mfg.Model()
        for name in ("boundary", "x_max", "n_steps", "grading"):
            assert getattr(ours, name) == getattr(theirs, name)
        fields = dataclasses.fields(mfg.Parameters)
        assert {field.name: field.default for field in fields if isinstance(field.default, float)} == schema.DEFAULTS

    def test_reading_a_file_needs_no_jax(self):
        code = "import sys, sweeps.sampling; sys.exit('jax' in sys.modules)"
        subprocess.run([sys.executable, "-c", code], check=True)

    def test_a_process_is_configured_once_and_the_flags_given_stay(self):
        code = (
            "import os, sweeps; [sweeps.configure() for _ in range(2)]; import jax; jax.devices(); print(os.environ['XLA_FLAGS'])"
        )
        given = "--xla_cpu_prefer_vector_width=128"
        environment = os.environ | {"XLA_FLAGS": given}
        found = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True).stdout
        assert sorted(found.split()) == [
            "--xla_backend_extra_options=xla_cpu_small_while_loop_byte_threshold=1000000000",
            given,
        ]


README = Path(__file__).parents[1] / "README.md"


@pytest.mark.parametrize("block", re.findall(r"```yaml\n(.*?)```", README.read_text(), re.DOTALL))
def test_the_grid_files_of_the_readme(tmp_path: Path, block: str):
    (tmp_path / "grid.yaml").write_text(block)
    assert load_spec(tmp_path / "grid.yaml").sweep


def test_a_saltelli_design_without_its_package(load, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "SALib", None)
    ((line, key, message),) = problems(load, with_line("sampling: saltelli\npoints: 8"))
    assert (line, key) == (5, "sampling")
    assert message.startswith("found saltelli, which needs the package SALib; install it with: ")


def test_spans_are_part_of_the_canonical_spec(load):
    drawn = GOOD.replace("sweep:", "sampling: random\npoints: 4\nsweep:") + "  k0: {log_uniform: [0.1, 1]}\n"
    assert load(drawn).canonical()["sweep"]["k0"] == {"first": 0.1, "last": 1.0, "log": True}
    assert load(drawn).hash() != load(drawn.replace("0.1, 1]", "0.2, 1]")).hash()
    assert load(drawn).hash() != load(drawn + "seed: 3\n").hash()

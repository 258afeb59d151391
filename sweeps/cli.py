"""The commands of `mfgsweep`: each parses, calls and prints. JAX is imported only by those that solve."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from enum import StrEnum
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

if TYPE_CHECKING:
    from sweeps.engine import Crew, Progress
    from sweeps.place import Place
    from sweeps.spec import Spec

BAD_INPUT, SOME_FAILED, INTERRUPTED = 2, 3, 130

app = typer.Typer(
    name="mfgsweep",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


class Device(StrEnum):
    CPU = "cpu"
    GPU = "gpu"


TableKind = Literal["csv", "parquet"]
Grid = Annotated[Path, typer.Argument(metavar="GRID.yaml", help="The grid file; configs/ has examples that explain it.")]
StorePath = Annotated[
    str, typer.Argument(metavar="STORE", help="A zarr store made by `mfgsweep run`: a path, or s3://BUCKET/NAME.")
]
Batch = Annotated[str, typer.Option(help="Games solved at once; auto fits them into the memory that is free.")]
DeviceChoice = Annotated[Device | None, typer.Option("--device", help="Where to compute; the best device there is by default.")]
Strict = Annotated[bool, typer.Option("--strict", help="Exit with 3 when a game did not converge.")]
Quiet = Annotated[bool, typer.Option("--quiet", help="Print errors only.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object a line.")]


def _fail(message: object) -> typer.Exit:
    if isinstance(message, OSError) and message.filename:
        message = f"{message.filename}: {message.strerror}"  # without its number, which tells nobody anything
    typer.echo(f"mfgsweep: {message}", err=True)
    return typer.Exit(BAD_INPUT)


def _load(grid: Path) -> Spec:
    from sweeps.spec import SpecError, load_spec

    try:
        return load_spec(grid)
    except SpecError as error:
        typer.echo(error, err=True)
        raise typer.Exit(BAD_INPUT) from None


def _place(text: str) -> Place:
    from sweeps.place import PlaceError, place

    try:
        return place(text)
    except PlaceError as error:
        raise _fail(f"the store: {error}") from None


def _batch(text: str) -> int | None:
    if text == "auto":
        return None
    if not text.isdecimal() or not 0 < int(text) <= 1_000_000:
        raise _fail(f"--batch: found {text!r}; allowed: auto, or a whole number from 1 to 1000000")
    return int(text)


@contextmanager
def _stop_on_interrupt() -> Iterator[threading.Event]:
    """The first Ctrl-C or SIGTERM asks the run to stop when what is in flight is done and written; the second stops at once."""
    stop = threading.Event()

    def ask(number: int, frame: object) -> None:
        del number, frame
        # os.write, because a signal may come in the middle of a print; os._exit, because a batch cannot be broken off
        if stop.is_set():
            os.write(2, b"mfgsweep: stopped; run the same command again to go on\n")
            os._exit(INTERRUPTED)
        stop.set()
        os.write(2, b"mfgsweep: stopping when the games in flight are done and written; press Ctrl-C again to stop at once\n")

    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _damage_is_told(store: Place) -> Iterator[None]:
    """Numbers that are not as they were written, or an object store that fails, end a command with one message."""
    from sweeps.place import Refused, told
    from sweeps.store import StoreError

    try:
        with told(store):
            yield
    except StoreError:
        raise
    except Refused as error:
        raise _fail(error) from None
    except ValueError as error:
        if "checksum" not in str(error):
            raise
        raise _fail(f"{store}: is damaged: {error}") from None


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"mfgsweep {version('mfg-jax')}")
        raise typer.Exit


@app.callback()
def common(
    show: Annotated[bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Say the version.")] = False,
) -> None:
    """Equilibria of competing market makers: solve whole grids of games into a labelled zarr store."""


@app.command()
def run(
    grid: Grid,
    out: Annotated[
        str | None, typer.Option(help="Where the store goes, a path or s3://BUCKET/NAME, instead of the grid file's `store`.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with a store; it must be there.")] = False,
    fresh: Annotated[bool, typer.Option("--fresh", help="Delete the store that is there and start again.")] = False,
    retry: Annotated[
        str | None,
        typer.Option(
            metavar="STATUS,…",
            help="Solve the games that ended so (failed: all that did not converge) again, with a `solver:` that may be another "
            "now, and replace those that converge.",
        ),
    ] = None,
    shard: Annotated[
        str | None,
        typer.Option(metavar="N/M", help="Fill the Nth of M shares of the store, beside runs of the others, on any machine."),
    ] = None,
    cluster: Annotated[
        str | None,
        typer.Option(
            metavar="ADDRESS", help="Let workers solve it: local:N on this machine, or those of a dask scheduler, tcp://host:port."
        ),
    ] = None,
    device: DeviceChoice = None,
    batch: Batch = "auto",
    strict: Strict = False,
    quiet: Quiet = False,
    as_json: AsJson = False,
    log: Annotated[Path | None, typer.Option(help="A file to add to what happens when, as one JSON object a line.")] = None,
) -> None:
    """Solve every game of a grid file into a zarr store. The same command goes on where an interrupted one stopped."""
    spec = _load(grid)
    if out == "":
        raise _fail("--out: found nothing; allowed: a path, or no --out where the grid file names a store")
    if not (out or spec.store):
        raise _fail(f"{grid}: store: missing; allowed: a path here, or --out STORE")
    path = _place(out or str(spec.store))
    if resume and fresh:
        raise _fail("--resume and --fresh contradict each other; give one of them")
    if retry is not None and fresh:
        raise _fail("--retry and --fresh contradict each other; give one of them")
    if shard is not None and (fresh or retry is not None):
        raise _fail("--shard goes with neither --fresh nor --retry, which take the whole store")
    if cluster is not None and (shard is not None or retry is not None):
        raise _fail("--cluster goes with neither --shard nor --retry")
    if cluster is not None and not isinstance(path, Path):
        raise _fail(f"--cluster: found the store {path}; allowed: a folder that all workers see (a bucket is filled by --shard)")
    size = _batch(batch)

    from sweeps import engine, reporting, retrying
    from sweeps.journal import Journal
    from sweeps.share import ALL, share_named

    try:
        share = share_named(shard) if shard is not None else ALL
    except ValueError as error:
        raise _fail(error) from None
    reporter = reporting.reporter(quiet, as_json)
    with (
        _solving(path, device if cluster is None else Device.CPU) as stop,  # this process leaves the GPUs to the workers
        reporter,
        Journal(log or Path(os.devnull)) as journal,
        _crew(cluster, spec, device) as crew,
    ):
        if retry is None:
            progress = engine.run(spec, path, size, fresh, resume, reporter.progress, stop, journal.write, share, crew)
        else:
            statuses = retrying.statuses_named(retry)
            progress = retrying.retry(spec, path, statuses, size, reporter.progress, stop, journal.write)
    with _damage_is_told(path):
        failed = (_summarise if retry is None else _summarise_retry)(reporter, path, progress)
    if strict and failed:
        raise typer.Exit(SOME_FAILED)


def _crew(address: str | None, spec: Spec, device: Device | None) -> AbstractContextManager[Crew]:
    """Who solves the games: this process, or the workers of a cluster."""
    from sweeps import engine

    if address is None:
        return nullcontext(engine.THIS_PROCESS)
    try:
        from sweeps.cluster import Cluster
    except ImportError as error:
        raise _fail(f"{error.name} is missing; install it with: {sys.executable} -m pip install 'mfg-jax[cluster]'") from None
    return Cluster(address, spec, device)


@app.command()
def extend(
    store: StorePath,
    grid: Annotated[Path, typer.Argument(metavar="NEW.yaml", help="The store's grid file with more values, or more outputs.")],
    device: DeviceChoice = None,
    strict: Strict = False,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Add games or outputs to a store, keep what it holds, and solve the rest. The same command goes on where one stopped."""
    spec, path = _load(grid), _place(store)

    from sweeps import engine, extending, reporting

    reporter = reporting.reporter(quiet, as_json)
    with _solving(path, device) as stop, reporter:
        extension = extending.extend(spec, path, stop)
        if extension:
            reporter.say(f"extended    {extension.games} games are taken over")
        if extension and extension.outputs:
            reporter.say(f"            and solved again for {len(extension.outputs)} more variables; their other numbers stay")
        progress = engine.run(spec, path, resume=True, report=reporter.progress, stop=stop)
    with _damage_is_told(path):
        failed = _summarise(reporter, path, progress)
    if strict and failed:
        raise typer.Exit(SOME_FAILED)


@contextmanager
def _solving(path: Place, device: Device | None) -> Iterator[threading.Event]:
    """A device that is ready, an event that asks to stop, and words for what may go wrong meanwhile."""
    from jax.errors import JaxRuntimeError

    from sweeps import engine, runtime
    from sweeps.problems import brief
    from sweeps.retrying import RetryError
    from sweeps.store import StoreError

    try:
        runtime.configure(device)
        if (warning := runtime.idle_gpu()) and device is not Device.CPU:
            typer.echo(f"mfgsweep: {warning}", err=True)
        with _stop_on_interrupt() as stop, _damage_is_told(path):
            yield stop
    except (StoreError, RetryError, runtime.DeviceError, OSError) as error:
        raise _fail(error) from None
    except JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        raise _fail(f"the device's memory is full; give a smaller --batch (and --fresh). It said: {brief(str(error))}") from None
    except engine.Interrupted:
        typer.echo(f"mfgsweep: interrupted; run the same command again to go on with {path}", err=True)
        raise typer.Exit(INTERRUPTED) from None


def _summarise(reporter: Any, path: Place, progress: Progress) -> int:
    """Tells how it went; the number of games that did not converge."""
    import mfg_jax as mfg
    from sweeps.dataset import open_store

    with open_store(path) as dataset:
        converged = dataset["status"] == int(mfg.Status.CONVERGED)
        complete = bool((dataset["status"] != 0).all())
        largest = float(dataset["residual"].where(converged).max()) if converged.any() else None
    games, good = progress.points, progress.statuses["converged"]
    if progress.points:
        nothing_new = f"{path}: {'' if complete else 'this share of it '}was complete already; nothing to do."
    else:
        nothing_new = f"{path}: this share holds none of its blocks, as there are more shares than blocks; nothing to do."
    fields = {
        "games": games,
        "converged": good,
        "statuses": dict(progress.statuses),
        "largest_residual": largest,
        "points_per_second": progress.points_per_second if progress.done else None,
        "shares": progress.shares,
        "idle_lanes": progress.idle_lanes,
        "store": str(path),
    }
    residual = "" if largest is None else f", largest residual {largest:.1e}"
    speed = f"solved      {progress.done} games in {progress.seconds:.1f} s: {progress.points_per_second:.1f} games/s"
    lines = [
        speed if progress.done else nothing_new,
        *_where_time_went(progress),
        f"games       {games}",
        f"converged   {good}{residual}",
        *_failures(progress),
        f"store       {path}",
        f"open it     {_how_to_open(path)}",
    ]
    reporter.summary(fields, lines)
    return games - good


def _how_to_open(path: Place) -> str:
    if isinstance(path, Path):
        return f'import xarray as xr; ds = xr.open_zarr("{path}")'
    return f'from sweeps.dataset import open_store; ds = open_store("{path}")'


def _summarise_retry(reporter: Any, path: Place, tried: Progress) -> int:
    """Tells what was mended; the number of games that still did not converge."""
    from sweeps.dataset import open_store

    with open_store(path) as dataset:
        pending = int((dataset["status"] == 0).sum())
    mended = tried.statuses["converged"]
    fields = {"tried": tried.points, "mended": mended, "pending": pending, "statuses": dict(tried.statuses), "store": str(path)}
    lines = [
        f"tried       {tried.points} games again in {tried.seconds:.1f} s" if tried.points else "no game ended so; nothing to do",
        *_where_time_went(tried),
        f"mended      {mended}",
        *([f"pending     {pending} games: run the grid file without --retry to solve them"] if pending else []),
        *_failures(tried),
        f"store       {path}",
    ]
    reporter.summary(fields, lines)
    return tried.points - mended


def _failures(progress: Progress) -> list[str]:
    import mfg_jax as mfg
    from sweeps.dataset import STATUSES

    return [
        f"{name.replace('_', ' ')}: {count}. {mfg.Status(STATUSES.index(name)).explanation}"
        for name, count in progress.statuses.most_common()
        if name != "converged"
    ]


def _where_time_went(progress: Progress) -> list[str]:
    shares = progress.shares
    if not shares:
        return []
    each = ", ".join(f"{activity} {share:.0%}" for activity, share in shares.items())
    idle = "" if progress.idle_lanes is None else f"; lanes were idle {progress.idle_lanes:.0%} of theirs"
    return [f"time        {each} of it, some at once; the limit was to {max(shares, key=lambda name: shares[name])}{idle}"]


@app.command()
def plan(grid: Grid, batch: Batch = "auto") -> None:
    """Say what a run would do: points, batches, memory, disk, time. Runs nothing."""
    spec = _load(grid)
    size = _batch(batch)

    from sweeps import planning, runtime

    runtime.configure()
    typer.echo("\n".join(planning.lines(spec, size)))


@app.command()
def info(store: StorePath) -> None:
    """Say what is in a store: dims, progress, statuses, provenance."""
    from sweeps import information
    from sweeps.store import StoreError

    path = _place(store)
    try:
        with _damage_is_told(path):
            typer.echo("\n".join(information.lines(path)))
    except (StoreError, OSError) as error:
        raise _fail(error) from None


@app.command()
def verify(
    store: StorePath,
    sample: Annotated[int, typer.Option(help="How many of the games that are done are solved again.")] = 8,
) -> None:
    """Read all of a store, check what must hold, and solve some of its games again. Writes nothing."""
    if sample < 0:
        raise _fail(f"--sample: found {sample}; allowed: a whole number >= 0")

    from sweeps import verification
    from sweeps.store import StoreError

    path = _place(store)
    try:
        with _damage_is_told(path):
            found = verification.verify(path, sample)
    except (StoreError, OSError) as error:
        raise _fail(error) from None
    except ImportError as error:
        raise _fail(f"{error.name} is missing; install it with: {sys.executable} -m pip install 'mfg-jax[sensitivity]'") from None
    typer.echo(found.table())
    if found.wrong:
        things = sum(check.wrong for check in found.checks)
        advice = [f"to have games solved again that cannot be read, delete {file}" for file in sorted(map(str, found.mended_by))]
        if advice:
            advice.append("and run their grid file again; or restore the files from a copy")
        raise _fail("\n  ".join([f"{store}: {things} things are wrong:", *found.wrong, *advice]))


@app.command()
def export(
    store: StorePath,
    output: Annotated[Path, typer.Option("-o", "--output", help="FILE.csv, FILE.parquet (scalars) or FILE.nc (all).")],
) -> None:
    """Write a store as CSV, Parquet or netCDF."""
    from sweeps import export as exporting
    from sweeps.dataset import open_store
    from sweeps.store import StoreError, open_whole

    path = _place(store)
    try:
        with _damage_is_told(path):
            open_whole(path)
            with open_store(path) as dataset:
                exporting.export(dataset, output)
    except (StoreError, exporting.ExportError, OSError) as error:
        raise _fail(error) from None
    typer.echo(f"wrote {output}")


@app.command()
def quotes(
    source: Annotated[str, typer.Argument(metavar="GRID.yaml|STORE", help="A grid file, or a store made by `mfgsweep run`.")],
    tick: Annotated[float, typer.Option(help="Distance of neighbouring prices, in the price units of the grid file.")],
    at: Annotated[str, typer.Option(help="Which game: A=10,k=1.5,… a value of all that is swept.")] = "",
    times: Annotated[int, typer.Option(help="At how many times of the day.")] = 11,
    csv: Annotated[Path | None, typer.Option(help="A file for the table, a row a quote; - for the standard output.")] = None,
) -> None:
    """A table of quotes in ticks by time and inventory, with the expected time to fill."""
    if not 0 < tick < float("inf"):
        raise _fail(f"--tick: found {tick:g}; allowed: a finite number > 0")
    if times < 1:
        raise _fail(f"--times: found {times}; allowed: a whole number >= 1")
    where = _place(source)
    spec = _load(where) if isinstance(where, Path) and not where.is_dir() else None

    from sweeps import runtime

    runtime.configure()
    from sweeps import quoting
    from sweeps.choosing import ChoiceError
    from sweeps.store import StoreError

    try:
        with _damage_is_told(where):
            solution = quoting.of_store(where, at) if spec is None else quoting.of_grid(spec, at)
        found = quoting.quotes(solution, tick, times)
        typer.echo(quoting.report(found) if csv is None else "\n".join(found.facts), err=csv is not None)
        if csv == Path("-"):
            typer.echo(quoting.as_csv(found), nl=False)
        elif csv is not None:
            quoting.write(found, csv)
            typer.echo(f"wrote {csv}")
    except (StoreError, OSError) as error:
        raise _fail(error) from None
    except (ChoiceError, quoting.QuotesError) as error:
        raise _fail(f"{source}: {error}") from None


@app.command()
def plot(
    store: StorePath,
    what: Annotated[str, typer.Argument(metavar="WHAT", help="A stored variable: mean_spread, full_spread, density, …")],
    output: Annotated[Path, typer.Option("-o", "--output", help="FILE.png, FILE.svg or FILE.pdf.")],
    at: Annotated[str, typer.Option(help="Which games: A=10,k=1.5,… where more than two dims vary.")] = "",
    times: Annotated[int | None, typer.Option(help="Draw a surface as lines at so many times.")] = None,
) -> None:
    """Draw a stored variable for a paper: lines, contours or a map, with units."""
    from sweeps import plots

    if not plots.can_be_drawn():
        raise _fail(plots.WITHOUT)
    if times is not None and times < 1:
        raise _fail(f"--times: found {times}; allowed: a whole number >= 1")

    from sweeps import drawing
    from sweeps.choosing import ChoiceError
    from sweeps.dataset import open_store
    from sweeps.store import StoreError, open_whole

    path = _place(store)
    try:
        with _damage_is_told(path):
            open_whole(path)
            with open_store(path) as dataset:
                found = drawing.picture(dataset, what, at, times)
        drawing.write(found, output)
    except (StoreError, OSError) as error:
        raise _fail(error) from None
    except (ChoiceError, drawing.DrawingError) as error:
        raise _fail(f"{store}: {error}") from None
    typer.echo("\n".join([*found.facts, f"wrote {output}"]))


@app.command()
def view(
    store: Annotated[
        str | None, typer.Argument(metavar="[STORE]", help="A store, also one that is being written; without one, a live game.")
    ] = None,
    port: Annotated[int, typer.Option(min=0, max=65535, help="On this machine; 0 for any that is free.")] = 0,
) -> None:
    """Serve a page that shows a store, or one game that is solved as its parameters move, to a browser."""
    from sweeps.store import StoreError

    path = _place(store) if store else None
    try:
        from sweeps.viewer import server

        with _damage_is_told(path or Path()):
            server.serve(path, port, _say_where_to_look)
    except (StoreError, OSError) as error:
        raise _fail(error) from None
    except ImportError as error:
        raise _fail(f"{error.name} is missing; install it with: {sys.executable} -m pip install 'mfg-jax[viz]'") from None


@app.command()
def report(
    store: StorePath,
    output: Annotated[Path, typer.Option("-o", "--output", help="FILE.html")],
) -> None:
    """Write the page that shows a store as one file, which opens without a network: its games, as many as fit, and where they come
    from."""
    from sweeps.runtime import readable
    from sweeps.store import StoreError

    if output.suffix != ".html":
        raise _fail(f"{output}: found the ending {output.suffix!r}; allowed: .html")
    path = _place(store)
    try:
        from sweeps.viewer import report as reports

        with _damage_is_told(path):
            made = reports.write(path, output)
    except (StoreError, OSError) as error:
        raise _fail(error) from None
    except ImportError as error:
        raise _fail(f"{error.name} is missing; install it with: {sys.executable} -m pip install 'mfg-jax[viz]'") from None
    typer.echo(made.what_is_here)
    typer.echo(f"wrote {output} ({readable(output.stat().st_size)})")


def _say_where_to_look(address: str) -> None:
    typer.echo(f"open        {address}")
    port = address.split(":")[2].split("/")[0]
    typer.echo(f"from afar   ssh -L {port}:127.0.0.1:{port} THIS-MACHINE, then the same address there")
    typer.echo("stop        Ctrl-C")


@app.command()
def calibrate(
    data: Annotated[
        Path, typer.Argument(metavar="TRADES", help="A CSV or Parquet file of trades with quotes, or of fills by offset.")
    ],
    columns: Annotated[str, typer.Option(help="What the file calls its columns: time_ns=ts,price=px,… where it differs.")] = "",
    tick: Annotated[float | None, typer.Option(help="Distance of neighbouring prices; the smallest one met by default.")] = None,
    window: Annotated[
        tuple[float, float] | None,
        typer.Option(help="From and to how many ticks from the mid; the ten from the touch on by default."),
    ] = None,
    output: Annotated[Path | None, typer.Option("-o", "--output", help="A folder for the report, its plot and the block.")] = None,
) -> None:
    """Tell A and k of each side from trades, with intervals, and how far they can be trusted."""
    from mfg_jax.flow import FlowError
    from sweeps import calibration, trades

    try:
        renamed = _renamed(columns)
        if tick is not None and not 0 < tick < float("inf"):
            raise _fail(f"--tick: found {tick:g}; allowed: a finite number > 0")
        if window is not None and not window[0] < window[1]:
            raise _fail(f"--window: found {window[0]:g} to {window[1]:g}; allowed: a first offset below the second")
        if window is not None and window[0] < 0:
            raise _fail(f"--window: found {window[0]:g} to {window[1]:g}; allowed: a first offset >= 0, which is the mid")
        read = trades.read(data, renamed, tick)
        if not isinstance(read, trades.Market) and (tick or window):
            raise _fail(f"{data}: is a table of fills, which --tick and --window do not go with")
        found = calibration.calibrate_market(read, window) if isinstance(read, trades.Market) else calibration.calibrate_fills(read)
        typer.echo(calibration.report(found))
        written = calibration.write(found, output) if output else []
    except (trades.TradesError, FlowError, OSError) as error:
        raise _fail(error if isinstance(error, trades.TradesError) else f"{data}: {error}") from None
    _say_what_was_written(written)


@app.command()
def sensitivity(
    store: StorePath,
    metrics: Annotated[str, typer.Option(help="Which scalars: mean_spread,peak_variance,…; by default the usual ones.")] = "",
    output: Annotated[Path | None, typer.Option("-o", "--output", help="A folder for the report, its tables and plots.")] = None,
    tables: Annotated[TableKind, typer.Option(help="What the tables in that folder are written as.")] = "csv",
) -> None:
    """Tell which parameter moves what: elasticities from stored derivatives, Sobol indices of a Saltelli design."""
    from sweeps import study
    from sweeps.dataset import open_store
    from sweeps.sensitivity import SensitivityError
    from sweeps.store import StoreError, open_whole

    path = _place(store)
    try:
        with _damage_is_told(path):
            open_whole(path)
            with open_store(path) as dataset:
                found = study.study(dataset, [name for name in metrics.split(",") if name])
        typer.echo(study.report(found))
        written = study.write(found, output, tables) if output else []
    except SensitivityError as error:
        raise _fail(f"{store}: {error}") from None
    except (StoreError, OSError) as error:
        raise _fail(error) from None
    except ImportError as error:
        packages = "sensitivity,export"
        raise _fail(f"{error.name} is missing; install it with: {sys.executable} -m pip install 'mfg-jax[{packages}]'") from None
    _say_what_was_written(written)


def _say_what_was_written(paths: Sequence[Path]) -> None:
    from sweeps import plots

    for path in paths:
        typer.echo(f"wrote {path}")
    if paths and not plots.can_be_drawn():
        typer.echo(f"mfgsweep: {plots.WITHOUT}", err=True)


@app.command()
def reach(
    grid: Grid,
    vary: Annotated[str, typer.Option(help="The parameter of which the least is sought; the grid file gives it any value.")],
    between: Annotated[tuple[float, float], typer.Option(help="Its bounds.")],
    metric: Annotated[str, typer.Option(help="A scalar metric: final_derisk_probability, mean_spread, …")],
    at_least: Annotated[float | None, typer.Option(help="The metric is to be at least so much;")] = None,
    at_most: Annotated[float | None, typer.Option(help="or at most so much.")] = None,
    output: Annotated[Path | None, typer.Option("-o", "--output", help="A CSV file for the table, with all digits.")] = None,
) -> None:
    """For each game of a grid, find the least of a parameter that brings a metric to a target."""
    spec = _load(grid)

    from sweeps import runtime

    runtime.configure()
    from sweeps import reaching

    target = reaching.Target(vary, between, metric, at_least, at_most)
    found = reaching.reach_all(spec, target)
    rows = []
    try:
        for row in reaching.written(output, spec, target, found) if output else found:
            rows.append(row)
            typer.echo(f"games done: {len(rows)}", err=True)
    except (ValueError, OSError) as error:
        raise _fail(error) from None
    typer.echo(reaching.table(spec, target, rows))
    if output:
        typer.echo(f"wrote {output}")


def _renamed(columns: str) -> dict[str, str]:
    """From NAME=THEIRS,… to {NAME: THEIRS}."""
    pairs = [pair.split("=") for pair in columns.split(",") if pair]
    if any(len(pair) != 2 or not all(pair) for pair in pairs):
        raise _fail(f"--columns: found {columns!r}; allowed: NAME=THEIRS,NAME=THEIRS,…")
    return {here: there for here, there in pairs}


@app.command()
def doctor() -> None:
    """Say what this installation is and can do, and check it on a game whose solution is known."""
    from sweeps import diagnosis, runtime

    runtime.configure()
    report = diagnosis.diagnose()
    typer.echo("\n".join(report.lines))
    if not report.healthy:
        raise typer.Exit(1)


def main() -> None:
    """The console script."""
    app()


if __name__ == "__main__":
    sys.exit(main())

"""The ``xavierfast`` command: the functions of xavierfast.files, for the shell."""

import io
import json
import os
import re
import shlex
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict
from enum import Enum
from math import sqrt
from time import monotonic, perf_counter
from typing import Annotated, Any, NoReturn

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn
from rich.table import Column
from rich.table import Table as Grid

import xavierfast

from . import files
from ._core.dtypes import DTYPES
from ._core.recipe import to_json
from ._core.rules import RULES
from .files import specs
from .table import Table

__all__ = ["app", "run"]

EPILOG = (
    "Exit codes: 0 success, 1 a difference was found, 2 wrong usage, 3 a file or a disk failed, 130 interrupted, "
    "143 terminated."
)

app = typer.Typer(
    name="xavierfast",
    help="Create, verify and show initial weights of neural networks on disk.",
    epilog=EPILOG,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


class Exit(int, Enum):
    DIFFERENCE = 1
    USAGE = 2
    FAILURE = 3
    INTERRUPTED = 130
    TERMINATED = 143


class Terminated(BaseException):
    """Raised on SIGTERM, as KeyboardInterrupt is raised on SIGINT."""


def run() -> None:
    """Run the command that sys.argv names."""

    def stop(*_: object) -> NoReturn:
        raise Terminated

    signal.signal(signal.SIGTERM, stop)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # for locales that lack characters of bars and names
    if os.environ.get("COLUMNS") == "0":  # with 0 columns, rich would print nothing
        del os.environ["COLUMNS"]
    try:
        app()
    except OSError as error:  # from --help and --version, before a command has begun
        print(f"xavierfast: {error}", file=sys.stderr)
        sys.exit(Exit.FAILURE)


# ---- options

# Titles of the groups of options in the help.
TABLE, MODEL, PART = "Options for one table", "Options for a model", "Options for a part of a file"

Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print only errors.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object, for programs.")]
Threads = Annotated[int | None, typer.Option(help="Number of threads; by default, one per usable CPU.", min=1)]
Sample = Annotated[int | None, typer.Option(help="Read only this many blocks of 1 MiB, chosen at random.", min=1)]
Tensor = Annotated[str | None, typer.Option(help="Read only the tensor of this name.")]
Sync = Annotated[bool, typer.Option(help="Wait until the table is on the disk before it gets its final name.")]


# Keywords of xavierfast.files as its errors name them: force=True, or tensor= without a value.
_KEYWORD = re.compile(r"\b(force|max_shard_size|name|rows|shard|tensor)=(True\b|(?=[\s,;:)]|$))")


def _in_shell_words(text: str, path: str) -> str:
    """Replace what a Python program has to pass or call, in an error, by the option or the command."""
    text = _KEYWORD.sub(lambda match: "--" + match[1].replace("_", "-"), text)
    return text.replace("call resume()", f"run xavierfast resume {shlex.quote(path)}")


@contextmanager
def _reporting(*paths: str) -> Iterator[None]:
    """Turn errors, which may be about any of the `paths`, into one line on stderr and an exit code."""
    try:
        yield
    except (KeyboardInterrupt, Terminated) as error:
        code = Exit.TERMINATED if isinstance(error, Terminated) else Exit.INTERRUPTED
        _fail("stopped", error, code, paths)
    except (OSError, files.FormatError) as error:
        text = str(error)
        if isinstance(error, OSError) and error.filename is not None:
            text = f"{_text(error.filename)}: {error.strerror}"
        _fail(text, error, Exit.FAILURE, paths)
    except MemoryError as error:
        _fail("not enough memory", error, Exit.FAILURE, paths)
    except (TypeError, ValueError, ImportError) as error:
        _fail(str(error), error, Exit.USAGE, paths)


def _fail(text: str, error: BaseException, code: Exit, paths: Sequence[str]) -> NoReturn:
    text += "".join(f" ({note})" for note in getattr(error, "__notes__", ()))
    name = error.filename if isinstance(error, OSError) else None
    path = next((path for path in paths if os.path.basename(path) == name), paths[0] if paths else "PATH")
    print(_printable(f"xavierfast: {_in_shell_words(text, path)}"), file=sys.stderr)
    raise typer.Exit(code) from None


def _text(name: str | bytes | int) -> str:
    return name.decode(errors="replace") if isinstance(name, bytes) else str(name)


def _printable(text: str) -> str:
    """Escape control characters, which an untrusted file may contain."""
    return "".join(c if c.isprintable() or c == "\n" else repr(c)[1:-1] for c in text)


@contextmanager
def _progress(what: str, quiet: bool) -> Iterator[Callable[[int, int], None] | None]:
    """Show a progress bar on a terminal, and nothing in a pipe."""
    console = Console(stderr=True)
    if quiet or not console.is_terminal:
        yield None
        return
    columns = TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn()
    with Progress(*columns, TimeRemainingColumn(), console=console, transient=True) as bar:
        task = bar.add_task(escape(_printable(what)))
        shown = 0.0

        def update(done: int, total: int) -> None:
            nonlocal shown
            now = monotonic()
            if now - shown > 0.1 or done == total:
                shown = now
                bar.update(task, completed=done, total=total)

        yield update


def _size(nbytes: float) -> str:
    """Format a number of bytes for people, in powers of 1000."""
    for unit in ("bytes", "kB", "MB", "GB", "TB"):
        if nbytes < 1000 or unit == "TB":
            break
        nbytes /= 1000
    return f"{nbytes:,.0f} {unit}" if unit == "bytes" else f"{nbytes:,.2f} {unit}"


def _speed(nbytes: int, seconds: float) -> str:
    return f"{_size(nbytes)} in {seconds:.2f} s, {nbytes / max(seconds, 1e-9) / 1e9:.2f} GB/s"


# ---- create


@app.command(epilog=EPILOG)
def create(
    context: typer.Context,
    path: Annotated[str, typer.Argument(help="The file: .npy or .bin for one table, .safetensors for any number.")],
    shape: Annotated[str | None, typer.Argument(help="The table's shape, such as 100000000x128 or 10Mx128.")] = None,
    init: Annotated[
        str,
        typer.Option(
            help="The initialiser: xavier_uniform, he_normal, ...",
            autocompletion=lambda: list(RULES),
            rich_help_panel=TABLE,
        ),
    ] = "xavier_uniform",
    dtype: Annotated[
        str,
        typer.Option(
            help="The type of the elements: float32, bfloat16, ...",
            autocompletion=lambda: list(DTYPES),
            rich_help_panel=TABLE,
        ),
    ] = "float32",
    seed: Annotated[
        int | None, typer.Option(help="The seed; by default a new random one, which the recipe records.")
    ] = None,
    name: Annotated[
        str, typer.Option(help="The table's name; its values depend on it too.", rich_help_panel=TABLE)
    ] = "",
    param: Annotated[
        list[str] | None,
        typer.Option(
            "--param", "-p", help="A parameter of the initialiser: -p gain=1.41 -p mode=fan_in", rich_help_panel=TABLE
        ),
    ] = None,
    layout: Annotated[
        str | None,
        typer.Option(
            help="One letter per axis: i for inputs, o for outputs, b for batch; such as oihw.", rich_help_panel=TABLE
        ),
    ] = None,
    groups: Annotated[
        int, typer.Option(help="The number of groups of a grouped convolution.", min=1, rich_help_panel=TABLE)
    ] = 1,
    fan_in: Annotated[
        int | None, typer.Option(help="The fan-in to use in place of the shape's.", min=1, rich_help_panel=TABLE)
    ] = None,
    fan_out: Annotated[
        int | None, typer.Option(help="The fan-out to use in place of the shape's.", min=1, rich_help_panel=TABLE)
    ] = None,
    spec: Annotated[
        str | None, typer.Option(help="A .toml or .json file with names, shapes and rules.", rich_help_panel=MODEL)
    ] = None,
    like: Annotated[
        str | None,
        typer.Option(help="A .safetensors file to copy names, shapes and dtypes from.", rich_help_panel=MODEL),
    ] = None,
    rules: Annotated[
        str | None,
        typer.Option(help="For --like: a .toml or .json file that maps patterns to rules.", rich_help_panel=MODEL),
    ] = None,
    max_shard_size: Annotated[
        str | None,
        typer.Option(
            help="Split .safetensors into files of at most this size, such as 5GB, and write an index.",
            rich_help_panel=MODEL,
        ),
    ] = None,
    rows: Annotated[
        str | None,
        typer.Option(help="Write only rows FIRST to before LAST, such as 0:25M.", rich_help_panel=PART),
    ] = None,
    shard: Annotated[
        str | None, typer.Option(help="Write only part K of N parts, such as 1/4.", rich_help_panel=PART)
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Finish a file that the same command began.")] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Replace an existing file, which stays intact until the new one is done.")
    ] = False,
    sync: Sync = True,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the size, the free space and the estimated time; leave no file.")
    ] = False,
    threads: Threads = None,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Write a table, or the tables of a model, to disk.

    The file is called PATH.partial until it is complete. After a crash or a full disk, finish it with the same command
    and --resume, or with xavierfast resume PATH.

    xavierfast create items.npy 10Mx128 --dtype bfloat16 --seed 7 --name items

    xavierfast create model.safetensors --spec model.toml --seed 0
    """
    with _reporting(path):
        sources = [source for source in (shape, spec, like) if source is not None]
        if len(sources) != 1:
            raise ValueError(f"exactly one of SHAPE, --spec and --like must be given, got {len(sources)}")
        if rules is not None and like is None:
            raise ValueError("--rules is only for --like: a spec has its own rules")
        tables, has_seed = _tables_to_create(context, shape, spec, like, rules)
        max_bytes = None if max_shard_size is None else specs.parse_size(max_shard_size)
        part: dict[str, Any] = {}
        if rows is not None:
            part["rows"] = specs.parse_range(rows)
        if shard is not None:
            part["shard"] = specs.parse_fraction(shard)
        if part and not has_seed:
            raise ValueError("all parts of one table must have the same seed: pass --seed")
        if part and resume:
            raise ValueError(
                "--resume cannot be combined with --rows or --shard: xavierfast resume completes the parts"
            )
        note = _note(tables)
        if note and not (quiet or as_json):
            with suppress(OSError):  # a note that nobody can read must not stop the creation
                print(_printable(f"xavierfast: note: {note}"), file=sys.stderr)
        if dry_run:
            found = files.estimate(path, tables, max_shard_size=max_bytes, force=force, sync=sync, threads=threads)
            _print_estimate(path, found, note, as_json)
            return
        begin, written = perf_counter(), None
        with _progress(path, quiet or as_json) as progress:
            shared: Any = {"max_shard_size": max_bytes, "sync": sync, "threads": threads, "progress": progress}
            if resume:
                written = _resume(path, tables, has_seed, force, shared)
            if written is None:
                nbytes = files.create(path, tables, force=force, **part, **shared)
            else:
                nbytes = sum(table.nbytes for table in files.tables_of(path).values())
        seconds = perf_counter() - begin
        if as_json:
            fields = {"path": path, "nbytes": nbytes, "written": written, "seconds": seconds, "note": note}
            print(json.dumps(fields))
        elif not quiet:
            if part and not nbytes:
                print(f"{_printable(path)}: finished already, and the part is as it should be")
                return
            _print_written(path, "part written" if part else "written", nbytes, written, seconds)
            if part:
                print(_printable(f"when all parts are written, run xavierfast resume {shlex.quote(path)}"))


def _tables_to_create(
    context: typer.Context, shape: str | None, spec: str | None, like: str | None, rules: str | None
) -> tuple[Table | dict[str, Table], bool]:
    """The tables to create, and whether a seed was given."""
    options = context.params
    keywords = ["init", "dtype", "name", "layout", "groups", "fan_in", "fan_out"]
    seed = options["seed"]
    if shape is not None:
        given = {name: options[name] for name in keywords}
        return Table(specs.parse_shape(shape), seed=seed, **given, **_parameters(options["param"])), seed is not None
    refused = [*keywords, "param"]
    if like is not None and rules is None:
        refused.remove("init")  # the one rule for all tensors
    for name in refused:
        source = context.get_parameter_source(name)
        if source is not None and source.name == "COMMANDLINE":
            raise ValueError(f"--{name.replace('_', '-')} is only for SHAPE: the rules of a model set it")
    if like is not None:
        return specs.like(like, _rules(rules) if rules else {"*": options["init"]}, seed), seed is not None
    fields = specs.read_spec(spec or "")
    return specs.from_spec(fields, seed), seed is not None or "seed" in fields


def _note(tables: Table | dict[str, Table]) -> str | None:
    """The first note on a table whose initialisation is probably not wanted, and the number of further notes."""
    named = {tables.name: tables} if isinstance(tables, Table) else tables
    notes = [(name, note) for name, table in named.items() for note in table._notes()]
    if not notes:
        return None
    name, note = notes[0]
    further = f" (further notes: {len(notes) - 1:,})" if len(notes) > 1 else ""
    return f"{name}: {note}{further}" if name else f"{note}{further}"


def _rules(path: str) -> dict[str, Any]:
    fields = specs.read_spec(path)
    rules = fields.get("rules", fields)
    if not isinstance(rules, dict):
        raise ValueError(f"rules must map patterns to initialisers, got {rules!r:.80}")
    return rules


def _parameters(pairs: Sequence[str] | None) -> dict[str, Any]:
    parameters: dict[str, Any] = {}
    for pair in pairs or ():
        name, equals, value = pair.partition("=")
        if not equals:
            raise ValueError(f"--param must be NAME=VALUE, got {pair!r}")
        parameters[name] = value
        for kind in (int, float, complex):
            try:
                parameters[name] = kind(value)
                break
            except ValueError:
                pass
    return parameters


def _resume(path: str, tables: Table | dict[str, Table], has_seed: bool, force: bool, keywords: Any) -> int | None:
    """Resume; return the bytes written, or None if there is nothing to resume and a file may be created."""
    try:
        return files.resume(path, tables if has_seed else None, **keywords)
    except FileNotFoundError:
        try:
            finished = files.tables_of(path)
        except FileNotFoundError:
            return None
    asked = {tables.name: tables} if isinstance(tables, Table) else tables
    ignored = {} if has_seed else {"seed": None}
    if [t.recipe | ignored for t in finished.values()] != [t.recipe | ignored for t in asked.values()]:
        if force:
            return None
        raise FileExistsError(f"{path} is finished and has another recipe: pass --force to replace it")
    return 0


def _print_estimate(path: str, found: files.Estimate, note: str | None, as_json: bool) -> None:
    if as_json:
        print(json.dumps({"path": path, **found._asdict(), "note": note}))
    else:
        seconds = "unknown time" if found.seconds is None else f"about {found.seconds:,.1f} s"
        print(f"{_printable(path)}: {_size(found.nbytes)} needed, {_size(found.free)} free, {seconds}")
    if found.nbytes > found.free:
        missing = _size(found.nbytes - found.free)
        print(f"xavierfast: not enough free space: {missing} more needed", file=sys.stderr)
        raise typer.Exit(Exit.FAILURE)


def _print_written(path: str, done: str, nbytes: int, written: int | None, seconds: float) -> None:
    if written is not None:
        done = f"finished ({_size(written)} were missing or wrong)"
    print(f"{_printable(path)}: {done}, {_speed(nbytes, seconds)}")


@app.command(epilog=EPILOG)
def resume(
    path: Annotated[str, typer.Argument(help="The file's final name, without .partial.")],
    sync: Sync = True,
    threads: Threads = None,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Finish an incomplete file: recompute all of it, write the missing or wrong blocks, give it its final name."""
    with _reporting(path):
        begin = perf_counter()
        with _progress(path, quiet or as_json) as progress:
            written = files.resume(path, sync=sync, threads=threads, progress=progress)
        nbytes = sum(table.nbytes for table in files.tables_of(path).values())
        seconds = perf_counter() - begin
        if as_json:
            print(json.dumps({"path": path, "nbytes": nbytes, "written": written, "seconds": seconds}))
        elif not quiet:
            _print_written(path, "", nbytes, written, seconds)


@app.command(epilog=EPILOG)
def status(
    path: Annotated[str, typer.Argument(help="The file's final name, with or without .partial.")],
    shards: Annotated[
        int | None, typer.Option(help="List which of this many shards K/N are missing, in place of rows.", min=1)
    ] = None,
    threads: Threads = None,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Recompute an unfinished file and list what is missing, while other hosts may write it.

    The exit code is 0 if nothing is missing, so that xavierfast resume can finish the file.
    """
    with _reporting(path):
        with _progress(path, quiet or as_json) as progress:
            found = files.status(path, shards=shards, threads=threads, progress=progress)
        if as_json:
            print(json.dumps({"path": path, "complete": found.complete, **asdict(found)}))
        elif not quiet:
            if found.missing:
                print(f"{_printable(path)}: missing shards: {', '.join(f'{k}/{shards}' for k in found.missing)}")
            _print_differences(path, found.tensors, "are missing or wrong")
            state = "finished" if found.finished else "unfinished"
            print(f"{_printable(path)}: {state}, {'nothing' if found.complete else 'something'} is missing")
        if not found.complete:
            raise typer.Exit(Exit.DIFFERENCE)


# ---- verify


@app.command(epilog=EPILOG)
def verify(
    path: Annotated[str, typer.Argument(help="A .npy, .safetensors or .bin file, or the index of several.")],
    recipe: Annotated[
        str | None, typer.Option(help="Compare with the recipe of this file, not with PATH's own.")
    ] = None,
    tensor: Tensor = None,
    sample: Sample = None,
    report: Annotated[
        str | None, typer.Option(help="Write a new .npy file with one bool per row: true if the row differs.")
    ] = None,
    threads: Threads = None,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Recompute a table and report which rows differ; in a trained table, these are the rows that training changed.

    xavierfast verify items.npy

    xavierfast verify trained.npy --recipe items.npy --report touched.npy
    """
    with _reporting(path, *([recipe] if recipe else [])):
        begin = perf_counter()
        with _progress(path, quiet or as_json) as progress:
            found = files.verify(
                path, recipe, tensor=tensor, sample=sample, report=report, threads=threads, progress=progress
            )
        seconds = perf_counter() - begin
        if as_json:
            print(json.dumps({"path": path, "ok": found.ok, "seconds": seconds, **asdict(found)}))
        elif not quiet:
            _print_verification(path, found, sample, seconds)
        if not found.ok:
            raise typer.Exit(Exit.DIFFERENCE)


def _print_verification(path: str, found: files.Verification, sample: int | None, seconds: float) -> None:
    _print_differences(path, found.tensors, "differ")
    if found.extra:
        print(_printable(f"{path}: {found.extra:,} bytes after the last tensor"))
    compared = "the sample matches" if sample else "all values match"
    state = f"{compared} the recipe" if found.ok else "does not match the recipe"
    print(f"{_printable(path)}: {state}, {_speed(found.nbytes, seconds)}")


def _print_differences(path: str, checks: Sequence[files.TensorCheck], how: str) -> None:
    for check in checks:
        name = f"{path}: {check.name}" if check.name else path
        if check.problem:
            print(_printable(f"{name}: {check.problem}"))
        elif check.differ:
            shown = check.ranges[:10]
            listed = ", ".join(f"{first:,}:{last:,}".replace(",", "_") for first, last in shown)
            rest = check.differ - sum(last - first for first, last in shown)
            listed += f" and {rest:,} more" if rest else ""
            print(_printable(f"{name}: {check.differ:,} of {check.rows:,} rows {how}: {listed}"))


# ---- show


@app.command(epilog=EPILOG)
def show(
    path: Annotated[str, typer.Argument(help="A .npy, .safetensors or .bin file, or the index of several.")],
    tensor: Tensor = None,
    sample: Sample = None,
    plot: Annotated[str | None, typer.Option(help="Draw a histogram to this .png, .svg or .pdf file.")] = None,
    threads: Threads = None,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Measure a table: mean, standard deviation, extremes, histogram, and what its recipe predicts."""
    with _reporting(path):
        with _progress(path, quiet or as_json) as progress:
            found = files.measure(path, tensor=tensor, sample=sample, threads=threads, progress=progress)
        if plot is not None:
            from .propagation.plots import plot_histogram

            if len(found) != 1:
                raise ValueError(f"a plot shows one tensor, got {len(found)}: choose one with --tensor")
            plot_histogram(found[0], plot)
        if as_json:
            print(json.dumps({"path": path, "tensors": [_stats_for_json(stats) for stats in found]}))
        elif not quiet:
            console = Console(highlight=False, soft_wrap=True)
            if not console.is_terminal:
                console.width = 200  # a pipe has no edge to wrap at
            if len(found) == 1:
                _print_stats(console, found[0])
            else:
                console.print(_summary(found))


def _stats_for_json(stats: files.TensorStats) -> dict[str, Any]:
    table = stats.table
    expected = None if table is None else {
        "fan_in": table.fan_in, "fan_out": table.fan_out, "bound": table.bound, "mean": to_json(table.mean),
        "std": table.std, "recipe": table.recipe,
    }  # fmt: skip
    fields = {name: getattr(stats, name) for name in ("name", "shape", "dtype", "nbytes", "count")}
    measured = {name: to_json(getattr(stats, name)) for name in ("mean", "std", "low", "high")}
    return {**fields, **measured, "histogram": stats.histogram, "edges": stats.edges, "expected": expected}


def _print_stats(console: Console, stats: files.TensorStats) -> None:
    table = stats.table
    if table is not None:
        console.print(escape(_printable(table.describe())))
    else:
        shape = f"{stats.shape} of {stats.dtype}, {stats.nbytes:,} bytes"
        console.print(escape(_printable(f"{stats.name or 'tensor'} {shape}, no recipe")))
    if not stats.count:
        console.print("measured    nothing: the tensor does not hold numbers")
        return
    standard_error = stats.std / sqrt(stats.count)
    console.print(f"measured    {stats.count:,} numbers")
    compared = f", {stats.mean - table.mean:+.3e} from the recipe's" if table is not None and table.mean.real else ""
    console.print(f"  mean      {stats.mean:+.3e}{compared}, standard error {standard_error:.1e}")
    compared = "" if table is None else f", {stats.std / table.std:.6f} of the recipe's" if table.std else ""
    console.print(f"  std       {stats.std:.9g}{compared}")
    console.print(f"  extremes  {stats.low:.9g} to {stats.high:.9g}")
    if stats.low == stats.high:
        return
    tallest = max(stats.histogram) or 1
    full = "\u2588" if console.encoding.startswith("utf") else "#"
    step = (stats.edges[1] - stats.edges[0]) / len(stats.histogram)
    for k, count in enumerate(stats.histogram):
        bar = full * round(48 * count / tallest)
        console.print(f"{stats.edges[0] + (k + 0.5) * step:>12.4g}  {bar}")


def _summary(found: Sequence[files.TensorStats]) -> Grid:
    right = {"justify": "right", "no_wrap": True}
    columns = (Column(title, **right) for title in ("bytes", "mean", "std", "recipe's std", "min", "max"))  # type: ignore[arg-type]
    grid = Grid(Column("tensor", overflow="fold"), "shape", "dtype", *columns, box=None)
    for stats in found:
        expected = "" if stats.table is None else f"{stats.table.std:.4g}"
        measured = (stats.mean, stats.std, stats.low, stats.high) if stats.count else ()
        mean, std, low, high = (f"{number:.4g}" for number in measured) if measured else ("",) * 4
        shape = "x".join(map(str, stats.shape))
        grid.add_row(
            escape(_printable(stats.name)),
            shape,
            stats.dtype,
            f"{stats.nbytes:,}",
            mean,
            std,
            expected,
            low,
            high,
        )
    return grid


# ---- explain


def _activations() -> list[str]:
    from .propagation import ACTIVATIONS

    return list(ACTIVATIONS)


@app.command(epilog=EPILOG)
def explain(
    layers: Annotated[
        str, typer.Option(help="Widths: 1000x5 for five layers of 1000, or each width, such as 784,512x3,10.")
    ] = "1000x5",
    activation: Annotated[
        str, typer.Option(help="The activation: sigmoid, tanh, relu, ...", autocompletion=_activations)
    ] = "tanh",
    batch: Annotated[int, typer.Option(help="The number of inputs to push through the network.", min=1)] = 256,
    seed: Annotated[int, typer.Option(help="The seed of the weights and the inputs.", min=0)] = 0,
    plot: Annotated[
        str | None, typer.Option(help="Draw histograms and variances to this .png, .svg or .pdf file.")
    ] = None,
) -> None:
    """Show how zeros, old heuristics, Xavier and He affect the signals and gradients of a deep network.

    xavierfast explain --layers 1000x5 --activation tanh --plot why.png
    """
    with _reporting():
        from . import propagation

        widths = propagation.parse_layers(layers)
        print(propagation.explain(widths, activation, batch=batch, seed=seed, plot=plot))


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"xavierfast {xavierfast.__version__}, level {xavierfast.level}")
        raise typer.Exit


@app.callback()
def main(
    version: Annotated[
        bool,
        typer.Option(
            "--version", help="Print the version and the kernels' level.", callback=_print_version, is_eager=True
        ),
    ] = False,
) -> None:
    pass

"""The command ``create``."""

import json
import shlex
import sys
from collections.abc import Sequence
from contextlib import suppress
from time import perf_counter
from typing import Annotated, Any

import typer

from .. import files
from .._core.dtypes import DTYPES
from .._core.rules import RULES
from ..files import specs
from ..table import Table
from .options import MODEL, PART, TABLE, Json, Quiet, Sync, Threads
from .shell import Exit, progress_bar, reporting
from .text import printable, size, speed


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
        str | None, typer.Option(help="Write only shard K of N, counted from 0, such as 0/4.", rich_help_panel=PART)
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
    with reporting(path):
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
                print(printable(f"xavierfast: note: {note}"), file=sys.stderr)
        if dry_run:
            found = files.estimate(path, tables, max_shard_size=max_bytes, force=force, sync=sync, threads=threads)
            _print_estimate(path, found, note, as_json)
            return
        begin, written = perf_counter(), None
        with progress_bar(path, quiet or as_json) as progress:
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
                print(f"{printable(path)}: finished already, and the part is as it should be")
                return
            print_written(path, "part written" if part else "written", nbytes, written, seconds)
            if part:
                print(printable(f"when all parts are written, run xavierfast resume {shlex.quote(path)}"))


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
        free = "unknown space" if found.free is None else size(found.free)
        print(f"{printable(path)}: {size(found.nbytes)} needed, {free} free, {seconds}")
    if found.free is not None and found.nbytes > found.free:
        missing = size(found.nbytes - found.free)
        print(f"xavierfast: not enough free space: {missing} more needed", file=sys.stderr)
        raise typer.Exit(Exit.FAILURE)


def print_written(path: str, done: str, nbytes: int, written: int | None, seconds: float) -> None:
    if written is not None:
        done = f"finished ({size(written)} were missing or wrong)"
    print(f"{printable(path)}: {done}, {speed(nbytes, seconds)}")

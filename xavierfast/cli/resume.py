"""The commands ``resume`` and ``status``, for files that have been begun."""

import json
from dataclasses import asdict
from time import perf_counter
from typing import Annotated

import typer

from .. import files
from .._core.command import Exit
from .._core.validation import check_shard
from ..files import specs
from .differences import check_lines
from .options import Json, NoSync, Quiet, Threads
from .shell import progress_bar, reporting
from .text import shown_path
from .writing import final_name, go_on, is_unfinished

__all__ = ["resume", "status"]

Begun = Annotated[str, typer.Argument(metavar="PATH")]


def resume(
    path: Begun,
    shard: Annotated[
        str | None, typer.Option(metavar="K/N", help="Check only shard K of N, from 0/N, beside other hosts.")
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Write also what differs in a finished file, trained values too.")
    ] = False,
    no_sync: NoSync = False,
    threads: Threads = None,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Finish a file that was begun; check a finished one.

    PATH may have the ending .partial or not. All values are recomputed, what is missing or wrong is written, and the
    file gets its final name. In a finished file, only what is missing at its end is written: rows that differ stay,
    since training may have changed them, and the exit code is 1. With --shard, N hosts share the work, and the last of
    them gives the file its name.
    """
    path = final_name(path)
    with reporting(path):
        begin = perf_counter()
        with progress_bar(path, quiet or as_json) as progress:
            part = None if shard is None else check_shard(*specs.parse_fraction(shard))
            keywords = {"sync": not no_sync, "threads": threads, "progress": progress}
            report = go_on(path, None, force, keywords, part)
        report.seconds = perf_counter() - begin
        report.print(quiet, as_json)


def status(
    path: Begun,
    shards: Annotated[
        int | None, typer.Option(metavar="N", help="List which of N shards are missing, in place of rows.", min=1)
    ] = None,
    threads: Threads = None,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """List what an unfinished file lacks.

    PATH may have the ending .partial or not. All values are recomputed, and nothing is written; other hosts may be
    writing meanwhile. The exit code is 0 if nothing is missing, so that xavierfast resume can finish the file.
    """
    path = final_name(path)
    with reporting(path):
        is_unfinished(path)  # which names what is no file in the place of one
        with progress_bar(path, quiet or as_json) as progress:
            found = files.status(path, shards=shards, threads=threads, progress=progress)
        if as_json:
            print(json.dumps({"path": path, "complete": found.complete, **asdict(found)}))
        elif not quiet:
            if found.missing:
                print(f"{shown_path(path)}: missing shards: {', '.join(f'{k}/{shards}' for k in found.missing)}")
            for line in check_lines(path, found.tensors, "are missing or wrong"):
                print(line)
            state = "finished" if found.finished else "unfinished"
            print(f"{shown_path(path)}: {state}, {'nothing' if found.complete else 'something'} is missing")
        if not found.complete:
            raise typer.Exit(Exit.DIFFERENCE)

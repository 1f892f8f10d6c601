"""The commands ``resume`` and ``status``, for unfinished files."""

import json
from dataclasses import asdict
from time import perf_counter
from typing import Annotated

import typer

from .. import files
from .create import print_written
from .options import Json, Quiet, Sync, Threads
from .shell import Exit, progress_bar, reporting
from .text import printable
from .verify import print_differences


def resume(
    path: Annotated[str, typer.Argument(help="The file's final name, without .partial.")],
    sync: Sync = True,
    threads: Threads = None,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Finish an incomplete file: recompute all of it, write the missing or wrong blocks, give it its final name."""
    with reporting(path):
        begin = perf_counter()
        with progress_bar(path, quiet or as_json) as progress:
            written = files.resume(path, sync=sync, threads=threads, progress=progress)
        nbytes = sum(table.nbytes for table in files.tables_of(path).values())
        seconds = perf_counter() - begin
        if as_json:
            print(json.dumps({"path": path, "nbytes": nbytes, "written": written, "seconds": seconds}))
        elif not quiet:
            print_written(path, "", nbytes, written, seconds)


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
    with reporting(path):
        with progress_bar(path, quiet or as_json) as progress:
            found = files.status(path, shards=shards, threads=threads, progress=progress)
        if as_json:
            print(json.dumps({"path": path, "complete": found.complete, **asdict(found)}))
        elif not quiet:
            if found.missing:
                print(f"{printable(path)}: missing shards: {', '.join(f'{k}/{shards}' for k in found.missing)}")
            print_differences(path, found.tensors, "are missing or wrong")
            state = "finished" if found.finished else "unfinished"
            print(f"{printable(path)}: {state}, {'nothing' if found.complete else 'something'} is missing")
        if not found.complete:
            raise typer.Exit(Exit.DIFFERENCE)

"""The command ``verify``."""

import json
from dataclasses import asdict
from time import perf_counter
from typing import Annotated

import typer

from .. import files
from .._core.command import Exit
from .differences import difference_lines
from .options import Json, Path, Quiet, Sample, Tensor, Threads
from .shell import progress_bar, reporting
from .text import shown_path, speed
from .writing import final_name, finished_name

__all__ = ["verify"]


def verify(
    path: Path,
    recipe: Annotated[
        str | None, typer.Option(metavar="FILE", help="Compare with this file's recipe, not with PATH's own.")
    ] = None,
    tensor: Tensor = None,
    sample: Sample = None,
    report: Annotated[
        str | None, typer.Option(metavar="FILE", help="Write a new .npy file of bools: which rows differ.")
    ] = None,
    threads: Threads = None,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Recompute a file and list the rows that differ.

    PATH is a .npy, .bin or .safetensors file, or an index of several. In a trained table, the rows that differ are
    those that training has changed.

    Example: xavierfast verify trained.npy --recipe items.npy --report rows.npy
    """
    with reporting(final_name(path), *([recipe] if recipe else [])):
        path = finished_name(path)
        begin = perf_counter()
        with progress_bar(path, quiet or as_json) as progress:
            found = files.verify(
                path, recipe, tensor=tensor, sample=sample, report=report, threads=threads, progress=progress
            )
        seconds = perf_counter() - begin
        if as_json:
            print(json.dumps({"path": path, "ok": found.ok, "seconds": seconds, **asdict(found)}))
        elif not quiet:
            for line in difference_lines(path, found, "differ"):
                print(line)
            compared = "the sample matches" if sample else "all values match"
            state = f"{compared} the recipe" if found.ok else "does not match the recipe"
            print(f"{shown_path(path)}: {state}, {speed(found.nbytes, seconds)}")
        if not found.ok:
            raise typer.Exit(Exit.DIFFERENCE)

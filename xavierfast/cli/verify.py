"""The command ``verify``."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from time import perf_counter
from typing import Annotated

import typer

from .. import files
from .options import Json, Quiet, Sample, Tensor, Threads
from .shell import Exit, progress_bar, reporting
from .text import printable, speed


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
    with reporting(path, *([recipe] if recipe else [])):
        begin = perf_counter()
        with progress_bar(path, quiet or as_json) as progress:
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
    print_differences(path, found.tensors, "differ")
    if found.extra:
        print(printable(f"{path}: {found.extra:,} bytes after the last tensor"))
    compared = "the sample matches" if sample else "all values match"
    state = f"{compared} the recipe" if found.ok else "does not match the recipe"
    print(f"{printable(path)}: {state}, {speed(found.nbytes, seconds)}")


def print_differences(path: str, checks: Sequence[files.TensorCheck], how: str) -> None:
    for check in checks:
        name = f"{path}: {check.name}" if check.name else path
        if check.problem:
            print(printable(f"{name}: {check.problem}"))
        elif check.differ:
            shown = check.ranges[:10]
            listed = ", ".join(f"{first:,}:{last:,}".replace(",", "_") for first, last in shown)
            rest = check.differ - sum(last - first for first, last in shown)
            listed += f" and {rest:,} more" if rest else ""
            print(printable(f"{name}: {check.differ:,} of {check.rows:,} rows {how}: {listed}"))

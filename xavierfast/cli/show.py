"""The command ``show``."""

import json
from collections.abc import Sequence
from math import sqrt
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Column
from rich.table import Table as Grid

from .. import files
from .._core.recipe import to_json
from .options import Json, Quiet, Sample, Tensor, Threads
from .shell import progress_bar, reporting
from .text import printable


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
    with reporting(path):
        with progress_bar(path, quiet or as_json) as progress:
            found = files.measure(path, tensor=tensor, sample=sample, threads=threads, progress=progress)
        if plot is not None:
            from ..propagation.plots import plot_histogram

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
        console.print(escape(printable(table.describe())))
    else:
        shape = f"{stats.shape} of {stats.dtype}, {stats.nbytes:,} bytes"
        console.print(escape(printable(f"{stats.name or 'tensor'} {shape}, no recipe")))
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
            escape(printable(stats.name)),
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

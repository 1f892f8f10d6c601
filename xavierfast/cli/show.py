"""The command ``show``."""

import json
from collections.abc import Sequence
from math import sqrt
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Column
from rich.table import Table as Grid
from rich.text import Text

from .. import files
from .._core.recipe import to_json
from .options import Json, Path, Quiet, Sample, Tensor, Threads
from .shell import progress_bar, reporting
from .text import printable, shown_name
from .writing import figures, final_name, finished_name

__all__ = ["show"]

TITLES = ("tensor", "shape", "dtype", "bytes", "mean", "std", "recipe's std", "min", "max")
# More tensors than these are printed as plain lines.
MOST_IN_GRID = 1000


def show(
    path: Path,
    tensor: Tensor = None,
    sample: Sample = None,
    plot: Annotated[
        str | None, typer.Option(metavar="FILE", help="Draw a histogram to a new .png, .svg or .pdf file.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Let --plot replace an existing file.")] = False,
    threads: Threads = None,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Measure the values of a file.

    PATH is a .npy, .bin or .safetensors file, or an index of several. Mean, standard deviation, extremes and a
    histogram are printed, and beside them what the recipe predicts.
    """
    with reporting(final_name(path)):
        path = finished_name(path)
        if plot is not None:
            from ..propagation.plots import check_image

            check_image(plot, force)
        with progress_bar(path, quiet or as_json) as progress:
            found = files.measure(path, tensor=tensor, sample=sample, threads=threads, progress=progress)
        if plot is not None:
            if len(found) != 1:
                raise ValueError(f"a plot shows one tensor, got {len(found)}: choose one with --tensor")
            from ..propagation.plots import plot_histogram

            plot_histogram(found[0], plot, force)
        if as_json:
            print(json.dumps({"path": path, "tensors": [_stats_for_json(stats) for stats in found]}))
        elif not quiet:
            console = Console(highlight=False, markup=False, emoji=False, soft_wrap=True)
            if not console.is_terminal:
                console.width = 200  # a pipe has no edge to wrap at
            if len(found) == 1:
                _print_stats(console, found[0])
            elif len(found) <= MOST_IN_GRID:
                console.print(_summary(found))
            else:
                _print_lines(found)


def _stats_for_json(stats: files.TensorStats) -> dict[str, Any]:
    table = stats.table
    expected = None if table is None else figures(table) | {"recipe": table.recipe}
    fields = {name: getattr(stats, name) for name in ("name", "shape", "dtype", "nbytes", "count")}
    measured = {name: to_json(getattr(stats, name)) for name in ("mean", "std", "low", "high")}
    return {**fields, **measured, "histogram": stats.histogram, "edges": stats.edges, "expected": expected}


def _print_stats(console: Console, stats: files.TensorStats) -> None:
    table = stats.table
    if table is not None:
        # The name of a hostile recipe could fill lines of a terminal: it is cut as elsewhere.
        first, *others = table.describe().split("\n")
        name = shown_name(table.name)
        first = first.replace(repr(table.name), name if name[:1] in "'\"" else repr(table.name))
        console.print("\n".join(map(printable, [first, *others])))
    else:
        shape = f"{stats.shape} of {stats.dtype}, {stats.nbytes:,} bytes"
        console.print(f"{shown_name(stats.name) if stats.name else 'tensor'} {printable(shape)}, no recipe")
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
    columns = (Column(title, **right) for title in TITLES[3:])  # type: ignore[arg-type]
    grid = Grid(Column("tensor", overflow="fold"), "shape", "dtype", *columns, box=None)
    for stats in found:
        grid.add_row(_cell(stats.name), *_cells(stats))
    return grid


def _print_lines(found: Sequence[files.TensorStats]) -> None:
    """The summary of very many tensors, for each of which rich would take a millisecond."""
    rows = [TITLES, *((shown_name(stats.name), *_cells(stats)) for stats in found)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        texts, numbers = zip(row[:3], widths, strict=False), zip(row[3:], widths[3:], strict=True)
        cells = [cell.ljust(width) for cell, width in texts] + [cell.rjust(width) for cell, width in numbers]
        print(f" {'  '.join(cells).rstrip()}")


def _cells(stats: files.TensorStats) -> tuple[str, ...]:
    """What follows the name in a line of the summary."""
    expected = "" if stats.table is None else f"{stats.table.std:.4g}"
    measured = (stats.mean, stats.std, stats.low, stats.high) if stats.count else ()
    mean, std, low, high = (f"{number:.4g}" for number in measured) if measured else ("",) * 4
    shape = "x".join(map(str, stats.shape))
    return shape, printable(stats.dtype), f"{stats.nbytes:,}", mean, std, expected, low, high


def _cell(name: str) -> Text:
    """A name as a cell: folded if it is plain, else cut, since the rest of it on another line could look like a row."""
    shown = shown_name(name)
    return Text(shown) if shown == name else Text(shown, no_wrap=True, overflow="ellipsis")

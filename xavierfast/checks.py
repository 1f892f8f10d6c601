"""Files that are there, whoever made them: what they claim to be, and what they are."""

import os
import random
import re
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from errno import ENOENT
from math import isfinite, prod, sqrt
from typing import Any, NamedTuple

import numpy as np

from .disk import exists, folder_of, open_file, pread, pwrite, read_json
from .distributions import DTYPES, storage
from .fans import check_count
from .fill import Array, check_threads
from .formats import (
    FormatError,
    Tables,
    Tensor,
    format_of_path,
    named,
    npy_header,
    read_image,
    tables_from_recipes,
    write_image,
)
from .pieces import BLOCK, Buffers, Check, Pieces, Progress, Span, differences, for_each, ranges_of
from .table import Table, item_size

# Elements, in blocks all over the tensors, that the histograms of `inspect` look at.
HISTOGRAM = 1 << 23


# ---- verify


@dataclass(frozen=True)
class Verification:
    """What :func:`verify` found."""

    tensors: tuple[Check, ...]
    nbytes: int  # that were recomputed and compared
    extra: int = 0  # bytes behind the last tensor

    @property
    def ok(self) -> bool:
        return not self.extra and not any(check.differ or check.problem for check in self.tensors)


def verify(
    path: str | os.PathLike[str],
    recipe: Tables | str | os.PathLike[str] | None = None,
    *,
    tensor: str | None = None,
    sample: int | None = None,
    report: str | os.PathLike[str] | None = None,
    threads: int | None = None,
    progress: Progress | None = None,
) -> Verification:
    """Recompute a table on disk and say which of its rows differ.

    Parameters
    ----------
    path : str or path
        A file that :func:`create` made, a set of shards by its index or by the name that it was created with, or any
        other .npy, .safetensors or .bin file: which rows has training not touched?
    recipe : Table, mapping of names to Tables, or path, optional
        What it should be, or a file that knows; by default what it says itself, or its sidecar.
    tensor : str, optional
        Look at this one alone.
    sample : int, optional
        Look at so many blocks of 1 MiB, chosen at random.
    report : str or path, optional
        Write a .npy file of bools there, one a row of the one tensor: whether it differs. It must not exist.
    threads, progress
        As in :func:`create`.

    Returns
    -------
    Verification

    Raises
    ------
    FileNotFoundError
        If there is no file, or no recipe for it.
    FormatError
        If the header or the recipe is not as it should be.
    OSError, TypeError, ValueError
        As in :func:`create`.

    Examples
    --------
    >>> from xavierfast.files import create
    >>> create("trained.npy", Table((1000, 64), seed=7, name="items"))
    256000
    >>> trained = np.load("trained.npy", mmap_mode="r+")
    >>> trained[[3, 10, 11, 12]] += 0.5
    >>> found = verify("trained.npy")
    >>> found.ok, found.tensors[0].differ, found.tensors[0].ranges
    (False, 4, ((3, 4), (10, 13)))
    """
    check_threads(threads)
    if sample is not None:
        sample = check_count("sample", sample)
    expected = None if recipe is None else tables_of(recipe) if isinstance(recipe, str | os.PathLike) else named(recipe)
    with _opened(path) as files:
        spans, checks, extra = [], [], 0
        wanted: set[str] = set()
        for file in files:
            tables = file.recorded() if expected is None else expected
            entries = file.entries(tables)
            wanted |= tables.keys()
            extra += max(0, file.size - max([len(file.image.header), *(entry.tensor.end for entry in entries)]))
            for entry in entries:
                if tensor not in (None, entry.tensor.name):
                    continue
                if entry.problem:
                    checks.append(Check(entry.tensor.name, entry.tensor.rows, 0, problem=entry.problem))
                else:
                    spans.append(entry.span())
        names = {check.name for check in checks} | {span.tensor.name for span in spans}
        if tensor is not None and not names:
            raise ValueError(f"tensor must be the name of one in the file, got {tensor!r}")
        if tensor is None:
            checks += [Check(name, 0, 0, problem="it is missing") for name in sorted(wanted - names)]
        pieces = Pieces(spans)
        chosen = _choose(pieces, sample)
        with _row_report(report, spans) as mark:
            found = differences(pieces, threads, progress, chosen, mark)
    return Verification((*(difference.check() for difference in found), *checks), pieces.bytes_of(chosen), extra)


def _choose(pieces: Pieces, sample: int | None) -> list[int] | None:
    if sample is None or sample >= len(pieces):
        return None
    return sorted(random.SystemRandom().sample(range(len(pieces)), sample))


@contextmanager
def _row_report(path: str | os.PathLike[str] | None, spans: list[Span]) -> Iterator[Callable[[Array], None] | None]:
    """A function that marks rows in a .npy file of bools."""
    if path is None:
        yield None
        return
    if len(spans) != 1:
        raise ValueError(f"a report is of the rows of one tensor, got {len(spans)}: choose one with tensor=")
    if format_of_path(os.fspath(path)) != ".npy":
        raise ValueError(f"a report is a .npy file, got {os.fspath(path)!r}")
    rows = spans[0].tensor.rows
    header = npy_header((rows,), "|b1")
    if len(header) + rows >= 1 << 63:
        raise ValueError(f"a report of {rows:,} rows is larger than a file can be")
    with folder_of(path) as (folder, name):
        fd = open_file(folder, name, os.O_RDWR | os.O_CREAT | os.O_EXCL)
        try:
            os.ftruncate(fd, len(header) + rows)

            def write(differ: Array) -> None:
                for first, last in ranges_of(differ):
                    pwrite(fd, memoryview(b"\1" * (last - first)), len(header) + first)

            yield write
            pwrite(fd, memoryview(header), 0)
        except BaseException:
            os.unlink(name, dir_fd=folder)
            raise
        finally:
            os.close(fd)


# ---- files that are there, whoever made them


class _File:
    """An open file of tensors."""

    def __init__(self, folder: int, name: str) -> None:
        self.folder, self.name, self.ending = folder, name, format_of_path(name)
        self.fd = open_file(folder, name, os.O_RDONLY, follow=True)
        try:
            self.size = os.fstat(self.fd).st_size
            self.image = read_image(self.ending, self.fd, self.size)
        except BaseException as error:
            os.close(self.fd)
            error.add_note(f"in {name}")
            raise

    def recorded(self) -> dict[str, Table]:
        """The tables that its recipes, or that in its sidecar, describe."""
        if self.ending == ".safetensors" and self.image.recipes:
            return tables_from_recipes(self.image.recipes)
        sidecar = f"{self.name}.recipe.json"
        try:
            table = tables_from_recipes({"": read_json(self.folder, sidecar, follow=True)})[""]
        except FileNotFoundError:
            raise FileNotFoundError(ENOENT, f"its recipe is not known: {sidecar} is missing", self.name) from None
        return {table.name: table}

    def entries(self, tables: Mapping[str, Table]) -> "list[_Entry]":
        """Its tensors, each with the table that it should be of."""
        if self.ending == ".safetensors":
            return [_Entry(self.fd, tensor, tables.get(tensor.name)) for tensor in self.image.tensors]
        if len(tables) > 1:
            raise ValueError(f"{self.name} holds one tensor, got recipes of {len(tables)}")
        (tensor,) = self.image.tensors
        if not tables:
            return [_Entry(self.fd, tensor, None)]
        ((name, table),) = tables.items()
        if self.ending == ".bin":  # which says nothing itself
            (tensor,) = write_image(self.ending, tables).tensors
        return [_Entry(self.fd, tensor._replace(name=name), table)]


class _Entry(NamedTuple):
    fd: int
    tensor: Tensor
    table: Table | None

    @property
    def problem(self) -> str:
        """What keeps it from being compared."""
        if self.table is None:
            return "it has no recipe"
        dtype = self.table.dtype_name
        if self.tensor.shape != self.table.shape:
            return f"its shape is {self.tensor.shape}, and that of its recipe {self.table.shape}"
        if self.tensor.dtype not in (dtype, f"|V{self.table.itemsize}"):  # NumPy's name for those of ml_dtypes
            return f"it holds {self.tensor.dtype}, and its recipe {dtype}"
        return ""

    def span(self) -> Span:
        tensor, table = self.tensor, None if self.problem else self.table
        if table is not None:
            tensor = tensor._replace(dtype=table.dtype_name)
        itemsize = item_size(tensor.dtype) if tensor.dtype in DTYPES else np.dtype(tensor.dtype).itemsize
        # A file may claim more than it holds: its last whole row ends the work.
        row = prod(tensor.shape[1:])
        held = max(0, os.fstat(self.fd).st_size - tensor.begin) // (row * itemsize or 1) * row
        return Span(self.fd, tensor, table, 0, min(held, prod(tensor.shape)), itemsize)


@contextmanager
def _opened(path: str | os.PathLike[str]) -> Iterator[list[_File]]:
    """The file of a path, or those of its index."""
    with folder_of(path) as (folder, name), ExitStack() as stack:
        index = name if name.endswith(".index.json") else f"{name}.index.json"
        if index == name or (not exists(folder, name) and exists(folder, index)):
            names = _indexed(folder, index)
        elif not exists(folder, name) and exists(folder, f"{name}.partial"):
            raise FileNotFoundError(ENOENT, f"it is unfinished: resume {name}.partial", name)
        else:
            names = [name]
        files = []
        for name in names:
            files.append(_File(folder, name))
            stack.callback(os.close, files[-1].fd)
        yield files


def _indexed(folder: int, index: str) -> list[str]:
    fields = read_json(folder, index, follow=True)
    weights = fields.get("weight_map") if isinstance(fields, dict) else None
    if not isinstance(weights, dict) or not weights:
        raise FormatError(f"{index} must map names to files in its weight_map")
    names = set(map(str, weights.values()))
    for name in names:
        if not re.fullmatch(r"[^/\\\0]+\.safetensors", name):
            raise FormatError(f"{index} must name .safetensors files in its own folder, got {name!r:.80}")
    return sorted(names)


def tensors_of(path: str | os.PathLike[str]) -> list[Tensor]:
    """Names, shapes and dtypes in a file, from its header."""
    with _opened(path) as files:
        return [tensor for file in files for tensor in file.image.tensors]


def tables_of(path: str | os.PathLike[str]) -> dict[str, Table]:
    """The Tables, by name, that a file was created from; the file's values are not read.

    Parameters
    ----------
    path : str or path
        A .npy, .safetensors or .bin file or an index, with its recipes, or a .recipe.json by itself.

    Examples
    --------
    >>> from xavierfast.files import create
    >>> create("rows.npy", Table((1000, 64), seed=7, name="items"))
    256000
    >>> tables_of("rows.npy")
    {'items': Table((1000, 64), 'xavier_uniform', seed=7, name='items')}
    """
    if os.fspath(path).endswith(".recipe.json"):
        with folder_of(path) as (folder, name):
            table = tables_from_recipes({"": read_json(folder, name, follow=True)})[""]
        return {table.name: table}
    with _opened(path) as files:
        return {name: table for file in files for name, table in file.recorded().items()}


def load(path: str | os.PathLike[str], mmap_mode: Any = None) -> Array:
    """The array of a .npy or .bin file in the dtype of its recipe, bfloat16 and float8 too.

    NumPy's format has no name for the dtypes of ml_dtypes, so ``numpy.load`` gives them as void. For .safetensors there
    is ``safetensors.numpy.load_file``.

    Parameters
    ----------
    path : str or path
    mmap_mode : {"r", "r+", "c"}, optional
        As in ``numpy.load``.

    Raises
    ------
    FormatError
        If the file is shorter or of another shape or dtype than its recipe says.
    FileNotFoundError, OSError, ValueError
        As in :func:`verify`.

    Examples
    --------
    >>> from xavierfast.files import create
    >>> create("half.npy", Table((1000, 64), seed=7, dtype="bfloat16"))
    128000
    >>> np.load("half.npy").dtype, load("half.npy", mmap_mode="r").dtype
    (dtype('V2'), dtype(bfloat16))
    """
    path = os.fsdecode(path)
    if format_of_path(path) == ".safetensors":
        raise ValueError(f"load reads .npy and .bin, got {path!r}: use safetensors.numpy.load_file")
    if mmap_mode not in (None, "r", "r+", "c"):
        raise ValueError(f"mmap_mode must be None, 'r', 'r+' or 'c', got {mmap_mode!r}")
    with _opened(path) as (file,):
        (entry,) = file.entries(file.recorded())
        if entry.problem:
            raise FormatError(f"{path} must be as its recipe says: {entry.problem}")
        span, size = entry.span(), file.size
    if size < span.tensor.end:
        raise FormatError(f"{path} must have {span.tensor.end:,} bytes, got {size:,}")
    shape, dtype, begin = span.tensor.shape, storage(span.tensor.dtype), span.tensor.begin
    if not span.last:  # which nothing can map
        return np.empty(shape, dtype)
    if mmap_mode is None:
        return np.fromfile(path, dtype, span.last, offset=begin).reshape(shape)
    return np.memmap(path, dtype, mmap_mode, begin, shape)


# ---- inspect


@dataclass(frozen=True)
class Figures:
    """What :func:`inspect` measured of one tensor: of complex numbers, of their real and imaginary parts."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    nbytes: int
    table: Table | None  # of its recipe, if it has one
    count: int = 0  # numbers that were measured
    mean: float = 0.0
    std: float = 0.0
    low: float = 0.0
    high: float = 0.0
    histogram: tuple[int, ...] = ()  # counts of an even sample, in bins of equal width
    edges: tuple[float, float] = (0.0, 0.0)  # of the first and the last bin


class _Moments:
    """Count, mean, sum of squared deviations and extremes (Chan, Golub and LeVeque 1979)."""

    def __init__(self) -> None:
        self.count, self.mean, self.square, self.low, self.high = 0, 0.0, 0.0, float("inf"), float("-inf")

    def add(self, count: int, mean: float, square: float, low: float, high: float) -> None:
        total, shift = self.count + count, mean - self.mean
        self.square += square + shift * shift * self.count * count / total
        self.mean += shift * count / total
        self.count = total
        self.low, self.high = float(np.minimum(self.low, low)), float(np.maximum(self.high, high))  # NaN, if one is


def _numbers(data: Array, dtype: str) -> Array:
    """Bytes as real numbers."""
    if dtype == "bfloat16":
        return (data.view(np.uint16).astype(np.uint32) << 16).view(np.float32)
    kind = storage(dtype) if dtype in DTYPES else np.dtype(dtype)
    numbers: Array = data.view(kind)
    if kind.kind == "c":
        return numbers.view(numbers.real.dtype)
    return (
        numbers
        if kind.kind == "f" and kind.itemsize > 1
        else numbers.astype(np.float32 if kind.itemsize == 1 else float)
    )


def _is_number(dtype: str) -> bool:
    try:
        return dtype in DTYPES or (dtype.islower() and np.dtype(dtype).kind in "biufc")
    except TypeError:
        return False


def inspect(
    path: str | os.PathLike[str],
    *,
    tensor: str | None = None,
    sample: int | None = None,
    bins: int = 32,
    threads: int | None = None,
    progress: Progress | None = None,
) -> tuple[Figures, ...]:
    """Measure the tensors of a file, whoever made it: mean, standard deviation, extremes, histogram.

    Parameters
    ----------
    path, tensor, sample
        As in :func:`verify`.
    bins : int
        Of the histogram: over the distribution's bounds, or 4 standard deviations of it; without a recipe over what
        was measured.
    threads, progress
        As in :func:`create`.

    Returns
    -------
    tuple of Figures
        A tensor that does not hold numbers has a count of 0.

    Examples
    --------
    >>> from xavierfast.files import create
    >>> create("weights.npy", Table((1000, 64), seed=7))
    256000
    >>> (figures,) = inspect("weights.npy")
    >>> f"{figures.std:.5f} of {figures.table.std:.5f}, {figures.high:.5f} of {figures.table.bound:.5f}"
    '0.04338 of 0.04336, 0.07509 of 0.07509'
    """
    bins = check_count("bins", bins)
    check_threads(threads)
    if sample is not None:
        sample = check_count("sample", sample)
    with _opened(path) as files:
        spans, others = [], []
        for file in files:
            try:
                tables = file.recorded()
            except FileNotFoundError:
                tables = {}
            for entry in file.entries(tables):
                _, (name, shape, dtype, begin, end), _ = entry
                if tensor not in (None, name):
                    continue
                if entry.problem and not _is_number(dtype):
                    others.append(Figures(name, shape, dtype, end - begin, None))
                else:
                    spans.append(entry.span())
        if tensor is not None and not spans + others:
            raise ValueError(f"tensor must be the name of one in the file, got {tensor!r}")
        return (*_measure(spans, sample, bins, threads, progress), *others)


def _measure(
    spans: list[Span], sample: int | None, bins: int, threads: int | None, progress: Progress | None
) -> list[Figures]:
    pieces = Pieces(spans)
    chosen = _choose(pieces, sample)
    moments = {(span.fd, span.tensor.name): _Moments() for span in spans}
    lock = threading.Lock()

    def read(span: Span, first: int, last: int, buffers: Buffers) -> Array:
        data = buffers.read[: (last - first) * span.itemsize]
        count = pread(span.fd, data.data, span.tensor.begin + first * span.itemsize)
        return _numbers(data[: count - count % span.itemsize], span.tensor.dtype)

    def measure(span: Span, first: int, last: int, buffers: Buffers) -> None:
        numbers = read(span, first, last, buffers)
        if not numbers.size:
            return
        with np.errstate(all="ignore"):  # what is infinite or too large shows in the figures
            low, high = float(numbers.min()), float(numbers.max())
            deviations = numbers.astype(float)
            mean = float(deviations.mean())
            deviations -= mean
            np.square(deviations, out=deviations)
            square = float(deviations.sum())
        with lock:
            moments[span.fd, span.tensor.name].add(numbers.size, mean, square, low, high)

    for_each(pieces, measure, threads, progress, chosen)
    counts: dict[tuple[int, str], Array] = {}
    edges = {}
    for span in spans:
        where = span.fd, span.tensor.name
        edges[where] = _edges(span.table, moments[where])
        counts[where] = np.zeros(bins, np.int64)

    def count(span: Span, first: int, last: int, buffers: Buffers) -> None:
        where = span.fd, span.tensor.name
        numbers = read(span, first, last, buffers)
        low, high = edges[where]
        inside = numbers[(low <= numbers) & (numbers <= high)].astype(float)
        places = (inside / 2 - low / 2) * (bins / (high / 2 - low / 2))  # halves: their difference is finite
        found = np.bincount(np.minimum(places.astype(np.int64), bins - 1), minlength=bins)
        with lock:
            counts[where] += found

    numbers = range(len(pieces)) if chosen is None else chosen
    some = numbers[:: max(1, len(numbers) * BLOCK // HISTOGRAM)]
    for_each(pieces, count, threads, None, some)
    figures = []
    for span in spans:
        where = span.fd, span.tensor.name
        m = moments[where]
        tensor = span.tensor
        figure = Figures(tensor.name, tensor.shape, tensor.dtype, tensor.end - tensor.begin, span.table)
        if m.count:
            histogram = tuple(counts[where].tolist())
            figure = replace(
                figure, count=m.count, mean=m.mean, std=sqrt(m.square / m.count), low=m.low, high=m.high,
                histogram=histogram, edges=edges[where],
            )  # fmt: skip
        figures.append(figure)
    return figures


def _edges(table: Table | None, moments: _Moments) -> tuple[float, float]:
    """The range of a histogram."""
    low, high = moments.low, moments.high
    if table is not None and (table.std or table.bound):
        mean, std = table.mean.real, table.std
        ends = table.support
        low, high = (end if isfinite(end) else mean + side * std for side, end in zip((-4, 4), ends, strict=True))
    if not (isfinite(low) and isfinite(high)):
        low, high = -1.0, 1.0
    if high / 2 - low / 2 > 1e-12 * max(abs(low), abs(high), 1e-290):
        return low, high
    margin = max(0.5, 1e-3 * abs(low))
    return max(low - margin, -1.7e308), min(high + margin, 1.7e308)

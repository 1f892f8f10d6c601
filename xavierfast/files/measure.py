"""Statistics of the tensors in a file: moments, extremes and histograms, to be compared with the recipes' values."""

import os
import threading
from dataclasses import dataclass, replace
from math import isfinite, sqrt

import numpy as np

from .._core.dtypes import DTYPES
from .._core.fill import Array
from .._core.validation import check_count, check_threads
from ..table import Table
from .blocks import BLOCK_BYTES, Blocks, Buffers, Progress, Span, choose_blocks, for_each
from .handles import File
from .reader import is_number, opened

__all__ = ["TensorStats", "measure"]

# About this many bytes are read for the histograms, in blocks spread evenly over the tensors.
HISTOGRAM_BYTES = 1 << 23


@dataclass(frozen=True)
class TensorStats:
    """The result of :func:`measure` for one tensor. Complex numbers are measured as their real and imaginary parts."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    nbytes: int
    table: Table | None  # the table of its recipe, if it has one
    count: int = 0  # the number of numbers measured
    mean: float = 0.0
    std: float = 0.0
    low: float = 0.0
    high: float = 0.0
    histogram: tuple[int, ...] = ()  # counts of an evenly spread sample, in bins of equal width
    edges: tuple[float, float] = (0.0, 0.0)  # the lower edge of the first bin and the upper edge of the last


class _Moments:
    """Count, mean, sum of squared deviations and extremes (Chan, Golub and LeVeque 1979)."""

    def __init__(self) -> None:
        self.count, self.mean, self.square, self.low, self.high = 0, 0.0, 0.0, float("inf"), float("-inf")

    def add(self, count: int, mean: float, square: float, low: float, high: float) -> None:
        total, shift = self.count + count, mean - self.mean
        self.square += square + shift * shift * self.count * count / total
        self.mean += shift * count / total
        self.count = total
        self.low, self.high = float(np.minimum(self.low, low)), float(np.maximum(self.high, high))  # NaN if any is


def _numbers(data: Array, dtype: str) -> Array:
    """Convert a tensor's bytes to real numbers; a complex number gives two."""
    if dtype == "bfloat16":
        return (data.view(np.uint16).astype(np.uint32) << 16).view(np.float32)
    kind = DTYPES[dtype].storage if dtype in DTYPES else np.dtype(dtype)
    numbers: Array = data.view(kind)
    if kind.kind == "c":
        return numbers.view(f"f{kind.itemsize // 2}")
    return (
        numbers
        if kind.kind == "f" and kind.itemsize > 1
        else numbers.astype(np.float32 if kind.itemsize == 1 else float)
    )


def measure(
    path: str | os.PathLike[str],
    *,
    tensor: str | None = None,
    sample: int | None = None,
    bins: int = 32,
    threads: int | None = None,
    progress: Progress | None = None,
) -> tuple[TensorStats, ...]:
    """Measure the tensors of any file, created by this package or not: mean, standard deviation, extremes, histogram.

    Parameters
    ----------
    path, tensor, sample
        As in :func:`verify`.
    bins : int
        The number of bins of the histogram. The histogram spans the distribution's bounds or, for an unbounded
        distribution, 4 standard deviations to each side of the mean; without a recipe, the range of the measured
        numbers.
    threads, progress
        As in :func:`create`.

    Returns
    -------
    tuple of TensorStats
        One for each tensor. A tensor that does not hold numbers has a count of 0.

    Raises
    ------
    FormatError, OSError, TypeError, ValueError
        As in :func:`verify`, but a file without a recipe is no error.

    Examples
    --------
    >>> from xavierfast.files import create
    >>> create("weights.npy", Table((1000, 64), seed=7))
    256000
    >>> (stats,) = measure("weights.npy")
    >>> f"{stats.std:.5f} of {stats.table.std:.5f}, {stats.high:.5f} of {stats.table.bound:.5f}"
    '0.04338 of 0.04336, 0.07509 of 0.07509'
    """
    bins = check_count("bins", bins)
    check_threads(threads)
    if sample is not None:
        sample = check_count("sample", sample)
    with opened(path) as files:
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
                if entry.problem and not is_number(dtype):
                    others.append(TensorStats(name, shape, dtype, end - begin, None))
                else:
                    spans.append(entry.span())
        if tensor is not None and not spans + others:
            raise ValueError(f"tensor must be the name of a tensor in the file, got {tensor!r}")
        return (*_measure(spans, sample, bins, threads, progress), *others)


def _measure(
    spans: list[Span], sample: int | None, bins: int, threads: int | None, progress: Progress | None
) -> list[TensorStats]:
    blocks = Blocks(spans)
    chosen = choose_blocks(blocks, sample)
    moments = {(span.file, span.tensor.name): _Moments() for span in spans}
    lock = threading.Lock()

    def read(span: Span, first: int, last: int, buffers: Buffers) -> Array:
        data = buffers.read[: (last - first) * span.itemsize]
        count = span.file.read_into(data.data, span.tensor.begin + first * span.itemsize)
        return _numbers(data[: count - count % span.itemsize], span.tensor.dtype)

    def add_moments(span: Span, first: int, last: int, buffers: Buffers) -> None:
        numbers = read(span, first, last, buffers)
        if not numbers.size:
            return
        with np.errstate(all="ignore"):  # infinities and overflows show in the result
            low, high = float(numbers.min()), float(numbers.max())
            deviations = numbers.astype(float)
            mean = float(deviations.mean())
            deviations -= mean
            np.square(deviations, out=deviations)
            square = float(deviations.sum())
        with lock:
            moments[span.file, span.tensor.name].add(numbers.size, mean, square, low, high)

    for_each(blocks, add_moments, threads, progress, chosen)
    counts: dict[tuple[File, str], Array] = {}
    edges = {}
    for span in spans:
        where = span.file, span.tensor.name
        edges[where] = _edges(span.table, moments[where])
        counts[where] = np.zeros(bins, np.int64)

    def add_counts(span: Span, first: int, last: int, buffers: Buffers) -> None:
        where = span.file, span.tensor.name
        numbers = read(span, first, last, buffers)
        low, high = edges[where]
        inside = numbers[(low <= numbers) & (numbers <= high)].astype(float)
        places = (inside / 2 - low / 2) * (bins / (high / 2 - low / 2))  # halves, whose difference is finite
        found = np.bincount(np.minimum(places.astype(np.int64), bins - 1), minlength=bins)
        with lock:
            counts[where] += found

    numbers = range(len(blocks)) if chosen is None else chosen
    spread = numbers[:: max(1, len(numbers) * BLOCK_BYTES // HISTOGRAM_BYTES)]
    for_each(blocks, add_counts, threads, None, spread)
    results = []
    for span in spans:
        where = span.file, span.tensor.name
        m = moments[where]
        tensor = span.tensor
        stats = TensorStats(tensor.name, tensor.shape, tensor.dtype, tensor.end - tensor.begin, span.table)
        if m.count:
            histogram = tuple(counts[where].tolist())
            stats = replace(
                stats, count=m.count, mean=m.mean, std=sqrt(m.square / m.count), low=m.low, high=m.high,
                histogram=histogram, edges=edges[where],
            )  # fmt: skip
        results.append(stats)
    return results


def _edges(table: Table | None, moments: _Moments) -> tuple[float, float]:
    """The lower and the upper end of a histogram."""
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

"""Tensors in files, in pieces that a cache holds, on all cores: recomputed, and compared with what is there."""

import random
import threading
from bisect import bisect_right
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from math import prod
from typing import NamedTuple

import numpy as np

from .._core.fill import PARALLEL_MIN_BYTES, Array
from .._core.threads import parallel_for
from .._core.validation import check_threads
from ..table import Table
from .formats import Tensor
from .posix import pread

# Bytes of a buffer, which a core's cache holds beside what is copied: 9.4 GB/s of verifying on two cores of a Sapphire
# Rapids, against 8.7 with half of it, 7.6 with a quarter and 8.1 with twice. Writing does not care.
BLOCK = 1 << 20
# Ranges of rows that a Check lists.
MOST_RANGES = 1000

Progress = Callable[[int, int], None]


# ---- pieces of tensors, on all cores


class Span(NamedTuple):
    """Elements `first` to `last` of a tensor in an open file, and the table that they should be of."""

    fd: int
    tensor: Tensor
    table: Table | None
    first: int
    last: int
    itemsize: int

    @property
    def row(self) -> int:
        """Elements of an index of the first axis."""
        return prod(self.tensor.shape[1:])


class Pieces:
    """Spans in pieces of at most a block: of whole rows, unless a row is larger."""

    def __init__(self, spans: Iterable[Span]) -> None:
        self.spans = list(spans)
        self.steps = []
        counts = []
        for span in self.spans:
            rows = BLOCK // (span.row * span.itemsize) if span.row else 0
            self.steps.append(rows * span.row or BLOCK // span.itemsize)
            counts.append(-((span.first - span.last) // self.steps[-1]))
        self.starts = list(accumulate(counts, initial=0))

    def __len__(self) -> int:
        return self.starts[-1]

    def at(self, k: int) -> tuple[Span, int, int]:
        i = bisect_right(self.starts, k) - 1
        span, step = self.spans[i], self.steps[i]
        first = span.first + (k - self.starts[i]) * step
        return span, first, min(first + step, span.last)

    def bytes_of(self, chosen: Sequence[int] | None = None) -> int:
        if chosen is None:
            return sum((span.last - span.first) * span.itemsize for span in self.spans)
        return sum((last - first) * span.itemsize for span, first, last in map(self.at, chosen))


class Buffers(threading.local):
    """Each thread's own: what the table holds, and what the file does."""

    def __init__(self) -> None:
        self.made: Array = np.empty(BLOCK, np.uint8)
        self.read: Array = np.empty(BLOCK, np.uint8)


def choose_blocks(pieces: Pieces, sample: int | None) -> list[int] | None:
    if sample is None or sample >= len(pieces):
        return None
    return sorted(random.SystemRandom().sample(range(len(pieces)), sample))


def recompute(span: Span, first: int, last: int, buffer: Array) -> Array:
    assert span.table is not None
    return span.table._read_flat(first, buffer[: (last - first) * span.itemsize])


def read_piece(span: Span, first: int, last: int, buffer: Array) -> tuple[Array, bool]:
    """What the file has, and whether that is all, and as the table has it."""
    assert span.table is not None
    data = buffer[: (last - first) * span.itemsize]
    count = pread(span.fd, data.data, span.tensor.begin + first * span.itemsize)
    return data[:count], count == data.size and span.table._equals_flat(first, data)


def for_each(
    pieces: Pieces,
    work: Callable[[Span, int, int, Buffers], None],
    threads: int | None,
    progress: Progress | None,
    chosen: Sequence[int] | None = None,
) -> None:
    """Call `work` with each piece, or the chosen ones, from all threads."""
    numbers: Sequence[int] = range(len(pieces)) if chosen is None else chosen
    total = pieces.bytes_of(chosen)
    count = check_threads(threads)
    buffers, lock, done = Buffers(), threading.Lock(), 0

    def run(begin: int, end: int) -> None:
        nonlocal done
        for k in range(begin, end):
            span, first, last = pieces.at(numbers[k])
            work(span, first, last, buffers)
            if progress is not None:
                with lock:
                    done += (last - first) * span.itemsize
                    progress(done, total)

    if progress is not None:
        progress(0, total)
    parallel_for(len(numbers), 1, 1, count if total >= PARALLEL_MIN_BYTES else 1, run)


# ---- compare


@dataclass(frozen=True)
class Check:
    """What :func:`verify` found of one tensor. Rows are indices of its first axis."""

    name: str
    rows: int
    differ: int  # rows that differ, of those that were looked at
    ranges: tuple[tuple[int, int], ...] = ()  # them, from the first to before the last; the first 1000 ranges
    problem: str = ""  # why there was nothing to compare


class Difference:
    """Rows of one tensor that differ."""

    def __init__(self, span: Span) -> None:
        self.name, self.total = span.tensor.name, span.tensor.rows
        held = span.last // span.row if span.row else self.total  # whole rows of the file; what is missing differs
        self.row = span.row * span.itemsize
        # Of rows that are cut into pieces, each may be found more than once, and there are few.
        self.seen = np.zeros(held, bool) if self.row > BLOCK else None
        self.count = self.total - held
        self.ranges = [(held, self.total)] if self.count else []
        self.listed_until = self.total

    def rows(self, first_byte: int, made: Array, read: Array) -> Array:
        """The numbers of the rows in which two buffers differ, ascending."""
        differ: Array = made != read
        if self.row > BLOCK:
            return np.unique((first_byte + np.flatnonzero(differ)) // self.row)
        return first_byte // self.row + np.flatnonzero(differ.reshape(-1, self.row).any(axis=1))

    def add(self, rows: Array) -> None:
        if self.seen is not None:
            rows = rows[~self.seen[rows]]
            self.seen[rows] = True
        self.count += rows.size
        self.ranges += ranges_of(rows)
        if len(self.ranges) > 4 * MOST_RANGES:
            self.merge()

    def merge(self) -> None:
        """Join neighbours, and forget all behind the ranges that are listed."""
        merged: list[tuple[int, int]] = []
        for first, last in sorted(self.ranges):
            if first >= self.listed_until:
                break
            if merged and merged[-1][1] == first:
                merged[-1] = (merged[-1][0], last)
            else:
                merged.append((first, last))
        if len(merged) > 2 * MOST_RANGES:
            self.listed_until = merged[2 * MOST_RANGES][0]
            del merged[2 * MOST_RANGES :]
        self.ranges = merged

    def check(self) -> Check:
        self.merge()
        return Check(self.name, self.total, self.count, tuple(self.ranges[:MOST_RANGES]))


def ranges_of(rows: Array) -> list[tuple[int, int]]:
    """Ascending numbers as ranges."""
    if not rows.size:
        return []
    ends = np.flatnonzero(np.diff(rows) != 1)
    firsts, lasts = rows[np.r_[0, ends + 1]], rows[np.r_[ends, rows.size - 1]] + 1
    return list(zip(firsts.tolist(), lasts.tolist(), strict=True))


def differences(
    pieces: Pieces,
    threads: int | None,
    progress: Progress | None,
    chosen: Sequence[int] | None = None,
    report: Callable[[Array], None] | None = None,
) -> list[Difference]:
    """Of each span."""
    found = {(span.fd, span.tensor.name): Difference(span) for span in pieces.spans}
    lock = threading.Lock()

    def compare(span: Span, first: int, last: int, buffers: Buffers) -> None:
        read, equal = read_piece(span, first, last, buffers.read)
        if equal:
            return
        made = recompute(span, first, last, buffers.made)
        count, read = read.size, buffers.read[: made.size]
        np.invert(made[count:], out=read[count:])  # what is missing differs
        difference = found[span.fd, span.tensor.name]
        rows = difference.rows(first * span.itemsize, made, read)
        with lock:
            difference.add(rows)
        if report is not None:
            report(rows)

    for_each(pieces, compare, threads, progress, chosen)
    return list(found.values())

"""Tensors in files, cut into blocks that fit in a core's cache, recomputed on all cores and compared with the file."""

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
from .handles import File
from .row_ranges import RowRanges, ranges_of

# Bytes of a buffer; a core's cache holds it along with the data that is copied. Verifying reaches 9.4 GB/s on two cores
# of a Xeon with AVX-512, against 8.7 with half this size, 7.6 with a quarter and 8.1 with twice. Writing does not care.
BLOCK_BYTES = 1 << 20

Progress = Callable[[int, int], None]


# ---- blocks of tensors, on all cores


class Span(NamedTuple):
    """Elements `first` to before `last` of a tensor in a file, and the table that they should equal."""

    file: File
    tensor: Tensor
    table: Table | None
    first: int
    last: int
    itemsize: int

    @property
    def row(self) -> int:
        """The number of elements per index of the first axis."""
        return prod(self.tensor.shape[1:])


class Blocks:
    """Spans cut into blocks of at most BLOCK_BYTES: whole rows, or parts of a row that is larger than a block."""

    def __init__(self, spans: Iterable[Span]) -> None:
        self.spans = list(spans)
        self.steps = []
        counts = []
        for span in self.spans:
            rows = BLOCK_BYTES // (span.row * span.itemsize) if span.row else 0
            self.steps.append(rows * span.row or BLOCK_BYTES // span.itemsize)
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
    """Two buffers for each thread: `made` for the table's recomputed bytes, `read` for the file's bytes."""

    def __init__(self) -> None:
        self.made: Array = np.empty(BLOCK_BYTES, np.uint8)
        self.read: Array = np.empty(BLOCK_BYTES, np.uint8)


def choose_blocks(blocks: Blocks, sample: int | None) -> list[int] | None:
    if sample is None or sample >= len(blocks):
        return None
    return sorted(random.SystemRandom().sample(range(len(blocks)), sample))


def recompute(span: Span, first: int, last: int, buffer: Array) -> Array:
    assert span.table is not None
    return span.table._read_flat(first, buffer[: (last - first) * span.itemsize])


def read_block(span: Span, first: int, last: int, buffer: Array) -> tuple[Array, bool]:
    """Read a block; return its bytes, and whether it is complete and equal to the table's."""
    assert span.table is not None
    data = buffer[: (last - first) * span.itemsize]
    count = span.file.read_into(data.data, span.tensor.begin + first * span.itemsize)
    return data[:count], count == data.size and span.table._equals_flat(first, data)


def write_block(span: Span, first: int, last: int, buffers: Buffers) -> None:
    data = recompute(span, first, last, buffers.made)
    span.file.write(data.data, span.tensor.begin + first * span.itemsize)


def for_each(
    blocks: Blocks,
    work: Callable[[Span, int, int, Buffers], None],
    threads: int | None,
    progress: Progress | None,
    chosen: Sequence[int] | None = None,
) -> None:
    """Call `work` with each block, or with the `chosen` ones only, on several threads."""
    numbers: Sequence[int] = range(len(blocks)) if chosen is None else chosen
    total = blocks.bytes_of(chosen)
    count = check_threads(threads)
    buffers, lock, done = Buffers(), threading.Lock(), 0

    def run(begin: int, end: int) -> None:
        nonlocal done
        for k in range(begin, end):
            span, first, last = blocks.at(numbers[k])
            work(span, first, last, buffers)
            if progress is not None:
                with lock:
                    done += (last - first) * span.itemsize
                    progress(done, total)

    if progress is not None:
        progress(0, total)
    parallel_for(len(numbers), 1, 1, count if total >= PARALLEL_MIN_BYTES else 1, run)


def rewrite(blocks: Blocks, threads: int | None, progress: Progress | None) -> int:
    """Write the blocks that are not as they should be; return their bytes."""
    lock, written = threading.Lock(), 0

    def repair_block(span: Span, first: int, last: int, buffers: Buffers) -> None:
        nonlocal written
        if read_block(span, first, last, buffers.read)[1]:
            return
        write_block(span, first, last, buffers)
        with lock:
            written += (last - first) * span.itemsize

    for_each(blocks, repair_block, threads, progress)
    return written


def all_right(blocks: Blocks, threads: int | None, progress: Progress | None) -> bool:
    """Whether all blocks are complete and as they should be."""
    differs = False

    def look(span: Span, first: int, last: int, buffers: Buffers) -> None:
        nonlocal differs
        # A thread that finds its block right must not assign: another may have found one that differs meanwhile.
        if not differs and not read_block(span, first, last, buffers.read)[1]:
            differs = True

    for_each(blocks, look, threads, progress)
    return not differs


# ---- compare


@dataclass(frozen=True)
class TensorCheck:
    """The result of :func:`verify` for one tensor. Rows are indices of its first axis."""

    name: str
    rows: int
    differ: int  # the number of compared rows that differ
    ranges: tuple[tuple[int, int], ...] = ()  # these rows, each range from first to before last; at most 1000 ranges
    problem: str = ""  # the reason if nothing could be compared


def compare(
    blocks: Blocks,
    threads: int | None,
    progress: Progress | None,
    chosen: Sequence[int] | None = None,
    report: Callable[[Array], None] | None = None,
) -> list[TensorCheck]:
    """Recompute and compare all blocks, or the `chosen` ones; return one TensorCheck for each span.

    `report`, if given, is called from any thread with the ranges of the rows that differ in one block.
    """
    found: dict[tuple[File, str], RowRanges] = {}
    for span in blocks.spans:
        # A row that is longer than a block is compared in several.
        rows = found[span.file, span.tensor.name] = RowRanges(may_repeat=span.row * span.itemsize > BLOCK_BYTES)
        held = span.last // span.row if span.row else span.tensor.rows  # whole rows in the file; missing ones differ
        if held < span.tensor.rows:
            missing = np.array([[held, span.tensor.rows]])
            rows.add(missing)
            if report is not None:
                report(missing)
    lock = threading.Lock()

    def compare_block(span: Span, first: int, last: int, buffers: Buffers) -> None:
        read, equal = read_block(span, first, last, buffers.read)
        if equal:
            return
        made = recompute(span, first, last, buffers.made)
        count, read = read.size, buffers.read[: made.size]
        np.invert(made[count:], out=read[count:])  # bytes missing from the file count as different
        ranges = _differing_rows(span, first, made, read)
        with lock:
            found[span.file, span.tensor.name].add(ranges)
        if report is not None:
            report(ranges)

    for_each(blocks, compare_block, threads, progress, chosen)
    return [
        TensorCheck(span.tensor.name, span.tensor.rows, rows.count(), rows.first())
        for span, rows in zip(blocks.spans, found.values(), strict=True)
    ]


def _differing_rows(span: Span, first: int, made: Array, read: Array) -> Array:
    """The ranges of rows in which two buffers differ, whose first element has the number `first`."""
    differ, row, first_byte = made != read, span.row * span.itemsize, first * span.itemsize
    if row > BLOCK_BYTES:
        return ranges_of(np.unique((first_byte + np.flatnonzero(differ)) // row))
    return ranges_of(first_byte // row + np.flatnonzero(differ.reshape(-1, row).any(axis=1)))

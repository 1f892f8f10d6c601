"""Write elements of a sampler to an array: its memory, contiguous or strided, is cut at tiles and given to a kernel.

Kernels run without the GIL. The values of a piece depend only on its position, not on the thread that writes it.
"""

from struct import pack
from typing import Any, NamedTuple

import numpy as np

from .. import kernels
from .sampler import Sampler
from .threads import Work, parallel_for
from .validation import check_threads

__all__ = ["PARALLEL_MIN_BYTES", "Array", "Gather", "c_strides", "collapse", "fill"]

Array = np.ndarray[Any, np.dtype[Any]]
Strides = tuple[int, ...]

# Handing work to the pool and waiting for it takes 65 us on a 2-core Xeon (AVX-512). In that time one core draws 0.9
# MiB of uniforms or 0.4 MiB of normals. Threads with smaller pieces would meet at the GIL too often.
PARALLEL_MIN_BYTES = 1 << 21
PIECE_BYTES = 1 << 19
# Streaming stores pay where ordinary ones wait for memory: for arrays larger than the last-level cache (12.8 GB/s
# against 7.9 on one core of a Xeon (AVX-512), but 12.6 against 14.2 at 32 MiB), from kernels that are faster than
# memory, and into existing pages: a new page was just cleared, so it is in the cache (6.5 against 9.4 GB/s on two
# cores).
STREAMING_MIN_BYTES = 1 << 25
FASTER_THAN_MEMORY = {kernels.CONSTANT}
if kernels.level != "portable":
    FASTER_THAN_MEMORY |= {kernels.UNIFORM, kernels.RANGE}


class Gather(NamedTuple):
    """An axis whose index i selects ids[i]. `ids` are contiguous aligned int64s; negative ones count from `length`."""

    axis: int
    ids: Array
    length: int


def fill(
    sampler: Sampler,
    out: Array,
    position: int = 0,
    strides: Strides | None = None,
    gather: Gather | None = None,
    *,
    threads: int | None = None,
    new: bool = False,
) -> None:
    """Write elements of a sampler to `out`: index (i, j) gets element position + i * strides[0] + j * strides[1].

    Without `strides`, consecutive elements are written in the C order of `out`. `out` must be writable, of native byte
    order, and must not overlap itself; `new` means that its memory has not been touched yet.
    """
    n, size = out.size, out.itemsize
    if not n:
        return
    if type(out) is not np.ndarray:  # a masked array, a matrix: only the memory counts, not how it takes assignments
        out = np.asarray(out)
    if sampler.dtype.is_small:
        work = _cast_work(sampler, out, position, strides or c_strides(out.shape), gather)
    elif gather:
        strides = strides or c_strides(out.shape)
        work = _strided_work(sampler, kernels.address(out), out.shape, out.strides, position, strides, gather, out)
    elif strides is None and out.flags.c_contiguous:
        if out.nbytes < PARALLEL_MIN_BYTES:  # the short way of small calls
            sampler.fill(kernels.address(out), position, n)
            return
        work = _contiguous_work(sampler, out, position, new)
    else:
        strides = strides or c_strides(out.shape)
        if out.ndim > 1 and out.nbytes > PIECE_BYTES and abs(out.strides[-1]) > min(map(abs, out.strides)):
            _fill_blocks(sampler, out, position, strides, threads)
            return
        shape, memory_strides, strides = collapse(out.shape, out.strides, strides)
        if memory_strides == (size,) and strides == (1,):
            work = _contiguous_work(sampler, out, position, new)
        else:
            work = _strided_work(sampler, kernels.address(out), shape, memory_strides, position, strides, None, out)
    if out.nbytes < PARALLEL_MIN_BYTES:
        work(0, n)
    else:
        parallel_for(n, kernels.TILE, PIECE_BYTES // size, check_threads(threads), work)


def _contiguous_work(sampler: Sampler, out: Array, position: int, new: bool) -> Work:
    size, address = out.itemsize, kernels.address(out)
    streaming = out.nbytes > STREAMING_MIN_BYTES and sampler.kernel in FASTER_THAN_MEMORY and not new

    def work(begin: int, end: int, out: object = out) -> None:  # `out` stays alive while a helper writes
        sampler.fill(address + begin * size, position + begin, end - begin, streaming)

    return work


def _strided_work(
    sampler: Sampler,
    address: int,
    shape: tuple[int, ...],
    memory_strides: Strides,
    position: int,
    strides: Strides,
    gather: Gather | None,
    out: object,
) -> Work:
    if not shape:
        shape, memory_strides, strides = (1,), (0,), (1,)
    layout = pack(f"{3 * len(shape)}q", *shape, *memory_strides, *strides)
    ids = (gather.axis, kernels.address(gather.ids), gather.length) if gather else ()

    def work(begin: int, end: int, keep: object = (out, gather)) -> None:
        index = pack(f"{len(shape)}q", *_unravel(begin, shape))
        sampler.gather(address, position, end - begin, layout, index, *ids)

    return work


def _cast_work(sampler: Sampler, out: Array, position: int, strides: Strides, gather: Gather | None) -> Work:
    """The work for a one-byte dtype: blocks of float32 that fit into a cache, and are cast.

    No value is beyond the largest number of the dtype, since distributions refuse parameters that could give one.
    """
    memory_strides = tuple(4 * step for step in c_strides(out.shape))
    fewer_axes, strides_of_out, _ = collapse(out.shape, out.strides, c_strides(out.shape))
    # NumPy's .flat takes up to 32 axes, and its as_strided no dtype of ml_dtypes.
    flat = np.lib.stride_tricks.as_strided(out.view(np.uint8), fewer_axes, strides_of_out).view(out.dtype)

    def work(begin: int, end: int) -> None:
        rows = out.reshape(-1) if out.flags.c_contiguous else flat.flat
        for first in range(begin, end, PIECE_BYTES // 8):
            block = np.empty(min(PIECE_BYTES // 8, end - first), np.float32)
            start = kernels.address(block) - 4 * first  # where element 0 would be
            single = _strided_work(sampler, start, out.shape, memory_strides, position, strides, gather, block)
            single(first, first + block.size)
            rows[first : first + block.size] = block

    return work


def _fill_blocks(sampler: Sampler, out: Array, position: int, strides: Strides, threads: int | None) -> None:
    """Fill an array in an order such as Fortran's: NumPy copies blocks in C order, which fit into a cache, to `out`."""
    row = out[0].size
    if row * out.itemsize > PIECE_BYTES:
        for k, part in enumerate(out):
            fill(sampler, part, position + k * strides[0], strides[1:], threads=threads)
        return
    rows = PIECE_BYTES // (row * out.itemsize)
    if out.itemsize <= 8:
        out = out.view(np.dtype(f"u{out.itemsize}"))  # copies of ints do not need the GIL, those of ml_dtypes do

    def work(begin: int, end: int) -> None:
        for first in range(begin, end, rows):
            target = out[first : min(first + rows, end)]
            block = np.empty(target.shape, out.dtype)
            fill(sampler, block, position + first * strides[0], strides, threads=1)
            target[...] = block

    parallel_for(len(out), rows, rows, check_threads(threads), work)


def c_strides(shape: tuple[int, ...]) -> Strides:
    """The number of elements from one index to the next along each axis, in C order."""
    strides = [1]
    for size in shape[:0:-1]:
        strides.append(strides[-1] * size)
    return tuple(strides[::-1]) if shape else ()


def _unravel(position: int, shape: tuple[int, ...]) -> list[int]:
    index = []
    for size in reversed(shape):
        position, i = divmod(position, size)
        index.append(i)
    return index[::-1]


def collapse(
    shape: tuple[int, ...], memory_strides: Strides, strides: Strides
) -> tuple[tuple[int, ...], Strides, Strides]:
    """The fewest axes, at least one, that pair the same addresses with the same elements in the same order."""
    axes: list[tuple[int, int, int]] = []
    for size, memory_stride, stride in zip(shape, memory_strides, strides, strict=True):
        if size == 1:
            continue
        if axes and axes[-1][1:] == (size * memory_stride, size * stride):
            axes[-1] = (axes[-1][0] * size, memory_stride, stride)
        else:
            axes.append((size, memory_stride, stride))
    if not axes:
        return (1,), (memory_strides[-1] if memory_strides else 1,), (1,)
    sizes, memory_strides, strides = zip(*axes, strict=True)
    return sizes, memory_strides, strides

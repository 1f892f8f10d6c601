"""Elements into a buffer: contiguous runs, cut at tiles, shared out to threads, handed to a kernel without the GIL.

The caller's thread works too, with helpers from a pool that is made on first use. All of them take the next piece from
one counter, each with pieces as large as take it some 10 ms, smaller towards the end: the GIL is needed once a piece,
Ctrl-C is answered within one, and a thread that is slowed down by others takes fewer. A piece's values depend on its
position alone, so nobody can tell afterwards who wrote it.
"""

import os
import threading
from collections.abc import Callable
from functools import cache
from math import ceil
from struct import pack
from time import perf_counter
from typing import TYPE_CHECKING, Any

import numpy as np

from . import kernels
from .distributions import Stream
from .fans import check_count

if TYPE_CHECKING:
    from concurrent.futures import Future, ThreadPoolExecutor

__all__ = ["check_threads", "default_threads", "fill"]

# Bytes. Handing work to the pool and hearing back takes 65 us on a 2-core Sapphire Rapids, in which one core draws
# 0.9 MiB of uniforms or 0.4 MiB of normals; smaller pieces meet at the GIL too often.
PARALLEL = 1 << 21
PIECE = 1 << 19
# Streaming stores pay where ordinary ones wait for memory: beyond what the last-level cache keeps (12.8 GB/s against
# 7.9 on one core of a Sapphire Rapids, but 12.6 against 14.2 at 32 MiB), from kernels that are faster than that, and
# into pages that exist: a new page was just cleared, so it is in the cache (6.5 against 9.4 GB/s on two cores).
STREAMING = 1 << 25
FASTER_THAN_MEMORY = {kernels.CONSTANT} if kernels.level == "portable" else {kernels.CONSTANT, kernels.UNIFORM}
# Seconds that a piece should take.
SHORT, LONG = 0.005, 0.02


# ---- how many threads


def default_threads() -> int:
    """The CPUs that this process may use: its affinity, or its cgroup's quota where that is less.

    ``XAVIERFAST_THREADS`` overrides it.
    """
    wanted = os.environ.get("XAVIERFAST_THREADS")
    if wanted:
        if not wanted.isdecimal() or int(wanted) < 1:
            raise ValueError(f"XAVIERFAST_THREADS must be an int >= 1, got {wanted!r}")
        return int(wanted)
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(usable, _cgroup_quota())


@cache
def _cgroup_quota() -> int:
    """CPUs that the Linux cgroups of this process allow, rounded up; many if they set no limit."""
    quotas = [1 << 16]
    try:
        with open("/proc/self/cgroup") as lines:
            groups = [line.rstrip("\n").split(":", 2) for line in lines]
    except OSError:
        return quotas[0]
    for _, controllers, path in groups:
        if controllers and "cpu" not in controllers.split(","):
            continue
        root = f"/sys/fs/cgroup/{controllers}" if controllers else "/sys/fs/cgroup"
        while True:  # a quota anywhere above binds too; inside a container the root is the group's own
            quotas += _read_quota(root + path.rstrip("/"), bool(controllers))
            if path in ("", "/"):
                break
            path = os.path.dirname(path)
    return max(1, min(quotas))


def _read_quota(folder: str, version1: bool) -> list[int]:
    try:
        if version1:
            with open(f"{folder}/cpu.cfs_quota_us") as quota, open(f"{folder}/cpu.cfs_period_us") as period:
                text = f"{quota.read()} {period.read()}".split()
        else:
            with open(f"{folder}/cpu.max") as line:
                text = line.read().split()
        return [] if text[0] in ("max", "-1") else [ceil(int(text[0]) / int(text[1]))]
    except (OSError, ValueError, IndexError):
        return []


def check_threads(threads: int | None) -> int:
    return default_threads() if threads is None else check_count("threads", threads)


# ---- the pool

_pool: "ThreadPoolExecutor | None" = None
_pool_size = 0
_pool_lock = threading.Lock()


def _drop_pool() -> None:
    """In a forked child: its threads stayed with the parent, and the lock may be held by one of them."""
    global _pool, _pool_size, _pool_lock
    _pool, _pool_size, _pool_lock = None, 0, threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_drop_pool)


def _submit(work: Callable[[], None], helpers: int) -> "list[Future[None]]":
    """Futures of at most `helpers` helpers; none at interpreter exit, when no thread can be started."""
    global _pool, _pool_size
    from concurrent.futures import ThreadPoolExecutor  # a sixth of the import time, for large fills alone

    with _pool_lock:
        if _pool is None or _pool_size < helpers:  # the one before goes with its last reference, its work done
            _pool, _pool_size = ThreadPoolExecutor(helpers, thread_name_prefix="xavierfast"), helpers
        pool = _pool
    futures = []
    try:
        for _ in range(helpers):
            futures.append(pool.submit(work))
    except RuntimeError:
        pass
    return futures


def share_out(total: int, grain: int, least: int, threads: int, work: Callable[[int, int], None]) -> None:
    """Call ``work(begin, end)`` for pieces of range(total) that begin at multiples of `grain`, from `threads` threads.

    `least` is what a first piece holds. An exception in any thread, KeyboardInterrupt too, stops all before it is
    raised; what was written until then stays.
    """
    lock = threading.Lock()
    begin = 0

    def drain() -> None:
        nonlocal begin
        size = least
        try:
            while True:
                with lock:
                    first = begin
                    if first >= total:
                        return
                    piece = min(size, max(least, (total - first) // (2 * threads)))
                    begin = last = min(total, first + max(grain, piece // grain * grain))
                started = perf_counter()
                work(first, last)
                took = perf_counter() - started
                size = size * 2 if took < SHORT else max(least, size // 2) if took > LONG else size
        except BaseException:
            begin = total
            raise

    futures = _submit(drain, threads - 1) if threads > 1 else []
    try:
        drain()
    finally:
        for future in futures:
            if not future.cancel():  # one that has not begun has nothing left to do
                future.result()


# ---- fill


def fill(
    stream: Stream, key: bytes, out: np.ndarray[Any, Any], position: int, threads: int | None, new: bool = False
) -> None:
    """Write elements `position`, `position + 1`, ... of a stream into `out`, in its logical C order.

    `stream` is what ``distributions.parameters`` gives; `out` is writable, native, and does not overlap itself. It is
    `new` if its memory has not been touched.
    """
    distribution, form, p = stream
    size = out.itemsize
    n = out.size
    address = kernels.address(out)
    if out.flags.c_contiguous:
        if out.nbytes < PARALLEL:
            kernels.fill(distribution, form, key, p, address, position, n)
            return
        streaming = out.nbytes > STREAMING and distribution in FASTER_THAN_MEMORY and not new

        def work(begin: int, end: int, out: object = out) -> None:  # keeps the memory while a helper writes
            kernels.fill(distribution, form, key, p, address + begin * size, position + begin, end - begin, streaming)
    elif n:
        if out.nbytes > PIECE and abs(out.strides[-1]) > min(map(abs, out.strides)):
            _fill_blocks(stream, key, out, position, threads)
            return
        shape, strides = _collapse(out.shape, out.strides)
        layout = pack(f"{2 * len(shape)}q", *shape, *strides)

        def work(begin: int, end: int, out: object = out) -> None:
            index = pack(f"{len(shape)}q", *np.unravel_index(begin, shape))
            kernels.scatter(distribution, form, key, p, address, position + begin, end - begin, layout, index)
    else:
        return
    threads = check_threads(threads) if out.nbytes >= PARALLEL else 1
    share_out(n, kernels.TILE, PIECE // size, threads, work)


def _fill_blocks(stream: Stream, key: bytes, out: np.ndarray[Any, Any], position: int, threads: int | None) -> None:
    """Fortran order and its like: blocks in C order that a cache holds, which NumPy copies in the order of `out`."""
    row = out[0].size
    if row * out.itemsize > PIECE:
        for k, part in enumerate(out):
            fill(stream, key, part, position + k * row, threads)
        return
    out = out.view(np.dtype(f"u{out.itemsize}"))  # whose copies need no GIL

    rows = PIECE // (row * out.itemsize)

    def work(begin: int, end: int) -> None:
        for first in range(begin, end, rows):
            target = out[first : min(first + rows, end)]
            block = np.empty(target.shape, out.dtype)
            fill(stream, key, block, position + first * row, 1)
            target[...] = block

    share_out(len(out), rows, rows, check_threads(threads), work)


def _collapse(shape: tuple[int, ...], strides: tuple[int, ...]) -> tuple[list[int], list[int]]:
    """The fewest axes that visit the same addresses in the same order."""
    sizes: list[int] = []
    steps: list[int] = []
    for size, step in zip(shape, strides, strict=True):
        if size == 1:
            continue
        if steps and steps[-1] == size * step:
            sizes[-1] *= size
            steps[-1] = step
        else:
            sizes.append(size)
            steps.append(step)
    return sizes, steps

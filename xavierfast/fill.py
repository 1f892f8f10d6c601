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
from queue import SimpleQueue
from struct import pack
from time import perf_counter
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from . import kernels
from .distributions import Stream
from .fans import check_count

if TYPE_CHECKING:
    from concurrent.futures import Future

__all__ = ["Array", "Lookup", "c_steps", "check_threads", "collapse", "default_threads", "fill"]

Array = np.ndarray[Any, np.dtype[Any]]
Work = Callable[[int, int], None]

# Bytes. Handing work to the pool and hearing back takes 65 us on a 2-core Sapphire Rapids, in which one core draws
# 0.9 MiB of uniforms or 0.4 MiB of normals; smaller pieces meet at the GIL too often.
PARALLEL = 1 << 21
PIECE = 1 << 19
# Streaming stores pay where ordinary ones wait for memory: beyond what the last-level cache keeps (12.8 GB/s against
# 7.9 on one core of a Sapphire Rapids, but 12.6 against 14.2 at 32 MiB), from kernels that are faster than that, and
# into pages that exist: a new page was just cleared, so it is in the cache (6.5 against 9.4 GB/s on two cores).
STREAMING = 1 << 25
FASTER_THAN_MEMORY = {kernels.CONSTANT}
if kernels.level != "portable":
    FASTER_THAN_MEMORY |= {kernels.UNIFORM, kernels.RANGE}
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

# Not a ThreadPoolExecutor: Ctrl-C while one starts a thread leaves that thread unknown to it, and the interpreter waits
# for it for ever at exit. These are daemons that wait for tasks, and nobody waits for them but for a task to end.
_tasks: "SimpleQueue[tuple[Future[None], Callable[[], None]]]" = SimpleQueue()
_helpers = 0
_pool_lock = threading.RLock()  # the handler of a signal that comes meanwhile may fill too


def _drop_pool() -> None:
    """In a forked child: its threads stayed with the parent, and the lock may be held by one of them."""
    global _tasks, _helpers, _pool_lock
    _tasks, _helpers, _pool_lock = SimpleQueue(), 0, threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_drop_pool)


def _serve(tasks: "SimpleQueue[tuple[Future[None], Callable[[], None]]]") -> None:
    while True:
        future, work = tasks.get()
        if future.set_running_or_notify_cancel():
            try:
                work()
            except BaseException as error:
                future.set_exception(error)
            else:
                future.set_result(None)
        del future, work  # which keep a buffer


def _submit(work: Callable[[], None], helpers: int, futures: "list[Future[None]]") -> None:
    """Add the futures of `helpers` helpers, of fewer at interpreter exit, when no thread can be started."""
    global _helpers
    from concurrent.futures import Future  # a sixth of the import time, for large fills alone

    with _pool_lock:
        try:
            while _helpers < helpers:
                threading.Thread(target=_serve, args=(_tasks,), name=f"xavierfast-{_helpers}", daemon=True).start()
                _helpers += 1
        except RuntimeError:
            pass
        for _ in range(min(helpers, _helpers)):
            futures.append(Future())
            _tasks.put((futures[-1], work))


def _settle(futures: "list[Future[None]]") -> None:
    """Wait for helpers that have begun, whoever interrupts: they write to memory. Then pass their errors on."""
    interrupt: BaseException | None = None
    while True:
        try:
            failed = [future.exception() for future in futures if not future.cancel()]
            break
        except BaseException as error:
            interrupt = error
    for reason in [interrupt, *failed]:
        if reason is not None:
            raise reason


def share_out(total: int, grain: int, least: int, threads: int, work: Work) -> None:
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

    futures: list[Future[None]] = []
    try:
        if threads > 1:
            _submit(drain, min(threads, -(-total // grain)) - 1, futures)
        drain()
    except BaseException:
        begin = total
        raise
    finally:
        _settle(futures)


# ---- fill


class Lookup(NamedTuple):
    """One axis whose index i stands for ids[i]: contiguous aligned int64s; those below 0 count from `length`."""

    axis: int
    ids: Array
    length: int


def fill(
    stream: Stream,
    key: bytes,
    out: Array,
    position: int = 0,
    steps: tuple[int, ...] | None = None,
    lookup: Lookup | None = None,
    *,
    threads: int | None = None,
    new: bool = False,
) -> None:
    """Write elements of a stream into `out`: index (i, j, ...) is element position + i * steps[0] + j * steps[1] + ...

    Without `steps` they follow one another in the C order of `out`, which is writable, native, does not overlap itself,
    and is `new` if its memory has not been touched.
    """
    n, size = out.size, out.itemsize
    if not n:
        return
    if stream.limit:
        work = _cast_work(stream, key, out, position, steps or c_steps(out.shape), lookup)
    elif lookup:
        steps = steps or c_steps(out.shape)
        work = _strided_work(stream, key, kernels.address(out), out.shape, out.strides, position, steps, lookup, out)
    elif steps is None and out.flags.c_contiguous:
        work = _contiguous_work(stream, key, out, position, new)
    else:
        steps = steps or c_steps(out.shape)
        if out.ndim > 1 and out.nbytes > PIECE and abs(out.strides[-1]) > min(map(abs, out.strides)):
            _fill_blocks(stream, key, out, position, steps, threads)
            return
        shape, strides, steps = collapse(out.shape, out.strides, steps)
        if strides == (size,) and steps == (1,):
            work = _contiguous_work(stream, key, out, position, new)
        else:
            work = _strided_work(stream, key, kernels.address(out), shape, strides, position, steps, None, out)
    if out.nbytes < PARALLEL:
        work(0, n)
    else:
        share_out(n, kernels.TILE, PIECE // size, check_threads(threads), work)


def _contiguous_work(stream: Stream, key: bytes, out: Array, position: int, new: bool) -> Work:
    distribution, form, p, _ = stream
    size, address = out.itemsize, kernels.address(out)
    streaming = out.nbytes > STREAMING and distribution in FASTER_THAN_MEMORY and not new

    def work(begin: int, end: int, out: object = out) -> None:  # keeps the memory while a helper writes
        kernels.fill(distribution, form, key, p, address + begin * size, position + begin, end - begin, streaming)

    return work


def _strided_work(
    stream: Stream,
    key: bytes,
    address: int,
    shape: tuple[int, ...],
    strides: tuple[int, ...],
    position: int,
    steps: tuple[int, ...],
    lookup: Lookup | None,
    out: object,
) -> Work:
    distribution, form, p, _ = stream
    if not shape:
        shape, strides, steps = (1,), (0,), (1,)
    layout = pack(f"{3 * len(shape)}q", *shape, *strides, *steps)
    ids = (lookup.axis, kernels.address(lookup.ids), lookup.length) if lookup else ()

    def work(begin: int, end: int, keep: object = (out, lookup)) -> None:
        index = pack(f"{len(shape)}q", *_unravel(begin, shape))
        kernels.gather(distribution, form, key, p, address, position, end - begin, layout, index, *ids)

    return work


def _cast_work(
    stream: Stream, key: bytes, out: Array, position: int, steps: tuple[int, ...], lookup: Lookup | None
) -> Work:
    """Blocks of float32 that a cache holds, clamped and cast."""
    strides = tuple(4 * step for step in c_steps(out.shape))

    def work(begin: int, end: int) -> None:
        rows = out.reshape(-1) if out.flags.c_contiguous else out.flat
        for first in range(begin, end, PIECE // 8):
            block = np.empty(min(PIECE // 8, end - first), np.float32)
            start = kernels.address(block) - 4 * first  # where element 0 would be
            single = _strided_work(stream, key, start, out.shape, strides, position, steps, lookup, block)
            single(first, first + block.size)
            rows[first : first + block.size] = np.clip(block, -stream.limit, stream.limit, out=block)

    return work


def _fill_blocks(
    stream: Stream, key: bytes, out: Array, position: int, steps: tuple[int, ...], threads: int | None
) -> None:
    """Fortran order and its like: blocks in C order that a cache holds, which NumPy copies in the order of `out`."""
    row = out[0].size
    if row * out.itemsize > PIECE:
        for k, part in enumerate(out):
            fill(stream, key, part, position + k * steps[0], steps[1:], threads=threads)
        return
    rows = PIECE // (row * out.itemsize)
    if out.itemsize <= 8:
        out = out.view(np.dtype(f"u{out.itemsize}"))  # whose copies need no GIL, unlike those of ml_dtypes

    def work(begin: int, end: int) -> None:
        for first in range(begin, end, rows):
            target = out[first : min(first + rows, end)]
            block = np.empty(target.shape, out.dtype)
            fill(stream, key, block, position + first * steps[0], steps, threads=1)
            target[...] = block

    share_out(len(out), rows, rows, check_threads(threads), work)


def c_steps(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Elements from one index to the next of each axis, in C order."""
    steps = [1]
    for size in shape[:0:-1]:
        steps.append(steps[-1] * size)
    return tuple(steps[::-1]) if shape else ()


def _unravel(position: int, shape: tuple[int, ...]) -> list[int]:
    index = []
    for size in reversed(shape):
        position, i = divmod(position, size)
        index.append(i)
    return index[::-1]


def collapse(
    shape: tuple[int, ...], strides: tuple[int, ...], steps: tuple[int, ...]
) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
    """The fewest axes, at least one, that pair the same addresses and elements in the same order."""
    axes: list[tuple[int, int, int]] = []
    for size, stride, step in zip(shape, strides, steps, strict=True):
        if size == 1:
            continue
        if axes and axes[-1][1:] == (size * stride, size * step):
            axes[-1] = (axes[-1][0] * size, stride, step)
        else:
            axes.append((size, stride, step))
    if not axes:
        return (1,), (strides[-1] if strides else 1,), (1,)
    sizes, strides, steps = zip(*axes, strict=True)
    return sizes, strides, steps

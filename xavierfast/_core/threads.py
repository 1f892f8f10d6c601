"""Work shared out to threads: pieces of a range, taken from one counter by the caller's thread and by helpers.

The helpers are a small pool of daemon threads that is made on first use. Each thread sizes its pieces to take about
10 ms, and smaller ones near the end: the GIL is needed once per piece, Ctrl-C is answered within one piece, and a
thread that others slow down takes fewer pieces.
"""

import os
import threading
from collections.abc import Callable
from functools import cache
from math import ceil
from queue import SimpleQueue
from time import perf_counter

__all__ = ["Work", "default_threads", "parallel_for"]

Work = Callable[[int, int], None]
# The time that a piece should take.
MIN_PIECE_SECONDS, MAX_PIECE_SECONDS = 0.005, 0.02


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
    """The number of CPUs that the Linux cgroups of this process allow, rounded up; a large one if they set no limit."""
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


# ---- the pool


class _Task:
    """Work for one helper, of which the caller can take back what no helper has begun.

    A Future of the standard library would do, but its import takes as long as that of this package. It must not be
    imported later either: a signal's handler may fill while such an import runs, and would find half a module.
    """

    def __init__(self, work: Callable[[], None]) -> None:
        self.work: Callable[[], None] | None = work
        self.error: BaseException | None = None
        self.ended = threading.Event()
        # Whoever acquires it may run the work or drop it. It is reentrant: a caller that is interrupted asks again.
        self.claim = threading.RLock()

    def run(self) -> None:
        if not self.claim.acquire(blocking=False):
            return
        try:
            if self.work is not None:
                self.work()
        except BaseException as error:
            self.error = error
        finally:
            self.work = None  # it would keep a buffer alive
            self.ended.set()

    def finish(self) -> BaseException | None:
        """Drop the work if no helper has begun it, else wait for its end; return its error."""
        if self.claim.acquire(blocking=False):
            self.work = None
        else:
            self.ended.wait()
        return self.error


# Not a ThreadPoolExecutor: if Ctrl-C arrives while one is starting a thread, it loses track of that thread, and the
# interpreter's exit joins it for ever. These helpers are daemons: others wait for tasks, never for threads.
MAX_HELPERS = 1024
_tasks: SimpleQueue[_Task] = SimpleQueue()
_helpers = 0
_pool_lock = threading.RLock()  # reentrant: a signal's handler that runs while the pool grows may fill too


def _drop_pool() -> None:
    """Give a forked child a new pool: the threads stayed with the parent, and one of them may hold the lock."""
    global _tasks, _helpers, _pool_lock
    _tasks, _helpers, _pool_lock = SimpleQueue(), 0, threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_drop_pool)


def _worker(tasks: SimpleQueue[_Task]) -> None:
    global _helpers
    try:
        while True:
            tasks.get().run()
    finally:  # an exception that another thread has sent to this one: the next fill starts a new helper
        _helpers -= 1


def _submit(work: Callable[[], None], helpers: int, tasks: list[_Task]) -> None:
    """Give `work` to this number of helpers, or to fewer at interpreter exit, when no thread can start; add their
    tasks."""
    global _helpers
    helpers = min(helpers, MAX_HELPERS)
    with _pool_lock:
        try:
            while _helpers < helpers:
                threading.Thread(target=_worker, args=(_tasks,), name=f"xavierfast-{_helpers}", daemon=True).start()
                _helpers += 1
        except RuntimeError:
            pass
        for _ in range(min(helpers, _helpers)):
            tasks.append(_Task(work))
            _tasks.put(tasks[-1])


def _wait_all(tasks: list[_Task]) -> None:
    """Wait for every running helper, even through KeyboardInterrupt, since it still writes to memory; then raise the
    first error."""
    interrupt: BaseException | None = None
    while True:
        try:
            failed = [task.finish() for task in tasks]
            break
        except BaseException as error:
            interrupt = error
    for reason in [interrupt, *failed]:
        if reason is not None:
            raise reason


def parallel_for(total: int, grain: int, first_size: int, threads: int, work: Work) -> None:
    """Call ``work(begin, end)`` for pieces of range(total) that begin at multiples of `grain`, from `threads` threads.

    Each thread's first piece has `first_size` items, which is also the minimum of the later ones. An exception in any
    thread, KeyboardInterrupt included, stops all threads before it is raised; what was written until then stays.
    """
    lock = threading.Lock()
    begin = 0

    def take_pieces() -> None:
        nonlocal begin
        size = first_size
        try:
            while True:
                with lock:
                    first = begin
                    if first >= total:
                        return
                    piece = min(size, max(first_size, (total - first) // (2 * threads)))
                    begin = last = min(total, first + max(grain, piece // grain * grain))
                started = perf_counter()
                work(first, last)
                took = perf_counter() - started
                if took < MIN_PIECE_SECONDS:
                    size *= 2
                elif took > MAX_PIECE_SECONDS:
                    size = max(first_size, size // 2)
        except BaseException:
            begin = total
            raise

    tasks: list[_Task] = []
    try:
        if threads > 1:
            _submit(take_pieces, min(threads, -(-total // grain)) - 1, tasks)
        take_pieces()
    except BaseException:
        begin = total
        raise
    finally:
        _wait_all(tasks)

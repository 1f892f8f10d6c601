"""Work shared out to threads: pieces of a range, which the caller's thread and helpers take in turn.

The helpers are a small pool of daemon threads that is made on first use. Each thread sizes its pieces to take about
10 ms, and smaller ones near the end: the GIL is needed once per piece, Ctrl-C is answered within one piece, and a
thread that others slow down takes fewer pieces.
"""

import os
from _thread import LockType, allocate_lock, start_new_thread
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from math import ceil
from time import perf_counter
from weakref import ref

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

# The interpreter's own threads and locks as they are at this import: gevent and eventlet exchange those of `threading`
# afterwards, and a caller would wait for ever for a greenlet. Nothing else is needed, and nothing is imported later: a
# fill in a signal's handler would find half of a module. No lock is held while anything else runs, so that a fill may
# begin within a fill, in a handler, a finaliser or a trace function; and a child of fork finds no lock held.
HELPER, CALLER = "helper", "caller"
MAX_HELPERS = 1024
_helpers: dict[int, "ref[_Helper]"] = {}  # one key for each helper that runs or is being started
_tasks: deque["_Task"] = deque()
_open: set["_Task"] = set()  # those for which a caller waits
_bell = allocate_lock()  # rung, that is released, where a helper shall look for tasks
_bell.acquire()


class _Helper:
    """An object that only a helper's thread holds: when it is gone the thread has ended, in whatever way."""


class _Task:
    """Work for one helper, of which the caller can take back what no helper has begun."""

    def __init__(self, work: Callable[[], None]) -> None:
        self.work: Callable[[], None] | None = work
        # Its one key is set once: by the helper that runs the work, or by the caller, who drops it.
        self.owner: dict[str, str] = {}
        self.error: BaseException | None = None
        self.is_ended = False
        self.end = allocate_lock()
        self.end.acquire()

    def run(self) -> None:
        if self.owner.setdefault("owner", HELPER) is HELPER:
            try:
                if self.work is not None:
                    self.work()
            except BaseException as error:
                self.error = error
            self.close()

    def close(self) -> None:
        self.work = None  # it would keep a buffer alive
        self.is_ended = True
        _release(self.end)

    def finish(self) -> BaseException | None:
        """Drop the work if no helper has begun it, else wait for its end; return its error. A caller that is
        interrupted can ask again."""
        if self.owner.setdefault("owner", CALLER) is CALLER:
            self.work = None
        else:
            while not self.is_ended:
                self.end.acquire()
        _open.discard(self)
        return self.error


def _release(lock: LockType) -> None:
    with suppress(RuntimeError):  # raised for a lock that is not held
        lock.release()


def _drop_pool() -> None:
    """Give a forked child a new pool, and end the tasks that the parent's helpers have begun: the threads stayed with
    the parent. A fill during which a handler has forked ends with an error in the child."""
    global _helpers, _tasks, _open, _bell
    for task in _open:
        if not task.is_ended and task.owner.get("owner") is HELPER:
            task.error = RuntimeError("a fill cannot be continued in a child that was forked in its middle: fill again")
            task.close()
    _helpers, _tasks, _open, _bell = {}, deque(), set(), allocate_lock()
    _bell.acquire()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_drop_pool)


def _worker(helper: _Helper, tasks: deque[_Task], bell: LockType) -> None:
    task = None
    try:
        while True:
            bell.acquire()
            while tasks:
                try:
                    task = tasks.popleft()
                except IndexError:  # another helper was quicker
                    break
                if tasks:
                    _release(bell)
                task.run()
                task = None  # whose error would keep a buffer alive
    except BaseException as error:  # another thread has sent it to this one: the next fill starts a new helper
        if task is not None and task.owner.get("owner") is HELPER:
            if not task.is_ended:
                task.error = task.error or error
            task.close()


def _start(number: int) -> None:
    helper, helpers = _Helper(), _helpers

    def forget(_: object) -> None:
        helpers.pop(number, None)

    known = ref(helper, forget)
    if helpers.setdefault(number, known) is known:  # nobody else starts it
        start_new_thread(_worker, (helper, _tasks, _bell))


def _submit(work: Callable[[], None], helpers: int, tasks: list[_Task]) -> None:
    """Give `work` to this number of helpers, or to fewer at interpreter exit and under limits, where no thread can
    start; add their tasks."""
    helpers = min(helpers, MAX_HELPERS)
    with suppress(RuntimeError, MemoryError):
        for number in range(helpers):
            if number not in _helpers:
                _start(number)
    for _ in range(min(helpers, len(_helpers))):
        task = _Task(work)
        tasks.append(task)
        _open.add(task)
        _tasks.append(task)
        _release(_bell)


def parallel_for(total: int, grain: int, first_size: int, threads: int, work: Work) -> None:
    """Call ``work(begin, end)`` for pieces of range(total) that begin at multiples of `grain`, from `threads` threads.

    Each thread's first piece has `first_size` items, which is also the minimum of the later ones. An exception in any
    thread, KeyboardInterrupt included, stops all threads before it is raised; what was written until then stays.
    """
    # Each piece by its begin. A dict's setdefault takes only the first piece that threads propose; each thread walks
    # over the pieces of all threads, which are a few thousand at the most.
    pieces: dict[int, tuple[int]] = {}
    stopped = False

    def take_pieces() -> None:
        nonlocal stopped
        size, first = first_size, 0
        try:
            while first < total and not stopped:
                length = min(size, max(first_size, (total - first) // (2 * threads)))
                mine = (min(total, first + max(grain, length // grain * grain)),)
                taken = pieces.setdefault(first, mine)
                if taken is mine:
                    started = perf_counter()
                    work(first, mine[0])
                    took = perf_counter() - started
                    if took < MIN_PIECE_SECONDS:
                        size *= 2
                    elif took > MAX_PIECE_SECONDS:
                        size = max(first_size, size // 2)
                first = taken[0]
        except BaseException:
            stopped = True
            raise

    tasks: list[_Task] = []
    reasons: list[BaseException | None] = []
    try:
        if threads > 1:
            _submit(take_pieces, min(threads, -(-total // grain)) - 1, tasks)
        take_pieces()
    except BaseException as error:
        stopped = True
        reasons.append(error)
    while True:  # even through KeyboardInterrupt, since a running helper still writes to memory
        try:
            reasons += [task.finish() for task in tasks]
            break
        except BaseException as error:
            stopped = True
            reasons.append(error)
    # The traceback of an error holds the task and this frame, which must not hold the error: it would keep out alive.
    for task in tasks:
        task.error = None
    try:
        for reason in reasons:
            if reason is not None:
                raise reason
    finally:
        reason = None
        reasons.clear()

"""Threads: sharing out, the pool, fork, interruption, memory, and what the machine allows."""

import ast
import io
import os
import platform
import signal
import sys
import sysconfig
import threading
import time
from collections import deque

import numpy as np
import pytest
from support import need, run, same_bits

import xavierfast as xf
from xavierfast._core import fill
from xavierfast._core import threads as threads_module
from xavierfast._core.threads import _cgroup_quota, _read_quota, default_threads, parallel_for
from xavierfast._core.validation import check_threads

FREE_THREADED = sysconfig.get_config_var("Py_GIL_DISABLED") == 1


@pytest.mark.parametrize("threads", [1, 2, 3, 8])
@pytest.mark.parametrize("total", [0, 1, 255, 256, 257, 10_000, 1_000_003])
def test_pieces_cover_all_once(threads, total):
    lock, pieces = threading.Lock(), []

    def work(begin, end):
        with lock:
            pieces.append((begin, end))

    parallel_for(total, 256, 1000, threads, work)
    pieces.sort()
    assert [begin for begin, _ in pieces] == [0, *[end for _, end in pieces]][: len(pieces)]
    assert (pieces[-1][1] if pieces else 0) == total
    assert all(begin % 256 == 0 for begin, _ in pieces)


@pytest.mark.parametrize("threads", [1, 4])
def test_an_exception_stops_all_and_is_raised(threads):
    begun = []

    def work(begin, end):
        begun.append(begin)
        if begin >= 5000:
            raise RuntimeError("in a piece")

    with pytest.raises(RuntimeError, match="in a piece"):
        parallel_for(10**9, 256, 1000, threads, work)
    assert len(begun) < 100


def test_many_callers_at_once():
    want = xf.normal((700, 1100), seed=5, threads=1)
    results = [None] * 32

    def call(k):
        results[k] = xf.normal((700, 1100), seed=5, threads=1 + k % 4)

    callers = [threading.Thread(target=call, args=(k,)) for k in range(len(results))]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert all((result == want).all() for result in results)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
# One that reads a dict while another thread forks can leave the dict locked for ever in the child (seen on 3.13).
@pytest.mark.skipif(FREE_THREADED, reason="free-threaded CPython forks with locks held")
def test_fork():
    """Children fill with the pool that their parent had, while the parent's threads fill too."""
    out = run("""
        import os, threading, warnings
        import xavierfast as xf
        warnings.simplefilter("ignore", DeprecationWarning)  # Python warns of fork in a process with threads
        want = xf.normal((1200, 1000), seed=1, threads=2)
        stop = threading.Event()

        def keep_filling():
            while not stop.is_set():
                xf.normal((1200, 1000), seed=2, threads=2)

        fillers = [threading.Thread(target=keep_filling) for _ in range(2)]
        for filler in fillers:
            filler.start()
        for _ in range(10):
            child = os.fork()
            if child == 0:
                same = (xf.normal((1200, 1000), seed=1, threads=2) == want).all()
                os._exit(0 if same else 3)
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        stop.set()
        for filler in fillers:
            filler.join()
        print("done")
    """)
    assert out == "done\n"


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("kind", ["uniform(bound=1.0", "truncated_normal(low=6.0, high=9.0"])
def test_interrupted(threads, kind):
    """Ctrl-C in a fill of 100 GB: a slow and a fast kernel stop long before they are through."""
    out = run(f"""
        import mmap, os, signal, threading, time
        import xavierfast as xf
        size = 100_000_000_000
        # Address space without memory: pages come as they are written.
        unreserved = getattr(mmap, "MAP_NORESERVE", 0x4000)
        memory = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | unreserved)
        sent = []

        def interrupt():
            time.sleep(0.3)
            sent.append(time.monotonic())
            os.kill(os.getpid(), signal.SIGINT)

        threading.Thread(target=interrupt).start()
        try:
            xf.{kind}, out=memory, threads={threads}, seed=0)
        except KeyboardInterrupt:
            print(time.monotonic() - sent[0])
    """)
    assert 0 < float(out) < 2  # it is 0.02; a machine may be busy, but 100 GB take 10 s at the least


@pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="needs /proc")
@pytest.mark.parametrize("threads", [1, 2])
def test_no_temporaries(threads):
    out = run(f"""
        import numpy as np, xavierfast as xf

        def peak():
            with open("/proc/self/status") as lines:
                return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))

        array = np.ones((512, 1 << 18), np.float32)
        low = np.ones((512, 1 << 18), np.uint16)
        xf.normal(out=np.ones((1 << 20), np.float32), seed=0, threads={threads})  # the pool and its stacks
        before = peak()
        for draw in (xf.uniform, xf.normal, xf.truncated_normal):
            draw(out=array, seed=0, threads={threads})
            draw(out=low, dtype="bfloat16", seed=0, threads={threads})
        print(peak() - before)
    """)
    assert int(out) < 4096  # KiB, beside 768 MiB filled


@pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="needs /proc")
def test_no_temporaries_of_tables():
    """Rows by their numbers, columns and slices, into memory that is there."""
    out = run("""
        import numpy as np, xavierfast as xf

        def peak():
            with open("/proc/self/status") as lines:
                return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))

        table = xf.Table((10**10, 128), "xavier_normal", seed=7)
        rows, columns = np.ones((10**6, 128), np.float32), np.ones((10**6, 4), np.float32)
        ids = np.random.default_rng(0).integers(0, 10**10, 10**6)
        small = np.ones((64, 128), np.float32)
        table.read(ids[:64], small), xf.normal(out=np.ones(1 << 20, np.float32), threads=2)
        before = peak()
        table.read(ids, rows, threads=2)
        table.read((slice(0, 10**6), slice(3, 7)), columns, threads=2)
        table.read(slice(10**9, 10**9 + 10**6), rows, threads=2)
        table.read(slice(10**7 - 1, None, -10), rows, threads=2)
        print(peak() - before)
    """)
    assert int(out) < 4096  # KiB


def test_at_exit():
    """A fill while the interpreter ends, when no thread can be started any more."""
    out = run("""
        import atexit
        import xavierfast as xf
        want = xf.normal((1200, 1000), seed=1, threads=2)
        atexit.register(lambda: print((xf.normal((1200, 1000), seed=1, threads=3) == want).all()))
    """)
    assert out == "True\n"


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="no affinity on this system")
def test_affinity():
    out = run(
        """
        import os
        from xavierfast._core.threads import default_threads
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
        print(default_threads())
        """,
        XAVIERFAST_THREADS="",
    )
    assert out == "1\n"


@pytest.mark.parametrize(
    ("files", "quota"),
    [
        ({"cpu.max": "150000 100000\n"}, [2]),
        ({"cpu.max": "max 100000\n"}, []),
        ({"cpu.max": "50000 100000\n"}, [1]),
        ({"cpu.cfs_quota_us": "400000\n", "cpu.cfs_period_us": "100000\n"}, [4]),
        ({"cpu.cfs_quota_us": "-1\n", "cpu.cfs_period_us": "100000\n"}, []),
        ({}, []),
        ({"cpu.max": ""}, []),
    ],
)
def test_quota(tmp_path, files, quota):
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    version1 = any("cfs" in name for name in files)
    assert _read_quota(str(tmp_path), version1) == quota


def test_environment_variable(monkeypatch):
    monkeypatch.setenv("XAVIERFAST_THREADS", "3")
    assert default_threads() == 3
    assert check_threads(2) == 2


@pytest.mark.parametrize("level", ["portable", "avx2", "avx512"])
def test_forced_level(level):
    from xavierfast import kernels

    code = """
        import xavierfast as xf
        print(xf.level, xf.uniform(3, seed=0).tobytes().hex())
    """
    if level not in kernels.levels:
        with pytest.raises(AssertionError, match=f"must be one of the levels .* got '{level}'"):
            run(code, XAVIERFAST_LEVEL=level)
    else:
        assert run(code, XAVIERFAST_LEVEL=level).split() == [level, xf.uniform(3, seed=0).tobytes().hex()]


def test_impossible_level():
    with pytest.raises(AssertionError, match=r"must be one of .*portable.*; got 'sse9': unset it for the best one"):
        run("import xavierfast", XAVIERFAST_LEVEL="sse9")


def test_imports_numpy_alone():
    out = run("""
        import sys
        import numpy
        before = set(sys.modules)
        import xavierfast
        known = sys.stdlib_module_names | {"xavierfast", "numpy"}
        print({m.split(".")[0] for m in set(sys.modules) - before} - known)
    """)
    assert not [name for name in ast.literal_eval(out) if "cython" not in name]  # Cython's own bookkeeping


def test_collapsed_axes():
    def collapsed(array, steps=None):
        return fill.collapse(array.shape, array.strides, steps or fill.c_strides(array.shape))

    array = np.zeros((4, 6, 5, 1, 3), np.float32)
    assert collapsed(array) == ((360,), (4,), (1,))
    assert collapsed(array[:, ::2]) == ((12, 15), (120, 4), (15, 1))
    assert collapsed(array[::2]) == ((2, 90), (720, 4), (90, 1))
    assert collapsed(array[:1, :1, :1, :, :1])[0] == (1,)
    assert collapsed(np.zeros((3, 4)), (8, 1)) == ((3, 4), (32, 8), (8, 1))


# ---- the floating-point environment of the caller

ENVIRONMENT = """
import ctypes
import xavierfast as xf

libm = ctypes.CDLL("libm.so.6")
UPWARD, DOWNWARD, ZERO = 0x800, 0x400, 0xC00


def set_and_fill(mode):
    libm.fesetround(mode)

    def draw():
        tables = [
            xf.Table((1 << 19, 3), init, seed=3, dtype=dtype, **parameters)
            for init, parameters in (
                ("xavier_uniform", {"gain": 1 / 3}), ("he_normal", {}), ("truncated_normal", {"std": 0.02}),
                ("truncated_normal", {"std": 0.02, "low": -0.5, "high": 3.1}), ("random_constant", {"bound": 0.1}),
            )
            for dtype in ("float32", "float64", "float16")
        ]
        return [table.read(index, threads=2).tobytes() for table in tables for index in (..., [5, 100_000])]

    found = draw()
    assert libm.fegetround() == mode  # the caller's is back
    return found
"""


@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="the numbers of the modes are those of x86")
@pytest.mark.parametrize("mode", ["UPWARD", "DOWNWARD", "ZERO"])
def test_a_rounding_mode_changes_no_bit(mode):
    """Set before the first fill, so that the threads of the pool inherit it."""
    code = (
        ENVIRONMENT
        + """
import hashlib
print(hashlib.sha256(b"".join(set_and_fill(MODE))).hexdigest())
"""
    )
    assert run(code.replace("MODE", mode)) == run(code.replace("(MODE)", "(0)"))


@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="the numbers of the modes are those of x86")
@pytest.mark.parametrize("mode", ["0x400", "0x800", "0xc00"])
def test_a_rounding_mode_set_before_the_import_changes_no_bit(mode):
    code = """
import ctypes
libm = ctypes.CDLL("libm.so.6")
libm.fesetround(MODE)
import xavierfast as xf
print(libm.fegetround() == MODE)
for init in ("uniform", "xavier_uniform", "he_uniform", "he_normal", "he_truncated_normal"):
    print(xf.Table((3, 7), init, dtype="float64", seed=0)[...].tobytes().hex())
print(xf.calculate_gain("relu").hex(), xf.calculate_gain("leaky_relu").hex())
"""
    assert run(code.replace("MODE", mode)) == run(code.replace("MODE", "0"))


def test_flush_to_zero_changes_no_bit():
    torch = need("torch")
    tables = [
        xf.Table((1 << 19, 3), init, seed=3, dtype=dtype, **parameters)
        for init, parameters in (("uniform", {"bound": 2.0**-20}), ("normal", {"std": 2.0**-22}))
        for dtype in ("float32", "float16", "float64")
    ] + [
        xf.Table(1000, "normal", std=2.0**-80, seed=3),
        xf.Table(1000, "normal", std=2.0**-900, dtype="float64", seed=3),
    ]
    expected = [table[...].tobytes() for table in tables]
    if not torch.set_flush_denormal(True):
        pytest.skip("this CPU cannot flush to zero")
    try:
        assert np.float32(1e-38) * np.float32(1e-3) == 0
        assert [table[...].tobytes() for table in tables] == expected
        assert np.float32(1e-38) * np.float32(1e-3) == 0  # the caller's is back
    finally:
        torch.set_flush_denormal(False)


def test_a_signals_handler_fills_while_a_helper_is_started():
    run("""
        import faulthandler, signal
        import numpy as np
        import xavierfast as xf
        from xavierfast._core import threads
        faulthandler.dump_traceback_later(60, exit=True)
        start, found, signals = threads.start_new_thread, [], [signal.SIGUSR1]
        signal.signal(signal.SIGUSR1, lambda *_: found.append(xf.uniform((1000, 1000), seed=1, threads=3)))

        def start_and_signal(*arguments):
            if signals:
                signal.raise_signal(signals.pop())
            start(*arguments)

        threads.start_new_thread = start_and_signal
        found.append(xf.uniform((1000, 1000), seed=1, threads=3))
        assert len(found) == 2 and (found[0] == found[1]).all()
    """)


def test_no_more_helpers_than_pieces():
    run("""
        from xavierfast._core import threads
        threads.parallel_for(1000, 256, 256, 10**9, lambda begin, end: None)
        assert len(threads._helpers) == 3
    """)


@pytest.mark.parametrize(
    ("files", "quota"),
    [
        ({"/proc/self/cgroup": "0::/a/b\n", "/sys/fs/cgroup/a/b/cpu.max": "250000 100000\n"}, 3),
        ({"/proc/self/cgroup": "0::/a/b\n", "/sys/fs/cgroup/a/cpu.max": "150000 100000\n"}, 2),
        ({"/proc/self/cgroup": "0::/a/b\n", "/sys/fs/cgroup/cpu.max": "400000 100000\n"}, 4),
        ({"/proc/self/cgroup": "0::/\n", "/sys/fs/cgroup/cpu.max": "1 100000\n"}, 1),
        ({"/proc/self/cgroup": "0::/\n", "/sys/fs/cgroup/cpu.max": "max 100000\n"}, 1 << 16),
        (
            {
                "/proc/self/cgroup": "9:memory:/m\n4:cpuacct,cpu:/a:b\n0::/\n",
                "/sys/fs/cgroup/memory/m/cpu.cfs_quota_us": "100000",
                "/sys/fs/cgroup/memory/m/cpu.cfs_period_us": "100000",
                "/sys/fs/cgroup/cpuacct,cpu/a:b/cpu.cfs_quota_us": "500000\n",
                "/sys/fs/cgroup/cpuacct,cpu/a:b/cpu.cfs_period_us": "100000\n",
            },
            5,
        ),
        ({"/proc/self/cgroup": "", "/sys/fs/cgroup/cpu.max": "100000 100000"}, 1 << 16),
        ({}, 1 << 16),
    ],
)
def test_quotas_of_all_groups_above(monkeypatch, files, quota):
    def fake_open(path):
        if path not in files:
            raise FileNotFoundError(path)
        return io.StringIO(files[path])

    monkeypatch.setattr(threads_module, "open", fake_open, raising=False)
    assert _cgroup_quota.__wrapped__() == quota


def test_default_threads(monkeypatch):
    monkeypatch.setenv("XAVIERFAST_THREADS", "1")
    assert default_threads() == 1
    monkeypatch.delenv("XAVIERFAST_THREADS")
    monkeypatch.setattr(threads_module, "_cgroup_quota", lambda: 100)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: range(7 if pid == 0 else 1), raising=False)
    assert default_threads() == 7
    monkeypatch.setattr(threads_module, "_cgroup_quota", lambda: 3)
    assert default_threads() == 3
    monkeypatch.delattr(os, "sched_getaffinity")
    for count, threads in ((2, 2), (5, 3), (None, 1)):
        monkeypatch.setattr(os, "cpu_count", lambda count=count: count)
        assert default_threads() == threads


def test_helpers_are_as_few_as_asked_for():
    out = run("""
        import xavierfast as xf
        from xavierfast._core import threads as pool
        for threads in (1, 3, 2, 4):
            xf.normal((1200, 1000), seed=1, threads=threads)
            print(len(pool._helpers))
    """)
    assert out.split() == ["0", "2", "2", "3"]


def test_helpers_do_work():
    names = set()

    def work(begin, end):
        names.add(threading.get_ident())
        time.sleep(0.01)

    parallel_for(200 * 256, 256, 256, 3, work)
    assert len(names) == 3


def test_as_many_threads_as_anybody_asks_for_are_bounded(monkeypatch):
    started = []
    monkeypatch.setattr(threads_module, "MAX_HELPERS", 5)
    monkeypatch.setattr(threads_module, "_helpers", {})
    monkeypatch.setattr(threads_module, "_tasks", deque())
    monkeypatch.setattr(threads_module, "start_new_thread", lambda *arguments: started.append(arguments))
    expected = xf.uniform(1 << 20, seed=0, threads=1)
    same_bits(xf.uniform(1 << 20, seed=0, threads=10**6), expected)
    assert len(started) == 5


def test_a_helper_that_an_exception_ends_is_replaced():
    """As ``PyThreadState_SetAsyncExc`` ends threads."""
    out = run("""
        import ctypes, sys, threading, time
        import numpy as np
        import xavierfast as xf
        from xavierfast._core import threads
        expected, ended = xf.uniform(1 << 20, seed=0, threads=3), 0
        for _ in range(5):
            while len(sys._current_frames()) < 3:  # a helper has no frame until it first has the GIL
                time.sleep(0.001)
            before = dict(threads._helpers)
            for ident in sys._current_frames().keys() - {threading.get_ident()}:
                ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(ident), ctypes.py_object(SystemExit))
            deadline = time.monotonic() + 20
            while any(threads._helpers.get(k) is v for k, v in before.items()) and time.monotonic() < deadline:
                try:  # wakes the helpers, which then see the exception
                    xf.uniform(1 << 20, seed=0, threads=3)
                except SystemExit:
                    ended += 1
            assert np.array_equal(xf.uniform(1 << 20, seed=0, threads=3), expected)
            assert not any(threads._helpers.get(k) is v for k, v in before.items())
        print(len(threads._helpers))
    """)
    assert out.split() == ["2"]


def test_a_helper_that_ends_before_it_begins_is_replaced(monkeypatch):
    """As an exception ends it that another thread has sent before its first step, or a lack of memory."""
    monkeypatch.setattr(threads_module, "_helpers", {})
    monkeypatch.setattr(threads_module, "_tasks", deque())
    monkeypatch.setattr(threads_module, "start_new_thread", lambda *arguments: None)
    expected = xf.uniform(1 << 20, seed=0, threads=1)
    same_bits(xf.uniform(1 << 20, seed=0, threads=4), expected)
    assert not threads_module._helpers


@pytest.mark.parametrize("first", ["normal", "truncated_normal"])
def test_a_large_fill_in_a_handler_while_the_first_one_begins(first):
    """Nothing is imported on the way, of which a handler could find a half."""
    out = run(f"""
        import sys
        import xavierfast as xf
        before = set(sys.modules)
        xf.{first}(1 << 20, seed=0, threads=3)
        print(*sorted(set(sys.modules) - before))
    """)
    assert not out.split()


AGAIN = """
import faulthandler, gc, os, queue, signal, sys, threading, time, warnings, weakref, _thread
import numpy as np
import xavierfast as xf

faulthandler.dump_traceback_later(60, exit=True)
warnings.simplefilter("ignore", DeprecationWarning)  # Python warns of fork in a process with threads
found, count = [], 0


def fill(seed=1):
    return xf.normal(1 << 20, seed=seed, threads=3)


def fill_again(*_):
    global count
    count += 1
    if count <= 5:
        found.append(fill(2))


def right(array, seed=1):
    return np.array_equal(array, xf.normal(1 << 20, seed=seed, threads=1))


"""


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="POSIX signals")
@pytest.mark.parametrize(
    "setting",
    [
        "signal.signal(signal.SIGALRM, fill_again); signal.setitimer(signal.ITIMER_REAL, 1e-4, 1e-3)",
        "gc.callbacks.append(fill_again); gc.set_threshold(1)",
        "sys.settrace(lambda frame, *_: fill_again() if 'threads.py' in frame.f_code.co_filename else None)",
        "class Own:\n    __del__ = fill_again\nown = Own(); own.me = own; del own; gc.set_threshold(1)",
        "class Own: pass\nown = Own(); own.me = own; r = weakref.ref(own, fill_again); del own; gc.set_threshold(1)",
    ],
    ids=["signal", "gc", "trace", "del", "weakref"],
)
def test_a_fill_within_the_first_fill(setting):
    if FREE_THREADED and "callbacks" in setting:
        pytest.skip("free-threaded CPython collects no garbage in a fill, whatever the threshold")
    out = run(
        AGAIN
        + setting
        + """
array = fill()
gc.callbacks.clear()
sys.settrace(None)
signal.signal(signal.SIGALRM, signal.SIG_IGN)
gc.collect()
assert found
print(right(array), all(right(each, 2) for each in found))
"""
    )
    assert out == "True True\n"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
@pytest.mark.skipif(FREE_THREADED, reason="free-threaded CPython forks with locks held")
def test_a_fork_in_the_middle_of_a_fill():
    """The parent's fill is right. The child's ends with the right values or an error, and its next fill is right."""
    out = run(
        AGAIN
        + """
children, in_child = [], False

def fork(*_):
    global in_child
    children.append(os.fork())
    if not children[-1]:
        in_child = True
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(60)

signal.signal(signal.SIGALRM, fork)
for k in range(6):
    signal.setitimer(signal.ITIMER_REAL, 1e-3 + k / 500)
    while len(children) == k:
        try:
            good = right(fill())
        except RuntimeError as error:
            good = in_child and "forked in its middle: fill again" in str(error) and right(fill())
    if in_child:
        os._exit(0 if good and right(fill()) else 3)
    assert good
print([os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children])
"""
    )
    assert out == f"{[0] * 6}\n"


def test_an_error_in_a_fill_keeps_no_array_alive():
    """Neither of the caller nor of a helper, without a collection of garbage."""
    out = run(
        AGAIN
        + """
gc.disable()

class Own(np.ndarray):
    pass

from xavierfast._core import threads as pool

def failing_fills():  # a function, since free-threaded CPython leaves what modules hold to the collection of garbage
    caller, arrays = threading.get_ident(), []
    for by_helper in (True, False) * 5:
        array = np.empty(9).view(Own)
        arrays.append(weakref.ref(array))

        def work(begin, end, array=array):
            time.sleep(0.001)
            if (threading.get_ident() != caller) == by_helper:
                raise ValueError

        try:
            pool.parallel_for(10**6, 1, 1000, 3, work)
        except ValueError:
            pass
        del array, work
    return arrays

arrays = failing_fills()
time.sleep(0.1)  # a helper forgets its task after the caller's end
print([array() for array in arrays], pool._open)
"""
    )
    assert out == f"{[None] * 10} set()\n"


def test_threads_and_locks_that_others_exchange():
    """As gevent and eventlet do, after the import."""
    out = run(
        AGAIN
        + """
def never(*_, **__):
    raise AssertionError("a greenlet's")

for name in ("allocate_lock", "RLock", "start_new_thread", "get_ident"):
    setattr(_thread, name, never)
for name in ("Thread", "Lock", "RLock", "Condition", "Event", "_allocate_lock", "_start_new_thread", "get_ident"):
    setattr(threading, name, never)
queue.SimpleQueue = queue.Queue = time.sleep = never
print(right(fill()))
"""
    )
    assert out == "True\n"


def test_subinterpreters_are_refused_and_do_not_take_the_kernels_from_the_main_one():
    """Threads of a fill would abort the process when the subinterpreter is destroyed."""
    out = run("""
        import importlib.util, sys, warnings
        warnings.simplefilter("ignore")
        names = "_interpreters", "_xxsubinterpreters"
        interpreters = next(filter(None, (importlib.util.find_spec(name) for name in names)), None)
        if interpreters is None:
            sys.exit("no subinterpreters")
        interpreters = importlib.import_module(interpreters.name)
        code = "import xavierfast as xf; xf.normal(1 << 20, threads=3)"
        for _ in range(2):
            each = interpreters.create(*["legacy"] * (interpreters.__name__ == "_interpreters"), **(
                {"isolated": False} if interpreters.__name__ == "_xxsubinterpreters" else {}
            ))
            try:
                error = interpreters.run_string(each, code)
            except Exception as raised:
                error = raised
            print("needs the main interpreter" in str(error))
            interpreters.destroy(each)
        exec(code)
        print("end")
    """)
    assert out == "True\nTrue\nend\n"

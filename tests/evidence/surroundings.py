"""Fills in unusual surroundings: python tests/evidence/surroundings.py [--quick].

Contexts of decimal, NumPy's error handling, warnings, locales, limits of recursion, digits, memory, threads and files,
options of Python, tracing, exchanged threads, missing modules and streams, rounding modes ...: each is set before the
import, after it, or after a first large fill, in a process of its own, which then makes tables of most kinds. Then come
fills that begin in the middle of a fill: in signal handlers, finalisers, callbacks and trace functions, beside forks
and asynchronous exceptions.

Each must end with the values that Python gives undisturbed and leave the surroundings as they were, or with an error in
one sentence where one is expected. --quick tries every ninth.
"""

import os
import random
import re
import subprocess
import sys
import textwrap

HANG = 120  # seconds

# What every process does after its surroundings are set. `state()` lists what must be the same afterwards.
PROBE = """
import decimal, gc, hashlib, locale, os, random, signal, sys, threading, warnings
import numpy as np


def state():
    return (
        repr(decimal.getcontext()), repr(decimal.DefaultContext), np.geterr(), locale.setlocale(locale.LC_ALL),
        random.getstate(), str(np.random.get_state()), list(warnings.filters), sys.getrecursionlimit(),
        sys.getswitchinterval(), sys.get_int_max_str_digits(), gc.get_threshold(), gc.isenabled(), dict(os.environ),
        sys.gettrace(), sys.getprofile(), signal.getsignal(signal.SIGINT), np.get_printoptions(),
    )


def probe():
    import xavierfast as xf

    digest = hashlib.sha256()
    for init, keywords in (
        ("xavier_uniform", {}), ("he_normal", {"seed": 10**5000}), ("truncated_normal", {"low": -1, "high": 3}),
        ("truncated_normal", {"low": 6.0, "high": 9.0}), ("lecun_truncated_normal", {}), ("zeros", {}),
        ("uniform", {"low": 0.3, "high": 0.7}), ("normal", {"mean": 0.5, "std": 1e-3}), ("random_constant", {}),
    ):
        for dtype in ("float32", "float64", "float16", "bfloat16", "float8_e4m3fn", "complex64"):
            keywords = {"seed": 3, "name": "n\\u00e4me", "dtype": dtype} | keywords
            try:
                table = xf.Table((900, 700), init, **keywords)
            except ValueError:  # complex values have no mean, and some dtypes do not hold all values
                digest.update(b"refused")
                continue
            digest.update(table.read(slice(300), threads=3).tobytes() + table[[5, -1], 3:9].tobytes())
            repr(table), table.describe(), table.mean, table.std, table.density([0.1, 0.2]), hash(table)
            assert xf.Table.from_recipe(table.recipe) == table
    tensors = {"a.w": (40, 30), "a.b": 30, "c.w": np.zeros((7, 9), "f4")}
    for array in xf.init(tensors, {"*.b": "zeros", "*": "he_uniform"}, seed=4).values():
        digest.update(array.tobytes())
    for order in "CF":
        digest.update(xf.normal(out=np.zeros((1500, 700), "f4", order=order), seed=1, threads=3).tobytes())
    return digest.hexdigest()
"""
# What is set, after its name; after a bar, a pattern of the error that may be raised instead of the values.
SETTINGS = r"""
== nothing
== decimal: all traps
import decimal
for signal_ in decimal.getcontext().traps: decimal.getcontext().traps[signal_] = True
== decimal: all traps by default
import decimal
for signal_ in decimal.DefaultContext.traps: decimal.DefaultContext.traps[signal_] = True
decimal.setcontext(decimal.DefaultContext)
== decimal: no traps by default
import decimal
for s in decimal.DefaultContext.traps: decimal.DefaultContext.traps[s] = False
== decimal: three digits
import decimal
decimal.DefaultContext.prec = decimal.getcontext().prec = 3
== decimal: rounds up, small exponents
import decimal
for c in (decimal.DefaultContext, decimal.getcontext()):
    c.rounding, c.Emin, c.Emax, c.clamp = decimal.ROUND_UP, -1, 1, 1
== NumPy: errors are raised
import numpy
numpy.seterr(all='raise')
== NumPy: errors call what raises
import numpy
numpy.seterr(all='call')
numpy.seterrcall(lambda *_: 1 / 0)
== NumPy: printed as in 1.13
import numpy
numpy.set_printoptions(legacy='1.13', precision=1)
== warnings are errors
import warnings
warnings.simplefilter('error')
== a locale of the environment
import locale
locale.setlocale(locale.LC_ALL, '')
== few frames | RecursionError: 
import sys
sys.setrecursionlimit(120)
== few digits of ints
import sys
sys.set_int_max_str_digits(640)
== a tracer
import sys, threading
t = lambda *_: t
sys.settrace(t)
threading.settrace(t)
== a profiler
import sys, threading
p = lambda *_: None
sys.setprofile(p)
threading.setprofile(p)
== faulthandler
import faulthandler
faulthandler.enable()
== tracemalloc
import tracemalloc
tracemalloc.start(9)
== small stacks of threads
import threading
threading.stack_size(32768)
== garbage collected at each object
import gc
gc.set_threshold(1)
== no garbage collection
import gc
gc.disable()
== a switch of threads each microsecond
import sys
sys.setswitchinterval(1e-6)
== hardly any switch of threads
import sys
sys.setswitchinterval(2)
== one CPU
import os
os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
== no thread can start
import _thread
def start(*_): raise RuntimeError("can't start new thread")
_thread.start_new_thread = start
== the second thread cannot start
import _thread
real, n = _thread.start_new_thread, []
def start(*a):
    n.append(1)
    if len(n) > 1: raise RuntimeError
    return real(*a)
_thread.start_new_thread = start
== little address space | (\w+\.)*_?(MemoryError|ArrayMemoryError)\b|ImportError: .*(failed to map|cannot allocate)
import resource, os
used = int(open('/proc/self/statm').read().split()[0]) * os.sysconf('SC_PAGESIZE')
resource.setrlimit(resource.RLIMIT_AS, (used + (48 << 20),) * 2)
== no more files | OSError: .*Too many open files|ImportError: .*Too many open files|ModuleNotFoundError: 
import os, resource, numpy
n = len(os.listdir('/proc/self/fd'))
resource.setrlimit(resource.RLIMIT_NOFILE, (n - 1, n - 1))
== no large files
import resource
resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
== no streams
import os, sys
sys.stdin.close(), sys.stderr.flush()
sys.stdin = None
== a folder that is gone
import os, tempfile
f = tempfile.mkdtemp()
os.chdir(f)
os.rmdir(f)
== an empty environment
import os
os.environ.clear()
== no decimal in C
import sys
sys.modules['_decimal'] = None
== no queue in C
import sys
sys.modules['_queue'] = None
== upward rounding
import ctypes
ctypes.CDLL('libm.so.6').fesetround(0x800)
== downward rounding
import ctypes
ctypes.CDLL('libm.so.6').fesetround(0x400)
== floating-point exceptions that kill
import ctypes
ctypes.CDLL('libm.so.6').feenableexcept(0x0d)
== exchanged threads
import _thread, queue, threading
def never(*_, **__): raise AssertionError
_thread.RLock = threading.Condition = threading.Event = queue.SimpleQueue = queue.Queue = never
== gevent
from gevent import monkey
monkey.patch_all()
== eventlet
import warnings
warnings.simplefilter('ignore')
import eventlet
eventlet.monkey_patch()
== a loop of asyncio
import asyncio
plain = probe
def probe():
    async def main(): return plain()
    return asyncio.run(main())
== a thread
import threading
plain_ = probe
def probe():
    f = []
    t = threading.Thread(target=lambda: f.append(plain_()))
    t.start(), t.join()
    return f[0]
== seeds of the legacy generators
import random, numpy
random.seed(1), numpy.random.seed(1)
"""
# Options and variables of the process, with the same kind of pattern.
PROCESSES: dict[str, tuple[list[str], dict[str, str], str]] = {
    "-O": (["-O"], {}, ""),
    "-OO": (["-OO"], {}, ""),
    "-X dev": (["-X", "dev"], {}, ""),
    "-W error": (["-W", "error"], {}, ""),
    "-X dev -W error": (["-X", "dev", "-W", "error"], {}, ""),
    "-X utf8=0": (["-X", "utf8=0"], {"LC_ALL": "C", "PYTHONIOENCODING": "ascii"}, ""),
    "-X no_debug_ranges": (["-X", "no_debug_ranges"], {}, ""),
    "-X int_max_str_digits": (["-X", "int_max_str_digits=640"], {}, ""),
    "-b": (["-bb"], {}, ""),
    "PYTHONHASHSEED=0": ([], {"PYTHONHASHSEED": "0"}, ""),
    "PYTHONHASHSEED=4242": ([], {"PYTHONHASHSEED": "4242"}, ""),
    "PYTHONMALLOC=debug": ([], {"PYTHONMALLOC": "debug"}, ""),
    "PYTHONMALLOC=malloc": ([], {"PYTHONMALLOC": "malloc", "MALLOC_PERTURB_": "165"}, ""),
    "LC_ALL=tr_TR": ([], {"LC_ALL": "tr_TR.UTF-8"}, ""),
    "no home": ([], {"HOME": "/nowhere", "TMPDIR": "/nowhere"}, ""),
    "XAVIERFAST_LEVEL=portable": ([], {"XAVIERFAST_LEVEL": "portable"}, ""),
    "XAVIERFAST_LEVEL=sse9": ([], {"XAVIERFAST_LEVEL": "sse9"}, "ImportError: XAVIERFAST_LEVEL must be "),
    "XAVIERFAST_THREADS=1": ([], {"XAVIERFAST_THREADS": "1"}, ""),
    "XAVIERFAST_THREADS=many": ([], {"XAVIERFAST_THREADS": "9" * 18}, ""),
    "OMP_NUM_THREADS=1": ([], {"OMP_NUM_THREADS": "1"}, ""),
}
MOMENTS = ("before the import", "after the import", "after a large fill")
# A fill that begins in the middle of another one.
AGAIN = """
import ctypes, faulthandler, gc, os, signal, sys, threading, time, warnings, weakref
faulthandler.dump_traceback_later(100, exit=True)
warnings.simplefilter("ignore")
import numpy as np
import xavierfast as xf
from xavierfast._core import threads as pool

SIZE, found, begun = 1 << 20, [], []

def fill(seed=1):
    return xf.normal(SIZE, seed=seed, threads=3)

def again(*_):
    if len(begun) < 8:
        begun.append(1)
        found.append(fill(2))

def right(array, seed=1):
    return np.array_equal(array, xf.normal(SIZE, seed=seed, threads=1))

def every(seconds, action, error=None):
    signal.signal(signal.SIGALRM, action)
    signal.setitimer(signal.ITIMER_REAL, DELAY, seconds)

def send(idents, error):
    for ident in idents:
        ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(ident), ctypes.py_object(error))

class Own(np.ndarray):
    pass
"""
WITHIN = {
    "a signal's handler": "every(0, again)\narray = fill()\nwhile not found: time.sleep(0.001)",
    "many signals' handlers": "every(DELAY, again)\narray = fill()\nwhile len(found) < 8: time.sleep(0.001)",
    "__del__": "class A: __del__ = again\na = A(); a.me = a; del a\ngc.set_threshold(1)\narray = fill()\ngc.collect()",
    "a weak reference's callback": "class A: pass\na = A(); a.me = a; r = weakref.ref(a, again); del a\n"
    "gc.set_threshold(1)\narray = fill()\ngc.collect()",
    "the collector's callback": "gc.callbacks.append(again)\ngc.set_threshold(1)\narray = fill()\ngc.callbacks.clear()",
    "a trace function": "sys.settrace(lambda f, *_: again() if 'threads.py' in f.f_code.co_filename else None)\n"
    "array = fill()\nsys.settrace(None)",
    "a fork by a handler": """
children, child = [], []
def fork(*_):
    if len(children) < 6 and not child:
        pid = os.fork()
        if pid:
            children.append(pid)
        else:
            child.append(1)
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            signal.alarm(100)
every(0, fork)
while len(children) < 6:
    signal.setitimer(signal.ITIMER_REAL, DELAY)
    try:
        array = fill()
    except RuntimeError as error:
        assert child and "fill again" in str(error)
        array = fill()
    assert right(array)
    if child:
        os._exit(0 if right(fill()) else 3)
signal.setitimer(signal.ITIMER_REAL, 0)
assert not any(os.waitpid(pid, 0)[1] for pid in children)
found.append(fill(2))
""",
    "exceptions sent to helpers": """
me, stop = threading.get_ident(), threading.Event()
def shoot():
    while not stop.wait(DELAY):
        send(sys._current_frames().keys() - {me, threading.get_ident()}, random_error())
def random_error():
    return (SystemExit, KeyboardInterrupt, ValueError)[int(time.time() * 1e6) % 3]
shooter = threading.Thread(target=shoot); shooter.start()
until, hits = time.monotonic() + 2, 0
while time.monotonic() < until or not hits:
    try:
        assert right(fill())
    except (SystemExit, KeyboardInterrupt, ValueError):
        hits += 1
stop.set(); shooter.join()
while len(pool._helpers) < 2 or time.monotonic() < until + 1:  # some exceptions arrive only now
    try:
        fill()
    except (SystemExit, KeyboardInterrupt, ValueError):
        pass
array = fill()
assert not pool._open
found.append(fill(2))
""",
    "exceptions sent to callers": """
gc.disable()
stop, idents, arrays, hits = threading.Event(), [], [], []
def call():
    idents.append(threading.get_ident())
    while True:
        out = None
        try:
            while not stop.is_set():
                out = np.empty(SIZE, np.float32).view(Own)
                arrays.append(weakref.ref(out))
                xf.normal(out=out, seed=1, threads=3)
            return
        except ValueError:
            hits.append(1)
callers = [threading.Thread(target=call) for _ in range(2)]
for caller in callers: caller.start()
until = time.monotonic() + 2
while time.monotonic() < until or not hits:
    send(idents, ValueError)
    time.sleep(max(DELAY, 0.003))
stop.set()
for caller in callers: caller.join()
time.sleep(0.3)
assert not any(array() is not None for array in arrays) and not pool._open
array = fill()
found.append(fill(2))
""",
    "interrupts that are caught": """
gc.disable()
arrays = []
def interrupt(*_):
    raise KeyboardInterrupt
signal.signal(signal.SIGALRM, interrupt)
for k in range(40):
    out = np.empty(SIZE, np.float32).view(Own)
    arrays.append(weakref.ref(out))
    try:
        signal.setitimer(signal.ITIMER_REAL, DELAY * (1 + k % 10) / 5)
        while True:
            xf.normal(out=out, seed=1, threads=3)
    except KeyboardInterrupt:
        out = None
time.sleep(0.3)
assert not any(array() is not None for array in arrays) and not pool._open
array = fill()
found.append(fill(2))
""",
}


WITHIN_END = """
signal.setitimer(signal.ITIMER_REAL, 0)
assert found and all(right(each, 2) for each in found) and right(array)
print("right")
"""


def settings() -> list[tuple[str, str, str]]:
    """Name, text and pattern of each."""
    found = []
    for part in SETTINGS.split("== ")[1:]:
        head, _, text = part.partition("\n")
        name, _, pattern = head.partition(" | ")
        found.append((name, text, pattern))
    return found


def python(code: str, options: list[str], variables: dict[str, str]) -> tuple[int | None, str, str]:
    """Exit code, output and errors; no exit code after a hang."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("XAVIERFAST")}
    command = [sys.executable, "-P", *options, "-c", code]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=HANG, env=environment | variables)
    except subprocess.TimeoutExpired:
        return None, "", "it hangs"
    return done.returncode, done.stdout, done.stderr


def program(setting: str, moment: str) -> str:
    guard = (
        "import sys\ntry:\n" + textwrap.indent(setting or "pass", "    ") + "\nexcept ImportError:\n    sys.exit(77)\n"
    )
    steps = {
        "before the import": [guard],
        "after the import": ["import xavierfast", guard],
        "after a large fill": ["import xavierfast as xf", "xf.normal(1 << 20, threads=3)", guard],
    }[moment]
    end = """
before = state()
found = probe()
changed = [(old, new) for old, new in zip(before, state(), strict=True) if old != new]
assert not changed, f"the surroundings have changed: {changed!r:.200}"
print(found)
"""
    return "\n".join([PROBE, *steps, end])


def judge(result: tuple[int | None, str, str], golden: str, expected: str) -> str:
    """An empty text if the surroundings held, "cannot run", or what was found."""
    code, output, errors = result
    if code == 77:
        return "cannot run"
    if code == 0 and output.split()[-1:] == [golden]:
        return "" if not errors.strip() else f"it wrote {errors.strip()[-300:]!r}"
    last = (errors.strip().splitlines() or [""])[-1]
    if code == 1 and expected and re.match(expected, last):
        return ""
    return f"exit code {code}, {output[-100:]!r}, {errors[-1500:]}"


def main(quick: bool = False) -> int:
    rng = random.Random(0)
    code, golden, errors = python(program("", "before the import"), [], {})
    golden = golden.strip()
    assert code == 0 and len(golden) == 64, errors
    kinds: dict[str, list[int]] = {}  # tried, held and found
    findings = []

    def count(kind: str, case: str, found: str) -> None:
        if found != "cannot run":
            row = kinds.setdefault(kind, [0, 0, 0])
            row[0] += 1
            row[2 if found else 1] += 1
        if found:
            print(f"{'-' if found == 'cannot run' else 'FOUND'} {case}: {found}", flush=True)
            if found != "cannot run":
                findings.append(case)

    cases: list[tuple[str, str, str, list[str], dict[str, str], str]] = [
        (f"set {moment}", f"{name}, {moment}", program(setting, moment), [], {}, expected)
        for name, setting, expected in settings()
        for moment in MOMENTS
    ]
    cases += [
        ("options and variables", name, program("", "before the import"), options, variables, expected)
        for name, (options, variables, expected) in PROCESSES.items()
    ]
    for kind, case, text, options, variables, expected in cases[::9] if quick else cases:
        count(kind, case, judge(python(text, options, variables), golden, expected))
    # Two that must be found: other values, and a change of the surroundings.
    other = program("", "before the import").replace('"seed": 3', '"seed": 5')
    changed = program("", "before the import").replace("found = probe()", "found = probe(); np.seterr(all='raise')")
    for text in (other, changed):
        assert judge(python(text, [], {}), golden, ""), "a planted fault was not noticed"

    for name, text in list(WITHIN.items())[:: 3 if quick else 1]:
        for round_ in range(1 if quick else 5):
            delay = rng.choice([1e-4, 3e-4, 1e-3, 3e-3, 0.01])
            result = python(AGAIN.replace("DELAY", str(delay)) + text.replace("DELAY", str(delay)) + WITHIN_END, [], {})
            count("a fill within a fill", f"{name}, after {delay} s, round {round_}", judge(result, "right", ""))

    print(f"{'kind':26}{'tried':>8}{'held':>8}{'found':>8}")
    for kind, row in kinds.items():
        print(f"{kind:26}" + "".join(f"{number:8}" for number in row))
    tried = sum(row[0] for row in kinds.values())
    print(f"{tried} surroundings: {tried - len(findings)} held, {len(findings)} findings")
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main("--quick" in sys.argv))

"""Sanitizers below the tests: ``python tests/evidence/sanitizers.py [address] [thread] [valgrind] [TESTS]``.

address   clang's AddressSanitizer and UndefinedBehaviorSanitizer in the kernels, below the tests and below threads at
          work, which fill, gather, stream, create and verify
thread    clang's ThreadSanitizer in the kernels, below those threads, which meet at the GIL between two kernels
valgrind  memcheck below the known answers, levels and goldens: values made from what nothing has written

All three, if none is named. Each level first has to betray faults that are planted in calls of it: a write behind the
memory, a misaligned word, two threads at one element, an unwritten byte. TESTS and other arguments of pytest take the
place of the usual tests: ``address tests/test_known_answers.py tests/test_levels.py`` is the quick version.
"""

import argparse
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import threading
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from itertools import product
from pathlib import Path
from time import monotonic

OURS = "xavierfast/kernels/"  # in each frame of the kernels, with line numbers and without
UNABLE = 77
N = 1 << 21

FLAGS = {
    # Undefined behaviour ends the process, as a bad address does.
    "address": "-g -fsanitize=address,undefined -fno-sanitize-recover=undefined -fno-omit-frame-pointer -shared-libsan",
    # ThreadSanitizer does not look at accesses of 32 and 64 bytes; the -O3 behind would undo -fno-vectorize.
    "thread": "-g -fsanitize=thread -mllvm -vectorize-loops=false -mllvm -vectorize-slp=false",
    "valgrind": "-g",
}
LEFT_OUT = ("torch", "jax", "keras", "dask", "docs", "cli", "propagation")
TESTS = {
    "address": ["tests", "-k", "not no_temporaries", *(f"--ignore=tests/test_{name}.py" for name in LEFT_OUT)],
    "valgrind": ["tests/test_known_answers.py", "tests/test_levels.py", "tests/test_goldens.py"],
}
# What is planted, and what the report must say.
FAULTS = {
    "address": {
        "a write behind the memory": "heap-buffer-overflow",
        "a streamed write behind the memory": "in move_lines",
        "a read behind the memory": "heap-buffer-overflow",
        "a misaligned word": "misaligned address",
    },
    "thread": {"two threads at one element": "data race", "two threads stream one line": "in move_lines"},
    "valgrind": {"an unwritten byte": "UninitCondition", "a write behind the memory": "InvalidWrite"},
}


# ---- in the process that is looked at


def levels() -> None:
    from xavierfast import kernels

    print(kernels.__file__, *kernels.levels)


def commit(fault: str, level: str) -> None:
    import numpy as np

    from xavierfast import kernels

    kernel, out = import_module(f"xavierfast.kernels.{level}"), np.empty(N, np.float32)
    address, together = out.ctypes.data, threading.Barrier(2)

    def fill(begin: int, end: int, streaming: bool = False, key: bytes = bytes(32)) -> None:
        place = address + 4 * begin
        kernel.fill(kernels.UNIFORM, kernels.FLOAT32, key, (1.0,), place, begin, end - begin, streaming)

    def meet(begin: int, end: int, streaming: bool) -> None:
        for _ in range(5):
            together.wait()
            fill(begin, end, streaming)

    def threads(shared: int, streaming: bool) -> None:
        other = threading.Thread(target=meet, args=(N // 2, N, streaming))
        other.start()
        meet(0, N // 2 + shared, streaming)
        other.join()

    match fault:
        case "a write behind the memory":
            fill(0, N + 1)
        case "a streamed write behind the memory":
            fill(0, N + kernels.TILE, True)
        case "a read behind the memory":
            fill(0, N)  # since `equals` ends at the first difference
            kernel.equals(kernels.UNIFORM, kernels.FLOAT32, bytes(32), (1.0,), address, 0, N + 1)
        case "a misaligned word":
            kernel.values(kernels.UNIFORM, kernels.FLOAT32, (1.0,), address + 1, address, 1)
        case "an unwritten byte":
            kernel.equals(kernels.UNIFORM, kernels.FLOAT32, bytes(32), (1.0,), address, 0, N)
        case "two threads at one element":
            threads(1, False)
        case "two threads stream one line":
            threads(kernels.TILE, True)


def work() -> None:
    """Tables in small pieces from four threads, for four callers at once; then the same on disk."""
    import numpy as np

    import xavierfast as xf
    from xavierfast import files
    from xavierfast._core import fill, threads

    fill.PARALLEL_MIN_BYTES = fill.PIECE_BYTES = 1 << 12
    threads.MIN_PIECE_SECONDS = threads.MAX_PIECE_SECONDS = 0
    fill.FASTER_THAN_MEMORY = set(range(8))
    shape = (131, 100)
    indices = [
        ...,
        slice(None, None, -1),
        (slice(None), slice(3, 90, 2)),
        np.random.default_rng(0).integers(-131, 131, 300),
        ([*range(-100, 100)], [*range(100)] * 2),
        np.frombuffer(bytes(1) + np.arange(131).tobytes(), np.int64, offset=1),  # misaligned
    ]
    layouts = [
        lambda shape, dtype: np.ones(shape, dtype),
        lambda shape, dtype: np.ones(shape[::-1], dtype).T,
        lambda shape, dtype: np.ones((*shape[:-1], 2 * shape[-1]), dtype)[..., ::-2],
        lambda shape, dtype: np.ones(int(np.prod(shape)) * dtype.itemsize + 1, "u1")[1:].view(dtype).reshape(shape),
    ]
    kinds = [
        ("constant", {"value": 1.5}),
        ("uniform", {}),
        ("normal", {}),
        ("truncated_normal", {}),
        ("truncated_normal", {"low": -3.0, "high": 3.0}),
        ("truncated_normal", {"low": -3.0}),
    ]
    dtypes = ("float32", "float64", "float16", "bfloat16", "float8_e5m2", "complex64")
    tables = {
        f"{k} {dtype}": xf.Table(shape, kind, seed=k, name=dtype, dtype=dtype, **bounds)
        for (k, (kind, bounds)), dtype in product(enumerate(kinds), dtypes)
        if (k, dtype) != (5, "complex64")  # whose moduli have no lower bound
    }
    fills, callers = 0, 4

    def read(index: object, wanted: dict[str, np.ndarray]) -> None:
        for (name, table), layout in product(tables.items(), layouts):
            out = layout(wanted[name].shape, wanted[name].dtype)
            table.read(index, out, threads=4)
            assert out.tobytes() == wanted[name].tobytes(), name

    for streaming, index in product((1 << 62, 0), indices):
        fill.STREAMING_MIN_BYTES = streaming
        wanted = {name: table.read(index, threads=1) for name, table in tables.items()}
        with ThreadPoolExecutor(callers) as pool:
            list(pool.map(read, [index] * callers, [wanted] * callers))
        fills += callers * len(tables) * len(layouts)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "x.safetensors")
        files.create(path, tables, threads=4, sync=False)
        assert files.verify(path, threads=4).ok
        fills += 2 * len(tables)
    print(f"{fills:,} fills", flush=True)


# ---- around it


class Unable(Exception):
    """Why this machine cannot run a sanitizer."""


def library(kind: str) -> str:
    """What a Python that was built without the sanitizer has to load first."""
    # clang 14's libtsan crashes when it is loaded first; gcc's serves clang's code too.
    clangs = f"libclang_rt.asan-{platform.machine()}.so"
    compiler, name = ("clang", clangs) if kind == "address" else ("gcc", "libtsan.so")
    if not shutil.which(compiler):
        raise Unable(f"{compiler} is not installed")
    command = [compiler, f"-print-file-name={name}"]
    path = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    if not os.path.isabs(path):
        raise Unable(f"{compiler} comes without {name}")
    return path


def settings(kind: str, logs: Path) -> tuple[list[str], dict[str, str]]:
    """The start of a command, and variables for it."""
    log = f"log_path={logs}/report"
    if kind == "valgrind":
        if not shutil.which("valgrind"):
            raise Unable("valgrind is not installed")
        tool = ["valgrind", "--track-origins=yes", "--error-limit=no", "--xml=yes", f"--xml-file={logs}/%p.xml"]
        return tool, {"PYTHONMALLOC": "malloc"}
    if not shutil.which("clang"):
        raise Unable("clang is not installed")
    if kind == "thread":
        return [], {"TSAN_OPTIONS": f"exitcode=0:die_after_fork=0:{log}", "LD_PRELOAD": library(kind)}
    return [], {
        # Python keeps memory until it ends, and kernels allocate none.
        "ASAN_OPTIONS": f"detect_leaks=0:allocator_may_return_null=1:{log}",
        "UBSAN_OPTIONS": f"print_stacktrace=1:{log}",
        "LD_PRELOAD": library(kind),
        "PYTHONMALLOC": "malloc",
    }


def build(folder: Path, kind: str) -> None:
    from sources import copy_sources  # which what runs inside, by -P, does not find

    copy_sources(folder, "docs", "benches")
    environment = os.environ | {"CFLAGS": FLAGS[kind]} | ({} if kind == "valgrind" else {"CC": "clang"})
    command = [sys.executable, "setup.py", "-q", "build_ext", "-i"]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise Unable(f"the kernels cannot be built: {done.stderr.strip()[-500:]}")


def collect(logs: Path) -> list[str]:
    """The reports since the last time."""
    found = []
    for path in sorted(logs.iterdir()):
        text = path.read_text(errors="replace")
        if path.suffix == ".xml":
            # Python keeps its modules until it ends, and valgrind cannot be kept from telling that in XML.
            found += [
                error for error in re.findall("<error>.*?</error>", text, re.DOTALL) if "<kind>Leak_" not in error
            ]
        else:
            found += [part for part in re.split("^={18}$", text, flags=re.MULTILINE) if part.strip()]
        path.unlink()
    return found


def look(kind: str, tests: list[str]) -> int:
    """How many things a sanitizer finds, once it has found what is planted."""
    began, found = monotonic(), 0
    with tempfile.TemporaryDirectory() as outer:
        folder, logs = Path(outer, "tree").resolve(), Path(outer, "reports")
        logs.mkdir()
        tool, variables = settings(kind, logs)
        build(folder, kind)
        environment = os.environ | {"PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1"} | variables
        environment.pop("XAVIERFAST_LEVEL", None)

        def run(*arguments: str, **variables: str) -> tuple[int, str]:
            command = [*tool, sys.executable, "-P", *arguments]
            output = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
            done = subprocess.run(command, cwd=folder, env=environment | variables, text=True, **output)
            return done.returncode, done.stdout.strip()

        code, output = run(__file__, "inside", "levels")
        if code or not output.startswith(str(folder)):
            raise Unable(f"{output[-500:]} was imported, not the kernels built for it")
        levels = output.split()[1:]
        print(f"{kind}: {', '.join(levels)} built in {monotonic() - began:.0f} s", flush=True)
        collect(logs)
        for fault, words in FAULTS[kind].items():
            blind = []
            for level in levels:
                run(__file__, "inside", "commit", fault, level)
                if not any(words in report and OURS in report for report in collect(logs)):
                    blind.append(level)
            if blind:
                raise Unable(f"it does not see {fault} at {', '.join(blind)}")
            print(f"  {fault}: seen at each level", flush=True)

        def examine(what: str, *arguments: str, **variables: str) -> int:
            started = monotonic()
            code, output = run(*arguments, **variables)
            reports = collect(logs)
            ours = [report for report in reports if OURS in report]
            last = output.splitlines()[-1] if output else "no output"
            print(f"  {what}: {last}; exit code {code}, {monotonic() - started:.0f} s, ", end="")
            print(f"{len(ours)} reports of the kernels, {len(reports) - len(ours)} of others", flush=True)
            for report in ours[:5]:
                print(report[:3000])
            if code:
                print(output[-3000:])
            return len(ours) + bool(code and not ours)

        if kind == "thread" or (kind == "address" and not tests):
            for level in levels:
                found += examine(f"threads, {level}", __file__, "inside", "work", XAVIERFAST_LEVEL=level)
        if kind == "address" and not tests:
            print(
                f"  left out, as they ask nothing else of the kernels: the tests of {', '.join(LEFT_OUT)}; and those of"
            )
            print("  peak memory, which the sanitizer's own would fail")
        if tests := tests or TESTS.get(kind, []):
            found += examine("tests", "-m", "pytest", "-q", "-p", "no:cacheprovider", *tests)
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description="Sanitizers below the tests.", epilog="Other arguments are pytest's.")
    _, rest = parser.parse_known_args()
    kinds = [kind for kind in FLAGS if kind in rest] or list(FLAGS)
    tests = [argument for argument in rest if argument not in FLAGS]
    found, unable, began = 0, [], monotonic()
    for kind in kinds:
        try:
            found += look(kind, tests)
        except Unable as reason:
            unable.append(f"{kind}: {reason}")
            print(unable[-1], flush=True)
    ran = ", ".join(kind for kind in kinds if not any(reason.startswith(kind) for reason in unable)) or "nothing"
    print(f"{ran} in {monotonic() - began:.0f} s: {found or 'nothing'} found that was not planted", end="")
    print("".join(f"; cannot run {reason}" for reason in unable))
    return 1 if found else UNABLE if unable else 0


if __name__ == "__main__":
    if sys.argv[1:2] == ["inside"]:
        {"levels": levels, "commit": commit, "work": work}[sys.argv[2]](*sys.argv[3:])
    else:
        sys.exit(main())

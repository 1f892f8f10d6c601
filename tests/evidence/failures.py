"""Calls of the C library that fail, one at a time: python tests/evidence/failures.py [ROUNDS] [SEED].

A small library, compiled here and loaded by LD_PRELOAD, makes the n-th call of one function fail while files are
created, replaced, finished, verified and read, and while arrays are filled: memory (malloc, mmap), threads
(pthread_create), files (open, fstat, flock, ftruncate, posix_fallocate, pwrite, pread, fsync, rename, unlink). It fails
once or from then on, by an error number, or does half of the work. ROUNDS (3000) calls fail; 60 is the quick version.

Each time the answer must be right, or be an error that Python has for it; a file under its final name must be whole;
and without failures the work must end with the right files. Linux with glibc and a C compiler.
"""

import builtins
import ctypes
import errno
import os
import platform
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import traceback
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from findings import check, findings

SHIM = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <string.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

enum { ONCE, ALWAYS, HALF };
static const char* names[] = {
    "malloc", "mmap", "pthread_create", "open", "fstat", "flock", "ftruncate", "posix_fallocate", "pwrite", "pread",
    "read", "write", "fsync", "rename", "unlink" };
enum { MALLOC, MMAP, THREAD, OPEN, FSTAT, FLOCK, TRUNCATE, FALLOCATE, PWRITE, PREAD, READ, WRITE, FSYNC, RENAME, UNLINK,
    COUNT };
static atomic_long calls[COUNT];
static volatile int armed, target = -1, number, mode;
static volatile long nth;

void shim_arm(const char* name, long n, int error, int how) {
    target = -1;
    for (int k = 0; k < COUNT; k++) {
        atomic_store(&calls[k], 0);
        if (!strcmp(name, names[k])) target = k;
    }
    nth = n; number = error; mode = how; armed = 1;
}
void shim_disarm(void) { armed = 0; }
long shim_calls(const char* name) {
    for (int k = 0; k < COUNT; k++) if (!strcmp(name, names[k])) return atomic_load(&calls[k]);
    return -1;
}
static int strikes(int f) {
    if (!armed) return 0;
    long k = atomic_fetch_add(&calls[f], 1) + 1;
    /* Memory comes back after a while: without any, Python cannot even say so. */
    return f == target && (mode == ALWAYS ? k >= nth && (f != MALLOC || k < nth + 50) : k == nth);
}

extern void* __libc_malloc(size_t);
extern void* __libc_calloc(size_t, size_t);
extern void* __libc_realloc(void*, size_t);
#define FAIL_IF(f, failure) if (strikes(f)) { errno = number; return failure; }
void* malloc(size_t n) { FAIL_IF(MALLOC, NULL) return __libc_malloc(n); }
void* calloc(size_t n, size_t m) { FAIL_IF(MALLOC, NULL) return __libc_calloc(n, m); }
void* realloc(void* p, size_t n) { FAIL_IF(MALLOC, NULL) return __libc_realloc(p, n); }

#define REAL(name, type) static type real; if (!real) real = (type) dlsym(RTLD_NEXT, #name);
#define WRAP(f, type, name, parameters, arguments, failure) \
    type name parameters { \
        typedef type (*function) parameters; REAL(name, function) \
        FAIL_IF(f, failure) return real arguments; }
#define BOTH(f, type, name, parameters, arguments, failure) \
    WRAP(f, type, name, parameters, arguments, failure) WRAP(f, type, name##64, parameters, arguments, failure)
#define PART(f, name, parameters, full, half) \
    ssize_t name parameters { \
        typedef ssize_t (*function) parameters; REAL(name, function) \
        if (strikes(f)) { if (mode == HALF && n > 1) { n /= 2; return real half; } errno = number; return -1; } \
        return real full; }
BOTH(MMAP, void*, mmap, (void* a, size_t n, int p, int flags, int fd, off_t at), (a, n, p, flags, fd, at), MAP_FAILED)
BOTH(FSTAT, int, fstat, (int fd, void* s), (fd, s), -1)
WRAP(FLOCK, int, flock, (int fd, int how), (fd, how), -1)
BOTH(TRUNCATE, int, ftruncate, (int fd, off_t n), (fd, n), -1)
BOTH(FALLOCATE, int, posix_fallocate, (int fd, off_t at, off_t n), (fd, at, n), number)
WRAP(FSYNC, int, fsync, (int fd), (fd), -1)
WRAP(FSYNC, int, fdatasync, (int fd), (fd), -1)
WRAP(RENAME, int, rename, (const char* a, const char* b), (a, b), -1)
WRAP(RENAME, int, renameat, (int d, const char* a, int e, const char* b), (d, a, e, b), -1)
WRAP(UNLINK, int, unlink, (const char* a), (a), -1)
WRAP(UNLINK, int, unlinkat, (int d, const char* a, int flags), (d, a, flags), -1)
WRAP(THREAD, int, pthread_create, (pthread_t* t, const pthread_attr_t* a, void* (*f)(void*), void* x), (t, a, f, x),
    number)
PART(PWRITE, pwrite, (int fd, const void* p, size_t n, off_t at), (fd, p, n, at), (fd, p, n, at))
PART(PWRITE, pwrite64, (int fd, const void* p, size_t n, off_t at), (fd, p, n, at), (fd, p, n, at))
PART(PREAD, pread, (int fd, void* p, size_t n, off_t at), (fd, p, n, at), (fd, p, n, at))
PART(PREAD, pread64, (int fd, void* p, size_t n, off_t at), (fd, p, n, at), (fd, p, n, at))
#define VECTORS(name) \
    WRAP(PREAD, ssize_t, name, (int fd, const void* p, int n, off_t at, int how), (fd, p, n, at, how), -1)
VECTORS(preadv2) VECTORS(preadv64v2)
PART(READ, read, (int fd, void* p, size_t n), (fd, p, n), (fd, p, n))
PART(WRITE, write, (int fd, const void* p, size_t n), (fd, p, n), (fd, p, n))
#define OPENER(name, before, pass) \
    int name(before const char* path, int flags, ...) { \
        typedef int (*function)(before const char*, int, ...); REAL(name, function) \
        va_list rest; va_start(rest, flags); mode_t permissions = va_arg(rest, mode_t); va_end(rest); \
        FAIL_IF(OPEN, -1) return real(pass path, flags, permissions); }
#define NOTHING
OPENER(open, NOTHING, NOTHING)
OPENER(open64, NOTHING, NOTHING)
#define FOLDER int folder,
#define FOLDER_PASSED folder,
OPENER(openat, FOLDER, FOLDER_PASSED)
OPENER(openat64, FOLDER, FOLDER_PASSED)
"""
FUNCTIONS = {
    "malloc": ["ENOMEM"],
    "mmap": ["ENOMEM"],
    "pthread_create": ["EAGAIN"],
    "open": ["EMFILE", "EACCES", "EIO", "ENOSPC", "EINTR"],
    "fstat": ["EIO", "EOVERFLOW"],
    "flock": ["ENOLCK", "EIO", "EINTR", "EWOULDBLOCK"],
    "ftruncate": ["EIO", "EFBIG", "ENOSPC"],
    "posix_fallocate": ["ENOSPC", "EOPNOTSUPP", "EIO"],
    "pwrite": ["ENOSPC", "EIO", "EDQUOT", "EINTR", "half"],
    "pread": ["EIO", "EINTR", "half"],
    "read": ["EIO", "EINTR", "half"],
    "write": ["ENOSPC", "EIO"],
    "fsync": ["EIO", "ENOSPC"],
    "rename": ["EIO", "EACCES", "ENOSPC"],
    "unlink": ["EIO", "EACCES"],
}
INSIDE = "XAVIERFAST_EVIDENCE_PRELOADED"
HANG = 60

# ---- the works, each in a folder of its own


def works() -> dict[str, tuple[Callable[[Path], None], Callable[[Path], object], Callable[[Path], object]]]:
    """By name: what is prepared, what is done while a call fails, and how it is done again afterwards."""
    import numpy as np

    import xavierfast as xf
    from xavierfast import files

    table, older = xf.Table((9000, 64), "normal", seed=1, name="items"), xf.Table((500, 64), seed=2, name="older")
    model = {name: xf.Table((3000, 64), seed=3, name=name) for name in "abc"}
    large, rows = xf.Table(1 << 20, "normal", seed=4), xf.Table((10**9, 64), seed=5)
    wanted = {"fill": large.read(..., threads=1).tobytes(), "rows": rows[np.arange(9000) * 99].tobytes()}

    def again(name: str, tables: object, **options: object) -> Callable[[Path], object]:
        def run(folder: Path) -> object:
            try:
                return files.resume(folder / name, tables, **options)
            except FileNotFoundError:  # nothing was begun
                return files.create(folder / name, tables, force=True, **options)

        return run

    def filled(folder: Path) -> None:
        assert large.read(..., threads=3).tobytes() == wanted["fill"], "a fill is wrong"
        assert rows[np.arange(9000) * 99].tobytes() == wanted["rows"], "a gather is wrong"
        part = xf.normal(out=np.empty((1024, 1024), np.float32, order="F"), seed=1, threads=2)
        assert np.isfinite(part).all()

    def verified(folder: Path) -> None:
        assert files.verify(folder / "t.npy").ok, "a right file is called wrong"

    def loaded(folder: Path) -> None:
        assert files.load(folder / "t.npy").tobytes() == table[...].tobytes(), "the array is another"

    def damaged(folder: Path) -> None:
        files.create(folder / "t.npy", table)
        with open(folder / "t.npy", "r+b") as file:
            file.seek(5000)
            file.write(b"damage")

    def detected(folder: Path) -> None:
        assert not files.verify(folder / "t.npy").ok, "a damaged file is called right"

    def nothing(folder: Path) -> None:
        pass

    def whole(folder: Path) -> object:
        return files.create(folder / "t.npy", table)

    return {
        "create": (nothing, whole, again("t.npy", table)),
        "create by force": (
            lambda folder: files.create(folder / "t.npy", older),
            lambda folder: files.create(folder / "t.npy", table, force=True),
            lambda folder: files.create(folder / "t.npy", table, force=True),
        ),
        "create shards": (
            nothing,
            lambda folder: files.create(folder / "m.safetensors", model, max_shard_size=800_000),
            again("m.safetensors", model, max_shard_size=800_000),
        ),
        "create .bin": (nothing, lambda folder: files.create(folder / "t.bin", table), again("t.bin", table)),
        "verify": (whole, verified, verified),
        "verify damage": (damaged, detected, detected),
        "load": (whole, loaded, loaded),
        "fill": (nothing, filled, filled),
    }


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def in_child(work: Callable[[], object]) -> tuple[int, str]:
    """Fork; the wait status, and what the child wrote: an error's type and text, or nothing."""
    reading, writing = os.pipe()
    pid = os.fork()
    if not pid:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(HANG)
        os.close(reading)
        caught, answer = None, ""
        warnings.simplefilter("ignore")  # one on file systems without locks
        try:
            try:
                work()
            except BaseException as error:
                caught = error
            while True:
                try:
                    SHIM_LIBRARY.shim_disarm()
                    break
                except MemoryError:  # it fails a few times more
                    pass
            if caught is not None:
                answer = f"{type(caught).__name__}: {caught}"
                known = isinstance(caught, (OSError, MemoryError, ValueError, RuntimeError))
                # CPython and ctypes have errors of their own where memory lacks.
                if not (known or isinstance(caught, SystemError) or "MemoryError" in answer):
                    answer += "\n" + "".join(traceback.format_exception(caught))
            os.write(writing, answer.encode())
            os._exit(0)
        finally:
            os._exit(9)
    os.close(writing)
    with open(reading, "rb") as pipe:
        text = pipe.read().decode()
    return os.waitpid(pid, 0)[1], text


def error_of_system(text: str) -> bool:
    """Whether an error is an OSError."""
    kind = getattr(builtins, text.partition(":")[0], type(None))
    return isinstance(kind, type) and issubclass(kind, OSError)


def inside(rounds: int, seed: int) -> int:
    every = works()
    rng = random.Random(seed)
    table: dict[str, Counter[str]] = {}
    with tempfile.TemporaryDirectory() as name:
        top = Path(name)
        counts, wanted = {}, {}
        for work, (prepare, act, _) in every.items():
            folder = top / "known"
            folder.mkdir()
            prepare(folder)
            lines = top / "counts"

            def counted(act=act, folder=folder, lines=lines) -> None:
                SHIM_LIBRARY.shim_arm(b"", 0, 0, 0)
                act(folder)
                SHIM_LIBRARY.shim_disarm()
                lines.write_text(" ".join(str(SHIM_LIBRARY.shim_calls(f.encode())) for f in FUNCTIONS))

            status, text = in_child(counted)
            assert status == 0 and not text, (work, status, text)
            counts[work] = dict(zip(FUNCTIONS, map(int, lines.read_text().split()), strict=True))
            wanted[work] = contents(folder)
            shutil.rmtree(folder)
        pairs = [(work, function) for work in every for function, calls in counts[work].items() if calls]
        for k in range(rounds):
            work, function = rng.choice(pairs)
            prepare, act, again = every[work]
            calls = counts[work][function]
            nth = rng.randrange(1, calls + 1) if rng.random() < 0.7 else rng.randrange(1, min(calls, 20) + 1)
            error = rng.choice(FUNCTIONS[function])
            mode = 2 if error == "half" else rng.choice([0, 0, 1]) if error != "EINTR" else 0
            where = f"{k}: {work}, call {nth} of {calls} of {function}, {error}{', and all later' * (mode == 1)}"
            folder = top / str(k)
            folder.mkdir()
            prepare(folder)
            before = contents(folder)

            def struck(act=act, folder=folder, call=(function, nth, error, mode)) -> None:
                which, number, code, how = call
                SHIM_LIBRARY.shim_arm(which.encode(), number, getattr(errno, code, 0), how)
                act(folder)

            status, text = in_child(struck)
            row = table.setdefault(function, Counter())
            had = len(findings)
            row["tried"] += 1
            check(status == 0, where, f"the process ended by {os.waitstatus_to_exitcode(status)}, {text}")
            lines = text.splitlines()
            check(len(lines) < 2, where, text)
            check(not text.startswith("AssertionError"), where, text)
            is_named = not error_of_system(text) or any(
                file in text for file in ("t.npy", "t.bin", ".safetensors", str(folder))
            )
            check(is_named, where, f"the error names no file: {text}")
            there = contents(folder)
            for file in there.keys() & wanted[work].keys():
                check(there[file] in (wanted[work][file], before.get(file)), where, f"{file} is half there; {text}")
            if not text and status == 0:
                check(there == wanted[work], where, f"success, with {sorted(there)} instead of {sorted(wanted[work])}")
            row["refused"] += bool(text)
            try:
                again(folder)
                same = contents(folder) == wanted[work]
                check(same, where, f"done again after {text!r}: {sorted(contents(folder))}, {sorted(wanted[work])}")
            except Exception as problem:
                check(False, where, f"cannot be done again after {text!r}: {problem!r}, {sorted(there)}")
            row["found" if len(findings) > had else "held"] += 1
            shutil.rmtree(folder)
    print(f"{'kind':20}{'tried':>8}{'refused':>9}{'held':>8}{'found':>8}")
    for function, row in sorted(table.items()):
        print(f"{function:20}{row['tried']:8}{row['refused']:9}{row['held']:8}{row['found']:8}")
    total = sum(row["refused"] for row in table.values())
    print(f"seed {seed}: {rounds} failed calls, {total} with an error, {len(findings)} findings")
    return 1 if findings else 0


def main(rounds: int = 3000, seed: int = 0) -> int:
    if INSIDE in os.environ:
        return inside(rounds, seed)
    if platform.libc_ver()[0] != "glibc" or not shutil.which("cc"):
        print("cannot run here: glibc and a C compiler are needed")
        return 77
    with tempfile.TemporaryDirectory() as name:
        library = Path(name, "shim.so")
        Path(name, "shim.c").write_text(SHIM)
        command = ["cc", "-O1", "-shared", "-fPIC", "-w", "-o", library, Path(name, "shim.c"), "-ldl", "-lpthread"]
        subprocess.run(command, check=True)
        variables = {INSIDE: str(library), "LD_PRELOAD": str(library), "PYTHONMALLOC": "malloc"}
        inner = [sys.executable, "-u", os.path.abspath(__file__), str(rounds), str(seed)]
        return subprocess.run(inner, env=os.environ | variables).returncode


if __name__ == "__main__":
    if INSIDE in os.environ:
        SHIM_LIBRARY = ctypes.CDLL(os.environ[INSIDE])
    sys.exit(main(*map(int, sys.argv[1:])))

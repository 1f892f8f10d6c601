"""Compilers, flags and Pythons: ``python tests/evidence/builds.py [--quick] [PYTHON ...]``.

Gcc and clang, -O2 and -O3, with and without link-time optimisation, for the Python that runs this; then the other
Pythons that are here (on PATH, of pyenv, or given) with the compiler that they choose. Each is a virtual environment
of its own, an installation from a copy of the sources, and the goldens. A free-threaded Python also runs the tests of
threads, tables and files, and sixteen of its threads fill at once. --quick is one build, with each compiler.

A free-threaded Python is made from CPython's sources, 3.13 or newer, in some ten minutes::

    ./configure --disable-gil --prefix=FOLDER && make -j2 && make install
"""

import argparse
import hashlib
import itertools
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from sources import copy_sources

TESTS = ["test_goldens.py", "test_known_answers.py", "test_fused.py", "test_levels.py"]
NEEDED = ["pytest", "hypothesis", "mpmath", "ml_dtypes"]
FREE_THREADED = ["test_threads.py", "test_table.py", "files"]
PROBE = (
    "import sys, sysconfig as s; print(sys.version.split()[0], s.get_config_var('Py_GIL_DISABLED') or 0, sys.prefix)"
)
THREADS = """
import sys, threading
import numpy as np, xavierfast as xf

assert not sys._is_gil_enabled(), "an import has enabled the GIL"
draws = (xf.xavier_uniform, xf.he_normal, xf.truncated_normal)
want = [draw((1500, 1100), seed=7, threads=1) for draw in draws]
table, rows = xf.Table((1500, 1100), "he_normal", seed=7), np.arange(-1500, 1500, 7)
wrong, start = [], threading.Barrier(16)

def work(k):
    start.wait()
    for n in range(12):
        i = (k + n) % 3
        if not (draws[i]((1500, 1100), seed=7, threads=1 + n % 3) == want[i]).all() or (
            not (table.read(rows, threads=1 + k % 2) == want[1][rows]).all()
        ):
            wrong.append((k, n))

threads = [threading.Thread(target=work, args=(k,)) for k in range(16)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
assert not wrong, wrong
assert not sys._is_gil_enabled(), "a fill has enabled the GIL"
"""


def pythons(given: list[str]) -> dict[str, str]:
    """What can be run: of each version, once, the command that starts it."""
    folders = [Path(folder) for folder in os.get_exec_path()]
    folders += sorted(Path.home().glob(".pyenv/versions/*/bin"))
    named = [str(path) for folder in folders if folder.is_dir() for path in sorted(folder.iterdir())]
    named = [path for path in named if re.fullmatch(r"python3\.(1[1-9]|[2-9]\d)t?", os.path.basename(path))]
    found: dict[str, str] = {}
    for path in [sys.executable, *given, *named]:
        done = subprocess.run([path, "-c", PROBE], capture_output=True, text=True)
        if done.returncode and path in given:
            sys.exit(f"{path} is no Python: {done.stderr}")
        if not done.returncode:  # a shim of pyenv stands for versions that may not be in use
            version, free, _ = done.stdout.split(maxsplit=2)
            found.setdefault(version + "t" * int(free), path)
    return found


def strike(python: str, compiler: str, level: str, lto: bool, free_threaded: bool) -> tuple[str, str]:
    """Build and test; the outcome, and a digest of the portable kernels."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "XAVIERFAST_"))}
    environment |= {"CI": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    if compiler:
        # No debugging information: it differs between folders, and the code is to be told apart.
        flags = "-g0 -flto" if lto else "-g0"
        environment |= {"CC": compiler, "CFLAGS": flags, "LDFLAGS": flags}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name).resolve()
        copy_sources(folder)
        setup = (folder / "setup.py").read_text()
        assert setup.count('"-O3"') == 1
        (folder / "setup.py").write_text(setup.replace('"-O3"', f'"{level}"'))

        def call(*command: str) -> subprocess.CompletedProcess:
            return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)

        bin = f"{folder}/venv/bin"
        for command in (
            [python, "-m", "venv", f"{folder}/venv"],
            # The newest that need no compilers of their own, as for free-threaded Pythons some do.
            [f"{bin}/python", "-m", "pip", "-q", "install", "--only-binary=hypothesis,numpy,ml_dtypes", ".", *NEEDED],
        ):
            done = call(*command)
            if done.returncode:
                print((done.stdout + done.stderr)[-3000:])
                return f"NOT BUILT: {' '.join(command[1:4])}", ""
        (built,) = folder.glob("venv/lib/python3*/site-packages/xavierfast/kernels/portable.*.so")
        code = built.read_bytes()
        if compiler and (b"clang version" in code) != (compiler == "clang"):
            return "WRONG COMPILER", ""
        tests = TESTS + FREE_THREADED * free_threaded
        # Not python -m pytest, which would import the sources, where nothing is built.
        done = call(f"{bin}/pytest", "-q", "--tb=short", "-p", "no:cacheprovider", *(f"tests/{t}" for t in tests))
        if not done.returncode and free_threaded:
            done = call(f"{bin}/python", "-P", "-c", THREADS)
            if not done.returncode:
                return "passed, and 16 threads at once without the GIL", hashlib.sha256(code).hexdigest()
        if done.returncode:
            print((done.stdout + done.stderr)[-5000:])
            return "FAILED", ""
        return done.stdout.strip().splitlines()[-1].strip("= ").partition(" in ")[0], hashlib.sha256(code).hexdigest()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("pythons", nargs="*", metavar="PYTHON")
    options = parser.parse_args()
    began = time.monotonic()
    here, *others = pythons(options.pythons).items()
    absent = [compiler for compiler in ("gcc", "clang") if not shutil.which(compiler)]
    compilers = [compiler for compiler in ("gcc", "clang") if compiler not in absent]
    rows = [(*here, *row) for row in itertools.product(compilers, ("-O2", "-O3"), (False, True))]
    rows += [(*other, "", "-O3", False) for other in others]
    if options.quick:
        rows = [row for row in rows if row[3:] == ("-O3", False) and row[2]]
    bad, digests = [], set()
    for version, python, compiler, level, lto in rows:
        started = time.monotonic()
        label = f"Python {version:9}{compiler or 'its own':8}{level:4}{'-flto' if lto else ''}"
        outcome, digest = strike(python, compiler, level, lto, version.endswith("t"))
        if not digest:
            bad.append(label)
        elif compiler:
            digests.add(digest)
        print(f"{label:36}{outcome:55}{time.monotonic() - started:6.0f} s", flush=True)
    differ = sum(bool(row[2]) for row in rows)
    found = f"failed: {'; '.join(bad)}" if bad else "the same goldens from each"
    if not bad and len(digests) != differ:
        bad.append("flags")
        found = f"only {len(digests)} of {differ} builds with flags of their own differ, so the flags were not used"
    missing = f"; not here: {', '.join(absent)}" if absent else ""
    print(f"{len(rows)} builds with {len({row[0] for row in rows})} Pythons and {' and '.join(compilers)} in ", end="")
    print(f"{time.monotonic() - began:.0f} s: {found}{missing}")
    return 1 if bad else 77 if absent else 0


if __name__ == "__main__":
    sys.exit(main())

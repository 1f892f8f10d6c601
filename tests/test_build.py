"""The built files: what their linker was asked for, and what a build without a compiler says."""

import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from support import missing, need

import xavierfast

ROOT = Path(__file__).parent.parent
KERNELS = Path(xavierfast.__file__).parent / "kernels"


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has ELF files")
def test_kernels_are_hardened_and_name_no_folder():
    """Full RELRO, stack protection, and no RUNPATH to the folder of the Python that built them."""
    readelf = shutil.which("readelf") or missing("readelf is not installed")
    libraries = sorted(KERNELS.glob("*.so"))
    assert {path.name.partition(".")[0] for path in libraries} >= {"_cpu", "portable"}
    for path in libraries:
        command = [readelf, "--wide", "--dynamic", "--program-headers", "--dyn-syms", path]
        found = subprocess.run(command, capture_output=True, text=True, check=True, env={"LC_ALL": "C"}).stdout
        assert "GNU_RELRO" in found and "BIND_NOW" in found, path
        assert "RPATH" not in found and "RUNPATH" not in found, path
        assert path.name.startswith("_cpu") or "__stack_chk_fail" in found, path


def test_the_recipe_for_conda_has_the_versions_of_the_project():
    recipe = ROOT / "packaging/conda/recipe.yaml"
    if not recipe.exists():
        pytest.skip("the tests are not in a checkout")
    text = recipe.read_text()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    extras = project["project"]["optional-dependencies"]
    assert f'version: "{project["project"]["version"]}"' in text
    for needed in (*project["project"]["dependencies"], *extras["cli"], *project["build-system"]["requires"]):
        assert f"- {needed.replace('matplotlib', 'matplotlib-base').replace('>=', ' >=')}\n" in text, needed


@pytest.mark.skipif(os.name != "posix", reason="only there does CC choose the compiler")
def test_without_a_compiler_the_build_ends_in_one_sentence(tmp_path):
    need("Cython")
    need("setuptools")
    if not (ROOT / "setup.py").exists():
        pytest.skip("the tests are not in a source tree")
    shutil.copy(ROOT / "setup.py", tmp_path)
    shutil.copytree(ROOT / "xavierfast", tmp_path / "xavierfast", ignore=shutil.ignore_patterns("*.so", "__pycache__"))
    if (ROOT / "build/cython").exists():  # what Cython has translated once need not be translated again
        shutil.copytree(ROOT / "build/cython", tmp_path / "build/cython")
    for environment in ({"CC": "false"}, {"CC": "no-such-compiler"}):
        command = [sys.executable, "setup.py", "--quiet", "build_ext"]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, env=os.environ | environment)
        assert done.returncode == 1
        assert done.stderr.splitlines()[-1] == (
            "error: xavierfast is compiled from source here and needs a C compiler and Python's headers: install gcc "
            "or clang (on Windows Microsoft's Build Tools) and python3-dev, or install a wheel"
        )
        assert "Traceback" not in done.stderr

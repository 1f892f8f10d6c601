"""Fixtures of all tiers. Under XAVIERFAST_REQUIRE_ALL=1 nothing that this machine could run is skipped."""

import importlib
import os
import signal
import subprocess
import sys
import textwrap

import hypothesis
import pytest

from xavierfast import kernels
from xavierfast.kernels import _cpu

# In the background of a shell Ctrl-C is ignored, and what tests start would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)
os.environ.setdefault("KERAS_BACKEND", "jax")  # Keras' own default, TensorFlow, may not be there
REQUIRE_ALL = os.environ.get("XAVIERFAST_REQUIRE_ALL") == "1"
# Continuous integration looks at the same examples each time; a developer's runs look for new ones.
hypothesis.settings.register_profile("ci", derandomize=True)
# For test_stateful.py, in minutes.
hypothesis.settings.register_profile("deep", max_examples=1000, stateful_step_count=60, deadline=None)
if os.environ.get("CI"):
    hypothesis.settings.load_profile("ci")
LEVELS = ("portable", "avx2", "avx512")


def missing(message: str) -> None:
    """Skip, or fail where everything is required."""
    pytest.fail(message) if REQUIRE_ALL else pytest.skip(message, allow_module_level=True)


def run(code: str, timeout: float = 120, command=(), flags=(), **environment: str) -> str:
    """A Python of its own, which must end well and by itself; what it printed."""
    done = subprocess.run(
        [*command, sys.executable, "-P", *flags, "-c", textwrap.dedent(code)],
        capture_output=True, text=True, timeout=timeout, env=os.environ | environment,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(params=LEVELS)
def level(request):
    """The extension module of each level; one that this CPU cannot run is skipped by name."""
    if request.param not in _cpu.levels():
        pytest.skip(f"this CPU cannot run {request.param}")
    if request.param not in kernels.levels:
        missing(f"this build lacks {request.param}, which this CPU can run")
    return importlib.import_module(f"xavierfast.kernels.{request.param}")


@pytest.fixture
def use_level(level, monkeypatch):
    """The public functions run at each level."""
    monkeypatch.setattr(kernels, "fill", level.fill)
    monkeypatch.setattr(kernels, "gather", level.gather)
    return level


@pytest.fixture
def ml_dtypes():
    try:
        return importlib.import_module("ml_dtypes")
    except ImportError:
        missing("ml_dtypes is not installed")

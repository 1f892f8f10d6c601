"""Fixtures, Hypothesis profiles, and the option --rest.

Tests that need what is not installed are skipped by name. Under XAVIERFAST_REQUIRE_ALL=1 they fail, so that nothing
that this machine could run is skipped.
"""

import importlib
import os
import signal

import hypothesis
import pytest
from support import LEVELS, missing, need

import xavierfast
from xavierfast import kernels
from xavierfast.kernels import _cpu

# A shell makes its background processes ignore Ctrl-C, and the processes that tests start would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)
os.environ.setdefault("KERAS_BACKEND", "jax")  # Keras's own default, TensorFlow, may not be installed
# Continuous integration looks at the same examples each time; a developer's runs look for new ones.
hypothesis.settings.register_profile("ci", derandomize=True)
# For test_stateful.py, in minutes.
hypothesis.settings.register_profile("deep", max_examples=1000, stateful_step_count=60, deadline=None)
if os.environ.get("CI"):
    hypothesis.settings.load_profile("ci")

PASSED = "xavierfast/passed"  # in pytest's cache


def pytest_addoption(parser):
    parser.addoption("--rest", action="store_true", help="run only what did not pass in the last run, or was skipped")


def pytest_collection_modifyitems(config, items):
    if config.getoption("--rest"):
        passed = set(config.cache.get(PASSED, []))
        config.hook.pytest_deselected(items=[item for item in items if item.nodeid in passed])
        items[:] = [item for item in items if item.nodeid not in passed]


def pytest_sessionfinish(session):
    config = session.config
    # The option -p no:cacheprovider takes the cache away; the workers of pytest-xdist leave it to their controller.
    if hasattr(config, "cache") and not hasattr(config, "workerinput"):
        before = config.cache.get(PASSED, []) if config.getoption("--rest") else []
        reports = config.pluginmanager.get_plugin("terminalreporter").stats.get("passed", [])
        config.cache.set(PASSED, sorted({*before, *(report.nodeid for report in reports)}))


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
    """Let the public functions run at each level, as if XAVIERFAST_LEVEL had forced it before the import."""
    name = level.__name__.rpartition(".")[2]
    monkeypatch.setattr(kernels, "level", name)
    monkeypatch.setattr(xavierfast, "level", name)
    for function in ("address", "equals", "fill", "gather", "values"):
        monkeypatch.setattr(kernels, function, getattr(level, function))
    fast = {kernels.CONSTANT} if name == "portable" else {kernels.CONSTANT, kernels.UNIFORM, kernels.RANGE}
    monkeypatch.setattr("xavierfast._core.fill.FASTER_THAN_MEMORY", fast)
    return level


@pytest.fixture
def ml_dtypes():
    return need("ml_dtypes")

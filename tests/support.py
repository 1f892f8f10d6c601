"""Helpers of the tests that are not fixtures: fresh interpreters, comparisons bit for bit, indices for Hypothesis."""

import importlib
import json
import os
import subprocess
import sys
import textwrap
from contextlib import suppress
from types import ModuleType
from typing import NoReturn

import numpy as np
import pytest
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from xavierfast._core.dtypes import DTYPES

LEVELS = ("portable", "avx2", "avx512")
REQUIRE_ALL = os.environ.get("XAVIERFAST_REQUIRE_ALL") == "1"


def missing(message: str) -> NoReturn:
    """Skip, or fail where everything is required."""
    if REQUIRE_ALL:
        pytest.fail(message)
    pytest.skip(message, allow_module_level=True)


def need(package: str) -> ModuleType:
    """Import a package that not all tests need; where it is not installed, the test is skipped by name."""
    try:
        return importlib.import_module(package)
    except ImportError:
        missing(f"{package} is not installed")


def run(code: str, timeout: float = 120, command=(), flags=(), **environment: str) -> str:
    """Run code in a fresh interpreter, which must exit by itself with status 0, and return what it printed."""
    done = subprocess.run(
        [*command, sys.executable, "-P", *flags, "-c", textwrap.dedent(code)],
        capture_output=True, text=True, timeout=timeout, env=os.environ | environment,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def draw_of(distribution, dtype: str) -> tuple[int, int, tuple[float, ...]]:
    """The kernel's number, the dtype's and the constants with which the kernels draw a distribution."""
    sampler = distribution.sampler(DTYPES[dtype], bytes(32))
    return sampler.kernel, sampler.dtype.code, sampler.constants


def chosen_at_import() -> dict[str, dict[str, object]]:
    """List what each loaded module of the package may have chosen by the level: kernels, constants, the level's name.

    The values are those of JSON, so that another process can send them.
    """
    found: dict[str, dict[str, object]] = {}
    for module in sorted(sys.modules):
        if module.partition(".")[0] != "xavierfast" or module.rpartition(".")[2] in LEVELS:
            continue
        chosen = found.setdefault(module, {})
        for name, value in vars(sys.modules[module]).items():
            if callable(value) and str(value.__module__).startswith("xavierfast.kernels."):
                chosen[name] = f"{value.__module__}.{value.__name__}"
            elif name.isupper() or name == "level":
                with suppress(TypeError):
                    chosen[name] = json.loads(json.dumps(sorted(value) if isinstance(value, set) else value))
    return found


# ---- comparisons


def bits(array):
    """The bytes of an array's elements in C order."""
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8)


def difference(got, want) -> str:
    """Say where two arrays differ in shape, dtype or any bit; the empty string if they do not."""
    got, want = np.asarray(got), np.asarray(want)
    if got.shape != want.shape:
        return f"the shape is {got.shape}, not {want.shape}"
    if got.dtype != want.dtype:
        return f"the dtype is {got.dtype}, not {want.dtype}"
    left, right = (bits(array).reshape(array.size, -1) if array.size else np.empty((0, 1)) for array in (got, want))
    wrong = np.flatnonzero((left != right).any(axis=1))
    if not wrong.size:
        return ""
    first = tuple(map(int, np.unravel_index(wrong[0], got.shape)))
    found, expected = (
        f"{array[first]} (bytes {data[wrong[0]].tobytes().hex()})" for array, data in ((got, left), (want, right))
    )
    return f"element {first} is {found}, not {expected}; {wrong.size:,} of {got.size:,} elements differ"


def same_bits(got, want, case="") -> None:
    """Assert that two arrays have the same shape, dtype and bits; a failure names the first element that differs."""
    __tracebackhide__ = True
    if found := difference(got, want):
        pytest.fail(f"{case}: {found}" if case else found)


def same(got, want) -> None:
    """Assert that two results have the same type, shape, dtype and bits."""
    __tracebackhide__ = True
    if type(got) is not type(want):
        pytest.fail(f"the type is {type(got).__name__}, not {type(want).__name__}")
    same_bits(got, want)


# ---- indices


def basic(shape):
    """Draw slices, ints, newaxis and Ellipsis."""
    return hnp.basic_indices(shape, allow_newaxis=True, allow_ellipsis=True)


@st.composite
def mixed(draw, shape):
    """Draw slices, ints, newaxis, Ellipsis, arrays of ints that broadcast, masks of one or two axes, lists."""
    arrays = draw(hnp.array_shapes(min_dims=0, max_dims=2, min_side=0, max_side=3))
    parts, axis, ellipsis = [], 0, False
    while axis < len(shape):
        kind = draw(st.sampled_from(["slice", "int", "ids", "ids", "mask", "mask2", "new", "ellipsis", "list", "stop"]))
        n = shape[axis]
        if kind == "stop":
            break
        if kind == "new":
            if len(parts) < 6:
                parts.append(None)
            continue
        if kind == "ellipsis":
            if not ellipsis and len(parts) < 6:
                parts.append(Ellipsis)
                ellipsis = True
                axis += draw(st.integers(0, 1))
            continue
        if kind == "slice":
            parts.append(draw(st.slices(n)))
        elif kind == "mask":
            parts.append(draw(hnp.arrays(bool, (n,))))
        elif kind == "mask2" and axis + 1 < len(shape):
            parts.append(draw(hnp.arrays(bool, shape[axis : axis + 2])))
            axis += 1
        elif n:
            if kind == "int":
                parts.append(draw(st.integers(-n, n - 1)))
            elif kind == "list":
                parts.append(draw(st.lists(st.integers(-n, n - 1), max_size=3)))
            else:
                kept = tuple(draw(st.sampled_from([side, 1])) for side in arrays)[draw(st.integers(0, len(arrays))) :]
                dtype = draw(st.sampled_from([np.int64, np.int32, np.int8]))
                parts.append(draw(hnp.arrays(dtype, kept, elements=st.integers(-n, n - 1))))
        else:
            parts.append(slice(None))
        axis += 1
    return tuple(parts)

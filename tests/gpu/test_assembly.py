"""The code of the GPU's kernels, compiled for GPUs that need not be here, holds the operations that are written.

``tests/evidence/gpu_assembly.py`` examines all kernels for all targets."""

import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import pytest
from support import missing

try:
    import torch  # noqa: F401
    import triton  # noqa: F401
except ImportError:
    missing("torch or triton is not installed")

from xavierfast.kernels import gpu

PATH = Path(__file__).parents[1] / "evidence" / "gpu_assembly.py"


@pytest.fixture(scope="module")
def assembly():
    spec = spec_from_file_location("gpu_assembly", PATH)
    module = module_from_spec(spec)
    sys.modules["gpu_assembly"] = module  # where Triton looks for the module of a function
    spec.loader.exec_module(module)
    yield module
    del sys.modules["gpu_assembly"]


CASES = [
    *(("NORMAL", "float32", target) for target in ("sm_75", "sm_80", "sm_90", "sm_100", "gfx90a", "gfx942", "gfx1100")),
    ("RANGE", "bfloat16", "sm_90"), ("RANGE", "bfloat16", "gfx942"),
    ("TRUNCATED_2SIGMA", "float32", "sm_90"), ("TRUNCATED_2SIGMA", "float32", "gfx90a"),
    ("TRUNCATED_SYMMETRIC", "float16", "sm_80"), ("TRUNCATED_SYMMETRIC", "float32", "gfx942"),
    ("NORMAL", "float64", "sm_90"), ("NORMAL", "float64", "gfx942"),
]  # fmt: skip


@pytest.mark.parametrize(("kernel", "dtype", "target"), CASES)
def test_fills(kernel, dtype, target, assembly):
    assert not assembly.faults(kernel, dtype, target)[0]


@pytest.mark.parametrize(("target", "axes"), [("sm_90", 4), ("gfx942", 2)])
def test_gathers(target, axes, assembly):
    """On AMD without the divisions of integers, which also become multiply-adds."""
    axes = {"AXES": axes, "IDS": True, "ONE": axes == 2, "DENSE": False}
    assert not assembly.faults("NORMAL", "bfloat16", target, name="gather_kernel", **axes)[0]


def test_scalars_are_of_64_bits():
    """Whatever their values: a position or a key that happens to be small is the same kernel's."""
    for kernel in (gpu.fill_kernel, gpu.gather_kernel):
        for parameter in kernel.params:
            if not parameter.is_constexpr and parameter.name not in ("out", "ids"):
                assert parameter.annotation_type == "i64" and parameter.do_not_specialize, parameter.name

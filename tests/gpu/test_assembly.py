"""The code of the GPU's kernels, compiled for GPUs that need not be here, holds the operations that are written.

``tests/evidence/gpu_assembly.py`` examines all kernels for all targets."""

import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import pytest
from support import missing

try:
    import torch
    import triton
except ImportError:
    missing("torch or triton is not installed")

from triton.backends.compiler import GPUTarget

from xavierfast._core.distributions import Normal
from xavierfast._core.dtypes import DTYPES
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


class NoDriver:
    """The driver of a GPU that is not there: kernels are compiled, and not launched."""

    def get_current_target(self):
        return GPUTarget("cuda", 90, 32)

    def get_current_device(self):
        return 0

    def get_current_stream(self, device):
        return 0


def test_one_kernel_for_all_values(monkeypatch):
    """Scalars are of 64 bits whatever their values, and neither these nor addresses compile a kernel again."""
    compiled = []

    def compile_only(kernel, sampler, tiles, arguments, **options):
        numbers = {"KERNEL": sampler.kernel, "FORMAT": gpu.FORMATS[sampler.dtype.name], "TILES": gpu.TILES}
        scalars = gpu._scalars(sampler)
        compiled.append(kernel.warmup(*arguments, *scalars, **numbers, **gpu.EXACT, **options, grid=(1,)))

    monkeypatch.setattr(gpu, "_launch", compile_only)
    monkeypatch.setattr(triton.runtime.driver, "_active", NoDriver())
    out, ids = torch.zeros(4096), torch.arange(4)
    for key, std, position, n, begin in ((0, 1.0, 0, 1, 0), (1, 0.02, 16, 4096, 0), (255, 3.0, 2**32 + 1, 7, 1)):
        sampler = Normal(0.0, std).sampler(DTYPES["float32"], bytes([key] * 32))
        gpu.fill(sampler, out[begin:], position, n)
    assert len({id(kernel) for kernel in compiled}) == 1
    for shape, strides, rows in (((4, 2), (2, 1), 1000), ((2, 16), (2**40, 1), 2**20)):
        gpu.gather(sampler, out, 0, shape, (64, 1), strides, ids, rows)
    assert len({id(kernel) for kernel in compiled}) == 2
    for kernel in compiled:
        kinds = {kind for name, kind in kernel.src.signature.items() if name not in ("out", "ids")}
        assert kinds == {"i64", "constexpr"}

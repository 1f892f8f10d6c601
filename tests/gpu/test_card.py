"""The GPU's kernels on a GPU: all that the interpreter runs, and what only a device has."""

import os

import numpy as np
import pytest
from support import missing, same_bits

torch = pytest.importorskip("torch")
if not (torch.cuda.is_available() or (hasattr(torch, "xpu") and torch.xpu.is_available())):
    pytest.skip("this machine has no GPU", allow_module_level=True)
try:
    import triton  # noqa: F401
except ImportError:
    missing("triton is not installed")
if os.environ.get("TRITON_INTERPRET") == "1":
    pytest.skip("the kernels are interpreted in this process", allow_module_level=True)

from cases import *  # noqa: E402, F403
from cases import DEVICE, DISTRIBUTIONS, KEY, bits_of, table_of  # noqa: E402

import xavierfast.torch as xt  # noqa: E402
from xavierfast._core.dtypes import DTYPES  # noqa: E402
from xavierfast._core.fill import fill  # noqa: E402
from xavierfast.kernels import gpu  # noqa: E402

module = torch.get_device_module(DEVICE)
BIG = int(float(os.environ.get("XAVIERFAST_GPU_ELEMENTS", "1e8")))  # of each kind; the record is of 1e9


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float64"])
@pytest.mark.parametrize("name", ["uniform", "range", "mean", "truncated", "wide"])
def test_many_elements(name, dtype):
    """Across position 2^32, against the CPU, in parts of 2^26."""
    sampler = DISTRIBUTIONS[name].sampler(DTYPES[dtype], KEY)
    if not gpu.serves(sampler):
        return
    for first in range(0, BIG, 1 << 26):
        n = min(1 << 26, BIG - first)
        out = torch.empty(n, dtype=torch.int16 if dtype == "bfloat16" else getattr(torch, dtype), device=DEVICE)
        gpu.fill(sampler, out, 2**32 - 12345 + first, n)
        want = np.empty(n, sampler.dtype.bits)
        fill(sampler, want, 2**32 - 12345 + first)
        same_bits(bits_of(out).reshape(-1), want.view(bits_of(out).dtype), f"{name} {dtype} at {first}")


@pytest.mark.parametrize("strided", [False, True])
def test_no_memory_and_no_wait(strided):
    """No temporary of any size is allocated, and the call returns before a kernel that runs has ended."""
    tensor = torch.empty(1 << 14, 1 << 12, device=DEVICE)
    tensor, table = (tensor[:, ::2], table_of(1 << 14, 1 << 11)) if strided else (tensor, table_of(1 << 14, 1 << 12))
    xt.fill_(tensor, table)  # compiles
    module.synchronize()
    before = module.memory_allocated()
    module.reset_peak_memory_stats()
    if DEVICE == "cuda":
        torch.cuda._sleep(2 * 10**9)  # about a second
    done = module.Event()
    xt.fill_(tensor, table)
    done.record()
    if DEVICE == "cuda":
        assert not done.query()
    module.synchronize()
    assert module.max_memory_allocated() == before


def test_the_current_stream():
    stream = module.Stream()
    tensor = torch.zeros(1 << 20, device=DEVICE)
    xt.fill_(tensor, table_of(1 << 20))
    tensor.zero_()
    module.synchronize()
    with module.stream(stream):
        if DEVICE == "cuda":
            torch.cuda._sleep(10**8)
        xt.fill_(tensor, table_of(1 << 20))
        copy = tensor.clone()  # on the same stream, so after the fill
    module.synchronize()
    same_bits(copy.cpu().numpy(), np.asarray(table_of(1 << 20)))


@pytest.mark.skipif(DEVICE != "cuda", reason="graphs are CUDA's")
def test_a_graph_of_cuda():
    tensor, table = torch.zeros(1000, 70, device=DEVICE), table_of(10**9, 70)
    ids = torch.arange(1000, device=DEVICE)
    xt.fill_(tensor, table, ids)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        xt.fill_(tensor, table, ids)
    ids += 10**8  # the graph reads the ids when it runs
    tensor.zero_()
    graph.replay()
    same_bits(tensor.cpu().numpy(), table[10**8 : 10**8 + 1000])


@pytest.mark.skipif(module.device_count() < 2, reason="this machine has one GPU")
def test_the_tensors_device():
    tensor = torch.empty(5000, device=f"{DEVICE}:1")
    xt.fill_(tensor, table_of(5000))
    assert module.current_device() == 0
    same_bits(tensor.cpu().numpy(), np.asarray(table_of(5000)))


def test_default_device():
    torch.set_default_device(DEVICE)
    try:
        with xt.fast_init(seed=3):
            layer = torch.nn.Linear(30, 20)
    finally:
        torch.set_default_device(None)
    with xt.fast_init(seed=3):
        same = torch.nn.Linear(30, 20)
    assert layer.weight.device.type == DEVICE
    same_bits(bits_of(layer.weight), bits_of(same.weight))

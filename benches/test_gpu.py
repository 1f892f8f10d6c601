"""Fills on a GPU against ``tensor.zero_()``, which is the speed of its memory, and torch's own samplers.

Without a GPU, ``TRITON_INTERPRET=1 pytest benches/test_gpu.py`` runs all of it to the end on tiny CPU tensors; those
figures mean nothing. A time is that of the wall clock from a call to the end of its kernels.
"""

import os
import time
from contextlib import nullcontext

import pytest
from conftest import peer

torch = peer("torch")
peer("triton")
xt = pytest.importorskip("xavierfast.torch")

import xavierfast as xf  # noqa: E402
from xavierfast.torch import device as devices  # noqa: E402

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
DEVICE = "cpu" if INTERPRETED else "cuda" if torch.cuda.is_available() else "xpu"
if not INTERPRETED and not torch.get_device_module(DEVICE).is_available():
    pytest.skip("this machine has no GPU, and TRITON_INTERPRET is not set", allow_module_level=True)
SIZES = [1 << 11] if INTERPRETED else [1 << 20, 1 << 25, 1 << 30]
DTYPES = ["float32", "bfloat16"]
CALLS = {
    "uniform": {
        "xavierfast": lambda t: xt.uniform_(t, -0.05, 0.05, seed=0),
        "torch uniform_": lambda t: t.uniform_(-0.05, 0.05),
    },
    "normal": {
        "xavierfast": lambda t: xt.normal_(t, std=0.02, seed=0),
        "torch normal_": lambda t: t.normal_(0.0, 0.02),
    },
    "truncated normal": {
        "xavierfast": lambda t: xt.trunc_normal_(t, std=0.02, a=-0.04, b=0.04, seed=0),
        "torch trunc_normal_": lambda t: torch.nn.init.trunc_normal_(t, std=0.02, a=-0.04, b=0.04),
    },
}  # fmt: skip


@pytest.fixture(autouse=True)
def seam(monkeypatch):
    if INTERPRETED:
        monkeypatch.setitem(devices.BACKENDS, "cpu", "gpu")
        monkeypatch.setattr(devices, "_current", lambda device: nullcontext())


def synchronize():
    if not INTERPRETED:
        torch.get_device_module(DEVICE).synchronize()


def record(benchmark, group, call, size, elements, unit="elements"):
    """Time calls that write `size` bytes, each to its end."""

    def timed():
        call()
        synchronize()

    benchmark.group = group
    benchmark.extra_info.update(size=size, elements=elements, unit=unit)
    benchmark.pedantic(timed, rounds=1 if INTERPRETED else 10, warmup_rounds=0 if INTERPRETED else 2)


def name():
    return "Triton's interpreter" if INTERPRETED else torch.get_device_module(DEVICE).get_device_name()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(("kind", "who"), [(k, w) for k, calls in CALLS.items() for w in [*calls, "zero_"]])
def test_fill(benchmark, kind, who, size, dtype):
    tensor = torch.empty(size, dtype=getattr(torch, dtype), device=DEVICE)
    call = CALLS[kind].get(who, torch.Tensor.zero_)
    record(benchmark, f"{kind}, {size} {dtype}, {name()}", lambda: call(tensor), tensor.nbytes, size)


@pytest.mark.parametrize("who", ["xavierfast", "zero_"])
def test_rows_by_ids(benchmark, who):
    rows = 20 if INTERPRETED else 10**6
    table = xf.Table((10**9, 128), "uniform", bound=0.05, seed=7)
    tensor = torch.empty(rows, 128, device=DEVICE)
    ids = torch.randint(0, 10**9, (rows,), device=DEVICE)
    call = tensor.zero_ if who == "zero_" else lambda: xt.fill_(tensor, table, ids)
    record(benchmark, f"{rows} rows of 128 float32 by ids, {name()}", call, tensor.nbytes, rows, "rows")


@pytest.mark.parametrize("who", ["xavierfast", "torch uniform_", "zero_"])
def test_small_call(benchmark, who):
    """The wall clock of one call of (256, 256), from call to call without waiting, as models are built."""
    tensor = torch.empty(*((4, 256) if INTERPRETED else (256, 256)), device=DEVICE)
    table = xf.Table(tuple(tensor.shape), "uniform", bound=0.05, seed=7)
    call = {
        "xavierfast": lambda: xt.fill_(tensor, table),
        "torch uniform_": lambda: tensor.uniform_(-0.05, 0.05),
        "zero_": tensor.zero_,
    }[who]
    many = 1 if INTERPRETED else 1000

    def calls():
        for _ in range(many):
            call()
        synchronize()

    calls()
    began = time.perf_counter()
    calls()
    microseconds = (time.perf_counter() - began) / many * 1e6
    print(f"{who}: {microseconds:.1f} us a call of {tuple(tensor.shape)}, launch included")
    record(benchmark, f"a call of {tuple(tensor.shape)} float32, {name()}", call, tensor.nbytes, tensor.numel())


@pytest.mark.parametrize("who", ["xavierfast", "torch trunc_normal_"])
def test_memory(who):
    """Peak memory beside the tensor."""
    if INTERPRETED:
        pytest.skip("the interpreter keeps no account of memory")
    module = torch.get_device_module(DEVICE)
    tensor = torch.empty(1 << 28, device=DEVICE)
    call = CALLS["truncated normal"][who]
    before = module.memory_allocated()
    module.reset_peak_memory_stats()
    call(tensor)
    print(f"{who}: {(module.max_memory_allocated() - before) / 2**20:.0f} MiB beside {tensor.nbytes / 2**20:.0f} MiB")


class Llama(torch.nn.Module):
    """The tensors of Llama 2 7B, without its code."""

    def __init__(self, width=4096, inner=11008, words=32000, layers=32):
        super().__init__()
        self.embed = torch.nn.Embedding(words, width)
        shapes = [(width, width)] * 4 + [(width, inner)] * 2 + [(inner, width)]
        self.layers = torch.nn.ModuleList(
            torch.nn.ModuleList(torch.nn.Linear(*shape, bias=False) for shape in shapes) for _ in range(layers)
        )
        self.head = torch.nn.Linear(width, words, bias=False)


@pytest.mark.parametrize("who", ["xavierfast materialize_", "empty and zero_"])
def test_model(benchmark, who):
    """A model of 6.7 * 10^9 parameters in bfloat16."""
    with torch.device("meta"):
        model = Llama(*((16, 24, 40, 1) if INTERPRETED else ())).bfloat16()
    numbers = [p.numel() for p in model.parameters()]

    def call():
        if who.startswith("x"):
            xt.materialize_(model, {"*": {"init": "normal", "std": 0.02}}, seed=0, device=DEVICE)
        else:
            model.to_empty(device=DEVICE)
            for parameter in model.parameters():
                parameter.detach().zero_()
        synchronize()

    benchmark.group = f"a Llama of {sum(numbers):,} bfloat16, {name()}"
    benchmark.extra_info.update(size=2 * sum(numbers), elements=sum(numbers), unit="elements")
    benchmark.pedantic(call, setup=lambda: model.to("meta") and None, rounds=1 if INTERPRETED else 3)

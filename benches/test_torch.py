"""PyTorch's own initialisers and ours, on the same tensors; a model of 10^9 parameters, built as it is and fast."""

from contextlib import nullcontext

import pytest
from conftest import peer

torch = peer("torch")
xt = pytest.importorskip("xavierfast.torch")

SHAPE = (65536, 1024)
FUNCTIONS = ["xavier_uniform_", "xavier_normal_", "kaiming_uniform_", "trunc_normal_"]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
@pytest.mark.parametrize("function", FUNCTIONS)
@pytest.mark.parametrize("who", ["xavierfast.torch", "torch"])
def test_in_place(benchmark, function, dtype, who):
    tensor = torch.ones(SHAPE, dtype=dtype)
    call = getattr(xt if who.startswith("x") else torch.nn.init, function)
    benchmark.group = f"{function} of (65536, 1024) {str(dtype).removeprefix('torch.')}, warm"
    benchmark.extra_info.update(size=tensor.nbytes, elements=tensor.numel(), unit="elements")
    benchmark.pedantic(call, (tensor,), rounds=4, warmup_rounds=1)


def build():
    width = 2048
    blocks = [torch.nn.TransformerEncoderLayer(width, 16, 4 * width, batch_first=True) for _ in range(18)]
    return torch.nn.ModuleList([torch.nn.Embedding(32_000, width), *blocks, torch.nn.Linear(width, 32_000)])


def materialize():
    with torch.device("meta"):
        model = build()
    xt.materialize_(model, seed=0)
    return model


def fill(context):
    def call():
        with context():
            return build()

    return call


CALLS = {
    "torch": fill(nullcontext),
    "xavierfast, fast_init": fill(lambda: xt.fast_init(seed=0)),
    "xavierfast, meta and materialize_": materialize,
}


@pytest.mark.parametrize("who", CALLS)
def test_build(benchmark, who):
    """End to end, in memory that is new each time."""
    parameters = 18 * (12 * 2048**2 + 13 * 2048) + 2 * 32_000 * 2048 + 32_000
    benchmark.group = "build a transformer of 1.04 * 10^9 float32 parameters, end to end"
    benchmark.extra_info.update(size=4 * parameters, elements=parameters, unit="elements")
    benchmark.pedantic(CALLS[who], rounds=3, warmup_rounds=1)

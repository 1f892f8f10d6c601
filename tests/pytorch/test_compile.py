"""Our functions within functions that torch compiles: one opaque operation, with the bits of the eager call."""

import pytest
from support import missing, run

try:
    import torch
except ImportError:
    missing("torch is not installed")

import xavierfast as xf
import xavierfast.torch as xt

TABLES = {d: xf.Table((20, 30), "he_normal", seed=3, dtype=str(d)[6:]) for d in (torch.float32, torch.bfloat16)}
SMALLER = {d: table.shard((slice(19), slice(7))) for d, table in TABLES.items()}
CALLS = {
    "uniform_": lambda w: xt.uniform_(w, -0.5, 0.5, seed=1),
    "normal_": lambda w: xt.normal_(w, 1.0, 0.02, seed=1, name="h.0"),
    "trunc_normal_": lambda w: xt.trunc_normal_(w, std=0.02, a=-0.04, b=0.04, seed=1),
    "xavier_uniform_": lambda w: xt.xavier_uniform_(w, gain=2, seed=[1, 2], layout="io"),
    "xavier_normal_": lambda w: xt.xavier_normal_(w, seed=2**300, groups=2),
    "kaiming_uniform_": lambda w: xt.kaiming_uniform_(w, a=5**0.5, seed=(1, 2), mode="fan_out"),
    "kaiming_normal_": lambda w: xt.kaiming_normal_(w, nonlinearity="tanh", seed=1, transposed=True),
    "constant_": lambda w: xt.constant_(w, 0.5),
    "zeros_": lambda w: xt.zeros_(w, seed=1),
    "fill_": lambda w: xt.fill_(w, TABLES[w.dtype]),
    "fill_ with pad": lambda w: xt.fill_(w, SMALLER[w.dtype], pad=True),
}


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_bits_of_the_eager_call(name, dtype):
    def function(weight, x):
        CALLS[name](weight)
        return (weight.float() * x).sum() + x

    torch._dynamo.reset()
    compiled = torch.compile(function, fullgraph=True, backend="aot_eager")
    for parameter in (False, True):
        weights = [torch.zeros(20, 30, dtype=dtype) for _ in range(2)]
        if parameter:
            weights = [torch.nn.Parameter(weight) for weight in weights]
        with torch.no_grad():
            results = [f(weight, torch.ones(())) for f, weight in zip((function, compiled), weights, strict=True)]
        assert torch.equal(weights[0], weights[1]) and weights[0].any() == (name != "zeros_")
        assert torch.equal(*results)


def test_seeds_of_torchs_generator_are_drawn_when_the_code_runs():
    compiled = torch.compile(lambda w: xt.normal_(w).sum(), fullgraph=True, backend="aot_eager")
    weights = [torch.zeros(20, 30) for _ in range(3)]
    for weight, seed in zip(weights, (1, 1, 2), strict=True):
        torch.manual_seed(seed)
        compiled(weight)
    torch.manual_seed(1)
    assert torch.equal(weights[0], xt.normal_(torch.empty(20, 30)))
    assert torch.equal(weights[0], weights[1]) and not torch.equal(weights[0], weights[2])


def test_what_cannot_be_compiled_is_refused_in_a_sentence():
    def within(x):
        with xt.fast_init(seed=0):
            return x + torch.randn(3)

    with pytest.raises(Exception, match="fast_init cannot be compiled: build the model outside"):
        torch.compile(within, fullgraph=True, backend="aot_eager")(torch.ones(3))


def test_inductor():
    """In a process of its own, as torch's compiler warns of its own deprecations. It needs a C++ compiler."""
    code = """
import warnings
warnings.simplefilter("ignore")
import torch, xavierfast.torch as xt
function = lambda w: xt.xavier_normal_(w, seed=1, name="w").sum() * 2
a, b = torch.zeros(40, 50), torch.zeros(40, 50)
try:
    torch.compile(function, fullgraph=True)(a)
except Exception as error:
    if "compiler" not in str(error).lower():
        raise
    print("no compiler")
else:
    function(b)
    print(torch.equal(a, b))
"""
    result = run(code)
    if "no compiler" in result:
        missing("torch finds no C++ compiler")
    assert result.strip().endswith("True")

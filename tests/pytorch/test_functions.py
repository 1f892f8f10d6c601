"""PyTorch: the bits of the core in every tensor, torch's own distributions, models, and shards of DTensors."""

import inspect
import math
import subprocess
import sys
from copy import deepcopy

import numpy as np
import pytest
from support import difference, missing, same_bits

import xavierfast as xf

try:
    import torch
except ImportError:
    missing("torch is not installed")

import xavierfast.torch as xt

nn = torch.nn
DTYPES = [torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.float8_e4m3fn, torch.float8_e5m2]
COMPLEX = [torch.complex64, torch.complex128]


def name_of(dtype):
    return str(dtype).removeprefix("torch.")


def array(tensor):
    """The elements of a tensor as an ndarray of the same dtype, which may be one of ml_dtypes."""
    return tensor.detach().contiguous().view(torch.uint8).numpy().view(name_of(tensor.dtype))


# ---- functions


@pytest.mark.parametrize("dtype", DTYPES + COMPLEX)
def test_the_bits_of_the_core(dtype, ml_dtypes):
    tensor = xt.xavier_uniform_(torch.empty(70, 30, dtype=dtype), gain=2.0, seed=3, name="w")
    expected = xf.xavier_uniform((70, 30), gain=2.0, seed=3, name="w", dtype=name_of(dtype))
    same_bits(array(tensor), expected)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    "view",
    [
        lambda t: t.t(),
        lambda t: t[::2, 1::3],
        lambda t: t[1:, :],
        lambda t: t.unflatten(0, (10, 8)).permute(2, 0, 1),
    ],
    ids=["transposed", "steps", "rows", "permuted"],
)
def test_any_strides_and_nothing_beside_them(view, dtype, ml_dtypes):
    whole = torch.zeros(80, 60, dtype=dtype)
    part = view(whole)
    assert xt.normal_(part, seed=1, std=0.5) is part
    expected = xf.normal(tuple(part.shape), std=0.5, seed=1, dtype=name_of(dtype))
    same_bits(array(part), expected)
    part.zero_()
    assert not array(whole).view(np.uint8).any()


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_threads(threads):
    tensor = xt.kaiming_normal_(torch.empty(2000, 1000), seed=0, threads=threads)
    same_bits(array(tensor), xf.he_normal((2000, 1000), layout="oi", gain=math.sqrt(2), seed=0))


NAMES = [
    "uniform_", "normal_", "trunc_normal_", "constant_", "ones_", "zeros_", "xavier_uniform_", "xavier_normal_",
    "kaiming_uniform_", "kaiming_normal_",
]  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_signatures_begin_with_those_of_torch(name):
    theirs = list(inspect.signature(getattr(nn.init, name)).parameters.values())
    ours = list(inspect.signature(getattr(xt, name)).parameters.values())
    assert [(p.name, p.default) for p in ours[: len(theirs)]] == [(p.name, p.default) for p in theirs]


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("uniform_", (-0.1, 0.1)),
        ("uniform_", (2.0, 5.0)),
        ("normal_", (0.0, 0.02)),
        ("normal_", (-1.0, 0.5)),
        ("trunc_normal_", (0.0, 0.02, -0.04, 0.04)),
        ("trunc_normal_", (0.0, 1.0, -3.0, 3.0)),
        ("trunc_normal_", (0.5, 1.0, 0.0, 2.0)),
        ("xavier_uniform_", (2.0,)),
        ("xavier_normal_", ()),
        ("kaiming_uniform_", (math.sqrt(5),)),
        ("kaiming_normal_", (0, "fan_out", "relu")),
    ],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("shape", [(400, 300), (64, 24, 5, 5)])
def test_distributions_are_those_of_torch(name, arguments, dtype, shape):
    """Quantiles of 10^5 draws agree within 0.05 standard deviations, some 8 standard errors at the median."""
    theirs = getattr(nn.init, name)(torch.empty(shape), *arguments).double().flatten()
    ours = getattr(xt, name)(torch.empty(shape, dtype=dtype), *arguments, seed=0).double().flatten()
    ranks = torch.tensor([0.001, 0.1, 0.3, 0.5, 0.7, 0.9, 0.999], dtype=torch.float64)
    scale = theirs.std()
    tolerance = torch.tensor([0.3, 0.05, 0.05, 0.05, 0.05, 0.05, 0.3]) * scale
    assert (theirs.quantile(ranks) - ours.quantile(ranks)).abs().le(tolerance).all()
    if name == "trunc_normal_":
        assert ours.min() >= torch.tensor(arguments[2], dtype=dtype)
        assert ours.max() <= torch.tensor(arguments[3], dtype=dtype)
    if name == "uniform_":
        assert ours.min() >= torch.tensor(arguments[0], dtype=dtype)
        assert ours.max() < torch.tensor(arguments[1], dtype=dtype)


def test_fans_of_convolutions_are_those_of_torch():
    for module in (nn.Conv1d(6, 4, 3), nn.Conv2d(6, 4, (3, 5)), nn.Conv3d(2, 4, 3), nn.ConvTranspose2d(6, 4, 3)):
        fan_in, fan_out = nn.init._calculate_fan_in_and_fan_out(module.weight)
        weight = xt.xavier_uniform_(module.weight, seed=0)
        bound = xf.Table((fan_in, fan_out), seed=0).bound
        same_bits(array(weight), xf.uniform(tuple(weight.shape), bound=bound, seed=0))


def test_means_are_those_of_the_core(ml_dtypes):
    tensor = xt.normal_(torch.empty(1000, dtype=torch.bfloat16), 3.0, 0.5, seed=0)
    expected = xf.normal(1000, mean=3.0, std=0.5, seed=0, dtype="bfloat16")
    same_bits(array(tensor), expected)
    strided = torch.empty(10, 100, dtype=torch.bfloat16).t()
    same_bits(array(xt.normal_(strided, 3.0, 0.5, seed=0)), expected.reshape(100, 10))
    ranged = xt.uniform_(torch.empty(1000), 2.0, 5.0, seed=0)
    same_bits(array(ranged), xf.uniform(1000, low=2.0, high=5.0, seed=0))


def test_wrong_kinds_of_arguments():
    with pytest.raises(TypeError, match=r"table must be a xavierfast\.Table, got str"):
        xt.fill_(torch.empty(3), "x")
    for out in (torch.empty(3), nn.Parameter(torch.empty(3))):
        with pytest.raises(TypeError, match=r"or a buffer, got \w+: use the functions of xavierfast.torch"):
            xf.uniform(out=out)
        with pytest.raises(TypeError, match=r"or a buffer, got \w+: use the functions of xavierfast.torch"):
            xf.Table((3, 1)).read((..., 0), out=out)
    with pytest.raises(TypeError, match=r"out must hold float32 \(the dtype to fill\), got an array of float64"):
        xf.Table((3, 1)).read(out=np.empty((3, 1)))
    by_name, by_function = nn.Linear(3, 4), nn.Linear(3, 4)
    xt.init_(by_name, "xavier_uniform", seed=0)
    xt.init_(by_function, xf.xavier_uniform, seed=0)
    assert torch.equal(by_name.weight, by_function.weight)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
def test_uniform_never_gives_its_upper_end(dtype):
    for a, b in ((0.0, 1.0), (-0.05, 0.05), (2.0, 5.0)):
        values = xt.uniform_(torch.empty(2_000_000, dtype=dtype), a, b, seed=1).double()
        assert a <= values.min() and values.max() < b


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_truncation_keeps_absolute_bounds_exactly(dtype):
    """Bounds that are drawn often, and whose distance in standard deviations is no float."""
    for mean, std, a, b in ((0.1, 0.3, 0.1, 0.1 + 1e-7), (1.7, 0.3, 1.6999999, 1.7000001), (0.0, 0.7, -1e-8, 1e-8),
                            (1000.0, 0.01, 999.99, 1000.01), (5.0, 1.0, -2.0, 2.0)):  # fmt: skip
        values = xt.trunc_normal_(torch.empty(20_000, dtype=dtype), mean, std, a, b, seed=0).double()
        assert a <= values.min() and values.max() <= b


def test_the_seed_is_that_of_torchs_generator_if_none_is_given():
    torch.manual_seed(5)
    first, second = xt.xavier_uniform_(torch.empty(9, 9)), xt.xavier_uniform_(torch.empty(9, 9))
    assert not torch.equal(first, second)
    torch.manual_seed(5)
    assert torch.equal(xt.xavier_uniform_(torch.empty(9, 9)), first)
    generator = torch.Generator().manual_seed(6)
    third = xt.xavier_uniform_(torch.empty(9, 9), 1.0, generator)
    assert torch.equal(xt.xavier_uniform_(torch.empty(9, 9), generator=generator.manual_seed(6)), third)


def test_autograd_notices():
    weight = nn.Parameter(torch.ones(3, 3))
    loss = (weight * weight).sum()
    xt.xavier_uniform_(weight, seed=0)
    assert weight.requires_grad
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


@pytest.mark.parametrize(
    ("call", "error"),
    [
        (lambda: xt.xavier_uniform_(np.ones((2, 2))), "torch.Tensor"),
        (lambda: xt.xavier_uniform_(torch.empty(3)), "two axes"),
        (lambda: xt.normal_(torch.empty(3, dtype=torch.int32)), "int32"),
        (lambda: xt.fill_(torch.empty(3, device="meta"), xf.Table(3, "normal")), "meta"),
        (lambda: xt.normal_(torch.empty(1).expand(3)), "overlap"),
        (lambda: xt.uniform_(torch.empty(3), 1, 0), "at most b"),
        (lambda: xt.trunc_normal_(torch.empty(3), a=1, b=0), "at most b"),
        (lambda: xt.kaiming_uniform_(torch.empty(3, 3), mode="fan"), "mode"),
        (lambda: xt.kaiming_uniform_(torch.empty(3, 3), nonlinearity="none"), "nonlinearity"),
        (lambda: xt.xavier_uniform_(torch.empty(3, 3), threads=0), "threads"),
        (lambda: xt.fill_(torch.empty(3, 3), xf.Table((3, 4), seed=0)), "agree"),
        (lambda: xt.fill_(torch.empty(3, 4).half(), xf.Table((3, 4), seed=0)), "agree"),
        (lambda: xt.fill_(torch.empty(5, 4), xf.Table((3, 4), seed=0)), "agree, .* use pad=True to fill a larger"),
        (lambda: xt.fill_(torch.empty(5, 4).half(), xf.Table((3, 4), seed=0), pad=True), "agree"),
        (lambda: xt.fill_(torch.empty(2, 4), xf.Table((3, 4), seed=0), pad=True), r"tensor must have the axes of \(3"),
        (lambda: xt.fill_(torch.empty(12), xf.Table((3, 4), seed=0), pad=True), r"tensor must have the axes of \(3"),
    ],
)
def test_errors(call, error):
    with pytest.raises((TypeError, ValueError), match=error):
        call()


# ---- fast_init


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3)
        self.norm = nn.BatchNorm2d(8)
        self.embed = nn.Embedding(50, 16, padding_idx=3)
        self.rnn = nn.LSTM(16, 12, num_layers=2)
        self.attention = nn.MultiheadAttention(16, 2)
        self.head = nn.Linear(16, 40)
        self.own = nn.Parameter(nn.init.trunc_normal_(torch.empty(30, 20), std=0.02))
        nn.init.xavier_normal_(self.head.weight)


def test_fast_init_draws_what_the_code_asks_for():
    with xt.fast_init(seed=0):
        model = Net()
    assert model.conv.weight.abs().max() <= 27**-0.5
    assert (model.norm.weight == 1).all()
    assert (model.embed.weight[3] == 0).all()
    assert model.rnn.weight_hh_l1.abs().max() <= 12**-0.5
    assert (model.attention.out_proj.bias == 0).all()
    # 600 draws: the relative error of a standard deviation is 3 %; five of that
    assert model.own.std().item() == pytest.approx(0.02 * 0.88, rel=0.15)
    assert model.head.weight.std().item() == pytest.approx(math.sqrt(2 / 56), rel=0.15)
    assert model.conv.weight.dtype == torch.float32


def test_fast_init_is_reproducible_and_draws_by_our_kernels():
    with xt.fast_init(seed=0):
        first = nn.Linear(30, 20)
    with xt.fast_init(seed=0, threads=1):
        again = nn.Linear(30, 20)
        other = nn.Linear(30, 20)
    same_bits(array(again.weight), array(first.weight))
    assert difference(array(other.weight), array(first.weight))
    expected = xf.he_uniform(
        (20, 30), layout="oi", gain=xf.calculate_gain("leaky_relu", math.sqrt(5)), seed=0, name="0"
    )
    same_bits(array(first.weight), expected)
    same_bits(array(first.bias), xf.uniform(20, bound=30**-0.5, seed=0, name="1"))
    torch.manual_seed(1)
    with xt.fast_init():
        third = nn.Linear(30, 20)
    torch.manual_seed(1)
    with xt.fast_init():
        same_bits(array(nn.Linear(30, 20).weight), array(third.weight))


def test_fast_init_lets_all_else_pass():
    generator = torch.Generator()
    with xt.fast_init(seed=0):
        theirs = torch.empty(5).normal_(generator=generator.manual_seed(1))
        assert nn.Linear(3, 4, device="meta").weight.is_meta
        assert torch.empty(2, 2, dtype=torch.int64).random_(5).max() < 5
        orthogonal = nn.init.orthogonal_(torch.empty(8, 8))
        assert nn.init.trunc_normal_(torch.empty(3, device="meta")).is_meta
        keyword = torch.zeros(100).uniform_(to=3, **{"from": 2})
    assert torch.equal(theirs, torch.empty(5).normal_(generator=generator.manual_seed(1)))
    # A product of float32 rows of 8
    assert torch.allclose(orthogonal @ orthogonal.T, torch.eye(8), atol=1e-5)
    assert keyword.min() >= 2


def test_fast_init_ends():
    patched = nn.init._no_grad_trunc_normal_
    with pytest.raises(KeyError), xt.fast_init(seed=0):
        assert nn.init._no_grad_trunc_normal_ is not patched
        raise KeyError
    assert nn.init._no_grad_trunc_normal_ is patched
    torch.manual_seed(0)
    theirs = nn.init.trunc_normal_(torch.empty(5))
    torch.manual_seed(0)
    assert torch.equal(nn.init.trunc_normal_(torch.empty(5)), theirs)


# ---- init_

LAYERS = {
    "Linear": lambda: nn.Linear(7, 5),
    "Bilinear": lambda: nn.Bilinear(3, 4, 5),
    "Conv1d of groups": lambda: nn.Conv1d(4, 6, 3, groups=2),
    "Conv2d": lambda: nn.Conv2d(3, 6, 3),
    "Conv3d": lambda: nn.Conv3d(2, 3, 3),
    "ConvTranspose2d": lambda: nn.ConvTranspose2d(4, 6, 3),
    "Embedding": lambda: nn.Embedding(30, 8, padding_idx=2),
    "EmbeddingBag": lambda: nn.EmbeddingBag(30, 8),
    "RNN": lambda: nn.RNN(4, 6),
    "LSTM": lambda: nn.LSTM(4, 6, 2, bidirectional=True, proj_size=3),
    "GRUCell": lambda: nn.GRUCell(4, 6),
    "LayerNorm": lambda: nn.LayerNorm(6),
    "RMSNorm": lambda: nn.RMSNorm(6),
    "GroupNorm": lambda: nn.GroupNorm(2, 6),
    "BatchNorm2d": lambda: nn.BatchNorm2d(6),
    "PReLU": lambda: nn.PReLU(),
    "MultiheadAttention": lambda: nn.MultiheadAttention(8, 2),
    "MultiheadAttention of parts": lambda: nn.MultiheadAttention(8, 2, kdim=4, vdim=6, add_bias_kv=True),
    "Transformer": lambda: nn.Transformer(8, 2, 1, 1, 16, batch_first=True),
    "AdaptiveLogSoftmaxWithLoss": lambda: nn.AdaptiveLogSoftmaxWithLoss(8, 20, [5, 10], div_value=2),
}


@pytest.mark.parametrize("layer", LAYERS)
def test_init_draws_from_what_each_layer_draws_from(layer):
    """Over many seeds, each parameter has the extremes and the standard deviation of torch's own."""
    layer = LAYERS[layer]()
    ours, theirs = {}, {}
    for seed in range(40):
        torch.manual_seed(seed)
        built = deepcopy(layer)
        for part in reversed(list(built.modules())):
            reset = getattr(part, "reset_parameters", None) or getattr(part, "_reset_parameters", None)
            if reset:
                reset()
        with torch.no_grad():
            for parameter in layer.parameters():
                parameter.fill_(float("nan"))
        report = xt.init_(layer, seed=seed)
        assert not report.left
        for name, parameter in layer.named_parameters():
            ours.setdefault(name, []).append(parameter.detach().clone())
        for name, parameter in built.named_parameters():
            theirs.setdefault(name, []).append(parameter.detach().clone())
    for name in theirs:
        a, b = torch.stack(ours[name]), torch.stack(theirs[name])
        assert not a.isnan().any(), name
        if (b == b.flatten()[0]).all():
            assert torch.equal(a, b), name
            continue
        error = 6 * (1 / math.sqrt(a.numel()))  # six standard errors or more: those of a normal's are 0.7 / sqrt(n)
        assert a.std().item() == pytest.approx(b.std().item(), rel=max(error, 0.02)), name
        kind = report.filled[name]
        if "uniform" in kind:
            assert a.abs().max().item() == pytest.approx(b.abs().max().item(), rel=max(20 / a.numel(), 0.01)), name


def test_init_depends_on_names_alone():
    torch.manual_seed(0)
    model, other = Net(), Net()
    for module in (model, other):
        del module.own
    with torch.no_grad():
        next(other.parameters()).fill_(9)
    other.extra = nn.Linear(3, 3)
    report = xt.init_(model, seed=7)
    xt.init_(other, seed=7)
    for (name, p), (_, q) in zip(model.named_parameters(), other.named_parameters()):  # noqa: B905
        same_bits(array(p), array(q), name)
    assert list(report.filled) == [name for name, _ in model.named_parameters()]
    expected = xf.Table((40, 16), "he_uniform", gain=math.sqrt(1 / 3), seed=7, name="head.weight", layout="oi")
    assert np.array_equal(model.head.weight.detach().numpy(), expected[...])
    assert (model.embed.weight[3] == 0).all()


def test_init_with_rules():
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Linear(8, 4), nn.LayerNorm(4))
    xt.init_(model, "xavier_normal", seed=1)
    same_bits(array(model[0].weight), xf.xavier_normal((8, 3, 3, 3), layout="oihw", seed=1, name="0.weight"))
    assert (model[2].weight == 1).all()
    xt.init_(model, {"*.bias": "zeros", "0.*": {"init": "normal", "std": 0.5}}, seed=1)
    same_bits(array(model[0].weight), xf.normal((8, 3, 3, 3), std=0.5, seed=1, name="0.weight"))
    assert (model[1].bias == 0).all()
    same_bits(array(model[1].weight), xf.he_uniform((4, 8), gain=3**-0.5, layout="oi", seed=1, name="1.weight"))
    with pytest.raises(ValueError, match="match none"):
        xt.init_(model, {"none.*": "zeros"})


def test_init_is_loud_about_what_it_leaves():
    model = nn.Module()
    model.a = nn.Linear(3, 3)
    model.own = nn.Parameter(torch.full((3,), 5.0))
    model.ints = nn.Parameter(torch.ones(3, dtype=torch.int32), requires_grad=False)
    model.empty = nn.Parameter(torch.empty(0, 4))
    model.meta = nn.Parameter(torch.empty(2, device="meta"))
    with pytest.warns(UserWarning, match="left 4 parameters"):
        report = xt.init_(model, seed=0)
    assert list(report.filled) == ["a.weight", "a.bias"]
    assert list(report.left) == ["own", "ints", "empty", "meta"]
    assert "NOT FILLED: it is on meta" in str(report)
    assert (model.own == 5).all()


def test_tied_parameters_are_filled_once():
    model = nn.ModuleDict({"embed": nn.Embedding(20, 8), "head": nn.Linear(8, 20, bias=False)})
    model["head"].weight = model["embed"].weight
    report = xt.init_(model, "xavier_uniform", seed=0)
    assert list(report.filled) == ["embed.weight"]
    same_bits(array(model["head"].weight), xf.xavier_uniform((20, 8), seed=0, name="embed.weight"))


# ---- meta


def test_materialize_fills_what_was_built_on_meta():
    def build():
        model = nn.Sequential(nn.Embedding(20, 8), nn.Linear(8, 20, bias=False), nn.BatchNorm1d(20))
        model[1].weight = model[0].weight
        return model

    with torch.device("meta"):
        model = build()
    report = xt.materialize_(model, seed=3)
    assert not report.left
    assert model[1].weight is model[0].weight
    assert (model[2].running_var == 1).all()
    real = build()
    xt.init_(real, seed=3)
    for p, q in zip(model.parameters(), real.parameters(), strict=True):
        same_bits(array(p), array(q))


def test_materialize_tells_hollow_buffers():
    with torch.device("meta"):
        model = nn.Linear(2, 2)
        model.register_buffer("angles", torch.arange(3.0))
    with pytest.warns(UserWarning, match="angles"):
        xt.materialize_(model)
    assert model.angles.isnan().all()


# ---- shards


def test_torchrec_style_init_fn_of_a_row_shard():
    """An init_fn that sees the local shard alone fills it as the whole has it."""
    table = xf.Table((1000, 16), "uniform", bound=0.25, seed=0, name="t_items")
    local = torch.empty(250, 16)
    xt.fill_(local, table.shard(slice(500, 750)))
    assert np.array_equal(local.numpy(), table[500:750])


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float8_e4m3fn", "complex64"])
def test_padded(dtype):
    """The table lies at the beginning, with its own values and fans, and zeros lie beyond, in any strides."""
    table = xf.Table((13, 6), seed=3, dtype=dtype)
    expected = xt.fill_(torch.empty(13, 6, dtype=getattr(torch, dtype)), table)
    memory = torch.full((32, 16), 7, dtype=torch.float32).to(getattr(torch, dtype))
    for tensor in (memory[:16, :8].clone(), memory[:8].clone().T, memory.clone()[::2, :8], memory[:13, :6].clone()):
        version = tensor._version
        assert xt.fill_(tensor, table, pad=True) is tensor and tensor._version > version
        assert torch.equal(tensor[:13, :6].contiguous().view(torch.uint8), expected.view(torch.uint8))
        assert not tensor[13:].contiguous().view(torch.uint8).any()
        assert not tensor[:, 6:].contiguous().view(torch.uint8).any()
    longer = xt.fill_(torch.empty(16, 6), xf.Table((16, 6), seed=3, fan_in=13, fan_out=6))
    assert np.array_equal(longer[:13].numpy(), xf.xavier_uniform((13, 6), seed=3))


def test_without_torch_it_says_what_to_install(tmp_path):
    (tmp_path / "torch.py").write_text("raise ImportError('none', name='torch')")
    done = subprocess.run(
        [sys.executable, "-P", "-c", f"import sys; sys.path.insert(0, {str(tmp_path)!r}); import xavierfast.torch"],
        capture_output=True, text=True,
    )  # fmt: skip
    assert "ImportError: xavierfast.torch needs PyTorch: pip install torch" in done.stderr

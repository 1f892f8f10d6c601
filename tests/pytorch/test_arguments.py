"""Arguments as PyTorch's own functions take them: numbers in tensors, meta tensors, empty ones, values out of range."""

import math

import numpy as np
import pytest
from support import missing, same_bits

import xavierfast as xf

try:
    import torch
except ImportError:
    missing("torch is not installed")

import xavierfast.torch as xt

nn = torch.nn


@pytest.mark.parametrize("kind", [torch.tensor, np.float32, np.float64], ids=["tensor", "f4", "f8"])
def test_numbers_of_other_libraries(kind):
    """SIREN's code passes tensors without axes; sizes from NumPy give NumPy's scalars."""
    plain, given = torch.empty(50, 40), torch.empty(50, 40)
    bound, std, gain = 0.125, 0.5, 2.0  # exact in float32
    for name, arguments in (
        ("uniform_", (-bound, bound)), ("normal_", (0.25, std)), ("trunc_normal_", (0.0, std, -1.0, 1.0)),
        ("xavier_uniform_", (gain,)), ("xavier_normal_", (gain,)), ("kaiming_uniform_", (bound,)),
        ("kaiming_normal_", (bound,)), ("constant_", (bound,)),
    ):  # fmt: skip
        getattr(xt, name)(plain, *arguments, seed=1)
        getattr(xt, name)(given, *map(kind, arguments), seed=1)
        assert torch.equal(plain, given), name


def test_siren_under_fast_init():
    def build():
        layer = nn.Linear(30, 20)
        with torch.no_grad():
            layer.weight.uniform_(-torch.sqrt(torch.tensor(6 / 30)) / 30, torch.sqrt(torch.tensor(6 / 30)) / 30)
        return layer

    with xt.fast_init(seed=0):
        first = build()
    with xt.fast_init(seed=0):
        assert torch.equal(build().weight, first.weight)
    assert first.weight.abs().max() <= math.sqrt(6 / 30) / 30
    assert first.weight.std() > 0.9 * math.sqrt(2 / 30) / 30


@pytest.mark.parametrize("param", [True, [1], {"a": "b"}])
def test_a_wrong_slope_is_a_value_error_as_in_torch(param):
    with pytest.raises(ValueError):
        nn.init.calculate_gain("leaky_relu", param)
    with pytest.raises(ValueError):
        xf.calculate_gain("leaky_relu", param)


@pytest.mark.parametrize("name", ["kaiming_uniform_", "kaiming_normal_"])
@pytest.mark.parametrize("shape", [(0,), (0, 3), (3, 0, 2)])
def test_kaiming_of_no_elements_warns_as_torch_does(name, shape):
    for functions in (nn.init, xt):
        with pytest.warns(UserWarning, match="zero-element tensors is a no-op"):
            assert getattr(functions, name)(torch.empty(shape)).shape == shape


def test_other_functions_accept_tensors_without_elements():
    for name in ("uniform_", "normal_", "trunc_normal_", "ones_", "zeros_"):
        assert getattr(xt, name)(torch.empty(0)).shape == (0,)
    assert xt.xavier_uniform_(torch.empty(0, 3)).shape == (0, 3)


def test_truncation_to_one_value():
    for functions in (nn.init, xt):
        assert (functions.trunc_normal_(torch.empty(5), 0.0, 1.0, 0.5, 0.5) == 0.5).all()


@pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan, 0.5, -0.0, 3])
def test_constants_of_any_value(value):
    for dtype in (torch.float32, torch.bfloat16, torch.complex64, torch.float64):
        ours = xt.constant_(torch.zeros(3, dtype=dtype), value)
        theirs = nn.init.constant_(torch.zeros(3, dtype=dtype), value)
        assert torch.equal(ours.view(torch.uint8), theirs.view(torch.uint8))


@pytest.mark.parametrize("dtype", [torch.int64, torch.int8, torch.uint8, torch.bool])
def test_constants_of_ints(dtype):
    assert torch.equal(xt.ones_(torch.zeros(3, dtype=dtype)), torch.ones(3, dtype=dtype))
    assert torch.equal(xt.zeros_(torch.ones(3, dtype=dtype)), torch.zeros(3, dtype=dtype))
    assert torch.equal(xt.constant_(torch.zeros(3, dtype=dtype), 1), torch.ones(3, dtype=dtype))


def test_values_that_a_dtype_cannot_hold_are_rounded_as_torch_rounds_them():
    big = xt.normal_(torch.empty(20_000, dtype=torch.float16), 0.0, 20_000.0, seed=0)
    exact = xf.normal(20_000, std=20_000.0, seed=0, dtype="float64")
    assert torch.equal(big, torch.from_numpy(exact).to(torch.float16))
    assert big.isinf().any() and not big.isnan().any()
    small = xt.normal_(torch.empty(2000, dtype=torch.float16), 0.0, 1e-9, seed=0)
    assert not small.any()
    some = xt.normal_(torch.empty(20_000, dtype=torch.float16), 0.0, 5e-8, seed=0)
    assert 0 < some.count_nonzero() < 20_000
    assert xt.uniform_(torch.empty(2000, dtype=torch.float16), -1e5, 1e5, seed=0).isinf().any()
    assert not xt.trunc_normal_(torch.empty(2000, dtype=torch.float16), 0.0, 1e-9, seed=0).any()
    with xt.fast_init(seed=0):
        under = torch.empty(2000, dtype=torch.float16).normal_(0, 20_000)
    expected = torch.from_numpy(xf.normal(2000, std=20_000.0, seed=0, name="0", dtype="float64")).to(torch.float16)
    assert torch.equal(under, expected)
    for wrong in (-1.0, math.nan):
        with pytest.raises(ValueError, match="std"):
            xt.normal_(torch.empty(3, dtype=torch.float16), 0.0, wrong)


def test_complex_normals_are_those_of_torch():
    """torch adds the mean to both parts."""
    x = xt.normal_(torch.empty(200_000, dtype=torch.complex64), 2.0, 0.5, seed=0)
    torch.manual_seed(0)
    y = nn.init.normal_(torch.empty(200_000, dtype=torch.complex64), 2.0, 0.5)
    for part in (x, y):  # 200,000 draws of each part: five standard errors of a mean are 0.004, of a deviation 1 %
        assert part.real.mean().item() == pytest.approx(2.0, abs=0.004)
        assert part.imag.mean().item() == pytest.approx(2.0, abs=0.004)
        assert part.real.std().item() == pytest.approx(0.5 / math.sqrt(2), rel=0.01)
        assert part.imag.std().item() == pytest.approx(0.5 / math.sqrt(2), rel=0.01)
    with xt.fast_init(seed=0):
        under = nn.init.normal_(torch.empty(100, dtype=torch.complex64), 2.0, 0.5)
    again = xt.normal_(torch.empty(100, dtype=torch.complex64), 2.0, 0.5, seed=0, name="0")
    assert torch.equal(under, again)


@pytest.mark.parametrize("name", ["uniform_", "xavier_uniform_", "kaiming_uniform_"])
def test_complex_uniforms_of_torch_fill_a_square(name):
    torch.manual_seed(0)
    theirs = getattr(nn.init, name)(torch.empty(300, 200, dtype=torch.complex64))
    with xt.fast_init(seed=0):
        ours = getattr(nn.init, name)(torch.empty(300, 200, dtype=torch.complex64))
    with xt.fast_init(seed=0):
        assert torch.equal(getattr(nn.init, name)(torch.empty(300, 200, dtype=torch.complex64)), ours)
    for part in ("real", "imag"):
        a, b = getattr(ours, part), getattr(theirs, part)
        for ends in (torch.min, torch.max):  # 60,000 draws: 20 of them lie within 0.04 % of the range from an end
            assert abs(ends(a) - ends(b)) < 0.001 * (b.max() - b.min())


NAMES = ["uniform_", "normal_", "trunc_normal_", "xavier_uniform_", "xavier_normal_", "kaiming_uniform_",
         "kaiming_normal_", "constant_", "ones_", "zeros_"]  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_meta_tensors_are_left_as_they_are(name):
    arguments = (1.0,) if name == "constant_" else ()
    tensor = torch.empty(3, 4, device="meta")
    state = torch.get_rng_state()
    assert getattr(xt, name)(tensor, *arguments) is tensor
    assert torch.equal(torch.get_rng_state(), state)


def test_meta_tensors_of_wrong_shapes_are_refused_all_the_same():
    with pytest.raises(ValueError, match="two axes"):
        xt.xavier_uniform_(torch.empty(3, device="meta"))


class Ours(nn.Module):
    """A layer that initialises itself by our functions."""

    def __init__(self, device=None):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(20, 30, device=device))
        self.bias = nn.Parameter(torch.empty(20, device=device))
        self.reset_parameters()

    def reset_parameters(self):
        xt.xavier_uniform_(self.weight)
        xt.zeros_(self.bias)


def test_layers_that_call_our_functions():
    assert nn.utils.skip_init(Ours).weight.shape == (20, 30)
    model, again = nn.Sequential(Ours()), nn.Sequential(Ours())
    report = xt.init_(model, seed=3)
    assert list(report.filled) == ["0.weight", "0.bias"] and not report.left
    xt.init_(again, seed=3)
    assert torch.equal(model[0].weight, again[0].weight)
    same_bits(model[0].weight.detach().numpy(), xf.xavier_uniform((20, 30), layout="oi", seed=3, name="0.weight"))
    with torch.device("meta"):
        meta = nn.Sequential(Ours())
    assert not xt.materialize_(meta, seed=3).left
    assert torch.equal(meta[0].weight, model[0].weight)
    with xt.fast_init(seed=3):
        numbered = Ours()
    same_bits(numbered.weight.detach().numpy(), xf.xavier_uniform((20, 30), layout="oi", seed=3, name="0"))


def test_a_name_or_seed_that_is_given_is_kept_under_fast_init():
    with xt.fast_init(seed=3):
        named = xt.normal_(torch.empty(9), name="w")
        seeded = xt.normal_(torch.empty(9), seed=4, name="w")
    assert torch.equal(named, xt.normal_(torch.empty(9), seed=3, name="w"))
    assert torch.equal(seeded, xt.normal_(torch.empty(9), seed=4, name="w"))


def test_seeds_come_from_the_cpu_under_any_default_device():
    with torch.device("meta"), xt.fast_init():
        assert nn.Linear(3, 4).weight.is_meta
    tensor = torch.empty(3, 4)
    torch.manual_seed(2)
    with torch.device("meta"):
        xt.xavier_uniform_(tensor)
    torch.manual_seed(2)
    assert torch.equal(xt.xavier_uniform_(torch.empty(3, 4)), tensor)


def test_convolutions_of_groups_and_transposed_ones():
    """The true fans: the inputs that an output sums over, and the outputs that an input feeds."""
    for layer in (nn.Conv2d(32, 64, 3, groups=4), nn.Conv1d(12, 12, 5, groups=12), nn.ConvTranspose2d(8, 16, 3),
                  nn.ConvTranspose2d(8, 16, 3, groups=4), nn.ConvTranspose3d(4, 4, 3, groups=4)):  # fmt: skip
        field = math.prod(layer.kernel_size)
        fan_in = layer.in_channels // layer.groups * field
        fan_out = layer.out_channels // layer.groups * field
        shape = tuple(layer.weight.shape)
        options = {"groups": layer.groups, "transposed": layer.transposed, "seed": 0}
        for name, init in (("xavier_uniform_", xf.xavier_uniform), ("xavier_normal_", xf.xavier_normal),
                           ("kaiming_uniform_", xf.he_uniform), ("kaiming_normal_", xf.he_normal)):  # fmt: skip
            tensor = getattr(xt, name)(torch.empty(shape), **options)
            same_bits(tensor.numpy(), init(shape, fan_in=fan_in, fan_out=fan_out, seed=0))
    with pytest.raises(ValueError, match="transposed must be False"):
        xt.xavier_uniform_(torch.empty(3, 4), layout="io", transposed=True)
    with pytest.raises(ValueError, match="groups must divide"):
        xt.xavier_uniform_(torch.empty(4, 3, 3), groups=3)

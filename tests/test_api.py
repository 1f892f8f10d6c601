"""The API: scales, aliases, signatures and seeds, and bad input, which is refused before anything is written."""

import inspect
import traceback
from collections.abc import Callable
from fractions import Fraction
from math import inf, nan, sqrt
from pathlib import Path
from typing import get_args, get_type_hints

import numpy as np
import pytest
from support import need, run

import xavierfast as xf
from xavierfast import initializers
from xavierfast._core.dtypes import DTYPES, DTypeName
from xavierfast._core.rules import KINDS, MODES, RULES, InitName, Kind, Mode, Parameters

FAN = (600, 400)  # fan_in, fan_out


def test_bounds_and_deviations():
    n = 1000.0
    for gain in (1.0, 5 / 3, 0.0):
        assert abs(xf.xavier_uniform(FAN, gain=gain, seed=0)).max() <= gain * sqrt(6 / n)
        for name in ("xavier_uniform", "xavier_normal", "xavier_truncated_normal"):
            std = getattr(xf, name)(FAN, gain=gain, seed=0).std()
            assert std == pytest.approx(gain * sqrt(2 / n), rel=0.01)  # 240 000 draws: 7 standard errors


@pytest.mark.parametrize("kind", ["uniform", "normal", "truncated_normal"])
@pytest.mark.parametrize(
    ("family", "variance"),
    [("xavier", 2 / 1000), ("glorot", 2 / 1000), ("he", 2 / 600), ("kaiming", 2 / 600), ("lecun", 1 / 600)],
)
def test_families(family, kind, variance):
    weights = getattr(xf, f"{family}_{kind}")(FAN, seed=3)
    assert weights.var() == pytest.approx(variance, rel=0.02)
    assert weights.dtype == np.float32


@pytest.mark.parametrize(
    ("mode", "n"), [("fan_in", 600), ("fan_out", 400), ("fan_avg", 500), ("fan_geo_avg", sqrt(600 * 400))]
)
def test_modes(mode, n):
    weights = xf.variance_scaling(FAN, scale=2.0, mode=mode, distribution="uniform", seed=0)
    assert weights.var() == pytest.approx(2 / n, rel=0.02)
    assert abs(weights).max() <= sqrt(6 / n)
    assert (xf.he_uniform(FAN, mode=mode, seed=0) == weights).all()


def test_one_body():
    keywords = {"seed": 5, "name": "w"}
    assert (
        xf.xavier_uniform(FAN, gain=1.5, **keywords) == xf.uniform(FAN, bound=1.5 * sqrt(3 / 500), **keywords)
    ).all()
    assert (xf.xavier_normal(FAN, **keywords) == xf.normal(FAN, std=sqrt(1 / 500), **keywords)).all()
    wide = sqrt(1 / 500) / 0.87962566103423978
    assert (xf.xavier_truncated_normal(FAN, **keywords) == xf.truncated_normal(FAN, std=wide, **keywords)).all()
    assert xf.glorot_uniform is xf.xavier_uniform
    assert xf.kaiming_normal is xf.he_normal


def test_fans_come_from_the_layout():
    shape = (64, 32, 3, 3)
    bound = sqrt(6 / ((64 + 32) * 9))
    assert (xf.xavier_uniform(shape, layout="oihw", seed=0) == xf.uniform(shape, bound=bound, seed=0)).all()
    depthwise = xf.xavier_uniform((32, 1, 3, 3), layout="oihw", groups=32, seed=0)
    assert (depthwise == xf.uniform((32, 1, 3, 3), bound=sqrt(6 / 18), seed=0)).all()
    overridden = xf.xavier_uniform(shape, fan_in=100, fan_out=50, seed=0)
    assert (overridden == xf.uniform(shape, bound=sqrt(6 / 150), seed=0)).all()
    one = xf.xavier_uniform((4, 6), fan_in=100, seed=0)
    assert (one == xf.uniform((4, 6), bound=sqrt(6 / 106), seed=0)).all()
    assert xf.xavier_uniform(5, fan_in=3, fan_out=3, seed=0).shape == (5,)


def test_constants():
    assert (xf.zeros((3, 4)) == 0).all()
    assert (xf.constant((3, 4), value=-0.25, dtype="float16") == np.float16(-0.25)).all()
    same = xf.random_constant((3, 4), bound=0.5, seed=1)
    assert (same == xf.uniform(1, bound=0.5, seed=1)[0]).all()
    assert (same != xf.random_constant((3, 4), bound=0.5, seed=2)).all()
    assert (xf.normal(3, std=0) == 0).all()
    assert (xf.truncated_normal(3, std=0.0, low=6, high=inf) == 0).all()


def test_constant_rounds_to_the_dtype(ml_dtypes):
    for dtype in ("float16", "bfloat16", "float32", "float64"):
        got = xf.constant(300, value=0.1, dtype=dtype)
        assert (got == got.dtype.type(0.1)).all()
        assert (xf.random_constant(3, dtype=dtype, seed=0) == xf.uniform(3, dtype=dtype, seed=0)[0]).all()


@pytest.mark.parametrize(
    ("nonlinearity", "param", "gain"),
    [
        ("linear", None, 1), ("identity", None, 1), ("sigmoid", None, 1), ("conv1d", None, 1), ("conv2d", None, 1),
        ("conv3d", None, 1),
        ("conv_transpose1d", None, 1), ("conv_transpose2d", None, 1), ("conv_transpose3d", None, 1),
        ("tanh", None, 5 / 3), ("relu", None, sqrt(2)), ("selu", None, 0.75),
        ("leaky_relu", None, sqrt(2 / (1 + 0.01**2))), ("leaky_relu", 0.2, sqrt(2 / (1 + 0.2**2))),
    ],
)  # fmt: skip
def test_gains(nonlinearity, param, gain):
    assert xf.calculate_gain(nonlinearity, param) == gain


@pytest.mark.parametrize("nonlinearity", ["gelu", "silu", "swish", "mish", "elu", "softplus"])
def test_unknown_gain(nonlinearity):
    expected = rf"nonlinearity must be one of .*leaky_relu; got '{nonlinearity}': .*xavierfast\.propagation\.suggest "
    with pytest.raises(ValueError, match=expected):
        xf.calculate_gain(nonlinearity)


@pytest.mark.parametrize("param", [True, [1], {"a": "b"}, "0.1", nan])
def test_slopes_that_are_no_numbers(param):
    """PyTorch's own tests ask for a ValueError."""
    with pytest.raises(ValueError, match=r"param must be (a number|finite), got "):
        xf.calculate_gain("leaky_relu", param)


SHARED = ["seed", "name", "dtype", "out", "layout", "groups", "fan_in", "fan_out", "threads"]


@pytest.mark.parametrize("name", [n for n in initializers.__all__ if n != "calculate_gain"])
def test_one_call_shape(name):
    signature = inspect.signature(getattr(xf, name))
    parameters = list(signature.parameters.values())
    assert parameters[0].name == "shape"
    assert parameters[0].default is None
    assert [p.name for p in parameters[-len(SHARED) :]] == SHARED
    assert all(p.kind is p.KEYWORD_ONLY for p in parameters[1:])
    assert signature.parameters["dtype"].default is None  # that of out, else float32


def test_signature():
    parameters = inspect.signature(xf.xavier_uniform).parameters.values()
    assert [(p.name, p.default) for p in parameters] == [
        ("shape", None), ("gain", 1.0), ("seed", None), ("name", ""), ("dtype", None), ("out", None), 
        ("layout", None), ("groups", 1), ("fan_in", None), ("fan_out", None), ("threads", None),
    ]  # fmt: skip


def test_literals():
    """The names that type checkers accept are those that calls accept."""
    assert set(get_args(InitName)) == {*RULES}
    assert set(get_args(DTypeName)) == {*DTYPES}
    assert get_args(Mode) == tuple(MODES)
    assert get_args(Kind) == KINDS
    assert get_type_hints(Parameters).keys() == {name for rule in RULES.values() for name in rule.defaults}


def test_public_names():
    assert set(xf.__all__) <= set(dir(xf)) | {"__version__"}
    assert xf.level in ("portable", "avx2", "avx512")
    assert xf.__version__.count(".") == 2
    with pytest.raises(AttributeError, match="has no attribute 'glorot'"):
        _ = xf.glorot


# ---- seeds


def test_seeds_that_are_the_same():
    first = xf.uniform(100, seed=7)
    for seed in (np.int64(7), np.uint8(7)):
        assert (xf.uniform(100, seed=seed) == first).all()
    listed = xf.uniform(100, seed=[1, 2])
    for seed in ((1, 2), np.array([1, 2]), range(1, 3)):
        assert (xf.uniform(100, seed=seed) == listed).all()
    assert (xf.uniform(100, seed=np.random.SeedSequence(7)) == xf.uniform(100, seed=np.random.SeedSequence(7))).all()
    spawned = np.random.SeedSequence(7).spawn(2)
    assert (xf.uniform(100, seed=spawned[0]) != xf.uniform(100, seed=spawned[1])).any()


def test_a_generator_moves_on():
    generator = np.random.default_rng(0)
    first, second = (xf.uniform(100, seed=generator) for _ in range(2))
    assert (first != second).any()
    assert (xf.uniform(100, seed=np.random.default_rng(0)) == first).all()


def test_none_is_fresh():
    assert (xf.uniform(100) != xf.uniform(100)).any()


# ---- bad input


@pytest.mark.parametrize(
    ("keywords", "error", "message"),
    [
        ({"shape": (3, -4)}, ValueError, "negative sizes"),
        ({"shape": (3, 4.0)}, TypeError, "tuple of ints"),
        ({"shape": "34"}, TypeError, "tuple of ints"),
        ({"shape": None}, TypeError, "needs a shape, or an array to fill"),
        ({"shape": (5,)}, ValueError, "at least two axes.*pass fan_in= and fan_out="),
        ({"shape": ()}, ValueError, "at least two axes"),
        ({"shape": (2**40, 2**30)}, ValueError, r"less than 2\*\*63 bytes"),
        ({"layout": "oih"}, ValueError, "a letter for each axis"),
        ({"layout": "o?"}, ValueError, "letters a to z"),
        ({"layout": 2}, TypeError, "layout must be a str"),
        ({"groups": 0}, ValueError, "groups must be at least 1"),
        ({"groups": 3}, ValueError, "groups must divide"),
        ({"groups": "2"}, TypeError, "groups must be an int"),
        ({"fan_in": 0}, ValueError, "fan_in must be at least 1, got 0"),
        ({"fan_out": 0}, ValueError, "fan_out must be at least 1"),
        ({"fan_in": -3}, ValueError, "fan_in must be at least 1"),
        ({"fan_in": 2.5}, TypeError, "fan_in must be an int"),
        ({"gain": -1.0}, ValueError, "gain must be finite and >= 0, got -1.0"),
        ({"gain": nan}, ValueError, "gain must be finite"),
        ({"gain": inf}, ValueError, "gain must be finite"),
        ({"gain": "relu"}, TypeError, "gain must be a number, got 'relu'"),
        ({"gain": None}, TypeError, "gain must be a number"),
        ({"gain": True}, TypeError, "gain must be a number"),
        ({"gain": 1e39}, ValueError, r"bound must be at most 3.4\d*e\+38 for float32 not to overflow"),
        ({"gain": 1e-30}, ValueError, "bound must be 0 or at least .* for float32 not to underflow"),
        ({"gain": 1e5, "dtype": "float16"}, ValueError, "at most 65504 for float16"),
        ({"gain": 1e-9, "dtype": "float16"}, ValueError, "for float16 not to underflow"),
        ({"gain": 1e-290, "dtype": "float64"}, ValueError, "for float64 not to underflow"),
        ({"dtype": "float8"}, TypeError, "dtype must be one of float32, float64, float16, bfloat16, .* got 'float8'"),
        ({"dtype": "int32"}, TypeError, "dtype must be one of"),
        ({"dtype": np.longdouble}, TypeError, "dtype must be one of"),
        ({"dtype": "bool"}, TypeError, "dtype must be one of"),
        ({"dtype": np.dtype("f4").newbyteorder()}, TypeError, "this machine's byte order"),
        ({"seed": -1}, ValueError, "seed must not be negative, got -1"),
        ({"seed": [3, -1]}, ValueError, "seed must not be negative, got -1"),
        ({"seed": []}, ValueError, "at least one int"),
        ({"seed": 1.0}, TypeError, "seed must be an int >= 0, a sequence of them.* got 1.0"),
        ({"seed": [1.0]}, TypeError, "seed must be an int"),
        ({"seed": [[1]]}, TypeError, "seed must be an int"),
        ({"seed": "7"}, TypeError, "seed must be an int"),
        ({"seed": b"7"}, TypeError, "seed must be an int"),
        ({"seed": True}, TypeError, "seed must be an int"),
        ({"seed": [True]}, TypeError, "seed must be an int"),
        ({"seed": np.True_}, TypeError, "seed must be an int"),
        ({"seed": np.random.RandomState(0)}, TypeError, "seed must be an int"),
        ({"name": 3}, TypeError, "name must be a str, got 3"),
        ({"name": None}, TypeError, "name must be a str"),
        ({"threads": 0}, ValueError, "threads must be at least 1, got 0"),
        ({"threads": -1}, ValueError, "threads must be at least 1"),
        ({"threads": 1.5}, TypeError, "threads must be an int"),
        ({"threads": True}, TypeError, "threads must be an int"),
        ({"gian": 1.0}, TypeError, r"xavier_uniform\(\) got an unexpected keyword argument 'gian'"),
    ],
)  # fmt: skip
def test_refused(keywords, error, message):
    with pytest.raises(error, match=message):
        xf.xavier_uniform(**{"shape": (6, 4), "seed": 0} | keywords)
    if "shape" not in keywords and "dtype" not in keywords:
        out = np.full((6, 4), 7, np.float32)
        with pytest.raises(error, match=message):
            xf.xavier_uniform(**{"out": out, "seed": 0} | keywords)
        assert (out == 7).all()


def read_only():
    array = np.zeros((6, 4), np.float32)
    array.flags.writeable = False
    return array


@pytest.mark.parametrize(
    ("out", "error", "message"),
    [
        (read_only, ValueError, "out must be writable"),
        (lambda: memoryview(bytes(96)).cast("f", (6, 4)), ValueError, "out must be writable"),
        (lambda: bytes(96), ValueError, "out must be writable"),
        (lambda: np.zeros((6, 4), np.int32), TypeError, "out must hold float32"),
        (lambda: np.zeros((6, 4), np.uint16), TypeError, "out must hold float32"),
        (lambda: np.zeros((6, 4), object), TypeError, "out must hold float32"),
        (lambda: np.zeros((6, 4), np.dtype("f4").newbyteorder()), TypeError, "this machine's byte order"),
        (lambda: np.zeros((4, 6), np.float32), ValueError, r"must agree, got \(6, 4\) and an array of \(4, 6\)"),
        (lambda: bytearray(95), ValueError, r"out must hold \(6, 4\) of float32, got 95 contiguous bytes"),
        (lambda: bytearray(100), ValueError, r"out must hold \(6, 4\) of float32"),
        (lambda: [[0.0] * 4] * 6, TypeError, "out must be a NumPy array or a buffer, got list"),
        (lambda: 3, TypeError, "out must be a NumPy array or a buffer, got int"),
        (
            lambda: np.lib.stride_tricks.as_strided(np.zeros(4, np.float32), (6, 4), (0, 4)),
            ValueError,
            "out must not overlap itself",
        ),
        (
            lambda: np.lib.stride_tricks.as_strided(np.zeros(9, np.float32), (6, 4), (4, 4)),
            ValueError,
            "out must not overlap itself",
        ),
    ],
)
def test_out_refused(out, error, message):
    out = out()
    before = out.copy() if isinstance(out, np.ndarray) else out
    with pytest.raises(error, match=message):
        xf.xavier_uniform((6, 4), out=out, seed=0)
    assert np.array_equal(before, out) if isinstance(out, np.ndarray) else before == out


def test_the_dtype_is_that_of_out():
    """A given dtype must be that of `out`; without a given dtype, that of `out` is used."""
    for dtype in ("float64", "float16", "complex64"):
        out = np.zeros((6, 4), dtype)
        assert xf.xavier_uniform(out=out, seed=0) is out
        assert out.tobytes() == xf.xavier_uniform((6, 4), seed=0, dtype=dtype).tobytes()
        with pytest.raises(TypeError, match=rf"out must hold float32 .*pass dtype='{dtype}', got an array of {dtype}"):
            xf.xavier_uniform(out=out, seed=0, dtype="float32")
    assert xf.xavier_uniform(3, fan_in=1, fan_out=1, dtype=None).dtype == np.float32


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: xf.uniform(3, bound=-1), ValueError, "bound must be finite and >= 0"),
        (lambda: xf.uniform(3, bound=nan), ValueError, "bound must be finite"),
        (lambda: xf.uniform(3, bound="1"), TypeError, "bound must be a number"),
        (lambda: xf.uniform(3, bound=1j), TypeError, "bound must be a number"),
        (lambda: xf.uniform(3, bound=3.5e38), ValueError, "for float32 not to overflow"),
        (lambda: xf.uniform(3, bound=70000, dtype="float16"), ValueError, "at most 65504 for float16"),
        (lambda: xf.normal(3, std=-1), ValueError, "std must be finite and >= 0"),
        (lambda: xf.normal(3, std=inf), ValueError, "std must be finite"),
        (lambda: xf.normal(3, std=1e38), ValueError, "standard deviation must be at most .* not to overflow"),
        (lambda: xf.normal(3, std=1e-40), ValueError, "standard deviation must be 0 or at least"),
        (lambda: xf.normal(3, std=30000, dtype="float16"), ValueError, "for float16 not to overflow"),
        (lambda: xf.truncated_normal(3, low=2, high=2), ValueError, "low must be less than high, got low=2 and high=2"),
        (lambda: xf.truncated_normal(3, low=2, high=-2), ValueError, "low must be less than high"),
        (lambda: xf.truncated_normal(3, low=inf, high=inf), ValueError, "low must be less than high"),
        (lambda: xf.truncated_normal(3, low=-inf, high=-inf), ValueError, "low must be less than high"),
        (lambda: xf.truncated_normal(3, low=nan), ValueError, "low must not be NaN"),
        (lambda: xf.truncated_normal(3, high=nan), ValueError, "high must not be NaN"),
        (lambda: xf.truncated_normal(3, low="a"), TypeError, "low must be a number"),
        (lambda: xf.truncated_normal(3, high=False), TypeError, "high must be a number"),
        (lambda: xf.truncated_normal(3, low=1, high=1e39), ValueError, "for float32 not to overflow"),
        (lambda: xf.truncated_normal(3, low=1.00000001, high=1.00000002), ValueError, "no float32 lies between"),
        (lambda: xf.truncated_normal(3, std=-1), ValueError, "std must be finite"),
        (lambda: xf.constant(3, value=nan), ValueError, "value must be finite, got nan"),
        (lambda: xf.constant(3, value=1e39), ValueError, "value must lie within the range of float32"),
        (lambda: xf.constant(3), TypeError, "missing 1 required keyword-only argument: 'value'"),
        (lambda: xf.random_constant(3, bound=-1), ValueError, "bound must be finite"),
        (lambda: xf.variance_scaling((3, 4), mode="avg"), ValueError, "mode must be one of fan_in.* got 'avg'"),
        (lambda: xf.variance_scaling((3, 4), scale=-1), ValueError, "scale must be finite and >= 0"),
        (
            lambda: xf.variance_scaling((3, 4), distribution="gaussian"),
            ValueError,
            "distribution must be one of uniform, normal, truncated_normal, got 'gaussian'",
        ),
        (lambda: xf.uniform((3, 4), layout="oih"), ValueError, "a letter for each axis"),
        (lambda: xf.uniform(3, 4), TypeError, "positional argument"),
    ],
)
def test_parameters_refused(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_bad_thread_environment(monkeypatch):
    for text in ("0", "two", "-1", "1.5"):
        monkeypatch.setenv("XAVIERFAST_THREADS", text)
        with pytest.raises(ValueError, match=f"XAVIERFAST_THREADS must be an int >= 1, got '{text}'"):
            xf.uniform((1024, 1024), seed=0)


def test_bfloat16_needs_ml_dtypes(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "ml_dtypes", None)
    with pytest.raises(ImportError, match=r"needs ml_dtypes \(pip install ml_dtypes\), or pass a uint16 array as out="):
        xf.uniform(3, dtype="bfloat16")
    assert xf.uniform(out=np.zeros(3, np.uint16), dtype="bfloat16", seed=0).any()


def test_defaults():
    """A change of a default would change the values of the calls that rely on it."""
    scaled = {"gain": 1.0, "mode": "fan_in"}
    own = {
        "uniform": {"bound": None, "low": None, "high": None}, "normal": {"mean": 0.0, "std": 1.0},
        "truncated_normal": {"mean": 0.0, "std": 1.0, "low": -2.0, "high": 2.0},
        "random_constant": {"bound": 1.0}, "zeros": {}, "constant": {"value": inspect.Parameter.empty},
        "variance_scaling": {"scale": 1.0, "mode": "fan_in", "distribution": "truncated_normal"},
    }  # fmt: skip
    for kind in ("uniform", "normal", "truncated_normal"):
        own |= {f"xavier_{kind}": {"gain": 1.0}, f"he_{kind}": scaled | {"gain": sqrt(2)}, f"lecun_{kind}": scaled}
    for name, parameters in own.items():
        signature = inspect.signature(getattr(xf, name)).parameters.values()
        assert {p.name: p.default for p in signature if p.name not in ("shape", *SHARED)} == parameters
    assert {*RULES} == {*initializers.__all__} - {"calculate_gain"}
    assert (xf.variance_scaling(FAN, seed=0) == xf.lecun_truncated_normal(FAN, seed=0)).all()


def test_numbers_at_the_edges():
    assert xf.calculate_gain("leaky_relu", -0.5) == sqrt(2 / 1.25)
    assert (xf.constant(3, value=-1 - 2j, dtype="complex64") == -1 - 2j).all()
    assert (xf.uniform(3, bound=0) == 0).all()
    assert (xf.constant(3, value=np.float32(-2)) == -2).all()
    with pytest.raises(ValueError, match="bound must be finite"):
        xf.uniform(3, bound=10**400)
    for fan in (1, 2**63 - 1):
        assert xf.xavier_uniform((4, 6), fan_in=fan, fan_out=fan, seed=0).any()
    with pytest.raises(ValueError, match=r"fan_in must be less than 2\*\*63"):
        xf.xavier_uniform((4, 6), fan_in=2**63)


@pytest.mark.parametrize(
    ("dtype", "smallest", "largest"),
    [
        ("float32", 2.0**-80, (2 - 2.0**-23) * 2.0**127), ("complex64", 2.0**-80, (2 - 2.0**-23) * 2.0**127),
        ("bfloat16", 2.0**-80, (2 - 2.0**-7) * 2.0**127), ("float16", 2.0**-24, 65504.0),
        ("float64", 2.0**-900, (2 - 2.0**-52) * 2.0**1023), ("complex128", 2.0**-900, (2 - 2.0**-52) * 2.0**1023),
        ("float8_e4m3fn", 2.0**-9, 448.0), ("float8_e5m2", 2.0**-16, 57344.0),
    ],
)  # fmt: skip
def test_scales_at_the_edges(ml_dtypes, dtype, smallest, largest):
    def table(init, **keywords):
        return xf.Table(3, init, dtype=dtype, **keywords)

    cut = {"low": -2.0, "high": 2.0}
    for init, name, keywords in (("uniform", "bound", {}), ("normal", "std", {}), ("truncated_normal", "std", cut)):
        table(init, **{name: smallest}, **keywords)
        with pytest.raises(ValueError, match=f"at least .* for {dtype} not to underflow"):
            table(init, **{name: smallest * (1 - 2.0**-52)}, **keywords)
    extents = [("uniform", "bound", {}, 1), ("normal", "std", {}, 9.5), ("truncated_normal", "std", cut, 2)]
    if "complex" not in dtype:
        extents += [
            ("truncated_normal", "std", {"low": -1.0, "high": 3.0}, 3),
            ("truncated_normal", "std", {"low": -4.0, "high": 3.0}, 4),
            ("truncated_normal", "std", {"low": -1.0, "high": inf}, 10.5),
            ("truncated_normal", "std", {"low": -inf, "high": -3.0}, 12.5),
        ]
    for init, name, keywords, extent in extents:
        table(init, **{name: largest / extent * (1 - 2.0**-52)}, **keywords)
        if largest < 1e300 or extent > 1:
            with pytest.raises(ValueError, match=f"at most .* for {dtype} not to overflow"):
                table(init, **{name: largest / extent * (1 + 2.0**-51)}, **keywords)
    for value in (largest, -largest):
        assert table("constant", value=value).bound == largest
    if largest < 1e300:
        with pytest.raises(ValueError, match=f"value must lie within the range of {dtype}"):
            table("constant", value=-largest * (1 + 2.0**-52))
        with pytest.raises(ValueError, match=f"value must lie within the range of {dtype}"):
            table("constant", value=-1j * largest * (1 + 2.0**-52))


# ---- arguments of every kind

ODD = [
    None, "abc", "\ud800", b"ab", ["a", "b"], [], [[1], [2, 3]], {"a": 1}, {1, 2}, len, int, object(), nan, inf, 1j,
    2.5, -3, True, np.True_, np.float32(3), np.datetime64("2020"), Fraction(1, 3), ..., slice(1), range(3),
    xf.Table(3, "zeros", seed=0), xf.xavier_uniform, memoryview(b"ab"), iter([1, 2]), -(10**400), np.arange(5000.0),
    np.array(3.5), np.array([None, "a"]), np.eye(2), np.zeros(2, [("a", "f4")]), np.ma.array([1, 2], mask=[0, 1]),
]  # fmt: skip
TABLE = xf.Table((4, 3), seed=0)


def public_calls():
    """Each public function with each of its parameters, as a name, the parameter, and a function of its value."""
    from xavierfast import propagation

    def each(function: Callable, parameters, **given):
        name = getattr(function, "__qualname__", "initializer")
        for parameter in parameters:
            yield pytest.param(
                parameter, lambda value, p=parameter: function(**given | {p: value}), id=f"{name}-{parameter}"
            )

    for name in initializers.__all__:
        function = getattr(xf, name)
        if name == function.__name__ != "calculate_gain":  # not an alias
            given = {"shape": (2, 3)} | ({"value": 1.0} if name == "constant" else {})
            yield from each(function, inspect.signature(function).parameters, **given)
    yield from each(xf.calculate_gain, ["nonlinearity", "param"], nonlinearity="leaky_relu")
    yield from each(xf.fans, ["shape", "layout", "groups"], shape=(2, 3))
    options = ["shape", "init", "seed", "name", "dtype", "layout", "groups", "fan_in", "fan_out", "scale", "mode"]
    yield from each(xf.Table, [*options, "distribution"], shape=(2, 3), init="variance_scaling")
    yield from each(TABLE.read, ["out", "threads"])
    yield from each(TABLE.density, ["x"])
    yield from each(xf.Table.from_recipe, ["recipe"])
    parameters = ["tensors", "rules", "seed", "dtype", "lazy", "threads"]
    yield from each(xf.init, parameters, tensors={"w": 3}, rules={"*": "zeros"})
    yield from each(xf.xavier_initializer, ["uniform", "seed", "dtype"])
    yield from each(xf.variance_scaling_initializer, ["factor", "mode", "uniform", "seed", "dtype"])
    yield from each(xf.xavier_initializer(seed=0), ["shape", "dtype", "partition_info"], shape=(2, 3))
    network = {"widths": [3, 4], "activation": "tanh"}
    yield from each(propagation.propagate, [*network, "init", "inputs", "batch", "seed", "jacobian"], **network)
    yield from each(propagation.compare, [*network, "inits", "seed"], **network)
    yield from each(propagation.suggest, [*network, "batch", "seed"], **network | {"widths": [3, 4, 3], "batch": 2})


@pytest.mark.parametrize(("parameter", "call"), list(public_calls()))
def test_odd_arguments(parameter, call):
    """Whatever an argument is, a call works, or the package raises an error that names the argument."""
    package = Path(xf.__file__).parent
    for value in ODD:
        try:
            call(value)
        except (TypeError, ValueError) as error:
            last = traceback.extract_tb(error.__traceback__)[-1]
            assert package in Path(last.filename).parents, f"{type(value).__name__}: {error!r}"
            assert last.line.startswith("raise "), f"{type(value).__name__}: {error!r}"
            assert parameter.removesuffix("s") in str(error), error
            assert len(str(error)) < 700, error  # the longest list all initialisers


def test_errors_print_no_tensors():
    torch = need("torch")
    module = torch.nn.Linear(30, 20)
    for tensors in (module, module.parameters(), module.named_parameters(), list(module.parameters())):
        with pytest.raises(TypeError, match=r"^tensors must be a mapping of names to shapes, .* got \w+$"):
            xf.init(tensors, {"*": "zeros"})
    with pytest.raises(TypeError, match=r"^tensors must be given as .* got Parameter: .* xavierfast.torch.init_\n"):
        xf.init(dict(module.named_parameters()), {"*": "zeros"})
    for call in (xf.zeros, xf.Table, xf.xavier_uniform, xf.fans):
        with pytest.raises(
            TypeError, match=r"^shape must be .* got .* Parameter: use the functions of xavierfast\.torch$"
        ):
            call(module.weight)
    with pytest.raises(TypeError, match=r"^shape must be .* got .* ndarray: pass an array to fill as out=$"):
        xf.xavier_uniform(np.zeros((30, 20), np.float32))
    for parameter in ("seed", "name", "gain", "groups", "fan_in", "threads"):
        with pytest.raises(TypeError, match=rf"^{parameter} must be .*got an object of type Parameter$"):
            xf.xavier_uniform((3, 4), **{parameter: module.weight})
    with pytest.raises(IndexError, match=r"valid indices, got an object of type Parameter$"):
        TABLE[module.weight]
    for call in (xf.zeros, TABLE.read):
        with pytest.raises(TypeError, match=r"^out must be .*, got Parameter: use the functions of xavierfast\.torch$"):
            call(out=module.weight)
    with pytest.raises(TypeError, match=r"^out must hold float32 \(the dtype to fill\), got an array of float64$"):
        TABLE.read([1, 2], out=np.empty((2, 3)))  # no advice of a dtype=, which it does not have


def test_limits_of_seeds():
    """The largest seeds that recipes can hold give streams of their own; larger ones are refused."""
    assert xf.uniform(3, seed=2**262_136 - 1).tolist() != xf.uniform(3, seed=2**262_136 - 2).tolist()
    assert xf.uniform(3, seed=range(4096)).tolist() != xf.uniform(3, seed=range(1, 4097)).tolist()
    for seed in (2**262_136, [1, 2**262_136]):
        with pytest.raises(ValueError, match="seed must have at most 262,136 bits, got an int of 262,137"):
            xf.uniform(3, seed=seed)
    with pytest.raises(ValueError, match="seed must hold at most 4,096 ints, got 4,097"):
        xf.uniform(3, seed=range(4097))


CONTEXTS = """
for context in (decimal.DefaultContext, decimal.getcontext()):
    context.prec, context.rounding, context.Emin, context.Emax = 3, decimal.ROUND_UP, -1, 1
    for signal in context.traps:
        context.traps[signal] = True
np.seterr(all="raise")
warnings.simplefilter("error")
"""
FILLS = """
state = repr(decimal.getcontext()), repr(decimal.DefaultContext), np.geterr()
digest = hashlib.sha256()
for dtype in ("float32", "float64", "float16", "bfloat16"):
    for low, high in ((-1.0, 3.0), (-2.0, 2.0), (-3.0, 3.0), (6.0, 9.0), (0.1, 0.7), (-2.0, float("inf"))):
        table = xf.Table((90, 7), "truncated_normal", std=0.1, low=low, high=high, seed=0, dtype=dtype)
        digest.update(table[...].tobytes())
        table.describe(), table.density([0.0, 1e300])
    digest.update(xf.uniform((90, 7), low=0.3, high=0.7, seed=0, dtype=dtype).tobytes())
assert state == (repr(decimal.getcontext()), repr(decimal.DefaultContext), np.geterr())
print(digest.hexdigest())
"""


def test_contexts_of_the_process_change_no_bit():
    """Those of decimal, from which its Context takes what it is not given, and of NumPy; and none is changed."""
    modules = "import decimal, hashlib, warnings\nimport numpy as np\n"
    load = "import xavierfast as xf\n"
    found = {run(modules + text + FILLS) for text in (load, CONTEXTS + load, load + CONTEXTS)}
    assert len(found) == 1

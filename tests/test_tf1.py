"""The old tf.contrib.layers calls: its signatures, fans and bounds, and what is different on purpose."""

import inspect
from math import sqrt
from types import SimpleNamespace

import numpy as np
import pytest

import xavierfast as xf
from xavierfast.tf1 import variance_scaling_initializer, xavier_initializer, xavier_initializer_conv2d

STD_TRUNCATED = 0.87962566103423978


def contrib_fans(shape):
    """As tensorflow/contrib/layers/python/layers/initializers.py counted them."""
    fan_in = shape[-2] if len(shape) > 1 else shape[-1] if shape else 1
    fan_out = shape[-1] if shape else 1
    field = int(np.prod(shape[:-2]))
    return fan_in * field, fan_out * field


def test_the_signatures_of_tensorflow():
    def parameters(function):
        return [(p.name, p.default) for p in inspect.signature(function).parameters.values()]

    assert xavier_initializer_conv2d is xavier_initializer
    assert parameters(xavier_initializer) == [("uniform", True), ("seed", None), ("dtype", "float32")]
    assert parameters(variance_scaling_initializer) == [
        ("factor", 2.0), ("mode", "FAN_IN"), ("uniform", False), ("seed", None), ("dtype", "float32"),
    ]  # fmt: skip
    assert parameters(xavier_initializer()) == [("shape", inspect._empty), ("dtype", None), ("partition_info", None)]


def test_the_bits_of_the_core():
    assert (xavier_initializer(seed=3)([4, 5]) == xf.xavier_uniform((4, 5), seed=3)).all()
    assert (xavier_initializer(False, 3)((3, 3, 8, 16)) == xf.xavier_truncated_normal((3, 3, 8, 16), seed=3)).all()
    assert (variance_scaling_initializer(seed=3)((40, 5)) == xf.he_truncated_normal((40, 5), seed=3)).all()
    half = variance_scaling_initializer(1.0, "FAN_OUT", True, seed=[3, 4], dtype="float16")
    expected = xf.lecun_uniform((40, 5), mode="fan_out", seed=[3, 4], dtype="float16")
    assert half((40, 5)).dtype == np.float16 and (half((40, 5)) == expected).all()
    assert (half((40, 5), "float64") == xf.lecun_uniform((40, 5), mode="fan_out", seed=[3, 4], dtype="float64")).all()


@pytest.mark.parametrize("uniform", [True, False])
@pytest.mark.parametrize("mode", ["FAN_IN", "FAN_OUT", "FAN_AVG"])
@pytest.mark.parametrize("shape", [(200_000,), (400, 500), (3, 3, 150, 200), (2, 3, 4, 50, 160)], ids=str)
def test_fans_bounds_and_standard_deviations(shape, mode, uniform):
    """The standard deviation of about 200,000 elements lies within 6 standard errors of it, of sqrt(0.5 / n) at most,
    but in one of 10^8 runs; the seed is fixed."""
    fan_in, fan_out = contrib_fans(shape)
    n = {"FAN_IN": fan_in, "FAN_OUT": fan_out, "FAN_AVG": (fan_in + fan_out) / 2}[mode]
    values = variance_scaling_initializer(1.5, mode, uniform, seed=0)(shape)
    std = sqrt(1.5 / n)
    bound = sqrt(3) * std if uniform else 2 * std / STD_TRUNCATED
    assert 0.99 * bound < abs(values).max() <= bound * (1 + 1e-7)  # the bound as a float32
    assert abs(values.std(dtype=np.float64) / std - 1) <= 6 * sqrt(0.5 / values.size)


def test_one_axis_and_none():
    assert (xavier_initializer(seed=1)(9) == xf.xavier_uniform(9, fan_in=9, fan_out=9, seed=1)).all()
    assert xavier_initializer(seed=1)(()) == xf.xavier_uniform((), fan_in=1, fan_out=1, seed=1)
    assert xavier_initializer()([0]).shape == (0,) and xavier_initializer()([0, 4]).shape == (0, 4)


def test_the_old_standard_deviation_was_too_large():
    """Its normal had a standard deviation of sqrt(1.3 factor / n) before the cut at two of its own."""
    assert sqrt(1.3) * STD_TRUNCATED == pytest.approx(1.0029276, abs=1e-7)
    table = xf.Table((300, 500), "xavier_truncated_normal", seed=0)
    assert table.std == pytest.approx(sqrt(2 / 800), rel=1e-12)
    old = xf.Table((300, 500), "truncated_normal", std=sqrt(1.3 * 2 / 800), seed=0)
    assert old.std / table.std == pytest.approx(1.0029276, abs=1e-7)


@pytest.mark.parametrize("uniform", [True, False])
def test_a_part_is_that_of_the_whole(uniform):
    init = xavier_initializer(uniform, seed=5)
    whole = init((1000, 30))
    part = init((250, 30), partition_info=SimpleNamespace(full_shape=[1000, 30], var_offset=[500, 0]))
    assert (part == whole[500:750]).all()


@pytest.mark.parametrize(
    ("shape", "offset", "full"),
    [
        ((5, 5), (10, 0), (13, 5)), ((5, 5), (0, 1), (13, 5)), ((5, 5), (0,), (13, 5)), ((5,), (0, 0), (13, 5)),
        ((5, 5), (0, 0, 0), (13, 5)), ((5, 5), (0, 0), (13,)), ((5, 5), (14, 0), (13, 5)), ((), (0, 0), (13, 5)),
    ],
)  # fmt: skip
def test_a_part_lies_within_the_whole(shape, offset, full):
    with pytest.raises(ValueError, match="a part must lie within its variable, got the shape"):
        xavier_initializer()(shape, partition_info=SimpleNamespace(full_shape=full, var_offset=offset))


@pytest.mark.parametrize(("shape", "offset"), [((3, 5), (10, 0)), ((0, 5), (13, 0)), ((13, 5), (0, 0))])
def test_a_part_at_the_end_of_the_whole(shape, offset):
    init, info = xavier_initializer(seed=5), SimpleNamespace(full_shape=(13, 5), var_offset=offset)
    part = init(shape, partition_info=info)
    assert part.shape == shape and (part == init((13, 5))[offset[0] : offset[0] + shape[0]]).all()


def test_seeds():
    init = xavier_initializer()
    assert (init((20, 20)) != init((20, 20))).any()  # as in TensorFlow, without a seed each call has its own
    generator = np.random.default_rng(0)
    seeded = xavier_initializer(seed=generator)
    assert (seeded((20, 20)) == seeded((20, 20))).all()


@pytest.mark.parametrize(("call", "error", "match"), [
    (lambda: variance_scaling_initializer(mode="fan_in"), TypeError, "mode must be 'FAN_IN', .* got 'fan_in'"),
    (lambda: variance_scaling_initializer(-1.0), ValueError, "factor must be finite and >= 0, got -1.0"),
    (lambda: xavier_initializer(dtype="int32"), TypeError, "non-floating point type.* dtype must be .* got 'int32'"),
    (lambda: xavier_initializer(dtype="complex64"), TypeError, "Cannot create initializer for non-floating point"),
    (lambda: xavier_initializer()([], dtype="int32"), TypeError, "Cannot create initializer for non-floating point"),
    (lambda: xavier_initializer(dtype="nonsense"), TypeError, "Cannot create initializer for non-floating point type."),
    (lambda: xavier_initializer()([], dtype="complex128"), TypeError, "non-floating point type: dtype must be real"),
    (lambda: variance_scaling_initializer(mode=None), TypeError, "mode must be"),
    (lambda: xavier_initializer(seed=-1), ValueError, "seed must not be negative, got -1"),
    (lambda: xavier_initializer()((4, -4)), ValueError, "shape must not have negative sizes"),
])  # fmt: skip
def test_errors(call, error, match):
    with pytest.raises(error, match=match):
        call()

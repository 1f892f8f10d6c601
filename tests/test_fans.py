"""Fans beside the formulas of PyTorch, Keras and JAX, written out here from their sources."""

from math import prod

import numpy as np
import pytest

import xavierfast as xf


def torch_fans(shape):
    """torch.nn.init._calculate_fan_in_and_fan_out"""
    return shape[1] * prod(shape[2:]), shape[0] * prod(shape[2:])


def keras_fans(shape):
    """keras.src.initializers.random_initializers.compute_fans, two axes and more"""
    return (shape[0], shape[1]) if len(shape) == 2 else (shape[-2] * prod(shape[:-2]), shape[-1] * prod(shape[:-2]))


def jax_fans(shape, in_axis=-2, out_axis=-1, batch_axis=()):
    """jax._src.nn.initializers._compute_fans"""
    size = {
        name: prod(shape[a] for a in (axes if isinstance(axes, tuple) else (axes,)))
        for name, axes in (("in", in_axis), ("out", out_axis), ("batch", batch_axis))
    }
    field = prod(shape) / size["in"] / size["out"] / size["batch"]
    return size["in"] * field, size["out"] * field


@pytest.mark.parametrize(
    ("shape", "layout", "peer"),
    [
        ((256, 1024), "oi", torch_fans((256, 1024))),
        ((64, 3, 5), "oih", torch_fans((64, 3, 5))),
        ((64, 3, 7, 7), "oihw", torch_fans((64, 3, 7, 7))),
        ((64, 3, 2, 7, 7), "oidhw", torch_fans((64, 3, 2, 7, 7))),
        ((1024, 256), None, keras_fans((1024, 256))),
        ((1024, 256), "io", keras_fans((1024, 256))),
        ((5, 3, 64), None, keras_fans((5, 3, 64))),
        ((7, 7, 3, 64), None, keras_fans((7, 7, 3, 64))),
        ((7, 7, 3, 64), "hwio", keras_fans((7, 7, 3, 64))),
        ((2, 7, 7, 3, 64), None, keras_fans((2, 7, 7, 3, 64))),
        ((7, 7, 3, 64), None, jax_fans((7, 7, 3, 64))),
        ((8, 1024, 256), "bio", jax_fans((8, 1024, 256), batch_axis=0)),
        ((512, 8, 64), "ioo", jax_fans((512, 8, 64), in_axis=0, out_axis=(1, 2))),
        ((8, 64, 512), "iio", jax_fans((8, 64, 512), in_axis=(0, 1), out_axis=2)),
        # PyTorch stores a transposed convolution as (in, out, h, w) and takes the first axis for the output; Keras
        # stores (h, w, out, in) and takes the last for the output. Both swap the fans; Xavier's sum hides it.
        ((16, 33, 3, 5), "iohw", torch_fans((16, 33, 3, 5))[::-1]),
        ((3, 5, 33, 16), "hwoi", keras_fans((3, 5, 33, 16))[::-1]),
    ],
)
def test_agrees(shape, layout, peer):
    assert xf.fans(shape, layout) == peer


@pytest.mark.parametrize(
    ("shape", "layout", "groups", "want"),
    [
        # Grouped: 4 groups, each 8 -> 16 channels of 3 x 3. PyTorch has fan_out 64 * 9 (issue 23854).
        ((64, 8, 3, 3), "oihw", 4, (72, 144)),
        ((3, 3, 8, 64), "hwio", 4, (72, 144)),
        # Depthwise: PyTorch has (9, 288) where each of the 32 outputs sees 9 inputs, and each input feeds 9 products.
        ((32, 1, 3, 3), "oihw", 32, (9, 9)),
        # Depthwise in Keras, (h, w, in, multiplier): its own formula gives (32 * 9, 2 * 9), a fan_in of all channels.
        ((3, 3, 32, 2), "hwbo", 1, (9, 18)),
        # Grouped transposed in PyTorch, (in, out / groups, h, w), seen as (groups, in / groups, out / groups, h, w).
        ((4, 8, 16, 3, 3), "biohw", 1, (72, 144)),
    ],
)
def test_groups(shape, layout, groups, want):
    assert xf.fans(shape, layout, groups) == want


def test_copies_do_not_count():
    assert xf.fans((3, 7, 5), "bio") == xf.fans((7, 5))
    assert xf.fans((3, 7, 5, 2), "biob") == (7, 5)


@pytest.mark.parametrize("shape", [(3, np.int64(4)), [3, 4], np.array([3, 4])])
def test_shapes(shape):
    assert xf.fans(shape) == (3, 4)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (((5,),), ValueError, r"at least two axes to have fans, got \(5,\): pass fan_in= and fan_out="),
        (((),), ValueError, "at least two axes"),
        (((5, 6), "oih"), ValueError, r"got 'oih' \(3 letters\) for the shape \(5, 6\)"),
        (((5, 6), "o1"), ValueError, "letters a to z.* got 'o1'"),
        (((5, 6), "OI"), ValueError, "letters a to z"),
        (((5, 6), ["o", "i"]), TypeError, "layout must be a str"),
        (((5, 6), 3), TypeError, "layout must be a str"),
        (((5, 6), None, 0), ValueError, "groups must be at least 1, got 0"),
        (((5, 6), None, -2), ValueError, "groups must be at least 1"),
        (((5, 6), None, 1.5), TypeError, "groups must be an int"),
        (((5, 6), None, True), TypeError, "groups must be an int"),
        (
            ((5, 6), None, 4),
            ValueError,
            r"the outputs of the weight, 6 \(the last axis, as there is no layout\), got 4",
        ),
        (((5, -6),), ValueError, r"negative sizes, got \(5, -6\)"),
        (((5, 6.0),), TypeError, r"tuple of ints, got \(5, 6.0\)"),
        (((5, True),), TypeError, "tuple of ints"),
        (("ab",), TypeError, "tuple of ints"),
        ((None,), TypeError, "tuple of ints"),
    ],
)
def test_errors(arguments, error, message):
    with pytest.raises(error, match=message):
        xf.fans(*arguments)


def test_sizes_at_the_edges():
    """Sizes of 0 and 64 axes are allowed, in a tuple and in a list; so are fans up to 2**63 - 1."""
    assert xf.fans((0, 5)) == xf.fans([0, 5]) == (0, 5)
    for kind in (tuple, list):
        assert xf.fans(kind([1] * 64)) == (1, 1)
        with pytest.raises(ValueError, match="at most 64 axes, got 65"):
            xf.fans(kind([1] * 65))
        with pytest.raises(ValueError, match="negative sizes"):
            xf.fans(kind([5, -1]))
    assert xf.fans((2**63 - 1, 1)) == (2**63 - 1, 1)
    for shape in ((2**62, 2, 1), (2**62, 1, 2)):
        with pytest.raises(ValueError, match=r"fans must be less than 2\*\*63"):
            xf.fans(shape)
    with pytest.raises(ValueError, match=r"shape must have sizes less than 2\*\*63"):
        xf.fans((2**63, 1))


def test_groups_at_the_edges():
    assert xf.fans((5, 6), None, np.int64(1)) == (5, 6)
    with pytest.raises(ValueError, match="must divide"):
        xf.fans((5, 6), None, np.uint64(2**63 - 1))
    with pytest.raises(ValueError, match=r"groups must be less than 2\*\*63"):
        xf.fans((5, 6), None, np.uint64(2**63))


def test_all_letters():
    assert xf.fans((2, 3, 4, 5), "azio") == (24, 30)

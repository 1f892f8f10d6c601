"""The fans of a weight: the number of inputs that an output sums over, and of outputs that an input feeds."""

from collections.abc import Sequence
from functools import lru_cache
from math import prod
from typing import SupportsIndex

from ._core.validation import check_count, check_shape

__all__ = ["fans"]


def fans(shape: Sequence[SupportsIndex], layout: str | None = None, groups: int = 1) -> tuple[int, int]:
    """``(fan_in, fan_out)`` of a weight, as Glorot and Bengio (2010) count them (their n_j and n_{j+1}).

    fan_in is the number of inputs that an output sums over, fan_out the number of outputs that an input feeds. They
    follow from the shape and the layout, which has one letter per axis: ``i`` for input, ``o`` for output, ``b`` for
    independent copies, and any other letter for the receptive field. If R is the product of the receptive field's
    sizes::

        fan_in  =  R * product of the i sizes
        fan_out =  R * product of the o sizes / groups

    ===================  =====================  ==============================================
    layout               shape                  weight
    ===================  =====================  ==============================================
    ``io``               (in, out)              dense: Keras, JAX, the original TensorFlow
    ``oi``               (out, in)              dense: PyTorch's Linear
    ``oihw``             (out, in/g, kh, kw)    convolution: PyTorch
    ``hwio``             (kh, kw, in/g, out)    convolution: Keras, JAX
    ``iohw``             (in, out, kh, kw)      transposed convolution: PyTorch
    ``hwoi``             (kh, kw, out, in)      transposed convolution: Keras
    ``hwbo``             (kh, kw, in, mult)     depthwise convolution: Keras
    ``bio``              (experts, in, out)     stacked experts, stacked layers
    ``ioo``              (in, heads, size)      attention's query, key and value: Keras, JAX
    ``iio``              (heads, size, out)     attention's output
    ===================  =====================  ==============================================

    Parameters
    ----------
    shape : sequence of ints
        The sizes of the whole weight, even if only a part of it is filled; at least two axes.
    layout : str, optional
        One letter per axis, as above. By default the last two axes are input and output, and all axes before them are
        the receptive field, as in Keras, JAX and TensorFlow.
    groups : int
        The number of groups of a grouped or depthwise convolution, whose ``o`` axis holds the outputs of all groups:
        an input feeds only the outputs of its own group. PyTorch's own formula leaves this out (pytorch issue 23854).

    Returns
    -------
    tuple of two ints

    Raises
    ------
    TypeError, ValueError
        For fewer than two axes, sizes that are not ints >= 0, a layout that does not match the shape, or groups that
        do not divide the outputs.

    Examples
    --------
    >>> fans((1024, 256))
    (1024, 256)
    >>> fans((64, 3, 7, 7), "oihw")
    (147, 3136)
    >>> fans((32, 1, 3, 3), "oihw", groups=32)
    (9, 9)
    """
    if layout is not None and not isinstance(layout, str):
        raise TypeError(f"layout must be a str with a letter for each axis, such as 'oihw', got {layout!r:.80}")
    if type(groups) is not int or groups < 1:
        groups = check_count("groups", groups)
    return _fans(check_shape(shape), layout, groups)


@lru_cache(maxsize=1024)
def _fans(shape: tuple[int, ...], layout: str | None, groups: int) -> tuple[int, int]:
    if len(shape) < 2:
        raise ValueError(
            f"a shape needs at least two axes to have fans, got {shape!r}: pass fan_in= and fan_out=, or use "
            "uniform(bound=), normal(std=) or zeros"
        )
    where = "" if layout else " (the last axis, as there is no layout)"
    if layout is None:
        layout = "x" * (len(shape) - 2) + "io"
    if not all("a" <= letter <= "z" for letter in layout):
        raise ValueError(
            f"layout must consist of the letters a to z: i input, o output, b independent copies, any other receptive "
            f"field; got {layout!r}"
        )
    if len(layout) != len(shape):
        raise ValueError(
            f"layout must have a letter for each axis, got {layout!r} ({len(layout)} letters) for the shape {shape!r}"
        )
    inputs, outputs, field = (
        prod(size for size, letter in zip(shape, layout, strict=True) if wanted(letter))
        for wanted in ("i".__eq__, "o".__eq__, lambda letter: letter not in "iob")
    )
    if outputs % groups:
        raise ValueError(f"groups must divide the outputs of the weight, {outputs}{where}, got {groups}")
    fan_in, fan_out = inputs * field, outputs * field // groups
    if max(fan_in, fan_out) >= 1 << 63:
        raise ValueError(f"fans must be less than 2**63, got those of the shape {shape!r:.80}")
    return fan_in, fan_out

"""The initialisers of ``tf.contrib.layers`` (TensorFlow 1) with their original signatures, for NumPy arrays.

The distributions are those of TensorFlow, except where these were wrong:

- TensorFlow cut its normals at two standard deviations and widened them by sqrt(1.3), which made the standard deviation
  1.0029 times too large. Here it is the requested one.
- TensorFlow took the fans of a part of a partitioned variable from the part's own shape. Here they are the fans of the
  ``full_shape`` in its ``partition_info``, and the values are those of that part of the whole variable.
- The docstring of ``xavier_initializer`` gave the standard deviation of its normal as sqrt(3 / (in + out)). Its code
  and the paper have sqrt(2 / (in + out)).
"""

from collections.abc import Callable
from math import prod
from typing import Any, Literal

import numpy as np

from ._core.dtypes import DTypeLike, DTypeName, resolve_dtype
from ._core.fill import Array
from ._core.stream import Seed, resolve_seed
from ._core.validation import Shape, check_number, check_shape
from .table import Table

__all__ = ["variance_scaling_initializer", "xavier_initializer", "xavier_initializer_conv2d"]


def xavier_initializer(uniform: bool = True, seed: Seed = None, dtype: DTypeLike = "float32") -> Callable[..., Array]:
    """``tf.contrib.layers.xavier_initializer``: :func:`variance_scaling_initializer` with factor 1 and "FAN_AVG".

    Examples
    --------
    >>> weights = xavier_initializer(seed=0)([4, 4])
    >>> weights.shape, bool(abs(weights).max() <= (6 / 8) ** 0.5)
    ((4, 4), True)
    """
    return variance_scaling_initializer(1.0, "FAN_AVG", uniform, seed, dtype)


xavier_initializer_conv2d = xavier_initializer  # as in TensorFlow, where the fans are those of all shapes


def variance_scaling_initializer(
    factor: float = 2.0, mode: Literal["FAN_IN", "FAN_OUT", "FAN_AVG"] = "FAN_IN", uniform: bool = False,
    seed: Seed = None, dtype: DTypeLike = "float32",
) -> Callable[..., Array]:  # fmt: skip
    """``tf.contrib.layers.variance_scaling_initializer``: values of mean 0 and variance factor / n.

    Parameters
    ----------
    factor : float
        At least 0.
    mode : {"FAN_IN", "FAN_OUT", "FAN_AVG"}
        The fan n: fan_in, fan_out or their mean. Both fans of a shape with one axis are its size; without axes, both
        are 1.
    uniform : bool
        Whether to draw from the uniform on +-sqrt(3 * factor / n), or from a normal that is cut at two standard
        deviations and widened by 1 / 0.8796.
    seed, dtype
        As in :func:`xavierfast.xavier_uniform`. **With a seed, all calls give the same numbers**, scaled for their
        shapes, since tensors have no names here; with None, each call gives other values, as in TensorFlow.

    Returns
    -------
    callable
        ``initializer(shape, dtype=dtype, partition_info=None)``, which returns a NumPy array. `partition_info` has
        the attributes ``full_shape`` and ``var_offset``, as in TensorFlow.

    Raises
    ------
    TypeError
        For another mode, and for a dtype that is not a real floating-point type, as in TensorFlow.
    TypeError, ValueError
        If another argument is not as described above, or a part does not lie within the ``full_shape``.

    Examples
    --------
    >>> weights = variance_scaling_initializer(seed=0)((200, 5000))
    >>> weights.std().round(3), bool(abs(weights).max() <= 2 * 0.1 / 0.8796)
    (np.float32(0.1), True)
    """
    if not isinstance(mode, str) or mode not in ("FAN_IN", "FAN_OUT", "FAN_AVG"):
        raise TypeError(f"mode must be 'FAN_IN', 'FAN_OUT' or 'FAN_AVG', got {mode!r:.80}")
    if not isinstance(uniform, (bool, np.bool_)):
        raise TypeError(f"uniform must be True or False, got {uniform!r:.80}")
    fixed = None if seed is None else resolve_seed(seed)
    drawn: dict[str, Any] = {
        "scale": check_number("factor", factor),
        "mode": mode.lower(),
        "distribution": "uniform" if uniform else "truncated_normal",
    }
    default = _floating(dtype)
    Table((1, 1), "variance_scaling", seed=0, **drawn)  # raises errors here, where the arguments are given

    def initializer(shape: Shape, dtype: DTypeLike | None = None, partition_info: Any = None) -> Array:
        kind = default if dtype is None else _floating(dtype)
        sizes = check_shape(shape)
        whole, part = (sizes, ...) if partition_info is None else _part(sizes, partition_info)
        n = max(1, prod(whole)) if len(whole) < 2 else None
        return Table(whole, "variance_scaling", seed=fixed, dtype=kind, fan_in=n, fan_out=n, **drawn).read(part)

    return initializer


def _floating(dtype: DTypeLike) -> DTypeName:
    try:
        resolved = resolve_dtype(dtype)
    except (TypeError, ValueError) as error:  # in TensorFlow's words, which programs and its own tests look for
        raise TypeError(f"Cannot create initializer for non-floating point type: {error}") from None
    if resolved.is_complex:
        raise TypeError(f"Cannot create initializer for non-floating point type: dtype must be real, got {dtype!r:.80}")
    return resolved.name


def _part(sizes: tuple[int, ...], info: Any) -> tuple[tuple[int, ...], tuple[slice, ...]]:
    """The shape of a partitioned variable, and where in it the part of these sizes lies."""
    if not (hasattr(info, "full_shape") and hasattr(info, "var_offset")):
        raise TypeError(f"partition_info must have full_shape and var_offset, got {type(info).__name__}")
    whole, offset = check_shape(info.full_shape), check_shape(info.var_offset)
    if not len(sizes) == len(offset) == len(whole) or any(
        first + size > length for first, size, length in zip(offset, sizes, whole, strict=True)
    ):
        raise ValueError(
            f"a part must lie within its variable, got the shape {sizes!r} at var_offset {offset!r} of full_shape "
            f"{whole!r}"
        )
    return whole, tuple(slice(first, first + size) for first, size in zip(offset, sizes, strict=True))

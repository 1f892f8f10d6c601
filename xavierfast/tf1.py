"""The initialisers of ``tf.contrib.layers`` (TensorFlow 1), called as they were, on NumPy arrays.

The distributions are theirs, but for what was wrong in them:

- The normal ones were cut at two standard deviations and widened by sqrt(1.3), for a standard deviation that was 1.0029
  times too large. Here it is what was asked for.
- A part of a partitioned variable took its fans from its own shape. Here they are those of the ``full_shape`` of its
  ``partition_info``, and the values those of that part of the whole variable.
- The docstring of ``xavier_initializer`` gave its normal sqrt(3 / (in + out)); its code and the paper have
  sqrt(2 / (in + out)).
"""

from collections.abc import Callable, Sequence
from math import prod
from typing import Any

from ._core.dtypes import resolve_dtype
from ._core.fill import Array
from ._core.stream import Seed, resolve_seed
from ._core.validation import check_shape
from .table import Table

__all__ = ["variance_scaling_initializer", "xavier_initializer"]


def xavier_initializer(uniform: bool = True, seed: Seed = None, dtype: Any = "float32") -> Callable[..., Array]:
    """``tf.contrib.layers.xavier_initializer``: :func:`variance_scaling_initializer` of factor 1 and "FAN_AVG".

    Examples
    --------
    >>> weights = xavier_initializer(seed=0)([4, 4])
    >>> weights.shape, bool(abs(weights).max() <= (6 / 8) ** 0.5)
    ((4, 4), True)
    """
    return variance_scaling_initializer(1.0, "FAN_AVG", uniform, seed, dtype)


def variance_scaling_initializer(
    factor: float = 2.0, mode: str = "FAN_IN", uniform: bool = False, seed: Seed = None, dtype: Any = "float32"
) -> Callable[..., Array]:
    """``tf.contrib.layers.variance_scaling_initializer``: mean 0 and variance factor / n, n the fan of the mode.

    Parameters
    ----------
    factor : float
        >= 0.
    mode : {"FAN_IN", "FAN_OUT", "FAN_AVG"}
        Of a shape of one axis both fans are its size, of none 1.
    uniform : bool
        Uniform on +-sqrt(3 * factor / n), or a normal cut at two standard deviations and widened by 1 / 0.8796.
    seed, dtype
        As in :func:`xavierfast.xavier_uniform`. With a seed all calls for a shape give the same values, with None each
        has its own, as TensorFlow's.

    Returns
    -------
    callable
        ``initializer(shape, dtype=dtype, partition_info=None)``, which gives a NumPy array. `partition_info` has
        ``full_shape`` and ``var_offset``, as TensorFlow's has.

    Raises
    ------
    TypeError, ValueError
        For what is not as above.

    Examples
    --------
    >>> weights = variance_scaling_initializer(seed=0)((200, 5000))
    >>> weights.std().round(3), bool(abs(weights).max() <= 2 * 0.1 / 0.8796)
    (np.float32(0.1), True)
    """
    if mode not in ("FAN_IN", "FAN_OUT", "FAN_AVG"):
        raise ValueError(f"mode must be 'FAN_IN', 'FAN_OUT' or 'FAN_AVG', got {mode!r}")
    fixed = None if seed is None else resolve_seed(seed)
    drawn: dict[str, Any] = {
        "scale": factor,
        "mode": mode.lower(),
        "distribution": "uniform" if uniform else "truncated_normal",
    }
    default = resolve_dtype(dtype).name
    Table((1, 1), "variance_scaling", seed=0, **drawn)  # raises where the arguments are given

    def initializer(shape: Sequence[int], dtype: Any = None, partition_info: Any = None) -> Array:
        sizes = check_shape(shape)
        whole = sizes if partition_info is None else check_shape(partition_info.full_shape)
        n = max(1, prod(whole)) if len(whole) < 2 else None
        kind = default if dtype is None else dtype
        table = Table(whole, "variance_scaling", seed=fixed, dtype=kind, fan_in=n, fan_out=n, **drawn)
        if partition_info is None:
            return table.read()
        offset = check_shape(partition_info.var_offset)
        return table.read(tuple(slice(i, i + size) for i, size in zip(offset, sizes, strict=True)))

    return initializer

"""The initialisers of ``jax.nn.initializers``: its names, arguments, calling convention and distributions."""

import operator
from collections.abc import Sequence
from math import inf
from typing import Any

import jax
import numpy as np
from jax.core import Tracer
from jax.nn.initializers import Initializer

from .._core.rules import InitName, Kind, Mode
from .._core.validation import check_number, check_shape
from ..fans import fans
from ..table import Table
from .arrays import check_sharding, supported_dtype
from .draw import draw

__all__ = [
    "glorot_normal", "glorot_uniform", "he_normal", "he_uniform", "kaiming_normal", "kaiming_uniform",
    "lecun_normal", "lecun_uniform", "normal", "truncated_normal", "uniform", "variance_scaling", "xavier_normal",
    "xavier_uniform",
]  # fmt: skip

Axes = int | Sequence[int]

# Values that no check refuses, for numbers that have none yet while JAX traces.
ANY = {"scale": 1.0, "std": 1.0, "low": -np.inf, "high": np.inf}


def _plain(value: Any) -> Any:
    """An array without axes as a Python number; a traced one as it is."""
    if isinstance(value, Tracer):
        if value.ndim:
            raise TypeError(f"a traced scale, stddev or bound must be a number, got an array of shape {value.shape}")
        return value
    return value.item() if getattr(value, "size", None) == 1 else value


def _number(name: str, value: Any) -> Any:
    value = _plain(value)
    return value if isinstance(value, Tracer) else check_number(name, value)


def _bound(name: str, value: Any) -> Any:
    """A number that may be negative or infinite."""
    value = _plain(value)
    if isinstance(value, Tracer) or (isinstance(value, float) and abs(value) == inf):
        return value
    return check_number(name, value, negative=True)


def _initializer(
    init: InitName, default: Any, axes: tuple[Axes, Axes, Axes] | None = None, **parameters: Any
) -> Initializer:
    traced = {name: value for name, value in parameters.items() if isinstance(value, Tracer)}
    parameters |= {name: 1.0 if init == "uniform" else ANY[name] for name in traced}
    Table((1, 1), init, seed=0, **parameters)  # raises errors here, where the arguments are given

    def initializer(key: Any, shape: Any, dtype: Any = default, out_sharding: Any = None) -> Any:
        shape = check_shape(shape)
        own = supported_dtype(dtype)
        check_sharding("out_sharding", out_sharding)
        if init == "uniform" and np.issubdtype(own, np.complexfloating):
            raise TypeError(f"dtype must be real for uniform, got {own}: use variance_scaling for a disk")
        options = {} if axes is None else _options(shape, axes)

        def make(seed: Any) -> Table:
            return Table(shape, init, seed=seed, dtype=own, **options, **parameters)

        try:
            words = jax.random.key_data(key)
        except (TypeError, AttributeError):
            raise TypeError(f"key must come from jax.random.key or PRNGKey, got {type(key).__name__}") from None
        if words.ndim != 1:
            raise ValueError(f"key must be a single key, got keys of the shape {words.shape[:-1]}: use jax.vmap")
        return draw(make, words, out_sharding, traced)

    return initializer


def _options(shape: tuple[int, ...], axes: tuple[Axes, Axes, Axes]) -> dict[str, Any]:
    """The axes as a layout. As in JAX, an axis with two roles counts in neither fan: Flax's embeddings have one."""
    ndim, layout = len(shape), ["x"] * len(shape)
    for letter, name, given in zip("iob", ("in_axis", "out_axis", "batch_axis"), axes, strict=True):
        try:
            numbers = tuple(map(operator.index, given if isinstance(given, Sequence) else (given,)))
        except TypeError:
            raise TypeError(f"{name} must be an int or a sequence of ints, got {given!r:.80}") from None
        if not all(-ndim <= axis < ndim for axis in numbers):
            raise ValueError(f"{name} must name axes of the shape {shape!r}, got {given!r}: pass the axes that it has")
        for axis in {axis % ndim for axis in numbers}:
            layout[axis] = letter if layout[axis] == "x" else "b"
    if ndim > 1:
        return {"layout": "".join(layout)}
    return dict(zip(("fan_in", "fan_out"), fans((1, 1, *shape), "xx" + "".join(layout)), strict=True))


def variance_scaling(
    scale: Any, mode: Mode, distribution: Kind, in_axis: Axes = -2, out_axis: Axes = -1, batch_axis: Axes = (),
    dtype: Any = None,
) -> Initializer:  # fmt: skip
    """Values of mean 0 and variance scale / n, where n is the fan that `mode` names.

    Parameters
    ----------
    scale : float
        At least 0: 1 for LeCun and Xavier, 2 for He.
    mode : {"fan_in", "fan_out", "fan_avg", "fan_geo_avg"}
        The fan n: fan_in, fan_out, their mean or their geometric mean.
    distribution : {"uniform", "normal", "truncated_normal"}
        "truncated_normal" is cut at two standard deviations and widened so that the variance is scale / n. Complex
        dtypes use the right constant for this, where JAX has 1.9 % too much variance.
    in_axis, out_axis, batch_axis : int or sequence of ints
        The axes of inputs, of outputs and of independent copies; all other axes are the receptive field. They say the
        same as the `layout` of :func:`xavierfast.fans`.
    dtype : dtype, optional
        As in :func:`xavierfast.xavier_uniform`; by default JAX's own: float32, or float64 with ``jax_enable_x64``.

    Returns
    -------
    callable
        ``init(key, shape, dtype=dtype, out_sharding=None)``, which returns a ``jax.Array``. The key comes from
        ``jax.random.key`` or ``PRNGKey``, and calls with one key give the same numbers; `out_sharding` is like the
        sharding of :func:`make_array`.

    Raises
    ------
    TypeError, ValueError
        If an argument is not as described above.

    Examples
    --------
    >>> weights = variance_scaling(2.0, "fan_out", "normal", in_axis=1, out_axis=0)(jax.random.key(7), (500, 1000))
    >>> like = {"scale": 2.0, "mode": "fan_out", "distribution": "normal", "layout": "oi"}
    >>> bool((weights == np.asarray(Table((500, 1000), "variance_scaling", seed=[0, 7], **like))).all())
    True
    """
    axes = (in_axis, out_axis, batch_axis)
    scale = _number("scale", scale)
    return _initializer("variance_scaling", dtype, axes, scale=scale, mode=mode, distribution=distribution)


def glorot_uniform(in_axis: Axes = -2, out_axis: Axes = -1, batch_axis: Axes = (), dtype: Any = None) -> Initializer:
    """Uniform on +-sqrt(6 / (fan_in + fan_out)): Glorot and Bengio (2010), eq. 16.

    Parameters as in :func:`variance_scaling`.

    >>> glorot_uniform()(jax.random.key(7), (200, 300)).std().round(3)
    Array(0.063, dtype=float32)
    """
    return variance_scaling(1.0, "fan_avg", "uniform", in_axis, out_axis, batch_axis, dtype)


def glorot_normal(in_axis: Axes = -2, out_axis: Axes = -1, batch_axis: Axes = (), dtype: Any = None) -> Initializer:
    """Truncated normal, standard deviation sqrt(2 / (fan_in + fan_out)): Glorot and Bengio, eq. 12.

    Parameters as in :func:`variance_scaling`.

    >>> glorot_normal()(jax.random.key(7), (200, 300)).std().round(3)
    Array(0.063, dtype=float32)
    """
    return variance_scaling(1.0, "fan_avg", "truncated_normal", in_axis, out_axis, batch_axis, dtype)


def he_uniform(in_axis: Axes = -2, out_axis: Axes = -1, batch_axis: Axes = (), dtype: Any = None) -> Initializer:
    """Uniform on +-sqrt(6 / fan_in): He et al. (2015).

    Parameters as in :func:`variance_scaling`.

    >>> he_uniform()(jax.random.key(7), (200, 300)).std().round(3)
    Array(0.1, dtype=float32)
    """
    return variance_scaling(2.0, "fan_in", "uniform", in_axis, out_axis, batch_axis, dtype)


def he_normal(in_axis: Axes = -2, out_axis: Axes = -1, batch_axis: Axes = (), dtype: Any = None) -> Initializer:
    """Truncated normal, standard deviation sqrt(2 / fan_in): He et al. (2015), eq. 10.

    Parameters as in :func:`variance_scaling`.

    >>> he_normal()(jax.random.key(7), (200, 300)).std().round(3)
    Array(0.1, dtype=float32)
    """
    return variance_scaling(2.0, "fan_in", "truncated_normal", in_axis, out_axis, batch_axis, dtype)


def lecun_uniform(in_axis: Axes = -2, out_axis: Axes = -1, batch_axis: Axes = (), dtype: Any = None) -> Initializer:
    """Uniform on +-sqrt(3 / fan_in): LeCun et al. (1998).

    Parameters as in :func:`variance_scaling`.

    >>> lecun_uniform()(jax.random.key(7), (200, 300)).std().round(3)
    Array(0.071, dtype=float32)
    """
    return variance_scaling(1.0, "fan_in", "uniform", in_axis, out_axis, batch_axis, dtype)


def lecun_normal(in_axis: Axes = -2, out_axis: Axes = -1, batch_axis: Axes = (), dtype: Any = None) -> Initializer:
    """Truncated normal, standard deviation sqrt(1 / fan_in): LeCun et al. (1998).

    Parameters as in :func:`variance_scaling`.

    >>> lecun_normal()(jax.random.key(7), (200, 300)).std().round(3)
    Array(0.071, dtype=float32)
    """
    return variance_scaling(1.0, "fan_in", "truncated_normal", in_axis, out_axis, batch_axis, dtype)


xavier_uniform, xavier_normal = glorot_uniform, glorot_normal
kaiming_uniform, kaiming_normal = he_uniform, he_normal


def uniform(scale: Any = 1e-2, dtype: Any = None) -> Initializer:
    """Uniform from 0 to below `scale`, which must be >= 0, for the real dtypes of :func:`variance_scaling`.

    >>> values = uniform(10.0)(jax.random.key(7), (1000,))
    >>> bool(0 <= values.min() and 9.9 < values.max() < 10)
    True
    """
    return _initializer("uniform", dtype, low=0.0, high=_number("scale", scale))


def normal(stddev: Any = 1e-2, dtype: Any = None) -> Initializer:
    """Normal with mean 0 and standard deviation `stddev`, which must be >= 0.

    `dtype` is as in :func:`variance_scaling`.

    >>> normal(5.0)(jax.random.key(7), (3,)).tolist() == Table(3, "normal", std=5.0, seed=[0, 7])[:].tolist()
    True
    """
    return _initializer("normal", dtype, std=_number("stddev", stddev))


def truncated_normal(stddev: Any = 1e-2, dtype: Any = None, lower: Any = -2.0, upper: Any = 2.0) -> Initializer:
    """Normal with mean 0 and standard deviation `stddev` before it is cut at lower * stddev and upper * stddev.

    As in JAX, the variance is not corrected for the cut. `dtype` is as in :func:`variance_scaling`.

    >>> bool(abs(truncated_normal(0.5)(jax.random.key(7), (1000,))).max() <= 1)
    True
    """
    bounds = [_bound("lower", lower), _bound("upper", upper)]
    if not any(isinstance(bound, Tracer) for bound in bounds) and not bounds[0] < bounds[1]:
        raise ValueError(f"lower must be less than upper, got lower={lower!r} and upper={upper!r}")
    return _initializer("truncated_normal", dtype, std=_number("stddev", stddev), low=bounds[0], high=bounds[1])

"""The initialisers: one function for each rule, all with the same shared options.

All are called alike, ``xavier_uniform(shape, gain=1.0, seed=7, name="embed", dtype="float32", ...)``, and return an
array whose element i is a function of (seed, name, distribution, dtype, i) only. The shared options are those of
``xavier_uniform``; the rules themselves, with their sources, are in ``_core/rules.py``.
"""

from collections.abc import Mapping, Sequence
from math import sqrt
from typing import Any, Literal, SupportsIndex

from . import kernels
from ._core.dtypes import DTypeLike, resolve_dtype
from ._core.fill import Array
from ._core.stream import Seed
from ._core.validation import check_number, check_out, dtype_of_out
from .table import Table

__all__ = [
    "calculate_gain", "constant", "glorot_normal", "glorot_truncated_normal", "glorot_uniform", "he_normal",
    "he_truncated_normal", "he_uniform", "kaiming_normal", "kaiming_truncated_normal", "kaiming_uniform",
    "lecun_normal", "lecun_truncated_normal", "lecun_uniform", "normal", "random_constant", "truncated_normal",
    "uniform", "variance_scaling", "xavier_normal", "xavier_truncated_normal", "xavier_uniform", "zeros",
]  # fmt: skip

Shape = SupportsIndex | Sequence[SupportsIndex]
Mode = Literal["fan_in", "fan_out", "fan_avg", "fan_geo_avg"]
Kind = Literal["uniform", "normal", "truncated_normal"]

SQRT_2 = sqrt(2)


def _draw(
    init: str, shape: Shape | None, parameters: Mapping[str, Any], seed: Seed, name: str, dtype: DTypeLike | None,
    out: Any, layout: str | None, groups: int, fan_in: int | None, fan_out: int | None, threads: int | None,
) -> Array:  # fmt: skip
    """The elements of a Table of these arguments, in a new array or in `out`."""
    if out is None:
        if shape is None:
            raise TypeError("an initialiser needs a shape, or an array to fill as out=, got neither")
        sizes, array, kind = shape, None, "float32" if dtype is None else dtype
    else:
        kind = dtype_of_out(out) if dtype is None else dtype
        array = check_out(out, resolve_dtype(kind), shape)
        sizes = array.shape
    table = Table(
        sizes, init, seed=seed, name=name, dtype=kind, layout=layout, groups=groups, fan_in=fan_in, fan_out=fan_out,
        **parameters,
    )  # fmt: skip
    return table._read_whole(array, threads)


# ---- scaled by the fans


def variance_scaling(
    shape: Shape | None = None, *, scale: float = 1.0, mode: Mode = "fan_in", distribution: Kind = "truncated_normal",
    seed: Seed = None, name: str = "", dtype: DTypeLike | None = None, out: Any = None, layout: str | None = None,
    groups: int = 1, fan_in: int | None = None, fan_out: int | None = None, threads: int | None = None,
) -> Array:  # fmt: skip
    """Values of mean 0 and variance scale / n, n the fan of the mode.

    Parameters
    ----------
    scale : float
        >= 0; 1 is LeCun's and Xavier's, 2 He's.
    mode : {"fan_in", "fan_out", "fan_avg", "fan_geo_avg"}
        n is fan_in, fan_out, their mean, their geometric mean.
    distribution : {"uniform", "normal", "truncated_normal"}
        "normal" is not truncated (in Keras it is); "truncated_normal" is a normal cut at two of its own standard
        deviations and widened by 1 / 0.87962566103423978, so that the variance is what was asked for.
    shape, seed, name, dtype, out, layout, groups, fan_in, fan_out, threads
        As in :func:`xavier_uniform`.

    Returns
    -------
    numpy.ndarray

    Examples
    --------
    >>> variance_scaling((1000, 500), scale=2.0, mode="fan_out", distribution="normal", seed=0).std().round(4)
    np.float32(0.0633)
    """
    return _draw(
        "variance_scaling", shape, {"scale": scale, "mode": mode, "distribution": distribution},
        seed, name, dtype, out, layout, groups, fan_in, fan_out, threads,
    )  # fmt: skip


def xavier_uniform(
    shape: Shape | None = None, *, gain: float = 1.0, seed: Seed = None, name: str = "",
    dtype: DTypeLike | None = None, out: Any = None, layout: str | None = None, groups: int = 1,
    fan_in: int | None = None, fan_out: int | None = None, threads: int | None = None,
) -> Array:  # fmt: skip
    """Uniform on +-gain * sqrt(6 / (fan_in + fan_out)): Glorot and Bengio (2010), eq. 16.

    Parameters
    ----------
    shape : int or tuple of ints, optional
        Of the array to make; may be left out where `out` has it.
    gain : float
        >= 0; see :func:`calculate_gain`.
    seed : int, sequence of ints, numpy.random.SeedSequence, numpy.random.Generator or None
        Ints are >= 0, of any size. A Generator gives its next 256 bits; None takes the operating system's entropy.
    name : str
        Of the tensor: each name has a stream of its own under one seed.
    dtype : str or NumPy dtype
        "float32", "float64", "float16", "bfloat16"; with ml_dtypes "float8_e4m3fn" and its other real formats that have
        a sign and a zero; "complex64", "complex128", scaled as JAX does. Values of 16 bits and fewer are the float32
        ones, rounded once. Must be that of `out`.
    out : numpy.ndarray or buffer, optional
        Writable memory to fill instead of a new array, in whatever memory layout: strided, Fortran-ordered, misaligned.
        Raw bytes are taken as `dtype`; a uint16 array takes the bits of bfloat16.
    layout, groups
        What the axes are, and a grouped convolution's groups: see :func:`fans`.
    fan_in, fan_out : int, optional
        >= 1, instead of those of the shape.
    threads : int, optional
        For arrays of at least 2 MiB; by default one for each CPU that affinity and cgroup quota leave, or
        ``XAVIERFAST_THREADS``. The values do not depend on it.

    Returns
    -------
    numpy.ndarray
        `out`, or the new array.

    Raises
    ------
    TypeError, ValueError
        For what is not as above, before anything is written.

    Examples
    --------
    >>> xavier_uniform((2, 3), seed=0)
    array([[-0.82956606, -0.38383743, -0.09213439],
           [ 0.63898903,  0.06427638, -0.51353604]], dtype=float32)
    >>> weights = xavier_uniform((1000, 500), seed=0)
    >>> bool(abs(weights).max() <= (6 / 1500) ** 0.5)
    True
    """
    return _draw(
        "xavier_uniform", shape, {"gain": gain},
        seed, name, dtype, out, layout, groups, fan_in, fan_out, threads,
    )  # fmt: skip


def xavier_normal(
    shape: Shape | None = None, *, gain: float = 1.0, seed: Seed = None, name: str = "",
    dtype: DTypeLike | None = None, out: Any = None, layout: str | None = None, groups: int = 1,
    fan_in: int | None = None, fan_out: int | None = None, threads: int | None = None,
) -> Array:  # fmt: skip
    """Normal, not truncated, with standard deviation gain * sqrt(2 / (fan_in + fan_out)): Glorot and Bengio, eq. 12.

    PyTorch's ``xavier_normal_``. What Keras, JAX and TensorFlow call glorot_normal is
    :func:`xavier_truncated_normal`. Parameters as in :func:`xavier_uniform`.

    Examples
    --------
    >>> xavier_normal((2, 3), seed=0)
    array([[-0.60008407,  0.03251662, -0.18237531],
           [ 0.79725397,  1.6793326 , -0.27063975]], dtype=float32)
    """
    return _draw(
        "xavier_normal", shape, {"gain": gain},
        seed, name, dtype, out, layout, groups, fan_in, fan_out, threads,
    )  # fmt: skip


def xavier_truncated_normal(
    shape: Shape | None = None, *, gain: float = 1.0, seed: Seed = None, name: str = "",
    dtype: DTypeLike | None = None, out: Any = None, layout: str | None = None, groups: int = 1,
    fan_in: int | None = None, fan_out: int | None = None, threads: int | None = None,
) -> Array:  # fmt: skip
    """The same standard deviation by a normal cut at two of its own: the glorot_normal of Keras, JAX and TensorFlow.

    The normal behind it is wider by 1 / 0.87962566103423978, so that the variance is Xavier's. Parameters as in
    :func:`xavier_uniform`.

    Examples
    --------
    >>> xavier_truncated_normal((2, 3), seed=0)
    array([[-0.7813422 , -0.31080073, -0.07246591],
           [ 0.5513019 ,  0.05051098, -0.42706135]], dtype=float32)
    """
    return _draw(
        "xavier_truncated_normal", shape, {"gain": gain},
        seed, name, dtype, out, layout, groups, fan_in, fan_out, threads,
    )  # fmt: skip


def he_uniform(
    shape: Shape | None = None, *, gain: float = SQRT_2, mode: Mode = "fan_in", seed: Seed = None, name: str = "",
    dtype: DTypeLike | None = None, out: Any = None, layout: str | None = None, groups: int = 1,
    fan_in: int | None = None, fan_out: int | None = None, threads: int | None = None,
) -> Array:  # fmt: skip
    """Uniform on +-gain * sqrt(3 / n), n the fan of the mode: He et al. (2015), for rectifiers.

    Parameters as in :func:`xavier_uniform` and :func:`variance_scaling`.

    Examples
    --------
    >>> bool(abs(he_uniform((600, 5), seed=0)).max() <= 0.1)
    True
    """
    return _draw(
        "he_uniform", shape, {"gain": gain, "mode": mode},
        seed, name, dtype, out, layout, groups, fan_in, fan_out, threads,
    )  # fmt: skip


def he_normal(
    shape: Shape | None = None, *, gain: float = SQRT_2, mode: Mode = "fan_in", seed: Seed = None, name: str = "",
    dtype: DTypeLike | None = None, out: Any = None, layout: str | None = None, groups: int = 1,
    fan_in: int | None = None, fan_out: int | None = None, threads: int | None = None,
) -> Array:  # fmt: skip
    """Normal with standard deviation gain / sqrt(n), n the fan of the mode, not truncated: He et al. (2015), eq. 10.

    Parameters as in :func:`xavier_uniform` and :func:`variance_scaling`.

    Examples
    --------
    >>> he_normal((200, 5000), seed=0).std().round(3)
    np.float32(0.1)
    """
    return _draw(
        "he_normal", shape, {"gain": gain, "mode": mode},
        seed, name, dtype, out, layout, groups, fan_in, fan_out, threads,
    )  # fmt: skip


def he_truncated_normal(
    shape: Shape | None = None, *, gain: float = SQRT_2, mode: Mode = "fan_in", seed: Seed = None, name: str = "",
    dtype: DTypeLike | None = None, out: Any = None, layout: str | None = None, groups: int = 1,
    fan_in: int | None = None, fan_out: int | None = None, threads: int | None = None,
) -> Array:  # fmt: skip
    """The same standard deviation by a normal cut at two of its own: the he_normal of Keras and JAX.

    Parameters as in :func:`xavier_uniform` and :func:`variance_scaling`.

    Examples
    --------
    >>> he_truncated_normal((200, 5000), seed=0).std().round(3)
    np.float32(0.1)
    """
    return _draw(
        "he_truncated_normal", shape, {"gain": gain, "mode": mode},
        seed, name, dtype, out, layout, groups, fan_in, fan_out, threads,
    )  # fmt: skip


def lecun_uniform(
    shape: Shape | None = None, *, gain: float = 1.0, mode: Mode = "fan_in", seed: Seed = None, name: str = "",
    dtype: DTypeLike | None = None, out: Any = None, layout: str | None = None, groups: int = 1,
    fan_in: int | None = None, fan_out: int | None = None, threads: int | None = None,
) -> Array:  # fmt: skip
    """Uniform on +-gain * sqrt(3 / n), n the fan of the mode: LeCun et al. (1998).

    Parameters as in :func:`xavier_uniform` and :func:`variance_scaling`.

    Examples
    --------
    >>> bool(abs(lecun_uniform((300, 5), seed=0)).max() <= 0.1)
    True
    """
    return _draw(
        "lecun_uniform", shape, {"gain": gain, "mode": mode},
        seed, name, dtype, out, layout, groups, fan_in, fan_out, threads,
    )  # fmt: skip


def lecun_normal(
    shape: Shape | None = None, *, gain: float = 1.0, mode: Mode = "fan_in", seed: Seed = None, name: str = "",
    dtype: DTypeLike | None = None, out: Any = None, layout: str | None = None, groups: int = 1,
    fan_in: int | None = None, fan_out: int | None = None, threads: int | None = None,
) -> Array:  # fmt: skip
    """Normal with standard deviation gain / sqrt(n), n the fan of the mode, not truncated: LeCun et al. (1998).

    Parameters as in :func:`xavier_uniform` and :func:`variance_scaling`.

    Examples
    --------
    >>> lecun_normal((100, 5000), seed=0).std().round(3)
    np.float32(0.1)
    """
    return _draw(
        "lecun_normal", shape, {"gain": gain, "mode": mode},
        seed, name, dtype, out, layout, groups, fan_in, fan_out, threads,
    )  # fmt: skip


def lecun_truncated_normal(
    shape: Shape | None = None, *, gain: float = 1.0, mode: Mode = "fan_in", seed: Seed = None, name: str = "",
    dtype: DTypeLike | None = None, out: Any = None, layout: str | None = None, groups: int = 1,
    fan_in: int | None = None, fan_out: int | None = None, threads: int | None = None,
) -> Array:  # fmt: skip
    """The same standard deviation by a normal cut at two of its own: the lecun_normal of Keras and JAX.

    Parameters as in :func:`xavier_uniform` and :func:`variance_scaling`.

    Examples
    --------
    >>> lecun_truncated_normal((100, 5000), seed=0).std().round(3)
    np.float32(0.1)
    """
    return _draw(
        "lecun_truncated_normal", shape, {"gain": gain, "mode": mode},
        seed, name, dtype, out, layout, groups, fan_in, fan_out, threads,
    )  # fmt: skip


glorot_uniform = xavier_uniform
glorot_normal = xavier_normal
glorot_truncated_normal = xavier_truncated_normal
kaiming_uniform = he_uniform
kaiming_normal = he_normal
kaiming_truncated_normal = he_truncated_normal


# ---- scaled by hand


def uniform(
    shape: Shape | None = None, *, bound: float | None = None, low: float | None = None, high: float | None = None,
    seed: Seed = None, name: str = "", dtype: DTypeLike | None = None, out: Any = None, layout: str | None = None,
    groups: int = 1, fan_in: int | None = None, fan_out: int | None = None, threads: int | None = None,
) -> Array:  # fmt: skip
    """Uniform on +-bound, or from low to below high, any number of axes.

    Parameters
    ----------
    bound : float, optional
        >= 0: both ends may be drawn, the mean is exactly 0, no value is 0. By default 1, without `low` and `high`.
    low, high : float, optional
        Instead of `bound`, low <= high. `low` may be drawn; `high`, or what `high` is in the dtype, never is, as in
        NumPy and PyTorch. Where low == high all values are `low`. Real dtypes only.
    shape, seed, name, dtype, out, layout, groups, fan_in, fan_out, threads
        As in :func:`xavier_uniform`.

    Examples
    --------
    >>> uniform(4, bound=0.05, seed=0)
    array([-0.03786434, -0.0175197 , -0.00420534,  0.02916572], dtype=float32)
    >>> uniform(4, low=0, high=10, seed=0)
    array([1.2135661, 3.2480297, 4.579466 , 7.9165726], dtype=float32)
    """
    return _draw(
        "uniform", shape, {"bound": bound, "low": low, "high": high},
        seed, name, dtype, out, layout, groups, fan_in, fan_out, threads,
    )  # fmt: skip


def normal(
    shape: Shape | None = None, *, mean: float = 0.0, std: float = 1.0, seed: Seed = None, name: str = "",
    dtype: DTypeLike | None = None, out: Any = None, layout: str | None = None, groups: int = 1,
    fan_in: int | None = None, fan_out: int | None = None, threads: int | None = None,
) -> Array:  # fmt: skip
    """Normal with a mean and a standard deviation, any number of axes; it reaches 6.66 std, in float64 9.3.

    Parameters
    ----------
    mean : float
        Added in the kernel, by the same operation that rounds the value; 0 for complex dtypes.
    std : float
        >= 0.
    shape, seed, name, dtype, out, layout, groups, fan_in, fan_out, threads
        As in :func:`xavier_uniform`.

    Examples
    --------
    >>> normal(4, std=0.02, seed=0)
    array([-0.01897633,  0.00102827, -0.00576721,  0.02521138], dtype=float32)
    >>> normal(4, mean=1, std=0.02, seed=0)
    array([0.98102367, 1.0010283 , 0.9942328 , 1.0252113 ], dtype=float32)
    """
    return _draw(
        "normal", shape, {"mean": mean, "std": std},
        seed, name, dtype, out, layout, groups, fan_in, fan_out, threads,
    )  # fmt: skip


def truncated_normal(
    shape: Shape | None = None, *, mean: float = 0.0, std: float = 1.0, low: float = -2.0, high: float = 2.0,
    seed: Seed = None, name: str = "", dtype: DTypeLike | None = None, out: Any = None, layout: str | None = None,
    groups: int = 1, fan_in: int | None = None, fan_out: int | None = None, threads: int | None = None,
) -> Array:  # fmt: skip
    """Normal with a mean and a standard deviation before it is cut at mean + low * std and mean + high * std.

    One draw an element by the inverse of the distribution function: no rejection, the bounds are kept exactly. The
    variance is not corrected for the cut, as in ``torch.nn.init.trunc_normal_``, whose bounds are absolute: give
    ``low=(a - mean) / std, high=(b - mean) / std``.

    Parameters
    ----------
    mean : float
        Of the normal before it is cut; 0 for complex dtypes.
    std : float
        >= 0.
    low, high : float
        In standard deviations about the mean, low < high; either may be infinite, both may lie far in one tail.
    shape, seed, name, dtype, out, layout, groups, fan_in, fan_out, threads
        As in :func:`xavier_uniform`.

    Examples
    --------
    >>> truncated_normal(4, std=0.02, seed=0)
    array([-0.02173398, -0.0086453 , -0.00201573,  0.01533513], dtype=float32)
    >>> truncated_normal(4, low=6, high=float("inf"), seed=0)
    array([6.0209727, 6.0634546, 6.098667 , 6.249755 ], dtype=float32)
    """
    return _draw(
        "truncated_normal", shape, {"mean": mean, "std": std, "low": low, "high": high},
        seed, name, dtype, out, layout, groups, fan_in, fan_out, threads,
    )  # fmt: skip


def constant(
    shape: Shape | None = None, *, value: complex, seed: Seed = None, name: str = "", dtype: DTypeLike | None = None,
    out: Any = None, layout: str | None = None, groups: int = 1, fan_in: int | None = None,
    fan_out: int | None = None, threads: int | None = None,
) -> Array:  # fmt: skip
    """The same given value everywhere.

    Parameters as in :func:`xavier_uniform`; value : float, finite.

    Examples
    --------
    >>> constant(3, value=0.1)
    array([0.1, 0.1, 0.1], dtype=float32)
    """
    return _draw(
        "constant", shape, {"value": value},
        seed, name, dtype, out, layout, groups, fan_in, fan_out, threads,
    )  # fmt: skip


def zeros(
    shape: Shape | None = None, *, seed: Seed = None, name: str = "", dtype: DTypeLike | None = None, out: Any = None,
    layout: str | None = None, groups: int = 1, fan_in: int | None = None, fan_out: int | None = None,
    threads: int | None = None,
) -> Array:  # fmt: skip
    """0 everywhere: what Xavier replaces, since it leaves all neurons of a layer alike; and what biases want.

    Parameters as in :func:`xavier_uniform`.

    Examples
    --------
    >>> zeros(3)
    array([0., 0., 0.], dtype=float32)
    """
    return _draw(
        "zeros", shape, {},
        seed, name, dtype, out, layout, groups, fan_in, fan_out, threads,
    )  # fmt: skip


def random_constant(
    shape: Shape | None = None, *, bound: float = 1.0, seed: Seed = None, name: str = "",
    dtype: DTypeLike | None = None, out: Any = None, layout: str | None = None, groups: int = 1,
    fan_in: int | None = None, fan_out: int | None = None, threads: int | None = None,
) -> Array:  # fmt: skip
    """One random value, uniform on +-bound, the same everywhere: it leaves neurons as alike as zeros do.

    Parameters as in :func:`xavier_uniform`; bound : float, >= 0.

    Examples
    --------
    >>> random_constant(3, seed=0)
    array([-0.7572868, -0.7572868, -0.7572868], dtype=float32)
    """
    return _draw(
        "random_constant", shape, {"bound": bound},
        seed, name, dtype, out, layout, groups, fan_in, fan_out, threads,
    )  # fmt: skip


_GAINS = {
    **dict.fromkeys(("linear", "identity", "sigmoid"), 1.0),
    **{f"conv{d}d": 1.0 for d in (1, 2, 3)},
    **{f"conv_transpose{d}d": 1.0 for d in (1, 2, 3)},
    "tanh": 5 / 3,
    "relu": SQRT_2,
    "selu": 3 / 4,
}


def calculate_gain(nonlinearity: str, param: float | None = None) -> float:
    """The gain that PyTorch recommends for a nonlinearity (``torch.nn.init.calculate_gain``).

    Parameters
    ----------
    nonlinearity
        "linear", "identity", "conv1d" ... "conv3d", "conv_transpose1d" ... "conv_transpose3d", "sigmoid": 1. "tanh":
        5/3. "relu": sqrt(2). "leaky_relu": sqrt(2 / (1 + slope^2)). "selu": 3/4.
    param
        The negative slope of "leaky_relu", 0.01 unless it is given.

    Raises
    ------
    ValueError
        For an unknown nonlinearity.

    Examples
    --------
    >>> calculate_gain("leaky_relu", 0.2)
    1.3867504905630728
    """
    if nonlinearity == "leaky_relu":
        slope = 0.01 if param is None else check_number("param", param, negative=True)
        return kernels.in_default_fp_environment(lambda: sqrt(2 / (1 + slope * slope)))
    if nonlinearity not in _GAINS:
        raise ValueError(f"nonlinearity must be one of {', '.join(_GAINS)}, leaky_relu; got {nonlinearity!r}")
    return _GAINS[nonlinearity]

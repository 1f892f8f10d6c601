"""The initialisers: one function for each rule, all with the same shared options.

Each is called like ``xavier_uniform(shape, gain=1.0, seed=7, name="embed", dtype="float32", ...)`` and returns an array
whose element i is a function of (seed, name, distribution, dtype, i) only. The shared options are documented in
``xavier_uniform``; the rules themselves, with their sources, are in ``_core/rules.py``.
"""

from collections.abc import Mapping
from math import sqrt
from typing import Any

from . import kernels
from ._core.dtypes import DTypeLike, resolve_dtype
from ._core.fill import Array
from ._core.rules import SQRT_2, InitName, Kind, Mode
from ._core.stream import Seed
from ._core.validation import Out, Shape, check_number, check_out, dtype_of_out
from .table import Table

__all__ = [
    "calculate_gain", "constant", "glorot_normal", "glorot_truncated_normal", "glorot_uniform", "he_normal",
    "he_truncated_normal", "he_uniform", "kaiming_normal", "kaiming_truncated_normal", "kaiming_uniform",
    "lecun_normal", "lecun_truncated_normal", "lecun_uniform", "normal", "random_constant", "truncated_normal",
    "uniform", "variance_scaling", "xavier_normal", "xavier_truncated_normal", "xavier_uniform", "zeros",
]  # fmt: skip


def _draw(
    init: InitName, shape: Shape | None, parameters: Mapping[str, Any], seed: Seed, name: str, dtype: DTypeLike | None,
    out: Out, layout: str | None, groups: int, fan_in: int | None, fan_out: int | None, threads: int | None,
) -> Array:  # fmt: skip
    """Make a Table of these arguments, and write its elements to a new array or to `out`."""
    kind: Any
    if out is None:
        if shape is None:
            raise TypeError("an initialiser needs a shape, or an array to fill as out=, got neither")
        sizes, array, kind = shape, None, "float32" if dtype is None else dtype
    else:
        written = resolve_dtype(dtype_of_out(out) if dtype is None else dtype)
        array = check_out(out, written, shape, can_choose=True)
        sizes, kind = array.shape, written.name
    table = Table(
        sizes, init, seed=seed, name=name, dtype=kind, layout=layout, groups=groups, fan_in=fan_in, fan_out=fan_out,
        **parameters,
    )  # fmt: skip
    return table._read_whole(array, threads)


# ---- scaled by the fans


def variance_scaling(
    shape: Shape | None = None, *, scale: float = 1.0, mode: Mode = "fan_in", distribution: Kind = "truncated_normal",
    seed: Seed = None, name: str = "", dtype: DTypeLike | None = None, out: Out = None, layout: str | None = None,
    groups: int = 1, fan_in: int | None = None, fan_out: int | None = None, threads: int | None = None,
) -> Array:  # fmt: skip
    """Values of mean 0 and variance scale / n, where n is the fan that `mode` names.

    Parameters
    ----------
    scale : float
        At least 0: 1 for LeCun and Xavier, 2 for He.
    mode : {"fan_in", "fan_out", "fan_avg", "fan_geo_avg"}
        The fan n: fan_in, fan_out, their mean or their geometric mean.
    distribution : {"uniform", "normal", "truncated_normal"}
        "normal" is not truncated (in Keras it is). "truncated_normal" is a normal cut at two of its own standard
        deviations and widened by 1 / 0.87962566103423978, so that the variance is scale / n.
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
    dtype: DTypeLike | None = None, out: Out = None, layout: str | None = None, groups: int = 1,
    fan_in: int | None = None, fan_out: int | None = None, threads: int | None = None,
) -> Array:  # fmt: skip
    """Uniform on +-gain * sqrt(6 / (fan_in + fan_out)): Glorot and Bengio (2010), eq. 16.

    **Two tensors without names under one seed hold the same numbers, so give each tensor a name.**

    Parameters
    ----------
    shape : int or tuple of ints, optional
        The shape of the array to make; may be left out if `out` is given.
    gain : float
        The factor by which the values are scaled, >= 0; see :func:`calculate_gain`.
    seed : int, sequence of ints, numpy.random.SeedSequence, numpy.random.Generator or None
        Ints must be >= 0, of any size. A Generator gives its next 256 bits; None takes the operating system's entropy.
    name : str
        The name of the tensor. Each name has a stream of its own under one seed.
    dtype : str or NumPy dtype
        "float32", "float64", "float16", "bfloat16"; with ml_dtypes "float8_e4m3fn" and its other real formats that have
        a sign and a zero; "complex64", "complex128", scaled as in JAX. Values of 16 bits and fewer are the float32
        values, rounded once. The default is the dtype of `out` if it is one of these, else "float32". If both `dtype`
        and `out` are given, they must agree.
    out : numpy.ndarray or buffer, optional
        Writable memory to fill instead of a new array, in any memory layout: strided, Fortran-ordered, misaligned. Raw
        bytes are interpreted as `dtype`; a uint16 array can receive the bits of bfloat16.
    layout : str, optional
        The roles of the axes; see :func:`fans`.
    groups : int
        The number of groups of a grouped convolution; see :func:`fans`.
    fan_in, fan_out : int, optional
        Fans >= 1 to use instead of those of the shape.
    threads : int, optional
        The number of threads for arrays of at least 2 MiB. The default is ``XAVIERFAST_THREADS`` if it is set, else one
        thread for each CPU that affinity and cgroup quota leave to this process. The values do not depend on it.

    Returns
    -------
    numpy.ndarray
        The array in the memory of `out`, or the new array.

    Raises
    ------
    TypeError, ValueError
        If an argument is not as described above. Nothing is written then.

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
    dtype: DTypeLike | None = None, out: Out = None, layout: str | None = None, groups: int = 1,
    fan_in: int | None = None, fan_out: int | None = None, threads: int | None = None,
) -> Array:  # fmt: skip
    """Normal, not truncated, with standard deviation gain * sqrt(2 / (fan_in + fan_out)): Glorot and Bengio, eq. 12.

    This is PyTorch's ``xavier_normal_``; the glorot_normal of Keras, JAX and TensorFlow is
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
    dtype: DTypeLike | None = None, out: Out = None, layout: str | None = None, groups: int = 1,
    fan_in: int | None = None, fan_out: int | None = None, threads: int | None = None,
) -> Array:  # fmt: skip
    """Truncated normal with standard deviation gain * sqrt(2 / (fan_in + fan_out)).

    This is the glorot_normal of Keras, JAX and TensorFlow: a normal that is wider by 1 / 0.87962566103423978 is cut at
    two of its own standard deviations, so that the variance is Xavier's. Parameters as in :func:`xavier_uniform`.

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
    dtype: DTypeLike | None = None, out: Out = None, layout: str | None = None, groups: int = 1,
    fan_in: int | None = None, fan_out: int | None = None, threads: int | None = None,
) -> Array:  # fmt: skip
    """Uniform on +-gain * sqrt(3 / n), where n is the fan that `mode` names: He et al. (2015), for rectifiers.

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
    dtype: DTypeLike | None = None, out: Out = None, layout: str | None = None, groups: int = 1,
    fan_in: int | None = None, fan_out: int | None = None, threads: int | None = None,
) -> Array:  # fmt: skip
    """Normal, not truncated, with standard deviation gain / sqrt(n): He et al. (2015), eq. 10, for rectifiers.

    n is the fan that `mode` names. Parameters as in :func:`xavier_uniform` and :func:`variance_scaling`.

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
    dtype: DTypeLike | None = None, out: Out = None, layout: str | None = None, groups: int = 1,
    fan_in: int | None = None, fan_out: int | None = None, threads: int | None = None,
) -> Array:  # fmt: skip
    """Truncated normal with standard deviation gain / sqrt(n): the he_normal of Keras and JAX.

    n is the fan that `mode` names. A wider normal is cut at two of its own standard deviations, as in
    :func:`xavier_truncated_normal`. Parameters as in :func:`xavier_uniform` and :func:`variance_scaling`.

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
    dtype: DTypeLike | None = None, out: Out = None, layout: str | None = None, groups: int = 1,
    fan_in: int | None = None, fan_out: int | None = None, threads: int | None = None,
) -> Array:  # fmt: skip
    """Uniform on +-gain * sqrt(3 / n), where n is the fan that `mode` names: LeCun et al. (1998).

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
    dtype: DTypeLike | None = None, out: Out = None, layout: str | None = None, groups: int = 1,
    fan_in: int | None = None, fan_out: int | None = None, threads: int | None = None,
) -> Array:  # fmt: skip
    """Normal, not truncated, with standard deviation gain / sqrt(n): LeCun et al. (1998).

    n is the fan that `mode` names. Parameters as in :func:`xavier_uniform` and :func:`variance_scaling`.

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
    dtype: DTypeLike | None = None, out: Out = None, layout: str | None = None, groups: int = 1,
    fan_in: int | None = None, fan_out: int | None = None, threads: int | None = None,
) -> Array:  # fmt: skip
    """Truncated normal with standard deviation gain / sqrt(n): the lecun_normal of Keras and JAX.

    n is the fan that `mode` names. A wider normal is cut at two of its own standard deviations, as in
    :func:`xavier_truncated_normal`. Parameters as in :func:`xavier_uniform` and :func:`variance_scaling`.

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
    seed: Seed = None, name: str = "", dtype: DTypeLike | None = None, out: Out = None, layout: str | None = None,
    groups: int = 1, fan_in: int | None = None, fan_out: int | None = None, threads: int | None = None,
) -> Array:  # fmt: skip
    """Uniform on +-bound, or from `low` to below `high`, for any number of axes.

    Parameters
    ----------
    bound : float, optional
        At least 0; by default 1 if `low` and `high` are not given. Both ends may be drawn, the mean is exactly 0, and
        no value is 0.
    low, high : float, optional
        The ends to use instead of `bound`, low <= high, for real dtypes only. `low` may be drawn; `high`, or `high`
        rounded to the dtype, never is, as in NumPy and PyTorch. If low == high, all values are `low`.
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
    dtype: DTypeLike | None = None, out: Out = None, layout: str | None = None, groups: int = 1,
    fan_in: int | None = None, fan_out: int | None = None, threads: int | None = None,
) -> Array:  # fmt: skip
    """Normal with a mean and a standard deviation, for any number of axes.

    Values reach 6.66 standard deviations from the mean; in float64, 9.3.

    Parameters
    ----------
    mean : float
        The mean, which the kernel adds by the same operation that rounds the value; must be 0 for complex dtypes.
    std : float
        The standard deviation, >= 0.
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
    seed: Seed = None, name: str = "", dtype: DTypeLike | None = None, out: Out = None, layout: str | None = None,
    groups: int = 1, fan_in: int | None = None, fan_out: int | None = None, threads: int | None = None,
) -> Array:  # fmt: skip
    """Normal with a mean and a standard deviation before it is cut at mean + low * std and mean + high * std.

    Each element takes one draw, by the inverse of the distribution function: nothing is rejected, and the bounds hold
    exactly. As in ``torch.nn.init.trunc_normal_``, the variance is not corrected for the cut; the bounds a and b of
    that function are absolute, so pass ``low=(a - mean) / std, high=(b - mean) / std``.

    Parameters
    ----------
    mean : float
        The mean of the normal before it is cut; must be 0 for complex dtypes.
    std : float
        The standard deviation of the normal before it is cut, >= 0.
    low, high : float
        The bounds in standard deviations about the mean, low < high. Either may be infinite, and both may lie far in
        one tail. Complex dtypes, whose modulus is cut, need low == -high.
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
    out: Out = None, layout: str | None = None, groups: int = 1, fan_in: int | None = None,
    fan_out: int | None = None, threads: int | None = None,
) -> Array:  # fmt: skip
    """The same given value everywhere.

    Parameters
    ----------
    value : float or complex
        The value, which must be finite, and real for real dtypes.
    shape, seed, name, dtype, out, layout, groups, fan_in, fan_out, threads
        As in :func:`xavier_uniform`.

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
    shape: Shape | None = None, *, seed: Seed = None, name: str = "", dtype: DTypeLike | None = None, out: Out = None,
    layout: str | None = None, groups: int = 1, fan_in: int | None = None, fan_out: int | None = None,
    threads: int | None = None,
) -> Array:  # fmt: skip
    """All zeros: right for biases, wrong for weights, whose neurons would never differ.

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
    dtype: DTypeLike | None = None, out: Out = None, layout: str | None = None, groups: int = 1,
    fan_in: int | None = None, fan_out: int | None = None, threads: int | None = None,
) -> Array:  # fmt: skip
    """One random value, uniform on +-bound, everywhere: like zeros, it leaves all neurons of a layer alike.

    Parameters
    ----------
    bound : float
        The bound of the value, >= 0.
    shape, seed, name, dtype, out, layout, groups, fan_in, fan_out, threads
        As in :func:`xavier_uniform`.

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
    nonlinearity : str
        The gain is 1 for "linear", "identity", "conv1d" ... "conv3d", "conv_transpose1d" ... "conv_transpose3d" and
        "sigmoid", 5/3 for "tanh", sqrt(2) for "relu", sqrt(2 / (1 + slope^2)) for "leaky_relu", and 3/4 for "selu".
    param : float, optional
        The negative slope of "leaky_relu"; by default 0.01.

    Raises
    ------
    TypeError, ValueError
        For a slope that is not a finite number, and for a nonlinearity without a recommended gain, such as "gelu" or
        "silu"; :func:`xavierfast.propagation.suggest` computes a gain for these, and for any function and its
        derivative.

    Examples
    --------
    >>> calculate_gain("leaky_relu", 0.2)
    1.3867504905630728
    """
    if not isinstance(nonlinearity, str):
        raise TypeError(f"nonlinearity must be a str, such as 'relu', got {nonlinearity!r:.80}")
    if nonlinearity == "leaky_relu":
        try:
            slope = 0.01 if param is None else check_number("param", param, negative=True)
        except TypeError as error:  # PyTorch's has a ValueError here
            raise ValueError(str(error)) from None
        return kernels.in_default_fp_environment(lambda: sqrt(2 / (1 + slope * slope)))
    if nonlinearity not in _GAINS:
        raise ValueError(
            f"nonlinearity must be one of {', '.join(_GAINS)}, leaky_relu; got {nonlinearity!r}: for others, "
            'xavierfast.propagation.suggest computes a gain, as suggest("gelu").gain or suggest((f, slope_of_f)).gain'
        )
    return _GAINS[nonlinearity]

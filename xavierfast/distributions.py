"""What is drawn, and the numbers with which the kernels draw it.

A Distribution says what a user wants, in the units of the values; ``parameters`` turns it and a dtype into a kernel and
its constants. These constants are part of the stream contract, so they too are computed with + - * / sqrt alone, or in
decimal arithmetic, whose exp and ln are correctly rounded; never by a libm, which differs from machine to machine.
"""

from decimal import MAX_EMAX, MIN_EMIN, Context, Decimal, localcontext
from functools import lru_cache
from math import inf, isfinite
from typing import Any, NamedTuple

import numpy as np

from . import kernels

__all__ = ["DTYPES", "Distribution", "Stream", "parameters", "resolve_dtype", "storage", "stream"]


class Distribution(NamedTuple):
    """``scale`` is the bound of "uniform", the standard deviation of "normal", that of the normal behind
    "truncated_normal" (whose low and high are in units of it), the value of "constant"."""

    kind: str
    scale: float
    low: float = -inf
    high: float = inf


# ---- dtypes


class _Format(NamedTuple):
    form: int  # of the kernels
    storage: np.dtype[Any] | None
    largest: float
    smallest: float  # scale: below it values would be subnormal on the way, or round to 0


DTYPES = {
    "float32": _Format(kernels.FLOAT32, np.dtype("float32"), float(np.finfo("float32").max), 2.0**-80),
    "float64": _Format(kernels.FLOAT64, np.dtype("float64"), float(np.finfo("float64").max), 2.0**-900),
    "float16": _Format(kernels.FLOAT16, np.dtype("float16"), 65504.0, 2.0**-24),
    "bfloat16": _Format(kernels.BFLOAT16, None, (2 - 2.0**-7) * 2.0**127, 2.0**-80),
}


def resolve_dtype(dtype: Any) -> str:
    """The name of a dtype in DTYPES: its own, a NumPy dtype, or ``ml_dtypes.bfloat16``."""
    if isinstance(dtype, str) and dtype in DTYPES:
        return dtype
    try:
        native = None if dtype is None else np.dtype(dtype)
    except TypeError:
        native = None
    if native is None or native.name not in DTYPES:
        raise TypeError(f"dtype must be one of {', '.join(DTYPES)}, got {dtype!r}")
    if not native.isnative:
        raise TypeError(f"dtype must have this machine's byte order, got {dtype!r}: fill a native array and convert it")
    return str(native.name)


def storage(name: str) -> np.dtype[Any]:
    """The NumPy dtype that holds a dtype of DTYPES."""
    own = DTYPES[name].storage
    if own is not None:
        return own
    try:
        import ml_dtypes
    except ImportError:
        raise ImportError(
            "an array of bfloat16 needs ml_dtypes (pip install ml_dtypes), or pass a uint16 array as out= for its bits"
        ) from None
    bfloat16: np.dtype[Any] = np.dtype(ml_dtypes.bfloat16)
    return bfloat16


def _round_down(name: str, value: float) -> float:
    """The largest finite number of a dtype that is <= value."""
    if name == "float64":
        return min(value, DTYPES[name].largest)
    value = max(min(value, DTYPES[name].largest), -DTYPES[name].largest)
    if name == "bfloat16":
        single = np.float32(_round_down("float32", value))
        bits = single.view(np.uint32)
        cut = (bits & np.uint32(0xFFFF0000)).view(np.float32)
        return float(cut if cut <= single else (bits + np.uint32(0xFFFF) & np.uint32(0xFFFF0000)).view(np.float32))
    kind = np.dtype(name).type
    near = kind(value)
    return float(near if float(near) <= value else np.nextafter(near, kind(-np.inf)))


# ---- the normal distribution function, the same on every machine

_DECIMAL = Context(prec=60, Emin=MIN_EMIN, Emax=MAX_EMAX)
_HALF_LN_2PI = Decimal("0.918938533204672741780329736405617639861397473637783412817152")


def _ln_upper_tail(x: float) -> Decimal:
    """ln Q(x), Q the mass of the standard normal above a finite x (Abramowitz and Stegun 26.2.11, 26.2.14)."""
    z = Decimal(x)
    ln_density = -z * z / 2 - _HALF_LN_2PI
    if abs(z) < 6:
        term = total = z
        k = 1
        while abs(term) > Decimal("1e-60"):
            k += 2
            term = term * z * z / k
            total += term
        return (Decimal("0.5") - ln_density.exp() * total).ln()
    if z < 0:
        return (1 - _ln_upper_tail(-x).exp()).ln()
    fraction = z
    for k in range(400, 0, -1):
        fraction = z + k / fraction
    return ln_density - fraction.ln()


def _upper_tail(x: float) -> Decimal:
    return Decimal(x < 0) if x in (-inf, inf) else _ln_upper_tail(x).exp()


# ---- kernels' parameters


Stream = tuple[int, int, tuple[float, ...]]


@lru_cache(maxsize=1024)
def parameters(distribution: Distribution, dtype: str) -> Stream:
    """``(distribution, form, p)`` as the kernels take them.

    Raises
    ------
    ValueError
        If the dtype cannot hold what is asked for, or the bounds enclose nothing.
    """
    kind, scale, low, high = distribution
    form, _, largest, smallest = DTYPES[dtype]
    if kind == "constant":
        if abs(scale) > largest:
            raise ValueError(f"value must lie within the range of {dtype}, +-{largest:g}, got {scale!r}")
        return kernels.CONSTANT, form, (scale,)
    if scale == 0:
        return kernels.CONSTANT, form, (0.0,)
    what = "bound" if kind == "uniform" else "standard deviation"
    extent = 1.0 if kind == "uniform" else _extent(low, high)
    if scale * extent > largest:
        raise ValueError(f"the {what} must be at most {largest / extent:g} for {dtype} not to overflow, got {scale!r}")
    if scale < smallest:
        raise ValueError(f"the {what} must be 0 or at least {smallest:g} for {dtype} not to underflow, got {scale!r}")
    if kind == "uniform":
        if form == kernels.FLOAT64:
            return kernels.UNIFORM, form, (scale * 2.0**-62,)
        limit = np.float32(_round_down(dtype, scale))
        pattern = np.float16(limit).view(np.uint16) if dtype == "float16" else limit.view(np.uint32) >> 16
        return kernels.UNIFORM, form, (_round_down("float32", scale) * 2.0**-31, float(pattern))
    if kind == "normal":
        return kernels.NORMAL, form, (scale,)
    bounds = -_round_down(dtype, -low * scale), _round_down(dtype, high * scale)
    if bounds[0] > bounds[1]:
        raise ValueError(
            f"no {dtype} lies between low * std and high * std, {low * scale!r} and {high * scale!r}: use a wider dtype"
        )
    with localcontext(_DECIMAL):
        if low == -high and form != kernels.FLOAT64:
            tail = _upper_tail(high)
            half = float((Decimal("0.5") - tail) * Decimal(2) ** -31)
            kernel = kernels.TRUNCATED if high <= 2 else kernels.WIDE
            return kernel, form, (scale, *bounds, half, float(tail) if tail > Decimal("1e-30") else 0.0)
        return kernels.QUANTILE, form, (scale, *bounds, *_masses(low, high))


def _masses(low: float, high: float) -> tuple[float, ...]:
    """Mass between the bounds, below, above, the logarithm of their unit, centre and half width about the median.

    Where both bounds lie far on one side, the unit is the mass beyond the nearer, which may be too small for a float.
    """
    if high <= -1.5:
        mass, after, before, unit, centre, half = _masses(-high, -low)
        return mass, before, after, unit, -centre, half
    if low >= 1.5:
        nearer = _ln_upper_tail(low)
        rest = (_ln_upper_tail(high) - nearer).exp() if high < inf else Decimal(0)
        return float(1 - rest), 2.0, float(rest), float(nearer), 1.0, 0.0
    left, right = _upper_tail(-low), _upper_tail(high)
    middle = 1 - left - right
    return float(middle), float(left), float(right), 0.0, float((left - right) / 2), float(middle / 2)


def _extent(low: float, high: float) -> float:
    """The largest magnitude that a draw can reach, in standard deviations; 9.5 is beyond the reach of 63 bits."""
    ends = [abs(end) for end in (low, high) if isfinite(end)]
    return max(ends) if len(ends) == 2 else (ends[0] if ends else 0.0) + 9.5


def stream(distribution: Distribution, dtype: str, key: bytes) -> Stream:
    """``parameters``, after the one draw of a "random_constant": element 0 of the uniform."""
    if distribution.kind != "random_constant":
        return parameters(distribution, dtype)
    kernel, form, p = parameters(Distribution("uniform", distribution.scale), dtype)
    drawn = np.zeros(1, np.uint16 if dtype == "bfloat16" else storage(dtype))
    kernels.fill(kernel, form, key, p, drawn.ctypes.data, 0, 1)
    if dtype == "bfloat16":
        drawn = (drawn.astype(np.uint32) << 16).view(np.float32)
    return kernels.CONSTANT, form, (float(drawn[0]),)

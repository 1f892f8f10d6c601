"""What is drawn, and the numbers with which the kernels draw it.

A Distribution says what a user wants, in the units of the values; ``parameters`` turns it and a dtype into a kernel and
its constants. These constants are part of the stream contract, so they too are computed with + - * / sqrt alone, or in
decimal arithmetic, whose exp and ln are correctly rounded; never by a libm, which differs from machine to machine.
"""

import inspect
from collections.abc import Callable
from decimal import MAX_EMAX, MIN_EMIN, Context, Decimal, localcontext
from fractions import Fraction
from functools import cache, lru_cache
from math import inf, isfinite, nextafter, pi, sqrt
from typing import Any, NamedTuple
from warnings import catch_warnings, simplefilter

import numpy as np

from . import kernels

__all__ = [
    "INITIALIZERS",
    "Weight",
    "own_parameters",
    "DTYPES",
    "Distribution",
    "Stream",
    "density",
    "expected_mean",
    "expected_std",
    "format_of",
    "parameters",
    "resolve_dtype",
    "storage",
    "stream",
    "support",
]


class Distribution(NamedTuple):
    """A distribution in the units of the values.

    ``kind`` decides what the numbers are: "uniform" lies on +-scale, both ends included; "range" is uniform on
    [low, high), without `scale`; "normal" has the standard deviation `scale` and the mean `mean`; "truncated_normal" is
    that normal cut at low and high, in standard deviations about the mean; "constant" has the value `scale`.

    Of complex values, whose mean is 0, the modulus has the bound (uniform on the disk) or the truncation, and the
    standard deviation is that of both parts together, sqrt(E |z|^2): as JAX defines them.
    """

    kind: str
    scale: complex
    low: float = -inf
    high: float = inf
    mean: float = 0.0


# ---- initialisers, by name


class Weight(NamedTuple):
    """What a distribution may depend on."""

    fan_in: int
    fan_out: int
    is_complex: bool = False


# Name -> function of the initialiser's parameters, and of a Weight if `weight` is its first; initializers.py fills it.
INITIALIZERS: dict[str, Callable[..., Distribution]] = {}


@cache
def own_parameters(init: str) -> tuple[bool, tuple[inspect.Parameter, ...]]:
    """Whether an initialiser takes a Weight, and its parameters besides."""
    own = tuple(inspect.signature(INITIALIZERS[init]).parameters.values())
    needs_weight = bool(own) and own[0].name == "weight"
    return needs_weight, own[needs_weight:]


# ---- dtypes


class Format(NamedTuple):
    form: int  # of the kernels
    storage: np.dtype[Any] | None  # None: of ml_dtypes
    largest: float
    smallest: float  # scale: below it values would be subnormal on the way, or round to 0


def _own(form: int, name: str, part: str, smallest: float) -> Format:
    return Format(form, np.dtype(name), float(np.finfo(part).max), smallest)


_FORMATS = {
    "float32": _own(kernels.FLOAT32, "float32", "float32", 2.0**-80),
    "float64": _own(kernels.FLOAT64, "float64", "float64", 2.0**-900),
    "float16": _own(kernels.FLOAT16, "float16", "float16", 2.0**-24),
    "bfloat16": Format(kernels.BFLOAT16, None, (2 - 2.0**-7) * 2.0**127, 2.0**-80),
    "complex64": _own(kernels.COMPLEX64, "complex64", "float32", 2.0**-80),
    "complex128": _own(kernels.COMPLEX128, "complex128", "float64", 2.0**-900),
}
# Real formats of ml_dtypes that have zero and a sign: float32 values, rounded once by ml_dtypes.
_SMALL = (
    "float8_e3m4", "float8_e4m3", "float8_e4m3b11fnuz", "float8_e4m3fn", "float8_e4m3fnuz", "float8_e5m2",
    "float8_e5m2fnuz", "float6_e2m3fn", "float6_e3m2fn", "float4_e2m1fn",
)  # fmt: skip
DTYPES = (*_FORMATS, *_SMALL)


def resolve_dtype(dtype: Any) -> str:
    """The name of a dtype in DTYPES: its own, a NumPy dtype, or one of ``ml_dtypes``."""
    if isinstance(dtype, str) and dtype in DTYPES:
        return dtype
    try:
        with catch_warnings():
            simplefilter("ignore")
            native = None if dtype is None else np.dtype(dtype)
    except (TypeError, ValueError, OverflowError, SyntaxError):
        native = None
    if native is None or native.name not in DTYPES:
        raise TypeError(f"dtype must be one of {', '.join(DTYPES)}, got {dtype!r}")
    if not native.isnative:
        raise TypeError(f"dtype must have this machine's byte order, got {dtype!r}: fill a native array and convert it")
    return str(native.name)


def _ml_dtype(name: str) -> np.dtype[Any]:
    try:
        import ml_dtypes
    except ImportError:
        bits = ", or pass a uint16 array as out= for its bits" if name == "bfloat16" else ""
        raise ImportError(f"an array of {name} needs ml_dtypes (pip install ml_dtypes){bits}") from None
    if not hasattr(ml_dtypes, name):
        raise ImportError(f"an array of {name} needs a newer ml_dtypes than {ml_dtypes.__version__}")
    dtype: np.dtype[Any] = np.dtype(getattr(ml_dtypes, name))
    return dtype


def storage(name: str) -> np.dtype[Any]:
    """The NumPy dtype that holds a dtype of DTYPES."""
    own = _FORMATS[name].storage if name in _FORMATS else None
    return _ml_dtype(name) if own is None else own


@cache
def _small_numbers(name: str) -> np.ndarray[Any, Any]:
    """All finite numbers of a dtype of one byte, ascending."""
    numbers = np.arange(256, dtype=np.uint8).view(_ml_dtype(name)).astype(np.float64)
    return np.unique(numbers[np.isfinite(numbers)])


@cache
def format_of(name: str) -> Format:
    if name in _FORMATS:
        return _FORMATS[name]
    numbers = _small_numbers(name)
    return Format(kernels.FLOAT32, _ml_dtype(name), float(numbers[-1]), float(numbers[numbers > 0][0]))


def _round_down(name: str, value: float) -> float:
    """The largest finite number of a real dtype that is <= value."""
    largest = format_of(name).largest
    value = max(min(value, largest), -largest)
    if name == "float64":
        return value
    if name in _SMALL:
        numbers = _small_numbers(name)
        return float(numbers[np.searchsorted(numbers, value, side="right") - 1])
    if name == "bfloat16":
        single = np.float32(_round_down("float32", value))
        bits = single.view(np.uint32)
        cut = (bits & np.uint32(0xFFFF0000)).view(np.float32)
        return float(cut if cut <= single else (bits + np.uint32(0xFFFF) & np.uint32(0xFFFF0000)).view(np.float32))
    kind = np.dtype(name).type
    near = kind(value)
    return float(near if float(near) <= value else np.nextafter(near, kind(-np.inf)))


def _cut_from(name: str, end: Fraction | float) -> float:
    """The smallest finite number of a real dtype that is >= an end."""
    return -_cut_to(name, -end)


def _cut_to(name: str, end: Fraction | float) -> float:
    """The largest finite number of a real dtype that is <= an end, which may be known more exactly than as a float."""
    if isinstance(end, Fraction):
        largest = format_of(name).largest
        near = float(max(min(end, Fraction(largest)), -Fraction(largest)))
        end = near if near <= end else nextafter(near, -inf)
    return _round_down(name, end)


# ---- the normal distribution function, the same on every machine

_DECIMAL = Context(prec=60, Emin=MIN_EMIN, Emax=MAX_EMAX)
_NOTHING = Decimal("1e-30")  # a mass too small to matter, and to become subnormal on the way
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


class Stream(NamedTuple):
    """What the kernels take. Where `limit` is not 0 they draw float32 values, which are clamped to +-limit and cast to
    the dtype of the array."""

    distribution: int
    form: int
    p: tuple[float, ...]
    limit: float = 0.0


@lru_cache(maxsize=1024)
def parameters(distribution: Distribution, dtype: str) -> Stream:
    """The kernel and its constants.

    Raises
    ------
    ValueError
        If the dtype cannot hold what is asked for, or the bounds enclose nothing.
    """
    kind, scale, low, high, mean = distribution
    form, _, largest, smallest = format_of(dtype)
    is_complex = dtype.startswith("complex")
    limit = largest if dtype in _SMALL else 0.0
    if kind == "constant":
        if max(abs(scale.real), abs(scale.imag)) > largest:
            raise ValueError(f"value must lie within the range of {dtype}, +-{largest:g}, got {scale!r}")
        if scale.imag and not is_complex:
            raise ValueError(f"value must be real for {dtype}, got {scale!r}")
        return Stream(kernels.CONSTANT, form, (scale.real, scale.imag), limit)
    if is_complex and (mean or kind == "range"):
        raise ValueError(f"complex values have the mean 0: give {dtype} a bound or a standard deviation alone")
    if kind == "range":
        return _range_parameters(low, high, dtype)
    scale = scale.real
    if scale == 0:
        return parameters(Distribution("constant", mean), dtype)
    what = "bound" if kind == "uniform" else "standard deviation"
    extent = 1.0 if kind == "uniform" else _extent(low, high)
    if scale * extent + abs(mean) > largest:
        room = (largest - abs(mean)) / extent
        beside = f" beside the mean {mean:g}" if mean else ""
        raise ValueError(f"the {what} must be at most {room:g}{beside} for {dtype} not to overflow, got {scale!r}")
    if scale < smallest:
        raise ValueError(f"the {what} must be 0 or at least {smallest:g} for {dtype} not to underflow, got {scale!r}")
    if is_complex:
        return _complex_parameters(distribution, form)
    if kind == "uniform":
        if form == kernels.FLOAT64:
            return Stream(kernels.UNIFORM, form, (scale * 2.0**-62,))
        single, last = _round_down("float32", scale), _round_down(dtype, scale)
        if dtype == "float32":
            return Stream(kernels.UNIFORM, form, (single * 2.0**-31,))
        return Stream(kernels.RANGE, form, (single * 2.0**-31, 0.0, -last, last), limit)
    if kind == "normal":
        return Stream(kernels.NORMAL, form, (scale, mean), limit)
    ends = [Fraction(mean) + Fraction(end) * Fraction(scale) if isfinite(end) else end for end in (low, high)]
    bounds = _cut_from(dtype, ends[0]), _cut_to(dtype, ends[1])
    if bounds[0] > bounds[1]:
        raise ValueError(
            f"no {dtype} lies between mean + low * std and mean + high * std, {float(ends[0])!r} and "
            f"{float(ends[1])!r}: use a wider dtype"
        )
    with localcontext(_DECIMAL):
        if low == -high and form != kernels.FLOAT64:
            tail = _upper_tail(high)
            half = float((Decimal("0.5") - tail) * Decimal(2) ** -31)
            kernel = kernels.TRUNCATED if high <= 2 else kernels.WIDE
            tail_mass = float(tail) if tail > _NOTHING else 0.0
            return Stream(kernel, form, (scale, mean, *bounds, half, tail_mass), limit)
        return Stream(kernels.QUANTILE, form, (scale, mean, *bounds, *_masses(low, high)), limit)


def _range_parameters(low: float, high: float, dtype: str) -> Stream:
    form, _, largest, smallest = format_of(dtype)
    if max(abs(low), abs(high)) > largest:
        raise ValueError(f"low and high must lie within the range of {dtype}, +-{largest:g}, got {low!r} and {high!r}")
    if low == high:
        return parameters(Distribution("constant", low), dtype)
    first, last = _cut_from(dtype, low), _round_down(dtype, high)
    if high - last <= _cut_from(dtype, high) - high:  # high, or what it is in the dtype, is never drawn
        last = _round_down(dtype, nextafter(last, -inf))
    if first >= high:
        raise ValueError(f"no {dtype} lies from low to below high, {low!r} and {high!r}: use a wider dtype")
    if first >= last:
        return parameters(Distribution("constant", first), dtype)
    half, middle = high / 2 - low / 2, low / 2 + high / 2
    if half < smallest:
        raise ValueError(
            f"high - low must be 0 or at least {2 * smallest:g} for {dtype} not to underflow, got {low!r} and {high!r}"
        )
    if form == kernels.FLOAT64:
        return Stream(kernels.RANGE, form, (half * 2.0**-62, middle, first, last))
    limit = largest if dtype in _SMALL else 0.0
    return Stream(kernels.RANGE, form, (_round_down("float32", half) * 2.0**-31, middle, first, last), limit)


def _complex_parameters(distribution: Distribution, form: int) -> Stream:
    kind, scale, low, high, _ = distribution
    scale = scale.real
    # A radius, a cosine and a sine of 2.5 ulp each: room for their rounding keeps the modulus within its bound.
    room = 1 - (2.0**-20 if form == kernels.COMPLEX64 else 2.0**-49)
    if kind == "uniform":
        return Stream(kernels.UNIFORM, form, (scale * room,))
    if low != -high:
        raise ValueError(f"low must be -high for complex values, whose modulus is truncated, got {low!r} and {high!r}")
    if high == inf:
        return Stream(kernels.NORMAL, form, (scale * sqrt(0.5), inf, 1.0, 0.0))
    with localcontext(_DECIMAL):
        rest = (-(Decimal(high) ** 2)).exp()  # P(|z| > c) of a complex normal of standard deviation 1
        return Stream(
            kernels.NORMAL,
            form,
            (scale * sqrt(0.5), high * scale * room, float(1 - rest), float(rest) if rest > _NOTHING else 0.0),
        )


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


def support(distribution: Distribution) -> tuple[float, float]:
    """The ends between which all values lie; infinite where only the number of random bits limits them. Of complex
    values, those of the modulus with both signs."""
    kind, scale, low, high, mean = distribution
    if kind == "constant":
        value = abs(scale) if scale.imag else scale.real
        return value, value
    if kind == "range":
        return low, high
    if kind in ("uniform", "random_constant"):
        return -scale.real, scale.real
    return (mean + scale.real * low, mean + scale.real * high) if scale else (mean, mean)


def _truncated_moments(low: float, high: float) -> tuple[float, float]:
    """Mean and standard deviation of a standard normal cut at low and high: Johnson, Kotz and Balakrishnan (1994),
    13.134-135, from the tail in which both bounds lie."""
    if (low, high) == (-inf, inf):
        return 0.0, 1.0
    sign, a, b = (1, low, high) if abs(low) < abs(high) else (-1, -high, -low)
    with localcontext(_DECIMAL):
        unit = _ln_upper_tail(a)
        mass = 1 - ((_ln_upper_tail(b) - unit).exp() if b < inf else 0)
        if mass < Decimal("1e-20"):  # so narrow that the density is level
            return low / 2 + high / 2, (b - a) / sqrt(12)
        density = [
            (-(Decimal(x) ** 2) / 2 - _HALF_LN_2PI - unit).exp() / mass if x < inf else Decimal(0) for x in (a, b)
        ]
        mean = density[0] - density[1]
        square = 1 + Decimal(a) * density[0] - (Decimal(b) * density[1] if b < inf else 0)
        return sign * float(mean), float(max(square - mean * mean, Decimal(0)).sqrt())


def expected_mean(distribution: Distribution) -> complex:
    """E x; complex only for a complex constant."""
    kind, scale, low, high, mean = distribution
    if kind == "constant":
        return scale if scale.imag else scale.real
    if kind == "range":
        return low / 2 + high / 2
    if kind == "truncated_normal" and low != -high:
        return mean + scale.real * _truncated_moments(low, high)[0]
    return mean


def expected_std(distribution: Distribution, dtype: str) -> float:
    """sqrt(E |x - E x|^2) of the elements of one table."""
    kind, scale, low, high, _ = distribution
    is_complex = dtype.startswith("complex")
    if kind in ("constant", "random_constant"):
        return 0.0
    if kind == "uniform":
        return scale.real / sqrt(2 if is_complex else 3)
    if kind == "range":
        return (high / 2 - low / 2) / sqrt(3)
    if kind == "normal":
        return scale.real
    if is_complex:
        with localcontext(_DECIMAL):
            c2 = Decimal(high) ** 2
            if c2 > 1000:  # what is cut off is less than any float
                return scale.real
            if c2 < Decimal("1e-20"):  # so narrow that the density is level
                return scale.real * high / sqrt(2)
            return scale.real * float((1 - c2 / (c2.exp() - 1)).sqrt())
    return scale.real * _truncated_moments(low, high)[1]


def density(distribution: Distribution, x: np.ndarray[Any, Any]) -> np.ndarray[Any, Any] | None:
    """The probability density of real values; None of those that are all alike."""
    kind, scale, low, high, mean = distribution
    scale = scale.real
    if kind == "range" and low < high:
        return np.where((low <= x) & (x < high), 0.5 / (high / 2 - low / 2), 0.0)
    if kind not in ("uniform", "normal", "truncated_normal") or not scale:
        return None
    if kind == "uniform":
        return np.where(abs(x) <= scale, 0.5 / scale, 0.0)
    z = (x - mean) / scale
    with localcontext(_DECIMAL):
        mass = float(_upper_tail(low) - _upper_tail(high))
    inside = (low <= z) & (z <= high)
    return np.where(inside, np.exp(-z * z / 2) / (scale * sqrt(2 * pi) * mass), 0.0) if mass else None


def stream(distribution: Distribution, dtype: str, key: bytes) -> Stream:
    """``parameters``, after the one draw of a "random_constant": element 0 of the uniform."""
    if distribution.kind != "random_constant":
        return parameters(distribution, dtype)
    source = parameters(Distribution("uniform", distribution.scale), dtype)
    raw = {kernels.BFLOAT16: np.dtype(np.uint16), kernels.FLOAT32: np.dtype(np.float32)}.get(source.form)
    drawn: np.ndarray[Any, Any] = np.zeros(1, raw or storage(dtype))
    kernels.fill(source.distribution, source.form, key, source.p, drawn.ctypes.data, 0, 1)
    if dtype == "bfloat16":
        drawn = (drawn.astype(np.uint32) << 16).view(np.float32)
    value = complex(drawn[0])
    return Stream(kernels.CONSTANT, source.form, (value.real, value.imag), source.limit)

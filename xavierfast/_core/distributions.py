"""Distributions of the values of a tensor, and the constants with which the kernels draw them.

Each class describes a distribution in the units of the values: its mean, standard deviation, support and density, and,
given a key and a dtype, its Sampler. Complex values have the mean 0. The bound (uniform on the disk) or the truncation
applies to their modulus, and their standard deviation is that of both parts together, sqrt(E |z|^2), as in JAX.

The kernels' constants are part of the stream contract, so they too are computed only with + - * / sqrt, in exact
fractions, or in decimal arithmetic; never by a libm, which differs from machine to machine.
"""

from decimal import Decimal, Inexact, localcontext
from functools import lru_cache
from math import inf, isfinite, nextafter, sqrt
from typing import Any, NamedTuple

import numpy as np

from .. import kernels
from .dtypes import DTYPES, DType
from .normal_tail import DECIMAL, NEGLIGIBLE, ln_upper_tail, truncated_moments, truncated_peak, upper_tail
from .sampler import Sampler

__all__ = ["Constant", "Distribution", "Normal", "RandomConstant", "TruncatedNormal", "Uniform", "UniformRange"]

Density = np.ndarray[Any, Any] | None
# Sums of products of floats have at most 2,800 digits.
EXACT = DECIMAL.copy()
EXACT.prec, EXACT.traps[Inexact] = 3000, True
# Standard deviations from the mean, at which x^2 / 2 is still a float.
MAX_TAIL = 1e154


class Draw(NamedTuple):
    """A kernel and its constants."""

    kernel: int
    constants: tuple[float, ...]


class Distribution:
    """The interface of all distributions, which are tuples of numbers: made, compared and hashed at the speed of C."""

    __slots__ = ()

    @property
    def mean(self) -> complex:
        """The mean of the values, E x."""
        return 0.0

    @property
    def support(self) -> tuple[float, float]:
        """The ends of the interval that contains all values, infinite where only the number of random bits limits
        them; for complex values, plus and minus the bound of the modulus."""
        raise NotImplementedError

    def std(self, dtype: DType) -> float:
        """The standard deviation sqrt(E |x - E x|^2) of the elements of one tensor."""
        return 0.0

    def density(self, x: np.ndarray[Any, Any]) -> Density:
        """The probability density of real values at `x`; None if all values are equal."""
        return None

    def draw(self, dtype: DType) -> Draw:
        """The kernel and its constants; raises ValueError if the dtype cannot hold the requested values."""
        raise NotImplementedError

    def sampler(self, dtype: DType, key: bytes) -> Sampler:
        kind: Any = type(self)
        kernel, constants = _draw(kind, self, dtype)
        return Sampler(key, kernel, dtype, constants)


@lru_cache(maxsize=1024)
def _draw(kind: type, distribution: Distribution, dtype: DType) -> Draw:
    """``distribution.draw``; `kind` tells equal tuples of different distributions apart."""
    with np.errstate(all="ignore"):  # a caller's np.seterr must not turn the rounding of bounds into errors
        draw: Draw = kernels.in_default_fp_environment(distribution.draw, dtype)
    return draw


def _check_scale(what: str, scale: float, extent: float, dtype: DType, mean: float = 0.0) -> None:
    """Raise a ValueError if values, which lie up to `extent` scales from the mean, would overflow or underflow."""
    if abs(mean) > dtype.largest:
        raise ValueError(f"the mean must lie within the range of {dtype.name}, +-{dtype.largest:g}, got {mean!r}")
    if scale * extent + abs(mean) > dtype.largest:
        room = (dtype.largest - abs(mean)) / extent
        beside = f" beside the mean {mean:g}" if mean else ""
        raise ValueError(f"the {what} must be at most {room:g}{beside} for {dtype.name} not to overflow, got {scale!r}")
    if scale < dtype.smallest:
        raise ValueError(
            f"the {what} must be 0 or at least {dtype.smallest:g} for {dtype.name} not to underflow, got {scale!r}"
        )


def _check_real(dtype: DType) -> None:
    if dtype.is_complex:
        raise ValueError(f"complex values have the mean 0: give {dtype.name} only a bound or a standard deviation")


class Constant(NamedTuple("Constant", [("value", complex)]), Distribution):
    """The same value everywhere."""

    __slots__ = ()

    @property
    def mean(self) -> complex:
        return self.value if self.value.imag else self.value.real

    @property
    def support(self) -> tuple[float, float]:
        value = abs(self.value) if self.value.imag else self.value.real
        return value, value

    def sampler(self, dtype: DType, key: bytes) -> Sampler:
        return Sampler(key, kernels.CONSTANT, dtype, self.draw(dtype).constants)  # not cached: -0.0 equals 0.0

    def draw(self, dtype: DType) -> Draw:
        real, imaginary = self.value.real, self.value.imag
        if max(abs(real), abs(imaginary)) > dtype.largest:
            raise ValueError(
                f"value must lie within the range of {dtype.name}, +-{dtype.largest:g}, got {self.value!r}"
            )
        if imaginary and not dtype.is_complex:
            raise ValueError(f"value must be real for {dtype.name}, got {self.value!r}")
        return Draw(kernels.CONSTANT, (real, imaginary))


class Uniform(NamedTuple("Uniform", [("bound", float)]), Distribution):
    """Uniform on +-bound, both ends included; complex values are uniform on the disk."""

    __slots__ = ()

    @property
    def support(self) -> tuple[float, float]:
        return -self.bound, self.bound

    def std(self, dtype: DType) -> float:
        return self.bound / sqrt(2 if dtype.is_complex else 3)

    def density(self, x: np.ndarray[Any, Any]) -> Density:
        return np.where(abs(x) <= self.bound, 0.5 / self.bound, 0.0) if self.bound else None

    def draw(self, dtype: DType) -> Draw:
        bound = self.bound
        if not bound:
            return Constant(0.0).draw(dtype)
        _check_scale("bound", bound, 1.0, dtype)
        if dtype.is_complex:
            return Draw(kernels.UNIFORM, (bound * _room(dtype),))
        if dtype.name == "float64":
            return Draw(kernels.UNIFORM, (bound * 2.0**-62,))
        scale = DTYPES["float32"].at_most(bound) * 2.0**-31
        if dtype.name == "float32":
            return Draw(kernels.UNIFORM, (scale,))
        last = dtype.at_most(bound)
        return Draw(kernels.RANGE, (scale, 0.0, -last, last))


class UniformRange(NamedTuple("UniformRange", [("low", float), ("high", float)]), Distribution):
    """Uniform from low to below high; where they are equal, low everywhere."""

    __slots__ = ()

    @property
    def mean(self) -> float:
        return self.low / 2 + self.high / 2  # halved first, so that the sum is finite

    @property
    def support(self) -> tuple[float, float]:
        return self.low, self.high

    def std(self, dtype: DType) -> float:
        return (self.high / 2 - self.low / 2) / sqrt(3)

    def density(self, x: np.ndarray[Any, Any]) -> Density:
        if self.low == self.high:
            return None
        half = max(self.high / 2 - self.low / 2, 5e-324)  # the smallest float, where half of it would be 0
        return np.where((self.low <= x) & (x < self.high), 0.5 / half, 0.0)

    def draw(self, dtype: DType) -> Draw:
        low, high = self.low, self.high
        _check_real(dtype)
        if max(abs(low), abs(high)) > dtype.largest:
            raise ValueError(
                f"low and high must lie within the range of {dtype.name}, +-{dtype.largest:g}, got {low!r} and {high!r}"
            )
        if low == high:
            return Constant(low + 0.0).draw(dtype)  # without the sign of a zero, which the cache does not see
        first, last = dtype.at_least(low), dtype.at_most(high)
        if high - last <= dtype.at_least(high) - high:  # neither high nor high rounded to the dtype is drawn
            last = dtype.at_most(nextafter(last, -inf))
        if first >= high:
            raise ValueError(f"no {dtype.name} lies from low to below high, {low!r} and {high!r}: use a wider dtype")
        if first >= last:
            return Constant(first + 0.0).draw(dtype)
        half = high / 2 - low / 2
        if half < dtype.smallest:
            raise ValueError(
                f"high - low must be 0 or at least {2 * dtype.smallest:g} for {dtype.name} not to underflow, "
                f"got {low!r} and {high!r}"
            )
        scale = half * 2.0**-62 if dtype.name == "float64" else DTYPES["float32"].at_most(half) * 2.0**-31
        return Draw(kernels.RANGE, (scale, self.mean, first, last))


class RandomConstant(NamedTuple("RandomConstant", [("bound", float)]), Distribution):
    """One value everywhere, which is element 0 of the uniform on +-bound."""

    __slots__ = ()

    @property
    def support(self) -> tuple[float, float]:
        return -self.bound, self.bound

    def draw(self, dtype: DType) -> Draw:
        return Uniform(self.bound).draw(dtype)

    def sampler(self, dtype: DType, key: bytes) -> Sampler:
        drawn: np.ndarray[Any, Any] = np.zeros(1, dtype.written)
        Uniform(self.bound).sampler(dtype, key).fill(drawn.ctypes.data, 0, 1)
        if dtype.name == "bfloat16":
            drawn = (drawn.astype(np.uint32) << 16).view(np.float32)
        value = complex(drawn[0])
        return Sampler(key, kernels.CONSTANT, dtype, (value.real, value.imag))


class TruncatedNormal(
    NamedTuple("TruncatedNormal", [("middle", float), ("scale", float), ("low", float), ("high", float)]), Distribution
):
    """A normal with the mean `middle` and the standard deviation `scale`, cut at low and high, which are in standard
    deviations about the mean and may be infinite."""

    __slots__ = ()

    @property
    def mean(self) -> float:
        if not self.scale or self.low == -self.high:
            return self.middle
        return self.middle + self.scale * truncated_moments(self.low, self.high)[0]

    @property
    def support(self) -> tuple[float, float]:
        if not self.scale:
            return self.middle, self.middle
        return self.middle + self.scale * self.low, self.middle + self.scale * self.high

    def std(self, dtype: DType) -> float:
        if not self.scale:
            return 0.0
        return self.scale * (_std_within(self.high) if dtype.is_complex else truncated_moments(self.low, self.high)[1])

    def density(self, x: np.ndarray[Any, Any]) -> Density:
        if not self.scale:
            return None
        peak, height = truncated_peak(self.low, self.high)
        with np.errstate(all="ignore"):  # outside the bounds anything may overflow
            z = (x - self.middle) / self.scale
            density = np.exp((peak - z) * (peak + z) / 2) * (height / self.scale)
        return np.where((self.low <= z) & (z <= self.high), density, 0.0)

    def draw(self, dtype: DType) -> Draw:
        mean, std, low, high = self.middle, self.scale, self.low, self.high
        if mean:
            _check_real(dtype)
        if not std:
            return Constant(mean + 0.0).draw(dtype)
        _check_scale("standard deviation", std, self._extent, dtype, mean)
        if dtype.is_complex:
            return self._draw_complex(dtype)
        with localcontext(EXACT):
            ends = [Decimal(mean) + Decimal(end) * Decimal(std) if isfinite(end) else end for end in (low, high)]
            first, last = dtype.at_least(ends[0]), dtype.at_most(ends[1])
        if first > last:
            raise ValueError(
                f"no {dtype.name} lies between mean + low * std and mean + high * std, {float(ends[0])!r} and "
                f"{float(ends[1])!r}: use a wider dtype"
            )
        with localcontext(DECIMAL):
            if low != -high or dtype.name == "float64" or std > DTYPES["float32"].largest:
                if max(low, -high) > MAX_TAIL:
                    raise ValueError(
                        f"low and high must not both lie beyond {MAX_TAIL:g} on one side of the mean, where no float "
                        f"holds the logarithm of the density, got {low!r} and {high!r}"
                    )
                return Draw(kernels.TRUNCATED_ANY, (std, mean, first, last, *_masses(low, high)))
            tail = upper_tail(high)
            scale = float((Decimal("0.5") - tail) * Decimal(2) ** -31)
            kernel = kernels.TRUNCATED_2SIGMA if high <= 2 else kernels.TRUNCATED_SYMMETRIC
            return Draw(kernel, (std, mean, first, last, scale, float(tail) if tail > NEGLIGIBLE else 0.0))

    @property
    def _extent(self) -> float:
        """An upper bound on a draw's distance from the mean, in standard deviations: with an infinite end, 63 random
        bits do not reach 9.5 beyond a finite end or the mean."""
        ends = [abs(end) for end in (self.low, self.high) if isfinite(end)]
        return max(ends) if len(ends) == 2 else (ends[0] if ends else 0.0) + 9.5

    def _draw_complex(self, dtype: DType) -> Draw:
        """The kernel and constants for complex values, whose modulus is cut, so that low must be -high."""
        low, high = self.low, self.high
        if low != -high:
            raise ValueError(
                f"low must be -high for complex values, whose modulus is truncated, got {low!r} and {high!r}"
            )
        part = self.scale * sqrt(0.5)
        if high == inf:
            return Draw(kernels.NORMAL, (part, inf, 1.0, 0.0))
        with localcontext(DECIMAL):
            rest = (-(Decimal(high) ** 2)).exp()  # P(|z| > c) of a complex normal of standard deviation 1
            beyond = float(rest) if rest > NEGLIGIBLE else 0.0
            return Draw(kernels.NORMAL, (part, high * self.scale * _room(dtype), float(1 - rest), beyond))


class Normal(TruncatedNormal):
    """A normal with the mean `middle` and the standard deviation `scale`, not cut."""

    __slots__ = ()

    def __new__(cls, middle: float, scale: float) -> "Normal":
        return super().__new__(cls, middle, scale, -inf, inf)

    def std(self, dtype: DType) -> float:
        return self.scale

    def draw(self, dtype: DType) -> Draw:
        if dtype.is_complex or not self.scale:
            return super().draw(dtype)
        _check_scale("standard deviation", self.scale, self._extent, dtype, self.middle)
        return Draw(kernels.NORMAL, (self.scale, self.middle))


def _std_within(cut: float) -> float:
    """The standard deviation of a complex normal of standard deviation 1 whose modulus is cut at `cut`."""
    if cut == inf:
        return 1.0
    with localcontext(DECIMAL):
        square = Decimal(cut) ** 2
        if square > 1000:  # the mass beyond the cut is less than any float
            return 1.0
        if square < Decimal("1e-20"):  # so narrow that the density is constant
            return cut / sqrt(2)
        return float((1 - square / (square.exp() - 1)).sqrt())


def _room(dtype: DType) -> float:
    """The factor on a bound that leaves room for rounding, so that the modulus stays within the bound.

    A modulus is computed from a radius, a cosine and a sine with errors of 2.5 ulp each.
    """
    return 1 - (2.0**-20 if dtype.name == "complex64" else 2.0**-49)


def _masses(low: float, high: float) -> tuple[float, ...]:
    """The mass between, below and above the bounds, the logarithm of its unit, and centre and half width about the
    median.

    If both bounds lie far on one side, the unit is the mass beyond the nearer one, which may be too small for a float.
    """
    if high <= -1.5:
        mass, after, before, unit, centre, half = _masses(-high, -low)
        return mass, before, after, unit, -centre, half
    if low >= 1.5:
        nearer = ln_upper_tail(low)
        rest = (ln_upper_tail(high) - nearer).exp() if high < inf else Decimal(0)
        return float(1 - rest), 2.0, float(rest), float(nearer), 1.0, 0.0
    left, right = upper_tail(-low), upper_tail(high)
    middle = 1 - left - right
    return float(middle), float(left), float(right), 0.0, float((left - right) / 2), float(middle / 2)

"""The upper tail of the normal distribution, the same on every machine: it is computed in decimal arithmetic, whose exp
and ln are correctly rounded, and not by a libm, which differs from machine to machine."""

from decimal import (
    MAX_EMAX,
    MIN_EMIN,
    ROUND_HALF_EVEN,
    Context,
    Decimal,
    DivisionByZero,
    InvalidOperation,
    Overflow,
    localcontext,
)
from math import inf, pi, sqrt

__all__ = ["DECIMAL", "NEGLIGIBLE", "ln_upper_tail", "truncated_moments", "truncated_peak", "upper_tail"]

# Everything is given: what a Context leaves out is that of decimal.DefaultContext, which anybody can change.
DECIMAL = Context(
    prec=60, rounding=ROUND_HALF_EVEN, Emin=MIN_EMIN, Emax=MAX_EMAX, capitals=1, clamp=0, flags=[],
    traps=[InvalidOperation, DivisionByZero, Overflow],
)  # fmt: skip
NARROW = Decimal("1e-20")  # a part of a tail's mass that is so narrow that the density is constant
NEGLIGIBLE = Decimal("1e-30")  # smaller masses do not matter, and would become subnormal on the way
_HALF_LN_2PI = Decimal("0.918938533204672741780329736405617639861397473637783412817152")


def ln_upper_tail(x: float) -> Decimal:
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
        return (1 - ln_upper_tail(-x).exp()).ln()
    fraction = z
    for k in range(400, 0, -1):
        fraction = z + k / fraction
    return ln_density - fraction.ln()


def upper_tail(x: float) -> Decimal:
    """Q(x), the mass of the standard normal above x, which may be infinite."""
    if x in (-inf, inf):
        return Decimal(1) if x < 0 else Decimal(0)
    return ln_upper_tail(x).exp()


def truncated_moments(low: float, high: float) -> tuple[float, float]:
    """Mean and standard deviation of a standard normal cut at low and high: Johnson, Kotz and Balakrishnan (1994),
    13.134-135, computed from the tail in which both bounds lie."""
    if (low, high) == (-inf, inf):
        return 0.0, 1.0
    sign, a, b = (1, low, high) if abs(low) < abs(high) else (-1, -high, -low)
    with localcontext(_precise(a)):
        unit, mass = _mass(a, b)
        if mass < NARROW:
            return low / 2 + high / 2, (b - a) / sqrt(12)
        density = [
            (-(Decimal(x) ** 2) / 2 - _HALF_LN_2PI - unit).exp() / mass if x < inf else Decimal(0) for x in (a, b)
        ]
        mean = density[0] - density[1]
        square = 1 + Decimal(a) * density[0] - (Decimal(b) * density[1] if b < inf else 0)
        return sign * float(mean), float(max(square - mean * mean, Decimal(0)).sqrt())


def truncated_peak(low: float, high: float) -> tuple[float, float]:
    """The point at which the density of a standard normal cut at low and high is largest, and the density there."""
    if (low, high) == (-inf, inf):
        return 0.0, 1 / sqrt(2 * pi)
    peak = min(max(low, 0.0), high)
    a, b = (low, high) if abs(low) < abs(high) else (-high, -low)
    with localcontext(_precise(a)):
        unit, mass = _mass(a, b)
        if mass < NARROW:
            return peak, 1 / (high - low)
        return peak, float((-(Decimal(peak) ** 2) / 2 - _HALF_LN_2PI - unit).exp() / mass)


def _precise(a: float) -> Context:
    """A context in which a tail that begins at `a` is so exact that its variance, about 1 / a^2, is not lost beside
    a^2, nor the logarithms of its density and its mass, about a^2 / 2, beside each other."""
    context = DECIMAL.copy()
    context.prec += 6 * max(0, Decimal.from_float(a).adjusted())  # a Decimal(a) would signal FloatOperation
    return context


def _mass(a: float, b: float) -> tuple[Decimal, Decimal]:
    """The logarithm of the mass above a, and the part of that mass which lies below b."""
    unit = ln_upper_tail(a)
    return unit, 1 - (ln_upper_tail(b) - unit).exp() if b < inf else Decimal(1)

"""The upper tail of the normal distribution, the same on every machine: it is computed in decimal arithmetic, whose exp
and ln are correctly rounded, and not by a libm, which differs from machine to machine."""

from decimal import MAX_EMAX, MIN_EMIN, Context, Decimal, localcontext
from math import inf, sqrt

__all__ = ["DECIMAL", "NEGLIGIBLE", "ln_upper_tail", "truncated_moments", "upper_tail"]

DECIMAL = Context(prec=60, Emin=MIN_EMIN, Emax=MAX_EMAX)
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
    with localcontext(DECIMAL):
        unit = ln_upper_tail(a)
        mass = 1 - ((ln_upper_tail(b) - unit).exp() if b < inf else 0)
        if mass < Decimal("1e-20"):  # so narrow that the density is constant
            return low / 2 + high / 2, (b - a) / sqrt(12)
        density = [
            (-(Decimal(x) ** 2) / 2 - _HALF_LN_2PI - unit).exp() / mass if x < inf else Decimal(0) for x in (a, b)
        ]
        mean = density[0] - density[1]
        square = 1 + Decimal(a) * density[0] - (Decimal(b) * density[1] if b < inf else 0)
        return sign * float(mean), float(max(square - mean * mean, Decimal(0)).sqrt())

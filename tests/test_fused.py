"""Tier 2: the multiply-add of each level, and of the reference, is rounded once. ``tests/evidence/fused.py`` compares
the emulated one with the C library's on 10^9 triples; here the exact rational number decides, on hard ones."""

from fractions import Fraction

import numpy as np
import pytest
import reference

F32 = np.float32
TRIPLES = 4000  # of each kind


def rounded(x: Fraction) -> float:
    """The float32 nearest to a rational number, ties to even."""
    if not x:
        return 0.0
    exponent = max(abs(x).numerator.bit_length() - abs(x).denominator.bit_length(), -126)
    if abs(x) < Fraction(2) ** exponent:
        exponent = max(exponent - 1, -126)
    place = Fraction(2) ** (exponent - 23)
    return float(round(x / place) * place)  # round() of a Fraction takes ties to even


def numbers(rng, low, high, digits=23):
    """float32s with exponents from low to high, of which only the first digits after the point may be set."""
    words = rng.integers(0, 1 << 23, TRIPLES, dtype=np.uint32) & np.uint32(0x7FFFFF & ~(0x7FFFFF >> digits))
    signs = rng.integers(0, 2, TRIPLES, dtype=np.uint32) << np.uint32(31)
    exponents = rng.integers(low + 127, high + 128, TRIPLES, dtype=np.uint32) << np.uint32(23)
    return (signs | exponents | words).view(F32)


def ordinary(rng):
    return numbers(rng, -30, 30), numbers(rng, -30, 30), numbers(rng, -60, 60)


def cancelling(rng):
    """c lies some places beside -a * b."""
    a, b = numbers(rng, -30, 30), numbers(rng, -30, 30)
    return a, b, ((-a * b).view(np.int32) + rng.integers(-4, 5, TRIPLES, dtype=np.int32)).view(F32)


def halfway(rng):
    """The product is half of the last place of c, but for 2^-46 of it: a sum in float64 that is rounded again errs."""
    c = numbers(rng, -20, 20)
    j = rng.integers(0, 5, TRIPLES).astype(F32) * F32(2**-23)
    half = np.ldexp(F32(1), np.frexp(c)[1] - 25) * rng.choice(np.array([-1, 1], F32), TRIPLES)
    return F32(1) + j, half * np.where(rng.random(TRIPLES) < 0.5, F32(1) - j, F32(1) + j), c


def halfway_products(rng):
    """A product of 25 digits, and a c far below it."""
    a, b = ((numbers(rng, -10, 10, 12).view(np.uint32) | np.uint32(1 << 11)).view(F32) for _ in range(2))
    return a, b, numbers(rng, -126, -40)


def subnormal(rng):
    return numbers(rng, -100, -40), numbers(rng, -100, -50), numbers(rng, -126, -123)


def boundaries(rng):
    """c is a power of 2 or next to one."""
    c = (numbers(rng, -15, 15, 0).view(np.uint32) + rng.integers(-2, 3, TRIPLES).astype(np.uint32)).view(F32)
    return numbers(rng, -27, 3), numbers(rng, -47, 3), c


KINDS = (ordinary, cancelling, halfway, halfway_products, subnormal, boundaries)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_rounded_once(level, kind):
    a, b, c = (np.ascontiguousarray(x, F32) for x in kind(np.random.default_rng(24)))
    exact = [Fraction(float(x)) * Fraction(float(y)) + Fraction(float(z)) for x, y, z in zip(a, b, c, strict=True)]
    want = np.array([rounded(x) for x in exact], F32)
    got = np.empty_like(want)
    level.fused_all(a.ctypes.data, b.ctypes.data, c.ctypes.data, got.ctypes.data, len(got))
    assert (got == want).all()
    assert (reference.fused(a, b, c) == want).all()


def test_the_hard_ones_are_hard():
    """Each kind of halfway case has hundreds of triples on which an ordinary float64 sum, rounded again, is wrong."""
    for kind in (halfway, halfway_products):
        a, b, c = kind(np.random.default_rng(24))
        twice = (a.astype(float) * b + c).astype(F32)
        assert np.count_nonzero(twice != reference.fused(a, b, c)) > 300

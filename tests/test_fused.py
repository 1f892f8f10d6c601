"""Tier 2: the multiply-add of each level, and of the reference, is rounded once, and the maps fuse each step that they
should. ``tests/evidence/fused.py`` compares the emulated multiply-add with the C library's on 10^9 triples; here the
exact rational number decides, on hard ones.

``vectors/fused_words.json`` has words, found by enumeration, whose values change if one fused step of a map becomes a
product and a sum: most such changes show in less than one word of a million.
"""

import json
from fractions import Fraction
from math import inf
from pathlib import Path

import numpy as np
import pytest
import reference
from support import draw_of

from xavierfast._core.distributions import Normal, TruncatedNormal, UniformRange

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


TELLING = {
    name: np.array(words, np.uint32)
    for name, words in json.loads((Path(__file__).parent / "vectors/fused_words.json").read_text()).items()
}


def tiles_of(*columns):
    """Words as whole tiles: of one column 256 each, of two, which go together, 128 and 128."""
    size = 256 // len(columns)
    columns = [np.resize(words, -(-len(words) // size) * size).reshape(-1, size) for words in columns]
    return np.ascontiguousarray(np.concatenate(columns, axis=1))


ANY = np.random.default_rng(7).integers(0, 2**32, 20_480, dtype=np.uint32)
MAPS = {
    "normal": (Normal(0.0, 1.0), tiles_of(*(x.ravel() for x in np.meshgrid(TELLING["radius"], TELLING["angle"])))),
    "normal about 0.37": (Normal(0.37, 0.02), tiles_of(ANY)),
    "truncated at 2": (TruncatedNormal(0.0, 1.0, -2.0, 2.0), tiles_of(TELLING["2sigma"])),
    "truncated at 2 about 0.37": (TruncatedNormal(0.37, 0.02, -2.0, 2.0), tiles_of(ANY)),
    "truncated at 3": (TruncatedNormal(0.0, 1.0, -3.0, 3.0), tiles_of(TELLING["symmetric"])),
    "truncated at 3 about 0.37": (TruncatedNormal(0.37, 0.02, -3.0, 3.0), tiles_of(ANY)),
    "not truncated": (TruncatedNormal(0.0, 1.0, -inf, inf), tiles_of(np.r_[TELLING["radius"], TELLING["symmetric"]])),
    "range": (UniformRange(0.1, 1.3), tiles_of(ANY)),
}
# The logarithm ends in a product of an integer, which is exact for the few binades that bounds of 3 leave; the first
# step of a denominator multiplies by 1.
EXACT = {"normal": {15, 16}, "truncated at 2": {6, 11}, "truncated at 3": {10, 16, 22}}


def mapped(name):
    """The reference's values of the words of a map."""
    distribution, words = MAPS[name]
    kernel, _, p = draw_of(distribution, "float32")
    maps = {
        reference.RANGE: reference.range32, reference.NORMAL: reference.normal32,
        reference.TRUNCATED_2SIGMA: reference.truncated32, reference.TRUNCATED_SYMMETRIC: reference.wide32,
    }  # fmt: skip
    return maps[kernel](words, p)


@pytest.mark.parametrize("name", MAPS)
def test_telling_words(level, name):
    distribution, words = MAPS[name]
    kernel, code, p = draw_of(distribution, "float32")
    out = np.empty(words.shape, F32)
    level.values(kernel, code, p, words.ctypes.data, out.ctypes.data, len(words))
    assert (out == mapped(name)).all()


@pytest.mark.parametrize("name", ["normal", "truncated at 2", "truncated at 3"])
def test_each_fused_step_tells(monkeypatch, name):
    """With a product and a sum for any one fused step the words of the map, or of its map about 0.37, change."""
    real, step, unfused = reference.fused, 0, -1

    def one_unfused(a, b, c):
        nonlocal step
        step += 1
        return (np.multiply(a, b, dtype=F32) + F32(c)).astype(F32) if step - 1 == unfused else real(a, b, c)

    monkeypatch.setattr(reference, "fused", one_unfused)
    want = mapped(name)
    silent = set()
    for unfused in range(count := step):
        step = 0
        if (mapped(name) == want).all():
            silent.add(unfused)
    assert silent == EXACT[name], f"of {count} steps"
    moved = f"{name} about 0.37"
    want = mapped(moved)
    for unfused in range(count - (2 if name == "normal" else 1), count):
        step = 0
        assert (mapped(moved) != want).any(), unfused

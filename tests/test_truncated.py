"""The inverse distribution function of truncated normals beside mpmath at 60 digits, from the words themselves."""

from fractions import Fraction
from math import inf, isfinite
from random import Random

import mpmath
import numpy as np
import pytest
from support import draw_of

import xavierfast as xf
from xavierfast import kernels
from xavierfast._core.distributions import TruncatedNormal

BOUNDS = [
    (-2.0, 2.0), (-0.5, 0.5), (-1e-3, 1e-3), (-3.0, 3.0), (-6.0, 6.0), (-100.0, 100.0), (-inf, inf),
    (-1.0, inf), (-inf, 0.25), (0.0, inf), (0.0, 1.0), (1.0, 1.001), (1.4, 1.6), (-2.0, 5.0), (-7.0, -1.0),
    (-1.6, -1.5),
    (6.0, inf), (-inf, -6.0), (6.0, 6.5), (8.0, 9.0), (-40.0, -39.9), (37.0, inf), (60.0, inf), (1000.0, inf),
]  # fmt: skip
# The ends of the range of the odd signed numbers, the middle, where branches meet, and anything.
rng = np.random.default_rng(0)
WORDS = np.concatenate(
    [
        [1, 3, 2**31 - 1, 2**31 - 3, 2**31, 2**31 + 2, 2**32 - 1, 2**32 - 3, 2**30, 3 * 2**30],
        (np.arange(1, 40) * 2**32 // 40),
        rng.integers(0, 2**32, 79),
    ]
).astype(np.uint32)
assert len(WORDS) == 128


def ln_upper_tail(x):
    """ln Q(x); beyond 1e4 by the asymptotic series, which mpmath's erfc cannot reach."""
    if x == mpmath.inf:
        return -mpmath.inf
    if x > 1e4:
        return -x * x / 2 - mpmath.log(x * mpmath.sqrt(2 * mpmath.pi)) + mpmath.log(1 - 1 / x**2 + 3 / x**4)
    return mpmath.log(mpmath.erfc(x / mpmath.sqrt(2)) / 2)


def exact(v, low, high):
    """The x in (low, high) below which lies the share v of the truncated mass, by bisection and Newton steps."""
    if abs(low) > abs(high):  # work where tails are upper ones
        return -exact(1 - v, -high, -low)
    tail_low, tail_high = (
        mpmath.exp(ln_upper_tail(mpmath.mpf(end))) if abs(end) < inf else mpmath.mpf(end < 0) for end in (low, high)
    )
    target = mpmath.log(tail_low) + mpmath.log1p(-v * (1 - tail_high / tail_low))
    a = max(mpmath.mpf(low) if low > -inf else mpmath.mpf(-40), mpmath.mpf(-40))
    b = mpmath.mpf(high) if high < inf else max(a, mpmath.mpf(0)) + 40
    for _ in range(60):
        x = (a + b) / 2
        a, b = (x, b) if ln_upper_tail(x) > target else (a, x)
    x = (a + b) / 2
    for _ in range(6):
        tail = ln_upper_tail(x)
        x += (tail - target) / mpmath.exp(-x * x / 2 - mpmath.log(2 * mpmath.pi) / 2 - tail)
    return x


def values(bounds, dtype, words):
    kernel, code, p = draw_of(TruncatedNormal(0.0, 1.0, *bounds), dtype)
    out = np.zeros(len(words) // (2 if dtype == "float64" else 1), dtype)
    kernels.values(kernel, code, p, words.ctypes.data, out.ctypes.data, len(words) // 256)
    return out


@pytest.mark.parametrize("bounds", BOUNDS, ids=str)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_against_mpmath(bounds, dtype):
    if dtype == "float32":
        words = np.tile(WORDS, 2)
        draws, bits = [int(x) | 1 for x in WORDS.view(np.int32)], 31
    else:
        words = np.concatenate([WORDS, WORDS[::-1]])
        high, low = words[:128].view(np.int32).tolist(), words[128:].tolist()
        draws, bits = [(a << 31) + (b >> 1 | 1) for a, b in zip(high, low, strict=True)], 62
    got = values(bounds, dtype, words)[:128]
    assert (got >= bounds[0]).all()
    assert (got <= bounds[1]).all()
    # float32: some units of the last place, from float32 arithmetic where the bounds are symmetric. float64: too, and
    # 4e-16, since a share of the mass near 1/2 is known to 2^-53.
    relative, absolute = (6e-7, 0) if dtype == "float32" else (5e-15, 4e-16)
    with mpmath.workdps(60):
        for value, n in zip(got.tolist(), draws, strict=True):
            x = exact((n + 2**bits) * mpmath.mpf(2) ** (-bits - 1), *bounds)
            assert abs(value - x) <= relative * abs(x) + absolute, (n, float(x), value)


@pytest.mark.parametrize("bounds", [b for b in BOUNDS if b[0] == -b[1]], ids=str)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_symmetric(bounds, dtype):
    """The word -x gives the value -y: the mean is 0 by construction."""
    words = np.tile(WORDS, 2)
    mirrored = ~words  # int32(~w) | 1 is -(int32(w) | 1)
    assert (values(bounds, dtype, words) == -values(bounds, dtype, mirrored)).all()


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float8_e4m3fn", "float32"])
@pytest.mark.parametrize(("low", "high"), [(0.3325, 0.72), (-0.72, -0.3325), (-0.72, 0.3325), (-0.3325, 0.72)])
def test_bounds_between_two_numbers(ml_dtypes, dtype, low, high):
    """The outermost numbers of a dtype within the bounds are drawn, and none beyond them."""
    x = xf.truncated_normal(50_000, low=low, high=high, seed=0, dtype=dtype)
    if dtype == "float32":
        assert low <= float(x.min()) < low + 1e-4 and high - 1e-4 < float(x.max()) <= high
        return
    with np.errstate(invalid="ignore"):  # of NaN
        numbers = np.arange(1 << 8 * x.itemsize, dtype=f"u{x.itemsize}").view(x.dtype).astype(np.float64)
    within = numbers[(low <= numbers) & (numbers <= high)]
    assert (float(x.min()), float(x.max())) == (within.min(), within.max())


def test_masses_of_nearly_one():
    """1 - Q(7) - Q(6.5) differs from 1 by 4e-11."""
    mass = 1 - mpmath.ncdf(-7) - mpmath.ncdf(-6.5)
    for low, high in ((-7, 6.5), (-6.5, 7)):
        density = xf.Table(3, "truncated_normal", low=low, high=high).density(0.0)
        assert density == pytest.approx(float(mpmath.npdf(0) / mass), rel=1e-14)


def magnitude(random, first, last):
    return random.choice([1, -1]) * 10 ** random.uniform(first, last)


def test_parameters_of_any_magnitude_give_values_within_the_bounds_or_an_error():
    """Standard deviations, means and bounds from 10^-320 to 10^308: never NaN, and nothing beyond a bound."""
    random, drawn = Random(5), 0
    for _ in range(1500):
        std = random.choice([1.0, abs(magnitude(random, -320, 308)), abs(magnitude(random, -10, 5))])
        mean = random.choice([0.0, 0.0, magnitude(random, -320, 308), magnitude(random, -5, 5)])
        low = random.choice([magnitude(random, -320, 308), magnitude(random, -5, 5), magnitude(random, 150, 160)])
        others = [inf, -low, low + abs(magnitude(random, -16, 3)), low * (1 + 10 ** random.uniform(-16, 0))]
        low, high = sorted((low, random.choice(others)))
        dtype = random.choice(["float32", "float64", "float16", "bfloat16"])
        parameters = {"mean": mean, "std": std, "low": low, "high": high}
        try:
            values = np.asarray(xf.truncated_normal(600, **parameters, dtype=dtype, seed=1)).astype(float)
        except ValueError:
            continue
        drawn += 1
        assert np.isfinite(values).all(), (dtype, parameters)
        ends = [Fraction(mean) + Fraction(end) * Fraction(std) if isfinite(end) else end for end in (low, high)]
        assert ends[0] <= Fraction(values.min()) and Fraction(values.max()) <= ends[1], (dtype, parameters)
    assert drawn > 400


@pytest.mark.parametrize("low", [1.1e154, 1e155, 1e300])
def test_tails_whose_density_no_float_holds_are_refused(low):
    for ends in ((low, 2 * low), (low, inf), (-2 * low, -low), (-inf, -low)):
        with pytest.raises(ValueError, match=r"must not both lie beyond 1e\+154 on one side of the mean"):
            xf.truncated_normal(3, low=ends[0], high=ends[1], dtype="float64")
    assert (xf.truncated_normal(3, low=1e154, high=inf, dtype="float64", seed=0) == 1e154).all()
    with pytest.raises(ValueError, match="the mean must lie within the range of float16, "):
        xf.normal(3, mean=1e5, dtype="float16")

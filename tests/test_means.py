"""A middle: means, ranges, and what their bounds promise, in each dtype and from each way to ask for them."""

import json
from fractions import Fraction
from math import inf, nextafter, sqrt

import numpy as np
import pytest
from scipy import stats
from support import draw_of

import xavierfast as xf
from xavierfast import kernels
from xavierfast._core import distributions, rules
from xavierfast._core.distributions import UniformRange
from xavierfast._core.dtypes import DTYPES as ALL

DTYPES = (
    "float32", "float64", "float16", "bfloat16", "float8_e4m3fn", "float8_e5m2", "float8_e4m3b11fnuz", "float6_e2m3fn",
    "float4_e2m1fn",
)  # fmt: skip
RANGES = [(0.0, 1.0), (-1.0, 1.0), (0.0, 0.3), (-0.3, 0.0), (-3.0, 0.7), (0.5, 2.0), (0.1, 0.9)]
# The first and the last odd numbers, whose float32s are -2^31 and 2^31, and all that round to these.
ENDS = np.concatenate([np.arange(-(2**31), -(2**31) + 64), np.arange(2**31 - 64, 2**31)]).astype(np.int64)


def from_words(distribution, words, dtype):
    """The values that a distribution's map makes of words, which fill one tile."""
    kernel, code, p = draw_of(distribution, dtype)
    words = np.ascontiguousarray(words, np.int64).astype(np.uint32)
    assert words.size == 256
    raw = {kernels.FLOAT64: np.float64, kernels.FLOAT16: np.float16, kernels.BFLOAT16: np.uint16}
    out = np.zeros(128 if code == kernels.FLOAT64 else 256, raw.get(code, np.float32))
    kernels.values(kernel, code, p, words.ctypes.data, out.ctypes.data, 1)
    if ALL[dtype].is_small:
        out = out.astype(ALL[dtype].storage)
    return out.view(ALL[dtype].storage).astype(float)


def numbers(dtype):
    """All finite numbers of a dtype of at most 16 bits."""
    kind = ALL[dtype].storage
    bits = np.arange(1 << min(8 * kind.itemsize, 16), dtype=f"u{kind.itemsize}")
    with np.errstate(invalid="ignore"):
        values = np.unique(bits.view(kind).astype(float))
    return values[np.isfinite(values)]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("low", "high"), RANGES)
def test_a_range_is_half_open(ml_dtypes, dtype, low, high):
    """The outermost words give the first and the last number of the dtype in [low, high), and never high."""
    if dtype in ("float32", "float64"):
        first, last = np.dtype(dtype).type(low), np.dtype(dtype).type(high)
        first = first if float(first) >= low else np.nextafter(first, np.dtype(dtype).type(inf))
        last = np.nextafter(last, np.dtype(dtype).type(-inf))
        if float(last) >= high:
            last = np.nextafter(last, np.dtype(dtype).type(-inf))
    else:
        inside = numbers(dtype)
        inside = inside[(low <= inside) & (inside < high)]
        if not inside.size:
            with pytest.raises(ValueError, match=f"no {dtype} lies from low to below high"):
                xf.uniform(3, low=low, high=high, dtype=dtype)
            return
        inside = inside[: max(1, np.count_nonzero(inside < float(np.asarray(high).astype(ALL[dtype].storage))))]
        first, last = inside[0], inside[-1]
    more = ENDS if dtype != "float64" else np.where(ENDS < 0, 0, -1)  # the lower half of 62 bits
    values = from_words(UniformRange(low, high), np.concatenate([ENDS, more]), dtype)
    # The ends themselves, but for a middle and a width that are rounded to float32.
    near = 1e-15 if dtype == "float64" else 4e-7
    assert low <= values.min() <= first + near and last - near <= values.max() < high
    drawn = xf.uniform(200_000, low=low, high=high, dtype=dtype, seed=1)
    assert low <= drawn.astype(float).min() and drawn.astype(float).max() < high
    assert (drawn != np.asarray(high).astype(drawn.dtype)).all() or len(np.unique(drawn)) == 1


def test_one_is_never_drawn():
    """Of 10^7 float32 from 0 to 1 a draw that is only scaled and shifted is 1.0 once or twice."""
    values = xf.uniform(10_000_000, low=0, high=1, seed=0)
    assert values.max() == np.float32(1) - np.float32(2**-24) and values.min() >= 0
    raw = xf.uniform(10_000_000, bound=0.5, seed=0).astype(float) + 0.5
    assert (raw.astype(np.float32) == 1).any()


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "bfloat16", "float8_e5m2"])
@pytest.mark.parametrize("bound", [1.0, 0.05, 3.7])
def test_a_range_about_0_is_a_bound_without_its_upper_end(ml_dtypes, dtype, bound):
    ranged = xf.uniform(100_000, low=-bound, high=bound, seed=3, dtype=dtype).astype(float)
    bounded = xf.uniform(100_000, bound=bound, seed=3, dtype=dtype).astype(float)
    differ = ranged != bounded
    assert (bounded[differ] == bounded.max()).all() and (ranged[differ] < bound).all()


def test_high_as_the_dtype_has_it_is_no_value():
    """NumPy compares float32s with a float as float32s, in which 100.001 is less than it is."""
    values = xf.uniform(100_000, low=100, high=100.001, seed=0)
    assert (values < np.float32(100.001)).all() and (values < 100.001).all() and (values >= 100).all()
    values = xf.uniform(100_000, low=0.1, high=0.9, seed=0)
    assert (values < 0.9).all() and (values >= 0.1).all()


def test_degenerate_ranges(ml_dtypes):
    assert (xf.uniform(5, low=0.25, high=0.25) == 0.25).all()
    assert (xf.uniform(5, low=2.0, high=nextafter(2.0, 3.0)) == 2).all()  # holds one float32
    assert (xf.uniform(5, low=1.0, high=1.0000001) == 1).all()
    assert xf.Table(5, "uniform", low=0.25, high=0.25).std == 0
    wide = xf.uniform(100_000, low=-3.4e38, high=3.4e38, seed=0)
    assert np.isfinite(wide).all() and -3.4e38 <= wide.min() < -3.39e38 and 3.39e38 < wide.max() < 3.4e38
    wide = xf.uniform(100_000, low=-1.7e308, high=1.7e308, seed=0, dtype="float64")
    assert np.isfinite(wide).all() and wide.min() < -1.69e308 and 1.69e308 < wide.max() < 1.7e308


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "bfloat16"])
@pytest.mark.parametrize(
    ("init", "keywords", "law"),
    [
        ("uniform", {"low": -3.0, "high": 0.7}, stats.uniform(-3, 3.7)),
        ("normal", {"mean": 0.75, "std": 0.5}, stats.norm(0.75, 0.5)),
        ("truncated_normal", {"mean": -0.3, "std": 2.0}, stats.truncnorm(-2, 2, -0.3, 2)),
        ("truncated_normal", {"mean": 1.5, "std": 0.5, "low": -3.0, "high": 3.0}, stats.truncnorm(-3, 3, 1.5, 0.5)),
        ("truncated_normal", {"mean": 1.5, "std": 0.5, "low": -1.0, "high": 2.5}, stats.truncnorm(-1, 2.5, 1.5, 0.5)),
        ("truncated_normal", {"mean": 1.0, "low": 0.0, "high": inf}, stats.truncnorm(0, inf, 1, 1)),
        ("truncated_normal", {"mean": 1.0, "low": -inf, "high": -2.0}, stats.truncnorm(-inf, -2, 1, 1)),
    ],
    ids=lambda value: value.dist.name if hasattr(value, "dist") else str(value),
)
def test_distributions(ml_dtypes, init, keywords, law, dtype):
    """Moments of 10^6 draws within 4.5 standard errors, which one seed in 10^5 exceeds; all that the Table says."""
    table = xf.Table(1_000_000, init, seed=2010, name="means", dtype=dtype, **keywords)
    mean, variance, kurtosis = (float(x) for x in law.stats("mvk"))
    assert table.mean == pytest.approx(mean, rel=1e-12)
    assert table.std == pytest.approx(sqrt(variance), rel=1e-12)
    assert table.support == pytest.approx(law.support(), rel=1e-12)
    x = np.linspace(mean - 3 * table.std, mean + 3 * table.std, 11)
    assert table.density(x) == pytest.approx(law.pdf(x), rel=1e-9)
    values = table[...].astype(float)
    assert law.support()[0] <= values.min() and values.max() <= law.support()[1]
    # 16-bit numbers: a rounding of relative 2^-9 or 2^-12 that is even on both sides, and its variance.
    place = {"bfloat16": 2.0**-8, "float16": 2.0**-11}.get(dtype, 0.0) * (abs(mean) + table.std)
    assert abs(values.mean() - mean) < 4.5 * sqrt(variance / len(values)) + 0.02 * place
    noise = 4.5 * variance * sqrt((kurtosis + 2) / len(values))
    assert abs(values.var() - variance) < noise + place**2
    if dtype in ("float32", "float64"):
        assert stats.kstest(values, law.cdf).pvalue > 1e-5


def test_a_mean_is_added_before_the_rounding():
    """Each value is the float32 nearest to radius * cosine + mean, which an addition afterwards does not give."""
    about = xf.normal(100_000, mean=0.3, std=0.02, seed=5)
    added = xf.normal(100_000, std=0.02, seed=5) + np.float32(0.3)
    assert 0.01 < (about != added).mean() < 0.5
    assert abs(about - added).max() <= 2**-25
    assert (xf.normal(1000, mean=0.0, seed=5) == xf.normal(1000, seed=5)).all()


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "bfloat16"])
@pytest.mark.parametrize("ends", [(-2.0, 2.0), (-2.5, 2.5), (-0.1, 1.7), (3.0, inf)])
def test_bounds_about_a_mean_are_kept(ml_dtypes, dtype, ends):
    mean, std = 0.337, 0.0431
    low, high = (Fraction(mean) + Fraction(std) * Fraction(end) if abs(end) < inf else end for end in ends)
    keywords = {"mean": mean, "std": std, "low": ends[0], "high": ends[1]}
    values = xf.truncated_normal(200_000, **keywords, dtype=dtype, seed=0).astype(float)
    assert low <= Fraction(values.min()) and (high == inf or Fraction(values.max()) <= high)


CALLS = [
    ("uniform", {"low": 0, "high": 1}, {"low": 0.0, "high": 1.0}),
    ("uniform", {}, {"bound": 1.0}),
    ("uniform", {"bound": 0.25}, {"bound": 0.25}),
    ("normal", {"mean": -2}, {"mean": -2.0, "std": 1.0}),
    ("truncated_normal", {"mean": 0.5, "high": inf}, {"mean": 0.5, "std": 1.0, "low": -2.0, "high": "inf"}),
]


@pytest.mark.parametrize(("init", "keywords", "written"), CALLS)
def test_recipes(init, keywords, written):
    table = xf.Table((30, 40), init, seed=7, **keywords)
    recipe = json.loads(json.dumps(table.recipe))
    assert recipe["parameters"] == written
    again = xf.Table.from_recipe(recipe)
    assert again == table and (again[...] == table[...]).all() and eval(repr(table), {"Table": xf.Table}) == table


def test_recipes_without_a_mean_mean_what_they_did():
    """Recipes from before there were means and ranges."""
    cut = {"std": 0.5, "low": -1.0, "high": 2.0}
    for init, before in (("uniform", {"bound": 0.5}), ("normal", {"std": 0.5}), ("truncated_normal", cut)):
        table = xf.Table(100, init, seed=7, **before)
        recipe = {**table.recipe, "parameters": before}
        assert xf.Table.from_recipe(recipe) == table
        assert (xf.Table.from_recipe(recipe)[...] == getattr(xf, init)(100, seed=7, **before)).all()


def test_rules_and_specs():
    rules = {"gate": {"init": "uniform", "low": 0, "high": 1}, "scale": {"init": "normal", "mean": 1.0, "std": 0.02}}
    made = xf.init({"gate": (8, 8), "scale": 64}, rules, seed=0)
    assert (made["gate"] == xf.uniform((8, 8), low=0, high=1, seed=0, name="gate")).all()
    assert (made["scale"] == xf.normal(64, mean=1, std=0.02, seed=0, name="scale")).all()


def test_describe_says_the_mean():
    assert "mean        0.5\n" in xf.Table(9, "uniform", low=0, high=1, seed=0).describe()
    assert "mean" not in xf.Table(9, "normal", seed=0).describe()


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: xf.uniform(3, low=0), TypeError, "bound, or low and high, got low=0$"),
        (lambda: xf.uniform(3, high=1), TypeError, "bound, or low and high"),
        (lambda: xf.uniform(3, bound=1.0, low=0, high=1), TypeError, "bound, or low and high, got bound=1.0"),
        (lambda: xf.uniform(3, low=1, high=0), ValueError, "low must be at most high, got low=1 and high=0"),
        (lambda: xf.uniform(3, low=-inf, high=0), ValueError, "low must be finite, got -inf"),
        (lambda: xf.uniform(3, low=0, high=float("nan")), ValueError, "high must be finite, got nan"),
        (lambda: xf.uniform(3, low="0", high=1), TypeError, "low must be a number, got '0'"),
        (lambda: xf.uniform(3, low=0, high=1, dtype="complex64"), ValueError, "complex values have the mean 0"),
        (lambda: xf.uniform(3, low=0, high=1e39), ValueError, "low and high must lie within the range of float32"),
        (lambda: xf.uniform(3, low=0, high=1e-30), ValueError, "high - low must be 0 or at least .* to underflow"),
        (
            lambda: xf.uniform(3, low=1.00000001, high=1.00000002),
            ValueError,
            "no float32 lies from low to below high, 1.00000001 and 1.00000002",
        ),
        (lambda: xf.normal(3, mean=inf), ValueError, "mean must be finite, got inf"),
        (lambda: xf.normal(3, mean=1, dtype="complex64"), ValueError, "complex values have the mean 0"),
        (lambda: xf.normal(3, mean=60000, std=1000, dtype="float16"), ValueError, "beside the mean 60000 for float16"),
        (lambda: xf.truncated_normal(3, mean="1"), TypeError, "mean must be a number, got '1'"),
        (lambda: xf.truncated_normal(3, mean=1, dtype="complex128"), ValueError, "complex values have the mean 0"),
        (
            lambda: xf.truncated_normal(3, mean=1.0, std=1e-9, low=1, high=2),
            ValueError,
            r"no float32 lies between mean \+ low \* std and mean \+ high \* std",
        ),
    ],
)
def test_refused(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_a_standard_deviation_of_0_is_the_mean():
    assert (xf.normal(3, mean=2.5, std=0) == 2.5).all()
    assert (xf.truncated_normal(3, mean=2.5, std=0) == 2.5).all()
    table = xf.Table(3, "normal", mean=2.5, std=0)
    assert (table.mean, table.std, table.bound) == (2.5, 0.0, 2.5)


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_sign_of_zero(sign):
    """A degenerate distribution about 0 gives +0, whichever zero an earlier call had: to the caches they are equal."""
    distributions._draw.cache_clear()
    rules._cached.cache_clear()
    for zero in (sign * 0.0, -sign * 0.0):
        for values in (
            xf.normal(2, mean=zero, std=0, seed=0),
            xf.truncated_normal(2, mean=zero, std=0, seed=0),
            xf.uniform(2, low=zero, high=0.0, seed=0),
            xf.uniform(2, low=zero, high=1e-46, seed=0),
        ):
            assert values.tobytes() == bytes(8)
        assert np.signbit(xf.constant(1, value=zero)) == (np.copysign(1, zero) < 0)

"""Tier 6: statistics with fixed seeds, so that they never flake; each fails by chance for one seed in 10^5 or fewer.

The exact moments and tails of the float32 maps are enumerated by benches/certificate.py; here the whole way from seeds
to values is looked at, with the dtypes and streams that an enumeration cannot reach.
"""

import numpy as np
import pytest
from scipy import stats

import xavierfast as xf

DTYPES = ("float32", "float64", "float16", "bfloat16")
N = 4_000_000
Z = 4.5  # standard errors: two-sided 7e-6
P = 1e-5


def numbers(kind, dtype="float32", n=N, **keywords):
    return getattr(xf, kind)(n, dtype=dtype, **{"seed": 2010, "name": "statistics", **keywords}).astype(float)


TRUNCATED = stats.truncnorm(-2, 2)
IDEAL = {
    "uniform": (1 / 3, 9 / 5, stats.uniform(-1, 2)),
    "normal": (1.0, 3.0, stats.norm()),
    "truncated_normal": (TRUNCATED.var(), 3 + float(TRUNCATED.stats("k")), TRUNCATED),
}
EIGHTH = {"uniform": 1 / 9, "normal": 105.0, "truncated_normal": TRUNCATED.moment(8)}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", IDEAL)
def test_moments(ml_dtypes, name, dtype):
    x = numbers(name, dtype)
    variance, kurtosis, law = IDEAL[name]
    fourth = kurtosis * variance**2
    # Rounding to 8 bits adds a variance of at most 2^-18 x^2 and, at the clamp, less: below the noise of n = 4e6.
    assert abs(x.mean()) < Z * np.sqrt(variance / N)
    assert abs((x**2).mean() - variance) < Z * np.sqrt((fourth - variance**2) / N) + 2e-5 * variance
    assert abs((x**3).mean()) < Z * np.sqrt(law.moment(6) / N)
    assert abs((x**4).mean() - fourth) < Z * np.sqrt((EIGHTH[name] - fourth**2) / N) + 1e-4 * fourth


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", IDEAL)
def test_kolmogorov_smirnov(name, dtype):
    assert stats.kstest(numbers(name, dtype), IDEAL[name][2].cdf).pvalue > P


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("name", IDEAL)
def test_lattice(ml_dtypes, name, dtype):
    """Chi-squared of the 16-bit values against the mass of the interval that rounds to each, in cells of >= 1000."""
    values, counts = np.unique(numbers(name, dtype), return_counts=True)
    kind = np.dtype("float16") if dtype == "float16" else np.dtype(ml_dtypes.bfloat16)
    middles = (values[1:] + values[:-1]) / 2
    # Neighbours on the lattice of the dtype: where one is missing among the values, its cell joins the next.
    assert np.all(values == values.astype(kind).astype(float))
    mass = np.diff(np.concatenate([[0], IDEAL[name][2].cdf(middles), [1]]))
    cells = np.concatenate([[0], np.flatnonzero(np.diff(np.floor(np.cumsum(mass) * N / 1000))) + 1])
    observed, expected = np.add.reduceat(counts, cells), np.add.reduceat(mass, cells) * N
    assert len(cells) > 100
    # Cell edges lie between values that occur; gaps of the lattice at the far ends hold less than one cell.
    assert stats.chi2.sf(((observed - expected) ** 2 / expected).sum(), len(cells) - 1) > P


def test_tails():
    """Counts beyond 3, 4 and 5 sigma, both sides, are Poisson; 2^26 draws."""
    n = 1 << 26
    x = xf.normal(n, seed=5)
    for sigma in (3, 4, 5):
        want = n * stats.norm.sf(sigma)
        for count in ((x > sigma).sum(), (x < -sigma).sum()):
            assert stats.poisson.sf(count - 1, want) > P
            assert stats.poisson.cdf(count, want) > P
    assert 5 < abs(x).max() < 6.67


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("lag", [1, 2, 15, 16, 17, 63, 64, 65, 127, 128, 129, 255, 256, 257, 4096])
def test_lags(dtype, lag):
    """Neither values nor their squares (Box and Muller's pairs share a radius) are correlated."""
    x = numbers("normal", dtype)
    for y in (x, (x**2 - 1) / np.sqrt(2)):
        assert abs((y[lag:] * y[:-lag]).mean()) < Z / np.sqrt(N - lag)


def test_pairs():
    """The two of a pair, which share radius and angle words, are independent: chi-squared on a 32 x 32 table."""
    x = stats.norm.cdf(numbers("normal").reshape(-1, 2, 128))
    table, _, _ = np.histogram2d(x[:, 0].ravel(), x[:, 1].ravel(), bins=32, range=[[0, 1], [0, 1]])
    expected = N / 2 / 1024
    assert stats.chi2.sf(((table - expected) ** 2 / expected).sum(), 1023) > P


STREAMS = [
    ({"seed": 0}, {"seed": 1}),
    ({"seed": 1}, {"seed": 2}),
    ({"seed": 0}, {"seed": 1 << 64}),
    ({"seed": [0]}, {"seed": [0, 0]}),
    ({"name": "layer.0"}, {"name": "layer.1"}),
    ({"name": ""}, {"name": "\0"}),
    ({"seed": 1, "name": "2"}, {"seed": 2, "name": "1"}),
]


@pytest.mark.parametrize("pair", STREAMS, ids=str)
@pytest.mark.parametrize("kind", IDEAL)
def test_neighbouring_streams(kind, pair):
    x, y = (numbers(kind, n=1_000_000, **keywords) for keywords in pair)
    variance = IDEAL[kind][0]
    for lag in (0, 1, 16, 128, 256):
        assert abs((x[lag:] * y[: len(y) - lag]).mean()) < Z * variance / np.sqrt(len(x) - lag)


def test_first_elements_over_seeds():
    """Element 0 over 20 000 neighbouring seeds is as uniform as elements of one stream."""
    x = np.array([xf.uniform(1, seed=seed)[0] for seed in range(20_000)])
    assert stats.kstest(x, stats.uniform(-1, 2).cdf).pvalue > P
    assert abs((x[1:] * x[:-1]).mean()) < Z / 3 / np.sqrt(len(x) - 1)


def test_bits():
    """Each of the 32 bits of the words is fair, and no two are correlated."""
    from xavierfast import kernels

    words = np.empty(1 << 21, np.uint32)
    kernels.fill(kernels.WORDS, kernels.UINT32, bytes(range(32)), (), words.ctypes.data, 0, words.size)
    bits = np.unpackbits(words.view(np.uint8).reshape(-1, 4), axis=1).astype(np.float32) * 2 - 1
    correlation = bits.T @ bits / len(bits)
    off = correlation[~np.eye(32, dtype=bool)]
    assert abs(bits.mean(0)).max() < 5 / np.sqrt(len(bits))  # 32 of them, 992 below: 5.5 sigma is 4e-5
    assert abs(off).max() < 5.5 / np.sqrt(len(bits))

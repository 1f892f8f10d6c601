"""Own statistics of very many values: ``python tests/evidence/streams.py [--uniforms N] [--normals N]``; with
``--uniforms 1e8 --normals 1e7`` in seconds. Needs a C compiler, for streams.c.

N float32 uniforms (10^11), N of each kind of normal (10^10) and a share of that of the other kinds are drawn into
buffers that a cache holds, on all cores, and compared with what is exact:

    moments      E (x - mu)^k, k = 1 .. 4
    ends         no value beyond the bounds, or beyond what the bits of a normal reach; the least and the greatest as
                 far out as those of so many values are, 8 units of the last place allowed
    histogram    chi-squared of cells of equal width
    exponents    chi-squared of the binary exponents below -1, with signs: small values, and so low bits
    low bytes    chi-squared of the last 8 bits of values from 1/4 on; not of float32 quantiles between -c and c, whose
                 float32 arithmetic reaches some neighbouring values from more words than others
    tails        values beyond 3, 4, 5, 5.5 and 6 sigma on each side: Poisson
    correlation  of values 1, 16, 64, 128 and 256 apart: neighbours, words of a block, Box and Muller's pairs of
                 float64 and of float32, tiles
    pairs        chi-squared of such pairs in 64 x 64 classes
    patterns     chi-squared of the counts of every value of a rounded dtype

A map from one word to one value has a lattice: the mass below x is a number of odd integers / 2^31 instead of the
distribution function F(x), which shows beyond 5.5 sigma, and next to 0. Both are exact here, and so is the rounding to
float32. Box and Muller's normals and float64 are compared with F: docs/certificate.md says how little they differ.

Neighbouring seeds and names are tested by drawing from each of many streams in turn: neighbours there are neighbours'.

All p-values are two-sided, the seed is fixed. Exit code 1 if one is below 10^-6 / their number (Bonferroni).
"""

import argparse
import ctypes
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from math import inf
from pathlib import Path
from typing import NamedTuple

import ml_dtypes
import numpy as np
from scipy import stats
from scipy.special import ndtr

from xavierfast import Table
from xavierfast._core.threads import default_threads

SEED = 2010
BUFFER, BUFFERS = 1 << 16, 64  # values that are counted at a time, and buffers of a piece of work
LAGS = np.array([1, 16, 64, 128, 256])
CLASSES, COPIES = 64, 4  # of streams.c
TAILS = (3.0, 4.0, 5.0, 5.5, 6.0)
REACH = {"float32": 6.6605, "float64": 9.36}  # of normals
SCALE = 0.999  # of rounded dtypes: a bound beyond which all of them would round
ROUNDED = ("float16", "bfloat16", "float8_e4m3fn", "float8_e5m2")
LEAST = 20  # expected values of a cell of a chi-squared test
DOUBT = 1e-6
UNABLE = 77


class Law(NamedTuple):
    """Uniform or normal with scale 1 between bounds; `words` of 32 bits make a value."""

    init: str
    low: float = -inf
    high: float = inf
    words: int = 1

    def table(self, size: int, dtype: str, seed: int = SEED, name: str = "", scale: float = 1.0) -> Table:
        bounds = {"low": self.low, "high": self.high} if self.init == "truncated_normal" else {}
        key = "bound" if self.init == "uniform" else "std"
        return Table(size, self.init, seed=seed, name=name, dtype=dtype, **{key: scale}, **bounds)

    def mass(self, x):
        """Below x."""
        x = np.clip(x, self.low, self.high)
        if self.init == "uniform":
            return (x + 1) / 2
        return (ndtr(x) - ndtr(self.low)) / (ndtr(self.high) - ndtr(self.low))

    def moment(self, k: int, centre: float = 0.0) -> float:
        ends = np.clip((self.low, self.high), -14, 14)
        x, weights = np.polynomial.legendre.leggauss(200)
        x, weights = ends.mean() + x * np.ptp(ends) / 2, weights * np.ptp(ends) / 2
        density = np.exp(-x * x / 2) / np.sqrt(2 * np.pi) / (ndtr(self.high) - ndtr(self.low))
        return float((weights * (x - centre) ** k * (0.5 if self.init == "uniform" else density)).sum())

    def below(self, edges, single: bool, scale: float = 1.0) -> np.ndarray:
        """The mass of values that are less than edges; `single` values are float32, or were."""
        if not single:
            return self.mass(np.asarray(edges) / scale)
        edges = np.asarray(edges, np.float32)
        # What rounds to an edge begins half way from the float32 before it, and just there if the edge is even.
        before = np.nextafter(edges, np.float32(-inf))
        mass = self.mass((edges.astype(float) + before) / 2 / scale)
        if self.words > 1:
            return mass
        # The odd integer 2 k + 1 - 2^31 stands for the mass (k + 1/2) / 2^31.
        place = mass * 2.0**31 - 0.5
        return np.where(edges.view(np.uint32) % 2, np.floor(place) + 1, np.ceil(place)) / 2.0**31


# ---- tests: p-values


def two_sided(p: float, q: float) -> float:
    return min(1.0, 2 * min(p, q))


def chi_squared(observed: np.ndarray, mass: np.ndarray) -> float:
    if observed[mass <= 0].any():
        return 0.0
    expected = observed.sum() * mass
    starts, sum_of_cell = [0], 0.0
    for k, value in enumerate(expected, 1):
        sum_of_cell += value
        if sum_of_cell >= LEAST:
            starts.append(k)
            sum_of_cell = 0.0
    starts.pop()  # the rest is too little for a cell, or nothing
    if len(starts) < 2:
        return 1.0
    observed, expected = np.add.reduceat(observed, starts), np.add.reduceat(expected, starts)
    x, freedom = ((observed - expected) ** 2 / expected).sum(), len(starts) - 1
    return two_sided(stats.chi2.sf(x, freedom), stats.chi2.cdf(x, freedom))


def poisson(observed: int, expected: float) -> float:
    return two_sided(stats.poisson.sf(observed - 1, expected), stats.poisson.cdf(observed, expected))


def z_test(z) -> list[float]:
    return [float(2 * stats.norm.sf(abs(x))) for x in z]


# ---- many values


def compiled(folder: str, dtype: str) -> ctypes.CDLL:
    library = str(Path(folder) / f"{dtype}.so")
    real, bits = {"float32": ("float", "uint32_t"), "float64": ("double", "uint64_t")}[dtype]
    source = str(Path(__file__).with_suffix(".c"))
    flags = ["-O3", "-march=native", "-fopenmp-simd", "-shared", "-fPIC", f"-DREAL={real}", f"-DBITS={bits}"]
    subprocess.run(["cc", *flags, source, "-o", library], check=True)
    return ctypes.CDLL(library)


def shared_out(count: int, work: Callable[[range], tuple]) -> list:
    """The sums, item by item, of what `work` gives for pieces of range(count), on all cores."""
    pieces = [range(first, min(first + BUFFERS, count)) for first in range(0, count, BUFFERS)]
    threads, total = default_threads(), None
    with ThreadPoolExecutor(threads) as pool:
        for k in range(0, len(pieces), 1024):  # the results of all of them would not fit in memory
            for items in pool.map(work, pieces[k : k + 1024]):
                total = items if total is None else [a + b for a, b in zip(total, items, strict=True)]
    return total


def pointer(array: np.ndarray) -> ctypes.c_void_p:
    return ctypes.c_void_p(array.ctypes.data)


def test_values(library: ctypes.CDLL, law: Law, dtype: str, draw: Callable, n: int, size: int = BUFFER) -> dict:
    """p-values of the n values that draw(k, out) writes in buffers k = 0, 1, ..."""
    single = dtype == "float32"
    uneven = single and law.init == "truncated_normal" and law.low == -law.high
    per_unit, low = (8192.0, -1.0) if law.init == "uniform" else (256.0, max(law.low, -8.0))
    cells = round((min(law.high, 8.0) - low) * per_unit)
    edges = low + np.arange(1, cells) / per_unit
    below = np.concatenate([[0], law.below(edges, single), [1]])
    mass = np.diff(below)
    class_of = np.minimum((below[1:] + below[:-1]) / 2 * CLASSES, CLASSES - 1).astype(np.uint8)
    class_mass = np.bincount(class_of, mass, CLASSES)
    centre = law.moment(1)
    n_exponents, bias = (256, 127) if single else (2048, 1023)

    def work(buffers: range) -> tuple:
        out, classes = np.empty(size, dtype), np.empty(size, np.uint8)
        sums, ends = np.zeros(4 + len(LAGS)), np.array([inf, -inf])
        histogram = np.zeros(cells, np.uint64)
        exponents = np.zeros((COPIES, 2, n_exponents), np.uint64)
        low_bytes = np.zeros((2, 256), np.uint64)
        pairs = np.zeros((len(LAGS), CLASSES, CLASSES), np.uint64)
        for k in buffers:
            draw(k, out)
            library.count(
                pointer(out), ctypes.c_int64(size), ctypes.c_double(centre), ctypes.c_double(low),
                ctypes.c_double(per_unit), ctypes.c_int64(cells), pointer(class_of), pointer(LAGS),
                ctypes.c_int64(len(LAGS)), pointer(classes), pointer(sums), pointer(ends), pointer(histogram),
                pointer(exponents), pointer(low_bytes), pointer(pairs),
            )  # fmt: skip
        return ends.tolist(), sums, histogram, exponents.sum(0), low_bytes[1], pairs

    count = -(-n // size)
    ends, sums, histogram, exponents, low_bytes, pairs = shared_out(count, work)
    n = count * size
    assert histogram.sum() == exponents.sum() == n
    central = [law.moment(k, centre) for k in range(9)]
    moments = [(sums[k - 1] / n - central[k]) / np.sqrt((central[2 * k] - central[k] ** 2) / n) for k in range(1, 5)]
    # Exponents from -40, and all that are smaller as one, to -1, and all that are larger.
    powers = 2.0 ** np.arange(-40, 0)
    edges = np.concatenate([np.nextafter(-powers[::-1].astype(np.float32), np.float32(0)), [0], powers])
    kept = np.add.reduceat(exponents, [0, *range(bias - 40, bias)], axis=1)
    ends = np.array([min(ends), max(ends)], dtype)
    inside = max(law.low, -REACH[dtype]) <= ends[0] and ends[1] <= min(law.high, REACH[dtype])
    under, upto = law.below(ends + np.array([-8, 8], dtype) * np.spacing(abs(ends)), single)
    tails = []
    for t in TAILS:
        for edge, up in ((t, True), (-t, False)):
            if law.init != "uniform" and max(law.low, -8.0) < edge < min(law.high, 8.0):
                cell = round((edge - low) * per_unit)
                observed = histogram[cell:].sum() if up else histogram[:cell].sum()
                share = law.below([edge], single)[0]
                tails.append(poisson(int(observed), n * (1 - share if up else share)))
    return {
        "moments": z_test(moments),
        "ends": [float(inside * (1 - under) ** n), float(inside * upto**n)],
        "histogram": [chi_squared(histogram, mass)],
        "exponents": [
            chi_squared(np.concatenate([kept[1][::-1], kept[0]]), np.diff([0, *law.below(edges, single), 1]))
        ],
        **({} if uneven else {"low bytes": [chi_squared(low_bytes, np.full(256, 1 / 256))]}),
        **({"tails": tails} if tails else {}),
        "correlation": z_test(sums[4:] / central[2] / np.sqrt(count * (size - LAGS))),
        "pairs": [chi_squared(grid.ravel(), np.outer(class_mass, class_mass).ravel()) for grid in pairs],
    }


def test_patterns(library: ctypes.CDLL, law: Law, dtype: str, n: int) -> dict:
    """The counts of all values of a dtype of 16 bits or 8."""
    bits = 8 * np.dtype(getattr(ml_dtypes, dtype, dtype)).itemsize
    unsigned = np.dtype(f"uint{bits}")
    table = law.table(n, dtype, name=dtype, scale=SCALE)
    count_values = library.count16 if bits == 16 else library.count8

    def work(buffers: range) -> tuple:
        out, counts = np.empty(BUFFER, table.dtype), np.zeros((COPIES, 1 << bits), np.uint64)
        for k in buffers:
            table._read_flat(k * BUFFER, out)
            count_values(pointer(out), ctypes.c_int64(BUFFER), pointer(counts))
        return (counts.sum(0),)

    (counts,) = shared_out(max(1, n // BUFFER), work)
    patterns = np.arange(1 << bits).astype(unsigned)
    with np.errstate(invalid="ignore"):  # float16 has NaNs that signal
        value = patterns.view(table.dtype).astype(float)
    finite = np.isfinite(value)
    order = np.lexsort((~np.signbit(value), value))
    order = order[finite[order]]
    value, patterns = value[order], patterns[order]
    # What rounds to a value begins half way from the value before, and just there if it is even.
    edges = ((value[1:] + value[:-1]) / 2).astype(np.float32)
    edges = np.where(patterns[1:] % 2, np.nextafter(edges, np.float32(inf)), edges)
    below = law.below(edges, True, SCALE)
    inside = value[(law.low * SCALE <= value) & (value <= law.high * SCALE)]  # to which the others are clamped
    below = np.where(value[1:] <= inside[0], 0, np.where(value[1:] > inside[-1], 1, below))
    mass = np.zeros(1 << bits)
    mass[order] = np.diff([0, *below, 1])
    return {"patterns": [chi_squared(counts[order], mass[order]) * (not counts[~finite].any())]}


def in_turn(tables: Callable[[int], list[Table]], step: int) -> Callable:
    """Draws one value of each table in turn, 256 times: buffer k from position k * step of tables(k)."""

    def draw(k: int, out: np.ndarray) -> None:
        several = tables(k)
        rows = np.empty((len(several), 256), out.dtype)
        for table, row in zip(several, rows, strict=True):
            table._read_flat(k * step, row)
        out.reshape(256, -1)[...] = rows.T

    return draw


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--uniforms", type=float, default=1e11, metavar="N", help="10^11")
    parser.add_argument("--normals", type=float, default=1e10, metavar="N", help="10^10")
    options = parser.parse_args()
    uniforms, normals = int(options.uniforms), int(options.normals)
    if not shutil.which("cc"):
        print("no C compiler here")
        return UNABLE
    uniform, normal = Law("uniform", -1.0, 1.0), Law("normal", words=2)
    truncated = [Law("truncated_normal", *bounds) for bounds in ((-2.0, 2.0), (-3.0, 3.0), (-1.0, inf))]
    began, results, drawn = time.monotonic(), {}, 0

    def report(title: str, count: int, test: Callable, *arguments) -> None:
        nonlocal drawn
        start = time.monotonic()
        result = test(*arguments)
        print(f"{title}: {count:,} values in {time.monotonic() - start:.0f} s")
        for name, p in result.items():
            print(f"    {name:12}" + " ".join(f"{value:9.3g}" for value in p), flush=True)
        results.update({f"{title}, {name} {k}": value for name, p in result.items() for k, value in enumerate(p, 1)})
        drawn += count

    with tempfile.TemporaryDirectory() as folder:
        library = {dtype: compiled(folder, dtype) for dtype in ("float32", "float64")}

        def values(title: str, law: Law, dtype: str, n: int) -> None:
            table = law.table(1 << 59, dtype, name=title)

            def draw(k: int, out: np.ndarray) -> None:
                table._read_flat(k * BUFFER, out)

            report(title, n, test_values, library[dtype], law, dtype, draw, n)

        few, single = normals // 5, library["float32"]
        draw = in_turn(lambda k: [uniform.table(256, "float32", seed) for seed in range(256 * k, 256 * k + 256)], 0)
        report("uniform of neighbouring seeds", few, test_values, single, uniform, "float32", draw, few)
        layers = [normal.table(1 << 59, "float32", name=f"layer.{k}") for k in range(1000)]
        draw = in_turn(lambda k: layers, 256)
        report("normal of neighbouring names", few, test_values, single, normal, "float32", draw, few, 256_000)
        for dtype in ROUNDED:
            for law in (uniform, normal, truncated[0]):
                title, few = f"{law.init.replace('_', ' ')} {dtype}", normals // 10
                report(title, few, test_patterns, single, law, dtype, few)
        values("normal float32", normal, "float32", normals)
        for law in truncated:
            values(f"truncated normal ({law.low:g}, {law.high:g}) float32", law, "float32", normals)
        values("normal float64", normal, "float64", normals)
        values("uniform float64", uniform._replace(words=2), "float64", uniforms // 10)
        values("uniform float32", uniform, "float32", uniforms)
    bound = DOUBT / len(results)
    low = {name: p for name, p in results.items() if not p >= bound}
    for name, p in low.items():
        print(f"REJECTED: p = {p:.3g} of {name}")
    name = min(results, key=results.get)
    seconds = time.monotonic() - began
    print(
        f"{drawn:,} values in {seconds:.0f} s: {len(low)} of {len(results)} p-values are below {bound:.1e}, "
        f"the smallest is {results[name]:.2g}, {name}"
    )
    return int(bool(low))


if __name__ == "__main__":
    sys.exit(main())

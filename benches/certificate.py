"""What the float32 maps draw, by enumeration of every word instead of sampling: ``python benches/certificate.py``.

A float32 value comes from one word, of which 31 bits count, or in Box and Muller's method from a radius word and an
angle word. All of them are run through the kernels of the loaded level and compared with float64 mathematics. The
figures are exact up to float64 summation; they stand in docs/certificate.md. About ten minutes on two cores.
"""

import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from scipy import special, stats

from xavierfast import kernels
from xavierfast._core.distributions import Distribution, Normal, TruncatedNormal, Uniform, UniformRange
from xavierfast._core.dtypes import DTYPES
from xavierfast._core.threads import default_threads

CHUNK = 1 << 21  # words
FLOAT32, KEY = DTYPES["float32"], bytes(32)  # the maps do not depend on the key
TAILS = (3.0, 4.0, 5.0, 5.5, 6.0)


def run(sampler, words: np.ndarray) -> np.ndarray:
    """The float32 values of words, a multiple of 256 of them."""
    out = np.empty(words.shape, np.float32)
    kernels.values(
        sampler.kernel, sampler.dtype.code, sampler.constants, words.ctypes.data, out.ctypes.data, words.size // 256
    )
    return out


class Sums:
    """Moments about a centre, tail masses, extremes and errors of all values of a map."""

    def __init__(self, thresholds: tuple[float, ...] = TAILS, centre: float = 0.0) -> None:
        self.thresholds = thresholds
        self.centre = centre
        self.rows: list[tuple[float, ...]] = []

    def add(self, value: np.ndarray, exact: np.ndarray) -> None:
        unit = np.maximum(np.abs(exact), abs(self.centre)).astype(np.float32)  # about a middle, its last place at least
        ulp = np.abs(value - exact) / np.spacing(unit).astype(float)
        v = value.astype(float) - self.centre
        exact = exact - self.centre
        square = v * v
        tails = [float(np.count_nonzero(np.abs(v) > t)) for t in self.thresholds]
        self.rows.append(
            (v.size, v.sum(), square.sum(), (square * square).sum(), np.abs(v).max(), ulp.max(), *tails,
             value.min(), value.max(), (exact * exact).sum(), np.count_nonzero(value == 0), np.abs(v).min())
        )  # fmt: skip

    def result(self) -> dict[str, float]:
        columns = list(zip(*self.rows, strict=True))
        n = math.fsum(columns[0])
        mean, square, fourth = (math.fsum(column) / n for column in columns[1:4])
        return {
            "inputs": n,
            "mean": self.centre + mean,
            "first": min(columns[-5]),
            "last": max(columns[-4]),
            "variance": square,
            "kurtosis": fourth / square**2,
            "largest": max(columns[4]),
            "smallest": min(columns[-1]),
            "zeros": math.fsum(columns[-2]),
            "ulp": max(columns[5]),
            "discretised": math.fsum(columns[-3]) / n,
            **{f"tail {t:g}": math.fsum(c) / n for t, c in zip(self.thresholds, columns[6:-5], strict=True)},
        }


def enumerate_words(count: int, step: Callable[[np.ndarray], None]) -> None:
    """Call step with chunks of range(count), in threads."""
    with ThreadPoolExecutor(default_threads()) as pool:
        starts = range(0, count, CHUNK)
        for _ in pool.map(lambda start: step(np.arange(start, start + CHUNK, dtype=np.uint64)), starts):
            pass


def direct(
    distribution: Distribution, quantile: Callable[[np.ndarray], np.ndarray], thresholds=TAILS, centre: float = 0.0
) -> dict[str, float]:
    """All 2^31 odd words of a map from one word to one value."""
    sampler = distribution.sampler(FLOAT32, KEY)
    sums = Sums(thresholds, centre)

    def step(k: np.ndarray) -> None:
        words = (k.astype(np.uint32) << np.uint32(1)) | np.uint32(1)
        sums.add(run(sampler, words), quantile(words.view(np.int32).astype(float)))

    enumerate_words(1 << 31, step)
    return sums.result()


def truncated_quantile(low: float, high: float) -> Callable[[np.ndarray], np.ndarray]:
    """Of the odd signed x / 2^31, by whichever of scipy's functions is exact there."""

    def quantile(x: np.ndarray) -> np.ndarray:
        s, nearer = x * 2.0**-31, (2.0**31 - np.abs(x)) * 2.0**-32
        below, above = special.ndtr(low), special.ndtr(-high)
        mass = special.ndtr(high) - below if low < 0 else special.ndtr(-low) - above
        lower = below + mass * np.where(x < 0, nearer, 1 - nearer)
        upper = above + mass * np.where(x < 0, 1 - nearer, nearer)
        if low == -high:
            middle = math.sqrt(2) * special.erfinv(mass * s)
            return np.where(np.abs(middle) < 0.5, middle, np.where(x < 0, special.ndtri(lower), -special.ndtri(upper)))
        return np.where(lower < upper, special.ndtri(lower), -special.ndtri(upper))

    return quantile


def radius() -> dict[str, float]:
    """sqrt(-2 ln u): the first output for the angle 0 nearly, whose cosine is 1."""
    sampler = Normal(0.0, 1.0).sampler(FLOAT32, KEY)
    sums = Sums(())
    masses = np.zeros(len(TAILS))

    def step(k: np.ndarray) -> None:
        x = k.astype(np.uint32) << np.uint32(1) | np.uint32(1)
        words = np.zeros((len(k) // 128, 2, 128), np.uint32)
        words[:, 0] = x.reshape(-1, 128)
        r = run(sampler, words)[:, 0].reshape(-1)
        u = np.abs(x.view(np.int32).astype(float)) * 2.0**-32
        sums.add(r, np.sqrt(-2 * np.where(x.view(np.int32) < 0, np.log1p(-u), np.log(u))))
        far = r[r > TAILS[0]].astype(float)
        # Among all angles, that part whose cosine takes the product beyond t.
        masses[:] += [(2 / math.pi * np.arccos(t / far[far > t])).sum() for t in TAILS]

    enumerate_words(1 << 31, step)
    result = sums.result()
    return result | {f"tail {t:g}": m / result["inputs"] for t, m in zip(TAILS, masses, strict=True)}


def angle() -> dict[str, float]:
    """Both outputs for all 2^32 angles and a radius that is 1."""
    words = np.zeros((1, 2, 128), np.uint32)
    words[:, 0] = np.arange(1, 257, 2)
    first = run(Normal(0.0, 1.0).sampler(FLOAT32, KEY), words)[0, 0]
    for word, r in zip(words[0, 0], first, strict=True):
        sampler = Normal(0.0, float(np.float32(1) / r)).sampler(FLOAT32, KEY)
        words[:, 0] = word
        if (run(sampler, words)[0, 0] == 1).all():
            break
    else:
        raise AssertionError("no radius among the first is exactly 1")
    sums = Sums((0.5,))

    def step(k: np.ndarray) -> None:
        w = k.astype(np.uint32)
        tile = np.full((len(k) // 128, 2, 128), word, np.uint32)
        tile[:, 1] = w.reshape(-1, 128)
        v = run(sampler, tile)
        y = ((w << np.uint32(2)) | np.uint32(2)).view(np.int32).astype(float) * (math.pi / 4 * 2.0**-31)
        c, s = np.cos(y), np.sin(y)
        c = np.where(w & np.uint32(1 << 30), -c, c)
        swap = w >> np.uint32(31) == 1
        sums.add(v[:, 0].reshape(-1), np.where(swap, s, c))
        sums.add(v[:, 1].reshape(-1), np.where(swap, c, s))

    enumerate_words(1 << 32, step)
    return sums.result()


def report(title: str, result: dict[str, float], variance: float, kurtosis: float, tails: dict[str, float]) -> None:
    print(f"\n## {title}\n")
    print(f"- {result['inputs']:.0f} inputs; mean {result['mean']:.17g}; {result['zeros']:.0f} zeros")
    print(
        f"- variance {result['variance']:.12f}, ideal {variance:.12f}: {result['variance'] / variance - 1:+.2e}, "
        f"of which {result['discretised'] / variance - 1:+.2e} is the discretisation"
    )
    print(f"- kurtosis {result['kurtosis']:.9f}, ideal {kurtosis:.9f}: {result['kurtosis'] / kurtosis - 1:+.2e}")
    print(
        f"- magnitudes from {result['smallest']:.4g} to {result['largest']:.9g}; largest error {result['ulp']:.2f} ulp"
    )
    if result["mean"]:
        print(f"- values from {result['first']:.9g} to {result['last']:.9g}")
    for name, ideal in tails.items():
        got = result[name]
        relative = f"{got / ideal - 1:+.2e}" if ideal else "exact" if not got else "WRONG"
        print(f"- mass beyond {name.split()[1]}: {got:.6e}, ideal {ideal:.6e}: {relative}")
    print(flush=True)


def normal_tails(c: float = math.inf, thresholds=TAILS) -> dict[str, float]:
    mass = special.ndtr(c) - special.ndtr(-c)
    return {f"tail {t:g}": max(0.0, 2 * (special.ndtr(-t) - special.ndtr(-c)) / mass) for t in thresholds}


def main() -> None:
    print(f"level {kernels.level}")
    report("uniform(bound=1)", direct(Uniform(1.0), lambda x: x * 2.0**-31, (0.5, 1.0)), 1 / 3, 1.8,
           {"tail 0.5": 0.5, "tail 1": 0.0})  # fmt: skip
    report("uniform(low=0, high=1)", direct(UniformRange(0.0, 1.0), lambda x: 0.5 + x * 2.0**-32,
           (0.25,), 0.5), 1 / 12, 1.8, {"tail 0.25": 0.5})  # fmt: skip
    r = radius()
    report("normal: radius (variance: E r^2, ideal 2)", r, 2.0, 2.0, {})
    a = angle()
    report("normal: angle (both outputs)", a, 0.5, 1.5, {"tail 0.5": 2 / 3})
    z = {
        "inputs": r["inputs"] * a["inputs"] / 2, "mean": r["mean"] * a["mean"], "zeros": 0.0, "first": 0, "last": 0,
        "variance": r["variance"] * a["variance"], "discretised": r["discretised"] * a["discretised"],
        "kurtosis": r["kurtosis"] * a["kurtosis"], "smallest": r["smallest"] * a["smallest"], "largest": r["largest"],
        "ulp": r["ulp"] + a["ulp"] + 0.5,
    }  # fmt: skip
    report(
        "normal(std=1): the product", z | {k: v for k, v in r.items() if k.startswith("tail")}, 1.0, 3.0, normal_tails()
    )
    for c, thresholds in ((2.0, (0.5, 1.0, 1.5, 1.9)), (3.0, (1.0, 2.0, 2.9)), (math.inf, TAILS)):
        moments = stats.truncnorm(-c, c).stats("vk") if c < 9 else (1.0, 0.0)
        result = direct(TruncatedNormal(0.0, 1.0, -c, c), truncated_quantile(-c, c), thresholds)
        report(f"truncated_normal(low={-c:g}, high={c:g})", result, float(moments[0]), 3 + float(moments[1]),
               normal_tails(c, thresholds))  # fmt: skip
    # A mean and a standard deviation that are float32s: their rounding is not the map's.
    mean, std, quantile = 1.0, 2.0**-6, truncated_quantile(-2.0, 2.0)
    result = direct(TruncatedNormal(mean, std, -2.0, 2.0), lambda x: mean + std * quantile(x), (), mean)
    moments = stats.truncnorm(-2, 2).stats("vk")
    report("truncated_normal(mean=1, std=1/64, low=-2, high=2)", result, float(moments[0]) * std**2,
           3 + float(moments[1]), {})  # fmt: skip


if __name__ == "__main__":
    main()

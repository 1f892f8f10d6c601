"""The main job: initialise an embedding table of 1 GiB in memory and print its figures, NumPy's beside them."""

from math import sqrt
from time import perf_counter

import numpy as np

import xavierfast as xf
from xavierfast.fill import default_threads

SHAPE = (1 << 21, 128)


def show(title: str, table: np.ndarray, seconds: float) -> None:
    """Moments by parts of float64 sums, without a copy of the table."""
    parts = np.array_split(table.reshape(-1), 256)
    mean = sum(part.sum(dtype=float) for part in parts) / table.size
    variance = sum(np.square(part, dtype=float).sum() for part in parts) / table.size - mean**2
    print(f"{title}: {table.nbytes / seconds / 1e9:6.2f} GB/s, {seconds * 1e3:.0f} ms")
    print(f"  largest |w|  {max(abs(part).max() for part in parts):.10f}   bound {sqrt(6 / sum(xf.fans(SHAPE))):.10f}")
    print(f"  variance     {variance:.6e}     2 / (fan_in + fan_out) {2 / sum(xf.fans(SHAPE)):.6e}")
    print(f"  mean         {mean:+.2e}, of which chance explains {sqrt(variance / table.size):.2e}", flush=True)


def main() -> None:
    threads = default_threads()
    print(f"xavierfast {xf.__version__}, level {xf.level}, {threads} threads; {SHAPE} float32, 1 GiB")
    table = np.empty(SHAPE, np.float32)
    for what in ("new memory ", "warm memory"):
        begin = perf_counter()
        xf.xavier_uniform(out=table, seed=2010, name="embed.weight")
        show(f"xavierfast, {what}", table, perf_counter() - begin)
    again = xf.xavier_uniform(SHAPE, seed=2010, name="embed.weight", threads=1)
    print(f"one thread gives the same bits: {np.array_equal(table, again)}")
    del again
    begin = perf_counter()
    bound = sqrt(6 / sum(xf.fans(SHAPE)))
    generator = np.random.default_rng(2010)
    generator.random(out=table, dtype=np.float32)
    table *= np.float32(2 * bound)
    table -= np.float32(bound)
    show("NumPy, warm memory     ", table, perf_counter() - begin)


if __name__ == "__main__":
    main()

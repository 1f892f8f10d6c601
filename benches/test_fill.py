"""GB/s of fills, by distribution, dtype, level, threads and size, each beside its peers in the same run."""

import numpy as np
import pytest
from conftest import REQUIRE_ALL, peer, warm
from peers import MKL, Mkl, memset, ndarray_fill, numpy_normal, numpy_uniform

import xavierfast as xf
from xavierfast import kernels
from xavierfast._core.threads import default_threads

SIZES = {"16 KiB": 1 << 14, "1 MiB": 1 << 20, "256 MiB": 1 << 28}
THREADS = sorted({1, default_threads()})
OURS = {
    "uniform": lambda out, threads, dtype: (
        lambda: xf.uniform(out=out, bound=0.05, seed=0, dtype=dtype, threads=threads)
    ),
    "uniform 0 to 1": lambda out, threads, dtype: (
        lambda: xf.uniform(out=out, low=0, high=1, seed=0, dtype=dtype, threads=threads)
    ),
    "normal": lambda out, threads, dtype: lambda: xf.normal(out=out, std=0.02, seed=0, dtype=dtype, threads=threads),
    "normal about 1": lambda out, threads, dtype: (
        lambda: xf.normal(out=out, mean=1, std=0.02, seed=0, dtype=dtype, threads=threads)
    ),
    "truncated": lambda out, threads, dtype: (
        lambda: xf.truncated_normal(out=out, std=0.02, seed=0, dtype=dtype, threads=threads)
    ),
    "truncated 3": lambda out, threads, dtype: (
        lambda: xf.truncated_normal(out=out, std=0.02, low=-3, high=3, seed=0, dtype=dtype, threads=threads)
    ),
}


def mkl(name):
    def prepare(out, threads):
        if not np.issubdtype(out.dtype, np.floating) or out.dtype == np.float16:
            pytest.skip("MKL has no 16-bit generators")
        if not REQUIRE_ALL and not MKL:
            pytest.skip("mkl is not installed")
        return getattr(Mkl(), name)(out, threads)

    return prepare


def torch(name, *arguments):
    def prepare(out, threads):
        torch = peer("torch")
        torch.set_num_threads(threads)
        tensor = torch.empty(out.size, dtype=getattr(torch, out.dtype.name))
        tensor.fill_(1)
        return lambda: (
            getattr(tensor, name)(*arguments)
            if hasattr(tensor, name)
            else getattr(torch.nn.init, name)(tensor, *arguments)
        )

    return prepare


def jax(name, *arguments):
    """JAX makes a new array at each call, with threads of its own."""

    def prepare(out, threads):
        jax = peer("jax")
        jax.config.update("jax_enable_x64", True)
        draw = jax.jit(lambda key: getattr(jax.random, name)(key, *arguments, (out.size,), out.dtype.name))
        key = jax.random.key(0)
        return lambda: draw(key).block_until_ready()

    return prepare


# Peers that shift and scale their values do so in the same call.
PEERS = {
    "uniform": {
        "numpy": numpy_uniform,
        "torch": torch("uniform_", -0.05, 0.05),
        "jax (new array)": jax("uniform"),
        "mkl ARS5": mkl("uniform"),
    },
    "uniform 0 to 1": {"torch": torch("uniform_", 0.0, 1.0)},
    "normal about 1": {"torch": torch("normal_", 1.0, 0.02)},
    "normal": {
        "numpy": numpy_normal,
        "torch": torch("normal_", 0.0, 0.02),
        "jax (new array)": jax("normal"),
        "mkl ARS5, ICDF": mkl("normal"),
    },
    "truncated": {"torch": torch("trunc_normal_"), "jax (new array)": jax("truncated_normal", -2.0, 2.0)},
    "truncated 3": {
        "torch": torch("trunc_normal_", 0.0, 1.0, -3.0, 3.0),
        "jax (new array)": jax("truncated_normal", -3.0, 3.0),
    },
}
LIMIT = {"memset": memset, "ndarray.fill": ndarray_fill}


def rows(distribution, dtypes, sizes, threads):
    for size in sizes:
        for dtype in dtypes:
            for count in threads:
                group = f"{distribution}, {dtype}, {size} warm, {count} thread{'s' * (count > 1)}"
                for level in kernels.levels:
                    yield group, f"xavierfast {level}", distribution, dtype, size, count
                for who in {**PEERS[distribution], **LIMIT}:
                    yield group, who, distribution, dtype, size, count


CASES = [
    *rows("uniform", ["float32"], SIZES, THREADS),
    *rows("normal", ["float32"], SIZES, THREADS),
    *rows("uniform 0 to 1", ["float32"], ["256 MiB"], [1]),
    *rows("normal about 1", ["float32"], ["256 MiB"], [1]),
    *rows("truncated", ["float32"], ["256 MiB"], THREADS),
    *rows("truncated 3", ["float32"], ["256 MiB"], [1]),
    *rows("uniform", ["float64", "float16", "bfloat16"], ["256 MiB"], [1]),
    *rows("normal", ["float64", "float16", "bfloat16"], ["256 MiB"], [1]),
]


@pytest.mark.parametrize(("group", "who", "distribution", "dtype", "size", "threads"), CASES)
def test_warm(measure, at_level, group, who, distribution, dtype, size, threads):
    if threads > 1 and SIZES[size] < 1 << 24:
        pytest.skip("small arrays are filled by one thread")
    out = warm(SIZES[size], peer("ml_dtypes").bfloat16 if dtype == "bfloat16" else dtype)
    if who.startswith("xavierfast"):
        at_level(who.split()[1])
        call = OURS[distribution](out, threads, dtype)
    elif who == "numpy" and out.itemsize == 2:
        pytest.skip("NumPy has no 16-bit generators")
    else:
        call = {**PEERS[distribution], **LIMIT}[who](out, threads)
    measure(group, call, out.nbytes, out.size)


FRESH = 1 << 30


@pytest.mark.parametrize("who", ["xavierfast", "np.empty + memset", "np.empty + ndarray.fill", "numpy"])
def test_fresh(measure, who):
    """New memory for each round, whose pages the system makes as they are touched: allocation is part of the time."""
    threads = default_threads()

    def call():
        if who == "xavierfast":
            xf.uniform(FRESH // 4, bound=0.05, seed=0, threads=threads)
        else:
            out = np.empty(FRESH // 4, np.float32)
            {"np.empty + memset": memset, "np.empty + ndarray.fill": ndarray_fill, "numpy": numpy_uniform}[who](
                out, threads
            )()

    measure(f"uniform, float32, 1 GiB fresh, {threads} threads", call, FRESH, FRESH // 4)

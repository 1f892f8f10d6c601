"""MKL through ctypes, memset, and NumPy's own ways, each as a function that fills an array with n threads."""

import ctypes
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

POOL = ThreadPoolExecutor(64)
MKL = sorted(Path(sys.prefix, "lib").glob("libmkl_rt.so*"))


def halves(fill, out, threads):
    """A fill of contiguous parts, one a thread."""
    parts = np.array_split(out.reshape(-1), threads)
    return lambda: list(POOL.map(fill, range(threads), parts)) if threads > 1 else fill(0, parts[0])


def memset(out, threads):
    """The C library's."""
    libc = ctypes.CDLL(None)
    libc.memset.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t]
    return halves(lambda _, part: libc.memset(part.ctypes.data, 1, part.nbytes), out, threads)


def ndarray_fill(out, threads):
    return halves(lambda _, part: part.fill(1), out, threads)


def numpy_uniform(out, threads):
    """The quickest that NumPy has: random into out, then scaled in place."""
    generators = [np.random.Generator(np.random.SFC64(seed)) for seed in range(threads)]

    def fill(k, part):
        generators[k].random(out=part, dtype=part.dtype.type)
        part *= part.dtype.type(0.1)
        part -= part.dtype.type(0.05)

    return halves(fill, out, threads)


def numpy_normal(out, threads):
    generators = [np.random.Generator(np.random.SFC64(seed)) for seed in range(threads)]

    def fill(k, part):
        generators[k].standard_normal(out=part, dtype=part.dtype.type)
        part *= part.dtype.type(0.02)

    return halves(fill, out, threads)


class Mkl:
    """Intel MKL's vector statistics: ARS5 uniforms, and normals by the inverse of the distribution function."""

    ARS5 = 15 << 20  # VSL_BRNG_ARS5
    UNIFORM_STD = 0
    GAUSSIAN_ICDF = 2

    def __init__(self):
        if not MKL:
            raise ImportError("no libmkl_rt in this environment (pip install mkl)")
        self.library = ctypes.CDLL(str(MKL[0]))
        self.library.MKL_Set_Num_Threads(1)  # threads are ours, as for all

    def fill(self, name, method, first, second, out, threads):
        function = getattr(self.library, name)
        real = ctypes.c_double if out.dtype == np.float64 else ctypes.c_float
        streams = [ctypes.c_void_p() for _ in range(threads)]
        for seed, stream in enumerate(streams):
            assert self.library.vslNewStream(ctypes.byref(stream), self.ARS5, seed) == 0

        def part(k, array):
            status = function(
                method,
                streams[k],
                ctypes.c_int(array.size),
                ctypes.c_void_p(array.ctypes.data),
                real(first),
                real(second),
            )
            assert status == 0

        return halves(part, out, threads)

    def uniform(self, out, threads):
        name = "vdRngUniform" if out.dtype == np.float64 else "vsRngUniform"
        return self.fill(name, self.UNIFORM_STD, -0.05, 0.05, out, threads)

    def normal(self, out, threads):
        name = "vdRngGaussian" if out.dtype == np.float64 else "vsRngGaussian"
        return self.fill(name, self.GAUSSIAN_ICDF, 0.0, 0.02, out, threads)

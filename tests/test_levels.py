"""Tier 2: every kernel of every level equals the reference, bit for bit."""

import numpy as np
import pytest
import reference
from support import draw_of

from xavierfast import kernels
from xavierfast._core.distributions import Constant, Normal, TruncatedNormal, Uniform, UniformRange

KEY = bytes(range(7, 39))
INF = float("inf")
DTYPES = ("float32", "float64", "float16", "bfloat16", "complex64", "complex128")
CENTRED = ("constant", "uniform", "normal", "truncated 2", "truncated 0.7", "truncated 3", "untruncated")
DISTRIBUTIONS = {
    "constant": Constant(-1.37),
    "uniform": Uniform(0.3),
    "range": UniformRange(0.1, 1.3),
    "unit range": UniformRange(0.0, 1.0),
    "range far from 0": UniformRange(-1001.0, -989.0),
    "normal": Normal(0.0, 0.02),
    "normal with a mean": Normal(0.37, 0.02),
    "mean far from 0": Normal(-1000.0, 0.02),
    "truncated 2 with a mean": TruncatedNormal(0.37, 0.02, -2.0, 2.0),
    "truncated 3 with a mean": TruncatedNormal(-7.0, 0.02, -3.0, 3.0),
    "one-sided with a mean": TruncatedNormal(0.37, 0.02, -1.0, INF),
    "truncated 2": TruncatedNormal(0.0, 0.02, -2.0, 2.0),
    "truncated 0.7": TruncatedNormal(0.0, 3.0, -0.7, 0.7),
    "truncated 3": TruncatedNormal(0.0, 0.02, -3.0, 3.0),
    "truncated 40": TruncatedNormal(0.0, 1.0, -40.0, 40.0),
    "untruncated": TruncatedNormal(0.0, 1.0, -INF, INF),
    "one-sided": TruncatedNormal(0.0, 1.0, -1.0, INF),
    "one-sided, small": TruncatedNormal(0.0, 0.02, -1.0, INF),
    "one-sided, below": TruncatedNormal(0.0, 0.02, -INF, 1.0),
    "far tail": TruncatedNormal(0.0, 1.0, 6.0, INF),
    "far left": TruncatedNormal(0.0, 0.5, -9.0, -8.0),
    "beyond floats": TruncatedNormal(0.0, 1.0, 60.0, INF),
    "lopsided": TruncatedNormal(0.0, 1.0, -0.5, 4.0),
}
# As small as each dtype takes: float16's are subnormal.
SMALL = {"float32": 2.0**-80, "float64": 2.0**-900, "float16": 3e-7, "bfloat16": 2.0**-80}
SMALL |= {"complex64": 2.0**-80, "complex128": 2.0**-900}
LENGTHS = (*range(9), 15, 16, 17, 31, 127, 128, 129, 255, 256, 257, 1000)
POSITIONS = (0, 1, 127, 255, 2**31 - 1, 2**32 - 1, 2**34, 2**63 - 256, 2**63 - 1)
CANARY = 0xA5
SIZES = {
    kernels.FLOAT64: 8, kernels.FLOAT16: 2, kernels.BFLOAT16: 2, kernels.COMPLEX64: 8, kernels.COMPLEX128: 16,
}  # fmt: skip


def stream(name, dtype):
    return draw_of(DISTRIBUTIONS[name], dtype)


def expected(source, position, n):
    with np.errstate(all="ignore"):  # branches that are computed and not chosen
        return reference.elements(*source[:2], KEY, source[2], position, n).tobytes()


def filled(level, source, position, n, offset=0, streaming=False):
    """The bytes that a kernel writes at an offset from a cache line, after a look at those around them."""
    size = SIZES.get(source[1], 4) * n
    memory = np.full(size + 256, CANARY, np.uint8)
    begin = -memory.ctypes.data % 64 + 64 + offset
    level.fill(*source[:2], KEY, source[2], memory.ctypes.data + begin, position, n, streaming)
    assert (memory[:begin] == CANARY).all(), "wrote before out"
    assert (memory[begin + size :] == CANARY).all(), "wrote behind out"
    return memory[begin : begin + size].tobytes()


@pytest.mark.parametrize(
    ("name", "dtype"),
    # Of complex values the modulus is truncated, on one side.
    [(name, dtype) for name in DISTRIBUTIONS for dtype in DTYPES if name in CENTRED or not dtype.startswith("complex")],
)
def test_values(level, name, dtype):
    source = stream(name, dtype)
    assert filled(level, source, 0, 40_000) == expected(source, 0, 40_000)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", [Uniform, Normal, TruncatedNormal])
def test_smallest_scale(level, kind, dtype):
    arguments = {Uniform: (), Normal: (0.0,), TruncatedNormal: (0.0,)}[kind]
    cut = (-2.0, 2.0) if kind is TruncatedNormal else ()
    source = draw_of(kind(*arguments, SMALL[dtype], *cut), dtype)
    assert filled(level, source, 0, 10_000) == expected(source, 0, 10_000)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("position", POSITIONS)
def test_positions(level, position, dtype):
    for name in ("uniform", "normal"):
        source = stream(name, dtype)
        assert filled(level, source, position, 700) == expected(source, position, 700)


@pytest.mark.parametrize("dtype", DTYPES)
def test_lengths(level, dtype):
    source = stream("normal", dtype)
    for n in LENGTHS:
        for position in (0, 3, 250):
            assert filled(level, source, position, n) == expected(source, position, n)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("streaming", [False, True])
def test_offsets_and_streaming(level, streaming, dtype):
    source = stream("uniform", dtype)
    for n in (1, 300, 1024, 5001):
        want = expected(source, 77, n)
        for offset in (0, 1, 2, 3, 4, 7, 8, 16, 48, 62, 63):
            assert filled(level, source, 77, n, offset, streaming) == want


def test_words(level):
    source = (kernels.WORDS, kernels.UINT32, ())
    for position in POSITIONS:
        assert filled(level, source, position, 777) == expected(source, position, 777)


@pytest.mark.parametrize("dtype", DTYPES)
def test_values_of_given_words(level, dtype):
    kernel, code, p = stream("normal", dtype)
    words = np.ascontiguousarray(reference.tiles(KEY, 5, 3))
    itemsize = SIZES.get(code, 4)
    out = np.zeros(3 * (512 if itemsize == 2 else 1024), np.uint8)
    level.values(kernel, code, p, words.ctypes.data, out.ctypes.data, 3)
    n = out.size // itemsize
    assert out.tobytes() == expected((kernel, code, p), 5 * n // 3, n)


def test_gather(level):
    """Strided memory from any element of the stream on; its order there is another tier's matter."""
    source = stream("uniform", "float32")
    for shape, strides in (((6, 50), (4, 24)), ((3, 5, 40), (-4, 12, 60)), ((7,), (-8,))):
        n = int(np.prod(shape))
        memory = np.full(8 * n, -9, np.float32)
        base = np.lib.stride_tricks.as_strided(memory[4 * n :], shape, strides)
        steps = np.cumprod((1, *shape[:0:-1]))[::-1]
        layout = np.array([*shape, *strides, *steps], np.int64).tobytes()
        for begin in (0, 1, n // 2):
            memory[:] = -9
            index = np.array(np.unravel_index(begin, shape), np.int64).tobytes()
            out = memory[4 * n :].ctypes.data
            level.gather(*source[:2], KEY, source[2], out, 300, n - begin, layout, index)
            assert base.tobytes()[begin * 4 :] == expected(source, 300 + begin, n - begin)
            assert np.count_nonzero(memory == -9) == memory.size - (n - begin)


@pytest.mark.parametrize("code", [kernels.FLOAT32, kernels.FLOAT64, kernels.FLOAT16])
@pytest.mark.parametrize("position", [0, 3, 255, 256, 2**31 - 1, 2**34 + 7])
@pytest.mark.parametrize("n", [0, 1, 7, 256, 257, 1000])
def test_equals_sees_every_byte(level, code, position, n):
    """What a level has filled it finds equal, at any address, and not if one bit differs."""
    p = (0.5 * 2.0**-31,) if code != kernels.FLOAT64 else (0.5 * 2.0**-62,)
    size = {kernels.FLOAT32: 4, kernels.FLOAT64: 8, kernels.FLOAT16: 2}[code]
    data = np.zeros(n * size + 1, np.uint8)[1:]
    level.fill(kernels.UNIFORM, code, bytes(range(32)), p, data.ctypes.data, position, n)

    def equal():
        return level.equals(kernels.UNIFORM, code, bytes(range(32)), p, data.ctypes.data, position, n)

    assert equal() is True
    for place in {0, data.size // 2, data.size - 1} if n else ():
        data[place] ^= 1
        assert equal() is False
        data[place] ^= 1
    assert n == 0 or not level.equals(kernels.UNIFORM, code, bytes(32), p, data.ctypes.data, position, n)


@pytest.mark.parametrize("dtype", DTYPES)
def test_bounds_that_cut(level, dtype):
    """Bounds act on few words, since the distribution ends there; here they lie well within it."""
    is_complex = dtype.startswith("complex")
    kernel, code, p = stream("truncated 2" if is_complex else "lopsided", dtype)
    p = (p[0], p[1] / 2, *p[2:]) if is_complex else (*p[:2], -0.25, 0.5, *p[4:])
    expected = reference.elements(kernel, code, KEY, p, 0, 1000)
    out = np.zeros_like(expected)
    level.fill(kernel, code, KEY, p, out.ctypes.data, 0, 1000)
    assert out.tobytes() == expected.tobytes()
    if is_complex:
        assert (abs(expected) > 0.99 * p[1]).sum() > 100
    elif dtype != "bfloat16":
        assert (expected == expected.max()).sum() > 100

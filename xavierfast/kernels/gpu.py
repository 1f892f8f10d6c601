"""The kernels for GPUs, in Triton: the bits of the CPU's kernels, of which this is a second source.

It has the same three parts, in this order: words, values, fill. ``kernels.pxi`` and its includes explain the
arithmetic; this module says what is different on a GPU.

A block of tensors stands for a group of tiles: tiles along the first axis, the 16 lanes along the last. Each thread has
one ChaCha block, whose 16 words are 16 registers, and element 16 * k + lane of a tile comes from word k of that lane.
Words k and k + 8 are the pair of Box and Muller, so no thread ever needs another's word::

                lane 0 .. 15
    tile t      x[0] x[1] ... x[15]        element  16 * k + lane  =  value of x[k]
    tile t + 1  x[0] x[1] ... x[15]        one store writes 16 neighbours for each tile

A compiler for GPUs fuses and approximates by default. The traps, each of which has a test:

- ``enable_fp_fusion`` is False at each launch, or products and sums are contracted. ``tl.fma`` is written where the
  CPU's kernels have ``fused``.
- ``tl.div_rn`` and ``tl.sqrt_rn`` for float32: ``/`` and ``tl.sqrt`` are approximate. For float64 both are exact.
- Positions are int64. The launcher passes a small int as int32 unless the parameter says otherwise.
- ``tl.where``, not ``tl.minimum``: the sign of a zero counts.
- 16-bit and 8-bit floats are rounded here, by integers, and stored as ints: conversions differ from GPU to GPU.

This module knows Triton and no framework. `out` and `ids` are objects with memory on the current device, as Triton
takes them. ``serves``, ``fill``, ``gather`` and ``MAX_AXES`` are all that its callers use: a backend for other GPUs is
one more module with these four.
"""

from math import gcd
from struct import pack, unpack
from typing import TYPE_CHECKING, Any

import triton
import triton.language as tl

from . import CONSTANT, NORMAL, RANGE, TRUNCATED_2SIGMA, TRUNCATED_SYMMETRIC, UNIFORM

if TYPE_CHECKING:
    from .._core.sampler import Sampler

# Older ones flush subnormals in roots on NVIDIA, or have not been examined.
if tuple(map(int, triton.__version__.split(".")[:2])) < (3, 7):
    raise ImportError(f"the kernels for GPUs need Triton 3.7 or newer, got {triton.__version__}")

__all__ = ["FORMATS", "MAX_AXES", "fill", "gather", "serves"]

# The dtypes, with the numbers by which the kernels know them.
FORMATS = {"float32": 0, "float64": 1, "float16": 2, "bfloat16": 3, "float8_e4m3fn": 4, "float8_e5m2": 5}
MAX_AXES = 3  # that gather takes, beside one of the runs
TILES = 8  # of one program
WARPS = 4  # so that each of a program's 128 threads has one ChaCha block
EXACT = {"enable_fp_fusion": False}  # options of each launch

_KERNELS = {CONSTANT, UNIFORM, RANGE, NORMAL, TRUNCATED_2SIGMA, TRUNCATED_SYMMETRIC}
_KERNELS_64 = {CONSTANT, UNIFORM, RANGE, NORMAL}
_CONSTANT, _UNIFORM, _RANGE = tl.constexpr(CONSTANT), tl.constexpr(UNIFORM), tl.constexpr(RANGE)
_NORMAL, _TRUNCATED_2SIGMA = tl.constexpr(NORMAL), tl.constexpr(TRUNCATED_2SIGMA)
_FLOAT32, _FLOAT64, _FLOAT16, _BFLOAT16, _E4M3, _E5M2 = map(tl.constexpr, FORMATS.values())
_LANES = tl.constexpr(16)


# ---- words


@triton.jit
def rotl(x, n: tl.constexpr):
    return (x << n) | (x >> (32 - n))


@triton.jit
def quarter_round(a, b, c, d):
    a = a + b
    d = rotl(d ^ a, 16)
    c = c + d
    b = rotl(b ^ c, 12)
    a = a + b
    d = rotl(d ^ a, 8)
    c = c + d
    b = rotl(b ^ c, 7)
    return a, b, c, d


@triton.jit
def chacha8(tile, lane, key0, key1, key2, key3):
    """The 16 words of block 16 * tile + lane, for each tile and lane. The key comes as four int64."""
    low = (tile << 4).to(tl.uint32) + lane.to(tl.uint32)
    high = (tile >> 28).to(tl.uint32) + (lane * 0).to(tl.uint32)
    zero = low ^ low
    k0, k1 = zero + key0.to(tl.uint32), zero + (key0 >> 32).to(tl.uint32)
    k2, k3 = zero + key1.to(tl.uint32), zero + (key1 >> 32).to(tl.uint32)
    k4, k5 = zero + key2.to(tl.uint32), zero + (key2 >> 32).to(tl.uint32)
    k6, k7 = zero + key3.to(tl.uint32), zero + (key3 >> 32).to(tl.uint32)
    x0, x1, x2, x3 = zero + 0x61707865, zero + 0x3320646E, zero + 0x79622D32, zero + 0x6B206574
    x4, x5, x6, x7, x8, x9, xa, xb = k0, k1, k2, k3, k4, k5, k6, k7
    xc, xd, xe, xf = low, high, zero, zero
    for _ in tl.static_range(4):
        x0, x4, x8, xc = quarter_round(x0, x4, x8, xc)
        x1, x5, x9, xd = quarter_round(x1, x5, x9, xd)
        x2, x6, xa, xe = quarter_round(x2, x6, xa, xe)
        x3, x7, xb, xf = quarter_round(x3, x7, xb, xf)
        x0, x5, xa, xf = quarter_round(x0, x5, xa, xf)
        x1, x6, xb, xc = quarter_round(x1, x6, xb, xc)
        x2, x7, x8, xd = quarter_round(x2, x7, x8, xd)
        x3, x4, x9, xe = quarter_round(x3, x4, x9, xe)
    return (
        x0 + 0x61707865, x1 + 0x3320646E, x2 + 0x79622D32, x3 + 0x6B206574, x4 + k0, x5 + k1, x6 + k2, x7 + k3,
        x8 + k4, x9 + k5, xa + k6, xb + k7, xc + low, xd + high, xe, xf,
    )  # fmt: skip


# ---- values, float32


@triton.jit
def first_single(pair):
    """The first of the two float32 in an int64."""
    return pair.to(tl.int32).to(tl.float32, bitcast=True)


@triton.jit
def second_single(pair):
    return (pair >> 32).to(tl.int32).to(tl.float32, bitcast=True)


@triton.jit
def bounded(value, low, high):
    value = tl.where(value < low, low, value)
    return tl.where(value > high, high, value)


@triton.jit
def odd(word):
    return (word | 1).to(tl.int32, bitcast=True)


@triton.jit
def minus_two_ln(u, u_minus_1):
    m = u.to(tl.int32, bitcast=True) - 0x3F3504F3
    e = m >> 23
    m = (m & 0x7FFFFF) + 0x3F3504F3
    f = tl.where(e == 0, u_minus_1, m.to(tl.float32, bitcast=True) - 1.0)
    t = tl.fma(f, -0.174008758253, 0.285349738051)
    t = tl.fma(t, f, -0.298295344234)
    t = tl.fma(t, f, 0.331551693559)
    t = tl.fma(t, f, -0.399261277287)
    t = tl.fma(t, f, 0.50002674075)
    t = tl.fma(t, f, -0.666678214716)
    t = tl.fma(t, f, 1.0)
    t = tl.fma(t, f, -2.0)
    return tl.fma(e.to(tl.float32), -1.3862943611, t * f)


@triton.jit
def normal32(radius_word, angle_word, std, mean):
    """The two values that a radius and an angle give: radius32 and turn32 of the CPU's kernels."""
    x = odd(radius_word)
    a = tl.abs(x.to(tl.float32)) * 2.3283064365386963e-10  # 2^-32
    r = tl.sqrt_rn(minus_two_ln(tl.where(x < 0, 1.0 - a, a), -a)) * std
    y = ((angle_word << 2) | 2).to(tl.int32, bitcast=True).to(tl.float32) * 4.656612873077393e-10  # 2^-31
    z = y * y
    s = tl.fma(z, -3.660921720438637e-05, 0.002490994054824114)
    s = tl.fma(s, z, -0.08074581623077393)
    s = tl.fma(s, z, 0.7853981852531433)
    s = (s * y).to(tl.uint32, bitcast=True)
    c = tl.fma(z, -0.00031898077577352524, 0.015850206837058067)
    c = tl.fma(c, z, -0.3084244728088379)
    c = tl.fma(c, z, 1.0)
    c = c.to(tl.uint32, bitcast=True) ^ ((angle_word << 1) & 0x80000000)
    swap = (c ^ s) & (angle_word.to(tl.int32, bitcast=True) >> 31).to(tl.uint32, bitcast=True)
    c = (c ^ swap).to(tl.float32, bitcast=True)
    s = (s ^ swap).to(tl.float32, bitcast=True)
    return tl.fma(c, r, mean), tl.fma(s, r, mean)


@triton.jit
def nearer_tail(x, scale, tail):
    """The mass of the nearer tail, from 2^31 - |x|."""
    to_end = x ^ (x >> 31) ^ 0x7FFFFFFF | 1
    return tl.fma(to_end.to(tl.float32), scale, tail)


@triton.jit
def truncated32(word, std, mean, low, high, scale, tail):
    x = odd(word)
    q = x.to(tl.float32) * scale
    nearer = nearer_tail(x, scale, tail)
    y = tl.fma(-nearer, nearer, nearer)
    n = tl.fma(y, 0.174433514476, 1.33527851105)
    n = tl.fma(n, y, 0.358626157045)
    n = tl.fma(n, y, 0.0153024345636)
    n = tl.fma(n, y, 8.92515236046e-5)
    d = y + 0.61335504055
    d = tl.fma(d, y, 0.0692181810737)
    d = tl.fma(d, y, 0.00166507216636)
    d = tl.fma(d, y, 5.8332025219e-6)
    return bounded(tl.fma(q * tl.fma(q * q, tl.div_rn(n, d), 2.5066282746), std, mean), low, high)


@triton.jit
def wide32(word, std, mean, low, high, scale, tail):
    x = odd(word)
    q = x.to(tl.float32) * scale
    nearer = nearer_tail(x, scale, tail)
    y4 = 4.0 * tl.fma(-nearer, nearer, nearer)
    z = minus_two_ln(y4, y4 - 1.0)
    n = tl.fma(z, 0.0491795651615, 30.1309280396)
    n = tl.fma(n, z, 945.962646484)
    n = tl.fma(n, z, 22140.5195312)
    n = tl.fma(n, z, 220180.625)
    n = tl.fma(n, z, 3051859.5)
    d = z + 139.360778809
    d = tl.fma(d, z, 2646.08447266)
    d = tl.fma(d, z, 79929.625)
    d = tl.fma(d, z, 439554.84375)
    d = tl.fma(d, z, 9301132.0)
    return bounded(tl.fma(q * tl.fma(z, tl.div_rn(n, d), 2.5066282746), std, mean), low, high)


@triton.jit
def single(word, c0, c1, c2, KERNEL: tl.constexpr):
    """The float32 value of one word; the constants are pairs, in the order of the structures in kernels.pxi."""
    if KERNEL == _UNIFORM:
        return odd(word).to(tl.float32) * first_single(c0)
    elif KERNEL == _RANGE:
        value = tl.fma(odd(word).to(tl.float32), first_single(c0), second_single(c0))
        return bounded(value, first_single(c1), second_single(c1))
    else:
        std, mean, low, high = first_single(c0), second_single(c0), first_single(c1), second_single(c1)
        if KERNEL == _TRUNCATED_2SIGMA:
            return truncated32(word, std, mean, low, high, first_single(c2), second_single(c2))
        else:
            return wide32(word, std, mean, low, high, first_single(c2), second_single(c2))


# ---- values, float64


@triton.jit
def signed62(a, b):
    b = ((b >> 1) | 1).to(tl.int32, bitcast=True).to(tl.float64)
    return a.to(tl.int32, bitcast=True).to(tl.float64) * 2147483648.0 + b


@triton.jit
def ln(u, u_minus_1):
    m = u.to(tl.int64, bitcast=True) + 0x95F619980C433  # 1.0 - sqrt(1/2), as bits
    e = (m >> 52).to(tl.int32).to(tl.float64) - 1023.0
    m = (m & 0xFFFFFFFFFFFFF) + 0x3FE6A09E667F3BCD
    f = tl.where(e == 0.0, u_minus_1, m.to(tl.float64, bitcast=True) - 1.0)
    s = f / (2.0 + f)
    z = s * s
    t = z * 0.14795474487550899199 + 0.1531409890171908209
    t = t * z + 0.18183562402612847476
    t = t * z + 0.22222198610829796605
    t = t * z + 0.28571428742015097644
    t = t * z + 0.39999999999416373518
    t = t * z + 0.66666666666667341553
    return f - s * (f - t * z) + e * 0.6931471805599453


@triton.jit
def normal64(a, b, angle_a, angle_b, std, mean):
    y = signed62(a, b)
    u = tl.abs(y) * 1.0842021724855044e-19  # 2^-63
    r = tl.sqrt(ln(tl.where(y < 0.0, 1.0 - u, u), -u) * -2.0) * std
    turn = ((angle_a << 2).to(tl.int32, bitcast=True) >> 2).to(tl.uint32, bitcast=True)
    y = signed62(turn, angle_b) * 8.673617379884035e-19  # 2^-60
    z = y * y
    s = z * 6.8771008436230222812e-12 - 1.7571492941602172345e-9
    s = s * z + 3.1336162166337671758e-7
    s = s * z - 0.000036576204158456388495
    s = s * z + 0.0024903945701887362592
    s = s * z - 0.080745512188280530202
    s = s * z + 0.78539816339744830701
    s = s * y
    c = z * -3.8581555595630290954e-13 + 1.1500511888053235558e-10
    c = c * z - 2.4611364051063324151e-8
    c = c * z + 3.5908604460588552423e-6
    c = c * z - 0.00032599188692675889011
    c = c * z + 0.015854344243815425962
    c = c * z - 0.30842513753404245381
    c = c * z + 1.0
    s = s * r
    # The sign by its bit: Triton's -c is 0.0 - c, which has no negative zero.
    sign = (angle_a.to(tl.uint64) << 33) & 0x8000000000000000
    c = ((c * r).to(tl.uint64, bitcast=True) ^ sign).to(tl.float64, bitcast=True)
    swap = angle_a >= 0x80000000
    return tl.where(swap, s, c) + mean, tl.where(swap, c, s) + mean


@triton.jit
def double(a, b, c0, c1, c2, c3, KERNEL: tl.constexpr):
    value = signed62(a, b) * c0.to(tl.float64, bitcast=True)
    if KERNEL == _RANGE:
        value = value + c1.to(tl.float64, bitcast=True)
        value = bounded(value, c2.to(tl.float64, bitcast=True), c3.to(tl.float64, bitcast=True))
    return value


# ---- values, rounded


@triton.jit
def round_to(y, MANTISSA: tl.constexpr, BIAS: tl.constexpr):
    """A float32 as the bits of a smaller float, rounded to nearest, ties to even. The kernels give no value beyond the
    largest number. A subnormal is rounded by adding a power of two, whose last place is the subnormals'."""
    SHIFT: tl.constexpr = 23 - MANTISSA
    STEP: tl.constexpr = 24 - BIAS - MANTISSA  # the exponent of that power
    b = tl.abs(y)
    small = (b + 2.0**STEP).to(tl.int32, bitcast=True) - ((127 + STEP) << 23)
    b = b.to(tl.int32, bitcast=True)
    b = (b + (((b >> SHIFT) & 1) + ((1 << (SHIFT - 1)) - 1 - ((127 - BIAS) << 23)))) >> SHIFT
    return tl.where(b < (1 << MANTISSA), small, b)


@triton.jit
def rounded(y, FORMAT: tl.constexpr):
    """A float32 value in the format of memory: itself, or its bits as an int."""
    if FORMAT == _FLOAT32:
        return y
    else:
        bits = y.to(tl.uint32, bitcast=True)
        if FORMAT == _BFLOAT16:
            return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).to(tl.int16)
        else:
            sign = (bits >> 31).to(tl.int32)
            if FORMAT == _FLOAT16:
                return (round_to(y, 10, 15) | (sign << 15)).to(tl.int16)
            elif FORMAT == _E4M3:
                return (round_to(y, 3, 7) | (sign << 7)).to(tl.int8)
            else:
                return (round_to(y, 2, 15) | (sign << 7)).to(tl.int8)


# ---- fill


@triton.jit
def values(tile, lane, key0, key1, key2, key3, c0, c1, c2, c3, KERNEL: tl.constexpr, FORMAT: tl.constexpr):
    """Elements 16 * k + lane of each tile, as a tuple of 16, of float64 8."""
    v = ()
    if KERNEL == _CONSTANT:
        if FORMAT == _FLOAT64:
            value = (tile * 0 + lane * 0 + c0).to(tl.float64, bitcast=True)
            for _ in tl.static_range(8):
                v = v + (value,)
        else:
            value = rounded(first_single(tile * 0 + lane * 0 + c0), FORMAT)
            for _ in tl.static_range(16):
                v = v + (value,)
        return v
    else:
        x = chacha8(tile, lane, key0, key1, key2, key3)
        if KERNEL == _NORMAL:
            second = ()
            if FORMAT == _FLOAT64:
                std, mean = c0.to(tl.float64, bitcast=True), c1.to(tl.float64, bitcast=True)
                for k in tl.static_range(4):
                    c, s = normal64(x[k], x[k + 8], x[k + 4], x[k + 12], std, mean)
                    v = v + (c,)
                    second = second + (s,)
            else:
                for k in tl.static_range(8):
                    c, s = normal32(x[k], x[k + 8], first_single(c0), second_single(c0))
                    v = v + (rounded(c, FORMAT),)
                    second = second + (rounded(s, FORMAT),)
            v = v + second
        elif FORMAT == _FLOAT64:
            for k in tl.static_range(8):
                v = v + (double(x[k], x[k + 8], c0, c1, c2, c3, KERNEL),)
        else:
            for k in tl.static_range(16):
                v = v + (rounded(single(x[k], c0, c1, c2, KERNEL), FORMAT),)
        return v


@triton.jit
def wide(position, key0, key1, key2, key3, c0, c1, c2, c3):
    """The scalars as int64: Triton's interpreter takes an int for an int32 or uint32 where it fits, whatever the
    parameter's type."""
    zero = tl.program_id(0).to(tl.int64) * 0
    return (
        position + zero, key0 + zero, key1 + zero, key2 + zero, key3 + zero,
        c0 + zero, c1 + zero, c2 + zero, c3 + zero,
    )  # fmt: skip


_STREAM = ["position", "key0", "key1", "key2", "key3", "c0", "c1", "c2", "c3"]
_AXES = ["runs", "length", "tiles", "size1", "size2", "rows", "step0", "step1", "step2"]
_MEMORY = ["memory0", "memory1", "memory2", "memory3"]


@triton.jit(do_not_specialize=[*_STREAM, "n"], do_not_specialize_on_alignment=["out"])
def fill_kernel(
    out, position: tl.int64, n: tl.int64,
    key0: tl.int64, key1: tl.int64, key2: tl.int64, key3: tl.int64,
    c0: tl.int64, c1: tl.int64, c2: tl.int64, c3: tl.int64,
    KERNEL: tl.constexpr, FORMAT: tl.constexpr, TILES: tl.constexpr,
):  # fmt: skip
    """Write elements position .. position + n - 1 to contiguous memory, TILES tiles by each program."""
    SHIFT: tl.constexpr = 7 if FORMAT == _FLOAT64 else 8  # a tile has 128 or 256 elements
    position, key0, key1, key2, key3, c0, c1, c2, c3 = wide(position, key0, key1, key2, key3, c0, c1, c2, c3)
    lane = tl.arange(0, _LANES)[None, :]
    t = tl.arange(0, TILES)[:, None]
    group = tl.program_id(0).to(tl.int64) * TILES
    v = values((position >> SHIFT) + group + t, lane, key0, key1, key2, key3, c0, c1, c2, c3, KERNEL, FORMAT)
    begin = (group << SHIFT) - (position & ((1 << SHIFT) - 1))  # where the first tile begins, in elements from `out`
    within = (t << SHIFT) + lane
    if (begin >= 0) & (begin + (TILES << SHIFT) <= n):
        for k in tl.static_range(len(v)):
            tl.store(out + begin + (within + 16 * k), v[k])
    else:
        for k in tl.static_range(len(v)):
            e = begin + (within + 16 * k)
            tl.store(out + e, v[k], mask=(e >= 0) & (e < n))


@triton.jit(do_not_specialize=_STREAM + _AXES + _MEMORY, do_not_specialize_on_alignment=["out", "ids"])
def gather_kernel(
    out, ids, position: tl.int64, runs: tl.int64, length: tl.int64, tiles: tl.int64,
    size1: tl.int64, size2: tl.int64, rows: tl.int64, step0: tl.int64, step1: tl.int64, step2: tl.int64,
    memory0: tl.int64, memory1: tl.int64, memory2: tl.int64, memory3: tl.int64,
    key0: tl.int64, key1: tl.int64, key2: tl.int64, key3: tl.int64,
    c0: tl.int64, c1: tl.int64, c2: tl.int64, c3: tl.int64,
    KERNEL: tl.constexpr, FORMAT: tl.constexpr, AXES: tl.constexpr, IDS: tl.constexpr, ONE: tl.constexpr,
    DENSE: tl.constexpr, TILES: tl.constexpr,
):  # fmt: skip
    """Write runs of `length` consecutive elements, of which each touches at most `tiles` tiles.

    Run (i, j, k) begins at element position + i * step0 + j * step1 + k * step2 and goes to the memory from
    i * memory0 + j * memory1 + k * memory2 on, where its elements are memory3 apart. Only the first AXES - 1 of i, j, k
    count. With IDS, ids[i] stands for i in the stream, counted from `rows` if it is negative; an id that is outside of
    the rows writes nothing. ONE says that `tiles` is 1, DENSE that `memory3` is.
    """
    SHIFT: tl.constexpr = 7 if FORMAT == _FLOAT64 else 8
    position, key0, key1, key2, key3, c0, c1, c2, c3 = wide(position, key0, key1, key2, key3, c0, c1, c2, c3)
    lane = tl.arange(0, _LANES)[None, :]
    task = tl.program_id(0).to(tl.int64) * TILES + tl.arange(0, TILES)[:, None]
    run, t = task, task * 0
    if not ONE:
        run = task // tiles
        t = task % tiles
    inside = run < runs
    i = run
    if AXES == 4:
        k = i % size2
        i = i // size2
        position += k * step2
        out += k * memory2
    if AXES >= 3:
        j = i % size1
        i = i // size1
        position += j * step1
        out += j * memory1
    out += i * memory0
    if IDS:
        i = tl.load(ids + i, mask=inside, other=0)
        i = tl.where(i < 0, i + rows, i)
        inside = inside & (i >= 0) & (i < rows)
        i = tl.where(inside, i, 0)
    position += i * step0
    v = values((position >> SHIFT) + t, lane, key0, key1, key2, key3, c0, c1, c2, c3, KERNEL, FORMAT)
    begin = (t << SHIFT) - (position & ((1 << SHIFT) - 1))  # where the tile begins, in elements from its run's first
    for k in tl.static_range(len(v)):
        e = begin + (lane + 16 * k)
        place = out + e
        if not DENSE:
            place = out + e * memory3
        tl.store(place, v[k], mask=inside & (e >= 0) & (e < length))


# ---- the host's part


def serves(sampler: "Sampler") -> bool:
    """Whether there is a kernel for a sampler's distribution in its dtype."""
    return sampler.dtype.name in FORMATS and sampler.kernel in (
        _KERNELS_64 if sampler.dtype.name == "float64" else _KERNELS
    )


def _scalars(sampler: "Sampler") -> tuple[int, ...]:
    """The key, and the constants as four pairs of float32 or four float64, as eight int64."""
    single = sampler.dtype.name != "float64"
    constants = sampler.constants + (0.0,) * ((8 if single else 4) - len(sampler.constants))
    return unpack("<8q", sampler.key + pack("<8f" if single else "<4d", *constants))


def _launch(kernel: Any, sampler: "Sampler", tiles: int, arguments: tuple[Any, ...], **options: Any) -> None:
    # Each launch has its own key, so nothing of it may be a constant of the compiled kernel.
    kernel[(-(-tiles // TILES),)](
        *arguments, *_scalars(sampler), KERNEL=sampler.kernel, FORMAT=FORMATS[sampler.dtype.name], TILES=TILES,
        num_warps=WARPS, **EXACT, **options,
    )  # fmt: skip


def _tile_elements(sampler: "Sampler") -> int:
    return 128 if sampler.dtype.name == "float64" else 256


def fill(sampler: "Sampler", out: Any, position: int, n: int) -> None:
    """Write elements position .. position + n - 1 to the contiguous memory of `out`: floats of 32 or 64 bits as
    themselves, smaller ones as ints of their size."""
    elements = _tile_elements(sampler)
    _launch(fill_kernel, sampler, (position % elements + n + elements - 1) // elements, (out, position, n))


def gather(
    sampler: "Sampler", out: Any, position: int, shape: tuple[int, ...], memory_strides: tuple[int, ...],
    strides: tuple[int, ...], ids: Any = None, rows: int = 0,
) -> None:  # fmt: skip
    """Write elements to strided memory: index (i, j, ...) of at most MAX_AXES axes gets element position +
    i * strides[0] + j * strides[1] + ... of the stream. Both kinds of strides are in elements. The memory is as
    for ``fill``.

    With `ids`, int64s in contiguous memory beside `out`, ids[i] stands for i in the first axis, counted from `rows` if
    it is negative. Where an id is not one of the rows, nothing is written.
    """
    if strides[-1] != 1 or (ids is not None and len(shape) == 1):  # each element is a run of its own
        shape, memory_strides, strides = (*shape, 1), (*memory_strides, 1), (*strides, 1)
    if len(shape) == 1:
        shape, memory_strides, strides = (1, *shape), (0, *memory_strides), (0, *strides)
    *sizes, length = shape
    runs = 1
    for size in sizes:
        runs *= size
    # The most tiles that a run touches: it begins at a multiple of `grain` elements, after `position`, in a tile.
    elements = _tile_elements(sampler)
    grain = gcd(elements, *strides[:-1])
    tiles = (position % grain + elements - grain + length + elements - 1) // elements
    fill_up = (1,) * (MAX_AXES + 1 - len(shape))
    size1, size2 = (*sizes[1:], *fill_up)
    _launch(
        gather_kernel, sampler, runs * tiles,
        (out, out if ids is None else ids, position, runs, length, tiles, size1, size2, rows,
         *strides[:-1], *fill_up, *memory_strides[:-1], *fill_up, memory_strides[-1]),
        AXES=len(shape), IDS=ids is not None, ONE=tiles == 1, DENSE=memory_strides[-1] == 1,
    )  # fmt: skip

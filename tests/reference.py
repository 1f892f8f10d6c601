"""The stream contract, version 1, in plain NumPy: slow, short, and the specification that every kernel must equal bit
for bit. It needs IEEE 754 arithmetic in a written order and nothing else; NumPy has no fused multiply-add, so `fused`
makes one of float64 arithmetic.

``elements(kernel, dtype, key, p, position, n)`` has the kernels' own signature; ``p`` is what
``xavierfast._core.distributions`` computes from a distribution's parameters.
"""

import numpy as np

WORDS, CONSTANT, UNIFORM, RANGE, NORMAL, TRUNCATED_2SIGMA, TRUNCATED_SYMMETRIC, TRUNCATED_ANY = range(8)
UINT32, FLOAT32, FLOAT64, FLOAT16, BFLOAT16, COMPLEX64, COMPLEX128 = range(7)
f32, f64, i32, u32, u64 = np.float32, np.float64, np.int32, np.uint32, np.uint64


def rotate(x, bits):
    return x << u32(bits) | x >> u32(32 - bits)


def quarter_round(x, a, b, c, d):
    for p, q, r, bits in ((a, b, d, 16), (c, d, b, 12), (a, b, d, 8), (c, d, b, 7)):
        x[p] += x[q]
        x[r] = rotate(x[r] ^ x[p], bits)


def chacha8(key, blocks, nonce=bytes(8)):
    """ChaCha with 8 rounds: 256-bit key, 64-bit counters `blocks`, 64-bit nonce; the result is (16, len(blocks))."""
    blocks = np.asarray(blocks, u64)
    x = np.empty((16, len(blocks)), u32)
    x[:4] = np.frombuffer(b"expand 32-byte k", "<u4")[:, None]
    x[4:12] = np.frombuffer(key, "<u4")[:, None]
    x[12] = blocks & u64(0xFFFFFFFF)
    x[13] = blocks >> u64(32)
    x[14:] = np.frombuffer(nonce, "<u4")[:, None]
    start = x.copy()
    for _ in range(4):
        for column in range(4):
            quarter_round(x, column, 4 + column, 8 + column, 12 + column)
        for column in range(4):
            quarter_round(x, column, 4 + (column + 1) % 4, 8 + (column + 2) % 4, 12 + (column + 3) % 4)
    return x + start


def tiles(key, first, count):
    """Words of `count` tiles, (count, 256): word 16 * w + l of tile t is word w of block 16 * t + l."""
    blocks = u64(16 * first) + np.arange(16 * count, dtype=u64)
    return chacha8(key, blocks).reshape(16, count, 16).transpose(1, 0, 2).reshape(count, 256)


def fused(a, b, c):
    """a * b + c in float32, rounded once: fusedMultiplyAdd of IEEE 754-2008.

    The product of two float32 is exact in float64. Its sum with c is rounded to odd, which is towards zero, with the
    last bit set if anything was left over; of such a sum the rounding to float32 is that of the exact one (Boldo and
    Melquiond 2008).
    """
    product, c = np.multiply(a, b, dtype=f64), f64(c)
    total = product + c
    part = total - product
    rest = (product - (total - part)) + (c - part)  # total + rest is exact: Knuth's TwoSum
    bits = total.view(u64) - (rest * total < 0)  # away from zero by rounding: one back
    return (bits | (rest != 0)).view(f64).astype(f32)


def horner32(x, *coefficients):
    """The polynomial in x, of float32 coefficients from the highest power down, each step fused."""
    y = f32(coefficients[0])
    for c in coefficients[1:]:
        y = fused(y, x, f32(c))
    return y


def horner(x, *coefficients):
    y = coefficients[0] * x + coefficients[1]
    for c in coefficients[2:]:
        y = y * x + c
    return y


def minus_two_ln(u, u_minus_1):
    bits = u.view(i32) - i32(0x3F3504F3)
    e = bits >> i32(23)
    f = np.where(e == 0, u_minus_1, ((bits & i32(0x7FFFFF)) + i32(0x3F3504F3)).view(f32) - f32(1))
    t = horner32(
        f, -0.174008758253, 0.285349738051, -0.298295344234, 0.331551693559, -0.399261277287, 0.50002674075,
        -0.666678214716, 1, -2,
    )  # fmt: skip
    return fused(f32(-1.3862943611), e.astype(f32), t * f)


def uniform32(w, p):
    return (w.view(i32) | i32(1)).astype(f32) * f32(p[0])


def range32(w, p):
    return bounded(fused((w.view(i32) | i32(1)).astype(f32), f32(p[0]), f32(p[1])), p)


def turn32(word, r, mean=0):
    """r times cosine and sine of the word's angle, plus the mean."""
    y = (word << u32(2) | u32(2)).view(i32).astype(f32) * f32(2**-31)
    z = y * y
    s = horner32(z, -3.660921720438637e-05, 0.002490994054824114, -0.08074581623077393, 0.7853981852531433) * y
    c = horner32(z, -0.00031898077577352524, 0.015850206837058067, -0.3084244728088379, 1)
    c = np.where(word & u32(1 << 30), -c, c)
    swap = word >> u32(31) == 1
    return fused(np.where(swap, s, c), r, f32(mean)), fused(np.where(swap, c, s), r, f32(mean))


def normal32(w, p):
    x = w[:, :128].view(i32) | i32(1)
    a = np.abs(x.astype(f32)) * f32(2**-32)
    r = np.sqrt(minus_two_ln(np.where(x < 0, f32(1) - a, a), -a)) * f32(p[0])
    return np.concatenate(turn32(w[:, 128:], r, p[1]), axis=1)


def bounded(y, p):
    """No further than p[2] and p[3]."""
    return np.minimum(np.maximum(y, y.dtype.type(p[2])), y.dtype.type(p[3]))


def central32(w, p):
    """q, in (-1/2, 1/2), and t, the mass of the nearer tail."""
    x = w.view(i32) | i32(1)
    rest = (2**31 - np.abs(x.astype(np.int64))).astype(f32)
    return x.astype(f32) * f32(p[4]), fused(rest, f32(p[4]), f32(p[5]))


def truncated32(w, p):
    q, t = central32(w, p)
    y = fused(-t, t, t)
    n = horner32(y, 0.174433514476, 1.33527851105, 0.358626157045, 0.0153024345636, 8.92515236046e-5)
    d = horner32(y, 1, 0.61335504055, 0.0692181810737, 0.00166507216636, 5.8332025219e-6)
    return bounded(fused(q * fused(q * q, n / d, f32(2.5066282746)), f32(p[0]), f32(p[1])), p)


def wide32(w, p):
    q, t = central32(w, p)
    t = f32(4) * fused(-t, t, t)
    z = minus_two_ln(t, t - f32(1))
    n = horner32(z, 0.0491795651615, 30.1309280396, 945.962646484, 22140.5195312, 220180.625, 3051859.5)
    d = horner32(z, 1, 139.360778809, 2646.08447266, 79929.625, 439554.84375, 9301132)
    return bounded(fused(q * fused(z, n / d, f32(2.5066282746)), f32(p[0]), f32(p[1])), p)


def signed62(a, b):
    return a.view(i32).astype(f64) * 2147483648.0 + (b >> u32(1) | u32(1)).astype(f64)


def ln(u, u_minus_1):
    bits = u.view(u64) + u64(0x3FF0000000000000 - 0x3FE6A09E667F3BCD)
    e = (bits >> u64(52)).astype(f64) - 1023.0
    f = np.where(e == 0, u_minus_1, ((bits & u64(0xFFFFFFFFFFFFF)) + u64(0x3FE6A09E667F3BCD)).view(f64) - 1)
    s = f / (2 + f)
    z = s * s
    t = horner(
        z, 0.14795474487550899199, 0.1531409890171908209, 0.18183562402612847476, 0.22222198610829796605,
        0.28571428742015097644, 0.39999999999416373518, 0.66666666666667341553,
    )  # fmt: skip
    return f - s * (f - t * z) + 0.6931471805599453 * e


def uniform64(w, p):
    return signed62(w[:, :128], w[:, 128:]) * p[0]


def range64(w, p):
    return bounded(signed62(w[:, :128], w[:, 128:]) * p[0] + p[1], p)


def turn64(a, b, r, mean=0.0):
    y = signed62(((a << u32(2)).view(i32) >> i32(2)).view(u32), b) * 2.0**-60
    z = y * y
    s = y * horner(
        z, 6.8771008436230222812e-12, -1.7571492941602172345e-9, 3.1336162166337671758e-7, -0.000036576204158456388495,
        0.0024903945701887362592, -0.080745512188280530202, 0.78539816339744830701,
    )  # fmt: skip
    c = horner(
        z, -3.8581555595630290954e-13, 1.1500511888053235558e-10, -2.4611364051063324151e-8, 3.5908604460588552423e-6,
        -0.00032599188692675889011, 0.015854344243815425962, -0.30842513753404245381, 1.0,
    )  # fmt: skip
    c, s = np.where(a & u32(1 << 30), -(c * r), c * r), s * r
    swap = a >> u32(31) == 1
    return np.where(swap, s, c) + mean, np.where(swap, c, s) + mean


def normal64(w, p):
    y = signed62(w[:, :64], w[:, 128:192])
    a = np.abs(y) * 2.0**-63
    r = np.sqrt(-2 * ln(np.where(y < 0, 1 - a, a), -a)) * p[0]
    return np.concatenate(turn64(w[:, 64:128], w[:, 192:], r, p[1]), axis=1)


def complex64(kernel, w, p):
    x = w[:, :128].view(i32) | i32(1)
    if kernel == UNIFORM:
        r = np.sqrt(np.abs(x.astype(f32)) * f32(2**-31)) * f32(p[0])
    else:
        scale, cut, share, rest = map(f32, p)
        a = np.abs(x.astype(f32)) * f32(2**-32)
        u = np.where(x < 0, fused(-share, a, f32(1)), fused(share, a, rest))
        u_minus_1 = np.where(x < 0, fused(-share, a, f32(0)), fused(share, a, -share))
        r = np.minimum(np.sqrt(minus_two_ln(u, u_minus_1)) * scale, cut)
    re, im = turn32(w[:, 128:], r)
    return re + im * np.complex64(1j)


def complex128(kernel, w, p):
    y = signed62(w[:, :64], w[:, 128:192])
    if kernel == UNIFORM:
        r = np.sqrt(np.abs(y) * 2.0**-62) * p[0]
    else:
        scale, cut, share, rest = p
        a = np.abs(y) * 2.0**-63
        u = np.where(y < 0, 1 - share * a, rest + share * a)
        r = np.minimum(np.sqrt(-2 * ln(u, -share * np.where(y < 0, a, 1 - a))) * scale, cut)
    re, im = turn64(w[:, 64:128], w[:, 192:], r)
    return re + im * 1j


def halley(x, target):
    u = 1 / x
    n = horner(
        u, 20105.061732419945519, 32215.908951553139553, 25254.6036622891137, 12468.671745743200841,
        4221.2431326120280487, 1005.6105423078465396, 166.23330872911832495, 17.764411301012966238, 1.0,
    )  # fmt: skip
    d = horner(
        u, 16041.516584952091701, 38503.867229309435494, 42851.098954812692859, 29153.376133453365813,
        13438.753586369428456, 4385.4764389437579493, 1023.3749536376363463, 167.23330872893828016,
        17.764411301013404528, 1.0,
    )  # fmt: skip
    m = u * n / d
    g = ln(m, m - 1) - 0.9189385332046727 - 0.5 * x * x - target
    return x + g * m * (1 - 0.5 * g * (1 - x * m))


def quantile(s, nearer, below, p, steps):
    std, mean, _, _, mass, before, after, unit, centre, half = p
    lower = before + mass * np.where(below, nearer, 1 - nearer)
    upper = after + mass * np.where(below, 1 - nearer, nearer)
    below = lower < upper
    least = np.where(below, lower, upper)
    target = unit + ln(least, least - 1)
    t = np.sqrt(-2 * target)
    x = t - horner(t, 0.010328, 0.802853, 2.515517) / horner(t, 0.001308, 0.189269, 1.432788, 1.0)
    x = np.maximum(x, 1.0)
    for _ in range(steps):
        x = halley(x, target)
    q = centre + half * s
    y = 0.180625 - q * q
    n = horner(
        y, 2509.0809287301226727, 33430.575583588128105, 67265.770927008700853, 45921.953931549871457,
        13731.693765509461125, 1971.5909503065514427, 133.14166789178437745, 3.387132872796366608,
    )  # fmt: skip
    d = horner(
        y, 5226.495278852854561, 28729.085735721942674, 39307.89580009271061, 21213.794301586595867,
        5394.1960214247511077, 687.1870074920579083, 42.313330701600911252, 1.0,
    )  # fmt: skip
    return np.where(y > 0, q * n / d, np.where(below, -x, x)) * std + mean


def quantile32(w, p):
    x = (w.view(i32) | i32(1)).astype(f64)
    return bounded(quantile(x * 2.0**-31, (2.0**31 - np.abs(x)) * 2.0**-32, x < 0, p, 1).astype(f32), p)


def quantile64(w, p):
    a, b = w[:, :128].view(i32).astype(np.int64), (w[:, 128:] >> u32(1) | u32(1)).astype(np.int64)
    n = a * 2**31 + b
    rest = 2**62 - np.abs(n)
    nearer = ((rest >> 31).astype(f64) * 2.0**31 + (rest & (2**31 - 1)).astype(f64)) * 2.0**-63
    return bounded(quantile(signed62(w[:, :128], w[:, 128:]) * 2.0**-62, nearer, n < 0, p, 2), p)


def bfloat16(y):
    """Round to nearest, ties to even, on the 16 bits that go."""
    bits = y.view(u32).astype(u64)
    return (bits + u64(0x7FFF) + (bits >> u64(16) & u64(1)) >> u64(16)).astype(np.uint16)


def elements(kernel, dtype, key, p, position, n):
    """Elements position .. position + n - 1, as an array; of uint16 for bfloat16."""
    size = {FLOAT64: 128, COMPLEX64: 128, COMPLEX128: 64}.get(dtype, 256)
    first = position // size
    count = (position % size + n + size - 1) // size
    w = tiles(key, first, count)
    if kernel == WORDS:
        v = w
    elif dtype in (COMPLEX64, COMPLEX128):
        kind, draw = (np.complex64, complex64) if dtype == COMPLEX64 else (np.complex128, complex128)
        v = np.full((count, size), complex(*p), kind) if kernel == CONSTANT else draw(kernel, w, p)
    elif dtype == FLOAT64:
        map64 = {UNIFORM: uniform64, RANGE: range64, NORMAL: normal64, TRUNCATED_ANY: quantile64}
        v = np.full((count, size), p[0]) if kernel == CONSTANT else map64[kernel](w, p)
    else:
        map32 = {
            UNIFORM: uniform32, RANGE: range32, NORMAL: normal32, TRUNCATED_2SIGMA: truncated32,
            TRUNCATED_SYMMETRIC: wide32, TRUNCATED_ANY: quantile32,
        }  # fmt: skip
        v = np.full((count, size), f32(p[0])) if kernel == CONSTANT else map32[kernel](w, p)
        if dtype != FLOAT32:
            v = v.astype(np.float16) if dtype == FLOAT16 else bfloat16(v)
    return v.reshape(-1)[position % size :][:n]

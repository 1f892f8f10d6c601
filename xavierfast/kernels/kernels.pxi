# The one source of every level: portable.pyx, avx2.pyx and avx512.pyx include it and nothing else.
#
# words     ChaCha8 under a key (Bernstein 2008), sixteen blocks at a time. A tile is 256 words, kept word-major:
#
#               w[16 * word + lane]  =  word `word` of block 16 * tile + lane          lane = 0 .. 15
#
#           so sixteen lanes of one word are neighbours and no vector unit ever transposes. We are locked in to this
#           interlacing of sixteen, whatever the width of a machine's vectors.
# values    A tile of words becomes 256 elements (64-bit formats: 128, which take words j and j + 128).
# fill      Tiles become "n elements from position p into this memory".
#
# Every loop is written for the compiler's vectoriser: fixed trip counts, no calls, no branches but selects. Only
# + - * / sqrt, integer operations and int -> float conversion of written order appear, and in float32 the multiply-add
# that is rounded once, fused(a, b, c) = a * b + c, where it is written and nowhere else (-ffp-contract=off): so every
# level, compiler and machine gives the same bits. Polynomials are minimax fits (Remez) in Horner's form, whose steps are
# fused in float32; each says its error.

from cpython.buffer cimport PyBUF_STRIDES, PyBuffer_Release, PyObject_GetBuffer
from libc.math cimport fabs, fabsf, sqrt, sqrtf
from libc.stdint cimport int16_t, int32_t, int64_t, uint16_t, uint32_t, uint64_t, uintptr_t
from libc.string cimport memcmp, memcpy

cdef extern from "environment.h" nogil:
    ctypedef struct fenv_t:
        pass
    void enter_default(fenv_t* callers, const void* stream) noexcept
    void leave_default(const fenv_t* callers) noexcept

cdef extern from "fused.h" nogil:
    float fused(float a, float b, float c) noexcept

cdef extern from "move.h" nogil:
    void move_lines(void* destination, const void* source, size_t size) noexcept
    void move_fence() noexcept

# The numbers by which distributions and formats cross the seam; kernels/__init__.py names them for Python.
cdef enum:
    WORDS, CONSTANT, UNIFORM, RANGE, NORMAL, TRUNCATED, WIDE, QUANTILE

cdef enum:
    UINT32, FLOAT32, FLOAT64, FLOAT16, BFLOAT16, COMPLEX64, COMPLEX128

cdef enum:
    LANES = 16
    TILE = 256  # words
    HALF = 128  # words, or elements of 8 bytes
    QUARTER = 64  # words, or elements of 16 bytes
    BATCH = 2  # tiles that are finished in level-1 cache before they are streamed out
    LINE = 64  # bytes

cdef union bits32:
    float f
    int32_t i
    uint32_t u

cdef union bits64:
    double f
    uint64_t u

cdef union scratch_t:  # a tile of any form
    float f[TILE]
    double d[HALF]


# ---- words

cdef inline void quarter_round(uint32_t* a, uint32_t* b, uint32_t* c, uint32_t* d) noexcept nogil:
    a[0] += b[0]; d[0] ^= a[0]; d[0] = d[0] << 16 | d[0] >> 16
    c[0] += d[0]; b[0] ^= c[0]; b[0] = b[0] << 12 | b[0] >> 20
    a[0] += b[0]; d[0] ^= a[0]; d[0] = d[0] << 8 | d[0] >> 24
    c[0] += d[0]; b[0] ^= c[0]; b[0] = b[0] << 7 | b[0] >> 25


cdef inline void double_round(
    uint32_t* x0, uint32_t* x1, uint32_t* x2, uint32_t* x3, uint32_t* x4, uint32_t* x5, uint32_t* x6, uint32_t* x7,
    uint32_t* x8, uint32_t* x9, uint32_t* xa, uint32_t* xb, uint32_t* xc, uint32_t* xd, uint32_t* xe, uint32_t* xf,
) noexcept nogil:
    quarter_round(x0, x4, x8, xc)
    quarter_round(x1, x5, x9, xd)
    quarter_round(x2, x6, xa, xe)
    quarter_round(x3, x7, xb, xf)
    quarter_round(x0, x5, xa, xf)
    quarter_round(x1, x6, xb, xc)
    quarter_round(x2, x7, x8, xd)
    quarter_round(x3, x4, x9, xe)


cdef void chacha8(const uint32_t* key, uint64_t tile, uint32_t* w) noexcept nogil:
    """The 256 words of a tile: blocks 16 * tile + lane, 64-bit counter, nonce 0."""
    cdef uint32_t x0, x1, x2, x3, x4, x5, x6, x7, x8, x9, xa, xb, xc, xd, xe, xf
    cdef uint32_t k0 = key[0], k1 = key[1], k2 = key[2], k3 = key[3], k4 = key[4], k5 = key[5], k6 = key[6], k7 = key[7]
    cdef uint32_t low = <uint32_t> (tile << 4), high = <uint32_t> (tile >> 28)
    cdef int lane
    for lane in range(LANES):
        x0 = 0x61707865; x1 = 0x3320646e; x2 = 0x79622d32; x3 = 0x6b206574  # "expand 32-byte k"
        x4 = k0; x5 = k1; x6 = k2; x7 = k3; x8 = k4; x9 = k5; xa = k6; xb = k7
        xc = low + lane; xd = high; xe = 0; xf = 0
        # Written out: a loop over the rounds stops gcc from vectorising the loop over the lanes (13 GB/s become 1.5).
        double_round(&x0, &x1, &x2, &x3, &x4, &x5, &x6, &x7, &x8, &x9, &xa, &xb, &xc, &xd, &xe, &xf)
        double_round(&x0, &x1, &x2, &x3, &x4, &x5, &x6, &x7, &x8, &x9, &xa, &xb, &xc, &xd, &xe, &xf)
        double_round(&x0, &x1, &x2, &x3, &x4, &x5, &x6, &x7, &x8, &x9, &xa, &xb, &xc, &xd, &xe, &xf)
        double_round(&x0, &x1, &x2, &x3, &x4, &x5, &x6, &x7, &x8, &x9, &xa, &xb, &xc, &xd, &xe, &xf)
        w[lane] = x0 + 0x61707865; w[16 + lane] = x1 + 0x3320646e
        w[32 + lane] = x2 + 0x79622d32; w[48 + lane] = x3 + 0x6b206574
        w[64 + lane] = x4 + k0; w[80 + lane] = x5 + k1; w[96 + lane] = x6 + k2; w[112 + lane] = x7 + k3
        w[128 + lane] = x8 + k4; w[144 + lane] = x9 + k5; w[160 + lane] = xa + k6; w[176 + lane] = xb + k7
        w[192 + lane] = xc + (low + lane); w[208 + lane] = xd + high; w[224 + lane] = xe; w[240 + lane] = xf


# ---- values, float32
#
# A word is read as the odd signed integer x = int32(w) | 1: symmetric about zero, never zero, 31 random bits.

cdef inline void uniform32(const uint32_t* w, const double* p, float* v) noexcept nogil:
    """x * scale, p = (bound * 2^-31,)."""
    cdef float scale = <float> p[0]
    cdef int j
    for j in range(TILE):
        v[j] = <float> (<int32_t> w[j] | 1) * scale


cdef inline void range32(const uint32_t* w, const double* p, float* v) noexcept nogil:
    """As uniform32 about a middle, no further than the first and the last number that the dtype has in the range,
    p = (half the width * 2^-31, middle, first, last)."""
    cdef float scale = <float> p[0], middle = <float> p[1], first = <float> p[2], last = <float> p[3], y
    cdef int j
    for j in range(TILE):
        y = fused(<float> (<int32_t> w[j] | 1), scale, middle)
        y = first if y < first else y
        v[j] = last if y > last else y


cdef inline float minus_two_ln(float u, float u_minus_1) noexcept nogil:
    """-2 ln u for a normal u in (0, 1]. Near 1 it is made from u - 1, which a caller may know better than u."""
    cdef bits32 m
    cdef int32_t e
    cdef float f, t
    m.f = u
    m.i -= 0x3f3504f3  # sqrt(1/2): u = 2^e (1 + f) with sqrt(1/2) <= 1 + f < sqrt(2)
    e = m.i >> 23
    m.i = (m.i & 0x7fffff) + 0x3f3504f3
    f = u_minus_1 if e == 0 else m.f - 1
    t = fused(<float> -0.174008758253, f, <float> 0.285349738051)  # -2 ln(1 + f) / f, relative error 3.2e-8
    t = fused(t, f, <float> -0.298295344234)
    t = fused(t, f, <float> 0.331551693559)
    t = fused(t, f, <float> -0.399261277287)
    t = fused(t, f, <float> 0.50002674075)
    t = fused(t, f, <float> -0.666678214716)
    t = fused(t, f, 1)
    t = fused(t, f, -2)
    return fused(<float> -1.3862943611, <float> e, t * f)  # 2 ln 2


cdef inline float radius32(uint32_t word) noexcept nogil:
    """sqrt(-2 ln u), u = |x| 2^-32 where x > 0 and 1 - |x| 2^-32 where x < 0: all odd multiples of 2^-32 in (0, 1),
    each with the full relative precision of float32 at both ends."""
    cdef int32_t x = <int32_t> word | 1
    cdef float a = fabsf(<float> x) * <float> 2.3283064365386963e-10  # 2^-32
    return sqrtf(minus_two_ln(1 - a if x < 0 else a, -a))


cdef inline void turn32(uint32_t word, float r, float mean, float* first, float* second) noexcept nogil:
    """r times (cos, sin) of the word's angle, about a mean: two bits are the quadrant, 30 an angle in (-pi/4, pi/4) about
    its axis."""
    cdef float y, z
    cdef uint32_t swap
    cdef bits32 c, s
    y = <float> <int32_t> (word << 2 | 2) * <float> 4.656612873077393e-10  # 2^-31: the angle in units of pi/4
    z = y * y
    s.f = fused(<float> -3.660921720438637e-05, z, <float> 0.002490994054824114)  # sin(pi/4 y) / y, relative error 2.8e-8
    s.f = fused(s.f, z, <float> -0.08074581623077393)
    s.f = fused(s.f, z, <float> 0.7853981852531433)
    s.f = s.f * y
    c.f = fused(<float> -0.00031898077577352524, z, <float> 0.015850206837058067)  # cos(pi/4 y), relative error 5.6e-8
    c.f = fused(c.f, z, <float> -0.3084244728088379)
    c.f = fused(c.f, z, 1)
    c.u ^= word << 1 & 0x80000000u
    swap = (c.u ^ s.u) & <uint32_t> (<int32_t> word >> 31)
    c.u ^= swap
    s.u ^= swap
    first[0] = fused(c.f, r, mean)
    second[0] = fused(s.f, r, mean)


cdef inline void normal32(const uint32_t* w, const double* p, float* v) noexcept nogil:
    """Box and Muller (1958), p = (std, mean): elements j and j + 128 share a radius and an angle, and the values are
    symmetric about the mean by construction."""
    cdef float std = <float> p[0], mean = <float> p[1]
    cdef int j
    for j in range(HALF):
        turn32(w[j + HALF], radius32(w[j]) * std, mean, v + j, v + j + HALF)


cdef inline void truncated32(const uint32_t* w, const double* p, float* v) noexcept nogil:
    """The inverse of the normal distribution function between -c and c <= 2,
    p = (std, mean, low, high, (Phi(c) - 1/2) 2^-31, Phi(-c)), low and high in units of the value.

    quantile(1/2 + q) = q (sqrt(2 pi) + q^2 N(y) / D(y)) with y = 1/4 - q^2 = t - t^2, where t, the mass of the nearer
    tail, comes from the complement of x and so keeps its precision.
    """
    cdef float std = <float> p[0], mean = <float> p[1], low = <float> p[2], high = <float> p[3]
    cdef float scale = <float> p[4], tail = <float> p[5], q, t, y, n, d
    cdef int32_t x
    cdef int j
    for j in range(TILE):
        x = <int32_t> w[j] | 1
        q = <float> x * scale
        t = fused(<float> (x ^ x >> 31 ^ 0x7fffffff | 1), scale, tail)  # 2^31 - |x|
        y = fused(-t, t, t)
        n = fused(<float> 0.174433514476, y, <float> 1.33527851105)  # relative error of the whole 1.3e-8
        n = fused(n, y, <float> 0.358626157045)
        n = fused(n, y, <float> 0.0153024345636)
        n = fused(n, y, <float> 8.92515236046e-5)
        d = y + <float> 0.61335504055
        d = fused(d, y, <float> 0.0692181810737)
        d = fused(d, y, <float> 0.00166507216636)
        d = fused(d, y, <float> 5.8332025219e-6)
        t = fused(q * fused(q * q, n / d, <float> 2.5066282746), std, mean)
        t = low if t < low else t
        v[j] = high if t > high else t


cdef inline void wide32(const uint32_t* w, const double* p, float* v) noexcept nogil:
    """As truncated32 for any c, infinite too: quantile(1/2 + q) = q (sqrt(2 pi) + z N(z) / D(z)) with z = -2 ln 4 y."""
    cdef float std = <float> p[0], mean = <float> p[1], low = <float> p[2], high = <float> p[3]
    cdef float scale = <float> p[4], tail = <float> p[5], q, t, z, n, d
    cdef int32_t x
    cdef int j
    for j in range(TILE):
        x = <int32_t> w[j] | 1
        q = <float> x * scale
        t = fused(<float> (x ^ x >> 31 ^ 0x7fffffff | 1), scale, tail)
        t = 4 * fused(-t, t, t)
        z = minus_two_ln(t, t - 1)
        n = fused(<float> 0.0491795651615, z, <float> 30.1309280396)  # relative error of the whole 1e-8
        n = fused(n, z, <float> 945.962646484)
        n = fused(n, z, <float> 22140.5195312)
        n = fused(n, z, 220180.625)
        n = fused(n, z, 3051859.5)
        d = z + <float> 139.360778809
        d = fused(d, z, <float> 2646.08447266)
        d = fused(d, z, 79929.625)
        d = fused(d, z, <float> 439554.84375)
        d = fused(d, z, 9301132)
        t = fused(q * fused(z, n / d, <float> 2.5066282746), std, mean)
        t = low if t < low else t
        v[j] = high if t > high else t


# ---- values, float64
#
# Words a = w[j] and b = w[j + 128] are read as the odd signed integer n = int32(a) 2^31 + (b >> 1 | 1): 62 random bits,
# from two exact int32 -> double conversions and one rounding, which every machine vectorises.

cdef inline double signed62(uint32_t a, uint32_t b) noexcept nogil:
    """n, rounded once."""
    return <double> <int32_t> a * 2147483648.0 + <double> <int32_t> (b >> 1 | 1)


cdef inline double ln(double u, double u_minus_1) noexcept nogil:
    """ln u for a normal u > 0, within 1 ulp. Near 1 it is made from u - 1, which a caller may know better than u."""
    cdef bits64 m, e
    cdef double f, s, z, t
    m.f = u
    m.u += 0x3ff0000000000000u - 0x3fe6a09e667f3bcdu  # sqrt(1/2): u = 2^e (1 + f) with sqrt(1/2) <= 1 + f < sqrt(2)
    e.u = m.u >> 52 | 0x4330000000000000u
    e.f -= 4503599627371519.0  # 2^52 + the bias, 1023
    m.u = (m.u & 0xfffffffffffffu) + 0x3fe6a09e667f3bcdu
    f = u_minus_1 if e.f == 0 else m.f - 1
    s = f / (2 + f)
    z = s * s
    t = 0.14795474487550899199 * z + 0.1531409890171908209  # 2 atanh(s) / s, relative error 1.3e-18
    t = t * z + 0.18183562402612847476
    t = t * z + 0.22222198610829796605
    t = t * z + 0.28571428742015097644
    t = t * z + 0.39999999999416373518
    t = t * z + 0.66666666666667341553
    return f - s * (f - t * z) + 0.6931471805599453 * e.f  # 2 s = f - s f


cdef inline void uniform64(const uint32_t* w, const double* p, double* v) noexcept nogil:
    """n * scale, p = (bound * 2^-62,)."""
    cdef int j
    for j in range(HALF):
        v[j] = signed62(w[j], w[j + 128]) * p[0]


cdef inline void range64(const uint32_t* w, const double* p, double* v) noexcept nogil:
    """As range32, p = (half the width * 2^-62, middle, first, last)."""
    cdef double y
    cdef int j
    for j in range(HALF):
        y = signed62(w[j], w[j + 128]) * p[0] + p[1]
        y = p[2] if y < p[2] else y
        v[j] = p[3] if y > p[3] else y


cdef inline double radius64(uint32_t a, uint32_t b) noexcept nogil:
    """As radius32, with 63 bits."""
    cdef double y = signed62(a, b), u = fabs(y) * 1.0842021724855044e-19  # 2^-63
    return sqrt(-2 * ln(1 - u if y < 0 else u, -u))


cdef inline void turn64(uint64_t a, uint32_t b, double r, double mean, double* first, double* second) noexcept nogil:
    """As turn32, with 60 bits for the angle."""
    cdef double y, z, c, s
    cdef uint64_t swap
    cdef bits64 p, q
    y = signed62(<uint32_t> (<int32_t> (<uint32_t> a << 2) >> 2), b) * 8.673617379884035e-19  # 2^-60
    z = y * y
    s = 6.8771008436230222812e-12 * z - 1.7571492941602172345e-9  # sin(pi/4 y) / y, relative error 3.3e-18
    s = s * z + 3.1336162166337671758e-7
    s = s * z - 0.000036576204158456388495
    s = s * z + 0.0024903945701887362592
    s = s * z - 0.080745512188280530202
    s = s * z + 0.78539816339744830701
    s = s * y
    c = 1.1500511888053235558e-10 - 3.8581555595630290954e-13 * z  # cos(pi/4 y), relative error 3.9e-20
    c = c * z - 2.4611364051063324151e-8
    c = c * z + 3.5908604460588552423e-6
    c = c * z - 0.00032599188692675889011
    c = c * z + 0.015854344243815425962
    c = c * z - 0.30842513753404245381
    c = c * z + 1
    p.f = c * r
    q.f = s * r
    p.u ^= a << 33 & 0x8000000000000000u
    swap = (p.u ^ q.u) & (0 - (a >> 31))
    p.u ^= swap
    q.u ^= swap
    first[0] = p.f + mean
    second[0] = q.f + mean


cdef inline void normal64(const uint32_t* w, const double* p, double* v) noexcept nogil:
    """As normal32, elements j and j + 64: the radius from n of element j, the angle from that of j + 64."""
    cdef int j
    for j in range(QUARTER):
        turn64(w[j + 64], w[j + 192], radius64(w[j], w[j + 128]) * p[0], p[1], v + j, v + j + QUARTER)


# ---- values, complex: an angle and a radius an element, from two words or four
#
# Uniform on the disk of radius p[0]; otherwise normal with standard deviation p[0] in each part and its modulus cut at
# p[1], p = (std, cut, share of the mass within, rest of it), (std, infinite, 1, 0) being all of it.

cdef inline void complex64(const uint32_t* w, int distribution, const double* p, float* v) noexcept nogil:
    cdef float scale = <float> p[0], cut = <float> p[1], share = <float> p[2], rest = <float> p[3], a
    cdef float r[HALF]
    cdef int32_t x
    cdef int j
    if distribution == UNIFORM:
        for j in range(HALF):
            r[j] = sqrtf(fabsf(<float> (<int32_t> w[j] | 1)) * <float> 4.656612873077393e-10) * scale  # 2^-31
    else:
        for j in range(HALF):
            x = <int32_t> w[j] | 1
            a = fabsf(<float> x) * <float> 2.3283064365386963e-10  # 2^-32
            # u = 1 - share a for x < 0, else rest + share a; u - 1 = -share a, else share a - share
            a = sqrtf(minus_two_ln(
                fused(-share if x < 0 else share, a, 1 if x < 0 else rest),
                fused(-share if x < 0 else share, a, 0 if x < 0 else -share),
            ))
            r[j] = cut if a * scale > cut else a * scale
    for j in range(HALF):
        turn32(w[j + HALF], r[j], 0, v + 2 * j, v + 2 * j + 1)


cdef inline void complex128(const uint32_t* w, int distribution, const double* p, double* v) noexcept nogil:
    cdef double share = p[2], rest = p[3], y, a
    cdef double r[QUARTER]
    cdef int j
    if distribution == UNIFORM:
        for j in range(QUARTER):
            r[j] = sqrt(fabs(signed62(w[j], w[j + 128])) * 2.168404344971009e-19) * p[0]  # 2^-62
    else:
        for j in range(QUARTER):
            y = signed62(w[j], w[j + 128])
            a = fabs(y) * 1.0842021724855044e-19  # 2^-63
            a = sqrt(-2 * ln(1 - share * a if y < 0 else rest + share * a, -share * (a if y < 0 else 1 - a)))
            r[j] = p[1] if a * p[0] > p[1] else a * p[0]
    for j in range(QUARTER):
        turn64(w[j + 64], w[j + 192], r[j], 0, v + 2 * j, v + 2 * j + 1)


# ---- values, any bounds: float64 arithmetic, for float32 results too

cdef inline double halley(double x, double target) noexcept nogil:
    """One Halley step towards ln Q(x) = target, Q the upper tail of the normal distribution, x >= 1.

    With Mills' ratio M: Q(x) = M(x) exp(-x^2 / 2) / sqrt(2 pi), so no tail is too far to be represented.
    """
    cdef double u = 1 / x, n, d, m, g
    n = 20105.061732419945519 * u + 32215.908951553139553  # x M(x) for x >= 1.4, relative error 1.7e-16
    n = n * u + 25254.6036622891137
    n = n * u + 12468.671745743200841
    n = n * u + 4221.2431326120280487
    n = n * u + 1005.6105423078465396
    n = n * u + 166.23330872911832495
    n = n * u + 17.764411301012966238
    n = n * u + 1
    d = 16041.516584952091701 * u + 38503.867229309435494
    d = d * u + 42851.098954812692859
    d = d * u + 29153.376133453365813
    d = d * u + 13438.753586369428456
    d = d * u + 4385.4764389437579493
    d = d * u + 1023.3749536376363463
    d = d * u + 167.23330872893828016
    d = d * u + 17.764411301013404528
    d = d * u + 1
    m = u * n / d
    g = ln(m, m - 1) - 0.9189385332046727 - 0.5 * x * x - target  # ln sqrt(2 pi)
    return x + g * m * (1 - 0.5 * g * (1 - x * m))


cdef inline double quantile(double s, double nearer, bint below, const double* p, int steps) noexcept nogil:
    """The truncated normal's value for the draw s in (-1, 1), whose nearer end of (0, 1) is `nearer` away,
    p = (std, mean, low, high, mass, mass below low, mass above high, logarithm of the unit of these masses, centre,
    half).

    In the middle Wichura's AS 241 (1988), in the tails Abramowitz and Stegun 26.2.23 and Halley steps on ln Q.
    """
    cdef double lower, upper, target, t, x, q, y, n, d
    lower = p[5] + p[4] * (nearer if below else 1 - nearer)
    upper = p[6] + p[4] * (1 - nearer if below else nearer)
    below = lower < upper
    lower = lower if below else upper
    target = p[7] + ln(lower, lower - 1)
    t = sqrt(-2 * target)
    n = (0.010328 * t + 0.802853) * t + 2.515517
    d = ((0.001308 * t + 0.189269) * t + 1.432788) * t + 1
    x = t - n / d
    x = 1.0 if x < 1 else x
    x = halley(x, target)
    if steps == 2:
        x = halley(x, target)
    x = -x if below else x

    q = p[8] + p[9] * s
    y = 0.180625 - q * q
    n = 2509.0809287301226727 * y + 33430.575583588128105
    n = n * y + 67265.770927008700853
    n = n * y + 45921.953931549871457
    n = n * y + 13731.693765509461125
    n = n * y + 1971.5909503065514427
    n = n * y + 133.14166789178437745
    n = n * y + 3.387132872796366608
    d = 5226.495278852854561 * y + 28729.085735721942674
    d = d * y + 39307.89580009271061
    d = d * y + 21213.794301586595867
    d = d * y + 5394.1960214247511077
    d = d * y + 687.1870074920579083
    d = d * y + 42.313330701600911252
    d = d * y + 1
    x = q * n / d if y > 0 else x
    return x * p[0] + p[1]


cdef inline void quantile32(const uint32_t* w, const double* p, float* v) noexcept nogil:
    cdef float low = <float> p[2], high = <float> p[3], y
    cdef int32_t x
    cdef int j
    for j in range(TILE):
        x = <int32_t> w[j] | 1
        y = <float> quantile(
            <double> x * 4.656612873077393e-10,  # 2^-31
            <double> (x ^ x >> 31 ^ 0x7fffffff | 1) * 2.3283064365386963e-10,  # (2^31 - |x|) 2^-32
            x < 0, p, 1,
        )
        y = low if y < low else y
        v[j] = high if y > high else y


cdef inline void quantile64(const uint32_t* w, const double* p, double* v) noexcept nogil:
    cdef double y
    cdef int32_t a, b, sign
    cdef int j
    for j in range(HALF):
        a = <int32_t> w[j]
        b = <int32_t> (w[j + 128] >> 1 | 1)
        sign = a >> 31
        y = quantile(
            signed62(w[j], w[j + 128]) * 2.168404344971009e-19,  # 2^-62
            # (2^62 - |n|) 2^-63
            (<double> (a ^ sign ^ 0x7fffffff) * 2147483648.0 + <double> (b ^ ~sign & 0x7ffffffe)) * 1.0842021724855044e-19,
            sign, p, 2,
        )
        y = p[2] if y < p[2] else y
        v[j] = p[3] if y > p[3] else y


# ---- values, 16 bits: the float32 value rounded once, to nearest, ties to even

cdef inline int16_t bfloat16(float y) noexcept nogil:
    cdef bits32 b
    b.f = y
    return <int16_t> (b.u + 0x7fff + (b.u >> 16 & 1) >> 16)


cdef inline int16_t float16(float y) noexcept nogil:
    """A subnormal is rounded by adding 2^-1, whose last place is the subnormals'."""
    cdef bits32 b, small, sign
    sign.f = y
    b.f = fabsf(y)
    small.f = b.f + <float> 0.5
    b.i = b.i + ((b.i >> 13 & 1) + 0xfff - (112 << 23)) >> 13  # below 0x400 where the result is subnormal
    b.i = small.i - 0x3f000000 if b.i < 0x400 else b.i
    return <int16_t> (b.u | sign.u >> 16 & 0x8000)


cdef inline void round16(const float* v, int form, int16_t* h) noexcept nogil:
    cdef int j
    if form == BFLOAT16:
        for j in range(TILE):
            h[j] = bfloat16(v[j])
    else:
        for j in range(TILE):
            h[j] = float16(v[j])


# ---- fill

cdef struct stream_t:
    int distribution, form
    uint32_t key[8]
    double p[10]  # what the values' functions say


cdef inline int tile_size(int form) noexcept nogil:
    """Bytes."""
    return TILE * 2 if form == FLOAT16 or form == BFLOAT16 else TILE * 4


cdef inline int tile_elements(int form) noexcept nogil:
    return QUARTER if form == COMPLEX128 else HALF if form == FLOAT64 or form == COMPLEX64 else TILE


cdef void write_values(const stream_t* s, const uint32_t* w, void* out) noexcept nogil:
    """The elements that a tile of words stands for."""
    cdef float v[TILE]
    cdef float* f = <float*> out if s.form == FLOAT32 else v
    cdef double* d = <double*> out
    cdef int j
    if s.form == COMPLEX64 or s.form == COMPLEX128:
        if s.distribution == CONSTANT and s.form == COMPLEX64:
            for j in range(TILE):
                (<float*> out)[j] = <float> s.p[j & 1]
        elif s.distribution == CONSTANT:
            for j in range(HALF):
                d[j] = s.p[j & 1]
        elif s.form == COMPLEX64:
            complex64(w, s.distribution, s.p, <float*> out)
        else:
            complex128(w, s.distribution, s.p, d)
        return
    if s.form == FLOAT64:
        if s.distribution == UNIFORM:
            uniform64(w, s.p, d)
        elif s.distribution == RANGE:
            range64(w, s.p, d)
        elif s.distribution == NORMAL:
            normal64(w, s.p, d)
        elif s.distribution == QUANTILE:
            quantile64(w, s.p, d)
        else:
            for j in range(HALF):
                d[j] = s.p[0]
        return
    if s.distribution == UNIFORM:
        uniform32(w, s.p, f)
    elif s.distribution == RANGE:
        range32(w, s.p, f)
    elif s.distribution == NORMAL:
        normal32(w, s.p, f)
    elif s.distribution == TRUNCATED:
        truncated32(w, s.p, f)
    elif s.distribution == WIDE:
        wide32(w, s.p, f)
    elif s.distribution == QUANTILE:
        quantile32(w, s.p, f)
    else:
        for j in range(TILE):
            f[j] = <float> s.p[0]
    if s.form != FLOAT32:
        round16(v, s.form, <int16_t*> out)


cdef inline void write_tile(const stream_t* s, uint64_t tile, void* out) noexcept nogil:
    """All elements of one tile."""
    cdef uint32_t w[TILE]
    if s.form == UINT32:
        chacha8(s.key, tile, <uint32_t*> out)
        return
    if s.distribution != CONSTANT:
        chacha8(s.key, tile, w)
    write_values(s, w, out)


cdef void stream_tiles(const stream_t* s, char* out, uint64_t tile, uint64_t tiles) noexcept nogil:
    """Whole tiles past the caches, in whole lines: what a batch leaves of its last line goes before the next batch."""
    cdef scratch_t scratch[1 + BATCH]
    cdef char* batch = <char*> &scratch[1]
    cdef int64_t size = tile_size(s.form), left, whole
    cdef uint64_t count, k
    left = -<int64_t> (-<uintptr_t> out % LINE)  # below 0: what the first batch has before the first whole line
    if left:
        write_tile(s, tile, batch)
        memcpy(out, batch, -left)
        out -= left
    while tiles:
        count = min(tiles, <uint64_t> BATCH)
        for k in range(count):
            write_tile(s, tile + k, batch + <int64_t> k * size)
        whole = (left + <int64_t> count * size) & -LINE
        move_lines(out, batch - left, whole)
        memcpy(batch - LINE, batch + <int64_t> count * size - LINE, LINE)
        left += <int64_t> count * size - whole
        out += whole
        tile += count
        tiles -= count
    memcpy(out, batch - left, left)
    move_fence()


cdef void fill_contiguous(const stream_t* s, char* out, uint64_t position, uint64_t n, bint streaming) noexcept nogil:
    cdef scratch_t scratch
    cdef uint64_t elements = tile_elements(s.form), tile = position // elements, skip = position % elements, count
    cdef size_t size = tile_size(s.form) // elements
    cdef bint aligned = <uintptr_t> out % size == 0
    while n:
        count = min(elements - skip, n)
        if count < elements or not (aligned or streaming):
            write_tile(s, tile, &scratch)
            memcpy(out, <char*> &scratch + skip * size, count * size)
            out += count * size
            skip = 0
        elif streaming:
            count = n // elements
            stream_tiles(s, out, tile, count)
            tile += count - 1
            count *= elements
            out += count * size
        else:
            write_tile(s, tile, out)
            out += count * size
        tile += 1
        n -= count


cdef bint equals_contiguous(const stream_t* s, const char* data, uint64_t position, uint64_t n) noexcept nogil:
    cdef scratch_t scratch[BATCH]
    cdef uint64_t elements = tile_elements(s.form), tile = position // elements, skip = position % elements
    cdef uint64_t tiles, count, k
    cdef size_t size = tile_size(s.form) // elements
    while n:
        tiles = min((skip + n + elements - 1) // elements, <uint64_t> BATCH)
        for k in range(tiles):
            write_tile(s, tile + k, <char*> &scratch + k * elements * size)
        count = min(tiles * elements - skip, n)
        if memcmp(<char*> &scratch + skip * size, data, count * size):
            return False
        data += count * size
        tile += tiles
        skip = 0
        n -= count
    return True


cdef struct axes_t:
    int ndim, looked_up  # the axis whose indices are ids, or -1
    const int64_t* shape
    const int64_t* strides  # in memory, bytes
    const int64_t* steps  # in the stream, elements
    const int64_t* ids
    int64_t length  # ids below 0 count from here


cdef inline int64_t offset(const axes_t* axes, int axis, int64_t i) noexcept nogil:
    """In the stream, of index i."""
    if axis == axes.looked_up:
        i = axes.ids[i]
        if i < 0:
            i += axes.length
    return i * axes.steps[axis]


cdef inline void copy_elements(char* out, int64_t stride, const char* source, int size, uint64_t n) noexcept nogil:
    cdef uint64_t k
    if stride == size:
        memcpy(out, source, n * size)
    elif size == 4:
        for k in range(n):
            memcpy(out + <int64_t> k * stride, source + k * 4, 4)
    elif size == 8:
        for k in range(n):
            memcpy(out + <int64_t> k * stride, source + k * 8, 8)
    elif size == 2:
        for k in range(n):
            memcpy(out + <int64_t> k * stride, source + k * 2, 2)
    else:
        for k in range(n):
            memcpy(out + <int64_t> k * stride, source + k * 16, 16)


cdef void gather_elements(
    const stream_t* s, const axes_t* axes, char* out, int64_t position, uint64_t n, int64_t* index
) noexcept nogil:
    """n elements in C order from `index` on. A tile is kept for as long as the next element lies in it."""
    cdef scratch_t scratch
    cdef int elements = tile_elements(s.form), size = tile_size(s.form) // elements, last = axes.ndim - 1, axis
    cdef int64_t first = -1, at, within, stride = axes.strides[last]
    cdef uint64_t run, count
    cdef bint contiguous = axes.steps[last] == 1 and axes.looked_up != last
    for axis in range(axes.ndim):
        out += index[axis] * axes.strides[axis]
        if axis < last:
            position += offset(axes, axis, index[axis])
    while n:
        run = min(n, <uint64_t> (axes.shape[last] - index[last]))
        n -= run
        while run:
            at = position + offset(axes, last, index[last])
            within = at & (elements - 1)
            count = min(run, <uint64_t> (elements - within)) if contiguous else 1
            if at - within != first:
                first = at - within
                write_tile(s, first // elements, &scratch)
            copy_elements(out, stride, <char*> &scratch + within * size, size, count)
            out += <int64_t> count * stride
            index[last] += count
            run -= count
        axis = last
        while axis and index[axis] == axes.shape[axis]:
            out -= index[axis] * axes.strides[axis]
            index[axis] = 0
            axis -= 1
            position -= offset(axes, axis, index[axis])
            index[axis] += 1
            out += axes.strides[axis]
            position += offset(axes, axis, index[axis] % axes.shape[axis])  # index 0 where it is about to be carried


# ---- the seam: addresses, lengths and positions; no NumPy

cdef stream_t stream_of(int distribution, int form, bytes key, tuple parameters) except *:
    cdef stream_t s
    cdef const unsigned char* k = key
    cdef int j
    s.distribution = distribution
    s.form = form
    for j in range(8):
        s.key[j] = k[4 * j] | k[4 * j + 1] << 8 | k[4 * j + 2] << 16 | <uint32_t> k[4 * j + 3] << 24
    for j in range(len(parameters)):
        s.p[j] = parameters[j]
    return s


def address(array):
    """Where the first element of an array lies; seven times as fast as its __array_interface__."""
    cdef Py_buffer view
    PyObject_GetBuffer(array, &view, PyBUF_STRIDES)
    PyBuffer_Release(&view)
    return <uintptr_t> view.buf


def fill(int distribution, int form, bytes key, tuple parameters, uintptr_t out, uint64_t position, uint64_t n, bint streaming=False):
    """Write elements position .. position + n - 1 of a stream to the contiguous memory at address `out`."""
    cdef stream_t s = stream_of(distribution, form, key, parameters)
    cdef fenv_t callers
    with nogil:
        enter_default(&callers, &s)
        fill_contiguous(&s, <char*> out, position, n, streaming)
        leave_default(&callers)


def equals(int distribution, int form, bytes key, tuple parameters, uintptr_t data, uint64_t position, uint64_t n):
    """Whether the contiguous memory at address `data` holds elements position .. position + n - 1 of a stream."""
    cdef stream_t s = stream_of(distribution, form, key, parameters)
    cdef fenv_t callers
    cdef bint same
    with nogil:
        enter_default(&callers, &s)
        same = equals_contiguous(&s, <const char*> data, position, n)
        leave_default(&callers)
    return same


def gather(
    int distribution, int form, bytes key, tuple parameters, uintptr_t out, int64_t position, uint64_t n,
    bytes layout, bytes index, int looked_up=-1, uintptr_t ids=0, int64_t length=0,
):
    """Write n elements, in C order from `index` on, to strided memory: index (i, j, ...) is element
    position + i * steps[0] + j * steps[1] + ... of the stream, or ids[i] instead of i for the axis looked up.

    `layout` holds shape, strides in bytes and steps in elements; it, `index` and the memory at `ids` are int64s.
    """
    cdef stream_t s = stream_of(distribution, form, key, parameters)
    cdef bytearray place = bytearray(index)
    cdef axes_t axes
    axes.ndim = <int> (len(index) // 8)
    axes.shape = <const int64_t*> <const char*> layout
    axes.strides = axes.shape + axes.ndim
    axes.steps = axes.strides + axes.ndim
    axes.looked_up = looked_up
    axes.ids = <const int64_t*> ids
    axes.length = length
    cdef int64_t* at = <int64_t*> <char*> place
    cdef fenv_t callers
    with nogil:
        enter_default(&callers, &s)
        gather_elements(&s, &axes, <char*> out, position, n, at)
        leave_default(&callers)


def values(int distribution, int form, tuple parameters, uintptr_t words, uintptr_t out, uint64_t tiles):
    """Write what given words stand for, whole tiles of them: the map of a distribution without the generator."""
    cdef stream_t s = stream_of(distribution, form, bytes(32), parameters)
    cdef int64_t size = tile_size(form)
    cdef uint64_t k
    cdef fenv_t callers
    with nogil:
        enter_default(&callers, &s)
        for k in range(tiles):
            write_values(&s, <const uint32_t*> words + k * TILE, <char*> out + <int64_t> k * size)
        leave_default(&callers)


def fused_all(uintptr_t a, uintptr_t b, uintptr_t c, uintptr_t out, uint64_t n):
    """Write fused(a[k], b[k], c[k]) for n float32s at these addresses: how this level multiplies and adds."""
    cdef const float* x = <const float*> a
    cdef const float* y = <const float*> b
    cdef const float* z = <const float*> c
    cdef float* result = <float*> out
    cdef fenv_t callers
    cdef uint64_t k
    with nogil:
        enter_default(&callers, result)
        for k in range(n):
            result[k] = fused(x[k], y[k], z[k])
        leave_default(&callers)

# Values, float32.
#
# A word is read as the odd signed integer x = int32(w) | 1: symmetric about zero, never zero, 31 random bits.

cdef inline void uniform32(const uint32_t* w, const uniform_t* p, float* v) noexcept nogil:
    """x * scale."""
    cdef float scale = <float> p.scale
    cdef int j
    for j in range(TILE):
        v[j] = <float> (<int32_t> w[j] | 1) * scale


cdef inline float bounded32(float value, float low, float high) noexcept nogil:
    value = low if value < low else value
    return high if value > high else value


cdef inline void range32(const uint32_t* w, const range_t* p, float* v) noexcept nogil:
    """x * scale + middle, between the first and the last number that the dtype has in the range."""
    cdef float scale = <float> p.scale, middle = <float> p.middle, first = <float> p.first, last = <float> p.last
    cdef int j
    for j in range(TILE):
        v[j] = bounded32(fused(<float> (<int32_t> w[j] | 1), scale, middle), first, last)


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


cdef inline void normal32(const uint32_t* w, const normal_t* p, float* v) noexcept nogil:
    """Box and Muller (1958): elements j and j + 128 share a radius and an angle, and the values are symmetric about the
    mean by construction."""
    cdef float std = <float> p.std, mean = <float> p.mean
    cdef int j
    for j in range(HALF):
        turn32(w[j + HALF], radius32(w[j]) * std, mean, v + j, v + j + HALF)


cdef inline int32_t to_end(int32_t x) noexcept nogil:
    """2^31 - |x| for an odd x."""
    return x ^ x >> 31 ^ 0x7fffffff | 1


cdef inline void truncated32(const uint32_t* w, const symmetric_t* p, float* v) noexcept nogil:
    """The inverse of the normal distribution function between -c and c <= 2.

    quantile(1/2 + q) = q (sqrt(2 pi) + q^2 N(y) / D(y)) with y = 1/4 - q^2 = nearer - nearer^2, where the mass of the
    nearer tail comes from 2^31 - |x| and so keeps its precision.
    """
    cdef float std = <float> p.std, mean = <float> p.mean, low = <float> p.low, high = <float> p.high
    cdef float scale = <float> p.scale, tail = <float> p.tail, q, nearer, y, n, d
    cdef int32_t x
    cdef int j
    for j in range(TILE):
        x = <int32_t> w[j] | 1
        q = <float> x * scale
        nearer = fused(<float> to_end(x), scale, tail)
        y = fused(-nearer, nearer, nearer)
        n = fused(<float> 0.174433514476, y, <float> 1.33527851105)  # relative error of the whole 1.3e-8
        n = fused(n, y, <float> 0.358626157045)
        n = fused(n, y, <float> 0.0153024345636)
        n = fused(n, y, <float> 8.92515236046e-5)
        d = y + <float> 0.61335504055
        d = fused(d, y, <float> 0.0692181810737)
        d = fused(d, y, <float> 0.00166507216636)
        d = fused(d, y, <float> 5.8332025219e-6)
        v[j] = bounded32(fused(q * fused(q * q, n / d, <float> 2.5066282746), std, mean), low, high)


cdef inline void wide32(const uint32_t* w, const symmetric_t* p, float* v) noexcept nogil:
    """As truncated32 for any c, infinite too: quantile(1/2 + q) = q (sqrt(2 pi) + z N(z) / D(z)) with z = -2 ln 4 y."""
    cdef float std = <float> p.std, mean = <float> p.mean, low = <float> p.low, high = <float> p.high
    cdef float scale = <float> p.scale, tail = <float> p.tail, q, nearer, y4, z, n, d
    cdef int32_t x
    cdef int j
    for j in range(TILE):
        x = <int32_t> w[j] | 1
        q = <float> x * scale
        nearer = fused(<float> to_end(x), scale, tail)
        y4 = 4 * fused(-nearer, nearer, nearer)
        z = minus_two_ln(y4, y4 - 1)
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
        v[j] = bounded32(fused(q * fused(z, n / d, <float> 2.5066282746), std, mean), low, high)

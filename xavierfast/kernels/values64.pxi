# Values, float64.
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


cdef inline void uniform64(const uint32_t* w, const uniform_t* p, double* v) noexcept nogil:
    """n * scale."""
    cdef double scale = p.scale
    cdef int j
    for j in range(HALF):
        v[j] = signed62(w[j], w[j + HALF]) * scale


cdef inline double bounded64(double value, double low, double high) noexcept nogil:
    value = low if value < low else value
    return high if value > high else value


cdef inline void range64(const uint32_t* w, const range_t* p, double* v) noexcept nogil:
    """n * scale + middle, bounded as in range32."""
    cdef double scale = p.scale, middle = p.middle, first = p.first, last = p.last
    cdef int j
    for j in range(HALF):
        v[j] = bounded64(signed62(w[j], w[j + HALF]) * scale + middle, first, last)


cdef inline double radius64(uint32_t a, uint32_t b) noexcept nogil:
    """As radius32, with 63 bits."""
    cdef double y = signed62(a, b), u = fabs(y) * 1.0842021724855044e-19  # 2^-63
    return sqrt(-2 * ln(1 - u if y < 0 else u, -u))


cdef inline void turn64(uint64_t a, uint32_t b, double r, double mean, double* first, double* second) noexcept nogil:
    """As turn32, with 60 bits for the angle."""
    cdef double y, z, c, s
    cdef uint64_t swap
    cdef bits64 cosine, sine
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
    cosine.f = c * r
    sine.f = s * r
    cosine.u ^= a << 33 & 0x8000000000000000u
    swap = (cosine.u ^ sine.u) & (0 - (a >> 31))
    cosine.u ^= swap
    sine.u ^= swap
    first[0] = cosine.f + mean
    second[0] = sine.f + mean


cdef inline void normal64(const uint32_t* w, const normal_t* p, double* v) noexcept nogil:
    """As normal32, elements j and j + 64: the radius from n of element j, the angle from that of j + 64."""
    cdef double std = p.std, mean = p.mean
    cdef int j
    for j in range(QUARTER):
        turn64(
            w[j + QUARTER], w[j + HALF + QUARTER], radius64(w[j], w[j + HALF]) * std, mean, v + j, v + j + QUARTER
        )

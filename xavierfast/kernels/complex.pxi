# Values, complex: one radius and one angle per element, from two words or four. They are uniform on a disk, or normal with
# the modulus cut.

cdef inline void uniform_radii32(const uint32_t* w, const uniform_t* p, float* r) noexcept nogil:
    """sqrt(|x| 2^-31) * scale: the mass within a radius grows with its square."""
    cdef float scale = <float> p.scale
    cdef int j
    for j in range(HALF):
        r[j] = sqrtf(fabsf(<float> (<int32_t> w[j] | 1)) * <float> 4.656612873077393e-10) * scale  # 2^-31


cdef inline void normal_radii32(const uint32_t* w, const complex_normal_t* p, float* r) noexcept nogil:
    """sqrt(-2 ln u) * std <= cut, with u = 1 - share |x| 2^-32 where x < 0 and rest + share |x| 2^-32 where x > 0."""
    cdef float std = <float> p.std, cut = <float> p.cut, share = <float> p.share, rest = <float> p.rest
    cdef float a, slope, u, u_minus_1, radius
    cdef int32_t x
    cdef int j
    for j in range(HALF):
        x = <int32_t> w[j] | 1
        a = fabsf(<float> x) * <float> 2.3283064365386963e-10  # 2^-32
        slope = -share if x < 0 else share
        u = fused(slope, a, 1 if x < 0 else rest)
        u_minus_1 = fused(slope, a, 0 if x < 0 else -share)
        radius = sqrtf(minus_two_ln(u, u_minus_1)) * std
        r[j] = cut if radius > cut else radius


cdef inline void complex64(const uint32_t* w, const sampler_t* s, float* v) noexcept nogil:
    cdef float r[HALF]
    cdef int j
    if s.kernel == UNIFORM:
        uniform_radii32(w, &s.constants.uniform, r)
    else:
        normal_radii32(w, &s.constants.complex_normal, r)
    for j in range(HALF):
        turn32(w[j + HALF], r[j], 0, v + 2 * j, v + 2 * j + 1)


cdef inline void uniform_radii64(const uint32_t* w, const uniform_t* p, double* r) noexcept nogil:
    """As uniform_radii32, sqrt(|n| 2^-62) * scale."""
    cdef double scale = p.scale
    cdef int j
    for j in range(QUARTER):
        r[j] = sqrt(fabs(signed62(w[j], w[j + HALF])) * 2.168404344971009e-19) * scale  # 2^-62


cdef inline void normal_radii64(const uint32_t* w, const complex_normal_t* p, double* r) noexcept nogil:
    """As normal_radii32, with |n| 2^-63."""
    cdef double std = p.std, cut = p.cut, share = p.share, rest = p.rest, n, a, u, u_minus_1, radius
    cdef int j
    for j in range(QUARTER):
        n = signed62(w[j], w[j + HALF])
        a = fabs(n) * 1.0842021724855044e-19  # 2^-63
        u = 1 - share * a if n < 0 else rest + share * a
        u_minus_1 = -share * (a if n < 0 else 1 - a)
        radius = sqrt(-2 * ln(u, u_minus_1)) * std
        r[j] = cut if radius > cut else radius


cdef inline void complex128(const uint32_t* w, const sampler_t* s, double* v) noexcept nogil:
    cdef double r[QUARTER]
    cdef int j
    if s.kernel == UNIFORM:
        uniform_radii64(w, &s.constants.uniform, r)
    else:
        normal_radii64(w, &s.constants.complex_normal, r)
    for j in range(QUARTER):
        turn64(w[j + QUARTER], w[j + HALF + QUARTER], r[j], 0, v + 2 * j, v + 2 * j + 1)

# Values, complex: one angle and one radius per element, from two words or four.
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

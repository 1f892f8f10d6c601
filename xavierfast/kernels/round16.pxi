# Values, 16 bits: the float32 value rounded once, to nearest, ties to even.

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


cdef inline void round16(const float* v, int dtype, int16_t* h) noexcept nogil:
    cdef int j
    if dtype == BFLOAT16:
        for j in range(TILE):
            h[j] = bfloat16(v[j])
    else:
        for j in range(TILE):
            h[j] = float16(v[j])

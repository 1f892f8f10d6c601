# Tiles into memory: contiguous fills, streaming past the caches, and the comparison with what memory holds.

cdef inline int tile_size(int dtype) noexcept nogil:
    """The bytes of the elements that a tile of words gives."""
    return TILE * 2 if dtype == FLOAT16 or dtype == BFLOAT16 else TILE * 4


cdef inline int tile_elements(int dtype) noexcept nogil:
    return QUARTER if dtype == COMPLEX128 else HALF if dtype == FLOAT64 or dtype == COMPLEX64 else TILE


cdef inline void constant32(const constant_t* p, float* v) noexcept nogil:
    cdef float real = <float> p.real
    cdef int j
    for j in range(TILE):
        v[j] = real


cdef inline void constant64(const constant_t* p, double* v) noexcept nogil:
    cdef double real = p.real
    cdef int j
    for j in range(HALF):
        v[j] = real


cdef void write_complex(const sampler_t* s, const uint32_t* w, void* out) noexcept nogil:
    cdef float* f = <float*> out
    cdef double* d = <double*> out
    cdef int j
    if s.kernel != CONSTANT and s.dtype == COMPLEX64:
        complex64(w, s, f)
    elif s.kernel != CONSTANT:
        complex128(w, s, d)
    elif s.dtype == COMPLEX64:
        for j in range(HALF):
            f[2 * j] = <float> s.constants.constant.real
            f[2 * j + 1] = <float> s.constants.constant.imaginary
    else:
        for j in range(QUARTER):
            d[2 * j] = s.constants.constant.real
            d[2 * j + 1] = s.constants.constant.imaginary


cdef void write_values(const sampler_t* s, const uint32_t* w, void* out) noexcept nogil:
    """Write the elements that a tile of words gives."""
    cdef float v[TILE]
    cdef float* f = <float*> out if s.dtype == FLOAT32 else v
    cdef double* d = <double*> out
    if s.dtype == COMPLEX64 or s.dtype == COMPLEX128:
        write_complex(s, w, out)
        return
    if s.dtype == FLOAT64:
        if s.kernel == UNIFORM:
            uniform64(w, &s.constants.uniform, d)
        elif s.kernel == RANGE:
            range64(w, &s.constants.range, d)
        elif s.kernel == NORMAL:
            normal64(w, &s.constants.normal, d)
        elif s.kernel == TRUNCATED_ANY:
            quantile64(w, &s.constants.truncated, d)
        else:
            constant64(&s.constants.constant, d)
        return
    if s.kernel == UNIFORM:
        uniform32(w, &s.constants.uniform, f)
    elif s.kernel == RANGE:
        range32(w, &s.constants.range, f)
    elif s.kernel == NORMAL:
        normal32(w, &s.constants.normal, f)
    elif s.kernel == TRUNCATED_2SIGMA:
        truncated32(w, &s.constants.symmetric, f)
    elif s.kernel == TRUNCATED_SYMMETRIC:
        wide32(w, &s.constants.symmetric, f)
    elif s.kernel == TRUNCATED_ANY:
        quantile32(w, &s.constants.truncated, f)
    else:
        constant32(&s.constants.constant, f)
    if s.dtype != FLOAT32:
        round16(v, s.dtype, <int16_t*> out)


cdef inline void write_tile(const sampler_t* s, uint64_t tile, void* out) noexcept nogil:
    """Write all elements of one tile."""
    cdef uint32_t w[TILE]
    if s.dtype == UINT32:
        chacha8(s.key, tile, <uint32_t*> out)
        return
    if s.kernel != CONSTANT:
        chacha8(s.key, tile, w)
    write_values(s, w, out)


cdef void stream_tiles(const sampler_t* s, char* out, uint64_t tile, uint64_t tiles) noexcept nogil:
    """Whole tiles past the caches, in whole lines. The bytes before the first line, and those after the last, are copied.

    The incomplete line at the end of a batch is kept in front of the next one::

        | kept | tile | tile |          `ready` points to the first byte that is not in `out` yet
    """
    cdef scratch_t scratch[1 + BATCH]
    cdef char* batch = <char*> &scratch[1]
    cdef char* end
    cdef size_t size = tile_size(s.dtype), before = -<uintptr_t> out % LINE, whole
    cdef char* ready = batch + before
    cdef uint64_t count, k
    if before:
        write_tile(s, tile, batch)
        memcpy(out, batch, before)
        out += before
    while tiles:
        count = min(tiles, <uint64_t> BATCH)
        for k in range(count):
            write_tile(s, tile + k, batch + k * size)
        end = batch + count * size
        whole = <size_t> (end - ready) & ~<size_t> (LINE - 1)
        move_lines(out, ready, whole)
        out += whole
        memcpy(batch - LINE, end - LINE, LINE)  # more than is kept, but of a size that the compiler knows
        ready = batch - (end - (ready + whole))
        tile += count
        tiles -= count
    memcpy(out, ready, batch - ready)
    move_fence()


cdef void fill_contiguous(const sampler_t* s, char* out, uint64_t position, uint64_t n, bint streaming) noexcept nogil:
    cdef scratch_t scratch
    cdef uint64_t elements = tile_elements(s.dtype), tile = position // elements, skip = position % elements
    cdef uint64_t tiles, count
    cdef size_t size = tile_size(s.dtype) // elements
    cdef bint aligned = <uintptr_t> out % size == 0
    while n:
        tiles = 1
        count = min(elements - skip, n)
        if count < elements or not (aligned or streaming):
            write_tile(s, tile, &scratch)
            memcpy(out, <char*> &scratch + skip * size, count * size)
            skip = 0
        elif streaming:
            tiles = n // elements
            count = tiles * elements
            stream_tiles(s, out, tile, tiles)
        else:
            write_tile(s, tile, out)
        out += count * size
        tile += tiles
        n -= count


cdef bint equals_contiguous(const sampler_t* s, const char* data, uint64_t position, uint64_t n) noexcept nogil:
    cdef scratch_t scratch[BATCH]
    cdef uint64_t elements = tile_elements(s.dtype), tile = position // elements, skip = position % elements
    cdef uint64_t tiles, count, k
    cdef size_t size = tile_size(s.dtype) // elements
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

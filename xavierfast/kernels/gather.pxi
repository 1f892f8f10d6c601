# Tiles into strided memory, in C order of any shape, with one axis looked up by ids.

cdef struct axes_t:
    int ndim, gathered  # the axis whose indices are ids, or -1
    const int64_t* shape
    const int64_t* strides  # in memory, bytes
    const int64_t* steps  # in the stream, elements
    const int64_t* ids
    int64_t length  # ids below 0 count from here


cdef inline int64_t offset(const axes_t* axes, int axis, int64_t i) noexcept nogil:
    """In the stream, of index i."""
    if axis == axes.gathered:
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
    cdef bint contiguous = axes.steps[last] == 1 and axes.gathered != last
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

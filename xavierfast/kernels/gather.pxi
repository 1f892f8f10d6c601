# Tiles into strided memory, in C order of any shape, with one axis looked up by ids.

cdef struct axes_t:
    int ndim, gathered  # the axis whose indices are ids, or -1
    const int64_t* shape
    const int64_t* memory_strides  # bytes
    const int64_t* strides  # in the stream, elements
    const int64_t* ids
    int64_t length  # ids below 0 count from here


cdef inline int64_t offset(const axes_t* axes, int axis, int64_t i) noexcept nogil:
    """The distance in the stream, in elements, of index i of an axis from its index 0."""
    if axis == axes.gathered:
        i = axes.ids[i]
        if i < 0:
            i += axes.length
    return i * axes.strides[axis]


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
    const sampler_t* s, const axes_t* axes, char* out, int64_t position, uint64_t n, int64_t* index
) noexcept nogil:
    """n elements in C order from `index` on, row by row. A tile is kept for as long as the next element lies in it."""
    cdef scratch_t scratch
    cdef int elements = tile_elements(s.dtype), size = tile_size(s.dtype) // elements, last = axes.ndim - 1, axis
    cdef int64_t kept = -1  # the position of the first element in `scratch`
    cdef int64_t memory_stride = axes.memory_strides[last], row_position, element, skip
    cdef uint64_t run, count
    cdef bint contiguous = axes.strides[last] == 1 and axes.gathered != last
    cdef char* row
    while n:
        row = out
        row_position = position
        for axis in range(last):
            row += index[axis] * axes.memory_strides[axis]
            row_position += offset(axes, axis, index[axis])
        run = min(n, <uint64_t> (axes.shape[last] - index[last]))
        n -= run
        while run:
            element = row_position + offset(axes, last, index[last])
            skip = element & (elements - 1)
            count = min(run, <uint64_t> (elements - skip)) if contiguous else 1
            if element - skip != kept:
                kept = element - skip
                write_tile(s, kept // elements, &scratch)
            copy_elements(row + index[last] * memory_stride, memory_stride, <char*> &scratch + skip * size, size, count)
            index[last] += count
            run -= count
        # To the next row: an axis that is at its end goes back to 0, and the axis before it one on.
        axis = last
        while axis and index[axis] == axes.shape[axis]:
            index[axis] = 0
            axis -= 1
            index[axis] += 1

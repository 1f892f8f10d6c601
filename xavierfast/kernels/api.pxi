# The seam to Python: addresses, lengths and positions; no NumPy.

cdef sampler_t sampler_of(int kernel, int dtype, bytes key, tuple constants) except *:
    cdef sampler_t s
    cdef const unsigned char* k = key
    cdef int j
    if len(key) != 32 or len(constants) > MAX_CONSTANTS:
        raise ValueError(f"a key has 32 bytes and a kernel at most {MAX_CONSTANTS} constants, got {len(key)} and {len(constants)}")
    s.kernel = kernel
    s.dtype = dtype
    for j in range(8):
        s.key[j] = k[4 * j] | k[4 * j + 1] << 8 | k[4 * j + 2] << 16 | <uint32_t> k[4 * j + 3] << 24
    for j in range(len(constants)):
        s.constants.all[j] = constants[j]
    return s


def address(array):
    """The address of an array's first element; seven times as fast as its __array_interface__."""
    cdef Py_buffer view
    PyObject_GetBuffer(array, &view, PyBUF_STRIDES)
    PyBuffer_Release(&view)
    return <uintptr_t> view.buf


def fill(int kernel, int dtype, bytes key, tuple constants, uintptr_t out, uint64_t position, uint64_t n, bint streaming=False):
    """Write elements position .. position + n - 1 of a stream to the contiguous memory at address `out`."""
    cdef sampler_t s = sampler_of(kernel, dtype, key, constants)
    cdef fenv_t callers
    with nogil:
        enter_default(&callers, &s)
        fill_contiguous(&s, <char*> out, position, n, streaming)
        leave_default(&callers)


def equals(int kernel, int dtype, bytes key, tuple constants, uintptr_t data, uint64_t position, uint64_t n):
    """Whether the contiguous memory at address `data` holds elements position .. position + n - 1 of a stream."""
    cdef sampler_t s = sampler_of(kernel, dtype, key, constants)
    cdef fenv_t callers
    cdef bint same
    with nogil:
        enter_default(&callers, &s)
        same = equals_contiguous(&s, <const char*> data, position, n)
        leave_default(&callers)
    return same


def gather(
    int kernel, int dtype, bytes key, tuple constants, uintptr_t out, int64_t position, uint64_t n,
    bytes layout, bytes index, int gathered=-1, uintptr_t ids=0, int64_t length=0,
):
    """Write n elements, in C order from `index` on, to strided memory: index (i, j, ...) is element
    position + i * strides[0] + j * strides[1] + ... of the stream, or ids[i] instead of i for the gathered axis.

    `layout` holds the shape, the strides in memory in bytes and those in the stream in elements; it, `index` and the
    memory at `ids` are int64s.
    """
    cdef sampler_t s = sampler_of(kernel, dtype, key, constants)
    cdef bytearray current = bytearray(index)  # a copy that can be moved on
    cdef axes_t axes
    axes.ndim = <int> (len(index) // 8)
    axes.shape = <const int64_t*> <const char*> layout
    axes.memory_strides = axes.shape + axes.ndim
    axes.strides = axes.memory_strides + axes.ndim
    axes.gathered = gathered
    axes.ids = <const int64_t*> ids
    axes.length = length
    cdef int64_t* current_index = <int64_t*> <char*> current
    cdef fenv_t callers
    with nogil:
        enter_default(&callers, &s)
        gather_elements(&s, &axes, <char*> out, position, n, current_index)
        leave_default(&callers)


def values(int kernel, int dtype, tuple constants, uintptr_t words, uintptr_t out, uint64_t tiles):
    """Write the values that whole tiles of given words give: the map of a distribution without the generator."""
    cdef sampler_t s = sampler_of(kernel, dtype, bytes(32), constants)
    cdef int64_t size = tile_size(dtype)
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

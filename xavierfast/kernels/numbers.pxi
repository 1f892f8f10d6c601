# The numbers that cross the seam. They are written here only: `cpdef` makes them attributes of _cpu, too, from which
# kernels/__init__.py takes them.

cpdef enum:  # kernels
    WORDS, CONSTANT, UNIFORM, RANGE, NORMAL, TRUNCATED_2SIGMA, TRUNCATED_SYMMETRIC, TRUNCATED_ANY

cpdef enum:  # dtypes
    UINT32, FLOAT32, FLOAT64, FLOAT16, BFLOAT16, COMPLEX64, COMPLEX128

cpdef enum:
    TILE = 256  # words: the elements that are computed together, at least

# The one source of every level: portable.pyx, avx2.pyx and avx512.pyx include it and nothing else. Its parts, in the
# order in which to read them; tests/reference.py is the same in NumPy, slow and short, and decides what is right:
#
#     numbers.pxi         the numbers of kernels and dtypes, which Python reads too
#     chacha8.pxi         key -> words: a tile of 256
#     values32.pxi        words -> 256 values of float32; values64.pxi 128 of float64, complex.pxi complex ones
#     truncated_any.pxi   normals truncated at any bounds
#     round16.pxi         float32 -> float16, bfloat16
#     fill.pxi            tiles -> "n elements from position p into this memory"; gather.pxi the same for strided memory
#     api.pxi             the seam to Python: addresses, positions and lengths; no NumPy
#
# Every loop is written for the compiler's vectoriser: fixed trip counts, no calls, no branches but selects. Only
# + - * / sqrt, integer operations and int -> float conversion of written order appear, and in float32 the multiply-add
# that is rounded once, fused(a, b, c) = a * b + c, where it is written and nowhere else (-ffp-contract=off): so every
# level, compiler and machine gives the same bits. Polynomials are minimax fits (Remez) in Horner's form, whose steps are
# fused in float32; each says its error.

from cpython.buffer cimport PyBUF_STRIDES, PyBuffer_Release, PyObject_GetBuffer
from libc.math cimport fabs, fabsf, sqrt, sqrtf
from libc.stdint cimport int16_t, int32_t, int64_t, uint16_t, uint32_t, uint64_t, uintptr_t
from libc.string cimport memcmp, memcpy

cdef extern from "fp_environment.h" nogil:
    ctypedef struct fenv_t:
        pass
    void enter_default(fenv_t* callers, const void* input) noexcept
    void leave_default(const fenv_t* callers) noexcept

cdef extern from "fused.h" nogil:
    float fused(float a, float b, float c) noexcept

cdef extern from "streaming_store.h" nogil:
    void move_lines(void* destination, const void* source, size_t size) noexcept
    void move_fence() noexcept

include "numbers.pxi"

cdef enum:
    LANES = 16
    HALF = 128  # words, or elements of 8 bytes
    QUARTER = 64  # words, or elements of 16 bytes
    BATCH = 2  # tiles that are finished in level-1 cache before they are streamed out
    LINE = 64  # bytes
    MAX_CONSTANTS = 10

cdef union bits32:
    float f
    int32_t i
    uint32_t u

cdef union bits64:
    double f
    uint64_t u

cdef union scratch_t:  # a tile of any dtype
    float f[TILE]
    double d[HALF]

# The constants of each kernel, in the order in which _core/distributions.py computes them. Those of float32 kernels are
# rounded to float32 first. Values lie between first and last, or low and high, which are numbers of the dtype.
cdef struct constant_t:
    double real, imaginary

cdef struct uniform_t:
    double scale  # bound * 2^-31, in float64 2^-62; for complex values the radius of the disk

cdef struct range_t:
    double scale  # half the width * 2^-31, in float64 2^-62
    double middle, first, last

cdef struct normal_t:
    double std, mean

cdef struct complex_normal_t:
    double std  # of each part
    double cut  # the largest modulus, which may be infinite
    double share, rest  # the masses within and beyond the cut

cdef struct symmetric_t:  # a normal truncated at +-c standard deviations
    double std, mean, low, high
    double scale  # (Phi(c) - 1/2) 2^-31
    double tail  # Phi(-c)

cdef struct truncated_t:  # a normal truncated at any bounds
    double std, mean, low, high
    double mass, before, after  # the masses between, below and above the bounds, in a unit
    double unit  # the logarithm of that unit
    double centre, half  # the middle and half the width, in mass about the median

cdef union constants_t:
    double all[MAX_CONSTANTS]
    constant_t constant
    uniform_t uniform
    range_t range
    normal_t normal
    complex_normal_t complex_normal
    symmetric_t symmetric
    truncated_t truncated

cdef struct sampler_t:
    int kernel, dtype  # by their numbers
    uint32_t key[8]
    constants_t constants

include "chacha8.pxi"
include "values32.pxi"
include "values64.pxi"
include "complex.pxi"
include "truncated_any.pxi"
include "round16.pxi"
include "fill.pxi"
include "gather.pxi"
include "api.pxi"

# Compiled without level flags: it runs before it is known what this CPU can run.
"""Which vector instructions this CPU has and this operating system saves; Python in the default floating point; and the
numbers of kernels and dtypes, which are the same for all levels."""

include "numbers.pxi"

cdef extern from "fp_environment.h" nogil:
    ctypedef struct fenv_t:
        pass
    void enter_default(fenv_t* callers, const void* input) noexcept
    void leave_default(const fenv_t* callers) noexcept

cdef extern from *:
    """
    #if (defined(__GNUC__) || defined(__clang__)) && defined(__x86_64__)
    /* libgcc and compiler-rt ask XGETBV too: a feature whose registers the system does not save is not reported. */
    static int supports_avx2(void) { return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"); }
    static int supports_avx512(void) {
        return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw")
            && __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("fma");
    }
    #elif defined(_M_X64)
    #include <intrin.h>
    static int leaf7_ebx(unsigned long long state) {
        int r[4];
        __cpuid(r, 0);
        if (r[0] < 7) return 0;
        __cpuid(r, 1);
        if (!(r[2] & 1 << 27) || !(r[2] & 1 << 12) || (_xgetbv(0) & state) != state) return 0; /* OSXSAVE, FMA */
        __cpuidex(r, 7, 0);
        return r[1];
    }
    static int supports_avx2(void) { return leaf7_ebx(0x06) >> 5 & 1; }
    static int supports_avx512(void) {
        const unsigned wanted = 1u << 16 | 1u << 17 | 1u << 30 | 1u << 31;
        return ((unsigned)leaf7_ebx(0xe6) & wanted) == wanted;
    }
    #else
    static int supports_avx2(void) { return 0; }
    static int supports_avx512(void) { return 0; }
    #endif
    """
    bint supports_avx2()
    bint supports_avx512()


def levels() -> list:
    """The levels that can run here, the best last."""
    return ["portable"] + ["avx2"] * supports_avx2() + ["avx512"] * supports_avx512()


def in_default_fp_environment(function, *args, **keywords):
    """Call a function in the default floating-point environment, whatever the caller's is."""
    cdef fenv_t callers
    enter_default(&callers, NULL)
    try:
        return function(*args, **keywords)
    finally:
        leave_default(&callers)

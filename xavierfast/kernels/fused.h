/* fused(a, b, c) = a * b + c in float32, rounded once: the fusedMultiplyAdd of IEEE 754-2008, the same bits everywhere.

   One instruction where the machine has it. On x86-64 without FMA it is computed in float64: the product of two float32
   is exact there, TwoSum (Knuth) gives the sum with its rounding error, and the sum is rounded to odd, after which the
   rounding to float32 is the only one that counts (Boldo and Melquiond 2008, "Emulation of a FMA and correctly rounded
   sums"). SSE2 has no 64-bit comparison, so the last place is selected as a double: gcc vectorises that. */
#include <math.h>
#include <stdint.h>

#if !defined(FUSED_EMULATED) && \
    (defined(__FMA__) || defined(__AVX512F__) || defined(__aarch64__) || defined(__s390x__) || defined(__powerpc64__) || \
     defined(__FP_FAST_FMAF) || (defined(__riscv_flen) && __riscv_flen >= 32))
static inline float fused(float a, float b, float c) { return __builtin_fmaf(a, b, c); }
#elif !defined(FUSED_EMULATED) && defined(_MSC_VER) && (defined(__AVX2__) || defined(_M_ARM64))
static inline float fused(float a, float b, float c) { return fmaf(a, b, c); }
#else
typedef union {
    double f;
    uint64_t u;
} fused_bits;

#define LAST_PLACE 4.9406564584124654e-324 /* the double whose bits are the integer 1; it is selected, never computed with */

static inline float fused(float a, float b, float c) {
    double product = (double)a * b, sum = product + c, part = sum - product;
    double rest = (product - (sum - part)) + (c - part); /* sum + rest is a * b + c, exactly */
    double side = rest * sum;
    fused_bits odd, nearer, further; /* the exact value is nearer to 0 than the sum, or further from it */
    odd.f = sum;
    nearer.f = side < 0 ? LAST_PLACE : 0.0;
    further.f = side > 0 ? LAST_PLACE : 0.0;
    odd.u = (odd.u - nearer.u) | nearer.u | further.u;
    return (float)odd.f;
}
#endif

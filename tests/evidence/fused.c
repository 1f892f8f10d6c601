/* fused of xavierfast/kernels/fused.h, emulated, beside the C library's fmaf: `fused TRIPLES SEED`. */
#define FUSED_EMULATED
#include "fused.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define N 4096
static float a[N], b[N], c[N], got[N];
static uint64_t state[2];

static uint64_t next(void) { /* xorshift128+ (Vigna 2014) */
    uint64_t x = state[0], y = state[1];
    state[0] = y;
    x ^= x << 23;
    state[1] = x ^ y ^ (x >> 17) ^ (y >> 26);
    return state[1] + y;
}

static uint32_t bits_of(float x) { uint32_t u; memcpy(&u, &x, 4); return u; }
static float float_of(uint32_t u) { float x; memcpy(&x, &u, 4); return x; }
/* A float of random sign and digits, of which only the first `digits` after the point may be set. */
static float number(int low, int high, int digits) {
    uint64_t r = next();
    uint32_t exponent = low + (r >> 32) % (high - low + 1), digit = (uint32_t)r & 0x7fffff & ~(0x7fffffu >> digits);
    return float_of((uint32_t)(r >> 63) << 31 | exponent << 23 | digit);
}

static void triple(int kind, int i) {
    switch (kind) {
    case 0: /* any bits: infinities, NaN and subnormals too */
        a[i] = float_of((uint32_t)next()), b[i] = float_of((uint32_t)next()), c[i] = float_of((uint32_t)next());
        break;
    case 1: /* ordinary ones of all distances */
        a[i] = number(97, 157, 23), b[i] = number(97, 157, 23), c[i] = number(67, 187, 23);
        break;
    case 2: /* a cancellation: c is near -a * b */
        a[i] = number(97, 157, 23), b[i] = number(97, 157, 23);
        c[i] = float_of(bits_of(-a[i] * b[i]) + (uint32_t)(next() % 9) - 4);
        break;
    case 3: { /* halfway by c: the product is half a last place of c, all but 2^-46 j^2 of it, or more */
        float j = (float)(next() % 5) * 0x1p-23f, half;
        c[i] = number(100, 150, 23);
        half = float_of((bits_of(c[i]) & 0x7f800000) - (24u << 23));
        a[i] = 1 + j, b[i] = next() & 1 ? half * (1 - j) : half * (1 + j);
        if (next() & 1) b[i] = -b[i];
        break;
    }
    case 4: /* halfway by the product, which has 25 digits, and a c that is far below it */
        a[i] = float_of(bits_of(number(110, 140, 12)) | 1u << 11), b[i] = float_of(bits_of(number(110, 140, 12)) | 1u << 11);
        c[i] = number(0, 90, 23);
        break;
    case 5: /* subnormal results, and sums with subnormals */
        a[i] = number(20, 90, 23), b[i] = number(20, 80, 23), c[i] = number(0, 4, 23);
        break;
    case 6: /* binade boundaries: c is a power of 2 or next to one, the product small beside it */
        a[i] = number(100, 130, 23), b[i] = number(80, 130, 23);
        c[i] = float_of(bits_of(number(110, 140, 0)) + (uint32_t)(next() % 5) - 2);
        break;
    default: /* near the largest number */
        a[i] = number(180, 192, 23), b[i] = number(180, 192, next() % 24), c[i] = number(248, 254, 23);
    }
}

static void fuse(void) {
    for (int i = 0; i < N; i++) got[i] = fused(a[i], b[i], c[i]);
}

int main(int count, char **arguments) {
    uint64_t triples = count > 1 ? strtoull(arguments[1], NULL, 10) : 1 << 26, wrong = 0, done = 0;
    state[0] = count > 2 ? strtoull(arguments[2], NULL, 10) : 1, state[1] = 0x9e3779b97f4a7c15;
    for (int kind = 0; done < triples; kind = (kind + 1) % 8) {
        for (int i = 0; i < N; i++) triple(kind, i);
        fuse();
        for (int i = 0; i < N; i++) {
            float want = fmaf(a[i], b[i], c[i]);
            if (bits_of(want) != bits_of(got[i]) && !(want != want && got[i] != got[i]) && wrong++ < 5)
                printf("kind %d: fused(%a, %a, %a) = %a, not %a\n", kind, a[i], b[i], c[i], got[i], want);
        }
        done += N;
    }
    printf("%llu of %llu triples differ from fmaf\n", (unsigned long long)wrong, (unsigned long long)done);
    return wrong != 0;
}

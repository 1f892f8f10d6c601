/* One pass over values that a cache holds, for streams.py, which compiles this with REAL and BITS float and uint32_t, or
   double and uint64_t. Every loop but those that count is written for the vectoriser. */
#include <stdint.h>

enum { CHUNK = 256, CLASSES = 64, COPIES = 4 };

/* Cells are of equal width, the first and the last without end; each belongs to one of 64 classes, of which pairs of
   values are counted: i and i + lag, none of them in two pairs. Exponents are counted in four copies, as the same
   counter twice in a row waits for itself; the lowest bytes of values from 1/4 on behind those of the others. */
void count(const REAL *v, int64_t n, double centre, double low, double per_unit, int64_t cells, const uint8_t *class_of,
           const int64_t *lags, int64_t n_lags, uint8_t *classes, double *sums, double *ends, uint64_t *histogram,
           uint64_t *exponents, uint64_t *low_bytes, uint64_t *pairs)
{
    const double top = (double)(cells - 1);
    const int shift = sizeof(REAL) == 4 ? 23 : 52, copy = sizeof(REAL) == 4 ? 512 : 4096;
    const BITS *bits = (const BITS *)v;
    double s1 = 0, s2 = 0, s3 = 0, s4 = 0, least = ends[0], most = ends[1];
    int32_t cell[CHUNK];

    for (int64_t first = 0; first < n; first += CHUNK) {
        const int size = n - first < CHUNK ? (int)(n - first) : CHUNK;
        for (int k = 0; k < size; k++) {
            double t = ((double)v[first + k] - low) * per_unit;
            t = t > 0 ? t : 0; /* NaN too, which the sums show */
            cell[k] = (int32_t)(t < top ? t : top);
        }
        for (int k = 0; k < size; k++) {
            histogram[cell[k]]++;
            classes[first + k] = class_of[cell[k]];
            exponents[k % COPIES * copy + (bits[first + k] >> shift)]++;
            low_bytes[(v[first + k] >= (REAL)0.25 || v[first + k] <= (REAL)-0.25) * 256 + (bits[first + k] & 255)]++;
        }
    }
#pragma omp simd reduction(+ : s1, s2, s3, s4) reduction(min : least) reduction(max : most)
    for (int64_t i = 0; i < n; i++) {
        const double x = (double)v[i] - centre, y = x * x;
        s1 += x;
        s2 += y;
        s3 += x * y;
        s4 += y * y;
        least = (double)v[i] < least ? (double)v[i] : least;
        most = (double)v[i] > most ? (double)v[i] : most;
    }
    sums[0] += s1;
    sums[1] += s2;
    sums[2] += s3;
    sums[3] += s4;
    ends[0] = least;
    ends[1] = most;
    for (int64_t l = 0; l < n_lags; l++) {
        const int64_t lag = lags[l];
        uint64_t *grid = pairs + l * CLASSES * CLASSES;
        double s = 0;
#pragma omp simd reduction(+ : s)
        for (int64_t i = 0; i < n - lag; i++)
            s += ((double)v[i] - centre) * ((double)v[i + lag] - centre);
        sums[4 + l] += s;
        for (int64_t first = 0; first + 2 * lag <= n; first += 2 * lag)
            for (int64_t i = first; i < first + lag; i++)
                grid[classes[i] * CLASSES + classes[i + lag]]++;
    }
}

/* How often each pattern occurs, in four copies. */
void count16(const uint16_t *v, int64_t n, uint64_t *counts)
{
    for (int64_t i = 0; i < n; i++)
        counts[(i % COPIES << 16) + v[i]]++;
}

void count8(const uint8_t *v, int64_t n, uint64_t *counts)
{
    for (int64_t i = 0; i < n; i++)
        counts[(i % COPIES << 8) + v[i]]++;
}

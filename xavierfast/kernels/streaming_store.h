/* Moves finished lines past the caches: the only place with intrinsics. It never changes a value.

   An ordinary store first reads the line that it will overwrite. Where the destination is larger than the caches that
   costs more than the generator does. The 16-byte streaming stores that every x86-64 has are as fast as 64-byte ones. */
#include <stddef.h>
#include <string.h>

#if defined(__SSE2__) || defined(_M_X64)
#include <emmintrin.h>

static inline void move_lines(void *destination, const void *source, size_t size) {
    __m128i *d = (__m128i *)destination; /* at a multiple of 64, as size is */
    const __m128i *s = (const __m128i *)source;
    for (size_t k = 0; k < size / 16; k++) _mm_stream_si128(d + k, _mm_loadu_si128(s + k));
}

static inline void move_fence(void) { _mm_sfence(); }
#else
static inline void move_lines(void *destination, const void *source, size_t size) { memcpy(destination, source, size); }

static inline void move_fence(void) {}
#endif

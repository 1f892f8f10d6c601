/* The floating-point environment of the calling thread, which another library may have changed, or the thread inherited:
   a rounding mode, flush-to-zero, denormals-are-zero. Values are computed in the default one, and the caller gets its
   own back. The barriers keep the compiler from moving arithmetic on `input` out of there. */
#include <fenv.h>

#if defined(__GNUC__) || defined(__clang__)
#define BARRIER(pointer) __asm__ volatile("" : : "r"(pointer) : "memory")
#else
#define BARRIER(pointer) ((void)(pointer))
#endif

static inline void enter_default(fenv_t *callers, const void *input) {
    fegetenv(callers);
    fesetenv(FE_DFL_ENV);
    BARRIER(input);
}

static inline void leave_default(const fenv_t *callers) {
    BARRIER(callers);
    fesetenv(callers);
}

# Values, normals truncated at any bounds: float64 arithmetic, for float32 results too.

cdef inline double halley(double x, double target) noexcept nogil:
    """One Halley step towards ln Q(x) = target, Q the upper tail of the normal distribution, x >= 1.

    With Mills' ratio M: Q(x) = M(x) exp(-x^2 / 2) / sqrt(2 pi), so no tail is too far to be represented.
    """
    cdef double u = 1 / x, n, d, m, g
    n = 20105.061732419945519 * u + 32215.908951553139553  # x M(x) for x >= 1.4, relative error 1.7e-16
    n = n * u + 25254.6036622891137
    n = n * u + 12468.671745743200841
    n = n * u + 4221.2431326120280487
    n = n * u + 1005.6105423078465396
    n = n * u + 166.23330872911832495
    n = n * u + 17.764411301012966238
    n = n * u + 1
    d = 16041.516584952091701 * u + 38503.867229309435494
    d = d * u + 42851.098954812692859
    d = d * u + 29153.376133453365813
    d = d * u + 13438.753586369428456
    d = d * u + 4385.4764389437579493
    d = d * u + 1023.3749536376363463
    d = d * u + 167.23330872893828016
    d = d * u + 17.764411301013404528
    d = d * u + 1
    m = u * n / d
    g = ln(m, m - 1) - 0.9189385332046727 - 0.5 * x * x - target  # ln sqrt(2 pi)
    return x + g * m * (1 - 0.5 * g * (1 - x * m))


cdef inline double quantile(
    double s, double nearer, bint below, const truncated_t* p, int halley_steps
) noexcept nogil:
    """The truncated normal's value, not yet bounded, for the draw s in (-1, 1), which is `nearer` away from the nearer
    end of (0, 1) as a fraction of the mass, and from its lower end if `below`.

    In the middle Wichura's AS 241 (1988), in the tails Abramowitz and Stegun 26.2.23 and Halley steps on ln Q.
    """
    cdef double lower, upper, least, target, t, tail, q, y, n, d
    lower = p.before + p.mass * (nearer if below else 1 - nearer)
    upper = p.after + p.mass * (1 - nearer if below else nearer)
    below = lower < upper
    least = lower if below else upper
    target = p.unit + ln(least, least - 1)
    t = sqrt(-2 * target)
    n = (0.010328 * t + 0.802853) * t + 2.515517
    d = ((0.001308 * t + 0.189269) * t + 1.432788) * t + 1
    tail = t - n / d
    tail = 1.0 if tail < 1 else tail
    tail = halley(tail, target)
    if halley_steps == 2:
        tail = halley(tail, target)
    tail = -tail if below else tail

    q = p.centre + p.half * s
    y = 0.180625 - q * q
    n = 2509.0809287301226727 * y + 33430.575583588128105
    n = n * y + 67265.770927008700853
    n = n * y + 45921.953931549871457
    n = n * y + 13731.693765509461125
    n = n * y + 1971.5909503065514427
    n = n * y + 133.14166789178437745
    n = n * y + 3.387132872796366608
    d = 5226.495278852854561 * y + 28729.085735721942674
    d = d * y + 39307.89580009271061
    d = d * y + 21213.794301586595867
    d = d * y + 5394.1960214247511077
    d = d * y + 687.1870074920579083
    d = d * y + 42.313330701600911252
    d = d * y + 1
    return (q * n / d if y > 0 else tail) * p.std + p.mean


cdef inline void quantile32(const uint32_t* w, const truncated_t* p, float* v) noexcept nogil:
    cdef float low = <float> p.low, high = <float> p.high
    cdef double value
    cdef int32_t x
    cdef int j
    for j in range(TILE):
        x = <int32_t> w[j] | 1
        value = quantile(
            <double> x * 4.656612873077393e-10,  # 2^-31
            <double> to_end(x) * 2.3283064365386963e-10,  # 2^-32
            x < 0, p, 1,
        )
        v[j] = bounded32(<float> value, low, high)


cdef inline void quantile64(const uint32_t* w, const truncated_t* p, double* v) noexcept nogil:
    cdef double value
    cdef int32_t a, b, sign
    cdef int j
    for j in range(HALF):
        a = <int32_t> w[j]
        b = <int32_t> (w[j + HALF] >> 1 | 1)
        sign = a >> 31
        value = quantile(
            signed62(w[j], w[j + HALF]) * 2.168404344971009e-19,  # 2^-62
            # (2^62 - |n|) 2^-63
            (<double> (a ^ sign ^ 0x7fffffff) * 2147483648.0 + <double> (b ^ ~sign & 0x7ffffffe)) * 1.0842021724855044e-19,
            sign, p, 2,
        )
        v[j] = bounded64(value, p.low, p.high)

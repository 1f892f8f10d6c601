# Words: ChaCha with 8 rounds (Bernstein 2008), sixteen blocks at a time.
#
# The state of a block is a matrix of 16 words; each lane of the loop below has a block of its own:
#
#     x0  x1  x2  x3        "expand 32-byte k"
#     x4  x5  x6  x7        key
#     x8  x9  xa  xb        key
#     xc  xd  xe  xf        block counter, low and high half; nonce, which is 0
#
# A tile is 256 words, kept word-major:
#
#     w[16 * word + lane]  =  word `word` of block 16 * tile + lane          lane = 0 .. 15
#
# so sixteen lanes of one word are neighbours and no vector unit ever transposes. We are locked in to this interlacing of
# sixteen, whatever the width of a machine's vectors.

cdef enum:
    SIGMA0 = 0x61707865, SIGMA1 = 0x3320646e, SIGMA2 = 0x79622d32, SIGMA3 = 0x6b206574  # "expand 32-byte k"


cdef inline uint32_t rotl(uint32_t x, int n) noexcept nogil:
    return x << n | x >> 32 - n


cdef inline void quarter_round(uint32_t* a, uint32_t* b, uint32_t* c, uint32_t* d) noexcept nogil:
    a[0] += b[0]; d[0] = rotl(d[0] ^ a[0], 16)
    c[0] += d[0]; b[0] = rotl(b[0] ^ c[0], 12)
    a[0] += b[0]; d[0] = rotl(d[0] ^ a[0], 8)
    c[0] += d[0]; b[0] = rotl(b[0] ^ c[0], 7)


cdef inline void double_round(
    uint32_t* x0, uint32_t* x1, uint32_t* x2, uint32_t* x3, uint32_t* x4, uint32_t* x5, uint32_t* x6, uint32_t* x7,
    uint32_t* x8, uint32_t* x9, uint32_t* xa, uint32_t* xb, uint32_t* xc, uint32_t* xd, uint32_t* xe, uint32_t* xf,
) noexcept nogil:
    # columns
    quarter_round(x0, x4, x8, xc)
    quarter_round(x1, x5, x9, xd)
    quarter_round(x2, x6, xa, xe)
    quarter_round(x3, x7, xb, xf)
    # diagonals
    quarter_round(x0, x5, xa, xf)
    quarter_round(x1, x6, xb, xc)
    quarter_round(x2, x7, x8, xd)
    quarter_round(x3, x4, x9, xe)


cdef void chacha8(const uint32_t* key, uint64_t tile, uint32_t* w) noexcept nogil:
    """The 256 words of a tile: blocks 16 * tile + lane, 64-bit counter, nonce 0."""
    cdef uint32_t x0, x1, x2, x3, x4, x5, x6, x7, x8, x9, xa, xb, xc, xd, xe, xf
    cdef uint32_t k0 = key[0], k1 = key[1], k2 = key[2], k3 = key[3], k4 = key[4], k5 = key[5], k6 = key[6], k7 = key[7]
    # `low` ends in four zero bits, so low + lane never carries into `high`.
    cdef uint32_t low = <uint32_t> (tile << 4), high = <uint32_t> (tile >> 28)
    cdef int lane
    for lane in range(LANES):
        x0 = SIGMA0; x1 = SIGMA1; x2 = SIGMA2; x3 = SIGMA3
        x4 = k0; x5 = k1; x6 = k2; x7 = k3
        x8 = k4; x9 = k5; xa = k6; xb = k7
        xc = low + lane; xd = high; xe = 0; xf = 0
        # Written out: a loop over the rounds stops gcc from vectorising the loop over the lanes (13 GB/s become 1.5).
        double_round(&x0, &x1, &x2, &x3, &x4, &x5, &x6, &x7, &x8, &x9, &xa, &xb, &xc, &xd, &xe, &xf)
        double_round(&x0, &x1, &x2, &x3, &x4, &x5, &x6, &x7, &x8, &x9, &xa, &xb, &xc, &xd, &xe, &xf)
        double_round(&x0, &x1, &x2, &x3, &x4, &x5, &x6, &x7, &x8, &x9, &xa, &xb, &xc, &xd, &xe, &xf)
        double_round(&x0, &x1, &x2, &x3, &x4, &x5, &x6, &x7, &x8, &x9, &xa, &xb, &xc, &xd, &xe, &xf)
        # The input is added to the output; words 14 and 15 of the input are the nonce, 0.
        w[0 * LANES + lane] = x0 + SIGMA0; w[1 * LANES + lane] = x1 + SIGMA1
        w[2 * LANES + lane] = x2 + SIGMA2; w[3 * LANES + lane] = x3 + SIGMA3
        w[4 * LANES + lane] = x4 + k0; w[5 * LANES + lane] = x5 + k1
        w[6 * LANES + lane] = x6 + k2; w[7 * LANES + lane] = x7 + k3
        w[8 * LANES + lane] = x8 + k4; w[9 * LANES + lane] = x9 + k5
        w[10 * LANES + lane] = xa + k6; w[11 * LANES + lane] = xb + k7
        w[12 * LANES + lane] = xc + (low + lane); w[13 * LANES + lane] = xd + high
        w[14 * LANES + lane] = xe; w[15 * LANES + lane] = xf

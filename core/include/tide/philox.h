/* tide/philox.h - Philox4x32-10 (Salmon, Moraes, Dror, Shaw, Parallel random numbers: as easy as 1, 2, 3, SC 2011): random words that
 * depend on a key and a counter alone, whoever asks. */
#ifndef TIDE_PHILOX_H
#define TIDE_PHILOX_H
#include <stdint.h>
#ifdef __cplusplus
extern "C" {
#endif

/** Four random words of a 128-bit counter and a 64-bit key, low words first. */
static inline void td_philox(const uint32_t counter[4], const uint32_t key[2], uint32_t out[4])
{
    uint32_t c0 = counter[0], c1 = counter[1], c2 = counter[2], c3 = counter[3], k0 = key[0], k1 = key[1];
    for (int round = 0; round < 10; round++) {
        uint64_t a = (uint64_t)0xD2511F53u * c0, b = (uint64_t)0xCD9E8D57u * c2;
        c0 = (uint32_t)(b >> 32) ^ c1 ^ k0;
        c2 = (uint32_t)(a >> 32) ^ c3 ^ k1;
        c1 = (uint32_t)b;
        c3 = (uint32_t)a;
        k0 += 0x9E3779B9u; /* golden ratio   */
        k1 += 0xBB67AE85u; /* sqrt(3) - 1    */
    }
    out[0] = c0, out[1] = c1, out[2] = c2, out[3] = c3;
}

#ifdef __cplusplus
}
#endif
#endif

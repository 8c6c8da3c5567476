/* half.h - f16 (IEEE 754 binary16) and bf16 (the upper half of an f32), one at a time, rounded to nearest even. */
#ifndef TIDE_HALF_H
#define TIDE_HALF_H
#include <math.h>
#include <stdint.h>
#include <string.h>

static inline uint32_t tdi_bits_of(float x)
{
    uint32_t u;
    memcpy(&u, &x, sizeof u);
    return u;
}

static inline float tdi_float_of(uint32_t u)
{
    float x;
    memcpy(&x, &u, sizeof x);
    return x;
}

static inline float tdi_from_bf16(uint16_t h) { return tdi_float_of((uint32_t)h << 16); }

static inline uint16_t tdi_to_bf16(float x)
{
    uint32_t u = tdi_bits_of(x);
    if (x != x) return (uint16_t)(u >> 16 | 0x40); /* a NaN stays one when its low bits go */
    return (uint16_t)((u + 0x7fff + (u >> 16 & 1)) >> 16);
}

static inline float tdi_from_f16(uint16_t h)
{
    uint32_t sign = (uint32_t)(h & 0x8000) << 16, exponent = h >> 10 & 31, fraction = h & 1023;
    if (exponent == 31) return tdi_float_of(sign | 0x7f800000 | fraction << 13);
    if (exponent == 0) { /* subnormal: a multiple of 2^-24 */
        float x = (float)fraction * 0x1p-24f;
        return sign ? -x : x;
    }
    return tdi_float_of(sign | (exponent + 112) << 23 | fraction << 13);
}

static inline uint16_t tdi_to_f16(float x)
{
    uint32_t u = tdi_bits_of(x), sign = u >> 16 & 0x8000, a = u & 0x7fffffff;
    if (a > 0x7f800000) return (uint16_t)(sign | 0x7e00);  /* NaN */
    if (a >= 0x477ff000) return (uint16_t)(sign | 0x7c00); /* 65520 and above round to infinity */
    if (a < 0x38800000) /* below 2^-14: a multiple of 2^-24, rounded by the addition */
        return (uint16_t)(sign | (tdi_bits_of(tdi_float_of(a) + 0.5f) - tdi_bits_of(0.5f)));
    return (uint16_t)(sign | (a - 0x38000000 + 0xfff + (a >> 13 & 1)) >> 13);
}

#endif

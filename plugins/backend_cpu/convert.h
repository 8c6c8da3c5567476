/* convert.h - from one dtype to another, without branches, so that loops over it vectorise.
 *
 * Fractions are cut towards zero, values out of range become the greatest or least one, NaN becomes 0 in integers and
 * true in bool. f16 and bf16 are rounded to nearest, ties to even. */
#ifndef TIDE_BACKEND_CPU_CONVERT_H
#define TIDE_BACKEND_CPU_CONVERT_H
#include "cpu.h"
#include <string.h>

#define CV_INLINE static inline __attribute__((always_inline, unused))

CV_INLINE uint32_t cv_bits(float x)
{
    uint32_t u;
    memcpy(&u, &x, sizeof u);
    return u;
}

CV_INLINE float cv_float(uint32_t u)
{
    float x;
    memcpy(&x, &u, sizeof x);
    return x;
}

/** f16 has 5 bits of exponent and 10 of mantissa. A product with 2^112 moves the exponent, denormals included. */
CV_INLINE float cv_f32_of_f16(uint16_t h)
{
    uint32_t u = h, magnitude = u & 0x7fffu;
    uint32_t f = cv_bits(cv_float(magnitude << 13) * 0x1p112f);
    f = magnitude >= 0x7c00u ? f | 0x7f800000u : f;
    return cv_float(f | (u & 0x8000u) << 16);
}

/** Adding 1/2 to a number below 2^-14 rounds it to a multiple of 2^-24, f16's smallest denormal. */
CV_INLINE uint16_t cv_f16_of_f32(float x)
{
    uint32_t u = cv_bits(x), sign = (u & 0x80000000u) >> 16, f = u & 0x7fffffffu;
    uint32_t small = cv_bits(cv_float(f) + 0.5f) - 0x3f000000u;
    uint32_t normal = (f - 0x38000000u + 0xfffu + (f >> 13 & 1u)) >> 13;
    uint32_t h = f < 0x38800000u ? small : normal;
    h = f >= 0x47800000u ? 0x7c00u : h; /* 65536 and more; 65520 .. 65536 round up to infinity by themselves */
    h = f > 0x7f800000u ? 0x7e00u : h;
    return (uint16_t)(h | sign);
}

CV_INLINE float cv_f32_of_bf16(uint16_t b) { return cv_float((uint32_t)b << 16); }

CV_INLINE uint16_t cv_bf16_of_f32(float x)
{
    uint32_t u = cv_bits(x);
    uint32_t r = (u + 0x7fffu + (u >> 16 & 1u)) >> 16;
    return (uint16_t)((u & 0x7fffffffu) > 0x7f800000u ? (u >> 16 | 0x40u) : r);
}

CV_INLINE int64_t cv_i64_of_f64(double x)
{
    return x >= 0x1p63 ? INT64_MAX : x >= -0x1p63 ? (int64_t)x : x < 0 ? INT64_MIN : 0;
}

CV_INLINE int32_t cv_i32_of_f64(double x)
{
    return x >= 2147483647.0 ? INT32_MAX : x >= -2147483648.0 ? (int32_t)x : x < 0 ? INT32_MIN : 0;
}

CV_INLINE int32_t cv_i32_of_f32(float x)
{
    return x >= 2147483648.0f ? INT32_MAX : x >= -2147483648.0f ? (int32_t)x : x < 0 ? INT32_MIN : 0;
}

CV_INLINE uint8_t cv_u8_of_f64(double x)
{
    double least = x > 0 ? x : 0;
    return (uint8_t)(int32_t)(least < 255 ? least : 255);
}

CV_INLINE uint8_t cv_u8_of_f32(float x)
{
    float least = x > 0 ? x : 0;
    return (uint8_t)(int32_t)(least < 255 ? least : 255);
}

CV_INLINE int32_t cv_i32_of_i64(int64_t x)
{
    return (int32_t)(x > INT32_MAX ? INT32_MAX : x < INT32_MIN ? INT32_MIN : x);
}

CV_INLINE uint8_t cv_u8_of_i64(int64_t x) { return (uint8_t)(x > 255 ? 255 : x < 0 ? 0 : x); }
CV_INLINE uint8_t cv_u8_of_i32(int32_t x) { return (uint8_t)(x > 255 ? 255 : x < 0 ? 0 : x); }

/** Writes x as one element of dt. */
static inline __attribute__((unused)) void cv_store(void *to, td_dtype dt, double x)
{
    switch (dt) {
    case TD_F32: *(float *)to = (float)x; break;
    case TD_F64: *(double *)to = x; break;
    case TD_F16: *(uint16_t *)to = cv_f16_of_f32((float)x); break;
    case TD_BF16: *(uint16_t *)to = cv_bf16_of_f32((float)x); break;
    case TD_I64: *(int64_t *)to = cv_i64_of_f64(x); break;
    case TD_I32: *(int32_t *)to = cv_i32_of_f64(x); break;
    case TD_U8: *(uint8_t *)to = cv_u8_of_f64(x); break;
    default: *(uint8_t *)to = x != 0; break;
    }
}

#endif

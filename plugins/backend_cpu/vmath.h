/* vmath.h - f32 functions without branches or calls, so that GCC vectorises a loop that uses them:
 *
 *     #pragma omp simd
 *     for (int64_t i = 0; i < n; i++) y[i] = vm_expf(x[i]);
 *
 * Zeros, infinities, NaN and denormal arguments and results are right. Powers of two are made from exponent bits, never
 * from a conversion that NaN could overflow. The polynomials are minimax fits of our own (weighted least squares,
 * reweighted after Lawson 1961, coefficients rounded to f32 one after the other and the rest fitted again).
 *
 * Greatest error found over all 2^32 arguments, in units of the last place of the correctly rounded result, against the
 * C library's f64 function, with FMA (avx2, avx512) / without (plain):
 *
 *     vm_expf 1.0 / 1.0    vm_expm1f 1.4 / 1.5    vm_logf 0.9 / 1.0    vm_log1pf 1.6 / 1.6
 *     vm_sigmoidf 2.0 / 2.0    vm_tanhf 1.4 / 1.4    vm_erff 1.1 / 1.3
 *     vm_sinf, vm_cosf 1.6 / 1.6 for |x| <= VM_TRIG_MAX; larger arguments belong to sinf and cosf of the C library
 *
 * tests/c/test_vmath.c holds them to 2 (over every 1021st argument). For f64 kernels use the C library. */
#ifndef TIDE_BACKEND_CPU_VMATH_H
#define TIDE_BACKEND_CPU_VMATH_H
#include <math.h>
#include <stdint.h>
#include <string.h>

#define VM_INLINE static inline __attribute__((always_inline, unused))

VM_INLINE uint32_t vm_bits(float x)
{
    uint32_t u;
    memcpy(&u, &x, sizeof u);
    return u;
}

VM_INLINE float vm_float(uint32_t u)
{
    float x;
    memcpy(&x, &u, sizeof x);
    return x;
}

/** |x|, and x with the sign bit of s set as well. */
VM_INLINE float vm_absf(float x) { return vm_float(vm_bits(x) & 0x7fffffffu); }
VM_INLINE float vm_orsignf(float x, float s) { return vm_float(vm_bits(x) | (vm_bits(s) & 0x80000000u)); }

/**
 * x = n ln 2 + r, |r| <= ln(2) / 2, for |x| < 2^21. Adding 1.5 2^23 leaves the nearest integer in the low bits, as a
 * float and as an integer at once. ln 2 is taken in two parts, the first short enough for n * part to be exact.
 */
VM_INLINE float vm_reduce_ln2(float x, uint32_t *n)
{
    const float magic = 12582912.0f;
    float t = x * 1.44269504f + magic;
    *n = vm_bits(t) - 0x4b400000u;
    float nf = t - magic;
    return (x - nf * 0.693145752f) - nf * 1.42860677e-6f;
}

/** e^r for |r| <= ln(2) / 2 */
VM_INLINE float vm_exp_poly(float r)
{
    float p = 0.00138207595f;
    p = p * r + 0.00836867839f;
    p = p * r + 0.0416682661f;
    p = p * r + 0.166665211f;
    p = p * r + 0.49999994f;
    return p * (r * r) + r + 1.0f;
}

/** e^x */
VM_INLINE float vm_expf(float x)
{
    uint32_t n;
    float c = x > 89.0f ? 89.0f : x; /* a NaN passes both */
    c = c < -104.0f ? -104.0f : c;
    float p = vm_exp_poly(vm_reduce_ln2(c, &n));
    uint32_t half = (uint32_t)((int32_t)n >> 1); /* 2^n in two factors: n is -150 .. 128 */
    return p * vm_float((half + 127u) << 23) * vm_float((n - half + 127u) << 23);
}

/** e^x for -87 <= x <= 88: no clamps, and 2^n is one factor. */
VM_INLINE float vm_exp_normal(float x)
{
    uint32_t n;
    float r = vm_reduce_ln2(x, &n);
    return vm_exp_poly(r) * vm_float((n + 127u) << 23);
}

/** e^r - 1 for |r| <= ln(2) / 2 */
VM_INLINE float vm_expm1_poly(float r)
{
    float p = 0.000197625413f;
    p = p * r + 0.00139323319f;
    p = p * r + 0.00833354518f;
    p = p * r + 0.0416664928f;
    p = p * r + 0.166666657f;
    p = p * r + 0.5f;
    return p * (r * r) + r;
}

/** e^x - 1, accurate near 0:  2 (2^(n-1) (e^r - 1) + (2^(n-1) - 1/2)) */
VM_INLINE float vm_expm1f(float x)
{
    uint32_t n;
    float c = x > 89.0f ? 89.0f : x;
    c = c < -18.0f ? -18.0f : c;
    float e = vm_expm1_poly(vm_reduce_ln2(c, &n));
    float s = vm_float((n + 126u) << 23);
    return vm_orsignf(2.0f * (s * e + (s - 0.5f)), x);
}

/** ln(1 + r) for 2/3 - 1 <= r <= 4/3 - 1 */
VM_INLINE float vm_log1p_tail(float r)
{
    float p = 0.119584665f;
    p = p * r - 0.128301188f;
    p = p * r + 0.10769555f;
    p = p * r - 0.121994175f;
    p = p * r + 0.143027171f;
    p = p * r - 0.166792959f;
    p = p * r + 0.199996814f;
    p = p * r - 0.249998271f;
    p = p * r + 0.333333343f;
    return (p * r - 0.5f) * (r * r); /* without its first term, r */
}

/** e and m of u = 2^e m, m from 2/3 to 4/3; u is normal and positive. */
VM_INLINE float vm_split(float u, uint32_t *e)
{
    uint32_t t = vm_bits(u) - 0x3f2aaaabu;
    *e = (uint32_t)((int32_t)t >> 23);
    return vm_float((t & 0x007fffffu) + 0x3f2aaaabu);
}

/** ln x */
VM_INLINE float vm_logf(float x)
{
    uint32_t e;
    int tiny = x < 1.17549435e-38f;
    float m = vm_split(tiny ? x * 8388608.0f : x, &e);
    float ef = (float)((int32_t)e - (tiny ? 23 : 0)), r = m - 1.0f;
    float y = ef * 0.693147182f + (r + (vm_log1p_tail(r) - ef * 1.90465421e-9f));
    y = x < INFINITY ? y : x; /* inf and NaN */
    return x > 0.0f ? y : x == 0.0f ? -INFINITY : NAN;
}

/** ln(1 + x), accurate near 0: what the sum 1 + x loses goes into r. */
VM_INLINE float vm_log1pf(float x)
{
    uint32_t e;
    float u = 1.0f + x, b = u - x;
    float lost = (x - (u - b)) + (1.0f - b);
    float m = vm_split(u, &e);
    float r = (m - 1.0f) + 0.5f * lost * vm_float((128u - e) << 23); /* 2^(1 - e): e is -24 .. 128 */
    float ef = (float)(int32_t)e;
    float y = ef * 0.693147182f + (r + (vm_log1p_tail(r) - ef * 1.90465421e-9f));
    y = x < INFINITY ? y : x;
    y = x > -1.0f ? y : x == -1.0f ? -INFINITY : NAN;
    return x == 0.0f ? x : y;
}

/** e^x for -87 <= x <= 88 to 0.7 ulp: what the reduction rounds away goes into the polynomial. */
VM_INLINE float vm_exp_fine(float x)
{
    const float magic = 12582912.0f;
    float t = x * 1.44269504f + magic, nf = t - magic;
    float hi = x - nf * 0.693145752f, lo = nf * 1.42860677e-6f, r = hi - lo;
    float p = 0.00138207595f;
    p = p * r + 0.00836867839f;
    p = p * r + 0.0416682661f;
    p = p * r + 0.166665211f;
    p = p * r + 0.49999994f;
    float tail = p * (r * r) + ((hi - r) - lo);
    return (tail + r + 1.0f) * vm_float((vm_bits(t) - 0x4b400000u + 127u) << 23);
}

/** 1 / (1 + e^-x), as e^x / (1 + e^x) where x is negative, for small results; those below e^-87 by the long way. What the sum
 * 1 + e loses is made good in the quotient. */
VM_INLINE float vm_sigmoidf(float x)
{
    float a = vm_absf(x), e = vm_exp_fine(-(a > 87.0f ? 87.0f : a));
    e = a > 87.0f ? vm_expf(-a) : e;
    float sum = 1.0f + e, lost = e - (sum - 1.0f), y = (x < 0.0f ? e : 1.0f) / sum;
    return y - y * lost * (1.0f - 0.5f * e);
}

/** Up to |x| = 0.6 x + x^3 P(x^2), beyond it 1 - 2 / (e^2|x| + 1) with the sign of x. */
VM_INLINE float vm_tanhf(float x)
{
    float a = vm_absf(x), z = a * a;
    float p = -0.00590586057f;
    p = p * z + 0.0208053775f;
    p = p * z - 0.0537866801f;
    p = p * z + 0.133319587f;
    p = p * z - 0.333332986f;
    float small = p * (z * a) + a;
    float t = a > 10.0f ? 10.0f : a; /* tanh(10) rounds to 1 */
    float large = 1.0f - 2.0f / (vm_exp_normal(2.0f * t) + 1.0f);
    return vm_orsignf(a > 0.6f ? large : small, x);
}

/** Up to |x| = 1 x + x P(x^2), beyond it 1 - e^(-|x| Q(|x|)) with the sign of x. */
VM_INLINE float vm_erff(float x)
{
    float a = vm_absf(x), z = a * a;
    float p = 7.80690316e-5f;
    p = p * z - 0.00079978531f;
    p = p * z + 0.0051871622f;
    p = p * z - 0.0268533472f;
    p = p * z + 0.112835787f;
    p = p * z - 0.37612626f;
    p = p * z + 0.128379166f;
    float small = p * a + a;
    float t = a > 4.0f ? 4.0f : a; /* erf(4) rounds to 1 */
    float q = -0.000210647049f;
    q = q * t + 0.00318697677f;
    q = q * t - 0.0227985587f;
    q = q * t + 0.105116293f;
    q = q * t + 0.635831356f;
    q = q * t + 1.12848008f;
    float large = 1.0f - vm_exp_normal(-q * t);
    return vm_orsignf(a > 1.0f ? large : small, x);
}

/**
 * The normal distribution up to x, and its density there; with u = |x| it is  1/2 erfc(u / sqrt(2)) = e^(-u^2 / 2) P(1 / (1 + 0.34 u))
 * below -u, so that one exponential serves both. Greatest error found with FMA / without: 1.4e-7 / 1.7e-7; relative, for -2 < x < 1,
 * 3.4e-7 / 4.3e-7.
 */
VM_INLINE float vm_normalf(float x, float *density)
{
    float u = vm_absf(x), near = u > 13.0f ? 13.0f : u, t = 1.0f / (1.0f + 0.34f * near);
    float e = vm_exp_normal(-0.5f * near * near);
    e = u > 13.0f ? 0.0f : e; /* so an infinity times it is NaN, as it is with erf */
    float p = -0.0265227221f;
    p = p * t + 0.141389519f;
    p = p * t - 0.276891798f;
    p = p * t + 0.206303284f;
    p = p * t - 0.0474325679f;
    p = p * t + 0.116455548f;
    p = p * t + 0.114933215f;
    p = p * t + 0.136146933f;
    p = p * t + 0.135618612f;
    float tail = p * t * e;
    *density = 0.398942280f * e;
    return x > 0.0f ? 1.0f - tail : tail;
}

/** Greatest |x| for vm_sinf and vm_cosf; NaN and larger ones fail  |x| <= VM_TRIG_MAX. */
#define VM_TRIG_MAX 134217728.0f

/** sin r and cos r for |r| <= pi/4 */
VM_INLINE void vm_sincos_small(float r, float *s, float *c)
{
    float z = r * r;
    float p = -0.000195182845f;
    p = p * z + 0.00833218917f;
    p = p * z - 0.166666552f;
    *s = p * (z * r) + r;
    p = 2.44325638e-5f;
    p = p * z - 0.00138873106f;
    p = p * z + 0.0416666456f;
    *c = p * (z * z) + (1.0f - 0.5f * z);
}

/** q and r of x = q pi/2 + r, |r| <= pi/4, in f64 with pi/2 in two parts of 25 and 53 bits; then as above. */
VM_INLINE uint32_t vm_reduce_pio2(float x, float *s, float *c)
{
    const double magic = 6755399441055744.0; /* 1.5 2^52 */
    double t = (double)x * 0.63661977236758134308 + magic, n = t - magic;
    vm_sincos_small((float)(((double)x - n * 1.57079631090164184570) - n * 1.58932547735281966916e-8), s, c);
    uint64_t u;
    memcpy(&u, &t, sizeof u);
    return (uint32_t)u;
}

VM_INLINE float vm_sinf(float x)
{
    float s, c;
    uint32_t q = vm_reduce_pio2(x, &s, &c);
    float y = q & 1u ? c : s;
    y = vm_float(vm_bits(y) ^ (q & 2u) << 30);
    return x == 0.0f ? x : y; /* keeps the sign of -0 */
}

VM_INLINE float vm_cosf(float x)
{
    float s, c;
    uint32_t q = vm_reduce_pio2(x, &s, &c);
    float y = q & 1u ? s : c;
    return vm_float(vm_bits(y) ^ ((q + 1u) & 2u) << 30);
}

#endif

/* loops.h - makes the inner functions (st_fn) of element-wise kernels from one expression: a loop for contiguous
 * operands, which vectorises, one for operands that are a single value, and one for any strides.
 *
 *     ST_BINARY(add_f32, float, float, a + b)           static void add_f32(const st_block *)
 *     ST_UNARY(neg_f32, float, float, -a)
 *     ST_UNARY_C(clamp_f32, float, float, a < c0 ? c0 : a > c1 ? c1 : a)    c0, c1: the two values that ctx points to
 *
 * An output may be the same memory as an input: each element is read before it is written. */
#ifndef TIDE_BACKEND_CPU_LOOPS_H
#define TIDE_BACKEND_CPU_LOOPS_H
#include "strided.h"
#include <string.h>

#define ST_ALWAYS static inline __attribute__((always_inline, unused))
#define ST_SIMD _Pragma("omp simd")

#define ST_UNARY_BODY_(TO, TI, call)                                  \
    const int64_t n = blk->n, so = blk->step[0], sa = blk->step[1];   \
    for (int64_t r = 0; r < blk->rows; r++) {                         \
        char *po = blk->p[0] + r * blk->row[0];                       \
        const char *pa = blk->p[1] + r * blk->row[1];                 \
        if (so == (int64_t)sizeof(TO) && sa == (int64_t)sizeof(TI)) { \
            TO *o = (TO *)po;                                         \
            const TI *x = (const TI *)pa;                             \
            ST_SIMD                                                   \
            for (int64_t i = 0; i < n; i++) {                         \
                const TI a = x[i];                                    \
                o[i] = call;                                          \
            }                                                         \
        } else {                                                      \
            for (int64_t i = 0; i < n; i++) {                         \
                const TI a = *(const TI *)(pa + i * sa);              \
                *(TO *)(po + i * so) = call;                          \
            }                                                         \
        }                                                             \
    }

#define ST_UNARY(name, TO, TI, expr)                          \
    ST_ALWAYS TO name##_of(const TI a) { return (TO)(expr); } \
    static void name(const st_block *blk) { ST_UNARY_BODY_(TO, TI, name##_of(a)) }

#define ST_UNARY_C(name, TO, TI, expr)                                           \
    ST_ALWAYS TO name##_of(const TI a, const TI c0, const TI c1)                 \
    {                                                                            \
        (void)c1;                                                                \
        return (TO)(expr);                                                       \
    }                                                                            \
    static void name(const st_block *blk)                                        \
    {                                                                            \
        const TI c0 = ((const TI *)blk->ctx)[0], c1 = ((const TI *)blk->ctx)[1]; \
        ST_UNARY_BODY_(TO, TI, name##_of(a, c0, c1))                             \
    }

#define ST_BINARY(name, TO, TI, expr)                                                                         \
    ST_ALWAYS TO name##_of(const TI a, const TI b) { return (TO)(expr); }                                     \
    static void name(const st_block *blk)                                                                     \
    {                                                                                                         \
        const int64_t n = blk->n, so = blk->step[0], sa = blk->step[1], sb = blk->step[2];                    \
        const int64_t st = (int64_t)sizeof(TI);                                                               \
        const bool dense = so == (int64_t)sizeof(TO);                                                         \
        for (int64_t r = 0; r < blk->rows; r++) {                                                             \
            char *po = blk->p[0] + r * blk->row[0];                                                           \
            const char *pa = blk->p[1] + r * blk->row[1], *pb = blk->p[2] + r * blk->row[2];                  \
            TO *o = (TO *)po;                                                                                 \
            const TI *x = (const TI *)pa, *y = (const TI *)pb;                                                \
            if (dense && sa == st && sb == st) {                                                              \
                ST_SIMD                                                                                       \
                for (int64_t i = 0; i < n; i++) o[i] = name##_of(x[i], y[i]);                                 \
            } else if (dense && sa == st && sb == 0) {                                                        \
                const TI b = *y;                                                                              \
                ST_SIMD                                                                                       \
                for (int64_t i = 0; i < n; i++) o[i] = name##_of(x[i], b);                                    \
            } else if (dense && sa == 0 && sb == st) {                                                        \
                const TI a = *x;                                                                              \
                ST_SIMD                                                                                       \
                for (int64_t i = 0; i < n; i++) o[i] = name##_of(a, y[i]);                                    \
            } else {                                                                                          \
                for (int64_t i = 0; i < n; i++) {                                                             \
                    *(TO *)(po + i * so) = name##_of(*(const TI *)(pa + i * sa), *(const TI *)(pb + i * sb)); \
                }                                                                                             \
            }                                                                                                 \
        }                                                                                                     \
    }

/** How to see in the bits of an element whether it is zero: a mask of 1 << 0 .. 63 without the sign bit of a float. */
ST_INLINE uint64_t st_truth_bits(td_dtype dt)
{
    switch (dt) {
    case TD_F32: return 0x7fffffffu;
    case TD_F64: return 0x7fffffffffffffffu;
    case TD_F16:
    case TD_BF16: return 0x7fffu;
    default: return UINT64_MAX;
    }
}

#define ST_TRUTH_(T)                                                                          \
    {                                                                                         \
        const T bits = (T)st_truth_bits(dt);                                                  \
        if (step == (int64_t)sizeof(T)) {                                                     \
            const T *x = (const T *)p;                                                        \
            ST_SIMD                                                                           \
            for (int64_t i = 0; i < n; i++) to[i] = (x[i] & bits) != 0;                       \
        } else {                                                                              \
            for (int64_t i = 0; i < n; i++) to[i] = (*(const T *)(p + i * step) & bits) != 0; \
        }                                                                                     \
        return;                                                                               \
    }

/** Writes 1 for each of n elements of any dtype that is not zero, else 0. NaN is not zero. */
ST_INLINE void st_truth(uint8_t *to, const char *p, td_dtype dt, int64_t step, int64_t n)
{
    switch (td_dtype_size(dt)) {
    case 1: ST_TRUTH_(uint8_t)
    case 2: ST_TRUTH_(uint16_t)
    case 4: ST_TRUTH_(uint32_t)
    default: ST_TRUTH_(uint64_t)
    }
}

#endif

/* gemm_micro.h - the micro kernel of gemm.c: MR rows of C by NV vectors stay in registers over a block of the sum. Measured in cache
 * (Zen 3, AVX2): 0.94 to 0.99 of the processor's fused multiply-adds for sums of 64 to 512. */
#ifndef TIDE_CPU_GEMM_MICRO_H
#define TIDE_CPU_GEMM_MICRO_H
#include "vec.h"
#include <stdbool.h>

#if defined __AVX512F__
enum { MR = 12 };
#else
enum { MR = 6 };
#endif
enum { NV = 2, LANES = VEC_F32, NR = NV * LANES };

/* acc = sum over k of a's column times b's row. down: elements of a's columns are contiguous, else those of its rows. */
VEC_INLINE void sums(const int mr, const int nv, const bool down, vec_f32 (*acc)[NV], int64_t k, const float *a,
                     int64_t lda, const float *b, int64_t ldb)
{
    for (int64_t p = 0; p < k; p++) {
        vec_f32 w[NV];
#pragma GCC unroll 4
        for (int v = 0; v < nv; v++) w[v] = *(const vec_f32 *)(b + p * ldb + v * LANES);
#pragma GCC unroll 16
        for (int r = 0; r < mr; r++) {
            float s = down ? a[p * lda + r] : a[r * lda + p];
#pragma GCC unroll 4
            for (int v = 0; v < nv; v++) acc[r][v] += s * w[v];
        }
    }
}

/* One tile of C: where it is and how it is stored. */
typedef struct {
    float *c;
    int64_t crs, ccs;
    int w;             /* columns                                                    */
    const float *bias; /* first block of the sum: of the tile's columns, or NULL     */
    const float *down; /* the same, of its rows                                      */
    bool first;        /* C does not hold the sum of an earlier block                */
} tile;

VEC_INLINE void micro(const int mr, const int nv, const bool down, int64_t k, const float *a, int64_t lda,
                      const float *b, int64_t ldb, const tile *t)
{
    vec_f32 acc[MR][NV];
    const bool straight = t->ccs == 1 && t->w == nv * LANES;
    float part[MR][NR];
#pragma GCC unroll 16
    for (int r = 0; r < mr; r++) {
        __builtin_prefetch(t->c + r * t->crs, 1);
#pragma GCC unroll 4
        for (int v = 0; v < nv; v++) acc[r][v] = (vec_f32){0};
    }
    sums(mr, nv, down, acc, k, a, lda, b, ldb);
    if (t->first && t->bias) {
#pragma GCC unroll 4
        for (int v = 0; v < nv; v++) {
            vec_f32 s = *(const vec_f32 *)(t->bias + v * LANES);
#pragma GCC unroll 16
            for (int r = 0; r < mr; r++) acc[r][v] += s;
        }
    }
    if (t->first && t->down) {
#pragma GCC unroll 16
        for (int r = 0; r < mr; r++)
#pragma GCC unroll 4
            for (int v = 0; v < nv; v++) acc[r][v] += t->down[r];
    }
    if (straight) {
#pragma GCC unroll 16
        for (int r = 0; r < mr; r++) {
            float *to = t->c + r * t->crs;
#pragma GCC unroll 4
            for (int v = 0; v < nv; v++) {
                vec_f32 *at = (vec_f32 *)(to + v * LANES);
                if (!t->first) acc[r][v] += *at;
                *at = acc[r][v];
            }
        }
        return;
    }
#pragma GCC unroll 16
    for (int r = 0; r < mr; r++)
#pragma GCC unroll 4
        for (int v = 0; v < nv; v++) *(vec_f32 *)(part[r] + v * LANES) = acc[r][v];
    for (int j = 0; j < nv * LANES && j < t->w; j++)
        for (int r = 0; r < mr; r++) {
            float *to = t->c + r * t->crs + j * t->ccs;
            *to = t->first ? part[r][j] : *to + part[r][j];
        }
}

typedef void micro_fn(int64_t k, const float *a, int64_t lda, const float *b, int64_t ldb, const tile *);
#define MICRO(mr, nv)                                                                                                 \
    static void down_##mr##_##nv(int64_t k, const float *a, int64_t lda, const float *b, int64_t ldb, const tile *t)  \
    {                                                                                                                 \
        micro(mr, nv, true, k, a, lda, b, ldb, t);                                                                    \
    }                                                                                                                 \
    static void along_##mr##_##nv(int64_t k, const float *a, int64_t lda, const float *b, int64_t ldb, const tile *t) \
    {                                                                                                                 \
        micro(mr, nv, false, k, a, lda, b, ldb, t);                                                                   \
    }
#define SIZES_6(X, nv) X(1, nv) X(2, nv) X(3, nv) X(4, nv) X(5, nv) X(6, nv)
#if defined __AVX512F__
#define SIZES(X, nv) SIZES_6(X, nv) X(7, nv) X(8, nv) X(9, nv) X(10, nv) X(11, nv) X(12, nv)
#else
#define SIZES(X, nv) SIZES_6(X, nv)
#endif
SIZES(MICRO, 1)
SIZES(MICRO, 2)
#define PLACE_DOWN(mr, nv) down_##mr##_##nv,
#define PLACE_ALONG(mr, nv) along_##mr##_##nv,
static micro_fn *const micros[2][NV][MR] = {{{SIZES(PLACE_ALONG, 1)}, {SIZES(PLACE_ALONG, 2)}},
                                            {{SIZES(PLACE_DOWN, 1)}, {SIZES(PLACE_DOWN, 2)}}};

#endif

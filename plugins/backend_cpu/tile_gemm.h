/* tile_gemm.h - C = A B, or C += A B, on the calling thread, f32: for products that recur within one kernel, where a call
 * of BLAS would pack B again each time and wake threads.    A (m, k) any strides   B (k, n)   C (m, n) rows apart
 *
 * TG_ROWS rows of C by TG_COLUMNS columns stay in registers while k is walked: 6 rows of two vectors, 12 sums, enough to
 * hide the latency of a fused multiply-add. Each element of C is one sum over k in order, so its bits do not depend on
 * how rows are shared among threads. B lies in panels of TG_COLUMNS columns, zeros to the right of the last; or as it is,
 * where whole panels of it can be read. */
#ifndef TIDE_CPU_TILE_GEMM_H
#define TIDE_CPU_TILE_GEMM_H
#include "vec.h"
#include <stdbool.h>
#include <stddef.h>

enum { TG_ROWS = 6, TG_COLUMNS = 2 * VEC_F32 };

/** Columns in whole panels. */
static inline int64_t tg_padded(int64_t n) { return (n + TG_COLUMNS - 1) / TG_COLUMNS * TG_COLUMNS; }

/** Floats of a packed B. */
static inline int64_t tg_packed(int64_t k, int64_t n) { return k * tg_padded(n); }

/* 8 x 8 floats transposed in registers: to[p * TG_COLUMNS + j] = b[p + j * bcs]. */
typedef float tg_eight __attribute__((vector_size(32), aligned(4), may_alias));
typedef int32_t tg_places __attribute__((vector_size(32)));

static inline void tg_transpose(float *restrict to, const float *restrict b, int64_t bcs)
{
    static const tg_places low = {0, 8, 1, 9, 4, 12, 5, 13}, high = {2, 10, 3, 11, 6, 14, 7, 15};
    static const tg_places even = {0, 1, 8, 9, 4, 5, 12, 13}, odd = {2, 3, 10, 11, 6, 7, 14, 15};
    static const tg_places front = {0, 1, 2, 3, 8, 9, 10, 11}, back = {4, 5, 6, 7, 12, 13, 14, 15};
    tg_eight x[8], y[8];
#pragma GCC unroll 8
    for (int j = 0; j < 8; j++) x[j] = *(const tg_eight *)(b + j * bcs);
#pragma GCC unroll 4
    for (int j = 0; j < 8; j += 2) {
        y[j] = __builtin_shuffle(x[j], x[j + 1], low);
        y[j + 1] = __builtin_shuffle(x[j], x[j + 1], high);
    }
#pragma GCC unroll 2
    for (int j = 0; j < 8; j += 4) {
        x[j] = __builtin_shuffle(y[j], y[j + 2], even);
        x[j + 1] = __builtin_shuffle(y[j], y[j + 2], odd);
        x[j + 2] = __builtin_shuffle(y[j + 1], y[j + 3], even);
        x[j + 3] = __builtin_shuffle(y[j + 1], y[j + 3], odd);
    }
#pragma GCC unroll 4
    for (int j = 0; j < 4; j++) {
        *(tg_eight *)(to + j * TG_COLUMNS) = __builtin_shuffle(x[j], x[j + 4], front);
        *(tg_eight *)(to + (j + 4) * TG_COLUMNS) = __builtin_shuffle(x[j], x[j + 4], back);
    }
}

/** Packs one panel of B, w columns wide, whose element (p, j) lies at b + p brs + j bcs. */
static inline void tg_pack_panel(float *restrict to, const float *restrict b, int64_t k, int64_t w, int64_t brs,
                                 int64_t bcs)
{
    if (bcs == 1 && w == TG_COLUMNS) {
        for (int64_t p = 0; p < k; p++) __builtin_memcpy(to + p * TG_COLUMNS, b + p * brs, TG_COLUMNS * sizeof *to);
        return;
    }
    if (w < TG_COLUMNS) __builtin_memset(to, 0, (size_t)(k * TG_COLUMNS) * sizeof *to);
    int64_t j = 0;
    for (; TG_COLUMNS >= 8 && brs == 1 && j + 8 <= w; j += 8) { /* B transposed */
        int64_t p = 0;
        for (; p + 8 <= k; p += 8) tg_transpose(to + p * TG_COLUMNS + j, b + p + j * bcs, bcs);
        for (; p < k; p++)
            for (int64_t i = j; i < j + 8; i++) to[p * TG_COLUMNS + i] = b[p + i * bcs];
    }
    for (int64_t p = 0; p < k; p++)
        for (int64_t i = j; i < w; i++) to[p * TG_COLUMNS + i] = b[p * brs + i * bcs];
}

/** Packs the whole of B. */
static inline void tg_pack(float *to, const float *b, int64_t k, int64_t n, int64_t brs, int64_t bcs)
{
    for (int64_t j = 0; j < n; j += TG_COLUMNS)
        tg_pack_panel(to + j * k, b + j * bcs, k, n - j < TG_COLUMNS ? n - j : TG_COLUMNS, brs, bcs);
}

/** A product; bps: from one panel of B to the next, brs: from one row of a panel to the next. */
typedef struct {
    int64_t m, n, k;
    const float *a;
    int64_t ars, acs;
    const float *b;
    int64_t brs, bps;
    float *c;
    int64_t crs;
    bool add;
} tg_product;

/* mr rows, nv vectors wide; whole: the columns of C fill the vectors, else w of them are true. */
VEC_INLINE void tg_tile(const int mr, const int nv, const bool whole, const tg_product *g, const float *a,
                        const float *b, float *c, int64_t w)
{
    vec_f32 acc[TG_ROWS][2];
    float t[TG_ROWS * TG_COLUMNS] __attribute__((aligned(64)));
    const int64_t ars = g->ars, acs = g->acs, brs = g->brs, crs = g->crs, k = g->k;
    if (g->add && !whole) {
        for (int r = 0; r < mr; r++)
            for (int64_t j = 0; j < TG_COLUMNS; j++) t[r * TG_COLUMNS + j] = j < w ? c[r * crs + j] : 0;
    }
#pragma GCC unroll 6
    for (int r = 0; r < mr; r++) {
        const float *from = whole ? c + r * crs : t + r * TG_COLUMNS;
#pragma GCC unroll 2
        for (int v = 0; v < nv; v++) acc[r][v] = g->add ? *(const vec_f32 *)(from + v * VEC_F32) : (vec_f32){0};
    }
    for (int64_t p = 0; p < k; p++, a += acs, b += brs) {
        vec_f32 x[2];
#pragma GCC unroll 2
        for (int v = 0; v < nv; v++) x[v] = *(const vec_f32 *)(b + v * VEC_F32);
#pragma GCC unroll 6
        for (int r = 0; r < mr; r++)
#pragma GCC unroll 2
            for (int v = 0; v < nv; v++) acc[r][v] += a[r * ars] * x[v];
    }
#pragma GCC unroll 6
    for (int r = 0; r < mr; r++) {
        float *to = whole ? c + r * crs : t + r * TG_COLUMNS;
#pragma GCC unroll 2
        for (int v = 0; v < nv; v++) *(vec_f32 *)(to + v * VEC_F32) = acc[r][v];
    }
    if (whole) return;
    for (int r = 0; r < mr; r++)
        for (int64_t j = 0; j < w; j++) c[r * crs + j] = t[r * TG_COLUMNS + j];
}

/* All rows of one panel. */
VEC_INLINE void tg_rows(const int nv, const bool whole, const tg_product *g, const float *b, float *c, int64_t w)
{
    const float *a = g->a;
    int64_t m = g->m;
    for (; m >= TG_ROWS; m -= TG_ROWS, a += TG_ROWS * g->ars, c += TG_ROWS * g->crs)
        tg_tile(TG_ROWS, nv, whole, g, a, b, c, w);
    switch (m) {
    case 5: tg_tile(5, nv, whole, g, a, b, c, w); break;
    case 4: tg_tile(4, nv, whole, g, a, b, c, w); break;
    case 3: tg_tile(3, nv, whole, g, a, b, c, w); break;
    case 2: tg_tile(2, nv, whole, g, a, b, c, w); break;
    case 1: tg_tile(1, nv, whole, g, a, b, c, w); break;
    default: break;
    }
}

static __attribute__((noinline, unused)) void tg_run(const tg_product *g)
{
    for (int64_t j = 0; j < g->n; j += TG_COLUMNS) {
        const float *b = g->b + j / TG_COLUMNS * g->bps;
        float *c = g->c + j;
        int64_t w = g->n - j;
        if (w >= TG_COLUMNS) tg_rows(2, true, g, b, c, TG_COLUMNS);
        else if (w == VEC_F32) tg_rows(1, true, g, b, c, w);
        else if (w < VEC_F32) tg_rows(1, false, g, b, c, w);
        else tg_rows(2, false, g, b, c, w);
    }
}

/** C (+)= A B with B packed by tg_pack. */
static inline void tg_gemm(int64_t m, int64_t n, int64_t k, const float *a, int64_t ars, int64_t acs,
                           const float *packed, float *c, int64_t crs, bool add)
{
    tg_run(&(tg_product){m, n, k, a, ars, acs, packed, TG_COLUMNS, k * TG_COLUMNS, c, crs, add});
}

/** Whether tg_gemm_direct may read B (., n) as it lies. */
static inline bool tg_direct(int64_t n) { return n % VEC_F32 == 0; }

/** C (+)= A B with B row-major, brs from row to row; n as tg_direct wants it. */
static inline void tg_gemm_direct(int64_t m, int64_t n, int64_t k, const float *a, int64_t ars, int64_t acs,
                                  const float *b, int64_t brs, float *c, int64_t crs, bool add)
{
    tg_run(&(tg_product){m, n, k, a, ars, acs, b, brs, TG_COLUMNS, c, crs, add});
}

#endif

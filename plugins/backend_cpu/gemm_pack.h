/* gemm_pack.h - how gemm.c lays out operands for its micro kernel: panels of `width` rows of A or columns of B, in each of which the
 * numbers of one step of the sum lie next to each other. */
#ifndef TIDE_CPU_GEMM_PACK_H
#define TIDE_CPU_GEMM_PACK_H
#include "gemm_micro.h"

typedef float vec_4 __attribute__((vector_size(16), aligned(4), may_alias));
typedef int32_t vec_4i __attribute__((vector_size(16)));

/* Four rows of four numbers, turned. */
VEC_INLINE void turn_4(const float *from, int64_t ld, float *to, int64_t to_ld)
{
    vec_4 a = *(const vec_4 *)from, b = *(const vec_4 *)(from + ld), c = *(const vec_4 *)(from + 2 * ld),
          d = *(const vec_4 *)(from + 3 * ld);
    vec_4 ab = __builtin_shuffle(a, b, (vec_4i){0, 4, 1, 5}), cd = __builtin_shuffle(c, d, (vec_4i){0, 4, 1, 5});
    vec_4 ab2 = __builtin_shuffle(a, b, (vec_4i){2, 6, 3, 7}), cd2 = __builtin_shuffle(c, d, (vec_4i){2, 6, 3, 7});
    *(vec_4 *)to = __builtin_shuffle(ab, cd, (vec_4i){0, 1, 4, 5});
    *(vec_4 *)(to + to_ld) = __builtin_shuffle(ab, cd, (vec_4i){2, 3, 6, 7});
    *(vec_4 *)(to + 2 * to_ld) = __builtin_shuffle(ab2, cd2, (vec_4i){0, 1, 4, 5});
    *(vec_4 *)(to + 3 * to_ld) = __builtin_shuffle(ab2, cd2, (vec_4i){2, 3, 6, 7});
}

/* A panel of w <= width vectors of length k, as k rows of `width` numbers; x[j xs + p ps] is number p of vector j. */
VEC_INLINE void pack_panel(const int width, float *to, const float *x, int64_t xs, int64_t ps, int64_t w, int64_t k)
{
    int64_t p = 0;
    if (w == width && ps == 1)
        for (; p + 4 <= k; p += 4) {
            for (int j = 0; j + 4 <= width; j += 4) turn_4(x + j * xs + p, xs, to + p * width + j, width);
            for (int j = width & ~3; j < width; j++)
                for (int q = 0; q < 4; q++) to[(p + q) * width + j] = x[j * xs + p + q];
        }
    for (; p < k; p++)
        for (int j = 0; j < width; j++) to[p * width + j] = j < w ? x[j * xs + p * ps] : 0;
}

/* AHEAD: rows for which memory is asked before they are packed. They are pieces of longer ones, which the processor does not foresee. */
enum { AHEAD = 16, LINE = 64 / sizeof(float) };

/* n vectors in panels. Where number p of all vectors lies in a row, row by row, so that memory is read in order; panels narrower than
 * a vector are stored by whole vectors, whose surplus the next row of the panel overwrites. */
VEC_INLINE void pack(const int width, float *to, const float *x, int64_t xs, int64_t ps, int64_t n, int64_t k)
{
    int64_t whole = xs == 1 ? n / width * width : 0;
    for (int64_t p = 0; whole && p < k; p++) {
        const float *from = x + p * ps;
        float *at = to + p * width;
        int64_t j = 0;
        if (p + AHEAD < k)
            for (int64_t q = 0; q < n; q += LINE) __builtin_prefetch(from + AHEAD * ps + q);
        if (width < LANES && p + 1 < k)
            for (; j < whole && j + LANES <= n; j += width) *(vec_f32 *)(at + j * k) = *(const vec_f32 *)(from + j);
        for (; j < whole; j += width) __builtin_memcpy(at + j * k, from + j, (size_t)width * sizeof *to);
    }
    for (int64_t j = whole; j < n; j += width)
        pack_panel(width, to + j * k, x + j * xs, xs, ps, n - j < width ? n - j : width, k);
}
static void pack_b(float *to, const float *b, int64_t bcs, int64_t brs, int64_t n, int64_t k)
{
    pack(NR, to, b, bcs, brs, n, k);
}
static void pack_a(float *to, const float *a, int64_t ars, int64_t acs, int64_t m, int64_t k)
{
    pack(MR, to, a, ars, acs, m, k);
}

#endif

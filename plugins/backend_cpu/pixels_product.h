/* pixels_product.h - sums of products over channels and pixels, with channels innermost; for winograd.c and conv_pixels.c.
 * A kernel holds ROWS by one or two vectors in registers over its whole sum. */
#ifndef TIDE_CPU_PIXELS_PRODUCT_H
#define TIDE_CPU_PIXELS_PRODUCT_H
#include "pixels.h"

#if VEC_BYTES == 64 || defined __aarch64__
enum { ROWS = 12 };
#define EACH_ROWS(X) X(1) X(2) X(3) X(4) X(5) X(6) X(7) X(8) X(9) X(10) X(11) X(12)
#else
enum { ROWS = 6 };
#define EACH_ROWS(X) X(1) X(2) X(3) X(4) X(5) X(6)
#endif

/** Where a sum's operands lie; it runs over k = 0 .. len of each of `runs` runs, b goes on through all of them. */
typedef struct {
    int64_t len, runs;
    int64_t a, jump; /* from row to row of a (or with weights from k to k), from run to run */
    int64_t b, c;    /* from k to k of b, from row to row of c                             */
} sum;

/** c[i][v] (= or +=) start[v] + sum_k a[i ai + k ak] b[k][v], i < rows, v < nv LANES; start may be NULL */
VEC_INLINE void product(const int rows, const int nv, const bool add, const sum *s, float *c, const float *start,
                        const float *a, int64_t ai, int64_t ak, const float *b, int64_t bk)
{
    vec_f32 acc[ROWS][2], first[2];
    int64_t line = s->c;
#pragma GCC unroll 2
    for (int v = 0; v < 2; v++) first[v] = start && v < nv ? load(start + v * LANES) : (vec_f32){0};
#pragma GCC unroll 12
    for (int i = 0; i < rows; i++) acc[i][0] = first[0], acc[i][1] = first[1];
    for (int64_t r = 0; r < s->runs; r++) {
        const float *p = a + r * s->jump;
        for (int64_t k = s->len; k > 0; k--, p += ak, b += bk) {
            vec_f32 b0 = load(b), b1 = nv > 1 ? load(b + LANES) : b0;
#pragma GCC unroll 12
            for (int i = 0; i < rows; i++) {
                float x = p[i * ai];
                acc[i][0] += x * b0;
                if (nv > 1) acc[i][1] += x * b1;
            }
        }
    }
#pragma GCC unroll 12
    for (int i = 0; i < rows; i++)
#pragma GCC unroll 2
        for (int v = 0; v < nv; v++) {
            float *to = c + i * line + v * LANES;
            if (add) acc[i][v] += load(to);
            store(to, acc[i][v]);
        }
}

/** forward: rows are pixels or tiles, k their channels, side by side;  b is packed in blocks of nv vectors.
 *  weights: rows are channels, side by side, k pixels or tiles, s->a apart; the sum is added to c. */
typedef void sum_fn(const sum *s, float *c, const float *start, const float *a, const float *b);

#define DEFINE(n, nv)                                                                                          \
    static void forward_##n##_##nv(const sum *s, float *c, const float *start, const float *a, const float *b) \
    {                                                                                                          \
        product(n, nv, false, s, c, start, a, s->a, 1, b, nv *LANES);                                          \
    }                                                                                                          \
    static void weights_##n##_##nv(const sum *s, float *c, const float *start, const float *a, const float *b) \
    {                                                                                                          \
        product(n, nv, true, s, c, start, a, 1, s->a, b, s->b);                                                \
    }
#define DEFINE_BOTH(n) DEFINE(n, 1) DEFINE(n, 2)
EACH_ROWS(DEFINE_BOTH)
#define FORWARD(n) {forward_##n##_1, forward_##n##_2},
#define WEIGHTS(n) {weights_##n##_1, weights_##n##_2},
static sum_fn *const forwards[ROWS][2] = {EACH_ROWS(FORWARD)};
static sum_fn *const weightses[ROWS][2] = {EACH_ROWS(WEIGHTS)};
#undef DEFINE
#undef DEFINE_BOTH
#undef FORWARD
#undef WEIGHTS

/** n rows in as few groups as there must be, of nearly equal size: c and a move on by c_row and a_row for each. */
VEC_INLINE void in_groups(sum_fn *const (*fns)[2], int two, const sum *s, float *c, int64_t c_row, const float *start,
                          const float *a, int64_t a_row, const float *b, int64_t n)
{
    int64_t groups = ceil_div(n, ROWS);
    for (int64_t i = 0; i < groups; i++) {
        int64_t at = i * n / groups, rows = (i + 1) * n / groups - at;
        fns[rows - 1][two](s, c + at * c_row, start, a + at * a_row, b);
    }
}

#endif

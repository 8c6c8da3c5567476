/* conv_micro.h - the innermost loops of convolution; included once per element type, with REAL, VEC, LANES and R(name) defined.
 * MR channels by NV vectors of pixels stay in registers over all of k. */

/** What a micro kernel sums over: `runs` runs of n, `jump` of k apart. */
typedef struct {
    int64_t n, runs, jump;
} R(span);

/** y[m][v] = start + sum_k a[k][m] b[off[k]][v]; start is y itself (load), the bias of m, or 0. */
VEC_INLINE void R(micro)(const int mr, const int nv, REAL *c, int64_t ldc, const REAL *a, const REAL *b, const int32_t *off,
                         R(span) k, const REAL *bias, bool load)
{
    VEC acc[MR][NV];
#pragma GCC unroll 8
    for (int m = 0; m < mr; m++)
#pragma GCC unroll 4
        for (int v = 0; v < nv; v++) {
            if (load) acc[m][v] = *(const VEC *)(c + m * ldc + v * LANES);
            else acc[m][v] = (VEC){0} + (bias ? bias[m] : 0);
        }
    for (int64_t r = 0; r < k.runs; r++, a += k.jump * mr, off += k.jump)
        for (int64_t i = 0; i < k.n; i++, a += mr) {
            const REAL *s = b + *off++;
            VEC w[NV];
#pragma GCC unroll 4
            for (int v = 0; v < nv; v++) w[v] = *(const VEC *)(s + v * LANES);
#pragma GCC unroll 8
            for (int m = 0; m < mr; m++)
#pragma GCC unroll 4
                for (int v = 0; v < nv; v++) acc[m][v] += a[m] * w[v];
        }
#pragma GCC unroll 8
    for (int m = 0; m < mr; m++)
#pragma GCC unroll 4
        for (int v = 0; v < nv; v++) *(VEC *)(c + m * ldc + v * LANES) = acc[m][v];
}

typedef void R(micro_fn)(REAL *c, int64_t ldc, const REAL *a, const REAL *b, const int32_t *off, R(span) k, const REAL *bias,
                         bool load);
#define MICRO(mr, nv)                                                                                                    \
    static void R(micro_##mr##_##nv)(REAL *c, int64_t ldc, const REAL *a, const REAL *b, const int32_t *off, R(span) k,  \
                                     const REAL *bias, bool load)                                                        \
    {                                                                                                                    \
        R(micro)(mr, nv, c, ldc, a, b, off, k, bias, load);                                                              \
    }
#define MICRO_ROW(X, nv) X(1, nv) X(2, nv) X(3, nv) X(4, nv)
#define MICRO_ROW_8(X, nv) X(5, nv) X(6, nv) X(7, nv) X(8, nv)
MICRO_ROW(MICRO, 1)
MICRO_ROW(MICRO, 2)
#if NV == 3
MICRO_ROW(MICRO, 3)
#endif
#if MR == 8
MICRO_ROW_8(MICRO, 1)
MICRO_ROW_8(MICRO, 2)
MICRO_ROW_8(MICRO, 3)
#endif

#define MICRO_PLACE(mr, nv) [mr - 1][nv - 1] = R(micro_##mr##_##nv),
static R(micro_fn) *const R(micros)[MR][NV] = {
    MICRO_ROW(MICRO_PLACE, 1) MICRO_ROW(MICRO_PLACE, 2)
#if NV == 3
    MICRO_ROW(MICRO_PLACE, 3)
#endif
#if MR == 8
    MICRO_ROW_8(MICRO_PLACE, 1) MICRO_ROW_8(MICRO_PLACE, 2) MICRO_ROW_8(MICRO_PLACE, 3)
#endif
};
#undef MICRO
#undef MICRO_PLACE
#undef MICRO_ROW
#undef MICRO_ROW_8

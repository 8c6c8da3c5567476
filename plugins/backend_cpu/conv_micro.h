/* conv_micro.h - the innermost loops of convolution; included once per element type, with REAL, VEC, IVEC, LANES and R(name)
 * defined. What stays in registers over a whole sum is said in conv.c. */

/* ---- forward: MR channels by NV vectors of pixels ---- */

/** What a micro kernel sums over: `runs` runs of n, `jump` of k apart. */
typedef struct {
    int64_t n, runs, jump;
} R(span);

/** y[m][v] = start + sum_k a[k][m] b[off[k]][v]; start is y itself (load), the bias of m, or 0. */
VEC_INLINE void R(micro)(const int mr, const int nv, REAL *c, int64_t ldc, const REAL *a, const REAL *b,
                         const int32_t *off, R(span) k, const REAL *bias, bool load)
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

typedef void R(micro_fn)(REAL *c, int64_t ldc, const REAL *a, const REAL *b, const int32_t *off, R(span) k,
                         const REAL *bias, bool load);
#define MICRO(mr, nv)                                                                                         \
    static void R(micro_##mr##_##nv)(REAL * c, int64_t ldc, const REAL *a, const REAL *b, const int32_t *off, \
                                     R(span) k, const REAL *bias, bool load)                                  \
    {                                                                                                         \
        R(micro)(mr, nv, c, ldc, a, b, off, k, bias, load);                                                   \
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
static R(micro_fn) *const
    R(micros)[MR][NV] = {MICRO_ROW(MICRO_PLACE, 1) MICRO_ROW(MICRO_PLACE, 2)
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

/* ---- weight gradient ---- */

enum {
    R(TILE) = 1024 / sizeof(REAL),
    R(DOT_TILE) = 4096 / sizeof(REAL),
    R(LD) = R(TILE) + LANES, /* row of a panel: not a power of two, or all its rows meet in a few cache sets */
    R(DOT_LD) = R(DOT_TILE) + LANES,
    R(BLOCK) = 2 * LANES /* channels of a block of g */
};

/** sums[j][v] += sum_p panel[j][p] g[p][v] */
VEC_INLINE void R(outer)(const int kb, const int nv, REAL *sums, int64_t lead, const REAL *panel, const REAL *g,
                         int64_t n)
{
    VEC acc[CONV_KB][2];
#pragma GCC unroll 16
    for (int j = 0; j < kb; j++)
#pragma GCC unroll 2
        for (int v = 0; v < nv; v++) acc[j][v] = (VEC){0};
    for (int64_t p = 0; p < n; p++) {
        VEC gv[2];
#pragma GCC unroll 2
        for (int v = 0; v < nv; v++) gv[v] = *(const VEC *)(g + (p * nv + v) * LANES);
#pragma GCC unroll 16
        for (int j = 0; j < kb; j++)
#pragma GCC unroll 2
            for (int v = 0; v < nv; v++) acc[j][v] += panel[j * R(LD) + p] * gv[v];
    }
#pragma GCC unroll 16
    for (int j = 0; j < kb; j++)
#pragma GCC unroll 2
        for (int v = 0; v < nv; v++) *(VEC *)(sums + j * lead + v * LANES) += acc[j][v];
}

/** sums[m][j] += the lanes of sum_p g[m][p] panel[j][p] */
VEC_INLINE void R(dots)(const int mb, const int kb, REAL *sums, int64_t lead, const REAL *g, const REAL *panel,
                        int64_t n)
{
    VEC acc[DOT_M][DOT_K];
#pragma GCC unroll 8
    for (int m = 0; m < mb; m++)
#pragma GCC unroll 4
        for (int j = 0; j < kb; j++) acc[m][j] = (VEC){0};
    for (int64_t p = 0; p < n; p += LANES) {
        VEC w[DOT_K];
#pragma GCC unroll 4
        for (int j = 0; j < kb; j++) w[j] = *(const VEC *)(panel + j * R(DOT_LD) + p);
#pragma GCC unroll 8
        for (int m = 0; m < mb; m++) {
            VEC gv = *(const VEC *)(g + m * R(DOT_LD) + p);
#pragma GCC unroll 4
            for (int j = 0; j < kb; j++) acc[m][j] += gv * w[j];
        }
    }
#pragma GCC unroll 8
    for (int m = 0; m < mb; m++)
#pragma GCC unroll 4
        for (int j = 0; j < kb; j++) *(VEC *)(sums + m * lead + j * LANES) += acc[m][j];
}

/** A vector's lanes, added up. */
VEC_INLINE REAL R(lane_sum)(VEC v)
{
    REAL sum = 0, lane[LANES];
    *(VEC *)lane = v;
    for (int i = 0; i < LANES; i++) sum += lane[i];
    return sum;
}

/** Where lane_dots finds its operands: the pixels of window j at s[j], of channel m at g + m channel; rows of n vectors. */
typedef struct {
    const REAL *s[DOT_K], *g;
    int64_t s_line, g_line, channel, rows, n;
} R(dot_operands);

/** sums[m][j] += the lanes of sum_(rows, pixels) g[m] s[j], with images in lanes */
VEC_INLINE void R(lane_dots)(const int mb, const int kb, REAL *sums, int64_t lead, const R(dot_operands) * o)
{
    VEC acc[DOT_M][DOT_K];
#pragma GCC unroll 8
    for (int m = 0; m < mb; m++)
#pragma GCC unroll 4
        for (int j = 0; j < kb; j++) acc[m][j] = (VEC){0};
    int64_t channel = o->channel;
    for (int64_t i = 0; i < o->rows; i++) {
        const REAL *g = o->g + i * o->g_line, *s[DOT_K];
#pragma GCC unroll 4
        for (int j = 0; j < kb; j++) s[j] = o->s[j] + i * o->s_line;
        for (int64_t p = 0; p < o->n; p++, g += LANES) {
            VEC w[DOT_K];
#pragma GCC unroll 4
            for (int j = 0; j < kb; j++) w[j] = *(const VEC *)(s[j] + p * LANES);
#pragma GCC unroll 8
            for (int m = 0; m < mb; m++) {
                VEC gv = *(const VEC *)(g + m * channel);
#pragma GCC unroll 4
                for (int j = 0; j < kb; j++) acc[m][j] += gv * w[j];
            }
        }
    }
#pragma GCC unroll 8
    for (int m = 0; m < mb; m++)
#pragma GCC unroll 4
        for (int j = 0; j < kb; j++) sums[m * lead + j] += R(lane_sum)(acc[m][j]);
}

typedef void R(lane_dots_fn)(REAL *sums, int64_t lead, const R(dot_operands) * o);
typedef void R(sums_fn)(REAL *sums, int64_t lead, const REAL *panel, const REAL *g, int64_t n);
#define OUTER(kb, nv)                                                                                        \
    static void R(outer_##kb##_##nv)(REAL * sums, int64_t lead, const REAL *panel, const REAL *g, int64_t n) \
    {                                                                                                        \
        R(outer)(kb, nv, sums, lead, panel, g, n);                                                           \
    }
#define DOTS(mb, kb)                                                                                        \
    static void R(dots_##mb##_##kb)(REAL * sums, int64_t lead, const REAL *panel, const REAL *g, int64_t n) \
    {                                                                                                       \
        R(dots)(mb, kb, sums, lead, g, panel, n);                                                           \
    }                                                                                                       \
    static void R(lane_dots_##mb##_##kb)(REAL * sums, int64_t lead, const R(dot_operands) * o)              \
    {                                                                                                       \
        R(lane_dots)(mb, kb, sums, lead, o);                                                                \
    }
#define OUTER_PLACE(kb, nv) [kb - 1][nv - 1] = R(outer_##kb##_##nv),
#define DOTS_PLACE(mb, kb) [mb - 1][kb - 1] = R(dots_##mb##_##kb),
#define LANE_DOTS_PLACE(mb, kb) [mb - 1][kb - 1] = R(lane_dots_##mb##_##kb),
#define OUTER_BOTH(X, kb) X(kb, 1) X(kb, 2)
#define OUTER_5(X) OUTER_BOTH(X, 1) OUTER_BOTH(X, 2) OUTER_BOTH(X, 3) OUTER_BOTH(X, 4) OUTER_BOTH(X, 5)
#define OUTER_12(X)  \
    OUTER_5(X)       \
    OUTER_BOTH(X, 6) \
    OUTER_BOTH(X, 7) OUTER_BOTH(X, 8) OUTER_BOTH(X, 9) OUTER_BOTH(X, 10) OUTER_BOTH(X, 11) OUTER_BOTH(X, 12)
#define DOTS_ROW(X, mb) X(mb, 1) X(mb, 2) X(mb, 3)
#define DOTS_9(X) DOTS_ROW(X, 1) DOTS_ROW(X, 2) DOTS_ROW(X, 3)
#define DOTS_24(X) \
    DOTS_9(X) DOTS_ROW(X, 4) DOTS_ROW(X, 5) DOTS_ROW(X, 6) X(1, 4) X(2, 4) X(3, 4) X(4, 4) X(5, 4) X(6, 4)
#if CONV_KB == 12
OUTER_12(OUTER)
DOTS_24(DOTS)
static R(sums_fn) *const R(outers)[CONV_KB][2] = {OUTER_12(OUTER_PLACE)};
static R(sums_fn) *const R(dot_blocks)[DOT_M][DOT_K] = {DOTS_24(DOTS_PLACE)};
static R(lane_dots_fn) *const R(lane_dot_blocks)[DOT_M][DOT_K] = {DOTS_24(LANE_DOTS_PLACE)};
#else
OUTER_5(OUTER)
DOTS_9(DOTS)
static R(sums_fn) *const R(outers)[CONV_KB][2] = {OUTER_5(OUTER_PLACE)};
static R(sums_fn) *const R(dot_blocks)[DOT_M][DOT_K] = {DOTS_9(DOTS_PLACE)};
static R(lane_dots_fn) *const R(lane_dot_blocks)[DOT_M][DOT_K] = {DOTS_9(LANE_DOTS_PLACE)};
#endif
#undef OUTER
#undef DOTS
#undef OUTER_PLACE
#undef DOTS_PLACE
#undef LANE_DOTS_PLACE
#undef OUTER_BOTH
#undef OUTER_5
#undef OUTER_12
#undef DOTS_ROW
#undef DOTS_9
#undef DOTS_24

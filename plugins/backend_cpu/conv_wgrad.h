/* conv_wgrad.h - gradient of a convolution for its weight; included once per element type after conv_engine.h.
 *
 *     gw[m][k] = sum_p g[m][p] s[p + off[k]]        k = (tap, source channel)   p over the pixels of all images
 *
 * The same strips and panels as forward, with tiles of more pixels. Vectors run along the result channels m, and g is
 * transposed for that; with few channels, or few sums altogether, along the pixels instead (`dots`), and the lanes of a sum are
 * added up at the end. Each part of the images has sums of its own, added in order: the bits depend on the number of
 * threads and on nothing else. A tile's sum begins at 0, so errors grow with the number of tiles, not of pixels. */

enum {
    R(TILE) = 1024 / sizeof(REAL),
    R(DOT_TILE) = 4096 / sizeof(REAL),
    R(LD) = R(TILE) + LANES, /* row of a panel: not a power of two, or all its rows meet in a few cache sets */
    R(DOT_LD) = R(DOT_TILE) + LANES,
    R(BLOCK) = 2 * LANES /* channels of a block of g */
};

typedef struct {
    conv_grid g;
    conv_strips s;
    bool dots;
    int64_t width, kc;      /* pixels of a tile; windows (k) of a panel                               */
    int64_t parts, kparts;  /* shares of the strips, and of k                                         */
    int64_t lead;           /* channels, rounded to vectors                                           */
    int64_t sums;           /* elements of one part's sums                                            */
    size_t partial, offsets, scratch, panel, grad, pieces; /* bytes of the workspace's parts           */
    size_t shared, each;
} R(wgrad_job);

/** sums[j][v] += sum_p panel[j][p] g[p][v] */
VEC_INLINE void R(outer)(const int kb, const int nv, REAL *sums, int64_t lead, const REAL *panel, const REAL *g, int64_t n)
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
VEC_INLINE void R(dots)(const int mb, const int kb, REAL *sums, int64_t lead, const REAL *g, const REAL *panel, int64_t n)
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

typedef void R(sums_fn)(REAL *sums, int64_t lead, const REAL *panel, const REAL *g, int64_t n);
#define OUTER(kb, nv)                                                                                                  \
    static void R(outer_##kb##_##nv)(REAL *sums, int64_t lead, const REAL *panel, const REAL *g, int64_t n)            \
    {                                                                                                                  \
        R(outer)(kb, nv, sums, lead, panel, g, n);                                                                     \
    }
#define DOTS(mb, kb)                                                                                                   \
    static void R(dots_##mb##_##kb)(REAL *sums, int64_t lead, const REAL *panel, const REAL *g, int64_t n)             \
    {                                                                                                                  \
        R(dots)(mb, kb, sums, lead, g, panel, n);                                                                      \
    }
#define OUTER_PLACE(kb, nv) [kb - 1][nv - 1] = R(outer_##kb##_##nv),
#define DOTS_PLACE(mb, kb) [mb - 1][kb - 1] = R(dots_##mb##_##kb),
#define OUTER_BOTH(X, kb) X(kb, 1) X(kb, 2)
#define OUTER_5(X) OUTER_BOTH(X, 1) OUTER_BOTH(X, 2) OUTER_BOTH(X, 3) OUTER_BOTH(X, 4) OUTER_BOTH(X, 5)
#define OUTER_12(X) OUTER_5(X) OUTER_BOTH(X, 6) OUTER_BOTH(X, 7) OUTER_BOTH(X, 8) OUTER_BOTH(X, 9) OUTER_BOTH(X, 10) \
        OUTER_BOTH(X, 11) OUTER_BOTH(X, 12)
#define DOTS_ROW(X, mb) X(mb, 1) X(mb, 2) X(mb, 3)
#define DOTS_9(X) DOTS_ROW(X, 1) DOTS_ROW(X, 2) DOTS_ROW(X, 3)
#define DOTS_24(X) DOTS_9(X) DOTS_ROW(X, 4) DOTS_ROW(X, 5) DOTS_ROW(X, 6) X(1, 4) X(2, 4) X(3, 4) X(4, 4) X(5, 4) X(6, 4)
#if CONV_KB == 12
OUTER_12(OUTER)
DOTS_24(DOTS)
static R(sums_fn) *const R(outers)[CONV_KB][2] = {OUTER_12(OUTER_PLACE)};
static R(sums_fn) *const R(dot_blocks)[DOT_M][DOT_K] = {DOTS_24(DOTS_PLACE)};
#else
OUTER_5(OUTER)
DOTS_9(DOTS)
static R(sums_fn) *const R(outers)[CONV_KB][2] = {OUTER_5(OUTER_PLACE)};
static R(sums_fn) *const R(dot_blocks)[DOT_M][DOT_K] = {DOTS_9(DOTS_PLACE)};
#endif
#undef OUTER
#undef DOTS
#undef OUTER_PLACE
#undef DOTS_PLACE
#undef OUTER_BOTH
#undef OUTER_5
#undef OUTER_12
#undef DOTS_ROW
#undef DOTS_9
#undef DOTS_24

static bool R(wgrad_job_make)(R(wgrad_job) *j, const conv_grid *g, int threads, const char *op)
{
    *j = (R(wgrad_job)){.g = *g};
    grid_finish(&j->g, false);
    g = &j->g;
    int64_t lanes_bytes = g->k * g->co * VEC_BYTES;
    j->dots = 5 * g->co < 3 * LANES || lanes_bytes <= CONV_SCRATCH / 3;
    j->width = j->dots ? R(DOT_TILE) : R(TILE);
    j->kc = j->dots ? 32 : 128;
    j->lead = conv_ceil_div(g->co, LANES) * LANES;
    j->sums = g->k * (j->dots ? g->co * LANES : j->lead);
    int64_t bytes = j->sums * g->groups * (int64_t)sizeof(REAL);
    if (!strips_choose(&j->s, g, sizeof(REAL), 4 * R(TILE), LANES, threads, op)) return false;
    j->parts = conv_min(conv_ceil_div(threads, g->groups), conv_max(1, (int64_t)(64 << 20) / conv_max(bytes, 1)));
    j->parts = conv_max(1, conv_min(j->parts, j->s.n));
    j->kparts = conv_max(1, conv_min(threads / (j->parts * g->groups), g->k / 64));
    j->partial = conv_round64((size_t)(j->parts * bytes));
    j->offsets = conv_round64((size_t)g->k * sizeof(int32_t));
    j->scratch = conv_round64((size_t)(LANES + j->s.elems + LANES) * sizeof(REAL));
    j->panel = conv_round64((size_t)(j->kc * (j->width + LANES)) * sizeof(REAL));
    j->grad = conv_round64((size_t)(conv_ceil_div(g->co, R(BLOCK)) * R(BLOCK) * (j->width + LANES)) * sizeof(REAL));
    j->pieces = conv_round64((size_t)j->width * sizeof(conv_piece));
    j->shared = j->partial + j->offsets;
    j->each = j->scratch + j->panel + j->grad + 4 * j->pieces;
    return true;
}

/** g of a tile as (block of channels, pixel, channel of the block); channels beyond the last are zero. */
static void R(transpose_grad)(REAL *to, const REAL *g, int64_t co, int64_t plane, const conv_piece *out, int n)
{
    for (int64_t m0 = 0; m0 < co; m0 += R(BLOCK), to += R(BLOCK) * R(TILE)) {
        int64_t width = co - m0 > LANES ? R(BLOCK) : LANES, mn = conv_min(width, co - m0);
        for (int i = 0; i < n; i++) {
            REAL *t = to + out[i].pos * width;
            for (int64_t m = 0; m < width; m++) {
                const REAL *from = g + (m0 + m) * plane + out[i].at;
                if (m < mn)
                    for (int32_t e = 0; e < out[i].len; e++) t[e * width + m] = from[e];
                else
                    for (int32_t e = 0; e < out[i].len; e++) t[e * width + m] = 0;
            }
        }
    }
}

/** g of a tile as (channel, pixel); the rest of the last vector is zero. */
static void R(copy_grad)(REAL *to, const REAL *g, int64_t co, int64_t plane, const conv_piece *out, int n, int64_t px)
{
    for (int64_t m = 0; m < co; m++, to += R(DOT_LD)) {
        for (int i = 0; i < n; i++) copy_short(to + out[i].pos, g + m * plane + out[i].at, out[i].len * (int64_t)sizeof(REAL));
        for (int64_t p = px; p % LANES; p++) to[p] = 0;
    }
}

/** Windows k0 .. k0 + kn of one tile, packed in panel, against all channels. */
static void R(wgrad_blocks)(const R(wgrad_job) *j, REAL *sums, const REAL *panel, const REAL *grad, int64_t k0, int64_t kn,
                            int64_t px)
{
    const conv_grid *g = &j->g;
    int64_t most = j->dots ? DOT_K : CONV_KB, blocks = conv_ceil_div(kn, most);
    for (int64_t b = 0; b < blocks; b++) { /* of nearly equal size */
        int64_t k = b * kn / blocks, kb = (b + 1) * kn / blocks - k;
        if (j->dots) {
            int64_t rows = conv_ceil_div(g->co, DOT_M);
            for (int64_t r = 0; r < rows; r++) {
                int64_t m = r * g->co / rows, mb = (r + 1) * g->co / rows - m;
                R(dot_blocks)[mb - 1][kb - 1](sums + (m * g->k + k0 + k) * LANES, g->k * LANES, panel + k * R(DOT_LD),
                                              grad + m * R(DOT_LD), conv_ceil_div(px, LANES) * LANES);
            }
        } else {
            for (int64_t m = 0; m < g->co; m += R(BLOCK))
                R(outers)[kb - 1][g->co - m > LANES](sums + (k0 + k) * j->lead + m, j->lead, panel + k * R(LD),
                                                     grad + m * R(TILE), px);
        }
    }
}

/** One strip of one group into `sums`, windows ka .. kz. */
static void R(wgrad_strip)(const R(wgrad_job) *j, REAL *sums, const REAL *x, const REAL *gy, int64_t strip, int64_t group,
                           int64_t ka, int64_t kz, const int32_t *off, unsigned char *mine)
{
    const conv_grid *g = &j->g;
    const conv_strips *s = &j->s;
    REAL *scratch = (REAL *)mine + LANES, *panel = (REAL *)(mine + j->scratch), *grad = (REAL *)(mine + j->scratch + j->panel);
    conv_piece *src = (conv_piece *)(mine + j->scratch + j->panel + j->grad), *out = src + j->width, *part = out + j->width;
    int32_t first[R(DOT_TILE) / LANES + 1];
    conv_strip at = strip_at(s, g, strip);
    int64_t plane = g->r.out * g->c.out, px = at.images * at.rows * g->c.pix;
    R(fill_scratch)(scratch, x, g, s, &at, group);
    gy += at.img * at.image_stride + group * g->co * plane;
    for (int64_t p = 0; p < px; p += j->width) {
        int64_t n = conv_min(j->width, px - p);
        int n_out = strip_pieces(s, g, &at, p, n, src, out);
        if (j->dots) R(copy_grad)(grad, gy, g->co, plane, out, n_out, n);
        else R(transpose_grad)(grad, gy, g->co, plane, out, n_out);
        R(plan_columns)(part, first, src, n);
        for (int64_t k = ka; k < kz; k += j->kc) {
            int64_t kn = conv_min(j->kc, kz - k);
            R(pack_panel)(panel, j->width + LANES, scratch, off + k, kn, part, first, conv_ceil_div(n, LANES));
            if (j->dots && n % LANES)
                for (int64_t i = 0; i < kn; i++)
                    for (int64_t e = n; e % LANES; e++) panel[i * R(DOT_LD) + e] = 0;
            R(wgrad_blocks)(j, sums, panel, grad, k, kn, n);
        }
    }
}

/** Zeroes the sums of windows ka .. kz. */
static void R(clear_sums)(const R(wgrad_job) *j, REAL *sums, int64_t ka, int64_t kz)
{
    if (!j->dots) {
        __builtin_memset(sums + ka * j->lead, 0, (size_t)((kz - ka) * j->lead) * sizeof(REAL));
        return;
    }
    for (int64_t m = 0; m < j->g.co; m++)
        __builtin_memset(sums + (m * j->g.k + ka) * LANES, 0, (size_t)((kz - ka) * LANES) * sizeof(REAL));
}

/** gw of result channel m (of all groups), (source channel, row, column): the parts' sums in order. */
static void R(wgrad_collect)(const R(wgrad_job) *j, REAL *gw, const REAL *partial, int64_t channel)
{
    const conv_grid *g = &j->g;
    int64_t group = channel / g->co, m = channel % g->co, taps = g->c.taps;
    gw += channel * g->k;
    __builtin_memset(gw, 0, (size_t)g->k * sizeof(REAL));
    for (int64_t p = 0; p < j->parts; p++) {
        const REAL *s = partial + (group * j->parts + p) * j->sums;
        for (int64_t a = 0; a < g->r.taps; a++)
            for (int64_t c = 0; c < g->ci; c++)
                for (int64_t b = 0; b < taps; b++) {
                    int64_t k = a * g->ka + b * g->kb + c * g->kc;
                    REAL sum = 0;
                    if (!j->dots) sum = s[k * j->lead + m];
                    else
                        for (int v = 0; v < LANES; v++) sum += s[(m * g->k + k) * LANES + v];
                    gw[(c * g->r.taps + a) * taps + b] += sum;
                }
    }
}

/** Runs it: ws has j->shared + threads * j->each bytes. */
static void R(wgrad_job_run)(const R(wgrad_job) *j, REAL *gw, const REAL *x, const REAL *gy, unsigned char *ws, int threads)
{
    const conv_grid *g = &j->g;
    REAL *partial = (REAL *)ws;
    int32_t *off = (int32_t *)(ws + j->partial);
    strips_offsets(&j->s, g, off);
#pragma omp parallel num_threads(threads) if (threads > 1)
    {
        unsigned char *mine = ws + j->shared + (size_t)omp_get_thread_num() * j->each;
        if (axis_share(&g->r) * axis_share(&g->c) < 1) __builtin_memset(mine, 0, j->scratch); /* a border of zeros */
#pragma omp for schedule(dynamic)
        for (int64_t i = 0; i < g->groups * j->parts * j->kparts; i++) {
            int64_t kp = i % j->kparts, part = i / j->kparts % j->parts, group = i / (j->kparts * j->parts);
            int64_t ka = kp * g->k / j->kparts, kz = (kp + 1) * g->k / j->kparts;
            REAL *sums = partial + (group * j->parts + part) * j->sums;
            R(clear_sums)(j, sums, ka, kz);
            for (int64_t t = part * j->s.n / j->parts; t < (part + 1) * j->s.n / j->parts; t++)
                R(wgrad_strip)(j, sums, x, gy, t, group, ka, kz, off, mine);
        }
#pragma omp for schedule(static)
        for (int64_t m = 0; m < g->groups * g->co; m++) R(wgrad_collect)(j, gw, partial, m);
    }
}

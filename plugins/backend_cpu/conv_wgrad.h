/* conv_wgrad.h - gradient of a convolution for its weight; included once per element type after conv_engine.h.
 *
 *     gw[m][k] = sum_p g[m][p] s[p + off[k]]        k = (tap, source channel)   p over the pixels of all images
 *
 * Strips and panels are those of conv_engine.h, with tiles of more pixels. Vectors run
 *
 *     along the channels m       for which g is transposed;
 *     along the pixels (dots)    where there are few channels or few sums altogether: a sum's lanes are added up in the end;
 *     along images (lanes)       as in conv_engine.h, without panels.
 *
 * Each part of the images has sums of its own, added in order: the bits depend on how many threads the plan was made for,
 * and on nothing else. A tile's sum begins at 0, so errors grow with the number of tiles, not of pixels. */

typedef struct {
    conv_grid g;
    conv_strips s;
    bool lanes, dots;      /* images in lanes; else along pixels, or along channels                   */
    int64_t width, kc;     /* pixels of a tile; windows (k) of a panel                               */
    int64_t parts, kparts; /* shares of the strips, and of k                                         */
    int64_t lead;          /* channels, rounded to vectors                                           */
    int64_t sums;          /* elements of one part's sums                                            */
    int64_t some;          /* lanes: channels at a time, so that their g stays in the cache          */
    size_t partial, offsets, scratch, panel, grad, pieces; /* bytes of the workspace's parts           */
    size_t shared, each;
} R(wgrad_job);

/** Whether images in lanes are faster. Vector operations for a pixel; the factors were measured (Zen 4). */
static bool R(wgrad_lanes_win)(const conv_grid *g, bool dots)
{
    double px = (double)conv_max(1, g->r.pix * g->c.pix), from = (double)(g->r.src * g->c.src);
    double k = (double)g->k, co = (double)g->co;
    double other = k * (dots ? 1.25 * co : (double)(conv_ceil_div(g->co, LANES) * LANES)) / LANES + 0.3 * k + co;
    double filled = (double)g->n / (double)(conv_ceil_div(g->n, LANES) * LANES);
    double sums = k * co / LANES * (axis_share(&g->r) * axis_share(&g->c) + LANES / px);
    return lanes_fit(g, VEC_BYTES) && (1.05 * sums + 0.7 * (co + (double)g->ci * from / px)) / filled < 0.95 * other;
}

static bool R(wgrad_job_make)(R(wgrad_job) * j, const conv_grid *g, int threads, const char *op)
{
    *j = (R(wgrad_job)){.g = *g};
    grid_finish(&j->g, false);
    g = &j->g;
    j->dots = 5 * g->co < 3 * LANES || g->k * g->co * VEC_BYTES <= CONV_SCRATCH / 3;
    j->lanes = R(wgrad_lanes_win)(g, j->dots);
    j->width = j->dots ? R(DOT_TILE) : R(TILE);
    j->kc = j->dots ? 32 : 128;
    j->lead = conv_ceil_div(g->co, LANES) * LANES;
    j->sums = g->k * (j->lanes ? g->co : j->dots ? g->co * LANES : j->lead);
    int64_t bytes = j->sums * g->groups * (int64_t)sizeof(REAL);
    if (j->lanes) {
        grid_finish(&j->g, true);
        if (!strips_choose_lanes(&j->s, g, sizeof(REAL), LANES, threads, op)) return false;
    } else if (!strips_choose(&j->s, g, sizeof(REAL), 4 * R(TILE), LANES, threads, op)) return false;
    j->parts = conv_min(conv_ceil_div(threads, g->groups), conv_max(1, (int64_t)(64 << 20) / conv_max(bytes, 1)));
    j->parts = conv_max(1, conv_min(j->parts, j->s.n));
    j->kparts = j->lanes ? 1 : conv_max(1, conv_min(threads / (j->parts * g->groups), g->k / 64));
    j->partial = conv_round64((size_t)(j->parts * bytes));
    j->offsets = conv_round64((size_t)g->k * sizeof(int32_t));
    j->scratch = conv_round64((size_t)(LANES + j->s.elems + LANES) * sizeof(REAL));
    if (j->lanes) {
        int64_t channel = j->s.rows * g->c.pix * LANES;
        j->some = conv_max(1, CONV_SCRATCH / (channel * (int64_t)sizeof(REAL) * DOT_M)) * DOT_M;
        j->grad = conv_round64((size_t)(conv_min(j->some, g->co) * channel) * sizeof(REAL));
    } else {
        j->panel = conv_round64((size_t)(j->kc * (j->width + LANES)) * sizeof(REAL));
        j->grad = conv_round64((size_t)(conv_ceil_div(g->co, R(BLOCK)) * R(BLOCK) * (j->width + LANES)) * sizeof(REAL));
        j->pieces = conv_round64((size_t)j->width * sizeof(conv_piece));
    }
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
        for (int i = 0; i < n; i++)
            copy_short(to + out[i].pos, g + m * plane + out[i].at, out[i].len * (int64_t)sizeof(REAL));
        for (int64_t p = px; p % LANES; p++) to[p] = 0;
    }
}

/** Windows k0 .. k0 + kn of one tile, packed in panel, against all channels. */
static void R(wgrad_blocks)(const R(wgrad_job) * j, REAL *sums, const REAL *panel, const REAL *grad, int64_t k0,
                            int64_t kn, int64_t px)
{
    const conv_grid *g = &j->g;
    int64_t most = j->dots ? DOT_K : CONV_KB, blocks = conv_ceil_div(kn, most);
    for (int64_t b = 0; b < blocks; b++) { /* of nearly equal size */
        int64_t k = b * kn / blocks, kb = (b + 1) * kn / blocks - k;
        if (j->dots) {
            int64_t rows = conv_ceil_div(g->co, DOT_M);
            for (int64_t r = 0; r < rows; r++) {
                int64_t m = r * g->co / rows, mb = (r + 1) * g->co / rows - m;
                R(dot_blocks)
                [mb - 1][kb - 1](sums + (m * g->k + k0 + k) * LANES, g->k * LANES, panel + k * R(DOT_LD),
                                 grad + m * R(DOT_LD), conv_ceil_div(px, LANES) * LANES);
            }
        } else {
            for (int64_t m = 0; m < g->co; m += R(BLOCK)) R(outers)
            [kb - 1][g->co - m > LANES](sums + (k0 + k) * j->lead + m, j->lead, panel + k * R(LD), grad + m * R(TILE),
                                        px);
        }
    }
}

/** One strip of one group into `sums`, windows ka .. kz. */
static void R(wgrad_strip)(const R(wgrad_job) * j, REAL *sums, const REAL *x, const REAL *gy, int64_t strip,
                           int64_t group, int64_t ka, int64_t kz, const int32_t *off, unsigned char *mine)
{
    const conv_grid *g = &j->g;
    const conv_strips *s = &j->s;
    REAL *scratch = (REAL *)mine + LANES, *panel = (REAL *)(mine + j->scratch),
         *grad = (REAL *)(mine + j->scratch + j->panel);
    conv_piece *src = (conv_piece *)(mine + j->scratch + j->panel + j->grad), *out = src + j->width,
               *part = out + j->width;
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

/* ---- images in lanes ---- */

/** Windows k0 .. k0 + kb, all of row of taps a, against channels m0 .. m1, whose g is in grad; pixels for which all these
 *  windows lie outside the source are left out. */
static void R(lanes_block)(const R(wgrad_job) * j, REAL *sums, const REAL *scratch, const REAL *grad,
                           const conv_strip *t, const int32_t *off, int64_t a, int64_t k0, int64_t kb, int64_t m0,
                           int64_t m1)
{
    const conv_grid *g = &j->g;
    int64_t i0, i1, j0, j1, k1 = k0 + kb - 1, first = (k0 - a * g->ka) / g->kb, last = (k1 - a * g->ka) / g->kb, begin,
                            end;
    axis_inside(&g->r, a, &i0, &i1);
    axis_inside(&g->c, first, &j0, &j1);
    axis_inside(&g->c, last, &begin, &end);
    i0 = conv_max(i0, t->row) - t->row;
    i1 = conv_min(i1, t->row + t->rows) - t->row;
    j0 = conv_min(j0, begin);
    j1 = conv_max(j1, end);
    if (i1 <= i0 || j1 <= j0) return;
    int64_t g_line = g->c.pix * LANES, blocks = conv_ceil_div(m1 - m0, DOT_M);
    R(dot_operands)
    o = {.s_line = j->s.line, .g_line = g_line, .channel = t->rows * g_line, .rows = i1 - i0, .n = j1 - j0};
    for (int64_t q = 0; q < kb; q++) o.s[q] = scratch + off[k0 + q] + i0 * j->s.line + j0 * LANES;
    for (int64_t b = 0; b < blocks; b++) {
        int64_t m = m0 + b * (m1 - m0) / blocks, mb = m0 + (b + 1) * (m1 - m0) / blocks - m;
        o.g = grad + (m - m0) * o.channel + i0 * g_line + j0 * LANES;
        R(lane_dot_blocks)[mb - 1][kb - 1](sums + m * g->k + k0, g->k, &o);
    }
}

/** One strip of one group into `sums` (channel, k). */
static void R(wgrad_strip_lanes)(const R(wgrad_job) * j, REAL *sums, const REAL *x, const REAL *gy, int64_t strip,
                                 int64_t group, const int32_t *off, unsigned char *mine)
{
    const conv_grid *g = &j->g;
    REAL *scratch = (REAL *)mine + LANES, *grad = (REAL *)(mine + j->scratch);
    conv_strip t = strip_at(&j->s, g, strip);
    int64_t plane = g->r.out * g->c.out, line = g->c.pix * LANES, blocks = conv_ceil_div(g->ka, DOT_K);
    const REAL *x_end = x + g->n * g->groups * g->ci * g->r.src * g->c.src,
               *g_end = gy + g->n * g->groups * g->co * plane;
    R(fill_lanes)(scratch, x, x_end, g, &j->s, &t, group);
    gy += t.img * t.image_stride + group * g->co * plane + t.row * g->c.out;
    for (int64_t m0 = 0; m0 < g->co; m0 += j->some) {
        int64_t m1 = conv_min(g->co, m0 + j->some);
        for (int64_t m = m0; m < m1; m++)
            for (int64_t i = 0; i < t.rows; i++) R(rows_to_lanes)
        (grad + ((m - m0) * t.rows + i) * line, gy + m * plane + i * g->c.out, t.image_stride, t.images, g->c.pix, 1,
         g_end);
        for (int64_t a = 0; a < g->r.taps; a++)
            for (int64_t b = 0; b < blocks; b++) {
                int64_t k = a * g->ka + b * g->ka / blocks, kb = a * g->ka + (b + 1) * g->ka / blocks - k;
                R(lanes_block)(j, sums, scratch, grad, &t, off, a, k, kb, m0, m1);
            }
    }
}

/** Zeroes the sums of windows ka .. kz. */
static void R(clear_sums)(const R(wgrad_job) * j, REAL *sums, int64_t ka, int64_t kz)
{
    if (j->lanes) {
        __builtin_memset(sums, 0, (size_t)j->sums * sizeof(REAL));
        return;
    }
    if (!j->dots) {
        __builtin_memset(sums + ka * j->lead, 0, (size_t)((kz - ka) * j->lead) * sizeof(REAL));
        return;
    }
    for (int64_t m = 0; m < j->g.co; m++)
        __builtin_memset(sums + (m * j->g.k + ka) * LANES, 0, (size_t)((kz - ka) * LANES) * sizeof(REAL));
}

/** gw of result channel m (of all groups), (source channel, row, column): the parts' sums in order. */
static void R(wgrad_collect)(const R(wgrad_job) * j, REAL *gw, const REAL *partial, int64_t channel)
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
                    if (j->lanes) sum = s[m * g->k + k];
                    else if (!j->dots) sum = s[k * j->lead + m];
                    else
                        for (int v = 0; v < LANES; v++) sum += s[(m * g->k + k) * LANES + v];
                    gw[(c * g->r.taps + a) * taps + b] += sum;
                }
    }
}

/** Runs it: ws has j->shared + threads * j->each bytes. */
static void R(wgrad_job_run)(const R(wgrad_job) * j, REAL *gw, const REAL *x, const REAL *gy, unsigned char *ws,
                             int threads)
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
            for (int64_t t = part * j->s.n / j->parts; t < (part + 1) * j->s.n / j->parts; t++) {
                if (j->lanes) R(wgrad_strip_lanes)(j, sums, x, gy, t, group, off, mine);
                else R(wgrad_strip)(j, sums, x, gy, t, group, ka, kz, off, mine);
            }
        }
#pragma omp for schedule(static)
        for (int64_t m = 0; m < g->groups * g->co; m++) R(wgrad_collect)(j, gw, partial, m);
    }
}

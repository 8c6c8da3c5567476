/* conv_engine.h - convolution as a matrix product of which one factor, the windows of the source, is never written down
 * whole; included once per element type after conv_micro.h and conv_scratch.h.
 *
 *     y[m][p] = bias[m] + sum_k w[m][k] s[p + off[k]]        k = (tap, source channel)   p a pixel, s scratch
 *
 * A tile is NR pixels, the micro kernel keeps MR channels of it in registers over all k, as in Goto & van de Geijn,
 * Anatomy of High-Performance Matrix Multiplication, ACM TOMS 34(3), 2008. A tile's windows are
 *
 *     direct   read where they lie in scratch: pixels are counted along the padded rows, what lies between rows is wasted
 *     packed   copied to a panel (K, NR) that holds only true pixels
 *     lanes    read where they lie, with as many images of the batch side by side as a vector has lanes: nothing is wasted,
 *              and no tap outside the source is computed, but all that is read and written has to be transposed
 *
 * Which, depends on the shapes alone. Every sum runs over k in order: tiles, strips and threads change no bits. */

enum { R(NR) = NV * LANES, R(CHUNK) = LANES /* lanes: columns of pixels that wait in temp */ };

/** Decisions and sizes for one grid. */
typedef struct {
    conv_grid g;
    conv_strips s;
    int64_t blocks; /* blocks of MR result channels of a group                               */
    int64_t split;  /* tasks that share the blocks of a strip                                */
    int64_t tasks;
    bool lanes, packed; /* images in lanes; else panels, or direct                               */
    int64_t kc;         /* k at a time: K unless packed and long                                 */
    size_t weights, offsets, steps, scratch, panel, temp, pieces; /* bytes of the workspace's parts */
    size_t shared, each; /* bytes for all threads, and for each of them                           */
} R(conv_job);

/** What one thread works with. */
typedef struct {
    REAL *scratch, *panel, *temp;
    conv_piece *src, *out, *part;
    int32_t first[NV + 1];
} R(conv_work);

/** Vector operations for a pixel by the better of panels and direct; the factors were measured (Zen 4). */
static double R(cost)(const conv_grid *g, bool *packed)
{
    double rows = (double)g->r.pix, width = (double)g->c.pix, pitch = width + (double)g->c.reach, co = (double)g->co;
    double copies = NV * (1 + (width < LANES ? LANES / width : LANES / width * 0.5)); /* loads for a row of a panel */
    double direct = ((rows - 1) * pitch + width) / (rows * width) * co * NV, panels = co * NV + 1.3 * copies + 8;
    *packed = panels < direct;
    return (*packed ? panels : direct) / R(NR) * (double)g->k * (0.3 + 0.7 * axis_share(&g->r));
}

/** Whether images in lanes cost less than that. */
static bool R(lanes_win)(const conv_grid *g, double cost)
{
    double filled = (double)g->n / (double)(conv_ceil_div(g->n, LANES) * LANES);
    double px = (double)(g->r.pix * g->c.pix), from = (double)(g->r.src * g->c.src);
    double sums = (double)g->k * (double)g->co / LANES * axis_share(&g->r) * axis_share(&g->c);
    double moved = 0.7 * (double)g->co + 0.7 * (double)g->ci * from / px;
    return lanes_fit(g, VEC_BYTES) && (sums + moved) / filled < 0.95 * cost;
}

static bool R(conv_job_make)(R(conv_job) * j, const conv_grid *g, int threads, const char *op)
{
    *j = (R(conv_job)){.g = *g};
    grid_finish(&j->g, false);
    g = &j->g;
    j->blocks = conv_ceil_div(g->co, MR);
    int64_t tasks = threads > 1 ? 4 * threads : 1;
    if (!strips_choose(&j->s, g, sizeof(REAL), 16 * R(NR), R(NR), tasks, op)) return false;
    j->lanes = R(lanes_win)(g, R(cost)(g, &j->packed));
    if (j->lanes) {
        grid_finish(&j->g, true);
        j->packed = false;
        if (!strips_choose_lanes(&j->s, g, sizeof(REAL), LANES, tasks, op)) return false;
    }
    j->split = conv_max(1, conv_min(j->blocks, threads / conv_max(j->s.n * g->groups, 1)));
    j->tasks = j->s.n * g->groups * j->split;
    j->kc = j->packed ? conv_ceil_div(g->k, conv_max(1, conv_ceil_div(g->k, 1024))) : g->k;
    bool again = j->kc < g->k; /* results of all channels wait in temp for the next k */
    j->weights = conv_round64((size_t)(g->groups * g->co * g->k) * sizeof(REAL));
    j->offsets = conv_round64((size_t)g->k * sizeof(int32_t));
    j->steps = conv_round64(j->packed ? (size_t)j->kc * sizeof(int32_t) : 0);
    j->scratch =
        conv_round64((size_t)(LANES + j->s.elems + R(NR)) * sizeof(REAL)); /* loads may begin and end outside */
    j->panel = conv_round64(j->packed ? (size_t)(j->kc * R(NR)) * sizeof(REAL) : 0);
    int64_t tile = j->lanes ? R(CHUNK) * LANES : R(NR);
    j->temp = conv_round64((size_t)((again ? j->blocks : 1) * MR * tile) * sizeof(REAL));
    j->pieces = conv_round64(2 * R(NR) * sizeof(conv_piece));
    j->shared = j->weights + j->offsets + j->steps;
    j->each = j->scratch + j->panel + j->temp + 3 * j->pieces;
    return true;
}

/** The weights of block b of a group as (k, channels of the block), so that the micro kernel reads on and on. */
static void R(pack_weights)(REAL *to, const REAL *w, const conv_grid *g, int64_t group, int64_t block)
{
    int64_t m0 = block * MR, mr = conv_min(MR, g->co - m0);
    w += group * g->wg + m0 * g->wm;
    for (int64_t a = 0; a < g->r.taps; a++)
        for (int64_t c = 0; c < g->ci; c++) {
            const REAL *row = w + c * g->wc + (g->r.k0 + a * g->r.ks) * g->wr + g->c.k0;
            for (int64_t b = 0; b < g->c.taps; b++) {
                REAL *p = to + (a * g->ka + b * g->kb + c * g->kc) * mr;
                for (int64_t m = 0; m < mr; m++) p[m] = row[m * g->wm + b * g->c.ks];
            }
        }
}

/** Copies mr rows of a finished tile to their places in the result. */
static void R(store_tile)(REAL *y, int64_t plane, const REAL *tile, int64_t mr, const conv_piece *out, int n,
                          int64_t step)
{
    for (int64_t m = 0; m < mr; m++, y += plane, tile += R(NR))
        for (int i = 0; i < n; i++) {
            REAL *to = y + out[i].at;
            const REAL *from = tile + out[i].pos;
            if (step == 1) copy_short(to, from, out[i].len * (int64_t)sizeof(REAL));
            else
                for (int32_t e = 0; e < out[i].len; e++) to[e * step] = from[e];
        }
}

/** The relu of mr rows of n finished results. */
static void R(rectify)(REAL *c, int64_t ldc, int64_t mr, int64_t n)
{
    for (int64_t m = 0; m < mr; m++, c += ldc)
        for (int64_t e = 0; e < n; e++) c[e] = c[e] < 0 ? 0 : c[e];
}

/** Where the operands of one tile are. */
typedef struct {
    REAL *y;              /* channel 0 of the group, first image of the strip                        */
    const REAL *a, *bias; /* packed weights and bias of the group                                   */
    const REAL *src;      /* direct: scratch at the tile's first pixel                               */
    int64_t b0, b1;       /* blocks of channels                                                      */
    int64_t out_at;       /* whole: where in a result channel                                        */
    int64_t k0, k1;       /* what of k meets the source at all                                       */
    int n_out, nv;
    bool whole; /* the tile is one full run of the result: no detour over temp             */
    bool relu;
} R(conv_tile);

static void R(do_tile)(const R(conv_job) * j, const R(conv_work) * wk, const R(conv_tile) * t, const int32_t *off,
                       const int32_t *steps)
{
    const conv_grid *g = &j->g;
    int64_t plane = g->r.out * g->c.out, ldc = t->whole ? plane : R(NR), k = t->k0;
    do {
        int64_t kn = conv_min(j->kc, t->k1 - k);
        bool last = k + kn == t->k1, keep = j->kc < g->k;
        if (j->packed) R(pack_panel)(wk->panel, R(NR), wk->scratch, off + k, kn, wk->part, wk->first, t->nv);
        for (int64_t b = t->b0; b < t->b1; b++) {
            int64_t m0 = b * MR, mr = conv_min(MR, g->co - m0);
            REAL *c = t->whole ? t->y + t->out_at + m0 * plane : wk->temp + (keep ? m0 * R(NR) : 0);
            R(micros)
            [mr - 1][t->nv - 1](c, ldc, t->a + m0 * g->k + k * mr, j->packed ? wk->panel : t->src,
                                j->packed ? steps : off + k, (R(span)){kn, 1, 0}, t->bias ? t->bias + m0 : NULL,
                                k > t->k0);
            if (last && t->relu) R(rectify)(c, ldc, mr, t->nv * LANES);
            if (last && !t->whole) R(store_tile)(t->y + m0 * plane, plane, c, mr, wk->out, t->n_out, g->c.os);
        }
        k += kn;
    } while (k < t->k1);
}

/** One strip of one group, blocks t->b0 .. t->b1 of its channels. */
static void R(do_strip)(const R(conv_job) * j, R(conv_work) * wk, R(conv_tile) * t, REAL *y, const REAL *x,
                        int64_t strip, int64_t group, const int32_t *off, const int32_t *steps)
{
    const conv_grid *g = &j->g;
    const conv_strips *s = &j->s;
    conv_strip at = strip_at(s, g, strip);
    int64_t row_px = at.images * g->c.pix, px = at.rows * row_px, a0, a1;
    if (g->k) R(fill_scratch)(wk->scratch, x, g, s, &at, group);
    t->y = y + at.img * at.image_stride + group * g->co * g->r.out * g->c.out;
    for (int64_t p = 0; p >= 0;) { /* p: pixels; or, direct, elements of scratch */
        int64_t n, i0, i1;
        if (j->packed) {
            n = conv_min(R(NR), px - p);
            t->n_out = strip_pieces(s, g, &at, p, n, wk->src, wk->out);
            R(plan_columns)(wk->part, wk->first, wk->src, n);
            i0 = p / row_px;
            i1 = (p + n - 1) / row_px;
            p = p + n < px ? p + n : -1;
        } else {
            i0 = p / s->line;
            t->src = wk->scratch + p;
            i1 = p;
            t->n_out = strip_windows(s, g, &at, &p, R(NR), wk->out, &n);
            i1 = (i1 + n - 1) / s->line;
        }
        axis_live(&g->r, at.row + i0, i1 - i0 + 1, &a0, &a1);
        t->k0 = a0 * g->ci * g->c.taps;
        t->k1 = a1 * g->ci * g->c.taps;
        t->nv = (int)conv_ceil_div(n, LANES);
        t->whole = t->n_out == 1 && n % LANES == 0 && g->c.os == 1;
        t->out_at = wk->out[0].at;
        R(do_tile)(j, wk, t, off, steps);
    }
}

/** The same with images in lanes: tiles of NV columns of one row. Taps outside the source are left out for rows and columns. */
static void R(do_strip_lanes)(const R(conv_job) * j, const R(conv_work) * wk, const R(conv_tile) * t, REAL *y,
                              const REAL *x, int64_t strip, int64_t group, const int32_t *off)
{
    const conv_grid *g = &j->g;
    const conv_strips *s = &j->s;
    conv_strip at = strip_at(s, g, strip);
    int64_t plane = g->r.out * g->c.out, a0, a1, b0, b1;
    const REAL *end = x + g->n * g->groups * g->ci * g->r.src * g->c.src;
    if (g->k) R(fill_lanes)(wk->scratch, x, end, g, s, &at, group);
    y += at.img * at.image_stride + group * g->co * plane;
    for (int64_t i = 0; i < at.rows; i++) {
        axis_live(&g->r, at.row + i, 1, &a0, &a1);
        for (int64_t col = 0; col < g->c.pix; col += R(CHUNK)) {
            int64_t n = conv_min(R(CHUNK), g->c.pix - col);
            for (int64_t b = t->b0; b < t->b1; b++) {
                int64_t m0 = b * MR, mr = conv_min(MR, g->co - m0);
                for (int64_t e = 0; e < n; e += NV) {
                    int64_t nv = conv_min(NV, n - e);
                    axis_live(&g->c, col + e, nv, &b0, &b1);
                    int64_t k = a0 * g->ka + b0 * g->kb;
                    R(span) span = {(b1 - b0) * g->kb, a1 - a0, g->ka - (b1 - b0) * g->kb};
                    if (!span.jump) span = (R(span)){span.n * span.runs, 1, 0};
                    R(micros)
                    [mr - 1][nv - 1](wk->temp + e * LANES, R(CHUNK) * LANES, t->a + m0 * g->k + k * mr,
                                     wk->scratch + i * s->line + (col + e) * LANES, off + k, span,
                                     t->bias ? t->bias + m0 : NULL, false);
                }
                if (t->relu) R(rectify)(wk->temp, R(CHUNK) * LANES, mr, n * LANES);
                for (int64_t m = 0; m < mr; m++) R(lanes_to_rows)
                (y + (m0 + m) * plane + strip_result(&at, g, 0, i, col), wk->temp + m * R(CHUNK) * LANES,
                 at.image_stride, at.images, n, g->c.os);
            }
        }
    }
}

/** Runs a grid; ws has j->shared + threads * j->each bytes. */
static void R(conv_job_run)(const R(conv_job) * j, REAL *y, const REAL *x, const REAL *w, const REAL *bias, bool relu,
                            unsigned char *ws, int threads)
{
    const conv_grid *g = &j->g;
    if (!g->r.pix || !g->c.pix || !g->n || !g->co) return;
    REAL *packed = (REAL *)ws;
    int32_t *off = (int32_t *)(ws + j->weights), *steps = (int32_t *)(ws + j->weights + j->offsets);
    strips_offsets(&j->s, g, off);
    for (int64_t k = 0; j->packed && k < j->kc; k++) steps[k] = (int32_t)(k * R(NR));
#pragma omp parallel num_threads(threads) if (threads > 1)
    {
        unsigned char *mine = ws + j->shared + (size_t)omp_get_thread_num() * j->each;
        R(conv_work)
        wk = {.scratch = (REAL *)mine + LANES,
              .panel = (REAL *)(mine + j->scratch),
              .temp = (REAL *)(mine + j->scratch + j->panel)};
        wk.src = (conv_piece *)(mine + j->scratch + j->panel + j->temp);
        wk.out = wk.src + 2 * R(NR);
        wk.part = wk.out + 2 * R(NR);
        if (axis_share(&g->r) * axis_share(&g->c) < 1) __builtin_memset(mine, 0, j->scratch); /* a border of zeros */
#pragma omp for schedule(static)
        for (int64_t b = 0; b < g->groups * j->blocks; b++) {
            int64_t group = b / j->blocks, block = b % j->blocks;
            R(pack_weights)(packed + (group * g->co + block * MR) * g->k, w, g, group, block);
        }
#pragma omp for schedule(dynamic) nowait
        for (int64_t i = 0; i < j->tasks; i++) {
            int64_t part = i % j->split, group = i / j->split % g->groups, strip = i / (j->split * g->groups);
            R(conv_tile)
            t = {.a = packed + group * g->co * g->k,
                 .bias = bias ? bias + group * g->co : NULL,
                 .b0 = part * j->blocks / j->split,
                 .b1 = (part + 1) * j->blocks / j->split,
                 .relu = relu};
            if (j->lanes) R(do_strip_lanes)(j, &wk, &t, y, x, strip, group, off);
            else R(do_strip)(j, &wk, &t, y, x, strip, group, off, steps);
        }
    }
}

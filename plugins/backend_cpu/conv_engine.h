/* conv_engine.h - convolution as a matrix product of which one factor, the windows of the source, is never written down
 * whole; included once per element type, with REAL, VEC, LANES and R(name) defined.
 *
 *     y[m][p] = bias[m] + sum_k w[m][k] s[p + off[k]]        k = (tap, source channel)   p a pixel, s scratch
 *
 * A tile is NR pixels. Its windows are either read where they lie in scratch (`direct`: pixels of a strip are counted along
 * the padded rows, so those between two rows are wasted), or packed as a panel (K, NR) that holds only true pixels. The micro
 * kernel keeps MR channels by NR pixels in registers over all k, as in Goto & van de Geijn, Anatomy of High-Performance
 * Matrix Multiplication, ACM TOMS 34(3), 2008. Every sum runs over k in order: tiles, threads and strips change no bits. */

/** y[m][v] = start + sum_k a[k][m] b[off[k]][v]; start is y itself (load), the bias of m, or 0. */
VEC_INLINE void R(micro)(const int mr, const int nv, REAL *c, int64_t ldc, const REAL *a, const REAL *b, const int32_t *off,
                         int64_t k, const REAL *bias, bool load)
{
    VEC acc[MR][NV];
#pragma GCC unroll 8
    for (int m = 0; m < mr; m++)
#pragma GCC unroll 4
        for (int v = 0; v < nv; v++) {
            if (load) acc[m][v] = *(const VEC *)(c + m * ldc + v * LANES);
            else acc[m][v] = (VEC){0} + (bias ? bias[m] : 0);
        }
    for (int64_t i = 0; i < k; i++) {
        const REAL *s = b + off[i];
        VEC w[NV];
#pragma GCC unroll 4
        for (int v = 0; v < nv; v++) w[v] = *(const VEC *)(s + v * LANES);
#pragma GCC unroll 8
        for (int m = 0; m < mr; m++)
#pragma GCC unroll 4
            for (int v = 0; v < nv; v++) acc[m][v] += a[m] * w[v];
        a += mr;
    }
#pragma GCC unroll 8
    for (int m = 0; m < mr; m++)
#pragma GCC unroll 4
        for (int v = 0; v < nv; v++) *(VEC *)(c + m * ldc + v * LANES) = acc[m][v];
}

typedef void R(micro_fn)(REAL *c, int64_t ldc, const REAL *a, const REAL *b, const int32_t *off, int64_t k, const REAL *bias,
                         bool load);
#define MICRO(mr, nv)                                                                                                    \
    static void R(micro_##mr##_##nv)(REAL *c, int64_t ldc, const REAL *a, const REAL *b, const int32_t *off, int64_t k,  \
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

enum { R(NR) = NV * LANES };

/** Decisions and sizes for one grid. */
typedef struct {
    conv_grid g;
    conv_strips s;
    int64_t blocks;       /* blocks of MR result channels of a group                               */
    int64_t split;        /* tasks that share the blocks of a strip                                */
    int64_t tasks;
    bool packed;          /* panels, or direct                                                     */
    int64_t kc;           /* k at a time: K unless packed and long                                 */
    size_t weights, offsets, steps, scratch, panel, temp, pieces; /* bytes of the workspace's parts */
    size_t shared, each;  /* bytes for all threads, and for each of them                           */
} R(conv_job);

/** What one thread works with. */
typedef struct {
    REAL *scratch, *panel, *temp;
    conv_piece *src, *out, *part;
    int32_t first[NV + 1];
} R(conv_work);

/** Whether panels win. Cycles for one k of a strip, in vector operations; the factors were measured (Zen 4). */
static bool R(panels_win)(const conv_grid *g, const conv_strips *s)
{
    int64_t px = s->images * s->rows * g->c.pix;
    double tile = R(NR), width = (double)g->c.pix;
    double direct = (double)s->images * (double)((s->rows - 1) * s->pitch + g->c.pix) / tile;
    double packed = (double)px / tile;
    double copies = tile / width + 1 + (width > LANES ? NV : 0);
    return packed * ((double)g->co * NV + 2.5 * copies + 3) < direct * (double)g->co * NV;
}

static bool R(conv_job_make)(R(conv_job) *j, const conv_grid *g, int threads, const char *op)
{
    *j = (R(conv_job)){.g = *g};
    grid_finish(&j->g);
    g = &j->g;
    j->blocks = conv_ceil_div(g->co, MR);
    if (!strips_choose(&j->s, g, sizeof(REAL), 16 * R(NR), R(NR), threads > 1 ? 4 * threads : 1, op)) return false;
    j->split = conv_max(1, conv_min(j->blocks, threads / conv_max(j->s.n * g->groups, 1)));
    j->tasks = j->s.n * g->groups * j->split;
    j->packed = R(panels_win)(g, &j->s);
    j->kc = j->packed ? conv_ceil_div(g->k, conv_max(1, conv_ceil_div(g->k, 1024))) : g->k;
    bool again = j->kc < g->k; /* results of all channels wait in temp for the next k */
    j->weights = conv_round64((size_t)(g->groups * g->co * g->k) * sizeof(REAL));
    j->offsets = conv_round64((size_t)g->k * sizeof(int32_t));
    j->steps = conv_round64(j->packed ? (size_t)j->kc * sizeof(int32_t) : 0);
    j->scratch = conv_round64((size_t)(LANES + j->s.elems + R(NR)) * sizeof(REAL)); /* loads may begin and end outside */
    j->panel = conv_round64(j->packed ? (size_t)(j->kc * R(NR)) * sizeof(REAL) : 0);
    j->temp = conv_round64((size_t)((again ? j->blocks : 1) * MR * R(NR)) * sizeof(REAL));
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
            for (int64_t b = 0; b < g->c.taps; b++, to += mr)
                for (int64_t m = 0; m < mr; m++) to[m] = row[m * g->wm + b * g->c.ks];
        }
}

/** Copies the source rows of a strip into scratch. Borders left and right are zero from the start, and stay so. */
static void R(fill_scratch)(REAL *scratch, const REAL *x, const conv_grid *g, const conv_strips *s, const conv_strip *t,
                            int64_t group)
{
    const conv_axis *r = &g->r, *c = &g->c;
    int64_t plane = r->src * c->src;
    for (int64_t ch = 0; ch < g->ci; ch++)
        for (int64_t slot = 0; slot < r->slots * c->slots; slot++) {
            int64_t base_r = t->row * r->step + r->low + axis_residue(r, slot / c->slots);
            int64_t base_c = c->low + axis_residue(c, slot % c->slots);
            int64_t lo = base_c < 0 ? conv_ceil_to(-base_c, c->step) : 0;
            int64_t hi = conv_min(s->pitch, base_c < c->src ? conv_ceil_to(c->src - base_c, c->step) : 0);
            if (hi <= lo) continue;
            for (int64_t i = 0; i < t->images; i++) {
                const REAL *from = x + (((t->img + i) * g->groups + group) * g->ci + ch) * plane + base_c + lo * c->step;
                REAL *to = scratch + ch * s->channel + slot * s->plane + i * s->pitch + lo;
                for (int64_t q = 0; q < t->rows + r->reach; q++, to += s->line) {
                    int64_t at = base_r + q * r->step;
                    if (at < 0 || at >= r->src) {
                        if (s->per_image > 1) __builtin_memset(to, 0, (size_t)(hi - lo) * sizeof(REAL));
                    } else if (c->step == 1) {
                        copy_short(to, from + at * c->src, (hi - lo) * (int64_t)sizeof(REAL));
                    } else {
                        const REAL *f = from + at * c->src;
                        for (int64_t e = 0; e < hi - lo; e++) to[e] = f[e * c->step];
                    }
                }
            }
        }
}

/**
 * Sorts the pieces of a tile by vectors. part[first[v]] .. part[first[v + 1] - 1] meet vector v: pos is the first lane of
 * each in it, at the place in scratch that lane 0 would have.
 */
static void R(plan_columns)(conv_piece *part, int32_t *first, const conv_piece *src, int64_t n)
{
    int32_t k = 0;
    for (int64_t begin = 0, i = 0, v = 0; begin < n; begin += LANES, v++) {
        int64_t end = conv_min(n, begin + LANES);
        for (first[v] = k;; i++) {
            int64_t pos = conv_max(src[i].pos - begin, 0);
            part[k++] = (conv_piece){(int32_t)pos, 0, src[i].at - src[i].pos + begin};
            if (src[i].pos + src[i].len >= end) break;
        }
        first[v + 1] = k;
        if (src[i].pos + src[i].len == end) i++;
    }
}

/** One column of vectors of a panel: each joined from n parts that lie apart in scratch. */
VEC_INLINE void R(join_column)(const int n, REAL *to, int64_t stride, const REAL *scratch, const int32_t *off, int64_t k,
                               const conv_piece *part)
{
    vec_i32 mask[4];
#pragma GCC unroll 4
    for (int e = 1; e < n; e++) mask[e] = lanes_from(part[e].pos * (int)sizeof(REAL));
    for (int64_t i = 0; i < k; i++, to += stride) {
        const REAL *s = scratch + off[i];
        vec_i32 v = *(const vec_i32 *)(s + part[0].at);
#pragma GCC unroll 4
        for (int e = 1; e < n; e++) {
            vec_i32 w = *(const vec_i32 *)(s + part[e].at);
            v = v ^ ((v ^ w) & mask[e]);
        }
        *(vec_i32 *)to = v;
    }
}

/** The windows of a tile's pixels, for k rows of a panel. */
static void R(pack_panel)(REAL *panel, int64_t stride, const REAL *scratch, const int32_t *off, int64_t k,
                          const conv_piece *part, const int32_t *first, int64_t vectors)
{
    for (int64_t v = 0; v < vectors; v++, panel += LANES) {
        const conv_piece *p = part + first[v];
        int n = first[v + 1] - first[v];
        if (n == 1) R(join_column)(1, panel, stride, scratch, off, k, p);
        else if (n == 2) R(join_column)(2, panel, stride, scratch, off, k, p);
        else if (n == 3) R(join_column)(3, panel, stride, scratch, off, k, p);
        else if (n == 4) R(join_column)(4, panel, stride, scratch, off, k, p);
        else
            for (int64_t i = 0; i < k; i++)
                for (int e = 0; e < n; e++) {
                    int last = e + 1 < n ? p[e + 1].pos : LANES;
                    const REAL *s = scratch + off[i] + p[e].at;
                    for (int q = p[e].pos; q < last; q++) panel[i * stride + q] = s[q];
                }
    }
}

/** Copies mr rows of a finished tile to their places in the result. */
static void R(store_tile)(REAL *y, int64_t plane, const REAL *tile, int64_t mr, const conv_piece *out, int n, int64_t step)
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

/** Where the operands of one tile are. */
typedef struct {
    REAL *y;             /* channel 0 of the group, first image of the strip                        */
    const REAL *a, *bias; /* packed weights and bias of the group                                   */
    const REAL *src;     /* direct: scratch at the tile's first pixel                               */
    int64_t b0, b1;      /* blocks of channels                                                      */
    int64_t out_at;      /* whole: where in a result channel                                        */
    int64_t k0, k1;      /* what of k meets the source at all                                       */
    int n_out, nv;
    bool whole;          /* the tile is one full run of the result: no detour over temp             */
} R(conv_tile);

static void R(do_tile)(const R(conv_job) *j, const R(conv_work) *wk, const R(conv_tile) *t, const int32_t *off,
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
            R(micros)[mr - 1][t->nv - 1](c, ldc, t->a + m0 * g->k + k * mr, j->packed ? wk->panel : t->src,
                                         j->packed ? steps : off + k, kn, t->bias ? t->bias + m0 : NULL, k > t->k0);
            if (last && !t->whole) R(store_tile)(t->y + m0 * plane, plane, c, mr, wk->out, t->n_out, g->c.os);
        }
        k += kn;
    } while (k < t->k1);
}

/** One strip of one group, blocks t->b0 .. t->b1 of its channels. */
static void R(do_strip)(const R(conv_job) *j, R(conv_work) *wk, R(conv_tile) *t, REAL *y, const REAL *x, int64_t strip,
                        int64_t group, const int32_t *off, const int32_t *steps)
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

/** Runs a grid; ws has j->shared + threads * j->each bytes. */
static void R(conv_job_run)(const R(conv_job) *j, REAL *y, const REAL *x, const REAL *w, const REAL *bias, unsigned char *ws,
                            int threads)
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
        R(conv_work) wk = {.scratch = (REAL *)mine + LANES, .panel = (REAL *)(mine + j->scratch),
                           .temp = (REAL *)(mine + j->scratch + j->panel)};
        wk.src = (conv_piece *)(mine + j->scratch + j->panel + j->temp);
        wk.out = wk.src + 2 * R(NR);
        wk.part = wk.out + 2 * R(NR);
        __builtin_memset(mine, 0, j->scratch);
#pragma omp for schedule(static)
        for (int64_t b = 0; b < g->groups * j->blocks; b++)
            R(pack_weights)(packed + (b / j->blocks * g->co + b % j->blocks * MR) * g->k, w, g, b / j->blocks, b % j->blocks);
#pragma omp for schedule(dynamic) nowait
        for (int64_t i = 0; i < j->tasks; i++) {
            int64_t part = i % j->split, group = i / j->split % g->groups, strip = i / (j->split * g->groups);
            R(conv_tile) t = {.a = packed + group * g->co * g->k, .bias = bias ? bias + group * g->co : NULL,
                              .b0 = part * j->blocks / j->split, .b1 = (part + 1) * j->blocks / j->split};
            R(do_strip)(j, &wk, &t, y, x, strip, group, off, steps);
        }
    }
}

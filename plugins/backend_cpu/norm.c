/* norm.c - layer_norm, add_layer_norm and their gradient, f32.    x (rows, d)
 *
 *     xhat = (x - mean) rstd     y = w xhat + b     rstd = 1 / sqrt(var + eps)     var: population variance
 *     gb = sum g     gw = sum g xhat     gx = rstd (h - M(h) - xhat M(h xhat)),  h = w g,  M the mean of a row
 *
 * add_layer_norm: x = a + r, made row by row. The variance is taken around the mean, in a second pass. Several rows go through
 * each pass together, for one sum would wait for its own last addition. Sums run in f32 over at most BLOCK elements of a
 * row, then in f64. gw and gb are summed over chunks of rows, in f32 over RUN of them and then in f64, and the chunks'
 * sums in order; there are as many chunks for any number of threads. */
#include "cpu.h"
#include "vec.h"
#include <math.h>
#include <string.h>

/* TOGETHER: rows of a pass, forward; PAIR: in the gradient, which keeps twice as many sums. */
enum { BLOCK = 512, TOGETHER = 4, PAIR = 2, RUN = 32, CHUNK = 64, MOST_CHUNKS = 32, LANES = VEC_F32 };

VEC_INLINE vec_f32 load(const float *p) { return *(const vec_f32 *)p; }
VEC_INLINE void store(float *p, vec_f32 v) { *(vec_f32 *)p = v; }

#define LANE_OTHER(w, l) ((l) ^ (w))
#define FOLD(v, w) \
    if (LANES > (w)) v += __builtin_shuffle(v, (vec_i32){EACH_LANE(VEC_F32, LANE_OTHER, w)})

/** The sum of a vector's lanes. */
VEC_INLINE float lanes(vec_f32 v)
{
    FOLD(v, 1);
    FOLD(v, 2);
#if VEC_F32 > 4
    FOLD(v, 4);
#endif
#if VEC_F32 > 8
    FOLD(v, 8);
#endif
    return v[0];
}

/** Elements of the last `dims` axes. */
static int64_t row_length(const td_view *x, int64_t dims)
{
    int64_t d = 1;
    for (int32_t i = x->nd - (int32_t)dims; i < x->nd; i++) d *= x->dim[i];
    return d;
}

/* ---- forward ---- */

typedef struct {
    const float *x, *r, *w, *b; /* r: NULL for layer_norm */
    float *sum, *y, *mean, *rstd;
    int64_t n, d;
    double eps;
} problem;

/** Sums of n rows of x, or of the squares of their distances from m. */
VEC_INLINE void row_sums(const int n, const bool squares, const float *x, int64_t d, const float *m, double *to)
{
    for (int r = 0; r < n; r++) to[r] = 0;
    for (int64_t i = 0; i < d; i += BLOCK) {
        int64_t end = d - i < BLOCK ? d : i + BLOCK, j = i;
        vec_f32 s[TOGETHER];
#pragma GCC unroll 4
        for (int r = 0; r < n; r++) s[r] = (vec_f32){0};
        for (; j + LANES <= end; j += LANES)
#pragma GCC unroll 4
            for (int r = 0; r < n; r++) {
                vec_f32 v = load(x + r * d + j);
                if (squares) v -= m[r], v *= v;
                s[r] += v;
            }
        for (int r = 0; r < n; r++) {
            float rest = lanes(s[r]);
            for (int64_t k = j; k < end; k++) {
                float v = x[r * d + k] - (squares ? m[r] : 0);
                rest += squares ? v * v : v;
            }
            to[r] += (double)rest;
        }
    }
}

/** Row i of y, whose x is given, from its statistics. */
VEC_INLINE void norm_row(const problem *p, const float *restrict x, int64_t i)
{
    const float m = p->mean[i], s = p->rstd[i], *restrict w = p->w, *restrict b = p->b;
    float *restrict y = p->y + i * p->d;
    if (w && b)
        for (int64_t j = 0; j < p->d; j++) y[j] = (x[j] - m) * s * w[j] + b[j];
    else
        for (int64_t j = 0; j < p->d; j++) y[j] = (x[j] - m) * s * (w ? w[j] : 1) + (b ? b[j] : 0);
}

/** n rows from row i on. */
VEC_INLINE void norm_rows(const int n, const problem *p, int64_t i)
{
    const int64_t d = p->d;
    const float *restrict x = p->x + i * d;
    float *mean = p->mean + i, *rstd = p->rstd + i;
    double sum[TOGETHER];
    if (p->r) {
        const float *restrict r = p->r + i * d;
        float *restrict t = p->sum + i * d;
        for (int64_t j = 0; j < n * d; j++) t[j] = x[j] + r[j];
        x = t;
    }
    row_sums(n, false, x, d, NULL, sum);
    for (int r = 0; r < n; r++) mean[r] = (float)(sum[r] / (double)d);
    row_sums(n, true, x, d, mean, sum);
    for (int r = 0; r < n; r++) rstd[r] = (float)(1 / sqrt(sum[r] / (double)d + p->eps));
    for (int r = 0; r < n; r++) norm_row(p, x + r * d, i + r);
}

static void norm_all(const problem *p)
{
#pragma omp parallel for schedule(static) if (p->n * p->d > TD_PAR_MIN)
    for (int64_t i = 0; i < p->n; i += TOGETHER) {
        if (p->n - i >= TOGETHER) norm_rows(TOGETHER, p, i);
        else
            for (int64_t k = i; k < p->n; k++) norm_rows(1, p, k);
    }
}

static const float *data(const td_view *v) { return v ? v->p : NULL; }

static bool run_layer_norm(const td_kargs *a)
{
    const td_layer_norm_attr *o = a->attr;
    int64_t d = row_length(a->in[0], o->dims);
    problem p = {data(a->in[0]),
                 NULL,
                 data(a->in[1]),
                 data(a->in[2]),
                 NULL,
                 a->out[0]->p,
                 a->out[1]->p,
                 a->out[2]->p,
                 td_view_numel(a->in[0]) / d,
                 d,
                 o->eps};
    norm_all(&p);
    return true;
}

/** in: x, r, w?, b?   out: y, sum, mean, rstd */
static bool run_add_layer_norm(const td_kargs *a)
{
    const td_add_layer_norm_attr *o = a->attr;
    int64_t d = row_length(a->in[0], o->dims);
    problem p = {data(a->in[0]),
                 data(a->in[1]),
                 data(a->in[2]),
                 data(a->in[3]),
                 a->out[1]->p,
                 a->out[0]->p,
                 a->out[2]->p,
                 a->out[3]->p,
                 td_view_numel(a->in[0]) / d,
                 d,
                 o->eps};
    norm_all(&p);
    return true;
}

/* ---- y once more, from x or the sum, w, b and the statistics ---- */

static bool norm_again(const td_kargs *a, int64_t dims, const float *x, const td_view *w, const td_view *b,
                       const td_view *mean, const td_view *rstd)
{
    const int64_t d = row_length(a->out[0], dims), n = td_view_numel(a->out[0]) / d;
    const problem p = {x, NULL, data(w), data(b), NULL, a->out[0]->p, mean->p, rstd->p, n, d, 0};
#pragma omp parallel for schedule(static) if (n * d > TD_PAR_MIN)
    for (int64_t i = 0; i < n; i++) norm_row(&p, x + i * d, i);
    return true;
}

static bool again_layer_norm(const td_kargs *a)
{
    int64_t dims = ((const td_layer_norm_attr *)a->attr)->dims;
    return norm_again(a, dims, a->in[0]->p, a->in[1], a->in[2], a->out[1], a->out[2]);
}

static bool again_add_layer_norm(const td_kargs *a)
{
    int64_t dims = ((const td_add_layer_norm_attr *)a->attr)->dims;
    return norm_again(a, dims, a->out[1]->p, a->in[2], a->in[3], a->out[2], a->out[3]);
}

/** x, w, b */
static int64_t again_layer_norm_reads(const td_kargs *a)
{
    (void)a;
    return 1 | 2 | 4;
}

/** w, b */
static int64_t again_add_layer_norm_reads(const td_kargs *a)
{
    (void)a;
    return 4 | 8;
}

/* ---- gradient: g, x, w?, mean, rstd, more? -> gx, gw, gb ---- */

typedef struct {
    const float *g, *x, *w, *mean, *rstd, *more; /* more: what is added to gx, or NULL */
    float *gx;
    int64_t n, d;
} gradient;

/** n rows from row i on; adds to gw and gb. */
VEC_INLINE void gradient_rows(const int n, const gradient *p, int64_t i, float *restrict gw, float *restrict gb)
{
    const int64_t d = p->d;
    const float *restrict g = p->g + i * d, *restrict x = p->x + i * d, *restrict w = p->w;
    double sum[PAIR] = {0}, along[PAIR] = {0};
    float m[PAIR], s[PAIR];
    for (int r = 0; r < n; r++) m[r] = p->mean[i + r], s[r] = p->rstd[i + r];
    for (int64_t at = 0; at < d; at += BLOCK) {
        int64_t end = d - at < BLOCK ? d : at + BLOCK, j = at;
        vec_f32 a[PAIR], b[PAIR];
#pragma GCC unroll 2
        for (int r = 0; r < n; r++) a[r] = b[r] = (vec_f32){0};
        for (; j + LANES <= end; j += LANES) {
            vec_f32 scale = (vec_f32){0} + 1.0f, to_w = load(gw + j), to_b = load(gb + j);
            if (w) scale = load(w + j);
#pragma GCC unroll 2
            for (int r = 0; r < n; r++) {
                vec_f32 v = load(g + r * d + j), t = load(x + r * d + j) - m[r], h = v * scale;
                a[r] += h;
                b[r] += h * t;
                to_b += v;
                to_w += v * (t * s[r]);
            }
            store(gw + j, to_w);
            store(gb + j, to_b);
        }
        for (int r = 0; r < n; r++) {
            float u = lanes(a[r]), v = lanes(b[r]);
            for (int64_t k = j; k < end; k++) {
                float q = g[r * d + k], t = x[r * d + k] - m[r], h = w ? w[k] * q : q;
                u += h;
                v += h * t;
                gb[k] += q;
                gw[k] += q * (t * s[r]);
            }
            sum[r] += (double)u;
            along[r] += (double)v;
        }
    }
    for (int r = 0; r < n; r++, g += d, x += d) {
        const float mean_h = (float)(sum[r] / (double)d), slope = (float)(along[r] / (double)d) * s[r] * s[r];
        float *restrict gx = p->gx + (i + r) * d;
        if (w)
            for (int64_t j = 0; j < d; j++) gx[j] = s[r] * (w[j] * g[j] - mean_h - (x[j] - m[r]) * slope);
        else
            for (int64_t j = 0; j < d; j++) gx[j] = s[r] * (g[j] - mean_h - (x[j] - m[r]) * slope);
        if (!p->more) continue;
        const float *restrict more = p->more + (i + r) * d;
        for (int64_t j = 0; j < d; j++) gx[j] += more[j];
    }
}

/** Rows from .. to; their sums into gw and gb, by way of room for 2 d floats. */
static void gradient_chunk(const gradient *p, int64_t from, int64_t to, double *gw, double *gb, float *room)
{
    memset(gw, 0, (size_t)p->d * sizeof *gw);
    memset(gb, 0, (size_t)p->d * sizeof *gb);
    for (int64_t run = from; run < to; run += RUN) {
        int64_t end = to - run < RUN ? to : run + RUN, i = run;
        memset(room, 0, (size_t)(2 * p->d) * sizeof *room);
        for (; i + PAIR <= end; i += PAIR) gradient_rows(PAIR, p, i, room, room + p->d);
        for (; i < end; i++) gradient_rows(1, p, i, room, room + p->d);
        for (int64_t j = 0; j < p->d; j++) {
            gw[j] += (double)room[j];
            gb[j] += (double)room[p->d + j];
        }
    }
}

static int64_t chunks_of(int64_t n)
{
    int64_t chunks = (n + CHUNK - 1) / CHUNK;
    return chunks < 1 ? 1 : chunks < MOST_CHUNKS ? chunks : MOST_CHUNKS;
}

static int64_t gradient_row_length(const td_kargs *a)
{
    return row_length(a->in[1], ((const td_layer_norm_backward_attr *)a->attr)->dims);
}

/* Of each chunk: sums for gw and gb, and room for those of a run. */
static bool plan_gradient(const td_kargs *a, void **plan, size_t *ws_size)
{
    int64_t d = gradient_row_length(a);
    *plan = NULL;
    *ws_size = (size_t)(chunks_of(td_view_numel(a->in[1]) / d) * 2 * d) * (sizeof(double) + sizeof(float));
    return true;
}

static bool run_layer_norm_backward(const td_kargs *a)
{
    const int64_t d = gradient_row_length(a), n = td_view_numel(a->in[1]) / d, chunks = chunks_of(n);
    const gradient p = {data(a->in[0]),
                        data(a->in[1]),
                        data(a->in[2]),
                        data(a->in[3]),
                        data(a->in[4]),
                        data(a->in[5]),
                        a->out[0]->p,
                        n,
                        d};
    double *sums = a->ws;
    float *room = (float *)(sums + chunks * 2 * d), *gw = a->out[1]->p, *gb = a->out[2]->p;
#pragma omp parallel for schedule(static) if (n * d > TD_PAR_MIN)
    for (int64_t c = 0; c < chunks; c++)
        gradient_chunk(&p, n * c / chunks, n * (c + 1) / chunks, sums + c * 2 * d, sums + c * 2 * d + d,
                       room + c * 2 * d);
    for (int64_t c = 1; c < chunks; c++)
        for (int64_t j = 0; j < 2 * d; j++) sums[j] += sums[c * 2 * d + j];
    for (int64_t j = 0; j < d; j++) {
        gw[j] = (float)sums[j];
        gb[j] = (float)sums[d + j];
    }
    return true;
}

static const td_kernel rows[] = {
    CPU_KERNEL("layer_norm", TD_BIT(TD_F32), 0, run_layer_norm, .again = again_layer_norm,
               .again_reads = again_layer_norm_reads),
    CPU_KERNEL("add_layer_norm", TD_BIT(TD_F32), 0, run_add_layer_norm, .again = again_add_layer_norm,
               .again_reads = again_add_layer_norm_reads),
    CPU_KERNEL("layer_norm_backward", TD_BIT(TD_F32), 0, run_layer_norm_backward, .plan = plan_gradient),
};
CPU_TABLE(norm, rows)

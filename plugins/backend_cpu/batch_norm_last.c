/* batch_norm_last.c - batch_norm, its gradient and batch_norm_infer for images whose channels are innermost, f32; the formulas are
 * those of batch_norm.c. x is (rows, c), a row a pixel. Sums run in f32 over BLOCK rows, then in f64 over a chunk, then over the
 * chunks in order, of which there are as many for any number of threads. Memory is read once for mean and variance: a block's
 * squares are taken around k, the mean of its first 4 rows, and sum x^2 = sum (x - k)^2 + k (2 sum (x - k) + n k) in f64.
 * 4 (k - m)^2 is at most the block's sum of (x - m)^2, m its own mean, so what is rounded is at most 9 times that sum. */
#include "cpu.h"
#include "vec.h"
#include <math.h>
#include <omp.h>
#include <string.h>

enum { BLOCK = 64, CHUNK = 16384, MOST_CHUNKS = 64, WIDE = 64, TILE = 512, VECTORS = 5 };

typedef struct {
    int64_t rows, c, chunks;
} pixels;

static pixels pixels_of(const td_view *x)
{
    pixels s = {td_view_numel(x) / x->dim[1], x->dim[1], 0};
    int64_t n = s.rows * s.c / CHUNK, most = s.rows / (BLOCK / 2); /* of CHUNK elements, of some rows at least */
    n = n < most ? n : most;
    s.chunks = n < 1 ? 1 : n < MOST_CHUNKS ? n : MOST_CHUNKS;
    return s;
}

static int64_t chunk_row(const pixels *s, int64_t i) { return i * s->rows / s->chunks; }
static float at(const td_view *v, int64_t i, float absent)
{
    return v ? ((const float *)v->p)[i * v->stride[0]] : absent;
}
static int threads_for(const pixels *s) { return s->rows * s->c > TD_PAR_MIN ? cpu_threads() : 1; }

/** Rows that are taken as one where c is small, so that loops over them are worth their beginning and end. */
static int64_t at_once(const pixels *s) { return s->c < WIDE ? WIDE / s->c : 1; }

/** v[0 .. c) again and again, at_once times. */
static void repeat(float *v, const pixels *s)
{
    for (int64_t j = s->c; j < at_once(s) * s->c; j++) v[j] = v[j - s->c];
}

/* ---- sums of columns: what is summed at an element is chosen when this is compiled ---- */

typedef enum { MOMENTS, GRADIENTS, PASSED, PASSED_ADDED } summed;

/** Rows whose columns are summed; for gradients what h is made of, and gr where r was added. The vectors are repeated. */
typedef struct {
    const float *x, *g, *r, *mean, *scale, *shift;
    float *gr;
} operands;

/* The functions below take n <= BLOCK rows of w <= TILE columns, of which one begins c elements after the other. Four rows are
 * added at once, for sums that lie in memory wait for their last store. */

/** a[j] += sum of x, b[j] += sum of x^2. */
static void moments(double *restrict a, double *restrict b, const float *x, int64_t c, int64_t n, int64_t w)
{
    float s[TILE] = {0}, q[TILE] = {0}, k[TILE];
    int64_t i = 0;
    for (int64_t j = 0; j < w; j++) k[j] = n < 4 ? x[j] : ((x[j] + x[c + j]) + (x[2 * c + j] + x[3 * c + j])) * 0.25f;
    for (; i + 4 <= n; i += 4, x += 4 * c) {
#pragma omp simd
        for (int64_t j = 0; j < w; j++) {
            float d0 = x[j] - k[j], d1 = x[c + j] - k[j], d2 = x[2 * c + j] - k[j], d3 = x[3 * c + j] - k[j];
            s[j] += (d0 + d1) + (d2 + d3);
            q[j] += (d0 * d0 + d1 * d1) + (d2 * d2 + d3 * d3);
        }
    }
    for (; i < n; i++, x += c) {
#pragma omp simd
        for (int64_t j = 0; j < w; j++) {
            float d = x[j] - k[j];
            s[j] += d;
            q[j] += d * d;
        }
    }
#pragma omp simd
    for (int64_t j = 0; j < w; j++) {
        double sum = (double)s[j], m = (double)k[j], nm = (double)n * m;
        a[j] += sum + nm;
        b[j] += (double)q[j] + m * (2 * sum + nm);
    }
}

/** h of element i in column j, which goes to gr where r was added, and d = x - mean. */
VEC_INLINE float slope_at(const summed what, const operands *o, int64_t i, int64_t j, float *d)
{
    float h = o->g[i];
    *d = o->x[i] - o->mean[j];
    if (what >= PASSED) {
        float z = *d * o->scale[j] + o->shift[j];
        if (what == PASSED_ADDED) z += o->r[i];
        h = z <= 0 ? 0 : h;
    }
    if (what == PASSED_ADDED) o->gr[i] = h;
    return h;
}

/** a[j] += sum of h, b[j] += sum of h (x - mean), of rows that begin at element `at`, in column `first`. */
VEC_INLINE void products(const summed what, double *restrict a, double *restrict b, const operands *from, int64_t at,
                         int64_t first, int64_t c, int64_t n, int64_t w)
{
    const operands o = *from;
    float s[TILE] = {0}, t[TILE] = {0};
    int64_t i = 0;
    for (; i + 4 <= n; i += 4, at += 4 * c) {
#pragma omp simd
        for (int64_t j = 0; j < w; j++) {
            float d0, d1, d2, d3;
            float h0 = slope_at(what, &o, at + j, first + j, &d0);
            float h1 = slope_at(what, &o, at + c + j, first + j, &d1);
            float h2 = slope_at(what, &o, at + 2 * c + j, first + j, &d2);
            float h3 = slope_at(what, &o, at + 3 * c + j, first + j, &d3);
            s[j] += (h0 + h1) + (h2 + h3);
            t[j] += (h0 * d0 + h1 * d1) + (h2 * d2 + h3 * d3);
        }
    }
    for (; i < n; i++, at += c) {
#pragma omp simd
        for (int64_t j = 0; j < w; j++) {
            float d, h = slope_at(what, &o, at + j, first + j, &d);
            s[j] += h;
            t[j] += h * d;
        }
    }
#pragma omp simd
    for (int64_t j = 0; j < w; j++) {
        a[j] += (double)s[j];
        b[j] += (double)t[j];
    }
}

/** The sums of `rows` rows of c columns from row r on: a[0 .. c), b[0 .. c). */
VEC_INLINE void columns(const summed what, double *a, double *b, const operands *o, int64_t c, int64_t at, int64_t rows)
{
    for (int64_t r = 0; r < rows; r += BLOCK) {
        int64_t n = rows - r < BLOCK ? rows - r : BLOCK;
        for (int64_t j = 0; j < c; j += TILE) {
            int64_t i = at + r * c + j, w = c - j < TILE ? c - j : TILE;
            if (what == MOMENTS) moments(a + j, b + j, o->x + i, c, n, w);
            else products(what, a + j, b + j, o, i, j, c, n, w);
        }
    }
}

/** The sums of each chunk, by the threads of a team: of x or h into parts[0 .. c), of x^2 or h (x - mean) into parts[c .. 2c). */
VEC_INLINE void all_columns(const summed what, double *parts, const pixels *s, const operands *o)
{
    int64_t c = s->c, k = at_once(s);
#pragma omp for schedule(static)
    for (int64_t i = 0; i < s->chunks; i++) {
        int64_t r = chunk_row(s, i), rows = chunk_row(s, i + 1) - r;
        double *a = parts + i * 2 * c, wide[2 * WIDE] = {0};
        memset(a, 0, (size_t)(2 * c) * sizeof *a);
        if (k > 1) columns(what, wide, wide + WIDE, o, k * c, r * c, rows / k);
        for (int64_t j = 0; k > 1 && j < k * c; j++) {
            a[j % c] += wide[j];
            a[c + j % c] += wide[WIDE + j];
        }
        int64_t left = k > 1 ? rows % k : rows;
        columns(what, a, a + c, o, c, (r + rows - left) * c, left);
    }
}

static void sum_moments(double *p, const pixels *s, const operands *o) { all_columns(MOMENTS, p, s, o); }
static void sum_gradients(double *p, const pixels *s, const operands *o) { all_columns(GRADIENTS, p, s, o); }
static void sum_passed(double *p, const pixels *s, const operands *o) { all_columns(PASSED, p, s, o); }
static void sum_passed_added(double *p, const pixels *s, const operands *o) { all_columns(PASSED_ADDED, p, s, o); }

/** Both sums of all rows, columns j .. end - 1, into those of the first chunk. */
static void join_chunks(double *parts, const pixels *s, int64_t j, int64_t end)
{
    for (int64_t i = 1; i < s->chunks; i++) {
        const double *part = parts + i * 2 * s->c;
        for (int64_t k = j; k < end; k++) parts[k] += part[k];
        for (int64_t k = s->c + j; k < s->c + end; k++) parts[k] += part[k];
    }
}

/* ---- results: each thread of a team takes rows it summed, from the last on, for those are still in its cache ---- */

/** Elements first .. last - 1 are the calling thread's next, step of them, where it has done those from `last` on. */
typedef struct {
    int64_t from, first, last, step;
} share;

static share share_of(const pixels *s)
{
    int64_t t = omp_get_thread_num(), n = omp_get_num_threads(), row = at_once(s) * s->c;
    int64_t end = (t + 1) * s->rows / n * s->c;
    return (share){t * s->rows / n * s->c, end, end, (row < CHUNK ? CHUNK / row : 1) * row};
}

static bool next_piece(share *p)
{
    p->last = p->first;
    p->first = p->last - p->step > p->from ? p->last - p->step : p->from;
    return p->first < p->last;
}

/** y = act((x - mean) scale + shift + r), the three rows repeated. */
VEC_INLINE void rows_done(const bool relu, const bool added, float *restrict y, const pixels *s, const operands *o)
{
    int64_t wide = at_once(s) * s->c;
    const float *restrict x = o->x, *restrict r = o->r;
    const float *restrict mean = o->mean, *restrict scale = o->scale, *restrict shift = o->shift;
    for (share p = share_of(s); next_piece(&p);)
        for (int64_t i = p.first; i < p.last; i += wide) {
            int64_t n = p.last - i < wide ? p.last - i : wide;
            for (int64_t j = 0; j < n; j++) {
                float z = (x[i + j] - mean[j]) * scale[j] + shift[j];
                if (added) z += r[i + j];
                y[i + j] = relu && z <= 0 ? 0 : z;
            }
        }
}

static void plain_rows(float *y, const pixels *s, const operands *o) { rows_done(false, false, y, s, o); }
static void added_rows(float *y, const pixels *s, const operands *o) { rows_done(false, true, y, s, o); }
static void relu_rows(float *y, const pixels *s, const operands *o) { rows_done(true, false, y, s, o); }
static void added_relu_rows(float *y, const pixels *s, const operands *o) { rows_done(true, true, y, s, o); }

/** The one place where results are made, so that batch_norm_apply gives the bits of batch_norm. */
static void normalise(bool relu, float *y, const pixels *s, const operands *o)
{
    if (relu) (o->r ? added_relu_rows : relu_rows)(y, s, o);
    else (o->r ? added_rows : plain_rows)(y, s, o);
}

/** gx = scale (h - mean_h - (x - mean) slope), likewise; h is g, or 0 where z <= 0. */
VEC_INLINE void slopes(const bool relu, float *restrict gx, const float *restrict g, const pixels *s, const operands *o,
                       const float *restrict mean_h, const float *restrict slope)
{
    int64_t wide = at_once(s) * s->c;
    const float *restrict x = o->x, *restrict mean = o->mean, *restrict scale = o->scale, *restrict shift = o->shift;
    for (share p = share_of(s); next_piece(&p);)
        for (int64_t i = p.first; i < p.last; i += wide) {
            int64_t n = p.last - i < wide ? p.last - i : wide;
            for (int64_t j = 0; j < n; j++) {
                float d = x[i + j] - mean[j], h = g[i + j];
                if (relu && d * scale[j] + shift[j] <= 0) h = 0;
                gx[i + j] = scale[j] * (h - mean_h[j] - d * slope[j]);
            }
        }
}

static void plain_slopes(float *gx, const float *g, const pixels *s, const operands *o, const float *mean_h,
                         const float *slope)
{
    slopes(false, gx, g, s, o, mean_h, slope);
}

static void relu_slopes(float *gx, const float *g, const pixels *s, const operands *o, const float *mean_h,
                        const float *slope)
{
    slopes(true, gx, g, s, o, mean_h, slope);
}

/* ---- the kernels ---- */

/* Workspace: the chunks' sums, then VECTORS rows of c floats, repeated. */
static bool plan(const td_kargs *a, void **p, size_t *ws_size)
{
    pixels s = pixels_of(a->in[0]);
    (void)p;
    *ws_size = (size_t)(s.chunks * 2 * s.c) * sizeof(double) + (size_t)(VECTORS * at_once(&s) * s.c) * sizeof(float);
    return true;
}

/** Row i of those vectors. */
static float *vector(const td_kargs *a, const pixels *s, int i)
{
    return (float *)((double *)a->ws + s->chunks * 2 * s->c) + i * at_once(s) * s->c;
}

static bool channels_last(const td_view *v)
{
    return v->nd == 4 && v->dim[1] > 1 && v->stride[1] == 1 && v->stride[3] == v->dim[1] &&
           v->stride[2] == v->dim[3] * v->stride[3] && v->stride[0] == v->dim[2] * v->stride[2] && td_view_numel(v);
}

/** mean, scale and shift of columns j .. end - 1, where the sums of the chunks are known. */
static void statistics(const td_kargs *a, const pixels *s, int64_t j, int64_t end)
{
    double *sums = a->ws, eps = ((const td_batch_norm_attr *)a->attr)->eps;
    float *mean = vector(a, s, 0), *scale = vector(a, s, 1), *shift = vector(a, s, 2);
    join_chunks(sums, s, j, end);
    for (; j < end; j++) {
        double m = sums[j] / (double)s->rows, var = sums[s->c + j] / (double)s->rows - m * m;
        float rstd = (float)(1 / sqrt((var > 0 ? var : 0) + eps));
        mean[j] = (float)m;
        scale[j] = at(a->in[1], j, 1) * rstd;
        shift[j] = at(a->in[2], j, 0);
        ((float *)a->out[1]->p)[j] = mean[j];
        ((float *)a->out[2]->p)[j] = rstd;
    }
    for (int i = 0; i < 3 && s->c < WIDE; i++) repeat(vector(a, s, i), s);
}

/** End of the columns from j on that one thread finishes: all of them where vectors are repeated. */
static int64_t end_of(const pixels *s, int64_t j) { return j + WIDE < s->c ? j + WIDE : s->c; }

static bool run_batch_norm(const td_kargs *a)
{
    const td_batch_norm_attr *attr = a->attr;
    pixels s = pixels_of(a->in[0]);
    operands o = {.x = a->in[0]->p,
                  .r = a->in[3] ? a->in[3]->p : NULL,
                  .mean = vector(a, &s, 0),
                  .scale = vector(a, &s, 1),
                  .shift = vector(a, &s, 2)};
#pragma omp parallel num_threads(threads_for(&s))
    {
        sum_moments(a->ws, &s, &o);
#pragma omp for schedule(static)
        for (int64_t j = 0; j < s.c; j += WIDE) statistics(a, &s, j, end_of(&s, j));
        normalise(attr->activation == TD_BATCH_NORM_RELU, a->out[0]->p, &s, &o);
    }
    return true;
}

/** The gradients of w and b, columns j .. end - 1, and what that of x is made of. */
static void slope_sums(const td_kargs *a, const pixels *s, int64_t j, int64_t end)
{
    double *sums = a->ws;
    float *mean_h = vector(a, s, 3), *slope = vector(a, s, 4);
    join_chunks(sums, s, j, end);
    for (; j < end; j++) {
        float rstd = at(a->in[6], j, 0);
        double gb = sums[j], gw = sums[s->c + j] * (double)rstd;
        mean_h[j] = (float)(gb / (double)s->rows);
        slope[j] = (float)(gw / (double)s->rows) * rstd;
        ((float *)a->out[1]->p)[j] = (float)gw;
        ((float *)a->out[2]->p)[j] = (float)gb;
    }
    for (int i = 3; i < VECTORS && s->c < WIDE; i++) repeat(vector(a, s, i), s);
}

/** in: g, x, w?, b?, r?, mean, rstd   out: gx, gw, gb, gr */
static bool run_batch_norm_backward(const td_kargs *a)
{
    bool relu = ((const td_batch_norm_backward_attr *)a->attr)->activation == TD_BATCH_NORM_BACKWARD_RELU;
    pixels s = pixels_of(a->in[1]);
    float *mean = vector(a, &s, 0), *scale = vector(a, &s, 1), *shift = vector(a, &s, 2), *mean_h = vector(a, &s, 3),
          *slope = vector(a, &s, 4);
    bool added = relu && a->in[4];
    operands o = {.x = a->in[1]->p,
                  .g = a->in[0]->p,
                  .r = added ? a->in[4]->p : NULL,
                  .mean = mean,
                  .scale = scale,
                  .shift = shift,
                  .gr = a->out[3]->p};
    for (int64_t j = 0; j < s.c; j++) {
        mean[j] = at(a->in[5], j, 0);
        scale[j] = at(a->in[2], j, 1) * at(a->in[6], j, 0);
        shift[j] = at(a->in[3], j, 0);
    }
    for (int i = 0; i < 3; i++) repeat(vector(a, &s, i), &s);
#pragma omp parallel num_threads(threads_for(&s))
    {
        (added ? sum_passed_added : relu ? sum_passed : sum_gradients)(a->ws, &s, &o);
#pragma omp for schedule(static)
        for (int64_t j = 0; j < s.c; j += WIDE) slope_sums(a, &s, j, end_of(&s, j));
        if (relu && !added) relu_slopes(a->out[0]->p, o.g, &s, &o, mean_h, slope);
        else plain_slopes(a->out[0]->p, added ? o.gr : o.g, &s, &o, mean_h, slope);
    }
    return true;
}

/** in: x, mean, var or (eps NULL) rstd, w?, b?, r? */
static bool apply(const td_kargs *a, bool relu, const double *eps)
{
    pixels s = pixels_of(a->in[0]);
    float *mean = vector(a, &s, 0), *scale = vector(a, &s, 1), *shift = vector(a, &s, 2);
    for (int64_t j = 0; j < s.c; j++) {
        float spread = at(a->in[2], j, 1);
        mean[j] = at(a->in[1], j, 0);
        scale[j] = at(a->in[3], j, 1) * (eps ? (float)(1 / sqrt((double)spread + *eps)) : spread);
        shift[j] = at(a->in[4], j, 0);
    }
    for (int i = 0; i < 3; i++) repeat(vector(a, &s, i), &s);
    operands o = {.x = a->in[0]->p, .r = a->in[5] ? a->in[5]->p : NULL, .mean = mean, .scale = scale, .shift = shift};
#pragma omp parallel num_threads(threads_for(&s))
    normalise(relu, a->out[0]->p, &s, &o);
    return true;
}

static bool run_batch_norm_apply(const td_kargs *a)
{
    return apply(a, ((const td_batch_norm_apply_attr *)a->attr)->activation == TD_BATCH_NORM_APPLY_RELU, NULL);
}

static bool run_batch_norm_infer(const td_kargs *a)
{
    const td_batch_norm_infer_attr *o = a->attr;
    return apply(a, o->activation == TD_BATCH_NORM_INFER_RELU, &o->eps);
}

static bool or_absent(const td_view *v) { return !v || channels_last(v); }
static bool accepts_forward(const td_kargs *a) { return channels_last(a->in[0]) && or_absent(a->in[3]); }
static bool accepts_apply(const td_kargs *a) { return channels_last(a->in[0]) && or_absent(a->in[5]); }
static bool accepts_backward(const td_kargs *a)
{
    return channels_last(a->in[0]) && channels_last(a->in[1]) && or_absent(a->in[4]);
}

enum { BEFORE_NORM = 5 };
#define LAST(op, run_, accepts_) \
    CPU_KERNEL(op, TD_BIT(TD_F32), TD_K_STRIDED, run_, .priority = BEFORE_NORM, .accepts = accepts_, .plan = plan)

static const td_kernel rows[] = {
    LAST("batch_norm", run_batch_norm, accepts_forward),
    LAST("batch_norm_apply", run_batch_norm_apply, accepts_apply),
    LAST("batch_norm_backward", run_batch_norm_backward, accepts_backward),
    LAST("batch_norm_infer", run_batch_norm_infer, accepts_apply),
};
CPU_TABLE(batch_norm_last, rows)

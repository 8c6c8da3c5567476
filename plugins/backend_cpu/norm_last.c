/* norm_last.c - batch_norm, its gradient and batch_norm_infer for images whose channels are innermost, f32; the formulas are
 * those of batch_norm.c. x is (rows, c), a row a pixel. Sums run in f32 over BLOCK rows, then in f64 over a chunk, then over the
 * chunks in order, of which there are as many for any number of threads. Memory is read once for mean and variance: the squares
 * of a block are taken around its own mean m while it is in the cache, and sum x^2 = sum (x - m)^2 + m (2 sum x - n m) in f64. */
#include "cpu.h"
#include "vec.h"
#include <math.h>
#include <string.h>

enum { BLOCK = 32, CHUNK = 16384, MOST_CHUNKS = 64, LANES = VEC_F32, WIDE = 64, VECTORS = 5 };

typedef struct {
    int64_t rows, c, chunks;
} pixels;

static pixels pixels_of(const td_view *x)
{
    pixels s = {td_view_numel(x) / x->dim[1], x->dim[1], 0};
    int64_t n = s.rows * s.c / CHUNK, most = s.rows / BLOCK; /* pieces of CHUNK elements, of BLOCK rows at least */
    n = n < most ? n : most;
    s.chunks = n < 1 ? 1 : n < MOST_CHUNKS ? n : MOST_CHUNKS;
    return s;
}

static vec_f32 load(const float *p) { return *(const vec_f32 *)p; }
static int64_t chunk_row(const pixels *s, int64_t i) { return i * s->rows / s->chunks; }
static float at(const td_view *v, int64_t i, float absent)
{
    return v ? ((const float *)v->p)[i * v->stride[0]] : absent;
}
static int threads_for(const pixels *s) { return s->rows * s->c > TD_PAR_MIN ? cpu_threads() : 1; }

/* ---- sums of columns: what is summed at an element is chosen when this is compiled ---- */

typedef enum { MOMENTS, GRADIENTS, PASSED, PASSED_ADDED } summed;

/** Rows whose columns are summed; for gradients what h is made of, and gr where r was added. */
typedef struct {
    const float *x, *g, *r, *mean, *scale, *shift;
    float *gr;
} operands;

/** h where a relu was, from z = d scale + shift + r. */
VEC_INLINE vec_f32 passed(vec_f32 g, vec_f32 z) { return (vec_f32)((vec_i32)g & ~(vec_i32)(z <= 0)); }

/* The functions below take columns j .. j + vectors LANES of n rows from row r on, at once: whole lines of the cache, and sums
 * enough in flight. Two rows have sums of their own, for an addition takes longer than a load. */

/** a[j] += sum of x, b[j] += sum of x^2. */
VEC_INLINE void moments(const int vectors, double *a, double *b, const float *x, int64_t c, int64_t n)
{
    vec_f32 s[4], q[4], mean[4];
#pragma GCC unroll 4
    for (int v = 0; v < vectors; v++) {
        vec_f32 s0 = {0}, s1 = {0};
        int64_t i = 0;
        for (; i + 2 <= n; i += 2) {
            s0 += load(x + i * c + v * LANES);
            s1 += load(x + (i + 1) * c + v * LANES);
        }
        if (i < n) s0 += load(x + i * c + v * LANES);
        s[v] = s0 + s1;
        mean[v] = s[v] / (float)n;
    }
#pragma GCC unroll 4
    for (int v = 0; v < vectors; v++) {
        vec_f32 q0 = {0}, q1 = {0};
        int64_t i = 0;
        for (; i + 2 <= n; i += 2) {
            vec_f32 d0 = load(x + i * c + v * LANES) - mean[v], d1 = load(x + (i + 1) * c + v * LANES) - mean[v];
            q0 += d0 * d0;
            q1 += d1 * d1;
        }
        if (i < n) {
            vec_f32 d = load(x + i * c + v * LANES) - mean[v];
            q0 += d * d;
        }
        q[v] = q0 + q1;
    }
    for (int v = 0; v < vectors; v++) {
        float sums[LANES], squares[LANES], means[LANES];
        *(vec_f32 *)sums = s[v];
        *(vec_f32 *)squares = q[v];
        *(vec_f32 *)means = mean[v];
#pragma omp simd
        for (int l = 0; l < LANES; l++) {
            double sum = (double)sums[l], m = (double)means[l];
            a[v * LANES + l] += sum;
            b[v * LANES + l] += (double)squares[l] + m * (2 * sum - (double)n * m);
        }
    }
}

/** a[j] += sum of h, b[j] += sum of h (x - mean). */
VEC_INLINE void products(const summed what, const int vectors, double *a, double *b, const operands *o, int64_t c,
                         int64_t at, int64_t j, int64_t n)
{
    const bool relu = what >= PASSED, added = what == PASSED_ADDED;
    const float *x = o->x + at, *g = o->g + at, *r = added ? o->r + at : NULL;
    float *to = added ? o->gr + at : NULL;
#pragma GCC unroll 2
    for (int v = 0; v < vectors; v++, j += LANES, x += LANES, g += LANES) {
        vec_f32 mean = load(o->mean + j), s0 = {0}, s1 = {0}, t0 = {0}, t1 = {0};
        vec_f32 scale = relu ? load(o->scale + j) : mean, shift = relu ? load(o->shift + j) : mean;
        for (int64_t i = 0; i < n; i += 2) {
            bool two = i + 1 < n;
            vec_f32 d0 = load(x + i * c) - mean, d1 = load(x + (i + two) * c) - mean;
            vec_f32 h0 = load(g + i * c), h1 = load(g + (i + two) * c);
            if (relu) {
                vec_f32 z0 = d0 * scale + shift, z1 = d1 * scale + shift;
                if (added) z0 += load(r + v * LANES + i * c), z1 += load(r + v * LANES + (i + two) * c);
                h0 = passed(h0, z0);
                h1 = passed(h1, z1);
            }
            if (added) {
                *(vec_f32 *)(to + v * LANES + i * c) = h0;
                *(vec_f32 *)(to + v * LANES + (i + two) * c) = h1;
            }
            if (!two) h1 = (vec_f32){0};
            s0 += h0;
            s1 += h1;
            t0 += h0 * d0;
            t1 += h1 * d1;
        }
        float s[LANES], t[LANES];
        *(vec_f32 *)s = s0 + s1;
        *(vec_f32 *)t = t0 + t1;
#pragma omp simd
        for (int l = 0; l < LANES; l++) {
            a[v * LANES + l] += (double)s[l];
            b[v * LANES + l] += (double)t[l];
        }
    }
}

/** The columns that fill no vector. */
VEC_INLINE void last_columns(const summed what, double *a, double *b, const operands *o, int64_t c, int64_t r,
                             int64_t n, int64_t j)
{
    for (; j < c; j++)
        for (int64_t i = r; i < r + n; i++) {
            float x = o->x[i * c + j];
            if (what == MOMENTS) {
                a[j] += (double)x;
                b[j] += (double)x * (double)x;
                continue;
            }
            float d = x - o->mean[j], h = o->g[i * c + j];
            if (what >= PASSED && d * o->scale[j] + o->shift[j] + (what == PASSED_ADDED ? o->r[i * c + j] : 0) <= 0)
                h = 0;
            if (what == PASSED_ADDED) o->gr[i * c + j] = h;
            a[j] += (double)h;
            b[j] += (double)(h * d);
        }
}

VEC_INLINE void columns(const summed what, double *a, double *b, const operands *o, int64_t c, int64_t first,
                        int64_t rows)
{
    for (int64_t r = first; r < first + rows; r += BLOCK) {
        int64_t n = first + rows - r < BLOCK ? first + rows - r : BLOCK, j = 0;
        if (what == MOMENTS) {
            for (; j + 2 * LANES <= c; j += 2 * LANES) moments(2, a + j, b + j, o->x + r * c + j, c, n);
            for (; j + LANES <= c; j += LANES) moments(1, a + j, b + j, o->x + r * c + j, c, n);
        } else {
            for (; j + 2 * LANES <= c; j += 2 * LANES) products(what, 2, a + j, b + j, o, c, r * c + j, j, n);
            for (; j + LANES <= c; j += LANES) products(what, 1, a + j, b + j, o, c, r * c + j, j, n);
        }
        last_columns(what, a, b, o, c, r, n, j);
    }
}

/** The sums of all rows into parts[0 .. c), of x^2 or h (x - mean) into parts[c .. 2c). */
VEC_INLINE void all_columns(const summed what, double *parts, const pixels *s, const operands *o)
{
    int64_t width = 2 * s->c;
#pragma omp parallel for num_threads(threads_for(s)) schedule(static)
    for (int64_t i = 0; i < s->chunks; i++) {
        int64_t r = chunk_row(s, i);
        double *a = parts + i * width;
        memset(a, 0, (size_t)width * sizeof *a);
        columns(what, a, a + s->c, o, s->c, r, chunk_row(s, i + 1) - r);
    }
    for (int64_t i = 1; i < s->chunks; i++)
        for (int64_t j = 0; j < width; j++) parts[j] += parts[i * width + j];
}

static void sum_moments(double *p, const pixels *s, const operands *o) { all_columns(MOMENTS, p, s, o); }
static void sum_gradients(double *p, const pixels *s, const operands *o) { all_columns(GRADIENTS, p, s, o); }
static void sum_passed(double *p, const pixels *s, const operands *o) { all_columns(PASSED, p, s, o); }
static void sum_passed_added(double *p, const pixels *s, const operands *o) { all_columns(PASSED_ADDED, p, s, o); }

/** Rows that are written as one where c is small, so that loops over them are worth their beginning and end. */
static int64_t at_once(const pixels *s) { return s->c < WIDE ? WIDE / s->c : 1; }

/** v[0 .. c) again and again, at_once times. */
static void repeat(float *v, const pixels *s)
{
    for (int64_t j = s->c; j < at_once(s) * s->c; j++) v[j] = v[j - s->c];
}

/** y = act((x - mean) scale + shift + r), the three rows repeated. */
VEC_INLINE void rows_done(const bool relu, const bool added, float *restrict y, const pixels *s, const operands *o)
{
    int64_t wide = at_once(s) * s->c, all = s->rows * s->c;
    const float *restrict x = o->x, *restrict r = o->r;
    const float *restrict mean = o->mean, *restrict scale = o->scale, *restrict shift = o->shift;
#pragma omp parallel for num_threads(threads_for(s)) schedule(static)
    for (int64_t i = 0; i < all; i += wide) {
        int64_t n = all - i < wide ? all - i : wide;
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
    int64_t wide = at_once(s) * s->c, all = s->rows * s->c;
    const float *restrict x = o->x, *restrict mean = o->mean, *restrict scale = o->scale, *restrict shift = o->shift;
#pragma omp parallel for num_threads(threads_for(s)) schedule(static)
    for (int64_t i = 0; i < all; i += wide) {
        int64_t n = all - i < wide ? all - i : wide;
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

static bool run_batch_norm(const td_kargs *a)
{
    const td_batch_norm_attr *attr = a->attr;
    double *sums = a->ws;
    pixels s = pixels_of(a->in[0]);
    float *mean = vector(a, &s, 0), *scale = vector(a, &s, 1), *shift = vector(a, &s, 2);
    operands o = {.x = a->in[0]->p, .r = a->in[3] ? a->in[3]->p : NULL, .mean = mean, .scale = scale, .shift = shift};
    sum_moments(sums, &s, &o);
    for (int64_t j = 0; j < s.c; j++) {
        double m = sums[j] / (double)s.rows, var = sums[s.c + j] / (double)s.rows - m * m;
        float rstd = (float)(1 / sqrt((var > 0 ? var : 0) + attr->eps));
        mean[j] = (float)m;
        scale[j] = at(a->in[1], j, 1) * rstd;
        shift[j] = at(a->in[2], j, 0);
        ((float *)a->out[1]->p)[j] = mean[j];
        ((float *)a->out[2]->p)[j] = rstd;
    }
    for (int i = 0; i < 3; i++) repeat(vector(a, &s, i), &s);
    normalise(attr->activation == TD_BATCH_NORM_RELU, a->out[0]->p, &s, &o);
    return true;
}

/** in: g, x, w?, b?, r?, mean, rstd   out: gx, gw, gb, gr */
static bool run_batch_norm_backward(const td_kargs *a)
{
    bool relu = ((const td_batch_norm_backward_attr *)a->attr)->activation == TD_BATCH_NORM_BACKWARD_RELU;
    double *sums = a->ws;
    pixels s = pixels_of(a->in[1]);
    float *mean = vector(a, &s, 0), *scale = vector(a, &s, 1), *mean_h = vector(a, &s, 2), *slope = vector(a, &s, 3),
          *shift = vector(a, &s, 4);
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
    (added ? sum_passed_added : relu ? sum_passed : sum_gradients)(sums, &s, &o);
    for (int64_t j = 0; j < s.c; j++) {
        float rstd = at(a->in[6], j, 0);
        double gb = sums[j], gw = sums[s.c + j] * (double)rstd;
        mean_h[j] = (float)(gb / (double)s.rows);
        slope[j] = (float)(gw / (double)s.rows) * rstd;
        ((float *)a->out[1]->p)[j] = (float)gw;
        ((float *)a->out[2]->p)[j] = (float)gb;
    }
    for (int i = 0; i < VECTORS; i++) repeat(vector(a, &s, i), &s);
    if (relu && !added) relu_slopes(a->out[0]->p, o.g, &s, &o, mean_h, slope);
    else plain_slopes(a->out[0]->p, added ? o.gr : o.g, &s, &o, mean_h, slope);
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
    normalise(relu, a->out[0]->p, &s,
              &(operands){
                  .x = a->in[0]->p, .r = a->in[5] ? a->in[5]->p : NULL, .mean = mean, .scale = scale, .shift = shift});
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
CPU_TABLE(norm_last, rows)

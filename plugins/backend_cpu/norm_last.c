/* norm_last.c - batch_norm, its gradient and batch_norm_infer for images whose channels are innermost, f32; the formulas are
 * those of batch_norm.c. x is (rows, c), a row a pixel. Sums run in f32 over BLOCK rows, then in f64 over a chunk, then over the
 * chunks in order, of which there are as many for any number of threads. */
#include "cpu.h"
#include "vec.h"
#include <math.h>
#include <string.h>

enum { BLOCK = 64, CHUNK = 1024, MOST_CHUNKS = 64, LANES = VEC_F32, WIDE = 64, VECTORS = 4 };

typedef struct {
    int64_t rows, c, chunks;
} pixels;

static pixels pixels_of(const td_view *x)
{
    pixels s = {td_view_numel(x) / x->dim[1], x->dim[1], 0};
    s.chunks = s.rows < CHUNK ? 1 : s.rows / CHUNK < MOST_CHUNKS ? s.rows / CHUNK : MOST_CHUNKS;
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

typedef enum { VALUES, SQUARES, GRADIENTS } summed;

/** a[j] += sum over rows of x, (x - m)^2 or g;  b[j] += sum of g (x - m). */
VEC_INLINE void columns(const summed what, double *a, double *b, const float *x, const float *g, const float *m,
                        int64_t c, int64_t rows)
{
    for (int64_t r = 0; r < rows; r += BLOCK) {
        int64_t n = rows - r < BLOCK ? rows - r : BLOCK, j = 0;
        for (; j + LANES <= c; j += LANES) {
            const float *p = x + r * c + j, *q = what == GRADIENTS ? g + r * c + j : NULL;
            vec_f32 mean = what == VALUES ? (vec_f32){0} : load(m + j), s0 = {0}, s1 = {0}, t0 = {0}, t1 = {0};
            for (int64_t i = 0; i < n; i += 2) { /* two sums, for an addition takes longer than a load */
                bool two = i + 1 < n;
                vec_f32 d0 = load(p + i * c) - mean, d1 = load(p + (i + two) * c) - mean;
                if (!two) d1 = (vec_f32){0};
                if (what == GRADIENTS) {
                    vec_f32 g0 = load(q + i * c), g1 = load(q + (i + two) * c);
                    if (!two) g1 = (vec_f32){0};
                    s0 += g0;
                    s1 += g1;
                    t0 += g0 * d0;
                    t1 += g1 * d1;
                } else {
                    if (what == SQUARES) d0 *= d0, d1 *= d1;
                    s0 += d0;
                    s1 += d1;
                }
            }
            for (int l = 0; l < LANES; l++) {
                a[j + l] += (double)s0[l] + (double)s1[l];
                if (what == GRADIENTS) b[j + l] += (double)t0[l] + (double)t1[l];
            }
        }
        for (; j < c; j++)
            for (int64_t i = r; i < r + n; i++) {
                float d = x[i * c + j] - (what == VALUES ? 0 : m[j]);
                a[j] += (double)(what == GRADIENTS ? g[i * c + j] : what == SQUARES ? d * d : d);
                if (what == GRADIENTS) b[j] += (double)(g[i * c + j] * d);
            }
    }
}

/** The sums of all rows into parts[0 .. c), and of g (x - m) into parts[c .. 2c). */
VEC_INLINE void all_columns(const summed what, double *parts, const pixels *s, const float *x, const float *g,
                            const float *m)
{
    int64_t width = 2 * s->c;
#pragma omp parallel for num_threads(threads_for(s)) schedule(static)
    for (int64_t i = 0; i < s->chunks; i++) {
        int64_t r = chunk_row(s, i);
        double *a = parts + i * width;
        memset(a, 0, (size_t)width * sizeof *a);
        columns(what, a, a + s->c, x + r * s->c, g ? g + r * s->c : NULL, m, s->c, chunk_row(s, i + 1) - r);
    }
    for (int64_t i = 1; i < s->chunks; i++)
        for (int64_t j = 0; j < width; j++) parts[j] += parts[i * width + j];
}

static void sum_values(double *p, const pixels *s, const float *x) { all_columns(VALUES, p, s, x, NULL, NULL); }
static void sum_squares(double *p, const pixels *s, const float *x, const float *m)
{
    all_columns(SQUARES, p, s, x, NULL, m);
}
static void sum_gradients(double *p, const pixels *s, const float *x, const float *g, const float *m)
{
    all_columns(GRADIENTS, p, s, x, g, m);
}

/** Rows that are written as one where c is small, so that loops over them are worth their beginning and end. */
static int64_t at_once(const pixels *s) { return s->c < WIDE ? WIDE / s->c : 1; }

/** v[0 .. c) again and again, at_once times. */
static void repeat(float *v, const pixels *s)
{
    for (int64_t j = s->c; j < at_once(s) * s->c; j++) v[j] = v[j - s->c];
}

/** y = (x - mean) scale + shift, the three rows repeated. */
static void normalise(float *restrict y, const float *restrict x, const pixels *s, const float *restrict mean,
                      const float *restrict scale, const float *restrict shift)
{
    int64_t wide = at_once(s) * s->c, all = s->rows * s->c;
#pragma omp parallel for num_threads(threads_for(s)) schedule(static)
    for (int64_t i = 0; i < all; i += wide) {
        int64_t n = all - i < wide ? all - i : wide;
        for (int64_t j = 0; j < n; j++) y[i + j] = (x[i + j] - mean[j]) * scale[j] + shift[j];
    }
}

/** gx = scale (g - mean_g - (x - mean) slope), likewise. */
static void normalise_backward(float *restrict gx, const float *restrict g, const float *restrict x, const pixels *s,
                               const float *restrict mean, const float *restrict scale, const float *restrict mean_g,
                               const float *restrict slope)
{
    int64_t wide = at_once(s) * s->c, all = s->rows * s->c;
#pragma omp parallel for num_threads(threads_for(s)) schedule(static)
    for (int64_t i = 0; i < all; i += wide) {
        int64_t n = all - i < wide ? all - i : wide;
        for (int64_t j = 0; j < n; j++) gx[i + j] = scale[j] * (g[i + j] - mean_g[j] - (x[i + j] - mean[j]) * slope[j]);
    }
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
    double eps = ((const td_batch_norm_attr *)a->attr)->eps, *sums = a->ws;
    pixels s = pixels_of(a->in[0]);
    float *mean = vector(a, &s, 0), *scale = vector(a, &s, 1), *shift = vector(a, &s, 2);
    const float *x = a->in[0]->p;
    sum_values(sums, &s, x);
    for (int64_t j = 0; j < s.c; j++) mean[j] = (float)(sums[j] / (double)s.rows);
    sum_squares(sums, &s, x, mean);
    for (int64_t j = 0; j < s.c; j++) {
        float rstd = (float)(1 / sqrt(sums[j] / (double)s.rows + eps));
        scale[j] = at(a->in[1], j, 1) * rstd;
        shift[j] = at(a->in[2], j, 0);
        ((float *)a->out[1]->p)[j] = mean[j];
        ((float *)a->out[2]->p)[j] = rstd;
    }
    for (int i = 0; i < 3; i++) repeat(vector(a, &s, i), &s);
    normalise(a->out[0]->p, x, &s, mean, scale, shift);
    return true;
}

/** in: g, x, w?, mean, rstd   out: gx, gw, gb */
static bool run_batch_norm_backward(const td_kargs *a)
{
    double *sums = a->ws;
    pixels s = pixels_of(a->in[1]);
    float *mean = vector(a, &s, 0), *scale = vector(a, &s, 1), *mean_g = vector(a, &s, 2), *slope = vector(a, &s, 3);
    const float *g = a->in[0]->p, *x = a->in[1]->p;
    for (int64_t j = 0; j < s.c; j++) mean[j] = at(a->in[3], j, 0);
    sum_gradients(sums, &s, x, g, mean);
    for (int64_t j = 0; j < s.c; j++) {
        float rstd = at(a->in[4], j, 0);
        double gb = sums[j], gw = sums[s.c + j] * (double)rstd;
        scale[j] = at(a->in[2], j, 1) * rstd;
        mean_g[j] = (float)(gb / (double)s.rows);
        slope[j] = (float)(gw / (double)s.rows) * rstd;
        ((float *)a->out[1]->p)[j] = (float)gw;
        ((float *)a->out[2]->p)[j] = (float)gb;
    }
    for (int i = 0; i < VECTORS; i++) repeat(vector(a, &s, i), &s);
    normalise_backward(a->out[0]->p, g, x, &s, mean, scale, mean_g, slope);
    return true;
}

/** in: x, mean, var, w?, b? */
static bool run_batch_norm_infer(const td_kargs *a)
{
    double eps = ((const td_batch_norm_infer_attr *)a->attr)->eps;
    pixels s = pixels_of(a->in[0]);
    float *mean = vector(a, &s, 0), *scale = vector(a, &s, 1), *shift = vector(a, &s, 2);
    for (int64_t j = 0; j < s.c; j++) {
        mean[j] = at(a->in[1], j, 0);
        scale[j] = at(a->in[3], j, 1) * (float)(1 / sqrt((double)at(a->in[2], j, 0) + eps));
        shift[j] = at(a->in[4], j, 0);
    }
    for (int i = 0; i < 3; i++) repeat(vector(a, &s, i), &s);
    normalise(a->out[0]->p, a->in[0]->p, &s, mean, scale, shift);
    return true;
}

static bool accepts_first(const td_kargs *a) { return channels_last(a->in[0]); }
static bool accepts_both(const td_kargs *a) { return channels_last(a->in[0]) && channels_last(a->in[1]); }

enum { BEFORE_NORM = 5 };
#define LAST(op, run_, accepts_) \
    CPU_KERNEL(op, TD_BIT(TD_F32), TD_K_STRIDED, run_, .priority = BEFORE_NORM, .accepts = accepts_, .plan = plan)

static const td_kernel rows[] = {
    LAST("batch_norm", run_batch_norm, accepts_first),
    LAST("batch_norm_backward", run_batch_norm_backward, accepts_both),
    LAST("batch_norm_infer", run_batch_norm_infer, accepts_first),
};
CPU_TABLE(norm_last, rows)

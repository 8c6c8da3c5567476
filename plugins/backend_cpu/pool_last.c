/* pool_last.c - max_pool2d avg_pool2d adaptive_avg_pool2d and the gradients of the first two for images whose channels are
 * innermost, f32; what they mean is in pool.c. A pixel is c numbers side by side, and windows are taken for PART channels at a
 * time, so that what is found of them stays in registers and cache. */
#include "cpu.h"
#include "vec.h"
#include <math.h>
#include <string.h>

enum { PART = 64 };

/** The windows of one axis. */
typedef struct {
    int64_t in, out, kernel, stride, pad, dilation;
} window;

/** Images: n of c channels; rows and columns. */
typedef struct {
    int64_t n, c;
    window r, w;
} images;

static int64_t pair(const td_ints *l, int i) { return l->v[l->n > 1 ? i : 0]; }
static int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }

static window axis_window(int i, int64_t in, int64_t out, const td_ints *kernel, const td_ints *stride,
                          const td_ints *pad)
{
    return (window){in, out, pair(kernel, i), pair(stride->n ? stride : kernel, i), pad->n ? pair(pad, i) : 0, 1};
}

static images images_of(const td_view *x, const td_view *y, const td_ints *kernel, const td_ints *stride,
                        const td_ints *pad)
{
    return (images){x->dim[0], x->dim[1], axis_window(0, x->dim[2], y->dim[2], kernel, stride, pad),
                    axis_window(1, x->dim[3], y->dim[3], kernel, stride, pad)};
}

/** Whether v is dense with channels innermost. */
static bool channels_last(const td_view *v)
{
    return v->dim[1] > 1 && v->stride[1] == 1 && v->stride[3] == v->dim[1] &&
           v->stride[2] == v->dim[3] * v->stride[3] && v->stride[0] == v->dim[2] * v->stride[2] && td_view_numel(v);
}

static int threads_for(int64_t elements) { return elements > TD_PAR_MIN ? cpu_threads() : 1; }

/* ---- max_pool2d ---- */

/* Least k for which element begin + k dilation lies inside. */
static int64_t first_inside(int64_t begin, int64_t dilation)
{
    return begin < 0 ? (-begin + dilation - 1) / dilation : 0;
}

/** best and at take v, which lies at place q, where it is greater or a NaN; c channels. */
static void take(float *restrict best, int32_t *restrict at, const float *restrict v, int32_t q, int64_t c)
{
#pragma omp simd
    for (int64_t j = 0; j < c; j++) {
        int32_t win = (v[j] > best[j]) | (v[j] != v[j]);
        best[j] = win ? v[j] : best[j];
        at[j] = win ? q : at[j];
    }
}

/** c channels, c <= PART, of result pixel (i, j) from those of an image. */
static void max_pixel(float *y, int64_t *index, const float *x, const images *m, int64_t i, int64_t j, int64_t c)
{
    const window *r = &m->r, *w = &m->w;
    float best[PART];
    int32_t at[PART];
    int64_t row = i * r->stride - r->pad, column = j * w->stride - w->pad;
    int64_t a0 = first_inside(row, r->dilation), b0 = first_inside(column, w->dilation);
    int64_t first = (row + a0 * r->dilation) * w->in + column + b0 * w->dilation;
    for (int64_t k = 0; k < c; k++) {
        best[k] = -INFINITY;
        at[k] = (int32_t)first;
    }
    for (int64_t a = a0; a < r->kernel && row + a * r->dilation < r->in; a++)
        for (int64_t b = b0; b < w->kernel && column + b * w->dilation < w->in; b++) {
            int64_t q = (row + a * r->dilation) * w->in + column + b * w->dilation;
            take(best, at, x + q * m->c, (int32_t)q, c);
        }
    for (int64_t k = 0; k < c; k++) {
        y[k] = best[k];
        index[k] = at[k];
    }
}

static bool run_max_pool2d(const td_kargs *a)
{
    const td_max_pool2d_attr *o = a->attr;
    images m = images_of(a->in[0], a->out[0], &o->kernel, &o->stride, &o->padding);
    if (o->dilation.n) {
        m.r.dilation = pair(&o->dilation, 0);
        m.w.dilation = pair(&o->dilation, 1);
    }
#pragma omp parallel for num_threads(threads_for(m.n *m.c *m.r.in *m.w.in)) schedule(static)
    for (int64_t row = 0; row < m.n * m.r.out; row++) {
        const float *x = (const float *)a->in[0]->p + row / m.r.out * m.r.in * m.w.in * m.c;
        for (int64_t j = 0; j < m.w.out; j++)
            for (int64_t c = 0; c < m.c; c += PART) {
                int64_t at = (row * m.w.out + j) * m.c + c;
                max_pixel((float *)a->out[0]->p + at, (int64_t *)a->out[1]->p + at, x + c, &m, row % m.r.out, j,
                          least(PART, m.c - c));
            }
    }
    return true;
}

static bool run_max_pool2d_backward(const td_kargs *a)
{
    const td_view *g = a->in[0], *gx = a->out[0];
    int64_t n = g->dim[0], c = g->dim[1], out = g->dim[2] * g->dim[3], in = gx->dim[2] * gx->dim[3];
    const int64_t *index = a->in[1]->p;
    int64_t bad = -1; /* an element of index that lies outside its image */
#pragma omp parallel for num_threads(threads_for(n *c *in)) schedule(static) reduction(max : bad)
    for (int64_t i = 0; i < n; i++) {
        float *to = (float *)gx->p + i * in * c;
        memset(to, 0, (size_t)(in * c) * sizeof *to);
        for (int64_t p = i * out; p < (i + 1) * out; p++)
            for (int64_t j = 0; j < c; j++) {
                int64_t q = index[p * c + j];
                if ((uint64_t)q < (uint64_t)in) to[q * c + j] += ((const float *)g->p)[p * c + j];
                else bad = p * c + j;
            }
    }
    if (bad < 0) return true;
    int64_t q = index[bad];
    return td_fail("max_pool2d_backward: index %lld is outside 1..%lld",
                   (long long)(q == INT64_MIN ? 0
                               : q < 0        ? q
                                              : q + 1),
                   (long long)in);
}

/* ---- means ---- */

/* Elements first .. last - 1 of the input that window i covers, and how many places it has for the divisor. */
static void cut(const window *w, int64_t i, bool count_border, int64_t *first, int64_t *last, int64_t *places)
{
    int64_t begin = i * w->stride - w->pad, end = begin + w->kernel;
    *first = begin < 0 ? 0 : begin;
    *last = least(end, w->in);
    *places = count_border ? least(end, w->in + w->pad) - begin : *last - *first;
}

/** sum[j] += v[j] */
static void add(float *restrict sum, const float *restrict v, int64_t c)
{
#pragma omp simd
    for (int64_t j = 0; j < c; j++) sum[j] += v[j];
}

/** sum[j] += v[j] of four pixels that begin `next` after each other, at once: sums that lie in memory wait for their last store. */
static void add_four(float *restrict sum, const float *restrict v, int64_t next, int64_t c)
{
#pragma omp simd
    for (int64_t j = 0; j < c; j++) sum[j] += (v[j] + v[next + j]) + (v[2 * next + j] + v[3 * next + j]);
}

/** sum[j] += v[j] of n pixels side by side. */
static void add_pixels(float *restrict sum, const float *restrict v, int64_t c, int64_t n)
{
    for (; n >= 4; n -= 4, v += 4 * c) add_four(sum, v, c, c);
    for (; n > 0; n--, v += c) add(sum, v, c);
}

static bool run_avg_pool2d(const td_kargs *a)
{
    const td_avg_pool2d_attr *o = a->attr;
    images m = images_of(a->in[0], a->out[0], &o->kernel, &o->stride, &o->padding);
#pragma omp parallel for num_threads(threads_for(m.n *m.c *m.r.in *m.w.in)) schedule(static)
    for (int64_t row = 0; row < m.n * m.r.out; row++) {
        const float *x = (const float *)a->in[0]->p + row / m.r.out * m.r.in * m.w.in * m.c;
        int64_t a0, a1, rows, b0, b1, columns;
        cut(&m.r, row % m.r.out, o->count_include_pad, &a0, &a1, &rows);
        for (int64_t j = 0; j < m.w.out; j++) {
            float *y = (float *)a->out[0]->p + (row * m.w.out + j) * m.c;
            cut(&m.w, j, o->count_include_pad, &b0, &b1, &columns);
            bool whole = b0 == 0 && b1 == m.w.in; /* rows whose pixels are side by side */
            int64_t times = whole ? 1 : a1 - a0, pixels = whole ? (a1 - a0) * m.w.in : b1 - b0;
            memset(y, 0, (size_t)m.c * sizeof *y);
            for (int64_t p = 0; p < times; p++) add_pixels(y, x + ((a0 + p) * m.w.in + b0) * m.c, m.c, pixels);
            for (int64_t k = 0; k < m.c; k++) y[k] /= (float)(rows * columns);
        }
    }
    return true;
}

/** Whether no element lies in two windows of an axis. */
static bool apart(const window *w) { return w->stride >= w->kernel; }

/** Whether each lies in one. */
static bool tiled(const window *w)
{
    return w->stride == w->kernel && (w->out - 1) * w->stride - w->pad + w->kernel >= w->in;
}

/** A window's share of each of its pixels, g / places: into them where it is the only one, added otherwise. */
static void give(float *gx, const float *g, const images *m, int64_t a0, int64_t a1, int64_t b0, int64_t b1,
                 int64_t places, bool only)
{
    float *first = gx + (a0 * m->w.in + b0) * m->c, share[PART];
    if (only) {
        for (int64_t k = 0; k < m->c; k++) first[k] = g[k] / (float)places;
        for (int64_t p = a0; p < a1; p++)
            for (int64_t q = b0 + (p == a0); q < b1; q++)
                copy_short(gx + (p * m->w.in + q) * m->c, first, m->c * (int64_t)sizeof *gx);
        return;
    }
    for (int64_t c = 0; c < m->c; c += PART) {
        int64_t have = least(PART, m->c - c);
        for (int64_t k = 0; k < have; k++) share[k] = g[c + k] / (float)places;
        for (int64_t p = a0; p < a1; p++)
            for (int64_t q = b0; q < b1; q++) add(gx + (p * m->w.in + q) * m->c + c, share, have);
    }
}

static bool run_avg_pool2d_backward(const td_kargs *a)
{
    const td_avg_pool2d_backward_attr *o = a->attr;
    images m = images_of(a->out[0], a->in[0], &o->kernel, &o->stride, &o->padding);
    bool only = apart(&m.r) && apart(&m.w), all = tiled(&m.r) && tiled(&m.w);
#pragma omp parallel for num_threads(threads_for(m.n *m.c *m.r.in *m.w.in)) schedule(static)
    for (int64_t i = 0; i < m.n; i++) {
        float *gx = (float *)a->out[0]->p + i * m.r.in * m.w.in * m.c;
        const float *g = (const float *)a->in[0]->p + i * m.r.out * m.w.out * m.c;
        int64_t a0, a1, rows, b0, b1, columns;
        if (!all) memset(gx, 0, (size_t)(m.r.in * m.w.in * m.c) * sizeof *gx);
        for (int64_t row = 0; row < m.r.out; row++) {
            cut(&m.r, row, o->count_include_pad, &a0, &a1, &rows);
            for (int64_t j = 0; j < m.w.out; j++, g += m.c) {
                cut(&m.w, j, o->count_include_pad, &b0, &b1, &columns);
                if (a0 < a1 && b0 < b1) give(gx, g, &m, a0, a1, b0, b1, rows * columns, only);
            }
        }
    }
    return true;
}

/** Mean of rows a0 .. a1 and columns b0 .. b1 of c channels, c <= PART; rows in f32, their sum in f64. */
static void mean_of(float *y, const float *x, const images *m, int64_t a0, int64_t a1, int64_t b0, int64_t b1,
                    int64_t c)
{
    double sum[PART] = {0};
    for (int64_t p = a0; p < a1; p++) {
        float row[PART] = {0};
        const float *v = x + (p * m->w.in + b0) * m->c;
        int64_t q = b0;
        for (; q + 4 <= b1; q += 4, v += 4 * m->c) add_four(row, v, m->c, c);
        for (; q < b1; q++, v += m->c) add(row, v, c);
        for (int64_t k = 0; k < c; k++) sum[k] += (double)row[k];
    }
    for (int64_t k = 0; k < c; k++) y[k] = (float)(sum[k] / ((double)(a1 - a0) * (double)(b1 - b0)));
}

static bool run_adaptive_avg_pool2d(const td_kargs *a)
{
    const td_view *x = a->in[0], *y = a->out[0];
    images m = {.n = x->dim[0],
                .c = x->dim[1],
                .r = {.in = x->dim[2], .out = y->dim[2]},
                .w = {.in = x->dim[3], .out = y->dim[3]}};
    int64_t h = m.r.in, w = m.w.in, oh = m.r.out, ow = m.w.out;
#pragma omp parallel for num_threads(threads_for(m.n *m.c *h *w)) schedule(static)
    for (int64_t row = 0; row < m.n * oh; row++)
        for (int64_t j = 0; j < ow; j++)
            for (int64_t c = 0; c < m.c; c += PART) {
                int64_t i = row % oh;
                mean_of((float *)y->p + (row * ow + j) * m.c + c, (const float *)x->p + row / oh * h * w * m.c + c, &m,
                        i * h / oh, ((i + 1) * h + oh - 1) / oh, j * w / ow, ((j + 1) * w + ow - 1) / ow,
                        least(PART, m.c - c));
            }
    return true;
}

/* ---- the table ---- */

/* Places of a winner are kept in 32 bits. */
static bool accepts(const td_kargs *a)
{
    const td_view *x = a->in[0];
    return channels_last(x) && x->dim[2] * x->dim[3] < INT32_MAX;
}

static bool accepts_max_backward(const td_kargs *a) { return channels_last(a->in[0]) && channels_last(a->in[1]); }

/** The results lie as the operand does, in whose order a window of one pixel leaves room for doubt. */
static bool layout(const td_kargs *a, td_view *const *out)
{
    for (uint32_t i = 0; i < a->n_out; i++) {
        td_view *y = out[i];
        y->stride[1] = 1;
        y->stride[3] = y->dim[1];
        y->stride[2] = y->dim[3] * y->stride[3];
        y->stride[0] = y->dim[2] * y->stride[2];
    }
    return true;
}

enum { BEFORE_POOL = 5 };
#define LAST(op, run_, accepts_) \
    CPU_KERNEL(op, TD_BIT(TD_F32), TD_K_STRIDED, run_, .priority = BEFORE_POOL, .accepts = accepts_, .layout = layout)

static const td_kernel rows[] = {
    LAST("max_pool2d", run_max_pool2d, accepts),
    LAST("max_pool2d_backward", run_max_pool2d_backward, accepts_max_backward),
    LAST("avg_pool2d", run_avg_pool2d, accepts),
    LAST("avg_pool2d_backward", run_avg_pool2d_backward, accepts),
    LAST("adaptive_avg_pool2d", run_adaptive_avg_pool2d, accepts),
};
CPU_TABLE(pool_last, rows)

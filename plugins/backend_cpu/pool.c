/* pool.c - max_pool2d avg_pool2d adaptive_avg_pool2d and the gradients of the first two, f32
 *
 * Letters: a plane is one channel of one image, H W its extents, OH OW those of the result. Planes are worked off in
 * parallel; nothing of one reaches another. */
#include "cpu.h"
#include "vec.h"

/** The windows of one axis. */
typedef struct {
    int64_t in, out, kernel, stride, pad, dilation;
} window;

/** Element i of a list that may be a single number for both axes. */
static int64_t pair(const td_ints *l, int i) { return l->v[l->n > 1 ? i : 0]; }

static window axis_window(int i, int64_t in, int64_t out, const td_ints *kernel, const td_ints *stride,
                          const td_ints *pad)
{
    return (window){in, out, pair(kernel, i), pair(stride->n ? stride : kernel, i), pad->n ? pair(pad, i) : 0, 1};
}

/* ---- max_pool2d: a later element wins only by being greater, or a NaN ---- */

static bool wins(float v, float best) { return (v > best) | (v != v); }

/* Least k for which element begin + k dilation lies inside. */
static int64_t first_inside(int64_t begin, int64_t dilation)
{
    return begin < 0 ? (-begin + dilation - 1) / dilation : 0;
}

static void max_plane(float *y, int64_t *at, const float *x, const window *r, const window *c)
{
    for (int64_t i = 0; i < r->out; i++) {
        int64_t row = i * r->stride - r->pad, a0 = first_inside(row, r->dilation);
        for (int64_t j = 0; j < c->out; j++) {
            int64_t column = j * c->stride - c->pad, b0 = first_inside(column, c->dilation);
            int64_t best_at = (row + a0 * r->dilation) * c->in + column + b0 * c->dilation;
            float best = -INFINITY;
            for (int64_t a = a0; a < r->kernel && row + a * r->dilation < r->in; a++)
                for (int64_t b = b0; b < c->kernel && column + b * c->dilation < c->in; b++) {
                    int64_t q = (row + a * r->dilation) * c->in + column + b * c->dilation;
                    bool win = wins(x[q], best);
                    best = win ? x[q] : best;
                    best_at = win ? q : best_at;
                }
            *y++ = best;
            *at++ = best_at;
        }
    }
}

/* Lanes of b where mask, else of a; both as they are. */
VEC_INLINE vec_i32 pick(vec_i32 mask, vec_i32 b, vec_i32 a) { return a ^ ((a ^ b) & mask); }

/** The greatest of each of LANES windows of 2 x 2 side by side, the first of which begins at element q of plane x. */
VEC_INLINE void max_2x2(float *y, int64_t *at, const float *x, int64_t width, int64_t q)
{
#define EVEN(w, l) (w) * (l)
#define ODD(w, l) (w) * (l) + 1
    const vec_i32 even = {EACH_LANE(VEC_F32, EVEN, 2)}, odd = {EACH_LANE(VEC_F32, ODD, 2)};
#undef EVEN
#undef ODD
    const float *p = x + q;
    vec_f32 top0 = *(const vec_f32 *)p, top1 = *(const vec_f32 *)(p + VEC_F32);
    vec_f32 low0 = *(const vec_f32 *)(p + width), low1 = *(const vec_f32 *)(p + width + VEC_F32);
    vec_f32 v[4] = {__builtin_shuffle(top0, top1, even), __builtin_shuffle(top0, top1, odd),
                    __builtin_shuffle(low0, low1, even), __builtin_shuffle(low0, low1, odd)};
    int32_t step[4] = {0, 1, (int32_t)width, (int32_t)width + 1}, places[VEC_F32];
    vec_i32 best = (vec_i32)v[0], base = even + (int32_t)q, where = base;
    for (int k = 1; k < 4; k++) {
        vec_i32 win = (v[k] > (vec_f32)best) | (v[k] != v[k]);
        best = pick(win, (vec_i32)v[k], best);
        where = pick(win, base + step[k], where);
    }
    *(vec_f32 *)y = (vec_f32)best;
    *(vec_i32 *)places = where;
    for (int k = 0; k < VEC_F32; k++) at[k] = places[k];
}

/** Windows of 2 x 2 that do not overlap. A vector at the end of a row writes into the next row, which is written after it;
 *  where there is no room for that, windows are taken one by one. */
static void max_plane_2x2(float *y, int64_t *at, const float *x, const window *r, const window *c)
{
    int64_t in = r->in * c->in, out = r->out * c->out;
    for (int64_t i = 0; i < r->out; i++)
        for (int64_t j = 0; j < c->out;) {
            int64_t q = 2 * i * c->in + 2 * j, to = i * c->out + j;
            if (to + VEC_F32 <= out && q + c->in + 2 * VEC_F32 <= in) {
                max_2x2(y + to, at + to, x, c->in, q);
                j += VEC_F32;
                continue;
            }
            int64_t place[4] = {q, q + 1, q + c->in, q + c->in + 1}, best = q;
            for (int k = 1; k < 4; k++) best = wins(x[place[k]], x[best]) ? place[k] : best;
            y[to] = x[best];
            at[to] = best;
            j++;
        }
}

static bool run_max_pool2d(const td_kargs *a)
{
    const td_max_pool2d_attr *o = a->attr;
    const td_view *x = a->in[0], *y = a->out[0];
    window r = axis_window(0, x->dim[2], y->dim[2], &o->kernel, &o->stride, &o->padding);
    window c = axis_window(1, x->dim[3], y->dim[3], &o->kernel, &o->stride, &o->padding);
    if (o->dilation.n) {
        r.dilation = pair(&o->dilation, 0);
        c.dilation = pair(&o->dilation, 1);
    }
    int64_t planes = x->dim[0] * x->dim[1], in = r.in * c.in, out = r.out * c.out;
    bool halves = r.kernel == 2 && c.kernel == 2 && r.stride == 2 && c.stride == 2 && r.dilation == 1 &&
                  c.dilation == 1 && !r.pad && !c.pad && 2 * r.out <= r.in && 2 * c.out <= c.in && in < INT32_MAX;
#pragma omp parallel for if (planes * in > TD_PAR_MIN)
    for (int64_t p = 0; p < planes; p++) {
        const float *xp = (const float *)x->p + p * in;
        float *yp = (float *)y->p + p * out;
        int64_t *ap = (int64_t *)a->out[1]->p + p * out;
        if (halves) max_plane_2x2(yp, ap, xp, &r, &c);
        else max_plane(yp, ap, xp, &r, &c);
    }
    return true;
}

static bool run_max_pool2d_backward(const td_kargs *a)
{
    const td_view *g = a->in[0], *gx = a->out[0];
    int64_t planes = g->dim[0] * g->dim[1], out = g->dim[2] * g->dim[3], in = gx->dim[2] * gx->dim[3];
    const int64_t *index = a->in[1]->p;
    int64_t bad = -1; /* an element of index that lies outside its plane */
#pragma omp parallel for if (planes * in > TD_PAR_MIN) reduction(max : bad)
    for (int64_t p = 0; p < planes; p++) {
        const float *gp = (const float *)g->p + p * out;
        const int64_t *at = index + p * out;
        float *xp = (float *)gx->p + p * in;
        __builtin_memset(xp, 0, (size_t)in * sizeof *xp);
        for (int64_t i = 0; i < out; i++) {
            if ((uint64_t)at[i] < (uint64_t)in) xp[at[i]] += gp[i];
            else bad = p * out + i;
        }
    }
    if (bad < 0) return true;
    return td_fail("max_pool2d_backward: index %lld is outside 1..%lld",
                   (long long)(index[bad] == INT64_MIN ? 0
                               : index[bad] < 0        ? index[bad]
                                                       : index[bad] + 1),
                   (long long)in);
}

/* ---- means ---- */

/* Elements first .. last - 1 of the input that window i covers, and how many places it has for the divisor. */
static void cut(const window *w, int64_t i, bool count_border, int64_t *first, int64_t *last, int64_t *places)
{
    int64_t begin = i * w->stride - w->pad, end = begin + w->kernel;
    *first = begin < 0 ? 0 : begin;
    *last = end < w->in ? end : w->in;
    *places = count_border ? (end < w->in + w->pad ? end : w->in + w->pad) - begin : *last - *first;
}

static void avg_plane(float *y, const float *x, const window *r, const window *c, bool count_border)
{
    for (int64_t i = 0; i < r->out; i++) {
        int64_t a0, a1, rows;
        cut(r, i, count_border, &a0, &a1, &rows);
        for (int64_t j = 0; j < c->out; j++) {
            int64_t b0, b1, columns;
            cut(c, j, count_border, &b0, &b1, &columns);
            float sum = 0;
            for (int64_t p = a0; p < a1; p++)
                for (int64_t q = b0; q < b1; q++) sum += x[p * c->in + q];
            *y++ = sum / (float)(rows * columns);
        }
    }
}

static void avg_plane_backward(float *gx, const float *g, const window *r, const window *c, bool count_border)
{
    __builtin_memset(gx, 0, (size_t)(r->in * c->in) * sizeof *gx);
    for (int64_t i = 0; i < r->out; i++) {
        int64_t a0, a1, rows;
        cut(r, i, count_border, &a0, &a1, &rows);
        for (int64_t j = 0; j < c->out; j++) {
            int64_t b0, b1, columns;
            cut(c, j, count_border, &b0, &b1, &columns);
            float share = *g++ / (float)(rows * columns);
            for (int64_t p = a0; p < a1; p++)
                for (int64_t q = b0; q < b1; q++) gx[p * c->in + q] += share;
        }
    }
}

static bool run_avg_pool2d(const td_kargs *a)
{
    const td_avg_pool2d_attr *o = a->attr;
    const td_view *x = a->in[0], *y = a->out[0];
    window r = axis_window(0, x->dim[2], y->dim[2], &o->kernel, &o->stride, &o->padding);
    window c = axis_window(1, x->dim[3], y->dim[3], &o->kernel, &o->stride, &o->padding);
    int64_t planes = x->dim[0] * x->dim[1], in = r.in * c.in, out = r.out * c.out;
#pragma omp parallel for if (planes * in > TD_PAR_MIN)
    for (int64_t p = 0; p < planes; p++)
        avg_plane((float *)y->p + p * out, (const float *)x->p + p * in, &r, &c, o->count_include_pad);
    return true;
}

static bool run_avg_pool2d_backward(const td_kargs *a)
{
    const td_avg_pool2d_backward_attr *o = a->attr;
    const td_view *g = a->in[0], *gx = a->out[0];
    window r = axis_window(0, gx->dim[2], g->dim[2], &o->kernel, &o->stride, &o->padding);
    window c = axis_window(1, gx->dim[3], g->dim[3], &o->kernel, &o->stride, &o->padding);
    int64_t planes = g->dim[0] * g->dim[1], in = r.in * c.in, out = r.out * c.out;
#pragma omp parallel for if (planes * in > TD_PAR_MIN)
    for (int64_t p = 0; p < planes; p++)
        avg_plane_backward((float *)gx->p + p * in, (const float *)g->p + p * out, &r, &c, o->count_include_pad);
    return true;
}

/** Mean of rows a0 .. a1 and columns b0 .. b1 of a plane. */
static float mean_of(const float *x, int64_t width, int64_t a0, int64_t a1, int64_t b0, int64_t b1)
{
    double sum = 0;
    for (int64_t p = a0; p < a1; p++) {
        float row = 0;
#pragma omp simd reduction(+ : row)
        for (int64_t q = b0; q < b1; q++) row += x[p * width + q];
        sum += (double)row;
    }
    return (float)(sum / ((double)(a1 - a0) * (double)(b1 - b0)));
}

static bool run_adaptive_avg_pool2d(const td_kargs *a)
{
    const td_view *x = a->in[0], *y = a->out[0];
    int64_t h = x->dim[2], w = x->dim[3], oh = y->dim[2], ow = y->dim[3], planes = x->dim[0] * x->dim[1];
#pragma omp parallel for if (planes * h * w > TD_PAR_MIN)
    for (int64_t p = 0; p < planes; p++) {
        const float *xp = (const float *)x->p + p * h * w;
        float *yp = (float *)y->p + p * oh * ow;
        for (int64_t i = 0; i < oh; i++)
            for (int64_t j = 0; j < ow; j++)
                *yp++ =
                    mean_of(xp, w, i * h / oh, ((i + 1) * h + oh - 1) / oh, j * w / ow, ((j + 1) * w + ow - 1) / ow);
    }
    return true;
}

static const td_kernel rows[] = {
    CPU_KERNEL("max_pool2d", TD_BIT(TD_F32), 0, run_max_pool2d),
    CPU_KERNEL("max_pool2d_backward", TD_BIT(TD_F32), 0, run_max_pool2d_backward),
    CPU_KERNEL("avg_pool2d", TD_BIT(TD_F32), 0, run_avg_pool2d),
    CPU_KERNEL("avg_pool2d_backward", TD_BIT(TD_F32), 0, run_avg_pool2d_backward),
    CPU_KERNEL("adaptive_avg_pool2d", TD_BIT(TD_F32), 0, run_adaptive_avg_pool2d),
};
CPU_TABLE(pool, rows)

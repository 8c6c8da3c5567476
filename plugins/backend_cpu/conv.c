/* conv.c - conv2d, conv2d_act, conv_transpose2d (which is conv2d's gradient for its input) and conv2d_weight_grad
 *
 * Letters: N batch, C channels in, O channels out, H W planes, KH KW kernel. conv_grid.h brings all three to one geometry,
 * conv_engine.h and conv_wgrad.h have the arithmetic, for f32 and f64. */
#include "conv_grid.h"
#include "vec.h"

#include <omp.h>

/* What the micro kernels hold in registers, of which there are 32 with AVX-512 and on ARM, else 16:
 * MR channels by NV vectors of pixels (forward); CONV_KB windows by two vectors of channels, or DOT_M channels by DOT_K
 * windows (weight gradient). */
#if VEC_BYTES == 64 || defined __aarch64__
#define MR 8
#define NV 3
#define CONV_KB 12
#define DOT_M 6
#define DOT_K 4
#else
#define MR 4
#define NV (VEC_BYTES == 32 ? 3 : 2)
#define CONV_KB 5
#define DOT_M 3
#define DOT_K 3
#endif

#define REAL float
#define VEC vec_f32
#define IVEC vec_i32
#define LANES VEC_F32
#define R(name) name##_f32
#include "conv_micro.h"
#include "conv_scratch.h"
#include "conv_engine.h"
#include "conv_wgrad.h"
#undef REAL
#undef VEC
#undef IVEC
#undef LANES
#undef R
#define REAL double
#define VEC vec_f64
#define IVEC vec_i64
#define LANES VEC_F64
#define R(name) name##_f64
#include "conv_micro.h"
#include "conv_scratch.h"
#include "conv_engine.h"
#include "conv_wgrad.h"
#undef REAL
#undef VEC
#undef IVEC
#undef LANES
#undef R

/** Multiply-adds below which one thread is faster than two. */
enum { CONV_PAR_MIN = 400000 };

/* The plan is the number of threads that workspace and shares were laid out for, as a pointer that nobody follows. */
static int planned(const td_kargs *a) { return a->plan ? (int)(intptr_t)a->plan : 1; }

/** Element i of a list that may be a single number for both axes. */
static int64_t pair(const td_ints *l, int i) { return l->n == 0 ? 0 : l->v[l->n > 1 ? i : 0]; }

/** Threads for a problem of that many multiply-adds; sizes that overflow are large. */
static int plan_threads(int64_t n, int64_t channels, int64_t k, int64_t pixels)
{
    int64_t m;
    if (__builtin_mul_overflow(n, channels, &m) || __builtin_mul_overflow(m, k, &m) ||
        __builtin_mul_overflow(m, pixels, &m))
        m = INT64_MAX;
    return m < CONV_PAR_MIN ? 1 : cpu_threads();
}

/* ---- conv2d ---- */

static conv_grid forward_grid(const td_kargs *a)
{
    const td_conv2d_attr *o = a->attr;
    const td_view *x = a->in[0], *w = a->in[1], *y = a->out[0];
    conv_grid g = {.n = x->dim[0], .groups = o->groups, .ci = w->dim[1], .co = w->dim[0] / o->groups};
    g.r =
        axis_forward(x->dim[2], w->dim[2], y->dim[2], pair(&o->stride, 0), pair(&o->padding, 0), pair(&o->dilation, 0));
    g.c =
        axis_forward(x->dim[3], w->dim[3], y->dim[3], pair(&o->stride, 1), pair(&o->padding, 1), pair(&o->dilation, 1));
    g.wr = w->dim[3];
    g.wc = w->dim[2] * g.wr;
    g.wm = g.ci * g.wc;
    g.wg = g.co * g.wm;
    return g;
}

static bool plan_conv2d(const td_kargs *a, void **plan, size_t *ws_size)
{
    conv_grid g = forward_grid(a);
    int threads = plan_threads(g.n, g.groups * g.co, a->in[1]->dim[1] * g.wc, g.r.pix * g.c.pix);
    *plan = (void *)(intptr_t)threads;
    if (a->compute == TD_F64) {
        conv_job_f64 j;
        if (!conv_job_make_f64(&j, &g, threads, "conv2d")) return false;
        *ws_size = j.shared + (size_t)threads * j.each;
    } else {
        conv_job_f32 j;
        if (!conv_job_make_f32(&j, &g, threads, "conv2d")) return false;
        *ws_size = j.shared + (size_t)threads * j.each;
    }
    return true;
}

/** A grid over the operands of a call: y, x, w and an optional bias; then a relu. */
static bool run_grid(const td_kargs *a, const conv_grid *g, bool relu, const char *op)
{
    int plan = planned(a), threads = plan < cpu_threads() ? plan : cpu_threads();
    const void *bias = a->in[2] ? a->in[2]->p : NULL;
    if (a->compute == TD_F64) {
        conv_job_f64 j;
        if (!conv_job_make_f64(&j, g, plan, op)) return false;
        conv_job_run_f64(&j, a->out[0]->p, a->in[0]->p, a->in[1]->p, bias, relu, a->ws, threads);
    } else {
        conv_job_f32 j;
        if (!conv_job_make_f32(&j, g, plan, op)) return false;
        conv_job_run_f32(&j, a->out[0]->p, a->in[0]->p, a->in[1]->p, bias, relu, a->ws, threads);
    }
    return true;
}

static bool run_conv2d(const td_kargs *a)
{
    conv_grid g = forward_grid(a);
    return run_grid(a, &g, false, "conv2d");
}

/* The options of conv2d come first in those of conv2d_act. */
static bool run_conv2d_act(const td_kargs *a)
{
    conv_grid g = forward_grid(a);
    return run_grid(a, &g, ((const td_conv2d_act_attr *)a->attr)->activation == TD_CONV2D_ACT_RELU, "conv2d_act");
}

/* ---- conv_transpose2d: one grid for each residue of the result's rows and columns modulo stride ---- */

static conv_grid transposed_grid(const td_kargs *a, int64_t row, int64_t column)
{
    const td_conv_transpose2d_attr *o = a->attr;
    const td_view *x = a->in[0], *w = a->in[1], *y = a->out[0];
    conv_grid g = {.n = x->dim[0], .groups = o->groups, .ci = w->dim[0] / o->groups, .co = w->dim[1]};
    g.r = axis_transposed(x->dim[2], w->dim[2], y->dim[2], pair(&o->stride, 0), pair(&o->padding, 0),
                          pair(&o->dilation, 0), row);
    g.c = axis_transposed(x->dim[3], w->dim[3], y->dim[3], pair(&o->stride, 1), pair(&o->padding, 1),
                          pair(&o->dilation, 1), column);
    g.wr = w->dim[3];
    g.wm = w->dim[2] * g.wr;
    g.wc = g.co * g.wm;
    g.wg = g.ci * g.wc;
    return g;
}

/** Residues of an axis that the result has. */
static int64_t residues(const td_kargs *a, int axis)
{
    const td_conv_transpose2d_attr *o = a->attr;
    return conv_min(pair(&o->stride, axis), a->out[0]->dim[2 + axis]);
}

static bool plan_conv_transpose2d(const td_kargs *a, void **plan, size_t *ws_size)
{
    const td_view *x = a->in[0], *w = a->in[1];
    int threads = plan_threads(x->dim[0], x->dim[1], w->dim[1] * w->dim[2] * w->dim[3], x->dim[2] * x->dim[3]);
    *plan = (void *)(intptr_t)threads;
    *ws_size = 0;
    for (int64_t r = 0; r < residues(a, 0); r++)
        for (int64_t c = 0; c < residues(a, 1); c++) {
            conv_grid g = transposed_grid(a, r, c);
            size_t need;
            if (a->compute == TD_F64) {
                conv_job_f64 j;
                if (!conv_job_make_f64(&j, &g, threads, "conv_transpose2d")) return false;
                need = j.shared + (size_t)threads * j.each;
            } else {
                conv_job_f32 j;
                if (!conv_job_make_f32(&j, &g, threads, "conv_transpose2d")) return false;
                need = j.shared + (size_t)threads * j.each;
            }
            if (need > *ws_size) *ws_size = need;
        }
    return true;
}

static bool run_conv_transpose2d(const td_kargs *a)
{
    for (int64_t r = 0; r < residues(a, 0); r++)
        for (int64_t c = 0; c < residues(a, 1); c++) {
            conv_grid g = transposed_grid(a, r, c);
            if (!run_grid(a, &g, false, "conv_transpose2d")) return false;
        }
    return true;
}

/* ---- conv2d_weight_grad ---- */

static conv_grid weight_grid(const td_kargs *a)
{
    const td_conv2d_weight_grad_attr *o = a->attr;
    const td_view *x = a->in[0], *y = a->in[1], *w = a->out[0];
    conv_grid g = {.n = x->dim[0], .groups = o->groups, .ci = w->dim[1], .co = w->dim[0] / o->groups};
    g.r =
        axis_forward(x->dim[2], w->dim[2], y->dim[2], pair(&o->stride, 0), pair(&o->padding, 0), pair(&o->dilation, 0));
    g.c =
        axis_forward(x->dim[3], w->dim[3], y->dim[3], pair(&o->stride, 1), pair(&o->padding, 1), pair(&o->dilation, 1));
    return g;
}

static bool plan_weight_grad(const td_kargs *a, void **plan, size_t *ws_size)
{
    conv_grid g = weight_grid(a);
    int threads = plan_threads(g.n, g.groups * g.co, g.ci * g.r.taps * g.c.taps, g.r.pix * g.c.pix);
    *plan = (void *)(intptr_t)threads;
    if (a->compute == TD_F64) {
        wgrad_job_f64 j;
        if (!wgrad_job_make_f64(&j, &g, threads, "conv2d_weight_grad")) return false;
        *ws_size = j.shared + (size_t)threads * j.each;
    } else {
        wgrad_job_f32 j;
        if (!wgrad_job_make_f32(&j, &g, threads, "conv2d_weight_grad")) return false;
        *ws_size = j.shared + (size_t)threads * j.each;
    }
    return true;
}

static bool run_weight_grad(const td_kargs *a)
{
    conv_grid g = weight_grid(a);
    int plan = planned(a), threads = plan < cpu_threads() ? plan : cpu_threads();
    if (a->compute == TD_F64) {
        wgrad_job_f64 j;
        if (!wgrad_job_make_f64(&j, &g, plan, "conv2d_weight_grad")) return false;
        wgrad_job_run_f64(&j, a->out[0]->p, a->in[0]->p, a->in[1]->p, a->ws, threads);
    } else {
        wgrad_job_f32 j;
        if (!wgrad_job_make_f32(&j, &g, plan, "conv2d_weight_grad")) return false;
        wgrad_job_run_f32(&j, a->out[0]->p, a->in[0]->p, a->in[1]->p, a->ws, threads);
    }
    return true;
}

static const td_kernel rows[] = {
    CPU_KERNEL("conv2d", TD_BITS_FLOAT, 0, run_conv2d, .plan = plan_conv2d),
    CPU_KERNEL("conv2d_act", TD_BIT(TD_F32), 0, run_conv2d_act, .plan = plan_conv2d),
    CPU_KERNEL("conv_transpose2d", TD_BITS_FLOAT, 0, run_conv_transpose2d, .plan = plan_conv_transpose2d),
    CPU_KERNEL("conv2d_weight_grad", TD_BITS_FLOAT, 0, run_weight_grad, .plan = plan_weight_grad),
};
CPU_TABLE(conv, rows)

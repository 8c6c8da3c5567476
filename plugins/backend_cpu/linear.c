/* linear.c - linear_act and its gradients, f32: products by matmul.c with bias and activation applied to each block of the result
 * while it is in cache; backward makes h = g act'(z) and gb, its column sums, in one pass, and then both products in one go.
 *     x (m, k)   w (n, k)   b (n)   y, z, g, h (m, n) */
#include "act_slope.h"
#include "gemm.h"

/* SLICE: columns of h that one thread works on at a time; BLOCK: rows whose sums run in f32 before they go to f64. */
enum { SLICE = 512, BLOCK = 64 };

static bool run_linear_act(const td_kargs *a)
{
    const td_view *x = a->in[0], *w = a->in[1], *b = a->in[2];
    const int64_t n = w->dim[0], k = w->dim[1];
    const gemm_act act = (gemm_act)((const td_linear_act_attr *)a->attr)->activation;
    const bool keep = act == GEMM_GELU || act == GEMM_GELU_TANH;
    sgemm_args g = {.m = n ? td_view_numel(a->out[0]) / n : 0,
                    .n = n,
                    .k = k,
                    .a = x->p,
                    .b = w->p,
                    .c = a->out[0]->p,
                    .ars = k,
                    .acs = 1,
                    .brs = 1,
                    .bcs = k,
                    .crs = n,
                    .ccs = 1,
                    .bias = b ? b->p : NULL,
                    .act = act,
                    .pre = keep ? a->out[1]->p : NULL};
    return ISA(cpu_products)(&g, 1);
}

/* ---- backward ---- */

typedef struct {
    gemm_act act;
    int64_t m, n;
    const float *g, *by; /* by: y, or z for gelu */
    float *h, *gb;       /* gb: NULL where it is not wanted */
} slopes;

/* Columns c .. c + n, n <= SLICE. */
static void slice(const slopes *s, int64_t c, int64_t n)
{
    float part[SLICE];
    double sum[SLICE];
    for (int64_t j = 0; j < n; j++) sum[j] = 0;
    for (int64_t i = 0; i < s->m; i += BLOCK) {
        int64_t end = s->m - i < BLOCK ? s->m : i + BLOCK;
        for (int64_t j = 0; j < n; j++) part[j] = 0;
        for (int64_t r = i; r < end; r++) {
            const float *row = s->g + r * s->n + c;
            if (s->act != GEMM_AS_IS) {
                float *h = s->h + r * s->n + c;
                act_slope_row(s->act, h, row, s->by + r * s->n + c, n);
                row = h;
            }
            if (!s->gb) continue;
#pragma omp simd
            for (int64_t j = 0; j < n; j++) part[j] += row[j];
        }
        for (int64_t j = 0; j < n; j++) sum[j] += (double)part[j];
    }
    for (int64_t j = 0; s->gb && j < n; j++) s->gb[c + j] = (float)sum[j];
}

static void all_slopes(const slopes *s)
{
    if (s->act == GEMM_AS_IS && !s->gb) return;
    int64_t work = s->m * s->n * (s->act > GEMM_RELU ? 4 : 1);
    int threads = work < TD_PAR_MIN ? 1 : cpu_threads();
    int64_t width = (s->n + threads - 1) / threads;
    width = width < SLICE ? (width + 15) / 16 * 16 : SLICE;
    if (threads == 1) {
        for (int64_t c = 0; c < s->n; c += width) slice(s, c, s->n - c < width ? s->n - c : width);
        return;
    }
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int64_t c = 0; c < s->n; c += width) slice(s, c, s->n - c < width ? s->n - c : width);
}

/* in: g, x, w, b, y, z   out: gx, gw, gb, h */
static bool run_linear_act_backward(const td_kargs *a)
{
    enum { NEED_X = 1, NEED_W = 2, NEED_BIAS = 4 };
    const td_linear_act_backward_attr *o = a->attr;
    const gemm_act act = (gemm_act)o->activation;
    const int64_t n = a->in[2]->dim[0], k = a->in[2]->dim[1], m = n ? td_view_numel(a->in[0]) / n : 0;
    const td_view *by = act == GEMM_GELU || act == GEMM_GELU_TANH ? a->in[5] : a->in[4];
    const slopes s = {
        act, m, n, a->in[0]->p, by ? by->p : NULL, a->out[3]->p, o->need & NEED_BIAS ? a->out[2]->p : NULL};
    all_slopes(&s);
    const float *h = act == GEMM_AS_IS ? s.g : s.h;
    sgemm_args p[2];
    int products = 0;
    if (o->need & NEED_W)
        p[products++] = (sgemm_args){.m = n,
                                     .n = k,
                                     .k = m,
                                     .a = h,
                                     .b = a->in[1]->p,
                                     .c = a->out[1]->p,
                                     .ars = 1,
                                     .acs = n,
                                     .brs = k,
                                     .bcs = 1,
                                     .crs = k,
                                     .ccs = 1};
    if (o->need & NEED_X)
        p[products++] = (sgemm_args){.m = m,
                                     .n = k,
                                     .k = n,
                                     .a = h,
                                     .b = a->in[2]->p,
                                     .c = a->out[0]->p,
                                     .ars = n,
                                     .acs = 1,
                                     .brs = k,
                                     .bcs = 1,
                                     .crs = k,
                                     .ccs = 1};
    return ISA(cpu_products)(p, products);
}

static const td_kernel rows[] = {
    CPU_KERNEL("linear_act", TD_BIT(TD_F32), 0, run_linear_act),
    CPU_KERNEL("linear_act_backward", TD_BIT(TD_F32), 0, run_linear_act_backward),
};
CPU_TABLE(linear, rows)

/* linear.c - linear_act and its gradients, f32: products by matmul.c with bias and activation applied to each block of the result
 * while it is in cache; backward makes rows of h = g act'(z) as the product gx = h w needs them, and gb, the sums of h's columns, while
 * it packs h for gw = h^T x. Products that are OpenBLAS's, and gb alone, find h and gb made in a pass before them.
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

/* gelu's y once more, from z. */
static bool again_linear_act(const td_kargs *a)
{
    enum { PIECE = 8192 };
    const gemm_act act = (gemm_act)((const td_linear_act_attr *)a->attr)->activation;
    const int64_t n = td_view_numel(a->out[0]);
    const float *z = a->out[1]->p;
    float *y = a->out[0]->p;
#pragma omp parallel for if (n > TD_PAR_MIN)
    for (int64_t i = 0; i < n; i += PIECE) {
        int64_t some = n - i < PIECE ? n - i : PIECE;
        __builtin_memcpy(y + i, z + i, (size_t)some * sizeof *y);
        ISA(cpu_act_row)(act, y + i, some);
    }
    return true;
}

static int64_t again_linear_act_reads(const td_kargs *a)
{
    const gemm_act act = (gemm_act)((const td_linear_act_attr *)a->attr)->activation;
    return act == GEMM_GELU || act == GEMM_GELU_TANH ? 0 : -1;
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

static void some_rows(const void *ctx, int64_t from, int64_t to)
{
    const slopes *s = ctx;
    const int64_t at = from * s->n;
    act_slope_row(s->act, s->h + at, s->g + at, s->by + at, (to - from) * s->n);
}

/* in: g, x, w, b, y, z   out: gx, gw, gb, h */
static bool run_linear_act_backward(const td_kargs *a)
{
    enum { NEED_X = 1, NEED_W = 2, NEED_BIAS = 4 };
    const td_linear_act_backward_attr *o = a->attr;
    const gemm_act act = (gemm_act)o->activation;
    const int64_t n = a->in[2]->dim[0], k = a->in[2]->dim[1], m = n ? td_view_numel(a->in[0]) / n : 0;
    const td_view *by = act == GEMM_GELU || act == GEMM_GELU_TANH ? a->in[5] : a->in[4];
    slopes s = {act, m, n, a->in[0]->p, by ? by->p : NULL, a->out[3]->p, o->need & NEED_BIAS ? a->out[2]->p : NULL};
    const float *h = act == GEMM_AS_IS ? s.g : s.h;
    const sgemm_args gw = {.m = n,
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
                           .ccs = 1,
                           .sums = s.gb};
    const sgemm_args gx = {.m = m,
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
    const bool need_x = o->need & NEED_X, need_w = o->need & NEED_W;
    const bool made =
        act != GEMM_AS_IS && need_x && m * n >= TD_PAR_MIN; /* fewer are not worth a wait for the other threads */
    sgemm_args p[2] = {gx};
    int products = 0;
    if (made) p[products++] = gx;
    if (need_w) p[products++] = gw;
    if (need_x && !made) p[products++] = gx;
    const bool here = ISA(cpu_products_here)(p, products);
    if (here && need_w) s.gb = NULL;
    if (here && made && (need_w || !s.gb))
        return ISA(cpu_sgemm_made)(&(gemm_made){some_rows, &s, m}, true, p, products);
    all_slopes(&s);
    return ISA(cpu_products)(p, products);
}

static const td_kernel rows[] = {
    CPU_KERNEL("linear_act", TD_BIT(TD_F32), 0, run_linear_act, .again = again_linear_act,
               .again_reads = again_linear_act_reads),
    CPU_KERNEL("linear_act_backward", TD_BIT(TD_F32), TD_K_OVER_FIRST, run_linear_act_backward),
};
CPU_TABLE(linear, rows)

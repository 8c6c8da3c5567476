/* conv_pixels.c - conv2d, conv2d_act, conv_transpose2d and conv2d_weight_grad with channels innermost: any kernel and stride, f32.
 *
 * Source rows go to scratch with the channels of a pixel side by side. There the channels of the taps of one kernel row lie
 * side by side as well, so a result pixel is a sum over KH runs of KW C numbers, read where they lie, times weights that are
 * packed once; nothing is copied per tap, and a stride is only a distance. This is for strides, 1x1 kernels and images whose
 * channels are innermost already; conv.c is better with few channels, winograd.c with 3x3.
 *
 * The input gradient of stride s is s s such convolutions, one for each residue of row and column (passes): pixel and tap meet
 * g only where row + padding - tap is a multiple of s. Results of forward and input gradient do not depend on the number of
 * threads; the weight gradient has a sum for each thread.
 *
 * TIDE_PIXELS=0 in the environment leaves all of this to conv.c, TIDE_PIXELS=1 nothing that can be done here.
 *
 * Letters: N batch, C channels in, O channels out, H W planes, KH KW kernel. */
#include "pixels_product.h"
#include <omp.h>
#include <stdlib.h>

enum { MOST_STRIDE = 4, MOST_PASSES = MOST_STRIDE * MOST_STRIDE, BLOCK_BYTES = 192 * 1024, SUMS = 32 * 1024 };

/** One axis of a convolution or its input gradient, in coarse pixels: those of y, or for the gradient groups of `step` of x. */
typedef struct {
    int64_t coarse;     /* pixels                                                                  */
    int64_t from, to;   /* source and result pixels from coarse pixel to coarse pixel              */
    int64_t low, reach; /* source pixels of coarse pixel 0: low .. low + reach                     */
    int64_t passes;
    struct {
        int64_t taps, tap0, tap_step; /* elements of the kernel: tap0, tap0 + tap_step, …          */
        int64_t source, result;       /* of coarse pixel 0: from low, from 0                       */
    } pass[MOST_STRIDE];
} axis;

static axis forward_axis(int64_t out, int64_t kernel, int64_t stride, int64_t pad)
{
    return (axis){out, stride, 1, -pad, kernel, 1, {{kernel, 0, 1, 0, 0}}};
}

static axis gradient_axis(int64_t in, int64_t kernel, int64_t stride, int64_t pad)
{
    axis x = {ceil_div(in, stride), 1, stride, INT64_MAX, 0, stride, {{0}}};
    int64_t high = INT64_MIN;
    for (int64_t k = 0; k < stride; k++) { /* result pixels k, k + stride, … */
        int64_t residue = (k + pad) % stride, taps = residue < kernel ? (kernel - residue - 1) / stride + 1 : 0;
        x.pass[k].taps = taps;
        x.pass[k].tap0 = residue + (taps - 1) * stride; /* the last tap meets the first pixel */
        x.pass[k].tap_step = -stride;
        x.pass[k].source = (k + pad) / stride - (taps - 1);
        x.pass[k].result = k;
        if (taps) {
            x.low = least(x.low, x.pass[k].source);
            high = most(high, x.pass[k].source + taps);
        }
    }
    for (int64_t k = 0; k < stride; k++) x.pass[k].source -= x.low;
    x.reach = high - x.low;
    return x;
}

/** The strides of weights, by what they mean for the products: source and result channel, row and column. */
typedef struct {
    const float *p;
    int64_t c, o, h, w;
} weights;

typedef struct {
    images x, y; /* source and result; for the weight gradient x and g                               */
    axis r, c;
    int64_t rows, blocks;         /* coarse rows of a block; blocks of an image                      */
    int64_t width, wide;          /* pixels of a row of scratch, and of a row of results             */
    int64_t packed;               /* floats of the packed weights or of a thread's sum of gradients  */
    int64_t scratch, temp, start; /* floats for a thread's source and results; for the bias          */
} job;

static void job_make(job *j, images x, images y, axis r, axis c, int threads)
{
    *j = (job){.x = x, .y = y, .r = r, .c = c};
    j->width = (c.coarse - 1) * c.from + c.reach;
    j->wide = c.coarse * c.to;
    int64_t row = (r.from * j->width * x.lanes + r.to * j->wide * y.lanes) * (int64_t)sizeof(float);
    j->rows = least(most(1, BLOCK_BYTES / row), most(1, ceil_div(x.n * r.coarse, 2 * threads)));
    j->rows = ceil_div(r.coarse, ceil_div(r.coarse, least(j->rows, r.coarse)));
    j->blocks = ceil_div(r.coarse, j->rows);
    for (int64_t a = 0; a < r.passes; a++)
        for (int64_t b = 0; b < c.passes; b++) j->packed += r.pass[a].taps * c.pass[b].taps * x.lanes * y.lanes;
    j->scratch = (((j->rows - 1) * r.from + r.reach) * j->width * x.lanes + 16) & ~(int64_t)15;
    j->temp = (j->rows * r.to * j->wide * y.lanes + 15) & ~(int64_t)15;
    j->start = (y.lanes + 15) & ~(int64_t)15;
}

static int64_t job_floats(const job *j, int threads) { return j->packed + j->start + threads * (j->scratch + j->temp); }

/* ---- forward and input gradient ---- */

/** Weights of all passes for result channels o .. o + LANES: u[pass](block of two vectors)(row, column, source channel, lane). */
static void pack(const job *j, float *u, const weights *w, int64_t o)
{
    int64_t have = least(LANES, j->y.c - o), pair = o & ~(int64_t)(2 * LANES - 1),
            wide = least(2 * LANES, j->y.lanes - pair);
    for (int64_t rp = 0; rp < j->r.passes; rp++)
        for (int64_t cp = 0; cp < j->c.passes; cp++) {
            int64_t h = j->r.pass[rp].taps, k = h * j->c.pass[cp].taps * j->x.lanes;
            float *to = u + pair * k + (o - pair);
            for (int64_t a = 0; a < h; a++)
                for (int64_t b = 0; b < j->c.pass[cp].taps; b++) {
                    const float *tap = w->p + (j->r.pass[rp].tap0 + a * j->r.pass[rp].tap_step) * w->h +
                                       (j->c.pass[cp].tap0 + b * j->c.pass[cp].tap_step) * w->w + o * w->o;
                    for (int64_t c = 0; c < j->x.lanes; c++, to += wide)
                        for (int64_t i = 0; i < LANES; i++)
                            to[i] = c < j->x.c && i < have ? tap[c * w->c + i * w->o] : 0;
                }
            u += k * j->y.lanes;
        }
}

/** Rows of pixels, in scratch or in the tensor itself. */
typedef struct {
    float *p;
    int64_t line; /* from row to row */
} pixels;

/** Source rows row .. row + rows, columns from `column` on. */
static pixels source(const images *m, float *scratch, int64_t image, int64_t row, int64_t rows, int64_t column,
                     int64_t width)
{
    if (in_place(m) && row >= 0 && column >= 0 && row + rows <= m->h && column + width <= m->w)
        return (pixels){m->p + image * m->ns + row * m->hs + column * m->ws, m->hs};
    fill_strip(scratch, m, image, row, rows, column, width);
    return (pixels){scratch, width * m->lanes};
}

static pixels block_source(const job *j, float *scratch, int64_t b, int64_t row, int64_t rows)
{
    return source(&j->x, scratch, b / j->blocks, row * j->r.from + j->r.low, (rows - 1) * j->r.from + j->r.reach,
                  j->c.low, j->width);
}

/** Coarse rows 0 .. rows of a block. */
static void multiply(const job *j, pixels y, pixels x, const float *u, const float *start, int64_t rows)
{
    int64_t in = j->x.lanes, out = j->y.lanes;
    for (int64_t rp = 0; rp < j->r.passes; rp++)
        for (int64_t cp = 0; cp < j->c.passes; cp++) {
            int64_t h = j->r.pass[rp].taps, w = j->c.pass[cp].taps, k = h * w * in;
            sum s = {.len = w * in, .runs = w ? h : 0, .a = j->c.from * in, .jump = x.line, .c = j->c.to * out};
            const float *from = x.p + j->r.pass[rp].source * x.line + j->c.pass[cp].source * in;
            float *to = y.p + j->r.pass[rp].result * y.line + j->c.pass[cp].result * out;
            int64_t n = j->c.coarse, lines = rows;
            if (h == 1 && j->r.from == 1 && j->r.to == 1 && x.line == n * s.a &&
                y.line == n * s.c) { /* rows in one go */
                n *= rows;
                lines = 1;
            }
            for (int64_t o = 0; o < out; o += 2 * LANES)
                for (int64_t i = 0; i < lines; i++)
                    in_groups(forwards, out - o > LANES, &s, to + i * j->r.to * y.line + o, s.c,
                              start ? start + o : NULL, from + i * j->r.from * x.line, s.a, u + o * k, n);
            u += k * out;
        }
}

/** The relu of rows of results that have just been written. */
static void rectify(const job *j, pixels y, int64_t rows)
{
    int64_t n = j->wide * j->y.lanes;
    for (int64_t i = 0; i < rows; i++) {
        float *p = y.p + i * y.line;
        for (int64_t e = 0; e < n; e++) p[e] = p[e] < 0 ? 0 : p[e];
    }
}

static void job_run(const job *j, const weights *w, const td_view *bias, bool relu, float *ws, int threads)
{
    float *u = ws, *start = ws + j->packed;
#pragma omp parallel num_threads(threads) if (threads > 1)
    {
        float *scratch = start + j->start + omp_get_thread_num() * (j->scratch + j->temp), *temp = scratch + j->scratch;
#pragma omp for schedule(static)
        for (int64_t o = 0; o < j->y.lanes; o += LANES) {
            pack(j, u, w, o);
            for (int64_t i = o; bias && i < o + LANES; i++)
                start[i] = i < j->y.c ? ((const float *)bias->p)[i * bias->stride[0]] : 0;
        }
#pragma omp for schedule(dynamic)
        for (int64_t b = 0; b < j->x.n * j->blocks; b++) {
            int64_t row = b % j->blocks * j->rows, rows = least(j->rows, j->r.coarse - row);
            pixels x = block_source(j, scratch, b, row, rows), y = {temp, j->wide * j->y.lanes};
            bool direct = in_place(&j->y) && j->wide == j->y.w && (row + rows) * j->r.to <= j->y.h;
            if (direct) y = (pixels){j->y.p + b / j->blocks * j->y.ns + row * j->r.to * j->y.hs, j->y.hs};
            multiply(j, y, x, u, bias ? start : NULL, rows);
            if (relu) rectify(j, y, rows * j->r.to);
            if (!direct) empty_strip(&j->y, b / j->blocks, row * j->r.to, rows * j->r.to, j->wide, temp);
        }
    }
}

/* ---- weight gradient ---- */

/** sums[row, column, source channel][result channel] += products of source and g of one block. */
static void multiply_add(const job *j, float *sums, pixels x, const float *g, int64_t rows)
{
    int64_t in = j->x.lanes, out = j->y.lanes, k = j->c.pass[0].taps * in;
    sum s = {.len = j->c.coarse, .runs = rows, .a = j->c.from * in, .jump = j->r.from * x.line, .b = out, .c = out};
    for (int64_t a = 0; a < j->r.pass[0].taps; a++)
        for (int64_t o = 0; o < out; o += 2 * LANES)
            in_groups(weightses, out - o > LANES, &s, sums + a * k * out + o, out, NULL, x.p + a * x.line, 1, g + o, k);
}

/** gw (O, C, KH, KW) of result channel o: the parts' sums in order. */
static void collect(const job *j, float *gw, const float *sums, int parts, int64_t o)
{
    int64_t kh = j->r.pass[0].taps, kw = j->c.pass[0].taps;
    for (int64_t c = 0; c < j->x.c; c++)
        for (int64_t t = 0; t < kh * kw; t++) {
            float total = 0;
            for (int k = 0; k < parts; k++) total += sums[k * j->packed + (t * j->x.lanes + c) * j->y.lanes + o];
            gw[(o * j->x.c + c) * kh * kw + t] = total;
        }
}

static void job_run_weights(const job *j, float *gw, float *ws, int parts, int threads)
{
#pragma omp parallel num_threads(threads) if (threads > 1)
    {
        float *scratch = ws + parts * j->packed + omp_get_thread_num() * (j->scratch + j->temp),
              *g = scratch + j->scratch;
#pragma omp for schedule(dynamic)
        for (int k = 0; k < parts; k++) {
            float *sums = ws + k * j->packed;
            memset(sums, 0, (size_t)j->packed * sizeof *sums);
            for (int64_t b = k * j->x.n * j->blocks / parts; b < (k + 1) * j->x.n * j->blocks / parts; b++) {
                int64_t row = b % j->blocks * j->rows, rows = least(j->rows, j->r.coarse - row);
                pixels x = block_source(j, scratch, b, row, rows);
                multiply_add(j, sums, x, source(&j->y, g, b / j->blocks, row, rows, 0, j->wide).p, rows);
            }
        }
#pragma omp for schedule(static)
        for (int64_t o = 0; o < j->y.c; o++) collect(j, gw, ws, parts, o);
    }
}

/* ---- the kernels ---- */

enum { FEWEST = 4 }; /* output channels; with fewer, the lanes that hold nothing cost more than turning the image */

static int64_t pair(const td_ints *l, int i) { return l->n == 0 ? 1 : l->v[l->n > 1 ? i : 0]; }
static int64_t padding(const td_ints *l, int i) { return l->n == 0 ? 0 : pair(l, i); }

/* Whether more than a quarter of the lanes would hold nothing. */
static bool wasteful(int64_t channels) { return ceil_div(channels, LANES) * LANES * 3 > 4 * channels; }

/** Whether this is what it is for; src and dst are those of the convolution that it is or is a gradient of, x is the first
 *  operand. With channels innermost no other kernel takes images as they are, and what follows keeps the order that it is given: so
 *  all are taken, also the 3 channels of a photograph, but for results of very few channels. Row by row it wins for strides and kernels
 *  of 1x1, where conv.c copies much and multiplies little. Vectors should be full then, the weight gradient's sums stay in cache. */
static bool accepts(const td_kargs *a, const td_view *src, const td_view *dst, const td_view *w, const td_ints *stride,
                    const td_ints *dilation, int64_t groups)
{
    const char *wanted = getenv("TIDE_PIXELS");
    const td_view *x = a->in[0];
    int64_t c = src->dim[1], o = dst->dim[1], fastest = most(pair(stride, 0), pair(stride, 1));
    if (!td_view_numel(src) || !td_view_numel(dst) || !td_view_numel(w) || groups != 1) return false;
    if (pair(dilation, 0) != 1 || pair(dilation, 1) != 1 || fastest > MOST_STRIDE) return false;
    if (wanted && (!strcmp(wanted, "0") || !strcmp(wanted, "1"))) return *wanted == '1';
    bool innermost = x->stride[1] == 1 && x->dim[1] > 1 && x->stride[3] == x->dim[1];
    if (innermost && o >= FEWEST) return true;
    if (wasteful(o) || wasteful(c)) return false;
    bool points = w->dim[2] == 1 && w->dim[3] == 1;
    bool sums = a->n_in == 2 && w == a->out[0]; /* the weight gradient */
    return (fastest > 1 || points) && (!sums || td_view_numel(w) <= SUMS);
}

static int threads_for(const td_view *dst, const td_view *w)
{
    double products = (double)td_view_numel(dst) * (double)td_view_numel(w) / (double)dst->dim[1];
    return products < 400000 ? 1 : cpu_threads();
}

static int planned(const td_kargs *a) { return a->plan ? (int)(intptr_t)a->plan : 1; }
static int running(const td_kargs *a) { return least(planned(a), cpu_threads()); }

static void conv2d_job(job *j, const td_kargs *a, int threads)
{
    const td_conv2d_attr *o = a->attr;
    const td_view *x = a->in[0], *w = a->in[1], *y = a->out[0];
    job_make(j, images_of(x), images_of(y),
             forward_axis(y->dim[2], w->dim[2], pair(&o->stride, 0), padding(&o->padding, 0)),
             forward_axis(y->dim[3], w->dim[3], pair(&o->stride, 1), padding(&o->padding, 1)), threads);
}

static bool accepts_conv2d(const td_kargs *a)
{
    const td_conv2d_attr *o = a->attr;
    return accepts(a, a->in[0], a->out[0], a->in[1], &o->stride, &o->dilation, o->groups);
}

static bool plan_conv2d(const td_kargs *a, void **plan, size_t *ws_size)
{
    int threads = threads_for(a->out[0], a->in[1]);
    job j;
    conv2d_job(&j, a, threads);
    *plan = (void *)(intptr_t)threads;
    *ws_size = (size_t)job_floats(&j, threads) * sizeof(float);
    return true;
}

static bool forward(const td_kargs *a, bool relu)
{
    const td_view *w = a->in[1];
    job j;
    conv2d_job(&j, a, planned(a));
    job_run(&j, &(weights){w->p, w->stride[1], w->stride[0], w->stride[2], w->stride[3]}, a->in[2], relu, a->ws,
            running(a));
    return true;
}

static bool run_conv2d(const td_kargs *a) { return forward(a, false); }
static bool run_conv2d_act(const td_kargs *a)
{
    return forward(a, ((const td_conv2d_act_attr *)a->attr)->activation == TD_CONV2D_ACT_RELU);
}

static void conv_transpose2d_job(job *j, const td_kargs *a, int threads)
{
    const td_conv_transpose2d_attr *o = a->attr;
    const td_view *x = a->in[0], *w = a->in[1], *y = a->out[0];
    job_make(j, images_of(x), images_of(y),
             gradient_axis(y->dim[2], w->dim[2], pair(&o->stride, 0), padding(&o->padding, 0)),
             gradient_axis(y->dim[3], w->dim[3], pair(&o->stride, 1), padding(&o->padding, 1)), threads);
}

static bool accepts_conv_transpose2d(const td_kargs *a)
{
    const td_conv_transpose2d_attr *o = a->attr;
    return accepts(a, a->out[0], a->in[0], a->in[1], &o->stride, &o->dilation, o->groups);
}

static bool plan_conv_transpose2d(const td_kargs *a, void **plan, size_t *ws_size)
{
    int threads = threads_for(a->in[0], a->in[1]);
    job j;
    conv_transpose2d_job(&j, a, threads);
    *plan = (void *)(intptr_t)threads;
    *ws_size = (size_t)job_floats(&j, threads) * sizeof(float);
    return true;
}

static bool run_conv_transpose2d(const td_kargs *a)
{
    const td_view *w = a->in[1];
    job j;
    conv_transpose2d_job(&j, a, planned(a));
    job_run(&j, &(weights){w->p, w->stride[0], w->stride[1], w->stride[2], w->stride[3]}, a->in[2], false, a->ws,
            running(a));
    return true;
}

static void weight_grad_job(job *j, const td_kargs *a, int threads)
{
    const td_conv2d_weight_grad_attr *o = a->attr;
    const td_view *x = a->in[0], *g = a->in[1], *w = a->out[0];
    job_make(j, images_of(x), images_of(g),
             forward_axis(g->dim[2], w->dim[2], pair(&o->stride, 0), padding(&o->padding, 0)),
             forward_axis(g->dim[3], w->dim[3], pair(&o->stride, 1), padding(&o->padding, 1)), threads);
}

static bool accepts_weight_grad(const td_kargs *a)
{
    const td_conv2d_weight_grad_attr *o = a->attr;
    return accepts(a, a->in[0], a->in[1], a->out[0], &o->stride, &o->dilation, o->groups);
}

static bool plan_weight_grad(const td_kargs *a, void **plan, size_t *ws_size)
{
    int threads = threads_for(a->in[1], a->out[0]);
    job j;
    weight_grad_job(&j, a, threads);
    *plan = (void *)(intptr_t)threads;
    *ws_size = (size_t)(threads * (j.packed + j.scratch + j.temp)) * sizeof(float);
    return true;
}

static bool run_weight_grad(const td_kargs *a)
{
    job j;
    weight_grad_job(&j, a, planned(a));
    job_run_weights(&j, a->out[0]->p, a->ws, planned(a), running(a));
    return true;
}

enum { BEFORE_CONV = 5 }; /* asked after winograd.c, before conv.c */
#define PIXELS(op, run_, name, ...)                                                                        \
    CPU_KERNEL(op, TD_BIT(TD_F32), TD_K_STRIDED, run_, .priority = BEFORE_CONV, .accepts = accepts_##name, \
               .plan = plan_##name, ##__VA_ARGS__)

static const td_kernel rows[] = {
    PIXELS("conv2d", run_conv2d, conv2d, .layout = layout_like_first),
    PIXELS("conv2d_act", run_conv2d_act, conv2d, .layout = layout_like_first),
    PIXELS("conv_transpose2d", run_conv_transpose2d, conv_transpose2d, .layout = layout_like_first),
    PIXELS("conv2d_weight_grad", run_weight_grad, weight_grad),
};
CPU_TABLE(conv_pixels, rows)

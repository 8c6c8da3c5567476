/* winograd.c - conv2d, conv2d_act, conv_transpose2d and conv2d_weight_grad with kernels of 3x3, stride 1, by Winograd's minimal filtering
 * F(4x4, 3x3) (Lavin & Gray 2015, arXiv:1509.09308): 36 multiplications where the definition has 144.
 *
 * Tiles of 4x4 results are worked off in blocks, small enough that all that is made of one stays in the second level cache:
 *
 *     1. source rows into scratch, channels innermost       2. each 6x6 tile to its 36 points: v[point](tile, channel)
 *     3. at each point a product with the taps' points: m[point](tile, result channel)        4. back to 4x4 results
 *
 * m is written over v, from the front, and source and result rows lie where nothing else does at their time.
 *
 * The weight gradient takes x and g to their points and sums v^T z over all tiles, point by point. Results of forward and
 * input gradient do not depend on the number of threads; the weight gradient has a sum for each thread.
 *
 * Errors are about those of a plain sum in f32 (see winograd_tile.h), but an infinity or NaN spreads over its tile.
 * TIDE_WINOGRAD=0 in the environment leaves all of this to conv.c, TIDE_WINOGRAD=1 nothing that can be done here.
 *
 * Letters: N batch, C channels in, O channels out, H W planes. */
#include "pixels_product.h"
#include "winograd_taps.h"
#include <math.h>
#include <omp.h>
#include <stdlib.h>

/** Strips at .. at + n, all of one image and not too many for scratch: how many there are up to `end`. */
static int64_t same_image(const job *j, int64_t at, int64_t end)
{
    return least(least(end - at, j->down - at % j->down), j->most);
}

/** Source tiles of strips first .. end to v. */
static void source_points(const job *j, float *v, float *scratch, int64_t first, int64_t end)
{
    int64_t width = 4 * j->across + 2, line = width * j->x.lanes;
    for (int64_t at = first, n; at < end; at += n) {
        n = same_image(j, at, end);
        fill_strip(scratch, &j->x, at / j->down, at % j->down * 4 - j->pad_h, 4 * n + 2, -j->pad_w, width);
        for (int64_t i = 0; i < n; i++)
            for (int64_t t = 0; t < j->across; t += CHUNK)
                for (int64_t c = 0; c < j->x.lanes; c += LANES)
                    tiles_to_points(v + ((at - first + i) * j->across + t) * j->x.lanes + c, j->v_point, j->x.lanes,
                                    scratch + 4 * i * line + 4 * t * j->x.lanes + c, line, j->x.lanes,
                                    (int)least(CHUNK, j->across - t));
    }
}

/* Pieces in which threads share the work on taps: a vector of result channels, some source channels. */
enum { PIECE = 16 };
static int64_t pieces(const job *j) { return ceil_div(j->x.c, PIECE) * (j->y.lanes / LANES); }
static int64_t piece_o(const job *j, int64_t i) { return i / ceil_div(j->x.c, PIECE) * LANES; }
static int64_t piece_c(const job *j, int64_t i) { return i % ceil_div(j->x.c, PIECE) * PIECE; }

/* ---- forward and input gradient ---- */

/** m = v u at each point, in place of v; `row` has room for a row of points. */
static void multiply(const job *j, float *m, const float *v, const float *u, float *row, int64_t tiles)
{
    int64_t in = j->x.lanes, out = j->y.lanes, depth = j->x.c;
    sum s = {.len = depth, .runs = 1, .a = in, .c = out};
    int together = j->by_rows ? 6 : 1;
    for (int p = 0; p < POINTS; p += together)
        for (int64_t o = 0; o < out; o += 2 * LANES) {
            const float *taps = u + p * j->u_point + o * depth;
            if (j->by_rows) {
                rows_of_points[p / 6][out - o > LANES](row, j->u_point, u + 9 * o * depth, depth);
                taps = row;
            }
            for (int q = p; q < p + together; q++, taps += j->u_point)
                in_groups(forwards, out - o > LANES, &s, m + q * j->z_point + o, out, NULL, v + q * j->v_point, in,
                          taps, tiles);
        }
}

/** Results of strips first .. end from m. */
static void results(const job *j, const float *m, float *scratch, const float *bias, int64_t bias_step, bool relu,
                    int64_t first, int64_t end)
{
    int64_t width = 4 * j->across, line = width * j->y.lanes;
    for (int64_t at = first, n; at < end; at += n) {
        n = same_image(j, at, end);
        for (int64_t c = 0; c < j->y.lanes; c += LANES) {
            float lanes[LANES] = {0};
            for (int64_t i = 0; bias && i < least(LANES, j->y.c - c); i++) lanes[i] = bias[(c + i) * bias_step];
            for (int64_t i = 0; i < n; i++)
                points_to_tiles(scratch + 4 * i * line + c, line, j->y.lanes,
                                m + (at - first + i) * j->across * j->y.lanes + c, j->z_point, j->y.lanes, load(lanes),
                                relu ? 0 : -INFINITY, (int)j->across);
        }
        empty_strip(&j->y, at / j->down, at % j->down * 4, 4 * n, width, scratch);
    }
}

static void job_run(const job *j, const taps *w, const td_view *bias, bool relu, float *ws, int threads)
{
    float *u = ws;
#pragma omp parallel num_threads(threads) if (threads > 1)
    {
        float *mine = ws + j->taps + (size_t)omp_get_thread_num() * j->each, *v = mine + j->v, *m = mine + j->z;
#pragma omp for schedule(static)
        for (int64_t i = 0; i < pieces(j); i++)
            taps_points(j, u, w, piece_o(j, i), piece_c(j, i), least(j->x.c, piece_c(j, i) + PIECE));
#pragma omp for schedule(dynamic)
        for (int64_t b = 0; b < j->blocks; b++) {
            int64_t first = b * j->some, end = least(j->strips, first + j->some);
            source_points(j, v, mine + j->in, first, end);
            multiply(j, m, v, u, mine, (end - first) * j->across);
            results(j, m, mine + j->out, bias ? bias->p : NULL, bias ? bias->stride[0] : 0, relu, first, end);
        }
    }
}

/* ---- weight gradient ---- */

/** Tiles of g of strips first .. end to z. */
static void gradient_points(const job *j, float *z, float *scratch, int64_t first, int64_t end)
{
    int64_t width = 4 * j->across, line = width * j->y.lanes;
    for (int64_t at = first, n; at < end; at += n) {
        n = same_image(j, at, end);
        fill_strip(scratch, &j->y, at / j->down, at % j->down * 4, 4 * n, 0, width);
        for (int64_t i = 0; i < n; i++)
            for (int64_t c = 0; c < j->y.lanes; c += LANES)
                grads_to_points(z + (at - first + i) * j->across * j->y.lanes + c, j->z_point, j->y.lanes,
                                scratch + 4 * i * line + c, line, j->y.lanes, (int)j->across);
    }
}

/** sums += v^T z at each point: sums[point](source channel, result channel). */
static void multiply_add(const job *j, float *sums, const float *v, const float *z, int64_t tiles)
{
    int64_t in = j->x.lanes, out = j->y.lanes;
    sum s = {.len = tiles, .runs = 1, .a = in, .b = out, .c = out};
    for (int64_t p = 0; p < POINTS; p++, v += j->v_point, z += j->z_point, sums += j->u_point)
        for (int64_t o = 0; o < out; o += 2 * LANES)
            in_groups(weightses, out - o > LANES, &s, sums + o, out, NULL, v, 1, z + o, j->x.c);
}

/** gw (O, C, 3, 3) for source channels c .. end, result channels o .. o + LANES, from the sums of all threads. */
static void collect(const job *j, float *gw, const float *sums, int parts, int64_t o, int64_t c, int64_t end)
{
    int64_t have = least(LANES, j->y.c - o);
    for (; c < end; c++) {
        vec_f32 half[6][3];
        for (int b = 0; b < 6; b++) {
            vec_f32 column[6];
            for (int a = 0; a < 6; a++) {
                const float *from = sums + (6 * a + b) * j->u_point + c * j->y.lanes + o;
                column[a] = load(from);
                for (int k = 1; k < parts; k++) column[a] += load(from + (size_t)k * j->taps);
            }
            taps_from_points(half[b], column);
        }
        for (int a = 0; a < 3; a++) {
            vec_f32 line[6], done[3];
            for (int b = 0; b < 6; b++) line[b] = half[b][a];
            taps_from_points(done, line);
            for (int b = 0; b < 3; b++)
                for (int64_t i = 0; i < have; i++) gw[(((o + i) * j->x.c + c) * 3 + a) * 3 + b] = done[b][i];
        }
    }
}

static void job_run_weights(const job *j, float *gw, float *ws, int parts, int threads)
{
#pragma omp parallel num_threads(threads) if (threads > 1)
    {
        float *scratch = ws + (size_t)parts * j->taps + (size_t)omp_get_thread_num() * j->each;
        float *v = scratch + j->v, *z = scratch + j->z;
#pragma omp for schedule(dynamic)
        for (int k = 0; k < parts; k++) {
            float *sums = ws + (size_t)k * j->taps;
            memset(sums, 0, j->taps * sizeof *sums);
            for (int64_t b = k * j->blocks / parts; b < (k + 1) * j->blocks / parts; b++) {
                int64_t first = b * j->some, end = least(j->strips, first + j->some);
                source_points(j, v, scratch, first, end);
                gradient_points(j, z, scratch, first, end);
                multiply_add(j, sums, v, z, (end - first) * j->across);
            }
        }
#pragma omp for schedule(static)
        for (int64_t i = 0; i < pieces(j); i++)
            collect(j, gw, ws, parts, piece_o(j, i), piece_c(j, i), least(j->x.c, piece_c(j, i) + PIECE));
    }
}

/* ---- which problems ---- */

static bool all_are(const td_ints *l, int64_t v)
{
    for (int64_t i = 0; i < l->n; i++)
        if (l->v[i] != v) return false;
    return true;
}

static int64_t pair(const td_ints *l, int i) { return l->n == 0 ? 0 : l->v[l->n > 1 ? i : 0]; }

/** Whether tiles cost less than the definition, n images of c channels to o of h x w pixels; in multiply-adds of vectors,
 * with what transforms were measured to cost (Zen 3). */
static bool wins(int64_t n, int64_t c, int64_t o, int64_t h, int64_t w)
{
    const char *wanted = getenv("TIDE_WINOGRAD");
    if (!n || !c || !o || !h || !w) return false;
    if (wanted && (!strcmp(wanted, "0") || !strcmp(wanted, "1"))) return *wanted == '1';
    double tiles = (double)n * (double)ceil_div(h, 4) * (double)ceil_div(w, 4);
    double cv = (double)ceil_div(c, LANES), ov = (double)ceil_div(o, LANES);
    double direct = (double)n * (double)h * (double)w * 9 * (double)c * (double)o / LANES;
    double points = tiles * (36 * (double)c * ov + 350 * cv + 300 * ov) + (double)c * ov * 600;
    return points < 0.9 * direct;
}

static int threads_for(const td_view *x, const td_view *y)
{
    double m = (double)td_view_numel(y) * (double)x->dim[1] * 9;
    return m < 400000 ? 1 : cpu_threads();
}

static bool accepts_conv2d(const td_kargs *a)
{
    const td_conv2d_attr *o = a->attr;
    const td_view *w = a->in[1], *y = a->out[0];
    return w->dim[2] == 3 && w->dim[3] == 3 && o->groups == 1 && all_are(&o->stride, 1) && all_are(&o->dilation, 1) &&
           wins(y->dim[0], w->dim[1], w->dim[0], y->dim[2], y->dim[3]);
}

static bool plan_job(const job *j, int threads, void **plan, size_t *ws_size)
{
    *plan = (void *)(intptr_t)threads; /* nobody follows it */
    *ws_size = (j->taps + (size_t)threads * j->each) * sizeof(float);
    return true;
}

static int planned(const td_kargs *a) { return a->plan ? (int)(intptr_t)a->plan : 1; }
static int running(const td_kargs *a) { return planned(a) < cpu_threads() ? planned(a) : cpu_threads(); }

static bool plan_conv2d(const td_kargs *a, void **plan, size_t *ws_size)
{
    const td_conv2d_attr *o = a->attr;
    int threads = threads_for(a->in[0], a->out[0]);
    job j;
    job_make_results(&j, a->in[0], a->out[0], pair(&o->padding, 0), pair(&o->padding, 1), threads);
    return plan_job(&j, threads, plan, ws_size);
}

static bool forward(const td_kargs *a, bool relu)
{
    const td_conv2d_attr *o = a->attr;
    const td_view *w = a->in[1];
    job j;
    job_make_results(&j, a->in[0], a->out[0], pair(&o->padding, 0), pair(&o->padding, 1), planned(a));
    taps t = {w->p, w->stride[0], w->stride[1], w->stride[2], w->stride[3]};
    job_run(&j, &t, a->in[2], relu, a->ws, running(a));
    return true;
}

static bool run_conv2d(const td_kargs *a) { return forward(a, false); }
static bool run_conv2d_act(const td_kargs *a)
{
    return forward(a, ((const td_conv2d_act_attr *)a->attr)->activation == TD_CONV2D_ACT_RELU);
}

/* conv_transpose2d with stride 1 is conv2d with turned taps and padding 2 - padding. */
static bool accepts_conv_transpose2d(const td_kargs *a)
{
    const td_conv_transpose2d_attr *o = a->attr;
    const td_view *w = a->in[1], *y = a->out[0];
    return w->dim[2] == 3 && w->dim[3] == 3 && o->groups == 1 && all_are(&o->stride, 1) && all_are(&o->dilation, 1) &&
           pair(&o->padding, 0) <= 2 && pair(&o->padding, 1) <= 2 &&
           wins(y->dim[0], w->dim[0], w->dim[1], y->dim[2], y->dim[3]);
}

static bool plan_conv_transpose2d(const td_kargs *a, void **plan, size_t *ws_size)
{
    const td_conv_transpose2d_attr *o = a->attr;
    int threads = threads_for(a->in[0], a->out[0]);
    job j;
    job_make_results(&j, a->in[0], a->out[0], 2 - pair(&o->padding, 0), 2 - pair(&o->padding, 1), threads);
    return plan_job(&j, threads, plan, ws_size);
}

static bool run_conv_transpose2d(const td_kargs *a)
{
    const td_conv_transpose2d_attr *o = a->attr;
    const td_view *w = a->in[1];
    job j;
    job_make_results(&j, a->in[0], a->out[0], 2 - pair(&o->padding, 0), 2 - pair(&o->padding, 1), planned(a));
    const float *last = (const float *)w->p + 2 * w->stride[2] + 2 * w->stride[3];
    taps t = {last, w->stride[1], w->stride[0], -w->stride[2], -w->stride[3]};
    job_run(&j, &t, a->in[2], false, a->ws, running(a));
    return true;
}

static bool accepts_weight_grad(const td_kargs *a)
{
    const td_conv2d_weight_grad_attr *o = a->attr;
    const td_view *g = a->in[1], *w = a->out[0];
    return w->dim[2] == 3 && w->dim[3] == 3 && o->groups == 1 && all_are(&o->stride, 1) && all_are(&o->dilation, 1) &&
           wins(g->dim[0], w->dim[1], w->dim[0], g->dim[2], g->dim[3]);
}

static bool plan_weight_grad(const td_kargs *a, void **plan, size_t *ws_size)
{
    const td_conv2d_weight_grad_attr *o = a->attr;
    int threads = threads_for(a->in[0], a->in[1]);
    job j;
    job_make_weights(&j, a->in[0], a->in[1], pair(&o->padding, 0), pair(&o->padding, 1), threads);
    *plan = (void *)(intptr_t)threads;
    *ws_size = (size_t)threads * (j.taps + j.each) * sizeof(float);
    return true;
}

static bool run_weight_grad(const td_kargs *a)
{
    const td_conv2d_weight_grad_attr *o = a->attr;
    job j;
    job_make_weights(&j, a->in[0], a->in[1], pair(&o->padding, 0), pair(&o->padding, 1), planned(a));
    job_run_weights(&j, a->out[0]->p, a->ws, planned(a), running(a));
    return true;
}

enum { BEFORE_CONV = 10 }; /* asked before the kernels of conv.c, which take the rest */
#define WINOGRAD(op, run_, ...) \
    CPU_KERNEL(op, TD_BIT(TD_F32), TD_K_STRIDED, run_, .priority = BEFORE_CONV, ##__VA_ARGS__)

static const td_kernel rows[] = {
    WINOGRAD("conv2d", run_conv2d, .accepts = accepts_conv2d, .plan = plan_conv2d, .layout = layout_like_first),
    WINOGRAD("conv2d_act", run_conv2d_act, .accepts = accepts_conv2d, .plan = plan_conv2d, .layout = layout_like_first),
    WINOGRAD("conv_transpose2d", run_conv_transpose2d, .accepts = accepts_conv_transpose2d,
             .plan = plan_conv_transpose2d, .layout = layout_like_first),
    WINOGRAD("conv2d_weight_grad", run_weight_grad, .accepts = accepts_weight_grad, .plan = plan_weight_grad),
};
CPU_TABLE(winograd, rows)

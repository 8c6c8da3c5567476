/* batch_norm.c - batch_norm, batch_norm_apply (its second half), batch_norm_infer and the gradient, f32
 *
 *     xhat = (x - mean) rstd     z = w xhat + b + r     y = z or relu(z)     rstd = 1 / sqrt(var + eps)     var: population variance
 *     h = g, or 0 where z <= 0   gr = h    gb = sum h   gw = sum h xhat      gx = w rstd (h - gb / n - xhat gw / n)
 *
 * x is (n, c, inner), statistics of each channel over n and inner; r, of the same shape, may be absent. The variance is taken
 * around the mean, in a second pass. The gradient makes z of x once more: y need not be kept. */
#include "norm_sums.h"
#include "vec.h"
#include <math.h>

enum { COLUMNS = 128 };

typedef struct {
    int64_t n, c, inner;
} batch;

static batch batch_of(const td_view *x)
{
    batch b = {x->dim[0], x->dim[1], 1};
    for (int32_t i = 2; i < x->nd; i++) b.inner *= x->dim[i];
    return b;
}

static const float *data(const td_view *v) { return v ? v->p : NULL; }
static const float *from(const float *p, int64_t i) { return p ? p + i : NULL; }

/* ---- rows of one channel, and rows in which every element is of a channel of its own ---- */

VEC_INLINE float relu_of(float z) { return z <= 0 ? 0 : z; }

VEC_INLINE void row(const bool relu, const bool added, float *restrict y, const float *restrict x,
                    const float *restrict r, int64_t n, float mean, float scale, float shift)
{
    for (int64_t j = 0; j < n; j++) {
        float z = (x[j] - mean) * scale + shift;
        if (added) z += r[j];
        y[j] = relu ? relu_of(z) : z;
    }
}

/** y = act((x - mean) scale + shift + r) for n elements; the one place where this is computed, so its bits are the same. */
static void apply_row(bool relu, float *y, const float *x, const float *r, int64_t n, float mean, float scale,
                      float shift)
{
    if (relu && r) row(true, true, y, x, r, n, mean, scale, shift);
    else if (relu) row(true, false, y, x, r, n, mean, scale, shift);
    else if (r) row(false, true, y, x, r, n, mean, scale, shift);
    else row(false, false, y, x, r, n, mean, scale, shift);
}

/** mean, scale and shift of channels c .. c + m. */
typedef struct {
    float mean[COLUMNS], scale[COLUMNS], shift[COLUMNS];
} columns;

static void apply_columns(bool relu, float *restrict y, const float *restrict x, const float *restrict r, int64_t m,
                          const columns *k)
{
    for (int64_t j = 0; j < m; j++) {
        float z = (x[j] - k->mean[j]) * k->scale[j] + k->shift[j];
        if (r) z += r[j];
        y[j] = relu ? relu_of(z) : z;
    }
}

/** All of channel c: planes that lie c inner apart. */
static void apply_channel(bool relu, float *y, const float *x, const float *r, batch s, int64_t c, float mean,
                          float scale, float shift)
{
    for (int64_t i = 0; i < s.n; i++) {
        int64_t at = (i * s.c + c) * s.inner;
        apply_row(relu, y + at, x + at, from(r, at), s.inner, mean, scale, shift);
    }
}

static void apply_all_columns(bool relu, float *y, const float *x, const float *r, batch s, int64_t c, int64_t m,
                              const columns *k)
{
    for (int64_t at = c; at < s.n * s.c; at += s.c) apply_columns(relu, y + at, x + at, from(r, at), m, k);
}

/** Channels that are done together: with inner 1, rows of them are what lies side by side. */
static int64_t channels_at_once(batch s) { return s.inner == 1 ? COLUMNS : 1; }
static int64_t rest(int64_t all, int64_t c, int64_t most) { return all - c < most ? all - c : most; }

/* ---- batch_norm ---- */

static void batch_norm_channel(const td_kargs *a, batch s, int64_t c)
{
    const td_batch_norm_attr *o = a->attr;
    const float *x = (const float *)a->in[0]->p;
    double sum = 0, squares = 0, count = (double)s.n * (double)s.inner;
    for (int64_t i = 0; i < s.n; i++) sum += norm_sum(x + (i * s.c + c) * s.inner, s.inner);
    float mean = (float)(sum / count);
    for (int64_t i = 0; i < s.n; i++) squares += norm_squares(x + (i * s.c + c) * s.inner, s.inner, mean);
    float rstd = (float)(1 / sqrt(squares / count + o->eps));
    apply_channel(o->activation == TD_BATCH_NORM_RELU, a->out[0]->p, x, data(a->in[3]), s, c, mean,
                  norm_at(a->in[1], c, 1) * rstd, norm_at(a->in[2], c, 0));
    ((float *)a->out[1]->p)[c] = mean;
    ((float *)a->out[2]->p)[c] = rstd;
}

/** Channels c .. c + m of x (n, c), with inner 1. */
static void batch_norm_columns(const td_kargs *a, batch s, int64_t c, int64_t m)
{
    const td_batch_norm_attr *o = a->attr;
    const float *x = (const float *)a->in[0]->p + c;
    float *rstds = (float *)a->out[2]->p + c;
    double sum[COLUMNS] = {0}, squares[COLUMNS] = {0};
    columns k;
    for (int64_t i = 0; i < s.n; i++)
        for (int64_t j = 0; j < m; j++) sum[j] += (double)x[i * s.c + j];
    for (int64_t j = 0; j < m; j++) ((float *)a->out[1]->p)[c + j] = k.mean[j] = (float)(sum[j] / (double)s.n);
    for (int64_t i = 0; i < s.n; i++)
        for (int64_t j = 0; j < m; j++) {
            double d = (double)(x[i * s.c + j] - k.mean[j]);
            squares[j] += d * d;
        }
    for (int64_t j = 0; j < m; j++) {
        rstds[j] = (float)(1 / sqrt(squares[j] / (double)s.n + o->eps));
        k.scale[j] = norm_at(a->in[1], c + j, 1) * rstds[j];
        k.shift[j] = norm_at(a->in[2], c + j, 0);
    }
    apply_all_columns(o->activation == TD_BATCH_NORM_RELU, a->out[0]->p, a->in[0]->p, data(a->in[3]), s, c, m, &k);
}

static bool run_batch_norm(const td_kargs *a)
{
    batch s = batch_of(a->in[0]);
    int64_t step = channels_at_once(s);
#pragma omp parallel for if (s.n * s.c * s.inner > TD_PAR_MIN)
    for (int64_t c = 0; c < s.c; c += step) {
        if (step == 1) batch_norm_channel(a, s, c);
        else batch_norm_columns(a, s, c, rest(s.c, c, COLUMNS));
    }
    return true;
}

/** y once more, from x, w, b, r and the statistics. */
static bool again_batch_norm(const td_kargs *a)
{
    const bool relu = ((const td_batch_norm_attr *)a->attr)->activation == TD_BATCH_NORM_RELU;
    const batch s = batch_of(a->in[0]);
    const int64_t step = channels_at_once(s);
    const float *x = a->in[0]->p, *r = data(a->in[3]);
#pragma omp parallel for if (s.n * s.c * s.inner > TD_PAR_MIN)
    for (int64_t c = 0; c < s.c; c += step) {
        columns k;
        const int64_t m = rest(s.c, c, step);
        for (int64_t j = 0; j < m; j++) {
            k.mean[j] = norm_at(a->out[1], c + j, 0);
            k.scale[j] = norm_at(a->in[1], c + j, 1) * norm_at(a->out[2], c + j, 0);
            k.shift[j] = norm_at(a->in[2], c + j, 0);
        }
        if (step == 1) apply_channel(relu, a->out[0]->p, x, r, s, c, k.mean[0], k.scale[0], k.shift[0]);
        else apply_all_columns(relu, a->out[0]->p, x, r, s, c, m, &k);
    }
    return true;
}

static int64_t again_batch_norm_reads(const td_kargs *a)
{
    (void)a;
    return 1 | 2 | 4 | 8;
}

/* ---- batch_norm_apply and batch_norm_infer: the same, with statistics that are given ---- */

/** mean, scale and shift of channel c, from inputs mean, rstd or var, w, b. */
static void given(const td_kargs *a, int64_t c, const double *eps, float *mean, float *scale, float *shift)
{
    float spread = norm_at(a->in[2], c, 1), rstd = eps ? (float)(1 / sqrt((double)spread + *eps)) : spread;
    *mean = norm_at(a->in[1], c, 0);
    *scale = norm_at(a->in[3], c, 1) * rstd;
    *shift = norm_at(a->in[4], c, 0);
}

/** in: x, mean, var or (eps NULL) rstd, w?, b?, r? */
static bool apply(const td_kargs *a, bool relu, const double *eps)
{
    batch s = batch_of(a->in[0]);
    int64_t step = channels_at_once(s);
#pragma omp parallel for if (s.n * s.c * s.inner > TD_PAR_MIN)
    for (int64_t c = 0; c < s.c; c += step) {
        columns k;
        int64_t m = rest(s.c, c, step);
        for (int64_t j = 0; j < m; j++) given(a, c + j, eps, &k.mean[j], &k.scale[j], &k.shift[j]);
        if (step == 1)
            apply_channel(relu, a->out[0]->p, a->in[0]->p, data(a->in[5]), s, c, *k.mean, *k.scale, *k.shift);
        else apply_all_columns(relu, a->out[0]->p, a->in[0]->p, data(a->in[5]), s, c, m, &k);
    }
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

/* ---- batch_norm_backward ---- */

/** What a channel's gradient is made of. */
typedef struct {
    const float *g, *x, *r;
    float *gx, *gr;
    float mean, scale, shift, mean_h, slope;
} channel;

/** h of element j, from z. */
VEC_INLINE float passed(const bool relu, const bool added, const channel *k, const float *g, const float *x,
                        const float *r, int64_t j)
{
    if (!relu) return g[j];
    float z = (x[j] - k->mean) * k->scale + k->shift;
    if (added) z += r[j];
    return z <= 0 ? 0 : g[j];
}

/** Adds sum h and sum h (x - mean) of n elements at `at` to *a and *b, and writes gr where r was added. */
VEC_INLINE void sums(const bool relu, const bool added, const channel *k, int64_t at, int64_t n, double *a, double *b)
{
    const channel c = *k;
    const float *restrict g = c.g + at, *restrict x = c.x + at, *restrict r = added ? c.r + at : NULL;
    float *restrict gr = added ? c.gr + at : NULL;
    for (int64_t i = 0; i < n; i += NORM_BLOCK) {
        int64_t end = n - i < NORM_BLOCK ? n : i + NORM_BLOCK;
        float s = 0, t = 0;
#pragma omp simd reduction(+ : s, t)
        for (int64_t j = i; j < end; j++) {
            float h = passed(relu, added, &c, g, x, r, j);
            if (added) gr[j] = h;
            s += h;
            t += h * (x[j] - c.mean);
        }
        *a += (double)s;
        *b += (double)t;
    }
}

VEC_INLINE void slopes(const bool relu, const bool added, const channel *k, int64_t at, int64_t n)
{
    const channel c = *k;
    const float *restrict g = (added ? c.gr : c.g) + at, *restrict x = c.x + at;
    float *restrict gx = c.gx + at;
    for (int64_t j = 0; j < n; j++) {
        float h = passed(relu && !added, false, &c, g, x, NULL, j);
        gx[j] = c.scale * (h - c.mean_h - (x[j] - c.mean) * c.slope);
    }
}

/** in: g, x, w?, b?, r?, mean, rstd   out: gx, gw, gb, gr */
VEC_INLINE void channel_backward(const bool relu, const bool added, const td_kargs *a, batch s, int64_t c)
{
    float rstd = norm_at(a->in[6], c, 0);
    channel k = {.g = a->in[0]->p,
                 .x = a->in[1]->p,
                 .r = data(a->in[4]),
                 .gx = a->out[0]->p,
                 .gr = a->out[3]->p,
                 .mean = norm_at(a->in[5], c, 0),
                 .scale = norm_at(a->in[2], c, 1) * rstd,
                 .shift = norm_at(a->in[3], c, 0)};
    double gb = 0, gw = 0, count = (double)s.n * (double)s.inner;
    for (int64_t i = 0; i < s.n; i++) sums(relu, added, &k, (i * s.c + c) * s.inner, s.inner, &gb, &gw);
    gw *= (double)rstd;
    k.mean_h = (float)(gb / count);
    k.slope = (float)(gw / count) * rstd;
    for (int64_t i = 0; i < s.n; i++) slopes(relu, added, &k, (i * s.c + c) * s.inner, s.inner);
    ((float *)a->out[1]->p)[c] = (float)gw;
    ((float *)a->out[2]->p)[c] = (float)gb;
}

static void batch_norm_channel_backward(const td_kargs *a, batch s, int64_t c, bool relu)
{
    if (relu && a->in[4]) channel_backward(true, true, a, s, c);
    else if (relu) channel_backward(true, false, a, s, c);
    else channel_backward(false, false, a, s, c);
}

static void batch_norm_columns_backward(const td_kargs *a, batch s, int64_t c, int64_t m, bool relu)
{
    const float *g = (const float *)a->in[0]->p + c, *x = (const float *)a->in[1]->p + c, *r = from(data(a->in[4]), c);
    float *gx = (float *)a->out[0]->p + c, *gr = relu && r ? (float *)a->out[3]->p + c : NULL;
    float mean_h[COLUMNS], slope[COLUMNS], h[COLUMNS] = {0};
    double gb[COLUMNS] = {0}, gw[COLUMNS] = {0};
    columns k;
    for (int64_t j = 0; j < m; j++) {
        k.mean[j] = norm_at(a->in[5], c + j, 0);
        k.scale[j] = norm_at(a->in[2], c + j, 1) * norm_at(a->in[6], c + j, 0);
        k.shift[j] = norm_at(a->in[3], c + j, 0);
    }
    for (int64_t i = 0; i < s.n; i++) {
        if (relu) apply_columns(false, h, x + i * s.c, from(r, i * s.c), m, &k);
        for (int64_t j = 0; j < m; j++) {
            h[j] = relu && h[j] <= 0 ? 0 : g[i * s.c + j];
            if (gr) gr[i * s.c + j] = h[j];
            gb[j] += (double)h[j];
            gw[j] += (double)(h[j] * (x[i * s.c + j] - k.mean[j]));
        }
    }
    for (int64_t j = 0; j < m; j++) {
        float rstd = norm_at(a->in[6], c + j, 0);
        gw[j] *= (double)rstd;
        mean_h[j] = (float)(gb[j] / (double)s.n);
        slope[j] = (float)(gw[j] / (double)s.n) * rstd;
        ((float *)a->out[1]->p)[c + j] = (float)gw[j];
        ((float *)a->out[2]->p)[c + j] = (float)gb[j];
    }
    for (int64_t i = 0; i < s.n; i++) {
        if (relu) apply_columns(false, h, x + i * s.c, from(r, i * s.c), m, &k);
        for (int64_t j = 0; j < m; j++) {
            float hj = relu && h[j] <= 0 ? 0 : g[i * s.c + j];
            gx[i * s.c + j] = k.scale[j] * (hj - mean_h[j] - (x[i * s.c + j] - k.mean[j]) * slope[j]);
        }
    }
}

static bool run_batch_norm_backward(const td_kargs *a)
{
    bool relu = ((const td_batch_norm_backward_attr *)a->attr)->activation == TD_BATCH_NORM_BACKWARD_RELU;
    batch s = batch_of(a->in[1]);
    int64_t step = channels_at_once(s);
#pragma omp parallel for if (s.n * s.c * s.inner > TD_PAR_MIN)
    for (int64_t c = 0; c < s.c; c += step) {
        if (step == 1) batch_norm_channel_backward(a, s, c, relu);
        else batch_norm_columns_backward(a, s, c, rest(s.c, c, COLUMNS), relu);
    }
    return true;
}

static const td_kernel rows[] = {
    CPU_KERNEL("batch_norm", TD_BIT(TD_F32), 0, run_batch_norm, .again = again_batch_norm,
               .again_reads = again_batch_norm_reads),
    CPU_KERNEL("batch_norm_apply", TD_BIT(TD_F32), 0, run_batch_norm_apply),
    CPU_KERNEL("batch_norm_backward", TD_BIT(TD_F32), 0, run_batch_norm_backward),
    CPU_KERNEL("batch_norm_infer", TD_BIT(TD_F32), 0, run_batch_norm_infer),
};
CPU_TABLE(batch_norm, rows)

/* batch_norm.c - batch_norm, its gradient and batch_norm_infer, f32
 *
 *     xhat = (x - mean) rstd     y = w xhat + b     rstd = 1 / sqrt(var + eps)     var: population variance
 *     gb = sum g     gw = sum g xhat     gx = w rstd (g - gb / n - xhat gw / n)
 *
 * x is (n, c, inner), statistics of each channel over n and inner. The variance is taken around the mean, in a second
 * pass. */
#include "norm_sums.h"
#include <math.h>

enum { COLUMNS = 128 };

/** Adds sum g and sum g (x - m) to *a and *b. */
static void gradient_sums(const float *g, const float *x, int64_t n, float m, double *a, double *b)
{
    for (int64_t i = 0; i < n; i += NORM_BLOCK) {
        int64_t end = n - i < NORM_BLOCK ? n : i + NORM_BLOCK;
        float s = 0, t = 0;
#pragma omp simd reduction(+ : s, t)
        for (int64_t j = i; j < end; j++) {
            s += g[j];
            t += g[j] * (x[j] - m);
        }
        *a += (double)s;
        *b += (double)t;
    }
}

typedef struct {
    int64_t n, c, inner;
} batch;

static batch batch_of(const td_view *x)
{
    batch b = {x->dim[0], x->dim[1], 1};
    for (int32_t i = 2; i < x->nd; i++) b.inner *= x->dim[i];
    return b;
}

/** One channel: planes of x that lie c inner apart. */
static void batch_norm_channel(const td_kargs *a, batch s, int64_t c, double eps)
{
    const float *x = (const float *)a->in[0]->p + c * s.inner;
    float *y = (float *)a->out[0]->p + c * s.inner;
    double sum = 0, squares = 0, count = (double)s.n * (double)s.inner;
    for (int64_t i = 0; i < s.n; i++) sum += norm_sum(x + i * s.c * s.inner, s.inner);
    float mean = (float)(sum / count);
    for (int64_t i = 0; i < s.n; i++) squares += norm_squares(x + i * s.c * s.inner, s.inner, mean);
    float rstd = (float)(1 / sqrt(squares / count + eps));
    float scale = norm_at(a->in[1], c, 1) * rstd, shift = norm_at(a->in[2], c, 0);
    for (int64_t i = 0; i < s.n; i++) {
        const float *restrict xi = x + i * s.c * s.inner;
        float *restrict yi = y + i * s.c * s.inner;
        for (int64_t j = 0; j < s.inner; j++) yi[j] = (xi[j] - mean) * scale + shift;
    }
    ((float *)a->out[1]->p)[c] = mean;
    ((float *)a->out[2]->p)[c] = rstd;
}

/** Channels c .. c + m of x (n, c), with inner 1: m at a time, for rows of them are what lies side by side. */
static void batch_norm_columns(const td_kargs *a, batch s, int64_t c, int64_t m, double eps)
{
    const float *x = (const float *)a->in[0]->p + c;
    float *y = (float *)a->out[0]->p + c, *means = (float *)a->out[1]->p + c, *rstds = (float *)a->out[2]->p + c;
    double sum[COLUMNS] = {0}, squares[COLUMNS] = {0};
    float scale[COLUMNS], shift[COLUMNS];
    for (int64_t i = 0; i < s.n; i++)
        for (int64_t j = 0; j < m; j++) sum[j] += (double)x[i * s.c + j];
    for (int64_t j = 0; j < m; j++) means[j] = (float)(sum[j] / (double)s.n);
    for (int64_t i = 0; i < s.n; i++)
        for (int64_t j = 0; j < m; j++) {
            double d = (double)(x[i * s.c + j] - means[j]);
            squares[j] += d * d;
        }
    for (int64_t j = 0; j < m; j++) {
        rstds[j] = (float)(1 / sqrt(squares[j] / (double)s.n + eps));
        scale[j] = norm_at(a->in[1], c + j, 1) * rstds[j];
        shift[j] = norm_at(a->in[2], c + j, 0);
    }
    for (int64_t i = 0; i < s.n; i++)
        for (int64_t j = 0; j < m; j++) y[i * s.c + j] = (x[i * s.c + j] - means[j]) * scale[j] + shift[j];
}

static bool run_batch_norm(const td_kargs *a)
{
    double eps = ((const td_batch_norm_attr *)a->attr)->eps;
    batch s = batch_of(a->in[0]);
    int64_t step = s.inner == 1 ? COLUMNS : 1;
#pragma omp parallel for if (s.n * s.c * s.inner > TD_PAR_MIN)
    for (int64_t c = 0; c < s.c; c += step) {
        if (step == 1) batch_norm_channel(a, s, c, eps);
        else batch_norm_columns(a, s, c, s.c - c < COLUMNS ? s.c - c : COLUMNS, eps);
    }
    return true;
}

/** in: g, x, w?, mean, rstd   out: gx, gw, gb */
static void batch_norm_channel_backward(const td_kargs *a, batch s, int64_t c)
{
    const float *g = (const float *)a->in[0]->p + c * s.inner, *x = (const float *)a->in[1]->p + c * s.inner;
    float *gx = (float *)a->out[0]->p + c * s.inner, mean = norm_at(a->in[3], c, 0), rstd = norm_at(a->in[4], c, 0);
    double gb = 0, gw = 0, count = (double)s.n * (double)s.inner;
    for (int64_t i = 0; i < s.n; i++)
        gradient_sums(g + i * s.c * s.inner, x + i * s.c * s.inner, s.inner, mean, &gb, &gw);
    gw *= (double)rstd;
    float scale = norm_at(a->in[2], c, 1) * rstd, mean_g = (float)(gb / count), slope = (float)(gw / count) * rstd;
    for (int64_t i = 0; i < s.n; i++) {
        const float *restrict gi = g + i * s.c * s.inner, *restrict xi = x + i * s.c * s.inner;
        float *restrict to = gx + i * s.c * s.inner;
        for (int64_t j = 0; j < s.inner; j++) to[j] = scale * (gi[j] - mean_g - (xi[j] - mean) * slope);
    }
    ((float *)a->out[1]->p)[c] = (float)gw;
    ((float *)a->out[2]->p)[c] = (float)gb;
}

static void batch_norm_columns_backward(const td_kargs *a, batch s, int64_t c, int64_t m)
{
    const float *g = (const float *)a->in[0]->p + c, *x = (const float *)a->in[1]->p + c;
    const float *mean = (const float *)a->in[3]->p + c, *rstd = (const float *)a->in[4]->p + c;
    float *gx = (float *)a->out[0]->p + c, scale[COLUMNS], mean_g[COLUMNS], slope[COLUMNS];
    double gb[COLUMNS] = {0}, gw[COLUMNS] = {0};
    for (int64_t i = 0; i < s.n; i++)
        for (int64_t j = 0; j < m; j++) {
            gb[j] += (double)g[i * s.c + j];
            gw[j] += (double)(g[i * s.c + j] * (x[i * s.c + j] - mean[j]));
        }
    for (int64_t j = 0; j < m; j++) {
        gw[j] *= (double)rstd[j];
        scale[j] = norm_at(a->in[2], c + j, 1) * rstd[j];
        mean_g[j] = (float)(gb[j] / (double)s.n);
        slope[j] = (float)(gw[j] / (double)s.n) * rstd[j];
        ((float *)a->out[1]->p)[c + j] = (float)gw[j];
        ((float *)a->out[2]->p)[c + j] = (float)gb[j];
    }
    for (int64_t i = 0; i < s.n; i++)
        for (int64_t j = 0; j < m; j++)
            gx[i * s.c + j] = scale[j] * (g[i * s.c + j] - mean_g[j] - (x[i * s.c + j] - mean[j]) * slope[j]);
}

static bool run_batch_norm_backward(const td_kargs *a)
{
    batch s = batch_of(a->in[1]);
    int64_t step = s.inner == 1 ? COLUMNS : 1;
#pragma omp parallel for if (s.n * s.c * s.inner > TD_PAR_MIN)
    for (int64_t c = 0; c < s.c; c += step) {
        if (step == 1) batch_norm_channel_backward(a, s, c);
        else batch_norm_columns_backward(a, s, c, s.c - c < COLUMNS ? s.c - c : COLUMNS);
    }
    return true;
}

/** in: x, mean, var, w?, b? */
static bool run_batch_norm_infer(const td_kargs *a)
{
    double eps = ((const td_batch_norm_infer_attr *)a->attr)->eps;
    batch s = batch_of(a->in[0]);
    const float *x = a->in[0]->p;
    float *y = a->out[0]->p;
#pragma omp parallel for if (s.n * s.c * s.inner > TD_PAR_MIN)
    for (int64_t i = 0; i < s.n; i++)
        for (int64_t c = 0; c < s.c; c++) {
            float scale = norm_at(a->in[3], c, 1) * (float)(1 / sqrt((double)norm_at(a->in[2], c, 0) + eps));
            const float *restrict xi = x + (i * s.c + c) * s.inner;
            float *restrict yi = y + (i * s.c + c) * s.inner, mean = norm_at(a->in[1], c, 0),
                            shift = norm_at(a->in[4], c, 0);
            for (int64_t j = 0; j < s.inner; j++) yi[j] = (xi[j] - mean) * scale + shift;
        }
    return true;
}

static const td_kernel rows[] = {
    CPU_KERNEL("batch_norm", TD_BIT(TD_F32), 0, run_batch_norm),
    CPU_KERNEL("batch_norm_backward", TD_BIT(TD_F32), 0, run_batch_norm_backward),
    CPU_KERNEL("batch_norm_infer", TD_BIT(TD_F32), 0, run_batch_norm_infer),
};
CPU_TABLE(batch_norm, rows)

/* norm.c - layer_norm and its gradient, f32.    x (rows, d)
 *
 *     xhat = (x - mean) rstd     y = w xhat + b     rstd = 1 / sqrt(var + eps)     var: population variance
 *     gb = sum g     gw = sum g xhat     gx = rstd (h - M(h) - xhat M(h xhat)),  h = w g,  M the mean of a row
 *
 * The variance is taken around the mean, in a second pass. */
#include "norm_sums.h"
#include <math.h>

enum { COLUMNS = 128 };

/** Elements of the last `dims` axes. */
static int64_t row_length(const td_view *x, int64_t dims)
{
    int64_t d = 1;
    for (int32_t i = x->nd - (int32_t)dims; i < x->nd; i++) d *= x->dim[i];
    return d;
}

static bool run_layer_norm(const td_kargs *a)
{
    const td_layer_norm_attr *o = a->attr;
    int64_t d = row_length(a->in[0], o->dims), n = td_view_numel(a->in[0]) / d;
    const float *w = a->in[1] ? a->in[1]->p : NULL, *b = a->in[2] ? a->in[2]->p : NULL;
#pragma omp parallel for if (n * d > TD_PAR_MIN)
    for (int64_t r = 0; r < n; r++) {
        const float *restrict x = (const float *)a->in[0]->p + r * d;
        float *restrict y = (float *)a->out[0]->p + r * d;
        float mean = (float)(norm_sum(x, d) / (double)d);
        float rstd = (float)(1 / sqrt(norm_squares(x, d, mean) / (double)d + o->eps));
        ((float *)a->out[1]->p)[r] = mean;
        ((float *)a->out[2]->p)[r] = rstd;
        if (w && b)
            for (int64_t j = 0; j < d; j++) y[j] = (x[j] - mean) * rstd * w[j] + b[j];
        else
            for (int64_t j = 0; j < d; j++) y[j] = (x[j] - mean) * rstd * (w ? w[j] : 1) + (b ? b[j] : 0);
    }
    return true;
}

/** gx of one row:  rstd (h - M(h) - xhat M(h xhat)),  h = w g,  M the mean */
static void layer_norm_row_backward(float *restrict gx, const float *restrict g, const float *restrict x,
                                    const float *restrict w, int64_t d, float mean, float rstd)
{
    double sum = 0, along = 0;
    for (int64_t i = 0; i < d; i += NORM_BLOCK) {
        int64_t end = d - i < NORM_BLOCK ? d : i + NORM_BLOCK;
        float s = 0, t = 0;
#pragma omp simd reduction(+ : s, t)
        for (int64_t j = i; j < end; j++) {
            float h = w ? w[j] * g[j] : g[j];
            s += h;
            t += h * (x[j] - mean);
        }
        sum += (double)s;
        along += (double)t;
    }
    float mean_h = (float)(sum / (double)d), slope = (float)(along / (double)d) * rstd * rstd;
    for (int64_t j = 0; j < d; j++) gx[j] = rstd * ((w ? w[j] * g[j] : g[j]) - mean_h - (x[j] - mean) * slope);
}

/** gw and gb of columns c .. c + m, m <= COLUMNS, summed over all rows: in f32 over ROWS of them, then in f64. */
static void layer_norm_columns(const td_kargs *a, int64_t n, int64_t d, int64_t c, int64_t m)
{
    enum { ROWS = 64 };
    const float *g = (const float *)a->in[0]->p + c, *x = (const float *)a->in[1]->p + c;
    const float *mean = a->in[3]->p, *rstd = a->in[4]->p;
    double gw[COLUMNS] = {0}, gb[COLUMNS] = {0};
    for (int64_t r = 0; r < n; r += ROWS) {
        float w[COLUMNS] = {0}, b[COLUMNS] = {0};
        for (int64_t i = r; i < n && i < r + ROWS; i++) {
            const float *gi = g + i * d, *xi = x + i * d, mi = mean[i], si = rstd[i];
#pragma omp simd
            for (int64_t j = 0; j < m; j++) {
                b[j] += gi[j];
                w[j] += gi[j] * ((xi[j] - mi) * si);
            }
        }
        for (int64_t j = 0; j < m; j++) {
            gw[j] += (double)w[j];
            gb[j] += (double)b[j];
        }
    }
    for (int64_t j = 0; j < m; j++) {
        ((float *)a->out[1]->p)[c + j] = (float)gw[j];
        ((float *)a->out[2]->p)[c + j] = (float)gb[j];
    }
}

/** in: g, x, w?, mean, rstd   out: gx, gw, gb */
static bool run_layer_norm_backward(const td_kargs *a)
{
    int64_t d = row_length(a->in[1], ((const td_layer_norm_backward_attr *)a->attr)->dims),
            n = td_view_numel(a->in[1]) / d;
    const float *w = a->in[2] ? a->in[2]->p : NULL;
    int64_t piece = (d / cpu_threads() + 15) / 16 * 16; /* columns, so that each thread has some */
    if (piece < 16) piece = 16;
    if (piece > COLUMNS) piece = COLUMNS;
#pragma omp parallel if (n * d > TD_PAR_MIN)
    {
#pragma omp for nowait
        for (int64_t r = 0; r < n; r++)
            layer_norm_row_backward((float *)a->out[0]->p + r * d, (const float *)a->in[0]->p + r * d,
                                    (const float *)a->in[1]->p + r * d, w, d, norm_at(a->in[3], r, 0),
                                    norm_at(a->in[4], r, 0));
#pragma omp for
        for (int64_t c = 0; c < d; c += piece) layer_norm_columns(a, n, d, c, d - c < piece ? d - c : piece);
    }
    return true;
}

static const td_kernel rows[] = {
    CPU_KERNEL("layer_norm", TD_BIT(TD_F32), 0, run_layer_norm),
    CPU_KERNEL("layer_norm_backward", TD_BIT(TD_F32), 0, run_layer_norm_backward),
};
CPU_TABLE(norm, rows)

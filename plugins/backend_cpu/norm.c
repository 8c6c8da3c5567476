/* norm.c - batch_norm, layer_norm, their gradients, and batch_norm_infer, f32
 *
 *     xhat = (x - mean) rstd     y = w xhat + b     rstd = 1 / sqrt(var + eps)     var: population variance
 *     gb = sum g     gw = sum g xhat     gx = w rstd (g - gb / n - xhat gw / n)     (layer_norm: sums of w g in gx)
 *
 * batch_norm: x is (n, c, inner), statistics of each channel over n and inner. The variance is taken around the mean, in a
 * second pass; sums run in f32 over at most BLOCK elements, then in f64. layer_norm: x is (rows, d). */
#include "cpu.h"
#include "vec.h"

enum { BLOCK = 512, COLUMNS = 128 };

static double sum_of(const float *x, int64_t n)
{
    double sum = 0;
    for (int64_t i = 0; i < n; i += BLOCK) {
        int64_t end = n - i < BLOCK ? n : i + BLOCK;
        float s = 0;
#pragma omp simd reduction(+ : s)
        for (int64_t j = i; j < end; j++) s += x[j];
        sum += (double)s;
    }
    return sum;
}

/** sum (x - m)^2 */
static double squares_of(const float *x, int64_t n, float m)
{
    double sum = 0;
    for (int64_t i = 0; i < n; i += BLOCK) {
        int64_t end = n - i < BLOCK ? n : i + BLOCK;
        float s = 0;
#pragma omp simd reduction(+ : s)
        for (int64_t j = i; j < end; j++) s += (x[j] - m) * (x[j] - m);
        sum += (double)s;
    }
    return sum;
}

/** Adds sum g and sum g (x - m) to *a and *b. */
static void gradient_sums(const float *g, const float *x, int64_t n, float m, double *a, double *b)
{
    for (int64_t i = 0; i < n; i += BLOCK) {
        int64_t end = n - i < BLOCK ? n : i + BLOCK;
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

/* ---- batch_norm ---- */

typedef struct {
    int64_t n, c, inner;
} batch;

static batch batch_of(const td_view *x)
{
    batch b = {x->dim[0], x->dim[1], 1};
    for (int32_t i = 2; i < x->nd; i++) b.inner *= x->dim[i];
    return b;
}

static float at(const td_view *v, int64_t i, float absent) { return v ? ((const float *)v->p)[i] : absent; }

/** One channel: planes of x that lie c inner apart. */
static void batch_norm_channel(const td_kargs *a, batch s, int64_t c, double eps)
{
    const float *x = (const float *)a->in[0]->p + c * s.inner;
    float *y = (float *)a->out[0]->p + c * s.inner;
    double sum = 0, squares = 0, count = (double)s.n * (double)s.inner;
    for (int64_t i = 0; i < s.n; i++) sum += sum_of(x + i * s.c * s.inner, s.inner);
    float mean = (float)(sum / count);
    for (int64_t i = 0; i < s.n; i++) squares += squares_of(x + i * s.c * s.inner, s.inner, mean);
    float rstd = (float)(1 / sqrt(squares / count + eps));
    float scale = at(a->in[1], c, 1) * rstd, shift = at(a->in[2], c, 0);
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
        scale[j] = at(a->in[1], c + j, 1) * rstds[j];
        shift[j] = at(a->in[2], c + j, 0);
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
    float *gx = (float *)a->out[0]->p + c * s.inner, mean = at(a->in[3], c, 0), rstd = at(a->in[4], c, 0);
    double gb = 0, gw = 0, count = (double)s.n * (double)s.inner;
    for (int64_t i = 0; i < s.n; i++)
        gradient_sums(g + i * s.c * s.inner, x + i * s.c * s.inner, s.inner, mean, &gb, &gw);
    gw *= (double)rstd;
    float scale = at(a->in[2], c, 1) * rstd, mean_g = (float)(gb / count), slope = (float)(gw / count) * rstd;
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
        scale[j] = at(a->in[2], c + j, 1) * rstd[j];
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
            float scale = at(a->in[3], c, 1) * (float)(1 / sqrt((double)at(a->in[2], c, 0) + eps));
            const float *restrict xi = x + (i * s.c + c) * s.inner;
            float *restrict yi = y + (i * s.c + c) * s.inner, mean = at(a->in[1], c, 0), shift = at(a->in[4], c, 0);
            for (int64_t j = 0; j < s.inner; j++) yi[j] = (xi[j] - mean) * scale + shift;
        }
    return true;
}

/* ---- layer_norm ---- */

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
        float mean = (float)(sum_of(x, d) / (double)d);
        float rstd = (float)(1 / sqrt(squares_of(x, d, mean) / (double)d + o->eps));
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
    for (int64_t i = 0; i < d; i += BLOCK) {
        int64_t end = d - i < BLOCK ? d : i + BLOCK;
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
                                    (const float *)a->in[1]->p + r * d, w, d, at(a->in[3], r, 0), at(a->in[4], r, 0));
#pragma omp for
        for (int64_t c = 0; c < d; c += piece) layer_norm_columns(a, n, d, c, d - c < piece ? d - c : piece);
    }
    return true;
}

static const td_kernel rows[] = {
    CPU_KERNEL("batch_norm", TD_BIT(TD_F32), 0, run_batch_norm),
    CPU_KERNEL("batch_norm_backward", TD_BIT(TD_F32), 0, run_batch_norm_backward),
    CPU_KERNEL("batch_norm_infer", TD_BIT(TD_F32), 0, run_batch_norm_infer),
    CPU_KERNEL("layer_norm", TD_BIT(TD_F32), 0, run_layer_norm),
    CPU_KERNEL("layer_norm_backward", TD_BIT(TD_F32), 0, run_layer_norm_backward),
};
CPU_TABLE(norm, rows)

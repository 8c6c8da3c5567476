/* conv_slopes.c - conv2d_slopes: h = g where y > 0, else 0 (or g), and gb, the sum of h for each channel, in one pass, f32.
 * Images row by row: a channel of an image is a row of `inner` numbers. With channels innermost: rows of c numbers. */
#include "cpu.h"
#include "vec.h"
#include <string.h>

enum { BLOCK = 512, CHUNK = 256, MOST_CHUNKS = 64 };

/** h of n numbers; their sum, in f32 over BLOCK of them. y: NULL where every g passes. */
static double row(float *restrict h, const float *restrict g, const float *restrict y, int64_t n)
{
    double sum = 0;
    for (int64_t i = 0; i < n; i += BLOCK) {
        int64_t end = n - i < BLOCK ? n : i + BLOCK;
        float s = 0;
        if (y)
#pragma omp simd reduction(+ : s)
            for (int64_t j = i; j < end; j++) {
                float v = y[j] <= 0 ? 0 : g[j];
                h[j] = v;
                s += v;
            }
        else
#pragma omp simd reduction(+ : s)
            for (int64_t j = i; j < end; j++) {
                h[j] = g[j];
                s += g[j];
            }
        sum += (double)s;
    }
    return sum;
}

static const float *gate(const td_kargs *a)
{
    return ((const td_conv2d_slopes_attr *)a->attr)->activation == TD_CONV2D_SLOPES_RELU ? a->in[1]->p : NULL;
}

static bool run_planes(const td_kargs *a)
{
    const td_view *v = a->in[0];
    const float *g = v->p, *y = gate(a);
    float *h = a->out[0]->p, *gb = a->out[1]->p;
    int64_t n = v->dim[0], c = v->dim[1], inner = v->dim[2] * v->dim[3];
#pragma omp parallel for schedule(static) if (n * c * inner > TD_PAR_MIN)
    for (int64_t j = 0; j < c; j++) {
        double sum = 0;
        for (int64_t i = 0; i < n; i++) {
            int64_t at = (i * c + j) * inner;
            sum += row(h + at, g + at, y ? y + at : NULL, inner);
        }
        gb[j] = (float)sum;
    }
    return true;
}

/* ---- channels innermost: chunks of rows, of which there are as many for any number of threads ---- */

typedef struct {
    int64_t rows, c, chunks;
} pixels;

static pixels pixels_of(const td_view *v)
{
    pixels s = {td_view_numel(v) / v->dim[1], v->dim[1], 0};
    s.chunks = s.rows < CHUNK ? 1 : s.rows / CHUNK < MOST_CHUNKS ? s.rows / CHUNK : MOST_CHUNKS;
    return s;
}

static bool plan_pixels(const td_kargs *a, void **plan, size_t *ws_size)
{
    pixels s = pixels_of(a->in[0]);
    (void)plan;
    *ws_size = (size_t)(s.chunks * s.c) * sizeof(float);
    return true;
}

/** Rows first .. end; adds their sums to part. */
static void chunk(float *restrict h, const float *restrict g, const float *restrict y, float *restrict part, int64_t c,
                  int64_t first, int64_t end)
{
    for (int64_t i = first * c; i < end * c; i += c) {
        if (y)
#pragma omp simd
            for (int64_t j = 0; j < c; j++) {
                float v = y[i + j] <= 0 ? 0 : g[i + j];
                h[i + j] = v;
                part[j] += v;
            }
        else
#pragma omp simd
            for (int64_t j = 0; j < c; j++) {
                h[i + j] = g[i + j];
                part[j] += g[i + j];
            }
    }
}

static bool run_pixels(const td_kargs *a)
{
    pixels s = pixels_of(a->in[0]);
    const float *y = gate(a);
    float *parts = a->ws, *gb = a->out[1]->p;
#pragma omp parallel for schedule(static) if (s.rows * s.c > TD_PAR_MIN)
    for (int64_t k = 0; k < s.chunks; k++) {
        float *part = parts + k * s.c;
        memset(part, 0, (size_t)s.c * sizeof *part);
        chunk(a->out[0]->p, a->in[0]->p, y, part, s.c, k * s.rows / s.chunks, (k + 1) * s.rows / s.chunks);
    }
    for (int64_t j = 0; j < s.c; j++) {
        double sum = 0;
        for (int64_t k = 0; k < s.chunks; k++) sum += (double)parts[k * s.c + j];
        gb[j] = (float)sum;
    }
    return true;
}

static bool channels_last(const td_view *v)
{
    return v->dim[1] > 1 && v->stride[1] == 1 && v->stride[3] == v->dim[1] &&
           v->stride[2] == v->dim[3] * v->stride[3] && v->stride[0] == v->dim[2] * v->stride[2] && td_view_numel(v);
}

static bool accepts_pixels(const td_kargs *a) { return channels_last(a->in[0]) && channels_last(a->in[1]); }

enum { BEFORE_PLANES = 5 };
static const td_kernel rows[] = {
    CPU_KERNEL("conv2d_slopes", TD_BIT(TD_F32), 0, run_planes),
    CPU_KERNEL("conv2d_slopes", TD_BIT(TD_F32), TD_K_STRIDED, run_pixels, .priority = BEFORE_PLANES,
               .accepts = accepts_pixels, .plan = plan_pixels),
};
CPU_TABLE(conv_slopes, rows)

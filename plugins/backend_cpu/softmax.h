/* softmax.h - softmax and log_softmax of f32 rows, and of columns side by side:
 *     e = exp(x - max x),  e / sum e  and  x - max x - log(sum e)
 * Subtracting the greatest element keeps exp from overflowing (Goodfellow et al., Deep Learning, section 4.1). */
#ifndef TIDE_CPU_SOFTMAX_H
#define TIDE_CPU_SOFTMAX_H
#include "cpu.h"
#include "vmath.h"

enum { SOFTMAX_COLUMNS = 128 };

static inline float max_of(const float *x, int64_t d)
{
    float m = -INFINITY;
#pragma omp simd reduction(max : m)
    for (int64_t j = 0; j < d; j++) m = x[j] > m ? x[j] : m; /* a NaN is left to exp */
    return m;
}

static inline void softmax_row(float *restrict y, const float *restrict x, int64_t d)
{
    float m = max_of(x, d), sum = 0;
#pragma omp simd reduction(+ : sum)
    for (int64_t j = 0; j < d; j++) {
        float e = vm_expf(x[j] - m);
        y[j] = e;
        sum += e;
    }
    float inv = 1.0f / sum;
    for (int64_t j = 0; j < d; j++) y[j] *= inv;
}

static inline void log_softmax_row(float *restrict y, const float *restrict x, int64_t d)
{
    float m = max_of(x, d), sum = 0;
#pragma omp simd reduction(+ : sum)
    for (int64_t j = 0; j < d; j++) sum += vm_expf(x[j] - m);
    float log_sum = vm_logf(sum);
    for (int64_t j = 0; j < d; j++) y[j] = x[j] - m - log_sum; /* in this order: m may be large */
}

/** Softmax, or its logarithm, of n columns, at most SOFTMAX_COLUMNS, with elements `inner` apart. */
static inline void softmax_columns(float *restrict y, const float *restrict x, int64_t d, int64_t inner, int64_t n,
                                   bool take_log)
{
    float m[SOFTMAX_COLUMNS], sum[SOFTMAX_COLUMNS];
    for (int64_t c = 0; c < n; c++) {
        m[c] = -INFINITY;
        sum[c] = 0;
    }
    for (int64_t j = 0; j < d; j++)
        for (int64_t c = 0; c < n; c++) m[c] = x[j * inner + c] > m[c] ? x[j * inner + c] : m[c];
    for (int64_t j = 0; j < d; j++) {
#pragma omp simd
        for (int64_t c = 0; c < n; c++) {
            float e = vm_expf(x[j * inner + c] - m[c]);
            sum[c] += e;
            y[j * inner + c] = e;
        }
    }
#pragma omp simd
    for (int64_t c = 0; c < n; c++) sum[c] = take_log ? vm_logf(sum[c]) : 1.0f / sum[c];
    for (int64_t j = 0; j < d; j++)
        for (int64_t c = 0; c < n; c++) {
            float e = y[j * inner + c];
            y[j * inner + c] = take_log ? x[j * inner + c] - m[c] - sum[c] : e * sum[c];
        }
}

#endif

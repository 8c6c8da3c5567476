/* norm_sums.h - sums over a row, for the kernels of norms: in f32 over at most NORM_BLOCK elements, then in f64. */
#ifndef TIDE_CPU_NORM_SUMS_H
#define TIDE_CPU_NORM_SUMS_H
#include "cpu.h"

enum { NORM_BLOCK = 512 };

/** Element i of a vector that may be absent. */
static inline float norm_at(const td_view *v, int64_t i, float absent) { return v ? ((const float *)v->p)[i] : absent; }

/** sum x */
static inline double norm_sum(const float *x, int64_t n)
{
    double sum = 0;
    for (int64_t i = 0; i < n; i += NORM_BLOCK) {
        int64_t end = n - i < NORM_BLOCK ? n : i + NORM_BLOCK;
        float s = 0;
#pragma omp simd reduction(+ : s)
        for (int64_t j = i; j < end; j++) s += x[j];
        sum += (double)s;
    }
    return sum;
}

/** sum (x - m)^2 */
static inline double norm_squares(const float *x, int64_t n, float m)
{
    double sum = 0;
    for (int64_t i = 0; i < n; i += NORM_BLOCK) {
        int64_t end = n - i < NORM_BLOCK ? n : i + NORM_BLOCK;
        float s = 0;
#pragma omp simd reduction(+ : s)
        for (int64_t j = i; j < end; j++) s += (x[j] - m) * (x[j] - m);
        sum += (double)s;
    }
    return sum;
}

#endif

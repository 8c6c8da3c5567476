/* recurrent_cells.h - one row of one step of each kind of recurrent network, forward and backward, f32. The formulas stand
 * in core/ops/ops.def and recurrent_backward.c. n hidden units; what is absent is given as zeros. */
#ifndef TIDE_CPU_RECURRENT_CELLS_H
#define TIDE_CPU_RECURRENT_CELLS_H
#include "vmath.h"
#include <stdbool.h>

#define CELL static inline __attribute__((unused))

/** 1 / (1 + e^-x) to 2.4 ulp for x >= -87, and e^-87 below it, where vm_sigmoidf goes on to denormal numbers at twice the cost. */
VM_INLINE float gate_sigmoid(float x)
{
    float c = x > 87.0f ? 87.0f : x; /* a NaN passes both */
    c = c < -87.0f ? -87.0f : c;
    return 1.0f / (1.0f + vm_exp_normal(-c));
}

/** a (4H): sums with x and h, to which bias is added, become i f g o. */
CELL void lstm_cell(float *restrict a, const float *restrict bias, const float *restrict before, float *restrict cell,
                    float *restrict h, int64_t n)
{
    /* in short loops: then the processor works on several vectors at once instead of waiting through one long chain */
#pragma omp simd
    for (int64_t j = 0; j < 2 * n; j++) a[j] = gate_sigmoid(a[j] + bias[j]);
#pragma omp simd
    for (int64_t j = 2 * n; j < 3 * n; j++) a[j] = vm_tanhf(a[j] + bias[j]);
#pragma omp simd
    for (int64_t j = 3 * n; j < 4 * n; j++) a[j] = gate_sigmoid(a[j] + bias[j]);
#pragma omp simd
    for (int64_t j = 0; j < n; j++) {
        float c = a[n + j] * before[j] + a[j] * a[2 * n + j];
        cell[j] = c;
        h[j] = a[3 * n + j] * vm_tanhf(c);
    }
}

/** dh, dc: gradients that come from the next step, dh with that of y added here; dc becomes that of the cell before.
 *  da (4H): gradients of the sums. */
CELL void lstm_cell_back(float *restrict da, float *restrict dc, const float *restrict dh, const float *restrict gy,
                         const float *restrict a, const float *restrict cell, const float *restrict before, int64_t n)
{
#pragma omp simd
    for (int64_t j = 0; j < n; j++) {
        float i = a[j], f = a[n + j], g = a[2 * n + j], o = a[3 * n + j], tc = vm_tanhf(cell[j]);
        float d = dh[j] + gy[j], e = dc[j] + d * o * (1.0f - tc * tc);
        da[j] = e * g * (i * (1.0f - i));
        da[n + j] = e * before[j] * (f * (1.0f - f));
        da[2 * n + j] = e * i * (1.0f - g * g);
        da[3 * n + j] = d * tc * (o * (1.0f - o));
        dc[j] = e * f;
    }
}

/** a (4H): sums r z n with x in front, become r z n and q; s (3H): sums with h. */
CELL void gru_cell(float *restrict a, const float *restrict s, const float *restrict bias_x,
                   const float *restrict bias_h, const float *restrict before, float *restrict h, int64_t n)
{
#pragma omp simd
    for (int64_t j = 0; j < n; j++) {
        float r = gate_sigmoid(a[j] + bias_x[j] + s[j] + bias_h[j]);
        float z = gate_sigmoid(a[n + j] + bias_x[n + j] + s[n + j] + bias_h[n + j]);
        float q = s[2 * n + j] + bias_h[2 * n + j];
        float v = vm_tanhf(a[2 * n + j] + bias_x[2 * n + j] + r * q);
        a[j] = r;
        a[n + j] = z;
        a[2 * n + j] = v;
        a[3 * n + j] = q;
        h[j] = v + z * (before[j] - v);
    }
}

/** dh becomes what of it reaches the state before directly; da (4H): gradients of the sums r z n with x, and of q; dah
 *  (3H): those of the sums with h. */
CELL void gru_cell_back(float *restrict da, float *restrict dah, float *restrict dh, const float *restrict gy,
                        const float *restrict a, const float *restrict before, int64_t n)
{
#pragma omp simd
    for (int64_t j = 0; j < n; j++) {
        float r = a[j], z = a[n + j], v = a[2 * n + j], q = a[3 * n + j], d = dh[j] + gy[j];
        float dn = d * (1.0f - z) * (1.0f - v * v), dz = d * (before[j] - v) * (z * (1.0f - z));
        float dr = dn * q * (r * (1.0f - r));
        da[j] = dah[j] = dr;
        da[n + j] = dah[n + j] = dz;
        da[2 * n + j] = dn;
        da[3 * n + j] = dah[2 * n + j] = dn * r;
        dh[j] = d * z;
    }
}

/** h: the sum, becomes the state. */
CELL void rnn_cell(float *restrict h, const float *restrict bias, bool relu, int64_t n)
{
    if (relu) {
        for (int64_t j = 0; j < n; j++) h[j] = h[j] + bias[j] <= 0.0f ? 0.0f : h[j] + bias[j]; /* a NaN stays */
        return;
    }
#pragma omp simd
    for (int64_t j = 0; j < n; j++) h[j] = vm_tanhf(h[j] + bias[j]);
}

CELL void rnn_cell_back(float *restrict da, const float *restrict dh, const float *restrict gy, const float *restrict h,
                        bool relu, int64_t n)
{
    for (int64_t j = 0; j < n; j++) {
        float d = dh[j] + gy[j];
        da[j] = relu ? (h[j] <= 0.0f ? 0.0f : d) : d * (1.0f - h[j] * h[j]);
    }
}

#endif

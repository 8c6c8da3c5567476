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

/** s (4H): sums with x and h, to which bias is added; a (4H): i f g o, may be s. c: the cell, and cell: a copy. */
CELL void lstm_cell(float *a, float *s, const float *bias, float *c, float *cell, float *h, int64_t n)
{
    /* in short loops: then the processor works on several vectors at once instead of waiting through one long chain */
#pragma omp simd
    for (int64_t j = 0; j < 2 * n; j++) s[j] = gate_sigmoid(s[j] + bias[j]);
#pragma omp simd
    for (int64_t j = 2 * n; j < 3 * n; j++) s[j] = vm_tanhf(s[j] + bias[j]);
#pragma omp simd
    for (int64_t j = 3 * n; j < 4 * n; j++) s[j] = gate_sigmoid(s[j] + bias[j]);
#pragma omp simd
    for (int64_t j = 0; j < n; j++) {
        float i = s[j], f = s[n + j], g = s[2 * n + j], o = s[3 * n + j], v = f * c[j] + i * g;
        a[j] = i;
        a[n + j] = f;
        a[2 * n + j] = g;
        a[3 * n + j] = o;
        c[j] = cell[j] = v;
        h[j] = o * vm_tanhf(v);
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

/** s_x (3H), s_h (3H): sums with x and with h; a (4H): r z n and q, may be s_x. h: the state before, then that after. */
CELL void gru_cell(float *a, const float *s_x, const float *s_h, const float *bias_x, const float *bias_h, float *h,
                   int64_t n)
{
#pragma omp simd
    for (int64_t j = 0; j < n; j++) {
        float r = gate_sigmoid(s_x[j] + bias_x[j] + s_h[j] + bias_h[j]);
        float z = gate_sigmoid(s_x[n + j] + bias_x[n + j] + s_h[n + j] + bias_h[n + j]);
        float q = s_h[2 * n + j] + bias_h[2 * n + j];
        float v = vm_tanhf(s_x[2 * n + j] + bias_x[2 * n + j] + r * q);
        a[j] = r;
        a[n + j] = z;
        a[2 * n + j] = v;
        a[3 * n + j] = q;
        h[j] = v + z * (h[j] - v);
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

/** s: the sum. */
CELL void rnn_cell(float *h, const float *s, const float *bias, bool relu, int64_t n)
{
    if (relu) {
#pragma omp simd
        for (int64_t j = 0; j < n; j++) h[j] = s[j] + bias[j] <= 0.0f ? 0.0f : s[j] + bias[j]; /* a NaN stays */
        return;
    }
#pragma omp simd
    for (int64_t j = 0; j < n; j++) h[j] = vm_tanhf(s[j] + bias[j]);
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

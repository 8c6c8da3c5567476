/* act_slope.h - gelu, and the derivatives of activations, f32: by the result y for relu, tanh and sigmoid, by the argument for gelu. */
#ifndef TIDE_CPU_ACT_SLOPE_H
#define TIDE_CPU_ACT_SLOPE_H
#include "gemm.h"
#include "vmath.h"

/* x Phi(x) */
VM_INLINE float act_gelu(float x)
{
    float density;
    return x * vm_normalf(x, &density);
}

/* Phi(x) + x phi(x) */
VM_INLINE float act_gelu_slope(float x)
{
    float density, below = vm_normalf(x, &density);
    return below + x * density;
}

/* t = tanh(sqrt(2 / pi) (x + 0.044715 x^3)):  (1 + t) / 2 + x (1 - t^2) / 2 sqrt(2 / pi) (1 + 3 0.044715 x^2) */
VM_INLINE float act_gelu_tanh_slope(float x)
{
    const float root = 0.797884561f, cubic = 0.044715f;
    float t = vm_tanhf(root * (x + cubic * x * x * x));
    return 0.5f * (1.0f + t) + 0.5f * x * (1.0f - t * t) * (root + 3 * root * cubic * x * x);
}

#define ACT_SLOPE(expr)                                 \
    _Pragma("omp simd") for (int64_t j = 0; j < n; j++) \
    {                                                   \
        const float v = by[j];                          \
        h[j] = (expr);                                  \
    }                                                   \
    break;

/** h = g act'(by), n numbers next to each other; h may be g or by itself. */
static inline void act_slope_row(gemm_act act, float *h, const float *g, const float *by, int64_t n)
{
    switch (act) {
    case GEMM_RELU: ACT_SLOPE(v <= 0 ? 0 : g[j])
    case GEMM_TANH: ACT_SLOPE(g[j] * (1.0f - v * v))
    case GEMM_SIGMOID: ACT_SLOPE(g[j] * v * (1.0f - v))
    case GEMM_GELU: ACT_SLOPE(g[j] * act_gelu_slope(v))
    case GEMM_GELU_TANH: ACT_SLOPE(g[j] * act_gelu_tanh_slope(v))
    default: __builtin_memmove(h, g, (size_t)n * sizeof *h);
    }
}

#endif

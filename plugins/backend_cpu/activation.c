/* activation.c - activation functions, element by element; formulas in ops.def. f32 by the polynomials of vmath.h, f64
 * by the C library. */
#include "act_slope.h"
#include "loops.h"
#include "vmath.h"

#define ROOT_HALF 0.70710678118654752440 /* sqrt(1/2)  */
#define ROOT_2_PI 0.79788456080286535588 /* sqrt(2/pi) */

ST_UNARY(sigmoid_f32, float, float, vm_sigmoidf(a))
ST_UNARY(sigmoid_f64, double, double, 1.0 / (1.0 + exp(-a)))
ST_UNARY(relu_f32, float, float, a < 0 ? 0 : a)
ST_UNARY(relu_f64, double, double, a < 0 ? 0 : a)
ST_UNARY(relu_i64, int64_t, int64_t, a < 0 ? 0 : a)
ST_UNARY(relu_i32, int32_t, int32_t, a < 0 ? 0 : a)
ST_UNARY(relu_u8, uint8_t, uint8_t, a)
ST_UNARY_C(leaky_relu_f32, float, float, a > 0 ? a : c0 * a)
ST_UNARY_C(leaky_relu_f64, double, double, a > 0 ? a : c0 * a)
ST_UNARY_C(elu_f32, float, float, a > 0 ? a : c0 * vm_expm1f(a))
ST_UNARY_C(elu_f64, double, double, a > 0 ? a : c0 * expm1(a))
ST_UNARY(gelu_f32, float, float, act_gelu(a))
ST_UNARY(gelu_f64, double, double, 0.5 * a * (1.0 + erf(a * ROOT_HALF)))
ST_UNARY(gelu_tanh_f32, float, float, 0.5f * a * (1.0f + vm_tanhf((float)ROOT_2_PI * (a + 0.044715f * a * a * a))))
ST_UNARY(gelu_tanh_f64, double, double, 0.5 * a * (1.0 + tanh(ROOT_2_PI * (a + 0.044715 * a * a * a))))
ST_UNARY(silu_f32, float, float, a *vm_sigmoidf(a))
ST_UNARY(silu_f64, double, double, a / (1.0 + exp(-a)))
ST_UNARY(softplus_f32, float, float, (a > 0 ? a : 0) + vm_log1pf(vm_expf(-vm_absf(a))))
ST_UNARY(softplus_f64, double, double, (a > 0 ? a : 0) + log1p(exp(-fabs(a))))

typedef st_fn *const by_dtype[TD_N_DTYPES];

/* c: a constant of the formula, in the dtype of the elements */
static bool run(const td_kargs *k, by_dtype fns, double c, int cost)
{
    const td_view *v[2] = {k->out[0], k->in[0]};
    const float c32[2] = {(float)c, 0};
    const double c64[2] = {c, 0};
    if (cost == ST_MATH && k->compute == TD_F64) cost = ST_CALL;
    st_apply(v, 2, fns[k->compute], k->compute == TD_F32 ? (const void *)c32 : c64, cost);
    return true;
}

#define RUN(op, c, cost)                                                        \
    static bool run_##op(const td_kargs *k)                                     \
    {                                                                           \
        static const by_dtype fns = {[TD_F32] = op##_f32, [TD_F64] = op##_f64}; \
        return run(k, fns, c, cost);                                            \
    }
RUN(sigmoid, 0, ST_MATH)
RUN(silu, 0, ST_MATH)
RUN(softplus, 0, ST_MATH)
RUN(leaky_relu, ((const td_leaky_relu_attr *)k->attr)->slope, ST_MOVE)
RUN(elu, ((const td_elu_attr *)k->attr)->alpha, ST_MATH)

static bool run_relu(const td_kargs *k)
{
    static const by_dtype fns = {
        [TD_F32] = relu_f32, [TD_F64] = relu_f64, [TD_I64] = relu_i64, [TD_I32] = relu_i32, [TD_U8] = relu_u8};
    return run(k, fns, 0, ST_MOVE);
}

static bool run_gelu(const td_kargs *k)
{
    static const by_dtype exact = {[TD_F32] = gelu_f32, [TD_F64] = gelu_f64};
    static const by_dtype by_tanh = {[TD_F32] = gelu_tanh_f32, [TD_F64] = gelu_tanh_f64};
    const td_gelu_attr *a = k->attr;
    if (a->approximate == TD_GELU_TANH) return run(k, by_tanh, 0, ST_MATH);
    return run(k, exact, 0, ST_MATH);
}

/* ---- the gradient of any of them ---- */

static void slope_block(const st_block *b)
{
    const gemm_act act = *(const gemm_act *)b->ctx;
    const int64_t one = (int64_t)sizeof(float);
    const bool dense = b->step[0] == one && b->step[1] == one && b->step[2] == one;
    for (int64_t r = 0; r < b->rows; r++) {
        char *h = b->p[0] + r * b->row[0];
        const char *g = b->p[1] + r * b->row[1], *by = b->p[2] + r * b->row[2];
        if (dense) act_slope_row(act, (float *)h, (const float *)g, (const float *)by, b->n);
        for (int64_t i = 0; !dense && i < b->n; i++)
            act_slope_row(act, (float *)(h + i * b->step[0]), (const float *)(g + i * b->step[1]),
                          (const float *)(by + i * b->step[2]), 1);
    }
}

static bool run_activation_backward(const td_kargs *k)
{
    const gemm_act act = (gemm_act)((const td_activation_backward_attr *)k->attr)->activation;
    const td_view *v[3] = {k->out[0], k->in[0], k->in[1]};
    st_apply(v, 3, slope_block, &act, act <= GEMM_RELU ? ST_MOVE : ST_MATH);
    return true;
}

#define ROW(op, dtypes) CPU_KERNEL(#op, dtypes, TD_K_STRIDED | TD_K_ALIAS_OK | TD_K_POINTWISE, run_##op)

static const td_kernel rows[] = {
    ROW(sigmoid, TD_BITS_FLOAT),    ROW(relu, TD_BITS_FLOAT | TD_BITS_INT),
    ROW(leaky_relu, TD_BITS_FLOAT), ROW(elu, TD_BITS_FLOAT),
    ROW(gelu, TD_BITS_FLOAT),       ROW(silu, TD_BITS_FLOAT),
    ROW(softplus, TD_BITS_FLOAT),   ROW(activation_backward, TD_BIT(TD_F32)),
};
CPU_TABLE(activation, rows)

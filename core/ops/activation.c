/* activation.c - sigmoid relu leaky_relu elu gelu silu softplus. x is the input, y the result, g the gradient of y. */
#include "common.h"
#include "rules.h"

static const double ROOT_HALF = 0.70710678118654752440, INV_ROOT_TWO_PI = 0.39894228040143267794;
static const double ROOT_TWO_BY_PI = 0.79788456080286535588, CUBIC = 0.044715; /* of gelu's tanh form */

/* ---- sigmoid, relu, silu, softplus ---- */

TDI_DEFINITION(sigmoid, td_reciprocal(tdi_plus(td_exp(td_neg(x)), 1)))
TDI_GRADIENT(sigmoid, td_activation_backward(g, y, TD_ACT_SIGMOID))

static bool relu_infer(td_infer *i) { return tdi_want_numbers("relu", i); }

/* y and not x: so a ReLU may work in place, and where y <= 0 x is so too */
TDI_DEFINITION(relu, td_maximum(x, tdi_zero(td_dtype_of(x))))
TDI_GRADIENT(relu, td_activation_backward(g, y, TD_ACT_RELU))

/* y' = s + x s (1 - s) = s (1 - y) + y with s = sigmoid(x) */
TDI_DEFINITION(silu, td_mul(x, td_sigmoid(x)))
TDI_GRADIENT(silu, td_mul(g, td_add(td_mul(td_sigmoid(x), tdi_from(1, y)), y)))

TDI_DEFINITION(softplus, td_add(td_maximum(x, td_number(0)), td_log1p(td_exp(td_neg(td_abs(x))))))
TDI_GRADIENT(softplus, td_mul(g, td_sigmoid(x)))

/* ---- leaky_relu, elu ---- */

static bool leaky_relu_infer(td_infer *i)
{
    double slope = ((const td_leaky_relu_attr *)i->attr)->slope;
    if (!isfinite(slope)) return td_fail("leaky_relu: slope: expected a finite number, got %g", slope);
    return tdi_infer_float(i);
}

static bool leaky_relu_decompose(const td_call *c, td_tensor **out)
{
    td_tensor *x = c->in[0];
    out[0] = td_where(td_le(x, td_number(0)), tdi_times(x, ((const td_leaky_relu_attr *)c->attr)->slope), x);
    return out[0] != NULL;
}

TDI_GRADIENT(leaky_relu,
             td_where(td_le(x, td_number(0)), tdi_times(g, ((const td_leaky_relu_attr *)c->attr)->slope), g))

static bool elu_infer(td_infer *i)
{
    double alpha = ((const td_elu_attr *)i->attr)->alpha;
    if (!isfinite(alpha)) return td_fail("elu: alpha: expected a finite number, got %g", alpha);
    return tdi_infer_float(i);
}

static bool elu_decompose(const td_call *c, td_tensor **out)
{
    td_tensor *x = c->in[0];
    out[0] = td_where(td_le(x, td_number(0)), tdi_times(td_expm1(x), ((const td_elu_attr *)c->attr)->alpha), x);
    return out[0] != NULL;
}

/* alpha exp(x) = y + alpha where x <= 0 */
TDI_GRADIENT(elu, td_where(td_le(x, td_number(0)), td_mul(g, tdi_plus(y, ((const td_elu_attr *)c->attr)->alpha)), g))

/* ---- gelu ---- */

static td_tensor *normal_cdf(td_tensor *x) { return tdi_times(tdi_plus(td_erf(tdi_times(x, ROOT_HALF)), 1), 0.5); }

/* tanh(sqrt(2 / pi) (x + 0.044715 x^3)) */
static td_tensor *gelu_tanh(td_tensor *x)
{
    td_tensor *inner = td_mul(x, tdi_plus(tdi_times(td_mul(x, x), ROOT_TWO_BY_PI * CUBIC), ROOT_TWO_BY_PI));
    return td_tanh(inner);
}

static bool is_exact(const td_call *c) { return ((const td_gelu_attr *)c->attr)->approximate == TD_GELU_NONE; }

static bool gelu_decompose(const td_call *c, td_tensor **out)
{
    td_tensor *x = c->in[0];
    out[0] = td_mul(x, is_exact(c) ? normal_cdf(x) : tdi_times(tdi_plus(gelu_tanh(x), 1), 0.5));
    return out[0] != NULL;
}

/* Phi(x) + x phi(x) */
static td_tensor *gelu_slope(td_tensor *x)
{
    td_tensor *density = tdi_times(td_exp(tdi_times(td_mul(x, x), -0.5)), INV_ROOT_TWO_PI);
    return td_add(normal_cdf(x), td_mul(x, density));
}

/* (1 + t) / 2 + x (1 - t^2) / 2 sqrt(2 / pi) (1 + 3 0.044715 x^2),  t = gelu_tanh(x) */
static td_tensor *gelu_tanh_slope(td_tensor *x)
{
    td_tensor *t = gelu_tanh(x), *half = tdi_times(tdi_plus(t, 1), 0.5);
    td_tensor *inner = tdi_plus(tdi_times(td_mul(x, x), 1.5 * ROOT_TWO_BY_PI * CUBIC), 0.5 * ROOT_TWO_BY_PI);
    return td_add(half, td_mul(td_mul(x, tdi_from(1, td_mul(t, t))), inner));
}

TDI_GRADIENT(gelu, td_activation_backward(g, x, is_exact(c) ? TD_ACT_GELU : TD_ACT_GELU_TANH))

/* ---- activation_backward ---- */

static bool activation_backward_infer(td_infer *i)
{
    return tdi_want_float("activation_backward", i) &&
           tdi_shapes_equal("activation_backward", "g", i->in[0], "by", i->in[1]);
}

static bool activation_backward_decompose(const td_call *c, td_tensor **out)
{
    td_tensor *g = c->in[0], *by = c->in[1];
    switch (((const td_activation_backward_attr *)c->attr)->activation) {
    case TD_ACT_RELU: out[0] = tdi_cut(td_le(by, td_number(0)), g); break;
    case TD_ACT_TANH: out[0] = td_mul(g, tdi_from(1, td_mul(by, by))); break;
    case TD_ACT_SIGMOID: out[0] = td_mul(td_mul(g, by), tdi_from(1, by)); break; /* y - y^2 would lose digits near 1 */
    case TD_ACT_GELU: out[0] = td_mul(g, gelu_slope(by)); break;
    case TD_ACT_GELU_TANH: out[0] = td_mul(g, gelu_tanh_slope(by)); break;
    default: out[0] = td_copy(g);
    }
    return out[0] != NULL;
}

static bool activation_backward_sample(uint32_t i, td_sample *s)
{
    if (i > TD_ACT_GELU_TANH) return false;
    ((td_activation_backward_attr *)s->opts)->activation = (int32_t)i;
    s->in[0] = tdi_sample_signed(td_dims(3, 11), 2 * i);
    s->in[1] = tdi_sample_signed(td_dims(3, 11), 2 * i + 1);
    return true;
}

/* ---- samples ---- */

static bool leaky_relu_sample(uint32_t i, td_sample *s)
{
    if (i == 1) ((td_leaky_relu_attr *)s->opts)->slope = -0.5;
    return tdi_samples_signed(i, s);
}

static bool elu_sample(uint32_t i, td_sample *s)
{
    if (i == 1) ((td_elu_attr *)s->opts)->alpha = 0.5;
    return tdi_samples_signed(i, s);
}

static bool gelu_sample(uint32_t i, td_sample *s)
{
    if (i) ((td_gelu_attr *)s->opts)->approximate = TD_GELU_TANH;
    return tdi_samples_signed(i, s);
}

/* ---- rows ---- */

const td_op tdi_op_sigmoid = {TD_ROW_sigmoid,
                              .flags = TD_OP_BWD_DIFF | TD_OP_ALIKE,
                              .save_out = 1,
                              .infer = tdi_infer_float,
                              .backward = sigmoid_backward,
                              .decompose = sigmoid_decompose,
                              .sample = tdi_samples_signed};
const td_op tdi_op_relu = {TD_ROW_relu,
                           .flags = TD_OP_BWD_DIFF | TD_OP_ALIKE,
                           .save_out = 1,
                           .infer = relu_infer,
                           .backward = relu_backward,
                           .decompose = relu_decompose,
                           .sample = tdi_samples_signed};
const td_op tdi_op_leaky_relu = {
    TD_ROW_leaky_relu,          .flags = TD_OP_BWD_DIFF | TD_OP_ALIKE, .save_in = 1,
    .infer = leaky_relu_infer,  .backward = leaky_relu_backward,       .decompose = leaky_relu_decompose,
    .sample = leaky_relu_sample};
const td_op tdi_op_elu = {TD_ROW_elu,
                          .flags = TD_OP_BWD_DIFF | TD_OP_ALIKE,
                          .save_in = 1,
                          .save_out = 1,
                          .infer = elu_infer,
                          .backward = elu_backward,
                          .decompose = elu_decompose,
                          .sample = elu_sample};
const td_op tdi_op_gelu = {TD_ROW_gelu,
                           .flags = TD_OP_BWD_DIFF | TD_OP_ALIKE,
                           .save_in = 1,
                           .infer = tdi_infer_float,
                           .backward = gelu_backward,
                           .decompose = gelu_decompose,
                           .sample = gelu_sample};
const td_op tdi_op_silu = {TD_ROW_silu,
                           .flags = TD_OP_BWD_DIFF | TD_OP_ALIKE,
                           .save_in = 1,
                           .save_out = 1,
                           .infer = tdi_infer_float,
                           .backward = silu_backward,
                           .decompose = silu_decompose,
                           .sample = tdi_samples_signed};
const td_op tdi_op_softplus = {TD_ROW_softplus,
                               .flags = TD_OP_BWD_DIFF | TD_OP_ALIKE,
                               .save_in = 1,
                               .infer = tdi_infer_float,
                               .backward = softplus_backward,
                               .decompose = softplus_decompose,
                               .sample = tdi_samples_signed};
const td_op tdi_op_activation_backward = {
    TD_ROW_activation_backward, .flags = TD_OP_ALIKE, .infer = activation_backward_infer,
    .decompose = activation_backward_decompose, .sample = activation_backward_sample};

/* binary.c - element-wise arithmetic of two tensors with broadcasting.
 * In the formulas z is the result and g its gradient; what was broadcast is summed again. */
#include "rules.h"

/* ---- dtype and shape rules ---- */

static bool add_infer(td_infer *i) { return tdi_infer_binary("add", i); }
static bool mul_infer(td_infer *i) { return tdi_infer_binary("mul", i); }
static bool maximum_infer(td_infer *i) { return tdi_infer_binary("maximum", i); }
static bool minimum_infer(td_infer *i) { return tdi_infer_binary("minimum", i); }

static bool div_infer(td_infer *i)
{
    tdi_compute_float(i);
    return tdi_infer_binary("div", i);
}

static bool infer_numbers(const char *op, td_infer *i) { return tdi_want_numbers(op, i) && tdi_infer_binary(op, i); }
static bool sub_infer(td_infer *i) { return infer_numbers("sub", i); }
static bool pow_infer(td_infer *i) { return infer_numbers("pow", i); }
static bool floor_divide_infer(td_infer *i) { return infer_numbers("floor_divide", i); }
static bool remainder_infer(td_infer *i) { return infer_numbers("remainder", i); }

/* ---- definitions ---- */

/* A number is negated in x's dtype: alone it would be computed as f32. */
static bool sub_decompose(const td_call *c, td_tensor **out)
{
    td_tensor *x = c->in[0], *y = c->in[1];
    if (tdi_plain_number(y) && !tdi_plain_number(x)) y = td_cast(y, td_dtype_of(x));
    out[0] = td_add(x, td_neg(y));
    return out[0] != NULL;
}

/* Where the quotient is 0 the product may be infinity times 0. */
static bool remainder_decompose(const td_call *c, td_tensor **out)
{
    td_tensor *x = c->in[0], *y = c->in[1], *q = td_floor_divide(x, y);
    out[0] = td_where(td_eq(q, td_integer(0)), x, td_sub(x, td_mul(y, q)));
    return out[0] != NULL;
}

/* ---- gradients ---- */

enum { NEED_X = 1, NEED_Y = 2 };

static bool add_backward(const td_call *c, td_tensor *const *gout, td_tensor **gin, uint64_t need)
{
    if (need & NEED_X) gin[0] = tdi_sum_to(gout[0], c->in[0]);
    if (need & NEED_Y) gin[1] = tdi_sum_to(gout[0], c->in[1]);
    return true;
}

static bool sub_backward(const td_call *c, td_tensor *const *gout, td_tensor **gin, uint64_t need)
{
    if (need & NEED_X) gin[0] = tdi_sum_to(gout[0], c->in[0]);
    if (need & NEED_Y) gin[1] = td_neg(tdi_sum_to(gout[0], c->in[1]));
    return true;
}

static bool mul_backward(const td_call *c, td_tensor *const *gout, td_tensor **gin, uint64_t need)
{
    td_tensor *x = c->in[0], *y = c->in[1];
    if (need & NEED_X) gin[0] = tdi_sum_to(td_mul(gout[0], y), x);
    if (need & NEED_Y) gin[1] = tdi_sum_to(td_mul(gout[0], x), y);
    return true;
}

/* gx = g / y,  gy = -(g / y) z:  with z and not x, x may be divided in place */
static bool div_backward(const td_call *c, td_tensor *const *gout, td_tensor **gin, uint64_t need)
{
    td_tensor *x = c->in[0], *y = c->in[1], *gx = td_div(gout[0], y);
    if (need & NEED_X) gin[0] = tdi_sum_to(gx, x);
    if (need & NEED_Y) gin[1] = td_neg(tdi_sum_to(td_mul(gx, c->out[0]), y));
    return true;
}

/* y x^(y-1), and 0 where y is 0: there x^y is 1 for every x */
static td_tensor *pow_gradient_x(td_tensor *g, td_tensor *x, td_tensor *y)
{
    double k;
    if (tdi_plain_number(y)) {
        if (!TD->item(y, TD_F64, &k) || k == 0) return NULL; /* NULL: no gradient */
        if (k == 1) return g;
        return td_mul(g, tdi_times(k == 2 ? x : td_pow(x, td_number(k - 1)), k));
    }
    td_tensor *slope = td_mul(y, td_pow(x, td_sub(y, td_number(1))));
    return td_mul(g, tdi_cut(td_eq(y, td_number(0)), slope));
}

/* z log(x), and 0 where x is 0 and y >= 0: there z is 0, or 1 at y = 0 */
static td_tensor *pow_gradient_y(td_tensor *g, td_tensor *x, td_tensor *y, td_tensor *z)
{
    td_tensor *flat = td_logical_and(td_eq(x, td_number(0)), td_ge(y, td_number(0)));
    return td_mul(g, tdi_cut(flat, td_mul(z, td_log(x))));
}

static bool pow_backward(const td_call *c, td_tensor *const *gout, td_tensor **gin, uint64_t need)
{
    td_tensor *x = c->in[0], *y = c->in[1];
    if (need & NEED_X) gin[0] = tdi_sum_to(pow_gradient_x(gout[0], x, y), x);
    if (need & NEED_Y) gin[1] = tdi_sum_to(pow_gradient_y(gout[0], x, y, c->out[0]), y);
    return true;
}

/* z = x - y q with q = floor(x / y) flat */
static bool remainder_backward(const td_call *c, td_tensor *const *gout, td_tensor **gin, uint64_t need)
{
    td_tensor *x = c->in[0], *y = c->in[1];
    if (need & NEED_X) gin[0] = tdi_sum_to(gout[0], x);
    if (need & NEED_Y) gin[1] = td_neg(tdi_sum_to(td_mul(gout[0], td_floor_divide(x, y)), y));
    return true;
}

/* The side that lost gets nothing, equal sides get half each. */
static bool split_gradient(const td_call *c, td_tensor *g, td_tensor *x_lost, td_tensor **gin, uint64_t need)
{
    td_tensor *x = c->in[0], *y = c->in[1];
    td_tensor *gx = tdi_cut(x_lost, td_where(td_eq(x, y), tdi_times(g, 0.5), g));
    if (need & NEED_X) gin[0] = tdi_sum_to(gx, x);
    if (need & NEED_Y) gin[1] = tdi_sum_to(td_sub(g, gx), y);
    return true;
}

static bool maximum_backward(const td_call *c, td_tensor *const *gout, td_tensor **gin, uint64_t need)
{
    return split_gradient(c, gout[0], td_lt(c->in[0], c->in[1]), gin, need);
}

static bool minimum_backward(const td_call *c, td_tensor *const *gout, td_tensor **gin, uint64_t need)
{
    return split_gradient(c, gout[0], td_gt(c->in[0], c->in[1]), gin, need);
}

/* ---- samples ---- */

static bool positive_pair(uint32_t i, td_sample *s)
{
    if (i > 2) return false;
    s->in[0] = tdi_sample(i == 1 ? td_dims(2, 1) : td_dims(2, 3), 2 * i, 0.5, 2);
    s->in[1] = tdi_sample(i == 1 ? td_dims(3) : td_dims(2, 3), 2 * i + 1, 0.5, 2);
    return true;
}

/* The third case has a number for exponent, which has a gradient rule of its own. */
static bool pow_sample(uint32_t i, td_sample *s)
{
    if (!positive_pair(i, s)) return false;
    if (i == 2) s->in[1] = td_number(3);
    return true;
}

/* Quotients -1.65, 2.4, …: away from integers, where the floor jumps. */
static bool quotient_sample(uint32_t i, td_sample *s)
{
    static const float x[] = {-3.3f, 4.8f, 1.3f, -0.7f, 2.2f, 5.1f}, y[] = {2.0f, 2.0f, -1.5f, 1.5f, 0.75f, -2.0f};
    if (i > 1) return false;
    s->in[0] = td_from_data(TD_F32, i ? td_dims(2, 3) : td_dims(6), x);
    s->in[1] = i ? td_from_data(TD_F32, td_dims(2, 1), y + 1) : td_from_data(TD_F32, td_dims(6), y);
    return true;
}

/* ---- rows ---- */

enum { DEFINED = TD_OP_BWD_DIFF | TD_OP_ALIKE, PRIM = TD_OP_PRIM | DEFINED, BOTH = 3 };

const td_op tdi_op_add = {TD_ROW_add, .flags = PRIM, .infer = add_infer, .backward = add_backward,
                          .sample = tdi_samples_pair};
const td_op tdi_op_sub = {TD_ROW_sub,
                          .flags = DEFINED,
                          .infer = sub_infer,
                          .backward = sub_backward,
                          .decompose = sub_decompose,
                          .sample = tdi_samples_pair};
const td_op tdi_op_mul = {TD_ROW_mul,
                          .flags = PRIM,
                          .save_in = BOTH,
                          .infer = mul_infer,
                          .backward = mul_backward,
                          .sample = tdi_samples_pair};
const td_op tdi_op_div = {TD_ROW_div,
                          .flags = PRIM,
                          .save_in = 2,
                          .save_out = 1,
                          .infer = div_infer,
                          .backward = div_backward,
                          .sample = tdi_samples_pair};
const td_op tdi_op_pow = {TD_ROW_pow,          .flags = PRIM,      .save_in = BOTH,
                          .save_out = 1,       .infer = pow_infer, .backward = pow_backward,
                          .sample = pow_sample};
const td_op tdi_op_floor_divide = {TD_ROW_floor_divide, .flags = PRIM, .infer = floor_divide_infer,
                                   .backward = tdi_no_gradient, .sample = quotient_sample};
const td_op tdi_op_remainder = {TD_ROW_remainder,
                                .flags = DEFINED,
                                .save_in = BOTH,
                                .infer = remainder_infer,
                                .backward = remainder_backward,
                                .decompose = remainder_decompose,
                                .sample = quotient_sample};
const td_op tdi_op_maximum = {TD_ROW_maximum,
                              .flags = PRIM,
                              .save_in = BOTH,
                              .infer = maximum_infer,
                              .backward = maximum_backward,
                              .sample = tdi_samples_pair};
const td_op tdi_op_minimum = {TD_ROW_minimum,
                              .flags = PRIM,
                              .save_in = BOTH,
                              .infer = minimum_infer,
                              .backward = minimum_backward,
                              .sample = tdi_samples_pair};

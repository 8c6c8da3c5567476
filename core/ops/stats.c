/* stats.c - var, std, logsumexp, norm over axes. x is the input, y the result, g its gradient. */
#include "rules.h"

/* ---- var, std ---- */

typedef struct {
    td_ints axes;
    int64_t correction;
    bool keepdim;
} var_attr; /* the attributes of var and of std */
TDI_SAME_LAYOUT(var_attr, td_var_attr, keepdim);
TDI_SAME_LAYOUT(var_attr, td_std_attr, keepdim);

static bool infer_var(const char *op, td_infer *i)
{
    const var_attr *a = i->attr;
    if (a->correction < 0)
        return td_fail("%s: correction: expected at least 0, got %lld", op, (long long)a->correction);
    return tdi_want_float(op, i) && tdi_infer_reduce(op, i, a->axes, a->keepdim);
}

static bool var_infer(td_infer *i) { return infer_var("var", i); }
static bool std_infer(td_infer *i) { return infer_var("std", i); }

/* n - correction, at least 0: too few elements give NaN or infinity, as 0 / 0 or x / 0. */
static double divisor(const td_tensor *x, const var_attr *a)
{
    double n = (double)tdi_count(td_view_of(x), tdi_mask(a->axes, x)) - (double)a->correction;
    return n > 0 ? n : 0;
}

/* f16 and bf16 are computed as f32: squares leave their range early. */
static bool var_decompose(const td_call *c, td_tensor **out)
{
    const var_attr *a = c->attr;
    td_tensor *x = tdi_real(c->in[0]);
    td_dtype dt = td_dtype_of(x);
    x = tdi_to(x, dt == TD_F64 ? TD_F64 : TD_F32);
    td_tensor *distance = td_sub(x, td_mean(x, a->axes, true));
    td_tensor *sum = td_sum(td_mul(distance, distance), a->axes, a->keepdim);
    out[0] = tdi_to(td_div(sum, td_number(divisor(x, a))), dt);
    return out[0] != NULL;
}

static bool std_decompose(const td_call *c, td_tensor **out)
{
    const var_attr *a = c->attr;
    out[0] = td_sqrt(td_var(c->in[0], a->axes, a->correction, a->keepdim));
    return out[0] != NULL;
}

/* 2 g (x - mean) / divisor */
static td_tensor *var_gradient(td_tensor *g, td_tensor *x, const var_attr *a)
{
    td_tensor *scale = tdi_with_axes(tdi_times(g, 2 / divisor(x, a)), x, tdi_mask(a->axes, x));
    return td_mul(td_sub(x, td_mean(x, a->axes, true)), scale);
}

/* y, and infinity where y is 0, so that what is divided by it is 0 there, and so are all its derivatives. */
static td_tensor *infinite_at_zero(td_tensor *y) { return td_where(td_eq(y, td_number(0)), td_number(INFINITY), y); }

TDI_GRADIENT(var, var_gradient(g, x, c->attr))
TDI_GRADIENT(std, var_gradient(td_div(g, infinite_at_zero(tdi_times(y, 2))), x, c->attr))

static bool var_sample(uint32_t i, td_sample *s)
{
    static const var_attr cases[] = {{{0, {0}}, 1, false}, {{1, {-1}}, 0, false}, {{2, {0, 2}}, 1, true}};
    if (i >= sizeof cases / sizeof *cases) return false;
    *(var_attr *)s->opts = cases[i];
    s->in[0] = tdi_sample_signed(td_dims(2, 3, 2), i);
    return true;
}

/* ---- logsumexp ---- */

static bool logsumexp_infer(td_infer *i)
{
    const td_logsumexp_attr *a = i->attr;
    tdi_compute_float(i);
    return tdi_infer_reduce("logsumexp", i, a->axes, a->keepdim);
}

/* The maximum is taken out, where it is finite; over no elements the sum is 0 and the result minus infinity. */
static bool logsumexp_decompose(const td_call *c, td_tensor **out)
{
    const td_logsumexp_attr *a = c->attr;
    td_tensor *x = c->in[0];
    uint32_t mask = tdi_mask(a->axes, x);
    if (tdi_count(td_view_of(x), mask) == 0) {
        out[0] = td_log(td_sum(td_exp(x), a->axes, a->keepdim));
        return out[0] != NULL;
    }
    td_tensor *top = td_amax(x, a->axes, true);
    top = tdi_cut(td_isinf(top), top);
    td_tensor *sum = td_sum(td_exp(td_sub(x, top)), a->axes, a->keepdim);
    out[0] = td_add(td_log(sum), a->keepdim ? top : tdi_shaped(top, td_shape(sum)));
    return out[0] != NULL;
}

/* g exp(x - y); a row of minus infinities has y = minus infinity, and no gradient */
static bool logsumexp_backward(const td_call *c, td_tensor *const *gout, td_tensor **gin, uint64_t need)
{
    td_tensor *x = c->in[0], *y = c->out[0];
    uint32_t mask = tdi_mask(((const td_logsumexp_attr *)c->attr)->axes, x);
    td_tensor *base = tdi_cut(td_eq(y, td_number(-INFINITY)), y);
    (void)need;
    gin[0] = td_mul(tdi_with_axes(gout[0], x, mask), td_exp(td_sub(x, tdi_with_axes(base, x, mask))));
    return gin[0] != NULL;
}

static bool logsumexp_sample(uint32_t i, td_sample *s)
{
    static const td_logsumexp_attr cases[] = {{{0, {0}}, false}, {{1, {1}}, false}, {{2, {-1, 0}}, true}};
    if (i >= sizeof cases / sizeof *cases) return false;
    *(td_logsumexp_attr *)s->opts = cases[i];
    s->in[0] = tdi_sample_signed(td_dims(2, 3, 2), i);
    return true;
}

/* ---- norm ---- */

static bool norm_infer(td_infer *i)
{
    const td_norm_attr *a = i->attr;
    uint32_t mask;
    tdi_compute_float(i);
    if (!(a->p >= 0)) return td_fail("norm: p: expected a number >= 0, got %g", a->p);
    if (!tdi_axes_mask("norm", a->axes, i->in[0], &mask)) return false;
    if (a->p == INFINITY && !tdi_want_elements("norm", i->in[0], mask)) return false;
    return tdi_infer_reduce("norm", i, a->axes, a->keepdim);
}

static td_tensor *norm_of(td_tensor *x, const td_norm_attr *a)
{
    if (a->p == 2) return td_sqrt(td_sum(td_mul(x, x), a->axes, a->keepdim));
    if (a->p == 1) return td_sum(td_abs(x), a->axes, a->keepdim);
    if (a->p == 0) return td_sum(tdi_to(tdi_as_mask(x), td_dtype_of(x)), a->axes, a->keepdim);
    if (a->p == INFINITY) return td_amax(td_abs(x), a->axes, a->keepdim);
    return td_pow(td_sum(td_pow(td_abs(x), td_number(a->p)), a->axes, a->keepdim), td_number(1 / a->p));
}

/* f16 and bf16 are computed as f32: powers leave their range early. */
static bool norm_decompose(const td_call *c, td_tensor **out)
{
    td_tensor *x = tdi_real(c->in[0]);
    td_dtype dt = td_dtype_of(x);
    out[0] = tdi_to(norm_of(tdi_to(x, dt == TD_F64 ? TD_F64 : TD_F32), c->attr), dt);
    return out[0] != NULL;
}

/* Elements of the greatest magnitude share the gradient. */
static td_tensor *greatest_gradient(td_tensor *g, td_tensor *x, td_tensor *y, td_ints axes)
{
    td_tensor *chosen = td_eq(td_abs(x), y), *share = td_div(g, td_sum(chosen, axes, true));
    return td_where(chosen, td_mul(td_sign(x), share), td_number(0));
}

/* sign(x) |x|^(p-1) g y^(1-p), 0 where y is 0, and for p < 1, which has a pole there, where x is 0 */
static td_tensor *power_gradient(td_tensor *g, td_tensor *x, td_tensor *y, double p)
{
    td_tensor *slope = td_mul(td_sign(x), td_pow(td_abs(x), td_number(p - 1)));
    if (p < 1) slope = tdi_cut(td_eq(x, td_number(0)), slope);
    td_tensor *scale = td_pow(p < 1 ? y : infinite_at_zero(y), td_number(1 - p));
    return td_mul(slope, td_mul(g, scale));
}

static bool norm_backward(const td_call *c, td_tensor *const *gout, td_tensor **gin, uint64_t need)
{
    const td_norm_attr *a = c->attr;
    td_tensor *x = c->in[0];
    uint32_t mask = tdi_mask(a->axes, x);
    td_tensor *g = tdi_with_axes(gout[0], x, mask), *y = tdi_with_axes(c->out[0], x, mask);
    (void)need;
    if (a->p == 0) return true; /* a count is flat */
    gin[0] = a->p == 2          ? td_mul(x, td_div(g, infinite_at_zero(y)))
             : a->p == 1        ? td_mul(td_sign(x), g)
             : a->p == INFINITY ? greatest_gradient(g, x, y, a->axes)
                                : power_gradient(g, x, y, a->p);
    return gin[0] != NULL;
}

static bool norm_sample(uint32_t i, td_sample *s)
{
    static const td_norm_attr cases[] = {{2, {0, {0}}, false},        {1, {1, {1}}, false}, {3, {2, {0, 2}}, true},
                                         {INFINITY, {1, {0}}, false}, {0, {1, {-1}}, true}, {0.5, {0, {0}}, false}};
    if (i >= sizeof cases / sizeof *cases) return false;
    *(td_norm_attr *)s->opts = cases[i];
    s->in[0] = tdi_sample_signed(td_dims(2, 3, 2), i);
    return true;
}

/* ---- rows ---- */

const td_op tdi_op_var = {TD_ROW_var,          .flags = TD_OP_BWD_DIFF,  .save_in = 1,
                          .infer = var_infer,  .backward = var_backward, .decompose = var_decompose,
                          .sample = var_sample};
const td_op tdi_op_std = {TD_ROW_std,
                          .flags = TD_OP_BWD_DIFF,
                          .save_in = 1,
                          .save_out = 1,
                          .infer = std_infer,
                          .backward = std_backward,
                          .decompose = std_decompose,
                          .sample = var_sample};
const td_op tdi_op_logsumexp = {TD_ROW_logsumexp,
                                .flags = TD_OP_BWD_DIFF,
                                .save_in = 1,
                                .save_out = 1,
                                .infer = logsumexp_infer,
                                .backward = logsumexp_backward,
                                .decompose = logsumexp_decompose,
                                .sample = logsumexp_sample};
const td_op tdi_op_norm = {TD_ROW_norm,
                           .flags = TD_OP_BWD_DIFF,
                           .save_in = 1,
                           .save_out = 1,
                           .infer = norm_infer,
                           .backward = norm_backward,
                           .decompose = norm_decompose,
                           .sample = norm_sample};

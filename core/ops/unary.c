/* unary.c - element-wise functions of one tensor: copies, powers, exponentials, circular functions, rounding, clamp.
 * In the formulas x is the input, y the result and g the gradient of y. */
#include "rules.h"

static const double TWO_BY_ROOT_PI = 1.12837916709551257390; /* of erf's derivative */

/* ---- dtype rules ---- */

static bool neg_infer(td_infer *i) { return tdi_want_numbers("neg", i); }
static bool abs_infer(td_infer *i) { return tdi_want_numbers("abs", i); }
static bool sign_infer(td_infer *i) { return tdi_want_numbers("sign", i); }
static bool square_infer(td_infer *i) { return tdi_want_numbers("square", i); }
static bool floor_infer(td_infer *i) { return tdi_want_numbers("floor", i); }
static bool ceil_infer(td_infer *i) { return tdi_want_numbers("ceil", i); }
static bool round_infer(td_infer *i) { return tdi_want_numbers("round", i); }

static bool cast_infer(td_infer *i)
{
    td_dtype dt = ((const td_cast_attr *)i->attr)->dtype;
    if (!td_dtype_size(dt)) return td_fail_as(TD_EDTYPE, "cast: dtype: no dtype has the number %d", (int)dt);
    i->out[0]->dt = dt;
    return true;
}

/* ---- gradients ---- */

TDI_GRADIENT(copy, g)
TDI_GRADIENT(cast, tdi_to(g, td_dtype_of(x)))
TDI_GRADIENT(neg, td_neg(g))
TDI_GRADIENT(exp, td_mul(g, y))
TDI_GRADIENT(expm1, td_mul(g, tdi_plus(y, 1)))
TDI_GRADIENT(log, td_div(g, x))
TDI_GRADIENT(log1p, td_div(g, tdi_plus(x, 1)))
TDI_GRADIENT(sqrt, td_div(g, tdi_times(y, 2)))
TDI_GRADIENT(rsqrt, td_mul(tdi_times(g, -0.5), td_mul(y, td_mul(y, y))))
TDI_GRADIENT(reciprocal, td_neg(td_mul(g, td_mul(y, y))))
TDI_GRADIENT(square, td_mul(g, tdi_times(x, 2)))
TDI_GRADIENT(abs, td_mul(g, td_sign(x)))
TDI_GRADIENT(sin, td_mul(g, td_cos(x)))
TDI_GRADIENT(cos, td_neg(td_mul(g, td_sin(x))))
TDI_GRADIENT(tanh, td_activation_backward(g, y, TD_ACT_TANH))
TDI_GRADIENT(erf, td_mul(g, tdi_times(td_exp(td_neg(td_mul(x, x))), TWO_BY_ROOT_PI)))

/* ---- definitions ---- */

TDI_DEFINITION(rsqrt, td_reciprocal(td_sqrt(x)))
TDI_DEFINITION(reciprocal, td_div(td_number(1), x))
TDI_DEFINITION(square, td_mul(x, x))

/* ---- clamp ---- */

/* The bounds as numbers that leave x's dtype as it is; for integers cut to what the dtype holds. NULL: no bound. */
typedef struct {
    td_tensor *min, *max;
} bounds;

static td_tensor *integer_bound(double v, td_dtype dt)
{
    double lo = dt == TD_U8 ? 0 : dt == TD_I32 ? -0x1p31 : -0x1p63;
    double hi = dt == TD_U8 ? 255 : dt == TD_I32 ? 0x1p31 - 1 : 0x1p63;
    if (v >= hi) return td_integer(dt == TD_I64 ? INT64_MAX : (int64_t)hi);
    return td_integer((int64_t)(v > lo ? v : lo));
}

static bounds bounds_of(const td_clamp_attr *a, td_dtype dt)
{
    bounds b = {NULL, NULL};
    bool real = td_dtype_is_float(dt);
    if (a->min != -INFINITY) b.min = real ? td_number(a->min) : integer_bound(a->min, dt);
    if (a->max != INFINITY) b.max = real ? td_number(a->max) : integer_bound(a->max, dt);
    return b;
}

static bool has_fraction(const td_clamp_attr *a) { return floor(a->min) != a->min || floor(a->max) != a->max; }

/* Integers stay integers unless a bound has a fraction: then they are computed as f32. */
static bool clamp_infer(td_infer *i)
{
    const td_clamp_attr *a = i->attr;
    if (isnan(a->min) || isnan(a->max))
        return td_fail("clamp: %s: expected a number, got nan", isnan(a->min) ? "min" : "max");
    if (!tdi_want_numbers("clamp", i)) return false;
    if (has_fraction(a)) tdi_compute_float(i);
    return true;
}

static bool clamp_decompose(const td_call *c, td_tensor **out)
{
    td_tensor *x = c->in[0];
    if (tdi_plain_number(x)) x = td_cast(x, td_dtype_of(x) == TD_I64 && !has_fraction(c->attr) ? TD_I64 : TD_F32);
    td_tensor *y = x;
    bounds b = bounds_of(c->attr, td_dtype_of(x));
    if (b.min) y = td_maximum(y, b.min);
    if (b.max) y = td_minimum(y, b.max);
    out[0] = y == x ? td_copy(x) : y;
    return out[0] != NULL;
}

static bool clamp_backward(const td_call *c, td_tensor *const *gout, td_tensor **gin, uint64_t need)
{
    td_tensor *x = c->in[0];
    bounds b = bounds_of(c->attr, td_dtype_of(x));
    td_tensor *below = b.min ? td_lt(x, b.min) : NULL, *above = b.max ? td_gt(x, b.max) : NULL;
    td_tensor *outside = below && above ? td_logical_or(below, above) : below ? below : above;
    (void)need;
    gin[0] = outside ? tdi_cut(outside, gout[0]) : gout[0];
    return gin[0] != NULL;
}

static bool clamp_sample(uint32_t i, td_sample *s)
{
    static const td_clamp_attr cases[] = {{-0.5, 0.7}, {-INFINITY, 0.5}, {-0.6, INFINITY}, {-INFINITY, INFINITY}};
    if (i >= sizeof cases / sizeof *cases) return false;
    *(td_clamp_attr *)s->opts = cases[i];
    s->in[0] = tdi_sample_signed(td_dims(2, 5), i);
    return true;
}

/* ---- samples ---- */

static bool cast_sample(uint32_t i, td_sample *s)
{
    static const td_dtype to[] = {TD_F64, TD_I64, TD_BOOL, TD_F16};
    if (i >= sizeof to / sizeof *to) return false;
    ((td_cast_attr *)s->opts)->dtype = to[i];
    s->in[0] = tdi_sample_signed(td_dims(2, 3), i);
    return true;
}

/* For log1p: above -1, and small enough that 1 + x loses digits. */
static bool log1p_sample(uint32_t i, td_sample *s)
{
    s->in[0] = tdi_sample(i ? td_dims(4) : td_dims(2, 3), i, i ? -0.01 : -0.7, i ? 0.01 : 2);
    return i < 2;
}

/* For floor, ceil, round: wide, and away from integers and halves. */
static bool steps_sample(uint32_t i, td_sample *s)
{
    static const float v[] = {-2.7f, -1.2f, -0.3f, 0.3f, 1.7f, 3.2f};
    if (i == 0) s->in[0] = td_from_data(TD_F32, td_dims(2, 3), v);
    if (i == 1) s->in[0] = td_from_data(TD_F32, td_dims(4), v);
    return i < 2;
}

/* ---- rows ---- */

enum { DEFINED = TD_OP_BWD_DIFF | TD_OP_ALIKE, PRIM = TD_OP_PRIM | DEFINED };
enum { OTHERWISE = TD_OP_PRIM | TD_OP_BWD_DIFF }; /* the result may differ from x in dtype or strides */

const td_op tdi_op_copy = {TD_ROW_copy, .flags = OTHERWISE | TD_OP_ROW_MAJOR, .backward = copy_backward,
                           .sample = tdi_samples_signed};
const td_op tdi_op_cast = {TD_ROW_cast, .flags = OTHERWISE | TD_OP_NO_PROMOTE, .infer = cast_infer,
                           .backward = cast_backward, .sample = cast_sample};
const td_op tdi_op_neg = {TD_ROW_neg, .flags = PRIM, .infer = neg_infer, .backward = neg_backward,
                          .sample = tdi_samples_signed};
const td_op tdi_op_exp = {TD_ROW_exp,
                          .flags = PRIM,
                          .save_out = 1,
                          .infer = tdi_infer_float,
                          .backward = exp_backward,
                          .sample = tdi_samples_signed};
const td_op tdi_op_expm1 = {TD_ROW_expm1,
                            .flags = PRIM,
                            .save_out = 1,
                            .infer = tdi_infer_float,
                            .backward = expm1_backward,
                            .sample = tdi_samples_signed};
const td_op tdi_op_log = {TD_ROW_log,
                          .flags = PRIM,
                          .save_in = 1,
                          .infer = tdi_infer_float,
                          .backward = log_backward,
                          .sample = tdi_samples_positive};
const td_op tdi_op_log1p = {
    TD_ROW_log1p,          .flags = PRIM, .save_in = 1, .infer = tdi_infer_float, .backward = log1p_backward,
    .sample = log1p_sample};
const td_op tdi_op_sqrt = {TD_ROW_sqrt,
                           .flags = PRIM,
                           .save_out = 1,
                           .infer = tdi_infer_float,
                           .backward = sqrt_backward,
                           .sample = tdi_samples_positive};
const td_op tdi_op_rsqrt = {TD_ROW_rsqrt,
                            .flags = DEFINED,
                            .save_out = 1,
                            .infer = tdi_infer_float,
                            .backward = rsqrt_backward,
                            .decompose = rsqrt_decompose,
                            .sample = tdi_samples_positive};
const td_op tdi_op_reciprocal = {TD_ROW_reciprocal,
                                 .flags = DEFINED,
                                 .save_out = 1,
                                 .infer = tdi_infer_float,
                                 .backward = reciprocal_backward,
                                 .decompose = reciprocal_decompose,
                                 .sample = tdi_samples_signed};
const td_op tdi_op_square = {TD_ROW_square,
                             .flags = DEFINED,
                             .save_in = 1,
                             .infer = square_infer,
                             .backward = square_backward,
                             .decompose = square_decompose,
                             .sample = tdi_samples_signed};
const td_op tdi_op_abs = {TD_ROW_abs,
                          .flags = PRIM,
                          .save_in = 1,
                          .infer = abs_infer,
                          .backward = abs_backward,
                          .sample = tdi_samples_signed};
const td_op tdi_op_sign = {TD_ROW_sign, .flags = PRIM, .infer = sign_infer, .backward = tdi_no_gradient,
                           .sample = tdi_samples_signed};
const td_op tdi_op_sin = {TD_ROW_sin,
                          .flags = PRIM,
                          .save_in = 1,
                          .infer = tdi_infer_float,
                          .backward = sin_backward,
                          .sample = tdi_samples_signed};
const td_op tdi_op_cos = {TD_ROW_cos,
                          .flags = PRIM,
                          .save_in = 1,
                          .infer = tdi_infer_float,
                          .backward = cos_backward,
                          .sample = tdi_samples_signed};
const td_op tdi_op_tanh = {TD_ROW_tanh,
                           .flags = PRIM,
                           .save_out = 1,
                           .infer = tdi_infer_float,
                           .backward = tanh_backward,
                           .sample = tdi_samples_signed};
const td_op tdi_op_erf = {TD_ROW_erf,
                          .flags = PRIM,
                          .save_in = 1,
                          .infer = tdi_infer_float,
                          .backward = erf_backward,
                          .sample = tdi_samples_signed};
const td_op tdi_op_floor = {TD_ROW_floor, .flags = PRIM, .infer = floor_infer, .backward = tdi_no_gradient,
                            .sample = steps_sample};
const td_op tdi_op_ceil = {TD_ROW_ceil, .flags = PRIM, .infer = ceil_infer, .backward = tdi_no_gradient,
                           .sample = steps_sample};
const td_op tdi_op_round = {TD_ROW_round, .flags = PRIM, .infer = round_infer, .backward = tdi_no_gradient,
                            .sample = steps_sample};
const td_op tdi_op_clamp = {TD_ROW_clamp,          .flags = DEFINED,           .save_in = 1,
                            .infer = clamp_infer,  .backward = clamp_backward, .decompose = clamp_decompose,
                            .sample = clamp_sample};

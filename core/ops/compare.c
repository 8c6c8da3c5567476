/* compare.c - comparisons, logic and tests of elements, which give bools, and choices by mask. */
#include "rules.h"

/* ---- rules: computed in the promoted dtype, answered as bool ---- */

static bool infer_answer(const char *op, td_infer *i)
{
    if (!tdi_infer_binary(op, i)) return false;
    i->out[0]->dt = TD_BOOL;
    return true;
}

static bool eq_infer(td_infer *i) { return infer_answer("eq", i); }
static bool ne_infer(td_infer *i) { return infer_answer("ne", i); }
static bool lt_infer(td_infer *i) { return infer_answer("lt", i); }
static bool le_infer(td_infer *i) { return infer_answer("le", i); }
static bool gt_infer(td_infer *i) { return infer_answer("gt", i); }
static bool ge_infer(td_infer *i) { return infer_answer("ge", i); }
static bool logical_and_infer(td_infer *i) { return infer_answer("logical_and", i); }
static bool logical_or_infer(td_infer *i) { return infer_answer("logical_or", i); }

static bool logical_not_infer(td_infer *i)
{
    i->out[0]->dt = TD_BOOL;
    return true;
}

/* isnan, isinf, isfinite: integers are never special, as f32 neither. */
static bool infer_special(td_infer *i)
{
    tdi_compute_float(i);
    i->out[0]->dt = TD_BOOL;
    return true;
}

/* ---- definitions: not (x == y) and not (x < y or x > y), because of NaN ---- */

static bool ne_decompose(const td_call *c, td_tensor **out)
{
    out[0] = td_logical_not(td_eq(c->in[0], c->in[1]));
    return out[0] != NULL;
}

static bool gt_decompose(const td_call *c, td_tensor **out)
{
    out[0] = td_lt(c->in[1], c->in[0]);
    return out[0] != NULL;
}

static bool ge_decompose(const td_call *c, td_tensor **out)
{
    out[0] = td_le(c->in[1], c->in[0]);
    return out[0] != NULL;
}

static bool logical_and_decompose(const td_call *c, td_tensor **out)
{
    td_tensor *x = tdi_as_mask(c->in[0]), *y = tdi_as_mask(c->in[1]);
    out[0] = td_where(x, y, x);
    return out[0] != NULL;
}

static bool logical_or_decompose(const td_call *c, td_tensor **out)
{
    td_tensor *x = tdi_as_mask(c->in[0]), *y = tdi_as_mask(c->in[1]);
    out[0] = td_where(x, x, y);
    return out[0] != NULL;
}

TDI_DEFINITION(logical_not, td_eq(x, tdi_zero(td_dtype_of(x))))
TDI_DEFINITION(isinf, td_eq(td_abs(x), td_number(INFINITY)))
TDI_DEFINITION(isfinite, td_lt(td_abs(x), td_number(INFINITY)))

/* ---- where, masked_fill ---- */

static bool where_infer(td_infer *i)
{
    td_view values;
    i->out[0]->dt = i->compute;
    return tdi_broadcast("where", i->in[1], i->in[2], &values) && tdi_broadcast("where", i->in[0], &values, i->out[0]);
}

static bool where_backward(const td_call *c, td_tensor *const *gout, td_tensor **gin, uint64_t need)
{
    td_tensor *mask = c->in[0], *g = gout[0], *zero = tdi_zero(td_dtype_of(g));
    if (need & 2) gin[1] = tdi_sum_to(td_where(mask, g, zero), c->in[1]);
    if (need & 4) gin[2] = tdi_sum_to(td_where(mask, zero, g), c->in[2]);
    return true;
}

static bool masked_fill_infer(td_infer *i)
{
    double value = ((const td_masked_fill_attr *)i->attr)->value;
    const td_view *x = i->in[0], *mask = i->in[1];
    bool fits = mask->nd <= x->nd;
    for (int32_t d = 1; fits && d <= mask->nd; d++)
        fits = mask->dim[mask->nd - d] == 1 || mask->dim[mask->nd - d] == x->dim[x->nd - d];
    if (!fits)
        return td_fail_as(TD_ESHAPE, "masked_fill: mask: expected a shape that broadcasts to that of x, %s, got %s",
                          tdi_shape_text(x), tdi_shape_text(mask));
    if (!td_dtype_is_float(x->dt) && (!isfinite(value) || floor(value) != value))
        return td_fail("masked_fill: value: expected an integer for a tensor of dtype %s, got %g", td_dtype_name(x->dt),
                       value);
    return true;
}

/* The value as a 0-dim tensor that leaves x's dtype as it is. */
static td_tensor *fill_value(double v, td_dtype dt)
{
    if (td_dtype_is_float(dt)) return td_number(v);
    return td_cast(td_number(v), dt);
}

static bool masked_fill_decompose(const td_call *c, td_tensor **out)
{
    double value = ((const td_masked_fill_attr *)c->attr)->value;
    td_tensor *x = c->in[0];
    out[0] = td_where(tdi_as_mask(c->in[1]), fill_value(value, td_dtype_of(x)), x);
    return out[0] != NULL;
}

static bool masked_fill_backward(const td_call *c, td_tensor *const *gout, td_tensor **gin, uint64_t need)
{
    (void)need;
    gin[0] = tdi_cut(c->in[1], gout[0]);
    return gin[0] != NULL;
}

/* ---- samples ---- */

/* Some elements equal, so that each answer occurs. */
static bool compare_sample(uint32_t i, td_sample *s)
{
    static const float x[] = {1, 2, 3, -1, 0, 2}, y[] = {1, 3, 2, -1, -0.0f, NAN};
    if (i > 2) return false;
    s->in[0] = i == 2 ? tdi_sample_ints(td_dims(2, 3), 0, 4) : td_from_data(TD_F32, td_dims(2, 3), x);
    s->in[1] = i == 0   ? td_from_data(TD_F32, td_dims(2, 3), y)
               : i == 1 ? td_from_data(TD_F32, td_dims(3), y)
                        : tdi_sample_ints(td_dims(2, 1), 1, 4);
    return true;
}

static bool logic_sample(uint32_t i, td_sample *s)
{
    static const float x[] = {0, 2, -0.0f, NAN, 0, 1};
    if (i > 1) return false;
    s->in[0] = i ? tdi_sample_mask(td_dims(2, 3), 0) : td_from_data(TD_F32, td_dims(2, 3), x);
    s->in[1] = i ? tdi_sample_ints(td_dims(3), 1, 2) : tdi_sample_mask(td_dims(2, 3), 1);
    return true;
}

static bool special_sample(uint32_t i, td_sample *s)
{
    static const float x[] = {0, -INFINITY, NAN, INFINITY, -1, 3e38f};
    if (i == 0) s->in[0] = td_from_data(TD_F32, td_dims(2, 3), x);
    if (i == 1) s->in[0] = tdi_sample_ints(td_dims(4), 0, 3);
    return i < 2;
}

static bool logical_not_sample(uint32_t i, td_sample *s)
{
    if (i == 2) s->in[0] = tdi_sample_mask(td_dims(5), 0);
    return i == 2 || special_sample(i, s);
}

static bool where_sample(uint32_t i, td_sample *s)
{
    if (i > 2) return false;
    s->in[0] = tdi_sample_mask(i == 1 ? td_dims(3) : td_dims(2, 3), 0);
    s->in[1] = tdi_sample_signed(i == 1 ? td_dims(2, 1) : td_dims(2, 3), 1);
    s->in[2] = i == 2 ? td_number(0.5) : tdi_sample_signed(td_dims(2, 3), 2);
    return true;
}

static bool masked_fill_sample(uint32_t i, td_sample *s)
{
    ((td_masked_fill_attr *)s->opts)->value = i ? -2 : 0.5;
    s->in[0] = tdi_sample_signed(td_dims(2, 3), i);
    s->in[1] = tdi_sample_mask(i ? td_dims(3) : td_dims(2, 3), i);
    return i < 2;
}

/* ---- rows ---- */

const td_op tdi_op_eq = {TD_ROW_eq, .flags = TD_OP_PRIM, .infer = eq_infer, .sample = compare_sample};
const td_op tdi_op_lt = {TD_ROW_lt, .flags = TD_OP_PRIM, .infer = lt_infer, .sample = compare_sample};
const td_op tdi_op_le = {TD_ROW_le, .flags = TD_OP_PRIM, .infer = le_infer, .sample = compare_sample};
const td_op tdi_op_ne = {TD_ROW_ne, .infer = ne_infer, .decompose = ne_decompose, .sample = compare_sample};
const td_op tdi_op_gt = {TD_ROW_gt, .infer = gt_infer, .decompose = gt_decompose, .sample = compare_sample};
const td_op tdi_op_ge = {TD_ROW_ge, .infer = ge_infer, .decompose = ge_decompose, .sample = compare_sample};
const td_op tdi_op_logical_and = {TD_ROW_logical_and, .infer = logical_and_infer, .decompose = logical_and_decompose,
                                  .sample = logic_sample};
const td_op tdi_op_logical_or = {TD_ROW_logical_or, .infer = logical_or_infer, .decompose = logical_or_decompose,
                                 .sample = logic_sample};
const td_op tdi_op_logical_not = {TD_ROW_logical_not, .infer = logical_not_infer, .decompose = logical_not_decompose,
                                  .sample = logical_not_sample};
const td_op tdi_op_isnan = {TD_ROW_isnan, .flags = TD_OP_PRIM, .infer = infer_special, .sample = special_sample};
const td_op tdi_op_isinf = {TD_ROW_isinf, .infer = infer_special, .decompose = isinf_decompose,
                            .sample = special_sample};
const td_op tdi_op_isfinite = {TD_ROW_isfinite, .infer = infer_special, .decompose = isfinite_decompose,
                               .sample = special_sample};
const td_op tdi_op_where = {TD_ROW_where,         .flags = TD_OP_PRIM | TD_OP_BWD_DIFF, .save_in = 1,
                            .infer = where_infer, .backward = where_backward,           .sample = where_sample};
const td_op tdi_op_masked_fill = {
    TD_ROW_masked_fill,          .flags = TD_OP_BWD_DIFF,          .save_in = 2,
    .infer = masked_fill_infer,  .backward = masked_fill_backward, .decompose = masked_fill_decompose,
    .sample = masked_fill_sample};

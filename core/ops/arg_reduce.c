/* arg_reduce.c - which element: argmax argmin, and with its value: max min median. */
#include "rules.h"

/* ---- argmax, argmin ---- */

typedef struct {
    int64_t axis;
    bool has_axis, keepdim;
} arg_attr; /* the attributes of argmax and of argmin */
TDI_SAME_LAYOUT(arg_attr, td_argmax_attr, keepdim);
TDI_SAME_LAYOUT(arg_attr, td_argmin_attr, keepdim);

/* Bools are compared as u8. */
static bool infer_arg(const char *op, td_infer *i)
{
    const arg_attr *a = i->attr;
    const td_view *x = i->in[0];
    int axis = a->has_axis ? tdi_axis(op, a->axis, x) : 0;
    if (axis < 0) return false;
    uint32_t mask = a->has_axis ? 1u << axis : (1u << x->nd) - 1;
    if (!tdi_want_elements(op, x, mask)) return false;
    if (i->compute == TD_BOOL) i->compute = TD_U8;
    i->out[0]->dt = TD_I64;
    tdi_drop_axes(i->out[0], mask, a->keepdim);
    return true;
}

static bool argmax_infer(td_infer *i) { return infer_arg("argmax", i); }
static bool argmin_infer(td_infer *i) { return infer_arg("argmin", i); }

/* ---- max, min ---- */

typedef struct {
    int64_t axis;
    bool keepdim;
} pick_attr; /* the attributes of max, min and median */
TDI_SAME_LAYOUT(pick_attr, td_max_attr, keepdim);
TDI_SAME_LAYOUT(pick_attr, td_min_attr, keepdim);
TDI_SAME_LAYOUT(pick_attr, td_median_attr, keepdim);

static bool infer_pick(const char *op, td_infer *i)
{
    const pick_attr *a = i->attr;
    int axis = tdi_axis(op, a->axis, i->in[0]);
    if (axis < 0 || !tdi_want_elements(op, i->in[0], 1u << axis)) return false;
    i->out[1]->dt = TD_I64;
    return tdi_infer_reduce_one(op, i, axis, a->keepdim);
}

static bool max_infer(td_infer *i) { return infer_pick("max", i); }
static bool min_infer(td_infer *i) { return infer_pick("min", i); }
static bool median_infer(td_infer *i) { return tdi_want_numbers("median", i) && infer_pick("median", i); }

/* Values at index (which has extent 1 on the axis) and index itself, in the shape that the op gives. */
static bool pick(td_tensor *x, td_tensor *index, int64_t axis, bool keepdim, td_tensor **out)
{
    out[0] = td_gather(x, index, axis);
    out[1] = index;
    for (int k = 0; !keepdim && k < 2; k++) out[k] = td_squeeze(out[k], td_dims(axis));
    return out[0] && out[1];
}

/* Input 0 with at least one axis. */
static td_tensor *with_an_axis(td_tensor *x) { return td_ndim(x) ? x : td_unsqueeze(x, 0); }

static bool finish(const td_call *c, td_tensor **out)
{
    td_ints none = {0, {0}};
    for (int k = 0; td_ndim(c->in[0]) == 0 && k < 2; k++) out[k] = tdi_shaped(out[k], none);
    return out[0] && out[1];
}

static bool max_decompose(const td_call *c, td_tensor **out)
{
    const pick_attr *a = c->attr;
    td_tensor *x = with_an_axis(c->in[0]);
    return pick(x, td_argmax(x, a->axis, true), a->axis, a->keepdim, out) && finish(c, out);
}

static bool min_decompose(const td_call *c, td_tensor **out)
{
    const pick_attr *a = c->attr;
    td_tensor *x = with_an_axis(c->in[0]);
    return pick(x, td_argmin(x, a->axis, true), a->axis, a->keepdim, out) && finish(c, out);
}

/* The lower middle place after sorting; if there is a NaN, the place of the first, for NaNs come last. */
static bool median_decompose(const td_call *c, td_tensor **out)
{
    const pick_attr *a = c->attr;
    td_tensor *x = with_an_axis(c->in[0]), *sorted, *order;
    int64_t n = td_dim(x, (int)a->axis);
    if (!td_sort(x, a->axis, false, &sorted, &order)) return false;
    td_tensor *place = NULL;
    if (td_dtype_is_float(td_dtype_of(x))) {
        td_tensor *nans = td_sum(td_isnan(x), td_dims(a->axis), true);
        place = td_where(td_eq(nans, td_integer(0)), td_integer((n - 1) / 2), td_sub(td_integer(n), nans));
    }
    td_tensor *index = place ? td_gather(order, place, a->axis) : td_narrow(order, a->axis, (n - 1) / 2, 1);
    return pick(x, index, a->axis, a->keepdim, out) && finish(c, out);
}

/* The gradient goes to the element that was picked. */
static bool pick_backward(const td_call *c, td_tensor *const *gout, td_tensor **gin, uint64_t need)
{
    const pick_attr *a = c->attr;
    td_tensor *x = c->in[0], *g = gout[0], *index = c->out[1];
    (void)need;
    if (td_ndim(x) == 0) {
        gin[0] = g;
        return true;
    }
    uint32_t mask = tdi_mask(td_dims(a->axis), x);
    td_tensor *zeros = td_zeros(td_shape(x), td_dtype_of(g));
    gin[0] = td_scatter_add(zeros, tdi_with_axes(index, x, mask), tdi_with_axes(g, x, mask), a->axis);
    return gin[0] != NULL;
}

/* ---- samples ---- */

static bool arg_sample(uint32_t i, td_sample *s)
{
    static const arg_attr cases[] = {{0, true, false}, {-1, true, true}, {0, false, false}, {1, true, false}};
    static const float ties[] = {1, 3, 3, 2, NAN, NAN, -1, -1, -1};
    if (i >= sizeof cases / sizeof *cases) return false;
    *(arg_attr *)s->opts = cases[i];
    s->in[0] = i == 3 ? td_from_data(TD_F32, td_dims(3, 3), ties) : tdi_sample_signed(td_dims(2, 3, 2), i);
    return true;
}

static bool pick_sample(uint32_t i, td_sample *s)
{
    static const pick_attr cases[] = {{1, false}, {0, true}, {-1, false}, {-1, false}};
    if (i >= sizeof cases / sizeof *cases) return false;
    *(pick_attr *)s->opts = cases[i];
    s->in[0] = i == 3   ? tdi_sample_ints(td_dims(2, 4), i, 4)
               : i == 2 ? tdi_sample_signed((td_ints){0, {0}}, i)
                        : tdi_sample_signed(td_dims(2, 4, 3), i);
    return true;
}

/* ---- rows ---- */

const td_op tdi_op_argmax = {TD_ROW_argmax, .flags = TD_OP_PRIM, .infer = argmax_infer, .sample = arg_sample};
const td_op tdi_op_argmin = {TD_ROW_argmin, .flags = TD_OP_PRIM, .infer = argmin_infer, .sample = arg_sample};
const td_op tdi_op_max = {TD_ROW_max,           .flags = TD_OP_BWD_DIFF,   .save_out = 2,
                          .infer = max_infer,   .backward = pick_backward, .decompose = max_decompose,
                          .sample = pick_sample};
const td_op tdi_op_min = {TD_ROW_min,           .flags = TD_OP_BWD_DIFF,   .save_out = 2,
                          .infer = min_infer,   .backward = pick_backward, .decompose = min_decompose,
                          .sample = pick_sample};
const td_op tdi_op_median = {TD_ROW_median,         .flags = TD_OP_BWD_DIFF,   .save_out = 2,
                             .infer = median_infer, .backward = pick_backward, .decompose = median_decompose,
                             .sample = pick_sample};

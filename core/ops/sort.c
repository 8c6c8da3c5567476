/* sort.c - order along an axis: sort argsort topk. */
#include "common.h"

/* The gradient of an element goes to where the element came from. */
static bool to_origin(const td_call *c, td_tensor *g, int64_t axis, td_tensor **gin)
{
    if (!g) return true;
    gin[0] = td_scatter_add(tdi_zeros_for(c->in[0], g), c->out[1], g, axis);
    return gin[0] != NULL;
}

static bool sort_infer(td_infer *q)
{
    const td_sort_attr *a = q->attr;
    q->out[1]->dt = TD_I64;
    return tdi_real_axis("sort", a->axis, q->in[0]) >= 0;
}

static bool sort_backward(const td_call *c, td_tensor *const *gout, td_tensor **gin, uint64_t need)
{
    const td_sort_attr *a = c->attr;
    (void)need;
    return to_origin(c, gout[0], a->axis, gin);
}

static bool sort_sample(uint32_t i, td_sample *s)
{
    td_sort_attr *a = s->opts;
    s->in[0] = tdi_distinct(td_dims(3, 5));
    if (i == 1) *a = (td_sort_attr){.axis = 0, .descending = true};
    return i < 2;
}

static bool argsort_infer(td_infer *q)
{
    const td_argsort_attr *a = q->attr;
    q->out[0]->dt = TD_I64;
    return tdi_real_axis("argsort", a->axis, q->in[0]) >= 0;
}

static bool argsort_decompose(const td_call *c, td_tensor **out)
{
    const td_argsort_attr *a = c->attr;
    td_tensor *values;
    return td_sort(c->in[0], a->axis, a->descending, &values, &out[0]);
}

static bool argsort_sample(uint32_t i, td_sample *s)
{
    td_argsort_attr *a = s->opts;
    s->in[0] = tdi_distinct(td_dims(3, 5));
    if (i == 1) *a = (td_argsort_attr){.axis = 0, .descending = true};
    return i < 2;
}

static bool topk_infer(td_infer *q)
{
    const td_topk_attr *a = q->attr;
    int axis = tdi_real_axis("topk", a->axis, q->in[0]);
    if (axis < 0) return false;
    if (a->k < 0 || a->k > q->in[0]->dim[axis])
        return td_fail("topk: k: expected 0 to %lld, the extent of axis %d of x %s, got %lld",
                       (long long)q->in[0]->dim[axis], axis + 1, tdi_shape_text(q->in[0]), (long long)a->k);
    q->out[0]->dim[axis] = q->out[1]->dim[axis] = a->k;
    q->out[1]->dt = TD_I64;
    return true;
}

static bool topk_decompose(const td_call *c, td_tensor **out)
{
    const td_topk_attr *a = c->attr;
    td_tensor *values, *index;
    if (!td_sort(c->in[0], a->axis, a->largest, &values, &index)) return false;
    out[0] = td_copy(td_narrow(values, a->axis, 0, a->k)); /* copies: the sorted whole need not live on */
    out[1] = td_copy(td_narrow(index, a->axis, 0, a->k));
    return out[1] != NULL;
}

static bool topk_backward(const td_call *c, td_tensor *const *gout, td_tensor **gin, uint64_t need)
{
    const td_topk_attr *a = c->attr;
    (void)need;
    return to_origin(c, gout[0], a->axis, gin);
}

static bool topk_sample(uint32_t i, td_sample *s)
{
    td_topk_attr *a = s->opts;
    s->in[0] = tdi_distinct(td_dims(3, 5));
    a->k = 2;
    if (i == 1) *a = (td_topk_attr){.k = 1, .axis = 0, .largest = false};
    return i < 2;
}

/* save_out 2: the indices */
const td_op tdi_op_sort = {TD_ROW_sort,
                           .save_out = 2,
                           .flags = TD_OP_PRIM | TD_OP_BWD_DIFF | TD_OP_GOUT_NULL,
                           .infer = sort_infer,
                           .backward = sort_backward,
                           .sample = sort_sample};
const td_op tdi_op_argsort = {TD_ROW_argsort, .infer = argsort_infer, .decompose = argsort_decompose,
                              .sample = argsort_sample};
const td_op tdi_op_topk = {TD_ROW_topk,
                           .save_out = 2,
                           .flags = TD_OP_BWD_DIFF | TD_OP_GOUT_NULL,
                           .infer = topk_infer,
                           .backward = topk_backward,
                           .decompose = topk_decompose,
                           .sample = topk_sample};

/* scatter.c - one axis addressed element by element: gather scatter scatter_add; and slice by slice: index_select
 * index_add index_copy. Kernels refuse indices outside the axis. */
#include "common.h"

enum { PRIM = TD_OP_PRIM | TD_OP_BWD_DIFF };

/* No index lies in an empty axis. A kernel would say so, but does not run where the result is empty. */
static bool reachable(const char *op, const td_view *x, int axis, const td_view *i)
{
    return x->dim[axis] || !td_view_numel(i) ||
           td_fail_as(TD_ESHAPE, "%s: axis %d of x %s is empty, so that no index lies in it", op, axis + 1,
                      tdi_shape_text(x));
}

/* ---- gather, scatter, scatter_add: i has as many axes as x ---- */

/* i lies within x in all axes but the one that it addresses. */
static bool fits_x(const char *op, int64_t axis, const td_view *x, const td_view *i)
{
    int at = tdi_real_axis(op, axis, x);
    if (at < 0 || !tdi_index_ok(op, "i", i)) return false;
    bool fits = i->nd == x->nd;
    for (int32_t k = 0; fits && k < x->nd; k++) fits = k == at || i->dim[k] <= x->dim[k];
    if (!fits)
        return td_fail_as(TD_ESHAPE, "%s: i %s does not lie within x %s in all axes but axis %d", op, tdi_shape_text(i),
                          tdi_shape_text(x), at + 1);
    return reachable(op, x, at, i);
}

static bool gather_infer(td_infer *q)
{
    const td_gather_attr *a = q->attr;
    const td_view *i = q->in[1];
    if (!fits_x("gather", a->axis, q->in[0], i)) return false;
    for (int32_t k = 0; k < i->nd; k++) q->out[0]->dim[k] = i->dim[k];
    return true;
}

static bool gather_backward(const td_call *c, td_tensor *const *gout, td_tensor **gin, uint64_t need)
{
    const td_gather_attr *a = c->attr;
    (void)need;
    gin[0] = td_scatter_add(tdi_zeros_for(c->in[0], gout[0]), c->in[1], gout[0], a->axis);
    return gin[0] != NULL;
}

static bool gather_sample(uint32_t i, td_sample *s)
{
    td_gather_attr *a = s->opts;
    s->in[0] = tdi_normal(td_dims(3, 4));
    s->in[1] = i == 0 ? tdi_indices(td_dims(2, 4), (const int64_t[]){2, 0, 1, 1, 0, 0, 1, 2})
                      : tdi_indices(td_dims(3, 2), (const int64_t[]){3, 3, 0, 1, 2, 0});
    a->axis = i == 0 ? 0 : -1;
    return i < 2;
}

static bool scatter_infer(td_infer *q)
{
    const td_scatter_attr *a = q->attr;
    return fits_x("scatter", a->axis, q->in[0], q->in[1]) &&
           tdi_shapes_equal("scatter", "i", q->in[1], "src", q->in[2]);
}

static bool scatter_add_infer(td_infer *q)
{
    const td_scatter_add_attr *a = q->attr;
    return fits_x("scatter_add", a->axis, q->in[0], q->in[1]) &&
           tdi_shapes_equal("scatter_add", "i", q->in[1], "src", q->in[2]);
}

td_tensor *tdi_last_written(td_ints shape, td_tensor *i, int64_t axis)
{
    td_tensor *id = td_reshape(tdi_count_to(td_numel(i)), td_shape(i));
    return td_eq(td_gather(td_scatter(td_zeros(shape, TD_I64), i, id, axis), i, axis), id);
}

static bool scatter_backward(const td_call *c, td_tensor *const *gout, td_tensor **gin, uint64_t need)
{
    const td_scatter_attr *a = c->attr;
    td_tensor *g = gout[0], *i = c->in[1];
    if (need & 1) gin[0] = td_scatter(g, i, td_zeros(td_shape(i), td_dtype_of(g)), a->axis);
    if (need & 4) {
        td_tensor *last = tdi_last_written(td_shape(c->in[0]), i, a->axis);
        gin[2] = td_where(last, td_gather(g, i, a->axis), td_number(0));
    }
    return !td_failed();
}

static bool scatter_add_backward(const td_call *c, td_tensor *const *gout, td_tensor **gin, uint64_t need)
{
    const td_scatter_add_attr *a = c->attr;
    if (need & 1) gin[0] = gout[0];
    if (need & 4) gin[2] = td_gather(gout[0], c->in[1], a->axis);
    return !td_failed();
}

/* repeat: one place is written twice. */
static int64_t scatter_case(uint32_t i, td_sample *s, bool repeat)
{
    int64_t twice = repeat ? 2 : 1;
    s->in[0] = tdi_normal(td_dims(3, 4));
    s->in[1] = i == 0 ? tdi_indices(td_dims(2, 4), (const int64_t[]){2, 0, 1, twice, 0, 1, 2, 2})
                      : tdi_indices(td_dims(3, 2), (const int64_t[]){twice, 2, 0, 3, 2, 0});
    s->in[2] = i == 0 ? tdi_normal(td_dims(2, 4)) : tdi_normal(td_dims(3, 2));
    return i == 0 ? 0 : -1;
}

static bool scatter_sample(uint32_t i, td_sample *s)
{
    td_scatter_attr *a = s->opts;
    a->axis = scatter_case(i, s, false);
    return i < 2;
}

static bool scatter_add_sample(uint32_t i, td_sample *s)
{
    td_scatter_add_attr *a = s->opts;
    a->axis = scatter_case(i, s, true);
    return i < 2;
}

/* ---- index_select, index_add, index_copy: i is 1-D and stands for whole slices ---- */

static bool index_select_infer(td_infer *q)
{
    const td_index_select_attr *a = q->attr;
    const td_view *i = q->in[1];
    int axis = tdi_real_axis("index_select", a->axis, q->in[0]);
    if (axis < 0 || !tdi_index_ok("index_select", "i", i) || !tdi_ndim_ok("index_select", "i", i, 1, "n")) return false;
    q->out[0]->dim[axis] = i->dim[0];
    return reachable("index_select", q->in[0], axis, i);
}

static bool index_select_backward(const td_call *c, td_tensor *const *gout, td_tensor **gin, uint64_t need)
{
    const td_index_select_attr *a = c->attr;
    (void)need;
    gin[0] = td_index_add(tdi_zeros_for(c->in[0], gout[0]), c->in[1], gout[0], a->axis);
    return gin[0] != NULL;
}

static bool index_select_sample(uint32_t i, td_sample *s)
{
    td_index_select_attr *a = s->opts;
    s->in[0] = tdi_normal(td_dims(3, 4));
    s->in[1] = tdi_indices(td_dims(4), (const int64_t[]){2, 0, 2, 1});
    a->axis = i == 0 ? 0 : -1;
    return i < 2;
}

/* src agrees with x but on the axis, where it has an extent for each index. */
static bool slices_fit(const char *op, int64_t axis, td_infer *q)
{
    const td_view *x = q->in[0], *i = q->in[1], *src = q->in[2];
    int at = tdi_real_axis(op, axis, x);
    if (at < 0 || !tdi_index_ok(op, "i", i) || !tdi_ndim_ok(op, "i", i, 1, "n")) return false;
    bool fits = src->nd == x->nd;
    for (int32_t k = 0; fits && k < x->nd; k++) fits = src->dim[k] == (k == at ? i->dim[0] : x->dim[k]);
    if (!fits)
        return td_fail_as(TD_ESHAPE, "%s: src %s does not agree with x %s and %lld indices on axis %d", op,
                          tdi_shape_text(src), tdi_shape_text(x), (long long)i->dim[0], at + 1);
    return reachable(op, x, at, i);
}

static bool index_add_infer(td_infer *q)
{
    const td_index_add_attr *a = q->attr;
    return slices_fit("index_add", a->axis, q);
}

static bool index_copy_infer(td_infer *q)
{
    const td_index_copy_attr *a = q->attr;
    return slices_fit("index_copy", a->axis, q);
}

/* The indices repeated for every element of src. */
static td_tensor *for_slices(td_tensor *i, const td_tensor *src, int axis)
{
    return td_expand(tdi_along(i, axis, td_ndim(src)), td_shape(src));
}

static bool index_add_decompose(const td_call *c, td_tensor **out)
{
    const td_index_add_attr *a = c->attr;
    int axis = tdi_axis("index_add", a->axis, td_view_of(c->in[0]));
    if (axis < 0) return false;
    out[0] = td_scatter_add(c->in[0], for_slices(c->in[1], c->in[2], axis), c->in[2], axis);
    return out[0] != NULL;
}

static bool index_add_backward(const td_call *c, td_tensor *const *gout, td_tensor **gin, uint64_t need)
{
    const td_index_add_attr *a = c->attr;
    if (need & 1) gin[0] = gout[0];
    if (need & 4) gin[2] = td_index_select(gout[0], c->in[1], a->axis);
    return !td_failed();
}

static bool index_copy_decompose(const td_call *c, td_tensor **out)
{
    const td_index_copy_attr *a = c->attr;
    int axis = tdi_axis("index_copy", a->axis, td_view_of(c->in[0]));
    if (axis < 0) return false;
    out[0] = td_scatter(c->in[0], for_slices(c->in[1], c->in[2], axis), c->in[2], axis);
    return out[0] != NULL;
}

static bool index_copy_backward(const td_call *c, td_tensor *const *gout, td_tensor **gin, uint64_t need)
{
    const td_index_copy_attr *a = c->attr;
    td_tensor *g = gout[0], *i = c->in[1];
    int axis = tdi_axis("index_copy", a->axis, td_view_of(c->in[0]));
    if (axis < 0) return false;
    if (need & 1) gin[0] = td_index_copy(g, i, tdi_zeros_for(c->in[2], g), axis);
    if (need & 4) {
        td_tensor *last = tdi_last_written(td_dims(td_dim(c->in[0], axis)), i, 0);
        gin[2] = td_where(tdi_along(last, axis, td_ndim(g)), td_index_select(g, i, axis), td_number(0));
    }
    return !td_failed();
}

static int64_t slices_case(uint32_t i, td_sample *s, bool repeat)
{
    s->in[0] = tdi_normal(td_dims(4, 3));
    if (i == 0) s->in[1] = tdi_indices(td_dims(3), (const int64_t[]){3, 1, repeat ? 3 : 0});
    else s->in[1] = tdi_indices(td_dims(2), (const int64_t[]){2, 0});
    s->in[2] = i == 0 ? tdi_normal(td_dims(3, 3)) : tdi_normal(td_dims(4, 2));
    return i == 0 ? 0 : -1;
}

static bool index_add_sample(uint32_t i, td_sample *s)
{
    td_index_add_attr *a = s->opts;
    a->axis = slices_case(i, s, true);
    return i < 2;
}

static bool index_copy_sample(uint32_t i, td_sample *s)
{
    td_index_copy_attr *a = s->opts;
    a->axis = slices_case(i, s, false);
    return i < 2;
}

/* save_in 2: the indices; x and src are needed for their shapes only */
const td_op tdi_op_gather = {
    TD_ROW_gather,          .save_in = 2, .flags = PRIM, .infer = gather_infer, .backward = gather_backward,
    .sample = gather_sample};
const td_op tdi_op_scatter = {
    TD_ROW_scatter,          .save_in = 2, .flags = PRIM, .infer = scatter_infer, .backward = scatter_backward,
    .sample = scatter_sample};
const td_op tdi_op_scatter_add = {TD_ROW_scatter_add,
                                  .save_in = 2,
                                  .flags = PRIM,
                                  .infer = scatter_add_infer,
                                  .backward = scatter_add_backward,
                                  .sample = scatter_add_sample};
const td_op tdi_op_index_select = {TD_ROW_index_select,
                                   .save_in = 2,
                                   .flags = PRIM,
                                   .infer = index_select_infer,
                                   .backward = index_select_backward,
                                   .sample = index_select_sample};
const td_op tdi_op_index_add = {TD_ROW_index_add,
                                .save_in = 2,
                                .flags = TD_OP_BWD_DIFF,
                                .infer = index_add_infer,
                                .backward = index_add_backward,
                                .decompose = index_add_decompose,
                                .sample = index_add_sample};
const td_op tdi_op_index_copy = {TD_ROW_index_copy,
                                 .save_in = 2,
                                 .flags = TD_OP_BWD_DIFF,
                                 .infer = index_copy_infer,
                                 .backward = index_copy_backward,
                                 .decompose = index_copy_decompose,
                                 .sample = index_copy_sample};

/* view.c - views that regroup or reorder axes: view reshape flatten transpose permute squeeze unsqueeze expand.
 * infer says the shape, view the strides; the elements stay where they are. */
#include "common.h"

enum { VIEW = TD_OP_VIEW | TD_OP_BWD_DIFF };

/* ---- view, reshape, flatten: the same elements in the same order under another shape ---- */

/* Puts the extents that were asked for into y, with a -1 worked out. */
static bool wanted_shape(const char *op, td_ints shape, const td_view *x, td_view *y)
{
    int64_t n = td_view_numel(x), known;
    int hole = -1;
    if (shape.n < 0 || shape.n > TD_MAX_DIM)
        return td_fail_as(TD_ESHAPE, "%s: shape: expected at most %d extents, got %lld", op, (int)TD_MAX_DIM,
                          (long long)shape.n);
    tdi_set_dims(y, shape);
    for (int32_t i = 0; i < y->nd; i++) {
        if (y->dim[i] >= 0) continue;
        if (y->dim[i] != -1)
            return td_fail_as(TD_ESHAPE, "%s: shape: extent %lld of axis %d is negative", op, (long long)y->dim[i],
                              (int)i + 1);
        if (hole >= 0)
            return td_fail_as(TD_ESHAPE, "%s: shape: only one extent may be -1, got %s", op, tdi_shape_text(y));
        hole = i;
    }
    if (hole >= 0) y->dim[hole] = 1;
    if (!tdi_extents_ok(op, y)) return false;
    known = td_view_numel(y);
    if (hole >= 0) {
        y->dim[hole] = -1;
        if (!known)
            return td_fail_as(TD_ESHAPE, "%s: shape: -1 in %s could be any extent, as x has no elements", op,
                              tdi_shape_text(y));
        if (n % known)
            return td_fail_as(TD_ESHAPE, "%s: the %lld elements of x %s do not fill shape %s", op, (long long)n,
                              tdi_shape_text(x), tdi_shape_text(y));
        y->dim[hole] = n / known;
    } else if (known != n) {
        return td_fail_as(TD_ESHAPE, "%s: x %s has %lld elements, and shape %s asks for %lld", op, tdi_shape_text(x),
                          (long long)n, tdi_shape_text(y), (long long)known);
    }
    return true;
}

/* Gives y, of as many elements as x, strides that visit x's elements in order; false where there are none.
 * Neighbouring axes of x form a run where one stride walks through all of them, and axes of y must fill whole runs. */
static bool regroup(const td_view *x, td_view *y)
{
    int32_t from = x->nd, to = y->nd;
    if (!td_view_numel(y) || !x->nd) { /* nothing to visit, or one element */
        int64_t stride = 1;
        for (int32_t i = y->nd - 1; i >= 0; i--) {
            y->stride[i] = stride;
            if (__builtin_mul_overflow(stride, y->dim[i] ? y->dim[i] : 1, &stride)) stride = 0;
        }
        return true;
    }
    while (from > 0) {
        int64_t step = x->stride[--from], run = x->dim[from], done = 1;
        if (run == 1 && from > 0) continue; /* its stride says nothing */
        while (from > 0 && (x->dim[from - 1] == 1 || x->stride[from - 1] == step * run)) run *= x->dim[--from];
        while (to > 0 && (done < run || y->dim[to - 1] == 1)) {
            y->stride[--to] = step * done;
            done *= y->dim[to];
        }
        if (done != run) return false;
    }
    return to == 0;
}

static bool view_infer(td_infer *q)
{
    const td_view_attr *a = q->attr;
    q->out[0]->dt = q->in[0]->dt;
    return wanted_shape("view", a->shape, q->in[0], q->out[0]);
}

static bool view_view(td_infer *q)
{
    return regroup(q->in[0], q->out[0]) ||
           td_fail_as(TD_ESHAPE, "view: the strides of x %s do not allow shape %s without a copy: use reshape",
                      tdi_shape_text(q->in[0]), tdi_shape_text(q->out[0]));
}

static bool reshape_infer(td_infer *q)
{
    const td_reshape_attr *a = q->attr;
    q->out[0]->dt = q->in[0]->dt;
    return wanted_shape("reshape", a->shape, q->in[0], q->out[0]);
}

static bool flatten_infer(td_infer *q)
{
    const td_flatten_attr *a = q->attr;
    const td_view *x = q->in[0];
    td_view *y = q->out[0];
    int first = tdi_axis("flatten", a->first, x), last = first < 0 ? -1 : tdi_axis("flatten", a->last, x);
    if (last < 0) return false;
    if (first > last)
        return td_fail_as(TD_ESHAPE, "flatten: first axis %d comes after last axis %d", first + 1, last + 1);
    y->dt = x->dt;
    y->nd = x->nd ? x->nd - (last - first) : 1;
    int64_t n = 1;
    for (int i = first; i <= last && i < x->nd; i++)
        if (__builtin_mul_overflow(n, x->dim[i], &n))
            return td_fail_as(TD_ESHAPE, "flatten: axes %d to %d of x %s have too many elements", first + 1, last + 1,
                              tdi_shape_text(x));
    for (int i = 0; i < first; i++) y->dim[i] = x->dim[i];
    y->dim[first] = n;
    for (int i = last + 1; i < x->nd; i++) y->dim[i - (last - first)] = x->dim[i];
    return true;
}

static bool regroup_view(td_infer *q) { return regroup(q->in[0], q->out[0]); }

static bool regroup_backward(const td_call *c, td_tensor *const *gout, td_tensor **gin, uint64_t need)
{
    (void)need;
    gin[0] = td_reshape(gout[0], td_shape(c->in[0]));
    return gin[0] != NULL;
}

static bool view_sample(uint32_t i, td_sample *s)
{
    td_view_attr *a = s->opts;
    s->in[0] = i == 1 ? td_transpose(tdi_normal(td_dims(2, 2, 3)), 0, 1) : tdi_normal(td_dims(2, 6));
    a->shape = i == 0 ? td_dims(3, -1) : td_dims(2, 2, 3, 1);
    return i < 2;
}

static bool reshape_sample(uint32_t i, td_sample *s)
{
    td_reshape_attr *a = s->opts;
    s->in[0] = i == 1 ? td_transpose(tdi_normal(td_dims(3, 4)), 0, 1) : tdi_normal(td_dims(3, 4)); /* 1: must copy */
    a->shape = i == 2 ? td_dims(3, 2, 1, -1) : td_dims(2, 6);
    return i < 3;
}

static bool flatten_sample(uint32_t i, td_sample *s)
{
    td_flatten_attr *a = s->opts;
    s->in[0] = tdi_normal(td_dims(2, 3, 2));
    if (i == 1) a->first = 1;
    return i < 2;
}

/* ---- transpose, permute ---- */

static bool swapped(const td_infer *q, int *a, int *b)
{
    const td_transpose_attr *t = q->attr;
    *a = tdi_axis("transpose", t->a, q->in[0]);
    *b = *a < 0 ? -1 : tdi_axis("transpose", t->b, q->in[0]);
    return *b >= 0;
}

static bool transpose_infer(td_infer *q)
{
    int a, b;
    td_view *y = q->out[0];
    if (!swapped(q, &a, &b)) return false;
    y->dt = q->in[0]->dt;
    if (y->nd) {
        y->dim[a] = q->in[0]->dim[b];
        y->dim[b] = q->in[0]->dim[a];
    }
    return true;
}

static bool transpose_view(td_infer *q)
{
    int a, b;
    if (!swapped(q, &a, &b)) return false;
    for (int32_t i = 0; i < q->in[0]->nd; i++) q->out[0]->stride[i] = q->in[0]->stride[i == a ? b : i == b ? a : i];
    return true;
}

static bool transpose_backward(const td_call *c, td_tensor *const *gout, td_tensor **gin, uint64_t need)
{
    const td_transpose_attr *t = c->attr;
    (void)need;
    gin[0] = td_transpose(gout[0], t->a, t->b);
    return gin[0] != NULL;
}

static bool transpose_sample(uint32_t i, td_sample *s)
{
    td_transpose_attr *t = s->opts;
    s->in[0] = i == 0 ? tdi_normal(td_dims(2, 3)) : tdi_normal(td_dims(2, 3, 2));
    t->a = i == 0 ? 0 : -1;
    t->b = i == 0 ? 1 : 0;
    return i < 2;
}

/* from[i]: the axis of x that becomes axis i. */
static bool permuted(td_ints axes, const td_view *x, int from[TD_MAX_DIM])
{
    uint32_t seen = 0;
    if (axes.n != x->nd)
        return td_fail_as(TD_ESHAPE, "permute: axes: expected all %d axes of x %s, got %lld", (int)x->nd,
                          tdi_shape_text(x), (long long)axes.n);
    for (int32_t i = 0; i < x->nd; i++) {
        from[i] = tdi_axis("permute", axes.v[i], x);
        if (from[i] < 0) return false;
        if (seen >> from[i] & 1) return td_fail_as(TD_ESHAPE, "permute: axes: axis %d is given twice", from[i] + 1);
        seen |= 1u << from[i];
    }
    return true;
}

static bool permute_infer(td_infer *q)
{
    const td_permute_attr *a = q->attr;
    int from[TD_MAX_DIM];
    if (!permuted(a->axes, q->in[0], from)) return false;
    q->out[0]->dt = q->in[0]->dt;
    for (int32_t i = 0; i < q->in[0]->nd; i++) q->out[0]->dim[i] = q->in[0]->dim[from[i]];
    return true;
}

static bool permute_view(td_infer *q)
{
    const td_permute_attr *a = q->attr;
    int from[TD_MAX_DIM];
    if (!permuted(a->axes, q->in[0], from)) return false;
    for (int32_t i = 0; i < q->in[0]->nd; i++) q->out[0]->stride[i] = q->in[0]->stride[from[i]];
    return true;
}

static bool permute_backward(const td_call *c, td_tensor *const *gout, td_tensor **gin, uint64_t need)
{
    const td_permute_attr *a = c->attr;
    int from[TD_MAX_DIM];
    td_ints back = {a->axes.n, {0}};
    (void)need;
    if (!permuted(a->axes, td_view_of(c->in[0]), from)) return false;
    for (int64_t i = 0; i < back.n; i++) back.v[from[i]] = i;
    gin[0] = td_permute(gout[0], back);
    return gin[0] != NULL;
}

static bool permute_sample(uint32_t i, td_sample *s)
{
    td_permute_attr *a = s->opts;
    s->in[0] = i == 0 ? tdi_normal(td_dims(2, 3, 4)) : tdi_normal(td_dims(2, 1, 3, 2));
    a->axes = i == 0 ? td_dims(2, 0, 1) : td_dims(0, -1, 1, 2);
    return i < 2;
}

/* ---- squeeze, unsqueeze ---- */

/* Axes that stay, in order; their number, or -1 after an error. */
static int kept(const td_infer *q, int keep[TD_MAX_DIM])
{
    const td_squeeze_attr *a = q->attr;
    const td_view *x = q->in[0];
    uint32_t mask;
    int n = 0;
    if (!tdi_axes_mask("squeeze", a->axes, x, &mask)) return -1;
    for (int32_t i = 0; i < x->nd; i++)
        if (x->dim[i] != 1 || !(mask >> i & 1)) keep[n++] = i;
    return n;
}

static bool squeeze_infer(td_infer *q)
{
    int keep[TD_MAX_DIM], n = kept(q, keep);
    if (n < 0) return false;
    q->out[0]->dt = q->in[0]->dt;
    q->out[0]->nd = n;
    for (int i = 0; i < n; i++) q->out[0]->dim[i] = q->in[0]->dim[keep[i]];
    return true;
}

static bool squeeze_view(td_infer *q)
{
    int keep[TD_MAX_DIM], n = kept(q, keep);
    for (int i = 0; i < n; i++) q->out[0]->stride[i] = q->in[0]->stride[keep[i]];
    return n >= 0;
}

static bool squeeze_sample(uint32_t i, td_sample *s)
{
    td_squeeze_attr *a = s->opts;
    s->in[0] = tdi_normal(td_dims(1, 3, 1, 2));
    if (i == 1) a->axes = td_dims(-2, 1); /* axis 2 of extent 3 stays */
    return i < 2;
}

/* Place of the new axis, or -1 after an error. */
static int new_axis(const td_infer *q)
{
    const td_unsqueeze_attr *a = q->attr;
    const td_view *x = q->in[0];
    if (!tdi_room_for_axis("unsqueeze", x)) return -1;
    int64_t at = a->axis < 0 ? a->axis + x->nd + 1 : a->axis;
    if (at >= 0 && at <= x->nd) return (int)at;
    td_fail_as(TD_ESHAPE, "unsqueeze: axis: expected a place in 1..%d for x %s, got %lld", (int)x->nd + 1,
               tdi_shape_text(x), tdi_user(a->axis));
    return -1;
}

static bool unsqueeze_infer(td_infer *q)
{
    const td_view *x = q->in[0];
    td_view *y = q->out[0];
    int at = new_axis(q);
    if (at < 0) return false;
    y->dt = x->dt;
    y->nd = x->nd + 1;
    for (int32_t i = 0; i < y->nd; i++) y->dim[i] = i == at ? 1 : x->dim[i < at ? i : i - 1];
    return true;
}

static bool unsqueeze_view(td_infer *q)
{
    const td_view *x = q->in[0];
    td_view *y = q->out[0];
    int at = new_axis(q);
    if (at < 0) return false;
    for (int32_t i = 0; i < y->nd; i++) {
        if (i != at) y->stride[i] = x->stride[i < at ? i : i - 1];
        else if (at == x->nd || __builtin_mul_overflow(x->stride[at], x->dim[at], &y->stride[i])) y->stride[i] = 1;
    }
    return true;
}

static bool unsqueeze_sample(uint32_t i, td_sample *s)
{
    td_unsqueeze_attr *a = s->opts;
    s->in[0] = tdi_normal(td_dims(2, 3));
    a->axis = i == 0 ? 1 : -1;
    return i < 2;
}

/* ---- expand ---- */

static bool expand_infer(td_infer *q)
{
    const td_expand_attr *a = q->attr;
    const td_view *x = q->in[0];
    td_view *y = q->out[0];
    int64_t lead = a->shape.n - x->nd;
    if (a->shape.n > TD_MAX_DIM || lead < 0)
        return td_fail_as(TD_ESHAPE, "expand: shape: expected %d to %d extents for x %s, got %lld", (int)x->nd,
                          (int)TD_MAX_DIM, tdi_shape_text(x), (long long)a->shape.n);
    y->dt = x->dt;
    y->nd = (int32_t)a->shape.n;
    for (int32_t i = 0; i < y->nd; i++) {
        int64_t given = a->shape.v[i], old = i < lead ? 1 : x->dim[i - lead];
        y->dim[i] = given == -1 && i >= lead ? old : given;
        if (y->dim[i] < 0)
            return td_fail_as(TD_ESHAPE, "expand: shape: extent %lld of axis %d is negative", (long long)given,
                              (int)i + 1);
        if (old != 1 && y->dim[i] != old)
            return td_fail_as(TD_ESHAPE, "expand: axis %lld of x %s has extent %lld and cannot become %lld",
                              (long long)(i - lead + 1), tdi_shape_text(x), (long long)old, (long long)given);
    }
    return tdi_extents_ok("expand", y);
}

static bool expand_view(td_infer *q)
{
    const td_view *x = q->in[0];
    td_view *y = q->out[0];
    int32_t lead = y->nd - x->nd;
    for (int32_t i = 0; i < y->nd; i++)
        y->stride[i] = i >= lead && x->dim[i - lead] == y->dim[i] ? x->stride[i - lead] : 0;
    return true;
}

static bool expand_backward(const td_call *c, td_tensor *const *gout, td_tensor **gin, uint64_t need)
{
    (void)need;
    gin[0] = tdi_sum_to(gout[0], c->in[0]);
    return gin[0] != NULL;
}

static bool expand_sample(uint32_t i, td_sample *s)
{
    td_expand_attr *a = s->opts;
    s->in[0] = tdi_normal(td_dims(3, 1));
    a->shape = i == 0 ? td_dims(3, 4) : td_dims(2, -1, 2);
    return i < 2;
}

const td_op tdi_op_view = {
    TD_ROW_view,          .flags = VIEW, .infer = view_infer, .view = view_view, .backward = regroup_backward,
    .sample = view_sample};
const td_op tdi_op_reshape = {
    TD_ROW_reshape,          .flags = VIEW, .infer = reshape_infer, .view = regroup_view, .backward = regroup_backward,
    .sample = reshape_sample};
const td_op tdi_op_flatten = {
    TD_ROW_flatten,          .flags = VIEW, .infer = flatten_infer, .view = regroup_view, .backward = regroup_backward,
    .sample = flatten_sample};
const td_op tdi_op_transpose = {TD_ROW_transpose,
                                .flags = VIEW,
                                .infer = transpose_infer,
                                .view = transpose_view,
                                .backward = transpose_backward,
                                .sample = transpose_sample};
const td_op tdi_op_permute = {
    TD_ROW_permute,          .flags = VIEW, .infer = permute_infer, .view = permute_view, .backward = permute_backward,
    .sample = permute_sample};
const td_op tdi_op_squeeze = {
    TD_ROW_squeeze,          .flags = VIEW, .infer = squeeze_infer, .view = squeeze_view, .backward = regroup_backward,
    .sample = squeeze_sample};
const td_op tdi_op_unsqueeze = {TD_ROW_unsqueeze,
                                .flags = VIEW,
                                .infer = unsqueeze_infer,
                                .view = unsqueeze_view,
                                .backward = regroup_backward,
                                .sample = unsqueeze_sample};
const td_op tdi_op_expand = {
    TD_ROW_expand,          .flags = VIEW, .infer = expand_infer, .view = expand_view, .backward = expand_backward,
    .sample = expand_sample};

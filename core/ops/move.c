/* move.c - ops that copy elements to other places: flip roll tile cat stack pad. Any dtype. */
#include "common.h"
#include <stdlib.h>

/* ---- flip ---- */

static bool flip_infer(td_infer *q)
{
    const td_flip_attr *a = q->attr;
    uint32_t mask;
    if (a->axes.n && tdi_real_axis("flip", a->axes.v[0], q->in[0]) < 0) return false;
    return tdi_axes_mask("flip", a->axes, q->in[0], &mask);
}

static bool flip_backward(const td_call *c, td_tensor *const *gout, td_tensor **gin, uint64_t need)
{
    const td_flip_attr *a = c->attr;
    (void)need;
    gin[0] = td_flip(gout[0], a->axes);
    return gin[0] != NULL;
}

static bool flip_sample(uint32_t i, td_sample *s)
{
    td_flip_attr *a = s->opts;
    s->in[0] = tdi_normal(td_dims(2, 3, 2));
    a->axes = i == 0 ? td_dims(1) : td_dims(0, -1);
    return i < 2;
}

/* ---- roll ---- */

static bool roll_infer(td_infer *q)
{
    const td_roll_attr *a = q->attr;
    return tdi_real_axis("roll", a->axis, q->in[0]) >= 0;
}

/* The shift as 0 .. extent - 1, for an axis that is not empty. */
static int64_t forward(int64_t shift, int64_t extent)
{
    int64_t r = shift % extent;
    return r < 0 ? r + extent : r;
}

static bool roll_decompose(const td_call *c, td_tensor **out)
{
    const td_roll_attr *a = c->attr;
    td_tensor *x = c->in[0];
    int axis = tdi_axis("roll", a->axis, td_view_of(x));
    if (axis < 0) return false;
    int64_t n = td_dim(x, axis), s = n ? forward(a->shift, n) : 0;
    if (s) {
        td_tensor *part[] = {td_narrow(x, axis, n - s, s), td_narrow(x, axis, 0, n - s)};
        out[0] = td_cat(part, 2, axis);
    } else {
        out[0] = td_copy(x);
    }
    return out[0] != NULL;
}

static bool roll_backward(const td_call *c, td_tensor *const *gout, td_tensor **gin, uint64_t need)
{
    const td_roll_attr *a = c->attr;
    int axis = tdi_axis("roll", a->axis, td_view_of(c->in[0]));
    (void)need;
    if (axis < 0) return false;
    int64_t n = td_dim(c->in[0], axis);
    gin[0] = td_roll(gout[0], n ? n - forward(a->shift, n) : 0, axis);
    return gin[0] != NULL;
}

static bool roll_sample(uint32_t i, td_sample *s)
{
    td_roll_attr *a = s->opts;
    s->in[0] = tdi_normal(td_dims(2, 5));
    a->shift = i == 0 ? 2 : -8;
    a->axis = i == 2 ? 0 : -1;
    return i < 3;
}

/* ---- tile ---- */

/* x's extents and the repeats, both with missing leading axes as 1. */
typedef struct {
    td_ints x, r;
} tiling;

static bool read_tiling(const td_view *x, td_ints repeats, tiling *t)
{
    if (repeats.n > TD_MAX_DIM)
        return td_fail_as(TD_ESHAPE, "tile: repeats: expected at most %d, got %lld", (int)TD_MAX_DIM,
                          (long long)repeats.n);
    int64_t nd = repeats.n > x->nd ? repeats.n : x->nd;
    t->x.n = t->r.n = nd;
    for (int64_t i = 0; i < nd; i++) {
        int64_t in_x = i - (nd - x->nd), in_r = i - (nd - repeats.n);
        t->x.v[i] = in_x < 0 ? 1 : x->dim[in_x];
        t->r.v[i] = in_r < 0 ? 1 : repeats.v[in_r];
        if (t->r.v[i] < 0)
            return td_fail("tile: repeats: expected at least 0, got %lld for axis %lld", (long long)t->r.v[i],
                           tdi_user(i));
    }
    return true;
}

static bool tile_infer(td_infer *q)
{
    const td_tile_attr *a = q->attr;
    td_view *y = q->out[0];
    tiling t;
    if (!read_tiling(q->in[0], a->repeats, &t)) return false;
    y->nd = (int32_t)t.x.n;
    for (int32_t i = 0; i < y->nd; i++)
        if (__builtin_mul_overflow(t.x.v[i], t.r.v[i], &y->dim[i]))
            return td_fail_as(TD_ESHAPE, "tile: %lld times axis %d of x %s is too large", (long long)t.r.v[i],
                              (int)i + 1, tdi_shape_text(q->in[0]));
    return tdi_extents_ok("tile", y);
}

/* Elements in front of axis i, of extents `before`, and from it on, of extents `from`. */
static void around(td_ints before, td_ints from, int64_t i, int64_t *lead, int64_t *rest)
{
    *lead = *rest = 1;
    for (int64_t k = 0; k < i; k++) *lead *= before.v[k];
    for (int64_t k = i; k < from.n; k++) *rest *= from.v[k];
}

static bool empty(const tiling *t)
{
    for (int64_t i = 0; i < t->x.n; i++)
        if (!t->x.v[i] || !t->r.v[i]) return true;
    return false;
}

/* From the last axis to the first, so that the early copies are small. */
static bool tile_decompose(const td_call *c, td_tensor **out)
{
    const td_tile_attr *a = c->attr;
    td_tensor *y = c->in[0];
    tiling t;
    if (!read_tiling(td_view_of(y), a->repeats, &t)) return false;
    td_ints shape = t.x;
    if (empty(&t)) {
        for (int64_t i = 0; i < shape.n; i++) shape.v[i] *= t.r.v[i];
        out[0] = td_zeros(shape, td_dtype_of(y));
        return out[0] != NULL;
    }
    for (int64_t i = shape.n - 1; i >= 0; i--) {
        int64_t r = t.r.v[i], lead, rest;
        if (r == 1) continue;
        around(t.x, shape, i, &lead, &rest);
        y = td_copy(td_expand(td_reshape(y, td_dims(lead, 1, rest)), td_dims(lead, r, rest)));
        shape.v[i] *= r;
    }
    out[0] = td_reshape(y == c->in[0] ? td_copy(y) : y, shape);
    return out[0] != NULL;
}

static bool tile_backward(const td_call *c, td_tensor *const *gout, td_tensor **gin, uint64_t need)
{
    const td_tile_attr *a = c->attr;
    td_tensor *g = gout[0];
    tiling t;
    (void)need;
    if (!read_tiling(td_view_of(c->in[0]), a->repeats, &t)) return false;
    if (empty(&t)) {
        gin[0] = tdi_zeros_for(c->in[0], g);
        return gin[0] != NULL;
    }
    td_ints shape = t.x;
    for (int64_t i = 0; i < shape.n; i++) shape.v[i] *= t.r.v[i];
    for (int64_t i = 0; i < shape.n; i++) {
        int64_t r = t.r.v[i], lead, rest;
        shape.v[i] = t.x.v[i];
        if (r == 1) continue;
        around(t.x, shape, i, &lead, &rest);
        g = td_sum(td_reshape(g, td_dims(lead, r, rest)), td_dims(1), false);
    }
    gin[0] = td_reshape(g, td_shape(c->in[0]));
    return gin[0] != NULL;
}

static bool tile_sample(uint32_t i, td_sample *s)
{
    td_tile_attr *a = s->opts;
    s->in[0] = tdi_normal(td_dims(2, 3));
    a->repeats = i == 0 ? td_dims(2, 3) : i == 1 ? td_dims(2) : td_dims(2, 1, 2);
    return i < 3;
}

/* ---- cat ---- */

static bool cat_infer(td_infer *q)
{
    const td_cat_attr *a = q->attr;
    td_view *y = q->out[0];
    if (!q->n_list) return td_fail("cat: x: expected at least one tensor, got an empty list");
    const td_view *first = q->in[0];
    int axis = tdi_real_axis("cat", a->axis, first);
    if (axis < 0) return false;
    y->nd = first->nd;
    for (int32_t k = 0; k < first->nd; k++) y->dim[k] = first->dim[k];
    for (uint32_t i = 1; i < q->n_list; i++) {
        const td_view *x = q->in[i];
        bool fits = x->nd == first->nd;
        for (int32_t k = 0; fits && k < x->nd; k++) fits = k == axis || x->dim[k] == first->dim[k];
        if (!fits)
            return td_fail_as(TD_ESHAPE, "cat: tensor %u %s does not agree with tensor 1 %s in all axes but axis %d",
                              i + 1, tdi_shape_text(x), tdi_shape_text(first), axis + 1);
        if (__builtin_add_overflow(y->dim[axis], x->dim[axis], &y->dim[axis]))
            return td_fail_as(TD_ESHAPE, "cat: the extents of axis %d add up to too much", axis + 1);
    }
    return true;
}

static bool cat_backward(const td_call *c, td_tensor *const *gout, td_tensor **gin, uint64_t need)
{
    const td_cat_attr *a = c->attr;
    int axis = tdi_axis("cat", a->axis, td_view_of(c->in[0]));
    int64_t start = 0;
    if (axis < 0) return false;
    for (uint32_t i = 0; i < c->n_in; i++) {
        int64_t n = td_dim(c->in[i], axis);
        if (i > 63 || need >> i & 1) {
            gin[i] = td_narrow(gout[0], axis, start, n);
            if (!gin[i]) return false;
        }
        start += n;
    }
    return true;
}

static bool cat_sample(uint32_t i, td_sample *s)
{
    td_cat_attr *a = s->opts;
    uint32_t n = s->n_in < 3 ? s->n_in : 3;
    for (uint32_t k = 0; k < n; k++) s->in[k] = tdi_normal(i == 0 ? td_dims(1 + k, 3) : td_dims(2, 3, k));
    a->axis = i == 0 ? 0 : -1; /* 1: the first tensor is empty */
    s->n_in = n;
    return i < 2;
}

/* ---- stack ---- */

/* Place of the new axis, or -1 after an error. */
static int stack_axis(int64_t axis, const td_view *x)
{
    if (!tdi_room_for_axis("stack", x)) return -1;
    int64_t at = axis < 0 ? axis + x->nd + 1 : axis;
    if (at >= 0 && at <= x->nd) return (int)at;
    td_fail_as(TD_ESHAPE, "stack: axis: expected a place in 1..%d for tensors of shape %s, got %lld", (int)x->nd + 1,
               tdi_shape_text(x), tdi_user(axis));
    return -1;
}

static bool stack_infer(td_infer *q)
{
    const td_stack_attr *a = q->attr;
    td_view *y = q->out[0];
    if (!q->n_list) return td_fail("stack: x: expected at least one tensor, got an empty list");
    const td_view *first = q->in[0];
    int at = stack_axis(a->axis, first);
    if (at < 0) return false;
    for (uint32_t i = 1; i < q->n_list; i++)
        if (!tdi_same_shape(first, q->in[i]))
            return td_fail_as(TD_ESHAPE, "stack: tensor %u %s differs in shape from tensor 1 %s", i + 1,
                              tdi_shape_text(q->in[i]), tdi_shape_text(first));
    y->nd = first->nd + 1;
    for (int32_t k = 0; k < y->nd; k++) y->dim[k] = k == at ? q->n_list : first->dim[k < at ? k : k - 1];
    return true;
}

static bool stack_decompose(const td_call *c, td_tensor **out)
{
    const td_stack_attr *a = c->attr;
    int at = stack_axis(a->axis, td_view_of(c->in[0]));
    if (at < 0) return false;
    td_tensor **row = calloc(c->n_in, sizeof *row);
    if (!row) return td_fail_as(TD_ENOMEM, "stack: no memory for a list of %u tensors", c->n_in);
    for (uint32_t i = 0; i < c->n_in; i++) row[i] = td_unsqueeze(c->in[i], at);
    out[0] = td_cat(row, c->n_in, at);
    free(row);
    return out[0] != NULL;
}

static bool stack_backward(const td_call *c, td_tensor *const *gout, td_tensor **gin, uint64_t need)
{
    const td_stack_attr *a = c->attr;
    for (uint32_t i = 0; i < c->n_in; i++) {
        if (i <= 63 && !(need >> i & 1)) continue;
        gin[i] = td_select(gout[0], a->axis, i);
        if (!gin[i]) return false;
    }
    return true;
}

static bool stack_sample(uint32_t i, td_sample *s)
{
    td_stack_attr *a = s->opts;
    uint32_t n = s->n_in < 3 ? s->n_in : 3;
    for (uint32_t k = 0; k < n; k++) s->in[k] = tdi_normal(td_dims(2, 3));
    a->axis = i == 0 ? 0 : -1;
    s->n_in = n;
    return i < 2;
}

/* ---- pad ---- */

static bool pad_infer(td_infer *q)
{
    const td_pad_attr *a = q->attr;
    const td_view *x = q->in[0];
    td_view *y = q->out[0];
    if (a->pads.n % 2 || a->pads.n > 2 * (int64_t)x->nd)
        return td_fail_as(TD_ESHAPE, "pad: pads: expected pairs for at most the %d axes of x %s, got %lld numbers",
                          (int)x->nd, tdi_shape_text(x), (long long)a->pads.n);
    for (int64_t k = 0; k < a->pads.n; k += 2) {
        int axis = (int)(x->nd - 1 - k / 2);
        int64_t before = a->pads.v[k], after = a->pads.v[k + 1], both;
        if (before < 0 || after < 0)
            return td_fail("pad: pads: expected at least 0, got %lld and %lld for axis %d", (long long)before,
                           (long long)after, axis + 1);
        if (__builtin_add_overflow(before, after, &both) || __builtin_add_overflow(both, y->dim[axis], &y->dim[axis]))
            return td_fail_as(TD_ESHAPE, "pad: pads: %lld and %lld for axis %d are too large", (long long)before,
                              (long long)after, axis + 1);
    }
    return tdi_extents_ok("pad", y);
}

static bool pad_decompose(const td_call *c, td_tensor **out)
{
    const td_pad_attr *a = c->attr;
    td_tensor *y = c->in[0];
    td_dtype dt = td_dtype_of(y);
    int nd = td_ndim(y);
    for (int64_t k = 0; k < a->pads.n; k += 2) {
        td_tensor *part[3];
        td_ints border = td_shape(y);
        int64_t axis = nd - 1 - k / 2;
        uint32_t n = 0;
        border.v[axis] = a->pads.v[k];
        if (a->pads.v[k]) part[n++] = td_full(border, a->value, dt);
        part[n++] = y;
        border.v[axis] = a->pads.v[k + 1];
        if (a->pads.v[k + 1]) part[n++] = td_full(border, a->value, dt);
        if (n > 1) y = td_cat(part, n, axis);
    }
    out[0] = y == c->in[0] ? td_copy(y) : y;
    return out[0] != NULL;
}

static bool pad_backward(const td_call *c, td_tensor *const *gout, td_tensor **gin, uint64_t need)
{
    const td_pad_attr *a = c->attr;
    const td_view *x = td_view_of(c->in[0]);
    td_tensor *g = gout[0];
    (void)need;
    for (int64_t k = 0; k < a->pads.n; k += 2) {
        int64_t axis = x->nd - 1 - k / 2;
        if (a->pads.v[k] || a->pads.v[k + 1]) g = td_narrow(g, axis, a->pads.v[k], x->dim[axis]);
    }
    gin[0] = g;
    return g != NULL;
}

static bool pad_sample(uint32_t i, td_sample *s)
{
    td_pad_attr *a = s->opts;
    s->in[0] = tdi_normal(td_dims(2, 3));
    a->pads = i == 0 ? td_dims(1, 2) : td_dims(0, 1, 2, 0);
    a->value = i == 0 ? 0 : -1.5;
    return i < 2;
}

const td_op tdi_op_flip = {TD_ROW_flip, .flags = TD_OP_PRIM | TD_OP_BWD_DIFF, .infer = flip_infer,
                           .backward = flip_backward, .sample = flip_sample};
const td_op tdi_op_roll = {TD_ROW_roll,
                           .flags = TD_OP_BWD_DIFF,
                           .infer = roll_infer,
                           .backward = roll_backward,
                           .decompose = roll_decompose,
                           .sample = roll_sample};
const td_op tdi_op_tile = {TD_ROW_tile,
                           .flags = TD_OP_BWD_DIFF,
                           .infer = tile_infer,
                           .backward = tile_backward,
                           .decompose = tile_decompose,
                           .sample = tile_sample};
const td_op tdi_op_cat = {TD_ROW_cat, .flags = TD_OP_PRIM | TD_OP_BWD_DIFF, .infer = cat_infer,
                          .backward = cat_backward, .sample = cat_sample};
const td_op tdi_op_stack = {TD_ROW_stack,
                            .flags = TD_OP_BWD_DIFF,
                            .infer = stack_infer,
                            .backward = stack_backward,
                            .decompose = stack_decompose,
                            .sample = stack_sample};
const td_op tdi_op_pad = {TD_ROW_pad,
                          .flags = TD_OP_BWD_DIFF,
                          .infer = pad_infer,
                          .backward = pad_backward,
                          .decompose = pad_decompose,
                          .sample = pad_sample};

/* slice.c - views that take a part of an axis: narrow select slice diagonal unfold split.
 * A gradient goes back into zeros: by pad where the part is in one piece, else by index_add. */
#include "common.h"

enum { VIEW = TD_OP_VIEW | TD_OP_BWD_DIFF };

/* Moves the start of a view; an empty one has no elements to point at. */
static void advance(td_view *y, int64_t elements)
{
    if (td_view_numel(y)) y->p = (char *)y->p + elements * (int64_t)td_dtype_size(y->dt);
}

/* ---- narrow ---- */

/* Part of an axis: n elements from start on. */
typedef struct {
    int axis;
    int64_t start, n;
} part;

static bool narrow_part(const td_view *x, const td_narrow_attr *a, part *p)
{
    p->axis = tdi_real_axis("narrow", a->axis, x);
    if (p->axis < 0) return false;
    int64_t extent = x->dim[p->axis];
    p->start = a->start < 0 ? a->start + extent : a->start;
    p->n = a->length;
    if (p->start < 0 || p->start > extent || p->n < 0 || p->n > extent - p->start)
        return td_fail_as(TD_ESHAPE, "narrow: %lld elements from %lld on do not lie in axis %d of x %s",
                          (long long)p->n, tdi_user(a->start), p->axis + 1, tdi_shape_text(x));
    return true;
}

static bool narrow_infer(td_infer *q)
{
    part p;
    if (!narrow_part(q->in[0], q->attr, &p)) return false;
    q->out[0]->dt = q->in[0]->dt;
    q->out[0]->dim[p.axis] = p.n;
    return true;
}

static bool narrow_view(td_infer *q)
{
    const td_view *x = q->in[0];
    part p;
    if (!narrow_part(x, q->attr, &p)) return false;
    for (int32_t i = 0; i < x->nd; i++) q->out[0]->stride[i] = x->stride[i];
    advance(q->out[0], p.start * x->stride[p.axis]);
    return true;
}

static bool narrow_backward(const td_call *c, td_tensor *const *gout, td_tensor **gin, uint64_t need)
{
    const td_view *x = td_view_of(c->in[0]);
    part p;
    (void)need;
    if (!narrow_part(x, c->attr, &p)) return false;
    gin[0] = tdi_fit_axis(gout[0], p.axis, p.start, x->dim[p.axis] - p.start - p.n);
    return gin[0] != NULL;
}

static bool narrow_sample(uint32_t i, td_sample *s)
{
    td_narrow_attr *a = s->opts;
    s->in[0] = tdi_normal(td_dims(4, 3));
    a->axis = i == 0 ? 0 : -1;
    a->start = i == 0 ? 1 : -2;
    a->length = i == 2 ? 0 : 2;
    return i < 3;
}

/* ---- select ---- */

static bool select_part(const td_view *x, const td_select_attr *a, part *p)
{
    p->axis = tdi_real_axis("select", a->axis, x);
    if (p->axis < 0) return false;
    int64_t extent = x->dim[p->axis];
    p->start = a->index < 0 ? a->index + extent : a->index;
    p->n = 1;
    if (p->start < 0 || p->start >= extent)
        return td_fail_as(TD_ESHAPE, "select: index %lld is outside 1..%lld, axis %d of x %s", tdi_user(a->index),
                          (long long)extent, p->axis + 1, tdi_shape_text(x));
    return true;
}

static bool select_infer(td_infer *q)
{
    const td_view *x = q->in[0];
    part p;
    if (!select_part(x, q->attr, &p)) return false;
    q->out[0]->dt = x->dt;
    q->out[0]->nd = x->nd - 1;
    for (int32_t i = p.axis; i < x->nd - 1; i++) q->out[0]->dim[i] = x->dim[i + 1];
    return true;
}

static bool select_view(td_infer *q)
{
    const td_view *x = q->in[0];
    part p;
    if (!select_part(x, q->attr, &p)) return false;
    for (int32_t i = 0; i < x->nd - 1; i++) q->out[0]->stride[i] = x->stride[i < p.axis ? i : i + 1];
    advance(q->out[0], p.start * x->stride[p.axis]);
    return true;
}

static bool select_backward(const td_call *c, td_tensor *const *gout, td_tensor **gin, uint64_t need)
{
    const td_view *x = td_view_of(c->in[0]);
    part p;
    (void)need;
    if (!select_part(x, c->attr, &p)) return false;
    gin[0] = tdi_fit_axis(td_unsqueeze(gout[0], p.axis), p.axis, p.start, x->dim[p.axis] - p.start - 1);
    return gin[0] != NULL;
}

static bool select_sample(uint32_t i, td_sample *s)
{
    td_select_attr *a = s->opts;
    s->in[0] = tdi_normal(td_dims(3, 2, 2));
    a->axis = i == 0 ? 0 : -1;
    a->index = i == 0 ? 2 : -2;
    return i < 2;
}

/* ---- slice ---- */

static int64_t cut(int64_t i, int64_t extent)
{
    if (i < 0) i += extent;
    return i < 0 ? 0 : i > extent ? extent : i;
}

static bool slice_part(const td_view *x, const td_slice_attr *a, part *p)
{
    p->axis = tdi_real_axis("slice", a->axis, x);
    if (p->axis < 0) return false;
    if (a->step < 1) return td_fail("slice: step: expected at least 1, got %lld", (long long)a->step);
    int64_t stop = cut(a->stop, x->dim[p->axis]);
    p->start = cut(a->start, x->dim[p->axis]);
    p->n = stop > p->start ? (stop - p->start - 1) / a->step + 1 : 0;
    return true;
}

static bool slice_infer(td_infer *q)
{
    part p;
    if (!slice_part(q->in[0], q->attr, &p)) return false;
    q->out[0]->dt = q->in[0]->dt;
    q->out[0]->dim[p.axis] = p.n;
    return true;
}

static bool slice_view(td_infer *q)
{
    const td_slice_attr *a = q->attr;
    const td_view *x = q->in[0];
    part p;
    if (!slice_part(x, a, &p)) return false;
    for (int32_t i = 0; i < x->nd; i++) q->out[0]->stride[i] = x->stride[i];
    if (p.n > 1) q->out[0]->stride[p.axis] *= a->step; /* so step is less than the extent */
    advance(q->out[0], p.start * x->stride[p.axis]);
    return true;
}

static bool slice_backward(const td_call *c, td_tensor *const *gout, td_tensor **gin, uint64_t need)
{
    const td_slice_attr *a = c->attr;
    const td_view *x = td_view_of(c->in[0]);
    part p;
    (void)need;
    if (!slice_part(x, a, &p)) return false;
    if (p.n < 2 || a->step == 1) {
        gin[0] = tdi_fit_axis(gout[0], p.axis, p.start, x->dim[p.axis] - p.start - p.n);
    } else {
        double first = (double)p.start, step = (double)a->step;
        td_tensor *at = td_arange(first, first + (double)p.n * step, step, TD_I64);
        gin[0] = td_index_add(tdi_zeros_for(c->in[0], gout[0]), at, gout[0], p.axis);
    }
    return gin[0] != NULL;
}

static bool slice_sample(uint32_t i, td_sample *s)
{
    td_slice_attr *a = s->opts;
    s->in[0] = tdi_normal(td_dims(5, 2));
    a->axis = 0;
    a->start = i == 1 ? -4 : 0;
    a->stop = i == 0 ? 5 : -1;
    a->step = i == 2 ? 1 : 2;
    return i < 3;
}

/* ---- diagonal ---- */

/* Of the axes a and b, n elements from (row, column) on. */
typedef struct {
    int a, b;
    int64_t row, column, n;
} line;

static bool diagonal_line(const td_view *x, const td_diagonal_attr *t, line *d)
{
    d->a = tdi_real_axis("diagonal", t->a, x);
    d->b = d->a < 0 ? -1 : tdi_real_axis("diagonal", t->b, x);
    if (d->b < 0) return false;
    if (d->a == d->b)
        return td_fail_as(TD_ESHAPE, "diagonal: expected two different axes, got axis %d twice", d->a + 1);
    int64_t rows = x->dim[d->a], columns = x->dim[d->b];
    *d = (line){.a = d->a, .b = d->b};
    if (t->offset >= columns || t->offset <= -rows) return true; /* beside the matrix: nothing */
    d->row = t->offset < 0 ? -t->offset : 0;
    d->column = t->offset > 0 ? t->offset : 0;
    d->n = rows - d->row < columns - d->column ? rows - d->row : columns - d->column;
    return true;
}

static bool diagonal_infer(td_infer *q)
{
    const td_view *x = q->in[0];
    td_view *y = q->out[0];
    line d;
    if (!diagonal_line(x, q->attr, &d)) return false;
    y->dt = x->dt;
    y->nd = 0;
    for (int32_t i = 0; i < x->nd; i++)
        if (i != d.a && i != d.b) y->dim[y->nd++] = x->dim[i];
    y->dim[y->nd++] = d.n;
    return true;
}

static bool diagonal_view(td_infer *q)
{
    const td_view *x = q->in[0];
    td_view *y = q->out[0];
    line d;
    int32_t n = 0;
    if (!diagonal_line(x, q->attr, &d)) return false;
    for (int32_t i = 0; i < x->nd; i++)
        if (i != d.a && i != d.b) y->stride[n++] = x->stride[i];
    y->stride[n] = x->stride[d.a] + x->stride[d.b];
    advance(y, d.row * x->stride[d.a] + d.column * x->stride[d.b]);
    return true;
}

/* Into zeros where the two axes are one: there a diagonal is every (columns + 1)-th element. */
static bool diagonal_backward(const td_call *c, td_tensor *const *gout, td_tensor **gin, uint64_t need)
{
    const td_view *x = td_view_of(c->in[0]);
    td_ints one = {0, {0}}, two, back = {x->nd, {0}};
    line d;
    (void)need;
    if (!diagonal_line(x, c->attr, &d)) return false;
    if (!d.n) {
        gin[0] = tdi_zeros_for(c->in[0], gout[0]);
        return gin[0] != NULL;
    }
    for (int32_t i = 0; i < x->nd; i++) {
        if (i == d.a || i == d.b) continue;
        back.v[i] = one.n;
        one.v[one.n++] = x->dim[i];
    }
    two = one;
    back.v[d.a] = two.n;
    two.v[two.n++] = x->dim[d.a];
    back.v[d.b] = two.n;
    two.v[two.n++] = x->dim[d.b];
    one.v[one.n++] = x->dim[d.a] * x->dim[d.b];
    double first = (double)(d.row * x->dim[d.b] + d.column), step = (double)x->dim[d.b] + 1;
    td_tensor *at = td_arange(first, first + (double)d.n * step, step, TD_I64);
    td_tensor *g = td_index_add(td_zeros(one, td_dtype_of(gout[0])), at, gout[0], one.n - 1);
    gin[0] = td_permute(td_reshape(g, two), back);
    return gin[0] != NULL;
}

static bool diagonal_sample(uint32_t i, td_sample *s)
{
    td_diagonal_attr *a = s->opts;
    s->in[0] = i == 0 ? tdi_normal(td_dims(3, 4)) : tdi_normal(td_dims(3, 2, 4));
    if (i == 1) *a = (td_diagonal_attr){.offset = -1, .a = 2, .b = 0};
    if (i == 2) *a = (td_diagonal_attr){.offset = 1, .a = 0, .b = -1};
    return i < 3;
}

/* ---- unfold ---- */

/* start is not used: windows begin at 0. */
static bool unfold_part(const td_view *x, const td_unfold_attr *a, part *p)
{
    p->axis = tdi_real_axis("unfold", a->axis, x);
    if (p->axis < 0 || !tdi_room_for_axis("unfold", x)) return false;
    if (a->size < 1 || a->step < 1)
        return td_fail("unfold: size and step: expected at least 1, got %lld and %lld", (long long)a->size,
                       (long long)a->step);
    if (a->size > x->dim[p->axis])
        return td_fail_as(TD_ESHAPE, "unfold: size %lld is larger than axis %d of x %s", (long long)a->size,
                          p->axis + 1, tdi_shape_text(x));
    p->start = 0;
    p->n = (x->dim[p->axis] - a->size) / a->step + 1;
    return true;
}

static bool unfold_infer(td_infer *q)
{
    const td_unfold_attr *a = q->attr;
    td_view *y = q->out[0];
    part p;
    if (!unfold_part(q->in[0], a, &p)) return false;
    y->dt = q->in[0]->dt;
    y->dim[p.axis] = p.n;
    y->dim[y->nd++] = a->size;
    return tdi_extents_ok("unfold", y);
}

static bool unfold_view(td_infer *q)
{
    const td_unfold_attr *a = q->attr;
    const td_view *x = q->in[0];
    part p;
    if (!unfold_part(x, a, &p)) return false;
    for (int32_t i = 0; i < x->nd; i++) q->out[0]->stride[i] = x->stride[i];
    if (p.n > 1) q->out[0]->stride[p.axis] *= a->step; /* so step is less than the extent */
    q->out[0]->stride[x->nd] = x->stride[p.axis];
    return true;
}

/* (..., n, ..., size) becomes (..., n size, ...), which is added where each element came from. */
static bool unfold_backward(const td_call *c, td_tensor *const *gout, td_tensor **gin, uint64_t need)
{
    const td_unfold_attr *a = c->attr;
    const td_view *x = td_view_of(c->in[0]);
    td_ints order = {0, {0}}, flat = td_shape(c->in[0]);
    part p;
    (void)need;
    if (!unfold_part(x, a, &p)) return false;
    for (int32_t i = 0; i < x->nd; i++) {
        order.v[order.n++] = i;
        if (i == p.axis) order.v[order.n++] = x->nd;
    }
    flat.v[p.axis] = p.n * a->size;
    td_tensor *first = td_arange(0, (double)p.n * (double)a->step, (double)a->step, TD_I64);
    td_tensor *at = tdi_flat(td_add(td_unsqueeze(first, 1), tdi_count_to(a->size)));
    gin[0] = td_index_add(tdi_zeros_for(c->in[0], gout[0]), at, td_reshape(td_permute(gout[0], order), flat), p.axis);
    return gin[0] != NULL;
}

static bool unfold_sample(uint32_t i, td_sample *s)
{
    td_unfold_attr *a = s->opts;
    s->in[0] = tdi_normal(td_dims(2, 7));
    a->axis = i == 2 ? 0 : 1;
    a->size = i == 2 ? 1 : 3;
    a->step = i == 0 ? 1 : 2; /* 1: overlapping, the last element in no window; 2: one window */
    return i < 3;
}

/* ---- split ---- */

/* The extents of at most TD_MAX_OUT pieces of an axis. */
typedef struct {
    int axis, n;
    int64_t extent[TD_MAX_OUT];
} pieces;

static bool equal_pieces(const td_view *x, int64_t size, pieces *p)
{
    int64_t whole = x->dim[p->axis];
    if (size < 0 || (size == 0 && whole > 0))
        return td_fail("split: sizes: expected at least 1, got %lld", (long long)size);
    int64_t n = whole ? (whole - 1) / size + 1 : 1;
    if (n > TD_MAX_OUT)
        return td_fail("split: pieces of %lld make %lld of axis %d of x %s, and at most %d are possible",
                       (long long)size, (long long)n, p->axis + 1, tdi_shape_text(x), (int)TD_MAX_OUT);
    p->n = (int)n;
    for (int i = 0; i < p->n; i++) p->extent[i] = i < p->n - 1 ? size : whole - (n - 1) * size;
    return true;
}

static bool split_pieces(const td_view *x, const td_split_attr *a, pieces *p)
{
    p->axis = tdi_real_axis("split", a->axis, x);
    if (p->axis < 0) return false;
    if (a->sizes.n < 1) return td_fail("split: sizes: expected at least one");
    if (a->sizes.n == 1) return equal_pieces(x, a->sizes.v[0], p);
    int64_t rest = x->dim[p->axis];
    for (p->n = 0; p->n < a->sizes.n; p->n++) {
        int64_t size = a->sizes.v[p->n];
        if (size < 0)
            return td_fail("split: sizes: expected at least 0, got %lld for piece %d", (long long)size, p->n + 1);
        if (size > rest) break;
        p->extent[p->n] = size;
        rest -= size;
    }
    return (p->n == a->sizes.n && !rest) ||
           td_fail_as(TD_ESHAPE, "split: sizes do not add up to the extent of axis %d of x %s", p->axis + 1,
                      tdi_shape_text(x));
}

static bool split_infer(td_infer *q)
{
    const td_view *x = q->in[0];
    pieces p;
    if (!split_pieces(x, q->attr, &p)) return false;
    q->n_out = (uint32_t)p.n;
    for (int i = 0; i < p.n; i++) {
        td_view *y = q->out[i];
        y->dt = x->dt;
        y->nd = x->nd;
        for (int32_t k = 0; k < x->nd; k++) y->dim[k] = k == p.axis ? p.extent[i] : x->dim[k];
    }
    return true;
}

static bool split_view(td_infer *q)
{
    const td_view *x = q->in[0];
    int64_t start = 0;
    pieces p;
    if (!split_pieces(x, q->attr, &p)) return false;
    for (int i = 0; i < p.n; i++) {
        for (int32_t k = 0; k < x->nd; k++) q->out[i]->stride[k] = x->stride[k];
        advance(q->out[i], start * x->stride[p.axis]);
        start += p.extent[i];
    }
    return true;
}

static bool split_backward(const td_call *c, td_tensor *const *gout, td_tensor **gin, uint64_t need)
{
    const td_split_attr *a = c->attr;
    (void)need;
    gin[0] = td_cat(gout, c->n_out, a->axis);
    return gin[0] != NULL;
}

static bool split_sample(uint32_t i, td_sample *s)
{
    td_split_attr *a = s->opts;
    s->in[0] = tdi_normal(td_dims(5, 3));
    a->sizes = i == 0 ? td_dims(2) : td_dims(1, 0, 2);
    a->axis = i == 0 ? 0 : -1;
    return i < 2;
}

const td_op tdi_op_narrow = {
    TD_ROW_narrow,          .flags = VIEW, .infer = narrow_infer, .view = narrow_view, .backward = narrow_backward,
    .sample = narrow_sample};
const td_op tdi_op_select = {
    TD_ROW_select,          .flags = VIEW, .infer = select_infer, .view = select_view, .backward = select_backward,
    .sample = select_sample};
const td_op tdi_op_slice = {
    TD_ROW_slice,          .flags = VIEW, .infer = slice_infer, .view = slice_view, .backward = slice_backward,
    .sample = slice_sample};
const td_op tdi_op_diagonal = {TD_ROW_diagonal,
                               .flags = VIEW,
                               .infer = diagonal_infer,
                               .view = diagonal_view,
                               .backward = diagonal_backward,
                               .sample = diagonal_sample};
const td_op tdi_op_unfold = {
    TD_ROW_unfold,          .flags = VIEW, .infer = unfold_infer, .view = unfold_view, .backward = unfold_backward,
    .sample = unfold_sample};
const td_op tdi_op_split = {
    TD_ROW_split,          .flags = VIEW, .infer = split_infer, .view = split_view, .backward = split_backward,
    .sample = split_sample};

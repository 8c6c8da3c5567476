/* pool.c - windows of x (N, C, H, W): max_pool2d avg_pool2d adaptive_avg_pool2d and their gradients; OH OW the result's
 * extents. Averages are taken one axis after the other, as a mean over a rectangle is a mean of means. */
#include "window.h"

/* ---- geometry ---- */

/* All but dilation. */
static bool options(const char *op, td_ints kernel, td_ints stride, td_ints padding, bool ceil, tdi_geometry *m)
{
    m->ceil = ceil;
    m->dilation[0] = m->dilation[1] = 1;
    if (!tdi_window_option(op, "kernel", kernel, 1, m->kernel) ||
        !tdi_window_option(op, "padding", padding, 0, m->padding) ||
        !tdi_window_option(op, "stride", stride.n ? stride : kernel, 1, m->stride))
        return false;
    for (int i = 0; i < 2; i++)
        if (2 * m->padding[i] > m->kernel[i])
            return td_fail("%s: padding: expected at most half the kernel %lld, got %lld", op, (long long)m->kernel[i],
                           (long long)m->padding[i]);
    return true;
}

/* Extents of input and result. Every window begins in front of the input's end. */
static bool set_extents(const char *op, int64_t h, int64_t w, tdi_geometry *m)
{
    int64_t room[2] = {0, 0};
    m->in[0] = h;
    m->in[1] = w;
    if (!tdi_window_room(op, m, m->in, room)) return false;
    for (int i = 0; i < 2; i++) {
        m->out[i] = room[i] < 0 ? 1 : room[i] / m->stride[i] + 1;
        bool partial = m->ceil && room[i] > 0 && room[i] % m->stride[i];
        if (partial && m->out[i] * m->stride[i] < m->in[i] + m->padding[i]) m->out[i]++;
    }
    return true;
}

static bool set_result(const char *op, td_infer *q, tdi_geometry *m)
{
    const td_view *x = q->in[0];
    if (!tdi_float_ok(op, q->compute) || !tdi_ndim_ok(op, "x", x, 4, "N, C, H, W")) return false;
    if (!set_extents(op, x->dim[2], x->dim[3], m)) return false;
    tdi_set_dims(q->out[0], td_dims(x->dim[0], x->dim[1], m->out[0], m->out[1]));
    return true;
}

/* ---- max_pool2d ---- */

static bool max_geometry(const td_max_pool2d_attr *a, tdi_geometry *m)
{
    return options("max_pool2d", a->kernel, a->stride, a->padding, a->ceil_mode, m) &&
           tdi_window_option("max_pool2d", "dilation", a->dilation, 1, m->dilation);
}

/* Whether the steps of the dilation lead a window that begins in the border past all of a small input. */
static bool steps_over(const tdi_geometry *m, int i)
{
    int64_t d = m->dilation[i];
    if (d <= m->in[i]) return false;
    for (int64_t before = m->padding[i]; before > 0; before -= m->stride[i])
        if (before % d && d - before % d >= m->in[i]) return true;
    return false;
}

static bool max_pool2d_infer(td_infer *q)
{
    tdi_geometry m;
    if (!max_geometry(q->attr, &m) || !set_result("max_pool2d", q, &m)) return false;
    for (int i = 0; i < 2; i++)
        if (steps_over(&m, i))
            return td_fail_as(TD_ESHAPE,
                              "max_pool2d: dilation %lld leaves a window without any element of the %lldx%lld input",
                              (long long)m.dilation[i], (long long)m.in[0], (long long)m.in[1]);
    q->out[1]->dt = TD_I64;
    tdi_set_dims(q->out[1], td_dims(q->in[0]->dim[0], q->in[0]->dim[1], m.out[0], m.out[1]));
    return true;
}

/* Rows (i = 0) or columns of x that the winners lie in: the window's first, laid to broadcast, and steps of the
 * dilation from it. Kept inside x, for among nothing but -inf the border may win. */
static td_tensor *origin(const tdi_geometry *m, int i, td_tensor *step)
{
    td_tensor *first = td_arange((double)-m->padding[i], (double)(m->out[i] * m->stride[i] - m->padding[i]),
                                 (double)m->stride[i], TD_I64);
    td_tensor *at = td_add(tdi_along(first, i, 2), td_mul(step, td_integer(m->dilation[i])));
    return td_maximum(td_minimum(at, td_integer(m->in[i] - 1)), td_integer(0));
}

static bool max_pool2d_decompose(const td_call *c, td_tensor **out)
{
    td_tensor *x = c->in[0], *winner;
    int64_t n = td_dim(x, 0), ch = td_dim(x, 1), after[2];
    tdi_geometry m;
    if (!max_geometry(c->attr, &m) || !set_extents("max_pool2d", td_dim(x, 2), td_dim(x, 3), &m)) return false;
    for (int i = 0; i < 2; i++) { /* what the last window needs; a ceil_mode window may reach beyond the border */
        after[i] = (m.out[i] - 1) * m.stride[i] + tdi_window(&m, i) - m.padding[i] - m.in[i];
        if (after[i] < 0) after[i] = 0;
    }
    if (m.padding[0] || m.padding[1] || after[0] || after[1])
        x = td_pad(x, td_dims(m.padding[1], after[1], m.padding[0], after[0]), -INFINITY);
    for (int i = 0; i < 2; i++) x = td_unfold(x, 2 + i, tdi_window(&m, i), m.stride[i]);
    for (int i = 0; i < 2; i++)
        if (m.dilation[i] > 1) x = td_slice(x, 4 + i, 0, INT64_MAX, m.dilation[i]);
    x = td_reshape(x, td_dims(n, ch, m.out[0], m.out[1], m.kernel[0] * m.kernel[1]));
    if (!td_max(x, 4, false, &out[0], &winner)) return false;
    td_tensor *row = td_floor_divide(winner, td_integer(m.kernel[1]));
    td_tensor *column = td_sub(winner, td_mul(row, td_integer(m.kernel[1])));
    out[1] = td_add(td_mul(origin(&m, 0, row), td_integer(m.in[1])), origin(&m, 1, column));
    return out[1] != NULL;
}

static bool max_pool2d_backward(const td_call *c, td_tensor *const *gout, td_tensor **gin, uint64_t need)
{
    (void)need;
    if (!gout[0]) return true;
    gin[0] = td_max_pool2d_backward(gout[0], c->out[1], td_dim(c->in[0], 2), td_dim(c->in[0], 3));
    return gin[0] != NULL;
}

static bool max_pool2d_sample(uint32_t i, td_sample *s)
{
    td_max_pool2d_attr *a = s->opts;
    s->in[0] = tdi_distinct(td_dims(1, 2, 7, 6));
    a->kernel = i == 0 ? td_dims(2) : td_dims(3, 2);
    if (i == 1) {
        a->stride = td_dims(2, 1);
        a->padding = td_dims(1);
    }
    if (i == 2) {
        a->stride = td_dims(3, 2);
        a->dilation = td_dims(2, 3);
        a->ceil_mode = true;
    }
    return i < 3;
}

/* ---- max_pool2d_backward ---- */

static bool scatter_infer(td_infer *q)
{
    const char *op = "max_pool2d_backward";
    const td_max_pool2d_backward_attr *a = q->attr;
    const td_view *g = q->in[0];
    int64_t area;
    if (!tdi_ndim_ok(op, "g", g, 4, "N, C, OH, OW") || !tdi_index_ok(op, "index", q->in[1])) return false;
    if (!tdi_shapes_equal(op, "g", g, "index", q->in[1])) return false;
    if (a->height < 0 || a->width < 0 || __builtin_mul_overflow(a->height, a->width, &area) ||
        (!area && td_view_numel(g)))
        return td_fail_as(TD_ESHAPE, "%s: g %s cannot come from an input of %lldx%lld", op, tdi_shape_text(g),
                          (long long)a->height, (long long)a->width);
    tdi_set_dims(q->out[0], td_dims(g->dim[0], g->dim[1], a->height, a->width));
    return true;
}

/* (N, C, H, W) as (N, C, H W) */
static td_tensor *planes(td_tensor *t)
{
    return td_reshape(t, td_dims(td_dim(t, 0), td_dim(t, 1), td_dim(t, 2) * td_dim(t, 3)));
}

static bool scatter_decompose(const td_call *c, td_tensor **out)
{
    const td_max_pool2d_backward_attr *a = c->attr;
    td_tensor *g = c->in[0];
    int64_t n = td_dim(g, 0), ch = td_dim(g, 1);
    td_tensor *zeros = td_zeros(td_dims(n, ch, a->height * a->width), td_dtype_of(g));
    td_tensor *sum = td_scatter_add(zeros, planes(c->in[1]), planes(g), 2);
    out[0] = td_reshape(sum, td_dims(n, ch, a->height, a->width));
    return out[0] != NULL;
}

static bool scatter_backward(const td_call *c, td_tensor *const *gout, td_tensor **gin, uint64_t need)
{
    (void)need;
    gin[0] = td_reshape(td_gather(planes(gout[0]), planes(c->in[1]), 2), td_shape(c->in[0]));
    return gin[0] != NULL;
}

static bool scatter_sample(uint32_t i, td_sample *s)
{
    td_max_pool2d_backward_attr *a = s->opts;
    s->in[0] = tdi_normal(td_dims(1, 2, 2, 2));
    s->in[1] = i == 0 ? tdi_indices(td_dims(1, 2, 2, 2), (const int64_t[]){0, 2, 9, 11, 5, 3, 8, 6})
                      : tdi_indices(td_dims(1, 2, 2, 2), (const int64_t[]){4, 4, 4, 4, 5, 5, 8, 6}); /* overlapping */
    a->height = 3;
    a->width = 4;
    return i < 2;
}

/* ---- means along one axis ---- */

/* n windows of at most `longest` elements, begin[i] .. end[i] - 1, whose sums are divided by div[i]; all i64 (n).
 * full: every window has `longest` elements. */
typedef struct {
    int64_t n, longest, extent;
    bool full;
    td_tensor *begin, *end, *div;
} means;

/* Windows of avg_pool2d, cut to the input; the border may count in the divisor, what lies beyond it never does. */
static means pool_means(const tdi_geometry *m, int i, bool count_border)
{
    int64_t k = m->kernel[i], s = m->stride[i], p = m->padding[i], in = m->in[i], n = m->out[i];
    td_tensor *start = td_arange((double)-p, (double)(n * s - p), (double)s, TD_I64);
    td_tensor *stop = td_add(start, td_integer(k));
    means w = {.n = n, .longest = k < in ? k : in, .extent = in, .full = !p && (n - 1) * s + k <= in};
    w.begin = td_maximum(start, td_integer(0));
    w.end = td_minimum(stop, td_integer(in));
    w.div = count_border ? td_sub(td_minimum(stop, td_integer(in + p)), start) : td_sub(w.end, w.begin);
    return w;
}

/* Windows of adaptive_avg_pool2d: floor(i extent / n) .. ceil((i + 1) extent / n) - 1. */
static means adaptive_means(int64_t extent, int64_t n)
{
    td_tensor *left = td_mul(tdi_count_to(n), td_integer(extent));
    means w = {.n = n, .extent = extent, .full = extent % n == 0};
    w.longest = w.full ? extent / n : extent / n + 2 < extent ? extent / n + 2 : extent;
    w.begin = td_floor_divide(left, td_integer(n));
    w.end = td_floor_divide(td_add(left, td_integer(extent + n - 1)), td_integer(n));
    w.div = td_sub(w.end, w.begin);
    return w;
}

/* Elements of the windows, (n, longest); past the end of a window the input's last. */
static td_tensor *members(const means *w, td_tensor **inside)
{
    td_tensor *at = td_add(td_unsqueeze(w->begin, 1), tdi_count_to(w->longest));
    *inside = w->full ? NULL : td_lt(at, td_unsqueeze(w->end, 1));
    return td_minimum(at, td_integer(w->extent - 1));
}

/* The shape of x (N, C, H, W) with `axis` replaced by extents a and b; b = 0: by a alone. */
static td_ints replaced(const td_tensor *x, int axis, int64_t a, int64_t b)
{
    td_ints s = {0, {0}};
    for (int i = 0; i < td_ndim(x); i++) {
        s.v[s.n++] = i == axis ? a : td_dim(x, i);
        if (i == axis && b) s.v[s.n++] = b;
    }
    return s;
}

/* Laid along an axis of x, in its dtype. */
static td_tensor *divisor(const means *w, int axis, const td_tensor *x)
{
    return tdi_along(td_cast(w->div, td_dtype_of(x)), axis, td_ndim(x));
}

/* (n, longest) to broadcast with windows of x in the places axis, axis + 1. */
static td_tensor *mask_for(td_tensor *inside, const means *w, int axis)
{
    return td_reshape(inside, axis == 2 ? td_dims(w->n, w->longest, 1) : td_dims(w->n, w->longest));
}

static td_tensor *average(td_tensor *x, int axis, const means *w)
{
    td_tensor *inside, *at = members(w, &inside);
    x = td_index_select(x, tdi_flat(at), axis);
    x = td_reshape(x, replaced(x, axis, w->n, w->longest));
    if (inside) x = td_where(mask_for(inside, w, axis), x, td_number(0));
    x = td_sum(x, td_dims(axis + 1), false);
    return td_div(x, divisor(w, axis, x));
}

/* The gradient of average for its x. */
static td_tensor *share_out(td_tensor *g, int axis, const means *w)
{
    td_tensor *inside, *at = members(w, &inside);
    td_ints zeros = replaced(g, axis, w->extent, 0), flat = replaced(g, axis, w->n * w->longest, 0);
    g = td_div(g, divisor(w, axis, g));
    g = td_expand(td_unsqueeze(g, axis + 1), replaced(g, axis, w->n, w->longest));
    if (inside) g = td_where(mask_for(inside, w, axis), g, td_number(0));
    return td_index_add(td_zeros(zeros, td_dtype_of(g)), tdi_flat(at), td_reshape(g, flat), axis);
}

/* ---- avg_pool2d ---- */

static bool avg_pool2d_infer(td_infer *q)
{
    const td_avg_pool2d_attr *a = q->attr;
    tdi_geometry m;
    return options("avg_pool2d", a->kernel, a->stride, a->padding, a->ceil_mode, &m) && set_result("avg_pool2d", q, &m);
}

static bool avg_pool2d_decompose(const td_call *c, td_tensor **out)
{
    const td_avg_pool2d_attr *a = c->attr;
    td_tensor *y = c->in[0];
    tdi_geometry m;
    if (!options("avg_pool2d", a->kernel, a->stride, a->padding, a->ceil_mode, &m)) return false;
    if (!set_extents("avg_pool2d", td_dim(y, 2), td_dim(y, 3), &m)) return false;
    for (int i = 0; i < 2; i++) {
        means w = pool_means(&m, i, a->count_include_pad);
        y = average(y, 2 + i, &w);
    }
    out[0] = y;
    return y != NULL;
}

static bool avg_pool2d_backward(const td_call *c, td_tensor *const *gout, td_tensor **gin, uint64_t need)
{
    const td_avg_pool2d_attr *a = c->attr;
    (void)need;
    gin[0] = td_avg_pool2d_backward(gout[0], td_dim(c->in[0], 2), td_dim(c->in[0], 3), a->kernel, a->stride, a->padding,
                                    a->ceil_mode, a->count_include_pad);
    return gin[0] != NULL;
}

static bool avg_pool2d_sample(uint32_t i, td_sample *s)
{
    td_avg_pool2d_attr *a = s->opts;
    s->in[0] = tdi_normal(td_dims(2, 2, 6, 5));
    a->kernel = i == 0 ? td_dims(2) : td_dims(3, 2);
    if (i > 0) {
        a->stride = td_dims(2, 3);
        a->padding = td_dims(1);
        a->ceil_mode = i == 2;
        a->count_include_pad = i == 2;
    }
    return i < 3;
}

/* ---- avg_pool2d_backward ---- */

static bool spread_geometry(const td_avg_pool2d_backward_attr *a, tdi_geometry *m)
{
    const char *op = "avg_pool2d_backward";
    return options(op, a->kernel, a->stride, a->padding, a->ceil_mode, m) && set_extents(op, a->height, a->width, m);
}

static bool spread_infer(td_infer *q)
{
    const char *op = "avg_pool2d_backward";
    const td_avg_pool2d_backward_attr *a = q->attr;
    const td_view *g = q->in[0];
    tdi_geometry m;
    if (!tdi_float_ok(op, q->compute) || !tdi_ndim_ok(op, "g", g, 4, "N, C, OH, OW") || !spread_geometry(a, &m))
        return false;
    if (g->dim[2] != m.out[0] || g->dim[3] != m.out[1])
        return td_fail_as(TD_ESHAPE, "%s: g: expected %lldx%lld windows of an input of %lldx%lld, got shape %s", op,
                          (long long)m.out[0], (long long)m.out[1], (long long)a->height, (long long)a->width,
                          tdi_shape_text(g));
    tdi_set_dims(q->out[0], td_dims(g->dim[0], g->dim[1], a->height, a->width));
    return true;
}

static bool spread_decompose(const td_call *c, td_tensor **out)
{
    const td_avg_pool2d_backward_attr *a = c->attr;
    td_tensor *g = c->in[0];
    tdi_geometry m;
    if (!spread_geometry(a, &m)) return false;
    for (int i = 0; i < 2; i++) {
        means w = pool_means(&m, i, a->count_include_pad);
        g = share_out(g, 2 + i, &w);
    }
    out[0] = g;
    return g != NULL;
}

static bool spread_backward(const td_call *c, td_tensor *const *gout, td_tensor **gin, uint64_t need)
{
    const td_avg_pool2d_backward_attr *a = c->attr;
    (void)need;
    gin[0] = td_avg_pool2d(gout[0], a->kernel, a->stride, a->padding, a->ceil_mode, a->count_include_pad);
    return gin[0] != NULL;
}

static bool spread_sample(uint32_t i, td_sample *s)
{
    td_avg_pool2d_backward_attr *a = s->opts;
    a->height = 6;
    a->width = 5;
    a->kernel = i == 0 ? td_dims(2) : td_dims(3, 2);
    s->in[0] = i == 0 ? tdi_normal(td_dims(2, 2, 3, 2)) : tdi_normal(td_dims(2, 2, 4, 2));
    if (i == 1) { /* rows: ceil((6 + 2 - 3) / 2) + 1 = 4; columns: 3, but the last begins in the border */
        a->stride = td_dims(2, 3);
        a->padding = td_dims(1);
        a->ceil_mode = true;
    }
    return i < 2;
}

/* ---- adaptive_avg_pool2d ---- */

static bool adaptive_extents(td_ints given, int64_t out[2])
{
    return tdi_window_option("adaptive_avg_pool2d", "output", given, 1, out);
}

static bool adaptive_infer(td_infer *q)
{
    const char *op = "adaptive_avg_pool2d";
    const td_adaptive_avg_pool2d_attr *a = q->attr;
    const td_view *x = q->in[0];
    int64_t out[2];
    if (!tdi_float_ok(op, q->compute) || !tdi_ndim_ok(op, "x", x, 4, "N, C, H, W")) return false;
    if (!adaptive_extents(a->output, out)) return false;
    for (int i = 2; i < 4; i++)
        if (x->dim[i] < 1 || x->dim[i] > TDI_LARGEST_OPTION)
            return td_fail_as(TD_ESHAPE, "%s: cannot take windows of x %s", op, tdi_shape_text(x));
    tdi_set_dims(q->out[0], td_dims(x->dim[0], x->dim[1], out[0], out[1]));
    return true;
}

static bool adaptive_decompose(const td_call *c, td_tensor **out)
{
    const td_adaptive_avg_pool2d_attr *a = c->attr;
    td_tensor *y = c->in[0];
    int64_t extent[2];
    if (!adaptive_extents(a->output, extent)) return false;
    for (int i = 0; i < 2; i++) {
        means w = adaptive_means(td_dim(y, 2 + i), extent[i]);
        y = average(y, 2 + i, &w);
    }
    out[0] = y;
    return y != NULL;
}

static bool adaptive_backward(const td_call *c, td_tensor *const *gout, td_tensor **gin, uint64_t need)
{
    td_tensor *x = c->in[0], *g = gout[0];
    int64_t h = td_dim(x, 2), w = td_dim(x, 3), oh = td_dim(g, 2), ow = td_dim(g, 3);
    (void)need;
    if (h >= oh && h % oh == 0 && w >= ow && w % ow == 0) { /* windows of one size, side by side */
        td_ints kernel = td_dims(h / oh, w / ow);
        gin[0] = td_avg_pool2d_backward(g, h, w, kernel, kernel, td_dims(0), false, true);
        return gin[0] != NULL;
    }
    for (int i = 0; i < 2; i++) {
        means m = adaptive_means(td_dim(x, 2 + i), td_dim(g, 2 + i));
        g = share_out(g, 2 + i, &m);
    }
    gin[0] = g;
    return g != NULL;
}

static bool adaptive_sample(uint32_t i, td_sample *s)
{
    td_adaptive_avg_pool2d_attr *a = s->opts;
    s->in[0] = tdi_normal(td_dims(2, 2, 6, 5));
    a->output = i == 0 ? td_dims(1) : i == 1 ? td_dims(4, 3) : td_dims(3, 7);
    return i < 3;
}

/* max_pool2d: the indices are constants of the derivative, so a backward that uses them may be differentiated */
const td_op tdi_op_max_pool2d = {TD_ROW_max_pool2d,
                                 .save_out = 2,
                                 .flags = TD_OP_BWD_DIFF | TD_OP_GOUT_NULL,
                                 .infer = max_pool2d_infer,
                                 .backward = max_pool2d_backward,
                                 .decompose = max_pool2d_decompose,
                                 .sample = max_pool2d_sample};
const td_op tdi_op_max_pool2d_backward = {TD_ROW_max_pool2d_backward,   .save_in = 2,
                                          .flags = TD_OP_BWD_DIFF,      .infer = scatter_infer,
                                          .backward = scatter_backward, .decompose = scatter_decompose,
                                          .sample = scatter_sample};
const td_op tdi_op_avg_pool2d = {TD_ROW_avg_pool2d,
                                 .flags = TD_OP_BWD_DIFF,
                                 .infer = avg_pool2d_infer,
                                 .backward = avg_pool2d_backward,
                                 .decompose = avg_pool2d_decompose,
                                 .sample = avg_pool2d_sample};
const td_op tdi_op_avg_pool2d_backward = {TD_ROW_avg_pool2d_backward,    .flags = TD_OP_BWD_DIFF,
                                          .infer = spread_infer,         .backward = spread_backward,
                                          .decompose = spread_decompose, .sample = spread_sample};
const td_op tdi_op_adaptive_avg_pool2d = {TD_ROW_adaptive_avg_pool2d,      .flags = TD_OP_BWD_DIFF,
                                          .infer = adaptive_infer,         .backward = adaptive_backward,
                                          .decompose = adaptive_decompose, .sample = adaptive_sample};

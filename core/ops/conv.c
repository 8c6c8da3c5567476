/* conv.c - two-dimensional convolution, alone or with an activation, and its two gradients, which are the same three ops again:
 *     y  = conv2d(x, w)               gx = conv_transpose2d(g, w)         gw = conv2d_weight_grad(x, g)
 *     y  = conv_transpose2d(x, w)     gx = conv2d(g, w)                   gw = conv2d_weight_grad(g, x)
 *     gw = conv2d_weight_grad(x, g)   from v: x: conv_transpose2d(g, v)   g: conv2d(x, v)
 * N batch, C channels in, O channels out, H W extents, K kernel extents, G groups; pairs are height, width
 * (Dumoulin & Visin 2016, arXiv:1603.07285). Rows that a stride leaves over come back as output_padding. */
#include "window.h"

static bool options(const char *op, td_ints stride, td_ints padding, td_ints dilation, int64_t groups, tdi_geometry *m)
{
    m->extra[0] = m->extra[1] = 0;
    m->groups = groups;
    m->ceil = false;
    if (groups < 1) return td_fail("%s: groups: expected at least 1, got %lld", op, (long long)groups);
    return tdi_window_option(op, "stride", stride, 1, m->stride) &&
           tdi_window_option(op, "padding", padding, 0, m->padding) &&
           tdi_window_option(op, "dilation", dilation, 1, m->dilation);
}

static bool set_kernel(const char *op, const td_view *w, tdi_geometry *m)
{
    for (int i = 0; i < 2; i++) {
        m->kernel[i] = w->dim[2 + i];
        if (m->kernel[i] < 1 || m->kernel[i] > TDI_LARGEST_OPTION)
            return td_fail_as(TD_ESHAPE, "%s: w %s has an unusable kernel", op, tdi_shape_text(w));
    }
    return true;
}

/* Images with channels and pixels; an empty batch is fine. */
static bool images_ok(const char *op, const char *name, const td_view *x)
{
    if (!tdi_ndim_ok(op, name, x, 4, "N, C, H, W")) return false;
    return (x->dim[1] && x->dim[2] && x->dim[3]) ||
           td_fail_as(TD_ESHAPE, "%s: %s %s has no channels or no pixels", op, name, tdi_shape_text(x));
}

static bool groups_ok(const char *op, int64_t channels, const char *what, int64_t groups)
{
    return channels % groups == 0 || td_fail_as(TD_ESHAPE, "%s: %lld %s channels cannot be divided into %lld groups",
                                                op, (long long)channels, what, (long long)groups);
}

/* Extents of what conv2d makes of extents `in`. */
static bool conv_extents(const char *op, const tdi_geometry *m, const int64_t in[2], int64_t out[2])
{
    int64_t room[2] = {0, 0};
    if (!tdi_window_room(op, m, in, room)) return false;
    for (int i = 0; i < 2; i++) out[i] = room[i] / m->stride[i] + 1;
    return true;
}

/* Rows that no window of x reached, when out windows did. */
static int64_t left_over(const tdi_geometry *m, int i, int64_t in, int64_t out)
{
    return in + 2 * m->padding[i] - tdi_window(m, i) - (out - 1) * m->stride[i];
}

static td_ints pair(const int64_t v[2]) { return td_dims(v[0], v[1]); }

/* ---- the three ops from a geometry ---- */

static td_tensor *run_conv(td_tensor *x, td_tensor *w, td_tensor *b, const tdi_geometry *m)
{
    return td_conv2d(x, w, b, pair(m->stride), pair(m->padding), pair(m->dilation), m->groups);
}

/* The gradient of run_conv for an x of extents `in`. */
static td_tensor *run_transpose(td_tensor *g, td_tensor *w, const int64_t in[2], const tdi_geometry *m)
{
    int64_t extra[2];
    for (int i = 0; i < 2; i++) extra[i] = left_over(m, i, in[i], td_dim(g, 2 + i));
    return td_conv_transpose2d(g, w, NULL, pair(m->stride), pair(m->padding), pair(extra), pair(m->dilation),
                               m->groups);
}

static td_tensor *run_weight_grad(td_tensor *x, td_tensor *g, const tdi_geometry *m)
{
    return td_conv2d_weight_grad(x, g, pair(m->kernel), pair(m->stride), pair(m->padding), pair(m->dilation),
                                 m->groups);
}

/* ---- windows as columns ---- */

/* Every pixel under every kernel element, a view: (N, G, C/G, OH, OW, KH, KW). */
static td_tensor *windows(td_tensor *x, const tdi_geometry *m)
{
    if (m->padding[0] || m->padding[1])
        x = td_pad(x, td_dims(m->padding[1], m->padding[1], m->padding[0], m->padding[0]), 0);
    x = td_unfold(x, 2, tdi_window(m, 0), m->stride[0]);
    x = td_unfold(x, 3, tdi_window(m, 1), m->stride[1]);
    for (int i = 0; i < 2; i++)
        if (m->dilation[i] > 1) x = td_slice(x, 4 + i, 0, INT64_MAX, m->dilation[i]);
    return td_reshape(x, td_dims(td_dim(x, 0), m->groups, td_dim(x, 1) / m->groups, td_dim(x, 2), td_dim(x, 3),
                                 m->kernel[0], m->kernel[1]));
}

/* ---- conv2d ---- */

static bool conv2d_geometry(const td_conv2d_attr *a, const td_view *w, tdi_geometry *m)
{
    return options("conv2d", a->stride, a->padding, a->dilation, a->groups, m) && set_kernel("conv2d", w, m);
}

static bool conv2d_infer(td_infer *q)
{
    const char *op = "conv2d";
    const td_view *x = q->in[0], *w = q->in[1];
    tdi_geometry m;
    int64_t out[2];
    if (!tdi_float_ok(op, q->compute) || !images_ok(op, "x", x) || !tdi_ndim_ok(op, "w", w, 4, "O, C/groups, KH, KW"))
        return false;
    if (!conv2d_geometry(q->attr, w, &m) || !groups_ok(op, x->dim[1], "input", m.groups) ||
        !groups_ok(op, w->dim[0], "output", m.groups))
        return false;
    if (!w->dim[0]) return td_fail_as(TD_ESHAPE, "conv2d: w %s has no output channels", tdi_shape_text(w));
    if (w->dim[1] != x->dim[1] / m.groups)
        return td_fail_as(TD_ESHAPE, "conv2d: w %s takes %lld channels in each of %lld groups, and x %s has %lld",
                          tdi_shape_text(w), (long long)w->dim[1], (long long)m.groups, tdi_shape_text(x),
                          (long long)(x->dim[1] / m.groups));
    if (!tdi_vector_ok(op, "b", q->in[2], w->dim[0]) || !conv_extents(op, &m, x->dim + 2, out)) return false;
    tdi_set_dims(q->out[0], td_dims(x->dim[0], w->dim[0], out[0], out[1]));
    return true;
}

/* w (G, O/G, K) times columns (N, G, K, OH OW), where K = C/G KH KW */
static bool conv2d_decompose(const td_call *c, td_tensor **out)
{
    td_tensor *x = c->in[0], *w = c->in[1], *b = c->in[2];
    tdi_geometry m;
    if (!conv2d_geometry(c->attr, td_view_of(w), &m)) return false;
    td_tensor *win = windows(x, &m);
    int64_t n = td_dim(win, 0), oh = td_dim(win, 3), ow = td_dim(win, 4), o = td_dim(w, 0);
    int64_t k = td_dim(win, 2) * m.kernel[0] * m.kernel[1];
    td_tensor *col = td_reshape(td_permute(win, td_dims(0, 1, 2, 5, 6, 3, 4)), td_dims(n, m.groups, k, oh * ow));
    td_tensor *y = td_matmul(td_reshape(w, td_dims(m.groups, o / m.groups, k)), col);
    y = td_reshape(y, td_dims(n, o, oh, ow));
    out[0] = b ? td_add(y, td_reshape(b, td_dims(o, 1, 1))) : y;
    return out[0] != NULL;
}

static bool conv2d_backward(const td_call *c, td_tensor *const *gout, td_tensor **gin, uint64_t need)
{
    const td_view *x = td_view_of(c->in[0]);
    td_tensor *g = gout[0];
    tdi_geometry m;
    if (!conv2d_geometry(c->attr, td_view_of(c->in[1]), &m)) return false;
    if (need & 1) gin[0] = run_transpose(g, c->in[1], x->dim + 2, &m);
    if (need & 2) gin[1] = run_weight_grad(c->in[0], g, &m);
    if (need & 4) gin[2] = td_sum(g, td_dims(0, 2, 3), false);
    return !td_failed();
}

static bool conv2d_sample(uint32_t i, td_sample *s)
{
    td_conv2d_attr *a = s->opts;
    s->in[0] = tdi_normal(td_dims(2, 4, 6, 5));
    switch (i) {
    case 0:
        s->in[1] = tdi_normal(td_dims(3, 4, 3, 3));
        s->in[2] = tdi_normal(td_dims(3));
        return true;
    case 1: /* a row is left over */
        s->in[1] = tdi_normal(td_dims(2, 4, 3, 2));
        s->in[2] = tdi_normal(td_dims(2));
        a->stride = td_dims(2, 1);
        a->padding = td_dims(1, 0);
        return true;
    case 2:
        s->in[1] = tdi_normal(td_dims(4, 2, 2, 2));
        a->padding = td_dims(1);
        a->dilation = td_dims(2, 3);
        a->groups = 2;
        return true;
    case 3: /* depthwise; padding wider than the kernel */
        s->in[1] = tdi_normal(td_dims(4, 1, 1, 1));
        a->padding = td_dims(0, 1);
        a->stride = td_dims(3);
        a->groups = 4;
        return true;
    }
    return false;
}

/* ---- conv2d_act: the fields of conv2d's options come first, so what takes those takes these ---- */

static_assert(offsetof(td_conv2d_act_attr, groups) == offsetof(td_conv2d_attr, groups) &&
                  offsetof(td_conv2d_act_attr, stride) == offsetof(td_conv2d_attr, stride) &&
                  offsetof(td_conv2d_act_attr, dilation) == offsetof(td_conv2d_attr, dilation),
              "one order of options");

static bool conv2d_act_decompose(const td_call *c, td_tensor **out)
{
    const td_conv2d_act_attr *a = c->attr;
    td_tensor *z = td_conv2d(c->in[0], c->in[1], c->in[2], a->stride, a->padding, a->dilation, a->groups);
    out[0] = a->activation == TD_CONV2D_ACT_RELU ? td_relu(z) : z;
    return out[0] != NULL;
}

static bool conv2d_act_backward(const td_call *c, td_tensor *const *gout, td_tensor **gin, uint64_t need)
{
    int32_t act = ((const td_conv2d_act_attr *)c->attr)->activation;
    td_tensor *h, *gb;
    if (act == TD_CONV2D_ACT_NONE) return conv2d_backward(c, gout, gin, need);
    if (!(need & 4)) h = td_activation_backward(gout[0], c->out[0], TD_ACT_RELU);
    else if (td_conv2d_slopes(gout[0], c->out[0], act, &h, &gb)) gin[2] = gb;
    else return false;
    return conv2d_backward(c, &h, gin, need & 3);
}

static bool conv2d_act_sample(uint32_t i, td_sample *s)
{
    ((td_conv2d_act_attr *)s->opts)->activation = TD_CONV2D_ACT_RELU;
    if (i < 4) return conv2d_sample(i, s);
    s->in[0] = tdi_normal(i == 4 ? td_dims(1, 8, 8, 9) : td_dims(2, 16, 3, 3)); /* tiles; points */
    s->in[1] = tdi_normal(i == 4 ? td_dims(8, 8, 3, 3) : td_dims(8, 16, 1, 1));
    s->in[2] = tdi_normal(td_dims(8));
    ((td_conv2d_act_attr *)s->opts)->padding = td_dims(i == 4);
    return i < 6;
}

static bool conv2d_slopes_infer(td_infer *q)
{
    const td_view *g = q->in[0];
    if (!tdi_float_ok("conv2d_slopes", q->compute) || !tdi_ndim_ok("conv2d_slopes", "g", g, 4, "N, O, H, W") ||
        !tdi_shapes_equal("conv2d_slopes", "g", g, "y", q->in[1]))
        return false;
    tdi_set_dims(q->out[1], td_dims(g->dim[1]));
    return true;
}

static bool conv2d_slopes_decompose(const td_call *c, td_tensor **out)
{
    td_tensor *g = c->in[0];
    bool relu = ((const td_conv2d_slopes_attr *)c->attr)->activation == TD_CONV2D_SLOPES_RELU;
    out[0] = relu ? td_activation_backward(g, c->in[1], TD_ACT_RELU) : td_copy(g);
    out[1] = td_sum(out[0], td_dims(0, 2, 3), false);
    return out[1] != NULL;
}

static bool conv2d_slopes_sample(uint32_t i, td_sample *s)
{
    td_ints d = i == 1 ? td_dims(3, 5, 7, 9) : td_dims(2, 3, 2, 2);
    ((td_conv2d_slopes_attr *)s->opts)->activation = i == 2 ? TD_CONV2D_SLOPES_NONE : TD_CONV2D_SLOPES_RELU;
    s->in[0] = tdi_normal(d);
    s->in[1] = tdi_normal(d);
    return i < 3;
}

/* ---- conv_transpose2d ---- */

static bool transpose_geometry(const td_conv_transpose2d_attr *a, const td_view *w, tdi_geometry *m)
{
    const char *op = "conv_transpose2d";
    if (!options(op, a->stride, a->padding, a->dilation, a->groups, m) || !set_kernel(op, w, m)) return false;
    if (!tdi_window_option(op, "output_padding", a->output_padding, 0, m->extra)) return false;
    for (int i = 0; i < 2; i++)
        if (m->extra[i] >= m->stride[i])
            return td_fail("%s: output_padding: expected less than the stride %lld, got %lld", op,
                           (long long)m->stride[i], (long long)m->extra[i]);
    return true;
}

static bool conv_transpose2d_infer(td_infer *q)
{
    const char *op = "conv_transpose2d";
    const td_view *x = q->in[0], *w = q->in[1];
    tdi_geometry m;
    int64_t out[2], o;
    if (!tdi_float_ok(op, q->compute) || !images_ok(op, "x", x) || !tdi_ndim_ok(op, "w", w, 4, "C, O/groups, KH, KW"))
        return false;
    if (!transpose_geometry(q->attr, w, &m) || !groups_ok(op, x->dim[1], "input", m.groups)) return false;
    if (w->dim[0] != x->dim[1])
        return td_fail_as(TD_ESHAPE, "%s: w %s takes %lld channels, and x %s has %lld", op, tdi_shape_text(w),
                          (long long)w->dim[0], tdi_shape_text(x), (long long)x->dim[1]);
    if (!w->dim[1] || __builtin_mul_overflow(w->dim[1], m.groups, &o))
        return td_fail_as(TD_ESHAPE, "%s: w %s has no usable output channels", op, tdi_shape_text(w));
    if (!tdi_vector_ok(op, "b", q->in[2], o)) return false;
    for (int i = 0; i < 2; i++) {
        int64_t add = tdi_window(&m, i) + m.extra[i] - 2 * m.padding[i];
        if (__builtin_mul_overflow(x->dim[2 + i] - 1, m.stride[i], &out[i]) ||
            __builtin_add_overflow(out[i], add, &out[i]))
            return td_fail_as(TD_ESHAPE, "%s: x %s makes too large a result", op, tdi_shape_text(x));
        if (out[i] < 1)
            return td_fail_as(TD_ESHAPE, "%s: padding %lldx%lld cuts off all of the result for x %s", op,
                              (long long)m.padding[0], (long long)m.padding[1], tdi_shape_text(x));
    }
    tdi_set_dims(q->out[0], td_dims(x->dim[0], o, out[0], out[1]));
    return true;
}

/* x with stride - 1 zeros between neighbours: (N, C, H stride, W stride), the last zeros included. */
static td_tensor *spread(td_tensor *x, const tdi_geometry *m)
{
    int64_t n = td_dim(x, 0), ch = td_dim(x, 1), h = td_dim(x, 2), w = td_dim(x, 3);
    if (m->stride[0] == 1 && m->stride[1] == 1) return x;
    x = td_pad(td_reshape(x, td_dims(n, ch, h, 1, w, 1)), td_dims(0, m->stride[1] - 1, 0, 0, 0, m->stride[0] - 1), 0);
    return td_reshape(x, td_dims(n, ch, h * m->stride[0], w * m->stride[1]));
}

/* w (C, O/G, KH, KW) as conv2d wants it, (O, C/G, KH, KW), turned by half a circle. */
static td_tensor *turned(td_tensor *w, const tdi_geometry *m)
{
    int64_t in = td_dim(w, 0), out = td_dim(w, 1), kh = m->kernel[0], kw = m->kernel[1];
    w = td_transpose(td_reshape(w, td_dims(m->groups, in / m->groups, out, kh, kw)), 1, 2);
    return td_flip(td_reshape(w, td_dims(m->groups * out, in / m->groups, kh, kw)), td_dims(2, 3));
}

static bool conv_transpose2d_decompose(const td_call *c, td_tensor **out)
{
    td_tensor *x = c->in[0], *w = c->in[1];
    tdi_geometry m;
    if (!transpose_geometry(c->attr, td_view_of(w), &m)) return false;
    x = spread(x, &m);
    for (int i = 0; i < 2; i++) {
        int64_t border = tdi_window(&m, i) - 1 - m.padding[i];
        x = tdi_fit_axis(x, 2 + i, border, border + m.extra[i] - (m.stride[i] - 1));
    }
    out[0] = td_conv2d(x, turned(w, &m), c->in[2], td_dims(1), td_dims(0), pair(m.dilation), m.groups);
    return out[0] != NULL;
}

static bool conv_transpose2d_backward(const td_call *c, td_tensor *const *gout, td_tensor **gin, uint64_t need)
{
    td_tensor *g = gout[0];
    tdi_geometry m;
    if (!transpose_geometry(c->attr, td_view_of(c->in[1]), &m)) return false;
    if (need & 1) gin[0] = run_conv(g, c->in[1], NULL, &m);
    if (need & 2) gin[1] = run_weight_grad(g, c->in[0], &m);
    if (need & 4) gin[2] = td_sum(g, td_dims(0, 2, 3), false);
    return !td_failed();
}

static bool conv_transpose2d_sample(uint32_t i, td_sample *s)
{
    td_conv_transpose2d_attr *a = s->opts;
    s->in[0] = tdi_normal(td_dims(2, 4, 3, 2));
    switch (i) {
    case 0:
        s->in[1] = tdi_normal(td_dims(4, 3, 3, 3));
        s->in[2] = tdi_normal(td_dims(3));
        return true;
    case 1:
        s->in[1] = tdi_normal(td_dims(4, 2, 3, 2));
        s->in[2] = tdi_normal(td_dims(2));
        a->stride = td_dims(2, 3);
        a->padding = td_dims(1, 0);
        a->output_padding = td_dims(1, 2);
        return true;
    case 2:
        s->in[1] = tdi_normal(td_dims(4, 1, 2, 3));
        a->stride = td_dims(1, 2);
        a->dilation = td_dims(2, 1);
        a->groups = 2;
        return true;
    case 3: /* padding wider than the kernel cuts into x */
        s->in[1] = tdi_normal(td_dims(4, 2, 1, 2));
        a->stride = td_dims(2);
        a->padding = td_dims(1);
        return true;
    }
    return false;
}

/* ---- conv2d_weight_grad ---- */

static bool weight_grad_geometry(const td_conv2d_weight_grad_attr *a, tdi_geometry *m)
{
    const char *op = "conv2d_weight_grad";
    return options(op, a->stride, a->padding, a->dilation, a->groups, m) &&
           tdi_window_option(op, "kernel", a->kernel, 1, m->kernel);
}

static bool conv2d_weight_grad_infer(td_infer *q)
{
    const char *op = "conv2d_weight_grad";
    const td_view *x = q->in[0], *g = q->in[1];
    tdi_geometry m;
    int64_t out[2];
    if (!tdi_float_ok(op, q->compute) || !images_ok(op, "x", x) || !images_ok(op, "g", g)) return false;
    if (!weight_grad_geometry(q->attr, &m) || !groups_ok(op, x->dim[1], "input", m.groups) ||
        !groups_ok(op, g->dim[1], "output", m.groups) || !conv_extents(op, &m, x->dim + 2, out))
        return false;
    if (g->dim[0] != x->dim[0] || g->dim[2] != out[0] || g->dim[3] != out[1])
        return td_fail_as(TD_ESHAPE, "%s: g: expected shape (%lld, O, %lld, %lld) for x %s, got %s", op,
                          (long long)x->dim[0], (long long)out[0], (long long)out[1], tdi_shape_text(x),
                          tdi_shape_text(g));
    tdi_set_dims(q->out[0], td_dims(g->dim[1], x->dim[1] / m.groups, m.kernel[0], m.kernel[1]));
    return true;
}

/* g (G, O/G, N OH OW) times columns (G, N OH OW, K) */
static bool conv2d_weight_grad_decompose(const td_call *c, td_tensor **out)
{
    td_tensor *x = c->in[0], *g = c->in[1];
    tdi_geometry m;
    if (!weight_grad_geometry(c->attr, &m)) return false;
    td_tensor *win = windows(x, &m);
    int64_t n = td_dim(win, 0), ch = td_dim(win, 2), area = td_dim(win, 3) * td_dim(win, 4), o = td_dim(g, 1);
    td_tensor *col = td_reshape(td_permute(win, td_dims(1, 0, 3, 4, 2, 5, 6)),
                                td_dims(m.groups, n * area, ch * m.kernel[0] * m.kernel[1]));
    g = td_permute(td_reshape(g, td_dims(n, m.groups, o / m.groups, area)), td_dims(1, 2, 0, 3));
    g = td_reshape(g, td_dims(m.groups, o / m.groups, n * area));
    out[0] = td_reshape(td_matmul(g, col), td_dims(o, ch, m.kernel[0], m.kernel[1]));
    return out[0] != NULL;
}

static bool conv2d_weight_grad_backward(const td_call *c, td_tensor *const *gout, td_tensor **gin, uint64_t need)
{
    tdi_geometry m;
    if (!weight_grad_geometry(c->attr, &m)) return false;
    if (need & 1) gin[0] = run_transpose(c->in[1], gout[0], td_view_of(c->in[0])->dim + 2, &m);
    if (need & 2) gin[1] = run_conv(c->in[0], gout[0], NULL, &m);
    return !td_failed();
}

static bool conv2d_weight_grad_sample(uint32_t i, td_sample *s)
{
    td_conv2d_weight_grad_attr *a = s->opts;
    s->in[0] = tdi_normal(td_dims(2, 2, 6, 5));
    s->in[1] = i == 0 ? tdi_normal(td_dims(2, 3, 4, 3)) : tdi_normal(td_dims(2, 4, 3, 4));
    a->kernel = i == 0 ? td_dims(3) : td_dims(3, 2);
    if (i == 1) { /* rows: (6 + 2 - 3) / 2 + 1 = 3, one left over; columns: (5 - 2 + 1) = 4 */
        a->stride = td_dims(2, 1);
        a->padding = td_dims(1, 0);
        a->groups = 2;
    }
    return i < 2;
}

const td_op tdi_op_conv2d = {TD_ROW_conv2d,
                             .save_in = 3,
                             .flags = TD_OP_BWD_DIFF,
                             .infer = conv2d_infer,
                             .backward = conv2d_backward,
                             .decompose = conv2d_decompose,
                             .sample = conv2d_sample};
const td_op tdi_op_conv2d_act = {TD_ROW_conv2d_act,
                                 .save_in = 3,
                                 .save_out = 1,
                                 .flags = TD_OP_BWD_DIFF,
                                 .infer = conv2d_infer,
                                 .backward = conv2d_act_backward,
                                 .decompose = conv2d_act_decompose,
                                 .sample = conv2d_act_sample};
const td_op tdi_op_conv2d_slopes = {TD_ROW_conv2d_slopes, .infer = conv2d_slopes_infer,
                                    .decompose = conv2d_slopes_decompose, .sample = conv2d_slopes_sample};
const td_op tdi_op_conv_transpose2d = {TD_ROW_conv_transpose2d,
                                       .save_in = 3,
                                       .flags = TD_OP_BWD_DIFF,
                                       .infer = conv_transpose2d_infer,
                                       .backward = conv_transpose2d_backward,
                                       .decompose = conv_transpose2d_decompose,
                                       .sample = conv_transpose2d_sample};
const td_op tdi_op_conv2d_weight_grad = {TD_ROW_conv2d_weight_grad,
                                         .save_in = 3,
                                         .flags = TD_OP_BWD_DIFF,
                                         .infer = conv2d_weight_grad_infer,
                                         .backward = conv2d_weight_grad_backward,
                                         .decompose = conv2d_weight_grad_decompose,
                                         .sample = conv2d_weight_grad_sample};

/* batch_norm.c - batch_norm, batch_norm_apply (its second half), batch_norm_infer and their gradients; formulas in norm.h.
 * A relu and a residual r may follow: y = relu(z), z = w xhat + b + r. */
#include "norm.h"

static norm_layout batch_layout(const td_view *x)
{
    norm_layout m = {.stat_keep.n = x->nd, .stat_shape = td_dims(x->dim[1])};
    for (int32_t i = 0; i < x->nd; i++) {
        m.stat_keep.v[i] = i == 1 ? x->dim[1] : 1;
        if (i != 1) m.stat.v[m.stat.n++] = i;
    }
    m.shared = m.stat;
    m.w_keep = m.stat_keep;
    m.w_shape = m.stat_shape;
    return m;
}

/* x is a float tensor with channels on axis 2. */
static bool channels_ok(const char *op, td_infer *q, const td_view *x)
{
    if (!tdi_float_ok(op, q->compute)) return false;
    return x->nd >= 2 ||
           td_fail_as(TD_ESHAPE, "%s: x: expected at least 2 axes (N, C, ...), got shape %s", op, tdi_shape_text(x));
}

/* ---- batch_norm: y = act(z),  z = w xhat + b + r ---- */

static_assert(TD_BATCH_NORM_NONE == (int)TD_ACT_NONE && TD_BATCH_NORM_RELU == (int)TD_ACT_RELU,
              "one order of activations");

static td_tensor *finished(td_tensor *z, td_tensor *r, int32_t act)
{
    if (r) z = td_add(z, r);
    return act == TD_ACT_RELU ? td_relu(z) : z;
}

/* What is added before the activation has the shape of x. */
static bool residual_ok(const char *op, const td_view *r, const td_view *x)
{
    return !r || tdi_shapes_equal(op, "r", r, "x", x);
}

static bool batch_norm_infer_shape(td_infer *q)
{
    if (!channels_ok("batch_norm", q, q->in[0])) return false;
    norm_layout m = batch_layout(q->in[0]);
    return norm_forward_infer("batch_norm", q, &m) && residual_ok("batch_norm", q->in[3], q->in[0]);
}

static bool batch_norm_decompose(const td_call *c, td_tensor **out)
{
    const td_batch_norm_attr *a = c->attr;
    norm_layout m = batch_layout(td_view_of(c->in[0]));
    if (!norm_forward(c->in[0], c->in[1], c->in[2], a->eps, &m, out)) return false;
    out[0] = finished(out[0], c->in[3], a->activation);
    return out[0] != NULL;
}

static bool batch_norm_backward(const td_call *c, td_tensor *const *gout, td_tensor **gin, uint64_t need)
{
    bool relu = ((const td_batch_norm_attr *)c->attr)->activation == TD_ACT_RELU;
    td_tensor *g = gout[0], *b = relu ? c->in[2] : NULL, *r = relu ? c->in[3] : NULL, *gw, *gb, *gr;
    if (!g) return true;
    if (!td_batch_norm_backward_full(g, c->in[0], c->in[1], b, r, c->out[1], c->out[2],
                                     relu ? TD_BATCH_NORM_BACKWARD_RELU : TD_BATCH_NORM_BACKWARD_NONE, &gin[0], &gw,
                                     &gb, &gr))
        return false;
    if (need & 2) gin[1] = gw;
    if (need & 4) gin[2] = gb;
    if (need & 8) gin[3] = r ? gr : g;
    return true;
}

/* With w and b, without; a relu; a residual with and without one. */
static bool batch_norm_sample(uint32_t i, td_sample *s)
{
    td_batch_norm_attr *a = s->opts;
    td_ints d = i == 1 ? td_dims(5, 3) : i == 4 ? td_dims(6, 2) : i == 5 ? td_dims(2, 8, 3, 3) : td_dims(3, 2, 2, 2);
    s->in[0] = tdi_normal(d);
    if (i == 1) a->eps = 0.1;
    if (i != 1 && i != 6) {
        s->in[1] = tdi_normal(td_dims(d.v[1]));
        s->in[2] = tdi_normal(td_dims(d.v[1]));
    }
    if (i > 1) a->activation = i == 3 ? TD_ACT_NONE : TD_ACT_RELU;
    if (i > 2) s->in[3] = tdi_normal(d);
    return i < 7;
}

static bool batch_norm_apply_infer(td_infer *q)
{
    const char *op = "batch_norm_apply";
    static const char *const name[] = {"x", "mean", "rstd", "w", "b"};
    if (!channels_ok(op, q, q->in[0])) return false;
    for (int i = 1; i < 5; i++)
        if (!tdi_vector_ok(op, name[i], q->in[i], q->in[0]->dim[1])) return false;
    return residual_ok(op, q->in[5], q->in[0]);
}

static bool batch_norm_apply_decompose(const td_call *c, td_tensor **out)
{
    norm_layout m = batch_layout(td_view_of(c->in[0]));
    td_tensor *d = td_sub(c->in[0], td_reshape(c->in[1], m.stat_keep)), *b = c->in[4];
    td_tensor *z = norm_weighted(td_mul(d, td_reshape(c->in[2], m.stat_keep)), c->in[3], &m);
    out[0] = finished(b ? td_add(z, td_reshape(b, m.w_keep)) : z, c->in[5],
                      ((const td_batch_norm_apply_attr *)c->attr)->activation);
    return out[0] != NULL;
}

static bool batch_norm_apply_sample(uint32_t i, td_sample *s)
{
    td_ints d = i == 1 ? td_dims(5, 3) : td_dims(2, 3, 2, 2);
    s->in[0] = tdi_normal(d);
    s->in[1] = tdi_normal(td_dims(3));
    s->in[2] = td_add(td_rand(td_dims(3), TD_F32), td_number(0.5));
    if (i != 1) {
        s->in[3] = tdi_normal(td_dims(3));
        s->in[4] = tdi_normal(td_dims(3));
    }
    if (i == 2) s->in[5] = tdi_normal(d);
    ((td_batch_norm_apply_attr *)s->opts)->activation = i > 0 ? TD_ACT_RELU : TD_ACT_NONE;
    return i < 3;
}

/* in: g, x, w, b, r, mean, rstd */
static bool batch_norm_backward_infer(td_infer *q)
{
    const char *op = "batch_norm_backward";
    if (!channels_ok(op, q, q->in[1])) return false;
    norm_layout m = batch_layout(q->in[1]);
    const td_view *in[] = {q->in[0], q->in[1], q->in[2], q->in[5], q->in[6]};
    td_infer same = *q;
    same.in = in;
    if (!norm_gradient_infer(op, &same, &m) || !norm_shape_ok(op, "b", q->in[3], m.w_shape) ||
        !residual_ok(op, q->in[4], q->in[1]))
        return false;
    if (((const td_batch_norm_backward_attr *)q->attr)->activation == TD_ACT_NONE || !q->in[4])
        tdi_set_dims(q->out[3], td_dims(0));
    return true;
}

/* Where the relu passed, made of x once more. */
static td_tensor *passed(const td_call *c, td_tensor *t)
{
    if (((const td_batch_norm_backward_attr *)c->attr)->activation == TD_ACT_NONE) return t;
    td_tensor *z =
        td_batch_norm_apply(c->in[1], c->in[5], c->in[6], c->in[2], c->in[3], c->in[4], TD_BATCH_NORM_APPLY_NONE);
    return td_activation_backward(t, z, TD_ACT_RELU);
}

static bool batch_norm_backward_decompose(const td_call *c, td_tensor **out)
{
    bool relu = ((const td_batch_norm_backward_attr *)c->attr)->activation == TD_ACT_RELU;
    norm_layout m = batch_layout(td_view_of(c->in[1]));
    td_tensor *h = passed(c, c->in[0]), *in[] = {h, c->in[1], c->in[2], c->in[5], c->in[6]};
    out[3] = relu && c->in[4] ? h : td_zeros(td_dims(0), td_dtype_of(h));
    return norm_gradient(in, NULL, &m, out) && out[3] != NULL;
}

static bool batch_norm_backward_backward(const td_call *c, td_tensor *const *gout, td_tensor **gin, uint64_t need)
{
    norm_layout m = batch_layout(td_view_of(c->in[1]));
    td_tensor *in[] = {passed(c, c->in[0]), c->in[1], c->in[2], c->in[5], c->in[6]}, *got[5] = {NULL};
    td_call same = *c;
    same.in = in;
    if (!norm_gradient_backward(&same, gout, got, (need & 7) | (need >> 2 & 24), &m)) return false;
    if (need & 1) gin[0] = passed(c, got[0]);
    if (need & 2) gin[1] = got[1];
    if (need & 4) gin[2] = got[2];
    if (need & 32) gin[5] = got[3];
    if (need & 64) gin[6] = got[4];
    return !td_failed();
}

/* Case 1 and 3 without w; 2 and 3 with a relu, and 3 with what was added before it. */
static bool batch_norm_backward_sample(uint32_t i, td_sample *s)
{
    td_ints d = i % 2 == 0 ? td_dims(2, 2, 2, 3) : td_dims(4, 3), c = td_dims(d.v[1]);
    norm_gradient_case(i % 2, s, d, c, c, 5);
    if (i == 2) s->in[3] = tdi_normal(c);
    if (i == 3) s->in[4] = tdi_normal(d);
    if (i > 1) ((td_batch_norm_backward_attr *)s->opts)->activation = TD_ACT_RELU;
    return i < 4;
}

/* ---- batch_norm_infer:  y = act(w (x - mean) / sqrt(var + eps) + b + r) ---- */

static bool batch_norm_infer_infer(td_infer *q)
{
    const char *op = "batch_norm_infer";
    static const char *const name[] = {"x", "mean", "var", "w", "b"};
    if (!channels_ok(op, q, q->in[0])) return false;
    for (int i = 1; i < 5; i++)
        if (!tdi_vector_ok(op, name[i], q->in[i], q->in[0]->dim[1])) return false;
    return residual_ok(op, q->in[5], q->in[0]);
}

static bool batch_norm_infer_decompose(const td_call *c, td_tensor **out)
{
    const td_batch_norm_infer_attr *a = c->attr;
    norm_layout m = batch_layout(td_view_of(c->in[0]));
    td_tensor *scale = td_rsqrt(td_add(c->in[2], td_number(a->eps)));
    if (c->in[3]) scale = td_mul(scale, c->in[3]);
    td_tensor *y = td_mul(td_sub(c->in[0], td_reshape(c->in[1], m.stat_keep)), td_reshape(scale, m.stat_keep));
    out[0] = finished(c->in[4] ? td_add(y, td_reshape(c->in[4], m.stat_keep)) : y, c->in[5], a->activation);
    return out[0] != NULL;
}

/* h = g act'   r = 1 / sqrt(var + eps)
 * x: h w r   mean: -w r sum h   var: -1/2 w r^3 sum h (x - mean)   w: r sum h (x - mean)   b: sum h   residual: h */
static bool batch_norm_infer_backward(const td_call *c, td_tensor *const *gout, td_tensor **gin, uint64_t need)
{
    const td_batch_norm_infer_attr *a = c->attr;
    td_tensor *g = gout[0], *w = c->in[3];
    norm_layout m = batch_layout(td_view_of(c->in[0]));
    if (a->activation == TD_ACT_RELU) g = td_activation_backward(g, c->out[0], TD_ACT_RELU);
    if (need & 32) gin[5] = g;
    td_tensor *r = td_rsqrt(td_add(c->in[2], td_number(a->eps))), *wr = w ? td_mul(w, r) : r;
    if (need & 1) gin[0] = td_mul(g, td_reshape(wr, m.stat_keep));
    if (need & (2 | 16)) {
        td_tensor *sum = td_sum(g, m.stat, false);
        if (need & 2) gin[1] = td_neg(td_mul(wr, sum));
        if (need & 16) gin[4] = sum;
    }
    if (need & (4 | 8)) {
        td_tensor *sum = td_sum(td_mul(g, td_sub(c->in[0], td_reshape(c->in[1], m.stat_keep))), m.stat, false);
        if (need & 4) gin[2] = td_mul(td_mul(td_mul(wr, td_square(r)), sum), td_number(-0.5));
        if (need & 8) gin[3] = td_mul(r, sum);
    }
    return !td_failed();
}

static bool batch_norm_infer_sample(uint32_t i, td_sample *s)
{
    td_batch_norm_infer_attr *a = s->opts;
    s->in[0] = tdi_normal(i == 0 || i == 2 ? td_dims(2, 3, 2, 2) : td_dims(4, 3));
    s->in[1] = tdi_normal(td_dims(3));
    s->in[2] = td_add(td_rand(td_dims(3), TD_F32), td_number(0.5));
    if (i == 0 || i == 2) {
        s->in[3] = tdi_normal(td_dims(3));
        s->in[4] = tdi_normal(td_dims(3));
    } else {
        a->eps = 0.1;
    }
    if (i > 1) a->activation = TD_ACT_RELU;
    if (i == 3) s->in[5] = tdi_normal(td_dims(4, 3));
    return i < 4;
}

/* b and r are saved for a decompose that is differentiated; save_out 6: mean and rstd.
 * y is not: where a relu was 0 is seen from x, w, b and r. */
const td_op tdi_op_batch_norm = {TD_ROW_batch_norm,
                                 .save_in = 15,
                                 .save_out = 6,
                                 .flags = TD_OP_GOUT_NULL,
                                 .infer = batch_norm_infer_shape,
                                 .backward = batch_norm_backward,
                                 .decompose = batch_norm_decompose,
                                 .sample = batch_norm_sample};
const td_op tdi_op_batch_norm_apply = {TD_ROW_batch_norm_apply, .save_in = 63, .infer = batch_norm_apply_infer,
                                       .decompose = batch_norm_apply_decompose, .sample = batch_norm_apply_sample};
const td_op tdi_op_batch_norm_backward = {TD_ROW_batch_norm_backward,
                                          .save_in = 127,
                                          .flags = TD_OP_BWD_DIFF | TD_OP_GOUT_NULL,
                                          .infer = batch_norm_backward_infer,
                                          .backward = batch_norm_backward_backward,
                                          .decompose = batch_norm_backward_decompose,
                                          .sample = batch_norm_backward_sample};
const td_op tdi_op_batch_norm_infer = {TD_ROW_batch_norm_infer,
                                       .save_in = 15,
                                       .save_out = 1,
                                       .flags = TD_OP_BWD_DIFF,
                                       .infer = batch_norm_infer_infer,
                                       .backward = batch_norm_infer_backward,
                                       .decompose = batch_norm_infer_decompose,
                                       .sample = batch_norm_infer_sample};

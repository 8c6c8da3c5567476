/* norm.c - layer_norm, alone or with a shortcut, and its gradients; formulas in norm.h. */
#include "norm.h"

static norm_layout layer_layout(const td_view *x, int64_t dims)
{
    norm_layout m = {.stat_keep.n = x->nd, .w_keep.n = x->nd};
    for (int32_t i = 0; i < x->nd; i++) {
        bool inner = i >= x->nd - dims;
        m.stat_keep.v[i] = inner ? 1 : x->dim[i];
        m.w_keep.v[i] = inner ? x->dim[i] : 1;
        if (inner) {
            m.stat.v[m.stat.n++] = i;
            m.w_shape.v[m.w_shape.n++] = x->dim[i];
        } else {
            m.shared.v[m.shared.n++] = i;
            m.stat_shape.v[m.stat_shape.n++] = x->dim[i];
        }
    }
    return m;
}

static bool layer_ok(const char *op, td_infer *q, const td_view *x, int64_t dims)
{
    if (!tdi_float_ok(op, q->compute)) return false;
    return (dims >= 1 && dims <= x->nd) ||
           td_fail_as(TD_ESHAPE, "%s: dims: expected 1 to the %d axes of x %s, got %lld", op, (int)x->nd,
                      tdi_shape_text(x), (long long)dims);
}

/* ---- layer_norm ---- */

static bool layer_norm_infer(td_infer *q)
{
    const td_layer_norm_attr *a = q->attr;
    if (!layer_ok("layer_norm", q, q->in[0], a->dims)) return false;
    norm_layout m = layer_layout(q->in[0], a->dims);
    return norm_forward_infer("layer_norm", q, &m);
}

static bool layer_norm_decompose(const td_call *c, td_tensor **out)
{
    const td_layer_norm_attr *a = c->attr;
    norm_layout m = layer_layout(td_view_of(c->in[0]), a->dims);
    return norm_forward(c->in[0], c->in[1], c->in[2], a->eps, &m, out);
}

static bool layer_norm_backward(const td_call *c, td_tensor *const *gout, td_tensor **gin, uint64_t need)
{
    const td_layer_norm_attr *a = c->attr;
    td_tensor *gw, *gb;
    if (!gout[0]) return true;
    if (!td_layer_norm_backward_full(gout[0], c->in[0], c->in[1], c->out[1], c->out[2], NULL, a->dims, &gin[0], &gw,
                                     &gb))
        return false;
    if (need & 2) gin[1] = gw;
    if (need & 4) gin[2] = gb;
    return true;
}

static bool layer_norm_sample(uint32_t i, td_sample *s)
{
    td_layer_norm_attr *a = s->opts;
    s->in[0] = tdi_normal(td_dims(2, 3, 4));
    if (i == 0) {
        s->in[1] = tdi_normal(td_dims(4));
        s->in[2] = tdi_normal(td_dims(4));
    } else {
        *a = (td_layer_norm_attr){.dims = 2, .eps = 0.1};
        if (i == 2) s->in[1] = tdi_normal(td_dims(3, 4));
    }
    return i < 3;
}

static bool layer_norm_backward_infer(td_infer *q)
{
    const td_layer_norm_backward_attr *a = q->attr;
    if (!layer_ok("layer_norm_backward", q, q->in[1], a->dims)) return false;
    if (q->in[5] && !tdi_shapes_equal("layer_norm_backward", "more", q->in[5], "x", q->in[1])) return false;
    norm_layout m = layer_layout(q->in[1], a->dims);
    return norm_gradient_infer("layer_norm_backward", q, &m);
}

static bool layer_norm_backward_decompose(const td_call *c, td_tensor **out)
{
    const td_layer_norm_backward_attr *a = c->attr;
    norm_layout m = layer_layout(td_view_of(c->in[1]), a->dims);
    return norm_gradient(c->in, c->in[5], &m, out);
}

static bool layer_norm_backward_backward(const td_call *c, td_tensor *const *gout, td_tensor **gin, uint64_t need)
{
    const td_layer_norm_backward_attr *a = c->attr;
    norm_layout m = layer_layout(td_view_of(c->in[1]), a->dims);
    return norm_gradient_backward(c, gout, gin, need, &m);
}

static bool layer_norm_backward_sample(uint32_t i, td_sample *s)
{
    td_layer_norm_backward_attr *a = s->opts;
    a->dims = i == 1 ? 2 : 1;
    if (i != 1) norm_gradient_case(i, s, td_dims(2, 3, 4), td_dims(4), td_dims(2, 3), 3);
    else norm_gradient_case(i, s, td_dims(2, 3, 2), td_dims(3, 2), td_dims(2), 3);
    if (i == 2) s->in[5] = tdi_normal(td_dims(2, 3, 4));
    return i < 3;
}

/* b is saved for a decompose that is differentiated; save_out 6: mean and rstd */
const td_op tdi_op_layer_norm = {TD_ROW_layer_norm,
                                 .save_in = 7,
                                 .save_out = 6,
                                 .flags = TD_OP_GOUT_NULL,
                                 .infer = layer_norm_infer,
                                 .backward = layer_norm_backward,
                                 .decompose = layer_norm_decompose,
                                 .sample = layer_norm_sample};
const td_op tdi_op_layer_norm_backward = {TD_ROW_layer_norm_backward,
                                          .save_in = 63,
                                          .flags = TD_OP_BWD_DIFF | TD_OP_GOUT_NULL,
                                          .infer = layer_norm_backward_infer,
                                          .backward = layer_norm_backward_backward,
                                          .decompose = layer_norm_backward_decompose,
                                          .sample = layer_norm_backward_sample};

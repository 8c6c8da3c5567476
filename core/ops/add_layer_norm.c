/* add_layer_norm.c - sum = x + r and y = layer_norm(sum): a shortcut and the norm behind it (Vaswani et al. 2017,
 * arXiv:1706.03762, section 3.1). Both results are differentiable: with gy and gs their gradients,
 *     gx = gr = gs + the gradient of layer_norm at sum for gy     gw, gb as those of layer_norm */
#include "common.h"

/* w or b: absent, or of the shape of the last axes of x. */
static bool weight_ok(const char *name, const td_view *w, const td_view *x, int64_t dims)
{
    td_view want = {.nd = 0};
    if (!w) return true;
    tdi_set_dims(&want, td_dims_n(dims, x->dim + x->nd - dims));
    return tdi_same_shape(w, &want) || td_fail_as(TD_ESHAPE, "add_layer_norm: %s: expected shape %s, got %s", name,
                                                  tdi_shape_text(&want), tdi_shape_text(w));
}

static bool infer(td_infer *q)
{
    const td_add_layer_norm_attr *a = q->attr;
    const td_view *x = q->in[0];
    if (!tdi_float_ok("add_layer_norm", q->compute) || !tdi_shapes_equal("add_layer_norm", "r", q->in[1], "x", x))
        return false;
    if (a->dims < 1 || a->dims > x->nd)
        return td_fail_as(TD_ESHAPE, "add_layer_norm: dims: expected 1 to the %d axes of x %s, got %lld", (int)x->nd,
                          tdi_shape_text(x), (long long)a->dims);
    for (int64_t i = x->nd - a->dims; i < x->nd; i++)
        if (!x->dim[i])
            return td_fail_as(TD_ESHAPE, "add_layer_norm: x %s has no values to take a mean of", tdi_shape_text(x));
    if (!weight_ok("w", q->in[2], x, a->dims) || !weight_ok("b", q->in[3], x, a->dims)) return false;
    td_ints rows = td_dims_n(x->nd - a->dims, x->dim);
    tdi_set_dims(q->out[2], rows);
    tdi_set_dims(q->out[3], rows);
    return true;
}

static bool decompose(const td_call *c, td_tensor **out)
{
    const td_add_layer_norm_attr *a = c->attr;
    out[1] = td_add(c->in[0], c->in[1]);
    return td_layer_norm_full(out[1], c->in[2], c->in[3], a->dims, a->eps, &out[0], &out[2], &out[3]);
}

static bool backward(const td_call *c, td_tensor *const *gout, td_tensor **gin, uint64_t need)
{
    const td_add_layer_norm_attr *a = c->attr;
    td_tensor *gw, *gb;
    if (!gout[0]) {
        gin[0] = gin[1] = gout[1];
        return true;
    }
    if (!td_layer_norm_backward_full(gout[0], c->out[1], c->in[2], c->out[2], c->out[3], gout[1], a->dims, &gin[0], &gw,
                                     &gb))
        return false;
    gin[1] = gin[0];
    if (need & 4) gin[2] = gw;
    if (need & 8) gin[3] = gb;
    return true;
}

static bool sample(uint32_t i, td_sample *s) /* one axis; two, with a weight; two, with neither */
{
    td_add_layer_norm_attr *a = s->opts;
    s->in[0] = tdi_normal(td_dims(2, 3, 4));
    s->in[1] = tdi_normal(td_dims(2, 3, 4));
    if (i == 0) {
        s->in[2] = tdi_normal(td_dims(4));
        s->in[3] = tdi_normal(td_dims(4));
    } else {
        *a = (td_add_layer_norm_attr){.dims = 2, .eps = 0.1};
        if (i == 1) s->in[2] = tdi_normal(td_dims(3, 4));
    }
    return i < 3;
}

/* x and r are saved for a second derivative, which is that of the definition. */
const td_op tdi_op_add_layer_norm = {TD_ROW_add_layer_norm,    .save_in = 15,   .save_out = 2 | 4 | 8,
                                     .flags = TD_OP_GOUT_NULL, .infer = infer,  .backward = backward,
                                     .decompose = decompose,   .sample = sample};

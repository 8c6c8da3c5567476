/* linear.c - linear, linear_act (the same with an activation) and the gradients of both.
 * x (..., in)   w (out, in)   b (out)   y = act(z) (..., out),  z = x w^T + b     With g the gradient of y, rows of all leading axes
 * taken together:     h = g act'(z)     gx = h w     gw = h^T x     gb = the sum of h's rows
 * act' comes from y but for gelu, which keeps z. */
#include "common.h"
#include "rules.h"

enum { NEED_X = 1, NEED_W = 2, NEED_BIAS = 4 }; /* bits of `need`, the backward's and the option's */

static_assert(TD_LINEAR_ACT_NONE == (int)TD_ACT_NONE && TD_LINEAR_ACT_RELU == (int)TD_ACT_RELU &&
                  TD_LINEAR_ACT_TANH == (int)TD_ACT_TANH && TD_LINEAR_ACT_SIGMOID == (int)TD_ACT_SIGMOID &&
                  TD_LINEAR_ACT_GELU == (int)TD_ACT_GELU && TD_LINEAR_ACT_GELU_TANH == (int)TD_ACT_GELU_TANH,
              "one order of activations");

static bool is_gelu(int32_t act) { return act == TD_ACT_GELU || act == TD_ACT_GELU_TANH; }

/* ---- shape rules ---- */

/* x, w and b, the first three inputs; op names the caller. */
static bool operands_ok(const char *op, const td_view *x, const td_view *w, const td_view *b)
{
    if (w->nd != 2) return td_fail_as(TD_ESHAPE, "%s: w: expected shape (out, in), got %s", op, tdi_shape_text(w));
    if (x->nd == 0 || x->dim[x->nd - 1] != w->dim[1])
        return td_fail_as(TD_ESHAPE, "%s: x: expected shape (..., %lld) for w of shape %s, got %s", op,
                          (long long)w->dim[1], tdi_shape_text(w), tdi_shape_text(x));
    if (b && (b->nd != 1 || b->dim[0] != w->dim[0]))
        return td_fail_as(TD_ESHAPE, "%s: b: expected shape (%lld) for w of shape %s, got %s", op, (long long)w->dim[0],
                          tdi_shape_text(w), tdi_shape_text(b));
    return true;
}

static void like_result(td_view *y, const td_infer *i)
{
    y->dt = i->compute;
    y->dim[y->nd - 1] = i->in[1]->dim[0];
}

static void nothing(td_view *v, const td_infer *i)
{
    v->dt = i->compute;
    v->nd = 1;
    v->dim[0] = 0;
}

static bool linear_infer(td_infer *i)
{
    if (!tdi_want_numbers("linear", i) || !operands_ok("linear", i->in[0], i->in[1], i->in[2])) return false;
    like_result(i->out[0], i);
    return true;
}

static bool linear_act_infer(td_infer *i)
{
    if (!tdi_want_float("linear_act", i) || !operands_ok("linear_act", i->in[0], i->in[1], i->in[2])) return false;
    like_result(i->out[0], i);
    if (is_gelu(((const td_linear_act_attr *)i->attr)->activation)) like_result(i->out[1], i);
    else nothing(i->out[1], i);
    return true;
}

/* in: g, x, w, b, y, z   out: gx, gw, gb, h */
static bool linear_act_backward_infer(td_infer *i)
{
    static const char op[] = "linear_act_backward";
    const td_linear_act_backward_attr *a = i->attr;
    const td_view *g = i->in[0], *x = i->in[1], *w = i->in[2];
    if (!tdi_want_float(op, i) || !operands_ok(op, x, w, i->in[3])) return false;
    td_view y = *x;
    y.dim[y.nd - 1] = w->dim[0];
    if (!tdi_shapes_equal(op, "g", g, "the result", &y)) return false;
    const td_view *by = is_gelu(a->activation) ? i->in[5] : i->in[4];
    if (a->activation != TD_ACT_NONE && !by)
        return td_fail("%s: this activation needs %s", op, is_gelu(a->activation) ? "z" : "y");
    if (a->activation != TD_ACT_NONE && !tdi_shapes_equal(op, is_gelu(a->activation) ? "z" : "y", by, "g", g))
        return false;
    const bool needed[] = {a->need & NEED_X, a->need & NEED_W, a->need & NEED_BIAS, a->activation != TD_ACT_NONE};
    const td_view *like[] = {x, w, NULL, g};
    for (int k = 0; k < 4; k++) {
        nothing(i->out[k], i);
        if (!needed[k]) continue;
        i->out[k]->nd = like[k] ? like[k]->nd : 1;
        if (!like[k]) i->out[k]->dim[0] = w->dim[0];
        for (int32_t d = 0; like[k] && d < like[k]->nd; d++) i->out[k]->dim[d] = like[k]->dim[d];
    }
    return true;
}

/* ---- in simpler ops ---- */

static td_tensor *turned(td_tensor *m) { return td_transpose(m, -2, -1); }

static td_tensor *none(const td_tensor *like) { return td_zeros(td_dims(0), td_dtype_of(like)); }

static bool linear_decompose(const td_call *c, td_tensor **out)
{
    td_tensor *y = td_matmul(c->in[0], turned(c->in[1]));
    out[0] = c->in[2] ? td_add(y, c->in[2]) : y;
    return out[0] != NULL;
}

static td_tensor *activated(td_tensor *z, int32_t act)
{
    switch (act) {
    case TD_ACT_RELU: return td_relu(z);
    case TD_ACT_TANH: return td_tanh(z);
    case TD_ACT_SIGMOID: return td_sigmoid(z);
    case TD_ACT_GELU: return td_gelu(z, TD_GELU_NONE);
    case TD_ACT_GELU_TANH: return td_gelu(z, TD_GELU_TANH);
    default: return z;
    }
}

static bool linear_act_decompose(const td_call *c, td_tensor **out)
{
    int32_t act = ((const td_linear_act_attr *)c->attr)->activation;
    td_tensor *z = td_linear(c->in[0], c->in[1], c->in[2]);
    out[0] = activated(z, act);
    out[1] = is_gelu(act) ? z : none(z);
    return out[1] != NULL;
}

/* g act'(z): by y, or by z for gelu */
static td_tensor *through(td_tensor *g, td_tensor *y, td_tensor *z, int32_t act)
{
    return act == TD_ACT_NONE ? g : td_activation_backward(g, is_gelu(act) ? z : y, act);
}

/* (..., d) -> (rows, d) */
static td_tensor *as_rows(td_tensor *x)
{
    const td_view *v = td_view_of(x);
    int64_t d = v->nd ? v->dim[v->nd - 1] : 1;
    return tdi_shaped(x, td_dims(tdi_count(v, v->nd ? ~(1u << (v->nd - 1)) : 0), d));
}

/* z once more from x, w and b: so a second derivative goes through it. */
static bool linear_act_backward_decompose(const td_call *c, td_tensor **out)
{
    const td_linear_act_backward_attr *a = c->attr;
    td_tensor *g = c->in[0], *x = c->in[1], *w = c->in[2];
    td_tensor *z = is_gelu(a->activation) ? td_linear(x, w, c->in[3]) : NULL;
    td_tensor *h = through(g, c->in[4], z, a->activation);
    out[0] = a->need & NEED_X ? td_matmul(h, w) : none(g);
    out[1] = a->need & NEED_W ? td_matmul(turned(as_rows(h)), as_rows(x)) : none(g);
    out[2] = a->need & NEED_BIAS ? td_sum(as_rows(h), td_dims(0), false) : none(g);
    out[3] = a->activation != TD_ACT_NONE ? h : none(g);
    return out[3] != NULL;
}

/* ---- backward ---- */

static bool backward(td_tensor *const *in, td_tensor *g, td_tensor *y, td_tensor *z, int32_t act, uint64_t need,
                     td_tensor **gin)
{
    td_tensor *x = in[0], *w = in[1], *b = in[2], *got[3];
    bool summed = b && need & NEED_BIAS;
    if (!td_linear_act_backward_full(g, x, w, is_gelu(act) ? b : NULL, y, z, act, (int64_t)need & 7, &got[0], &got[1],
                                     &got[2], &(td_tensor *){NULL}))
        return false;
    if (need & NEED_X) gin[0] = tdi_to(got[0], td_dtype_of(x));
    if (need & NEED_W) gin[1] = tdi_to(got[1], td_dtype_of(w));
    if (summed) gin[2] = tdi_to(got[2], td_dtype_of(b));
    return !td_failed();
}

static bool linear_backward(const td_call *c, td_tensor *const *gout, td_tensor **gin, uint64_t need)
{
    if (td_dtype_is_float(td_dtype_of(gout[0]))) return backward(c->in, gout[0], NULL, NULL, TD_ACT_NONE, need, gin);
    return td_fail("linear: only floats have a gradient");
}

static bool linear_act_backward(const td_call *c, td_tensor *const *gout, td_tensor **gin, uint64_t need)
{
    int32_t act = ((const td_linear_act_attr *)c->attr)->activation;
    td_tensor *y = act == TD_ACT_NONE || is_gelu(act) ? NULL : c->out[0];
    return backward(c->in, gout[0], y, is_gelu(act) ? c->out[1] : NULL, act, need, gin);
}

/* ---- samples ---- */

static bool linear_sample(uint32_t i, td_sample *s)
{
    static const td_ints x[] = {{2, {2, 3}}, {1, {3}}, {3, {2, 2, 3}}};
    if (i > 2) return false;
    s->in[0] = tdi_sample_signed(x[i], 3 * i);
    s->in[1] = tdi_sample_signed(td_dims(4, 3), 3 * i + 1);
    s->in[2] = i == 1 ? NULL : tdi_sample_signed(td_dims(4), 3 * i + 2);
    return true;
}

/* Every activation; the last two with sizes that a kernel would not take in one piece. */
static bool linear_act_sample(uint32_t i, td_sample *s)
{
    if (i > 7) return false;
    ((td_linear_act_attr *)s->opts)->activation = i < 6 ? (int32_t)i : i == 6 ? TD_ACT_TANH : TD_ACT_RELU;
    if (i < 6) return linear_sample(i % 3, s);
    s->in[0] = tdi_distinct(i == 6 ? td_dims(7, 19) : td_dims(3, 5, 17));
    s->in[1] = td_mul(tdi_distinct(i == 6 ? td_dims(11, 19) : td_dims(15, 17)), td_number(0.2));
    s->in[2] = i == 6 ? tdi_distinct(td_dims(11)) : NULL;
    return true;
}

static bool linear_act_backward_sample(uint32_t i, td_sample *s)
{
    td_linear_act_backward_attr *a = s->opts;
    td_linear_act_attr forward;
    td_tensor *in[8];
    td_sample f = {.opts = &forward, .in = in, .n_in = 3};
    if (i > 7 || !linear_act_sample(i, &f)) return false;
    td_tensor *y, *z;
    if (!td_linear_act_full(in[0], in[1], in[2], forward.activation, &y, &z)) return true;
    *a = (td_linear_act_backward_attr){.activation = forward.activation, .need = i == 3 ? 5 : i == 7 ? 6 : 7};
    s->in[0] = tdi_sample_signed(td_shape(y), 2 * i);
    for (int k = 0; k < 3; k++) s->in[1 + k] = in[k];
    if (is_gelu(a->activation)) s->in[5] = z;
    else if (a->activation == TD_ACT_RELU) s->in[4] = tdi_sample_signed(td_shape(y), 2 * i + 1); /* none is 0 */
    else if (a->activation != TD_ACT_NONE) s->in[4] = y;
    return true;
}

/* ---- rows ---- */

const td_op tdi_op_linear = {TD_ROW_linear,          .flags = TD_OP_BWD_DIFF,     .save_in = 3,
                             .infer = linear_infer,  .backward = linear_backward, .decompose = linear_decompose,
                             .sample = linear_sample};
const td_op tdi_op_linear_act = {TD_ROW_linear_act,
                                 .flags = TD_OP_BWD_DIFF | TD_OP_ROW_MAJOR | TD_OP_GOUT_NULL,
                                 .save_in = 7,
                                 .save_out = 3,
                                 .infer = linear_act_infer,
                                 .backward = linear_act_backward,
                                 .decompose = linear_act_decompose,
                                 .sample = linear_act_sample};
const td_op tdi_op_linear_act_backward = {
    TD_ROW_linear_act_backward, .flags = TD_OP_ROW_MAJOR, .infer = linear_act_backward_infer,
    .decompose = linear_act_backward_decompose, .sample = linear_act_backward_sample};

/* loss.c - per-element losses for classification: softmax_cross_entropy (and its gradient) nll_loss bce_with_logits.
 * Axes: N rows, C classes on axis 2 of x, then any others. p = softmax(x); q is 1 - s at the target plus s / C
 * everywhere, s the label smoothing (Szegedy et al. 2016, section 7); w is the weight of a class. */
#include "common.h"

enum { X = 1, TARGET = 2, WEIGHT = 4 }; /* names of the inputs as bits for save_in; places as bits of need */

/* ---- class indices ---- */

/* x (N, C, ...), target (N, ...) and weight (C) agree. */
static bool classes_ok(const char *op, const char *name, const td_view *x, const td_view *target, const td_view *weight)
{
    if (x->nd < 2 || !x->dim[1])
        return td_fail_as(TD_ESHAPE, "%s: %s: expected axes (N, C, ...) with at least one class, got shape %s", op,
                          name, tdi_shape_text(x));
    if (target->dt != TD_I64)
        return td_fail_as(TD_EDTYPE, "%s: target: expected class indices of dtype i64, got %s", op,
                          td_dtype_name(target->dt));
    bool fits = target->nd == x->nd - 1 && target->dim[0] == x->dim[0];
    for (int32_t i = 1; fits && i < target->nd; i++) fits = target->dim[i] == x->dim[i + 1];
    if (!fits)
        return td_fail_as(TD_ESHAPE, "%s: target %s does not have the axes of %s %s without that of the classes", op,
                          tdi_shape_text(target), name, tdi_shape_text(x));
    return tdi_vector_ok(op, "weight", weight, x->dim[1]);
}

/* Targets with class 1 in the place of ignored ones, and where those are; NULL: nothing is ignored. */
typedef struct {
    td_tensor *index, *ignored;
} targets;

static targets read_targets(td_tensor *target, bool has_ignore, int64_t ignore)
{
    targets t = {target, NULL};
    if (!has_ignore) return t;
    t.ignored = td_eq(target, td_integer(ignore));
    t.index = td_where(t.ignored, td_integer(0), target);
    return t;
}

/* Zeros where targets are ignored; v has their shape. */
static td_tensor *counted(td_tensor *v, targets t) { return t.ignored ? td_where(t.ignored, td_number(0), v) : v; }

/* x at the targets, in their shape. */
static td_tensor *at_targets(td_tensor *x, targets t)
{
    return td_squeeze(td_gather(x, td_unsqueeze(t.index, 1), 1), td_dims(1));
}

/* Weights of the targets' classes. */
static td_tensor *weights_at(td_tensor *weight, targets t)
{
    return td_reshape(td_index_select(weight, tdi_flat(t.index), 0), td_shape(t.index));
}

/* Sums over all axes but that of the classes: (C). */
static td_tensor *per_class(td_tensor *v)
{
    td_ints axes = {1, {0}};
    for (int i = 2; i < td_ndim(v); i++) axes.v[axes.n++] = i;
    return td_sum(v, axes, false);
}

/* q, (N, C, ...), where like has that shape. */
static td_tensor *target_shares(td_tensor *like, targets t, double smoothing)
{
    double all = smoothing / (double)td_dim(like, 1);
    td_tensor *at = td_unsqueeze(t.index, 1);
    td_dtype dt = td_dtype_of(like);
    return td_scatter(td_full(td_shape(like), all, dt), at, td_full(td_shape(at), 1 - smoothing + all, dt), 1);
}

/* ---- softmax_cross_entropy ---- */

static bool softmax_cross_entropy_infer(td_infer *q)
{
    const td_view *x = q->in[0], *target = q->in[1];
    if (!tdi_float_ok("softmax_cross_entropy", q->compute)) return false;
    if (!classes_ok("softmax_cross_entropy", "x", x, target, q->in[2])) return false;
    q->out[0]->nd = target->nd;
    for (int32_t i = 0; i < target->nd; i++) q->out[0]->dim[i] = target->dim[i];
    return true;
}

static bool softmax_cross_entropy_decompose(const td_call *c, td_tensor **out)
{
    const td_softmax_cross_entropy_attr *a = c->attr;
    td_tensor *logp = td_log_softmax(c->in[0], 1), *weight = c->in[2];
    targets t = read_targets(c->in[1], a->has_ignore_index, a->ignore_index);
    double s = a->label_smoothing;
    td_tensor *loss = td_neg(at_targets(logp, t));
    if (weight) loss = td_mul(loss, weights_at(weight, t));
    if (s > 0) {
        td_tensor *all = weight ? td_mul(logp, tdi_along(weight, 1, td_ndim(logp))) : logp;
        double share = s / (double)td_dim(logp, 1);
        loss = td_sub(td_mul(loss, td_number(1 - s)), td_mul(td_sum(all, td_dims(1), false), td_number(share)));
    }
    out[0] = counted(loss, t);
    out[1] = logp;
    return out[0] != NULL;
}

/* The gradient for the weight:  dloss / dw_c = -q_c logp_c */
static bool softmax_cross_entropy_backward(const td_call *c, td_tensor *const *gout, td_tensor **gin, uint64_t need)
{
    const td_softmax_cross_entropy_attr *a = c->attr;
    td_tensor *g = gout[0], *logp = c->out[1];
    int64_t ignore = a->has_ignore_index ? a->ignore_index : TD_NONE;
    if (!g) return true;
    if (need & X) gin[0] = td_softmax_cross_entropy_backward(g, logp, c->in[1], c->in[2], ignore, a->label_smoothing);
    if (need & WEIGHT) {
        targets t = read_targets(c->in[1], a->has_ignore_index, a->ignore_index);
        td_tensor *q = target_shares(logp, t, a->label_smoothing);
        gin[2] = td_neg(per_class(td_mul(td_unsqueeze(counted(g, t), 1), td_mul(q, logp))));
    }
    return !td_failed();
}

/* Three rows of four classes; or two images of two pixels and three weighted classes, one pixel ignored. */
static void class_case(uint32_t i, td_sample *s, int x, int target, int weight)
{
    s->in[x] = i == 0 ? tdi_normal(td_dims(3, 4)) : tdi_normal(td_dims(2, 3, 2));
    s->in[target] = i == 0 ? tdi_indices(td_dims(3), (const int64_t[]){1, 3, 0})
                           : tdi_indices(td_dims(2, 2), (const int64_t[]){2, 0, -100, 1});
    if (i > 0) s->in[weight] = td_from_data(TD_F32, td_dims(3), (const float[]){0.5f, 1.0f, 1.75f});
}

static bool softmax_cross_entropy_sample(uint32_t i, td_sample *s)
{
    td_softmax_cross_entropy_attr *a = s->opts;
    class_case(i, s, 0, 1, 2);
    if (i == 0) return true;
    *a = (td_softmax_cross_entropy_attr){.ignore_index = -100, .has_ignore_index = true};
    if (i == 2) a->label_smoothing = 0.1;
    return i < 3;
}

/* ---- its gradient for x:  g (p S - q w),  S = sum_c q_c w_c ---- */

static bool ce_backward_infer(td_infer *q)
{
    const char *op = "softmax_cross_entropy_backward";
    const td_view *g = q->in[0], *logp = q->in[1], *target = q->in[2];
    td_view *gx = q->out[0];
    if (!tdi_float_ok(op, q->compute) || !classes_ok(op, "logp", logp, target, q->in[3])) return false;
    if (!tdi_shapes_equal(op, "g", g, "target", target)) return false;
    gx->nd = logp->nd;
    for (int32_t i = 0; i < logp->nd; i++) gx->dim[i] = logp->dim[i];
    return true;
}

/* What the formula and its gradients are made of; those of shape (N, C, ...) unless said. */
typedef struct {
    targets t;
    td_tensor *g, *p, *q, *qw, *sum; /* g, sum = S: (N, 1, ...); g is 0 where targets are ignored */
} ce_parts;

static ce_parts read_parts(const td_call *c)
{
    const td_softmax_cross_entropy_backward_attr *a = c->attr;
    td_tensor *logp = c->in[1], *weight = c->in[3];
    ce_parts m;
    m.t = read_targets(c->in[2], a->has_ignore_index, a->ignore_index);
    m.g = td_unsqueeze(counted(c->in[0], m.t), 1);
    m.p = td_exp(logp);
    m.q = target_shares(logp, m.t, a->label_smoothing);
    m.qw = weight ? td_mul(m.q, tdi_along(weight, 1, td_ndim(logp))) : m.q;
    m.sum = td_sum(m.qw, td_dims(1), true);
    return m;
}

static bool ce_backward_decompose(const td_call *c, td_tensor **out)
{
    ce_parts m = read_parts(c);
    out[0] = td_mul(m.g, td_sub(td_mul(m.p, m.sum), m.qw));
    return out[0] != NULL;
}

/* v: the gradient of gx.   g: sum_c v (p S - q w)   logp: v g S p   w_c: sum g q_c (sum_k v_k p_k - v_c) */
static bool ce_backward_backward(const td_call *c, td_tensor *const *gout, td_tensor **gin, uint64_t need)
{
    td_tensor *v = gout[0];
    ce_parts m = read_parts(c);
    if (need & 1) gin[0] = counted(td_sum(td_mul(v, td_sub(td_mul(m.p, m.sum), m.qw)), td_dims(1), false), m.t);
    if (need & 2) gin[1] = td_mul(td_mul(v, m.p), td_mul(m.g, m.sum));
    if (need & 8) {
        td_tensor *mean = td_sum(td_mul(v, m.p), td_dims(1), true);
        gin[3] = per_class(td_mul(td_mul(m.g, m.q), td_sub(mean, v)));
    }
    return !td_failed();
}

static bool ce_backward_sample(uint32_t i, td_sample *s)
{
    td_softmax_cross_entropy_backward_attr *a = s->opts;
    class_case(i, s, 1, 2, 3);
    s->in[0] = tdi_normal(td_shape(s->in[2]));
    s->in[1] = td_log_softmax(s->in[1], 1);
    if (i == 1)
        *a = (td_softmax_cross_entropy_backward_attr){
            .ignore_index = -100, .has_ignore_index = true, .label_smoothing = 0.1};
    return i < 2;
}

/* ---- nll_loss ---- */

static bool nll_loss_infer(td_infer *q)
{
    const td_view *logp = q->in[0], *target = q->in[1];
    if (!tdi_float_ok("nll_loss", q->compute) || !classes_ok("nll_loss", "logp", logp, target, q->in[2])) return false;
    q->out[0]->nd = target->nd;
    for (int32_t i = 0; i < target->nd; i++) q->out[0]->dim[i] = target->dim[i];
    return true;
}

static bool nll_loss_decompose(const td_call *c, td_tensor **out)
{
    const td_nll_loss_attr *a = c->attr;
    targets t = read_targets(c->in[1], a->has_ignore_index, a->ignore_index);
    td_tensor *loss = td_neg(at_targets(c->in[0], t));
    if (c->in[2]) loss = td_mul(loss, weights_at(c->in[2], t));
    out[0] = counted(loss, t);
    return out[0] != NULL;
}

static bool nll_loss_backward(const td_call *c, td_tensor *const *gout, td_tensor **gin, uint64_t need)
{
    const td_nll_loss_attr *a = c->attr;
    targets t = read_targets(c->in[1], a->has_ignore_index, a->ignore_index);
    td_tensor *g = td_neg(counted(gout[0], t)), *weight = c->in[2];
    if (need & X) {
        td_tensor *gw = weight ? td_mul(g, weights_at(weight, t)) : g;
        gin[0] = td_scatter_add(tdi_zeros_for(c->in[0], gw), td_unsqueeze(t.index, 1), td_unsqueeze(gw, 1), 1);
    }
    if (need & WEIGHT) {
        td_tensor *part = td_mul(g, counted(at_targets(c->in[0], t), t));
        gin[2] = td_index_add(tdi_zeros_for(weight, part), tdi_flat(t.index), tdi_flat(part), 0);
    }
    return !td_failed();
}

static bool nll_loss_sample(uint32_t i, td_sample *s)
{
    td_nll_loss_attr *a = s->opts;
    class_case(i, s, 0, 1, 2);
    if (i == 1) *a = (td_nll_loss_attr){.ignore_index = -100, .has_ignore_index = true};
    return i < 2;
}

/* ---- bce_with_logits, with softplus(-x) = -log sigmoid(x) and u = 1 + (pos_weight - 1) t:
 *      loss = (1 - t) x + u softplus(-x) ---- */

static bool bce_with_logits_infer(td_infer *q)
{
    return tdi_float_ok("bce_with_logits", q->in[0]->dt) &&
           tdi_shapes_equal("bce_with_logits", "x", q->in[0], "target", q->in[1]);
}

/* u v, where u is 1 unless the positive part has a weight of its own */
static td_tensor *weighted(td_tensor *v, td_tensor *t, double pos_weight)
{
    if (pos_weight == 1) return v;
    return td_mul(v, td_add(td_mul(t, td_number(pos_weight - 1)), td_number(1)));
}

static bool bce_with_logits_decompose(const td_call *c, td_tensor **out)
{
    const td_bce_with_logits_attr *a = c->attr;
    td_tensor *x = c->in[0], *t = c->in[1];
    td_tensor *positive = weighted(td_softplus(td_neg(x)), t, a->pos_weight);
    out[0] = td_add(td_sub(x, td_mul(t, x)), positive);
    return out[0] != NULL;
}

/* x: g (1 - t - u sigmoid(-x))   t: g ((pos_weight - 1) softplus(-x) - x) */
static bool bce_with_logits_backward(const td_call *c, td_tensor *const *gout, td_tensor **gin, uint64_t need)
{
    const td_bce_with_logits_attr *a = c->attr;
    td_tensor *x = c->in[0], *t = c->in[1], *g = gout[0];
    if (need & 1) gin[0] = td_bce_with_logits_backward(g, x, t, a->pos_weight);
    if (need & 2) gin[1] = td_mul(g, td_sub(td_mul(td_softplus(td_neg(x)), td_number(a->pos_weight - 1)), x));
    return !td_failed();
}

static bool bce_with_logits_backward_infer(td_infer *q)
{
    const char *op = "bce_with_logits_backward";
    return tdi_float_ok(op, q->in[0]->dt) && tdi_shapes_equal(op, "g", q->in[0], "x", q->in[1]) &&
           tdi_shapes_equal(op, "x", q->in[1], "target", q->in[2]);
}

static bool bce_with_logits_backward_decompose(const td_call *c, td_tensor **out)
{
    double pos_weight = ((const td_bce_with_logits_backward_attr *)c->attr)->pos_weight;
    td_tensor *g = c->in[0], *x = c->in[1], *t = c->in[2], *d;
    if (pos_weight == 1) d = td_sub(td_sigmoid(x), t);
    else d = td_sub(td_sub(td_number(1), t), weighted(td_sigmoid(td_neg(x)), t, pos_weight));
    out[0] = td_mul(g, d);
    return out[0] != NULL;
}

static bool bce_with_logits_sample(uint32_t i, td_sample *s)
{
    td_bce_with_logits_attr *a = s->opts;
    s->in[0] = tdi_normal(td_dims(2, 3));
    s->in[1] = td_from_data(TD_F32, td_dims(2, 3), (const float[]){0, 1, 0.25f, 1, 0.9f, 0});
    if (i == 1) a->pos_weight = 2.5;
    return i < 2;
}

static bool bce_with_logits_backward_sample(uint32_t i, td_sample *s)
{
    td_bce_with_logits_backward_attr *a = s->opts;
    s->in[0] = tdi_normal(td_dims(2, 3));
    s->in[1] = tdi_normal(td_dims(2, 3));
    s->in[2] = td_from_data(TD_F32, td_dims(2, 3), (const float[]){0, 1, 0.25f, 1, 0.9f, 0});
    if (i == 1) a->pos_weight = 2.5;
    return i < 2;
}

/* save_out 2: logp. What a decompose that is differentiated needs is saved as well: softmax_cross_entropy's x. */
const td_op tdi_op_softmax_cross_entropy = {TD_ROW_softmax_cross_entropy,
                                            .save_in = X | TARGET | WEIGHT,
                                            .save_out = 2,
                                            .flags = TD_OP_GOUT_NULL,
                                            .infer = softmax_cross_entropy_infer,
                                            .backward = softmax_cross_entropy_backward,
                                            .decompose = softmax_cross_entropy_decompose,
                                            .sample = softmax_cross_entropy_sample};
const td_op tdi_op_softmax_cross_entropy_backward = {TD_ROW_softmax_cross_entropy_backward,
                                                     .save_in = 15,
                                                     .flags = TD_OP_BWD_DIFF,
                                                     .infer = ce_backward_infer,
                                                     .backward = ce_backward_backward,
                                                     .decompose = ce_backward_decompose,
                                                     .sample = ce_backward_sample};
const td_op tdi_op_nll_loss = {
    TD_ROW_nll_loss,          .save_in = X | TARGET | WEIGHT, .flags = TD_OP_BWD_DIFF,
    .infer = nll_loss_infer,  .backward = nll_loss_backward,  .decompose = nll_loss_decompose,
    .sample = nll_loss_sample};
const td_op tdi_op_bce_with_logits = {TD_ROW_bce_with_logits,
                                      .save_in = 3,
                                      .flags = TD_OP_BWD_DIFF,
                                      .infer = bce_with_logits_infer,
                                      .backward = bce_with_logits_backward,
                                      .decompose = bce_with_logits_decompose,
                                      .sample = bce_with_logits_sample};
const td_op tdi_op_bce_with_logits_backward = {TD_ROW_bce_with_logits_backward, .infer = bce_with_logits_backward_infer,
                                               .decompose = bce_with_logits_backward_decompose,
                                               .sample = bce_with_logits_backward_sample};

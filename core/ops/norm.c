/* norm.c - normalisation: batch_norm layer_norm, their gradients, and batch_norm_infer.
 * y = w xhat + b, xhat = (x - mean) rstd, rstd = 1 / sqrt(var + eps). mean and var go over the axes of the statistics
 * (batch: all but the channels; layer: the last `dims`), w and b repeat along the shared axes (batch: the same; layer:
 * the others). M(t) is the mean of t over the axes of the statistics, and h = g w:
 *     gx = rstd (h - M(h) - xhat M(h xhat))     gw = sum g xhat     gb = sum g */
#include "common.h"

typedef struct {
    td_ints stat, shared;        /* axes                                                  */
    td_ints stat_keep, w_keep;   /* shapes of mean and of w that broadcast with x         */
    td_ints stat_shape, w_shape; /* their own shapes                                      */
} layout;

static layout batch_layout(const td_view *x)
{
    layout m = {.stat_keep.n = x->nd, .stat_shape = td_dims(x->dim[1])};
    for (int32_t i = 0; i < x->nd; i++) {
        m.stat_keep.v[i] = i == 1 ? x->dim[1] : 1;
        if (i != 1) m.stat.v[m.stat.n++] = i;
    }
    m.shared = m.stat;
    m.w_keep = m.stat_keep;
    m.w_shape = m.stat_shape;
    return m;
}

static layout layer_layout(const td_view *x, int64_t dims)
{
    layout m = {.stat_keep.n = x->nd, .w_keep.n = x->nd};
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

static td_tensor *mean_of(td_tensor *t, const layout *m) { return td_mean(t, m->stat, true); }

/* Sums over axes, kept with extent 1; no axes: t itself (for td_sum that means all). */
static td_tensor *sum_over(td_tensor *t, td_ints axes) { return axes.n ? td_sum(t, axes, true) : t; }

static td_tensor *weighted(td_tensor *t, td_tensor *w, const layout *m)
{
    return w ? td_mul(t, td_reshape(w, m->w_keep)) : t;
}

/* ---- the three computations that both kinds share ---- */

/* out: y, mean, rstd */
static bool forward(td_tensor *x, td_tensor *w, td_tensor *b, double eps, const layout *m, td_tensor **out)
{
    td_tensor *mean = mean_of(x, m), *d = td_sub(x, mean);
    td_tensor *rstd = td_rsqrt(td_add(mean_of(td_square(d), m), td_number(eps)));
    td_tensor *y = weighted(td_mul(d, rstd), w, m);
    out[0] = b ? td_add(y, td_reshape(b, m->w_keep)) : y;
    out[1] = td_reshape(mean, m->stat_shape);
    out[2] = td_reshape(rstd, m->stat_shape);
    return out[2] != NULL;
}

/* in: g, x, w, mean, rstd   more: what is added to gx, may be NULL   out: gx, gw, gb */
static bool gradient(td_tensor *const *in, td_tensor *more, const layout *m, td_tensor **out)
{
    td_tensor *g = in[0], *rstd = td_reshape(in[4], m->stat_keep);
    td_tensor *xhat = td_mul(td_sub(in[1], td_reshape(in[3], m->stat_keep)), rstd);
    td_tensor *h = weighted(g, in[2], m);
    td_tensor *along = td_mul(xhat, mean_of(td_mul(h, xhat), m));
    out[0] = td_mul(rstd, td_sub(td_sub(h, mean_of(h, m)), along));
    if (more) out[0] = td_add(out[0], more);
    out[1] = td_reshape(sum_over(td_mul(g, xhat), m->shared), m->w_shape);
    out[2] = td_reshape(sum_over(g, m->shared), m->w_shape);
    return out[2] != NULL;
}

/* The gradients of `gradient`, whose inputs count as independent. With v, vw, vb those of gx, gw, gb, and u = v rstd:
 *     h: k = u - M(u) - xhat M(u xhat)                           g: k w + vw xhat + vb         w: sum k g
 *     xhat: q = -u M(h xhat) - h M(u xhat) + vw g                x: q rstd                     mean: -sum q rstd
 *     rstd: sum v (h - M(h) - xhat M(h xhat)) + sum q (x - mean) */
static bool gradient_backward(const td_call *c, td_tensor *const *v_all, td_tensor **gin, uint64_t need,
                              const layout *m)
{
    td_tensor *g = c->in[0], *w = c->in[2], *rstd = td_reshape(c->in[4], m->stat_keep);
    td_tensor *d = td_sub(c->in[1], td_reshape(c->in[3], m->stat_keep)), *xhat = td_mul(d, rstd);
    td_tensor *v = v_all[0] ? v_all[0] : tdi_zeros_for(g, g);
    if (need & 32) gin[5] = v;
    td_tensor *vw = v_all[1] ? td_reshape(v_all[1], m->w_keep) : NULL;
    td_tensor *vb = v_all[2] ? td_reshape(v_all[2], m->w_keep) : NULL;
    td_tensor *h = weighted(g, w, m), *u = td_mul(v, rstd);
    td_tensor *mhx = mean_of(td_mul(h, xhat), m), *mux = mean_of(td_mul(u, xhat), m);
    td_tensor *k = td_sub(td_sub(u, mean_of(u, m)), td_mul(xhat, mux));
    if (need & 1) {
        td_tensor *t = weighted(k, w, m);
        if (vw) t = td_add(t, td_mul(vw, xhat));
        gin[0] = vb ? td_add(t, vb) : t;
    }
    if (need & 4) gin[2] = td_reshape(sum_over(td_mul(k, g), m->shared), m->w_shape);
    if (!(need & (2 | 8 | 16))) return !td_failed();
    td_tensor *q = td_neg(td_add(td_mul(u, mhx), td_mul(h, mux)));
    if (vw) q = td_add(q, td_mul(vw, g));
    td_tensor *gx = td_mul(q, rstd);
    if (need & 2) gin[1] = gx;
    if (need & 8) gin[3] = td_reshape(td_neg(sum_over(gx, m->stat)), m->stat_shape);
    if (need & 16) {
        td_tensor *direct = td_mul(v, td_sub(td_sub(h, mean_of(h, m)), td_mul(xhat, mhx)));
        gin[4] = td_reshape(sum_over(td_add(direct, td_mul(q, d)), m->stat), m->stat_shape);
    }
    return !td_failed();
}

/* ---- shape rules ---- */

/* A tensor of the shape d, or absent. */
static bool shape_ok(const char *op, const char *name, const td_view *v, td_ints d)
{
    td_view want = {.nd = 0};
    if (!v) return true;
    tdi_set_dims(&want, d);
    return tdi_same_shape(v, &want) || td_fail_as(TD_ESHAPE, "%s: %s: expected shape %s, got %s", op, name,
                                                  tdi_shape_text(&want), tdi_shape_text(v));
}

/* x is a float tensor with channels on axis 2. */
static bool channels_ok(const char *op, td_infer *q, const td_view *x)
{
    if (!tdi_float_ok(op, q->compute)) return false;
    return x->nd >= 2 ||
           td_fail_as(TD_ESHAPE, "%s: x: expected at least 2 axes (N, C, ...), got shape %s", op, tdi_shape_text(x));
}

static bool layer_ok(const char *op, td_infer *q, const td_view *x, int64_t dims)
{
    if (!tdi_float_ok(op, q->compute)) return false;
    return (dims >= 1 && dims <= x->nd) ||
           td_fail_as(TD_ESHAPE, "%s: dims: expected 1 to the %d axes of x %s, got %lld", op, (int)x->nd,
                      tdi_shape_text(x), (long long)dims);
}

/* Statistics of no elements would be NaN. */
static bool some_values(const char *op, const td_view *x, const layout *m)
{
    for (int64_t i = 0; i < m->stat.n; i++)
        if (!x->dim[m->stat.v[i]])
            return td_fail_as(TD_ESHAPE, "%s: x %s has no values to take a mean of", op, tdi_shape_text(x));
    return true;
}

static bool forward_infer(const char *op, td_infer *q, const layout *m)
{
    if (!some_values(op, q->in[0], m)) return false;
    if (!shape_ok(op, "w", q->in[1], m->w_shape) || !shape_ok(op, "b", q->in[2], m->w_shape)) return false;
    tdi_set_dims(q->out[1], m->stat_shape);
    tdi_set_dims(q->out[2], m->stat_shape);
    return true;
}

static bool gradient_infer(const char *op, td_infer *q, const layout *m)
{
    if (!tdi_shapes_equal(op, "g", q->in[0], "x", q->in[1]) || !some_values(op, q->in[1], m)) return false;
    if (!shape_ok(op, "w", q->in[2], m->w_shape) || !shape_ok(op, "mean", q->in[3], m->stat_shape) ||
        !shape_ok(op, "rstd", q->in[4], m->stat_shape))
        return false;
    tdi_set_dims(q->out[1], m->w_shape);
    tdi_set_dims(q->out[2], m->w_shape);
    return true;
}

/* ---- batch_norm ---- */

static bool batch_norm_infer_shape(td_infer *q)
{
    if (!channels_ok("batch_norm", q, q->in[0])) return false;
    layout m = batch_layout(q->in[0]);
    return forward_infer("batch_norm", q, &m);
}

static bool batch_norm_decompose(const td_call *c, td_tensor **out)
{
    const td_batch_norm_attr *a = c->attr;
    layout m = batch_layout(td_view_of(c->in[0]));
    return forward(c->in[0], c->in[1], c->in[2], a->eps, &m, out);
}

static bool batch_norm_backward(const td_call *c, td_tensor *const *gout, td_tensor **gin, uint64_t need)
{
    td_tensor *gw, *gb;
    if (!gout[0]) return true;
    if (!td_batch_norm_backward_full(gout[0], c->in[0], c->in[1], c->out[1], c->out[2], &gin[0], &gw, &gb))
        return false;
    if (need & 2) gin[1] = gw;
    if (need & 4) gin[2] = gb;
    return true;
}

static bool batch_norm_sample(uint32_t i, td_sample *s)
{
    td_batch_norm_attr *a = s->opts;
    s->in[0] = i == 0 ? tdi_normal(td_dims(3, 2, 2, 2)) : tdi_normal(td_dims(5, 3));
    if (i == 0) {
        s->in[1] = tdi_normal(td_dims(2));
        s->in[2] = tdi_normal(td_dims(2));
    } else {
        a->eps = 0.1;
    }
    return i < 2;
}

static bool batch_norm_backward_infer(td_infer *q)
{
    if (!channels_ok("batch_norm_backward", q, q->in[1])) return false;
    layout m = batch_layout(q->in[1]);
    return gradient_infer("batch_norm_backward", q, &m);
}

static bool batch_norm_backward_decompose(const td_call *c, td_tensor **out)
{
    layout m = batch_layout(td_view_of(c->in[1]));
    return gradient(c->in, NULL, &m, out);
}

static bool batch_norm_backward_backward(const td_call *c, td_tensor *const *gout, td_tensor **gin, uint64_t need)
{
    layout m = batch_layout(td_view_of(c->in[1]));
    return gradient_backward(c, gout, gin, need, &m);
}

/* g and x of shape d, w (absent in case 1), mean and rstd. */
static void gradient_case(uint32_t i, td_sample *s, td_ints d, td_ints w, td_ints stat)
{
    s->in[0] = tdi_normal(d);
    s->in[1] = tdi_normal(d);
    if (i == 0) s->in[2] = tdi_normal(w);
    s->in[3] = tdi_normal(stat);
    s->in[4] = td_add(td_rand(stat, TD_F32), td_number(0.5));
}

static bool batch_norm_backward_sample(uint32_t i, td_sample *s)
{
    if (i == 0) gradient_case(i, s, td_dims(2, 2, 2, 3), td_dims(2), td_dims(2));
    else gradient_case(i, s, td_dims(4, 3), td_dims(3), td_dims(3));
    return i < 2;
}

/* ---- batch_norm_infer:  y = w (x - mean) / sqrt(var + eps) + b ---- */

static bool batch_norm_infer_infer(td_infer *q)
{
    const char *op = "batch_norm_infer";
    static const char *const name[] = {"x", "mean", "var", "w", "b"};
    if (!channels_ok(op, q, q->in[0])) return false;
    for (int i = 1; i < 5; i++)
        if (!tdi_vector_ok(op, name[i], q->in[i], q->in[0]->dim[1])) return false;
    return true;
}

static bool batch_norm_infer_decompose(const td_call *c, td_tensor **out)
{
    const td_batch_norm_infer_attr *a = c->attr;
    layout m = batch_layout(td_view_of(c->in[0]));
    td_tensor *scale = td_rsqrt(td_add(c->in[2], td_number(a->eps)));
    if (c->in[3]) scale = td_mul(scale, c->in[3]);
    td_tensor *y = td_mul(td_sub(c->in[0], td_reshape(c->in[1], m.stat_keep)), td_reshape(scale, m.stat_keep));
    out[0] = c->in[4] ? td_add(y, td_reshape(c->in[4], m.stat_keep)) : y;
    return out[0] != NULL;
}

/* r = 1 / sqrt(var + eps)   x: g w r   mean: -w r sum g   var: -1/2 w r^3 sum g (x - mean)   w: r sum g (x - mean) */
static bool batch_norm_infer_backward(const td_call *c, td_tensor *const *gout, td_tensor **gin, uint64_t need)
{
    const td_batch_norm_infer_attr *a = c->attr;
    td_tensor *g = gout[0], *w = c->in[3];
    layout m = batch_layout(td_view_of(c->in[0]));
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
    s->in[0] = i == 0 ? tdi_normal(td_dims(2, 3, 2, 2)) : tdi_normal(td_dims(4, 3));
    s->in[1] = tdi_normal(td_dims(3));
    s->in[2] = td_add(td_rand(td_dims(3), TD_F32), td_number(0.5));
    if (i == 0) {
        s->in[3] = tdi_normal(td_dims(3));
        s->in[4] = tdi_normal(td_dims(3));
    } else {
        a->eps = 0.1;
    }
    return i < 2;
}

/* ---- layer_norm ---- */

static bool layer_norm_infer(td_infer *q)
{
    const td_layer_norm_attr *a = q->attr;
    if (!layer_ok("layer_norm", q, q->in[0], a->dims)) return false;
    layout m = layer_layout(q->in[0], a->dims);
    return forward_infer("layer_norm", q, &m);
}

static bool layer_norm_decompose(const td_call *c, td_tensor **out)
{
    const td_layer_norm_attr *a = c->attr;
    layout m = layer_layout(td_view_of(c->in[0]), a->dims);
    return forward(c->in[0], c->in[1], c->in[2], a->eps, &m, out);
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
    layout m = layer_layout(q->in[1], a->dims);
    return gradient_infer("layer_norm_backward", q, &m);
}

static bool layer_norm_backward_decompose(const td_call *c, td_tensor **out)
{
    const td_layer_norm_backward_attr *a = c->attr;
    layout m = layer_layout(td_view_of(c->in[1]), a->dims);
    return gradient(c->in, c->in[5], &m, out);
}

static bool layer_norm_backward_backward(const td_call *c, td_tensor *const *gout, td_tensor **gin, uint64_t need)
{
    const td_layer_norm_backward_attr *a = c->attr;
    layout m = layer_layout(td_view_of(c->in[1]), a->dims);
    return gradient_backward(c, gout, gin, need, &m);
}

static bool layer_norm_backward_sample(uint32_t i, td_sample *s)
{
    td_layer_norm_backward_attr *a = s->opts;
    a->dims = i == 1 ? 2 : 1;
    if (i != 1) gradient_case(i, s, td_dims(2, 3, 4), td_dims(4), td_dims(2, 3));
    else gradient_case(i, s, td_dims(2, 3, 2), td_dims(3, 2), td_dims(2));
    if (i == 2) s->in[5] = tdi_normal(td_dims(2, 3, 4));
    return i < 3;
}

/* batch_norm and layer_norm save b as well, for a decompose that is differentiated; save_out 6: mean and rstd */
const td_op tdi_op_batch_norm = {TD_ROW_batch_norm,
                                 .save_in = 7,
                                 .save_out = 6,
                                 .flags = TD_OP_GOUT_NULL,
                                 .infer = batch_norm_infer_shape,
                                 .backward = batch_norm_backward,
                                 .decompose = batch_norm_decompose,
                                 .sample = batch_norm_sample};
const td_op tdi_op_batch_norm_backward = {TD_ROW_batch_norm_backward,
                                          .save_in = 31,
                                          .flags = TD_OP_BWD_DIFF | TD_OP_GOUT_NULL,
                                          .infer = batch_norm_backward_infer,
                                          .backward = batch_norm_backward_backward,
                                          .decompose = batch_norm_backward_decompose,
                                          .sample = batch_norm_backward_sample};
const td_op tdi_op_batch_norm_infer = {TD_ROW_batch_norm_infer,
                                       .save_in = 15,
                                       .flags = TD_OP_BWD_DIFF,
                                       .infer = batch_norm_infer_infer,
                                       .backward = batch_norm_infer_backward,
                                       .decompose = batch_norm_infer_decompose,
                                       .sample = batch_norm_infer_sample};
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

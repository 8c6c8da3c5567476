/* norm.h - what batch_norm and layer_norm share.
 * y = w xhat + b, xhat = (x - mean) rstd, rstd = 1 / sqrt(var + eps). mean and var go over the axes of the statistics
 * (batch: all but the channels; layer: the last `dims`), w and b repeat along the shared axes (batch: the same; layer:
 * the others). M(t) is the mean of t over the axes of the statistics, and h = g w:
 *     gx = rstd (h - M(h) - xhat M(h xhat))     gw = sum g xhat     gb = sum g */
#ifndef TIDE_OPS_NORM_H
#define TIDE_OPS_NORM_H
#include "common.h"

typedef struct {
    td_ints stat, shared;        /* axes                                                  */
    td_ints stat_keep, w_keep;   /* shapes of mean and of w that broadcast with x         */
    td_ints stat_shape, w_shape; /* their own shapes                                      */
} norm_layout;

static inline td_tensor *norm_mean_of(td_tensor *t, const norm_layout *m) { return td_mean(t, m->stat, true); }

/* Sums over axes, kept with extent 1; no axes: t itself (for td_sum that means all). */
static inline td_tensor *norm_sum_over(td_tensor *t, td_ints axes) { return axes.n ? td_sum(t, axes, true) : t; }

static inline td_tensor *norm_weighted(td_tensor *t, td_tensor *w, const norm_layout *m)
{
    return w ? td_mul(t, td_reshape(w, m->w_keep)) : t;
}

/* ---- the three computations ---- */

/* out: y, mean, rstd */
static inline bool norm_forward(td_tensor *x, td_tensor *w, td_tensor *b, double eps, const norm_layout *m,
                                td_tensor **out)
{
    td_tensor *mean = norm_mean_of(x, m), *d = td_sub(x, mean);
    td_tensor *rstd = td_rsqrt(td_add(norm_mean_of(td_square(d), m), td_number(eps)));
    td_tensor *y = norm_weighted(td_mul(d, rstd), w, m);
    out[0] = b ? td_add(y, td_reshape(b, m->w_keep)) : y;
    out[1] = td_reshape(mean, m->stat_shape);
    out[2] = td_reshape(rstd, m->stat_shape);
    return out[2] != NULL;
}

/* in: g, x, w, mean, rstd   more: what is added to gx, may be NULL   out: gx, gw, gb */
static inline bool norm_gradient(td_tensor *const *in, td_tensor *more, const norm_layout *m, td_tensor **out)
{
    td_tensor *g = in[0], *rstd = td_reshape(in[4], m->stat_keep);
    td_tensor *xhat = td_mul(td_sub(in[1], td_reshape(in[3], m->stat_keep)), rstd);
    td_tensor *h = norm_weighted(g, in[2], m);
    td_tensor *along = td_mul(xhat, norm_mean_of(td_mul(h, xhat), m));
    out[0] = td_mul(rstd, td_sub(td_sub(h, norm_mean_of(h, m)), along));
    if (more) out[0] = td_add(out[0], more);
    out[1] = td_reshape(norm_sum_over(td_mul(g, xhat), m->shared), m->w_shape);
    out[2] = td_reshape(norm_sum_over(g, m->shared), m->w_shape);
    return out[2] != NULL;
}

/* The gradients of `norm_gradient`, whose inputs count as independent. With v, vw, vb those of gx, gw, gb, and u = v rstd:
 *     h: k = u - M(u) - xhat M(u xhat)                           g: k w + vw xhat + vb         w: sum k g
 *     xhat: q = -u M(h xhat) - h M(u xhat) + vw g                x: q rstd                     mean: -sum q rstd
 *     rstd: sum v (h - M(h) - xhat M(h xhat)) + sum q (x - mean) */
static inline bool norm_gradient_backward(const td_call *c, td_tensor *const *v_all, td_tensor **gin, uint64_t need,
                                          const norm_layout *m)
{
    td_tensor *g = c->in[0], *w = c->in[2], *rstd = td_reshape(c->in[4], m->stat_keep);
    td_tensor *d = td_sub(c->in[1], td_reshape(c->in[3], m->stat_keep)), *xhat = td_mul(d, rstd);
    td_tensor *v = v_all[0] ? v_all[0] : tdi_zeros_for(g, g);
    if (need & 32) gin[5] = v;
    td_tensor *vw = v_all[1] ? td_reshape(v_all[1], m->w_keep) : NULL;
    td_tensor *vb = v_all[2] ? td_reshape(v_all[2], m->w_keep) : NULL;
    td_tensor *h = norm_weighted(g, w, m), *u = td_mul(v, rstd);
    td_tensor *mhx = norm_mean_of(td_mul(h, xhat), m), *mux = norm_mean_of(td_mul(u, xhat), m);
    td_tensor *k = td_sub(td_sub(u, norm_mean_of(u, m)), td_mul(xhat, mux));
    if (need & 1) {
        td_tensor *t = norm_weighted(k, w, m);
        if (vw) t = td_add(t, td_mul(vw, xhat));
        gin[0] = vb ? td_add(t, vb) : t;
    }
    if (need & 4) gin[2] = td_reshape(norm_sum_over(td_mul(k, g), m->shared), m->w_shape);
    if (!(need & (2 | 8 | 16))) return !td_failed();
    td_tensor *q = td_neg(td_add(td_mul(u, mhx), td_mul(h, mux)));
    if (vw) q = td_add(q, td_mul(vw, g));
    td_tensor *gx = td_mul(q, rstd);
    if (need & 2) gin[1] = gx;
    if (need & 8) gin[3] = td_reshape(td_neg(norm_sum_over(gx, m->stat)), m->stat_shape);
    if (need & 16) {
        td_tensor *direct = td_mul(v, td_sub(td_sub(h, norm_mean_of(h, m)), td_mul(xhat, mhx)));
        gin[4] = td_reshape(norm_sum_over(td_add(direct, td_mul(q, d)), m->stat), m->stat_shape);
    }
    return !td_failed();
}

/* ---- shape rules ---- */

/* A tensor of the shape d, or absent. */
static inline bool norm_shape_ok(const char *op, const char *name, const td_view *v, td_ints d)
{
    td_view want = {.nd = 0};
    if (!v) return true;
    tdi_set_dims(&want, d);
    return tdi_same_shape(v, &want) || td_fail_as(TD_ESHAPE, "%s: %s: expected shape %s, got %s", op, name,
                                                  tdi_shape_text(&want), tdi_shape_text(v));
}

/* Statistics of no elements would be NaN. */
static inline bool norm_some_values(const char *op, const td_view *x, const norm_layout *m)
{
    for (int64_t i = 0; i < m->stat.n; i++)
        if (!x->dim[m->stat.v[i]])
            return td_fail_as(TD_ESHAPE, "%s: x %s has no values to take a mean of", op, tdi_shape_text(x));
    return true;
}

static inline bool norm_forward_infer(const char *op, td_infer *q, const norm_layout *m)
{
    if (!norm_some_values(op, q->in[0], m)) return false;
    if (!norm_shape_ok(op, "w", q->in[1], m->w_shape) || !norm_shape_ok(op, "b", q->in[2], m->w_shape)) return false;
    tdi_set_dims(q->out[1], m->stat_shape);
    tdi_set_dims(q->out[2], m->stat_shape);
    return true;
}

static inline bool norm_gradient_infer(const char *op, td_infer *q, const norm_layout *m)
{
    if (!tdi_shapes_equal(op, "g", q->in[0], "x", q->in[1]) || !norm_some_values(op, q->in[1], m)) return false;
    if (!norm_shape_ok(op, "w", q->in[2], m->w_shape) || !norm_shape_ok(op, "mean", q->in[3], m->stat_shape) ||
        !norm_shape_ok(op, "rstd", q->in[4], m->stat_shape))
        return false;
    tdi_set_dims(q->out[1], m->w_shape);
    tdi_set_dims(q->out[2], m->w_shape);
    return true;
}

/* ---- samples ---- */

/* g and x of shape d, w (absent in case 1); mean and rstd are inputs `mean` and the next. */
static inline void norm_gradient_case(uint32_t i, td_sample *s, td_ints d, td_ints w, td_ints stat, int mean)
{
    s->in[0] = tdi_normal(d);
    s->in[1] = tdi_normal(d);
    if (i == 0) s->in[2] = tdi_normal(w);
    s->in[mean] = tdi_normal(stat);
    s->in[mean + 1] = td_add(td_rand(stat, TD_F32), td_number(0.5));
}

#endif

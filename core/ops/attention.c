/* attention.c - scaled_dot_product_attention and its gradient (Vaswani et al. 2017, arXiv:1706.03762). One head, with
 * z = scale q k^T + mask:
 *     lse_i = log(sum_j exp(z_ij))   p = exp(z - lse)   y = p v
 *     gv = p^T g   dz = p (g v^T - sum(g y))   gq = scale dz k   gk = scale dz^T q
 * With dropout, c = kept / (1 - dropout):  y = (c p) v   gv = (c p)^T g   dz = p (c (g v^T) - sum(g y))
 * q, y, g (..., H, T, D or E)   k (..., H', S, D)   v (..., H', S, E)   lse (..., H, T)   mask: to (..., H, T, S)
 * kept (..., H, T, S) */
#include "common.h"
#include "rules.h"

typedef td_scaled_dot_product_attention_attr attributes;
TDI_SAME_LAYOUT(attributes, td_scaled_dot_product_attention_backward_attr, dropout);

/* ---- shapes ---- */

static bool same_leading(const td_view *a, const td_view *b, int32_t n)
{
    for (int32_t i = 0; i < n; i++)
        if (a->dim[i] != b->dim[i]) return false;
    return true;
}

/* Whether kept is a bool mask (..., H, T, S), and there where something is dropped. */
static bool kept_ok(const char *op, const td_view *kept, const td_view *q, int64_t s, double dropout)
{
    if (!(dropout >= 0 && dropout <= 1))
        return td_fail("%s: dropout: expected a probability in 0..1, got %g", op, dropout);
    if (!kept)
        return dropout == 0 || td_fail("%s: kept: expected the mask of what dropout %g keeps, got none "
                                       "(nn.functional.attention draws it)",
                                       op, dropout);
    td_view want = *q;
    want.dim[want.nd - 1] = s;
    if (!tdi_shapes_equal(op, "kept", kept, "the weights", &want)) return false;
    return kept->dt == TD_BOOL || td_fail_as(TD_EDTYPE, "%s: kept: expected bool, got %s", op, td_dtype_name(kept->dt));
}

/* Whether mask broadcasts to (..., H, T, S). */
static bool mask_ok(const char *op, const td_view *mask, const td_view *q, int64_t s)
{
    if (!mask) return true;
    td_view want = *q;
    want.dim[want.nd - 1] = s;
    int32_t ahead = want.nd - mask->nd;
    bool fits = ahead >= 0;
    for (int32_t i = 0; fits && i < mask->nd; i++) fits = mask->dim[i] == 1 || mask->dim[i] == want.dim[ahead + i];
    if (!fits)
        return td_fail_as(TD_ESHAPE, "%s: mask: expected a shape that broadcasts to %s, got %s", op,
                          tdi_shape_text(&want), tdi_shape_text(mask));
    return mask->dt == TD_BOOL || td_dtype_is_float(mask->dt) ||
           td_fail_as(TD_EDTYPE, "%s: mask: expected bool or a float dtype, got %s", op, td_dtype_name(mask->dt));
}

static bool inputs_ok(const char *op, const td_infer *i, const td_view *q, const td_view *k, const td_view *v,
                      const td_view *mask)
{
    if (!tdi_float_ok(op, i->compute)) return false;
    int32_t nd = q->nd;
    if (nd < 2) return td_fail_as(TD_ESHAPE, "%s: q: expected axes (..., T, D), got shape %s", op, tdi_shape_text(q));
    bool fits = k->nd == nd && v->nd == nd && same_leading(q, k, nd - 3) && same_leading(k, v, nd - 1) &&
                q->dim[nd - 1] == k->dim[nd - 1];
    if (fits && nd > 2) {
        int64_t h = q->dim[nd - 3], shared = k->dim[nd - 3];
        fits = h == shared || (shared > 0 && h % shared == 0);
    }
    if (!fits)
        return td_fail_as(TD_ESHAPE,
                          "%s: expected q (..., H, T, D), k (..., H', S, D) and v (..., H', S, E), H' dividing H, got "
                          "%s, %s and %s",
                          op, tdi_shape_text(q), tdi_shape_text(k), tdi_shape_text(v));
    return mask_ok(op, mask, q, k->dim[nd - 2]);
}

static bool forward_infer(td_infer *i)
{
    const td_view *const *in = i->in;
    const char *op = "scaled_dot_product_attention";
    const attributes *a = i->attr;
    if (!inputs_ok(op, i, in[0], in[1], in[2], in[3])) return false;
    if (!kept_ok(op, in[4], in[0], in[1]->dim[in[1]->nd - 2], a->dropout)) return false;
    td_view *y = i->out[0], *lse = i->out[1];
    y->dim[y->nd - 1] = in[2]->dim[y->nd - 1];
    lse->nd = y->nd - 1;
    return tdi_extents_ok(op, y);
}

/* ---- definition ---- */

/* k or v with each head repeated for the heads of q that share it. */
static td_tensor *for_heads(td_tensor *x, const td_tensor *q)
{
    int nd = td_ndim(q);
    if (nd < 3 || td_dim(x, nd - 3) == td_dim(q, nd - 3)) return x;
    td_ints wide = td_shape(x), flat = wide;
    int64_t group = td_dim(q, nd - 3) / td_dim(x, nd - 3);
    if (nd == TD_MAX_DIM) return td_fail("scaled_dot_product_attention: shared heads need at most %d axes", nd - 1);
    flat.v[nd - 3] *= group;
    for (int i = nd; i > nd - 2; i--) wide.v[i] = wide.v[i - 1];
    wide.v[nd - 2] = group;
    wide.n++;
    return td_reshape(td_expand(td_unsqueeze(x, nd - 2), wide), flat);
}

/* The gradient of a head of k or v: the sum over the heads of q that share it. */
static td_tensor *per_shared_head(td_tensor *g, const td_tensor *x)
{
    int nd = td_ndim(x);
    if (nd < 3 || td_dim(g, nd - 3) == td_dim(x, nd - 3)) return g;
    td_ints wide = td_shape(x);
    for (int i = nd; i > nd - 2; i--) wide.v[i] = wide.v[i - 1];
    wide.v[nd - 2] = td_dim(g, nd - 3) / td_dim(x, nd - 3);
    wide.n++;
    return td_sum(td_reshape(g, wide), td_dims(nd - 2), false);
}

static td_tensor *swapped(td_tensor *x) { return td_transpose(x, -1, -2); }

static double scale_of(const attributes *a, const td_tensor *q)
{
    int64_t d = td_dim(q, -1);
    return a->has_scale ? a->scale : d > 0 ? 1 / sqrt((double)d) : 1;
}

/* Weights, or their gradients, as far as dropout keeps them. */
static td_tensor *as_kept(td_tensor *p, td_tensor *kept, const attributes *a)
{
    return kept ? td_where(kept, tdi_times(p, a->dropout < 1 ? 1 / (1 - a->dropout) : 0), td_number(0)) : p;
}

/* z, -inf where q may not look; k has q's heads. */
static td_tensor *scores(td_tensor *q, td_tensor *k, td_tensor *mask, const attributes *a)
{
    td_tensor *z = tdi_times(td_matmul(q, swapped(k)), scale_of(a, q));
    if (mask && td_dtype_of(mask) == TD_BOOL) z = td_masked_fill(z, td_logical_not(mask), -INFINITY);
    else if (mask) z = td_add(z, tdi_to(mask, td_dtype_of(q)));
    if (a->is_causal) {
        td_tensor *may = td_tril(td_ones(td_dims(td_dim(z, -2), td_dim(z, -1)), TD_BOOL), 0);
        z = td_masked_fill(z, td_logical_not(may), -INFINITY);
    }
    return z;
}

/* The greatest of each row, 0 where that is -inf: what may be subtracted from it. */
static td_tensor *row_peak(td_tensor *z)
{
    td_tensor *m = td_amax(z, td_dims(-1), true);
    return td_masked_fill(m, td_eq(m, td_number(-INFINITY)), 0);
}

static bool forward_decompose(const td_call *c, td_tensor **out)
{
    td_tensor *q = c->in[0], *v = for_heads(c->in[2], q), *z = scores(q, for_heads(c->in[1], q), c->in[3], c->attr);
    td_dtype dt = td_dtype_of(q);
    if (td_failed()) return false;
    if (td_dim(z, -1) == 0) { /* nothing to look at */
        out[0] = td_matmul(z, v);
        td_ints rows = td_shape(z);
        rows.n--;
        out[1] = td_full(rows, -INFINITY, dt);
        return out[1] != NULL;
    }
    if (!td_numel(z)) {
        out[0] = td_matmul(z, v);
        out[1] = td_sum(z, td_dims(-1), false);
        return out[1] != NULL;
    }
    td_tensor *m = row_peak(z), *e = td_exp(td_sub(z, m)), *sum = td_sum(e, td_dims(-1), true);
    td_tensor *divisor = td_masked_fill(sum, td_eq(sum, td_number(0)), 1);
    out[0] = td_matmul(as_kept(td_div(e, divisor), c->in[4], c->attr), v);
    out[1] = td_squeeze(td_add(m, td_log(sum)), td_dims(-1));
    return !td_failed();
}

static bool forward_backward(const td_call *c, td_tensor *const *gout, td_tensor **gin, uint64_t need)
{
    const attributes *a = c->attr;
    td_tensor *const *in = c->in;
    (void)need;
    return !gout[0] || td_scaled_dot_product_attention_backward(gout[0], in[0], in[1], in[2], in[3], in[4], c->out[0],
                                                                c->out[1], a->is_causal, a->has_scale ? a->scale : NAN,
                                                                a->dropout, &gin[0], &gin[1], &gin[2]);
}

/* Plain; causal with two heads that share one of k and v; a mask with a row that sees nothing, and a scale; a number to
 * add for each head; causal with dropout; dropout and a mask. */
static bool forward_sample(uint32_t i, td_sample *s)
{
    attributes *a = s->opts;
    s->in[0] = i == 0 ? tdi_normal(td_dims(3, 2)) : tdi_normal(td_dims(2, 2, 3, 2));
    s->in[1] = i == 0 ? tdi_normal(td_dims(4, 2)) : tdi_normal(td_dims(2, i == 1 ? 1 : 2, 4, 2));
    s->in[2] = i == 0 ? tdi_normal(td_dims(4, 3)) : tdi_normal(td_dims(2, i == 1 ? 1 : 2, 4, 3));
    if (i == 1 || i == 4) a->is_causal = true;
    if (i > 3) {
        td_tensor *u = td_rand(td_dims(2, 2, 3, 4), TD_F32);
        s->in[4] = td_ge(u, td_number(0.4));
        a->dropout = 0.4;
    }
    if (i == 2 || i == 5) {
        static const unsigned char may[12] = {1, 1, 0, 1, 0, 0, 0, 0, 0, 1, 1, 0};
        s->in[3] = td_from_data(TD_BOOL, td_dims(3, 4), may);
        a->has_scale = true;
        a->scale = 0.5;
    }
    if (i == 3) s->in[3] = tdi_normal(td_dims(2, 1, 4));
    return i < 6;
}

/* ---- gradient: g q k v mask kept y lse -> gq gk gv ---- */

static bool backward_infer(td_infer *i)
{
    const char *op = "scaled_dot_product_attention_backward";
    const td_view *const *in = i->in;
    const td_view *g = in[0], *q = in[1], *k = in[2], *v = in[3], *y = in[6], *lse = in[7];
    const attributes *a = i->attr;
    if (!inputs_ok(op, i, q, k, v, in[4]) || !kept_ok(op, in[5], q, k->dim[k->nd - 2], a->dropout)) return false;
    td_view out = *q, rows = *q;
    out.dim[q->nd - 1] = v->dim[q->nd - 1];
    rows.nd--;
    if (!tdi_shapes_equal(op, "g", g, "the output", &out) || !tdi_shapes_equal(op, "y", y, "the output", &out) ||
        !tdi_shapes_equal(op, "lse", lse, "rows of q", &rows))
        return false;
    const td_view *like[] = {q, k, v};
    for (int n = 0; n < 3; n++) tdi_set_dims(i->out[n], td_dims_n(like[n]->nd, like[n]->dim));
    return true;
}

static bool backward_decompose(const td_call *c, td_tensor **out)
{
    const attributes *a = c->attr;
    td_tensor *const *in = c->in, *g = in[0], *q = in[1], *k = for_heads(in[2], q), *v = for_heads(in[3], q);
    double scale = scale_of(a, q);
    td_tensor *z = scores(q, k, in[4], a), *lse = td_unsqueeze(in[7], -1);
    td_tensor *none = td_eq(lse, td_number(-INFINITY)); /* rows that see nothing, whose z - lse is no number */
    td_tensor *p = td_exp(td_sub(td_masked_fill(z, none, -INFINITY), td_masked_fill(lse, none, 0)));
    td_tensor *along = td_sum(td_mul(g, in[6]), td_dims(-1), true);
    td_tensor *dz = td_mul(p, td_sub(as_kept(td_matmul(g, swapped(v)), in[5], a), along));
    out[0] = tdi_times(td_matmul(dz, k), scale);
    out[1] = per_shared_head(tdi_times(td_matmul(swapped(dz), q), scale), in[2]);
    out[2] = per_shared_head(td_matmul(swapped(as_kept(p, in[5], a)), g), in[3]);
    return !td_failed();
}

static bool backward_sample(uint32_t i, td_sample *s)
{
    td_tensor *in[5] = {NULL};
    attributes *a = s->opts;
    td_sample forward = {a, in, 5};
    if (!forward_sample(i, &forward)) return false;
    for (int k = 0; k < 5; k++) s->in[1 + k] = in[k];
    if (!td_scaled_dot_product_attention_full(in[0], in[1], in[2], in[3], in[4], a->is_causal,
                                              a->has_scale ? a->scale : NAN, a->dropout, &s->in[6], &s->in[7]))
        return false;
    s->in[0] = tdi_normal(td_shape(s->in[6]));
    return true;
}

/* lse is auxiliary, so the second derivative is that of the definition. */
const td_op tdi_op_scaled_dot_product_attention = {TD_ROW_scaled_dot_product_attention,
                                                   .save_in = 31,
                                                   .save_out = 3,
                                                   .flags = TD_OP_GOUT_NULL,
                                                   .infer = forward_infer,
                                                   .backward = forward_backward,
                                                   .decompose = forward_decompose,
                                                   .sample = forward_sample};
const td_op tdi_op_scaled_dot_product_attention_backward = {TD_ROW_scaled_dot_product_attention_backward,
                                                            .infer = backward_infer, .decompose = backward_decompose,
                                                            .sample = backward_sample};

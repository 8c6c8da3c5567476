/* matmul.c - matrix products: matmul bmm outer. Transposes are views: no backward copies a matrix to turn it. */
#include "rules.h"

enum { NEED_A = 1, NEED_B = 2 };

/* ---- matmul ---- */

static td_view batch_of(const td_view *v)
{
    td_view batch = {.nd = v->nd > 2 ? v->nd - 2 : 0};
    for (int32_t d = 0; d < batch.nd; d++) batch.dim[d] = v->dim[d];
    return batch;
}

static bool matmul_infer(td_infer *i)
{
    const td_view *a = i->in[0], *b = i->in[1];
    td_view *c = i->out[0];
    if (!tdi_want_numbers("matmul", i)) return false;
    if (a->nd == 0 || b->nd == 0)
        return td_fail_as(TD_ESHAPE, "matmul: expected tensors with axes, got shapes %s and %s", tdi_shape_text(a),
                          tdi_shape_text(b));
    int64_t rows = b->nd == 1 ? b->dim[0] : b->dim[b->nd - 2];
    if (a->dim[a->nd - 1] != rows)
        return td_fail_as(TD_ESHAPE, "matmul: shapes %s and %s: a has %lld columns, b has %lld rows; expected as many",
                          tdi_shape_text(a), tdi_shape_text(b), (long long)a->dim[a->nd - 1], (long long)rows);
    c->dt = i->compute;
    if (a->nd <= 2 && b->nd <= 2) {
        c->nd = 0;
    } else {
        td_view batch_a = batch_of(a), batch_b = batch_of(b);
        if (!tdi_broadcast("matmul", &batch_a, &batch_b, c)) return false;
    }
    if (a->nd > 1) c->dim[c->nd++] = a->dim[a->nd - 2];
    if (b->nd > 1) c->dim[c->nd++] = b->dim[b->nd - 1];
    return true;
}

static td_tensor *turned(td_tensor *m) { return td_transpose(m, -2, -1); }

/* (..., d) -> (rows, d), the rows of all batches */
static td_tensor *as_rows(td_tensor *x)
{
    const td_view *v = td_view_of(x);
    int64_t d = v->nd ? v->dim[v->nd - 1] : 1;
    return tdi_shaped(x, td_dims(tdi_count(v, v->nd ? ~(1u << (v->nd - 1)) : 0), d));
}

/* ga = g b^T */
static td_tensor *gradient_a(td_tensor *g, td_tensor *a, td_tensor *b)
{
    int na = td_ndim(a), nb = td_ndim(b);
    if (nb == 1) return tdi_sum_to(td_mul(na == 1 ? g : td_unsqueeze(g, -1), b), a);
    if (na == 1) return tdi_sum_to(td_select(td_matmul(b, td_unsqueeze(g, -1)), -1, 0), a);
    return tdi_sum_to(td_matmul(g, turned(b)), a);
}

/* gb = a^T g; where b has no batch axes the batches of a and g are one long matrix */
static td_tensor *gradient_b(td_tensor *g, td_tensor *a, td_tensor *b)
{
    int na = td_ndim(a), nb = td_ndim(b);
    if (na == 1) return tdi_sum_to(nb == 1 ? td_mul(g, a) : td_mul(td_unsqueeze(a, 1), td_unsqueeze(g, -2)), b);
    if (nb == 1) return tdi_sum_to(td_matmul(turned(as_rows(a)), tdi_shaped(g, td_dims(td_numel(g)))), b);
    if (nb == 2) return tdi_sum_to(td_matmul(turned(as_rows(a)), as_rows(g)), b);
    return tdi_sum_to(td_matmul(turned(a), g), b);
}

static bool matmul_backward(const td_call *c, td_tensor *const *gout, td_tensor **gin, uint64_t need)
{
    if (need & NEED_A) gin[0] = gradient_a(gout[0], c->in[0], c->in[1]);
    if (need & NEED_B) gin[1] = gradient_b(gout[0], c->in[0], c->in[1]);
    return true;
}

static bool matmul_sample(uint32_t i, td_sample *s)
{
    static const struct {
        td_ints a, b;
    } shape[] = {
        {{2, {2, 3}}, {2, {3, 4}}},       {{1, {3}}, {1, {3}}},
        {{1, {3}}, {2, {3, 2}}},          {{2, {2, 3}}, {1, {3}}},
        {{3, {2, 2, 3}}, {1, {3}}},       {{1, {3}}, {3, {2, 3, 2}}},
        {{3, {2, 2, 3}}, {2, {3, 2}}},    {{2, {2, 3}}, {3, {2, 3, 2}}},
        {{3, {2, 2, 3}}, {3, {2, 3, 2}}}, {{4, {2, 1, 2, 3}}, {3, {3, 3, 2}}},
    };
    if (i >= sizeof shape / sizeof *shape) return false;
    s->in[0] = tdi_sample_signed(shape[i].a, 2 * i);
    s->in[1] = tdi_sample_signed(shape[i].b, 2 * i + 1);
    return true;
}

/* ---- bmm, outer ---- */

static bool bmm_infer(td_infer *i)
{
    const td_view *a = i->in[0], *b = i->in[1];
    td_view *c = i->out[0];
    if (!tdi_want_numbers("bmm", i)) return false;
    if (a->nd != 3 || b->nd != 3 || a->dim[0] != b->dim[0] || a->dim[2] != b->dim[1])
        return td_fail_as(TD_ESHAPE, "bmm: expected shapes (B, M, K) and (B, K, N), got %s and %s", tdi_shape_text(a),
                          tdi_shape_text(b));
    c->dt = i->compute;
    c->dim[2] = b->dim[2];
    return true;
}

static bool bmm_decompose(const td_call *c, td_tensor **out)
{
    out[0] = td_matmul(c->in[0], c->in[1]);
    return out[0] != NULL;
}

static bool bmm_sample(uint32_t i, td_sample *s)
{
    s->in[0] = tdi_sample_signed(i ? td_dims(3, 1, 2) : td_dims(2, 2, 3), 2 * i);
    s->in[1] = tdi_sample_signed(i ? td_dims(3, 2, 2) : td_dims(2, 3, 2), 2 * i + 1);
    return i < 2;
}

static bool outer_infer(td_infer *i)
{
    const td_view *a = i->in[0], *b = i->in[1];
    td_view *c = i->out[0];
    if (a->nd != 1 || b->nd != 1)
        return td_fail_as(TD_ESHAPE, "outer: expected shapes (M) and (N), got %s and %s", tdi_shape_text(a),
                          tdi_shape_text(b));
    c->dt = i->compute;
    c->nd = 2;
    c->dim[0] = a->dim[0];
    c->dim[1] = b->dim[0];
    return true;
}

static bool outer_decompose(const td_call *c, td_tensor **out)
{
    out[0] = td_mul(td_unsqueeze(c->in[0], 1), c->in[1]);
    return out[0] != NULL;
}

static bool outer_sample(uint32_t i, td_sample *s)
{
    s->in[0] = tdi_sample_signed(i ? td_dims(1) : td_dims(3), 2 * i);
    s->in[1] = tdi_sample_signed(i ? td_dims(4) : td_dims(2), 2 * i + 1);
    return i < 2;
}

/* ---- rows ---- */

const td_op tdi_op_matmul = {TD_ROW_matmul,         .flags = TD_OP_PRIM | TD_OP_BWD_DIFF, .save_in = 3,
                             .infer = matmul_infer, .backward = matmul_backward,          .sample = matmul_sample};
const td_op tdi_op_bmm = {TD_ROW_bmm, .infer = bmm_infer, .decompose = bmm_decompose, .sample = bmm_sample};
const td_op tdi_op_outer = {TD_ROW_outer, .infer = outer_infer, .decompose = outer_decompose, .sample = outer_sample};

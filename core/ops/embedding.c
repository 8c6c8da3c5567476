/* embedding.c - rows of a table w (K, D) at indices i: (..., D). */
#include "common.h"

static bool embedding_infer(td_infer *q)
{
    const td_embedding_attr *a = q->attr;
    const td_view *w = q->in[0], *i = q->in[1];
    td_view *y = q->out[0];
    if (!tdi_ndim_ok("embedding", "w", w, 2, "K, D") || !tdi_index_ok("embedding", "i", i)) return false;
    if (!tdi_room_for_axis("embedding", i)) return false;
    if (a->has_padding_idx && a->padding_idx >= w->dim[0])
        return td_fail("embedding: padding_idx: expected a row of w, 1..%lld, got %lld", (long long)w->dim[0],
                       tdi_user(a->padding_idx));
    y->nd = i->nd + 1;
    for (int32_t k = 0; k < i->nd; k++) y->dim[k] = i->dim[k];
    y->dim[i->nd] = w->dim[1];
    return tdi_extents_ok("embedding", y);
}

static bool embedding_decompose(const td_call *c, td_tensor **out)
{
    td_ints shape = td_shape(c->in[1]);
    shape.v[shape.n++] = td_dim(c->in[0], 1);
    out[0] = td_reshape(td_index_select(c->in[0], tdi_flat(c->in[1]), 0), shape);
    return out[0] != NULL;
}

static bool embedding_backward(const td_call *c, td_tensor *const *gout, td_tensor **gin, uint64_t need)
{
    const td_embedding_attr *a = c->attr;
    td_tensor *i = tdi_flat(c->in[1]);
    td_tensor *g = td_reshape(gout[0], td_dims(td_dim(i, 0), td_dim(c->in[0], 1)));
    (void)need;
    if (a->has_padding_idx) g = td_where(td_unsqueeze(td_eq(i, td_integer(a->padding_idx)), 1), td_number(0), g);
    gin[0] = td_index_add(tdi_zeros_for(c->in[0], g), i, g, 0);
    return gin[0] != NULL;
}

/* No padding_idx here: its row gets no gradient on purpose, which no difference quotient would agree with. */
static bool embedding_sample(uint32_t i, td_sample *s)
{
    s->in[0] = tdi_normal(td_dims(4, 3));
    s->in[1] = i == 0 ? tdi_indices(td_dims(3), (const int64_t[]){2, 0, 2})
                      : tdi_indices(td_dims(2, 2), (const int64_t[]){1, 3, 3, 3});
    return i < 2;
}

const td_op tdi_op_embedding = {TD_ROW_embedding,
                                .save_in = 2,
                                .flags = TD_OP_BWD_DIFF,
                                .infer = embedding_infer,
                                .backward = embedding_backward,
                                .decompose = embedding_decompose,
                                .sample = embedding_sample};

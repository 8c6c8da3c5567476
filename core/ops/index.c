/* index.c - places given by index tensors or by a mask, and counts of them: index masked_select nonzero nonzero_n
 * one_hot bincount unique. Where a shape depends on data, infer checks and decompose reads a count from the device. */
#include "common.h"

/* ---- index ---- */

static bool index_infer(td_infer *q)
{
    const td_view *x = q->in[0];
    td_view *y = q->out[0];
    if (!q->n_list || q->n_list > (uint32_t)x->nd)
        return td_fail_as(TD_ESHAPE, "index: expected 1 to %d index tensors for x %s, got %u", (int)x->nd,
                          tdi_shape_text(x), q->n_list);
    td_view at = *q->in[1];
    for (uint32_t k = 0; k < q->n_list; k++) {
        td_view both = at;
        if (!tdi_index_ok("index", "i", q->in[1 + k])) return false;
        if (!tdi_broadcast("index", &at, q->in[1 + k], &both)) return false;
        at = both;
    }
    int32_t rest = x->nd - (int32_t)q->n_list;
    if (at.nd + rest > TD_MAX_DIM)
        return td_fail_as(TD_ESHAPE, "index: indices %s put into x %s make more than %d axes", tdi_shape_text(&at),
                          tdi_shape_text(x), (int)TD_MAX_DIM);
    y->nd = at.nd + rest;
    for (int32_t k = 0; k < at.nd; k++) y->dim[k] = at.dim[k];
    for (int32_t k = 0; k < rest; k++) y->dim[at.nd + k] = x->dim[(int32_t)q->n_list + k];
    return tdi_extents_ok("index", y);
}

/* x's extents with the first n axes made one. */
static td_ints joined(const td_tensor *x, uint32_t n)
{
    td_ints s = {1, {1}};
    for (int i = 0; i < td_ndim(x); i++) {
        if ((uint32_t)i < n) s.v[0] *= td_dim(x, i);
        else s.v[s.n++] = td_dim(x, i);
    }
    return s;
}

/* 1-D places in the joined axis:  sum_k i_k times the elements that a step of axis k passes.  Tables of those products
 * take the place of a multiplication, so that index_select refuses every index that is outside its own axis. */
static td_tensor *places(const td_tensor *x, td_tensor *const *i, uint32_t n)
{
    td_tensor *sum = NULL;
    int64_t pass = 1;
    if (n == 1) return tdi_flat(i[0]);
    for (uint32_t k = n; k-- > 0;) {
        int64_t extent = td_dim(x, (int)k);
        td_tensor *table = td_arange(0, (double)pass * (double)extent, (double)pass, TD_I64);
        td_tensor *part = td_reshape(td_index_select(table, tdi_flat(i[k]), 0), td_shape(i[k]));
        sum = sum ? td_add(sum, part) : part;
        if (extent > 1) pass *= extent;
    }
    return tdi_flat(sum);
}

/* Extents of the result: those of the index tensors together, then of the remaining axes. */
static td_ints result_shape(const td_call *c)
{
    td_ints s = {0, {0}};
    int nd = 0;
    for (uint32_t k = 0; k < c->n_list; k++)
        if (td_ndim(c->in[1 + k]) > nd) nd = td_ndim(c->in[1 + k]);
    for (int i = 0; i < nd; i++) {
        s.v[s.n] = 1;
        for (uint32_t k = 0; k < c->n_list; k++) {
            int at = i - (nd - td_ndim(c->in[1 + k]));
            if (at >= 0 && td_dim(c->in[1 + k], at) != 1) s.v[s.n] = td_dim(c->in[1 + k], at);
        }
        s.n++;
    }
    for (int i = (int)c->n_list; i < td_ndim(c->in[0]); i++) s.v[s.n++] = td_dim(c->in[0], i);
    return s;
}

static bool index_decompose(const td_call *c, td_tensor **out)
{
    td_tensor *x = td_reshape(c->in[0], joined(c->in[0], c->n_list));
    out[0] = td_reshape(td_index_select(x, places(c->in[0], c->in + 1, c->n_list), 0), result_shape(c));
    return out[0] != NULL;
}

static bool index_backward(const td_call *c, td_tensor *const *gout, td_tensor **gin, uint64_t need)
{
    td_ints rows = joined(c->in[0], c->n_list), src = rows;
    td_tensor *at = places(c->in[0], c->in + 1, c->n_list), *g = gout[0];
    (void)need;
    src.v[0] = td_dim(at, 0);
    g = td_index_add(td_zeros(rows, td_dtype_of(g)), at, td_reshape(g, src), 0);
    gin[0] = td_reshape(g, td_shape(c->in[0]));
    return gin[0] != NULL;
}

static bool index_sample(uint32_t i, td_sample *s)
{
    s->in[0] = i == 0 ? tdi_normal(td_dims(3, 2)) : tdi_normal(td_dims(3, 4, 2));
    s->in[1] = tdi_indices(td_dims(2, 2), (const int64_t[]){2, 0, 0, 1});
    if (i == 1) s->in[2] = tdi_indices(td_dims(2), (const int64_t[]){3, 1}); /* broadcasts with the first */
    s->n_in = i == 0 ? 2 : 3;
    return i < 2;
}

/* ---- masked_select, nonzero ---- */

static bool masked_select_infer(td_infer *q)
{
    const td_view *x = q->in[0];
    td_view both = *x;
    if (!tdi_broadcast("masked_select", x, q->in[1], &both)) return false;
    if (!tdi_same_shape(&both, x))
        return td_fail_as(TD_ESHAPE, "masked_select: mask %s does not broadcast to x %s", tdi_shape_text(q->in[1]),
                          tdi_shape_text(x));
    tdi_set_dims(q->out[0], td_dims(0));
    return true;
}

/* Places in the flattened mask, n of them, or as many as there are for n < 0. */
static td_tensor *set_places(td_tensor *mask, td_ints shape, int64_t n)
{
    td_tensor *flat = tdi_flat(td_expand(mask, shape));
    td_tensor *at = n < 0 ? td_nonzero(flat) : td_nonzero_n(flat, n);
    return tdi_flat(at);
}

static bool masked_select_decompose(const td_call *c, td_tensor **out)
{
    out[0] = td_index_select(tdi_flat(c->in[0]), set_places(c->in[1], td_shape(c->in[0]), -1), 0);
    return out[0] != NULL;
}

static bool masked_select_backward(const td_call *c, td_tensor *const *gout, td_tensor **gin, uint64_t need)
{
    td_ints shape = td_shape(c->in[0]);
    td_tensor *at = set_places(c->in[1], shape, td_dim(gout[0], 0));
    td_tensor *zeros = td_zeros(td_dims(td_numel(c->in[0])), td_dtype_of(gout[0]));
    (void)need;
    gin[0] = td_reshape(td_index_add(zeros, at, gout[0], 0), shape);
    return gin[0] != NULL;
}

static bool masked_select_sample(uint32_t i, td_sample *s)
{
    s->in[0] = tdi_normal(td_dims(2, 3));
    s->in[1] = i == 0 ? td_from_data(TD_BOOL, td_dims(2, 3), (const uint8_t[]){1, 0, 1, 0, 0, 1})
                      : td_from_data(TD_BOOL, td_dims(3), (const uint8_t[]){0, 1, 1});
    return i < 2;
}

static bool nonzero_infer(td_infer *q)
{
    td_view *y = q->out[0];
    y->dt = TD_I64;
    tdi_set_dims(y, td_dims(0, q->in[0]->nd));
    return true;
}

static bool nonzero_decompose(const td_call *c, td_tensor **out)
{
    int64_t n = 0;
    td_tensor *count = td_count_nonzero(c->in[0], (td_ints){0, {0}});
    if (!count || !TD->item(count, TD_I64, &n)) return false;
    out[0] = td_nonzero_n(c->in[0], n);
    return out[0] != NULL;
}

static bool nonzero_n_infer(td_infer *q)
{
    const td_nonzero_n_attr *a = q->attr;
    const td_view *x = q->in[0];
    if (a->n < 0 || a->n > td_view_numel(x))
        return td_fail("nonzero_n: n: expected 0 to %lld for x %s, got %lld", (long long)td_view_numel(x),
                       tdi_shape_text(x), (long long)a->n);
    q->out[0]->dt = TD_I64;
    tdi_set_dims(q->out[0], td_dims(a->n, x->nd));
    return true;
}

static td_tensor *holed(void) { return td_from_data(TD_F32, td_dims(2, 3), (const float[]){1, 0, -2, 0, 0, 0.5f}); }

static bool nonzero_sample(uint32_t i, td_sample *s)
{
    s->in[0] = i == 0 ? holed() : td_from_data(TD_BOOL, td_dims(4), (const uint8_t[]){0, 1, 1, 0});
    return i < 2;
}

static bool nonzero_n_sample(uint32_t i, td_sample *s)
{
    td_nonzero_n_attr *a = s->opts;
    s->in[0] = holed();
    a->n = i == 0 ? 3 : 0;
    return i < 2;
}

/* ---- one_hot, bincount, unique ---- */

static bool one_hot_infer(td_infer *q)
{
    const td_one_hot_attr *a = q->attr;
    td_view *y = q->out[0];
    if (!tdi_index_ok("one_hot", "i", q->in[0]) || !tdi_room_for_axis("one_hot", q->in[0])) return false;
    if (a->classes < 1) return td_fail("one_hot: classes: expected at least 1, got %lld", (long long)a->classes);
    y->dt = TD_I64;
    y->dim[y->nd++] = a->classes;
    return tdi_extents_ok("one_hot", y);
}

/* By scatter, which refuses indices outside the classes. */
static bool one_hot_decompose(const td_call *c, td_tensor **out)
{
    const td_one_hot_attr *a = c->attr;
    td_ints shape = td_shape(c->in[0]);
    td_tensor *at = td_unsqueeze(c->in[0], -1);
    shape.v[shape.n++] = a->classes;
    out[0] = td_scatter(td_zeros(shape, TD_I64), at, td_ones(td_shape(at), TD_I64), -1);
    return out[0] != NULL;
}

static bool one_hot_sample(uint32_t i, td_sample *s)
{
    td_one_hot_attr *a = s->opts;
    s->in[0] = i == 0 ? tdi_indices(td_dims(3), (const int64_t[]){1, 0, 3})
                      : tdi_indices(td_dims(2, 2), (const int64_t[]){0, 2, 1, 0});
    a->classes = i == 0 ? 4 : 3;
    return i < 2;
}

static bool bincount_infer(td_infer *q)
{
    const td_bincount_attr *a = q->attr;
    if (!tdi_index_ok("bincount", "i", q->in[0]) || !tdi_ndim_ok("bincount", "i", q->in[0], 1, "n")) return false;
    q->out[0]->dt = TD_I64;
    tdi_set_dims(q->out[0], td_dims(a->minlength));
    return true;
}

static bool bincount_decompose(const td_call *c, td_tensor **out)
{
    const td_bincount_attr *a = c->attr;
    td_tensor *i = c->in[0];
    int64_t n = a->minlength, greatest = -1;
    if (td_numel(i)) {
        if (!TD->item(td_amax(i, (td_ints){0, {0}}, false), TD_I64, &greatest)) return false;
        if (greatest < 0 || greatest == INT64_MAX) return td_fail("bincount: no index can be %lld", tdi_user(greatest));
        if (n <= greatest) n = greatest + 1;
    }
    out[0] = td_scatter_add(td_zeros(td_dims(n), TD_I64), i, td_ones(td_shape(i), TD_I64), 0);
    return out[0] != NULL;
}

static bool bincount_sample(uint32_t i, td_sample *s)
{
    td_bincount_attr *a = s->opts;
    s->in[0] = tdi_indices(td_dims(5), (const int64_t[]){1, 0, 3, 1, 1});
    if (i == 1) a->minlength = 6;
    return i < 2;
}

static bool unique_infer(td_infer *q)
{
    tdi_set_dims(q->out[0], td_dims(0));
    return true;
}

/* Sorted, the first of each run of equals. A NaN equals nothing, so each stays. */
static bool unique_decompose(const td_call *c, td_tensor **out)
{
    td_tensor *x = tdi_flat(c->in[0]), *sorted, *order;
    int64_t n = td_numel(c->in[0]);
    if (!n) {
        out[0] = td_copy(x);
        return out[0] != NULL;
    }
    if (!td_sort(x, 0, false, &sorted, &order)) return false;
    td_tensor *part[] = {td_ones(td_dims(1), TD_BOOL),
                         td_ne(td_narrow(sorted, 0, 1, n - 1), td_narrow(sorted, 0, 0, n - 1))};
    out[0] = td_masked_select(sorted, td_cat(part, 2, 0));
    return out[0] != NULL;
}

static bool unique_sample(uint32_t i, td_sample *s)
{
    s->in[0] = i == 0 ? tdi_distinct(td_dims(2, 3)) : tdi_indices(td_dims(6), (const int64_t[]){3, 1, 3, 3, 1, 2});
    return i < 2;
}

/* save_in 2: the indices or the mask */
const td_op tdi_op_index = {TD_ROW_index,
                            .save_in = 2,
                            .flags = TD_OP_BWD_DIFF,
                            .infer = index_infer,
                            .backward = index_backward,
                            .decompose = index_decompose,
                            .sample = index_sample};
const td_op tdi_op_masked_select = {TD_ROW_masked_select,
                                    .save_in = 2,
                                    .flags = TD_OP_BWD_DIFF | TD_OP_HOST_SYNC,
                                    .infer = masked_select_infer,
                                    .backward = masked_select_backward,
                                    .decompose = masked_select_decompose,
                                    .sample = masked_select_sample};
const td_op tdi_op_nonzero = {TD_ROW_nonzero, .flags = TD_OP_HOST_SYNC, .infer = nonzero_infer,
                              .decompose = nonzero_decompose, .sample = nonzero_sample};
const td_op tdi_op_nonzero_n = {TD_ROW_nonzero_n, .flags = TD_OP_PRIM, .infer = nonzero_n_infer,
                                .sample = nonzero_n_sample};
const td_op tdi_op_one_hot = {TD_ROW_one_hot, .infer = one_hot_infer, .decompose = one_hot_decompose,
                              .sample = one_hot_sample};
const td_op tdi_op_bincount = {TD_ROW_bincount, .flags = TD_OP_HOST_SYNC, .infer = bincount_infer,
                               .decompose = bincount_decompose, .sample = bincount_sample};
const td_op tdi_op_unique = {TD_ROW_unique, .flags = TD_OP_HOST_SYNC, .infer = unique_infer,
                             .decompose = unique_decompose, .sample = unique_sample};

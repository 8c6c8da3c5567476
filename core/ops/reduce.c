/* reduce.c - sums, products and extremes over axes: sum mean prod amax amin any all count_nonzero, and cumsum.
 * x is the input, y the result, g its gradient; n elements of x become one of y. */
#include "rules.h"

typedef struct {
    td_ints axes;
    bool keepdim;
} reduce_attr; /* the attributes of sum, mean, prod, amax, amin, any and all */
TDI_SAME_LAYOUT(reduce_attr, td_sum_attr, keepdim);
TDI_SAME_LAYOUT(reduce_attr, td_mean_attr, keepdim);
TDI_SAME_LAYOUT(reduce_attr, td_prod_attr, keepdim);
TDI_SAME_LAYOUT(reduce_attr, td_amax_attr, keepdim);
TDI_SAME_LAYOUT(reduce_attr, td_amin_attr, keepdim);
TDI_SAME_LAYOUT(reduce_attr, td_any_attr, keepdim);
TDI_SAME_LAYOUT(reduce_attr, td_all_attr, keepdim);

static bool infer_reduce(const char *op, td_infer *i)
{
    const reduce_attr *a = i->attr;
    return tdi_infer_reduce(op, i, a->axes, a->keepdim);
}

static uint32_t reduced_axes(const td_call *c) { return tdi_mask(((const reduce_attr *)c->attr)->axes, c->in[0]); }

/* ---- sum, mean ---- */

static bool sum_infer(td_infer *i)
{
    tdi_compute_wide(i);
    return infer_reduce("sum", i);
}

TDI_GRADIENT(sum, tdi_spread(g, x, reduced_axes(c)))

static bool mean_infer(td_infer *i) { return tdi_want_float("mean", i) && infer_reduce("mean", i); }

/* f16 and bf16 are summed as f32: the sum may be out of their range. */
static bool mean_decompose(const td_call *c, td_tensor **out)
{
    const td_mean_attr *a = c->attr;
    td_tensor *x = tdi_real(c->in[0]);
    td_dtype dt = td_dtype_of(x);
    double n = (double)tdi_count(td_view_of(x), reduced_axes(c));
    td_tensor *wide = tdi_to(x, dt == TD_F64 ? TD_F64 : TD_F32);
    out[0] = tdi_to(td_div(td_sum(wide, a->axes, a->keepdim), td_number(n)), dt);
    return out[0] != NULL;
}

static bool mean_backward(const td_call *c, td_tensor *const *gout, td_tensor **gin, uint64_t need)
{
    td_tensor *x = c->in[0];
    uint32_t mask = reduced_axes(c);
    (void)need;
    gin[0] = tdi_spread(tdi_times(gout[0], 1.0 / (double)tdi_count(td_view_of(x), mask)), x, mask);
    return gin[0] != NULL;
}

/* ---- prod ---- */

static bool prod_infer(td_infer *i)
{
    tdi_compute_wide(i);
    return infer_reduce("prod", i);
}

/*
 * The gradient by a tree of pairwise products, and not as g y / x, which fails at zeros:
 *   level k + 1 holds a b, where a and b are the first and second half of level k, then the odd element, if any;
 *   going down, the gradient of a is that of a b times b, and the other way round.
 * It is made of products only, so it is right at zeros in every order of differentiation.
 */
enum { TREE_LEVELS = 64 };

typedef struct {
    td_tensor *a, *b; /* (rows, half) */
    int64_t half, odd;
} tree_level;

static td_tensor *join(td_tensor *const *part, uint32_t n) { return n == 1 ? part[0] : td_cat(part, n, 1); }

/* rows (rows, n), n >= 1, and g (rows, 1) -> (rows, n) */
static td_tensor *product_gradient(td_tensor *rows, td_tensor *g, int64_t n)
{
    tree_level level[TREE_LEVELS];
    int levels = 0;
    for (; n > 1; n = n / 2 + n % 2) {
        tree_level *l = &level[levels++];
        *l = (tree_level){NULL, NULL, n / 2, n % 2};
        l->a = td_narrow(rows, 1, 0, l->half);
        l->b = td_narrow(rows, 1, l->half, l->half);
        td_tensor *next[] = {td_mul(l->a, l->b), l->odd ? td_narrow(rows, 1, 2 * l->half, 1) : NULL};
        rows = join(next, l->odd ? 2 : 1);
    }
    while (levels--) {
        const tree_level *l = &level[levels];
        td_tensor *pairs = td_narrow(g, 1, 0, l->half);
        td_tensor *part[] = {td_mul(pairs, l->b), td_mul(pairs, l->a), l->odd ? td_narrow(g, 1, l->half, 1) : NULL};
        g = join(part, l->odd ? 3 : 2);
    }
    return g;
}

/* Kept axes of x first, then the reduced ones. */
static td_ints kept_first(const td_view *x, uint32_t mask)
{
    td_ints order = {0, {0}};
    for (int32_t d = 0; d < x->nd; d++)
        if (!(mask & 1u << d)) order.v[order.n++] = d;
    for (int32_t d = 0; d < x->nd; d++)
        if (mask & 1u << d) order.v[order.n++] = d;
    return order;
}

static bool prod_backward(const td_call *c, td_tensor *const *gout, td_tensor **gin, uint64_t need)
{
    td_tensor *x = c->in[0];
    const td_view *v = td_view_of(x);
    uint32_t mask = reduced_axes(c);
    int64_t n = tdi_count(v, mask), rows = tdi_count(v, ~mask);
    td_ints order = kept_first(v, mask), back = {order.n, {0}}, moved = order;
    (void)need;
    if (n == 0 || rows == 0) return true; /* x has no elements */
    for (int64_t d = 0; d < order.n; d++) {
        back.v[order.v[d]] = d;
        moved.v[d] = v->dim[order.v[d]];
    }
    td_tensor *flat = tdi_shaped(td_permute(x, order), td_dims(rows, n));
    td_tensor *g = product_gradient(flat, tdi_shaped(gout[0], td_dims(rows, 1)), n);
    gin[0] = td_permute(tdi_shaped(g, moved), back);
    return gin[0] != NULL;
}

/* ---- amax, amin: equal elements share the gradient ---- */

static bool infer_extreme(const char *op, td_infer *i)
{
    uint32_t mask;
    if (!tdi_want_numbers(op, i) || !infer_reduce(op, i)) return false;
    tdi_axes_mask(op, ((const reduce_attr *)i->attr)->axes, i->in[0], &mask);
    return tdi_want_elements(op, i->in[0], mask);
}

static bool amax_infer(td_infer *i) { return infer_extreme("amax", i); }
static bool amin_infer(td_infer *i) { return infer_extreme("amin", i); }

static bool extreme_backward(const td_call *c, td_tensor *const *gout, td_tensor **gin, uint64_t need)
{
    td_tensor *x = c->in[0];
    uint32_t mask = reduced_axes(c);
    td_tensor *chosen = td_eq(x, tdi_with_axes(c->out[0], x, mask));
    td_ints axes = ((const reduce_attr *)c->attr)->axes;
    td_tensor *share = td_div(tdi_with_axes(gout[0], x, mask), td_sum(chosen, axes, true));
    (void)need;
    gin[0] = td_where(chosen, share, td_number(0));
    return gin[0] != NULL;
}

/* ---- any, all, count_nonzero ---- */

static bool any_infer(td_infer *i)
{
    if (!infer_reduce("any", i)) return false;
    i->out[0]->dt = TD_BOOL;
    return true;
}

static bool all_infer(td_infer *i)
{
    if (!infer_reduce("all", i)) return false;
    i->out[0]->dt = TD_BOOL;
    return true;
}

static bool any_decompose(const td_call *c, td_tensor **out)
{
    const td_any_attr *a = c->attr;
    out[0] = td_lt(td_integer(0), td_sum(tdi_as_mask(c->in[0]), a->axes, a->keepdim));
    return out[0] != NULL;
}

static bool all_decompose(const td_call *c, td_tensor **out)
{
    const td_all_attr *a = c->attr;
    out[0] = td_eq(td_sum(td_logical_not(c->in[0]), a->axes, a->keepdim), td_integer(0));
    return out[0] != NULL;
}

static bool count_nonzero_infer(td_infer *i)
{
    if (!tdi_infer_reduce("count_nonzero", i, ((const td_count_nonzero_attr *)i->attr)->axes, false)) return false;
    i->out[0]->dt = TD_I64;
    return true;
}

TDI_DEFINITION(count_nonzero, td_sum(tdi_as_mask(x), ((const td_count_nonzero_attr *)c->attr)->axes, false))

/* ---- cumsum ---- */

static bool cumsum_infer(td_infer *i)
{
    tdi_compute_wide(i);
    return tdi_axis("cumsum", ((const td_cumsum_attr *)i->attr)->axis, i->in[0]) >= 0;
}

/* x_i is in y_i and all that follow: the running sum from the end. */
static bool cumsum_backward(const td_call *c, td_tensor *const *gout, td_tensor **gin, uint64_t need)
{
    int64_t axis = ((const td_cumsum_attr *)c->attr)->axis;
    td_tensor *g = gout[0];
    (void)need;
    gin[0] = td_ndim(g) == 0 ? g : td_flip(td_cumsum(td_flip(g, td_dims(axis)), axis), td_dims(axis));
    return gin[0] != NULL;
}

/* ---- samples ---- */

static const reduce_attr cases[] = {{{0, {0}}, false}, {{1, {1}}, false}, {{2, {0, -1}}, true}};
enum { N_CASES = sizeof cases / sizeof *cases };

static bool reduce_sample(uint32_t i, td_sample *s)
{
    if (i > N_CASES) return false;
    if (i < N_CASES) *(reduce_attr *)s->opts = cases[i];
    s->in[0] = tdi_sample_signed(i == N_CASES ? (td_ints){0, {0}} : td_dims(2, 3, 2), i);
    return true;
}

/* With zeros: none in the first row, one in the second, two in the third. */
static bool prod_sample(uint32_t i, td_sample *s)
{
    static const float x[] = {0.5f, -2, 1.5f, 3, 0, 0.7f, 0, -1, 0};
    if (i > 2) return reduce_sample(i - 3, s);
    ((td_prod_attr *)s->opts)->axes = i == 0 ? td_dims(1) : i == 1 ? td_dims(0) : (td_ints){0, {0}};
    ((td_prod_attr *)s->opts)->keepdim = i == 1;
    s->in[0] = td_from_data(TD_F32, td_dims(3, 3), x);
    return true;
}

static bool mask_sample(uint32_t i, td_sample *s)
{
    if (i < N_CASES) *(reduce_attr *)s->opts = cases[i];
    s->in[0] = i == 0   ? tdi_sample_mask(td_dims(2, 3, 2), i)
               : i == 1 ? tdi_sample_ints(td_dims(2, 3, 2), i, 2)
               : i == 2 ? tdi_sample_signed(td_dims(2, 3, 2), i)
                        : tdi_sample_mask(td_dims(0, 3), i);
    return i < 4;
}

static bool count_sample(uint32_t i, td_sample *s)
{
    if (i == 1) ((td_count_nonzero_attr *)s->opts)->axes = td_dims(0, -1);
    s->in[0] = i ? tdi_sample_ints(td_dims(2, 3, 2), i, 2) : tdi_sample_mask(td_dims(2, 3), i);
    return i < 2;
}

static bool cumsum_sample(uint32_t i, td_sample *s)
{
    ((td_cumsum_attr *)s->opts)->axis = i == 0 ? 0 : -1;
    s->in[0] = i == 2 ? tdi_sample_ints(td_dims(5), i, 4) : tdi_sample_signed(i ? td_dims(2, 3, 2) : td_dims(3, 2), i);
    return i < 3;
}

/* ---- rows ---- */

enum { PRIM = TD_OP_PRIM | TD_OP_BWD_DIFF };

const td_op tdi_op_sum = {TD_ROW_sum, .flags = PRIM, .infer = sum_infer, .backward = sum_backward,
                          .sample = reduce_sample};
const td_op tdi_op_mean = {TD_ROW_mean,
                           .flags = TD_OP_BWD_DIFF,
                           .infer = mean_infer,
                           .backward = mean_backward,
                           .decompose = mean_decompose,
                           .sample = reduce_sample};
const td_op tdi_op_prod = {
    TD_ROW_prod, .flags = PRIM, .save_in = 1, .infer = prod_infer, .backward = prod_backward, .sample = prod_sample};
const td_op tdi_op_amax = {TD_ROW_amax,
                           .flags = PRIM,
                           .save_in = 1,
                           .save_out = 1,
                           .infer = amax_infer,
                           .backward = extreme_backward,
                           .sample = reduce_sample};
const td_op tdi_op_amin = {TD_ROW_amin,
                           .flags = PRIM,
                           .save_in = 1,
                           .save_out = 1,
                           .infer = amin_infer,
                           .backward = extreme_backward,
                           .sample = reduce_sample};
const td_op tdi_op_any = {TD_ROW_any, .infer = any_infer, .decompose = any_decompose, .sample = mask_sample};
const td_op tdi_op_all = {TD_ROW_all, .infer = all_infer, .decompose = all_decompose, .sample = mask_sample};
const td_op tdi_op_count_nonzero = {TD_ROW_count_nonzero, .infer = count_nonzero_infer,
                                    .decompose = count_nonzero_decompose, .sample = count_sample};
const td_op tdi_op_cumsum = {TD_ROW_cumsum, .flags = PRIM, .infer = cumsum_infer, .backward = cumsum_backward,
                             .sample = cumsum_sample};

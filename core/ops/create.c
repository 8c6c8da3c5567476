/* create.c - tensors from nothing: full zeros ones empty arange linspace eye; and the triangles tril and triu. */
#include "rules.h"

/* ---- full, zeros, ones, empty ---- */

static bool full_infer(td_infer *i)
{
    const td_full_attr *a = i->attr;
    if (!td_dtype_is_float(a->dtype) && !isfinite(a->value))
        return td_fail("full: value: expected a finite number for dtype %s, got %g", td_dtype_name(a->dtype), a->value);
    return tdi_infer_shape("full", i, a->shape, a->dtype);
}

static bool zeros_infer(td_infer *i)
{
    const td_zeros_attr *a = i->attr;
    return tdi_infer_shape("zeros", i, a->shape, a->dtype);
}

static bool zeros_decompose(const td_call *c, td_tensor **out)
{
    const td_zeros_attr *a = c->attr;
    out[0] = td_full(a->shape, 0, a->dtype);
    return out[0] != NULL;
}

static bool ones_infer(td_infer *i)
{
    const td_ones_attr *a = i->attr;
    return tdi_infer_shape("ones", i, a->shape, a->dtype);
}

static bool ones_decompose(const td_call *c, td_tensor **out)
{
    const td_ones_attr *a = c->attr;
    out[0] = td_full(a->shape, 1, a->dtype);
    return out[0] != NULL;
}

static bool empty_infer(td_infer *i)
{
    const td_empty_attr *a = i->attr;
    return tdi_infer_shape("empty", i, a->shape, a->dtype);
}

static bool empty_decompose(const td_call *c, td_tensor **out)
{
    const td_empty_attr *a = c->attr;
    out[0] = td_full(a->shape, 0, a->dtype);
    return out[0] != NULL;
}

static bool full_sample(uint32_t i, td_sample *s)
{
    static const td_full_attr cases[] = {
        {{2, {2, 3}}, -1.5, TD_F32}, {{0, {0}}, 7, TD_I64}, {{2, {0, 3}}, 1, TD_F32}, {{1, {3}}, 1, TD_BOOL}};
    if (i >= sizeof cases / sizeof *cases) return false;
    *(td_full_attr *)s->opts = cases[i];
    return true;
}

static bool zeros_sample(uint32_t i, td_sample *s)
{
    td_zeros_attr *a = s->opts;
    a->shape = i ? td_dims(4) : td_dims(2, 3);
    a->dtype = i ? TD_I32 : TD_F32;
    return i < 2;
}

static bool ones_sample(uint32_t i, td_sample *s)
{
    td_ones_attr *a = s->opts;
    a->shape = i ? td_dims(4) : td_dims(2, 3);
    a->dtype = i ? TD_BOOL : TD_F32;
    return i < 2;
}

/* Without elements: the values of others are whatever the memory held, which no test can compare. */
static bool empty_sample(uint32_t i, td_sample *s)
{
    td_empty_attr *a = s->opts;
    a->shape = i ? td_dims(0) : td_dims(2, 0);
    return i < 2;
}

/* ---- arange, linspace ---- */

static bool arange_infer(td_infer *i)
{
    const td_arange_attr *a = i->attr;
    if (!isfinite(a->start) || !isfinite(a->stop) || !isfinite(a->step))
        return td_fail("arange: expected finite numbers, got start %g, stop %g, step %g", a->start, a->stop, a->step);
    if (a->step == 0) return td_fail("arange: step: expected a number other than 0");
    if (a->dtype == TD_BOOL) return td_fail_as(TD_EDTYPE, "arange: dtype: expected numbers, got bool");
    double n = ceil((a->stop - a->start) / a->step);
    if (!(n < 0x1p60)) return td_fail_as(TD_ESHAPE, "arange: %g elements are more than memory can hold", n);
    return tdi_infer_shape("arange", i, td_dims(n > 0 ? (int64_t)n : 0), a->dtype);
}

static bool arange_sample(uint32_t i, td_sample *s)
{
    static const td_arange_attr cases[] = {
        {0, 5, 1, TD_F32}, {3, -2, -1.5, TD_F32}, {-4, 9, 3, TD_I64}, {2, 2, 1, TD_F32}};
    if (i >= sizeof cases / sizeof *cases) return false;
    *(td_arange_attr *)s->opts = cases[i];
    return true;
}

static bool linspace_infer(td_infer *i)
{
    const td_linspace_attr *a = i->attr;
    if (!isfinite(a->start) || !isfinite(a->stop))
        return td_fail("linspace: expected finite numbers, got start %g, stop %g", a->start, a->stop);
    if (a->dtype == TD_BOOL) return td_fail_as(TD_EDTYPE, "linspace: dtype: expected numbers, got bool");
    if (a->steps < 0) return td_fail("linspace: steps: expected at least 0, got %lld", (long long)a->steps);
    return tdi_infer_shape("linspace", i, td_dims(a->steps), a->dtype);
}

/* In f64, the first half counted from start and the second from stop: both ends are exact. */
static bool linspace_decompose(const td_call *c, td_tensor **out)
{
    const td_linspace_attr *a = c->attr;
    double n = (double)a->steps, step = n > 1 ? a->stop / (n - 1) - a->start / (n - 1) : 0;
    td_tensor *k = td_arange(0, n, 1, TD_F64);
    td_tensor *up = tdi_plus(tdi_times(k, step), a->start);
    td_tensor *down = tdi_from(a->stop, tdi_times(tdi_from(n - 1, k), step));
    out[0] = tdi_to(td_where(td_lt(k, td_number(n / 2)), up, down), a->dtype);
    return out[0] != NULL;
}

static bool linspace_sample(uint32_t i, td_sample *s)
{
    static const td_linspace_attr cases[] = {
        {0, 1, 5, TD_F32}, {2, -3, 4, TD_F32}, {7, 9, 1, TD_F32}, {0, 1, 0, TD_F32}};
    if (i >= sizeof cases / sizeof *cases) return false;
    *(td_linspace_attr *)s->opts = cases[i];
    return true;
}

/* ---- eye, tril, triu: comparisons of a column of row numbers with a row of column numbers ---- */

static td_tensor *column_numbers(int64_t n) { return td_arange(0, (double)n, 1, TD_I64); }

static td_tensor *row_numbers(int64_t n, int64_t first)
{
    return td_unsqueeze(td_arange((double)first, (double)(first + n), 1, TD_I64), 1);
}

static bool eye_infer(td_infer *i)
{
    const td_eye_attr *a = i->attr;
    return tdi_infer_shape("eye", i, td_dims(a->n, a->has_m ? a->m : a->n), a->dtype);
}

static bool eye_decompose(const td_call *c, td_tensor **out)
{
    const td_eye_attr *a = c->attr;
    out[0] = tdi_to(td_eq(row_numbers(a->n, 0), column_numbers(a->has_m ? a->m : a->n)), a->dtype);
    return out[0] != NULL;
}

static bool eye_sample(uint32_t i, td_sample *s)
{
    td_eye_attr *a = s->opts;
    a->n = 3;
    a->has_m = i == 1;
    a->m = 2;
    a->dtype = i == 2 ? TD_I64 : TD_F32;
    return i < 3;
}

static bool want_matrix(const char *op, const td_view *x)
{
    return x->nd >= 2 ||
           td_fail_as(TD_ESHAPE, "%s: expected a tensor of at least 2 axes, got shape %s", op, tdi_shape_text(x));
}

static bool tril_infer(td_infer *i) { return want_matrix("tril", i->in[0]); }
static bool triu_infer(td_infer *i) { return want_matrix("triu", i->in[0]); }

/* Row numbers moved by the diagonal, which is cut to where it makes a difference, so that no sum overflows. */
static td_tensor *moved_rows(td_tensor *x, int64_t diagonal)
{
    int64_t rows = td_dim(x, -2), columns = td_dim(x, -1);
    diagonal = diagonal < -rows ? -rows : diagonal > columns ? columns : diagonal;
    return row_numbers(rows, diagonal);
}

static bool tril_decompose(const td_call *c, td_tensor **out)
{
    const td_tril_attr *a = c->attr;
    td_tensor *x = c->in[0];
    out[0] = tdi_cut(td_gt(column_numbers(td_dim(x, -1)), moved_rows(x, a->diagonal)), x);
    return out[0] != NULL;
}

static bool triu_decompose(const td_call *c, td_tensor **out)
{
    const td_triu_attr *a = c->attr;
    td_tensor *x = c->in[0];
    out[0] = tdi_cut(td_lt(column_numbers(td_dim(x, -1)), moved_rows(x, a->diagonal)), x);
    return out[0] != NULL;
}

TDI_GRADIENT(tril, td_tril(g, ((const td_tril_attr *)c->attr)->diagonal))
TDI_GRADIENT(triu, td_triu(g, ((const td_triu_attr *)c->attr)->diagonal))

static bool triangle_sample(uint32_t i, td_sample *s, int64_t *diagonal)
{
    *diagonal = (int64_t)i - 1;
    s->in[0] = tdi_sample_signed(i == 2 ? td_dims(2, 3, 3) : i == 1 ? td_dims(4, 2) : td_dims(3, 4), i);
    return i < 3;
}

static bool tril_sample(uint32_t i, td_sample *s)
{
    return triangle_sample(i, s, &((td_tril_attr *)s->opts)->diagonal);
}

static bool triu_sample(uint32_t i, td_sample *s)
{
    return triangle_sample(i, s, &((td_triu_attr *)s->opts)->diagonal);
}

/* ---- rows ---- */

const td_op tdi_op_full = {TD_ROW_full, .flags = TD_OP_PRIM, .infer = full_infer, .sample = full_sample};
const td_op tdi_op_zeros = {TD_ROW_zeros, .infer = zeros_infer, .decompose = zeros_decompose, .sample = zeros_sample};
const td_op tdi_op_ones = {TD_ROW_ones, .infer = ones_infer, .decompose = ones_decompose, .sample = ones_sample};
const td_op tdi_op_empty = {TD_ROW_empty, .infer = empty_infer, .decompose = empty_decompose, .sample = empty_sample};
const td_op tdi_op_arange = {TD_ROW_arange, .flags = TD_OP_PRIM, .infer = arange_infer, .sample = arange_sample};
const td_op tdi_op_linspace = {TD_ROW_linspace, .infer = linspace_infer, .decompose = linspace_decompose,
                               .sample = linspace_sample};
const td_op tdi_op_eye = {TD_ROW_eye, .infer = eye_infer, .decompose = eye_decompose, .sample = eye_sample};
const td_op tdi_op_tril = {TD_ROW_tril,
                           .flags = TD_OP_BWD_DIFF,
                           .infer = tril_infer,
                           .backward = tril_backward,
                           .decompose = tril_decompose,
                           .sample = tril_sample};
const td_op tdi_op_triu = {TD_ROW_triu,
                           .flags = TD_OP_BWD_DIFF,
                           .infer = triu_infer,
                           .backward = triu_backward,
                           .decompose = triu_decompose,
                           .sample = triu_sample};

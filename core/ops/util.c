/* util.c - what the op definitions share (ops.h, rules.h): broadcasting, axes, dtype rules, expressions, samples. */
#include "rules.h"
#include "context.h"
#include <stdio.h>

/* ---- messages ---- */

const char *tdi_shape_text(const td_view *v)
{
    enum { ROOM = 8 + TD_MAX_DIM * 22 };
    td_context *c = tdi_ctx();
    char *text = c->text[c->text_n++ % 8];
    static_assert(sizeof c->text[0] >= ROOM, "a shape fits a text buffer");
    int at = snprintf(text, ROOM, "(");
    for (int32_t d = 0; d < v->nd; d++)
        at += snprintf(text + at, (size_t)(ROOM - at), "%s%lld", d ? ", " : "", (long long)v->dim[d]);
    snprintf(text + at, (size_t)(ROOM - at), ")");
    return text;
}

/* As a user counts: from 1, or negative from the end. */
static long long shown(int64_t axis) { return axis < 0 || axis == INT64_MAX ? (long long)axis : (long long)axis + 1; }

/* ---- axes ---- */

int tdi_axis(const char *op, int64_t axis, const td_view *x)
{
    int64_t nd = x->nd ? x->nd : 1, at = axis < 0 ? axis + nd : axis;
    if (at >= 0 && at < nd) return (int)at;
    td_fail_as(TD_ESHAPE, "%s: expected an axis of a tensor of shape %s, got %lld", op, tdi_shape_text(x), shown(axis));
    return -1;
}

bool tdi_axes_mask(const char *op, td_ints axes, const td_view *x, uint32_t *mask)
{
    *mask = axes.n ? 0 : (1u << x->nd) - 1;
    if (axes.n < 0) return td_fail("%s: axes: expected a list, got one of length %lld", op, (long long)axes.n);
    for (int64_t k = 0; k < axes.n; k++) {
        int axis = tdi_axis(op, axes.v[k], x);
        if (axis < 0) return false;
        if (*mask & 1u << axis) return td_fail_as(TD_ESHAPE, "%s: axis %d is given twice", op, axis + 1);
        *mask |= 1u << axis;
    }
    return true;
}

uint32_t tdi_mask(td_ints axes, const td_tensor *x)
{
    uint32_t mask = 0;
    tdi_axes_mask("axes", axes, td_view_of(x), &mask);
    return mask;
}

int64_t tdi_count(const td_view *x, uint32_t mask)
{
    int64_t n = 1;
    for (int32_t d = 0; d < x->nd; d++)
        if (mask & 1u << d) n *= x->dim[d];
    return n;
}

bool tdi_pair(const char *op, const char *what, td_ints given, int64_t dflt, int64_t out[2])
{
    if (given.n < 0 || given.n > 2)
        return td_fail_as(TD_ESHAPE, "%s: %s: expected one number or two (height, width), got %lld", op, what,
                          (long long)given.n);
    out[0] = given.n ? given.v[0] : dflt;
    out[1] = given.n == 2 ? given.v[1] : out[0];
    return true;
}

/* ---- broadcasting ---- */

bool tdi_broadcast(const char *op, const td_view *a, const td_view *b, td_view *out)
{
    int32_t nd = a->nd > b->nd ? a->nd : b->nd, skip_a = nd - a->nd, skip_b = nd - b->nd;
    int64_t dim[TD_MAX_DIM];
    bool same = a->nd == b->nd;
    for (int32_t d = 0; same && d < nd; d++) same = a->dim[d] == b->dim[d];
    if (same) {
        out->nd = nd;
        for (int32_t d = 0; d < nd; d++) out->dim[d] = a->dim[d];
        return true;
    }
    for (int32_t d = 0; d < nd; d++) {
        int64_t da = d < skip_a ? 1 : a->dim[d - skip_a], db = d < skip_b ? 1 : b->dim[d - skip_b];
        if (da != db && da != 1 && db != 1)
            return td_fail_as(TD_ESHAPE, "%s: shapes %s and %s do not broadcast: axis -%d has %lld and %lld", op,
                              tdi_shape_text(a), tdi_shape_text(b), nd - d, (long long)da, (long long)db);
        dim[d] = da == 1 ? db : da;
    }
    out->nd = nd;
    for (int32_t d = 0; d < nd; d++) out->dim[d] = dim[d];
    return true;
}

td_tensor *tdi_sum_to(td_tensor *x, const td_tensor *like)
{
    const td_view *xv = td_view_of(x), *lv = td_view_of(like);
    if (!x) return NULL;
    int32_t extra = xv->nd - lv->nd;
    td_ints axes = {0, {0}};
    for (int32_t d = 0; d < xv->nd; d++)
        if (d < extra || (lv->dim[d - extra] == 1 && xv->dim[d] != 1)) axes.v[axes.n++] = d;
    if (axes.n) x = td_sum(x, axes, false);
    return tdi_to(tdi_shaped(x, td_shape(like)), lv->dt);
}

/* ---- dtype rules ---- */

void tdi_compute_float(td_infer *i)
{
    if (!td_dtype_is_float(i->compute)) i->compute = TD_F32;
    i->out[0]->dt = i->compute;
}

void tdi_compute_wide(td_infer *i)
{
    if (!td_dtype_is_float(i->compute)) i->compute = TD_I64;
    i->out[0]->dt = i->compute;
}

bool tdi_infer_float(td_infer *i)
{
    tdi_compute_float(i);
    return true;
}

bool tdi_want_numbers(const char *op, const td_infer *i)
{
    return i->compute != TD_BOOL || td_fail_as(TD_EDTYPE, "%s: expected numbers, got bool", op);
}

bool tdi_want_float(const char *op, const td_infer *i)
{
    return td_dtype_is_float(i->compute) ||
           td_fail_as(TD_EDTYPE, "%s: expected a float tensor, got %s", op, td_dtype_name(i->compute));
}

/* ---- shape rules ---- */

bool tdi_infer_binary(const char *op, td_infer *i)
{
    i->out[0]->dt = i->compute;
    return tdi_broadcast(op, i->in[0], i->in[1], i->out[0]);
}

bool tdi_infer_shape(const char *op, td_infer *i, td_ints shape, td_dtype dt)
{
    td_view *y = i->out[0];
    int64_t bytes = (int64_t)td_dtype_size(dt);
    if (!bytes) return td_fail_as(TD_EDTYPE, "%s: dtype: no dtype has the number %d", op, (int)dt);
    if (shape.n < 0 || shape.n > TD_MAX_DIM)
        return td_fail_as(TD_ESHAPE, "%s: shape: expected at most %d extents, got %lld", op, TD_MAX_DIM,
                          (long long)shape.n);
    for (int64_t d = 0; d < shape.n; d++) {
        if (shape.v[d] < 0)
            return td_fail_as(TD_ESHAPE, "%s: shape: expected extents >= 0, got %lld for axis %lld", op,
                              (long long)shape.v[d], (long long)d + 1);
        int64_t extent = shape.v[d] ? shape.v[d] : 1;
        if (__builtin_mul_overflow(bytes, extent, &bytes) || bytes > INT64_C(1) << 62)
            return td_fail_as(TD_ESHAPE, "%s: shape: extent %lld of axis %lld: more elements than memory can hold", op,
                              (long long)shape.v[d], (long long)d + 1);
        y->dim[d] = shape.v[d];
    }
    y->nd = (int32_t)shape.n;
    y->dt = i->compute = dt;
    return true;
}

void tdi_drop_axes(td_view *out, uint32_t mask, bool keepdim)
{
    int32_t kept = 0;
    for (int32_t d = 0; d < out->nd; d++) {
        bool drop = mask & 1u << d;
        if (drop && !keepdim) continue;
        out->dim[kept++] = drop ? 1 : out->dim[d];
    }
    out->nd = kept;
}

bool tdi_infer_reduce(const char *op, td_infer *i, td_ints axes, bool keepdim)
{
    uint32_t mask;
    i->out[0]->dt = i->compute;
    if (!tdi_axes_mask(op, axes, i->in[0], &mask)) return false;
    tdi_drop_axes(i->out[0], mask, keepdim);
    return true;
}

bool tdi_infer_reduce_one(const char *op, td_infer *i, int64_t axis, bool keepdim)
{
    int at = tdi_axis(op, axis, i->in[0]);
    if (at < 0) return false;
    for (uint32_t k = 0; k < i->n_out; k++) tdi_drop_axes(i->out[k], 1u << at, keepdim);
    return true;
}

bool tdi_want_elements(const char *op, const td_view *x, uint32_t mask)
{
    return tdi_count(x, mask) > 0 ||
           td_fail_as(TD_ESHAPE, "%s: expected at least one element to choose from, got a tensor of shape %s", op,
                      tdi_shape_text(x));
}

/* ---- expressions ---- */

td_tensor *tdi_zero(td_dtype dt)
{
    if (td_dtype_is_float(dt)) return td_number(0);
    return dt == TD_BOOL ? td_cast(td_integer(0), TD_BOOL) : td_integer(0);
}

td_tensor *tdi_to(td_tensor *x, td_dtype dt) { return !x || td_dtype_of(x) == dt ? x : td_cast(x, dt); }

td_tensor *tdi_shaped(td_tensor *x, td_ints shape)
{
    const td_view *v = td_view_of(x);
    bool same = v->nd == shape.n;
    for (int32_t d = 0; same && d < v->nd; d++) same = v->dim[d] == shape.v[d];
    return !x || same ? x : td_reshape(x, shape);
}

td_tensor *tdi_as_mask(td_tensor *x)
{
    td_dtype dt = td_dtype_of(x);
    return dt == TD_BOOL ? x : td_ne(x, tdi_zero(dt));
}

td_tensor *tdi_with_axes(td_tensor *reduced, const td_tensor *x, uint32_t mask)
{
    td_ints shape = td_shape(x);
    for (int64_t d = 0; d < shape.n; d++)
        if (mask & 1u << d) shape.v[d] = 1;
    return tdi_shaped(reduced, shape);
}

td_tensor *tdi_spread(td_tensor *reduced, const td_tensor *x, uint32_t mask)
{
    if (td_ndim(reduced) > 0) reduced = tdi_with_axes(reduced, x, mask); /* a single number fits any shape */
    return td_expand(reduced, td_shape(x));
}

bool tdi_no_gradient(const td_call *c, td_tensor *const *gout, td_tensor **gin, uint64_t need)
{
    (void)c, (void)gout, (void)gin, (void)need;
    return true;
}

/* ---- sample values ---- */

enum { SAMPLE_MAX = 256 };

static int64_t sample_count(td_ints shape)
{
    int64_t n = 1;
    for (int64_t d = 0; d < shape.n; d++) n *= shape.v[d];
    return n <= SAMPLE_MAX ? n : 0; /* none asks for more */
}

/* Multiples of the golden ratio, modulo 1: no two are alike, and they fill the interval evenly. */
static double sample_point(uint32_t seed, int64_t k)
{
    double p = 0.7548776662 * (seed + 1) + 0.6180339887 * (double)k;
    return p - floor(p);
}

td_tensor *tdi_sample(td_ints shape, uint32_t seed, double lo, double hi)
{
    float v[SAMPLE_MAX] = {0};
    int64_t n = sample_count(shape);
    for (int64_t k = 0; k < n; k++) v[k] = (float)(lo + (hi - lo) * sample_point(seed, k));
    return td_from_data(TD_F32, shape, v);
}

td_tensor *tdi_sample_signed(td_ints shape, uint32_t seed)
{
    float v[SAMPLE_MAX] = {0};
    int64_t n = sample_count(shape);
    for (int64_t k = 0; k < n; k++) {
        double p = 2 * sample_point(seed, k) - 1;
        v[k] = (float)(p < 0 ? 1.5 * p - 0.25 : 1.5 * p + 0.25);
    }
    return td_from_data(TD_F32, shape, v);
}

td_tensor *tdi_sample_ints(td_ints shape, uint32_t seed, int64_t n)
{
    int64_t v[SAMPLE_MAX] = {0}, count = sample_count(shape);
    for (int64_t k = 0; k < count; k++) v[k] = (int64_t)(sample_point(seed, k) * (double)n);
    return td_from_data(TD_I64, shape, v);
}

td_tensor *tdi_sample_mask(td_ints shape, uint32_t seed)
{
    uint8_t v[SAMPLE_MAX] = {0};
    int64_t n = sample_count(shape);
    for (int64_t k = 0; k < n; k++) v[k] = sample_point(seed, k) < 0.5;
    return td_from_data(TD_BOOL, shape, v);
}

static const td_ints sample_shape[] = {{2, {2, 3}}, {0, {0}}, {3, {2, 1, 4}}};
enum { N_SHAPES = sizeof sample_shape / sizeof *sample_shape };

bool tdi_samples_signed(uint32_t i, td_sample *s)
{
    if (i >= N_SHAPES) return false;
    s->in[0] = tdi_sample_signed(sample_shape[i], i);
    return true;
}

bool tdi_samples_positive(uint32_t i, td_sample *s)
{
    if (i >= N_SHAPES) return false;
    s->in[0] = tdi_sample(sample_shape[i], i, 0.3, 2);
    return true;
}

bool tdi_samples_pair(uint32_t i, td_sample *s)
{
    static const td_ints x[] = {{2, {2, 3}}, {2, {2, 1}}, {2, {2, 3}}}, y[] = {{2, {2, 3}}, {1, {3}}, {0, {0}}};
    if (i >= sizeof x / sizeof *x) return false;
    s->in[0] = tdi_sample_signed(x[i], 2 * i);
    s->in[1] = tdi_sample_signed(y[i], 2 * i + 1);
    return true;
}

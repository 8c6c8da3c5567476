/* common.h - checks, builders and makers of samples that the files on views, indexing and neural networks share. */
#ifndef TIDE_OPS_COMMON_H
#define TIDE_OPS_COMMON_H
#include "ops.h"

/* ---- checks: false (or -1) after an error ---- */

/** An axis or index as a Lua user counts it, for messages; negative ones are the same in both worlds, and what was 0
 * there has arrived as the least integer. */
static inline long long tdi_user(int64_t i) { return i == INT64_MIN ? 0 : i < 0 || i == INT64_MAX ? i : i + 1; }

/** tdi_axis for ops that move along an axis, so that x must have one. */
static inline int tdi_real_axis(const char *op, int64_t axis, const td_view *x)
{
    if (x->nd) return tdi_axis(op, axis, x);
    td_fail_as(TD_ESHAPE, "%s: x: expected a tensor with axes, got one of a single element without axes", op);
    return -1;
}

static inline bool tdi_index_ok(const char *op, const char *name, const td_view *v)
{
    return v->dt == TD_I64 ||
           td_fail_as(TD_EDTYPE, "%s: %s: expected indices of dtype i64, got %s", op, name, td_dtype_name(v->dt));
}

static inline bool tdi_float_ok(const char *op, td_dtype dt)
{
    return td_dtype_is_float(dt) || td_fail_as(TD_EDTYPE, "%s: expected a float dtype, got %s", op, td_dtype_name(dt));
}

/** letters: what the axes are called, "N, C, H, W". */
static inline bool tdi_ndim_ok(const char *op, const char *name, const td_view *v, int32_t nd, const char *letters)
{
    return v->nd == nd || td_fail_as(TD_ESHAPE, "%s: %s: expected %d axes (%s), got shape %s", op, name, (int)nd,
                                     letters, tdi_shape_text(v));
}

static inline bool tdi_same_shape(const td_view *a, const td_view *b)
{
    if (a->nd != b->nd) return false;
    for (int32_t i = 0; i < a->nd; i++)
        if (a->dim[i] != b->dim[i]) return false;
    return true;
}

static inline bool tdi_shapes_equal(const char *op, const char *a_name, const td_view *a, const char *b_name,
                                    const td_view *b)
{
    return tdi_same_shape(a, b) || td_fail_as(TD_ESHAPE, "%s: %s and %s must have the same shape, got %s and %s", op,
                                              a_name, b_name, tdi_shape_text(a), tdi_shape_text(b));
}

/** A vector with one entry for each of n channels, classes, …; an absent one is fine. */
static inline bool tdi_vector_ok(const char *op, const char *name, const td_view *v, int64_t n)
{
    return !v || (v->nd == 1 && v->dim[0] == n) ||
           td_fail_as(TD_ESHAPE, "%s: %s: expected shape (%lld), got %s", op, name, (long long)n, tdi_shape_text(v));
}

/** Whether the extents other than 0 have a product that can be counted; no view may have more elements. */
static inline bool tdi_extents_ok(const char *op, const td_view *v)
{
    int64_t n = 1;
    for (int32_t i = 0; i < v->nd; i++)
        if (v->dim[i] && __builtin_mul_overflow(n, v->dim[i], &n))
            return td_fail_as(TD_ESHAPE, "%s: a result of shape %s has too many elements", op, tdi_shape_text(v));
    return true;
}

static inline bool tdi_room_for_axis(const char *op, const td_view *x)
{
    return x->nd < TD_MAX_DIM || td_fail_as(TD_ESHAPE, "%s: x %s has %d axes already, and a tensor has at most %d", op,
                                            tdi_shape_text(x), (int)x->nd, (int)TD_MAX_DIM);
}

/* ---- builders ---- */

static inline void tdi_set_dims(td_view *v, td_ints d)
{
    v->nd = (int32_t)d.n;
    for (int64_t i = 0; i < d.n; i++) v->dim[i] = d.v[i];
}

/** Zeros of x's shape and g's dtype: what a gradient is gathered in. x may be a shell. */
static inline td_tensor *tdi_zeros_for(const td_tensor *x, const td_tensor *g)
{
    return td_zeros(td_shape(x), td_dtype_of(g));
}

/** The elements in a row, row-major. */
static inline td_tensor *tdi_flat(td_tensor *x) { return td_reshape(x, td_dims(td_numel(x))); }

/** A 1-D v laid along one of nd axes, the others of extent 1, so that it broadcasts. */
static inline td_tensor *tdi_along(td_tensor *v, int axis, int nd)
{
    td_ints s = {nd, {0}};
    for (int i = 0; i < nd; i++) s.v[i] = 1;
    s.v[axis] = td_dim(v, 0);
    return td_reshape(v, s);
}

/** 0, 1, …, n - 1 as i64. */
static inline td_tensor *tdi_count_to(int64_t n) { return td_arange(0, (double)n, 1, TD_I64); }

/** x with `before` zeros in front of an axis and `after` behind it; negative numbers cut. */
static inline td_tensor *tdi_fit_axis(td_tensor *x, int axis, int64_t before, int64_t after)
{
    int64_t cut_front = before < 0 ? -before : 0, cut_back = after < 0 ? -after : 0;
    td_ints pads = {0, {0}};
    if (cut_front || cut_back) x = td_narrow(x, axis, cut_front, td_dim(x, axis) - cut_front - cut_back);
    if (before <= 0 && after <= 0) return x;
    int64_t place = 2 * (int64_t)(td_ndim(x) - 1 - axis);
    if (place < 0) return NULL; /* x is that of a failed call */
    pads.n = place + 2;
    pads.v[place] = before > 0 ? before : 0;
    pads.v[place + 1] = after > 0 ? after : 0;
    return td_pad(x, pads, 0);
}

/** Which elements of src the scatter of src at i leaves in a tensor of that shape: of repeated indices, the last. */
td_tensor *tdi_last_written(td_ints shape, td_tensor *i, int64_t axis);

/* ---- samples ---- */

/** Up to 256 different values in -2 .. 2, scrambled and equally far apart: no ties for central differences to cross. */
static inline td_tensor *tdi_distinct(td_ints shape)
{
    float v[256];
    int64_t n = 1;
    for (int64_t i = 0; i < shape.n; i++) n *= shape.v[i];
    if (n > 256) return td_fail("sample: %lld values asked for, at most 256", (long long)n);
    for (int64_t k = 0; k < n; k++) /* 89 is prime to every n used here */
        v[k] = -2.0f + 4.0f * ((float)((89 * k + 37) % n) + 0.5f) / (float)n;
    return td_from_data(TD_F32, shape, v);
}

static inline td_tensor *tdi_normal(td_ints shape) { return td_randn(shape, TD_F32); }

/** Indices for a sample:  tdi_indices(td_dims(3), (const int64_t[]){2, 0, 1}) */
static inline td_tensor *tdi_indices(td_ints shape, const int64_t *v) { return td_from_data(TD_I64, shape, v); }

#endif

/* recurrent.h - what the definitions of the recurrent ops and of their gradients share.
 * T steps, N rows, I inputs, H hidden units, G gates a unit.   x (T, N, I)   h0, c0 (N, H)   w_ih (GH, I)   w_hh (GH, H) */
#ifndef TIDE_OPS_RECURRENT_H
#define TIDE_OPS_RECURRENT_H
#include "common.h"
#include <stdlib.h>

enum { LSTM_GATES = 4, GRU_GATES = 3, RNN_GATES = 1, GRU_SAVED = 4 };

/** The extents of a call. */
typedef struct {
    int64_t t, n, i, h;
} rc_extents;

/** Whether v has the given shape; absent is fine. what: "(N, H)" */
static inline bool rc_shape_ok(const char *op, const char *name, const char *what, const td_view *v, td_ints d)
{
    td_view want = {.nd = 0};
    if (!v) return true;
    tdi_set_dims(&want, d);
    return tdi_same_shape(v, &want) || td_fail_as(TD_ESHAPE, "%s: %s: expected %s = %s, got %s", op, name, what,
                                                  tdi_shape_text(&want), tdi_shape_text(v));
}

/** Reads the extents from x and the weights, which must fit each other, as must h0 and c0. */
static inline bool rc_read(const char *op, const td_infer *q, int gates, const td_view *x, const td_view *h0,
                           const td_view *c0, const td_view *w_ih, const td_view *w_hh, rc_extents *e)
{
    if (!tdi_float_ok(op, q->compute) || !tdi_ndim_ok(op, "x", x, 3, "T, N, I")) return false;
    if (!tdi_ndim_ok(op, "w_hh", w_hh, 2, "gates H, H")) return false;
    *e = (rc_extents){x->dim[0], x->dim[1], x->dim[2], w_hh->dim[1]};
    if (e->t == 0)
        return td_fail_as(TD_ESHAPE, "%s: x: expected at least one step, got shape %s", op, tdi_shape_text(x));
    if (e->h == 0)
        return td_fail_as(TD_ESHAPE, "%s: w_hh: expected at least one hidden unit, got shape %s", op,
                          tdi_shape_text(w_hh));
    return rc_shape_ok(op, "w_hh", "(gates H, H)", w_hh, td_dims(gates * e->h, e->h)) &&
           rc_shape_ok(op, "w_ih", "(gates H, I)", w_ih, td_dims(gates * e->h, e->i)) &&
           rc_shape_ok(op, "h0", "(N, H)", h0, td_dims(e->n, e->h)) &&
           rc_shape_ok(op, "c0", "(N, H)", c0, td_dims(e->n, e->h));
}

/** The step that is taken as number s. */
static inline int64_t rc_step(int64_t s, int64_t steps, bool reverse) { return reverse ? steps - 1 - s : s; }

static inline td_tensor *rc_at(td_tensor *sequence, int64_t t) { return td_select(sequence, 0, t); }

/** Piece k of the gates (N, ·), each H wide. */
static inline td_tensor *rc_part(td_tensor *gates, int k, int64_t h) { return td_narrow(gates, 1, k * h, h); }

/** (N, H) of zeros where a state is absent. */
static inline td_tensor *rc_state(td_tensor *given, td_tensor *x, int64_t h)
{
    return given ? given : td_zeros(td_dims(td_dim(x, 1), h), td_dtype_of(x));
}

/** a b + c d */
static inline td_tensor *rc_blend(td_tensor *a, td_tensor *b, td_tensor *c, td_tensor *d)
{
    return td_add(td_mul(a, b), td_mul(c, d));
}

/** Room for a list of `lists` times T tensors; free() it. NULL after an error. */
static inline td_tensor **rc_lists(const char *op, int64_t t, int lists)
{
    td_tensor **v = calloc((size_t)t * (size_t)lists, sizeof *v);
    if (!v) td_fail_as(TD_ENOMEM, "%s: out of memory", op);
    return v;
}

/** Inputs for a sample: x (3, 2, 2), H = 3; with states and biases in case 1, reverse in case 2. */
typedef struct {
    td_tensor *x, *h0, *c0, *w_ih, *w_hh, *b_ih, *b_hh;
} rc_case;

static inline rc_case rc_sample(uint32_t i, int gates)
{
    bool all = i == 1;
    int64_t g = 3 * gates;
    rc_case c = {tdi_normal(td_dims(3, 2, 2)), NULL, NULL, tdi_normal(td_dims(g, 2)),
                 tdi_normal(td_dims(g, 3)),    NULL, NULL};
    if (!all) return c;
    c.h0 = tdi_normal(td_dims(2, 3));
    c.c0 = tdi_normal(td_dims(2, 3));
    c.b_ih = tdi_normal(td_dims(g));
    c.b_hh = tdi_normal(td_dims(g));
    return c;
}

#endif

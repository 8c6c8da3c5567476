/* recurrent_backward.c - gradients of lstm, gru and rnn: backpropagation through time (Werbos 1990). Going from the last
 * step taken to the first, with dh the gradient of a step's h (from y and from the step after), da that of the sums
 * before sigmoid and tanh, and h', c' the states before the step:
 *     lstm  tc = tanh(c)   dc += dh o (1 - tc^2)   da = dc g i (1 - i), dc c' f (1 - f), dc i (1 - g^2), dh tc o (1 - o)
 *           dh' = da w_hh   dc' = dc f
 *     gru   q = w_hn h' + b_hn   da_n = dh (1 - z) (1 - n^2)   da_z = dh (h' - n) z (1 - z)   da_r = da_n q r (1 - r)
 *           of the sums with x: da_r da_z da_n; of those with h: da_r da_z da_n r, from which dh' = … w_hh + dh z
 *     rnn   da = dh (1 - h^2), or dh where h > 0   dh' = da w_hh
 * Over all steps at once: gx = da w_ih, gw_ih = sum da x^T, gw_hh = sum da h'^T, gb = sum da. */
#include "recurrent.h"
#include "rules.h"

/* ---- shared ---- */

/* What the gradients of a whole sequence have in common. */
typedef struct {
    const char *op;
    td_tensor *x, *h0, *w_ih, *w_hh, *y, *gy;
    int64_t steps, h;
    bool reverse, need_x;
} sequence;

static sequence read_sequence(const char *op, td_tensor *const *in, td_tensor *h0, td_tensor *w_ih, td_tensor *w_hh,
                              td_tensor *y, td_tensor *gy, bool reverse, bool need_x)
{
    return (sequence){op, in[0], h0, w_ih, w_hh, y, gy, td_dim(in[0], 0), td_dim(w_hh, 1), reverse, need_x};
}

/* The state before step number s, from the outputs. */
static td_tensor *state_before(const sequence *q, int64_t s)
{
    return s > 0 ? rc_at(q->y, rc_step(s - 1, q->steps, q->reverse)) : rc_state(q->h0, q->x, q->h);
}

/* dh of a step, what comes from y added. */
static td_tensor *with_output(const sequence *q, td_tensor *dh, int64_t t)
{
    return q->gy ? td_add(dh, rc_at(q->gy, t)) : dh;
}

/* (T, N, W) as (T N, W) */
static td_tensor *all_rows(td_tensor *x) { return td_reshape(x, td_dims(td_dim(x, 0) * td_dim(x, 1), td_dim(x, 2))); }

/* sum over steps and rows of da^T with b */
static td_tensor *summed_product(td_tensor *da, td_tensor *b)
{
    return td_matmul(td_transpose(all_rows(da), 0, 1), all_rows(b));
}

static td_tensor *summed(td_tensor *da) { return td_sum(all_rows(da), td_dims(0), false); }

/* Every state before a step, (T, N, H), in the order of x. */
static td_tensor *states_before(const sequence *q)
{
    td_tensor **list = rc_lists(q->op, q->steps, 1);
    if (!list) return NULL;
    for (int64_t s = 0; s < q->steps; s++) list[rc_step(s, q->steps, q->reverse)] = state_before(q, s);
    td_tensor *all = td_stack(list, (uint32_t)q->steps, 0);
    free(list);
    return all;
}

static td_tensor *gradient_of_x(const sequence *q, td_tensor *da)
{
    return q->need_x ? td_matmul(da, q->w_ih) : td_zeros(td_dims(0), td_dtype_of(q->x));
}

/* 1 - v */
static td_tensor *rest(td_tensor *v) { return tdi_from(1, v); }
/* v (1 - v), the slope of sigmoid; 1 - v^2, that of tanh */
static td_tensor *slope(td_tensor *v) { return td_mul(v, rest(v)); }
static td_tensor *tanh_slope(td_tensor *v) { return rest(td_square(v)); }

/* gx gh0 (gc0) gw_ih gw_hh, and n_bias of the gradients of biases. */
static void gradient_dims(td_infer *q, const rc_extents *e, int gates, bool need_x, int n_state, int n_bias)
{
    int k = 0;
    tdi_set_dims(q->out[k++], need_x ? td_dims(e->t, e->n, e->i) : td_dims(0));
    for (int i = 0; i < n_state; i++) tdi_set_dims(q->out[k++], td_dims(e->n, e->h));
    tdi_set_dims(q->out[k++], td_dims(gates * e->h, e->i));
    tdi_set_dims(q->out[k++], td_dims(gates * e->h, e->h));
    for (int i = 0; i < n_bias; i++) tdi_set_dims(q->out[k++], td_dims(gates * e->h));
}

static bool outputs_ok(const char *op, const rc_extents *e, const td_view *y, const td_view *gy, const td_view *gh)
{
    td_ints all = td_dims(e->t, e->n, e->h);
    return rc_shape_ok(op, "y", "(T, N, H)", y, all) && rc_shape_ok(op, "gy", "(T, N, H)", gy, all) &&
           rc_shape_ok(op, "gh", "(N, H)", gh, td_dims(e->n, e->h));
}

/* ---- lstm_backward: x h0 c0 w_ih w_hh y gates cells gy gh gc -> gx gh0 gc0 gw_ih gw_hh gb ---- */

static bool lstm_backward_infer(td_infer *q)
{
    const td_lstm_backward_attr *a = q->attr;
    const char *op = "lstm_backward";
    const td_view *const *in = q->in;
    rc_extents e;
    if (!rc_read(op, q, LSTM_GATES, in[0], in[1], in[2], in[3], in[4], &e)) return false;
    if (!outputs_ok(op, &e, in[5], in[8], in[9]) || !rc_shape_ok(op, "gc", "(N, H)", in[10], td_dims(e.n, e.h)) ||
        !rc_shape_ok(op, "gates", "(T, N, 4 H)", in[6], td_dims(e.t, e.n, LSTM_GATES * e.h)) ||
        !rc_shape_ok(op, "cells", "(T, N, H)", in[7], td_dims(e.t, e.n, e.h)))
        return false;
    gradient_dims(q, &e, LSTM_GATES, a->need_x, 2, 1);
    return true;
}

static bool lstm_backward_decompose(const td_call *c, td_tensor **out)
{
    const td_lstm_backward_attr *a = c->attr;
    td_tensor *const *in = c->in;
    sequence q = read_sequence("lstm_backward", in, in[1], in[3], in[4], in[5], in[8], a->reverse, a->need_x);
    td_tensor *dh = rc_state(in[9], q.x, q.h), *dc = rc_state(in[10], q.x, q.h), **list = rc_lists(q.op, q.steps, 1);
    if (!list) return false;
    for (int64_t s = q.steps - 1; s >= 0 && !td_failed(); s--) {
        int64_t t = rc_step(s, q.steps, q.reverse);
        td_tensor *all = rc_at(in[6], t), *g[LSTM_GATES], *da[LSTM_GATES];
        for (int k = 0; k < LSTM_GATES; k++) g[k] = rc_part(all, k, q.h);
        td_tensor *before = s > 0 ? rc_at(in[7], rc_step(s - 1, q.steps, q.reverse)) : rc_state(in[2], q.x, q.h);
        td_tensor *tc = td_tanh(rc_at(in[7], t));
        dh = with_output(&q, dh, t);
        dc = td_add(dc, td_mul(td_mul(dh, g[3]), tanh_slope(tc)));
        da[0] = td_mul(td_mul(dc, g[2]), slope(g[0]));
        da[1] = td_mul(td_mul(dc, before), slope(g[1]));
        da[2] = td_mul(td_mul(dc, g[0]), tanh_slope(g[2]));
        da[3] = td_mul(td_mul(dh, tc), slope(g[3]));
        list[t] = td_cat(da, LSTM_GATES, 1);
        dh = td_matmul(list[t], q.w_hh);
        dc = td_mul(dc, g[1]);
    }
    td_tensor *da = td_stack(list, (uint32_t)q.steps, 0);
    free(list);
    out[0] = gradient_of_x(&q, da);
    out[1] = dh;
    out[2] = dc;
    out[3] = summed_product(da, q.x);
    out[4] = summed_product(da, states_before(&q));
    out[5] = summed(da);
    return !td_failed();
}

/* Values as the op gives them: gates (T, N, K H) between 0 and 1, the rest between -1 and 1. */
static td_tensor *between(double lo, int64_t width)
{
    return tdi_plus(tdi_times(td_rand(td_dims(3, 2, width), TD_F32), 1 - lo), lo);
}

static bool lstm_backward_sample(uint32_t i, td_sample *s)
{
    td_lstm_backward_attr *a = s->opts;
    rc_case c = rc_sample(i, LSTM_GATES);
    td_tensor *in[] = {c.x,           c.h0, c.c0, c.w_ih, c.w_hh, between(-1, 3), between(0.1, 12), between(-1, 3),
                       between(-1, 3)};
    for (int k = 0; k < 9; k++) s->in[k] = in[k];
    if (i == 1) s->in[9] = tdi_normal(td_dims(2, 3));
    if (i == 1) s->in[10] = tdi_normal(td_dims(2, 3));
    a->reverse = i == 2;
    a->need_x = i != 2;
    return i < 3;
}

/* ---- gru_backward: x h0 w_ih w_hh y gates gy gh -> gx gh0 gw_ih gw_hh gb_ih gb_hh ---- */

static bool gru_backward_infer(td_infer *q)
{
    const td_gru_backward_attr *a = q->attr;
    const char *op = "gru_backward";
    const td_view *const *in = q->in;
    rc_extents e;
    if (!rc_read(op, q, GRU_GATES, in[0], in[1], NULL, in[2], in[3], &e)) return false;
    if (!outputs_ok(op, &e, in[4], in[6], in[7]) ||
        !rc_shape_ok(op, "gates", "(T, N, 4 H)", in[5], td_dims(e.t, e.n, GRU_SAVED * e.h)))
        return false;
    gradient_dims(q, &e, GRU_GATES, a->need_x, 1, 2);
    return true;
}

static bool gru_backward_decompose(const td_call *c, td_tensor **out)
{
    const td_gru_backward_attr *a = c->attr;
    td_tensor *const *in = c->in;
    sequence q = read_sequence("gru_backward", in, in[1], in[2], in[3], in[4], in[6], a->reverse, a->need_x);
    td_tensor *dh = rc_state(in[7], q.x, q.h), **list = rc_lists(q.op, q.steps, 2);
    if (!list) return false;
    for (int64_t s = q.steps - 1; s >= 0 && !td_failed(); s--) {
        int64_t t = rc_step(s, q.steps, q.reverse);
        td_tensor *all = rc_at(in[5], t), *g[GRU_SAVED], *da[GRU_SAVED];
        for (int k = 0; k < GRU_SAVED; k++) g[k] = rc_part(all, k, q.h);
        dh = with_output(&q, dh, t);
        da[2] = td_mul(td_mul(dh, rest(g[1])), tanh_slope(g[2]));
        da[1] = td_mul(td_mul(dh, td_sub(state_before(&q, s), g[2])), slope(g[1]));
        da[0] = td_mul(td_mul(da[2], g[3]), slope(g[0]));
        list[t] = td_cat(da, GRU_GATES, 1);
        da[2] = td_mul(da[2], g[0]);
        list[q.steps + t] = td_cat(da, GRU_GATES, 1);
        dh = td_add(td_matmul(list[q.steps + t], q.w_hh), td_mul(dh, g[1]));
    }
    td_tensor *da = td_stack(list, (uint32_t)q.steps, 0), *da_h = td_stack(list + q.steps, (uint32_t)q.steps, 0);
    free(list);
    out[0] = gradient_of_x(&q, da);
    out[1] = dh;
    out[2] = summed_product(da, q.x);
    out[3] = summed_product(da_h, states_before(&q));
    out[4] = summed(da);
    out[5] = summed(da_h);
    return !td_failed();
}

static bool gru_backward_sample(uint32_t i, td_sample *s)
{
    td_gru_backward_attr *a = s->opts;
    rc_case c = rc_sample(i, GRU_GATES);
    td_tensor *in[] = {c.x, c.h0, c.w_ih, c.w_hh, between(-1, 3), between(0.1, 12), between(-1, 3)};
    for (int k = 0; k < 7; k++) s->in[k] = in[k];
    if (i == 1) s->in[7] = tdi_normal(td_dims(2, 3));
    a->reverse = i == 2;
    a->need_x = i != 2;
    return i < 3;
}

/* ---- rnn_backward: x h0 w_ih w_hh y gy gh -> gx gh0 gw_ih gw_hh gb ---- */

static bool rnn_backward_infer(td_infer *q)
{
    const td_rnn_backward_attr *a = q->attr;
    const char *op = "rnn_backward";
    const td_view *const *in = q->in;
    rc_extents e;
    if (!rc_read(op, q, RNN_GATES, in[0], in[1], NULL, in[2], in[3], &e)) return false;
    if (!outputs_ok(op, &e, in[4], in[5], in[6])) return false;
    gradient_dims(q, &e, RNN_GATES, a->need_x, 1, 1);
    return true;
}

static bool rnn_backward_decompose(const td_call *c, td_tensor **out)
{
    const td_rnn_backward_attr *a = c->attr;
    td_tensor *const *in = c->in;
    sequence q = read_sequence("rnn_backward", in, in[1], in[2], in[3], in[4], in[5], a->reverse, a->need_x);
    td_tensor *dh = rc_state(in[6], q.x, q.h), **list = rc_lists(q.op, q.steps, 1);
    if (!list) return false;
    for (int64_t s = q.steps - 1; s >= 0 && !td_failed(); s--) {
        int64_t t = rc_step(s, q.steps, q.reverse);
        td_tensor *h = rc_at(q.y, t);
        dh = with_output(&q, dh, t);
        list[t] = a->nonlinearity == TD_RNN_RELU ? tdi_cut(td_le(h, td_number(0)), dh) : td_mul(dh, tanh_slope(h));
        dh = td_matmul(list[t], q.w_hh);
    }
    td_tensor *da = td_stack(list, (uint32_t)q.steps, 0);
    free(list);
    out[0] = gradient_of_x(&q, da);
    out[1] = dh;
    out[2] = summed_product(da, q.x);
    out[3] = summed_product(da, states_before(&q));
    out[4] = summed(da);
    return !td_failed();
}

static bool rnn_backward_sample(uint32_t i, td_sample *s)
{
    td_rnn_backward_attr *a = s->opts;
    rc_case c = rc_sample(i, RNN_GATES);
    td_tensor *in[] = {c.x, c.h0, c.w_ih, c.w_hh, between(-1, 3), between(-1, 3)};
    for (int k = 0; k < 6; k++) s->in[k] = in[k];
    if (i == 1) s->in[6] = tdi_normal(td_dims(2, 3));
    a->reverse = i == 2;
    a->need_x = i != 2;
    a->nonlinearity = i == 2 ? TD_RNN_BACKWARD_RELU : TD_RNN_BACKWARD_TANH;
    return i < 3;
}

/* Without a backward of their own: their derivatives are those of the definitions. */
const td_op tdi_op_lstm_backward = {TD_ROW_lstm_backward, .infer = lstm_backward_infer,
                                    .decompose = lstm_backward_decompose, .sample = lstm_backward_sample};
const td_op tdi_op_gru_backward = {TD_ROW_gru_backward, .infer = gru_backward_infer,
                                   .decompose = gru_backward_decompose, .sample = gru_backward_sample};
const td_op tdi_op_rnn_backward = {TD_ROW_rnn_backward, .infer = rnn_backward_infer,
                                   .decompose = rnn_backward_decompose, .sample = rnn_backward_sample};

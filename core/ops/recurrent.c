/* recurrent.c - lstm, gru and rnn over a whole sequence: one layer in one direction. The formulas stand in ops.def, the
 * gradients in recurrent_backward.c. Auxiliary outputs hold what the gradients need:
 *     lstm  gates (T, N, 4H) = i f g o after sigmoid and tanh, cells (T, N, H) = every c
 *     gru   gates (T, N, 4H) = r z n after sigmoid and tanh, and w_hn h + b_hn
 *     rnn   nothing: its output says all */
#include "recurrent.h"

/* y (T, N, H) and the last states (N, H), n_last of them. */
static void sequence_dims(td_infer *q, const rc_extents *e, int n_last)
{
    tdi_set_dims(q->out[0], td_dims(e->t, e->n, e->h));
    for (int k = 1; k <= n_last; k++) tdi_set_dims(q->out[k], td_dims(e->n, e->h));
}

static bool biases_ok(const char *op, const td_view *b_ih, const td_view *b_hh, int64_t n)
{
    return tdi_vector_ok(op, "b_ih", b_ih, n) && tdi_vector_ok(op, "b_hh", b_hh, n);
}

/* ---- lstm: x h0 c0 w_ih w_hh b_ih b_hh -> y h_n c_n gates cells ---- */

static bool lstm_infer(td_infer *q)
{
    const td_view *const *in = q->in;
    rc_extents e;
    if (!rc_read("lstm", q, LSTM_GATES, in[0], in[1], in[2], in[3], in[4], &e)) return false;
    if (!biases_ok("lstm", in[5], in[6], LSTM_GATES * e.h)) return false;
    sequence_dims(q, &e, 2);
    tdi_set_dims(q->out[3], td_dims(e.t, e.n, LSTM_GATES * e.h));
    tdi_set_dims(q->out[4], td_dims(e.t, e.n, e.h));
    return true;
}

static bool lstm_decompose(const td_call *c, td_tensor **out)
{
    const td_lstm_attr *a = c->attr;
    td_tensor *x = c->in[0], *w_hh = c->in[4], *b_hh = c->in[6];
    int64_t steps = td_dim(x, 0), h_dim = td_dim(w_hh, 1);
    td_tensor *h = rc_state(c->in[1], x, h_dim), *cell = rc_state(c->in[2], x, h_dim);
    td_tensor *projected = td_linear(x, c->in[3], c->in[5]), **list = rc_lists("lstm", steps, 3);
    if (!list) return false;
    for (int64_t s = 0; s < steps && !td_failed(); s++) {
        int64_t t = rc_step(s, steps, a->reverse);
        td_tensor *sum = td_add(rc_at(projected, t), td_linear(h, w_hh, b_hh)), *g[LSTM_GATES];
        for (int k = 0; k < LSTM_GATES; k++) {
            td_tensor *part = rc_part(sum, k, h_dim);
            g[k] = k == 2 ? td_tanh(part) : td_sigmoid(part);
        }
        cell = rc_blend(g[1], cell, g[0], g[2]);
        h = td_mul(g[3], td_tanh(cell));
        list[t] = h;
        list[steps + t] = td_cat(g, LSTM_GATES, 1);
        list[2 * steps + t] = cell;
    }
    out[0] = td_stack(list, (uint32_t)steps, 0);
    out[1] = h;
    out[2] = cell;
    out[3] = td_stack(list + steps, (uint32_t)steps, 0);
    out[4] = td_stack(list + 2 * steps, (uint32_t)steps, 0);
    free(list);
    return !td_failed();
}

static bool lstm_backward(const td_call *c, td_tensor *const *gout, td_tensor **gin, uint64_t need)
{
    const td_lstm_attr *a = c->attr;
    td_tensor *const *in = c->in, *gb;
    if (!gout[0] && !gout[1] && !gout[2]) return true;
    if (!td_lstm_backward(in[0], in[1], in[2], in[3], in[4], c->out[0], c->out[3], c->out[4], gout[0], gout[1], gout[2],
                          a->reverse, need & 1, &gin[0], &gin[1], &gin[2], &gin[3], &gin[4], &gb))
        return false;
    gin[5] = gin[6] = gb;
    return true;
}

static bool lstm_sample(uint32_t i, td_sample *s)
{
    td_lstm_attr *a = s->opts;
    rc_case c = rc_sample(i, LSTM_GATES);
    td_tensor *in[] = {c.x, c.h0, c.c0, c.w_ih, c.w_hh, c.b_ih, c.b_hh};
    for (int k = 0; k < 7; k++) s->in[k] = in[k];
    a->reverse = i == 2;
    return i < 3;
}

/* ---- gru: x h0 w_ih w_hh b_ih b_hh -> y h_n gates ---- */

static bool gru_infer(td_infer *q)
{
    const td_view *const *in = q->in;
    rc_extents e;
    if (!rc_read("gru", q, GRU_GATES, in[0], in[1], NULL, in[2], in[3], &e)) return false;
    if (!biases_ok("gru", in[4], in[5], GRU_GATES * e.h)) return false;
    sequence_dims(q, &e, 1);
    tdi_set_dims(q->out[2], td_dims(e.t, e.n, GRU_SAVED * e.h));
    return true;
}

static bool gru_decompose(const td_call *c, td_tensor **out)
{
    const td_gru_attr *a = c->attr;
    td_tensor *x = c->in[0], *w_hh = c->in[3], *b_hh = c->in[5];
    int64_t steps = td_dim(x, 0), h_dim = td_dim(w_hh, 1);
    td_tensor *h = rc_state(c->in[1], x, h_dim);
    td_tensor *projected = td_linear(x, c->in[2], c->in[4]), **list = rc_lists("gru", steps, 2);
    if (!list) return false;
    for (int64_t s = 0; s < steps && !td_failed(); s++) {
        int64_t t = rc_step(s, steps, a->reverse);
        td_tensor *gx = rc_at(projected, t), *gh = td_linear(h, w_hh, b_hh), *g[GRU_SAVED];
        for (int k = 0; k < 2; k++) g[k] = td_sigmoid(td_add(rc_part(gx, k, h_dim), rc_part(gh, k, h_dim)));
        g[3] = rc_part(gh, 2, h_dim);
        g[2] = td_tanh(td_add(rc_part(gx, 2, h_dim), td_mul(g[0], g[3])));
        h = td_add(g[2], td_mul(g[1], td_sub(h, g[2])));
        list[t] = h;
        list[steps + t] = td_cat(g, GRU_SAVED, 1);
    }
    out[0] = td_stack(list, (uint32_t)steps, 0);
    out[1] = h;
    out[2] = td_stack(list + steps, (uint32_t)steps, 0);
    free(list);
    return !td_failed();
}

static bool gru_backward(const td_call *c, td_tensor *const *gout, td_tensor **gin, uint64_t need)
{
    const td_gru_attr *a = c->attr;
    td_tensor *const *in = c->in;
    if (!gout[0] && !gout[1]) return true;
    return td_gru_backward(in[0], in[1], in[2], in[3], c->out[0], c->out[2], gout[0], gout[1], a->reverse, need & 1,
                           &gin[0], &gin[1], &gin[2], &gin[3], &gin[4], &gin[5]);
}

static bool gru_sample(uint32_t i, td_sample *s)
{
    td_gru_attr *a = s->opts;
    rc_case c = rc_sample(i, GRU_GATES);
    td_tensor *in[] = {c.x, c.h0, c.w_ih, c.w_hh, c.b_ih, c.b_hh};
    for (int k = 0; k < 6; k++) s->in[k] = in[k];
    a->reverse = i == 2;
    return i < 3;
}

/* ---- rnn: x h0 w_ih w_hh b_ih b_hh -> y h_n ---- */

static bool rnn_infer(td_infer *q)
{
    const td_view *const *in = q->in;
    rc_extents e;
    if (!rc_read("rnn", q, RNN_GATES, in[0], in[1], NULL, in[2], in[3], &e)) return false;
    if (!biases_ok("rnn", in[4], in[5], e.h)) return false;
    sequence_dims(q, &e, 1);
    return true;
}

static bool rnn_decompose(const td_call *c, td_tensor **out)
{
    const td_rnn_attr *a = c->attr;
    td_tensor *x = c->in[0], *w_hh = c->in[3], *b_hh = c->in[5];
    int64_t steps = td_dim(x, 0);
    td_tensor *h = rc_state(c->in[1], x, td_dim(w_hh, 1));
    td_tensor *projected = td_linear(x, c->in[2], c->in[4]), **list = rc_lists("rnn", steps, 1);
    if (!list) return false;
    for (int64_t s = 0; s < steps && !td_failed(); s++) {
        int64_t t = rc_step(s, steps, a->reverse);
        td_tensor *sum = td_add(rc_at(projected, t), td_linear(h, w_hh, b_hh));
        h = a->nonlinearity == TD_RNN_RELU ? td_relu(sum) : td_tanh(sum);
        list[t] = h;
    }
    out[0] = td_stack(list, (uint32_t)steps, 0);
    out[1] = h;
    free(list);
    return !td_failed();
}

static bool rnn_backward(const td_call *c, td_tensor *const *gout, td_tensor **gin, uint64_t need)
{
    const td_rnn_attr *a = c->attr;
    td_tensor *const *in = c->in, *gb;
    if (!gout[0] && !gout[1]) return true;
    if (!td_rnn_backward(in[0], in[1], in[2], in[3], c->out[0], gout[0], gout[1], a->nonlinearity, a->reverse, need & 1,
                         &gin[0], &gin[1], &gin[2], &gin[3], &gb))
        return false;
    gin[4] = gin[5] = gb;
    return true;
}

static bool rnn_sample(uint32_t i, td_sample *s)
{
    td_rnn_attr *a = s->opts;
    rc_case c = rc_sample(i, RNN_GATES);
    td_tensor *in[] = {c.x, c.h0, c.w_ih, c.w_hh, c.b_ih, c.b_hh};
    for (int k = 0; k < 6; k++) s->in[k] = in[k];
    a->reverse = i == 2;
    a->nonlinearity = i == 2 ? TD_RNN_RELU : TD_RNN_TANH;
    return i < 3;
}

/* The gradients read auxiliary outputs, so a second derivative takes the definition, for which all inputs are saved. */
const td_op tdi_op_lstm = {TD_ROW_lstm,
                           .save_in = 127,
                           .save_out = 1 | 8 | 16,
                           .flags = TD_OP_GOUT_NULL,
                           .infer = lstm_infer,
                           .backward = lstm_backward,
                           .decompose = lstm_decompose,
                           .sample = lstm_sample};
const td_op tdi_op_gru = {TD_ROW_gru,
                          .save_in = 63,
                          .save_out = 1 | 4,
                          .flags = TD_OP_GOUT_NULL,
                          .infer = gru_infer,
                          .backward = gru_backward,
                          .decompose = gru_decompose,
                          .sample = gru_sample};
const td_op tdi_op_rnn = {TD_ROW_rnn,
                          .save_in = 63,
                          .save_out = 1,
                          .flags = TD_OP_GOUT_NULL,
                          .infer = rnn_infer,
                          .backward = rnn_backward,
                          .decompose = rnn_decompose,
                          .sample = rnn_sample};

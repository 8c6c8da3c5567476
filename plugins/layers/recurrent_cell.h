/* recurrent_cell.h - what LSTMCell, GRUCell and RNNCell have in common: options, parameters, and one step as a sequence of one.
 * x (N, I), h and c (N, H), or without N */
#ifndef TIDE_LAYERS_RECURRENT_CELL_H
#define TIDE_LAYERS_RECURRENT_CELL_H
#include "recurrent.h"

#define CELL_OPTS                                                                                    \
    TD_OPT(recurrent_options, input_size, TD_O_INT, NULL, ">= 1", "features of x"),                  \
        TD_OPT(recurrent_options, hidden_size, TD_O_INT, NULL, ">= 1, <= 16777216", "hidden units"), \
        TD_OPT(recurrent_options, bias, TD_O_BOOL, "true", NULL, "whether there are biases")

/** Declares the parameters, uniform in +-1 / sqrt(hidden_size). */
static inline bool cell_init(td_module *self, const recurrent_kind *k, const recurrent_options *o)
{
    int64_t width = k->gates * o->hidden_size;
    double fan = (double)o->hidden_size;
    td_new_param(self, "weight_ih", td_dims(width, o->input_size), "fan_in", fan, 0);
    td_new_param(self, "weight_hh", td_dims(width, o->hidden_size), "fan_in", fan, 0);
    if (o->bias) td_new_param(self, "bias_ih", td_dims(width), "fan_in", fan, 0);
    if (o->bias) td_new_param(self, "bias_hh", td_dims(width), "fan_in", fan, 0);
    return !td_failed();
}

/** Whether x and the states given, n of them, fit the options; then x as a sequence of one step, states as batches. */
static inline bool cell_inputs(const char *who, const recurrent_options *o, td_tensor **x, td_tensor **state, int n)
{
    static const char *const name[] = {"h", "c"};
    int nd = td_ndim(*x);
    if (nd < 1 || nd > 2 || td_dim(*x, -1) != o->input_size)
        return td_fail_as(TD_ESHAPE, "%s: expected x (N, %lld) or (%lld), got %s", who, (long long)o->input_size,
                          (long long)o->input_size, td_describe(*x).s);
    for (int i = 0; i < n; i++) {
        td_tensor *s = state[i];
        if (!s) continue;
        if (td_ndim(s) != nd || td_dim(s, -1) != o->hidden_size || (nd == 2 && td_dim(s, 0) != td_dim(*x, 0))) {
            if (nd == 1)
                return td_fail_as(TD_ESHAPE, "%s: expected %s (%lld), got %s", who, name[i], (long long)o->hidden_size,
                                  td_describe(s).s);
            return td_fail_as(TD_ESHAPE, "%s: expected %s (%lld, %lld), got %s", who, name[i], (long long)td_dim(*x, 0),
                              (long long)o->hidden_size, td_describe(s).s);
        }
        if (nd == 1) state[i] = td_unsqueeze(s, 0);
    }
    if (nd == 1) *x = td_unsqueeze(*x, 0);
    *x = td_unsqueeze(*x, 0);
    return !td_failed();
}

/** One step: x and states given -> the states after it. */
static inline bool cell_forward(td_module *self, const recurrent_kind *k, const char *who, td_tensor *const *in,
                                td_tensor **out)
{
    const recurrent_options *o = td_options(self);
    td_tensor *x = in[0], *state[2] = {in[1], k->n_state == 2 ? in[2] : NULL};
    if (k->n_state == 2 && !state[0] != !state[1]) return td_fail("%s: expected both h and c or none of them", who);
    if (!cell_inputs(who, o, &x, state, k->n_state)) return false;
    recurrent_weights w = {td_param(self, "weight_ih"), td_param(self, "weight_hh"), NULL, NULL};
    if (o->bias) w.b_ih = td_param(self, "bias_ih"), w.b_hh = td_param(self, "bias_hh");
    if (!k->run(o, x, w, false, &state[0], &state[1])) return false;
    for (int i = 0; i < k->n_state; i++) out[i] = td_ndim(in[0]) == 1 ? td_squeeze(state[i], td_dims(0)) : state[i];
    return !td_failed();
}

/** Cases: a batch · states given, without biases · one row. */
static inline bool cell_sample(uint32_t i, td_sample *s, const recurrent_kind *kind)
{
    *(recurrent_options *)s->opts = (recurrent_options){.input_size = 2, .hidden_size = 3, .bias = i != 1};
    s->in[0] = i == 2 ? td_randn(td_dims(2), TD_F32) : td_randn(td_dims(4, 2), TD_F32);
    for (int k = 1; k <= kind->n_state && i == 1; k++) s->in[k] = td_randn(td_dims(4, 3), TD_F32);
    return i < 3;
}

#endif

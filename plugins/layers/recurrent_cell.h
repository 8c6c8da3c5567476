/* recurrent_cell.h - what LSTMCell, GRUCell and RNNCell have in common: options, parameters, and one step as a sequence of one.
 * x (N, I), h and c (N, H), or without N */
#ifndef TIDE_LAYERS_RECURRENT_CELL_H
#define TIDE_LAYERS_RECURRENT_CELL_H
#include <tide/plugin.h>

typedef struct {
    int64_t input_size, hidden_size;
    bool bias;
    int32_t nonlinearity; /* RNNCell */
} cell_options;

#define CELL_OPTS                                                                  \
    TD_OPT(cell_options, input_size, TD_O_INT, NULL, ">= 1", "features of x"),     \
        TD_OPT(cell_options, hidden_size, TD_O_INT, NULL, ">= 1", "hidden units"), \
        TD_OPT(cell_options, bias, TD_O_BOOL, "true", NULL, "whether there are biases")

/** The parameters; biases may be NULL. */
typedef struct {
    td_tensor *w_ih, *w_hh, *b_ih, *b_hh;
} cell_weights;

/** Declares the parameters, uniform in +-1 / sqrt(hidden_size). */
static inline bool cell_init(td_module *self, const cell_options *o, int64_t gates)
{
    int64_t width = gates * o->hidden_size;
    double fan = (double)o->hidden_size;
    td_new_param(self, "weight_ih", td_dims(width, o->input_size), "fan_in", fan, 0);
    td_new_param(self, "weight_hh", td_dims(width, o->hidden_size), "fan_in", fan, 0);
    if (o->bias) td_new_param(self, "bias_ih", td_dims(width), "fan_in", fan, 0);
    if (o->bias) td_new_param(self, "bias_hh", td_dims(width), "fan_in", fan, 0);
    return !td_failed();
}

static inline cell_weights cell_weights_of(td_module *self, const cell_options *o)
{
    cell_weights w = {td_param(self, "weight_ih"), td_param(self, "weight_hh"), NULL, NULL};
    if (o->bias) w.b_ih = td_param(self, "bias_ih"), w.b_hh = td_param(self, "bias_hh");
    return w;
}

/** Whether x and the states given, n of them, fit the options; then x as a sequence of one step, states as batches. */
static inline bool cell_inputs(const char *who, const cell_options *o, td_tensor **x, td_tensor **state, int n)
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

/** A state in the form of x: without a batch where x had none. */
static inline td_tensor *cell_result(td_tensor *x, td_tensor *state)
{
    return td_ndim(x) == 1 ? td_squeeze(state, td_dims(0)) : state;
}

/** Cases: a batch · states given, without biases · one row; n states after x. */
static inline bool cell_sample(uint32_t i, td_sample *s, int n)
{
    *(cell_options *)s->opts = (cell_options){2, 3, i != 1, 0};
    s->in[0] = i == 2 ? td_randn(td_dims(2), TD_F32) : td_randn(td_dims(4, 2), TD_F32);
    for (int k = 1; k <= n && i == 1; k++) s->in[k] = td_randn(td_dims(4, 3), TD_F32);
    return i < 3;
}

#endif

/* rnn.c - the simple recurrent network (Elman 1990):  h = tanh(W_ih x_t + b_ih + W_hh h + b_hh), or relu of it */
#include "recurrent_cell.h"

static const td_opt opts[] = {
    RECURRENT_OPTS,
    TD_OPT(recurrent_options, nonlinearity, TD_O_ENUM, "tanh", "tanh|relu", "what makes h of the sum"),
};
static const td_opt cell_opts[] = {
    CELL_OPTS,
    TD_OPT(recurrent_options, nonlinearity, TD_O_ENUM, "tanh", "tanh|relu", "what makes h of the sum"),
};

static td_tensor *run(const recurrent_options *o, td_tensor *x, recurrent_weights w, bool reverse, td_tensor **h,
                      td_tensor **c)
{
    (void)c;
    td_tensor *y;
    return td_rnn(x, *h, w.w_ih, w.w_hh, w.b_ih, w.b_hh, o->nonlinearity, reverse, &y, h) ? y : NULL;
}

static const recurrent_kind kind = {"RNN", 1, 1, run};

static bool init(td_module *self, const void *given) { return recurrent_init(self, &kind, given); }
static bool cell_start(td_module *self, const void *given) { return cell_init(self, &kind, given); }

static bool forward(td_module *self, td_tensor *const *in, uint32_t n_in, td_tensor **out)
{
    (void)n_in;
    return recurrent_forward(self, &kind, in, out);
}

static bool step(td_module *self, td_tensor *const *in, uint32_t n_in, td_tensor **out)
{
    (void)n_in;
    return cell_forward(self, &kind, "RNNCell", in, out);
}

static bool sample(uint32_t i, td_sample *s) /* as the others; and relu */
{
    if (i < 4) return recurrent_sample(i, s, &kind);
    *(recurrent_options *)s->opts = (recurrent_options){2, 3, 1, true, false, 0, false, 1};
    s->in[0] = td_randn(td_dims(3, 2, 2), TD_F32);
    return i < 5;
}

static bool cell_sample_of(uint32_t i, td_sample *s) /* as the others; and relu */
{
    bool more = cell_sample(i, s, &kind);
    if (i == 3) ((recurrent_options *)s->opts)->nonlinearity = 1;
    return more || i == 3;
}

static const td_layer rnn = {
    .size = sizeof rnn,
    .kind = TD_LAYER,
    .name = "RNN",
    .doc =
        "The simple recurrent network (Elman 1990) over x (T, N, input_size), giving every h, y (T, N, hidden_size), "
        "and the last h of each layer (num_layers, N, hidden_size): y, h = rnn(x, h0). h0 left out is zero. "
        "Parameters as PyTorch's, weight_ih_l0 …, uniform in +-1 / sqrt(hidden_size).",
    .opts = TD_OPTS(recurrent_options, opts),
    .in = "x h0?",
    .out = "y h",
    .init = init,
    .forward = forward,
    .sample = sample,
};
static const td_layer rnn_cell = {
    .size = sizeof rnn_cell,
    .kind = TD_LAYER,
    .name = "RNNCell",
    .doc = "One step of nn.RNN: h = cell(x, h) for x (N, input_size) and h (N, hidden_size), or both without N. h left "
           "out is zero. Parameters as PyTorch's, weight_ih, weight_hh, bias_ih, bias_hh, uniform in +-1 / "
           "sqrt(hidden_size).",
    .opts = TD_OPTS(recurrent_options, cell_opts),
    .in = "x h?",
    .out = "h",
    .init = cell_start,
    .forward = step,
    .sample = cell_sample_of,
};
static bool reg(void) { return td_add_layer(&rnn) && td_add_layer(&rnn_cell); }
TD_PLUGIN("rnn", "1.0", "MIT", "layer:RNN layer:RNNCell", reg, NULL)

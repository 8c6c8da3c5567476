/* rnn_cell.c - one step of the simple recurrent network (Elman 1990); the formula stands in rnn.c */
#include "recurrent_cell.h"

static const td_opt opts[] = {
    CELL_OPTS,
    TD_OPT(cell_options, nonlinearity, TD_O_ENUM, "tanh", "tanh|relu", "what makes h of the sum"),
};

static bool init(td_module *self, const void *given) { return cell_init(self, given, 1); }

static bool forward(td_module *self, td_tensor *const *in, uint32_t n_in, td_tensor **out)
{
    const cell_options *o = td_options(self);
    td_tensor *x = in[0], *h = in[1], *y;
    (void)n_in;
    if (!cell_inputs("RNNCell", o, &x, &h, 1)) return false;
    cell_weights w = cell_weights_of(self, o);
    if (!td_rnn(x, h, w.w_ih, w.w_hh, w.b_ih, w.b_hh, o->nonlinearity, false, &y, &h)) return false;
    out[0] = cell_result(in[0], h);
    return out[0] != NULL;
}

static bool sample(uint32_t i, td_sample *s) /* as the others; and relu */
{
    bool more = cell_sample(i, s, 1);
    if (i == 3) ((cell_options *)s->opts)->nonlinearity = 1;
    return more || i == 3;
}

static const td_layer rnn_cell = {
    .size = sizeof rnn_cell,
    .kind = TD_LAYER,
    .name = "RNNCell",
    .doc = "One step of nn.RNN: h = cell(x, h) for x (N, input_size) and h (N, hidden_size), or both without N. h left "
           "out is "
           "zero. Parameters as PyTorch's, weight_ih, weight_hh, bias_ih, bias_hh, uniform in +-1 / sqrt(hidden_size).",
    .opts = TD_OPTS(cell_options, opts),
    .in = "x h?",
    .out = "h",
    .init = init,
    .forward = forward,
    .sample = sample,
};
static bool reg(void) { return td_add_layer(&rnn_cell); }
TD_PLUGIN("rnn_cell", "1.0", "MIT", "layer:RNNCell", reg, NULL)

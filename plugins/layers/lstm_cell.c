/* lstm_cell.c - one step of long short-term memory (Hochreiter & Schmidhuber 1997); the formula stands in lstm.c */
#include "recurrent_cell.h"

static const td_opt opts[] = {CELL_OPTS};

static bool init(td_module *self, const void *given) { return cell_init(self, given, 4); }

static bool forward(td_module *self, td_tensor *const *in, uint32_t n_in, td_tensor **out)
{
    const cell_options *o = td_options(self);
    td_tensor *x = in[0], *state[2] = {in[1], in[2]}, *y;
    (void)n_in;
    if (!in[1] != !in[2]) return td_fail("LSTMCell: expected both h and c or none of them");
    if (!cell_inputs("LSTMCell", o, &x, state, 2)) return false;
    cell_weights w = cell_weights_of(self, o);
    if (!td_lstm(x, state[0], state[1], w.w_ih, w.w_hh, w.b_ih, w.b_hh, false, &y, &state[0], &state[1])) return false;
    out[0] = cell_result(in[0], state[0]);
    out[1] = cell_result(in[0], state[1]);
    return !td_failed();
}

static bool sample(uint32_t i, td_sample *s) { return cell_sample(i, s, 2); }

static const td_layer lstm_cell = {
    .size = sizeof lstm_cell,
    .kind = TD_LAYER,
    .name = "LSTMCell",
    .doc = "One step of nn.LSTM: h, c = cell(x, h, c) for x (N, input_size) and h, c (N, hidden_size), or all without "
           "N. States "
           "left out are zero. Parameters as PyTorch's, weight_ih, weight_hh, bias_ih, bias_hh in the order of gates i "
           "f g "
           "o, uniform in +-1 / sqrt(hidden_size).",
    .opts = TD_OPTS(cell_options, opts),
    .in = "x h? c?",
    .out = "h c",
    .init = init,
    .forward = forward,
    .sample = sample,
};
static bool reg(void) { return td_add_layer(&lstm_cell); }
TD_PLUGIN("lstm_cell", "1.0", "MIT", "layer:LSTMCell", reg, NULL)

/* lstm.c - long short-term memory (Hochreiter & Schmidhuber 1997; forget gate: Gers, Schmidhuber & Cummins 2000)
 *     i, f, g, o = quarters of W_ih x_t + b_ih + W_hh h + b_hh
 *     c = sigmoid(f) c + sigmoid(i) tanh(g)     h = sigmoid(o) tanh(c) */
#include "recurrent_cell.h"

static const td_opt opts[] = {RECURRENT_OPTS};
static const td_opt cell_opts[] = {CELL_OPTS};

static td_tensor *run(const recurrent_options *o, td_tensor *x, recurrent_weights w, bool reverse, td_tensor **h,
                      td_tensor **c)
{
    (void)o;
    td_tensor *y;
    return td_lstm(x, *h, *c, w.w_ih, w.w_hh, w.b_ih, w.b_hh, reverse, &y, h, c) ? y : NULL;
}

static const recurrent_kind kind = {"LSTM", 4, 2, run};

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
    return cell_forward(self, &kind, "LSTMCell", in, out);
}

static bool sample(uint32_t i, td_sample *s) { return recurrent_sample(i, s, &kind); }
static bool cell_sample_of(uint32_t i, td_sample *s) { return cell_sample(i, s, &kind); }

static const td_layer lstm = {
    .size = sizeof lstm,
    .kind = TD_LAYER,
    .name = "LSTM",
    .doc = "Long short-term memory (Hochreiter & Schmidhuber 1997) over x (T, N, input_size), giving every h, y (T, N, "
           "hidden_size), and the last h and c of each layer (num_layers, N, hidden_size): y, h, c = lstm(x, h0, c0). "
           "States left out are zero. Parameters as PyTorch's, weight_ih_l0 … in the order of gates i f g o, uniform "
           "in +-1 / sqrt(hidden_size).",
    .opts = TD_OPTS(recurrent_options, opts),
    .in = "x h0? c0?",
    .out = "y h c",
    .init = init,
    .forward = forward,
    .sample = sample,
};
static const td_layer lstm_cell = {
    .size = sizeof lstm_cell,
    .kind = TD_LAYER,
    .name = "LSTMCell",
    .doc = "One step of nn.LSTM: h, c = cell(x, h, c) for x (N, input_size) and h, c (N, hidden_size), or all without "
           "N. States left out are zero. Parameters as PyTorch's, weight_ih, weight_hh, bias_ih, bias_hh in the order "
           "of gates i f g o, uniform in +-1 / sqrt(hidden_size).",
    .opts = TD_OPTS(recurrent_options, cell_opts),
    .in = "x h? c?",
    .out = "h c",
    .init = cell_start,
    .forward = step,
    .sample = cell_sample_of,
};
static bool reg(void) { return td_add_layer(&lstm) && td_add_layer(&lstm_cell); }
TD_PLUGIN("lstm", "1.0", "MIT", "layer:LSTM layer:LSTMCell", reg, NULL)

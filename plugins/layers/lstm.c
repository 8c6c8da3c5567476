/* lstm.c - long short-term memory (Hochreiter & Schmidhuber 1997; forget gate: Gers, Schmidhuber & Cummins 2000)
 *     i, f, g, o = quarters of W_ih x_t + b_ih + W_hh h + b_hh
 *     c = sigmoid(f) c + sigmoid(i) tanh(g)     h = sigmoid(o) tanh(c) */
#include "recurrent.h"

static const td_opt opts[] = {RECURRENT_OPTS};

static bool init(td_module *self, const void *given) { return recurrent_init(self, given, 4); }

static td_tensor *run(const recurrent_options *o, td_tensor *x, recurrent_weights w, bool reverse, td_tensor **h,
                      td_tensor **c)
{
    (void)o;
    td_tensor *y;
    return td_lstm(x, *h, *c, w.w_ih, w.w_hh, w.b_ih, w.b_hh, reverse, &y, h, c) ? y : NULL;
}

static bool forward(td_module *self, td_tensor *const *in, uint32_t n_in, td_tensor **out)
{
    (void)n_in;
    if (!in[1] != !in[2]) return td_fail("LSTM: expected both h0 and c0 or none of them");
    return recurrent_forward(self, "LSTM", run, in[0], in[1], in[2], &out[0], &out[1], &out[2]);
}

static bool sample(uint32_t i, td_sample *s) { return recurrent_sample(i, s, 2); }

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
static bool reg(void) { return td_add_layer(&lstm); }
TD_PLUGIN("lstm", "1.0", "MIT", "layer:LSTM", reg, NULL)

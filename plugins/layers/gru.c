/* gru.c - gated recurrent unit (Cho et al. 2014, arXiv:1406.1078), with the reset gate after the product
 *     r, z, n = thirds of W_ih x_t + b_ih     r', z', n' = thirds of W_hh h + b_hh     R, Z = sigmoid(r + r'), …(z + z')
 *     h = (1 - Z) tanh(n + R n') + Z h */
#include "recurrent.h"

static const td_opt opts[] = {RECURRENT_OPTS};

static bool init(td_module *self, const void *given) { return recurrent_init(self, given, 3); }

static td_tensor *run(const recurrent_options *o, td_tensor *x, recurrent_weights w, bool reverse, td_tensor **h,
                      td_tensor **c)
{
    (void)o, (void)c;
    td_tensor *y;
    return td_gru(x, *h, w.w_ih, w.w_hh, w.b_ih, w.b_hh, reverse, &y, h) ? y : NULL;
}

static bool forward(td_module *self, td_tensor *const *in, uint32_t n_in, td_tensor **out)
{
    (void)n_in;
    return recurrent_forward(self, "GRU", run, in[0], in[1], NULL, &out[0], &out[1], NULL);
}

static bool sample(uint32_t i, td_sample *s) { return recurrent_sample(i, s, 1); }

static const td_layer gru = {
    .size = sizeof gru,
    .kind = TD_LAYER,
    .name = "GRU",
    .doc =
        "Gated recurrent unit (Cho et al. 2014) over x (T, N, input_size), giving every h, y (T, N, hidden_size), and "
        "the last h of each layer (num_layers, N, hidden_size): y, h = gru(x, h0). h0 left out is zero. Parameters "
        "as PyTorch's, weight_ih_l0 … in the order of gates r z n, uniform in +-1 / sqrt(hidden_size).",
    .opts = TD_OPTS(recurrent_options, opts),
    .in = "x h0?",
    .out = "y h",
    .init = init,
    .forward = forward,
    .sample = sample,
};
static bool reg(void) { return td_add_layer(&gru); }
TD_PLUGIN("gru", "1.0", "MIT", "layer:GRU", reg, NULL)

/* gru.c - gated recurrent unit (Cho et al. 2014, arXiv:1406.1078), with the reset gate after the product
 *     r, z, n = thirds of W_ih x_t + b_ih     r', z', n' = thirds of W_hh h + b_hh     R, Z = sigmoid(r + r'), …(z + z')
 *     h = (1 - Z) tanh(n + R n') + Z h */
#include "recurrent_cell.h"

static const td_opt opts[] = {RECURRENT_OPTS};
static const td_opt cell_opts[] = {CELL_OPTS};

static td_tensor *run(const recurrent_options *o, td_tensor *x, recurrent_weights w, bool reverse, td_tensor **h,
                      td_tensor **c)
{
    (void)o, (void)c;
    td_tensor *y;
    return td_gru(x, *h, w.w_ih, w.w_hh, w.b_ih, w.b_hh, reverse, &y, h) ? y : NULL;
}

static const recurrent_kind kind = {"GRU", 3, 1, run};

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
    return cell_forward(self, &kind, "GRUCell", in, out);
}

static bool sample(uint32_t i, td_sample *s) { return recurrent_sample(i, s, &kind); }
static bool cell_sample_of(uint32_t i, td_sample *s) { return cell_sample(i, s, &kind); }

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
static const td_layer gru_cell = {
    .size = sizeof gru_cell,
    .kind = TD_LAYER,
    .name = "GRUCell",
    .doc = "One step of nn.GRU: h = cell(x, h) for x (N, input_size) and h (N, hidden_size), or both without N. h left "
           "out is zero. Parameters as PyTorch's, weight_ih, weight_hh, bias_ih, bias_hh in the order of gates r z n, "
           "uniform in +-1 / sqrt(hidden_size).",
    .opts = TD_OPTS(recurrent_options, cell_opts),
    .in = "x h?",
    .out = "h",
    .init = cell_start,
    .forward = step,
    .sample = cell_sample_of,
};
static bool reg(void) { return td_add_layer(&gru) && td_add_layer(&gru_cell); }
TD_PLUGIN("gru", "1.0", "MIT", "layer:GRU layer:GRUCell", reg, NULL)

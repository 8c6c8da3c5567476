/* gru_cell.c - one step of a gated recurrent unit (Cho et al. 2014, arXiv:1406.1078); the formula stands in gru.c */
#include "recurrent_cell.h"

static const td_opt opts[] = {CELL_OPTS};

static bool init(td_module *self, const void *given) { return cell_init(self, given, 3); }

static bool forward(td_module *self, td_tensor *const *in, uint32_t n_in, td_tensor **out)
{
    const cell_options *o = td_options(self);
    td_tensor *x = in[0], *h = in[1], *y;
    (void)n_in;
    if (!cell_inputs("GRUCell", o, &x, &h, 1)) return false;
    cell_weights w = cell_weights_of(self, o);
    if (!td_gru(x, h, w.w_ih, w.w_hh, w.b_ih, w.b_hh, false, &y, &h)) return false;
    out[0] = cell_result(in[0], h);
    return out[0] != NULL;
}

static bool sample(uint32_t i, td_sample *s) { return cell_sample(i, s, 1); }

static const td_layer gru_cell = {
    .size = sizeof gru_cell,
    .kind = TD_LAYER,
    .name = "GRUCell",
    .doc =
        "One step of nn.GRU: h = cell(x, h) for x (N, input_size) and h (N, hidden_size), or both without N. h left "
        "out is "
        "zero. Parameters as PyTorch's, weight_ih, weight_hh, bias_ih, bias_hh in the order of gates r z n, uniform in "
        "+-1 / sqrt(hidden_size).",
    .opts = TD_OPTS(cell_options, opts),
    .in = "x h?",
    .out = "h",
    .init = init,
    .forward = forward,
    .sample = sample,
};
static bool reg(void) { return td_add_layer(&gru_cell); }
TD_PLUGIN("gru_cell", "1.0", "MIT", "layer:GRUCell", reg, NULL)

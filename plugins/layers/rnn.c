/* rnn.c - the simple recurrent network (Elman 1990):  h = tanh(W_ih x_t + b_ih + W_hh h + b_hh), or relu of it */
#include "recurrent.h"

static const td_opt opts[] = {
    RECURRENT_OPTS,
    TD_OPT(recurrent_options, nonlinearity, TD_O_ENUM, "tanh", "tanh|relu", "what makes h of the sum"),
};

static bool init(td_module *self, const void *given) { return recurrent_init(self, given, 1); }

static td_tensor *run(const recurrent_options *o, td_tensor *x, recurrent_weights w, bool reverse, td_tensor **h,
                      td_tensor **c)
{
    (void)c;
    td_tensor *y;
    return td_rnn(x, *h, w.w_ih, w.w_hh, w.b_ih, w.b_hh, o->nonlinearity, reverse, &y, h) ? y : NULL;
}

static bool forward(td_module *self, td_tensor *const *in, uint32_t n_in, td_tensor **out)
{
    (void)n_in;
    return recurrent_forward(self, "RNN", run, in[0], in[1], NULL, &out[0], &out[1], NULL);
}

static bool sample(uint32_t i, td_sample *s) /* as the others; and relu */
{
    if (i < 4) return recurrent_sample(i, s, 1);
    *(recurrent_options *)s->opts = (recurrent_options){2, 3, 1, true, false, 0, false, 1};
    s->in[0] = td_randn(td_dims(3, 2, 2), TD_F32);
    return i < 5;
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
static bool reg(void) { return td_add_layer(&rnn); }
TD_PLUGIN("rnn", "1.0", "MIT", "layer:RNN", reg, NULL)

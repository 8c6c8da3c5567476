/* batch_norm1d.c - y = act(w (x - mean) / sqrt(var + eps) + b + residual) per channel, as batch_norm.h has it
 * x, residual, y (N, C) or (N, C, L) */
#include "batch_norm.h"

static const char *const shape[] = {"", ", L"};
static const batch_norm_kind kind = {"BatchNorm1d", 2, 3, shape};

static bool forward(td_module *self, td_tensor *const *in, uint32_t n_in, td_tensor **out)
{
    (void)n_in;
    return batch_norm_forward(self, &kind, in, out);
}

static td_tensor *forward_act(td_module *self, td_tensor *x, td_activation act)
{
    return batch_norm_forward_act(self, &kind, x, act);
}

static bool sample(uint32_t i, td_sample *s)
{
    return batch_norm_sample(i, s, i % 5 == 0 ? td_dims(3, 3, 4) : td_dims(6, 3));
}

static const td_layer batch_norm1d = {
    .size = sizeof batch_norm1d,
    .kind = TD_LAYER,
    .name = "BatchNorm1d",
    .doc = "y = weight (x - mean) / sqrt(var + eps) + bias for each channel of x (N, num_features) or (N, "
           "num_features, L)" BATCH_NORM_DOC,
    .opts = TD_OPTS(batch_norm_options, batch_norm_opts),
    .in = "x residual?",
    .out = "y",
    .init = batch_norm_init,
    .forward = forward,
    .sample = sample,
    .forward_act = forward_act,
};
static bool reg(void) { return td_add_layer(&batch_norm1d); }
TD_PLUGIN("batch_norm1d", "1.0", "MIT", "layer:BatchNorm1d", reg, NULL)

/* batch_norm2d.c - y = act(w (x - mean) / sqrt(var + eps) + b + residual) per channel, as batch_norm.h has it
 * x, residual, y (N, C, H, W) */
#include "batch_norm.h"

static const char *const shape[] = {", H, W"};
static const batch_norm_kind kind = {"BatchNorm2d", 4, 4, shape};

static bool forward(td_module *self, td_tensor *const *in, uint32_t n_in, td_tensor **out)
{
    (void)n_in;
    return batch_norm_forward(self, &kind, in, out);
}

static td_tensor *forward_act(td_module *self, td_tensor *x, td_activation act)
{
    return batch_norm_forward_act(self, &kind, x, act);
}

static bool sample(uint32_t i, td_sample *s) { return batch_norm_sample(i, s, td_dims(2, 3, 2, 4)); }

static const td_layer batch_norm2d = {
    .size = sizeof batch_norm2d,
    .kind = TD_LAYER,
    .name = "BatchNorm2d",
    .doc =
        "y = weight (x - mean) / sqrt(var + eps) + bias for each channel of x (N, num_features, H, W)" BATCH_NORM_DOC,
    .opts = TD_OPTS(batch_norm_options, batch_norm_opts),
    .in = "x residual?",
    .out = "y",
    .init = batch_norm_init,
    .forward = forward,
    .sample = sample,
    .forward_act = forward_act,
};
static bool reg(void) { return td_add_layer(&batch_norm2d); }
TD_PLUGIN("batch_norm2d", "1.0", "MIT", "layer:BatchNorm2d", reg, NULL)

/* batch_norm2d.c - y = act(w (x - mean) / sqrt(var + eps) + b + residual) per channel, as batch_norm.h has it
 * x, residual, y (N, C, H, W) */
#include "batch_norm.h"

static bool fits(td_module *self, td_tensor *x)
{
    const batch_norm_options *o = td_options(self);
    return (td_ndim(x) == 4 && td_dim(x, 1) == o->num_features) ||
           td_fail_as(TD_ESHAPE, "BatchNorm2d: expected x (N, %lld, H, W), got %s", (long long)o->num_features,
                      td_describe(x).s);
}

static bool forward(td_module *self, td_tensor *const *in, uint32_t n_in, td_tensor **out)
{
    (void)n_in;
    if (!fits(self, in[0])) return false;
    out[0] = batch_norm_run(self, "BatchNorm2d", in[0], in[1], batch_norm_relu(self));
    return out[0] != NULL;
}

static td_tensor *forward_act(td_module *self, td_tensor *x, td_activation act)
{
    if (act != TD_ACT_RELU || !fits(self, x)) return NULL;
    return batch_norm_run(self, "BatchNorm2d", x, NULL, true);
}

/* Usual; a cumulative mean; without w and b; without running statistics; a relu; a relu after a residual. */
static bool sample(uint32_t i, td_sample *s)
{
    *(batch_norm_options *)s->opts =
        (batch_norm_options){3, 1e-5, 0.1, i != 1, i != 2, i != 3, i > 3 ? TD_ACT_RELU : TD_ACT_NONE};
    s->in[0] = td_randn(td_dims(2, 3, 2, 4), TD_F32);
    if (i == 5) s->in[1] = td_randn(td_dims(2, 3, 2, 4), TD_F32);
    return i < 6;
}

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

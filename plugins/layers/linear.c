/* linear.c - y = x W^T + b        x (..., in)   W (out, in)   b (out)   y (..., out) */
#include <tide/plugin.h>

typedef struct {
    int64_t in_features, out_features;
    bool bias;
} options;
static const td_opt opts[] = {
    TD_OPT(options, in_features, TD_O_INT, NULL, ">= 1", "length of a row of x"),
    TD_OPT(options, out_features, TD_O_INT, NULL, ">= 1", "length of a row of y"),
    TD_OPT(options, bias, TD_O_BOOL, "true", NULL, "whether b is added"),
};

static bool init(td_module *self, const void *given)
{
    const options *o = given;
    double fan_in = (double)o->in_features;
    td_new_param(self, "weight", td_dims(o->out_features, o->in_features), "fan_in", fan_in, 0);
    return !o->bias || td_new_param(self, "bias", td_dims(o->out_features), "fan_in", fan_in, 0);
}

static bool fits(const options *o, td_tensor *x)
{
    if (td_ndim(x) == 0 || td_dim(x, -1) != o->in_features)
        return td_fail_as(TD_ESHAPE, "Linear: expected x (..., %lld), got %s", (long long)o->in_features,
                          td_describe(x).s);
    return true;
}

static td_tensor *forward(td_module *self, td_tensor *x)
{
    const options *o = td_options(self);
    if (!fits(o, x)) return NULL;
    return td_linear(x, td_param(self, "weight"), o->bias ? td_param(self, "bias") : NULL);
}

static td_tensor *forward_act(td_module *self, td_tensor *x, td_activation act)
{
    const options *o = td_options(self);
    if (!fits(o, x)) return NULL;
    return td_linear_act(x, td_param(self, "weight"), o->bias ? td_param(self, "bias") : NULL, (int32_t)act);
}

static bool sample(uint32_t i, td_sample *s) /* with a bias, without, and with two leading axes */
{
    *(options *)s->opts = (options){.in_features = 3, .out_features = 4, .bias = i != 1};
    s->in[0] = td_randn(i == 2 ? td_dims(2, 2, 3) : td_dims(2, 3), TD_F32);
    return i < 3;
}

static const td_layer linear = {
    .size = sizeof linear,
    .kind = TD_LAYER,
    .name = "Linear",
    .doc = "y = x W^T + b for x (..., in_features), giving (..., out_features). weight (out_features, in_features) "
           "and bias (out_features) start uniform in +-1 / sqrt(in_features).",
    .opts = TD_OPTS(options, opts),
    .init = init,
    .forward1 = forward,
    .sample = sample,
    .forward_act = forward_act,
};
static bool reg(void) { return td_add_layer(&linear); }
TD_PLUGIN("linear", "1.0", "MIT", "layer:Linear", reg, NULL)

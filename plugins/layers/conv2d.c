/* conv2d.c - cross-correlation:  y[n,o,i,j] = b[o] + sum_{c,k,l} w[o,c,k,l] x[n, c, i s + k d - p, j s + l d - p]
 * x (N, C, H, W)   w (O, C / groups, KH, KW)   b (O)   y (N, O, OH, OW)
 * OH = floor((H + 2 p - d (KH - 1) - 1) / s) + 1 with stride s, padding p, dilation d */
#include <tide/plugin.h>

typedef struct {
    int64_t in_channels, out_channels;
    td_ints kernel_size, stride, padding, dilation;
    int64_t groups;
    bool bias;
    int32_t activation; /* none or relu, as td_activation has them */
} options;
static const td_opt opts[] = {
    TD_OPT(options, in_channels, TD_O_INT, NULL, ">= 1", "channels of x"),
    TD_OPT(options, out_channels, TD_O_INT, NULL, ">= 1", "channels of y"),
    TD_OPT(options, kernel_size, TD_O_INTS, NULL, ">= 1", "height and width of the kernel, or one number for both"),
    TD_OPT(options, stride, TD_O_INTS, "1", ">= 1", "step of the kernel"),
    TD_OPT(options, padding, TD_O_INTS, "0", ">= 0", "zeros around x"),
    TD_OPT(options, dilation, TD_O_INTS, "1", ">= 1", "distance of kernel elements"),
    TD_OPT(options, groups, TD_O_INT, "1", ">= 1", "channel groups that do not mix"),
    TD_OPT(options, bias, TD_O_BOOL, "true", NULL, "whether b is added"),
    TD_OPT(options, activation, TD_O_ENUM, "none", "none|relu", "what is applied to y, in the same op"),
};

static bool init(td_module *self, const void *given)
{
    const options *o = given;
    const td_ints *k = &o->kernel_size;
    if (k->n < 1 || k->n > 2)
        return td_fail("Conv2d: kernel_size: expected one or two numbers, got %lld", (long long)k->n);
    if (o->in_channels % o->groups || o->out_channels % o->groups)
        return td_fail("Conv2d: groups = %lld must divide in_channels = %lld and out_channels = %lld",
                       (long long)o->groups, (long long)o->in_channels, (long long)o->out_channels);
    int64_t c = o->in_channels / o->groups, kh = k->v[0], kw = k->v[k->n - 1];
    double fan_in = (double)c * (double)kh * (double)kw;
    td_new_param(self, "weight", td_dims(o->out_channels, c, kh, kw), "fan_in", fan_in, 0);
    return !o->bias || td_new_param(self, "bias", td_dims(o->out_channels), "fan_in", fan_in, 0);
}

static bool fits(const options *o, td_tensor *x)
{
    return (td_ndim(x) == 4 && td_dim(x, 1) == o->in_channels) ||
           td_fail_as(TD_ESHAPE, "Conv2d: expected x (N, %lld, H, W), got %s", (long long)o->in_channels,
                      td_describe(x).s);
}

static td_tensor *run(td_module *self, const options *o, td_tensor *x, td_activation act)
{
    td_tensor *w = td_param(self, "weight"), *b = o->bias ? td_param(self, "bias") : NULL;
    if (act == TD_ACT_RELU)
        return td_conv2d_act(x, w, b, o->stride, o->padding, o->dilation, o->groups, TD_CONV2D_ACT_RELU);
    return td_conv2d(x, w, b, o->stride, o->padding, o->dilation, o->groups);
}

static td_tensor *forward(td_module *self, td_tensor *x)
{
    const options *o = td_options(self);
    return fits(o, x) ? run(self, o, x, (td_activation)o->activation) : NULL;
}

/* A relu of a relu is the same. */
static td_tensor *forward_act(td_module *self, td_tensor *x, td_activation act)
{
    const options *o = td_options(self);
    return act == TD_ACT_RELU && fits(o, x) ? run(self, o, x, TD_ACT_RELU) : NULL;
}

static bool sample(uint32_t i,
                   td_sample *s) /* plain; strided, padded, dilated, not square; in groups, without b; relu */
{
    options *o = s->opts;
    *o = (options){2, 4, td_dims(3), td_dims(1), td_dims(0), td_dims(1), 1, true, i == 3 ? TD_ACT_RELU : TD_ACT_NONE};
    if (i == 1) {
        o->kernel_size = td_dims(3, 2);
        o->stride = td_dims(2, 1);
        o->padding = td_dims(1, 2);
        o->dilation = td_dims(1, 2);
    }
    if (i == 2) {
        o->groups = 2;
        o->bias = false;
    }
    s->in[0] = td_randn(td_dims(2, 2, 5, 6), TD_F32);
    return i < 4;
}

static const td_layer conv2d = {
    .size = sizeof conv2d,
    .kind = TD_LAYER,
    .name = "Conv2d",
    .doc = "Cross-correlation of x (N, in_channels, H, W) with a learned kernel, giving (N, out_channels, OH, OW), "
           "OH = floor((H + 2 padding - dilation (KH - 1) - 1) / stride) + 1 (LeCun et al. 1989). weight "
           "(out_channels, in_channels / groups, KH, KW) and bias start uniform in +-1 / sqrt(in_channels / groups "
           "KH KW). With activation = \"relu\", y is relu of that, and the gradient is one op too.",
    .opts = TD_OPTS(options, opts),
    .init = init,
    .forward1 = forward,
    .sample = sample,
    .forward_act = forward_act,
};
static bool reg(void) { return td_add_layer(&conv2d); }
TD_PLUGIN("conv2d", "1.0", "MIT", "layer:Conv2d", reg, NULL)

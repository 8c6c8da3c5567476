/* conv_transpose2d.c - the gradient of Conv2d for its input, as a layer that enlarges (Zeiler et al. 2010)
 * x (N, C, H, W)   w (C, O / groups, KH, KW)   b (O)   y (N, O, OH, OW)
 * OH = (H - 1) s - 2 p + d (KH - 1) + q + 1 with stride s, padding p, dilation d, output_padding q */
#include <tide/plugin.h>

typedef struct {
    int64_t in_channels, out_channels;
    td_ints kernel_size, stride, padding, output_padding;
    int64_t groups;
    bool bias;
    td_ints dilation;
} options;
static const td_opt opts[] = {
    TD_OPT(options, in_channels, TD_O_INT, NULL, ">= 1", "channels of x"),
    TD_OPT(options, out_channels, TD_O_INT, NULL, ">= 1", "channels of y"),
    TD_OPT(options, kernel_size, TD_O_INTS, NULL, ">= 1", "height and width of the kernel, or one number for both"),
    TD_OPT(options, stride, TD_O_INTS, "1", ">= 1", "distance of the places where x's elements go"),
    TD_OPT(options, padding, TD_O_INTS, "0", ">= 0", "rows and columns cut off y on each side"),
    TD_OPT(options, output_padding, TD_O_INTS, "0", ">= 0", "rows and columns added to y at the end"),
    TD_OPT(options, groups, TD_O_INT, "1", ">= 1", "channel groups that do not mix"),
    TD_OPT(options, bias, TD_O_BOOL, "true", NULL, "whether b is added"),
    TD_OPT(options, dilation, TD_O_INTS, "1", ">= 1", "distance of kernel elements"),
};

static bool init(td_module *self, const void *given)
{
    const options *o = given;
    const td_ints *k = &o->kernel_size;
    if (k->n < 1 || k->n > 2)
        return td_fail("ConvTranspose2d: kernel_size: expected one or two numbers, got %lld", (long long)k->n);
    if (o->in_channels % o->groups || o->out_channels % o->groups)
        return td_fail("ConvTranspose2d: groups = %lld must divide in_channels = %lld and out_channels = %lld",
                       (long long)o->groups, (long long)o->in_channels, (long long)o->out_channels);
    int64_t out = o->out_channels / o->groups, kh = k->v[0], kw = k->v[k->n - 1];
    double fan_in = (double)out * (double)kh * (double)kw; /* PyTorch counts axis 2 of the weight */
    td_new_param(self, "weight", td_dims(o->in_channels, out, kh, kw), "fan_in", fan_in, 0);
    return !o->bias || td_new_param(self, "bias", td_dims(o->out_channels), "fan_in", fan_in, 0);
}

static td_tensor *forward(td_module *self, td_tensor *x)
{
    const options *o = td_options(self);
    if (td_ndim(x) != 4 || td_dim(x, 1) != o->in_channels)
        return td_fail_as(TD_ESHAPE, "ConvTranspose2d: expected x (N, %lld, H, W), got %s", (long long)o->in_channels,
                          td_describe(x).s);
    return td_conv_transpose2d(x, td_param(self, "weight"), o->bias ? td_param(self, "bias") : NULL, o->stride,
                               o->padding, o->output_padding, o->dilation, o->groups);
}

static bool sample(uint32_t i, td_sample *s) /* plain; strided, padded and not square; in groups, without bias */
{
    options *o = s->opts;
    *o = (options){4, 2, td_dims(3), td_dims(1), td_dims(0), td_dims(0), 1, true, td_dims(1)};
    if (i == 1) {
        o->kernel_size = td_dims(3, 2);
        o->stride = td_dims(2, 3);
        o->padding = td_dims(1, 0);
        o->output_padding = td_dims(1, 2);
    }
    if (i == 2) {
        o->groups = 2;
        o->bias = false;
        o->dilation = td_dims(2);
    }
    s->in[0] = td_randn(td_dims(2, 4, 3, 4), TD_F32);
    return i < 3;
}

static const td_layer conv_transpose2d = {
    .size = sizeof conv_transpose2d,
    .kind = TD_LAYER,
    .name = "ConvTranspose2d",
    .doc = "Transposed convolution: the gradient of Conv2d for its input, as a layer. x (N, in_channels, H, W) "
           "gives (N, out_channels, OH, OW), OH = (H - 1) stride - 2 padding + dilation (KH - 1) + output_padding + "
           "1 (Zeiler et al. 2010). weight (in_channels, out_channels / groups, KH, KW) and bias start uniform in "
           "+-1 / sqrt(out_channels / groups KH KW).",
    .opts = TD_OPTS(options, opts),
    .init = init,
    .forward1 = forward,
    .sample = sample,
};
static bool reg(void) { return td_add_layer(&conv_transpose2d); }
TD_PLUGIN("conv_transpose2d", "1.0", "MIT", "layer:ConvTranspose2d", reg, NULL)

/* avg_pool2d.c - y[n,c,i,j] = mean_{k,l} x[n, c, i s + k - p, j s + l - p]        x (N, C, H, W)   y (N, C, OH, OW)
 * with stride s, padding p */
#include <tide/plugin.h>

typedef struct {
    td_ints kernel_size, stride, padding;
    bool ceil_mode, count_include_pad;
} options;
static const td_opt opts[] = {
    TD_OPT(options, kernel_size, TD_O_INTS, NULL, ">= 1", "height and width of the window, or one number for both"),
    TD_OPT(options, stride, TD_O_INTS, "{}", ">= 1", "step of the window; {} = kernel_size"),
    TD_OPT(options, padding, TD_O_INTS, "0", ">= 0", "zeros around x, at most half the window"),
    TD_OPT(options, ceil_mode, TD_O_BOOL, "false", NULL, "whether a last, partial window counts"),
    TD_OPT(options, count_include_pad, TD_O_BOOL, "true", NULL, "whether the border counts in the divisor"),
};

static td_tensor *forward(td_module *self, td_tensor *x)
{
    const options *o = td_options(self);
    if (td_ndim(x) != 4) return td_fail_as(TD_ESHAPE, "AvgPool2d: expected x (N, C, H, W), got %s", td_describe(x).s);
    return td_avg_pool2d(x, o->kernel_size, o->stride, o->padding, o->ceil_mode, o->count_include_pad);
}

static bool sample(uint32_t i, td_sample *s) /* tiles; overlapping, padded, the border not counted; a partial window */
{
    options *o = s->opts;
    *o = (options){.kernel_size = td_dims(2), .padding = td_dims(0), .count_include_pad = true};
    if (i == 1) *o = (options){td_dims(3, 2), td_dims(1, 2), td_dims(1), false, false};
    if (i == 2) *o = (options){td_dims(2, 3), td_dims(2), td_dims(0, 1), true, true};
    s->in[0] = td_randn(td_dims(2, 3, 5, 6), TD_F32);
    return i < 3;
}

static const td_layer avg_pool2d = {
    .size = sizeof avg_pool2d,
    .kind = TD_LAYER,
    .name = "AvgPool2d",
    .doc = "The mean of each window of x (N, C, H, W), giving (N, C, OH, OW), OH = floor((H + 2 padding - "
           "kernel_size) / stride) + 1; with ceil_mode ceil in its place.",
    .opts = TD_OPTS(options, opts),
    .forward1 = forward,
    .sample = sample,
};
static bool reg(void) { return td_add_layer(&avg_pool2d); }
TD_PLUGIN("avg_pool2d", "1.0", "MIT", "layer:AvgPool2d", reg, NULL)

/* max_pool2d.c - y[n,c,i,j] = max_{k,l} x[n, c, i s + k d - p, j s + l d - p]        x (N, C, H, W)   y (N, C, OH, OW)
 * with stride s, padding p (never chosen), dilation d */
#include <tide/plugin.h>

typedef struct {
    td_ints kernel_size, stride, padding, dilation;
    bool ceil_mode;
} options;
static const td_opt opts[] = {
    TD_OPT(options, kernel_size, TD_O_INTS, NULL, ">= 1", "height and width of the window, or one number for both"),
    TD_OPT(options, stride, TD_O_INTS, "{}", ">= 1", "step of the window; {} = kernel_size"),
    TD_OPT(options, padding, TD_O_INTS, "0", ">= 0", "border that is never chosen, at most half the window"),
    TD_OPT(options, dilation, TD_O_INTS, "1", ">= 1", "distance of window elements"),
    TD_OPT(options, ceil_mode, TD_O_BOOL, "false", NULL, "whether a last, partial window counts"),
};

static td_tensor *forward(td_module *self, td_tensor *x)
{
    const options *o = td_options(self);
    if (td_ndim(x) != 4) return td_fail_as(TD_ESHAPE, "MaxPool2d: expected x (N, C, H, W), got %s", td_describe(x).s);
    return td_max_pool2d(x, o->kernel_size, o->stride, o->padding, o->dilation, o->ceil_mode);
}

static bool sample(uint32_t i, td_sample *s) /* tiles; overlapping and padded; dilated with a partial window */
{
    options *o = s->opts;
    *o = (options){.kernel_size = td_dims(2), .padding = td_dims(0), .dilation = td_dims(1)};
    if (i == 1) *o = (options){td_dims(3, 2), td_dims(1, 2), td_dims(1, 0), td_dims(1), false};
    if (i == 2) *o = (options){td_dims(2), td_dims(2), td_dims(0), td_dims(2, 1), true};
    s->in[0] = td_randn(td_dims(2, 3, 6, 5), TD_F32);
    return i < 3;
}

static const td_layer max_pool2d = {
    .size = sizeof max_pool2d,
    .kind = TD_LAYER,
    .name = "MaxPool2d",
    .doc = "The greatest element of each window of x (N, C, H, W), giving (N, C, OH, OW), OH = floor((H + 2 padding "
           "- dilation (kernel_size - 1) - 1) / stride) + 1; with ceil_mode ceil in its place.",
    .opts = TD_OPTS(options, opts),
    .forward1 = forward,
    .sample = sample,
};
static bool reg(void) { return td_add_layer(&max_pool2d); }
TD_PLUGIN("max_pool2d", "1.0", "MIT", "layer:MaxPool2d", reg, NULL)

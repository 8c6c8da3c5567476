/* adaptive_avg_pool2d.c - means of the windows floor(i H / OH) .. ceil((i + 1) H / OH)
 * x (N, C, H, W)   y (N, C, OH, OW) */
#include <tide/plugin.h>

typedef struct {
    td_ints output_size;
} options;
static const td_opt opts[] = {
    TD_OPT(options, output_size, TD_O_INTS, NULL, ">= 1", "height and width of y, or one number for both"),
};

static td_tensor *forward(td_module *self, td_tensor *x)
{
    const options *o = td_options(self);
    if (td_ndim(x) != 4)
        return td_fail_as(TD_ESHAPE, "AdaptiveAvgPool2d: expected x (N, C, H, W), got %s", td_describe(x).s);
    return td_adaptive_avg_pool2d(x, o->output_size);
}

static bool sample(uint32_t i, td_sample *s) /* the global mean; windows that overlap; as large as x */
{
    *(options *)s->opts = (options){i == 0 ? td_dims(1) : i == 1 ? td_dims(3, 2) : td_dims(5, 7)};
    s->in[0] = td_randn(td_dims(2, 3, 5, 7), TD_F32);
    return i < 3;
}

static const td_layer adaptive_avg_pool2d = {
    .size = sizeof adaptive_avg_pool2d,
    .kind = TD_LAYER,
    .name = "AdaptiveAvgPool2d",
    .doc = "Means of windows of x (N, C, H, W) that are chosen so that y is (N, C, OH, OW): window i covers rows "
           "floor(i H / OH) .. ceil((i + 1) H / OH).",
    .opts = TD_OPTS(options, opts),
    .forward1 = forward,
    .sample = sample,
};
static bool reg(void) { return td_add_layer(&adaptive_avg_pool2d); }
TD_PLUGIN("adaptive_avg_pool2d", "1.0", "MIT", "layer:AdaptiveAvgPool2d", reg, NULL)

/* leaky_relu.c - y = x where x > 0, else a x (Maas et al. 2013)        x, y any shape */
#include <tide/plugin.h>

typedef struct {
    double negative_slope;
} options;
static const td_opt opts[] = {
    TD_OPT(options, negative_slope, TD_O_NUM, "0.01", NULL, "factor of negative x"),
};

static td_tensor *forward(td_module *self, td_tensor *x)
{
    const options *o = td_options(self);
    return td_leaky_relu(x, o->negative_slope);
}

static bool sample(uint32_t i, td_sample *s) /* the default; steeper */
{
    *(options *)s->opts = (options){i == 0 ? 0.01 : 0.3};
    s->in[0] = td_randn(td_dims(3, 4), TD_F32);
    return i < 2;
}

static const td_layer leaky_relu = {
    .size = sizeof leaky_relu,
    .kind = TD_LAYER,
    .name = "LeakyReLU",
    .doc = "y = x where x > 0, else negative_slope x, element by element (Maas et al. 2013).",
    .opts = TD_OPTS(options, opts),
    .forward1 = forward,
    .sample = sample,
};
static bool reg(void) { return td_add_layer(&leaky_relu); }
TD_PLUGIN("leaky_relu", "1.0", "MIT", "layer:LeakyReLU", reg, NULL)

/* gelu.c - y = x Phi(x), Phi the normal distribution function        x, y any shape
 * Hendrycks & Gimpel 2016, arXiv:1606.08415 */
#include <tide/plugin.h>

typedef struct {
    int32_t approximate;
} options;
static const td_opt opts[] = {
    TD_OPT(options, approximate, TD_O_ENUM, "none", "none|tanh", "exact by erf, or by tanh"),
};

static td_tensor *forward(td_module *self, td_tensor *x)
{
    const options *o = td_options(self);
    return td_gelu(x, o->approximate);
}

static td_activation acts_as(td_module *self)
{
    const options *o = td_options(self);
    return o->approximate ? TD_ACT_GELU_TANH : TD_ACT_GELU;
}

static bool sample(uint32_t i, td_sample *s) /* by erf; by tanh */
{
    *(options *)s->opts = (options){i == 0 ? 0 : 1};
    s->in[0] = td_randn(td_dims(3, 4), TD_F32);
    return i < 2;
}

static const td_layer gelu = {
    .size = sizeof gelu,
    .kind = TD_LAYER,
    .name = "GELU",
    .doc = "y = x Phi(x) with Phi(x) = (1 + erf(x / sqrt(2))) / 2, or y = x / 2 (1 + tanh(sqrt(2 / pi) (x + "
           "0.044715 x^3))), element by element (Hendrycks & Gimpel 2016).",
    .opts = TD_OPTS(options, opts),
    .forward1 = forward,
    .sample = sample,
    .acts_as = acts_as,
};
static bool reg(void) { return td_add_layer(&gelu); }
TD_PLUGIN("gelu", "1.0", "MIT", "layer:GELU", reg, NULL)

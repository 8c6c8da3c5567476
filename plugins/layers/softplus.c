/* softplus.c - y = log(1 + exp(beta x)) / beta (Dugas et al. 2000)        x, y any shape */
#include <tide/plugin.h>

typedef struct {
    double beta;
} options;
static const td_opt opts[] = {
    TD_OPT(options, beta, TD_O_NUM, "1", "> 0", "sharpness: the larger, the closer to ReLU"),
};

static td_tensor *forward(td_module *self, td_tensor *x)
{
    const options *o = td_options(self);
    if (o->beta == 1) return td_softplus(x);
    td_tensor *beta = td_number(o->beta);
    return td_div(td_softplus(td_mul(x, beta)), beta);
}

static bool sample(uint32_t i, td_sample *s) /* the default; sharper */
{
    *(options *)s->opts = (options){i == 0 ? 1 : 2.5};
    s->in[0] = td_randn(td_dims(3, 4), TD_F32);
    return i < 2;
}

static const td_layer softplus = {
    .size = sizeof softplus,
    .kind = TD_LAYER,
    .name = "Softplus",
    .doc = "y = log(1 + exp(beta x)) / beta, element by element, without overflow (Dugas et al. 2000). PyTorch's "
           "threshold is not needed.",
    .opts = TD_OPTS(options, opts),
    .forward1 = forward,
    .sample = sample,
};
static bool reg(void) { return td_add_layer(&softplus); }
TD_PLUGIN("softplus", "1.0", "MIT", "layer:Softplus", reg, NULL)

/* elu.c - y = x where x > 0, else alpha (exp(x) - 1) (Clevert et al. 2016, arXiv:1511.07289)        x, y any shape */
#include <tide/plugin.h>

typedef struct {
    double alpha;
} options;
static const td_opt opts[] = {
    TD_OPT(options, alpha, TD_O_NUM, "1", NULL, "minus the limit at -infinity"),
};

static td_tensor *forward(td_module *self, td_tensor *x)
{
    const options *o = td_options(self);
    return td_elu(x, o->alpha);
}

static bool sample(uint32_t i, td_sample *s) /* the default; flatter */
{
    *(options *)s->opts = (options){i == 0 ? 1 : 0.5};
    s->in[0] = td_randn(td_dims(3, 4), TD_F32);
    return i < 2;
}

static const td_layer elu = {
    .size = sizeof elu,
    .kind = TD_LAYER,
    .name = "ELU",
    .doc = "y = x where x > 0, else alpha (exp(x) - 1), element by element (Clevert et al. 2016).",
    .opts = TD_OPTS(options, opts),
    .forward1 = forward,
    .sample = sample,
};
static bool reg(void) { return td_add_layer(&elu); }
TD_PLUGIN("elu", "1.0", "MIT", "layer:ELU", reg, NULL)

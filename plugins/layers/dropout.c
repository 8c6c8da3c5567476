/* dropout.c - y = x / (1 - p) with probability 1 - p, else 0 (Srivastava et al. 2014, JMLR 15)        x, y any shape
 * In evaluation y = x. */
#include <tide/plugin.h>

typedef struct {
    double p;
} options;
static const td_opt opts[] = {TD_OPT(options, p, TD_O_NUM, "0.5", ">= 0, <= 1", "probability of a zero")};

static td_tensor *forward(td_module *self, td_tensor *x)
{
    const options *o = td_options(self);
    return td_training(self) && o->p > 0 ? td_dropout(x, o->p) : x;
}

static bool sample(uint32_t i, td_sample *s) /* the default; nothing dropped */
{
    *(options *)s->opts = (options){i == 0 ? 0.5 : 0};
    s->in[0] = td_randn(td_dims(3, 4), TD_F32);
    return i < 2;
}

static const td_layer dropout = {
    .size = sizeof dropout,
    .kind = TD_LAYER,
    .name = "Dropout",
    .doc = "Training: each element becomes 0 with probability p, else x / (1 - p). Evaluation: y = x (Srivastava et "
           "al. 2014).",
    .opts = TD_OPTS(options, opts),
    .forward1 = forward,
    .sample = sample,
};
static bool reg(void) { return td_add_layer(&dropout); }
TD_PLUGIN("dropout", "1.0", "MIT", "layer:Dropout", reg, NULL)

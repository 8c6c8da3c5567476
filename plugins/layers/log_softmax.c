/* log_softmax.c - y_i = x_i - log sum_j exp(x_j) along one axis        x, y any shape */
#include <tide/plugin.h>

typedef struct {
    int64_t dim;
} options;
static const td_opt opts[] = {
    TD_OPT(options, dim, TD_O_AXIS, "-1", NULL, "axis of the sum; negative counts from the end"),
};

static td_tensor *forward(td_module *self, td_tensor *x)
{
    const options *o = td_options(self);
    return td_log_softmax(x, o->dim);
}

static bool sample(uint32_t i, td_sample *s) /* the last axis; one in the middle */
{
    *(options *)s->opts = (options){i == 0 ? -1 : 1};
    s->in[0] = td_randn(td_dims(2, 3, 4), TD_F32);
    return i < 2;
}

static const td_layer log_softmax = {
    .size = sizeof log_softmax,
    .kind = TD_LAYER,
    .name = "LogSoftmax",
    .doc = "y_i = x_i - log sum_j exp(x_j) along axis dim, without overflow. PyTorch guesses dim when it is not "
           "given; here it is the last axis.",
    .opts = TD_OPTS(options, opts),
    .forward1 = forward,
    .sample = sample,
};
static bool reg(void) { return td_add_layer(&log_softmax); }
TD_PLUGIN("log_softmax", "1.0", "MIT", "layer:LogSoftmax", reg, NULL)

/* l1.c - l = |x - target|        x, target: one shape */
#include <tide/plugin.h>

typedef struct {
    int32_t reduction;
} options;
static const td_opt opts[] = {
    TD_LOSS_OPTS(options),
};

static bool forward(td_module *self, td_tensor *const *in, uint32_t n_in, td_tensor **out)
{
    (void)n_in;
    const options *o = td_options(self);
    td_tensor *x = in[0], *target = in[1];
    if (!td_same_shape(x, target)) /* a broadcast here is nearly always a mistake */
        return td_fail_as(TD_ESHAPE, "L1Loss: expected x and target of one shape, got %s and %s", td_describe(x).s,
                          td_describe(target).s);
    out[0] = td_reduce_loss(td_abs(td_sub(x, target)), NULL, o->reduction);
    return out[0];
}

static bool sample(uint32_t i, td_sample *s) /* mean; sum */
{
    options *o = s->opts;
    if (i == 1) o->reduction = TD_REDUCE_SUM;
    s->in[0] = td_randn(td_dims(4, 3), TD_F32);
    s->in[1] = td_randn(td_dims(4, 3), TD_F32);
    return i < 2;
}

static const td_layer l1 = {
    .size = sizeof l1,
    .kind = TD_LOSS,
    .name = "L1Loss",
    .doc = "|x - target| for x and target of one shape; the gradient at 0 is 0.",
    .opts = TD_OPTS(options, opts),
    .in = "x target",
    .out = "loss",
    .forward = forward,
    .sample = sample,
};
static bool reg(void) { return td_add_layer(&l1); }
TD_PLUGIN("l1", "1.0", "MIT", "loss:L1Loss", reg, NULL)

/* smooth_l1.c - l = d^2 / (2 beta) where d = |x - target| < beta, else d - beta / 2 (Girshick 2015)
 * x, target: one shape */
#include <tide/plugin.h>

typedef struct {
    int32_t reduction;
    double beta;
} options;
static const td_opt opts[] = {
    TD_LOSS_OPTS(options),
    TD_OPT(options, beta, TD_O_NUM, "1", ">= 0", "where the square becomes a line"),
};

static bool forward(td_module *self, td_tensor *const *in, uint32_t n_in, td_tensor **out)
{
    (void)n_in;
    const options *o = td_options(self);
    td_tensor *x = in[0], *target = in[1];
    if (!td_same_shape(x, target)) /* a broadcast here is nearly always a mistake */
        return td_fail_as(TD_ESHAPE, "SmoothL1Loss: expected x and target of one shape, got %s and %s",
                          td_describe(x).s, td_describe(target).s);
    td_tensor *d = td_abs(td_sub(x, target)), *loss = d;
    if (o->beta > 0) {
        td_tensor *near = td_mul(td_square(d), td_number(0.5 / o->beta));
        loss = td_where(td_lt(d, td_number(o->beta)), near, td_sub(d, td_number(0.5 * o->beta)));
    }
    out[0] = td_reduce_loss(loss, NULL, o->reduction);
    return out[0];
}

static bool sample(uint32_t i, td_sample *s) /* mean; sum */
{
    options *o = s->opts;
    if (i == 1) o->reduction = TD_REDUCE_SUM;
    if (i == 1) o->beta = 0.5;
    s->in[0] = td_randn(td_dims(4, 3), TD_F32);
    s->in[1] = td_randn(td_dims(4, 3), TD_F32);
    return i < 2;
}

static const td_layer smooth_l1 = {
    .size = sizeof smooth_l1,
    .kind = TD_LOSS,
    .name = "SmoothL1Loss",
    .doc = "d^2 / (2 beta) where d = |x - target| is less than beta, else d - beta / 2, for x and target of one "
           "shape (Girshick 2015). beta = 0 is L1Loss.",
    .opts = TD_OPTS(options, opts),
    .in = "x target",
    .out = "loss",
    .forward = forward,
    .sample = sample,
};
static bool reg(void) { return td_add_layer(&smooth_l1); }
TD_PLUGIN("smooth_l1", "1.0", "MIT", "loss:SmoothL1Loss", reg, NULL)

/* bce.c - binary cross-entropy of probabilities:  l = -w (t log x + (1 - t) log(1 - x)), each log at least -100
 * x in 0..1, target t in 0..1, weight w (broadcast): one shape */
#include <tide/plugin.h>

typedef struct {
    int32_t reduction;
} options;
static const td_opt opts[] = {TD_LOSS_OPTS(options)};

/* log x, -100 below `tiny`. There a line of slope 1e12 takes its place, too flat to change the value, so that the
 * gradient at 0 is PyTorch's: large and finite, where log's is infinite. */
static td_tensor *bounded_log(td_tensor *x)
{
    double tiny = td_dtype_of(x) == TD_F64 ? 3.72e-44 /* exp(-100) */ : 1.2e-38 /* the least normal f32 */;
    td_tensor *line = td_sub(td_mul(x, td_number(1e12)), td_number(100));
    return td_where(td_lt(x, td_number(tiny)), line, td_log(td_clamp(x, tiny, INFINITY)));
}

static bool forward(td_module *self, td_tensor *const *in, uint32_t n_in, td_tensor **out)
{
    (void)n_in;
    const options *o = td_options(self);
    td_tensor *x = in[0], *target = in[1], *weight = in[2], *one = td_number(1);
    if (!td_same_shape(x, target))
        return td_fail_as(TD_ESHAPE, "BCELoss: expected x and target of one shape, got %s and %s", td_describe(x).s,
                          td_describe(target).s);
    td_tensor *hit = td_mul(target, bounded_log(x));
    td_tensor *miss = td_mul(td_sub(one, target), bounded_log(td_sub(one, x)));
    td_tensor *loss = td_neg(td_add(hit, miss));
    out[0] = td_reduce_loss(weight ? td_mul(loss, weight) : loss, NULL, o->reduction);
    return out[0];
}

static bool sample(uint32_t i, td_sample *s) /* usual; summed and weighted */
{
    options *o = s->opts;
    if (i == 1) o->reduction = TD_REDUCE_SUM;
    s->in[0] = td_sigmoid(td_randn(td_dims(4, 3), TD_F32));
    s->in[1] = td_rand(td_dims(4, 3), TD_F32);
    if (i == 1) s->in[2] = td_rand(td_dims(4, 1), TD_F32);
    return i < 2;
}

static const td_layer bce = {
    .size = sizeof bce,
    .kind = TD_LOSS,
    .name = "BCELoss",
    .doc = "-weight (target log x + (1 - target) log(1 - x)) for probabilities x and targets in 0..1 of one shape; "
           "each log is at least -100. The mean divides by the number of elements. BCEWithLogitsLoss is exact where "
           "x is near 0 or 1.",
    .opts = TD_OPTS(options, opts),
    .in = "x target weight?",
    .out = "loss",
    .forward = forward,
    .sample = sample,
};
static bool reg(void) { return td_add_layer(&bce); }
TD_PLUGIN("bce", "1.0", "MIT", "loss:BCELoss", reg, NULL)

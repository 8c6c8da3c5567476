/* bce_with_logits.c - binary cross-entropy of scores, without overflow
 *     l = -w (p t log s(x) + (1 - t) log(1 - s(x))),   s(x) = 1 / (1 + exp(-x)),   log s(x) = -softplus(-x)
 * x, target t in 0..1: one shape   weight w (broadcast)
 * p pos_weight, one number or one for each place of the last axis */
#include <tide/plugin.h>

typedef struct {
    td_nums pos_weight;
    int32_t reduction;
} options;
static const td_opt opts[] = {
    TD_OPT(options, pos_weight, TD_O_NUMS, "1", ">= 0", "factor of the positive part, one number or one a class"),
    TD_LOSS_OPTS(options),
};

static bool init(td_module *self, const void *given)
{
    const options *o = given;
    if (o->pos_weight.n == 1) return true;
    if (o->pos_weight.n < 1) return td_fail("BCEWithLogitsLoss: pos_weight: expected at least one number, got none");
    td_ints n = td_dims(o->pos_weight.n);
    td_copy_into(td_new_buffer(self, "pos_weight", TD_F32, n, 1), td_from_data(TD_F64, n, o->pos_weight.v));
    return !td_failed();
}

/* p t softplus(-x) + (1 - t) softplus(x), for a p of each class */
static td_tensor *by_class(td_tensor *x, td_tensor *target, td_tensor *pos)
{
    if (td_ndim(x) < 1 || td_dim(x, -1) != td_dim(pos, -1))
        return td_fail_as(TD_ESHAPE, "BCEWithLogitsLoss: expected x (..., %lld), as pos_weight has numbers, got %s",
                          (long long)td_dim(pos, -1), td_describe(x).s);
    td_tensor *hit = td_mul(td_mul(pos, target), td_softplus(td_neg(x)));
    return td_add(hit, td_mul(td_sub(td_number(1), target), td_softplus(x)));
}

static bool forward(td_module *self, td_tensor *const *in, uint32_t n_in, td_tensor **out)
{
    (void)n_in;
    const options *o = td_options(self);
    td_tensor *x = in[0], *target = in[1], *weight = in[2];
    if (!td_same_shape(x, target))
        return td_fail_as(TD_ESHAPE, "BCEWithLogitsLoss: expected x and target of one shape, got %s and %s",
                          td_describe(x).s, td_describe(target).s);
    bool one = o->pos_weight.n == 1;
    td_tensor *loss =
        one ? td_bce_with_logits(x, target, o->pos_weight.v[0]) : by_class(x, target, td_param(self, "pos_weight"));
    out[0] = td_reduce_loss(weight ? td_mul(loss, weight) : loss, NULL, o->reduction);
    return out[0];
}

static bool sample(uint32_t i, td_sample *s) /* usual; weighted and summed; a factor of each class */
{
    options *o = s->opts;
    if (i == 1) {
        o->reduction = TD_REDUCE_SUM;
        o->pos_weight.v[0] = 3;
    }
    if (i == 2) o->pos_weight = (td_nums){3, {0.5, 1, 2}};
    s->in[0] = td_randn(td_dims(4, 3), TD_F32);
    s->in[1] = td_rand(td_dims(4, 3), TD_F32);
    if (i == 1) s->in[2] = td_rand(td_dims(4, 1), TD_F32);
    return i < 3;
}

static const td_layer bce_with_logits = {
    .size = sizeof bce_with_logits,
    .kind = TD_LOSS,
    .name = "BCEWithLogitsLoss",
    .doc = "-weight (pos_weight target log s(x) + (1 - target) log(1 - s(x))), s(x) = 1 / (1 + exp(-x)), for scores "
           "x and targets in 0..1 of one shape, without overflow. The mean divides by the number of elements.",
    .opts = TD_OPTS(options, opts),
    .in = "x target weight?",
    .out = "loss",
    .init = init,
    .forward = forward,
    .sample = sample,
};
static bool reg(void) { return td_add_layer(&bce_with_logits); }
TD_PLUGIN("bce_with_logits", "1.0", "MIT", "loss:BCEWithLogitsLoss", reg, NULL)

/* nll.c - negative log likelihood:  l = -w_t logp_t
 * logp (N, C, ...)   target t class indices (N, ...)   weight w (C)
 * l = 0 where t is ignore_index. mean divides by the sum of w over the targets that count. */
#include <tide/plugin.h>

typedef struct {
    td_nums weight;
    bool has_weight;
    int64_t ignore_index;
    bool has_ignore_index;
    int32_t reduction;
} options;
static const td_opt opts[] = {
    TD_OPT_MAYBE(options, weight, TD_O_NUMS, "none", ">= 0", "factor of each class; none: 1"),
    TD_OPT_MAYBE(options, ignore_index, TD_O_INDEX, "-100", NULL, "a target that does not count"),
    TD_LOSS_OPTS(options),
};

static bool init(td_module *self, const void *given)
{
    const options *o = given;
    if (!o->has_weight || !o->weight.n) return true; /* {} is a table without options, too */
    td_ints n = td_dims(o->weight.n);
    td_copy_into(td_new_buffer(self, "weight", TD_F32, n, 1), td_from_data(TD_F64, n, o->weight.v));
    return !td_failed();
}

static bool check(td_tensor *logp, td_tensor *target, td_tensor *weight)
{
    const td_view *v = td_view_of(logp), *t = td_view_of(target);
    bool fits = v->nd >= 2 && t->nd == v->nd - 1 && t->dim[0] == v->dim[0];
    for (int32_t i = 1; fits && i < t->nd; i++) fits = t->dim[i] == v->dim[i + 1];
    if (!fits)
        return td_fail_as(TD_ESHAPE, "NLLLoss: expected logp (N, C, ...) and target (N, ...), got %s and %s",
                          td_describe(logp).s, td_describe(target).s);
    if (td_dtype_is_float(t->dt))
        return td_fail_as(TD_EDTYPE, "NLLLoss: expected class indices (integers) as target, got %s",
                          td_describe(target).s);
    if (weight && (td_ndim(weight) != 1 || td_dim(weight, 0) != v->dim[1]))
        return td_fail_as(TD_ESHAPE, "NLLLoss: expected a weight for each of %lld classes, got %s",
                          (long long)v->dim[1], td_describe(weight).s);
    return true;
}

/* The weight of each target, 0 where it is ignored: what mean divides by the sum of. NULL: 1 everywhere. */
static td_tensor *counted(const options *o, td_tensor *target, td_tensor *weight)
{
    if (!o->has_ignore_index) return weight ? td_index(weight, &target, 1) : NULL;
    target = td_cast(target, TD_I64); /* u8 cannot be compared with -100 */
    td_tensor *counts = td_ne(target, td_integer(o->ignore_index));
    if (!weight) return counts;
    td_tensor *safe = td_mul(target, counts); /* ignored ones may be no index */
    return td_mul(td_index(weight, &safe, 1), counts);
}

static bool forward(td_module *self, td_tensor *const *in, uint32_t n_in, td_tensor **out)
{
    (void)n_in;
    const options *o = td_options(self);
    td_tensor *logp = in[0], *target = in[1], *weight = in[2];
    if (!weight && td_has_param(self, "weight")) weight = td_param(self, "weight");
    if (!check(logp, target, weight)) return false;
    td_tensor *loss = td_nll_loss(logp, target, weight, o->has_ignore_index ? o->ignore_index : TD_NONE);
    bool mean = o->reduction == TD_REDUCE_MEAN;
    out[0] = td_reduce_loss(loss, mean ? counted(o, target, weight) : NULL, o->reduction);
    return out[0];
}

static bool sample(uint32_t i, td_sample *s) /* usual; weighted; pixels, summed */
{
    options *o = s->opts;
    if (i == 1) {
        o->has_weight = true;
        o->weight = (td_nums){5, {1, 0.5, 2, 0.25, 3}};
    }
    if (i == 2) o->reduction = TD_REDUCE_SUM;
    s->in[0] = td_log_softmax(td_randn(i == 2 ? td_dims(2, 5, 2, 3) : td_dims(4, 5), TD_F32), 1);
    s->in[1] = td_randint(0, 5, i == 2 ? td_dims(2, 2, 3) : td_dims(4), TD_I64);
    return i < 3;
}

static const td_layer nll = {
    .size = sizeof nll,
    .kind = TD_LOSS,
    .name = "NLLLoss",
    .doc = "-weight_t logp_t for log probabilities logp (N, C, ...), as LogSoftmax(2) gives them, and class indices "
           "target t (N, ...). 0 where t is ignore_index; mean divides by the sum of the weights of the targets "
           "that count. From Lua, weight may also be a tensor.",
    .opts = TD_OPTS(options, opts),
    .in = "logp target# weight?",
    .out = "loss",
    .init = init,
    .forward = forward,
    .sample = sample,
};
static bool reg(void) { return td_add_layer(&nll); }
TD_PLUGIN("nll", "1.0", "MIT", "loss:NLLLoss", reg, NULL)

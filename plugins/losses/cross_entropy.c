/* cross_entropy.c - the loss of a classifier that gives scores:  l = -sum_c q_c w_c log softmax(x)_c
 * x (N, C, ...)   target class indices (N, ...)   weight (C)
 * q is 1 - s at the target plus s / C everywhere, s = label_smoothing (Szegedy et al. 2016, arXiv:1512.00567);
 * l = 0 where target is ignore_index. mean divides by the sum of w over the targets that count. */
#include <tide/plugin.h>

typedef struct {
    td_nums weight;
    bool has_weight;
    int64_t ignore_index;
    bool has_ignore_index;
    int32_t reduction;
    double label_smoothing;
} options;
static const td_opt opts[] = {
    TD_OPT_MAYBE(options, weight, TD_O_NUMS, "none", ">= 0", "factor of each class; none: 1"),
    TD_OPT_MAYBE(options, ignore_index, TD_O_INDEX, "-100", NULL, "a target that does not count"),
    TD_LOSS_OPTS(options),
    TD_OPT(options, label_smoothing, TD_O_NUM, "0", ">= 0, <= 1", "share given to all classes alike"),
};

static bool init(td_module *self, const void *given)
{
    const options *o = given;
    if (!o->has_weight || !o->weight.n) return true; /* {} is a table without options, too */
    td_ints n = td_dims(o->weight.n);
    td_copy_into(td_new_buffer(self, "weight", TD_F32, n, 1), td_from_data(TD_F64, n, o->weight.v));
    return !td_failed();
}

static bool check(td_tensor *x, td_tensor *target, td_tensor *weight)
{
    const td_view *v = td_view_of(x), *t = td_view_of(target);
    bool fits = v->nd >= 2 && t->nd == v->nd - 1 && t->dim[0] == v->dim[0];
    for (int32_t i = 1; fits && i < t->nd; i++) fits = t->dim[i] == v->dim[i + 1];
    if (!fits)
        return td_fail_as(TD_ESHAPE, "CrossEntropyLoss: expected x (N, C, ...) and target (N, ...), got %s and %s",
                          td_describe(x).s, td_describe(target).s);
    if (td_dtype_is_float(t->dt))
        return td_fail_as(TD_EDTYPE, "CrossEntropyLoss: expected class indices (integers) as target, got %s",
                          td_describe(target).s);
    if (weight && (td_ndim(weight) != 1 || td_dim(weight, 0) != v->dim[1]))
        return td_fail_as(TD_ESHAPE, "CrossEntropyLoss: expected a weight for each of %lld classes, got %s",
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
    td_tensor *x = in[0], *target = in[1], *weight = in[2];
    if (!weight && td_has_param(self, "weight")) weight = td_param(self, "weight");
    if (!check(x, target, weight)) return false;
    int64_t ignore = o->has_ignore_index ? o->ignore_index : TD_NONE;
    td_tensor *loss = td_softmax_cross_entropy(x, target, weight, ignore, o->label_smoothing);
    bool mean = o->reduction == TD_REDUCE_MEAN;
    out[0] = td_reduce_loss(loss, mean ? counted(o, target, weight) : NULL, o->reduction);
    return out[0];
}

static bool sample(uint32_t i, td_sample *s) /* usual; smoothed and weighted; pixels, summed; weights as an input */
{
    options *o = s->opts;
    if (i == 1) {
        o->has_weight = true;
        o->weight = (td_nums){5, {1, 0.5, 2, 0.25, 3}};
        o->label_smoothing = 0.1;
    }
    if (i == 2) o->reduction = TD_REDUCE_SUM;
    s->in[0] = td_randn(i == 2 ? td_dims(2, 5, 2, 3) : td_dims(4, 5), TD_F32);
    s->in[1] = td_randint(0, 5, i == 2 ? td_dims(2, 2, 3) : td_dims(4), TD_I64);
    if (i == 3) s->in[2] = td_add(td_rand(td_dims(5), TD_F32), td_number(0.5));
    return i < 4;
}

static const td_layer cross_entropy = {
    .size = sizeof cross_entropy,
    .kind = TD_LOSS,
    .name = "CrossEntropyLoss",
    .doc = "-sum_c q_c weight_c log softmax(x)_c for scores x (N, C, ...) and class indices target (N, ...): q is 1 "
           "- label_smoothing at the target plus label_smoothing / C everywhere (Szegedy et al. 2016). 0 where "
           "target is ignore_index; mean divides by the sum of the weights of the targets that count. From Lua, "
           "weight may also be a tensor.",
    .opts = TD_OPTS(options, opts),
    .in = "x target# weight?",
    .out = "loss",
    .init = init,
    .forward = forward,
    .sample = sample,
};
static bool reg(void) { return td_add_layer(&cross_entropy); }
TD_PLUGIN("cross_entropy", "1.0", "MIT", "loss:CrossEntropyLoss", reg, NULL)

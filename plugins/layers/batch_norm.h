/* batch_norm.h - what BatchNorm1d and BatchNorm2d have in common: everything but name and shape of x (batch_norm_kind).
 *     y = act(w (x - mean) / sqrt(var + eps) + b + residual) per channel (Ioffe & Szegedy 2015, arXiv:1502.03167)
 * w, b, running_mean, running_var (C)   num_batches_tracked ()
 * Training uses the batch's mean and population variance, and keeps running ones of the mean and the unbiased variance:
 *     running = (1 - momentum) running + momentum batch        momentum none: the plain mean of all batches
 * Evaluation uses the running ones, or the batch's where none are kept. */
#ifndef TIDE_LAYERS_BATCH_NORM_H
#define TIDE_LAYERS_BATCH_NORM_H
#include <tide/plugin.h>

typedef struct {
    int64_t num_features;
    double eps, momentum;
    bool has_momentum, affine, track_running_stats;
    int32_t activation; /* none or relu, as td_activation has them */
} batch_norm_options;

/** A layer: x has fewest_axes to most_axes of them; shape: what stands behind "(N, C" in messages, for each number of axes. */
typedef struct {
    const char *name;
    int fewest_axes, most_axes;
    const char *const *shape;
} batch_norm_kind;

static const td_opt batch_norm_opts[] = {
    TD_OPT(batch_norm_options, num_features, TD_O_INT, NULL, ">= 1", "channels of x"),
    TD_OPT(batch_norm_options, eps, TD_O_NUM, "1e-5", ">= 0", "added to the variance"),
    TD_OPT_MAYBE(batch_norm_options, momentum, TD_O_NUM, "0.1", ">= 0, <= 1",
                 "share of the newest batch; none: a plain mean"),
    TD_OPT(batch_norm_options, affine, TD_O_BOOL, "true", NULL, "whether w and b are learned"),
    TD_OPT(batch_norm_options, track_running_stats, TD_O_BOOL, "true", NULL,
           "whether running statistics are kept for evaluation"),
    TD_OPT(batch_norm_options, activation, TD_O_ENUM, "none", "none|relu",
           "what is applied to the result, in one pass"),
};

#define BATCH_NORM_DOC                                                                                              \
    " (Ioffe & Szegedy 2015). Training: mean and population variance of the batch; running_mean and running_var "   \
    "(unbiased) follow as (1 - momentum) running + momentum batch. Evaluation: the running ones. weight starts at " \
    "1, bias at 0. A residual of x's shape is added before the activation: bn(x, residual) with activation = "      \
    "\"relu\" is relu(bn(x) + residual) in one pass over memory, and its gradient is one too."

static bool batch_norm_init(td_module *self, const void *given)
{
    const batch_norm_options *o = given;
    td_ints c = td_dims(o->num_features), scalar = {0, {0}};
    if (o->affine) {
        td_new_param(self, "weight", c, "constant", 1, 0);
        td_new_param(self, "bias", c, "constant", 0, 0);
    }
    if (o->track_running_stats) {
        td_new_buffer(self, "running_mean", TD_F32, c, 0);
        td_new_buffer(self, "running_var", TD_F32, c, 1);
        td_new_buffer(self, "num_batches_tracked", TD_I64, scalar, 0);
    }
    return !td_failed();
}

/* running = running + share (batch - running) */
static void batch_norm_blend(td_tensor *running, td_tensor *batch, td_tensor *share)
{
    td_add_into(running, running, td_mul(td_sub(batch, running), share));
}

/* mean and rstd are outputs that carry no gradient, so none of this is recorded. n: elements of a channel */
static bool batch_norm_track(td_module *self, const batch_norm_options *o, td_tensor *mean, td_tensor *rstd, double n)
{
    td_tensor *count = td_param(self, "num_batches_tracked");
    td_add_into(count, count, td_integer(1));
    td_tensor *share = o->has_momentum ? td_number(o->momentum) : td_reciprocal(td_cast(count, TD_F64));
    td_tensor *var = td_clamp(td_sub(td_reciprocal(td_square(rstd)), td_number(o->eps)), 0, INFINITY);
    batch_norm_blend(td_param(self, "running_mean"), mean, share);
    batch_norm_blend(td_param(self, "running_var"), td_mul(var, td_number(n / (n - 1))), share);
    return !td_failed();
}

/* y for an x whose shape is fine; residual may be absent. */
static td_tensor *batch_norm_run(td_module *self, const batch_norm_kind *k, td_tensor *x, td_tensor *residual,
                                 bool relu)
{
    const batch_norm_options *o = td_options(self);
    td_tensor *w = o->affine ? td_param(self, "weight") : NULL, *b = o->affine ? td_param(self, "bias") : NULL;
    if (!td_training(self) && o->track_running_stats)
        return td_batch_norm_infer(x, td_param(self, "running_mean"), td_param(self, "running_var"), w, b, residual,
                                   o->eps, relu ? TD_BATCH_NORM_INFER_RELU : TD_BATCH_NORM_INFER_NONE);

    int64_t n = td_numel(x) / o->num_features;
    if (n == 1 && td_training(self))
        return td_fail_as(TD_ESHAPE, "%s: training needs more than one value per channel, got %s", k->name,
                          td_describe(x).s);
    td_tensor *y, *mean, *rstd;
    if (!td_batch_norm_full(x, w, b, residual, o->eps, relu ? TD_BATCH_NORM_RELU : TD_BATCH_NORM_NONE, &y, &mean,
                            &rstd))
        return NULL;
    if (!td_training(self) || !o->track_running_stats || n == 0) return y;
    return batch_norm_track(self, o, mean, rstd, (double)n) ? y : NULL;
}

static bool batch_norm_fits(td_module *self, const batch_norm_kind *k, td_tensor *x)
{
    const batch_norm_options *o = td_options(self);
    long long c = (long long)o->num_features;
    if (td_ndim(x) >= k->fewest_axes && td_ndim(x) <= k->most_axes && td_dim(x, 1) == c) return true;
    char wanted[96];
    int at = 0;
    for (int i = 0; i <= k->most_axes - k->fewest_axes; i++)
        at += snprintf(wanted + at, sizeof wanted - (size_t)at, "%s(N, %lld%s)", i ? " or " : "", c, k->shape[i]);
    return td_fail_as(TD_ESHAPE, "%s: expected x %s, got %s", k->name, wanted, td_describe(x).s);
}

/** The layer's forward: in is x and perhaps a residual. */
static bool batch_norm_forward(td_module *self, const batch_norm_kind *k, td_tensor *const *in, td_tensor **out)
{
    const batch_norm_options *o = td_options(self);
    if (!batch_norm_fits(self, k, in[0])) return false;
    out[0] = batch_norm_run(self, k, in[0], in[1], o->activation == TD_ACT_RELU);
    return out[0] != NULL;
}

/** The layer and the activation behind it as one; NULL without an error where that is no relu. */
static td_tensor *batch_norm_forward_act(td_module *self, const batch_norm_kind *k, td_tensor *x, td_activation act)
{
    if (act != TD_ACT_RELU || !batch_norm_fits(self, k, x)) return NULL;
    return batch_norm_run(self, k, x, NULL, true);
}

/** Samples for x of 3 channels and dims d: usual; a cumulative mean; without w and b; without running statistics; a relu; a relu
 *  after a residual. */
static bool batch_norm_sample(uint32_t i, td_sample *s, td_ints d)
{
    *(batch_norm_options *)s->opts =
        (batch_norm_options){3, 1e-5, 0.1, i != 1, i != 2, i != 3, i > 3 ? TD_ACT_RELU : TD_ACT_NONE};
    s->in[0] = td_randn(d, TD_F32);
    if (i == 5) s->in[1] = td_randn(d, TD_F32);
    return i < 6;
}

#endif

/* batch_norm.h - what BatchNorm1d and BatchNorm2d have in common: everything but the shape of x.
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

/** y for an x whose shape is fine; name: of the layer. residual may be absent. */
static td_tensor *batch_norm_run(td_module *self, const char *name, td_tensor *x, td_tensor *residual, bool relu)
{
    const batch_norm_options *o = td_options(self);
    td_tensor *w = o->affine ? td_param(self, "weight") : NULL, *b = o->affine ? td_param(self, "bias") : NULL;
    if (!td_training(self) && o->track_running_stats)
        return td_batch_norm_infer(x, td_param(self, "running_mean"), td_param(self, "running_var"), w, b, residual,
                                   o->eps, relu ? TD_BATCH_NORM_INFER_RELU : TD_BATCH_NORM_INFER_NONE);

    int64_t n = td_numel(x) / o->num_features;
    if (n == 1 && td_training(self))
        return td_fail_as(TD_ESHAPE, "%s: training needs more than one value per channel, got %s", name,
                          td_describe(x).s);
    td_tensor *y, *mean, *rstd;
    if (!td_batch_norm_full(x, w, b, residual, o->eps, relu ? TD_BATCH_NORM_RELU : TD_BATCH_NORM_NONE, &y, &mean,
                            &rstd))
        return NULL;
    if (!td_training(self) || !o->track_running_stats || n == 0) return y;
    return batch_norm_track(self, o, mean, rstd, (double)n) ? y : NULL;
}

/** Whether the options say that a relu is applied. */
static bool batch_norm_relu(td_module *self)
{
    return ((const batch_norm_options *)td_options(self))->activation == TD_ACT_RELU;
}

#endif

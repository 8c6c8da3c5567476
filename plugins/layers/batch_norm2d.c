/* batch_norm2d.c - y = w (x - mean) / sqrt(var + eps) + b per channel (Ioffe & Szegedy 2015, arXiv:1502.03167)
 * x, y (N, C, H, W)   w, b, running_mean, running_var (C)   num_batches_tracked ()
 * Training uses the batch's mean and population variance, and keeps running ones of the mean and the unbiased variance:
 *     running = (1 - momentum) running + momentum batch        momentum none: the plain mean of all batches
 * Evaluation uses the running ones, or the batch's where none are kept. */
#include <tide/plugin.h>

typedef struct {
    int64_t num_features;
    double eps, momentum;
    bool has_momentum, affine, track_running_stats;
} options;
static const td_opt opts[] = {
    TD_OPT(options, num_features, TD_O_INT, NULL, ">= 1", "channels of x"),
    TD_OPT(options, eps, TD_O_NUM, "1e-5", ">= 0", "added to the variance"),
    TD_OPT_MAYBE(options, momentum, TD_O_NUM, "0.1", ">= 0, <= 1", "share of the newest batch; none: a plain mean"),
    TD_OPT(options, affine, TD_O_BOOL, "true", NULL, "whether w and b are learned"),
    TD_OPT(options, track_running_stats, TD_O_BOOL, "true", NULL, "whether running statistics are kept for evaluation"),
};

static bool init(td_module *self, const void *given)
{
    const options *o = given;
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
static void blend(td_tensor *running, td_tensor *batch, td_tensor *share)
{
    td_add_into(running, running, td_mul(td_sub(batch, running), share));
}

/* mean and rstd are outputs that carry no gradient, so none of this is recorded. n: elements of a channel */
static bool track(td_module *self, const options *o, td_tensor *mean, td_tensor *rstd, double n)
{
    td_tensor *count = td_param(self, "num_batches_tracked");
    td_add_into(count, count, td_integer(1));
    td_tensor *share = o->has_momentum ? td_number(o->momentum) : td_reciprocal(td_cast(count, TD_F64));
    td_tensor *var = td_clamp(td_sub(td_reciprocal(td_square(rstd)), td_number(o->eps)), 0, INFINITY);
    blend(td_param(self, "running_mean"), mean, share);
    blend(td_param(self, "running_var"), td_mul(var, td_number(n / (n - 1))), share);
    return !td_failed();
}

static td_tensor *forward(td_module *self, td_tensor *x)
{
    const options *o = td_options(self);
    if (td_ndim(x) != 4 || td_dim(x, 1) != o->num_features)
        return td_fail_as(TD_ESHAPE, "BatchNorm2d: expected x (N, %lld, H, W), got %s", (long long)o->num_features,
                          td_describe(x).s);
    td_tensor *w = o->affine ? td_param(self, "weight") : NULL, *b = o->affine ? td_param(self, "bias") : NULL;
    if (!td_training(self) && o->track_running_stats)
        return td_batch_norm_infer(x, td_param(self, "running_mean"), td_param(self, "running_var"), w, b, o->eps);

    int64_t n = td_numel(x) / o->num_features;
    if (n == 1 && td_training(self))
        return td_fail_as(TD_ESHAPE, "BatchNorm2d: training needs more than one value per channel, got %s",
                          td_describe(x).s);
    td_tensor *y, *mean, *rstd;
    if (!td_batch_norm_full(x, w, b, o->eps, &y, &mean, &rstd)) return NULL;
    if (!td_training(self) || !o->track_running_stats || n == 0) return y;
    return track(self, o, mean, rstd, (double)n) ? y : NULL;
}

static bool sample(uint32_t i, td_sample *s) /* usual; a cumulative mean; without w and b; without running statistics */
{
    *(options *)s->opts = (options){3, 1e-5, 0.1, i != 1, i != 2, i != 3};
    s->in[0] = td_randn(td_dims(2, 3, 2, 4), TD_F32);
    return i < 4;
}

static const td_layer batch_norm2d = {
    .size = sizeof batch_norm2d,
    .kind = TD_LAYER,
    .name = "BatchNorm2d",
    .doc = "y = weight (x - mean) / sqrt(var + eps) + bias for each channel of x (N, num_features, H, W) (Ioffe & "
           "Szegedy 2015). Training: mean and population variance of the batch; running_mean and running_var "
           "(unbiased) follow as (1 - momentum) running + momentum batch. Evaluation: the running ones. weight "
           "starts at 1, bias at 0.",
    .opts = TD_OPTS(options, opts),
    .init = init,
    .forward1 = forward,
    .sample = sample,
};
static bool reg(void) { return td_add_layer(&batch_norm2d); }
TD_PLUGIN("batch_norm2d", "1.0", "MIT", "layer:BatchNorm2d", reg, NULL)

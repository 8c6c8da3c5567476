/* layer_norm.c - y = w (x - mean) / sqrt(var + eps) + b over the last axes (Ba et al. 2016, arXiv:1607.06450)
 * x, y (..., D...)   w, b (D...) with D... = normalized_shape; population variance */
#include <tide/plugin.h>

typedef struct {
    td_ints normalized_shape;
    double eps;
    bool elementwise_affine, bias;
} options;
static const td_opt opts[] = {
    TD_OPT(options, normalized_shape, TD_O_INTS, NULL, ">= 1", "extents of the last axes, normalised together"),
    TD_OPT(options, eps, TD_O_NUM, "1e-5", ">= 0", "added to the variance"),
    TD_OPT(options, elementwise_affine, TD_O_BOOL, "true", NULL, "whether w and b are learned"),
    TD_OPT(options, bias, TD_O_BOOL, "true", NULL, "whether b is added, beside w"),
};

static bool init(td_module *self, const void *given)
{
    const options *o = given;
    int64_t n = o->normalized_shape.n;
    if (n < 1 || n > TD_MAX_DIM)
        return td_fail("LayerNorm: normalized_shape: expected 1 to %d extents, got %lld", TD_MAX_DIM, (long long)n);
    if (o->elementwise_affine) td_new_param(self, "weight", o->normalized_shape, "constant", 1, 0);
    if (o->elementwise_affine && o->bias) td_new_param(self, "bias", o->normalized_shape, "constant", 0, 0);
    return !td_failed();
}

static bool fits(const td_ints *want, td_tensor *x)
{
    if (td_ndim(x) < want->n) return false;
    for (int64_t i = 0; i < want->n; i++)
        if (td_dim(x, (int)(i - want->n)) != want->v[i]) return false;
    return true;
}

static td_tensor *refuse(const td_ints *want, td_tensor *x)
{
    char text[22 * TD_MAX_DIM + 1] = "";
    size_t len = 0;
    for (int64_t i = 0; i < want->n; i++)
        len += (size_t)snprintf(text + len, sizeof text - len, ", %lld", (long long)want->v[i]);
    return td_fail_as(TD_ESHAPE, "LayerNorm: expected x (...%s), got %s", text, td_describe(x).s);
}

static td_tensor *forward(td_module *self, td_tensor *x)
{
    const options *o = td_options(self);
    if (!fits(&o->normalized_shape, x)) return refuse(&o->normalized_shape, x);
    td_tensor *w = o->elementwise_affine ? td_param(self, "weight") : NULL;
    td_tensor *b = o->elementwise_affine && o->bias ? td_param(self, "bias") : NULL;
    return td_layer_norm(x, w, b, o->normalized_shape.n, o->eps);
}

static bool sample(uint32_t i, td_sample *s) /* one axis; two axes; without b; without w and b */
{
    *(options *)s->opts = (options){i == 1 ? td_dims(3, 4) : td_dims(4), 1e-5, i != 3, i != 2};
    s->in[0] = td_randn(td_dims(2, 3, 4), TD_F32);
    return i < 4;
}

static const td_layer layer_norm = {
    .size = sizeof layer_norm,
    .kind = TD_LAYER,
    .name = "LayerNorm",
    .doc = "y = weight (x - mean) / sqrt(var + eps) + bias, mean and population variance over the last axes of x, "
           "whose extents are normalized_shape (Ba et al. 2016). weight starts at 1, bias at 0.",
    .opts = TD_OPTS(options, opts),
    .init = init,
    .forward1 = forward,
    .sample = sample,
};
static bool reg(void) { return td_add_layer(&layer_norm); }
TD_PLUGIN("layer_norm", "1.0", "MIT", "layer:LayerNorm", reg, NULL)

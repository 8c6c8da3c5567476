/* flatten.c - axes start_dim .. end_dim become one        x (N, C, H, W)   y (N, C H W) */
#include <tide/plugin.h>

typedef struct {
    int64_t start_dim, end_dim;
} options;
static const td_opt opts[] = {
    TD_OPT(options, start_dim, TD_O_AXIS, "2", NULL, "first axis; the default leaves the batch alone"),
    TD_OPT(options, end_dim, TD_O_AXIS, "-1", NULL, "last axis; negative counts from the end"),
};

static td_tensor *forward(td_module *self, td_tensor *x)
{
    const options *o = td_options(self);
    return td_flatten(x, o->start_dim, o->end_dim);
}

static bool sample(uint32_t i, td_sample *s) /* all but the batch; two axes in the middle */
{
    *(options *)s->opts = i == 0 ? (options){1, -1} : (options){1, 2};
    s->in[0] = td_randn(td_dims(2, 3, 2, 2), TD_F32);
    return i < 2;
}

static const td_layer flatten = {
    .size = sizeof flatten,
    .kind = TD_LAYER,
    .name = "Flatten",
    .doc = "Axes start_dim .. end_dim of x become one; a view where the strides allow it.",
    .opts = TD_OPTS(options, opts),
    .forward1 = forward,
    .sample = sample,
};
static bool reg(void) { return td_add_layer(&flatten); }
TD_PLUGIN("flatten", "1.0", "MIT", "layer:Flatten", reg, NULL)

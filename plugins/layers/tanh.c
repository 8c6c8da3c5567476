/* tanh.c - y = tanh(x)        x, y any shape */
#include <tide/plugin.h>

static td_tensor *forward(td_module *self, td_tensor *x)
{
    (void)self;
    return td_tanh(x);
}

static td_activation acts_as(td_module *self)
{
    (void)self;
    return TD_ACT_TANH;
}

static bool sample(uint32_t i, td_sample *s) /* a matrix; three axes */
{
    s->in[0] = td_randn(i == 0 ? td_dims(3, 4) : td_dims(2, 3, 2), TD_F32);
    return i < 2;
}

static const td_layer tanh_layer = {
    .size = sizeof tanh_layer,
    .kind = TD_LAYER,
    .name = "Tanh",
    .doc = "y = tanh(x), element by element.",
    .forward1 = forward,
    .sample = sample,
    .acts_as = acts_as,
};
static bool reg(void) { return td_add_layer(&tanh_layer); }
TD_PLUGIN("tanh", "1.0", "MIT", "layer:Tanh", reg, NULL)

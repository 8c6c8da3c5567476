/* silu.c - y = x sigmoid(x) (Elfwing et al. 2018, arXiv:1702.03118)        x, y any shape */
#include <tide/plugin.h>

static td_tensor *forward(td_module *self, td_tensor *x)
{
    (void)self;
    return td_silu(x);
}

static bool sample(uint32_t i, td_sample *s) /* a matrix; three axes */
{
    s->in[0] = td_randn(i == 0 ? td_dims(3, 4) : td_dims(2, 3, 2), TD_F32);
    return i < 2;
}

static const td_layer silu = {
    .size = sizeof silu,
    .kind = TD_LAYER,
    .name = "SiLU",
    .doc = "y = x / (1 + exp(-x)), element by element (Elfwing et al. 2018).",
    .forward1 = forward,
    .sample = sample,
};
static bool reg(void) { return td_add_layer(&silu); }
TD_PLUGIN("silu", "1.0", "MIT", "layer:SiLU", reg, NULL)

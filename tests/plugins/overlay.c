/* overlay.c - a kernel for an op and a device that it does not own: loaded when the op first runs there. It adds 100. */
#include "hostile.h"
static bool run(const td_kargs *a)
{
    const float *x = a->in[0]->p;
    float *y = a->out[0]->p;
    for (int64_t i = 0; i < td_view_numel(a->out[0]); i++) y[i] = x[i] + 100.0f;
    return true;
}
static const td_kernel kernel = {.size = sizeof kernel,
                                 .op = "test.overlaid",
                                 .device = "cpu",
                                 .dtypes = TD_BIT(TD_F32),
                                 .priority = 10,
                                 .run = run};
static bool reg(void) { return td_add_kernel(&kernel); }
TD_PLUGIN("overlay", "1.0", "MIT", "kernel:test.overlaid@cpu", reg, NULL)

/* nan_kernel.c - an op whose kernel writes NaN, and one whose kernel fails without a word. */
#include "hostile.h"

static bool run_nan(const td_kargs *a)
{
    float *y = a->out[0]->p;
    for (int64_t i = 0; i < td_view_numel(a->out[0]); i++) y[i] = NAN;
    return true;
}
static bool run_silent(const td_kargs *a)
{
    (void)a;
    return false;
}
static const td_op ops[] = {
    {.size = sizeof(td_op),
     .name = "nan.maker",
     .doc = "NaN in the shape of x",
     .in = "x",
     .out = "y",
     .flags = TD_OP_PRIM},
    {.size = sizeof(td_op), .name = "nan.silent", .doc = "fails", .in = "x", .out = "y", .flags = TD_OP_PRIM},
};
static const td_kernel kernels[] = {
    {.size = sizeof(td_kernel), .op = "nan.maker", .device = "cpu", .dtypes = TD_BIT(TD_F32), .run = run_nan},
    {.size = sizeof(td_kernel), .op = "nan.silent", .device = "cpu", .dtypes = TD_BIT(TD_F32), .run = run_silent},
};
static bool reg(void)
{
    for (int i = 0; i < 2; i++)
        if (!td_add_op(&ops[i]) || !td_add_kernel(&kernels[i])) return false;
    return true;
}
TD_PLUGIN("nan_kernel", "1.0", "MIT", "op:nan.maker op:nan.silent kernel:nan.maker@cpu kernel:nan.silent@cpu", reg,
          NULL)

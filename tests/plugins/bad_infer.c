/* bad_infer.c - shape rules that answer what cannot be. */
#include "hostile.h"

static bool too_many_axes(td_infer *q)
{
    q->out[0]->nd = 99;
    return true;
}
static bool negative(td_infer *q)
{
    q->out[0]->nd = 1;
    q->out[0]->dim[0] = -5;
    return true;
}
static bool huge(td_infer *q)
{
    q->out[0]->nd = 3;
    for (int i = 0; i < 3; i++) q->out[0]->dim[i] = INT64_MAX / 2;
    return true;
}
static bool no_dtype(td_infer *q)
{
    q->out[0]->dt = (td_dtype)1234;
    return true;
}
static bool silent(td_infer *q)
{
    (void)q;
    return false;
}
static bool many_outputs(td_infer *q)
{
    q->n_out = 1000;
    return true;
}
static bool run(const td_kargs *a)
{
    (void)a;
    return true;
}

#define ROW(op, rule)                                                                                     \
    {                                                                                                     \
        .size = sizeof(td_op), .name = "bad." #op, .doc = "", .in = "x", .out = "y", .flags = TD_OP_PRIM, \
        .infer = rule                                                                                     \
    }
static const td_op ops[] = {ROW(axes, too_many_axes), ROW(negative, negative), ROW(huge, huge),
                            ROW(dtype, no_dtype),     ROW(silent, silent),     ROW(outputs, many_outputs)};
#define KERNEL(op_name)                                                                                      \
    {                                                                                                        \
        .size = sizeof(td_kernel), .op = "bad." #op_name, .device = "cpu", .dtypes = TD_BITS_ALL, .run = run \
    }
static const td_kernel kernels[] = {KERNEL(axes),  KERNEL(negative), KERNEL(huge),
                                    KERNEL(dtype), KERNEL(silent),   KERNEL(outputs)};

static bool reg(void)
{
    for (size_t i = 0; i < sizeof ops / sizeof *ops; i++)
        if (!td_add_op(&ops[i]) || !td_add_kernel(&kernels[i])) return false;
    return true;
}
TD_PLUGIN("bad_infer", "1.0", "MIT",
          "op:bad.axes op:bad.negative op:bad.huge op:bad.dtype op:bad.silent op:bad.outputs kernel:*@cpu", reg, NULL)

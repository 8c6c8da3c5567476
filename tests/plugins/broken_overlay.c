/* broken_overlay.c - an overlay that is refused: the op runs on with its other kernels. */
#include "hostile.h"
static const td_kernel kernel = {
    .size = sizeof kernel, .op = "test.overlaid", .device = "cpu", .dtypes = TD_BIT(TD_F32), .priority = 99};
static bool reg(void) { return td_add_kernel(&kernel); }
TD_PLUGIN("broken_overlay", "1.0", "MIT", "kernel:test.overlaid@cpu", reg, NULL)

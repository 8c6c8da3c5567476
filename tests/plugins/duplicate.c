/* duplicate.c - registers an op whose name libtide has taken, after a layer that is fine. */
#include "hostile.h"
HOSTILE_LAYER(layer, "Duplicate");
static bool parts(const td_call *c, td_tensor **out)
{
    out[0] = td_neg(c->in[0]);
    return out[0] != NULL;
}
static const td_op op = {
    .size = sizeof op, .name = "relu", .doc = "not relu", .in = "x", .out = "y", .decompose = parts};
static bool reg(void) { return td_add_layer(&layer) && td_add_op(&op); }
TD_PLUGIN("duplicate", "1.0", "MIT", "layer:Duplicate op:relu", reg, NULL)

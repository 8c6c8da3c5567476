/* half_way.c - registers a layer and an op, then fails: neither may stay. */
#include "hostile.h"
HOSTILE_LAYER(layer, "HalfWay");
static bool parts(const td_call *c, td_tensor **out)
{
    out[0] = td_neg(c->in[0]);
    return out[0] != NULL;
}
static const td_op op = {.size = sizeof op, .name = "half.way", .doc = "-x", .in = "x", .out = "y", .decompose = parts};
static bool reg(void)
{
    return td_add_layer(&layer) && td_add_op(&op) && td_fail("the licence server does not answer");
}
TD_PLUGIN("half_way", "1.0", "MIT", "layer:HalfWay op:half.way", reg, NULL)

/* shorter_table.c - a table from older headers, without its tail: this one is welcome. What lies behind it is rubbish. */
#include "hostile.h"
static const struct {
    char head[offsetof(td_layer, sample)];
} space;
static union {
    td_layer t;
    unsigned char byte[sizeof(td_layer)];
} layer;
static bool reg(void)
{
    for (size_t i = 0; i < sizeof layer; i++) layer.byte[i] = 0xee;
    __builtin_memcpy(&layer, &space, sizeof space);
    layer.t.size = sizeof space;
    layer.t.name = "ShorterTable";
    layer.t.doc = "y = x";
    layer.t.forward1 = hostile_identity;
    return td_add_layer(&layer.t);
}
TD_PLUGIN("shorter_table", "1.0", "MIT", "layer:ShorterTable", reg, NULL)

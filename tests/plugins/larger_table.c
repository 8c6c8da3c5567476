/* larger_table.c - a table from newer headers than the host's. */
#include "hostile.h"
static const struct {
    td_layer t;
    void *newer;
} layer = {
    .t = {.size = sizeof layer, .kind = TD_LAYER, .name = "LargerTable", .doc = "y = x", .forward1 = hostile_identity},
    .newer = NULL};
static bool reg(void) { return td_add_layer(&layer.t); }
TD_PLUGIN("larger_table", "1.0", "MIT", "layer:LargerTable", reg, NULL)

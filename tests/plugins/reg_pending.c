/* reg_pending.c - reg() returns true although one of its tables was refused. */
#include "hostile.h"
HOSTILE_LAYER(layer, "RegPending");
static const td_layer both = {.size = sizeof both, .kind = TD_LAYER, .name = "RegPendingToo", .doc = "no forward"};
static bool reg(void)
{
    td_add_layer(&layer);
    td_add_layer(&both);
    return true;
}
TD_PLUGIN("reg_pending", "1.0", "MIT", "layer:RegPending layer:RegPendingToo", reg, NULL)

/* half_silent.c - reg() returns false and says nothing. */
#include "hostile.h"
HOSTILE_LAYER(layer, "HalfSilent");
static bool reg(void)
{
    td_add_layer(&layer);
    return false;
}
TD_PLUGIN("half_silent", "1.0", "MIT", "layer:HalfSilent", reg, NULL)

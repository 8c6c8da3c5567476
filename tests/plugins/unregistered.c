/* unregistered.c - announces two layers and registers one. */
#include "hostile.h"
HOSTILE_LAYER(layer, "Registered");
static bool reg(void) { return td_add_layer(&layer); }
TD_PLUGIN("unregistered", "1.0", "MIT", "layer:Registered layer:Unregistered", reg, NULL)

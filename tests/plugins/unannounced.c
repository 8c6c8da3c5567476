/* unannounced.c - registers a layer that its metadata does not announce. */
#include "hostile.h"
HOSTILE_LAYER(layer, "Announced");
HOSTILE_LAYER(secret, "Unannounced");
static bool reg(void) { return td_add_layer(&layer) && td_add_layer(&secret); }
TD_PLUGIN("unannounced", "1.0", "MIT", "layer:Announced", reg, NULL)

/* wrong_minor.c - from a later minor ABI than the host's. */
#include "hostile.h"
HOSTILE_LAYER(layer, "WrongMinor");
static bool reg(void) { return td_add_layer(&layer); }
HOSTILE_TEXT("1.99", "wrong_minor", "layer:WrongMinor");
HOSTILE_DESC(TD_PLUGIN_MAGIC, TD_ABI_MAJOR, 99, sizeof(td_plugin), sizeof(td_opt), reg);

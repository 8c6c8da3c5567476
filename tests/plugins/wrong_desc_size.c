/* wrong_desc_size.c - the descriptor is longer than the host knows. */
#include "hostile.h"
HOSTILE_LAYER(layer, "WrongDescSize");
static bool reg(void) { return td_add_layer(&layer); }
HOSTILE_TEXT(TD_ABI_TEXT, "wrong_desc_size", "layer:WrongDescSize");
HOSTILE_DESC(TD_PLUGIN_MAGIC, TD_ABI_MAJOR, TD_ABI_MINOR, sizeof(td_plugin) + 64, sizeof(td_opt), reg);

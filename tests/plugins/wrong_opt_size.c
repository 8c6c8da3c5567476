/* wrong_opt_size.c - its td_opt has another size than the host's. */
#include "hostile.h"
HOSTILE_LAYER(layer, "WrongOptSize");
static bool reg(void) { return td_add_layer(&layer); }
HOSTILE_TEXT(TD_ABI_TEXT, "wrong_opt_size", "layer:WrongOptSize");
HOSTILE_DESC(TD_PLUGIN_MAGIC, TD_ABI_MAJOR, TD_ABI_MINOR, sizeof(td_plugin), sizeof(td_opt) + 8, reg);

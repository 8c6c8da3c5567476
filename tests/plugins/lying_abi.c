/* lying_abi.c - the text says this ABI, the descriptor another. */
#include "hostile.h"
HOSTILE_LAYER(layer, "LyingAbi");
static bool reg(void) { return td_add_layer(&layer); }
HOSTILE_TEXT(TD_ABI_TEXT, "lying_abi", "layer:LyingAbi");
HOSTILE_DESC(TD_PLUGIN_MAGIC, 7, 0, sizeof(td_plugin), sizeof(td_opt), reg);

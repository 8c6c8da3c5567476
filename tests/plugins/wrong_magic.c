/* wrong_magic.c - the descriptor does not begin with "TIDE". */
#include "hostile.h"
HOSTILE_LAYER(layer, "WrongMagic");
static bool reg(void) { return td_add_layer(&layer); }
HOSTILE_TEXT("1.0", "wrong_magic", "layer:WrongMagic");
HOSTILE_DESC(0xdeadbeefu, TD_ABI_MAJOR, TD_ABI_MINOR, sizeof(td_plugin), sizeof(td_opt), reg);

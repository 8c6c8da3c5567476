/* wrong_major.c - from another major ABI: refused by its text, without being opened. The constructor would be noticed. */
#include "hostile.h"
#include <stdlib.h>
HOSTILE_LAYER(layer, "WrongMajor");
static bool reg(void) { return td_add_layer(&layer); }
static void __attribute__((constructor)) opened(void) { setenv("TIDE_TEST_OPENED", "wrong_major", 1); }
HOSTILE_TEXT("2.0", "wrong_major", "layer:WrongMajor");
HOSTILE_DESC(TD_PLUGIN_MAGIC, 2, 0, sizeof(td_plugin), sizeof(td_opt), reg);

/* no_reg.c - a descriptor without reg(). */
#include "hostile.h"
HOSTILE_TEXT(TD_ABI_TEXT, "no_reg", "layer:NoReg");
HOSTILE_DESC(TD_PLUGIN_MAGIC, TD_ABI_MAJOR, TD_ABI_MINOR, sizeof(td_plugin), sizeof(td_opt), NULL);

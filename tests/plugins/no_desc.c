/* no_desc.c - announces a layer, but has no descriptor. */
#include "hostile.h"
HOSTILE_TEXT(TD_ABI_TEXT, "no_desc", "layer:NoDesc");
const td_host *TD;

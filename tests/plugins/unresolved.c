/* unresolved.c - needs a symbol that nobody has, so it cannot be opened. */
#include "hostile.h"
extern bool hostile_symbol_of_nobody(void);
static bool reg(void) { return hostile_symbol_of_nobody(); }
TD_PLUGIN("unresolved", "1.0", "MIT", "layer:Unresolved", reg, NULL)

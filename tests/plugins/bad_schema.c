/* bad_schema.c - an option whose field is too small for its type. */
#include "hostile.h"
typedef struct {
    int kernel;
} options;
static const td_opt opts[] = {TD_OPT(options, kernel, TD_O_INT, "3", ">= 1", "extent")};
static const td_layer layer = {.size = sizeof layer,
                               .kind = TD_LAYER,
                               .name = "BadSchema",
                               .doc = "y = x",
                               .opts = TD_OPTS(options, opts),
                               .forward1 = hostile_identity};
static bool reg(void) { return td_add_layer(&layer); }
TD_PLUGIN("bad_schema", "1.0", "MIT", "layer:BadSchema", reg, NULL)

/* bad_layer.c - layers that break the rules of init and forward, each in one way. */
#include "hostile.h"

static td_tensor *null(td_module *self, td_tensor *x)
{
    (void)self, (void)x;
    return NULL;
}
static bool silent(td_module *self, td_tensor *const *in, uint32_t n_in, td_tensor **out)
{
    (void)self, (void)in, (void)n_in, (void)out;
    return false;
}
static bool pending(td_module *self, td_tensor *const *in, uint32_t n_in, td_tensor **out)
{
    (void)self, (void)n_in;
    td_fail("the coffee is cold");
    out[0] = in[0];
    return true;
}
static bool no_output(td_module *self, td_tensor *const *in, uint32_t n_in, td_tensor **out)
{
    (void)self, (void)in, (void)n_in, (void)out;
    return true;
}
static bool init_silent(td_module *self, const void *opts)
{
    (void)self, (void)opts;
    return false;
}
static bool init_self(td_module *self, const void *opts)
{
    (void)opts;
    return td_new_child(self, "inner", "BadSelf", "") != NULL;
}
static bool init_twice(td_module *self, const void *opts)
{
    (void)opts;
    td_new_param(self, "w", td_dims(2), "constant", 1, 0);
    td_new_param(self, "w", td_dims(2), "constant", 1, 0);
    return true;
}
static bool init_shape(td_module *self, const void *opts)
{
    (void)opts;
    return td_new_param(self, "w", td_dims(2, -3), "constant", 1, 0) != NULL;
}
static bool init_huge(td_module *self, const void *opts)
{
    (void)opts;
    return td_new_param(self, "w", td_dims(INT64_MAX, INT64_MAX), "constant", 1, 0) != NULL;
}
static bool init_kind(td_module *self, const void *opts)
{
    (void)opts;
    return td_new_param(self, "w", td_dims(2), "magic", 1, 0) != NULL;
}
static bool init_child(td_module *self, const void *opts)
{
    (void)opts;
    return td_new_child(self, "inner", "BadNull", "{oops = 1}") != NULL;
}
/* Declares a parameter in the middle of a forward. */
static td_tensor *late(td_module *self, td_tensor *x)
{
    td_new_param(self, "late", td_dims(1), "constant", 0, 0);
    return x;
}
/* Asks for what is not there, and for a live option. */
static td_tensor *lost(td_module *self, td_tensor *x)
{
    (void)x;
    return td_param(self, "nowhere");
}
static td_tensor *live(td_module *self, td_tensor *x) { return td_mul(x, td_scalar(self, "lr")); }

#define LAYER(layer_name, ...)                                                                 \
    {                                                                                          \
        .size = sizeof(td_layer), .kind = TD_LAYER, .name = layer_name, .doc = "", __VA_ARGS__ \
    }
static const td_layer layers[] = {
    LAYER("BadNull", .forward1 = null),
    LAYER("BadSilent", .forward = silent),
    LAYER("BadPending", .forward = pending),
    LAYER("BadNoOutput", .forward = no_output),
    LAYER("BadInit", .forward1 = null, .init = init_silent),
    LAYER("BadSelf", .forward1 = null, .init = init_self),
    LAYER("BadTwice", .forward1 = null, .init = init_twice),
    LAYER("BadShape", .forward1 = null, .init = init_shape),
    LAYER("BadHuge", .forward1 = null, .init = init_huge),
    LAYER("BadKind", .forward1 = null, .init = init_kind),
    LAYER("BadChild", .forward1 = null, .init = init_child),
    LAYER("BadLate", .forward1 = late),
    LAYER("BadLost", .forward1 = lost),
    LAYER("BadLive", .forward1 = live),
};

static bool reg(void)
{
    for (size_t i = 0; i < sizeof layers / sizeof *layers; i++)
        if (!td_add_layer(&layers[i])) return false;
    return true;
}
TD_PLUGIN("bad_layer", "1.0", "MIT",
          "layer:BadNull layer:BadSilent layer:BadPending layer:BadNoOutput layer:BadInit layer:BadSelf layer:BadTwice "
          "layer:BadShape "
          "layer:BadHuge layer:BadKind layer:BadChild layer:BadLate layer:BadLost layer:BadLive",
          reg, NULL)

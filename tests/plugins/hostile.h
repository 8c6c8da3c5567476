/* hostile.h - a descriptor of which every part can be wrong. What TD_PLUGIN writes, spelled out. */
#ifndef TIDE_HOSTILE_H
#define TIDE_HOSTILE_H
#include <tide/plugin.h>

#define HOSTILE_TEXT(abi, name, provides)                                  \
    static const char td_text_[] __attribute__((section(".tide"), used)) = \
        "tide\nabi=" abi "\nname=" name "\nversion=1.0\nlicence=MIT\nprovides=" provides "\n"

#define HOSTILE_DESC(magic, major, minor, size, opt_size, reg) \
    const td_host *TD;                                         \
    const td_plugin td_plugin_desc = {(magic), (major), (minor), (size), (opt_size), td_text_, &TD, (reg), NULL}

/** A layer that is right, for plugins that are wrong elsewhere. */
static inline td_tensor *hostile_identity(td_module *self, td_tensor *x)
{
    (void)self;
    return x;
}
#define HOSTILE_LAYER(table, layer_name) \
    static const td_layer table = {      \
        .size = sizeof table, .kind = TD_LAYER, .name = layer_name, .doc = "y = x", .forward1 = hostile_identity}

#endif

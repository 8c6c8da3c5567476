/* toy_backend.h - a backend "cpu" of a few lines, registered by the public tables: enough for tests of the registry, modules and
 * optimizers without a plugin. Kernels take dense f32 and f64; binary ones also an operand of one element. */
#ifndef TIDE_TOY_BACKEND_H
#define TIDE_TOY_BACKEND_H
#include <stdlib.h>
#include <string.h>
#include <tide/plugin.h>

static int toy_one(void) { return 1; }
static bool toy_open(int ordinal, const void *opts, void **dev)
{
    (void)ordinal, (void)opts;
    *dev = NULL;
    return true;
}
static void toy_close(void *dev) { (void)dev; }
static bool toy_props(void *dev, td_props *p)
{
    (void)dev;
    p->name = "toy";
    p->align = 64;
    p->unified = 1;
    p->dtypes = TD_BITS_ALL;
    return true;
}
static bool toy_alloc(void *dev, void *stream, size_t bytes, int pinned, void **p)
{
    (void)dev, (void)stream, (void)pinned;
    return (*p = bytes < (size_t)1 << 32 ? aligned_alloc(64, (bytes + 127) / 64 * 64) : NULL) != NULL;
}
static void toy_free(void *dev, void *p, int pinned)
{
    (void)dev, (void)pinned;
    free(p);
}
static bool toy_copy(void *dev, void *stream, void *to, const void *from, size_t bytes, td_copy_kind kind)
{
    (void)dev, (void)stream, (void)kind;
    memcpy(to, from, bytes);
    return true;
}
static bool toy_fill(void *dev, void *stream, void *to, int byte, size_t bytes)
{
    (void)dev, (void)stream;
    memset(to, byte, bytes);
    return true;
}
static const td_backend toy_cpu = {.size = sizeof toy_cpu,
                                   .name = "cpu",
                                   .doc = "for tests",
                                   .score = toy_one,
                                   .count = toy_one,
                                   .open = toy_open,
                                   .close = toy_close,
                                   .props = toy_props,
                                   .alloc = toy_alloc,
                                   .free = toy_free,
                                   .copy = toy_copy,
                                   .fill = toy_fill};

static double toy_get(const td_view *v, int64_t i)
{
    if (td_view_numel(v) == 1) i = 0;
    switch (v->dt) {
    case TD_F32: return ((const float *)v->p)[i];
    case TD_F64: return ((const double *)v->p)[i];
    case TD_I64: return (double)((const int64_t *)v->p)[i];
    default: return ((const uint8_t *)v->p)[i];
    }
}
static void toy_set(const td_view *v, int64_t i, double x)
{
    switch (v->dt) {
    case TD_F32: ((float *)v->p)[i] = (float)x; break;
    case TD_F64: ((double *)v->p)[i] = x; break;
    case TD_I64: ((int64_t *)v->p)[i] = (int64_t)x; break;
    default: ((uint8_t *)v->p)[i] = (uint8_t)x;
    }
}

#define TOY_KERNEL(name, expression)                             \
    static bool toy_##name(const td_kargs *a)                    \
    {                                                            \
        for (int64_t i = 0; i < td_view_numel(a->out[0]); i++) { \
            double x = a->n_in > 0 ? toy_get(a->in[0], i) : 0;   \
            double y = a->n_in > 1 ? toy_get(a->in[1], i) : 0;   \
            (void)x, (void)y;                                    \
            toy_set(a->out[0], i, (expression));                 \
        }                                                        \
        return true;                                             \
    }
TOY_KERNEL(full, ((const td_full_attr *)a->attr)->value)
TOY_KERNEL(same, x)
TOY_KERNEL(add, x + y)
TOY_KERNEL(mul, x *y)
TOY_KERNEL(neg, -x)

#define TOY_ROW(name, fn)                                                              \
    {                                                                                  \
        .size = sizeof(td_kernel), .op = name, .device = "cpu", .dtypes = TD_BITS_ALL, \
        .flags = TD_K_ALIAS_OK | TD_K_CAPTURABLE, .run = fn                            \
    }
static const td_kernel toy_kernels[] = {TOY_ROW("full", toy_full), TOY_ROW("copy", toy_same), TOY_ROW("cast", toy_same),
                                        TOY_ROW("add", toy_add),   TOY_ROW("mul", toy_mul),   TOY_ROW("neg", toy_neg)};

/** Registers it. Kernels first: they wait for their backend. */
static inline bool toy_register(void)
{
    bool ok = true;
    for (size_t i = 0; i < sizeof toy_kernels / sizeof *toy_kernels; i++) ok &= td_add_kernel(&toy_kernels[i]);
    return td_add_backend(&toy_cpu) && ok;
}

#endif

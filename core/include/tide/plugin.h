/* tide/plugin.h - all that a plugin sees. C11, C++17 and CUDA; Linux on x86-64 and aarch64. A plugin links nothing of ours.
 * Callbacks return a tensor or true; NULL or false means that td_fail has said why. Tables are constant and begin with
 * their size. The rules are in plugins/README.md. */
#ifndef TIDE_PLUGIN_H
#define TIDE_PLUGIN_H
#include <tide/backend.h>
#include <tide/kernel.h>
#include <tide/module.h>
#include <tide/op.h>
#include <tide/option.h>
#include <tide/types.h>
#include <stdio.h>
#ifdef __cplusplus
extern "C" {
#endif

typedef enum { TD_ADD_OP, TD_ADD_KERNEL, TD_ADD_LAYOUT, TD_ADD_BACKEND, TD_ADD_LAYER, TD_ADD_OPTIM } td_kind;

/** The host table: how a plugin reaches the core. Append only. Every function acts on the calling thread's context, and
 *  does nothing and returns NULL, false or 0 while an error is pending. */
typedef struct td_host {
    size_t size;
    uint32_t abi_major, abi_minor;
    bool (*add)(td_kind, const void *table);
    td_tensor *(*fail)(td_status, const char *file, int line, const char *fmt, ...)
        __attribute__((format(printf, 4, 5)));
    td_status (*error)(void);            /* of the pending error, or TD_OK                                          */
    uint32_t (*op_id)(const char *name); /* loads the plugin that provides it; an error and UINT32_MAX if none does */
    /** out has room for *n_out places; *n_out is then the count. */
    bool (*call)(uint32_t op, td_tensor *const *in, uint32_t n_in, const void *attr, td_tensor **out, uint32_t *n_out);
    /** The same op with given outputs: x:add_(y). */
    bool (*call_into)(uint32_t op, td_tensor *const *in, uint32_t n_in, const void *attr, td_tensor *const *out,
                      uint32_t n_out);
    bool (*item)(td_tensor *, td_dtype as, void *value); /* the only host read: a tensor of one element  */
    td_tensor *(*from_data)(td_dtype, int64_t nd, const int64_t *dim, const void *host); /* copies       */
    const td_view *(*view)(const td_tensor *); /* NULL's: a view of nd 0                       */
    int64_t (*dim)(const td_tensor *, int i);  /* negative counts from the end; a failed one: 1 */
    td_tensor *(*keep)(td_tensor *);
    void (*release)(td_tensor *);
    void (*used_on)(td_tensor *, void *stream);
    void (*scope_push)(void);
    td_tensor *(*scope_pop)(td_tensor *to_caller);
    td_tensor *(*new_param)(td_module *, const char *name, td_dtype, int64_t nd, const int64_t *dim, const char *init,
                            double a, double b);
    td_tensor *(*new_buffer)(td_module *, const char *name, td_dtype, int64_t nd, const int64_t *dim, double fill);
    td_module *(*new_child)(td_module *, const char *name, const char *layer, const char *opts_as_lua);
    bool (*run_child)(td_module *, const char *name, td_tensor *const *in, uint32_t n_in, td_tensor **out);
    td_tensor *(*param)(td_module *, const char *name); /* parameter or buffer                           */
    bool (*has_param)(td_module *, const char *name);
    td_tensor *(*scalar)(td_module *, const char *live_option); /* or "step"                             */
    const void *(*options)(td_module *);
    bool (*training)(td_module *);
    void **(*user)(td_module *);
    const void *(*extension)(const char *name, uint32_t min_version);
} td_host;
static_assert(offsetof(td_host, extension) == 16 + 25 * sizeof(void *), "host table: append only");

/** Descriptor: constant data, and a text in ELF section .tide that is read without dlopen. */
typedef struct td_plugin {
    uint32_t magic;
    uint16_t abi_major, abi_minor;
    uint32_t size, opt_size;
    const char *text;
    const struct td_host **host;
    bool (*reg)(void);
    void (*shutdown)(void);
} td_plugin;
#define TD_PLUGIN_MAGIC 0x45444954u /* "TIDE" */

/** One per plugin, set before reg() is called. */
extern __attribute__((visibility("hidden"))) const td_host *TD;
extern __attribute__((visibility("default"))) const td_plugin td_plugin_desc;

/** Declares the plugin, once per .so. provides: "layer:Linear op:my.swiglu kernel:conv2d@cpu backend:cpu kernel:*@cpu" */
#define TD_PLUGIN(name, version, licence, provides, reg, shutdown)                                                     \
    const td_host *TD;                                                                                                 \
    static const char td_text_[] __attribute__((section(".tide"), used)) =                                             \
        "tide\nabi=" TD_ABI_TEXT "\nname=" name "\nversion=" version "\nlicence=" licence "\nprovides=" provides "\n"; \
    const td_plugin td_plugin_desc = {TD_PLUGIN_MAGIC, TD_ABI_MAJOR, TD_ABI_MINOR, sizeof(td_plugin), sizeof(td_opt),  \
                                      td_text_,        &TD,          reg,          shutdown};

/** Records the first failure as one sentence: who, what was expected, what came. Yields NULL, and so false. */
#define td_fail(...) TD->fail(TD_EINVAL, __FILE__, __LINE__, __VA_ARGS__)
#define td_fail_as(status, ...) TD->fail((status), __FILE__, __LINE__, __VA_ARGS__)

/* ---- thin inlines over the host table ---- */

/** Registration, from reg(). */
static inline bool td_add_op(const td_op *t) { return TD->add(TD_ADD_OP, t); }
static inline bool td_add_kernel(const td_kernel *t) { return TD->add(TD_ADD_KERNEL, t); }
static inline bool td_add_layout(const td_layout *t) { return TD->add(TD_ADD_LAYOUT, t); }
static inline bool td_add_backend(const td_backend *t) { return TD->add(TD_ADD_BACKEND, t); }
static inline bool td_add_layer(const td_layer *t) { return TD->add(TD_ADD_LAYER, t); }
static inline bool td_add_optim(const td_optim *t) { return TD->add(TD_ADD_OPTIM, t); }

/** Whether an error is pending. */
static inline bool td_failed(void) { return TD->error() != TD_OK; }

/** What a tensor is. Never NULL. */
static inline const td_view *td_view_of(const td_tensor *t) { return TD->view(t); }
static inline td_dtype td_dtype_of(const td_tensor *t) { return TD->view(t)->dt; }
static inline int td_ndim(const td_tensor *t) { return TD->view(t)->nd; }
static inline int64_t td_dim(const td_tensor *t, int i) { return TD->dim(t, i); }
static inline int64_t td_numel(const td_tensor *t) { return td_view_numel(TD->view(t)); }
/** The dims as a list. */
static inline td_ints td_shape(const td_tensor *t)
{
    const td_view *v = TD->view(t);
    return td_dims_n(v->nd, v->dim);
}

/** Whether two tensors have the same dims. */
static inline bool td_same_shape(const td_tensor *a, const td_tensor *b)
{
    const td_view *v = TD->view(a), *w = TD->view(b);
    if (v->nd != w->nd) return false;
    for (int32_t i = 0; i < v->nd; i++)
        if (v->dim[i] != w->dim[i]) return false;
    return true;
}
/** A tensor in words, for messages:  td_fail("got %s", td_describe(x).s)  says "got f32 (64, 100)". */
typedef struct {
    char s[16 + 22 * TD_MAX_DIM];
} td_text;
static inline td_text td_describe(const td_tensor *t)
{
    const td_view *v = TD->view(t);
    td_text text;
    int n = snprintf(text.s, sizeof text.s, "%s (", td_dtype_name(v->dt));
    for (int32_t i = 0; i < v->nd; i++)
        n += snprintf(text.s + n, sizeof text.s - (size_t)n, i ? ", %lld" : "%lld", (long long)v->dim[i]);
    snprintf(text.s + n, sizeof text.s - (size_t)n, ")");
    return text;
}

/** Makes a tensor live beyond its scope, until td_release. */
static inline td_tensor *td_keep(td_tensor *t) { return TD->keep(t); }
static inline void td_release(td_tensor *t) { TD->release(t); }
static inline void td_used_on(td_tensor *t, void *stream) { TD->used_on(t, stream); }

/** Copies host data (row-major, of that dtype) to a new tensor on the default device. */
static inline td_tensor *td_from_data(td_dtype dt, td_ints d, const void *host)
{
    return TD->from_data(dt, d.n, d.v, host);
}
/** A 0-dim tensor from a plain number, which promotes nothing:  td_mul(x, td_number(2)) */
static inline td_tensor *td_number(double x) { return TD->from_data(TD_F64, -1, NULL, &x); }
/** The same from an integer, which leaves integer tensors integer. */
static inline td_tensor *td_integer(int64_t x) { return TD->from_data(TD_I64, -1, NULL, &x); }

/**
 * Declares a parameter of a module, drawn from the context's random stream.
 * init  "uniform" in a..b · "normal" mean a, std b · "fan_in" uniform in +-1/sqrt(a) · "constant" a
 */
static inline td_tensor *td_new_param(td_module *self, const char *name, td_ints d, const char *init, double a,
                                      double b)
{
    return TD->new_param(self, name, TD_F32, d.n, d.v, init, a, b);
}
/** Declares a buffer: saved and moved with the module, not trained. */
static inline td_tensor *td_new_buffer(td_module *self, const char *name, td_dtype dt, td_ints d, double fill)
{
    return TD->new_buffer(self, name, dt, d.n, d.v, fill);
}
/** A C child of a C module:  td_new_child(self, "proj", "Linear", "{3, 4, bias = false}") */
static inline td_module *td_new_child(td_module *self, const char *name, const char *layer, const char *opts_as_lua)
{
    return TD->new_child(self, name, layer, opts_as_lua);
}
/** Runs a child of one input and one output. */
static inline td_tensor *td_run_child(td_module *self, const char *name, td_tensor *x)
{
    td_tensor *y = NULL;
    return TD->run_child(self, name, &x, 1, &y) ? y : NULL;
}
/** A parameter or buffer by name; a missing one is an error, td_has_param asks. */
static inline td_tensor *td_param(td_module *self, const char *name) { return TD->param(self, name); }
static inline bool td_has_param(td_module *self, const char *name) { return TD->has_param(self, name); }
/** A live option, or "step", as a 0-dim f64 tensor that promotes nothing. */
static inline td_tensor *td_scalar(td_module *self, const char *live) { return TD->scalar(self, live); }
/** The module's option struct. */
static inline const void *td_options(td_module *self) { return TD->options(self); }
static inline bool td_training(td_module *self) { return TD->training(self); }
/** A pointer that the plugin may set, freed by its drop(). */
static inline void **td_user(td_module *self) { return TD->user(self); }

#ifdef __cplusplus
}
#endif

#include <tide/ops.h> /* generated: td_matmul, td_softmax and every other op */

#ifdef __cplusplus
extern "C" {
#endif
/**
 * Reduces per-element losses:  none: as they are · sum · mean, which divides by the weights' sum where weights are given.
 *
 * loss     any shape
 * weight   absent, or the weight that each element of loss was multiplied with (broadcastable to loss)
 */
static inline td_tensor *td_reduce_loss(td_tensor *loss, td_tensor *weight, int32_t reduction)
{
    td_ints all = {0, {0}};
    if (reduction == TD_REDUCE_NONE) return loss;
    if (reduction == TD_REDUCE_SUM) return td_sum(loss, all, false);
    if (!weight) return td_mean(loss, all, false);
    return td_div(td_sum(loss, all, false), td_sum(td_expand(weight, td_shape(loss)), all, false));
}
#ifdef __cplusplus
}
#endif
#endif

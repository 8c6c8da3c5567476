/* module.h - the module object: one instance of a layer or loss, and the self of an optimizer. */
#ifndef TIDE_MODULE_OBJECT_H
#define TIDE_MODULE_OBJECT_H
#include "registry.h"
#include "tensor.h"

/** A parameter or buffer; the module holds one reference. */
typedef struct {
    char *name;
    td_tensor *t;
    bool buffer;
} tdi_member;

typedef struct {
    char *name;
    td_module *m;
} tdi_child;

/** A place in the list of all tensors: own ones, then those of children as "child.weight". */
typedef struct {
    char *name; /* owned where the tensor is a child's */
    td_module *owner;
    uint32_t member;
} tdi_flat;

struct td_module {
    atomic_uint refs;
    const tdi_layer *layer;  /* NULL: an optimizer's self                                        */
    td_optimizer *optimizer; /* NULL: a layer                                                    */
    const td_opts *schema;
    void *opts, *user;
    bool training, declaring; /* declaring: init is running, parameters may be added              */
    bool began;               /* init has been called, so drop will be                            */
    tdi_member *member;
    tdi_child *child;
    tdi_flat *flat; /* made when init has run                                           */
    uint32_t n_member, n_child, n_flat;
};

/** "Conv2d" or "Adam", for messages. */
const char *tdi_module_name(const td_module *);
/** Puts who before the pending message unless it begins with it: "Conv2d: …". */
void tdi_name_error(const char *who);
/** Puts "child NAME: " or the like before the pending message, unless that is long already. fmt has one %s. */
void tdi_error_in(const char *fmt, const char *name);

/* what the host table holds; each is as tide/plugin.h says */
td_tensor *tdi_module_new_param(td_module *, const char *name, td_dtype, int64_t nd, const int64_t *dim,
                                const char *init, double a, double b);
td_tensor *tdi_module_new_buffer(td_module *, const char *name, td_dtype, int64_t nd, const int64_t *dim, double fill);
td_module *tdi_module_new_child(td_module *, const char *name, const char *layer, const char *opts_as_lua);
bool tdi_module_run_child(td_module *, const char *name, td_tensor *const *in, uint32_t n_in, td_tensor **out);
td_tensor *tdi_module_param(td_module *, const char *name);
bool tdi_module_has_param(td_module *, const char *name);
td_tensor *tdi_module_scalar(td_module *, const char *live_option);
const void *tdi_module_options(td_module *);
bool tdi_module_training(td_module *);
void **tdi_module_user(td_module *);

/** optim.c: a live option of the optimizer whose self m is. */
td_tensor *tdi_optimizer_scalar(td_optimizer *, const char *name);

#endif

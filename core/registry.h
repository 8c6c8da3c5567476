/* registry.h - ops, kernels, layers, optimizers and backends by name. Appended under a lock, read without. */
#ifndef TIDE_REGISTRY_H
#define TIDE_REGISTRY_H
#include "device.h"

typedef struct tdi_plugin tdi_plugin;
enum { TDI_MAX_OPS = 4096, TDI_MAX_NAMES = 16, TDI_ALIKE_MAX = 3 /* inputs of an op with TD_OP_ALIKE */ };

typedef struct tdi_kernel {
    td_kernel t;            /* host's copy                                                      */
    const tdi_plugin *from; /* NULL: libtide                                                    */
    uint32_t serial;        /* of registration: newest wins among equals                        */
} tdi_kernel;

/** Kernels of one op on one backend, best first. Replaced as a whole when one is added; older ones are kept for their readers. */
typedef struct tdi_chain {
    struct tdi_chain *older;
    uint32_t n;
    const tdi_kernel *k[];
} tdi_chain;

/** A parsed signature: names and marks, a bit for each name. */
typedef struct {
    uint32_t n; /* names                                                            */
    uint64_t optional, index, mask, aux, written, list, scalar;
    char name[TDI_MAX_NAMES][24];
} tdi_sig;

typedef struct tdi_op {
    td_op t; /* host's copy                                                      */
    uint32_t id;
    const tdi_plugin *from;
    tdi_sig in, out;
    _Atomic(tdi_chain *) chain[TDI_MAX_BACKENDS];
    atomic_bool overlays_sought[TDI_MAX_BACKENDS]; /* overlay plugins kernel:OP@DEV were looked for on the path */
} tdi_op;

typedef struct tdi_layer {
    td_layer t; /* host's copy, `in` and `out` filled in                            */
    tdi_sig in, out;
    const tdi_plugin *from;
} tdi_layer;

typedef struct tdi_optim {
    td_optim t; /* host's copy                                                      */
    const tdi_plugin *from;
} tdi_optim;

/** The registry's entry of a table that td_layer_find or td_optim_find gave; NULL after an error for any other table. */
const tdi_layer *tdi_layer_of(const td_layer *);
const tdi_optim *tdi_optim_of(const td_optim *);

/** false after an error that quotes the signature. */
bool tdi_sig_parse(const char *who, const char *text, tdi_sig *);

extern _Atomic(tdi_op *) tdi_ops[TDI_MAX_OPS];
static inline tdi_op *tdi_op_by_id(uint32_t id)
{
    return id < TDI_MAX_OPS ? atomic_load_explicit(&tdi_ops[id], memory_order_acquire) : NULL;
}
/** By name, loading a plugin that provides it; NULL without an error where none does. */
tdi_op *tdi_op_find(const char *name);
/** Overlay plugins that announce kernel:OP@DEV are loaded the first time OP runs on an open DEV. Cheap afterwards. */
void tdi_seek_overlays(tdi_op *, tdi_backend *);

/** A backend by kind ("cpu"), loading its plugin; NULL without an error where none provides it. */
tdi_backend *tdi_backend_find(const char *kind);
tdi_backend *tdi_backend_by_id(uint32_t id);

/** What td_host.add does: checks the table, copies it (a shorter one's tail is zero, a longer one is refused) and appends it. */
bool tdi_add(td_kind, const void *table);
/** Registers libtide's own ops, once. Called by the first context. */
void tdi_registry_init(void);

#endif

/* entries.h - what registry.c holds, for registering.c, which adds to it, and provided.c, which lists it. */
#ifndef TIDE_ENTRIES_H
#define TIDE_ENTRIES_H
#include "loader.h"

enum { TDI_BUCKETS = 512, TDI_KINDS = TD_ADD_OPTIM + 1 };

/** One table that was added: on a batch's list, then for ever in its kind's hash table. */
typedef struct tdi_entry {
    struct tdi_entry *next, *bucket_next;
    td_kind kind;
    const char *name;
    const tdi_plugin *from;
    union {
        void *any;
        tdi_op *op;
        tdi_kernel *kernel;
        td_layout *layout;
        tdi_backend *backend;
        tdi_layer *layer;
        tdi_optim *optim;
    } is;
} tdi_entry;

extern _Atomic(tdi_entry *) tdi_table[TDI_KINDS][TDI_BUCKETS];
extern atomic_uint tdi_n_ops;
extern _Atomic(tdi_backend *) tdi_backends[TDI_MAX_BACKENDS];
extern uint32_t tdi_n_backends;
extern bool tdi_own_ops; /* while libtide's own are added */

uint32_t tdi_bucket_of(const char *name);
/** An entry by name, or NULL. */
tdi_entry *tdi_entry_find(td_kind, const char *name);
/** "op", "kernel", "loss" … */
const char *tdi_kind_name(const tdi_entry *);
/** As metadata announces it: "conv2d@cpu" for a kernel. */
const char *tdi_announced_name(const tdi_entry *, char *to, size_t room);

#endif

/* tensor.h - the tensor object. */
#ifndef TIDE_TENSOR_H
#define TIDE_TENSOR_H
#include "device.h"

typedef struct td_node td_node; /* autograd.h */

struct td_tensor {
    td_view v; /* first: td_view_of is a cast                                          */
    atomic_uint refs;
    uint32_t out_index; /* which output of node                                                 */
    td_storage *st;     /* NULL for plain numbers (TD_V_NUMBER, v.p = &num) and for shells      */
    td_node *node;      /* what made it, where a gradient is wanted: one reference              */
    td_tensor *grad;
    uint32_t view_version; /* is_view and node: `rebased` of the storage when the view was recorded */
    bool requires_grad;    /* a leaf that wants a gradient                                         */
    bool retains_grad;     /* .grad is wanted though it is no leaf                                 */
    bool is_view;          /* made by a view op: shares its storage with its base                  */
    bool shell;            /* shape and dtype only                                                 */
    bool stale;            /* a shell whose data were saved, but changed in place since: num.saved_by  */
    union {
        double d;
        int64_t i;
        const char *saved_by;
    } num;
    td_tensor *next_free;
};

/** A tensor struct with refs 1 and everything else zero, from a per-thread pool. NULL after TD_ENOMEM. Not owned by a scope. */
td_tensor *tdi_tensor_alloc(void);
void tdi_tensor_destroy(td_tensor *); /* refs is 0: releases storage, grad and node, returns the struct to the pool */
static inline td_tensor *tdi_keep(td_tensor *t)
{
    TD_ASSERT(atomic_load(&t->refs) > 0);
    tdi_count_up(&t->refs);
    return t;
}
static inline void tdi_release(td_tensor *t)
{
    if (t && tdi_count_down(&t->refs)) tdi_tensor_destroy(t);
}

/** Gives t storage for its view (dt, nd, dim, stride must be set; strides row-major or permuted-dense). false after an error. */
bool tdi_tensor_allocate(td_tensor *t, td_device *);
/** The same where the bytes are known. */
bool tdi_tensor_give(td_tensor *t, td_device *, size_t bytes);
/** Row-major strides from the dims. */
void tdi_dense_strides(td_view *);
/** Bytes of dense elements; false after an error when that passes 2^62 or an extent is negative. */
bool tdi_view_bytes(const char *who, const td_view *, size_t *bytes);
/** A new tensor struct (refs 1, not owned) that shares data and view of t, without history. */
td_tensor *tdi_alias(const td_tensor *t);
/** The device of a tensor; the context's default for a plain number. */
static inline td_device *tdi_tensor_device(const td_tensor *t)
{
    return t->st ? t->st->dev : tdi_device_default(tdi_ctx());
}

static inline bool tdi_is_number(const td_tensor *t) { return t->v.flags & TD_V_NUMBER && !t->st; }
static inline bool tdi_needs_grad(const td_tensor *t) { return t->node || t->requires_grad; }

/** host.view, host.dim, host.item, host.from_data and host.used_on; plugin.h says what they do. */
const td_view *tdi_view(const td_tensor *);
int64_t tdi_dim(const td_tensor *, int i);
bool tdi_item(td_tensor *, td_dtype as, void *value);
td_tensor *tdi_from_data(td_dtype, int64_t nd, const int64_t *dim, const void *host);
void tdi_used_on(td_tensor *, void *stream);

/** "f32 (2, 3)" in one of eight per-thread buffers, for messages. */
const char *tdi_describe(const td_tensor *t);

#endif

/* device.h - backends that are registered, devices that are open, and the caching allocator over them. */
#ifndef TIDE_DEVICE_H
#define TIDE_DEVICE_H
#include "context.h"
#include "count.h"
#include "invariant.h"
#include <stdatomic.h>

enum { TDI_MAX_BACKENDS = 8, TDI_MAX_ORDINALS = 16 };

typedef struct tdi_backend {
    td_backend t; /* host's copy, a shorter table's tail is zero                 */
    uint32_t id;  /* place in op chains                                          */
    td_device *dev[TDI_MAX_ORDINALS];
} tdi_backend;

typedef struct tdi_pool tdi_pool; /* allocator.c */

struct td_device {
    tdi_backend *be;
    int ordinal;
    char name[32]; /* "cpu", "cuda:0"                                             */
    void *handle;  /* from open()                                                 */
    void *stream;  /* the stream that kernels are enqueued on; NULL for the CPU   */
    bool unified, async;
    uint32_t dtypes;
    uint64_t mem_total; /* bytes, 0 = unknown                                          */
    tdi_pool *pool;
};

/** Bytes of one tensor or several views, on one device. refs and version are atomic: threads share tensors. */
typedef struct td_storage {
    atomic_uint refs, version;
    atomic_uint rebased; /* recorded in-place writes: views recorded before one are stale */
    uint32_t size_class; /* allocator.c's                                               */
    td_device *dev;
    void *p;
    size_t bytes;            /* asked for                                                   */
    size_t room;             /* of the block                                                */
    void *used_on;           /* another stream that reads it: waited for before reuse       */
    void (*done)(void *arg); /* memory of others (td_tensor_wrap): called instead of free   */
    void *done_arg;
    uint64_t stamp;          /* number of traces begun when it was made: trace.h            */
    struct td_storage *next; /* free list                                                   */
} td_storage;

/** Opens a device by name, "cuda" = "cuda:0", loading its backend; an error that says why and what there is. NULL name: default. */
td_device *tdi_device(const char *name);
td_device *tdi_device_default(td_context *);
/** Device i of those that are open, NULL past the last. */
td_device *tdi_device_open_at(uint32_t i);
/** The number of threads that td_threads was last given, 0 before that: plans made for another number are not taken. */
extern atomic_int tdi_thread_count;
/** Waits for all work on the device; an error where a kernel has faulted. Nothing to do on a synchronous one. */
bool tdi_device_sync(td_device *);
/** Copies between the host and a device, and waits for it. */
bool tdi_copy_from_host(td_device *, void *to, const void *host, size_t bytes);
bool tdi_copy_to_host(td_device *, void *host, const void *from, size_t bytes);

/** Blocks go back to the backend at once: TIDE_NO_CACHE=1, and builds with AddressSanitizer, which sees use after free. */
extern bool tdi_no_cache;
/** NULL when out of memory. A pool lives as long as the process. */
tdi_pool *tdi_pool_new(void);
/** Gives the device's free blocks back to its backend; false where there were none. */
bool tdi_empty_cache(td_device *);

/** Traces begun so far, which storages note when they are made: tells what a captured call made from what was there. */
extern atomic_uint_fast64_t tdi_stamp;

/** Memory for `bytes` (0 is fine), refs 1, version 0. On failure: collects, empties the cache, tries once more, then TD_ENOMEM with sizes. */
td_storage *tdi_storage_new(td_device *, size_t bytes);
td_storage *tdi_storage_wrap(td_device *, void *p, size_t bytes, void (*done)(void *), void *arg);
static inline td_storage *tdi_storage_keep(td_storage *s)
{
    TD_ASSERT(atomic_load(&s->refs) > 0);
    tdi_count_up(&s->refs);
    return s;
}
void tdi_storage_free(td_storage *); /* refs is 0 */
static inline void tdi_storage_release(td_storage *s)
{
    if (s && tdi_count_down(&s->refs)) tdi_storage_free(s);
}

#endif

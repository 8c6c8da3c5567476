/* toy_device.h - a device for tests: host memory with a limit, that counts and can be told to fail. It is in no
 * registry; a test makes it the default device of its context. */
#ifndef TIDE_TOY_DEVICE_H
#define TIDE_TOY_DEVICE_H
#include "device.h"
#include <stdlib.h>

typedef struct {
    size_t limit, in_use; /* bytes                                           */
    unsigned allocs, frees, syncs;
    bool speaks; /* says td_fail when its memory is out             */
    bool faulty; /* the next alloc ends in a device error           */
} toy_state;

static toy_state toy;
static tdi_backend toy_backend;

static bool toy_alloc(void *dev, void *stream, size_t bytes, int pinned, void **p)
{
    (void)dev, (void)stream, (void)pinned;
    toy.allocs++;
    if (toy.faulty) return td_fail_as(TD_EDEVICE, "toy: fault");
    if (toy.limit && toy.in_use + bytes > toy.limit) return toy.speaks ? td_fail_as(TD_ENOMEM, "toy: no more") : false;
    size_t *block = aligned_alloc(64, (bytes + 127) / 64 * 64);
    if (!block) return false;
    block[0] = bytes;
    toy.in_use += bytes;
    *p = (char *)block + 64;
    return true;
}

static void toy_free(void *dev, void *p, int pinned)
{
    (void)dev, (void)pinned;
    size_t *block = (size_t *)(void *)((char *)p - 64);
    toy.in_use -= block[0];
    toy.frees++;
    free(block);
}

static bool toy_copy(void *dev, void *stream, void *dst, const void *src, size_t bytes, td_copy_kind kind)
{
    (void)dev, (void)stream, (void)kind;
    memcpy(dst, src, bytes);
    return true;
}

static bool toy_sync(void *dev, void *stream)
{
    (void)dev, (void)stream;
    toy.syncs++;
    return true;
}

/** A fresh toy device, the default one of the calling thread's context. mem_total: 0 = unknown. */
static inline td_device *toy_open(size_t limit, uint64_t mem_total, bool unified)
{
    td_device *d = calloc(1, sizeof *d);
    toy = (toy_state){.limit = limit};
    toy_backend.t = (td_backend){.size = sizeof(td_backend),
                                 .name = "toy",
                                 .alloc = toy_alloc,
                                 .free = toy_free,
                                 .copy = toy_copy,
                                 .stream_sync = toy_sync};
    if (!d || !(d->pool = tdi_pool_new())) abort();
    d->be = &toy_backend;
    d->unified = unified;
    d->mem_total = mem_total;
    memcpy(d->name, "toy:0", 6);
    tdi_ctx()->device = d;
    return d;
}

/** Ends it. All of its tensors must be gone. */
static inline void toy_close(td_device *d)
{
    tdi_ctx()->device = NULL;
    tdi_empty_cache(d);
    free(d->pool);
    free(d);
}

#endif

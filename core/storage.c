/* storage.c - storages over memory that is not the allocator's, and storages that more than one stream uses. */
#include "tensor.h"
#include <stdlib.h>

static void nothing(void *arg) { (void)arg; }

td_storage *tdi_storage_wrap(td_device *dev, void *p, size_t bytes, void (*done)(void *), void *arg)
{
    td_storage *s = calloc(1, sizeof *s);
    if (!s) {
        td_fail_as(TD_ENOMEM, "out of memory");
        return NULL;
    }
    atomic_store_explicit(&s->refs, 1, memory_order_relaxed);
    s->dev = dev;
    s->p = p;
    s->bytes = s->room = bytes;
    s->stamp = atomic_load_explicit(&tdi_stamp, memory_order_relaxed);
    s->done = done ? done : nothing; /* set: not the allocator's */
    s->done_arg = arg;
    return s;
}

/* A block may be written again once its last tensor is gone, in the order of the device's own stream. Another stream
 * that reads it is waited for at that point; where there are two of them, the first at once. */
void tdi_used_on(td_tensor *t, void *stream)
{
    td_storage *s = t ? t->st : NULL;
    if (!s || !s->dev->be->t.stream_sync || stream == s->dev->stream || stream == s->used_on) return;
    if (s->used_on) s->dev->be->t.stream_sync(s->dev->handle, s->used_on);
    s->used_on = stream;
}

bool td_tensor_same_storage(const td_tensor *a, const td_tensor *b) { return a && b && a->st && a->st == b->st; }

uint32_t td_tensor_version(const td_tensor *t)
{
    return t && t->st ? atomic_load_explicit(&t->st->version, memory_order_relaxed) : 0;
}

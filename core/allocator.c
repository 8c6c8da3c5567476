/* allocator.c - the caching allocator: per device, free blocks in lists by size class, each together with its
 * td_storage, so that a warm allocation is a pop from a list. Blocks go back to the backend when memory runs out, or by
 * td_empty_cache. */
#include "device.h"
#include "trace.h"
#include <sched.h>
#include <stdlib.h>

/*
 * Classes: multiples of 64 bytes up to 256, then four steps per power of two (at most a quarter is unused) up to
 * HUGE_MIN. Above it one list holds blocks of any size, of which the best fit that is at most a quarter too large is
 * taken.
 */
enum { LINE = 64, SMALL = 256, SMALL_CLASSES = SMALL / LINE, SMALL_LOG2 = 8, HUGE_LOG2 = 26, HUGE_ROUND = 2 << 20 };
enum { HUGE_CLASS = SMALL_CLASSES + 4 * (HUGE_LOG2 - SMALL_LOG2), N_CLASSES };
static const size_t HUGE_MIN = (size_t)1 << HUGE_LOG2;

struct tdi_pool {
    atomic_int busy; /* a spin lock: it is held for a few instructions, never across a call to a backend */
    td_memory_info stat;
    td_storage *list[N_CLASSES];
};

#ifdef __SANITIZE_ADDRESS__
bool tdi_no_cache = true;
#else
bool tdi_no_cache;
#endif

__attribute__((constructor)) static void read_environment(void)
{
    const char *v = getenv("TIDE_NO_CACHE");
    if (v && *v && *v != '0') tdi_no_cache = true;
}

static void lock(tdi_pool *p)
{
    if (TDI_ALONE()) return;
    while (atomic_exchange_explicit(&p->busy, 1, memory_order_acquire))
        for (int i = 0; atomic_load_explicit(&p->busy, memory_order_relaxed); i++)
            if (i >= 100) sched_yield();
}

/* Also of a pool that was not locked, for the process had one thread then. */
static void unlock(tdi_pool *p) { atomic_store_explicit(&p->busy, 0, memory_order_release); }

tdi_pool *tdi_pool_new(void) { return calloc(1, sizeof(tdi_pool)); }

/* ---- size classes ---- */

static uint32_t class_of(size_t bytes)
{
    if (bytes <= SMALL) return bytes ? (uint32_t)((bytes - 1) / LINE) : 0;
    if (bytes > HUGE_MIN) return HUGE_CLASS;
    size_t b = bytes - 1;
    uint32_t log2 = 63 - (uint32_t)__builtin_clzl(b);
    return SMALL_CLASSES + 4 * (log2 - SMALL_LOG2) + (uint32_t)(b >> (log2 - 2) & 3);
}

static size_t room_of(uint32_t class, size_t bytes)
{
    if (tdi_no_cache) return bytes ? bytes : 1; /* to the byte, so that a sanitizer sees what lies beyond */
    if (class == HUGE_CLASS) return (bytes + HUGE_ROUND - 1) / HUGE_ROUND * HUGE_ROUND;
    if (class < SMALL_CLASSES) return (size_t)(class + 1) * LINE;
    uint32_t step = class - SMALL_CLASSES;
    return (size_t)(5 + step % 4) << (SMALL_LOG2 - 2 + step / 4);
}

/* ---- blocks; the pool is locked ---- */

static void count(tdi_pool *p, size_t bytes)
{
    p->stat.current += bytes;
    if (p->stat.current > p->stat.peak) p->stat.peak = p->stat.current;
}

static td_storage *take_huge(tdi_pool *p, size_t bytes)
{
    td_storage **best = NULL;
    for (td_storage **at = &p->list[HUGE_CLASS]; *at; at = &(*at)->next)
        if ((*at)->room >= bytes && (*at)->room - bytes <= bytes / 4 && (!best || (*at)->room < (*best)->room))
            best = at;
    if (!best) return NULL;
    td_storage *s = *best;
    *best = s->next;
    return s;
}

static td_storage *take_cached(tdi_pool *p, uint32_t class, size_t bytes)
{
    if (class == HUGE_CLASS) return take_huge(p, bytes);
    td_storage *s = p->list[class];
    if (s) p->list[class] = s->next;
    return s;
}

static td_storage *fresh(td_storage *s, size_t bytes)
{
    atomic_store_explicit(&s->refs, 1, memory_order_relaxed);
    atomic_store_explicit(&s->version, 0, memory_order_relaxed);
    atomic_store_explicit(&s->rebased, 0, memory_order_relaxed);
    s->bytes = bytes;
    s->stamp = atomic_load_explicit(&tdi_stamp, memory_order_relaxed);
    s->next = NULL;
    return s;
}

/* ---- the backend ---- */

/* Sets memory aside in the statistics before it is asked for: a device is never asked for more than it has in all, for
 * a system that overcommits would say yes and kill the process later. */
static bool reserve(td_device *dev, size_t room)
{
    tdi_pool *p = dev->pool;
    lock(p);
    bool fits = !dev->mem_total || (room <= dev->mem_total && p->stat.reserved <= dev->mem_total - room);
    if (fits) {
        p->stat.reserved += room;
        p->stat.allocs++;
    }
    unlock(p);
    return fits;
}

static void unreserve(td_device *dev, size_t room)
{
    lock(dev->pool);
    dev->pool->stat.reserved -= room;
    unlock(dev->pool);
}

static td_storage *from_backend(td_device *dev, uint32_t class, size_t bytes)
{
    size_t room = room_of(class, bytes);
    if (room < bytes || !reserve(dev, room)) return NULL;
    td_storage *s = calloc(1, sizeof *s);
    void *p = NULL;
    if (!s || !dev->be->t.alloc(dev->handle, dev->stream, room, 0, &p) || !p) {
        unreserve(dev, room);
        free(s);
        return NULL;
    }
    s->size_class = class;
    s->dev = dev;
    s->p = p;
    s->room = room;
    lock(dev->pool);
    count(dev->pool, bytes);
    unlock(dev->pool);
    return fresh(s, bytes);
}

static void to_backend(td_storage *s)
{
    s->dev->be->t.free(s->dev->handle, s->p, 0);
    free(s);
}

bool tdi_empty_cache(td_device *dev)
{
    td_storage *all = NULL;
    size_t room = 0;
    lock(dev->pool);
    for (uint32_t c = 0; c < N_CLASSES; c++)
        for (td_storage *s = dev->pool->list[c], *next; s; s = next) {
            next = s->next;
            s->next = all;
            all = s;
            room += s->room;
        }
    for (uint32_t c = 0; c < N_CLASSES; c++) dev->pool->list[c] = NULL;
    unlock(dev->pool);
    if (!all) return false;
    /* Kernels that are still queued may use a block after its tensor is gone. A fault comes back at a caller's sync. */
    if (dev->async && dev->be->t.stream_sync) dev->be->t.stream_sync(dev->handle, dev->stream);
    for (td_storage *s = all, *next; s; s = next) {
        next = s->next;
        to_backend(s);
    }
    unreserve(dev, room);
    return true;
}

/* ---- when memory runs out ---- */

static const char *size_text(char to[24], uint64_t bytes)
{
    static const char *const unit[] = {"bytes", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
    double n = (double)bytes;
    int u = 0;
    for (; n >= 1024 && u < 6; u++) n /= 1024;
    snprintf(to, 24, u ? "%.1f %s" : "%.0f %s", n, unit[u]);
    return to;
}

static td_storage *no_memory(td_device *dev, size_t bytes)
{
    char asked[24], used[24], cached[24], total[24];
    lock(dev->pool);
    td_memory_info m = dev->pool->stat;
    unlock(dev->pool);
    size_text(asked, bytes);
    size_text(used, m.current);
    size_text(cached, m.reserved > m.current ? m.reserved - m.current : 0);
    if (dev->mem_total)
        td_fail_as(TD_ENOMEM, "out of memory on %s: asked for %s, %s in use, %s cached, %s in all", dev->name, asked,
                   used, cached, size_text(total, dev->mem_total));
    else
        td_fail_as(TD_ENOMEM, "out of memory on %s: asked for %s, %s in use, %s cached", dev->name, asked, used,
                   cached);
    return NULL;
}

/* One attempt. A backend may say why it has no memory; that is said again, with sizes, at the end. Faults stay. */
static td_storage *attempt(td_context *c, td_device *dev, uint32_t class, size_t bytes)
{
    lock(dev->pool);
    td_storage *s = take_cached(dev->pool, class, bytes);
    if (s) count(dev->pool, bytes);
    unlock(dev->pool);
    if (s) return fresh(s, bytes);
    s = from_backend(dev, class, bytes);
    if (!s && c->err && c->err != TD_EDEVICE) c->err = TD_OK;
    return s;
}

static bool collect(td_context *c)
{
    if (!c->collect || c->collecting) return false;
    c->collecting = true;
    c->collect(c->collect_arg);
    c->collecting = false;
    return true;
}

static td_storage *slow(td_device *dev, uint32_t class, size_t bytes)
{
    td_context *c = tdi_ctx();
    if (c->err) return NULL;
    td_storage *s = attempt(c, dev, class, bytes);
    if (s || c->err) return s;
    if (dev->mem_total && bytes > dev->mem_total) return no_memory(dev, bytes);
    if (tdi_empty_cache(dev) && ((s = attempt(c, dev, class, bytes)) || c->err)) return s;
    if (collect(c) && !c->err) {
        tdi_empty_cache(dev);
        if ((s = attempt(c, dev, class, bytes)) || c->err) return s;
    }
    return c->err ? NULL : no_memory(dev, bytes);
}

/* ---- storages ---- */

td_storage *tdi_storage_new(td_device *dev, size_t bytes)
{
    uint32_t class = class_of(bytes);
    tdi_pool *p = dev->pool;
    if (__builtin_expect(class == HUGE_CLASS, 0)) return slow(dev, class, bytes);
    lock(p);
    td_storage *s = p->list[class];
    if (__builtin_expect(!s, 0)) {
        unlock(p);
        return slow(dev, class, bytes);
    }
    p->list[class] = s->next;
    count(p, bytes);
    unlock(p);
    return fresh(s, bytes);
}

void tdi_storage_free(td_storage *s)
{
    tdi_pool *p = s->dev->pool;
    if (__builtin_expect(tdi_tracing != NULL, 0)) tdi_trace_freed(tdi_tracing, s);
    if (s->used_on) {
        s->dev->be->t.stream_sync(s->dev->handle, s->used_on);
        s->used_on = NULL;
    }
    if (s->done) { /* memory of others, which is in no list and no statistics */
        s->done(s->done_arg);
        free(s);
        return;
    }
    lock(p);
    p->stat.current -= s->bytes;
    if (tdi_no_cache) {
        p->stat.reserved -= s->room;
    } else {
        s->next = p->list[s->size_class];
        p->list[s->size_class] = s;
    }
    unlock(p);
    if (tdi_no_cache) to_backend(s);
}

/* ---- what programs ask ---- */

bool td_memory(const char *device, td_memory_info *info)
{
    td_device *dev = tdi_failed() ? NULL : tdi_device(device);
    if (!dev) return false;
    lock(dev->pool);
    *info = dev->pool->stat;
    unlock(dev->pool);
    return true;
}

void td_memory_reset_peak(void)
{
    td_device *dev;
    if (tdi_failed()) return;
    for (uint32_t i = 0; (dev = tdi_device_open_at(i)); i++) {
        lock(dev->pool);
        dev->pool->stat.peak = dev->pool->stat.current;
        unlock(dev->pool);
    }
}

void td_empty_cache(void)
{
    td_device *dev;
    if (tdi_failed()) return;
    for (uint32_t i = 0; (dev = tdi_device_open_at(i)); i++) tdi_empty_cache(dev);
}

/* count.h - counters that threads share. Locked instructions take 5 ns each and a tiny op has several, so a process of one thread does
 * without them: the C library says whether it is one, and only a thread itself can start the second. */
#ifndef TIDE_COUNT_H
#define TIDE_COUNT_H
#include <stdatomic.h>
#include <stdbool.h>
#if defined __has_include
#if __has_include(<sys/single_threaded.h>)
#include <sys/single_threaded.h>
#define TDI_ALONE() __libc_single_threaded
#endif
#endif
#ifndef TDI_ALONE
#define TDI_ALONE() false
#endif

static inline void tdi_count_up(atomic_uint *n)
{
    if (TDI_ALONE()) atomic_store_explicit(n, atomic_load_explicit(n, memory_order_relaxed) + 1, memory_order_relaxed);
    else atomic_fetch_add_explicit(n, 1, memory_order_relaxed);
}

/** Drops one reference of n; true where it was the last. Who sees 1 holds the only one: nobody else can change the count. */
static inline bool tdi_count_down(atomic_uint *n)
{
    unsigned now = atomic_load_explicit(n, memory_order_acquire);
    if (now == 1) return true;
    if (!TDI_ALONE()) return atomic_fetch_sub_explicit(n, 1, memory_order_acq_rel) == 1;
    atomic_store_explicit(n, now - 1, memory_order_relaxed);
    return false;
}

#endif

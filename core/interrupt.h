/* interrupt.h - the flag that a signal handler sets and that dispatch looks at before each op. */
#ifndef TIDE_INTERRUPT_H
#define TIDE_INTERRUPT_H
#include <stdatomic.h>
#include <stdbool.h>

extern atomic_int tdi_interrupt_flag __attribute__((visibility("hidden")));
/** Whether an interruption waits; leaves it. One load. */
static inline bool tdi_interrupt_pending(void)
{
    return __builtin_expect(atomic_load_explicit(&tdi_interrupt_flag, memory_order_relaxed) != 0, 0);
}

/** Takes the interruption that waits and fails with it; false where another took it, or the context leaves it to others. */
bool tdi_interrupt_take(void);

#endif

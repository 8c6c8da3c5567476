/* interrupt.c - Ctrl-C: a handler sets a flag, the next op fails and the script goes on from there. */
#include "interrupt.h"
#include "context.h"
#include <tide/tide.h>

/* A lock-free atomic rather than sig_atomic_t: the handler may run on another thread than the op. */
atomic_int tdi_interrupt_flag;

void td_interrupt(void) { atomic_store_explicit(&tdi_interrupt_flag, 1, memory_order_relaxed); }

bool td_interrupted(void) { return atomic_exchange_explicit(&tdi_interrupt_flag, 0, memory_order_relaxed) != 0; }

void td_interrupt_ignore(bool on) { tdi_ctx()->deaf = on; }

bool tdi_interrupt_take(void)
{
    if (tdi_ctx()->deaf || !td_interrupted()) return false;
    td_fail("interrupted");
    return true;
}

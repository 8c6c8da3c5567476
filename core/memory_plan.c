/* memory_plan.c - where the buffers of a program lie in one block: greatest first, each at the lowest place that is free during
 * its life (Pisarchyk & Lee 2020, arXiv:2001.03288, "greedy by size": within a few percent of the lower bound on networks). */
#include "program.h"
#include <stdlib.h>

enum { LINE = 64 };

typedef struct {
    const tdi_buffer *b;
    uint32_t i;
} ranked;

static int by_size(const void *x, const void *y)
{
    const ranked *a = x, *b = y;
    if (a->b->bytes != b->b->bytes) return a->b->bytes < b->b->bytes ? 1 : -1;
    return a->i < b->i ? -1 : 1; /* the same plan each time */
}

static size_t rounded(size_t bytes) { return (bytes + LINE - 1) / LINE * LINE; }

/* Lowest place for b among placed[0 .. n), which are sorted by place. */
static size_t lowest(const tdi_buffer *b, tdi_buffer *const *placed, uint32_t n)
{
    size_t at = 0, need = rounded(b->bytes);
    for (uint32_t i = 0; i < n; i++) {
        const tdi_buffer *p = placed[i];
        if (p->last < b->first || b->last < p->first) continue;
        if (p->at >= at + need) break;
        size_t end = p->at + rounded(p->bytes);
        if (end > at) at = end;
    }
    return at;
}

size_t tdi_plan_memory(tdi_buffer *b, uint32_t n)
{
    ranked *order = malloc((n + 1) * sizeof *order);
    tdi_buffer **placed = malloc((n + 1) * sizeof *placed);
    size_t total = 0;
    if (order && placed) {
        for (uint32_t i = 0; i < n; i++) order[i] = (ranked){&b[i], i};
        qsort(order, n, sizeof *order, by_size);
        for (uint32_t i = 0; i < n; i++) {
            tdi_buffer *now = &b[order[i].i];
            now->at = lowest(now, placed, i);
            if (now->at + rounded(now->bytes) > total) total = now->at + rounded(now->bytes);
            uint32_t k = i;
            for (; k && placed[k - 1]->at > now->at; k--) placed[k] = placed[k - 1];
            placed[k] = now;
        }
    } else {
        td_fail_as(TD_ENOMEM, "capture: out of memory");
    }
    free(order);
    free(placed);
    return total;
}

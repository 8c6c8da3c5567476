/* walk.c - the nodes that a walk has met: found by a hash, taken by a heap in falling order of their sequence numbers. */
#include "walk.h"
#include "block.h"
#include <stdlib.h>
#include <string.h>

uint32_t *tdi_walk_slot(const tdi_walk *w, const td_node *n)
{
    uint32_t at = (uint32_t)(((uintptr_t)n >> 4) * 0x9e3779b97f4a7c15ull >> 32) & (w->slots - 1);
    while (w->slot[at] && w->v[w->slot[at] - 1].node != n) at = (at + 1) & (w->slots - 1);
    return &w->slot[at];
}

/* All of a walk but its modes. */
void tdi_walk_begin(tdi_walk *w)
{
    w->v = w->few_v;
    w->slot = w->few_slot;
    w->heap = w->few_heap;
    w->cap = w->heap_cap = TDI_FEW_NODES;
    w->slots = 2 * TDI_FEW_NODES;
    memset(w->few_slot, 0, sizeof w->few_slot);
    w->n = w->heap_n = 0;
}

/* A bigger array in place of an old one, which may be the walk's own. */
static void *grown(void *old, const void *own, size_t bytes, size_t more)
{
    if (old != own) return realloc(old, more);
    void *p = malloc(more);
    if (p) memcpy(p, old, bytes);
    return p;
}

static bool grow_slots(tdi_walk *w)
{
    uint32_t *old = w->slot, slots = w->slots * 2;
    w->slot = calloc(slots, sizeof *w->slot);
    if (!w->slot) {
        w->slot = old;
        return tdi_walk_no_memory();
    }
    w->slots = slots;
    for (uint32_t i = 0; i < w->n; i++) *tdi_walk_slot(w, w->v[i].node) = i + 1;
    if (old != w->few_slot) free(old);
    return true;
}

/* Place of the node's visit, made where it is new; UINT32_MAX after an error. */
uint32_t tdi_visit_of(tdi_walk *w, td_node *n, bool *fresh)
{
    if ((w->n + 1) * 2 > w->slots && !grow_slots(w)) return UINT32_MAX;
    uint32_t *s = tdi_walk_slot(w, n);
    *fresh = !*s;
    if (*s) return *s - 1;
    if (w->n == w->cap) {
        uint32_t cap = w->cap * 2;
        tdi_visit *v = grown(w->v, w->few_v, w->n * sizeof *v, cap * sizeof *v);
        if (!v) return tdi_walk_no_memory(), UINT32_MAX;
        w->v = v;
        w->cap = cap;
    }
    w->v[w->n] = (tdi_visit){.node = tdi_node_keep(n), .wanted = w->targets == NULL};
    *s = ++w->n;
    return w->n - 1;
}

static uint64_t seq(const tdi_walk *w, uint32_t i) { return w->v[i].node->seq; }

bool tdi_walk_push(tdi_walk *w, uint32_t place)
{
    if (w->heap_n == w->heap_cap) {
        uint32_t cap = w->heap_cap * 2, *h = grown(w->heap, w->few_heap, w->heap_n * sizeof *h, cap * sizeof *h);
        if (!h) return tdi_walk_no_memory();
        w->heap = h;
        w->heap_cap = cap;
    }
    uint32_t at = w->heap_n++;
    while (at && seq(w, w->heap[(at - 1) / 2]) < seq(w, place)) {
        w->heap[at] = w->heap[(at - 1) / 2];
        at = (at - 1) / 2;
    }
    w->heap[at] = place;
    return true;
}

uint32_t tdi_walk_pop(tdi_walk *w)
{
    uint32_t top = w->heap[0], last = w->heap[--w->heap_n], at = 0;
    for (;;) {
        uint32_t child = 2 * at + 1;
        if (child >= w->heap_n) break;
        if (child + 1 < w->heap_n && seq(w, w->heap[child + 1]) > seq(w, w->heap[child])) child++;
        if (seq(w, w->heap[child]) <= seq(w, last)) break;
        w->heap[at] = w->heap[child];
        at = child;
    }
    if (w->heap_n) w->heap[at] = last;
    return top;
}

static size_t gout_bytes(const td_node *n) { return n->n_out * sizeof(td_tensor *); }

bool tdi_make_gout(tdi_visit *v)
{
    v->met = true;
    if (v->node->n_out <= 1) return true;
    v->many = tdi_block_alloc(gout_bytes(v->node));
    if (v->many) memset(v->many, 0, gout_bytes(v->node));
    return v->many != NULL;
}

void tdi_free_gout(tdi_visit *v)
{
    for (uint32_t i = 0; v->met && i < v->node->n_out; i++) tdi_release(tdi_gout_of(v)[i]);
    if (v->many) tdi_block_free(v->many, gout_bytes(v->node));
    v->only = NULL;
    v->many = NULL;
    v->met = false;
}

void tdi_walk_free(tdi_walk *w)
{
    for (uint32_t i = 0; i < w->n; i++) {
        tdi_free_gout(&w->v[i]);
        tdi_node_release(w->v[i].node);
    }
    for (uint32_t i = 0; i < w->n_targets; i++) tdi_release(w->targets[i].grad);
    if (w->v != w->few_v) free(w->v);
    if (w->slot != w->few_slot) free(w->slot);
    if (w->heap != w->few_heap) free(w->heap);
    free(w->targets);
}

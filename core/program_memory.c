/* program_memory.c - which steps of a trace are run, and where their memory lies. */
#include "program.h"
#include <stdlib.h>
#include <string.h>

/* ---- which steps run ---- */

static bool writes_input(const tdi_step *s, uint32_t place)
{
    if (!s->op->in.written) return false;
    for (uint32_t i = 0; i < s->op->in.n; i++) {
        uint32_t places = s->op->in.list >> i & 1 ? s->n_list : 1;
        if (place < places) return s->op->in.written >> i & 1;
        place -= places;
    }
    return false;
}

bool tdi_step_writes(const tdi_step *s, uint32_t place)
{
    if (s->again) return place == s->n_in; /* only the first output is computed once more */
    return place >= s->n_in || writes_input(s, place);
}

/* Whether what a step writes is seen afterwards. */
static bool matters(const tdi_program *p, const tdi_step *s, const bool *needed)
{
    if (s->optimizer) return true;
    for (uint32_t i = 0; i < s->n_in + s->n_out; i++) {
        const tdi_operand *o = &p->operand[s->first + i];
        if (o->slot < 0 || !tdi_step_writes(s, i)) continue;
        if (p->trace->slot[o->slot].kind != TDI_PASSING || needed[o->slot]) return true;
    }
    return false;
}

static void drop_dead(tdi_program *p, bool *needed)
{
    for (uint32_t i = p->n_step; i-- > 0;) {
        const tdi_step *s = &p->step[i];
        p->fate[i] = matters(p, s, needed) ? TDI_EACH : TDI_DEAD;
        if (p->fate[i] == TDI_DEAD || s->optimizer) continue;
        for (uint32_t k = 0; k < s->n_in + s->n_out; k++) {
            const tdi_operand *o = &p->operand[s->first + k];
            if (o->slot >= 0 && (k < s->n_in || o->given)) needed[o->slot] = true;
        }
    }
}

/* CONSTANT_BYTES: results greater than that are computed each time, for constants keep their memory */
enum { CONSTANT_BYTES = 1 << 16 };

static bool is_constant(const tdi_program *p, const tdi_step *s, const uint32_t *writers, const bool *constant)
{
    const tdi_trace *t = p->trace;
    if (s->optimizer || s->op->t.flags & TD_OP_RNG || s->op->in.written) return false;
    for (uint32_t i = 0; i < s->n_in; i++) {
        int32_t slot = p->operand[s->first + i].slot;
        if (slot >= 0 && !constant[slot]) return false;
    }
    for (uint32_t i = 0; i < s->n_out; i++) {
        const tdi_operand *o = &p->operand[s->first + s->n_in + i];
        if (o->slot < 0 || o->given || writers[o->slot] != 1) return false;
        if (t->slot[o->slot].kind != TDI_PASSING || t->slot[o->slot].bytes > CONSTANT_BYTES) return false;
    }
    return true;
}

/* Steps that compute the same each time, such as the ones that a gradient begins with, run once. */
static bool find_constants(tdi_program *p, bool *constant)
{
    const tdi_trace *t = p->trace;
    uint32_t *writers = calloc(t->n_slot + 1, sizeof *writers);
    if (!writers) return tdi_program_no_memory();
    for (uint32_t i = 0; i < p->n_step; i++)
        for (uint32_t k = 0; p->fate[i] != TDI_DEAD && k < p->step[i].n_in + p->step[i].n_out; k++) {
            int32_t slot = p->operand[p->step[i].first + k].slot;
            if (slot >= 0 && tdi_step_writes(&p->step[i], k)) writers[slot]++;
        }
    for (uint32_t s = 0; s < t->n_slot; s++) constant[s] = t->slot[s].kind == TDI_MADE && !writers[s];
    for (uint32_t i = 0; i < p->n_step; i++) {
        const tdi_step *s = &p->step[i];
        if (p->fate[i] != TDI_EACH || !is_constant(p, s, writers, constant)) continue;
        p->fate[i] = TDI_ONCE;
        for (uint32_t k = 0; k < s->n_out; k++) constant[p->operand[s->first + s->n_in + k].slot] = true;
    }
    free(writers);
    return true;
}

bool tdi_program_sort(tdi_program *p)
{
    bool *marks = calloc(2 * ((size_t)p->trace->n_slot + 1), sizeof *marks);
    p->fate = calloc(p->n_step + 1, sizeof *p->fate);
    bool ok = (marks && p->fate) || tdi_program_no_memory();
    if (ok) drop_dead(p, marks);
    ok = ok && find_constants(p, marks + p->trace->n_slot + 1);
    free(marks);
    return ok;
}

/* ---- lives of passing slots ---- */

static bool same_place(const tdi_operand *a, const tdi_operand *b)
{
    if (a->offset || b->offset || a->v.nd != b->v.nd || td_dtype_size(a->v.dt) != td_dtype_size(b->v.dt)) return false;
    for (int32_t i = 0; i < a->v.nd; i++)
        if (a->v.dim[i] != b->v.dim[i] || (a->v.dim[i] != 1 && a->v.stride[i] != b->v.stride[i])) return false;
    return true;
}

static int32_t root(const tdi_lives *l, int32_t s)
{
    while (l->into[s] >= 0) s = l->into[s];
    return s;
}

/* Whether output o of a step may be written over its input i, which nobody reads afterwards. */
static bool takes_over(const tdi_program *p, const tdi_step *s, uint32_t i, const tdi_operand *o, const tdi_lives *l,
                       uint32_t at)
{
    const tdi_trace *t = p->trace;
    const tdi_operand *x = &p->operand[s->first + i];
    if (x->slot < 0 || t->slot[x->slot].kind != TDI_PASSING || p->local[x->slot] || !same_place(x, o)) return false;
    if (t->slot[x->slot].bytes != t->slot[o->slot].bytes || l->last[root(l, x->slot)] != at) return false;
    for (uint32_t k = 0; k < s->n_in; k++) { /* no other input may look at that memory in another way */
        const tdi_operand *y = &p->operand[s->first + k];
        if (y->slot < 0 || root(l, y->slot) != root(l, x->slot)) continue;
        if (!same_place(y, o) || (k != i && s->n_out > 1)) return false;
    }
    return true;
}

/* How many inputs, from the first, may lie where the last output does. */
static uint32_t may_be_output(const tdi_step *s)
{
    const uint32_t flags = s->choice.kernel->flags;
    if (flags & TD_K_ALIAS_OK && s->n_out == 1) return s->n_in;
    return flags & TD_K_OVER_FIRST && s->n_in && s->n_out ? 1 : 0;
}

static void share_in_place(const tdi_program *p, tdi_lives *l)
{
    const tdi_trace *t = p->trace;
    for (uint32_t at = 0; at < p->n_step; at++) {
        const tdi_step *s = &p->step[at];
        const uint32_t inputs = p->fate[at] == TDI_EACH && !s->optimizer ? may_be_output(s) : 0;
        if (!inputs) continue;
        const tdi_operand *o = &p->operand[s->first + s->n_in + s->n_out - 1];
        if (o->slot < 0 || o->given || t->slot[o->slot].kind != TDI_PASSING || p->local[o->slot]) continue;
        for (uint32_t i = 0; i < inputs; i++) {
            if (!takes_over(p, s, i, o, l, at)) continue;
            int32_t to = root(l, p->operand[s->first + i].slot);
            l->into[o->slot] = to;
            l->last[to] = l->last[o->slot];
            break;
        }
    }
}

static void note_use(tdi_lives *l, int32_t slot, uint32_t first, uint32_t last)
{
    if (slot < 0) return;
    if (l->first[slot] == UINT32_MAX || first < l->first[slot]) l->first[slot] = first;
    if (last > l->last[slot]) l->last[slot] = last;
}

/* The tiles of a chain's steps alternate: what one of them uses is in use throughout the chain. */
static void widen_in_chains(const tdi_program *p, tdi_lives *l)
{
    for (uint32_t c = 0; c < p->n_chain; c++)
        for (uint32_t i = p->chain[c].first; i <= p->chain[c].last; i++)
            for (uint32_t k = 0; p->fate[i] == TDI_EACH && k < p->step[i].n_in + p->step[i].n_out; k++) {
                int32_t slot = p->operand[p->step[i].first + k].slot;
                if (slot >= 0) note_use(l, root(l, slot), p->chain[c].first, p->chain[c].last);
            }
}

bool tdi_program_lives(const tdi_program *p, tdi_lives *l)
{
    const tdi_trace *t = p->trace;
    l->first = malloc((t->n_slot + 1) * sizeof *l->first);
    l->last = calloc(t->n_slot + 1, sizeof *l->last);
    l->into = malloc((t->n_slot + 1) * sizeof *l->into);
    if (!l->first || !l->last || !l->into) return tdi_program_no_memory();
    for (uint32_t s = 0; s < t->n_slot; s++) {
        l->first[s] = UINT32_MAX;
        l->into[s] = -1;
    }
    for (uint32_t i = 0; i < p->n_step; i++) {
        if (p->fate[i] == TDI_DEAD || p->step[i].optimizer) continue;
        bool once = p->fate[i] == TDI_ONCE; /* constants are there all the time */
        for (uint32_t k = 0; k < p->step[i].n_in + p->step[i].n_out; k++)
            note_use(l, p->operand[p->step[i].first + k].slot, once ? 0 : i, once ? p->n_step : i);
    }
    share_in_place(p, l);
    widen_in_chains(p, l);
    return true;
}

void tdi_lives_free(tdi_lives *l)
{
    free(l->first);
    free(l->last);
    free(l->into);
}

/* ---- placing ---- */

enum { LARGE = 1 << 20 };

/* Buffers on one device: passing slots (who = slot), then workspaces (who = n_slot + step). */
static uint32_t list_buffers(const tdi_program *p, const tdi_lives *l, const td_device *dev, tdi_buffer *b,
                             uint32_t *who)
{
    const tdi_trace *t = p->trace;
    uint32_t n = 0;
    for (uint32_t s = 0; s < t->n_slot; s++) {
        if (t->slot[s].kind != TDI_PASSING || t->slot[s].dev != dev || p->local[s]) continue;
        if (l->first[s] == UINT32_MAX || l->into[s] >= 0) continue;
        b[n] = (tdi_buffer){l->first[s], l->last[s], t->slot[s].bytes, 0};
        who[n++] = s;
    }
    for (uint32_t i = 0; i < p->n_step; i++) {
        const tdi_step *s = &p->step[i];
        if (p->fate[i] == TDI_DEAD || s->optimizer || s->dev != dev || !s->choice.ws_size) continue;
        b[n] = (tdi_buffer){i, i, s->choice.ws_size, 0};
        who[n++] = t->n_slot + i;
    }
    return n;
}

static bool place_on(tdi_program *p, const tdi_lives *l, td_device *dev)
{
    tdi_trace *t = p->trace;
    tdi_buffer *b = malloc(((size_t)t->n_slot + p->n_step + 1) * sizeof *b);
    uint32_t *who = malloc(((size_t)t->n_slot + p->n_step + 1) * sizeof *who);
    bool ok = (b && who) || tdi_program_no_memory();
    uint32_t n = ok ? list_buffers(p, l, dev, b, who) : 0;
    size_t total = ok ? tdi_plan_memory(b, n) : 0;
    ok = ok && !tdi_failed();
    if (ok && n && p->n_arena == TDI_MAX_ARENAS)
        ok = td_fail("capture: more than %d devices in one function", TDI_MAX_ARENAS);
    if (total > LARGE)
        tdi_empty_cache(dev); /* what the recorded call took and freed: it will not be wanted beside this */
    td_storage *arena = ok && n ? tdi_storage_new(dev, total) : NULL;
    if (arena) p->arena[p->n_arena++] = arena;
    ok = ok && (!n || arena);
    for (uint32_t i = 0; ok && i < n; i++) {
        char *at = (char *)arena->p + b[i].at;
        if (who[i] < t->n_slot) t->slot[who[i]].base = at;
        else p->ws[who[i] - t->n_slot] = at;
        p->unplanned += b[i].bytes;
    }
    p->planned += total;
    free(b);
    free(who);
    return ok;
}

size_t tdi_program_plan(const tdi_program *p)
{
    const size_t most = (size_t)p->trace->n_slot + p->n_step + 1;
    size_t total = 0;
    tdi_lives l = {NULL, NULL, NULL};
    tdi_buffer *b = malloc(most * sizeof *b);
    uint32_t *who = malloc(most * sizeof *who);
    bool ok = (b && who) || tdi_program_no_memory();
    ok = ok && tdi_program_lives(p, &l);
    td_device *dev;
    for (uint32_t i = 0; ok && (dev = tdi_device_open_at(i)); i++)
        total += tdi_plan_memory(b, list_buffers(p, &l, dev, b, who));
    tdi_lives_free(&l);
    free(b);
    free(who);
    return tdi_failed() ? 0 : total;
}

bool tdi_program_place(tdi_program *p)
{
    tdi_trace *t = p->trace;
    tdi_lives l = {NULL, NULL, NULL};
    p->ws = calloc(p->n_step + 1, sizeof *p->ws);
    bool ok = (p->ws || tdi_program_no_memory()) && tdi_program_lives(p, &l);
    td_device *dev;
    for (uint32_t i = 0; ok && (dev = tdi_device_open_at(i)); i++) ok = place_on(p, &l, dev);
    for (uint32_t s = 0; ok && s < t->n_slot; s++) {
        if (t->slot[s].kind != TDI_PASSING || l.first[s] == UINT32_MAX) continue;
        if (l.into[s] >= 0) t->slot[s].base = t->slot[root(&l, (int32_t)s)].base;
        if (l.into[s] >= 0 || p->local[s]) p->unplanned += t->slot[s].bytes;
    }
    tdi_lives_free(&l);
    return ok;
}

/* verify.c - see verify.h. What a replay writes to is saved before it, and what it gave is compared, slot by slot, with what the
 * call itself gives from the same state. */
#include "verify.h"
#include <stdlib.h>
#include <string.h>

/* The bytes of one slot: as they were, and as the replay left them. */
typedef struct {
    void *before, *after;
} image;

struct tdi_verify {
    const tdi_program *program;
    image *slot;
    uint32_t n_slot;
    td_tensor **grad; /* .grad of each leaf as it was: one reference */
    int64_t *steps;   /* of the optimizer of each step               */
};

static const char *name_of(const tdi_step *s)
{
    return s->optimizer ? td_optimizer_kind(s->optimizer)->name : s->op->t.name;
}

void tdi_verify_free(tdi_verify **at)
{
    tdi_verify *v = *at;
    if (!v) return;
    const tdi_trace *t = v->program->trace;
    for (uint32_t i = 0; v->slot && i < v->n_slot; i++) {
        free(v->slot[i].before);
        free(v->slot[i].after);
    }
    for (uint32_t i = 0; v->grad && i < t->n_leaf; i++) tdi_release(v->grad[i]);
    free(v->slot);
    free(v->grad);
    free(v->steps);
    free(v);
    *at = NULL;
}

/* The storage that a slot has in a run with these arguments; NULL for what passes. */
static td_storage *storage_of(const tdi_slot *s, td_tensor *const *args)
{
    return s->kind == TDI_ARGUMENT ? args[s->arg]->st : s->kind == TDI_PASSING ? NULL : s->st;
}

static void *bytes_of(const td_storage *st)
{
    void *copy = malloc(st->bytes ? st->bytes : 1);
    if (copy && tdi_copy_to_host(st->dev, copy, st->p, st->bytes)) return copy;
    free(copy);
    return td_fail_as(TD_ENOMEM, "capture: out of memory");
}

static bool save(tdi_verify *v, const tdi_trace *t, td_tensor *const *args)
{
    for (uint32_t i = 0; i < t->n_slot; i++) {
        const tdi_slot *s = &t->slot[i];
        bool keeps = s->written && (s->kind == TDI_OUTSIDE || s->kind == TDI_ARGUMENT);
        if (keeps && !(v->slot[i].before = bytes_of(storage_of(s, args)))) return false;
    }
    for (uint32_t i = 0; i < t->n_leaf; i++) {
        td_tensor *g = t->leaf[i].leaf->grad;
        v->grad[i] = g ? tdi_keep(g) : NULL;
    }
    for (uint32_t i = 0; i < t->n_step; i++)
        if (t->step[i].optimizer) v->steps[i] = t->step[i].optimizer->steps;
    return true;
}

static bool restore(tdi_verify *v, const tdi_trace *t, td_tensor *const *args)
{
    for (uint32_t i = 0; i < t->n_slot; i++) {
        const tdi_slot *s = &t->slot[i];
        td_storage *st = storage_of(s, args);
        if (s->written && st && !(v->slot[i].after = bytes_of(st))) return false;
        if (v->slot[i].before && !tdi_copy_from_host(st->dev, st->p, v->slot[i].before, st->bytes)) return false;
    }
    for (uint32_t i = 0; i < t->n_leaf; i++)
        if (!td_set_grad(t->leaf[i].leaf, v->grad[i])) return false;
    for (uint32_t i = t->n_step; i-- > 0;)
        if (t->step[i].optimizer) t->step[i].optimizer->steps = v->steps[i];
    return true;
}

bool tdi_verify_begin(tdi_verify **at, tdi_program *p, td_tensor *const *args)
{
    const tdi_trace *t = p->trace;
    td_context *ctx = t->ctx;
    uint64_t random[2] = {ctx->random[0], ctx->random[1]};
    tdi_verify *v = *at = calloc(1, sizeof *v);
    if (!v) return td_fail_as(TD_ENOMEM, "capture: out of memory");
    v->program = p;
    v->n_slot = t->n_slot;
    v->slot = calloc(t->n_slot + 1, sizeof *v->slot);
    v->grad = calloc(t->n_leaf + 1, sizeof(td_tensor *));
    v->steps = calloc(t->n_step + 1, sizeof *v->steps);
    bool ok = (v->slot && v->grad && v->steps) || td_fail_as(TD_ENOMEM, "capture: out of memory");
    ok = ok && save(v, t, args) && tdi_program_run(p, args) && restore(v, t, args);
    memcpy(ctx->random, random, sizeof random);
    if (!ok) tdi_verify_free(at);
    return ok;
}

/* The first step that writes a slot. */
static const tdi_step *writer(const tdi_trace *t, uint32_t slot)
{
    for (uint32_t i = 0; i < t->n_step; i++)
        for (uint32_t k = 0; k < t->step[i].n_in + t->step[i].n_out; k++) {
            const tdi_operand *o = &t->operand[t->step[i].first + k];
            if (o->slot == (int32_t)slot && (k >= t->step[i].n_in || t->step[i].op->in.written)) return &t->step[i];
        }
    return NULL;
}

bool tdi_verify_end(tdi_verify **at, const tdi_trace *now)
{
    tdi_verify *v = *at;
    const tdi_trace *t = v->program->trace;
    char why[512];
    bool ok = tdi_trace_equal(t, now, why, sizeof why) ||
              td_fail("capture check: the call does something else than its recording: %s", why);
    const tdi_step *first = NULL;
    for (uint32_t i = 0; ok && i < now->n_slot; i++) { /* the program has more, for what it computes twice */
        const tdi_slot *s = &now->slot[i];
        if (!v->slot[i].after || !s->st) continue;
        void *bits = bytes_of(s->st);
        if (!bits) ok = false;
        else if (memcmp(bits, v->slot[i].after, s->bytes)) {
            const tdi_step *w = writer(now, i);
            if (!first || (w && w < first)) first = w;
        }
        free(bits);
    }
    if (ok && first) {
        const char *line = tdi_trace_where(now, first);
        ok = td_fail("capture check: the replay of op %u, %s, came to other bits than the call%s%s",
                     (uint32_t)(first - now->step) + 1, name_of(first), *line ? ", at " : "", line);
    }
    tdi_verify_free(at);
    return ok;
}

/* replay.c - runs a program: binds what is new, calls the kernels, and puts results where the function would have. */
#include "interrupt.h"
#include "profile.h"
#include "program.h"
#include <string.h>

/* Gives the operands of a slot another memory. */
static void rebase(tdi_program *p, uint32_t slot, char *base)
{
    tdi_slot *s = &p->trace->slot[slot];
    if (s->base == base) return;
    s->base = base;
    for (uint32_t i = p->use_at[slot]; i < p->use_at[slot + 1]; i++)
        p->view[p->use[i]].p = base + p->operand[p->use[i]].offset;
}

bool tdi_program_fits(const tdi_program *p)
{
    const tdi_trace *t = p->trace;
    for (uint32_t i = 0; i < t->n_leaf; i++)
        if (!t->leaf[i].replaced && t->leaf[i].leaf->grad != t->leaf[i].before) return false;
    for (uint32_t i = 0; i < p->n_optimizer; i++) {
        const tdi_step *s = &p->step[p->optimizer[i]];
        if (s->optimizer->version != s->version) return false;
    }
    return true;
}

/* New memory for a slot that stays: the old one is still somebody's. */
static bool renew(tdi_program *p, uint32_t slot)
{
    tdi_slot *s = &p->trace->slot[slot];
    td_storage *st = tdi_storage_new(s->dev, s->bytes);
    if (!st) return false;
    tdi_storage_release(s->st);
    s->st = st;
    rebase(p, slot, st->p);
    return true;
}

/* A tensor over memory that a slot has now. refs 1, not owned. */
static td_tensor *tensor_at(const tdi_slot *s, const td_view *like, int64_t offset)
{
    td_tensor *t = tdi_tensor_alloc();
    if (!t) return NULL;
    t->v = *like;
    t->v.p = s->base + offset;
    t->st = tdi_storage_keep(s->st);
    return t;
}

/* A gradient that somebody else holds stays what it is for them; the leaf gets another. */
static bool renew_gradient(tdi_program *p, uint32_t i)
{
    tdi_leaf *l = &p->trace->leaf[i];
    td_tensor *g = l->after;
    if (p->grad[i].slot < 0) return true;
    uint32_t ours = 1 + (l->leaf->grad == g);
    if (atomic_load_explicit(&g->refs, memory_order_relaxed) == ours &&
        atomic_load_explicit(&g->st->refs, memory_order_relaxed) == 2)
        return true;
    if (!renew(p, (uint32_t)p->grad[i].slot)) return false;
    td_tensor *other = tensor_at(&p->trace->slot[p->grad[i].slot], &g->v, p->grad[i].offset);
    if (!other) return false;
    tdi_release(g);
    l->after = other;
    return true;
}

/* Memory for what this run gives, arguments, and constants that the run before has written to. */
static bool prepare(tdi_program *p, td_tensor *const *args)
{
    tdi_trace *t = p->trace;
    for (uint32_t i = 0; i < t->n_arg; i++)
        if (p->arg_slot[i] >= 0) rebase(p, (uint32_t)p->arg_slot[i], args[i]->v.p);
    for (uint32_t i = 0; i < p->n_renewed; i++)
        if (atomic_load_explicit(&t->slot[p->renewed[i]].st->refs, memory_order_relaxed) > 1 &&
            !renew(p, p->renewed[i]))
            return false;
    for (uint32_t i = 0; i < t->n_leaf; i++)
        if (!renew_gradient(p, i)) return false;
    for (uint32_t i = 0; i < p->n_bump; i++) {
        const tdi_slot *s = &t->slot[p->bump[i]];
        if (s->kind == TDI_MADE && !tdi_copy_from_host(s->dev, s->st->p, s->copy, s->bytes)) return false;
    }
    return true;
}

static bool profiled(tdi_profile *profile, const tdi_bound *c)
{
    const tdi_step *s = c->step;
    tdi_profile_enter(profile, s->op, s->backward);
    const tdi_op *all = c->run == s->choice.kernel->run ? s->op : NULL; /* not all of its work when it runs again */
    bool ok = tdi_profile_kernel(profile, all, c->run, &c->a, s->dev);
    tdi_profile_leave(profile);
    return ok;
}

bool tdi_call_run(const tdi_bound *c, td_context *ctx)
{
    tdi_profile *profile = ctx->profile;
    if (c->chain) {
        if (profile) tdi_profile_enter_chain(profile, c->step->backward);
        bool ok = tdi_tiles_run(c->chain);
        if (profile) tdi_profile_leave_chain(profile);
        return ok;
    }
    td_optimizer *o = c->step->optimizer;
    if (o) {
        o->steps++;
        return tdi_live_refresh(o);
    }
    if (__builtin_expect(profile != NULL, 0) ? profiled(profile, c) : c->run(&c->a)) return !tdi_failed();
    const tdi_step *s = c->step;
    return tdi_failed()
               ? false
               : td_fail_as(TD_EPLUGIN, "%s: its kernel on %s failed without saying why", s->op->t.name, s->dev->name);
}

/* Results in place: gradients in their leaves, versions of what was written. */
static void finish(tdi_program *p, td_tensor *const *args)
{
    tdi_trace *t = p->trace;
    for (uint32_t i = 0; i < t->n_leaf; i++) {
        tdi_leaf *l = &t->leaf[i];
        if (l->leaf->grad == l->after) continue;
        if (l->after) tdi_keep(l->after);
        tdi_release(l->leaf->grad);
        l->leaf->grad = l->after;
    }
    for (uint32_t i = 0; i < p->n_bump; i++) {
        const tdi_slot *s = &t->slot[p->bump[i]];
        td_storage *st = s->kind == TDI_ARGUMENT ? args[s->arg]->st : s->st;
        atomic_fetch_add_explicit(&st->version, 1, memory_order_relaxed);
    }
}

bool tdi_program_run(tdi_program *p, td_tensor *const *args)
{
    tdi_trace *t = p->trace;
    td_context *ctx = t->ctx;
    if (!prepare(p, args)) return false;
    p->random[0] = ctx->random[0];
    p->random[1] = ctx->random[1];
    for (uint32_t i = 0; i < p->n_call; i++) {
        if (tdi_interrupt_pending() && tdi_interrupt_take()) return false;
        if (!tdi_call_run(&p->call[i], ctx)) return false;
    }
    ctx->random[1] += t->advance;
    finish(p, args);
    return true;
}

td_tensor *tdi_program_result(tdi_program *p, uint32_t i, td_tensor *const *args)
{
    const tdi_result *r = &p->result[i];
    switch (r->from) {
    case TDI_SAME_TENSOR: return tdi_own(p->trace->ctx, tdi_keep(r->t));
    case TDI_FROM_LEAF: return tdi_own(p->trace->ctx, tdi_keep(p->trace->leaf[r->from_i].after));
    case TDI_FROM_SLOT: return tdi_own(p->trace->ctx, tensor_at(&p->trace->slot[r->slot], &r->v, r->offset));
    case TDI_FROM_ARGUMENT: break;
    }
    td_tensor *x = tdi_alias(args[r->from_i]);
    if (!x) return NULL;
    x->v = r->v;
    x->v.p = (char *)args[r->from_i]->v.p + r->offset;
    return tdi_own(p->trace->ctx, x);
}

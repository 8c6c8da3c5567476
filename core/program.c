/* program.c - makes a trace into prebound calls. See program.h. */
#include "program.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- binding ---- */

static void bind_operand(tdi_program *p, uint32_t i)
{
    tdi_operand *o = &p->operand[i];
    static double nothing[8] __attribute__((aligned(64))); /* for tensors without elements */
    p->ptr[i] = o->slot == TDI_NO_SLOT && !o->v.nd ? NULL : &p->view[i];
    p->view[i] = o->v;
    if (o->slot == TDI_NUMBER) p->view[i].p = &o->number;
    else if (o->slot >= 0) p->view[i].p = p->trace->slot[o->slot].base + o->offset;
    else p->view[i].p = nothing;
}

static bool index_uses(tdi_program *p)
{
    const tdi_trace *t = p->trace;
    p->use_at = calloc(t->n_slot + 2, sizeof *p->use_at);
    p->use = malloc((p->n_operand + 1) * sizeof *p->use);
    if (!p->use_at || !p->use) return tdi_program_no_memory();
    for (uint32_t i = 0; i < p->n_operand; i++)
        if (p->operand[i].slot >= 0) p->use_at[p->operand[i].slot + 2]++;
    for (uint32_t s = 2; s < t->n_slot + 2; s++) p->use_at[s] += p->use_at[s - 1];
    for (uint32_t i = 0; i < p->n_operand; i++)
        if (p->operand[i].slot >= 0) p->use[p->use_at[p->operand[i].slot + 1]++] = i;
    return true;
}

static void bind_call(tdi_program *p, uint32_t i)
{
    const tdi_step *s = &p->step[i];
    tdi_bound *c = &p->call[p->n_call++];
    *c = (tdi_bound){.step = s};
    if (s->optimizer) return;
    c->run = s->again && s->choice.kernel->again ? s->choice.kernel->again : s->choice.kernel->run;
    c->a = (td_kargs){.n_in = s->n_in,
                      .n_out = s->n_out,
                      .n_list = s->n_list,
                      .compute = s->compute,
                      .in = p->ptr + s->first,
                      .out = p->ptr + s->first + s->n_in,
                      .attr = s->attr,
                      .plan = s->choice.plan,
                      .ws = p->ws[i],
                      .ws_size = s->choice.ws_size,
                      .stream = s->dev->stream,
                      .dev = s->dev->handle,
                      .ordinal = s->dev->ordinal,
                      .rng = {p->random, s->random}};
}

static bool run_once(tdi_program *p, uint32_t i)
{
    bind_call(p, i);
    return tdi_call_run(&p->call[--p->n_call], p->trace->ctx);
}

/* Constants are computed now, chains become one call, and the rest one each. */
static bool bind_calls(tdi_program *p)
{
    for (uint32_t i = 0, c = 0; i < p->n_step; i++) {
        if (c < p->n_chain && p->chain[c].first == i) {
            tdi_tiles *chain = &p->chain[c++];
            if (!tdi_tiles_bind(p, chain)) return false;
            p->call[p->n_call++] = (tdi_bound){.step = &p->step[i], .chain = chain};
            for (uint32_t k = i; k <= chain->last; k++) /* constants among them */
                if (p->fate[k] == TDI_ONCE && !run_once(p, k)) return false;
            i = chain->last;
            continue;
        }
        if (p->fate[i] == TDI_EACH) bind_call(p, i);
        else if (p->fate[i] == TDI_ONCE && !run_once(p, i)) return false;
    }
    return true;
}

/* ---- results, and slots that others see ---- */

static int32_t leaf_with(const tdi_program *p, int32_t slot)
{
    for (uint32_t i = 0; i < p->trace->n_leaf; i++)
        if (p->grad[i].slot == slot) return (int32_t)i;
    return -1;
}

static void make_result(tdi_program *p, td_tensor *x, tdi_result *r)
{
    const tdi_trace *t = p->trace;
    int32_t s = tdi_trace_slot_of(t, x);
    if (s < 0 || t->slot[s].kind == TDI_OUTSIDE || t->slot[s].kind == TDI_MADE) {
        *r = (tdi_result){.from = TDI_SAME_TENSOR, .t = tdi_keep(x)};
        return;
    }
    int32_t leaf = leaf_with(p, s);
    *r = (tdi_result){.slot = (uint32_t)s, .v = x->v, .offset = (char *)x->v.p - t->slot[s].base};
    r->from = t->slot[s].kind == TDI_ARGUMENT ? TDI_FROM_ARGUMENT : leaf >= 0 ? TDI_FROM_LEAF : TDI_FROM_SLOT;
    r->from_i = leaf >= 0 ? (uint32_t)leaf : t->slot[s].arg;
}

static bool find_arguments(tdi_program *p)
{
    const tdi_trace *t = p->trace;
    p->arg_slot = malloc((t->n_arg + 1) * sizeof *p->arg_slot);
    if (!p->arg_slot) return tdi_program_no_memory();
    for (uint32_t i = 0; i < t->n_arg; i++) p->arg_slot[i] = -1;
    for (uint32_t s = 0; s < t->n_slot; s++)
        if (t->slot[s].kind == TDI_ARGUMENT) p->arg_slot[t->slot[s].arg] = (int32_t)s;
    return true;
}

static bool find_optimizers(tdi_program *p)
{
    p->optimizer = malloc((p->n_step + 1) * sizeof *p->optimizer);
    if (!p->optimizer) return tdi_program_no_memory();
    for (uint32_t i = 0; i < p->n_step; i++)
        if (p->step[i].optimizer) p->optimizer[p->n_optimizer++] = i;
    return true;
}

static bool find_gradients(tdi_program *p)
{
    const tdi_trace *t = p->trace;
    p->grad = calloc(t->n_leaf + 1, sizeof *p->grad);
    if (!p->grad) return tdi_program_no_memory();
    for (uint32_t i = 0; i < t->n_leaf; i++) {
        const td_tensor *g = t->leaf[i].after;
        int32_t s = g ? tdi_trace_slot_of(t, g) : TDI_NO_SLOT;
        bool ours = s >= 0 && t->slot[s].kind == TDI_STAYS;
        p->grad[i].slot = ours ? s : TDI_NO_SLOT;
        p->grad[i].offset = ours ? (char *)g->v.p - t->slot[s].base : 0;
    }
    return true;
}

static bool find_seen(tdi_program *p)
{
    const tdi_trace *t = p->trace;
    p->renewed = malloc((p->n_result + 1) * sizeof *p->renewed);
    p->bump = malloc((t->n_slot + 1) * sizeof *p->bump);
    if (!p->renewed || !p->bump) return tdi_program_no_memory();
    for (uint32_t i = 0; i < p->n_result; i++) {
        bool seen = p->result[i].from != TDI_FROM_SLOT;
        for (uint32_t k = 0; k < p->n_renewed; k++) seen |= p->renewed[k] == p->result[i].slot;
        if (!seen) p->renewed[p->n_renewed++] = p->result[i].slot;
    }
    for (uint32_t s = 0; s < t->n_slot; s++)
        if (t->slot[s].written && t->slot[s].kind != TDI_PASSING) p->bump[p->n_bump++] = s;
    return true;
}

/* ---- making ---- */

static bool make_memory(tdi_program *p)
{
    p->view = calloc(p->n_operand + 1, sizeof *p->view);
    p->ptr = calloc(p->n_operand + 1, sizeof *p->ptr);
    p->call = calloc(p->n_step + 1, sizeof *p->call);
    if (!p->view || !p->ptr || !p->call) return tdi_program_no_memory();
    if (!tdi_program_place(p) || !index_uses(p)) return false;
    for (uint32_t i = 0; i < p->n_operand; i++) bind_operand(p, i);
    return true;
}

static bool make(tdi_program *p, td_tensor *const *results, uint32_t n_results, bool recompute)
{
    p->result = calloc(n_results + 1, sizeof *p->result);
    if (!p->result) return tdi_program_no_memory();
    if (!find_arguments(p) || !find_gradients(p)) return false;
    for (uint32_t i = 0; i < n_results; i++) make_result(p, results[i], &p->result[p->n_result++]);
    if (!tdi_program_sort(p) || (recompute && !tdi_program_recompute(p)) || !tdi_tiles_find(p)) return false;
    return find_optimizers(p) && make_memory(p) && bind_calls(p) && find_seen(p);
}

tdi_program *tdi_program_make(tdi_trace *t, td_tensor *const *results, uint32_t n_results, bool recompute)
{
    tdi_program *p = calloc(1, sizeof *p);
    if (!p) {
        tdi_trace_free(t);
        tdi_program_no_memory();
        return NULL;
    }
    p->trace = t;
    p->step = t->step;
    p->operand = t->operand;
    p->n_step = t->n_step;
    p->n_operand = t->n_operand;
    if (make(p, results, n_results, recompute)) return p;
    tdi_program_free(p);
    return NULL;
}

void tdi_program_free(tdi_program *p)
{
    if (!p) return;
    for (uint32_t i = 0; i < p->n_result; i++)
        if (p->result[i].from == TDI_SAME_TENSOR) tdi_release(p->result[i].t);
    for (uint32_t i = 0; i < p->n_arena; i++) tdi_storage_release(p->arena[i]);
    for (uint32_t i = 0; i < p->n_chain; i++) tdi_tiles_free(&p->chain[i]);
    if (p->step != p->trace->step) free(p->step);
    if (p->operand != p->trace->operand) free(p->operand);
    tdi_trace_free(p->trace);
    void *const parts[] = {p->fate,   p->chain, p->local,   p->view, p->ptr,      p->call,      p->ws,    p->use,
                           p->use_at, p->grad,  p->renewed, p->bump, p->arg_slot, p->optimizer, p->result};
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) free(parts[i]);
    free(p);
}

void tdi_program_inform(const tdi_program *p, td_capture_info *info)
{
    info->kernels = info->dropped = info->tiled = info->constant = info->recomputed = 0;
    for (uint32_t i = 0; i < p->n_step; i++) {
        info->dropped += p->fate[i] == TDI_DEAD;
        info->constant += p->fate[i] == TDI_ONCE;
        info->recomputed += p->step[i].again;
        info->kernels += p->fate[i] == TDI_EACH && !p->step[i].optimizer;
    }
    for (uint32_t i = 0; i < p->n_chain; i++) info->tiled += p->chain[i].n;
    info->buffer_bytes = p->planned;
    info->eager_bytes = p->unplanned;
    info->saved_bytes = p->saved;
}

/* ---- in words ---- */

static size_t add_text(char *to, size_t room, size_t at, const char *text)
{
    for (; *text && at + 1 < room; text++) to[at++] = *text;
    to[at] = 0;
    return at;
}

static size_t add_operand(char *to, size_t room, size_t at, const tdi_operand *o)
{
    char text[32];
    if (o->slot == TDI_NO_SLOT && !o->v.nd) return add_text(to, room, at, " -");
    if (o->slot == TDI_NUMBER) return add_text(to, room, at, " number");
    at = add_text(to, room, at, " (");
    for (int32_t i = 0; i < o->v.nd; i++) {
        snprintf(text, sizeof text, "%s%lld", i ? ", " : "", (long long)o->v.dim[i]);
        at = add_text(to, room, at, text);
    }
    return add_text(to, room, at, ")");
}

bool tdi_program_describe(const tdi_program *p, uint32_t i, char *to, size_t room)
{
    uint32_t at_step = 0, chain = 0;
    for (;; at_step++) { /* the i-th that runs each time */
        if (at_step >= p->n_step || !room) return false;
        if (p->fate[at_step] == TDI_EACH && !i--) break;
    }
    const tdi_step *s = &p->step[at_step];
    while (chain < p->n_chain && p->chain[chain].last < at_step) chain++;
    bool tiled = chain < p->n_chain && at_step >= p->chain[chain].first;
    size_t at = add_text(to, room, 0, tiled ? "| " : "");
    at = add_text(to, room, at, s->optimizer ? td_optimizer_kind(s->optimizer)->name : s->op->t.name);
    if (s->optimizer) {
        at = add_text(to, room, at, " counts a step");
    } else {
        at = add_text(to, room, at, " ");
        at = add_text(to, room, at, td_dtype_name(s->compute));
    }
    for (uint32_t k = 0; k < s->n_in + s->n_out; k++) {
        if (k == s->n_in) at = add_text(to, room, at, " ->");
        at = add_operand(to, room, at, &p->operand[s->first + k]);
    }
    const char *line = tdi_trace_where(p->trace, s);
    if (s->again) at = add_text(to, room, at, "  again");
    if (*line) at = add_text(to, room, at, "  at ");
    add_text(to, room, at, line);
    return true;
}

/* program.c - makes a trace into prebound calls: drops dead ones, plans memory, binds views; and runs them. */
#include "program.h"
#include "interrupt.h"
#include "profile.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_DEVICES = 8 };

/* One prebound call of a kernel, or an optimizer's step. */
typedef struct {
    td_kargs a;
    bool (*run)(const td_kargs *);
    td_optimizer *optimizer;
    const tdi_step *step;
} call;

typedef enum { SAME_TENSOR, FROM_ARGUMENT, FROM_LEAF, FROM_SLOT } origin;

/* What a run gives back: a tensor that was there before, a view of an argument, a leaf's .grad, or memory of its own. */
typedef struct {
    origin from;
    td_tensor *t;    /* SAME_TENSOR: one reference                                 */
    uint32_t from_i; /* FROM_ARGUMENT, FROM_LEAF: which                           */
    uint32_t slot;
    int64_t offset;
    td_view v;
} result;

/* A gradient that the run makes: the slot of leaf i's, or TDI_NO_SLOT. */
typedef struct {
    int32_t slot;
    int64_t offset;
} gradient;

struct tdi_program {
    tdi_trace *trace;
    td_view *view;       /* one for each operand, bound                                 */
    const td_view **ptr; /* the same, NULL where absent: what kernels get               */
    call *call;
    uint32_t n_call, dropped;
    td_storage *arena[MAX_DEVICES];
    uint32_t n_arena;
    size_t planned, unplanned;
    uint32_t *use, *use_at; /* operands of slot s: use[use_at[s] .. use_at[s + 1])       */
    gradient *grad;         /* one for each leaf                                         */
    uint32_t *renewed;      /* slots of results: their memory is new where somebody else still holds it */
    uint32_t n_renewed;
    uint32_t *bump; /* written slots whose storages are seen outside             */
    uint32_t n_bump;
    uint64_t random[2];  /* where the random stream stands when a run begins          */
    int32_t *arg_slot;   /* by argument: the slot whose memory begins there, or -1    */
    uint32_t *optimizer; /* steps that are an optimizer's                             */
    uint32_t n_optimizer;
    result *result;
    uint32_t n_result;
};

static bool no_memory(void) { return td_fail_as(TD_ENOMEM, "capture: out of memory"); }

/* ---- which steps matter ---- */

static bool writes_input(const tdi_step *s, uint32_t place)
{
    for (uint32_t i = 0; i < s->op->in.n; i++) {
        uint32_t places = s->op->in.list >> i & 1 ? s->n_list : 1;
        if (place < places) return s->op->in.written >> i & 1;
        place -= places;
    }
    return false;
}

/* Marks the slots that a step writes; true where one of them matters afterwards. */
static bool matters(const tdi_trace *t, const tdi_step *s, const bool *needed)
{
    if (s->optimizer) return true;
    for (uint32_t i = 0; i < s->n_in + s->n_out; i++) {
        const tdi_operand *o = &t->operand[s->first + i];
        if (o->slot < 0 || (i < s->n_in && !writes_input(s, i))) continue;
        if (t->slot[o->slot].kind != TDI_PASSING || needed[o->slot]) return true;
    }
    return false;
}

/* live[i]: step i is run. A step is dead when all that it writes passes and is never read. */
static void find_live(const tdi_trace *t, bool *live, bool *needed)
{
    for (uint32_t i = t->n_step; i-- > 0;) {
        const tdi_step *s = &t->step[i];
        live[i] = matters(t, s, needed);
        if (!live[i] || s->optimizer) continue;
        for (uint32_t k = 0; k < s->n_in + s->n_out; k++) {
            const tdi_operand *o = &t->operand[s->first + k];
            if (o->slot >= 0 && (k < s->n_in || o->given)) needed[o->slot] = true;
        }
    }
}

/* ---- memory ---- */

/* Lives of passing slots in live steps. */
typedef struct {
    uint32_t *first, *last; /* by slot; first UINT32_MAX: in no live step */
    int32_t *into;          /* slot whose memory it takes over, or -1     */
} lives;

static bool same_place(const tdi_operand *a, const tdi_operand *b)
{
    if (a->offset || b->offset || a->v.nd != b->v.nd || td_dtype_size(a->v.dt) != td_dtype_size(b->v.dt)) return false;
    for (int32_t i = 0; i < a->v.nd; i++)
        if (a->v.dim[i] != b->v.dim[i] || (a->v.dim[i] != 1 && a->v.stride[i] != b->v.stride[i])) return false;
    return true;
}

static int32_t root(const lives *l, int32_t s)
{
    while (l->into[s] >= 0) s = l->into[s];
    return s;
}

/* Whether output o of an element-wise step may be written over its input i, which nobody reads afterwards. */
static bool takes_over(const tdi_trace *t, const tdi_step *s, uint32_t i, const tdi_operand *o, const lives *l,
                       uint32_t at)
{
    const tdi_operand *x = &t->operand[s->first + i];
    if (x->slot < 0 || t->slot[x->slot].kind != TDI_PASSING || !same_place(x, o)) return false;
    if (t->slot[x->slot].bytes != t->slot[o->slot].bytes || l->last[root(l, x->slot)] != at) return false;
    for (uint32_t k = 0; k < s->n_in; k++) { /* no other input may look at that memory in another way */
        const tdi_operand *y = &t->operand[s->first + k];
        if (y->slot >= 0 && root(l, y->slot) == root(l, x->slot) && !same_place(y, o)) return false;
    }
    return true;
}

static void share_in_place(const tdi_trace *t, const bool *live, lives *l)
{
    for (uint32_t at = 0; at < t->n_step; at++) {
        const tdi_step *s = &t->step[at];
        if (!live[at] || s->optimizer || s->n_out != 1 || !(s->choice.kernel->flags & TD_K_ALIAS_OK)) continue;
        const tdi_operand *o = &t->operand[s->first + s->n_in];
        if (o->slot < 0 || o->given || t->slot[o->slot].kind != TDI_PASSING || l->first[o->slot] != at) continue;
        for (uint32_t i = 0; i < s->n_in; i++) {
            if (!takes_over(t, s, i, o, l, at)) continue;
            int32_t to = root(l, t->operand[s->first + i].slot);
            l->into[o->slot] = to;
            l->last[to] = l->last[o->slot];
            break;
        }
    }
}

static bool find_lives(const tdi_trace *t, const bool *live, lives *l)
{
    l->first = malloc((t->n_slot + 1) * sizeof *l->first);
    l->last = malloc((t->n_slot + 1) * sizeof *l->last);
    l->into = malloc((t->n_slot + 1) * sizeof *l->into);
    if (!l->first || !l->last || !l->into) return no_memory();
    for (uint32_t s = 0; s < t->n_slot; s++) {
        l->first[s] = UINT32_MAX;
        l->last[s] = 0;
        l->into[s] = -1;
    }
    for (uint32_t i = 0; i < t->n_step; i++) {
        if (!live[i] || t->step[i].optimizer) continue;
        for (uint32_t k = 0; k < t->step[i].n_in + t->step[i].n_out; k++) {
            int32_t s = t->operand[t->step[i].first + k].slot;
            if (s < 0) continue;
            if (l->first[s] == UINT32_MAX) l->first[s] = i;
            l->last[s] = i;
        }
    }
    share_in_place(t, live, l);
    return true;
}

/* Buffers on one device: passing slots (who = slot), then workspaces (who = n_slot + step). */
static uint32_t list_buffers(const tdi_trace *t, const bool *live, const lives *l, const td_device *dev, tdi_buffer *b,
                             uint32_t *who)
{
    uint32_t n = 0;
    for (uint32_t s = 0; s < t->n_slot; s++) {
        if (t->slot[s].kind != TDI_PASSING || t->slot[s].dev != dev || l->first[s] == UINT32_MAX || l->into[s] >= 0)
            continue;
        b[n] = (tdi_buffer){l->first[s], l->last[s], t->slot[s].bytes, 0};
        who[n++] = s;
    }
    for (uint32_t i = 0; i < t->n_step; i++) {
        if (!live[i] || t->step[i].optimizer || t->step[i].dev != dev || !t->step[i].choice.ws_size) continue;
        b[n] = (tdi_buffer){i, i, t->step[i].choice.ws_size, 0};
        who[n++] = t->n_slot + i;
    }
    return n;
}

static bool place_on(tdi_program *p, const bool *live, const lives *l, td_device *dev, char **ws)
{
    tdi_trace *t = p->trace;
    tdi_buffer *b = malloc((t->n_slot + t->n_step + 1) * sizeof *b);
    uint32_t *who = malloc((t->n_slot + t->n_step + 1) * sizeof *who);
    bool ok = b && who;
    uint32_t n = ok ? list_buffers(t, live, l, dev, b, who) : 0;
    size_t total = ok ? tdi_plan_memory(b, n) : 0;
    ok = ok && !tdi_failed();
    if (ok && n && p->n_arena == MAX_DEVICES)
        ok = td_fail("capture: more than %d devices in one function", MAX_DEVICES);
    td_storage *arena = ok && n ? tdi_storage_new(dev, total) : NULL;
    if (arena) p->arena[p->n_arena++] = arena;
    ok = ok && (!n || arena);
    for (uint32_t i = 0; ok && i < n; i++) {
        char *at = (char *)arena->p + b[i].at;
        if (who[i] < t->n_slot) t->slot[who[i]].base = at;
        else ws[who[i] - t->n_slot] = at;
        p->unplanned += b[i].bytes;
    }
    p->planned += total;
    if (!ok && !tdi_failed()) no_memory();
    free(b);
    free(who);
    return ok;
}

static bool place_all(tdi_program *p, const bool *live, char **ws)
{
    tdi_trace *t = p->trace;
    lives l = {NULL, NULL, NULL};
    bool ok = find_lives(t, live, &l);
    td_device *dev;
    for (uint32_t i = 0; ok && (dev = tdi_device_open_at(i)); i++) ok = place_on(p, live, &l, dev, ws);
    for (uint32_t s = 0; ok && s < t->n_slot; s++) {
        if (t->slot[s].kind != TDI_PASSING || l.into[s] < 0) continue;
        t->slot[s].base = t->slot[root(&l, (int32_t)s)].base;
        p->unplanned += t->slot[s].bytes;
    }
    free(l.first);
    free(l.last);
    free(l.into);
    return ok;
}

/* ---- binding ---- */

static void bind_operand(tdi_program *p, uint32_t i)
{
    tdi_operand *o = &p->trace->operand[i];
    static double nothing[8] __attribute__((aligned(64))); /* for tensors without elements */
    p->ptr[i] = o->slot == TDI_NO_SLOT && !o->v.nd ? NULL : &p->view[i];
    p->view[i] = o->v;
    if (o->slot == TDI_NUMBER) p->view[i].p = &o->number;
    else if (o->slot >= 0) p->view[i].p = p->trace->slot[o->slot].base + o->offset;
    else p->view[i].p = nothing;
}

/* Gives the operands of a slot another memory. */
static void rebase(tdi_program *p, uint32_t slot, char *base)
{
    tdi_slot *s = &p->trace->slot[slot];
    if (s->base == base) return;
    s->base = base;
    for (uint32_t i = p->use_at[slot]; i < p->use_at[slot + 1]; i++)
        p->view[p->use[i]].p = base + p->trace->operand[p->use[i]].offset;
}

static bool index_uses(tdi_program *p)
{
    const tdi_trace *t = p->trace;
    p->use_at = calloc(t->n_slot + 2, sizeof *p->use_at);
    p->use = malloc((t->n_operand + 1) * sizeof *p->use);
    if (!p->use_at || !p->use) return no_memory();
    for (uint32_t i = 0; i < t->n_operand; i++)
        if (t->operand[i].slot >= 0) p->use_at[t->operand[i].slot + 2]++;
    for (uint32_t s = 2; s < t->n_slot + 2; s++) p->use_at[s] += p->use_at[s - 1];
    for (uint32_t i = 0; i < t->n_operand; i++)
        if (t->operand[i].slot >= 0) p->use[p->use_at[t->operand[i].slot + 1]++] = i;
    return true;
}

static void bind_call(tdi_program *p, const tdi_step *s, char *ws)
{
    call *c = &p->call[p->n_call++];
    *c = (call){.optimizer = s->optimizer, .step = s};
    if (s->optimizer) return;
    c->run = s->choice.kernel->run;
    c->a = (td_kargs){.n_in = s->n_in,
                      .n_out = s->n_out,
                      .n_list = s->n_list,
                      .compute = s->compute,
                      .in = p->ptr + s->first,
                      .out = p->ptr + s->first + s->n_in,
                      .attr = s->attr,
                      .plan = s->choice.plan,
                      .ws = ws,
                      .ws_size = s->choice.ws_size,
                      .stream = s->dev->stream,
                      .dev = s->dev->handle,
                      .ordinal = s->dev->ordinal,
                      .rng = {p->random, s->random}};
}

/* ---- results, and slots that others see ---- */

static int32_t leaf_with(const tdi_program *p, int32_t slot)
{
    for (uint32_t i = 0; i < p->trace->n_leaf; i++)
        if (p->grad[i].slot == slot) return (int32_t)i;
    return -1;
}

static void make_result(tdi_program *p, td_tensor *x, result *r)
{
    const tdi_trace *t = p->trace;
    int32_t s = tdi_trace_slot_of(t, x);
    if (s < 0 || t->slot[s].kind == TDI_OUTSIDE || t->slot[s].kind == TDI_MADE) {
        *r = (result){.from = SAME_TENSOR, .t = tdi_keep(x)};
        return;
    }
    int32_t leaf = leaf_with(p, s);
    *r = (result){.slot = (uint32_t)s, .v = x->v, .offset = (char *)x->v.p - t->slot[s].base};
    r->from = t->slot[s].kind == TDI_ARGUMENT ? FROM_ARGUMENT : leaf >= 0 ? FROM_LEAF : FROM_SLOT;
    r->from_i = leaf >= 0 ? (uint32_t)leaf : t->slot[s].arg;
}

static bool find_arguments(tdi_program *p)
{
    const tdi_trace *t = p->trace;
    p->arg_slot = malloc((t->n_arg + 1) * sizeof *p->arg_slot);
    p->optimizer = malloc((t->n_step + 1) * sizeof *p->optimizer);
    if (!p->arg_slot || !p->optimizer) return no_memory();
    for (uint32_t i = 0; i < t->n_arg; i++) p->arg_slot[i] = -1;
    for (uint32_t s = 0; s < t->n_slot; s++)
        if (t->slot[s].kind == TDI_ARGUMENT) p->arg_slot[t->slot[s].arg] = (int32_t)s;
    for (uint32_t i = 0; i < t->n_step; i++)
        if (t->step[i].optimizer) p->optimizer[p->n_optimizer++] = i;
    return true;
}

static bool find_gradients(tdi_program *p)
{
    const tdi_trace *t = p->trace;
    p->grad = calloc(t->n_leaf + 1, sizeof *p->grad);
    if (!p->grad) return no_memory();
    for (uint32_t i = 0; i < t->n_leaf; i++) {
        const td_tensor *g = t->leaf[i].after;
        int32_t s = g ? tdi_trace_slot_of(t, g) : TDI_NO_SLOT;
        bool ours = s >= 0 && t->slot[s].kind == TDI_STAYS;
        p->grad[i] = (gradient){ours ? s : TDI_NO_SLOT, ours ? (char *)g->v.p - t->slot[s].base : 0};
    }
    return true;
}

static bool find_seen(tdi_program *p)
{
    const tdi_trace *t = p->trace;
    p->renewed = malloc((p->n_result + 1) * sizeof *p->renewed);
    p->bump = malloc((t->n_slot + 1) * sizeof *p->bump);
    if (!p->renewed || !p->bump) return no_memory();
    for (uint32_t i = 0; i < p->n_result; i++) {
        bool seen = p->result[i].from != FROM_SLOT;
        for (uint32_t k = 0; k < p->n_renewed; k++) seen |= p->renewed[k] == p->result[i].slot;
        if (!seen) p->renewed[p->n_renewed++] = p->result[i].slot;
    }
    for (uint32_t s = 0; s < t->n_slot; s++)
        if (t->slot[s].written && t->slot[s].kind != TDI_PASSING) p->bump[p->n_bump++] = s;
    return true;
}

/* ---- making ---- */

static bool make(tdi_program *p, td_tensor *const *results, uint32_t n_results)
{
    tdi_trace *t = p->trace;
    bool *live = calloc(t->n_step + 1, sizeof *live), *needed = calloc(t->n_slot + 1, sizeof *needed);
    char **ws = calloc(t->n_step + 1, sizeof *ws);
    p->view = calloc(t->n_operand + 1, sizeof *p->view);
    p->ptr = calloc(t->n_operand + 1, sizeof *p->ptr);
    p->call = calloc(t->n_step + 1, sizeof *p->call);
    p->result = calloc(n_results + 1, sizeof *p->result);
    bool ok = (live && needed && ws && p->view && p->ptr && p->call && p->result) || no_memory();
    ok = ok && find_arguments(p) && find_gradients(p);
    for (uint32_t i = 0; ok && i < n_results; i++) make_result(p, results[i], &p->result[p->n_result++]);
    if (ok) find_live(t, live, needed);
    ok = ok && place_all(p, live, ws) && index_uses(p);
    for (uint32_t i = 0; ok && i < t->n_operand; i++) bind_operand(p, i);
    for (uint32_t i = 0; ok && i < t->n_step; i++) {
        if (live[i]) bind_call(p, &t->step[i], ws[i]);
        else p->dropped++;
    }
    free(live);
    free(needed);
    free(ws);
    return ok && find_seen(p);
}

tdi_program *tdi_program_make(tdi_trace *t, td_tensor *const *results, uint32_t n_results)
{
    tdi_program *p = calloc(1, sizeof *p);
    if (!p) {
        tdi_trace_free(t);
        no_memory();
        return NULL;
    }
    p->trace = t;
    if (make(p, results, n_results)) return p;
    tdi_program_free(p);
    return NULL;
}

void tdi_program_free(tdi_program *p)
{
    if (!p) return;
    for (uint32_t i = 0; i < p->n_result; i++)
        if (p->result[i].from == SAME_TENSOR) tdi_release(p->result[i].t);
    for (uint32_t i = 0; i < p->n_arena; i++) tdi_storage_release(p->arena[i]);
    tdi_trace_free(p->trace);
    free(p->view);
    free(p->ptr);
    free(p->call);
    free(p->result);
    free(p->use);
    free(p->use_at);
    free(p->renewed);
    free(p->grad);
    free(p->arg_slot);
    free(p->optimizer);
    free(p->bump);
    free(p);
}

/* ---- running ---- */

bool tdi_program_fits(const tdi_program *p)
{
    const tdi_trace *t = p->trace;
    for (uint32_t i = 0; i < t->n_leaf; i++)
        if (!t->leaf[i].replaced && t->leaf[i].leaf->grad != t->leaf[i].before) return false;
    for (uint32_t i = 0; i < p->n_optimizer; i++) {
        const tdi_step *s = &t->step[p->optimizer[i]];
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

static bool profiled(tdi_profile *profile, const call *c)
{
    const tdi_step *s = c->step;
    tdi_profile_enter(profile, s->op);
    bool ok = tdi_profile_kernel(profile, s->op, s->choice.kernel, &c->a, s->dev);
    tdi_profile_leave(profile);
    return ok;
}

static bool run_call(const call *c, tdi_profile *profile)
{
    if (c->optimizer) {
        c->optimizer->steps++;
        return tdi_live_refresh(c->optimizer);
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
        if (tdi_interrupt_pending()) {
            td_interrupted();
            return td_fail("interrupted");
        }
        if (!run_call(&p->call[i], ctx->profile)) return false;
    }
    ctx->random[1] += t->advance;
    finish(p, args);
    return true;
}

td_tensor *tdi_program_result(tdi_program *p, uint32_t i, td_tensor *const *args)
{
    const result *r = &p->result[i];
    switch (r->from) {
    case SAME_TENSOR: return tdi_own(p->trace->ctx, tdi_keep(r->t));
    case FROM_LEAF: return tdi_own(p->trace->ctx, tdi_keep(p->trace->leaf[r->from_i].after));
    case FROM_SLOT: return tdi_own(p->trace->ctx, tensor_at(&p->trace->slot[r->slot], &r->v, r->offset));
    case FROM_ARGUMENT: break;
    }
    td_tensor *x = tdi_alias(args[r->from_i]);
    if (!x) return NULL;
    x->v = r->v;
    x->v.p = (char *)args[r->from_i]->v.p + r->offset;
    return tdi_own(p->trace->ctx, x);
}

uint32_t tdi_program_results(const tdi_program *p) { return p->n_result; }
const tdi_trace *tdi_program_trace(const tdi_program *p) { return p->trace; }

void tdi_program_inform(const tdi_program *p, td_capture_info *info)
{
    info->kernels = p->n_call - p->n_optimizer;
    info->dropped = p->dropped;
    info->buffer_bytes = p->planned;
    info->eager_bytes = p->unplanned;
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
    if (i >= p->n_call || !room) return false;
    const tdi_step *s = p->call[i].step;
    size_t at = add_text(to, room, 0, s->optimizer ? td_optimizer_kind(s->optimizer)->name : s->op->t.name);
    if (s->optimizer) {
        at = add_text(to, room, at, " counts a step");
    } else {
        at = add_text(to, room, at, " ");
        at = add_text(to, room, at, td_dtype_name(s->compute));
    }
    for (uint32_t k = 0; k < s->n_in + s->n_out; k++) {
        if (k == s->n_in) at = add_text(to, room, at, " ->");
        at = add_operand(to, room, at, &p->trace->operand[s->first + k]);
    }
    const char *line = tdi_trace_where(p->trace, s);
    if (*line) at = add_text(to, room, at, "  at ");
    add_text(to, room, at, line);
    return true;
}

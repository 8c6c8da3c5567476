/* trace.c - records what the kernels of one call did, and compares two such records. See trace.h. */
#include "trace.h"
#include "run.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

atomic_uint_fast64_t tdi_stamp;
__thread tdi_trace *tdi_tracing __attribute__((tls_model("initial-exec"), visibility("hidden")));

static bool no_memory(tdi_trace *t)
{
    t->failed = true;
    return td_fail_as(TD_ENOMEM, "capture: out of memory");
}

static bool room_for(tdi_trace *t, void *list, uint32_t *cap, uint32_t n, size_t size)
{
    void **at = list;
    if (n <= *cap) return true;
    uint32_t more = *cap * 2 > n ? *cap * 2 : n + 32;
    void *p = realloc(*at, more * size);
    if (!p) return no_memory(t);
    *at = p;
    *cap = more;
    return true;
}

/* ---- storages to slots ---- */

static td_storage *deleted(const tdi_trace *t) { return (td_storage *)(uintptr_t)t; }

static uint32_t hash(const td_storage *st) { return (uint32_t)(((uintptr_t)st >> 4) * 0x9e3779b97f4a7c15ull >> 32); }

static uint32_t map_find(const tdi_trace *t, const td_storage *st)
{
    if (!t->map_cap) return UINT32_MAX;
    for (uint32_t at = hash(st) & (t->map_cap - 1); t->map[at].st; at = (at + 1) & (t->map_cap - 1))
        if (t->map[at].st == st) return at;
    return UINT32_MAX;
}

static bool map_grow(tdi_trace *t)
{
    uint32_t old_cap = t->map_cap, live = 0;
    for (uint32_t i = 0; i < old_cap; i++) live += t->map[i].st && t->map[i].st != deleted(t);
    uint32_t cap = 64;
    while (cap < live * 4) cap *= 2;
    void *old = t->map;
    t->map = calloc(cap, sizeof *t->map);
    if (!t->map) {
        t->map = old;
        return no_memory(t);
    }
    t->map_cap = cap;
    t->map_n = live;
    for (uint32_t i = 0; i < old_cap; i++) {
        td_storage *st = ((__typeof__(t->map))old)[i].st;
        if (!st || st == deleted(t)) continue;
        uint32_t at = hash(st) & (cap - 1);
        while (t->map[at].st) at = (at + 1) & (cap - 1);
        t->map[at] = ((__typeof__(t->map))old)[i];
    }
    free(old);
    return true;
}

static bool map_put(tdi_trace *t, td_storage *st, uint32_t slot)
{
    uint32_t at = map_find(t, st);
    if (at != UINT32_MAX) {
        t->map[at].slot = slot;
        return true;
    }
    if ((t->map_n + 1) * 2 > t->map_cap && !map_grow(t)) return false;
    at = hash(st) & (t->map_cap - 1);
    while (t->map[at].st) at = (at + 1) & (t->map_cap - 1);
    t->map[at].st = st;
    t->map[at].slot = slot;
    t->map_n++;
    return true;
}

void tdi_trace_freed(tdi_trace *t, td_storage *st)
{
    uint32_t at = map_find(t, st);
    if (at == UINT32_MAX) return;
    t->slot[t->map[at].slot].st = NULL;
    t->map[at].st = deleted(t);
}

static int32_t slot_at(const tdi_trace *t, const td_storage *st)
{
    uint32_t at = map_find(t, st);
    return at == UINT32_MAX ? TDI_NO_SLOT : (int32_t)t->map[at].slot;
}

/* A new slot of a storage; INT32_MIN after an error. */
static int32_t add_slot(tdi_trace *t, tdi_slot_kind kind, td_storage *st)
{
    if (!room_for(t, &t->slot, &t->cap_slot, t->n_slot + 1, sizeof *t->slot) || !map_put(t, st, t->n_slot))
        return INT32_MIN;
    tdi_slot *s = &t->slot[t->n_slot];
    *s = (tdi_slot){.kind = kind, .st = st, .base = st->p, .bytes = st->bytes, .dev = st->dev};
    if (kind == TDI_MADE) {
        s->copy = malloc(st->bytes ? st->bytes : 1);
        if (!s->copy || !tdi_copy_to_host(st->dev, s->copy, st->p, st->bytes)) {
            free(s->copy);
            return no_memory(t), INT32_MIN;
        }
    }
    if (kind == TDI_OUTSIDE || kind == TDI_MADE) tdi_storage_keep(st);
    return (int32_t)t->n_slot++;
}

/* A storage that is met for the first time with what it holds. */
static int32_t meet(tdi_trace *t, td_storage *st)
{
    int32_t s = slot_at(t, st);
    if (s != TDI_NO_SLOT) return s;
    return add_slot(t, st->stamp >= t->stamp ? TDI_MADE : TDI_OUTSIDE, st);
}

int32_t tdi_trace_slot_of(const tdi_trace *t, const td_tensor *x) { return x->st ? slot_at(t, x->st) : TDI_NO_SLOT; }
int32_t tdi_trace_meet(tdi_trace *t, const td_tensor *x) { return x->st ? meet(t, x->st) : INT32_MIN; }

/* ---- operands ---- */

/* Whether a view covers its storage: then what was there before is gone. */
static bool covers(const td_tensor *x) { return (size_t)td_view_numel(&x->v) * td_dtype_size(x->v.dt) == x->st->bytes; }

static bool add_operand(tdi_trace *t, const td_view *v, bool number, bool output)
{
    tdi_operand *o = &t->operand[t->n_operand++];
    *o = (tdi_operand){.slot = TDI_NO_SLOT};
    if (!v) return true;
    o->v = *v;
    if (number) {
        o->slot = TDI_NUMBER;
        memcpy(&o->number, v->p, td_dtype_size(v->dt));
        return true;
    }
    const td_tensor *x = (const td_tensor *)(const void *)v; /* v is its first member */
    if (!x->st->bytes) return true;                          /* no elements: nothing to bind */
    int32_t s = slot_at(t, x->st);
    bool fresh = output && s == TDI_NO_SLOT && x->st->stamp >= t->stamp && covers(x);
    if (s == TDI_NO_SLOT) s = fresh ? add_slot(t, TDI_PASSING, x->st) : meet(t, x->st);
    if (s == INT32_MIN) return false;
    o->slot = s;
    o->given = output && !fresh;
    o->offset = (char *)v->p - t->slot[s].base;
    if (output) t->slot[s].written = true;
    return true;
}

/* The script's line as text that lives with the trace: mostly that of the step before. */
static bool note_where(tdi_trace *t, uint32_t *where)
{
    char line[256] = "";
    tdi_where(line, sizeof line);
    if (strcmp(t->text + t->last_text, line)) {
        uint32_t n = (uint32_t)strlen(line) + 1;
        if (!room_for(t, &t->text, &t->cap_text, t->n_text + n, 1)) return false;
        memcpy(t->text + t->n_text, line, n);
        t->last_text = t->n_text;
        t->n_text += n;
    }
    *where = t->last_text;
    return true;
}

static tdi_step *add_step(tdi_trace *t)
{
    uint32_t where;
    if (!room_for(t, &t->step, &t->cap_step, t->n_step + 1, sizeof *t->step) || !note_where(t, &where)) return NULL;
    tdi_step *s = &t->step[t->n_step];
    *s = (tdi_step){.where = where, .first = t->n_operand};
    return s;
}

bool tdi_trace_kernel(td_context *ctx, tdi_op *op, const tdi_choice *c, const td_kargs *a, td_device *dev,
                      const td_view *numbers, uint32_t n_numbers)
{
    tdi_trace *t = ctx->trace;
    if (t->failed) return false;
    if (op->t.flags & TD_OP_HOST_SYNC) return tdi_trace_refuse(op->t.name);
    bool replays = c->kernel->flags & TD_K_CAPTURABLE;
    tdi_step *s = add_step(t);
    if (s && !replays && !*t->unfit)
        snprintf(t->unfit, sizeof t->unfit,
                 "the kernel of %s on %s does not say that it can be replayed (TD_K_CAPTURABLE)", op->t.name,
                 dev->name);
    if (!s || !room_for(t, &t->operand, &t->cap_operand, t->n_operand + a->n_in + a->n_out, sizeof *t->operand))
        return false;
    s->op = op;
    s->dev = dev;
    s->n_in = a->n_in;
    s->n_out = a->n_out;
    s->n_list = a->n_list;
    s->compute = a->compute;
    s->backward = ctx->walks > 0;
    s->random = ctx->random[1] - t->random[1];
    s->attr = tdi_attr_copy(&op->t.attr, a->attr);
    s->choice = *c;
    tdi_plan_pin(&s->choice);
    t->n_step++;
    for (uint32_t i = 0; i < a->n_in; i++)
        if (!add_operand(t, a->in[i], a->in[i] >= numbers && a->in[i] < numbers + n_numbers, false)) return false;
    for (uint32_t i = 0; i < a->n_out; i++)
        if (!add_operand(t, a->out[i], false, true)) return false;
    for (uint32_t i = 0, place = 0; op->in.written && i < op->in.n; i++) { /* inputs that it writes */
        uint32_t places = op->in.list >> i & 1 ? a->n_list : 1;
        for (uint32_t k = 0; k < places; k++, place++) {
            int32_t slot = t->operand[s->first + place].slot;
            if (op->in.written >> i & 1 && slot >= 0) t->slot[slot].written = true;
        }
    }
    return !tdi_failed();
}

/* ---- gradients of leaves, optimizers, refusals ---- */

bool tdi_trace_grad(td_tensor *leaf, bool replaced)
{
    tdi_trace *t = tdi_ctx()->trace;
    for (uint32_t i = 0; i < t->n_leaf; i++)
        if (t->leaf[i].leaf == leaf) return true;
    if (!room_for(t, &t->leaf, &t->cap_leaf, t->n_leaf + 1, sizeof *t->leaf)) return false;
    t->leaf[t->n_leaf++] =
        (tdi_leaf){.leaf = tdi_keep(leaf), .before = leaf->grad ? tdi_keep(leaf->grad) : NULL, .replaced = replaced};
    return true;
}

bool tdi_trace_optimizer(td_optimizer *o)
{
    tdi_trace *t = tdi_ctx()->trace;
    tdi_step *s = add_step(t);
    if (!s) return false;
    s->optimizer = tdi_optimizer_keep(o);
    s->version = o->version;
    t->n_step++;
    return true;
}

bool tdi_trace_refuse(const char *what)
{
    return td_fail(
        "%s inside a captured function: a replay runs no Lua, so what the script does with the value would stay "
        "as it was; move it out of the function that tide.capture was given",
        what);
}

bool tdi_trace_read(const td_tensor *x, const char *what)
{
    const tdi_trace *t = tdi_ctx()->trace;
    bool own = !x->st || (x->st->stamp >= t->stamp && slot_at(t, x->st) == TDI_NO_SLOT);
    return own || tdi_trace_refuse(what);
}

/* ---- life ---- */

tdi_trace *tdi_trace_begin(td_tensor *const *args, uint32_t n_args)
{
    td_context *ctx = tdi_ctx();
    tdi_trace *t = calloc(1, sizeof *t);
    if (!t) {
        td_fail_as(TD_ENOMEM, "capture: out of memory");
        return NULL;
    }
    t->ctx = ctx;
    t->arg = args;
    t->n_arg = n_args;
    memcpy(t->random, ctx->random, sizeof t->random);
    t->stamp = atomic_fetch_add(&tdi_stamp, 1) + 1;
    bool ok = room_for(t, &t->text, &t->cap_text, 1, 1);
    if (ok) t->text[t->n_text++] = 0;
    for (uint32_t i = 0; i < n_args && ok; i++) {
        td_storage *st = args[i]->st;
        if (!st->bytes || slot_at(t, st) != TDI_NO_SLOT) continue; /* a second view of the first one's memory */
        int32_t s = add_slot(t, TDI_ARGUMENT, st);
        ok = s != INT32_MIN;
        if (!ok) break;
        t->slot[s].arg = i;
        t->slot[s].base = args[i]->v.p;
    }
    if (ok) {
        ctx->trace = tdi_tracing = t;
        return t;
    }
    tdi_trace_free(t);
    return NULL;
}

bool tdi_trace_end(tdi_trace *t)
{
    td_context *ctx = t->ctx;
    ctx->trace = tdi_tracing = NULL;
    t->arg = NULL;
    if (ctx->random[0] != t->random[0] || ctx->random[1] < t->random[1]) t->failed = true; /* seeded by other means */
    t->advance = ctx->random[1] - t->random[1];
    for (uint32_t i = 0; i < t->n_slot; i++) {
        tdi_slot *s = &t->slot[i];
        if (s->kind != TDI_PASSING || !s->st) continue;
        s->kind = TDI_STAYS;
        tdi_storage_keep(s->st);
    }
    for (uint32_t i = 0; i < t->n_leaf; i++)
        t->leaf[i].after = t->leaf[i].leaf->grad ? tdi_keep(t->leaf[i].leaf->grad) : NULL;
    return !t->failed;
}

void tdi_trace_free(tdi_trace *t)
{
    if (!t) return;
    if (tdi_tracing == t) t->ctx->trace = tdi_tracing = NULL;
    for (uint32_t i = 0; i < t->n_step; i++) {
        tdi_step *s = &t->step[i];
        if (s->op) tdi_attr_free(&s->op->t.attr, s->attr);
        tdi_plan_unpin(&s->choice);
        if (s->optimizer) td_optimizer_free(s->optimizer);
    }
    for (uint32_t i = 0; i < t->n_slot; i++) {
        tdi_slot *s = &t->slot[i];
        if (s->kind == TDI_OUTSIDE || s->kind == TDI_MADE || s->kind == TDI_STAYS) tdi_storage_release(s->st);
        free(s->copy);
    }
    for (uint32_t i = 0; i < t->n_leaf; i++) {
        tdi_release(t->leaf[i].leaf);
        tdi_release(t->leaf[i].before);
        tdi_release(t->leaf[i].after);
    }
    free(t->slot);
    free(t->operand);
    free(t->step);
    free(t->leaf);
    free(t->text);
    free(t->map);
    free(t);
}

/* ---- comparing ---- */

/* Memory corresponds where slots have the same number and kind; what lay outside must be the very same. */
static const char *slots_differ(const tdi_slot *a, const tdi_slot *b)
{
    bool stays = (a->kind == TDI_PASSING || a->kind == TDI_STAYS) && (b->kind == TDI_PASSING || b->kind == TDI_STAYS);
    if (!stays && a->kind != b->kind) return "another kind of memory";
    if (a->bytes != b->bytes || a->dev != b->dev) return "memory of another size";
    if (a->kind == TDI_OUTSIDE && a->st != b->st) return "another tensor each time";
    if (a->kind == TDI_ARGUMENT && a->arg != b->arg) return "another argument";
    if (a->kind == TDI_MADE && memcmp(a->copy, b->copy, a->bytes)) return "a tensor of other Lua values each time";
    return NULL;
}

static const char *operands_differ(const tdi_trace *a, const tdi_operand *x, const tdi_trace *b, const tdi_operand *y)
{
    if (x->slot != y->slot) return "other memory";
    if (x->slot == TDI_NO_SLOT) return x->v.nd == y->v.nd ? NULL : "another shape";
    if (!tdi_same_layout(&x->v, &y->v)) return "another shape, dtype or strides";
    if (x->slot == TDI_NUMBER) return memcmp(&x->number, &y->number, sizeof x->number) ? "another number" : NULL;
    if (x->offset != y->offset) return "another part of its memory";
    return slots_differ(&a->slot[x->slot], &b->slot[y->slot]);
}

static const char *steps_differ(const tdi_trace *a, const tdi_step *x, const tdi_trace *b, const tdi_step *y,
                                uint32_t *place)
{
    *place = UINT32_MAX;
    if (x->op != y->op || x->optimizer != y->optimizer) return "another op";
    if (x->optimizer) return x->version == y->version ? NULL : "another option";
    if (x->choice.kernel != y->choice.kernel || x->choice.plan != y->choice.plan) return "another kernel";
    if (x->dev != y->dev || x->compute != y->compute || x->random != y->random)
        return "another device, dtype or place in the random stream";
    if (x->n_in != y->n_in || x->n_out != y->n_out || x->n_list != y->n_list) return "another number of tensors";
    if (!tdi_attr_equal(&x->op->t.attr, x->attr, y->attr)) return "another attribute";
    for (uint32_t i = 0; i < x->n_in + x->n_out; i++) {
        const char *what = operands_differ(a, &a->operand[x->first + i], b, &b->operand[y->first + i]);
        if (!what) continue;
        *place = i;
        return what;
    }
    return NULL;
}

static const char *step_name(const tdi_step *s)
{
    return s->optimizer ? td_optimizer_kind(s->optimizer)->name : s->op->t.name;
}

static bool leaves_equal(const tdi_trace *a, const tdi_trace *b)
{
    if (a->n_leaf != b->n_leaf) return false;
    for (uint32_t i = 0; i < a->n_leaf; i++) {
        const tdi_leaf *x = &a->leaf[i], *y = &b->leaf[i];
        if (x->leaf != y->leaf || x->replaced != y->replaced || !x->after != !y->after) return false;
        if (!x->replaced && x->before != y->before) return false;
    }
    return true;
}

bool tdi_trace_equal(const tdi_trace *a, const tdi_trace *b, char *why, size_t room)
{
    uint32_t n = a->n_step < b->n_step ? a->n_step : b->n_step, place;
    for (uint32_t i = 0; i < n; i++) {
        const tdi_step *x = &a->step[i], *y = &b->step[i];
        const char *what = steps_differ(a, x, b, y, &place);
        if (!what) continue;
        const char *line = tdi_trace_where(b, y);
        if (place == UINT32_MAX && strcmp(step_name(x), step_name(y)))
            snprintf(why, room, "op %u is %s, and was %s in the call before%s%s", i + 1, step_name(y), step_name(x),
                     *line ? ", at " : "", line);
        else if (place == UINT32_MAX)
            snprintf(why, room, "op %u, %s, has %s than in the call before%s%s", i + 1, step_name(y), what,
                     *line ? ", at " : "", line);
        else
            snprintf(why, room, "op %u, %s: its %s %u is %s than in the call before%s%s", i + 1, step_name(y),
                     place < y->n_in ? "input" : "output", (place < y->n_in ? place : place - y->n_in) + 1, what,
                     *line ? ", at " : "", line);
        return false;
    }
    if (a->n_step != b->n_step) {
        snprintf(why, room, "it ran %u ops, and %u in the call before", b->n_step, a->n_step);
        return false;
    }
    if (!leaves_equal(a, b) || a->advance != b->advance) {
        snprintf(why, room, "gradients or random numbers were used in another way than in the call before");
        return false;
    }
    return true;
}

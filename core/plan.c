/* plan.c - the cache of kernel choices: a hash table with a least-recently-used list, one per context, so no lock is needed. */
#include "plan.h"
#include "dispatch.h"
#include <stdlib.h>
#include <string.h>

enum { BUCKETS = 1024, MAX_PLANS = 2048, MAX_KEY = 512 }; /* MAX_KEY: words; longer questions are asked each time */

typedef struct entry {
    struct entry *chain, *newer, *older;
    tdi_choice choice;
    uint64_t hash;
    uint32_t n, pins;
    bool dropped; /* from the cache: freed when the last pin goes */
    uint64_t key[];
} entry;

struct tdi_plans {
    entry *bucket[BUCKETS];
    entry *newest, *oldest;
    uint32_t n;
};

/* ---- keys ---- */

typedef struct {
    uint64_t w[MAX_KEY];
    uint32_t n;
    bool full;
} key;

static void put(key *k, uint64_t w)
{
    if (k->n < MAX_KEY) k->w[k->n++] = w;
    else k->full = true;
}

static void put_bytes(key *k, const void *p, size_t n)
{
    for (size_t at = 0; at < n; at += 8) {
        uint64_t w = 0;
        memcpy(&w, (const char *)p + at, n - at < 8 ? n - at : 8);
        put(k, w);
    }
}

/* Field by field: the struct has padding, and strings count by their text. */
static void put_attr(key *k, const td_opts *schema, const void *attr)
{
    const char *base = attr;
    for (uint32_t i = 0; attr && i < schema->n; i++) {
        const td_opt *o = (const td_opt *)((const char *)schema->v + (size_t)i * schema->stride);
        const void *field = base + o->off;
        if (o->has && !base[o->has - 1]) {
            put(k, 0);
            continue;
        }
        put(k, 1);
        switch (o->type & 0xff) {
        case TD_O_STR: {
            const char *s = *(const char *const *)field;
            put_bytes(k, s ? s : "", s ? strlen(s) + 1 : 1);
            break;
        }
        case TD_O_INTS:
        case TD_O_AXES: {
            const td_ints *l = field;
            put(k, (uint64_t)l->n);
            for (int64_t j = 0; j < l->n && j < TD_MAX_LIST; j++) put(k, (uint64_t)l->v[j]);
            break;
        }
        case TD_O_NUMS: {
            const td_nums *l = field;
            put(k, (uint64_t)l->n);
            for (int64_t j = 0; j < l->n && j < TD_MAX_LIST; j++) put_bytes(k, &l->v[j], sizeof l->v[j]);
            break;
        }
        default: put_bytes(k, field, o->size);
        }
    }
}

static void put_view(key *k, const td_view *v)
{
    if (!v) {
        put(k, ~0ull);
        return;
    }
    put(k, (uint64_t)v->dt | (uint64_t)v->nd << 8 | (uint64_t)v->flags << 32);
    for (int32_t i = 0; i < v->nd; i++) {
        put(k, (uint64_t)v->dim[i]);
        put(k, (uint64_t)v->stride[i]);
    }
}

static void make_key(key *k, const tdi_op *op, const td_device *dev, const tdi_chain *chain, const td_kargs *q)
{
    k->n = 0;
    k->full = false;
    uint64_t threads = (uint64_t)atomic_load_explicit(&tdi_thread_count, memory_order_relaxed);
    put(k, op->id | (uint64_t)q->compute << 32 | threads << 40);
    put(k, (uint64_t)(uintptr_t)dev);
    put(k, (uint64_t)(uintptr_t)chain); /* replaced when a kernel is added, so older answers die */
    put(k, q->n_in | (uint64_t)q->n_out << 32);
    for (uint32_t i = 0; i < q->n_in; i++) put_view(k, q->in[i]);
    put_attr(k, &op->t.attr, q->attr);
}

static uint64_t hash_of(const key *k)
{
    uint64_t h = 0x9e3779b97f4a7c15ull;
    for (uint32_t i = 0; i < k->n; i++) {
        h = (h ^ k->w[i]) * 0xff51afd7ed558ccdull;
        h ^= h >> 32;
    }
    return h;
}

/* ---- the table ---- */

static void unlink_entry(tdi_plans *t, entry *e)
{
    *(e->newer ? &e->newer->older : &t->newest) = e->older;
    *(e->older ? &e->older->newer : &t->oldest) = e->newer;
}

static void make_newest(tdi_plans *t, entry *e)
{
    e->newer = NULL;
    e->older = t->newest;
    *(t->newest ? &t->newest->newer : &t->oldest) = e;
    t->newest = e;
}

static void entry_free(entry *e)
{
    e->dropped = true;
    if (e->pins) return;
    if (e->choice.plan && e->choice.kernel->plan_free) e->choice.kernel->plan_free(e->choice.plan);
    free(e);
}

static void drop_oldest(tdi_plans *t)
{
    entry *e = t->oldest, **at = &t->bucket[e->hash % BUCKETS];
    while (*at != e) at = &(*at)->chain;
    *at = e->chain;
    unlink_entry(t, e);
    t->n--;
    entry_free(e);
}

static entry *find(tdi_plans *t, const key *k, uint64_t hash)
{
    for (entry *e = t->bucket[hash % BUCKETS]; e; e = e->chain)
        if (e->hash == hash && e->n == k->n && !memcmp(e->key, k->w, k->n * sizeof *k->w)) {
            if (t->newest != e) {
                unlink_entry(t, e);
                make_newest(t, e);
            }
            return e;
        }
    return NULL;
}

static bool insert(tdi_plans *t, const key *k, uint64_t hash, tdi_choice *c)
{
    entry *e = malloc(sizeof *e + k->n * sizeof *k->w);
    if (!e) return false;
    if (t->n == MAX_PLANS) drop_oldest(t);
    memcpy(e->key, k->w, k->n * sizeof *k->w);
    e->n = k->n;
    e->hash = hash;
    c->entry = e;
    e->pins = 0;
    e->dropped = false;
    e->choice = *c;
    e->chain = t->bucket[hash % BUCKETS];
    t->bucket[hash % BUCKETS] = e;
    make_newest(t, e);
    t->n++;
    return true;
}

void tdi_plan_pin(const tdi_choice *c)
{
    entry *e = c->entry;
    if (e) e->pins++;
}

void tdi_plan_unpin(const tdi_choice *c)
{
    entry *e = c->entry;
    if (e && --e->pins == 0 && e->dropped) entry_free(e);
}

void tdi_plans_free(tdi_plans *t)
{
    if (!t) return;
    for (entry *e = t->newest, *next; e; e = next) {
        next = e->older;
        entry_free(e);
    }
    free(t);
}

/* ---- choosing ---- */

/* A kernel that takes only dense inputs is asked about dense ones: that is what it will get. */
static void as_dense(const td_kargs *q, td_view *copies, const td_view **in)
{
    for (uint32_t i = 0; i < q->n_in; i++) {
        in[i] = q->in[i];
        if (!in[i] || td_view_dense(in[i])) continue;
        copies[i] = *in[i];
        tdi_dense_strides(&copies[i]);
        in[i] = &copies[i];
    }
}

static bool ask(const td_kernel *k, const td_kargs *q, tdi_choice *c)
{
    td_kargs dense = *q;
    td_view *copies = NULL;
    const td_view **in = NULL;
    bool ok = true;
    if (!(k->flags & TD_K_STRIDED) && q->n_in) {
        copies = malloc(q->n_in * sizeof *copies);
        in = malloc(q->n_in * sizeof *in);
        if (copies && in) {
            as_dense(q, copies, in);
            dense.in = in;
        } else {
            ok = td_fail_as(TD_ENOMEM, "%s: out of memory", k->op);
        }
    }
    if (ok && (!k->accepts || k->accepts(&dense))) {
        c->kernel = k;
        if (k->plan && !k->plan(&dense, &c->plan, &c->ws_size) && !tdi_failed())
            td_fail_as(TD_EPLUGIN, "%s: a kernel's plan() failed on %s without saying why", k->op, k->device);
    }
    free(copies);
    free(in);
    return !tdi_failed();
}

static bool choose_fresh(const tdi_chain *chain, const td_kargs *q, tdi_choice *c)
{
    for (uint32_t i = 0; i < chain->n; i++) {
        const td_kernel *k = &chain->k[i]->t;
        if (!(k->dtypes & TD_BIT(q->compute))) continue;
        if (!ask(k, q, c)) return false;
        if (c->kernel) return true;
    }
    return true;
}

bool tdi_choose(td_context *ctx, tdi_op *op, td_device *dev, const td_kargs *q, tdi_choice *c)
{
    *c = (tdi_choice){NULL, NULL, 0, NULL};
    if (!atomic_load_explicit(&op->overlays_sought[dev->be->id], memory_order_acquire)) tdi_seek_overlays(op, dev->be);
    const tdi_chain *chain = atomic_load_explicit(&op->chain[dev->be->id], memory_order_acquire);
    if (tdi_failed()) return false;
    if (!chain) return true;
    for (uint32_t i = 0; i < chain->n; i++) { /* most kernels have no questions: nothing to remember */
        const td_kernel *k = &chain->k[i]->t;
        if (!(k->dtypes & TD_BIT(q->compute))) continue;
        if (k->accepts || k->plan) break;
        c->kernel = k;
        return true;
    }
    for (uint32_t i = 0; i < q->n_out; i++)
        tdi_dense_strides((td_view *)q->out[i]); /* what the questions see; not final */
    if (!ctx->plans && !(ctx->plans = calloc(1, sizeof *ctx->plans))) return td_fail_as(TD_ENOMEM, "out of memory");
    key k;
    make_key(&k, op, dev, chain, q);
    uint64_t hash = hash_of(&k);
    entry *e = k.full ? NULL : find(ctx->plans, &k, hash);
    if (e) {
        *c = e->choice;
        return true;
    }
    if (!choose_fresh(chain, q, c)) return false;
    /* A plan that cannot be kept would have to be freed by the caller: rather none. */
    if ((k.full || !insert(ctx->plans, &k, hash, c)) && c->plan) {
        if (c->kernel->plan_free) c->kernel->plan_free(c->plan);
        return td_fail_as(TD_ENOMEM, "%s: out of memory", op->t.name);
    }
    return true;
}

/* ---- attributes ---- */

static const td_opt *option(const td_opts *schema, uint32_t i)
{
    return (const td_opt *)((const char *)schema->v + (size_t)i * schema->stride);
}

bool tdi_attr_equal(const td_opts *schema, const void *a, const void *b)
{
    key x = {.n = 0}, y = {.n = 0};
    put_attr(&x, schema, a);
    put_attr(&y, schema, b);
    return x.n == y.n && !memcmp(x.w, y.w, x.n * sizeof *x.w);
}

void *tdi_attr_copy(const td_opts *schema, const void *attr)
{
    if (!attr || !schema->out_size) return NULL;
    char *copy = malloc(schema->out_size);
    if (!copy) return td_fail_as(TD_ENOMEM, "out of memory");
    memcpy(copy, attr, schema->out_size);
    for (uint32_t i = 0; i < schema->n; i++) {
        const td_opt *o = option(schema, i);
        if ((o->type & 0xff) != TD_O_STR) continue;
        char **s = (char **)(void *)(copy + o->off);
        if (*s && !(*s = strdup(*s))) td_fail_as(TD_ENOMEM, "out of memory");
    }
    return copy;
}

void tdi_attr_free(const td_opts *schema, void *copy)
{
    for (uint32_t i = 0; copy && i < schema->n; i++) {
        const td_opt *o = option(schema, i);
        if ((o->type & 0xff) == TD_O_STR) free(*(char **)(void *)((char *)copy + o->off));
    }
    free(copy);
}

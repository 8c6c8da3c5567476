/* registering.c - adding tables to the registry: each is checked and copied, and those of a plugin appear together, at the commit of
 * their batch, under the lock. Kernels whose op or backend is not there yet wait for it. */
#include "entries.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct tdi_batch {
    tdi_batch *outer;
    const tdi_plugin *from;
    tdi_entry *first, **last;
};

static uint32_t n_kernels;
static tdi_entry *waiting; /* kernels that lack their op or backend */
static tdi_batch *current;
static const tdi_plugin program = {.state = TDI_LOADED, .meta = {.name = "the program"}};

/* ---- adding ---- */

/* Name of the table, its size now, and the size of what the registry makes of it, which begins with the table. */
static const struct {
    const char *name;
    size_t size, whole;
} kinds[TDI_KINDS] = {
    [TD_ADD_OP] = {"td_op", sizeof(td_op), sizeof(tdi_op)},
    [TD_ADD_KERNEL] = {"td_kernel", sizeof(td_kernel), sizeof(tdi_kernel)},
    [TD_ADD_LAYOUT] = {"td_layout", sizeof(td_layout), sizeof(td_layout)},
    [TD_ADD_BACKEND] = {"td_backend", sizeof(td_backend), sizeof(tdi_backend)},
    [TD_ADD_LAYER] = {"td_layer", sizeof(td_layer), sizeof(tdi_layer)},
    [TD_ADD_OPTIM] = {"td_optim", sizeof(td_optim), sizeof(tdi_optim)},
};

/* The host's copy; what a shorter table lacks is zero. */
static void *copy_table(td_kind kind, const void *t)
{
    size_t size;
    if (!t) return td_fail_as(TD_EPLUGIN, "%s: there is no table (NULL)", kinds[kind].name);
    memcpy(&size, t, sizeof size);
    if (size > kinds[kind].size)
        return td_fail_as(
            TD_EPLUGIN,
            "%s: size: the plugin's has %zu bytes, this Tide knows %zu; the plugin was built with newer headers",
            kinds[kind].name, size, kinds[kind].size);
    if (size < 3 * sizeof(void *) || size % sizeof(void *))
        return td_fail_as(TD_EPLUGIN,
                          "%s: size: %zu is not the size of such a table (%zu); .size = sizeof(%s) is meant",
                          kinds[kind].name, size, kinds[kind].size, kinds[kind].name);
    void *copy = calloc(1, kinds[kind].whole);
    if (!copy) return td_fail_as(TD_ENOMEM, "out of memory");
    memcpy(copy, t, size);
    memcpy(copy, &kinds[kind].size, sizeof size);
    return copy;
}

/* doc is printed without a check, so it is never NULL. */
static void fill_doc(const char **doc)
{
    if (!*doc) *doc = "";
}

static bool check(tdi_entry *e)
{
    switch (e->kind) {
    case TD_ADD_OP:
        if (!e->is.op->t.in) e->is.op->t.in = "";
        if (!e->is.op->t.out) e->is.op->t.out = "";
        if (!tdi_check_op(&e->is.op->t, &e->is.op->in, &e->is.op->out)) return false;
        e->is.op->from = e->from;
        e->name = e->is.op->t.name;
        fill_doc(&e->is.op->t.doc);
        return true;
    case TD_ADD_KERNEL:
        if (!tdi_check_kernel(&e->is.kernel->t)) return false;
        e->is.kernel->from = e->from;
        e->name = e->is.kernel->t.op;
        return true;
    case TD_ADD_LAYOUT: e->name = e->is.layout->name; return tdi_check_layout(e->is.layout);
    case TD_ADD_BACKEND:
        e->name = e->is.backend->t.name;
        fill_doc(&e->is.backend->t.doc);
        return tdi_check_backend(&e->is.backend->t);
    case TD_ADD_LAYER:
        e->is.layer->from = e->from;
        e->name = e->is.layer->t.name;
        fill_doc(&e->is.layer->t.doc);
        return tdi_check_layer(&e->is.layer->t, &e->is.layer->in, &e->is.layer->out);
    case TD_ADD_OPTIM:
        e->is.optim->from = e->from;
        e->name = e->is.optim->t.name;
        fill_doc(&e->is.optim->t.doc);
        return tdi_check_optim(&e->is.optim->t);
    }
    return false;
}

/* Kernels may be several to an op; any other name only once. */
static bool check_new(const tdi_entry *e)
{
    if (e->kind == TD_ADD_KERNEL) return true;
    const tdi_entry *old = tdi_entry_find(e->kind, e->name);
    for (const tdi_batch *b = current; b && !old; b = b->outer)
        for (const tdi_entry *s = b->first; s && !old; s = s->next)
            if (s->kind == e->kind && !strcmp(s->name, e->name)) old = s;
    if (old)
        return td_fail_as(TD_EPLUGIN, "%s \"%s\": there is one already, from %s", tdi_kind_name(e), e->name,
                          tdi_plugin_name(old->from));
    return true;
}

static void drop_entry(tdi_entry *e)
{
    free(e->is.any);
    free(e);
}

static bool stage(tdi_batch *b, td_kind kind, const void *t)
{
    void *copy = copy_table(kind, t);
    tdi_entry *e = copy ? calloc(1, sizeof *e) : NULL;
    if (!e) {
        free(copy);
        return td_fail_as(TD_ENOMEM, "out of memory"); /* the first error stays where there is one */
    }
    e->kind = kind;
    e->from = b->from;
    e->is.any = copy;
    if (!check(e) || !check_new(e)) {
        drop_entry(e);
        return false;
    }
    *b->last = e;
    b->last = &e->next;
    return true;
}

bool tdi_add(td_kind kind, const void *t)
{
    if (tdi_failed()) return false;
    if ((uint32_t)kind >= TDI_KINDS) return td_fail_as(TD_EPLUGIN, "add: %u is no kind of table", (unsigned)kind);
    tdi_registry_lock();
    bool ok;
    if (current) {
        ok = stage(current, kind, t);
    } else { /* outside of a plugin's reg(): by the program that embeds Tide, at once */
        tdi_batch *b = tdi_batch_begin(tdi_own_ops ? NULL : &program);
        ok = b && stage(b, kind, t);
        if (ok) ok = tdi_batch_commit(b);
        else if (b) tdi_batch_drop(b);
    }
    tdi_registry_unlock();
    return ok;
}

/* ---- batches ---- */

tdi_batch *tdi_batch_begin(const tdi_plugin *from)
{
    tdi_batch *b = calloc(1, sizeof *b);
    if (!b) {
        td_fail_as(TD_ENOMEM, "out of memory");
        return NULL;
    }
    b->from = from;
    b->last = &b->first;
    b->outer = current;
    return current = b;
}

void tdi_batch_drop(tdi_batch *b)
{
    current = b->outer;
    for (tdi_entry *e = b->first, *next; e; e = next) {
        next = e->next;
        drop_entry(e);
    }
    free(b);
}

/* Best first: by priority, then the newest. */
static bool before(const tdi_kernel *a, const tdi_kernel *b)
{
    return a->t.priority != b->t.priority ? a->t.priority > b->t.priority : a->serial > b->serial;
}

static bool add_to_chain(_Atomic(tdi_chain *) *chain, const tdi_kernel *k)
{
    tdi_chain *old = atomic_load_explicit(chain, memory_order_relaxed);
    uint32_t n = old ? old->n : 0, at = 0;
    tdi_chain *c = malloc(sizeof *c + (n + 1) * sizeof *c->k);
    if (!c) return false;
    while (at < n && before(old->k[at], k)) at++;
    for (uint32_t i = 0; i <= n; i++) c->k[i] = i < at ? old->k[i] : i == at ? k : old->k[i - 1];
    c->n = n + 1;
    c->older = old;
    atomic_store_explicit(chain, c, memory_order_release);
    return true;
}

/* Kernels whose op and backend are there now take their places. */
static void settle(void)
{
    for (tdi_entry **at = &waiting; *at;) {
        tdi_entry *e = *at, *op = tdi_entry_find(TD_ADD_OP, e->is.kernel->t.op),
                  *be = tdi_entry_find(TD_ADD_BACKEND, e->is.kernel->t.device);
        tdi_entry *next = e->next;
        if (op && be && add_to_chain(&op->is.op->chain[be->is.backend->id], e->is.kernel)) *at = next;
        else at = &e->next;
    }
}

static void publish(tdi_entry *e)
{
    if (e->kind == TD_ADD_KERNEL) {
        e->is.kernel->serial = n_kernels++;
        e->next = waiting;
        waiting = e;
    } else if (e->kind == TD_ADD_BACKEND) {
        e->is.backend->id = tdi_n_backends++;
        atomic_store_explicit(&tdi_backends[e->is.backend->id], e->is.backend, memory_order_release);
    } else if (e->kind == TD_ADD_OP) {
        uint32_t id = atomic_load_explicit(&tdi_n_ops, memory_order_relaxed);
        e->is.op->id = id;
        atomic_store_explicit(&tdi_ops[id], e->is.op, memory_order_release);
        atomic_store_explicit(&tdi_n_ops, id + 1, memory_order_release);
    }
    _Atomic(tdi_entry *) *bucket = &tdi_table[e->kind][tdi_bucket_of(e->name)];
    e->bucket_next = atomic_load_explicit(bucket, memory_order_relaxed);
    atomic_store_explicit(bucket, e, memory_order_release);
}

static bool check_room(const tdi_batch *b)
{
    uint32_t ops = atomic_load_explicit(&tdi_n_ops, memory_order_relaxed), devices = tdi_n_backends;
    for (const tdi_entry *e = b->first; e; e = e->next) {
        ops += e->kind == TD_ADD_OP;
        devices += e->kind == TD_ADD_BACKEND;
    }
    if (ops > TDI_MAX_OPS) return td_fail_as(TD_EPLUGIN, "at most %d ops can be registered", TDI_MAX_OPS);
    if (devices > TDI_MAX_BACKENDS)
        return td_fail_as(TD_EPLUGIN, "at most %d tdi_backends can be registered", TDI_MAX_BACKENDS);
    return true;
}

/* ---- what registers is what was announced ---- */

static bool is_announced(const tdi_entry *e)
{
    char text[160];
    if (e->kind == TD_ADD_LAYOUT ||
        tdi_meta_announces(&e->from->meta, tdi_kind_name(e), tdi_announced_name(e, text, sizeof text)))
        return true;
    if (e->kind != TD_ADD_KERNEL) return false;
    snprintf(text, sizeof text, "*@%s", e->is.kernel->t.device);
    return tdi_meta_announces(&e->from->meta, "kernel", text);
}

static bool is_staged(const tdi_batch *b, const char *word, size_t n)
{
    char one[300], name[160];
    for (const tdi_entry *e = b->first; e; e = e->next) {
        snprintf(one, sizeof one, "%s:%s", tdi_kind_name(e), tdi_announced_name(e, name, sizeof name));
        if (strlen(one) == n && !memcmp(one, word, n)) return true;
    }
    return false;
}

static bool check_announced(const tdi_batch *b)
{
    char text[160];
    if (!b->from || b->from == &program) return true;
    for (const tdi_entry *e = b->first; e; e = e->next)
        if (!is_announced(e))
            return td_fail_as(TD_EPLUGIN, "it registers %s:%s, which its metadata does not announce (provides=%.200s)",
                              tdi_kind_name(e), tdi_announced_name(e, text, sizeof text), b->from->meta.provides);
    for (const char *w = b->from->meta.provides; *w;) {
        size_t n = strcspn(w, " ");
        bool any_kernel = !strncmp(w, "kernel:*@", 9);
        if (!any_kernel && !is_staged(b, w, n))
            return td_fail_as(TD_EPLUGIN, "it announces %.*s, but does not register it", (int)(n < 120 ? n : 120), w);
        w += n;
        w += *w == ' ';
    }
    return true;
}

bool tdi_batch_commit(tdi_batch *b)
{
    if (!check_announced(b) || !check_room(b)) {
        tdi_batch_drop(b);
        return false;
    }
    current = b->outer;
    for (tdi_entry *e = b->first, *next; e; e = next) {
        next = e->next;
        publish(e);
    }
    settle();
    free(b);
    return true;
}

/* registry.c - the tables: ops, kernels, layouts, layers, optimizers and backends by name. Entries appear at the commit of a
 * batch, under the lock, and never go, so readers need no lock. Kernels whose op or backend is not there yet wait for it. */
#include "loader.h"
#include "ops_rows.h"
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { BUCKETS = 512, KINDS = TD_ADD_OPTIM + 1 };

/* One table that was added: on a batch's list, then for ever in its kind's hash table. */
typedef struct entry {
    struct entry *next, *bucket_next;
    td_kind kind;
    const char *name;
    const tdi_plugin *from;
    union {
        void *any;
        tdi_op *op;
        tdi_kernel *kernel;
        td_layout *layout;
        tdi_backend *backend;
        tdi_layer *layer;
        tdi_optim *optim;
    } is;
} entry;

struct tdi_batch {
    tdi_batch *outer;
    const tdi_plugin *from;
    entry *first, **last;
};

_Atomic(tdi_op *) tdi_ops[TDI_MAX_OPS];
static atomic_uint n_ops;
static _Atomic(tdi_backend *) backends[TDI_MAX_BACKENDS];
static uint32_t n_backends, n_kernels;
static _Atomic(entry *) table[KINDS][BUCKETS];
static entry *waiting; /* kernels that lack their op or backend */
static tdi_batch *current;
static bool own_ops; /* while libtide's own are added */
static const tdi_plugin program = {.state = TDI_LOADED, .meta = {.name = "the program"}};

static pthread_mutex_t lock = PTHREAD_RECURSIVE_MUTEX_INITIALIZER_NP;

void tdi_registry_lock(void) { pthread_mutex_lock(&lock); }
void tdi_registry_unlock(void) { pthread_mutex_unlock(&lock); }

const char *tdi_plugin_name(const tdi_plugin *p) { return !p ? "libtide" : p->meta.name ? p->meta.name : p->path; }

/* ---- names ---- */

static uint32_t bucket_of(const char *name)
{
    uint32_t h = 2166136261u; /* FNV-1a */
    for (; *name; name++) h = (h ^ (unsigned char)*name) * 16777619u;
    return (h ^ h >> 16) % BUCKETS;
}

static entry *find(td_kind kind, const char *name)
{
    entry *e = atomic_load_explicit(&table[kind][bucket_of(name)], memory_order_acquire);
    while (e && strcmp(e->name, name)) e = e->bucket_next;
    return e;
}

static const char *kind_name(const entry *e)
{
    static const char *const name[] = {"op", "kernel", "layout", "backend", "layer", "optim"};
    return e->kind == TD_ADD_LAYER && e->is.layer->t.kind == TD_LOSS ? "loss" : name[e->kind];
}

/* As metadata announces it: "conv2d@cpu" for a kernel. */
static const char *announced_name(const entry *e, char *to, size_t room)
{
    if (e->kind != TD_ADD_KERNEL) return e->name;
    snprintf(to, room, "%s@%s", e->is.kernel->t.op, e->is.kernel->t.device);
    return to;
}

/* ---- adding ---- */

/* Name of the table, its size now, and the size of what the registry makes of it, which begins with the table. */
static const struct {
    const char *name;
    size_t size, whole;
} kinds[KINDS] = {
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

static bool check(entry *e)
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
static bool check_new(const entry *e)
{
    if (e->kind == TD_ADD_KERNEL) return true;
    const entry *old = find(e->kind, e->name);
    for (const tdi_batch *b = current; b && !old; b = b->outer)
        for (const entry *s = b->first; s && !old; s = s->next)
            if (s->kind == e->kind && !strcmp(s->name, e->name)) old = s;
    if (old)
        return td_fail_as(TD_EPLUGIN, "%s \"%s\": there is one already, from %s", kind_name(e), e->name,
                          tdi_plugin_name(old->from));
    return true;
}

static void drop_entry(entry *e)
{
    free(e->is.any);
    free(e);
}

static bool stage(tdi_batch *b, td_kind kind, const void *t)
{
    void *copy = copy_table(kind, t);
    entry *e = copy ? calloc(1, sizeof *e) : NULL;
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
    if ((uint32_t)kind >= KINDS) return td_fail_as(TD_EPLUGIN, "add: %u is no kind of table", (unsigned)kind);
    tdi_registry_lock();
    bool ok;
    if (current) {
        ok = stage(current, kind, t);
    } else { /* outside of a plugin's reg(): by the program that embeds Tide, at once */
        tdi_batch *b = tdi_batch_begin(own_ops ? NULL : &program);
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
    for (entry *e = b->first, *next; e; e = next) {
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
    for (entry **at = &waiting; *at;) {
        entry *e = *at, *op = find(TD_ADD_OP, e->is.kernel->t.op), *be = find(TD_ADD_BACKEND, e->is.kernel->t.device);
        entry *next = e->next;
        if (op && be && add_to_chain(&op->is.op->chain[be->is.backend->id], e->is.kernel)) *at = next;
        else at = &e->next;
    }
}

static void publish(entry *e)
{
    if (e->kind == TD_ADD_KERNEL) {
        e->is.kernel->serial = n_kernels++;
        e->next = waiting;
        waiting = e;
    } else if (e->kind == TD_ADD_BACKEND) {
        e->is.backend->id = n_backends++;
        atomic_store_explicit(&backends[e->is.backend->id], e->is.backend, memory_order_release);
    } else if (e->kind == TD_ADD_OP) {
        uint32_t id = atomic_load_explicit(&n_ops, memory_order_relaxed);
        e->is.op->id = id;
        atomic_store_explicit(&tdi_ops[id], e->is.op, memory_order_release);
        atomic_store_explicit(&n_ops, id + 1, memory_order_release);
    }
    _Atomic(entry *) *bucket = &table[e->kind][bucket_of(e->name)];
    e->bucket_next = atomic_load_explicit(bucket, memory_order_relaxed);
    atomic_store_explicit(bucket, e, memory_order_release);
}

static bool check_room(const tdi_batch *b)
{
    uint32_t ops = atomic_load_explicit(&n_ops, memory_order_relaxed), devices = n_backends;
    for (const entry *e = b->first; e; e = e->next) {
        ops += e->kind == TD_ADD_OP;
        devices += e->kind == TD_ADD_BACKEND;
    }
    if (ops > TDI_MAX_OPS) return td_fail_as(TD_EPLUGIN, "at most %d ops can be registered", TDI_MAX_OPS);
    if (devices > TDI_MAX_BACKENDS)
        return td_fail_as(TD_EPLUGIN, "at most %d backends can be registered", TDI_MAX_BACKENDS);
    return true;
}

/* ---- what registers is what was announced ---- */

static bool is_announced(const entry *e)
{
    char text[160];
    if (e->kind == TD_ADD_LAYOUT ||
        tdi_meta_announces(&e->from->meta, kind_name(e), announced_name(e, text, sizeof text)))
        return true;
    if (e->kind != TD_ADD_KERNEL) return false;
    snprintf(text, sizeof text, "*@%s", e->is.kernel->t.device);
    return tdi_meta_announces(&e->from->meta, "kernel", text);
}

static bool is_staged(const tdi_batch *b, const char *word, size_t n)
{
    char one[300], name[160];
    for (const entry *e = b->first; e; e = e->next) {
        snprintf(one, sizeof one, "%s:%s", kind_name(e), announced_name(e, name, sizeof name));
        if (strlen(one) == n && !memcmp(one, word, n)) return true;
    }
    return false;
}

static bool check_announced(const tdi_batch *b)
{
    char text[160];
    if (!b->from || b->from == &program) return true;
    for (const entry *e = b->first; e; e = e->next)
        if (!is_announced(e))
            return td_fail_as(TD_EPLUGIN, "it registers %s:%s, which its metadata does not announce (provides=%.200s)",
                              kind_name(e), announced_name(e, text, sizeof text), b->from->meta.provides);
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
    for (entry *e = b->first, *next; e; e = next) {
        next = e->next;
        publish(e);
    }
    settle();
    free(b);
    return true;
}

/* ---- lookups ---- */

/* An entry by name, after loading a plugin that announces it. */
static entry *find_or_load(td_kind kind, const char *word, const char *name)
{
    entry *e = name ? find(kind, name) : NULL;
    if (e || !name || tdi_failed()) return e;
    return tdi_provide(word, name) ? find(kind, name) : NULL;
}

tdi_op *tdi_op_find(const char *name)
{
    entry *e = find_or_load(TD_ADD_OP, "op", name);
    return e ? e->is.op : NULL;
}

const td_op *td_op_find(const char *name, uint32_t *id)
{
    tdi_ctx(); /* the first context brings libtide's own ops */
    tdi_op *op = tdi_op_find(name);
    if (op && id) *id = op->id;
    return op ? &op->t : NULL;
}

uint32_t td_op_count(void)
{
    tdi_ctx();
    return atomic_load_explicit(&n_ops, memory_order_acquire);
}

const td_op *td_op_get(uint32_t id)
{
    tdi_ctx();
    tdi_op *op = tdi_op_by_id(id);
    return op ? &op->t : NULL;
}

tdi_backend *tdi_backend_find(const char *kind)
{
    entry *e = find_or_load(TD_ADD_BACKEND, "backend", kind);
    return e ? e->is.backend : NULL;
}

tdi_backend *tdi_backend_by_id(uint32_t id)
{
    return id < TDI_MAX_BACKENDS ? atomic_load_explicit(&backends[id], memory_order_acquire) : NULL;
}

const td_layer *td_layer_find(const char *name)
{
    tdi_ctx();
    entry *e = find_or_load(TD_ADD_LAYER, "layer", name);
    if (!e) e = find_or_load(TD_ADD_LAYER, "loss", name);
    return e ? &e->is.layer->t : NULL;
}

const td_optim *td_optim_find(const char *name)
{
    tdi_ctx();
    entry *e = find_or_load(TD_ADD_OPTIM, "optim", name);
    return e ? &e->is.optim->t : NULL;
}

const tdi_layer *tdi_layer_of(const td_layer *t)
{
    entry *e = t && t->name ? find(TD_ADD_LAYER, t->name) : NULL;
    if (e && &e->is.layer->t == t) return e->is.layer;
    td_fail("layer \"%.63s\": is not the table that td_layer_find gives", t && t->name ? t->name : "");
    return NULL;
}

const tdi_optim *tdi_optim_of(const td_optim *t)
{
    entry *e = t && t->name ? find(TD_ADD_OPTIM, t->name) : NULL;
    if (e && &e->is.optim->t == t) return e->is.optim;
    td_fail("optimizer \"%.63s\": is not the table that td_optim_find gives", t && t->name ? t->name : "");
    return NULL;
}

void tdi_seek_overlays(tdi_op *op, tdi_backend *be)
{
    if (tdi_failed() || atomic_load_explicit(&op->overlays_sought[be->id], memory_order_acquire)) return;
    tdi_registry_lock();
    tdi_provide_overlays(op->t.name, be->t.name);
    atomic_store_explicit(&op->overlays_sought[be->id], true, memory_order_release);
    tdi_registry_unlock();
}

bool td_has_kernel(uint32_t id, const char *device_kind, td_dtype dt)
{
    tdi_op *op = tdi_op_by_id(id);
    tdi_backend *be = op && (uint32_t)dt < TD_N_DTYPES && !tdi_failed() ? tdi_backend_find(device_kind) : NULL;
    if (!be) return false;
    tdi_seek_overlays(op, be);
    const tdi_chain *c = atomic_load_explicit(&op->chain[be->id], memory_order_acquire);
    for (uint32_t i = 0; c && i < c->n; i++)
        if (c->k[i]->t.dtypes & TD_BIT(dt)) return true;
    return false;
}

/* ---- enumeration ---- */

typedef struct {
    const char *kind;
    void (*see)(void *arg, const char *name, const char *plugin);
    void *arg;
} enumeration;

static bool registered_as(const entry *e, const char *kind) { return !strcmp(kind_name(e), kind); }

/* Kernels of libtide's callers and of loaded plugins, one for each op, device and plugin in a row. */
static void see_kernels(const enumeration *q)
{
    char name[160];
    for (uint32_t id = 0; id < atomic_load(&n_ops); id++)
        for (uint32_t b = 0; b < n_backends; b++) {
            const tdi_chain *c = atomic_load(&tdi_ops[id]->chain[b]);
            for (uint32_t i = 0; c && i < c->n; i++) {
                if (i && c->k[i - 1]->from == c->k[i]->from) continue;
                snprintf(name, sizeof name, "%s@%s", c->k[i]->t.op, c->k[i]->t.device);
                q->see(q->arg, name, tdi_plugin_name(c->k[i]->from));
            }
        }
}

static void see_registered(const enumeration *q)
{
    for (int kind = 0; kind < KINDS; kind++)
        for (int b = 0; b < BUCKETS && kind != TD_ADD_KERNEL; b++)
            for (entry *e = atomic_load(&table[kind][b]); e; e = e->bucket_next)
                if (registered_as(e, q->kind)) q->see(q->arg, e->name, tdi_plugin_name(e->from));
}

typedef struct {
    const tdi_plugin *until;
    const char *kind, *name;
    bool found, past;
} earlier;

static void look_earlier(void *arg, const tdi_plugin *p)
{
    earlier *e = arg;
    e->past |= p == e->until;
    if (!e->past && p->state == TDI_FOUND && tdi_meta_announces(&p->meta, e->kind, e->name)) e->found = true;
}

static bool is_registered(const char *kind, const char *name)
{
    for (int k = 0; k < KINDS; k++) {
        entry *e = k == TD_ADD_KERNEL ? NULL : find((td_kind)k, name);
        if (e && registered_as(e, kind)) return true;
    }
    return false;
}

/* Names that are only announced: by the first plugin on the path that does. */
static void see_announced(void *arg, const tdi_plugin *p)
{
    const enumeration *q = arg;
    size_t nk = strlen(q->kind);
    if (p->state != TDI_FOUND) return;
    for (const char *w = p->meta.provides; *w;) {
        size_t n = strcspn(w, " ");
        if (n > nk + 1 && n - nk - 1 < 160 && !memcmp(w, q->kind, nk) && w[nk] == ':') {
            char name[160];
            memcpy(name, w + nk + 1, n - nk - 1);
            name[n - nk - 1] = 0;
            earlier e = {p, q->kind, name, is_registered(q->kind, name), false};
            tdi_each_known(look_earlier, &e);
            if (!e.found) q->see(q->arg, name, tdi_plugin_name(p));
        }
        w += n;
        w += *w == ' ';
    }
}

void td_each_provided(const char *kind, void (*see)(void *arg, const char *name, const char *plugin), void *arg)
{
    enumeration q = {.kind = kind, .see = see, .arg = arg};
    if (tdi_failed()) return;
    tdi_registry_lock();
    if (!strcmp(kind, "kernel")) see_kernels(&q);
    else see_registered(&q);
    tdi_each_known(see_announced, &q);
    tdi_registry_unlock();
}

/* ---- libtide's own ops ---- */

#define ROW(name) &tdi_op_##name,
static const td_op *const rows[] = {TDI_OPS(ROW)};

void tdi_registry_init(void)
{
    static bool done;
    bool ok = true;
    tdi_registry_lock();
    if (!done) {
        done = own_ops = true;
        for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
            const char *why;
            if (tdi_add(TD_ADD_OP, rows[i])) continue;
            td_error_take(&why);
            fprintf(stderr, "libtide: %s\n", why);
            ok = false;
        }
        own_ops = false;
    }
    tdi_registry_unlock();
    if (!ok) abort(); /* our own rows are wrong: no program can go on from there */
}

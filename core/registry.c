/* registry.c - the tables: ops, kernels, layouts, layers, optimizers and backends by name. Entries appear at the commit of a
 * batch (registering.c), under the lock, and never go, so readers need no lock. */
#include "entries.h"
#include "ops_rows.h"
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

_Atomic(tdi_op *) tdi_ops[TDI_MAX_OPS];
atomic_uint tdi_n_ops;
_Atomic(tdi_backend *) tdi_backends[TDI_MAX_BACKENDS];
uint32_t tdi_n_backends;
_Atomic(tdi_entry *) tdi_table[TDI_KINDS][TDI_BUCKETS];
bool tdi_own_ops;

static pthread_mutex_t lock = PTHREAD_RECURSIVE_MUTEX_INITIALIZER_NP;

void tdi_registry_lock(void) { pthread_mutex_lock(&lock); }
void tdi_registry_unlock(void) { pthread_mutex_unlock(&lock); }

const char *tdi_plugin_name(const tdi_plugin *p) { return !p ? "libtide" : p->meta.name ? p->meta.name : p->path; }

/* ---- names ---- */

uint32_t tdi_bucket_of(const char *name)
{
    uint32_t h = 2166136261u; /* FNV-1a */
    for (; *name; name++) h = (h ^ (unsigned char)*name) * 16777619u;
    return (h ^ h >> 16) % TDI_BUCKETS;
}

tdi_entry *tdi_entry_find(td_kind kind, const char *name)
{
    tdi_entry *e = atomic_load_explicit(&tdi_table[kind][tdi_bucket_of(name)], memory_order_acquire);
    while (e && strcmp(e->name, name)) e = e->bucket_next;
    return e;
}

const char *tdi_kind_name(const tdi_entry *e)
{
    static const char *const name[] = {"op", "kernel", "layout", "backend", "layer", "optim"};
    return e->kind == TD_ADD_LAYER && e->is.layer->t.kind == TD_LOSS ? "loss" : name[e->kind];
}

const char *tdi_announced_name(const tdi_entry *e, char *to, size_t room)
{
    if (e->kind != TD_ADD_KERNEL) return e->name;
    snprintf(to, room, "%s@%s", e->is.kernel->t.op, e->is.kernel->t.device);
    return to;
}

/* ---- lookups ---- */

/* An entry by name, after loading a plugin that announces it. */
static tdi_entry *find_or_load(td_kind kind, const char *word, const char *name)
{
    tdi_entry *e = name ? tdi_entry_find(kind, name) : NULL;
    if (e || !name || tdi_failed()) return e;
    return tdi_provide(word, name) ? tdi_entry_find(kind, name) : NULL;
}

tdi_op *tdi_op_find(const char *name)
{
    tdi_entry *e = find_or_load(TD_ADD_OP, "op", name);
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
    return atomic_load_explicit(&tdi_n_ops, memory_order_acquire);
}

const td_op *td_op_get(uint32_t id)
{
    tdi_ctx();
    tdi_op *op = tdi_op_by_id(id);
    return op ? &op->t : NULL;
}

tdi_backend *tdi_backend_find(const char *kind)
{
    tdi_entry *e = find_or_load(TD_ADD_BACKEND, "backend", kind);
    return e ? e->is.backend : NULL;
}

tdi_backend *tdi_backend_by_id(uint32_t id)
{
    return id < TDI_MAX_BACKENDS ? atomic_load_explicit(&tdi_backends[id], memory_order_acquire) : NULL;
}

const td_layer *td_layer_find(const char *name)
{
    tdi_ctx();
    tdi_entry *e = find_or_load(TD_ADD_LAYER, "layer", name);
    if (!e) e = find_or_load(TD_ADD_LAYER, "loss", name);
    return e ? &e->is.layer->t : NULL;
}

const td_optim *td_optim_find(const char *name)
{
    tdi_ctx();
    tdi_entry *e = find_or_load(TD_ADD_OPTIM, "optim", name);
    return e ? &e->is.optim->t : NULL;
}

const tdi_layer *tdi_layer_of(const td_layer *t)
{
    tdi_entry *e = t && t->name ? tdi_entry_find(TD_ADD_LAYER, t->name) : NULL;
    if (e && &e->is.layer->t == t) return e->is.layer;
    td_fail("layer \"%.63s\": is not the table that td_layer_find gives", t && t->name ? t->name : "");
    return NULL;
}

const tdi_optim *tdi_optim_of(const td_optim *t)
{
    tdi_entry *e = t && t->name ? tdi_entry_find(TD_ADD_OPTIM, t->name) : NULL;
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

/* ---- libtide's own ops ---- */

#define ROW(name) &tdi_op_##name,
static const td_op *const rows[] = {TDI_OPS(ROW)};

void tdi_registry_init(void)
{
    static bool done;
    bool ok = true;
    tdi_registry_lock();
    if (!done) {
        done = tdi_own_ops = true;
        for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
            const char *why;
            if (tdi_add(TD_ADD_OP, rows[i])) continue;
            td_error_take(&why);
            fprintf(stderr, "libtide: %s\n", why);
            ok = false;
        }
        tdi_own_ops = false;
    }
    tdi_registry_unlock();
    if (!ok) abort(); /* our own rows are wrong: no program can go on from there */
}

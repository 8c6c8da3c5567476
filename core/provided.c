/* provided.c - lists what there is by kind: registered, or announced by a plugin on the path. */
#include "entries.h"
#include <stdio.h>
#include <string.h>

typedef struct {
    const char *kind;
    void (*see)(void *arg, const char *name, const char *plugin);
    void *arg;
} enumeration;

static bool registered_as(const tdi_entry *e, const char *kind) { return !strcmp(tdi_kind_name(e), kind); }

/* Kernels of libtide's callers and of loaded plugins, one for each op, device and plugin in a row. */
static void see_kernels(const enumeration *q)
{
    char name[160];
    for (uint32_t id = 0; id < atomic_load(&tdi_n_ops); id++)
        for (uint32_t b = 0; b < tdi_n_backends; b++) {
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
    for (int kind = 0; kind < TDI_KINDS; kind++)
        for (int b = 0; b < TDI_BUCKETS && kind != TD_ADD_KERNEL; b++)
            for (tdi_entry *e = atomic_load(&tdi_table[kind][b]); e; e = e->bucket_next)
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
    for (int k = 0; k < TDI_KINDS; k++) {
        tdi_entry *e = k == TD_ADD_KERNEL ? NULL : tdi_entry_find((td_kind)k, name);
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

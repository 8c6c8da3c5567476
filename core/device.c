/* device.c - devices by name: parsed, opened once, kept for the life of the process. */
#include "device.h"
#include "registry.h"
#include "trace.h"
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { KIND = 24, MAX_OPEN = TDI_MAX_BACKENDS * TDI_MAX_ORDINALS };

/* Appended under the lock, read without. */
static pthread_mutex_t opening = PTHREAD_MUTEX_INITIALIZER;
static td_device *open_device[MAX_OPEN];
static atomic_uint n_open;

td_device *tdi_device_open_at(uint32_t i)
{
    return i < atomic_load_explicit(&n_open, memory_order_acquire) ? open_device[i] : NULL;
}

/* ---- names ---- */

/* "cuda:1" to kind and ordinal, which is 0 where none is given. */
static bool parse(const char *name, char kind[KIND], int *ordinal)
{
    size_t n = strcspn(name, ":");
    const char *digits = name + n;
    *ordinal = 0;
    bool ok = n > 0 && n < KIND;
    if (ok && *digits == ':') {
        ok = *++digits != 0;
        for (; ok && *digits; digits++) {
            ok = *digits >= '0' && *digits <= '9' && *ordinal < 10000;
            *ordinal = *ordinal * 10 + (*digits - '0');
        }
    }
    if (!ok) return td_fail("device \"%.64s\": expected a name such as \"cpu\" or \"cuda:0\"", name);
    memcpy(kind, name, n);
    kind[n] = 0;
    return true;
}

typedef struct {
    uint32_t n;
    char name[32][KIND];
} kinds;

static void see_kind(void *arg, const char *name, const char *plugin)
{
    kinds *k = arg;
    (void)plugin;
    for (uint32_t i = 0; i < k->n; i++)
        if (!strcmp(k->name[i], name)) return;
    if (k->n < 32) snprintf(k->name[k->n++], KIND, "%s", name);
}

static tdi_backend *unknown(const char *name)
{
    kinds k = {.n = 0};
    char text[256] = "none";
    td_each_provided("backend", see_kind, &k);
    for (uint32_t i = 0, at = 0; i < k.n && at < sizeof text; i++)
        at += (uint32_t)snprintf(text + at, sizeof text - at, "%s%s", i ? ", " : "", k.name[i]);
    td_fail_as(TD_EDEVICE, "device \"%s\": no backend provides it; there are: %s", name, text);
    return NULL;
}

/* ---- opening ---- */

static int device_count(const tdi_backend *be) { return be->t.count ? be->t.count() : 1; }

/* Whether the backend runs on this machine and has that device. Its own reason, if it gives one, ends the message. */
static bool usable(const tdi_backend *be, const char *name, int ordinal)
{
    int score = be->t.score ? be->t.score() : 1;
    if (score <= 0 && !tdi_failed()) td_fail_as(TD_EDEVICE, "its backend does not run on this machine");
    int n = tdi_failed() ? 0 : device_count(be);
    if (n <= 0 && !tdi_failed()) td_fail_as(TD_EDEVICE, "this machine has no %s device", be->t.name);
    if (!tdi_failed() && ordinal >= n)
        td_fail_as(TD_EDEVICE, n == 1 ? "there is only \"%s:0\"" : "there are \"%s:0\" to \"%s:%d\"", be->t.name,
                   be->t.name, n - 1);
    if (!tdi_failed() && ordinal >= TDI_MAX_ORDINALS)
        td_fail_as(TD_EDEVICE, "at most %d devices of a kind can be used", TDI_MAX_ORDINALS);
    tdi_error_prefix("device \"%s\": ", name);
    return !tdi_failed();
}

static void *default_options(const tdi_backend *be, bool *ok)
{
    if (!be->t.opts.out_size) return NULL;
    void *o = calloc(1, be->t.opts.out_size);
    if (!o) td_fail_as(TD_ENOMEM, "out of memory");
    *ok = o && td_options_fill(&be->t.opts, be->t.name, &(td_args){NULL, 0, NULL, 0}, o);
    return o;
}

static bool open_handle(td_device *d)
{
    const td_backend *t = &d->be->t;
    bool ok = true;
    void *opts = default_options(d->be, &ok);
    ok = ok && (!t->open || t->open(d->ordinal, opts, &d->handle)) && !tdi_failed();
    if (opts) td_options_clear(&t->opts, opts);
    free(opts);
    return ok;
}

static bool describe(td_device *d)
{
    td_props p = {.size = sizeof p, .ordinal = d->ordinal};
    if (d->be->t.props && (!d->be->t.props(d->handle, &p) || tdi_failed())) return false;
    d->unified = p.unified;
    d->async = p.async;
    d->dtypes = p.dtypes;
    d->mem_total = p.mem_total;
    /* The host itself needs no number. */
    if (d->unified && !d->async && device_count(d->be) == 1) snprintf(d->name, sizeof d->name, "%s", d->be->t.name);
    else snprintf(d->name, sizeof d->name, "%.20s:%d", d->be->t.name, d->ordinal);
    return true;
}

static td_device *open_now(tdi_backend *be, int ordinal)
{
    td_device *d = calloc(1, sizeof *d);
    if (!d) {
        td_fail_as(TD_ENOMEM, "out of memory");
        return NULL;
    }
    d->be = be;
    d->ordinal = ordinal;
    if (open_handle(d)) {
        if (describe(d) && (!be->t.stream_new || be->t.stream_new(d->handle, &d->stream)) && !tdi_failed()) {
            if ((d->pool = tdi_pool_new())) return d;
            td_fail_as(TD_ENOMEM, "out of memory");
            if (be->t.stream_free) be->t.stream_free(d->handle, d->stream);
        }
        if (be->t.close) be->t.close(d->handle);
    }
    free(d);
    return NULL;
}

static td_device *device_of(tdi_backend *be, const char *name, int ordinal)
{
    if (!usable(be, name, ordinal)) return NULL;
    pthread_mutex_lock(&opening);
    td_device *d = be->dev[ordinal];
    if (!d && (d = open_now(be, ordinal))) {
        unsigned n = atomic_load_explicit(&n_open, memory_order_relaxed);
        open_device[n] = be->dev[ordinal] = d;
        atomic_store_explicit(&n_open, n + 1, memory_order_release);
    }
    pthread_mutex_unlock(&opening);
    if (d) return d;
    if (!tdi_failed()) td_fail_as(TD_EPLUGIN, "its backend could not open it and did not say why");
    tdi_error_prefix("device \"%s\": ", name);
    return NULL;
}

static td_device *find_open(const char *name)
{
    td_device *d;
    for (uint32_t i = 0; (d = tdi_device_open_at(i)); i++)
        if (!strcmp(d->name, name) || (d->ordinal == 0 && !strcmp(d->be->t.name, name))) return d;
    return NULL;
}

td_device *tdi_device(const char *name)
{
    char kind[KIND];
    int ordinal;
    if (!name) return tdi_device_default(tdi_ctx());
    td_device *d = find_open(name);
    if (d) return d;
    if (tdi_failed() || !parse(name, kind, &ordinal)) return NULL;
    tdi_backend *be = tdi_backend_find(kind);
    if (!be && tdi_failed()) tdi_error_prefix("device \"%s\": ", name);
    if (!be && !tdi_failed()) be = unknown(name);
    return be ? device_of(be, name, ordinal) : NULL;
}

td_device *tdi_device_default(td_context *c)
{
    if (!c->device) c->device = tdi_device("cpu");
    return c->device;
}

/* ---- waiting and copying ---- */

bool tdi_device_sync(td_device *d)
{
    const td_backend *t = &d->be->t;
    if (!t->stream_sync) return true;
    if (t->stream_sync(d->handle, d->stream) && !tdi_failed()) return true;
    return tdi_failed() ? false : td_fail_as(TD_EPLUGIN, "%s: waiting for it failed without saying why", d->name);
}

static bool copy(td_device *d, void *to, const void *from, size_t bytes, td_copy_kind kind)
{
    const td_backend *t = &d->be->t;
    if (bytes == 0) return true;
    if (d->unified) {
        if (d->async && !tdi_device_sync(d)) return false;
        memcpy(to, from, bytes);
        return true;
    }
    if (t->copy(d->handle, d->stream, to, from, bytes, kind) && !tdi_failed()) return tdi_device_sync(d);
    return tdi_failed() ? false : td_fail_as(TD_EPLUGIN, "%s: a copy failed without saying why", d->name);
}

bool tdi_copy_from_host(td_device *d, void *to, const void *host, size_t bytes)
{
    return copy(d, to, host, bytes, TD_H2D);
}
bool tdi_copy_to_host(td_device *d, void *host, const void *from, size_t bytes)
{
    return copy(d, host, from, bytes, TD_D2H);
}

bool td_synchronize(const char *device)
{
    td_device *d = tdi_failed() ? NULL : tdi_device(device);
    return d && tdi_device_sync(d);
}

/* ---- what there is ---- */

typedef void see_fn(void *arg, const char *device, const td_props *, const char *why);

static void see_failure(see_fn *see, void *arg, const char *name)
{
    const char *why;
    td_error_take(&why);
    see(arg, name, NULL, *why ? why : "its backend cannot be used");
}

static void see_device(see_fn *see, void *arg, tdi_backend *be, const char *name, int ordinal)
{
    td_device *d = device_of(be, name, ordinal);
    td_props p = {.size = sizeof p, .ordinal = ordinal};
    if (d && (!d->be->t.props || d->be->t.props(d->handle, &p)) && !tdi_failed()) see(arg, d->name, &p, NULL);
    else see_failure(see, arg, name);
}

void td_each_device(see_fn *see, void *arg)
{
    kinds k = {.n = 0};
    if (tdi_failed()) return;
    td_each_provided("backend", see_kind, &k);
    for (uint32_t i = 0; i < k.n; i++) {
        tdi_backend *be = tdi_backend_find(k.name[i]);
        if (!be || !usable(be, k.name[i], 0)) {
            see_failure(see, arg, k.name[i]);
            continue;
        }
        int n = device_count(be);
        for (int o = 0; o < n && o < TDI_MAX_ORDINALS; o++) {
            char name[32];
            snprintf(name, sizeof name, "%s:%d", k.name[i], o);
            see_device(see, arg, be, name, o);
        }
    }
}

atomic_int tdi_thread_count;

int td_threads(int n)
{
    if (tdi_failed()) return 0;
    td_device *host = tdi_device("cpu");
    if (!host) return 0;
    const td_backend *t = &host->be->t;
    const td_ext_threads *ext = t->extension ? t->extension("threads.v1") : NULL;
    if (!ext) return 1;
    if (n > 0) tdi_data_changed(); /* plans that captured calls hold are for the old number */
    int now = ext->threads(n);
    if (n >= 1) atomic_store_explicit(&tdi_thread_count, now, memory_order_relaxed);
    return now;
}

/* plugin.c - plugin files: found on the search path at the first unknown name, read as data, then opened, checked and registered. */
#include "loader.h"
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* All under the registry's lock. */
static tdi_plugin *first, **last = &first;
static bool scanned;

/* ---- finding ---- */

/* Sets why from a sentence and the state with it. */
static void set_refused(tdi_plugin *p, const char *why)
{
    free(p->why);
    p->why = strdup(why);
    p->state = TDI_REFUSED;
}

static tdi_plugin *append(const char *path)
{
    tdi_plugin *p = calloc(1, sizeof *p);
    if (p && !(p->path = strdup(path))) {
        free(p);
        p = NULL;
    }
    if (!p) {
        td_fail_as(TD_ENOMEM, "plugin %s: out of memory", path);
        return NULL;
    }
    *last = p;
    last = &p->next;
    return p;
}

static void read_metadata(tdi_plugin *p, int fd)
{
    char why[512];
    tdi_meta_free(&p->meta);
    if (tdi_elf_read_file(fd, &p->meta, why, sizeof why)) p->state = TDI_FOUND;
    else set_refused(p, why);
}

/* The record of a file, made at its first sight. again: one that was never opened is read once more, for it may have changed. */
static tdi_plugin *know(const char *path, bool again)
{
    char real[PATH_MAX];
    struct stat st;
    int fd = realpath(path, real) ? open(real, O_RDONLY | O_CLOEXEC | O_NONBLOCK) : -1;
    if (fd < 0 || fstat(fd, &st)) {
        td_fail_as(TD_EPLUGIN, "plugin %s: %s", path, strerror(errno));
        if (fd >= 0) close(fd);
        return NULL;
    }
    tdi_plugin *p = first;
    while (p && (p->dev != st.st_dev || p->ino != st.st_ino || strcmp(p->path, real))) p = p->next;
    for (tdi_plugin *same = first; !p && same; same = same->next)
        if (same->dev == st.st_dev && same->ino == st.st_ino && same->desc)
            p = same; /* another name of a file that is open */
    if (!p && (p = append(real))) {
        p->dev = st.st_dev;
        p->ino = st.st_ino;
        read_metadata(p, fd);
    } else if (p && again && !p->desc && p->state != TDI_LOADING) {
        read_metadata(p, fd);
    }
    close(fd);
    return p;
}

static int is_plugin_name(const struct dirent *d)
{
    size_t n = strlen(d->d_name);
    return n > 3 && !strcmp(d->d_name + n - 3, ".so");
}

static void scan_dir(const char *dir)
{
    struct dirent **found;
    const char *why = tdi_path_refusal(dir);
    if (why) {
        tdi_plugin *p = append(dir);
        if (p) set_refused(p, why);
        return;
    }
    int n = scandir(dir, &found, is_plugin_name, alphasort);
    for (int i = 0; i < n; i++) {
        char path[PATH_MAX];
        if (snprintf(path, sizeof path, "%s/%s", dir, found[i]->d_name) < (int)sizeof path && !know(path, false))
            td_error_take(NULL); /* gone since, or a broken link: it provides nothing */
        free(found[i]);
    }
    if (n >= 0) free(found);
}

static void scan(void)
{
    tdi_path path;
    if (scanned) return;
    scanned = true;
    tdi_path_make(&path);
    for (uint32_t i = 0; i < path.n; i++) {
        scan_dir(path.dir[i]);
        free(path.dir[i]);
    }
}

/* ---- opening ---- */

static bool check_desc(const td_plugin *d)
{
    if (d->magic != TD_PLUGIN_MAGIC)
        return td_fail_as(TD_EPLUGIN, "its descriptor begins with 0x%08x; expected 0x%08x, which TD_PLUGIN writes",
                          d->magic, TD_PLUGIN_MAGIC);
    if (d->abi_major != TD_ABI_MAJOR || d->abi_minor > TD_ABI_MINOR)
        return td_fail_as(TD_EPLUGIN, "its descriptor says plugin ABI %u.%u; this Tide has " TD_ABI_TEXT, d->abi_major,
                          d->abi_minor);
    if (d->size > sizeof *d || d->size < offsetof(td_plugin, shutdown))
        return td_fail_as(TD_EPLUGIN, "its descriptor has %u bytes; this Tide knows %zu", d->size, sizeof *d);
    if (d->opt_size != sizeof(td_opt))
        return td_fail_as(TD_EPLUGIN, "its td_opt has %u bytes, this Tide's %zu; the two must be equal", d->opt_size,
                          sizeof(td_opt));
    if (!d->host || !d->reg) return td_fail_as(TD_EPLUGIN, "its descriptor lacks host or reg, which TD_PLUGIN sets");
    return true;
}

static void run_shutdowns(void)
{
    for (tdi_plugin *p = first; p; p = p->next)
        if (p->state == TDI_LOADED && p->desc->size == sizeof *p->desc && p->desc->shutdown) p->desc->shutdown();
}

static void plan_shutdown(const td_plugin *d)
{
    static bool planned;
    if (planned || d->size < sizeof *d || !d->shutdown) return;
    planned = true;
    atexit(run_shutdowns);
}

/* The OpenMP library reads its environment when the first plugin that needs it is mapped, so the default must be set before.
 * Threads spin for about 20 us, then sleep: waking a sleeper costs 10 to 14 us, and training an MLP took 1.4 times as long with it.
 * Spinning for longer is worse than that: with the library's default a step took 100 times as long as soon as another process
 * was busy; with this one 1.2 times as long as with sleep alone. */
static void choose_wait_policy(void)
{
    static bool chosen;
    if (!chosen && !getenv("GOMP_SPINCOUNT") && !getenv("OMP_WAIT_POLICY")) {
        setenv("GOMP_SPINCOUNT", "1000", 0);
        setenv("OMP_WAIT_POLICY", "passive", 0);
    }
    chosen = true;
}

static bool open_file(tdi_plugin *p)
{
    choose_wait_policy();
    void *handle = dlopen(p->path, RTLD_NOW | RTLD_LOCAL);
    if (!handle) return td_fail_as(TD_EPLUGIN, "%s", dlerror());
    const td_plugin *d = dlsym(handle, "td_plugin_desc");
    if (!d) return td_fail_as(TD_EPLUGIN, "it has no symbol td_plugin_desc, which TD_PLUGIN makes");
    p->desc = d;
    return check_desc(d);
}

static bool run_reg(tdi_plugin *p)
{
    tdi_batch *b = tdi_batch_begin(p);
    if (!b) return false;
    *p->desc->host = TD;
    bool ok = p->desc->reg();
    if (tdi_failed()) ok = false;
    else if (!ok) td_fail_as(TD_EPLUGIN, "its reg() failed without saying why");
    if (ok) return tdi_batch_commit(b);
    tdi_batch_drop(b);
    return false;
}

/* Opens and registers; a plugin that is refused keeps the reason and gives it again each time. */
static bool load(tdi_plugin *p)
{
    if (tdi_failed()) return false;
    if (p->state == TDI_LOADED) return true;
    if (p->state == TDI_LOADING)
        return td_fail_as(TD_EPLUGIN, "plugin %s is needed while it registers itself", tdi_plugin_name(p));
    if (p->state == TDI_REFUSED) {
        td_fail_as(TD_EPLUGIN, "%s", p->why ? p->why : "refused");
    } else {
        p->state = TDI_LOADING;
        if (open_file(p) && run_reg(p)) {
            p->state = TDI_LOADED;
            plan_shutdown(p->desc);
            return true;
        }
        set_refused(p, tdi_ctx()->msg);
    }
    if (p->meta.name) tdi_error_prefix("plugin %s (%s): ", p->meta.name, p->path);
    else tdi_error_prefix("plugin %s: ", p->path);
    return false;
}

bool td_plugin_load(const char *path)
{
    if (tdi_failed()) return false;
    if (!path || !*path) return td_fail_as(TD_EPLUGIN, "plugin: expected the path of a file");
    tdi_registry_lock();
    tdi_plugin *p = know(path, true);
    bool ok = p && load(p);
    tdi_registry_unlock();
    return ok;
}

bool tdi_provide(const char *kind, const char *name)
{
    char why[sizeof tdi_ctx()->msg] = "";
    bool ok = false;
    tdi_registry_lock();
    scan();
    for (tdi_plugin *p = first; p && !ok; p = p->next) {
        if (p->state == TDI_LOADED || p->state == TDI_LOADING || !tdi_meta_announces(&p->meta, kind, name)) continue;
        ok = load(p);
        const char *sentence;
        if (!ok && td_error_take(&sentence) && !*why) snprintf(why, sizeof why, "%s", sentence);
    }
    tdi_registry_unlock();
    if (!ok && *why) td_fail_as(TD_EPLUGIN, "%s", why);
    return ok;
}

void tdi_provide_overlays(const char *op, const char *device)
{
    char one[160], any[96];
    snprintf(one, sizeof one, "%s@%s", op, device);
    snprintf(any, sizeof any, "*@%s", device);
    scan();
    for (tdi_plugin *p = first; p; p = p->next) {
        if (p->state != TDI_FOUND || tdi_meta_announces(&p->meta, "backend", device)) continue;
        if (!tdi_meta_announces(&p->meta, "kernel", one) && !tdi_meta_announces(&p->meta, "kernel", any)) continue;
        if (!load(p)) td_error_take(NULL); /* other kernels do the work; td_each_plugin says why it was refused */
    }
}

/* ---- enumeration ---- */

void tdi_each_known(void (*see)(void *arg, const tdi_plugin *), void *arg)
{
    scan();
    for (tdi_plugin *p = first; p; p = p->next) see(arg, p);
}

static const char *text(const char *s) { return s ? s : ""; }

typedef struct {
    void (*see)(void *arg, const td_plugin_info *);
    void *arg;
} enumeration;

static void see_info(void *arg, const tdi_plugin *p)
{
    static const char *const state[] = {"found", "found", "loaded", "refused"};
    const enumeration *q = arg;
    td_plugin_info info = {p->path,
                           text(p->meta.name),
                           text(p->meta.version),
                           text(p->meta.licence),
                           text(p->meta.provides),
                           state[p->state],
                           p->state == TDI_REFUSED ? text(p->why) : NULL};
    q->see(q->arg, &info);
}

void td_each_plugin(void (*see)(void *arg, const td_plugin_info *), void *arg)
{
    enumeration q = {see, arg};
    if (tdi_failed()) return;
    tdi_registry_lock();
    tdi_each_known(see_info, &q);
    tdi_registry_unlock();
}

void td_each_plugin_dir(void (*see)(void *arg, const char *dir), void *arg)
{
    tdi_path path;
    tdi_path_make(&path);
    for (uint32_t i = 0; i < path.n; i++) {
        see(arg, path.dir[i]);
        free(path.dir[i]);
    }
}

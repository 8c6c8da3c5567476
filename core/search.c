/* search.c - where plugins lie: TIDE_PLUGIN_PATH, beside libtide (build tree: plugins/, installed: tide/plugins/), the user's directory. */
#include "loader.h"
#include <dlfcn.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

static void add_dir(tdi_path *p, const char *dir)
{
    char real[PATH_MAX];
    struct stat st;
    if (p->n == sizeof p->dir / sizeof *p->dir || !realpath(dir, real) || stat(real, &st) || !S_ISDIR(st.st_mode))
        return;
    for (uint32_t i = 0; i < p->n; i++)
        if (!strcmp(p->dir[i], real)) return;
    char *copy = strdup(real);
    if (copy) p->dir[p->n++] = copy;
}

static void add_list(tdi_path *p, const char *list)
{
    while (list && *list) {
        char dir[PATH_MAX];
        size_t n = strcspn(list, ":");
        if (n && n < sizeof dir) {
            memcpy(dir, list, n);
            dir[n] = 0;
            add_dir(p, dir);
        }
        list += n;
        list += *list == ':';
    }
}

/* The directory of the file that this function was loaded from: libtide, or a program that holds it. */
static void add_beside_libtide(tdi_path *p)
{
    Dl_info info;
    char self[PATH_MAX], dir[PATH_MAX + 16];
    if (!dladdr((const void *)(uintptr_t)add_beside_libtide, &info) || !info.dli_fname ||
        !realpath(info.dli_fname, self))
        return;
    char *slash = strrchr(self, '/');
    if (!slash) return;
    *slash = 0;
    snprintf(dir, sizeof dir, "%s/plugins", self);
    add_dir(p, dir);
    snprintf(dir, sizeof dir, "%s/tide/plugins", self);
    add_dir(p, dir);
}

static void add_user_dir(tdi_path *p)
{
    char dir[PATH_MAX];
    const char *data = secure_getenv("XDG_DATA_HOME"), *home = secure_getenv("HOME");
    int n = data && *data   ? snprintf(dir, sizeof dir, "%s/tide/plugins", data)
            : home && *home ? snprintf(dir, sizeof dir, "%s/.local/share/tide/plugins", home)
                            : 0;
    if (n > 0 && (size_t)n < sizeof dir) add_dir(p, dir);
}

void tdi_path_make(tdi_path *p)
{
    p->n = 0;
    add_list(p, secure_getenv("TIDE_PLUGIN_PATH"));
    add_beside_libtide(p);
    add_user_dir(p);
}

const char *tdi_path_refusal(const char *dir)
{
    struct stat st;
    const char *trust = secure_getenv("TIDE_ALLOW_WORLD_WRITABLE");
    if (stat(dir, &st)) return "cannot be read";
    if (st.st_mode & S_IWOTH && !(trust && !strcmp(trust, "1")))
        return "anybody may write in this directory, so its plugins are not trusted (TIDE_ALLOW_WORLD_WRITABLE=1 "
               "trusts them)";
    return NULL;
}

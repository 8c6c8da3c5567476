/* loader.h - between registry.c, which holds tables, and plugin.c, which brings them: transactions, plugins and their lock. */
#ifndef TIDE_LOADER_H
#define TIDE_LOADER_H
#include "metadata.h"
#include "registry.h"
#include <sys/types.h>

typedef enum { TDI_FOUND, TDI_LOADING, TDI_LOADED, TDI_REFUSED } tdi_plugin_state;

/** A plugin file, or (refused) a directory that was skipped. Never freed: entries point to it. */
struct tdi_plugin {
    struct tdi_plugin *next; /* in the order of the search path                             */
    char *path, *why;
    tdi_plugin_state state;
    dev_t dev;
    ino_t ino;
    tdi_meta meta;
    const td_plugin *desc;
};

/** One lock for registration and loading; the same thread may take it again. */
void tdi_registry_lock(void);
void tdi_registry_unlock(void);

/** "linear"; "libtide" for NULL. */
const char *tdi_plugin_name(const tdi_plugin *);

/* ---- transactions: what tdi_add is given between begin and commit appears at once, or not at all. Under the lock. ---- */

typedef struct tdi_batch tdi_batch;
tdi_batch *tdi_batch_begin(const tdi_plugin *); /* NULL after an error                          */
/** Publishes it; false after an error when it differs from what the plugin announces: then nothing of it is kept. */
bool tdi_batch_commit(tdi_batch *);
void tdi_batch_drop(tdi_batch *);

/* ---- loading ---- */

/** Loads what announces kind:name, best first, until one is in. false without an error: nothing announces it. */
bool tdi_provide(const char *kind, const char *name);
/** Loads overlays that announce kernel:OP@DEV or kernel:*@DEV. Those that are refused stay so, with a reason, and are no error. */
void tdi_provide_overlays(const char *op, const char *device);
/** Calls see for each plugin that is known after a scan of the path, under the lock. */
void tdi_each_known(void (*see)(void *arg, const tdi_plugin *), void *arg);

/* search.c: the search path */
typedef struct {
    char *dir[32];
    uint32_t n;
} tdi_path;
/** Directories on the path, in order; those that do not exist are left out. Free each dir. */
void tdi_path_make(tdi_path *);
/** NULL, or why plugins in the directory are not trusted. */
const char *tdi_path_refusal(const char *dir);

/* tables.c: checks of what is added; all false after an error that names table and field */
bool tdi_check_op(const td_op *, tdi_sig *in, tdi_sig *out);
bool tdi_check_kernel(const td_kernel *);
bool tdi_check_layout(const td_layout *);
bool tdi_check_backend(const td_backend *);
bool tdi_check_layer(td_layer *, tdi_sig *in, tdi_sig *out); /* fills in "x" and "y" */
bool tdi_check_optim(const td_optim *);

#endif

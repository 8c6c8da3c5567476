/* workers.h - threads that run a Lua module's function, each in a Lua state of its own. bind_workers.c is the script's side of it. */
#ifndef TIDE_LUA_WORKERS_H
#define TIDE_LUA_WORKERS_H
#include "parcel.h"
#include "ring.h"
#include <stdatomic.h>

/** A call of the function: its arguments, then its results or what kept it from being called. */
typedef struct {
    tdl_parcel in, out;
    char error[1000];
} tdl_task;

typedef struct tdl_workers {
    const void *kind;
    tdl_ring ring;
    tdl_task *task;                        /* as many as the ring has slots                                       */
    char *module, *path, *cpath;           /* module: require "tide" comes first, then require(module)(…)         */
    tdl_parcel config;                     /* what it is called with                                              */
    atomic_bool given_up, aborted;         /* results are wanted no more: stop between samples, or anywhere       */
    pthread_mutex_t lock;                  /* of what follows                                                     */
    lua_State *state[TDL_MAX_WORKERS + 1]; /* of each thread that has one                                         */
    struct tdl_workers *next;              /* of all that are open                                                */
} tdl_workers;

/** After module, path, cpath, config and task are set. */
void tdl_workers_open(tdl_workers *, int ahead, int n_threads);
/** Forgets what was submitted. false: not yet, for a worker has not come to rest within so many seconds (0: however long it takes). */
bool tdl_workers_rest(tdl_workers *, double seconds);
/** What is under way ends with an error at its next line of Lua. */
void tdl_workers_abort(tdl_workers *);
/** Ends the threads, without waiting for Lua code, and frees everything but the struct. */
void tdl_workers_close(tdl_workers *);

#endif

/* workers.c - see workers.h. A worker makes its Lua state when it gets its first task, and closes it when it ends; nobody else enters it.
 * Arguments and results are copied from state to state, but for tensors' memory. */
#include "workers.h"
#include <lualib.h>
#include <stdlib.h>

static const char function_key, task_key; /* of a worker's registry: the module's function, and do_task as a closure */

/* ---- all that are open: a process that ends must not pull libraries from under their threads ---- */

static pthread_mutex_t open_lock = PTHREAD_MUTEX_INITIALIZER;
static tdl_workers *open_ones;

static void stop_all(void)
{
    pthread_mutex_lock(&open_lock);
    for (tdl_workers *w = open_ones; w; w = w->next) tdl_workers_abort(w);
    for (tdl_workers *w = open_ones; w; w = w->next) tdl_ring_give_up(&w->ring, 1);
    pthread_mutex_unlock(&open_lock);
}

static void watch(tdl_workers *w)
{
    static bool registered;
    pthread_mutex_lock(&open_lock);
    if (!registered) registered = atexit(stop_all) == 0;
    w->next = open_ones;
    open_ones = w;
    pthread_mutex_unlock(&open_lock);
}

static void forget(tdl_workers *w)
{
    pthread_mutex_lock(&open_lock);
    for (tdl_workers **at = &open_ones; *at; at = &(*at)->next)
        if (*at == w) {
            *at = w->next;
            break;
        }
    pthread_mutex_unlock(&open_lock);
}

/* ---- in a worker's state ---- */

static int l_given_up(lua_State *L)
{
    const tdl_workers *w = (const tdl_workers *)lua_touserdata(L, lua_upvalueindex(1));
    lua_pushboolean(L, atomic_load_explicit(&w->given_up, memory_order_relaxed));
    return 1;
}

/* (workers, module's result): calls that with the configuration, and keeps the function that it returns. */
static int configure(lua_State *L)
{
    tdl_state *S = TDL_STATE(L);
    tdl_workers *w = (tdl_workers *)lua_touserdata(L, 1);
    tdl_parcel config = w->config; /* others read it, too */
    int n = tdl_parcel_unpack(L, S, &config, true);
    lua_pushlightuserdata(L, w);
    lua_pushcclosure(L, l_given_up, 1);
    lua_call(L, n + 1, 1);
    lua_rawsetp(L, LUA_REGISTRYINDEX, &function_key);
    return 0;
}

/* (task): calls the function. */
static int do_task(lua_State *L)
{
    tdl_state *S = TDL_STATE(L);
    tdl_task *t = (tdl_task *)lua_touserdata(L, 1);
    lua_rawgetp(L, LUA_REGISTRYINDEX, &function_key);
    lua_call(L, tdl_parcel_unpack(L, S, &t->in, true), LUA_MULTRET);
    tdl_parcel_pack(L, S, &t->out, 2, true);
    return 0;
}

/* (workers): opens what a script finds in its state. */
static int boot(lua_State *L)
{
    tdl_workers *w = (tdl_workers *)lua_touserdata(L, 1);
    luaL_openlibs(L);
    luaL_getsubtable(L, LUA_REGISTRYINDEX, LUA_PRELOAD_TABLE);
    lua_pushcfunction(L, luaopen_tide_core);
    lua_setfield(L, -2, "tide.core");
    lua_getglobal(L, "package");
    lua_pushstring(L, w->path);
    lua_setfield(L, -2, "path");
    lua_pushstring(L, w->cpath);
    lua_setfield(L, -2, "cpath");
    lua_getglobal(L, "require");
    lua_pushliteral(L, "tide");
    lua_call(L, 1, 0);
    tdl_state *S = tdl_state_find(L);
    if (!S) luaL_error(L, "another module than Tide was found as \"tide\"");
    if (w->ring.n_threads) {
        tdl_stay stay;
        tdl_enter(L, S, &stay);
        td_interrupt_ignore(true); /* Ctrl-C is for the script's thread */
        tdl_leave(S, &stay, true);
        S->deaf = true;
    }
    tdl_push_function(L, S, do_task);
    lua_rawsetp(L, LUA_REGISTRYINDEX, &task_key);
    tdl_push_function(L, S, configure);
    lua_pushlightuserdata(L, w);
    lua_getglobal(L, "require");
    lua_pushstring(L, w->module);
    lua_call(L, 1, 1);
    lua_call(L, 2, 0);
    return 0;
}

static void note(tdl_task *t, lua_State *L)
{
    const char *why = lua_tostring(L, -1);
    snprintf(t->error, sizeof t->error, "%s", why ? why : "an error without a message");
}

static void set_state(tdl_workers *w, lua_State *old, lua_State *new)
{
    int i = 0;
    pthread_mutex_lock(&w->lock);
    while (w->state[i] != old) i++;
    w->state[i] = new;
    pthread_mutex_unlock(&w->lock);
}

static lua_State *start(tdl_workers *w, tdl_task *t)
{
    lua_State *L = luaL_newstate();
    if (!L) {
        snprintf(t->error, sizeof t->error, "out of memory for a worker's Lua state");
        return NULL;
    }
    set_state(w, NULL, L);
    lua_pushcfunction(L, boot);
    lua_pushlightuserdata(L, w);
    if (lua_pcall(L, 1, 0, 0) == LUA_OK) return L;
    note(t, L);
    set_state(w, L, NULL);
    lua_close(L);
    return NULL;
}

/* Whether L may run, without the hook of an earlier abort. */
static bool may_run(tdl_workers *w, lua_State *L)
{
    pthread_mutex_lock(&w->lock);
    bool may = !atomic_load(&w->aborted);
    if (may && L) lua_sethook(L, NULL, 0, 0);
    pthread_mutex_unlock(&w->lock);
    return may;
}

static void run(void *owner, int slot, void **own)
{
    tdl_workers *w = (tdl_workers *)owner;
    tdl_task *t = &w->task[slot];
    lua_State *L = (lua_State *)*own;
    snprintf(t->error, sizeof t->error, "given up");
    if (!may_run(w, L)) return;
    t->error[0] = 0;
    if (!L && !(L = start(w, t))) return;
    *own = L;
    lua_rawgetp(L, LUA_REGISTRYINDEX, &task_key);
    lua_pushlightuserdata(L, t);
    if (lua_pcall(L, 1, 0, 0) != LUA_OK) note(t, L);
    lua_settop(L, 0);
}

static void end(void *owner, void *own)
{
    tdl_workers *w = (tdl_workers *)owner;
    set_state(w, (lua_State *)own, NULL);
    lua_sethook((lua_State *)own, NULL, 0, 0);
    lua_close((lua_State *)own);
}

/* ---- the script's side ---- */

void tdl_workers_open(tdl_workers *w, int ahead, int n_threads)
{
    static const tdl_work work = {run, end};
    pthread_mutex_init(&w->lock, NULL);
    tdl_ring_init(&w->ring, &work, w, ahead, n_threads);
    watch(w);
}

bool tdl_workers_rest(tdl_workers *w, double seconds)
{
    atomic_store(&w->given_up, true);
    if (!tdl_ring_give_up(&w->ring, seconds)) return false;
    for (int i = 0; i < w->ring.ahead; i++) {
        tdl_parcel_clear(&w->task[i].in);
        tdl_parcel_clear(&w->task[i].out);
    }
    atomic_store(&w->given_up, false);
    atomic_store(&w->aborted, false);
    return true;
}

static void give_up_here(lua_State *L, lua_Debug *ar)
{
    (void)ar;
    luaL_error(L, "given up");
}

void tdl_workers_abort(tdl_workers *w)
{
    atomic_store(&w->given_up, true);
    pthread_mutex_lock(&w->lock);
    atomic_store(&w->aborted, true);
    for (int i = 0; i <= TDL_MAX_WORKERS; i++) /* a hook may be set while its state runs, as signal handlers do */
        if (w->state[i])
            lua_sethook(w->state[i], give_up_here, LUA_MASKCALL | LUA_MASKRET | LUA_MASKLINE | LUA_MASKCOUNT, 1);
    pthread_mutex_unlock(&w->lock);
}

void tdl_workers_close(tdl_workers *w)
{
    if (w->ring.made) {
        forget(w);
        tdl_workers_abort(w);
        tdl_ring_close(&w->ring);
        pthread_mutex_destroy(&w->lock);
    }
    for (int i = 0; w->task && i < w->ring.ahead; i++) {
        tdl_parcel_free(&w->task[i].in);
        tdl_parcel_free(&w->task[i].out);
    }
    tdl_parcel_free(&w->config);
    free(w->task);
    free(w->module);
    free(w->path);
    free(w->cpath);
    w->task = NULL;
    w->module = w->path = w->cpath = NULL;
}

/* bind_workers.c - a Lua module's function on worker threads, each with a Lua state of its own.
 *
 *     local w <close> = core.workers("module", {threads = 2, ahead = 4}, ...)       -- require("module")(..., given_up) → function
 *     w:start()                          -- what was submitted before is forgotten
 *     w:submit(...)                      -- a call of the function; as many as `ahead` wait at a time
 *     local a, b = w:next()              -- what the oldest one returned
 *     w:stop() */
#include "workers.h"
#include <stdlib.h>

static const char workers_kind;
static const char *const META = "tide.core.Workers";
static const double MOMENT = 0.05; /* seconds between looks for Ctrl-C */

static tdl_workers *check_workers(lua_State *L)
{
    tdl_workers *w = (tdl_workers *)tdl_test(L, 1, &workers_kind, sizeof(tdl_workers));
    if (!w) tdl_error(L, "expected workers, got %s", tdl_what(L, 1));
    if (!w->ring.made) tdl_error(L, "the workers are closed");
    return w;
}

static int workers_gc(lua_State *L)
{
    tdl_workers *w = (tdl_workers *)tdl_test(L, 1, &workers_kind, sizeof(tdl_workers));
    if (w) tdl_workers_close(w);
    return 0;
}

static char *copy_string(lua_State *L, int at)
{
    const char *s = lua_tostring(L, at);
    char *copy = s ? strdup(s) : NULL;
    if (!copy) tdl_error(L, "workers: expected a string, or memory for its copy");
    return copy;
}

static int count_at(lua_State *L, const char *key, int least, int most)
{
    lua_getfield(L, 2, key);
    lua_Integer n = lua_isinteger(L, -1) ? lua_tointeger(L, -1) : -1;
    if (n < least || n > most)
        tdl_error(L, "workers: %s: expected an integer from %d to %d, got %s", key, least, most, tdl_what(L, -1));
    lua_pop(L, 1);
    return (int)n;
}

/* core.workers(module, {threads, ahead}, ...) */
static int l_workers(lua_State *L)
{
    tdl_state *S = TDL_STATE(L);
    if (lua_type(L, 1) != LUA_TSTRING) tdl_error(L, "workers: expected a module's name, got %s", tdl_what(L, 1));
    if (lua_type(L, 2) != LUA_TTABLE) tdl_error(L, "workers: expected a table of options, got %s", tdl_what(L, 2));
    int threads = count_at(L, "threads", 0, TDL_MAX_WORKERS), ahead = count_at(L, "ahead", 1, TDL_MAX_AHEAD);
    tdl_workers *w = (tdl_workers *)lua_newuserdatauv(L, sizeof *w, 0);
    memset(w, 0, sizeof *w);
    w->kind = &workers_kind;
    luaL_setmetatable(L, META);
    lua_replace(L, 2);
    tdl_parcel_pack(L, S, &w->config, 3, false);
    w->module = copy_string(L, 1);
    lua_getglobal(L, "package");
    lua_getfield(L, -1, "path");
    w->path = copy_string(L, -1);
    lua_getfield(L, -2, "cpath");
    w->cpath = copy_string(L, -1);
    w->ring.ahead = ahead;
    w->task = (tdl_task *)calloc((size_t)ahead, sizeof *w->task);
    if (!w->task) tdl_error(L, "workers: out of memory");
    tdl_workers_open(w, ahead, threads);
    lua_settop(L, 2);
    return 1;
}

/* ---- Ctrl-C, whose handler is ours or a stock interpreter's: that one sets a hook on the script's state ---- */

static bool interrupted(lua_State *L, lua_Hook before)
{
    return lua_gethook(L) != before || (!TDL_STATE(L)->deaf && td_interrupted());
}

static int nothing(lua_State *L)
{
    (void)L;
    return 0;
}

static void raise_interrupt(lua_State *L)
{
    lua_pushcfunction(L, nothing); /* a hook raises when a function is called */
    lua_call(L, 0, 0);
    tdl_error(L, "interrupted");
}

/* Waits until no worker does anything. Ctrl-C ends Lua code that goes on and on; false then. */
static bool rest(lua_State *L, tdl_workers *w)
{
    lua_Hook before = lua_gethook(L);
    bool stopped = false;
    while (!tdl_workers_rest(w, MOMENT)) {
        if (stopped || !interrupted(L, before)) continue;
        tdl_workers_abort(w);
        stopped = true;
    }
    return !stopped;
}

static int m_stop(lua_State *L)
{
    if (!rest(L, check_workers(L))) raise_interrupt(L);
    return 0;
}

static int m_start(lua_State *L)
{
    tdl_workers *w = check_workers(L);
    m_stop(L);
    if (!tdl_ring_start(&w->ring)) tdl_error(L, "no worker thread can be started");
    return 0;
}

static int m_submit(lua_State *L)
{
    tdl_workers *w = check_workers(L);
    if (tdl_ring_full(&w->ring)) tdl_error(L, "submit: %d calls wait already", w->ring.ahead);
    tdl_parcel_pack(L, TDL_STATE(L), &w->task[tdl_ring_next(&w->ring)].in, 2, false);
    tdl_ring_submit(&w->ring);
    return 0;
}

static int m_next(lua_State *L)
{
    tdl_state *S = TDL_STATE(L);
    tdl_workers *w = check_workers(L);
    lua_Hook before = lua_gethook(L);
    int slot;
    tdl_pay(L, S);
    w = check_workers(L);
    if (w->ring.given == w->ring.submitted) tdl_error(L, "next: no call was submitted");
    while ((slot = tdl_ring_wait(&w->ring, MOMENT)) < 0)
        if (interrupted(L, before)) {
            tdl_workers_abort(w);
            raise_interrupt(L);
        }
    tdl_task *t = &w->task[slot];
    tdl_parcel_clear(&t->in);
    if (t->error[0]) tdl_error(L, "a worker has failed: %s", t->error);
    int n = tdl_parcel_unpack(L, S, &t->out, false);
    tdl_parcel_clear(&t->out);
    return n;
}

void tdl_open_workers(lua_State *L, tdl_state *S)
{
    static const luaL_Reg methods[] = {{"start", m_start}, {"submit", m_submit},  {"next", m_next},
                                       {"stop", m_stop},   {"close", workers_gc}, {NULL, NULL}};
    static const luaL_Reg events[] = {{"__gc", workers_gc}, {"__close", workers_gc}, {NULL, NULL}};
    static const luaL_Reg functions[] = {{"workers", l_workers}, {NULL, NULL}};
    tdl_push_class(L, S, META, events, methods);
    lua_pop(L, 1);
    tdl_register(L, S, functions);
}

/* bind_capture.c - tide.capture(f): a callable that records what f does and replays it. Tensors among the arguments and results are
 * handed to the core; all other values become a key, bytes that are compared, and from which results are made again. */
#include "bind.h"
#include <stdlib.h>
#include <tide/capture.h>

static const char capture_kind;
static const char *const META = "tide.Capture";
enum { MAX_TENSORS = 64, FEW_BYTES = 256 };

typedef struct {
    const void *kind;
    td_capture *c;
    td_tensor *held[MAX_TENSORS]; /* results on their way to Lua: one reference each */
} capture;

/* Bytes that stand for values: a letter each, and what it needs. On the stack until they are many. */
typedef struct {
    char few[FEW_BYTES], *p;
    size_t n, cap;
    bool failed; /* out of memory: a key cut short would be equal to another */
} key;

static capture *check_capture(lua_State *L, int arg)
{
    capture *c = (capture *)tdl_test(L, arg, &capture_kind, sizeof(capture));
    if (tdl_unlikely(!c || !c->c)) tdl_error(L, "expected a capture, got %s", tdl_what(L, arg));
    return c;
}

static void release_held(capture *c)
{
    for (int i = 0; i < MAX_TENSORS && c->held[i]; i++) {
        td_release(c->held[i]);
        c->held[i] = NULL;
    }
}

static int capture_gc(lua_State *L)
{
    tdl_state *S = TDL_STATE(L);
    capture *c = (capture *)tdl_test(L, 1, &capture_kind, sizeof(capture));
    if (!c || !c->c || !S->ctx) return 0;
    tdl_stay stay;
    tdl_enter(L, S, &stay);
    release_held(c);
    td_capture_free(c->c);
    c->c = NULL;
    tdl_leave(S, &stay, true);
    return 0;
}

/* ---- keys ---- */

static void put(key *k, const void *bytes, size_t n)
{
    if (k->n + n > k->cap) {
        size_t cap = (k->n + n) * 2;
        char *p = (char *)malloc(cap);
        if (!p) {
            k->failed = true;
            return;
        }
        memcpy(p, k->p, k->n);
        if (k->p != k->few) free(k->p);
        k->p = p;
        k->cap = cap;
    }
    memcpy(k->p + k->n, bytes, n);
    k->n += n;
}

static void put_value(lua_State *L, key *k, int at)
{
    char letter = 'n';
    switch (lua_type(L, at)) {
    case LUA_TBOOLEAN: letter = lua_toboolean(L, at) ? 'y' : 'x'; break;
    case LUA_TNUMBER:
        if (lua_isinteger(L, at)) {
            lua_Integer i = lua_tointeger(L, at);
            put(k, "i", 1);
            put(k, &i, sizeof i);
        } else {
            lua_Number d = lua_tonumber(L, at);
            put(k, "d", 1);
            put(k, &d, sizeof d);
        }
        return;
    case LUA_TSTRING: {
        size_t n;
        const char *s = lua_tolstring(L, at, &n);
        put(k, "s", 1);
        put(k, &n, sizeof n);
        put(k, s, n);
        return;
    }
    default: break;
    }
    put(k, &letter, 1);
}

/* Values first..last: tensors to list, the rest to the key. Raises what can be neither, and frees the key then. */
static int read_values(lua_State *L, const char *what, int first, int last, td_tensor **list, key *k)
{
    int n = 0;
    k->p = k->few;
    k->n = 0;
    k->cap = sizeof k->few;
    k->failed = false;
    for (int i = first; i <= last; i++) {
        td_tensor *t = tdl_peek(L, i);
        int type = lua_type(L, i);
        if (t && n < MAX_TENSORS) {
            list[n++] = t;
            put(k, "t", 1);
        } else if (!t && type != LUA_TTABLE && type != LUA_TFUNCTION && type != LUA_TUSERDATA && type != LUA_TTHREAD) {
            put_value(L, k, i);
        } else {
            if (k->p != k->few) free(k->p);
            if (t) tdl_error(L, "capture: more than %d tensors as %ss", MAX_TENSORS, what);
            tdl_error(L, "capture: %s %d: expected a Tensor, a number, a string, a boolean or nil, got %s", what,
                      i - first + 1, tdl_what(L, i));
        }
    }
    if (k->failed) {
        if (k->p != k->few) free(k->p);
        tdl_error(L, "capture: out of memory");
    }
    return n;
}

static void key_free(key *k)
{
    if (k->p != k->few) free(k->p);
}

/* Pushes the results that a key stands for; tensors are taken from held. */
static int push_values(lua_State *L, tdl_state *S, capture *c, const char *p, size_t n)
{
    int count = 0, tensors = 0;
    luaL_checkstack(L, (int)(n < 250 ? n : 250) + 4, "capture");
    for (const char *end = p + n; p < end; count++) {
        lua_Integer i;
        lua_Number d;
        size_t len;
        switch (*p++) {
        case 't': tdl_push_tensor(L, S, c->held[tensors++], false); break;
        case 'y': lua_pushboolean(L, 1); break;
        case 'x': lua_pushboolean(L, 0); break;
        case 'i':
            memcpy(&i, p, sizeof i);
            p += sizeof i;
            lua_pushinteger(L, i);
            break;
        case 'd':
            memcpy(&d, p, sizeof d);
            p += sizeof d;
            lua_pushnumber(L, d);
            break;
        case 's':
            memcpy(&len, p, sizeof len);
            p += sizeof len;
            lua_pushlstring(L, p, len);
            p += len;
            break;
        default: lua_pushnil(L);
        }
    }
    release_held(c);
    return count;
}

/* ---- the call ---- */

/* Runs f(...), arguments at 2 .. top. Leaves its results above top and returns what lua_pcall did. */
static int call_function(lua_State *L, int top)
{
    luaL_checkstack(L, top + 4, "capture");
    lua_getiuservalue(L, 1, 1);
    for (int i = 2; i <= top; i++) lua_pushvalue(L, i);
    return lua_pcall(L, top - 1, LUA_MULTRET, 0);
}

static int record(lua_State *L, tdl_state *S, capture *c, int top)
{
    tdl_stay stay;
    td_tensor *results[MAX_TENSORS];
    key k;
    if (call_function(L, top) != LUA_OK) {
        tdl_enter(L, S, &stay);
        td_capture_abandon(c->c);
        tdl_leave(S, &stay, true);
        return lua_error(L);
    }
    lua_gc(L, LUA_GCCOLLECT); /* what only garbage holds does not stay */
    int last = lua_gettop(L);
    for (int i = top + 1; i <= last; i++) { /* so that read_values does not raise while a recording is open */
        int type = lua_type(L, i);
        bool fine = tdl_peek(L, i) || type <= LUA_TNUMBER || type == LUA_TSTRING;
        if (fine && type != LUA_TLIGHTUSERDATA && last - top <= MAX_TENSORS) continue;
        tdl_enter(L, S, &stay);
        td_capture_abandon(c->c);
        tdl_leave(S, &stay, true);
        break;
    }
    int n = read_values(L, "result", top + 1, last, results, &k);
    tdl_enter(L, S, &stay);
    bool ok = td_capture_end(c->c, results, (uint32_t)n, k.p, k.n);
    ok = tdl_leave(S, &stay, ok);
    key_free(&k);
    return ok ? last - top : tdl_throw(L, S);
}

static int capture_call(lua_State *L)
{
    tdl_state *S = TDL_STATE(L);
    capture *c = check_capture(L, 1);
    int top = lua_gettop(L);
    td_tensor *args[MAX_TENSORS];
    key k;
    tdl_pay(L, S);
    release_held(c);
    int n = read_values(L, "argument", 2, top, args, &k);
    td_call_mode mode;
    tdl_stay stay;
    tdl_enter(L, S, &stay);
    bool ok = td_capture_call(c->c, args, (uint32_t)n, k.p, k.n, &mode);
    uint32_t n_results = ok && mode == TD_CALL_REPLAYED ? td_capture_results(c->c) : 0;
    for (uint32_t i = 0; ok && i < n_results; i++) {
        td_tensor *t = td_capture_result(c->c, i);
        ok = t != NULL;
        if (ok) c->held[i] = td_keep(t);
    }
    ok = tdl_leave(S, &stay, ok);
    key_free(&k);
    if (!ok) {
        release_held(c);
        return tdl_throw(L, S);
    }
    if (mode == TD_CALL_REPLAYED) {
        size_t size;
        const char *made = (const char *)td_capture_result_key(c->c, &size);
        return push_values(L, S, c, made, size);
    }
    if (mode == TD_CALL_RECORD) return record(L, S, c, top);
    if (call_function(L, top) != LUA_OK) return lua_error(L);
    return lua_gettop(L) - top;
}

/* ---- making and asking ---- */

/* The table of options at 2; options that it lacks stay as they are. */
static void read_options(lua_State *L, bool *check, bool *recompute)
{
    if (lua_type(L, 2) != LUA_TTABLE) tdl_error(L, "capture: expected a table of options, got %s", tdl_what(L, 2));
    lua_pushnil(L);
    while (lua_next(L, 2)) {
        const char *name = lua_type(L, -2) == LUA_TSTRING ? lua_tostring(L, -2) : "";
        bool *to = !strcmp(name, "check") ? check : !strcmp(name, "recompute") ? recompute : NULL;
        if (!to) tdl_error(L, "capture: unknown option '%.40s': there are check and recompute", name);
        if (!lua_isboolean(L, -1)) tdl_error(L, "capture: %s: expected true or false, got %s", name, tdl_what(L, -1));
        *to = lua_toboolean(L, -1);
        lua_pop(L, 1);
    }
}

/* core.capture(f [, {check = true, recompute = false}]) */
static int l_capture(lua_State *L)
{
    tdl_state *S = TDL_STATE(L);
    lua_settop(L, 2);
    if (!lua_isfunction(L, 1) && luaL_getmetafield(L, 1, "__call") == LUA_TNIL)
        tdl_error(L, "capture: expected a function, got %s", tdl_what(L, 1));
    lua_settop(L, 2);
    bool check = false, recompute = true;
    if (!lua_isnil(L, 2)) read_options(L, &check, &recompute);
    capture *c = (capture *)lua_newuserdatauv(L, sizeof *c, 1);
    memset(c, 0, sizeof *c);
    c->kind = &capture_kind;
    luaL_setmetatable(L, META);
    lua_pushvalue(L, 1);
    lua_setiuservalue(L, -2, 1);
    tdl_stay stay;
    tdl_enter(L, S, &stay);
    c->c = td_capture_new();
    if (c->c && check) td_capture_check(c->c, true);
    if (c->c && !recompute) td_capture_recompute(c->c, false);
    if (!tdl_leave(S, &stay, c->c != NULL)) return tdl_throw(L, S);
    return 1;
}

static int m_reset(lua_State *L)
{
    tdl_state *S = TDL_STATE(L);
    capture *c = check_capture(L, 1);
    tdl_stay stay;
    tdl_enter(L, S, &stay);
    bool recording = td_capture_recording(); /* its context is current only inside the stay */
    if (!recording) td_capture_reset(c->c);
    tdl_leave(S, &stay, true);
    if (recording) tdl_error(L, "capture: reset while a captured function is being recorded");
    lua_settop(L, 1);
    return 1;
}

static void set_count(lua_State *L, const char *name, uint64_t n)
{
    lua_pushinteger(L, (lua_Integer)n);
    lua_setfield(L, -2, name);
}

/* c:stats() -> {calls =, replays =, …, why = "…"} */
static int m_stats(lua_State *L)
{
    const capture *c = check_capture(L, 1);
    td_capture_info i;
    td_capture_inform(c->c, &i);
    lua_createtable(L, 0, 13);
    set_count(L, "calls", i.calls);
    set_count(L, "replays", i.replays);
    set_count(L, "recordings", i.recordings);
    set_count(L, "programs", i.programs);
    set_count(L, "kernels", i.kernels);
    set_count(L, "dropped", i.dropped);
    set_count(L, "constant", i.constant);
    set_count(L, "tiled", i.tiled);
    set_count(L, "buffer_bytes", i.buffer_bytes);
    set_count(L, "eager_bytes", i.eager_bytes);
    set_count(L, "recomputed", i.recomputed);
    set_count(L, "saved_bytes", i.saved_bytes);
    lua_pushstring(L, i.why);
    lua_setfield(L, -2, "why");
    return 1;
}

/* c:kernels() -> {"relu f32 (64, 256) -> (64, 256)  at train.lua:12", …} */
static int m_kernels(lua_State *L)
{
    const capture *c = check_capture(L, 1);
    char text[1024];
    lua_newtable(L);
    for (uint32_t i = 0; td_capture_kernel(c->c, i, text, sizeof text); i++) {
        lua_pushstring(L, text);
        lua_rawseti(L, -2, (lua_Integer)i + 1);
    }
    return 1;
}

static int capture_tostring(lua_State *L)
{
    const capture *c = check_capture(L, 1);
    td_capture_info i;
    td_capture_inform(c->c, &i);
    lua_pushfstring(L, "capture: %I calls, %I replayed%s%s", (LUAI_UACINT)i.calls, (LUAI_UACINT)i.replays,
                    *i.why ? "; the last was not: " : "", i.why);
    return 1;
}

/* core.mode_changed(serial): a Lua module enters or leaves training mode */
static int l_mode_changed(lua_State *L)
{
    td_mode_changed((uint64_t)luaL_checkinteger(L, 1));
    return 0;
}

void tdl_open_capture(lua_State *L, tdl_state *S)
{
    static const luaL_Reg methods[] = {{"reset", m_reset}, {"stats", m_stats}, {"kernels", m_kernels}, {NULL, NULL}};
    static const luaL_Reg meta[] = {
        {"__gc", capture_gc}, {"__call", capture_call}, {"__tostring", capture_tostring}, {NULL, NULL}};
    static const luaL_Reg functions[] = {{"capture", l_capture}, {"mode_changed", l_mode_changed}, {NULL, NULL}};
    tdl_push_class(L, S, META, meta, methods);
    lua_pushliteral(L, "tide.Capture");
    lua_setfield(L, -2, "__name");
    lua_pop(L, 1);
    tdl_register(L, S, functions);
}

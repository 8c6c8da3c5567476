/* bind_state.c - the state of the binding: errors with the script's line, stays in the core, payments to the collector. */
#include "bind.h"
#include <limits.h>
#include <stdarg.h>

__thread lua_State *tdl_running;

static const char state_key; /* its address is the registry's key */

tdl_state *tdl_state_find(lua_State *L)
{
    lua_rawgetp(L, LUA_REGISTRYINDEX, &state_key);
    tdl_state *S = (tdl_state *)lua_touserdata(L, -1);
    lua_pop(L, 1);
    return S;
}

void tdl_push_function(lua_State *L, tdl_state *S, lua_CFunction f)
{
    lua_rawgeti(L, LUA_REGISTRYINDEX, S->tensor_mt);
    lua_pushlightuserdata(L, S);
    lua_pushcclosure(L, f, 2);
}

void tdl_register(lua_State *L, tdl_state *S, const luaL_Reg *f)
{
    for (; f->name; f++) {
        tdl_push_function(L, S, f->func);
        lua_setfield(L, -2, f->name);
    }
}

void tdl_push_class(lua_State *L, tdl_state *S, const char *name, const luaL_Reg *events, const luaL_Reg *methods)
{
    luaL_newmetatable(L, name);
    tdl_register(L, S, events);
    lua_newtable(L);
    tdl_register(L, S, methods);
    lua_setfield(L, -2, "__index");
}

/* ---- errors ---- */

static bool is_ours(const tdl_state *S, const char *source)
{
    return S && S->source_len && !strncmp(source, S->source, S->source_len);
}

/* The innermost Lua line outside Tide's own files; where there is none (a coroutine of ours), the innermost Lua line. */
static bool find_line(lua_State *L, lua_Debug *ar)
{
    const tdl_state *S = tdl_state_find(L);
    lua_Debug first;
    bool any = false;
    for (int level = 0; lua_getstack(L, level, ar); level++) {
        if (!lua_getinfo(L, "Sl", ar) || ar->currentline <= 0) continue;
        if (!is_ours(S, ar->source)) return true;
        if (!any) first = *ar;
        any = true;
    }
    if (any) *ar = first;
    return any;
}

void tdl_push_where(lua_State *L)
{
    lua_Debug ar;
    if (find_line(L, &ar)) lua_pushfstring(L, "%s:%d: ", ar.short_src, ar.currentline);
    else lua_pushliteral(L, "");
}

void tdl_where(lua_State *L, char *to, size_t room)
{
    lua_Debug ar;
    if (!room) return;
    *to = 0;
    if (lua_checkstack(L, 2) && find_line(L, &ar)) snprintf(to, room, "%s:%d", ar.short_src, ar.currentline);
}

int tdl_error(lua_State *L, const char *fmt, ...)
{
    char text[1600]; /* not lua_pushvfstring, which knows neither %zu nor a precision */
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    luaL_checkstack(L, 4, NULL);
    tdl_push_where(L);
    lua_pushstring(L, text);
    lua_concat(L, 2);
    lua_error(L);
    __builtin_unreachable(); /* lua.h does not say that lua_error never returns */
}

/* core.error(message): for Tide's Lua files, which report the line of the script that called them. */
static int l_error(lua_State *L)
{
    if (lua_type(L, 1) != LUA_TSTRING) {
        lua_settop(L, 1);
        return lua_error(L);
    }
    tdl_push_where(L);
    lua_pushvalue(L, 1);
    lua_concat(L, 2);
    return lua_error(L);
}

/* core.where() -> "script.lua:12: " or "" */
static int l_where(lua_State *L)
{
    tdl_push_where(L);
    return 1;
}

/* Good until the next call on this thread: nothing is put on the stack, for callers may go on. */
static const char *number_text(lua_State *L, int arg)
{
    static _Thread_local char text[48];
    if (lua_isinteger(L, arg)) snprintf(text, sizeof text, LUA_INTEGER_FMT, (LUAI_UACINT)lua_tointeger(L, arg));
    else snprintf(text, sizeof text, LUA_NUMBER_FMT, (LUAI_UACNUMBER)lua_tonumber(L, arg));
    return text;
}

const char *tdl_what(lua_State *L, int arg)
{
    tdl_slot *s;
    switch (lua_type(L, arg)) {
    case LUA_TNONE: return "nothing";
    case LUA_TNIL: return "nil";
    case LUA_TBOOLEAN: return "a boolean";
    case LUA_TNUMBER: return number_text(L, arg);
    case LUA_TSTRING: return "a string";
    case LUA_TTABLE: return "a table";
    case LUA_TFUNCTION: return "a function";
    case LUA_TTHREAD: return "a coroutine";
    case LUA_TUSERDATA:
        s = tdl_slot_at(L, arg);
        return !s ? "a userdata" : s->t ? "a Tensor" : "a Tensor that was freed";
    default: return "a userdata";
    }
}

void tdl_note_error(tdl_state *S)
{
    const char *msg = NULL;
    td_status st = td_error_take(&msg);
    if (st != TD_OK) snprintf(S->msg, sizeof S->msg, "%s", msg && *msg ? msg : "an error without a message");
    else if (!S->noted) snprintf(S->msg, sizeof S->msg, "the call failed without saying why");
    S->noted = true;
}

int tdl_throw(lua_State *L, tdl_state *S)
{
    S->noted = false;
    return tdl_error(L, "%s", S->msg);
}

void tdl_refuse(lua_State *L, tdl_state *S)
{
    if (!S->ctx) tdl_error(L, "tide: this Lua state is closing");
    tdl_error(L, "tide: this Lua state is in use by another thread");
    __builtin_unreachable();
}

/* ---- the collector ---- */

enum { CYCLE_AT_LEAST = 4 << 20, PAYMENTS = 16 };

/*
 * One cycle of Lua's collector for each T bytes of tensors made, T the greatest of 4 MB, half of what is held, and twice Lua's own
 * heap: so garbage stays in proportion to live tensors and mostly in cache, and a large heap is not walked too often. The
 * collector counts in its own heap's bytes (a cycle begins when that has doubled), so the debt is scaled by heap / T. Its own
 * settings keep their meaning.
 */
void tdl_pay_now(lua_State *L, tdl_state *S)
{
    double heap = (double)lua_gc(L, LUA_GCCOUNT) * 1024, cycle = CYCLE_AT_LEAST;
    if ((double)S->live / 2 > cycle) cycle = (double)S->live / 2;
    if (heap * 2 > cycle) cycle = heap * 2;
    double kb = heap * (double)S->debt / cycle / 1024;
    S->unswept += S->debt;
    S->debt = 0;
    S->due = (size_t)cycle / PAYMENTS;
    if (!lua_gc(L, LUA_GCISRUNNING)) return; /* stopped by the script, or a finalizer runs */
    lua_gc(L, LUA_GCSTEP, kb < 1 ? 1 : kb > 1e6 ? 1000000 : (int)kb);
}

/*
 * Backward begins with most memory in use, so what forward left to the collector goes before it: a full collection, which takes
 * about as long as making a tenth of such bytes of tensors. WORTH: bytes of tensors for each byte of Lua's heap.
 */
void tdl_sweep(lua_State *L, tdl_state *S)
{
    enum { WORTH = 8 };
    size_t made = S->unswept + S->debt, heap = (size_t)lua_gc(L, LUA_GCCOUNT) << 10;
    if (made < CYCLE_AT_LEAST / 4 || made < heap * WORTH || !lua_gc(L, LUA_GCISRUNNING)) return;
    lua_gc(L, LUA_GCCOLLECT);
    S->unswept = S->debt = 0;
}

static int collect_all(lua_State *L)
{
    lua_gc(L, LUA_GCCOLLECT);
    return 0;
}

/* The core's memory is short in mid-op: finalizers release tensors, and free() does nothing until the op is over. */
static void collect(void *arg)
{
    lua_State *L = tdl_running;
    (void)arg;
    if (!L || !lua_checkstack(L, 4)) return;
    lua_pushcfunction(L, collect_all);
    if (lua_pcall(L, 0, 0, 0) != LUA_OK) lua_pop(L, 1);
}

static void where(char *to, size_t room)
{
    lua_State *L = tdl_running;
    if (L) tdl_where(L, to, room);
    else if (room) *to = 0;
}

static int state_gc(lua_State *L)
{
    tdl_state *S = (tdl_state *)lua_touserdata(L, 1);
    td_context *ctx = S->ctx;
    S->ctx = NULL;
    if (tdl_freeing_state == S) tdl_freeing_state = NULL;
    if (ctx) td_context_free(ctx);
    return 0;
}

/* ---- the module ---- */

/* The directory of Tide's Lua files: that of the file which requires us, tide/init.lua or another of tide/. */
static void find_source(lua_State *L, tdl_state *S)
{
    lua_Debug ar;
    for (int level = 1; lua_getstack(L, level, &ar); level++) {
        if (!lua_getinfo(L, "S", &ar) || *ar.what == 'C') continue;
        const char *end = NULL;
        if (!strncmp(ar.source, "@tide/", 6)) end = ar.source + 1;
        for (const char *p = ar.source; *ar.source == '@' && (p = strstr(p, "/tide/")); p++) end = p + 1;
        if (!end || strchr(end + 5, '/')) return; /* required from elsewhere */
        size_t n = (size_t)(end - ar.source) + 5;
        if (n >= sizeof S->source) return;
        memcpy(S->source, ar.source, n);
        S->source[n] = 0;
        S->source_len = n;
        return;
    }
}

tdl_state *tdl_state_new(lua_State *L)
{
    tdl_state *S = (tdl_state *)lua_newuserdatauv(L, sizeof *S, 0);
    memset(S, 0, sizeof *S);
    S->due = CYCLE_AT_LEAST / PAYMENTS;
    lua_createtable(L, 0, 1);
    lua_pushcfunction(L, state_gc);
    lua_setfield(L, -2, "__gc");
    lua_setmetatable(L, -2);
    lua_rawsetp(L, LUA_REGISTRYINDEX, &state_key);
    find_source(L, S);
    S->frees = tdl_freeing_alloc && lua_getallocf(L, NULL) == tdl_freeing_alloc;
    if (S->frees) tdl_freeing_state = S;
    S->ctx = td_context_new();
    if (!S->ctx) luaL_error(L, "tide: out of memory");
    tdl_stay stay;
    tdl_enter(L, S, &stay);
    td_set_collect(collect, NULL);
    td_set_where(where);
    tdl_leave(S, &stay, true);
    return S;
}

void tdl_open_state(lua_State *L, tdl_state *S)
{
    static const luaL_Reg functions[] = {{"error", l_error}, {"where", l_where}, {NULL, NULL}};
    tdl_register(L, S, functions);
}

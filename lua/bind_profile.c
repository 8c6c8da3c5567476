/* bind_profile.c - the core's profile, for lua/tide/profile.lua. */
#include "bind.h"
#include <stdlib.h>

typedef struct {
    td_profile_row *v;
    uint32_t n, room;
} rows;

/* Called by the core, so it must not raise: what finds no memory is left out. */
static void take_row(void *arg, const td_profile_row *r)
{
    rows *list = (rows *)arg;
    if (list->n == list->room) {
        uint32_t room = list->room ? 2 * list->room : 32;
        td_profile_row *v = (td_profile_row *)realloc(list->v, room * sizeof *v);
        if (!v) return;
        list->v = v;
        list->room = room;
    }
    list->v[list->n++] = *r;
}

static void set_number(lua_State *L, const char *key, double v)
{
    lua_pushnumber(L, v);
    lua_setfield(L, -2, key);
}

static void set_integer(lua_State *L, const char *key, uint64_t v)
{
    lua_pushinteger(L, (lua_Integer)v);
    lua_setfield(L, -2, key);
}

static int push_rows(lua_State *L)
{
    const rows *list = (const rows *)lua_touserdata(L, 1);
    lua_createtable(L, (int)list->n, 0);
    for (uint32_t i = 0; i < list->n; i++) {
        const td_profile_row *r = &list->v[i];
        lua_createtable(L, 0, 7);
        lua_pushstring(L, r->op);
        lua_setfield(L, -2, "op");
        lua_pushboolean(L, r->backward);
        lua_setfield(L, -2, "backward");
        set_integer(L, "calls", r->calls);
        set_integer(L, "bytes", r->bytes);
        set_number(L, "time", r->time);
        set_number(L, "kernel", r->kernel);
        set_number(L, "flops", r->flops);
        lua_rawseti(L, -2, (lua_Integer)i + 1);
    }
    return 1;
}

/* core.profile_start(trace) */
static int l_start(lua_State *L)
{
    tdl_state *S = TDL_STATE(L);
    tdl_stay stay;
    tdl_enter(L, S, &stay);
    bool ok = td_profile_start(lua_toboolean(L, 1));
    if (!tdl_leave(S, &stay, ok)) return tdl_throw(L, S);
    return 0;
}

/* core.profile_stop([path]) -> {{op =, backward =, calls =, time =, kernel =, bytes =, flops =}, …; total =, outside =, lost =} */
static int l_stop(lua_State *L)
{
    tdl_state *S = TDL_STATE(L);
    const char *path = lua_type(L, 1) == LUA_TSTRING ? lua_tostring(L, 1) : NULL;
    rows list = {NULL, 0, 0};
    td_profile_total total;
    tdl_stay stay;
    tdl_enter(L, S, &stay);
    bool ok = td_profile_stop(path, take_row, &list, &total);
    if (!tdl_leave(S, &stay, ok)) {
        free(list.v);
        return tdl_throw(L, S);
    }
    lua_pushcfunction(L, push_rows); /* it may run out of memory, and the rows are ours to free */
    lua_pushlightuserdata(L, &list);
    int rc = lua_pcall(L, 1, 1, 0);
    free(list.v);
    if (rc != LUA_OK) return lua_error(L);
    set_number(L, "total", total.total);
    set_number(L, "outside", total.outside);
    set_integer(L, "lost", total.lost);
    return 1;
}

void tdl_open_profile(lua_State *L, tdl_state *S)
{
    static const luaL_Reg functions[] = {{"profile_start", l_start}, {"profile_stop", l_stop}, {NULL, NULL}};
    tdl_register(L, S, functions);
}

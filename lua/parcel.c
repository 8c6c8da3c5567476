/* parcel.c - see parcel.h. Values lie in a string of bytes, each behind its tag; tensors in a list beside it. Storages and tensors are
 * counted atomically, so that either side may be the last to let go. */
#include "parcel.h"
#include <stdlib.h>

enum { DEEPEST = 64 };
typedef enum { NIL, FALSE, TRUE, INTEGER, FLOAT, STRING, TABLE, TENSOR, END } tag;

/* ---- writing ---- */

static void add(lua_State *L, tdl_parcel *p, const void *bytes, size_t n)
{
    if (p->room - p->n < n) {
        size_t room = 2 * p->room + n + 64;
        char *more = (char *)realloc(p->bytes, room);
        if (!more) tdl_error(L, "out of memory for %zu bytes to hand to another Lua state", n);
        p->bytes = more;
        p->room = room;
    }
    memcpy(p->bytes + p->n, bytes, n);
    p->n += n;
}

static void add_tag(lua_State *L, tdl_parcel *p, tag t)
{
    char c = (char)t;
    add(L, p, &c, 1);
}

static void add_tensor(lua_State *L, tdl_state *S, tdl_parcel *p, tdl_slot *s, bool moves)
{
    if (p->n_tensors == p->tensor_room) {
        uint32_t room = 2 * p->tensor_room + 4;
        td_tensor **more = (td_tensor **)realloc((void *)p->tensor, room * sizeof *more);
        if (!more) tdl_error(L, "out of memory for a tensor to hand to another Lua state");
        p->tensor = more;
        p->tensor_room = room;
    }
    tdl_stay stay;
    tdl_enter(L, S, &stay);
    td_tensor *t = td_tensor_detach(s->t);
    if (t) p->tensor[p->n_tensors++] = td_keep(t);
    if (!tdl_leave(S, &stay, t != NULL)) tdl_throw(L, S);
    if (moves) tdl_drop(S, s);
    add_tag(L, p, TENSOR);
}

static void add_value(lua_State *L, tdl_state *S, tdl_parcel *p, int at, bool moves, int depth)
{
    lua_Integer i;
    lua_Number d;
    size_t n;
    const char *s;
    tdl_slot *slot;
    switch (lua_type(L, at)) {
    case LUA_TNIL: add_tag(L, p, NIL); return;
    case LUA_TBOOLEAN: add_tag(L, p, lua_toboolean(L, at) ? TRUE : FALSE); return;
    case LUA_TNUMBER:
        add_tag(L, p, lua_isinteger(L, at) ? INTEGER : FLOAT);
        i = lua_tointeger(L, at), d = lua_tonumber(L, at);
        if (lua_isinteger(L, at)) add(L, p, &i, sizeof i);
        else add(L, p, &d, sizeof d);
        return;
    case LUA_TSTRING:
        s = lua_tolstring(L, at, &n);
        add_tag(L, p, STRING);
        add(L, p, &n, sizeof n);
        add(L, p, s, n);
        return;
    case LUA_TTABLE:
        if (depth == DEEPEST) tdl_error(L, "a table of more than %d levels cannot go to another Lua state", DEEPEST);
        luaL_checkstack(L, 4, "too many tables in tables");
        add_tag(L, p, TABLE);
        for (lua_pushnil(L); lua_next(L, at); lua_pop(L, 1)) {
            int value = lua_gettop(L);
            add_value(L, S, p, value - 1, moves, depth + 1);
            add_value(L, S, p, value, moves, depth + 1);
        }
        add_tag(L, p, END);
        return;
    default: break;
    }
    slot = tdl_slot_at(L, at);
    if (!slot || !slot->t) tdl_error(L, "%s cannot go to another Lua state", tdl_what(L, at));
    add_tensor(L, S, p, slot, moves);
}

void tdl_parcel_pack(lua_State *L, tdl_state *S, tdl_parcel *p, int first, bool moves)
{
    tdl_parcel_clear(p);
    for (int i = first, top = lua_gettop(L); i <= top; i++) add_value(L, S, p, i, moves, 0);
}

/* ---- reading: what add_value wrote, so nothing in it can be wrong ---- */

static void take(tdl_parcel *p, void *to, size_t n)
{
    memcpy(to, p->bytes + p->at, n);
    p->at += n;
}

/* Pushes the next value; false, and nothing pushed, at the end of a table. */
static bool push_value(lua_State *L, tdl_state *S, tdl_parcel *p, bool shares)
{
    lua_Integer i;
    lua_Number d;
    size_t n;
    char t;
    luaL_checkstack(L, 4, "too many tables in tables");
    take(p, &t, 1);
    switch ((tag)t) {
    case NIL: lua_pushnil(L); break;
    case FALSE: lua_pushboolean(L, 0); break;
    case TRUE: lua_pushboolean(L, 1); break;
    case INTEGER:
        take(p, &i, sizeof i);
        lua_pushinteger(L, i);
        break;
    case FLOAT:
        take(p, &d, sizeof d);
        lua_pushnumber(L, d);
        break;
    case STRING:
        take(p, &n, sizeof n);
        lua_pushlstring(L, p->bytes + p->at, n);
        p->at += n;
        break;
    case TABLE:
        lua_newtable(L);
        while (push_value(L, S, p, shares)) {
            push_value(L, S, p, shares);
            lua_rawset(L, -3);
        }
        break;
    case TENSOR: tdl_push_tensor(L, S, p->tensor[p->tensor_at++], shares); break;
    case END: return false;
    }
    return true;
}

int tdl_parcel_unpack(lua_State *L, tdl_state *S, tdl_parcel *p, bool shares)
{
    int n = 0;
    p->at = p->tensor_at = 0;
    for (; p->at < p->n; n++) push_value(L, S, p, shares);
    return n;
}

void tdl_parcel_clear(tdl_parcel *p)
{
    while (p->n_tensors) td_release(p->tensor[--p->n_tensors]);
    p->n = p->at = 0;
    p->tensor_at = 0;
}

void tdl_parcel_free(tdl_parcel *p)
{
    tdl_parcel_clear(p);
    free(p->bytes);
    free((void *)p->tensor);
    memset(p, 0, sizeof *p);
}

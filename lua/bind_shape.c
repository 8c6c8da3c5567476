/* bind_shape.c - shapes: lists that print and compare, and what a tensor says of its own. */
#include "bind.h"

/* ---- shapes: lists that print and compare ---- */

void tdl_push_shape(lua_State *L, tdl_state *S, const int64_t *v, int n)
{
    lua_createtable(L, n, 0);
    for (int i = 0; i < n; i++) {
        lua_pushinteger(L, v[i]);
        lua_rawseti(L, -2, i + 1);
    }
    lua_rawgeti(L, LUA_REGISTRYINDEX, S->shape_mt);
    lua_setmetatable(L, -2);
}

static int shape_tostring(lua_State *L)
{
    luaL_Buffer b;
    luaL_checktype(L, 1, LUA_TTABLE);
    int n = (int)lua_rawlen(L, 1);
    luaL_buffinit(L, &b);
    luaL_addchar(&b, '(');
    for (int i = 1; i <= n; i++) {
        if (i > 1) luaL_addstring(&b, ", ");
        lua_rawgeti(L, 1, i);
        luaL_tolstring(L, -1, NULL);
        lua_remove(L, -2);
        luaL_addvalue(&b);
    }
    luaL_addchar(&b, ')');
    luaL_pushresult(&b);
    return 1;
}

static int shape_eq(lua_State *L)
{
    bool same = lua_type(L, 1) == LUA_TTABLE && lua_type(L, 2) == LUA_TTABLE && lua_rawlen(L, 1) == lua_rawlen(L, 2);
    for (lua_Integer i = 1; same && i <= (lua_Integer)lua_rawlen(L, 1); i++) {
        lua_rawgeti(L, 1, i);
        lua_rawgeti(L, 2, i);
        same = lua_rawequal(L, -1, -2);
        lua_pop(L, 2);
    }
    lua_pushboolean(L, same);
    return 1;
}

static int shape_concat(lua_State *L)
{
    luaL_tolstring(L, 1, NULL);
    luaL_tolstring(L, 2, NULL);
    lua_concat(L, 2);
    return 1;
}

/* ---- what a tensor is ---- */

static int m_shape(lua_State *L)
{
    const td_view *v = td_view_of(tdl_check_tensor(L, 1));
    tdl_push_shape(L, TDL_STATE(L), v->dim, v->nd);
    return 1;
}

static int m_stride(lua_State *L)
{
    const td_view *v = td_view_of(tdl_check_tensor(L, 1));
    tdl_push_shape(L, TDL_STATE(L), v->stride, v->nd);
    return 1;
}

static int m_dim(lua_State *L)
{
    lua_pushinteger(L, td_ndim(tdl_check_tensor(L, 1)));
    return 1;
}

static int m_numel(lua_State *L)
{
    lua_pushinteger(L, td_numel(tdl_check_tensor(L, 1)));
    return 1;
}

static int m_size(lua_State *L)
{
    td_tensor *x = tdl_check_tensor(L, 1);
    const td_view *v = td_view_of(x);
    if (lua_isnoneornil(L, 2)) return m_shape(L);
    int ok = lua_type(L, 2) == LUA_TNUMBER;
    lua_Integer axis = ok ? lua_tointegerx(L, 2, &ok) : 0;
    if (!ok) tdl_error(L, "size: expected an axis, got %s", tdl_what(L, 2));
    lua_Integer k = axis > 0 ? axis - 1 : axis + v->nd;
    if (axis == 0 || k < 0 || k >= v->nd)
        tdl_error(L, "size: axis %lld is outside a tensor of %d axes (they count from 1)", (long long)axis, v->nd);
    lua_pushinteger(L, v->dim[k]);
    return 1;
}

void tdl_open_shape(lua_State *L, tdl_state *S)
{
    static const luaL_Reg methods[] = {{"shape", m_shape}, {"stride", m_stride}, {"dim", m_dim},
                                       {"numel", m_numel}, {"size", m_size},     {NULL, NULL}};
    static const luaL_Reg events[] = {
        {"__tostring", shape_tostring}, {"__eq", shape_eq}, {"__concat", shape_concat}, {NULL, NULL}};
    lua_rawgeti(L, LUA_REGISTRYINDEX, S->methods);
    tdl_register(L, S, methods);
    lua_rawgeti(L, LUA_REGISTRYINDEX, S->shape_mt);
    tdl_register(L, S, events);
    lua_pop(L, 2);
}

/* bind_random.c - the seeded stream: numbers for the script, and its state for checkpoints. */
#include "bind.h"

static int l_manual_seed(lua_State *L)
{
    tdl_state *S = TDL_STATE(L);
    int ok = 0;
    lua_Integer seed = lua_type(L, 1) == LUA_TNUMBER ? lua_tointegerx(L, 1, &ok) : 0;
    if (!ok) tdl_error(L, "manual_seed: expected an integer, got %s", tdl_what(L, 1));
    tdl_stay stay;
    tdl_enter(L, S, &stay);
    td_manual_seed((uint64_t)seed);
    tdl_leave(S, &stay, true);
    return 0;
}

static lua_Integer bound_at(lua_State *L, int arg)
{
    int ok = 0;
    lua_Integer v = lua_type(L, arg) == LUA_TNUMBER ? lua_tointegerx(L, arg, &ok) : 0;
    if (!ok) tdl_error(L, "random: argument %d: expected an integer, got %s", arg, tdl_what(L, arg));
    return v;
}

/* core.random() in [0, 1) · core.random(m) 1 .. m · core.random(a, b) a .. b */
static int l_random(lua_State *L)
{
    tdl_state *S = TDL_STATE(L);
    bool none = lua_isnoneornil(L, 1), one = lua_isnoneornil(L, 2);
    lua_Integer low = none || one ? 1 : bound_at(L, 1), high = none ? 1 : bound_at(L, one ? 1 : 2);
    if (low > high) tdl_error(L, "random: expected low <= high, got %lld and %lld", (long long)low, (long long)high);
    tdl_stay stay;
    tdl_enter(L, S, &stay);
    double u = none ? td_random_uniform() : 0;
    int64_t i = none ? 0 : td_random_int(low, high);
    if (!tdl_leave(S, &stay, !td_failed())) return tdl_throw(L, S);
    if (none) lua_pushnumber(L, u);
    else lua_pushinteger(L, i);
    return 1;
}

static int l_random_state(lua_State *L)
{
    tdl_state *S = TDL_STATE(L);
    uint64_t state[2] = {0, 0};
    tdl_stay stay;
    tdl_enter(L, S, &stay);
    td_random_state(state);
    tdl_leave(S, &stay, true);
    lua_createtable(L, 2, 0);
    for (int i = 0; i < 2; i++) {
        lua_pushinteger(L, (lua_Integer)state[i]);
        lua_rawseti(L, -2, i + 1);
    }
    return 1;
}

static int l_set_random_state(lua_State *L)
{
    tdl_state *S = TDL_STATE(L);
    uint64_t state[2];
    for (int i = 0; i < 2; i++) {
        if (lua_type(L, 1) != LUA_TTABLE || lua_rawgeti(L, 1, i + 1) != LUA_TNUMBER || !lua_isinteger(L, -1))
            tdl_error(L, "set_random_state: expected what random_state returned, got %s", tdl_what(L, 1));
        state[i] = (uint64_t)lua_tointeger(L, -1);
        lua_pop(L, 1);
    }
    tdl_stay stay;
    tdl_enter(L, S, &stay);
    td_random_set_state(state);
    tdl_leave(S, &stay, true);
    return 0;
}

void tdl_open_random(lua_State *L, tdl_state *S)
{
    static const luaL_Reg functions[] = {{"manual_seed", l_manual_seed},
                                         {"random", l_random},
                                         {"random_state", l_random_state},
                                         {"set_random_state", l_set_random_state},
                                         {NULL, NULL}};
    tdl_register(L, S, functions);
}

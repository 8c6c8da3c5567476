/* bind_autograd.c - gradient mode, backward, gradients of functions. */
#include "bind.h"
#include <stdlib.h>

/* ---- mode ---- */

static bool set_mode(lua_State *L, tdl_state *S, bool on)
{
    tdl_stay stay;
    tdl_enter(L, S, &stay);
    bool before = td_grad_enable(on);
    tdl_leave(S, &stay, true);
    return before;
}

/* Calls f(...) in a mode. Its error is raised again as it was, after the mode is back. */
static int with_mode(lua_State *L, const char *who, bool on)
{
    tdl_state *S = TDL_STATE(L);
    if (!lua_isfunction(L, 1) && luaL_getmetafield(L, 1, "__call") == LUA_TNIL)
        tdl_error(L, "%s: expected a function, got %s", who, tdl_what(L, 1));
    if (!lua_isfunction(L, 1)) lua_pop(L, 1);
    bool before = set_mode(L, S, on);
    int rc = lua_pcall(L, lua_gettop(L) - 1, LUA_MULTRET, 0);
    set_mode(L, S, before);
    if (rc != LUA_OK) return lua_error(L);
    return lua_gettop(L);
}

static int l_no_grad(lua_State *L) { return with_mode(L, "no_grad", false); }
static int l_enable_grad(lua_State *L) { return with_mode(L, "enable_grad", true); }

static int l_set_grad_enabled(lua_State *L)
{
    lua_pushboolean(L, set_mode(L, TDL_STATE(L), lua_toboolean(L, 1)));
    return 1;
}

static int l_is_grad_enabled(lua_State *L)
{
    tdl_state *S = TDL_STATE(L);
    tdl_stay stay;
    tdl_enter(L, S, &stay);
    bool on = td_grad_enabled();
    tdl_leave(S, &stay, true);
    lua_pushboolean(L, on);
    return 1;
}

static int l_set_anomaly(lua_State *L)
{
    tdl_state *S = TDL_STATE(L);
    bool on = lua_toboolean(L, 1);
    tdl_stay stay;
    tdl_enter(L, S, &stay);
    bool before = td_anomaly_enable(on);
    tdl_leave(S, &stay, true);
    lua_pushboolean(L, before);
    return 1;
}

/* ---- tensors ---- */

static int m_requires_grad_(lua_State *L)
{
    tdl_state *S = TDL_STATE(L);
    td_tensor *x = tdl_check_tensor(L, 1);
    bool on = lua_isnoneornil(L, 2) || lua_toboolean(L, 2);
    tdl_stay stay;
    tdl_enter(L, S, &stay);
    if (!tdl_leave(S, &stay, td_require_grad(x, on))) return tdl_throw(L, S);
    lua_settop(L, 1);
    return 1;
}

static int m_retain_grad(lua_State *L)
{
    tdl_state *S = TDL_STATE(L);
    td_tensor *x = tdl_check_tensor(L, 1);
    tdl_stay stay;
    tdl_enter(L, S, &stay);
    if (!tdl_leave(S, &stay, td_retain_grad(x))) return tdl_throw(L, S);
    lua_settop(L, 1);
    return 1;
}

/* Flags of a table such as {retain_graph = true}; own: a key that the caller reads itself. */
static uint32_t read_flags(lua_State *L, const char *who, int arg, const char *own)
{
    static const struct {
        const char *name;
        uint32_t bit;
    } known[] = {
        {"retain_graph", TD_RETAIN_GRAPH}, {"create_graph", TD_CREATE_GRAPH}, {"allow_unused", TD_ALLOW_UNUSED}};
    uint32_t flags = 0;
    if (lua_isnoneornil(L, arg)) return 0;
    if (lua_type(L, arg) != LUA_TTABLE) tdl_error(L, "%s: expected a table of options, got %s", who, tdl_what(L, arg));
    lua_pushnil(L);
    while (lua_next(L, arg)) {
        const char *key = lua_type(L, -2) == LUA_TSTRING ? lua_tostring(L, -2) : "";
        size_t i = 0;
        while (i < 3 && strcmp(known[i].name, key)) i++;
        if (i == 3 && !(own && !strcmp(own, key)))
            tdl_error(L, "%s: unknown option '%.40s': there are retain_graph, create_graph%s", who, key,
                      own ? ", allow_unused and grad_outputs" : "");
        if (i < 3 && lua_toboolean(L, -1)) flags |= known[i].bit;
        lua_pop(L, 1);
    }
    if (flags & TD_CREATE_GRAPH) flags |= TD_RETAIN_GRAPH;
    return flags;
}

/* y:backward([seed] [, {retain_graph = …, create_graph = …}]) */
static int m_backward(lua_State *L)
{
    tdl_state *S = TDL_STATE(L);
    tdl_sweep(L, S);
    td_tensor *y = tdl_check_tensor(L, 1), *seed = tdl_peek(L, 2);
    bool options = !seed && lua_type(L, 2) == LUA_TTABLE;
    if (!seed && !options && !lua_isnoneornil(L, 2))
        tdl_error(L, "backward: expected a Tensor of y's shape or nil, got %s", tdl_what(L, 2));
    uint32_t flags = read_flags(L, "backward", options ? 2 : 3, NULL);
    tdl_stay stay;
    tdl_enter(L, S, &stay);
    if (!tdl_leave(S, &stay, td_backward(y, seed, flags))) return tdl_throw(L, S);
    return 0;
}

/* ---- core.grad(outputs, inputs [, options]) ---- */

/* Room for what one call works with, as userdata: it holds a reference on each gradient until it has a userdata of its own. */
typedef struct {
    uint32_t n_out, n_in;
    td_tensor **out, **seed, **in, **grad;
} gradients;

static int gradients_gc(lua_State *L)
{
    gradients *g = (gradients *)lua_touserdata(L, 1);
    for (uint32_t i = 0; i < g->n_in; i++)
        if (g->grad[i]) td_release(g->grad[i]);
    g->n_in = 0;
    return 0;
}

static uint32_t count_at(lua_State *L, const char *name, int arg)
{
    if (tdl_slot_at(L, arg)) return 1;
    if (lua_type(L, arg) != LUA_TTABLE)
        tdl_error(L, "grad: %s: expected a Tensor or a list of them, got %s", name, tdl_what(L, arg));
    lua_Unsigned n = lua_rawlen(L, arg);
    if (n < 1 || n > 65536)
        tdl_error(L, "grad: %s: expected 1 to 65536 tensors, got %llu", name, (unsigned long long)n);
    return (uint32_t)n;
}

static void tensors_at(lua_State *L, const char *name, int arg, td_tensor **to, uint32_t n, bool maybe)
{
    bool list = lua_type(L, arg) == LUA_TTABLE;
    for (uint32_t i = 0; i < n; i++) {
        if (list) lua_rawgeti(L, arg, (lua_Integer)i + 1);
        else lua_pushvalue(L, arg);
        to[i] = tdl_peek(L, -1);
        if (!to[i] && !(maybe && (lua_isnil(L, -1) || (lua_isboolean(L, -1) && !lua_toboolean(L, -1)))))
            tdl_error(L, "grad: %s[%u]: expected a Tensor, got %s", name, i + 1, tdl_what(L, -1));
        lua_pop(L, 1);
    }
}

static gradients *push_gradients(lua_State *L, uint32_t n_out, uint32_t n_in)
{
    size_t places = 2 * (size_t)n_out + 2 * (size_t)n_in;
    gradients *g = (gradients *)lua_newuserdatauv(L, sizeof *g + places * sizeof(td_tensor *), 0);
    memset(g, 0, sizeof *g + places * sizeof(td_tensor *));
    g->out = (td_tensor **)(void *)(g + 1);
    g->seed = g->out + n_out;
    g->in = g->seed + n_out;
    g->grad = g->in + n_in;
    g->n_out = n_out;
    lua_createtable(L, 0, 1);
    lua_pushcfunction(L, gradients_gc);
    lua_setfield(L, -2, "__gc");
    lua_setmetatable(L, -2);
    return g;
}

/* -> a list like inputs, with false where an unused input was allowed; one tensor where inputs was one */
static int l_grad(lua_State *L)
{
    tdl_state *S = TDL_STATE(L);
    lua_settop(L, 3);
    tdl_pay(L, S);
    bool one = tdl_slot_at(L, 2) != NULL;
    uint32_t n_out = count_at(L, "outputs", 1), n_in = count_at(L, "inputs", 2),
             flags = read_flags(L, "grad", 3, "grad_outputs");
    lua_pushnil(L);
    if (!lua_isnil(L, 3)) {
        lua_pushliteral(L, "grad_outputs");
        lua_rawget(L, 3);
        lua_replace(L, 4);
    }
    gradients *g = push_gradients(L, n_out, n_in);
    tensors_at(L, "outputs", 1, g->out, n_out, false);
    tensors_at(L, "inputs", 2, g->in, n_in, false);
    if (!lua_isnil(L, 4)) {
        if (!tdl_slot_at(L, 4) && lua_type(L, 4) != LUA_TTABLE)
            tdl_error(L, "grad: grad_outputs: expected a Tensor or a list of them, got %s", tdl_what(L, 4));
        tensors_at(L, "grad_outputs", 4, g->seed, n_out, true);
    }
    tdl_stay stay;
    tdl_enter(L, S, &stay);
    bool ok = td_grad(g->out, g->seed, n_out, g->in, n_in, flags, g->grad);
    for (uint32_t i = 0; i < n_in; i++) {
        if (!ok) g->grad[i] = NULL;
        else if (g->grad[i]) td_keep(g->grad[i]);
    }
    g->n_in = n_in;
    if (!tdl_leave(S, &stay, ok)) return tdl_throw(L, S);
    lua_createtable(L, (int)n_in, 0);
    for (uint32_t i = 0; i < n_in; i++) {
        if (g->grad[i]) tdl_push_tensor(L, S, g->grad[i], false);
        else lua_pushboolean(L, 0);
        if (one) return 1;
        lua_rawseti(L, -2, (lua_Integer)i + 1);
    }
    return 1;
}

void tdl_open_autograd(lua_State *L, tdl_state *S)
{
    static const luaL_Reg methods[] = {
        {"requires_grad_", m_requires_grad_}, {"retain_grad", m_retain_grad}, {"backward", m_backward}, {NULL, NULL}};
    static const luaL_Reg functions[] = {{"no_grad", l_no_grad},
                                         {"enable_grad", l_enable_grad},
                                         {"set_grad_enabled", l_set_grad_enabled},
                                         {"is_grad_enabled", l_is_grad_enabled},
                                         {"set_anomaly", l_set_anomaly},
                                         {"grad", l_grad},
                                         {NULL, NULL}};
    lua_rawgeti(L, LUA_REGISTRYINDEX, S->methods);
    tdl_register(L, S, methods);
    lua_pop(L, 1);
    tdl_register(L, S, functions);
}

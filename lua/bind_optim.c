/* bind_optim.c - optimizers: userdata over td_optimizer, one parameter group each. */
#include "bind.h"

static const char optim_kind;
static const char *const META = "tide.core.Optimizer";

typedef struct {
    const void *kind;
    td_optimizer *o;
    uint32_t n; /* parameters */
} optimizer;

static optimizer *check_optim(lua_State *L, int arg)
{
    optimizer *o = (optimizer *)tdl_test(L, arg, &optim_kind, sizeof(optimizer));
    if (tdl_unlikely(!o || !o->o)) tdl_error(L, "expected a core optimizer, got %s", tdl_what(L, arg));
    return o;
}

static int optim_gc(lua_State *L)
{
    optimizer *o = (optimizer *)tdl_test(L, 1, &optim_kind, sizeof(optimizer));
    if (!o || !o->o) return 0;
    td_optimizer *given_up = o->o;
    o->o = NULL;
    td_optimizer_free(given_up);
    return 0;
}

/* core.new_optimizer(name, parameters [, options]) */
static int l_new_optimizer(lua_State *L)
{
    tdl_state *S = TDL_STATE(L);
    tdl_given g;
    lua_settop(L, 3);
    if (lua_type(L, 1) != LUA_TSTRING) tdl_error(L, "new_optimizer: expected a name, got %s", tdl_what(L, 1));
    const char *name = lua_tostring(L, 1);
    if (lua_type(L, 2) != LUA_TTABLE) tdl_error(L, "%s: expected a list of parameters, got %s", name, tdl_what(L, 2));
    if (!lua_isnil(L, 3) && lua_type(L, 3) != LUA_TTABLE)
        tdl_error(L, "%s: expected a table of options, got %s", name, tdl_what(L, 3));
    lua_Unsigned n = lua_rawlen(L, 2);
    if (n < 1 || n > 1u << 20)
        tdl_error(L, "%s: expected at least one parameter, got a list of %llu", name, (unsigned long long)n);
    tdl_stay stay;
    tdl_enter(L, S, &stay);
    const td_optim *kind = td_optim_find(name);
    if (!tdl_leave(S, &stay, kind || !td_failed())) return tdl_throw(L, S);
    if (!kind) tdl_error(L, "no optimizer is called '%.60s'", name);

    optimizer *o = (optimizer *)lua_newuserdatauv(L, sizeof *o, 0);
    o->kind = &optim_kind;
    o->o = NULL;
    o->n = (uint32_t)n;
    luaL_setmetatable(L, META);
    int result = lua_gettop(L);
    td_tensor **p = (td_tensor **)lua_newuserdatauv(L, (size_t)n * sizeof *p, 0);
    for (lua_Unsigned i = 0; i < n; i++) {
        lua_rawgeti(L, 2, (lua_Integer)i + 1);
        p[i] = tdl_peek(L, -1);
        if (!p[i])
            tdl_error(L, "%s: parameter %llu: expected a Tensor, got %s", name, (unsigned long long)i + 1,
                      tdl_what(L, -1));
        lua_pop(L, 1);
    }
    tdl_read_given(L, name, &kind->opts, 1, 0, lua_isnil(L, 3) ? 0 : 3, NULL, NULL, &g);
    tdl_enter(L, S, &stay);
    o->o = td_optimizer_new(kind, p, (uint32_t)n, &g.args);
    if (!tdl_leave(S, &stay, o->o != NULL)) return tdl_throw(L, S);
    lua_settop(L, result);
    return 1;
}

static int m_step(lua_State *L)
{
    tdl_state *S = TDL_STATE(L);
    optimizer *o = check_optim(L, 1);
    tdl_stay stay;
    tdl_enter(L, S, &stay);
    if (!tdl_leave(S, &stay, td_optimizer_step(o->o))) return tdl_throw(L, S);
    return 0;
}

static int m_zero_grad(lua_State *L)
{
    tdl_state *S = TDL_STATE(L);
    optimizer *o = check_optim(L, 1);
    tdl_stay stay;
    tdl_enter(L, S, &stay);
    td_optimizer_zero_grad(o->o);
    tdl_leave(S, &stay, true);
    return 0;
}

static const char *option_name(lua_State *L, int arg)
{
    if (lua_type(L, arg) != LUA_TSTRING) tdl_error(L, "expected the name of an option, got %s", tdl_what(L, arg));
    return lua_tostring(L, arg);
}

static int m_get(lua_State *L)
{
    tdl_state *S = TDL_STATE(L);
    optimizer *o = check_optim(L, 1);
    const char *name = option_name(L, 2);
    td_value v;
    tdl_stay stay;
    tdl_enter(L, S, &stay);
    if (!tdl_leave(S, &stay, td_optimizer_get(o->o, name, &v))) return tdl_throw(L, S);
    tdl_push_value(L, &v);
    return 1;
}

static int m_set(lua_State *L)
{
    tdl_state *S = TDL_STATE(L);
    optimizer *o = check_optim(L, 1);
    const char *name = option_name(L, 2);
    tdl_given g;
    td_value v;
    tdl_read_value(L, td_optimizer_kind(o->o)->name, 3, &g, &v);
    tdl_stay stay;
    tdl_enter(L, S, &stay);
    if (!tdl_leave(S, &stay, td_optimizer_set(o->o, name, &v))) return tdl_throw(L, S);
    return 0;
}

static int m_params(lua_State *L)
{
    tdl_state *S = TDL_STATE(L);
    optimizer *o = check_optim(L, 1);
    lua_createtable(L, (int)o->n, 0);
    for (uint32_t i = 0; i < o->n; i++) {
        td_tensor *t = td_optimizer_param(o->o, i);
        if (!t) break;
        tdl_push_tensor(L, S, t, true);
        lua_rawseti(L, -2, (lua_Integer)i + 1);
    }
    return 1;
}

static uint32_t param_at(lua_State *L, const optimizer *o, int arg)
{
    lua_Integer i = lua_isinteger(L, arg) ? lua_tointeger(L, arg) : 0;
    if (i < 1 || i > (lua_Integer)o->n) tdl_error(L, "expected the number of a parameter, 1 to %u", o->n);
    return (uint32_t)(i - 1);
}

/* o:state(i) -> {m = …, v = …} of parameter i */
static int m_state(lua_State *L)
{
    tdl_state *S = TDL_STATE(L);
    optimizer *o = check_optim(L, 1);
    uint32_t i = param_at(L, o, 2);
    lua_newtable(L);
    for (uint32_t k = 0;; k++) {
        const char *name = NULL;
        td_tensor *t = td_optimizer_state(o->o, i, k, &name);
        if (!name) break;
        if (!t) continue; /* not made yet, or an option says that it is not needed */
        tdl_push_tensor(L, S, t, true);
        lua_setfield(L, -2, name);
    }
    return 1;
}

static int m_set_state(lua_State *L)
{
    tdl_state *S = TDL_STATE(L);
    optimizer *o = check_optim(L, 1);
    uint32_t i = param_at(L, o, 2);
    const char *name = option_name(L, 3);
    td_tensor *t = tdl_check_tensor(L, 4);
    tdl_stay stay;
    tdl_enter(L, S, &stay);
    if (!tdl_leave(S, &stay, td_optimizer_set_state(o->o, i, name, t))) return tdl_throw(L, S);
    return 0;
}

static int m_steps(lua_State *L)
{
    lua_pushinteger(L, td_optimizer_steps(check_optim(L, 1)->o));
    return 1;
}

static int m_set_steps(lua_State *L)
{
    tdl_state *S = TDL_STATE(L);
    optimizer *o = check_optim(L, 1);
    lua_Integer n = lua_isinteger(L, 2) ? lua_tointeger(L, 2) : -1;
    if (n < 0 || n > (lua_Integer)1 << 53)
        tdl_error(L, "set_steps: expected an integer from 0 to 2^53, got %s", tdl_what(L, 2));
    tdl_stay stay;
    tdl_enter(L, S, &stay);
    td_optimizer_set_steps(o->o, n);
    if (!tdl_leave(S, &stay, !td_failed())) return tdl_throw(L, S);
    return 0;
}

static int m_name(lua_State *L)
{
    lua_pushstring(L, td_optimizer_kind(check_optim(L, 1)->o)->name);
    return 1;
}

void tdl_open_optim(lua_State *L, tdl_state *S)
{
    static const luaL_Reg methods[] = {{"step", m_step},
                                       {"zero_grad", m_zero_grad},
                                       {"get", m_get},
                                       {"set", m_set},
                                       {"params", m_params},
                                       {"state", m_state},
                                       {"set_state", m_set_state},
                                       {"steps", m_steps},
                                       {"set_steps", m_set_steps},
                                       {"name", m_name},
                                       {NULL, NULL}};
    static const luaL_Reg events[] = {{"__gc", optim_gc}, {NULL, NULL}};
    static const luaL_Reg functions[] = {{"new_optimizer", l_new_optimizer}, {NULL, NULL}};
    tdl_push_class(L, S, META, events, methods);
    lua_pop(L, 1);
    tdl_register(L, S, functions);
}

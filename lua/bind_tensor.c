/* bind_tensor.c - tensor userdata: their lives, properties, identity. bind_shape.c, bind_convert.c, bind_assign.c and bind_compare.c have
 * the methods that are no ops. */
#include "bind.h"

const char tdl_tensor_kind = 0;

/* ---- userdata ---- */

td_tensor *tdl_check_tensor(lua_State *L, int arg)
{
    td_tensor *t = tdl_peek(L, arg);
    if (tdl_unlikely(!t)) {
        lua_Debug ar;
        const char *name = "tide", *what = tdl_what(L, arg);
        if (lua_getstack(L, 0, &ar) && lua_getinfo(L, "n", &ar) && ar.name) name = ar.name;
        if (tdl_slot_at(L, arg)) tdl_error(L, "%s: the Tensor was freed", name);
        tdl_error(L, "%s: argument %d: expected a Tensor, got %s", name, arg, what);
    }
    return t;
}

void tdl_drop(tdl_state *S, tdl_slot *s)
{
    td_tensor *t = s->t;
    if (!t) return;
    s->t = NULL;
    S->live -= s->bytes;
    s->bytes = 0;
    td_release(t);
}

lua_Alloc tdl_freeing_alloc;
tdl_state *tdl_freeing_state;

void tdl_slot_freed(void *userdata)
{
    tdl_slot *s = (tdl_slot *)userdata;
    if (s->kind != &tdl_tensor_kind) return;
    s->kind = NULL; /* the next userdata here may be another module's, which leaves its bytes as they are */
    if (!s->t) return;
    if (tdl_freeing_state) tdl_freeing_state->live -= s->bytes;
    td_release(s->t);
}

int tdl_return(lua_State *L, tdl_state *S, tdl_stay *stay, tdl_slot *s, td_tensor *t, bool shares)
{
    if (t) tdl_fill(S, s, t, shares);
    if (!tdl_leave(S, stay, t != NULL)) return tdl_throw(L, S);
    return 1;
}

int tdl_return_or_self(lua_State *L, tdl_state *S, tdl_stay *stay, tdl_slot *s, td_tensor *t, int self)
{
    td_tensor *x = tdl_peek(L, self);
    if (t != x) return tdl_return(L, S, stay, s, t, t && x && td_tensor_same_storage(t, x));
    tdl_leave(S, stay, true);
    lua_pushvalue(L, self);
    return 1;
}

void tdl_push_tensor(lua_State *L, tdl_state *S, td_tensor *t, bool shares)
{
    tdl_slot *s = tdl_new(L);
    tdl_fill(S, s, t, shares);
}

static int tensor_gc(lua_State *L)
{
    tdl_slot *s = tdl_slot_at(L, 1);
    if (s) tdl_drop(TDL_STATE(L), s);
    return 0;
}

/* x:free() and the end of a <close> variable. Not while an op runs, which a finalizer could be called from. */
static int m_free(lua_State *L)
{
    tdl_slot *s = tdl_slot_at(L, 1);
    if (!s) tdl_error(L, "free: expected a Tensor, got %s", tdl_what(L, 1));
    if (!tdl_running) tdl_drop(TDL_STATE(L), s);
    return 0;
}

/* ---- what a tensor is ---- */

static int t_len(lua_State *L)
{
    const td_view *v = td_view_of(tdl_check_tensor(L, 1));
    if (v->nd == 0) tdl_error(L, "#: a tensor of no axes has no length");
    lua_pushinteger(L, v->dim[0]);
    return 1;
}

static int m_is_contiguous(lua_State *L)
{
    lua_pushboolean(L, td_view_dense(td_view_of(tdl_check_tensor(L, 1))));
    return 1;
}

static int t_eq(lua_State *L)
{
    td_tensor *a = tdl_peek(L, 1), *b = tdl_peek(L, 2);
    lua_pushboolean(L, a && a == b); /* the same tensor, though each x.grad makes a userdata of its own */
    return 1;
}

/* ---- properties ---- */

typedef enum { P_NONE, P_DTYPE, P_DEVICE, P_GRAD, P_REQUIRES_GRAD, P_IS_LEAF, P_NDIM, P_VERSION, P_MADE_BY } property;
static const char *const property_names[] = {"",        "dtype", "device",   "grad",   "requires_grad",
                                             "is_leaf", "ndim",  "_version", "made_by"};

static property property_at(lua_State *L, int arg)
{
    const char *key = lua_tostring(L, arg);
    for (int i = 1; i < (int)(sizeof property_names / sizeof *property_names); i++)
        if (!strcmp(property_names[i], key)) return (property)i;
    return P_NONE;
}

static int push_grad(lua_State *L, tdl_state *S)
{
    tdl_slot *s = tdl_new(L);
    td_tensor *x = tdl_check_tensor(L, 1);
    tdl_stay stay;
    tdl_enter(L, S, &stay);
    td_tensor *g = td_grad_of(x);
    if (g) return tdl_return(L, S, &stay, s, g, true);
    if (!tdl_leave(S, &stay, !td_failed())) return tdl_throw(L, S);
    lua_pushnil(L);
    return 1;
}

/* x[key]: methods are upvalue 3 */
static int t_index(lua_State *L)
{
    tdl_state *S = TDL_STATE(L);
    if (lua_type(L, 2) != LUA_TSTRING) return tdl_index_get(L, S);
    lua_pushvalue(L, 2);
    if (lua_rawget(L, lua_upvalueindex(3)) != LUA_TNIL) return 1;
    const char *key = lua_tostring(L, 2);
    property p = property_at(L, 2);
    if (p == P_NONE) tdl_error(L, "Tensor has no field '%.60s'", key);
    td_tensor *x = tdl_check_tensor(L, 1);
    switch (p) {
    case P_DTYPE: lua_pushstring(L, td_dtype_name(td_dtype_of(x))); break;
    case P_DEVICE: lua_pushstring(L, td_tensor_device(x)); break;
    case P_GRAD: return push_grad(L, S);
    case P_REQUIRES_GRAD: lua_pushboolean(L, td_needs_grad(x)); break;
    case P_IS_LEAF: lua_pushboolean(L, td_is_leaf(x)); break;
    case P_NDIM: lua_pushinteger(L, td_ndim(x)); break;
    case P_VERSION: lua_pushinteger(L, td_tensor_version(x)); break;
    case P_MADE_BY: lua_pushstring(L, td_made_by(x)); break;
    default: lua_pushnil(L); break;
    }
    return 1;
}

static int set_grad(lua_State *L, tdl_state *S)
{
    td_tensor *x = tdl_check_tensor(L, 1), *g = tdl_peek(L, 3);
    if (!g && !lua_isnil(L, 3)) tdl_error(L, "grad: expected a Tensor or nil, got %s", tdl_what(L, 3));
    tdl_stay stay;
    tdl_enter(L, S, &stay);
    if (!tdl_leave(S, &stay, td_set_grad(x, g))) return tdl_throw(L, S);
    return 0;
}

static int t_newindex(lua_State *L)
{
    tdl_state *S = TDL_STATE(L);
    if (lua_type(L, 2) != LUA_TSTRING) return tdl_index_set(L, S);
    switch (property_at(L, 2)) {
    case P_GRAD: return set_grad(L, S);
    case P_REQUIRES_GRAD: {
        td_tensor *x = tdl_check_tensor(L, 1);
        bool on = lua_toboolean(L, 3);
        tdl_stay stay;
        tdl_enter(L, S, &stay);
        if (!tdl_leave(S, &stay, td_require_grad(x, on))) return tdl_throw(L, S);
        return 0;
    }
    default: return tdl_error(L, "Tensor has no field '%.60s' that can be set", lua_tostring(L, 2));
    }
}

/* ---- functions of the module ---- */

static int l_is_tensor(lua_State *L)
{
    lua_pushboolean(L, tdl_slot_at(L, 1) != NULL);
    return 1;
}

/* A number that two userdata of one tensor share. */
static int l_identity(lua_State *L)
{
    lua_pushinteger(L, (lua_Integer)(intptr_t)tdl_check_tensor(L, 1));
    return 1;
}

static int l_same_storage(lua_State *L)
{
    td_tensor *a = tdl_check_tensor(L, 1), *b = tdl_check_tensor(L, 2);
    lua_pushboolean(L, td_tensor_same_storage(a, b));
    return 1;
}

/* core.set_data(x, y): x takes y's data, dtype and device, in all its handles */
static int l_set_data(lua_State *L)
{
    tdl_state *S = TDL_STATE(L);
    td_tensor *x = tdl_check_tensor(L, 1), *y = tdl_check_tensor(L, 2);
    tdl_stay stay;
    tdl_enter(L, S, &stay);
    if (!tdl_leave(S, &stay, td_tensor_set_data(x, y))) return tdl_throw(L, S);
    lua_settop(L, 1);
    return 1;
}

static const luaL_Reg methods[] = {
    {"is_contiguous", m_is_contiguous}, {"free", m_free}, {"tostring", tdl_tensor_tostring}, {NULL, NULL}};

static const luaL_Reg events[] = {
    {"__gc", tensor_gc}, {"__close", m_free}, {"__eq", t_eq}, {"__len", t_len}, {"__tostring", tdl_tensor_tostring},
    {NULL, NULL}};

static const luaL_Reg functions[] = {{"is_tensor", l_is_tensor},
                                     {"identity", l_identity},
                                     {"same_storage", l_same_storage},
                                     {"set_data", l_set_data},
                                     {NULL, NULL}};

static void set_with_upvalue(lua_State *L, tdl_state *S, const char *name, lua_CFunction f)
{
    lua_rawgeti(L, LUA_REGISTRYINDEX, S->tensor_mt); /* value that is the third upvalue lies on top */
    lua_pushlightuserdata(L, S);
    lua_rotate(L, -3, 2);
    lua_pushcclosure(L, f, 3);
    lua_setfield(L, -2, name);
}

void tdl_open_tensor(lua_State *L, tdl_state *S)
{
    lua_rawgeti(L, LUA_REGISTRYINDEX, S->methods);
    tdl_register(L, S, methods);
    lua_rawgeti(L, LUA_REGISTRYINDEX, S->tensor_mt);
    tdl_register(L, S, events);
    if (S->frees) {
        lua_pushnil(L);
        lua_setfield(L, -2, "__gc");
    }
    lua_pushvalue(L, -2);
    set_with_upvalue(L, S, "__index", t_index);
    lua_pushvalue(L, -2);
    set_with_upvalue(L, S, "__newindex", t_newindex);
    lua_pushliteral(L, "Tensor");
    lua_setfield(L, -2, "__name");
    lua_pop(L, 2);

    lua_rawgeti(L, LUA_REGISTRYINDEX, S->methods);
    lua_setfield(L, -2, "Tensor");
    tdl_register(L, S, functions);
}

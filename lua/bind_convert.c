/* bind_convert.c - copies of tensors, in other dtypes and on other devices. */
#include "bind.h"

static int m_clone(lua_State *L)
{
    tdl_state *S = TDL_STATE(L);
    tdl_pay(L, S);
    tdl_slot *s = tdl_new(L);
    td_tensor *x = tdl_check_tensor(L, 1);
    tdl_stay stay;
    tdl_enter(L, S, &stay);
    return tdl_return(L, S, &stay, s, td_copy(x), false);
}

static int m_detach(lua_State *L)
{
    tdl_state *S = TDL_STATE(L);
    tdl_slot *s = tdl_new(L);
    td_tensor *x = tdl_check_tensor(L, 1);
    tdl_stay stay;
    tdl_enter(L, S, &stay);
    return tdl_return(L, S, &stay, s, td_tensor_detach(x), true);
}

static int m_contiguous(lua_State *L)
{
    tdl_state *S = TDL_STATE(L);
    tdl_pay(L, S);
    tdl_slot *s = tdl_new(L);
    td_tensor *x = tdl_check_tensor(L, 1);
    tdl_stay stay;
    tdl_enter(L, S, &stay);
    return tdl_return_or_self(L, S, &stay, s, td_tensor_dense(x), 1);
}

static int m_t(lua_State *L)
{
    tdl_state *S = TDL_STATE(L);
    tdl_slot *s = tdl_new(L);
    td_tensor *x = tdl_check_tensor(L, 1);
    if (td_ndim(x) != 2) tdl_error(L, "t: expected a tensor of 2 axes, got %d; use transpose or permute", td_ndim(x));
    tdl_stay stay;
    tdl_enter(L, S, &stay);
    return tdl_return(L, S, &stay, s, td_transpose(x, 0, 1), true);
}

/* The userdata of the result is made already; x is at 1. device and dt may be absent. */
static int convert(lua_State *L, tdl_state *S, tdl_slot *s, const char *device, bool cast, td_dtype dt)
{
    td_tensor *x = tdl_check_tensor(L, 1);
    tdl_stay stay;
    tdl_enter(L, S, &stay);
    td_tensor *y = x;
    if (cast && y && td_dtype_of(y) != dt) y = td_cast(y, dt);
    if (device && y) y = td_tensor_to(y, device);
    return tdl_return_or_self(L, S, &stay, s, y, 1);
}

static void read_target(lua_State *L, int arg, const char **device, bool *cast, td_dtype *dt)
{
    td_tensor *like = tdl_peek(L, arg);
    if (like) {
        *device = td_tensor_device(like);
        *dt = td_dtype_of(like);
        *cast = true;
    } else if (lua_type(L, arg) == LUA_TSTRING) {
        if (tdl_dtype_named(lua_tostring(L, arg), dt)) *cast = true;
        else *device = lua_tostring(L, arg);
    } else if (lua_type(L, arg) == LUA_TTABLE) {
        tdl_made_as o;
        tdl_read_made_as(L, "to", arg, &o);
        if (o.device) *device = o.device;
        *cast |= o.has_dtype;
        if (o.has_dtype) *dt = o.dt;
    } else if (!lua_isnoneornil(L, arg)) {
        tdl_error(L, "to: expected a device, a dtype or a Tensor, got %s", tdl_what(L, arg));
    }
}

static int m_to(lua_State *L)
{
    tdl_state *S = TDL_STATE(L);
    const char *device = NULL;
    bool cast = false;
    td_dtype dt = TD_F32;
    lua_settop(L, 3);
    tdl_pay(L, S);
    tdl_slot *s = tdl_new(L);
    read_target(L, 2, &device, &cast, &dt);
    read_target(L, 3, &device, &cast, &dt);
    if (!device && !cast) tdl_error(L, "to: expected a device, a dtype or a Tensor, got nothing");
    return convert(L, S, s, device, cast, dt);
}

static int m_cpu(lua_State *L)
{
    tdl_state *S = TDL_STATE(L);
    tdl_pay(L, S);
    return convert(L, S, tdl_new(L), "cpu", false, TD_F32);
}

static int m_cuda(lua_State *L)
{
    tdl_state *S = TDL_STATE(L);
    char name[32] = "cuda";
    if (!lua_isnoneornil(L, 2)) {
        if (!lua_isinteger(L, 2)) tdl_error(L, "cuda: expected a device number, got %s", tdl_what(L, 2));
        snprintf(name, sizeof name, "cuda:%lld", (long long)lua_tointeger(L, 2));
    }
    tdl_pay(L, S);
    return convert(L, S, tdl_new(L), name, false, TD_F32);
}

static int m_type_as(lua_State *L)
{
    tdl_state *S = TDL_STATE(L);
    tdl_pay(L, S);
    tdl_slot *s = tdl_new(L);
    return convert(L, S, s, NULL, true, td_dtype_of(tdl_check_tensor(L, 2)));
}

/* x:f64() and its like: the dtype is upvalue 3 */
static int m_as_dtype(lua_State *L)
{
    tdl_state *S = TDL_STATE(L);
    tdl_pay(L, S);
    tdl_slot *s = tdl_new(L);
    return convert(L, S, s, NULL, true, (td_dtype)lua_tointeger(L, lua_upvalueindex(3)));
}

void tdl_open_convert(lua_State *L, tdl_state *S)
{
    static const luaL_Reg methods[] = {{"clone", m_clone}, {"detach", m_detach},   {"contiguous", m_contiguous},
                                       {"t", m_t},         {"to", m_to},           {"cpu", m_cpu},
                                       {"cuda", m_cuda},   {"type_as", m_type_as}, {NULL, NULL}};
    lua_rawgeti(L, LUA_REGISTRYINDEX, S->methods);
    tdl_register(L, S, methods);
    for (int dt = 0; dt < TD_N_DTYPES; dt++) {
        lua_rawgeti(L, LUA_REGISTRYINDEX, S->tensor_mt);
        lua_pushlightuserdata(L, S);
        lua_pushinteger(L, dt);
        lua_pushcclosure(L, m_as_dtype, 3);
        lua_setfield(L, -2, td_dtype_name((td_dtype)dt));
    }
    lua_pop(L, 1);
}

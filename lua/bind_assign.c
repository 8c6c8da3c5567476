/* bind_assign.c - tensors that are filled in place: with another's elements, a value, random numbers. */
#include "bind.h"

td_tensor *tdl_number_at(lua_State *L, int arg)
{
    if (lua_type(L, arg) == LUA_TBOOLEAN) return td_integer(lua_toboolean(L, arg));
    return lua_isinteger(L, arg) ? td_integer(lua_tointeger(L, arg)) : td_number(lua_tonumber(L, arg));
}

/* Inside the stay: x = y everywhere; then returns x. */
static int assigned(lua_State *L, tdl_state *S, tdl_stay *stay, td_tensor *x, td_tensor *y)
{
    bool ok = y && td_tensor_assign(x, y);
    if (!tdl_leave(S, stay, ok)) return tdl_throw(L, S);
    lua_settop(L, 1);
    return 1;
}

static int assign_from(lua_State *L, const char *who)
{
    tdl_state *S = TDL_STATE(L);
    td_tensor *x = tdl_check_tensor(L, 1), *y = tdl_peek(L, 2);
    int type = lua_type(L, 2);
    if (!y && type != LUA_TNUMBER && type != LUA_TBOOLEAN)
        tdl_error(L, "%s: expected a Tensor or a number, got %s", who, tdl_what(L, 2));
    tdl_stay stay;
    tdl_enter(L, S, &stay);
    return assigned(L, S, &stay, x, y ? y : tdl_number_at(L, 2));
}

static int m_copy_(lua_State *L) { return assign_from(L, "copy_"); }

static int m_fill_(lua_State *L)
{
    td_tensor *v = tdl_peek(L, 2);
    if (v && td_numel(v) != 1)
        tdl_error(L, "fill_: expected one value, got a Tensor of %lld elements", (long long)td_numel(v));
    return assign_from(L, "fill_");
}

static int m_zero_(lua_State *L)
{
    tdl_state *S = TDL_STATE(L);
    td_tensor *x = tdl_check_tensor(L, 1);
    tdl_stay stay;
    tdl_enter(L, S, &stay);
    return assigned(L, S, &stay, x, td_integer(0));
}

static double number_or(lua_State *L, const char *who, int arg, double otherwise)
{
    if (lua_isnoneornil(L, arg)) return otherwise;
    if (lua_type(L, arg) != LUA_TNUMBER)
        tdl_error(L, "%s: argument %d: expected a number, got %s", who, arg - 1, tdl_what(L, arg));
    return lua_tonumber(L, arg);
}

/* Drawn on the CPU, so that every backend gets the same bits: normal: a mean, b deviation; uniform: a .. b */
static td_tensor *draw(tdl_state *S, td_tensor *x, bool normal, double a, double b)
{
    char before[64];
    const char *now = td_device_default();
    td_dtype dt = td_dtype_of(x) == TD_F64 ? TD_F64 : TD_F32;
    snprintf(before, sizeof before, "%s", now ? now : "cpu");
    bool move = strcmp(before, "cpu") != 0;
    if (move && !td_device_set_default("cpu")) return NULL;
    td_tensor *y = normal ? td_randn(td_shape(x), dt) : td_rand(td_shape(x), dt);
    y = td_add(td_mul(y, td_number(normal ? b : b - a)), td_number(a));
    if (!y) tdl_note_error(S); /* while it is pending the default could not be set back */
    if (move) td_device_set_default(before);
    return y;
}

static int draw_into(lua_State *L, const char *who, bool normal)
{
    tdl_state *S = TDL_STATE(L);
    td_tensor *x = tdl_check_tensor(L, 1);
    double a = number_or(L, who, 2, 0), b = number_or(L, who, 3, 1);
    if (!td_dtype_is_float(td_dtype_of(x)))
        tdl_error(L, "%s: expected a tensor of a float dtype, got %s", who, td_dtype_name(td_dtype_of(x)));
    if (!(a == a) || !(b == b) || (normal && b < 0) || (!normal && b < a))
        tdl_error(L,
                  normal ? "%s: expected a mean and a deviation >= 0, got %g and %g"
                         : "%s: expected low <= high, got %g and %g",
                  who, a, b);
    tdl_stay stay;
    tdl_enter(L, S, &stay);
    return assigned(L, S, &stay, x, draw(S, x, normal, a, b));
}

static int m_normal_(lua_State *L) { return draw_into(L, "normal_", true); }
static int m_uniform_(lua_State *L) { return draw_into(L, "uniform_", false); }

void tdl_open_assign(lua_State *L, tdl_state *S)
{
    static const luaL_Reg methods[] = {{"copy_", m_copy_},     {"fill_", m_fill_},       {"zero_", m_zero_},
                                       {"normal_", m_normal_}, {"uniform_", m_uniform_}, {NULL, NULL}};
    lua_rawgeti(L, LUA_REGISTRYINDEX, S->methods);
    tdl_register(L, S, methods);
    lua_pop(L, 1);
}

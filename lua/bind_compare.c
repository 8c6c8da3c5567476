/* bind_compare.c - tensors read as Lua values: one element, booleans of comparisons, whole tensors that are equal or close. */
#include "bind.h"

/* ---- values ---- */

static int m_item(lua_State *L)
{
    tdl_state *S = TDL_STATE(L);
    td_tensor *x = tdl_check_tensor(L, 1);
    td_dtype dt = td_dtype_of(x);
    union {
        double d;
        int64_t i;
        bool b;
    } v = {0};
    tdl_stay stay;
    tdl_enter(L, S, &stay);
    bool ok = TD->item(x, td_dtype_is_float(dt) ? TD_F64 : dt == TD_BOOL ? TD_BOOL : TD_I64, &v);
    if (!tdl_leave(S, &stay, ok)) return tdl_throw(L, S);
    if (td_dtype_is_float(dt)) lua_pushnumber(L, v.d);
    else if (dt == TD_BOOL) lua_pushboolean(L, v.b);
    else lua_pushinteger(L, v.i);
    return 1;
}

/* ---- comparisons of one-element tensors by < and <= ---- */

typedef struct {
    bool whole;
    int64_t i;
    double d;
} scalar;

/* Inside a stay where arg is a tensor. */
static bool read_scalar(lua_State *L, int arg, scalar *s)
{
    td_tensor *t = tdl_peek(L, arg);
    if (!t) {
        s->whole = lua_isinteger(L, arg);
        s->i = s->whole ? lua_tointeger(L, arg) : 0;
        s->d = lua_tonumber(L, arg);
        return true;
    }
    s->whole = !td_dtype_is_float(td_dtype_of(t));
    if (!s->whole) return TD->item(t, TD_F64, &s->d);
    if (!TD->item(t, TD_I64, &s->i)) return false;
    s->d = (double)s->i;
    return true;
}

static int compare(lua_State *L, bool or_equal)
{
    tdl_state *S = TDL_STATE(L);
    scalar a, b;
    for (int arg = 1; arg <= 2; arg++) {
        td_tensor *t = tdl_peek(L, arg);
        if (!t && lua_type(L, arg) != LUA_TNUMBER)
            tdl_error(L, "cannot compare a Tensor with %s", tdl_what(L, tdl_peek(L, 1) ? 2 : 1));
        if (t && td_numel(t) != 1)
            tdl_error(L, "%s gives one boolean and works on tensors of one element; use x:%s(y) for a mask",
                      or_equal ? "<=" : "<", or_equal ? "le" : "lt");
    }
    tdl_stay stay;
    tdl_enter(L, S, &stay);
    bool ok = read_scalar(L, 1, &a) && read_scalar(L, 2, &b);
    if (!tdl_leave(S, &stay, ok)) return tdl_throw(L, S);
    if (a.whole && b.whole) lua_pushboolean(L, or_equal ? a.i <= b.i : a.i < b.i);
    else lua_pushboolean(L, or_equal ? a.d <= b.d : a.d < b.d);
    return 1;
}

static int t_lt(lua_State *L) { return compare(L, false); }
static int t_le(lua_State *L) { return compare(L, true); }

/* ---- comparing whole tensors ---- */

/* |x - y| <= atol + rtol |y| everywhere, or equal (infinities) */
static bool all_close(td_tensor *x, td_tensor *y, double rtol, double atol, bool *close)
{
    if (!td_dtype_is_float(td_dtype_of(x))) x = td_cast(x, TD_F64);
    td_tensor *limit = td_add(td_mul(td_abs(y), td_number(rtol)), td_number(atol));
    td_tensor *near = td_logical_or(td_le(td_abs(td_sub(x, y)), limit), td_eq(x, y));
    td_ints none = {0, {0}};
    return TD->item(td_all(near, none, false), TD_BOOL, close);
}

static double tolerance(lua_State *L, const char *name, double otherwise)
{
    if (lua_type(L, 3) != LUA_TTABLE) return otherwise;
    lua_pushstring(L, name);
    lua_rawget(L, 3);
    if (!lua_isnil(L, -1)) {
        if (lua_type(L, -1) != LUA_TNUMBER || !(lua_tonumber(L, -1) >= 0))
            tdl_error(L, "allclose: %s: expected a number >= 0, got %s", name, tdl_what(L, -1));
        otherwise = lua_tonumber(L, -1);
    }
    lua_pop(L, 1);
    return otherwise;
}

static int m_allclose(lua_State *L)
{
    tdl_state *S = TDL_STATE(L);
    lua_settop(L, 3);
    if (!lua_isnil(L, 3) && lua_type(L, 3) != LUA_TTABLE)
        tdl_error(L, "allclose: expected a table {rtol = …, atol = …}, got %s", tdl_what(L, 3));
    double rtol = tolerance(L, "rtol", 1e-5), atol = tolerance(L, "atol", 1e-8);
    tdl_pay(L, S);
    td_tensor *x = tdl_check_tensor(L, 1), *y = tdl_peek(L, 2);
    if (!y && lua_type(L, 2) != LUA_TNUMBER)
        tdl_error(L, "allclose: expected a Tensor or a number, got %s", tdl_what(L, 2));
    bool close = false;
    tdl_stay stay;
    tdl_enter(L, S, &stay);
    bool before = td_grad_enable(false);
    if (!y) y = tdl_number_at(L, 2);
    bool ok = y && all_close(x, y, rtol, atol, &close);
    td_grad_enable(before);
    if (!tdl_leave(S, &stay, ok)) return tdl_throw(L, S);
    lua_pushboolean(L, close);
    return 1;
}

/* Same shape and equal elements. */
static int m_equal(lua_State *L)
{
    tdl_state *S = TDL_STATE(L);
    tdl_pay(L, S);
    td_tensor *x = tdl_check_tensor(L, 1), *y = tdl_check_tensor(L, 2);
    const td_view *a = td_view_of(x), *b = td_view_of(y);
    bool same = a->nd == b->nd;
    for (int i = 0; same && i < a->nd; i++) same = a->dim[i] == b->dim[i];
    if (same) {
        td_ints none = {0, {0}};
        tdl_stay stay;
        tdl_enter(L, S, &stay);
        bool ok = TD->item(td_all(td_eq(x, y), none, false), TD_BOOL, &same);
        if (!tdl_leave(S, &stay, ok)) return tdl_throw(L, S);
    }
    lua_pushboolean(L, same);
    return 1;
}

void tdl_open_compare(lua_State *L, tdl_state *S)
{
    static const luaL_Reg methods[] = {{"item", m_item}, {"allclose", m_allclose}, {"equal", m_equal}, {NULL, NULL}};
    static const luaL_Reg events[] = {{"__lt", t_lt}, {"__le", t_le}, {NULL, NULL}};
    lua_rawgeti(L, LUA_REGISTRYINDEX, S->methods);
    tdl_register(L, S, methods);
    lua_rawgeti(L, LUA_REGISTRYINDEX, S->tensor_mt);
    tdl_register(L, S, events);
    lua_pop(L, 2);
}

/* bind_tensor.c - tensor userdata: life, properties, and the methods that are no ops. */
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

/* ---- copies, dtypes and devices ---- */

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

/* ---- in place ---- */

/* Inside the stay: x = y everywhere; then returns x. */
static int assigned(lua_State *L, tdl_state *S, tdl_stay *stay, td_tensor *x, td_tensor *y)
{
    bool ok = y && td_tensor_assign(x, y);
    if (!tdl_leave(S, stay, ok)) return tdl_throw(L, S);
    lua_settop(L, 1);
    return 1;
}

static td_tensor *number_at(lua_State *L, int arg)
{
    if (lua_type(L, arg) == LUA_TBOOLEAN) return td_integer(lua_toboolean(L, arg));
    return lua_isinteger(L, arg) ? td_integer(lua_tointeger(L, arg)) : td_number(lua_tonumber(L, arg));
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
    return assigned(L, S, &stay, x, y ? y : number_at(L, 2));
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
    if (!y) y = number_at(L, 2);
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

static const luaL_Reg methods[] = {{"shape", m_shape},
                                   {"stride", m_stride},
                                   {"dim", m_dim},
                                   {"numel", m_numel},
                                   {"size", m_size},
                                   {"is_contiguous", m_is_contiguous},
                                   {"free", m_free},
                                   {"clone", m_clone},
                                   {"detach", m_detach},
                                   {"contiguous", m_contiguous},
                                   {"t", m_t},
                                   {"to", m_to},
                                   {"cpu", m_cpu},
                                   {"cuda", m_cuda},
                                   {"type_as", m_type_as},
                                   {"copy_", m_copy_},
                                   {"fill_", m_fill_},
                                   {"zero_", m_zero_},
                                   {"normal_", m_normal_},
                                   {"uniform_", m_uniform_},
                                   {"allclose", m_allclose},
                                   {"equal", m_equal},
                                   {"item", m_item},
                                   {"tostring", tdl_tensor_tostring},
                                   {NULL, NULL}};

static const luaL_Reg events[] = {{"__gc", tensor_gc},
                                  {"__close", m_free},
                                  {"__eq", t_eq},
                                  {"__len", t_len},
                                  {"__lt", t_lt},
                                  {"__le", t_le},
                                  {"__tostring", tdl_tensor_tostring},
                                  {NULL, NULL}};

static const luaL_Reg functions[] = {{"is_tensor", l_is_tensor},
                                     {"identity", l_identity},
                                     {"same_storage", l_same_storage},
                                     {"set_data", l_set_data},
                                     {NULL, NULL}};

static const luaL_Reg shape_events[] = {
    {"__tostring", shape_tostring}, {"__eq", shape_eq}, {"__concat", shape_concat}, {NULL, NULL}};

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
    for (int dt = 0; dt < TD_N_DTYPES; dt++) {
        lua_pushinteger(L, dt);
        set_with_upvalue(L, S, td_dtype_name((td_dtype)dt), m_as_dtype);
    }
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

    lua_rawgeti(L, LUA_REGISTRYINDEX, S->shape_mt);
    tdl_register(L, S, shape_events);
    lua_pop(L, 1);

    lua_rawgeti(L, LUA_REGISTRYINDEX, S->methods);
    lua_setfield(L, -2, "Tensor");
    tdl_register(L, S, functions);
}

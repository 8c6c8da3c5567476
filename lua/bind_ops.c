/* bind_ops.c - every op as a Lua function, method and in-place method; operators; methods that choose among ops.
 *
 * One descriptor an op, shared by its closures as their third upvalue. Ops of one or two plain tensors without options have
 * paths of their own: an add of two small tensors is what a script does most. */
#include "bind.h"
#include <stdlib.h>

/* ---- descriptors ---- */

static const char ops_key, op_meta_key; /* registry: table id -> descriptor, metatable of descriptors */

static int op_gc(lua_State *L)
{
    tdl_op *d = (tdl_op *)lua_touserdata(L, 1);
    if (d->dflt) td_options_clear(&d->op->attr, d->dflt);
    free(d->dflt);
    d->dflt = NULL;
    d->tried = -1;
    return 0;
}

static void describe(tdl_op *d, tdl_state *S, uint32_t id)
{
    memset(d, 0, sizeof *d);
    d->S = S;
    d->id = id;
    d->op = td_op_get(id);
    if (!tdl_sig_read(d->op->in, &d->in)) d->in.n = 0;
    tdl_sig_read(d->op->out, &d->out);
    for (uint32_t i = 0; i < d->out.n; i++) {
        if (d->out.at[i].aux) continue;
        d->n_shown++;
        d->n_room = i + 1;
        d->list_out |= d->out.at[i].list;
    }
    for (uint32_t i = 0; i < d->op->attr.n; i++)
        if (!tdl_opt(&d->op->attr, i)->dflt) d->n_required = i + 1;
    d->shares = d->op->flags & TD_OP_VIEW;
    d->creates = d->in.n == 0;
}

/* Pushes the descriptor of an op. */
static tdl_op *push_descriptor(lua_State *L, tdl_state *S, uint32_t id)
{
    lua_rawgetp(L, LUA_REGISTRYINDEX, &ops_key);
    lua_rawgeti(L, -1, (lua_Integer)id + 1);
    tdl_op *d = (tdl_op *)lua_touserdata(L, -1);
    if (!d) {
        lua_pop(L, 1);
        d = (tdl_op *)lua_newuserdatauv(L, sizeof *d, 0);
        describe(d, S, id);
        lua_rawgetp(L, LUA_REGISTRYINDEX, &op_meta_key);
        lua_setmetatable(L, -2);
        lua_pushvalue(L, -1);
        lua_rawseti(L, -3, (lua_Integer)id + 1);
    }
    lua_remove(L, -2);
    return d;
}

static tdl_op *op_of(lua_State *L) { return (tdl_op *)lua_touserdata(L, lua_upvalueindex(3)); }

static int call_op(lua_State *L) { return tdl_op_run(L, op_of(L), false); }
static int call_inplace(lua_State *L) { return tdl_op_run(L, op_of(L), true); }

/* ---- ops of one or two plain tensors without options ---- */

static inline int return_one(lua_State *L, const tdl_op *d, tdl_stay *stay, tdl_slot *s, td_tensor *out, bool ok)
{
    if (ok) tdl_fill(d->S, s, out, d->shares);
    if (tdl_unlikely(!tdl_leave(d->S, stay, ok))) return tdl_throw(L, d->S);
    return 1;
}

static int call_unary(lua_State *L)
{
    const tdl_op *d = op_of(L);
    if (tdl_unlikely(lua_gettop(L) != 1)) return call_op(L);
    tdl_pay(L, d->S);
    tdl_slot *s = tdl_new(L);
    td_tensor *x = tdl_peek(L, 1), *y = NULL;
    uint32_t n = 1;
    if (tdl_unlikely(!x)) {
        lua_settop(L, 1);
        return call_op(L);
    }
    tdl_stay stay;
    tdl_enter(L, d->S, &stay);
    bool ok = TD->call(d->id, &x, 1, NULL, &y, &n);
    return return_one(L, d, &stay, s, y, ok);
}

static inline td_tensor *plain_number(lua_State *L, int arg)
{
    return lua_isinteger(L, arg) ? td_integer(lua_tointeger(L, arg)) : td_number(lua_tonumber(L, arg));
}

static int call_binary(lua_State *L)
{
    const tdl_op *d = op_of(L);
    if (tdl_unlikely(lua_gettop(L) != 2)) return call_op(L);
    tdl_pay(L, d->S);
    tdl_slot *s = tdl_new(L);
    td_tensor *in[2] = {tdl_peek(L, 1), tdl_peek(L, 2)}, *y = NULL;
    uint32_t n = 1;
    if (tdl_unlikely((!in[0] && lua_type(L, 1) != LUA_TNUMBER) || (!in[1] && lua_type(L, 2) != LUA_TNUMBER))) {
        lua_settop(L, 2);
        return call_op(L); /* it says what was expected */
    }
    tdl_stay stay;
    tdl_enter(L, d->S, &stay);
    if (!in[0]) in[0] = plain_number(L, 1);
    if (!in[1]) in[1] = plain_number(L, 2);
    bool ok = TD->call(d->id, in, 2, NULL, &y, &n);
    return return_one(L, d, &stay, s, y, ok);
}

static int call_binary_inplace(lua_State *L)
{
    const tdl_op *d = op_of(L);
    if (tdl_unlikely(lua_gettop(L) != 2)) return call_inplace(L);
    tdl_pay(L, d->S);
    td_tensor *in[2] = {tdl_peek(L, 1), tdl_peek(L, 2)};
    if (tdl_unlikely(!in[0] || (!in[1] && lua_type(L, 2) != LUA_TNUMBER))) return call_inplace(L);
    tdl_stay stay;
    tdl_enter(L, d->S, &stay);
    td_tensor *out = in[0];
    if (!in[1]) in[1] = plain_number(L, 2);
    bool ok = TD->call_into(d->id, in, 2, NULL, &out, 1);
    if (tdl_unlikely(!tdl_leave(d->S, &stay, ok))) return tdl_throw(L, d->S);
    lua_settop(L, 1);
    return 1;
}

/* -x is called with x twice. */
static int call_unm(lua_State *L)
{
    lua_settop(L, 1);
    return call_unary(L);
}

static void push_closure(lua_State *L, tdl_state *S, uint32_t id, lua_CFunction f)
{
    lua_rawgeti(L, LUA_REGISTRYINDEX, S->tensor_mt);
    lua_pushlightuserdata(L, S);
    push_descriptor(L, S, id);
    lua_pushcclosure(L, f, 3);
}

static bool is_plain(const tdl_op *d)
{
    return d->in.plain && !d->op->attr.n && d->n_shown == 1 && d->n_room == 1 && !d->list_out && !d->out.at[0].index;
}

void tdl_push_op(lua_State *L, tdl_state *S, uint32_t id)
{
    const tdl_op *d = push_descriptor(L, S, id);
    lua_pop(L, 1);
    push_closure(L, S, id, !is_plain(d) ? call_op : d->in.n == 1 ? call_unary : d->in.n == 2 ? call_binary : call_op);
}

/* Ops with one result, which may be put where the first input is. */
static bool has_inplace(const tdl_op *d)
{
    static const char *const never[] = {"copy", "cast", "where", "bernoulli", "one_hot", "nonzero", "nonzero_n"};
    for (size_t i = 0; i < sizeof never / sizeof *never; i++)
        if (!strcmp(d->op->name, never[i])) return false;
    return d->in.n && !d->in.at[0].list && !d->in.at[0].optional && !d->in.at[0].index && d->out.n == 1 &&
           d->n_shown == 1 && !d->list_out && !d->out.at[0].index && !d->shares;
}

void tdl_push_op_inplace(lua_State *L, tdl_state *S, uint32_t id)
{
    const tdl_op *d = push_descriptor(L, S, id);
    lua_pop(L, 1);
    if (!has_inplace(d)) lua_pushnil(L);
    else push_closure(L, S, id, is_plain(d) && d->in.n == 2 ? call_binary_inplace : call_inplace);
}

/* ---- max and min: of all elements, along an axis with indices, or of two tensors ---- */

static int call_extreme(lua_State *L)
{
    int which = 3; /* max: values and indices      */
    if (lua_isnoneornil(L, 2) && lua_gettop(L) <= 2) {
        lua_settop(L, 1);
        which = 4; /* amax: one value              */
    } else if (tdl_slot_at(L, 2)) {
        which = 5; /* maximum                      */
    }
    return tdl_op_run(L, (tdl_op *)lua_touserdata(L, lua_upvalueindex(which)), false);
}

/* A built-in op; td_op_find would look for plugins. */
static bool find_builtin(const char *name, uint32_t *id)
{
    uint32_t n = td_op_count();
    for (*id = 0; *id < n; ++*id) {
        const td_op *op = td_op_get(*id);
        if (op && !strcmp(op->name, name)) return true;
    }
    return false;
}

static void push_extreme(lua_State *L, tdl_state *S, const char *axis, const char *all, const char *two)
{
    uint32_t id[3] = {0, 0, 0};
    lua_rawgeti(L, LUA_REGISTRYINDEX, S->tensor_mt);
    lua_pushlightuserdata(L, S);
    if (!find_builtin(axis, &id[0]) || !find_builtin(all, &id[1]) || !find_builtin(two, &id[2])) {
        lua_pop(L, 2);
        lua_pushnil(L);
        return;
    }
    for (int i = 0; i < 3; i++) push_descriptor(L, S, id[i]);
    lua_pushcclosure(L, call_extreme, 5);
}

/* ---- the tables ---- */

/* core.op(name) -> the function of an op, loading the plugin that provides it; nil where there is none */
static int l_op(lua_State *L)
{
    tdl_state *S = TDL_STATE(L);
    if (lua_type(L, 1) != LUA_TSTRING) tdl_error(L, "op: expected a name, got %s", tdl_what(L, 1));
    lua_pushvalue(L, 1);
    if (lua_rawget(L, lua_upvalueindex(3)) != LUA_TNIL) return 1;
    uint32_t id = 0;
    tdl_stay stay;
    tdl_enter(L, S, &stay);
    const td_op *op = td_op_find(lua_tostring(L, 1), &id);
    bool failed = !op && td_failed();
    if (!tdl_leave(S, &stay, !failed)) return tdl_throw(L, S);
    if (!op) {
        lua_pushnil(L);
        return 1;
    }
    tdl_push_op(L, S, id);
    lua_pushvalue(L, 1);
    lua_pushvalue(L, -2);
    lua_rawset(L, lua_upvalueindex(3));
    return 1;
}

static void set_operators(lua_State *L, tdl_state *S)
{
    static const struct {
        const char *event, *op;
    } binary[] = {{"__add", "add"}, {"__sub", "sub"},       {"__mul", "mul"},          {"__div", "div"},
                  {"__pow", "pow"}, {"__mod", "remainder"}, {"__idiv", "floor_divide"}};
    uint32_t id;
    lua_rawgeti(L, LUA_REGISTRYINDEX, S->tensor_mt);
    for (size_t i = 0; i < sizeof binary / sizeof *binary; i++) {
        if (!find_builtin(binary[i].op, &id)) continue;
        tdl_push_op(L, S, id);
        lua_setfield(L, -2, binary[i].event);
    }
    if (find_builtin("neg", &id)) {
        push_closure(L, S, id, call_unm);
        lua_setfield(L, -2, "__unm");
    }
    lua_pop(L, 1);
}

/* ops table on top of the stack, methods below it */
static void add_op(lua_State *L, tdl_state *S, uint32_t id)
{
    const tdl_op *d = push_descriptor(L, S, id);
    const char *name = d->op->name;
    lua_pop(L, 1);
    tdl_push_op(L, S, id);
    if (d->in.n && !d->in.at[0].list && !d->in.at[0].optional) {
        lua_pushvalue(L, -1);
        lua_setfield(L, -4, name);
        tdl_push_op_inplace(L, S, id);
        if (lua_isnil(L, -1)) {
            lua_pop(L, 1);
        } else {
            lua_pushfstring(L, "%s_", name);
            lua_insert(L, -2);
            lua_rawset(L, -5);
        }
    }
    lua_setfield(L, -2, name);
}

void tdl_open_ops(lua_State *L, tdl_state *S)
{
    lua_newtable(L);
    lua_rawsetp(L, LUA_REGISTRYINDEX, &ops_key);
    lua_createtable(L, 0, 1);
    lua_pushcfunction(L, op_gc);
    lua_setfield(L, -2, "__gc");
    lua_rawsetp(L, LUA_REGISTRYINDEX, &op_meta_key);

    lua_rawgeti(L, LUA_REGISTRYINDEX, S->methods);
    lua_newtable(L);
    uint32_t n = td_op_count();
    for (uint32_t id = 0; id < n; id++)
        if (td_op_get(id)) add_op(L, S, id);
    static const char *const extreme[][3] = {{"max", "amax", "maximum"}, {"min", "amin", "minimum"}};
    for (int i = 0; i < 2; i++) {
        push_extreme(L, S, extreme[i][0], extreme[i][1], extreme[i][2]);
        lua_pushvalue(L, -1);
        lua_setfield(L, -4, extreme[i][0]);
        lua_setfield(L, -2, extreme[i][0]);
    }
    set_operators(L, S);
    /* core table, methods, ops */
    lua_rawgeti(L, LUA_REGISTRYINDEX, S->tensor_mt);
    lua_pushlightuserdata(L, S);
    lua_pushvalue(L, -3);
    lua_pushcclosure(L, l_op, 3);
    lua_setfield(L, -4, "op");
    lua_setfield(L, -3, "ops");
    lua_pop(L, 1);
}

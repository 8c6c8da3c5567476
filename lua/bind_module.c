/* bind_module.c - layers and losses: userdata over td_module. Containers and names of modules are Lua's (tide/nn). */
#include "bind.h"

static const char module_kind;
static const char *const META = "tide.core.Module";

typedef struct {
    const void *kind;
    td_module *m;
    const td_layer *layer;
    tdl_sig in, out;
} module;

static module *check_module(lua_State *L, int arg)
{
    module *m = (module *)tdl_test(L, arg, &module_kind, sizeof(module));
    if (tdl_unlikely(!m || !m->m)) tdl_error(L, "expected a core module, got %s", tdl_what(L, arg));
    return m;
}

static int module_gc(lua_State *L)
{
    module *m = (module *)tdl_test(L, 1, &module_kind, sizeof(module));
    if (!m || !m->m) return 0;
    td_module *given_up = m->m;
    m->m = NULL;
    td_module_release(given_up);
    return 0;
}

/* nn.Linear{784, 128}: one table without names is a list of arguments, unless the first option is itself a list. */
static bool unpacks(lua_State *L, const td_opts *s, int arg)
{
    if (lua_type(L, arg) != LUA_TTABLE) return false;
    if (!s->n) return true;
    int type = (int)(tdl_opt(s, 0)->type & 0xff);
    return type != TD_O_INTS && type != TD_O_NUMS && type != TD_O_AXES;
}

static const td_layer *find_layer(lua_State *L, tdl_state *S, const char *name)
{
    tdl_stay stay;
    tdl_enter(L, S, &stay);
    const td_layer *layer = td_layer_find(name);
    if (!tdl_leave(S, &stay, layer || !td_failed())) tdl_throw(L, S);
    return layer;
}

/* core.new_module(name, arguments...) */
static int l_new_module(lua_State *L)
{
    tdl_state *S = TDL_STATE(L);
    tdl_given g;
    if (lua_type(L, 1) != LUA_TSTRING) tdl_error(L, "new_module: expected a name, got %s", tdl_what(L, 1));
    const char *name = lua_tostring(L, 1);
    int last = lua_gettop(L), named = 0;
    tdl_pay(L, S);
    const td_layer *layer = find_layer(L, S, name);
    if (!layer) tdl_error(L, "no layer or loss is called '%.60s'", name);
    if (last > 1 && (tdl_is_named(L, last) || (last == 2 && unpacks(L, &layer->opts, 2)))) named = last--;

    module *m = (module *)lua_newuserdatauv(L, sizeof *m, 1);
    memset(m, 0, sizeof *m);
    m->kind = &module_kind;
    m->layer = layer;
    luaL_setmetatable(L, META);
    lua_newtable(L);
    lua_setiuservalue(L, -2, 1);
    if (!tdl_sig_read(layer->in ? layer->in : "x", &m->in) || !tdl_sig_read(layer->out ? layer->out : "y", &m->out))
        tdl_error(L, "%s: its signature has too many names", name);

    tdl_read_given(L, layer->name, &layer->opts, 2, last, named, NULL, NULL, &g);
    tdl_stay stay;
    tdl_enter(L, S, &stay);
    m->m = td_module_new(layer, &g.args);
    if (!tdl_leave(S, &stay, m->m != NULL)) return tdl_throw(L, S);
    return 1;
}

/* ---- forward ---- */

static int forward(lua_State *L)
{
    tdl_state *S = TDL_STATE(L);
    tdl_inputs in;
    tdl_slot *slot[TDL_MAX_NAMES];
    td_tensor *out[TDL_MAX_NAMES];
    module *m = check_module(L, 1);
    const char *who = m->layer->name;
    int last = lua_gettop(L);
    uint32_t n_out = m->out.n;
    tdl_pay(L, S);
    while (last > (int)m->in.n + 1 && lua_isnil(L, last)) last--;
    if (last > (int)m->in.n + 1)
        tdl_error(L, "%s: expected %u input%s, got %d", who, m->in.n, m->in.n == 1 ? "" : "s", last - 1);
    tdl_inputs_prepare(L, who, &m->in, 2, last, &in);
    luaL_checkstack(L, TDL_MAX_NAMES + 4, NULL);
    int base = lua_gettop(L);
    for (uint32_t i = 0; i < m->out.n; i++) slot[i] = m->out.at[i].aux ? NULL : tdl_new(L);
    m = check_module(L, 1); /* a finalizer may have run */
    tdl_inputs_fetch(L, who, &m->in, 2, last, &in);

    tdl_stay stay;
    tdl_enter(L, S, &stay);
    td_tensor *x = in.n ? in.in[0] : NULL;
    bool ok = tdl_inputs_finish(&m->in, &in) && td_module_forward(m->m, in.in, in.n, out, &n_out);
    for (uint32_t i = 0; ok && i < m->out.n; i++) {
        if (!slot[i]) continue;
        td_tensor *y = i < n_out ? out[i] : NULL;
        if (y && m->out.at[i].index) y = tdl_index_out(y);
        if (!y) ok = td_fail("%s: output '%s' is missing", who, m->out.at[i].name) != NULL;
        else tdl_fill(S, slot[i], y, x && td_tensor_same_storage(x, y));
    }
    if (!tdl_leave(S, &stay, ok)) return tdl_throw(L, S);
    return lua_gettop(L) - base;
}

/* m:forward_act(then, x) -> what then(m(x)) gives, computed as one op, or nil where the two do not go together that way */
static int forward_act(lua_State *L)
{
    tdl_state *S = TDL_STATE(L);
    tdl_pay(L, S);
    module *m = check_module(L, 1), *then = check_module(L, 2);
    td_tensor *x = tdl_peek(L, 3), *y = NULL;
    if (!x || !td_module_can_chain(m->m, then->m)) return 0;
    tdl_slot *slot = tdl_new(L);
    tdl_stay stay;
    tdl_enter(L, S, &stay);
    bool ok = td_module_forward_act(m->m, then->m, x, &y);
    if (ok && y) tdl_fill(S, slot, y, false);
    if (!tdl_leave(S, &stay, ok)) return tdl_throw(L, S);
    return y ? 1 : 0;
}

/* ---- tensors ---- */

/* Pushes the userdata of a tensor of the module, the same one each time; the cache lies at `cache`. */
static void push_own(lua_State *L, tdl_state *S, int cache, const char *name, td_tensor *t)
{
    if (lua_getfield(L, cache, name) == LUA_TUSERDATA && tdl_peek(L, -1) == t) return;
    lua_pop(L, 1);
    tdl_push_tensor(L, S, t, true);
    lua_pushvalue(L, -1);
    lua_setfield(L, cache, name);
}

/* m:tensors() -> {{name = …, tensor = …, is_buffer = …}, …} */
static int m_tensors(lua_State *L)
{
    tdl_state *S = TDL_STATE(L);
    module *m = check_module(L, 1);
    lua_settop(L, 1);
    lua_getiuservalue(L, 1, 1);
    lua_newtable(L);
    for (uint32_t i = 0;; i++) {
        const char *name = NULL;
        bool is_buffer = false;
        td_tensor *t = td_module_tensor(m->m, i, &name, &is_buffer);
        if (!t) break;
        lua_createtable(L, 0, 3);
        lua_pushstring(L, name);
        lua_setfield(L, -2, "name");
        push_own(L, S, 2, name, t);
        lua_setfield(L, -2, "tensor");
        lua_pushboolean(L, is_buffer);
        lua_setfield(L, -2, "is_buffer");
        lua_rawseti(L, 3, (lua_Integer)i + 1);
    }
    return 1;
}

/* m:set_tensor(name, tensor) */
static int m_set_tensor(lua_State *L)
{
    tdl_state *S = TDL_STATE(L);
    module *m = check_module(L, 1);
    if (lua_type(L, 2) != LUA_TSTRING) tdl_error(L, "set_tensor: expected a name, got %s", tdl_what(L, 2));
    td_tensor *t = tdl_check_tensor(L, 3);
    tdl_stay stay;
    tdl_enter(L, S, &stay);
    if (!tdl_leave(S, &stay, td_module_set_tensor(m->m, lua_tostring(L, 2), t))) return tdl_throw(L, S);
    lua_getiuservalue(L, 1, 1);
    lua_pushvalue(L, 2);
    lua_pushvalue(L, 3);
    lua_rawset(L, -3);
    return 0;
}

/* ---- the rest ---- */

static int m_train(lua_State *L)
{
    tdl_state *S = TDL_STATE(L);
    module *m = check_module(L, 1);
    bool on = lua_isnoneornil(L, 2) || lua_toboolean(L, 2);
    tdl_stay stay;
    tdl_enter(L, S, &stay);
    td_module_train(m->m, on);
    if (!tdl_leave(S, &stay, !td_failed())) return tdl_throw(L, S);
    lua_settop(L, 1);
    return 1;
}

static int m_name(lua_State *L)
{
    lua_pushstring(L, check_module(L, 1)->layer->name);
    return 1;
}

/* m:options() -> {in_features = 3, …} as they would be given */
static int m_options(lua_State *L)
{
    tdl_state *S = TDL_STATE(L);
    module *m = check_module(L, 1);
    const td_opts *s = &m->layer->opts;
    const void *o = td_module_options(m->m);
    lua_createtable(L, 0, (int)s->n);
    for (uint32_t i = 0; i < s->n; i++) {
        td_value v;
        tdl_stay stay;
        tdl_enter(L, S, &stay);
        if (!tdl_leave(S, &stay, td_option_get(s, i, o, &v))) return tdl_throw(L, S);
        tdl_push_value(L, &v);
        lua_setfield(L, -2, tdl_opt(s, i)->name);
    }
    return 1;
}

static int m_usage(lua_State *L)
{
    module *m = check_module(L, 1);
    char text[1024];
    td_options_usage(&m->layer->opts, m->layer->name, text, sizeof text);
    lua_pushstring(L, text);
    return 1;
}

static int m_tostring(lua_State *L)
{
    module *m = check_module(L, 1);
    lua_pushfstring(L, "core module %s", m->layer->name);
    return 1;
}

void tdl_open_module(lua_State *L, tdl_state *S)
{
    static const luaL_Reg methods[] = {{"forward", forward},   {"forward_act", forward_act}, {"train", m_train},
                                       {"tensors", m_tensors}, {"set_tensor", m_set_tensor}, {"options", m_options},
                                       {"name", m_name},       {"usage", m_usage},           {NULL, NULL}};
    static const luaL_Reg events[] = {
        {"__gc", module_gc}, {"__call", forward}, {"__tostring", m_tostring}, {NULL, NULL}};
    static const luaL_Reg functions[] = {{"new_module", l_new_module}, {NULL, NULL}};
    tdl_push_class(L, S, META, events, methods);
    lua_pop(L, 1);
    tdl_register(L, S, functions);
}

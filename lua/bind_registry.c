/* bind_registry.c - what is there: ops, layers, losses, optimizers, plugins, and what each of them takes. */
#include "bind.h"
#include "bind_list.h"
#include <stdlib.h>

/* ---- lists that the core's callbacks fill ---- */

static int list_gc(lua_State *L)
{
    tdl_list *l = (tdl_list *)lua_touserdata(L, 1);
    free(l->p);
    memset(l, 0, sizeof *l);
    return 0;
}

tdl_list *tdl_list_push(lua_State *L)
{
    tdl_list *l = (tdl_list *)lua_newuserdatauv(L, sizeof *l, 0);
    memset(l, 0, sizeof *l);
    lua_createtable(L, 0, 1);
    lua_pushcfunction(L, list_gc);
    lua_setfield(L, -2, "__gc");
    lua_setmetatable(L, -2);
    return l;
}

void tdl_list_add(tdl_list *l, const char *s)
{
    if (!s) s = "\1";
    size_t len = strlen(s) + 1;
    if (len > l->room - l->n) {
        size_t room = (l->room + len) * 2;
        char *p = (char *)realloc(l->p, room);
        if (!p) {
            l->failed = true;
            return;
        }
        l->p = p;
        l->room = room;
    }
    memcpy(l->p + l->n, s, len);
    l->n += len;
}

bool tdl_list_next(lua_State *L, const tdl_list *l, size_t *at)
{
    if (l->failed) tdl_error(L, "tide: out of memory");
    if (*at >= l->n) return false;
    const char *s = l->p + *at;
    *at += strlen(s) + 1;
    if (!strcmp(s, "\1")) lua_pushnil(L);
    else lua_pushstring(L, s);
    return true;
}

/* ---- names ---- */

static void see_name(void *arg, const char *name, const char *plugin)
{
    (void)plugin;
    tdl_list_add((tdl_list *)arg, name);
}

/* Sorts the table on top of the stack and drops equal neighbours. */
static void sort_unique(lua_State *L)
{
    lua_getglobal(L, "table");
    lua_getfield(L, -1, "sort");
    lua_pushvalue(L, -3);
    lua_call(L, 1, 0);
    lua_pop(L, 1);
    lua_newtable(L);
    lua_Integer n = (lua_Integer)lua_rawlen(L, -2), to = 0;
    for (lua_Integer i = 1; i <= n; i++) {
        lua_rawgeti(L, -2, i);
        lua_rawgeti(L, -2, to);
        bool same = lua_rawequal(L, -1, -2);
        lua_pop(L, 1);
        if (same) lua_pop(L, 1);
        else lua_rawseti(L, -2, ++to);
    }
    lua_remove(L, -2);
}

/* core.layers(kind) -> sorted names of a kind: "layer", "loss", "optim", "op", "backend", "kernel" */
static int l_layers(lua_State *L)
{
    tdl_state *S = TDL_STATE(L);
    const char *kind = lua_isnoneornil(L, 1) ? "layer" : lua_type(L, 1) == LUA_TSTRING ? lua_tostring(L, 1) : NULL;
    if (!kind) tdl_error(L, "layers: expected a kind such as \"layer\", got %s", tdl_what(L, 1));
    tdl_list *l = tdl_list_push(L);
    tdl_stay stay;
    tdl_enter(L, S, &stay);
    td_each_provided(kind, see_name, l);
    if (!strcmp(kind, "op")) /* the built-in ones, which no plugin announces */
        for (uint32_t id = 0, n = td_op_count(); id < n; id++)
            if (td_op_get(id)) tdl_list_add(l, td_op_get(id)->name);
    if (!tdl_leave(S, &stay, !td_failed())) return tdl_throw(L, S);
    lua_newtable(L);
    size_t at = 0;
    for (lua_Integer i = 1; tdl_list_next(L, l, &at); i++) lua_rawseti(L, -2, i);
    sort_unique(L);
    return 1;
}

/* ---- what a thing takes ---- */

static void set_string(lua_State *L, const char *key, const char *s)
{
    if (!s) return;
    lua_pushstring(L, s);
    lua_setfield(L, -2, key);
}

static const char *type_name(const td_opt *o)
{
    static const char *const name[] = {"integer", "number", "boolean",  "string",  "string", "dtype",
                                       "axis",    "index",  "integers", "numbers", "axes"};
    uint32_t type = o->type & 0xff;
    return type < sizeof name / sizeof *name ? name[type] : "?";
}

static void push_options(lua_State *L, const td_opts *s)
{
    lua_createtable(L, (int)s->n, 0);
    for (uint32_t i = 0; i < s->n; i++) {
        const td_opt *o = tdl_opt(s, i);
        lua_createtable(L, 0, 7);
        set_string(L, "name", o->name);
        set_string(L, "type", type_name(o));
        set_string(L, "default", o->dflt);
        set_string(L, "allowed", o->allowed);
        set_string(L, "doc", o->doc);
        lua_pushboolean(L, !o->dflt);
        lua_setfield(L, -2, "required");
        lua_pushboolean(L, (o->type & TD_OPT_LIVE) != 0);
        lua_setfield(L, -2, "live");
        lua_rawseti(L, -2, (lua_Integer)i + 1);
    }
}

static void push_places(lua_State *L, const char *signature)
{
    static const struct {
        char mark;
        const char *key;
    } marks[] = {{'?', "optional"}, {'#', "index"}, {'~', "mask"},  {'!', "auxiliary"},
                 {'&', "written"},  {'*', "list"},  {'.', "scalar"}};
    lua_newtable(L);
    lua_Integer n = 0;
    for (const char *p = signature ? signature : ""; *(p += strspn(p, " ")); p += strcspn(p, " ")) {
        size_t len = strcspn(p, " ?#~!&*."), end = strcspn(p, " ");
        lua_newtable(L);
        lua_pushlstring(L, p, len);
        lua_setfield(L, -2, "name");
        for (size_t i = len; i < end; i++)
            for (size_t k = 0; k < sizeof marks / sizeof *marks; k++) {
                if (p[i] != marks[k].mark) continue;
                lua_pushboolean(L, 1);
                lua_setfield(L, -2, marks[k].key);
            }
        lua_rawseti(L, -2, ++n);
    }
}

static void push_info(lua_State *L, const char *kind, const char *name, const char *doc, const td_opts *s,
                      const char *in, const char *out)
{
    char usage[2048];
    lua_createtable(L, 0, 8);
    set_string(L, "name", name);
    set_string(L, "doc", doc);
    set_string(L, "kind", kind);
    td_options_usage(s, name, usage, sizeof usage);
    set_string(L, "usage", usage);
    push_options(L, s);
    lua_setfield(L, -2, "options");
    if (!in && !out) return;
    push_places(L, in);
    lua_setfield(L, -2, "inputs");
    push_places(L, out);
    lua_setfield(L, -2, "outputs");
}

static const char *name_at(lua_State *L, const char *who)
{
    if (lua_type(L, 1) != LUA_TSTRING) tdl_error(L, "%s: expected a name, got %s", who, tdl_what(L, 1));
    return lua_tostring(L, 1);
}

/* core.layer_info(name) -> table, or nil where there is no such layer or loss */
static int l_layer_info(lua_State *L)
{
    tdl_state *S = TDL_STATE(L);
    const char *name = name_at(L, "layer_info");
    tdl_stay stay;
    tdl_enter(L, S, &stay);
    const td_layer *t = td_layer_find(name);
    if (!tdl_leave(S, &stay, t || !td_failed())) return tdl_throw(L, S);
    if (!t) {
        lua_pushnil(L);
        return 1;
    }
    push_info(L, t->kind == TD_LOSS ? "loss" : "layer", t->name, t->doc, &t->opts, t->in ? t->in : "x",
              t->out ? t->out : "y");
    lua_pushboolean(L, t->forward_act != NULL); /* it may apply the activation behind it */
    lua_setfield(L, -2, "absorbs");
    lua_pushboolean(L, t->acts_as != NULL); /* it is one */
    lua_setfield(L, -2, "activates");
    return 1;
}

static int l_optim_info(lua_State *L)
{
    tdl_state *S = TDL_STATE(L);
    const char *name = name_at(L, "optim_info");
    tdl_stay stay;
    tdl_enter(L, S, &stay);
    const td_optim *t = td_optim_find(name);
    if (!tdl_leave(S, &stay, t || !td_failed())) return tdl_throw(L, S);
    if (!t) {
        lua_pushnil(L);
        return 1;
    }
    push_info(L, "optim", t->name, t->doc, &t->opts, NULL, NULL);
    set_string(L, "state", t->state);
    return 1;
}

static int l_op_info(lua_State *L)
{
    tdl_state *S = TDL_STATE(L);
    const char *name = name_at(L, "op_info");
    uint32_t id = 0;
    tdl_stay stay;
    tdl_enter(L, S, &stay);
    const td_op *t = td_op_find(name, &id);
    if (!tdl_leave(S, &stay, t || !td_failed())) return tdl_throw(L, S);
    if (!t) {
        lua_pushnil(L);
        return 1;
    }
    push_info(L, "op", t->name, t->doc, &t->attr, t->in, t->out);
    lua_pushboolean(L, (t->flags & TD_OP_PRIM) != 0);
    lua_setfield(L, -2, "primitive");
    lua_pushboolean(L, (t->flags & TD_OP_VIEW) != 0);
    lua_setfield(L, -2, "view");
    lua_pushboolean(L, t->backward || (!(t->flags & TD_OP_PRIM) && t->decompose));
    lua_setfield(L, -2, "differentiable");
    return 1;
}

/* core.has_kernel(op, device kind, dtype) */
static int l_has_kernel(lua_State *L)
{
    tdl_state *S = TDL_STATE(L);
    const char *name = name_at(L, "has_kernel");
    if (lua_type(L, 2) != LUA_TSTRING) tdl_error(L, "has_kernel: expected a device, got %s", tdl_what(L, 2));
    td_dtype dt = lua_isnoneornil(L, 3) ? TD_F32 : tdl_check_dtype(L, "has_kernel", 3);
    uint32_t id = 0;
    tdl_stay stay;
    tdl_enter(L, S, &stay);
    const td_op *t = td_op_find(name, &id);
    bool has = t && td_has_kernel(id, lua_tostring(L, 2), dt);
    if (!tdl_leave(S, &stay, !td_failed())) return tdl_throw(L, S);
    lua_pushboolean(L, has);
    return 1;
}

/* ---- plugins ---- */

enum { PLUGIN_FIELDS = 7 };
static const char *const plugin_field[PLUGIN_FIELDS] = {"path",     "name",  "version", "licence",
                                                        "provides", "state", "why"};

static void see_plugin(void *arg, const td_plugin_info *p)
{
    const char *const v[PLUGIN_FIELDS] = {p->path, p->name, p->version, p->licence, p->provides, p->state, p->why};
    for (int i = 0; i < PLUGIN_FIELDS; i++) tdl_list_add((tdl_list *)arg, v[i]);
}

static int l_plugins(lua_State *L)
{
    tdl_state *S = TDL_STATE(L);
    tdl_list *l = tdl_list_push(L);
    tdl_stay stay;
    tdl_enter(L, S, &stay);
    td_each_plugin(see_plugin, l);
    if (!tdl_leave(S, &stay, !td_failed())) return tdl_throw(L, S);
    lua_newtable(L);
    size_t at = 0;
    for (lua_Integer n = 1; at < l->n; n++) {
        lua_createtable(L, 0, PLUGIN_FIELDS);
        for (int i = 0; i < PLUGIN_FIELDS && tdl_list_next(L, l, &at); i++) lua_setfield(L, -2, plugin_field[i]);
        lua_rawseti(L, -2, n);
    }
    return 1;
}

static void see_dir(void *arg, const char *dir) { tdl_list_add((tdl_list *)arg, dir); }

static int l_plugin_dirs(lua_State *L)
{
    tdl_state *S = TDL_STATE(L);
    tdl_list *l = tdl_list_push(L);
    tdl_stay stay;
    tdl_enter(L, S, &stay);
    td_each_plugin_dir(see_dir, l);
    if (!tdl_leave(S, &stay, !td_failed())) return tdl_throw(L, S);
    lua_newtable(L);
    size_t at = 0;
    for (lua_Integer i = 1; tdl_list_next(L, l, &at); i++) lua_rawseti(L, -2, i);
    return 1;
}

/* core.plugin(path): loads one plugin now */
static int l_plugin(lua_State *L)
{
    tdl_state *S = TDL_STATE(L);
    if (lua_type(L, 1) != LUA_TSTRING) tdl_error(L, "plugin: expected a path, got %s", tdl_what(L, 1));
    tdl_stay stay;
    tdl_enter(L, S, &stay);
    if (!tdl_leave(S, &stay, td_plugin_load(lua_tostring(L, 1)))) return tdl_throw(L, S);
    lua_pushboolean(L, 1);
    return 1;
}

void tdl_open_registry(lua_State *L, tdl_state *S)
{
    static const luaL_Reg functions[] = {{"layers", l_layers},         {"layer", l_layer_info},
                                         {"layer_info", l_layer_info}, {"optim_info", l_optim_info},
                                         {"op_info", l_op_info},       {"has_kernel", l_has_kernel},
                                         {"plugins", l_plugins},       {"plugin_dirs", l_plugin_dirs},
                                         {"plugin", l_plugin},         {NULL, NULL}};
    tdl_register(L, S, functions);
}

/* bind_args.c - arguments: Lua values on their way to the core's option parser, and options on their way back.
 * Tables are read raw, so that no code of the script runs between the checks and the call. */
#include "bind.h"

bool tdl_is_named(lua_State *L, int arg)
{
    if (lua_type(L, arg) != LUA_TTABLE) return false;
    arg = lua_absindex(L, arg);
    bool found = false;
    lua_pushnil(L);
    while (!found && lua_next(L, arg)) {
        found = lua_type(L, -2) == LUA_TSTRING;
        lua_pop(L, found ? 2 : 1);
    }
    return found;
}

static int own_type(const td_opts *s, uint32_t i) { return (int)(tdl_opt(s, i)->type & 0xff); }
static bool is_list(int type) { return type == TD_O_INTS || type == TD_O_NUMS || type == TD_O_AXES; }

bool tdl_gathers(const td_opts *s, uint32_t k)
{
    if (k >= s->n || !is_list(own_type(s, k))) return false;
    for (uint32_t i = k + 1; i < s->n; i++) {
        int type = own_type(s, i);
        if (type == TD_O_INT || type == TD_O_NUM || type == TD_O_AXIS || type == TD_O_INDEX || is_list(type))
            return false;
    }
    return true;
}

/* ---- values ---- */

static td_value *take(lua_State *L, const char *who, tdl_given *g, uint32_t n)
{
    if (n > TDL_POOL - g->used) tdl_error(L, "%s: a list is too long: at most %d values fit", who, TDL_POOL);
    g->used += n;
    return &g->pool[g->used - n];
}

static void read_value(lua_State *L, const char *who, int arg, tdl_given *g, td_value *v, int depth)
{
    memset(v, 0, sizeof *v);
    switch (lua_type(L, arg)) {
    case LUA_TNONE:
    case LUA_TNIL: v->type = TD_VAL_NIL; return;
    case LUA_TBOOLEAN:
        v->type = TD_VAL_BOOL;
        v->as.b = lua_toboolean(L, arg);
        return;
    case LUA_TNUMBER:
        v->type = lua_isinteger(L, arg) ? TD_VAL_INT : TD_VAL_NUM;
        if (v->type == TD_VAL_INT) v->as.i = lua_tointeger(L, arg);
        else v->as.d = lua_tonumber(L, arg);
        return;
    case LUA_TSTRING:
        v->type = TD_VAL_STR;
        v->as.s = lua_tostring(L, arg);
        return;
    case LUA_TTABLE:
        if (depth < 2 && !tdl_is_named(L, arg)) {
            arg = lua_absindex(L, arg);
            lua_Unsigned n = lua_rawlen(L, arg);
            v->type = TD_VAL_LIST;
            v->as.list.n = (uint32_t)(n > TDL_POOL ? TDL_POOL + 1 : n);
            td_value *to = take(L, who, g, v->as.list.n);
            v->as.list.v = to;
            for (uint32_t i = 0; i < v->as.list.n; i++) {
                lua_rawgeti(L, arg, (lua_Integer)i + 1);
                read_value(L, who, -1, g, &to[i], depth + 1);
                lua_pop(L, 1);
            }
            return;
        }
        break;
    default: break;
    }
    v->type = TD_VAL_OTHER;
    v->as.s = tdl_what(L, arg);
}

void tdl_read_value(lua_State *L, const char *who, int arg, tdl_given *g, td_value *v)
{
    g->used = 0;
    read_value(L, who, arg, g, v, 0);
}

/* ---- what a call was given ---- */

typedef struct {
    lua_State *L;
    const char *who;
    const td_opts *schema;
    tdl_given *g;
    td_value *open; /* the list that further numbers belong to, or NULL */
} reader;

/* One more positional value, at stack index arg. Numbers in a row become one list where the schema lets them mean nothing else. */
static void add_positional(reader *r, int arg)
{
    lua_State *L = r->L;
    tdl_given *g = r->g;
    bool number = lua_type(L, arg) == LUA_TNUMBER;
    if (r->open && number) {
        read_value(L, r->who, arg, g, take(L, r->who, g, 1), 2);
        r->open->as.list.n++;
        return;
    }
    r->open = NULL;
    uint32_t k = g->args.n_pos;
    if (k == TDL_MAX_GIVEN) tdl_error(L, "%s: too many arguments", r->who);
    td_value *v = &g->pos[g->args.n_pos++];
    if (number && tdl_gathers(r->schema, k)) {
        td_value *first = take(L, r->who, g, 1);
        read_value(L, r->who, arg, g, first, 2);
        memset(v, 0, sizeof *v);
        v->type = TD_VAL_LIST;
        v->as.list.v = first;
        v->as.list.n = 1;
        r->open = v;
        return;
    }
    read_value(L, r->who, arg, g, v, 0);
}

static void add_named(reader *r, int named, tdl_own_key *own, void *arg)
{
    lua_State *L = r->L;
    tdl_given *g = r->g;
    lua_pushnil(L);
    while (lua_next(L, named)) {
        if (lua_type(L, -2) == LUA_TSTRING) {
            const char *key = lua_tostring(L, -2);
            if (!own || !own(L, arg, key)) {
                if (g->args.n_named == TDL_MAX_GIVEN) tdl_error(L, "%s: too many named arguments", r->who);
                td_named *n = &g->named[g->args.n_named++];
                n->name = key;
                read_value(L, r->who, -1, g, &n->value, 0);
            }
        } else if (!lua_isinteger(L, -2) || lua_tointeger(L, -2) < 1 ||
                   (lua_Unsigned)lua_tointeger(L, -2) > lua_rawlen(L, named)) {
            tdl_error(L, "%s: a named argument's name must be a string, got %s", r->who, tdl_what(L, -2));
        }
        lua_pop(L, 1);
    }
}

void tdl_read_given(lua_State *L, const char *who, const td_opts *schema, int first, int last, int named,
                    tdl_own_key *own, void *arg, tdl_given *g)
{
    reader r = {L, who, schema, g, NULL};
    memset(&g->args, 0, sizeof g->args);
    g->used = 0;
    for (int i = first; i <= last; i++) add_positional(&r, i);
    if (named) {
        lua_Unsigned n = lua_rawlen(L, named);
        for (lua_Unsigned i = 1; i <= n; i++) { /* nn.Linear{784, 128, bias = false} */
            lua_rawgeti(L, named, (lua_Integer)i);
            add_positional(&r, lua_gettop(L));
            lua_pop(L, 1);
        }
        add_named(&r, named, own, arg);
    }
    g->args.pos = g->pos;
    g->args.named = g->named;
}

void tdl_push_value(lua_State *L, const td_value *v)
{
    switch (v->type) {
    case TD_VAL_BOOL: lua_pushboolean(L, v->as.b); break;
    case TD_VAL_INT: lua_pushinteger(L, v->as.i); break;
    case TD_VAL_NUM: lua_pushnumber(L, v->as.d); break;
    case TD_VAL_STR: lua_pushstring(L, v->as.s); break;
    case TD_VAL_LIST:
        lua_createtable(L, (int)v->as.list.n, 0);
        for (uint32_t i = 0; i < v->as.list.n; i++) {
            tdl_push_value(L, &v->as.list.v[i]);
            lua_rawseti(L, -2, (lua_Integer)i + 1);
        }
        break;
    default: lua_pushnil(L); break;
    }
}

/* ---- common arguments ---- */

bool tdl_dtype_named(const char *name, td_dtype *dt)
{
    for (int i = 0; i < TD_N_DTYPES; i++) {
        if (strcmp(td_dtype_name((td_dtype)i), name)) continue;
        *dt = (td_dtype)i;
        return true;
    }
    return false;
}

td_dtype tdl_check_dtype(lua_State *L, const char *who, int arg)
{
    td_dtype dt = TD_F32;
    if (lua_type(L, arg) != LUA_TSTRING)
        tdl_error(L, "%s: expected a dtype such as \"f32\", got %s", who, tdl_what(L, arg));
    if (!tdl_dtype_named(lua_tostring(L, arg), &dt))
        tdl_error(L, "%s: unknown dtype \"%.40s\": there are f32, f64, f16, bf16, i64, i32, u8 and bool", who,
                  lua_tostring(L, arg));
    return dt;
}

void tdl_check_shape(lua_State *L, const char *who, int first, int last, td_ints *shape)
{
    bool table = lua_type(L, first) == LUA_TTABLE;
    lua_Unsigned n = table ? lua_rawlen(L, first) : (lua_Unsigned)(last - first + 1);
    if (n > TD_MAX_DIM)
        tdl_error(L, "%s: expected at most %d extents, got %llu", who, TD_MAX_DIM, (unsigned long long)n);
    shape->n = (int64_t)n;
    for (int i = 0; i < (int)n; i++) {
        if (table) lua_rawgeti(L, first, i + 1);
        else lua_pushvalue(L, first + i);
        int ok = lua_type(L, -1) == LUA_TNUMBER;
        shape->v[i] = ok ? lua_tointegerx(L, -1, &ok) : 0;
        if (!ok || shape->v[i] < 0)
            tdl_error(L, "%s: extent %d: expected an integer >= 0, got %s", who, i + 1,
                      ok ? "a negative one" : tdl_what(L, -1));
        lua_pop(L, 1);
    }
}

/* bind_op_options.c - options of ops the short way: their defaults, kept, and plain positional values over them. */
#include "bind.h"
#include <stdlib.h>

/* ---- defaults ---- */

/* A value that a required option of that type takes, so that the defaults of the others can be had. */
static void any_value(const td_opt *o, td_value *v, char *word, size_t room)
{
    static const td_value one = {TD_VAL_INT, {.i = 1}};
    memset(v, 0, sizeof *v);
    switch (o->type & 0xff) {
    case TD_O_BOOL: v->type = TD_VAL_BOOL; return;
    case TD_O_STR:
        v->type = TD_VAL_STR;
        v->as.s = "";
        return;
    case TD_O_ENUM:
        snprintf(word, room, "%.*s", (int)strcspn(o->allowed ? o->allowed : "", "|"), o->allowed ? o->allowed : "");
        v->type = TD_VAL_STR;
        v->as.s = word;
        return;
    case TD_O_DTYPE:
        v->type = TD_VAL_STR;
        v->as.s = "f32";
        return;
    case TD_O_INTS:
    case TD_O_NUMS:
    case TD_O_AXES:
        v->type = TD_VAL_LIST;
        v->as.list.v = &one;
        v->as.list.n = 1;
        return;
    default: *v = one; return;
    }
}

void tdl_op_make_defaults(lua_State *L, tdl_op *d)
{
    const td_opts *s = &d->op->attr;
    td_named named[TDL_MAX_GIVEN];
    char word[TDL_MAX_GIVEN][32];
    td_args given = {NULL, 0, named, 0};
    tdl_stay stay;
    d->tried = -1;
    if (!s->n || s->n > TDL_MAX_GIVEN) return;
    for (uint32_t i = 0; i < d->n_required; i++) {
        const td_opt *o = tdl_opt(s, i);
        if (o->dflt) continue;
        td_named *to = &named[given.n_named];
        to->name = o->name;
        any_value(o, &to->value, word[given.n_named++], sizeof word[0]);
    }
    void *out = calloc(1, s->out_size ? s->out_size : 1);
    if (!out) return;
    tdl_enter(L, d->S, &stay);
    bool ok = td_options_fill(s, d->op->name, &given, out);
    if (!tdl_leave(d->S, &stay, ok)) {
        d->S->noted = false; /* no defaults: then every call takes the long way */
        free(out);
        return;
    }
    d->dflt = out;
    d->tried = 1;
}

/* ---- options the short way: plain positional values of common types; false: td_options_fill must decide ---- */

static bool fast_int(lua_State *L, int arg, bool shift, int64_t *to)
{
    if (!lua_isinteger(L, arg)) return false;
    int64_t i = lua_tointeger(L, arg);
    if (shift && i == 0) return false;
    *to = shift && i > 0 ? i - 1 : i;
    return true;
}

/* A list: a table of integers, or the numbers from *arg on. */
static bool fast_ints(lua_State *L, int *arg, int last, bool gather, bool shift, td_ints *to)
{
    td_ints list = {0, {0}};
    if (lua_type(L, *arg) == LUA_TTABLE) {
        lua_Unsigned n = lua_rawlen(L, *arg);
        if (n > TD_MAX_LIST) return false;
        for (; list.n < (int64_t)n; list.n++) {
            lua_rawgeti(L, *arg, list.n + 1);
            bool ok = fast_int(L, -1, shift, &list.v[list.n]);
            lua_pop(L, 1);
            if (!ok) return false;
        }
    } else {
        int a = *arg;
        for (; a <= last && (a == *arg || gather) && lua_type(L, a) == LUA_TNUMBER; a++)
            if (list.n == TD_MAX_LIST || !fast_int(L, a, shift, &list.v[list.n++])) return false;
        if (!list.n) return false;
        *arg = a - 1;
    }
    *to = list;
    return true;
}

static bool fast_option(lua_State *L, const td_opts *s, uint32_t k, int *arg, int last, char *field)
{
    const td_opt *o = tdl_opt(s, k);
    if (o->allowed) return false;
    switch (o->type & 0xff) {
    case TD_O_INT: return fast_int(L, *arg, false, (int64_t *)field);
    case TD_O_AXIS:
    case TD_O_INDEX: return fast_int(L, *arg, true, (int64_t *)field);
    case TD_O_BOOL:
        if (lua_type(L, *arg) != LUA_TBOOLEAN) return false;
        *(bool *)field = lua_toboolean(L, *arg);
        return true;
    case TD_O_NUM: {
        if (lua_type(L, *arg) != LUA_TNUMBER) return false;
        double x = lua_tonumber(L, *arg);
        memcpy(field, &x, sizeof x);
        return x == x;
    }
    case TD_O_DTYPE:
        return lua_type(L, *arg) == LUA_TSTRING && tdl_dtype_named(lua_tostring(L, *arg), (td_dtype *)field);
    case TD_O_INTS: return fast_ints(L, arg, last, tdl_gathers(s, k), false, (td_ints *)field);
    case TD_O_AXES: return fast_ints(L, arg, last, tdl_gathers(s, k), true, (td_ints *)field);
    default: return false;
    }
}

bool tdl_op_fast_options(lua_State *L, const tdl_op *d, int first, int last, char *out)
{
    const td_opts *s = &d->op->attr;
    uint32_t k = 0;
    memcpy(out, d->dflt, s->out_size);
    for (int arg = first; arg <= last; arg++, k++) {
        if (k == s->n) return false;
        const td_opt *o = tdl_opt(s, k);
        if (lua_isnil(L, arg)) {
            if (!o->dflt) return false;
            continue;
        }
        if (!fast_option(L, s, k, &arg, last, out + o->off)) return false;
        if (o->has) *(bool *)(out + o->has - 1) = true;
    }
    return k >= d->n_required;
}

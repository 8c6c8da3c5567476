/* bind_ops.c - every op as a Lua function, method and in-place method; operators; methods that choose among ops.
 *
 * One descriptor an op, shared by its closures as their third upvalue. Ops of one or two plain tensors without options have
 * paths of their own: an add of two small tensors is what a script does most. */
#include "bind.h"
#include <stdlib.h>

enum { ATTR_ROOM = 1024, MAX_SHOWN = 12 };

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

static void make_defaults(lua_State *L, tdl_op *d)
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

static bool fast_options(lua_State *L, const tdl_op *d, int first, int last, char *out)
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

/* ---- calls ---- */

typedef struct {
    lua_State *L;
    tdl_op *d;
    int last, named; /* last positional argument; the table of named ones, or 0 */
    tdl_inputs in;
    const char *device; /* creation: where, or NULL                                */
    bool requires_grad;
    td_tensor *into; /* in-place form: the output                               */
    tdl_slot *slot[MAX_SHOWN];
    td_tensor *out[TD_MAX_OUT];
    uint32_t n_out;
} op_call;

/* Named values that are no options: optional tensors by their name, and what every creation takes. */
static bool own_key(lua_State *L, void *arg, const char *key)
{
    op_call *c = (op_call *)arg;
    const tdl_op *d = c->d;
    if (d->creates && !strcmp(key, "device")) {
        if (lua_type(L, -1) != LUA_TSTRING)
            tdl_error(L, "%s: device: expected a string, got %s", d->op->name, tdl_what(L, -1));
        c->device = lua_tostring(L, -1);
        return true;
    }
    if (d->creates && !strcmp(key, "requires_grad")) {
        c->requires_grad = lua_toboolean(L, -1);
        return true;
    }
    for (uint32_t i = 0; i < d->in.n && !d->in.n_list; i++) {
        if (!d->in.at[i].optional || strcmp(d->in.at[i].name, key)) continue;
        if (c->in.in[i]) tdl_error(L, "%s: %s was given twice", d->op->name, key);
        c->in.in[i] = tdl_peek(L, -1);
        if (!c->in.in[i]) tdl_error(L, "%s: %s: expected a Tensor, got %s", d->op->name, key, tdl_what(L, -1));
        return true;
    }
    return false;
}

static bool run_created(op_call *c, const void *attr)
{
    const tdl_op *d = c->d;
    char before[64] = "";
    if (c->device) {
        const char *now = td_device_default();
        snprintf(before, sizeof before, "%s", now ? now : "cpu");
        if (!td_device_set_default(c->device)) return false;
    }
    bool ok = TD->call(d->id, c->in.in, 0, attr, c->out, &c->n_out);
    for (uint32_t i = 0; ok && c->requires_grad && i < c->n_out; i++) ok = td_require_grad(c->out[i], true);
    if (!ok) tdl_note_error(d->S); /* or the default device could not be set back */
    if (*before) td_device_set_default(before);
    return ok;
}

/* Inside the stay: the op itself; visible results end up in out[0..n_shown). */
static bool run(op_call *c, const void *attr)
{
    const tdl_op *d = c->d;
    if (!tdl_inputs_finish(&d->in, &c->in)) return false;
    if (c->into) return TD->call_into(d->id, c->in.in, c->in.n, attr, &c->into, 1);
    c->n_out = d->list_out ? TD_MAX_OUT : d->n_room;
    if (d->creates) {
        if (!run_created(c, attr)) return false;
    } else if (!TD->call(d->id, c->in.in, c->in.n, attr, c->out, &c->n_out)) {
        return false;
    }
    if (d->list_out) return true;
    uint32_t shown = 0;
    for (uint32_t i = 0; i < d->n_room; i++) {
        if (d->out.at[i].aux) continue;
        td_tensor *t = c->out[i];
        if (d->out.at[i].index && !(t = tdl_index_out(t))) return false;
        c->out[shown++] = t;
    }
    return true;
}

/* A list of results: their number is only known now, so a holder owns them until each has its userdata. */
typedef struct {
    uint32_t n;
    td_tensor *t[TD_MAX_OUT];
} holder;

static int holder_gc(lua_State *L)
{
    holder *h = (holder *)lua_touserdata(L, 1);
    for (uint32_t i = 0; i < h->n; i++)
        if (h->t[i]) td_release(h->t[i]);
    h->n = 0;
    return 0;
}

static holder *push_holder(lua_State *L)
{
    static const char meta_key;
    holder *h = (holder *)lua_newuserdatauv(L, sizeof *h, 0);
    h->n = 0;
    if (lua_rawgetp(L, LUA_REGISTRYINDEX, &meta_key) == LUA_TNIL) {
        lua_pop(L, 1);
        lua_createtable(L, 0, 1);
        lua_pushcfunction(L, holder_gc);
        lua_setfield(L, -2, "__gc");
        lua_pushvalue(L, -1);
        lua_rawsetp(L, LUA_REGISTRYINDEX, &meta_key);
    }
    lua_setmetatable(L, -2);
    return h;
}

static int return_list(lua_State *L, tdl_state *S, holder *h, bool shares)
{
    lua_createtable(L, (int)h->n, 0);
    for (uint32_t i = 0; i < h->n; i++) {
        tdl_slot *s = tdl_new(L);
        tdl_fill(S, s, h->t[i], shares);
        td_release(h->t[i]);
        h->t[i] = NULL;
        lua_rawseti(L, -2, (lua_Integer)i + 1);
    }
    return 1;
}

static int finish(op_call *c, tdl_stay *stay, holder *h, bool ok)
{
    lua_State *L = c->L;
    const tdl_op *d = c->d;
    tdl_state *S = d->S;
    if (ok && h) {
        for (uint32_t i = 0; i < c->n_out; i++) h->t[h->n++] = td_keep(c->out[i]);
    } else if (ok && !c->into) {
        for (uint32_t i = 0; i < d->n_shown; i++) tdl_fill(S, c->slot[i], c->out[i], d->shares);
    }
    if (!tdl_leave(S, stay, ok)) return tdl_throw(L, S);
    if (h) return return_list(L, S, h, d->shares);
    if (c->into) {
        lua_settop(L, 1);
        return 1;
    }
    return (int)d->n_shown;
}

/* Options by the core's parser. */
static int call_given(op_call *c, holder *h, char *attr)
{
    lua_State *L = c->L;
    const tdl_op *d = c->d;
    const td_opts *s = &d->op->attr;
    tdl_given g;
    tdl_stay stay;
    tdl_read_given(L, d->op->name, s, (int)d->in.n + 1, c->last, c->named, own_key, c, &g);
    tdl_enter(L, d->S, &stay);
    bool parse = s->n || g.args.n_pos || g.args.n_named;
    memset(attr, 0, s->out_size);
    bool filled = !parse || td_options_fill(s, d->op->name, &g.args, attr);
    bool ok = filled && run(c, s->n ? attr : NULL);
    if (!ok) tdl_note_error(d->S);
    if (filled && parse) td_options_clear(s, attr);
    return finish(c, &stay, h, ok);
}

static int run_op(lua_State *L, tdl_op *d, bool inplace)
{
    op_call c;
    const char *who = d->op->name;
    int n_in = (int)d->in.n;
    _Alignas(16) char room[ATTR_ROOM];
    char *attr = room;
    c.L = L;
    c.d = d;
    c.device = NULL;
    c.requires_grad = false;
    c.into = NULL;
    tdl_pay(L, d->S);
    if (tdl_unlikely(!d->tried)) make_defaults(L, d);
    c.last = lua_gettop(L);
    c.named = c.last > 0 && tdl_is_named(L, c.last) ? c.last-- : 0;
    while (!c.named && c.last > n_in && lua_isnil(L, c.last)) c.last--;
    if (!d->op->attr.n && c.last > n_in)
        tdl_error(L, "%s: expected at most %d argument%s, got %d", who, n_in, n_in == 1 ? "" : "s", c.last);
    tdl_inputs_prepare(L, who, &d->in, 1, c.last, &c.in);
    if (d->op->attr.out_size > ATTR_ROOM) attr = (char *)lua_newuserdatauv(L, d->op->attr.out_size, 0);
    holder *h = d->list_out && !inplace ? push_holder(L) : NULL;
    for (uint32_t i = 0; !h && !inplace && i < d->n_shown; i++) c.slot[i] = tdl_new(L);
    tdl_inputs_fetch(L, who, &d->in, 1, c.last, &c.in);
    if (inplace && !(c.into = c.in.in[0])) tdl_error(L, "%s_: expected a Tensor, got %s", who, tdl_what(L, 1));

    const void *options = NULL;
    if (c.named) return call_given(&c, h, attr);
    if (d->op->attr.n) {
        if (c.last <= n_in && d->dflt && !d->n_required) options = d->dflt;
        else if (d->dflt && fast_options(L, d, n_in + 1, c.last, attr)) options = attr;
        else return call_given(&c, h, attr);
    }
    tdl_stay stay;
    tdl_enter(L, d->S, &stay);
    return finish(&c, &stay, h, run(&c, options));
}

static tdl_op *op_of(lua_State *L) { return (tdl_op *)lua_touserdata(L, lua_upvalueindex(3)); }

static int call_op(lua_State *L) { return run_op(L, op_of(L), false); }
static int call_inplace(lua_State *L) { return run_op(L, op_of(L), true); }

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
    return run_op(L, (tdl_op *)lua_touserdata(L, lua_upvalueindex(which)), false);
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

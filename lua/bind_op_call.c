/* bind_op_call.c - one call of an op from Lua: its tensors, its options, its results. */
#include "bind.h"

enum { ATTR_ROOM = 1024, MAX_SHOWN = 12 };

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

int tdl_op_run(lua_State *L, tdl_op *d, bool inplace)
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
    if (tdl_unlikely(!d->tried)) tdl_op_make_defaults(L, d);
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
        else if (d->dflt && tdl_op_fast_options(L, d, n_in + 1, c.last, attr)) options = attr;
        else return call_given(&c, h, attr);
    }
    tdl_stay stay;
    tdl_enter(L, d->S, &stay);
    return finish(&c, &stay, h, run(&c, options));
}

/* bind_conform.c - what the conformance suite (lua/tide/check.lua) asks of ops and layers: their samples, and their decompositions. */
#include "bind.h"
#include <stdlib.h>

enum { MAX_PLACES = 64 };

/* One case: its tensors, one reference each, and its options. */
typedef struct {
    const char *signature;
    const td_opts *schema;
    void *opts;
    uint32_t n;
    td_tensor *in[MAX_PLACES];
} sample_case;

static bool draw(sample_case *c, const char *who, td_samples *f, uint32_t i)
{
    tdl_sig sig;
    td_tensor *in[MAX_PLACES];
    uint32_t n = MAX_PLACES, at = 0;
    if (!tdl_sig_read(c->signature, &sig)) return false;
    if (!sig.n_list) n = sig.n;
    c->opts = calloc(1, c->schema->out_size ? c->schema->out_size : 1);
    if (!c->opts || !td_sample_case(c->schema, who, f, i, c->opts, in, &n)) return false;
    uint32_t n_list = sig.n_list ? (n - (sig.n - sig.n_list)) / sig.n_list : 0;
    for (uint32_t k = 0; k < sig.n; k++)
        for (uint32_t j = 0; j < (sig.at[k].list ? n_list : 1) && at < n; j++, at++) {
            td_tensor *t = in[at] && sig.at[k].index ? tdl_index_out(in[at]) : in[at];
            c->in[at] = t ? td_keep(t) : NULL;
        }
    c->n = at;
    return !td_failed();
}

static void drop_case(sample_case *c)
{
    for (uint32_t i = 0; i < c->n; i++) td_release(c->in[i]);
    free(c->opts);
}

static void push_place(lua_State *L, tdl_state *S, td_tensor *t)
{
    if (t) tdl_push_tensor(L, S, t, false);
    else lua_pushboolean(L, false);
}

static void push_inputs(lua_State *L, tdl_state *S, const sample_case *c)
{
    tdl_sig sig;
    uint32_t at = 0;
    tdl_sig_read(c->signature, &sig);
    uint32_t n_list = sig.n_list ? (c->n - (sig.n - sig.n_list)) / sig.n_list : 0;
    lua_createtable(L, (int)sig.n, 0);
    for (uint32_t k = 0; k < sig.n && at < c->n; k++) {
        if (sig.at[k].list) {
            lua_createtable(L, (int)n_list, 0);
            for (uint32_t j = 0; j < n_list; j++) {
                push_place(L, S, c->in[at++]);
                lua_rawseti(L, -2, (lua_Integer)j + 1);
            }
        } else {
            push_place(L, S, c->in[at++]);
        }
        lua_rawseti(L, -2, (lua_Integer)k + 1);
    }
}

static void push_options(lua_State *L, const sample_case *c)
{
    lua_newtable(L);
    for (uint32_t i = 0; i < c->schema->n; i++) {
        td_value v;
        if (!td_option_get(c->schema, i, c->opts, &v) || v.type == TD_VAL_NIL) continue;
        tdl_push_value(L, &v);
        lua_setfield(L, -2, tdl_opt(c->schema, i)->name);
    }
}

static int push_case(lua_State *L, const char *who, const char *signature, const td_opts *schema, td_samples *f)
{
    tdl_state *S = TDL_STATE(L);
    lua_Integer i = luaL_checkinteger(L, 2);
    sample_case c = {.signature = signature, .schema = schema};
    tdl_stay stay;
    tdl_enter(L, S, &stay);
    bool more = f && i >= 1 && draw(&c, who, f, (uint32_t)(i - 1));
    if (!tdl_leave(S, &stay, !td_failed())) {
        drop_case(&c);
        return tdl_throw(L, S);
    }
    if (more) {
        push_inputs(L, S, &c);
        push_options(L, &c);
    }
    drop_case(&c);
    return more ? 2 : 0;
}

/* op_sample(name, i) -> inputs (false: absent), options; nothing past the last case */
static int op_sample(lua_State *L)
{
    const td_op *op = td_op_find(luaL_checkstring(L, 1), NULL);
    return op ? push_case(L, op->name, op->in, &op->attr, op->sample) : 0;
}

static int layer_sample(lua_State *L)
{
    const td_layer *layer = td_layer_find(luaL_checkstring(L, 1));
    return layer ? push_case(L, layer->name, layer->in ? layer->in : "x", &layer->opts, layer->sample) : 0;
}

/* decompose(on) -> whether it was on */
static int decompose(lua_State *L)
{
    tdl_state *S = TDL_STATE(L);
    bool on = lua_toboolean(L, 1);
    tdl_stay stay;
    tdl_enter(L, S, &stay);
    bool before = td_decompose_enable(on);
    tdl_leave(S, &stay, true);
    lua_pushboolean(L, before);
    return 1;
}

/* op_traits(name) -> {primitive, view, random, differentiable, twice, decomposes} */
static int op_traits(lua_State *L)
{
    const td_op *op = td_op_find(luaL_checkstring(L, 1), NULL);
    if (!op) return 0;
    const struct {
        const char *name;
        bool value;
    } traits[] = {{"primitive", op->flags & TD_OP_PRIM},
                  {"view", op->flags & TD_OP_VIEW},
                  {"random", op->flags & TD_OP_RNG},
                  {"optional", op->flags & TD_OP_OPTIONAL},
                  {"differentiable", op->backward || op->decompose},
                  {"twice", !(op->flags & TD_OP_ONCE_DIFF)},
                  {"decomposes", op->decompose != NULL}};
    lua_newtable(L);
    for (size_t i = 0; i < sizeof traits / sizeof *traits; i++) {
        lua_pushboolean(L, traits[i].value);
        lua_setfield(L, -2, traits[i].name);
    }
    return 1;
}

void tdl_open_conform(lua_State *L, tdl_state *S)
{
    static const luaL_Reg functions[] = {{"op_sample", op_sample},
                                         {"layer_sample", layer_sample},
                                         {"op_traits", op_traits},
                                         {"decompose", decompose},
                                         {NULL, NULL}};
    tdl_register(L, S, functions);
}

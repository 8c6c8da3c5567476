/* bind_augment.c - chains of transforms, as lua/tide/data/transforms.lua describes them.
 *
 *     local chain = core.chain {{kind = "random_crop", h = 32, w = 32, pad = {4, 4, 4, 4}, fill = 0}, {kind = "flip_x", p = 0.5}}
 *     core.augment(x, chain, seed, epoch, first or rows)          -- a batch (N, …) of u8 or f32 → f32 */
#include "bind_augment.h"
#include <stdlib.h>

typedef struct {
    const void *kind;
    tdl_chain chain;
    float *numbers[TDL_MAX_STEPS]; /* means, then inverse deviations */
} holder;

static const char chain_kind;
static const char *const META = "tide.core.Chain";

const tdl_chain *tdl_chain_at(lua_State *L, int arg)
{
    holder *h = (holder *)tdl_test(L, arg, &chain_kind, sizeof(holder));
    return h ? &h->chain : NULL;
}

static int chain_gc(lua_State *L)
{
    holder *h = (holder *)tdl_test(L, 1, &chain_kind, sizeof(holder));
    for (int i = 0; h && i < TDL_MAX_STEPS; i++) {
        free(h->numbers[i]);
        h->numbers[i] = NULL;
    }
    return 0;
}

/* ---- a step from its table, which is on top of the stack ---- */

static double number(lua_State *L, const char *key, double otherwise, double least, double most)
{
    lua_getfield(L, -1, key);
    double v = lua_type(L, -1) == LUA_TNUMBER ? lua_tonumber(L, -1) : otherwise;
    lua_pop(L, 1);
    if (!(v >= least && v <= most))
        tdl_error(L, "chain: %s: expected a number from %g to %g, got %g", key, least, most, v);
    return v;
}

static double element(lua_State *L, const char *key, int i, double least, double most)
{
    if (lua_getfield(L, -1, key) != LUA_TTABLE) tdl_error(L, "chain: %s: expected a list", key);
    lua_rawgeti(L, -1, i);
    double v = lua_type(L, -1) == LUA_TNUMBER ? lua_tonumber(L, -1) : least - 1;
    lua_pop(L, 2);
    if (!(v >= least && v <= most)) tdl_error(L, "chain: %s: expected numbers from %g to %g", key, least, most);
    return v;
}

static void take_numbers(lua_State *L, holder *h, tdl_step *s)
{
    lua_getfield(L, -1, "mean");
    lua_Integer n = lua_type(L, -1) == LUA_TTABLE ? (lua_Integer)lua_rawlen(L, -1) : 0;
    lua_pop(L, 1);
    if (n < 1 || n > TDL_MAX_SIDE) tdl_error(L, "chain: mean: expected a list of numbers");
    float *v = (float *)malloc(2 * (size_t)n * sizeof *v);
    if (!v) tdl_error(L, "chain: out of memory");
    h->numbers[h->chain.n] = v;
    for (lua_Integer i = 0; i < n; i++) {
        v[i] = (float)element(L, "mean", (int)i + 1, -1e30, 1e30);
        v[n + i] = (float)(1 / element(L, "std", (int)i + 1, 1e-30, 1e30));
    }
    s->mean = v;
    s->inv_std = v + n;
    s->n = n;
}

static void take_size(lua_State *L, tdl_step *s)
{
    s->h = (int64_t)number(L, "h", 0, 1, TDL_MAX_SIDE);
    s->w = (int64_t)number(L, "w", 0, 1, TDL_MAX_SIDE);
}

static void take_border(lua_State *L, tdl_step *s)
{
    s->left = (int64_t)element(L, "pad", 1, 0, TDL_MAX_SIDE);
    s->right = (int64_t)element(L, "pad", 2, 0, TDL_MAX_SIDE);
    s->top = (int64_t)element(L, "pad", 3, 0, TDL_MAX_SIDE);
    s->bottom = (int64_t)element(L, "pad", 4, 0, TDL_MAX_SIDE);
}

static void take_step(lua_State *L, holder *h)
{
    static const char *const kinds[] = {"normalize", "pad", "center_crop", "random_crop", "flip_x", "flip_y", "erase"};
    tdl_step *s = &h->chain.step[h->chain.n];
    int kind = -1;
    if (lua_getfield(L, -1, "kind") == LUA_TSTRING)
        for (int k = 0; k < 7; k++)
            if (!strcmp(lua_tostring(L, -1), kinds[k])) kind = k;
    lua_pop(L, 1);
    if (kind < 0) tdl_error(L, "chain: step %d has no known kind", h->chain.n + 1);
    s->kind = (tdl_step_kind)kind;
    s->fill = number(L, "fill", 0, -1e30, 1e30);
    s->p = number(L, "p", 0, 0, 1);
    if (s->kind == TDL_NORMALIZE) take_numbers(L, h, s);
    if (s->kind == TDL_CENTER_CROP || s->kind == TDL_RANDOM_CROP) take_size(L, s);
    if (s->kind == TDL_PAD || s->kind == TDL_RANDOM_CROP) take_border(L, s);
    for (int i = 0; s->kind == TDL_ERASE && i < 2; i++) {
        s->area[i] = element(L, "area", i + 1, 0, 1);
        s->ratio[i] = element(L, "ratio", i + 1, 1e-3, 1e3);
    }
    h->chain.random |= s->kind >= TDL_RANDOM_CROP;
    h->chain.n++;
}

/* core.chain(steps) */
static int l_chain(lua_State *L)
{
    lua_settop(L, 1);
    if (lua_type(L, 1) != LUA_TTABLE) tdl_error(L, "chain: expected a list of steps, got %s", tdl_what(L, 1));
    lua_Integer n = (lua_Integer)lua_rawlen(L, 1);
    if (n > TDL_MAX_STEPS) tdl_error(L, "chain: expected at most %d transforms, got %lld", TDL_MAX_STEPS, (long long)n);
    holder *h = (holder *)lua_newuserdatauv(L, sizeof *h, 0);
    memset(h, 0, sizeof *h);
    h->kind = &chain_kind;
    luaL_setmetatable(L, META);
    for (lua_Integer i = 1; i <= n; i++) {
        if (lua_rawgeti(L, 1, i) != LUA_TTABLE) tdl_error(L, "chain: step %lld is %s", (long long)i, tdl_what(L, -1));
        take_step(L, h);
        lua_pop(L, 1);
    }
    return 1;
}

/* ---- whole batches ---- */

bool tdl_sample_extent(const char *who, const td_tensor *t, tdl_extent *e)
{
    int nd = td_ndim(t);
    if (nd < 2 || nd > 4)
        return td_fail("%s: transforms are for samples (C, H, W), (H, W) or (C), got samples of %d axes", who, nd - 1);
    *e = (tdl_extent){nd == 3 ? 1 : td_dim(t, 1), nd > 2 ? td_dim(t, nd - 2) : 1, nd > 2 ? td_dim(t, nd - 1) : 1};
    if (e->c > TDL_MAX_SIDE || e->h > TDL_MAX_SIDE || e->w > TDL_MAX_SIDE)
        return td_fail("%s: samples are too large", who);
    return true;
}

td_ints tdl_batch_shape(const td_tensor *t, int64_t n, tdl_extent to)
{
    td_ints shape = td_shape(t);
    shape.v[0] = n;
    if (shape.n == 2) shape.v[1] = to.c; /* a padded pixel is refused by the caller */
    if (shape.n > 2) {
        shape.v[shape.n - 2] = to.h;
        shape.v[shape.n - 1] = to.w;
    }
    return shape;
}

/* Inside a stay. rows: numbers of the samples, 1-based, or NULL: first, first + 1, … */
static td_tensor *augment(const tdl_chain *chain, td_tensor *x, tdl_draw d, int64_t first, td_tensor *rows)
{
    tdl_extent from, to;
    size_t room;
    char why[160];
    if (!tdl_sample_extent("augment", x, &from)) return NULL;
    if (!tdl_chain_extent(chain, from, &to, &room, why, sizeof why)) return td_fail("%s", why);
    if (td_ndim(x) == 2 && (to.h != 1 || to.w != 1))
        return td_fail("augment: samples (C) have no pixels to crop or pad");
    int64_t n = td_dim(x, 0), in = from.c * from.h * from.w, out = to.c * to.h * to.w;
    if (rows && (td_ndim(rows) != 1 || td_dim(rows, 0) != n || td_dtype_of(rows) != TD_I64))
        return td_fail("augment: expected %lld row numbers, i64", (long long)n);
    x = td_tensor_dense(td_tensor_detach(td_cast(x, TD_F32)));
    td_tensor *y = td_tensor_new(TD_F32, tdl_batch_shape(x, n, to), "cpu");
    if (!x || !y) return NULL;
    if (strcmp(td_tensor_device(x), "cpu")) return td_fail("augment: expected a tensor on the CPU");
    int64_t *order = (int64_t *)malloc((size_t)(n ? n : 1) * sizeof *order);
    float *scratch = (float *)malloc((2 * room + 1) * sizeof *scratch);
    if (!order || !scratch) {
        free(order);
        free(scratch);
        return td_fail_as(TD_ENOMEM, "augment: out of memory");
    }
    bool ok = !rows || td_tensor_read(rows, order);
    for (int64_t i = 0; ok && i < n; i++) {
        memcpy(scratch, (const float *)td_tensor_host(x) + i * in, (size_t)in * sizeof *scratch);
        tdl_chain_run(chain, from, scratch, scratch + room, (float *)td_tensor_host(y) + i * out, d,
                      (uint64_t)((rows ? order[i] : first + i) - 1));
    }
    free(order);
    free(scratch);
    return ok ? y : NULL;
}

/* core.augment(x, chain, seed, epoch, first or rows) */
static int l_augment(lua_State *L)
{
    tdl_state *S = TDL_STATE(L);
    lua_settop(L, 5);
    if (!tdl_chain_at(L, 2)) tdl_error(L, "augment: expected a chain, got %s", tdl_what(L, 2));
    if (!lua_isinteger(L, 3) || !lua_isinteger(L, 4)) tdl_error(L, "augment: expected seed and epoch, integers");
    tdl_draw d = {(uint64_t)lua_tointeger(L, 3), (uint64_t)lua_tointeger(L, 4)};
    tdl_pay(L, S);
    tdl_slot *out = tdl_new(L);
    td_tensor *x = tdl_check_tensor(L, 1), *rows = lua_isinteger(L, 5) ? NULL : tdl_check_tensor(L, 5);
    const tdl_chain *chain = tdl_chain_at(L, 2);
    tdl_stay stay;
    tdl_enter(L, S, &stay);
    td_tensor *y = augment(chain, x, d, rows ? 0 : (int64_t)lua_tointeger(L, 5), rows);
    if (y) tdl_fill(S, out, y, false);
    if (!tdl_leave(S, &stay, y != NULL)) return tdl_throw(L, S);
    return 1;
}

/* core.sample_seed(seed, epoch, place): an integer that any thread finds for a sample, whose place counts from 1 */
static int l_sample_seed(lua_State *L)
{
    tdl_draw d = {(uint64_t)luaL_checkinteger(L, 1), (uint64_t)luaL_checkinteger(L, 2)};
    lua_pushinteger(L, (lua_Integer)tdl_sample_seed(d, (uint64_t)(luaL_checkinteger(L, 3) - 1)));
    return 1;
}

static int m_random(lua_State *L)
{
    const tdl_chain *c = tdl_chain_at(L, 1);
    lua_pushboolean(L, c && c->random);
    return 1;
}

void tdl_open_augment(lua_State *L, tdl_state *S)
{
    static const luaL_Reg methods[] = {{"is_random", m_random}, {NULL, NULL}};
    static const luaL_Reg events[] = {{"__gc", chain_gc}, {NULL, NULL}};
    static const luaL_Reg functions[] = {
        {"chain", l_chain}, {"augment", l_augment}, {"sample_seed", l_sample_seed}, {NULL, NULL}};
    tdl_push_class(L, S, META, events, methods);
    lua_pushboolean(
        L, 0); /* hidden from getmetatable: workers read a chain without asking whether it was collected by hand */
    lua_setfield(L, -2, "__metatable");
    lua_pop(L, 1);
    tdl_register(L, S, functions);
}

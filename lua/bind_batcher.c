/* bind_batcher.c - batches gathered ahead of time: worker threads copy rows of dense CPU tensors, the script takes them.
 *
 *     local b <close> = core.batcher(x, y, {batch = 64, threads = 1, ahead = 2, drop_last = false, scale = 1 / 255, chain = chain})
 *     b:start(order, seed, epoch)        -- a tensor of row numbers, or nil for 1, 2, 3, …; what the chain's random choices rest on
 *     local xb, yb = b:next()            -- nil at the end
 *     b:stop()                           -- gives the rest of the epoch up */
#include "batcher.h"
#include "bind_augment.h"
#include <stdlib.h>

static const char batcher_kind;
static const char *const META = "tide.core.Batcher";

static int batcher_gc(lua_State *L)
{
    tdl_batcher *b = (tdl_batcher *)tdl_test(L, 1, &batcher_kind, sizeof(tdl_batcher));
    if (b) tdl_batcher_close(b);
    return 0;
}

static tdl_batcher *check_batcher(lua_State *L)
{
    tdl_batcher *b = (tdl_batcher *)tdl_test(L, 1, &batcher_kind, sizeof(tdl_batcher));
    if (!b) tdl_error(L, "expected a batcher, got %s", tdl_what(L, 1));
    if (!b->ring.made) tdl_error(L, "the batcher is closed");
    return b;
}

static lua_Integer option(lua_State *L, const char *key, lua_Integer otherwise, lua_Integer least, lua_Integer most)
{
    if (lua_getfield(L, 3, key) != LUA_TNIL) {
        bool integer = lua_isinteger(L, -1);
        otherwise = integer ? lua_tointeger(L, -1) : 0;
        if (!integer || otherwise < least || otherwise > most)
            tdl_error(L, "batcher: %s: expected an integer from %lld to %lld, got %s", key, (long long)least,
                      (long long)most, tdl_what(L, -1));
    }
    lua_pop(L, 1);
    return otherwise;
}

/* Inside a stay: a dense CPU tensor with rows. */
static bool take_source(tdl_source *s, const char *name, td_tensor *t, int64_t rows)
{
    if (td_ndim(t) < 1) return td_fail("batcher: %s: expected a tensor of rows, got one of no axes", name);
    if (rows >= 0 && td_dim(t, 0) != rows)
        return td_fail("batcher: %s has %lld rows, x has %lld", name, (long long)td_dim(t, 0), (long long)rows);
    if (strcmp(td_tensor_device(t), "cpu"))
        return td_fail("batcher: %s: expected a tensor on the CPU, got one on %s", name, td_tensor_device(t));
    t = td_tensor_dense(td_tensor_detach(t));
    if (!t) return false;
    s->t = td_keep(t);
    s->p = (const char *)td_tensor_host(t);
    s->dt = td_dtype_of(t);
    s->elements = 1;
    for (int i = 1; i < td_ndim(t); i++) s->elements *= (size_t)td_dim(t, i);
    s->row = s->elements * td_dtype_size(s->dt);
    return true;
}

/* Inside a stay: what the chain makes of a sample. */
static bool fit_chain(tdl_batcher *b)
{
    char why[160];
    if (!tdl_sample_extent("batcher", b->x.t, &b->from)) return false;
    if (b->x.dt != TD_U8 && b->x.dt != TD_F32)
        return td_fail("batcher: transforms are for u8 and f32 samples, got %s", td_dtype_name(b->x.dt));
    if (!tdl_chain_extent(b->chain, b->from, &b->to, &b->room, why, sizeof why)) return td_fail("%s", why);
    if (td_ndim(b->x.t) == 2 && (b->to.h != 1 || b->to.w != 1))
        return td_fail("batcher: samples (C) have no pixels to crop or pad");
    b->widen = b->x.dt == TD_U8;
    return true;
}

/* core.batcher(x, y or nil, options) */
static int l_batcher(lua_State *L)
{
    tdl_state *S = TDL_STATE(L);
    lua_settop(L, 3);
    if (lua_type(L, 3) != LUA_TTABLE) tdl_error(L, "batcher: expected a table of options, got %s", tdl_what(L, 3));
    lua_Integer batch = option(L, "batch", 0, 1, (lua_Integer)1 << 40),
                threads = option(L, "threads", 1, 0, TDL_MAX_WORKERS), ahead = option(L, "ahead", 2, 1, TDL_MAX_AHEAD);
    if (!batch) tdl_error(L, "batcher: batch: expected an integer >= 1, got nothing");
    bool drop_last = lua_getfield(L, 3, "drop_last") != LUA_TNIL && lua_toboolean(L, -1);
    bool widen = lua_getfield(L, 3, "scale") != LUA_TNIL;
    if (widen && lua_type(L, -1) != LUA_TNUMBER)
        tdl_error(L, "batcher: scale: expected a number, got %s", tdl_what(L, -1));
    double scale = widen ? lua_tonumber(L, -1) : 1;
    tdl_pay(L, S);

    bool chained = lua_getfield(L, 3, "chain") != LUA_TNIL;
    const tdl_chain *chain = tdl_chain_at(L, -1);
    if (chained && !chain) tdl_error(L, "batcher: chain: expected a chain, got %s", tdl_what(L, -1));

    tdl_batcher *b = (tdl_batcher *)lua_newuserdatauv(L, sizeof *b, 1);
    memset(b, 0, sizeof *b);
    b->kind = &batcher_kind;
    luaL_setmetatable(L, META);
    lua_pushvalue(L, -2);
    lua_setiuservalue(L, -2, 1); /* workers read the chain */
    b->chain = chain;
    b->jobs = (tdl_job *)calloc((size_t)ahead, sizeof *b->jobs);
    if (!b->jobs) tdl_error(L, "batcher: out of memory");
    b->ring.ahead = (int)ahead; /* jobs, should anything fail before the ring is made */
    b->batch = batch;
    b->drop_last = drop_last;
    b->widen = widen;
    for (int i = 0; i < 256; i++) b->as_float[i] = (float)(i * scale);
    td_tensor *x = tdl_check_tensor(L, 1), *y = lua_isnil(L, 2) ? NULL : tdl_check_tensor(L, 2);
    tdl_stay stay;
    tdl_enter(L, S, &stay);
    bool ok = take_source(&b->x, "x", x, -1) && (!y || take_source(&b->y, "y", y, td_dim(x, 0)));
    if (ok && widen && b->x.dt != TD_U8)
        ok = td_fail("batcher: scale is for u8 tensors, x is %s", td_dtype_name(b->x.dt)) != NULL;
    ok = ok && (!chain || fit_chain(b));
    b->rows = ok ? td_dim(x, 0) : 0;
    if (!tdl_leave(S, &stay, ok)) return tdl_throw(L, S);
    if (b->widen) b->x.dt = TD_F32;
    tdl_batcher_init(b, (int)ahead, (int)threads);
    return 1;
}

/* Inside a stay: makes a tensor for n rows. */
static td_tensor *new_batch(const tdl_batcher *b, const tdl_source *s, int64_t n, char **p)
{
    td_ints shape = td_shape(s->t);
    shape.v[0] = n;
    if (b->chain && s == &b->x) shape = tdl_batch_shape(s->t, n, b->to);
    td_tensor *t = td_tensor_new(s->dt, shape, "cpu");
    if (!t) return NULL;
    *p = (char *)td_tensor_host(t);
    return td_keep(t);
}

/* Inside a stay: hands the next batch to the workers, if there is one. */
static bool submit(tdl_batcher *b)
{
    if (b->ring.submitted == b->batches) return true;
    tdl_job made = {.first = b->ring.submitted * b->batch};
    made.n = b->count - made.first < b->batch ? b->count - made.first : b->batch;
    made.x = new_batch(b, &b->x, made.n, &made.xp);
    if (made.x && b->y.t) made.y = new_batch(b, &b->y, made.n, &made.yp);
    if (!made.x || (b->y.t && !made.y)) {
        tdl_job_drop(&made);
        return false;
    }
    tdl_batcher_submit(b, made);
    return true;
}

/* Copies the row numbers, 1-based, to b->order; NULL or what is wrong. */
static bool take_order(tdl_batcher *b, td_tensor *t)
{
    if (td_ndim(t) != 1 || td_dtype_is_float(td_dtype_of(t)) || td_dtype_of(t) == TD_BOOL)
        return td_fail("start: expected row numbers, integers along one axis, got %s of %d axes",
                       td_dtype_name(td_dtype_of(t)), td_ndim(t));
    int64_t n = td_numel(t);
    int64_t *v = (int64_t *)malloc((size_t)(n ? n : 1) * sizeof *v);
    if (!v) return td_fail_as(TD_ENOMEM, "start: out of memory");
    if (td_dtype_of(t) != TD_I64) t = td_cast(t, TD_I64);
    bool ok = td_tensor_read(t, v);
    for (int64_t i = 0; ok && i < n; i++) {
        if (v[i] < 1 || v[i] > b->rows)
            ok = td_fail("start: row %lld is outside 1 .. %lld", (long long)v[i], (long long)b->rows) != NULL;
        v[i]--;
    }
    if (!ok) {
        free(v);
        return false;
    }
    b->order = v;
    b->count = n;
    return true;
}

/* b:start([order, seed, epoch]): begins an epoch; one that is under way is given up */
static int m_start(lua_State *L)
{
    tdl_state *S = TDL_STATE(L);
    tdl_batcher *b = check_batcher(L);
    if (lua_type(L, 2) == LUA_TTABLE) {
        tdl_push_data(L, S, "start", 2, TD_I64, false);
        lua_replace(L, 2);
    }
    td_tensor *order = lua_isnoneornil(L, 2) ? NULL : tdl_check_tensor(L, 2);
    tdl_pay(L, S);
    b = check_batcher(L);
    tdl_batcher_give_up(b);
    free(b->order);
    b->order = NULL;
    b->count = b->rows;
    b->draw = (tdl_draw){(uint64_t)lua_tointeger(L, 3), (uint64_t)lua_tointeger(L, 4)};
    if (!tdl_ring_start(&b->ring)) tdl_error(L, "start: no worker thread can be started");
    order = lua_isnoneornil(L, 2) ? NULL : tdl_check_tensor(L, 2);
    tdl_stay stay;
    tdl_enter(L, S, &stay);
    bool ok = !order || take_order(b, order);
    if (ok) b->batches = b->drop_last ? b->count / b->batch : (b->count + b->batch - 1) / b->batch;
    for (int i = 0; ok && i < b->ring.ahead; i++) ok = submit(b);
    if (!tdl_leave(S, &stay, ok)) return tdl_throw(L, S);
    return 0;
}

/* b:next() -> x, y of the next batch; nil at the end */
static int m_next(lua_State *L)
{
    tdl_state *S = TDL_STATE(L);
    tdl_batcher *b = check_batcher(L);
    if (b->ring.given == b->ring.submitted) {
        if (b->ring.given < b->batches) tdl_error(L, "next: the batcher has stopped at an error; start it again");
        lua_pushnil(L);
        return 1;
    }
    tdl_pay(L, S);
    tdl_slot *sx = tdl_new(L), *sy = tdl_new(L);
    b = check_batcher(L);
    if (b->ring.given == b->ring.submitted) tdl_error(L, "next: the batcher was started again meanwhile");
    tdl_job *j = tdl_batcher_wait(b);
    if (j->error) {
        const char *error = j->error;
        tdl_batcher_give_up(b);
        tdl_error(L, "next: a worker has failed: %s", error);
    }
    tdl_stay stay;
    tdl_enter(L, S, &stay);
    tdl_fill(S, sx, j->x, false);
    if (j->y) tdl_fill(S, sy, j->y, false);
    tdl_job_drop(j);
    if (!tdl_leave(S, &stay, submit(b))) return tdl_throw(L, S);
    if (!sy->t) lua_pop(L, 1);
    return sy->t ? 2 : 1;
}

static int m_stop(lua_State *L)
{
    tdl_batcher_give_up(check_batcher(L));
    return 0;
}

static int m_batches(lua_State *L)
{
    lua_pushinteger(L, check_batcher(L)->batches);
    return 1;
}

void tdl_open_batcher(lua_State *L, tdl_state *S)
{
    static const luaL_Reg methods[] = {{"start", m_start},     {"next", m_next},      {"stop", m_stop},
                                       {"batches", m_batches}, {"close", batcher_gc}, {NULL, NULL}};
    static const luaL_Reg events[] = {{"__gc", batcher_gc}, {"__close", batcher_gc}, {NULL, NULL}};
    static const luaL_Reg functions[] = {{"batcher", l_batcher}, {NULL, NULL}};
    tdl_push_class(L, S, META, events, methods);
    lua_pop(L, 1);
    tdl_register(L, S, functions);
}

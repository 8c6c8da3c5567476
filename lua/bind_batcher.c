/* bind_batcher.c - batches gathered ahead of time: worker threads copy rows of dense CPU tensors, the script takes them.
 *
 *     local b <close> = core.batcher(x, y, {batch = 64, threads = 1, ahead = 2, drop_last = false, scale = 1 / 255})
 *     b:start(order)                     -- a tensor of row numbers, or nil for 1, 2, 3, …
 *     local xb, yb = b:next()            -- nil at the end
 *
 * The tensors of a batch are made by the script's thread when its place in the ring falls free; a worker only fills their
 * memory, by memcpy or, with scale, from u8 to f32 by a table. Workers know neither Lua nor a context. */
#include "bind.h"
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>

enum { MAX_THREADS = 16, MAX_AHEAD = 64 };

typedef enum { FREE, WAITING, BUSY, READY } job_state;

typedef struct {
    td_tensor *x, *y;
    char *xp, *yp;
    int64_t first, n; /* places in the order */
    job_state state;
} job;

/* Rows of one source tensor. */
typedef struct {
    td_tensor *t;
    const char *p;
    size_t row, elements; /* bytes and elements of a row */
    td_dtype dt;          /* of a batch                  */
} source;

typedef struct {
    const void *kind;
    source x, y;
    bool widen, drop_last;
    float as_float[256];
    int64_t rows, batch, count, batches; /* count: rows of this epoch */
    int64_t *order;                      /* 0-based, or NULL           */
    int64_t submitted, taken, given;     /* batches, in order          */
    job *jobs;
    int ahead, n_threads, running;
    pthread_t thread[MAX_THREADS];
    pthread_mutex_t lock;
    pthread_cond_t work, done;
    bool made, stop;
} batcher;

static const char batcher_kind;
static const char *const META = "tide.core.Batcher";

/* ---- workers ---- */

static void fill_rows(const batcher *b, const source *s, bool widen, char *to, const job *j)
{
    for (int64_t i = 0; i < j->n; i++) {
        int64_t r = b->order ? b->order[j->first + i] : j->first + i;
        const char *from = s->p + (size_t)r * s->row;
        if (!widen) {
            memcpy(to, from, s->row);
            to += s->row;
            continue;
        }
        const unsigned char *u = (const unsigned char *)from;
        float *f = (float *)(void *)to;
        for (size_t k = 0; k < s->elements; k++) f[k] = b->as_float[u[k]];
        to += s->elements * sizeof(float);
    }
}

static void *work(void *arg)
{
    batcher *b = (batcher *)arg;
    pthread_mutex_lock(&b->lock);
    for (;;) {
        while (!b->stop && b->taken == b->submitted) pthread_cond_wait(&b->work, &b->lock);
        if (b->stop) break;
        job *j = &b->jobs[b->taken++ % b->ahead];
        j->state = BUSY;
        pthread_mutex_unlock(&b->lock);
        fill_rows(b, &b->x, b->widen, j->xp, j);
        if (j->y) fill_rows(b, &b->y, false, j->yp, j);
        pthread_mutex_lock(&b->lock);
        j->state = READY;
        pthread_cond_broadcast(&b->done);
    }
    pthread_mutex_unlock(&b->lock);
    return NULL;
}

static bool start_threads(batcher *b)
{
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before); /* Ctrl-C is for the script's thread */
    while (b->running < b->n_threads && !pthread_create(&b->thread[b->running], NULL, work, b)) b->running++;
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return b->running > 0;
}

/* ---- the script's side ---- */

static void drop_job(job *j)
{
    if (j->x) td_release(j->x);
    if (j->y) td_release(j->y);
    memset(j, 0, sizeof *j);
}

/* Takes back what no worker has begun, and waits for what one has. */
static void cancel(batcher *b)
{
    pthread_mutex_lock(&b->lock);
    b->taken = b->submitted;
    for (int i = 0; i < b->ahead; i++)
        while (b->jobs[i].state == BUSY) pthread_cond_wait(&b->done, &b->lock);
    pthread_mutex_unlock(&b->lock);
    for (int i = 0; i < b->ahead; i++) drop_job(&b->jobs[i]);
}

static void close_batcher(batcher *b)
{
    if (b->made) {
        pthread_mutex_lock(&b->lock);
        b->stop = true;
        pthread_cond_broadcast(&b->work);
        pthread_mutex_unlock(&b->lock);
        for (int i = 0; i < b->running; i++) pthread_join(b->thread[i], NULL);
        for (int i = 0; i < b->ahead; i++) drop_job(&b->jobs[i]);
        pthread_mutex_destroy(&b->lock);
        pthread_cond_destroy(&b->work);
        pthread_cond_destroy(&b->done);
        b->made = false;
        b->running = 0;
    }
    free(b->jobs);
    free(b->order);
    b->jobs = NULL;
    b->order = NULL;
    if (b->x.t) td_release(b->x.t);
    if (b->y.t) td_release(b->y.t);
    b->x.t = b->y.t = NULL;
}

static int batcher_gc(lua_State *L)
{
    batcher *b = (batcher *)tdl_test(L, 1, &batcher_kind, sizeof(batcher));
    if (b) close_batcher(b);
    return 0;
}

static batcher *check_batcher(lua_State *L)
{
    batcher *b = (batcher *)tdl_test(L, 1, &batcher_kind, sizeof(batcher));
    if (!b) tdl_error(L, "expected a batcher, got %s", tdl_what(L, 1));
    if (!b->made) tdl_error(L, "the batcher is closed");
    return b;
}

static lua_Integer option(lua_State *L, const char *key, lua_Integer otherwise, lua_Integer most)
{
    if (lua_getfield(L, 3, key) != LUA_TNIL) {
        otherwise = lua_isinteger(L, -1) ? lua_tointeger(L, -1) : 0;
        if (otherwise < 1 || otherwise > most)
            tdl_error(L, "batcher: %s: expected an integer from 1 to %lld, got %s", key, (long long)most,
                      tdl_what(L, -1));
    }
    lua_pop(L, 1);
    return otherwise;
}

/* Inside a stay: a dense CPU tensor with rows. */
static bool take_source(source *s, const char *name, td_tensor *t, int64_t rows)
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

/* core.batcher(x, y or nil, options) */
static int l_batcher(lua_State *L)
{
    tdl_state *S = TDL_STATE(L);
    lua_settop(L, 3);
    if (lua_type(L, 3) != LUA_TTABLE) tdl_error(L, "batcher: expected a table of options, got %s", tdl_what(L, 3));
    lua_Integer batch = option(L, "batch", 0, (lua_Integer)1 << 40), threads = option(L, "threads", 1, MAX_THREADS),
                ahead = option(L, "ahead", 2, MAX_AHEAD);
    if (!batch) tdl_error(L, "batcher: batch: expected an integer >= 1, got nothing");
    bool drop_last = lua_getfield(L, 3, "drop_last") != LUA_TNIL && lua_toboolean(L, -1);
    bool widen = lua_getfield(L, 3, "scale") != LUA_TNIL;
    if (widen && lua_type(L, -1) != LUA_TNUMBER)
        tdl_error(L, "batcher: scale: expected a number, got %s", tdl_what(L, -1));
    double scale = widen ? lua_tonumber(L, -1) : 1;
    tdl_pay(L, S);

    batcher *b = (batcher *)lua_newuserdatauv(L, sizeof *b, 0);
    memset(b, 0, sizeof *b);
    b->kind = &batcher_kind;
    luaL_setmetatable(L, META);
    b->jobs = (job *)calloc((size_t)ahead, sizeof *b->jobs);
    if (!b->jobs) tdl_error(L, "batcher: out of memory");
    b->ahead = (int)ahead;
    b->n_threads = (int)threads;
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
    b->rows = ok ? td_dim(x, 0) : 0;
    if (!tdl_leave(S, &stay, ok)) return tdl_throw(L, S);
    if (widen) b->x.dt = TD_F32;
    pthread_mutex_init(&b->lock, NULL);
    pthread_cond_init(&b->work, NULL);
    pthread_cond_init(&b->done, NULL);
    b->made = true;
    return 1;
}

/* Inside a stay: makes a tensor for n rows. */
static td_tensor *new_batch(const source *s, int64_t n, char **p)
{
    td_ints shape = td_shape(s->t);
    shape.v[0] = n;
    td_tensor *t = td_tensor_new(s->dt, shape, "cpu");
    if (!t) return NULL;
    *p = (char *)td_tensor_host(t);
    return td_keep(t);
}

/* Inside a stay: hands the next batch to the workers, if there is one. */
static bool submit(batcher *b)
{
    if (b->submitted == b->batches) return true;
    job *j = &b->jobs[b->submitted % b->ahead], made = {0};
    made.first = b->submitted * b->batch;
    made.n = b->count - made.first < b->batch ? b->count - made.first : b->batch;
    made.x = new_batch(&b->x, made.n, &made.xp);
    if (made.x && b->y.t) made.y = new_batch(&b->y, made.n, &made.yp);
    if (!made.x || (b->y.t && !made.y)) {
        drop_job(&made);
        return false;
    }
    made.state = WAITING;
    pthread_mutex_lock(&b->lock);
    *j = made;
    b->submitted++;
    pthread_cond_signal(&b->work);
    pthread_mutex_unlock(&b->lock);
    return true;
}

/* Copies the row numbers, 1-based, to b->order; NULL or what is wrong. */
static bool take_order(batcher *b, td_tensor *t)
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

/* b:start([order]): begins an epoch; one that is under way is given up */
static int m_start(lua_State *L)
{
    tdl_state *S = TDL_STATE(L);
    batcher *b = check_batcher(L);
    if (lua_type(L, 2) == LUA_TTABLE) {
        tdl_push_data(L, S, "start", 2, TD_I64, false);
        lua_replace(L, 2);
    }
    td_tensor *order = lua_isnoneornil(L, 2) ? NULL : tdl_check_tensor(L, 2);
    tdl_pay(L, S);
    b = check_batcher(L);
    cancel(b);
    free(b->order);
    b->order = NULL;
    b->count = b->rows;
    pthread_mutex_lock(&b->lock);
    b->submitted = b->taken = b->given = b->batches = 0;
    pthread_mutex_unlock(&b->lock);
    if (!b->running && !start_threads(b)) tdl_error(L, "start: no worker thread can be started");
    order = lua_isnoneornil(L, 2) ? NULL : tdl_check_tensor(L, 2);
    tdl_stay stay;
    tdl_enter(L, S, &stay);
    bool ok = !order || take_order(b, order);
    if (ok) b->batches = b->drop_last ? b->count / b->batch : (b->count + b->batch - 1) / b->batch;
    for (int i = 0; ok && i < b->ahead; i++) ok = submit(b);
    if (!tdl_leave(S, &stay, ok)) return tdl_throw(L, S);
    return 0;
}

/* b:next() -> x, y of the next batch; nil at the end */
static int m_next(lua_State *L)
{
    tdl_state *S = TDL_STATE(L);
    batcher *b = check_batcher(L);
    if (b->given == b->submitted) {
        if (b->given < b->batches) tdl_error(L, "next: the batcher has stopped at an error; start it again");
        lua_pushnil(L);
        return 1;
    }
    tdl_pay(L, S);
    tdl_slot *sx = tdl_new(L), *sy = tdl_new(L);
    b = check_batcher(L);
    if (b->given == b->submitted) tdl_error(L, "next: the batcher was started again meanwhile");
    job *j = &b->jobs[b->given % b->ahead];
    pthread_mutex_lock(&b->lock);
    while (j->state != READY) pthread_cond_wait(&b->done, &b->lock);
    pthread_mutex_unlock(&b->lock);
    b->given++;
    tdl_stay stay;
    tdl_enter(L, S, &stay);
    tdl_fill(S, sx, j->x, false);
    if (j->y) tdl_fill(S, sy, j->y, false);
    drop_job(j);
    if (!tdl_leave(S, &stay, submit(b))) return tdl_throw(L, S);
    if (!sy->t) lua_pop(L, 1);
    return sy->t ? 2 : 1;
}

static int m_batches(lua_State *L)
{
    lua_pushinteger(L, check_batcher(L)->batches);
    return 1;
}

void tdl_open_batcher(lua_State *L, tdl_state *S)
{
    static const luaL_Reg methods[] = {
        {"start", m_start}, {"next", m_next}, {"batches", m_batches}, {"close", batcher_gc}, {NULL, NULL}};
    static const luaL_Reg events[] = {{"__gc", batcher_gc}, {"__close", batcher_gc}, {NULL, NULL}};
    static const luaL_Reg functions[] = {{"batcher", l_batcher}, {NULL, NULL}};
    luaL_newmetatable(L, META);
    tdl_register(L, S, events);
    lua_newtable(L);
    tdl_register(L, S, methods);
    lua_setfield(L, -2, "__index");
    lua_pop(L, 1);
    tdl_register(L, S, functions);
}

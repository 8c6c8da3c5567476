/* tensor.c - the tensor object: structs from a pool, memory, shapes, what programs ask of a tensor. */
#include "tensor.h"
#include "autograd.h"
#include "trace.h"
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- structs: each thread keeps those that it freed ---- */

enum { POOL_MAX = 4096, LINE = 64, LINES = (sizeof(td_tensor) + LINE - 1) / LINE };

/* armed: a key will drain the pool when the thread ends. */
static __thread struct {
    td_tensor *first;
    uint32_t n;
    bool armed;
} pool __attribute__((tls_model("initial-exec")));
static pthread_once_t once = PTHREAD_ONCE_INIT;
static pthread_key_t drain_key;
static bool have_key;

static void drain(void *unused)
{
    (void)unused;
    for (td_tensor *t = pool.first, *next; t; t = next) {
        next = t->next_free;
        free(t);
    }
    pool.first = NULL;
    pool.n = 0;
    pool.armed = false;
}

static void make_key(void) { have_key = pthread_key_create(&drain_key, drain) == 0; }

static td_tensor *alloc_slow(void)
{
    if (!pool.armed && !tdi_no_cache) {
        pthread_once(&once, make_key);
        pool.armed = have_key && pthread_setspecific(drain_key, &pool) == 0;
    }
    td_tensor *t = aligned_alloc(LINE, LINES * LINE);
    if (!t) td_fail_as(TD_ENOMEM, "out of memory");
    return t;
}

/* By vectors: for this size gcc makes memset a "rep stos", whose start alone takes longer. */
static inline void clear(td_tensor *t)
{
    typedef long long line __attribute__((vector_size(LINE), aligned(LINE), may_alias));
    line *at = (line *)(void *)t;
    static_assert(LINES == 4, "one store for each line of the struct");
    at[0] = at[1] = at[2] = at[3] = (line){0};
}

td_tensor *tdi_tensor_alloc(void)
{
    td_tensor *t = pool.first;
    if (__builtin_expect(t != NULL, 1)) {
        pool.first = t->next_free;
        pool.n--;
    } else if (!(t = alloc_slow())) {
        return NULL;
    }
    clear(t);
    atomic_store_explicit(&t->refs, 1, memory_order_relaxed);
    return t;
}

void tdi_tensor_destroy(td_tensor *t)
{
    if (t->node) {
        if (t->retains_grad) tdi_node_forget(t->node, t);
        tdi_node_release(t->node);
    }
    tdi_release(t->grad);
    tdi_storage_release(t->st);
    if (pool.armed && pool.n < POOL_MAX) {
        t->next_free = pool.first;
        pool.first = t;
        pool.n++;
    } else {
        free(t);
    }
}

td_tensor *tdi_alias(const td_tensor *t)
{
    td_tensor *a = tdi_tensor_alloc();
    if (!a) return NULL;
    a->v = t->v;
    a->shell = t->shell;
    a->is_view = t->is_view;
    a->view_version = t->view_version;
    if (t->st) a->st = tdi_storage_keep(t->st);
    if (tdi_is_number(t)) {
        a->num = t->num;
        a->v.p = &a->num;
    }
    return a;
}

/* ---- shapes ---- */

const td_view *tdi_view(const td_tensor *t)
{
    static const td_view none;
    return t ? &t->v : &none;
}

int64_t tdi_dim(const td_tensor *t, int i)
{
    const td_view *v = tdi_view(t);
    int at = i < 0 ? i + v->nd : i;
    if (t && at >= 0 && at < v->nd) return v->dim[at];
    if (t && !tdi_failed())
        td_fail_as(TD_ESHAPE, "dim: a tensor %s has no axis %d", tdi_describe(t), i < 0 ? i : i + 1);
    return 1;
}

void tdi_dense_strides(td_view *v)
{
    int64_t stride = 1;
    for (int32_t i = v->nd - 1; i >= 0; i--) {
        v->stride[i] = stride;
        if (v->dim[i] > 1) stride *= v->dim[i];
    }
}

/* Extents of 0 count as 1: so no product of extents or strides overflows, in whatever order it is taken. */
bool tdi_view_bytes(const char *who, const td_view *v, size_t *bytes)
{
    int64_t n = (int64_t)td_dtype_size(v->dt);
    bool empty = false;
    for (int32_t i = 0; i < v->nd; i++) {
        if (v->dim[i] < 0)
            return td_fail_as(TD_ESHAPE, "%s: the size of axis %d is negative: %lld", who, i + 1, (long long)v->dim[i]);
        empty |= v->dim[i] == 0;
        if (v->dim[i] > 1 && (__builtin_mul_overflow(n, v->dim[i], &n) || n > (int64_t)1 << 62))
            return td_fail_as(TD_ESHAPE, "%s: its size in bytes overflows at axis %d, which is %lld", who, i + 1,
                              (long long)v->dim[i]);
    }
    *bytes = empty ? 0 : (size_t)n;
    return true;
}

const char *tdi_describe(const td_tensor *t)
{
    td_context *c = tdi_ctx();
    char *text = c->text[c->text_n++ % 8];
    const size_t room = sizeof c->text[0];
    if (!t) return "nothing";
    if (tdi_is_number(t)) {
        if (t->v.dt == TD_I64) snprintf(text, room, "the number %lld", (long long)t->num.i);
        else snprintf(text, room, "the number %g", t->num.d);
        return text;
    }
    size_t at = (size_t)snprintf(text, room, "%s (", td_dtype_name(t->v.dt));
    for (int32_t i = 0; i < t->v.nd && at < room; i++)
        at += (size_t)snprintf(text + at, room - at, "%s%lld", i ? ", " : "", (long long)t->v.dim[i]);
    if (at < room) snprintf(text + at, room - at, ")");
    return text;
}

/* ---- making tensors ---- */

static void set_memory(td_tensor *t, td_storage *s)
{
    t->st = s;
    t->v.p = s->p;
    if ((uintptr_t)s->p % 64 == 0) t->v.flags |= TD_V_ALIGNED;
}

bool tdi_tensor_give(td_tensor *t, td_device *dev, size_t bytes)
{
    td_storage *s = tdi_storage_new(dev, bytes);
    if (!s) return false;
    set_memory(t, s);
    return true;
}

bool tdi_tensor_allocate(td_tensor *t, td_device *dev)
{
    size_t bytes;
    return tdi_view_bytes("new tensor", &t->v, &bytes) && tdi_tensor_give(t, dev, bytes);
}

/* A dense tensor struct without memory. */
static td_tensor *shaped(const char *who, td_dtype dt, int64_t nd, const int64_t *dim, size_t *bytes)
{
    if ((uint32_t)dt >= TD_N_DTYPES) return td_fail_as(TD_EDTYPE, "%s: %d is no dtype", who, (int)dt);
    if (nd < 0 || nd > TD_MAX_DIM)
        return td_fail_as(TD_ESHAPE, "%s: a tensor has at most %d axes, got %lld", who, TD_MAX_DIM, (long long)nd);
    td_tensor *t = tdi_tensor_alloc();
    if (!t) return NULL;
    t->v.dt = dt;
    t->v.nd = (int32_t)nd;
    for (int64_t i = 0; i < nd; i++) t->v.dim[i] = dim[i];
    if (tdi_view_bytes(who, &t->v, bytes)) {
        tdi_dense_strides(&t->v);
        return t;
    }
    tdi_release(t);
    return NULL;
}

static td_tensor *new_on(const char *who, td_dtype dt, int64_t nd, const int64_t *dim, td_device *dev, size_t *bytes)
{
    td_tensor *t = shaped(who, dt, nd, dim, bytes);
    td_storage *s = t ? tdi_storage_new(dev, *bytes) : NULL;
    if (s) {
        set_memory(t, s);
        return t;
    }
    tdi_release(t);
    return NULL;
}

td_tensor *td_tensor_new(td_dtype dt, td_ints shape, const char *device)
{
    td_context *c = tdi_ctx();
    size_t bytes;
    td_device *dev = c->err ? NULL : tdi_device(device);
    return dev ? tdi_own(c, new_on("new tensor", dt, shape.n, shape.v, dev, &bytes)) : NULL;
}

static td_tensor *number(td_context *c, td_dtype dt, const void *value)
{
    if (dt != TD_F64 && dt != TD_I64)
        return td_fail_as(TD_EDTYPE, "from_data: a plain number is f64 or i64, not %s", td_dtype_name(dt));
    td_tensor *t = tdi_tensor_alloc();
    if (!t) return NULL;
    memcpy(&t->num, value, sizeof t->num);
    t->v.dt = dt;
    t->v.p = &t->num;
    t->v.flags = TD_V_NUMBER;
    return tdi_own(c, t);
}

td_tensor *tdi_from_data(td_dtype dt, int64_t nd, const int64_t *dim, const void *host)
{
    td_context *c = tdi_ctx();
    size_t bytes;
    if (c->err) return NULL;
    if (!host && nd == -1) return td_fail("from_data: no number is given");
    if (nd == -1) return number(c, dt, host);
    td_device *dev = tdi_device_default(c);
    td_tensor *t = dev ? new_on("from_data", dt, nd, dim, dev, &bytes) : NULL;
    if (!t) return NULL;
    if (!host && bytes) td_fail("from_data: no data is given for %s", tdi_describe(t));
    if (!c->err && tdi_copy_from_host(dev, t->v.p, host, bytes)) return tdi_own(c, t);
    tdi_release(t);
    return NULL;
}

td_tensor *td_tensor_wrap(td_dtype dt, td_ints shape, void *p, size_t bytes, void (*done)(void *arg), void *arg)
{
    td_context *c = tdi_ctx();
    size_t need;
    td_device *host = c->err ? NULL : tdi_device("cpu");
    td_tensor *t = host ? shaped("wrap", dt, shape.n, shape.v, &need) : NULL;
    if (!t) return NULL;
    if (need > bytes || (!p && need))
        td_fail("wrap: %s needs %zu bytes of memory, %zu are given", tdi_describe(t), need, p ? bytes : 0);
    else if ((uintptr_t)p % td_dtype_size(dt))
        td_fail("wrap: memory of %s must lie on a multiple of %zu bytes", td_dtype_name(dt), td_dtype_size(dt));
    /* Without a slot in the scope the caller's memory would be given up in a call that fails. */
    td_storage *s = c->err ? NULL : tdi_storage_wrap(host, p, bytes, NULL, NULL);
    if (s) {
        set_memory(t, s);
        if (!tdi_own(c, t)) return NULL;
        if (done) s->done = done;
        s->done_arg = arg;
        return t;
    }
    tdi_release(t);
    return NULL;
}

td_tensor *td_tensor_detach(td_tensor *t)
{
    td_context *c = tdi_ctx();
    return c->err || !t ? NULL : tdi_own(c, tdi_alias(t));
}

/* A gradient of another kind than the new data would break what td_set_grad promises: it goes. */
static bool grad_fits(const td_tensor *t)
{
    const td_tensor *g = t->grad;
    return g->v.dt == t->v.dt && g->v.nd == t->v.nd && g->st->dev == t->st->dev &&
           !memcmp(g->v.dim, t->v.dim, (size_t)t->v.nd * sizeof *t->v.dim);
}

bool td_tensor_set_data(td_tensor *t, td_tensor *src)
{
    if (tdi_failed()) return false;
    if (!t || !src)
        return td_fail("set_data: expected two tensors, got nothing in place of %s", t ? "the data" : "the tensor");
    if (!t->st || !src->st)
        return td_fail("set_data: expected tensors with memory, got %s and %s", tdi_describe(t), tdi_describe(src));
    if (t->node)
        return td_fail("set_data: %s is the result of a recorded op; only leaves can be given other data",
                       tdi_describe(t));
    if (t->requires_grad && !td_dtype_is_float(src->v.dt))
        return td_fail_as(TD_EDTYPE, "set_data: a tensor that wants a gradient cannot become %s", tdi_describe(src));
    tdi_data_changed();
    td_storage *old = t->st;
    t->st = tdi_storage_keep(src->st);
    t->v = src->v;
    t->is_view = src->is_view;
    t->view_version = src->view_version;
    if (t->grad && !grad_fits(t)) {
        tdi_release(t->grad);
        t->grad = NULL;
    }
    tdi_storage_release(old);
    return true;
}

/* ---- where a tensor is ---- */

void *td_tensor_host(td_tensor *t)
{
    if (!t || !t->st || !t->st->dev->unified) return NULL;
    if (tdi_ctx()->trace && !tdi_trace_read(t, "direct access to a tensor's memory")) return NULL;
    if (t->st->dev->async && !tdi_device_sync(t->st->dev)) return NULL;
    return t->v.p;
}

const char *td_tensor_device(const td_tensor *t)
{
    if (t && t->st) return t->st->dev->name;
    const td_device *d = tdi_ctx()->device;
    return d ? d->name : "cpu";
}

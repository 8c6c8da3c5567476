/* test_memory.c - the core's base objects: allocator, tensors, devices by name. */
#include "check.h"
#include "half.h"
#include "tensor.h"
#include "toy_device.h"
#include <pthread.h>

static unsigned n_done;
static void done(void *arg)
{
    (void)arg;
    n_done++;
}

static const char *taken(void)
{
    const char *msg;
    td_error_take(&msg);
    return msg;
}

static void *in_thread(void *(*f)(void *), void *arg)
{
    pthread_t t;
    void *result = NULL;
    CHECK_INT(0, pthread_create(&t, NULL, f, arg));
    pthread_join(t, &result);
    return result;
}

/* ---- allocator ---- */

static void blocks_are_reused(void)
{
    td_device *d = toy_open(0, 0, true);
    td_memory_info m;
    td_storage *a = tdi_storage_new(d, 1000);
    if (!CHECK(a && (uintptr_t)a->p % 64 == 0)) return;
    void *p = a->p;
    atomic_fetch_add(&a->version, 5);
    tdi_storage_release(a);
    td_storage *b = tdi_storage_new(d, 900); /* the same class, 897 to 1024 */
    CHECK(b == a && b->p == p);
    CHECK_INT(0, b->version);
    CHECK_INT(1, b->refs);
    CHECK(td_memory(NULL, &m));
    CHECK_INT(900, m.current);
    CHECK_INT(1000, m.peak);
    CHECK_INT(1024, m.reserved);
    CHECK_INT(1, m.allocs);
    tdi_storage_release(b);
    td_memory(NULL, &m);
    CHECK_INT(0, m.current);
    CHECK_INT(1, toy.allocs);
    CHECK_INT(0, toy.frees);
    td_storage *none = tdi_storage_new(d, 0);
    CHECK(none && none->p);
    tdi_storage_release(none);
    toy_close(d);
}

/* Never smaller than asked for, never more than a quarter (or a line) larger, and every size of a class shares it. */
static void size_classes(void)
{
    td_device *d = toy_open(0, 0, true);
    uint32_t last = 0;
    size_t room = 0;
    for (size_t n = 1; n < (64u << 20); n += 1 + n / 37) {
        td_storage *s = tdi_storage_new(d, n);
        if (!s || s->room < n || s->room > n + n / 4 + 64 || s->room % 64) CHECK_INT(n, s ? s->room : 0);
        if (s->size_class < last || (s->size_class == last && room && s->room != room)) CHECK_INT(last, s->size_class);
        last = s->size_class;
        room = s->room;
        ((char *)s->p)[n - 1] = 1;
        tdi_storage_release(s);
    }
    unsigned before = toy.allocs;
    for (size_t n = 1; n < (64u << 20); n += 1 + n / 37) tdi_storage_release(tdi_storage_new(d, n));
    CHECK_INT(before, toy.allocs); /* warm: no call */
    for (int log2 = 6; log2 <= 26; log2++) {
        td_storage *s = tdi_storage_new(d, (size_t)1 << log2);
        CHECK_INT((size_t)1 << log2, s->room); /* powers of two waste nothing */
        tdi_storage_release(s);
    }
    toy_close(d);
}

static void huge_blocks(void)
{
    td_device *d = toy_open(0, 0, true);
    const size_t M = 1 << 20;
    td_storage *a = tdi_storage_new(d, 100 * M), *b = tdi_storage_new(d, 120 * M);
    tdi_storage_release(a);
    tdi_storage_release(b);
    td_storage *c = tdi_storage_new(d, 97 * M);
    CHECK(c == a); /* the best fit */
    td_storage *e = tdi_storage_new(d, 97 * M);
    CHECK(e == b); /* at most a quarter too large */
    tdi_storage_release(c);
    tdi_storage_release(e);
    td_storage *f = tdi_storage_new(d, 70 * M);
    CHECK(f != a && f != b); /* both are more than that */
    CHECK_INT(3, toy.allocs);
    tdi_storage_release(f);
    tdi_ctx()->device = d;
    toy_close(d);
}

static void memory_runs_out(void)
{
    td_device *d = toy_open(4 << 20, 0, true);
    td_storage *a = tdi_storage_new(d, 2 << 20), *b = tdi_storage_new(d, 1 << 20);
    tdi_storage_release(a);
    td_storage *c = tdi_storage_new(d, 3 << 20); /* fits once the cache is empty */
    CHECK(c != NULL && !tdi_failed());
    CHECK_INT(1, toy.frees);
    for (int speaks = 0; speaks < 2; speaks++) {
        toy.speaks = speaks;
        CHECK(!tdi_storage_new(d, 3 << 20));
        CHECK_INT(TD_ENOMEM, TD->error());
        CHECK_STR("out of memory on toy:0: asked for 3.0 MiB, 4.0 MiB in use, 0 bytes cached", taken());
    }
    toy.faulty = true; /* that is no lack of memory */
    CHECK(!tdi_storage_new(d, 4096));
    CHECK_INT(TD_EDEVICE, TD->error());
    CHECK_STR("toy: fault", taken());
    tdi_storage_release(b);
    tdi_storage_release(c);
    toy_close(d);
}

static td_storage *garbage;
static unsigned collections;
static void collect_garbage(void *arg)
{
    collections++;
    CHECK(arg == &garbage);
    tdi_storage_release(garbage);
    garbage = NULL;
}

static void collecting_helps(void)
{
    td_device *d = toy_open(4 << 20, 0, true);
    garbage = tdi_storage_new(d, 3 << 20);
    td_set_collect(collect_garbage, &garbage);
    collections = 0;
    td_storage *a = tdi_storage_new(d, 2 << 20);
    CHECK(a != NULL && !tdi_failed());
    CHECK_INT(1, collections);
    CHECK(!tdi_storage_new(d, 3 << 20));
    CHECK_INT(2, collections);
    CHECK_INT(TD_ENOMEM, td_error_take(NULL));
    td_set_collect(NULL, NULL);
    tdi_storage_release(a);
    toy_close(d);
}

/* An overcommitting system would give the memory and kill the process later: more than there is, is never asked for. */
static void more_than_there_is(void)
{
    td_device *d = toy_open(0, 64 << 20, true);
    CHECK(!tdi_storage_new(d, 100 << 20));
    CHECK_INT(0, toy.allocs);
    CHECK_STR("out of memory on toy:0: asked for 100.0 MiB, 0 bytes in use, 0 bytes cached, 64.0 MiB in all", taken());
    CHECK(!tdi_storage_new(d, SIZE_MAX));
    CHECK_INT(TD_ENOMEM, td_error_take(NULL));
    td_storage *a = tdi_storage_new(d, 40 << 20);
    CHECK(!tdi_storage_new(d, 40 << 20));
    CHECK_INT(TD_ENOMEM, td_error_take(NULL));
    CHECK_INT(1, toy.allocs);
    tdi_storage_release(a);
    td_storage *b = tdi_storage_new(d, 20 << 20), *c = tdi_storage_new(d, 40 << 20);
    CHECK(b && c == a);
    tdi_storage_release(b);
    tdi_storage_release(c);
    td_storage *e = tdi_storage_new(d, 64 << 20); /* all of it, when the cache has gone */
    CHECK(e != NULL);
    tdi_storage_release(e);
    toy_close(d);
}

enum { HAMMER = 20000, HELD = 16 };
static void *hammer(void *arg)
{
    td_storage *held[HELD] = {NULL};
    uint64_t x = (uintptr_t)&held | 1;
    for (int i = 0; i < HAMMER; i++) {
        x = x * 6364136223846793005u + 1442695040888963407u;
        td_storage **s = &held[x >> 60];
        if (*s && *(uint64_t *)(*s)->p != (uintptr_t)s) return arg; /* another thread has it, too */
        tdi_storage_release(*s);
        *s = tdi_storage_new(arg, 8 + (x >> 40) % 3000);
        *(uint64_t *)(*s)->p = (uintptr_t)s;
    }
    for (int i = 0; i < HELD; i++) tdi_storage_release(held[i]);
    return NULL;
}

static pthread_mutex_t toy_lock = PTHREAD_MUTEX_INITIALIZER;
static bool locked_alloc(void *dev, void *stream, size_t bytes, int pinned, void **p)
{
    pthread_mutex_lock(&toy_lock);
    bool ok = toy_alloc(dev, stream, bytes, pinned, p);
    pthread_mutex_unlock(&toy_lock);
    return ok;
}

static void threads_share_the_allocator(void)
{
    td_device *d = toy_open(0, 0, true);
    pthread_t t[4];
    td_memory_info m;
    toy_backend.t.alloc = locked_alloc;
    for (int i = 0; i < 4; i++) CHECK_INT(0, pthread_create(&t[i], NULL, hammer, d));
    for (int i = 0; i < 4; i++) {
        void *bad;
        pthread_join(t[i], &bad);
        CHECK(!bad);
    }
    CHECK(td_memory(NULL, &m));
    CHECK_INT(0, m.current);
    CHECK_INT(toy.in_use, m.reserved);
    CHECK_INT(toy.allocs, m.allocs);
    toy_close(d);
}

static void other_streams_are_waited_for(void)
{
    td_device *d = toy_open(0, 0, true);
    int stream;
    tdi_scope_push();
    td_tensor *t = td_tensor_new(TD_F32, td_dims(4), NULL);
    tdi_used_on(t, d->stream);
    tdi_used_on(NULL, &stream);
    CHECK(!t->st->used_on);
    tdi_used_on(t, &stream);
    CHECK_INT(0, toy.syncs);
    tdi_scope_pop(NULL);
    CHECK_INT(1, toy.syncs);
    toy_close(d);
}

/* ---- tensors ---- */

static void tensor_structs_are_pooled(void)
{
    td_tensor *a = tdi_tensor_alloc();
    tdi_release(a);
    td_tensor *b = tdi_tensor_alloc();
    CHECK(a == b);
    CHECK(!b->st && !b->node && !b->next_free && b->refs == 1 && b->v.nd == 0);
    tdi_release(b);
}

static void shapes(void)
{
    td_view v = {.dt = TD_F64, .nd = 3, .dim = {2, 0, 4}};
    size_t bytes = 1;
    CHECK(tdi_view_bytes("f", &v, &bytes));
    CHECK_INT(0, bytes);
    tdi_dense_strides(&v);
    CHECK(v.stride[0] == 4 && v.stride[1] == 4 && v.stride[2] == 1);
    v.dim[1] = 3;
    CHECK(tdi_view_bytes("f", &v, &bytes));
    CHECK_INT(2 * 3 * 4 * 8, bytes);
    v.dim[1] = -1;
    CHECK(!tdi_view_bytes("f", &v, &bytes));
    CHECK_STR("f: the size of axis 2 is negative: -1", taken());
    v.dim[0] = 0, v.dim[1] = v.dim[2] = INT64_C(1) << 40; /* empty, but its strides would overflow */
    CHECK(!tdi_view_bytes("f", &v, &bytes));
    CHECK_INT(TD_ESHAPE, td_error_take(NULL));
    CHECK_INT(0, tdi_view(NULL)->nd);
    CHECK_INT(1, tdi_dim(NULL, 3));
}

static void tensors_hold_data(bool unified)
{
    td_device *d = toy_open(0, 0, unified);
    const float data[6] = {1, 2, 3, 4, 5, 6};
    float back[6] = {0};
    tdi_scope_push();
    td_tensor *t = tdi_from_data(TD_F32, 2, (int64_t[]){2, 3}, data);
    CHECK(t && td_tensor_read(t, back) && !memcmp(data, back, sizeof data));
    CHECK_STR("f32 (2, 3)", tdi_describe(t));
    CHECK(t->v.flags & TD_V_ALIGNED);
    CHECK_INT(3, tdi_dim(t, -1));
    CHECK_INT(2, tdi_dim(t, 0));
    CHECK_INT(1, tdi_dim(t, 2));
    CHECK_STR("dim: a tensor f32 (2, 3) has no axis 3", taken());
    CHECK((td_tensor_host(t) != NULL) == unified);
    CHECK_STR("toy:0", td_tensor_device(t));
    td_tensor *same = td_tensor_detach(t);
    CHECK(same && same != t && td_tensor_same_storage(t, same) && same->v.p == t->v.p);
    CHECK_INT(2, t->st->refs);
    td_tensor *empty = td_tensor_new(TD_I64, td_dims(0, 3), NULL);
    CHECK(empty && td_tensor_read(empty, NULL));
    CHECK(!td_tensor_same_storage(t, empty) && !td_tensor_same_storage(NULL, NULL));
    CHECK_INT(0, td_tensor_version(t));
    tdi_scope_pop(NULL);
    toy_close(d);
}

static void tensors_on_the_host(void) { tensors_hold_data(true); }
static void tensors_on_a_device(void) { tensors_hold_data(false); }

static void tensors_refuse(void)
{
    td_device *d = toy_open(0, 0, true);
    tdi_scope_push();
    CHECK(!td_tensor_new((td_dtype)99, td_dims(2), NULL));
    CHECK_STR("new tensor: 99 is no dtype", taken());
    CHECK(!td_tensor_new(TD_F32, td_dims(1, 1, 1, 1, 1, 1, 1, 1, 1), NULL));
    CHECK_STR("new tensor: a tensor has at most 8 axes, got 9", taken());
    CHECK(!td_tensor_new(TD_F32, td_dims(3, -4), NULL));
    CHECK_STR("new tensor: the size of axis 2 is negative: -4", taken());
    CHECK(!td_tensor_new(TD_F32, td_dims(INT64_MAX, 2), NULL));
    CHECK_INT(TD_ESHAPE, td_error_take(NULL));
    CHECK(!tdi_from_data(TD_F32, 1, (int64_t[]){2}, NULL));
    CHECK_STR("from_data: no data is given for f32 (2)", taken());
    CHECK(!tdi_from_data(TD_F32, -1, NULL, &(float){1}));
    CHECK_INT(TD_EDTYPE, td_error_take(NULL));
    td_fail("pending");
    CHECK(!td_tensor_new(TD_F32, td_dims(2), NULL) && !tdi_from_data(TD_F64, -1, NULL, &(double){1}));
    CHECK_STR("pending", taken());
    CHECK_INT(0, d->pool ? tdi_ctx()->own_n : 1);
    tdi_scope_pop(NULL);
    toy_close(d);
}

static void plain_numbers(void)
{
    td_device *d = toy_open(0, 0, true);
    double x = 0;
    int64_t i = 0;
    tdi_scope_push();
    td_tensor *n = tdi_from_data(TD_F64, -1, NULL, &(double){2.5}),
              *k = tdi_from_data(TD_I64, -1, NULL, &(int64_t){-7});
    CHECK(n && tdi_is_number(n) && n->v.p == &n->num && !n->st && n->v.nd == 0);
    CHECK_STR("the number 2.5", tdi_describe(n));
    CHECK_STR("the number -7", tdi_describe(k));
    CHECK(tdi_item(n, TD_F64, &x) && tdi_item(k, TD_I64, &i));
    CHECK_NEAR(2.5, x, 0);
    CHECK_INT(-7, i);
    td_tensor *alias = td_tensor_detach(n);
    CHECK(alias && alias->v.p == &alias->num && alias->num.d == 2.5);
    CHECK(td_tensor_read(k, &i) && i == -7);
    CHECK(!td_tensor_set_data(n, k));
    taken();
    tdi_scope_pop(NULL);
    toy_close(d);
}

static double item_of(td_dtype dt, const void *p, td_dtype as)
{
    union {
        float f;
        double d;
        uint16_t h;
        int64_t i64;
        int32_t i32;
        uint8_t u8;
    } u;
    td_tensor *t = tdi_from_data(dt, 2, (int64_t[]){1, 1}, p);
    if (!CHECK(t && tdi_item(t, as, &u))) return NAN;
    switch (as) {
    case TD_F32: return (double)u.f;
    case TD_F64: return u.d;
    case TD_F16: return (double)tdi_from_f16(u.h);
    case TD_BF16: return (double)tdi_from_bf16(u.h);
    case TD_I64: return (double)u.i64;
    case TD_I32: return u.i32;
    default: return u.u8;
    }
}

static void item_converts(void)
{
    td_device *d = toy_open(0, 0, false);
    const float three = 3;
    const double three64 = 3;
    const uint16_t three16 = tdi_to_f16(3), threebf = tdi_to_bf16(3);
    const int64_t i64 = 3;
    const int32_t i32 = 3;
    const uint8_t u8 = 3, yes = 1;
    const void *value[TD_N_DTYPES] = {[TD_F32] = &three, [TD_F64] = &three64, [TD_F16] = &three16, [TD_BF16] = &threebf,
                                      [TD_I64] = &i64,   [TD_I32] = &i32,     [TD_U8] = &u8,       [TD_BOOL] = &yes};
    tdi_scope_push();
    for (int from = 0; from < TD_N_DTYPES; from++)
        for (int to = 0; to < TD_N_DTYPES; to++)
            CHECK_NEAR(from == TD_BOOL || to == TD_BOOL ? 1 : 3, item_of((td_dtype)from, value[from], (td_dtype)to), 0);
    CHECK_NEAR(-2, item_of(TD_F64, &(double){-2.9}, TD_I64), 0);
    CHECK_NEAR((double)INT64_MAX, item_of(TD_F64, &(double){1e300}, TD_I64), 0);
    CHECK_NEAR((double)INT64_MIN, item_of(TD_F64, &(double){-INFINITY}, TD_I64), 0);
    CHECK_NEAR(0, item_of(TD_F64, &(double){NAN}, TD_I64), 0);
    CHECK_NEAR(1, item_of(TD_F64, &(double){NAN}, TD_BOOL), 0);
    CHECK_NEAR(INFINITY, item_of(TD_F64, &(double){1e6}, TD_F16), 0);
    float x;
    td_tensor *t = td_tensor_new(TD_F32, td_dims(2, 3), NULL);
    CHECK(!tdi_item(t, TD_F32, &x));
    CHECK_STR("item: expected a tensor of one element, got f32 (2, 3)", taken());
    CHECK(!tdi_item(NULL, TD_F32, &x));
    CHECK_STR("item: expected a tensor, got nothing", taken());
    tdi_scope_pop(NULL);
    toy_close(d);
}

/* Every value of both 16-bit formats goes to f32 and back; what lies between two goes to the nearer, or the even one. */
static void halves_round(void)
{
    int bad = 0;
    for (uint32_t h = 0; h < 0x10000; h++) {
        float f = tdi_from_f16((uint16_t)h), b = tdi_from_bf16((uint16_t)h);
        bad += f == f ? tdi_to_f16(f) != h : !isnan(tdi_from_f16(tdi_to_f16(f)));
        bad += b == b ? tdi_to_bf16(b) != h : !isnan(tdi_from_bf16(tdi_to_bf16(b)));
    }
    CHECK_INT(0, bad);
    for (uint32_t h = 0; h < 0x7c00; h++) {
        float lo = tdi_from_f16((uint16_t)h), hi = h == 0x7bff ? 65536 : tdi_from_f16((uint16_t)(h + 1)),
              mid = lo + (hi - lo) / 2;
        bad += tdi_to_f16(mid) != h + (h & 1);
        bad += tdi_to_f16(nextafterf(mid, 0)) != h || tdi_to_f16(nextafterf(mid, INFINITY)) != h + 1;
        bad += tdi_to_f16(-mid) != (0x8000 | (h + (h & 1)));
    }
    CHECK_INT(0, bad);
    for (uint32_t h = 0; h < 0x7f80; h++) {
        float mid = tdi_float_of(h << 16 | 0x8000);
        bad += tdi_to_bf16(mid) != h + (h & 1);
        bad += tdi_to_bf16(nextafterf(mid, 0)) != h || tdi_to_bf16(nextafterf(mid, INFINITY)) != h + 1;
    }
    CHECK_INT(0, bad);
}

static void other_data(void)
{
    td_device *d = toy_open(0, 0, true);
    tdi_scope_push();
    td_tensor *p = td_tensor_new(TD_F32, td_dims(2, 3), NULL), *q = td_tensor_new(TD_F64, td_dims(2, 3), NULL);
    td_tensor *k = td_tensor_new(TD_I64, td_dims(2, 3), NULL), *g = td_tensor_new(TD_F32, td_dims(2, 3), NULL);
    p->requires_grad = true;
    p->grad = tdi_keep(g);
    CHECK(!td_tensor_set_data(p, k));
    CHECK_STR("set_data: a tensor that wants a gradient cannot become i64 (2, 3)", taken());
    CHECK(td_tensor_set_data(p, p) && p->grad == g);
    CHECK(td_tensor_set_data(p, q));
    CHECK(p->v.dt == TD_F64 && td_tensor_same_storage(p, q) && p->requires_grad && !p->grad);
    CHECK(!td_tensor_set_data(p, NULL));
    CHECK_STR("set_data: expected two tensors, got nothing in place of the data", taken());
    tdi_scope_pop(NULL);
    toy_close(d);
}

static void *release_elsewhere(void *t)
{
    td_tensor *own = tdi_tensor_alloc(); /* the thread has a pool of its own */
    tdi_release(t);
    tdi_release(own);
    return NULL;
}

static void other_threads_may_release(void)
{
    td_device *d = toy_open(0, 0, true);
    td_memory_info m;
    tdi_scope_push();
    td_tensor *t = tdi_keep(td_tensor_new(TD_F32, td_dims(1000), NULL));
    tdi_scope_pop(NULL);
    in_thread(release_elsewhere, t);
    td_memory(NULL, &m);
    CHECK_INT(0, m.current);
    toy_close(d);
}

/* ---- devices; these need the CPU backend on TIDE_PLUGIN_PATH ---- */

static void device_names(void)
{
    static const char *const bad[] = {
        "", ":1", "cpu:", "cpu:x", "cpu:-1", "cpu:123456", "a name that is much too long"};
    tdi_ctx()->device = NULL;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        char want[128];
        snprintf(want, sizeof want, "device \"%s\": expected a name such as \"cpu\" or \"cuda:0\"", bad[i]);
        CHECK(!tdi_device(bad[i]));
        CHECK_STR(want, taken());
    }
    CHECK(!tdi_device("nowhere"));
    CHECK_INT(TD_EDEVICE, TD->error());
    const char *msg = taken();
    CHECK(!strncmp(msg, "device \"nowhere\": no backend provides it; there are: ", 53) && strstr(msg, "cpu"));
    CHECK(!td_device_set_default("nowhere:1"));
    taken();
    CHECK_STR("cpu", td_device_default());
    td_device *cpu = tdi_device("cpu");
    CHECK(cpu && cpu == tdi_device(NULL) && cpu == tdi_device("cpu:0"));
    CHECK(!tdi_device("cpu:3"));
    CHECK_STR("device \"cpu:3\": there is only \"cpu:0\"", taken());
    CHECK(td_device_set_default("cpu") && td_synchronize("cpu") && td_synchronize(NULL));
    CHECK(td_threads(0) >= 1);
}

static void see_cpu(void *arg, const char *device, const td_props *p, const char *why)
{
    if (!strcmp(device, "cpu") && p && !why && p->mem_total > 0) ++*(int *)arg;
    if (!p == !why) CHECK(false);
}

static void devices_are_listed(void)
{
    int seen = 0;
    td_each_device(see_cpu, &seen);
    CHECK_INT(1, seen);
    CHECK(!tdi_failed());
}

static void memory_of_others(void)
{
    float mine[4] = {1, 2, 3, 4}, back[4];
    n_done = 0;
    tdi_scope_push();
    td_tensor *t = td_tensor_wrap(TD_F32, td_dims(2, 2), mine, sizeof mine, done, NULL);
    CHECK(t && td_tensor_host(t) == mine && td_tensor_read(t, back) && back[3] == 4);
    CHECK(!td_tensor_wrap(TD_F32, td_dims(5), mine, sizeof mine, done, NULL));
    CHECK_STR("wrap: f32 (5) needs 20 bytes of memory, 16 are given", taken());
    CHECK(!td_tensor_wrap(TD_F32, td_dims(2), (char *)mine + 1, 8, done, NULL));
    CHECK_STR("wrap: memory of f32 must lie on a multiple of 4 bytes", taken());
    CHECK_INT(0, n_done);
    tdi_scope_pop(NULL);
    CHECK_INT(1, n_done);
}

static void a_million_gibibytes(void)
{
    CHECK(!td_tensor_new(TD_F32, td_dims(1 << 20, 1 << 28), "cpu"));
    CHECK_INT(TD_ENOMEM, TD->error());
    CHECK(!strncmp(taken(), "out of memory on cpu: asked for 1.0 PiB, ", 41));
}

int main(void)
{
    tdi_no_cache = false; /* it is the cache that is tested, in sanitizer builds, too */
    RUN(blocks_are_reused);
    RUN(size_classes);
    RUN(huge_blocks);
    RUN(memory_runs_out);
    RUN(collecting_helps);
    RUN(more_than_there_is);
    RUN(threads_share_the_allocator);
    RUN(other_streams_are_waited_for);
    RUN(tensor_structs_are_pooled);
    RUN(shapes);
    RUN(tensors_on_the_host);
    RUN(tensors_on_a_device);
    RUN(tensors_refuse);
    RUN(plain_numbers);
    RUN(item_converts);
    RUN(halves_round);
    RUN(other_data);
    RUN(other_threads_may_release);
    RUN(device_names);
    RUN(devices_are_listed);
    RUN(memory_of_others);
    RUN(a_million_gibibytes);
    return check_done();
}

/* test_base.c - the core's base objects: contexts, errors, scopes, random numbers. test_memory.c has the rest. */
#include "check.h"
#include "interrupt.h"
#include "tensor.h"
#include "toy_device.h"
#include <pthread.h>
#include <tide/philox.h>

static unsigned n_done;
static void done(void *arg)
{
    (void)arg;
    n_done++;
}

/* A tensor whose end is counted in n_done. Owned by the scope. */
static td_tensor *counted(void)
{
    td_tensor *t = tdi_tensor_alloc();
    t->st = tdi_storage_wrap(tdi_ctx()->device, NULL, 0, done, NULL);
    return tdi_own(tdi_ctx(), t);
}

static const char *taken(void)
{
    const char *msg;
    td_error_take(&msg);
    return msg;
}

/* ---- random ---- */

/* kat_vectors of Random123 1.09 (D. E. Shaw Research), philox 4x32, 10 rounds */
static void philox_vectors(void)
{
    static const struct {
        uint32_t counter[4], key[2], out[4];
    } known[] = {
        {{0, 0, 0, 0}, {0, 0}, {0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}},
        {{~0u, ~0u, ~0u, ~0u}, {~0u, ~0u}, {0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}},
        {{0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344},
         {0xa4093822, 0x299f31d0},
         {0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}},
    };
    for (int i = 0; i < 3; i++) {
        uint32_t out[4];
        td_philox(known[i].counter, known[i].key, out);
        for (int k = 0; k < 4; k++) CHECK_INT(known[i].out[k], out[k]);
    }
}

static void random_stream(void)
{
    uint64_t state[2] = {0, 0};
    td_random_set_state(state);
    CHECK_NEAR(((0x6627e8d5 >> 5) * 0x1p26 + (0xe169c58d >> 6)) * 0x1p-53, td_random_uniform(), 0);
    td_random_state(state);
    CHECK_INT(0, state[0]);
    CHECK_INT(1, state[1]);

    td_manual_seed(7);
    double a = td_random_uniform();
    int64_t b = td_random_int(-3, 1000000007);
    td_random_state(state);
    CHECK_INT(7, state[0]);
    CHECK_INT(2, state[1]);
    td_manual_seed(7);
    CHECK_NEAR(a, td_random_uniform(), 0);
    CHECK_INT(b, td_random_int(-3, 1000000007));

    int seen[6] = {0};
    double sum = 0;
    for (int i = 0; i < 60000; i++) {
        int64_t k = td_random_int(-2, 3);
        if (k < -2 || k > 3) CHECK(false);
        else seen[k + 2]++;
        double u = td_random_uniform();
        if (!(u >= 0 && u < 1)) CHECK(false);
        sum += u;
    }
    for (int k = 0; k < 6; k++) CHECK_NEAR(10000, seen[k], 500); /* five standard deviations are 456 */
    CHECK_NEAR(0.5, sum / 60000, 0.006);

    CHECK_INT(5, td_random_int(5, 5));
    CHECK(td_random_int(INT64_MIN, INT64_MAX) != td_random_int(INT64_MIN, INT64_MAX));
    CHECK_INT(0, td_random_int(2, 1));
    CHECK_STR("random_int: expected low <= high, got 2 and 1", taken());
}

/* Above 2^63 about half of all words must be thrown away: each draw still ends, and no value is out of range. */
static void random_int_rejects(void)
{
    const int64_t high = INT64_MIN / 2;
    int low_half = 0;
    td_manual_seed(1);
    for (int i = 0; i < 4000; i++) {
        int64_t x = td_random_int(INT64_MIN, high);
        if (x > high) CHECK(false);
        low_half += x < INT64_MIN / 4 * 3;
    }
    CHECK_NEAR(2000, low_half, 160);
    uint64_t state[2];
    td_random_int(-1, INT64_MAX);
    td_random_state(state);
    CHECK(state[1] >= 4001);
}

/* ---- errors ---- */

static void first_failure_wins(void)
{
    const char *msg = "?";
    CHECK_INT(TD_OK, td_error_take(&msg));
    CHECK_STR("", msg);
    CHECK(!td_fail_as(TD_ESHAPE, "first %d", 1));
    td_fail("second");
    CHECK_INT(TD_ESHAPE, TD->error());
    CHECK_INT(TD_ESHAPE, td_error_take(&msg));
    CHECK_STR("first 1", msg);
    CHECK_INT(TD_OK, TD->error());
    td_fail_as(TD_OK, "a failure is never OK");
    CHECK_INT(TD_EINVAL, td_error_take(NULL));
    td_fail("%s", "outer");
    td_error_take(&msg);
    td_fail("inner: %s", msg); /* msg is the buffer that is written */
    CHECK_STR("inner: outer", taken());
}

static void long_messages_end_in_whole_characters(void)
{
    char text[2001];
    for (int shift = 0; shift < 4; shift++) {
        memset(text, 'x', sizeof text);
        for (size_t i = (size_t)shift; i + 4 < sizeof text; i += 4)
            memcpy(text + i, "\xf0\x9f\x8c\x8a", 4); /* a wave */
        text[2000] = 0;
        td_fail("%s", text);
        const char *msg = taken();
        size_t n = strlen(msg);
        CHECK(n > 1016 && n < 1024);
        CHECK_INT(0, (n - (size_t)shift) % 4);
        CHECK(!memcmp(msg, text, n));
    }
    memset(text, 'x', 2000);
    td_fail("%s", text);
    CHECK_INT(1023, strlen(taken()));
}

static void prefixes(void)
{
    char text[1100];
    tdi_error_prefix("nobody");
    CHECK(!tdi_failed());
    td_fail("expected 3, got 4");
    tdi_error_prefix("in %s: ", "Conv2d");
    CHECK_STR("in Conv2d: expected 3, got 4", taken());
    memset(text, 'y', sizeof text);
    text[1020] = 0;
    td_fail("%s", text);
    tdi_error_prefix("in %s: ", "Conv2d");
    const char *msg = taken();
    CHECK_INT(1023, strlen(msg));
    CHECK(!strncmp(msg, "in Conv2d: yyy", 14));
}

/* ---- scopes ---- */

static void scopes_release(void)
{
    td_device *d = toy_open(0, 0, true);
    n_done = 0;
    tdi_scope_push();
    counted();
    tdi_scope_push();
    td_tensor *x = counted(), *y = counted();
    counted();
    CHECK(tdi_scope_pop(x) == x);
    CHECK_INT(2, n_done); /* y and the last */
    (void)y;
    CHECK_INT(1, x->refs);
    tdi_scope_push();
    tdi_keep(x);
    CHECK(tdi_scope_pop(x) == x); /* the scope does not own it: one more reference for the caller */
    CHECK_INT(3, x->refs);
    tdi_release(x);
    CHECK(!tdi_scope_pop(NULL));
    CHECK_INT(4, n_done);
    toy_close(d);
}

static void scopes_and_errors(void)
{
    td_device *d = toy_open(0, 0, true);
    n_done = 0;
    tdi_scope_push();
    td_tensor *x = counted();
    td_fail("something");
    tdi_scope_push(); /* with an error pending, too, or the pops would not match */
    CHECK(!tdi_scope_pop(NULL));
    CHECK(!tdi_scope_pop(x));
    CHECK_INT(1, n_done);
    taken();
    CHECK(!tdi_scope_pop(NULL)); /* one too many does nothing */
    CHECK_INT(0, tdi_ctx()->mark_n);
    toy_close(d);
}

static void scopes_of_several_results(void)
{
    td_device *d = toy_open(0, 0, true);
    n_done = 0;
    tdi_scope_push();
    tdi_scope_push();
    td_tensor *out[4];
    for (int i = 0; i < 3; i++) out[i] = counted();
    counted();
    out[2] = NULL;
    out[3] = out[0]; /* the same one twice */
    tdi_scope_pop_many(out, 4);
    CHECK_INT(2, n_done);
    CHECK_INT(2, out[0]->refs);
    CHECK_INT(1, out[1]->refs);
    CHECK_INT(3, tdi_ctx()->own_n);
    tdi_scope_pop(NULL);
    CHECK_INT(4, n_done);
    CHECK_INT(0, tdi_ctx()->own_n);
    toy_close(d);
}

static void scopes_grow(void)
{
    td_device *d = toy_open(0, 0, true);
    n_done = 0;
    for (int i = 0; i < 1000; i++) tdi_scope_push();
    for (int i = 0; i < 50000; i++) counted();
    for (int i = 0; i < 1000; i++) tdi_scope_pop(NULL);
    CHECK_INT(50000, n_done);
    CHECK_INT(0, tdi_ctx()->own_n);
    toy_close(d);
}

/* What done() of a wrapped tensor does while its scope is being released must not disturb the release. */
static void opens_scopes(void *arg)
{
    (void)arg;
    tdi_scope_push();
    counted();
    counted();
    tdi_scope_pop(NULL);
    n_done++;
}

static void scopes_within_release(void)
{
    td_device *d = toy_open(0, 0, true);
    n_done = 0;
    tdi_scope_push();
    for (int i = 0; i < 10; i++) {
        td_tensor *t = counted();
        t->st->done = opens_scopes;
    }
    tdi_scope_pop(NULL);
    CHECK_INT(30, n_done);
    CHECK_INT(0, tdi_ctx()->own_n);
    toy_close(d);
}

/* ---- contexts ---- */

static void contexts_are_apart(void)
{
    td_context *a = td_context_new(), *before = NULL, *inner = NULL, *own = tdi_ctx();
    CHECK(a != NULL);
    CHECK(td_context_enter(a, &before));
    CHECK(before == own && tdi_ctx() == a);
    CHECK(td_grad_enabled());
    CHECK(td_grad_enable(false));
    CHECK(!td_anomaly_enable(true));
    td_fail("in a");
    CHECK(td_context_enter(a, &inner)); /* again, by the same thread */
    CHECK(inner == a);
    td_context_leave(inner);
    td_context_leave(before);
    CHECK(tdi_ctx() == own);
    CHECK(!tdi_failed() && td_grad_enabled() && !td_anomaly_enable(false));
    CHECK(td_context_enter(a, &before));
    CHECK_STR("in a", taken());
    CHECK(!td_grad_enable(true));
    td_context_leave(before);
    CHECK_INT(0, a->owner);
    td_context_free(a);
    CHECK(!td_context_enter(NULL, &before));
    td_context_free(NULL);
}

static void *try_enter(void *arg)
{
    td_context *before;
    bool in = td_context_enter(arg, &before);
    if (in) td_context_leave(before);
    return in ? arg : NULL;
}

static void *in_thread(void *(*f)(void *), void *arg)
{
    pthread_t t;
    void *result = NULL;
    CHECK_INT(0, pthread_create(&t, NULL, f, arg));
    pthread_join(t, &result);
    return result;
}

static void one_thread_at_a_time(void)
{
    td_context *a = td_context_new(), *before;
    CHECK(td_context_enter(a, &before));
    CHECK(!in_thread(try_enter, a));
    td_context_leave(before);
    CHECK(in_thread(try_enter, a) == a);
    td_context_free(a);
}

static void *own_things(void *arg)
{
    tdi_ctx()->device = arg;
    if (tdi_failed()) return NULL;
    td_fail("only here");
    for (int i = 0; i < 100; i++) counted();
    td_context_leave(NULL); /* once too often: the thread comes back to its own */
    return tdi_failed() ? arg : NULL;
}

static void threads_have_their_own(void)
{
    td_device *d = toy_open(0, 0, true);
    n_done = 0;
    CHECK(in_thread(own_things, d) == d);
    CHECK(!tdi_failed());
    CHECK_INT(100, n_done); /* what its scope owned went with the thread */
    toy_close(d);
}

static void contexts_free_what_they_own(void)
{
    td_device *d = toy_open(0, 0, true);
    td_context *a = td_context_new(), *before;
    n_done = 0;
    CHECK(td_context_enter(a, &before));
    a->device = d;
    for (int i = 0; i < 10; i++) counted();
    tdi_scope_push(); /* left open */
    counted();
    td_context_leave(before);
    td_context_free(a);
    CHECK_INT(11, n_done);
    toy_close(d);
}

static void say_where(char *to, size_t room) { snprintf(to, room, "train.lua:12"); }

static void where_and_interrupt(void)
{
    char text[8];
    tdi_where(text, sizeof text);
    CHECK_STR("", text);
    td_set_where(say_where);
    tdi_where(text, sizeof text);
    CHECK_STR("train.l", text);
    td_set_where(NULL);
    CHECK(!td_interrupted());
    td_interrupt();
    CHECK(tdi_interrupt_pending());
    CHECK(td_interrupted() && !tdi_interrupt_pending() && !td_interrupted());
}

int main(void)
{
    RUN(philox_vectors);
    RUN(random_stream);
    RUN(random_int_rejects);
    RUN(first_failure_wins);
    RUN(long_messages_end_in_whole_characters);
    RUN(prefixes);
    RUN(scopes_release);
    RUN(scopes_and_errors);
    RUN(scopes_of_several_results);
    RUN(scopes_grow);
    RUN(scopes_within_release);
    RUN(contexts_are_apart);
    RUN(one_thread_at_a_time);
    RUN(threads_have_their_own);
    RUN(contexts_free_what_they_own);
    RUN(where_and_interrupt);
    return check_done();
}

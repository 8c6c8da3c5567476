/* context.c - contexts: made, entered by one thread at a time, freed. A thread that enters none gets one of its own. */
#include "plan.h"
#include "profile.h"
#include "registry.h"
#include "tensor.h"
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/random.h>
#include <time.h>

__thread td_context *tdi_ctx_current __attribute__((tls_model("initial-exec"), visibility("hidden")));

static pthread_once_t once = PTHREAD_ONCE_INIT;
static pthread_key_t own_context; /* a thread's own, freed when it ends */

static uint64_t this_thread(void) { return (uint64_t)(uintptr_t)&tdi_ctx_current; }

static uint64_t system_seed(void)
{
    uint64_t seed;
    struct timespec now;
    if (getrandom(&seed, sizeof seed, GRND_NONBLOCK) == (ssize_t)sizeof seed) return seed;
    clock_gettime(CLOCK_REALTIME, &now);
    return ((uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec) * 0x9e3779b97f4a7c15u;
}

static td_context *make(void)
{
    td_context *c = calloc(1, sizeof *c);
    if (!c) return NULL;
    c->grad = true;
    c->random[0] = system_seed();
    return c;
}

static void thread_ends(void *own)
{
    td_context *c = own;
    if (tdi_ctx_current == c) tdi_ctx_current = NULL;
    c->owner = 0;
    td_context_free(c);
}

/* Registration reports errors to a context, so it runs with one current. */
static void start(void)
{
    if (pthread_key_create(&own_context, thread_ends)) {
        fputs("tide: no thread keys are left\n", stderr);
        abort();
    }
    tdi_registry_init();
}

td_context *tdi_ctx_slow(void)
{
    td_context *c = make();
    if (!c) {
        fputs("tide: out of memory: not even a context can be had\n", stderr);
        abort();
    }
    c->owner = this_thread();
    c->depth = 1;
    tdi_ctx_current = c;
    pthread_once(&once, start);
    td_context *had = pthread_getspecific(own_context);
    if (had) { /* left once too often: back to it */
        c->owner = 0;
        td_context_free(c);
        had->owner = this_thread();
        had->depth = 1;
        return tdi_ctx_current = had;
    }
    pthread_setspecific(own_context, c);
    return c;
}

td_context *td_context_new(void)
{
    td_context *c = make();
    if (!c) return NULL;
    bool borrow = !tdi_ctx_current;
    if (borrow) tdi_ctx_current = c;
    pthread_once(&once, start);
    if (borrow) tdi_ctx_current = NULL;
    return c;
}

void td_context_free(td_context *c)
{
    if (!c || __atomic_load_n(&c->owner, __ATOMIC_ACQUIRE)) return;
    /* Current while its tensors go: what they call finds a context. */
    td_context *before = tdi_ctx_current;
    tdi_ctx_current = c;
    while (c->own_n) tdi_release(c->own[--c->own_n]);
    tdi_plans_free(c->plans);
    tdi_profile_free(c->profile);
    tdi_ctx_current = before;
    free(c->own);
    free(c->mark);
    free(c);
}

bool td_context_enter(td_context *c, td_context **before)
{
    uint64_t none = 0, self = this_thread();
    if (!c) return false;
    if (__atomic_load_n(&c->owner, __ATOMIC_RELAXED) != self &&
        !__atomic_compare_exchange_n(&c->owner, &none, self, false, __ATOMIC_ACQUIRE, __ATOMIC_RELAXED))
        return false;
    c->depth++;
    if (before) *before = tdi_ctx_current;
    tdi_ctx_current = c;
    return true;
}

void td_context_leave(td_context *before)
{
    td_context *c = tdi_ctx_current;
    tdi_ctx_current = before;
    if (c && --c->depth == 0) __atomic_store_n(&c->owner, 0, __ATOMIC_RELEASE);
}

bool td_stay_begin(td_context *c, td_context **before)
{
    if (!td_context_enter(c, before)) return false;
    tdi_scope_push();
    return true;
}

void td_stay_end(td_context *before)
{
    tdi_scope_pop(NULL);
    td_context_leave(before);
}

/* ---- modes; they work with a pending error, so that what was changed can be changed back ---- */

static bool swap(bool *mode, bool on)
{
    bool before = *mode;
    *mode = on;
    return before;
}

bool td_grad_enabled(void) { return tdi_ctx()->grad; }
bool td_grad_enable(bool on) { return swap(&tdi_ctx()->grad, on); }
bool td_anomaly_enable(bool on) { return swap(&tdi_ctx()->anomaly, on); }
bool td_decompose_enable(bool on) { return swap(&tdi_ctx()->decompose, on); }

/* ---- the default device ---- */

bool td_device_set_default(const char *name)
{
    td_context *c = tdi_ctx();
    td_device *d = c->err ? NULL : tdi_device(name);
    if (!d) return false;
    c->device = d;
    return true;
}

const char *td_device_default(void)
{
    td_context *c = tdi_ctx();
    td_device *d = c->err ? NULL : tdi_device_default(c);
    return d ? d->name : NULL;
}

/* ---- what the front end does for the core ---- */

void td_set_where(void (*where)(char *to, size_t room)) { tdi_ctx()->where = where; }

void tdi_where(char *to, size_t room)
{
    td_context *c = tdi_ctx();
    if (!room) return;
    to[0] = 0;
    if (c->where) c->where(to, room);
    to[room - 1] = 0;
}

void td_set_collect(void (*collect)(void *arg), void *arg)
{
    td_context *c = tdi_ctx();
    c->collect = collect;
    c->collect_arg = arg;
}

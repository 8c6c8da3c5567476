/* ring.c - see ring.h. Only the owner's thread waits for jobs, so one signal wakes it; a job wakes one worker. */
#include "ring.h"
#include <errno.h>
#include <signal.h>
#include <string.h>
#include <time.h>

static void *work(void *arg)
{
    tdl_ring *r = (tdl_ring *)arg;
    void *own = NULL;
    pthread_mutex_lock(&r->lock);
    for (;;) {
        while (!r->stop && r->taken == r->submitted) pthread_cond_wait(&r->more, &r->lock);
        if (r->stop) break;
        int slot = (int)(r->taken++ % r->ahead);
        r->state[slot] = TDL_BUSY;
        pthread_mutex_unlock(&r->lock);
        r->work->run(r->owner, slot, &own);
        pthread_mutex_lock(&r->lock);
        r->state[slot] = TDL_READY;
        pthread_cond_signal(&r->done);
    }
    pthread_mutex_unlock(&r->lock);
    if (own) r->work->end(r->owner, own);
    return NULL;
}

void tdl_ring_init(tdl_ring *r, const tdl_work *w, void *owner, int ahead, int n_threads)
{
    memset(r, 0, sizeof *r);
    r->work = w;
    r->owner = owner;
    r->ahead = ahead;
    r->n_threads = n_threads;
    pthread_condattr_t clock;
    pthread_condattr_init(&clock);
    pthread_condattr_setclock(&clock, CLOCK_MONOTONIC);
    pthread_mutex_init(&r->lock, NULL);
    pthread_cond_init(&r->more, NULL);
    pthread_cond_init(&r->done, &clock);
    pthread_condattr_destroy(&clock);
    r->made = true;
}

bool tdl_ring_start(tdl_ring *r)
{
    sigset_t all, before;
    if (r->running == r->n_threads) return true;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before); /* Ctrl-C is for the script's thread */
    while (r->running < r->n_threads && !pthread_create(&r->thread[r->running], NULL, work, r)) r->running++;
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return r->running > 0;
}

void tdl_ring_submit(tdl_ring *r)
{
    pthread_mutex_lock(&r->lock);
    r->state[r->submitted++ % r->ahead] = TDL_WAITING;
    pthread_cond_signal(&r->more);
    pthread_mutex_unlock(&r->lock);
}

static struct timespec from_now(double seconds)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    t.tv_nsec += (long)((seconds - (double)(time_t)seconds) * 1e9);
    t.tv_sec += (time_t)seconds + t.tv_nsec / 1000000000;
    t.tv_nsec %= 1000000000;
    return t;
}

/* The lock is held. Waits for a job to be done; false when it is too late. */
static bool wait_until(tdl_ring *r, double seconds, const struct timespec *end)
{
    if (seconds <= 0) return pthread_cond_wait(&r->done, &r->lock) == 0;
    return pthread_cond_timedwait(&r->done, &r->lock, end) != ETIMEDOUT;
}

int tdl_ring_wait(tdl_ring *r, double seconds)
{
    int slot = (int)(r->given % r->ahead);
    if (!r->n_threads) {
        r->taken++;
        r->work->run(r->owner, slot, &r->own);
        r->state[slot] = TDL_READY;
    } else {
        struct timespec end = from_now(seconds);
        bool late = false;
        pthread_mutex_lock(&r->lock);
        while (r->state[slot] != TDL_READY && !late) late = !wait_until(r, seconds, &end);
        bool ready = r->state[slot] == TDL_READY;
        pthread_mutex_unlock(&r->lock);
        if (!ready) return -1;
    }
    r->state[slot] = TDL_FREE;
    r->given++;
    return slot;
}

bool tdl_ring_give_up(tdl_ring *r, double seconds)
{
    struct timespec end = from_now(seconds);
    bool late = false;
    pthread_mutex_lock(&r->lock);
    r->taken = r->submitted;
    for (int i = 0; i < r->ahead && !late; i++)
        while (r->state[i] == TDL_BUSY && !late) late = !wait_until(r, seconds, &end);
    if (!late) {
        r->submitted = r->taken = r->given = 0;
        memset(r->state, 0, sizeof r->state); /* all free */
    }
    pthread_mutex_unlock(&r->lock);
    return !late;
}

void tdl_ring_close(tdl_ring *r)
{
    if (!r->made) return;
    pthread_mutex_lock(&r->lock);
    r->stop = true;
    pthread_cond_broadcast(&r->more);
    pthread_mutex_unlock(&r->lock);
    for (int i = 0; i < r->running; i++) pthread_join(r->thread[i], NULL);
    if (r->own) r->work->end(r->owner, r->own);
    pthread_mutex_destroy(&r->lock);
    pthread_cond_destroy(&r->more);
    pthread_cond_destroy(&r->done);
    r->made = false;
    r->running = 0;
    r->own = NULL;
}

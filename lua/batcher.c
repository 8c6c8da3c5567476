/* batcher.c - see batcher.h. The script's thread makes a batch's tensors when its place in the ring falls free; a worker only fills
 * their memory: by memcpy, from u8 to f32 by a table, or through a chain of transforms. Workers know neither Lua nor a context, and
 * run on one thread each. Only the script's thread waits for batches, so one signal wakes it; a batch wakes one worker. */
#include "batcher.h"
#include <signal.h>
#include <stdlib.h>
#include <string.h>

static void as_floats(const tdl_batcher *b, const unsigned char *u, float *to, size_t n)
{
    for (size_t k = 0; k < n; k++) to[k] = b->as_float[u[k]];
}

static void fill_rows(const tdl_batcher *b, const tdl_source *s, bool widen, char *to, const tdl_job *j)
{
    for (int64_t i = 0; i < j->n; i++) {
        int64_t r = b->order ? b->order[j->first + i] : j->first + i;
        const char *from = s->p + (size_t)r * s->row;
        if (!widen) {
            memcpy(to, from, s->row);
            to += s->row;
            continue;
        }
        as_floats(b, (const unsigned char *)from, (float *)(void *)to, s->elements);
        to += s->elements * sizeof(float);
    }
}

/* The same through the chain. scratch: two buffers. */
static void fill_by_chain(const tdl_batcher *b, const tdl_job *j, float *scratch)
{
    float *to = (float *)(void *)j->xp;
    for (int64_t i = 0; i < j->n; i++, to += b->to.c * b->to.h * b->to.w) {
        int64_t r = b->order ? b->order[j->first + i] : j->first + i;
        const char *from = b->x.p + (size_t)r * b->x.row;
        if (b->widen) as_floats(b, (const unsigned char *)from, scratch, b->x.elements);
        else memcpy(scratch, from, b->x.row);
        tdl_chain_run(b->chain, b->from, scratch, scratch + b->room, to, b->draw, (uint64_t)r);
    }
}

/* Fills a batch. scratch: made when it is first needed. */
static void fill(const tdl_batcher *b, tdl_job *j, float **scratch)
{
    if (b->chain && !*scratch) *scratch = (float *)malloc((2 * b->room + 1) * sizeof **scratch);
    if (b->chain && !*scratch) {
        j->error = "out of memory for transforms";
        return;
    }
    if (b->chain) fill_by_chain(b, j, *scratch);
    else fill_rows(b, &b->x, b->widen, j->xp, j);
    if (j->y) fill_rows(b, &b->y, false, j->yp, j);
}

static void *work(void *arg)
{
    tdl_batcher *b = (tdl_batcher *)arg;
    float *scratch = NULL;
    pthread_mutex_lock(&b->lock);
    for (;;) {
        while (!b->stop && b->taken == b->submitted) pthread_cond_wait(&b->work, &b->lock);
        if (b->stop) break;
        tdl_job *j = &b->jobs[b->taken++ % b->ahead];
        j->state = TDL_BUSY;
        pthread_mutex_unlock(&b->lock);
        fill(b, j, &scratch);
        pthread_mutex_lock(&b->lock);
        j->state = TDL_READY;
        pthread_cond_signal(&b->done);
    }
    pthread_mutex_unlock(&b->lock);
    free(scratch);
    return NULL;
}

bool tdl_batcher_start(tdl_batcher *b)
{
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before); /* Ctrl-C is for the script's thread */
    while (b->running < b->n_threads && !pthread_create(&b->thread[b->running], NULL, work, b)) b->running++;
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return b->running > 0 || !b->n_threads;
}

/* ---- the script's side ---- */

void tdl_batcher_submit(tdl_batcher *b, tdl_job j)
{
    j.state = TDL_WAITING;
    pthread_mutex_lock(&b->lock);
    b->jobs[b->submitted++ % b->ahead] = j;
    pthread_cond_signal(&b->work);
    pthread_mutex_unlock(&b->lock);
}

tdl_job *tdl_batcher_wait(tdl_batcher *b)
{
    tdl_job *j = &b->jobs[b->given % b->ahead];
    if (b->n_threads) {
        pthread_mutex_lock(&b->lock);
        while (j->state != TDL_READY) pthread_cond_wait(&b->done, &b->lock);
        pthread_mutex_unlock(&b->lock);
    } else {
        fill(b, j, &b->scratch);
    }
    b->given++;
    return j;
}

void tdl_job_drop(tdl_job *j)
{
    if (j->x) td_release(j->x);
    if (j->y) td_release(j->y);
    memset(j, 0, sizeof *j);
}

/* Takes back what no worker has begun, and waits for what one has. */
static void cancel(tdl_batcher *b)
{
    pthread_mutex_lock(&b->lock);
    b->taken = b->submitted;
    for (int i = 0; i < b->ahead; i++)
        while (b->jobs[i].state == TDL_BUSY) pthread_cond_wait(&b->done, &b->lock);
    pthread_mutex_unlock(&b->lock);
    for (int i = 0; i < b->ahead; i++) tdl_job_drop(&b->jobs[i]);
}

void tdl_batcher_give_up(tdl_batcher *b)
{
    cancel(b);
    pthread_mutex_lock(&b->lock);
    b->submitted = b->taken = b->given = b->batches = 0;
    pthread_mutex_unlock(&b->lock);
}

void tdl_batcher_close(tdl_batcher *b)
{
    if (b->made) {
        pthread_mutex_lock(&b->lock);
        b->stop = true;
        pthread_cond_broadcast(&b->work);
        pthread_mutex_unlock(&b->lock);
        for (int i = 0; i < b->running; i++) pthread_join(b->thread[i], NULL);
        for (int i = 0; i < b->ahead; i++) tdl_job_drop(&b->jobs[i]);
        pthread_mutex_destroy(&b->lock);
        pthread_cond_destroy(&b->work);
        pthread_cond_destroy(&b->done);
        b->made = false;
        b->running = 0;
    }
    free(b->jobs);
    free(b->order);
    free(b->scratch);
    b->jobs = NULL;
    b->order = NULL;
    b->scratch = NULL;
    if (b->x.t) td_release(b->x.t);
    if (b->y.t) td_release(b->y.t);
    b->x.t = b->y.t = NULL;
}

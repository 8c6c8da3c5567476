/* batcher.c - see batcher.h. The script's thread makes a batch's tensors when its place in the ring falls free; a worker only fills
 * their memory: by memcpy, from u8 to f32 by a table, or through a chain of transforms. Workers know neither Lua nor a context, and
 * run on one thread each. */
#include "batcher.h"
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

static void run(void *owner, int slot, void **own)
{
    tdl_batcher *b = (tdl_batcher *)owner;
    float *scratch = (float *)*own;
    fill(b, &b->jobs[slot], &scratch);
    *own = scratch;
}

static void end(void *owner, void *own)
{
    (void)owner;
    free(own);
}

/* ---- the script's side ---- */

void tdl_batcher_init(tdl_batcher *b, int ahead, int n_threads)
{
    static const tdl_work work = {run, end};
    tdl_ring_init(&b->ring, &work, b, ahead, n_threads);
}

void tdl_batcher_submit(tdl_batcher *b, tdl_job j)
{
    b->jobs[tdl_ring_next(&b->ring)] = j;
    tdl_ring_submit(&b->ring);
}

tdl_job *tdl_batcher_wait(tdl_batcher *b) { return &b->jobs[tdl_ring_wait(&b->ring, 0)]; }

void tdl_job_drop(tdl_job *j)
{
    if (j->x) td_release(j->x);
    if (j->y) td_release(j->y);
    memset(j, 0, sizeof *j);
}

void tdl_batcher_give_up(tdl_batcher *b)
{
    tdl_ring_give_up(&b->ring, 0);
    for (int i = 0; i < b->ring.ahead; i++) tdl_job_drop(&b->jobs[i]);
    b->batches = 0;
}

void tdl_batcher_close(tdl_batcher *b)
{
    tdl_ring_close(&b->ring);
    for (int i = 0; b->jobs && i < b->ring.ahead; i++) tdl_job_drop(&b->jobs[i]);
    free(b->jobs);
    free(b->order);
    b->jobs = NULL;
    b->order = NULL;
    if (b->x.t) td_release(b->x.t);
    if (b->y.t) td_release(b->y.t);
    b->x.t = b->y.t = NULL;
}

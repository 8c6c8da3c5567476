/* batcher.h - a ring of batches that worker threads fill. bind_batcher.c is the script's side of it. */
#ifndef TIDE_LUA_BATCHER_H
#define TIDE_LUA_BATCHER_H
#include "augment.h"
#include "ring.h"
#include <tide/tide.h>

/** A batch: its tensors and their memory. */
typedef struct {
    td_tensor *x, *y;
    char *xp, *yp;
    const char *error; /* what the worker could not do, or NULL */
    int64_t first, n;  /* places in the order                   */
} tdl_job;

/** Rows of one source tensor. */
typedef struct {
    td_tensor *t;
    const char *p;
    size_t row, elements; /* bytes and elements of a row */
    td_dtype dt;          /* of a batch                  */
} tdl_source;

typedef struct {
    const void *kind;
    tdl_source x, y;
    bool widen, drop_last;
    const tdl_chain *chain; /* kept by the userdata's value                             */
    tdl_extent from, to;    /* of a sample, before and after the chain                  */
    size_t room;            /* elements of each of a worker's two scratch buffers       */
    tdl_draw draw;
    float as_float[256];
    int64_t rows, batch, count, batches; /* count: rows of this epoch                   */
    int64_t *order;                      /* 0-based, or NULL                            */
    tdl_job *jobs;                       /* as many as the ring has slots               */
    tdl_ring ring;
} tdl_batcher;

/** Makes its ring. */
void tdl_batcher_init(tdl_batcher *, int ahead, int n_threads);
/** Hands a batch, whose memory is there, to the workers. */
void tdl_batcher_submit(tdl_batcher *, tdl_job);
/** Waits for the next batch, or fills it where there are no workers. */
tdl_job *tdl_batcher_wait(tdl_batcher *);
/** Gives up the epoch that is under way: takes back what no worker has begun, waits for what one has. */
void tdl_batcher_give_up(tdl_batcher *);
/** Ends the workers and frees everything but the struct. */
void tdl_batcher_close(tdl_batcher *);
void tdl_job_drop(tdl_job *);

#endif

/* batcher.h - a ring of batches that worker threads fill. bind_batcher.c is the script's side of it. */
#ifndef TIDE_LUA_BATCHER_H
#define TIDE_LUA_BATCHER_H
#include "augment.h"
#include <pthread.h>
#include <tide/tide.h>

enum { TDL_MAX_WORKERS = 16, TDL_MAX_AHEAD = 64 };

typedef enum { TDL_FREE, TDL_WAITING, TDL_BUSY, TDL_READY } tdl_job_state;

/** A batch: its tensors and their memory. */
typedef struct {
    td_tensor *x, *y;
    char *xp, *yp;
    const char *error; /* what the worker could not do, or NULL */
    int64_t first, n;  /* places in the order                   */
    tdl_job_state state;
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
    float *scratch; /* of the script's thread, where it fills batches itself            */
    float as_float[256];
    int64_t rows, batch, count, batches; /* count: rows of this epoch                   */
    int64_t *order;                      /* 0-based, or NULL                            */
    int64_t submitted, taken, given;     /* batches, in order                           */
    tdl_job *jobs;
    int ahead, n_threads, running;
    pthread_t thread[TDL_MAX_WORKERS];
    pthread_mutex_t lock;
    pthread_cond_t work, done;
    bool made, stop;
} tdl_batcher;

/** Starts the workers that do not run yet; false where there is none and there should be one. */
bool tdl_batcher_start(tdl_batcher *);
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

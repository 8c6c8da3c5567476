/* ring.h - jobs that worker threads do ahead of time and that their owner takes in order; without threads the owner does them itself. */
#ifndef TIDE_LUA_RING_H
#define TIDE_LUA_RING_H
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

enum { TDL_MAX_WORKERS = 16, TDL_MAX_AHEAD = 64 };

typedef enum { TDL_FREE, TDL_WAITING, TDL_BUSY, TDL_READY } tdl_job_state;

/** What is done. A thread's own memory is made by the first job that needs it: *own is NULL then. */
typedef struct {
    void (*run)(void *owner, int slot, void **own);
    void (*end)(void *owner, void *own); /* frees it; called where own is not NULL */
} tdl_work;

typedef struct {
    const tdl_work *work;
    void *owner, *own; /* own: of the owner's thread, where it does the jobs           */
    int64_t submitted, taken, given;
    int ahead, n_threads, running;
    tdl_job_state state[TDL_MAX_AHEAD];
    pthread_t thread[TDL_MAX_WORKERS];
    pthread_mutex_t lock;
    pthread_cond_t more, done;
    bool made, stop;
} tdl_ring;

void tdl_ring_init(tdl_ring *, const tdl_work *, void *owner, int ahead, int n_threads);
/** Starts the threads that do not run yet; false where there is none and there should be one. */
bool tdl_ring_start(tdl_ring *);
/** The slot that the next job goes to. It must be free. */
static inline int tdl_ring_next(const tdl_ring *r) { return (int)(r->submitted % r->ahead); }
static inline bool tdl_ring_full(const tdl_ring *r) { return r->submitted - r->given >= r->ahead; }
/** Hands the job in that slot to the threads. */
void tdl_ring_submit(tdl_ring *);
/** The slot of the oldest job once it is done, which is given then; -1 after so many seconds (0: waits as long as it takes). */
int tdl_ring_wait(tdl_ring *, double seconds);
/** Takes back what no thread has begun, and waits for what one has, but not longer than so many seconds (0: as long as it takes):
 *  true when all is still, and the next job is the first. */
bool tdl_ring_give_up(tdl_ring *, double seconds);
/** Ends the threads. */
void tdl_ring_close(tdl_ring *);

#endif

/* block.c - free lists by size, one set per thread; a thread's lists go back to malloc when it ends. */
#include "block.h"
#include "context.h"
#include "device.h"
#include <pthread.h>
#include <stdlib.h>

enum { STEP = 64, CLASSES = 16, MOST = 16384 }; /* classes of 64, 128, … 1024 bytes; MOST: blocks kept in each */

typedef struct free_block {
    struct free_block *next;
} free_block;

typedef struct {
    free_block *first[CLASSES];
    unsigned n[CLASSES];
} lists;

static __thread lists *mine __attribute__((tls_model("initial-exec")));
static pthread_once_t once = PTHREAD_ONCE_INIT;
static pthread_key_t key;
static bool have_key;

static void drain(void *arg)
{
    lists *l = arg;
    mine = NULL;
    for (int i = 0; i < CLASSES; i++)
        for (free_block *b = l->first[i], *next; b; b = next) {
            next = b->next;
            free(b);
        }
    free(l);
}

static void make_key(void) { have_key = pthread_key_create(&key, drain) == 0; }

static lists *make_lists(void)
{
    pthread_once(&once, make_key);
    lists *l = have_key && !tdi_no_cache ? calloc(1, sizeof *l) : NULL;
    if (l && pthread_setspecific(key, l)) {
        free(l);
        l = NULL;
    }
    return mine = l;
}

void *tdi_block_alloc(size_t size)
{
    size_t class = (size + STEP - 1) / STEP - 1;
    if (size && class < CLASSES && mine && mine->first[class]) {
        free_block *b = mine->first[class];
        mine->first[class] = b->next;
        mine->n[class]--;
        return b;
    }
    void *p = malloc(size && class < CLASSES ? (class + 1) * STEP : size);
    if (!p) td_fail_as(TD_ENOMEM, "out of memory");
    return p;
}

void tdi_block_free(void *block, size_t size)
{
    size_t class = (size + STEP - 1) / STEP - 1;
    lists *l = mine ? mine : make_lists();
    if (!block || !l || !size || class >= CLASSES || l->n[class] >= MOST) {
        free(block);
        return;
    }
    free_block *b = block;
    b->next = l->first[class];
    l->first[class] = b;
    l->n[class]++;
}

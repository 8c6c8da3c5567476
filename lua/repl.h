/* repl.h - the parts of the interpreter. */
#ifndef TIDE_LUA_REPL_H
#define TIDE_LUA_REPL_H
#include "edit.h"
#include <lua.h>

/** Calls the function below n arguments on the stack; an error is printed with a traceback. Returns LUA_OK or what failed. */
int tide_call(lua_State *L, int n, int results);
/** Prints the error message on top of the stack to stderr, and pops it. */
void tide_report(lua_State *L);

/** A Ctrl-C that nothing has met yet is over. */
void tide_forget_interrupt(lua_State *L);

/** Reads, runs and prints until the input ends. */
void tide_repl(lua_State *L);

/** Tab: names for what stands before the cursor; arg is the lua_State. */
void tide_complete(void *arg, const char *line, size_t cursor, edit_words *to);

#endif

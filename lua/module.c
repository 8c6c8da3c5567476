/* module.c - luaopen_tide_core: the C half of the Lua module, for a stock lua5.4 (tide/core.so) and inside the interpreter. */
#include "bind.h"
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

const td_host *TD;

/* core.time() -> seconds of a clock that never goes back */
static int l_time(lua_State *L)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    lua_pushnumber(L, (double)t.tv_sec + 1e-9 * (double)t.tv_nsec);
    return 1;
}

/* core.isatty(fd) or core.isatty(file) */
static int l_isatty(lua_State *L)
{
    int fd = lua_isinteger(L, 1) ? (int)lua_tointeger(L, 1) : 1;
    luaL_Stream *s = (luaL_Stream *)luaL_testudata(L, 1, LUA_FILEHANDLE);
    if (s) fd = s->closef ? fileno(s->f) : -1;
    lua_pushboolean(L, fd >= 0 && isatty(fd));
    return 1;
}

/* Columns of the terminal; 80 where there is none. */
static int l_terminal_width(lua_State *L)
{
    struct winsize w;
    int columns = 0;
    for (int fd = 0; fd <= 2 && columns <= 0; fd++)
        if (isatty(fd) && !ioctl(fd, TIOCGWINSZ, &w)) columns = w.ws_col;
    lua_pushinteger(L, columns > 0 ? columns : 80);
    return 1;
}

static int new_table_ref(lua_State *L)
{
    lua_newtable(L);
    return luaL_ref(L, LUA_REGISTRYINDEX);
}

int luaopen_tide_core(lua_State *L)
{
    static const luaL_Reg functions[] = {
        {"time", l_time}, {"isatty", l_isatty}, {"terminal_width", l_terminal_width}, {NULL, NULL}};
    if (!TD) TD = td_host_get(); /* workers open it, too */
    luaL_checkstack(L, 20, NULL);
    tdl_state *S = tdl_state_find(L);
    if (!S) S = tdl_state_new(L);
    S->tensor_mt = new_table_ref(L);
    S->methods = new_table_ref(L);
    S->shape_mt = new_table_ref(L);
    lua_newtable(L);
    tdl_open_state(L, S);
    tdl_register(L, S, functions);
    tdl_open_ops(L, S); /* first: methods of the same name come after and win */
    tdl_open_tensor(L, S);
    tdl_open_shape(L, S);
    tdl_open_convert(L, S);
    tdl_open_assign(L, S);
    tdl_open_compare(L, S);
    tdl_open_data(L, S);
    tdl_open_gzip(L, S);
    tdl_open_autograd(L, S);
    tdl_open_module(L, S);
    tdl_open_optim(L, S);
    tdl_open_registry(L, S);
    tdl_open_device(L, S);
    tdl_open_random(L, S);
    tdl_open_profile(L, S);
    tdl_open_batcher(L, S);
    tdl_open_augment(L, S);
    tdl_open_workers(L, S);
    tdl_open_conform(L, S);
    tdl_open_capture(L, S);
    lua_pushliteral(L, TD_VERSION);
    lua_setfield(L, -2, "version");
    lua_pushlightuserdata(L, (void *)(uintptr_t)&tdl_newaxis);
    lua_setfield(L, -2, "newaxis");
    return 1;
}

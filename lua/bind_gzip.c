/* bind_gzip.c - gzip data (RFC 1952) to a string or a tensor of bytes, by zlib. */
#include "bind.h"
#include <errno.h>
#include <stdlib.h>
#include <zlib.h>

/* What a read grows in; userdata, so that a raised error frees it. */
typedef struct {
    unsigned char *p;
    size_t n, room;
    FILE *file;
    z_stream z;
    bool inflating;
} inflater;

static int inflater_gc(lua_State *L)
{
    inflater *f = (inflater *)lua_touserdata(L, 1);
    if (f->inflating) inflateEnd(&f->z);
    if (f->file) fclose(f->file);
    free(f->p);
    memset(f, 0, sizeof *f);
    return 0;
}

static inflater *push_inflater(lua_State *L)
{
    inflater *f = (inflater *)lua_newuserdatauv(L, sizeof *f, 0);
    memset(f, 0, sizeof *f);
    lua_createtable(L, 0, 1);
    lua_pushcfunction(L, inflater_gc);
    lua_setfield(L, -2, "__gc");
    lua_setmetatable(L, -2);
    return f;
}

/* Room for more output; the last four bytes of a file are its size modulo 2^32, but may be a lie, so it only grows as needed. */
static bool grow(inflater *f)
{
    size_t room = f->room ? f->room * 2 : (size_t)1 << 20;
    unsigned char *p = (unsigned char *)realloc(f->p, room);
    if (!p) return false;
    f->p = p;
    f->room = room;
    return true;
}

/* One piece of input, to its end or to the end of the member. NULL or what is wrong. */
static const char *inflate_some(inflater *f, bool *ended)
{
    while (f->z.avail_in) {
        if (*ended) { /* another member follows */
            if (f->z.next_in[0] != 0x1f) {
                f->z.avail_in = 0; /* padding after the last member is no error */
                break;
            }
            if (inflateReset(&f->z) != Z_OK) return "bad gzip data";
            *ended = false;
        }
        if (f->n == f->room && !grow(f)) return "out of memory";
        size_t room = f->room - f->n;
        f->z.next_out = f->p + f->n;
        f->z.avail_out = room > 1u << 30 ? 1u << 30 : (uInt)room;
        uInt before = f->z.avail_out;
        int rc = inflate(&f->z, Z_NO_FLUSH);
        f->n += before - f->z.avail_out;
        if (rc == Z_STREAM_END) *ended = true;
        else if (rc == Z_MEM_ERROR) return "out of memory";
        else if (rc != Z_OK && rc != Z_BUF_ERROR) return f->z.msg ? f->z.msg : "bad gzip data";
    }
    return NULL;
}

static const char *inflate_string(inflater *f, const char *s, size_t n, bool *ended)
{
    const char *why = NULL;
    while (!why && n) {
        uInt piece = n > 1u << 30 ? 1u << 30 : (uInt)n;
        f->z.next_in = (Bytef *)(uintptr_t)s;
        f->z.avail_in = piece;
        why = inflate_some(f, ended);
        s += piece;
        n -= piece;
    }
    return why;
}

static const char *inflate_file(inflater *f, const char *path, bool *ended)
{
    unsigned char in[1 << 14];
    f->file = fopen(path, "rbe");
    if (!f->file) return strerror(errno);
    for (;;) {
        size_t n = fread(in, 1, sizeof in, f->file);
        if (!n) return ferror(f->file) ? "cannot be read" : NULL;
        f->z.next_in = in;
        f->z.avail_in = (uInt)n;
        const char *why = inflate_some(f, ended);
        if (why) return why;
    }
}

static void forget(void *p) { free(p); }

/* core.gunzip(path or bytes [, "tensor"]) -> string, or a u8 tensor of one axis */
static int l_gunzip(lua_State *L)
{
    tdl_state *S = TDL_STATE(L);
    size_t len;
    bool ended = false;
    if (lua_type(L, 1) != LUA_TSTRING) tdl_error(L, "gunzip: expected a path or gzip data, got %s", tdl_what(L, 1));
    lua_settop(L, 2);
    const char *s = lua_tolstring(L, 1, &len), *why, *to = lua_isnil(L, 2) ? "string" : luaL_tolstring(L, 2, NULL);
    if (strcmp(to, "string") && strcmp(to, "tensor"))
        tdl_error(L, "gunzip: expected \"string\" or \"tensor\", got \"%.40s\"", to);
    bool data = len >= 2 && (unsigned char)s[0] == 0x1f && (unsigned char)s[1] == 0x8b;
    tdl_pay(L, S);
    tdl_slot *slot = tdl_new(L);
    int result = lua_gettop(L);
    inflater *f = push_inflater(L);
    if (inflateInit2(&f->z, 15 + 16) != Z_OK) tdl_error(L, "gunzip: out of memory"); /* 16: a gzip header */
    f->inflating = true;
    why = data ? inflate_string(f, s, len, &ended) : inflate_file(f, s, &ended);
    if (!why && !ended) why = f->n || f->z.total_in ? "the data ends too early" : "it is empty";
    if (why) tdl_error(L, "gunzip: %.300s: %s", data ? "the data" : s, why);
    if (!strcmp(to, "string")) {
        lua_pushlstring(L, f->p ? (const char *)f->p : "", f->n);
    } else {
        tdl_stay stay;
        tdl_enter(L, S, &stay);
        td_tensor *t = td_tensor_wrap(TD_U8, td_dims((int64_t)f->n), f->p, f->n, forget, f->p);
        if (t) f->p = NULL; /* it is the tensor's now */
        tdl_return(L, S, &stay, slot, t, false);
        lua_pushvalue(L, result);
    }
    lua_pushcfunction(L, inflater_gc); /* now, not when the collector comes */
    lua_pushvalue(L, result + 1);
    lua_call(L, 1, 0);
    return 1;
}

void tdl_open_gzip(lua_State *L, tdl_state *S)
{
    static const luaL_Reg functions[] = {{"gunzip", l_gunzip}, {NULL, NULL}};
    tdl_register(L, S, functions);
}

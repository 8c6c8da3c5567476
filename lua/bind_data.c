/* bind_data.c - tensors from Lua tables, strings and files, and back. */
#include "bind.h"
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

/* ---- {dtype = "f64", device = "cpu", requires_grad = true} ---- */

void tdl_read_made_as(lua_State *L, const char *who, int arg, tdl_made_as *o)
{
    memset(o, 0, sizeof *o);
    if (lua_isnoneornil(L, arg)) return;
    if (lua_type(L, arg) == LUA_TSTRING) { /* the dtype alone */
        o->dt = tdl_check_dtype(L, who, arg);
        o->has_dtype = true;
        return;
    }
    if (lua_type(L, arg) != LUA_TTABLE) tdl_error(L, "%s: expected a table of options, got %s", who, tdl_what(L, arg));
    lua_pushnil(L);
    while (lua_next(L, arg)) {
        const char *key = lua_type(L, -2) == LUA_TSTRING ? lua_tostring(L, -2) : "";
        if (!strcmp(key, "dtype")) {
            o->dt = tdl_check_dtype(L, who, lua_gettop(L));
            o->has_dtype = true;
        } else if (!strcmp(key, "device")) {
            if (lua_type(L, -1) != LUA_TSTRING)
                tdl_error(L, "%s: device: expected a string, got %s", who, tdl_what(L, -1));
            o->device = lua_tostring(L, -1);
        } else if (!strcmp(key, "requires_grad")) {
            o->requires_grad = lua_toboolean(L, -1);
        } else {
            tdl_error(L, "%s: unknown option '%.40s': there are dtype, device and requires_grad", who, key);
        }
        lua_pop(L, 1);
    }
}

/* ---- nested tables ---- */

typedef struct {
    lua_State *L;
    const char *who;
    td_dtype dt; /* of the elements that are written: f32 for f16 and bf16 */
    int nd;
    int64_t dim[TD_MAX_DIM], at[TD_MAX_DIM];
    char *p; /* where the next element goes */
} builder;

/* "[1][2]": the place that is looked at, at most depth indices */
static const char *place(const builder *b, int depth, char *to, size_t room)
{
    size_t n = 0;
    *to = 0;
    for (int i = 0; i < depth && n < room; i++)
        n += (size_t)snprintf(to + n, room - n, "[%lld]", (long long)b->at[i] + 1);
    return *to ? to : "the value";
}

/* Extents from the first entry at each depth, and whether the first leaf is a boolean. */
static bool measure(builder *b, int arg)
{
    lua_State *L = b->L;
    bool boolean = false;
    int top = lua_gettop(L);
    luaL_checkstack(L, TD_MAX_DIM + 8, NULL);
    lua_pushvalue(L, arg);
    while (lua_type(L, -1) == LUA_TTABLE) {
        if (b->nd == TD_MAX_DIM) tdl_error(L, "%s: tables are nested deeper than %d", b->who, TD_MAX_DIM);
        if (lua_rawlen(L, -1) == 0 && tdl_is_named(L, -1))
            tdl_error(L, "%s: expected a list of values, got a table of names", b->who);
        b->dim[b->nd++] = (int64_t)lua_rawlen(L, -1);
        if (b->dim[b->nd - 1] == 0) break;
        lua_rawgeti(L, -1, 1);
    }
    boolean = lua_type(L, -1) == LUA_TBOOLEAN;
    lua_settop(L, top);
    return boolean;
}

static void does_not_fit(const builder *b, int depth)
{
    char where[160];
    lua_State *L = b->L;
    tdl_error(L, "%s: %s: %s does not fit %s", b->who, place(b, depth, where, sizeof where), lua_tostring(L, -1),
              td_dtype_name(b->dt));
}

static void put_integer(builder *b, int depth)
{
    int ok = 1;
    lua_Integer i = lua_tointegerx(b->L, -1, &ok);
    if (!ok || (b->dt == TD_I32 && i != (int32_t)i) || (b->dt == TD_U8 && i != (uint8_t)i)) does_not_fit(b, depth);
    if (b->dt == TD_I64) memcpy(b->p, &(int64_t){i}, 8);
    else if (b->dt == TD_I32) memcpy(b->p, &(int32_t){(int32_t)i}, 4);
    else *b->p = (char)(uint8_t)i;
}

/* The value on top of the stack. */
static void put(builder *b, int depth)
{
    lua_State *L = b->L;
    int type = lua_type(L, -1);
    if (type != LUA_TNUMBER && !(type == LUA_TBOOLEAN && b->dt == TD_BOOL)) {
        char where[160];
        tdl_error(L, "%s: %s: expected %s, got %s", b->who, place(b, depth, where, sizeof where),
                  b->dt == TD_BOOL ? "a boolean" : "a number", tdl_what(L, -1));
    }
    switch (b->dt) {
    case TD_F32: memcpy(b->p, &(float){(float)lua_tonumber(L, -1)}, 4); break;
    case TD_F64: memcpy(b->p, &(double){lua_tonumber(L, -1)}, 8); break;
    case TD_BOOL: *b->p = type == LUA_TBOOLEAN ? (char)lua_toboolean(L, -1) : lua_tonumber(L, -1) != 0; break;
    default: put_integer(b, depth); break;
    }
    b->p += td_dtype_size(b->dt);
}

/* The table on top of the stack. */
static void put_table(builder *b, int depth)
{
    lua_State *L = b->L;
    char where[160];
    if (lua_type(L, -1) != LUA_TTABLE)
        tdl_error(L, "%s: ragged table: %s: expected a list of %lld, got %s", b->who,
                  place(b, depth, where, sizeof where), (long long)b->dim[depth], tdl_what(L, -1));
    if ((int64_t)lua_rawlen(L, -1) != b->dim[depth])
        tdl_error(L, "%s: ragged table: %s has length %llu, expected %lld", b->who,
                  place(b, depth, where, sizeof where), (unsigned long long)lua_rawlen(L, -1),
                  (long long)b->dim[depth]);
    for (b->at[depth] = 0; b->at[depth] < b->dim[depth]; b->at[depth]++) {
        lua_rawgeti(L, -1, b->at[depth] + 1);
        if (depth + 1 < b->nd) put_table(b, depth + 1);
        else put(b, depth + 1);
        lua_pop(L, 1);
    }
}

/* Fills the userdata with a new CPU tensor. */
static td_tensor *new_on_cpu(lua_State *L, tdl_state *S, tdl_slot *s, td_dtype dt, const td_ints *shape)
{
    tdl_stay stay;
    tdl_enter(L, S, &stay);
    tdl_return(L, S, &stay, s, td_tensor_new(dt, *shape, "cpu"), false);
    return s->t;
}

void tdl_push_data(lua_State *L, tdl_state *S, const char *who, int arg, td_dtype dt, bool infer)
{
    builder b = {.L = L, .who = who};
    arg = lua_absindex(L, arg);
    bool boolean = measure(&b, arg);
    if (infer && boolean) dt = TD_BOOL;
    b.dt = dt == TD_F16 || dt == TD_BF16 ? TD_F32 : dt;
    td_ints shape = {b.nd, {0}};
    memcpy(shape.v, b.dim, sizeof b.dim);
    tdl_slot *s = tdl_new(L);
    td_tensor *t = new_on_cpu(L, S, s, b.dt, &shape);
    b.p = (char *)td_tensor_host(t);
    if (td_numel(t)) { /* from here on only raw reads of the tables */
        lua_pushvalue(L, arg);
        if (b.nd) put_table(&b, 0);
        else put(&b, 0);
        lua_pop(L, 1);
    }
    if (b.dt == dt) return;
    tdl_slot *half = tdl_new(L);
    tdl_stay stay;
    tdl_enter(L, S, &stay);
    tdl_return(L, S, &stay, half, td_cast(s->t, dt), false);
    lua_remove(L, -2);
}

/* core.tensor(data [, options]) */
static int l_tensor(lua_State *L)
{
    tdl_state *S = TDL_STATE(L);
    tdl_made_as o;
    lua_settop(L, 2);
    tdl_pay(L, S);
    tdl_read_made_as(L, "tensor", 2, &o);
    tdl_slot *out = tdl_new(L);
    bool copy = tdl_slot_at(L, 1) != NULL;
    if (!copy) tdl_push_data(L, S, "tensor", 1, o.has_dtype ? o.dt : TD_F32, !o.has_dtype);
    td_tensor *from = tdl_check_tensor(L, copy ? 1 : 4);
    tdl_stay stay;
    tdl_enter(L, S, &stay);
    td_tensor *x = td_tensor_detach(from), *y = x;
    if (y && o.has_dtype && td_dtype_of(y) != o.dt) y = td_cast(y, o.dt);
    const char *device = o.device ? o.device : copy ? NULL : td_device_default();
    if (y && device) y = td_tensor_to(y, device);
    if (y && y == x && !copy && !o.requires_grad) { /* it is what was just made */
        tdl_leave(S, &stay, true);
        return 1;
    }
    if (y == x && copy) y = td_copy(y);
    bool ok = y && (!o.requires_grad || td_require_grad(y, true));
    lua_settop(L, 3);
    return tdl_return(L, S, &stay, out, ok ? y : NULL, false);
}

/* ---- raw bytes, little-endian as in memory ---- */

/* x:bytes() -> string of all elements, row-major */
static int m_bytes(lua_State *L)
{
    tdl_state *S = TDL_STATE(L);
    luaL_Buffer b;
    td_tensor *x = tdl_check_tensor(L, 1);
    size_t n = (size_t)td_numel(x) * td_dtype_size(td_dtype_of(x));
    char *to = luaL_buffinitsize(L, &b, n ? n : 1);
    x = tdl_check_tensor(L, 1);
    tdl_stay stay;
    tdl_enter(L, S, &stay);
    if (!tdl_leave(S, &stay, td_tensor_read(x, to))) return tdl_throw(L, S);
    luaL_pushresultsize(&b, n);
    return 1;
}

/* Bytes of a shape, or an error: the tensor is not made before the source is known to be long enough. */
static size_t bytes_of(lua_State *L, const char *who, td_dtype dt, const td_ints *shape)
{
    size_t n = td_dtype_size(dt);
    for (int64_t i = 0; i < shape->n; i++)
        if (__builtin_mul_overflow(n, (size_t)shape->v[i], &n) || n > (size_t)1 << 62)
            tdl_error(L, "%s: a tensor of that shape is too large", who);
    return n;
}

static lua_Integer offset_at(lua_State *L, const char *who, int arg)
{
    if (lua_isnoneornil(L, arg)) return 0;
    int ok = 0;
    lua_Integer i = lua_tointegerx(L, arg, &ok);
    if (!ok || i < 0)
        tdl_error(L, "%s: expected an offset >= 0 in bytes, got %s", who, ok ? "a negative one" : tdl_what(L, arg));
    return i;
}

/* Whatever is not 0 is true: the kernels count on bools of 0 and 1. */
static void tidy_bools(td_dtype dt, void *data, size_t n)
{
    uint8_t *p = (uint8_t *)data;
    for (size_t i = 0; dt == TD_BOOL && i < n; i++) p[i] = p[i] != 0;
}

/* core.from_string(bytes, dtype, shape [, offset]) */
static int l_from_string(lua_State *L)
{
    tdl_state *S = TDL_STATE(L);
    size_t have;
    td_ints shape;
    if (lua_type(L, 1) != LUA_TSTRING) tdl_error(L, "from_string: expected a string, got %s", tdl_what(L, 1));
    const char *from = lua_tolstring(L, 1, &have);
    td_dtype dt = tdl_check_dtype(L, "from_string", 2);
    if (lua_type(L, 3) != LUA_TTABLE) tdl_error(L, "from_string: expected a shape, got %s", tdl_what(L, 3));
    tdl_check_shape(L, "from_string", 3, 3, &shape);
    size_t at = (size_t)offset_at(L, "from_string", 4), n = bytes_of(L, "from_string", dt, &shape);
    if (at > have || n > have - at)
        tdl_error(L, "from_string: %zu bytes are needed from offset %zu on, but the string has %zu", n, at, have);
    tdl_pay(L, S);
    td_tensor *t = new_on_cpu(L, S, tdl_new(L), dt, &shape);
    if (n) memcpy(td_tensor_host(t), from + at, n);
    tidy_bools(dt, td_tensor_host(t), n);
    return 1;
}

static bool read_all(int fd, char *to, size_t n, off_t at)
{
    while (n) {
        ssize_t got = pread(fd, to, n, at);
        if (got < 0 && errno == EINTR) continue;
        if (got <= 0) {
            if (!got) errno = ENODATA;
            return false;
        }
        to += got;
        n -= (size_t)got;
        at += got;
    }
    return true;
}

/* core.read_file(path, offset, dtype, shape): part of a file, without a detour over a string */
static int l_read_file(lua_State *L)
{
    tdl_state *S = TDL_STATE(L);
    td_ints shape;
    if (lua_type(L, 1) != LUA_TSTRING) tdl_error(L, "read_file: expected a path, got %s", tdl_what(L, 1));
    const char *path = lua_tostring(L, 1);
    size_t at = (size_t)offset_at(L, "read_file", 2);
    td_dtype dt = tdl_check_dtype(L, "read_file", 3);
    if (lua_type(L, 4) != LUA_TTABLE) tdl_error(L, "read_file: expected a shape, got %s", tdl_what(L, 4));
    tdl_check_shape(L, "read_file", 4, 4, &shape);
    size_t n = bytes_of(L, "read_file", dt, &shape);
    tdl_pay(L, S);
    tdl_slot *s = tdl_new(L);

    struct stat st;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) tdl_error(L, "read_file: %s: %s", path, strerror(errno));
    size_t have = fstat(fd, &st) || st.st_size < 0 ? 0 : (size_t)st.st_size;
    if (at > have || n > have - at) {
        close(fd);
        tdl_error(L, "read_file: %s: %zu bytes are needed from offset %zu on, but the file has %zu", path, n, at, have);
    }
    tdl_stay stay; /* no new_on_cpu: it would raise past the open file */
    bool read = true;
    int why = 0;
    tdl_enter(L, S, &stay);
    td_tensor *t = td_tensor_new(dt, shape, "cpu");
    if (t && n) read = read_all(fd, (char *)td_tensor_host(t), n, (off_t)at);
    why = errno;
    close(fd);
    if (t) tidy_bools(dt, td_tensor_host(t), n);
    tdl_return(L, S, &stay, s, t, false);
    if (!read) tdl_error(L, "read_file: %s: %s", path, strerror(why));
    return 1;
}

/* ---- out ---- */

bool tdl_read_numbers(td_tensor *x, void *to)
{
    td_dtype want = td_dtype_is_float(td_dtype_of(x)) ? TD_F64 : TD_I64;
    if (td_dtype_of(x) != want) x = td_cast(x, want);
    return x && td_tensor_read(x, to);
}

typedef struct {
    lua_State *L;
    const td_view *v;
    const char *p; /* next element: double or int64_t */
} reader;

static void push_table(reader *r, int depth)
{
    lua_State *L = r->L;
    if (depth == r->v->nd) {
        int64_t i;
        double d;
        memcpy(&i, r->p, 8);
        memcpy(&d, r->p, 8);
        r->p += 8;
        if (td_dtype_is_float(r->v->dt)) lua_pushnumber(L, d);
        else if (r->v->dt == TD_BOOL) lua_pushboolean(L, i != 0);
        else lua_pushinteger(L, i);
        return;
    }
    int64_t n = r->v->dim[depth];
    lua_createtable(L, n > INT32_MAX ? INT32_MAX : (int)n, 0);
    for (int64_t i = 0; i < n; i++) {
        push_table(r, depth + 1);
        lua_rawseti(L, -2, i + 1);
    }
}

/* x:totable() -> nested tables; a number or boolean for a tensor of no axes */
static int m_totable(lua_State *L)
{
    tdl_state *S = TDL_STATE(L);
    tdl_pay(L, S);
    td_tensor *x = tdl_check_tensor(L, 1);
    size_t n = (size_t)td_numel(x);
    luaL_checkstack(L, TD_MAX_DIM + 8, NULL);
    char *buffer = (char *)lua_newuserdatauv(L, n ? n * 8 : 8, 0);
    x = tdl_check_tensor(L, 1);
    tdl_stay stay;
    tdl_enter(L, S, &stay);
    bool before = td_grad_enable(false), ok = tdl_read_numbers(x, buffer);
    td_grad_enable(before);
    if (!tdl_leave(S, &stay, ok)) return tdl_throw(L, S);
    td_view v = *td_view_of(x);
    reader r = {L, &v, buffer};
    push_table(&r, 0);
    return 1;
}

void tdl_open_data(lua_State *L, tdl_state *S)
{
    static const luaL_Reg methods[] = {{"bytes", m_bytes}, {"totable", m_totable}, {NULL, NULL}};
    static const luaL_Reg functions[] = {
        {"tensor", l_tensor}, {"from_string", l_from_string}, {"read_file", l_read_file}, {NULL, NULL}};
    lua_rawgeti(L, LUA_REGISTRYINDEX, S->methods);
    tdl_register(L, S, methods);
    lua_pop(L, 1);
    tdl_register(L, S, functions);
}

/* bind_device.c - devices, memory, threads. */
#include "bind.h"
#include "bind_list.h"

static const char *device_at(lua_State *L, const char *who, int arg)
{
    if (lua_isnoneornil(L, arg)) return NULL;
    if (tdl_peek(L, arg)) return td_tensor_device(tdl_peek(L, arg));
    if (lua_type(L, arg) != LUA_TSTRING)
        tdl_error(L, "%s: expected a device such as \"cpu\", got %s", who, tdl_what(L, arg));
    return lua_tostring(L, arg);
}

enum { DEVICE_FIELDS = 5 };
static const char *const device_field[DEVICE_FIELDS] = {"name", "description", "memory", "free", "why"};

static void see_device(void *arg, const char *device, const td_props *p, const char *why)
{
    char total[32] = "", free[32] = "";
    if (p) {
        snprintf(total, sizeof total, "%llu", (unsigned long long)p->mem_total);
        snprintf(free, sizeof free, "%llu", (unsigned long long)p->mem_free);
    }
    const char *const v[DEVICE_FIELDS] = {device, p ? p->name : NULL, p ? total : NULL, p ? free : NULL, why};
    for (int i = 0; i < DEVICE_FIELDS; i++) tdl_list_add((tdl_list *)arg, v[i]);
}

/* core.devices() -> {{name = "cpu", description = …, memory = bytes, free = bytes, why = nil}, …} */
static int l_devices(lua_State *L)
{
    tdl_state *S = TDL_STATE(L);
    tdl_list *l = tdl_list_push(L);
    tdl_stay stay;
    tdl_enter(L, S, &stay);
    td_each_device(see_device, l);
    if (!tdl_leave(S, &stay, !td_failed())) return tdl_throw(L, S);
    lua_newtable(L);
    size_t at = 0;
    for (lua_Integer n = 1; at < l->n; n++) {
        lua_createtable(L, 0, DEVICE_FIELDS);
        for (int i = 0; i < DEVICE_FIELDS && tdl_list_next(L, l, &at); i++) {
            if ((i == 2 || i == 3) && lua_isstring(L, -1)) { /* bytes */
                lua_pushinteger(L, lua_tointeger(L, -1));
                lua_remove(L, -2);
            }
            lua_setfield(L, -2, device_field[i]);
        }
        lua_rawseti(L, -2, n);
    }
    return 1;
}

static int l_set_default_device(lua_State *L)
{
    tdl_state *S = TDL_STATE(L);
    const char *name = device_at(L, "set_default_device", 1);
    if (!name) tdl_error(L, "set_default_device: expected a device, got %s", tdl_what(L, 1));
    tdl_stay stay;
    tdl_enter(L, S, &stay);
    if (!tdl_leave(S, &stay, td_device_set_default(name))) return tdl_throw(L, S);
    return 0;
}

static int l_default_device(lua_State *L)
{
    tdl_state *S = TDL_STATE(L);
    tdl_stay stay;
    tdl_enter(L, S, &stay);
    const char *name = td_device_default();
    if (!tdl_leave(S, &stay, name != NULL)) return tdl_throw(L, S);
    lua_pushstring(L, name);
    return 1;
}

static int l_synchronize(lua_State *L)
{
    tdl_state *S = TDL_STATE(L);
    const char *name = device_at(L, "synchronize", 1);
    tdl_stay stay;
    tdl_enter(L, S, &stay);
    if (!tdl_leave(S, &stay, td_synchronize(name))) return tdl_throw(L, S);
    return 0;
}

/* core.memory([device]) -> {current = bytes, peak = bytes, reserved = bytes, allocs = count} */
static int l_memory(lua_State *L)
{
    tdl_state *S = TDL_STATE(L);
    const char *name = device_at(L, "memory", 1);
    td_memory_info m = {0, 0, 0, 0};
    tdl_stay stay;
    tdl_enter(L, S, &stay);
    if (!tdl_leave(S, &stay, td_memory(name, &m))) return tdl_throw(L, S);
    const struct {
        const char *key;
        uint64_t v;
    } field[] = {{"current", m.current}, {"peak", m.peak}, {"reserved", m.reserved}, {"allocs", m.allocs}};
    lua_createtable(L, 0, 4);
    for (int i = 0; i < 4; i++) {
        lua_pushinteger(L, (lua_Integer)field[i].v);
        lua_setfield(L, -2, field[i].key);
    }
    return 1;
}

static int l_reset_peak_memory(lua_State *L)
{
    tdl_state *S = TDL_STATE(L);
    tdl_stay stay;
    tdl_enter(L, S, &stay);
    td_memory_reset_peak();
    tdl_leave(S, &stay, true);
    return 0;
}

static int l_empty_cache(lua_State *L)
{
    tdl_state *S = TDL_STATE(L);
    tdl_stay stay;
    tdl_enter(L, S, &stay);
    td_empty_cache();
    tdl_leave(S, &stay, true);
    return 0;
}

static int threads(lua_State *L, int n)
{
    tdl_state *S = TDL_STATE(L);
    tdl_stay stay;
    tdl_enter(L, S, &stay);
    n = td_threads(n);
    if (!tdl_leave(S, &stay, !td_failed())) return tdl_throw(L, S);
    lua_pushinteger(L, n);
    return 1;
}

static int l_set_num_threads(lua_State *L)
{
    lua_Integer n = lua_isinteger(L, 1) ? lua_tointeger(L, 1) : 0;
    if (n < 1 || n > 4096) tdl_error(L, "set_num_threads: expected an integer from 1 to 4096, got %s", tdl_what(L, 1));
    return threads(L, (int)n);
}

static int l_get_num_threads(lua_State *L) { return threads(L, 0); }

void tdl_open_device(lua_State *L, tdl_state *S)
{
    static const luaL_Reg functions[] = {{"devices", l_devices},
                                         {"set_default_device", l_set_default_device},
                                         {"default_device", l_default_device},
                                         {"synchronize", l_synchronize},
                                         {"memory", l_memory},
                                         {"reset_peak_memory", l_reset_peak_memory},
                                         {"empty_cache", l_empty_cache},
                                         {"set_num_threads", l_set_num_threads},
                                         {"get_num_threads", l_get_num_threads},
                                         {NULL, NULL}};
    tdl_register(L, S, functions);
}

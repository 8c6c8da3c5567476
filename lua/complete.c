/* complete.c - what Tab offers: globals and keywords, fields and methods of what a chain of names leads to, and inside the
 * parentheses of a layer, loss, optimizer or op the names of its options. */
#include "bind.h"
#include "repl.h"
#include <stdlib.h>

typedef struct {
    const char *line;
    size_t from, cursor;
    edit_words *to;
} request;

enum { MAX_CHAIN = 8, MAX_DEPTH = 8 };

static bool is_name(char c) { return c == '_' || (c >= '0' && c <= '9') || ((c | 32) >= 'a' && (c | 32) <= 'z'); }

/* Start of the name that ends at `end`. */
static size_t name_before(const char *s, size_t end)
{
    while (end && is_name(s[end - 1])) end--;
    return end;
}

static void offer(const request *r, const char *word, const char *after)
{
    size_t n = r->cursor - r->from;
    char text[160];
    if (strncmp(word, r->line + r->from, n) || (*word == '_' && !n)) return;
    for (const char *p = word; *p; p++)
        if (!is_name(*p)) return;
    int len = snprintf(text, sizeof text, "%s%s", word, after);
    if (len > 0 && (size_t)len < sizeof text) edit_words_add(r->to, text, (size_t)len);
}

/* ---- fields of the value on top of the stack ---- */

static void offer_fields(lua_State *L, const request *r, bool methods, int depth);

/* tide.nn finds its layers when they are named; M.names() lists them. */
static void offer_names(lua_State *L, const request *r)
{
    lua_pushliteral(L, "names");
    if (lua_rawget(L, -2) == LUA_TFUNCTION && lua_pcall(L, 0, 1, 0) == LUA_OK && lua_istable(L, -1)) {
        for (lua_Integer i = 1; lua_rawgeti(L, -1, i) == LUA_TSTRING; i++) {
            offer(r, lua_tostring(L, -1), "");
            lua_pop(L, 1);
        }
        lua_pop(L, 1);
    }
    lua_pop(L, 1);
}

static void offer_table(lua_State *L, const request *r, bool methods, int depth)
{
    lua_pushnil(L);
    while (lua_next(L, -2)) {
        if (lua_type(L, -2) == LUA_TSTRING && (!methods || lua_isfunction(L, -1))) offer(r, lua_tostring(L, -2), "");
        lua_pop(L, 1);
    }
    if (depth == 0) offer_names(L, r);
}

static void offer_tensor(lua_State *L, const request *r, bool methods)
{
    static const char *const properties[] = {"dtype", "device", "grad", "requires_grad", "is_leaf", "ndim", "made_by"};
    const tdl_state *S = tdl_state_find(L);
    if (!S) return;
    lua_rawgeti(L, LUA_REGISTRYINDEX, S->methods);
    offer_table(L, r, true, 1);
    lua_pop(L, 1);
    for (size_t i = 0; !methods && i < sizeof properties / sizeof *properties; i++) offer(r, properties[i], "");
}

static void offer_fields(lua_State *L, const request *r, bool methods, int depth)
{
    luaL_checkstack(L, 8, NULL);
    if (tdl_slot_at(L, -1)) {
        offer_tensor(L, r, methods);
        return;
    }
    if (lua_istable(L, -1)) offer_table(L, r, methods, depth);
    if (depth == MAX_DEPTH || luaL_getmetafield(L, -1, "__index") == LUA_TNIL) return;
    if (lua_istable(L, -1)) offer_fields(L, r, methods, depth + 1);
    lua_pop(L, 1);
    if (!lua_istable(L, -1) || !lua_getmetatable(L, -1)) return;
    offer_table(L, r, true, 1); /* a class that finds its fields by a function: its methods */
    lua_pop(L, 1);
}

/* ---- the chain of names before the cursor: tide.nn. or net:forward ---- */

static bool push_chain(lua_State *L, const char *s, size_t end)
{
    size_t begin[MAX_CHAIN], stop[MAX_CHAIN];
    int n = 0;
    for (;;) {
        if (n == MAX_CHAIN) return false;
        stop[n] = end;
        begin[n] = end = name_before(s, end);
        if (begin[n] == stop[n]) return false;
        n++;
        if (!end || (s[end - 1] != '.' && s[end - 1] != ':') || (end > 1 && s[end - 2] == '.')) break;
        end--;
    }
    lua_pushglobaltable(L);
    while (n--) {
        lua_pushlstring(L, s + begin[n], stop[n] - begin[n]);
        lua_gettable(L, -2);
        lua_remove(L, -2);
        if (lua_isnil(L, -1)) return false;
    }
    return true;
}

/* ---- options of the call that the cursor is in ---- */

/* Where the innermost call that is still open begins: its "(" or "{" after a name. */
static bool open_call(const char *s, size_t end, size_t *name_end)
{
    int depth = 0;
    for (size_t i = end; i-- > 0;) {
        if (strchr(")]}", s[i])) depth++;
        if (!strchr("([{", s[i])) continue;
        if (depth > 0) {
            depth--;
            continue;
        }
        size_t k = i;
        while (k && s[k - 1] == ' ') k--;
        if (s[i] != '[' && k && is_name(s[k - 1])) {
            *name_end = k;
            return true;
        }
    }
    return false;
}

/* Pushes what the core knows of a name, or nothing. */
static bool push_info(lua_State *L, const char *name, size_t len)
{
    static const char *const ask[] = {"layer_info", "optim_info", "op_info"};
    luaL_getsubtable(L, LUA_REGISTRYINDEX, LUA_LOADED_TABLE);
    if (lua_getfield(L, -1, "tide.core") != LUA_TTABLE) return false;
    for (int i = 0; i < 3; i++) {
        lua_getfield(L, -1, ask[i]);
        lua_pushlstring(L, name, len);
        if (lua_pcall(L, 1, 1, 0) == LUA_OK && lua_istable(L, -1)) return true;
        lua_pop(L, 1);
    }
    return false;
}

/* true where the names of options are all that should be offered */
static bool offer_options(lua_State *L, const request *r)
{
    size_t end, begin;
    if (!open_call(r->line, r->from, &end)) return false;
    begin = name_before(r->line, end);
    if (!push_info(L, r->line + begin, end - begin)) return false;
    if (r->cursor == r->from) {
        lua_getfield(L, -1, "usage");
        if (lua_isstring(L, -1)) r->to->note = strdup(lua_tostring(L, -1));
        return true;
    }
    lua_getfield(L, -1, "options");
    for (lua_Integer i = 1; lua_istable(L, -1) && lua_rawgeti(L, -1, i) == LUA_TTABLE; i++) {
        lua_getfield(L, -1, "name");
        if (lua_isstring(L, -1)) offer(r, lua_tostring(L, -1), " = ");
        lua_pop(L, 2);
    }
    return false;
}

static int complete(lua_State *L)
{
    static const char *const keywords[] = {"and",      "break",  "do",   "else", "elseif", "end",  "false", "for",
                                           "function", "goto",   "if",   "in",   "local",  "nil",  "not",   "or",
                                           "repeat",   "return", "then", "true", "until",  "while"};
    request *r = (request *)lua_touserdata(L, 1);
    const char *s = r->line;
    r->from = r->to->from = name_before(s, r->cursor);
    char before = r->from ? s[r->from - 1] : 0;
    bool dots = before == '.' && r->from > 1 && s[r->from - 2] == '.';
    if ((before == '.' && !dots) || before == ':') {
        if (push_chain(L, s, r->from - 1)) offer_fields(L, r, before == ':', 0);
        return 0;
    }
    if (offer_options(L, r)) return 0;
    for (size_t i = 0; i < sizeof keywords / sizeof *keywords; i++) offer(r, keywords[i], "");
    lua_pushglobaltable(L);
    offer_table(L, r, false, 1);
    static const char *const ours[] = {"tide", "nn", "optim", "data"}; /* there when they are first named */
    for (size_t i = 0; i < sizeof ours / sizeof *ours; i++) offer(r, ours[i], "");
    return 0;
}

void tide_complete(void *arg, const char *line, size_t cursor, edit_words *to)
{
    lua_State *L = (lua_State *)arg;
    request r = {line, cursor, cursor, to};
    int top = lua_gettop(L);
    to->from = cursor;
    lua_pushcfunction(L, complete);
    lua_pushlightuserdata(L, &r);
    lua_pcall(L, 1, 0, 0); /* an error on the way: nothing more to offer */
    lua_settop(L, top);
}

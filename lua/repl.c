/* repl.c - the interactive loop: reads a statement or an expression, runs it, prints the results. */
#include "repl.h"
#include "bind.h"
#include <errno.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

enum { MAX_ITEMS = 24, MAX_DEPTH = 3 };

/* ---- results ---- */

static void print_value(lua_State *L, int at, int depth);

static bool is_identifier(const char *s)
{
    if (!*s || (*s >= '0' && *s <= '9')) return false;
    for (; *s; s++)
        if (*s != '_' && !(*s >= '0' && *s <= '9') && !((*s | 32) >= 'a' && (*s | 32) <= 'z')) return false;
    return true;
}

static void print_key(lua_State *L, int at)
{
    if (lua_type(L, at) == LUA_TSTRING && is_identifier(lua_tostring(L, at))) {
        fputs(lua_tostring(L, at), stdout);
    } else {
        fputc('[', stdout);
        print_value(L, at, MAX_DEPTH);
        fputc(']', stdout);
    }
    fputs(" = ", stdout);
}

static void print_table(lua_State *L, int at, int depth)
{
    int items = 0;
    lua_Integer n = (lua_Integer)lua_rawlen(L, at);
    luaL_checkstack(L, 10, NULL);
    fputc('{', stdout);
    for (lua_Integer i = 1; i <= n && items < MAX_ITEMS; i++, items++) {
        if (items) fputs(", ", stdout);
        lua_rawgeti(L, at, i);
        print_value(L, lua_gettop(L), depth + 1);
        lua_pop(L, 1);
    }
    bool more = n > items;
    lua_pushnil(L);
    while (lua_next(L, at)) {
        bool listed = lua_isinteger(L, -2) && lua_tointeger(L, -2) >= 1 && lua_tointeger(L, -2) <= n;
        if (!listed && items < MAX_ITEMS) {
            if (items++) fputs(", ", stdout);
            lua_pushvalue(L, -2);
            print_key(L, lua_gettop(L));
            lua_pop(L, 1);
            print_value(L, lua_gettop(L), depth + 1);
        } else if (!listed) {
            more = true;
        }
        lua_pop(L, 1);
    }
    fputs(more ? ", …}" : "}", stdout);
}

static void print_string(const char *s, size_t n)
{
    fputc('"', stdout);
    for (size_t i = 0; i < n; i++) {
        if (s[i] == '"' || s[i] == '\\') fputc('\\', stdout);
        if ((unsigned char)s[i] < 32 || s[i] == 127) printf("\\x%02x", (unsigned char)s[i]);
        else fputc(s[i], stdout);
    }
    fputc('"', stdout);
}

/* Tables by their content, unless they say themselves how they print. */
static void print_value(lua_State *L, int at, int depth)
{
    size_t n;
    bool own = luaL_getmetafield(L, at, "__tostring") != LUA_TNIL || luaL_getmetafield(L, at, "__name") != LUA_TNIL;
    if (own) lua_pop(L, 1);
    if (lua_type(L, at) == LUA_TTABLE && !own && depth < MAX_DEPTH) {
        print_table(L, at, depth);
    } else if (lua_type(L, at) == LUA_TSTRING && depth > 0) {
        const char *s = lua_tolstring(L, at, &n);
        print_string(s, n);
    } else {
        const char *s = luaL_tolstring(L, at, &n);
        fwrite(s, 1, n, stdout);
        lua_pop(L, 1);
    }
}

static int print_results(lua_State *L)
{
    int n = lua_gettop(L);
    for (int i = 1; i <= n; i++) {
        if (i > 1) fputc('\t', stdout);
        print_value(L, i, 0);
    }
    if (n) fputc('\n', stdout);
    fflush(stdout);
    return 0;
}

/* ---- reading ---- */

static edit_result plain_line(char **line)
{
    size_t room = 0;
    *line = NULL;
    ssize_t n = getline(line, &room, stdin);
    if (n < 0) {
        free(*line);
        *line = NULL;
        return EDIT_END;
    }
    if (n && (*line)[n - 1] == '\n') (*line)[n - 1] = 0;
    return EDIT_LINE;
}

/* A prompt of the script's choice: the globals of the stock interpreter. */
static const char *prompt_of(lua_State *L, bool first)
{
    if (lua_getglobal(L, first ? "_PROMPT" : "_PROMPT2") == LUA_TSTRING) return lua_tostring(L, -1);
    return first ? "> " : ">> ";
}

static edit_result read_line(lua_State *L, bool first, bool terminal)
{
    char *line;
    const char *prompt = prompt_of(L, first);
    edit_result r = terminal ? edit_read(prompt, tide_complete, L, &line) : plain_line(&line);
    lua_pop(L, 1);
    if (r != EDIT_LINE) return r;
    if (terminal) edit_history_add(line);
    lua_pushstring(L, line);
    free(line);
    return r;
}

static bool incomplete(lua_State *L, int rc)
{
    static const char mark[] = "<eof>";
    size_t n;
    if (rc != LUA_ERRSYNTAX) return false;
    const char *msg = lua_tolstring(L, -1, &n);
    return n >= sizeof mark - 1 && !strcmp(msg + n - (sizeof mark - 1), mark);
}

/* Leaves a function on the stack (LUA_OK), or an error message, or nothing at the end of the input (-1) and after Ctrl-C (-2). */
static int load_statement(lua_State *L, bool terminal)
{
    edit_result r = read_line(L, true, terminal);
    if (r != EDIT_LINE) return r == EDIT_END ? -1 : -2;
    const char *text = lua_tostring(L, -1);
    const char *expression = lua_pushfstring(L, "return %s", *text == '=' ? text + 1 : text);
    int rc = luaL_loadbuffer(L, expression, strlen(expression), "=stdin");
    if (rc == LUA_OK) {
        lua_replace(L, -3);
        lua_pop(L, 1);
        return rc;
    }
    lua_pop(L, 2);
    for (;;) {
        size_t n;
        text = lua_tolstring(L, -1, &n);
        rc = luaL_loadbuffer(L, text, n, "=stdin");
        if (!incomplete(L, rc)) break;
        lua_pop(L, 1);
        r = read_line(L, false, terminal);
        if (r != EDIT_LINE) {
            lua_pop(L, 1);
            return r == EDIT_END ? -1 : -2;
        }
        lua_pushliteral(L, "\n");
        lua_insert(L, -2);
        lua_concat(L, 3);
    }
    lua_remove(L, -2);
    return rc;
}

/* ---- history ---- */

/* Makes the directories of a path, each readable by its owner only. */
static void make_directories(char *path)
{
    for (char *p = strchr(path + 1, '/'); p; p = strchr(p + 1, '/')) {
        *p = 0;
        if (mkdir(path, 0700) && errno != EEXIST) {
            *p = '/';
            return;
        }
        *p = '/';
    }
}

static void open_history(void)
{
    const char *state = getenv("XDG_STATE_HOME"), *home = getenv("HOME");
    char path[1024];
    int n = state && *state == '/' ? snprintf(path, sizeof path, "%s/tide/history", state)
            : home && *home == '/' ? snprintf(path, sizeof path, "%s/.local/state/tide/history", home)
                                   : 0;
    if (n <= 0 || (size_t)n >= sizeof path) return;
    make_directories(path);
    edit_history_open(path);
}

/* ---- the loop ---- */

void tide_repl(lua_State *L)
{
    bool terminal = isatty(STDIN_FILENO) && isatty(STDOUT_FILENO);
    const char *term = getenv("TERM");
    if (term && !strcmp(term, "dumb")) terminal = false;
    if (terminal) {
        printf("Tide %s, %s. Tab completes, help(name) explains, Ctrl-D ends.\n", TD_VERSION, LUA_RELEASE);
        open_history();
    }
    for (;;) {
        lua_settop(L, 0);
        tide_forget_interrupt(L);
        int rc = load_statement(L, terminal);
        if (rc == -1) break;
        if (rc == -2) continue;
        if (rc == LUA_OK) rc = tide_call(L, 0, LUA_MULTRET);
        else tide_report(L);
        if (rc != LUA_OK || !lua_gettop(L)) continue;
        lua_pushcfunction(L, print_results);
        lua_insert(L, 1);
        tide_call(L, lua_gettop(L) - 1, 0);
    }
    lua_settop(L, 0);
    edit_history_close();
}

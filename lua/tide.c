/* tide.c - the interpreter: Lua 5.4 with the module tide.core inside. It exports the Lua API, so that C modules can be loaded,
 * and shares one libtide with them.
 *
 *     tide [options] [script [arguments]]        tide plugins | devices | help NAME | check FILE | …  */
#include "bind.h"
#include "pool.h"
#include "repl.h"
#include <limits.h>
#include <lualib.h>
#include <signal.h>
#include <stdlib.h>
#include <unistd.h>

static const char usage[] =
    "usage: tide [options] [script [arguments]]\n"
    "       tide command [arguments]\n"
    "\n"
    "options:\n"
    "  -e CODE        run CODE\n"
    "  -l NAME        require NAME, as a global of that name\n"
    "  -i             go on interactively after the script\n"
    "  -              read the script from the standard input\n"
    "  --             end of the options\n"
    "  -v, --version  print the version\n"
    "  -h, --help     print this\n"
    "\n"
    "commands:\n"
    "  plugins        the plugins that are found, and what they provide\n"
    "  devices        the devices of this machine\n"
    "  help NAME      what a layer, loss, optimizer, op or function is and takes\n"
    "  check FILE     test the plugin in FILE\n"
    "\n"
    "Without a script it is interactive. In -e CODE and interactively, tide, nn, optim and data are globals.\n";

/* ---- errors ---- */

void tide_report(lua_State *L)
{
    const char *msg = lua_tostring(L, -1);
    fflush(stdout);
    fprintf(stderr, "tide: %s\n", msg ? msg : "(an error without a message)");
    lua_pop(L, 1);
}

/* Message handler: text of the error, then where it came from. */
static int add_traceback(lua_State *L)
{
    const char *msg = lua_tostring(L, 1);
    if (!msg) {
        if (luaL_callmeta(L, 1, "__tostring") && lua_type(L, -1) == LUA_TSTRING) return 1;
        msg = lua_pushfstring(L, "(the error is %s)", tdl_what(L, 1));
    }
    luaL_traceback(L, L, msg, 1);
    return 1;
}

int tide_call(lua_State *L, int n, int results)
{
    int base = lua_gettop(L) - n;
    lua_pushcfunction(L, add_traceback);
    lua_insert(L, base);
    int rc = lua_pcall(L, n, results, base);
    lua_remove(L, base);
    if (rc != LUA_OK) tide_report(L);
    return rc;
}

/* ---- Ctrl-C: the first one is an error at a line of the script, a second one before that ends the process ---- */

static lua_State *main_state;
static volatile sig_atomic_t interrupt_pending;

static void raise_interrupt(lua_State *L, lua_Debug *ar)
{
    (void)ar;
    lua_sethook(L, NULL, 0, 0);
    interrupt_pending = 0;
    if (td_interrupted()) tdl_error(L, "interrupted"); /* else an op has taken it already */
}

static void on_interrupt(int sig)
{
    (void)sig;
    if (interrupt_pending && td_interrupted()) _exit(130); /* else an op has taken the last one, in a coroutine */
    interrupt_pending = 1;
    td_interrupt();
    lua_sethook(main_state, raise_interrupt, LUA_MASKCALL | LUA_MASKRET | LUA_MASKLINE | LUA_MASKCOUNT, 1);
}

void tide_forget_interrupt(lua_State *L)
{
    lua_sethook(L, NULL, 0, 0);
    interrupt_pending = 0;
    td_interrupted();
}

static void watch_interrupts(lua_State *L)
{
    struct sigaction act;
    memset(&act, 0, sizeof act);
    act.sa_handler = on_interrupt; /* no SA_RESTART: a read that waits for input ends, too */
    sigemptyset(&act.sa_mask);
    main_state = L;
    sigaction(SIGINT, &act, NULL);
}

/* ---- where the Lua files are ---- */

static bool has_init(const char *dir)
{
    char path[PATH_MAX];
    int n = snprintf(path, sizeof path, "%s/tide/init.lua", dir);
    return n > 0 && (size_t)n < sizeof path && !access(path, R_OK);
}

/* The directory above tide/init.lua, beside this program: an installed tree and a build tree look alike. */
static bool find_lua_dir(char *dir, size_t room)
{
    char exe[PATH_MAX], path[PATH_MAX];
    ssize_t n = readlink("/proc/self/exe", exe, sizeof exe - 1);
    if (n <= 0) return false;
    exe[n] = 0;
    char *slash = strrchr(exe, '/');
    if (slash) *slash = 0;
    int len = snprintf(path, sizeof path, "%s/../share/lua/5.4", exe);
    if (len < 0 || (size_t)len >= sizeof path || !has_init(path)) return false;
    char *real = realpath(path, NULL);
    bool fits = real && strlen(real) < room;
    if (fits) strcpy(dir, real);
    free(real);
    return fits;
}

/* Ours stand after what LUA_PATH says and before the default directories, where an older Tide may be installed. */
static void set_path(lua_State *L)
{
    char dir[PATH_MAX];
    if (!find_lua_dir(dir, sizeof dir)) return;
    lua_getglobal(L, "package");
    lua_getfield(L, -1, "path");
    const char *path = lua_tostring(L, -1), *dflt = path ? strstr(path, LUA_PATH_DEFAULT) : NULL;
    if (!path) path = "";
    size_t before = dflt ? (size_t)(dflt - path) : strlen(path);
    luaL_Buffer b;
    luaL_buffinit(L, &b);
    luaL_addlstring(&b, path, before);
    if (before && path[before - 1] != ';') luaL_addchar(&b, ';');
    lua_pushfstring(L, "%s/?.lua;%s/?/init.lua", dir, dir);
    luaL_addvalue(&b);
    if (dflt) {
        luaL_addchar(&b, ';');
        luaL_addstring(&b, dflt);
    }
    luaL_pushresult(&b);
    lua_setfield(L, -3, "path");
    lua_pop(L, 2);
}

/* ---- globals of -e and the interactive mode: tide, nn, optim, data, help when they are first named ---- */

static int find_global(lua_State *L)
{
    static const char *const ours[] = {"tide", "nn", "optim", "data", "help"};
    if (lua_type(L, 2) != LUA_TSTRING) return 0;
    const char *name = lua_tostring(L, 2);
    size_t i = 0;
    while (i < sizeof ours / sizeof *ours && strcmp(ours[i], name)) i++;
    if (i == sizeof ours / sizeof *ours) return 0;
    lua_getglobal(L, "require");
    lua_pushliteral(L, "tide");
    lua_call(L, 1, 1);
    if (i > 0) {
        lua_getfield(L, -1, name);
        if (lua_isnil(L, -1)) return 0;
    }
    lua_pushvalue(L, 2);
    lua_pushvalue(L, -2);
    lua_rawset(L, 1);
    return 1;
}

static void offer_globals(lua_State *L)
{
    lua_pushglobaltable(L);
    if (!lua_getmetatable(L, -1)) {
        lua_createtable(L, 0, 1);
        lua_pushcfunction(L, find_global);
        lua_setfield(L, -2, "__index");
        lua_setmetatable(L, -2);
    } else {
        lua_pop(L, 1);
    }
    lua_pop(L, 1);
}

/* ---- the command line ---- */

static bool is_command(const char *word)
{
    static const char *const commands[] = {"plugins", "devices", "help", "check"};
    for (size_t i = 0; i < sizeof commands / sizeof *commands; i++)
        if (!strcmp(commands[i], word)) return true;
    return false;
}

/* tide.cli.run(command, arguments) -> exit status, or nothing for 0 */
static int run_command(lua_State *L, int argc, char **argv)
{
    lua_getglobal(L, "require");
    lua_pushliteral(L, "tide.cli");
    if (tide_call(L, 1, 1) != LUA_OK) return 1;
    if (!lua_istable(L, -1) || lua_getfield(L, -1, "run") != LUA_TFUNCTION) {
        lua_pushliteral(L, "the module tide.cli has no function run");
        tide_report(L);
        return 1;
    }
    lua_pushstring(L, argv[0]);
    lua_createtable(L, argc - 1, 0);
    for (int i = 1; i < argc; i++) {
        lua_pushstring(L, argv[i]);
        lua_rawseti(L, -2, i);
    }
    if (tide_call(L, 2, 1) != LUA_OK) return 1;
    return lua_isinteger(L, -1) ? (int)lua_tointeger(L, -1) : lua_isboolean(L, -1) && !lua_toboolean(L, -1);
}

/* arg: the script at 0, its arguments from 1 on, what came before it below 0 */
static void set_arg(lua_State *L, int argc, char **argv, int script)
{
    lua_createtable(L, argc - script, script + 1);
    for (int i = 0; i < argc; i++) {
        lua_pushstring(L, argv[i]);
        lua_rawseti(L, -2, i - script);
    }
    lua_setglobal(L, "arg");
}

static bool run_code(lua_State *L, const char *code)
{
    if (luaL_loadbuffer(L, code, strlen(code), "=(command line)") != LUA_OK) {
        tide_report(L);
        return false;
    }
    return tide_call(L, 0, 0) == LUA_OK;
}

static bool require_global(lua_State *L, const char *name)
{
    lua_getglobal(L, "require");
    lua_pushstring(L, name);
    if (tide_call(L, 1, 1) != LUA_OK) return false;
    lua_setglobal(L, name);
    return true;
}

static bool run_script(lua_State *L, const char *path, int argc, char **argv, int script)
{
    if (luaL_loadfile(L, strcmp(path, "-") ? path : NULL) != LUA_OK) {
        tide_report(L);
        return false;
    }
    int n = argc - script - 1;
    if (n < 0) n = 0;
    luaL_checkstack(L, n + 4, "too many arguments");
    for (int i = 0; i < n; i++) lua_pushstring(L, argv[script + 1 + i]);
    return tide_call(L, n, 0) == LUA_OK;
}

typedef struct {
    int script; /* place of the script's name in argv, argc if there is none */
    bool code, interactive, version, help;
    const char *wrong;
} options;

static options read_options(int argc, char **argv)
{
    options o = {.script = argc};
    for (int i = 1; i < argc; i++) {
        const char *a = argv[i];
        if (*a != '-' || !strcmp(a, "-")) {
            o.script = i;
            break;
        }
        if (!strcmp(a, "--")) {
            o.script = i + 1;
            break;
        }
        if (!strcmp(a, "-e") || !strcmp(a, "-l")) {
            o.code |= a[1] == 'e';
            if (++i == argc) o.wrong = a;
        } else if (!strcmp(a, "-i")) {
            o.interactive = true;
        } else if (!strcmp(a, "-v") || !strcmp(a, "--version")) {
            o.version = true;
        } else if (!strcmp(a, "-h") || !strcmp(a, "--help")) {
            o.help = true;
        } else if (!o.wrong) {
            o.wrong = a;
        }
    }
    return o;
}

/* Each -e and -l in order. */
static bool run_options(lua_State *L, int argc, char **argv)
{
    for (int i = 1; i < argc && *argv[i] == '-' && argv[i][1] && strcmp(argv[i], "--"); i++) {
        if (!strcmp(argv[i], "-e") && !run_code(L, argv[++i])) return false;
        else if (!strcmp(argv[i], "-l") && !require_global(L, argv[++i])) return false;
    }
    return true;
}

static int run(lua_State *L, int argc, char **argv)
{
    options o = read_options(argc, argv);
    bool script = o.script < argc;
    if (o.wrong) {
        fprintf(stderr,
                strcmp(o.wrong, "-e") && strcmp(o.wrong, "-l") ? "tide: unknown option '%s'\n"
                                                               : "tide: '%s' needs an argument\n",
                o.wrong);
        fputs(usage, stderr);
        return 2;
    }
    if (o.help || o.version) {
        if (o.help) fputs(usage, stdout);
        else printf("Tide %s (%s)\n", TD_VERSION, LUA_RELEASE);
        return 0;
    }
    if (script && strcmp(argv[o.script - 1], "--") && is_command(argv[o.script])) {
        set_arg(L, argc, argv, o.script);
        return run_command(L, argc - o.script, argv + o.script);
    }
    bool no_script = !script && !o.code, terminal = isatty(STDIN_FILENO);
    if (o.code || o.interactive || no_script) offer_globals(L);
    set_arg(L, argc, argv, script ? o.script : 0);
    if (!run_options(L, script ? o.script : argc, argv)) return 1;
    bool ok = true;
    if (script) ok = run_script(L, argv[o.script], argc, argv, o.script);
    else if (no_script && !o.interactive && !terminal) ok = run_script(L, "-", 0, argv, 0);
    if (o.interactive || (no_script && terminal)) tide_repl(L);
    return ok || o.interactive ? 0 : 1;
}

typedef struct {
    int argc, status;
    char **argv;
} command_line;

static int protected_main(lua_State *L)
{
    command_line *c = (command_line *)lua_touserdata(L, 1);
    luaL_openlibs(L);
    luaL_getsubtable(L, LUA_REGISTRYINDEX, LUA_PRELOAD_TABLE);
    lua_pushcfunction(L, luaopen_tide_core);
    lua_setfield(L, -2, "tide.core");
    lua_settop(L, 0);
    set_path(L);
    watch_interrupts(L);
    c->status = run(L, c->argc, c->argv);
    return 0;
}

int main(int argc, char **argv)
{
    lua_State *L = tide_newstate();
    command_line c = {argc, 1, argv};
    if (!L) {
        fputs("tide: out of memory\n", stderr);
        return 1;
    }
    lua_pushcfunction(L, protected_main);
    lua_pushlightuserdata(L, &c);
    if (lua_pcall(L, 1, 0, 0) != LUA_OK) {
        tide_report(L);
        c.status = 1;
    }
    signal(SIGINT, SIG_DFL);
    tide_forget_interrupt(L);
    lua_close(L);
    return c.status;
}

/* test_plugins.c - plugins from files: what is refused, in which sentence, and that nothing of it stays. The hostile plugins lie in
 * plugins/ beside this program; unreadable files are made here. test_registry.c has tables of the program's own. */
#include "check.h"
#include "module.h"
#include "registered.h"
#include "toy_backend.h"
#include <limits.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

static char here[PATH_MAX], made[] = "/tmp/tide-test-plugins-XXXXXX";

static bool load(const char *name)
{
    char path[PATH_MAX + 64];
    snprintf(path, sizeof path, "%s/plugins/%s.so", here, name);
    return td_plugin_load(path);
}

/* Loading fails, twice alike, and the sentence names the plugin and holds the text. */
static void load_refused(const char *name, const char *text)
{
    char first[1024];
    CHECK(!load(name));
    snprintf(first, sizeof first, "%s", taken());
    if (!CHECK(strstr(first, text) != NULL) || !CHECK(strstr(first, name) != NULL))
        printf("        %s: %s\n", name, first);
    CHECK(!load(name));
    CHECK_STR(first, taken());
}

/* ---- plugins that are refused ---- */

static void hostile_plugins(void)
{
    load_refused("wrong_magic", "descriptor begins with 0xdeadbeef; expected 0x45444954");
    load_refused("wrong_major", "is built for plugin ABI 2.0; this Tide has 1.0");
    CHECK(getenv("TIDE_TEST_OPENED") == NULL); /* not even opened */
    load_refused("wrong_minor", "is built for plugin ABI 1.99; this Tide has 1.0");
    load_refused("lying_abi", "its descriptor says plugin ABI 7.0; this Tide has 1.0");
    load_refused("wrong_desc_size", "its descriptor has 112 bytes; this Tide knows 48");
    load_refused("wrong_opt_size", "its td_opt has 56 bytes, this Tide's 48");
    load_refused("no_desc", "no symbol td_plugin_desc");
    load_refused("no_reg", "its descriptor lacks host or reg");
    load_refused("unresolved", "hostile_symbol_of_nobody");
    load_refused("half_way", "the licence server does not answer");
    CHECK(td_layer_find("HalfWay") == NULL);
    CHECK(strstr(taken(), "the licence server does not answer") !=
          NULL); /* the name is announced, so the reason is told */
    CHECK(td_op_find("half.way", NULL) == NULL);
    taken();
    load_refused("half_silent", "its reg() failed without saying why");
    load_refused("reg_pending", "layer \"RegPendingToo\": forward1 and forward: exactly one of them must be set");
    load_refused("duplicate", "op \"relu\": there is one already, from libtide");
    load_refused("unannounced",
                 "it registers layer:Unannounced, which its metadata does not announce (provides=layer:Announced)");
    load_refused("unregistered", "it announces layer:Unregistered, but does not register it");
    load_refused("larger_table", "the plugin was built with newer headers");
    load_refused(
        "bad_schema",
        "layer \"BadSchema\": option kernel: size: its type needs a field of 8 bytes, the struct has one of 4");
    static const char *const gone[] = {"WrongMagic", "LyingAbi",    "HalfSilent", "RegPending",  "Duplicate",
                                       "Announced",  "Unannounced", "Registered", "LargerTable", "BadSchema"};
    for (size_t i = 0; i < sizeof gone / sizeof *gone; i++) {
        CHECK(td_layer_find(gone[i]) == NULL);
        taken();
    }
    uint32_t id;
    CHECK(td_op_find("relu", &id) != NULL);
    CHECK(!strcmp(td_op_get(id)->doc, "not relu") == 0);
}

static void old_and_same(void)
{
    char other[PATH_MAX + 64];
    CHECK(load("shorter_table"));
    CHECK(load("shorter_table"));
    const td_layer *t = td_layer_find("ShorterTable");
    CHECK(t && !t->sample && !t->drop);
    CHECK_INT(sizeof *t, t ? t->size : 0);
    snprintf(other, sizeof other, "%s/../plugins/./shorter_table.so", here);
    CHECK(td_layer_find("ShorterTable") == t);
    char link_path[PATH_MAX + 64], target[PATH_MAX + 64];
    snprintf(link_path, sizeof link_path, "%s/link.so", made);
    snprintf(target, sizeof target, "%s/plugins/shorter_table.so", here);
    CHECK(symlink(target, link_path) == 0);
    CHECK(td_plugin_load(link_path)); /* the same file by another name */
    CHECK(unlink(link_path) == 0);
}

static void no_files(void)
{
    CHECK(!td_plugin_load("/nowhere/at/all.so"));
    CHECK_STR("plugin /nowhere/at/all.so: No such file or directory", taken());
    CHECK(!td_plugin_load(""));
    CHECK_STR("plugin: expected the path of a file", taken());
    CHECK(!td_plugin_load(made));
    CHECK(strstr(taken(), "is no regular file") != NULL);
}

/* ---- files on the path, made in main ---- */

static void write_file(const char *name, const void *bytes, size_t n)
{
    char path[PATH_MAX];
    snprintf(path, sizeof path, "%s/%s", made, name);
    FILE *f = fopen(path, "wb");
    if (f) {
        fwrite(bytes, 1, n, f);
        fclose(f);
    }
}

static void make_files(void)
{
    char path[PATH_MAX + 64];
    static char bytes[1 << 20];
    snprintf(path, sizeof path, "%s/plugins/shorter_table.so", here);
    FILE *f = fopen(path, "rb");
    size_t n = f ? fread(bytes, 1, sizeof bytes, f) : 0;
    if (f) fclose(f);
    write_file("text.so", "hello, world\n", 13);
    write_file("empty.so", "", 0);
    write_file("cut.so", bytes, n / 2);
    write_file("head.so", bytes, 64);
    write_file("notes.txt", bytes, n);
    bytes[4] = 1; /* ELFCLASS32 */
    write_file("bits32.so", bytes, n);
    bytes[4] = 2;
    bytes[18] = 0x28; /* EM_ARM */
    bytes[19] = 0;
    write_file("arm.so", bytes, n);
    snprintf(path, sizeof path, "%s/open", made);
    mkdir(path, 0777);
    chmod(path, 0777);
}

typedef struct {
    unsigned seen, loaded, refused;
    char why[8][400];
} census;

static void count_plugin(void *arg, const td_plugin_info *i)
{
    static const char *const name[] = {"text.so",   "empty.so", "cut.so", "head.so",
                                       "bits32.so", "arm.so",   "/open",  "notes.txt"};
    census *c = arg;
    c->seen++;
    c->loaded += !strcmp(i->state, "loaded");
    c->refused += !strcmp(i->state, "refused");
    if ((i->why != NULL) != !strcmp(i->state, "refused") || !i->name || !i->version || !i->licence || !i->provides)
        c->seen += 1000;
    for (int k = 0; k < 8; k++) {
        size_t a = strlen(i->path), b = strlen(name[k]);
        if (a >= b && !strcmp(i->path + a - b, name[k]))
            snprintf(c->why[k], sizeof c->why[k], "%s", i->why ? i->why : i->state);
    }
}

static void count_dir(void *arg, const char *dir)
{
    (void)dir;
    ++*(unsigned *)arg;
}

static void path_is_searched(void)
{
    census c = {0, 0, 0, {""}};
    unsigned dirs = 0;
    td_each_plugin(count_plugin, &c);
    CHECK(c.seen > 20 && c.seen < 1000);
    CHECK(c.loaded >= 1); /* shorter_table */
    CHECK(strstr(c.why[0], "is no ELF file; a plugin is a shared object for ") != NULL);
    CHECK(strstr(c.why[1], "is no ELF file") != NULL);
    CHECK(strstr(c.why[2], "the file is cut short or damaged") != NULL);
    CHECK(strstr(c.why[3], "the file is cut short or damaged") != NULL);
    CHECK(strstr(c.why[4], "is a 32-bit ELF file") != NULL);
    CHECK(strstr(c.why[5], "is built for 32-bit ARM") != NULL);
    CHECK(strstr(c.why[6], "anybody may write in this directory") != NULL);
    CHECK_STR("", c.why[7]); /* no .so: not looked at */
    td_each_plugin_dir(count_dir, &dirs);
    CHECK(dirs >= 3);
}

typedef struct {
    const char *name;
    unsigned times, all;
} search;

static void look(void *arg, const char *name, const char *plugin)
{
    search *s = arg;
    s->all++;
    s->times += !strcmp(name, s->name) && *plugin;
}

static unsigned times_provided(const char *kind, const char *name)
{
    search s = {name, 0, 0};
    td_each_provided(kind, look, &s);
    return s.times;
}

static void provided(void)
{
    CHECK_INT(1, times_provided("op", "matmul"));
    CHECK_INT(1, times_provided("op", "nan.maker")); /* only announced */
    CHECK_INT(1, times_provided("layer", "ShorterTable"));
    CHECK_INT(1, times_provided("layer", "BadNull"));
    CHECK_INT(0, times_provided("layer", "HalfWay")); /* refused */
    CHECK_INT(1, times_provided("backend", "cpu"));
    CHECK_INT(0, times_provided("loss", "ShorterTable"));
    CHECK(times_provided("kernel", "full@cpu") == 1);
    CHECK_INT(0, times_provided("nonsense", "matmul"));
}

/* ---- ops and layers that misbehave when they run ---- */

static void call_refused(const char *op, td_tensor *x, const char *text)
{
    CHECK(call1(op, x) == NULL);
    const char *msg = taken();
    if (!CHECK(strstr(msg, text) != NULL)) printf("        %s: %s\n", op, msg);
}

static void bad_shape_rules(void)
{
    tdi_scope_push();
    td_tensor *x = td_full(td_dims(2, 3), 1, TD_F32);
    CHECK(x != NULL);
    call_refused("bad.axes", x, "bad.axes: its shape rule gives output 1 99 axes");
    call_refused("bad.negative", x, "bad.negative: ");
    call_refused("bad.huge", x, "bad.huge: ");
    call_refused("bad.dtype", x, "bad.dtype: ");
    call_refused("bad.silent", x, "bad.silent: its shape rule failed without saying why");
    call_refused("bad.outputs", x, "bad.outputs: its shape rule asks for 1000 outputs");
    call_refused("nan.silent", x, "nan.silent: its kernel on cpu failed without saying why");
    float y[6] = {0};
    td_tensor *t = call1("nan.maker", x);
    CHECK(t && td_tensor_read(t, y));
    CHECK(isnan(y[0]) && isnan(y[5]));
    call_refused("no.such.op", x, "no op is named no.such.op");
    tdi_scope_pop(NULL);
}

static void layer_refused(const char *name, const char *text)
{
    td_module *m = td_module_new(td_layer_find(name), NULL);
    if (m) {
        td_tensor *x = td_full(td_dims(2), 1, TD_F32), *y = NULL;
        uint32_t n = 1;
        CHECK(!td_module_forward(m, &x, 1, &y, &n));
    }
    td_module_release(m);
    const char *msg = taken();
    if (!CHECK(strstr(msg, text) != NULL)) printf("        %s: %s\n", name, msg);
}

static void bad_layers(void)
{
    tdi_scope_push();
    layer_refused("BadNull", "BadNull: its forward1 returned NULL without saying why (plugin bad_layer)");
    layer_refused("BadSilent", "BadSilent: its forward failed without saying why (plugin bad_layer)");
    layer_refused("BadPending", "BadPending: the coffee is cold");
    layer_refused("BadNoOutput", "BadNoOutput: its forward gave no output y (plugin bad_layer)");
    layer_refused("BadInit", "BadInit: its init failed without saying why (plugin bad_layer)");
    layer_refused("BadSelf", "modules are nested 64 deep: does one hold itself?");
    layer_refused("BadTwice", "BadTwice: new_param: there is a \"w\" already");
    layer_refused("BadShape", "BadShape: w: extent 2 is negative: -3");
    layer_refused("BadHuge", "BadHuge: ");
    layer_refused("BadKind", "BadKind: init: expected uniform, normal, fan_in or constant, got \"magic\"");
    layer_refused("BadChild", "BadChild: child inner: BadNull: there is no option \"oops\"; it has none");
    layer_refused("BadLate", "BadLate: new_param: is for init()");
    layer_refused("BadLost", "BadLost: there is no parameter or buffer \"nowhere\"");
    layer_refused("BadLive", "BadLive: live options are those of an optimizer");
    tdi_scope_pop(NULL);
    CHECK(td_module_new(NULL, NULL) == NULL);
    CHECK_STR("layer \"\": is not the table that td_layer_find gives", taken());
}

static void remove_files(void)
{
    static const char *const names[] = {"text.so", "empty.so", "cut.so", "head.so", "notes.txt", "bits32.so", "arm.so"};
    char path[PATH_MAX];
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        snprintf(path, sizeof path, "%s/%s", made, names[i]);
        unlink(path);
    }
    snprintf(path, sizeof path, "%s/open", made);
    rmdir(path);
    rmdir(made);
}

int main(void)
{
    char path[2 * PATH_MAX];
    ssize_t n = readlink("/proc/self/exe", here, sizeof here - 1);
    if (n <= 0 || !mkdtemp(made)) return 2;
    here[n] = 0;
    *strrchr(here, '/') = 0;
    make_files();
    snprintf(path, sizeof path, "%s:/nowhere:%s/open", made, made);
    setenv("TIDE_PLUGIN_PATH", path, 1);
    CHECK(toy_register());
    RUN(hostile_plugins);
    RUN(old_and_same);
    RUN(no_files);
    RUN(path_is_searched);
    RUN(provided);
    RUN(bad_shape_rules);
    RUN(bad_layers);
    remove_files();
    return check_done();
}

/* gen_ops.c - build-time tool: from ops.def makes the public tide/ops.h, the private ops_rows.h and ops_schema.c.
 * usage: gen_ops ops.def ops.h ops_rows.h ops_schema.c */
#include <ctype.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_PLACES = 12, MAX_ATTRS = 12, MAX_LINE = 1024 };

typedef struct {
    char name[32];
    bool optional, list, aux;
} place;

typedef struct {
    char name[32], type[16], dflt[64], allowed[128], doc[256];
    bool maybe;
} attr;

typedef struct {
    char name[48], in[160], out[160], doc[1024];
    place ins[MAX_PLACES], outs[MAX_PLACES];
    attr attrs[MAX_ATTRS];
    int n_in, n_out, n_attr;
} op;

static const struct {
    const char *type, *field, *arg;
} types[] = {
    {"INT", "int64_t", "int64_t"},           {"NUM", "double", "double"},     {"BOOL", "bool", "bool"},
    {"STR", "const char *", "const char *"}, {"ENUM", "int32_t", "int32_t"},  {"DTYPE", "td_dtype", "td_dtype"},
    {"AXIS", "int64_t", "int64_t"},          {"INDEX", "int64_t", "int64_t"}, {"INTS", "td_ints", "td_ints"},
    {"NUMS", "td_nums", "td_nums"},          {"AXES", "td_ints", "td_ints"}};

static int line_no;
static const char *def_path;

static void die(const char *fmt, ...) __attribute__((format(printf, 1, 2), noreturn));
static void die(const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    fprintf(stderr, "%s:%d: ", def_path, line_no);
    vfprintf(stderr, fmt, ap);
    fputc('\n', stderr);
    va_end(ap);
    exit(1);
}

static char *trim(char *s)
{
    while (isspace((unsigned char)*s)) s++;
    char *e = s + strlen(s);
    while (e > s && isspace((unsigned char)e[-1])) *--e = 0;
    return s;
}

static void put(char *to, size_t room, const char *from)
{
    if (strlen(from) >= room) die("too long: %s", from);
    memcpy(to, from, strlen(from) + 1);
}

static const char *c_type(const char *type, bool field)
{
    for (size_t i = 0; i < sizeof types / sizeof *types; i++)
        if (!strcmp(types[i].type, type)) return field ? types[i].field : types[i].arg;
    die("unknown option type %s", type);
}

static int parse_places(const char *sig, place *p)
{
    char buf[160];
    int n = 0;
    put(buf, sizeof buf, sig);
    for (char *w = strtok(buf, " "); w; w = strtok(NULL, " ")) {
        if (n == MAX_PLACES) die("too many places in %s", sig);
        size_t len = strcspn(w, "?#!&*.~");
        const char *marks = w + len;
        p[n] = (place){.optional = strchr(marks, '?'), .list = strchr(marks, '*'), .aux = strchr(marks, '!')};
        memcpy(p[n++].name, w, len);
    }
    return n;
}

/* op NAME  INPUTS -> OUTPUTS */
static void parse_head(char *s, op *o)
{
    char *arrow = strstr(s, "->");
    if (!arrow) die("expected 'op NAME INPUTS -> OUTPUTS'");
    *arrow = 0;
    put(o->out, sizeof o->out, trim(arrow + 2));
    s = trim(s);
    size_t len = strcspn(s, " \t");
    snprintf(o->name, sizeof o->name, "%.*s", (int)len, s);
    put(o->in, sizeof o->in, trim(s + len));
    o->n_in = parse_places(o->in, o->ins);
    o->n_out = parse_places(o->out, o->outs);
}

/* - NAME TYPE[?] = DEFAULT [| ALLOWED] : DOC */
static void parse_attr(char *s, op *o)
{
    if (o->n_attr == MAX_ATTRS) die("too many options");
    attr *a = &o->attrs[o->n_attr++];
    char *eq = strstr(s, " = "), *colon = strstr(s, " : ");
    if (!eq || !colon || colon < eq) die("expected '- NAME TYPE = DEFAULT | ALLOWED : DOC'");
    *eq = *colon = 0;
    if (sscanf(s, "%31s %15s", a->name, a->type) != 2) die("expected 'NAME TYPE' in: %s", s);
    size_t len = strlen(a->type);
    if (a->type[len - 1] == '?') {
        a->type[len - 1] = 0;
        a->maybe = true;
    }
    char *bar = strstr(eq + 3, " | ");
    if (bar) {
        *bar = 0;
        put(a->allowed, sizeof a->allowed, trim(bar + 3));
    }
    put(a->dflt, sizeof a->dflt, trim(eq + 3));
    put(a->doc, sizeof a->doc, trim(colon + 3));
    c_type(a->type, true);
}

static op *parse(FILE *f, int *n)
{
    op *ops = NULL;
    char line[MAX_LINE];
    *n = 0;
    while (fgets(line, sizeof line, f)) {
        line_no++;
        char *s = trim(line);
        if (!*s || *s == '#') continue;
        if (!strncmp(s, "op ", 3)) {
            ops = realloc(ops, (size_t)(*n + 1) * sizeof *ops);
            if (!ops) die("out of memory");
            memset(&ops[*n], 0, sizeof *ops);
            parse_head(s + 3, &ops[(*n)++]);
        } else if (*n && *s == ':') {
            op *o = &ops[*n - 1];
            size_t at = strlen(o->doc);
            snprintf(o->doc + at, sizeof o->doc - at, "%s%s", at ? " " : "", trim(s + 1));
        } else if (*n && *s == '-') {
            parse_attr(s + 1, &ops[*n - 1]);
        } else {
            die("unexpected: %s", s);
        }
    }
    return ops;
}

/* ---- output ---- */

static void upper(FILE *f, const char *s)
{
    for (; *s; s++) fputc(toupper((unsigned char)*s), f);
}

static void c_string(FILE *f, const char *s)
{
    fputc('"', f);
    for (; *s; s++) {
        if (*s == '"' || *s == '\\') fputc('\\', f);
        fputc(*s, f);
    }
    fputc('"', f);
}

/* td_view is a type, so the op "view" is td_view_as in C. */
static const char *c_name(const op *o) { return strcmp(o->name, "view") ? o->name : "view_as"; }

static void emit_struct(FILE *f, const op *o)
{
    if (!o->n_attr) return;
    for (int i = 0; i < o->n_attr; i++) {
        if (strcmp(o->attrs[i].type, "ENUM")) continue;
        char words[128];
        put(words, sizeof words, o->attrs[i].allowed);
        fprintf(f, "enum {");
        for (char *w = strtok(words, "|"); w; w = strtok(NULL, "|")) {
            fprintf(f, " TD_");
            upper(f, o->name);
            fputc('_', f);
            upper(f, w);
            fputc(',', f);
        }
        fprintf(f, " };\n");
    }
    fprintf(f, "typedef struct td_%s_attr {\n", o->name);
    for (int i = 0; i < o->n_attr; i++) {
        const attr *a = &o->attrs[i];
        const char *type = c_type(a->type, true);
        fprintf(f, "    %s%s%s; /* %s */\n", type, type[strlen(type) - 1] == '*' ? "" : " ", a->name, a->doc);
        if (a->maybe) fprintf(f, "    bool has_%s;\n", a->name);
    }
    fprintf(f, "} td_%s_attr;\n", o->name);
}

static void sep(FILE *f, bool *first)
{
    if (!*first) fprintf(f, ", ");
    *first = false;
}

/* Parameters for inputs and options, and room for the length of lists. */
static void emit_params(FILE *f, const op *o, bool *first)
{
    bool lists = false;
    for (int i = 0; i < o->n_in; i++) {
        sep(f, first);
        fprintf(f, o->ins[i].list ? "td_tensor *const *%s" : "td_tensor *%s", o->ins[i].name);
        bool last_list = o->ins[i].list && (i + 1 == o->n_in || !o->ins[i + 1].list);
        if (last_list && !lists) {
            fprintf(f, ", uint32_t n_list");
            lists = true;
        }
    }
    for (int i = 0; i < o->n_attr; i++) {
        sep(f, first);
        const char *type = c_type(o->attrs[i].type, false);
        fprintf(f, "%s%s%s", type, type[strlen(type) - 1] == '*' ? "" : " ", o->attrs[i].name);
    }
}

/* Locals of a call: attr_, in_, n_in_. */
static void emit_setup(FILE *f, const op *o)
{
    bool lists = false;
    int single = 0;
    fprintf(f, "    static uint32_t id_;\n");
    if (o->n_attr) {
        fprintf(f, "    td_%s_attr attr_;\n    __builtin_memset(&attr_, 0, sizeof attr_);\n", o->name);
        for (int i = 0; i < o->n_attr; i++) {
            const attr *a = &o->attrs[i];
            fprintf(f, "    attr_.%s = %s;\n", a->name, a->name);
            if (!a->maybe) continue;
            if (!strcmp(a->type, "NUM")) fprintf(f, "    attr_.has_%s = !isnan(%s);\n", a->name, a->name);
            else fprintf(f, "    attr_.has_%s = %s != TD_NONE;\n", a->name, a->name);
        }
    }
    for (int i = 0; i < o->n_in; i++) {
        if (o->ins[i].list) lists = true;
        else single++;
    }
    if (!lists) {
        fprintf(f, "    td_tensor *in_[] = {");
        for (int i = 0; i < o->n_in; i++) fprintf(f, "%s%s", i ? ", " : "", o->ins[i].name);
        fprintf(f, "%s};\n    uint32_t n_in_ = %d;\n", o->n_in ? "" : "NULL", o->n_in);
        return;
    }
    int n_lists = o->n_in - single;
    fprintf(f,
            "    uint32_t n_in_ = 0;\n    td_tensor **in_ = (td_tensor **)__builtin_alloca((%d + %d * (size_t)n_list) "
            "* sizeof *in_);\n",
            single + 1, n_lists);
    for (int i = 0; i < o->n_in; i++) {
        const char *name = o->ins[i].name;
        if (!o->ins[i].list) fprintf(f, "    in_[n_in_++] = %s;\n", name);
        else
            fprintf(f, "    for (uint32_t i_ = 0; i_ < n_list; i_++) in_[n_in_++] = %s ? %s[i_] : NULL;\n", name, name);
    }
}

static const char *attr_ptr(const op *o) { return o->n_attr ? "&attr_" : "NULL"; }

static void emit_doc(FILE *f, const op *o)
{
    fprintf(f, "/**\n * %s\n *\n", o->doc);
    fprintf(f, " * %s -> %s\n", *o->in ? o->in : "(no inputs)", *o->out ? o->out : "(in place)");
    for (int i = 0; i < o->n_attr; i++) {
        const attr *a = &o->attrs[i];
        bool axis = !strcmp(a->type, "AXIS") || !strcmp(a->type, "AXES") || !strcmp(a->type, "INDEX");
        fprintf(f, " * %s  %s%s%s%s%s\n", a->name, a->doc, axis ? "; 0-based here" : "", *a->allowed ? "; " : "",
                a->allowed, a->maybe ? "; TD_NONE for none" : "");
    }
    fprintf(f, " */\n");
}

/* One visible output, or all outputs where all is set: the function returns it, or fills pointers. */
static void emit_call(FILE *f, const op *o, bool all)
{
    int shown[MAX_PLACES], n = 0;
    for (int i = 0; i < o->n_out; i++)
        if (all || !o->outs[i].aux) shown[n++] = i;
    bool list_out = n == 1 && o->outs[0].list, one = n == 1 && !list_out && !all, first = true;
    fprintf(f, "static inline %std_%s%s(", one ? "td_tensor *" : "bool ", c_name(o), all ? "_full" : "");
    emit_params(f, o, &first);
    if (list_out) {
        sep(f, &first);
        fprintf(f, "td_tensor **%s, uint32_t *n_out", o->outs[0].name);
    } else if (!one) {
        for (int i = 0; i < n; i++) {
            sep(f, &first);
            fprintf(f, "td_tensor **out_%s", o->outs[shown[i]].name);
        }
    }
    fprintf(f, "%s)\n{\n", first ? "void" : "");
    emit_setup(f, o);
    if (list_out) {
        fprintf(f, "    return td_call_named(&id_, \"%s\", in_, n_in_, %s, %s, n_out);\n}\n", o->name, attr_ptr(o),
                o->outs[0].name);
        return;
    }
    fprintf(f, "    td_tensor *out_[%d] = {NULL};\n    uint32_t n_out_ = %d;\n", n ? n : 1, n);
    fprintf(f, "    bool ok_ = td_call_named(&id_, \"%s\", in_, n_in_, %s, out_, &n_out_);\n", o->name, attr_ptr(o));
    if (one) {
        fprintf(f, "    return ok_ ? out_[0] : NULL;\n}\n");
        return;
    }
    for (int i = 0; i < n; i++) fprintf(f, "    *out_%s = ok_ ? out_[%d] : NULL;\n", o->outs[shown[i]].name, i);
    fprintf(f, "    return ok_;\n}\n");
}

static void emit_into(FILE *f, const op *o)
{
    bool first = false;
    fprintf(f, "/** td_%s with a given output, which is returned. */\n", c_name(o));
    fprintf(f, "static inline td_tensor *td_%s_into(td_tensor *out_", c_name(o));
    emit_params(f, o, &first);
    fprintf(f, ")\n{\n");
    emit_setup(f, o);
    fprintf(f, "    return td_call_into_named(&id_, \"%s\", in_, n_in_, %s, &out_, 1) ? out_ : NULL;\n}\n", o->name,
            attr_ptr(o));
}

static void emit_public(FILE *f, const op *ops, int n)
{
    fprintf(
        f,
        "/* tide/ops.h - generated from core/ops/ops.def: a function and an attribute struct for every built-in op. "
        "*/\n"
        "#ifndef TIDE_OPS_H\n#define TIDE_OPS_H\n#ifndef TIDE_PLUGIN_H\n#error \"include <tide/plugin.h>\"\n#endif\n"
        "#ifdef __cplusplus\nextern \"C\" {\n#endif\n\n"
        "static inline bool td_call_named(uint32_t *id, const char *name, td_tensor *const *in, uint32_t n_in,\n"
        "                                 const void *attr, td_tensor **out, uint32_t *n_out)\n{\n"
        "    uint32_t known = __atomic_load_n(id, __ATOMIC_RELAXED); /* 1 + id: 0 is not looked up yet */\n"
        "    if (!known) {\n        known = TD->op_id(name) + 1;\n        if (!known) return false;\n"
        "        __atomic_store_n(id, known, __ATOMIC_RELAXED);\n    }\n"
        "    return TD->call(known - 1, in, n_in, attr, out, n_out);\n}\n"
        "static inline bool td_call_into_named(uint32_t *id, const char *name, td_tensor *const *in, uint32_t n_in,\n"
        "                                      const void *attr, td_tensor *const *out, uint32_t n_out)\n{\n"
        "    uint32_t known = __atomic_load_n(id, __ATOMIC_RELAXED);\n"
        "    if (!known) {\n        known = TD->op_id(name) + 1;\n        if (!known) return false;\n"
        "        __atomic_store_n(id, known, __ATOMIC_RELAXED);\n    }\n"
        "    return TD->call_into(known - 1, in, n_in, attr, out, n_out);\n}\n\n");
    for (int i = 0; i < n; i++) {
        const op *o = &ops[i];
        bool aux = false;
        for (int k = 0; k < o->n_out; k++) aux |= o->outs[k].aux;
        emit_struct(f, o);
        emit_doc(f, o);
        emit_call(f, o, false);
        if (aux) {
            fprintf(f, "/** td_%s with its auxiliary outputs. */\n", c_name(o));
            emit_call(f, o, true);
        }
        if (o->n_out == 1 && !o->outs[0].list) emit_into(f, o);
        fputc('\n', f);
    }
    fprintf(f, "#ifdef __cplusplus\n}\n#endif\n#endif\n");
}

static void emit_rows(FILE *f, const op *ops, int n)
{
    fprintf(f, "/* ops_rows.h - generated from ops.def: TD_ROW_<op> begins the row of an op in core/ops, TDI_OPS lists "
               "all rows. */\n"
               "#ifndef TIDE_OPS_ROWS_H\n#define TIDE_OPS_ROWS_H\n#include <tide/plugin.h>\n\n");
    for (int i = 0; i < n; i++) {
        const op *o = &ops[i];
        fprintf(f, "extern const td_op tdi_op_%s;\n", o->name);
        if (o->n_attr) fprintf(f, "extern const td_opt tdi_opts_%s[%d];\n", o->name, o->n_attr);
        fprintf(f, "#define TD_ROW_%s .size = sizeof(td_op), .name = \"%s\", .doc = ", o->name, o->name);
        c_string(f, o->doc);
        fprintf(f, ", .in = \"%s\", .out = \"%s\"", o->in, o->out);
        if (o->n_attr) fprintf(f, ", .attr = TD_OPTS(td_%s_attr, tdi_opts_%s)", o->name, o->name);
        fprintf(f, "\n");
    }
    fprintf(f, "\n#define TDI_OPS(X)");
    for (int i = 0; i < n; i++) fprintf(f, " \\\n    X(%s)", ops[i].name);
    fprintf(f, "\n#endif\n");
}

static void emit_schema(FILE *f, const op *ops, int n)
{
    fprintf(f, "/* ops_schema.c - generated from ops.def: the option schemas of the built-in ops. */\n#include "
               "\"ops_rows.h\"\n");
    for (int i = 0; i < n; i++) {
        const op *o = &ops[i];
        if (!o->n_attr) continue;
        fprintf(f, "const td_opt tdi_opts_%s[%d] = {\n", o->name, o->n_attr);
        for (int k = 0; k < o->n_attr; k++) {
            const attr *a = &o->attrs[k];
            fprintf(f, "    %s(td_%s_attr, %s, TD_O_%s, ", a->maybe ? "TD_OPT_MAYBE" : "TD_OPT", o->name, a->name,
                    a->type);
            if (strcmp(a->dflt, "-")) c_string(f, a->dflt);
            else fprintf(f, "NULL");
            fprintf(f, ", ");
            if (*a->allowed) c_string(f, a->allowed);
            else fprintf(f, "NULL");
            fprintf(f, ", ");
            c_string(f, a->doc);
            fprintf(f, "),\n");
        }
        fprintf(f, "};\n");
    }
}

int main(int argc, char **argv)
{
    static void (*const emit[])(FILE *, const op *, int) = {emit_public, emit_rows, emit_schema};
    int n;
    if (argc != 5) {
        fprintf(stderr, "usage: gen_ops ops.def ops.h ops_rows.h ops_schema.c\n");
        return 2;
    }
    def_path = argv[1];
    FILE *f = fopen(argv[1], "r");
    if (!f) die("cannot read");
    op *ops = parse(f, &n);
    fclose(f);
    for (int i = 0; i < 3; i++) {
        f = fopen(argv[2 + i], "w");
        if (!f) die("cannot write %s", argv[2 + i]);
        emit[i](f, ops, n);
        if (fclose(f)) die("cannot write %s", argv[2 + i]);
    }
    free(ops);
    return 0;
}

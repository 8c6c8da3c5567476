/* test_options.c - schemas and literals: what is filled, shifted, gathered and refused, and with which sentence. */
#include "check.h"
#include "context.h"
#include "literal.h"
#include "schema.h"
#include <stdlib.h>
#include <time.h>

typedef struct {
    int64_t channels;
    td_ints kernel, stride;
    double momentum;
    bool has_momentum;
    bool bias;
    int32_t mode;
    td_dtype dtype;
    const char *name;
    int64_t axis, index;
    bool has_index;
    td_ints axes;
    td_nums betas;
} options;
static const td_opt rows[] = {
    TD_OPT(options, channels, TD_O_INT, NULL, ">= 1", "how many channels"),
    TD_OPT(options, kernel, TD_O_INTS, "3", ">= 1", "extents"),
    TD_OPT(options, stride, TD_O_INTS, "{1, 1}", ">= 1", "steps"),
    TD_OPT_MAYBE(options, momentum, TD_O_NUM, "none", ">= 0, < 1", "momentum"),
    TD_OPT(options, bias, TD_O_BOOL, "true", NULL, "bias"),
    TD_OPT(options, mode, TD_O_ENUM, "zeros", "zeros|reflect|none", "mode"),
    TD_OPT(options, dtype, TD_O_DTYPE, "f32", NULL, "dtype"),
    TD_OPT(options, name, TD_O_STR, "a layer", NULL, "name"),
    TD_OPT(options, axis, TD_O_AXIS, "2", NULL, "axis"),
    TD_OPT_MAYBE(options, index, TD_O_INDEX, "none", NULL, "index"),
    TD_OPT(options, axes, TD_O_AXES, "{}", NULL, "axes"),
    TD_OPT(options, betas, TD_O_NUMS, "{0.9, 0.999}", ">= 0, < 1", "decays"),
};
static const td_opts schema = TD_OPTS(options, rows);

typedef struct {
    td_ints shape;
    td_dtype dtype;
} view_options;
static const td_opt view_rows[] = {TD_OPT(view_options, shape, TD_O_INTS, NULL, NULL, "extents"),
                                   TD_OPT(view_options, dtype, TD_O_DTYPE, "f32", NULL, "dtype")};
static const td_opts view_schema = TD_OPTS(view_options, view_rows);

static td_value integer(int64_t i) { return (td_value){.type = TD_VAL_INT, .as.i = i}; }
static td_value number(double d) { return (td_value){.type = TD_VAL_NUM, .as.d = d}; }
static td_value string(const char *s) { return (td_value){.type = TD_VAL_STR, .as.s = s}; }

/* Fills from a literal text, "{4, kernel = 5}". */
static bool fill(const td_opts *s, const char *text, void *out)
{
    tdi_literal store;
    td_args args;
    char why[160];
    if (!CHECK(tdi_literal_args(text, &store, &args, why, sizeof why))) return false;
    return td_options_fill(s, "Conv2d", &args, out);
}

static const char *taken(void)
{
    const char *msg;
    td_error_take(&msg);
    return msg;
}

static void refused(const char *text, const char *sentence)
{
    options o;
    CHECK(!fill(&schema, text, &o));
    CHECK_STR(sentence, taken());
    CHECK(o.name == NULL); /* nothing is left to free */
}

static void defaults(void)
{
    options o;
    CHECK(fill(&schema, "{8}", &o));
    CHECK_INT(8, o.channels);
    CHECK_INT(1, o.kernel.n);
    CHECK_INT(3, o.kernel.v[0]);
    CHECK_INT(2, o.stride.n);
    CHECK(!o.has_momentum && o.bias && !o.has_index);
    CHECK_INT(0, o.mode);
    CHECK_INT(TD_F32, o.dtype);
    CHECK_STR("a layer", o.name);
    CHECK_INT(1, o.axis);
    CHECK_INT(0, o.axes.n);
    CHECK_NEAR(0.999, o.betas.v[1], 0);
    td_options_clear(&schema, &o);
    CHECK(o.name == NULL);
}

static void given(void)
{
    options o;
    CHECK(
        fill(&schema,
             "{4.0, {5, 3}, 2, momentum = 0.5, bias = false, mode = 'reflect', dtype = 'f64', name = \"x\", axis = -1, "
             "index = 7, axes = {1, -2}, betas = 0.5}",
             &o));
    CHECK_INT(4, o.channels);
    CHECK_INT(3, o.kernel.v[1]);
    CHECK_INT(1, o.stride.n);
    CHECK_INT(2, o.stride.v[0]);
    CHECK(o.has_momentum && !o.bias);
    CHECK_NEAR(0.5, o.momentum, 0);
    CHECK_INT(1, o.mode);
    CHECK_INT(TD_F64, o.dtype);
    CHECK_STR("x", o.name);
    CHECK_INT(-1, o.axis);
    CHECK(o.has_index);
    CHECK_INT(6, o.index);
    CHECK_INT(0, o.axes.v[0]);
    CHECK_INT(-2, o.axes.v[1]);
    CHECK_INT(1, o.betas.n);
    td_options_clear(&schema, &o);
    CHECK(fill(&schema, "{4, nil, nil, momentum = 'none', mode = 'none'}",
               &o)); /* none: no momentum, but a word of mode */
    CHECK(!o.has_momentum);
    CHECK_INT(2, o.mode);
    td_options_clear(&schema, &o);
}

static void sentences(void)
{
    refused("{-3}", "Conv2d: channels: expected an integer >= 1, got -3");
    refused("{2.5}", "Conv2d: channels: expected an integer >= 1, got 2.5");
    refused("{'3'}", "Conv2d: channels: expected an integer >= 1, got \"3\"");
    refused("{1e300}", "Conv2d: channels: expected an integer >= 1, got 1e+300");
    refused("{nan}", "Conv2d: channels: expected an integer >= 1, got nan");
    refused("{1, {3, 0}}", "Conv2d: kernel: expected an integer or a list of integers >= 1, got {3, 0}");
    refused("{1, momentum = nan}", "Conv2d: momentum: expected a number >= 0 and < 1 or none, got nan");
    refused("{1, momentum = 1}", "Conv2d: momentum: expected a number >= 0 and < 1 or none, got 1");
    refused("{1, bias = 1}", "Conv2d: bias: expected true or false, got 1");
    refused("{1, mode = 'mirror'}", "Conv2d: mode: expected \"zeros\", \"reflect\" or \"none\", got \"mirror\"");
    refused("{1, dtype = 'f8'}",
            "Conv2d: dtype: expected a dtype (f32, f64, f16, bf16, i64, i32, u8, bool), got \"f8\"");
    refused("{1, axis = 0}", "Conv2d: axis: expected an axis (they count from 1, negative ones from the end), got 0");
    refused("{1, index = 0}", "Conv2d: index: expected an index (they count from 1) or none, got 0");
    refused(
        "{1, axes = {1, 0}}",
        "Conv2d: axes: expected an axis or a list of axes (they count from 1, negative ones from the end), got {1, 0}");
    refused("{1, stride = {1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1}}",
            "Conv2d: stride: expected a list of at most 16, got 17 values");
    refused("{1, name = 5}", "Conv2d: name: expected a string, got 5");
    refused("{1, channels = 2}", "Conv2d: channels is given twice");
    options o;
    CHECK(!fill(&schema, "", &o));
    CHECK(strstr(taken(), "Conv2d: channels is missing (how many channels): Conv2d(channels, kernel = 3, ") != NULL);
    CHECK(!fill(&schema, "{1, strid = 2}", &o));
    CHECK(strstr(taken(),
                 "Conv2d: there is no option \"strid\" (did you mean stride?); its options are channels, kernel, ") !=
          NULL);
    CHECK(!fill(&schema, "{1, completely_else = 2}", &o));
    CHECK(strstr(taken(), "\"completely_else\"; its options") != NULL);
    CHECK(!fill(&view_schema, "{{1}, 'f32', 3}", &o));
    CHECK_STR("Conv2d: 3 values were given, at most 2 are expected: Conv2d(shape, dtype = \"f32\")", taken());
}

static void gathering(void)
{
    view_options v;
    options o;
    CHECK(fill(&view_schema, "{2, 3, -1}", &v));
    CHECK_INT(3, v.shape.n);
    CHECK_INT(-1, v.shape.v[2]);
    CHECK(fill(&view_schema, "{2, 3, 'f64'}", &v));
    CHECK_INT(2, v.shape.n);
    CHECK_INT(TD_F64, v.dtype);
    CHECK(fill(&view_schema, "{{2, 3}, 'i64'}", &v));
    CHECK_INT(2, v.shape.n);
    CHECK(fill(&schema, "{1, 5, 2}", &o)); /* stride takes a number itself: kernel 5, stride 2 */
    CHECK_INT(1, o.kernel.n);
    CHECK_INT(2, o.stride.v[0]);
    td_options_clear(&schema, &o);
    CHECK(!fill(&view_schema, "{1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1}", &v));
    CHECK_STR("Conv2d: shape: expected a list of at most 16, got 17 values", taken());
}

static void back(void)
{
    options o;
    td_value v;
    CHECK(fill(&schema, "{4, axes = {1, -1}, index = 3}", &o));
    CHECK(td_option_get(&schema, 8, &o, &v) && v.type == TD_VAL_INT);
    CHECK_INT(2, v.as.i); /* axis */
    CHECK(td_option_get(&schema, 9, &o, &v));
    CHECK_INT(3, v.as.i);
    CHECK(td_option_get(&schema, 3, &o, &v) && v.type == TD_VAL_NIL);
    CHECK(td_option_get(&schema, 5, &o, &v));
    CHECK_STR("zeros", v.as.s);
    CHECK(td_option_get(&schema, 6, &o, &v));
    CHECK_STR("f32", v.as.s);
    CHECK(td_option_get(&schema, 10, &o, &v) && v.type == TD_VAL_LIST);
    CHECK_INT(2, v.as.list.n);
    CHECK_INT(1, v.as.list.v[0].as.i);
    CHECK_INT(-1, v.as.list.v[1].as.i);
    td_value seven = integer(7), text = string("new");
    CHECK(td_option_set(&schema, "Conv2d", 0, &seven, &o));
    CHECK_INT(7, o.channels);
    CHECK(td_option_set(&schema, "Conv2d", 7, &text, &o));
    CHECK_STR("new", o.name);
    td_value bad = number(0.5);
    CHECK(!td_option_set(&schema, "Conv2d", 0, &bad, &o));
    CHECK_STR("Conv2d: channels: expected an integer >= 1, got 0.5", taken());
    CHECK_INT(7, o.channels);
    CHECK(!td_option_get(&schema, 99, &o, &v));
    CHECK_STR("option 100 of 12", taken());
    td_options_clear(&schema, &o);
}

static void usage(void)
{
    char text[64];
    CHECK_INT(26, td_options_usage(&view_schema, "view", text, sizeof text));
    CHECK_STR("view(shape, dtype = \"f32\")", text);
    CHECK_INT(26, td_options_usage(&view_schema, "view", text, 5));
    CHECK_STR("view", text);
    CHECK_INT(26, td_options_usage(&view_schema, "view", NULL, 0));
}

/* ---- schemas that are wrong ---- */

static void schema_refused(td_opt *v, uint32_t n, size_t size, const char *sentence)
{
    td_opts s = {size, n, sizeof(td_opt), v};
    char out[64];
    CHECK(tdi_schema_of(&s, "layer \"Bad\"") == NULL);
    CHECK_STR(sentence, taken());
    CHECK(!td_options_fill(&s, "Bad", NULL, size <= sizeof out ? out : NULL));
    taken();
}

static void bad_schemas(void)
{
    /* each is a schema of its own: they are known by their address, for ever */
    static td_opt small[] = {{"k", TD_O_INT, 0, 4, 0, "1", NULL, ""}};
    schema_refused(small, 1, 8,
                   "layer \"Bad\": option k: size: its type needs a field of 8 bytes, the struct has one of 4");
    static td_opt outside[] = {{"k", TD_O_INT, 8, 8, 0, "1", NULL, ""}};
    schema_refused(outside, 1, 8, "layer \"Bad\": option k: off: 8 is no place for it in a struct of 8 bytes");
    static td_opt far_has[] = {{"k", TD_O_INT, 0, 8, 99, "none", NULL, ""}};
    schema_refused(far_has, 1, 16, "layer \"Bad\": option k: has: 99 is no place for has_k in a struct of 16 bytes");
    static td_opt no_type[] = {{"k", 77, 0, 8, 0, "1", NULL, ""}};
    schema_refused(no_type, 1, 8, "layer \"Bad\": option k: type: 0x4d is no option type");
    static td_opt live_int[] = {{"k", TD_O_INT | TD_OPT_LIVE, 0, 8, 0, "1", NULL, ""}};
    schema_refused(live_int, 1, 8, "layer \"Bad\": option k: type: only a NUM that is never none can be LIVE");
    static td_opt word[] = {{"k", TD_O_ENUM, 0, 4, 0, "d", "a|b|c", ""}};
    schema_refused(word, 1, 8, "layer \"Bad\": default: k: expected \"a\", \"b\" or \"c\", got \"d\"");
    static td_opt words[] = {{"k", TD_O_ENUM, 0, 4, 0, "a", NULL, ""}};
    schema_refused(words, 1, 8, "layer \"Bad\": option k: allowed: expected words as in 'mean|sum', got ''");
    static td_opt bounds[] = {{"k", TD_O_INT, 0, 8, 0, "1", "at least 1", ""}};
    schema_refused(bounds, 1, 8,
                   "layer \"Bad\": option k: allowed: expected bounds as in '>= 0, < 1', got 'at least 1'");
    static td_opt low[] = {{"k", TD_O_INT, 0, 8, 0, "0", ">= 1", ""}};
    schema_refused(low, 1, 8, "layer \"Bad\": default: k: expected an integer >= 1, got 0");
    static td_opt text[] = {{"k", TD_O_INTS, 0, sizeof(td_ints), 0, "{1,", NULL, ""}};
    CHECK(tdi_schema_of(&(td_opts){sizeof(td_ints), 1, sizeof(td_opt), text}, "x") == NULL);
    CHECK(strstr(taken(), "x: option k: dflt: ") != NULL);
    static td_opt twice[] = {{"k", TD_O_INT, 0, 8, 0, "1", NULL, ""}, {"k", TD_O_INT, 8, 8, 0, "1", NULL, ""}};
    schema_refused(twice, 2, 16, "layer \"Bad\": option k: there are two of that name");
    static td_opt same[] = {{"a", TD_O_INT, 0, 8, 0, "1", NULL, ""}, {"b", TD_O_INT, 0, 8, 0, "1", NULL, ""}};
    schema_refused(same, 2, 16, "layer \"Bad\": option b: off: its field overlaps that of a");
    static td_opt name[] = {{"2k", TD_O_INT, 0, 8, 0, "1", NULL, ""}};
    schema_refused(name, 1, 8, "layer \"Bad\": option 1: name: expected letters, digits and _, got '2k'");
    CHECK(tdi_schema_of(&(td_opts){8, 1, sizeof(td_opt) - 8, low}, "x") == NULL);
    CHECK(strstr(taken(), "td_opt has") != NULL);
    CHECK(tdi_schema_of(&(td_opts){8, 1, sizeof(td_opt), NULL}, "x") == NULL);
    CHECK_STR("x: options: there are 1, but no table", taken());
    CHECK(tdi_schema_of(&(td_opts){8, 4000000, sizeof(td_opt), low}, "x") == NULL);
    CHECK_STR("x: options: at most 64, got 4000000", taken());
}

/* ---- literals ---- */

static td_vtype type_of(const char *text, td_value *v)
{
    static tdi_literal store;
    char why[160];
    return tdi_literal_value(text, &store, v, why, sizeof why) ? v->type : (td_vtype)-1;
}

static void literals(void)
{
    td_value v;
    CHECK(type_of(" 12 ", &v) == TD_VAL_INT && v.as.i == 12);
    CHECK(type_of("-1e-5", &v) == TD_VAL_NUM && v.as.d == -1e-5);
    CHECK(type_of("-inf", &v) == TD_VAL_NUM && v.as.d == -INFINITY);
    CHECK(type_of("inf", &v) == TD_VAL_NUM && v.as.d == INFINITY);
    CHECK(type_of("nan", &v) == TD_VAL_NUM && isnan(v.as.d));
    CHECK(type_of("9223372036854775807", &v) == TD_VAL_INT && v.as.i == INT64_MAX);
    CHECK(type_of("9223372036854775808", &v) == TD_VAL_NUM);
    CHECK(type_of("true", &v) == TD_VAL_BOOL && v.as.b);
    CHECK(type_of("nil", &v) == TD_VAL_NIL);
    CHECK(type_of("infinite", &v) == TD_VAL_STR);
    CHECK(type_of("{1, {2, 'x'}, }", &v) == TD_VAL_LIST && v.as.list.n == 2 && v.as.list.v[1].as.list.n == 2);
    static const char *const wrong[] = {"",  "{",  "{1",    "{1 2}",   "1 2", "'a",   "'a\\n'", "{{{{{{1}}}}}}",
                                        "-", "1x", "0x10p", "{a = 1}", "=",   "1..2", "@"};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++)
        if (!CHECK(type_of(wrong[i], &v) == (td_vtype)-1)) printf("        %s\n", wrong[i]);
    char deep[4096];
    memset(deep, '{', sizeof deep - 1);
    deep[sizeof deep - 1] = 0;
    CHECK(type_of(deep, &v) == (td_vtype)-1);
    for (size_t i = 0; i + 2 < sizeof deep; i += 2) memcpy(deep + i, "1,", 2);
    deep[0] = '{';
    CHECK(type_of(deep, &v) == (td_vtype)-1);
}

/* Filling is on the way of every op call: a few positional values must cost tens of nanoseconds. Printed, not checked. */
static void speed(void)
{
    view_options v;
    td_value pos[3] = {integer(2), integer(3), string("f64")};
    td_args args = {pos, 3, NULL, 0};
    struct timespec a, b;
    enum { N = 2000000 };
    clock_gettime(CLOCK_MONOTONIC, &a);
    for (int i = 0; i < N; i++) td_options_fill(&view_schema, "view", &args, &v);
    clock_gettime(CLOCK_MONOTONIC, &b);
    printf("    td_options_fill: %.0f ns\n",
           ((double)(b.tv_sec - a.tv_sec) * 1e9 + (double)(b.tv_nsec - a.tv_nsec)) / N);
}

int main(void)
{
    RUN(defaults);
    RUN(given);
    RUN(sentences);
    RUN(gathering);
    RUN(back);
    RUN(usage);
    RUN(bad_schemas);
    RUN(literals);
    RUN(speed);
    return check_done();
}

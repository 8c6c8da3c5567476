/* test_registry.c - tables, kernels and modules from the program itself: what is refused, in which sentence, and that nothing of it
 * stays. test_plugins.c has those from files. */
#include "check.h"
#include "loader.h"
#include "module.h"
#include "registered.h"
#include "toy_backend.h"
#include <pthread.h>

/* ---- tables ---- */

static void add_refused(td_kind kind, const void *t, const char *sentence)
{
    CHECK(!TD->add(kind, t));
    CHECK_STR(sentence, taken());
}

static bool parts(const td_call *c, td_tensor **out)
{
    out[0] = td_neg(c->in[0]);
    return out[0] != NULL;
}
static bool run_nothing(const td_kargs *a)
{
    (void)a;
    return true;
}
static bool no_backward(const td_call *c, td_tensor *const *gout, td_tensor **gin, uint64_t need)
{
    (void)c, (void)gout, (void)gin, (void)need;
    return true;
}
static bool no_view(td_infer *q)
{
    (void)q;
    return true;
}
static td_tensor *identity(td_module *self, td_tensor *x)
{
    (void)self;
    return x;
}

#pragma GCC diagnostic ignored "-Woverride-init" /* a table is right but for what is named */
#define OP(...) \
    &(td_op) { .size = sizeof(td_op), .name = "t.op", .in = "x", .out = "y", __VA_ARGS__ }
static void bad_ops(void)
{
    add_refused(TD_ADD_OP, NULL, "td_op: there is no table (NULL)");
    add_refused((td_kind)99, NULL, "add: 99 is no kind of table");
    add_refused(TD_ADD_OP, &(td_op){.size = 5},
                "td_op: size: 5 is not the size of such a table (136); .size = sizeof(td_op) is meant");
    add_refused(TD_ADD_OP, &(td_op){.size = sizeof(td_op)},
                "op: name: expected letters, digits and _, at most 63, got \"\"");
    add_refused(TD_ADD_OP, OP(.name = "a b"), "op: name: expected letters, digits and _, at most 63, got \"a b\"");
    add_refused(TD_ADD_OP, OP(.name = "a..b"), "op: name: expected letters, digits and _, at most 63, got \"a..b\"");
    add_refused(TD_ADD_OP, OP(.flags = 0), "op \"t.op\": decompose: needed, for the op is no primitive (TD_OP_PRIM)");
    add_refused(TD_ADD_OP, OP(.flags = TD_OP_PRIM, .decompose = parts),
                "op \"t.op\": decompose: a primitive (TD_OP_PRIM) has none");
    add_refused(TD_ADD_OP, OP(.flags = 1u << 30), "op \"t.op\": flags: 0x40000000 has bits that mean nothing");
    add_refused(TD_ADD_OP, OP(.flags = TD_OP_VIEW), "op \"t.op\": view: TD_OP_VIEW needs it");
    add_refused(TD_ADD_OP, OP(.flags = TD_OP_PRIM | TD_OP_ALIKE | TD_OP_RNG),
                "op \"t.op\": flags: ALIKE is for ops that only compute");
    add_refused(TD_ADD_OP, OP(.flags = TD_OP_PRIM | TD_OP_ALIKE, .out = "y mask!"),
                "op \"t.op\": flags: ALIKE is for one to 3 inputs and one output without marks");
    add_refused(TD_ADD_OP, OP(.view = no_view, .decompose = parts), "op \"t.op\": view: is set without TD_OP_VIEW");
    add_refused(TD_ADD_OP, OP(.in = "x x"), "op \"t.op\": signature \"x x\": there are two \"x\"");
    add_refused(TD_ADD_OP, OP(.in = "x@"), "op \"t.op\": signature \"x@\": \"x@\" is no name");
    add_refused(TD_ADD_OP, OP(.in = "x?a"), "op \"t.op\": signature \"x?a\": 'a' after \"x\" is no mark");
    add_refused(TD_ADD_OP, OP(.in = "x??"), "op \"t.op\": signature \"x??\": '?' after \"x\" is there twice");
    add_refused(TD_ADD_OP, OP(.in = "x!"), "op \"t.op\": in: \"x!\": the mark ! is for outputs");
    add_refused(TD_ADD_OP, OP(.out = "y&"), "op \"t.op\": out: \"y&\": the marks & ? . ~ are for inputs");
    add_refused(TD_ADD_OP, OP(.out = ""), "op \"t.op\": out: an op without outputs must write an input (mark &)");
    add_refused(TD_ADD_OP, OP(.in = "a b c d e f g h i j k l m n o p q"),
                "op \"t.op\": signature \"a b c d e f g h i j k l m n o p q\": at most 16 names");
    add_refused(TD_ADD_OP, OP(.save_in = 2, .decompose = parts),
                "op \"t.op\": save_in: a bit beyond the 1 names of \"x\"");
    add_refused(TD_ADD_OP, OP(.flags = TD_OP_PRIM, .backward = no_backward),
                "op \"t.op\": flags: a backward without decompose must be BWD_DIFF or ONCE_DIFF");
    add_refused(TD_ADD_OP, OP(.decompose = parts, .backward = no_backward),
                "op \"t.op\": save_in: must cover all inputs, for decompose of them gives the second derivative (or "
                "set BWD_DIFF or ONCE_DIFF)");
    add_refused(TD_ADD_OP, OP(.name = "relu", .decompose = parts), "op \"relu\": there is one already, from libtide");
    CHECK(td_op_find("t.op", NULL) == NULL);
    CHECK_STR("", taken());
}

#define KERNEL(...)                                                                                            \
    &(td_kernel)                                                                                               \
    {                                                                                                          \
        .size = sizeof(td_kernel), .op = "t.op", .device = "cpu", .dtypes = 1, .run = run_nothing, __VA_ARGS__ \
    }
#define LAYER(...) \
    &(td_layer) { .size = sizeof(td_layer), .name = "T", .forward1 = identity, __VA_ARGS__ }
static void bad_others(void)
{
    add_refused(TD_ADD_KERNEL, KERNEL(.run = NULL), "kernel \"t.op@cpu\": run: needed");
    add_refused(TD_ADD_KERNEL, KERNEL(.dtypes = 0),
                "kernel \"t.op@cpu\": dtypes: expected TD_BIT of one dtype or more, got 0x0");
    add_refused(TD_ADD_KERNEL, KERNEL(.dtypes = 1u << 20),
                "kernel \"t.op@cpu\": dtypes: expected TD_BIT of one dtype or more, got 0x100000");
    add_refused(TD_ADD_KERNEL, KERNEL(.again = run_nothing),
                "kernel \"t.op@cpu\": again and again_reads: both or neither");
    add_refused(TD_ADD_KERNEL, KERNEL(.flags = TD_K_LAYOUT),
                "kernel \"t.op@cpu\": layouts: TD_K_LAYOUT needs their names");
    add_refused(TD_ADD_KERNEL, KERNEL(.device = NULL),
                "kernel: device: expected letters, digits and _, at most 63, got \"\"");
    add_refused(TD_ADD_LAYER, LAYER(.forward1 = NULL),
                "layer \"T\": forward1 and forward: exactly one of them must be set");
    add_refused(TD_ADD_LAYER, LAYER(.in = "x y"),
                "layer \"T\": forward1: is for one input and one output, the signature is \"x y -> y\"");
    add_refused(TD_ADD_LAYER, LAYER(.kind = 9), "layer: kind: expected TD_LAYER or TD_LOSS, got 9");
    add_refused(TD_ADD_LAYER, LAYER(.kind = TD_LOSS),
                "loss \"T\": opts: a loss has the option reduction of \"none|mean|sum\" (TD_LOSS_OPTS)");
    add_refused(TD_ADD_LAYER, LAYER(.out = "y*"),
                "layer \"T\": out: \"y*\": a layer's outputs may have the marks ? # ~");
    add_refused(TD_ADD_OPTIM, &(td_optim){.size = sizeof(td_optim), .name = "T"}, "optimizer \"T\": step: needed");
    add_refused(TD_ADD_BACKEND, &(td_backend){.size = sizeof(td_backend), .name = "t"}, "backend \"t\": score: needed");
    add_refused(TD_ADD_LAYOUT, &(td_layout){.size = sizeof(td_layout), .name = "l", .device = "cpu"},
                "layout \"l\": bytes: needed");
    CHECK(td_layer_find("T") == NULL);
}

/* ---- kernels ---- */

static bool add_one(const td_kargs *a)
{
    for (int64_t i = 0; i < td_view_numel(a->out[0]); i++) toy_set(a->out[0], i, toy_get(a->in[0], i) + 1);
    return true;
}
static const td_kernel plain_kernel = {
    .size = sizeof(td_kernel), .op = "test.overlaid", .device = "cpu", .dtypes = TD_BITS_FLOAT, .run = add_one};
static const td_op overlaid = {
    .size = sizeof(td_op), .name = "test.overlaid", .in = "x", .out = "y", .flags = TD_OP_PRIM};

static double value_of(td_tensor *t)
{
    double v = -1;
    return t && TD->item(t, TD_F64, &v) ? v : NAN;
}

static void kernels_wait_and_overlay(void)
{
    uint32_t id;
    CHECK(td_add_kernel(&plain_kernel)); /* its op is not there yet */
    CHECK(td_op_find("test.overlaid", &id) == NULL);
    CHECK(td_add_op(&overlaid));
    CHECK(td_op_find("test.overlaid", &id) != NULL);
    tdi_scope_push();
    double two = 2;
    float y = 0;
    td_tensor *x = td_from_data(TD_F64, td_dims(1), &two);
    CHECK_NEAR(3, value_of(call1("test.overlaid", x)), 0); /* the overlay takes f32 only */
    float twof = 2;
    td_tensor *t = call1("test.overlaid", td_from_data(TD_F32, td_dims(1), &twof));
    CHECK(t && td_tensor_read(t, &y));
    CHECK_NEAR(
        102, y,
        0); /* plugins/overlay.so was found and loaded when the op first ran; broken_overlay.so was not in its way */
    CHECK_STR("", taken());
    CHECK(td_has_kernel(id, "cpu", TD_F64));
    CHECK(!td_has_kernel(id, "cpu", TD_I64));
    CHECK(!td_has_kernel(id, "nosuch", TD_F32));
    CHECK(!td_has_kernel(9999, "cpu", TD_F32));
    tdi_op *op = tdi_op_by_id(id);
    const tdi_chain *c = atomic_load(&op->chain[tdi_backend_find("cpu")->id]);
    CHECK_INT(2, c->n);
    CHECK_INT(10, c->k[0]->t.priority);
    CHECK_STR("overlay", tdi_plugin_name(c->k[0]->from));
    CHECK(td_add_kernel(&plain_kernel));
    const tdi_chain *newer = atomic_load(&op->chain[tdi_backend_find("cpu")->id]);
    CHECK_INT(2, c->n); /* the old one is as it was, for who still reads it */
    CHECK_INT(3, newer->n);
    CHECK(newer->k[1]->serial > newer->k[2]->serial);
    tdi_scope_pop(NULL);
}

/* ---- a good module, from the program's own tables ---- */

typedef struct {
    int64_t n;
    bool bias;
} scale_options;
static const td_opt scale_rows[] = {TD_OPT(scale_options, n, TD_O_INT, NULL, ">= 0", "length"),
                                    TD_OPT(scale_options, bias, TD_O_BOOL, "true", NULL, "whether there is a bias")};
static unsigned dropped;

static bool scale_init(td_module *self, const void *opts)
{
    const scale_options *o = opts;
    *td_user(self) = malloc(1);
    td_new_param(self, "weight", td_dims(o->n), "constant", 3, 0);
    if (o->bias) td_new_param(self, "bias", td_dims(o->n), "constant", 1, 0);
    return td_new_buffer(self, "count", TD_I64, td_dims_n(0, NULL), 5) != NULL;
}
static bool scale_forward(td_module *self, td_tensor *const *in, uint32_t n_in, td_tensor **out)
{
    (void)n_in;
    td_tensor *y = td_mul(in[0], td_param(self, "weight"));
    if (in[1]) y = td_add(y, in[1]);
    out[0] = td_has_param(self, "bias") ? td_add(y, td_param(self, "bias")) : y;
    return out[0] != NULL;
}
static void scale_drop(td_module *self)
{
    dropped++;
    free(*td_user(self));
}
static const td_layer scale = {.size = sizeof scale,
                               .kind = TD_LAYER,
                               .name = "TestScale",
                               .opts = TD_OPTS(scale_options, scale_rows),
                               .in = "x shift?",
                               .init = scale_init,
                               .forward = scale_forward,
                               .drop = scale_drop};

static bool pair_init(td_module *self, const void *opts)
{
    (void)opts;
    return td_new_child(self, "first", "TestScale", "{2}") &&
           td_new_child(self, "second", "TestScale", "{2, bias = false}") != NULL;
}
static td_tensor *pair_forward(td_module *self, td_tensor *x)
{
    return td_run_child(self, "second", td_run_child(self, "first", x));
}
static const td_layer two = {
    .size = sizeof two, .kind = TD_LAYER, .name = "TestPair", .init = pair_init, .forward1 = pair_forward};

static void good_module(void)
{
    CHECK(td_add_layer(&scale) && td_add_layer(&two));
    tdi_scope_push();
    td_module *m = td_module_new(td_layer_find("TestPair"), NULL);
    if (!CHECK(m != NULL)) printf("        %s\n", taken());
    static const char *const names[] = {"first.weight", "first.bias", "first.count", "second.weight", "second.count"};
    const char *name;
    bool buffer;
    for (uint32_t i = 0; i < 5; i++) {
        td_tensor *t = td_module_tensor(m, i, &name, &buffer);
        CHECK(t != NULL);
        CHECK_STR(names[i], name);
        CHECK(buffer == !strcmp(strchr(name, '.'), ".count"));
        CHECK(buffer || td_needs_grad(t));
    }
    CHECK(td_module_tensor(m, 5, &name, &buffer) == NULL);
    td_tensor *x = td_full(td_dims(2), 2, TD_F32), *y = NULL, *in[2] = {x, x};
    uint32_t n = 1;
    float got[2];
    CHECK(td_module_forward(m, &x, 1, &y, &n) && n == 1);
    CHECK(td_tensor_read(y, got));
    CHECK_NEAR(21, got[1], 0); /* (2 * 3 + 1) * 3 */
    CHECK(td_module_set_tensor(m, "second.weight", td_full(td_dims(2), 10, TD_F32)));
    CHECK(td_module_forward(m, &x, 1, &y, &n) && td_tensor_read(y, got));
    CHECK_NEAR(70, got[0], 0);
    CHECK(!td_module_set_tensor(m, "second.weight", td_full(td_dims(3), 10, TD_F32)));
    CHECK_STR("TestPair: second.weight: expected a tensor of the same shape as f32 (2), got f32 (3)", taken());
    CHECK(!td_module_set_tensor(m, "third", x));
    CHECK_STR("TestPair: it has no parameter or buffer third", taken());
    CHECK(!td_module_forward(m, in, 2, &y, &n));
    CHECK_STR("TestPair: expected 1 input (x), got 2", taken());
    CHECK(!td_module_forward(m, (td_tensor *[]){NULL}, 1, &y, &n));
    CHECK_STR("TestPair: input x is missing", taken());
    td_module_train(m, false);
    td_module_release(m);
    CHECK_INT(2, dropped);
    m = td_module_new(&scale, NULL); /* the program's own table is not the registry's copy */
    CHECK(m == NULL);
    CHECK_STR("layer \"TestScale\": is not the table that td_layer_find gives", taken());
    m = td_module_new(td_layer_find("TestScale"),
                      &(td_args){(td_value[]){{.type = TD_VAL_INT, .as.i = 2}}, 1, NULL, 0});
    CHECK(m && td_module_forward(m, in, 2, &y, &n) && td_tensor_read(y, got)); /* with the optional input */
    CHECK_NEAR(9, got[0], 0);
    td_module_release(td_module_keep(m));
    td_module_release(m);
    CHECK_INT(3, dropped);
    tdi_scope_pop(NULL);
}

/* ---- threads ---- */

static void *find_many(void *arg)
{
    uint32_t id;
    bool *ok = arg;
    for (int i = 0; i < 2000; i++) {
        *ok &= td_op_find("matmul", &id) != NULL && td_layer_find("TestScale") != NULL && !td_op_find("no.op", &id);
        *ok &= td_plugin_load("/nowhere.so") == false;
        td_error_take(NULL);
    }
    return NULL;
}

static void threads(void)
{
    pthread_t t[4];
    bool ok[4] = {true, true, true, true};
    for (int i = 0; i < 4; i++) pthread_create(&t[i], NULL, find_many, &ok[i]);
    static td_kernel k[50];
    for (int i = 0; i < 50; i++) {
        k[i] = plain_kernel;
        k[i].priority = i;
        CHECK(td_add_kernel(&k[i]));
    }
    for (int i = 0; i < 4; i++) {
        pthread_join(t[i], NULL);
        CHECK(ok[i]);
    }
}

int main(void)
{
    CHECK(toy_register());
    RUN(bad_ops);
    RUN(bad_others);
    RUN(kernels_wait_and_overlay);
    RUN(good_module);
    RUN(threads);
    return check_done();
}

/* test_optim.c - optimizers: states, live scalars, step() against the fused op, what is refused. A toy backend computes. */
#include "check.h"
#include "context.h"
#include "toy_backend.h"
#include <tide/tide.h>

static const char *taken(void)
{
    const char *msg;
    td_error_take(&msg);
    return msg;
}

/* p = p - lr factor (beta1 + beta2) g - momentum buf, and buf, where it is kept, counts the steps; both ways of computing it. */
typedef struct {
    double lr, momentum;
    td_nums betas;
    bool broken;
} options;
static const td_opt rows[] = {
    TD_OPT(options, lr, TD_O_NUM | TD_OPT_LIVE, "0.1", ">= 0", "learning rate"),
    TD_OPT(options, momentum, TD_O_NUM, "0", ">= 0", "factor of buf"),
    TD_OPT(options, betas, TD_O_NUMS, "{1, 2}", NULL, "two factors"),
    TD_OPT(options, broken, TD_O_BOOL, "false", NULL, "whether step() fails"),
};
static unsigned steps_run, fused_run;

static bool step(td_module *self, td_tensor *p, td_tensor *g, td_tensor *const *state)
{
    const options *o = td_options(self);
    steps_run++;
    if (o->broken) return false;
    td_tensor *scale = td_mul(td_neg(td_scalar(self, "lr")), td_number(3 * (o->betas.v[0] + o->betas.v[1])));
    td_add_into(p, p, td_mul(g, scale));
    if (state[0]) {
        td_add_into(state[0], state[0], td_mul(td_number(0.5), td_scalar(self, "step")));
        td_add_into(p, p, td_mul(state[0], td_number(-o->momentum)));
    }
    return td_add_into(state[1], state[1], td_number(1)) != NULL;
}

typedef struct {
    double factor, momentum, beta1, beta2;
} attr;
static const td_opt attr_rows[] = {
    TD_OPT(attr, factor, TD_O_NUM, NULL, NULL, ""),
    TD_OPT(attr, momentum, TD_O_NUM, "0", NULL, ""),
    TD_OPT(attr, beta1, TD_O_NUM, NULL, NULL, ""),
    TD_OPT(attr, beta2, TD_O_NUM, NULL, NULL, ""),
};
static const td_op fused_op = {.size = sizeof fused_op,
                               .name = "test.step",
                               .in = "p*& g* buf*?& step. lr.",
                               .out = "",
                               .flags = TD_OP_OPTIONAL,
                               .attr = TD_OPTS(attr, attr_rows)};
static bool run_fused(const td_kargs *k)
{
    const attr *a = k->attr;
    const td_view *const *p = k->in, *const *g = p + k->n_list, *const *buf = g + k->n_list;
    double now = *(const double *)k->in[3 * k->n_list]->p, lr = *(const double *)k->in[3 * k->n_list + 1]->p;
    fused_run++;
    for (uint32_t j = 0; j < k->n_list; j++)
        for (int64_t i = 0; i < td_view_numel(p[j]); i++) {
            double x = toy_get(p[j], i) - lr * a->factor * (a->beta1 + a->beta2) * toy_get(g[j], i);
            if (buf[j]) {
                toy_set(buf[j], i, toy_get(buf[j], i) + 0.5 * now);
                x -= a->momentum * toy_get(buf[j], i);
            }
            toy_set(p[j], i, x);
        }
    return true;
}
static const td_kernel fused_kernel = {
    .size = sizeof fused_kernel, .op = "test.step", .device = "cpu", .dtypes = TD_BIT(TD_F32), .run = run_fused};

#define OPTIM(title, fused_text)                                                                              \
    {                                                                                                         \
        .size = sizeof(td_optim), .name = title, .opts = TD_OPTS(options, rows), .state = "buf?momentum mu.", \
        .step = step, .fused = fused_text                                                                     \
    }
static const td_optim kinds[] = {
    OPTIM("TestFused", "test.step p*& g* buf*?& step. lr. factor=3"),
    OPTIM("TestPlain", NULL),
    OPTIM("TestNoOp", "no.such.op p*& g*"),
    OPTIM("TestMisfit", "test.step p*& g* step. lr. factor=3"),
    OPTIM("TestUnknown", "test.step p*& g* buf*?& step. rate. factor=3"),
    OPTIM("TestMissing", "test.step p*& g* buf*?& step. lr."),
};

static td_args named(td_named *v, uint32_t n) { return (td_args){NULL, 0, v, n}; }
static td_value number(double d) { return (td_value){.type = TD_VAL_NUM, .as.d = d}; }

static td_tensor *leaf(td_dtype dt, double value, double grad)
{
    td_tensor *p = td_full(td_dims(2, 2), value, dt);
    td_require_grad(p, true);
    if (!isnan(grad)) td_set_grad(p, td_full(td_dims(2, 2), grad, dt));
    return p;
}

static double first(td_tensor *t)
{
    union {
        float f[4];
        double d[4];
    } u = {{0}};
    if (!t || !td_tensor_read(t, &u)) return NAN;
    return td_dtype_of(t) == TD_F32 ? (double)u.f[0] : u.d[0];
}

/* After two steps by either way the same numbers stand in parameters and states. */
static void same_by_both_ways(void)
{
    for (int way = 0; way < 2; way++) {
        tdi_scope_push();
        td_tensor *p[3] = {leaf(TD_F32, 1, 1), leaf(TD_F32, 2, NAN), leaf(TD_F32, 3, 0.5)};
        td_named given[] = {{"momentum", number(0.5)}};
        td_args args = named(given, 1);
        td_optimizer *o = td_optimizer_new(td_optim_find(way ? "TestPlain" : "TestFused"), p, 3, &args);
        if (!CHECK(o != NULL)) printf("        %s\n", taken());
        const char *name;
        CHECK(td_optimizer_state(o, 0, 0, &name) == NULL); /* not made yet, but known by name */
        CHECK_STR("buf", name);
        steps_run = fused_run = 0;
        uint32_t version = td_tensor_version(p[0]);
        CHECK(td_optimizer_step(o));
        CHECK(td_optimizer_step(o));
        CHECK_INT(way ? 4 : 0, steps_run);
        CHECK_INT(way ? 0 : 2, fused_run);
        CHECK_INT(2, td_optimizer_steps(o));
        CHECK(td_tensor_version(p[0]) > version);
        CHECK_NEAR(1 - 2 * 0.9 - 0.5 * (0.5 + 1.5), first(p[0]), 1e-6);
        CHECK_NEAR(2, first(p[1]), 0); /* without a gradient it stays */
        CHECK_NEAR(1.5, first(td_optimizer_state(o, 2, 0, &name)), 1e-6);
        CHECK(td_optimizer_state(o, 1, 0, &name) == NULL);
        CHECK(td_optimizer_state(o, 0, 2, &name) == NULL && name == NULL);
        if (way) CHECK_NEAR(2, first(td_optimizer_state(o, 0, 1, &name)), 0); /* mu, 0-dim */
        CHECK(td_is_leaf(p[0]) && td_needs_grad(p[0]));
        td_optimizer_zero_grad(o);
        CHECK(td_grad_of(p[0]) == NULL);
        td_optimizer_free(o);
        tdi_scope_pop(NULL);
        CHECK_STR("", taken());
    }
}

static void options_live_and_constant(void)
{
    tdi_scope_push();
    td_tensor *p = leaf(TD_F32, 0, 1);
    td_optimizer *o = td_optimizer_new(td_optim_find("TestFused"), &p, 1, NULL);
    td_value v = number(0.2);
    CHECK(td_optimizer_step(o));
    CHECK_NEAR(-0.9, first(p), 1e-6);
    CHECK(td_optimizer_set(o, "lr", &v));
    CHECK(td_optimizer_step(o));
    CHECK_NEAR(-2.7, first(p), 1e-6);
    td_value two[2] = {number(0), number(1)}, list = {.type = TD_VAL_LIST, .as.list = {two, 2}};
    CHECK(td_optimizer_set(o, "betas", &list));
    CHECK(td_optimizer_step(o));
    CHECK_NEAR(-3.3, first(p), 1e-6);
    CHECK(td_optimizer_get(o, "lr", &v));
    CHECK_NEAR(0.2, v.as.d, 0);
    v = number(-1);
    CHECK(!td_optimizer_set(o, "lr", &v));
    CHECK_STR("TestFused: lr: expected a number >= 0, got -1", taken());
    CHECK(!td_optimizer_set(o, "rate", &v));
    CHECK(strstr(taken(), "TestFused: there is no option \"rate\": TestFused(lr = 0.1, ") != NULL);
    v = number(0.5);
    CHECK(td_optimizer_set(o, "momentum", &v)); /* buf is made from now on */
    CHECK(td_optimizer_step(o));
    const char *name;
    CHECK_NEAR(2, first(td_optimizer_state(o, 0, 0, &name)), 0); /* step 4 */
    list.as.list.n = 1;
    CHECK(td_optimizer_set(o, "betas", &list));
    CHECK(!td_optimizer_step(o));
    CHECK_STR("TestFused: betas: expected at least 2 numbers, got 1", taken());
    CHECK_INT(4, td_optimizer_steps(o)); /* a step that failed does not count */
    td_optimizer_free(o);
    tdi_scope_pop(NULL);
}

static void other_dtypes_by_step(void)
{
    tdi_scope_push();
    td_tensor *p = leaf(TD_F64, 0, 1);
    td_optimizer *o = td_optimizer_new(td_optim_find("TestFused"), &p, 1, NULL);
    steps_run = fused_run = 0;
    CHECK(td_optimizer_step(o));
    CHECK_INT(1, steps_run);
    CHECK_INT(0, fused_run);
    CHECK(td_dtype_of(p) == TD_F64);
    CHECK_NEAR(-0.9, first(p), 1e-7);
    td_optimizer_free(o);
    o = td_optimizer_new(td_optim_find("TestNoOp"), &p, 1, NULL);
    CHECK(o && td_optimizer_step(o)); /* the op is nowhere: step() serves */
    td_value yes = {.type = TD_VAL_BOOL, .as.b = true};
    CHECK(td_optimizer_set(o, "broken", &yes));
    CHECK(!td_optimizer_step(o));
    CHECK_STR("TestNoOp: its step failed without saying why (plugin the program)", taken());
    CHECK(td_grad_enabled());
    td_optimizer_free(o);
    tdi_scope_pop(NULL);
}

static void checkpoints(void)
{
    tdi_scope_push();
    td_tensor *p = leaf(TD_F32, 0, 1);
    td_named given[] = {{"momentum", number(1)}};
    td_args args = named(given, 1);
    td_optimizer *o = td_optimizer_new(td_optim_find("TestPlain"), &p, 1, &args);
    td_tensor *saved = td_full(td_dims(2, 2), 7, TD_F32);
    const char *name;
    CHECK(td_optimizer_set_state(o, 0, "buf", saved));
    CHECK(td_optimizer_set_state(o, 0, "mu", td_full(td_dims_n(0, NULL), 3, TD_F64)));
    td_optimizer_set_steps(o, 9);
    td_tensor *held = td_optimizer_state(o, 0, 0, &name);
    CHECK(held && held != saved && !td_tensor_same_storage(held, saved));
    CHECK_NEAR(7, first(held), 0);
    CHECK(td_optimizer_step(o));
    CHECK_INT(10, td_optimizer_steps(o));
    CHECK_NEAR(12, first(td_optimizer_state(o, 0, 0, &name)), 0);
    CHECK_NEAR(7, first(saved), 0);
    CHECK(!td_optimizer_set_state(o, 0, "buf", td_full(td_dims(3), 7, TD_F32)));
    CHECK_STR("TestPlain: state buf of parameter 1: expected the shape of f32 (2, 2), got f32 (3)", taken());
    CHECK(!td_optimizer_set_state(o, 0, "vel", saved));
    CHECK_STR("TestPlain: it keeps no state \"vel\"", taken());
    CHECK(!td_optimizer_set_state(o, 1, "buf", saved));
    CHECK_STR("TestPlain: there is no parameter 2; it has 1", taken());
    td_optimizer_set_steps(o, -4);
    CHECK_INT(0, td_optimizer_steps(o));
    td_optimizer_free(o);
    tdi_scope_pop(NULL);
}

static void new_refused(const char *kind, td_tensor *const *p, uint32_t n, const char *sentence)
{
    CHECK(td_optimizer_new(td_optim_find(kind), p, n, NULL) == NULL);
    CHECK_STR(sentence, taken());
}

static void refused(void)
{
    tdi_scope_push();
    td_tensor *p = leaf(TD_F32, 0, 1), *q = td_neg(p), *whole = td_full(td_dims(2), 1, TD_I64), *num = td_number(1);
    new_refused("TestPlain", (td_tensor *[]){p, p}, 2, "TestPlain: parameter 1 is given twice");
    new_refused("TestPlain", (td_tensor *[]){p, NULL}, 2, "TestPlain: parameter 2 is missing");
    new_refused("TestPlain", &q, 1, "TestPlain: parameter 1 is the result of neg, not a leaf");
    new_refused("TestPlain", &whole, 1, "TestPlain: parameter 1: expected a tensor of a float dtype, got i64 (2)");
    CHECK(td_optimizer_new(td_optim_find("TestPlain"), &num, 1, NULL) == NULL);
    taken();
    new_refused("TestMisfit", &p, 1,
                "TestMisfit: fused: \"test.step p*& g* step. lr. factor=3\": does not fit the op's signature, \"p*& g* "
                "buf*?& step. lr.\"");
    new_refused(
        "TestUnknown", &p, 1,
        "TestUnknown: fused: \"test.step p*& g* buf*?& step. rate. factor=3\": rate is no state, live option or step");
    new_refused(
        "TestMissing", &p, 1,
        "TestMissing: fused: \"test.step p*& g* buf*?& step. lr.\": nothing says what the op's attribute factor is");
    new_refused("NoSuchOptimizer", &p, 1, "optimizer \"\": is not the table that td_optim_find gives");
    td_optimizer *none = td_optimizer_new(td_optim_find("TestPlain"), NULL, 0, NULL);
    CHECK(none && td_optimizer_step(none));
    td_optimizer_free(none);
    tdi_scope_pop(NULL);
}

int main(void)
{
    CHECK(toy_register() && td_add_op(&fused_op) && td_add_kernel(&fused_kernel));
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) CHECK(td_add_optim(&kinds[i]));
    RUN(same_by_both_ways);
    RUN(options_live_and_constant);
    RUN(other_dtypes_by_step);
    RUN(checkpoints);
    RUN(refused);
    return check_done();
}

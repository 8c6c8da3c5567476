/* test_waist.c - dispatch and autograd from C: pending errors, promotion, given outputs, decompositions, plans, ownership. */
#include "check.h"
#include "autograd.h"
#include "dispatch.h"
#include <string.h>

static td_tensor *vec(const float *v, int64_t n) { return td_from_data(TD_F32, td_dims(n), v); }

static float at(td_tensor *t, int64_t i)
{
    float buf[64];
    return td_tensor_read(td_cast(t, TD_F32), buf) ? buf[i] : -999;
}

static bool took(td_status want, const char *text)
{
    const char *msg = "";
    td_status got = td_error_take(&msg);
    bool ok = got == want && strstr(msg, text);
    if (!ok) fprintf(stderr, "    got status %d: %s\n", (int)got, msg);
    return ok;
}

static void errors_chain(void)
{
    TD->scope_push();
    td_tensor *a = td_ones(td_dims(2, 3), TD_F32), *b = td_ones(td_dims(2, 4), TD_F32);
    CHECK(td_add(td_mul(td_add(a, b), a), b) == NULL);
    CHECK(took(TD_ESHAPE, "add"));
    CHECK(td_error_take(NULL) == TD_OK);
    CHECK(td_add(a, NULL) == NULL);
    CHECK(took(TD_EINVAL, "y is missing"));
    CHECK(td_add(a, a) != NULL);
    TD->scope_pop(NULL);
}

static void promotion_follows_the_table(void)
{
    static const struct {
        td_dtype a, b, want;
    } pairs[] = {{TD_F32, TD_F64, TD_F64}, {TD_F16, TD_BF16, TD_F32}, {TD_I64, TD_F16, TD_F16},
                 {TD_U8, TD_I32, TD_I32},  {TD_BOOL, TD_U8, TD_U8},   {TD_BOOL, TD_BOOL, TD_BOOL},
                 {TD_I32, TD_I64, TD_I64}};
    TD->scope_push();
    for (size_t i = 0; i < sizeof pairs / sizeof *pairs; i++) {
        td_tensor *x = td_ones(td_dims(2), pairs[i].a), *y = td_ones(td_dims(2), pairs[i].b);
        CHECK(td_dtype_of(td_add(x, y)) == pairs[i].want);
        CHECK(td_dtype_of(td_add(y, x)) == pairs[i].want);
    }
    td_ints none = {0, {0}};
    td_tensor *f32 = td_ones(td_dims(2), TD_F32), *i64 = td_ones(td_dims(2), TD_I64), *zero_dim = td_ones(none, TD_F64);
    CHECK(td_dtype_of(td_add(f32, zero_dim)) == TD_F32);
    CHECK(td_dtype_of(td_add(i64, zero_dim)) == TD_F64);
    CHECK(td_dtype_of(td_add(i64, td_number(2.5))) == TD_F32);
    CHECK(td_dtype_of(td_add(i64, td_integer(2))) == TD_I64);
    CHECK(td_dtype_of(td_add(td_ones(td_dims(2), TD_BF16), td_number(2.5))) == TD_BF16);
    CHECK(!td_failed());
    TD->scope_pop(NULL);
}

static void given_outputs(void)
{
    static const float v[] = {1, 2, 3, 4};
    TD->scope_push();
    td_tensor *x = vec(v, 4), *m = td_reshape(vec(v, 4), td_dims(2, 2));
    uint32_t before = td_tensor_version(x);
    CHECK(td_add_into(x, x, td_number(1)) == x && at(x, 3) == 5);
    CHECK(td_tensor_version(x) == before + 1);
    td_tensor *t = td_transpose(m, 0, 1); /* same memory, other order: the op must read before it writes */
    CHECK(td_add_into(m, m, t) == m);
    CHECK(at(m, 0) == 2 && at(m, 1) == 5 && at(m, 2) == 5 && at(m, 3) == 8);
    CHECK(td_add_into(td_expand(vec(v, 1), td_dims(4)), x, x) == NULL);
    CHECK(took(TD_EINVAL, "broadcast"));
    CHECK(td_add_into(td_ones(td_dims(2), TD_I64), td_ones(td_dims(2), TD_F32), td_number(1)) == NULL);
    CHECK(took(TD_EDTYPE, "i64"));
    CHECK(td_add_into(td_ones(td_dims(3), TD_F32), td_ones(td_dims(2), TD_F32), td_number(1)) == NULL);
    CHECK(took(TD_ESHAPE, "in place"));
    TD->scope_pop(NULL);
}

static void copies_are_row_major(void)
{
    TD->scope_push();
    td_tensor *t = td_transpose(td_ones(td_dims(2, 3), TD_F32), 0, 1);
    CHECK(!td_view_dense(td_view_of(t)));
    CHECK(td_view_dense(td_view_of(td_copy(t))));
    CHECK(td_view_dense(td_view_of(td_tensor_dense(t))));
    CHECK(!td_view_dense(td_view_of(td_exp(t)))); /* element-wise results keep the order of their input */
    TD->scope_pop(NULL);
}

static void decompositions_agree(void)
{
    TD->scope_push();
    td_tensor *x = td_randn(td_dims(4, 5), TD_F32);
    td_tensor *fast = td_softmax(x, 1);
    bool before = td_decompose_enable(true);
    td_tensor *slow = td_softmax(x, 1);
    td_decompose_enable(before);
    td_ints all = {0, {0}};
    float worst = 1;
    CHECK(TD->item(td_amax(td_abs(td_sub(fast, slow)), all, false), TD_F32, &worst) && worst < 1e-6f);
    TD->scope_pop(NULL);
}

static void half_by_way_of_f32(void)
{
    static const float v[] = {1.5f, -2};
    TD->scope_push();
    td_tensor *h = td_cast(vec(v, 2), TD_F16), *y = td_mul(h, h);
    CHECK(td_dtype_of(y) == TD_F16 && at(y, 0) == 2.25f && at(y, 1) == 4);
    TD->scope_pop(NULL);
}

static void results_belong_to_scopes(void)
{
    td_memory_info before, after;
    TD->scope_push();
    CHECK(td_memory("cpu", &before));
    for (int i = 0; i < 100; i++) {
        TD->scope_push();
        td_tensor *x = td_ones(td_dims(1000), TD_F32);
        for (int k = 0; k < 10; k++) x = td_add(x, x);
        CHECK(TD->scope_pop(i == 99 ? x : NULL) == (i == 99 ? x : NULL));
    }
    CHECK(td_memory("cpu", &after));
    CHECK(after.current - before.current <= 8192);
    TD->scope_pop(NULL);
}

static void gradients(void)
{
    static const float v[] = {1, 2, 3};
    td_ints all = {0, {0}};
    TD->scope_push();
    td_tensor *x = vec(v, 3);
    CHECK(td_require_grad(x, true));
    td_tensor *y = td_sum(td_mul(x, td_mul(x, x)), all, false), *g = NULL, *gg = NULL;
    CHECK(td_grad(&y, NULL, 1, &x, 1, TD_CREATE_GRAPH, &g) && at(g, 2) == 27);
    td_tensor *s = td_sum(g, all, false);
    CHECK(td_grad(&s, NULL, 1, &x, 1, 0, &gg) && at(gg, 2) == 18);
    CHECK(td_grad_of(x) == NULL);
    td_tensor *z = td_sum(td_mul(x, td_number(2)), all, false);
    CHECK(td_backward(z, NULL, 0) && at(td_grad_of(x), 0) == 2);
    td_tensor *squares = td_sum(td_mul(x, x), all, false);
    CHECK(td_backward(squares, NULL, 0) && !td_backward(squares, NULL, 0));
    CHECK(took(TD_EINVAL, "retain_graph"));
    TD->scope_pop(NULL);
}

/* Releasing and walking must not use the C stack. */
static void long_chains(void)
{
    TD->scope_push();
    td_tensor *x = td_ones(td_dims(1), TD_F32), *y = x;
    td_require_grad(x, true);
    for (int i = 0; i < 300000; i++) {
        TD->scope_push();
        y = TD->scope_pop(td_add(y, td_number(0)));
    }
    CHECK(td_backward(y, NULL, 0));
    CHECK(at(td_grad_of(x), 0) == 1);
    TD->scope_pop(NULL);
}

static void interruption(void)
{
    TD->scope_push();
    td_interrupt();
    CHECK(td_ones(td_dims(1), TD_F32) == NULL);
    CHECK(took(TD_EINVAL, "interrupted"));
    CHECK(td_ones(td_dims(1), TD_F32) != NULL);
    TD->scope_pop(NULL);
}

/* ---- plans ---- */

static unsigned planned;
static bool counts(const td_kargs *a, void **plan, size_t *ws)
{
    (void)a, (void)plan, (void)ws;
    planned++;
    return true;
}
static bool sets_one(const td_kargs *a)
{
    *(double *)a->out[0]->p = 1;
    return true;
}

static void plans_are_made_once(void)
{
    static const td_kernel kernel = {.size = sizeof kernel,
                                     .op = "sin",
                                     .device = "cpu",
                                     .dtypes = TD_BIT(TD_F64),
                                     .priority = 1000,
                                     .plan = counts,
                                     .run = sets_one};
    CHECK(TD->add(TD_ADD_KERNEL, &kernel));
    TD->scope_push();
    int before = td_threads(0);
    td_tensor *x = td_ones(td_dims(1), TD_F64);
    for (int i = 0; i < 3; i++) CHECK(td_sin(x) != NULL);
    CHECK_INT(1, planned);
    td_threads(1); /* what a plan divides among threads is for a number of them */
    td_sin(x);
    td_threads(3);
    unsigned one = planned;
    td_sin(x);
    CHECK_INT(one + 1, planned);
    td_threads(1);
    td_sin(x);
    CHECK_INT(one + 1, planned); /* the old plan is still there */
    td_threads(before);
    TD->scope_pop(NULL);
}

int main(void)
{
    RUN(errors_chain);
    RUN(promotion_follows_the_table);
    RUN(given_outputs);
    RUN(copies_are_row_major);
    RUN(decompositions_agree);
    RUN(half_by_way_of_f32);
    RUN(results_belong_to_scopes);
    RUN(gradients);
    RUN(long_chains);
    RUN(interruption);
    RUN(plans_are_made_once);
    return check_done();
}

/* test_capture.c - record and replay by the C interface: plans of memory, guards, what is kept and what is let go. A toy backend computes. */
#include "check.h"
#include "program.h"
#include "toy_backend.h"

static const char *taken(void)
{
    const char *msg;
    td_error_take(&msg);
    return msg;
}

static td_tensor *filled(int64_t n, float x) { return td_full(td_dims(n), x, TD_F32); }

static float first(td_tensor *t)
{
    float x[64] = {0};
    CHECK(td_tensor_read(t, x));
    return x[0];
}

/* ---- memory ---- */

static uint32_t state = 12345;
static uint32_t draw(uint32_t n) { return (state = state * 1103515245u + 12345u) / 65536u % n; }

static void buffers_in_use_together_do_not_overlap(void)
{
    for (int round = 0; round < 50; round++) {
        enum { MANY = 120 };
        tdi_buffer b[MANY];
        size_t least = 0;
        for (int i = 0; i < MANY; i++) {
            uint32_t from = draw(200);
            b[i] = (tdi_buffer){from, from + draw(30), (size_t)draw(5000), 0};
        }
        size_t total = tdi_plan_memory(b, MANY);
        bool apart = true, inside = true, aligned = true;
        for (int i = 0; i < MANY; i++) {
            inside &= b[i].at + b[i].bytes <= total;
            aligned &= b[i].at % 64 == 0;
            for (int k = 0; k < i; k++) {
                bool together = b[i].first <= b[k].last && b[k].first <= b[i].last;
                apart &= !together || b[i].at + b[i].bytes <= b[k].at || b[k].at + b[k].bytes <= b[i].at ||
                         !b[i].bytes || !b[k].bytes;
            }
        }
        for (uint32_t t = 0; t < 230; t++) { /* what is in use at one time: no plan needs less */
            size_t now = 0;
            for (int i = 0; i < MANY; i++)
                if (b[i].first <= t && t <= b[i].last) now += (b[i].bytes + 63) / 64 * 64;
            if (now > least) least = now;
        }
        CHECK(apart);
        CHECK(inside);
        CHECK(aligned);
        CHECK(total >= least && (double)total <= 1.25 * (double)least);
    }
    CHECK_INT(0, tdi_plan_memory(NULL, 0));
}

/* ---- calls ---- */

/* One call of a captured  y = (x + w) * 2,  w += x  where `grow`; the way that a front end goes. */
static td_tensor *called(td_capture *c, td_tensor *x, td_tensor *w, bool grow, td_call_mode *mode)
{
    if (!td_capture_call(c, &x, 1, &grow, sizeof grow, mode)) return NULL;
    if (*mode == TD_CALL_REPLAYED) return td_capture_result(c, 0);
    TD->scope_push();
    td_tensor *y = td_mul(td_add(x, w), td_number(2));
    if (grow) td_add_into(w, w, x);
    y = TD->scope_pop(y);
    if (*mode == TD_CALL_RECORD && !td_capture_end(c, &y, 1, "t", 1)) return NULL;
    return y;
}

static void two_equal_calls_are_replayed_from_the_third_on(void)
{
    TD->scope_push();
    td_capture *c = td_capture_new();
    td_tensor *w = filled(4, 10);
    td_call_mode mode;
    for (int i = 1; i <= 6; i++) {
        TD->scope_push();
        td_tensor *x = filled(4, (float)i);
        td_tensor *y = called(c, x, w, false, &mode);
        CHECK_INT(i <= 2 ? TD_CALL_RECORD : TD_CALL_REPLAYED, mode);
        CHECK_NEAR(2 * (i + 10), first(y), 0);
        TD->scope_pop(NULL);
    }
    td_capture_info info;
    td_capture_inform(c, &info);
    CHECK_INT(6, info.calls);
    CHECK_INT(4, info.replays);
    CHECK_INT(1, info.programs);
    CHECK_INT(2, info.kernels);
    CHECK_STR("", info.why);
    char text[200];
    CHECK(td_capture_kernel(c, 0, text, sizeof text));
    CHECK_STR("add f32 (4) (4) -> (4)", text);
    CHECK(!td_capture_kernel(c, 2, text, sizeof text));
    td_capture_free(c);
    TD->scope_pop(NULL);
}

static void another_key_shape_or_mode_is_another_program(void)
{
    TD->scope_push();
    td_capture *c = td_capture_new();
    td_tensor *w = filled(1, 1), *x = filled(4, 1), *longer = filled(8, 1);
    td_call_mode mode;
    for (int i = 0; i < 3; i++) called(c, x, w, false, &mode);
    CHECK_INT(TD_CALL_REPLAYED, mode);
    called(c, longer, w, false, &mode);
    CHECK_INT(TD_CALL_RECORD, mode);
    td_grad_enable(false);
    called(c, x, w, false, &mode);
    CHECK_INT(TD_CALL_RECORD, mode);
    td_grad_enable(true);
    td_mode_changed(7);
    called(c, x, w, false, &mode);
    CHECK_INT(TD_CALL_RECORD, mode);
    td_mode_changed(7); /* and back: the first program fits again */
    called(c, x, w, false, &mode);
    CHECK_INT(TD_CALL_REPLAYED, mode);
    td_capture_free(c);
    TD->scope_pop(NULL);
}

static void memory_goes_when_the_capture_goes(void)
{
    TD->scope_push();
    td_memory_info before, after;
    td_tensor *w = filled(1, 1), *x = filled(1000, 1);
    CHECK(td_memory("cpu", &before));
    td_capture *c = td_capture_new();
    td_call_mode mode;
    for (int i = 0; i < 5; i++) {
        TD->scope_push();
        called(c, x, w, false, &mode);
        TD->scope_pop(NULL);
    }
    CHECK(td_memory("cpu", &after));
    CHECK(after.current > before.current); /* the result's memory, ready for the next call */
    td_capture_free(c);
    CHECK(td_memory("cpu", &after));
    CHECK_INT(before.current, after.current);
    TD->scope_pop(NULL);
}

static void what_it_reads_stays_alive(void)
{
    TD->scope_push();
    td_capture *c = td_capture_new();
    td_tensor *x = filled(4, 1), *w = td_keep(filled(4, 5));
    td_call_mode mode;
    for (int i = 0; i < 3; i++) called(c, x, w, false, &mode);
    td_release(w);
    td_tensor *y = called(c, x, NULL, false, &mode); /* w is looked at by the program alone */
    CHECK_INT(TD_CALL_REPLAYED, mode);
    CHECK_NEAR(12, first(y), 0);
    td_capture_free(c);
    TD->scope_pop(NULL);
}

static void a_failed_call_leaves_nothing_behind(void)
{
    TD->scope_push();
    td_capture *c = td_capture_new();
    td_tensor *x = filled(4, 1), *odd = filled(3, 1);
    td_call_mode mode;
    CHECK(td_capture_call(c, &x, 1, "", 0, &mode));
    CHECK(td_capture_recording());
    CHECK(!td_add(x, odd));
    td_capture_abandon(c);
    CHECK(!td_capture_recording());
    CHECK(strstr(taken(), "add: ") != NULL);
    td_tensor *missing = NULL;
    CHECK(!td_capture_call(c, &missing, 1, "", 0, &mode));
    CHECK_STR("capture: argument 1: expected a tensor with memory, got nothing", taken());
    CHECK(td_capture_call(c, &x, 1, "", 0, &mode)); /* freed in mid-recording */
    td_add(x, x);
    td_capture_free(c);
    CHECK(!td_capture_recording());
    TD->scope_pop(NULL);
}

static void reading_while_recording_is_refused(void)
{
    TD->scope_push();
    td_capture *c = td_capture_new();
    td_tensor *x = filled(1, 1);
    td_call_mode mode;
    float value;
    CHECK(td_capture_call(c, &x, 1, "", 0, &mode));
    CHECK(!TD->item(x, TD_F32, &value));
    CHECK(strstr(taken(), "inside a captured function") != NULL);
    CHECK(td_tensor_host(x) == NULL);
    taken();
    float two = 2;
    td_tensor *made = td_from_data(TD_F32, td_dims(1), &two); /* of this call: no kernel has seen it */
    CHECK(TD->item(made, TD_F32, &value));
    CHECK_NEAR(2, value, 0);
    td_capture_abandon(c);
    td_capture_free(c);
    TD->scope_pop(NULL);
}

static bool run_halved(const td_kargs *a)
{
    for (int64_t i = 0; i < td_view_numel(a->out[0]); i++) toy_set(a->out[0], i, toy_get(a->in[0], i) / 2);
    return true;
}
static const td_op halved = {
    .size = sizeof halved, .name = "test.halved", .doc = "x / 2", .in = "x", .out = "y", .flags = TD_OP_PRIM};
static const td_kernel halved_kernel = {
    .size = sizeof halved_kernel, .op = "test.halved", .device = "cpu", .dtypes = TD_BIT(TD_F32), .run = run_halved};

static void a_kernel_that_cannot_be_replayed_is_run_each_time(void)
{
    TD->scope_push();
    td_capture *c = td_capture_new();
    td_tensor *x = filled(4, 6);
    uint32_t id = TD->op_id("test.halved");
    for (int i = 0; i < 3; i++) {
        td_call_mode mode;
        td_tensor *y = NULL;
        uint32_t n = 1;
        CHECK(td_capture_call(c, &x, 1, "", 0, &mode));
        CHECK_INT(TD_CALL_RECORD, mode);
        CHECK(TD->call(id, &x, 1, NULL, &y, &n));
        CHECK(td_capture_end(c, &y, 1, "t", 1));
        CHECK_NEAR(3, first(y), 0);
    }
    td_capture_info info;
    td_capture_inform(c, &info);
    CHECK_STR("the kernel of test.halved on cpu does not say that it can be replayed (TD_K_CAPTURABLE)", info.why);
    td_capture_free(c);
    TD->scope_pop(NULL);
}

static void written_tensors_have_new_versions(void)
{
    TD->scope_push();
    td_capture *c = td_capture_new();
    td_tensor *x = filled(4, 1), *w = filled(4, 0);
    td_call_mode mode;
    for (int i = 1; i <= 5; i++) {
        uint32_t version = td_tensor_version(w);
        called(c, x, w, true, &mode);
        CHECK(td_tensor_version(w) > version);
        CHECK_NEAR(i, first(w), 0);
    }
    CHECK_INT(TD_CALL_REPLAYED, mode);
    td_capture_free(c);
    TD->scope_pop(NULL);
}

/* y = 2 x, half = x / 2; y once more from half. */
static int runs, agains;
static bool run_both(const td_kargs *a)
{
    runs++;
    for (int64_t i = 0; i < td_view_numel(a->out[0]); i++) {
        toy_set(a->out[0], i, toy_get(a->in[0], i) * 2);
        toy_set(a->out[1], i, toy_get(a->in[0], i) / 2);
    }
    return true;
}
static bool run_again(const td_kargs *a)
{
    agains += a->in[0] == NULL && a->n_in == 1 && a->n_out == 2;
    for (int64_t i = 0; i < td_view_numel(a->out[0]); i++) toy_set(a->out[0], i, toy_get(a->out[1], i) * 4);
    return true;
}
static int64_t reads_nothing(const td_kargs *a) { return a->in[0] && td_view_numel(a->out[1]) ? 0 : -1; }
static const td_op both = {
    .size = sizeof both, .name = "test.both", .doc = "2 x, and x / 2", .in = "x", .out = "y half", .flags = TD_OP_PRIM};
static const td_kernel both_kernel = {.size = sizeof both_kernel,
                                      .op = "test.both",
                                      .device = "cpu",
                                      .dtypes = TD_BIT(TD_F32),
                                      .flags = TD_K_CAPTURABLE | TD_K_DETERMINISTIC,
                                      .run = run_both,
                                      .again = run_again,
                                      .again_reads = reads_nothing};

enum { MANY_NUMBERS = 8192 };
static float first_of_many(td_tensor *t)
{
    static float x[MANY_NUMBERS];
    CHECK(td_tensor_read(t, x));
    return x[0];
}

/* y and half are read at the beginning and at the end; in between more memory is in use than anywhere else. */
static void call_both(td_capture *c, td_tensor *x, td_call_mode *mode)
{
    td_tensor *out[2];
    uint32_t n = 2;
    CHECK(td_capture_call(c, &x, 1, "", 0, mode));
    if (*mode == TD_CALL_REPLAYED) {
        CHECK_NEAR(2 + 4 + 15 * 16 + 0.5, first_of_many(td_capture_result(c, 0)), 0);
        return;
    }
    TD->scope_push();
    CHECK(TD->call(TD->op_id("test.both"), &x, 1, NULL, out, &n));
    td_tensor *a = td_mul(out[0], out[0]), *p = td_mul(a, a), *r = td_add(a, p);
    for (int i = 0; i < 14; i++) r = td_add(r, p);
    r = TD->scope_pop(td_add(td_add(r, out[0]), out[1]));
    CHECK(td_capture_end(c, &r, 1, "t", 1));
    CHECK_NEAR(2 + 4 + 15 * 16 + 0.5, first_of_many(r), 0);
}

static void an_output_is_computed_again_from_the_others(void)
{
    enum { N = MANY_NUMBERS };
    td_capture_info info[2];
    for (int again = 0; again < 2; again++) {
        TD->scope_push();
        td_capture *c = td_capture_new();
        td_capture_recompute(c, again);
        td_tensor *x = filled(N, 1);
        td_call_mode mode;
        for (int i = 0; i < 4; i++) {
            runs = agains = 0;
            call_both(c, x, &mode);
        }
        CHECK_INT(TD_CALL_REPLAYED, mode);
        CHECK_INT(1, runs);
        CHECK_INT(again, agains);
        td_capture_inform(c, &info[again]);
        CHECK_INT(again, info[again].recomputed);
        td_capture_free(c);
        TD->scope_pop(NULL);
    }
    CHECK_INT(0, info[0].saved_bytes);
    CHECK_INT(N * 4, info[1].saved_bytes);
    CHECK_INT(info[0].buffer_bytes - N * 4, info[1].buffer_bytes);
}

int main(void)
{
    TD->scope_push();
    CHECK(toy_register() && td_add_op(&halved) && td_add_kernel(&halved_kernel));
    CHECK(td_add_op(&both) && td_add_kernel(&both_kernel));
    RUN(buffers_in_use_together_do_not_overlap);
    RUN(two_equal_calls_are_replayed_from_the_third_on);
    RUN(another_key_shape_or_mode_is_another_program);
    RUN(memory_goes_when_the_capture_goes);
    RUN(what_it_reads_stays_alive);
    RUN(a_failed_call_leaves_nothing_behind);
    RUN(reading_while_recording_is_refused);
    RUN(a_kernel_that_cannot_be_replayed_is_run_each_time);
    RUN(written_tensors_have_new_versions);
    RUN(an_output_is_computed_again_from_the_others);
    return check_done();
}

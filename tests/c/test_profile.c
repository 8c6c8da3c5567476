/* test_profile.c - the profile from C: rows, directions, and a device whose kernels are waited for. */
#include "check.h"
#include "dispatch.h"
#include "profile.h"
#include "toy_device.h"

typedef struct {
    unsigned rows;
    uint64_t adds, backward_adds, bytes;
    double kernel;
} seen;

static void look(void *arg, const td_profile_row *r)
{
    seen *s = arg;
    s->rows++;
    if (!strcmp(r->op, "add")) *(r->backward ? &s->backward_adds : &s->adds) += r->calls;
    s->bytes += r->bytes;
    s->kernel += r->kernel;
}

static bool refused(const char *text)
{
    const char *msg = "";
    td_status status = td_error_take(&msg);
    return status != TD_OK && strstr(msg, text);
}

static void rows_are_shown(void)
{
    seen s = {0};
    td_profile_total total;
    TD->scope_push();
    td_tensor *x = td_ones(td_dims(5), TD_F32);
    CHECK(td_profile_start(false));
    CHECK(td_add(td_add(x, x), x) != NULL);
    CHECK(td_profile_stop(NULL, look, &s, &total));
    CHECK(td_add(x, x) != NULL); /* is not noted */
    TD->scope_pop(NULL);
    CHECK_INT(1, s.rows);
    CHECK_INT(2, s.adds);
    CHECK_INT(0, s.backward_adds);
    CHECK_INT(2 * 3 * 5 * 4, s.bytes);
    CHECK(s.kernel > 0 && total.total >= s.kernel && total.outside > 0 && total.lost == 0);
}

static void starts_and_stops_pair(void)
{
    CHECK(!td_profile_stop(NULL, NULL, NULL, NULL));
    CHECK(refused("none is being taken"));
    CHECK(td_profile_start(true));
    CHECK(!td_profile_start(true));
    CHECK(refused("one is being taken already"));
    CHECK(!td_profile_stop("/no/such/directory/trace.json", NULL, NULL, NULL));
    CHECK(refused("/no/such/directory/trace.json"));
    CHECK(td_profile_start(false)); /* the one before has ended all the same */
    CHECK(td_profile_stop(NULL, NULL, NULL, NULL));
}

static bool does_nothing(const td_kargs *a)
{
    (void)a;
    return true;
}

static void asynchronous_devices_are_waited_for(void)
{
    static const td_kernel kernel = {.size = sizeof kernel, .op = "add", .device = "toy", .run = does_nothing};
    td_device *d = toy_open(0, 0, true);
    tdi_op *add = tdi_op_find("add");
    seen s = {0};
    CHECK(td_profile_start(false));
    tdi_profile *p = tdi_ctx()->profile;
    tdi_profile_enter(p, add, false);
    CHECK(tdi_profile_kernel(p, add, kernel.run, &(td_kargs){0}, d));
    CHECK_INT(0, toy.syncs);
    d->async = true;
    tdi_profile_enter(p, NULL, true);
    tdi_profile_enter(p, add, true);
    CHECK(tdi_profile_kernel(p, add, kernel.run, &(td_kargs){0}, d));
    CHECK_INT(1, toy.syncs);
    CHECK(!td_profile_stop(NULL, NULL, NULL, NULL));
    CHECK(refused("within an op"));
    for (int i = 0; i < 3; i++) tdi_profile_leave(p);
    tdi_profile_leave(p); /* one too many does nothing */
    CHECK(td_profile_stop(NULL, look, &s, NULL));
    CHECK_INT(1, s.adds);
    CHECK_INT(1, s.backward_adds);
    toy_close(d);
}

int main(void)
{
    RUN(rows_are_shown);
    RUN(starts_and_stops_pair);
    RUN(asynchronous_devices_are_waited_for);
    return check_done();
}

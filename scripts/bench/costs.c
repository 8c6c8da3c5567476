/* costs.c - what an op costs in the core alone, without Lua, for scripts/bench/run.sh: lines of "NAME - NANOSECONDS ns", each the
 * median of several runs. Tensors of one element, so that almost nothing but the core's own work is measured. */
#include <stdio.h>
#include <stdlib.h>
#include <tide/tide.h>
#include <time.h>

const td_host *TD;

enum { RUNS = 11, CALLS = 50000 };

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static bool measure(const char *name, td_tensor *x, td_tensor *y)
{
    double time[RUNS];
    for (int r = 0; r < RUNS; r++) {
        double t0 = now();
        for (int i = 0; i < CALLS; i++) {
            TD->scope_push();
            td_add(x, y);
            TD->scope_pop(NULL);
        }
        time[r] = (now() - t0) / CALLS;
    }
    const char *message;
    if (td_error_take(&message) != TD_OK) {
        fprintf(stderr, "costs: %s\n", message);
        return false;
    }
    qsort(time, RUNS, sizeof *time, by_value);
    printf("%s - %.1f ns\n", name, 1e9 * time[RUNS / 2]);
    return true;
}

int main(void)
{
    TD = td_host_get();
    td_ints one = td_dims(1);
    td_tensor *x = td_ones(one, TD_F32), *y = td_ones(one, TD_F32), *w = td_ones(one, TD_F32);
    return !x || !y || !w || !td_require_grad(w, true) || !measure("add_in_the_core", x, y) ||
           !measure("add_in_the_core_recorded", w, y);
}

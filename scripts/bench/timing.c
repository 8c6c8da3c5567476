/* timing.c - how the programs of the benchmark that are in C take the time, and what they compute with. */
#include "limits.h"
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

double best_time(void (*f)(void *), void *arg, double seconds)
{
    f(arg); /* plans, pages, caches */
    double best = 1e30, end = now() + seconds;
    do {
        int n = 0;
        double t0 = now(), t1;
        do {
            f(arg);
            n++;
            t1 = now();
        } while (t1 - t0 < seconds / 10);
        if ((t1 - t0) / n < best) best = (t1 - t0) / n;
    } while (now() < end);
    return best;
}

float *numbers(size_t n)
{
    float *p = aligned_alloc(64, (n * sizeof *p + 63) / 64 * 64);
    if (!p) {
        fputs("out of memory\n", stderr);
        exit(1);
    }
#pragma omp parallel for
    for (size_t i = 0; i < n; i++) p[i] = (float)(i % 17) / 17 - 0.5f;
    return p;
}

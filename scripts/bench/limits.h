/* limits.h - shared by limits.c, limits_onednn.c, ops_onednn.c and timing.c. */
#ifndef TIDE_BENCH_LIMITS_H
#define TIDE_BENCH_LIMITS_H
#include <stdbool.h>
#include <stddef.h>

/** The least time of one call of f(arg), in seconds. */
double best_time(void (*f)(void *), void *arg, double seconds);
/** n numbers between -0.5 and 0.5. Ends the program where there is no memory. */
float *numbers(size_t n);

/** Whether oneDNN was there when this was built. */
bool have_onednn(void);
/** c = a b by oneDNN's own sgemm, row-major: a (m, k), b (k, n). */
void onednn_sgemm(int m, int n, int k, const float *a, const float *b, float *c);
/** Prints the rates of 3x3 convolutions, forward and both backward passes, in the layouts that oneDNN chooses. */
void onednn_convolutions(double seconds);

#endif

/* softmax.c - softmax and log_softmax along one axis, f32. A tensor is (outer, d, inner), d the axis: rows of d where inner is
 * 1, else columns, SOFTMAX_COLUMNS at a time. */
#include "softmax.h"

static bool along(const td_kargs *a, int64_t axis, bool take_log)
{
    const td_view *x = a->in[0];
    int64_t outer = 1, inner = 1;
    if (axis < 0) axis += x->nd;
    for (int32_t i = 0; i < x->nd; i++) {
        if (i < axis) outer *= x->dim[i];
        if (i > axis) inner *= x->dim[i];
    }
    int64_t d = x->dim[axis], blocks = (inner + SOFTMAX_COLUMNS - 1) / SOFTMAX_COLUMNS;
    const float *from = x->p;
    float *to = a->out[0]->p;
#pragma omp parallel for if (outer * d * inner > TD_PAR_MIN / 4)
    for (int64_t t = 0; t < outer * blocks; t++) {
        int64_t at = t / blocks * d * inner, c = t % blocks * SOFTMAX_COLUMNS;
        int64_t n = inner - c < SOFTMAX_COLUMNS ? inner - c : SOFTMAX_COLUMNS;
        if (inner > 1) softmax_columns(to + at + c, from + at + c, d, inner, n, take_log);
        else if (take_log) log_softmax_row(to + at, from + at, d);
        else softmax_row(to + at, from + at, d);
    }
    return true;
}

static bool run_softmax(const td_kargs *a) { return along(a, ((const td_softmax_attr *)a->attr)->axis, false); }
static bool run_log_softmax(const td_kargs *a) { return along(a, ((const td_log_softmax_attr *)a->attr)->axis, true); }

static const td_kernel rows[] = {
    CPU_KERNEL("softmax", TD_BIT(TD_F32), 0, run_softmax),
    CPU_KERNEL("log_softmax", TD_BIT(TD_F32), 0, run_log_softmax),
};
CPU_TABLE(softmax, rows)

/* arg_reduce.c - the greatest or least element along one axis, and where it is: argmax, argmin, max, min.
 * The first of equals; a NaN wins, the first of several.    x (outer, n, inner) contiguous -> (outer, inner) */
#include "strided.h"
#include <string.h>

enum { BLOCK = 256 };

typedef struct {
    int64_t outer, n, inner;
} extents;

/* a line at x, outer by outer; values may be NULL */
typedef void search_fn(const void *x, void *values, int64_t *index, extents e, int64_t from, int64_t to);

/* Takes v over m: it is better, or the first NaN. Comparisons with a NaN are false. */
#define TAKES(v, m, better) ((v)better(m) || ((v) != (v) && (m) == (m)))

/* from .. to count lines where inner is 1, else blocks of columns. */
#define SEARCH(name, T, better)                                                                       \
    static int64_t name##_line(const T *x, int64_t n, T *value)                                       \
    {                                                                                                 \
        T m = x[0];                                                                                   \
        int64_t at = 0;                                                                               \
        for (int64_t from = 0; from < n; from += BLOCK) {                                             \
            const int64_t to = n - from < BLOCK ? n : from + BLOCK;                                   \
            int found = n < 32; /* does the block hold anything better? short lines: just look */     \
            if (!found) {                                                                             \
                _Pragma("omp simd reduction(| : found)")                                              \
                for (int64_t i = from; i < to; i++) found |= x[i] better m || x[i] != x[i];           \
            }                                                                                         \
            if (!found) continue;                                                                     \
            for (int64_t i = from; i < to; i++) {                                                     \
                const T v = x[i];                                                                     \
                if (!TAKES(v, m, better)) continue;                                                   \
                m = v;                                                                                \
                at = i;                                                                               \
            }                                                                                         \
        }                                                                                             \
        *value = m;                                                                                   \
        return at;                                                                                    \
    }                                                                                                 \
    static void name##_columns(const T *x, T *values, int64_t *index, int64_t n, int64_t inner, int64_t w) \
    {                                                                                                 \
        T m[BLOCK];                                                                                   \
        int64_t at[BLOCK];                                                                            \
        memcpy(m, x, (size_t)w * sizeof(T));                                                          \
        memset(at, 0, (size_t)w * sizeof *at);                                                        \
        for (int64_t j = 1; j < n; j++) {                                                             \
            const T *row = x + j * inner;                                                             \
            _Pragma("omp simd")                                                                       \
            for (int64_t c = 0; c < w; c++) {                                                         \
                const T v = row[c];                                                                   \
                const bool takes = TAKES(v, m[c], better);                                            \
                m[c] = takes ? v : m[c];                                                              \
                at[c] = takes ? j : at[c];                                                            \
            }                                                                                         \
        }                                                                                             \
        memcpy(index, at, (size_t)w * sizeof *at);                                                    \
        if (values) memcpy(values, m, (size_t)w * sizeof(T));                                         \
    }                                                                                                 \
    static void name(const void *px, void *pv, int64_t *index, extents e, int64_t from, int64_t to)   \
    {                                                                                                 \
        const T *x = px;                                                                              \
        T *values = pv, m;                                                                            \
        if (e.inner == 1) {                                                                           \
            for (int64_t r = from; r < to; r++) {                                                     \
                index[r] = name##_line(x + r * e.n, e.n, &m);                                         \
                if (values) values[r] = m;                                                            \
            }                                                                                         \
            return;                                                                                   \
        }                                                                                             \
        const int64_t blocks = (e.inner + BLOCK - 1) / BLOCK;                                         \
        for (int64_t b = from; b < to; b++) {                                                         \
            const int64_t o = b / blocks, c = b % blocks * BLOCK;                                     \
            const int64_t w = e.inner - c < BLOCK ? e.inner - c : BLOCK, y = o * e.inner + c;         \
            name##_columns(x + o * e.n * e.inner + c, values ? values + y : NULL, index + y, e.n, e.inner, w); \
        }                                                                                             \
    }
SEARCH(greatest_f32, float, >)
SEARCH(greatest_f64, double, >)
SEARCH(greatest_i64, int64_t, >)
SEARCH(greatest_i32, int32_t, >)
SEARCH(greatest_u8, uint8_t, >)
SEARCH(least_f32, float, <)
SEARCH(least_f64, double, <)
SEARCH(least_i64, int64_t, <)
SEARCH(least_i32, int32_t, <)
SEARCH(least_u8, uint8_t, <)

static search_fn *const greatest[TD_N_DTYPES] = {
    [TD_F32] = greatest_f32, [TD_F64] = greatest_f64, [TD_I64] = greatest_i64,
    [TD_I32] = greatest_i32, [TD_U8] = greatest_u8,   [TD_BOOL] = greatest_u8,
};
static search_fn *const least[TD_N_DTYPES] = {
    [TD_F32] = least_f32, [TD_F64] = least_f64, [TD_I64] = least_i64,
    [TD_I32] = least_i32, [TD_U8] = least_u8,   [TD_BOOL] = least_u8,
};

/* An axis of x, or all of them as one. */
static extents split(const td_view *x, bool one, int64_t axis)
{
    extents e = {1, 1, 1};
    if (!one || x->nd == 0) {
        e.n = td_view_numel(x);
        return e;
    }
    if (axis < 0) axis += x->nd;
    for (int i = 0; i < x->nd; i++) *(i < axis ? &e.outer : i == axis ? &e.n : &e.inner) *= x->dim[i];
    return e;
}

static bool search(const char *op, const td_view *x, extents e, search_fn *const *fns, void *values, int64_t *index)
{
    if (e.n == 0) return td_fail("%s: expected at least one element to choose from, got an empty axis", op);
    search_fn *fn = fns[x->dt];
    int64_t units = e.inner == 1 ? e.outer : e.outer * ((e.inner + BLOCK - 1) / BLOCK);
    int threads = st_threads(e.outer * e.n * e.inner);
#pragma omp parallel for num_threads(threads) schedule(static) if (threads > 1)
    for (int t = 0; t < threads; t++) fn(x->p, values, index, e, units * t / threads, units * (t + 1) / threads);
    return true;
}

static bool run_argmax(const td_kargs *k)
{
    const td_argmax_attr *a = k->attr;
    return search("argmax", k->in[0], split(k->in[0], a->has_axis, a->axis), greatest, NULL, k->out[0]->p);
}

static bool run_argmin(const td_kargs *k)
{
    const td_argmin_attr *a = k->attr;
    return search("argmin", k->in[0], split(k->in[0], a->has_axis, a->axis), least, NULL, k->out[0]->p);
}

static bool run_max(const td_kargs *k)
{
    const td_max_attr *a = k->attr;
    return search("max", k->in[0], split(k->in[0], true, a->axis), greatest, k->out[0]->p, k->out[1]->p);
}

static bool run_min(const td_kargs *k)
{
    const td_min_attr *a = k->attr;
    return search("min", k->in[0], split(k->in[0], true, a->axis), least, k->out[0]->p, k->out[1]->p);
}

static const td_kernel rows[] = {
    CPU_KERNEL("argmax", TD_BITS_ALL, 0, run_argmax),
    CPU_KERNEL("argmin", TD_BITS_ALL, 0, run_argmin),
    CPU_KERNEL("max", TD_BITS_ALL, 0, run_max),
    CPU_KERNEL("min", TD_BITS_ALL, 0, run_min),
};
CPU_TABLE(arg_reduce, rows)

/* arg_reduce.c - the greatest or least element along one axis, and where it is: argmax, argmin, max, min.
 * The first of equals; a NaN wins, the first of several.    x (outer, n, inner) contiguous -> (outer, inner) */
#include "strided.h"
#include <string.h>

enum { BLOCK = 256 };

typedef struct {
    int64_t outer, n, inner;
} extents;

/* Searches lines or blocks of columns; values may be NULL. */
typedef void search_fn(const void *x, void *values, int64_t *index, extents e, int64_t from, int64_t to);

#define PRAGMA(text) _Pragma(#text)

/* Takes v over m: it is better, or the first NaN. Comparisons with a NaN are false. */
#define TAKES(v, m, better) ((v)better(m) || ((v) != (v) && (m) == (m)))

/* from .. to count lines where inner is 1, else blocks of columns. A long line: first the greatest or least and
 * whether there is a NaN, then the first place of either; both passes vectorise. */
#define SEARCH(name, T, op, better)                                                                            \
    static int64_t name##_line(const T *x, int64_t n, T *value)                                                \
    {                                                                                                          \
        T m = x[0];                                                                                            \
        int64_t at = 0;                                                                                        \
        if (n < 32) {                                                                                          \
            for (int64_t i = 1; i < n; i++) {                                                                  \
                const bool takes = TAKES(x[i], m, better);                                                     \
                m = takes ? x[i] : m;                                                                          \
                at = takes ? i : at;                                                                           \
            }                                                                                                  \
            *value = m;                                                                                        \
            return at;                                                                                         \
        }                                                                                                      \
        int nan = 0, here = 0;                                                                                 \
        PRAGMA(omp simd reduction(op : m) reduction(| : nan))                                                  \
        for (int64_t i = 0; i < n; i++) {                                                                      \
            m = x[i] better m ? x[i] : m;                                                                      \
            nan |= x[i] != x[i];                                                                               \
        }                                                                                                      \
        for (; !here && at < n; at += BLOCK) {                                                                 \
            const int64_t w = n - at < BLOCK ? n - at : BLOCK;                                                 \
            PRAGMA(omp simd reduction(| : here))                                                               \
            for (int64_t i = 0; i < w; i++) here |= nan ? x[at + i] != x[at + i] : x[at + i] == m;             \
        }                                                                                                      \
        for (at -= BLOCK; nan ? x[at] == x[at] : x[at] != m; at++) continue;                                   \
        *value = x[at];                                                                                        \
        return at;                                                                                             \
    }                                                                                                          \
    static void name##_columns(const T *x, T *values, int64_t *index, int64_t n, int64_t inner, int64_t w)     \
    {                                                                                                          \
        T m[BLOCK];                                                                                            \
        int64_t at[BLOCK];                                                                                     \
        memcpy(m, x, (size_t)w * sizeof(T));                                                                   \
        memset(at, 0, (size_t)w * sizeof *at);                                                                 \
        for (int64_t j = 1; j < n; j++) {                                                                      \
            const T *row = x + j * inner;                                                                      \
            _Pragma("omp simd") for (int64_t c = 0; c < w; c++)                                                \
            {                                                                                                  \
                const T v = row[c];                                                                            \
                const bool takes = TAKES(v, m[c], better);                                                     \
                m[c] = takes ? v : m[c];                                                                       \
                at[c] = takes ? j : at[c];                                                                     \
            }                                                                                                  \
        }                                                                                                      \
        memcpy(index, at, (size_t)w * sizeof *at);                                                             \
        if (values) memcpy(values, m, (size_t)w * sizeof(T));                                                  \
    }                                                                                                          \
    static void name(const void *px, void *pv, int64_t *index, extents e, int64_t from, int64_t to)            \
    {                                                                                                          \
        const T *x = px;                                                                                       \
        T *values = pv, m;                                                                                     \
        if (e.inner == 1) {                                                                                    \
            for (int64_t r = from; r < to; r++) {                                                              \
                index[r] = name##_line(x + r * e.n, e.n, &m);                                                  \
                if (values) values[r] = m;                                                                     \
            }                                                                                                  \
            return;                                                                                            \
        }                                                                                                      \
        const int64_t blocks = (e.inner + BLOCK - 1) / BLOCK;                                                  \
        for (int64_t b = from; b < to; b++) {                                                                  \
            const int64_t o = b / blocks, c = b % blocks * BLOCK;                                              \
            const int64_t w = e.inner - c < BLOCK ? e.inner - c : BLOCK, y = o * e.inner + c;                  \
            name##_columns(x + o * e.n * e.inner + c, values ? values + y : NULL, index + y, e.n, e.inner, w); \
        }                                                                                                      \
    }
SEARCH(greatest_f32, float, max, >)
SEARCH(greatest_f64, double, max, >)
SEARCH(greatest_i64, int64_t, max, >)
SEARCH(greatest_i32, int32_t, max, >)
SEARCH(greatest_u8, uint8_t, max, >)
SEARCH(least_f32, float, min, <)
SEARCH(least_f64, double, min, <)
SEARCH(least_i64, int64_t, min, <)
SEARCH(least_i32, int32_t, min, <)
SEARCH(least_u8, uint8_t, min, <)

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

typedef struct {
    search_fn *fn;
    const void *x;
    void *values;
    int64_t *index;
    extents e;
} searching;

static void search_range(void *ctx, int64_t from, int64_t to)
{
    const searching *s = ctx;
    s->fn(s->x, s->values, s->index, s->e, from, to);
}

static bool search(const char *op, const td_view *x, extents e, search_fn *const *fns, void *values, int64_t *index)
{
    if (e.n == 0) return td_fail("%s: expected at least one element to choose from, got an empty axis", op);
    searching s = {fns[x->dt], x->p, values, index, e};
    int64_t units = e.inner == 1 ? e.outer : e.outer * ((e.inner + BLOCK - 1) / BLOCK);
    st_share(st_threads(e.outer * e.n * e.inner, ST_MOVE), units, search_range, &s);
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

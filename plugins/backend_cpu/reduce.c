/* reduce.c - sum, mean, prod, amax, amin, any, all over any axes. f32 sums run through short f32 partial sums into
 * f64, so that they agree with an f64 sum to a few 1e-7 of the sum of magnitudes. Integer sums and products wrap
 * around. */
#include "loops.h"
#include "reduce.h"
#include "vec.h"

/* ---- sums of f32: four vectors of sums of at most 16 elements a lane, which then go to f64 lanes ---- */

enum { RUN_OF_ADDS = 16 };

static double sum_f32(const float *x, int64_t n)
{
    double lanes[VEC_F32] = {0}, s = 0;
    while (n >= 4 * VEC_F32) {
        vec_f32 a = {0}, b = {0}, c = {0}, d = {0};
        int64_t runs = n / (4 * VEC_F32) < RUN_OF_ADDS ? n / (4 * VEC_F32) : RUN_OF_ADDS;
        for (int64_t i = 0; i < runs; i++, x += 4 * VEC_F32) {
            a += *(const vec_f32 *)x;
            b += *(const vec_f32 *)(x + VEC_F32);
            c += *(const vec_f32 *)(x + 2 * VEC_F32);
            d += *(const vec_f32 *)(x + 3 * VEC_F32);
        }
        a = (a + b) + (c + d);
        for (int l = 0; l < VEC_F32; l++) lanes[l] += (double)a[l];
        n -= runs * 4 * VEC_F32;
    }
    float rest = 0;
#pragma omp simd reduction(+ : rest)
    for (int64_t i = 0; i < n; i++) rest += x[i];
#pragma omp simd reduction(+ : s)
    for (int l = 0; l < VEC_F32; l++) s += lanes[l];
    return s + (double)rest;
}

static void sum_line_f32(rd_acc *acc, const char *p, td_dtype dt, int64_t step, int64_t n)
{
    double s = 0;
    (void)dt;
    if (step != sizeof(float)) {
        for (int64_t i = 0; i < n; i++) s += (double)*(const float *)(p + i * step);
    } else if (n < 4 * VEC_F32) {
        const float *x = (const float *)p;
        float few = 0;
#pragma omp simd reduction(+ : few)
        for (int64_t i = 0; i < n; i++) few += x[i];
        s = (double)few;
    } else {
        s = sum_f32((const float *)p, n);
    }
    acc->d += s;
}

static void sum_rows_f32(rd_acc *acc, const char *p, td_dtype dt, int64_t row, int64_t rows, int64_t step, int64_t n)
{
    (void)dt;
    for (; rows >= 8 && step == sizeof(float); rows -= 8, p += 8 * row) {
        const float *a = (const float *)p, *b = (const float *)(p + row), *c = (const float *)(p + 2 * row);
        const float *d = (const float *)(p + 3 * row), *e = (const float *)(p + 4 * row);
        const float *f = (const float *)(p + 5 * row), *g = (const float *)(p + 6 * row);
        const float *h = (const float *)(p + 7 * row);
#pragma omp simd
        for (int64_t i = 0; i < n; i++)
            acc[i].d += (double)(((a[i] + b[i]) + (c[i] + d[i])) + ((e[i] + f[i]) + (g[i] + h[i])));
    }
    for (; rows > 0; rows--, p += row) {
        if (step == sizeof(float)) {
            const float *x = (const float *)p;
#pragma omp simd
            for (int64_t i = 0; i < n; i++) acc[i].d += (double)x[i];
        } else {
            for (int64_t i = 0; i < n; i++) acc[i].d += (double)*(const float *)(p + i * step);
        }
    }
}

static void sum_line_f64(rd_acc *acc, const char *p, td_dtype dt, int64_t step, int64_t n)
{
    double a = 0, b = 0, c = 0, d = 0;
    (void)dt;
    if (step == sizeof(double)) {
        const double *x = (const double *)p;
        int64_t q = n / 4;
#pragma omp simd reduction(+ : a, b, c, d)
        for (int64_t i = 0; i < q; i++) {
            a += x[i];
            b += x[i + q];
            c += x[i + 2 * q];
            d += x[i + 3 * q];
        }
        for (int64_t i = 4 * q; i < n; i++) a += x[i];
    } else {
        for (int64_t i = 0; i < n; i++) a += *(const double *)(p + i * step);
    }
    acc->d += (a + b) + (c + d);
}

/* ---- the other folds: a line into one number, rows into several ---- */

#define PRAGMA(text) _Pragma(#text)
/* A: type of the accumulator m and of the element v; how: m folded with v; op: OpenMP's name for that */
#define FOLD_LINE(name, T, A, field, op, how)                                          \
    static void name(rd_acc *acc, const char *p, td_dtype dt, int64_t step, int64_t n) \
    {                                                                                  \
        A m = acc->field;                                                              \
        (void)dt;                                                                      \
        if (step == (int64_t)sizeof(T)) {                                              \
            const T *x = (const T *)p;                                                 \
            PRAGMA(omp simd reduction(op : m))                                         \
            for (int64_t i = 0; i < n; i++) {                                          \
                const A v = (A)x[i];                                                   \
                m = how;                                                               \
            }                                                                          \
        } else {                                                                       \
            for (int64_t i = 0; i < n; i++) {                                          \
                const A v = (A) * (const T *)(p + i * step);                           \
                m = how;                                                               \
            }                                                                          \
        }                                                                              \
        acc->field = m;                                                                \
    }

#define FOLD_ROWS(name, T, A, field, how)                                                                         \
    static void name(rd_acc *acc, const char *p, td_dtype dt, int64_t row, int64_t rows, int64_t step, int64_t n) \
    {                                                                                                             \
        (void)dt;                                                                                                 \
        for (; rows > 0; rows--, p += row) {                                                                      \
            if (step == (int64_t)sizeof(T)) {                                                                     \
                const T *x = (const T *)p;                                                                        \
                ST_SIMD                                                                                           \
                for (int64_t i = 0; i < n; i++) {                                                                 \
                    const A v = (A)x[i], m = acc[i].field;                                                        \
                    acc[i].field = how;                                                                           \
                }                                                                                                 \
            } else {                                                                                              \
                for (int64_t i = 0; i < n; i++) {                                                                 \
                    const A v = (A) * (const T *)(p + i * step), m = acc[i].field;                                \
                    acc[i].field = how;                                                                           \
                }                                                                                                 \
            }                                                                                                     \
        }                                                                                                         \
    }

#define GREATER (v > m ? v : m)
#define LESSER (v < m ? v : m)

#define FOLD_INTS(op, sign, A, field, how)                 \
    FOLD_LINE(op##_line_i64, int64_t, A, field, sign, how) \
    FOLD_LINE(op##_line_i32, int32_t, A, field, sign, how) \
    FOLD_LINE(op##_line_u8, uint8_t, A, field, sign, how)  \
    FOLD_ROWS(op##_rows_i64, int64_t, A, field, how)       \
    FOLD_ROWS(op##_rows_i32, int32_t, A, field, how)       \
    FOLD_ROWS(op##_rows_u8, uint8_t, A, field, how)

FOLD_INTS(sum, +, uint64_t, u, m + v)
FOLD_INTS(prod, *, uint64_t, u, m *v)
FOLD_INTS(amax, max, int64_t, i, GREATER)
FOLD_INTS(amin, min, int64_t, i, LESSER)
FOLD_ROWS(sum_rows_f64, double, double, d, m + v)
FOLD_LINE(prod_line_f32, float, double, d, *, m *v)
FOLD_LINE(prod_line_f64, double, double, d, *, m *v)
FOLD_ROWS(prod_rows_f32, float, double, d, m *v)
FOLD_ROWS(prod_rows_f64, double, double, d, m *v)

/* v or m; a NaN on either side stays. */
#define PICK(name, T, sign) \
    ST_ALWAYS T name(T v, T m) { return ((v sign m) | (v != v)) ? v : m; }
PICK(greater_f32, float, >)
PICK(greater_f64, double, >)
PICK(lesser_f32, float, <)
PICK(lesser_f64, double, <)

/* Up to 16 rows in their own type, then one step into the accumulators; n <= RD_BLOCK. */
#define EXTREME_ROWS(name, T, pick, pick_f64)                                                                     \
    static void name(rd_acc *acc, const char *p, td_dtype dt, int64_t row, int64_t rows, int64_t step, int64_t n) \
    {                                                                                                             \
        T t[RD_BLOCK];                                                                                            \
        (void)dt;                                                                                                 \
        while (rows > 0) {                                                                                        \
            int64_t run = rows < 16 ? rows : 16;                                                                  \
            for (int64_t i = 0; i < n; i++) t[i] = *(const T *)(p + i * step);                                    \
            for (int64_t r = 1; r < run; r++) {                                                                   \
                const char *q = p + r * row;                                                                      \
                if (step == (int64_t)sizeof(T)) {                                                                 \
                    ST_SIMD                                                                                       \
                    for (int64_t i = 0; i < n; i++) t[i] = pick(((const T *)q)[i], t[i]);                         \
                } else {                                                                                          \
                    for (int64_t i = 0; i < n; i++) t[i] = pick(*(const T *)(q + i * step), t[i]);                \
                }                                                                                                 \
            }                                                                                                     \
            ST_SIMD                                                                                               \
            for (int64_t i = 0; i < n; i++) acc[i].d = pick_f64((double)t[i], acc[i].d);                          \
            rows -= run;                                                                                          \
            p += run * row;                                                                                       \
        }                                                                                                         \
    }
EXTREME_ROWS(amax_rows_f32, float, greater_f32, greater_f64)
EXTREME_ROWS(amax_rows_f64, double, greater_f64, greater_f64)
EXTREME_ROWS(amin_rows_f32, float, lesser_f32, lesser_f64)
EXTREME_ROWS(amin_rows_f64, double, lesser_f64, lesser_f64)

/* The greatest or least of the others, and beside it whether there is a NaN: two reductions that vectorise. */
#define EXTREME_LINE(name, T, op, how, start)                                          \
    static void name(rd_acc *acc, const char *p, td_dtype dt, int64_t step, int64_t n) \
    {                                                                                  \
        T m = start;                                                                   \
        int nan = acc->d != acc->d;                                                    \
        (void)dt;                                                                      \
        if (step == (int64_t)sizeof(T)) {                                              \
            const T *x = (const T *)p;                                                 \
            PRAGMA(omp simd reduction(op : m) reduction(| : nan))                      \
            for (int64_t i = 0; i < n; i++) {                                          \
                const T v = x[i];                                                      \
                m = how;                                                               \
                nan |= v != v;                                                         \
            }                                                                          \
        } else {                                                                       \
            for (int64_t i = 0; i < n; i++) {                                          \
                const T v = *(const T *)(p + i * step);                                \
                m = how;                                                               \
                nan |= v != v;                                                         \
            }                                                                          \
        }                                                                              \
        const double v = nan ? (double)NAN : (double)m;                                \
        acc->d = v != v ? v : op##_of(v, acc->d);                                      \
    }
static inline double max_of(double v, double m) { return GREATER; }
static inline double min_of(double v, double m) { return LESSER; }
EXTREME_LINE(amax_line_f32, float, max, GREATER, -INFINITY)
EXTREME_LINE(amax_line_f64, double, max, GREATER, -INFINITY)
EXTREME_LINE(amin_line_f32, float, min, LESSER, INFINITY)
EXTREME_LINE(amin_line_f64, double, min, LESSER, INFINITY)

/* ---- any and all, of any dtype ---- */

static void count_line(const char *p, td_dtype dt, int64_t step, int64_t n, int64_t *trues)
{
    uint8_t t[512];
    for (int64_t i = 0; i < n; i += (int64_t)sizeof t) {
        int64_t m = n - i < (int64_t)sizeof t ? n - i : (int64_t)sizeof t;
        int32_t found = 0;
        st_truth(t, p + i * step, dt, step, m);
#pragma omp simd reduction(+ : found)
        for (int64_t j = 0; j < m; j++) found += t[j];
        *trues += found;
    }
}

static void any_line(rd_acc *acc, const char *p, td_dtype dt, int64_t step, int64_t n)
{
    int64_t trues = 0;
    if (acc->i) return;
    count_line(p, dt, step, n, &trues);
    acc->i = trues > 0;
}

static void all_line(rd_acc *acc, const char *p, td_dtype dt, int64_t step, int64_t n)
{
    int64_t trues = 0;
    if (!acc->i) return;
    count_line(p, dt, step, n, &trues);
    acc->i = trues == n;
}

static void any_rows(rd_acc *acc, const char *p, td_dtype dt, int64_t row, int64_t rows, int64_t step, int64_t n)
{
    uint8_t t[RD_BLOCK];
    for (; rows > 0; rows--, p += row) {
        st_truth(t, p, dt, step, n);
        for (int64_t i = 0; i < n; i++) acc[i].i |= t[i];
    }
}

static void all_rows(rd_acc *acc, const char *p, td_dtype dt, int64_t row, int64_t rows, int64_t step, int64_t n)
{
    uint8_t t[RD_BLOCK];
    for (; rows > 0; rows--, p += row) {
        st_truth(t, p, dt, step, n);
        for (int64_t i = 0; i < n; i++) acc[i].i &= t[i];
    }
}

/* ---- joining and storing ---- */

#define JOIN(name, A, field, how)                \
    static void name(rd_acc *a, const rd_acc *b) \
    {                                            \
        const A m = a->field, v = b->field;      \
        a->field = how;                          \
    }
JOIN(sum_join_d, double, d, m + v)
JOIN(sum_join_i, uint64_t, u, m + v)
JOIN(prod_join_d, double, d, m *v)
JOIN(prod_join_i, uint64_t, u, m *v)
JOIN(amax_join_d, double, d, greater_f64(v, m))
JOIN(amax_join_i, int64_t, i, GREATER)
JOIN(amin_join_d, double, d, lesser_f64(v, m))
JOIN(amin_join_i, int64_t, i, LESSER)

#define STORE(name, T, value)                                  \
    static void name(char *to, const rd_acc *a, int64_t count) \
    {                                                          \
        (void)count;                                           \
        *(T *)to = (T)(value);                                 \
    }
STORE(store_f32, float, a->d)
STORE(store_f64, double, a->d)
STORE(store_i64, int64_t, a->i)
STORE(store_i32, int32_t, a->i)
STORE(store_u8, uint8_t, a->i)
STORE(store_bool, uint8_t, a->i != 0)
STORE(mean_f32, float, a->d / (double)count)
STORE(mean_f64, double, a->d / (double)count)

/* ---- kernels ---- */

#define FLOAT_FOLDS(op, unit_, store)                                                                             \
    [TD_F32] = {{.d = unit_}, op##_line_f32, op##_rows_f32, op##_join_d, store##_f32}, [TD_F64] = {{.d = unit_},  \
                                                                                                   op##_line_f64, \
                                                                                                   op##_rows_f64, \
                                                                                                   op##_join_d,   \
                                                                                                   store##_f64}
#define INT_FOLDS(op, unit_, of_i64, of_i32, of_u8, of_bool)                      \
    [TD_I64] = {{.i = unit_}, op##_line_i64, op##_rows_i64, op##_join_i, of_i64}, \
    [TD_I32] = {{.i = unit_}, op##_line_i32, op##_rows_i32, op##_join_i, of_i32}, \
    [TD_U8] = {{.i = unit_}, op##_line_u8, op##_rows_u8, op##_join_i, of_u8},     \
    [TD_BOOL] = {{.i = unit_}, op##_line_u8, op##_rows_u8, op##_join_i, of_bool}

/* Bits of the axes to reduce; an empty list means all. The core has checked them. */
static uint32_t reduced_axes(const td_ints *axes, int nd)
{
    uint32_t bits = 0;
    if (axes->n == 0) return ~0u;
    for (int64_t i = 0; i < axes->n; i++) {
        int64_t a = axes->v[i] < 0 ? axes->v[i] + nd : axes->v[i];
        if (a >= 0 && a < TD_MAX_DIM) bits |= 1u << a;
    }
    return bits;
}

static bool run(const td_kargs *k, const td_ints *axes, const rd_fold *folds)
{
    const td_view *x = k->in[0], *y = k->out[0];
    rd_run(y, x, reduced_axes(axes, x->nd), &folds[x->dt]);
    return true;
}

#define RUN(op, ...)                                                    \
    static bool run_##op(const td_kargs *k)                             \
    {                                                                   \
        static const rd_fold folds[TD_N_DTYPES] = {__VA_ARGS__};        \
        return run(k, &((const td_##op##_attr *)k->attr)->axes, folds); \
    }
RUN(sum, FLOAT_FOLDS(sum, 0, store), INT_FOLDS(sum, 0, store_i64, store_i64, store_i64, store_i64))
RUN(mean, FLOAT_FOLDS(sum, 0, mean))
RUN(prod, FLOAT_FOLDS(prod, 1, store), INT_FOLDS(prod, 1, store_i64, store_i64, store_i64, store_i64))
#define EVERY_FOLD(fold)                                                                                   \
    [TD_F32] = fold, [TD_F64] = fold, [TD_F16] = fold, [TD_BF16] = fold, [TD_I64] = fold, [TD_I32] = fold, \
    [TD_U8] = fold, [TD_BOOL] = fold
#define ANY                                                   \
    {                                                         \
        {.i = 0}, any_line, any_rows, amax_join_i, store_bool \
    }
#define ALL                                                   \
    {                                                         \
        {.i = 1}, all_line, all_rows, amin_join_i, store_bool \
    }
RUN(any, EVERY_FOLD(ANY))
RUN(all, EVERY_FOLD(ALL))

/* Of no elements there is no greatest one. */
static bool extreme(const td_kargs *k, const char *op, const td_ints *axes, const rd_fold *folds)
{
    const td_view *x = k->in[0];
    if (td_view_numel(x) > 0) return run(k, axes, folds);
    return td_fail("%s: expected at least one element to reduce, got an empty axis", op);
}

static bool run_amax(const td_kargs *k)
{
    static const rd_fold folds[TD_N_DTYPES] = {FLOAT_FOLDS(amax, -INFINITY, store),
                                               INT_FOLDS(amax, INT64_MIN, store_i64, store_i32, store_u8, store_bool)};
    return extreme(k, "amax", &((const td_amax_attr *)k->attr)->axes, folds);
}

static bool run_amin(const td_kargs *k)
{
    static const rd_fold folds[TD_N_DTYPES] = {FLOAT_FOLDS(amin, INFINITY, store),
                                               INT_FOLDS(amin, INT64_MAX, store_i64, store_i32, store_u8, store_bool)};
    return extreme(k, "amin", &((const td_amin_attr *)k->attr)->axes, folds);
}

#define EVERY (TD_BITS_ALL | TD_BIT(TD_F16) | TD_BIT(TD_BF16))
#define ROW(op, dtypes) CPU_KERNEL(#op, dtypes, TD_K_STRIDED, run_##op)

static const td_kernel rows[] = {
    ROW(sum, TD_BITS_ALL),  ROW(mean, TD_BITS_FLOAT), ROW(prod, TD_BITS_ALL), ROW(amax, TD_BITS_ALL),
    ROW(amin, TD_BITS_ALL), ROW(any, EVERY),          ROW(all, EVERY),
};
CPU_TABLE(reduce, rows)

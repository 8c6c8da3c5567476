/* unary.c - functions of one element. f32 by the polynomials of vmath.h, f64 by the C library.
 * Of integers: neg, abs, sign, square (all wrap around), clamp, and floor, ceil, round, which change nothing. */
#include "loops.h"
#include "vmath.h"

#define UNARY_FLOATS(op, expr32, expr64)     \
    ST_UNARY(op##_f32, float, float, expr32) \
    ST_UNARY(op##_f64, double, double, expr64)

UNARY_FLOATS(neg, -a, -a)
UNARY_FLOATS(exp, vm_expf(a), exp(a))
UNARY_FLOATS(expm1, vm_expm1f(a), expm1(a))
UNARY_FLOATS(log, vm_logf(a), log(a))
UNARY_FLOATS(log1p, vm_log1pf(a), log1p(a))
UNARY_FLOATS(sqrt, sqrtf(a), sqrt(a))
UNARY_FLOATS(rsqrt, 1.0f / sqrtf(a), 1.0 / sqrt(a))
UNARY_FLOATS(reciprocal, 1.0f / a, 1.0 / a)
UNARY_FLOATS(square, a *a, a *a)
UNARY_FLOATS(abs, fabsf(a), fabs(a))
UNARY_FLOATS(sign, (float)(a > 0) - (float)(a < 0), (double)(a > 0) - (double)(a < 0))
UNARY_FLOATS(tanh, vm_tanhf(a), tanh(a))
UNARY_FLOATS(erf, vm_erff(a), erf(a))
UNARY_FLOATS(floor, floorf(a), floor(a))
UNARY_FLOATS(ceil, ceilf(a), ceil(a))
UNARY_FLOATS(round, rintf(a), rint(a))

ST_UNARY(neg_i64, int64_t, int64_t, 0 - (uint64_t)a)
ST_UNARY(neg_i32, int32_t, int32_t, 0 - (uint32_t)a)
ST_UNARY(neg_u8, uint8_t, uint8_t, 0 - a)
ST_UNARY(abs_i64, int64_t, int64_t, a < 0 ? 0 - (uint64_t)a : (uint64_t)a)
ST_UNARY(abs_i32, int32_t, int32_t, a < 0 ? 0 - (uint32_t)a : (uint32_t)a)
ST_UNARY(square_i64, int64_t, int64_t, (uint64_t)a *(uint64_t)a)
ST_UNARY(square_i32, int32_t, int32_t, (uint32_t)a *(uint32_t)a)
ST_UNARY(square_u8, uint8_t, uint8_t, a *a)
ST_UNARY(sign_i64, int64_t, int64_t, (a > 0) - (a < 0))
ST_UNARY(sign_i32, int32_t, int32_t, (a > 0) - (a < 0))
ST_UNARY(sign_u8, uint8_t, uint8_t, a != 0)
ST_UNARY(same_i64, int64_t, int64_t, a)
ST_UNARY(same_i32, int32_t, int32_t, a)
ST_UNARY(same_u8, uint8_t, uint8_t, a)

ST_UNARY_C(clamp_f32, float, float, a<c0 ? (c0 > c1 ? c1 : c0) : a> c1 ? c1 : a)
ST_UNARY_C(clamp_f64, double, double, a<c0 ? (c0 > c1 ? c1 : c0) : a> c1 ? c1 : a)
ST_UNARY_C(clamp_i64, int64_t, int64_t, a<c0 ? (c0 > c1 ? c1 : c0) : a> c1 ? c1 : a)
ST_UNARY_C(clamp_i32, int32_t, int32_t, a<c0 ? (c0 > c1 ? c1 : c0) : a> c1 ? c1 : a)
ST_UNARY_C(clamp_u8, uint8_t, uint8_t, a<c0 ? (c0 > c1 ? c1 : c0) : a> c1 ? c1 : a)

/* ---- sin and cos: vm_sinf and vm_cosf are right up to VM_TRIG_MAX; a piece with a larger element goes to the C
 * library ---- */

UNARY_FLOATS(sin_small, vm_sinf(a), sin(a))
UNARY_FLOATS(cos_small, vm_cosf(a), cos(a))
ST_UNARY(sin_large, float, float, sinf(a))
ST_UNARY(cos_large, float, float, cosf(a))

enum { TRIG_PIECE = 512 };

static bool any_large(const char *x, int64_t step, int64_t n)
{
    int large = 0;
    if (step == sizeof(float)) {
        const float *v = (const float *)x;
#pragma omp simd reduction(| : large)
        for (int64_t i = 0; i < n; i++) large |= !(fabsf(v[i]) <= VM_TRIG_MAX);
    } else {
        for (int64_t i = 0; i < n; i++) large |= !(fabsf(*(const float *)(x + i * step)) <= VM_TRIG_MAX);
    }
    return large != 0;
}

static void trig(const st_block *blk, st_fn *small, st_fn *large)
{
    for (int64_t r = 0; r < blk->rows; r++) {
        for (int64_t i = 0; i < blk->n; i += TRIG_PIECE) {
            st_block b = *blk;
            b.rows = 1;
            b.n = blk->n - i < TRIG_PIECE ? blk->n - i : TRIG_PIECE;
            for (int k = 0; k < 2; k++) b.p[k] += r * blk->row[k] + i * blk->step[k];
            (any_large(b.p[1], b.step[1], b.n) ? large : small)(&b);
        }
    }
}
static void sin_f32(const st_block *blk) { trig(blk, sin_small_f32, sin_large); }
static void cos_f32(const st_block *blk) { trig(blk, cos_small_f32, cos_large); }

/* ---- kernels ---- */

typedef st_fn *const by_dtype[TD_N_DTYPES];

static bool run(const td_kargs *k, by_dtype fns, const void *ctx, int cost)
{
    const td_view *v[2] = {k->out[0], k->in[0]};
    st_apply(v, 2, fns[k->compute], ctx, cost);
    return true;
}

/* cost: that of f32; f64 functions that are not just instructions are calls */
#define RUN(op, cost, cost64, ...)                                          \
    static bool run_##op(const td_kargs *k)                                 \
    {                                                                       \
        static const by_dtype fns = __VA_ARGS__;                            \
        return run(k, fns, NULL, k->compute == TD_F64 ? (cost64) : (cost)); \
    }
#define RUN_FLOAT(op) RUN(op, ST_MATH, ST_CALL, {[TD_F32] = op##_f32, [TD_F64] = op##_f64})
#define RUN_ROOT(op) RUN(op, ST_MATH, ST_MATH, {[TD_F32] = op##_f32, [TD_F64] = op##_f64})
#define RUN_ALL(op, i64, i32, u8) \
    RUN(op, ST_MOVE, ST_MOVE, {[TD_F32] = op##_f32, [TD_F64] = op##_f64, [TD_I64] = i64, [TD_I32] = i32, [TD_U8] = u8})

RUN_ALL(neg, neg_i64, neg_i32, neg_u8)
RUN_ALL(abs, abs_i64, abs_i32, same_u8)
RUN_ALL(sign, sign_i64, sign_i32, sign_u8)
RUN_ALL(square, square_i64, square_i32, square_u8)
RUN_ALL(floor, same_i64, same_i32, same_u8)
RUN_ALL(ceil, same_i64, same_i32, same_u8)
RUN_ALL(round, same_i64, same_i32, same_u8)
RUN_FLOAT(exp)
RUN_FLOAT(expm1)
RUN_FLOAT(log)
RUN_FLOAT(log1p)
RUN_ROOT(sqrt)
RUN_ROOT(rsqrt)
RUN_ROOT(reciprocal)
RUN_FLOAT(tanh)
RUN_FLOAT(erf)
RUN(sin, ST_MATH, ST_CALL, {[TD_F32] = sin_f32, [TD_F64] = sin_small_f64})
RUN(cos, ST_MATH, ST_CALL, {[TD_F32] = cos_f32, [TD_F64] = cos_small_f64})

/* The integers from ceil(min) to floor(max), cut to what the dtype holds. */
static int64_t int_bound(double x, int64_t least, int64_t most)
{
    return x != x || x <= (double)least ? least : x >= (double)most ? most : (int64_t)x;
}

static bool run_clamp(const td_kargs *k)
{
    static const by_dtype fns = {
        [TD_F32] = clamp_f32, [TD_F64] = clamp_f64, [TD_I64] = clamp_i64, [TD_I32] = clamp_i32, [TD_U8] = clamp_u8};
    const td_clamp_attr *a = k->attr;
    double min = isnan(a->min) ? -INFINITY : a->min, max = isnan(a->max) ? INFINITY : a->max;
    if (k->compute == TD_F32) {
        const float c[2] = {(float)min, (float)max};
        return run(k, fns, c, ST_MOVE);
    }
    if (k->compute == TD_F64) {
        const double c[2] = {min, max};
        return run(k, fns, c, ST_MOVE);
    }
    int64_t least = k->compute == TD_I64 ? INT64_MIN : k->compute == TD_I32 ? INT32_MIN : 0;
    int64_t most = k->compute == TD_I64 ? INT64_MAX : k->compute == TD_I32 ? INT32_MAX : UINT8_MAX;
    const int64_t lo = int_bound(ceil(min), least, most), hi = int_bound(floor(max), least, most);
    const int64_t c64[2] = {lo, hi};
    const int32_t c32[2] = {(int32_t)lo, (int32_t)hi};
    const uint8_t c8[2] = {(uint8_t)lo, (uint8_t)hi};
    const void *c = k->compute == TD_I64 ? (const void *)c64 : k->compute == TD_I32 ? (const void *)c32 : c8;
    return run(k, fns, c, ST_MOVE);
}

#define NUMBERS (TD_BITS_FLOAT | TD_BITS_INT)
#define ROW(op, dtypes) CPU_KERNEL(#op, dtypes, TD_K_STRIDED | TD_K_ALIAS_OK | TD_K_POINTWISE, run_##op)

static const td_kernel rows[] = {
    ROW(neg, NUMBERS),
    ROW(abs, NUMBERS),
    ROW(sign, NUMBERS),
    ROW(square, NUMBERS),
    ROW(floor, NUMBERS),
    ROW(ceil, NUMBERS),
    ROW(round, NUMBERS),
    ROW(clamp, NUMBERS),
    ROW(exp, TD_BITS_FLOAT),
    ROW(expm1, TD_BITS_FLOAT),
    ROW(log, TD_BITS_FLOAT),
    ROW(log1p, TD_BITS_FLOAT),
    ROW(sqrt, TD_BITS_FLOAT),
    ROW(rsqrt, TD_BITS_FLOAT),
    ROW(sin, TD_BITS_FLOAT),
    ROW(cos, TD_BITS_FLOAT),
    ROW(tanh, TD_BITS_FLOAT),
    ROW(erf, TD_BITS_FLOAT),
    ROW(reciprocal, TD_BITS_FLOAT),
};
CPU_TABLE(unary, rows)

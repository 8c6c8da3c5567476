/* binary.c - arithmetic on two tensors, element by element, with broadcasting. Integers wrap around, as in two's
 * complement. Formulas of floor_divide and remainder: PyTorch's, which are Python's (exact by way of fmod, remainder
 * has the sign of y). */
#include "loops.h"

#define BINARY_FLOATS(op, expr)             \
    ST_BINARY(op##_f32, float, float, expr) \
    ST_BINARY(op##_f64, double, double, expr)
#define BINARY_INTS(op, expr)                   \
    ST_BINARY(op##_i64, int64_t, int64_t, expr) \
    ST_BINARY(op##_i32, int32_t, int32_t, expr) \
    ST_BINARY(op##_u8, uint8_t, uint8_t, expr)

/* Wrapping: unsigned arithmetic, for signed overflow is undefined. */
#define BINARY_WRAP(op, sign)                                                      \
    BINARY_FLOATS(op, a sign b)                                                    \
    ST_BINARY(op##_i64, int64_t, int64_t, (int64_t)((uint64_t)a sign(uint64_t) b)) \
    ST_BINARY(op##_i32, int32_t, int32_t, (int32_t)((uint32_t)a sign(uint32_t) b)) \
    ST_BINARY(op##_u8, uint8_t, uint8_t, (uint8_t)(a sign b))

BINARY_WRAP(add, +)
BINARY_WRAP(sub, -)
BINARY_WRAP(mul, *)
BINARY_FLOATS(div, a / b)
ST_BINARY(or_bool, uint8_t, uint8_t, (a | b) != 0)
ST_BINARY(and_bool, uint8_t, uint8_t, a != 0 && b != 0)

BINARY_FLOATS(maximum, a > b || a != a ? a : b)
BINARY_FLOATS(minimum, a < b || a != a ? a : b)
BINARY_INTS(maximum, a > b ? a : b)
BINARY_INTS(minimum, a < b ? a : b)

/* ---- floor_divide and remainder ---- */

/* r: a - b trunc(a / b), exactly; from it the quotient and the remainder that are rounded down. */
#define FLOOR_MOD_FLOAT(T, suffix, floor_, copysign_)     \
    ST_ALWAYS T floor_divide_from_##suffix(T a, T b, T r) \
    {                                                     \
        T q = (a - r) / b;                                \
        q = r != 0 && (b < 0) != (r < 0) ? q - 1 : q;     \
        T f = floor_(q);                                  \
        f = q - f > (T)0.5 ? f + 1 : f;                   \
        f = q == 0 ? copysign_(0, a / b) : f;             \
        return b == 0 ? a / b : f;                        \
    }                                                     \
    ST_ALWAYS T remainder_from_##suffix(T a, T b, T r)    \
    {                                                     \
        (void)a;                                          \
        return r != 0 && (b < 0) != (r < 0) ? r + b : r;  \
    }
FLOOR_MOD_FLOAT(float, f32, floorf, copysignf)
FLOOR_MOD_FLOAT(double, f64, floor, copysign)

ST_BINARY(floor_divide_f64, double, double, floor_divide_from_f64(a, b, fmod(a, b)))
ST_BINARY(remainder_f64, double, double, remainder_from_f64(a, b, fmod(a, b)))
ST_BINARY(floor_divide_exact, float, float, floor_divide_from_f32(a, b, fmodf(a, b)))
ST_BINARY(remainder_exact, float, float, remainder_from_f32(a, b, fmodf(a, b)))

/* fmod without a call, for finite b and |a / b| < 2^28: a quotient of two f32 that is no integer differs from one by
 * more than f64 rounds, so trunc is right; and its product with b has at most 52 bits. */
ST_ALWAYS float fmod_near(float a, float b)
{
    double q = (double)(int32_t)((double)a / (double)b);
    return (float)((double)a - q * (double)b);
}
ST_BINARY(floor_divide_near, float, float, floor_divide_from_f32(a, b, fmod_near(a, b)))
ST_BINARY(remainder_near, float, float, remainder_from_f32(a, b, fmod_near(a, b)))

enum { MOD_PIECE = 512 };

static bool all_near(const char *a, const char *b, int64_t sa, int64_t sb, int64_t n)
{
    int far = 0;
    for (int64_t i = 0; i < n; i++) {
        const double x = (double)*(const float *)(a + i * sa), y = (double)*(const float *)(b + i * sb);
        far |= !(fabs(x / y) < 0x1p28) | !(fabs(y) < INFINITY);
    }
    return !far;
}

static void by_pieces(const st_block *blk, st_fn *near, st_fn *exact)
{
    for (int64_t r = 0; r < blk->rows; r++) {
        for (int64_t i = 0; i < blk->n; i += MOD_PIECE) {
            st_block b = *blk;
            b.rows = 1;
            b.n = blk->n - i < MOD_PIECE ? blk->n - i : MOD_PIECE;
            for (int k = 0; k < 3; k++) b.p[k] += r * blk->row[k] + i * blk->step[k];
            (all_near(b.p[1], b.p[2], b.step[1], b.step[2], b.n) ? near : exact)(&b);
        }
    }
}
static void floor_divide_f32(const st_block *blk) { by_pieces(blk, floor_divide_near, floor_divide_exact); }
static void remainder_f32(const st_block *blk) { by_pieces(blk, remainder_near, remainder_exact); }

/* b is not 0: the caller has looked. Division of the least integer by -1 would trap. */
#define FLOOR_MOD_INT(T, U, suffix)                                         \
    ST_ALWAYS T floor_divide_one_##suffix(T a, T b)                         \
    {                                                                       \
        if (b == -1) return (T)(0 - (U)a);                                  \
        T q = a / b;                                                        \
        return a % b != 0 && (a < 0) != (b < 0) ? q - 1 : q;                \
    }                                                                       \
    ST_ALWAYS T remainder_one_##suffix(T a, T b)                            \
    {                                                                       \
        if (b == -1) return 0;                                              \
        T mod = a % b;                                                      \
        return mod != 0 && (b < 0) != (mod < 0) ? mod + b : mod;            \
    }                                                                       \
    ST_BINARY(floor_divide_##suffix, T, T, floor_divide_one_##suffix(a, b)) \
    ST_BINARY(remainder_##suffix, T, T, remainder_one_##suffix(a, b))
FLOOR_MOD_INT(int64_t, uint64_t, i64)
FLOOR_MOD_INT(int32_t, uint32_t, i32)
ST_BINARY(floor_divide_u8, uint8_t, uint8_t, a / b)
ST_BINARY(remainder_u8, uint8_t, uint8_t, a % b)

/* ---- pow ---- */

/* By squaring; the exponent is not negative: the caller has looked. */
#define POW_INT(T, U, suffix)                                  \
    ST_ALWAYS T pow_one_##suffix(T base, T e)                  \
    {                                                          \
        U r = 1, b = (U)base;                                  \
        for (; e; e >>= 1, b *= b) r = (U)(e & 1 ? r * b : r); \
        return (T)r;                                           \
    }                                                          \
    ST_BINARY(pow_##suffix, T, T, pow_one_##suffix(a, b))
POW_INT(int64_t, uint64_t, i64)
POW_INT(int32_t, uint32_t, i32)
POW_INT(uint8_t, uint32_t, u8)
ST_BINARY(pow_f32, float, float, powf(a, b))
ST_BINARY(pow_f64, double, double, pow(a, b))

/* Exponents that need no pow; PyTorch takes the same short cuts. */
#define POW_SHORT(T, suffix, sqrt_)                     \
    ST_UNARY(pow_one_##suffix##_, T, T, a)              \
    ST_UNARY(pow_two_##suffix, T, T, a *a)              \
    ST_UNARY(pow_three_##suffix, T, T, a *a *a)         \
    ST_UNARY(pow_half_##suffix, T, T, sqrt_(a))         \
    ST_UNARY(pow_minus_one_##suffix, T, T, 1 / a)       \
    ST_UNARY(pow_minus_two_##suffix, T, T, 1 / (a * a)) \
    ST_UNARY(pow_minus_half_##suffix, T, T, 1 / sqrt_(a))
POW_SHORT(float, f32, sqrtf)
POW_SHORT(double, f64, sqrt)

static const struct {
    double exponent;
    st_fn *f32, *f64;
} pow_short[] = {
    {1, pow_one_f32_, pow_one_f64_},
    {2, pow_two_f32, pow_two_f64},
    {3, pow_three_f32, pow_three_f64},
    {0.5, pow_half_f32, pow_half_f64},
    {-1, pow_minus_one_f32, pow_minus_one_f64},
    {-2, pow_minus_two_f32, pow_minus_two_f64},
    {-0.5, pow_minus_half_f32, pow_minus_half_f64},
};

/* ---- what the second operand must not be ---- */

#define LOOK(name, T, condition)                                                   \
    static void name(const st_block *blk)                                          \
    {                                                                              \
        int found = 0;                                                             \
        for (int64_t r = 0; r < blk->rows; r++) {                                  \
            const char *p = blk->p[0] + r * blk->row[0];                           \
            for (int64_t i = 0; i < blk->n; i++) {                                 \
                const T b = *(const T *)(p + i * blk->step[0]);                    \
                found |= (condition);                                              \
            }                                                                      \
        }                                                                          \
        if (found) __atomic_store_n(*(int *const *)blk->ctx, 1, __ATOMIC_RELAXED); \
    }
LOOK(zero_i64, int64_t, b == 0)
LOOK(zero_i32, int32_t, b == 0)
LOOK(zero_u8, uint8_t, b == 0)
LOOK(negative_i64, int64_t, b < 0)
LOOK(negative_i32, int32_t, b < 0)

static bool any_that(const td_view *y, st_fn *look)
{
    int found = 0, *ctx = &found;
    if (look) st_apply(&y, 1, look, &ctx, ST_MOVE);
    return found != 0;
}

/* ---- kernels ---- */

typedef st_fn *const by_dtype[TD_N_DTYPES];
#define ALL_BUT_BOOL(op)                                                                                      \
    {                                                                                                         \
        [TD_F32] = op##_f32, [TD_F64] = op##_f64, [TD_I64] = op##_i64, [TD_I32] = op##_i32, [TD_U8] = op##_u8 \
    }
#define ALL_AND_BOOL(op, with_bool)                                                                            \
    {                                                                                                          \
        [TD_F32] = op##_f32, [TD_F64] = op##_f64, [TD_I64] = op##_i64, [TD_I32] = op##_i32, [TD_U8] = op##_u8, \
        [TD_BOOL] = with_bool                                                                                  \
    }

static bool run(const td_kargs *k, by_dtype fns, int cost)
{
    const td_view *v[3] = {k->out[0], k->in[0], k->in[1]};
    st_apply(v, 3, fns[k->compute], NULL, cost);
    return true;
}

#define RUN(op, ...)                             \
    static bool run_##op(const td_kargs *k)      \
    {                                            \
        static const by_dtype fns = __VA_ARGS__; \
        return run(k, fns, ST_MOVE);             \
    }
RUN(add, ALL_AND_BOOL(add, or_bool))
RUN(sub, ALL_BUT_BOOL(sub))
RUN(mul, ALL_AND_BOOL(mul, and_bool))
RUN(div, {[TD_F32] = div_f32, [TD_F64] = div_f64})
RUN(maximum, ALL_AND_BOOL(maximum, or_bool))
RUN(minimum, ALL_AND_BOOL(minimum, and_bool))

static const by_dtype look_zero = {[TD_I64] = zero_i64, [TD_I32] = zero_i32, [TD_U8] = zero_u8};

static bool run_floor_divide(const td_kargs *k)
{
    static const by_dtype fns = ALL_BUT_BOOL(floor_divide);
    if (any_that(k->in[1], look_zero[k->compute])) return td_fail("floor_divide: integer division by zero");
    return run(k, fns, ST_CALL);
}

static bool run_remainder(const td_kargs *k)
{
    static const by_dtype fns = ALL_BUT_BOOL(remainder);
    if (any_that(k->in[1], look_zero[k->compute])) return td_fail("remainder: integer division by zero");
    return run(k, fns, ST_CALL);
}

static bool run_pow(const td_kargs *k)
{
    static const by_dtype fns = ALL_BUT_BOOL(pow);
    static const by_dtype look = {[TD_I64] = negative_i64, [TD_I32] = negative_i32};
    const td_view *y = k->in[1];
    if (any_that(y, look[k->compute])) return td_fail("pow: expected exponents >= 0 for integers, got a negative one");
    if (td_dtype_is_float(k->compute) && td_view_numel(y) == 1) {
        double e = k->compute == TD_F32 ? (double)*(const float *)y->p : *(const double *)y->p;
        for (size_t i = 0; i < sizeof pow_short / sizeof *pow_short; i++) {
            if (e != pow_short[i].exponent) continue;
            const td_view *v[2] = {k->out[0], k->in[0]};
            st_apply(v, 2, k->compute == TD_F32 ? pow_short[i].f32 : pow_short[i].f64, NULL, ST_MOVE);
            return true;
        }
    }
    return run(k, fns, ST_CALL);
}

#define NUMBERS (TD_BITS_FLOAT | TD_BITS_INT)
#define ELEMENTWISE (TD_K_STRIDED | TD_K_ALIAS_OK | TD_K_POINTWISE)

static const td_kernel rows[] = {
    CPU_KERNEL("add", TD_BITS_ALL, ELEMENTWISE, run_add),
    CPU_KERNEL("sub", NUMBERS, ELEMENTWISE, run_sub),
    CPU_KERNEL("mul", TD_BITS_ALL, ELEMENTWISE, run_mul),
    CPU_KERNEL("div", TD_BITS_FLOAT, ELEMENTWISE, run_div),
    CPU_KERNEL("pow", NUMBERS, ELEMENTWISE, run_pow),
    CPU_KERNEL("floor_divide", NUMBERS, ELEMENTWISE, run_floor_divide),
    CPU_KERNEL("remainder", NUMBERS, ELEMENTWISE, run_remainder),
    CPU_KERNEL("maximum", TD_BITS_ALL, ELEMENTWISE, run_maximum),
    CPU_KERNEL("minimum", TD_BITS_ALL, ELEMENTWISE, run_minimum),
};
CPU_TABLE(binary, rows)

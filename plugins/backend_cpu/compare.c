/* compare.c - comparisons, logical operations and tests for NaN and infinity. Results are bool: bytes 0 and 1. */
#include "loops.h"

#define COMPARE(op, sign)                                                  \
    ST_BINARY(op##_f32, uint8_t, float, a sign b)                          \
    ST_BINARY(op##_f64, uint8_t, double, a sign b)                         \
    ST_BINARY(op##_i64, uint8_t, int64_t, a sign b)                        \
    ST_BINARY(op##_i32, uint8_t, int32_t, a sign b)                        \
    ST_BINARY(op##_u8, uint8_t, uint8_t, a sign b)                         \
    static bool run_##op(const td_kargs *k)                                \
    {                                                                      \
        static st_fn *const fns[TD_N_DTYPES] = {                           \
            [TD_F32] = op##_f32, [TD_F64] = op##_f64, [TD_I64] = op##_i64, \
            [TD_I32] = op##_i32, [TD_U8] = op##_u8,   [TD_BOOL] = op##_u8, \
        };                                                                 \
        const td_view *v[3] = {k->out[0], k->in[0], k->in[1]};             \
        st_apply(v, 3, fns[k->in[0]->dt], NULL, ST_MOVE);                  \
        return true;                                                       \
    }
COMPARE(eq, ==)
COMPARE(ne, !=)
COMPARE(lt, <)
COMPARE(le, <=)
COMPARE(gt, >)
COMPARE(ge, >=)

/* ---- tests for NaN and infinity: integers are always finite ---- */

#define TEST(op, expr, of_integers)                                        \
    ST_UNARY(op##_f32, uint8_t, float, expr)                               \
    ST_UNARY(op##_f64, uint8_t, double, expr)                              \
    ST_UNARY(op##_i64, uint8_t, int64_t, ((void)a, of_integers))           \
    ST_UNARY(op##_i32, uint8_t, int32_t, ((void)a, of_integers))           \
    ST_UNARY(op##_u8, uint8_t, uint8_t, ((void)a, of_integers))            \
    static bool run_##op(const td_kargs *k)                                \
    {                                                                      \
        static st_fn *const fns[TD_N_DTYPES] = {                           \
            [TD_F32] = op##_f32, [TD_F64] = op##_f64, [TD_I64] = op##_i64, \
            [TD_I32] = op##_i32, [TD_U8] = op##_u8,   [TD_BOOL] = op##_u8, \
        };                                                                 \
        const td_view *v[2] = {k->out[0], k->in[0]};                       \
        st_apply(v, 2, fns[k->in[0]->dt], NULL, ST_MOVE);                  \
        return true;                                                       \
    }
TEST(isnan, a != a, 0)
TEST(isinf, a == INFINITY || a == -INFINITY, 0)
TEST(isfinite, a - a == 0, 1)

/* ---- logical operations on any two dtypes: pieces of both become bytes 0 and 1 first ---- */

enum { PIECE = 512 };

typedef struct {
    td_dtype a, b;
    bool any; /* or, else and */
} logical;

static void logical_piece(const st_block *blk, const logical *l, int64_t r, int64_t from)
{
    uint8_t a[PIECE], b[PIECE], y[PIECE];
    int64_t n = blk->n - from < PIECE ? blk->n - from : PIECE, so = blk->step[0];
    uint8_t *o = (uint8_t *)(blk->p[0] + r * blk->row[0] + from * so), *to = so == 1 ? o : y;
    st_truth(a, blk->p[1] + r * blk->row[1] + from * blk->step[1], l->a, blk->step[1], n);
    st_truth(b, blk->p[2] + r * blk->row[2] + from * blk->step[2], l->b, blk->step[2], n);
    if (l->any) {
        for (int64_t i = 0; i < n; i++) to[i] = a[i] | b[i];
    } else {
        for (int64_t i = 0; i < n; i++) to[i] = a[i] & b[i];
    }
    if (to == y) {
        for (int64_t i = 0; i < n; i++) o[i * so] = y[i];
    }
}

static void logical_fn(const st_block *blk)
{
    for (int64_t r = 0; r < blk->rows; r++) {
        for (int64_t i = 0; i < blk->n; i += PIECE) logical_piece(blk, blk->ctx, r, i);
    }
}

static bool run_logical(const td_kargs *k, bool any)
{
    const td_view *v[3] = {k->out[0], k->in[0], k->in[1]};
    const logical l = {k->in[0]->dt, k->in[1]->dt, any};
    st_apply(v, 3, logical_fn, &l, ST_MOVE);
    return true;
}
static bool run_logical_and(const td_kargs *k) { return run_logical(k, false); }
static bool run_logical_or(const td_kargs *k) { return run_logical(k, true); }

ST_UNARY(not_8, uint8_t, uint8_t, a == 0)
ST_UNARY(not_16, uint8_t, uint16_t, (a & 0x7fff) == 0) /* f16 and bf16 only: the sign of zero does not count */
ST_UNARY(not_f32, uint8_t, float, a == 0)
ST_UNARY(not_f64, uint8_t, double, a == 0)
ST_UNARY(not_i64, uint8_t, int64_t, a == 0)
ST_UNARY(not_i32, uint8_t, int32_t, a == 0)

static bool run_logical_not(const td_kargs *k)
{
    static st_fn *const fns[TD_N_DTYPES] = {
        [TD_F32] = not_f32, [TD_F64] = not_f64, [TD_F16] = not_16, [TD_BF16] = not_16,
        [TD_I64] = not_i64, [TD_I32] = not_i32, [TD_U8] = not_8,   [TD_BOOL] = not_8,
    };
    const td_view *v[2] = {k->out[0], k->in[0]};
    st_apply(v, 2, fns[k->in[0]->dt], NULL, ST_MOVE);
    return true;
}

/* ---- kernels: a bool result may only lie over an input of one-byte elements, which td_view equality assures ---- */

#define EVERY (TD_BITS_ALL | TD_BIT(TD_F16) | TD_BIT(TD_BF16))
#define ROW(op, dtypes) CPU_KERNEL(#op, dtypes, TD_K_STRIDED | TD_K_ALIAS_OK | TD_K_POINTWISE, run_##op)

static const td_kernel rows[] = {
    ROW(eq, TD_BITS_ALL),       ROW(ne, TD_BITS_ALL),    ROW(lt, TD_BITS_ALL),    ROW(le, TD_BITS_ALL),
    ROW(gt, TD_BITS_ALL),       ROW(ge, TD_BITS_ALL),    ROW(isnan, TD_BITS_ALL), ROW(isinf, TD_BITS_ALL),
    ROW(isfinite, TD_BITS_ALL), ROW(logical_and, EVERY), ROW(logical_or, EVERY),  ROW(logical_not, EVERY),
};
CPU_TABLE(compare, rows)

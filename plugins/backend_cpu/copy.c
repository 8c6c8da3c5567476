/* copy.c - copies, between any strides and any two dtypes (convert.h has the rules). Equal dtypes are moved by size;
 * where input and output run along different axes, through tiles that stay in the first cache. */
#include "convert.h"
#include "loops.h"

/* ---- casts: name, element types, how one element is read as a number, and what becomes of it ---- */

#define CAST_FROM(from, S, load)                                         \
    ST_UNARY(from##_to_f32, float, S, (float)(load))                     \
    ST_UNARY(from##_to_f64, double, S, (double)(load))                   \
    ST_UNARY(from##_to_f16, uint16_t, S, cv_f16_of_f32((float)(load)))   \
    ST_UNARY(from##_to_bf16, uint16_t, S, cv_bf16_of_f32((float)(load))) \
    ST_UNARY(from##_to_bool, uint8_t, S, (load) != 0)
#define CAST_FROM_FLOAT(from, S, load)                                 \
    CAST_FROM(from, S, load)                                           \
    ST_UNARY(from##_to_i64, int64_t, S, cv_i64_of_f64((double)(load))) \
    ST_UNARY(from##_to_i32, int32_t, S, cv_i32_of_f32(load))           \
    ST_UNARY(from##_to_u8, uint8_t, S, cv_u8_of_f32(load))
#define CAST_FROM_BYTE(from)                     \
    CAST_FROM(from, uint8_t, a)                  \
    ST_UNARY(from##_to_i64, int64_t, uint8_t, a) \
    ST_UNARY(from##_to_i32, int32_t, uint8_t, a) \
    ST_UNARY(from##_to_u8, uint8_t, uint8_t, a)

CAST_FROM_FLOAT(f32, float, a)
CAST_FROM_FLOAT(f16, uint16_t, cv_f32_of_f16(a))
CAST_FROM_FLOAT(bf16, uint16_t, cv_f32_of_bf16(a))
CAST_FROM(f64, double, a)
ST_UNARY(f64_to_i64, int64_t, double, cv_i64_of_f64(a))
ST_UNARY(f64_to_i32, int32_t, double, cv_i32_of_f64(a))
ST_UNARY(f64_to_u8, uint8_t, double, cv_u8_of_f64(a))
CAST_FROM(i64, int64_t, a)
ST_UNARY(i64_to_i32, int32_t, int64_t, cv_i32_of_i64(a))
ST_UNARY(i64_to_u8, uint8_t, int64_t, cv_u8_of_i64(a))
CAST_FROM(i32, int32_t, a)
ST_UNARY(i32_to_i64, int64_t, int32_t, a)
ST_UNARY(i32_to_u8, uint8_t, int32_t, cv_u8_of_i32(a))
CAST_FROM_BYTE(u8)

#define CAST_TABLE(from, to_i64, to_i32, to_u8)                                                                   \
    {                                                                                                             \
        [TD_F32] = from##_to_f32, [TD_F64] = from##_to_f64, [TD_F16] = from##_to_f16, [TD_BF16] = from##_to_bf16, \
        [TD_I64] = to_i64, [TD_I32] = to_i32, [TD_U8] = to_u8, [TD_BOOL] = from##_to_bool                         \
    }

static st_fn *const casts[TD_N_DTYPES][TD_N_DTYPES] = {
    [TD_F32] = CAST_TABLE(f32, f32_to_i64, f32_to_i32, f32_to_u8),
    [TD_F64] = CAST_TABLE(f64, f64_to_i64, f64_to_i32, f64_to_u8),
    [TD_F16] = CAST_TABLE(f16, f16_to_i64, f16_to_i32, f16_to_u8),
    [TD_BF16] = CAST_TABLE(bf16, bf16_to_i64, bf16_to_i32, bf16_to_u8),
    [TD_I64] = CAST_TABLE(i64, NULL, i64_to_i32, i64_to_u8),
    [TD_I32] = CAST_TABLE(i32, i32_to_i64, NULL, i32_to_u8),
    [TD_U8] = CAST_TABLE(u8, u8_to_i64, u8_to_i32, NULL),
    [TD_BOOL] = CAST_TABLE(u8, u8_to_i64, u8_to_i32, u8_to_u8),
};

/* ---- copies of one dtype, by size; memmove, for a contiguous run may be copied onto itself ---- */

#define COPY(name, T)                                                                            \
    static void name(const st_block *blk)                                                        \
    {                                                                                            \
        const int64_t n = blk->n, so = blk->step[0], sa = blk->step[1], st = (int64_t)sizeof(T); \
        for (int64_t r = 0; r < blk->rows; r++) {                                                \
            char *po = blk->p[0] + r * blk->row[0];                                              \
            const char *pa = blk->p[1] + r * blk->row[1];                                        \
            if (so == st && sa == st && n >= 64) {                                               \
                memmove(po, pa, (size_t)(n * st));                                               \
            } else if (so == st && sa == st) {                                                   \
                for (int64_t i = 0; i < n; i++) ((T *)po)[i] = ((const T *)pa)[i];               \
            } else if (so == st && sa == 0) {                                                    \
                const T a = *(const T *)pa;                                                      \
                for (int64_t i = 0; i < n; i++) ((T *)po)[i] = a;                                \
            } else {                                                                             \
                for (int64_t i = 0; i < n; i++) *(T *)(po + i * so) = *(const T *)(pa + i * sa); \
            }                                                                                    \
        }                                                                                        \
    }
COPY(copy_8, uint8_t)
COPY(copy_16, uint16_t)
COPY(copy_32, uint32_t)
COPY(copy_64, uint64_t)

static st_fn *copy_of_size(int64_t size)
{
    return size == 1 ? copy_8 : size == 2 ? copy_16 : size == 4 ? copy_32 : copy_64;
}

/* ---- transposition: the output runs along the inner axis, the input along another one ---- */

enum { TILE = 16 };

/* y[i][j] = x[j][i]: y's rows lie sy apart, x's rows sx (bytes); rows and columns of y. */
#define TRANSPOSE(name, T)                                                                            \
    static void name(char *y, int64_t sy, const char *x, int64_t sx, int64_t m, int64_t n)            \
    {                                                                                                 \
        for (int64_t j0 = 0; j0 < n; j0 += TILE) {                                                    \
            for (int64_t i0 = 0; i0 < m; i0 += TILE) {                                                \
                int64_t h = m - i0 < TILE ? m - i0 : TILE, w = n - j0 < TILE ? n - j0 : TILE;         \
                T t[TILE][TILE];                                                                      \
                if (h == TILE && w == TILE) {                                                         \
                    for (int j = 0; j < TILE; j++) {                                                  \
                        const T *from = (const T *)(x + (j0 + j) * sx) + i0;                          \
                        for (int i = 0; i < TILE; i++) t[i][j] = from[i];                             \
                    }                                                                                 \
                    for (int i = 0; i < TILE; i++)                                                    \
                        memcpy(y + (i0 + i) * sy + j0 * (int64_t)sizeof(T), t[i], sizeof t[i]);       \
                    continue;                                                                         \
                }                                                                                     \
                for (int64_t i = 0; i < h; i++) {                                                     \
                    T *to = (T *)(y + (i0 + i) * sy) + j0;                                            \
                    for (int64_t j = 0; j < w; j++) to[j] = ((const T *)(x + (j0 + j) * sx))[i0 + i]; \
                }                                                                                     \
            }                                                                                         \
        }                                                                                             \
    }
TRANSPOSE(transpose_8, uint8_t)
TRANSPOSE(transpose_16, uint16_t)
TRANSPOSE(transpose_32, uint32_t)
TRANSPOSE(transpose_64, uint64_t)

/* The axis along which the input is contiguous, if it is not the inner one and both are worth tiles; else -1. */
static int crossing_axis(const st_iter *it, int64_t size)
{
    int in = it->nd - 1;
    if (it->stride[0][in] != size || it->stride[1][in] == size || it->dim[in] < 4) return -1;
    for (int i = in - 1; i >= 0; i--) {
        if (it->stride[1][i] == size && it->dim[i] >= 4) return i;
    }
    return -1;
}

typedef struct {
    const st_iter *it;
    int a; /* axis that is contiguous in the input; the last one is so in the output */
    int64_t size, strips;
} crossing;

/* Strips of TILE elements of axis a and all of the last axis, for all values of the others. */
static void copy_strips(void *ctx, int64_t w, int64_t end)
{
    const crossing *c = ctx;
    const st_iter *it = c->it;
    const int a = c->a, in = it->nd - 1;
    const int64_t m = it->dim[a], n = it->dim[in], size = c->size;
    for (; w < end; w++) {
        int64_t left = w / c->strips, from = w % c->strips * TILE, h = m - from < TILE ? m - from : TILE;
        char *y = it->p[0] + from * it->stride[0][a];
        const char *x = it->p[1] + from * size;
        for (int i = in - 1; i >= 0; i--) {
            if (i == a) continue;
            y += left % it->dim[i] * it->stride[0][i];
            x += left % it->dim[i] * it->stride[1][i];
            left /= it->dim[i];
        }
        int64_t sy = it->stride[0][a], sx = it->stride[1][in];
        if (size == 1) transpose_8(y, sy, x, sx, h, n);
        else if (size == 2) transpose_16(y, sy, x, sx, h, n);
        else if (size == 4) transpose_32(y, sy, x, sx, h, n);
        else transpose_64(y, sy, x, sx, h, n);
    }
}

static void copy_same(const td_view *y, const td_view *x)
{
    const td_view *v[2] = {y, x};
    int64_t n = td_view_numel(y), size = (int64_t)td_dtype_size(y->dt);
    st_fn *fn = copy_of_size(size);
    if (n < 64 || st_same(y, x)) {
        st_apply(v, 2, fn, NULL, ST_MOVE);
        return;
    }
    st_iter it;
    st_init(&it, v, 2);
    int a = crossing_axis(&it, size);
    if (a >= 0) {
        crossing c = {&it, a, size, (it.dim[a] + TILE - 1) / TILE};
        st_share(st_threads(n, ST_MATH), n / (it.dim[a] * it.dim[it.nd - 1]) * c.strips, copy_strips, &c);
    } else {
        st_for(&it, fn, NULL, ST_MOVE);
    }
}

/* ---- kernels ---- */

static bool run(const td_kargs *k)
{
    const td_view *y = k->out[0], *x = k->in[0];
    const td_view *v[2] = {y, x};
    if (y->dt == x->dt) copy_same(y, x);
    else st_apply(v, 2, casts[x->dt][y->dt], NULL, ST_MOVE);
    return true;
}

#define EVERY (TD_BITS_ALL | TD_BIT(TD_F16) | TD_BIT(TD_BF16))

static const td_kernel rows[] = {
    CPU_KERNEL("copy", EVERY, TD_K_STRIDED | TD_K_ALIAS_OK | TD_K_POINTWISE, run),
    CPU_KERNEL("cast", EVERY, TD_K_STRIDED | TD_K_CHEAP, run),
};
CPU_TABLE(copy, rows)

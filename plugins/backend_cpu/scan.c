/* scan.c - cumsum: running sums along one axis, in f64 for f32, wrapping in i64 for integers.
 * x, y (outer, n, inner) contiguous */
#include "strided.h"

enum { BLOCK = 256 };

/* Columns c .. c + w - 1 of one outer index. */
#define SCAN(name, T, O, A, as_sum)                                                 \
    static void name(const void *px, void *py, int64_t n, int64_t inner, int64_t w) \
    {                                                                               \
        const T *x = px;                                                            \
        O *y = py;                                                                  \
        A s[BLOCK] = {0};                                                           \
        if (w == 1) {                                                               \
            A sum = 0;                                                              \
            for (int64_t j = 0; j < n; j++) {                                       \
                sum += (A)x[j * inner];                                             \
                y[j * inner] = (O)as_sum(sum);                                      \
            }                                                                       \
            return;                                                                 \
        }                                                                           \
        for (int64_t j = 0; j < n; j++, x += inner, y += inner) {                   \
            _Pragma("omp simd") for (int64_t c = 0; c < w; c++)                     \
            {                                                                       \
                s[c] += (A)x[c];                                                    \
                y[c] = (O)as_sum(s[c]);                                             \
            }                                                                       \
        }                                                                           \
    }
SCAN(scan_f32, float, float, double, (float))
SCAN(scan_f64, double, double, double, (double))
SCAN(scan_i64, int64_t, int64_t, uint64_t, (int64_t))
SCAN(scan_i32, int32_t, int64_t, uint64_t, (int64_t))
SCAN(scan_u8, uint8_t, int64_t, uint64_t, (int64_t))

typedef struct {
    const td_view *x, *y;
    int64_t n, inner, blocks;
} scan;

static void scan_blocks(void *ctx, int64_t b, int64_t end)
{
    static void (*const fns[TD_N_DTYPES])(const void *, void *, int64_t, int64_t, int64_t) = {
        [TD_F32] = scan_f32, [TD_F64] = scan_f64, [TD_I64] = scan_i64,
        [TD_I32] = scan_i32, [TD_U8] = scan_u8,   [TD_BOOL] = scan_u8,
    };
    const scan *s = ctx;
    int64_t sx = (int64_t)td_dtype_size(s->x->dt), sy = (int64_t)td_dtype_size(s->y->dt);
    for (; b < end; b++) {
        int64_t c = b % s->blocks * BLOCK, at = b / s->blocks * s->n * s->inner + c;
        fns[s->x->dt]((const char *)s->x->p + at * sx, (char *)s->y->p + at * sy, s->n, s->inner,
                      s->inner - c < BLOCK ? s->inner - c : BLOCK);
    }
}

static bool run(const td_kargs *k)
{
    const td_view *x = k->in[0];
    int64_t axis = ((const td_cumsum_attr *)k->attr)->axis, outer = 1, n = 1, inner = 1;
    if (axis < 0) axis += x->nd;
    for (int i = 0; i < x->nd; i++) *(i < axis ? &outer : i == axis ? &n : &inner) *= x->dim[i];
    scan s = {x, k->out[0], n, inner, (inner + BLOCK - 1) / BLOCK};
    st_share(st_threads(outer * n * inner, 2 * ST_MATH), outer * s.blocks, scan_blocks, &s);
    return true;
}

static const td_kernel rows[] = {CPU_KERNEL("cumsum", TD_BITS_ALL, 0, run)};
CPU_TABLE(scan, rows)

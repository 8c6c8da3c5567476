/* where.c - choice between two tensors by a mask of any dtype. Elements are moved, not looked at: by size, for all
 * dtypes. */
#include "convert.h"
#include "loops.h"

enum { PIECE = 1024 };

/* n elements of a mask as bytes, in place where they are bytes already. */
static const uint8_t *mask_piece(const char *p, td_dtype dt, int64_t step, int64_t n, uint8_t *room)
{
    if (step == 1) return (const uint8_t *)p;
    if (step == 0) memset(room, 0, (size_t)n);
    st_truth(room, p, dt, step, step ? n : 1);
    if (step == 0 && room[0]) memset(room, 1, (size_t)n);
    return room;
}

/* p[0] = p[1] (the mask) ? p[2] : p[3] */
#define WHERE(name, T)                                                                                      \
    static void name(const st_block *blk)                                                                   \
    {                                                                                                       \
        const td_dtype mask_dt = *(const td_dtype *)blk->ctx;                                               \
        const int64_t so = blk->step[0], sm = blk->step[1], sx = blk->step[2], sy = blk->step[3];           \
        const int64_t st = (int64_t)sizeof(T);                                                              \
        uint8_t room[PIECE];                                                                                \
        for (int64_t r = 0; r < blk->rows; r++) {                                                           \
            for (int64_t from = 0; from < blk->n; from += PIECE) {                                          \
                const int64_t n = blk->n - from < PIECE ? blk->n - from : PIECE;                            \
                char *po = blk->p[0] + r * blk->row[0] + from * so;                                         \
                const char *pm = blk->p[1] + r * blk->row[1] + from * sm;                                   \
                const char *px = blk->p[2] + r * blk->row[2] + from * sx;                                   \
                const char *py = blk->p[3] + r * blk->row[3] + from * sy;                                   \
                const uint8_t *m = mask_piece(pm, mask_dt, sm, n, room);                                    \
                T *o = (T *)po;                                                                             \
                const T *x = (const T *)px, *y = (const T *)py;                                             \
                if (so == st && sx == st && sy == st) {                                                     \
                    ST_SIMD                                                                                 \
                    for (int64_t i = 0; i < n; i++) {                                                       \
                        const T a = x[i], b = y[i];                                                         \
                        o[i] = m[i] ? a : b;                                                                \
                    }                                                                                       \
                } else if (so == st && sx == st && sy == 0) {                                               \
                    const T b = *y;                                                                         \
                    ST_SIMD                                                                                 \
                    for (int64_t i = 0; i < n; i++) {                                                       \
                        const T a = x[i];                                                                   \
                        o[i] = m[i] ? a : b;                                                                \
                    }                                                                                       \
                } else if (so == st && sx == 0 && sy == st) {                                               \
                    const T a = *x;                                                                         \
                    ST_SIMD                                                                                 \
                    for (int64_t i = 0; i < n; i++) {                                                       \
                        const T b = y[i];                                                                   \
                        o[i] = m[i] ? a : b;                                                                \
                    }                                                                                       \
                } else {                                                                                    \
                    for (int64_t i = 0; i < n; i++)                                                         \
                        *(T *)(po + i * so) = m[i] ? *(const T *)(px + i * sx) : *(const T *)(py + i * sy); \
                }                                                                                           \
            }                                                                                               \
        }                                                                                                   \
    }
WHERE(where_8, uint8_t)
WHERE(where_16, uint16_t)
WHERE(where_32, uint32_t)
WHERE(where_64, uint64_t)

static bool choose(const td_view *out, const td_view *mask, const td_view *x, const td_view *y)
{
    const td_view *v[4] = {out, mask, x, y};
    const td_dtype mask_dt = mask->dt;
    switch (td_dtype_size(out->dt)) {
    case 1: st_apply(v, 4, where_8, &mask_dt, ST_MOVE); break;
    case 2: st_apply(v, 4, where_16, &mask_dt, ST_MOVE); break;
    case 4: st_apply(v, 4, where_32, &mask_dt, ST_MOVE); break;
    default: st_apply(v, 4, where_64, &mask_dt, ST_MOVE); break;
    }
    return true;
}

static bool run_where(const td_kargs *k) { return choose(k->out[0], k->in[0], k->in[1], k->in[2]); }

/* The value as an element: NaN becomes 0 in integers, larger values the greatest or least. */
static bool run_masked_fill(const td_kargs *k)
{
    const double x = ((const td_masked_fill_attr *)k->attr)->value;
    uint64_t element;
    td_view one = {.p = &element, .dt = k->out[0]->dt};
    cv_store(&element, one.dt, x);
    return choose(k->out[0], k->in[1], &one, k->in[0]);
}

#define EVERY (TD_BITS_ALL | TD_BIT(TD_F16) | TD_BIT(TD_BF16))

static const td_kernel rows[] = {
    CPU_KERNEL("where", EVERY, TD_K_STRIDED | TD_K_ALIAS_OK | TD_K_POINTWISE, run_where),
    CPU_KERNEL("masked_fill", EVERY, TD_K_STRIDED | TD_K_ALIAS_OK | TD_K_POINTWISE, run_masked_fill),
};
CPU_TABLE(where, rows)

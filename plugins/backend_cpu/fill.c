/* fill.c - tensors of one value, and arange:  y_i = start + i step, in f64, then as the dtype. */
#include "convert.h"
#include "loops.h"

#define FILL(name, T)                                                                      \
    static void name(const st_block *blk)                                                  \
    {                                                                                      \
        const T value = *(const T *)blk->ctx;                                              \
        for (int64_t r = 0; r < blk->rows; r++) {                                          \
            char *p = blk->p[0] + r * blk->row[0];                                         \
            if (blk->step[0] == (int64_t)sizeof(T)) {                                      \
                ST_SIMD                                                                    \
                for (int64_t i = 0; i < blk->n; i++) ((T *)p)[i] = value;                  \
            } else {                                                                       \
                for (int64_t i = 0; i < blk->n; i++) *(T *)(p + i * blk->step[0]) = value; \
            }                                                                              \
        }                                                                                  \
    }
FILL(fill_8, uint8_t)
FILL(fill_16, uint16_t)
FILL(fill_32, uint32_t)
FILL(fill_64, uint64_t)

static bool fill(const td_kargs *k, double value)
{
    const td_view *y = k->out[0];
    uint64_t element = 0;
    cv_store(&element, y->dt, value);
    switch (td_dtype_size(y->dt)) {
    case 1: st_apply(&y, 1, fill_8, &element, ST_MOVE); break;
    case 2: st_apply(&y, 1, fill_16, &element, ST_MOVE); break;
    case 4: st_apply(&y, 1, fill_32, &element, ST_MOVE); break;
    default: st_apply(&y, 1, fill_64, &element, ST_MOVE); break;
    }
    return true;
}

static bool run_full(const td_kargs *k) { return fill(k, ((const td_full_attr *)k->attr)->value); }
static bool run_zeros(const td_kargs *k) { return fill(k, 0); }
static bool run_ones(const td_kargs *k) { return fill(k, 1); }
/* Whatever the memory held; not for bools, which must be 0 or 1. */
static bool run_empty(const td_kargs *k) { return k != NULL; }

static bool run_arange(const td_kargs *k)
{
    const td_arange_attr *a = k->attr;
    const td_view *y = k->out[0];
    int64_t n = y->dim[0];
    size_t step = td_dtype_size(y->dt);
    char *p = y->p;
    if (y->dt == TD_F32) {
        for (int64_t i = 0; i < n; i++) ((float *)p)[i] = (float)(a->start + (double)i * a->step);
    } else {
        for (int64_t i = 0; i < n; i++) cv_store(p + (size_t)i * step, y->dt, a->start + (double)i * a->step);
    }
    return true;
}

#define EVERY (TD_BITS_ALL | TD_BIT(TD_F16) | TD_BIT(TD_BF16))

static const td_kernel rows[] = {
    CPU_KERNEL("full", EVERY, TD_K_STRIDED, run_full),
    CPU_KERNEL("zeros", EVERY, TD_K_STRIDED, run_zeros),
    CPU_KERNEL("ones", EVERY, TD_K_STRIDED, run_ones),
    CPU_KERNEL("empty", EVERY & ~TD_BIT(TD_BOOL), TD_K_STRIDED, run_empty),
    CPU_KERNEL("arange", EVERY, 0, run_arange),
};
CPU_TABLE(fill, rows)

/* index.h - index tensors as kernels read them: i64, i32 or u8, 0-based, checked before anything is written. */
#ifndef TIDE_CPU_INDEX_H
#define TIDE_CPU_INDEX_H
#include "cpu.h"

static inline int64_t index_at(const td_view *v, int64_t i)
{
    if (v->dt == TD_I64) return ((const int64_t *)v->p)[i];
    if (v->dt == TD_I32) return ((const int32_t *)v->p)[i];
    return ((const uint8_t *)v->p)[i];
}

/** An index as a Lua user counts: from 1; what was 0 there has arrived as the least integer. */
static inline long long index_shown(int64_t i) { return i == INT64_MIN ? 0 : i < 0 ? i : i + 1; }

/** Whether all of v lie in 0 .. extent - 1; false after td_fail. */
static inline bool indices_ok(const char *op, const td_view *v, int64_t extent)
{
    int64_t n = td_view_numel(v), outside = 0, i = 0;
    if (v->dt == TD_I64) {
        const int64_t *p = v->p;
        for (int64_t k = 0; k < n; k++) outside |= (uint64_t)p[k] >= (uint64_t)extent;
    } else {
        for (int64_t k = 0; k < n; k++) outside |= (uint64_t)index_at(v, k) >= (uint64_t)extent;
    }
    if (!outside) return true;
    while ((uint64_t)index_at(v, i) < (uint64_t)extent) i++;
    if (!extent) return td_fail("%s: index %lld is outside an axis without elements", op, index_shown(index_at(v, i)));
    return td_fail("%s: index %lld is outside 1..%lld", op, index_shown(index_at(v, i)), (long long)extent);
}

#endif
